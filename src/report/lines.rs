//! A run in lines, for pipes, CI and logs: a clock, a sign, what happened. And nothing at all for `--quiet`, unless
//! something is wrong.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use runback_core::event::Event;
use runback_core::state::{NodeId, RunState};
use runback_exec::reporter::{Notice, Reporter};

use super::said::{said_of, taken_up};
use super::{Report, TakenUp, summary};
use crate::simulate::START;
use crate::term::{self, BLUE, DIM, RESET, YELLOW};
use crate::words;

/// A step that takes longer than this is announced before it ends, in milliseconds.
const LONG: u64 = 2_000;

#[derive(Debug, Default)]
pub(crate) struct Lines {
    announced: HashSet<(NodeId, u32)>,
    /// What was last said about locks.
    waits: HashMap<Option<NodeId>, String>,
    last_at: u64,
    /// The clock counts from here.
    from: Option<u64>,
}

impl Lines {
    pub(super) fn simulated() -> Self {
        Self { from: Some(START), ..Self::default() }
    }

    fn say(&mut self, at: u64, text: &str) {
        self.last_at = self.last_at.max(at);
        let clock = match self.from {
            None => words::clock(at),
            Some(from) => format!("{:>7}", format!("+{}", words::duration(at.saturating_sub(from)))),
        };
        term::line(&format!("{DIM}{clock}{RESET} {text}"));
    }
}

impl Reporter for Lines {
    fn event(&mut self, state: &RunState, event: &Event) {
        self.last_at = self.last_at.max(event.at);
        if let Some(said) = said_of(state, event) {
            self.say(event.at, &said.line());
        }
    }

    fn notice(&mut self, state: &RunState, notice: &Notice<'_>) {
        match notice {
            Notice::LockWait { node, why } => {
                let before = self.waits.insert(*node, (*why).to_owned());
                let who = node.map_or_else(|| "the run".to_owned(), |n| state.path(n).to_string());
                if before.as_deref() != Some(why) {
                    self.say(self.last_at, &format!("{YELLOW}…{RESET} {who} waits: {why}"));
                }
            }
            Notice::Warning { message } => self.say(self.last_at, &format!("{YELLOW}!{RESET} {message}")),
            _ => {}
        }
    }

    fn tick(&mut self, state: &RunState, now: u64) {
        let long = |n: &NodeId| {
            let node = state.node(*n);
            node.question().is_none() && node.started_at.is_some_and(|at| now.saturating_sub(at) >= LONG)
        };
        for node in state.active().filter(long).collect::<Vec<_>>() {
            let attempts = state.node(node).attempts;
            if self.announced.insert((node, attempts)) {
                let attempt = if attempts > 1 { format!(", attempt {attempts}") } else { String::new() };
                self.say(now, &format!("{BLUE}●{RESET} {} runs{attempt}", state.path(node)));
            }
        }
    }
}

impl Report for Lines {
    fn taken_up(&mut self, state: &RunState, what: TakenUp) {
        self.say(words::now_ms(), &taken_up(state, what));
    }

    fn end(&mut self, state: &RunState, status: &str, logs: Option<&Path>) {
        term::line("");
        let text =
            if self.from.is_some() { summary::simulated(state, status) } else { summary::text(state, status, logs) };
        term::line(text.trim_end());
    }
}

/// Keeps silent about what goes well.
#[derive(Debug, Default)]
pub(crate) struct Quiet {
    warnings: Vec<String>,
}

impl Reporter for Quiet {
    fn event(&mut self, _state: &RunState, _event: &Event) {}

    fn notice(&mut self, _state: &RunState, notice: &Notice<'_>) {
        if let Notice::Warning { message } = notice {
            self.warnings.push((*message).to_owned());
        }
    }
}

impl Report for Quiet {
    fn end(&mut self, state: &RunState, status: &str, logs: Option<&Path>) {
        if status == "succeeded" {
            return;
        }
        for warning in &self.warnings {
            term::line(&format!("{YELLOW}!{RESET} {warning}"));
        }
        term::line(summary::text(state, status, logs).trim_end());
    }
}
