//! A span of time as a playbook writes it: `500ms`, `10s`, `1h30m`, `2d`. Knows no clock.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use runback_core::playbook::duration;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A duration in a step's inputs. Units, largest first: `d`, `h`, `m`, `s`, `ms`; whole numbers only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Period(pub(crate) Duration);

impl Period {
    pub(crate) const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// Says what is wrong with the text, and how to write it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a duration; write it like 500ms, 10s, 5m or 1h30m");
        duration::parse(text.trim()).map(Self).map_err(|_| wrong())
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ms = self.0.as_millis();
        if ms == 0 {
            return f.write_str("0s");
        }
        for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
            if ms >= size {
                write!(f, "{}{unit}", ms / size)?;
                ms %= size;
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Period {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "duration" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_prints() {
        for (text, ms) in [("500ms", 500), ("10s", 10_000), ("1h30m", 5_400_000), ("2d1ms", 172_800_001), ("0s", 0)] {
            let period = Period::parse(text).expect("valid");
            assert_eq!(period.0, Duration::from_millis(ms), "{text}");
            assert_eq!(period.to_string(), text);
        }
    }

    #[test]
    fn refuses_what_is_unclear() {
        for text in
            ["", "5", "s", "1.5s", "-1s", "1m1h", "1s1s", "5 minutes", "99999999999999999999d", "999999999999999d"]
        {
            assert!(Period::parse(text).is_err(), "{text}");
        }
    }
}
