//! How the end of one step moves the others: readiness, blocks, failure domains. Called by `apply` only.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::{FINAL, Group, Node, NodeId, Phase, ROOT, RunState, Status, Wish};
use crate::event::{Item, OnFailure, Outcome};
use crate::plan::{FINALLY, MAIN, PlanForEach, PlanKind, SegmentIdx};
use crate::playbook::model::Exhausted;

impl RunState {
    /// Makes the nodes of a segment, all blocked. Returns the group's index.
    pub(super) fn instantiate(&mut self, segment: SegmentIdx, owner: NodeId, item: Option<Item>, index: u32) -> usize {
        let plan = Arc::clone(&self.plan);
        let base = NodeId(self.nodes.len() as u32);
        let group = self.groups.len() as u32;
        let range = plan.segment(segment).range();
        self.nodes.reserve(range.len());
        for idx in range.clone() {
            let step = &plan.steps[idx as usize];
            let path = match (step.parent, &item) {
                (Some(parent), _) => {
                    let parent = base.0 + parent.0 - range.start;
                    format!("{}/{}", self.nodes[parent as usize].path, step.id).into()
                }
                (None, Some(item)) => format!("{}[{}]", self.path(owner), item.key).into(),
                (None, None) => Arc::clone(&step.id),
            };
            let id = NodeId(self.nodes.len() as u32);
            let waits = plan.edges.needs(crate::plan::StepIdx(idx)).len() as u32;
            self.paths.insert(Arc::clone(&path), id);
            self.nodes.push(Node::new(crate::plan::StepIdx(idx), group, path, waits));
            let parent = step.parent.map_or(owner, |p| NodeId(base.0 + p.0 - range.start));
            self.nodes[parent.at()].open += 1;
        }
        self.groups.push(Group { segment, base, owner, item: item.map(Arc::new), index });
        group as usize
    }

    pub(super) fn start_run(&mut self) {
        self.instantiate(MAIN, ROOT, None, 0);
        self.instantiate(FINALLY, FINAL, None, 0);
        self.phase = Phase::Running;
        self.open_container(ROOT);
        self.complete_if_done(ROOT);
    }

    /// Lets the children of a root or block start that wait for nothing.
    pub(super) fn open_container(&mut self, node: NodeId) {
        for child in self.children(node) {
            if self.nodes[child.at()].waits == 0 {
                self.make_ready(child);
            }
        }
    }

    pub(super) fn make_ready(&mut self, node: NodeId) {
        let n = &self.nodes[node.at()];
        if n.status == Status::Blocked && !n.dead && !self.is_called_off(node) {
            self.nodes[node.at()].status = Status::Ready;
            if self.seek_locks(node) {
                self.ready.insert(node);
            }
        }
    }

    /// Opens instances of a `for_each` up to its `max_parallel`.
    pub(super) fn open_instances(&mut self, each: NodeId) {
        let limit = self.for_each(each).and_then(|spec| spec.max_parallel).unwrap_or(u32::MAX);
        let Some(mut instances) = self.nodes[each.at()].instances.take() else { return };
        while instances.next < instances.groups.end && instances.in_progress < limit {
            let root = self.groups[instances.next].base;
            instances.next += 1;
            if self.nodes[root.at()].status == Status::Blocked && !self.nodes[root.at()].dead {
                self.make_ready(root);
                instances.in_progress += u32::from(self.nodes[root.at()].status == Status::Ready);
            }
        }
        self.nodes[each.at()].instances = Some(instances);
    }

    pub(super) fn enter(&mut self, node: NodeId) {
        for up in self.ancestors(node) {
            self.nodes[up.at()].inside += 1;
        }
    }

    /// The counterpart of [`RunState::enter`]; after it, halted domains may have become quiet.
    pub(super) fn leave(&mut self, node: NodeId) {
        for up in self.ancestors(node) {
            self.nodes[up.at()].inside -= 1;
        }
    }

    pub(super) fn note_quiet(&mut self, node: NodeId) {
        for up in self.ancestors(node) {
            let n = &self.nodes[up.at()];
            if n.halted && n.inside == 0 && n.status == Status::Running {
                self.quiet.insert(up);
            }
        }
    }

    /// Its status has just become terminal: lets the others know.
    pub(super) fn settle_forward(&mut self, node: NodeId) {
        let n = &self.nodes[node.at()];
        let satisfied = match n.status {
            Status::Succeeded | Status::Skipped => true,
            Status::Failed | Status::Cancelled => self.step(node).continue_on_error && n.status == Status::Failed,
            _ => return,
        };
        self.release_locks(node);
        let parent = self.parent(node);
        if let Some(instances) = &mut self.nodes[parent.at()].instances {
            instances.in_progress = instances.in_progress.saturating_sub(1);
        }
        if satisfied {
            let dependents: Vec<_> = self.dependents(node).collect();
            for dependent in dependents {
                let d = &mut self.nodes[dependent.at()];
                d.waits -= 1;
                if d.waits == 0 {
                    self.make_ready(dependent);
                }
            }
            self.nodes[parent.at()].open -= 1;
        } else {
            self.propagate_failure(node, parent);
        }
        if self.nodes[parent.at()].instances.is_some() {
            self.open_instances(parent);
        }
        self.complete_if_done(parent);
    }

    pub(super) fn propagate_failure(&mut self, node: NodeId, parent: NodeId) {
        self.kill_dependents(node);
        self.nodes[parent.at()].open -= 1;
        self.nodes[parent.at()].child_failed = true;
        if self.nodes[node.at()].status != Status::Cancelled {
            self.halt_for(node);
        }
        // After that: it may end blocks, and with them the run.
        if self.for_each(parent).is_some_and(|each| each.fail_fast) && !self.nodes[parent.at()].failed_fast {
            self.nodes[parent.at()].failed_fast = true;
            self.stop_inside(parent);
            self.abandon(parent);
        }
    }

    /// What a failure does to all that is around it.
    fn halt_for(&mut self, node: NodeId) {
        // A resume goes through all failures again: those inside a block that is or was taken back are dealt with.
        let around = self.ancestors(node);
        if around.into_iter().any(|up| up != ROOT && (self.node(up).taken_back || self.is_taken_back_now(up))) {
            return;
        }
        let domain = self.domain(node);
        if domain == ROOT && self.failure.is_none() {
            self.failure = Some(node);
        }
        let step = self.step(node);
        let exhausted = step.action().is_some() && step.policy.retry.on_exhausted == Exhausted::Hold;
        let policy = self.domain_policy(domain);
        let holds = exhausted || (domain != ROOT && policy == OnFailure::Hold);
        if holds && self.root(node) == ROOT {
            // What holds, holds the whole run, however deep it stands.
            self.hold_wanted = true;
            self.halt(ROOT);
        } else if policy != OnFailure::Continue {
            self.halt(domain);
        }
        if domain == ROOT && self.plan.fail_fast && self.nodes[ROOT.at()].halted {
            self.stop_inside(ROOT);
        }
    }

    pub(super) fn for_each(&self, node: NodeId) -> Option<&PlanForEach> {
        if Self::is_root(node) {
            return None;
        }
        match self.kind(node) {
            PlanKind::ForEach(each) => Some(each),
            _ => None,
        }
    }

    /// Everything that needs a failed step, at any distance, can never start.
    fn kill_dependents(&mut self, node: NodeId) {
        let mut todo: Vec<_> = self.dependents(node).collect();
        while let Some(next) = todo.pop() {
            if !self.nodes[next.at()].dead && self.nodes[next.at()].status == Status::Blocked {
                self.nodes[next.at()].dead = true;
                let parent = self.parent(next);
                self.nodes[parent.at()].open -= 1;
                todo.extend(self.dependents(next));
            }
        }
    }

    /// `fail_fast` of a `for_each`: what has not begun inside never will, and nothing is tried again.
    fn abandon(&mut self, container: NodeId) {
        for child in self.children(container) {
            let is_action = matches!(self.kind(child), PlanKind::Action(_));
            let n = &mut self.nodes[child.at()];
            match n.status {
                Status::Blocked | Status::Ready if !n.dead => {
                    n.status = Status::Blocked;
                    n.dead = true;
                    self.ready.remove(&child);
                    self.release_locks(child);
                    self.nodes[container.at()].open -= 1;
                    self.nodes[container.at()].child_failed = true;
                }
                Status::Backoff => {
                    self.backoff.remove(&(n.until, child));
                    self.call_off(child);
                }
                Status::Running if !is_action => {
                    self.abandon(child);
                    self.complete_if_done(child);
                }
                _ => {}
            }
        }
    }

    /// Something around it ends, so that nothing inside may start.
    pub(super) fn is_called_off(&self, node: NodeId) -> bool {
        let mut at = node;
        loop {
            let n = self.node(at);
            if n.halted || n.failed_fast {
                return true;
            }
            if Self::is_root(at) {
                return false;
            }
            at = self.parent(at);
        }
    }

    /// It would be tried again, and all around it ends.
    pub(super) fn call_off(&mut self, node: NodeId) {
        let parent = self.parent(node);
        let n = &mut self.nodes[node.at()];
        n.status = Status::Cancelled;
        n.called_off = true;
        n.finished_at = Some(self.last_at);
        self.nodes[parent.at()].child_failed = true;
        self.release_locks(node);
        // What is halted waits for its rollback or for a resume as it is; what failed fast comes to an end.
        if !self.is_halted(node) {
            self.nodes[parent.at()].open -= 1;
            self.kill_dependents(node);
            self.complete_if_done(parent);
        }
    }

    fn stop_inside(&mut self, container: NodeId) {
        let inside: Vec<_> = self.active.iter().copied().filter(|n| self.ancestors(*n).contains(&container)).collect();
        self.to_stop.extend(inside);
    }

    /// Nothing inside starts any more; what runs may finish.
    pub(super) fn halt(&mut self, domain: NodeId) {
        let n = &self.nodes[domain.at()];
        // One that has ended already (its failure counts outside by now) has nothing left to halt.
        if n.halted || n.status != Status::Running {
            return;
        }
        self.nodes[domain.at()].halted = true;
        let inside = |s: &Self, n: NodeId| domain == n || s.ancestors(n).contains(&domain);
        let ready = self.ready.iter().copied().chain(self.waiting_for_locks());
        let unready: BTreeSet<_> = ready.filter(|n| inside(self, *n)).collect();
        for node in &unready {
            self.nodes[node.at()].status = Status::Blocked;
        }
        for node in unready {
            self.release_locks(node);
            self.ready.remove(&node);
        }
        let waiting: Vec<_> = self.backoff.iter().copied().filter(|(_, n)| inside(self, *n)).collect();
        for (until, node) in waiting {
            self.backoff.remove(&(until, node));
            self.call_off(node);
        }
        if self.nodes[domain.at()].inside == 0 {
            self.quiet.insert(domain);
        }
    }

    /// A root, block or `for_each` of which nothing is left to run has ended.
    pub(super) fn complete_if_done(&mut self, node: NodeId) {
        let n = &self.nodes[node.at()];
        if n.open > 0 || n.inside > 0 || n.halted || n.status != Status::Running {
            return;
        }
        let failed = n.child_failed;
        if node == ROOT {
            if self.phase == Phase::Running {
                self.end_with(self.way_forward());
            }
            return;
        }
        if node == FINAL {
            if self.phase != Phase::Finally {
                return;
            }
            if self.is_stuck() {
                self.ending = Some(Outcome::Stuck);
            } else if failed && self.ending == Some(Outcome::Succeeded) {
                self.ending = Some(Outcome::Failed);
            }
            self.finally_done = true;
            self.phase = Phase::Ending;
            return;
        }
        if failed && self.step(node).is_failure_domain() {
            match self.domain_policy(node) {
                OnFailure::Rollback => return self.halt(node),
                // What was stopped because the whole ends asks for nothing of its own.
                OnFailure::Hold if self.is_halted(node) => return,
                OnFailure::Hold => {
                    self.hold_wanted = true;
                    return self.halt(ROOT);
                }
                OnFailure::Continue => {}
            }
        }
        self.nodes[node.at()].status = if failed { self.failure_of(node) } else { Status::Succeeded };
        self.nodes[node.at()].finished_at = Some(self.last_at);
        self.settle_forward(node);
    }

    /// What a container is whose inside did not succeed: where `fail_fast` around it cut it short, or it may fail and all
    /// that was not done in it was only stopped, it has not had its chance, and that counts as no success even with
    /// `continue_on_error`.
    pub(super) fn failure_of(&self, container: NodeId) -> Status {
        let cut_short = self.ancestors(container).into_iter().any(|up| self.node(up).failed_fast);
        let only_stopped = || self.step(container).continue_on_error && !self.has_failed_by_itself(container);
        if cut_short || only_stopped() { Status::Cancelled } else { Status::Failed }
    }

    /// It failed where it is an action, else something in it that nothing in it absorbed, or else its own beginning.
    fn has_failed_by_itself(&self, node: NodeId) -> bool {
        let mut inside = self.children(node).into_iter().filter(|n| match self.node(*n).status {
            Status::Failed => !self.step(*n).continue_on_error,
            status => status == Status::Cancelled,
        });
        match inside.next() {
            None => self.node(node).status == Status::Failed,
            Some(first) => std::iter::once(first).chain(inside).any(|n| self.has_failed_by_itself(n)),
        }
    }

    /// How the way forward ended.
    pub(super) fn way_forward(&self) -> Outcome {
        match self.nodes[ROOT.at()].child_failed {
            _ if self.is_stuck() => Outcome::Stuck,
            true => Outcome::Failed,
            false => Outcome::Succeeded,
        }
    }

    /// The way forward or back is over: `finally` comes next, or the end.
    pub(super) fn end_with(&mut self, outcome: Outcome) {
        self.ending = Some(outcome);
        self.cancel = None;
        // There is nothing left to hold.
        self.wish = self.wish.take().filter(|wish| *wish != Wish::Hold);
        let has_finally = self.plan.segment(FINALLY).len > 0;
        if has_finally && !self.finally_done {
            self.release_locks_inside(ROOT);
            self.phase = Phase::Finally;
            self.open_container(FINAL);
            self.complete_if_done(FINAL);
        } else {
            self.phase = Phase::Ending;
        }
    }

    /// Dependents may go on.
    pub fn is_satisfied(&self, node: NodeId) -> bool {
        match self.node(node).status {
            Status::Succeeded | Status::Skipped => true,
            Status::Failed => self.step(node).continue_on_error,
            _ => false,
        }
    }

    /// Containers that were cut short by a halt get a status that says so.
    pub(super) fn sweep(&mut self, container: NodeId) {
        let mut seen = HashSet::new();
        let mut todo = self.children(container);
        while let Some(node) = todo.pop() {
            if seen.insert(node) && self.nodes[node.at()].status == Status::Running && !self.active.contains(&node) {
                todo.extend(self.children(node));
                // Cut short, it counts as no success even with `continue_on_error`.
                let absorbs = self.step(node).continue_on_error;
                let n = &mut self.nodes[node.at()];
                n.status = if n.child_failed && !absorbs { Status::Failed } else { Status::Cancelled };
                n.finished_at = Some(self.last_at);
                self.release_locks(node);
            }
        }
    }
}
