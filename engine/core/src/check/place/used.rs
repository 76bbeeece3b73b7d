//! `uses: playbook`: another playbook in the place of a step, with inputs of its own.

use std::sync::Arc;

use crate::Json;
use crate::diagnostic::{Code, Diagnostic};
use crate::event::OnFailure;
use crate::plan::{PlanBlock, PlanKind, PlanStep, Scope, StepIdx};
use crate::playbook::model::{Playbook, Uses};
use crate::playbook::yaml::Node;
use crate::span::{Source, Span, Spanned};
use crate::suggest::did_you_mean;
use crate::template::ValueTemplate;

use super::{Context, Frame, Note, Noted, Place, Placed, note_when};

impl Placed<'_> {
    #[expect(clippy::too_many_arguments, reason = "the parts of a step that has been taken apart")]
    pub(super) fn sub_playbook(
        &mut self,
        id: Spanned<String>,
        span: Span,
        when: Option<crate::expr::Expr>,
        uses: &Uses,
        context: &Context,
        mut note: Note,
        policy: Arc<crate::plan::StepPolicy>,
        continue_on_error: bool,
        on_failure: Option<Spanned<OnFailure>>,
    ) -> StepIdx {
        let idx = StepIdx(self.steps.len() as u32);
        let given = uses.with_template.get("inputs").unwrap_or(ValueTemplate::Literal(Json::Null));
        given.for_each_reference(&mut |r| {
            note.references.push(Noted { reference: r.clone(), place: Place::With });
        });
        note_when(&mut note, when.as_ref());
        let loaded = self.load_playbook(uses);
        let Some((file, playbook)) = loaded else {
            return self.push_unknown(idx, id.value.into(), span, context, note, policy);
        };
        self.check_given_inputs(uses, &playbook);
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
            id: id.value.into(),
            span,
            segment: context.segment,
            parent: context.parent,
            scope: context.scope,
            kind: PlanKind::Block(Box::new(PlanBlock {
                inner: 0..0,
                children: playbook.steps.len() as u32,
                outputs: Vec::new(),
                scope: Some(scope),
            })),
            when,
            irreversible: note.irreversible_span.is_some(),
            continue_on_error,
            on_failure: on_failure.map(|o| o.value).or(playbook.on_failure),
            locks: Vec::new(),
            policy,
            bindings: Vec::new(),
        });
        self.notes.push(note);
        self.using.push(file);
        let defaults = Arc::new(playbook.defaults);
        let context = Context { segment: context.segment, parent: Some(idx), scope, frame, defaults };
        self.list(playbook.steps, &context);
        self.using.pop();
        self.close_block(idx);
        idx
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

    /// Keys that only a playbook that is run by itself can have.
    fn refuse_top_keys(&mut self, playbook: &Playbook) {
        let mut warn = |span: Span, key: &str| {
            let message = format!("`{key}` has no effect in a playbook that another one uses");
            self.diagnostics.push(Diagnostic::new(Code::NoEffect, message, span, "not used here"));
        };
        if let Some(step) = playbook.finally.first() {
            warn(step.span, "finally");
        }
        if let Some(lock) = playbook.locks.first() {
            warn(lock.span(), "locks");
        }
    }

    fn check_given_inputs(&mut self, uses: &Uses, playbook: &Playbook) {
        let given = uses.with.get("inputs").and_then(Node::as_map).unwrap_or_default();
        for (key, value) in given {
            let Some(name) = key.as_str() else { continue };
            match playbook.inputs.iter().find(|d| *d.name == name) {
                None => {
                    let help = did_you_mean(name, playbook.inputs.iter().map(|d| d.name.as_str()));
                    let message = format!("playbook `{}` has no input `{name}`", playbook.name.value);
                    let diagnostic = Diagnostic::new(Code::UnknownStepInput, message, key.span, "unknown input");
                    self.diagnostics.push(diagnostic.maybe_help(help.map(|h| format!("did you mean `{h}`?"))));
                }
                Some(decl) => {
                    let text = Arc::clone(&self.sources.get(value.span.source).text);
                    let literal = ValueTemplate::compile(&text, value).ok();
                    let Some(json) = literal.as_ref().and_then(ValueTemplate::literal) else { continue };
                    if let Err(why) = crate::playbook::values::check(decl, json) {
                        let message = format!("input `{name}` of playbook `{}`: {}", playbook.name.value, why.message);
                        self.diagnostics.push(Diagnostic::new(
                            Code::WrongStepInput,
                            message,
                            value.span,
                            "not allowed",
                        ));
                    }
                }
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
}
