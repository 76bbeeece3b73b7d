//! Waiting that ends: by a limit, or because the attempt was told to stop. Knows no step type.

use std::time::Duration;

use runback_core::step::{Class, Cx, StepError};

use crate::period::Period;

pub(crate) fn cancelled(what: &str) -> StepError {
    StepError::new(Class::Cancelled, format!("{what}: told to stop"))
}

/// Runs `work` for at most `limit`. `what` names it in the message of a timeout or a cancel.
pub(crate) async fn within<T>(
    cx: &Cx<'_>,
    limit: Duration,
    what: &str,
    work: impl Future<Output = Result<T, StepError>>,
) -> Result<T, StepError> {
    tokio::select! {
        biased;
        done = work => done,
        () = cx.host.stopped() => Err(cancelled(what)),
        () = cx.host.sleep(limit) => {
            Err(StepError::new(Class::Timeout, format!("{what}: no answer within {}", Period(limit))))
        }
    }
}

/// Sleeps by the run's clock.
pub(crate) async fn pause(cx: &Cx<'_>, duration: Duration, what: &str) -> Result<(), StepError> {
    tokio::select! {
        biased;
        () = cx.host.stopped() => Err(cancelled(what)),
        () = cx.host.sleep(duration) => Ok(()),
    }
}
