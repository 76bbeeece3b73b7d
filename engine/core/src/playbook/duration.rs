//! Durations as people write them: `500ms`, `30s`, `10m`, `1h30m`, `2d`.

use std::time::Duration;

/// Units from the longest to the shortest, in milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Ten thousand days: longer ones are a mistake, and every sum of a few still fits.
const MAX_MS: u64 = 10_000 * 86_400_000;

/// Why a text is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BadDuration {
    pub message: String,
    /// What to write instead.
    pub help: String,
}

/// Numbers with units, from the longest unit to the shortest, each at most once. Precision: 1 ms.
pub fn parse(text: &str) -> Result<Duration, BadDuration> {
    let bad = |message: String, help: &str| BadDuration { message, help: help.to_owned() };
    let examples = "write it as 500ms, 30s, 10m, 1h30m or 2d";
    if text.is_empty() {
        return Err(bad("an empty duration".to_owned(), examples));
    }
    if text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(bad(format!("`{text}` has no unit"), &format!("did you mean {text}s? {examples}")));
    }
    let mut total = 0_u64;
    let mut rest = text;
    let mut units = UNITS.iter();
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let letters = rest[digits..].bytes().take_while(u8::is_ascii_lowercase).count();
        let (number, unit) = (&rest[..digits], &rest[digits..digits + letters]);
        if number.is_empty() {
            return Err(bad(format!("`{text}` is not a duration"), examples));
        }
        if unit.is_empty() {
            return Err(bad(format!("`{number}` in `{text}` has no unit"), examples));
        }
        let Some((_, ms)) = units.find(|(name, _)| *name == unit) else {
            let known = UNITS.iter().any(|(name, _)| *name == unit);
            return Err(if known {
                bad(format!("`{text}` has `{unit}` twice, or after a shorter unit"), "write long units first: 1h30m")
            } else {
                bad(format!("`{unit}` in `{text}` is not a unit"), "units are d, h, m, s and ms")
            });
        };
        let value = number.parse::<u64>().ok().and_then(|n| n.checked_mul(*ms));
        total = match value.and_then(|v| total.checked_add(v)).filter(|t| *t <= MAX_MS) {
            Some(total) => total,
            None => return Err(bad(format!("`{text}` is too long"), "the longest duration is 10000d")),
        };
        rest = &rest[digits + letters..];
    }
    Ok(Duration::from_millis(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads() {
        for (text, ms) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("10m", 600_000),
            ("1h30m", 5_400_000),
            ("2d", 172_800_000),
            ("0s", 0),
            ("1d1h1m1s1ms", 90_061_001),
        ] {
            assert_eq!(parse(text).map(|d| d.as_millis()), Ok(ms), "{text}");
        }
    }

    #[test]
    fn refuses() {
        for (text, message) in [
            ("", "an empty duration"),
            ("30", "`30` has no unit"),
            ("1h30", "`30` in `1h30` has no unit"),
            ("30 s", "`30` in `30 s` has no unit"),
            ("soon", "`soon` is not a duration"),
            ("-1s", "`-1s` is not a duration"),
            ("1.5h", "`1` in `1.5h` has no unit"),
            ("10min", "`min` in `10min` is not a unit"),
            ("30m1h", "`30m1h` has `h` twice, or after a shorter unit"),
            ("1h1h", "`1h1h` has `h` twice, or after a shorter unit"),
            ("10001d", "`10001d` is too long"),
            ("99999999999999999999d", "`99999999999999999999d` is too long"),
            ("1ü", "`1` in `1ü` has no unit"),
        ] {
            assert_eq!(parse(text).map_err(|e| e.message), Err(message.to_owned()), "{text}");
        }
    }
}
