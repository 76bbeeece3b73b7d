//! Changes to files of one setting per line: `ini` and `key = value` files with sections, and `env` files. All other
//! lines keep every byte.

use runback_core::Json;

use super::change::{Edit, Verb, replaced};
use super::path::Part;

/// How a line is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// `[section]`, `key = value` or `key: value`, comments with `#` or `;`, continued by lines that are indented more.
    Ini,
    /// `KEY=value`, with or without `export`, comments with `#`.
    Env,
}

/// One setting: its lines, and where in the first its parts are.
#[derive(Debug, Clone)]
struct Setting {
    section: String,
    key: String,
    /// First line and the one after the last.
    lines: (usize, usize),
    /// Where the key ends, and where the value begins, in its first line.
    key_end: usize,
    value_start: usize,
}

struct File {
    /// With their ends.
    lines: Vec<String>,
    settings: Vec<Setting>,
    /// Name and line of each section.
    sections: Vec<(String, usize)>,
}

impl File {
    fn read(text: &str, dialect: Dialect) -> Self {
        let lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
        let (mut settings, mut sections) = (Vec::<Setting>::new(), Vec::new());
        let mut section = String::new();
        let indent = |line: &str| line.len() - line.trim_start().len();
        for (number, line) in lines.iter().enumerate() {
            let bare = line.trim();
            let comment = bare.starts_with('#') || (dialect == Dialect::Ini && bare.starts_with(';'));
            if bare.is_empty() || comment {
                continue;
            }
            if dialect == Dialect::Ini {
                if let Some(name) = bare.strip_prefix('[').and_then(|b| b.split_once(']')) {
                    name.0.trim().clone_into(&mut section);
                    sections.push((section.clone(), number));
                    continue;
                }
                if let Some(last) = settings.last_mut()
                    && last.lines.1 == number
                    && indent(line) > indent(&lines[last.lines.0])
                {
                    last.lines.1 = number + 1;
                    continue;
                }
            }
            let separators: &[char] = if dialect == Dialect::Ini { &['=', ':'] } else { &['='] };
            let Some(at) = line.find(separators) else { continue };
            let head = line[..at].trim_end();
            let key = head.trim_start();
            let key = if dialect == Dialect::Env { key.strip_prefix("export ").unwrap_or(key).trim() } else { key };
            let rest = &line[at + 1..];
            let blank = rest.len() - rest.trim_start_matches([' ', '\t']).len();
            settings.push(Setting {
                section: section.clone(),
                key: key.to_owned(),
                lines: (number, number + 1),
                key_end: head.len(),
                value_start: at + 1 + blank,
            });
        }
        Self { lines, settings, sections }
    }

    fn value(&self, setting: &Setting) -> String {
        let first = self.lines[setting.lines.0][setting.value_start..].trim();
        let rest = self.lines[setting.lines.0 + 1..setting.lines.1].iter().map(|l| l.trim());
        std::iter::once(first).chain(rest).collect::<Vec<_>>().join("\n")
    }

    fn text(&self) -> String {
        self.lines.concat()
    }

    /// The end of a line as this file has it.
    fn ending(&self) -> &'static str {
        if self.lines.first().is_some_and(|l| l.ends_with("\r\n")) { "\r\n" } else { "\n" }
    }
}

/// The edited text. The error says what is wrong with the edit.
pub(super) fn edit(text: &str, edit: &Edit, dialect: Dialect) -> Result<String, String> {
    let (verb, parts) = edit.verb().map_err(|(_, message)| message)?;
    let mut file = File::read(text, dialect);
    if let (Verb::Remove(_), [Part::Name(name)], Dialect::Ini) = (&verb, &parts[..], dialect)
        && file.sections.iter().any(|(section, _)| section == name)
    {
        return Ok(without_section(&file, name));
    }
    let (section, key) = place(&parts, dialect)?;
    let fits = |s: &Setting| section.is_none_or(|name| name == s.section) && key.is_none_or(|key| key == s.key);
    let found: Vec<Setting> = file.settings.iter().filter(|s| fits(s)).cloned().collect();
    match verb {
        Verb::Remove(Some(_)) => return Err("`value` has no meaning for `remove` in this format".to_owned()),
        Verb::Remove(None) => {
            for setting in found.iter().rev() {
                file.lines.drain(setting.lines.0..setting.lines.1);
            }
        }
        Verb::Set(value) => {
            let value = scalar(value)?;
            let (Some(section), Some(key)) = (section, key) else {
                return every(file, &found, |_| Ok(Some(value.clone())), edit.path());
            };
            match &found[..] {
                [] => add(&mut file, section, key, &value, dialect),
                [one] => put(&mut file, one, &value),
                [first, second, ..] => {
                    let (a, b) = (first.lines.0 + 1, second.lines.0 + 1);
                    return Err(format!(
                        "`{}` stands in lines {a} and {b}: which one counts is up to its reader",
                        edit.path()
                    ));
                }
            }
        }
        Verb::Replace(from, to) => {
            let new = |old: &str| {
                let done = to.starts_with(from) && old.starts_with(to);
                old.strip_prefix(from).filter(|_| !done).map(|rest| replaced(from, to, rest)).transpose()
            };
            return every(file, &found, new, edit.path());
        }
        Verb::Rename(to) => {
            let taken = file.settings.iter().any(|s| section.is_none_or(|name| name == s.section) && s.key == to);
            match &found[..] {
                [] if taken => {}
                [] => return Err(format!("nothing is at `{}`", edit.path())),
                [one] if one.key == to => {}
                [_] if taken => return Err(format!("`{to}` is there already")),
                [one] => {
                    let line = &mut file.lines[one.lines.0];
                    line.replace_range(one.key_end - one.key.len()..one.key_end, to);
                }
                _ => return Err(format!("`{}` stands in several lines", edit.path())),
            }
        }
        Verb::Append(_) => return Err("`append` is for lists, and this format has none".to_owned()),
    }
    Ok(file.text())
}

fn of(part: &Part) -> Option<&str> {
    match part {
        Part::Name(name) => Some(name),
        Part::Any => None,
    }
}

/// Section and key that a path means; None = every one.
fn place(parts: &[Part], dialect: Dialect) -> Result<(Option<&str>, Option<&str>), String> {
    match (parts, dialect) {
        ([key], _) => Ok((Some(""), of(key))),
        ([section, key], Dialect::Ini) => Ok((of(section), of(key))),
        (_, Dialect::Ini) => Err("a path is `key` or `section.key`; quote a name that has a dot in it".to_owned()),
        (_, Dialect::Env) => Err("a path is a variable's name; quote a name that has a dot in it".to_owned()),
    }
}

fn every(
    mut file: File,
    found: &[Setting],
    new: impl Fn(&str) -> Result<Option<String>, String>,
    path: &str,
) -> Result<String, String> {
    if found.is_empty() {
        return Err(format!("nothing is at `{path}`"));
    }
    for setting in found.iter().rev() {
        if let Some(value) = new(&file.value(setting))? {
            put(&mut file, setting, &value);
        }
    }
    Ok(file.text())
}

fn put(file: &mut File, setting: &Setting, value: &str) {
    if file.value(setting) == value {
        return;
    }
    let ending = file.lines[setting.lines.1 - 1].clone();
    let ending = &ending[ending.trim_end_matches(['\r', '\n']).len()..];
    let head = file.lines[setting.lines.0][..setting.value_start].trim_end_matches(['\r', '\n']).to_owned();
    let line = format!("{head}{value}{ending}");
    file.lines.splice(setting.lines.0..setting.lines.1, [line]);
}

/// A new setting, behind the last line of its section that says something.
fn add(file: &mut File, section: &str, key: &str, value: &str, dialect: Dialect) {
    let end = file.ending();
    let line = match dialect {
        Dialect::Env => format!("{key}={value}{end}"),
        Dialect::Ini => {
            // `a=b` or `a = b`, as the others have it.
            let like = file.settings.iter().find(|s| s.section == section).or(file.settings.first());
            let between = like.map_or(" = ", |s| &file.lines[s.lines.0][s.key_end..s.value_start]);
            format!("{key}{}{value}{end}", between.trim_end_matches(['\r', '\n']))
        }
    };
    let open = match section {
        "" => Some(0),
        _ => file.sections.iter().find(|(name, _)| name == section).map(|(_, line)| line + 1),
    };
    if let Some(last) = file.lines.last_mut()
        && !last.ends_with('\n')
    {
        last.push_str(end);
    }
    let Some(open) = open else {
        let gap = if file.lines.is_empty() { "" } else { end };
        file.lines.push(format!("{gap}[{section}]{end}"));
        file.lines.push(line);
        return;
    };
    let close = file.sections.iter().map(|(_, line)| *line).find(|line| *line >= open).unwrap_or(file.lines.len());
    let last = file.settings.iter().filter(|s| (open..close).contains(&s.lines.0)).map(|s| s.lines.1).max();
    let at = last.unwrap_or(if section.is_empty() { close } else { open });
    file.lines.insert(at, line);
}

fn without_section(file: &File, name: &str) -> String {
    let mut kept = String::new();
    let mut inside = false;
    for (number, line) in file.lines.iter().enumerate() {
        if let Some((section, _)) = file.sections.iter().find(|(_, at)| *at == number) {
            inside = section == name;
        }
        if !inside {
            kept.push_str(line);
        }
    }
    kept
}

/// A value on one line.
fn scalar(value: &Json) -> Result<String, String> {
    let text = match value {
        Json::String(text) => text.clone(),
        Json::Null => String::new(),
        Json::Bool(_) | Json::Number(_) => value.to_string(),
        Json::Array(_) | Json::Object(_) => {
            return Err("a value of this format is a text, a number or a boolean".to_owned());
        }
    };
    if text.contains(['\n', '\r']) {
        return Err("a value of this format has no line break".to_owned());
    }
    Ok(text.trim().to_owned())
}
