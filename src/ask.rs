//! What is asked of the process that drives a run: by the store, and heard there, or taken back by who asked.

use std::time::Duration;

use runback_core::Json;
use runback_core::event::Resolution;
use runback_core::state::Phase;
use runback_core::step::Catalog;
use runback_exec::store::{Request, Store};
use tokio::time::Instant;

use crate::failure::Failure;
use crate::journal;

/// How long who drove a run may take to let it go: connections are closed, and last words are said.
const LETS_GO: Duration = Duration::from_secs(5);

/// A run that is over or held is for a moment still in the hands of who drove it, who hears no requests any more. Waits
/// until it is let go, so that what is asked for next is not lost; for anything else it does not wait.
pub(crate) async fn let_go(store: &dyn Store, run: &str, catalog: &Catalog) -> Result<(), Failure> {
    let until = Instant::now() + LETS_GO;
    while store.owner(run).await?.is_some() && Instant::now() < until {
        match journal::fold(store, run, catalog).await {
            Ok(state) if matches!(state.phase, Phase::Held(_) | Phase::Finished(_)) => {}
            _ => break,
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Whether whoever drives the run heard a request that was posted. What nobody hears any more, since that process went, is
/// withdrawn: who asks does it then, or says that it is not done. One that takes its time hears it later.
pub(crate) async fn heard(store: &dyn Store, run: &str, request: u64) -> Result<bool, Failure> {
    let until = Instant::now() + LETS_GO;
    while store.is_pending(run, request).await? && Instant::now() < until {
        if store.owner(run).await?.is_none() {
            return Ok(!store.withdraw_request(run, request).await?);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(true)
}

pub(crate) fn settle(step: &str, resolution: Resolution, by: &str) -> Request {
    Request::Resolve { step: step.to_owned(), resolution, outputs: Json::Null, by: by.to_owned() }
}

/// Tells whoever drives the run what steps count as; gives back of which they did not hear.
pub(crate) async fn tell(
    store: &dyn Store,
    run: &str,
    steps: &[(String, Resolution)],
    by: &str,
) -> Result<Vec<(String, Resolution)>, Failure> {
    let mut posted = Vec::new();
    for (step, resolution) in steps {
        posted.push(store.post(run, settle(step, *resolution, by)).await?);
    }
    let mut left = Vec::new();
    for (said, request) in steps.iter().zip(posted) {
        if !heard(store, run, request).await? {
            left.push(said.clone());
        }
    }
    Ok(left)
}
