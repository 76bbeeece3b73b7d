//! Ansible's YAML form: groups with `hosts`, `children` and `vars`, within each other.

use super::{Inventory, Var, ranges, wrong};
use crate::diagnostic::{Code, Diagnostic};
use crate::playbook::yaml::{Node, NodeValue};
use crate::span::Spanned;
use crate::suggest::did_you_mean;

const KEYS: [&str; 3] = ["hosts", "children", "vars"];

pub(super) fn read(text: &str, node: &Node) -> (Inventory, Vec<Diagnostic>) {
    let mut reader = Reader { text, inventory: Inventory::default(), diagnostics: Vec::new() };
    for (key, value) in node.as_map().unwrap_or_default() {
        reader.group(key, value);
    }
    (reader.inventory, reader.diagnostics)
}

fn name(key: &Node) -> Spanned<String> {
    Spanned::new(key.key_text(), key.span)
}

struct Reader<'t> {
    text: &'t str,
    inventory: Inventory,
    diagnostics: Vec<Diagnostic>,
}

impl Reader<'_> {
    fn map<'n>(&mut self, node: &'n Node, what: &str) -> &'n [(Node, Node)] {
        match &node.value {
            NodeValue::Map(pairs) => pairs,
            NodeValue::Null => &[],
            _ => {
                let message = format!("{what} must be a map, not {}", node.kind());
                self.diagnostics.push(Diagnostic::new(Code::WrongType, message, node.span, node.kind()));
                &[]
            }
        }
    }

    fn group(&mut self, key: &Node, value: &Node) {
        let group_name = name(key);
        self.inventory.group(&group_name);
        for (part, inside) in self.map(value, &format!("the group `{}`", group_name.value)) {
            match part.as_str() {
                Some("hosts") => self.hosts(&group_name, inside),
                Some("children") => {
                    for (child, value) in self.map(inside, "`children`") {
                        let child_name = name(child);
                        self.inventory.group(&group_name).children.push(child_name);
                        self.group(child, value);
                    }
                }
                Some("vars") => {
                    let vars = self.vars(inside);
                    self.inventory.group(&group_name).vars.extend(vars);
                }
                _ => {
                    let written = part.key_text();
                    let near = did_you_mean(&written, KEYS).map(|near| format!("did you mean `{near}`?"));
                    let help = near.unwrap_or_else(|| "a group has `hosts`, `children` and `vars`".to_owned());
                    let message = format!("`{written}` is not a key of a group");
                    let diagnostic = Diagnostic::new(Code::UnknownKey, message, part.span, "unknown key");
                    self.diagnostics.push(diagnostic.help(help));
                }
            }
        }
    }

    fn hosts(&mut self, group: &Spanned<String>, node: &Node) {
        for (key, value) in self.map(node, "`hosts`") {
            let vars = self.vars(value);
            match ranges(&key.key_text()) {
                Err(why) => self.diagnostics.push(wrong(why, key.span, None)),
                Ok(names) => {
                    for name in names {
                        let name = Spanned::new(name, key.span);
                        self.inventory.host(&name).vars.extend(vars.clone());
                        self.inventory.group(group).hosts.push(name);
                    }
                }
            }
        }
    }

    fn vars(&mut self, node: &Node) -> Vec<Var> {
        let pairs = self.map(node, "variables");
        let mut vars = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            let text = match &value.value {
                NodeValue::Str(text, _) => text.to_string(),
                // As it stands: `0022` and `yes` mean what Ansible makes of them.
                NodeValue::List(_) | NodeValue::Map(_) => continue,
                _ => self.text.get(value.span.start as usize..value.span.end as usize).unwrap_or_default().to_owned(),
            };
            vars.push(Var { name: name(key), value: Spanned::new(text, value.span) });
        }
        vars
    }
}
