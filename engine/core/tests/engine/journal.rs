//! What the journal keeps: events survive being written and read, and a fold of any prefix is the live state.

use std::sync::Arc;

use runback_core::event::{Event, EventBody};
use runback_core::plan::Plan;
use runback_core::state::RunState;

/// One line per event, for people.
pub(crate) fn lines(trace: &[Event]) -> String {
    let mut out = String::new();
    for event in trace {
        let step = event.body.step().map(ToString::to_string).unwrap_or_default();
        let more = match &event.body {
            EventBody::AttemptFailed { error, retry_in, .. } | EventBody::UndoFailed { error, retry_in, .. } => {
                format!("{:?} retry {retry_in:?}", error.class)
            }
            EventBody::StepFailed { error, .. } => error.message.clone(),
            EventBody::StepResolved { resolution, .. } => format!("{resolution:?}"),
            EventBody::StepExpanded { items, .. } => format!("{} items", items.len()),
            EventBody::RunFinished { outcome, .. } => outcome.to_string(),
            EventBody::RunHeld { reason } => format!("{reason:?}"),
            EventBody::RollbackStarted { reason, .. } => format!("{reason:?}"),
            EventBody::CancelRequested { reason, .. } => format!("{reason:?}"),
            EventBody::LockTaken { names, .. } => names.join(","),
            EventBody::AttemptSucceeded { changed, .. } => format!("changed {changed}"),
            _ => String::new(),
        };
        out.push_str(&format!("{:>4} {:>8} {} {step} {more}\n", event.seq, event.at, event.body.type_name()));
    }
    out
}

/// As the store does it: through text.
pub(crate) fn stored(event: &Event) -> Event {
    let text = serde_json::to_string(event).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

pub(crate) fn fold(plan: &Arc<Plan>, trace: &[Event]) -> RunState {
    let mut state = RunState::new(Arc::clone(plan));
    for event in trace {
        state.apply(&stored(event)).unwrap();
    }
    state
}
