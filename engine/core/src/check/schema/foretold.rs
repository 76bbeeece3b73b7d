//! Values of a `with:` map that are one template whose kind is known before it is rendered, and that can never do where
//! they stand. What may fit is left alone.

use std::borrow::Cow;

use serde_json::json;

use super::value::{Part, Path};
use super::{Additional, CompiledSchema, Kinds, RuleId, escaped};
use crate::Json;
use crate::template::{Template, ValueTemplate};

/// A template that gives what its place never takes.
#[derive(Debug)]
pub(in crate::check) struct Misplaced<'t> {
    pub(in crate::check) template: &'t Template,
    /// `headers.Accept`, `mounts[2].path`.
    pub(in crate::check) name: String,
    /// JSON pointer of its place.
    pub(in crate::check) pointer: String,
    /// "a string or a list".
    pub(in crate::check) wants: String,
    pub(in crate::check) wants_text: bool,
    /// A value of the kind that it gives.
    pub(in crate::check) is: Json,
}

impl CompiledSchema {
    /// `sample` gives a value of the kind that a template gives, where that is certain; one that is no whole number stands
    /// for all numbers.
    pub(in crate::check) fn misplaced<'t>(
        &self,
        with: &'t ValueTemplate,
        sample: &dyn Fn(&Template) -> Option<Json>,
    ) -> Vec<Misplaced<'t>> {
        let mut found = Vec::new();
        let top = Path { outer: None, part: Part::Root, span: None };
        self.foretell(self.root, with, &top, sample, &mut found);
        found
    }

    /// The inputs without those at their top that the schema does not have.
    pub(in crate::check) fn with_known_keys<'t>(&self, with: &'t ValueTemplate) -> Cow<'t, ValueTemplate> {
        let root = &self.rules[self.root];
        let known = |key: &str| root.properties.iter().any(|p| &*p.name == key);
        if !matches!(root.additional, Additional::Deny) {
            return Cow::Borrowed(with);
        }
        match with {
            ValueTemplate::Literal(Json::Object(map)) if !map.keys().all(|key| known(key)) => {
                let mut map = map.clone();
                map.retain(|key, _| known(key));
                Cow::Owned(ValueTemplate::Literal(Json::Object(map)))
            }
            ValueTemplate::Map(entries) if !entries.iter().all(|(key, _)| known(key)) => {
                Cow::Owned(ValueTemplate::Map(entries.iter().filter(|(key, _)| known(key)).cloned().collect()))
            }
            _ => Cow::Borrowed(with),
        }
    }

    /// A value of the one kind that a property can be; None where it may be of several, or is not declared.
    pub(in crate::check) fn sample_of(&self, property: &str) -> Option<Json> {
        let rule = self.rules[self.root].properties.iter().find(|p| &*p.name == property)?.rule;
        let kinds = self.rules[rule].kinds;
        let all = [json!(""), json!(0), json!(false), json!([]), json!({})];
        let mut only = all.into_iter().filter(|sample| kinds.meets(Kinds::of(sample)));
        let sample = only.next().filter(|_| only.next().is_none() && !kinds.meets(Kinds::NULL))?;
        Some(if kinds.meets(Kinds(8)) { json!(0.5) } else { sample })
    }

    fn foretell<'t>(
        &self,
        id: RuleId,
        value: &'t ValueTemplate,
        path: &Path<'_>,
        sample: &dyn Fn(&Template) -> Option<Json>,
        found: &mut Vec<Misplaced<'t>>,
    ) {
        let rule = &self.rules[id];
        let kind = match value {
            ValueTemplate::Literal(_) => return,
            ValueTemplate::Text(template) => {
                let gives = if template.is_whole() { sample(template) } else { None };
                if let Some(is) = gives.filter(|is| !rule.kinds.meets(Kinds::of(is))) {
                    let (pointer, wants) = (pointer(path), rule.kinds.tell());
                    // Two rules for one place may both say so.
                    if found.iter().all(|f| f.pointer != pointer) {
                        let wants_text = rule.kinds.meets(Kinds::STRING);
                        found.push(Misplaced { template, name: path.tell(), pointer, wants, wants_text, is });
                    }
                }
                return;
            }
            ValueTemplate::List(items) => {
                for (at, item) in items.iter().enumerate() {
                    if let Some(of_item) = rule.of_item(at) {
                        let inner = Path { outer: Some(path), part: Part::Index(at), span: None };
                        self.foretell(of_item, item, &inner, sample, found);
                    }
                }
                Kinds::LIST
            }
            ValueTemplate::Map(entries) => {
                for (key, value) in entries.iter().filter(|(_, value)| !value.is_literal()) {
                    if let Some(below) = rule.of_key(key) {
                        let inner = Path { outer: Some(path), part: Part::Key(key), span: None };
                        self.foretell(below, value, &inner, sample, found);
                    }
                }
                Kinds::MAP
            }
        };
        for other in &rule.also {
            self.foretell(*other, value, path, sample, found);
        }
        // Of several that fit nobody knows yet which one it is.
        let mut fitting = rule.choice.iter().filter(|id| self.rules[**id].kinds.meets(kind));
        if let (Some(only), None) = (fitting.next(), fitting.next()) {
            self.foretell(*only, value, path, sample, found);
        }
    }
}

fn pointer(path: &Path<'_>) -> String {
    let outer = path.outer.map(pointer).unwrap_or_default();
    match path.part {
        Part::Root => outer,
        Part::Key(key) => format!("{outer}/{}", escaped(key)),
        Part::Index(at) => format!("{outer}/{at}"),
    }
}
