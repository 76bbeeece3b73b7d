//! Trees of values in which any string may be a template.

use super::{RenderError, Template};
use crate::Json;
use crate::diagnostic::{Code, Diagnostic};
use crate::playbook::yaml::{Node, NodeValue};
use crate::template::Reference;

/// A tree of values in which any string may be a template. Subtrees without templates are one `Literal`.
#[derive(Debug, Clone)]
pub enum ValueTemplate {
    Literal(Json),
    Text(Template),
    List(Vec<ValueTemplate>),
    Map(Vec<(String, ValueTemplate)>),
}

impl ValueTemplate {
    /// Compiles every string under a node. Collects all errors.
    pub fn compile(file_text: &str, node: &Node) -> Result<Self, Vec<Diagnostic>> {
        let (value, errors) = Self::compile_all(file_text, node);
        if errors.is_empty() { Ok(value) } else { Err(errors) }
    }

    /// As [`Self::compile`], with what can be read in spite of errors: a broken template stands for its own text.
    pub fn compile_all(file_text: &str, node: &Node) -> (Self, Vec<Diagnostic>) {
        let mut errors = Vec::new();
        let value = compile(file_text, node, &mut errors);
        (value, errors)
    }

    pub fn is_literal(&self) -> bool {
        matches!(self, ValueTemplate::Literal(_))
    }

    pub fn literal(&self) -> Option<&Json> {
        match self {
            ValueTemplate::Literal(json) => Some(json),
            _ => None,
        }
    }

    /// The value under a key of a map.
    pub fn get(&self, key: &str) -> Option<ValueTemplate> {
        match self {
            ValueTemplate::Literal(json) => json.get(key).cloned().map(ValueTemplate::Literal),
            ValueTemplate::Map(map) => map.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone()),
            ValueTemplate::Text(_) | ValueTemplate::List(_) => None,
        }
    }

    /// Every template in it, in order.
    pub fn for_each_template(&self, visit: &mut dyn FnMut(&Template)) {
        match self {
            ValueTemplate::Literal(_) => {}
            ValueTemplate::Text(template) => visit(template),
            ValueTemplate::List(list) => list.iter().for_each(|v| v.for_each_template(visit)),
            ValueTemplate::Map(map) => map.iter().for_each(|(_, v)| v.for_each_template(visit)),
        }
    }

    /// Every reference in it, in order.
    pub fn for_each_reference(&self, visit: &mut dyn FnMut(&Reference)) {
        self.for_each_template(&mut |template| template.references().iter().for_each(&mut *visit));
    }

    pub fn render(&self, context: &Json) -> Result<Json, RenderError> {
        match self {
            ValueTemplate::Literal(json) => Ok(json.clone()),
            ValueTemplate::Text(template) => template.render(context),
            ValueTemplate::List(list) => list.iter().map(|v| v.render(context)).collect(),
            ValueTemplate::Map(map) => {
                let mut made = serde_json::Map::with_capacity(map.len());
                for (key, value) in map {
                    made.insert(key.clone(), value.render(context)?);
                }
                Ok(Json::Object(made))
            }
        }
    }
}

fn compile(file_text: &str, node: &Node, errors: &mut Vec<Diagnostic>) -> ValueTemplate {
    match &node.value {
        NodeValue::Str(text, _) => text_value(file_text, node, text, errors),
        NodeValue::List(items) => {
            let items: Vec<_> = items.iter().map(|item| compile(file_text, item, errors)).collect();
            if items.iter().all(ValueTemplate::is_literal) {
                return ValueTemplate::Literal(items.into_iter().filter_map(into_literal).collect());
            }
            ValueTemplate::List(items)
        }
        NodeValue::Map(entries) => {
            let entries: Vec<_> =
                entries.iter().map(|(key, value)| (key_text(key, errors), compile(file_text, value, errors))).collect();
            if entries.iter().all(|(_, v)| v.is_literal()) {
                let literal = entries.into_iter().filter_map(|(k, v)| Some((k, into_literal(v)?)));
                return ValueTemplate::Literal(Json::Object(literal.collect()));
            }
            ValueTemplate::Map(entries)
        }
        _ => ValueTemplate::Literal(scalar(node)),
    }
}

/// A scalar's JSON value; a template counts as its text.
pub(crate) fn scalar(node: &Node) -> Json {
    match &node.value {
        NodeValue::Bool(b) => (*b).into(),
        NodeValue::Int(i) => (*i).into(),
        NodeValue::UInt(u) => (*u).into(),
        NodeValue::Float(f) => (*f).into(),
        NodeValue::Str(s, _) => s.as_ref().into(),
        NodeValue::Null | NodeValue::List(_) | NodeValue::Map(_) => Json::Null,
    }
}

/// What looking at all of a value, or copying it, costs: its parts, and its text by the 64 bytes.
pub(crate) fn weight(json: &Json) -> usize {
    match json {
        Json::String(s) => 1 + s.len() / 64,
        Json::Array(list) => 1 + list.iter().map(weight).sum::<usize>(),
        Json::Object(map) => 1 + map.values().map(weight).sum::<usize>(),
        Json::Null | Json::Bool(_) | Json::Number(_) => 1,
    }
}

fn text_value(file_text: &str, node: &Node, text: &str, errors: &mut Vec<Diagnostic>) -> ValueTemplate {
    if !text.contains("{{") {
        return ValueTemplate::Literal(text.into());
    }
    match Template::parse(file_text, node) {
        Ok(template) => match template.literal() {
            Some(text) => ValueTemplate::Literal(text.into()),
            None => ValueTemplate::Text(template),
        },
        Err(found) => {
            errors.extend(found);
            ValueTemplate::Literal(text.into())
        }
    }
}

fn into_literal(value: ValueTemplate) -> Option<Json> {
    match value {
        ValueTemplate::Literal(json) => Some(json),
        _ => None,
    }
}

/// Keys are text as it stands. YAML allows other scalars as keys; JSON does not, so they count as written.
fn key_text(key: &Node, errors: &mut Vec<Diagnostic>) -> String {
    match &key.value {
        NodeValue::Str(text, _) => {
            if text.contains("{{") {
                errors.push(
                    Diagnostic::new(
                        Code::TemplateSyntax,
                        "a key cannot be a template",
                        key.span,
                        "keys stand as they are written",
                    )
                    .help("put the template into the value"),
                );
            }
            text.to_string()
        }
        NodeValue::List(_) | NodeValue::Map(_) => {
            errors.push(Diagnostic::new(
                Code::TemplateSyntax,
                "a key must be text",
                key.span,
                format!("this is {}", key.kind()),
            ));
            String::new()
        }
        _ => match scalar(key) {
            Json::Null => "null".to_owned(),
            other => other.to_string(),
        },
    }
}
