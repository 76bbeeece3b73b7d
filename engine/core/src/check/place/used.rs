//! `uses: playbook`: another playbook in the place of a step, with inputs of its own. What the step says of where and
//! how is, as of a block, what the steps inside have unless they or the playbook's `defaults` say otherwise.

use std::sync::Arc;

use crate::Json;
use crate::diagnostic::{Code, Diagnostic};
use crate::plan::{PlanBlock, PlanKind, PlanStep, Scope, ScopeIdx, StepIdx};
use crate::playbook::model::{Defaults, InputDecl, Playbook, Step, Uses};
use crate::playbook::yaml::{Node, NodeValue};
use crate::span::{Source, Spanned};
use crate::suggest::did_you_mean;
use crate::template::{Reference, Template, ValueTemplate};

use super::{Context, Frame, Note, Noted, Place, Placed, inherited, note_template, note_when};

/// What may stand under its `with`.
const WITH: [&str; 2] = ["file", "inputs"];

/// Keys at the top that only a playbook that is run by itself can have, and what to do instead.
const NOT_USED: [(&str, &str); 7] = [
    ("locks", "put `locks` on the step that uses it"),
    ("finally", "put these steps into the `finally` of the playbook that is run"),
    ("timeout", "give `timeout` to its steps, or to the playbook that is run"),
    ("targets", "the targets are those of the playbook that is run: declare them there"),
    ("max_parallel", "that of the playbook that is run counts"),
    ("fail_fast", "that of the playbook that is run counts"),
    ("schedule", "only the playbook that is run has one"),
];

impl Placed<'_> {
    pub(super) fn sub_playbook(&mut self, step: Step, uses: &Uses, context: &Context, mut note: Note) -> StepIdx {
        let idx = StepIdx(self.steps.len() as u32);
        let policy = self.policies.of(&step.policy, &context.defaults.policy, false, false);
        let given = uses.with_template.get("inputs").unwrap_or(ValueTemplate::Literal(Json::Null));
        given.for_each_reference(&mut |r| {
            note.references.push(Noted { reference: r.clone(), place: Place::With });
        });
        note_when(&mut note, step.when.as_ref());
        for lock in &step.locks {
            note_template(&mut note, lock, &Place::Locks);
        }
        self.refuse_rollback_of(&step.rollback, step.id.span, "a playbook that is used");
        let around = self.handed_down(step.target, step.env, step.policy, &mut note);
        self.check_with(uses);
        let loaded = self.load_playbook(uses);
        let Some((file, playbook)) = loaded else {
            return self.push_unknown(idx, step.id.value.into(), step.span, context, note, policy);
        };
        self.check_given_inputs(uses, &playbook, context.scope);
        let frame = self.frame(Frame { container: Some(idx), ..Frame::default() });
        let scope = self.scope(
            Scope {
                playbook: playbook.name.value.clone(),
                description: playbook.description.clone(),
                inputs: playbook.inputs,
                secrets: playbook.secrets,
                used_by: Some((idx, given)),
                outputs: Vec::new(),
                bindings: Vec::new(),
            },
            frame,
            playbook.outputs,
        );
        self.steps.push(PlanStep {
            id: step.id.value.into(),
            span: step.span,
            segment: context.segment,
            parent: context.parent,
            scope: context.scope,
            kind: PlanKind::Block(Box::new(PlanBlock {
                inner: 0..0,
                children: playbook.steps.len() as u32,
                outputs: Vec::new(),
                scope: Some(scope),
            })),
            when: step.when,
            irreversible: note.irreversible_span.is_some(),
            continue_on_error: step.continue_on_error,
            on_failure: step.on_failure.map(|o| o.value).or(playbook.on_failure),
            locks: step.locks,
            policy,
            bindings: Vec::new(),
        });
        self.notes.push(note);
        self.using.push(file);
        let Defaults { target, env, policy } = playbook.defaults;
        let defaults = inherited(&Arc::new(around), target, env, &policy);
        let context = Context { segment: context.segment, parent: Some(idx), scope, frame, defaults };
        self.list(playbook.steps, &context);
        self.using.pop();
        self.close_block(idx);
        idx
    }

    /// What the step says of where and how its playbook runs.
    fn handed_down(
        &mut self,
        target: Option<Template>,
        env: Vec<(Spanned<String>, Template)>,
        policy: crate::playbook::model::Policy,
        note: &mut Note,
    ) -> Defaults {
        let target = target.filter(|template| {
            note_template(note, template, &Place::Target);
            self.same_inside(template, "target")
        });
        let env = env.into_iter().filter(|(_, template)| {
            note_template(note, template, &Place::Env);
            self.same_inside(template, "env")
        });
        Defaults { env: env.collect(), target, policy }
    }

    /// Whether a template gives the same inside the playbook that is used, where it is rendered. Else says so.
    fn same_inside(&mut self, template: &Template, key: &str) -> bool {
        let mut same = true;
        for r in template.references() {
            let root = r.path.first().map_or("", String::as_str);
            if matches!(root, "run" | "target" | "targets") {
                continue;
            }
            same = false;
            let name = r.path.join(".");
            let message = format!("`{name}` is known here, and not in the playbook that this step uses");
            let help = format!(
                "give it as an input, `with: {{ inputs: {{ NAME: \"{{{{ {name} }}}}\" }} }}`, and write `{key}` with `inputs.NAME` in that playbook"
            );
            self.diagnostics.push(Diagnostic::new(Code::NotReferable, message, r.span, "not known there").help(help));
        }
        same
    }

    fn check_with(&mut self, uses: &Uses) {
        for (key, _) in uses.with.as_map().unwrap_or_default() {
            let name = key.key_text();
            if WITH.contains(&name.as_str()) {
                continue;
            }
            let help = did_you_mean(&name, WITH).map_or_else(
                || "there are `file` and `inputs`; what the playbook is given stands under `inputs`".to_owned(),
                |near| format!("did you mean `{near}`?"),
            );
            let message = format!("`uses: playbook` has no input `{name}`");
            let diagnostic = Diagnostic::new(Code::UnknownStepInput, message, key.span, "unknown input");
            self.diagnostics.push(diagnostic.help(help));
        }
    }

    fn load_playbook(&mut self, uses: &Uses) -> Option<(String, Playbook)> {
        let file_node = uses.with.get("file");
        let at = file_node.map_or(uses.step_type.span, |n| n.span);
        let Some(file) = file_node.and_then(Node::as_str).filter(|f| !f.contains("{{")) else {
            let message = "`uses: playbook` wants `with.file`, the path of a playbook, written out";
            let help = "what a playbook does is checked before anything runs, so its path cannot be a template";
            self.diagnostics.push(Diagnostic::new(Code::SubPlaybook, message, at, "no literal `file`").help(help));
            return None;
        };
        let file = file.to_owned();
        if self.using.contains(&file) || self.using.len() >= 8 {
            let chain = self.using.iter().chain([&file]).cloned().collect::<Vec<_>>().join(" → ");
            let message = format!("playbooks use each other in a circle, or more than 8 deep: {chain}");
            self.diagnostics.push(Diagnostic::new(Code::SubPlaybook, message, at, "used here"));
            return None;
        }
        let source = match self.texts.get(&file) {
            Some(source) => *source,
            None => match self.load.load(&file) {
                Ok(text) => {
                    let source = self.sources.add(Source::new(file.as_str(), text));
                    self.texts.insert(file.clone(), source);
                    source
                }
                Err(why) => {
                    let message = format!("the playbook `{file}` cannot be read: {why}");
                    self.diagnostics.push(Diagnostic::new(Code::SubPlaybook, message, at, "used here"));
                    return None;
                }
            },
        };
        let text = Arc::clone(&self.sources.get(source).text);
        let (playbook, diagnostics) = crate::playbook::read(source, &text);
        self.diagnostics.extend(diagnostics);
        let playbook = playbook?;
        self.refuse_top_keys(&playbook);
        Some((file, playbook))
    }

    fn refuse_top_keys(&mut self, playbook: &Playbook) {
        for key in &playbook.keys {
            let Some((name, help)) = NOT_USED.iter().find(|(name, _)| *name == key.value) else { continue };
            let message = format!("`{name}` has no effect in a playbook that another one uses");
            self.diagnostics.push(Diagnostic::new(Code::NoEffect, message, key.span, "not used here").help(*help));
        }
    }

    fn check_given_inputs(&mut self, uses: &Uses, playbook: &Playbook, outer: ScopeIdx) {
        let given = match uses.with.get("inputs") {
            None | Some(Node { value: NodeValue::Null, .. }) => &[],
            Some(Node { value: NodeValue::Map(given), .. }) => given.as_slice(),
            Some(other) => {
                let message = format!("`inputs` for a playbook must be a map, not {}", other.kind());
                let name = playbook.inputs.first().map_or("NAME", |decl| decl.name.value.as_str());
                let diagnostic = Diagnostic::new(Code::WrongStepInput, message, other.span, other.kind());
                self.diagnostics.push(diagnostic.help(format!("name each input: `inputs: {{ {name}: … }}`")));
                return;
            }
        };
        for (key, value) in given {
            let name = key.key_text();
            match playbook.inputs.iter().find(|d| *d.name == name) {
                None => {
                    let help = did_you_mean(&name, playbook.inputs.iter().map(|d| d.name.as_str()));
                    let message = format!("playbook `{}` has no input `{name}`", playbook.name.value);
                    let diagnostic = Diagnostic::new(Code::UnknownStepInput, message, key.span, "unknown input");
                    self.diagnostics.push(diagnostic.maybe_help(help.map(|h| format!("did you mean `{h}`?"))));
                }
                Some(decl) => self.check_given_input(decl, value, playbook, outer),
            }
        }
        for decl in playbook.inputs.iter().filter(|d| d.default.is_none()) {
            if !given.iter().any(|(k, _)| k.as_str() == Some(&decl.name)) {
                let message = format!("playbook `{}` needs the input `{}`", playbook.name.value, decl.name.value);
                let diagnostic = Diagnostic::new(Code::MissingStepInput, message, uses.step_type.span, "used here")
                    .help(format!("give it under `with.inputs.{}`", decl.name.value))
                    .label(decl.name.span, "declared here, without a default");
                self.diagnostics.push(diagnostic);
            }
        }
    }

    fn check_given_input(&mut self, decl: &InputDecl, value: &Node, playbook: &Playbook, outer: ScopeIdx) {
        let name = &decl.name.value;
        let text = Arc::clone(&self.sources.get(value.span.source).text);
        let Ok(template) = ValueTemplate::compile(&text, value) else { return };
        if let Some(json) = template.literal() {
            if let Err(why) = crate::playbook::values::check(decl, json) {
                let message = format!("input `{name}` of playbook `{}`: {}", playbook.name.value, why.message);
                self.diagnostics.push(Diagnostic::new(Code::WrongStepInput, message, value.span, "not allowed"));
            }
            return;
        }
        if decl.secret {
            return;
        }
        let mut secrets = Vec::new();
        template.for_each_reference(&mut |r| {
            if let Some(what) = self.secret_in(r, outer) {
                secrets.push((what, r.span));
            }
        });
        for (what, span) in secrets {
            let message =
                format!("{what} cannot be used here: playbook `{}` does not keep `{name}` secret", playbook.name.value);
            let help = format!(
                "declare it there with `secret: true`: `{name}: {{ type: {}, secret: true }}`",
                decl.input_type.name()
            );
            let diagnostic = Diagnostic::new(Code::SecretNotAllowed, message, span, "a secret").help(help);
            self.diagnostics.push(diagnostic.label(decl.name.span, "not declared secret"));
        }
    }

    /// The secret of a playbook that a reference holds.
    fn secret_in(&self, r: &Reference, scope: ScopeIdx) -> Option<String> {
        let inputs = &self.scopes[scope.0 as usize].inputs;
        match (r.path.first()?.as_str(), r.path.get(1)) {
            ("secrets", Some(name)) => Some(format!("the secret `{name}`")),
            ("inputs", Some(name)) => {
                inputs.iter().any(|i| i.secret && *i.name == *name).then(|| format!("the secret input `{name}`"))
            }
            ("inputs", None) => {
                let secret = inputs.iter().find(|i| i.secret)?;
                Some(format!("the secret input `{}`, which is one of `inputs`,", secret.name.value))
            }
            _ => None,
        }
    }
}
