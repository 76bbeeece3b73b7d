//! What others ask of a run through the store, and what its own terminal asks.

use runback_core::event::{CancelReason, EventBody};
use runback_core::state::Phase;

use super::attempt::StopReason;
use super::{Control, Driver, DriverError};
use crate::store::Request;

impl Driver {
    pub(super) async fn take_requests(&mut self) -> Result<(), DriverError> {
        let changed = self.engine.store.changed().await?;
        if self.store_seen.replace(changed) == Some(changed) {
            return Ok(());
        }
        for posted in self.engine.store.take_requests(&self.lease).await? {
            self.request(posted.request)?;
        }
        Ok(())
    }

    fn request(&mut self, request: Request) -> Result<(), DriverError> {
        match request {
            Request::Answer { step, answer } => match self.state.find(&step) {
                Some(node) if self.asking.contains_key(&node) => self.answered(node, answer),
                _ => {
                    self.warnings.push(format!("{} answered for {step}, which asks nothing", answer.by));
                    Ok(())
                }
            },
            Request::Cancel { by, now: false } => self.cancel(by),
            Request::Cancel { by, now: true } => {
                self.warnings.push(format!("{by} stops this process; the run stays resumable"));
                self.leave();
                Ok(())
            }
            Request::Hold { by } => {
                self.hold_wanted = Some(by);
                Ok(())
            }
            Request::Rollback { by, force } => {
                self.rollback_wanted = Some((by, force));
                Ok(())
            }
            Request::Resolve { step, resolution, outputs, by } => {
                let body = EventBody::StepResolved {
                    step: step.as_str().into(),
                    resolution,
                    by: Some(by.clone()),
                    outputs,
                    changed: true,
                };
                match self.record(body) {
                    Err(DriverError::Illegal(illegal)) => {
                        self.warnings.push(format!("{by} cannot settle {step}: {}", illegal.why));
                        Ok(())
                    }
                    other => other,
                }
            }
        }
    }

    pub(super) fn control(&mut self, control: Control) -> Result<(), DriverError> {
        match control {
            Control::Cancel if self.cancelled => {
                self.leave();
                Ok(())
            }
            Control::Cancel => {
                let by = self.around.by.clone();
                self.cancel(by)
            }
            Control::Leave => {
                self.leave();
                Ok(())
            }
        }
    }

    fn cancel(&mut self, by: String) -> Result<(), DriverError> {
        self.cancelled = true;
        match self.state.phase {
            Phase::Created | Phase::Running if self.state.cancel.is_none() => {
                self.record(EventBody::CancelRequested { by, reason: CancelReason::Operator })
            }
            Phase::RollingBack => {
                self.warnings.push(
                    "the run is being taken back; once more leaves it at once, to be taken up with `runback resume`"
                        .to_owned(),
                );
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Stops at once. Detached commands live on, and a question stays asked: the run can be taken up again.
    pub(super) fn leave(&mut self) {
        self.leaving = true;
        for node in std::mem::take(&mut self.asking).into_keys() {
            if let Some(running) = self.running.remove(&node) {
                running.task.abort();
            }
        }
        for running in self.running.values() {
            if running.detached {
                running.task.abort();
            } else {
                running.stop.stop(StopReason::Leave);
            }
        }
        self.running.retain(|_, r| !r.detached);
    }
}
