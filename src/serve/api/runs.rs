//! Runs: listed, looked at and started. What is done to one that is there is `verbs`'.

use std::collections::BTreeMap;
use std::sync::Arc;

use runback_core::Json;
use runback_core::event::{OnFailure, RunOptions};
use runback_core::state::StepView;
use runback_core::step::{Answer, Question};
use runback_core::suggest::did_you_mean;
use runback_exec::output::{LogFiles, LogName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Map;

use crate::cmd::runs::STATUSES;
use crate::cmd::why::{self, WhyView};
use crate::inputs::Inputs;
use crate::journal::{self, Run, Summary};
use crate::preview::Previews;
use crate::serve::App;
use crate::serve::actions::{self, Wanted};
use crate::serve::feed;
use crate::serve::problem::Problem;
use crate::serve::route::{Call, Created, EventStream, Nothing, Ok200, Raw};

/// Most that a list gives at once.
const MOST: usize = 500;
/// Most bytes of output that are given at once.
const MOST_BYTES: u64 = 4 << 20;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunPath {
    /// A run's id, the beginning of one, or `last`.
    #[schemars(example = &"last")]
    pub(super) run: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListRuns {
    /// The playbook's name.
    #[serde(default)]
    playbook: Option<String>,
    /// Statuses, separated by commas.
    #[serde(default)]
    status: Option<String>,
    /// Created at or after this time.
    #[serde(default)]
    since: Option<u64>,
    /// Created before this time.
    #[serde(default)]
    until: Option<u64>,
    /// Text in the id, the playbook's name or the inputs.
    #[serde(default)]
    text: Option<String>,
    /// A run's id: those that stand after it in the list.
    #[serde(default)]
    after: Option<String>,
    /// At most so many; 50 where nothing is said, 500 at most.
    #[serde(default)]
    #[schemars(range(min = 1, max = 500))]
    limit: Option<usize>,
}

/// A run in a list.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct RunHead {
    pub(crate) id: String,
    pub(crate) playbook: Option<String>,
    /// running, waiting, rolling-back, succeeded, failed, rolled-back, stuck, cancelled, or interrupted.
    pub(crate) status: String,
    pub(crate) created_at: u64,
    pub(crate) started_at: Option<u64>,
    pub(crate) finished_at: Option<u64>,
    pub(crate) by: Option<String>,
    pub(crate) from: Option<String>,
    pub(crate) inputs: Json,
    pub(crate) outputs: Json,
    pub(crate) schedule: Option<String>,
    pub(crate) scheduled_at: Option<u64>,
    /// Some process drives it now.
    pub(crate) driven: bool,
    /// What a search for text looks at: id, playbook and inputs.
    #[serde(skip)]
    pub(crate) searched: String,
}

impl RunHead {
    /// It is not over, and nobody holds it.
    pub(crate) fn may_go_on(&self) -> bool {
        !matches!(self.status.as_str(), "succeeded" | "failed" | "rolled-back" | "stuck" | "cancelled")
    }
}

impl From<&Summary> for RunHead {
    fn from(s: &Summary) -> Self {
        let created = s.created.as_ref();
        let (playbook, inputs) = created.map_or(("", &Json::Null), |c| (c.playbook.as_str(), &c.inputs));
        Self {
            searched: format!("{}\n{playbook}\n{inputs}", s.run),
            id: s.run.clone(),
            playbook: created.map(|c| c.playbook.clone()),
            status: s.status.to_owned(),
            created_at: s.created_at,
            started_at: s.started_at,
            finished_at: s.finished_at,
            by: created.map(|c| c.by.clone()),
            from: created.map(|c| c.from.clone()),
            inputs: created.map_or(Json::Null, |c| c.inputs.clone()),
            outputs: s.outputs.clone(),
            schedule: created.and_then(|c| c.options.schedule.clone()),
            scheduled_at: created.and_then(|c| c.options.scheduled_at),
            driven: s.lives,
        }
    }
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RunList {
    runs: Vec<Arc<RunHead>>,
    /// All runs of the store.
    total: usize,
}

pub(crate) async fn list(call: Call<Nothing, ListRuns, Nothing>) -> Result<Ok200<RunList>, Problem> {
    let (app, query) = (call.app, call.query);
    let limit = query.limit.unwrap_or(50).clamp(1, MOST);
    let statuses = statuses(query.status.as_deref().unwrap_or_default())?;
    let heads = app.index.heads();
    let first = match &query.after {
        None => 0,
        Some(id) => {
            1 + heads.iter().position(|head| head.id == *id).ok_or_else(|| {
                Problem::not_found(format!("there is no run `{id}` after which to go on"))
                    .help("read the list from its start")
            })?
        }
    };
    let wanted = heads.iter().skip(first).filter(|head| {
        query.playbook.as_ref().is_none_or(|name| head.playbook.as_ref() == Some(name))
            && query.since.is_none_or(|since| head.created_at >= since)
            && query.until.is_none_or(|until| head.created_at < until)
            && (statuses.is_empty() || statuses.contains(&head.status.as_str()))
            && query.text.as_ref().is_none_or(|text| head.searched.contains(text))
    });
    Ok(Ok200(RunList { total: heads.len(), runs: wanted.take(limit).cloned().collect() }))
}

/// The words of a list of statuses; none: all of them.
fn statuses(list: &str) -> Result<Vec<&str>, Problem> {
    let words: Vec<&str> = list.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
    let Some(unknown) = words.iter().find(|word| !STATUSES.contains(*word)) else { return Ok(words) };
    let meant = did_you_mean(unknown, STATUSES);
    let meant = meant.map(|word| format!("did you mean `{word}`? ")).unwrap_or_default();
    Err(Problem::bad_request(format!("status: a run is never `{unknown}`"))
        .help(format!("{meant}runs are {}", STATUSES.join(", "))))
}

/// Heads of runs as they come and change: server-sent events. Who reads too slowly is told `reload`.
pub(crate) async fn changes(call: Call<Nothing, Nothing, Nothing>) -> Result<EventStream, Problem> {
    let permit = permit(&call.app)?;
    Ok(EventStream(feed::heads(call.app.index.watch(), permit, call.app.ending.subscribe())))
}

fn permit(app: &App) -> Result<tokio::sync::OwnedSemaphorePermit, Problem> {
    Arc::clone(&app.streams).try_acquire_owned().map_err(|_| {
        Problem::unavailable("too many streams are open", "close some, or give serve a larger --max-streams")
    })
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StartRun {
    /// A playbook of the folder: its path there, without the extension.
    playbook: String,
    /// Values by name.
    #[serde(default)]
    inputs: Map<String, Json>,
    /// The new run's id; refused when there is one like it.
    #[serde(default)]
    id: Option<String>,
    /// Attempts at once.
    #[serde(default)]
    #[schemars(range(min = 1, max = 10_000))]
    max_parallel: Option<u32>,
    /// What follows a failure, in place of what the playbook says.
    #[serde(default)]
    on_failure: Option<OnFailure>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Started {
    run: String,
    /// Its place in the queue, from 1; null when it has started.
    queued: Option<usize>,
}

pub(crate) async fn start(call: Call<Nothing, Nothing, StartRun>) -> Result<Created<Started>, Problem> {
    let (app, body) = (call.app, call.body);
    let good = super::playbook(&app, &body.playbook)?;
    if body.max_parallel.is_some_and(|n| !(1..=10_000).contains(&n)) {
        return Err(Problem::bad_request("max_parallel must be from 1 to 10000"));
    }
    let options = RunOptions { max_parallel: body.max_parallel, on_failure: body.on_failure, ..RunOptions::default() };
    let (by, from) = (call.who.by(), call.who.from().to_owned());
    let wanted = Wanted { good, inputs: body.inputs, id: body.id, options, by, from, after: None };
    let run = actions::start(&app, wanted).await?;
    Ok(Created(Started { queued: app.runner.place(&run), run }))
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RunView {
    #[serde(flatten)]
    head: RunHead,
    /// Number of its last event: what to watch from.
    last_seq: u64,
    /// Who drives it now: user@host, process.
    owner: Option<String>,
    /// Its place in this server's queue, from 1.
    queued: Option<usize>,
    /// The digest of its plan.
    digest: Option<String>,
    /// The outputs that could not be worked out and are null, and why.
    output_errors: BTreeMap<String, String>,
    steps: Vec<StepView>,
    /// Questions that are open.
    questions: Vec<OpenQuestion>,
    /// Steps of which nobody knows what they did.
    doubts: Vec<Doubt>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct OpenQuestion {
    step: String,
    question: Question,
    answers: Vec<Answer>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Doubt {
    step: String,
    why: Option<String>,
}

pub(crate) async fn show(call: Call<RunPath, Nothing, Nothing>) -> Result<Ok200<RunView>, Problem> {
    let app = call.app;
    let id = app.store.resolve(&call.path.run).await?;
    let (summary, _) = Summary::unfolded(app.store.run(&id).await?);
    let queued = app.runner.place(&id);
    Ok(Ok200(app.folds.look(&app, &id, |run| view(run, &summary, queued)).await?))
}

fn view(run: &Run, summary: &Summary, queued: Option<usize>) -> RunView {
    let state = &run.state;
    let question = |n| {
        let question = state.node(n).question()?.clone();
        Some(OpenQuestion { step: state.path(n).to_string(), question, answers: state.node(n).answers().to_vec() })
    };
    RunView {
        // From the fold, which may be ahead of the summary: who sees that it is over sees what it gave.
        head: RunHead {
            status: run.status().to_owned(),
            driven: run.owner.is_some(),
            started_at: state.started_at,
            finished_at: state.finished_at,
            outputs: state.outputs.as_deref().cloned().unwrap_or(Json::Null),
            ..RunHead::from(summary)
        },
        last_seq: state.last_seq,
        owner: run.owner.as_ref().map(ToString::to_string),
        queued,
        digest: state.created.as_ref().map(|c| c.digest.clone()),
        output_errors: state.output_errors.clone(),
        steps: run.steps(),
        questions: state.questions().filter_map(question).collect(),
        doubts: state
            .doubts()
            .map(|n| Doubt { step: state.path(n).to_string(), why: state.node(n).doubt().map(str::to_owned) })
            .collect(),
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventsAfter {
    /// Those after this number.
    #[serde(default)]
    after: u64,
    /// At most so many; 500 where nothing is said, and at most.
    #[serde(default)]
    #[schemars(range(min = 1, max = 500))]
    limit: Option<usize>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct EventList {
    events: Vec<runback_core::event::Event>,
}

pub(crate) async fn events(call: Call<RunPath, EventsAfter, Nothing>) -> Result<Ok200<EventList>, Problem> {
    let id = call.app.store.resolve(&call.path.run).await?;
    let limit = call.query.limit.unwrap_or(MOST).clamp(1, MOST);
    Ok(Ok200(EventList { events: call.app.store.events(&id, in_range(call.query.after)?, limit).await? }))
}

/// The store counts in signed numbers.
fn in_range(seq: u64) -> Result<u64, Problem> {
    if i64::try_from(seq).is_ok() { Ok(seq) } else { Err(Problem::bad_request("after: there is no such number")) }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StreamAfter {
    /// Those after this number; Last-Event-ID says it too, and wins.
    #[serde(default)]
    after: u64,
    /// False: end where the journal ends now.
    #[serde(default = "yes")]
    follow: bool,
}

fn yes() -> bool {
    true
}

pub(crate) async fn stream(call: Call<RunPath, StreamAfter, Nothing>) -> Result<EventStream, Problem> {
    let app = call.app;
    let id = app.store.resolve(&call.path.run).await?;
    let last_id = call.headers.get("last-event-id").and_then(|v| v.to_str().ok()?.trim().parse().ok());
    let after = in_range(last_id.unwrap_or(call.query.after))?;
    let permit = permit(&app)?;
    let feed = app.feeds.of(&app.store, &id).await?;
    Ok(EventStream(feed::stream(feed, after, call.query.follow, permit, app.ending.subscribe())))
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OneStep {
    /// A step's path; the whole run where none is named.
    #[serde(default)]
    step: Option<String>,
}

pub(crate) async fn why(call: Call<RunPath, OneStep, Nothing>) -> Result<Ok200<WhyView>, Problem> {
    let app = call.app;
    let id = app.store.resolve(&call.path.run).await?;
    let run = journal::read(app.store.as_ref(), &id, &app.catalog).await?;
    let queued = app.runner.waits(&id);
    Ok(Ok200(why::explain(app.store.as_ref(), &run, call.query.step.as_deref(), queued).await?))
}

pub(crate) async fn plan(call: Call<RunPath, Nothing, Nothing>) -> Result<Ok200<Json>, Problem> {
    let app = call.app;
    let id = app.store.resolve(&call.path.run).await?;
    let (created, plan) = journal::plan_of(app.store.as_ref(), &id, &app.catalog).await?;
    let inputs = Inputs { open: created.inputs.as_object().cloned().unwrap_or_default(), secret: Map::new() };
    let previews = Previews::blind(&plan, &inputs);
    Ok(Ok200(crate::cmd::plan::as_json(&plan, &inputs, &[], &previews)))
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogRange {
    /// A step's path, such as `build` or `deploy/convert[web1]`.
    step: String,
    /// From 1; the last one where none is named.
    #[serde(default)]
    attempt: Option<u32>,
    /// The output of its undo.
    #[serde(default)]
    undo: bool,
    /// Place of the first byte in the whole output. Negative: so many before its end.
    #[serde(default)]
    from: i64,
    /// At most so many bytes; 64 KiB where nothing is said, 4 MiB at most.
    #[serde(default)]
    limit: Option<u64>,
}

pub(crate) async fn log(call: Call<RunPath, LogRange, Nothing>) -> Result<Raw, Problem> {
    let (app, query) = (call.app, call.query);
    let id = app.store.resolve(&call.path.run).await?;
    let last = |run: &Run| {
        let n = run.state.node(super::step(&run.state, &query.step)?);
        Ok::<_, Problem>(if query.undo { n.undo_attempts } else { n.attempts })
    };
    let last = app.folds.look(&app, &id, last).await??;
    let attempt = query.attempt.unwrap_or(last);
    let dir = app.store.logs_dir(&id).ok_or_else(|| Problem::not_found("this store keeps no output"))?;
    let files = LogFiles::new(&dir, &LogName { step: &query.step, attempt, undo: query.undo });
    let limit = query.limit.unwrap_or(64 << 10).clamp(1, MOST_BYTES);
    let read = tokio::task::spawn_blocking(move || {
        let size = files.size()?;
        let from = u64::try_from(query.from).unwrap_or_else(|_| size.saturating_sub(query.from.unsigned_abs()));
        Ok::<_, std::io::Error>((size, from, files.read(from, usize::try_from(limit).unwrap_or(usize::MAX))?))
    });
    let (size, from, piece) = match read.await {
        Ok(Ok(read)) => read,
        Ok(Err(error)) => {
            let help = format!("see to {}, then ask again", dir.display());
            return Err(Problem::unavailable(format!("the output cannot be read: {error}"), help));
        }
        Err(_) => return Err(Problem::internal("the output could not be read")),
    };
    let (offset, cut, bytes) = piece.map_or((from.min(size), 0, Vec::new()), |p| (p.offset, p.cut, p.bytes));
    let next = offset + bytes.len() as u64;
    let headers = vec![
        ("x-log-offset", offset.to_string()),
        ("x-log-cut", cut.to_string()),
        ("x-log-next", next.to_string()),
        ("x-log-size", size.max(next).to_string()),
    ];
    Ok(Raw { headers, bytes })
}
