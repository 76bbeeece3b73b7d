//! From a byte range of a scalar's decoded text back to the file, for all five scalar styles. Knows only how
//! each style folds lines and escapes characters.

use std::ops::Range;

use super::{Node, NodeValue, Style};
use crate::span::Span;

/// The span in the file of a byte range of a scalar's decoded text. What is no string, or a range that is not
/// in it, gets the node's whole span.
pub fn inner_span(text: &str, node: &Node, start: usize, end: usize) -> Span {
    let NodeValue::Str(decoded, style) = &node.value else {
        return node.span;
    };
    let whole = node.span.start as usize..node.span.end as usize;
    let Some(raw) = text.get(whole.clone()) else {
        return node.span;
    };
    let quotes = usize::from(matches!(style, Style::SingleQuoted | Style::DoubleQuoted));
    if raw.get(quotes..raw.len().saturating_sub(quotes)) == Some(decoded) && end <= decoded.len() {
        let base = whole.start + quotes;
        return Span::new(node.span.source, base + start.min(end), base + end);
    }
    let (mut at, mut from, mut to) = (0, None, None);
    each_char(text, node, &mut |c, range| {
        if at <= start && start < at + c.len_utf8() {
            from = Some(range.start);
        }
        if start == end && at == start {
            to = Some(range.start);
        } else if at < end {
            to = Some(range.end);
        }
        at += c.len_utf8();
        at < end || from.is_none()
    });
    match (from, to) {
        (Some(from), Some(to)) => Span::new(node.span.source, from, to),
        _ => node.span,
    }
}

/// Receives each decoded character with its byte range in the file; false stops.
type Emit<'a> = &'a mut dyn FnMut(char, Range<usize>) -> bool;

/// Walks the decoded characters of a string node, in order.
pub(super) fn each_char(text: &str, node: &Node, emit: Emit<'_>) {
    let NodeValue::Str(decoded, style) = &node.value else {
        return;
    };
    let (start, end) = (node.span.start as usize, node.span.end as usize);
    match style {
        Style::Plain => flow(&text[..end], start, *style, emit),
        Style::SingleQuoted | Style::DoubleQuoted if end >= start + 2 => {
            flow(&text[..end - 1], start + 1, *style, emit);
        }
        Style::SingleQuoted | Style::DoubleQuoted => {}
        Style::Literal | Style::Folded => block(text, start, end, decoded, *style == Style::Folded, emit),
    }
}

/// The length of the line break at an offset; 0 where there is none.
fn break_len(text: &str, at: usize) -> usize {
    match text.as_bytes().get(at..) {
        Some([b'\r', b'\n', ..]) => 2,
        Some([b'\r' | b'\n', ..]) => 1,
        _ => 0,
    }
}

fn skip_blanks(text: &str, mut at: usize) -> usize {
    while matches!(text.as_bytes().get(at), Some(b' ' | b'\t')) {
        at += 1;
    }
    at
}

/// Plain and quoted scalars: the text from `at` to the end of `text`, quotes left out.
fn flow(text: &str, mut at: usize, style: Style, emit: Emit<'_>) {
    while let Some(c) = text[at..].chars().next() {
        let blanks_end = skip_blanks(text, at);
        if blanks_end > at && break_len(text, blanks_end) > 0 {
            at = blanks_end;
            continue;
        }
        let mut next = at + c.len_utf8();
        if break_len(text, at) > 0 {
            let Some(after) = fold(text, at, false, emit) else { return };
            at = after;
            continue;
        }
        let mut value = Some(c);
        if c == '\'' && style == Style::SingleQuoted {
            next += 1;
        } else if c == '\\' && style == Style::DoubleQuoted {
            if break_len(text, next) > 0 {
                let Some(after) = fold(text, next, true, emit) else { return };
                at = after;
                continue;
            }
            (value, next) = escape(text, at);
        }
        let Some(value) = value else { return };
        if next > text.len() || !emit(value, at..next) {
            return;
        }
        at = next;
    }
}

/// Line breaks in a row become one space, or one line feed for each but the first. An escaped first break
/// becomes nothing.
fn fold(text: &str, at: usize, escaped: bool, emit: Emit<'_>) -> Option<usize> {
    let first = at..at + break_len(text, at);
    let mut next = skip_blanks(text, first.end);
    let mut more = false;
    while break_len(text, next) > 0 {
        more = true;
        let range = next..next + break_len(text, next);
        next = skip_blanks(text, range.end);
        if !emit('\n', range) {
            return None;
        }
    }
    if !more && !escaped && !emit(' ', first) {
        return None;
    }
    Some(next)
}

/// The character of a backslash escape, and the offset after it.
fn escape(text: &str, at: usize) -> (Option<char>, usize) {
    let Some(kind) = text[at + 1..].chars().next() else {
        return (None, text.len());
    };
    let after = at + 1 + kind.len_utf8();
    let hex = |from: usize, digits: usize| {
        text.get(from..from + digits).and_then(|s| u32::from_str_radix(s, 16).ok()).unwrap_or(0xfffd)
    };
    let value = match kind {
        '0' => '\0',
        'a' => '\x07',
        'b' => '\x08',
        't' => '\t',
        'n' => '\n',
        'v' => '\x0b',
        'f' => '\x0c',
        'r' => '\r',
        'e' => '\x1b',
        'N' => '\u{85}',
        '_' => '\u{a0}',
        'L' => '\u{2028}',
        'P' => '\u{2029}',
        'x' => return (char::from_u32(hex(after, 2)), after + 2),
        'U' => return (char::from_u32(hex(after, 8)), after + 8),
        'u' => {
            let high = hex(after, 4);
            if (0xd800..0xdc00).contains(&high) && text.get(after + 4..after + 6) == Some("\\u") {
                let low = hex(after + 6, 4).wrapping_sub(0xdc00) & 0x3ff;
                return (char::from_u32(0x10000 + ((high - 0xd800) << 10) + low), after + 10);
            }
            return (char::from_u32(high), after + 4);
        }
        other => other,
    };
    (Some(value), after)
}

/// One line of a block scalar: its content without indentation, and its break.
struct Line {
    content: Range<usize>,
    line_break: Range<usize>,
}

/// Literal and folded scalars. The lines are aligned with the decoded text, so neither the header nor the
/// indentation of the parent is needed. One of only empty lines maps to nothing.
fn block(text: &str, start: usize, end: usize, decoded: &str, folded: bool, emit: Emit<'_>) {
    if decoded.bytes().all(|b| b == b'\n') {
        return;
    }
    let lines = block_lines(text, start, end, decoded);
    let mut rest = decoded;
    let mut index = 0;
    while index < lines.len() && !rest.is_empty() {
        let content = lines[index].content.clone();
        for (offset, c) in text[content.clone()].char_indices() {
            let Some(after) = rest.strip_prefix(c) else { return };
            rest = after;
            let from = content.start + offset;
            if !emit(c, from..from + c.len_utf8()) {
                return;
            }
        }
        let mut last = index;
        if folded {
            while lines.get(last + 1).is_some_and(|l| l.content.is_empty()) {
                last += 1;
            }
        }
        let breaks = &lines[index..=last];
        let feeds = rest.bytes().take_while(|b| *b == b'\n').count();
        let feeds = if folded { feeds.min(breaks.len()) } else { feeds.min(1) };
        let ends = last + 1 >= lines.len();
        let skip = usize::from(folded && !ends && feeds + 1 == breaks.len());
        if feeds == 0 && folded && !ends && breaks.len() == 1 {
            let Some(after) = rest.strip_prefix(' ') else { return };
            rest = after;
            if !emit(' ', breaks[0].line_break.clone()) {
                return;
            }
        }
        for line in breaks.iter().skip(skip).take(feeds) {
            rest = &rest[1..];
            if !emit('\n', line.line_break.clone()) {
                return;
            }
        }
        index = last + 1;
    }
}

fn block_lines(text: &str, start: usize, end: usize, decoded: &str) -> Vec<Line> {
    // The span begins with the first line that is not empty; the feeds before it are of the empty ones above.
    let first_line = text[..start].rfind(['\n', '\r']).map_or(0, |i| i + 1);
    let indent = start - first_line;
    let mut line_start = first_line;
    for _ in 0..decoded.bytes().take_while(|b| *b == b'\n').count() {
        let above = &text[..line_start];
        let above = above.strip_suffix("\r\n").or_else(|| above.strip_suffix(['\n', '\r'])).unwrap_or("");
        let row = above.rfind(['\n', '\r']).map_or(0, |i| i + 1);
        if above[row..].bytes().any(|b| b != b' ') || row == line_start {
            break;
        }
        line_start = row;
    }
    let mut lines = Vec::new();
    let mut at = line_start;
    while at < end {
        let stop = text[at..].find(['\n', '\r']).map_or(text.len(), |i| at + i);
        let next = stop + break_len(text, stop);
        lines.push(Line { content: at..stop, line_break: stop..next });
        at = next.max(at + 1);
    }
    let spaces = |line: &Line| text[line.content.clone()].bytes().take_while(|b| *b == b' ').count();
    for line in &mut lines {
        line.content.start += indent.min(spaces(line)).min(line.content.len());
    }
    lines
}
