//! What is known of a reference's value before anything runs: its kind, or that it can never be there. Knows what
//! declarations, schemas and written-out items say, and nothing of all else.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use serde_json::json;

use crate::Json;
use crate::check::place::{Frame, Note, Placed, ScopeNote};
use crate::check::schema::CompiledSchema;
use crate::plan::{Binding, PlanForEach, PlanKind, PlanStep, Scope, ScopeIdx, StepIdx};
use crate::playbook::model::{InputDecl, InputType};
use crate::template::{Reference, Template, ValueTemplate, kind, walk};

/// Outputs of blocks that are outputs of blocks are followed so deep.
const MAX_DEPTH: u8 = 8;

/// What is asked again and again.
pub(in crate::check) struct Schemas<'p> {
    steps: &'p [PlanStep],
    notes: &'p [Note],
    frames: &'p [Frame],
    scopes: &'p [Scope],
    scope_notes: &'p [ScopeNote],
    outputs: RefCell<HashMap<&'static str, Arc<CompiledSchema>>>,
}

/// Where a reference stands.
#[derive(Clone, Copy)]
pub(in crate::check) struct Known<'p> {
    schemas: &'p Schemas<'p>,
    scope: ScopeIdx,
    frame: usize,
    bindings: &'p [Binding],
    depth: u8,
}

impl<'p> Schemas<'p> {
    pub(in crate::check) fn new(placed: &'p Placed<'_>) -> Self {
        Self {
            steps: &placed.steps,
            notes: &placed.notes,
            frames: &placed.frames,
            scopes: &placed.scopes,
            scope_notes: &placed.scope_notes,
            outputs: RefCell::default(),
        }
    }

    /// What a step knows. `inside`: where the outputs of a block are worked out.
    pub(in crate::check) fn of_step(&'p self, step: StepIdx, inside: bool) -> Known<'p> {
        let (note, plan) = (&self.notes[step.at()], &self.steps[step.at()]);
        let frame = note.inside.filter(|_| inside).unwrap_or(note.frame);
        Known { schemas: self, scope: plan.scope, frame, bindings: &plan.bindings, depth: 0 }
    }

    /// What the top of a playbook knows.
    pub(in crate::check) fn of_scope(&'p self, scope: ScopeIdx) -> Known<'p> {
        let at = scope.0 as usize;
        let (note, plan) = (&self.scope_notes[at], &self.scopes[at]);
        Known { schemas: self, scope, frame: note.frame, bindings: &plan.bindings, depth: 0 }
    }

    fn outputs(&self, name: &'static str, schema: impl FnOnce() -> Json) -> Arc<CompiledSchema> {
        let make = || Arc::new(CompiledSchema::new(&schema()));
        Arc::clone(self.outputs.borrow_mut().entry(name).or_insert_with(make))
    }
}

impl<'p> Known<'p> {
    pub(in crate::check) fn scope(&self) -> &'p Scope {
        &self.schemas.scopes[self.scope.0 as usize]
    }

    /// The declaration of a reference to an input as a whole.
    pub(in crate::check) fn input(&self, reference: &Reference) -> Option<&'p InputDecl> {
        let [root, name] = reference.path.as_slice() else { return None };
        self.scope().inputs.iter().find(|decl| root == "inputs" && decl.name.value == *name)
    }

    /// A value of the type that a reference has, where that is certain.
    pub(in crate::check) fn sample(&self, reference: &Reference) -> Option<Json> {
        let path: Vec<&str> = reference.path.iter().map(String::as_str).collect();
        match path.as_slice() {
            ["inputs", name] => self.scope().inputs.iter().find(|d| d.name.value == **name).map(of_input),
            ["steps", _, "status"] | ["run", "id"] | ["playbook" | "target", "name"] => Some(json!("")),
            ["steps", id, "outputs", name] => self.output(self.bindings.iter().find(|b| *b.id == **id)?.step, name),
            [item, "index"] if self.items(item).is_some() => Some(json!(0)),
            [item, "key"] if self.items(item).is_some() => Some(json!("")),
            [item, "value", rest @ ..] => {
                let items = written_items(self.items(item)?)?;
                let mut values = items.iter().map(|item| walk(item, rest).ok());
                let first = values.next()??;
                let alike = |other: Option<&Json>| other.is_some_and(|o| kind(o) == kind(first));
                (values.all(alike) && !first.is_null()).then(|| first.clone())
            }
            _ => None,
        }
    }

    /// Why a reference can never have a value, where that is certain.
    pub(in crate::check) fn never(&self, reference: &Reference) -> Option<String> {
        let path: Vec<&str> = reference.path.iter().map(String::as_str).collect();
        let known = match path.as_slice() {
            ["inputs", _, _, ..] => 2,
            ["steps", _, "status", _, ..] => 3,
            ["steps", _, "outputs", _, _, ..] => 4,
            [item, "value", rest @ ..] if !rest.is_empty() => {
                let items = written_items(self.items(item)?)?;
                let mut failures = items.iter().map(|item| walk(item, rest).err());
                let first = failures.next()??;
                let whole = format!("{item}.value");
                let message = told(&first.message, &whole);
                let no_parts = || format!("{message}, and has no parts");
                let is_plain = message == format!("`{whole}` is a string");
                let message = if is_plain { no_parts() } else { message };
                return failures.all(|f| f.is_some()).then_some(message);
            }
            _ => return None,
        };
        let whole = Reference { path: reference.path[..known].to_vec(), ..reference.clone() };
        let (is, below) = (self.sample(&whole)?, path[known]);
        let name = path[..known].join(".");
        match is {
            Json::Object(_) => None,
            Json::Array(_) if below.parse::<usize>().is_ok() => None,
            Json::Array(_) => {
                Some(format!("`{name}` is a list: it has items, which are counted from 0, but no `{below}`"))
            }
            other => Some(format!("`{name}` is {}, and has no `{below}`", kind(&other))),
        }
    }

    /// The `for_each` around that calls its item so.
    pub(in crate::check) fn items(&self, name: &str) -> Option<&'p PlanForEach> {
        let mut at = Some(self.frame);
        while let Some(frame) = at.map(|at| &self.schemas.frames[at]) {
            if frame.item.as_deref() == Some(name) {
                return match &self.schemas.steps[frame.container?.at()].kind {
                    PlanKind::ForEach(each) => Some(each),
                    PlanKind::Action(_) | PlanKind::Block(_) => None,
                };
            }
            at = frame.parent;
        }
        None
    }

    /// Of what a template gives.
    pub(in crate::check) fn gives(&self, value: &ValueTemplate) -> Option<Json> {
        match value {
            ValueTemplate::Literal(json) => Some(json.clone()).filter(|json| !json.is_null()),
            ValueTemplate::Text(template) => self.renders(template),
            ValueTemplate::List(_) => Some(json!([])),
            ValueTemplate::Map(_) => Some(json!({})),
        }
    }

    pub(in crate::check) fn renders(&self, template: &Template) -> Option<Json> {
        template.sample(&|reference| self.sample(reference))
    }

    fn output(&self, step: StepIdx, name: &str) -> Option<Json> {
        let schemas = self.schemas;
        let deeper = |known: Known<'p>| Known { depth: self.depth + 1, ..known };
        let named = |outputs: &'p [(String, ValueTemplate)], known: Known<'p>| {
            outputs.iter().find(|(n, _)| n == name).and_then(|(_, value)| deeper(known).gives(value))
        };
        match &schemas.steps[step.at()].kind {
            _ if self.depth > MAX_DEPTH => None,
            PlanKind::ForEach(_) => Some(json!([])),
            PlanKind::Action(action) => {
                let type_name = action.step_type.descriptor().name;
                schemas.outputs(type_name, || action.step_type.output_schema()).sample_of(name)
            }
            PlanKind::Block(block) => match block.scope {
                None => named(&block.outputs, schemas.of_step(step, true)),
                Some(scope) => named(&schemas.scopes.get(scope.0 as usize)?.outputs, schemas.of_scope(scope)),
            },
        }
    }
}

/// The items of a `for_each`, where they are all written out, and there are any.
pub(in crate::check) fn written_items(each: &PlanForEach) -> Option<Vec<&Json>> {
    let items: Vec<&Json> = match each.items.literal()? {
        Json::Array(list) => list.iter().collect(),
        Json::Object(map) => map.values().collect(),
        _ => return None,
    };
    (!items.is_empty()).then_some(items)
}

/// What [`walk`] says of a part, said of the whole.
fn told(message: &str, whole: &str) -> String {
    message.split_once(": ").map_or_else(
        || message.to_owned(),
        |(_, why)| match why.strip_prefix("what is in scope ") {
            Some(rest) => format!("`{whole}` {rest}"),
            None => why.strip_prefix('`').map_or_else(|| why.to_owned(), |rest| format!("`{whole}.{rest}")),
        },
    )
}

fn of_input(decl: &InputDecl) -> Json {
    match decl.input_type {
        InputType::String | InputType::Path | InputType::Duration => json!(""),
        InputType::Integer => json!(0),
        InputType::Number => json!(0.5),
        InputType::Boolean => json!(false),
        InputType::List => json!([]),
        InputType::Map => json!({}),
    }
}
