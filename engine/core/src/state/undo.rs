//! The way back: what is undone, in which order, and what stays. Called by `apply` only.

use std::cmp::Reverse;
use std::collections::HashSet;

use super::{NodeId, Phase, ROOT, Rollback, RunState, Status, UndoStatus};
use crate::event::{CancelReason, Outcome, RollbackReason};
use crate::plan::{PlanKind, PlanRollback};
use crate::step::{Access, UndoKind};

/// What a rollback does with a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Undo,
    Keep,
    /// It changed nothing, as far as can be known.
    Nothing,
}

impl RunState {
    /// Everything inside a root, block or `for_each`, without itself.
    fn subtree(&self, of: NodeId) -> Vec<NodeId> {
        let mut all = Vec::new();
        let mut todo = self.children(of);
        while let Some(node) = todo.pop() {
            all.push(node);
            if !matches!(self.kind(node), PlanKind::Action(_)) {
                todo.extend(self.children(node));
            }
        }
        all
    }

    /// What stays because a point of no return was passed: the irreversible steps that succeeded, and all before
    /// them (what they need, at any distance, with all that is inside).
    pub fn behind_points_of_no_return(&self, of: NodeId) -> HashSet<NodeId> {
        let mut kept = HashSet::new();
        let mut todo: Vec<NodeId> = Vec::new();
        for node in self.subtree(of) {
            if self.step(node).irreversible && self.node(node).status == Status::Succeeded {
                kept.insert(node);
                kept.extend(self.subtree(node));
                let mut at = node;
                while at != of && !Self::is_root(at) {
                    todo.extend(self.needs(at));
                    at = self.parent(at);
                }
            }
        }
        while let Some(node) = todo.pop() {
            if kept.insert(node) {
                kept.extend(self.subtree(node));
                todo.extend(self.needs(node));
            }
        }
        kept
    }

    /// What a rollback that begins now would do with a step.
    pub fn fate(&self, node: NodeId, kept: &HashSet<NodeId>) -> Fate {
        let n = self.node(node);
        let PlanKind::Action(action) = self.kind(node) else { return Fate::Nothing };
        let started = n.attempts > 0 && !matches!(n.status, Status::Skipped);
        if !started || matches!(n.undo, UndoStatus::Undone | UndoStatus::Kept) {
            return Fate::Nothing;
        }
        let reads = action.access == Access::Reads;
        if kept.contains(&node) {
            return if reads { Fate::Nothing } else { Fate::Keep };
        }
        match &action.rollback {
            PlanRollback::Action { only_if_succeeded, .. } => {
                if *only_if_succeeded && n.status != Status::Succeeded {
                    Fate::Nothing
                } else {
                    Fate::Undo
                }
            }
            _ if reads => Fate::Nothing,
            PlanRollback::Auto if action.undo == UndoKind::Full => {
                // Never armed = it never acted. Unchanged at the first try = nothing to take back.
                let unchanged = n.status == Status::Succeeded && !n.changed && n.attempts == 1;
                if !n.armed || unchanged { Fate::Nothing } else { Fate::Undo }
            }
            _ if n.status == Status::Succeeded && !n.changed => Fate::Nothing,
            _ => Fate::Keep,
        }
    }

    pub(super) fn begin_rollback(&mut self, of: NodeId, reason: RollbackReason, force: bool) {
        let index = self.rollbacks.len() as u16;
        self.rollbacks.push(Rollback { of, reason, force, live: 0, failed: false, done: false });
        self.quiet.remove(&of);
        if of == ROOT {
            self.phase = Phase::RollingBack;
            self.stuck = false;
            self.halt(ROOT);
            self.quiet.clear();
        } else {
            // While it is taken back, what is around it is not quiet.
            self.enter(of);
        }
        let kept = self.behind_points_of_no_return(of);
        let nodes = self.subtree(of);
        for node in &nodes {
            let fate = self.fate(*node, &kept);
            let waits = self.dependents(*node).count() as u32 + self.later_instance(*node).map_or(0, |_| 1);
            let n = &mut self.nodes[node.at()];
            n.rollback = Some(index);
            n.undo_waits = waits;
            n.undo_open = 0;
            n.undo_opened = false;
            n.undo_settled = false;
            n.undo_tries = 0;
            match fate {
                Fate::Undo => n.undo = UndoStatus::Pending,
                Fate::Keep => n.undo = UndoStatus::Kept,
                Fate::Nothing => {}
            }
        }
        self.nodes[of.at()].undo_open = 0;
        for node in &nodes {
            let parent = self.parent(*node);
            self.nodes[parent.at()].undo_open += 1;
        }
        self.open_undo(of);
        self.end_rollback_if_done(index);
    }

    /// With `max_parallel: k`, an instance is undone after the k-th later one.
    fn later_instance(&self, node: NodeId) -> Option<NodeId> {
        let group = self.group(node);
        let limit = self.for_each(group.owner)?.max_parallel? as usize;
        if group.base != node {
            return None;
        }
        let instances = self.instances(group.owner);
        let later = instances.start + group.index as usize + limit;
        (later < instances.end).then(|| self.groups[later].base)
    }

    fn earlier_instance(&self, node: NodeId) -> Option<NodeId> {
        let group = self.group(node);
        let limit = self.for_each(group.owner)?.max_parallel?;
        if group.base != node {
            return None;
        }
        let earlier = group.index.checked_sub(limit)? as usize;
        Some(self.groups[self.instances(group.owner).start + earlier].base)
    }

    fn open_undo(&mut self, container: NodeId) {
        self.nodes[container.at()].undo_opened = true;
        let mut todo: Vec<NodeId> =
            self.children(container).into_iter().filter(|c| self.nodes[c.at()].undo_waits == 0).collect();
        self.advance_undo(&mut todo);
    }

    /// Works through nodes whose dependents are all settled and whose container is open.
    fn advance_undo(&mut self, todo: &mut Vec<NodeId>) {
        while let Some(node) = todo.pop() {
            let is_action = matches!(self.kind(node), PlanKind::Action(_));
            if is_action && self.nodes[node.at()].undo == UndoStatus::Pending {
                self.nodes[node.at()].undo = UndoStatus::Ready;
                self.undo_ready.insert((Reverse(self.nodes[node.at()].start_seq), node));
                if let Some(rollback) = self.nodes[node.at()].rollback {
                    self.rollbacks[rollback as usize].live += 1;
                }
            } else if is_action || self.nodes[node.at()].undo_open == 0 {
                self.settle_undo(node, todo);
            } else if !self.nodes[node.at()].undo_opened {
                self.nodes[node.at()].undo_opened = true;
                todo.extend(self.children(node).into_iter().filter(|c| self.nodes[c.at()].undo_waits == 0));
            }
        }
    }

    fn settle_undo(&mut self, node: NodeId, todo: &mut Vec<NodeId>) {
        if std::mem::replace(&mut self.nodes[node.at()].undo_settled, true) {
            return;
        }
        let before: Vec<_> = self.needs(node).chain(self.earlier_instance(node)).collect();
        let parent = self.parent(node);
        for need in before {
            let n = &mut self.nodes[need.at()];
            n.undo_waits -= 1;
            if n.undo_waits == 0 && self.nodes[parent.at()].undo_opened {
                todo.push(need);
            }
        }
        let p = &mut self.nodes[parent.at()];
        p.undo_open -= 1;
        let of = self.rollback_of(node).map(|r| r.of);
        if self.nodes[parent.at()].undo_open == 0 && Some(parent) != of {
            todo.push(parent);
        }
    }

    /// An undo has ended well: lets what was before it be undone.
    pub(super) fn undo_ended(&mut self, node: NodeId) {
        let mut todo = Vec::new();
        self.settle_undo(node, &mut todo);
        self.advance_undo(&mut todo);
        self.undo_left(node, false);
    }

    /// An undo has failed for good: what was before it stays as it is.
    pub(super) fn undo_given_up(&mut self, node: NodeId) {
        self.undo_left(node, true);
    }

    fn undo_left(&mut self, node: NodeId, failed: bool) {
        let Some(index) = self.nodes[node.at()].rollback else { return };
        let rollback = &mut self.rollbacks[index as usize];
        rollback.live -= 1;
        rollback.failed |= failed;
        self.end_rollback_if_done(index);
    }

    fn end_rollback_if_done(&mut self, index: u16) {
        let rollback = &mut self.rollbacks[index as usize];
        if rollback.live > 0 || rollback.done {
            return;
        }
        rollback.done = true;
        let (of, reason, failed) = (rollback.of, rollback.reason, rollback.failed);
        self.stuck |= failed;
        if of != ROOT {
            self.leave(of);
            self.sweep(of);
            let n = &mut self.nodes[of.at()];
            n.status = Status::Failed;
            n.finished_at = Some(self.last_at);
            self.settle_forward(of);
            self.note_quiet(of);
            return;
        }
        self.sweep(ROOT);
        let cancelled = reason == RollbackReason::Cancelled && self.cancel == Some(CancelReason::Operator);
        let outcome = match (self.stuck, cancelled) {
            (true, _) => Outcome::Stuck,
            (false, true) => Outcome::Cancelled,
            (false, false) => Outcome::RolledBack,
        };
        if reason == RollbackReason::Operator {
            // A run that is taken back later has had its `finally`.
            self.finally_done = true;
        }
        self.end_with(outcome);
    }

    /// A stuck run is taken up again: what failed is tried once more.
    pub(super) fn retry_failed_undos(&mut self) {
        let failed: Vec<_> = self.ids().filter(|n| self.node(*n).undo == UndoStatus::Failed).collect();
        for node in failed {
            let Some(index) = self.nodes[node.at()].rollback else { continue };
            let n = &mut self.nodes[node.at()];
            n.undo = UndoStatus::Ready;
            n.undo_tries = 0;
            let key = (Reverse(n.start_seq), node);
            self.undo_ready.insert(key);
            let rollback = &mut self.rollbacks[index as usize];
            rollback.live += 1;
            rollback.failed = false;
            rollback.done = false;
        }
        self.stuck = false;
        self.phase = Phase::RollingBack;
        if self.undo_ready.is_empty() {
            self.end_with(Outcome::RolledBack);
        }
    }
}
