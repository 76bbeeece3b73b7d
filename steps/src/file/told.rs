//! What a step tells its run before it replaces something: so a later attempt, and undo, know what may be its own work,
//! and that all else is somebody else's. Hashes and link targets only, for a note is kept as it is shown.

use runback_core::Json;
use runback_core::step::{Cx, StepError};
use serde::{Deserialize, Serialize};

/// A replacement that was about to be made. Whether it was, what stands there tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Told {
    /// The hash, or the link's target, that stood there; None = nothing.
    pub(crate) over: Option<String>,
    /// The hash, or the link's target, that takes its place.
    pub(crate) with: String,
}

const KEY: &str = "replaces";
const UNDO_KEY: &str = "takes_back";

/// Call it right before the replacement.
pub(crate) async fn tell(cx: &Cx<'_>, over: Option<&str>, with: &str) -> Result<(), StepError> {
    let told = Told { over: over.map(str::to_owned), with: with.to_owned() };
    cx.host.note(serde_json::json!({ KEY: told })).await
}

/// What was told last is not done after all.
pub(crate) async fn untell(cx: &Cx<'_>) -> Result<(), StepError> {
    cx.host.note(serde_json::json!({ KEY: Json::Null })).await
}

/// Oldest first.
pub(crate) fn told(cx: &Cx<'_>) -> Vec<Told> {
    let mut all = Vec::new();
    for note in cx.host.notes() {
        match note.get(KEY) {
            Some(Json::Null) => drop(all.pop()),
            Some(told) => all.extend(Told::deserialize(told)),
            None => {}
        }
    }
    all
}

/// Undo is about to take a change out of a file that others changed too.
pub(crate) async fn tell_undo(cx: &Cx<'_>) -> Result<(), StepError> {
    if told_undo(cx) {
        return Ok(());
    }
    cx.host.note(serde_json::json!({ UNDO_KEY: true })).await
}

/// An earlier undo may have done its work already.
pub(crate) fn told_undo(cx: &Cx<'_>) -> bool {
    cx.host.notes().iter().any(|note| note.get(UNDO_KEY).is_some())
}
