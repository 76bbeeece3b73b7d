//! The only loop of a run: append, apply, decide, perform. It owns the run's state; nothing else changes it,
//! and nothing happens in the world before the journal has it.

mod answer;
mod attempt;
mod holding;
mod locking;
mod masking;
mod perform;
mod request;
mod turn;

pub use masking::answer as mask_answer;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use runback_core::Json;
use runback_core::event::{CancelReason, Created, Event, EventBody, StepPath};
use runback_core::plan::Plan;
use runback_core::state::{IllegalTransition, NodeId, Phase, RunState, RunStatus, UndoStatus, Wish};
use runback_core::step::{Answer, Held, Question, StepError};
use runback_core::target::Detached;
use serde_json::Map;
use tokio::sync::{mpsc, oneshot};

use crate::clock::Clock;
use crate::mask::Masker;
use crate::output::AttemptLog;
use crate::store::{Lease, LockWait, LockWaiting, Store, StoreError};
use crate::target::Targets;
use attempt::{Message, Stop};

/// What an attempt of this process is kept by.
struct Running {
    stop: Arc<Stop>,
    log: Option<Arc<AttemptLog>>,
    last_line: Option<String>,
    task: tokio::task::AbortHandle,
    /// It is a detached command: leaving the run must not end it.
    detached: bool,
}

/// An attempt that waits for a person.
struct Asking {
    question: Question,
    answer: oneshot::Sender<Answer>,
    /// The operator at the terminal has been asked and did not answer.
    declined: bool,
}

/// Why a run could not be driven.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal says what cannot be.
    #[error(transparent)]
    Illegal(#[from] IllegalTransition),
    #[error("run {run} was made from a plan that this runback ({}) compiles differently (made by {made_by})", env!("CARGO_PKG_VERSION"))]
    OtherPlan { run: String, made_by: String },
    #[error("run {run} has no beginning in the store")]
    Empty { run: String },
    #[error("{message}")]
    Refused { message: String, help: String },
    #[error("the lock `{name}` is held by run {holder}")]
    Locked { name: String, holder: String, step: Option<String> },
    #[error("the locks of this run can never be had: {}", cycle.iter().map(|w| format!("{} waits for {} of {}", w.run, w.name, w.holder)).collect::<Vec<_>>().join(", "))]
    Deadlock { cycle: Vec<LockWait> },
}

impl DriverError {
    /// What to do.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Store(e) => Some(e.help()),
            Self::Illegal(_) => Some("the journal of this run was written by something else, or is damaged".to_owned()),
            Self::OtherPlan { made_by, .. } => Some(format!("take it up again with runback {made_by}")),
            Self::Empty { .. } => None,
            Self::Refused { help, .. } => Some(help.clone()),
            Self::Locked { holder, .. } => Some(format!("see `runback why {holder}`; or wait for it with `--wait`")),
            Self::Deadlock { .. } => Some("cancel one of these runs".to_owned()),
        }
    }
}

/// What all runs of a process share.
pub struct Engine {
    pub store: Arc<dyn Store>,
    /// Bytes of output that are kept of one attempt.
    pub log_limit: u64,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("log_limit", &self.log_limit).finish_non_exhaustive()
    }
}

/// What a run needs besides its plan and its journal: things that are never stored.
pub struct Surroundings {
    pub targets: Arc<dyn Targets>,
    /// By playbook scope of the plan, name → value.
    pub secrets: Vec<Map<String, Json>>,
    /// Inputs marked secret.
    pub secret_inputs: Map<String, Json>,
    /// Knows all of the values above.
    pub masker: Masker,
    /// The folder of the playbook.
    pub base: PathBuf,
    /// user@host, for what this process does.
    pub by: String,
    /// The clock of simulations begins here; None = real time.
    pub clock_at: Option<u64>,
}

impl std::fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Surroundings").field("base", &self.base).field("by", &self.by).finish_non_exhaustive()
    }
}

/// How a run is driven.
#[derive(Debug, Clone, Copy)]
pub struct DriveOptions {
    /// Wait for an approval that nobody here can give; else return with [`Ended::waiting`].
    pub wait: bool,
    /// Wait for the run's own locks; else refuse.
    pub wait_for_locks: bool,
}

impl Default for DriveOptions {
    fn default() -> Self {
        Self { wait: true, wait_for_locks: false }
    }
}

/// What the terminal or the server wants of a run that is being driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Start nothing new, stop what runs, then do as `on_failure` says.
    Cancel,
    /// Stop at once; the run stays resumable.
    Leave,
}

/// How driving ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    pub status: RunStatus,
    /// The run is not over: it was left, or waits for a person.
    pub left: bool,
    pub waiting: bool,
    pub cancelled: bool,
}

/// A run with its lease, ready to be driven.
pub struct Driver {
    engine: Arc<Engine>,
    around: Surroundings,
    base: Arc<PathBuf>,
    run: Arc<str>,
    lease: Lease,
    state: RunState,
    clock: Clock,
    /// Applied, not yet durable.
    batch: Vec<Event>,
    /// Told as soon as the batch is durable.
    acks: Vec<oneshot::Sender<()>>,
    starts: Vec<Start>,
    running: HashMap<NodeId, Running>,
    /// What succeeded steps hold while the block around them goes on.
    held: HashMap<NodeId, Held>,
    /// What an earlier process held, and this one has not taken up yet.
    holding: HashSet<NodeId>,
    asking: BTreeMap<NodeId, Asking>,
    probing: HashSet<NodeId>,
    tell: mpsc::UnboundedSender<Message>,
    told: mpsc::UnboundedReceiver<Message>,
    locks: locking::Waiting,
    gate: Gate,
    leaving: bool,
    cancelled: bool,
    asked_after: Option<NodeId>,
    warnings: Vec<String>,
    store_seen: Option<u64>,
    /// Of which the store does not know yet that they need not come again.
    requests_taken: bool,
    /// Detached commands whose end is recorded: their records go once that is durable.
    to_forget: Vec<(NodeId, Detached)>,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").field("run", &self.run).field("phase", &self.state.phase).finish_non_exhaustive()
    }
}

/// What must be had before anything is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    /// The locks that an earlier process of this run had.
    Retake,
    /// The run's own locks, if it has not started.
    Start,
    Open,
}

/// Whoever drops a run in the middle ends its attempts: nobody could record what they do.
impl Drop for Driver {
    fn drop(&mut self) {
        for running in self.running.values() {
            running.task.abort();
        }
    }
}

/// Something to begin in the world once the batch is durable.
enum Start {
    Act(NodeId, Result<perform::Rendered, StepError>),
    Reattach(NodeId),
    Undo(NodeId),
    Probe(NodeId),
}

/// What a later process wants with a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Intent {
    Resume,
    Rollback { force: bool },
}

impl Driver {
    /// Records a new run. Its id must not exist, and the names of its locks must be known.
    pub async fn create(
        engine: Arc<Engine>,
        plan: Arc<Plan>,
        mut created: Created,
        around: Surroundings,
    ) -> Result<Self, DriverError> {
        around.masker.mask_json(&mut created.inputs);
        let clock = around.clock_at.map_or_else(|| Clock::start(0), Clock::at);
        let run: Arc<str> = created.run.as_str().into();
        let mut state = RunState::new(plan);
        let event = Event { seq: 1, at: clock.now_ms(), body: EventBody::RunCreated(Box::new(created)) };
        state.apply(&event)?;
        locking::run_locks(&state)?;
        let lease = engine.store.create(&run, vec![event]).await?;
        Ok(Self::new(engine, around, run, lease, state, clock))
    }

    /// That it was created, while nothing else is recorded.
    pub fn first_event(&self) -> Option<Event> {
        let created = self.state.created.clone().filter(|_| self.state.last_seq == 1)?;
        Some(Event { seq: 1, at: self.state.last_at, body: EventBody::RunCreated(Box::new(created.as_ref().clone())) })
    }

    /// The journal of a run, folded. For looking at it without owning it.
    pub async fn fold(store: &dyn Store, run: &str, plan: Arc<Plan>) -> Result<RunState, DriverError> {
        let mut state = RunState::new(plan);
        loop {
            let events = store.events(run, state.last_seq, FOLD_CHUNK).await?;
            let more = events.len() == FOLD_CHUNK;
            for event in &events {
                state.apply(event)?;
            }
            if !more {
                return Ok(state);
            }
        }
    }

    /// What a run was made from.
    pub async fn created(store: &dyn Store, run: &str) -> Result<Created, DriverError> {
        let first = store.events(run, 0, 1).await?;
        match first.into_iter().next().map(|e| e.body) {
            Some(EventBody::RunCreated(created)) => Ok(*created),
            _ => Err(DriverError::Empty { run: run.to_owned() }),
        }
    }

    /// Takes an existing run up: its lease, its journal, and what became of the attempts that were running.
    pub async fn open(
        engine: Arc<Engine>,
        run: &str,
        plan: Arc<Plan>,
        around: Surroundings,
        intent: Intent,
    ) -> Result<Self, DriverError> {
        let lease = engine.store.acquire(run).await?;
        let state = Self::fold(engine.store.as_ref(), run, Arc::clone(&plan)).await?;
        let Some(created) = state.created.clone() else { return Err(DriverError::Empty { run: run.to_owned() }) };
        if created.digest != plan.digest() {
            let made_by = created.version.clone();
            return Err(DriverError::OtherPlan { run: run.to_owned(), made_by });
        }
        let clock = around.clock_at.map_or_else(|| Clock::start(state.last_at), |at| Clock::at(at.max(state.last_at)));
        let mut driver = Self::new(engine, around, run.into(), lease, state, clock);
        driver.take_up(intent).await?;
        Ok(driver)
    }

    fn new(
        engine: Arc<Engine>,
        around: Surroundings,
        run: Arc<str>,
        lease: Lease,
        state: RunState,
        clock: Clock,
    ) -> Self {
        let (tell, told) = mpsc::unbounded_channel();
        let base = Arc::new(around.base.clone());
        Self {
            engine,
            around,
            base,
            run,
            lease,
            state,
            clock,
            batch: Vec::new(),
            acks: Vec::new(),
            starts: Vec::new(),
            running: HashMap::new(),
            held: HashMap::new(),
            holding: HashSet::new(),
            asking: BTreeMap::new(),
            probing: HashSet::new(),
            tell,
            told,
            locks: locking::Waiting::default(),
            gate: Gate::Start,
            leaving: false,
            cancelled: false,
            asked_after: None,
            warnings: Vec::new(),
            store_seen: None,
            requests_taken: false,
            to_forget: Vec::new(),
        }
    }

    async fn take_up(&mut self, intent: Intent) -> Result<(), DriverError> {
        if let Intent::Rollback { .. } = intent
            && let Phase::Finished(runback_core::event::Outcome::RolledBack) = self.state.phase
        {
            let message = format!("run {} is rolled back already", self.run);
            return Err(DriverError::Refused { message, help: format!("see `runback show {}`", self.run) });
        }
        if intent == Intent::Resume
            && let Phase::Finished(outcome) = self.state.phase
            && !matches!(outcome, runback_core::event::Outcome::Failed | runback_core::event::Outcome::Stuck)
        {
            let message = format!("run {} is over: {outcome}", self.run);
            let anew = "start it anew with `runback run`";
            let help = match outcome {
                runback_core::event::Outcome::Succeeded => {
                    format!("{anew}, or take it back with `runback rollback {}`", self.run)
                }
                _ => anew.to_owned(),
            };
            return Err(DriverError::Refused { message, help });
        }
        let requests = self.take_answers().await?;
        let active: Vec<_> = self.state.active().collect();
        for node in active {
            if self.find_detached(node).await {
                self.starts.push(Start::Reattach(node));
            } else {
                let (step, attempt) = self.attempt(node);
                self.record(EventBody::AttemptInterrupted { step, attempt })?;
                self.forget_output_of(node);
            }
        }
        for node in self.state.active_undos().collect::<Vec<_>>() {
            let (step, attempt) = self.attempt(node);
            self.record(EventBody::AttemptInterrupted { step, attempt })?;
        }
        self.forget_ended_commands();
        let by = self.around.by.clone();
        let held_before_it_began = matches!(self.state.phase, Phase::Held(_)) && self.state.started_at.is_none();
        if held_before_it_began && intent != Intent::Resume {
            self.record(EventBody::RunResumed { by: by.clone() })?;
        }
        self.record(match intent {
            Intent::Resume => EventBody::RunResumed { by },
            Intent::Rollback { .. } if self.state.phase == Phase::Created => nothing_to_take_back(by),
            Intent::Rollback { force } => EventBody::RollbackRequested { by, force },
        })?;
        for request in requests {
            self.request(request)?;
        }
        if !self.state.locks.is_empty() {
            self.gate = Gate::Retake;
        }
        Ok(())
    }

    /// Records that an earlier process did not come to remove between its last commit and its death.
    fn forget_ended_commands(&mut self) {
        let ended: Vec<_> = self
            .state
            .ids()
            .filter(|n| self.state.node(*n).is_terminal() && self.state.node(*n).attempts > 0)
            .filter(|n| self.state.step(*n).action().is_some() && self.state.step(*n).policy.detach)
            .collect();
        for node in ended {
            self.forget_commands_of(node, self.state.node(node).attempts);
        }
    }

    /// Whether the detached command of an attempt runs, or has left its exit record.
    async fn find_detached(&self, node: NodeId) -> bool {
        let Some(detached) = self.state.node(node).detached() else { return false };
        let Ok(target) = self.target_of(node) else { return false };
        matches!(
            target.detached_state(detached).await,
            Ok(runback_core::target::DetachedState::Running | runback_core::target::DetachedState::Ended)
        )
    }

    pub fn state(&self) -> &RunState {
        &self.state
    }

    pub fn run(&self) -> &str {
        &self.run
    }

    /// What an operator says of an interrupted or failed step, before the run is driven on.
    pub fn resolve(
        &mut self,
        step: &str,
        resolution: runback_core::event::Resolution,
        outputs: Json,
    ) -> Result<(), DriverError> {
        let body = self.settled_by(self.around.by.clone(), step, resolution, outputs).map_err(|why| {
            let message = format!("step {step} cannot be settled like that: {why}");
            DriverError::Refused { message, help: format!("say `runback approve {} {step}`", self.run) }
        })?;
        self.record(body).map_err(|e| match e {
            DriverError::Illegal(illegal) => DriverError::Refused {
                message: format!("step {step} cannot be settled like that: {}", illegal.why),
                help: format!("see `runback show {}` for the steps that wait for a decision", self.run),
            },
            other => other,
        })
    }

    /// The next event: applied now, durable with the batch.
    fn record(&mut self, mut body: EventBody) -> Result<(), DriverError> {
        masking::mask(&self.around.masker, &mut body);
        let event = Event { seq: self.state.last_seq + 1, at: self.clock.now_ms(), body };
        let to_be_held = self.state.wish == Some(Wish::Hold);
        self.state.apply(&event)?;
        if to_be_held && self.state.wish.is_none() && !matches!(event.body, EventBody::RunHeld { .. }) {
            let why = "the run is not held: the way forward is over, and what is left of it is soon done";
            self.warnings.push(why.to_owned());
        }
        if let EventBody::StepResolved { step, .. } = &event.body
            && let Some(node) = self.state.find(step)
        {
            self.forget_commands_of(node, 1);
        }
        if let EventBody::RunFinished { .. } = &event.body {
            // Nobody has said what became of these, and nobody will need their records.
            let doubted = |n: &NodeId| self.state.node(*n).status == runback_core::state::Status::Interrupted;
            for node in self.state.ids().filter(doubted).collect::<Vec<_>>() {
                self.forget_commands_of(node, 1);
            }
        }
        self.batch.push(event);
        Ok(())
    }

    /// It is settled what its attempts did, counted from one, those included whose command was never recorded.
    fn forget_commands_of(&mut self, node: NodeId, from: u32) {
        if !self.state.step(node).policy.detach {
            return;
        }
        let Ok(target) = self.target_of(node) else { return };
        let n = self.state.node(node);
        for attempt in from..=n.attempts {
            let dir = target.detached_dir(&self.run, &n.path, attempt);
            self.to_forget.push((node, Detached { dir, pid: 0, identity: String::new() }));
        }
    }

    /// What an attempt wrote that was killed with its process is of no use, and may hold secrets.
    fn forget_output_of(&mut self, node: NodeId) {
        let Ok(target) = self.target_of(node) else { return };
        let n = self.state.node(node);
        if target.is_local() && !self.state.step(node).policy.detach {
            let dir = target.detached_dir(&self.run, &n.path, n.attempts);
            self.to_forget.push((node, Detached { dir, pid: 0, identity: String::new() }));
        }
    }

    /// The step and the number of its attempt that runs: of its undo, if that is what runs.
    fn attempt(&self, node: NodeId) -> (StepPath, u32) {
        let n = self.state.node(node);
        let number = if n.undo == UndoStatus::Undoing { n.undo_attempts } else { n.attempts };
        (Arc::clone(&n.path), number)
    }
}

/// Whoever wants a run taken back that never started wants it over.
fn nothing_to_take_back(by: String) -> EventBody {
    EventBody::CancelRequested { by, reason: CancelReason::Operator }
}

/// Events read from the store at once.
const FOLD_CHUNK: usize = 4096;

/// Who holds a lock, in words.
fn holder(waiting: &LockWaiting) -> String {
    let step = waiting.step.as_ref().map(|s| format!(", step {s}")).unwrap_or_default();
    let what = if waiting.queued { "is wanted first by" } else { "is held by" };
    format!("lock `{}` {what} run {}{step}", waiting.name, waiting.run)
}
