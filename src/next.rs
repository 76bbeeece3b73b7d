//! What to type next, by what a run is. The last words of every report.

use runback_core::state::{RunState, UndoStatus};

use crate::term::{CYAN, DIM, RESET};

/// Lines of a command and what it does.
pub(crate) fn steps(state: &RunState, status: &str) -> Vec<String> {
    lines(&commands(state, status))
}

/// Commands, and what each does.
pub(crate) fn commands(state: &RunState, status: &str) -> Vec<(String, &'static str)> {
    let run = state.run_id();
    let mut all = Vec::new();
    let doubt = state.doubts().next();
    let question = state.questions().next();
    if let Some(node) = question {
        all.push((format!("runback approve {run} {}", state.path(node)), "say yes (--refuse: no)"));
    }
    if let Some(node) = doubt {
        all.push((
            format!("runback resume {run} --step {}=done", state.path(node)),
            "it is done (or redo, fail, skip)",
        ));
    }
    match status {
        "failed" => {
            all.push((format!("runback resume {run}"), "try what failed again, and go on"));
            all.push((format!("runback rollback {run}"), "take it back"));
        }
        "stuck" => {
            if state.ids().any(|n| state.node(n).undo == UndoStatus::Failed) {
                all.push((format!("runback rollback {run}"), "try what could not be undone again"));
                all.push((format!("runback rollback {run} --force"), "undo also where the world has changed since"));
            }
        }
        "interrupted" if doubt.is_none() => {
            all.push((format!("runback resume {run}"), "go on where it stopped"));
            all.push((format!("runback rollback {run}"), "take it back"));
        }
        "waiting" if doubt.is_none() && question.is_none() => {
            all.push((format!("runback why {run}"), "what it waits for"))
        }
        "running" | "rolling-back" | "waiting" => {
            all.push((format!("runback why {run}"), "what it does and waits for"));
            all.push((format!("runback cancel {run}"), "stop it"));
        }
        "succeeded" => all.push((format!("runback rollback {run}"), "take it back")),
        _ => {}
    }
    if matches!(status, "failed" | "stuck" | "rolled-back" | "cancelled") {
        let failed = state.failure.map(|n| format!(" {}", state.path(n))).unwrap_or_default();
        all.push((format!("runback logs {run}{failed}"), "what the commands printed"));
    }
    all
}

fn lines(all: &[(String, &str)]) -> Vec<String> {
    let wide = all.iter().map(|(command, _)| command.chars().count()).max().unwrap_or(0);
    all.iter().map(|(command, what)| format!("  {CYAN}{command:wide$}{RESET}  {DIM}{what}{RESET}")).collect()
}
