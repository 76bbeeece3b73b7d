//! Objects as people read them: YAML diffs for previews, values of Secrets never. Knows no server.

use runback_core::{Json, cut};
use serde_json::Value;

use super::fields;

/// The object with a digest in place of each value of a Secret. Outputs, previews and captures show nothing else.
pub(crate) fn veiled(object: &Json) -> Json {
    let mut shown = object.clone();
    if object["kind"] != "Secret" {
        return shown;
    }
    for map in ["data", "stringData"] {
        for (_, value) in shown[map].as_object_mut().into_iter().flatten() {
            *value = Value::String(veil(value.as_str().unwrap_or_default()));
        }
    }
    // kubectl keeps a copy of all it applied here, values too.
    if let Some(notes) = shown["metadata"]["annotations"].as_object_mut() {
        notes.shift_remove("kubectl.kubernetes.io/last-applied-configuration");
    }
    if shown["data"].is_null()
        && let Some(map) = shown.as_object_mut()
    {
        map.shift_remove("data");
    }
    if shown["stringData"].is_null()
        && let Some(map) = shown.as_object_mut()
    {
        map.shift_remove("stringData");
    }
    shown
}

fn veil(value: &str) -> String {
    format!("⟦{} characters, sha256 {}…⟧", value.len(), &crate::file::sha256_hex(value.as_bytes())[..12])
}

/// Whether a value stands for one of a Secret.
pub(crate) fn is_veil(value: &Json) -> bool {
    value.as_str().is_some_and(|s| s.starts_with('⟦') && s.ends_with("…⟧"))
}

fn yaml(object: &Json) -> String {
    if object.is_null() {
        return String::new();
    }
    serde_yaml::to_string(&fields::own(&veiled(object))).unwrap_or_else(|e| format!("{e}\n"))
}

/// What changes between two states of an object, line by line; Null = it is not there.
pub(crate) fn diff(label: &str, before: &Json, after: &Json) -> Vec<String> {
    crate::file::diff::unified(label, &yaml(before), &yaml(after))
}

/// A value in a message, short.
pub(crate) fn value(value: Option<&Json>) -> String {
    match value {
        None => "absent".to_owned(),
        Some(value) => cut::beginning(&value.to_string(), 80).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_secret_is_never_shown() {
        let secret = json!({ "kind": "Secret", "metadata": { "name": "s" }, "data": { "key": "aHVudGVyMg==" } });
        let shown = veiled(&secret).to_string();
        assert!(!shown.contains("aHVudGVyMg") && shown.contains("12 characters"), "{shown}");
        let lines = diff("secret/s", &Json::Null, &secret).join("\n");
        assert!(!lines.contains("aHVudGVyMg") && lines.contains("+data:"), "{lines}");
        assert!(is_veil(&veiled(&secret)["data"]["key"]) && !is_veil(&json!("x")));
    }
}
