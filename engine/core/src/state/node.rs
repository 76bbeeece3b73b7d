//! One step of a run, with the bookkeeping that makes each transition cheap.

use std::ops::Range;
use std::sync::Arc;

use crate::Json;
use crate::decide::RUNBACK;
use crate::event::StepPath;
use crate::plan::StepIdx;
use crate::step::{Answer, Question, StepError};
use crate::target::Detached;

/// A step of a run; a `for_each` makes more of them while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

impl NodeId {
    pub fn at(self) -> usize {
        self.0 as usize
    }
}

/// The way forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Blocked,
    Ready,
    Running,
    Backoff,
    Succeeded,
    Failed,
    Skipped,
    Cancelled,
    Interrupted,
}

/// The way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UndoStatus {
    /// No rollback has touched it, or there is nothing to take back.
    None,
    /// Waits for the undo of what came after it.
    Pending,
    Ready,
    Undoing,
    Backoff,
    Undone,
    Failed,
    /// It did something that stays: behind a point of no return, or without an inverse.
    Kept,
}

/// What few nodes have.
#[derive(Debug, Clone, Default)]
pub struct Rare {
    pub error: Option<StepError>,
    pub undo_error: Option<StepError>,
    pub undo_note: Option<String>,
    /// Who said that it was taken back by hand, or is to stay, after its undo had failed.
    pub undo_settled_by: Option<String>,
    pub question: Option<Question>,
    /// Outputs of which only the mask of a secret is left.
    pub masked: Vec<String>,
    /// It has asked people: nobody but these can say that it is done.
    pub asked: bool,
    /// When its question was first asked: one that comes again after a restart is the same one.
    pub asked_at: Option<u64>,
    /// Answers so far; the last one decides.
    pub answers: Vec<Answer>,
    pub notes: Vec<Arc<Json>>,
    pub detached: Option<Detached>,
    /// Why only a person can say what an interrupted attempt did.
    pub doubt: Option<String>,
}

/// Of a `for_each`.
#[derive(Debug, Clone, Default)]
pub(super) struct Instances {
    pub(super) groups: Range<usize>,
    /// The next instance to open.
    pub(super) next: usize,
    pub(super) in_progress: u32,
}

#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own; a bit set would say less")]
#[derive(Debug, Clone)]
pub struct Node {
    pub step: StepIdx,
    pub group: u32,
    pub path: StepPath,
    pub status: Status,
    pub undo: UndoStatus,
    pub changed: bool,
    /// Undo information is durable.
    pub armed: bool,
    /// All attempts, from 1.
    pub attempts: u32,
    /// Attempts since it was last started anew; what retries count.
    pub tries: u32,
    pub undo_attempts: u32,
    /// When the first of `tries` began.
    pub tries_since: u64,
    pub started_at: Option<u64>,
    pub finished_at: Option<u64>,
    /// Ties of a rollback go by this, the latest first.
    pub start_seq: u64,
    pub outputs: Option<Arc<Json>>,
    pub capture: Option<Arc<Json>>,
    pub rare: Option<Box<Rare>>,

    /// Needs that are not satisfied.
    pub(super) waits: u32,
    /// Children that may still finish.
    pub(super) open: u32,
    /// Attempts that run anywhere inside.
    pub(super) inside: u32,
    /// Can never start, because something it needs failed.
    pub(super) dead: bool,
    /// Nothing inside may start.
    pub(super) halted: bool,
    /// A child failed and was not absorbed.
    pub(super) child_failed: bool,
    /// Of a `for_each`: an instance failed, and `fail_fast` ends the others.
    pub(super) failed_fast: bool,
    /// It was to be tried again, which was called off because all around it ends.
    pub(super) called_off: bool,
    /// Of a block: it was taken back as a whole.
    pub(super) taken_back: bool,
    pub(super) until: u64,
    pub(super) instances: Option<Box<Instances>>,

    pub(super) rollback: Option<u32>,
    /// Dependents whose undo is not settled.
    pub(super) undo_waits: u32,
    /// Children whose undo is not settled.
    pub(super) undo_open: u32,
    pub(super) undo_opened: bool,
    pub(super) undo_settled: bool,
    /// Of an instance with a failed undo inside: the one that waited for its place may go.
    pub(super) undo_gave_way: bool,
    pub(super) undo_until: u64,
    pub(super) undo_tries: u32,
}

impl Node {
    pub(super) fn new(step: StepIdx, group: u32, path: StepPath, waits: u32) -> Self {
        Self {
            step,
            group,
            path,
            status: Status::Blocked,
            undo: UndoStatus::None,
            changed: false,
            armed: false,
            attempts: 0,
            tries: 0,
            undo_attempts: 0,
            tries_since: 0,
            started_at: None,
            finished_at: None,
            start_seq: 0,
            outputs: None,
            capture: None,
            rare: None,
            waits,
            open: 0,
            inside: 0,
            dead: false,
            halted: false,
            child_failed: false,
            failed_fast: false,
            called_off: false,
            taken_back: false,
            until: 0,
            instances: None,
            rollback: None,
            undo_waits: 0,
            undo_open: 0,
            undo_opened: false,
            undo_settled: false,
            undo_gave_way: false,
            undo_until: 0,
            undo_tries: 0,
        }
    }

    pub(super) fn root(_: NodeId) -> Self {
        Self { status: Status::Running, ..Self::new(StepIdx(u32::MAX), u32::MAX, "".into(), 0) }
    }

    pub(super) fn rare_mut(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    pub fn error(&self) -> Option<&StepError> {
        self.rare.as_ref()?.error.as_ref()
    }

    pub fn undo_error(&self) -> Option<&StepError> {
        self.rare.as_ref()?.undo_error.as_ref()
    }

    pub fn detached(&self) -> Option<&Detached> {
        self.rare.as_ref()?.detached.as_ref()
    }

    pub fn notes(&self) -> &[Arc<Json>] {
        self.rare.as_ref().map_or(&[], |r| &r.notes)
    }

    pub(super) fn set_masked(&mut self, masked: &[String]) {
        if self.rare.is_some() || !masked.is_empty() {
            masked.clone_into(&mut self.rare_mut().masked);
        }
    }

    /// Outputs of an action of which there is only the mask of a secret.
    pub fn masked(&self) -> &[String] {
        self.rare.as_ref().map_or(&[], |rare| &rare.masked)
    }

    pub fn asked(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.asked)
    }

    /// The question that it waits on.
    pub fn question(&self) -> Option<&Question> {
        self.rare.as_ref()?.question.as_ref()
    }

    pub fn answers(&self) -> &[Answer] {
        self.rare.as_ref().map_or(&[], |r| &r.answers)
    }

    /// The answer that settles the question: a refusal, the last of as many approvals as it wants, or what nobody's
    /// answer counts as when its time is over.
    pub fn verdict(&self) -> Option<&Answer> {
        let (wanted, answers) = (self.question()?.min_approvals.max(1) as usize, self.answers());
        let refused = answers.iter().find(|a| !a.approved || a.by == RUNBACK);
        let enough = answers.iter().filter(|a| a.approved).count() >= wanted;
        refused.or_else(|| answers.last().filter(|_| enough))
    }

    /// When the time to answer its question is over, in milliseconds since the epoch.
    pub fn answer_by(&self) -> Option<u64> {
        Some(self.rare.as_ref()?.asked_at?.saturating_add(self.question()?.timeout_ms?))
    }

    /// What was said of an earlier undo is not about the next.
    pub(super) fn forget_undo(&mut self) {
        if let Some(rare) = &mut self.rare {
            (rare.undo_note, rare.undo_error, rare.undo_settled_by) = (None, None, None);
        }
    }

    /// Whoever is asked next is asked anew.
    pub(super) fn forget_answers(&mut self) {
        if let Some(rare) = &mut self.rare {
            rare.answers.clear();
            rare.asked_at = None;
        }
    }

    pub fn doubt(&self) -> Option<&str> {
        self.rare.as_ref()?.doubt.as_deref()
    }

    /// When a backoff ends, by the run's clock.
    pub fn until(&self) -> u64 {
        if self.undo == UndoStatus::Backoff { self.undo_until } else { self.until }
    }

    /// Nothing more happens to it on the way forward.
    pub fn is_terminal(&self) -> bool {
        matches!(self.status, Status::Succeeded | Status::Failed | Status::Skipped | Status::Cancelled)
    }

    /// The word for it, as far as it can tell by itself: see `RunState::status_name`.
    pub(super) fn status_name(&self) -> &'static str {
        match self.undo {
            UndoStatus::None => self.status.name(),
            UndoStatus::Pending | UndoStatus::Ready | UndoStatus::Undoing | UndoStatus::Backoff => "undoing",
            UndoStatus::Undone => "undone",
            UndoStatus::Failed => "undo-failed",
            UndoStatus::Kept => "kept",
        }
    }

    /// The word for the way forward alone: what `steps.<id>.status` is in templates.
    pub fn forward_name(&self) -> &'static str {
        self.status.name()
    }

    /// Undo attempts since its rollback began.
    pub fn undo_tries(&self) -> u32 {
        self.undo_tries
    }

    /// Nothing inside may start.
    pub fn is_halted(&self) -> bool {
        self.halted
    }
}

impl Status {
    pub fn name(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Backoff => "backoff",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Cancelled => "cancelled",
            Self::Interrupted => "interrupted",
        }
    }
}
