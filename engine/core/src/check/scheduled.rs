//! The inputs that the entries of `schedule` give: nobody is asked when the clock starts a run, so each entry must give
//! all that the playbook needs. Knows nothing of when it fires.

use crate::diagnostic::{Code, Diagnostic};
use crate::playbook::model::{InputDecl, Playbook};
use crate::playbook::values;
use crate::playbook::yaml::{Node, NodeValue};
use crate::span::Spanned;
use crate::suggest::did_you_mean;

/// Everything that is wrong with what the schedules of a playbook give it.
pub(super) fn inputs(playbook: &Playbook) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for entry in &playbook.schedule {
        let given = match entry.node.get("inputs") {
            None => &[],
            Some(inputs) => match inputs.as_map() {
                Some(given) => given,
                // Told already: it must be a map.
                None => continue,
            },
        };
        for (key, value) in given {
            found.extend(one(&playbook.inputs, key, value));
            templates(value, &mut found);
        }
        let is_given = |d: &InputDecl| given.iter().any(|(key, _)| key.key_text() == d.name.value);
        let missing = playbook.inputs.iter().filter(|d| d.default.is_none() && !is_given(d));
        found.extend(missing.map(|decl| not_given(decl, &entry.cron)));
    }
    found
}

/// Nothing is there yet that a template could refer to: what a schedule gives is taken as it stands.
fn templates(value: &Node, found: &mut Vec<Diagnostic>) {
    match &value.value {
        NodeValue::Str(text, _) if text.contains("{{") => {
            let message = "a schedule gives this text as it stands: no template is read here";
            let diagnostic = Diagnostic::new(Code::TemplateNotRead, message, value.span, "taken as it stands");
            found.push(
                diagnostic
                    .help("write the value out; what a run knows of its instant is `run.scheduled_at`, in its steps"),
            );
        }
        NodeValue::List(items) => items.iter().for_each(|item| templates(item, found)),
        NodeValue::Map(entries) => entries.iter().for_each(|(_, item)| templates(item, found)),
        _ => {}
    }
}

fn one(decls: &[InputDecl], key: &Node, value: &Node) -> Option<Diagnostic> {
    let name = key.key_text();
    let Some(decl) = decls.iter().find(|d| d.name.value == name) else {
        let help = did_you_mean(&name, decls.iter().map(|d| d.name.value.as_str()));
        let message = format!("a schedule gives `{name}`, and the playbook has no such input");
        let diagnostic = Diagnostic::new(Code::InputUnknown, message, key.span, "unknown input");
        return Some(diagnostic.maybe_help(help.map(|near| format!("did you mean `{near}`?"))));
    };
    if decl.secret {
        let message = format!("the input `{name}` is secret, and a playbook is no place for a secret");
        let diagnostic = Diagnostic::new(Code::SecretNotAllowed, message, value.span, "a secret in clear");
        return Some(diagnostic.help("take it from `secrets:`, which are read when the run starts"));
    }
    let violation = values::check(decl, &value.to_json()).err()?;
    let message = format!("a schedule gives the input `{name}`, which {}", violation.message);
    let diagnostic = Diagnostic::new(Code::InputInvalid, message, value.span, "not allowed");
    Some(diagnostic.label(decl.name.span, "declared here").maybe_help(violation.help))
}

fn not_given(decl: &InputDecl, cron: &Spanned<String>) -> Diagnostic {
    let name = &decl.name.value;
    let message = format!("this schedule cannot start a run: the input `{name}` has no value");
    let help = if decl.secret {
        "a secret that a schedule needs stands under `secrets:`, which are read when the run starts".to_owned()
    } else {
        format!("give it under the schedule's `inputs: {{ {name}: … }}`, or give it a `default`")
    };
    Diagnostic::new(Code::InputMissing, message, cron.span, "starts without it")
        .label(decl.name.span, "declared here, without a default")
        .help(help)
}
