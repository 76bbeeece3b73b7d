//! THE durable events of a run: what the journal holds, what reports show, what `--output json` prints.
//! Past tense, owned, versioned. What is not here did not happen.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Json;
use crate::step::{Answer, Class, Question, StepError};
use crate::target::Detached;

/// The version of the stored form. Older ones stay as fixtures in `tests/journals/` and must still replay.
pub const FORMAT: u32 = 1;

/// The path of a step: `convert`, `deploy/convert[web1]`.
pub type StepPath = Arc<str>;

/// One line of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// From 1, without gaps.
    pub seq: u64,
    /// Milliseconds since the epoch by the run's clock. For people and for delays; order is `seq`.
    pub at: u64,
    #[serde(flatten)]
    pub body: EventBody,
}

/// One text that the plan was compiled from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlaybookText {
    /// As the author wrote it in `uses: playbook`; the path given on the command line for the first.
    pub name: String,
    pub text: String,
}

/// Everything that a resume, a rollback next week or an audit needs to know of the start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Created {
    pub format: u32,
    /// runback's own version.
    pub version: String,
    pub run: String,
    pub playbook: String,
    /// The first is the playbook itself, then the playbooks that it uses, in order of first use.
    pub texts: Vec<PlaybookText>,
    /// The folder of the playbook, absolute.
    pub base: String,
    /// The digest of the plan.
    pub digest: String,
    /// Validated, with defaults filled in; inputs marked secret are not here.
    pub inputs: Json,
    /// user@host
    pub by: String,
    /// How it was started: `terminal`, `cron`, `api` …
    pub from: String,
    /// Options of the command line that change how it runs.
    pub options: RunOptions,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RunOptions {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_parallel: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,
    /// Unix milliseconds of the schedule's instant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_at: Option<u64>,
    /// The schedule that fired; with `scheduled_at` it is the run's key: there is no second run of it, ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    #[default]
    Rollback,
    Hold,
    Continue,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Succeeded,
    /// Failed; what it did stays, and it can be resumed.
    Failed,
    RolledBack,
    /// An undo failed: a person is needed.
    Stuck,
    Cancelled,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Item {
    pub key: String,
    pub value: Json,
    /// It held the text of a secret, of which only the mask is here: nothing can be done with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub masked: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// It is done; its outputs are what the operator gave.
    Done,
    /// Do it (again).
    Redo,
    /// It failed.
    Fail,
    Skip,
    /// Its undo failed, and somebody has taken it back by hand.
    Undone,
    /// Its undo failed, and what it did is to stay.
    Kept,
}

impl Resolution {
    /// It is about a step's undo, not about its action.
    pub fn is_of_undo(self) -> bool {
        matches!(self, Self::Undone | Self::Kept)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    /// `when` was false.
    Condition,
    /// The operator said so.
    Operator,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CancelReason {
    /// Ctrl-C, or `runback cancel`.
    Operator,
    /// The playbook's `timeout`.
    Timeout,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RollbackReason {
    Failure,
    Cancelled,
    /// `runback rollback RUN`.
    Operator,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HoldReason {
    /// A step failed and `on_failure` is `hold`.
    Failure,
    /// `runback cancel --hold`, or the operator chose to hold.
    Operator,
    Cancelled,
}

/// What happened. The names are the contract of `--output json` (`type`, snake case).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum EventBody {
    RunCreated(Box<Created>),
    RunStarted {},

    /// A block's or a sub-playbook's steps may start.
    BlockStarted {
        step: StepPath,
    },
    /// A `for_each` got its instances.
    StepExpanded {
        step: StepPath,
        items: Vec<Item>,
    },
    StepSkipped {
        step: StepPath,
        reason: SkipReason,
    },
    /// It failed outside an attempt: its condition, items, locks or inputs could not be worked out.
    StepFailed {
        step: StepPath,
        error: StepError,
    },

    /// Its undo information is durable. At most one per step.
    UndoArmed {
        step: StepPath,
        attempt: u32,
        capture: Json,
    },
    AttemptStarted {
        step: StepPath,
        attempt: u32,
    },
    /// A detached command is there, and can be found again.
    ProcessStarted {
        step: StepPath,
        attempt: u32,
        detached: Detached,
    },
    /// A fact from the middle of an action.
    StepNoted {
        step: StepPath,
        attempt: u32,
        note: Json,
    },
    AttemptSucceeded {
        step: StepPath,
        attempt: u32,
        changed: bool,
        #[serde(default, skip_serializing_if = "is_empty")]
        outputs: Json,
        /// Outputs that held the text of a secret, of which only the mask is here: nothing can be done with them.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        masked: Vec<String>,
    },
    AttemptFailed {
        step: StepPath,
        attempt: u32,
        error: StepError,
        /// Milliseconds until the next attempt; None = there is none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_in: Option<u64>,
    },
    /// The attempt was running when runback died or was told to stop at once: its effect is unknown.
    AttemptInterrupted {
        step: StepPath,
        attempt: u32,
    },
    /// A probe could not tell what an interrupted attempt did; only a person can.
    DoubtRaised {
        step: StepPath,
        attempt: u32,
        why: String,
    },
    /// Probe or operator settled what an interrupted or failed attempt, or a failed undo, is to count as.
    StepResolved {
        step: StepPath,
        resolution: Resolution,
        /// Who; None = the probe.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
        #[serde(default, skip_serializing_if = "is_empty")]
        outputs: Json,
        #[serde(default)]
        changed: bool,
        /// As for `AttemptSucceeded`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        masked: Vec<String>,
    },

    ApprovalRequested {
        step: StepPath,
        attempt: u32,
        question: Question,
    },
    ApprovalGiven {
        step: StepPath,
        answer: Answer,
    },
    ApprovalRefused {
        step: StepPath,
        answer: Answer,
    },

    /// `step` None = the run's own locks.
    LockTaken {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<StepPath>,
        names: Vec<String>,
    },

    CancelRequested {
        by: String,
        reason: CancelReason,
    },
    /// Somebody wants the run taken back: what runs is stopped, then `RollbackStarted` comes.
    RollbackRequested {
        by: String,
        #[serde(default)]
        force: bool,
    },
    /// Somebody wants the run held: nothing new starts, what runs may finish, then `RunHeld` comes.
    HoldRequested {
        by: String,
    },

    /// `step` None = the whole run; else only what is in that block.
    RollbackStarted {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<StepPath>,
        reason: RollbackReason,
        by: String,
        #[serde(default)]
        force: bool,
    },
    UndoStarted {
        step: StepPath,
        attempt: u32,
    },
    UndoSucceeded {
        step: StepPath,
        attempt: u32,
        changed: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
    UndoFailed {
        step: StepPath,
        attempt: u32,
        error: StepError,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_in: Option<u64>,
    },

    RunHeld {
        reason: HoldReason,
    },
    /// A process took the run up again. Failed steps start anew.
    RunResumed {
        by: String,
    },
    RunFinished {
        outcome: Outcome,
        #[serde(default, skip_serializing_if = "is_empty")]
        outputs: Json,
        /// The outputs that could not be worked out and are null, and why.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        output_errors: BTreeMap<String, String>,
    },
}

fn is_empty(json: &Json) -> bool {
    match json {
        Json::Null => true,
        Json::Object(map) => map.is_empty(),
        _ => false,
    }
}

impl EventBody {
    /// The value of `type` in the stored form.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::RunCreated(_) => "run_created",
            Self::RunStarted {} => "run_started",
            Self::BlockStarted { .. } => "block_started",
            Self::StepExpanded { .. } => "step_expanded",
            Self::StepSkipped { .. } => "step_skipped",
            Self::StepFailed { .. } => "step_failed",
            Self::UndoArmed { .. } => "undo_armed",
            Self::AttemptStarted { .. } => "attempt_started",
            Self::ProcessStarted { .. } => "process_started",
            Self::StepNoted { .. } => "step_noted",
            Self::AttemptSucceeded { .. } => "attempt_succeeded",
            Self::AttemptFailed { .. } => "attempt_failed",
            Self::AttemptInterrupted { .. } => "attempt_interrupted",
            Self::DoubtRaised { .. } => "doubt_raised",
            Self::StepResolved { .. } => "step_resolved",
            Self::ApprovalRequested { .. } => "approval_requested",
            Self::ApprovalGiven { .. } => "approval_given",
            Self::ApprovalRefused { .. } => "approval_refused",
            Self::LockTaken { .. } => "lock_taken",
            Self::CancelRequested { .. } => "cancel_requested",
            Self::RollbackRequested { .. } => "rollback_requested",
            Self::HoldRequested { .. } => "hold_requested",
            Self::RollbackStarted { .. } => "rollback_started",
            Self::UndoStarted { .. } => "undo_started",
            Self::UndoSucceeded { .. } => "undo_succeeded",
            Self::UndoFailed { .. } => "undo_failed",
            Self::RunHeld { .. } => "run_held",
            Self::RunResumed { .. } => "run_resumed",
            Self::RunFinished { .. } => "run_finished",
        }
    }

    /// The step that it is about.
    pub fn step(&self) -> Option<&StepPath> {
        match self {
            Self::BlockStarted { step }
            | Self::StepExpanded { step, .. }
            | Self::StepSkipped { step, .. }
            | Self::StepFailed { step, .. }
            | Self::UndoArmed { step, .. }
            | Self::AttemptStarted { step, .. }
            | Self::ProcessStarted { step, .. }
            | Self::StepNoted { step, .. }
            | Self::AttemptSucceeded { step, .. }
            | Self::AttemptFailed { step, .. }
            | Self::AttemptInterrupted { step, .. }
            | Self::DoubtRaised { step, .. }
            | Self::StepResolved { step, .. }
            | Self::ApprovalRequested { step, .. }
            | Self::ApprovalGiven { step, .. }
            | Self::ApprovalRefused { step, .. }
            | Self::UndoStarted { step, .. }
            | Self::UndoSucceeded { step, .. }
            | Self::UndoFailed { step, .. } => Some(step),
            Self::LockTaken { step, .. } | Self::RollbackStarted { step, .. } => step.as_ref(),
            Self::RunCreated(_)
            | Self::RunStarted {}
            | Self::CancelRequested { .. }
            | Self::RollbackRequested { .. }
            | Self::HoldRequested { .. }
            | Self::RunHeld { .. }
            | Self::RunResumed { .. }
            | Self::RunFinished { .. } => None,
        }
    }

    /// Events that change what the whole run is doing, as a list of runs must know it.
    pub fn is_about_the_run(&self) -> bool {
        matches!(
            self,
            Self::RunCreated(_)
                | Self::RunStarted {}
                | Self::CancelRequested { .. }
                | Self::RollbackStarted { step: None, .. }
                | Self::RunHeld { .. }
                | Self::RunResumed { .. }
                | Self::RunFinished { .. }
                | Self::ApprovalRequested { .. }
                | Self::ApprovalGiven { .. }
                | Self::ApprovalRefused { .. }
                | Self::DoubtRaised { .. }
                | Self::StepResolved { .. }
        )
    }

    /// An error class, where the event carries an error.
    pub fn error(&self) -> Option<&StepError> {
        match self {
            Self::StepFailed { error, .. } | Self::AttemptFailed { error, .. } | Self::UndoFailed { error, .. } => {
                Some(error)
            }
            _ => None,
        }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::RolledBack => "rolled-back",
            Self::Stuck => "stuck",
            Self::Cancelled => "cancelled",
        })
    }
}

impl Class {
    pub fn name(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Permanent => "permanent",
            Self::Timeout => "timeout",
            Self::Conflict => "conflict",
            Self::Cancelled => "cancelled",
        }
    }
}
