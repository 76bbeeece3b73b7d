//! One after the other: who replaces a file holds its turn from reading it to replacing it, so that steps beside each
//! other do not lose each other's change. Within one process only; between processes there is
//! [`Target::alone_in_folder`](runback_core::target::Target::alone_in_folder), and a look right before the replacement.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use runback_core::step::Cx;
use tokio::sync::OwnedMutexGuard;

/// By the target's name and the path. Two names of one file have two turns; the look before the replacement is left to
/// them.
type Turns = BTreeMap<(String, String), Weak<tokio::sync::Mutex<()>>>;

static TURNS: Mutex<Turns> = Mutex::new(BTreeMap::new());

/// Waits for the turn; it ends when the guard is dropped.
pub(crate) async fn take(cx: &Cx<'_>, path: &str) -> OwnedMutexGuard<()> {
    let turn = {
        let mut turns = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        let key = (cx.target.name().to_owned(), path.to_owned());
        let turn = turns.get(&key).and_then(Weak::upgrade).unwrap_or_default();
        turns.insert(key, Arc::downgrade(&turn));
        turn
    };
    turn.lock_owned().await
}
