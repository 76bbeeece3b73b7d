//! A mistake inside the text of a scalar, before it is placed in the file. Shared by templates and expressions.

use std::ops::Range;

use crate::diagnostic::{Code, Diagnostic};
use crate::playbook::yaml::{Node, inner_span};

/// Ranges are bytes of the scalar's decoded text.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    pub(crate) code: Code,
    pub(crate) message: String,
    pub(crate) help: Option<String>,
    pub(crate) at: Range<usize>,
    pub(crate) label: String,
    /// A second place, with its label.
    pub(crate) also: Option<(Range<usize>, String)>,
}

impl Problem {
    pub(crate) fn new(code: Code, at: Range<usize>, message: impl Into<String>, label: impl Into<String>) -> Self {
        Self { code, message: message.into(), help: None, at, label: label.into(), also: None }
    }

    #[must_use]
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    #[must_use]
    pub(crate) fn also(mut self, at: Range<usize>, label: impl Into<String>) -> Self {
        self.also = Some((at, label.into()));
        self
    }

    /// For a text that stands in no file: what, where and what to do, in one line.
    pub(crate) fn tell(&self, text: &str) -> String {
        let before = text.get(..self.at.start).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        let help = self.help.as_ref().map(|h| format!(" ({h})")).unwrap_or_default();
        format!("line {line}, column {column}: {}{help}", self.message)
    }

    pub(crate) fn into_diagnostic(self, file_text: &str, node: &Node) -> Diagnostic {
        let span = inner_span(file_text, node, self.at.start, self.at.end);
        let mut diagnostic = Diagnostic::new(self.code, self.message, span, self.label).maybe_help(self.help);
        if let Some((at, label)) = self.also {
            diagnostic = diagnostic.label(inner_span(file_text, node, at.start, at.end), label);
        }
        diagnostic
    }
}

/// The nearest of the names to a mistyped one, when it is near enough to be meant.
pub(crate) fn nearest<'n>(word: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let allowed = match word.chars().count() {
        // Any other letter would be as near.
        0..=1 => 0,
        2..=3 => 1,
        4..=6 => 2,
        _ => 3,
    };
    names
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(word, name), name))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}
