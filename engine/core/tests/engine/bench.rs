//! A driver without a world: it turns effects into events as the real one does, and the test says what becomes of
//! each attempt.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use runback_core::Json;
use runback_core::check::{NoLoad, check};
use runback_core::decide::{Effect, decide};
use runback_core::event::{Created, Event, EventBody, FORMAT, Resolution, RollbackReason, RunOptions, StepPath};
use runback_core::plan::Plan;
use runback_core::retry::{self, History};
use runback_core::state::{IllegalTransition, NodeId, RunState};
use runback_core::step::{Access, Class, StepError, UndoKind};

use super::catalog::catalog;

pub(crate) struct Bench {
    pub(crate) state: RunState,
    pub(crate) trace: Vec<Event>,
    pub(crate) now: u64,
    /// Attempts of actions and of undos that run.
    pub(crate) acting: BTreeSet<NodeId>,
    pub(crate) undoing: BTreeSet<NodeId>,
    pub(crate) probing: BTreeSet<NodeId>,
    pub(crate) stopping: BTreeSet<NodeId>,
    pub(crate) wake: Option<u64>,
    /// Arm as soon as an attempt begins.
    pub(crate) auto_arm: bool,
    /// What a person at the terminal answers before a failure ends the run, one failure each.
    pub(crate) after_failure: Vec<Resolution>,
    asked_after: Option<NodeId>,
}

thread_local! {
    /// The trace of this thread's last run, for the message of a panic.
    static LAST: std::cell::RefCell<Vec<Event>> = const { std::cell::RefCell::new(Vec::new()) };
}

pub(crate) fn last_trace() -> String {
    LAST.with_borrow(|last| super::journal::lines(last))
}

pub(crate) fn plan(yaml: &str) -> Arc<Plan> {
    let checked = check("test.yaml", yaml, &mut NoLoad, &catalog());
    let errors: Vec<_> = checked.diagnostics.iter().map(|d| format!("{}: {}", d.code.name(), d.message)).collect();
    checked.plan.unwrap_or_else(|| panic!("{errors:#?}\n{yaml}"))
}

pub(crate) fn created(plan: &Plan) -> EventBody {
    EventBody::RunCreated(Box::new(Created {
        format: FORMAT,
        version: "0".to_owned(),
        run: "r1".to_owned(),
        playbook: plan.name.clone(),
        texts: Vec::new(),
        base: "/".to_owned(),
        digest: plan.digest().to_owned(),
        inputs: serde_json::json!({}),
        by: "me@here".to_owned(),
        from: "test".to_owned(),
        options: RunOptions::default(),
    }))
}

impl Bench {
    /// A run of these steps (and other top-level keys), started.
    pub(crate) fn new(yaml: &str) -> Self {
        let mut bench = Self::created(plan(&format!("runback: 1\nname: t\n{yaml}")));
        bench.record(EventBody::RunStarted {}).unwrap();
        bench.settle();
        bench
    }

    pub(crate) fn created(plan: Arc<Plan>) -> Self {
        let body = created(&plan);
        LAST.with_borrow_mut(Vec::clear);
        let mut bench = Self {
            state: RunState::new(plan),
            trace: Vec::new(),
            now: 1_000_000,
            acting: BTreeSet::new(),
            undoing: BTreeSet::new(),
            probing: BTreeSet::new(),
            stopping: BTreeSet::new(),
            wake: None,
            auto_arm: true,
            after_failure: Vec::new(),
            asked_after: None,
        };
        bench.record(body).unwrap();
        bench
    }

    pub(crate) fn record(&mut self, body: EventBody) -> Result<(), IllegalTransition> {
        let event = Event { seq: self.state.last_seq + 1, at: self.now, body };
        // Before it is applied: that may panic.
        LAST.with_borrow_mut(|last| last.push(event.clone()));
        if let Err(refused) = self.state.apply(&event) {
            LAST.with_borrow_mut(Vec::pop);
            return Err(refused);
        }
        self.trace.push(event);
        Ok(())
    }

    #[track_caller]
    fn must(&mut self, body: EventBody) {
        let shown = format!("{body:?}");
        self.record(body).unwrap_or_else(|e| panic!("{e}\n{shown}\n{}", self.tail()));
    }

    pub(crate) fn node(&self, path: &str) -> NodeId {
        self.state.find(path).unwrap_or_else(|| panic!("no {path} in\n{}", self.tail()))
    }

    pub(crate) fn path(&self, node: NodeId) -> StepPath {
        Arc::clone(self.state.path(node))
    }

    /// The trace, a line per event.
    pub(crate) fn tail(&self) -> String {
        super::journal::lines(&self.trace)
    }

    /// Decides until nothing follows, as the driver does.
    #[track_caller]
    pub(crate) fn settle(&mut self) {
        for _ in 0..10_000 {
            let mut recorded = false;
            self.wake = None;
            for effect in decide(&self.state, self.now) {
                match effect {
                    Effect::Record(body) => {
                        let body = self.before_giving_up(body);
                        self.must(body);
                        recorded = true;
                    }
                    Effect::TakeLocks { node, names } => {
                        self.must(EventBody::LockTaken { step: Some(self.path(node)), names });
                        recorded = true;
                    }
                    Effect::Start { node } => self.start(node),
                    Effect::Undo { node } => {
                        let (step, attempt) = (self.path(node), self.state.node(node).undo_attempts + 1);
                        self.must(EventBody::UndoStarted { step, attempt });
                        self.undoing.insert(node);
                        self.probing.remove(&node);
                    }
                    Effect::Probe { node } => {
                        self.probing.insert(node);
                    }
                    Effect::Stop { node } => {
                        self.stopping.insert(node);
                    }
                    Effect::Wake { at } => self.wake = Some(at),
                }
                if recorded {
                    break;
                }
            }
            if !recorded {
                return;
            }
        }
        panic!("deciding does not end\n{}", self.tail());
    }

    fn start(&mut self, node: NodeId) {
        let (step, attempt) = (self.path(node), self.state.node(node).attempts + 1);
        self.must(EventBody::AttemptStarted { step, attempt });
        self.acting.insert(node);
        if self.auto_arm && self.wants_arming(node) {
            self.arm(node);
        }
    }

    /// Somebody asks for a rollback through the store.
    #[track_caller]
    pub(crate) fn want_rollback(&mut self) {
        self.tell(EventBody::RollbackRequested { by: "them@there".to_owned(), force: false });
    }

    fn before_giving_up(&mut self, body: EventBody) -> EventBody {
        let gives_up = matches!(
            body,
            EventBody::RollbackStarted { step: None, reason: RollbackReason::Failure, .. }
                | EventBody::RunHeld { reason: runback_core::event::HoldReason::Failure }
        );
        let Some(failed) = self.state.failure.filter(|_| gives_up) else { return body };
        if self.state.step(failed).action().is_none() || self.asked_after == Some(failed) {
            return body;
        }
        let Some(resolution) = self.after_failure.pop() else { return body };
        self.asked_after = (resolution != Resolution::Redo).then_some(failed);
        resolved(self.path(failed), resolution)
    }

    pub(crate) fn wants_arming(&self, node: NodeId) -> bool {
        let action = self.state.step(node).action();
        let full = action.is_some_and(|a| a.access == Access::Changes && a.undo == UndoKind::Full);
        full && !self.state.node(node).armed
    }

    #[track_caller]
    pub(crate) fn arm(&mut self, node: NodeId) {
        let (step, attempt) = (self.path(node), self.state.node(node).attempts);
        self.must(EventBody::UndoArmed { step, attempt, capture: serde_json::json!({ "was": 1 }) });
    }

    #[track_caller]
    pub(crate) fn acted(&mut self, node: NodeId, result: Result<(bool, Json), StepError>) {
        self.acting.remove(&node);
        self.stopping.remove(&node);
        let (step, attempt) = (self.path(node), self.state.node(node).attempts);
        let body = match result {
            Ok((changed, outputs)) => {
                EventBody::AttemptSucceeded { step, attempt, changed, outputs, masked: Vec::new() }
            }
            Err(error) => {
                let retry_in = self.next_try(node, &error, false);
                EventBody::AttemptFailed { step, attempt, error, retry_in }
            }
        };
        self.must(body);
        self.settle();
    }

    #[track_caller]
    pub(crate) fn undone(&mut self, node: NodeId, result: Result<(), StepError>) {
        self.undoing.remove(&node);
        let (step, attempt) = (self.path(node), self.state.node(node).undo_attempts);
        let body = match result {
            Ok(()) => EventBody::UndoSucceeded { step, attempt, changed: true, note: None },
            Err(error) => {
                let retry_in = self.next_try(node, &error, true);
                EventBody::UndoFailed { step, attempt, error, retry_in }
            }
        };
        self.must(body);
        self.settle();
    }

    fn next_try(&self, node: NodeId, error: &StepError, undo: bool) -> Option<u64> {
        let n = self.state.node(node);
        let elapsed = if undo { 0 } else { self.now - n.tries_since };
        let tries = if undo { n.undo_tries() } else { n.tries };
        let history = History { run: "r1", step: &n.path, tries, elapsed: Duration::from_millis(elapsed) };
        retry::next(&self.state.step(node).policy, history, error).map(|d| d.as_millis() as u64)
    }

    /// The process died and another takes the run up.
    #[track_caller]
    pub(crate) fn crash(&mut self) {
        self.die();
        self.must(EventBody::RunResumed { by: "me@here".to_owned() });
        self.settle();
    }

    /// What `Driver::open` records of attempts that nobody drives any more.
    pub(crate) fn die(&mut self) {
        self.acting.clear();
        self.undoing.clear();
        self.probing.clear();
        self.stopping.clear();
        for node in self.state.active().collect::<Vec<_>>() {
            let (step, attempt) = (self.path(node), self.state.node(node).attempts);
            self.must(EventBody::AttemptInterrupted { step, attempt });
        }
        for node in self.state.active_undos().collect::<Vec<_>>() {
            let (step, attempt) = (self.path(node), self.state.node(node).undo_attempts);
            self.must(EventBody::AttemptInterrupted { step, attempt });
        }
    }

    #[track_caller]
    pub(crate) fn ok(&mut self, path: &str) {
        let node = self.running(path);
        self.acted(node, Ok((true, Json::Null)));
    }

    #[track_caller]
    pub(crate) fn ok_with(&mut self, path: &str, outputs: Json) {
        let node = self.running(path);
        self.acted(node, Ok((true, outputs)));
    }

    #[track_caller]
    pub(crate) fn fail(&mut self, path: &str) {
        let node = self.running(path);
        self.acted(node, Err(StepError::permanent("broken")));
    }

    #[track_caller]
    pub(crate) fn fail_for_now(&mut self, path: &str) {
        let node = self.running(path);
        self.acted(node, Err(StepError::transient("not now")));
    }

    #[track_caller]
    pub(crate) fn stopped(&mut self, path: &str) {
        let node = self.running(path);
        assert!(self.stopping.contains(&node), "{path} was not told to stop\n{}", self.tail());
        self.acted(node, Err(StepError::new(Class::Cancelled, "stopped")));
    }

    #[track_caller]
    fn running(&self, path: &str) -> NodeId {
        let node = self.node(path);
        assert!(self.acting.contains(&node), "{path} does not run\n{}", self.tail());
        node
    }

    #[track_caller]
    pub(crate) fn undo_ok(&mut self, path: &str) {
        let node = self.node(path);
        assert!(self.undoing.contains(&node), "{path} is not being undone\n{}", self.tail());
        self.undone(node, Ok(()));
    }

    #[track_caller]
    pub(crate) fn undo_fail(&mut self, path: &str) {
        let node = self.node(path);
        assert!(self.undoing.contains(&node), "{path} is not being undone\n{}", self.tail());
        self.undone(node, Err(StepError::permanent("cannot")));
    }

    #[track_caller]
    pub(crate) fn resolve(&mut self, path: &str, resolution: Resolution) {
        let step = self.path(self.node(path));
        self.must(resolved(step, resolution));
        self.settle();
    }

    #[track_caller]
    pub(crate) fn tell(&mut self, body: EventBody) {
        self.must(body);
        self.settle();
    }

    #[track_caller]
    pub(crate) fn refused(&mut self, body: EventBody) -> String {
        let before = fingerprint(&self.state);
        let event = body.type_name();
        let error = self.record(body).expect_err(event);
        assert_eq!(fingerprint(&self.state), before, "a refused {event} changed something");
        error.why
    }

    /// The paths of attempts that run, in order of their names.
    pub(crate) fn acting(&self) -> Vec<String> {
        names(&self.state, &self.acting)
    }

    pub(crate) fn undoing(&self) -> Vec<String> {
        names(&self.state, &self.undoing)
    }

    pub(crate) fn status(&self, path: &str) -> &'static str {
        self.state.status_name(self.node(path))
    }
}

pub(crate) fn resolved(step: StepPath, resolution: Resolution) -> EventBody {
    EventBody::StepResolved {
        step,
        resolution,
        by: Some("me@here".to_owned()),
        outputs: Json::Null,
        changed: resolution == Resolution::Done,
        masked: Vec::new(),
    }
}

fn names(state: &RunState, nodes: &BTreeSet<NodeId>) -> Vec<String> {
    let mut names: Vec<_> = nodes.iter().map(|n| state.path(*n).to_string()).collect();
    names.sort();
    names
}

/// All of a state, without its plan.
pub(crate) fn fingerprint(state: &RunState) -> String {
    thread_local! { static EMPTY: Arc<Plan> = plan("runback: 1\nname: t\nsteps: [{ uses: t.read }]"); }
    let mut state = state.clone();
    state.plan = EMPTY.with(Arc::clone);
    format!("{state:#?}")
}
