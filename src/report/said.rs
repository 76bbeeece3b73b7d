//! Events in words, for people. What is not worth a line is None. Shared by the live view and the lines.

use runback_core::event::{CancelReason, Event, EventBody, Resolution, RollbackReason, SkipReason};
use runback_core::state::RunState;
use runback_core::step::{Access, Answer, Class, StepError};

use super::TakenUp;
use crate::term::{BLUE, CYAN, DIM, GREEN, RED, RESET, YELLOW};
use crate::{next, words};

/// One line, with colours.
pub(super) struct Said {
    sign: &'static str,
    color: &'static str,
    text: String,
}

impl Said {
    pub(super) fn line(&self) -> String {
        format!("{}{}{RESET} {}", self.color, self.sign, self.text)
    }
}

/// The first line about a run that was there already.
pub(super) fn taken_up(state: &RunState, what: TakenUp) -> String {
    let word = match what {
        TakenUp::Forward => "taken up again",
        TakenUp::Back => "to be taken back",
    };
    let way = words::on_its_way(state).filter(|_| what == TakenUp::Forward).map(|way| format!(" to {way}"));
    let way = way.unwrap_or_default();
    let text = format!("run {} of {}, {word}{way}", state.run_id(), state.plan.name);
    Said { sign: "▶", color: BLUE, text }.line()
}

/// What an event means to a person. The state may be ahead of the event by some more of the same commit.
pub(super) fn said_of(state: &RunState, event: &Event) -> Option<Said> {
    use EventBody as E;
    let (color, sign, text) = match &event.body {
        E::RunCreated(created) => (BLUE, "▶", format!("run {} of {}", created.run, created.playbook)),
        E::StepExpanded { step, items } => {
            let count = words::plural(items.len(), "item");
            (DIM, "·", format!("{step} {DIM}{count}{RESET}"))
        }
        E::StepSkipped { step, reason } => {
            let why = match reason {
                SkipReason::Condition => "its condition is false",
                SkipReason::Operator => "by the operator",
            };
            (DIM, "⊘", format!("{step} {DIM}skipped: {why}{RESET}"))
        }
        E::StepFailed { step, error } => (RED, "✗", format!("{step} failed: {}", message(error))),
        E::AttemptSucceeded { step, attempt, changed, .. } => {
            let action = state.find(step).and_then(|n| state.step(n).action());
            let reads = action.is_some_and(|a| a.access == Access::Reads);
            let mut about = took(state, event);
            if !changed && !reads {
                about.push("unchanged".to_owned());
            }
            if *attempt > 1 {
                about.push(format!("attempt {attempt}"));
            }
            (GREEN, "✓", format!("{step}{}", dim(&about)))
        }
        E::AttemptFailed { step, attempt, error, retry_in: Some(delay) } => {
            let again = words::duration(*delay);
            (YELLOW, "↻", format!("{step} attempt {attempt} failed, again in {again}: {}", message(error)))
        }
        E::AttemptFailed { step, error, retry_in: None, .. } if error.class == Class::Cancelled => {
            (YELLOW, "■", format!("{step} stopped{}", dim(&took(state, event))))
        }
        E::AttemptFailed { step, error, retry_in: None, .. } => {
            let may = state.find(step).is_some_and(|n| state.step(n).continue_on_error);
            let word = if may { "failed, and may" } else { "failed" };
            (RED, "✗", format!("{step} {word}{}: {}", dim(&took(state, event)), message(error)))
        }
        E::AttemptInterrupted { step, .. } => {
            (YELLOW, "?", format!("{step} was interrupted: how far it came is not known"))
        }
        E::DoubtRaised { step, why, .. } => (YELLOW, "?", format!("{step} needs a person to settle it: {why}")),
        E::StepResolved { step, resolution, by, .. } => {
            let what = match resolution {
                Resolution::Done => "counts as done",
                Resolution::Redo => "is done again",
                Resolution::Fail => "counts as failed",
                Resolution::Skip => "is skipped",
                Resolution::Undone => "counts as undone, by hand",
                Resolution::Kept => "stays as it is",
            };
            let who = by.as_ref().map_or_else(|| "as far as can be seen".to_owned(), |by| format!("said {by}"));
            (CYAN, "→", format!("{step} {what} {DIM}({who}){RESET}"))
        }
        E::ApprovalRequested { step, question, .. } => {
            let hint = next::as_typed(&format!("runback approve {} {}", state.run_id(), next::word(step)));
            (CYAN, "?", format!("{step} waits for a person: {} {DIM}({hint}){RESET}", question.prompt))
        }
        E::ApprovalGiven { step, answer } => (CYAN, "→", format!("{step} approved by {}{}", answer.by, reason(answer))),
        E::ApprovalRefused { step, answer } => {
            (YELLOW, "→", format!("{step} refused by {}{}", answer.by, reason(answer)))
        }
        E::CancelRequested { by, reason } => match reason {
            CancelReason::Operator => (YELLOW, "■", format!("cancelled by {by}: nothing new starts")),
            CancelReason::Timeout => (YELLOW, "■", "the run is over its timeout: nothing new starts".to_owned()),
        },
        // Where nothing runs it has come already, in the same commit.
        E::RollbackRequested { .. } | E::HoldRequested { .. } if state.wish.is_none() => return None,
        E::RollbackRequested { by, .. } => {
            (CYAN, "↶", format!("to be taken back for {by}: what runs is stopped first"))
        }
        E::HoldRequested { by } => {
            (YELLOW, "■", format!("to be held for {by}: nothing new starts, what runs may finish"))
        }
        E::RollbackStarted { step, reason, by, force } => {
            let what = step.as_ref().map_or_else(|| "the run".to_owned(), ToString::to_string);
            let why = match reason {
                RollbackReason::Failure => "after the failure".to_owned(),
                RollbackReason::Cancelled => "after the cancel".to_owned(),
                RollbackReason::Operator => format!("for {by}"),
            };
            let force = if *force { ", by force" } else { "" };
            (CYAN, "↶", format!("taking {what} back {why}{force}"))
        }
        E::UndoSucceeded { step, changed, note, .. } => {
            let note = note.as_ref().map(|n| format!(": {n}")).unwrap_or_default();
            let word = if *changed { "undone" } else { "nothing to undo" };
            (GREEN, "↶", format!("{step} {DIM}{word}{note}{RESET}"))
        }
        E::UndoFailed { step, error, retry_in, .. } => {
            let again = retry_in.map(|d| format!(", again in {}", words::duration(d))).unwrap_or_default();
            (RED, "✗", format!("{step} could not be undone{again}: {}", message(error)))
        }
        E::RunStarted {}
        | E::RunResumed { .. }
        | E::BlockStarted { .. }
        | E::UndoArmed { .. }
        | E::AttemptStarted { .. }
        | E::ProcessStarted { .. }
        | E::StepNoted { .. }
        | E::LockTaken { .. }
        | E::UndoStarted { .. }
        | E::RunHeld { .. }
        | E::RunFinished { .. } => return None,
    };
    Some(Said { sign, color, text })
}

/// The first line of a message; the whole stands in the summary.
fn message(error: &StepError) -> &str {
    error.message.lines().next().unwrap_or("")
}

fn reason(answer: &Answer) -> String {
    answer.reason.as_ref().map(|r| format!(": {r}")).unwrap_or_default()
}

fn took(state: &RunState, event: &Event) -> Vec<String> {
    let node = event.body.step().and_then(|s| state.find(s));
    let started = node.and_then(|n| words::at_it_since(state, n));
    started.map(|from| words::duration(event.at.saturating_sub(from))).into_iter().collect()
}

fn dim(about: &[String]) -> String {
    if about.is_empty() { String::new() } else { format!(" {DIM}{}{RESET}", about.join(", ")) }
}
