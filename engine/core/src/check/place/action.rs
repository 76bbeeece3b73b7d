//! The part of a step that acts: its step type, its inputs checked against the schema, its environment, its rollback.

use std::sync::Arc;

use crate::Json;
use crate::diagnostic::{Code, Diagnostic};
use crate::plan::{PlanAction, PlanRollback};
use crate::playbook::model::{Defaults, Rollback, RollbackIf, Uses};
use crate::playbook::yaml::{Node, NodeValue};
use crate::span::Span;
use crate::step::{AnyStepType, Commands, Descriptor, InputProblem};
use crate::suggest::did_you_mean;
use crate::template::Template;

use super::{CommandLine, Note, Noted, Own, Place, Placed, TypeSchema, certain, note_template};
use crate::check::schema::CompiledSchema;

impl Placed<'_> {
    pub(super) fn action(
        &mut self,
        uses: Uses,
        own: &Own<'_>,
        defaults: &Defaults,
        note: &mut Note,
    ) -> Option<PlanAction> {
        let step_type = self.step_type(&uses)?;
        let name = step_type.descriptor().name;
        let schema = self.schema(name, &step_type);
        let text = Arc::clone(&self.sources.get(uses.with.span.source).text);
        let found = schema.compiled.check(name, &uses.with, &text);
        // What the schema has told of one input says nothing about the others, as long as they can be read at all.
        let known = schema.compiled.with_known_keys(&uses.with_template);
        let problems = match known.literal() {
            Some(inputs) if found.is_empty() || step_type.decodes(inputs) => step_type.problems(inputs),
            None if self.foretell => certain::problems(&*step_type, &schema.compiled, &known),
            Some(_) | None => Vec::new(),
        };
        let told: Vec<Span> = found.iter().filter_map(|d| d.labels.first()).map(|l| l.span).collect();
        let problems = problems.into_iter().map(|p| {
            let place = at_path(&uses.with, &p).unwrap_or(uses.step_type.span);
            let label = p.path.last().map_or_else(|| format!("`{name}`"), |last| format!("`{last}`"));
            Diagnostic::new(Code::WrongStepInput, p.message, place, label).maybe_help(p.help)
        });
        self.diagnostics.extend(problems.filter(|d| !told.contains(&d.labels[0].span)));
        self.diagnostics.extend(found);
        uses.with_template.for_each_reference(&mut |r| {
            note.references.push(Noted { reference: r.clone(), place: Place::With });
        });
        for (key, script) in &schema.lines {
            if !uses.with_template.is_literal()
                && let Some(value) = uses.with_template.get(key)
            {
                value.for_each_template(&mut |t| {
                    note.lines.push(CommandLine { script: *script, template: t.clone() });
                });
            }
        }
        let mut expressions = Vec::new();
        for (pointer, node) in schema.compiled.expressions(&uses.with) {
            match crate::expr::Expr::parse(&text, node) {
                Ok(expr) => {
                    let noted = expr.references().iter();
                    note.references.extend(noted.map(|r| Noted { reference: r.clone(), place: Place::With }));
                    expressions.push((pointer, expr));
                }
                Err(diagnostics) => self.diagnostics.extend(diagnostics),
            }
        }
        let target = own.target.or(defaults.target.as_ref());
        if let Some(target) = target {
            note_template(note, target, &Place::Target);
        }
        let mut env: Vec<(String, Template)> = Vec::new();
        let inherited = defaults.env.iter().filter(|(n, _)| !own.env.iter().any(|(o, _)| o.value == n.value));
        for (name, value) in inherited.chain(own.env) {
            note_template(note, value, &Place::Env);
            env.push((name.value.clone(), value.clone()));
        }
        let (access, undo) = step_type.capabilities(&uses.with_template);
        Some(PlanAction {
            step_type,
            with: uses.with_template,
            expressions,
            target: target.cloned(),
            env,
            access,
            undo,
            rollback: PlanRollback::Auto,
        })
    }

    pub(super) fn rollback(
        &mut self,
        rollback: Rollback,
        own: &Own<'_>,
        defaults: &Defaults,
        note: &mut Note,
    ) -> PlanRollback {
        match rollback {
            Rollback::Auto => PlanRollback::Auto,
            Rollback::None => PlanRollback::None,
            Rollback::Step { uses, .. } if *uses.step_type == "playbook" => {
                let message = "another playbook cannot be the rollback of a step";
                let help = "a rollback is one action: write `rollback: { run: … }`, or `uses` with a step type";
                let diagnostic = Diagnostic::new(Code::WrongValue, message, uses.step_type.span, "a playbook");
                self.diagnostics.push(diagnostic.help(help));
                PlanRollback::None
            }
            Rollback::Step { uses, condition } => match self.action(*uses, own, defaults, note) {
                Some(action) => PlanRollback::Action {
                    action: Box::new(action),
                    only_if_succeeded: condition == RollbackIf::Succeeded,
                },
                None => PlanRollback::None,
            },
        }
    }

    /// What a step says of itself and none of its actions looks at: who wrote it takes something for done that is not.
    /// What it has from the defaults is meant for others too.
    pub(super) fn refuse_what_reaches_nothing(&mut self, action: &PlanAction, own: &Own<'_>) {
        if !self.foretell {
            return;
        }
        let Descriptor { name, commands: forward, .. } = action.step_type.descriptor();
        let back = match &action.rollback {
            PlanRollback::Action { action, .. } => action.step_type.descriptor().commands,
            PlanRollback::Auto | PlanRollback::None => forward,
        };
        let any = forward.max(back);
        let mut refuse = |key: &str, span: Span, why: String, help: &str| {
            let message = format!("`{key}` does not reach `{name}`: {why}");
            let diagnostic = Diagnostic::new(Code::KeyNeedsOther, message, span, "has no meaning here");
            self.diagnostics.push(diagnostic.help(help));
        };
        if let Some(target) = own.target
            && any < Commands::Small
        {
            let why = "it works from the machine that runback runs on".to_owned();
            refuse("target", target.span(), why, "delete it; what must be done there is a command: `run`");
        }
        if let Some((first, _)) = own.env.first()
            && any == Commands::None
        {
            refuse(
                "env",
                first.span,
                "it runs no command".to_owned(),
                "delete it; what it is to know stands under `with`",
            );
        }
        if let Some(detach) = own.detach
            && detach.value
            && forward < Commands::Main
        {
            let why = match forward {
                Commands::None | Commands::Client => "it runs no command",
                _ => "its commands are small, and end with runback",
            };
            refuse("detach", detach.span, why.to_owned(), "delete it; what has to outlive runback is a command: `run`");
        }
    }

    fn step_type(&mut self, uses: &Uses) -> Option<Arc<dyn AnyStepType>> {
        if let Some(found) = self.catalog.get(&uses.step_type) {
            return Some(Arc::clone(found));
        }
        let names: Vec<_> = self.catalog.names().chain(["playbook"]).collect();
        let help = did_you_mean(&uses.step_type, names.iter().copied())
            .map_or_else(|| "`runback steps` lists them all".to_owned(), |name| format!("did you mean `{name}`?"));
        self.diagnostics.push(
            Diagnostic::new(
                Code::UnknownStepType,
                format!("there is no step type `{}`", uses.step_type.value),
                uses.step_type.span,
                "unknown step type",
            )
            .help(help),
        );
        None
    }

    fn schema(&mut self, name: &'static str, step_type: &Arc<dyn AnyStepType>) -> Arc<TypeSchema> {
        let make = || {
            let schema = step_type.input_schema();
            let properties = schema.get("properties").and_then(Json::as_object).into_iter().flatten();
            let lines = properties
                .filter_map(|(key, value)| match value.get("x-runback-line").and_then(Json::as_str) {
                    Some("script") => Some((key.clone(), true)),
                    Some("argv") => Some((key.clone(), false)),
                    _ => None,
                })
                .collect();
            Arc::new(TypeSchema { compiled: CompiledSchema::new(&schema), lines })
        };
        Arc::clone(self.schemas.entry(name).or_insert_with(make))
    }
}

/// The span of the value that a problem is about, or of the nearest thing around it; of its key, when that is what the
/// problem begins with.
fn at_path(node: &Node, problem: &InputProblem) -> Option<Span> {
    let (mut at, mut key_span) = (node, None);
    for key in &problem.path {
        let next = match &at.value {
            NodeValue::List(list) => key.parse::<usize>().ok().and_then(|i| list.get(i)).map(|item| (None, item)),
            NodeValue::Map(map) => {
                map.iter().find(|(k, _)| k.as_str() == Some(key)).map(|(k, value)| (Some(k.span), value))
            }
            _ => None,
        };
        let Some((of_key, next)) = next else {
            key_span = None;
            break;
        };
        (key_span, at) = (of_key, next);
    }
    let of_key = problem.path.last().is_some_and(|key| problem.message.starts_with(&format!("`{key}` ")));
    let span = key_span.filter(|_| of_key).unwrap_or(at.span);
    (!std::ptr::eq(at, node)).then_some(span)
}
