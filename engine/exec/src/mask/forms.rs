//! The ways in which a secret can stand in a text: as it is, line by line, and escaped or encoded by the
//! tools that a runbook meets. Knows nothing about searching.
//!
//! Labels are stored in sealed captures: the bytes behind a label never change, and a label is never used
//! again for something else.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

/// A secret below this is not looked for at all: two bytes stand in every text.
pub(super) const MIN_RAW: usize = 3;
/// A secret below this is looked for as it is only; its encodings would be too short to mean anything.
pub(super) const MIN_ENCODED: usize = 4;
/// Lines of a secret from here on are looked for apart from the whole. Shorter ones are where [`says_something`]: a PIN
/// or a code on a line of its own is as secret as a long one, a bracket is in every text.
const LONG_LINE: usize = 8;
/// A short line below this many letters and digits is not looked for apart from the whole.
const MIN_SAID: usize = 4;

/// One way in which a secret can stand in a text.
pub(super) struct Form {
    pub(super) label: String,
    pub(super) bytes: Zeroizing<Vec<u8>>,
}

/// All forms of a value, the plainest first, none twice.
pub(super) fn expand(value: &str) -> Vec<Form> {
    let mut forms = Forms(Vec::new());
    if value.len() < MIN_RAW {
        return forms.0;
    }
    forms.add("raw", value.as_bytes().to_vec());
    if value.len() < MIN_ENCODED {
        return forms.0;
    }
    forms.add_escapes("", value);
    forms.add_base64("", value.as_bytes());
    // A file in a capture is base64 of a text that may hold the secret escaped or encoded once already.
    forms.add_base64(".json", json(value, Json::Plain).as_bytes());
    forms.add_base64(".xml", xml(value).as_bytes());
    forms.add_base64(".b64", base64::engine::general_purpose::STANDARD.encode(value).as_bytes());
    if value.trim_end().contains('\n') {
        forms.add_lines(value, |line| line.len() >= LONG_LINE);
        // After all long ones, whose labels were there before: bytes that both give keep theirs.
        forms.add_lines(value, |line| line.len() < LONG_LINE && says_something(line));
    }
    forms.0
}

/// A short line that may be a secret by itself. Not the brackets, the bare names (`users:`) and the words that the formats
/// of files are made of: these stand in texts that have nothing to do with the secret, and a mask there would take away
/// what steps hand to each other.
fn says_something(line: &str) -> bool {
    let name = line.trim_end_matches(['{', '[', ' ']).trim_end_matches([':', '=']);
    let is_bare_name =
        name.len() < line.len() && name.bytes().all(|b| b.is_ascii_alphabetic() || b"-_\"'".contains(&b));
    let word = line.trim_end_matches([',', ';']);
    let is_of_a_format = ["true", "false", "null", "none"].iter().any(|of| word.eq_ignore_ascii_case(of));
    !is_bare_name && !is_of_a_format && line.chars().filter(|c| c.is_alphanumeric()).count() >= MIN_SAID
}

struct Forms(Vec<Form>);

impl Forms {
    fn add(&mut self, label: &str, bytes: Vec<u8>) {
        let bytes = Zeroizing::new(bytes);
        if bytes.len() >= MIN_RAW && !self.0.iter().any(|f| f.bytes == bytes) {
            self.0.push(Form { label: label.to_owned(), bytes });
        }
    }

    fn add_lines(&mut self, value: &str, which: impl Fn(&str) -> bool) {
        for (i, line) in value.lines().map(str::trim).enumerate() {
            // The borders of a PEM block are the same in every key.
            if which(line) && !(line.starts_with("-----") && line.ends_with("-----")) {
                self.add(&format!("line{i}"), line.as_bytes().to_vec());
                self.add_escapes(&format!(".line{i}"), line);
            }
        }
    }

    fn add_escapes(&mut self, suffix: &str, value: &str) {
        for (label, text) in [
            ("json", json(value, Json::Plain)),
            ("json-html", json(value, Json::Html)),
            ("json-ascii", json(value, Json::Ascii)),
            ("json-slash", json(value, Json::Slash)),
            ("url", percent(value, b"-._~", false, true)),
            ("url-lower", percent(value, b"-._~", false, false)),
            ("form", percent(value, b"-._*", true, true)),
            ("form-lower", percent(value, b"-._*", true, false)),
            ("uri", percent(value, b"-._~!'()*", false, true)),
            ("uri-path", percent(value, b"-._~!$&'()*+,;=:@/", false, true)),
            ("sh", value.replace('\'', r"'\''")),
            ("sh-py", value.replace('\'', r#"'"'"'"#)),
            ("sh-double", prefixed(value, |c| "\\\"$`".contains(c))),
            (
                "sh-backslash",
                prefixed(value, |c| c.is_ascii() && !c.is_ascii_alphanumeric() && !"_-+=./:,@%".contains(c)),
            ),
            ("sh-ansi", prefixed(value, |c| "\\'".contains(c)).replace('\n', "\\n").replace('\t', "\\t")),
            ("quote-twice", value.replace('\'', "''")),
            ("xml", xml(value)),
        ] {
            self.add(&format!("{label}{suffix}"), text.into_bytes());
        }
    }

    /// Of the three alignments, the characters that the value alone decides: the one at each border mixes in
    /// bits of its neighbour and is left out.
    fn add_base64(&mut self, suffix: &str, value: &[u8]) {
        for (label, engine) in [("b64", &STANDARD_NO_PAD), ("b64url", &URL_SAFE_NO_PAD)] {
            // Whole, with its last character, as at the end of an encoded text.
            let whole = engine.encode(value);
            for shift in 0..3_usize {
                let mut shifted = vec![0_u8; shift];
                shifted.extend_from_slice(value);
                let text = Zeroizing::new(engine.encode(&shifted).into_bytes());
                let (from, to) = ((shift * 8).div_ceil(6), (shift + value.len()) * 8 / 6);
                self.add(&format!("{label}.{shift}{suffix}"), text[from..to].to_vec());
                if to < text.len() {
                    let pad = "=".repeat((4 - text.len() % 4) % 4);
                    let mut end = text[from..].to_vec();
                    end.extend_from_slice(pad.as_bytes());
                    self.add(&format!("{label}.{shift}-end{suffix}"), end);
                }
            }
            self.add(&format!("{label}{suffix}"), whole.into_bytes());
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Json {
    Plain,
    /// `<`, `>` and `&` as `\u003c`: Go's encoder.
    Html,
    /// Everything beyond ASCII as `\uXXXX`: Python's default.
    Ascii,
    /// `/` as `\/`: PHP's default.
    Slash,
}

/// Without the quotes around it.
fn json(value: &str, style: Json) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(value.len() + 8);
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '/' if style == Json::Slash => out.push_str("\\/"),
            c if (c as u32) < 0x20
                || (style == Json::Html && "<>&\u{2028}\u{2029}".contains(c))
                || (matches!(style, Json::Ascii | Json::Slash) && !c.is_ascii()) =>
            {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            c => out.push(c),
        }
    }
    out
}

fn percent(value: &str, keep: &[u8], plus_for_space: bool, upper: bool) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(value.len() + 8);
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || keep.contains(&byte) {
            out.push(char::from(byte));
        } else if byte == b' ' && plus_for_space {
            out.push('+');
        } else {
            let _ = if upper { write!(out, "%{byte:02X}") } else { write!(out, "%{byte:02x}") };
        }
    }
    out
}

fn prefixed(value: &str, special: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(value.len() + 8);
    for c in value.chars() {
        if special(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn xml(value: &str) -> String {
    let value = value.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    value.replace('"', "&quot;").replace('\'', "&apos;")
}
