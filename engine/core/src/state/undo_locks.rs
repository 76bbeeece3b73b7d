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

    /// Its undo has begun, and goes on.
    fn is_being_undone(&self, node: NodeId) -> bool {
        let goes_on = |n: NodeId| {
            let undo = self.node(n).undo;
            let again = undo == UndoStatus::Ready && self.node(n).undo_tries > 0;
            again || matches!(undo, UndoStatus::Undoing | UndoStatus::Backoff)
        };
        if self.step(node).action().is_some() {
            return goes_on(node);
        }
        let inside = self.subtree(node);
        let live = |n: &NodeId| goes_on(*n) || self.node(*n).undo == UndoStatus::Ready;
        let n = self.node(node);
        let open = n.undo_opened && !n.undo_settled;
        open && inside.iter().any(|n| self.node(*n).undo_tries > 0) && inside.iter().any(live)
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
        let Some(rollback) = self.state.rollback_of(node).filter(|r| !r.names.is_empty()) else { return true };
        let around = self.state.ancestors(node);
        let chain = || std::iter::once(node).chain(around.iter().copied());
        let wanted: Vec<_> = chain().filter_map(|n| Some((n, rollback.names.get(&n)?))).collect();
        for (of, names) in &wanted {
            let others = names.iter().filter_map(|name| self.has.get(name)).flatten();
            // Of two that stand inside each other, the inner one has what the outer has.
            let clash = |other: NodeId| !chain().any(|n| n == other) && !self.state.ancestors(other).contains(of);
            if others.copied().any(clash) || names.iter().any(|name| self.state.runs_with(*of, name)) {
                return false;
            }
        }
        for (of, names) in wanted {
            self.add(of, names);
        }
        true
    }
}
