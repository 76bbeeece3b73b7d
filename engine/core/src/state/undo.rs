//! The way back: what is undone, in which order, and what stays. Called by `apply` only.

use std::cmp::Reverse;
use std::collections::HashSet;

use super::{FINAL, NodeId, Phase, ROOT, Rollback, RunState, Status, UndoStatus};
use crate::event::{CancelReason, Outcome, Resolution, RollbackReason};
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
    pub(super) fn subtree(&self, of: NodeId) -> Vec<NodeId> {
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

    /// A step that cannot be taken back, and is done, or may be: nobody knows how far an interrupted one came.
    pub fn is_passed_for_good(&self, node: NodeId) -> bool {
        let n = self.node(node);
        let may_be_done = n.status == Status::Interrupted && n.attempts > 0;
        self.step(node).irreversible && (n.status == Status::Succeeded || may_be_done)
    }

    /// What stays because a point of no return was passed: the irreversible steps that are done or may be, and all
    /// before them (what they need, at any distance, with all that is inside).
    pub fn behind_points_of_no_return(&self, of: NodeId) -> HashSet<NodeId> {
        let mut kept = HashSet::new();
        let mut todo: Vec<NodeId> = Vec::new();
        for node in self.subtree(of) {
            if self.is_passed_for_good(node) {
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
        // Since it was last taken back; also one whose failure somebody passed over.
        let started = n.start_seq > 0;
        if !started || matches!(n.undo, UndoStatus::Undone | UndoStatus::Kept) {
            return Fate::Nothing;
        }
        let reads = action.access == Access::Reads;
        if kept.contains(&node) {
            // A read has something to take back only where its author says what.
            let own = match &action.rollback {
                PlanRollback::Action { only_if_succeeded, .. } => !only_if_succeeded || n.status == Status::Succeeded,
                PlanRollback::None | PlanRollback::Auto => false,
            };
            return if reads && !own { Fate::Nothing } else { Fate::Keep };
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
            // Its author says that there is nothing to take back, and nothing says otherwise.
            PlanRollback::None if action.undo == UndoKind::None => Fate::Nothing,
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
        if of == ROOT {
            self.go_on_from_settled_undos(FINAL);
            self.supersede_rollbacks();
        }
        let cancelled = reason == RollbackReason::Cancelled && self.cancel == Some(CancelReason::Operator);
        let outcome = if cancelled { Outcome::Cancelled } else { Outcome::RolledBack };
        let nodes = self.subtree(of);
        let index = self.rollbacks.len() as u32;
        let names = self.names_for_undo(&nodes);
        self.rollbacks.push(Rollback { of, reason, force, outcome, live: 0, done: false, names });
        self.quiet.remove(&of);
        if of == ROOT {
            self.phase = Phase::RollingBack;
            self.halt(ROOT);
            let quiet = std::mem::take(&mut self.quiet);
            self.quiet = quiet.into_iter().filter(|n| self.root(*n) == FINAL).collect();
        } else {
            // While it is taken back, what is around it is not quiet.
            self.enter(of);
        }
        let kept = self.behind_points_of_no_return(of);
        for node in &nodes {
            let fate = self.fate(*node, &kept);
            let waits = self.dependents(*node).count() as u32 + self.later_instance(*node).map_or(0, |_| 1);
            self.quiet.remove(node);
            let n = &mut self.nodes[node.at()];
            n.rollback = Some(index);
            n.undo_waits = waits;
            n.undo_open = 0;
            n.undo_opened = false;
            n.undo_settled = false;
            n.undo_gave_way = false;
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

    /// A rollback of the run takes the place of those of its blocks, and of an earlier one.
    fn supersede_rollbacks(&mut self) {
        for index in 0..self.rollbacks.len() {
            let rollback = &mut self.rollbacks[index];
            let (of, over) = (rollback.of, rollback.done);
            if !over && self.root(of) == ROOT {
                self.rollbacks[index].done = true;
                self.rollbacks[index].live = 0;
                if of != ROOT {
                    self.leave(of);
                }
            }
        }
        let ready: Vec<_> = self.undo_ready.iter().copied().filter(|(_, n)| self.root(*n) == ROOT).collect();
        let waiting: Vec<_> = self.undo_backoff.iter().copied().filter(|(_, n)| self.root(*n) == ROOT).collect();
        for key in ready {
            self.undo_ready.remove(&key);
        }
        for key in waiting {
            self.undo_backoff.remove(&key);
        }
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
        let gave_way = self.nodes[node.at()].undo_gave_way;
        let earlier = self.earlier_instance(node).filter(|_| !gave_way);
        let before: Vec<_> = self.needs(node).chain(earlier).collect();
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
        self.undo_left(node);
    }

    /// Somebody settled what an undo that failed counts as: what was before it may be undone.
    pub(super) fn resolve_undo(&mut self, node: NodeId, resolution: Resolution, by: Option<&str>) {
        let lives = self.undo_is_live(node);
        let n = &mut self.nodes[node.at()];
        self.undo_ready.remove(&(Reverse(n.start_seq), node));
        self.undo_backoff.remove(&(n.undo_until, node));
        n.undo = if resolution == Resolution::Undone { UndoStatus::Undone } else { UndoStatus::Kept };
        n.forget_undo();
        n.rare_mut().undo_settled_by = by.map(str::to_owned);
        if lives {
            self.undo_ended(node);
            return;
        }
        // It failed in a rollback that goes on without it; one that is over goes on when the run is taken up.
        let Some(index) = n.rollback.filter(|r| !self.rollbacks[*r as usize].done) else { return };
        let mut todo = Vec::new();
        self.settle_undo(node, &mut todo);
        self.advance_undo(&mut todo);
        self.end_rollback_if_done(index);
    }

    /// An undo has failed for good: what was before it stays as it is.
    pub(super) fn undo_given_up(&mut self, node: NodeId) {
        self.undo_left(node);
    }

    fn undo_left(&mut self, node: NodeId) {
        let Some(index) = self.nodes[node.at()].rollback else { return };
        self.rollbacks[index as usize].live -= 1;
        self.give_way(node);
        self.end_rollback_if_done(index);
    }

    /// Instances are independent of each other: one that is stuck leaves its place to an earlier one.
    fn give_way(&mut self, node: NodeId) {
        let mut todo = Vec::new();
        let of = self.rollback_of(node).map_or(ROOT, |r| r.of);
        let inside = std::iter::once(node).chain(self.ancestors(node)).take_while(|at| *at != of);
        for at in inside.collect::<Vec<_>>() {
            if self.nodes[at.at()].undo_settled || self.nodes[at.at()].undo_gave_way {
                continue;
            }
            let Some(earlier) = self.earlier_instance(at) else { continue };
            if self.undo_is_live(at) || self.subtree(at).into_iter().any(|n| self.undo_is_live(n)) {
                continue;
            }
            self.nodes[at.at()].undo_gave_way = true;
            let parent = self.parent(at);
            let n = &mut self.nodes[earlier.at()];
            n.undo_waits -= 1;
            if n.undo_waits == 0 && self.nodes[parent.at()].undo_opened {
                todo.push(earlier);
                // Before the next one outwards is looked at: something inside it goes on now.
                self.advance_undo(&mut todo);
            }
        }
    }

    /// Of the instances around it, no more are taken back at once than their `for_each` lets go at once. Those that begin in
    /// the same turn count. One that was stuck left its place to an earlier one, and may go on while that is taken back.
    pub(crate) fn has_place_for_undo(&self, node: NodeId, beginning: &[NodeId]) -> bool {
        self.instances_around(node).all(|(each, instance, limit)| {
            let under_way = self.undo_active.iter().chain(beginning).filter_map(|other| {
                self.instances_around(*other)
                    .find_map(|(of, other, _)| (of == each && other != instance).then_some(other))
            });
            under_way.collect::<HashSet<_>>().len() < limit as usize
        })
    }

    /// The instances that a node stands in, whose `for_each` has a limit: the `for_each`, the instance, and the limit.
    fn instances_around(&self, node: NodeId) -> impl Iterator<Item = (NodeId, NodeId, u32)> + '_ {
        std::iter::once(node).chain(self.ancestors(node)).filter(|at| !Self::is_root(*at)).filter_map(|at| {
            let group = self.group(at);
            let limit = self.for_each(group.owner)?.max_parallel?;
            (group.base == at).then_some((group.owner, at, limit))
        })
    }

    /// Its undo is ready, runs, or comes again.
    pub(super) fn undo_is_live(&self, node: NodeId) -> bool {
        matches!(self.node(node).undo, UndoStatus::Ready | UndoStatus::Undoing | UndoStatus::Backoff)
    }

    /// A rollback of the block is under way.
    pub(super) fn is_taken_back_now(&self, block: NodeId) -> bool {
        self.rollbacks.iter().any(|r| !r.done && r.of == block)
    }

    fn end_rollback_if_done(&mut self, index: u32) {
        let rollback = &mut self.rollbacks[index as usize];
        if rollback.live > 0 || rollback.done {
            return;
        }
        rollback.done = true;
        let of = rollback.of;
        if of != ROOT && self.nodes[of.at()].status == Status::Running {
            self.leave(of);
            self.sweep(of);
            self.release_locks_inside(of);
            let status = self.failure_of(of);
            let n = &mut self.nodes[of.at()];
            n.status = status;
            n.taken_back = true;
            n.finished_at = Some(self.last_at);
            self.settle_forward(of);
            self.note_quiet(of);
            return;
        }
        // A block of a `finally` that is still to go on may take its time.
        let later = |r: &Rollback| self.root(r.of) == FINAL && !self.finally_done;
        if self.phase == Phase::RollingBack && self.rollbacks.iter().all(|r| r.done || later(r)) {
            let outcome = self.way_back();
            self.end_with(outcome);
        }
    }

    /// How the way back ended.
    fn way_back(&mut self) -> Outcome {
        let whole = self.rollbacks.iter().rev().find(|r| r.of == ROOT).map(|r| r.outcome);
        let Some(outcome) = whole else {
            // Only blocks were taken back, and an undo that had failed was tried again. What a cancel kept from running
            // has not failed, and is not done.
            let left = self.children(ROOT).into_iter().any(|n| !self.is_satisfied(n));
            let failed = (left || self.nodes[FINAL.at()].child_failed) && !self.is_stuck();
            return if failed { Outcome::Failed } else { self.way_forward() };
        };
        self.sweep(ROOT);
        if self.is_stuck() { Outcome::Stuck } else { outcome }
    }

    /// What waited for undos that failed, and that a person settled when the rollback was over, may be undone.
    fn go_on_from_settled_undos(&mut self, under: NodeId) {
        let by_hand = |n: &super::Node| n.rare.as_ref().is_some_and(|rare| rare.undo_settled_by.is_some());
        let is_new = |n: &super::Node| !n.undo_settled && !matches!(n.undo, UndoStatus::Pending | UndoStatus::Failed);
        let settled = self.ids().filter(|n| by_hand(self.node(*n)) && is_new(self.node(*n)));
        for node in settled.filter(|n| self.root(*n) == under).collect::<Vec<_>>() {
            let Some(index) = self.nodes[node.at()].rollback else { continue };
            let mut todo = Vec::new();
            self.take_locks_of_block(index);
            self.settle_undo(node, &mut todo);
            self.advance_undo(&mut todo);
            let rollback = &mut self.rollbacks[index as usize];
            rollback.done &= rollback.live == 0;
        }
    }

    /// A block that was taken back while it ran had its locks. What is left of it is undone with them again.
    fn take_locks_of_block(&mut self, index: u32) {
        let of = self.rollbacks[index as usize].of;
        if of != ROOT {
            let names = self.names_for_undo(&[of]);
            self.rollbacks[index as usize].names.extend(names);
        }
    }

    /// A stuck run is taken up again: what failed is tried once more, also where a `for_each` lets fewer instances
    /// go at once.
    pub(super) fn retry_failed_undos(&mut self) {
        self.phase = Phase::RollingBack;
        self.go_on_from_settled_undos(ROOT);
        self.go_on_from_settled_undos(FINAL);
        let failed: Vec<_> = self.ids().filter(|n| self.node(*n).undo == UndoStatus::Failed).collect();
        for node in failed {
            let Some(index) = self.nodes[node.at()].rollback else { continue };
            self.take_locks_of_block(index);
            let n = &mut self.nodes[node.at()];
            n.undo = UndoStatus::Ready;
            n.undo_tries = 0;
            let key = (Reverse(n.start_seq), node);
            self.undo_ready.insert(key);
            let rollback = &mut self.rollbacks[index as usize];
            rollback.live += 1;
            rollback.done = false;
        }
        if self.undo_ready.is_empty() {
            let outcome = self.way_back();
            self.end_with(outcome);
        }
    }
}
