//! A run in lines, for pipes, CI and logs: a clock, a sign, what happened, and what the steps write. And nothing at all
//! for `--quiet`, unless something is wrong.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use runback_core::event::{Event, EventBody};
use runback_core::state::{NodeId, RunState, UndoStatus};
use runback_exec::reporter::{Notice, Reporter};

use super::output::Output;
use super::said::{said_of, taken_up};
use super::{Report, TakenUp, summary};
use crate::simulate::START;
use crate::term::{self, BLUE, DIM, RESET, YELLOW};
use crate::{next, words};

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
    output: Option<Output>,
}

impl Lines {
    pub(super) fn new(logs: Option<PathBuf>) -> Self {
        Self { output: logs.map(Output::new), ..Self::default() }
    }

    /// What a step has written since it was last looked at.
    fn tell_output(&mut self, state: &RunState, node: NodeId, (attempt, undo): (u32, bool), at: u64, over: bool) {
        let lines = self.output.as_mut().map(|o| o.more(state, node, attempt, undo, over)).unwrap_or_default();
        for line in lines {
            self.say(at, &format!("{DIM}│ {}:{RESET} {line}", state.path(node)));
        }
    }

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

/// The step whose attempt or undo is over, and which one it was: the state may be past it, for it is told of a whole
/// commit at once.
fn ended<'e>(state: &RunState, event: &'e Event) -> Option<(&'e str, (u32, bool))> {
    match &event.body {
        EventBody::AttemptSucceeded { step, attempt, .. } | EventBody::AttemptFailed { step, attempt, .. } => {
            Some((step, (*attempt, false)))
        }
        EventBody::UndoSucceeded { step, attempt, .. } | EventBody::UndoFailed { step, attempt, .. } => {
            Some((step, (*attempt, true)))
        }
        // The last of a run that is left: nothing has followed it.
        EventBody::AttemptInterrupted { step, attempt } => {
            let undo = state.find(step).is_some_and(|n| state.node(n).undo != UndoStatus::None);
            Some((step, (*attempt, undo)))
        }
        _ => None,
    }
}

impl Reporter for Lines {
    fn event(&mut self, state: &RunState, event: &Event) {
        self.last_at = self.last_at.max(event.at);
        if let Some((step, which)) = ended(state, event)
            && let Some(node) = state.find(step)
        {
            self.tell_output(state, node, which, event.at, true);
        }
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
            Notice::Warning { message } => {
                self.say(self.last_at, &format!("{YELLOW}!{RESET} {}", next::in_text(message)));
            }
            _ => {}
        }
    }

    fn tick(&mut self, state: &RunState, now: u64) {
        let long = |n: &NodeId| {
            let since = words::at_it_since(state, *n);
            state.node(*n).question().is_none() && since.is_some_and(|at| now.saturating_sub(at) >= LONG)
        };
        for node in state.active().filter(long).collect::<Vec<_>>() {
            let attempts = state.node(node).attempts;
            if self.announced.insert((node, attempts)) {
                let attempt = if attempts > 1 { format!(", attempt {attempts}") } else { String::new() };
                self.say(now, &format!("{BLUE}●{RESET} {} runs{attempt}", state.path(node)));
            }
        }
        for node in state.active().collect::<Vec<_>>() {
            self.tell_output(state, node, (state.node(node).attempts, false), now, false);
        }
        for node in state.active_undos().collect::<Vec<_>>() {
            self.tell_output(state, node, (state.node(node).undo_attempts, true), now, false);
        }
    }
}

impl Report for Lines {
    fn taken_up(&mut self, state: &RunState, what: TakenUp) {
        self.say(words::now_ms(), &taken_up(state, what));
    }

    fn end(&mut self, state: &RunState, status: &str, logs: Option<&Path>) {
        term::line("");
        last_word(self.from.is_some(), state, status, logs);
    }
}

fn last_word(simulated: bool, state: &RunState, status: &str, logs: Option<&Path>) {
    let text = if simulated { summary::simulated(state, status) } else { summary::text(state, status, logs) };
    term::line(text.trim_end());
}

/// Keeps silent about what goes well.
#[derive(Debug, Default)]
pub(crate) struct Quiet {
    warnings: Vec<String>,
    simulated: bool,
    /// The run is to be taken back: that it is, is success.
    back: bool,
}

impl Quiet {
    pub(super) fn simulated() -> Self {
        Self { simulated: true, ..Self::default() }
    }
}

impl Reporter for Quiet {
    fn event(&mut self, _state: &RunState, _event: &Event) {}

    fn notice(&mut self, _state: &RunState, notice: &Notice<'_>) {
        if let Notice::Warning { message } = notice {
            self.warnings.push(next::in_text(message).into_owned());
        }
    }
}

impl Report for Quiet {
    fn taken_up(&mut self, _state: &RunState, what: TakenUp) {
        self.back = what == TakenUp::Back;
    }

    fn end(&mut self, state: &RunState, status: &str, logs: Option<&Path>) {
        let succeeded = if self.back { "rolled-back" } else { "succeeded" };
        if status == succeeded && state.output_errors.is_empty() {
            return;
        }
        for warning in &self.warnings {
            term::line(&format!("{YELLOW}!{RESET} {warning}"));
        }
        last_word(self.simulated, state, status, logs);
    }
}
