//! The last words about a run: how it ended, what failed and why, what was undone and what stays, what to type next.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use runback_core::Json;
use runback_core::plan::PlanKind;
use runback_core::state::{NodeId, Phase, RunState, Status, UndoStatus};
use runback_core::step::StepError;
use runback_exec::output::{LogFiles, LogName};

use crate::cmd::why::kept;
use crate::next;
use crate::term::{BOLD, DIM, RED, RESET, YELLOW};
use crate::words;

/// Failures that are told in full; the rest are counted.
const MOST_FAILURES: usize = 5;
/// Lines of output that are shown of a failed step.
const LAST_LINES: usize = 20;
const MOST_NAMES: usize = 12;

pub(crate) fn text(state: &RunState, status: &str, logs: Option<&Path>) -> String {
    let mut out = what_happened(state, status, logs);
    let next = next::steps(state, status, false);
    if !next.is_empty() {
        out.push('\n');
        for line in next {
            out.push_str(&line);
            out.push('\n');
        }
    }
    out
}

/// Of a run that is nowhere stored.
pub(crate) fn simulated(state: &RunState, status: &str) -> String {
    what_happened(state, status, None)
}

fn what_happened(state: &RunState, status: &str, logs: Option<&Path>) -> String {
    let mut out = head(state, status);
    failures(state, logs, &mut out);
    undone(state, &mut out);
    if let Some(Json::Object(outputs)) = state.outputs.as_deref() {
        for (name, value) in outputs {
            if let Some(why) = state.output_errors.get(name) {
                out.push_str(&format!(
                    "  {YELLOW}!{RESET} {DIM}{name}{RESET} = null, for it could not be worked out: {why}\n"
                ));
                continue;
            }
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            out.push_str(&format!("  {DIM}{name}{RESET} = {text}\n"));
        }
    }
    for node in state.questions() {
        if let Some(question) = state.node(node).question() {
            out.push_str(&format!("  {} asks: {}\n", state.path(node), question.prompt));
        }
    }
    for node in state.doubts() {
        out.push_str(&format!("  {} is in doubt: {}\n", state.path(node), state.node(node).doubt().unwrap_or("")));
    }
    out
}

fn head(state: &RunState, status: &str) -> String {
    let color = words::run_color(status);
    let sign = match status {
        "succeeded" => "✓",
        "rolled-back" => "↶",
        "failed" | "stuck" => "✗",
        "cancelled" => "■",
        _ => "…",
    };
    // Where something is kept, "as it was" would be too much.
    let keeps = state.ids().any(|n| state.node(n).undo == UndoStatus::Kept);
    let what = match status {
        "failed" if words::failure(state).is_none() && matches!(state.phase, Phase::Held(_)) => "held as it stands",
        "failed" => "failed, held as it stands",
        "rolled-back" if keeps => "rolled back, apart from what is kept",
        "rolled-back" => "rolled back: all is as it was",
        "stuck" => "stuck: not everything could be undone",
        "interrupted" => "left in the middle",
        other => other,
    };
    let end = state.finished_at.unwrap_or(state.last_at);
    // What lay there for a day took no day.
    let took = state.started_at.map(|_| format!(" in {}", words::duration(end.saturating_sub(state.going_since))));
    let over = matches!(state.phase, Phase::Held(_) | Phase::Finished(_));
    let mut by_word: BTreeMap<&str, usize> = BTreeMap::new();
    for (status, n) in state.counts() {
        *by_word.entry(words::state_word(status, over)).or_default() += n;
    }
    let counts: Vec<String> = by_word.iter().map(|(word, n)| format!("{} {word}", words::grouped(*n))).collect();
    let counts = if counts.is_empty() { String::new() } else { format!(": {}", counts.join(", ")) };
    format!(
        "{color}{sign}{RESET} {BOLD}{}{RESET} {color}{what}{RESET}{}  {DIM}{}{counts}{RESET}\n",
        state.run_id(),
        took.unwrap_or_default(),
        state.plan.name,
    )
}

/// Steps that failed by themselves, the first one first.
fn failed(state: &RunState) -> Vec<NodeId> {
    let own = |n: &NodeId| {
        state.node(*n).error().is_some() && matches!(state.node(*n).status, Status::Failed | Status::Interrupted)
    };
    let mut failed: Vec<NodeId> = state.ids().filter(own).collect();
    failed.sort_by_key(|n| (Some(*n) != state.failure, state.node(*n).finished_at));
    failed
}

fn failures(state: &RunState, logs: Option<&Path>, out: &mut String) {
    let failed = failed(state);
    for node in failed.iter().take(MOST_FAILURES) {
        let n = state.node(*node);
        let Some(error) = n.error() else { continue };
        let attempts = if n.attempts > 1 {
            format!(" after {}", words::plural(n.attempts as usize, "attempt"))
        } else {
            String::new()
        };
        let step_type = state.step(*node).type_name();
        out.push_str(&format!("\n  {RED}{BOLD}{}{RESET} {DIM}({step_type}){RESET} failed{attempts}\n", n.path));
        error_lines(error, out);
        if let Some(logs) = logs
            && matches!(state.step(*node).kind, PlanKind::Action(_))
        {
            output(logs, &LogName { step: &n.path, attempt: n.attempts, undo: false }, out);
        }
    }
    if failed.len() > MOST_FAILURES {
        out.push_str(&format!("\n  and {} more\n", words::plural(failed.len() - MOST_FAILURES, "failure")));
    }
    for node in state.ids().filter(|n| state.node(*n).undo == UndoStatus::Failed) {
        let n = state.node(node);
        let Some(error) = n.undo_error() else { continue };
        out.push_str(&format!("\n  {RED}{BOLD}{}{RESET} could not be undone\n", n.path));
        error_lines(error, out);
        if let Some(logs) = logs {
            output(logs, &LogName { step: &n.path, attempt: n.undo_attempts, undo: true }, out);
        }
    }
}

fn error_lines(error: &StepError, out: &mut String) {
    for line in error.message.lines() {
        out.push_str(&format!("    {line}\n"));
    }
    if let Some(command) = error.command.as_ref().filter(|c| c.lines().count() == 1) {
        out.push_str(&format!("    {DIM}command:{RESET} {command}\n"));
    }
    if let Some(help) = &error.help {
        for (at, line) in next::in_text(help).lines().enumerate() {
            let word = if at == 0 { "help:   " } else { "        " };
            out.push_str(&format!("    {DIM}{word}{RESET} {line}\n"));
        }
    }
}

/// The end of an attempt's output.
fn output(logs: &Path, name: &LogName<'_>, out: &mut String) {
    let files = LogFiles::new(logs, name);
    let Ok(size) = files.size() else { return };
    let mut bytes = Vec::new();
    let from = size.saturating_sub(16 << 10);
    if files.reader(from).read_to_end(&mut bytes).is_err() || bytes.is_empty() {
        return;
    }
    let text = String::from_utf8_lossy(&bytes);
    // By itself: a sequence without an end takes no other line with it. A progress bar writes over its own.
    let plain = |line: &str| anstream::adapter::strip_str(line).to_string();
    let seen = |line: &str| line.trim_end_matches('\r').rsplit('\r').next().map(plain).unwrap_or_default();
    let lines: Vec<String> = text.lines().map(seen).collect();
    let skip = lines.len().saturating_sub(LAST_LINES);
    let title = if skip > 0 || from > 0 { "the end of its output:" } else { "its output:" };
    out.push_str(&format!("    {DIM}{title}{RESET}\n"));
    for line in &lines[skip..] {
        out.push_str(&format!("      {DIM}│{RESET} {line}\n"));
    }
}

fn undone(state: &RunState, out: &mut String) {
    let with = |undo: UndoStatus| -> Vec<NodeId> {
        let action = |n: &NodeId| matches!(state.step(*n).kind, PlanKind::Action(_));
        let mut nodes: Vec<NodeId> = state.ids().filter(|n| state.node(*n).undo == undo).filter(action).collect();
        nodes.sort_by_key(|n| std::cmp::Reverse(state.node(*n).start_seq));
        nodes
    };
    let (undone, mut kept_nodes) = (with(UndoStatus::Undone), with(UndoStatus::Kept));
    kept_nodes.extend(with(UndoStatus::Pending).into_iter().filter(|n| state.is_left(*n)));
    if undone.is_empty() && kept_nodes.is_empty() {
        return;
    }
    out.push('\n');
    if !undone.is_empty() {
        out.push_str(&format!("  {DIM}undone{RESET}  {}\n", names(state, &undone)));
    }
    let mut reasons: Vec<(String, Vec<NodeId>)> = Vec::new();
    for node in kept_nodes {
        let why = kept(state, node);
        match reasons.iter_mut().find(|(w, _)| *w == why) {
            Some((_, nodes)) => nodes.push(node),
            None => reasons.push((why, vec![node])),
        }
    }
    for (at, (why, nodes)) in reasons.iter().take(MOST_NAMES).enumerate() {
        let word = if at == 0 { "kept  " } else { "      " };
        out.push_str(&format!("  {DIM}{word}{RESET}  {} {DIM}({why}){RESET}\n", names(state, nodes)));
    }
}

fn names(state: &RunState, nodes: &[NodeId]) -> String {
    let names: Vec<&str> = nodes.iter().take(MOST_NAMES).map(|n| &**state.path(*n)).collect();
    let more = nodes.len().saturating_sub(MOST_NAMES);
    let more = if more > 0 { format!(" and {} more", words::grouped(more)) } else { String::new() };
    format!("{}{more}", names.join(", "))
}
