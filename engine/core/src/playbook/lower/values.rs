//! `inputs` and `secrets`: what a run is given.

use super::fields::{Fields, Keys};
use super::{Lower, head};
use crate::Json;
use crate::diagnostic::{Code, Diagnostic};
use crate::playbook::model::{InputDecl, InputType, SecretDecl, SecretFrom};
use crate::playbook::values;
use crate::playbook::yaml::{Node, NodeValue};
use crate::span::{Span, Spanned};

impl Lower<'_> {
    pub(super) fn inputs(&mut self, node: &Node) -> Vec<InputDecl> {
        let Some(pairs) = self.map(node, "`inputs`") else { return Vec::new() };
        let mut inputs = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            let name = self.name(key, "the name of an input", true);
            let placeholder = || Spanned::new(key.key_text(), key.span);
            let decl = self.input(name.clone().unwrap_or_else(placeholder), value);
            if name.is_some() {
                inputs.push(decl);
            }
        }
        inputs
    }

    /// A declaration; the bare name of a type is short for `{ type: … }`. A broken one is still declared.
    fn input(&mut self, name: Spanned<String>, node: &Node) -> InputDecl {
        const INPUT: Keys = Keys {
            of: "an input",
            known: &["type", "description", "default", "pattern", "format", "options", "min", "max", "env", "secret"],
            hints: &[
                ("enum", "it is called `options`"),
                ("choices", "it is called `options`"),
                ("values", "it is called `options`"),
                ("required", "an input without `default` is required"),
                ("optional", "an input with a `default` is optional"),
                ("value", "a value that is not given comes from `default`"),
                ("regex", "it is called `pattern`"),
                ("help", "it is called `description`"),
                ("sensitive", "it is called `secret`"),
                ("minimum", "it is called `min`"),
                ("maximum", "it is called `max`"),
            ],
        };
        let mut decl = InputDecl {
            name,
            input_type: InputType::String,
            description: None,
            default: None,
            pattern: None,
            format: None,
            options: Vec::new(),
            min: None,
            max: None,
            env: None,
            secret: false,
        };
        if node.as_str().is_some() {
            decl.input_type = self.input_type(node).unwrap_or(InputType::String);
            return decl;
        }
        if node.as_map().is_none() {
            let what = format!("the input `{}`", decl.name.value);
            self.wrong_type(node, &what, "a type's name or a map with `type`");
            return decl;
        }
        let Some(keys) = self.fields(node, &INPUT) else { return decl };
        let Some(input_type) = keys.required(self, "type").and_then(|n| self.input_type(n)) else {
            // What depends on the type is not told: it would be a guess.
            return decl;
        };
        decl.input_type = input_type;
        decl.description = keys.get("description").and_then(|n| self.string(n, "description")).map(str::to_owned);
        decl.secret = keys.get("secret").and_then(|n| self.boolean(n, "secret")).unwrap_or(false);
        decl.env = keys.get("env").and_then(|n| self.env_name(n));
        self.constraints(&mut decl, &keys);
        if let Some(default) = keys.get("default") {
            self.default_value(&mut decl, &keys, default);
        }
        decl
    }

    fn input_type(&mut self, node: &Node) -> Option<InputType> {
        let text = self.string(node, "type")?;
        let synonym = match text {
            "str" | "text" => "string",
            "int" => "integer",
            "bool" => "boolean",
            "float" | "double" => "number",
            "array" => "list",
            "object" | "dict" => "map",
            "file" | "dir" => "path",
            other => other,
        };
        if synonym != text {
            let help = Some(format!("did you mean `{synonym}`?"));
            self.wrong_value(node.span, format!("`{text}` is not a type"), help);
            return InputType::ALL.into_iter().find(|t| t.name() == synonym);
        }
        self.one_of(node, "type", &InputType::ALL.map(|t| (t.name(), t)))
    }

    fn env_name(&mut self, node: &Node) -> Option<String> {
        self.string(node, "env")?;
        self.name(node, "the name of an environment variable", false).map(|name| name.value)
    }

    fn constraints(&mut self, decl: &mut InputDecl, keys: &Fields<'_>) {
        let kind = decl.input_type;
        let text = matches!(kind, InputType::String | InputType::Path);
        for (key, span) in keys.present(&["pattern", "format"]) {
            if !text {
                let message = format!("`{key}` is for strings, and this input is {}", kind.with_article());
                self.pointless(span, message, "leave it out");
            }
        }
        for (key, span) in keys.present(&["min", "max"]) {
            if !matches!(kind, InputType::Integer | InputType::Number) {
                let message = format!("`{key}` is for numbers, and this input is {}", kind.with_article());
                self.pointless(span, message, "leave it out; for a string's length use a `pattern`");
            }
        }
        if text {
            decl.pattern = keys.get("pattern").and_then(|n| self.pattern(n));
            decl.format = keys.get("format").and_then(|n| self.format(n));
        }
        decl.min = keys.get("min").and_then(|n| self.number(n, "min", f64::MIN, f64::MAX));
        decl.max = keys.get("max").and_then(|n| self.number(n, "max", f64::MIN, f64::MAX));
        if let (Some(min), Some(max), Some(node)) = (decl.min, decl.max, keys.get("max"))
            && min > max
        {
            self.wrong_value(node.span, format!("`max` is less than `min`, which is {min}"), None);
            decl.max = None;
        }
        if let Some(options) = keys.get("options") {
            decl.options = self.options(options, kind);
        }
    }

    /// A regular expression, which a value must match as a whole.
    fn pattern(&mut self, node: &Node) -> Option<Spanned<String>> {
        let text = self.string(node, "pattern")?;
        // The second form is the one that is used: a comment at the end of a `(?x)` would swallow its bracket.
        for wrapped in [text.to_owned(), format!("^(?:{text})$")] {
            if let Err(error) = regex::Regex::new(&wrapped) {
                let why = error.to_string();
                let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
                let message = format!("`pattern` is not a regular expression: {why}");
                let help = "the syntax is that of Rust's regex crate: no look-around, no back-references";
                let span = head(self.text, node.span);
                self.report(Diagnostic::new(Code::BadRegex, message, span, "cannot be read").help(help));
                return None;
            }
        }
        Some(Spanned::new(text.to_owned(), node.span))
    }

    fn format(&mut self, node: &Node) -> Option<Spanned<String>> {
        let formats = values::FORMATS.map(|f| (f, f));
        let format = self.one_of(node, "format", &formats)?;
        Some(Spanned::new(format.to_owned(), node.span))
    }

    fn options(&mut self, node: &Node, kind: InputType) -> Vec<Json> {
        let Some(items) = self.list(node, "options") else { return Vec::new() };
        if items.is_empty() {
            self.wrong_value(node.span, "`options` is empty: no value would be allowed", None);
        }
        let mut options: Vec<Json> = Vec::with_capacity(items.len());
        for item in items {
            let value = item.to_json();
            if let Err(violation) = values::check_type(kind, &value) {
                let help = violation.help.or_else(|| self.literal_help(item, kind));
                self.report(
                    Diagnostic::new(
                        Code::WrongType,
                        format!("an option of this input {}", violation.message),
                        head(self.text, item.span),
                        item.kind(),
                    )
                    .maybe_help(help),
                );
            } else if options.contains(&value) {
                self.wrong_value(item.span, format!("the option {} stands twice", values::shown(&value)), None);
            } else {
                options.push(value);
                self.not_read(item, "an option");
            }
        }
        options
    }

    /// How a literal of another type is written as one of this type, where that is plain to see.
    fn literal_help(&self, node: &Node, kind: InputType) -> Option<String> {
        let raw = self.raw(node.span);
        match (&node.value, kind) {
            (
                NodeValue::Int(_) | NodeValue::UInt(_) | NodeValue::Float(_) | NodeValue::Bool(_),
                InputType::String | InputType::Path,
            ) => Some(format!("quote it: \"{raw}\"")),
            (NodeValue::Int(_), InputType::Duration) => Some(format!("did you mean {raw}s?")),
            (NodeValue::Null, _) => Some("leave `default` out to make it required".to_owned()),
            (NodeValue::Str(text, _), InputType::Boolean) => match text.to_ascii_lowercase().as_str() {
                "yes" | "on" | "true" => Some("write true".to_owned()),
                "no" | "off" | "false" => Some("write false".to_owned()),
                _ => None,
            },
            (NodeValue::Str(text, _), InputType::Integer) if text.parse::<i64>().is_ok() => {
                Some(format!("leave the quotes out: {text}"))
            }
            (NodeValue::Str(text, _), InputType::Number) if text.parse::<f64>().is_ok() => {
                Some(format!("leave the quotes out: {text}"))
            }
            _ => None,
        }
    }

    fn default_value(&mut self, decl: &mut InputDecl, keys: &Fields<'_>, node: &Node) {
        if decl.secret {
            let both = keys.present(&["secret", "default"]);
            self.conflict(&both, "a secret has no place in the playbook; take it from `env`, or from `secrets`");
            return;
        }
        let value = node.to_json();
        match values::check(decl, &value) {
            Ok(()) => {
                decl.default = Some(Spanned::new(value, node.span));
                self.not_read(node, "a default");
            }
            Err(violation) => {
                let help = violation.help.or_else(|| self.literal_help(node, decl.input_type));
                let message = format!("the default of `{}` {}", decl.name.value, violation.message);
                let span = head(self.text, node.span);
                let label = format!("{} here", node.kind());
                let declared = keys.pair("type").map_or(span, |(_, t)| t.span);
                self.report(
                    Diagnostic::new(Code::DefaultViolatesType, message, span, label)
                        .label(declared, "its type")
                        .maybe_help(help),
                );
                // Still optional, so that nothing else is said about it.
                decl.default = Some(Spanned::new(value, node.span));
            }
        }
    }

    pub(super) fn secrets(&mut self, node: &Node) -> Vec<SecretDecl> {
        const KINDS: [&str; 3] = ["env", "file", "command"];
        let Some(pairs) = self.map(node, "`secrets`") else { return Vec::new() };
        let mut secrets = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            let name = self.name(key, "the name of a secret", true);
            let from = self.secret(value, &KINDS);
            if let Some(name) = name {
                // A broken one is still declared; it is never read.
                let from = from.unwrap_or_else(|| SecretFrom::Env(String::new()));
                secrets.push(SecretDecl { name, from });
            }
        }
        secrets
    }

    fn secret(&mut self, node: &Node, kinds: &[&'static str; 3]) -> Option<SecretFrom> {
        const SECRET: Keys = Keys {
            of: "a secret",
            known: &["env", "file", "command"],
            hints: &[
                ("value", "a secret's value has no place in the playbook: use `env`, `file` or `command`"),
                ("cmd", "it is called `command`, a list of words"),
                ("run", "it is called `command`, a list of words"),
                ("path", "it is called `file`"),
                ("vault", "call the vault's own tool: { command: [vault, kv, get, -field=…, …] }"),
            ],
        };
        if node.as_str().is_some() {
            let message = "a secret must be a map that says where it comes from, not a string";
            let span: Span = head(self.text, node.span);
            let help = "write `{ env: NAME }`, `{ file: path }` or `{ command: [pass, show, x] }`";
            self.report(Diagnostic::new(Code::WrongType, message, span, "a string").help(help));
            return None;
        }
        let keys = self.fields(node, &SECRET)?;
        let present = keys.present(kinds);
        match present[..] {
            [("env", _)] => self.env_name(keys.get("env")?).map(SecretFrom::Env),
            [("file", _)] => self.literal(keys.get("file")?, "file").map(SecretFrom::File),
            [(_, _)] => {
                let node = keys.get("command")?;
                let items = self.list(node, "command")?;
                let argv: Vec<String> = items.iter().filter_map(|n| self.literal(n, "command[]")).collect();
                if items.is_empty() {
                    self.wrong_value(node.span, "`command` is empty", None);
                }
                (argv.len() == items.len() && !argv.is_empty()).then_some(SecretFrom::Command(argv))
            }
            [] if kinds.iter().any(|kind| keys.misspelt(kind)) => None,
            [] => {
                let span = keys.first_key(self.text);
                let message = "a secret needs one of `env`, `file` and `command`";
                self.report(Diagnostic::new(Code::MissingKey, message, span, "none of them"));
                None
            }
            _ => {
                self.conflict(&present, "a secret comes from one place");
                None
            }
        }
    }

    /// A string that is taken as it stands: templates are an error.
    fn literal(&mut self, node: &Node, name: &str) -> Option<String> {
        let text = self.string(node, name)?;
        if text.contains("{{") {
            let message = format!("`{name}` of a secret cannot be a template: secrets are read before the run");
            self.wrong_value(node.span, message, None);
            return None;
        }
        Some(text.to_owned())
    }
}
