//! Events to a tree: scalars resolved, aliases expanded within bounds, spans closed. Knows nothing of how a
//! syntax error is told or mended.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use granit_parser::{Event, Parser, ScalarStyle, ScanError, StructureStyle, Tag};

use super::scalar::{self, NotANumber};
use super::syntax::{Patches, Stopped};
use super::{MAX_DEPTH, MAX_NODES, Node, NodeValue, Style};
use crate::diagnostic::{Code, Diagnostic};
use crate::span::{SourceId, Span};

/// Nobody reads on after so many; without a bound, a hostile file makes one per byte.
const MAX_DIAGNOSTICS: usize = 200;

/// What became of one pass over the text.
pub(super) struct Built {
    pub(super) root: Option<Node>,
    /// Mistakes that did not hide the rest.
    pub(super) diagnostics: Vec<Diagnostic>,
    /// What ended the pass before the end.
    pub(super) stopped: Option<Stopped>,
}

/// One pass. The parser sees the patched text, which has the length of the original; scalars that touch a
/// patch take their text from the original.
pub(super) fn build(source: SourceId, text: &str, patches: &Patches) -> Built {
    let options = granit_parser::options! {
        emit_comments: false,
        emit_unresolved_aliases: true,
        disallow_directives: true,
        flow_nesting_limit: MAX_DEPTH + 1,
        block_nesting_limit: MAX_DEPTH + 1,
    };
    let mut builder = Builder::new(source, text, patches);
    let mut stopped = None;
    for next in Parser::new_from_str_with_options(patches.text(text), options) {
        let step = match next {
            Ok((event, span)) => builder.event(event, &span),
            Err(error) => Err(Some(builder.scan_error(&error))),
        };
        if let Err(why) = step {
            stopped = why;
            break;
        }
        if builder.done || builder.diagnostics.len() >= MAX_DIAGNOSTICS {
            break;
        }
    }
    if builder.root.is_none() && stopped.is_none() && builder.diagnostics.is_empty() {
        let help = "a playbook begins with `runback: 1`, a `name` and `steps`";
        let start = Span::new(source, 0, 0);
        let message = "the file holds no playbook: it is empty";
        builder.diagnostics.push(Diagnostic::new(Code::YamlEmpty, message, start, "nothing here").help(help));
    }
    Built { root: builder.root, diagnostics: builder.diagnostics, stopped }
}

struct Builder<'t> {
    source: SourceId,
    text: &'t str,
    patches: &'t Patches,
    diagnostics: Vec<Diagnostic>,
    stack: Vec<Frame>,
    /// What the open lists and maps hold so far: each has what lies above the one that it opened in. In a map, keys
    /// and values take turns.
    items: Vec<Node>,
    root: Option<Node>,
    done: bool,
    anchors: HashMap<usize, Anchored>,
    /// Nodes so far, see [`MAX_NODES`].
    weight: usize,
    /// Where the last event with text ended.
    last_end: usize,
    last_scalar: Option<Range<usize>>,
}

/// A list or map that is not closed yet.
struct Frame {
    is_map: bool,
    /// The first of its items in [`Builder::items`].
    first: usize,
    flow: bool,
    start: usize,
    /// 0 = none.
    anchor: usize,
    weight_before: usize,
    /// Levels below.
    height: usize,
}

/// What an alias stands for.
struct Anchored {
    node: Node,
    weight: usize,
    height: usize,
}

/// `None` stops without a syntax error (the diagnostic is there already).
type Step = Result<(), Option<Stopped>>;

impl<'t> Builder<'t> {
    fn new(source: SourceId, text: &'t str, patches: &'t Patches) -> Self {
        Self {
            source,
            text,
            patches,
            diagnostics: Vec::new(),
            stack: Vec::new(),
            items: Vec::new(),
            root: None,
            done: false,
            anchors: HashMap::new(),
            weight: 0,
            last_end: 0,
            last_scalar: None,
        }
    }

    fn event(&mut self, event: Event<'_>, at: &granit_parser::Span) -> Step {
        let range = at.byte_range().unwrap_or(0..0);
        match event {
            Event::Scalar(value, style, anchor, tag) => {
                self.last_end = range.end;
                self.last_scalar = Some(range.clone());
                let value = self.scalar(&value, style, tag.as_deref(), at, &range);
                let weight = 1 + (range.len() >> 6);
                self.count(weight, &range)?;
                let node = Node { span: self.span(&range), value };
                self.anchored(anchor, &node, weight, 0)?;
                self.add(node, 0);
            }
            Event::SequenceStart(style, anchor, tag) => {
                self.collection_tag(tag.as_deref(), "seq", at);
                self.open(false, style, anchor, &range)?;
            }
            Event::MappingStart(style, anchor, tag) => {
                self.collection_tag(tag.as_deref(), "map", at);
                self.open(true, style, anchor, &range)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(&range)?,
            Event::Alias(id) => self.alias(id, &range)?,
            Event::UnresolvedAlias(name) => {
                self.last_end = range.end;
                let message = format!("there is no anchor `&{name}` above this alias");
                let text = &self.text[range.clone()];
                let help = format!("if it is meant as text, quote it: \"{text}\"");
                self.report(Code::YamlAlias, message, &range, "an alias", help);
                self.add(Node { span: self.span(&range), value: NodeValue::Null }, 0);
            }
            Event::DocumentStart(..) if self.root.is_some() => {
                let message = "the file holds more than one YAML document";
                let help = "keep one playbook per file: move what follows into a file of its own";
                self.report(Code::YamlSecondDocument, message, &range, "a second document begins here", help);
                self.done = true;
            }
            _ => {}
        }
        Ok(())
    }

    fn span(&self, range: &Range<usize>) -> Span {
        Span::new(self.source, range.start, range.end)
    }

    fn report(
        &mut self,
        code: Code,
        message: impl Into<String>,
        at: &Range<usize>,
        label: &str,
        help: impl Into<String>,
    ) {
        self.diagnostics.push(Diagnostic::new(code, message, self.span(at), label).help(help));
    }

    fn count(&mut self, nodes: usize, at: &Range<usize>) -> Step {
        self.weight += nodes;
        if self.weight <= MAX_NODES {
            return Ok(());
        }
        let message = format!("with its aliases expanded, the document has more than {MAX_NODES} values");
        let help = "an alias stands for a copy of all that its anchor holds; write less of it";
        self.report(Code::YamlTooLarge, message, at, "the limit is passed here", help);
        Err(None)
    }

    fn too_deep(&mut self, at: &Range<usize>) -> Option<Stopped> {
        let message = format!("lists and maps are nested more than {MAX_DEPTH} deep");
        let help = "flatten the structure, or move a part into a sub-playbook";
        self.report(Code::YamlTooLarge, message, at, "one level too many", help);
        None
    }

    fn open(&mut self, is_map: bool, style: StructureStyle, anchor: usize, range: &Range<usize>) -> Step {
        if self.stack.len() >= MAX_DEPTH {
            return Err(self.too_deep(range));
        }
        // `[a: 1]` holds a flow map without brackets; like a block one, it ends with its last value.
        let flow = style == StructureStyle::Flow && self.text[range.start..].starts_with(['[', '{']);
        self.last_end = range.start + usize::from(flow);
        let (first, start, weight_before) = (self.items.len(), range.start, self.weight);
        self.stack.push(Frame { is_map, first, flow, start, anchor, weight_before, height: 0 });
        self.count(1, range)
    }

    fn close(&mut self, range: &Range<usize>) -> Step {
        let Some(frame) = self.stack.pop() else { return Ok(()) };
        if frame.flow {
            self.last_end = range.end;
        }
        let end = if frame.flow { range.end } else { self.last_end };
        let span = frame.start..end.max(frame.start);
        let value = if frame.is_map {
            let pairs = take_pairs(&mut self.items, frame.first);
            self.map(pairs, frame.flow, &span)
        } else {
            NodeValue::List(self.items.drain(frame.first..).collect())
        };
        let node = Node { span: self.span(&span), value };
        self.anchored(frame.anchor, &node, self.weight - frame.weight_before, frame.height + 1)?;
        self.add(node, frame.height + 1);
        Ok(())
    }

    fn map(&mut self, mut pairs: Vec<(Node, Node)>, flow: bool, span: &Range<usize>) -> NodeValue {
        if flow && let Some(text) = self.unquoted_template(&pairs, span) {
            return text;
        }
        let twice = duplicates(&pairs);
        if twice.is_empty() {
            return NodeValue::Map(pairs);
        }
        for (first, again) in &twice {
            let (first, again) = (pairs[*first].0.span, pairs[*again].0.span);
            let key = &self.text[again.start as usize..again.end as usize];
            let message = format!("the key `{key}` stands twice in one map");
            self.diagnostics.push(
                Diagnostic::new(Code::YamlDuplicateKey, message, again, "here again")
                    .label(first, "first here")
                    .help("keep one of them"),
            );
        }
        let (mut index, mut twice) = (0, twice.into_iter().map(|(_, again)| again).peekable());
        pairs.retain(|_| {
            index += 1;
            twice.next_if_eq(&(index - 1)).is_none()
        });
        pairs.shrink_to_fit();
        NodeValue::Map(pairs)
    }

    /// `{{ x }}` without quotes is a map whose only key is a map. Becomes the string that was meant.
    fn unquoted_template(&mut self, pairs: &[(Node, Node)], span: &Range<usize>) -> Option<NodeValue> {
        let [(key, value)] = pairs else { return None };
        let text = self.text.get(span.clone())?;
        if key.as_map().is_none() || value.value != NodeValue::Null || !text.starts_with("{{") {
            return None;
        }
        self.diagnostics.push(super::syntax::unquoted_template(self.text, self.span(span)));
        Some(NodeValue::Str(text.into(), Style::Plain))
    }

    fn add(&mut self, node: Node, height: usize) {
        let Some(frame) = self.stack.last_mut() else {
            self.root.get_or_insert(node);
            return;
        };
        frame.height = frame.height.max(height);
        let is_key = frame.is_map && (self.items.len() - frame.first).is_multiple_of(2);
        if is_key && matches!(&node.value, NodeValue::Str(s, Style::Plain) if &**s == "<<") {
            let message = "`<<` merge keys are not part of YAML 1.2";
            let help = "write the keys out, or give what steps share under `defaults:`";
            let diagnostic = Diagnostic::new(Code::YamlMergeKey, message, node.span, "a merge key");
            self.diagnostics.push(diagnostic.help(help));
        }
        self.items.push(node);
    }

    fn anchored(&mut self, anchor: usize, node: &Node, weight: usize, height: usize) -> Step {
        if anchor > 0 {
            let range = node.span.start as usize..node.span.end as usize;
            self.count(weight, &range)?;
            self.anchors.insert(anchor, Anchored { node: node.clone(), weight, height });
        }
        Ok(())
    }

    fn alias(&mut self, id: usize, range: &Range<usize>) -> Step {
        self.last_end = range.end;
        let Some(anchored) = self.anchors.get(&id) else {
            let message = "an alias stands within the value of its own anchor";
            self.report(Code::YamlAlias, message, range, "stands for what holds it", "write the value out");
            self.add(Node { span: self.span(range), value: NodeValue::Null }, 0);
            return Ok(());
        };
        let (node, weight, height) = (anchored.node.clone(), anchored.weight, anchored.height);
        self.count(weight, range)?;
        if self.stack.len() + height > MAX_DEPTH {
            return Err(self.too_deep(range));
        }
        self.add(node, height);
        Ok(())
    }

    fn scan_error(&self, error: &ScanError) -> Stopped {
        let offset = error.marker().byte_offset().unwrap_or(self.text.len()).min(self.text.len());
        let open = self.stack.iter().rev().find(|f| f.flow);
        Stopped {
            kind: error.kind().clone(),
            offset,
            last_end: self.last_end.min(offset),
            last_scalar: self.last_scalar.clone(),
            open_flow: open.map(|f| f.start),
        }
    }

    fn scalar(
        &mut self,
        value: &str,
        style: ScalarStyle,
        tag: Option<&Tag>,
        at: &granit_parser::Span,
        range: &Range<usize>,
    ) -> NodeValue {
        let style = match style {
            ScalarStyle::Plain => Style::Plain,
            ScalarStyle::SingleQuoted => Style::SingleQuoted,
            ScalarStyle::DoubleQuoted => Style::DoubleQuoted,
            ScalarStyle::Literal => Style::Literal,
            ScalarStyle::Folded => Style::Folded,
        };
        if self.patches.touch(range) {
            return NodeValue::Str(self.text[range.clone()].into(), Style::Plain);
        }
        if let Some(tag) = tag {
            return self.tagged(value, style, tag, at, range);
        }
        if style != Style::Plain {
            return NodeValue::Str(value.into(), style);
        }
        if range.is_empty() {
            return NodeValue::Null;
        }
        scalar::resolve(value).unwrap_or_else(|why| {
            self.not_a_number(why, range);
            NodeValue::Str(value.into(), style)
        })
    }

    fn not_a_number(&mut self, why: NotANumber, range: &Range<usize>) {
        let text = &self.text[range.clone()];
        let (message, label) = match why {
            NotANumber::TooLarge => (format!("the number {text} does not fit in 64 bits"), "read as a number"),
            NotANumber::NotFinite => (format!("`{text}` is a number that JSON does not have"), "not a finite number"),
        };
        let help = format!("if it is meant as text, quote it: \"{text}\"");
        self.report(Code::YamlNumber, message, range, label, help);
    }

    fn tagged(
        &mut self,
        value: &str,
        style: Style,
        tag: &Tag,
        at: &granit_parser::Span,
        range: &Range<usize>,
    ) -> NodeValue {
        let string = || NodeValue::Str(value.into(), style);
        let core = tag.core_suffix();
        if core == Some("str") || (core.is_none() && tag.original() == "!") {
            return if range.is_empty() { NodeValue::Str("".into(), Style::Plain) } else { string() };
        }
        let resolved = if range.is_empty() { Ok(NodeValue::Null) } else { scalar::resolve(value) };
        let resolved = match resolved {
            Ok(resolved) => resolved,
            Err(why) => {
                self.not_a_number(why, range);
                return string();
            }
        };
        match (core, resolved) {
            (Some("int"), v @ (NodeValue::Int(_) | NodeValue::UInt(_)))
            | (Some("float"), v @ NodeValue::Float(_))
            | (Some("bool"), v @ NodeValue::Bool(_))
            | (Some("null"), v @ NodeValue::Null) => v,
            (Some("float"), NodeValue::Int(i)) =>
            {
                #[expect(clippy::cast_precision_loss, reason = "`!!float` asks for it")]
                NodeValue::Float(i as f64)
            }
            (Some("int" | "float" | "bool" | "null"), _) => {
                let message = format!("the value does not fit its tag `{}`", tag.original());
                self.report(Code::YamlTag, message, &tag_range(at, self.text), "this tag", "leave the tag out");
                string()
            }
            _ => {
                self.unknown_tag(tag, at);
                string()
            }
        }
    }

    fn unknown_tag(&mut self, tag: &Tag, at: &granit_parser::Span) {
        let message = format!("unknown YAML tag `{}`", tag.original());
        let help = "leave it out; known are !!str, !!int, !!float, !!bool, !!null, !!seq and !!map";
        self.report(Code::YamlTag, message, &tag_range(at, self.text), "this tag", help);
    }

    fn collection_tag(&mut self, tag: Option<&Tag>, wanted: &str, at: &granit_parser::Span) {
        let Some(tag) = tag else { return };
        match tag.core_suffix() {
            Some(core) if core == wanted => {}
            Some("str" | "int" | "float" | "bool" | "null" | "seq" | "map") => {
                let message = format!("the value does not fit its tag `{}`", tag.original());
                self.report(Code::YamlTag, message, &tag_range(at, self.text), "this tag", "leave the tag out");
            }
            _ if tag.original() == "!" => {}
            _ => self.unknown_tag(tag, at),
        }
    }
}

/// The tag's own text.
fn tag_range(at: &granit_parser::Span, text: &str) -> Range<usize> {
    let start = at.tag_start().and_then(|m| m.byte_offset());
    let start = start.or_else(|| at.byte_range().map(|r| r.start)).unwrap_or(0).min(text.len());
    let len = text[start..].find([' ', '\t', '\n', '\r', ',', ']', '}']).unwrap_or(text.len() - start);
    start..start + len
}

/// The entries of a map whose keys and values take turns at the end of a list, from an index on.
pub(super) fn take_pairs(items: &mut Vec<Node>, first: usize) -> Vec<(Node, Node)> {
    let mut pairs = Vec::with_capacity((items.len() - first) / 2);
    let mut items = items.drain(first..);
    while let (Some(key), Some(value)) = (items.next(), items.next()) {
        pairs.push((key, value));
    }
    pairs
}

/// Pairs of indices (first, again) of keys that are the same, as the keys of a JSON object are.
pub(super) fn duplicates(pairs: &[(Node, Node)]) -> Vec<(usize, usize)> {
    fn name(key: &Node) -> Cow<'_, str> {
        key.as_str().map_or_else(|| key.key_text().into(), Cow::Borrowed)
    }
    let mut found = Vec::new();
    if pairs.len() <= 8 {
        for (again, (key, _)) in pairs.iter().enumerate() {
            if let Some(first) = pairs[..again].iter().position(|(k, _)| name(k) == name(key)) {
                found.push((first, again));
            }
        }
        return found;
    }
    let mut seen = HashMap::with_capacity(pairs.len());
    for (again, (key, _)) in pairs.iter().enumerate() {
        let first = *seen.entry(name(key)).or_insert(again);
        if first != again {
            found.push((first, again));
        }
    }
    found
}
