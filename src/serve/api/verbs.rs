//! What is done to a run that is there: answered, stopped, taken up and taken back.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::StatusCode;
use runback_core::Json;
use runback_core::event::{Outcome, Resolution};
use runback_core::state::{FINAL, NodeId, Phase, ROOT, RunState, Status};
use runback_core::step::Answer;
use runback_exec::driver::Intent;
use runback_exec::store::Request;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Map;

use super::runs::RunPath;
use crate::ask;
use crate::cmd::approve;
use crate::cmd::cancel::may_stop;
use crate::cmd::resume::may_settle;
use crate::journal::{self, Run};
use crate::serve::App;
use crate::serve::actions::{self, TakeUp};
use crate::serve::log;
use crate::serve::problem::Problem;
use crate::serve::route::{Accepted, Call, Nothing};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reply {
    /// The step that asks; may be left out where only one does.
    #[serde(default)]
    step: Option<String>,
    #[serde(default)]
    reason: Option<String>,
    /// Values of the form's fields.
    #[serde(default)]
    fields: Map<String, Json>,
    /// The digest of the plan that was looked at: refused when the run is of another.
    #[serde(default)]
    digest: Option<String>,
}

/// What was done or asked for.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Done {
    run: String,
    /// What happens now, in words.
    done: String,
}

type Change<B> = Call<RunPath, Nothing, B>;

pub(crate) async fn approve(call: Change<Reply>) -> Result<Accepted<Done>, Problem> {
    answer(call, true).await
}

pub(crate) async fn refuse(call: Change<Reply>) -> Result<Accepted<Done>, Problem> {
    answer(call, false).await
}

async fn answer(call: Change<Reply>, approved: bool) -> Result<Accepted<Done>, Problem> {
    let (app, body) = (call.app, call.body);
    let id = app.store.resolve(&call.path.run).await?;
    let run = journal::read(app.store.as_ref(), &id, &app.catalog).await?;
    // A run that asks nothing now is no mistake in the request.
    let node = approve::asking(&run.state, body.step.as_deref())
        .map_err(|failure| Problem { status: StatusCode::CONFLICT, ..failure.into() })?;
    let step = run.state.path(node).to_string();
    let see = format!("see what it does: GET /api/v1/runs/{id}/why");
    let Some(question) = run.state.node(node).question() else {
        return Err(Problem::conflict(format!("step {step} asks nothing"), see));
    };
    let created = run.state.created.as_ref();
    if let Some(digest) = &body.digest
        && created.is_none_or(|c| c.digest != *digest)
    {
        let message = "the run is of another plan than the one that was looked at";
        let help = format!("look at its own, and answer with that digest: GET /api/v1/runs/{id}/plan");
        return Err(Problem::conflict(message, help));
    }
    let fields = if approved { approve::checked_fields(question, body.fields)? } else { Json::Null };
    let roles = call.who.roles.iter().map(|r| r.name().to_owned()).collect();
    let mut answer = Answer { approved, by: call.who.by(), roles, reason: body.reason, fields };
    let starter = created.map_or("", |c| c.by.as_str());
    if let Some(why) = question.refuses(&answer, starter, run.state.node(node).answers()) {
        let message = format!("{step}: the answer of {} does not count: {why}", answer.by);
        return Err(Problem::conflict(message, format!("see who may answer: GET /api/v1/runs/{id}/why?step={step}")));
    }
    let unmasked = approve::mask(&mut answer, &run.state, &app.processes, &app.settings.state_dir).await;
    let word = if approved { "approved" } else { "refused" };
    if run.owner.is_some() {
        actions::post(&app, &id, Request::Answer { step: step.clone(), answer }).await?;
        return Ok(Accepted(Done { done: format!("{word} {step}"), run: id }));
    }
    approve::record(app.store.as_ref(), &id, &run.state, &step, answer).await?;
    if let Some(warning) = unmasked {
        log::warn(&warning, serde_json::json!({ "run": id, "step": step }));
    }
    Ok(Accepted(Done { done: format!("{word} {step}; nobody drives the run: resume it"), run: id }))
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CancelRun {
    /// Stop at once, take nothing back, and leave the run resumable.
    #[serde(default)]
    now: bool,
}

pub(crate) async fn cancel(call: Change<CancelRun>) -> Result<Accepted<Done>, Problem> {
    let by = call.who.by();
    let now = call.body.now;
    asked_of_owner(&call.app, &call.path.run, Request::Cancel { by, now }, "it is being stopped").await
}

pub(crate) async fn hold(call: Change<Nothing>) -> Result<Accepted<Done>, Problem> {
    let by = call.who.by();
    asked_of_owner(&call.app, &call.path.run, Request::Hold { by }, "it is held when what runs is over").await
}

async fn asked_of_owner(app: &Arc<App>, run: &str, request: Request, done: &str) -> Result<Accepted<Done>, Problem> {
    let id = app.store.resolve(run).await?;
    let mut found = journal::read(app.store.as_ref(), &id, &app.catalog).await?;
    if found.owner.is_some() {
        may_stop(&found.state, &request)?;
        if actions::ask(app, &id, request).await? {
            return Ok(Accepted(Done { run: id, done: done.to_owned() }));
        }
        found = journal::read(app.store.as_ref(), &id, &app.catalog).await?;
    }
    let message = format!("nobody drives run {id} ({}), so there is nothing to stop", found.status());
    let help = format!("see what it can be told now: GET /api/v1/runs/{id}/why");
    Err(Problem::conflict(message, help))
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResumeRun {
    /// What steps count as: path → done, redo, fail or skip; undone or kept where an undo failed.
    #[serde(default)]
    steps: BTreeMap<String, Resolution>,
    /// Inputs marked secret are not stored: give them again.
    #[serde(default)]
    secret_inputs: Map<String, Json>,
}

pub(crate) async fn resume(call: Change<ResumeRun>) -> Result<Accepted<Done>, Problem> {
    let id = call.app.store.resolve(&call.path.run).await?;
    let steps: Vec<_> = call.body.steps.into_iter().collect();
    are_there(&call.app, &id, &steps).await?;
    go_on(&call.app, id, steps, call.body.secret_inputs, call.who.by()).await
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RetryStep {
    /// A step's path.
    step: String,
    /// Inputs marked secret are not stored: give them again.
    #[serde(default)]
    secret_inputs: Map<String, Json>,
}

pub(crate) async fn retry(call: Change<RetryStep>) -> Result<Accepted<Done>, Problem> {
    let id = call.app.store.resolve(&call.path.run).await?;
    let run = journal::read(call.app.store.as_ref(), &id, &call.app.catalog).await?;
    let (state, step) = (&run.state, call.body.step);
    let node = super::step(state, &step)?;
    let again = matches!(state.phase, Phase::Held(_) | Phase::Finished(Outcome::Failed));
    if again {
        alone(state, node)?;
    }
    // A resume of such a run starts what failed anew by itself; what is in doubt it leaves so.
    let redo = !again || state.node(node).status == Status::Interrupted;
    let steps = if redo { vec![(step, Resolution::Redo)] } else { Vec::new() };
    go_on(&call.app, id, steps, call.body.secret_inputs, call.who.by()).await
}

/// A run that has stopped after a failure goes on as a whole, and all that failed comes again: one step can be retried
/// there only if nothing else failed.
fn alone(state: &RunState, node: NodeId) -> Result<(), Problem> {
    let (run, path) = (state.run_id(), state.path(node));
    let whole = format!("resume the run, which tries what failed again: POST /api/v1/runs/{run}/resume");
    if state.root(node) == FINAL {
        let why = format!("{path} stands under `finally`, which comes again as a whole");
        return Err(Problem::conflict(why, whole));
    }
    let failed = |n: &NodeId| {
        let by_itself = state.step(*n).action().is_some() || state.node(*n).error().is_some();
        let absorbed = state.is_satisfied(*n) || state.ancestors(*n).iter().any(|up| state.is_satisfied(*up));
        state.root(*n) == ROOT && state.node(*n).status == Status::Failed && by_itself && !absorbed
    };
    let within = |n: &NodeId| *n == node || state.ancestors(*n).contains(&node);
    let (inside, others): (Vec<NodeId>, Vec<NodeId>) = state.ids().filter(failed).partition(within);
    let status = state.node(node).status;
    if inside.is_empty() && status != Status::Interrupted {
        let why = format!("step {path} has not failed: it is {}", state.step_view(node).status);
        return Err(Problem::conflict(why, whole));
    }
    let names: Vec<&str> = others.iter().map(|n| &**state.path(*n)).collect();
    let Some(first) = names.first() else { return Ok(()) };
    let message = format!(
        "{path} cannot be retried alone: run {run} has stopped, goes on as a whole, and would try {} again too",
        names.join(", ")
    );
    let skip = serde_json::json!({ "steps": { *first: "skip" } });
    Err(Problem::conflict(message, format!("{whole}; or with what a step counts as: {skip}")))
}

/// Who drives a run is told nothing of steps that it has not: nobody would hear that it is refused.
async fn are_there(app: &App, run: &str, steps: &[(String, Resolution)]) -> Result<(), Problem> {
    if steps.is_empty() {
        return Ok(());
    }
    let known = |run: &Run| steps.iter().try_for_each(|(step, _)| super::step(&run.state, step).map(drop));
    app.folds.look(app, run, known).await?
}

/// Whoever drove a run that has stopped hears nothing more. One that waits in the queue is not driven yet.
async fn let_go(app: &App, run: &str) -> Result<(), Problem> {
    if app.runner.place(run).is_none() {
        ask::let_go(app.store.as_ref(), run, &app.catalog).await?;
    }
    Ok(())
}

/// Where somebody drives the run, they are told what steps count as. Gives what is left to do here: None, nothing.
async fn untold(
    app: &App,
    run: &str,
    steps: Vec<(String, Resolution)>,
    by: &str,
) -> Result<Option<Vec<(String, Resolution)>>, Problem> {
    if steps.is_empty() || app.store.owner(run).await?.is_none() {
        return Ok(Some(steps));
    }
    let may = |run: &Run| steps.iter().try_for_each(|(step, said)| may_settle(&run.state, step, *said));
    app.folds.look(app, run, may).await??;
    if app.runner.place(run).is_some() {
        // It hears when its turn comes.
        for (step, resolution) in &steps {
            actions::post(app, run, ask::settle(step, *resolution, by)).await?;
        }
        return Ok(None);
    }
    let left = ask::tell(app.store.as_ref(), run, &steps, by).await?;
    Ok((!left.is_empty()).then_some(left))
}

fn told(run: String) -> Accepted<Done> {
    Accepted(Done { run, done: "told the process that drives it".to_owned() })
}

async fn go_on(
    app: &Arc<App>,
    id: String,
    steps: Vec<(String, Resolution)>,
    secret_inputs: Map<String, Json>,
    by: String,
) -> Result<Accepted<Done>, Problem> {
    let_go(app, &id).await?;
    let Some(steps) = untold(app, &id, steps, &by).await? else { return Ok(told(id)) };
    let how = TakeUp { intent: Intent::Resume, steps, secret_inputs, by };
    actions::take_up(app, &id, how).await?;
    Ok(Accepted(Done { run: id, done: "it goes on".to_owned() }))
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RollbackRun {
    /// Undo also where the world has changed since.
    #[serde(default)]
    force: bool,
    /// What steps whose undo failed count as: path → undone (taken back by hand) or kept (it is to stay).
    #[serde(default)]
    steps: BTreeMap<String, Resolution>,
    /// Inputs marked secret are not stored: give them again.
    #[serde(default)]
    secret_inputs: Map<String, Json>,
}

pub(crate) async fn rollback(call: Change<RollbackRun>) -> Result<Accepted<Done>, Problem> {
    let (app, body, by) = (call.app, call.body, call.who.by());
    let id = app.store.resolve(&call.path.run).await?;
    if let Some((step, _)) = body.steps.iter().find(|(_, said)| !said.is_of_undo()) {
        let message = format!("on the way back step {step} counts as undone or kept, or as it is");
        return Err(Problem::conflict(message, format!("say undone or kept of {step}, or nothing")));
    }
    let steps: Vec<_> = body.steps.into_iter().collect();
    are_there(&app, &id, &steps).await?;
    let_go(&app, &id).await?;
    let Some(steps) = untold(&app, &id, steps, &by).await? else { return Ok(told(id)) };
    let driven = app.store.owner(&id).await?.is_some();
    if driven && actions::ask(&app, &id, Request::Rollback { by: by.clone(), force: body.force }).await? {
        return Ok(Accepted(Done { run: id, done: "asked the process that drives it to take it back".to_owned() }));
    }
    let intent = Intent::Rollback { force: body.force };
    let how = TakeUp { intent, steps, secret_inputs: body.secret_inputs, by };
    actions::take_up(&app, &id, how).await?;
    Ok(Accepted(Done { run: id, done: "it is being taken back".to_owned() }))
}
