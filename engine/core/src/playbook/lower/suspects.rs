//! Plain scalars that YAML 1.1 readers, and people, take for something else: `yes`, `0755`, `22:22`.

use super::Lower;
use crate::diagnostic::{Code, Diagnostic};
use crate::playbook::yaml::{Node, NodeValue, Style};
use crate::template::ROOTS;

impl Lower<'_> {
    /// A warning for every such value in the tree.
    pub(super) fn suspects(&self, node: &Node) -> Vec<Diagnostic> {
        let mut found = Vec::new();
        walk(node, &mut |value| found.extend(suspect(value, |value| self.raw(value.span))));
        found
    }

    /// A warning for every text that is surely meant as a template, in a value that is taken as it stands.
    pub(super) fn not_read(&mut self, node: &Node, what: &str) {
        let mut found = Vec::new();
        walk(node, &mut |value| {
            if value.as_str().is_some_and(names_a_value) {
                let message = format!("{what} is taken as it stands: no template is read here");
                found.push(Diagnostic::new(Code::TemplateNotRead, message, value.span, "taken as it stands"));
            }
        });
        let help = "write the value out, and put the template where it is used: under `with`, `env`, `run`";
        self.diagnostics.extend(found.into_iter().map(|d| d.help(help)));
    }
}

/// Whether it holds a template of ours. Braces alone may be meant for another program.
fn names_a_value(text: &str) -> bool {
    text.split("{{").skip(1).any(|rest| {
        let rest = rest.trim_start_matches(['{', '~', ' ']);
        ROOTS.iter().any(|root| rest.strip_prefix(root).is_some_and(|after| after.starts_with('.')))
    })
}

/// Values only: as keys such words are what they look like.
fn walk(node: &Node, visit: &mut dyn FnMut(&Node)) {
    match &node.value {
        NodeValue::List(items) => items.iter().for_each(|n| walk(n, visit)),
        NodeValue::Map(pairs) => pairs.iter().for_each(|(_, v)| walk(v, visit)),
        _ => visit(node),
    }
}

fn suspect<'t>(node: &Node, raw: impl Fn(&Node) -> &'t str) -> Option<Diagnostic> {
    let (message, help) = match &node.value {
        NodeValue::Str(text, Style::Plain) => {
            if is_switch(text) {
                (format!("`{text}` is a string here, and a boolean to YAML 1.1"), quote_or(text))
            } else if is_sexagesimal(text) {
                let message = format!("`{text}` is a string here, and a number in base 60 to YAML 1.1");
                (message, format!("quote it: \"{text}\""))
            } else {
                return None;
            }
        }
        NodeValue::Int(value) if has_leading_zero(raw(node)) => {
            let raw = raw(node);
            let help = format!("quote it for the text (\"{raw}\"), as for the mode of a file; or write {value}");
            (format!("`{raw}` is the decimal number {value} here, and octal to YAML 1.1"), help)
        }
        _ => return None,
    };
    Some(Diagnostic::new(Code::NorwayProblem, message, node.span, "written without quotes").help(help))
}

/// What is a boolean to YAML 1.1 only.
fn is_switch(text: &str) -> bool {
    text.len() <= 3 && ["yes", "no", "on", "off"].iter().any(|word| text.eq_ignore_ascii_case(word))
}

fn quote_or(text: &str) -> String {
    let boolean = ["yes", "on"].iter().any(|word| text.eq_ignore_ascii_case(word));
    format!("quote it: \"{text}\"; or write {boolean} if a boolean is meant")
}

fn has_leading_zero(raw: &str) -> bool {
    let digits = raw.trim_start_matches(['+', '-']);
    digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit())
}

/// `22:22`, `1:30:00`: digits in groups, all but the first below 60.
fn is_sexagesimal(text: &str) -> bool {
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return false; // nearly every scalar of a playbook
    }
    let mut groups = text.split(':');
    let first = groups.next().unwrap_or_default();
    let number = |group: &str| !group.is_empty() && group.len() <= 5 && group.bytes().all(|b| b.is_ascii_digit());
    let mut rest = 0;
    for group in groups {
        if !number(group) || group.len() > 2 || group.parse::<u32>().is_ok_and(|n| n > 59) {
            return false;
        }
        rest += 1;
    }
    rest > 0 && number(first) && !first.starts_with('0')
}
