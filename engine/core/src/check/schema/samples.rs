//! What may stand where templates stand in a `with:` map, as far as its schema says. Judges nothing.

use super::format::Format;
use super::{CompiledSchema, Kinds, Rule, RuleId};
use crate::Json;
use crate::template::ValueTemplate;
use serde_json::json;

/// Texts that differ in what is commonly asked of texts.
const TEXTS: [&str; 10] = ["x", "/x/y", "x/y", "1", "10.0.0.1", "x.zip", "http://x.example/", "1s", "Deployment", ""];

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
        let mut offers = Vec::new();
        let mut asked = rules.iter().map(|id| &self.rules[*id]).filter(|r| r.also.is_empty() && r.choice.is_empty());
        let plain = Rule::default();
        if rules.is_empty() {
            offer(&plain, &mut offers);
        } else {
            asked.by_ref().for_each(|rule| offer(rule, &mut offers));
        }
        offers.retain(|value| whole || value.is_string());
        if offers.is_empty() {
            offers.push(json!("x"));
        }
        offers
    }
}

fn offer(rule: &Rule, offers: &mut Vec<Json>) {
    let mut add = |value: Json| {
        if !offers.contains(&value) {
            offers.push(value);
        }
    };
    if !rule.constants.is_empty() {
        return rule.constants.iter().cloned().for_each(add);
    }
    let kinds = rule.own_kinds;
    if kinds.meets(Kinds::STRING) {
        let texts = texts(rule.format).iter().filter(|t| rule.pattern.as_ref().is_none_or(|p| p.is_match(t)));
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
    for (kind, values) in [
        (Kinds::BOOL, &[json!(true), json!(false)][..]),
        (Kinds::LIST, &[json!(["x"]), json!([])]),
        (Kinds::MAP, &[json!({ "x": "x" }), json!({})]),
        (Kinds::NULL, &[Json::Null]),
    ] {
        if kinds.meets(kind) {
            values.iter().cloned().for_each(&mut add);
        }
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
