//! The state of one run: a fold over its events and nothing else. [`RunState::apply`] is the one place
//! that changes it.

mod apply;
mod forward;
mod legal;
mod locks;
mod node;
mod resume;
mod undo;
mod undo_locks;
mod view;

use std::cmp::Reverse;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::BuildHasherDefault;
use std::sync::Arc;

pub use apply::IllegalTransition;
pub use locks::InRunLocks;
pub use node::{Node, NodeId, Rare, Status, UndoStatus};
pub use undo::Fate;
pub use view::{RunStatus, StepView};

use crate::Json;
use crate::event::{CancelReason, Created, HoldReason, Item, OnFailure, Outcome, RollbackReason, StepPath};
use crate::plan::{FINALLY, MAIN, Plan, PlanKind, PlanStep, SegmentIdx, StepIdx};

/// The run as a whole, for what is under `steps`.
pub const ROOT: NodeId = NodeId(0);
/// The run as a whole, for what is under `finally`.
pub const FINAL: NodeId = NodeId(1);

/// What the run is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Recorded, not started.
    Created,
    Running,
    RollingBack,
    Finally,
    /// Everything has been done; only `RunFinished` is missing.
    Ending,
    Held(HoldReason),
    Finished(Outcome),
}

/// What somebody asked for, and the run is on its way to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    Rollback { by: String, force: bool },
    Hold,
}

/// One instance of a segment.
#[derive(Debug, Clone)]
pub struct Group {
    pub segment: SegmentIdx,
    /// Its first node; the others follow in plan order.
    pub base: NodeId,
    /// [`ROOT`], [`FINAL`], or the `for_each` node.
    pub owner: NodeId,
    pub item: Option<Arc<Item>>,
    pub index: u32,
}

/// A rollback of the run or of one block.
#[derive(Debug, Clone)]
pub struct Rollback {
    pub of: NodeId,
    pub reason: RollbackReason,
    pub force: bool,
    /// How the run ends when nothing of it is left.
    outcome: Outcome,
    /// Undos that are ready, running or backing off.
    live: u32,
    /// Nothing is left of it to do, or a rollback of the whole run has taken its place.
    done: bool,
    /// The locks of what is to be undone, and of the blocks around that.
    names: BTreeMap<NodeId, Arc<[String]>>,
}

impl Rollback {
    /// Nothing more of it happens, unless a stuck run is taken up again.
    pub fn is_over(&self) -> bool {
        self.done
    }
}

#[derive(Debug, Clone)]
pub struct RunState {
    pub plan: Arc<Plan>,
    pub created: Option<Arc<Created>>,
    pub phase: Phase,
    pub last_seq: u64,
    pub last_at: u64,
    pub created_at: u64,
    pub started_at: Option<u64>,
    /// When it was started or last taken up, or back: the run's `timeout` counts from here.
    pub going_since: u64,
    pub finished_at: Option<u64>,
    pub outputs: Option<Arc<Json>>,
    /// The outputs that could not be worked out and are null, and why.
    pub output_errors: BTreeMap<String, String>,
    /// Requested and not yet dealt with.
    pub cancel: Option<CancelReason>,
    /// The same for a rollback or a hold. It outlives the process that took it.
    pub wish: Option<Wish>,
    /// The run's own locks are taken.
    pub locked: bool,
    /// Names of all locks that the run has taken, to be taken again by the next process.
    pub locks: BTreeSet<String>,
    /// What `RunFinished` will say if nothing else happens.
    pub ending: Option<Outcome>,
    /// The first failure that was not absorbed.
    pub failure: Option<NodeId>,

    nodes: Vec<Node>,
    groups: Vec<Group>,
    paths: Paths,

    /// What may begin, as far as this run goes.
    ready: BTreeSet<NodeId>,
    in_run: locks::InRun,
    /// Attempts of actions that run, those that wait for an approval included.
    active: BTreeSet<NodeId>,
    /// Of these and of the undos that run, how many wait for a person.
    asking: u32,
    backoff: BTreeSet<(u64, NodeId)>,
    interrupted: BTreeSet<NodeId>,
    /// Halted failure domains in which nothing runs any more.
    quiet: BTreeSet<NodeId>,
    hold_wanted: bool,
    /// Attempts that a `fail_fast` wants stopped.
    to_stop: BTreeSet<NodeId>,

    rollbacks: Vec<Rollback>,
    undo_ready: BTreeSet<(Reverse<u64>, NodeId)>,
    undo_active: BTreeSet<NodeId>,
    undo_backoff: BTreeSet<(u64, NodeId)>,
    finally_done: bool,
    resumes: u32,
}

/// Hashed without a random seed, so that two folds of one journal are the same in every byte.
type Paths = HashMap<StepPath, NodeId, BuildHasherDefault<DefaultHasher>>;

impl RunState {
    pub fn new(plan: Arc<Plan>) -> Self {
        Self {
            plan,
            created: None,
            phase: Phase::Created,
            last_seq: 0,
            last_at: 0,
            created_at: 0,
            started_at: None,
            going_since: 0,
            finished_at: None,
            outputs: None,
            output_errors: BTreeMap::new(),
            cancel: None,
            wish: None,
            locked: false,
            locks: BTreeSet::new(),
            ending: None,
            failure: None,
            nodes: vec![Node::root(ROOT), Node::root(FINAL)],
            groups: Vec::new(),
            paths: Paths::default(),
            ready: BTreeSet::new(),
            in_run: locks::InRun::default(),
            active: BTreeSet::new(),
            asking: 0,
            backoff: BTreeSet::new(),
            interrupted: BTreeSet::new(),
            quiet: BTreeSet::new(),
            hold_wanted: false,
            to_stop: BTreeSet::new(),
            rollbacks: Vec::new(),
            undo_ready: BTreeSet::new(),
            undo_active: BTreeSet::new(),
            undo_backoff: BTreeSet::new(),
            finally_done: false,
            resumes: 0,
        }
    }

    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.at()]
    }

    pub fn group(&self, node: NodeId) -> &Group {
        &self.groups[self.node(node).group as usize]
    }

    pub fn find(&self, path: &str) -> Option<NodeId> {
        self.paths.get(path).copied()
    }

    /// All nodes apart from the two roots, in the order they came to be.
    pub fn ids(&self) -> impl Iterator<Item = NodeId> + use<> {
        (2..self.nodes.len() as u32).map(NodeId)
    }

    /// The plan's step behind a node that is not a root.
    pub fn step(&self, node: NodeId) -> &PlanStep {
        self.plan.step(self.node(node).step)
    }

    pub fn path(&self, node: NodeId) -> &StepPath {
        &self.node(node).path
    }

    pub fn is_root(node: NodeId) -> bool {
        node == ROOT || node == FINAL
    }

    /// The enclosing block, `for_each` or root. A root has itself.
    pub fn parent(&self, node: NodeId) -> NodeId {
        if Self::is_root(node) {
            return node;
        }
        let group = self.group(node);
        match self.step(node).parent {
            Some(parent) => self.sibling(node, parent),
            None => group.owner,
        }
    }

    /// From the parent to the root, inclusive.
    pub fn ancestors(&self, node: NodeId) -> Vec<NodeId> {
        let mut up = Vec::new();
        let mut at = node;
        while !Self::is_root(at) {
            at = self.parent(at);
            up.push(at);
        }
        up
    }

    /// The root that it is under: [`ROOT`] or [`FINAL`].
    pub fn root(&self, node: NodeId) -> NodeId {
        let mut at = node;
        while !Self::is_root(at) {
            at = self.group(at).owner;
        }
        at
    }

    /// Everything around it runs and what it needs is satisfied: what an earlier attempt did may be found out.
    pub fn is_open(&self, node: NodeId) -> bool {
        if self.node(node).waits > 0 {
            return false;
        }
        let mut at = node;
        while !Self::is_root(at) {
            at = self.parent(at);
            if self.node(at).status != Status::Running {
                return false;
            }
        }
        true
    }

    /// A `for_each` that has its instances: it is begun again with these.
    pub fn is_expanded(&self, node: NodeId) -> bool {
        self.node(node).instances.is_some()
    }

    /// The node of another step in the same instance of the segment.
    fn sibling(&self, node: NodeId, step: StepIdx) -> NodeId {
        let group = self.group(node);
        NodeId(group.base.0 + step.0 - self.plan.segment(group.segment).first.0)
    }

    /// The node that a reference to a plan step means, seen from a node: in its own instance, or further out.
    pub fn resolve(&self, from: NodeId, step: StepIdx) -> Option<NodeId> {
        let segment = self.plan.step(step).segment;
        let mut at = from;
        loop {
            if Self::is_root(at) {
                // From `finally`, or from the run's outputs: the steps of the run.
                let group = self.groups.iter().find(|g| g.segment == segment && Self::is_root(g.owner))?;
                return Some(NodeId(group.base.0 + step.0 - self.plan.segment(segment).first.0));
            }
            if self.group(at).segment == segment {
                return Some(self.sibling(at, step));
            }
            at = self.group(at).owner;
        }
    }

    pub fn needs(&self, node: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        self.plan.edges.needs(self.node(node).step).iter().map(move |s| self.sibling(node, *s))
    }

    pub fn dependents(&self, node: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        self.plan.edges.dependents(self.node(node).step).iter().map(move |s| self.sibling(node, *s))
    }

    /// Direct children of a root, block or `for_each`, in order.
    pub fn children(&self, node: NodeId) -> Vec<NodeId> {
        if Self::is_root(node) {
            let segment = if node == ROOT { MAIN } else { FINALLY };
            return match self.groups.iter().find(|g| g.owner == node) {
                Some(group) => {
                    let first = self.plan.segment(segment).first.0;
                    self.plan.children(segment, None).map(|s| NodeId(group.base.0 + s.0 - first)).collect()
                }
                None => Vec::new(),
            };
        }
        match &self.step(node).kind {
            PlanKind::Action(_) => Vec::new(),
            PlanKind::Block(_) => {
                let step = self.node(node).step;
                self.plan.children(self.plan.step(step).segment, Some(step)).map(|s| self.sibling(node, s)).collect()
            }
            PlanKind::ForEach(_) => self.instances(node).map(|g| self.groups[g].base).collect(),
        }
    }

    /// Indices into `groups` of a `for_each` node's instances.
    fn instances(&self, node: NodeId) -> std::ops::Range<usize> {
        self.node(node).instances.as_ref().map_or(0..0, |i| i.groups.clone())
    }

    /// What an item is called and is, for every `for_each` around a node, the innermost last.
    pub fn items(&self, node: NodeId) -> Vec<(&str, &Arc<Item>, u32)> {
        let mut items = Vec::new();
        let mut at = node;
        while !Self::is_root(at) {
            let group = self.group(at);
            if let (Some(item), Some(each)) = (&group.item, self.for_each(group.owner)) {
                items.push((each.as_name.as_str(), item, group.index));
            }
            at = group.owner;
        }
        items.reverse();
        items
    }

    fn kind(&self, node: NodeId) -> &PlanKind {
        &self.step(node).kind
    }

    pub fn inputs(&self) -> Option<&Json> {
        self.created.as_ref().map(|c| &c.inputs)
    }

    pub fn run_id(&self) -> &str {
        self.created.as_ref().map_or("", |c| &c.run)
    }

    /// What the run does on a failure that no block absorbs.
    pub fn on_failure(&self) -> OnFailure {
        self.created.as_ref().and_then(|c| c.options.on_failure).unwrap_or(self.plan.on_failure)
    }

    pub fn max_parallel(&self) -> u32 {
        let own = self.created.as_ref().and_then(|c| c.options.max_parallel);
        own.or(self.plan.max_parallel).unwrap_or(DEFAULT_PARALLEL).max(1)
    }

    pub fn ready(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.ready.iter().copied()
    }

    /// Attempts of actions that run or wait for an answer.
    pub fn active(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.active.iter().copied()
    }

    pub fn active_undos(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.undo_active.iter().copied()
    }

    /// Attempts that use a slot of `max_parallel`: one that waits for a person does not.
    pub fn busy(&self) -> u32 {
        self.active.len() as u32 + self.undo_active.len() as u32 - self.asking
    }

    pub fn backoffs(&self) -> impl Iterator<Item = (u64, NodeId)> + '_ {
        self.backoff.iter().copied()
    }

    /// The first end of a backoff after a time.
    pub fn next_backoff(&self, after: u64) -> Option<u64> {
        self.backoff.range((after + 1, NodeId(0))..).next().map(|(at, _)| *at)
    }

    pub fn next_undo_backoff(&self, after: u64) -> Option<u64> {
        self.undo_backoff.range((after + 1, NodeId(0))..).next().map(|(at, _)| *at)
    }

    pub fn undo_ready(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.undo_ready.iter().map(|(_, n)| *n)
    }

    pub fn undo_backoffs(&self) -> impl Iterator<Item = (u64, NodeId)> + '_ {
        self.undo_backoff.iter().copied()
    }

    pub fn interrupted(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.interrupted.iter().copied()
    }

    pub fn quiet(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.quiet.iter().copied()
    }

    pub fn to_stop(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.to_stop.iter().copied()
    }

    pub fn hold_wanted(&self) -> bool {
        self.hold_wanted
    }

    /// The rollback that a node's undo belongs to.
    pub fn rollback_of(&self, node: NodeId) -> Option<&Rollback> {
        self.rollbacks.get(self.node(node).rollback? as usize)
    }

    pub fn rollbacks(&self) -> &[Rollback] {
        &self.rollbacks
    }

    /// How often the run was taken up again.
    pub fn resumes(&self) -> u32 {
        self.resumes
    }

    /// A node must not start anything: it or something around it is halted.
    pub fn is_halted(&self, node: NodeId) -> bool {
        let mut at = node;
        loop {
            if self.node(at).halted {
                return true;
            }
            if Self::is_root(at) {
                return false;
            }
            at = self.parent(at);
        }
    }

    /// The nearest root or block around a node that deals with its failure.
    pub fn domain(&self, node: NodeId) -> NodeId {
        let mut at = self.parent(node);
        while !Self::is_root(at) && !self.step(at).is_failure_domain() {
            at = self.parent(at);
        }
        at
    }

    /// What a failure domain does with a failure.
    pub fn domain_policy(&self, domain: NodeId) -> OnFailure {
        if domain == FINAL {
            return OnFailure::Continue;
        }
        if domain == ROOT {
            return self.on_failure();
        }
        match self.step(domain).on_failure {
            // `finally` is never held.
            Some(OnFailure::Hold) if self.root(domain) == FINAL => OnFailure::Continue,
            Some(policy) => policy,
            None if self.on_failure() == OnFailure::Rollback => OnFailure::Rollback,
            None => OnFailure::Continue,
        }
    }

    /// No attempt of an action or of an undo runs.
    pub fn is_quiet(&self) -> bool {
        self.active.is_empty() && self.undo_active.is_empty()
    }

    /// A rollback of a block is under way: the run cannot be held before it is over.
    pub fn takes_a_block_back(&self) -> bool {
        self.rollbacks.iter().any(|r| !r.done && r.of != ROOT)
    }

    /// An undo failed for good: a person is needed. Looks at every step.
    fn is_stuck(&self) -> bool {
        self.nodes.iter().any(|n| n.undo == UndoStatus::Failed)
    }

    /// Counts by what they are, for reports.
    pub fn counts(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for id in self.ids().filter(|id| matches!(self.kind(*id), PlanKind::Action(_))) {
            *counts.entry(self.status_name(id)).or_default() += 1;
        }
        counts
    }
}

/// Attempts at once when neither the playbook nor the command line says.
pub const DEFAULT_PARALLEL: u32 = 8;
