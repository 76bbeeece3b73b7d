//! Which strings of a `with:` map are expressions (schema format `cel`).

use super::format::Format;
use super::{Additional, CompiledSchema, RuleId};
use crate::playbook::yaml::{Node, NodeValue};

impl CompiledSchema {
    /// JSON pointer and node of each expression, in the order of the file.
    pub fn expressions<'n>(&self, with: &'n Node) -> Vec<(String, &'n Node)> {
        let mut found = Vec::new();
        if self.rules.iter().any(|r| r.format == Some(Format::Cel)) {
            self.find(self.root, with, "", &mut found);
        }
        found
    }

    fn find<'n>(&self, rule: RuleId, node: &'n Node, pointer: &str, found: &mut Vec<(String, &'n Node)>) {
        let rule = &self.rules[rule];
        match &node.value {
            NodeValue::Str(..) if rule.format == Some(Format::Cel) && found.iter().all(|(p, _)| p != pointer) => {
                found.push((pointer.to_owned(), node));
            }
            NodeValue::List(list) => {
                for (i, item) in list.iter().enumerate() {
                    let item_rule = rule.prefix.get(i).copied().or(rule.items);
                    if let Some(item_rule) = item_rule {
                        self.find(item_rule, item, &format!("{pointer}/{i}"), found);
                    }
                }
            }
            NodeValue::Map(map) => {
                for (key, value) in map {
                    let Some(name) = key.as_str() else { continue };
                    let own = rule.properties.iter().find(|p| &*p.name == name).map(|p| p.rule);
                    let below = own.or(match rule.additional {
                        Additional::Rule(rule) => Some(rule),
                        Additional::Any | Additional::Deny => None,
                    });
                    if let Some(below) = below {
                        let name = name.replace('~', "~0").replace('/', "~1");
                        self.find(below, value, &format!("{pointer}/{name}"), found);
                    }
                }
            }
            _ => {}
        }
        for other in rule.also.iter().chain(&rule.choice) {
            self.find(*other, node, pointer, found);
        }
    }
}
