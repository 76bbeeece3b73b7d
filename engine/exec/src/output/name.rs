//! What the log of an attempt is called: a step path as a file name, one for one.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

/// Names the log of one attempt of one step, or of its undo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogName<'a> {
    /// The full path, such as `deploy/convert[web1]`.
    pub step: &'a str,
    /// From 1.
    pub attempt: u32,
    pub undo: bool,
}

/// File systems allow 255 bytes; the rest is for the attempt and the endings.
const LONGEST: usize = 180;

impl LogName<'_> {
    /// `deploy+convert[web1].1.log`, `deploy.1.undo.log`. Different steps have different names.
    pub fn file_name(&self) -> String {
        let mut name = String::with_capacity(self.step.len() + 16);
        for byte in self.step.bytes() {
            match byte {
                b'/' => name.push('+'),
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'[' | b']' | b'=' | b',' | b'@' | b':' => {
                    name.push(char::from(byte));
                }
                b'.' if !name.is_empty() => name.push('.'),
                _ => {
                    let _ = write!(name, "%{byte:02x}");
                }
            }
        }
        if name.len() > LONGEST {
            let hash = Sha256::digest(self.step.as_bytes());
            name.truncate(LONGEST - 40);
            name.push('~');
            for byte in hash.iter().take(16) {
                let _ = write!(name, "{byte:02x}");
            }
        }
        let undo = if self.undo { ".undo" } else { "" };
        format!("{name}.{}{undo}.log", self.attempt)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_safe_short_and_distinct() {
        let long = "k".repeat(300);
        let steps = ["a", "a/b", "a+b", "a%2fb", "..", ".", "x[../../etc]", "x[ä \n]", &long, &format!("{long}2")];
        let mut seen = BTreeSet::new();
        for step in steps {
            for undo in [false, true] {
                let name = LogName { step, attempt: 1, undo }.file_name();
                assert!(name.len() < 220 && !name.contains('/') && !name.starts_with('.') && name.is_ascii(), "{name}");
                assert!(seen.insert(name.clone()), "{name} twice");
            }
        }
        assert_eq!(
            LogName { step: "deploy/convert[web1]", attempt: 2, undo: false }.file_name(),
            "deploy+convert[web1].2.log"
        );
        assert_eq!(LogName { step: "a", attempt: 1, undo: true }.file_name(), "a.1.undo.log");
    }
}
