//! The steps of a run as the events tell of them, and what follows from that.

use std::collections::{BTreeMap, BTreeSet};

use super::super::catalog::TYPES;
use super::super::spec::{Custom, Kind, Policy, Spec, Step, When};
use runback_core::step::{Access, UndoKind};

/// What was last seen of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Fresh,
    Active,
    Backoff(u64),
    /// Its next try was called off because everything around it is halted.
    Cut,
    /// Its next try was called off because another instance failed fast.
    Dropped,
    Interrupted,
    Succeeded,
    Failed,
    Cancelled,
    Skipped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Undo {
    None,
    Active,
    Backoff,
    Done,
    Failed,
}

/// What follows for any step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sum {
    Fresh,
    Live,
    Good,
    Bad,
    Skipped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Root,
    Plain,
    Each,
    Instance,
}

#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Debug, Clone)]
pub(super) struct Node<'s> {
    pub(super) path: String,
    pub(super) step: Option<&'s Step>,
    pub(super) role: Role,
    pub(super) up: usize,
    pub(super) needs: Vec<usize>,
    pub(super) kids: Vec<usize>,
    pub(super) act: Act,
    /// Of a container: its inside may start.
    pub(super) begun: bool,
    pub(super) attempts: u32,
    /// Since it was last taken back.
    pub(super) started: bool,
    pub(super) armed: bool,
    pub(super) changed: bool,
    pub(super) asking: bool,
    pub(super) undo: Undo,
    pub(super) kept: bool,
    pub(super) halted: bool,
    pub(super) failed_fast: bool,
    pub(super) escalated: bool,
    /// Of a container: its own rollback has come.
    pub(super) rolling: bool,
    pub(super) rolled: bool,
    /// Of a container: it was under way when something around it failed fast.
    pub(super) cut_short: bool,
}

impl<'s> Node<'s> {
    fn new(path: String, step: Option<&'s Step>, role: Role, up: usize) -> Self {
        Self {
            path,
            step,
            role,
            up,
            needs: Vec::new(),
            kids: Vec::new(),
            act: Act::Fresh,
            begun: role == Role::Root,
            attempts: 0,
            started: false,
            armed: false,
            changed: false,
            asking: false,
            undo: Undo::None,
            kept: false,
            halted: false,
            failed_fast: false,
            escalated: false,
            rolling: false,
            rolled: false,
            cut_short: false,
        }
    }
}

pub(super) const MAIN: usize = 0;
pub(super) const FINAL: usize = 1;

pub(super) struct Tree<'s> {
    pub(super) spec: &'s Spec,
    pub(super) nodes: Vec<Node<'s>>,
    pub(super) by_path: BTreeMap<String, usize>,
}

impl<'s> Tree<'s> {
    pub(super) fn new(spec: &'s Spec) -> Self {
        let root = |up| Node::new(String::new(), None, Role::Root, up);
        let mut tree = Self { spec, nodes: vec![root(MAIN), root(FINAL)], by_path: BTreeMap::new() };
        tree.list(&spec.steps, MAIN);
        tree.list(&spec.finally, FINAL);
        tree
    }

    fn list(&mut self, steps: &'s [Step], up: usize) {
        let mut ids = BTreeMap::new();
        for step in steps {
            let path = match self.nodes[up].role {
                Role::Root => step.id.clone(),
                _ => format!("{}/{}", self.nodes[up].path, step.id),
            };
            let role = if step.each.is_some() { Role::Each } else { Role::Plain };
            let at = self.add(path, step, role, up);
            self.nodes[at].needs = step.needs.iter().map(|need| ids[need.as_str()]).collect();
            ids.insert(step.id.as_str(), at);
        }
    }

    fn add(&mut self, path: String, step: &'s Step, role: Role, up: usize) -> usize {
        let at = self.nodes.len();
        self.by_path.insert(path.clone(), at);
        self.nodes.push(Node::new(path, Some(step), role, up));
        self.nodes[up].kids.push(at);
        if role != Role::Each
            && let Kind::Block { steps, .. } = &step.kind
        {
            self.list(steps, at);
        }
        at
    }

    pub(super) fn expand(&mut self, each: usize, keys: &[&str]) {
        let Some(step) = self.nodes[each].step else { return };
        for key in keys {
            let path = format!("{}[{key}]", self.nodes[each].path);
            self.add(path, step, Role::Instance, each);
        }
    }

    pub(super) fn is_action(&self, n: usize) -> bool {
        let node = &self.nodes[n];
        matches!(node.role, Role::Plain | Role::Instance)
            && node.step.is_some_and(|s| matches!(s.kind, Kind::Action { .. }))
    }

    fn own<T>(&self, n: usize, of: impl Fn(&Step) -> T, none: T) -> T {
        match (self.nodes[n].role, self.nodes[n].step) {
            (Role::Plain | Role::Instance, Some(step)) => of(step),
            _ => none,
        }
    }

    pub(super) fn absorbs(&self, n: usize) -> bool {
        self.own(n, |s| s.continue_on_error, false)
    }

    pub(super) fn irreversible(&self, n: usize) -> bool {
        self.own(n, |s| s.irreversible, false)
    }

    pub(super) fn holds(&self, n: usize) -> bool {
        self.is_action(n) && self.own(n, |s| s.hold, false) && self.root(n) == MAIN
    }

    pub(super) fn lock(&self, n: usize) -> Option<u8> {
        self.own(n, |s| s.lock, None)
    }

    pub(super) fn when(&self, n: usize) -> When {
        match (self.nodes[n].role, self.nodes[n].step) {
            (Role::Plain | Role::Each, Some(step)) => step.when,
            _ => When::Always,
        }
    }

    pub(super) fn is_domain(&self, n: usize) -> bool {
        let own = |s: &Step| match &s.kind {
            Kind::Block { on_failure, .. } => on_failure.is_some() || s.continue_on_error,
            Kind::Action { .. } => false,
        };
        self.nodes[n].role == Role::Root || self.own(n, own, false)
    }

    pub(super) fn policy(&self, domain: usize) -> Policy {
        let of_run = self.spec.on_failure;
        match domain {
            FINAL => Policy::Continue,
            MAIN => of_run,
            _ => match &self.nodes[domain].step.map(|s| &s.kind) {
                Some(Kind::Block { on_failure: Some(Policy::Hold), .. }) if self.root(domain) == FINAL => {
                    Policy::Continue
                }
                Some(Kind::Block { on_failure: Some(policy), .. }) => *policy,
                _ if of_run == Policy::Rollback => Policy::Rollback,
                _ => Policy::Continue,
            },
        }
    }

    /// From itself's container to the root.
    pub(super) fn around(&self, n: usize) -> Vec<usize> {
        let mut up = Vec::new();
        let mut at = n;
        while self.nodes[at].role != Role::Root {
            at = self.nodes[at].up;
            up.push(at);
        }
        up
    }

    pub(super) fn root(&self, n: usize) -> usize {
        self.around(n).last().copied().unwrap_or(n)
    }

    pub(super) fn domain(&self, n: usize) -> usize {
        self.around(n).into_iter().find(|d| self.is_domain(*d)).unwrap_or(MAIN)
    }

    pub(super) fn inside(&self, of: usize) -> Vec<usize> {
        let mut all = Vec::new();
        let mut todo = self.nodes[of].kids.clone();
        while let Some(n) = todo.pop() {
            all.push(n);
            todo.extend(&self.nodes[n].kids);
        }
        all.sort_unstable();
        all
    }

    pub(super) fn is_halted(&self, n: usize) -> bool {
        self.nodes[n].halted || self.around(n).into_iter().any(|d| self.nodes[d].halted)
    }

    /// Something around it has failed fast.
    pub(super) fn is_cut_off(&self, n: usize) -> bool {
        self.around(n).into_iter().any(|e| self.nodes[e].failed_fast)
    }

    pub(super) fn sum(&self, n: usize) -> Sum {
        let node = &self.nodes[n];
        match node.act {
            Act::Active | Act::Backoff(_) | Act::Cut | Act::Interrupted => return Sum::Live,
            Act::Succeeded => return Sum::Good,
            Act::Skipped => return Sum::Skipped,
            Act::Failed | Act::Cancelled | Act::Dropped => return Sum::Bad,
            Act::Fresh => {}
        }
        if self.is_action(n) || !node.begun {
            return Sum::Fresh;
        }
        if node.rolled {
            return Sum::Bad;
        }
        if node.kids.iter().any(|k| !self.is_over(*k)) {
            return Sum::Live;
        }
        if node.kids.iter().all(|k| self.is_satisfied(*k)) {
            return Sum::Good;
        }
        let waits = node.role != Role::Root && self.is_domain(n) && self.policy(n) != Policy::Continue;
        if waits { Sum::Live } else { Sum::Bad }
    }

    /// Nothing more comes of it on the way forward.
    pub(super) fn is_over(&self, n: usize) -> bool {
        match self.sum(n) {
            Sum::Good | Sum::Bad | Sum::Skipped => true,
            Sum::Fresh => self.is_dead(n),
            Sum::Live => false,
        }
    }

    fn is_dead(&self, n: usize) -> bool {
        self.is_cut_off(n) || self.nodes[n].needs.iter().any(|need| self.is_over(*need) && !self.is_satisfied(*need))
    }

    pub(super) fn is_satisfied(&self, n: usize) -> bool {
        match self.sum(n) {
            Sum::Good | Sum::Skipped => true,
            Sum::Bad => self.absorbs(n) && !self.nodes[n].cut_short && !self.was_only_stopped(n),
            Sum::Fresh | Sum::Live => false,
        }
    }

    /// It may fail, and has not: all that is not done in it was stopped.
    pub(super) fn was_only_stopped(&self, n: usize) -> bool {
        self.absorbs(n) && !self.has_failed(n)
    }

    /// By itself, or something inside did and nothing absorbed it. What was only stopped has not failed.
    fn has_failed(&self, n: usize) -> bool {
        let inside = |k: &usize| !self.absorbs(*k) && self.has_failed(*k);
        self.nodes[n].act == Act::Failed || self.nodes[n].kids.iter().any(inside)
    }

    /// `later` comes after `earlier` by needs, at any distance and through any blocks.
    pub(super) fn is_after(&self, later: usize, earlier: usize) -> bool {
        let mut ups = vec![earlier];
        ups.extend(self.around(earlier));
        let mut at = later;
        loop {
            let needed = self.needed_by(at);
            if ups.iter().any(|u| needed.contains(u)) {
                return true;
            }
            if self.nodes[at].role == Role::Root {
                return false;
            }
            at = self.nodes[at].up;
        }
    }

    fn needed_by(&self, n: usize) -> BTreeSet<usize> {
        let mut all = BTreeSet::new();
        let mut todo = self.nodes[n].needs.clone();
        while let Some(need) = todo.pop() {
            if all.insert(need) {
                todo.extend(&self.nodes[need].needs);
            }
        }
        all
    }

    /// What a rollback of `of` that begins now must undo.
    pub(super) fn to_undo(&self, of: usize) -> BTreeSet<usize> {
        let inside = self.inside(of);
        let points = self.points(&inside);
        let kept = |n: usize| self.is_behind(n, &points);
        inside.into_iter().filter(|n| self.is_action(*n) && !kept(*n) && self.has_something_to_undo(*n)).collect()
    }

    fn has_something_to_undo(&self, n: usize) -> bool {
        let node = &self.nodes[n];
        let Some(Step { kind: Kind::Action { of, rollback }, .. }) = node.step else { return false };
        if !node.started || node.undo == Undo::Done || node.kept {
            return false;
        }
        let (_, access, undo, _) = TYPES[*of];
        match rollback {
            Custom::Started => true,
            Custom::Succeeded => node.act == Act::Succeeded,
            Custom::Off => false,
            Custom::None => {
                let unchanged = node.act == Act::Succeeded && !node.changed && node.attempts == 1;
                access == Access::Changes && undo == UndoKind::Full && node.armed && !unchanged
            }
        }
    }

    /// What stays when `of` is taken back: behind a point of no return, or without an inverse.
    pub(super) fn keeps(&self, of: usize) -> Vec<usize> {
        let inside = self.inside(of);
        let points = self.points(&inside);
        inside.into_iter().filter(|n| self.is_action(*n) && self.stays(*n, &points)).collect()
    }

    fn points(&self, inside: &[usize]) -> Vec<usize> {
        let passed = |n: &usize| self.sum(*n) == Sum::Good || self.nodes[*n].act == Act::Interrupted;
        inside.iter().copied().filter(|n| self.irreversible(*n) && passed(n)).collect()
    }

    fn is_behind(&self, n: usize, points: &[usize]) -> bool {
        points.iter().any(|p| n == *p || self.around(n).contains(p) || self.is_after(*p, n))
    }

    fn stays(&self, n: usize, points: &[usize]) -> bool {
        let node = &self.nodes[n];
        let Some(Step { kind: Kind::Action { of, rollback }, .. }) = node.step else { return false };
        let (_, access, undo, _) = TYPES[*of];
        if !node.started || node.undo == Undo::Done {
            return false;
        }
        if access == Access::Reads {
            let own = *rollback == Custom::Started || (*rollback == Custom::Succeeded && node.act == Act::Succeeded);
            return own && self.is_behind(n, points);
        }
        let no_inverse = match rollback {
            Custom::Off => undo != UndoKind::None,
            Custom::None => undo != UndoKind::Full,
            Custom::Started | Custom::Succeeded => false,
        };
        let unchanged = node.act == Act::Succeeded && !node.changed;
        self.is_behind(n, points) || (no_inverse && !unchanged)
    }
}
