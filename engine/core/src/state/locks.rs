//! Named locks among the steps of one run: who has a name from being ready to its end, and who waits for it. A block's
//! names are granted to what is inside it. Knows nothing of other runs: the store is asked for what is granted here.
//! Called by `apply` only.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use super::{NodeId, RunState, Status};
use crate::decide::lock_names;

/// A name, and the step of this run that has it.
type Taken = (String, NodeId);

#[derive(Debug, Clone, Default)]
pub(super) struct InRun {
    /// The names of what is ready or runs, worked out when it became ready. Sorted.
    names: BTreeMap<NodeId, Arc<[String]>>,
    /// All that have a name stand inside each other, the outermost first: a container comes before what is in it.
    has: BTreeMap<String, BTreeSet<NodeId>>,
    waits: BTreeMap<Taken, BTreeSet<NodeId>>,
    waits_for: BTreeMap<NodeId, Taken>,
    /// What would wait for something that waits for it.
    never: BTreeSet<NodeId>,
}

/// What a step's locks are at, among the steps of its run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InRunLocks {
    /// It has these, or has none.
    Has(Arc<[String]>),
    /// Another step has the name.
    Waits { name: String, holder: NodeId },
    /// Each would wait for the other.
    Never { name: String, holder: NodeId },
}

impl RunState {
    /// What a ready step's locks are at.
    pub fn locks_in_run(&self, node: NodeId) -> InRunLocks {
        match self.in_run.waits_for.get(&node).cloned() {
            Some((name, holder)) if self.in_run.never.contains(&node) => InRunLocks::Never { name, holder },
            Some((name, holder)) => InRunLocks::Waits { name, holder },
            None => InRunLocks::Has(self.in_run.names.get(&node).cloned().unwrap_or_default()),
        }
    }

    /// It is ready: it gets its locks, or waits for whoever has them. True = it may begin, as far as this run goes.
    pub(super) fn seek_locks(&mut self, node: NodeId) -> bool {
        if self.step(node).locks.is_empty() {
            return true;
        }
        if !self.in_run.names.contains_key(&node) {
            // What cannot be worked out fails the step when it is to begin.
            let Ok(names) = lock_names(self, node) else { return true };
            self.in_run.names.insert(node, names.into());
        }
        let Some(names) = self.in_run.names.get(&node).cloned() else { return true };
        let in_the_way = names.iter().find_map(|name| Some((name.clone(), self.holder_in_the_way(node, name)?)));
        let Some(taken) = in_the_way else {
            for name in names.iter() {
                self.in_run.has.entry(name.clone()).or_default().insert(node);
            }
            return true;
        };
        let never = self.waits_for_us(node, taken.1);
        self.in_run.waits_for.insert(node, taken.clone());
        if never {
            self.in_run.never.insert(node);
        } else {
            self.in_run.waits.entry(taken).or_default().insert(node);
        }
        never
    }

    /// Who has the name, is not taken back with the node, and does not stand around it.
    pub(super) fn runs_with(&self, node: NodeId, name: &str) -> Option<NodeId> {
        let holders = self.in_run.has.get(name)?;
        let around = self.ancestors(node);
        let apart = |n: NodeId| self.node(n).rollback.is_none() || self.node(n).rollback != self.node(node).rollback;
        holders.iter().copied().find(|holder| *holder != node && apart(*holder) && !around.contains(holder))
    }

    /// The outermost step that has the name, and stands neither around the node nor in it: what was interrupted inside keeps
    /// its names, and goes on only when what is around it does.
    fn holder_in_the_way(&self, node: NodeId, name: &str) -> Option<NodeId> {
        let holders = self.in_run.has.get(name)?;
        let around = self.ancestors(node);
        let apart = |holder: &NodeId| *holder != node && !around.contains(holder);
        holders.iter().copied().find(|holder| apart(holder) && !self.ancestors(*holder).contains(&node))
    }

    /// Whether a step that has a lock cannot end before something around the node does.
    fn waits_for_us(&self, node: NodeId, holder: NodeId) -> bool {
        let around: HashSet<NodeId> =
            self.ancestors(node).into_iter().filter(|up| self.in_run.names.contains_key(up)).collect();
        if around.is_empty() {
            return false;
        }
        let (mut todo, mut seen) = (vec![holder], HashSet::new());
        while let Some(at) = todo.pop() {
            if around.contains(&at) {
                return true;
            }
            if seen.insert(at) && self.step(at).action().is_none() {
                todo.extend(self.waited_for_inside(at));
            }
        }
        false
    }

    /// What has begun and has a lock that an undo waits for, and what that waits for in turn.
    pub(crate) fn awaited_by_undos(&self) -> HashSet<NodeId> {
        let mut todo: Vec<_> = self.undo_ready().filter_map(|n| Some(self.undo_waits_for(n)?.1)).collect();
        let mut awaited = HashSet::new();
        while let Some(at) = todo.pop() {
            if self.node(at).status != Status::Ready && awaited.insert(at) {
                todo.extend(self.waited_for_inside(at));
            }
        }
        awaited
    }

    /// Who has the locks that are waited for inside a block.
    fn waited_for_inside(&self, of: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        let inside = self.in_run.waits_for.iter().filter(move |(waiter, _)| self.ancestors(**waiter).contains(&of));
        inside.map(|(_, (_, holder))| *holder)
    }

    /// It is over, or does not begin after all: whoever waits for its locks gets them.
    pub(super) fn release_locks(&mut self, node: NodeId) {
        self.in_run.never.remove(&node);
        if let Some(taken) = self.in_run.waits_for.remove(&node)
            && let Some(waiting) = self.in_run.waits.get_mut(&taken)
        {
            waiting.remove(&node);
            if waiting.is_empty() {
                self.in_run.waits.remove(&taken);
            }
        }
        let Some(names) = self.in_run.names.remove(&node) else { return };
        for name in names.iter() {
            let Some(holders) = self.in_run.has.get_mut(name) else { continue };
            if !holders.remove(&node) {
                continue;
            }
            if holders.is_empty() {
                self.in_run.has.remove(name);
            }
            self.pass_on(name, node);
        }
    }

    /// Lets those go that waited for a step to give a name back, until one of them has it.
    fn pass_on(&mut self, name: &str, from: NodeId) {
        let mut waiting = self.in_run.waits.remove(&(name.to_owned(), from)).unwrap_or_default();
        while let Some(next) = waiting.pop_first() {
            self.in_run.waits_for.remove(&next);
            if self.seek_locks(next) {
                self.ready.insert(next);
            }
            // The others wait for whoever has it now.
            if let Some(holder) = waiting.first().and_then(|other| self.holder_in_the_way(*other, name)) {
                let taken = (name.to_owned(), holder);
                for other in &waiting {
                    self.in_run.waits_for.insert(*other, taken.clone());
                }
                self.in_run.waits.entry(taken).or_default().append(&mut waiting);
            }
        }
    }

    /// What is worked out anew from the statuses: what runs keeps its names, and what was interrupted and may be found out
    /// now; all else lets go, also what was taken back, or comes later once more. A block that had ended, and of whose two failures one was settled, goes on at once: with its names if they are free.
    pub(super) fn rebuild_locks(&mut self) {
        let InRun { names, .. } = std::mem::take(&mut self.in_run);
        let goes_on = |s: &Self, n: NodeId| match s.node(n).status {
            Status::Running => true,
            Status::Interrupted => s.is_open(n),
            _ => false,
        };
        for (node, names) in names {
            if goes_on(self, node) {
                for name in names.iter() {
                    self.in_run.has.entry(name.clone()).or_default().insert(node);
                }
                self.in_run.names.insert(node, names);
            }
        }
        for node in self.ids() {
            let lacks = !self.step(node).locks.is_empty() && !self.in_run.names.contains_key(&node);
            if lacks && goes_on(self, node) && !self.seek_locks(node) {
                self.release_locks(node);
            }
        }
    }

    /// Nothing inside a root or block goes on: what it still has there, it has for nothing.
    pub(super) fn release_locks_inside(&mut self, of: NodeId) {
        let with_names = self.in_run.names.keys().copied();
        for node in with_names.filter(|n| self.ancestors(*n).contains(&of)).collect::<Vec<_>>() {
            self.release_locks(node);
            self.ready.remove(&node);
        }
    }

    /// Ready steps that wait for a lock of another.
    pub(super) fn waiting_for_locks(&self) -> Vec<NodeId> {
        self.in_run.waits_for.keys().copied().collect()
    }
}
