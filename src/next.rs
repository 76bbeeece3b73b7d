//! What to type next, by what a run is. The last words of every report.

use runback_core::state::{RunState, UndoStatus};

use crate::term::{CYAN, DIM, RESET};

/// Lines of a command and what it does. `driven` = some process has the run now.
pub(crate) fn steps(state: &RunState, status: &str, driven: bool) -> Vec<String> {
    lines(&commands(state, status, driven))
}

/// Commands, and what each does.
pub(crate) fn commands(state: &RunState, status: &str, driven: bool) -> Vec<(String, &'static str)> {
    let run = state.run_id();
    let mut all: Vec<(String, &'static str)> = Vec::new();
    let mut add = |command: String, what| all.push((command, what));
    let doubt = state.doubts().next();
    let question = state.questions().next();
    if let Some(node) = question {
        add(format!("runback approve {run} {}", state.path(node)), "say yes (--refuse: no)");
    }
    if let Some(node) = doubt {
        add(format!("runback resume {run} --step {}=done", state.path(node)), "it is done (or redo, fail, skip)");
    }
    match status {
        "failed" => {
            add(format!("runback resume {run}"), "try what failed again, and go on");
            add(format!("runback rollback {run}"), "take it back");
        }
        "stuck" if state.ids().any(|n| state.node(n).undo == UndoStatus::Failed) => {
            add(format!("runback rollback {run}"), "try what could not be undone again");
            add(format!("runback rollback {run} --force"), "undo also where the world has changed since");
        }
        "running" | "rolling-back" | "waiting" if driven => {
            add(format!("runback why {run}"), "what it does and waits for");
            add(format!("runback cancel {run}"), "stop it");
        }
        "interrupted" | "waiting" => {
            if doubt.is_none() {
                let what = if question.is_some() { "then go on" } else { "go on where it stopped" };
                add(format!("runback resume {run}"), what);
            }
            add(format!("runback rollback {run}"), "take it back");
        }
        "succeeded" => add(format!("runback rollback {run}"), "take it back"),
        _ => {}
    }
    if matches!(status, "failed" | "stuck" | "rolled-back" | "cancelled") {
        let failed = state.failure.map(|n| format!(" {}", state.path(n))).unwrap_or_default();
        add(format!("runback logs {run}{failed}"), "what the commands printed");
    }
    all
}

fn lines(all: &[(String, &str)]) -> Vec<String> {
    let wide = all.iter().map(|(command, _)| command.chars().count()).max().unwrap_or(0);
    all.iter().map(|(command, what)| format!("  {CYAN}{command:wide$}{RESET}  {DIM}{what}{RESET}")).collect()
}
