//! A long text read in two halves at the same time, where that gives the tree of reading it in one go. Knows nothing
//! of what the text means, and tells no mistake: where there is one, it gives nothing, and the text is read again.
//!
//! The list that the middle of the text lies in is cut before one of its items. All that a parser knows there is how
//! deep it is in which lists and maps, and the anchors so far. So the second half, under a key of its own, is read as
//! it is in its place, unless it uses an anchor of the first, which is a mistake then. That the cut lies before an item,
//! and not in a script or a quoted text, is what the first half shows: it goes on over that item.

use std::thread;

use super::build::{self, Built, Part};
use super::syntax::Patches;
use super::{MAX_NODES, Node, NodeValue};
use crate::span::SourceId;

/// Shorter texts are read before a thread has begun. Bytes.
const WORTH: usize = 128 << 10;
/// In so many lines the list of the middle has an item.
const LINES: usize = 1000;
/// What stands above the second half.
const KEY: &str = "_:\n";

/// Where a text is cut: at the beginnings of the lines of two items of one list.
#[derive(Debug, Clone, Copy)]
struct Cut {
    at: usize,
    /// The first half ends here, behind the item that the second begins with.
    over: usize,
}

/// The tree of a long text without mistakes.
pub(super) fn read(source: SourceId, text: &str) -> Option<Node> {
    if text.len() < WORTH {
        return None;
    }
    read_cut(source, text, cut(text)?)
}

/// The first item of the outermost list about the middle, by the look of its line.
fn cut(text: &str) -> Option<Cut> {
    let middle = text.bytes().skip(text.len() / 2).position(|b| b == b'\n')? + text.len() / 2 + 1;
    let near = items(text, middle).take_while(|item| item.line < LINES);
    let first = near.min_by_key(|item| (item.column, item.at))?;
    let mut same = items(text, first.at).filter(|item| item.column == first.column);
    Some(Cut { at: same.next()?.at, over: same.next()?.at })
}

/// A line that may begin an item of a list.
struct Item {
    line: usize,
    at: usize,
    column: usize,
}

fn items(text: &str, from: usize) -> impl Iterator<Item = Item> {
    let mut next = from;
    text[from..].split_inclusive('\n').enumerate().filter_map(move |(line, content)| {
        let at = next;
        next += content.len();
        let item = content.trim_start_matches(' ');
        item.starts_with("- ").then_some(Item { line, at, column: content.len() - item.len() })
    })
}

fn read_cut(source: SourceId, text: &str, cut: Cut) -> Option<Node> {
    let offset = cut.at.checked_sub(KEY.len())?;
    let (first, second) = thread::scope(|scope| {
        let second = thread::Builder::new().spawn_scoped(scope, move || {
            let rest = [KEY, &text[cut.at..]].concat();
            build::build_part(source, &rest, &Part { offset, most: MAX_NODES / 2 }, &Patches::default())
        });
        let second = second.ok()?;
        let part = Part { offset: 0, most: MAX_NODES / 2 };
        let first = build::build_part(source, &text[..cut.over], &part, &Patches::default());
        Some((first, second.join().ok()?))
    })?;
    join(text, cut, first, second)
}

/// The whole, if it is sure that both are halves of it.
fn join(text: &str, cut: Cut, first: Built, second: Built) -> Option<Node> {
    let clean = |built: &Built| built.stopped.is_none() && built.diagnostics.is_empty();
    if !clean(&first) || !clean(&second) {
        return None;
    }
    let (mut root, rest) = (first.root?, second.root?);
    let (NodeValue::Map(entries), NodeValue::Map(more)) = (&mut root.value, rest.value) else { return None };
    let mut more = more.into_iter();
    let (_, Node { span: tail_span, value: NodeValue::List(tail) }) = more.next()? else { return None };
    let (_, list) = entries.last_mut()?;
    let NodeValue::List(items) = &mut list.value else { return None };
    let begins = items.pop()?.span.start;
    let is_item = text.get(cut.at..begins as usize)?.trim_matches(' ') == "-" && tail.first()?.span.start == begins;
    // Brackets and an indented document are held together by more than columns.
    let in_block = !text[list.span.start as usize..].starts_with('[');
    let before = &text[..root.span.start as usize];
    if !is_item || !in_block || !(before.is_empty() || before.ends_with(['\n', '\u{feff}'])) {
        return None;
    }
    items.extend(tail);
    list.span.end = tail_span.end;
    entries.extend(more);
    root.span.end = rest.span.end;
    let twice = build::duplicates(entries);
    twice.is_empty().then_some(root)
}

#[cfg(test)]
mod tests;
