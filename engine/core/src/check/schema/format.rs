//! Formats that a schema can ask of a string, checked on literals.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::diagnostic::{Code, Diagnostic};
use crate::expr::Expr;
use crate::playbook::duration;
use crate::playbook::yaml::Node;
use crate::template;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Duration,
    Regex,
    /// Permission bits in octal, such as "0644".
    Mode,
    Ipv4,
    Ipv6,
    Uri,
    Hostname,
    /// An expression.
    Cel,
    Timezone,
}

impl Format {
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "duration" => Format::Duration,
            "regex" => Format::Regex,
            "mode" => Format::Mode,
            "ipv4" => Format::Ipv4,
            "ipv6" => Format::Ipv6,
            "uri" | "url" => Format::Uri,
            "hostname" => Format::Hostname,
            "cel" => Format::Cel,
            "timezone" => Format::Timezone,
            _ => return None,
        })
    }

    /// What is wrong with a literal; `name` is the input's.
    pub(super) fn check(self, name: &str, text: &str, node: &Node, file_text: &str) -> Vec<Diagnostic> {
        let wrong = |code: Code, message: String, label: &str, help: &str| {
            vec![Diagnostic::new(code, message, node.span, label).help(help)]
        };
        let value = |what: &str, help: &str| {
            wrong(Code::WrongStepInput, format!("`{name}` wants {what}, `{text}` is none"), "here", help)
        };
        match self {
            Format::Duration => match duration::parse(text) {
                Ok(_) => Vec::new(),
                Err(e) => wrong(Code::BadDuration, format!("`{name}`: {}", e.message), "not a duration", &e.help),
            },
            Format::Regex => match template::regex(text) {
                Ok(_) => Vec::new(),
                Err(why) => vec![Diagnostic::new(
                    Code::BadRegex,
                    format!("the pattern `{name}` cannot be read"),
                    node.span,
                    why,
                )],
            },
            Format::Mode if !is_mode(text) => value("a file mode", "write three or four octal digits: \"0644\""),
            Format::Ipv4 if text.parse::<Ipv4Addr>().is_err() => value("an IPv4 address", "write it as 192.0.2.7"),
            Format::Ipv6 if text.parse::<Ipv6Addr>().is_err() => value("an IPv6 address", "write it as 2001:db8::7"),
            Format::Uri if !is_uri(text) => value("a URL", "write it with its scheme: https://example.com/path"),
            Format::Hostname if !is_hostname(text) => {
                value("a host name", "letters, digits and dashes, with dots between: db1.example.com")
            }
            Format::Cel => Expr::parse(file_text, node).err().unwrap_or_default(),
            Format::Timezone if jiff::tz::TimeZoneDatabase::bundled().get(text).is_err() => {
                let message = format!("`{name}`: there is no time zone `{text}`");
                wrong(Code::BadTimezone, message, "unknown", "write an IANA name, such as Europe/Berlin or UTC")
            }
            Format::Mode | Format::Ipv4 | Format::Ipv6 | Format::Uri | Format::Hostname | Format::Timezone => {
                Vec::new()
            }
        }
    }
}

fn is_mode(text: &str) -> bool {
    matches!(text.len(), 3 | 4) && text.bytes().all(|b| matches!(b, b'0'..=b'7'))
}

/// A scheme, a colon and something after it, without blanks.
fn is_uri(text: &str) -> bool {
    text.split_once(':').is_some_and(|(scheme, rest)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
            && !rest.trim_start_matches('/').is_empty()
    }) && !text.contains(|c: char| c.is_whitespace() || c.is_control())
}

/// As in RFC 1123, or an address.
fn is_hostname(text: &str) -> bool {
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    text.len() <= 253 && text.strip_suffix('.').unwrap_or(text).split('.').all(label)
        || text.parse::<std::net::IpAddr>().is_ok()
}
