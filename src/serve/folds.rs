//! States of runs that were looked at lately, each folded once and then followed. A cache: what is in it is what the
//! journal says, up to the moment at which it is looked at.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Mutex as Turn;

use super::App;
use super::problem::Problem;
use crate::journal::{self, Run};

/// Runs that are kept; the one that was looked at longest ago goes first.
const KEPT: usize = 32;

type Kept = Arc<Turn<Option<Run>>>;

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
        if runs.len() > KEPT {
            runs.pop_front();
        }
        kept
    }

    /// Looks at a run as it is now; `run` must be its whole id.
    pub(crate) async fn look<T>(&self, app: &App, run: &str, look: impl FnOnce(&Run) -> T) -> Result<T, Problem> {
        let place = self.place(run);
        let mut kept = place.lock().await;
        let store = app.store.as_ref();
        if let Some(found) = kept.as_mut() {
            let brought_up = async {
                found.owner = store.owner(run).await?;
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
        Ok(look(kept.insert(found)))
    }
}
