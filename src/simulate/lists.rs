//! Outputs that a `for_each` goes over, found in the plan: in a simulation they are made up as lists, whose items have
//! the fields that the steps inside refer to. Knows nothing of what a real list would hold.

use std::collections::HashMap;

use runback_core::Json;
use runback_core::expr::Expr;
use runback_core::plan::{Binding, Plan, PlanForEach, PlanKind, ScopeIdx, StepIdx};
use runback_core::template::{Reference, Template, ValueTemplate};
use serde_json::{Map, json};

use super::script::bare;

/// By the path of a step without keys, and the name of its output: what it must hold.
pub(crate) type Lists = HashMap<(String, String), Json>;

/// Items of a made-up list: two, to be told apart.
const ITEMS: usize = 2;

pub(crate) fn of(plan: &Plan) -> Lists {
    let mut found = Found { plan, lists: Lists::new(), parts: HashMap::new() };
    // A `for_each` stands before what is in it: the inner ones say what an item of the outer one must hold.
    for at in (0..plan.steps.len()).rev() {
        let idx = StepIdx(at as u32);
        if let PlanKind::ForEach(each) = &plan.step(idx).kind
            && let Some(path) = lone(&each.items)
        {
            let item = found.item(idx, each, path.last().map_or("item", String::as_str));
            let from = From { bindings: &plan.step(idx).bindings, scope: plan.step(idx).scope, step: Some(idx) };
            found.follow(from, &path, Json::Array(vec![item]), 0);
        }
    }
    found.lists
}

/// The list of `ITEMS` items of which `wanted` shows one; `item` is what the step type itself makes up for one.
fn made_up(wanted: &Json, item: Option<Json>) -> Json {
    let mut shape = item.unwrap_or(Json::Null);
    lay_over(&mut shape, wanted.clone());
    (1..=ITEMS).map(|n| numbered(&shape, n)).collect()
}

/// Puts what must be there into what was made up.
pub(crate) fn put(made: &mut Json, wanted: &Json, item: &dyn Fn() -> Option<Json>) {
    match (made, wanted) {
        // A `for_each` goes over a map as well.
        (Json::Object(_), Json::Array(_)) => {}
        (Json::Array(list), Json::Array(_)) if !list.is_empty() => {}
        (made, Json::Array(one)) => *made = made_up(one.first().unwrap_or(&Json::Null), item()),
        (Json::Object(made), Json::Object(wanted)) => {
            for (name, value) in wanted {
                put(made.entry(name.clone()).or_insert(Json::Null), value, &|| None);
            }
        }
        (made @ (Json::Null | Json::String(_)), Json::Object(_)) => {
            *made = json!({});
            put(made, wanted, &|| None);
        }
        (made @ Json::Null, wanted) => *made = wanted.clone(),
        _ => {}
    }
}

/// Where a path is looked up from.
#[derive(Clone, Copy)]
struct From<'p> {
    bindings: &'p [Binding],
    scope: ScopeIdx,
    /// None = the outputs of a sub-playbook, which stand in no step.
    step: Option<StepIdx>,
}

struct Found<'p> {
    plan: &'p Plan,
    lists: Lists,
    /// What an item of a `for_each` must hold for those inside it.
    parts: HashMap<StepIdx, Json>,
}

impl<'p> Found<'p> {
    /// To the step whose output it is; a value that is made of others is none.
    fn follow(&mut self, from: From<'p>, path: &[String], value: Json, depth: usize) {
        let plan = self.plan;
        let [root, rest @ ..] = path else { return };
        if depth > 50 {
            return;
        }
        match (root.as_str(), rest) {
            ("steps", [id, outputs, name, below @ ..]) if outputs == "outputs" => {
                let Some(binding) = from.bindings.iter().find(|b| *b.id == **id) else { return };
                let step = plan.step(binding.step);
                let (given, from) = match &step.kind {
                    PlanKind::ForEach(_) => return,
                    PlanKind::Action(action) => {
                        let key = (bare(&plan.path(binding.step)), name.clone());
                        lay_over(self.lists.entry(key).or_insert(Json::Null), within(below, value.clone()));
                        let step_type = action.step_type.descriptor().name;
                        if step_type != "set" {
                            return;
                        }
                        let from = From { bindings: &step.bindings, scope: step.scope, step: Some(binding.step) };
                        (action.with.get(name), from)
                    }
                    PlanKind::Block(block) => {
                        let scope = block.scope.map(|s| (s, plan.scope(s)));
                        let outputs = scope.map_or(&block.outputs, |(_, s)| &s.outputs);
                        let given = outputs.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
                        let from = match scope {
                            Some((scope, s)) => From { bindings: &s.bindings, scope, step: None },
                            None => From { bindings: &step.bindings, scope: step.scope, step: Some(binding.step) },
                        };
                        (given, from)
                    }
                };
                if let Some(path) = given.as_ref().and_then(lone) {
                    self.follow(from, &path, within(below, value), depth + 1);
                }
            }
            ("inputs", [name, below @ ..]) => {
                let Some((block, given)) = &plan.scope(from.scope).used_by else { return };
                let step = plan.step(*block);
                let from = From { bindings: &step.bindings, scope: step.scope, step: Some(*block) };
                if let Some(path) = given.get(name).as_ref().and_then(lone) {
                    self.follow(from, &path, within(below, value), depth + 1);
                }
            }
            (name, [of_item, below @ ..]) if of_item == "value" => {
                let Some(outer) = from.step.and_then(|s| self.around(s, name)) else { return };
                lay_over(self.parts.entry(outer).or_insert(Json::Null), within(below, value));
            }
            _ => {}
        }
    }

    /// The innermost `for_each` around a step whose items go by this name.
    fn around(&self, step: StepIdx, name: &str) -> Option<StepIdx> {
        let mut at = step;
        loop {
            let owner = self.plan.segment(self.plan.step(at).segment).owner?;
            match &self.plan.step(owner).kind {
                PlanKind::ForEach(each) if each.as_name == name => return Some(owner),
                _ => at = owner,
            }
        }
    }

    /// An item as the steps inside want it; else a text that has the list's name.
    fn item(&mut self, idx: StepIdx, each: &PlanForEach, list: &str) -> Json {
        let mut item = self.parts.remove(&idx).unwrap_or(Json::Null);
        let mut take = |r: &Reference| {
            if let [root, value, below @ ..] = r.path.as_slice()
                && *root == each.as_name
                && value == "value"
                && !below.is_empty()
            {
                let leaf = below.last().map_or(Json::Null, |last| format!("<{last}>").into());
                lay_over(&mut item, within(below, leaf));
            }
        };
        each.key.iter().flat_map(Template::references).for_each(&mut take);
        self.inside(each, &each.as_name, &mut take);
        if item.is_null() { format!("<{list}>").into() } else { item }
    }

    /// All references of the steps in a `for_each`, apart from those where the name means another item.
    fn inside(&self, each: &PlanForEach, name: &str, take: &mut impl FnMut(&Reference)) {
        for idx in self.plan.segment(each.body).range().map(StepIdx) {
            let step = self.plan.step(idx);
            step.when.iter().flat_map(Expr::references).for_each(&mut *take);
            step.locks.iter().flat_map(Template::references).for_each(&mut *take);
            match &step.kind {
                PlanKind::Action(action) => {
                    action.with.for_each_reference(&mut |r| take(r));
                    action.expressions.iter().flat_map(|(_, e)| e.references()).for_each(&mut *take);
                    action.target.iter().flat_map(Template::references).for_each(&mut *take);
                    action.env.iter().flat_map(|(_, t)| t.references()).for_each(&mut *take);
                }
                PlanKind::Block(block) => {
                    block.outputs.iter().for_each(|(_, v)| v.for_each_reference(&mut |r| take(r)));
                    if let Some((_, given)) = block.scope.and_then(|s| self.plan.scope(s).used_by.as_ref()) {
                        given.for_each_reference(&mut |r| take(r));
                    }
                }
                PlanKind::ForEach(inner) => {
                    inner.items.for_each_reference(&mut |r| take(r));
                    if inner.as_name != name {
                        self.inside(inner, name, take);
                    }
                }
            }
        }
    }
}

/// The path, where a value is exactly one `{{ path }}`.
fn lone(value: &ValueTemplate) -> Option<Vec<String>> {
    let ValueTemplate::Text(template) = value else { return None };
    let [reference] = template.references() else { return None };
    let text = template.text().trim().strip_prefix("{{")?.strip_suffix("}}")?.trim();
    (text == reference.path.join(".")).then(|| reference.path.clone())
}

/// A value below these keys.
fn within(keys: &[String], value: Json) -> Json {
    keys.iter().rev().fold(value, |value, key| Json::Object(Map::from_iter([(key.clone(), value)])))
}

/// What is there stays, apart from a plain value that must have fields or items.
fn lay_over(base: &mut Json, more: Json) {
    match (base, more) {
        (Json::Object(base), Json::Object(more)) => {
            for (name, value) in more {
                lay_over(base.entry(name).or_insert(Json::Null), value);
            }
        }
        (Json::Array(base), Json::Array(more)) => {
            for (at, value) in more.into_iter().enumerate() {
                match base.get_mut(at) {
                    Some(base) => lay_over(base, value),
                    None => base.push(value),
                }
            }
        }
        (base @ Json::String(_), more @ (Json::Object(_) | Json::Array(_))) | (base @ Json::Null, more) => *base = more,
        _ => {}
    }
}

/// Made-up texts with the number of their item, so that no two items are alike. A list in an item has as many as any.
fn numbered(value: &Json, n: usize) -> Json {
    match value {
        Json::String(text) => match text.strip_prefix('<').and_then(|t| t.strip_suffix('>')) {
            Some(inner) => format!("<{inner} {n}>").into(),
            None => value.clone(),
        },
        Json::Array(list) => match list.first() {
            Some(item) => (1..=ITEMS).map(|inner| numbered(&numbered(item, n), inner)).collect(),
            None => value.clone(),
        },
        Json::Object(map) => map.iter().map(|(name, value)| (name.clone(), numbered(value, n))).collect(),
        other => other.clone(),
    }
}
