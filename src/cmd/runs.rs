//! `runback runs`: the history, and its end.

use std::path::Path;

use clap::{Args, Subcommand};
use runback_core::playbook::duration;
use runback_exec::store::RunFilter;
use runback_exec::store::retention::{self, Retention, WhyKept};
use serde_json::json;

use super::OutputArg;
use crate::exit::Exit;
use crate::failure::{Done, Failure};
use crate::journal::Summary;
use crate::state_dir;
use crate::table;
use crate::term::{self, DIM, RESET};
use crate::words;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Option<RunsVerb>,

    /// Only runs of this playbook
    #[arg(long, value_name = "NAME")]
    playbook: Option<String>,

    /// Only runs in this state, such as failed or waiting
    #[arg(long, value_name = "STATUS")]
    status: Vec<String>,

    /// Only runs that began so long ago at most (7d), or since a date (2026-11-01)
    #[arg(long, value_name = "WHEN")]
    since: Option<String>,

    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,

    #[command(flatten)]
    pub(crate) output: OutputArg,
}

#[derive(Debug, Subcommand)]
enum RunsVerb {
    Prune(Prune),
}

/// Remove runs that are over, with their logs
#[derive(Debug, Args)]
struct Prune {
    /// Those whose last event is older than this, such as 30d
    #[arg(long, value_name = "DURATION")]
    older_than: Option<String>,

    /// All but so many of the newest
    #[arg(long, value_name = "N")]
    keep: Option<usize>,

    /// Only runs of this playbook
    #[arg(long, value_name = "NAME")]
    playbook: Option<String>,

    /// Also runs that failed and could be resumed, or are stuck
    #[arg(long)]
    all: bool,

    /// Say what would go, and remove nothing
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    output: OutputArg,
}

/// What a run can be, in words.
pub(crate) const STATUSES: [&str; 9] =
    ["running", "waiting", "rolling-back", "interrupted", "succeeded", "failed", "rolled-back", "stuck", "cancelled"];

pub(crate) fn run(arguments: &Arguments, dir: Option<&Path>) -> Done {
    match &arguments.verb {
        Some(RunsVerb::Prune(prune)) => prune_runs(prune, dir),
        None => list(arguments, dir),
    }
}

fn list(arguments: &Arguments, dir: Option<&Path>) -> Done {
    if let Some(wrong) = arguments.status.iter().find(|s| !STATUSES.contains(&s.as_str())) {
        return Err(Failure::usage(format!("`{wrong}` is not a state of a run"))
            .help(format!("the states are {}", STATUSES.join(", "))));
    }
    let since = arguments.since.as_deref().map(since).transpose()?;
    let store = state_dir::look_into(dir)?;
    let catalog = runback_steps::catalog();
    let found = state_dir::block_on(async {
        let Some(store) = &store else { return Ok(Vec::new()) };
        // A filter by state needs the rows first.
        let limit = arguments.status.is_empty().then_some(arguments.limit);
        let filter = RunFilter { playbook: arguments.playbook.clone(), since, limit };
        let mut found = Vec::new();
        for row in store.runs(&filter).await? {
            if found.len() >= arguments.limit {
                break;
            }
            let summary = Summary::of(row, store.as_ref(), &catalog).await?;
            if arguments.status.is_empty() || arguments.status.iter().any(|s| s == summary.status) {
                found.push(summary);
            }
        }
        Ok(found)
    })?;
    if arguments.output.is_json() {
        term::json(&found.iter().map(Summary::to_json).collect());
        return Ok(Exit::Succeeded);
    }
    let is_filtered = arguments.since.is_some() || arguments.playbook.is_some() || !arguments.status.is_empty();
    if found.is_empty() {
        let place = state_dir::path(dir)?;
        term::note(&format!("no runs{} in {}", if is_filtered { " like that" } else { "" }, place.display()));
        return Ok(Exit::Succeeded);
    }
    let now = words::now_ms();
    let rows = found.iter().map(|s| {
        let created = s.created.as_ref();
        let end = s.finished_at.unwrap_or(if s.lives { now } else { s.last_at });
        let took = s.started_at.map(|from| words::duration(end.saturating_sub(from)));
        vec![
            s.run.clone(),
            created.map_or_else(String::new, |c| c.playbook.clone()),
            s.status.to_owned(),
            words::date(s.created_at),
            took.unwrap_or_default(),
            created.map_or_else(String::new, |c| c.by.clone()),
        ]
    });
    let text = table::render(&["RUN", "PLAYBOOK", "STATUS", "STARTED", "TOOK", "BY"], rows);
    term::line(&color_statuses(&text));
    Ok(Exit::Succeeded)
}

/// Colours come after the columns are laid out, which would count them as text.
fn color_statuses(text: &str) -> String {
    let color = |line: &str| {
        let status = STATUSES.iter().find(|s| line.contains(&format!("  {s} ")));
        match status {
            Some(status) => line.replacen(status, &format!("{}{status}{RESET}", words::run_color(status)), 1),
            None => line.to_owned(),
        }
    };
    text.lines().map(color).collect::<Vec<_>>().join("\n")
}

/// `7d`, or a date: milliseconds since the epoch.
fn since(text: &str) -> Result<u64, Failure> {
    if let Ok(ago) = duration::parse(text) {
        return Ok(words::now_ms().saturating_sub(ago.as_millis() as u64));
    }
    let zone = jiff::tz::TimeZone::system();
    let instant = text.parse::<jiff::Timestamp>().ok();
    let local = || text.parse::<jiff::civil::DateTime>().ok()?.to_zoned(zone).ok().map(|z| z.timestamp());
    let at = instant.or_else(local).and_then(|t| u64::try_from(t.as_millisecond()).ok());
    at.ok_or_else(|| {
        Failure::usage(format!("--since {text}: neither a duration nor a date"))
            .help("write 7d, 12h, 2026-11-01 or 2026-11-01T18:00")
    })
}

fn prune_runs(prune: &Prune, dir: Option<&Path>) -> Done {
    if prune.older_than.is_none() && prune.keep.is_none() {
        return Err(Failure::usage("runs prune: nothing says which runs are to go")
            .help("give --older-than 30d, --keep 100, or both"));
    }
    let older_than = match &prune.older_than {
        None => None,
        Some(text) => {
            let age = duration::parse(text)
                .map_err(|e| Failure::usage(format!("--older-than {text}: {}", e.message)).help(e.help))?;
            Some(words::now_ms().saturating_sub(age.as_millis() as u64))
        }
    };
    let rule = Retention {
        older_than,
        keep_newest: prune.keep,
        playbook: prune.playbook.clone(),
        all: prune.all,
        dry_run: prune.dry_run,
    };
    let Some(store) = state_dir::open_existing(dir)? else {
        term::note(&format!("no runs in {}", state_dir::path(dir)?.display()));
        return Ok(Exit::Succeeded);
    };
    let pruned = state_dir::block_on(async { Ok(retention::prune(store.as_ref(), &rule).await?) })?;
    let why = |why: WhyKept| match why {
        WhyKept::Alive => "it runs",
        WhyKept::Resumable => "it can be resumed",
        WhyKept::Stuck => "it is stuck",
    };
    if prune.output.is_json() {
        let removed: Vec<_> = pruned.removed.iter().map(|r| r.run.as_str()).collect();
        let kept: Vec<_> = pruned.kept.iter().map(|k| json!({ "run": k.run, "why": why(k.why) })).collect();
        term::json(&json!({ "removed": removed, "kept": kept, "dry_run": prune.dry_run }));
        return Ok(Exit::Succeeded);
    }
    for kept in &pruned.kept {
        term::line(&format!("{DIM}kept{RESET} {}: {}", kept.run, why(kept.why)));
    }
    let word = if prune.dry_run { "would be removed" } else { "removed" };
    term::line(&format!("{} {word}", words::plural(pruned.removed.len(), "run")));
    if !prune.all && pruned.kept.iter().any(|k| k.why != WhyKept::Alive) {
        term::note(&format!("{DIM}--all removes those that could be resumed too{RESET}"));
    }
    Ok(Exit::Succeeded)
}
