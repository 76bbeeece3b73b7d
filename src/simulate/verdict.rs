//! What a simulated run did against what was expected: one line for each thing that is otherwise.

use std::collections::BTreeSet;

use runback_core::Json;
use runback_core::event::{EventBody, OnFailure};
use runback_core::plan::{FINALLY, PlanKind};
use runback_core::playbook::model::Exhausted;
use runback_core::state::{NodeId, RunState, RunStatus, Status, UndoStatus};
use runback_core::step::UndoKind;

use super::Simulated;
use super::script::bare;
use super::testfile::Expect;

const OUTCOMES: [&str; 6] = ["succeeded", "failed", "rolled-back", "stuck", "cancelled", "waiting"];

pub(crate) fn judge(run: &Simulated, expect: &Expect) -> Vec<String> {
    let state = run.state();
    let mut problems = Vec::new();
    if let Some(wanted) = &expect.outcome {
        let got = if run.ended.waiting { "waiting" } else { state.status().name() };
        if !OUTCOMES.contains(&wanted.as_str()) {
            problems.push(format!("outcome: `{wanted}` is none of {}", OUTCOMES.join(", ")));
        } else if wanted != got {
            let why = why_ended(state);
            problems.push(format!("outcome: expected {wanted}, got {got}{why}"));
        }
    }
    for (step, wanted) in &expect.states {
        match find(state, step) {
            None => problems.push(format!("states.{step}: there is no such step")),
            Some(node) => {
                let n = state.node(node);
                // A step that failed and stays as it is has two words; either will do.
                let got = state.status_name(node);
                if wanted != got && wanted != n.forward_name() {
                    problems.push(format!("states.{step}: expected {wanted}, got {got}"));
                } else if wanted != got && n.undo == UndoStatus::Undone {
                    problems.push(format!("states.{step}: expected {wanted}, but it was undone"));
                }
            }
        }
    }
    let started = started(run);
    if !in_order(&started, &expect.order) {
        problems.push(format!("order: expected {}, started {}", expect.order.join(", "), started.join(", ")));
    }
    if let Some(wanted) = &expect.undone {
        let got = undone(run);
        let same = wanted.len() == got.len() && wanted.iter().zip(&got).all(|(w, g)| w == g || *w == bare(g));
        if !same {
            problems.push(format!("undone: expected [{}], got [{}]", wanted.join(", "), got.join(", ")));
        }
    }
    if let Some(wanted) = &expect.kept {
        let got: BTreeSet<String> = actions(state)
            .filter(|n| state.node(*n).undo == UndoStatus::Kept)
            .map(|n| state.path(n).to_string())
            .collect();
        let wanted: BTreeSet<String> = wanted.iter().cloned().collect();
        if got != wanted {
            let list = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(", ");
            problems.push(format!("kept: expected [{}], got [{}]", list(&wanted), list(&got)));
        }
    }
    for (step, wanted) in &expect.attempts {
        let got = find(state, step).map(|n| state.node(n).attempts);
        if got != Some(*wanted) {
            let got = got.map_or_else(|| "no such step".to_owned(), |n| n.to_string());
            problems.push(format!("attempts.{step}: expected {wanted}, got {got}"));
        }
    }
    for (name, wanted) in &expect.outputs {
        let got = state.outputs.as_deref().and_then(|o| o.get(name)).unwrap_or(&Json::Null);
        if got != wanted {
            problems.push(format!("outputs.{name}: expected {wanted}, got {got}"));
        }
    }
    for (step, part) in &expect.errors {
        let got = find(state, step).and_then(|n| state.node(n).error()).map(|e| e.message.clone());
        if !got.as_ref().is_some_and(|g| g.contains(part.as_str())) {
            let got = got.map_or_else(|| "no error".to_owned(), |g| format!("`{g}`"));
            problems.push(format!("errors.{step}: expected `{part}` in it, got {got}"));
        }
    }
    problems
}

/// By its path, or by its path without keys where there is one instance.
fn find(state: &RunState, step: &str) -> Option<NodeId> {
    state.find(step).or_else(|| {
        let mut alike = state.ids().filter(|n| bare(state.path(*n)) == step);
        let first = alike.next()?;
        alike.next().is_none().then_some(first)
    })
}

/// For a run that ended otherwise: the failure.
fn why_ended(state: &RunState) -> String {
    let failed = state.failure.and_then(|n| Some((state.path(n), state.node(n).error()?)));
    failed.map(|(path, error)| format!(" ({path}: {})", error.message)).unwrap_or_default()
}

fn actions(state: &RunState) -> impl Iterator<Item = NodeId> + '_ {
    state.ids().filter(|n| matches!(state.step(*n).kind, PlanKind::Action(_)))
}

/// Steps in the order of their first start.
fn started(run: &Simulated) -> Vec<String> {
    let first = run.events().into_iter().filter_map(|e| match e.body {
        EventBody::AttemptStarted { step, attempt: 1 } => Some(step.to_string()),
        _ => None,
    });
    first.collect()
}

fn in_order(started: &[String], wanted: &[String]) -> bool {
    let mut from = started.iter();
    wanted.iter().all(|w| from.any(|s| s == w || bare(s) == *w))
}

fn undone(run: &Simulated) -> Vec<String> {
    let done = run.events().into_iter().filter_map(|e| match e.body {
        EventBody::UndoSucceeded { step, .. } => Some(step.to_string()),
        _ => None,
    });
    done.collect()
}

/// Why a run in which nothing is to fail does not succeed all the same.
pub(crate) fn fails_without_a_failure(run: &Simulated) -> Option<String> {
    let state = run.state();
    if state.status() == RunStatus::Succeeded || run.ended.waiting {
        return None;
    }
    let why = why_ended(state);
    let help = "give its steps outputs under `given` in a test file, in a case that expects `succeeded`";
    Some(format!("without any failure the run is {}{why}; {help}", state.status().name()))
}

/// A run in which one step failed by itself must come out as the playbook promises. False = the step was not
/// reached, so nothing failed.
pub(crate) fn judge_single_failure(run: &Simulated, failed: &str) -> Result<bool, Vec<String>> {
    let state = run.state();
    let Some(node) = state.ids().find(|n| bare(state.path(*n)) == failed && state.node(*n).error().is_some()) else {
        return Ok(false);
    };
    let mut problems = Vec::new();
    let got = state.status();
    let in_finally = state.plan.step(state.node(node).step).segment == FINALLY;
    let absorbed = std::iter::once(node)
        .chain(state.ancestors(node))
        .filter(|n| !RunState::is_root(*n))
        .any(|n| state.step(n).continue_on_error);
    let holds = state.step(node).policy.retry.on_exhausted == Exhausted::Hold;
    let allowed: &[RunStatus] = match state.on_failure() {
        _ if run.ended.waiting => &[],
        _ if absorbed => &[RunStatus::Succeeded],
        _ if in_finally => &[RunStatus::Succeeded, RunStatus::Failed],
        OnFailure::Rollback if holds => &[RunStatus::Failed],
        OnFailure::Rollback => &[RunStatus::RolledBack],
        OnFailure::Hold | OnFailure::Continue => &[RunStatus::Failed],
    };
    if !allowed.contains(&got) {
        let allowed: Vec<&str> = allowed.iter().map(|s| s.name()).collect();
        problems.push(format!("outcome: expected {}, got {}", allowed.join(" or "), got.name()));
    }
    if got == RunStatus::RolledBack {
        problems.extend(left_behind(state));
        problems.extend(wrong_order(run));
    }
    if problems.is_empty() { Ok(true) } else { Err(problems) }
}

/// After a rollback nothing that was armed and can be undone is left as it was made.
fn left_behind(state: &RunState) -> Vec<String> {
    let kept = state.behind_points_of_no_return(runback_core::state::ROOT);
    let armed = actions(state).filter(|n| {
        let node = state.node(*n);
        let can = state.step(*n).action().is_some_and(|a| a.undo_kind() == UndoKind::Full);
        let changed = node.changed || node.status != Status::Succeeded;
        can && node.armed && changed && !kept.contains(n) && state.step(*n).segment != FINALLY
    });
    armed
        .filter(|n| state.node(*n).undo != UndoStatus::Undone)
        .map(|n| format!("{} was armed and is {} after the rollback", state.path(n), state.status_name(n)))
        .collect()
}

/// What needed a step is undone before it.
fn wrong_order(run: &Simulated) -> Vec<String> {
    let state = run.state();
    let events = run.events();
    let at = |wanted: &str, start: bool| {
        events.iter().position(|e| match &e.body {
            EventBody::UndoStarted { step, .. } => start && **step == *wanted,
            EventBody::UndoSucceeded { step, .. } => !start && **step == *wanted,
            _ => false,
        })
    };
    let mut problems = Vec::new();
    for node in actions(state) {
        let path = state.path(node);
        let Some(begun) = at(path, true) else { continue };
        for dependent in state.dependents(node) {
            let later = state.path(dependent);
            if at(later, false).is_some_and(|done| done > begun) {
                problems.push(format!("{path} was undone before {later}, which needs it"));
            }
        }
    }
    problems
}
