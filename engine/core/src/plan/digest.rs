//! What two plans must share to be the same plan: the texts, the version of the language, and what the step
//! types say of themselves. An approval is bound to it.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use super::Plan;

pub(super) fn of(plan: &Plan) -> String {
    let mut hash = Sha256::new();
    hash.update(b"runback plan 1\0");
    for (_, source) in plan.sources.iter() {
        hash.update((source.text.len() as u64).to_le_bytes());
        hash.update(source.text.as_bytes());
    }
    for (idx, step) in plan.iter() {
        hash.update(step.id.as_bytes());
        hash.update([0]);
        hash.update(step.type_name().as_bytes());
        if let Some(action) = step.action() {
            hash.update([action.access as u8, action.undo_kind() as u8]);
        }
        for need in plan.edges.needs(idx) {
            hash.update(need.0.to_le_bytes());
        }
    }
    let mut hex = String::with_capacity(64);
    for byte in hash.finalize() {
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}
