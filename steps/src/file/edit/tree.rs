//! Changes to YAML and JSON as splices of their text: what a change is not about keeps every byte, comments and order
//! included. Each result is read again and held against what the change should have made of the document; where the two
//! differ, the change is refused instead of a file that is not what was meant.

use runback_core::Json;
use runback_core::diagnostic::Code;
use runback_core::playbook::yaml::{self, Node, NodeValue};
use runback_core::span::SourceId;

use super::change::{Change, Edit};
use super::path::{self, Address, Seg};
use super::render::{self, Language};

/// The edited text. The error says what is wrong with the text or the edit.
pub(super) fn edit(text: &str, edit: &Edit, language: Language) -> Result<String, String> {
    let mut text = text.to_owned();
    let mut document = read(&text, language)?.map_or(Json::Null, |n| n.to_json());
    for change in edit.changes(&document)? {
        let root = read(&text, language)?;
        let made = match &root {
            Some(root) => Splice { text: &text, language, root }.make(&change)?,
            None => beginning(&text, &change)?,
        };
        let refused = || format!("`{}` cannot be changed without touching what is around it", edit.path());
        change.apply(&mut document).ok_or_else(refused)?;
        let is = read(&made, language).ok().flatten().map(|n| n.to_json());
        if is.as_ref() != Some(&document) {
            return Err(refused());
        }
        text = made;
    }
    Ok(text)
}

/// The tree of a text; None where it holds nothing but comments.
fn read(text: &str, language: Language) -> Result<Option<Node>, String> {
    if language == Language::Json {
        return super::json::parse(text).map(Some);
    }
    let (node, mistakes) = yaml::parse_lossy(SourceId(0), text);
    if mistakes.iter().all(|m| m.code == Code::YamlEmpty) && !mistakes.is_empty() {
        return Ok(None);
    }
    // Other readers know merge keys and tags of their own; their places are clear.
    let mistake = mistakes.into_iter().find(|m| !matches!(m.code, Code::YamlMergeKey | Code::YamlTag));
    match mistake {
        None => Ok(node),
        Some(mistake) => {
            let at = mistake.labels.first().map_or(0, |l| l.span.start as usize).min(text.len());
            Err(format!("line {}: {}", text[..at].matches('\n').count() + 1, mistake.message))
        }
    }
}

/// The first entry of a file that holds nothing yet.
fn beginning(text: &str, change: &Change) -> Result<String, String> {
    let Change::Set(address, value) = change else { return Err("the file holds nothing".to_owned()) };
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    Ok(format!("{text}{end}{}\n", render::block(&wrap(address, value), 0)))
}

/// The value with the maps that lead to it.
fn wrap(address: &[Seg], value: &Json) -> Json {
    address.iter().rev().fold(value.clone(), |value, seg| match seg {
        Seg::Key(key) => Json::Object([(key.clone(), value)].into_iter().collect()),
        Seg::Index(_) => Json::Array(vec![value]),
    })
}

struct Splice<'a> {
    text: &'a str,
    language: Language,
    root: &'a Node,
}

/// One entry of a map or a list: where it begins (the key, the dash) and what it holds.
#[derive(Clone, Copy)]
struct Entry<'a> {
    start: usize,
    key: Option<&'a Node>,
    value: &'a Node,
}

impl<'a> Splice<'a> {
    fn make(&self, change: &Change) -> Result<String, String> {
        match change {
            Change::Set(address, value) => self.set(address, value),
            Change::Remove(address) => {
                let (parent, index, above) = self.find(address)?;
                self.remove(parent, index, above)
            }
            Change::Rename(address, to) => {
                let (parent, index, _) = self.find(address)?;
                let key = self.entries(parent)?[index].key.ok_or("an item of a list has no name")?;
                let old = &self.text[key.span.start as usize..key.span.end as usize];
                let new = render::like(old, to, self.language);
                Ok(self.put(key.span.start as usize, key.span.end as usize, &new))
            }
            Change::Append(address, item) => {
                let node = self.node(address)?;
                self.insert(node, None, item)
            }
        }
    }

    fn put(&self, from: usize, to: usize, new: &str) -> String {
        let windows = self.text.find('\n').is_some_and(|at| self.text[..at].ends_with('\r'));
        let new = if windows { new.replace('\n', "\r\n") } else { new.to_owned() };
        format!("{}{new}{}", &self.text[..from], &self.text[to..])
    }

    fn node(&self, address: &[Seg]) -> Result<&'a Node, String> {
        address
            .iter()
            .try_fold(self.root, |node, seg| child(node, seg).map(|(_, node)| node))
            .ok_or_else(|| gone(address))
    }

    /// The map or list that holds the place, its number in there, and the way to the map or list.
    fn find<'b>(&self, address: &'b Address) -> Result<(&'a Node, usize, &'b [Seg]), String> {
        let (last, above) = address.split_last().ok_or("the whole file cannot be changed as one")?;
        let parent = self.node(above)?;
        let (index, _) = child(parent, last).ok_or_else(|| gone(address))?;
        Ok((parent, index, above))
    }

    fn is_flow(&self, node: &Node) -> bool {
        self.text[node.span.start as usize..].starts_with(['{', '['])
    }

    fn line_start(&self, at: usize) -> usize {
        self.text[..at].rfind('\n').map_or(0, |n| n + 1)
    }

    fn line_end(&self, at: usize) -> usize {
        self.text[at..].find('\n').map_or(self.text.len(), |n| at + n)
    }

    fn entries(&self, parent: &'a Node) -> Result<Vec<Entry<'a>>, String> {
        match &parent.value {
            NodeValue::Map(pairs) => {
                let one =
                    |(key, value): &'a (Node, Node)| Entry { start: key.span.start as usize, key: Some(key), value };
                Ok(pairs.iter().map(one).collect())
            }
            NodeValue::List(items) if self.is_flow(parent) => {
                Ok(items.iter().map(|value| Entry { start: value.span.start as usize, key: None, value }).collect())
            }
            NodeValue::List(items) => {
                let first = self.first_dash(parent).ok_or("its first item cannot be found")?;
                let column = first - self.line_start(first);
                let one = |(i, value): (usize, &'a Node)| {
                    let start = if i == 0 { Some(first) } else { self.dash(value.span.start as usize, column) };
                    let start = start.filter(|at| *at >= first).ok_or("an alias stands in this list")?;
                    Ok(Entry { start, key: None, value })
                };
                items.iter().enumerate().map(one).collect()
            }
            _ => Err("there is nothing in it".to_owned()),
        }
    }

    /// The dash of the first item. A list that is not indented under its key has a span that begins at the key.
    fn first_dash(&self, list: &Node) -> Option<usize> {
        let start = list.span.start as usize;
        if self.text[start..].starts_with('-') {
            return Some(start);
        }
        let before = self.text[..list.as_list()?.first()?.span.start as usize].trim_end();
        before.ends_with('-').then(|| before.len() - 1)
    }

    /// The dash of an item: on its line or one above, in the column of the list.
    fn dash(&self, value: usize, column: usize) -> Option<usize> {
        let mut start = self.line_start(value.min(self.text.len()));
        loop {
            let line = &self.text[start..self.line_end(start)];
            if line.get(..column).is_some_and(|pad| pad.trim().is_empty()) && line[column..].starts_with('-') {
                return Some(start + column);
            }
            start = self.line_start(start.checked_sub(1)?);
        }
    }

    /// After the colon of a key, or the dash of an item.
    fn head(&self, entry: &Entry<'_>) -> Result<usize, String> {
        let Some(key) = entry.key else { return Ok(entry.start + 1) };
        let end = key.span.end as usize;
        let rest = &self.text[end..];
        let colon = rest.len() - rest.trim_start().len();
        if rest[colon..].starts_with(':') {
            Ok(end + colon + 1)
        } else {
            Err("a key with `?` cannot be edited".to_owned())
        }
    }

    /// Where the entry's value ends, without blanks and comments behind it.
    fn end(&self, entry: &Entry<'_>, flow: bool) -> Result<usize, String> {
        let head = if flow && entry.key.is_none() { entry.start } else { self.head(entry)? };
        let after = self.text[head..].trim_start_matches([' ', '\t']);
        if let (true, NodeValue::Null) =
            (after.is_empty() || after.starts_with(['\n', '\r', '#', ',', '}', ']']), &entry.value.value)
        {
            return Ok(head);
        }
        // The spans of what an alias stands for are where its anchor is.
        if after.starts_with('*') {
            let at = self.text.len() - after.len();
            return Ok(at + after.find([' ', '\t', '\n', '\r', ',', ']', '}']).unwrap_or(after.len()));
        }
        let end = entry.value.span.end as usize;
        if end < head {
            return Err("an alias stands there: edit what it stands for".to_owned());
        }
        Ok(head.max(self.text[..end].trim_end().len()))
    }

    fn remove(&self, parent: &'a Node, index: usize, above: &[Seg]) -> Result<String, String> {
        let entries = self.entries(parent)?;
        let flow = self.is_flow(parent);
        let entry = &entries[index];
        let end = self.end(entry, flow)?;
        if entries.len() == 1 {
            return self.empty(parent, flow, above);
        }
        if flow {
            return Ok(match entries.get(index + 1) {
                Some(next) => self.put(entry.start, next.start, ""),
                None => self.put(self.end(&entries[index - 1], flow)?, end, ""),
            });
        }
        let line = self.line_start(entry.start);
        if self.text[line..entry.start].trim().is_empty() {
            let after = (self.line_end(end) + 1).min(self.text.len());
            return Ok(self.put(line, after, ""));
        }
        // It shares its line with the dash above it; the next one takes its place.
        let next = entries.get(index + 1).ok_or("it shares its line with what is above it")?;
        Ok(self.put(entry.start, next.start, ""))
    }

    /// Takes the only entry out: the map or list stays, empty.
    fn empty(&self, parent: &Node, flow: bool, above: &[Seg]) -> Result<String, String> {
        let (start, end) = (parent.span.start as usize, parent.span.end as usize);
        let empty = if parent.as_map().is_some() { "{}" } else { "[]" };
        if flow {
            return Ok(self.put(start, end, empty));
        }
        let end = self.text[..end].trim_end().len();
        let owner = match above.split_last() {
            Some((last, up)) => {
                let holder = self.node(up)?;
                let (index, _) = child(holder, last).ok_or_else(|| gone(above))?;
                Some(self.entries(holder)?[index]).filter(|e| e.key.is_some())
            }
            None => None,
        };
        let Some(owner) = owner else { return Ok(self.put(start, end, empty)) };
        // A comment behind the key stays.
        let head = self.head(&owner)?;
        let comment = self.text[head..self.line_end(head)].trim_end();
        Ok(self.put(head, self.line_end(end), &format!(" {empty}{comment}")))
    }

    fn set(&self, address: &Address, value: &Json) -> Result<String, String> {
        // What is there of the way, and what is not.
        let mut there = 0;
        let mut node = self.root;
        while let Some((_, next)) = address.get(there).and_then(|seg| child(node, seg)) {
            (node, there) = (next, there + 1);
        }
        let value = wrap(&address[there..], value);
        if there < address.len() && node.value != NodeValue::Null {
            let Json::Object(map) = &value else { return Err(gone(address)) };
            let (key, value) = map.iter().next().ok_or_else(|| gone(address))?;
            return self.insert(node, Some(key), value);
        }
        let address = address[..there].to_vec();
        if address.is_empty() {
            let (start, end) = (self.root.span.start as usize, self.root.span.end as usize);
            return Ok(self.put(start, end, &render::inline(&value, self.language)));
        }
        let (parent, index, _) = self.find(&address)?;
        self.replace(parent, index, &value)
    }

    fn replace(&self, parent: &'a Node, index: usize, value: &Json) -> Result<String, String> {
        let entry = self.entries(parent)?[index];
        let flow = self.is_flow(parent);
        let end = self.end(&entry, flow)?;
        let start = entry.value.span.start as usize;
        let nested =
            value.as_object().is_some_and(|m| !m.is_empty()) || value.as_array().is_some_and(|l| !l.is_empty());
        let old = &entry.value.value;
        let block_scalar = matches!(old, NodeValue::Str(_, yaml::Style::Literal | yaml::Style::Folded));
        let inline_old = !block_scalar && (is_scalar(old) || self.is_flow(entry.value));
        let here = (start..=self.text.len()).contains(&end) && start >= entry.start && *old != NodeValue::Null;
        if flow || (inline_old && !nested && here) {
            let new = match value {
                Json::String(text) if here => render::like(&self.text[start..], text, self.language),
                _ if self.language == Language::Json && self.text[start..end].contains('\n') => {
                    render::json_lines(value, self.indent(entry.start))
                }
                _ => render::inline(value, self.language),
            };
            let from = if here { start } else { self.head(&entry)? };
            return Ok(self.put(from, end, &if here { new } else { format!(" {new}") }));
        }
        let head = self.head(&entry)?;
        let column = entry.start - self.line_start(entry.start);
        let new = match entry.key {
            Some(_) => render::under_key(value, column),
            None => format!(" {}", render::block(value, column + 2)),
        };
        Ok(self.put(head, end, &new))
    }

    /// The blanks at the beginning of a line.
    fn indent(&self, at: usize) -> &'a str {
        let line = &self.text[self.line_start(at)..];
        &line[..line.len() - line.trim_start_matches([' ', '\t']).len()]
    }

    /// Adds an entry at the end of a map (with a key) or a list.
    fn insert(&self, parent: &'a Node, key: Option<&str>, value: &Json) -> Result<String, String> {
        let entries = self.entries(parent)?;
        if self.is_flow(parent) {
            return self.insert_flow(parent, &entries, key, value);
        }
        let (first, last) = (entries.first().ok_or("it is empty")?, entries.last().ok_or("it is empty")?);
        let column = first.start - self.line_start(first.start);
        let new = match key {
            Some(key) => format!("{}:{}", render::yaml_text(key), render::under_key(value, column)),
            None => format!("- {}", render::block(value, column + 2)),
        };
        let at = self.line_end(self.end(last, false)?);
        let at = if self.text[..at].ends_with('\r') { at - 1 } else { at };
        Ok(self.put(at, at, &format!("\n{}{new}", " ".repeat(column))))
    }

    fn insert_flow(
        &self,
        parent: &Node,
        entries: &[Entry<'_>],
        key: Option<&str>,
        value: &Json,
    ) -> Result<String, String> {
        let (open, close) = (parent.span.start as usize + 1, parent.span.end as usize - 1);
        let (at, before) = match (entries.first(), entries.last()) {
            (Some(first), Some(last)) => {
                let lines = self.text[open..first.start].contains('\n');
                let before = if lines { format!(",\n{}", self.indent(first.start)) } else { ", ".to_owned() };
                (self.end(last, true)?, before)
            }
            _ => (open, String::new()),
        };
        let value = match self.language {
            Language::Json if before.contains('\n') => render::json_lines(value, &before[2..]),
            language => render::inline(value, language),
        };
        let key = key.map(|k| match self.language {
            Language::Json => format!("{}: ", Json::from(k)),
            Language::Yaml => format!("{}: ", render::yaml_text(k)),
        });
        let to = if entries.is_empty() { close } else { at };
        Ok(self.put(at, to, &format!("{before}{}{value}", key.unwrap_or_default())))
    }
}

fn is_scalar(value: &NodeValue) -> bool {
    !matches!(value, NodeValue::List(_) | NodeValue::Map(_))
}

fn child<'a>(node: &'a Node, seg: &Seg) -> Option<(usize, &'a Node)> {
    match seg {
        Seg::Index(index) => node.as_list()?.get(*index).map(|n| (*index, n)),
        Seg::Key(key) => {
            let pairs = node.as_map()?;
            let index = pairs.iter().position(|(k, _)| k.key_text() == *key)?;
            Some((index, &pairs[index].1))
        }
    }
}

fn gone(address: &[Seg]) -> String {
    format!("nothing is at `{}`", path::show(address))
}
