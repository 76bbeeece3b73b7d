//! From the YAML tree to the typed model, by hand, so that every mistake is collected and each points at its
//! characters. Resolves no reference and knows no step type: that is `check`.

mod fields;
mod for_each;
mod policy;
pub(crate) mod schedule;
mod steps;
mod suspects;
pub(crate) mod targets;
mod values;

use std::collections::HashSet;

use super::model::{Defaults, Playbook, TargetDecl};
use super::yaml::{Node, NodeValue};
use crate::diagnostic::{Code, Diagnostic};
use crate::event::OnFailure;
use crate::span::{SourceId, Span, Spanned};
use crate::template::Template;
use fields::{Fields, Keys};

/// The version under `runback:` that this runback reads.
pub const LANGUAGE_VERSION: i64 = 1;

const PLAYBOOK: Keys = Keys {
    of: "a playbook",
    known: &[
        "runback",
        "name",
        "description",
        "inputs",
        "secrets",
        "targets",
        "defaults",
        "locks",
        "max_parallel",
        "timeout",
        "on_failure",
        "fail_fast",
        "schedule",
        "steps",
        "finally",
        "outputs",
    ],
    hints: &[
        ("version", "the language version is `runback: 1`"),
        ("tasks", "steps of a playbook stand under `steps`"),
        ("jobs", "steps of a playbook stand under `steps`"),
        ("hosts", "name machines under `targets`, and use them with `defaults: {target: …}`"),
        ("vars", "declare values under `inputs`"),
        ("variables", "declare values under `inputs`"),
        ("parameters", "declare values under `inputs`"),
        ("env", "give all steps an environment with `defaults: {env: …}`"),
        ("target", "give all steps a target with `defaults: {target: …}`"),
        ("retry", "give all steps a retry policy with `defaults: {retry: …}`"),
        ("on", "start a playbook by the clock with `schedule`"),
        ("triggers", "start a playbook by the clock with `schedule`"),
        ("always", "steps that always run at the end stand under `finally`"),
        ("cleanup", "steps that always run at the end stand under `finally`"),
    ],
};

const ON_FAILURE: [(&str, OnFailure); 3] =
    [("rollback", OnFailure::Rollback), ("hold", OnFailure::Hold), ("continue", OnFailure::Continue)];

/// Lowers one playbook. There is a model in spite of diagnostics when the shape is usable, so that later checks
/// can add theirs; what could not be read is left out of it, and the ids of steps are all there.
///
/// Holds two trees for a while; [`super::read`] does not.
pub fn lower(source: SourceId, text: &str, node: &Node) -> (Option<Playbook>, Vec<Diagnostic>) {
    lower_owned(source, text, node.clone())
}

/// Like [`lower`], but frees each step's part of the tree once it is lowered.
pub(super) fn lower_owned(source: SourceId, text: &str, mut node: Node) -> (Option<Playbook>, Vec<Diagnostic>) {
    let mut lower = Lower { source, text, diagnostics: Vec::new() };
    let suspects = lower.suspects(&node);
    let steps = take_list(&mut node, "steps");
    let finally = take_list(&mut node, "finally");
    let playbook = lower.playbook(&node, steps, finally);
    let mut diagnostics = lower.diagnostics;
    let said: HashSet<Span> = diagnostics.iter().filter_map(|d| d.labels.first()).map(|l| l.span).collect();
    diagnostics.extend(suspects.into_iter().filter(|d| !said.contains(&d.labels[0].span)));
    diagnostics.sort_by_key(|d| d.labels.first().map(|l| l.span));
    (playbook, diagnostics)
}

/// What stands under `targets`, from a file of its own.
pub(super) fn targets(source: SourceId, text: &str, node: &Node) -> (Vec<TargetDecl>, Vec<Diagnostic>) {
    let mut lower = Lower { source, text, diagnostics: Vec::new() };
    let (targets, inventories) = lower.targets(node);
    for inventory in inventories {
        lower.wrong_value(inventory.span, "an inventory does not name another one", None);
    }
    (targets, lower.diagnostics)
}

/// The value under a key of a map.
fn value_mut<'n>(node: &'n mut Node, key: &str) -> Option<&'n mut NodeValue> {
    let NodeValue::Map(pairs) = &mut node.value else { return None };
    pairs.iter_mut().find(|(k, _)| k.as_str() == Some(key)).map(|(_, node)| &mut node.value)
}

/// The items of the list under a key. Leaves an empty list there.
fn take_list(node: &mut Node, key: &str) -> Vec<Node> {
    match value_mut(node, key) {
        Some(NodeValue::List(items)) => std::mem::take(items),
        _ => Vec::new(),
    }
}

/// The entries of the map under a key. Leaves an empty map there.
fn take_map(node: &mut Node, key: &str) -> Vec<(Node, Node)> {
    match value_mut(node, key) {
        Some(NodeValue::Map(entries)) => std::mem::take(entries),
        _ => Vec::new(),
    }
}

/// What one lowering carries: the text for spans, and what it has found.
struct Lower<'a> {
    source: SourceId,
    text: &'a str,
    diagnostics: Vec<Diagnostic>,
}

impl Lower<'_> {
    fn playbook(&mut self, node: &Node, steps: Vec<Node>, finally: Vec<Node>) -> Option<Playbook> {
        let keys = self.fields(node, &PLAYBOOK)?;
        self.language_version(&keys);
        let name = match keys.required(self, "name") {
            Some(name) => self.playbook_name(name),
            None => None,
        };
        let inputs = keys.get("inputs").map(|n| self.inputs(n)).unwrap_or_default();
        let secrets = keys.get("secrets").map(|n| self.secrets(n)).unwrap_or_default();
        let (targets, inventories) = keys.get("targets").map(|n| self.targets(n)).unwrap_or_default();
        let defaults = keys.get("defaults").map(|n| self.defaults(n)).unwrap_or_default();
        let mut ids = HashSet::new();
        let usable = match keys.required(self, "steps") {
            Some(list) if self.list(list, "steps").is_some() => {
                self.not_empty(list, &steps);
                true
            }
            _ => false,
        };
        keys.get("finally").and_then(|n| self.list(n, "finally"));
        // Given ids first: a made one gives way.
        let all_have_one = self.given_ids(steps.iter().chain(&finally), steps.len(), &mut ids);
        let steps = if all_have_one { self.steps_with_ids(steps) } else { self.steps(steps, "", &mut ids) };
        let finally = self.steps(finally, "finally-", &mut ids);
        let top_keys = node.as_map().into_iter().flatten();
        let playbook = Playbook {
            source: self.source,
            keys: top_keys.filter_map(|(k, _)| Some(Spanned::new(k.as_str()?.to_owned(), k.span))).collect(),
            name: name.unwrap_or_else(|| Spanned::new("unnamed".to_owned(), head(self.text, node.span))),
            description: keys.get("description").and_then(|n| self.string(n, "description")).map(str::to_owned),
            inputs,
            secrets,
            targets,
            inventories,
            defaults,
            locks: keys.get("locks").map(|n| self.locks(n)).unwrap_or_default(),
            max_parallel: keys.get("max_parallel").and_then(|n| {
                let value = self.whole(n, "max_parallel", 1, 10_000)?;
                u32::try_from(value).ok().map(|value| Spanned::new(value, n.span))
            }),
            timeout: keys.get("timeout").and_then(|n| self.positive_duration(n, "timeout")),
            on_failure: keys.get("on_failure").and_then(|n| self.one_of(n, "on_failure", &ON_FAILURE)),
            fail_fast: keys.get("fail_fast").and_then(|n| self.boolean(n, "fail_fast")).unwrap_or(false),
            schedule: keys.get("schedule").map(|n| self.schedules(n)).unwrap_or_default(),
            steps,
            finally,
            outputs: keys.get("outputs").map(|n| self.named_values(n, "outputs")).unwrap_or_default(),
        };
        usable.then_some(playbook)
    }

    fn language_version(&mut self, keys: &Fields<'_>) {
        let Some(node) = keys.required(self, "runback") else { return };
        let help = "write `runback: 1`";
        match &node.value {
            NodeValue::Int(LANGUAGE_VERSION) => {}
            NodeValue::Int(_) | NodeValue::UInt(_) | NodeValue::Float(_) => {
                let version = self.raw(node.span);
                let message = format!("language version {version} is not known; this runback knows 1");
                self.report(
                    Diagnostic::new(Code::LanguageVersion, message, node.span, "the language version").help(help),
                );
            }
            _ => {
                let message = format!("`runback` must be the number 1, the language version, not {}", node.kind());
                let span = head(self.text, node.span);
                self.report(Diagnostic::new(Code::WrongType, message, span, node.kind()).help(help));
            }
        }
    }

    fn playbook_name(&mut self, node: &Node) -> Option<Spanned<String>> {
        let name = self.string(node, "name")?;
        if name.trim().is_empty() || name.chars().any(char::is_control) || name.chars().count() > 100 {
            let message = "`name` must be one line of 1 to 100 characters";
            self.report(Diagnostic::new(Code::WrongValue, message, head(self.text, node.span), "this name"));
        }
        self.not_read(node, "the name of a playbook");
        Some(Spanned::new(name.to_owned(), node.span))
    }

    fn defaults(&mut self, node: &Node) -> Defaults {
        const DEFAULTS: Keys = Keys {
            of: "`defaults`",
            known: &[
                "target",
                "env",
                "timeout",
                "deadline",
                "idle_timeout",
                "kill_grace",
                "retry",
                "on_interrupt",
                "detach",
            ],
            hints: &[
                ("on_failure", "`on_failure` stands at the top of the playbook"),
                ("locks", "`locks` of the run stand at the top of the playbook"),
                ("retries", "write `retry: 3`"),
                ("environment", "it is called `env`"),
            ],
        };
        let Some(keys) = self.fields(node, &DEFAULTS) else { return Defaults::default() };
        Defaults {
            target: keys.get("target").and_then(|n| self.template(n, "target")),
            env: keys.get("env").map(|n| self.env(n)).unwrap_or_default(),
            policy: self.policy(&keys),
        }
    }

    /// Names of locks, of the run or of a step.
    fn locks(&mut self, node: &Node) -> Vec<Template> {
        let locks = self.templates(node, "locks");
        for lock in locks.iter().filter(|l| l.literal().is_some_and(|name| name.trim().is_empty())) {
            let help = "name what is locked, such as \"vm/{{ inputs.vm }}\"".to_owned();
            self.wrong_value(lock.span(), "the name of a lock is empty", Some(help));
        }
        locks
    }

    fn report(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    /// The text of a span.
    fn raw(&self, span: Span) -> &str {
        self.text.get(span.start as usize..span.end as usize).unwrap_or("")
    }
}

/// The first line of a span: labels over many lines are hard to read.
fn head(text: &str, span: Span) -> Span {
    let (start, end) = (span.start as usize, span.end as usize);
    let first = text.get(start..end).and_then(|t| t.lines().next()).unwrap_or("").trim_end().len();
    Span::new(span.source, start, start + first)
}

#[cfg(test)]
mod tests;
