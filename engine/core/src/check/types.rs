//! Values of a type that can never do where they stand: in conditions, as the items of a `for_each`, and as inputs of a
//! step. Knows what declarations and schemas say, and takes all else for what may fit.

use serde_json::json;

use super::place::Placed;
use super::schema::Misplaced;
use crate::Json;
use crate::diagnostic::{Code, Diagnostic};
use crate::plan::{PlanAction, PlanKind, PlanRollback, Scope};
use crate::playbook::model::{InputDecl, InputType};
use crate::template::{Reference, Template, ValueTemplate};

pub(super) fn check(placed: &mut Placed<'_>) {
    let mut found = Vec::new();
    for step in &placed.steps {
        let scope = &placed.scopes[step.scope.0 as usize];
        if let Some(when) = &step.when {
            for misfit in when.misfits(&|r| sample(scope, r), true) {
                let diagnostic = Diagnostic::new(Code::TypesDoNotFit, misfit.message, misfit.span, "of another type");
                found.push(diagnostic.help("values of two types are neither compared nor converted in silence"));
            }
        }
        if let PlanKind::ForEach(each) = &step.kind
            && let ValueTemplate::Text(template) = &each.items
            && template.is_whole()
            && let Some(reference) = template.printed().next()
            && let Some(decl) = input(scope, reference)
        {
            found.extend(no_items(decl, reference));
        }
        if let PlanKind::Action(action) = &step.kind {
            found.extend(step_inputs(placed, scope, action));
            if let PlanRollback::Action { action, .. } = &action.rollback {
                found.extend(step_inputs(placed, scope, action));
            }
        }
    }
    placed.diagnostics.append(&mut found);
}

/// What is one reference whose type no value can have that the step type takes there.
fn step_inputs(placed: &Placed<'_>, scope: &Scope, action: &PlanAction) -> Vec<Diagnostic> {
    let Some(schema) = placed.schemas.get(action.step_type.descriptor().name) else { return Vec::new() };
    let known = |template: &Template| sample(scope, template.printed().next()?);
    let misplaced = schema.compiled.misplaced(&action.with, &known).into_iter();
    // An expression is read as it stands there, and never as a template.
    let rendered = misplaced.filter(|m| action.expressions.iter().all(|(pointer, _)| *pointer != m.pointer));
    rendered.filter_map(|m| wrong_input(scope, &m)).collect()
}

fn wrong_input(scope: &Scope, misplaced: &Misplaced<'_>) -> Option<Diagnostic> {
    let reference = misplaced.template.printed().next()?;
    let (name, wants, path) = (&misplaced.name, &misplaced.wants, reference.path.join("."));
    let decl = input(scope, reference);
    let is = decl.map_or_else(|| "a string".to_owned(), |decl| decl.input_type.with_article());
    let message = format!("`{name}` wants {wants}, and `{path}` is {is}");
    let diagnostic = Diagnostic::new(Code::WrongStepInput, message, reference.span, is);
    let Some(decl) = decl else { return Some(diagnostic.help(format!("give it {wants}"))) };
    let help = match decl.input_type {
        InputType::Integer | InputType::Number | InputType::Boolean if misplaced.wants_text => {
            format!("for its text write `{{{{json {path}}}}}`, or declare it as `type: string`")
        }
        InputType::List if misplaced.wants_text => {
            format!("make one text of it: `{{{{join {path} \",\"}}}}`, or declare it as `type: string`")
        }
        _ => format!("declare it with the type that fits, or give `{name}` something else"),
    };
    Some(diagnostic.label(decl.name.span, "declared here").help(help))
}

fn no_items(decl: &InputDecl, reference: &Reference) -> Option<Diagnostic> {
    if matches!(decl.input_type, InputType::List | InputType::Map) {
        return None;
    }
    let (name, is) = (&decl.name.value, decl.input_type.with_article());
    let message = format!("`for_each` wants a list or a map of items, and the input `{name}` is {is}");
    let help = match decl.input_type {
        InputType::String | InputType::Path => {
            format!("declare it as `type: list`, or split it: `{{{{split inputs.{name} \",\"}}}}`")
        }
        _ => "declare it as `type: list`".to_owned(),
    };
    let diagnostic = Diagnostic::new(Code::WrongType, message, reference.span, "not a list");
    Some(diagnostic.label(decl.name.span, "declared here").help(help))
}

/// The declaration of a reference to an input as a whole.
fn input<'s>(scope: &'s Scope, reference: &Reference) -> Option<&'s InputDecl> {
    let [root, name] = reference.path.as_slice() else { return None };
    scope.inputs.iter().find(|decl| root == "inputs" && decl.name.value == *name)
}

/// A value of the type that a reference has, where that is certain.
fn sample(scope: &Scope, reference: &Reference) -> Option<Json> {
    if let Some(decl) = input(scope, reference) {
        return Some(match decl.input_type {
            InputType::String | InputType::Path | InputType::Duration => json!(""),
            InputType::Integer => json!(0),
            InputType::Number => json!(0.5),
            InputType::Boolean => json!(false),
            InputType::List => json!([]),
            InputType::Map => json!({}),
        });
    }
    let path: Vec<&str> = reference.path.iter().map(String::as_str).collect();
    match path.as_slice() {
        ["steps", _, "status"] | ["run", "id"] | ["playbook", "name"] => Some(json!("")),
        _ => None,
    }
}
