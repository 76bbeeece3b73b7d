//! A template's text in parts that the handlebars crate reads in good time, and its errors at their place in the whole.

use std::ops::Range;

use super::problem::Problem;
use super::scan::{Scan, TagKind};
use crate::diagnostic::Code;

/// A part of a template that means the same by itself: whole lines outside of blocks.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) text: Range<usize>,
    /// Indexes of its tags.
    pub(super) tags: Range<usize>,
}

/// The time that the handlebars crate takes grows with the square of the text, so it gets small parts. Blocks on
/// lines of their own take the line end with them: parts end after one. A tilde may reach over lines: then there is
/// one part.
pub(super) fn parts(text: &str, scan: &Scan) -> Vec<Part> {
    let mut parts = Vec::new();
    let (mut depth, mut part, mut end) = (0_usize, Part { text: 0..0, tags: 0..0 }, 0);
    for (i, tag) in scan.tags.iter().enumerate() {
        if depth == 0
            && !scan.tildes
            && let Some(newline) = text[end..tag.at.start].rfind('\n')
        {
            let cut = end + newline + 1;
            parts.push(Part { text: part.text.start..cut, tags: part.tags.start..i });
            part = Part { text: cut..cut, tags: i..i };
        }
        match tag.kind {
            TagKind::Open => depth += 1,
            TagKind::Close => depth = depth.saturating_sub(1),
            _ => {}
        }
        end = tag.at.end;
    }
    parts.push(Part { text: part.text.start..text.len(), tags: part.tags.start..scan.tags.len() });
    parts
}

/// Places what the handlebars crate could not read at the tag that it stands in.
pub(super) fn syntax(text: &str, scan: &Scan, part: &Part, error: &handlebars::TemplateError) -> Problem {
    let source = &text[part.text.clone()];
    let offset = part.text.start + error.pos().map_or(0, |(line, column)| offset_of(source, line, column));
    let tags = &scan.tags[part.tags.clone()];
    let tag = tags.iter().find(|tag| offset < tag.at.end && tag.kind != TagKind::Comment).or(tags.last());
    let at = tag.map_or(0..0, |tag| tag.at.clone());
    let source = &text[at.clone()];
    let problem = Problem::new(
        Code::TemplateSyntax,
        at,
        format!("`{}` is not a template that can be read", shorten(source)),
        "cannot be read",
    );
    if source.contains('|') && !source.contains(" as |") {
        return problem.help("there are no filters: write the helper first, as in {{upper inputs.name}}");
    }
    if source.trim_start_matches(['{', '~', ' ']).starts_with('.') {
        return problem.help(
            "if another program shall read these braces, put a backslash before them: \\{{ (\"\\\\{{\" between double quotes)",
        );
    }
    problem.help("a template is {{path.to.value}}, {{helper argument …}} or a block such as {{#if x}} … {{/if}}")
}

fn shorten(source: &str) -> String {
    let line = source.lines().next().unwrap_or("");
    if line.chars().count() <= 60 && line.len() == source.len() {
        return line.to_owned();
    }
    format!("{}…", line.chars().take(60).collect::<String>())
}

/// Byte offset of a line and a column in characters, both from 1.
fn offset_of(text: &str, line: usize, column: usize) -> usize {
    let start = text.split_inclusive('\n').take(line - 1).map(str::len).sum::<usize>();
    let rest = text.get(start..).unwrap_or("");
    start + rest.char_indices().nth(column.saturating_sub(1)).map_or(rest.len(), |(i, _)| i)
}
