//! A YAML tree against rules. Collects every problem; each says what was wanted, what was read, and what to write.

use std::fmt::Write as _;

use super::format::Format;
use super::{Additional, CompiledSchema, Kinds, Property, Rule, RuleId};
use crate::Json;
use crate::diagnostic::{Code, Diagnostic};
use crate::playbook::yaml::{Node, NodeValue, Style};
use crate::span::Span;
use crate::template::problem::nearest;
use crate::template::{Shape, same, scalar, shape};

pub(super) fn check(schema: &CompiledSchema, step_type: &str, with: &Node, file_text: &str) -> Vec<Diagnostic> {
    let mut checker = Checker { rules: &schema.rules, step_type, file_text, out: Vec::new() };
    checker.value(schema.root, with, &Path { outer: None, part: Part::Root, span: None });
    checker.out
}

struct Checker<'c> {
    rules: &'c [Rule],
    step_type: &'c str,
    file_text: &'c str,
    out: Vec<Diagnostic>,
}

/// The way from the top of `with:` to a value.
pub(super) struct Path<'p> {
    pub(super) outer: Option<&'p Path<'p>>,
    pub(super) part: Part<'p>,
    /// The key's place.
    pub(super) span: Option<Span>,
}

pub(super) enum Part<'p> {
    Root,
    Key(&'p str),
    Index(usize),
}

impl Path<'_> {
    /// `headers.Accept`, `mounts[2].path`; empty at the top.
    pub(super) fn tell(&self) -> String {
        let mut told = self.outer.map(Path::tell).unwrap_or_default();
        match self.part {
            Part::Root => {}
            Part::Key(key) if told.is_empty() => told.push_str(key),
            Part::Key(key) => {
                told.push('.');
                told.push_str(key);
            }
            // Writing to a string cannot fail.
            Part::Index(i) => drop(write!(told, "[{i}]")),
        }
        told
    }

    fn is_root(&self) -> bool {
        matches!(self.part, Part::Root)
    }
}

/// What can be said of a value before it is rendered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    Fully,
    /// A string whose text is not known.
    TextOnly,
    Nothing,
}

fn known(node: &Node) -> Known {
    match node.as_str() {
        Some(text) if text.contains("{{") => match shape(text) {
            Shape::Whole => Known::Nothing,
            // `\{{` is a literal whose text is another one; not worth unescaping.
            Shape::Mixed | Shape::Literal => Known::TextOnly,
        },
        _ => Known::Fully,
    }
}

fn kinds(node: &Node) -> Kinds {
    match &node.value {
        NodeValue::Null => Kinds::NULL,
        NodeValue::Bool(_) => Kinds::BOOL,
        NodeValue::Int(_) | NodeValue::UInt(_) => Kinds::INTEGER,
        // Not a whole number, even when it is written 5.0.
        NodeValue::Float(_) => Kinds(8),
        NodeValue::Str(..) => Kinds::STRING,
        NodeValue::List(_) => Kinds::LIST,
        NodeValue::Map(_) => Kinds::MAP,
    }
}

impl Checker<'_> {
    fn name(&self, path: &Path<'_>) -> String {
        if path.is_root() { format!("`{}`", self.step_type) } else { format!("`{}`", path.tell()) }
    }

    fn value(&mut self, id: RuleId, node: &Node, path: &Path<'_>) {
        let known = known(node);
        if known == Known::Nothing {
            return;
        }
        let rule = &self.rules[id];
        if !rule.kinds.meets(kinds(node)) {
            self.wrong_kind(rule, node, path);
            return;
        }
        for other in &rule.also {
            self.value(*other, node, path);
        }
        if !rule.choice.is_empty() {
            self.choice(rule, node, path);
        }
        match &node.value {
            NodeValue::Str(text, _) if known == Known::Fully => self.text(rule, text, node, path),
            NodeValue::List(items) => self.list(rule, items, node, path),
            NodeValue::Map(entries) => self.map(rule, entries, node, path),
            NodeValue::Int(_) | NodeValue::UInt(_) | NodeValue::Float(_) => self.number(rule, node, path),
            _ => {}
        }
        if known == Known::Fully && !rule.constants.is_empty() {
            self.constant(&rule.constants, node, path);
        }
    }

    fn wrong(&mut self, node: &Node, message: String, label: String, help: Option<String>) {
        let span = if node.span.is_empty() { node.span } else { first_line(self.file_text, node.span) };
        self.out.push(Diagnostic::new(Code::WrongStepInput, message, span, label).maybe_help(help));
    }

    fn wrong_kind(&mut self, rule: &Rule, node: &Node, path: &Path<'_>) {
        let wants = rule.kinds;
        let source = self.file_text.get(node.span.start as usize..node.span.end as usize).unwrap_or("");
        if known(node) == Known::TextOnly {
            let message =
                format!("{} wants {}; a template with text around it gives a string", self.name(path), wants.tell());
            let help = "let the value be one {{ … }} and nothing else: then it keeps its type";
            return self.wrong(node, message, "text and template".to_owned(), Some(help.to_owned()));
        }
        let message = match node.value {
            NodeValue::Null => format!("{} wants {} and has no value", self.name(path), wants.tell()),
            _ => format!("{} wants {}, not {}", self.name(path), wants.tell(), node.kind()),
        };
        let (label, help) = match &node.value {
            NodeValue::Null if source.trim().is_empty() => (
                "nothing stands here".to_owned(),
                wants.meets(Kinds::STRING).then(|| "for an empty text write \"\"".to_owned()),
            ),
            NodeValue::Null | NodeValue::Bool(_) | NodeValue::Int(_) | NodeValue::UInt(_) | NodeValue::Float(_) => {
                let read = format!("read as {} {}", node.kind().replace("a ", "the "), scalar(node));
                let help = if rule.format == Some(Format::Duration) && matches!(node.value, NodeValue::Int(_)) {
                    Some(format!("write it with its unit: {source}s or {source}m"))
                } else if wants.meets(Kinds::STRING) {
                    Some(format!("quote it: \"{source}\""))
                } else if let NodeValue::Float(f) = node.value
                    && wants.meets(Kinds::INTEGER)
                    && f.fract() == 0.0
                {
                    Some(format!("write {f:.0}"))
                } else {
                    list_help(wants, source)
                };
                (read.replace("nothing null", "null"), help)
            }
            NodeValue::Str(text, style) => {
                (format!("read as the string {}", Json::from(shorten(text))), string_help(wants, text, *style, source))
            }
            NodeValue::List(_) | NodeValue::Map(_) => (format!("this is {}", node.kind()), None),
        };
        self.wrong(node, message, label, help);
    }

    /// At least one of the rules must hold. Reports the problems of the one that was most likely meant.
    fn choice(&mut self, rule: &Rule, node: &Node, path: &Path<'_>) {
        let fitting: Vec<RuleId> =
            rule.choice.iter().copied().filter(|id| self.rules[*id].kinds.meets(kinds(node))).collect();
        if let [only] = fitting[..] {
            return self.value(only, node, path);
        }
        if let Some(tagged) = self.tagged(&fitting, node) {
            return self.variant(&tagged, node, path);
        }
        let before = self.out.len();
        let mut best: Option<Vec<Diagnostic>> = None;
        for id in &fitting {
            self.value(*id, node, path);
            let found = self.out.split_off(before);
            if found.is_empty() {
                return;
            }
            if best.as_ref().is_none_or(|b| found.len() < b.len()) {
                best = Some(found);
            }
        }
        let constants: Vec<Json> = fitting.iter().flat_map(|id| self.rules[*id].constants.iter().cloned()).collect();
        if fitting.iter().all(|id| !self.rules[*id].constants.is_empty()) {
            return self.constant(&constants, node, path);
        }
        self.out.extend(best.into_iter().flatten());
    }

    /// The variants of an enum that carry values: maps of exactly one key.
    fn tagged(&self, fitting: &[RuleId], node: &Node) -> Option<Vec<(String, RuleId)>> {
        node.as_map()?;
        let one = |id: &RuleId| match &self.rules[*id] {
            Rule { properties, additional: Additional::Deny, .. } => match &properties[..] {
                [Property { name, rule, required: true, .. }] => Some((name.to_string(), *rule)),
                _ => None,
            },
            _ => None,
        };
        fitting.iter().map(one).collect::<Option<Vec<_>>>().filter(|all| !all.is_empty())
    }

    fn variant(&mut self, tagged: &[(String, RuleId)], node: &Node, path: &Path<'_>) {
        let names: Vec<&str> = tagged.iter().map(|(name, _)| name.as_str()).collect();
        let entries = node.as_map().unwrap_or_default();
        for (key, value) in entries {
            let key_text = key.as_str().unwrap_or("");
            match tagged.iter().find(|(name, _)| name == key_text) {
                Some((_, rule)) => {
                    let inner = Path { outer: Some(path), part: Part::Key(key_text), span: Some(key.span) };
                    self.value(*rule, value, &inner);
                }
                None => self.unknown(key, key_text, &names, path),
            }
        }
        if entries.len() != 1 {
            let message = format!("{} wants exactly one of {}", self.name(path), ticked(&names));
            let span = path.span.unwrap_or_else(|| first_line(self.file_text, node.span));
            let label = if entries.is_empty() { "none is here" } else { "more than one is here" };
            self.out.push(Diagnostic::new(Code::WrongStepInput, message, span, label));
        }
    }

    fn constant(&mut self, constants: &[Json], node: &Node, path: &Path<'_>) {
        let value = scalar(node);
        if node.as_list().is_some() || node.as_map().is_some() || constants.iter().any(|c| same(c, &value)) {
            return;
        }
        let told: Vec<String> = constants.iter().filter(|c| !c.is_null()).map(written).collect();
        let names: Vec<&str> = told.iter().map(String::as_str).collect();
        let message = match &names[..] {
            [one] => format!("{} wants `{one}`, not `{}`", self.name(path), shorten(&written(&value))),
            _ => format!("{} wants one of {}, not `{}`", self.name(path), ticked(&names), shorten(&written(&value))),
        };
        let near = nearest(&written(&value), names.iter().copied());
        self.wrong(node, message, "not one of them".to_owned(), near.map(|n| format!("did you mean `{n}`?")));
    }

    fn text(&mut self, rule: &Rule, text: &str, node: &Node, path: &Path<'_>) {
        if let Some(format) = rule.format {
            self.out.extend(format.check(&path.tell(), text, node, self.file_text));
        }
        if let Some(pattern) = &rule.pattern
            && !pattern.allows(text)
        {
            let message = format!("{} must match {pattern}, `{}` does not", self.name(path), shorten(text));
            self.wrong(node, message, "does not match".to_owned(), None);
        }
        let (least, most) = rule.length;
        if least > 0 || most < usize::MAX {
            let length = text.chars().count();
            self.size(length, rule.length, "character", node, path);
        }
    }

    fn size(&mut self, size: usize, (least, most): (usize, usize), what: &str, node: &Node, path: &Path<'_>) {
        let plural = |n: usize| if n == 1 { "" } else { "s" };
        let message = if size < least && size == 0 && least == 1 {
            format!("{} must not be empty", self.name(path))
        } else if size < least {
            format!("{} wants at least {least} {what}{}, this has {size}", self.name(path), plural(least))
        } else if size > most {
            format!("{} wants at most {most} {what}{}, this has {size}", self.name(path), plural(most))
        } else {
            return;
        };
        self.wrong(node, message, if size < least { "too few" } else { "too many" }.to_owned(), None);
    }

    fn number(&mut self, rule: &Rule, node: &Node, path: &Path<'_>) {
        if rule.minimum.is_none() && rule.maximum.is_none() {
            return;
        }
        let value = scalar(node);
        let Some(number) = value.as_f64() else { return };
        let low = rule.minimum.is_some_and(|m| number < m || (rule.exclusive.0 && number <= m));
        let high = rule.maximum.is_some_and(|m| number > m || (rule.exclusive.1 && number >= m));
        if !low && !high {
            return;
        }
        let bound = |exclusive: bool, words: [&str; 2]| words[usize::from(exclusive)].to_owned();
        let range = match (rule.minimum, rule.maximum) {
            (Some(a), Some(b)) if rule.exclusive == (false, false) => format!("from {a} to {b}"),
            (Some(a), Some(b)) => format!("between {a} and {b}"),
            (Some(a), None) => format!("{} {a}", bound(rule.exclusive.0, ["of at least", "above"])),
            (_, Some(b)) => format!("{} {b}", bound(rule.exclusive.1, ["of at most", "below"])),
            (None, None) => String::new(),
        };
        let message = format!("{} wants a number {range}, not {value}", self.name(path));
        self.wrong(node, message, if low { "too small" } else { "too large" }.to_owned(), None);
    }

    fn list(&mut self, rule: &Rule, items: &[Node], node: &Node, path: &Path<'_>) {
        for (i, item) in items.iter().enumerate() {
            if let Some(of_item) = rule.of_item(i) {
                self.value(of_item, item, &Path { outer: Some(path), part: Part::Index(i), span: None });
            }
        }
        self.size(items.len(), rule.count, "item", node, path);
    }

    fn map(&mut self, rule: &Rule, entries: &[(Node, Node)], node: &Node, path: &Path<'_>) {
        let mut required = rule.properties.iter().filter(|p| p.required).count();
        for (key, value) in entries {
            let scalar_key;
            let name = if let Some(name) = key.as_str() {
                name
            } else {
                scalar_key = scalar(key).to_string();
                &scalar_key
            };
            let inner = Path { outer: Some(path), part: Part::Key(name), span: Some(key.span) };
            match (rule.properties.iter().find(|p| &*p.name == name), &rule.additional) {
                (Some(property), _) => {
                    required -= usize::from(property.required);
                    self.value(property.rule, value, &inner);
                }
                (None, Additional::Rule(of_value)) => self.value(*of_value, value, &inner),
                (None, Additional::Deny) => {
                    let names: Vec<&str> = rule.properties.iter().map(|p| &*p.name).collect();
                    self.unknown(key, name, &names, path);
                }
                (None, Additional::Any) => {}
            }
        }
        if required > 0 {
            self.missing(rule, entries, node, path);
        }
        self.size(entries.len(), rule.entries, "entry", node, path);
    }

    fn unknown(&mut self, key: &Node, name: &str, known: &[&str], path: &Path<'_>) {
        let what = if path.is_root() { "input" } else { "key" };
        let message = format!("{} has no {what} `{name}`", self.name(path));
        let all = match known {
            [] => "it takes none".to_owned(),
            _ => format!("it has {}", known.join(", ")),
        };
        let help = match nearest(name, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`? {all}"),
            None => all,
        };
        let diagnostic = Diagnostic::new(Code::UnknownStepInput, message, key.span, format!("unknown {what}"));
        self.out.push(diagnostic.help(help));
    }

    fn missing(&mut self, rule: &Rule, entries: &[(Node, Node)], node: &Node, path: &Path<'_>) {
        let first = entries.first().map(|(key, _)| key.span);
        let span = path.span.or(first).unwrap_or_else(|| first_line(self.file_text, node.span));
        for property in rule.properties.iter().filter(|p| p.required) {
            let name = &property.name;
            // A key that was told to be this one misspelt is told once.
            let known = || rule.properties.iter().map(|p| &*p.name);
            let is_it =
                |key: &str| key == &**name || (known().all(|k| k != key) && nearest(key, known()) == Some(&**name));
            if entries.iter().any(|(key, _)| key.as_str().is_some_and(is_it)) {
                continue;
            }
            let message = format!("{} needs `{name}`", self.name(path));
            let wants = self.rules[property.rule].kinds;
            let what = if wants == Kinds::ALL { "a value".to_owned() } else { wants.tell() };
            let doc = property.doc.as_ref().map(|d| format!(": {d}")).unwrap_or_default();
            let diagnostic = Diagnostic::new(Code::MissingStepInput, message, span, format!("`{name}` is missing"));
            self.out.push(diagnostic.help(format!("add `{name}`, {what}{doc}")));
        }
    }
}

/// A value of several lines is pointed at by its first.
fn first_line(text: &str, span: Span) -> Span {
    let source = text.get(span.start as usize..span.end as usize).unwrap_or("");
    let line = source.lines().next().unwrap_or(source).trim_end();
    Span { end: span.start + line.len() as u32, ..span }
}

fn written(json: &Json) -> String {
    match json {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn ticked(names: &[&str]) -> String {
    names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")
}

fn shorten(text: &str) -> String {
    let line = text.lines().next().unwrap_or("");
    if line.len() == text.len() && line.chars().count() <= 40 {
        return line.to_owned();
    }
    format!("{}…", line.chars().take(40).collect::<String>())
}

fn list_help(wants: Kinds, source: &str) -> Option<String> {
    wants.meets(Kinds::LIST).then(|| format!("write it as a list: [{source}]"))
}

/// What to write instead of a string.
fn string_help(wants: Kinds, text: &str, style: Style, source: &str) -> Option<String> {
    let quoted = matches!(style, Style::SingleQuoted | Style::DoubleQuoted);
    if wants.meets(Kinds::BOOL) {
        let meant = match text.to_ascii_lowercase().as_str() {
            "yes" | "y" | "on" | "true" | "1" => Some("true"),
            "no" | "n" | "off" | "false" | "0" => Some("false"),
            _ => None,
        };
        return meant.map(|m| if quoted { format!("write {m} without quotes") } else { format!("write {m}") });
    }
    if wants.meets(Kinds::NUMBER) {
        let number = if wants.meets(Kinds(8)) { text.parse::<f64>().is_ok() } else { text.parse::<i64>().is_ok() };
        if number {
            return Some(format!("write it without quotes: {text}"));
        }
    }
    if matches!(style, Style::Literal | Style::Folded) { None } else { list_help(wants, source) }
}
