//! Values that are known, or whose kind is, where a playbook that is used, a target or the key of an instance takes them.

use super::{Known, Schemas, written_items};
use crate::Json;
use crate::check::place::Placed;
use crate::diagnostic::{Code, Diagnostic};
use crate::instance;
use crate::plan::{PlanForEach, ScopeIdx};
use crate::playbook::model::{InputDecl, InputType, TargetKind};
use crate::template::{Reference, Template, ValueTemplate, kind, walk};

/// What a step gives to the inputs of the playbook that it uses.
pub(super) fn to_playbook<'p>(schemas: &'p Schemas<'p>, scope: ScopeIdx, found: &mut Vec<Diagnostic>) {
    let inside = schemas.of_scope(scope).scope();
    let Some((user, ValueTemplate::Map(given))) = &inside.used_by else { return };
    let known = schemas.of_step(*user, false);
    for (name, value) in given {
        let Some(decl) = inside.inputs.iter().find(|decl| decl.name.value == *name) else { continue };
        if let ValueTemplate::Text(template) = value
            && let Some(is) = known.renders(template)
            && !takes(decl, &is)
        {
            found.push(not_taken(&known, decl, template, &is, &inside.playbook));
        }
        super::templates(&known, value, found);
    }
}

fn takes(decl: &InputDecl, is: &Json) -> bool {
    match decl.input_type {
        InputType::String | InputType::Path | InputType::Duration => is.is_string(),
        InputType::Integer | InputType::Number => is.is_number(),
        InputType::Boolean => is.is_boolean(),
        InputType::List => is.is_array(),
        InputType::Map => is.is_object(),
    }
}

fn not_taken(known: &Known<'_>, decl: &InputDecl, template: &Template, is: &Json, playbook: &str) -> Diagnostic {
    let reference = template.printed().next().filter(|_| template.is_whole());
    let what = match reference {
        Some(r) => format!("`{}` is {}", r.path.join("."), type_of(known, r, is)),
        None if template.is_whole() => format!("this template gives {}", kind(is)),
        None => "a template with text around it gives a string".to_owned(),
    };
    let (name, wants) = (&decl.name.value, decl.input_type.with_article());
    let message = format!("the input `{name}` of playbook `{playbook}` must be {wants}, and {what}");
    let span = reference.map_or_else(|| template.span(), |r| r.span);
    let help = match reference {
        None if !template.is_whole() => {
            "let the value be one {{ … }} and nothing else: then it keeps its type".to_owned()
        }
        Some(r) if takes(decl, &Json::String(String::new())) && (is.is_number() || is.is_boolean()) => {
            format!("for its text write `{{{{json {}}}}}`", r.path.join("."))
        }
        _ => format!("give it {wants}"),
    };
    Diagnostic::new(Code::WrongStepInput, message, span, "of another type")
        .label(decl.name.span, "declared here")
        .help(help)
}

fn type_of(known: &Known<'_>, reference: &Reference, is: &Json) -> String {
    known.input(reference).map_or_else(|| kind(is).to_owned(), |decl| decl.input_type.with_article())
}

/// A target that is an item of a list that is written out.
pub(super) fn targets(placed: &Placed<'_>, known: &Known<'_>, target: &Template, found: &mut Vec<Diagnostic>) {
    let Some(reference) = target.printed().next().filter(|_| target.is_whole()) else { return };
    let [item, value, rest @ ..] = reference.path.as_slice() else { return };
    let Some(items) = known.items(item).filter(|_| value == "value").and_then(written_items) else { return };
    let declared = placed.top.as_ref().map_or(&[][..], |top| &top.targets);
    let is_target = |name: &str| {
        let of_this_name = declared.iter().find(|t| t.name.value == name);
        name == "local" || of_this_name.is_some_and(|t| !matches!(t.kind, TargetKind::Group(_)))
    };
    let names = items.iter().filter_map(|item| walk(item, rest).ok()?.as_str());
    for name in names.filter(|name| !is_target(name)) {
        let message = format!("there is no target `{name}`, which `{}` is for one item", reference.path.join("."));
        let diagnostic = Diagnostic::new(Code::UnknownTarget, message, reference.span, "not declared");
        found.push(diagnostic.help("declare it under `targets:`; a group is a list of targets, not one"));
    }
}

/// Keys of instances that cannot be worked out, of items that are written out.
pub(super) fn keys(each: &PlanForEach, found: &mut Vec<Diagnostic>) {
    let (Some(key), Some(items)) = (&each.key, each.items.literal()) else { return };
    if !key.references().iter().all(|r| r.path.first() == Some(&each.as_name)) {
        return;
    }
    let names: Vec<Option<&str>> = match items {
        Json::Object(map) => map.keys().map(|key| Some(key.as_str())).collect(),
        _ => vec![None; items.as_array().map_or(0, Vec::len)],
    };
    let failed = written_items(each).into_iter().flatten().zip(names).enumerate().find_map(|(at, (item, name))| {
        let context = instance::context(&each.as_name, name, at, item);
        Some((at, name, key.render_string(&context).err()?))
    });
    if let Some((at, name, why)) = failed {
        let item = name.map_or_else(|| at.to_string(), |name| format!("`{name}`"));
        let message = format!("the key of item {item} cannot be worked out: {}", why.message);
        let span = key.references().first().map_or_else(|| key.span(), |r| r.span);
        found.push(Diagnostic::new(Code::WrongValue, message, span, "no key"));
    }
}
