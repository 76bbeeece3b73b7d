//! Values of a type that can never do where they stand: in conditions, in templates, as the items of a `for_each`, as
//! inputs of a step or of a playbook. What may fit is left to the run.

mod given;
pub(super) mod known;

use super::place::Placed;
use super::schema::Misplaced;
use crate::Json;
use crate::diagnostic::{Code, Diagnostic};
use crate::plan::{PlanAction, PlanForEach, PlanKind, PlanRollback, ScopeIdx, StepIdx};
use crate::playbook::model::{InputDecl, InputType};
use crate::template::{Misfit, Template, ValueTemplate, kind};
use known::{Known, Schemas, written_items};

pub(super) fn check(placed: &mut Placed<'_>) {
    let mut found = misplaced(placed);
    placed.diagnostics.append(&mut found);
}

fn misplaced(placed: &Placed<'_>) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let schemas = &Schemas::new(placed);
    for at in 0..placed.steps.len() {
        step(placed, schemas, StepIdx(at as u32), &mut found);
    }
    for at in 0..placed.scopes.len() {
        let known = schemas.of_scope(ScopeIdx(at as u32));
        let outputs = known.scope().outputs.iter().map(|(_, value)| value);
        outputs.for_each(|value| templates(&known, value, &mut found));
        absent(&known, &placed.scope_notes[at].references, &mut found);
        given::to_playbook(schemas, ScopeIdx(at as u32), &mut found);
    }
    if let Some(top) = &placed.top {
        let known = schemas.of_scope(ScopeIdx(0));
        top.locks.iter().for_each(|lock| text(&known, lock, &mut found));
    }
    found
}

fn step<'p>(placed: &Placed<'_>, schemas: &'p Schemas<'p>, at: StepIdx, found: &mut Vec<Diagnostic>) {
    let step = &placed.steps[at.at()];
    let known = schemas.of_step(at, false);
    if let Some(when) = &step.when {
        conditions(&known, when, found);
    }
    step.locks.iter().for_each(|lock| text(&known, lock, found));
    match &step.kind {
        PlanKind::ForEach(each) => for_each(&known, each, found),
        PlanKind::Block(block) => {
            let inside = schemas.of_step(at, true);
            block.outputs.iter().for_each(|(_, value)| templates(&inside, value, found));
        }
        PlanKind::Action(one) => {
            action(placed, &known, one, found);
            if let PlanRollback::Action { action: other, .. } = &one.rollback {
                action(placed, &known, other, found);
            }
        }
    }
    let inside = schemas.of_step(at, true);
    let (of_outputs, rest): (Vec<_>, Vec<_>) =
        placed.notes[at.at()].references.iter().partition(|n| n.place == super::place::Place::BlockOutputs);
    absent(&known, rest, found);
    absent(&inside, of_outputs, found);
}

fn conditions(known: &Known<'_>, expr: &crate::expr::Expr, found: &mut Vec<Diagnostic>) {
    for misfit in expr.misfits(&|r| known.sample(r), true) {
        let diagnostic = Diagnostic::new(Code::TypesDoNotFit, misfit.message, misfit.span, "of another type");
        found.push(diagnostic.help("values of two types are neither compared nor converted in silence"));
    }
}

fn action(placed: &Placed<'_>, known: &Known<'_>, action: &PlanAction, found: &mut Vec<Diagnostic>) {
    for (_, expr) in &action.expressions {
        conditions(known, expr, found);
    }
    action.target.iter().chain(action.env.iter().map(|(_, value)| value)).for_each(|t| text(known, t, found));
    if let Some(target) = &action.target {
        given::targets(placed, known, target, found);
    }
    // An expression is read as it stands there, and never as a template.
    if action.expressions.is_empty() {
        templates(known, &action.with, found);
    }
    let Some(schema) = placed.schemas.get(action.step_type.descriptor().name) else { return };
    let misplaced = schema.compiled.misplaced(&action.with, &|template: &Template| known.renders(template));
    let rendered =
        misplaced.into_iter().filter(|m| action.expressions.iter().all(|(pointer, _)| *pointer != m.pointer));
    found.extend(rendered.map(|m| wrong_input(known, &m)));
}

fn templates(known: &Known<'_>, value: &ValueTemplate, found: &mut Vec<Diagnostic>) {
    value.for_each_template(&mut |template| misfits(known, template, false, found));
}

/// A template that is rendered to text.
fn text(known: &Known<'_>, template: &Template, found: &mut Vec<Diagnostic>) {
    misfits(known, template, true, found);
}

fn misfits(known: &Known<'_>, template: &Template, text: bool, found: &mut Vec<Diagnostic>) {
    for Misfit { message, help, span } in template.misfits(&|r| known.sample(r), text) {
        found.push(Diagnostic::new(Code::TypesDoNotFit, message, span, "of another type").maybe_help(help));
    }
}

/// References that can never have a value.
fn absent<'n>(
    known: &Known<'_>,
    references: impl IntoIterator<Item = &'n super::place::Noted>,
    found: &mut Vec<Diagnostic>,
) {
    for reference in references.into_iter().map(|n| &n.reference).filter(|r| !r.optional) {
        if let Some(message) = known.never(reference) {
            found.push(Diagnostic::new(Code::TypesDoNotFit, message, reference.span, "never has a value"));
        }
    }
}

fn wrong_input(known: &Known<'_>, misplaced: &Misplaced<'_>) -> Diagnostic {
    let (name, wants, template) = (&misplaced.name, &misplaced.wants, misplaced.template);
    let Some(reference) = template.printed().next() else {
        let is = kind(&misplaced.is);
        let message = format!("`{name}` wants {wants}, and this template gives {is}");
        return Diagnostic::new(Code::WrongStepInput, message, template.span(), is).help(format!("give it {wants}"));
    };
    let path = reference.path.join(".");
    let decl = known.input(reference);
    let is = decl.map_or_else(|| kind(&misplaced.is).to_owned(), |decl| decl.input_type.with_article());
    let message = format!("`{name}` wants {wants}, and `{path}` is {is}");
    let diagnostic = Diagnostic::new(Code::WrongStepInput, message, reference.span, is);
    let text = match &misplaced.is {
        _ if !misplaced.wants_text => None,
        Json::Array(_) => Some(format!("make one text of it: `{{{{join {path} \",\"}}}}`")),
        Json::Number(_) | Json::Bool(_) => Some(format!("for its text write `{{{{json {path}}}}}`")),
        _ => None,
    };
    match (decl, text) {
        (None, text) => diagnostic.help(text.unwrap_or_else(|| format!("give it {wants}"))),
        (Some(decl), Some(text)) => {
            diagnostic.label(decl.name.span, "declared here").help(format!("{text}, or declare it as `type: string`"))
        }
        (Some(decl), None) => diagnostic
            .label(decl.name.span, "declared here")
            .help(format!("declare it with the type that fits, or give `{name}` something else")),
    }
}

fn for_each(known: &Known<'_>, each: &PlanForEach, found: &mut Vec<Diagnostic>) {
    templates(known, &each.items, found);
    given::keys(each, found);
    let ValueTemplate::Text(template) = &each.items else { return };
    let Some(is) = known.renders(template).filter(|is| !is.is_array() && !is.is_object()) else { return };
    let reference = template.printed().next();
    if let Some((decl, reference)) = reference.and_then(|r| Some((known.input(r)?, r))) {
        return found.push(no_items(decl, reference));
    }
    let what = reference.map_or_else(|| "this template gives".to_owned(), |r| format!("`{}` is", r.path.join(".")));
    let message = format!("`for_each` wants a list or a map of items, and {what} {}", kind(&is));
    let span = reference.map_or_else(|| template.span(), |r| r.span);
    let help =
        reference.filter(|_| is.is_string()).map(|r| format!("split it: `{{{{split {} \",\"}}}}`", r.path.join(".")));
    found.push(Diagnostic::new(Code::WrongType, message, span, "not a list").maybe_help(help));
}

fn no_items(decl: &InputDecl, reference: &crate::template::Reference) -> Diagnostic {
    let (name, is) = (&decl.name.value, decl.input_type.with_article());
    let message = format!("`for_each` wants a list or a map of items, and the input `{name}` is {is}");
    let help = match decl.input_type {
        InputType::String | InputType::Path => {
            format!("declare it as `type: list`, or split it: `{{{{split inputs.{name} \",\"}}}}`")
        }
        _ => "declare it as `type: list`".to_owned(),
    };
    let diagnostic = Diagnostic::new(Code::WrongType, message, reference.span, "not a list");
    diagnostic.label(decl.name.span, "declared here").help(help)
}
