//! The state as reports, `show` and the API see it.

use schemars::JsonSchema;
use serde::Serialize;

use super::{NodeId, Phase, Rollback, RunState, Status, UndoStatus};
use crate::Json;
use crate::event::Outcome;
use crate::step::StepError;

/// The word for a whole run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunStatus {
    Running,
    /// For a person or a lock.
    Waiting,
    RollingBack,
    Succeeded,
    Failed,
    RolledBack,
    Stuck,
    Cancelled,
}

impl RunStatus {
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::RollingBack => "rolling-back",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::RolledBack => "rolled-back",
            Self::Stuck => "stuck",
            Self::Cancelled => "cancelled",
        }
    }
}

impl From<Outcome> for RunStatus {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Succeeded => Self::Succeeded,
            Outcome::Failed => Self::Failed,
            Outcome::RolledBack => Self::RolledBack,
            Outcome::Stuck => Self::Stuck,
            Outcome::Cancelled => Self::Cancelled,
        }
    }
}

/// One step of `runback show --output json`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct StepView {
    pub id: String,
    #[serde(rename = "type")]
    pub step_type: &'static str,
    pub status: &'static str,
    pub attempts: u32,
    pub changed: bool,
    pub outputs: Json,
    pub error: Option<StepError>,
    pub undo_error: Option<StepError>,
    /// Who said, after its undo had failed, that it was taken back by hand or is to stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undo_settled_by: Option<String>,
    /// Milliseconds since the epoch.
    pub started_at: Option<u64>,
    pub finished_at: Option<u64>,
}

impl RunState {
    pub fn status(&self) -> RunStatus {
        match self.phase {
            Phase::Created | Phase::Running | Phase::Finally | Phase::Ending => {
                if self.waits_only() {
                    RunStatus::Waiting
                } else {
                    RunStatus::Running
                }
            }
            Phase::RollingBack if self.waits_only() => RunStatus::Waiting,
            Phase::RollingBack => RunStatus::RollingBack,
            Phase::Held(_) => RunStatus::Failed,
            Phase::Finished(outcome) => outcome.into(),
        }
    }

    /// Nothing goes on without a person: questions or doubts are all that is left, and what waits for their locks.
    fn waits_only(&self) -> bool {
        self.busy() == 0
            && self.ready.is_empty()
            && self.backoff.is_empty()
            && self.undo_backoff.is_empty()
            && (self.asking > 0 || self.doubts().next().is_some())
            && self.ready_undos_wait()
    }

    /// Nothing runs or comes again by itself, apart from undos that have not begun. While the run is taken back, what is
    /// ready in `finally` does not start. `may`: which steps go on.
    pub(crate) fn only_undos_are_left(&self, may: &dyn Fn(NodeId) -> bool) -> bool {
        let mut coming = self.ready().chain(self.backoffs().map(|(_, n)| n));
        let forward = self.phase != Phase::RollingBack && coming.any(may);
        self.is_quiet() && !forward && self.undo_backoff.is_empty()
    }

    /// Steps that only a person can settle.
    pub fn doubts(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.interrupted().filter(|n| self.node(*n).doubt().is_some() && self.can_be_resolved(*n))
    }

    fn asking(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.active().chain(self.active_undos()).filter(|n| self.node(*n).question().is_some())
    }

    /// Steps that wait for an answer.
    pub fn questions(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.asking().filter(|n| self.node(*n).verdict().is_none())
    }

    /// Steps whose question is answered, and that have not heard it: nobody drives the run, or not yet.
    pub fn answered(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.asking().filter(|n| self.node(*n).verdict().is_some())
    }

    /// Its undo waited for another one, which failed: it stays as it is until the run is taken up again.
    pub fn is_left(&self, node: NodeId) -> bool {
        self.node(node).undo == UndoStatus::Pending && self.rollback_of(node).is_some_and(Rollback::is_over)
    }

    /// The word for a step in reports and in `show`.
    pub fn status_name(&self, node: NodeId) -> &'static str {
        if self.is_left(node) { "kept" } else { self.node(node).status_name() }
    }

    /// What `run.status` is in `finally`.
    pub fn status_for_finally(&self) -> &'static str {
        self.ending.map_or(self.status(), RunStatus::from).name()
    }

    pub fn step_view(&self, node: NodeId) -> StepView {
        let n = self.node(node);
        StepView {
            id: n.path.to_string(),
            step_type: self.step(node).type_name(),
            status: self.status_name(node),
            attempts: n.attempts,
            changed: n.changed,
            outputs: n.outputs.as_deref().cloned().unwrap_or(Json::Null),
            error: if n.status == Status::Succeeded { None } else { n.error().cloned() },
            undo_error: n.undo_error().cloned(),
            undo_settled_by: n.rare.as_ref().and_then(|rare| rare.undo_settled_by.clone()),
            started_at: n.started_at,
            finished_at: n.finished_at,
        }
    }
}
