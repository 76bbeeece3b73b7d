//! What Ansible's variables mean for a connection, and which machine has which: a group's are overridden by those of the
//! groups in it, and those by the machine's own.

use std::collections::{BTreeMap, BTreeSet};

use super::{Inventory, Var, wrong};
use crate::diagnostic::{Code, Diagnostic};
use crate::playbook::model::{SshTarget, TargetDecl, TargetKind};
use crate::span::Spanned;
use crate::suggest::did_you_mean;

/// Variables about the connection.
const KNOWN: [&str; 14] = [
    "ansible_host",
    "ansible_ssh_host",
    "ansible_port",
    "ansible_ssh_port",
    "ansible_user",
    "ansible_ssh_user",
    "ansible_ssh_private_key_file",
    "ansible_private_key_file",
    "ansible_connection",
    "ansible_become",
    "ansible_become_user",
    "ansible_become_method",
    "ansible_ssh_common_args",
    "ansible_ssh_extra_args",
];
/// Variables about how Ansible works on the far side, which runback does otherwise.
const THEIRS: [&str; 8] = [
    "ansible_python_interpreter",
    "ansible_shell_type",
    "ansible_shell_executable",
    "ansible_remote_tmp",
    "ansible_pipelining",
    "ansible_ssh_pipelining",
    "ansible_ssh_transfer_method",
    "ansible_scp_if_ssh",
];

impl Inventory {
    /// The targets: every machine, and every group that has machines.
    pub(super) fn targets(self, mut diagnostics: Vec<Diagnostic>) -> (Vec<TargetDecl>, Vec<Diagnostic>) {
        let vars = self.groups.iter().flat_map(|g| &g.vars).chain(self.hosts.iter().flat_map(|h| &h.vars));
        diagnostics.extend(vars.filter_map(unknown));
        let depths = self.depths(&mut diagnostics);
        let mut targets = Vec::new();
        for host in &self.hosts {
            if !is_name(&host.name.value) {
                let help = "use letters, digits, `-`, `_` and `.`; the address goes into `ansible_host`".to_owned();
                diagnostics.push(wrong(
                    format!("`{}` cannot be a target", host.name.value),
                    host.name.span,
                    Some(help),
                ));
                continue;
            }
            let mut vars = BTreeMap::new();
            let mut groups: Vec<_> =
                self.groups.iter().filter(|g| self.members(&g.name.value).contains(&host.name.value)).collect();
            groups.sort_by_key(|g| (depths.get(&g.name.value).copied().unwrap_or(0), g.name.value.clone()));
            let all = groups.iter().flat_map(|g| &g.vars).chain(&host.vars);
            vars.extend(all.map(|v| (v.name.value.as_str(), &v.value)));
            let kind = connection(&host.name.value, &vars, &mut diagnostics);
            targets.push(TargetDecl { name: host.name.clone(), kind });
        }
        for group in &self.groups {
            let members = self.members(&group.name.value);
            let name = &group.name;
            if members.is_empty() {
                continue;
            }
            if targets.iter().any(|t| t.name.value == name.value) {
                let message = format!("`{}` is a machine and a group", name.value);
                diagnostics.push(wrong(message, name.span, Some("give one of them another name".to_owned())));
                continue;
            }
            let members = members.into_iter().map(|m| Spanned::new(m, name.span)).collect();
            targets.push(TargetDecl { name: name.clone(), kind: TargetKind::Group(members) });
        }
        (targets, diagnostics)
    }

    /// The machines of a group and of the groups in it, each once, in the order of the file.
    fn members(&self, group: &str) -> Vec<String> {
        if group == "all" {
            return self.hosts.iter().map(|h| h.name.value.clone()).collect();
        }
        let (mut found, mut seen, mut todo) = (Vec::new(), BTreeSet::new(), vec![group.to_owned()]);
        while let Some(name) = todo.pop() {
            let Some(group) = self.groups.iter().find(|g| g.name.value == name && seen.insert(name.clone())) else {
                continue;
            };
            found.extend(group.hosts.iter().map(|h| h.value.clone()));
            todo.extend(group.children.iter().rev().map(|c| c.value.clone()));
        }
        let mut once = BTreeSet::new();
        found.retain(|name| once.insert(name.clone()));
        found
    }

    /// How deep each group lies in others. A circle is told.
    fn depths(&self, diagnostics: &mut Vec<Diagnostic>) -> BTreeMap<String, usize> {
        let mut depths: BTreeMap<String, usize> =
            self.groups.iter().map(|g| (g.name.value.clone(), usize::from(g.name.value != "all"))).collect();
        for _ in 0..=self.groups.len() {
            let mut moved = None;
            for group in &self.groups {
                let below = depths.get(&group.name.value).copied().unwrap_or(0) + 1;
                for child in &group.children {
                    let depth = depths.entry(child.value.clone()).or_insert(below);
                    if *depth < below {
                        *depth = below;
                        moved = Some(child);
                    }
                }
            }
            let Some(child) = moved else { return depths };
            if depths.values().any(|d| *d > self.groups.len() + 1) {
                diagnostics.push(wrong(format!("the group `{}` is in itself", child.value), child.span, None));
                return depths;
            }
        }
        depths
    }
}

fn is_name(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && name.chars().all(inner)
        && name.len() <= 255
        && name != "local"
}

/// What is wrong with the name of a variable, if it is one about connections.
fn unknown(var: &Var) -> Option<Diagnostic> {
    let name = var.name.value.as_str();
    if !name.starts_with("ansible_")
        || KNOWN.contains(&name)
        || THEIRS.contains(&name)
        || name.ends_with("_interpreter")
    {
        return None;
    }
    if name.contains("pass") {
        let message = format!("`{name}`: passwords are not supported");
        let help = "use a key or an agent, and `sudo` without a password".to_owned();
        return Some(wrong(message, var.name.span, Some(help)));
    }
    let near = did_you_mean(name, KNOWN).map(|near| format!("did you mean `{near}`?"));
    let help = near.unwrap_or_else(|| "write it as an SSH target under `targets` of the playbook".to_owned());
    let message = format!("`{name}` is not a variable of a connection that is known here");
    Some(Diagnostic::new(Code::UnknownKey, message, var.name.span, "unknown variable").help(help))
}

fn connection(name: &str, vars: &BTreeMap<&str, &Spanned<String>>, diagnostics: &mut Vec<Diagnostic>) -> TargetKind {
    let get = |names: &[&str]| names.iter().find_map(|n| vars.get(n).copied()).filter(|v| !v.value.is_empty());
    match get(&["ansible_connection"]) {
        Some(kind) if kind.value == "local" => return TargetKind::Local,
        Some(kind) if !matches!(kind.value.as_str(), "ssh" | "smart" | "paramiko" | "paramiko_ssh") => {
            let message = format!("`{}` is not a connection that is known here", kind.value);
            diagnostics.push(wrong(message, kind.span, Some("there are `ssh` and `local`".to_owned())));
        }
        _ => {}
    }
    let mut word = |names: &[&str]| {
        let value = get(names)?;
        let bad = value.value.starts_with('-') || value.value.contains(char::is_control) || value.value.contains("{{");
        if bad {
            diagnostics.push(wrong(format!("`{}` cannot be that of an SSH target", value.value), value.span, None));
        }
        (!bad).then(|| value.value.clone())
    };
    let (host, user) = (word(&["ansible_host", "ansible_ssh_host"]), word(&["ansible_user", "ansible_ssh_user"]));
    let identity = word(&["ansible_ssh_private_key_file", "ansible_private_key_file"]);
    let become_user = word(&["ansible_become_user"]);
    let becomes = get(&["ansible_become"])
        .is_some_and(|v| matches!(v.value.to_lowercase().as_str(), "true" | "yes" | "1" | "on"));
    if let Some(method) = get(&["ansible_become_method"]).filter(|m| becomes && m.value != "sudo") {
        let message = format!("`{}` is not known here: only `sudo` is", method.value);
        diagnostics.push(wrong(message, method.span, None));
    }
    let port = get(&["ansible_port", "ansible_ssh_port"]).and_then(|port| {
        let number = port.value.parse::<u16>().ok().filter(|p| *p > 0);
        if number.is_none() {
            diagnostics.push(wrong(format!("`{}` is not a port", port.value), port.span, None));
        }
        number
    });
    let mut options = Vec::new();
    for name in ["ansible_ssh_common_args", "ansible_ssh_extra_args"] {
        if let Some(args) = get(&[name]) {
            arguments(args, &mut options, diagnostics);
        }
    }
    TargetKind::Ssh(SshTarget {
        host: host.unwrap_or_else(|| name.to_owned()),
        user,
        port,
        identity: identity.map(|i| i.strip_prefix("~/").map_or(i.clone(), |rest| format!("%d/{rest}"))),
        options,
        become_user: becomes.then(|| become_user.unwrap_or_else(|| "root".to_owned())),
    })
}

/// `-o Name=value` and `-J host` as options; nothing else is taken.
fn arguments(args: &Spanned<String>, options: &mut Vec<(String, String)>, diagnostics: &mut Vec<Diagnostic>) {
    let mut words = args.value.split_whitespace();
    while let Some(word) = words.next() {
        let (flag, rest) = word.split_at(word.len().min(2));
        let value = if rest.is_empty() { words.next().unwrap_or_default() } else { rest };
        let value = value.trim_matches(['"', '\'']);
        let pair = match flag {
            "-o" => value.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())),
            "-J" if !value.is_empty() => Some(("ProxyJump".to_owned(), value.to_owned())),
            _ => None,
        };
        let good = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric());
        match pair {
            Some((name, value)) if good(&name) => options.push((name, value)),
            _ => {
                let help =
                    Some("`-o Name=value` and `-J host` are taken; the rest belongs into ~/.ssh/config".to_owned());
                diagnostics.push(wrong(format!("`{word}` is not an argument that is known here"), args.span, help));
                return;
            }
        }
    }
}
