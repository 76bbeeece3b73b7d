//! How a run is told while it goes: live on a terminal, in lines, or as JSON. All of them see the same events.

pub(crate) mod json;
pub(crate) mod lines;
mod output;
mod said;
mod screen;
mod summary;
pub(crate) mod tty;

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use runback_core::state::RunState;
use runback_exec::reporter::Reporter;

use crate::term;

/// `--output` of the verbs that drive a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RunFormat {
    /// A live view
    Tty,
    /// One line per event, for pipes and CI
    #[value(alias = "text")]
    Lines,
    /// One JSON event per line
    Json,
}

impl RunFormat {
    /// What was asked for, or what stdout can do.
    pub(crate) fn chosen(asked: Option<Self>) -> Self {
        match asked {
            // Without cursor movements there is no live view, whoever asks for it.
            Some(Self::Tty) | None if term::can_redraw() => Self::Tty,
            Some(Self::Json) => Self::Json,
            _ => Self::Lines,
        }
    }
}

/// What a later process wants with a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TakenUp {
    Forward,
    Back,
}

/// A reporter with a first and a last word.
pub(crate) trait Report: Reporter {
    /// An existing run is taken up.
    fn taken_up(&mut self, _state: &RunState, _what: TakenUp) {}

    /// This process drives the run no more. `logs` is where its output lies.
    fn end(&mut self, state: &RunState, status: &str, logs: Option<&Path>);
}

/// `logs` is where the output of its attempts lies.
pub(crate) fn new(format: RunFormat, quiet: bool, logs: Option<PathBuf>) -> Box<dyn Report> {
    match format {
        RunFormat::Json => Box::new(json::Json),
        _ if quiet => Box::new(lines::Quiet::default()),
        RunFormat::Tty => Box::new(tty::Tty::default()),
        RunFormat::Lines => Box::new(lines::Lines::new(logs)),
    }
}

/// For a simulation: the clock counts from its start, and there is nothing to type next.
pub(crate) fn simulated(format: RunFormat, quiet: bool) -> Box<dyn Report> {
    match format {
        RunFormat::Json => Box::new(json::Json),
        _ if quiet => Box::new(lines::Quiet::simulated()),
        RunFormat::Tty | RunFormat::Lines => Box::new(lines::Lines::simulated()),
    }
}
