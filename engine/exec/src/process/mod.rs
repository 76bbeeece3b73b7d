//! Commands as process trees: start, stream, wait, stop a whole tree, and leave nothing behind. Knows nothing of
//! steps, runs or the journal.
//!
//! Every command has a session of its own and a cookie in its environment, by which whatever it forks is found
//! again. A cookie lives as long as its command: a daemon that a command started and left behind on purpose is
//! not ours once the command has ended, neither to stop nor for the guard. Needs Linux 5.4 (pidfd).

pub(crate) mod child;
pub mod guard;
pub(crate) mod kill;
pub(crate) mod output;
pub(crate) mod program;
pub(crate) mod spawn;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use runback_core::target::{Command, Exit, TargetError, TargetErrorKind, Watch};

use self::guard::{Guard, GuardCommand, Slot};
use self::spawn::CStrings;

/// The environment variable that marks what a command started.
pub const COOKIE: &str = "RUNBACK_COOKIE";

/// What all commands of this process share: the environment as it was at the start, the cookies, the guard.
/// One per process is enough, and every target on this machine borrows it.
pub struct Processes {
    /// Differs between any two processes, on any boot.
    unique: String,
    last: AtomicU64,
    /// `NAME` and `NAME=value`, without our cookie.
    environment: Vec<(Vec<u8>, Vec<u8>)>,
    guard_command: Option<GuardCommand>,
    guard: OnceLock<Option<Guard>>,
    warn: Box<dyn Fn(&str) + Send + Sync>,
    /// Children that were killed and were not yet dead when nobody waited for them any more.
    unreaped: Mutex<Vec<(OwnedFd, Option<Slot>)>>,
    scratch_path: PathBuf,
    /// It was made.
    scratch: Mutex<bool>,
}

/// Where the folder of [`Processes::scratch`] is. Always in /tmp: a socket's path has at most 107 bytes, and the guard
/// has no environment to ask. The name cannot be guessed by others.
pub(crate) fn scratch_path(unique: &str) -> PathBuf {
    Path::new("/tmp").join(format!("runback-{unique}"))
}

impl Drop for Processes {
    fn drop(&mut self) {
        if *self.scratch.get_mut().unwrap_or_else(PoisonError::into_inner) {
            let _ = std::fs::remove_dir_all(&self.scratch_path);
        }
    }
}

impl fmt::Debug for Processes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Processes").field("unique", &self.unique).finish_non_exhaustive()
    }
}

impl Processes {
    /// The guard starts with the first command. `warn` gets a sentence when it cannot: commands still run then,
    /// and only a `kill -9` of this process would leave them behind.
    pub fn new(guard: GuardCommand, warn: impl Fn(&str) + Send + Sync + 'static) -> Arc<Self> {
        Self::build(Some(guard), Box::new(warn))
    }

    /// For tests and tools in whose binary [`guard::main`] cannot be reached.
    pub fn without_guard() -> Arc<Self> {
        Self::build(None, Box::new(|_| {}))
    }

    fn build(guard_command: Option<GuardCommand>, warn: Box<dyn Fn(&str) + Send + Sync>) -> Arc<Self> {
        spawn::keep_exit_codes();
        let environment = std::env::vars_os()
            .filter(|(name, _)| name != COOKIE)
            .map(|(name, value)| {
                let name = name.into_vec();
                let entry = [name.as_slice(), b"=", value.as_bytes()].concat();
                (name, entry)
            })
            .collect();
        let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
        let unique = format!("{}-{random:016x}", std::process::id());
        Arc::new(Self {
            scratch_path: scratch_path(&unique),
            scratch: Mutex::new(false),
            unique,
            last: AtomicU64::new(0),
            environment,
            guard_command,
            guard: OnceLock::new(),
            warn,
            unreaped: Mutex::default(),
        })
    }

    /// Runs a command to its end: its output goes to `watch` as it comes, and when the watch says stop, or the
    /// command's own timeout is over, its whole tree is stopped. `cwd` is where it runs unless it names a folder.
    pub async fn run(self: &Arc<Self>, command: &Command, cwd: &Path, watch: &dyn Watch) -> Result<Exit, TargetError> {
        child::run(self, command, cwd, watch, None).await
    }

    /// As [`Processes::run`], with a descriptor of the caller's (3 or higher) as standard input, so that its other
    /// end can stay open: `command.stdin` is None then.
    pub(crate) async fn run_with_stdin(
        self: &Arc<Self>,
        command: &Command,
        cwd: &Path,
        watch: &dyn Watch,
        stdin: OwnedFd,
    ) -> Result<Exit, TargetError> {
        child::run(self, command, cwd, watch, Some(stdin)).await
    }

    /// A private folder with a short name for sockets, made when first asked for. It goes with this value, and the
    /// guard removes it after a `kill -9`.
    pub(crate) fn scratch(&self) -> std::io::Result<&Path> {
        use std::os::unix::fs::DirBuilderExt as _;
        let mut made = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        if !*made {
            std::fs::DirBuilder::new().mode(0o700).create(&self.scratch_path)?;
            *made = true;
        }
        Ok(&self.scratch_path)
    }

    fn next(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The entry of a child's environment that marks it.
    fn cookie(&self, number: u64) -> String {
        format!("{COOKIE}={}.{number}", self.unique)
    }

    /// The environment for a child: ours, the command's own over it, and a cookie as `NAME=value`.
    pub(crate) fn environment(&self, own: &BTreeMap<String, String>, cookie: &str) -> Result<CStrings, TargetError> {
        let mut strings = CStrings::default();
        let inherited = |name: &[u8]| !std::str::from_utf8(name).is_ok_and(|name| own.contains_key(name));
        for (_, entry) in self.environment.iter().filter(|(name, _)| inherited(name)) {
            // What exec gave us holds no NUL.
            let _ = strings.push(&[entry]);
        }
        for (name, value) in own.iter().filter(|(name, _)| *name != COOKIE) {
            if name.is_empty() || name.contains('=') || !strings.push(&[name.as_bytes(), b"=", value.as_bytes()]) {
                let why = if name.is_empty() || name.contains('=') {
                    "a name is not empty and has no ="
                } else {
                    "neither names nor values can hold a NUL byte"
                };
                let message = format!("the environment variable {name:?} cannot be set: {why}");
                return Err(TargetError::new(TargetErrorKind::Other, message));
            }
        }
        if !strings.push(&[cookie.as_bytes()]) {
            return Err(TargetError::new(TargetErrorKind::Other, "the folder of records has a NUL byte in its name"));
        }
        Ok(strings)
    }

    /// The PATH that a command with this environment is searched in.
    pub(crate) fn search_path<'a>(&'a self, own: &'a BTreeMap<String, String>) -> Option<&'a OsStr> {
        if let Some(path) = own.get("PATH") {
            return Some(OsStr::new(path));
        }
        let (_, entry) = self.environment.iter().find(|(name, _)| name == b"PATH")?;
        Some(OsStr::from_bytes(&entry[b"PATH=".len()..]))
    }

    /// The guard, started when first asked for.
    fn guard(&self) -> Option<&Guard> {
        let start = || {
            let command = self.guard_command.as_ref()?;
            match Guard::start(command, &self.unique) {
                Ok(guard) => Some(guard),
                Err(e) => {
                    (self.warn)(&format!(
                        "the guard {command} did not start ({e}): if runback is killed with -9, commands that run \
                         at that moment are left behind"
                    ));
                    None
                }
            }
        };
        self.guard.get_or_init(start).as_ref()
    }

    fn leave(&self, slot: Option<Slot>) {
        if let (Some(slot), Some(guard)) = (slot, self.guard()) {
            guard.leave(slot);
        }
    }

    /// Takes the exit codes of killed children that nobody waits for; those still dying are kept for next time.
    fn reap(&self) {
        let mut unreaped = self.unreaped.lock().unwrap_or_else(PoisonError::into_inner);
        if unreaped.is_empty() {
            return;
        }
        for (pidfd, slot) in std::mem::take(&mut *unreaped) {
            if child::has_exited(&pidfd) {
                self.leave(slot);
                child::reap(&pidfd);
            } else {
                unreaped.push((pidfd, slot));
            }
        }
    }

    fn reap_later(&self, pidfd: OwnedFd, slot: Option<Slot>) {
        self.unreaped.lock().unwrap_or_else(PoisonError::into_inner).push((pidfd, slot));
    }
}
