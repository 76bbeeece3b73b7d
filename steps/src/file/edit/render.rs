//! Values as YAML or JSON text, to be put into a file that is there. Knows nothing of where they go.

use runback_core::Json;
use runback_core::playbook::yaml::{self, NodeValue};
use runback_core::span::SourceId;

/// What a text is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Language {
    Yaml,
    Json,
}

/// On one line.
pub(super) fn inline(value: &Json, language: Language) -> String {
    match (language, value) {
        (Language::Yaml, Json::String(text)) => yaml_text(text),
        (Language::Yaml, Json::Array(list)) => {
            format!("[{}]", list.iter().map(|v| inline(v, language)).collect::<Vec<_>>().join(", "))
        }
        (Language::Yaml, Json::Object(map)) => {
            let one = |(k, v): (&String, &Json)| format!("{}: {}", yaml_text(k), inline(v, language));
            format!("{{{}}}", map.iter().map(one).collect::<Vec<_>>().join(", "))
        }
        _ => value.to_string(),
    }
}

/// A text in the quotes of the one that it replaces.
pub(super) fn like(old: &str, text: &str, language: Language) -> String {
    let single = !text.contains(|c: char| c.is_control());
    match (language, old.as_bytes().first()) {
        (Language::Json, _) | (_, Some(b'"')) => Json::from(text).to_string(),
        (Language::Yaml, Some(b'\'')) if single => format!("'{}'", text.replace('\'', "''")),
        (Language::Yaml, _) => yaml_text(text),
    }
}

/// Plain where every YAML reader, the 1.1 ones too, takes it for this text; else in double quotes.
pub(super) fn yaml_text(text: &str) -> String {
    const WORDS: [&str; 11] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "~", "<<"];
    let word = WORDS.contains(&text.to_ascii_lowercase().as_str());
    // 1.1 reads 22:22 as a number, and 2026-01-01 as a date.
    let number = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) && !text.contains('/');
    let reads_back = || {
        let probe = format!("[{text}, {text}: x]");
        let Ok(node) = yaml::parse(SourceId(0), &probe) else { return false };
        let same = |v: &NodeValue| matches!(v, NodeValue::Str(s, yaml::Style::Plain) if **s == *text);
        match node.as_list() {
            Some([first, second]) => same(&first.value) && second.as_map().is_some_and(|m| same(&m[0].0.value)),
            _ => false,
        }
    };
    if word || number || !reads_back() { Json::from(text).to_string() } else { text.to_owned() }
}

/// In block style, one entry per line, the first line without its indent.
pub(super) fn block(value: &Json, indent: usize) -> String {
    let pad = " ".repeat(indent);
    let lines: Vec<String> = match value {
        Json::Object(map) if !map.is_empty() => {
            map.iter().map(|(k, v)| format!("{}:{}", yaml_text(k), under_key(v, indent))).collect()
        }
        Json::Array(list) if !list.is_empty() => list.iter().map(|v| format!("- {}", block(v, indent + 2))).collect(),
        _ => vec![inline(value, Language::Yaml)],
    };
    lines.join(&format!("\n{pad}"))
}

/// What comes after `key:`, where the key is indented by `indent`.
pub(super) fn under_key(value: &Json, indent: usize) -> String {
    let nested = match value {
        Json::Object(map) => !map.is_empty(),
        Json::Array(list) => !list.is_empty(),
        _ => false,
    };
    if nested {
        format!("\n{}{}", " ".repeat(indent + 2), block(value, indent + 2))
    } else {
        format!(" {}", inline(value, Language::Yaml))
    }
}

/// JSON over several lines, the first without its indent.
pub(super) fn json_lines(value: &Json, indent: &str) -> String {
    let text = serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string());
    text.replace('\n', &format!("\n{indent}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn texts_are_quoted_where_a_reader_would_take_them_for_something_else() {
        let plain = ["mysql", "/data/registry:/storage:z", "vmware/nginx:1.11.5-patched", "a b", "x=1", "$ui_url"];
        for text in plain {
            assert_eq!(yaml_text(text), text);
        }
        for text in
            ["8070:80", "22:22", "no", "Yes", "1.5", "", "a: b", "a #b", "- x", "[x", "{{x}}", "*a", "a\nb", "~", " a"]
        {
            assert_eq!(yaml_text(text), Json::from(text).to_string());
        }
    }

    #[test]
    fn nested_values_are_written_in_block_style() {
        let value = json!({"a": [1, {"b": "x", "c": []}], "d": {"e": null}});
        assert_eq!(block(&value, 2), "a:\n    - 1\n    - b: x\n      c: []\n  d:\n    e: null");
    }
}
