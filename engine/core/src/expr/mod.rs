//! Conditions: CEL expressions over the same names as templates. Parsed once, references listed,
//! evaluated against a context. Knows nothing of playbooks.
//!
//! A subset of CEL of our own, see docs/decisions/expressions.md for what was measured of the `cel` crate.

mod ast;
mod eval;
mod functions;
mod lex;
mod parse;
mod types;

use std::sync::Arc;

use crate::Json;
use crate::diagnostic::{Code, Diagnostic};
use crate::playbook::yaml::{Node, NodeValue, inner_span};
use crate::span::Span;
use crate::template::{Reference, RenderError, scalar, value_text};

#[cfg(test)]
mod tests;

pub use types::Misfit;

/// A parsed expression. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Expr {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    text: String,
    span: Span,
    references: Vec<Reference>,
    ast: ast::Ast,
}

impl Expr {
    /// Parses a scalar's text; `when: true` and `when: 1` count as their text.
    pub fn parse(file_text: &str, node: &Node) -> Result<Self, Vec<Diagnostic>> {
        let text = match &node.value {
            NodeValue::Str(text, _) => text.to_string(),
            NodeValue::List(_) | NodeValue::Map(_) => {
                return Err(vec![
                    Diagnostic::new(
                        Code::ExpressionSyntax,
                        format!("an expression is one string, not {}", node.kind()),
                        node.span,
                        "expected an expression",
                    )
                    .help("quote it: \"inputs.count > 0\""),
                ]);
            }
            _ => value_text(&scalar(node)).unwrap_or_default().into_owned(),
        };
        let parsed = parse::parse(&text)
            .map_err(|ps| ps.into_iter().map(|p| p.into_diagnostic(file_text, node)).collect::<Vec<_>>())?;
        let place = |at: std::ops::Range<usize>| inner_span(file_text, node, at.start, at.end);
        Ok(Self::new(text, node.span, parsed, place))
    }

    /// Parses a text that stands in no file (the value of a step input); the error says what is wrong and where.
    pub fn parse_text(text: &str) -> Result<Self, String> {
        let parsed = parse::parse(text).map_err(|problems| {
            let told: Vec<String> = problems.iter().map(|p| p.tell(text)).collect();
            told.join("; ")
        })?;
        let place = |at: std::ops::Range<usize>| Span::new(crate::span::SourceId::default(), at.start, at.end);
        Ok(Self::new(text.to_owned(), Span::default(), parsed, place))
    }

    fn new(text: String, span: Span, parsed: parse::Parsed, place: impl Fn(std::ops::Range<usize>) -> Span) -> Self {
        let references = parsed
            .references
            .into_iter()
            .map(|r| Reference { path: r.path, span: place(r.at), optional: r.optional })
            .collect();
        Self { inner: Arc::new(Inner { text, span, references, ast: parsed.ast }) }
    }

    pub fn text(&self) -> &str {
        &self.inner.text
    }

    pub fn span(&self) -> Span {
        self.inner.span
    }

    pub fn references(&self) -> &[Reference] {
        &self.inner.references
    }

    pub fn eval(&self, context: &Json) -> Result<Json, RenderError> {
        eval::Evaluator::new(&self.inner, context).run()
    }

    /// The value must be a boolean: nothing is truthy.
    pub fn eval_bool(&self, context: &Json) -> Result<bool, RenderError> {
        eval::Evaluator::new(&self.inner, context).run_bool()
    }
}
