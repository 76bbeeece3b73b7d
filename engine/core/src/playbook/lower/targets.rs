//! `targets`: machines and groups of them.

use super::Lower;
use super::fields::Keys;
use crate::diagnostic::{Code, Diagnostic};
use crate::playbook::model::{SshTarget, TargetDecl, TargetKind};
use crate::playbook::yaml::{Node, NodeValue};
use crate::span::{Span, Spanned};
use crate::template::problem::nearest;

impl Lower<'_> {
    /// The targets, and the files with more of them.
    pub(super) fn targets(&mut self, node: &Node) -> (Vec<TargetDecl>, Vec<Spanned<String>>) {
        let Some(pairs) = self.map(node, "`targets`") else { return Default::default() };
        let (mut targets, mut inventories) = (Vec::with_capacity(pairs.len()), Vec::new());
        for (key, value) in pairs {
            if key.as_str() == Some("inventory") && value.as_map().is_none() {
                inventories.extend(self.inventories(value));
                continue;
            }
            let name = self.name(key, "the name of a target", true);
            let kind = self.target_kind(value);
            // A broken one is still declared, so that steps may name it.
            let (Some(name), kind) = (name, kind.unwrap_or(TargetKind::Local)) else { continue };
            if name.value == "local" && kind != TargetKind::Local {
                let help = Some("give the target another name".to_owned());
                self.wrong_value(key.span, "`local` is always the machine that runback runs on", help);
                continue;
            }
            targets.push(TargetDecl { name, kind });
        }
        // With an inventory, what groups may hold is known only once it has been read.
        if inventories.is_empty() {
            groups(&targets, &mut self.diagnostics);
        }
        (targets, inventories)
    }

    /// One file, or several.
    fn inventories(&mut self, node: &Node) -> Vec<Spanned<String>> {
        let files = match node.as_str() {
            Some(file) => vec![Spanned::new(file.to_owned(), node.span)],
            None => self.strings(node, "inventory"),
        };
        let mut good = Vec::with_capacity(files.len());
        for file in files {
            if file.value.contains("{{") || file.value.is_empty() {
                let help = Some("targets are fixed: name the file, from the playbook's folder".to_owned());
                self.wrong_value(file.span, "an inventory is a file, written out", help);
            } else {
                good.push(file);
            }
        }
        good
    }

    fn inventory(&mut self, at: Span) {
        let message = "a target that is an inventory is not in this version of runback";
        let help = "write `inventory: hosts.ini` under `targets` itself: its machines and groups keep their names";
        self.report(Diagnostic::new(Code::NotYet, message, at, "not yet").help(help));
    }

    fn target_kind(&mut self, node: &Node) -> Option<TargetKind> {
        const TARGET: Keys = Keys {
            of: "a target",
            known: &["ssh", "group", "inventory"],
            hints: &[
                ("host", "a machine is `ssh`: { ssh: { host: … } }"),
                ("user", "a machine is `ssh`: { ssh: { host: …, user: … } }"),
                ("local", "write just `local`"),
                ("hosts", "a group of targets is `{ group: [a, b] }`"),
            ],
        };
        match &node.value {
            NodeValue::Str(text, _) if &**text == "local" => return Some(TargetKind::Local),
            NodeValue::Str(text, _) => {
                let help = Some(format!("for a machine write {{ ssh: \"{text}\" }}"));
                self.wrong_value(node.span, format!("a target is `local` or a map, not `{text}`"), help);
                return None;
            }
            NodeValue::List(_) => return Some(TargetKind::Group(self.strings(node, "group"))),
            _ => {}
        }
        let keys = self.fields(node, &TARGET)?;
        let kinds = keys.present(&["ssh", "group", "inventory"]);
        match kinds[..] {
            [("ssh", _)] => self.ssh(keys.get("ssh")?).map(TargetKind::Ssh),
            [("group", _)] => {
                let members = keys.get("group")?;
                self.list(members, "group")?;
                Some(TargetKind::Group(self.strings(members, "group")))
            }
            [(_, span)] => {
                self.inventory(span);
                None
            }
            [] if keys.misspelt("ssh") || keys.misspelt("group") => None,
            [] => {
                let span = keys.first_key(self.text);
                let message = "a target needs `ssh` or `group`";
                let help = "write `{ ssh: \"user@host\" }`, `{ group: [a, b] }`, or just `local`";
                self.report(Diagnostic::new(Code::MissingKey, message, span, "neither").help(help));
                None
            }
            _ => {
                self.conflict(&kinds, "a target is one machine or one group");
                None
            }
        }
    }

    fn ssh(&mut self, node: &Node) -> Option<SshTarget> {
        const SSH: Keys = Keys {
            of: "`ssh`",
            known: &["host", "user", "port", "identity", "options", "become"],
            hints: &[
                ("hostname", "it is called `host`"),
                ("key", "it is called `identity`"),
                ("identity_file", "it is called `identity`"),
                ("username", "it is called `user`"),
                ("sudo", "it is called `become`"),
                ("become_user", "it is called `become`: true, or a user's name"),
                ("password", "passwords are not supported: use a key or an agent"),
            ],
        };
        if let Some(text) = node.as_str() {
            return self.ssh_address(node, text);
        }
        if node.as_map().is_none() {
            self.wrong_type(node, "`ssh`", "a string (user@host) or a map");
            return None;
        }
        let keys = self.fields(node, &SSH)?;
        let text = |lower: &mut Self, key: &str| {
            let node = keys.get(key)?;
            let text = lower.string(node, key)?;
            lower.ssh_word(node.span, key, text)
        };
        let become_user = keys.get("become").and_then(|n| match &n.value {
            NodeValue::Bool(true) => Some("root".to_owned()),
            NodeValue::Bool(false) => None,
            NodeValue::Str(user, _) => self.ssh_word(n.span, "become", user),
            _ => {
                self.wrong_type(n, "`become`", "true or a user's name");
                None
            }
        });
        let target = SshTarget {
            host: String::new(),
            user: text(self, "user"),
            port: keys.get("port").and_then(|n| self.whole(n, "port", 1, 65535)).and_then(|p| u16::try_from(p).ok()),
            identity: text(self, "identity"),
            options: keys.get("options").map(|n| self.ssh_options(n)).unwrap_or_default(),
            become_user,
        };
        keys.required(self, "host")?;
        Some(SshTarget { host: text(self, "host")?, ..target })
    }

    /// What becomes an argument of `ssh`: nothing that it would take for an option, and no template.
    fn ssh_word(&mut self, span: Span, name: &str, text: &str) -> Option<String> {
        if text.contains("{{") {
            let help = Some("targets are fixed; choose among them with a template in a step's `target`".to_owned());
            self.wrong_value(span, format!("`{name}` of a target cannot be a template"), help);
            return None;
        }
        let blank = |c: char| c.is_control() || (c.is_whitespace() && name != "identity");
        if text.is_empty() || text.starts_with('-') || text.contains(blank) {
            self.wrong_value(span, format!("`{text}` cannot be the {name} of an SSH target"), None);
            return None;
        }
        Some(text.to_owned())
    }

    /// `[user@]host[:port]`, an IPv6 host in brackets.
    fn ssh_address(&mut self, node: &Node, text: &str) -> Option<SshTarget> {
        let (user, rest) = match text.rsplit_once('@') {
            Some((user, rest)) => (Some(self.ssh_word(node.span, "user", user)?), rest),
            None => (None, text),
        };
        let (host, port) = match rest.strip_prefix('[').and_then(|r| r.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, after)) => (host, after.strip_prefix(':').or(Some(after))),
            None if rest.matches(':').count() > 1 => (rest, None),
            None => rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port))),
        };
        let port = match port.map(|p| (p, p.parse::<u16>())) {
            None => None,
            Some((_, Ok(port))) if port > 0 => Some(port),
            Some((port, _)) => {
                let help = Some("write user@host:22, with a port from 1 to 65535".to_owned());
                self.wrong_value(node.span, format!("`{port}` is not a port"), help);
                return None;
            }
        };
        let host = self.ssh_word(node.span, "host", host)?;
        Some(SshTarget { host, user, port, ..SshTarget::default() })
    }

    fn ssh_options(&mut self, node: &Node) -> Vec<(String, String)> {
        let Some(pairs) = self.map(node, "`options`") else { return Vec::new() };
        let mut options = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            let Some(name) = key.as_str() else {
                self.wrong_type(key, "the name of an SSH option", "a string");
                continue;
            };
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric()) {
                let help = Some("write it as in ssh_config: `ConnectTimeout: 10`".to_owned());
                self.wrong_value(key.span, format!("`{name}` cannot be the name of an SSH option"), help);
                continue;
            }
            let value = match &value.value {
                NodeValue::Int(number) => Some(number.to_string()),
                _ => self.string(value, name).map(str::to_owned),
            };
            options.extend(value.map(|value| (name.to_owned(), value)));
        }
        options
    }
}

/// Members of groups must be machines that are declared.
pub(crate) fn groups(targets: &[TargetDecl], diagnostics: &mut Vec<Diagnostic>) {
    let names: Vec<&str> = targets.iter().map(|t| t.name.value.as_str()).chain(["local"]).collect();
    let wrong = |span: Span, message: String| Diagnostic::new(Code::WrongValue, message, span, "here");
    for target in targets {
        let TargetKind::Group(members) = &target.kind else { continue };
        if members.is_empty() {
            diagnostics.push(wrong(target.name.span, format!("the group `{}` is empty", target.name.value)));
        }
        for member in members {
            match targets.iter().find(|t| t.name.value == member.value) {
                Some(TargetDecl { kind: TargetKind::Group(_), .. }) => {
                    let message = format!("`{}` is a group, and groups hold machines", member.value);
                    diagnostics.push(wrong(member.span, message).help("list the machines of both groups"));
                }
                None if member.value != "local" => {
                    let near = nearest(&member.value, names.iter().copied());
                    let help = near.map(|near| format!("did you mean `{near}`?"));
                    let message = format!("there is no target `{}`", member.value);
                    let diagnostic = Diagnostic::new(Code::UnknownTarget, message, member.span, "not declared");
                    diagnostics.push(diagnostic.maybe_help(help));
                }
                _ => {}
            }
        }
    }
}
