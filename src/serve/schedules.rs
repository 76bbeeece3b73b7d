//! The clock of the server: looks which instants are due, and starts their runs. When a schedule fires is
//! `runback_core::schedule`'s business; that an instant is taken once, the store's.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use runback_core::Json;
use runback_core::event::{RollbackReason, RunOptions};
use runback_core::schedule::{Firing, Meeting, Schedule, Verdict};
use runback_core::state::{RunState, RunStatus};
use runback_exec::store::desk::{Paused, ScheduleRow};
use runback_exec::store::{Request, StoreError};
use serde_json::{Map, json};

use super::App;
use super::actions::{self, Wanted};
use super::library::{Good, Library};
use super::log;
use super::problem::Problem;
use super::turns::{self, Living};
use crate::words;

/// At the latest so long after the last look the next one comes: a playbook or the clock may have changed.
const LOOK: Duration = Duration::from_secs(1);
/// A server that has looked at nothing for longer was not there: it was stopped, or its machine slept.
const AWAY: u64 = 5_000;
/// A clock that went back by less is not taken for one that was set.
const CLOCK_SLACK: u64 = 2_000;
/// Decisions about instants that are older are forgotten.
const REMEMBERED: Duration = Duration::from_secs(40 * 24 * 3600);

/// One schedule of one playbook.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) playbook: String,
    pub(crate) good: Arc<Good>,
    pub(crate) schedule: Arc<Schedule>,
}

/// In the order of their playbooks.
pub(crate) fn all(app: &App) -> Vec<Entry> {
    of_library(&app.library)
}

pub(crate) fn of_library(library: &Library) -> Vec<Entry> {
    let mut all = Vec::new();
    for entry in library.all() {
        let Some(good) = entry.good else { continue };
        for schedule in &good.schedules {
            all.push(Entry { playbook: entry.id.clone(), good: Arc::clone(&good), schedule: Arc::clone(schedule) });
        }
    }
    all
}

pub(crate) fn find(app: &App, key: &str) -> Option<Entry> {
    all(app).into_iter().find(|e| e.schedule.key == key)
}

/// Milliseconds since the epoch as an instant.
pub(crate) fn instant(ms: u64) -> Timestamp {
    i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or(Timestamp::MAX)
}

fn millis(at: Timestamp) -> u64 {
    u64::try_from(at.as_millisecond()).unwrap_or_default()
}

/// Fires what is due until it is aborted. An instant that was begun and not finished is decided by the next server.
pub(crate) async fn fire(app: Arc<App>) {
    let mut forgot = 0;
    // Since when it has been there without a break, and when it was seen to be.
    let (mut since, mut last) = (0, 0);
    loop {
        let now = words::now_ms();
        since = if now.saturating_sub(last) > AWAY { now } else { now.min(since) };
        let mut next = None;
        for entry in all(&app) {
            match look(&app, &entry, now, since).await {
                Ok(due) => next = next.into_iter().chain(due).min(),
                Err(error) => {
                    let fields =
                        json!({ "schedule": entry.schedule.key, "error": error.to_string(), "help": error.help() });
                    log::error("a schedule could not be looked at", fields);
                }
            }
        }
        app.metrics.looked(now);
        if now.saturating_sub(forgot) > 3_600_000 {
            forgot = now;
            let before = now.saturating_sub(REMEMBERED.as_millis() as u64);
            if let Err(error) = app.desk.forget_firings(before).await {
                log::warn("old decisions could not be removed", json!({ "error": error.to_string() }));
            }
        }
        let wait = next.map(|due: Timestamp| millis(due).saturating_sub(words::now_ms()));
        last = words::now_ms();
        // A little after it, for the clock counts in whole milliseconds.
        tokio::time::sleep(wait.map_or(LOOK, |ms| Duration::from_millis(ms + 1)).min(LOOK)).await;
    }
}

/// Decides about one schedule; returns when it is due next, if that is soon. `since`: from when on this server has been
/// there.
async fn look(app: &Arc<App>, entry: &Entry, now: u64, since: u64) -> Result<Option<Timestamp>, StoreError> {
    let schedule = &entry.schedule;
    let row = app.desk.meet_schedule(&schedule.key, now).await?;
    let mut decided = row.decided;
    if decided > now + CLOCK_SLACK {
        // The clock was set back. What has a decision keeps it; the rest of the window is decided again.
        decided = now.saturating_sub(schedule.catchup_window.as_millis() as u64);
        app.desk.decide_until(&schedule.key, decided, true).await?;
        log::warn("the clock was set back", json!({ "schedule": schedule.key, "decided": row.decided, "now": now }));
    }
    let verdicts = schedule.decide(instant(decided), instant(now), Some(instant(since)), is_paused(schedule, &row));
    for (firing, verdict) in &verdicts.firings {
        match verdict {
            Verdict::PassOver(why) => pass_over(app, entry, firing.at_ms(), why).await?,
            Verdict::Start => start(app, entry, firing).await?,
        }
    }
    if let Some(until) = verdicts.decided.map(millis).filter(|until| *until > decided) {
        // What has no instant in it need not be written down each second.
        let idle = verdicts.firings.is_empty() && until.saturating_sub(row.decided) < 60_000;
        if !idle {
            app.desk.decide_until(&schedule.key, until, false).await?;
        }
    }
    let soon = schedule.between(instant(now), instant(now + 2 * LOOK.as_millis() as u64), 1);
    Ok(soon.first().map(|f| f.at).into_iter().chain(verdicts.next_due).min())
}

pub(crate) fn is_paused(schedule: &Schedule, row: &ScheduleRow) -> bool {
    schedule.paused || row.paused.is_some()
}

async fn pass_over(app: &App, entry: &Entry, at: u64, why: &str) -> Result<(), StoreError> {
    if app.desk.pass_over(&entry.schedule.key, at, why).await? {
        app.metrics.fired(&entry.playbook, why);
        if why != "paused" {
            log::warn(
                "an instant was passed over",
                json!({ "schedule": entry.schedule.key, "instant": at, "why": why }),
            );
        }
    }
    Ok(())
}

async fn start(app: &Arc<App>, entry: &Entry, firing: &Firing) -> Result<(), StoreError> {
    let at = firing.at_ms();
    let key = &entry.schedule.key;
    // Another server may have decided, or this one before the clock was set back.
    if app.desk.firing(key, at).await?.is_some() {
        return Ok(());
    }
    let mut living = turns::living(app, key).await?;
    living.retain(|l| l.is_before(at));
    let after = match entry.schedule.overlap.meets(living.len(), turns::waiting(&living)) {
        Meeting::PassOver(why) => return pass_over(app, entry, at, why).await,
        Meeting::Start => None,
        Meeting::Wait => Some(key.clone()),
        Meeting::Replace => {
            // One that nobody drives would only find out when somebody goes on with it, and that is another wish.
            for run in living.iter().filter(|l| l.driven).map(Living::run) {
                let by = "schedule".to_owned();
                if let Err(problem) = actions::post(app, run, Request::Cancel { by, now: false }).await {
                    log::warn("a run could not be cancelled", json!({ "run": run, "error": problem.error.message }));
                }
            }
            Some(key.clone())
        }
    };
    match start_run(app, entry, Some(at), None, "schedule", "schedule".to_owned(), after).await {
        Ok(run) => {
            app.metrics.fired(&entry.playbook, "started");
            app.metrics.lag(words::now_ms().saturating_sub(at));
            log::info("schedule fired", json!({ "schedule": key, "instant": at, "run": run }));
            Ok(())
        }
        Err(Failed::Decided) => Ok(()),
        Err(Failed::Other(problem)) => {
            let error = problem.error;
            log::error(
                "a schedule could not start its run",
                json!({
                    "schedule": key, "instant": at, "error": error.message, "help": error.help,
                }),
            );
            pass_over(app, entry, at, "failed").await
        }
    }
}

/// Why a run of a schedule was not started.
pub(crate) enum Failed {
    /// There is a run of this instant.
    Decided,
    Other(Problem),
}

/// Starts a run as a schedule says. `at` None: it belongs to no instant.
pub(crate) async fn start_run(
    app: &Arc<App>,
    entry: &Entry,
    at: Option<u64>,
    inputs: Option<Map<String, Json>>,
    from: &str,
    by: String,
    after: Option<String>,
) -> Result<String, Failed> {
    let options = RunOptions {
        schedule: at.map(|_| entry.schedule.key.clone()),
        scheduled_at: at.or_else(|| Some(words::now_ms())),
        ..RunOptions::default()
    };
    let mut all = entry.schedule.inputs.clone();
    all.extend(inputs.unwrap_or_default());
    let good = Arc::clone(&entry.good);
    let wanted = Wanted { good, inputs: all, id: None, options, by, from: from.to_owned(), after };
    let started = actions::start(app, wanted).await;
    match started {
        Ok(run) => Ok(run),
        Err(problem) => match at {
            Some(at)
                if app
                    .desk
                    .firing(&entry.schedule.key, at)
                    .await
                    .is_ok_and(|row| row.is_some_and(|r| r.run.is_some())) =>
            {
                Err(Failed::Decided)
            }
            _ => Err(Failed::Other(problem)),
        },
    }
}

/// A run of a schedule is over, as far as this server is concerned. One that went well and that somebody took back
/// later, has not failed.
pub(crate) async fn ended(app: &App, key: &str, run: &str, state: &RunState) {
    let status = state.status();
    if !has_failed(state) || !find(app, key).is_some_and(|e| e.schedule.pause_on_failure) {
        return;
    }
    let why = Some(format!("run {run}: {}", status.name()));
    let paused = Paused { by: "runback".to_owned(), at: words::now_ms(), why };
    match app.desk.pause_schedule(key, Some(paused)).await {
        Ok(_) => log::warn("schedule paused", json!({ "schedule": key, "run": run, "status": status.name() })),
        Err(error) => {
            log::error("a schedule could not be paused", json!({ "schedule": key, "error": error.to_string() }));
        }
    }
}

fn has_failed(state: &RunState) -> bool {
    let asked_for = state.rollbacks().last().is_some_and(|r| r.reason == RollbackReason::Operator);
    match state.status() {
        RunStatus::Failed | RunStatus::Stuck => true,
        RunStatus::RolledBack => state.failure.is_some() || !asked_for,
        _ => false,
    }
}
