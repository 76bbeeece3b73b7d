//! JSON Schema to rules. References become indexes, so recursive types need no care later.

use std::collections::HashMap;

use super::format::Format;
use super::pattern::Pattern;
use super::{Additional, CompiledSchema, Kinds, Property, Rule, RuleId};
use crate::Json;

type Object = serde_json::Map<String, Json>;

pub(super) fn compile(schema: &Json) -> CompiledSchema {
    let mut compiler = Compiler { whole: schema, rules: Vec::new(), references: HashMap::new() };
    let root = compiler.rule(schema);
    let mut rules = compiler.rules;
    let mut seen = vec![Seen::Not; rules.len()];
    for id in 0..rules.len() {
        break_circles(&mut rules, id, &mut seen);
    }
    narrow(&mut rules);
    CompiledSchema { rules, root }
}

struct Compiler<'s> {
    whole: &'s Json,
    rules: Vec<Rule>,
    references: HashMap<&'s str, RuleId>,
}

impl<'s> Compiler<'s> {
    fn rule(&mut self, schema: &'s Json) -> RuleId {
        let id = self.rules.len();
        self.rules.push(Rule::default());
        self.fill(id, schema);
        id
    }

    fn fill(&mut self, id: RuleId, schema: &'s Json) {
        let rule = match schema {
            Json::Object(object) => self.object(object),
            Json::Bool(false) => Rule { own_kinds: Kinds::NONE, ..Rule::default() },
            _ => Rule::default(),
        };
        self.rules[id] = rule;
    }

    fn all(&mut self, schemas: Option<&'s Json>) -> Vec<RuleId> {
        schemas.and_then(Json::as_array).into_iter().flatten().map(|s| self.rule(s)).collect()
    }

    fn object(&mut self, object: &'s Object) -> Rule {
        let mut rule = Rule { own_kinds: kinds(object.get("type")), ..Rule::default() };
        rule.constants = object.get("enum").and_then(Json::as_array).cloned().unwrap_or_default();
        rule.constants.extend(object.get("const").cloned());
        rule.pattern = text(object, "pattern").map(Pattern::new);
        if let Some(format) = text(object, "format") {
            rule.format = Format::named(format);
            if let Some((low, high)) = integer_format(format) {
                rule.minimum = Some(low);
                rule.maximum = Some(high);
            }
        }
        bounds(object, &mut rule);
        rule.also = self.all(object.get("allOf"));
        if let Some(reference) = text(object, "$ref") {
            rule.also.extend(self.reference(reference));
        }
        rule.choice = self.all(object.get("anyOf"));
        rule.choice.extend(self.all(object.get("oneOf")));
        rule.items = object.get("items").map(|items| self.rule(items));
        rule.prefix = self.all(object.get("prefixItems"));
        rule.additional = match object.get("additionalProperties") {
            None | Some(Json::Bool(true)) => Additional::Any,
            Some(Json::Bool(false)) => Additional::Deny,
            Some(schema) => Additional::Rule(self.rule(schema)),
        };
        let required: Vec<&str> =
            object.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str).collect();
        for (name, schema) in object.get("properties").and_then(Json::as_object).into_iter().flatten() {
            let doc = schema.get("description").and_then(Json::as_str).map(first_sentence);
            let property = Property {
                name: name.as_str().into(),
                rule: self.rule(schema),
                required: required.contains(&name.as_str()),
                doc,
            };
            rule.properties.push(property);
        }
        rule
    }

    fn reference(&mut self, reference: &'s str) -> Option<RuleId> {
        if let Some(id) = self.references.get(reference) {
            return Some(*id);
        }
        let target = self.whole.pointer(reference.strip_prefix('#')?)?;
        let id = self.rules.len();
        self.rules.push(Rule::default());
        self.references.insert(reference, id);
        self.fill(id, target);
        Some(id)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Not,
    /// On the way down.
    Above,
    Done,
}

/// A rule that asks for itself on the same value asks nothing: such references are taken out, so that checking a
/// value ends. References from a map or list to its parts may go in circles.
fn break_circles(rules: &mut [Rule], id: RuleId, seen: &mut [Seen]) {
    if seen[id] != Seen::Not {
        return;
    }
    seen[id] = Seen::Above;
    let same_value: Vec<RuleId> = rules[id].also.iter().chain(&rules[id].choice).copied().collect();
    for other in same_value {
        break_circles(rules, other, seen);
        if seen[other] == Seen::Above {
            rules[id].also.retain(|o| *o != other);
            rules[id].choice.retain(|o| *o != other);
        }
    }
    seen[id] = Seen::Done;
}

/// Works out what each rule allows together with those that it refers to. Rules may refer to each other in
/// circles, so it goes round until nothing changes; each round only ever takes kinds away.
fn narrow(rules: &mut [Rule]) {
    for rule in rules.iter_mut() {
        rule.kinds = rule.own_kinds;
        if !rule.constants.is_empty() {
            let of_constants = rule.constants.iter().fold(Kinds::NONE, |k, c| k.or(Kinds::of(c)));
            rule.kinds = rule.kinds.and(of_constants);
        }
    }
    let mut changed = true;
    while changed {
        changed = false;
        for id in 0..rules.len() {
            let rule = &rules[id];
            let mut kinds = rule.also.iter().fold(rule.kinds, |k, other| k.and(rules[*other].kinds));
            if !rule.choice.is_empty() {
                kinds = kinds.and(rule.choice.iter().fold(Kinds::NONE, |k, other| k.or(rules[*other].kinds)));
            }
            changed |= kinds != rule.kinds;
            rules[id].kinds = kinds;
        }
    }
}

fn text<'s>(object: &'s Object, key: &str) -> Option<&'s str> {
    object.get(key).and_then(Json::as_str)
}

fn first_sentence(text: &str) -> Box<str> {
    let line = text.lines().next().unwrap_or("");
    let end = line.find(". ").unwrap_or(line.len());
    line[..end].trim_end_matches('.').into()
}

fn kinds(types: Option<&Json>) -> Kinds {
    let one = |name: &str| match name {
        "null" => Kinds::NULL,
        "boolean" => Kinds::BOOL,
        "integer" => Kinds::INTEGER,
        "number" => Kinds::NUMBER,
        "string" => Kinds::STRING,
        "array" => Kinds::LIST,
        "object" => Kinds::MAP,
        _ => Kinds::ALL,
    };
    match types {
        Some(Json::String(name)) => one(name),
        Some(Json::Array(names)) => names.iter().filter_map(Json::as_str).fold(Kinds::NONE, |k, n| k.or(one(n))),
        _ => Kinds::ALL,
    }
}

/// The range of Rust's whole numbers, which schemars leaves to the format for the wide ones.
fn integer_format(format: &str) -> Option<(f64, f64)> {
    Some(match format {
        "int8" => (f64::from(i8::MIN), f64::from(i8::MAX)),
        "int16" => (f64::from(i16::MIN), f64::from(i16::MAX)),
        "int32" => (f64::from(i32::MIN), f64::from(i32::MAX)),
        "uint8" => (0.0, f64::from(u8::MAX)),
        "uint16" => (0.0, f64::from(u16::MAX)),
        "uint32" => (0.0, f64::from(u32::MAX)),
        _ => return None,
    })
}

fn bounds(object: &Object, rule: &mut Rule) {
    let number = |key: &str| object.get(key).and_then(Json::as_f64);
    let tighter = |old: Option<f64>, new: Option<f64>, pick: fn(f64, f64) -> f64| match (old, new) {
        (Some(old), Some(new)) => Some(pick(old, new)),
        (old, new) => old.or(new),
    };
    rule.minimum = tighter(rule.minimum, number("minimum"), f64::max);
    rule.maximum = tighter(rule.maximum, number("maximum"), f64::min);
    if let Some(bound) = number("exclusiveMinimum") {
        rule.minimum = Some(bound);
        rule.exclusive.0 = true;
    }
    if let Some(bound) = number("exclusiveMaximum") {
        rule.maximum = Some(bound);
        rule.exclusive.1 = true;
    }
    let size = |key: &str, otherwise: usize| {
        object.get(key).and_then(Json::as_u64).and_then(|n| usize::try_from(n).ok()).unwrap_or(otherwise)
    };
    rule.length = (size("minLength", 0), size("maxLength", usize::MAX));
    rule.count = (size("minItems", 0), size("maxItems", usize::MAX));
    rule.entries = (size("minProperties", 0), size("maxProperties", usize::MAX));
}
