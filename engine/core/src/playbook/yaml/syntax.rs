//! Syntax errors in the words of someone who writes YAML by hand, and how a pass goes on behind one of them:
//! a template without quotes. Knows nothing of trees.
//!
//! To go on, the mistake is overwritten by something harmless of the same length (so that every offset stays
//! true) and the whole text is parsed again.

use std::ops::Range;

use granit_parser::ErrorKind;

use super::Node;
use crate::diagnostic::{Code, Diagnostic};
use crate::span::{SourceId, Span};

/// Passes over one text. Each costs a parse.
const MAX_PASSES: usize = 20;

/// What ended a pass.
#[derive(Debug)]
pub(super) struct Stopped {
    pub(super) kind: ErrorKind,
    pub(super) offset: usize,
    /// Where the last good value or bracket ended.
    pub(super) last_end: usize,
    pub(super) last_scalar: Option<Range<usize>>,
    /// The innermost `[` or `{` that is not closed yet.
    pub(super) open_flow: Option<usize>,
}

/// The text with mistakes overwritten.
#[derive(Debug, Default)]
pub(super) struct Patches {
    text: Option<String>,
    /// Where templates were overwritten.
    templates: Vec<Range<usize>>,
}

impl Patches {
    pub(super) fn text<'t>(&'t self, original: &'t str) -> &'t str {
        self.text.as_deref().unwrap_or(original)
    }

    pub(super) fn touch(&self, range: &Range<usize>) -> bool {
        self.templates.iter().any(|t| t.start < range.end && range.start < t.end)
    }

    fn overwrite(&mut self, original: &str, range: Range<usize>, with: &str) {
        let text = self.text.get_or_insert_with(|| original.to_owned());
        let filling = with.repeat(range.len());
        text.replace_range(range, &filling);
    }
}

pub(super) enum Mend {
    Again,
    /// No further, and why.
    Stop(Box<Diagnostic>),
}

#[derive(Debug, Default)]
pub(super) struct Recovery {
    patches: Patches,
    diagnostics: Vec<Diagnostic>,
    passes: usize,
    stopped_at: Option<usize>,
}

impl Recovery {
    pub(super) fn patches(&self) -> &Patches {
        &self.patches
    }

    pub(super) fn mend(&mut self, source: SourceId, text: &str, stopped: &Stopped) -> Mend {
        self.passes += 1;
        let progress = self.stopped_at.is_none_or(|at| at < stopped.offset);
        self.stopped_at = Some(stopped.offset);
        if self.passes < MAX_PASSES
            && progress
            && let Some((token, braces)) = self.template_without_quotes(text, stopped)
        {
            self.diagnostics.push(unquoted_template(text, Span::new(source, token.start, token.end)));
            for range in braces {
                self.patches.overwrite(text, range.clone(), "x");
                self.patches.templates.push(range);
            }
            return Mend::Again;
        }
        if !progress {
            // The last patch was no cure, so what was said about it was no help.
            self.diagnostics.pop();
        }
        Mend::Stop(Box::new(explain(source, text, stopped)))
    }

    fn template_without_quotes(&self, text: &str, stopped: &Stopped) -> Option<(Range<usize>, Vec<Range<usize>>)> {
        let patched = self.patches.text(text);
        [stopped.offset, stopped.last_end].into_iter().find_map(|at| find_template(patched, &line(patched, at)))
    }

    /// All diagnostics in file order.
    pub(super) fn finish(self, root: Option<Node>, more: Vec<Diagnostic>) -> (Option<Node>, Vec<Diagnostic>) {
        let mut diagnostics = self.diagnostics;
        diagnostics.extend(more);
        diagnostics.sort_by_key(|d| d.labels.first().map(|l| l.span));
        (root, diagnostics)
    }
}

pub(super) fn unquoted_template(text: &str, span: Span) -> Diagnostic {
    let template = text.get(span.start as usize..span.end as usize).unwrap_or("{{ … }}");
    let quote = if template.contains('"') { '\'' } else { '"' };
    let message = "a template that is not quoted: `{` begins a map in YAML";
    Diagnostic::new(Code::YamlUnquotedTemplate, message, span, "needs quotes")
        .help(format!("quote it: {quote}{template}{quote}"))
}

/// The line around an offset, without its break.
fn line(text: &str, at: usize) -> Range<usize> {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let start = text[..at].rfind('\n').map_or(0, |i| i + 1);
    let end = text[at..].find(['\n', '\r']).map_or(text.len(), |i| at + i);
    start..end.max(start)
}

/// Tabs that indent, when one of them is what stopped the parser: the first, and those at the start of later
/// lines. No pass goes on behind them, since the depth that was meant is a guess.
fn tabs(source: SourceId, text: &str, stopped: &Stopped) -> Option<Diagnostic> {
    const MAX_LABELS: usize = 10;
    let kinds = [
        ErrorKind::TabNotAllowed,
        ErrorKind::TabInBlockIndentation,
        ErrorKind::TabAtBlockScalarStart,
        ErrorKind::TabInIndentation,
        ErrorKind::TabInPlainScalar,
    ];
    let here = line(text, stopped.offset);
    let run = |within: Range<usize>| {
        let start = within.start + text[within.clone()].find('\t')?;
        let len = text[start..within.end].bytes().take_while(|b| *b == b'\t').count();
        Some(Span::new(source, start, start + len))
    };
    let first = if kinds.contains(&stopped.kind) {
        // The parser notices some tabs only lines later, and some a line before the one it is at.
        let next = line(text, (here.end + 1).min(text.len()));
        let after_next = line(text, (next.end + 1).min(text.len()));
        [here, next, after_next].into_iter().find_map(run)?
    } else if stopped.open_flow.is_none() {
        run(here.start..here.end - text[here.clone()].trim_start().len())?
    } else {
        return None;
    };
    let help = "indent with spaces; YAML allows no tabs there";
    let message = "a tab stands where YAML wants spaces";
    let mut diagnostic = Diagnostic::new(Code::YamlTab, message, first, "a tab").help(help);
    let rest = &text[first.end as usize..];
    for (at, _) in rest.match_indices("\n\t").take(MAX_LABELS) {
        let row = line(text, first.end as usize + at + 1);
        if let Some(span) = run(row) {
            diagnostic = diagnostic.label(span, "another");
        }
    }
    Some(diagnostic)
}

/// The first value of a line that begins with `{{` outside of quotes and comments: its whole text, and the
/// braces in it.
fn find_template(text: &str, line: &Range<usize>) -> Option<(Range<usize>, Vec<Range<usize>>)> {
    let row = &text[line.clone()];
    let start = row.match_indices("{{").map(|(i, _)| i).find(|i| {
        let before = row[..*i].trim_end();
        let begins = before.is_empty() || before.ends_with([':', '-', '[', ',', '{', '?']);
        let quoted = ['"', '\''].iter().any(|q| before.matches(*q).count() % 2 == 1);
        begins && !quoted && !before.contains(" #") && !before.starts_with('#')
    })?;
    let mut braces = Vec::new();
    let mut end = start;
    while row[end..].starts_with("{{") {
        let close = row[end..].find("}}").map_or(row.trim_end().len(), |i| end + i + 2);
        let close = close + row[close..].bytes().take_while(|b| *b == b'}' && row[end..].starts_with("{{{")).count();
        braces.push(line.start + end..line.start + close);
        let rest = &row[close..];
        let stop = rest.find([' ', '\t', ',', ']', '}', '"', '\'']).unwrap_or(rest.len());
        end = close + rest[..stop].find("{{").unwrap_or(stop);
    }
    Some((line.start + start..line.start + end, braces))
}

/// What the parser said, in terms of the text.
fn explain(source: SourceId, text: &str, stopped: &Stopped) -> Diagnostic {
    if let Some(diagnostic) = tabs(source, text, stopped) {
        return diagnostic;
    }
    let here = line(text, stopped.offset);
    let row_text = text[here.clone()].trim_end();
    let row = stopped.offset.min(here.start + row_text.len())..here.start + row_text.len();
    let at = |range: Range<usize>, message: &str, label: &str| {
        Diagnostic::new(Code::YamlSyntax, message, Span::new(source, range.start, range.end), label)
    };
    let first_char = row.start..row.start + text[row.clone()].chars().next().map_or(0, char::len_utf8);
    match &stopped.kind {
        ErrorKind::RecursionLimitExceeded => {
            let message = format!("lists and maps are nested more than {} deep", super::MAX_DEPTH);
            let span = Span::new(source, first_char.start, first_char.end);
            Diagnostic::new(Code::YamlTooLarge, message, span, "one level too many")
                .help("flatten the structure, or move a part into a sub-playbook")
        }
        ErrorKind::UndeclaredTagHandle => {
            let len = text[row.clone()].find([' ', '\t']).unwrap_or(row.len());
            let span = Span::new(source, row.start, row.start + len);
            let message = format!("unknown YAML tag `{}`", &text[row.start..row.start + len]);
            Diagnostic::new(Code::YamlTag, message, span, "this tag")
                .help("leave it out; if it is meant as text, quote it")
        }
        ErrorKind::DirectiveDisallowed => at(row, "`%` directives are not part of a playbook", "a YAML directive")
            .help("delete the line; a playbook is always YAML 1.2"),
        ErrorKind::MissingAnchorOrAliasName => {
            let quoted = text[row.clone()].to_owned();
            at(row, "`*` and `&` at the start of a value mean an alias or an anchor", "neither, without a name")
                .help(format!("if it is meant as text, quote it: \"{quoted}\""))
        }
        ErrorKind::UnexpectedCharacter { character } if character.is_control() => {
            let message = format!("the control character U+{:04X} is not allowed in YAML", u32::from(*character));
            let start = stopped.offset + text[stopped.offset..].find(*character).unwrap_or(0);
            let end = (start + character.len_utf8()).min(text.len());
            at(start..end, &message, "here").help("delete it, or write it as an escape in double quotes: \"\\x07\"")
        }
        ErrorKind::UnexpectedCharacter { character } => {
            let message = format!("a value without quotes cannot begin with `{character}`");
            let value = text[row.clone()].to_owned();
            at(row, &message, "needs quotes").help(format!("quote it: '{}'", value.replace('\'', "''")))
        }
        ErrorKind::MappingValueNotAllowed => value_in_value(text, stopped, &at),
        ErrorKind::SimpleKeyExpected | ErrorKind::InvalidSimpleKey => {
            at(row, "a line that is neither `key: value` nor `- item`", "no `:` here")
                .help("write a `:` and a space after the key, or indent the line to continue the value above")
        }
        ErrorKind::ExpectedBlockMappingKey | ErrorKind::ExpectedBlockSequenceEntry | ErrorKind::InvalidIndentation => {
            at(row, "this line does not line up with the ones above it", "neither deeper nor level")
                .help("give the keys of one map, and the dashes of one list, the same indentation")
        }
        ErrorKind::InvalidTrailingDoubleQuotedScalar | ErrorKind::InvalidTrailingSingleQuotedScalar => {
            at(row, "text after the closing quote", "not part of the quoted value")
                .help("quote the whole value; within double quotes write \\\" for a quote")
        }
        ErrorKind::UnclosedQuotedScalar
        | ErrorKind::InvalidQuotedScalarIndent
        | ErrorKind::DocumentIndicatorInQuotedScalar => {
            let open = text[stopped.last_end..stopped.offset]
                .find(['"', '\''])
                .map_or(stopped.offset, |i| stopped.last_end + i);
            at(open..(open + 1).min(text.len()), "a quoted value that is not closed", "the quote is opened here")
                .help("close it, and indent its further lines deeper than its key")
        }
        ErrorKind::UnknownQuotedScalarEscape
        | ErrorKind::InvalidQuotedScalarHexEscape
        | ErrorKind::InvalidUnicodeEscape
        | ErrorKind::UnpairedLowSurrogate
        | ErrorKind::MissingLowSurrogate
        | ErrorKind::InvalidLowSurrogate
        | ErrorKind::InvalidLowSurrogateHexEscape => {
            at(row, "an escape that YAML does not have, in double quotes", "in this value")
                .help("write \\\\ for a backslash, or use single quotes, where it is just a character")
        }
        ErrorKind::BlockSequenceEntryNotAllowed => at(row, "a list cannot begin on the line of its key", "this dash")
            .help("put the `- ` items on lines of their own, or write the list as [a, b]"),
        kind => flow_or_other(text, stopped, kind, row, &at),
    }
}

type At<'a> = &'a dyn Fn(Range<usize>, &str, &str) -> Diagnostic;

/// `a: b: c`, or a line that is indented deeper than the key above.
fn value_in_value(text: &str, stopped: &Stopped, at: At<'_>) -> Diagnostic {
    let here = line(text, stopped.offset);
    let colon = stopped.offset..(stopped.offset + 1).min(text.len());
    match &stopped.last_scalar {
        Some(scalar) if scalar.start < here.start && scalar.end >= here.start => {
            let start = here.start + (text[here.clone()].len() - text[here.clone()].trim_start().len());
            at(start..stopped.offset.max(start), "a key within the value above", "continues the value above")
                .help("give it the indentation of the key above, or quote the value above")
        }
        Some(scalar) if scalar.end == stopped.offset && scalar.start >= here.start => {
            let end = here.start + text[here.clone()].trim_end().len();
            let value = text[scalar.start..end.max(scalar.start)].to_owned();
            at(scalar.start..end, "a value without quotes cannot hold `: `", "needs quotes")
                .help(format!("quote it: '{}'", value.replace('\'', "''")))
        }
        _ => at(colon, "a `:` where no key can be", "this colon").help("quote the value if the `:` belongs to it"),
    }
}

fn flow_or_other(text: &str, stopped: &Stopped, kind: &ErrorKind, row: Range<usize>, at: At<'_>) -> Diagnostic {
    if let ErrorKind::MismatchedFlowCollectionEnd { open, close } = kind {
        let message = format!("`{open}` is closed by `{close}`");
        let start = text[stopped.last_end..].find(*close).map_or(row.start, |i| stopped.last_end + i);
        let closing = start..(start + 1).min(text.len());
        return with_opening(at(closing, &message, "the wrong bracket"), stopped);
    }
    if let Some(open) = stopped.open_flow {
        let bracket = if text[open..].starts_with('[') { ("[", "]") } else { ("{", "}") };
        let message = format!("the `{}` is not closed, or a comma is missing or too many", bracket.0);
        let place = if row.is_empty() { open..open + 1 } else { row };
        let diagnostic = at(place, &message, "cannot be read from here");
        return with_opening(diagnostic, stopped).help(format!(
            "check the commas and close it with `{}`; quote values that hold any of , [ ] {{ }}",
            bracket.1
        ));
    }
    let message = format!("not YAML: {kind}");
    at(row, &message, "cannot be read from here")
}

fn with_opening(diagnostic: Diagnostic, stopped: &Stopped) -> Diagnostic {
    let source = diagnostic.labels[0].span.source;
    match stopped.open_flow {
        Some(open) => diagnostic.label(Span::new(source, open, open + 1), "opened here"),
        None => diagnostic,
    }
}
