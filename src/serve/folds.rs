//! States of runs that were looked at lately, each folded once and then followed. A cache: what is in it is what the
//! journal says, up to the moment at which it is looked at.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Mutex as Turn;

use super::App;
use super::problem::Problem;
use crate::journal::{self, Run};

/// Runs that are kept, and steps in all of them; the one that was looked at longest ago goes first.
const KEPT: usize = 32;
const KEPT_STEPS: usize = 100_000;

#[derive(Default)]
struct Fold {
    run: Turn<Option<Run>>,
    steps: AtomicUsize,
}

type Kept = Arc<Fold>;

#[derive(Default)]
pub(crate) struct Folds {
    runs: Mutex<VecDeque<(String, Kept)>>,
}

impl Folds {
    /// The place of a run, now the last to go.
    fn place(&self, run: &str) -> Kept {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        let at = runs.iter().position(|(id, _)| id == run);
        let (id, kept) = match at.and_then(|at| runs.remove(at)) {
            Some(found) => found,
            None => (run.to_owned(), Kept::default()),
        };
        runs.push_back((id, Arc::clone(&kept)));
        let mut steps: usize = runs.iter().map(|(_, fold)| fold.steps.load(Ordering::Relaxed)).sum();
        while runs.len() > KEPT || (steps > KEPT_STEPS && runs.len() > 1) {
            let gone = runs.pop_front();
            steps -= gone.map_or(0, |(_, fold)| fold.steps.load(Ordering::Relaxed)).min(steps);
        }
        kept
    }

    /// Looks at a run as it is now; `run` must be its whole id.
    pub(crate) async fn look<T>(&self, app: &App, run: &str, look: impl FnOnce(&Run) -> T) -> Result<T, Problem> {
        let place = self.place(run);
        let mut kept = place.run.lock().await;
        let store = app.store.as_ref();
        if let Some(found) = kept.as_mut() {
            let brought_up = async {
                found.owner = store.owner(run).await?;
                found.waits_for_locks = journal::waits_for_locks(store, run).await?;
                journal::advance(store, run, &mut found.state).await
            };
            if let Err(failure) = brought_up.await {
                // It may be gone, or be another run of the same name: read it anew the next time.
                *kept = None;
                store.run(run).await?;
                return Err(failure.into());
            }
        }
        let found = match kept.take() {
            Some(found) => found,
            None => journal::read(store, run, &app.catalog).await?,
        };
        place.steps.store(found.state.ids().count(), Ordering::Relaxed);
        Ok(look(kept.insert(found)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded_by_runs_and_by_steps() {
        let folds = Folds::default();
        let ids = || folds.runs.lock().unwrap_or_else(PoisonError::into_inner).len();
        for n in 0..100 {
            folds.place(&n.to_string()).steps.store(1, Ordering::Relaxed);
        }
        assert_eq!(ids(), KEPT);
        for n in 0..10 {
            folds.place(&format!("large-{n}")).steps.store(40_000, Ordering::Relaxed);
        }
        folds.place("last");
        assert_eq!(ids(), 3, "the last, and two large ones before it");
        // One that is larger than all there is room for is kept while it is the last.
        folds.place("last").steps.store(KEPT_STEPS * 2, Ordering::Relaxed);
        folds.place("last");
        assert_eq!(ids(), 1);
    }
}
