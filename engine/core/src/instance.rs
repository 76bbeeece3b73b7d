//! What the instances of a `for_each` are called: the text between the brackets of `step[key]`. Knows neither the step
//! nor the run.

use serde_json::json;

use crate::Json;

/// What [`is_key`] wants, in words.
pub const RULE: &str = "1 to 200 characters, none of `[]/` or control characters";

/// What may stand between the brackets of `step[key]`.
pub fn is_key(text: &str) -> bool {
    !text.is_empty() && text.len() <= 200 && !text.chars().any(|c| "[]/".contains(c) || c.is_control())
}

/// The key of an item of a list without `key:`: the item itself where it can be, its `name` or `id`, else its index.
pub fn default_key(index: usize, value: &Json) -> String {
    match value {
        Json::String(s) if is_key(s) => s.clone(),
        Json::Number(n) => n.to_string(),
        Json::Object(map) => match map.get("name").or_else(|| map.get("id")) {
            Some(Json::String(s)) if is_key(s) => s.clone(),
            _ => index.to_string(),
        },
        _ => index.to_string(),
    }
}

/// What the template under `key:` sees of an item; `key` is that of a map, None for a list.
pub fn context(as_name: &str, key: Option<&str>, index: usize, value: &Json) -> Json {
    let key = key.map_or_else(|| index.to_string(), str::to_owned);
    json!({ as_name: { "key": key, "value": value, "index": index } })
}
