//! Handlebars templates: parsed once to a typed tree, references listed, rendered strictly and without
//! escaping. A rendered value is never parsed again. Knows nothing of playbooks or of what is in scope.
//!
//! The grammar is that of the handlebars crate (6.4), which parses; what it parsed is lowered to a tree of our
//! own, and rendered by us: values stay native JSON, the context is borrowed, and every error names its path.

mod helpers;
mod ir;
mod lower;
mod parts;
mod path;
pub(crate) mod problem;
mod render;
mod scan;
mod types;
mod value;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use crate::Json;
use crate::diagnostic::Diagnostic;
use crate::playbook::yaml::{Node, inner_span};
use crate::span::{SourceId, Span};

pub(crate) use helpers::kind as kind_of;
pub(crate) use helpers::{compare_numbers, kind, regex, same};
pub(crate) use lower::ROOTS;
pub(crate) use render::walk;
pub use scan::{Shape, shape};
pub use types::Misfit;
pub use value::ValueTemplate;
pub(crate) use value::{scalar, weight};

use ir::{Base, Ex, PathEx, Piece};
use problem::Problem;

#[cfg(test)]
mod tests;

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
    unquoted: Vec<u32>,
    body: Body,
}

#[derive(Debug)]
enum Body {
    /// The text itself.
    Verbatim,
    /// Exactly one `{{ … }}`.
    Lone(Ex),
    Pieces(Vec<Piece>),
}

impl Template {
    /// Parses a scalar node's text; spans of references and errors are in the file (`file_text`). A scalar that is
    /// not a string counts as its text.
    pub fn parse(file_text: &str, node: &Node) -> Result<Self, Vec<Diagnostic>> {
        let text = match node.as_str() {
            Some(text) => text.to_owned(),
            None => value_text(&scalar(node)).unwrap_or_default().into_owned(),
        };
        let place = |at: Range<usize>| inner_span(file_text, node, at.start, at.end);
        Self::new(text, node.span, place)
            .map_err(|problems| problems.into_iter().map(|p| p.into_diagnostic(file_text, node)).collect())
    }

    /// Parses a text that stands in no playbook (a file that a step renders); the error says what is wrong and
    /// where. Spans count from the beginning of the text.
    pub fn parse_text(text: &str) -> Result<Self, String> {
        let span = |at: Range<usize>| Span::new(SourceId::default(), at.start, at.end);
        Self::new(text.to_owned(), span(0..text.len()), span)
            .map_err(|problems| problems.iter().map(|p| p.tell(text)).collect::<Vec<_>>().join("; "))
    }

    fn new(text: String, span: Span, place: impl Fn(Range<usize>) -> Span) -> Result<Self, Vec<Problem>> {
        let verbatim = |text| Inner { text, span, references: Vec::new(), unquoted: Vec::new(), body: Body::Verbatim };
        if !text.contains("{{") {
            return Ok(Self { inner: Arc::new(verbatim(text)) });
        }
        let scan = scan::scan(&text)?;
        let lowered = lower::lower(&text, &scan)?;
        let references = lowered
            .references
            .into_iter()
            .map(|r| Reference { path: r.path, span: place(r.at), optional: r.optional })
            .collect();
        let whole = matches!(&scan.tags[..], [tag] if tag.at == (0..text.len()));
        let mut pieces = lowered.pieces;
        let body = match (whole, pieces.pop()) {
            (true, Some(Piece::Value(ex))) => Body::Lone(ex),
            (_, last) => {
                pieces.extend(last);
                Body::Pieces(pieces)
            }
        };
        Ok(Self { inner: Arc::new(Inner { references, unquoted: lowered.unquoted, body, ..verbatim(text) }) })
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

    /// References whose value becomes part of the text as it is: not through `quote`, nor through a helper whose
    /// result cannot break out of a shell word. In no particular order.
    pub fn used_unquoted(&self) -> impl Iterator<Item = &Reference> {
        self.inner.unquoted.iter().map(|i| &self.inner.references[*i as usize])
    }

    /// References whose whole value is printed as it is, outside of any condition, loop and helper.
    pub fn printed(&self) -> impl Iterator<Item = &Reference> {
        let exs: Vec<&Ex> = match &self.inner.body {
            Body::Verbatim => Vec::new(),
            Body::Lone(ex) => vec![ex],
            Body::Pieces(pieces) => {
                let values = pieces.iter().filter_map(|p| if let Piece::Value(ex) = p { Some(ex) } else { None });
                values.collect()
            }
        };
        exs.into_iter().filter_map(|ex| match ex {
            Ex::Path(PathEx { base: Base::Root(index), .. }) => Some(&self.inner.references[*index as usize]),
            _ => None,
        })
    }

    /// The text that it always renders to, when nothing in it is a template (`\{{` is unescaped).
    pub fn literal(&self) -> Option<Cow<'_, str>> {
        match &self.inner.body {
            Body::Verbatim => Some(Cow::Borrowed(&self.inner.text)),
            Body::Lone(_) => None,
            Body::Pieces(pieces) => pieces
                .iter()
                .map(|p| match p {
                    Piece::Text(text) => Some(&**text),
                    _ => None,
                })
                .collect::<Option<String>>()
                .map(Cow::Owned),
        }
    }

    /// It is exactly one `{{ … }}` and renders to a native value.
    pub fn is_whole(&self) -> bool {
        matches!(self.inner.body, Body::Lone(_))
    }

    /// A template that is exactly one `{{ … }}` gives its native value, any other a string.
    pub fn render(&self, context: &Json) -> Result<Json, RenderError> {
        match &self.inner.body {
            Body::Verbatim => Ok(Json::String(self.inner.text.clone())),
            Body::Lone(ex) => render::Renderer::new(&self.inner, context).native(ex),
            Body::Pieces(pieces) => render::Renderer::new(&self.inner, context).text(pieces).map(Json::String),
        }
    }

    /// Renders to a string; a native number or boolean is printed, a list, a map or null is an error.
    pub fn render_string(&self, context: &Json) -> Result<String, RenderError> {
        match &self.inner.body {
            Body::Verbatim => Ok(self.inner.text.clone()),
            Body::Lone(ex) => {
                let renderer = render::Renderer::new(&self.inner, context);
                let value = renderer.native(ex)?;
                renderer.print(ex, &value).map(Cow::into_owned)
            }
            Body::Pieces(pieces) => render::Renderer::new(&self.inner, context).text(pieces),
        }
    }
}

/// The text of a string, number or boolean.
pub(crate) fn value_text(value: &Json) -> Option<Cow<'_, str>> {
    match value {
        Json::String(s) => Some(Cow::Borrowed(s)),
        Json::Number(n) => Some(Cow::Owned(n.to_string())),
        Json::Bool(b) => Some(Cow::Borrowed(if *b { "true" } else { "false" })),
        Json::Null | Json::Array(_) | Json::Object(_) => None,
    }
}
