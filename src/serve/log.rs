//! What the server says of itself: one JSON object per line on stderr. The journal is elsewhere, and is the truth.

use runback_core::Json;
use serde_json::json;

use crate::term;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Info,
    Warn,
    Error,
}

pub(crate) fn line(level: Level, message: &str, fields: Json) {
    term::note(&object(level, message, fields).to_string());
}

/// `fields` must be an object; its keys stand beside `at`, `level` and `message`, and take the place of none of them.
fn object(level: Level, message: &str, fields: Json) -> Json {
    let level = match level {
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    };
    let mut all = json!({ "at": jiff::Timestamp::now().to_string(), "level": level, "message": message });
    if let (Some(all), Json::Object(fields)) = (all.as_object_mut(), fields) {
        for (name, value) in fields {
            let name = if all.contains_key(&name) { format!("{name}_") } else { name };
            all.insert(name, value);
        }
    }
    all
}

pub(crate) fn info(message: &str, fields: Json) {
    line(Level::Info, message, fields);
}

pub(crate) fn warn(message: &str, fields: Json) {
    line(Level::Warn, message, fields);
}

pub(crate) fn error(message: &str, fields: Json) {
    line(Level::Error, message, fields);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_field_takes_the_place_of_what_each_line_has() {
        let line = object(Level::Warn, "late", json!({ "at": 7, "run": "r" }));
        assert!(line["at"].as_str().is_some_and(|at| at.parse::<jiff::Timestamp>().is_ok()), "{line}");
        assert_eq!((&line["at_"], &line["run"], &line["level"]), (&json!(7), &json!("r"), &json!("warn")));
    }
}
