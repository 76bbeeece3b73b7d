//! Which strings of a `with:` map are expressions (schema format `cel`).

use super::format::Format;
use super::{CompiledSchema, RuleId, escaped};
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
                    if let Some(item_rule) = rule.of_item(i) {
                        self.find(item_rule, item, &format!("{pointer}/{i}"), found);
                    }
                }
            }
            NodeValue::Map(map) => {
                for (key, value) in map {
                    let Some(name) = key.as_str() else { continue };
                    if let Some(below) = rule.of_key(name) {
                        self.find(below, value, &format!("{pointer}/{}", escaped(name)), found);
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
