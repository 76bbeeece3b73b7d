//! Shows diagnostics: in the playbook's own text with all labels, whatever file they are in. What they say is
//! the check's.

use std::fmt;

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
    shown.map(|l| LabeledSpan::new(Some(l.text.clone()), code.offset(l.span), l.span.len())).collect()
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
        let inner = source.text.read_span(&own, before, after)?;
        let found = *inner.span();
        Ok(Box::new(MietteSpanContents::new_named(
            source.name.to_string(),
            inner.data(),
            SourceSpan::new((found.offset() + base).into(), found.len()),
            inner.line(),
            inner.column(),
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
