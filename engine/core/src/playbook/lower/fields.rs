//! Readers for maps with known keys and for scalars, each of which says what is wrong. Knows no key by name.

use std::time::Duration;

use super::{Lower, head};
use crate::diagnostic::{Code, Diagnostic};
use crate::playbook::duration;
use crate::playbook::yaml::{Node, NodeValue, Style};
use crate::span::{Span, Spanned};
use crate::template::problem::nearest;
use crate::template::{Template, ValueTemplate};

/// The keys of one kind of map.
pub(super) struct Keys {
    /// "a step", for messages.
    pub(super) of: &'static str,
    pub(super) known: &'static [&'static str],
    /// Keys that other tools have, and what to write here.
    pub(super) hints: &'static [(&'static str, &'static str)],
}

impl Keys {
    /// What to write instead of an unknown key.
    fn suggestion(&self, name: &str) -> Option<String> {
        let hint = self.hints.iter().find(|(k, _)| *k == name).map(|(_, hint)| (*hint).to_owned());
        hint.or_else(|| nearest(name, self.known.iter().copied()).map(|near| format!("did you mean `{near}`?")))
    }
}

/// A map whose keys have been checked.
#[derive(Clone, Copy)]
pub(super) struct Fields<'n> {
    keys: &'static Keys,
    node: &'n Node,
    pairs: &'n [(Node, Node)],
    /// A bit for each length that a key has: most keys that are asked for are not there.
    lengths: u64,
}

impl<'n> Fields<'n> {
    pub(super) fn get(&self, key: &str) -> Option<&'n Node> {
        self.pair(key).map(|(_, value)| value)
    }

    pub(super) fn pair(&self, key: &str) -> Option<(&'n Node, &'n Node)> {
        if self.lengths & length_bit(key) == 0 {
            return None;
        }
        self.pairs.iter().find(|(k, _)| k.as_str() == Some(key)).map(|(k, v)| (k, v))
    }

    pub(super) fn required(&self, lower: &mut Lower<'_>, key: &str) -> Option<&'n Node> {
        let found = self.get(key);
        if found.is_none() && !self.misspelt(key) {
            let message = format!("`{key}` is missing in {}", self.keys.of);
            let span = self.first_key(lower.text);
            lower.report(Diagnostic::new(Code::MissingKey, message, span, format!("needs `{key}`")));
        }
        found
    }

    /// Whether an unknown key was told to be this one.
    pub(super) fn misspelt(&self, key: &str) -> bool {
        let known = self.keys.known;
        let mut names = self.pairs.iter().filter_map(|(k, _)| k.as_str()).filter(|k| !known.contains(k));
        names.any(|name| self.keys.suggestion(name).is_some_and(|help| help.contains(&format!("`{key}`"))))
    }

    /// Where a message about the whole map points.
    pub(super) fn first_key(&self, text: &str) -> Span {
        head(text, self.pairs.first().map_or(self.node.span, |(key, _)| key.span))
    }

    /// The keys that are there, of some.
    pub(super) fn present<'k>(&self, keys: &[&'k str]) -> Vec<(&'k str, Span)> {
        keys.iter().filter_map(|key| Some((*key, self.pair(key)?.0.span))).collect()
    }
}

impl Lower<'_> {
    /// Checks that a node is a map with no other keys than those known.
    pub(super) fn fields<'n>(&mut self, node: &'n Node, keys: &'static Keys) -> Option<Fields<'n>> {
        let pairs = self.map(node, keys.of)?;
        let mut lengths = 0;
        for (key, _) in pairs {
            let Some(name) = key.as_str() else {
                self.wrong_type(key, &format!("a key of {}", keys.of), "a string");
                continue;
            };
            lengths |= length_bit(name);
            // A merge key has been told already.
            if keys.known.contains(&name) || name == "<<" {
                continue;
            }
            let help = keys.suggestion(name).unwrap_or_else(|| format!("known are {}", keys.known.join(", ")));
            let message = format!("`{name}` is not a key of {}", keys.of);
            let label = "unknown key";
            self.report(Diagnostic::new(Code::UnknownKey, message, head(self.text, key.span), label).help(help));
        }
        Some(Fields { keys, node, pairs, lengths })
    }

    /// A map with keys that the author chose.
    pub(super) fn map<'n>(&mut self, node: &'n Node, name: &str) -> Option<&'n [(Node, Node)]> {
        let pairs = node.as_map();
        if pairs.is_none() {
            self.wrong_type(node, name, "a map");
        }
        pairs
    }

    pub(super) fn list<'n>(&mut self, node: &'n Node, name: &str) -> Option<&'n [Node]> {
        let items = node.as_list();
        if items.is_none() {
            self.wrong_type(node, &format!("`{name}`"), "a list");
        }
        items
    }

    /// `name` as it is to stand in the message.
    pub(super) fn wrong_type(&mut self, node: &Node, name: &str, wanted: &str) {
        let span = head(self.text, node.span);
        let raw = self.raw(span).to_owned();
        if node.value == NodeValue::Null && raw.starts_with('*') {
            // An alias to nothing: it has been told already.
            return;
        }
        let plain = match &node.value {
            NodeValue::Int(_) | NodeValue::UInt(_) | NodeValue::Float(_) | NodeValue::Bool(_) => true,
            NodeValue::Null => !raw.is_empty(),
            NodeValue::Str(..) | NodeValue::List(_) | NodeValue::Map(_) => false,
        };
        let read_as = match &node.value {
            NodeValue::Null => "null".to_owned(),
            NodeValue::Bool(b) => format!("the boolean {b}"),
            _ => format!("the number {}", node.to_json()),
        };
        let (message, label) = match &node.value {
            NodeValue::Null if raw.is_empty() => (format!("{name} must be {wanted}, but nothing is given"), "no value"),
            _ if plain && wanted == "a string" => {
                (format!("{name} must be {wanted}, but `{raw}` was read as {read_as}"), node.kind())
            }
            _ => (format!("{name} must be {wanted}, not {}", node.kind()), node.kind()),
        };
        let help = match (&node.value, wanted) {
            _ if plain && wanted == "a string" => Some(format!("quote it: \"{raw}\"")),
            (NodeValue::Str(text, Style::Plain), "true or false") => match text.to_ascii_lowercase().as_str() {
                "yes" | "on" | "y" => Some("write true; in YAML 1.2 this is a string".to_owned()),
                "no" | "off" | "n" => Some("write false; in YAML 1.2 this is a string".to_owned()),
                _ => None,
            },
            (NodeValue::Str(text, _), _) if text.contains("{{") && !matches!(wanted, "a map" | "a list") => {
                Some("a template cannot stand here: the value must be known before the run".to_owned())
            }
            (NodeValue::Str(text, Style::SingleQuoted | Style::DoubleQuoted), _) if is_literal(text) => {
                Some(format!("leave the quotes out: {text}"))
            }
            (NodeValue::Str(text, _), "a list")
                if !text.is_empty() && !name.contains("steps") && !name.contains("finally") =>
            {
                Some(format!("write it as a list: [{}]", text.split_whitespace().collect::<Vec<_>>().join(", ")))
            }
            _ => None,
        };
        self.report(Diagnostic::new(Code::WrongType, message, span, label).maybe_help(help));
    }

    pub(super) fn wrong_value(&mut self, span: Span, message: impl Into<String>, help: Option<String>) {
        let span = head(self.text, span);
        self.report(Diagnostic::new(Code::WrongValue, message, span, "not allowed").maybe_help(help));
    }

    pub(super) fn string<'n>(&mut self, node: &'n Node, name: &str) -> Option<&'n str> {
        let text = node.as_str();
        if text.is_none() {
            self.wrong_type(node, &format!("`{name}`"), "a string");
        }
        text
    }

    pub(super) fn boolean(&mut self, node: &Node, name: &str) -> Option<bool> {
        if let NodeValue::Bool(value) = node.value {
            return Some(value);
        }
        self.wrong_type(node, &format!("`{name}`"), "true or false");
        None
    }

    /// A whole number within bounds.
    pub(super) fn whole(&mut self, node: &Node, name: &str, min: i64, max: i64) -> Option<i64> {
        match node.value {
            NodeValue::Int(value) if (min..=max).contains(&value) => Some(value),
            NodeValue::Int(_) | NodeValue::UInt(_) => {
                self.wrong_value(node.span, format!("`{name}` must be from {min} to {max}"), None);
                None
            }
            _ => {
                self.wrong_type(node, &format!("`{name}`"), "a whole number");
                None
            }
        }
    }

    /// A number within bounds.
    pub(super) fn number(&mut self, node: &Node, name: &str, min: f64, max: f64) -> Option<f64> {
        let Some(value) = node.to_json().as_f64() else {
            self.wrong_type(node, &format!("`{name}`"), "a number");
            return None;
        };
        if (min..=max).contains(&value) {
            return Some(value);
        }
        self.wrong_value(node.span, format!("`{name}` must be from {min} to {max}"), None);
        None
    }

    /// One of a few words.
    pub(super) fn one_of<T: Copy>(&mut self, node: &Node, name: &str, words: &[(&str, T)]) -> Option<T> {
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let text = node.as_str();
        if let Some((_, value)) = words.iter().find(|(word, _)| Some(*word) == text) {
            return Some(*value);
        }
        let Some(text) = text else {
            self.wrong_type(node, &format!("`{name}`"), &format!("one of {}", known.join(", ")));
            return None;
        };
        let help = nearest(text, known.iter().copied()).map(|near| format!("did you mean `{near}`?"));
        let message = format!("`{name}` must be one of {}, not `{text}`", known.join(", "));
        self.wrong_value(node.span, message, help);
        None
    }

    pub(super) fn duration(&mut self, node: &Node, name: &str) -> Option<Duration> {
        let raw = self.raw(head(self.text, node.span)).to_owned();
        let bad = match &node.value {
            NodeValue::Str(text, _) if text.contains("{{") => (
                format!("`{name}` cannot be a template: it must be known before the run"),
                "write the duration itself, such as 10m".to_owned(),
            ),
            NodeValue::Str(text, _) => match duration::parse(text) {
                Ok(duration) => return Some(duration),
                Err(bad) => (format!("`{name}` must be a duration: {}", bad.message), bad.help),
            },
            NodeValue::Int(_) | NodeValue::UInt(_) | NodeValue::Float(_) => match duration::parse(&raw) {
                Err(bad) => (format!("`{name}` must be a duration: {}", bad.message), bad.help),
                Ok(duration) => return Some(duration),
            },
            _ => {
                self.wrong_type(node, &format!("`{name}`"), "a duration");
                return None;
            }
        };
        let span = head(self.text, node.span);
        self.report(Diagnostic::new(Code::BadDuration, bad.0, span, "not a duration").help(bad.1));
        None
    }

    /// A duration of a timer that would end at once if it were zero.
    pub(super) fn positive_duration(&mut self, node: &Node, name: &str) -> Option<Duration> {
        let duration = self.duration(node, name)?;
        if duration.is_zero() {
            let help = Some(format!("leave `{name}` out for none"));
            self.wrong_value(node.span, format!("`{name}` must be longer than zero"), help);
            return None;
        }
        Some(duration)
    }

    /// A string that may hold templates.
    pub(super) fn template(&mut self, node: &Node, name: &str) -> Option<Template> {
        self.string(node, name)?;
        match Template::parse(self.text, node) {
            Ok(template) => Some(template),
            Err(diagnostics) => {
                self.diagnostics.extend(diagnostics);
                None
            }
        }
    }

    /// A string, or a list of strings, that may hold templates.
    pub(super) fn templates(&mut self, node: &Node, name: &str) -> Vec<Template> {
        if node.as_str().is_some() {
            return self.template(node, name).into_iter().collect();
        }
        let Some(items) = node.as_list() else {
            self.wrong_type(node, &format!("`{name}`"), "a string or a list of strings");
            return Vec::new();
        };
        let item = format!("{name}[]");
        items.iter().filter_map(|n| self.template(n, &item)).collect()
    }

    /// A tree of values that may hold templates. What cannot be compiled stands for itself.
    pub(super) fn value(&mut self, node: &Node) -> ValueTemplate {
        let (value, diagnostics) = ValueTemplate::compile_all(self.text, node);
        self.diagnostics.extend(diagnostics);
        value
    }

    /// A string, or a list of strings.
    pub(super) fn strings(&mut self, node: &Node, name: &str) -> Vec<Spanned<String>> {
        let spanned = |node: &Node, text: &str| Spanned::new(text.to_owned(), node.span);
        if let Some(text) = node.as_str() {
            return vec![spanned(node, text)];
        }
        let Some(items) = node.as_list() else {
            self.wrong_type(node, &format!("`{name}`"), "a string or a list of strings");
            return Vec::new();
        };
        let item = format!("{name}[]");
        items.iter().filter_map(|n| self.string(n, &item).map(|text| spanned(n, text))).collect()
    }

    /// The key of a map as a name: letters, digits, `_` and, where `dash`, `-`; not a digit first.
    pub(super) fn name(&mut self, key: &Node, what: &str, dash: bool) -> Option<Spanned<String>> {
        let Some(name) = key.as_str() else {
            self.wrong_type(key, what, "a string");
            return None;
        };
        let inner = |c: char| c.is_ascii_alphanumeric() || c == '_' || (dash && c == '-');
        let first = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if !first || !name.chars().all(inner) || name.len() > 64 {
            let dashes = if dash { ", `-`" } else { "" };
            let message = format!("`{name}` cannot be {what}");
            let help = format!("use up to 64 letters, digits{dashes} and `_`, with a letter first");
            self.report(Diagnostic::new(Code::BadId, message, head(self.text, key.span), "not a name").help(help));
            return None;
        }
        Some(Spanned::new(name.to_owned(), key.span))
    }

    /// `env`: names and templates.
    pub(super) fn env(&mut self, node: &Node) -> Vec<(Spanned<String>, Template)> {
        let Some(pairs) = self.map(node, "`env`") else { return Vec::new() };
        let mut env = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            let name = self.name(key, "the name of an environment variable", false);
            let shown = format!("env.{}", key.key_text());
            if let (Some(template), Some(name)) = (self.template(value, &shown), name) {
                env.push((name, template));
            }
        }
        env
    }

    /// A map of names to values that may hold templates, such as `outputs`.
    pub(super) fn named_values(&mut self, node: &Node, name: &str) -> Vec<(Spanned<String>, ValueTemplate)> {
        let Some(pairs) = self.map(node, &format!("`{name}`")) else { return Vec::new() };
        let what = "the name of an output";
        pairs
            .iter()
            .filter_map(|(key, value)| {
                let value = self.value(value);
                Some((self.name(key, what, true)?, value))
            })
            .collect()
    }

    /// Says that keys which exclude each other stand together.
    pub(super) fn conflict(&mut self, keys: &[(&str, Span)], help: &str) {
        let names: Vec<String> = keys.iter().map(|(key, _)| format!("`{key}`")).collect();
        let message = format!("{} exclude each other", names.join(" and "));
        let mut diagnostic = Diagnostic::new(Code::ConflictingKeys, message, keys[0].1, "one of them");
        for (_, span) in &keys[1..] {
            diagnostic = diagnostic.label(*span, "and another");
        }
        self.report(diagnostic.help(help));
    }

    /// Says that a key means nothing where it stands.
    pub(super) fn pointless(&mut self, key: Span, message: String, help: &str) {
        self.report(Diagnostic::new(Code::KeyNeedsOther, message, key, "has no meaning here").help(help));
    }
}

/// Long keys share a bit.
fn length_bit(key: &str) -> u64 {
    1 << key.len().min(63)
}

/// A text that is a number or boolean once its quotes are gone.
fn is_literal(text: &str) -> bool {
    matches!(text, "true" | "false") || text.parse::<f64>().is_ok_and(f64::is_finite)
}
