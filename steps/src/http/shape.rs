//! The parts that inputs of HTTP step types have in common: methods, statuses, credentials, URLs. Sends nothing.

use std::borrow::Cow;
use std::fmt;

use reqwest::Url;
use runback_core::Json;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Method {
    #[default]
    Get,
    Head,
    Options,
    Post,
    Put,
    Patch,
    Delete,
}

impl Method {
    /// A server changes nothing for these (RFC 9110, 9.2.1).
    pub(crate) fn is_safe(self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Options)
    }

    /// Sending it twice is the same as once (RFC 9110, 9.2.2).
    pub(crate) fn is_idempotent(self) -> bool {
        !matches!(self, Self::Post | Self::Patch)
    }

    pub(crate) fn to_http(self) -> reqwest::Method {
        match self {
            Self::Get => reqwest::Method::GET,
            Self::Head => reqwest::Method::HEAD,
            Self::Options => reqwest::Method::OPTIONS,
            Self::Post => reqwest::Method::POST,
            Self::Put => reqwest::Method::PUT,
            Self::Patch => reqwest::Method::PATCH,
            Self::Delete => reqwest::Method::DELETE,
        }
    }
}

/// User name and password for HTTP basic authentication.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BasicAuth {
    pub(crate) user: String,
    /// Take it from `secrets`.
    #[serde(default)]
    pub(crate) password: String,
}

/// Statuses that count as success: `200`, `"2xx"`, `"200-204"`, or a list of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StatusSet(Vec<(u16, u16)>);

impl Default for StatusSet {
    fn default() -> Self {
        Self(vec![(200, 299)])
    }
}

impl StatusSet {
    pub(crate) fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|(from, to)| (*from..=*to).contains(&status))
    }

    fn add_number(&mut self, n: u64) -> Result<(), String> {
        match u16::try_from(n) {
            Ok(n @ 100..=599) => self.0.push((n, n)),
            _ => return Err(format!("{n} is not an HTTP status; they go from 100 to 599")),
        }
        Ok(())
    }

    fn add_text(&mut self, text: &str) -> Result<(), String> {
        let wrong = || format!("`{text}` is not an HTTP status; write it like 200, 2xx or 200-204");
        let status = |t: &str| t.trim().parse::<u16>().ok().filter(|n| (100..=599).contains(n)).ok_or_else(wrong);
        let range = match (text.split_once('-'), text.as_bytes()) {
            (Some((from, to)), _) => (status(from)?, status(to)?),
            (None, [class @ b'1'..=b'5', b'x' | b'X', b'x' | b'X']) => {
                let from = u16::from(class - b'0') * 100;
                (from, from + 99)
            }
            _ => (status(text)?, status(text)?),
        };
        if range.0 > range.1 {
            return Err(wrong());
        }
        self.0.push(range);
        Ok(())
    }
}

impl fmt::Display for StatusSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (from, to)) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(" or ")?;
            }
            if from == to { write!(f, "{from}")? } else { write!(f, "{from}-{to}")? }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for StatusSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = StatusSet;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an HTTP status such as 200, 2xx or 200-204, or a list of them")
            }

            fn visit_u64<E: Error>(self, n: u64) -> Result<StatusSet, E> {
                let mut set = StatusSet(Vec::new());
                set.add_number(n).map_err(E::custom)?;
                Ok(set)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<StatusSet, E> {
                let mut set = StatusSet(Vec::new());
                set.add_text(text).map_err(E::custom)?;
                Ok(set)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<StatusSet, A::Error> {
                let mut set = StatusSet(Vec::new());
                while let Some(item) = list.next_element::<Json>()? {
                    match &item {
                        Json::String(text) => set.add_text(text),
                        Json::Number(n) if n.is_u64() => set.add_number(n.as_u64().unwrap_or_default()),
                        other => Err(format!("{other} is not an HTTP status; write it like 200, 2xx or 200-204")),
                    }
                    .map_err(A::Error::custom)?;
                }
                if set.0.is_empty() {
                    return Err(A::Error::custom("the list of statuses is empty; leave `status` out for 200-299"));
                }
                Ok(set)
            }
        }
        deserializer.deserialize_any(Read)
    }
}

impl JsonSchema for StatusSet {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "StatusSet".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["integer", "string", "array"],
            "items": { "type": ["integer", "string"] },
            "description": "Statuses that count as success: 200, 2xx, 200-204, or a list of these.",
        })
    }
}

/// Reads a URL of http or https. The message never carries a password that stands in the text.
pub(crate) fn parse_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text.trim()).map_err(|e| format!("`{}` is not a URL: {e}", without_userinfo(text)))?;
    match url.scheme() {
        "http" | "https" if url.has_host() => Ok(url),
        other => Err(format!("`{}`: the scheme must be http or https, not {other}", without_userinfo(text))),
    }
}

/// For text that may be no URL at all: drops what stands before an `@` in the authority.
fn without_userinfo(text: &str) -> Cow<'_, str> {
    let start = text.find("//").map_or(0, |i| i + 2);
    let end = text[start..].find(['/', '?', '#']).map_or(text.len(), |i| start + i);
    match text[start..end].rfind('@') {
        Some(at) => Cow::Owned(format!("{}{}", &text[..start], &text[start + at + 1..])),
        None => Cow::Borrowed(text),
    }
}

const SECRET_WORDS: [&str; 8] = ["token", "secret", "password", "passwd", "key", "sig", "auth", "credential"];

/// A URL for messages and outputs: without user, password and fragment, and with `…` for the value of a query
/// parameter whose name sounds like a credential.
pub(crate) fn shown(url: &Url) -> String {
    let mut bare = url.clone();
    // Both fail only for a URL without a host, which `parse_url` refuses.
    let _ = bare.set_username("");
    let _ = bare.set_password(None);
    bare.set_query(None);
    bare.set_fragment(None);
    let mut text = bare.to_string();
    let Some(query) = url.query() else { return text };
    for (i, pair) in query.split('&').enumerate() {
        text.push(if i == 0 { '?' } else { '&' });
        match pair.split_once('=') {
            Some((name, _)) if SECRET_WORDS.iter().any(|w| name.to_ascii_lowercase().contains(w)) => {
                text.push_str(name);
                text.push_str("=…");
            }
            _ => text.push_str(pair),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    fn set(json: &Json) -> Result<StatusSet, String> {
        StatusSet::deserialize(json).map_err(|e| e.to_string())
    }

    #[test]
    fn statuses_in_all_their_forms() {
        let of = |json: Json| set(&json).unwrap().to_string();
        assert_eq!(of(json!(204)), "204");
        assert_eq!(of(json!("2xx")), "200-299");
        assert_eq!(of(json!([200, "301-308", "5XX"])), "200 or 301-308 or 500-599");
        let some = set(&json!(["2xx", 404])).unwrap();
        assert!(some.contains(200) && some.contains(299) && some.contains(404));
        assert!(!some.contains(300) && !some.contains(403));
    }

    #[test]
    fn statuses_that_are_none() {
        for json in
            [json!(99), json!(600), json!("6xx"), json!("299-200"), json!("ok"), json!([]), json!([true]), json!(-1)]
        {
            assert!(set(&json).is_err(), "{json}");
        }
        assert_eq!(set(&json!("20x")).unwrap_err(), "`20x` is not an HTTP status; write it like 200, 2xx or 200-204");
    }

    #[test]
    fn no_secret_of_a_url_is_shown() {
        let show = |t: &str| shown(&parse_url(t).unwrap());
        assert_eq!(show("https://bob:hunter2@h.example/p?a=1&X-Token=s3cret#f"), "https://h.example/p?a=1&X-Token=…");
        assert_eq!(show("http://h.example:8080"), "http://h.example:8080/");
        for bad in ["https://bob:hunter2@[h/p", "bob:hunter2@h", "ftp://bob:hunter2@h/", "//bob:hunter2@h/"] {
            let error = parse_url(bad).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
