//! `for_each`: what a step is repeated for, and what its instances are called where that is known already.

use std::collections::HashMap;

use super::fields::Keys;
use super::{Lower, head};
use crate::Json;
use crate::diagnostic::{Code, Diagnostic};
use crate::instance;
use crate::playbook::model::ForEach;
use crate::playbook::yaml::{Node, NodeValue};
use crate::span::Span;
use crate::template::{Template, ValueTemplate};

impl Lower<'_> {
    /// A list, a template that gives one, or a map with `items` and how to go through them.
    pub(super) fn for_each(&mut self, node: &Node) -> Option<ForEach> {
        const FOR_EACH: Keys = Keys {
            of: "`for_each`",
            known: &["items", "as", "key", "max_parallel", "fail_fast"],
            hints: &[
                ("in", "it is called `items`"),
                ("list", "it is called `items`"),
                ("var", "it is called `as`"),
                ("name", "it is called `key`: what instances are called"),
                ("parallel", "it is called `max_parallel`"),
                ("batch", "it is called `max_parallel`"),
            ],
        };
        if node.as_map().is_none() {
            let items = self.items(node, "for_each");
            self.known_keys(node, &items, None, "each");
            return Some(ForEach {
                items,
                items_span: node.span,
                as_name: "each".to_owned(),
                key: None,
                max_parallel: None,
                fail_fast: false,
            });
        }
        let keys = self.fields(node, &FOR_EACH)?;
        let as_name = keys.get("as").and_then(|n| self.item_name(n));
        let key = keys.get("key").and_then(|n| self.template(n, "key"));
        let max_parallel = keys.get("max_parallel").and_then(|n| self.whole(n, "max_parallel", 1, 10_000));
        let fail_fast = keys.get("fail_fast").and_then(|n| self.boolean(n, "fail_fast")).unwrap_or(false);
        let given = keys.required(self, "items");
        let items = given.map_or(ValueTemplate::Literal(Json::Null), |node| self.items(node, "items"));
        let node = given.unwrap_or(node);
        let as_name = as_name.unwrap_or_else(|| "each".to_owned());
        self.known_keys(node, &items, key.as_ref(), &as_name);
        Some(ForEach {
            items,
            items_span: node.span,
            as_name,
            key,
            max_parallel: max_parallel.and_then(|n| u32::try_from(n).ok()),
            fail_fast,
        })
    }

    /// Null where they cannot be items, so that what is said of an item is not told to be wrong as well.
    fn items(&mut self, node: &Node, name: &str) -> ValueTemplate {
        let fits = match &node.value {
            NodeValue::List(_) => true,
            NodeValue::Map(_) => name == "items",
            NodeValue::Str(text, _) => text.contains("{{"),
            _ => false,
        };
        if !fits {
            self.wrong_type(node, &format!("`{name}`"), "a list, or a template that gives one");
            return ValueTemplate::Literal(Json::Null);
        }
        self.value(node)
    }

    fn item_name(&mut self, node: &Node) -> Option<String> {
        let text = self.string(node, "as")?;
        if matches!(text, "inputs" | "secrets" | "steps" | "run" | "playbook" | "target") {
            self.wrong_value(node.span, format!("`{text}` is a name that playbooks have already"), None);
            return None;
        }
        self.name(node, "the name of an item", false).map(|name| name.value)
    }

    /// Says which keys of instances cannot be, or stand twice. Keys that only a run can tell are left to it.
    fn known_keys(&mut self, node: &Node, items: &ValueTemplate, key: Option<&Template>, as_name: &str) {
        let mut first: HashMap<String, Span> = HashMap::new();
        let of = Naming { template: key, as_name };
        let known: Vec<(String, Span)> = match (&node.value, items) {
            (NodeValue::Map(pairs), items) => {
                let keys = pairs.iter().map(|(k, _)| (k.key_text(), k.span)).enumerate();
                keys.filter_map(|(i, (k, span))| {
                    let value = items.get(&k);
                    Some((of.key(Some(&k), i, value.as_ref().and_then(ValueTemplate::literal))?, span))
                })
                .collect()
            }
            (NodeValue::List(nodes), ValueTemplate::Literal(Json::Array(values))) => {
                let all = nodes.iter().zip(values).enumerate();
                all.filter_map(|(i, (node, value))| Some((of.key(None, i, Some(value))?, node.span))).collect()
            }
            (NodeValue::List(nodes), ValueTemplate::List(values)) => {
                let all = nodes.iter().zip(values).enumerate();
                all.filter_map(|(i, (node, v))| Some((of.key(None, i, v.literal())?, node.span))).collect()
            }
            _ => return,
        };
        for (name, span) in known {
            // What a key template gives is shown where the template stands.
            let span = key.filter(|_| !instance::is_key(&name)).map_or(span, Template::span);
            let span = head(self.text, span);
            if !instance::is_key(&name) {
                let message = format!("`{}` cannot be the key of an instance", name.escape_debug());
                let diagnostic = Diagnostic::new(Code::WrongValue, message, span, "not a key");
                self.report(diagnostic.help(format!("a key is {}", instance::RULE)));
                if key.is_some() {
                    // The same template, the same mistake.
                    return;
                }
            } else if let Some(before) = first.get(&name) {
                let message = format!("two items of `for_each` have the key `{name}`");
                let diagnostic = Diagnostic::new(Code::DuplicateId, message, span, "here again");
                let help =
                    format!("give `key:` a template that tells them apart, such as \"{{{{ {as_name}.index }}}}\"");
                self.report(diagnostic.label(*before, "first here").help(help));
            } else {
                first.insert(name, span);
            }
        }
    }
}

/// How instances get their keys.
struct Naming<'a> {
    template: Option<&'a Template>,
    as_name: &'a str,
}

impl Naming<'_> {
    /// The key of an item; None = only a run can tell. `of_map` is its key in a map.
    fn key(&self, of_map: Option<&str>, index: usize, value: Option<&Json>) -> Option<String> {
        let Some(template) = self.template else {
            return of_map.map(str::to_owned).or_else(|| value.map(|value| instance::default_key(index, value)));
        };
        if let Some(literal) = template.literal() {
            return Some(literal.into_owned());
        }
        let of_item = template.references().iter().all(|r| r.path.first().is_some_and(|root| root == self.as_name));
        let value = value.filter(|_| of_item)?;
        template.render_string(&instance::context(self.as_name, of_map, index, value)).ok()
    }
}
