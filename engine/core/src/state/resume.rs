//! What is worked out anew: after a person settled a step, and when a run is taken up again. Called by `apply` only.

use super::apply::kept;
use super::{FINAL, NodeId, Phase, ROOT, RunState, Status, UndoStatus};
use crate::Json;
use crate::event::{Outcome, Resolution};
use crate::plan::PlanKind;

impl RunState {
    pub(super) fn resolve_step(&mut self, node: NodeId, resolution: Resolution, outputs: &Json, changed: bool) {
        let before = self.node(node).status;
        self.interrupted.remove(&node);
        self.ready.remove(&node);
        self.backoff.remove(&(self.nodes[node.at()].until, node));
        let at = self.last_at;
        let n = &mut self.nodes[node.at()];
        n.called_off = false;
        if let Some(rare) = &mut n.rare {
            rare.doubt = None;
        }
        match resolution {
            Resolution::Done => {
                n.status = Status::Succeeded;
                n.changed |= changed;
                n.finished_at = Some(at);
                n.outputs = kept(outputs);
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
            // `transition` takes these to `resolve_undo`.
            Resolution::Undone | Resolution::Kept => {}
        }
        if before == Status::Interrupted && resolution != Resolution::Redo {
            self.settle_forward(node);
            self.note_quiet(node);
        } else if before == Status::Interrupted && self.is_called_off(node) {
            self.call_off(node);
            self.note_quiet(node);
        } else if before == Status::Interrupted {
            if self.node(node).waits == 0 {
                self.make_ready(node);
            } else {
                self.release_locks(node);
            }
        } else {
            self.reopen(ROOT);
            self.rebuild();
        }
    }

    /// What was stopped never failed by itself: it comes again, and blocks around it go on. Says whether something
    /// inside has failed that is not settled.
    fn reopen(&mut self, of: NodeId) -> bool {
        // An instance waits for a free place again.
        let limited = self.for_each(of).is_some_and(|each| each.max_parallel.is_some());
        let mut failed = false;
        for node in self.children(of) {
            if self.is_satisfied(node) {
                continue;
            }
            let is_action = matches!(self.kind(node), PlanKind::Action(_));
            let rolling = self.is_taken_back_now(node);
            let n = &self.nodes[node.at()];
            if rolling || n.taken_back {
                failed = true;
                continue;
            }
            let (status, has_error) = (n.status, n.error().is_some());
            let inside = !is_action && self.reopen(node);
            let n = &mut self.nodes[node.at()];
            match status {
                Status::Cancelled if is_action => {
                    n.status = Status::Blocked;
                    n.called_off = false;
                    n.tries = 0;
                    n.finished_at = None;
                }
                Status::Failed if is_action || has_error => failed = true,
                Status::Failed | Status::Cancelled => {
                    n.status = Status::Running;
                    n.finished_at = None;
                    failed |= inside;
                    // What had locks gave them back when it ended.
                    let locked = !self.step(node).locks.is_empty();
                    if (locked || limited) && !inside {
                        self.begin_again(node);
                    }
                }
                _ => {}
            }
        }
        failed
    }

    /// A block and the blocks inside it that run are begun again when there is a place for it.
    fn begin_again(&mut self, block: NodeId) {
        self.nodes[block.at()].status = Status::Blocked;
        for node in self.children(block) {
            let runs = self.nodes[node.at()].status == Status::Running;
            if runs && !matches!(self.kind(node), PlanKind::Action(_)) {
                self.begin_again(node);
            }
        }
    }

    /// The run is taken up again by another process, or by the operator after a failure.
    pub(super) fn resume(&mut self) {
        self.resumes += 1;
        self.finished_at = None;
        self.going_since = self.last_at;
        match self.phase {
            Phase::Created | Phase::RollingBack | Phase::Finally | Phase::Ending => {}
            Phase::Finished(Outcome::Stuck) => self.retry_failed_undos(),
            Phase::Running => {
                // What was stopped for the sake of a wish that died with the process comes again.
                self.reopen(ROOT);
                self.rebuild();
            }
            Phase::Held(_) if self.started_at.is_none() => self.phase = Phase::Created,
            Phase::Held(_) | Phase::Finished(_) => {
                self.phase = Phase::Running;
                self.ending = None;
                self.cancel = None;
                self.finally_done = false;
                self.start_anew(ROOT, false);
                self.start_anew(FINAL, true);
                self.rebuild();
            }
        }
    }

    /// What is not satisfied is done again, from the beginning where a block was taken back; `everything` inside
    /// that, apart from what was done and stayed. What was absorbed stays so. `finally` comes again as a whole.
    fn start_anew(&mut self, of: NodeId, everything: bool) {
        let in_finally = self.root(of) == FINAL;
        for node in self.children(of) {
            let satisfied = self.is_satisfied(node);
            if !everything && satisfied {
                continue;
            }
            let everything = everything || self.nodes[node.at()].taken_back;
            let is_action = matches!(self.kind(node), PlanKind::Action(_));
            if !is_action {
                self.start_anew(node, everything);
            }
            let n = &mut self.nodes[node.at()];
            if n.undo == UndoStatus::Kept && satisfied && !in_finally {
                continue;
            }
            let undone = n.undo == UndoStatus::Undone;
            if undone {
                n.armed = false;
                n.capture = None;
                n.changed = false;
                n.start_seq = 0;
            }
            n.undo = UndoStatus::None;
            n.taken_back = false;
            n.forget_undo();
            let doubtful = n.status == Status::Interrupted && !undone;
            if doubtful
                && everything
                && let Some(rare) = &mut n.rare
            {
                // It is looked at again when its turn comes.
                rare.doubt = None;
            }
            if !doubtful && (everything || n.is_terminal()) {
                n.status = Status::Blocked;
                n.tries = 0;
                n.finished_at = None;
                n.forget_answers();
                if let Some(rare) = &mut n.rare {
                    rare.doubt = None;
                }
                self.interrupted.remove(&node);
            }
        }
    }

    /// Works all bookkeeping of the way forward out anew from the statuses. For resume and for an operator's
    /// decision; everything else moves in small steps.
    fn rebuild(&mut self) {
        self.ready.clear();
        self.backoff.clear();
        self.quiet.clear();
        self.to_stop.clear();
        self.hold_wanted = false;
        self.failure = None;
        for id in 0..self.nodes.len() as u32 {
            let node = NodeId(id);
            let waits = if Self::is_root(node) {
                0
            } else {
                self.needs(node).filter(|need| !self.is_satisfied(*need)).count() as u32
            };
            let n = &mut self.nodes[node.at()];
            (n.waits, n.open, n.inside) = (waits, 0, 0);
            (n.dead, n.halted, n.child_failed, n.failed_fast) = (false, false, false, false);
            if matches!(n.status, Status::Ready | Status::Backoff) || n.called_off {
                n.status = Status::Blocked;
                n.called_off = false;
            }
        }
        self.rebuild_locks();
        let ids: Vec<_> = self.ids().collect();
        for node in &ids {
            if !self.is_satisfied(*node) {
                let parent = self.parent(*node);
                self.nodes[parent.at()].open += 1;
            }
            if self.active.contains(node) {
                self.enter(*node);
            }
        }
        for node in &ids {
            self.recount_instances(*node);
        }
        self.halt_again();
        let mut failed: Vec<_> =
            ids.iter().copied().filter(|n| self.node(*n).is_terminal() && !self.is_satisfied(*n)).collect();
        // The first failure is a step's, not that of a block around it.
        failed.sort_by_key(|n| (self.step(*n).action().is_none(), self.node(*n).finished_at, *n));
        for node in failed {
            let parent = self.parent(node);
            self.propagate_failure(node, parent);
        }
        for node in std::iter::once(ROOT).chain(ids.iter().copied()) {
            if self.nodes[node.at()].status == Status::Running {
                if self.nodes[node.at()].instances.is_some() {
                    self.open_instances(node);
                } else if node == ROOT || !matches!(self.kind(node), PlanKind::Action(_)) {
                    self.open_container(node);
                }
            }
        }
        // From the inside out: nothing may be left to do in a block.
        for node in ids.into_iter().rev() {
            if self.step(node).action().is_none() {
                self.complete_if_done(node);
            }
        }
        self.complete_if_done(ROOT);
    }

    /// Blocks that are being taken back, and a cancel that was asked for, stay as they are.
    fn halt_again(&mut self) {
        let blocks: Vec<_> = self.rollbacks.iter().filter(|r| !r.done && r.of != ROOT).map(|r| r.of).collect();
        for block in blocks {
            self.enter(block);
            self.nodes[block.at()].halted = true;
        }
        if self.cancel.is_some() {
            self.halt(ROOT);
            self.to_stop = self.active.clone();
        }
    }

    fn recount_instances(&mut self, each: NodeId) {
        let Some(mut instances) = self.nodes[each.at()].instances.take() else { return };
        instances.next = instances.groups.start;
        instances.in_progress = instances
            .groups
            .clone()
            .map(|g| &self.nodes[self.groups[g].base.at()])
            .filter(|n| matches!(n.status, Status::Running | Status::Interrupted))
            .count() as u32;
        self.nodes[each.at()].instances = Some(instances);
    }
}
