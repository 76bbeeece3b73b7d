//! What others ask of a run through the store, and what its own terminal asks.

use runback_core::Json;
use runback_core::event::{CancelReason, EventBody, OnFailure, Resolution};
use runback_core::state::Phase;

use super::attempt::StopReason;
use super::{Control, Driver, DriverError, Gate, nothing_to_take_back};
use crate::store::Request;

impl Driver {
    pub(super) async fn take_requests(&mut self) -> Result<(), DriverError> {
        let changed = self.engine.store.changed().await?;
        if self.store_seen.replace(changed) == Some(changed) {
            return Ok(());
        }
        for posted in self.engine.store.take_requests(&self.lease).await? {
            self.requests_taken = true;
            self.request(posted.request)?;
        }
        Ok(())
    }

    /// What was answered while nobody had the run counts for the attempt that asked, which is over now, and with that
    /// for the one that comes after it. Gives back what else was asked for and is still to be done.
    pub(super) async fn take_answers(&mut self) -> Result<Vec<Request>, DriverError> {
        let stopped = matches!(self.state.phase, Phase::Held(_) | Phase::Finished(_));
        let mut others = Vec::new();
        for posted in self.engine.store.take_requests(&self.lease).await? {
            self.requests_taken = true;
            match posted.request {
                answer @ Request::Answer { .. } => self.request(answer)?,
                late if stopped => self.too_late(&late),
                other => others.push(other),
            }
        }
        Ok(others)
    }

    /// It came when the run had stopped, and who drove it did not hear it any more. Whoever goes on with the run since
    /// wants that.
    fn too_late(&mut self, request: &Request) {
        let (by, what) = match request {
            // Counts whenever it comes.
            Request::Answer { .. } => return,
            Request::Cancel { by, .. } => (by, "it to be cancelled".to_owned()),
            Request::Hold { by } => (by, "it to be held".to_owned()),
            Request::Rollback { by, .. } => (by, "it to be taken back".to_owned()),
            Request::Resolve { step, by, .. } => (by, format!("to settle {step}")),
        };
        self.warnings.push(format!("{by} wanted {what} when the run had stopped; that is not done now"));
    }

    pub(super) fn request(&mut self, request: Request) -> Result<(), DriverError> {
        match request {
            Request::Answer { step, answer } => match self.state.find(&step) {
                Some(node) if self.state.node(node).question().is_some() => self.answered(node, answer),
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
                let why = format!("{by} cannot hold the run");
                self.record_if_possible(EventBody::HoldRequested { by }, &why)
            }
            Request::Rollback { by, .. } if self.state.phase == Phase::Created => {
                self.record_if_possible(nothing_to_take_back(by), "the run is not started")
            }
            Request::Rollback { by, force: false } if self.state.phase == Phase::RollingBack => {
                self.warnings.push(format!("{by} asks for a rollback, which is under way"));
                Ok(())
            }
            Request::Rollback { by, force } => {
                let why = format!("{by} cannot have the run taken back");
                self.record_if_possible(EventBody::RollbackRequested { by, force }, &why)
            }
            Request::Resolve { step, resolution, outputs, by } => {
                let otherwise = format!("{by} cannot settle {step}");
                match self.settled_by(by, &step, resolution, outputs) {
                    Ok(body) => self.record_if_possible(body, &otherwise),
                    Err(why) => {
                        self.warnings.push(format!("{otherwise}: {why}"));
                        Ok(())
                    }
                }
            }
        }
    }

    /// What somebody says of a step. Nobody may say that one which asks people is done, or not wanted: their answers do.
    pub(super) fn settled_by(
        &self,
        by: String,
        step: &str,
        resolution: Resolution,
        outputs: Json,
    ) -> Result<EventBody, &'static str> {
        let passes_over = matches!(resolution, Resolution::Done | Resolution::Skip);
        if passes_over && self.state.find(step).is_some_and(|node| self.state.node(node).asked()) {
            return Err("it asks people, and only their answers count; it can be asked again with `redo`");
        }
        let (step, by) = (step.into(), Some(by));
        Ok(EventBody::StepResolved { step, resolution, by, outputs, changed: true, masked: Vec::new() })
    }

    /// What somebody outside wants: where the state does not allow it, that is a warning.
    fn record_if_possible(&mut self, body: EventBody, otherwise: &str) -> Result<(), DriverError> {
        match self.record(body) {
            Err(DriverError::Illegal(illegal)) => {
                self.warnings.push(format!("{otherwise}: {}", illegal.why));
                Ok(())
            }
            other => other,
        }
    }

    pub(super) fn control(&mut self, control: Control) -> Result<(), DriverError> {
        match control {
            Control::Cancel if self.cancelled => {
                self.leave();
                Ok(())
            }
            Control::Cancel if self.gate == Gate::Retake => {
                // This process has begun nothing, so there is nothing to stop and nothing to take back.
                self.cancelled = true;
                self.warnings.push("the run is left as it was".to_owned());
                self.leave();
                Ok(())
            }
            Control::Cancel => {
                let by = self.around.by.clone();
                let was = self.state.cancel;
                self.cancel(by)?;
                if was.is_none() && self.state.cancel.is_some() {
                    let then = match self.state.on_failure() {
                        OnFailure::Rollback => "taken back",
                        OnFailure::Hold => "held",
                        OnFailure::Continue => "over",
                    };
                    self.warnings.push(format!(
                        "what runs is being stopped, then the run is {then}; Ctrl-C once more leaves it at once, and \
                         `runback resume {}` goes on with that",
                        self.run
                    ));
                }
                Ok(())
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
                let what = "the run is being taken back; once more leaves it at once";
                self.warnings.push(format!("{what}, to be taken up with `runback resume {}`", self.run));
                Ok(())
            }
            Phase::Finally => {
                let what = "`finally` is done to its end; once more leaves the run at once";
                self.warnings.push(format!("{what}, to be taken up with `runback resume {}`", self.run));
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
