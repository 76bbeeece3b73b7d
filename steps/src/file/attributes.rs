//! Mode and owner of files as playbooks write them.

use std::borrow::Cow;

use runback_core::step::{Cx, StepError};
use runback_core::target::{FileAttributes, FileStat};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Permission bits, written as a string of octal digits: `"0644"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mode(pub(crate) u32);

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Octal;
        impl de::Visitor<'_> for Octal {
            type Value = Mode;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a mode of three or four octal digits in quotes, such as \"0644\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Mode, E> {
                let octal = (3..=4).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
                let bits = if octal { u32::from_str_radix(text, 8).ok() } else { None };
                bits.map(Mode).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Octal)
    }
}

impl Serialize for Mode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl JsonSchema for Mode {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Mode".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-7]{3,4}$" })
    }
}

/// What a step's inputs say of mode and owner; None keeps what is there.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ownership<'a> {
    pub(crate) mode: Option<Mode>,
    pub(crate) owner: Option<&'a str>,
    pub(crate) group: Option<&'a str>,
}

impl Ownership<'_> {
    /// With the numbers that the target has for the names.
    pub(crate) async fn resolve(&self, cx: &Cx<'_>) -> Result<FileAttributes, StepError> {
        let uid = match self.owner {
            Some(name) => Some(cx.target.user_id(name).await?),
            None => None,
        };
        let gid = match self.group {
            Some(name) => Some(cx.target.group_id(name).await?),
            None => None,
        };
        Ok(FileAttributes { mode: self.mode.map(|m| m.0), uid, gid })
    }
}

/// Mode, uid and gid of something that is there.
pub(crate) fn of(stat: &FileStat) -> FileAttributes {
    FileAttributes { mode: Some(stat.mode), uid: Some(stat.uid), gid: Some(stat.gid) }
}

/// Those of `wanted`, and where it says nothing those of `other`.
pub(crate) fn or(wanted: &FileAttributes, other: &FileAttributes) -> FileAttributes {
    FileAttributes { mode: wanted.mode.or(other.mode), uid: wanted.uid.or(other.uid), gid: wanted.gid.or(other.gid) }
}

/// Everything that `wanted` says is so in `is`.
pub(crate) fn fits(is: &FileAttributes, wanted: &FileAttributes) -> bool {
    let same = |wanted: Option<u32>, is: Option<u32>| wanted.is_none() || wanted == is;
    same(wanted.mode, is.mode) && same(wanted.uid, is.uid) && same(wanted.gid, is.gid)
}

/// "mode 0644, was left 0600": each difference, in words.
pub(crate) fn differences(is: &FileAttributes, wanted: &FileAttributes) -> Vec<String> {
    let mut all = Vec::new();
    if let (Some(want), Some(is)) = (wanted.mode, is.mode)
        && want != is
    {
        all.push(format!("mode {} instead of {}", Mode(is), Mode(want)));
    }
    for (what, want, is) in [("owner", wanted.uid, is.uid), ("group", wanted.gid, is.gid)] {
        if let (Some(want), Some(is)) = (want, is)
            && want != is
        {
            all.push(format!("{what} {is} instead of {want}"));
        }
    }
    all
}

/// How something differs from what a step left, in words. An action that did not finish may have left each of mode,
/// owner and group old or new.
pub(crate) fn drift(
    is: &FileAttributes,
    was: &FileAttributes,
    left: &FileAttributes,
    finished: bool,
) -> Option<String> {
    let either = |new: Option<u32>, old: Option<u32>, is: Option<u32>| if !finished && old == is { None } else { new };
    let expected = FileAttributes {
        mode: either(left.mode, was.mode, is.mode),
        uid: either(left.uid, was.uid, is.uid),
        gid: either(left.gid, was.gid, is.gid),
    };
    let wrong = differences(is, &expected);
    if wrong.is_empty() { None } else { Some(wrong.join(", ")) }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use serde_json::json;

    #[test]
    fn a_mode_is_a_string_of_octal_digits() {
        for (text, bits) in [("644", 0o644), ("0644", 0o644), ("2755", 0o2755)] {
            assert_eq!(serde_json::from_value::<Mode>(json!(text)).unwrap(), Mode(bits));
        }
        for bad in [json!("64"), json!("0o644"), json!("0888"), json!("u+x"), json!(644), json!("-644")] {
            let error = serde_json::from_value::<Mode>(bad.clone()).unwrap_err().to_string();
            assert!(error.contains("octal digits in quotes"), "{bad}: {error}");
        }
        assert_eq!(json!(Mode(0o7)), json!("0007"));
    }

    #[test]
    fn differences_are_in_words() {
        let (is, want) = (
            FileAttributes { mode: Some(0o600), uid: Some(1), gid: Some(5) },
            FileAttributes { mode: Some(0o644), uid: None, gid: Some(6) },
        );
        assert!(!fits(&is, &want));
        assert_eq!(differences(&is, &want), ["mode 0600 instead of 0644", "group 5 instead of 6"]);
        assert!(fits(&is, &FileAttributes::default()));
    }
}
