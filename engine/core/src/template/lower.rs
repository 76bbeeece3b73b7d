//! Lowers the syntax tree of the handlebars crate to our own: resolves every path to the scope that it starts
//! from, lists references, and checks helpers and their arguments. The only place that knows that crate.

use std::ops::Range;

use handlebars::template::{BlockParam, HelperTemplate, Parameter, Template as Tree, TemplateElement};

use super::helpers::{self, Helper};
use super::ir::{Base, Call, Ex, PathEx, Piece};
use super::parts::{Part, parts, syntax};
use super::path::Written;
use super::problem::{Problem, nearest};
use super::scan::{Scan, TagKind};
use crate::Json;
use crate::diagnostic::Code;

/// Names that are in scope at the root: inside a block, `inputs.x` means the root's unless the item has it.
pub(crate) const ROOTS: &[&str] = &["inputs", "secrets", "steps", "each", "run", "playbook", "target"];
const BLOCKS: &[&str] = &["if", "unless", "each", "with"];

/// A reference in terms of the template's text.
#[derive(Debug)]
pub(super) struct RawReference {
    pub(super) path: Vec<String>,
    pub(super) at: Range<usize>,
    pub(super) optional: bool,
}

#[derive(Debug, Default)]
pub(super) struct Lowered {
    pub(super) pieces: Vec<Piece>,
    pub(super) references: Vec<RawReference>,
    /// Indexes of references whose value goes into the text without `quote` or the like.
    pub(super) unquoted: Vec<u32>,
}

/// What becomes of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// It is printed.
    Output,
    /// It is printed after a helper that makes it safe for a shell, or not printed at all.
    Inside,
}

/// A block around the place that is being lowered, which has a value of its own.
struct Frame {
    /// The path of its value from the root, when that is known (`with`).
    path: Option<Vec<String>>,
    /// Names given by `as |…|`.
    value_name: Option<String>,
    key_name: Option<String>,
    /// The reference that its value comes from.
    source: Option<u32>,
    /// `each`: it has `@index` and so on.
    loops: bool,
}

pub(super) fn lower(text: &str, scan: &Scan) -> Result<Lowered, Vec<Problem>> {
    if let Some(lowered) = plain(text, scan) {
        return Ok(lowered);
    }
    let mut lowering =
        Lowering { text, scan, next_word: 0, frames: Vec::new(), out: Lowered::default(), problems: Vec::new() };
    for part in parts(text, scan) {
        lowering.part(&part);
    }
    if lowering.problems.is_empty() { Ok(lowering.out) } else { Err(lowering.problems) }
}

/// Text and plain paths only, by far the most templates: needs no grammar.
fn plain(text: &str, scan: &Scan) -> Option<Lowered> {
    if scan.escapes {
        return None;
    }
    let mut out = Lowered::default();
    let mut at = 0;
    for tag in &scan.tags {
        if tag.kind != TagKind::Expression || !tag.plain {
            return None;
        }
        let word = scan.words[tag.words.start].clone();
        let path = &text[word.clone()];
        if !is_plain_path(path) {
            return None;
        }
        if tag.at.start > at {
            out.pieces.push(Piece::Text(text[at..tag.at.start].into()));
        }
        let index = out.references.len() as u32;
        out.pieces
            .push(Piece::Value(Ex::Path(PathEx { base: Base::Root(index), at: word.start as u32..word.end as u32 })));
        out.unquoted.push(index);
        out.references.push(RawReference {
            path: path.split('.').map(str::to_owned).collect(),
            at: word,
            optional: false,
        });
        at = tag.at.end;
    }
    if at < text.len() {
        out.pieces.push(Piece::Text(text[at..].into()));
    }
    Some(out)
}

/// `inputs.x`, `steps.ssh-answers.outputs.x`, `items.0`; not `this`, not a helper's name alone.
fn is_plain_path(path: &str) -> bool {
    path.starts_with(|c: char| c.is_ascii_alphabetic())
        && path.contains('.')
        && !path.starts_with("this.")
        && path.split('.').all(|segment| {
            !segment.is_empty() && segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
        })
}

struct Lowering<'t> {
    text: &'t str,
    scan: &'t Scan,
    /// Words are used up in order; the tree holds no places.
    next_word: usize,
    frames: Vec<Frame>,
    out: Lowered,
    problems: Vec<Problem>,
}

impl Lowering<'_> {
    /// The place of the next word that reads like this.
    fn place(&mut self, word: &str) -> Range<usize> {
        let words = &self.scan.words;
        let rest = words.get(self.next_word..).unwrap_or_default();
        match rest.iter().position(|w| &self.text[w.clone()] == word) {
            Some(skipped) => {
                self.next_word += skipped + 1;
                rest[skipped].clone()
            }
            None => words.iter().rfind(|w| &self.text[(*w).clone()] == word).cloned().unwrap_or(0..0),
        }
    }

    fn complain(&mut self, at: Range<usize>, message: impl Into<String>, label: impl Into<String>, help: &str) {
        let mut problem = Problem::new(Code::TemplateSyntax, at, message, label);
        if !help.is_empty() {
            problem = problem.help(help);
        }
        self.problems.push(problem);
    }

    fn part(&mut self, part: &Part) {
        let tags = &self.scan.tags[part.tags.clone()];
        let escaped = self.scan.escapes && self.text[part.text.clone()].contains("\\{{");
        if escaped || self.scan.tildes || tags.iter().any(|tag| tag.kind != TagKind::Expression) {
            self.compile(part);
            return;
        }
        let mut at = part.text.start;
        for (i, tag) in (part.tags.start..).zip(tags) {
            self.push_text(at..tag.at.start);
            self.compile(&Part { text: tag.at.clone(), tags: i..i + 1 });
            at = tag.at.end;
        }
        self.push_text(at..part.text.end);
    }

    fn push_text(&mut self, range: Range<usize>) {
        if !range.is_empty() {
            self.out.pieces.push(Piece::Text(self.text[range].into()));
        }
    }

    fn compile(&mut self, part: &Part) {
        match Tree::compile(&self.text[part.text.clone()]) {
            Ok(tree) => {
                self.next_word = self.scan.tags.get(part.tags.start).map_or(self.next_word, |tag| tag.words.start);
                let pieces = self.pieces(&tree);
                self.out.pieces.extend(pieces);
            }
            Err(e) => self.problems.push(syntax(self.text, self.scan, part, &e)),
        }
    }

    fn pieces(&mut self, tree: &Tree) -> Vec<Piece> {
        let mut pieces: Vec<Piece> = Vec::with_capacity(tree.elements.len());
        for element in &tree.elements {
            match element {
                TemplateElement::RawString(text) if text.is_empty() => {}
                TemplateElement::RawString(text) => pieces.push(Piece::Text(text.as_str().into())),
                TemplateElement::Comment(_) => {}
                TemplateElement::Expression(e) | TemplateElement::HtmlExpression(e) => {
                    let ex = self.expression(e, Use::Output, false);
                    pieces.push(Piece::Value(ex));
                }
                TemplateElement::HelperBlock(block) => self.block(block, &mut pieces),
                // Partials and decorators, which the scanner has refused.
                _ => {
                    self.unsupported();
                }
            }
        }
        pieces
    }

    fn optional_pieces(&mut self, tree: Option<&Tree>) -> Vec<Piece> {
        tree.map(|t| self.pieces(t)).unwrap_or_default()
    }

    fn block(&mut self, block: &HelperTemplate, pieces: &mut Vec<Piece>) {
        let name = block.name.as_name().unwrap_or("").to_owned();
        if name == "raw" {
            pieces.extend(self.optional_pieces(block.template.as_ref()));
            return;
        }
        let at = self.place(&name);
        let boolean = helpers::find(&name).filter(|h| h.boolean);
        if boolean.is_none() && !BLOCKS.contains(&name.as_str()) {
            self.unknown_block(&name, at);
            return;
        }
        if let Some(helper) = boolean {
            let condition = self.call(helper, block, at, Use::Inside);
            let (then, otherwise) = self.branches(block);
            pieces.push(Piece::If { condition, negate: false, zero_counts: false, then, otherwise });
            return;
        }
        let [param] = &block.params[..] else {
            self.complain(
                at,
                format!("`#{name}` takes one value, not {}", block.params.len()),
                "here",
                "put a call in parentheses, as in {{#if (eq a b)}}",
            );
            return;
        };
        match name.as_str() {
            "if" | "unless" => {
                let zero_counts = matches!(block.hash.get("includeZero"), Some(Parameter::Literal(Json::Bool(true))));
                let condition = self.parameter(param, Use::Inside, true);
                let (then, otherwise) = self.branches(block);
                pieces.push(Piece::If { condition, negate: name == "unless", zero_counts, then, otherwise });
            }
            _ => {
                let loops = name == "each";
                let first_reference = self.out.references.len();
                let value = self.parameter(param, Use::Inside, false);
                let frame = self.frame(block, &value, first_reference, loops);
                self.frames.push(frame);
                let body = self.optional_pieces(block.template.as_ref());
                self.frames.pop();
                let otherwise = self.optional_pieces(block.inverse.as_ref());
                pieces.push(if loops {
                    Piece::Each { items: value, body, otherwise }
                } else {
                    Piece::With { value, body, otherwise }
                });
            }
        }
    }

    fn branches(&mut self, block: &HelperTemplate) -> (Vec<Piece>, Vec<Piece>) {
        (self.optional_pieces(block.template.as_ref()), self.optional_pieces(block.inverse.as_ref()))
    }

    fn frame(&self, block: &HelperTemplate, value: &Ex, first_reference: usize, loops: bool) -> Frame {
        let source = match value {
            Ex::Path(PathEx { base: Base::Root(reference), .. }) => Some(*reference),
            Ex::Path(PathEx { base: Base::Item { up, .. }, .. }) => {
                let level = self.frames.len().checked_sub(1 + usize::from(*up));
                level.and_then(|l| self.frames[l].source)
            }
            _ => (self.out.references.len() > first_reference).then_some(first_reference as u32),
        };
        let path = match value {
            Ex::Path(PathEx { base: Base::Root(reference), .. }) if !loops => {
                Some(self.out.references[*reference as usize].path.clone())
            }
            _ => None,
        };
        let name = |p: &Parameter| p.as_name().map(str::to_owned);
        let (value_name, key_name) = match &block.block_param {
            Some(BlockParam::Single(value)) => (name(value), None),
            Some(BlockParam::Pair((value, key))) => (name(value), name(key)),
            _ => (None, None),
        };
        Frame { path, value_name, key_name, source, loops }
    }

    fn unknown_block(&mut self, name: &str, at: Range<usize>) {
        let mut problem =
            Problem::new(Code::UnknownFunction, at, format!("there is no block `#{name}`"), "unknown block");
        problem = match nearest(name, BLOCKS.iter().copied()) {
            Some(near) => problem.help(format!("did you mean `#{near}`?")),
            None if helpers::find(name).is_some() => problem.help(format!("`{name}` is a helper: {{{{{name} …}}}}")),
            None => problem.help("blocks: #if, #unless, #each, #with"),
        };
        self.problems.push(problem);
    }

    /// `{{ … }}` or `( … )`.
    fn expression(&mut self, e: &HelperTemplate, used: Use, optional: bool) -> Ex {
        let bare = e.params.is_empty() && e.hash.is_empty();
        match &e.name {
            Parameter::Path(_) | Parameter::Name(_) if bare => {
                let raw = e.name.as_name().unwrap_or("").to_owned();
                if let Some(helper) = helpers::find(&raw) {
                    let at = self.place(&raw);
                    self.complain(
                        at,
                        format!("`{raw}` is a helper and has no argument here"),
                        "no argument",
                        &format!("write {{{{{}}}}}; a value of that name is {{{{this.{raw}}}}}", helper.usage),
                    );
                    return Ex::Literal(Json::Null);
                }
                self.path(&raw, used, optional)
            }
            Parameter::Path(_) | Parameter::Name(_) => {
                let name = e.name.as_name().unwrap_or("").to_owned();
                let at = self.place(&name);
                let Some(helper) = helpers::find(&name) else {
                    self.unknown_helper(&name, at);
                    return Ex::Literal(Json::Null);
                };
                self.call(helper, e, at, used)
            }
            other => self.parameter(other, used, optional),
        }
    }

    fn unknown_helper(&mut self, name: &str, at: Range<usize>) {
        let problem = Problem::new(Code::UnknownFunction, at, format!("there is no helper `{name}`"), "unknown helper");
        let problem = match nearest(name, helpers::names()) {
            Some(near) => problem.help(format!("did you mean `{near}`?")),
            None if BLOCKS.contains(&name) => {
                problem.help(format!("`{name}` is a block: {{{{#{name} …}}}} … {{{{/{name}}}}}"))
            }
            None => problem.help(format!("helpers: {}", helpers::names().collect::<Vec<_>>().join(", "))),
        };
        self.problems.push(problem);
    }

    fn call(&mut self, helper: &'static Helper, e: &HelperTemplate, at: Range<usize>, used: Use) -> Ex {
        let count = e.params.len();
        if count < helper.min || count > helper.max {
            let wants = match (helper.min, helper.max) {
                (min, max) if min == max => format!("{min}"),
                (min, usize::MAX) => format!("at least {min}"),
                (min, max) => format!("{min} to {max}"),
            };
            let plural = if wants == "1" || wants == "at least 1" { "" } else { "s" };
            self.complain(
                at.clone(),
                format!("`{}` takes {wants} argument{plural}, not {count}", helper.name),
                "here",
                &format!("write {{{{{}}}}}", helper.usage),
            );
        }
        if let Some(name) = e.hash.keys().min() {
            self.complain(
                at.clone(),
                format!("`{}` has no named argument `{name}`", helper.name),
                "here",
                &format!("write {{{{{}}}}}", helper.usage),
            );
        }
        let used = if helper.safe_in_shell { Use::Inside } else { used };
        let last = count.saturating_sub(1);
        let args: Vec<Ex> = e
            .params
            .iter()
            .enumerate()
            .map(|(i, p)| {
                let optional = match helper.missing {
                    helpers::Missing::Error => false,
                    helpers::Missing::Null => true,
                    helpers::Missing::NullButLast => i < last,
                };
                self.parameter(p, used, optional)
            })
            .collect();
        let regex = match (helper.regex_argument, &args[..]) {
            (true, [_, Ex::Literal(Json::String(pattern)), ..]) => match helpers::regex(pattern) {
                Ok(regex) => Some(regex),
                Err(why) => {
                    let message = format!("the pattern of `{}` cannot be read", helper.name);
                    self.problems.push(Problem::new(Code::BadRegex, at, message, why));
                    None
                }
            },
            _ => None,
        };
        Ex::Call(Box::new(Call { helper, args, regex }))
    }

    fn parameter(&mut self, p: &Parameter, used: Use, optional: bool) -> Ex {
        match p {
            Parameter::Literal(json) => Ex::Literal(json.clone()),
            Parameter::Path(_) | Parameter::Name(_) => {
                let raw = p.as_name().unwrap_or("").to_owned();
                self.path(&raw, used, optional)
            }
            Parameter::Subexpression(sub) => match sub.as_element() {
                TemplateElement::Expression(e) => self.expression(e, used, optional),
                _ => self.unsupported(),
            },
            _ => self.unsupported(),
        }
    }

    /// A kind of node that a later handlebars may have and this one has not.
    fn unsupported(&mut self) -> Ex {
        self.complain(0..self.text.len(), "this form of template is not supported", "in here", "");
        Ex::Literal(Json::Null)
    }

    fn reference(&mut self, path: Vec<String>, at: Range<usize>, used: Use, optional: bool) -> u32 {
        let index = self.out.references.len() as u32;
        if used == Use::Output {
            self.out.unquoted.push(index);
        }
        self.out.references.push(RawReference { path, at, optional });
        index
    }

    fn path(&mut self, raw: &str, used: Use, optional: bool) -> Ex {
        let at = self.place(raw);
        let Some(base) = self.base(raw, &at, used, optional) else {
            return Ex::Literal(Json::Null);
        };
        Ex::Path(PathEx { base, at: at.start as u32..at.end as u32 })
    }

    fn base(&mut self, raw: &str, at: &Range<usize>, used: Use, optional: bool) -> Option<Base> {
        let written = Written::read(raw);
        if let Some(name) = written.local {
            return self.local(name, written.up, at);
        }
        if written.root {
            return self.root_path(written.segments, at, used, optional);
        }
        if written.up == 0 && !written.this {
            let named = self.frames.iter().rev().enumerate().find_map(|(up, f)| {
                let first = written.segments.first()?;
                if f.value_name.as_ref() == Some(first) {
                    return Some((up, false));
                }
                (f.key_name.as_ref() == Some(first)).then_some((up, true))
            });
            match named {
                Some((up, true)) => return Some(Base::Key { up: up as u16 }),
                Some((up, false)) => {
                    return Some(self.item(up, &written.segments[1..], false, at, used, optional));
                }
                None => {}
            }
        }
        if written.up > self.frames.len() {
            self.complain(
                at.clone(),
                format!("`{raw}` goes further out than there are blocks"),
                "too many `../`",
                "@root.… is the outermost scope",
            );
            return None;
        }
        if written.up == self.frames.len() {
            return self.root_path(written.segments, at, used, optional);
        }
        let free = written.up == 0 && !written.this;
        if free && written.segments.len() > 1 && ROOTS.contains(&written.segments[0].as_str()) {
            self.reference(written.segments.clone(), at.clone(), used, optional);
            let segments = written.segments.iter().map(|s| s.as_str().into()).collect();
            return Some(Base::Item { up: 0, segments, or_root: true });
        }
        Some(self.item(written.up, &written.segments, free, at, used, optional))
    }

    fn root_path(&mut self, path: Vec<String>, at: &Range<usize>, used: Use, optional: bool) -> Option<Base> {
        if path.is_empty() {
            self.complain(
                at.clone(),
                "a template cannot take everything that is in scope",
                "this is the whole scope",
                "name one value, such as {{inputs.name}}",
            );
            return None;
        }
        Some(Base::Root(self.reference(path, at.clone(), used, optional)))
    }

    fn item(
        &mut self,
        up: usize,
        segments: &[String],
        or_root: bool,
        at: &Range<usize>,
        used: Use,
        optional: bool,
    ) -> Base {
        let frame = &self.frames[self.frames.len() - 1 - up];
        let source = frame.source;
        if let Some(path) = frame.path.clone().filter(|_| !segments.is_empty()) {
            let whole = path.into_iter().chain(segments.iter().cloned()).collect();
            self.reference(whole, at.clone(), used, optional);
        } else if let (Some(source), Use::Output) = (source, used)
            && !self.out.unquoted.contains(&source)
        {
            self.out.unquoted.push(source);
        }
        Base::Item { up: up as u16, segments: segments.iter().map(|s| s.as_str().into()).collect(), or_root }
    }

    /// `@index` and its like.
    fn local(&mut self, name: &str, up: usize, at: &Range<usize>) -> Option<Base> {
        // `with` has none of its own: those of the loop around it show through.
        let loops: Vec<usize> = (0..self.frames.len()).rev().filter(|i| self.frames[*i].loops).collect();
        let Some(level) = loops.get(up) else {
            self.complain(
                at.clone(),
                format!("`@{name}` stands outside of `#each`"),
                "no loop here",
                "@root.… is the outermost scope",
            );
            return None;
        };
        let up = (self.frames.len() - 1 - level) as u16;
        match name {
            "index" => Some(Base::Index { up }),
            "key" => Some(Base::Key { up }),
            "first" => Some(Base::First { up }),
            "last" => Some(Base::Last { up }),
            _ => {
                self.complain(
                    at.clone(),
                    format!("there is no `@{name}`"),
                    "unknown",
                    "there are @index, @key, @first, @last and @root",
                );
                None
            }
        }
    }
}
