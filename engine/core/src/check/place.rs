//! Lays the steps of a playbook out in the arena of the plan, and loads the playbooks that it uses. Resolves no
//! names; it notes what must be resolved.

mod action;
mod certain;
mod inventory;
mod used;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock};

use crate::diagnostic::{Code, Diagnostic};
use crate::event::OnFailure;
use crate::plan::{
    Binding, Edges, FINALLY, MAIN, Plan, PlanBlock, PlanForEach, PlanKind, PlanStep, Scope, ScopeIdx, Segment,
    SegmentIdx, StepIdx,
};
use crate::playbook::model::{Action, Defaults, Playbook, Rollback, Step};
use crate::span::{SourceId, Sources, Span, Spanned};
use crate::step::{Catalog, Commands};
use crate::template::{Reference, Template, ValueTemplate};

use super::Load;
use super::policy::Policies;
use super::schema::CompiledSchema;

/// Steps that see each other by name.
#[derive(Debug, Default)]
pub(super) struct Frame {
    pub(super) parent: Option<usize>,
    /// The block or `for_each` that it is the inside of; None at the top and in `finally`.
    pub(super) container: Option<StepIdx>,
    pub(super) ids: HashMap<Arc<str>, StepIdx>,
    /// Of the body of a `for_each`: what its item is called.
    pub(super) item: Option<String>,
    pub(super) finally: bool,
}

/// Where a reference stands; decides what it may refer to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    With,
    Env,
    Target,
    When,
    Items,
    /// A `for_each` key; its item is called so.
    Key(String),
    Locks,
    /// In the name of a lock, printed as it is.
    LockText,
    BlockOutputs,
}

#[derive(Debug)]
pub(super) struct Noted {
    pub(super) reference: Reference,
    pub(super) place: Place,
}

/// What pass two needs to know of a step.
#[derive(Debug)]
pub(super) struct Note {
    pub(super) frame: usize,
    /// Of a block: the frame inside, which its outputs see.
    pub(super) inside: Option<usize>,
    pub(super) references: Vec<Noted>,
    /// Given `needs`, not yet resolved; None = the step above.
    pub(super) needs: Option<Vec<Spanned<String>>>,
    pub(super) above: Option<StepIdx>,
    pub(super) id_span: Span,
    pub(super) irreversible_span: Option<Span>,
    /// Script or argv templates with references that stand there unquoted (`x-runback-line` in the schema).
    pub(super) lines: Vec<CommandLine>,
}

#[derive(Debug)]
pub(super) struct CommandLine {
    /// A shell script; else words of a command line.
    pub(super) script: bool,
    pub(super) template: Template,
}

/// What pass two and the lints need to know of a scope.
#[derive(Debug)]
pub(super) struct ScopeNote {
    pub(super) frame: usize,
    pub(super) references: Vec<Noted>,
    pub(super) used_inputs: Vec<bool>,
    pub(super) used_secrets: Vec<bool>,
    pub(super) opaque: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    Needs,
    Order,
    Reference,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Edge {
    pub(super) from: StepIdx,
    pub(super) to: StepIdx,
    pub(super) span: Span,
    pub(super) why: Why,
}

struct Body {
    segment: SegmentIdx,
    step: Step,
    frame: usize,
    scope: ScopeIdx,
    defaults: Arc<Defaults>,
}

pub(super) struct Placed<'a> {
    catalog: &'a Catalog,
    load: &'a mut dyn Load,
    /// Steps that would only fail are told, too.
    foretell: bool,
    pub(super) sources: Sources,
    pub(super) diagnostics: Vec<Diagnostic>,
    pub(super) steps: Vec<PlanStep>,
    pub(super) notes: Vec<Note>,
    pub(super) frames: Vec<Frame>,
    pub(super) segments: Vec<Segment>,
    pub(super) scopes: Vec<Scope>,
    pub(super) scope_notes: Vec<ScopeNote>,
    pub(super) edges: Vec<Edge>,
    pub(super) used_targets: Vec<String>,
    pub(super) top: Option<Top>,
    bodies: VecDeque<Body>,
    policies: Policies,
    /// Of the step types that are used, by their names.
    pub(super) schemas: HashMap<&'static str, Arc<TypeSchema>>,
    /// Files of the sub-playbooks that are being placed, outermost first.
    using: Vec<String>,
    texts: HashMap<String, SourceId>,
}

/// What is left of the playbook itself.
pub(super) struct Top {
    pub(super) name: String,
    pub(super) description: Option<String>,
    pub(super) max_parallel: Option<u32>,
    pub(super) timeout: Option<std::time::Duration>,
    pub(super) on_failure: OnFailure,
    pub(super) fail_fast: bool,
    pub(super) locks: Vec<Template>,
    pub(super) targets: Vec<crate::playbook::model::TargetDecl>,
}

pub(super) struct TypeSchema {
    pub(super) compiled: CompiledSchema,
    /// Top-level inputs that are scripts or command lines.
    lines: Vec<(String, bool)>,
}

struct Context {
    segment: SegmentIdx,
    parent: Option<StepIdx>,
    scope: ScopeIdx,
    frame: usize,
    defaults: Arc<Defaults>,
}

impl<'a> Placed<'a> {
    pub(super) fn new(catalog: &'a Catalog, load: &'a mut dyn Load, sources: Sources, foretell: bool) -> Self {
        Self {
            catalog,
            load,
            foretell,
            sources,
            diagnostics: Vec::new(),
            steps: Vec::new(),
            notes: Vec::new(),
            frames: Vec::new(),
            segments: Vec::new(),
            scopes: Vec::new(),
            scope_notes: Vec::new(),
            edges: Vec::new(),
            used_targets: Vec::new(),
            top: None,
            bodies: VecDeque::new(),
            policies: Policies::default(),
            schemas: HashMap::new(),
            using: Vec::new(),
            texts: HashMap::new(),
        }
    }

    pub(super) fn playbook(&mut self, playbook: Playbook) {
        let targets = self.with_inventories(playbook.targets, &playbook.inventories);
        let defaults = Arc::new(playbook.defaults);
        let frame = self.frame(Frame::default());
        let scope = self.scope(
            Scope {
                playbook: playbook.name.value.clone(),
                description: playbook.description.clone(),
                inputs: playbook.inputs,
                secrets: playbook.secrets,
                used_by: None,
                outputs: Vec::new(),
                bindings: Vec::new(),
            },
            frame,
            playbook.outputs,
        );
        for lock in &playbook.locks {
            self.note_scope_references(scope, lock, &Place::Locks);
        }
        self.top = Some(Top {
            name: playbook.name.value,
            description: playbook.description,
            max_parallel: playbook.max_parallel.map(|m| m.value),
            timeout: playbook.timeout,
            on_failure: playbook.on_failure.unwrap_or_default(),
            fail_fast: playbook.fail_fast,
            locks: playbook.locks,
            targets,
        });
        let finally = self.frame(Frame { parent: Some(frame), finally: true, ..Frame::default() });
        let empty = Segment { first: StepIdx(0), len: 0, owner: None };
        self.segments = vec![empty.clone(), empty];
        for (segment, frame, steps) in [(MAIN, frame, playbook.steps), (FINALLY, finally, playbook.finally)] {
            let first = StepIdx(self.steps.len() as u32);
            self.list(steps, &Context { segment, parent: None, scope, frame, defaults: Arc::clone(&defaults) });
            let len = self.steps.len() as u32 - first.0;
            self.segments[segment.0 as usize] = Segment { first, len, owner: None };
        }
        while let Some(body) = self.bodies.pop_front() {
            let first = StepIdx(self.steps.len() as u32);
            self.segments[body.segment.0 as usize].first = first;
            let context = Context {
                segment: body.segment,
                parent: None,
                scope: body.scope,
                frame: body.frame,
                defaults: body.defaults,
            };
            self.one(body.step, &context, None, false);
            self.segments[body.segment.0 as usize].len = self.steps.len() as u32 - first.0;
        }
    }

    fn frame(&mut self, frame: Frame) -> usize {
        self.frames.push(frame);
        self.frames.len() - 1
    }

    fn scope(&mut self, scope: Scope, frame: usize, outputs: Vec<(Spanned<String>, ValueTemplate)>) -> ScopeIdx {
        let idx = ScopeIdx(self.scopes.len() as u32);
        self.scope_notes.push(ScopeNote {
            frame,
            references: Vec::new(),
            used_inputs: vec![false; scope.inputs.len()],
            used_secrets: vec![false; scope.secrets.len()],
            opaque: false,
        });
        for (_, value) in &outputs {
            let note = &mut self.scope_notes[idx.0 as usize];
            value.for_each_reference(&mut |r| {
                note.references.push(Noted { reference: r.clone(), place: Place::BlockOutputs });
            });
        }
        let outputs = outputs.into_iter().map(|(name, value)| (name.value, value)).collect();
        self.scopes.push(Scope { outputs, ..scope });
        idx
    }

    fn note_scope_references(&mut self, scope: ScopeIdx, template: &Template, place: &Place) {
        self.scope_notes[scope.0 as usize].references.extend(noted(template, place));
    }

    fn list(&mut self, steps: Vec<Step>, context: &Context) {
        let mut above = None;
        self.steps.reserve(steps.len());
        self.notes.reserve(steps.len());
        self.frames[context.frame].ids.reserve(steps.len());
        for step in steps {
            above = Some(self.one(step, context, above, true));
        }
    }

    /// Places one step; `outer` = it stands in a list and may have a `for_each` around it.
    fn one(&mut self, mut step: Step, context: &Context, above: Option<StepIdx>, outer: bool) -> StepIdx {
        let id: Arc<str> = step.id.value.as_str().into();
        let idx = StepIdx(self.steps.len() as u32);
        if outer && step.id_given {
            self.frames[context.frame].ids.insert(Arc::clone(&id), idx);
        }
        let mut note = Note {
            frame: context.frame,
            inside: None,
            references: Vec::new(),
            needs: if outer { step.needs.take() } else { Some(Vec::new()) },
            above,
            id_span: step.id.span,
            irreversible_span: step.irreversible.as_ref().filter(|i| i.value).map(|i| i.span),
            lines: Vec::new(),
        };
        if outer && step.for_each.is_some() {
            return self.for_each(step, context, note);
        }
        if let Action::Uses(uses) = &step.action
            && *uses.step_type == "playbook"
        {
            let uses = uses.clone();
            return self.sub_playbook(step, &uses, context, note);
        }
        let policy_of =
            |s: &mut Self, detach, from_run| s.policies.of(&step.policy, &context.defaults.policy, detach, from_run);
        let (kind, policy) = match step.action {
            Action::Uses(uses) => {
                let own = Own { target: step.target.as_ref(), env: &step.env, detach: step.policy.detach };
                let from_run = uses.from_run;
                let action = self.action(uses, &own, &context.defaults, &mut note);
                let detach = action.as_ref().is_some_and(|a| a.step_type.descriptor().commands == Commands::Detached);
                let policy = policy_of(self, detach, from_run);
                let Some(mut action) = action else {
                    // Reported; the step still takes its place so that others can refer to it.
                    return self.push_unknown(idx, id, step.span, context, note, policy);
                };
                action.rollback = self.rollback(step.rollback, &own, &context.defaults, &mut note);
                self.refuse_what_reaches_nothing(&action, &own);
                (PlanKind::Action(Box::new(action)), policy)
            }
            Action::Block(children) => {
                let policy = policy_of(self, false, false);
                note_outputs(&mut note, &step.outputs);
                let outputs: Vec<_> = step.outputs.into_iter().map(|(n, v)| (n.value, v)).collect();
                let block = PlanBlock { inner: 0..0, children: children.len() as u32, outputs, scope: None };
                note_when(&mut note, step.when.as_ref());
                for lock in &step.locks {
                    note_template(&mut note, lock, &Place::Locks);
                }
                self.refuse_rollback_of(&step.rollback, step.id.span, "a block");
                self.steps.push(PlanStep {
                    id,
                    span: step.span,
                    segment: context.segment,
                    parent: context.parent,
                    scope: context.scope,
                    kind: PlanKind::Block(Box::new(block)),
                    when: step.when,
                    irreversible: note.irreversible_span.is_some(),
                    continue_on_error: step.continue_on_error,
                    on_failure: step.on_failure.map(|o| o.value),
                    locks: step.locks,
                    policy,
                    bindings: Vec::new(),
                });
                self.notes.push(note);
                let frame = self.frame(Frame { parent: Some(context.frame), container: Some(idx), ..Frame::default() });
                self.notes[idx.at()].inside = Some(frame);
                let defaults = inherited(&context.defaults, step.target, step.env, &step.policy);
                let (segment, scope) = (context.segment, context.scope);
                self.list(children, &Context { segment, parent: Some(idx), scope, frame, defaults });
                self.close_block(idx);
                return idx;
            }
        };
        note_when(&mut note, step.when.as_ref());
        for lock in &step.locks {
            note_template(&mut note, lock, &Place::Locks);
        }
        self.steps.push(PlanStep {
            id,
            span: step.span,
            segment: context.segment,
            parent: context.parent,
            scope: context.scope,
            kind,
            when: step.when,
            irreversible: note.irreversible_span.is_some(),
            continue_on_error: step.continue_on_error,
            on_failure: None,
            locks: step.locks,
            policy,
            bindings: Vec::new(),
        });
        self.notes.push(note);
        idx
    }

    /// `of` has steps inside, and is taken back by theirs.
    fn refuse_rollback_of(&mut self, rollback: &Rollback, span: Span, of: &str) {
        if !matches!(rollback, Rollback::Auto) {
            let message = format!("{of} is taken back step by step, so it has no `rollback` of its own");
            let diagnostic = Diagnostic::new(Code::ConflictingKeys, message, span, format!("{of} with `rollback`"));
            self.diagnostics.push(diagnostic.help("put `rollback` on the steps inside"));
        }
    }

    fn close_block(&mut self, idx: StepIdx) {
        let end = self.steps.len() as u32;
        if let PlanKind::Block(block) = &mut self.steps[idx.at()].kind {
            block.inner = idx.0 + 1..end;
        }
    }

    fn for_each(&mut self, mut step: Step, context: &Context, mut note: Note) -> StepIdx {
        let idx = StepIdx(self.steps.len() as u32);
        let id: Arc<str> = step.id.value.as_str().into();
        let Some(each) = step.for_each.take() else { return idx };
        each.items.for_each_reference(&mut |r| {
            note.references.push(Noted { reference: r.clone(), place: Place::Items });
        });
        if let Some(key) = &each.key {
            note_template(&mut note, key, &Place::Key(each.as_name.clone()));
        }
        // A condition on the item is one for each instance; any other is one for all.
        let about_item = step.when.as_ref().is_some_and(|w| w.references().iter().any(|r| r.path[0] == each.as_name));
        let when = if about_item { None } else { step.when.take() };
        note_when(&mut note, when.as_ref());
        let body = SegmentIdx(self.segments.len() as u32);
        self.segments.push(Segment { first: StepIdx(0), len: 0, owner: Some(idx) });
        let frame = self.frame(Frame {
            parent: Some(context.frame),
            container: Some(idx),
            item: Some(each.as_name.clone()),
            ..Frame::default()
        });
        let policy = self.policies.of(&step.policy, &context.defaults.policy, false, false);
        self.steps.push(PlanStep {
            id,
            span: step.span,
            segment: context.segment,
            parent: context.parent,
            scope: context.scope,
            kind: PlanKind::ForEach(Box::new(PlanForEach {
                items: each.items,
                as_name: each.as_name,
                key: each.key,
                max_parallel: each.max_parallel,
                fail_fast: each.fail_fast,
                body,
            })),
            when,
            irreversible: false,
            continue_on_error: false,
            on_failure: None,
            locks: Vec::new(),
            policy,
            bindings: Vec::new(),
        });
        note.irreversible_span = None;
        self.notes.push(note);
        let defaults = Arc::clone(&context.defaults);
        self.bodies.push_back(Body { segment: body, step, frame, scope: context.scope, defaults });
        idx
    }

    /// An unknown step type takes its place as an empty block.
    fn push_unknown(
        &mut self,
        idx: StepIdx,
        id: Arc<str>,
        span: Span,
        context: &Context,
        note: Note,
        policy: Arc<crate::plan::StepPolicy>,
    ) -> StepIdx {
        if let Some(scope) = self.scope_notes.get_mut(context.scope.0 as usize) {
            scope.opaque = true;
        }
        self.steps.push(PlanStep {
            id,
            span,
            segment: context.segment,
            parent: context.parent,
            scope: context.scope,
            kind: PlanKind::Block(Box::new(PlanBlock {
                inner: idx.0 + 1..idx.0 + 1,
                children: 0,
                outputs: Vec::new(),
                scope: Some(ScopeIdx(u32::MAX)),
            })),
            when: None,
            irreversible: false,
            continue_on_error: false,
            on_failure: None,
            locks: Vec::new(),
            policy,
            bindings: Vec::new(),
        });
        self.notes.push(note);
        idx
    }

    /// The edges as pairs without duplicates.
    pub(super) fn edge_pairs(&self) -> Vec<(StepIdx, StepIdx)> {
        let mut pairs: Vec<_> = self.edges.iter().map(|e| (e.from, e.to)).collect();
        if pairs.is_sorted_by_key(|(step, _)| *step) {
            // As nearly always: step by step, as they were noted.
            pairs.chunk_by_mut(|a, b| a.0 == b.0).for_each(<[_]>::sort_unstable);
        } else {
            pairs.sort_unstable();
        }
        pairs.dedup();
        pairs
    }

    pub(super) fn finish(
        self,
        edges: impl FnOnce(usize, &[(StepIdx, StepIdx)]) -> Edges,
        pairs: &[(StepIdx, StepIdx)],
    ) -> (Option<Plan>, Sources) {
        let count = self.steps.len();
        let plan = self.top.map(|top| Plan {
            sources: self.sources.clone(),
            digest: OnceLock::new(),
            name: top.name,
            description: top.description,
            max_parallel: top.max_parallel,
            timeout: top.timeout,
            on_failure: top.on_failure,
            fail_fast: top.fail_fast,
            locks: top.locks,
            targets: top.targets,
            scopes: self.scopes,
            segments: self.segments,
            steps: self.steps,
            edges: edges(count, pairs),
        });
        (plan, self.sources)
    }

    /// Binds a name for the templates of a step.
    pub(super) fn bind(&mut self, step: StepIdx, id: &str, to: StepIdx) {
        let bindings = &mut self.steps[step.at()].bindings;
        if !bindings.iter().any(|b| &*b.id == id) {
            bindings.push(Binding { id: id.into(), step: to });
        }
    }
}

/// What a step says of where and how its commands run.
struct Own<'a> {
    target: Option<&'a Template>,
    env: &'a [(Spanned<String>, Template)],
    detach: Option<Spanned<bool>>,
}

/// A block's own `target`, `env` and policy are the defaults of what is inside.
fn inherited(
    outer: &Arc<Defaults>,
    target: Option<Template>,
    env: Vec<(Spanned<String>, Template)>,
    policy: &crate::playbook::model::Policy,
) -> Arc<Defaults> {
    if target.is_none() && env.is_empty() && *policy == crate::playbook::model::Policy::default() {
        return Arc::clone(outer);
    }
    let mut inner = (**outer).clone();
    inner.target = target.or(inner.target);
    inner.env.retain(|(name, _)| !env.iter().any(|(own, _)| own.value == name.value));
    inner.env.extend(env);
    inner.policy = policy.over(&inner.policy);
    Arc::new(inner)
}

fn noted<'t>(template: &'t Template, place: &'t Place) -> impl Iterator<Item = Noted> + 't {
    let is_text = |r: &Reference| *place == Place::Locks && template.printed().any(|p| p.span == r.span);
    template.references().iter().map(move |r| {
        let place = if is_text(r) { Place::LockText } else { place.clone() };
        Noted { reference: r.clone(), place }
    })
}

fn note_template(note: &mut Note, template: &Template, place: &Place) {
    note.references.extend(noted(template, place));
    if *place == Place::Target && template.references().is_empty() {
        // A literal target is checked like a reference to it.
        let path = vec![TARGET_ROOT.to_owned(), template.text().to_owned()];
        let reference = Reference { path, span: template.span(), optional: false };
        note.references.push(Noted { reference, place: Place::Target });
    }
}

/// The root of a reference that a literal `target:` stands for.
pub(super) const TARGET_ROOT: &str = "target name";

fn note_when(note: &mut Note, when: Option<&crate::expr::Expr>) {
    for reference in when.into_iter().flat_map(crate::expr::Expr::references) {
        note.references.push(Noted { reference: reference.clone(), place: Place::When });
    }
}

fn note_outputs(note: &mut Note, outputs: &[(Spanned<String>, ValueTemplate)]) {
    for (_, value) in outputs {
        value.for_each_reference(&mut |r| {
            note.references.push(Noted { reference: r.clone(), place: Place::BlockOutputs });
        });
    }
}
