//! What goes wrong with a command line itself: what, why, and what to do, in the shape of every other message.

use runback_core::Json;
use runback_core::diagnostic::Code;
use serde_json::json;

use crate::exit::Exit;
use crate::next;
use crate::term::{self, BOLD, CYAN, RED, RESET};

/// How a verb ends: with a code, or with something to tell.
pub(crate) type Done = Result<Exit, Failure>;

#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// Names the thing and says why.
    pub(crate) message: String,
    /// What to do, one line each.
    pub(crate) help: Vec<String>,
    /// Mistakes that have codes, as `check --output json` gives them; `message` is then the text of all of them.
    pub(crate) diagnostics: Vec<Json>,
}

impl Failure {
    /// The command line is wrong: exit code 2.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, message: message.into(), help: Vec::new(), diagnostics: Vec::new() }
    }

    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self { exit: Exit::Failed, ..Self::usage(message) }
    }

    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self { exit: Exit::Refused, ..Self::usage(message) }
    }

    /// Mistakes that have codes: what a person reads, and the same as data.
    pub(crate) fn diagnosed(text: String, diagnostics: Vec<Json>) -> Self {
        Self { diagnostics, ..Self::usage(text) }
    }

    /// Mistakes in what was given at the start of a run, which stands in no file.
    pub(crate) fn given(mistakes: &[(Code, String, Option<String>)]) -> Self {
        let text = |(code, message, help): &(Code, String, Option<String>)| {
            let help = help.as_ref().map(|help| format!("\n {CYAN}help{RESET}: {help}")).unwrap_or_default();
            format!("{RED}{BOLD}error[{}]{RESET}: {message}{help}", code.name())
        };
        let data = |(code, message, help): &(Code, String, Option<String>)| {
            json!({
                "code": code.name(), "severity": code.info().severity, "message": message, "help": help,
                "file": null, "labels": [],
            })
        };
        let lines: Vec<_> = mistakes.iter().map(text).collect();
        Self::diagnosed(lines.join("\n"), mistakes.iter().map(data).collect())
    }

    #[must_use]
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }

    #[must_use]
    pub(crate) fn maybe_help(self, help: Option<String>) -> Self {
        match help {
            Some(help) => self.help(help),
            None => self,
        }
    }

    pub(crate) fn print(&self, as_json: bool) {
        if !self.diagnostics.is_empty() {
            if as_json {
                term::json(&json!({ "diagnostics": self.diagnostics }));
            } else {
                term::note(&self.message);
            }
            return;
        }
        if as_json {
            term::line(&self.to_json().to_string());
        }
        term::note(&self.text());
    }

    fn text(&self) -> String {
        let mut text = format!("{RED}{BOLD}error{RESET}: {}", self.message);
        for (at, line) in self.help.iter().enumerate() {
            let word = if at == 0 { "help" } else { "    " };
            let colon = if at == 0 { ":" } else { " " };
            text.push_str(&format!("\n {CYAN}{word}{RESET}{colon} {}", next::in_text(line)));
        }
        text
    }

    fn to_json(&self) -> Json {
        json!({ "error": { "message": self.message, "help": next::in_text(&self.help.join("\n")) } })
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::failed(error.to_string())
    }
}
