//! Finds the `{{ … }}` tags of a text and the words in them, with their places; finds the mistakes that can be
//! told without a grammar (unclosed tags and blocks, operators, partials) and holds templates to their limits.
//! Follows the lexical rules of handlebars 6.4; knows nothing of helpers.

use std::ops::Range;

use super::problem::Problem;
use crate::diagnostic::Code;

/// In bytes.
pub(super) const MAX_TEXT: usize = 64 * 1024;
/// Of blocks, and of parentheses in one tag.
pub(super) const MAX_NESTING: usize = 32;
pub(super) const MAX_TAGS: usize = 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TagKind {
    /// `{{ … }}`, `{{{ … }}}`, `{{& … }}`
    Expression,
    /// `{{# … }}`
    Open,
    /// `{{/ … }}`
    Close,
    /// `{{else …}}`, `{{^…}}`
    Else,
    Comment,
    /// A whole `{{{{raw}}}} … {{{{/raw}}}}`.
    Raw,
}

#[derive(Debug)]
pub(super) struct Tag {
    pub(super) kind: TagKind,
    /// From the first brace to the last.
    pub(super) at: Range<usize>,
    /// Paths, names and numbers in it: indexes into [`Scan::words`].
    pub(super) words: Range<usize>,
    /// Exactly one word and nothing else in the braces but blanks.
    pub(super) plain: bool,
}

#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) tags: Vec<Tag>,
    pub(super) words: Vec<Range<usize>>,
    /// A backslash stands before some `{{`, so the text between the tags is not what is rendered.
    pub(super) escapes: bool,
    /// Some tag takes blanks away around it.
    pub(super) tildes: bool,
}

/// What `{{` at a byte position is.
enum Brace {
    Live,
    /// Goes on after it.
    Escaped(usize),
}

pub(super) fn scan(text: &str) -> Result<Scan, Vec<Problem>> {
    if text.len() > MAX_TEXT {
        return Err(vec![
            Problem::new(
                Code::TemplateTooLarge,
                0..0,
                format!("the template has {} bytes; at most {MAX_TEXT} are allowed", text.len()),
                "this template",
            )
            .help("put long text into a file of its own: `file.template` and `file.copy` read one"),
        ]);
    }
    let mut scanner =
        Scanner { text, bytes: text.as_bytes(), out: Scan::default(), open: Vec::new(), problems: Vec::new() };
    scanner.run();
    for (name, at) in std::mem::take(&mut scanner.open) {
        scanner.problems.push(
            Problem::new(
                Code::TemplateSyntax,
                at,
                format!("the block `{{{{#{name}}}}}` is never closed"),
                "opened here",
            )
            .help(format!("write {{{{/{name}}}}} where it ends")),
        );
    }
    if scanner.problems.is_empty() { Ok(scanner.out) } else { Err(scanner.problems) }
}

struct Scanner<'t> {
    text: &'t str,
    bytes: &'t [u8],
    out: Scan,
    open: Vec<(String, Range<usize>)>,
    problems: Vec<Problem>,
}

impl Scanner<'_> {
    fn run(&mut self) {
        let mut from = 0;
        while let Some(found) = self.text[from..].find("{{") {
            let start = from + found;
            match self.brace(from, start) {
                Brace::Escaped(next) => from = next,
                Brace::Live => match self.tag(start) {
                    Some(end) => from = end,
                    None => return,
                },
            }
            if self.out.tags.len() > MAX_TAGS {
                self.problems.push(Problem::new(
                    Code::TemplateTooLarge,
                    start..start + 2,
                    format!("the template has more than {MAX_TAGS} `{{{{ … }}}}`"),
                    format!("number {}", MAX_TAGS + 1),
                ));
                return;
            }
        }
    }

    /// One backslash escapes; of two or more, one is taken away and the tag is live.
    fn brace(&mut self, from: usize, start: usize) -> Brace {
        let slashes = self.bytes[from..start].iter().rev().take_while(|b| **b == b'\\').count();
        self.out.escapes |= slashes > 0;
        if slashes == 1 {
            let four = self.text[start..].starts_with("{{{{");
            Brace::Escaped(start + if four { 4 } else { 2 })
        } else {
            Brace::Live
        }
    }

    fn unclosed(&mut self, start: usize) -> Option<usize> {
        self.problems.push(
            Problem::new(Code::TemplateSyntax, start..start + 2, "`{{` is never closed", "opened here").help(
                "close it with }}, or put a backslash before it to write it as it stands: \\{{ (\"\\\\{{\" between double quotes)",
            ),
        );
        None
    }

    fn push(&mut self, kind: TagKind, at: Range<usize>, first_word: usize, plain: bool) {
        self.out.tags.push(Tag { kind, at, words: first_word..self.out.words.len(), plain });
    }

    /// Reads the tag at `start`; gives the offset after it, or None when nothing after it can be told.
    fn tag(&mut self, start: usize) -> Option<usize> {
        let rest = &self.text[start..];
        if rest.starts_with("{{{{") {
            return self.raw_block(start);
        }
        if rest.starts_with("{{!") {
            let end = if rest.starts_with("{{!--") { rest.find("--}}").map(|i| i + 4) } else { None };
            let Some(end) = end.or_else(|| rest.find("}}").map(|i| i + 2)) else {
                return self.unclosed(start);
            };
            let first_word = self.out.words.len();
            self.push(TagKind::Comment, start..start + end, first_word, false);
            return Some(start + end);
        }
        self.live_tag(start)
    }

    fn raw_block(&mut self, start: usize) -> Option<usize> {
        let first_word = self.out.words.len();
        let opened = self.text[start..].find("}}}}").map(|i| start + i + 4);
        let closing = opened.and_then(|o| self.text[o..].find("{{{{/").map(|i| o + i));
        let end = closing.and_then(|c| self.text[c..].find("}}}}").map(|i| c + i + 4));
        let Some(end) = end else {
            self.problems.push(
                Problem::new(Code::TemplateSyntax, start..start + 4, "the raw block is never closed", "opened here")
                    .help("write {{{{raw}}}} text {{{{/raw}}}}, or \\{{ for one pair of braces"),
            );
            return None;
        };
        self.push(TagKind::Raw, start..end, first_word, false);
        Some(end)
    }

    fn live_tag(&mut self, start: usize) -> Option<usize> {
        let first_word = self.out.words.len();
        let mut triple = self.bytes.get(start + 2) == Some(&b'{');
        let mut i = start + 2 + usize::from(triple);
        let mut plain = !triple;
        let mut sigil = None;
        while let Some(b) = self.bytes.get(i) {
            match b {
                b' ' | b'\t' | b'\n' | b'\r' => {}
                b'~' => {
                    plain = false;
                    self.out.tildes = true;
                }
                b'{' if !triple && sigil.is_none() => {
                    triple = true;
                    plain = false;
                }
                b'#' | b'/' | b'^' | b'&' | b'>' | b'*' if sigil.is_none() || sigil == Some(b'#') => {
                    sigil = Some(*b);
                    plain = false;
                    if matches!(b, b'>' | b'*') {
                        break;
                    }
                }
                _ => break,
            }
            i += 1;
        }
        if let Some(b'>' | b'*') = sigil {
            let what = if sigil == Some(b'>') { "partials" } else { "decorators" };
            self.problems.push(
                Problem::new(
                    Code::TemplateSyntax,
                    start..i + 1,
                    format!("{what} are not part of runback's templates"),
                    "here",
                )
                .help("write the text here, or use `file.template` with a file of its own"),
            );
            return self.text[i..].find("}}").map(|e| i + e + 2);
        }
        let (end, words_only) = self.words(start, i, triple)?;
        plain &= words_only && self.out.words.len() == first_word + 1;
        let kind = self.kind(sigil, start..end, first_word);
        self.push(kind, start..end, first_word, plain);
        Some(end)
    }

    /// Tells the kind of a tag from its sigil and first word, and keeps the stack of open blocks.
    fn kind(&mut self, sigil: Option<u8>, at: Range<usize>, first_word: usize) -> TagKind {
        let name = self.out.words.get(first_word).map_or("", |w| &self.text[w.clone()]).to_owned();
        match sigil {
            Some(b'#') => {
                self.open.push((name, at.clone()));
                if self.open.len() > MAX_NESTING {
                    self.problems.push(Problem::new(
                        Code::TemplateTooLarge,
                        at,
                        format!("blocks are nested more than {MAX_NESTING} deep"),
                        "this one",
                    ));
                }
                TagKind::Open
            }
            Some(b'/') => {
                match self.open.pop() {
                    Some((opened, _)) if opened == name => {}
                    Some((opened, opened_at)) => self.problems.push(
                        Problem::new(
                            Code::TemplateSyntax,
                            at,
                            format!("`{{{{/{name}}}}}` closes `{{{{#{opened}}}}}`"),
                            format!("should be {{{{/{opened}}}}}"),
                        )
                        .also(opened_at, "opened here"),
                    ),
                    None => self.problems.push(Problem::new(
                        Code::TemplateSyntax,
                        at,
                        format!("`{{{{/{name}}}}}` closes no block"),
                        "no block is open here",
                    )),
                }
                TagKind::Close
            }
            Some(b'^') => self.else_tag(at),
            None if name == "else" => self.else_tag(at),
            _ => {
                if self.out.words.len() == first_word && self.text[at.clone()].trim_matches(['{', '}', ' ']).is_empty()
                {
                    self.problems.push(
                        Problem::new(Code::TemplateSyntax, at, "`{{ }}` has nothing in it", "here")
                            .help("name a value, such as {{inputs.name}}"),
                    );
                }
                TagKind::Expression
            }
        }
    }

    fn else_tag(&mut self, at: Range<usize>) -> TagKind {
        if self.open.is_empty() {
            self.problems.push(Problem::new(
                Code::TemplateSyntax,
                at,
                "`{{else}}` stands outside of any block",
                "no block is open here",
            ));
        }
        TagKind::Else
    }

    /// Reads words up to the closing braces. Gives the offset after them, and whether there was nothing but words.
    fn words(&mut self, start: usize, mut i: usize, triple: bool) -> Option<(usize, bool)> {
        let (mut parens, mut braces, mut words_only, mut complained) = (0_usize, 0_usize, true, false);
        loop {
            let Some(&b) = self.bytes.get(i) else {
                self.unclosed(start);
                return None;
            };
            match b {
                b' ' | b'\t' | b'\n' | b'\r' => i += 1,
                b'}' if braces > 0 => {
                    braces -= 1;
                    i += 1;
                }
                b'}' if triple && self.text[i..].starts_with("}}}") => return Some((i + 3, words_only)),
                b'}' if self.text[i..].starts_with("}}") => return Some((i + 2, words_only)),
                b'}' if triple => i += 1,
                b'"' | b'\'' => {
                    words_only = false;
                    i = self.string(i, b)?;
                }
                b'(' => {
                    words_only = false;
                    parens += 1;
                    i += 1;
                    if parens > MAX_NESTING {
                        self.problems.push(Problem::new(
                            Code::TemplateTooLarge,
                            i - 1..i,
                            format!("parentheses are nested more than {MAX_NESTING} deep"),
                            "this one",
                        ));
                        return None;
                    }
                }
                b'[' if self.is_list(i) => {
                    words_only = false;
                    parens += 1;
                    i += 1;
                }
                b')' | b']' => {
                    words_only = false;
                    parens = parens.saturating_sub(1);
                    i += 1;
                }
                b'{' => {
                    words_only = false;
                    braces += 1;
                    i += 1;
                    if braces > MAX_NESTING {
                        self.unclosed(start);
                        return None;
                    }
                }
                b'|' | b'=' | b'~' | b',' => {
                    words_only = false;
                    self.out.tildes |= b == b'~';
                    i += 1;
                }
                _ if is_word(b) || b == b'[' => {
                    let end = self.word_end(i)?;
                    self.out.words.push(i..end);
                    i = end;
                }
                _ => {
                    words_only = false;
                    if !complained {
                        complained = true;
                        self.operator(i);
                    }
                    i += 1;
                }
            }
        }
    }

    fn operator(&mut self, i: usize) {
        let c = char::from(self.bytes[i]);
        self.problems.push(
            Problem::new(
                Code::TemplateSyntax,
                i..i + 1,
                format!("`{c}` cannot stand in a template"),
                "here",
            )
            .help("templates have no operators: use a helper, such as {{upper x}}, {{default x \"y\"}} or {{#if (eq x 1)}}; `when` takes an expression"),
        );
    }

    /// `[` begins a list literal, not a path such as `[my key]`.
    fn is_list(&self, i: usize) -> bool {
        let next = self.bytes[i + 1..].iter().find(|b| !b.is_ascii_whitespace());
        matches!(next, Some(b'"' | b'\'' | b'0'..=b'9' | b'-' | b'[' | b'{' | b']'))
    }

    fn string(&mut self, start: usize, quote: u8) -> Option<usize> {
        let mut i = start + 1;
        while let Some(b) = self.bytes.get(i) {
            match b {
                b'\\' => i += 2,
                _ if *b == quote => return Some(i + 1),
                _ => i += 1,
            }
        }
        self.problems.push(Problem::new(
            Code::TemplateSyntax,
            start..start + 1,
            "a string in a template is never closed",
            "opened here",
        ));
        None
    }

    fn word_end(&mut self, start: usize) -> Option<usize> {
        let mut i = start;
        while let Some(&b) = self.bytes.get(i) {
            if b == b'[' {
                let Some(close) = self.text[i..].find(']') else {
                    self.problems.push(Problem::new(
                        Code::TemplateSyntax,
                        i..i + 1,
                        "`[` is never closed",
                        "opened here",
                    ));
                    return None;
                };
                i += close + 1;
            } else if is_word(b) {
                i += 1;
            } else {
                break;
            }
        }
        Some(i)
    }
}

/// A byte of a path, name or number; every byte of a character above U+007F is one.
fn is_word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'$' | b':' | b'.' | b'/' | b'@') || b >= 0x80
}

/// What a scalar is, told from its text alone. Cheap; a text with mistakes counts as what it looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// No template in it.
    Literal,
    /// Exactly one `{{ … }}`: renders to its native value.
    Whole,
    /// Text and templates: renders to a string.
    Mixed,
}

/// Tells the [`Shape`] of a scalar's text.
pub fn shape(text: &str) -> Shape {
    let Some(first) = text.find("{{") else { return Shape::Literal };
    let Ok(scan) = scan(text) else { return if first == 0 { Shape::Whole } else { Shape::Mixed } };
    match &scan.tags[..] {
        [] => Shape::Literal,
        [tag] if tag.at == (0..text.len()) && tag.kind == TagKind::Expression => Shape::Whole,
        _ => Shape::Mixed,
    }
}
