//! The compiled DAG: dense ids, needs and dependents in CSR form, segments that are instantiated as a whole.
//! Made by [`crate::check`]; knows nothing of runs.

mod digest;

use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::Json;
use crate::event::OnFailure;
use crate::expr::Expr;
use crate::playbook::model::{InputDecl, Interrupt, Retry, SecretDecl, TargetDecl};
use crate::span::{Sources, Span};
use crate::step::{Access, AnyStepType, OutputNames, StepError, UndoKind};
use crate::template::{Template, ValueTemplate};

/// Index into [`Plan::steps`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepIdx(pub u32);

/// Index into [`Plan::segments`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentIdx(pub u32);

/// Index into [`Plan::scopes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScopeIdx(pub u32);

impl StepIdx {
    pub fn at(self) -> usize {
        self.0 as usize
    }
}

/// The steps of the playbook.
pub const MAIN: SegmentIdx = SegmentIdx(0);
/// The steps under `finally`.
pub const FINALLY: SegmentIdx = SegmentIdx(1);

/// A checked, compiled playbook.
#[derive(Debug)]
pub struct Plan {
    /// What it was compiled from: the playbook, then what it uses.
    pub(crate) sources: Sources,
    /// Made when it is first asked for: a check needs none.
    pub(crate) digest: OnceLock<String>,
    pub name: String,
    pub description: Option<String>,
    pub max_parallel: Option<u32>,
    pub timeout: Option<Duration>,
    pub on_failure: OnFailure,
    pub fail_fast: bool,
    pub locks: Vec<Template>,
    pub targets: Vec<TargetDecl>,
    /// 0 is the playbook itself; one more for each use of a sub-playbook.
    pub scopes: Vec<Scope>,
    /// 0 is `steps`, 1 is `finally`, then the bodies of `for_each`.
    pub segments: Vec<Segment>,
    /// A segment's steps are contiguous and in the order of the file; a block stands before its children.
    pub steps: Vec<PlanStep>,
    pub edges: Edges,
}

/// The names of one playbook, or of one use of a sub-playbook.
#[derive(Debug)]
pub struct Scope {
    pub playbook: String,
    pub description: Option<String>,
    pub inputs: Vec<InputDecl>,
    pub secrets: Vec<SecretDecl>,
    /// The block that uses it, and what it gives to the inputs; None for the playbook itself.
    pub used_by: Option<(StepIdx, ValueTemplate)>,
    pub outputs: Vec<(String, ValueTemplate)>,
    /// Steps that the outputs refer to.
    pub bindings: Vec<Binding>,
}

/// A run of steps that is instantiated as one.
#[derive(Debug, Clone)]
pub struct Segment {
    pub first: StepIdx,
    pub len: u32,
    /// The `for_each` whose body it is.
    pub owner: Option<StepIdx>,
}

impl Segment {
    pub fn range(&self) -> Range<u32> {
        self.first.0..self.first.0 + self.len
    }
}

/// A step id that a step's templates refer to, resolved.
#[derive(Debug, Clone)]
pub struct Binding {
    pub id: Arc<str>,
    pub step: StepIdx,
}

#[derive(Debug)]
pub struct PlanStep {
    pub id: Arc<str>,
    pub span: Span,
    pub segment: SegmentIdx,
    /// The enclosing block in the same segment.
    pub parent: Option<StepIdx>,
    pub scope: ScopeIdx,
    pub kind: PlanKind,
    pub when: Option<Expr>,
    pub irreversible: bool,
    pub continue_on_error: bool,
    /// Of a block: it is a failure domain of its own.
    pub on_failure: Option<OnFailure>,
    pub locks: Vec<Template>,
    pub policy: Arc<StepPolicy>,
    pub bindings: Vec<Binding>,
}

#[derive(Debug)]
pub enum PlanKind {
    Action(Box<PlanAction>),
    Block(Box<PlanBlock>),
    ForEach(Box<PlanForEach>),
}

/// A step type with its inputs.
#[derive(Debug)]
pub struct PlanAction {
    pub step_type: Arc<dyn AnyStepType>,
    pub with: ValueTemplate,
    /// Strings of `with` that are expressions, by JSON pointer (schema format `cel`).
    pub expressions: Vec<(String, Expr)>,
    pub target: Option<Template>,
    pub env: Vec<(String, Template)>,
    pub access: Access,
    pub undo: UndoKind,
    pub rollback: PlanRollback,
}

#[derive(Debug)]
pub enum PlanRollback {
    /// The typed inverse.
    Auto,
    None,
    /// A step of its own in place of the typed inverse.
    Action {
        action: Box<PlanAction>,
        only_if_succeeded: bool,
    },
}

#[derive(Debug)]
pub struct PlanBlock {
    /// All descendants in this segment; they follow the block.
    pub inner: Range<u32>,
    /// How many of them are direct children.
    pub children: u32,
    pub outputs: Vec<(String, ValueTemplate)>,
    /// Of a sub-playbook: the scope inside.
    pub scope: Option<ScopeIdx>,
}

#[derive(Debug)]
pub struct PlanForEach {
    pub items: ValueTemplate,
    pub as_name: String,
    pub key: Option<Template>,
    pub max_parallel: Option<u32>,
    pub fail_fast: bool,
    /// Its first step is the instance itself.
    pub body: SegmentIdx,
}

/// How a step is run, with all defaults filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct StepPolicy {
    /// Per attempt.
    pub timeout: Option<Duration>,
    /// Over all attempts.
    pub deadline: Option<Duration>,
    /// Without output.
    pub idle_timeout: Option<Duration>,
    /// TERM to KILL.
    pub kill_grace: Duration,
    pub retry: Retry,
    /// `retry_on` was not given: any non-zero exit is worth a retry (`run`).
    pub retry_any_exit: bool,
    pub on_interrupt: Option<Interrupt>,
    pub detach: bool,
}

impl Default for StepPolicy {
    fn default() -> Self {
        Self {
            timeout: None,
            deadline: None,
            idle_timeout: None,
            kill_grace: Duration::from_secs(10),
            retry: Retry::default(),
            retry_any_exit: false,
            on_interrupt: None,
            detach: false,
        }
    }
}

/// Needs and dependents, both only between siblings (same segment, same parent).
#[derive(Debug, Default, Clone)]
pub struct Edges {
    needs_at: Vec<u32>,
    needs: Vec<StepIdx>,
    dependents_at: Vec<u32>,
    dependents: Vec<StepIdx>,
}

impl Edges {
    /// `pairs` are (step, what it needs), without duplicates.
    pub fn new(steps: usize, pairs: &[(StepIdx, StepIdx)]) -> Self {
        let (needs_at, needs) = csr(steps, pairs.iter().map(|(a, b)| (*a, *b)));
        let (dependents_at, dependents) = csr(steps, pairs.iter().map(|(a, b)| (*b, *a)));
        Self { needs_at, needs, dependents_at, dependents }
    }

    pub fn needs(&self, step: StepIdx) -> &[StepIdx] {
        &self.needs[self.needs_at[step.at()] as usize..self.needs_at[step.at() + 1] as usize]
    }

    pub fn dependents(&self, step: StepIdx) -> &[StepIdx] {
        &self.dependents[self.dependents_at[step.at()] as usize..self.dependents_at[step.at() + 1] as usize]
    }
}

fn csr(steps: usize, pairs: impl Iterator<Item = (StepIdx, StepIdx)> + Clone) -> (Vec<u32>, Vec<StepIdx>) {
    let mut at = vec![0u32; steps + 1];
    for (from, _) in pairs.clone() {
        at[from.at() + 1] += 1;
    }
    for i in 0..steps {
        at[i + 1] += at[i];
    }
    let mut next = at.clone();
    let mut to = vec![StepIdx(0); at[steps] as usize];
    for (from, target) in pairs {
        to[next[from.at()] as usize] = target;
        next[from.at()] += 1;
    }
    (at, to)
}

impl Plan {
    /// SHA-256 of what the plan is made of, as hex.
    pub fn digest(&self) -> &str {
        self.digest.get_or_init(|| digest::of(self))
    }

    pub fn step(&self, idx: StepIdx) -> &PlanStep {
        &self.steps[idx.at()]
    }

    pub fn segment(&self, idx: SegmentIdx) -> &Segment {
        &self.segments[idx.0 as usize]
    }

    pub fn scope(&self, idx: ScopeIdx) -> &Scope {
        &self.scopes[idx.0 as usize]
    }

    pub fn iter(&self) -> impl Iterator<Item = (StepIdx, &PlanStep)> {
        self.steps.iter().enumerate().map(|(i, s)| (StepIdx(i as u32), s))
    }

    /// Direct children of a block, or the top level of a segment for None.
    pub fn children(&self, segment: SegmentIdx, parent: Option<StepIdx>) -> impl Iterator<Item = StepIdx> + '_ {
        let range = match parent.map(|p| &self.step(p).kind) {
            Some(PlanKind::Block(block)) => block.inner.clone(),
            Some(_) => 0..0,
            None => self.segment(segment).range(),
        };
        range.map(StepIdx).filter(move |i| self.step(*i).parent == parent)
    }

    /// The path of a step as the plan knows it: a `for_each` body is `name[*]`.
    pub fn path(&self, idx: StepIdx) -> String {
        let step = self.step(idx);
        let segment = self.segment(step.segment);
        let own = match step.parent {
            Some(parent) => return format!("{}/{}", self.path(parent), step.id),
            None => step.id.to_string(),
        };
        match segment.owner {
            Some(owner) => format!("{}[*]", self.path(owner)),
            None => own,
        }
    }

    /// See [`output_names`].
    pub fn output_names(&self, idx: StepIdx) -> Option<Vec<String>> {
        output_names(&self.steps, &self.scopes, &self.segments, idx)
    }

    /// Waves of siblings: 0 for those that need nothing, else one more than the latest of their needs.
    pub fn waves(&self) -> Vec<u32> {
        let mut wave = vec![0u32; self.steps.len()];
        // Steps stand in file order, which need not be topological: relax until it settles along a worklist.
        let mut left: Vec<u32> =
            (0..self.steps.len()).map(|i| self.edges.needs(StepIdx(i as u32)).len() as u32).collect();
        let mut todo: Vec<StepIdx> = (0..self.steps.len() as u32).map(StepIdx).filter(|i| left[i.at()] == 0).collect();
        while let Some(step) = todo.pop() {
            for dependent in self.edges.dependents(step) {
                wave[dependent.at()] = wave[dependent.at()].max(wave[step.at()] + 1);
                left[dependent.at()] -= 1;
                if left[dependent.at()] == 0 {
                    todo.push(*dependent);
                }
            }
        }
        wave
    }
}

impl PlanStep {
    pub fn action(&self) -> Option<&PlanAction> {
        match &self.kind {
            PlanKind::Action(action) => Some(action),
            _ => None,
        }
    }

    /// The step type's name; `block` and `for_each` for those.
    pub fn type_name(&self) -> &'static str {
        match &self.kind {
            PlanKind::Action(action) => action.step_type.descriptor().name,
            PlanKind::Block(block) if block.scope.is_some() => "playbook",
            PlanKind::Block(_) => "block",
            PlanKind::ForEach(_) => "for_each",
        }
    }

    /// A failure inside it is dealt with here, before it counts outside.
    pub fn is_failure_domain(&self) -> bool {
        matches!(self.kind, PlanKind::Block(_)) && (self.on_failure.is_some() || self.continue_on_error)
    }
}

/// The names of a step's outputs, of one instance for a `for_each`. None = not known before it runs, or of a playbook
/// that could not be read.
pub(crate) fn output_names(
    steps: &[PlanStep],
    scopes: &[Scope],
    segments: &[Segment],
    idx: StepIdx,
) -> Option<Vec<String>> {
    let names = |outputs: &[(String, ValueTemplate)]| Some(outputs.iter().map(|(name, _)| name.clone()).collect());
    match &steps[idx.at()].kind {
        PlanKind::Action(action) => match action.step_type.output_names(&action.with) {
            OutputNames::Closed(names) => Some(names),
            OutputNames::Open => None,
        },
        PlanKind::Block(block) => match block.scope {
            Some(scope) => names(&scopes.get(scope.0 as usize)?.outputs),
            None => names(&block.outputs),
        },
        PlanKind::ForEach(each) => output_names(steps, scopes, segments, segments[each.body.0 as usize].first),
    }
}

impl PlanAction {
    /// What a rollback does with it once it has changed something.
    pub fn undo_kind(&self) -> UndoKind {
        match self.rollback {
            PlanRollback::Auto => self.undo,
            PlanRollback::None => UndoKind::None,
            PlanRollback::Action { .. } => UndoKind::Full,
        }
    }

    /// The first mistake in inputs that were templates when the playbook was checked. Literal ones were looked at then.
    pub fn refuse(&self, inputs: &Json) -> Result<(), StepError> {
        if self.with.is_literal() {
            return Ok(());
        }
        let Some(found) = self.step_type.problems(inputs).into_iter().next() else { return Ok(()) };
        let place = if found.path.is_empty() { "inputs".to_owned() } else { format!("`{}`", found.path.join(".")) };
        let error = StepError::permanent(format!("{place}: {}", found.message));
        Err(match found.help {
            Some(help) => error.help(help),
            None => error,
        })
    }
}
