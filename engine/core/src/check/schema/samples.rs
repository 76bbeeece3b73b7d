//! What may stand where templates stand in a `with:` map, as far as its schema says. Judges nothing.

use super::format::Format;
use super::{Additional, CompiledSchema, Kinds, Rule, RuleId};
use crate::Json;
use crate::template::ValueTemplate;
use serde_json::json;

/// Texts that differ in what is commonly asked of texts.
const TEXTS: [&str; 10] = ["x", "/x/y", "x/y", "1", "10.0.0.1", "x.zip", "http://x.example/", "1s", "Deployment", ""];

/// Maps in lists in maps are made up so deep.
const MAX_DEPTH: u8 = 4;

impl CompiledSchema {
    /// For each template, in order: values of every kind and constant that its place takes.
    pub(in crate::check) fn samples(&self, with: &ValueTemplate) -> Vec<Vec<Json>> {
        let mut found = Vec::new();
        self.sample(&self.with_all(vec![self.root]), with, &mut found);
        found
    }

    fn sample(&self, rules: &[RuleId], value: &ValueTemplate, found: &mut Vec<Vec<Json>>) {
        let below = |of: &dyn Fn(&Rule) -> Option<RuleId>| {
            self.with_all(rules.iter().filter_map(|id| of(&self.rules[*id])).collect())
        };
        match value {
            ValueTemplate::Literal(_) => {}
            ValueTemplate::Text(template) => found.push(self.offers(rules, template.is_whole())),
            ValueTemplate::List(items) => {
                for (at, item) in items.iter().enumerate() {
                    self.sample(&below(&|rule| rule.of_item(at)), item, found);
                }
            }
            ValueTemplate::Map(entries) => {
                for (key, value) in entries {
                    self.sample(&below(&|rule| rule.of_key(key)), value, found);
                }
            }
        }
    }

    /// The rules themselves, and those that they refer to for the same value.
    fn with_all(&self, mut rules: Vec<RuleId>) -> Vec<RuleId> {
        let mut at = 0;
        while at < rules.len() {
            let rule = &self.rules[rules[at]];
            for other in rule.also.iter().chain(&rule.choice) {
                if !rules.contains(other) {
                    rules.push(*other);
                }
            }
            at += 1;
        }
        rules
    }

    fn offers(&self, rules: &[RuleId], whole: bool) -> Vec<Json> {
        let mut offers = self.values(rules, MAX_DEPTH);
        offers.retain(|value| whole || value.is_string());
        if offers.is_empty() {
            offers.push(json!("x"));
        }
        offers
    }

    /// Values that rules for one place take.
    fn values(&self, rules: &[RuleId], depth: u8) -> Vec<Json> {
        let mut values = Vec::new();
        let mut add = |value: Json| {
            if !values.contains(&value) {
                values.push(value);
            }
        };
        let plain = Rule::default();
        let asked = rules.iter().map(|id| &self.rules[*id]).filter(|r| r.also.is_empty() && r.choice.is_empty());
        for rule in asked.chain(rules.is_empty().then_some(&plain)) {
            if !rule.constants.is_empty() {
                rule.constants.iter().cloned().for_each(&mut add);
                continue;
            }
            scalars(rule, &mut add);
            if rule.own_kinds.meets(Kinds::LIST) {
                add(rule.items.map_or_else(|| json!(["x"]), |items| json!([self.one(items, depth)])));
                add(json!([]));
            }
            if rule.own_kinds.meets(Kinds::MAP) {
                add(self.map(rule, true, depth));
                add(self.map(rule, false, depth));
            }
            if rule.own_kinds.meets(Kinds::NULL) {
                add(Json::Null);
            }
        }
        values
    }

    fn one(&self, rule: RuleId, depth: u8) -> Json {
        if depth == 0 {
            return Json::Null;
        }
        self.values(&self.with_all(vec![rule]), depth - 1).into_iter().next().unwrap_or_default()
    }

    /// With what must be there, or with all that may be.
    fn map(&self, rule: &Rule, all: bool, depth: u8) -> Json {
        let mut map: serde_json::Map<String, Json> = rule
            .properties
            .iter()
            .filter(|property| all || property.required)
            .map(|property| (property.name.to_string(), self.one(property.rule, depth)))
            .collect();
        match rule.additional {
            Additional::Rule(other) if all => drop(map.insert("x".to_owned(), self.one(other, depth))),
            Additional::Any if all => drop(map.insert("x".to_owned(), json!("x"))),
            Additional::Rule(_) | Additional::Any | Additional::Deny => {}
        }
        map.into()
    }
}

fn scalars(rule: &Rule, mut add: impl FnMut(Json)) {
    let kinds = rule.own_kinds;
    if kinds.meets(Kinds::STRING) {
        let texts = texts(rule.format).iter().filter(|t| rule.pattern.as_ref().is_none_or(|p| p.allows(t)));
        texts.for_each(|text| add(json!(text)));
    }
    if kinds.meets(Kinds::NUMBER) {
        let low = rule.minimum.unwrap_or(1.0);
        let high = rule.maximum.unwrap_or(low + 1000.0);
        for number in [low, (low + 1.0).min(high), f64::midpoint(low, high).floor(), high] {
            // Bounds of whole numbers are whole numbers.
            #[expect(clippy::cast_possible_truncation, reason = "cut on purpose")]
            add(json!(number as i64));
        }
    }
    if kinds.meets(Kinds::BOOL) {
        add(json!(true));
        add(json!(false));
    }
}

fn texts(format: Option<Format>) -> &'static [&'static str] {
    match format {
        None => &TEXTS,
        Some(Format::Duration) => &["1s", "1h", "1ms", "7d"],
        Some(Format::Regex) => &["x", "(x)"],
        Some(Format::Mode) => &["0644", "0755"],
        Some(Format::Ipv4) => &["10.0.0.1", "192.0.2.7"],
        Some(Format::Ipv6) => &["::1", "2001:db8::7"],
        Some(Format::Uri) => &["http://x.example/", "https://y.example:8443/z?a=b"],
        Some(Format::Hostname) => &["x", "x.example"],
        Some(Format::Cel) => &["true"],
        Some(Format::Timezone) => &["UTC", "Europe/Berlin"],
    }
}
