//! The `pattern` of a schema: an expression that is compiled when the first text is looked at, since most schemas of a
//! check see none.

use std::fmt;
use std::sync::OnceLock;

use regex::Regex;

#[derive(Debug, Clone)]
pub(super) struct Pattern {
    text: String,
    regex: OnceLock<Option<Regex>>,
}

impl Pattern {
    pub(super) fn new(text: &str) -> Self {
        Self { text: text.to_owned(), regex: OnceLock::new() }
    }

    /// What cannot be compiled (an expression of another dialect) asks nothing of a text.
    pub(super) fn allows(&self, text: &str) -> bool {
        self.regex.get_or_init(|| Regex::new(&self.text).ok()).as_ref().is_none_or(|regex| regex.is_match(text))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
