//! The store of this command line: where it is, and how it is opened.

use std::future::Future;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use runback_exec::store::{Commits, SqliteStore, Store, StoreError, default_state_dir};

use crate::exit::Exit;
use crate::failure::Failure;

/// What was given, or else what the platform says. Absolute.
pub(crate) fn path(given: Option<&Path>) -> Result<PathBuf, Failure> {
    let dir = given.map(Path::to_owned).or_else(default_state_dir);
    let Some(dir) = dir else {
        let failure = Failure::usage("there is no place for the journal: neither HOME nor XDG_STATE_HOME is set");
        return Err(failure.help("name one with --state-dir DIR or RUNBACK_STATE_DIR"));
    };
    unexpanded(&dir)?;
    std::path::absolute(&dir).map_err(|e| Failure::usage(format!("{}: {e}", dir.display())))
}

/// A shell expands a `~` only at the beginning of a word: in `--state-dir=~/x`, in a crontab's settings and in a unit of
/// systemd it is left, and would be a folder of that name with a store that nobody finds again.
fn unexpanded(dir: &Path) -> Result<(), Failure> {
    let Some(Component::Normal(first)) = dir.components().next() else { return Ok(()) };
    if !first.as_encoded_bytes().starts_with(b"~") {
        return Ok(());
    }
    let meant = match dir.strip_prefix("~").ok().zip(std::env::home_dir()) {
        Some((rest, home)) => format!(" `{}`", home.join(rest).display()),
        None => String::new(),
    };
    Err(Failure::usage(format!("the state folder `{0}` begins with `~`, which no shell has expanded", dir.display()))
        .help(format!("write the path out{meant}, or `./{}` for a folder of that name", dir.display())))
}

/// Opens the store, and makes it where there is none.
pub(crate) fn open(given: Option<&Path>) -> Result<Arc<dyn Store>, Failure> {
    open_at(&path(given)?)
}

fn open_at(dir: &Path) -> Result<Arc<dyn Store>, Failure> {
    let store = SqliteStore::open_with(dir, Commits::OnCaller);
    Ok(Arc::new(store.map_err(|error| nothing_was_started(error.into()))?))
}

/// Whatever was wrong, there is no run that failed.
pub(crate) fn nothing_was_started(failure: Failure) -> Failure {
    if failure.exit == Exit::Failed { Failure { exit: Exit::Usage, ..failure } } else { failure }
}

fn look_at(dir: &Path) -> Result<Arc<dyn Store>, Failure> {
    let store = SqliteStore::open_to_look(dir);
    Ok(Arc::new(store.map_err(|error| nothing_was_started(error.into()))?))
}

type Opener = fn(&Path) -> Result<Arc<dyn Store>, Failure>;

/// Where there is no store, none is made.
fn existing(given: Option<&Path>, open: Opener) -> Result<Option<Arc<dyn Store>>, Failure> {
    let dir = path(given)?;
    // A place that cannot be looked into, or a link to nowhere, is not one where nothing was run.
    let nothing = matches!(dir.try_exists(), Ok(false)) && !dir.is_symlink();
    if nothing { Ok(None) } else { open(&dir).map(Some) }
}

/// A store that must be there, because a run of it was named.
fn with_run(given: Option<&Path>, run: &str, open: Opener) -> Result<Arc<dyn Store>, Failure> {
    existing(given, open)?.ok_or_else(|| {
        let dir = path(given).map_or_else(|_| String::new(), |d| format!(" in {}", d.display()));
        Failure::usage(format!("there is no run `{run}`: nothing was run yet{dir}"))
            .help("check --state-dir and RUNBACK_STATE_DIR, or start one: runback run FILE")
    })
}

/// Opens the store that is there, to write to it.
pub(crate) fn open_existing(given: Option<&Path>) -> Result<Option<Arc<dyn Store>>, Failure> {
    existing(given, open_at)
}

/// Opens the store that is there to look into it, also where nothing can be written.
pub(crate) fn look_into(given: Option<&Path>) -> Result<Option<Arc<dyn Store>>, Failure> {
    existing(given, look_at)
}

/// The store of a run that is to go on, or to be told something.
pub(crate) fn of_run(given: Option<&Path>, run: &str) -> Result<Arc<dyn Store>, Failure> {
    with_run(given, run, open_at)
}

/// The store of a run that is looked at, also where nothing can be written.
pub(crate) fn of_run_to_look(given: Option<&Path>, run: &str) -> Result<Arc<dyn Store>, Failure> {
    with_run(given, run, look_at)
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let exit = match &error {
            StoreError::RunExists { .. }
            | StoreError::Fired { .. }
            | StoreError::UnknownRun { .. }
            | StoreError::Ambiguous { .. }
            | StoreError::BadRunId { .. }
            | StoreError::NotAFolder { .. }
            | StoreError::Newer { .. }
            | StoreError::Older { .. } => Exit::Usage,
            StoreError::Busy { .. } => Exit::Refused,
            _ => Exit::Failed,
        };
        Failure { exit, ..Failure::failed(error.to_string()).help(error.help()) }
    }
}

/// Runs async work on this thread. What still hangs on a blocking thread at the end is not waited for.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(work);
    runtime.shutdown_background();
    result
}
