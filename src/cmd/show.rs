//! `runback show`: one run, its steps and how each ended.

use std::path::Path;

use clap::Args;
use runback_core::Json;
use runback_core::state::{NodeId, Status};

use super::{OutputArg, why};
use crate::exit::Exit;
use crate::failure::Done;
use crate::journal::{self, Run};
use crate::next;
use crate::state_dir;
use crate::term::{self, BOLD, DIM, RED, RESET};
use crate::words;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A run's id, the beginning of one, or `last`
    #[arg(value_name = "RUN", default_value = "last")]
    run: String,

    #[command(flatten)]
    pub(crate) output: OutputArg,
}

pub(crate) fn run(arguments: &Arguments, dir: Option<&Path>) -> Done {
    let store = state_dir::of_run_to_look(dir, &arguments.run)?;
    let catalog = runback_steps::catalog();
    let run = state_dir::block_on(journal::read(store.as_ref(), &arguments.run, &catalog))?;
    if arguments.output.is_json() {
        term::json(&run.to_json());
    } else {
        term::line(text(&run).trim_end());
    }
    Ok(Exit::Succeeded)
}

fn text(run: &Run) -> String {
    let state = &run.state;
    let status = run.status();
    let mut out = format!("{BOLD}{}{RESET}  {}{status}{RESET}", state.run_id(), words::run_color(status));
    if let Some(created) = &state.created {
        out.push_str(&format!("  {}\n", created.playbook));
        out.push_str(&format!(
            "{DIM}  by {} from {}, {}{RESET}",
            created.by,
            created.from,
            words::date(state.created_at)
        ));
    }
    if let Some(started) = state.started_at {
        let lives = run.owner.is_some();
        let end = state.finished_at.unwrap_or_else(|| if lives { words::now_ms() } else { state.last_at });
        out.push_str(&format!("{DIM}, took {}{RESET}", words::duration(end.saturating_sub(started))));
    }
    out.push('\n');
    if let Some(owner) = &run.owner {
        out.push_str(&format!("{DIM}  driven by {owner}{RESET}\n"));
    }
    for (title, values) in [("inputs ", state.inputs()), ("outputs", state.outputs.as_deref())] {
        let Some(Json::Object(map)) = values.filter(|v| v.as_object().is_some_and(|m| !m.is_empty())) else { continue };
        let pairs: Vec<String> = map.iter().map(|(k, v)| format!("{k}={}", plain(v))).collect();
        out.push_str(&format!("{DIM}  {title}{RESET}  {}\n", pairs.join("  ")));
    }
    for (name, why) in &state.output_errors {
        out.push_str(&format!("{DIM}  output {name}{RESET} could not be worked out: {why}\n"));
    }
    out.push('\n');
    let mut rows = Vec::new();
    rows_of(run, runback_core::state::ROOT, 0, &mut rows);
    let finally = rows.len();
    rows_of(run, runback_core::state::FINAL, 0, &mut rows);
    let name_wide = rows.iter().map(|r| r.name.chars().count()).max().unwrap_or(0);
    let type_wide = rows.iter().map(|r| r.step_type.len()).max().unwrap_or(0);
    for (at, row) in rows.iter().enumerate() {
        if at == finally {
            out.push_str(&format!("{DIM}finally{RESET}\n"));
        }
        let (sign, color) = words::state_sign(row.status);
        let line = format!(
            "  {color}{sign}{RESET} {:name_wide$}  {DIM}{:type_wide$}{RESET}  {color}{:11}{RESET}  {:>7}{}",
            row.name,
            row.step_type,
            row.status,
            row.took,
            if row.more.is_empty() { String::new() } else { format!("  {DIM}{}{RESET}", row.more) },
        );
        out.push_str(line.trim_end());
        out.push('\n');
        for error in &row.errors {
            for line in error.lines() {
                out.push_str(&format!("      {RED}{line}{RESET}\n"));
            }
        }
    }
    out.push('\n');
    for line in next::steps(state, status, run.owner.is_some()) {
        out.push_str(&format!("{line}\n"));
    }
    out
}

struct Row {
    name: String,
    step_type: &'static str,
    status: &'static str,
    took: String,
    more: String,
    errors: Vec<String>,
}

fn rows_of(run: &Run, of: NodeId, depth: usize, rows: &mut Vec<Row>) {
    let state = &run.state;
    for node in state.children(of) {
        let view = state.step_view(node);
        let n = state.node(node);
        let own = view.id.rsplit('/').next().unwrap_or(&view.id);
        let word = words::step_word(state, node, run.owner.is_some());
        let end = view.finished_at.or_else(|| (word == "running").then(words::now_ms));
        let took = view.started_at.zip(end).map(|(from, to)| words::duration(to.saturating_sub(from)));
        let mut more = Vec::new();
        // Both words matter: that it failed, and that what it did stays.
        let failed_and_kept = view.status == "kept" && n.status == Status::Failed;
        if failed_and_kept {
            more.push("what it did stays".to_owned());
        }
        if view.attempts > 1 {
            more.push(words::plural(view.attempts as usize, "attempt"));
        }
        if view.status == "succeeded" && state.step(node).action().is_some() && !view.changed {
            more.push("unchanged".to_owned());
        }
        more.extend(words::undo_note(n));
        let settled = n.rare.as_ref().is_some_and(|r| r.undo_settled_by.is_some());
        more.extend((view.status == "kept" && settled).then(|| why::kept(state, node)));
        more.extend(match words::verdict(n) {
            Some(said) => Some(format!("answered: {said}")),
            None => n.question().map(|q| format!("asks: {}", q.prompt)),
        });
        more.extend(n.doubt().map(|d| format!("in doubt: {d}")));
        let errors = [("", &view.error), ("undo: ", &view.undo_error)];
        let errors = errors.iter().filter_map(|(what, e)| {
            let error = e.as_ref()?;
            let help = error.help.as_ref().map(|h| format!("\n  {}", next::in_text(h))).unwrap_or_default();
            Some(format!("{what}{}{help}", error.message))
        });
        rows.push(Row {
            name: format!("{}{own}", "  ".repeat(depth)),
            step_type: view.step_type,
            status: if failed_and_kept { "failed" } else { word },
            took: took.unwrap_or_default(),
            more: more.join(" · "),
            errors: errors.collect(),
        });
        rows_of(run, node, depth + 1, rows);
    }
}

fn plain(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
