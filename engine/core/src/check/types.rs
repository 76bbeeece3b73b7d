//! Values of a type that can never do where they stand: in conditions, and as the items of a `for_each`. Knows what
//! declarations say, and takes all else for what may fit.

use serde_json::json;

use super::place::Placed;
use crate::Json;
use crate::diagnostic::{Code, Diagnostic};
use crate::plan::{PlanKind, Scope};
use crate::playbook::model::{InputDecl, InputType};
use crate::template::{Reference, ValueTemplate};

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
    }
    placed.diagnostics.append(&mut found);
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
