//! The transition function: total, and the only way in which the state of a run changes. An event that the
//! state does not allow (`legal` says which) is an error and changes nothing.

use std::cmp::Reverse;
use std::sync::Arc;

use super::node::Instances;
use super::{Node, NodeId, Phase, ROOT, RunState, Status, UndoStatus, Wish};
use crate::Json;
use crate::event::{CancelReason, Event, EventBody, OnFailure, Outcome, StepPath};
use crate::plan::SegmentIdx;
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

    fn must(&self, step: &StepPath) -> NodeId {
        // `check` has looked it up.
        self.find(step).unwrap_or(ROOT)
    }

    fn end_attempt(&mut self, id: NodeId, status: Status) -> &mut Node {
        self.active.remove(&id);
        self.to_stop.remove(&id);
        self.leave(id);
        let at = self.last_at;
        self.end_question(id, status == Status::Interrupted);
        let n = &mut self.nodes[id.at()];
        n.status = status;
        n.finished_at = Some(at);
        if let Some(rare) = &mut n.rare {
            rare.detached = None;
        }
        n
    }

    fn end_undo(&mut self, id: NodeId, undo: UndoStatus) -> &mut Node {
        self.undo_active.remove(&id);
        self.end_question(id, undo == UndoStatus::Ready);
        let n = &mut self.nodes[id.at()];
        n.undo = undo;
        n
    }

    /// Answers to an attempt that a process left behind are for the next one; other ends use them up.
    fn end_question(&mut self, id: NodeId, keeps_answers: bool) {
        let n = &mut self.nodes[id.at()];
        if n.rare.as_mut().is_some_and(|rare| rare.question.take().is_some()) {
            self.asking -= 1;
        }
        if !keeps_answers {
            n.forget_answers();
        }
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
                self.going_since = at;
                self.start_run();
            }
            E::BlockStarted { step } => {
                let node = self.start_container(step, at);
                if self.is_expanded(node) {
                    self.open_instances(node);
                } else {
                    self.open_container(node);
                }
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
                self.nodes[node.at()].rare_mut().notes.push(Arc::new(note.clone()));
            }
            E::AttemptSucceeded { step, changed, outputs, masked, .. } => {
                let node = self.must(step);
                let n = self.end_attempt(node, Status::Succeeded);
                n.changed |= *changed;
                n.outputs = kept(outputs);
                n.set_masked(masked);
                self.settle_forward(node);
                self.note_quiet(node);
            }
            E::AttemptFailed { step, error, retry_in, .. } => self.attempt_failed(step, error, *retry_in),
            E::AttemptInterrupted { step, .. } => self.attempt_interrupted(step),
            E::DoubtRaised { step, why, .. } => {
                let node = self.must(step);
                self.nodes[node.at()].rare_mut().doubt = Some(why.clone());
            }
            E::StepResolved { step, resolution, by, .. } if resolution.is_of_undo() => {
                let node = self.must(step);
                self.resolve_undo(node, *resolution, by.as_deref());
            }
            E::StepResolved { step, resolution, outputs, changed, masked, .. } => {
                let node = self.must(step);
                self.resolve_step(node, *resolution, outputs, *changed);
                self.nodes[node.at()].set_masked(masked);
            }
            E::ApprovalRequested { step, question, .. } => {
                let node = self.must(step);
                let rare = self.nodes[node.at()].rare_mut();
                rare.asked = true;
                rare.asked_at.get_or_insert(at);
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
            E::RollbackRequested { by, force } => {
                self.wish = Some(Wish::Rollback { by: by.clone(), force: *force });
            }
            E::HoldRequested { .. } => self.wish = Some(Wish::Hold),
            E::RollbackStarted { step, reason, force, .. } => {
                let of = step.as_ref().map_or(ROOT, |s| self.must(s));
                if of == ROOT {
                    self.wish = None;
                    self.finished_at = None;
                    if matches!(self.phase, Phase::Finished(_) | Phase::Held(_)) {
                        self.going_since = at;
                    }
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
                if let Some(rare) = &mut n.rare {
                    rare.undo_note = None;
                }
                n.undo_tries += 1;
                if n.undo_tries == 1 {
                    // What the action was told says nothing about its undo.
                    n.forget_answers();
                }
                self.undo_ready.remove(&keys.0);
                self.undo_backoff.remove(&keys.1);
                self.undo_active.insert(node);
            }
            E::UndoSucceeded { step, note, .. } => {
                let node = self.must(step);
                let n = self.end_undo(node, UndoStatus::Undone);
                if note.is_some() || n.rare.is_some() {
                    let rare = n.rare_mut();
                    rare.undo_note.clone_from(note);
                    rare.undo_error = None;
                }
                self.undo_ended(node);
            }
            E::UndoFailed { step, error, retry_in, .. } => {
                let node = self.must(step);
                let n = self.end_undo(node, UndoStatus::Failed);
                n.rare_mut().undo_error = Some(error.clone());
                if let Some(delay) = retry_in {
                    n.undo = UndoStatus::Backoff;
                    n.undo_until = at + delay;
                    self.undo_backoff.insert((at + delay, node));
                } else {
                    self.undo_given_up(node);
                }
            }
            E::RunHeld { reason } => {
                self.phase = Phase::Held(*reason);
                self.finished_at = Some(at);
                self.cancel = None;
                self.wish = None;
                self.quiet.clear();
            }
            E::RunResumed { .. } => self.resume(),
            E::RunFinished { outcome, outputs, output_errors } => {
                self.phase = Phase::Finished(*outcome);
                self.finished_at = Some(at);
                self.outputs = kept(outputs);
                self.output_errors = output_errors.clone();
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
                _ if self.is_stuck() => Outcome::Stuck,
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
        if let Some(rare) = &mut n.rare {
            rare.error = None;
        }
        node
    }

    fn attempt_failed(&mut self, step: &StepPath, error: &crate::step::StepError, retry_in: Option<u64>) {
        let node = self.must(step);
        let cancelled = error.class == Class::Cancelled;
        let status = if cancelled { Status::Cancelled } else { Status::Failed };
        let until = self.last_at + retry_in.unwrap_or(0);
        let n = self.end_attempt(node, status);
        let rare = n.rare_mut();
        rare.error = Some(error.clone());
        let again = retry_in.is_some() && !cancelled;
        if again && self.is_called_off(node) {
            self.call_off(node);
        } else if again {
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
        if self.undo_active.contains(&node) {
            // An undo is idempotent: it simply comes again.
            let key = (Reverse(self.end_undo(node, UndoStatus::Ready).start_seq), node);
            self.undo_ready.insert(key);
            return;
        }
        self.end_attempt(node, Status::Interrupted).finished_at = None;
        self.interrupted.insert(node);
        self.note_quiet(node);
    }
}

/// Empty outputs are not stored, so there are none.
pub(super) fn kept(outputs: &Json) -> Option<Arc<Json>> {
    let empty = outputs.is_null() || outputs.as_object().is_some_and(serde_json::Map::is_empty);
    (!empty).then(|| Arc::new(outputs.clone()))
}
