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
use crate::term::{self, BOLD, DIM, RESET};
use crate::{journal, next, state_dir};

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
    let store = state_dir::of_run_to_look(dir, &arguments.run)?;
    state_dir::block_on(print(arguments, store.as_ref()))
}

async fn print(arguments: &Arguments, store: &dyn Store) -> Done {
    let catalog = runback_steps::catalog();
    let id = store.resolve(&arguments.run).await?;
    let mut printed: Vec<Printing> = Vec::new();
    let mut last = Last::default();
    let mut run = journal::read(store, &id, &catalog).await?;
    loop {
        let dir = store.logs_dir(&id).ok_or_else(|| Failure::failed("this store keeps no output"))?;
        let wanted = wanted(arguments, &run.state)?;
        let many = wanted.len() > 1;
        for name in wanted {
            if !printed.iter().any(|p| p.name == name) {
                let files = LogFiles::new(&dir, &name.as_log());
                printed.push(Printing { files, name, at: 0, titled: many, rest: Vec::new() });
            }
        }
        let goes_on = arguments.follow && run.owner.is_some();
        for log in &mut printed {
            log.more(&mut last)?;
            if !goes_on {
                log.finish();
            }
            if term::stdout_gone() {
                return Ok(Exit::Succeeded);
            }
        }
        if !goes_on {
            break;
        }
        tokio::time::sleep(POLL).await;
        // Asked first, so that what its last moment brought is still printed.
        run.owner = store.owner(&id).await?;
        journal::advance(store, &id, &mut run.state).await?;
    }
    if last.name.is_none() {
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
    /// It is not the only one.
    titled: bool,
    /// For a terminal: what may be the beginning of a character or of an escape sequence.
    rest: Vec<u8>,
}

/// What stands last on stdout.
#[derive(Default)]
struct Last {
    name: Option<Name>,
    is_open: bool,
}

impl Printing {
    fn more(&mut self, last: &mut Last) -> Result<(), Failure> {
        let read = |files: &LogFiles, at| {
            files.read(at, CHUNK).map_err(|e| Failure::failed(format!("{}: {e}", files.path().display())))
        };
        while let Some(piece) = read(&self.files, self.at)? {
            if last.name.as_ref() != Some(&self.name) {
                // What is followed comes in turns: each says whose it is.
                if self.titled || last.name.is_some() {
                    let undo = if self.name.undo { ", undo" } else { "" };
                    let open = if last.is_open { "\n" } else { "" };
                    let Name { step, attempt, .. } = &self.name;
                    term::line(&format!("{open}{BOLD}── {step}{RESET}{DIM}, attempt {attempt}{undo}{RESET}"));
                }
                last.name = Some(self.name.clone());
            }
            self.at = piece.next();
            let marker = piece.marker();
            last.is_open = piece.bytes.last().is_some_and(|byte| *byte != b'\n');
            let went_on = if term::is_seen() { self.show(&marker, &piece.bytes) } else { raw(&marker, &piece.bytes) };
            if !went_on {
                break;
            }
        }
        Ok(())
    }

    /// What a command printed does not steer the terminal of who reads it.
    fn show(&mut self, marker: &str, bytes: &[u8]) -> bool {
        self.rest.extend_from_slice(marker.as_bytes());
        self.rest.extend_from_slice(bytes);
        let text = take_whole(&mut self.rest);
        term::write(&term::tame_log(&String::from_utf8_lossy(&text)))
    }

    /// Nothing more comes.
    fn finish(&mut self) {
        let rest = std::mem::take(&mut self.rest);
        term::write(&term::tame_log(&String::from_utf8_lossy(&rest)));
    }
}

/// Whole lines, and what follows them unless that may be the beginning of something.
fn take_whole(bytes: &mut Vec<u8>) -> Vec<u8> {
    let line = bytes.iter().rposition(|b| matches!(b, b'\n' | b'\r')).map_or(0, |at| at + 1);
    let tail = &bytes[line..];
    let is_plain = !tail.contains(&b'\x1b') && std::str::from_utf8(tail).is_ok();
    let after = bytes.split_off(if is_plain { bytes.len() } else { line });
    std::mem::replace(bytes, after)
}

fn raw(marker: &str, bytes: &[u8]) -> bool {
    term::write_raw(marker.as_bytes()) && term::write_raw(bytes)
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
    if let (Some(step), Some(attempt), true, false) =
        (&arguments.step, arguments.attempt, names.is_empty(), arguments.follow)
    {
        let what = if arguments.undo { "undo" } else { "attempt" };
        let help = format!(
            "all that it printed: {}",
            next::as_typed(&format!("runback logs {} {}", state.run_id(), next::word(step)))
        );
        return Err(Failure::usage(format!("{step} of run {} had no {what} {attempt}", state.run_id())).help(help));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_in_the_middle_waits_for_its_end() {
        let mut rest = Vec::new();
        let mut shown = String::new();
        for piece in [&b"one\ntw"[..], b"o\x1b[", b"2Jthree\r", b"\xc3", b"\xa4", b"\nfour\x1b]0;x"] {
            rest.extend_from_slice(piece);
            shown.push_str(&term::tame_log(&String::from_utf8_lossy(&take_whole(&mut rest))));
        }
        assert_eq!(shown, "one\ntwothree\r\u{e4}\n");
        assert_eq!(rest, b"four\x1b]0;x");
    }
}
