//! Whether an action came to change anything: told right before its first change. What stands there after one that failed
//! before it is not its work, and its undo leaves it alone.

use runback_core::Json;
use runback_core::step::{Cx, StepError};
use serde_json::json;

const KEY: &str = "begins";

/// Call it right before the first change.
pub(crate) async fn begins(cx: &Cx<'_>) -> Result<(), StepError> {
    if begun(cx) { Ok(()) } else { cx.host.note(json!({ KEY: true })).await }
}

/// The change was refused, and nothing has come of it.
pub(crate) async fn never_began(cx: &Cx<'_>) -> Result<(), StepError> {
    cx.host.note(json!({ KEY: false })).await
}

/// Does what changes something, and tells when. What the program itself refused, at the first try, and left all as it was
/// never began; one that was stopped, or whose answer was lost, may change it yet.
pub(crate) async fn changing<T>(
    cx: &Cx<'_>,
    work: impl Future<Output = Result<T, StepError>>,
    is_as_before: impl Future<Output = bool>,
) -> Result<T, StepError> {
    let first = !begun(cx);
    begins(cx).await?;
    let done = work.await;
    if first && done.as_ref().is_err_and(|e| e.exit_code.is_some()) && is_as_before.await {
        never_began(cx).await?;
    }
    done
}

/// Some attempt of this step may have changed something.
pub(crate) fn begun(cx: &Cx<'_>) -> bool {
    cx.host.notes().iter().filter_map(|note| note.get(KEY).and_then(Json::as_bool)).next_back().unwrap_or(false)
}

/// In a capture: the action tells when it begins. Not so in runs of runback 0.1 that began before it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct Tells(bool);

impl Tells {
    pub(crate) const YES: Self = Self(true);

    /// There is nothing of this step to take back, whatever stands there now.
    pub(crate) fn nothing_of(self, cx: &Cx<'_>, outputs: Option<&impl Sized>) -> bool {
        self.0 && outputs.is_none() && !begun(cx)
    }

    /// What is there now, and was not at capture, is not from an attempt of this step.
    pub(crate) fn strangers(self, cx: &Cx<'_>) -> bool {
        self.0 && !begun(cx)
    }
}
