//! The simple form that most playbooks have, read without the parser: printable ASCII, blocks by indentation, brackets
//! within a line, texts within a line or as `|`. Gives the tree that the parser gives, in a tenth of its time (seen with
//! granit-parser 2.1), or nothing: of whatever else there is, mistakes included, only the parser knows what to say.
//!
//! Of a long text, a second thread reads the list that the middle lies in on from there. What it finds holds for
//! whoever comes to that item of a list in that column, and is used then.

use std::thread::{self, ScopedJoinHandle};

use super::build::{duplicates, take_pairs};
use super::{MAX_NODES, Node, NodeValue, Style, scalar};
use crate::span::{SourceId, Span};

/// Lists and maps within each other. Well below [`super::MAX_DEPTH`].
const DEPTH: usize = 32;
/// Bytes of a key. Well below what YAML allows for one, 1024 characters.
const KEY: usize = 512;

/// Shorter texts are read before a thread has begun. Bytes.
const LONG: usize = 128 << 10;
/// In so many lines the list of the middle has an item.
const LINES: usize = 1000;

/// The tree of a text that is simple and has no mistake.
pub(super) fn read(source: SourceId, text: &str) -> Option<Node> {
    if !text.bytes().all(|b| b == b'\n' || (b' '..=b'~').contains(&b)) {
        return None;
    }
    read_from_both(source, text, if text.len() < LONG { None } else { middle(text) })
}

fn read_from_both(source: SourceId, text: &str, middle: Option<Item>) -> Option<Node> {
    thread::scope(|scope| {
        let mut reader = Reader::new(source, text);
        reader.tail = middle.and_then(|item| {
            let tail = thread::Builder::new().spawn_scoped(scope, move || Reader::new(source, text).tail(item));
            Some((item, tail.ok()?))
        });
        reader.document()
    })
}

/// A line that may begin an item of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Item {
    /// Its dash.
    at: usize,
    column: usize,
}

fn items(text: &str) -> impl Iterator<Item = (usize, Item)> {
    let mut next = 0;
    text.split_inclusive('\n').enumerate().filter_map(move |(number, line)| {
        let column = line.len() - line.trim_start_matches(' ').len();
        let at = next + column;
        next += line.len();
        line[column..].starts_with("- ").then_some((number, Item { at, column }))
    })
}

/// The first item of the outermost list about the middle, by the look of its line.
fn middle(text: &str) -> Option<Item> {
    let half = text.bytes().skip(text.len() / 2).position(|b| b == b'\n')? + text.len() / 2 + 1;
    let near = items(&text[half..]).take_while(|(number, _)| *number < LINES);
    let item = near.map(|(_, item)| item).min_by_key(|item| (item.column, item.at))?;
    Some(Item { at: item.at + half, ..item })
}

/// The rest of a list, from an item on, and where the line behind it begins.
struct Tail {
    items: Vec<Node>,
    at: usize,
    column: Option<usize>,
    end: usize,
    weight: usize,
}

struct Reader<'t, 's> {
    source: SourceId,
    text: &'t str,
    bytes: &'t [u8],
    /// The next byte to read.
    at: usize,
    /// Of the line that begins at `at`, after its spaces. None = there is no further line.
    column: Option<usize>,
    /// What the open lists and maps hold so far, those further out first. In a map, keys and values take turns.
    items: Vec<Node>,
    /// Where the last scalar, or closing bracket, ended.
    end: usize,
    /// Nodes so far, counted as [`MAX_NODES`] says.
    weight: usize,
    /// What another thread reads, if it is simple, from an item of a list at [`TAIL_DEPTH`] on.
    tail: Option<(Item, ScopedJoinHandle<'s, Option<Tail>>)>,
}

/// Of `steps` in a playbook.
const TAIL_DEPTH: usize = 1;

impl<'t> Reader<'t, '_> {
    fn new(source: SourceId, text: &'t str) -> Self {
        let (bytes, items) = (text.as_bytes(), Vec::new());
        Self { source, text, bytes, at: 0, column: Some(0), items, end: 0, weight: 0, tail: None }
    }

    fn document(&mut self) -> Option<Node> {
        self.next_line();
        if self.column == Some(0) && self.rest().starts_with(b"---\n") {
            self.at += 4;
            self.next_line();
        }
        let root = if self.column? == 0 { self.block(0, 0)? } else { return None };
        self.column.is_none().then_some(root)
    }

    fn tail(mut self, from: Item) -> Option<Tail> {
        self.at = from.at;
        let NodeValue::List(items) = self.block_list(from.column, TAIL_DEPTH)?.value else { return None };
        // The list itself is counted by whoever goes on with it.
        Some(Tail { items, at: self.at, column: self.column, end: self.end, weight: self.weight - 1 })
    }

    fn rest(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    /// A line's end where there is no further byte.
    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(b'\n')
    }

    /// An item of a list begins here.
    fn is_item(&self) -> bool {
        self.peek(0) == b'-' && self.peek(1) == b' '
    }

    fn skip_spaces(&mut self) {
        while self.peek(0) == b' ' {
            self.at += 1;
        }
    }

    /// From the beginning of a line to the first that holds more than spaces and a comment.
    fn next_line(&mut self) {
        loop {
            let start = self.at;
            self.skip_spaces();
            if self.at >= self.bytes.len() {
                self.column = None;
                return;
            }
            match self.bytes[self.at] {
                b'\n' => self.at += 1,
                b'#' => self.skip_line(),
                _ => {
                    self.column = Some(self.at - start);
                    return;
                }
            }
        }
    }

    fn skip_line(&mut self) {
        self.at = self.rest().iter().position(|&b| b == b'\n').map_or(self.bytes.len(), |length| self.at + length + 1);
    }

    /// What a line holds after a value: at most a comment. Goes to the next.
    fn close_line(&mut self) -> Option<()> {
        let before = self.at;
        self.skip_spaces();
        match self.peek(0) {
            b'\n' => self.at = (self.at + 1).min(self.bytes.len()),
            b'#' if self.at > before => self.skip_line(),
            _ => return None,
        }
        self.next_line();
        Some(())
    }

    fn node(&self, start: usize, value: NodeValue) -> Node {
        Node { span: Span::new(self.source, start, self.end), value }
    }

    fn weigh(&mut self, nodes: usize) -> Option<()> {
        self.weight += nodes;
        (self.weight <= MAX_NODES).then_some(())
    }

    /// A scalar whose text has been read.
    fn scalar(&mut self, start: usize, end: usize, value: NodeValue) -> Option<Node> {
        self.end = end;
        self.at = end;
        self.weigh(1 + ((end - start) >> 6))?;
        Some(self.node(start, value))
    }

    fn list(&mut self, start: usize, first: usize) -> Option<Node> {
        self.weigh(1)?;
        let items = self.items.drain(first..).collect();
        Some(self.node(start, NodeValue::List(items)))
    }

    fn map(&mut self, start: usize, first: usize) -> Option<Node> {
        self.weigh(1)?;
        let pairs = take_pairs(&mut self.items, first);
        duplicates(&pairs).is_empty().then(|| self.node(start, NodeValue::Map(pairs)))
    }

    /// A list or a map that begins here, in this column.
    fn block(&mut self, column: usize, depth: usize) -> Option<Node> {
        match self.peek(0) {
            b'-' if self.is_item() => self.block_list(column, depth),
            b'[' | b'{' => self.value(column, depth),
            _ => {
                let key = self.word(false)?;
                self.block_map(column, key, depth)
            }
        }
    }

    fn block_list(&mut self, column: usize, depth: usize) -> Option<Node> {
        let (start, first) = (self.at, self.items.len());
        if depth >= DEPTH {
            return None;
        }
        loop {
            let dash = self.at;
            self.at += 1;
            self.skip_spaces();
            let inner = column + (self.at - dash);
            let item = match self.peek(0) {
                b'-' if self.is_item() => self.block_list(inner, depth + 1)?,
                b'|' | b'[' | b'{' => self.value(column, depth + 1)?,
                _ => {
                    let word = self.word(false)?;
                    if self.peek(0) == b':' {
                        self.block_map(inner, word, depth + 1)?
                    } else {
                        self.close_line()?;
                        word
                    }
                }
            };
            self.items.push(item);
            // What stands deeper goes on with the value above, or is a mistake.
            if self.column.is_some_and(|next| next > column) {
                return None;
            }
            if self.column != Some(column) || !self.is_item() {
                return self.list(start, first);
            }
            let item = Item { at: self.at, column };
            if depth == TAIL_DEPTH
                && let Some((_, tail)) = self.tail.take_if(|(from, _)| *from == item)
            {
                let tail = tail.join().ok()??;
                (self.at, self.column, self.end) = (tail.at, tail.column, tail.end);
                self.items.extend(tail.items);
                self.weigh(tail.weight)?;
                return self.list(start, first);
            }
        }
    }

    /// A map whose first key has been read.
    fn block_map(&mut self, column: usize, key: Node, depth: usize) -> Option<Node> {
        let (start, first) = (key.span.start as usize, self.items.len());
        if depth >= DEPTH {
            return None;
        }
        let mut key = key;
        loop {
            self.key(key)?;
            self.skip_spaces();
            let value = match self.peek(0) {
                b'\n' | b'#' => self.below(column, depth)?,
                _ => self.value(column, depth + 1)?,
            };
            self.items.push(value);
            match self.column {
                Some(next) if next > column => return None,
                Some(next) if next == column => key = self.word(false)?,
                _ => return self.map(start, first),
            }
        }
    }

    /// A value that begins in a line under a key or dash in this column, and ends in it unless it is a text of lines.
    fn value(&mut self, column: usize, depth: usize) -> Option<Node> {
        let node = match self.peek(0) {
            b'|' => return self.literal(column),
            b'[' | b'{' => self.in_brackets(depth)?,
            _ => self.word(false)?,
        };
        self.close_line()?;
        Some(node)
    }

    /// The value of a key whose line ends with its colon.
    fn below(&mut self, column: usize, depth: usize) -> Option<Node> {
        self.close_line()?;
        match self.column {
            Some(next) if next > column => self.block(next, depth + 1),
            // The dashes of a list may stand under the key.
            Some(next) if next == column && self.is_item() => {
                let mut list = self.block_list(column, depth + 1)?;
                // To the parser, such a list begins with its first item.
                list.span.start = list.as_list()?.first()?.span.start;
                Some(list)
            }
            _ => None,
        }
    }

    /// Takes a key and the colon behind it.
    fn key(&mut self, key: Node) -> Option<()> {
        let is_merge = matches!(&key.value, NodeValue::Str(s, Style::Plain) if &**s == "<<");
        let length = key.span.end - key.span.start;
        if is_merge || length as usize > KEY || self.peek(0) != b':' {
            return None;
        }
        self.at += 1;
        self.items.push(key);
        matches!(self.peek(0), b' ' | b'\n').then_some(())
    }

    /// A list or map in brackets, which ends in its line.
    fn in_brackets(&mut self, depth: usize) -> Option<Node> {
        if depth >= DEPTH {
            return None;
        }
        let (start, first) = (self.at, self.items.len());
        let is_map = self.bytes[start] == b'{';
        let close = if is_map { b'}' } else { b']' };
        self.at += 1;
        self.skip_spaces();
        while self.peek(0) != close {
            if self.items.len() > first {
                if self.peek(0) != b',' {
                    return None;
                }
                self.at += 1;
                self.skip_spaces();
            }
            if is_map {
                let key = self.word(true)?;
                self.key(key)?;
                self.skip_spaces();
            }
            let value = match self.peek(0) {
                b'[' | b'{' => self.in_brackets(depth + 1)?,
                _ => self.word(true)?,
            };
            self.items.push(value);
            self.skip_spaces();
        }
        self.at += 1;
        self.end = self.at;
        if is_map { self.map(start, first) } else { self.list(start, first) }
    }

    /// A scalar within a line. `flow` = it stands in brackets.
    fn word(&mut self, flow: bool) -> Option<Node> {
        match self.peek(0) {
            b'\'' => self.single_quoted(),
            b'"' => self.double_quoted(),
            _ => self.plain(flow),
        }
    }

    fn plain(&mut self, flow: bool) -> Option<Node> {
        let start = self.at;
        let begins = match self.peek(0) {
            b'-' => !matches!(self.peek(1), b' ' | b'\n' | b',' | b'[' | b']' | b'{' | b'}'),
            b',' | b'[' | b']' | b'{' | b'}' | b'#' | b'&' | b'*' | b'!' | b'|' | b'>' | b'%' | b'@' | b'`' | b'?'
            | b':' | b'\n' => false,
            _ => true,
        };
        if !begins {
            return None;
        }
        let mut end = start;
        loop {
            let here = self.peek(end - start);
            let next = self.peek(end + 1 - start);
            match here {
                b'\n' => break,
                b':' if next == b' ' || next == b'\n' => break,
                b':' if flow && matches!(next, b',' | b'[' | b']' | b'{' | b'}') => return None,
                b' ' if next == b'#' => break,
                b',' | b'[' | b']' | b'{' | b'}' if flow => break,
                _ => end += 1,
            }
        }
        let word = self.text[start..end].trim_end_matches(' ');
        // A colon behind spaces, and what could mark a document: the parser knows.
        let marks = |mark: &str| word.strip_prefix(mark).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '));
        if self.peek(end - start) == b':' && word.len() < end - start || marks("---") || marks("...") {
            return None;
        }
        let value = scalar::resolve(word).ok()?;
        self.scalar(start, start + word.len(), value)
    }

    fn single_quoted(&mut self) -> Option<Node> {
        let start = self.at;
        let mut end = start + 1;
        let mut escaped = false;
        loop {
            match (self.peek(end - start), self.peek(end + 1 - start)) {
                (b'\n', _) => return None,
                (b'\'', b'\'') => (end, escaped) = (end + 2, true),
                (b'\'', _) => break,
                _ => end += 1,
            }
        }
        let inside = &self.text[start + 1..end];
        let text = if escaped { inside.replace("''", "'").into() } else { inside.into() };
        self.scalar(start, end + 1, NodeValue::Str(text, Style::SingleQuoted))
    }

    fn double_quoted(&mut self) -> Option<Node> {
        let start = self.at;
        let mut end = start + 1;
        let mut text = String::new();
        let mut copied = end;
        loop {
            match self.peek(end - start) {
                b'\n' => return None,
                b'"' => break,
                b'\\' => {
                    text.push_str(&self.text[copied..end]);
                    text.push(match self.peek(end + 1 - start) {
                        b'n' => '\n',
                        b't' => '\t',
                        b'"' => '"',
                        b'\\' => '\\',
                        _ => return None,
                    });
                    end += 2;
                    copied = end;
                }
                _ => end += 1,
            }
        }
        text.push_str(&self.text[copied..end]);
        self.scalar(start, end + 1, NodeValue::Str(text.into(), Style::DoubleQuoted))
    }

    /// A text of lines, `|` or `|-`, under a key or dash in this column. Goes to the line behind it.
    fn literal(&mut self, column: usize) -> Option<Node> {
        self.at += 1;
        let strip = self.peek(0) == b'-';
        self.at += usize::from(strip);
        let before = self.at;
        self.skip_spaces();
        match self.peek(0) {
            b'\n' => self.at += 1,
            b'#' if self.at > before => self.skip_line(),
            _ => return None,
        }
        let first = self.at;
        self.skip_spaces();
        let (start, indent) = (self.at, self.at.checked_sub(first)?);
        if indent <= column || self.peek(0) == b'\n' {
            return None;
        }
        let mut text = String::new();
        loop {
            let line = self.at;
            self.skip_line();
            text.push_str(self.text[line..self.at].trim_end_matches('\n'));
            text.push('\n');
            let mut breaks = 0;
            while self.rest().first() == Some(&b'\n') {
                self.at += 1;
                breaks += 1;
            }
            let next = self.at;
            self.skip_spaces();
            // Of spaces that are a line of their own, the parser knows what they mean.
            if self.peek(0) == b'\n' && self.at > next {
                return None;
            }
            if self.at - next < indent {
                if strip {
                    text.pop();
                }
                let node = self.scalar(start, self.at, NodeValue::Str(text.into(), Style::Literal))?;
                self.at = next;
                self.next_line();
                return Some(node);
            }
            text.extend(std::iter::repeat_n('\n', breaks));
            self.at = next + indent;
        }
    }
}

#[cfg(test)]
mod tests;
