//! Named locks among the undos of one run: what excluded each other on the way forward does so on the way back. A block
//! has its names from the first undo inside it to the last. Worked out from where each undo is, so that nothing has to be
//! kept or rebuilt. Knows nothing of other runs: a run has what it took until its end.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{NodeId, RunState, UndoStatus};
use crate::decide::lock_names;

/// Who has which name while one turn is decided.
#[derive(Debug)]
pub(crate) struct UndoLocks<'s> {
    state: &'s RunState,
    has: BTreeMap<String, Vec<NodeId>>,
}

impl RunState {
    /// The names of what a rollback is about. What cannot be worked out excludes nothing.
    pub(super) fn names_for_undo(&self, nodes: &[NodeId]) -> BTreeMap<NodeId, Arc<[String]>> {
        let locked = nodes.iter().filter(|n| !self.step(**n).locks.is_empty());
        locked.filter_map(|n| Some((*n, lock_names(self, *n).ok()?.into()))).collect()
    }

    /// The names that undos have at this moment.
    pub(crate) fn undo_locks(&self) -> UndoLocks<'_> {
        let mut locks = UndoLocks { state: self, has: BTreeMap::new() };
        for rollback in self.rollbacks.iter().filter(|r| !r.done) {
            for (node, names) in rollback.names.iter().filter(|(n, _)| self.is_being_undone(**n)) {
                locks.add(*node, names);
            }
        }
        locks
    }

    /// The lock that an undo waits for, and who has it: another undo, or a step that runs.
    pub fn undo_waits_for(&self, node: NodeId) -> Option<(String, NodeId)> {
        if self.node(node).undo != UndoStatus::Ready {
            return None;
        }
        self.undo_locks().in_the_way(node)
    }

    /// Every undo that could begin waits for a lock of something that has not ended.
    pub(super) fn ready_undos_wait(&self) -> bool {
        if self.undo_ready.is_empty() {
            return true;
        }
        let locks = self.undo_locks();
        !self.is_quiet() && self.undo_ready().all(|node| locks.in_the_way(node).is_some())
    }

    /// Its undo has begun, and goes on.
    fn is_being_undone(&self, node: NodeId) -> bool {
        let n = self.node(node);
        if self.step(node).action().is_some() {
            let waits_for_the_first = n.undo == UndoStatus::Ready && n.undo_tries == 0;
            return self.undo_is_live(node) && !waits_for_the_first;
        }
        let inside = self.subtree(node);
        let open = n.undo_opened && !n.undo_settled;
        open && inside.iter().any(|n| self.node(*n).undo_tries > 0) && inside.iter().any(|n| self.undo_is_live(*n))
    }
}

impl UndoLocks<'_> {
    fn add(&mut self, node: NodeId, names: &[String]) {
        for name in names {
            self.has.entry(name.clone()).or_default().push(node);
        }
    }

    /// Takes the names of an undo and of the blocks around it. False = something else has one of them.
    pub(crate) fn take(&mut self, node: NodeId) -> bool {
        let free = self.in_the_way(node).is_none();
        if free {
            for (of, names) in self.wanted(node) {
                self.add(of, &names);
            }
        }
        free
    }

    /// The names for an undo, and who is to have them.
    fn wanted(&self, node: NodeId) -> Vec<(NodeId, Arc<[String]>)> {
        let Some(rollback) = self.state.rollback_of(node).filter(|r| !r.names.is_empty()) else { return Vec::new() };
        let around = self.state.ancestors(node);
        std::iter::once(node).chain(around).filter_map(|n| Some((n, Arc::clone(rollback.names.get(&n)?)))).collect()
    }

    /// A name that an undo wants, and who has it.
    fn in_the_way(&self, node: NodeId) -> Option<(String, NodeId)> {
        let wanted = self.wanted(node);
        if wanted.is_empty() {
            return None;
        }
        let around = self.state.ancestors(node);
        // Of two that stand inside each other, the inner one has what the outer has.
        let apart = |of: NodeId, other: NodeId| {
            other != node && !around.contains(&other) && !self.state.ancestors(other).contains(&of)
        };
        wanted.iter().find_map(|(of, names)| {
            names.iter().find_map(|name| {
                let undone = self.has.get(name).into_iter().flatten().copied().find(|other| apart(*of, *other));
                undone.or_else(|| self.state.runs_with(*of, name)).map(|holder| (name.clone(), holder))
            })
        })
    }
}
