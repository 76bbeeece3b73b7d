//! Shows diagnostics: in the playbook's own text with all labels, whatever file they are in. What they say is
//! the check's.

use std::fmt;
use std::ops::Range;

use miette::{
    GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError, MietteSpanContents, SourceCode, SourceSpan,
    SpanContents,
};
use runback_core::diagnostic::{Diagnostic, Severity};
use runback_core::span::{Source, SourceId, Sources, Span};

use crate::term;

/// All of them, one after the other, for stderr.
pub(crate) fn render(diagnostics: &[Diagnostic], sources: &Sources) -> String {
    let code = Files::new(sources);
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode())
        .with_links(false)
        .with_width(term::width_or(100).min(140))
        .with_context_lines(1)
        .tab_width(2);
    let mut text = String::new();
    for diagnostic in diagnostics {
        let report = Report { diagnostic, code: &code, labels: labels(diagnostic, sources, &code) };
        // Writing into a string does not fail; a label that miette cannot place is said in its text.
        let _ = handler.render_report(&mut text, &report);
        text.push('\n');
    }
    text
}

/// "2 errors, 1 warning", for the last line.
pub(crate) fn count(errors: usize, warnings: usize) -> String {
    let word = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    match (errors, warnings) {
        (0, 0) => "no errors".to_owned(),
        (0, w) => word(w, "warning"),
        (e, 0) => word(e, "error"),
        (e, w) => format!("{}, {}", word(e, "error"), word(w, "warning")),
    }
}

/// A label without a place (a file that could not be read) is said in words.
fn labels(diagnostic: &Diagnostic, sources: &Sources, code: &Files<'_>) -> Vec<LabeledSpan> {
    let has_text = |span: Span| !sources.get(span.source).text.is_empty();
    let shown = diagnostic.labels.iter().filter(|l| has_text(l.span));
    let length = |span: Span| {
        let (text, start, end) = (&sources.get(span.source).text, span.start as usize, span.end as usize);
        let most = if is_in_a_long_line(text, start..end) { WINDOW } else { span.len() };
        boundary(text, start + span.len().min(most)) - start
    };
    shown.map(|l| LabeledSpan::new(Some(l.text.clone()), code.offset(l.span), length(l.span))).collect()
}

/// A line of more bytes is not shown as a whole, but this much on both sides of what is wrong.
const LONG: usize = 400;
const WINDOW: usize = 80;

fn is_in_a_long_line(text: &str, span: Range<usize>) -> bool {
    let line = line_around(text, span.start);
    line.len() > LONG && span.end <= line.end
}

/// The line in which a byte stands, without its end.
fn line_around(text: &str, at: usize) -> Range<usize> {
    let at = boundary(text, at.min(text.len()));
    let start = text[..at].rfind('\n').map_or(0, |i| i + 1);
    let end = text[at..].find('\n').map_or(text.len(), |i| at + i);
    start..end
}

/// The first boundary of characters at or before a byte.
fn boundary(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// What is shown around a span: what miette would show, without the far ends of long lines. A generated playbook may be
/// one line, and would be printed as a whole with each of its mistakes.
fn window(text: &str, span: &SourceSpan, shown: Range<usize>) -> Range<usize> {
    let (start, end) = (span.offset(), span.offset() + span.len());
    let (first, last) = (line_around(text, start), line_around(text, end));
    let mut window = shown;
    if first.len() > LONG {
        window.start = window.start.max(boundary(text, start.saturating_sub(WINDOW)));
    } else if first.start.saturating_sub(window.start) > LONG {
        window.start = first.start;
    }
    if last.len() > LONG {
        window.end = window.end.min(boundary(text, (end + WINDOW).min(text.len())));
    } else if window.end.saturating_sub(last.end) > LONG {
        window.end = last.end;
    }
    window
}

/// Several files as one address space: each begins where the one before ends, with a gap.
#[derive(Debug)]
struct Files<'a> {
    files: Vec<(usize, &'a Source)>,
}

impl<'a> Files<'a> {
    fn new(sources: &'a Sources) -> Self {
        let mut at = 0;
        let mut files = Vec::new();
        for (_, source) in sources.iter() {
            files.push((at, source));
            at += source.text.len() + 1;
        }
        Self { files }
    }

    fn offset(&self, span: Span) -> usize {
        let SourceId(source) = span.source;
        self.files.get(usize::from(source)).map_or(0, |(base, _)| base + span.start as usize)
    }
}

impl SourceCode for Files<'_> {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let index = self.files.partition_point(|(base, _)| *base <= span.offset());
        let (base, source) = self.files.get(index.wrapping_sub(1)).ok_or(MietteError::OutOfBounds)?;
        let own = SourceSpan::new((span.offset() - base).into(), span.len());
        if own.len() > 2 * WINDOW && is_in_a_long_line(&source.text, own.offset()..own.offset() + own.len()) {
            // Two labels far from each other in one line: each is shown by itself.
            return Err(MietteError::OutOfBounds);
        }
        let inner = source.text.read_span(&own, before, after)?;
        let found = inner.span().offset()..inner.span().offset() + inner.span().len();
        let shown = window(&source.text, &own, found.clone());
        let cut = &source.text[found.start..shown.start];
        let column = cut.rfind('\n').map_or(inner.column() + cut.len(), |at| cut.len() - at - 1);
        Ok(Box::new(MietteSpanContents::new_named(
            source.name.to_string(),
            &source.text.as_bytes()[shown.clone()],
            SourceSpan::new((shown.start + base).into(), shown.len()),
            inner.line() + cut.matches('\n').count(),
            column,
            inner.line_count(),
        )))
    }
}

struct Report<'a> {
    diagnostic: &'a Diagnostic,
    code: &'a Files<'a>,
    labels: Vec<LabeledSpan>,
}

impl fmt::Debug for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.diagnostic, f)
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.diagnostic.message)
    }
}

impl std::error::Error for Report<'_> {}

impl miette::Diagnostic for Report<'_> {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.diagnostic.code.name()))
    }

    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.diagnostic.severity() {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.diagnostic.help.as_ref().map(|h| Box::new(h) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(self.code)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        (!self.labels.is_empty()).then(|| Box::new(self.labels.iter().cloned()) as Box<dyn Iterator<Item = _>>)
    }
}
