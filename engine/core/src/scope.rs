//! What a template or expression of a step sees: a context made of just the values that it refers to.
//! Works from the state alone; secrets and the target are lent by the caller.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, json};

use crate::Json;
use crate::plan::{Binding, PlanKind, ScopeIdx, StepIdx};
use crate::playbook::model::{InputDecl, TargetKind};
use crate::playbook::values;
use crate::state::{NodeId, RunState, Status};
use crate::template::{Reference, RenderError, ValueTemplate};

/// What the state does not hold.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lent<'a> {
    /// By playbook scope, then name. None where secrets have no business (conditions, locks).
    pub secrets: Option<&'a [Map<String, Json>]>,
    /// Inputs marked secret, of the run.
    pub secret_inputs: Option<&'a Map<String, Json>>,
    pub target: Option<&'a str>,
    /// Values of which only the mask of a secret is left count as they are: for what is only shown.
    pub even_masked: bool,
}

/// Where names are looked up from.
#[derive(Debug, Clone, Copy)]
struct View<'a> {
    state: &'a RunState,
    node: NodeId,
    scope: ScopeIdx,
    bindings: &'a [Binding],
    lent: Lent<'a>,
}

/// The context for templates of a step.
pub fn of_step<'r>(
    state: &RunState,
    node: NodeId,
    references: impl Iterator<Item = &'r Reference>,
    lent: Lent<'_>,
) -> Result<Json, RenderError> {
    let step = state.step(node);
    View { state, node, scope: step.scope, bindings: &step.bindings, lent }.context(references)
}

/// The context for what stands at the top of the playbook: locks, outputs.
pub fn of_run<'r>(
    state: &RunState,
    references: impl Iterator<Item = &'r Reference>,
    lent: Lent<'_>,
) -> Result<Json, RenderError> {
    let bindings = &state.plan.scope(ScopeIdx(0)).bindings;
    View { state, node: crate::state::ROOT, scope: ScopeIdx(0), bindings, lent }.context(references)
}

/// Renders a tree of values for a step.
pub fn render(state: &RunState, node: NodeId, value: &ValueTemplate, lent: Lent<'_>) -> Result<Json, RenderError> {
    refuse_given(state, node, lent)?;
    if let Some(literal) = value.literal() {
        return Ok(literal.clone());
    }
    let step = state.step(node);
    View { state, node, scope: step.scope, bindings: &step.bindings, lent }.render(value)
}

/// The outputs of the whole run, each by itself: one that cannot be rendered is null, and why it is.
pub fn run_outputs(state: &RunState) -> (Json, BTreeMap<String, String>) {
    let scope = state.plan.scope(ScopeIdx(0));
    let view = View { state, node: crate::state::ROOT, scope: ScopeIdx(0), bindings: &scope.bindings, lent: SHOWN };
    let (mut outputs, mut errors) = (Map::new(), BTreeMap::new());
    for (name, value) in &scope.outputs {
        let value = view.render(value).unwrap_or_else(|e| {
            errors.insert(name.clone(), e.message);
            Json::Null
        });
        outputs.insert(name.clone(), value);
    }
    (Json::Object(outputs), errors)
}

const SHOWN: Lent<'static> = Lent { secrets: None, secret_inputs: None, target: None, even_masked: true };

/// The outputs of a step, to be shown: an action's own, a block's as its `outputs` say. Of a `for_each` that was expanded, a list for
/// each: an entry per item, in their order, null where the instance did not succeed. No items, empty lists.
pub fn outputs(state: &RunState, node: NodeId) -> Result<Json, RenderError> {
    outputs_for(state, node, SHOWN)
}

fn outputs_for(state: &RunState, node: NodeId, lent: Lent<'_>) -> Result<Json, RenderError> {
    match &state.step(node).kind {
        PlanKind::Action(_) => Ok(state.node(node).outputs.as_deref().cloned().unwrap_or_else(|| json!({}))),
        PlanKind::Block(block) => {
            let step = state.step(node);
            let view = match block.scope {
                Some(scope) => {
                    let inner = state.plan.scope(scope);
                    let view = View { state, node, scope, bindings: &inner.bindings, lent };
                    return view.all(&inner.outputs);
                }
                None => View { state, node, scope: step.scope, bindings: &step.bindings, lent },
            };
            view.all(&block.outputs)
        }
        PlanKind::ForEach(each) => {
            let mut columns: Map<String, Json> = Map::new();
            let instances = state.children(node);
            let column = || Json::Array(vec![Json::Null; instances.len()]);
            if state.is_expanded(node) {
                let known = state.plan.output_names(state.plan.segment(each.body).first);
                columns.extend(known.into_iter().flatten().map(|name| (name, column())));
            }
            for (row, instance) in instances.iter().enumerate() {
                if state.node(*instance).status == Status::Succeeded
                    && let Json::Object(outputs) = outputs_for(state, *instance, lent)?
                {
                    for (name, value) in outputs {
                        columns.entry(name).or_insert_with(column)[row] = value;
                    }
                }
            }
            Ok(Json::Object(columns))
        }
    }
}

/// A list of nulls in place of an output of a `for_each` whose name is known only from an instance that succeeded, where
/// there is none.
fn nameless(state: &RunState, node: NodeId) -> Option<Json> {
    let PlanKind::ForEach(each) = &state.step(node).kind else { return None };
    let open = state.plan.output_names(state.plan.segment(each.body).first).is_none();
    let instances = state.children(node);
    let none = instances.iter().all(|n| state.node(*n).status != Status::Succeeded);
    (open && none && state.is_expanded(node)).then(|| Json::Array(vec![Json::Null; instances.len()]))
}

/// Refuses what the playbooks around a step were given against the rules of their inputs, also where the step itself
/// uses none of it: nothing of such a playbook acts. What has no value is an error where it is used.
fn refuse_given(state: &RunState, node: NodeId, lent: Lent<'_>) -> Result<(), RenderError> {
    let mut at = state.step(node).scope;
    while let Some((block, given)) = &state.plan.scope(at).used_by {
        let view = View { state, node, scope: at, bindings: &[], lent };
        for decl in &state.plan.scope(at).inputs {
            // Literals were checked with the playbook.
            let template = given.get(&decl.name).filter(|v| !v.is_literal());
            if let Some(template) = template
                && let Ok(Some(value)) = view.given(*block, &template)
            {
                view.allowed(*block, decl, &value)?;
            }
        }
        at = state.plan.step(*block).scope;
    }
    Ok(())
}

impl View<'_> {
    fn all(&self, outputs: &[(String, ValueTemplate)]) -> Result<Json, RenderError> {
        let mut all = Map::new();
        for (name, value) in outputs {
            all.insert(name.clone(), self.render(value)?);
        }
        Ok(Json::Object(all))
    }

    fn render(&self, value: &ValueTemplate) -> Result<Json, RenderError> {
        let mut references = Vec::new();
        value.for_each_reference(&mut |r| references.push(r.clone()));
        value.render(&self.context(references.iter())?)
    }

    fn context<'r>(&self, references: impl Iterator<Item = &'r Reference>) -> Result<Json, RenderError> {
        let mut context = Map::new();
        for reference in references {
            self.add(&mut context, reference)?;
        }
        Ok(Json::Object(context))
    }

    fn add(&self, context: &mut Map<String, Json>, reference: &Reference) -> Result<(), RenderError> {
        let Some(root) = reference.path.first() else { return Ok(()) };
        let name = reference.path.get(1).map(String::as_str);
        match (root.as_str(), name) {
            ("inputs", Some(name)) => {
                if !has(context, &["inputs", name])
                    && let Some(value) = self.input(name)?
                {
                    put(context, &["inputs", name], value);
                }
            }
            ("inputs", None) => {
                for decl in &self.state.plan.scope(self.scope).inputs {
                    if let Some(value) = self.input(&decl.name)? {
                        put(context, &["inputs", &decl.name], value);
                    }
                }
            }
            ("secrets", Some(name)) => {
                let secret = self.lent.secrets.and_then(|s| s.get(self.scope.0 as usize)?.get(name));
                if let Some(secret) = secret {
                    put(context, &["secrets", name], secret.clone());
                }
            }
            ("steps", Some(id)) => self.add_step(context, id, reference)?,
            ("run", _) if !context.contains_key("run") => {
                context.insert("run".to_owned(), self.run());
            }
            ("playbook", _) if !context.contains_key("playbook") => {
                let scope = self.state.plan.scope(self.scope);
                let value = json!({ "name": scope.playbook, "description": scope.description });
                context.insert("playbook".to_owned(), value);
            }
            ("targets", Some(name)) => {
                let members = self.state.plan.targets.iter().find(|t| *t.name == name).and_then(|t| match &t.kind {
                    TargetKind::Group(members) => Some(members.iter().map(|m| Json::from(m.value.clone())).collect()),
                    _ => None,
                });
                if let Some(members) = members {
                    put(context, &["targets", name], Json::Array(members));
                }
            }
            ("target", _) => {
                context.insert("target".to_owned(), json!({ "name": self.lent.target.unwrap_or("local") }));
            }
            (root, _) => {
                let item = self.state.items(self.node).into_iter().rev().find(|(name, ..)| *name == root);
                if let Some((_, item, _)) = item
                    && item.masked
                    && !self.lent.even_masked
                    && name.is_none_or(|name| name == "value")
                {
                    return Err(masked(reference));
                }
                if let Some((name, item, index)) = item
                    && !context.contains_key(name)
                {
                    let value = json!({ "key": item.key, "value": item.value, "index": index });
                    context.insert(name.to_owned(), value);
                }
            }
        }
        Ok(())
    }

    fn add_step(&self, context: &mut Map<String, Json>, id: &str, reference: &Reference) -> Result<(), RenderError> {
        let Some(binding) = self.bindings.iter().find(|b| &*b.id == id) else { return Ok(()) };
        let Some(node) = self.state.resolve(self.node, binding.step) else { return Ok(()) };
        let n = self.state.node(node);
        put(context, &["steps", id, "status"], n.forward_name().into());
        if reference.path.get(2).map(String::as_str) != Some("outputs") {
            return Ok(());
        }
        if !self.lent.even_masked && self.is_masked(node, reference.path.get(3).map(String::as_str)) {
            return Err(masked(reference));
        }
        let ended_well = n.status == Status::Succeeded;
        let has_outputs =
            ended_well || n.outputs.is_some() || !matches!(self.state.step(node).kind, PlanKind::Action(_));
        if n.status == Status::Skipped || !has_outputs {
            if reference.optional {
                return Ok(());
            }
            let message = format!("step {} is {}, so it has no outputs", n.path, n.forward_name());
            return Err(RenderError { message });
        }
        if !has(context, &["steps", id, "outputs"]) {
            let lent = Lent { even_masked: self.lent.even_masked, ..Lent::default() };
            put(context, &["steps", id, "outputs"], outputs_for(self.state, node, lent)?);
        }
        if let Some(name) = reference.path.get(3)
            && !has(context, &["steps", id, "outputs", name])
            && let Some(nulls) = nameless(self.state, node)
        {
            put(context, &["steps", id, "outputs", name], nulls);
        }
        Ok(())
    }

    /// Whether of an output of a step (None = any) only the mask of a secret is left. A block's own are looked at when
    /// they are worked out.
    fn is_masked(&self, node: NodeId, output: Option<&str>) -> bool {
        match self.state.step(node).kind {
            PlanKind::Action(_) => {
                self.state.node(node).masked().iter().any(|name| output.is_none_or(|output| output == name))
            }
            PlanKind::Block(_) => false,
            PlanKind::ForEach(_) => self.state.children(node).into_iter().any(|n| self.is_masked(n, output)),
        }
    }

    fn input(&self, name: &str) -> Result<Option<Json>, RenderError> {
        let scope = self.state.plan.scope(self.scope);
        let Some((block, given)) = &scope.used_by else {
            let own = self.state.inputs().and_then(|i| i.get(name));
            return Ok(own.or_else(|| self.lent.secret_inputs?.get(name)).cloned());
        };
        let default = |decl: &InputDecl| decl.default.as_ref().map(|d| d.value.clone());
        let decl = scope.inputs.iter().find(|d| *d.name == name);
        let Some(value) = given.get(name) else { return Ok(decl.and_then(default)) };
        let Some(value) = self.given(*block, &value)? else { return Ok(None) };
        decl.map_or(Ok(()), |decl| self.allowed(*block, decl, &value))?;
        Ok(Some(value))
    }

    /// A value that this playbook is given, worked out where it is used.
    fn given(&self, block: StepIdx, value: &ValueTemplate) -> Result<Option<Json>, RenderError> {
        let Some(at) = self.enclosing(block) else { return Ok(None) };
        let step = self.state.step(at);
        let outer = View { node: at, scope: step.scope, bindings: &step.bindings, ..*self };
        outer.render(value).map(Some)
    }

    /// Whether the declaration of an input of this playbook allows a value.
    fn allowed(&self, block: StepIdx, decl: &InputDecl, value: &Json) -> Result<(), RenderError> {
        if self.lent.even_masked {
            // Only shown: a mask need not be what the secret was.
            return Ok(());
        }
        values::check(decl, value).map_err(|violation| {
            let step = self.enclosing(block).map(|at| self.state.path(at));
            let step = step.map_or_else(String::new, |path| format!(", given by step {path},"));
            let playbook = &self.state.plan.scope(self.scope).playbook;
            let message =
                format!("the input `{}` of playbook `{playbook}`{step} {}", decl.name.value, violation.message);
            RenderError { message }
        })
    }

    /// The node of a block, from somewhere inside it or from itself.
    fn enclosing(&self, block: StepIdx) -> Option<NodeId> {
        let mut at = self.node;
        while !RunState::is_root(at) {
            if self.state.node(at).step == block {
                return Some(at);
            }
            at = self.state.parent(at);
        }
        None
    }

    fn run(&self) -> Json {
        let created = self.state.created.as_ref();
        let scheduled = created.and_then(|c| c.options.scheduled_at);
        json!({
            "id": self.state.run_id(),
            "status": self.state.status_for_finally(),
            "started_at": self.state.started_at.map(timestamp),
            "scheduled_at": scheduled.map(timestamp),
            "by": created.map(|c| c.by.clone()),
            "failed_step": self.state.failure.map(|f| Arc::clone(self.state.path(f))),
        })
    }
}

fn masked(reference: &Reference) -> RenderError {
    let path = reference.path.join(".");
    let message = format!(
        "`{path}` held the text of a secret, and only its mask was kept: refer to the secret itself, or give it a \
         value that is no part of other words"
    );
    RenderError { message }
}

fn has(context: &Map<String, Json>, path: &[&str]) -> bool {
    let Some((last, up)) = path.split_last() else { return false };
    let mut at = context;
    for key in up {
        match at.get(*key) {
            Some(Json::Object(inner)) => at = inner,
            _ => return false,
        }
    }
    at.contains_key(*last)
}

fn put(context: &mut Map<String, Json>, path: &[&str], value: Json) {
    let Some((last, up)) = path.split_last() else { return };
    let mut at = context;
    for key in up {
        let inner = at.entry(*key).or_insert_with(|| Json::Object(Map::new()));
        let Json::Object(inner) = inner else { return };
        at = inner;
    }
    at.insert((*last).to_owned(), value);
}

/// RFC 3339 in UTC, to the millisecond.
pub fn timestamp(ms: u64) -> String {
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |t| format!("{t:.3}"))
}
