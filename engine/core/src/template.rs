//! Handlebars templates: parsed once to a typed tree, references listed, rendered strictly and without
//! escaping. A rendered value is never parsed again. Knows nothing of playbooks or of what is in scope.

use std::sync::Arc;

use crate::Json;
use crate::diagnostic::Diagnostic;
use crate::playbook::yaml::Node;
use crate::span::Span;

/// A path such as `steps.convert.outputs.xml`, from its root, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    pub path: Vec<String>,
    pub span: Span,
    /// It stands in a place that a missing value does not make an error (`{{#if x}}`, `or`).
    pub optional: bool,
}

/// Why rendering failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RenderError {
    pub message: String,
}

/// A parsed string template. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Template {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    text: String,
    span: Span,
    references: Vec<Reference>,
}

impl Template {
    /// Parses a scalar node's text; spans of references and errors are in the file (`file_text`).
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

    /// A template that is exactly one `{{ … }}` gives its native value, any other a string.
    pub fn render(&self, _context: &Json) -> Result<Json, RenderError> {
        unimplemented!("helper template")
    }

    /// Renders to a string; a native number or boolean is printed, a list or map is an error.
    pub fn render_string(&self, _context: &Json) -> Result<String, RenderError> {
        unimplemented!("helper template")
    }
}

/// A tree of values in which any string may be a template. Subtrees without templates are one `Literal`.
#[derive(Debug, Clone)]
pub enum ValueTemplate {
    Literal(Json),
    Text(Template),
    List(Vec<ValueTemplate>),
    Map(Vec<(String, ValueTemplate)>),
}

/// "a string", "a list" …, for messages.
pub fn kind_of(value: &Json) -> &'static str {
    match value {
        Json::Null => "nothing",
        Json::Bool(_) => "a boolean",
        Json::Number(_) => "a number",
        Json::String(_) => "a string",
        Json::Array(_) => "a list",
        Json::Object(_) => "a map",
    }
}

impl ValueTemplate {
    /// Compiles every string under a node. Collects all errors.
    pub fn compile(_file_text: &str, _node: &Node) -> Result<Self, Vec<Diagnostic>> {
        unimplemented!("helper template")
    }

    pub fn literal(&self) -> Option<&Json> {
        match self {
            ValueTemplate::Literal(json) => Some(json),
            _ => None,
        }
    }

    /// The value under a key of a map.
    pub fn get(&self, _key: &str) -> Option<ValueTemplate> {
        unimplemented!("helper template")
    }

    /// Every reference in it, in order.
    pub fn for_each_reference(&self, _visit: &mut dyn FnMut(&Reference)) {
        unimplemented!("helper template")
    }

    pub fn render(&self, _context: &Json) -> Result<Json, RenderError> {
        unimplemented!("helper template")
    }
}
