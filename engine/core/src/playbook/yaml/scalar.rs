//! The core schema of YAML 1.2: what a plain scalar is read as. Knows nothing of trees.

use super::{NodeValue, Style};

/// Why a scalar that is a number by its form has no value here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotANumber {
    /// An integer outside of 64 bits, or a float outside of a double.
    TooLarge,
    /// `.inf` and `.nan`: JSON has no such numbers.
    NotFinite,
}

/// Resolves a plain scalar. Everything that is no null, boolean or number is a string.
pub(super) fn resolve(text: &str) -> Result<NodeValue, NotANumber> {
    let Some(first) = text.bytes().next() else {
        return Ok(NodeValue::Null);
    };
    let value = match first {
        b'~' | b'n' | b'N' if matches!(text, "~" | "null" | "Null" | "NULL") => NodeValue::Null,
        b't' | b'T' if matches!(text, "true" | "True" | "TRUE") => NodeValue::Bool(true),
        b'f' | b'F' if matches!(text, "false" | "False" | "FALSE") => NodeValue::Bool(false),
        b'0'..=b'9' | b'+' | b'-' | b'.' => {
            if is_int(text) {
                int(text)?
            } else {
                float(text)?.unwrap_or_else(|| string(text))
            }
        }
        _ => string(text),
    };
    Ok(value)
}

fn string(text: &str) -> NodeValue {
    NodeValue::Str(text.into(), Style::Plain)
}

fn unsigned(text: &str) -> &str {
    text.strip_prefix(['+', '-']).unwrap_or(text)
}

pub(super) fn is_int(text: &str) -> bool {
    let all = |digits: &str, radix| !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
    all(unsigned(text), 10)
        || text.strip_prefix("0o").is_some_and(|d| all(d, 8))
        || text.strip_prefix("0x").is_some_and(|d| all(d, 16))
}

fn int(text: &str) -> Result<NodeValue, NotANumber> {
    let (digits, radix) = match text.get(..2) {
        Some("0o") => (&text[2..], 8),
        Some("0x") => (&text[2..], 16),
        _ => (text, 10),
    };
    if let Ok(value) = i64::from_str_radix(digits, radix) {
        return Ok(NodeValue::Int(value));
    }
    u64::from_str_radix(digits, radix).map(NodeValue::UInt).map_err(|_| NotANumber::TooLarge)
}

fn float(text: &str) -> Result<Option<NodeValue>, NotANumber> {
    let body = unsigned(text);
    if matches!(body, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return Err(NotANumber::NotFinite);
    }
    if !is_float(body) {
        return Ok(None);
    }
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(Some(NodeValue::Float(value))),
        Ok(_) => Err(NotANumber::TooLarge),
        Err(_) => Ok(None),
    }
}

/// `(\.[0-9]+ | [0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_float(body: &str) -> bool {
    let (mantissa, exponent) = match body.find(['e', 'E']) {
        Some(at) => (&body[..at], Some(unsigned(&body[at + 1..]))),
        None => (body, None),
    };
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let has_digits = !whole.is_empty() || !fraction.is_empty();
    has_digits && digits(whole) && digits(fraction) && exponent.is_none_or(|e| !e.is_empty() && digits(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_schema() {
        for text in [
            "no", "on", "yes", "off", "y", "nul", "tRue", "1_000", "12:30", "0b1", "1e", ".", "-", "+.e1", "1.2.3",
            "0x", "1e+", "0o8",
        ] {
            assert_eq!(resolve(text), Ok(string(text)), "{text}");
        }
        for (text, value) in [
            ("0777", NodeValue::Int(777)),
            ("0o17", NodeValue::Int(15)),
            ("0xfF", NodeValue::Int(255)),
            ("+12", NodeValue::Int(12)),
            ("-9223372036854775808", NodeValue::Int(i64::MIN)),
            ("18446744073709551615", NodeValue::UInt(u64::MAX)),
            ("3.10", NodeValue::Float(3.1)),
            ("1.", NodeValue::Float(1.0)),
            (".5", NodeValue::Float(0.5)),
            ("-1e3", NodeValue::Float(-1000.0)),
            ("", NodeValue::Null),
            ("~", NodeValue::Null),
            ("TRUE", NodeValue::Bool(true)),
        ] {
            assert_eq!(resolve(text), Ok(value), "{text}");
        }
        for text in ["18446744073709551616", "-9223372036854775809", "0xfffffffffffffffff", "1e999"] {
            assert_eq!(resolve(text), Err(NotANumber::TooLarge), "{text}");
        }
        for text in [".inf", "-.INF", ".nan"] {
            assert_eq!(resolve(text), Err(NotANumber::NotFinite), "{text}");
        }
    }
}
