//! Targets from a file of their own: runback's own form (what stands under `targets`), or an inventory of Ansible's, INI or
//! YAML. Of Ansible's variables only those about the connection mean something here; the others are for its own tasks, and
//! are left out. Reads no file itself.

mod ansible;
mod ini;
mod yaml;

use super::lower;
use super::model::TargetDecl;
use super::yaml::Node;
use crate::diagnostic::{Code, Diagnostic};
use crate::span::{SourceId, Span, Spanned};

/// The targets of one inventory. The form is told by the file's name and by what is in it.
pub(crate) fn read(source: SourceId, name: &str, text: &str) -> (Vec<TargetDecl>, Vec<Diagnostic>) {
    let by_name = name.rsplit_once('.').map(|(_, end)| end);
    if !matches!(by_name, Some("yaml" | "yml" | "json")) {
        let (inventory, diagnostics) = ini::read(source, text);
        return inventory.targets(diagnostics);
    }
    let (node, mut diagnostics) = super::yaml::parse_lossy(source, text);
    let Some(node) = node else {
        for empty in diagnostics.iter_mut().filter(|d| d.code == Code::YamlEmpty) {
            "the inventory is empty".clone_into(&mut empty.message);
            empty.help = Some("list machines in it: `web1: { ssh: web1.example.com }`".to_owned());
        }
        return (Vec::new(), diagnostics);
    };
    let node = node.get("targets").unwrap_or(&node);
    if is_ansible(node) {
        let (inventory, more) = yaml::read(text, node);
        diagnostics.extend(more);
        return inventory.targets(diagnostics);
    }
    let (targets, more) = lower::targets(source, text, node);
    diagnostics.extend(more);
    (targets, diagnostics)
}

/// Groups with hosts, children or variables: no target of ours has these keys.
fn is_ansible(node: &Node) -> bool {
    let ours = |n: &Node| n.get("ssh").is_some() || n.get("group").is_some();
    let theirs = |n: &Node| ["hosts", "children", "vars"].iter().any(|key| n.get(key).is_some());
    node.as_map().is_some_and(|pairs| pairs.iter().any(|(_, v)| theirs(v)) && !pairs.iter().any(|(_, v)| ours(v)))
}

/// Machines and groups as Ansible knows them, before variables are worked out.
#[derive(Debug, Default)]
struct Inventory {
    hosts: Vec<Host>,
    groups: Vec<Group>,
}

#[derive(Debug)]
struct Host {
    name: Spanned<String>,
    vars: Vec<Var>,
}

#[derive(Debug)]
struct Group {
    name: Spanned<String>,
    /// Names of hosts.
    hosts: Vec<Spanned<String>>,
    children: Vec<Spanned<String>>,
    vars: Vec<Var>,
}

#[derive(Debug, Clone)]
struct Var {
    name: Spanned<String>,
    value: Spanned<String>,
}

impl Inventory {
    /// The group of that name, made where it is not there yet.
    fn group(&mut self, name: &Spanned<String>) -> &mut Group {
        let at = self.groups.iter().position(|g| g.name.value == name.value).unwrap_or_else(|| {
            let (hosts, children, vars) = (Vec::new(), Vec::new(), Vec::new());
            self.groups.push(Group { name: name.clone(), hosts, children, vars });
            self.groups.len() - 1
        });
        &mut self.groups[at]
    }

    fn host(&mut self, name: &Spanned<String>) -> &mut Host {
        let at = self.hosts.iter().position(|h| h.name.value == name.value).unwrap_or_else(|| {
            self.hosts.push(Host { name: name.clone(), vars: Vec::new() });
            self.hosts.len() - 1
        });
        &mut self.hosts[at]
    }
}

/// How many machines one range may stand for.
const MAX_RANGE: usize = 1000;

/// `web[01:12].example.com` is twelve names, `db[a:c]` three. The error says what is wrong with the range.
fn ranges(name: &str) -> Result<Vec<String>, String> {
    let Some((before, rest)) = name.split_once('[') else { return Ok(vec![name.to_owned()]) };
    let Some((range, after)) = rest.split_once(']') else { return Err(format!("`{name}` has a `[` without its `]`")) };
    let wrong = || format!("`[{range}]` is not a range; write it like [1:12], [01:12] or [a:f]");
    let parts: Vec<&str> = range.split(':').collect();
    let (from, to, step) = match parts[..] {
        [from, to] => (from, to, 1),
        [from, to, step] => (from, to, step.parse().ok().filter(|s| *s > 0).ok_or_else(wrong)?),
        _ => return Err(wrong()),
    };
    let single = |text: &str| (text.len() == 1).then(|| text.as_bytes()[0]).filter(u8::is_ascii_alphabetic);
    let items: Vec<String> = match (from.parse::<usize>(), to.parse::<usize>(), single(from), single(to)) {
        (Ok(first), Ok(last), ..) if first <= last && (last - first) / step < MAX_RANGE => {
            let width = if from.starts_with('0') { from.len() } else { 0 };
            (first..=last).step_by(step).map(|n| format!("{n:0width$}")).collect()
        }
        (_, _, Some(first), Some(last)) if first <= last => {
            (first..=last).step_by(step).map(|c| char::from(c).to_string()).collect()
        }
        _ => return Err(wrong()),
    };
    let mut all = Vec::new();
    for after in ranges(after)? {
        all.extend(items.iter().map(|item| format!("{before}{item}{after}")));
    }
    if all.len() > MAX_RANGE { Err(format!("`{name}` stands for more than {MAX_RANGE} machines")) } else { Ok(all) }
}

fn wrong(message: impl Into<String>, span: Span, help: Option<String>) -> Diagnostic {
    Diagnostic::new(Code::WrongValue, message, span, "here").maybe_help(help)
}

#[cfg(test)]
mod tests;
