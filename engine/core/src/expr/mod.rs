//! Conditions: CEL expressions over the same names as templates. Parsed once, references listed,
//! evaluated against a context. Knows nothing of playbooks.

use std::sync::Arc;

use crate::Json;
use crate::diagnostic::Diagnostic;
use crate::playbook::yaml::Node;
use crate::span::Span;
use crate::template::{Reference, RenderError};

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
}

impl Expr {
    pub fn parse(_file_text: &str, _node: &Node) -> Result<Self, Vec<Diagnostic>> {
        unimplemented!("helper template")
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

    pub fn eval(&self, _context: &Json) -> Result<Json, RenderError> {
        unimplemented!("helper template")
    }

    /// The value must be a boolean: nothing is truthy.
    pub fn eval_bool(&self, _context: &Json) -> Result<bool, RenderError> {
        unimplemented!("helper template")
    }
}
