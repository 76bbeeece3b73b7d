//! `runback schedule`: when playbooks fire, and what an operator may do about it. Works beside a server on the same
//! store, and without one: what it starts, it drives itself.

mod export;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use runback_core::event::RunOptions;
use runback_exec::driver::Engine;
use runback_exec::store::desk::Paused;
use runback_exec::store::{SqliteStore, Store};
use serde_json::json;

use super::{Format, OutputArg};
use crate::drive::{self, DriveArgs, How};
use crate::exit::Exit;
use crate::failure::{Done, Failure};
use crate::serve::library::Library;
use crate::serve::schedules::{Entry, instant, is_paused, of_library};
use crate::start::{self, New};
use crate::surroundings::{self, Machines};
use crate::term::{self, BOLD, DIM, RESET, YELLOW};
use crate::{inputs, state_dir, words};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    List(List),
    Pause(Pause),
    Resume(Resume),
    Trigger(Trigger),
    Backfill(Backfill),
    Export(export::Export),
}

#[derive(Debug, Args)]
struct FolderArg {
    /// The folder of playbooks, the same as the server's
    #[arg(long, env = "RUNBACK_PLAYBOOKS", hide_env_values = true, default_value = ".", value_name = "DIR")]
    playbooks: PathBuf,
}

/// Show when schedules fire next, and what is decided where clocks change
#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    folder: FolderArg,

    /// So many firings of each
    #[arg(short = 'n', long = "next", default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=1000))]
    next: u16,

    #[command(flatten)]
    output: OutputArg,
}

/// Pass over all instants of a schedule until it is resumed
#[derive(Debug, Args)]
struct Pause {
    /// A schedule's key, or the beginning of one
    #[arg(value_name = "SCHEDULE")]
    schedule: String,

    #[arg(long, value_name = "TEXT", help = "Why, for those who wonder")]
    why: Option<String>,

    #[command(flatten)]
    folder: FolderArg,
}

/// Fire again, from now on
#[derive(Debug, Args)]
struct Resume {
    /// A schedule's key, or the beginning of one
    #[arg(value_name = "SCHEDULE")]
    schedule: String,

    #[command(flatten)]
    folder: FolderArg,
}

/// Run a schedule's playbook now, with its inputs
#[derive(Debug, Args)]
struct Trigger {
    /// A schedule's key, or the beginning of one
    #[arg(value_name = "SCHEDULE")]
    schedule: String,

    #[command(flatten)]
    folder: FolderArg,

    #[command(flatten)]
    drive: DriveArgs,
}

/// Run what has no run in a range of time, one instant after the other
#[derive(Debug, Args)]
struct Backfill {
    /// A schedule's key, or the beginning of one
    #[arg(value_name = "SCHEDULE")]
    schedule: String,

    /// From this time on: 2026-11-01, 2026-11-01T03:00 or 2026-11-01T03:00:00Z
    #[arg(long, value_name = "TIME")]
    from: String,

    /// Up to this time, itself not included
    #[arg(long, value_name = "TIME")]
    to: String,

    /// Only say which
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    folder: FolderArg,

    #[command(flatten)]
    drive: DriveArgs,
}

impl Arguments {
    pub(crate) fn output(&self) -> Format {
        match &self.what {
            What::List(a) => a.output.output,
            What::Trigger(Trigger { drive, .. }) | What::Backfill(Backfill { drive, .. }) if drive.is_json() => {
                Format::Json
            }
            _ => Format::Text,
        }
    }
}

/// The most instants that one backfill runs.
const MOST: usize = 10_000;

pub(crate) fn run(arguments: &Arguments, dir: Option<&Path>) -> Done {
    match &arguments.what {
        What::List(a) => list(a, dir),
        What::Pause(a) => {
            let why = Paused { by: surroundings::by(), at: words::now_ms(), why: a.why.clone() };
            set_paused(&a.folder, &a.schedule, Some(why), dir)
        }
        What::Resume(a) => set_paused(&a.folder, &a.schedule, None, dir),
        What::Trigger(a) => trigger(a, dir),
        What::Backfill(a) => backfill(a, dir),
        What::Export(a) => {
            let entries = read(&a.folder)?;
            export::run(a, &entries)
        }
    }
}

fn read(folder: &FolderArg) -> Result<Vec<Entry>, Failure> {
    if !folder.playbooks.is_dir() {
        return Err(Failure::usage(format!("--playbooks {}: there is no such folder", folder.playbooks.display())));
    }
    let library = Library::new(Some(std::path::absolute(&folder.playbooks)?), Arc::new(runback_steps::catalog()));
    library.look();
    for entry in library.all().iter().filter(|e| e.is_broken()) {
        let (id, first, file) = (&entry.id, entry.first_error(), entry.file.display());
        term::note(&format!("{YELLOW}!{RESET} {id} has errors: {first}: see runback check {file}"));
    }
    Ok(of_library(&library))
}

fn find(folder: &FolderArg, key: &str) -> Result<Entry, Failure> {
    let all = read(folder)?;
    let exact = all.iter().find(|e| e.schedule.key == key);
    let mut begin = all.iter().filter(|e| e.schedule.key.starts_with(key));
    match (exact, begin.next(), begin.next()) {
        (Some(entry), ..) | (None, Some(entry), None) => Ok(entry.clone()),
        (None, None, _) => Err(Failure::usage(format!("there is no schedule `{key}`"))
            .help("runback schedule list shows them; --playbooks names the folder")),
        (None, Some(_), Some(_)) => {
            let keys: Vec<_> =
                all.iter().filter(|e| e.schedule.key.starts_with(key)).map(|e| e.schedule.key.as_str()).collect();
            Err(Failure::usage(format!("`{key}` is the beginning of several: {}", keys.join(", "))))
        }
    }
}

fn list(list: &List, dir: Option<&Path>) -> Done {
    let entries = read(&list.folder)?;
    let path = state_dir::path(dir)?;
    let rows = if path.exists() {
        state_dir::block_on(async { Ok(SqliteStore::open(&path)?.schedules().await?) })?
    } else {
        Vec::new()
    };
    let now = words::now_ms();
    let mut json = Vec::new();
    let mut out = String::new();
    for entry in &entries {
        let s = &entry.schedule;
        let row = rows.iter().find(|r| r.schedule == s.key);
        let paused = s.paused || row.is_some_and(|r| is_paused(s, r));
        let next = s.next(instant(now), usize::from(list.next), 10);
        if list.output.is_json() {
            let one = |f: &runback_core::schedule::Firing| json!({ "at": f.at_ms(), "wall": f.wall.to_string(), "placed": f.placed, "explain": f.placed.explain() });
            json.push(json!({
                "key": s.key, "playbook": entry.playbook, "cron": s.cron_text, "timezone": s.zone_name,
                "paused": paused, "decided": row.map(|r| r.decided), "next": next.iter().map(one).collect::<Vec<_>>(),
            }));
            continue;
        }
        let state = if paused { format!("  {YELLOW}paused{RESET}") } else { String::new() };
        out.push_str(&format!("{BOLD}{}{RESET}  {}  {DIM}{}{RESET}{state}\n", s.key, s.cron_text, s.zone_name));
        for firing in next {
            let zone = jiff::tz::db().get(&s.zone_name).unwrap_or(TimeZone::UTC);
            let at = firing.at.to_zoned(zone).strftime("%Y-%m-%d %H:%M:%S %:z");
            let why = firing.placed.explain().map(|e| format!("  {DIM}{} asked: {e}{RESET}", firing.wall.time()));
            out.push_str(&format!("  {at}{}\n", why.unwrap_or_default()));
        }
    }
    if list.output.is_json() {
        term::json(&json!({ "schedules": json }));
    } else if entries.is_empty() {
        term::note("no schedules");
    } else {
        term::line(out.trim_end());
    }
    Ok(Exit::Succeeded)
}

fn set_paused(folder: &FolderArg, key: &str, paused: Option<Paused>, dir: Option<&Path>) -> Done {
    let entry = find(folder, key)?;
    let key = &entry.schedule.key;
    if paused.is_none() && entry.schedule.paused {
        return Err(Failure::refused(format!("{key}: the playbook itself says `paused: true`"))
            .help("take that line out of the playbook"));
    }
    let store = SqliteStore::open(&state_dir::path(dir)?)?;
    let word = if paused.is_some() { "paused" } else { "resumed" };
    state_dir::block_on(async {
        store.meet_schedule(key, words::now_ms()).await?;
        Ok(store.pause_schedule(key, paused).await?)
    })?;
    term::line(&format!("{word} {key}"));
    Ok(Exit::Succeeded)
}

fn trigger(trigger: &Trigger, dir: Option<&Path>) -> Done {
    let entry = find(&trigger.folder, &trigger.schedule)?;
    drive_one(&entry, None, "schedule-trigger", &trigger.drive, dir)
}

/// Drives one run of a schedule here, to its end.
fn drive_one(entry: &Entry, at: Option<u64>, from: &str, arguments: &DriveArgs, dir: Option<&Path>) -> Done {
    let good = &entry.good;
    let given = entry.schedule.inputs.clone();
    let inputs = inputs::from_json(&good.plan.scopes[0].inputs, given, "`inputs` of the schedule")?;
    let path = state_dir::path(dir)?;
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&path)?);
    let options = RunOptions {
        schedule: at.map(|_| entry.schedule.key.clone()),
        scheduled_at: at.or_else(|| Some(words::now_ms())),
        ..RunOptions::default()
    };
    state_dir::block_on(async {
        let machines = Machines::new(&good.plan, &good.base, &path)?;
        let engine = Arc::new(Engine { store: Arc::clone(&store), log_limit: arguments.log_limit() });
        let new = New { plan: &good.plan, texts: &good.texts, base: &good.base, inputs: &inputs, options };
        let around = || surroundings::new(&good.plan, good.base.clone(), &machines, inputs.secret.clone());
        let driver = start::create(&engine, &new, None, from, around).await?;
        let done = drive::drive(driver, store, arguments, How { taken_up: None, ask_on_failure: true }).await;
        machines.close().await;
        done
    })
}

fn backfill(backfill: &Backfill, dir: Option<&Path>) -> Done {
    let entry = find(&backfill.folder, &backfill.schedule)?;
    let (from, to) = (time("--from", &backfill.from, &entry)?, time("--to", &backfill.to, &entry)?);
    if from >= to || to > instant(words::now_ms()) {
        return Err(Failure::usage("--from must be before --to, and --to not in the future"));
    }
    let nanosecond = jiff::SignedDuration::from_nanos(1);
    let found = entry.schedule.between(from - nanosecond, to - nanosecond, MOST + 1);
    if found.len() > MOST {
        return Err(Failure::usage(format!("these are more than {MOST} instants")).help("give a shorter range"));
    }
    let store = SqliteStore::open(&state_dir::path(dir)?)?;
    let (mut ran, mut decided) = (0, 0);
    for firing in found {
        let key = &entry.schedule.key;
        let taken = state_dir::block_on(async { Ok(store.firing(key, firing.at_ms()).await?) })?;
        if taken.is_some_and(|row| row.run.is_some()) {
            decided += 1;
            continue;
        }
        ran += 1;
        if backfill.dry_run {
            term::line(&firing.at.to_string());
            continue;
        }
        let exit = drive_one(&entry, Some(firing.at_ms()), "schedule-backfill", &backfill.drive, dir)?;
        if exit != Exit::Succeeded {
            // The rest would meet the same world.
            return Ok(exit);
        }
    }
    let word = if backfill.dry_run { "to run" } else { "run" };
    term::note(&format!("{} {word}, {decided} had a run already", words::plural(ran, "instant")));
    Ok(Exit::Succeeded)
}

fn time(option: &str, text: &str, entry: &Entry) -> Result<Timestamp, Failure> {
    if let Ok(at) = text.parse() {
        return Ok(at);
    }
    let zone = jiff::tz::db().get(&entry.schedule.zone_name).unwrap_or(TimeZone::UTC);
    let wall: Option<jiff::civil::DateTime> = text.parse().ok();
    wall.and_then(|wall| zone.to_timestamp(wall).ok()).ok_or_else(|| {
        Failure::usage(format!("{option} {text}: this is no time"))
            .help("write 2026-11-01, 2026-11-01T03:00 (in the schedule's zone) or 2026-11-01T03:00:00Z")
    })
}
