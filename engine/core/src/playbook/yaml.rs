//! Text to a spanned YAML tree (1.2 core schema). Knows nothing of playbooks.
//!
//! The events come from granit-parser 2.1, unless the text is as simple as most are; this module resolves scalars,
//! expands aliases within bounds, and says what is wrong in terms of the text. Where a mistake does not hide the rest of
//! the file (a duplicate key, an unknown tag, a template without quotes), it goes on, so that all of them are told at once.

mod build;
mod inner;
mod scalar;
mod simple;
mod syntax;

use crate::Json;
use crate::diagnostic::{Code, Diagnostic};
use crate::span::{SourceId, Span};

pub use inner::inner_span;

/// Bytes that one file may have.
pub const MAX_BYTES: usize = 32 << 20;
/// Lists and maps within each other, aliases expanded. Bounds the stack of everything that walks a tree.
pub const MAX_DEPTH: usize = 64;
/// Nodes with aliases expanded (64 bytes of text count as one more).
pub const MAX_NODES: usize = 2_000_000;

/// How a scalar was written; decides how offsets in its decoded text map to the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    Plain,
    SingleQuoted,
    DoubleQuoted,
    Literal,
    Folded,
}

/// A value and where it stands. The nodes that an alias stands for have the spans of the anchor's content.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub span: Span,
    pub value: NodeValue,
}

#[derive(Debug, Clone, PartialEq)]
pub enum NodeValue {
    Null,
    Bool(bool),
    Int(i64),
    /// Above `i64::MAX`.
    UInt(u64),
    /// Always finite.
    Float(f64),
    Str(Box<str>, Style),
    List(Vec<Node>),
    /// In file order; keys are unique.
    Map(Vec<(Node, Node)>),
}

impl Node {
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            NodeValue::Str(s, _) => Some(s),
            _ => None,
        }
    }

    pub fn as_map(&self) -> Option<&[(Node, Node)]> {
        match &self.value {
            NodeValue::Map(m) => Some(m),
            _ => None,
        }
    }

    pub fn as_list(&self) -> Option<&[Node]> {
        match &self.value {
            NodeValue::List(l) => Some(l),
            _ => None,
        }
    }

    /// The value under a key of a map.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.as_map()?.iter().find(|(k, _)| k.as_str() == Some(key)).map(|(_, v)| v)
    }

    /// "a string", "a number", "a list" …, for messages.
    pub fn kind(&self) -> &'static str {
        match &self.value {
            NodeValue::Null => "nothing",
            NodeValue::Bool(_) => "a boolean",
            NodeValue::Int(_) | NodeValue::UInt(_) => "a whole number",
            NodeValue::Float(_) => "a number",
            NodeValue::Str(..) => "a string",
            NodeValue::List(_) => "a list",
            NodeValue::Map(_) => "a map",
        }
    }

    /// The value without its spans. A map key that is no string becomes its JSON text.
    pub fn to_json(&self) -> Json {
        match &self.value {
            NodeValue::Null => Json::Null,
            NodeValue::Bool(b) => (*b).into(),
            NodeValue::Int(i) => (*i).into(),
            NodeValue::UInt(u) => (*u).into(),
            NodeValue::Float(f) => (*f).into(),
            NodeValue::Str(s, _) => s.as_ref().into(),
            NodeValue::List(items) => items.iter().map(Node::to_json).collect(),
            NodeValue::Map(pairs) => pairs.iter().map(|(k, v)| (k.key_text(), v.to_json())).collect(),
        }
    }

    /// What it is called as the key of a JSON object.
    pub fn key_text(&self) -> String {
        self.as_str().map_or_else(|| self.to_json().to_string(), str::to_owned)
    }
}

/// Parses one document. On error: all that can be said.
pub fn parse(source: SourceId, text: &str) -> Result<Node, Vec<Diagnostic>> {
    match parse_lossy(source, text) {
        (Some(node), diagnostics) if diagnostics.is_empty() => Ok(node),
        (_, diagnostics) => Err(diagnostics),
    }
}

/// Like [`parse`], but gives the tree in spite of mistakes where its shape is not in doubt, so that later
/// checks can add theirs. Without diagnostics there is always a tree.
pub fn parse_lossy(source: SourceId, text: &str) -> (Option<Node>, Vec<Diagnostic>) {
    if text.len() > MAX_BYTES {
        let message = format!("the file has {} bytes, over the limit of {} MiB", text.len(), MAX_BYTES >> 20);
        let start = Span::new(source, 0, 0);
        return (None, vec![Diagnostic::new(Code::YamlTooLarge, message, start, "this file")]);
    }
    if let Some(root) = simple::read(source, text) {
        return (Some(root), Vec::new());
    }
    let mut recovery = syntax::Recovery::default();
    loop {
        let built = build::build(source, text, recovery.patches());
        let Some(stopped) = built.stopped else {
            return recovery.finish(built.root, built.diagnostics);
        };
        match recovery.mend(source, text, &stopped) {
            syntax::Mend::Again => {}
            syntax::Mend::Stop(last) => {
                let mut diagnostics = built.diagnostics;
                diagnostics.push(*last);
                return recovery.finish(None, diagnostics);
            }
        }
    }
}

/// The text of a file, which must be UTF-8 (a byte order mark is fine). The error is the text up to and
/// including the first byte that is not, that byte replaced by U+FFFD, and a diagnostic that points there.
pub fn decode(source: SourceId, bytes: Vec<u8>) -> Result<String, (String, Box<Diagnostic>)> {
    String::from_utf8(bytes).map_err(|error| {
        let (offset, bytes) = (error.utf8_error().valid_up_to(), error.as_bytes());
        let mut text = String::from_utf8_lossy(&bytes[..offset]).into_owned();
        text.push('\u{fffd}');
        let message = format!("the file is not UTF-8: byte 0x{:02x} at offset {offset}", bytes[offset]);
        let span = Span::new(source, offset, text.len());
        let help = if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
            "it looks like UTF-16; convert it: iconv -f UTF-16 -t UTF-8"
        } else {
            "save it as UTF-8; if it is Latin-1: iconv -f ISO-8859-1 -t UTF-8"
        };
        (text, Box::new(Diagnostic::new(Code::YamlNotUtf8, message, span, "not UTF-8").help(help)))
    })
}

#[cfg(test)]
mod tests;
