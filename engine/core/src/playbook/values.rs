//! Whether a value is what an input's declaration allows: type, pattern, format, options and range. Knows
//! nothing of where the value comes from.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::duration;
use super::model::{InputDecl, InputType};
use crate::Json;

impl InputType {
    pub const ALL: [InputType; 8] = [
        InputType::String,
        InputType::Path,
        InputType::Integer,
        InputType::Number,
        InputType::Boolean,
        InputType::List,
        InputType::Map,
        InputType::Duration,
    ];

    /// As it is written under `type:`.
    pub fn name(self) -> &'static str {
        match self {
            InputType::String => "string",
            InputType::Path => "path",
            InputType::Integer => "integer",
            InputType::Number => "number",
            InputType::Boolean => "boolean",
            InputType::List => "list",
            InputType::Map => "map",
            InputType::Duration => "duration",
        }
    }

    /// "a string", "an integer" …
    pub fn with_article(self) -> String {
        let article = if self == InputType::Integer { "an" } else { "a" };
        format!("{article} {}", self.name())
    }
}

/// Names that `format:` knows.
pub const FORMATS: [&str; 5] = ["ipv4", "ipv6", "hostname", "url", "email"];

/// Why a value is not allowed. `message` follows the name of what is wrong: "must be …".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub message: String,
    pub help: Option<String>,
}

fn violation(message: impl Into<String>, help: Option<String>) -> Violation {
    Violation { message: message.into(), help }
}

/// Checks a value against its declaration.
pub fn check(decl: &InputDecl, value: &Json) -> Result<(), Violation> {
    check_type(decl.input_type, value)?;
    if let Some(text) = value.as_str() {
        if let Some(pattern) = &decl.pattern
            && !matches_whole(pattern, text)
        {
            return Err(violation(format!("must match the pattern {}", pattern.value), None));
        }
        if let Some(format) = &decl.format
            && !has_format(format, text)
        {
            return Err(violation(format!("must be {}", describe_format(format)), None));
        }
    }
    if !decl.options.is_empty() && !decl.options.contains(value) {
        let options: Vec<String> = decl.options.iter().map(shown).collect();
        let near = value
            .as_str()
            .and_then(|word| crate::template::problem::nearest(word, decl.options.iter().filter_map(Json::as_str)));
        let help = near.filter(|_| !decl.secret).map(|near| format!("did you mean `{near}`?"));
        return Err(violation(format!("must be one of {}", options.join(", ")), help));
    }
    let number = value.as_f64();
    if let (Some(min), Some(number)) = (decl.min, number)
        && number < min
    {
        return Err(violation(format!("must be at least {min}"), None));
    }
    if let (Some(max), Some(number)) = (decl.max, number)
        && number > max
    {
        return Err(violation(format!("must be at most {max}"), None));
    }
    Ok(())
}

pub(super) fn check_type(input_type: InputType, value: &Json) -> Result<(), Violation> {
    let fits = match input_type {
        InputType::String => value.is_string(),
        InputType::Path => value.as_str().is_some_and(|s| !s.is_empty() && !s.contains('\0')),
        InputType::Integer => value.is_i64() || value.is_u64(),
        InputType::Number => value.is_number(),
        InputType::Boolean => value.is_boolean(),
        InputType::List => value.is_array(),
        InputType::Map => value.is_object(),
        InputType::Duration => match value.as_str().map(duration::parse) {
            Some(Ok(_)) => true,
            Some(Err(bad)) => return Err(violation("must be a duration", Some(bad.help))),
            None => false,
        },
    };
    if fits {
        return Ok(());
    }
    Err(violation(format!("must be {}, not {}", input_type.with_article(), kind(value)), None))
}

fn kind(value: &Json) -> &'static str {
    match value {
        Json::Null => "null",
        Json::Bool(_) => "a boolean",
        Json::Number(n) if n.is_f64() => "a number",
        Json::Number(_) => "a whole number",
        Json::String(s) if s.is_empty() => "an empty string",
        Json::String(_) => "a string",
        Json::Array(_) => "a list",
        Json::Object(_) => "a map",
    }
}

/// A value for a message: strings bare, the rest as JSON, cut where long.
pub(super) fn shown(value: &Json) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    crate::cut::beginning(&text, 60).into_owned()
}

/// The whole text must match. A pattern that cannot be read matches nothing; lowering has refused it.
fn matches_whole(pattern: &str, text: &str) -> bool {
    regex::Regex::new(&format!("^(?:{pattern})$")).is_ok_and(|regex| regex.is_match(text))
}

fn describe_format(format: &str) -> &'static str {
    match format {
        "ipv4" => "an IPv4 address, such as 192.0.2.7",
        "ipv6" => "an IPv6 address, such as 2001:db8::7",
        "hostname" => "a host name, such as db1.example.com",
        "url" => "a URL, such as https://example.com/",
        _ => "an e-mail address, such as ops@example.com",
    }
}

fn has_format(format: &str, text: &str) -> bool {
    match format {
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "hostname" => is_hostname(text),
        "url" => is_url(text),
        "email" => text.rsplit_once('@').is_some_and(|(local, host)| {
            let plain = |c: char| !c.is_whitespace() && !c.is_control() && c != '@';
            !local.is_empty() && local.chars().all(plain) && is_hostname(host)
        }),
        _ => true,
    }
}

/// RFC 1123: labels of letters, digits and inner dashes.
fn is_hostname(text: &str) -> bool {
    let label = |label: &str| {
        let inner = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        inner && (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// A scheme, `://`, and something without blanks after it.
fn is_url(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, rest)| {
        let scheme_fits = scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
        let blank = |c: char| c.is_whitespace() || c.is_control();
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme_fits
            && !rest.is_empty()
            && !rest.contains(blank)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        for (format, good, bad) in [
            ("ipv4", "10.0.0.1", "10.0.0.256"),
            ("ipv6", "::1", "10.0.0.1"),
            ("hostname", "a-1.example", "-a"),
            ("hostname", "kvm1", "a..b"),
            ("url", "https://x:80/y?z", "x:80"),
            ("url", "ssh+git://h", "http://a b"),
            ("email", "a.b@c.d", "a@b@"),
        ] {
            assert!(has_format(format, good), "{good}");
            assert!(!has_format(format, bad), "{bad}");
        }
    }

    #[test]
    fn patterns_match_the_whole_value() {
        assert!(matches_whole("a|ab", "ab"));
        assert!(!matches_whole("a|b", "xb"));
        assert!(!matches_whole("a", "a\n"));
    }
}
