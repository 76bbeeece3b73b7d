//! Ansible's INI form: machines with variables behind them, `[group]`, `[group:children]`, `[group:vars]`.

use super::{Inventory, Var, ranges, wrong};
use crate::diagnostic::{Code, Diagnostic};
use crate::span::{SourceId, Span, Spanned};
use crate::suggest::did_you_mean;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Hosts,
    Children,
    Vars,
}

/// A word of a line without its quotes, and where it begins and ends in the file.
type Word = (usize, usize, String);

pub(super) fn read(source: SourceId, text: &str) -> (Inventory, Vec<Diagnostic>) {
    let (diagnostics, asked, declared) = (Vec::new(), Vec::new(), vec!["all".to_owned(), "ungrouped".to_owned()]);
    let mut reader = Reader { source, inventory: Inventory::default(), diagnostics, asked, declared };
    let mut section = (Spanned::new("ungrouped".to_owned(), Span::new(source, 0, 0)), Kind::Hosts);
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let bare = line.trim();
        let at = start + (line.len() - line.trim_start().len());
        start += line.len();
        if bare.is_empty() || bare.starts_with(['#', ';']) {
            continue;
        }
        if let Some(head) = bare.strip_prefix('[') {
            if let Some(next) = reader.section(head, at) {
                section = next;
            }
            continue;
        }
        match section.1 {
            Kind::Hosts => reader.host(&section.0, bare, at),
            Kind::Children => {
                let name = bare.split(['#', ';']).next().unwrap_or_default().trim_end();
                let child = reader.spanned(name, at);
                reader.asked.push(child.clone());
                reader.inventory.group(&section.0).children.push(child);
            }
            Kind::Vars => reader.var(&section.0, bare, at),
        }
    }
    reader.unknown_groups();
    (reader.inventory, reader.diagnostics)
}

struct Reader {
    source: SourceId,
    inventory: Inventory,
    diagnostics: Vec<Diagnostic>,
    /// Groups that are mentioned, and must be there.
    asked: Vec<Spanned<String>>,
    /// Groups that have a section, with those that are always there.
    declared: Vec<String>,
}

impl Reader {
    fn spanned(&self, text: &str, at: usize) -> Spanned<String> {
        Spanned::new(text.to_owned(), Span::new(self.source, at, at + text.len()))
    }

    fn section(&mut self, head: &str, at: usize) -> Option<(Spanned<String>, Kind)> {
        let Some((inside, _)) = head.split_once(']') else {
            let span = Span::new(self.source, at, at + 1 + head.len());
            self.diagnostics.push(wrong("the `]` of a section is missing", span, None));
            return None;
        };
        let (name, kind) = inside.split_once(':').unwrap_or((inside, ""));
        let name = self.spanned(name, at + 1);
        let kind = match kind {
            "" => Kind::Hosts,
            "children" => Kind::Children,
            "vars" => {
                self.asked.push(name.clone());
                return Some((name, Kind::Vars));
            }
            other => {
                let begin = at + 2 + name.value.len();
                let near = did_you_mean(other, ["children", "vars"]).map(|near| format!("did you mean `{near}`?"));
                let message = format!("`{other}` is no kind of section; there are `children` and `vars`");
                self.diagnostics.push(wrong(message, Span::new(self.source, begin, begin + other.len()), near));
                return None;
            }
        };
        self.inventory.group(&name);
        self.declared.push(name.value.clone());
        Some((name, kind))
    }

    fn host(&mut self, group: &Spanned<String>, line: &str, at: usize) {
        let words = match words(line, at) {
            Ok(words) => words,
            Err(offset) => {
                let span = Span::new(self.source, offset, at + line.len());
                self.diagnostics.push(wrong("a quote is not closed on its line", span, None));
                return;
            }
        };
        let Some(((begin, end, written), rest)) = words.split_first() else { return };
        let span = Span::new(self.source, *begin, *end);
        let (names, port) = match written.rsplit_once(':') {
            Some((name, port))
                if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) && !name.contains(':') =>
            {
                (name, Some(port))
            }
            _ => (written.as_str(), None),
        };
        let mut vars: Vec<Var> = Vec::new();
        if let Some(port) = port {
            let at = begin + names.len() + 1;
            vars.push(Var { name: Spanned::new("ansible_port".to_owned(), span), value: self.spanned(port, at) });
        }
        for (begin, end, word) in rest {
            let Some((name, value)) = word.split_once('=') else {
                let help = "a machine's variables are `name=value`; each machine has a line of its own";
                let span = Span::new(self.source, *begin, *end);
                self.diagnostics.push(wrong(format!("`{word}` is not a variable"), span, Some(help.to_owned())));
                continue;
            };
            let span = Span::new(self.source, begin + name.len() + 1, *end);
            let name = self.spanned(name, *begin);
            vars.push(Var { name, value: Spanned::new(value.to_owned(), span) });
        }
        match ranges(names) {
            Err(why) => self.diagnostics.push(wrong(why, span, None)),
            Ok(names) => {
                for name in names {
                    let name = Spanned::new(name, span);
                    self.inventory.host(&name).vars.extend(vars.clone());
                    self.inventory.group(group).hosts.push(name);
                }
            }
        }
    }

    fn var(&mut self, group: &Spanned<String>, line: &str, at: usize) {
        let Some((name, value)) = line.split_once('=') else {
            let span = Span::new(self.source, at, at + line.len());
            self.diagnostics.push(wrong(format!("`{line}` is not `name=value`"), span, None));
            return;
        };
        let blank = value.len() - value.trim_start().len();
        let begin = at + name.len() + 1 + blank;
        let value = value.trim();
        let inner = ['"', '\''].iter().find_map(|q| value.strip_prefix(*q)?.strip_suffix(*q));
        let value = self.spanned(inner.unwrap_or(value), begin + usize::from(inner.is_some()));
        let name = self.spanned(name.trim_end(), at);
        self.inventory.group(group).vars.push(Var { name, value });
    }

    fn unknown_groups(&mut self) {
        for asked in &self.asked {
            if self.declared.contains(&asked.value) {
                continue;
            }
            let near = did_you_mean(&asked.value, self.declared.iter().map(String::as_str));
            let help = near.map(|near| format!("did you mean `{near}`?"));
            let message = format!("there is no group `{}`", asked.value);
            let diagnostic = Diagnostic::new(Code::UnknownTarget, message, asked.span, "not in this inventory");
            self.diagnostics.push(diagnostic.maybe_help(help));
        }
    }
}

/// The words of a line up to a comment, quotes taken away. The error is where a quote opens that is not closed.
fn words(line: &str, at: usize) -> Result<Vec<Word>, usize> {
    let mut words: Vec<Word> = Vec::new();
    let mut open: Option<(char, usize)> = None;
    let mut inside = false;
    for (offset, c) in line.char_indices() {
        match open {
            Some((quote, _)) if c == quote => open = None,
            None if c.is_whitespace() => inside = false,
            None if c == '#' && !inside => break,
            _ => {
                if !inside {
                    words.push((at + offset, at + offset, String::new()));
                    inside = true;
                }
                if open.is_none() && (c == '"' || c == '\'') {
                    open = Some((c, at + offset));
                } else if let Some((.., word)) = words.last_mut() {
                    word.push(c);
                }
            }
        }
        if let Some((_, end, _)) = words.last_mut().filter(|_| inside) {
            *end = at + offset + c.len_utf8();
        }
    }
    match open {
        Some((_, offset)) => Err(offset),
        None => Ok(words),
    }
}
