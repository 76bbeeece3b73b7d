//! `runback logs`: what the commands of a run printed, from the files beside the store.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use runback_core::state::{NodeId, RunState};
use runback_core::suggest::did_you_mean;
use runback_exec::output::{LogFiles, LogName};
use runback_exec::store::Store;

use crate::exit::Exit;
use crate::failure::{Done, Failure};
use crate::journal;
use crate::state_dir;
use crate::term::{self, BOLD, DIM, RESET};

/// Print the output of a run's commands
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A run's id, the beginning of one, or `last`
    #[arg(value_name = "RUN", default_value = "last")]
    run: String,

    /// A step such as `build` or `deploy/convert[web1]`; all where none is named
    #[arg(value_name = "STEP")]
    step: Option<String>,

    /// One attempt, from 1; default: all of them
    #[arg(long, value_name = "N")]
    attempt: Option<u32>,

    /// The output of undos
    #[arg(long)]
    undo: bool,

    /// Go on as more is printed, until the run ends
    #[arg(long, short)]
    follow: bool,
}

/// How often more output is looked for.
const POLL: Duration = Duration::from_millis(100);
const CHUNK: usize = 256 << 10;

pub(crate) fn run(arguments: &Arguments, dir: Option<&Path>) -> Done {
    let store = state_dir::of_run(dir, &arguments.run)?;
    state_dir::block_on(print(arguments, store.as_ref()))
}

async fn print(arguments: &Arguments, store: &dyn Store) -> Done {
    let catalog = runback_steps::catalog();
    let id = store.resolve(&arguments.run).await?;
    let mut printed: Vec<Printing> = Vec::new();
    let mut anything = false;
    let mut run = journal::read(store, &id, &catalog).await?;
    loop {
        let dir = store.logs_dir(&id).ok_or_else(|| Failure::failed("this store keeps no output"))?;
        let wanted = wanted(arguments, &run.state)?;
        let many = wanted.len() > 1;
        for name in wanted {
            if !printed.iter().any(|p| p.name == name) {
                let files = LogFiles::new(&dir, &name.as_log());
                printed.push(Printing { files, name, at: 0, titled: !many });
            }
        }
        for log in &mut printed {
            anything |= log.more()?;
            if term::stdout_gone() {
                return Ok(Exit::Succeeded);
            }
        }
        if !arguments.follow || run.owner.is_none() {
            break;
        }
        tokio::time::sleep(POLL).await;
        // Asked first, so that what its last moment brought is still printed.
        run.owner = store.owner(&id).await?;
        journal::advance(store, &id, &mut run.state).await?;
    }
    if !anything {
        let what = arguments.step.as_ref().map(|s| format!(" of {s}")).unwrap_or_default();
        term::note(&format!("{DIM}no output{what} in run {id}{RESET}"));
    }
    Ok(Exit::Succeeded)
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Name {
    step: String,
    attempt: u32,
    undo: bool,
}

impl Name {
    fn as_log(&self) -> LogName<'_> {
        LogName { step: &self.step, attempt: self.attempt, undo: self.undo }
    }
}

/// A log, and how far it has been printed.
struct Printing {
    files: LogFiles,
    name: Name,
    at: u64,
    titled: bool,
}

impl Printing {
    fn more(&mut self) -> Result<bool, Failure> {
        let mut any = false;
        let read = |at| {
            self.files.read(at, CHUNK).map_err(|e| Failure::failed(format!("{}: {e}", self.files.path().display())))
        };
        while let Some(piece) = read(self.at)? {
            if !std::mem::replace(&mut self.titled, true) {
                let undo = if self.name.undo { ", undo" } else { "" };
                term::line(&format!(
                    "{BOLD}── {}{RESET}{DIM}, attempt {}{undo}{RESET}",
                    self.name.step, self.name.attempt
                ));
            }
            self.at = piece.next();
            any = true;
            if !term::write_raw(piece.marker().as_bytes()) || !term::write_raw(&piece.bytes) {
                return Ok(true);
            }
        }
        Ok(any)
    }
}

fn wanted(arguments: &Arguments, state: &RunState) -> Result<Vec<Name>, Failure> {
    let mut nodes: Vec<NodeId> = match &arguments.step {
        None => state.ids().collect(),
        Some(step) => {
            let exact = state.find(step);
            let inside = |n: &NodeId| {
                let path = state.path(*n);
                path.strip_prefix(step.as_str()).is_some_and(|rest| rest.starts_with(['/', '[']))
            };
            let found: Vec<NodeId> = exact.into_iter().chain(state.ids().filter(inside)).collect();
            if found.is_empty() {
                return Err(no_step(state, step));
            }
            found
        }
    };
    nodes.sort_by_key(|n| state.node(*n).start_seq);
    let mut names = Vec::new();
    for node in nodes {
        let n = state.node(node);
        let count = if arguments.undo { n.undo_attempts } else { n.attempts };
        for attempt in 1..=count {
            if arguments.attempt.is_none_or(|a| a == attempt) {
                names.push(Name { step: n.path.to_string(), attempt, undo: arguments.undo });
            }
        }
    }
    Ok(names)
}

/// A step's name that no step of the run has.
pub(crate) fn no_step(state: &RunState, step: &str) -> Failure {
    let meant = did_you_mean(step, state.ids().map(|n| &**state.path(n)));
    let names: Vec<&str> = state.ids().take(20).map(|n| &**state.path(n)).collect();
    let meant = meant.map(|name| format!("did you mean `{name}`? ")).unwrap_or_default();
    Failure::usage(format!("run {} has no step `{step}`", state.run_id()))
        .help(format!("{meant}its steps are {}", names.join(", ")))
}
