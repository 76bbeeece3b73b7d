//! Pass two: every reference and every `needs` is resolved against what is in scope, and becomes an edge.

use crate::diagnostic::{Code, Diagnostic};
use crate::plan::{self, ScopeIdx, StepIdx};
use crate::playbook::model::{InputType, TargetKind};
use crate::span::Span;
use crate::suggest::did_you_mean;
use crate::template::Reference;

use super::place::{Edge, Noted, Place, Placed, TARGET_ROOT, Why};

const ROOTS: [&str; 7] = ["inputs", "secrets", "steps", "run", "playbook", "target", "targets"];
const RUN_FIELDS: [&str; 6] = ["id", "status", "started_at", "scheduled_at", "by", "failed_step"];

/// Where a reference is looked up from.
#[derive(Clone, Copy)]
struct From {
    /// None = the top of a playbook (its outputs, its locks).
    step: Option<StepIdx>,
    scope: ScopeIdx,
    frame: usize,
}

pub(super) fn resolve(placed: &mut Placed<'_>) {
    for i in 0..placed.steps.len() {
        let step = StepIdx(i as u32);
        needs(placed, step);
        let references = std::mem::take(&mut placed.notes[i].references);
        let from = From { step: Some(step), scope: placed.steps[i].scope, frame: placed.notes[i].frame };
        for noted in &references {
            let inside = placed.notes[i].inside.filter(|_| noted.place == Place::BlockOutputs);
            reference(placed, From { frame: inside.unwrap_or(from.frame), ..from }, noted);
        }
        placed.notes[i].references = references;
    }
    for i in 0..placed.scopes.len() {
        let references = std::mem::take(&mut placed.scope_notes[i].references);
        let from = From { step: None, scope: ScopeIdx(i as u32), frame: placed.scope_notes[i].frame };
        for noted in &references {
            reference(placed, from, noted);
        }
    }
}

fn needs(placed: &mut Placed<'_>, step: StepIdx) {
    let note = &mut placed.notes[step.at()];
    let (frame, above, id_span) = (note.frame, note.above, note.id_span);
    let Some(given) = note.needs.take() else {
        if let Some(above) = above {
            placed.edges.push(Edge { from: step, to: above, span: id_span, why: Why::Order });
        }
        return;
    };
    for (i, need) in given.iter().enumerate() {
        let name = need.value.as_str();
        if given[..i].iter().any(|before| before.value == name) {
            let message = format!("`needs` names `{name}` twice");
            placed.diagnostics.push(Diagnostic::new(Code::NeedsTwice, message, need.span, "a second time"));
            continue;
        }
        match placed.frames[frame].ids.get(name).copied() {
            Some(to) if to == step => {
                let message = format!("step `{name}` needs itself");
                let diagnostic = Diagnostic::new(Code::NeedsSelf, message, need.span, "the step itself");
                placed.diagnostics.push(diagnostic.help("take it out of `needs`"));
            }
            Some(to) => placed.edges.push(Edge { from: step, to, span: need.span, why: Why::Needs }),
            None => unknown_need(placed, frame, name, need.span),
        }
    }
}

fn unknown_need(placed: &mut Placed<'_>, frame: usize, name: &str, span: Span) {
    let ids = &placed.frames[frame].ids;
    let elsewhere = placed.steps.iter().any(|s| &*s.id == name);
    let of_the_run = placed.frames[frame].finally && placed.frames[0].ids.contains_key(name);
    let help = match did_you_mean(name, ids.keys().map(|k| &**k)) {
        _ if of_the_run => Some(format!(
            "`finally` begins when all of `steps` is over, `{name}` too: leave it out; `steps.{name}.status` says how it ended"
        )),
        Some(near) => Some(format!("did you mean `{near}`?")),
        None if elsewhere => Some(format!(
            "`{name}` stands in another block; `needs` names steps of the same list (name the block instead)"
        )),
        None => None,
    };
    let message = format!("`needs` names `{name}`, and there is no such step here");
    placed.diagnostics.push(Diagnostic::new(Code::NeedsUnknown, message, span, "unknown step").maybe_help(help));
}

fn reference(placed: &mut Placed<'_>, from: From, noted: &Noted) {
    let r = &noted.reference;
    let Some(root) = r.path.first() else { return };
    match root.as_str() {
        "inputs" => input(placed, from, noted),
        "secrets" => secret(placed, from, noted),
        "steps" => step_reference(placed, from, noted),
        "run" => {
            fields(placed, r, "run", &RUN_FIELDS);
            if r.path.get(1).is_some_and(|f| f == "status" || f == "failed_step") && !in_finally(placed, from.frame) {
                let message = format!("`run.{}` is known only when the run has ended, in `finally`", r.path[1]);
                placed.diagnostics.push(Diagnostic::new(Code::NotReferable, message, r.span, "no value here"));
            }
        }
        "playbook" => fields(placed, r, "playbook", &["name", "description"]),
        "target" => fields(placed, r, "target", &["name"]),
        "targets" => group(placed, r),
        TARGET_ROOT => literal_target(placed, r),
        name if item_names(placed, from.frame, &noted.place).iter().any(|i| i == name) => {
            fields_below(placed, r, name, &["key", "value", "index"]);
            nothing_below(placed, r, name, &["key", "index"]);
        }
        name => unknown_root(placed, from, noted, name),
    }
}

fn in_finally(placed: &Placed<'_>, frame: usize) -> bool {
    let mut at = Some(frame);
    while let Some(frame) = at {
        if placed.frames[frame].finally {
            return true;
        }
        at = placed.frames[frame].parent;
    }
    false
}

fn item_names(placed: &Placed<'_>, frame: usize, place: &Place) -> Vec<String> {
    let mut names = Vec::new();
    if let Place::Key(name) = place {
        names.push(name.clone());
    }
    let mut at = Some(frame);
    while let Some(frame) = at {
        names.extend(placed.frames[frame].item.clone());
        at = placed.frames[frame].parent;
    }
    names
}

fn unknown_root(placed: &mut Placed<'_>, from: From, noted: &Noted, name: &str) {
    let r = &noted.reference;
    let items = item_names(placed, from.frame, &noted.place);
    let inputs = &placed.scopes[from.scope.0 as usize].inputs;
    let help = if name == "each" {
        Some("`each` is there only inside a step with `for_each`".to_owned())
    } else if let Some(meant) = switch(name) {
        Some(format!("write `{meant}`"))
    } else if inputs.iter().any(|i| *i.name == name) {
        Some(format!("inputs are written `inputs.{name}`"))
    } else if visible(placed, from.frame).iter().any(|id| &**id == name) {
        Some(format!("outputs of a step are written `steps.{name}.outputs.NAME`"))
    } else {
        let known = ROOTS.iter().copied().chain(items.iter().map(String::as_str));
        did_you_mean(name, known).map(|near| format!("did you mean `{near}`?")).or_else(|| {
            Some(format!("in scope here are {}", ROOTS.iter().map(|r| format!("`{r}`")).collect::<Vec<_>>().join(", ")))
        })
    };
    let message = format!("`{name}` is not in scope");
    placed.diagnostics.push(Diagnostic::new(Code::UnknownName, message, r.span, "unknown name").maybe_help(help));
}

/// What YAML 1.1 and people write for true and false.
fn switch(name: &str) -> Option<bool> {
    match name.to_ascii_lowercase().as_str() {
        "yes" | "on" | "true" => Some(true),
        "no" | "off" | "false" => Some(false),
        _ => None,
    }
}

/// `root.field`, and nothing below.
fn fields(placed: &mut Placed<'_>, r: &Reference, root: &str, known: &[&str]) {
    fields_below(placed, r, root, known);
    nothing_below(placed, r, root, known);
}

fn nothing_below(placed: &mut Placed<'_>, r: &Reference, root: &str, plain: &[&str]) {
    if r.path.len() > 2 && plain.contains(&r.path[1].as_str()) {
        let message = format!("`{root}.{}` has nothing below it", r.path[1]);
        placed.diagnostics.push(Diagnostic::new(Code::UnknownName, message, r.span, "a plain value"));
    }
}

fn fields_below(placed: &mut Placed<'_>, r: &Reference, root: &str, known: &[&str]) {
    let Some(field) = r.path.get(1) else { return };
    if known.contains(&field.as_str()) {
        return;
    }
    let help = match did_you_mean(field, known.iter().copied()) {
        Some(near) => format!("did you mean `{root}.{near}`?"),
        None if known.contains(&"value") && field == "item" => format!("the item itself is `{root}.value`"),
        None if known.contains(&"value") => format!("the item itself is `{root}.value`, so `{root}.value.{field}`"),
        None => format!("there are {}", known.iter().map(|k| format!("`{root}.{k}`")).collect::<Vec<_>>().join(", ")),
    };
    let message = format!("`{root}` has no `{field}`");
    placed.diagnostics.push(Diagnostic::new(Code::UnknownName, message, r.span, "unknown name").help(help));
}

fn no_secret(placed: &mut Placed<'_>, r: &Reference, place: &Place, what: &str) {
    let why = match place {
        Place::With | Place::Env | Place::Target => return,
        Place::When => "a condition's value can be read off what ran",
        Place::Items | Place::Key(_) => "the items of a `for_each` are stored and shown",
        Place::Locks | Place::LockText => "names of locks are stored and shown",
        Place::BlockOutputs => "outputs are stored and shown",
    };
    let message = format!("{what} cannot be used here: {why}");
    let help = "give it to the step that needs it, under `env:` or `with:`";
    placed.diagnostics.push(Diagnostic::new(Code::SecretNotAllowed, message, r.span, "a secret").help(help));
}

fn input(placed: &mut Placed<'_>, from: From, noted: &Noted) {
    let r = &noted.reference;
    let inputs = &placed.scopes[from.scope.0 as usize].inputs;
    let used = &mut placed.scope_notes[from.scope.0 as usize].used_inputs;
    let Some(name) = r.path.get(1) else {
        used.fill(true);
        return;
    };
    if let Some(i) = inputs.iter().position(|i| *i.name == *name) {
        used[i] = true;
        let input_type = inputs[i].input_type;
        if inputs[i].secret {
            no_secret(placed, r, &noted.place, &format!("the secret input `{name}`"));
        } else if noted.place == Place::LockText
            && r.path.len() == 2
            && matches!(input_type, InputType::List | InputType::Map)
        {
            let message =
                format!("the name of a lock is text, and the input `{name}` is {}", input_type.with_article());
            let help = match input_type {
                InputType::List => {
                    format!("join it (`{{{{join inputs.{name} \",\"}}}}`), or use an input that is text")
                }
                _ => format!("name a value in it, such as `inputs.{name}.KEY`, or use an input that is text"),
            };
            placed.diagnostics.push(Diagnostic::new(Code::WrongType, message, r.span, "not text").help(help));
        }
    } else {
        let help = did_you_mean(name, inputs.iter().map(|i| i.name.as_str())).map_or_else(
            || format!("declare it: `inputs: {{ {name}: {{ type: string }} }}`"),
            |near| format!("did you mean `inputs.{near}`?"),
        );
        let message = format!("there is no input `{name}`");
        let diagnostic = Diagnostic::new(Code::UnknownInput, message, r.span, "not declared");
        placed.diagnostics.push(diagnostic.help(help));
    }
}

fn secret(placed: &mut Placed<'_>, from: From, noted: &Noted) {
    let r = &noted.reference;
    let Some(name) = r.path.get(1) else {
        let message = "`secrets` as a whole has no value";
        let diagnostic = Diagnostic::new(Code::NotReferable, message, r.span, "all secrets");
        placed.diagnostics.push(diagnostic.help("name one: `secrets.NAME`"));
        return;
    };
    let secrets = &placed.scopes[from.scope.0 as usize].secrets;
    if let Some(i) = secrets.iter().position(|s| *s.name == *name) {
        placed.scope_notes[from.scope.0 as usize].used_secrets[i] = true;
        no_secret(placed, r, &noted.place, &format!("the secret `{name}`"));
        return;
    }
    let help = did_you_mean(name, secrets.iter().map(|s| s.name.as_str())).map_or_else(
        || format!("declare it: `secrets: {{ {name}: {{ env: {} }} }}`", name.to_uppercase()),
        |near| format!("did you mean `secrets.{near}`?"),
    );
    let message = format!("there is no secret `{name}`");
    placed.diagnostics.push(Diagnostic::new(Code::UnknownSecret, message, r.span, "not declared").help(help));
}

/// The ids that a step can refer to, its own list first.
fn visible(placed: &Placed<'_>, frame: usize) -> Vec<std::sync::Arc<str>> {
    let mut ids = Vec::new();
    let mut at = Some(frame);
    while let Some(frame) = at {
        ids.extend(placed.frames[frame].ids.keys().cloned());
        at = placed.frames[frame].parent;
    }
    ids.sort();
    ids
}

fn find_step(placed: &Placed<'_>, frame: usize, id: &str) -> Option<(usize, StepIdx)> {
    let mut at = Some(frame);
    while let Some(frame) = at {
        if let Some(step) = placed.frames[frame].ids.get(id) {
            return Some((frame, *step));
        }
        at = placed.frames[frame].parent;
    }
    None
}

fn step_reference(placed: &mut Placed<'_>, from: From, noted: &Noted) {
    let r = &noted.reference;
    let Some(id) = r.path.get(1) else {
        let message = "`steps` as a whole has no value";
        let diagnostic = Diagnostic::new(Code::NotReferable, message, r.span, "all steps");
        placed.diagnostics.push(diagnostic.help("name a step and an output: `steps.ID.outputs.NAME`"));
        return;
    };
    let Some((frame, to)) = find_step(placed, from.frame, id) else {
        unknown_step(placed, from, r, id);
        return;
    };
    if from.step.is_none() && matches!(noted.place, Place::Locks | Place::LockText) {
        let message = format!("the locks of a run are taken before any step, so step `{id}` has nothing to give yet");
        let help = "put `locks` on the step that needs it, after that one";
        placed.diagnostics.push(Diagnostic::new(Code::NotReferable, message, r.span, "not there yet").help(help));
        return;
    }
    if let Some(step) = from.step
        && !edge(placed, from.frame, step, frame, to, r)
    {
        return;
    }
    match r.path.get(2).map(String::as_str) {
        Some("outputs") => {
            if let Some(name) = r.path.get(3) {
                output(placed, to, id, name, r);
            }
        }
        Some("status") => {}
        other => {
            let message = match other {
                Some(field) => format!("a step has no `{field}`"),
                None => format!("step `{id}` as a whole has no value"),
            };
            let near =
                other.filter(|field| output_names(placed, to).is_some_and(|names| names.iter().any(|n| n == field)));
            let help = match near {
                Some(field) => format!("did you mean `steps.{id}.outputs.{field}`?"),
                None => format!("write `steps.{id}.outputs.NAME` or `steps.{id}.status`"),
            };
            placed.diagnostics.push(Diagnostic::new(Code::NotReferable, message, r.span, "no value").help(help));
        }
    }
    if let Some(step) = from.step {
        placed.bind(step, id, to);
    } else {
        let bindings = &mut placed.scopes[from.scope.0 as usize].bindings;
        if !bindings.iter().any(|b| *b.id == **id) {
            bindings.push(plan::Binding { id: id.as_str().into(), step: to });
        }
    }
}

fn unknown_step(placed: &mut Placed<'_>, from: From, r: &Reference, id: &str) {
    let ids = visible(placed, from.frame);
    let elsewhere = placed.steps.iter().position(|s| &*s.id == id);
    let later =
        elsewhere.is_some_and(|at| in_finally(placed, placed.notes[at].frame) && !in_finally(placed, from.frame));
    let help = match did_you_mean(id, ids.iter().map(|i| &**i)) {
        _ if later => format!(
            "`{id}` stands under `finally`, which runs when all else is over; only steps under `finally` can refer to it"
        ),
        Some(near) => format!("did you mean `steps.{near}`?"),
        None if elsewhere.is_some() => format!(
            "`{id}` stands inside a block; give the block `outputs: {{ NAME: \"{{{{ steps.{id}.outputs.NAME }}}}\" }}` and refer to the block"
        ),
        None => "give the step an `id:` to refer to it".to_owned(),
    };
    let message = format!("there is no step `{id}`");
    placed.diagnostics.push(Diagnostic::new(Code::UnknownStepReference, message, r.span, "unknown step").help(help));
}

/// A reference is an edge, between the siblings that hold its two ends. False = reported as impossible.
fn edge(
    placed: &mut Placed<'_>,
    mut frame: usize,
    step: StepIdx,
    target_frame: usize,
    to: StepIdx,
    r: &Reference,
) -> bool {
    // A block refers to what is inside it in its outputs: those come later and need no edge.
    let mut at = step;
    if placed.frames[target_frame].container == Some(step) {
        return true;
    }
    while frame != target_frame {
        match (placed.frames[frame].container, placed.frames[frame].parent) {
            (Some(container), Some(parent)) => {
                at = container;
                frame = parent;
            }
            // From `finally` to the run's steps: all of them are over by then.
            _ => return true,
        }
    }
    if at == to {
        let id = &placed.steps[to.at()].id;
        let message = if step == to {
            format!("step `{id}` refers to its own outputs")
        } else {
            format!("a step inside `{id}` refers to the outputs of `{id}` as a whole")
        };
        placed.diagnostics.push(Diagnostic::new(Code::NotReferable, message, r.span, "not there yet"));
        return false;
    }
    placed.edges.push(Edge { from: at, to, span: r.span, why: Why::Reference });
    true
}

/// See [`plan::output_names`].
fn output_names(placed: &Placed<'_>, step: StepIdx) -> Option<Vec<String>> {
    plan::output_names(&placed.steps, &placed.scopes, &placed.segments, step)
}

fn output(placed: &mut Placed<'_>, step: StepIdx, id: &str, name: &str, r: &Reference) {
    let Some(names) = output_names(placed, step) else { return };
    if names.iter().any(|n| n == name) {
        return;
    }
    let type_name = placed.steps[step.at()].type_name();
    let help = match did_you_mean(name, names.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `steps.{id}.outputs.{near}`?"),
        None if type_name == "shell" => format!(
            "declare it on the step: `outputs: {{ {name}: stdout }}`, or `file` for what the script writes to $RUNBACK_OUTPUT"
        ),
        None if names.is_empty() => format!("`{type_name}` has no outputs; a block has those of its `outputs:`"),
        None => format!("it has {}", names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")),
    };
    let message = format!("step `{id}` ({type_name}) has no output `{name}`");
    placed.diagnostics.push(Diagnostic::new(Code::UnknownOutput, message, r.span, "unknown output").help(help));
}

fn target_names(placed: &Placed<'_>) -> Vec<(String, bool)> {
    let decls = placed.top.iter().flat_map(|t| &t.targets);
    decls.map(|t| (t.name.value.clone(), matches!(t.kind, TargetKind::Group(_)))).collect()
}

fn group(placed: &mut Placed<'_>, r: &Reference) {
    let Some(name) = r.path.get(1) else { return };
    placed.used_targets.push(name.clone());
    let known = target_names(placed);
    if known.iter().any(|(n, group)| n == name && *group) {
        return;
    }
    let (message, help) = if known.iter().find(|(n, _)| n == name).is_some() {
        (format!("target `{name}` is not a group"), "`targets.NAME` is the list of a group's members".to_owned())
    } else {
        let near = did_you_mean(name, known.iter().map(|(n, _)| n.as_str()));
        let help =
            near.map_or_else(|| "declare it under `targets:`".to_owned(), |n| format!("did you mean `targets.{n}`?"));
        (format!("there is no target `{name}`"), help)
    };
    placed.diagnostics.push(Diagnostic::new(Code::UnknownTarget, message, r.span, "not a group").help(help));
}

fn literal_target(placed: &mut Placed<'_>, r: &Reference) {
    let name = &r.path[1];
    placed.used_targets.push(name.clone());
    let known = target_names(placed);
    let found = known.iter().find(|(n, _)| n == name);
    if name == "local" || matches!(found, Some((_, false))) {
        return;
    }
    let diagnostic = if found.is_some() {
        let message = format!("target `{name}` is a group, and a step acts in one place");
        let help =
            format!("`for_each: \"{{{{ targets.{name} }}}}\"` with `target: \"{{{{ each.value }}}}\"` runs it on each");
        Diagnostic::new(Code::UnknownTarget, message, r.span, "a group").help(help)
    } else {
        let names = known.iter().map(|(n, _)| n.as_str()).chain(["local"]);
        let help = did_you_mean(name, names)
            .map_or_else(|| "declare it under `targets:`".to_owned(), |near| format!("did you mean `{near}`?"));
        Diagnostic::new(Code::UnknownTarget, format!("there is no target `{name}`"), r.span, "not declared").help(help)
    };
    placed.diagnostics.push(diagnostic);
}
