//! Runs as the store has them, folded to a state for looking at: no lease is taken and nothing is written.

use std::sync::Arc;

use runback_core::Json;
use runback_core::event::{Created, Event, EventBody};
use runback_core::plan::PlanKind;
use runback_core::scope;
use runback_core::state::{Phase, RunState, RunStatus, StepView};
use runback_core::step::Catalog;
use runback_exec::lease::Owner;
use runback_exec::store::{RunRow, Store};
use serde_json::json;

use crate::failure::Failure;
use crate::{load, next};

/// One run, whole.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) state: RunState,
    /// Who drives it now.
    pub(crate) owner: Option<Owner>,
    /// Its process has the run's own locks still to wait for.
    pub(crate) waits_for_locks: bool,
}

const CHUNK: usize = 4096;

/// A run by id, unique prefix, or `last`.
pub(crate) async fn read(store: &dyn Store, run: &str, catalog: &Catalog) -> Result<Run, Failure> {
    let id = store.resolve(run).await?;
    let state = fold(store, &id, catalog).await?;
    let owner = store.owner(&id).await?;
    let waits_for_locks = waits_for_locks(store, &id).await?;
    Ok(Run { state, owner, waits_for_locks })
}

/// Before it begins, or before it goes on after it was taken up: a run waits for its own locks, and does nothing else.
pub(crate) async fn waits_for_locks(store: &dyn Store, run: &str) -> Result<bool, Failure> {
    Ok(store.lock_waits(run).await?.iter().any(|(step, _)| step.is_none()))
}

pub(crate) async fn created(store: &dyn Store, run: &str) -> Result<(Created, u64), Failure> {
    let first = store.events(run, 0, 1).await?.into_iter().next();
    match first {
        Some(Event { at, body: EventBody::RunCreated(created), .. }) => Ok((*created, at)),
        _ => Err(Failure::failed(format!("run {run} has no beginning in the journal"))
            .help(format!("something else wrote or damaged it: {}", next::as_typed("runback audit verify")))),
    }
}

pub(crate) async fn fold(store: &dyn Store, run: &str, catalog: &Catalog) -> Result<RunState, Failure> {
    let (created, _) = created(store, run).await?;
    let plan = load::recompile(&created, catalog).map_err(|why| other_version(run, &created, &why))?;
    if plan.digest() != created.digest {
        return Err(other_version(run, &created, "the playbook compiles to another plan"));
    }
    let mut state = RunState::new(plan);
    advance(store, run, &mut state).await?;
    Ok(state)
}

/// Applies what the journal has got since.
pub(crate) async fn advance(store: &dyn Store, run: &str, state: &mut RunState) -> Result<(), Failure> {
    loop {
        let events = store.events(run, state.last_seq, CHUNK).await?;
        for event in &events {
            state.apply(event).map_err(|e| {
                Failure::failed(format!("the journal of run {run} cannot be followed: {e}"))
                    .help("it was written by another version, or changed by hand")
            })?;
        }
        if events.len() < CHUNK {
            return Ok(());
        }
    }
}

pub(crate) fn other_version(run: &str, created: &Created, why: &str) -> Failure {
    Failure::failed(format!("run {run} cannot be read: {why}")).help(format!(
        "use runback {} for it; this is {}",
        created.version,
        env!("CARGO_PKG_VERSION")
    ))
}

impl Run {
    pub(crate) fn status(&self) -> &'static str {
        status_word(self.state.status(), self.owner.is_some(), self.waits_for_locks)
    }

    /// The contract of `runback show --output json`.
    pub(crate) fn to_json(&self) -> Json {
        let mut all = head_json(
            self.state.run_id(),
            self.state.created.as_deref(),
            self.status(),
            self.state.started_at,
            self.state.finished_at,
        );
        all["outputs"] = self.state.outputs.as_deref().cloned().unwrap_or(Json::Null);
        if !self.state.output_errors.is_empty() {
            all["output_errors"] = json!(self.state.output_errors);
        }
        all["owner"] = json!(self.owner);
        all["steps"] = json!(self.steps());
        all
    }

    /// All steps, in the order in which they came to be.
    pub(crate) fn steps(&self) -> Vec<StepView> {
        let view = |id| {
            let mut view = self.state.step_view(id);
            // A block's and a for_each's outputs are made of their steps'.
            if !matches!(self.state.step(id).kind, PlanKind::Action(_)) && view.status == "succeeded" {
                view.outputs = scope::outputs(&self.state, id).unwrap_or(Json::Null);
            }
            view
        };
        self.state.ids().map(view).collect()
    }
}

/// A run that says it lives, and nobody drives: its process died. One that waits for its own locks does nothing else.
pub(crate) fn status_word(status: RunStatus, owned: bool, waits_for_locks: bool) -> &'static str {
    match status {
        RunStatus::Running | RunStatus::RollingBack if !owned => "interrupted",
        RunStatus::Running | RunStatus::RollingBack if waits_for_locks => RunStatus::Waiting.name(),
        other => other.name(),
    }
}

fn head_json(
    run: &str,
    created: Option<&Created>,
    status: &str,
    started_at: Option<u64>,
    finished_at: Option<u64>,
) -> Json {
    json!({
        "id": run,
        "playbook": created.map(|c| c.playbook.as_str()),
        "status": status,
        "started_at": started_at,
        "finished_at": finished_at,
        "by": created.map(|c| c.by.as_str()),
        "from": created.map(|c| c.from.as_str()),
        "inputs": created.map(|c| &c.inputs),
        "outputs": Json::Null,
    })
}

/// A run in a list.
#[derive(Debug)]
pub(crate) struct Summary {
    pub(crate) run: String,
    pub(crate) created: Option<Created>,
    pub(crate) status: &'static str,
    pub(crate) created_at: u64,
    pub(crate) last_at: u64,
    /// Somebody drives it.
    pub(crate) lives: bool,
    pub(crate) started_at: Option<u64>,
    pub(crate) finished_at: Option<u64>,
    pub(crate) outputs: Json,
}

impl Summary {
    /// Runs that are over say so in their head events; for the others the whole journal is folded.
    pub(crate) async fn of(row: RunRow, store: &dyn Store, catalog: &Catalog) -> Result<Self, Failure> {
        let (mut summary, phase) = Self::unfolded(row);
        let status = match phase {
            Phase::Finished(outcome) => outcome.into(),
            Phase::Held(_) => RunStatus::Failed,
            _ => match fold(store, &summary.run, catalog).await {
                Ok(state) => state.status(),
                // A list shows what it can; `show` says why one run cannot be read.
                Err(_) if phase == Phase::RollingBack => RunStatus::RollingBack,
                Err(_) => RunStatus::Running,
            },
        };
        let waits = summary.lives && waits_for_locks(store, &summary.run).await?;
        summary.status = status_word(status, summary.lives, waits);
        Ok(summary)
    }

    /// What the head events say. The status is right for runs that are over or held; for others it is of the kind.
    pub(crate) fn unfolded(row: RunRow) -> (Self, Phase) {
        let mut summary = Self {
            run: row.run,
            created: None,
            status: "running",
            created_at: row.last_at,
            last_at: row.last_at,
            lives: row.owner.is_some(),
            started_at: None,
            finished_at: None,
            outputs: Json::Null,
        };
        let mut phase = Phase::Created;
        for event in row.head_events {
            match event.body {
                EventBody::RunCreated(created) => {
                    summary.created = Some(*created);
                    summary.created_at = event.at;
                }
                EventBody::RunStarted {} => {
                    summary.started_at = Some(event.at);
                    phase = Phase::Running;
                }
                EventBody::RollbackStarted { step: None, .. } => {
                    phase = Phase::RollingBack;
                    summary.finished_at = None;
                }
                EventBody::RunResumed { .. } => {
                    phase = Phase::Running;
                    summary.finished_at = None;
                }
                EventBody::RunHeld { reason } => {
                    phase = Phase::Held(reason);
                    summary.finished_at = Some(event.at);
                }
                EventBody::RunFinished { outcome, outputs, .. } => {
                    phase = Phase::Finished(outcome);
                    summary.finished_at = Some(event.at);
                    summary.outputs = outputs;
                }
                _ => {}
            }
        }
        let status = match phase {
            Phase::Finished(outcome) => outcome.into(),
            Phase::Held(_) => RunStatus::Failed,
            Phase::RollingBack => RunStatus::RollingBack,
            _ => RunStatus::Running,
        };
        summary.status = status_word(status, summary.lives, false);
        (summary, phase)
    }

    pub(crate) fn to_json(&self) -> Json {
        let mut json = head_json(&self.run, self.created.as_ref(), self.status, self.started_at, self.finished_at);
        json["outputs"] = self.outputs.clone();
        json
    }
}

/// The plan of a run that is there already.
pub(crate) async fn plan_of(
    store: &dyn Store,
    run: &str,
    catalog: &Catalog,
) -> Result<(Created, Arc<runback_core::plan::Plan>), Failure> {
    let (created, _) = created(store, run).await?;
    let plan = load::recompile(&created, catalog).map_err(|why| other_version(run, &created, &why))?;
    Ok((created, plan))
}
