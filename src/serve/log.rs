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

/// `fields` must be an object; its keys stand beside `at`, `level` and `message`.
pub(crate) fn line(level: Level, message: &str, fields: Json) {
    let level = match level {
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    };
    let mut all = json!({ "at": jiff::Timestamp::now().to_string(), "level": level, "message": message });
    if let (Some(all), Json::Object(fields)) = (all.as_object_mut(), fields) {
        all.extend(fields);
    }
    term::note(&all.to_string());
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
