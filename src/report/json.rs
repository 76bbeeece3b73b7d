//! Events as JSON, one per line: what the journal holds, with the run's id. A contract.

use std::path::Path;

use runback_core::Json as Value;
use runback_core::event::Event;
use runback_core::state::RunState;
use runback_exec::reporter::{Notice, Reporter};

use super::Report;
use crate::{next, term};

pub(crate) struct Json;

/// `seq`, `at`, `run`, `type`, then the rest.
fn line(run: &str, event: &Event) -> Option<Value> {
    let Ok(Value::Object(stored)) = serde_json::to_value(event) else { return None };
    let mut line = serde_json::Map::with_capacity(stored.len() + 1);
    for (key, value) in stored {
        let at = key == "at";
        line.insert(key, value);
        if at {
            line.insert("run".to_owned(), run.into());
        }
    }
    Some(Value::Object(line))
}

impl Reporter for Json {
    fn event(&mut self, state: &RunState, event: &Event) {
        if let Some(line) = line(state.run_id(), event) {
            term::line(&line.to_string());
        }
    }

    fn notice(&mut self, _state: &RunState, notice: &Notice<'_>) {
        if let Notice::Warning { message } = notice {
            term::note(&format!("warning: {}", next::in_text(message)));
        }
    }
}

impl Report for Json {
    /// The last event says it all.
    fn end(&mut self, _state: &RunState, _status: &str, _logs: Option<&Path>) {}
}
