//! Schedules: when they fire, what became of their instants, and what an operator may do to them.

use std::sync::Arc;

use runback_core::Json;
use runback_core::schedule::{Catchup, Firing, Fold, Gap, Overlap, Placed};
use runback_exec::store::desk::{FiringRow, Paused};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Map;

use crate::serve::App;
use crate::serve::problem::Problem;
use crate::serve::route::{Accepted, Call, Nothing, Ok200};
use crate::serve::schedules::{self, Entry, Failed, instant};
use crate::serve::turns;
use crate::words;

/// Most firings that are shown of one schedule, and started by one backfill.
const MOST: usize = 1000;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SchedulePath {
    /// A schedule's key, as the list has it.
    schedule: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HowMany {
    /// So many of the next instants; 5 where nothing is said, 1000 at most.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1000))]
    next: Option<usize>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ScheduleView {
    key: String,
    playbook: String,
    cron: String,
    timezone: String,
    inputs: Json,
    overlap: Overlap,
    catchup: Catchup,
    catchup_window_ms: u64,
    dst_gap: Gap,
    dst_fold: Fold,
    jitter_ms: u64,
    start_at: Option<u64>,
    end_at: Option<u64>,
    pause_on_failure: bool,
    paused: Option<PausedView>,
    /// All of its instants up to this one are decided; null before the first look.
    decided: Option<u64>,
    /// Runs of it that are not over.
    living: Vec<String>,
    next: Vec<NextFiring>,
    /// What was decided last, newest first.
    last: Vec<FiringView>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct PausedView {
    /// Who; `playbook` when it says `paused: true`.
    by: String,
    at: Option<u64>,
    why: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct NextFiring {
    at: u64,
    /// It starts so much later.
    jitter_ms: u64,
    /// The time on the clock on the wall that the expression asks for.
    wall: String,
    placed: Placed,
    /// What was decided where the clock is set forward or back.
    explain: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct FiringView {
    schedule: String,
    at: u64,
    run: Option<String>,
    /// started; or why not: missed, paused, overlap, buffered, failed.
    decision: String,
    decided_at: u64,
}

impl From<FiringRow> for FiringView {
    fn from(row: FiringRow) -> Self {
        let FiringRow { schedule, at, run, decision, decided_at } = row;
        Self { schedule, at, run, decision, decided_at }
    }
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ScheduleList {
    schedules: Vec<ScheduleView>,
}

async fn view(app: &App, entry: &Entry, next: Option<usize>) -> Result<ScheduleView, Problem> {
    let s = &entry.schedule;
    let row = app.desk.schedules().await?.into_iter().find(|row| row.schedule == s.key);
    let firings = app.desk.firings(Some(&s.key), 0, 5).await?;
    let stored =
        row.as_ref().and_then(|r| r.paused.clone()).map(|p| PausedView { by: p.by, at: Some(p.at), why: p.why });
    let written = s.paused.then(|| PausedView { by: "playbook".to_owned(), at: None, why: None });
    let millis = |at: Option<jiff::Timestamp>| at.and_then(|at| u64::try_from(at.as_millisecond()).ok());
    let next = s.next(instant(words::now_ms()), next.unwrap_or(5).min(MOST), 10);
    Ok(ScheduleView {
        key: s.key.clone(),
        playbook: entry.playbook.clone(),
        cron: s.cron_text.clone(),
        timezone: s.zone_name.clone(),
        inputs: Json::Object(s.inputs.clone()),
        overlap: s.overlap,
        catchup: s.catchup,
        catchup_window_ms: s.catchup_window.as_millis() as u64,
        dst_gap: s.gap,
        dst_fold: s.fold,
        jitter_ms: s.jitter.as_millis() as u64,
        start_at: millis(s.start),
        end_at: millis(s.end),
        pause_on_failure: s.pause_on_failure,
        paused: stored.or(written),
        decided: row.map(|r| r.decided),
        living: turns::living(app, &s.key).await?.iter().map(|l| l.run().to_owned()).collect(),
        next: next
            .into_iter()
            .map(|f| NextFiring {
                at: f.at_ms(),
                jitter_ms: s.jitter_of(f.at).as_millis() as u64,
                wall: f.wall.to_string(),
                placed: f.placed,
                explain: f.placed.explain().map(str::to_owned),
            })
            .collect(),
        last: firings.into_iter().map(Into::into).collect(),
    })
}

fn entry(app: &App, key: &str) -> Result<Entry, Problem> {
    schedules::find(app, key).ok_or_else(|| {
        Problem::not_found(format!("there is no schedule `{key}`")).help("GET /api/v1/schedules lists them")
    })
}

pub(crate) async fn list(call: Call<Nothing, HowMany, Nothing>) -> Result<Ok200<ScheduleList>, Problem> {
    let mut all = Vec::new();
    for entry in schedules::all(&call.app) {
        all.push(view(&call.app, &entry, call.query.next).await?);
    }
    Ok(Ok200(ScheduleList { schedules: all }))
}

pub(crate) async fn show(call: Call<SchedulePath, HowMany, Nothing>) -> Result<Ok200<ScheduleView>, Problem> {
    let entry = entry(&call.app, &call.path.schedule)?;
    Ok(Ok200(view(&call.app, &entry, call.query.next).await?))
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PauseSchedule {
    #[serde(default)]
    why: Option<String>,
}

pub(crate) async fn pause(call: Call<SchedulePath, Nothing, PauseSchedule>) -> Result<Ok200<ScheduleView>, Problem> {
    let paused = Paused { by: call.who.by(), at: words::now_ms(), why: call.body.why };
    set_paused(&call.app, &call.path.schedule, Some(paused)).await
}

pub(crate) async fn resume(call: Call<SchedulePath, Nothing, Nothing>) -> Result<Ok200<ScheduleView>, Problem> {
    set_paused(&call.app, &call.path.schedule, None).await
}

async fn set_paused(app: &App, key: &str, paused: Option<Paused>) -> Result<Ok200<ScheduleView>, Problem> {
    let entry = entry(app, key)?;
    if paused.is_none() && entry.schedule.paused {
        return Err(Problem::conflict("the playbook itself says `paused: true`", "take that line out of the playbook"));
    }
    app.desk.meet_schedule(key, words::now_ms()).await?;
    app.desk.pause_schedule(key, paused).await?;
    Ok(Ok200(view(app, &entry, None).await?))
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TriggerSchedule {
    /// In place of the schedule's, by name.
    #[serde(default)]
    inputs: Map<String, Json>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Triggered {
    /// Runs that were started, in the order of their instants.
    runs: Vec<String>,
    /// Instants that had a run already.
    decided: usize,
}

pub(crate) async fn trigger(
    call: Call<SchedulePath, Nothing, TriggerSchedule>,
) -> Result<Accepted<Triggered>, Problem> {
    let entry = entry(&call.app, &call.path.schedule)?;
    let inputs = Some(call.body.inputs);
    let started = schedules::start_run(&call.app, &entry, None, inputs, "schedule-trigger", call.who.by(), None).await;
    match started {
        Ok(run) => Ok(Accepted(Triggered { runs: vec![run], decided: 0 })),
        Err(Failed::Other(problem)) => Err(problem),
        Err(Failed::Decided) => {
            let help = format!("see its run: GET /api/v1/schedules/{}", entry.schedule.key);
            Err(Problem::conflict("it was started already", help))
        }
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Backfill {
    /// Instants at or after this time.
    from: u64,
    /// Instants before this time.
    to: u64,
}

impl Backfill {
    /// The instants of the range; it must be over, and not too long.
    fn of(&self, entry: &Entry) -> Result<Vec<Firing>, Problem> {
        if self.from >= self.to || self.to > words::now_ms() {
            return Err(Problem::bad_request("`from` must be before `to`, and `to` not in the future"));
        }
        let found = entry.schedule.between(instant(self.from.saturating_sub(1)), instant(self.to - 1), MOST + 1);
        if found.len() > MOST {
            return Err(
                Problem::bad_request(format!("these are more than {MOST} instants")).help("give a shorter range")
            );
        }
        Ok(found)
    }
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct InstantList {
    instants: Vec<InstantView>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct InstantView {
    at: u64,
    run: Option<String>,
    /// What was decided about it; null: nothing was.
    decision: Option<String>,
}

pub(crate) async fn instants(call: Call<SchedulePath, Backfill, Nothing>) -> Result<Ok200<InstantList>, Problem> {
    let entry = entry(&call.app, &call.path.schedule)?;
    let mut all = Vec::new();
    for firing in call.query.of(&entry)? {
        let at = firing.at_ms();
        let row = call.app.desk.firing(&entry.schedule.key, at).await?;
        let (run, decision) = row.map_or((None, None), |row| (row.run, Some(row.decision)));
        all.push(InstantView { at, run, decision });
    }
    Ok(Ok200(InstantList { instants: all }))
}

pub(crate) async fn backfill(call: Call<SchedulePath, Nothing, Backfill>) -> Result<Accepted<Triggered>, Problem> {
    let (app, body): (Arc<App>, Backfill) = (call.app, call.body);
    let entry = entry(&app, &call.path.schedule)?;
    let found = body.of(&entry)?;
    let mut done = Triggered { runs: Vec::new(), decided: 0 };
    for firing in found {
        let after = Some(entry.schedule.key.clone());
        let started =
            schedules::start_run(&app, &entry, Some(firing.at_ms()), None, "schedule-backfill", call.who.by(), after);
        match started.await {
            Ok(run) => done.runs.push(run),
            Err(Failed::Decided) => done.decided += 1,
            // What was started stays; who asks again goes on from here.
            Err(Failed::Other(problem)) if done.runs.is_empty() => return Err(problem),
            Err(Failed::Other(problem)) => {
                let message =
                    format!("{} were started, then: {}", words::plural(done.runs.len(), "run"), problem.error.message);
                return Err(Problem::new(problem.status, message).help(problem.error.help));
            }
        }
    }
    Ok(Accepted(done))
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FiringsSince {
    /// Of one schedule.
    #[serde(default)]
    schedule: Option<String>,
    /// Instants at or after this time.
    #[serde(default)]
    since: u64,
    /// At most so many; 200 where nothing is said, 1000 at most.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<usize>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct FiringList {
    firings: Vec<FiringView>,
}

pub(crate) async fn firings(call: Call<Nothing, FiringsSince, Nothing>) -> Result<Ok200<FiringList>, Problem> {
    let query = call.query;
    let limit = query.limit.unwrap_or(200).clamp(1, MOST);
    let rows = call.app.desk.firings(query.schedule.as_deref(), query.since, limit).await?;
    Ok(Ok200(FiringList { firings: rows.into_iter().map(Into::into).collect() }))
}
