//! The transition function: total, and the only way in which the state of a run changes. An event that the
//! state does not allow is an error and changes nothing.

use std::cmp::Reverse;
use std::sync::Arc;

use super::node::Instances;
use super::{FINAL, Node, NodeId, Phase, ROOT, RunState, Status, UndoStatus};
use crate::Json;
use crate::event::{CancelReason, Event, EventBody, HoldReason, OnFailure, Outcome, Resolution, StepPath};
use crate::plan::{PlanKind, SegmentIdx};
use crate::step::Class;

/// An event that cannot follow what came before it: the journal, or the engine, is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event {seq} ({event}{}) is not possible here: {why}", step.as_ref().map(|s| format!(" of {s}")).unwrap_or_default())]
pub struct IllegalTransition {
    pub seq: u64,
    pub event: &'static str,
    pub step: Option<String>,
    pub why: String,
}

impl RunState {
    /// Applies the next event.
    pub fn apply(&mut self, event: &Event) -> Result<(), IllegalTransition> {
        let illegal = |why: String| IllegalTransition {
            seq: event.seq,
            event: event.body.type_name(),
            step: event.body.step().map(ToString::to_string),
            why,
        };
        if event.seq != self.last_seq + 1 {
            return Err(illegal(format!("event {} was expected", self.last_seq + 1)));
        }
        self.check(&event.body).map_err(illegal)?;
        self.last_seq = event.seq;
        self.last_at = event.at;
        self.transition(event);
        self.end_cancelled_if_quiet();
        Ok(())
    }

    fn known(&self, step: &StepPath) -> Result<NodeId, String> {
        self.find(step).ok_or_else(|| format!("there is no step {step}"))
    }

    /// Whether the event may come now. Changes nothing.
    fn check(&self, body: &EventBody) -> Result<(), String> {
        use EventBody as E;
        let phase = |allowed: &[Phase]| {
            if allowed.contains(&self.phase) { Ok(()) } else { Err(format!("the run is {:?}", self.phase)) }
        };
        let going = || phase(&[Phase::Running, Phase::Finally]);
        let status = |step: &StepPath, allowed: &[Status]| {
            let node = self.known(step)?;
            let status = self.node(node).status;
            if allowed.contains(&status) { Ok(node) } else { Err(format!("the step is {status:?}")) }
        };
        let attempt = |node: NodeId, attempt: u32| {
            let have = self.node(node).attempts;
            if have == attempt { Ok(()) } else { Err(format!("attempt {have} is the current one")) }
        };
        match body {
            E::RunCreated(_) => {
                if self.created.is_some() {
                    return Err("the run is already created".to_owned());
                }
                Ok(())
            }
            _ if self.created.is_none() => Err("the run is not created yet".to_owned()),
            E::RunStarted {} | E::LockTaken { step: None, .. } => phase(&[Phase::Created]),
            E::BlockStarted { step } => {
                going()?;
                let node = status(step, &[Status::Ready])?;
                match self.kind(node) {
                    PlanKind::Block(_) => Ok(()),
                    _ => Err("the step is not a block".to_owned()),
                }
            }
            E::StepExpanded { step, items } => {
                going()?;
                let node = status(step, &[Status::Ready])?;
                let PlanKind::ForEach(_) = self.kind(node) else {
                    return Err("the step has no for_each".to_owned());
                };
                let mut keys: Vec<_> = items.iter().map(|i| &i.key).collect();
                keys.sort();
                match keys.windows(2).find(|w| w[0] == w[1]) {
                    Some(twice) => Err(format!("two items have the key {}", twice[0])),
                    None => Ok(()),
                }
            }
            E::StepSkipped { step, .. } => going().and_then(|()| status(step, &[Status::Ready]).map(drop)),
            E::StepFailed { step, .. } => {
                going().and_then(|()| status(step, &[Status::Ready, Status::Backoff]).map(drop))
            }
            E::AttemptStarted { step, attempt } => {
                going()?;
                let node = status(step, &[Status::Ready, Status::Backoff])?;
                if self.step(node).action().is_none() {
                    return Err("only actions have attempts".to_owned());
                }
                let want = self.node(node).attempts + 1;
                if *attempt == want { Ok(()) } else { Err(format!("attempt {want} comes next")) }
            }
            E::UndoArmed { step, attempt: n, .. } => {
                let node = status(step, &[Status::Running])?;
                attempt(node, *n)?;
                if self.node(node).armed { Err("its undo is armed already".to_owned()) } else { Ok(()) }
            }
            E::ProcessStarted { step, attempt: n, .. } | E::StepNoted { step, attempt: n, .. } => {
                let node = self.known(step)?;
                if self.undo_active.contains(&node) {
                    return Ok(());
                }
                status(step, &[Status::Running])?;
                attempt(node, *n)
            }
            E::AttemptSucceeded { step, attempt: n, .. } | E::AttemptFailed { step, attempt: n, .. } => {
                attempt(status(step, &[Status::Running])?, *n)
            }
            E::AttemptInterrupted { step, attempt: n } => {
                let node = self.known(step)?;
                if self.undo_active.contains(&node) {
                    return Ok(());
                }
                attempt(status(step, &[Status::Running])?, *n)
            }
            E::DoubtRaised { step, attempt: n, .. } => attempt(status(step, &[Status::Interrupted])?, *n),
            E::StepResolved { step, .. } => {
                going()?;
                let node = status(step, &[Status::Interrupted, Status::Failed])?;
                if self.step(node).action().is_none() {
                    return Err("only actions can be resolved".to_owned());
                }
                let closed = self.ancestors(node).into_iter().find(|a| self.node(*a).status != Status::Running);
                match closed {
                    Some(block) => Err(format!("{} has ended", self.path(block))),
                    None => Ok(()),
                }
            }
            E::ApprovalRequested { step, attempt: n, .. } => {
                let node = status(step, &[Status::Running])?;
                attempt(node, *n)
            }
            E::ApprovalGiven { step, .. } | E::ApprovalRefused { step, .. } => {
                let node = status(step, &[Status::Running, Status::Interrupted])?;
                if self.node(node).question().is_some() { Ok(()) } else { Err("nothing was asked".to_owned()) }
            }
            E::LockTaken { step: Some(step), .. } => status(step, &[Status::Ready, Status::Backoff]).map(drop),
            E::CancelRequested { .. } => {
                phase(&[Phase::Created, Phase::Running])?;
                if self.cancel.is_some() { Err("it is being cancelled already".to_owned()) } else { Ok(()) }
            }
            E::RollbackStarted { step: Some(step), .. } => {
                phase(&[Phase::Running])?;
                let node = status(step, &[Status::Running])?;
                if self.quiet.contains(&node) { Ok(()) } else { Err("something inside still runs".to_owned()) }
            }
            E::RollbackStarted { step: None, .. } => {
                phase(&[
                    Phase::Running,
                    Phase::Finally,
                    Phase::Ending,
                    Phase::Held(HoldReason::Failure),
                    Phase::Held(HoldReason::Operator),
                    Phase::Held(HoldReason::Cancelled),
                    Phase::Finished(Outcome::Succeeded),
                    Phase::Finished(Outcome::Failed),
                    Phase::Finished(Outcome::Stuck),
                    Phase::Finished(Outcome::Cancelled),
                ])?;
                if self.active.is_empty() && self.undo_active.is_empty() {
                    Ok(())
                } else {
                    Err("attempts still run".to_owned())
                }
            }
            E::UndoStarted { step, attempt } => {
                let node = self.known(step)?;
                let n = self.node(node);
                if !matches!(n.undo, UndoStatus::Ready | UndoStatus::Backoff) {
                    return Err(format!("its undo is {:?}", n.undo));
                }
                let want = n.undo_attempts + 1;
                if *attempt == want { Ok(()) } else { Err(format!("undo attempt {want} comes next")) }
            }
            E::UndoSucceeded { step, attempt, .. } | E::UndoFailed { step, attempt, .. } => {
                let n = self.node(self.known(step)?);
                if n.undo != UndoStatus::Undoing {
                    return Err(format!("its undo is {:?}", n.undo));
                }
                if n.undo_attempts == *attempt {
                    Ok(())
                } else {
                    Err(format!("attempt {} is current", n.undo_attempts))
                }
            }
            E::RunHeld { .. } => {
                going()?;
                if self.active.is_empty() { Ok(()) } else { Err("attempts still run".to_owned()) }
            }
            E::RunResumed { .. } => {
                if !self.active.iter().all(|n| self.node(*n).detached().is_some()) || !self.undo_active.is_empty() {
                    return Err("attempts are recorded as running; they must be interrupted first".to_owned());
                }
                match self.phase {
                    Phase::Finished(Outcome::Succeeded | Outcome::RolledBack | Outcome::Cancelled) => {
                        Err("the run is over".to_owned())
                    }
                    Phase::Created
                    | Phase::Running
                    | Phase::RollingBack
                    | Phase::Finally
                    | Phase::Ending
                    | Phase::Held(_)
                    | Phase::Finished(Outcome::Failed | Outcome::Stuck) => Ok(()),
                }
            }
            E::RunFinished { outcome, .. } => {
                phase(&[Phase::Ending])?;
                if self.ending == Some(*outcome) { Ok(()) } else { Err(format!("the outcome is {:?}", self.ending)) }
            }
        }
    }

    fn must(&self, step: &StepPath) -> NodeId {
        // `check` has looked it up.
        self.find(step).unwrap_or(ROOT)
    }

    fn end_attempt(&mut self, id: NodeId, status: Status) -> &mut Node {
        self.active.remove(&id);
        self.to_stop.remove(&id);
        self.leave(id);
        let at = self.last_at;
        if self.nodes[id.at()].rare.as_ref().is_some_and(|r| r.question.is_some()) {
            self.asking -= 1;
        }
        let n = &mut self.nodes[id.at()];
        n.status = status;
        n.finished_at = Some(at);
        if let Some(rare) = &mut n.rare {
            rare.question = None;
            rare.detached = None;
            // Answers to an attempt that a process left behind are for the next one; other ends use them up.
            rare.answers.retain(|_| status == Status::Interrupted);
        }
        n
    }

    fn transition(&mut self, event: &Event) {
        use EventBody as E;
        let at = event.at;
        match &event.body {
            E::RunCreated(created) => {
                self.created_at = at;
                self.created = Some(Arc::new((**created).clone()));
            }
            E::RunStarted {} => {
                self.started_at = Some(at);
                self.start_run();
            }
            E::BlockStarted { step } => {
                let node = self.start_container(step, at);
                self.open_container(node);
                self.complete_if_done(node);
            }
            E::StepExpanded { step, items } => {
                let node = self.start_container(step, at);
                let body = self.for_each(node).map_or(SegmentIdx(0), |each| each.body);
                let first = self.groups.len();
                for (index, item) in items.iter().enumerate() {
                    self.instantiate(body, node, Some(item.clone()), index as u32);
                }
                let groups = first..self.groups.len();
                self.nodes[node.at()].instances =
                    Some(Box::new(Instances { next: groups.start, groups, in_progress: 0 }));
                self.open_instances(node);
                self.complete_if_done(node);
            }
            E::StepSkipped { step, .. } => {
                let node = self.must(step);
                self.ready.remove(&node);
                let n = &mut self.nodes[node.at()];
                n.status = Status::Skipped;
                n.finished_at = Some(at);
                self.settle_forward(node);
            }
            E::StepFailed { step, error } => {
                let node = self.must(step);
                self.ready.remove(&node);
                self.backoff.remove(&(self.nodes[node.at()].until, node));
                let n = &mut self.nodes[node.at()];
                n.status = Status::Failed;
                n.finished_at = Some(at);
                n.rare_mut().error = Some(error.clone());
                self.settle_forward(node);
                self.note_quiet(node);
            }
            E::AttemptStarted { step, .. } => {
                let node = self.must(step);
                self.ready.remove(&node);
                self.backoff.remove(&(self.nodes[node.at()].until, node));
                self.active.insert(node);
                self.enter(node);
                let n = &mut self.nodes[node.at()];
                n.status = Status::Running;
                n.attempts += 1;
                n.tries += 1;
                n.started_at.get_or_insert(at);
                n.finished_at = None;
                if n.tries == 1 {
                    n.tries_since = at;
                }
                if n.start_seq == 0 {
                    n.start_seq = event.seq;
                }
            }
            E::UndoArmed { step, capture, .. } => {
                let node = self.must(step);
                let n = &mut self.nodes[node.at()];
                n.armed = true;
                n.capture = Some(Arc::new(capture.clone()));
            }
            E::ProcessStarted { step, detached, .. } => {
                let node = self.must(step);
                self.nodes[node.at()].rare_mut().detached = Some(detached.clone());
            }
            E::StepNoted { step, note, .. } => {
                let node = self.must(step);
                self.nodes[node.at()].rare_mut().notes.push(note.clone());
            }
            E::AttemptSucceeded { step, changed, outputs, .. } => {
                let node = self.must(step);
                let n = self.end_attempt(node, Status::Succeeded);
                n.changed |= *changed;
                n.outputs = (!outputs.is_null()).then(|| Arc::new(outputs.clone()));
                self.settle_forward(node);
                self.note_quiet(node);
            }
            E::AttemptFailed { step, error, retry_in, .. } => self.attempt_failed(step, error, *retry_in),
            E::AttemptInterrupted { step, .. } => self.attempt_interrupted(step),
            E::DoubtRaised { step, why, .. } => {
                let node = self.must(step);
                self.nodes[node.at()].rare_mut().doubt = Some(why.clone());
            }
            E::StepResolved { step, resolution, outputs, changed, .. } => {
                let node = self.must(step);
                self.resolve_step(node, *resolution, outputs, *changed);
            }
            E::ApprovalRequested { step, question, .. } => {
                let node = self.must(step);
                let rare = self.nodes[node.at()].rare_mut();
                if rare.question.replace(question.clone()).is_none() {
                    self.asking += 1;
                }
            }
            E::ApprovalGiven { step, answer } | E::ApprovalRefused { step, answer } => {
                let node = self.must(step);
                self.nodes[node.at()].rare_mut().answers.push(answer.clone());
            }
            E::LockTaken { step, names } => {
                self.locks.extend(names.iter().cloned());
                if step.is_none() {
                    self.locked = true;
                }
            }
            E::CancelRequested { reason, .. } => {
                self.cancel = Some(*reason);
                if self.phase == Phase::Created {
                    self.ending = Some(Outcome::Cancelled);
                    self.phase = Phase::Ending;
                } else {
                    self.halt(ROOT);
                    self.to_stop = self.active.clone();
                }
            }
            E::RollbackStarted { step, reason, force, .. } => {
                let of = step.as_ref().map_or(ROOT, |s| self.must(s));
                if of == ROOT {
                    self.finished_at = None;
                    if matches!(self.phase, Phase::Finished(_)) {
                        self.finally_done = true;
                    }
                }
                self.begin_rollback(of, *reason, *force);
            }
            E::UndoStarted { step, .. } => {
                let node = self.must(step);
                let n = &mut self.nodes[node.at()];
                let keys = ((Reverse(n.start_seq), node), (n.undo_until, node));
                n.undo = UndoStatus::Undoing;
                n.undo_attempts += 1;
                n.undo_tries += 1;
                self.undo_ready.remove(&keys.0);
                self.undo_backoff.remove(&keys.1);
                self.undo_active.insert(node);
            }
            E::UndoSucceeded { step, note, .. } => {
                let node = self.must(step);
                self.undo_active.remove(&node);
                let n = &mut self.nodes[node.at()];
                n.undo = UndoStatus::Undone;
                if note.is_some() || n.rare.is_some() {
                    let rare = n.rare_mut();
                    rare.undo_note.clone_from(note);
                    rare.undo_error = None;
                }
                self.undo_ended(node);
            }
            E::UndoFailed { step, error, retry_in, .. } => {
                let node = self.must(step);
                self.undo_active.remove(&node);
                let n = &mut self.nodes[node.at()];
                n.rare_mut().undo_error = Some(error.clone());
                if let Some(delay) = retry_in {
                    n.undo = UndoStatus::Backoff;
                    n.undo_until = at + delay;
                    self.undo_backoff.insert((at + delay, node));
                } else {
                    n.undo = UndoStatus::Failed;
                    self.undo_given_up(node);
                }
            }
            E::RunHeld { reason } => {
                self.phase = Phase::Held(*reason);
                self.finished_at = Some(at);
                self.cancel = None;
                self.quiet.clear();
            }
            E::RunResumed { .. } => self.resume(),
            E::RunFinished { outcome, outputs } => {
                self.phase = Phase::Finished(*outcome);
                self.finished_at = Some(at);
                self.outputs = (!outputs.is_null()).then(|| Arc::new(outputs.clone()));
            }
        }
    }

    /// A cancelled run whose policy is `continue` takes nothing back and ends where it is.
    fn end_cancelled_if_quiet(&mut self) {
        let Some(reason) = self.cancel else { return };
        let leaves_it = self.on_failure() == OnFailure::Continue && !self.hold_wanted;
        if self.phase == Phase::Running && leaves_it && self.quiet.contains(&ROOT) {
            self.sweep(ROOT);
            self.end_with(match reason {
                CancelReason::Operator => Outcome::Cancelled,
                CancelReason::Timeout => Outcome::Failed,
            });
        }
    }

    fn start_container(&mut self, step: &StepPath, at: u64) -> NodeId {
        let node = self.must(step);
        self.ready.remove(&node);
        let n = &mut self.nodes[node.at()];
        n.status = Status::Running;
        n.started_at.get_or_insert(at);
        node
    }

    fn attempt_failed(&mut self, step: &StepPath, error: &crate::step::StepError, retry_in: Option<u64>) {
        let node = self.must(step);
        let cancelled = error.class == Class::Cancelled;
        let status = if cancelled { Status::Cancelled } else { Status::Failed };
        let until = self.last_at + retry_in.unwrap_or(0);
        let n = self.end_attempt(node, status);
        n.rare_mut().error = Some(error.clone());
        if retry_in.is_some() && !cancelled && !self.is_halted(node) {
            let n = &mut self.nodes[node.at()];
            n.status = Status::Backoff;
            n.until = until;
            n.finished_at = None;
            self.backoff.insert((until, node));
        } else {
            self.settle_forward(node);
        }
        self.note_quiet(node);
    }

    fn attempt_interrupted(&mut self, step: &StepPath) {
        let node = self.must(step);
        if self.undo_active.remove(&node) {
            // An undo is idempotent: it simply comes again.
            let n = &mut self.nodes[node.at()];
            n.undo = UndoStatus::Ready;
            self.undo_ready.insert((Reverse(n.start_seq), node));
            return;
        }
        self.end_attempt(node, Status::Interrupted).finished_at = None;
        self.interrupted.insert(node);
        self.note_quiet(node);
    }

    fn resolve_step(&mut self, node: NodeId, resolution: Resolution, outputs: &Json, changed: bool) {
        self.interrupted.remove(&node);
        let at = self.last_at;
        let n = &mut self.nodes[node.at()];
        if let Some(rare) = &mut n.rare {
            rare.doubt = None;
        }
        let before = n.status;
        match resolution {
            Resolution::Done => {
                n.status = Status::Succeeded;
                n.changed |= changed;
                n.finished_at = Some(at);
                n.outputs = (!outputs.is_null()).then(|| Arc::new(outputs.clone()));
            }
            Resolution::Redo => {
                n.status = Status::Blocked;
                n.tries = 0;
                n.finished_at = None;
            }
            Resolution::Skip => {
                n.status = Status::Skipped;
                n.finished_at = Some(at);
            }
            Resolution::Fail => {
                n.status = Status::Failed;
                n.finished_at = Some(at);
            }
        }
        if before == Status::Failed {
            self.rebuild();
        } else if resolution == Resolution::Redo {
            self.make_ready(node);
        } else {
            self.settle_forward(node);
            self.note_quiet(node);
        }
    }

    /// The run is taken up again by another process, or by the operator after a failure.
    fn resume(&mut self) {
        self.resumes += 1;
        self.finished_at = None;
        match self.phase {
            Phase::Created | Phase::RollingBack | Phase::Finally | Phase::Ending => {}
            Phase::Finished(Outcome::Stuck) => self.retry_failed_undos(),
            Phase::Running | Phase::Held(_) | Phase::Finished(_) => {
                let over = self.phase != Phase::Running;
                self.phase = Phase::Running;
                self.ending = None;
                self.stuck = false;
                if over {
                    self.cancel = None;
                    self.finally_done = false;
                    self.start_anew();
                }
                let cancelled = self.cancel.is_some();
                self.rebuild();
                if cancelled {
                    self.halt(ROOT);
                    self.to_stop = self.active.clone();
                }
            }
        }
    }

    /// What failed, was cancelled or was taken back within the run is done again; `finally` as well.
    fn start_anew(&mut self) {
        for node in self.ids().collect::<Vec<_>>() {
            let is_action = matches!(self.kind(node), PlanKind::Action(_));
            let in_finally = self.ancestors(node).contains(&FINAL);
            let satisfied = self.is_satisfied(node);
            let n = &mut self.nodes[node.at()];
            let undone = n.undo == UndoStatus::Undone;
            if undone {
                n.undo = UndoStatus::None;
                n.armed = false;
                n.capture = None;
                n.changed = false;
                n.start_seq = 0;
            }
            let again = undone || in_finally || (n.is_terminal() && !satisfied);
            if again && !(in_finally && !is_action && n.instances.is_some()) {
                n.tries = 0;
                n.finished_at = None;
                n.status =
                    if is_action || n.started_at.is_none() || in_finally { Status::Blocked } else { Status::Running };
            }
        }
        // A block that was taken back must run again even where it counted as a success.
        for node in self.ids().collect::<Vec<_>>() {
            if self.nodes[node.at()].status == Status::Blocked && self.nodes[node.at()].attempts > 0 {
                for up in self.ancestors(node) {
                    if !Self::is_root(up) && self.nodes[up.at()].started_at.is_some() {
                        self.nodes[up.at()].status = Status::Running;
                        self.nodes[up.at()].finished_at = None;
                    }
                }
            }
        }
        self.nodes[FINAL.at()].child_failed = false;
    }
}
