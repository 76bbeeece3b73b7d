//! `steps`, `finally` and blocks: what each step does, after what, and how it is taken back.

use std::collections::{HashMap, HashSet};
use std::thread;

use super::fields::{Fields, Keys};
use super::{Lower, ON_FAILURE, head, take_list, take_map};
use crate::diagnostic::{Code, Diagnostic};
use crate::expr::Expr;
use crate::playbook::model::{Action, Rollback, RollbackIf, Step, Uses};
use crate::playbook::yaml::{Node, NodeValue, Style};
use crate::span::{Span, Spanned};
use crate::template::problem::nearest;

/// Fewer steps than these are lowered before a thread has begun.
const WORTH: usize = 1000;

const STEP: Keys = Keys {
    of: "a step",
    known: &[
        "id",
        "uses",
        "with",
        "run",
        "steps",
        "needs",
        "when",
        "for_each",
        "target",
        "env",
        "timeout",
        "deadline",
        "idle_timeout",
        "kill_grace",
        "retry",
        "rollback",
        "irreversible",
        "continue_on_error",
        "locks",
        "on_interrupt",
        "detach",
        "outputs",
        "on_failure",
    ],
    hints: &[
        ("name", "a step has an `id`; say the rest in a comment"),
        ("description", "a step has no description; use a comment"),
        ("if", "it is called `when`"),
        ("unless", "negate it: `when: \"!(…)\"`"),
        ("depends_on", "it is called `needs`"),
        ("after", "it is called `needs`"),
        ("loop", "it is called `for_each`"),
        ("with_items", "it is called `for_each`"),
        ("foreach", "it is called `for_each`"),
        ("matrix", "it is called `for_each`"),
        ("retries", "write `retry: 3` for three tries in all"),
        ("script", "a shell script stands under `run`"),
        ("shell", "a shell script stands under `run`"),
        ("cmd", "a shell script stands under `run`"),
        ("command", "a shell script stands under `run`; without a shell: `uses: exec`"),
        ("environment", "it is called `env`"),
        ("type", "a step type stands under `uses`"),
        ("action", "a step type stands under `uses`"),
        ("args", "the inputs of a step type stand under `with`"),
        ("params", "the inputs of a step type stand under `with`"),
        ("inputs", "the inputs of a step type stand under `with`"),
        ("on", "it is called `target`"),
        ("host", "it is called `target`"),
        ("register", "name what a step gives under `outputs`"),
        ("ignore_errors", "it is called `continue_on_error`"),
        ("allow_failure", "it is called `continue_on_error`"),
        ("block", "a block is a step with `steps`"),
        ("undo", "it is called `rollback`"),
        ("lock", "it is called `locks`"),
        ("finally", "`finally` stands at the top of the playbook"),
    ],
};

/// What a step without a readable action has: a block that holds nothing. The mistake has been told.
fn no_action() -> Action {
    Action::Block(Vec::new())
}

/// What is taken out of a step's map, since the model keeps it as it is: an empty one is left there.
struct Taken {
    /// What stands under `with`, if that is a map.
    with: Vec<(Node, Node)>,
    /// What stands under `steps`, if that is a list.
    steps: Vec<Node>,
}

impl Lower<'_> {
    /// One list of steps. `prefix` keeps the ids that are made for it apart from those of other lists of the
    /// same scope; `ids` holds the ids that the scope has.
    pub(super) fn steps(&mut self, items: Vec<Node>, prefix: &str, ids: &mut HashSet<String>) -> Vec<Step> {
        let mut steps = Vec::with_capacity(items.len());
        self.steps_from(0, items, prefix, ids, &mut steps);
        steps
    }

    /// A part of such a list, from an index on.
    fn steps_from(
        &mut self,
        from: usize,
        items: Vec<Node>,
        prefix: &str,
        ids: &mut HashSet<String>,
        steps: &mut Vec<Step>,
    ) {
        for (index, mut item) in (from..).zip(items) {
            if let NodeValue::Str(text, _) = &item.value {
                let message = "a step must be a map, not a string";
                let help = format!("for a shell script write `- run: {}`", text.lines().next().unwrap_or_default());
                let span = head(self.text, item.span);
                self.report(Diagnostic::new(Code::WrongType, message, span, "a string").help(help));
                continue;
            }
            let taken = Taken { with: take_map(&mut item, "with"), steps: take_list(&mut item, "steps") };
            let Some(keys) = self.fields(&item, &STEP) else { continue };
            steps.push(self.step(&keys, taken, item.span, index, prefix, ids));
        }
    }

    /// Like [`Lower::steps`], for a list of which each has an id, which leaves its steps nothing to know of each other.
    /// A long one is lowered in two halves at the same time.
    pub(super) fn steps_with_ids(&mut self, mut items: Vec<Node>) -> Vec<Step> {
        if items.len() < WORTH {
            return self.steps(items, "", &mut HashSet::new());
        }
        let (mut steps, mut more, from) = (Vec::with_capacity(items.len()), Vec::new(), items.len() / 2);
        let mut rest = Some(items.split_off(from));
        let mut other = Lower { source: self.source, text: self.text, diagnostics: Vec::new() };
        thread::scope(|scope| {
            let _second = thread::Builder::new().spawn_scoped(scope, || {
                let items = rest.take().unwrap_or_default();
                more.reserve_exact(items.len());
                other.steps_from(from, items, "", &mut HashSet::new(), &mut more);
            });
            self.steps_from(0, items, "", &mut HashSet::new(), &mut steps);
        });
        steps.append(&mut more);
        self.diagnostics.append(&mut other.diagnostics);
        if let Some(items) = rest {
            // The system gave no thread.
            self.steps_from(from, items, "", &mut HashSet::new(), &mut steps);
        }
        steps
    }

    pub(super) fn not_empty(&mut self, list: &Node, items: &[Node]) {
        if items.is_empty() {
            self.wrong_value(list.span, "`steps` is empty", None);
        }
    }

    /// Reports the ids that are given twice to the steps of one scope, which has about so many. Where one of them has
    /// none, notes the others', so that the one that is made for it gives way; else gives true.
    pub(super) fn given_ids<'n>(
        &mut self,
        steps: impl Iterator<Item = &'n Node>,
        about: usize,
        ids: &mut HashSet<String>,
    ) -> bool {
        let mut first: HashMap<&str, Span> = HashMap::with_capacity(about);
        let mut all_have_one = true;
        for item in steps {
            let Some((id, text)) = item.get("id").and_then(|id| Some((id, id.as_str()?))) else {
                all_have_one = false;
                continue;
            };
            if let Some(before) = first.get(text) {
                let message = format!("two steps have the id `{text}`");
                self.report(
                    Diagnostic::new(Code::DuplicateId, message, id.span, "here again")
                        .label(*before, "first here")
                        .help("give each step of a list an id of its own"),
                );
                continue;
            }
            first.insert(text, id.span);
        }
        if !all_have_one {
            ids.extend(first.into_keys().map(str::to_owned));
        }
        all_have_one
    }

    fn step(
        &mut self,
        keys: &Fields<'_>,
        taken: Taken,
        span: Span,
        index: usize,
        prefix: &str,
        ids: &mut HashSet<String>,
    ) -> Step {
        let given = keys.get("id").and_then(|n| self.step_id(n));
        let action = self.action(keys, taken);
        let is_block = matches!(&action, Action::Block(_));
        let id_given = given.is_some();
        let id = given.unwrap_or_else(|| {
            let made = made_id(prefix, &action, index, ids);
            ids.insert(made.clone());
            Spanned::new(made, keys.first_key(self.text))
        });
        self.misplaced(keys, is_block);
        let on_failure = keys
            .get("on_failure")
            .and_then(|n| self.one_of(n, "on_failure", &ON_FAILURE).map(|value| Spanned::new(value, n.span)));
        Step {
            id,
            id_given,
            span,
            needs: keys.get("needs").map(|n| self.strings(n, "needs")),
            when: keys.get("when").and_then(|n| self.expression(n, "when")),
            for_each: keys.get("for_each").and_then(|n| self.for_each(n).map(Box::new)),
            target: keys.get("target").and_then(|n| self.template(n, "target")),
            env: keys.get("env").map(|n| self.env(n)).unwrap_or_default(),
            policy: self.policy(keys),
            rollback: keys.get("rollback").and_then(|n| self.rollback(n)).unwrap_or_default(),
            irreversible: keys
                .get("irreversible")
                .and_then(|n| self.boolean(n, "irreversible").map(|value| Spanned::new(value, n.span))),
            continue_on_error: keys
                .get("continue_on_error")
                .and_then(|n| self.boolean(n, "continue_on_error"))
                .unwrap_or(false),
            locks: keys.get("locks").map(|n| self.locks(n)).unwrap_or_default(),
            on_failure,
            outputs: match keys.get("outputs") {
                Some(outputs) if is_block => self.named_values(outputs, "outputs"),
                _ => Vec::new(),
            },
            action,
        }
    }

    fn step_id(&mut self, node: &Node) -> Option<Spanned<String>> {
        let id = self.string(node, "id")?;
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let first = id.starts_with(|c: char| c.is_ascii_lowercase());
        if first && id.bytes().all(inner) && id.len() <= 64 {
            return Some(Spanned::new(id.to_owned(), node.span));
        }
        let message = format!("`{id}` cannot be the id of a step");
        let rule = "use up to 64 lower-case letters, digits and dashes, a letter first";
        let better = slug(id);
        let usable = better.starts_with(|c: char| c.is_ascii_lowercase()) && better.len() <= 64;
        let help = if usable { format!("{rule}: {better}") } else { rule.to_owned() };
        let span = head(self.text, node.span);
        self.report(Diagnostic::new(Code::BadId, message, span, "not an id").help(help));
        // It is kept, so that what refers to it is not said to refer to nothing.
        Some(Spanned::new(id.to_owned(), node.span))
    }

    fn action(&mut self, keys: &Fields<'_>, taken: Taken) -> Action {
        let actions = keys.present(&["uses", "run", "steps"]);
        match actions[..] {
            [] if ["uses", "run", "steps"].iter().any(|key| keys.misspelt(key)) => return no_action(),
            [] => {
                let message = "a step needs one of `uses`, `run` and `steps`";
                let help = "`run` is a shell script, `uses` a step type, `steps` a block";
                let span = keys.first_key(self.text);
                self.report(Diagnostic::new(Code::MissingKey, message, span, "does nothing").help(help));
                return no_action();
            }
            [_] => {}
            _ => self.conflict(&actions, "a step does one thing: make them steps of their own"),
        }
        if let Some((key, _)) = keys.pair("with")
            && keys.get("uses").is_none()
        {
            let message = "`with` gives the inputs of a step type, and this step has no `uses`".to_owned();
            self.pointless(key.span, message, "for a script with options write `uses: shell`, `with: {script: …}`");
        }
        if let Some(steps) = keys.get("steps") {
            let mut ids = HashSet::new();
            if self.list(steps, "steps").is_some() {
                self.not_empty(steps, &taken.steps);
            }
            self.given_ids(taken.steps.iter(), taken.steps.len(), &mut ids);
            return Action::Block(self.steps(taken.steps, "", &mut ids));
        }
        self.uses(keys, taken.with).map_or_else(no_action, Action::Uses)
    }

    /// `uses` + `with`, whose entries have been taken out, or `run`; of a step or of its rollback.
    fn uses(&mut self, keys: &Fields<'_>, entries: Vec<(Node, Node)>) -> Option<Uses> {
        if let Some((key, script)) = keys.pair("run") {
            return self.run(key, script, keys.pair("outputs"));
        }
        let node = keys.get("uses")?;
        let step_type = self.string(node, "uses")?;
        if step_type.contains("{{") {
            let help = Some("write one step per type, each with a `when`".to_owned());
            self.wrong_value(
                node.span,
                "`uses` cannot be a template: the step type must be known before the run",
                help,
            );
            return None;
        }
        let span = match keys.get("with") {
            Some(with) if self.map(with, "`with`").is_some() => with.span,
            _ => head(self.text, node.span),
        };
        let with = Node { span, value: NodeValue::Map(entries) };
        let with_template = self.value(&with);
        Some(Uses { step_type: Spanned::new(step_type.to_owned(), node.span), with, with_template, from_run: false })
    }

    /// `run: text` is the step type `shell` with `script`, and the step's `outputs` moved into `with`.
    fn run(&mut self, key: &Node, script: &Node, outputs: Option<(&Node, &Node)>) -> Option<Uses> {
        let text = self.string(script, "run")?;
        if text.trim().is_empty() {
            self.wrong_value(script.span, "`run` is empty", None);
        }
        let name = |span: Span, text: &str| Node { span, value: NodeValue::Str(text.into(), Style::Plain) };
        let mut pairs = vec![(name(key.span, "script"), script.clone())];
        if let Some((key, outputs)) = outputs
            && let Some(named) = self.map(outputs, "`outputs`")
        {
            for (key, _) in named {
                self.name(key, "the name of an output", true);
            }
            pairs.push((key.clone(), outputs.clone()));
        }
        let with = Node { span: script.span, value: NodeValue::Map(pairs) };
        let with_template = self.value(&with);
        Some(Uses { step_type: Spanned::new("shell".to_owned(), key.span), with, with_template, from_run: true })
    }

    /// Keys that mean nothing beside the step's action.
    fn misplaced(&mut self, keys: &Fields<'_>, is_block: bool) {
        if let Some((key, _)) = keys.pair("outputs")
            && keys.get("uses").is_some()
        {
            let message = "`outputs` is for `run` and blocks: a step type has outputs of its own".to_owned();
            self.pointless(key.span, message, "leave it out, and use `steps.<id>.outputs.<name>`");
        }
        let uses_playbook = keys.get("uses").and_then(Node::as_str) == Some("playbook");
        if let Some((key, _)) = keys.pair("on_failure")
            && !is_block
            && !uses_playbook
        {
            let message = "`on_failure` is for blocks and the playbook".to_owned();
            self.pointless(
                key.span,
                message,
                "use `retry`, `rollback` or `continue_on_error`, or make it a block: `steps:`",
            );
        }
        let (of, help) = if uses_playbook {
            ("a step that uses a playbook", "give it to the steps of that playbook, or under its `defaults`")
        } else {
            ("a block", "give it to the steps of the block, or under `defaults`")
        };
        if uses_playbook || (is_block && keys.get("steps").is_some()) {
            for (key, span) in keys.present(&["detach", "on_interrupt", "idle_timeout", "kill_grace"]) {
                let message = format!("`{key}` is about a command, and {of} runs none itself");
                self.pointless(span, message, help);
            }
        }
    }

    /// A CEL expression; the literals true and false need no quotes.
    fn expression(&mut self, node: &Node, name: &str) -> Option<Expr> {
        let literal;
        let node = if let NodeValue::Bool(value) = node.value {
            let text = if value { "true" } else { "false" };
            literal = Node { span: node.span, value: NodeValue::Str(text.into(), Style::Plain) };
            &literal
        } else if node.as_str().is_some() {
            node
        } else {
            self.wrong_type(node, &format!("`{name}`"), "an expression, such as inputs.count > 1");
            return None;
        };
        match Expr::parse(self.text, node) {
            Ok(expr) => Some(expr),
            Err(diagnostics) => {
                self.diagnostics.extend(diagnostics);
                None
            }
        }
    }

    fn rollback(&mut self, node: &Node) -> Option<Rollback> {
        const ROLLBACK: Keys = Keys {
            of: "`rollback`",
            known: &["uses", "with", "run", "if"],
            hints: &[
                ("when", "it is called `if`: started or succeeded"),
                ("script", "a shell script stands under `run`"),
                ("command", "a shell script stands under `run`"),
            ],
        };
        if let Some(text) = node.as_str() {
            let help = match nearest(text, ["auto", "none"]) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "for a script write `rollback: { run: … }`".to_owned(),
            };
            match text {
                "auto" => return Some(Rollback::Auto),
                "none" => return Some(Rollback::None),
                _ => self.wrong_value(
                    node.span,
                    format!("`rollback` must be auto, none or a map, not `{text}`"),
                    Some(help),
                ),
            }
            return None;
        }
        if node.as_map().is_none() {
            let help = matches!(node.value, NodeValue::Bool(false)).then(|| "write `rollback: none`".to_owned());
            let message = format!("`rollback` must be auto, none or a map, not {}", node.kind());
            let span = head(self.text, node.span);
            self.report(Diagnostic::new(Code::WrongType, message, span, node.kind()).maybe_help(help));
            return None;
        }
        let keys = self.fields(node, &ROLLBACK)?;
        let conditions = [("started", RollbackIf::Started), ("succeeded", RollbackIf::Succeeded)];
        let condition = keys.get("if").and_then(|n| self.one_of(n, "if", &conditions)).unwrap_or_default();
        let actions = keys.present(&["uses", "run"]);
        match actions[..] {
            [] if keys.misspelt("uses") || keys.misspelt("run") => return None,
            [] => {
                let message = "`rollback` needs `uses` or `run`";
                let span = keys.first_key(self.text);
                self.report(Diagnostic::new(Code::MissingKey, message, span, "does nothing"));
                return None;
            }
            [_] => {}
            _ => self.conflict(&actions, "a rollback is one step"),
        }
        if let (Some((with, _)), None) = (keys.pair("with"), keys.get("uses")) {
            let message = "`with` gives the inputs of a step type, and this rollback has no `uses`".to_owned();
            self.pointless(with.span, message, "leave it out");
        }
        let entries = keys.get("with").and_then(Node::as_map).unwrap_or_default().to_vec();
        let uses = Box::new(self.uses(&keys, entries)?);
        Some(Rollback::Step { uses, condition })
    }
}

/// `shell-3`: the type and the position from 1; with a number behind it where an id of the scope is the same.
fn made_id(prefix: &str, action: &Action, index: usize, ids: &HashSet<String>) -> String {
    let kind = match action {
        Action::Uses(uses) => slug(&uses.step_type.value),
        Action::Block(_) => "block".to_owned(),
    };
    let id = format!("{prefix}{kind}-{}", index + 1);
    let numbered = (2..).map(|n| format!("{id}-{n}"));
    std::iter::once(id.clone()).chain(numbered).find(|id| !ids.contains(id)).unwrap_or(id)
}

/// Lower case, with a dash for whatever is not a letter or digit.
fn slug(text: &str) -> String {
    let dashed: String =
        text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    dashed.trim_matches('-').to_owned()
}
