//! Ephemeral notices of a running attempt. Never stored; the durable facts are [`crate::event`]'s.

use serde::Serialize;

/// What a step says of itself while it acts.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Progress {
    /// The phase it is in, or what it waits for: "waiting for 3 of 5 pods".
    Phase { text: String },
    /// How far it is.
    Percent { percent: f32, text: String },
}
