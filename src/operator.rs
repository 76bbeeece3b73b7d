//! A person at the terminal: asked on stderr, answers by a line on stdin. The terminal stays as it is (no raw mode),
//! so a question that somebody else answers meanwhile, or a Ctrl-C, leaves nothing to put right.

use std::io::BufRead as _;
use std::sync::Mutex;

use runback_core::Json;
use runback_core::event::Resolution;
use runback_core::playbook::yaml;
use runback_core::span::SourceId;
use runback_core::step::{Answer, Question};
use runback_exec::reporter::{AfterFailure, Operator, Settled};
use serde_json::Map;
use tokio::sync::{mpsc, watch};

use crate::surroundings;
use crate::term::{self, BOLD, CYAN, DIM, RESET, YELLOW};

pub(crate) struct AtTerminal {
    lines: tokio::sync::Mutex<Option<mpsc::UnboundedReceiver<String>>>,
    started: Mutex<bool>,
    /// True as soon as a signal came: nothing more is asked.
    interrupted: watch::Receiver<bool>,
    on_failure: bool,
}

impl AtTerminal {
    /// `on_failure` false: what follows a failure is decided already (`--on-failure`).
    pub(crate) fn new(interrupted: watch::Receiver<bool>, on_failure: bool) -> Self {
        Self { lines: tokio::sync::Mutex::new(None), started: Mutex::new(false), interrupted, on_failure }
    }

    /// The next line that is typed; None at the end of input, or after a signal.
    async fn line(&self, prompt: &str) -> Option<String> {
        let mut lines = self.lines.lock().await;
        if !std::mem::replace(&mut *self.started.lock().ok()?, true) {
            *lines = Some(read_lines());
        }
        let lines = lines.as_mut()?;
        // What was typed before it was asked is no answer.
        while lines.try_recv().is_ok() {}
        term::ask(prompt);
        let mut interrupted = self.interrupted.clone();
        tokio::select! {
            line = lines.recv() => line.map(|l| l.trim().to_owned()),
            _ = interrupted.wait_for(|i| *i) => {
                term::note("");
                None
            }
        }
    }

    /// One of some words, by its first letter.
    async fn choose<T: Copy>(&self, question: &str, choices: &[(&str, T)]) -> Option<T> {
        let shown: Vec<String> = choices
            .iter()
            .map(|(word, _)| {
                let (first, rest) = word.split_at(1);
                format!("{BOLD}[{first}]{RESET}{rest}")
            })
            .collect();
        let prompt = format!("{CYAN}?{RESET} {question}\n  {}, then Enter: ", shown.join("  "));
        loop {
            let line = self.line(&prompt).await?.to_lowercase();
            let found = choices.iter().find(|(word, _)| !line.is_empty() && word.starts_with(line.as_str()));
            if let Some((_, value)) = found {
                return Some(*value);
            }
        }
    }
}

/// One thread for all questions: it waits for ever for what nobody types, and the process ends without it.
fn read_lines() -> mpsc::UnboundedReceiver<String> {
    let (send, lines) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        // What is not UTF-8 is no answer, and not the end of input either.
        for line in std::io::stdin().lock().split(b'\n') {
            let Ok(line) = line else { return };
            if send.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
    lines
}

#[async_trait::async_trait]
impl Operator for AtTerminal {
    fn is_there(&self) -> bool {
        !*self.interrupted.borrow()
    }

    async fn after_failure(&self, step: &str, _error: &str) -> Option<AfterFailure> {
        if !self.on_failure || !self.is_there() {
            return None;
        }
        // Why is what was reported last.
        term::note("");
        let choices = [
            ("retry", AfterFailure::Retry),
            ("skip", AfterFailure::Skip),
            ("back", AfterFailure::Rollback),
            ("hold", AfterFailure::Hold),
        ];
        let question = format!(
            "{BOLD}{step}{RESET} failed: try it again, skip it, roll all back, or hold everything as it stands?"
        );
        self.choose(&question, &choices).await
    }

    async fn answer(&self, step: &str, question: &Question) -> Option<Answer> {
        term::note(&format!("\n{CYAN}?{RESET} {BOLD}{step}{RESET} {}", question.prompt));
        let mut fields = Map::new();
        let approved = self.choose("go on?", &[("yes", true), ("no", false)]).await?;
        if approved && let Json::Object(form) = &question.form {
            for (name, field) in form {
                fields.insert(name.clone(), self.field(name, field).await?);
            }
        }
        let reason = if approved { None } else { self.line("  why? ").await.filter(|r| !r.is_empty()) };
        let fields = if fields.is_empty() { Json::Null } else { Json::Object(fields) };
        Some(Answer { approved, by: surroundings::by(), roles: Vec::new(), reason, fields })
    }

    async fn settle(&self, step: &str, doubt: &str) -> Option<Settled> {
        term::note(&format!("\n{YELLOW}?{RESET} {BOLD}{step}{RESET}: {doubt}"));
        let choices = [
            ("done", Resolution::Done),
            ("redo", Resolution::Redo),
            ("fail", Resolution::Fail),
            ("skip", Resolution::Skip),
        ];
        let resolution = self.choose("is it done, to be done again, failed, or skipped?", &choices).await?;
        Some(Settled { resolution, by: surroundings::by() })
    }
}

impl AtTerminal {
    async fn field(&self, name: &str, field: &Json) -> Option<Json> {
        let about = field.get("description").and_then(Json::as_str).map(|d| format!(" {DIM}({d}){RESET}"));
        let default = field.get("default").filter(|d| !d.is_null());
        let shown = default.map(|d| format!(" {DIM}[{}]{RESET}", plain(d)));
        let options = field.get("options").and_then(Json::as_array);
        let options = options.map(|o| format!(" {DIM}{}{RESET}", o.iter().map(plain).collect::<Vec<_>>().join(" | ")));
        let prompt = format!(
            "  {BOLD}{name}{RESET}{}{}{}: ",
            about.unwrap_or_default(),
            options.unwrap_or_default(),
            shown.unwrap_or_default()
        );
        loop {
            let line = self.line(&prompt).await?;
            if line.is_empty() {
                match default {
                    Some(default) => return Some(default.clone()),
                    None => continue,
                }
            }
            match typed(field, &line) {
                Ok(value) => return Some(value),
                Err(why) => term::note(&format!("  {YELLOW}!{RESET} {why}")),
            }
        }
    }
}

fn plain(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// What was typed for a field of a form, if the step will take it.
fn typed(field: &Json, text: &str) -> Result<Json, String> {
    let value = field_value(field, text)?;
    runback_steps::form_field_accepts(field, &value).map_err(|why| format!("it {why}"))?;
    Ok(value)
}

/// What was typed for a field of a form, as the field's type. Whether the value will do, the step says.
pub(crate) fn field_value(field: &Json, text: &str) -> Result<Json, String> {
    let bad = |what: &str| Err(format!("`{text}` is not {what}"));
    match field.get("type").and_then(Json::as_str).unwrap_or("string") {
        "integer" => text.parse::<i64>().map_or_else(|_| bad("a whole number"), |n| Ok(n.into())),
        "number" => match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(number.into()),
            _ => bad("a number"),
        },
        "boolean" => match text {
            "true" | "yes" | "y" => Ok(true.into()),
            "false" | "no" | "n" => Ok(false.into()),
            _ => bad("true or false"),
        },
        "list" | "map" => yaml::parse(SourceId(0), text).map_or_else(|_| bad("YAML"), |node| Ok(node.to_json())),
        _ => Ok(text.into()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Found by hand: an answer outside `min` and `max` failed the step, where it could have been asked for again.
    #[test]
    fn what_the_step_would_not_take_is_asked_for_again() {
        let minutes = json!({ "type": "integer", "min": 1, "max": 60 });
        assert_eq!(typed(&minutes, "7"), Ok(json!(7)));
        for (field, wrong, part) in [
            (&minutes, "61", "60"),
            (&minutes, "0", "1"),
            (&minutes, "soon", "whole number"),
            (&json!({ "pattern": "CHG-[0-9]+" }), "42", "CHG"),
            (&json!({ "options": ["red", "green"] }), "blue", "red"),
        ] {
            let why = typed(field, wrong).expect_err("it is wrong");
            assert!(why.contains(part), "{wrong}: {why}");
        }
    }
}
