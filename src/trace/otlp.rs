//! The wire form: OTLP 1.x as JSON, as far as spans need it. Ids are hexadecimal, 64-bit numbers are strings.

use serde::Serialize;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ExportRequest<'a> {
    pub(super) resource_spans: [ResourceSpans<'a>; 1],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ResourceSpans<'a> {
    pub(super) resource: &'a Resource,
    pub(super) scope_spans: [ScopeSpans<'a>; 1],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ScopeSpans<'a> {
    scope: Scope,
    spans: &'a [Span],
}

#[derive(Debug, Serialize)]
struct Scope {
    name: &'static str,
    version: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct Resource {
    attributes: Vec<KeyValue>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Span {
    #[serde(rename = "traceId")]
    trace: String,
    #[serde(rename = "spanId")]
    id: String,
    /// Empty = it is a root.
    #[serde(rename = "parentSpanId", skip_serializing_if = "String::is_empty")]
    pub(super) parent: String,
    pub(super) name: String,
    kind: u8,
    start_time_unix_nano: String,
    end_time_unix_nano: String,
    pub(super) attributes: Vec<KeyValue>,
    pub(super) status: Status,
}

/// Left at zero where nothing went wrong, as the specification wants it.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Status {
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
    code: u8,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct KeyValue {
    key: String,
    value: AnyValue,
}

#[derive(Debug, Clone, Serialize)]
enum AnyValue {
    #[serde(rename = "stringValue")]
    Text(String),
    #[serde(rename = "intValue")]
    Number(String),
    #[serde(rename = "boolValue")]
    Truth(bool),
}

/// The work of this process itself, not a request from or to another.
const INTERNAL: u8 = 1;
const ERROR: u8 = 2;

impl Status {
    pub(super) fn error(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: ERROR }
    }
}

impl Span {
    /// Times in milliseconds since the epoch.
    pub(super) fn new(trace: String, id: String, name: String, from: u64, to: u64) -> Self {
        // Times past the year 2554 do not fit, and there are none.
        let nanos = |ms: u64| ms.saturating_mul(1_000_000).to_string();
        Self {
            trace,
            id,
            parent: String::new(),
            name,
            kind: INTERNAL,
            start_time_unix_nano: nanos(from),
            end_time_unix_nano: nanos(to.max(from)),
            attributes: Vec::new(),
            status: Status::default(),
        }
    }
}

pub(super) fn text(key: &str, value: impl Into<String>) -> KeyValue {
    KeyValue { key: key.to_owned(), value: AnyValue::Text(value.into()) }
}

pub(super) fn number(key: &str, value: u64) -> KeyValue {
    KeyValue { key: key.to_owned(), value: AnyValue::Number(value.to_string()) }
}

pub(super) fn truth(key: &str, value: bool) -> KeyValue {
    KeyValue { key: key.to_owned(), value: AnyValue::Truth(value) }
}

/// What this process is, as the environment says it: `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`.
pub(super) fn resource() -> Resource {
    let given = std::env::var("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    let named = std::env::var("OTEL_SERVICE_NAME").ok().filter(|name| !name.is_empty());
    let mut attributes: Vec<KeyValue> = pairs(&given).map(|(key, value)| text(&key, value)).collect();
    if let Some(name) = named {
        attributes.retain(|a| a.key != "service.name");
        attributes.insert(0, text("service.name", name));
    } else if !attributes.iter().any(|a| a.key == "service.name") {
        attributes.insert(0, text("service.name", "runback"));
    }
    if !attributes.iter().any(|a| a.key == "service.version") {
        attributes.push(text("service.version", env!("CARGO_PKG_VERSION")));
    }
    Resource { attributes }
}

pub(super) fn request<'a>(resource: &'a Resource, spans: &'a [Span]) -> ExportRequest<'a> {
    let scope = Scope { name: "runback", version: env!("CARGO_PKG_VERSION") };
    ExportRequest { resource_spans: [ResourceSpans { resource, scope_spans: [ScopeSpans { scope, spans }] }] }
}

/// `key=value,key=value`, values percent-encoded, as the environment variables of OpenTelemetry have them.
pub(super) fn pairs(text: &str) -> impl Iterator<Item = (String, String)> + '_ {
    text.split(',').filter_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        let key = key.trim();
        (!key.is_empty()).then(|| (key.to_owned(), decoded(value.trim())))
    })
}

/// What is no percent-encoding stands for itself.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        let code = more.get(..2).filter(|_| *first == b'%');
        let code = code.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &more[2..] } else { more };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_the_environment_are_read_as_opentelemetry_writes_them() {
        let read = |text| pairs(text).collect::<Vec<_>>();
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(
            read("Authorization=Bearer%20a%3Db, x-scope = t1 "),
            [pair("Authorization", "Bearer a=b"), pair("x-scope", "t1")]
        );
        assert_eq!(read("a=50%,b=%zz,=x,nothing"), [pair("a", "50%"), pair("b", "%zz")]);
        assert_eq!(read(""), []);
    }
}
