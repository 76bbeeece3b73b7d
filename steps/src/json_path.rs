//! Looking into JSON: JSONPath (RFC 9535) where the text begins with `$`, such as `$.items[*].name`, else a path to one
//! value as the outputs of scripts have it (`items[0].name`, `/items/0/name`). Knows not where the JSON came from.

use jsonpath_rust::parser::model::JpQuery;
use jsonpath_rust::parser::parse_json_path;
use jsonpath_rust::query::js_path_process;
use runback_core::Json;

use crate::value_path::ValuePath;

/// A parsed path.
#[derive(Debug, Clone)]
pub(crate) enum JsonPath {
    Query(JpQuery),
    One(ValuePath),
}

impl JsonPath {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if !text.starts_with('$') {
            return ValuePath::parse(text).map(Self::One);
        }
        parse_json_path(text).map(Self::Query).map_err(|e| {
            let why = e.to_string();
            let why = why.lines().last().map(|l| l.trim_start_matches([' ', '=']).to_owned()).unwrap_or_default();
            format!("`{text}` is not a JSON path ({why}); write it like $.items[0].name")
        })
    }

    /// All values found, in order.
    pub(crate) fn find<'a>(&self, json: &'a Json) -> Vec<&'a Json> {
        match self {
            Self::One(path) => path.get(json).into_iter().collect(),
            Self::Query(query) => {
                // The only error of evaluation is a function on the wrong kind of value: nothing is found then.
                let found = js_path_process(query, json).unwrap_or_default();
                found.into_iter().map(jsonpath_rust::query::QueryRef::val).collect()
            }
        }
    }
}

/// Equality as people mean it: `1` and `1.0` are the same number.
pub(crate) fn same(a: &Json, b: &Json) -> bool {
    match (a, b) {
        (Json::Number(x), Json::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        (Json::Array(x), Json::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(x, y)),
        (Json::Object(x), Json::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(k, v)| y.get(k).is_some_and(|w| same(v, w)))
        }
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    #[test]
    fn finds_values() {
        let json = json!({ "items": [{ "name": "a", "up": true }, { "name": "b" }] });
        let find = |p: &str| JsonPath::parse(p).unwrap().find(&json).into_iter().cloned().collect::<Vec<_>>();
        assert_eq!(find("$.items[1].name"), [json!("b")]);
        assert_eq!(find("$.items[*].name"), [json!("a"), json!("b")]);
        assert_eq!(find("$.items[?@.up == true].name"), [json!("a")]);
        assert_eq!(find("items[1].name"), [json!("b")]);
        assert_eq!(find("/items/1/name"), [json!("b")]);
        assert_eq!(find("$.nothing"), Vec::<Json>::new());
    }

    #[test]
    fn says_what_is_wrong_with_a_path() {
        let error = JsonPath::parse("$items[").unwrap_err();
        assert!(error.starts_with("`$items[` is not a JSON path ("), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }

    #[test]
    fn numbers_are_compared_by_value() {
        assert!(same(&json!({ "n": [1] }), &json!({ "n": [1.0] })));
        assert!(!same(&json!(1), &json!("1")));
        assert!(!same(&json!({ "a": 1 }), &json!({ "b": 1 })));
    }
}
