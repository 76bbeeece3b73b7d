//! Looks at what a server answered: text, regular expressions, JSON paths, headers. Sends nothing.

use std::collections::BTreeMap;

use regex::Regex;
use reqwest::header::HeaderMap;
use runback_core::step::InputProblem;
use runback_core::{Json, cut};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::json_path::{JsonPath, same};

/// What the body must hold. All that is given must be so.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BodyChecks {
    /// A text that must stand in it.
    #[serde(default)]
    pub(crate) contains: Option<String>,
    /// A regular expression that must match somewhere in it. `^` and `$` are the ends of the body; start with `(?m)`
    /// to make them the ends of a line.
    #[serde(default)]
    #[schemars(extend("format" = "regex"))]
    pub(crate) regex: Option<String>,
    /// JSON path → the value that must stand there. Where a path finds several values, each must be it.
    #[serde(default)]
    pub(crate) json: BTreeMap<String, Json>,
}

impl BodyChecks {
    pub(crate) fn is_empty(&self) -> bool {
        self.contains.is_none() && self.regex.is_none() && self.json.is_empty()
    }

    pub(crate) fn problems(&self) -> Vec<InputProblem> {
        let mut found = Vec::new();
        if let Some(Err(e)) = self.regex.as_deref().map(compile) {
            found.push(problem(&["body", "regex"], e));
        }
        for path in self.json.keys() {
            if let Err(e) = JsonPath::parse(path) {
                found.push(problem(&["body", "json", path], e));
            }
        }
        found
    }

    /// Says of each check that does not hold what was wanted and what is there. `Err` = a check that cannot be read.
    pub(crate) fn mismatches(&self, body: &[u8]) -> Result<Vec<String>, String> {
        let text = String::from_utf8_lossy(body);
        let mut found = Vec::new();
        if let Some(wanted) = &self.contains
            && !text.contains(wanted.as_str())
        {
            found.push(format!("the body does not contain `{wanted}`: {}", excerpt(&text)));
        }
        if let Some(wanted) = &self.regex
            && !compile(wanted)?.is_match(&text)
        {
            found.push(format!("the body does not match /{wanted}/: {}", excerpt(&text)));
        }
        if self.json.is_empty() {
            return Ok(found);
        }
        let Ok(json) = serde_json::from_slice::<Json>(body) else {
            found.push(format!("the body is not JSON: {}", excerpt(&text)));
            return Ok(found);
        };
        for (path, wanted) in &self.json {
            let values = JsonPath::parse(path)?.find(&json);
            match values.iter().find(|v| !same(v, wanted)) {
                Some(other) => found.push(format!("{path} is {}, wanted {wanted}", excerpt(&other.to_string()))),
                None if values.is_empty() => found.push(format!("{path} is not in the body, wanted {wanted}")),
                None => {}
            }
        }
        Ok(found)
    }
}

/// Where to take a value of a response from; exactly one of the three.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Extract {
    /// A JSON path. One value found is taken as it is, several as a list.
    #[serde(default)]
    pub(crate) json: Option<String>,
    /// A regular expression; its first group, or the whole match where it has none.
    #[serde(default)]
    #[schemars(extend("format" = "regex"))]
    pub(crate) regex: Option<String>,
    /// The name of a header.
    #[serde(default)]
    pub(crate) header: Option<String>,
}

impl Extract {
    pub(crate) fn problem(&self, name: &str) -> Option<InputProblem> {
        let given = [self.json.is_some(), self.regex.is_some(), self.header.is_some()];
        if given.iter().filter(|g| **g).count() != 1 {
            return Some(problem(&["extract", name], "give exactly one of `json`, `regex` and `header`".to_owned()));
        }
        let wrong = self.json.as_deref().and_then(|p| JsonPath::parse(p).err()).map(|e| ("json", e));
        let wrong = wrong.or_else(|| self.regex.as_deref().and_then(|r| compile(r).err()).map(|e| ("regex", e)));
        wrong.map(|(key, e)| problem(&["extract", name, key], e))
    }

    pub(crate) fn value(&self, headers: &HeaderMap, body: &str, json: Option<&Json>) -> Result<Json, String> {
        if let Some(path) = &self.json {
            let Some(json) = json else { return Err(format!("the body is not JSON: {}", excerpt(body))) };
            let mut values = JsonPath::parse(path)?.find(json);
            return match values.len() {
                0 => Err(format!("{path} is not in the body: {}", excerpt(body))),
                1 => Ok(values.remove(0).clone()),
                _ => Ok(values.into_iter().cloned().collect()),
            };
        }
        if let Some(regex) = &self.regex {
            let compiled = compile(regex)?;
            let found = compiled.captures(body).and_then(|c| c.get(1).or_else(|| c.get(0)));
            return match found {
                Some(found) => Ok(found.as_str().into()),
                None => Err(format!("the body does not match /{regex}/: {}", excerpt(body))),
            };
        }
        let name = self.header.as_deref().unwrap_or_default();
        let value = headers.get(name).map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
        value.map(Json::from).ok_or_else(|| format!("the response has no header `{name}`"))
    }
}

pub(crate) fn compile(regex: &str) -> Result<Regex, String> {
    Regex::new(regex).map_err(|e| {
        let why = e.to_string();
        let last = why.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        format!("`{regex}` is not a regular expression: {last}")
    })
}

pub(crate) fn problem(path: &[&str], message: String) -> InputProblem {
    InputProblem { path: path.iter().map(|p| (*p).to_owned()).collect(), message, help: None }
}

/// The beginning of a text, on one line, for a message.
pub(crate) fn excerpt(text: &str) -> String {
    const LIMIT: usize = 160;
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LIMIT + 1).collect();
    let clean = clean.trim();
    if clean.is_empty() {
        return "it is empty".to_owned();
    }
    cut::beginning(clean, LIMIT).into_owned()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    fn checks(json: Json) -> BodyChecks {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn every_mismatch_is_named() {
        let c = checks(json!({
            "contains": "UP", "regex": "^ok", "json": { "$.status": "up", "$.nodes[*].n": 1, "$.gone": true }
        }));
        let body = br#"{"status":"down","nodes":[{"n":1.0},{"n":2}]}"#;
        let got = c.mismatches(body).unwrap();
        assert_eq!(got.len(), 5, "{got:#?}");
        assert!(got[0].starts_with("the body does not contain `UP`: {\"status\""), "{}", got[0]);
        assert_eq!(got[3], "$.nodes[*].n is 2, wanted 1");
        assert_eq!(got[2], "$.gone is not in the body, wanted true");
        assert_eq!(got[4], "$.status is \"down\", wanted \"up\"");
    }

    #[test]
    fn what_holds_says_nothing() {
        let c = checks(json!({ "contains": "up", "regex": "(?m)^b$", "json": {} }));
        assert_eq!(c.mismatches(b"up\nb\n").unwrap(), Vec::<String>::new());
        let c = checks(json!({ "json": { "$.n": 3 } }));
        assert_eq!(c.mismatches(b"{\"n\":3.0}").unwrap(), Vec::<String>::new());
        assert_eq!(c.mismatches(b"").unwrap(), ["the body is not JSON: it is empty"]);
    }

    #[test]
    fn extracts_from_each_source() {
        let mut headers = HeaderMap::new();
        headers.insert("location", "/jobs/7".parse().unwrap());
        let body = r#"{"id":7,"tags":["a","b"]}"#;
        let json: Json = serde_json::from_str(body).unwrap();
        let take = |e: Json| serde_json::from_value::<Extract>(e).unwrap().value(&headers, body, Some(&json));
        assert_eq!(take(json!({ "json": "$.id" })), Ok(json!(7)));
        assert_eq!(take(json!({ "json": "$.tags[*]" })), Ok(json!(["a", "b"])));
        assert_eq!(take(json!({ "regex": "\"id\":(\\d+)" })), Ok(json!("7")));
        assert_eq!(take(json!({ "header": "Location" })), Ok(json!("/jobs/7")));
        assert_eq!(take(json!({ "header": "X-None" })), Err("the response has no header `X-None`".to_owned()));
        assert!(take(json!({ "json": "$.none" })).unwrap_err().starts_with("$.none is not in the body"));
    }

    #[test]
    fn excerpts_are_one_short_line() {
        assert_eq!(excerpt("a\r\nb"), "a  b");
        assert_eq!(excerpt(&"ä".repeat(500)).chars().count(), 161);
        assert_eq!(excerpt(" \n"), "it is empty");
    }
}
