//! Warnings: what is allowed and most likely not meant.

use crate::diagnostic::{Code, Diagnostic};
use crate::plan::{PlanKind, PlanRollback, StepIdx};
use crate::playbook::model::{InputDecl, InputType, TargetDecl, TargetKind};
use crate::span::{SourceId, Span};
use crate::step::{Access, UndoKind};
use crate::template::Reference;

use super::place::{Noted, Place, Placed, TARGET_ROOT};
use super::types::known::{Known, Schemas};

/// `unread`: a template or expression could not be read, so nobody knows what it would use.
pub(super) fn lint(placed: &mut Placed<'_>, pairs: &[(StepIdx, StepIdx)], unread: bool) {
    if !unread {
        unused(placed);
        unused_targets(placed);
    }
    command_lines(placed);
    points_of_no_return(placed, pairs);
}

fn unused(placed: &mut Placed<'_>) {
    let mut found = Vec::new();
    for (scope, note) in placed.scopes.iter().zip(&placed.scope_notes) {
        if note.opaque {
            // What an unknown step would use is not known.
            continue;
        }
        for (decl, _) in scope.inputs.iter().zip(&note.used_inputs).filter(|(_, used)| !**used) {
            let message = format!("nothing uses the input `{}`", decl.name.value);
            let diagnostic = Diagnostic::new(Code::UnusedInput, message, decl.name.span, "declared here");
            found.push(diagnostic.help(format!("use it as `inputs.{}`, or take it away", decl.name.value)));
        }
        for (decl, _) in scope.secrets.iter().zip(&note.used_secrets).filter(|(_, used)| !**used) {
            let message = format!("nothing uses the secret `{}`", decl.name.value);
            found.push(Diagnostic::new(Code::UnusedSecret, message, decl.name.span, "declared here"));
        }
    }
    placed.diagnostics.append(&mut found);
}

/// Where the name of a target is computed, any of them may be meant.
fn unused_targets(placed: &mut Placed<'_>) {
    let computed = |noted: &Noted| noted.place == Place::Target && noted.reference.path[0] != TARGET_ROOT;
    let opaque = placed.scope_notes.iter().any(|n| n.opaque);
    if opaque || placed.notes.iter().any(|n| n.references.iter().any(computed)) {
        return;
    }
    let decls = placed.top.as_ref().map_or(&[][..], |t| &t.targets);
    let named = |name: &String| {
        let in_group = decls.iter().any(|d| match &d.kind {
            TargetKind::Group(members) => members.iter().any(|m| m.value == *name),
            TargetKind::Local | TargetKind::Ssh(_) => false,
        });
        in_group || placed.used_targets.contains(name)
    };
    // An inventory holds more than one playbook needs.
    let own = |d: &&TargetDecl| d.name.span.source == SourceId(0);
    let unused = decls.iter().filter(own).filter(|d| !named(&d.name.value)).map(|decl| {
        let message = format!("nothing uses the target `{}`", decl.name.value);
        Diagnostic::new(Code::UnusedTarget, message, decl.name.span, "declared here").help(format!(
            "steps without `target` act on this machine: add `target: {}` where it is meant, or take it away",
            decl.name.value
        ))
    });
    let mut found: Vec<_> = unused.collect();
    placed.diagnostics.append(&mut found);
}

fn command_lines(placed: &mut Placed<'_>) {
    let mut found = Vec::new();
    let schemas = &Schemas::new(placed);
    for (at, note) in placed.notes.iter().enumerate() {
        let known = schemas.of_step(StepIdx(at as u32), false);
        for line in &note.lines {
            for reference in line.template.references() {
                if is_secret(placed, note.frame, reference) {
                    found.push(secret_on_command_line(reference));
                }
            }
            if line.script {
                for reference in line.template.used_unquoted() {
                    if !is_secret(placed, note.frame, reference) && !is_one_word(known, reference) {
                        found.push(unquoted(reference));
                    }
                }
            }
        }
    }
    placed.diagnostics.append(&mut found);
}

fn is_secret(placed: &Placed<'_>, frame: usize, reference: &Reference) -> bool {
    reference.path.first().is_some_and(|root| root == "secrets")
        || input(placed, frame, reference).is_some_and(|decl| decl.secret)
}

/// Its text has nothing that a shell would take for more than a word.
fn is_one_word(known: Known<'_>, reference: &Reference) -> bool {
    known.input(reference).is_some_and(|decl| decl.input_type == InputType::Duration)
        || known.sample(reference).is_some_and(|value| value.is_number() || value.is_boolean())
}

fn input<'p>(placed: &'p Placed<'_>, frame: usize, reference: &Reference) -> Option<&'p InputDecl> {
    let [root, name, ..] = reference.path.as_slice() else { return None };
    let at = placed.notes.iter().position(|n| n.frame == frame).filter(|_| root == "inputs")?;
    placed.scopes[placed.steps[at].scope.0 as usize].inputs.iter().find(|i| *i.name == *name)
}

/// A name for the environment: `STDOUT`, and `STDOUT_1` where the last part is a number.
fn variable(reference: &Reference) -> String {
    let path = &reference.path;
    let named = |part: &String| part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let from = path.iter().rposition(named).unwrap_or(0);
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    path[from..].join("_").chars().map(plain).collect()
}

fn secret_on_command_line(reference: &Reference) -> Diagnostic {
    let name = reference.path.join(".");
    let variable = variable(reference);
    let message = format!("`{name}` goes onto a command line, where every user of the machine can see it");
    let help = format!(
        "hand it over in the environment: `env: {{ {variable}: \"{{{{ {name} }}}}\" }}`, and use `\"${variable}\"`"
    );
    Diagnostic::new(Code::SecretOnCommandLine, message, reference.span, "a secret").help(help)
}

fn unquoted(reference: &Reference) -> Diagnostic {
    let name = reference.path.join(".");
    let variable = variable(reference);
    let message =
        format!("the value of `{name}` becomes part of the script; a space or a quote in it changes what runs");
    let help = format!(
        "write `{{{{quote {name}}}}}`, or hand it over: `env: {{ {variable}: \"{{{{ {name} }}}}\" }}` and `\"${variable}\"`"
    );
    Diagnostic::new(Code::UnquotedInScript, message, reference.span, "not quoted").help(help)
}

/// A step whose effect cannot be taken back, not marked as meant, before steps that can fail.
fn points_of_no_return(placed: &mut Placed<'_>, pairs: &[(StepIdx, StepIdx)]) {
    let mut next: Vec<Option<StepIdx>> = vec![None; placed.steps.len()];
    for (from, to) in pairs {
        next[to.at()].get_or_insert(*from);
    }
    let mut found = Vec::new();
    for (i, step) in placed.steps.iter().enumerate() {
        let PlanKind::Action(action) = &step.kind else { continue };
        let final_word = action.access == Access::Changes
            && action.undo == UndoKind::Impossible
            && matches!(action.rollback, PlanRollback::Auto)
            && !step.irreversible;
        let Some(after) = next[i].filter(|_| final_word) else { continue };
        let message = format!(
            "`{}` ({}) cannot be taken back, and `{}` after it can still fail",
            step.id,
            step.type_name(),
            placed.steps[after.at()].id
        );
        let span: Span = placed.notes[i].id_span;
        found.push(Diagnostic::new(Code::PointOfNoReturn, message, span, "the point of no return").help(
            "move it behind what can fail, give it a `rollback:`, or say that it is meant with `irreversible: true`",
        ));
    }
    placed.diagnostics.append(&mut found);
}
