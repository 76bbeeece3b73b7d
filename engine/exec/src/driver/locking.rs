//! Named locks of a run and of its steps: asked of the store, waited for, taken again after a restart.

use std::collections::HashMap;
use std::sync::Arc;

use runback_core::decide::{RUNBACK, run_lock_names};
use runback_core::event::{CancelReason, EventBody};
use runback_core::state::{NodeId, RunState};
use runback_core::step::StepError;

use super::{Driver, DriverError, holder};
use crate::reporter::{Nobody, Notice, Reporter};
use crate::store::{LockAttempt, LockWaiting};

/// Steps that wait for locks, and who was said to be in the way last.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    steps: HashMap<NodeId, (Vec<String>, String)>,
    /// The same for the run's own.
    run: Option<String>,
}

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    pub(super) fn has(&self, node: NodeId) -> bool {
        self.steps.contains_key(&node)
    }
}

impl Driver {
    /// Takes the run's own locks before it starts. True = they are taken.
    pub(super) async fn lock_run(&mut self, wait: bool, io: &mut dyn Reporter) -> Result<bool, DriverError> {
        // Such a run is not created; one of an older runback may be there.
        let names = match run_locks(&self.state) {
            Ok(names) => names,
            Err(refused) => return self.never_begins(RUNBACK.to_owned(), refused, io).await,
        };
        let (by, refused) = match self.engine.store.try_lock(&self.lease, None, &names).await? {
            LockAttempt::Taken => {
                self.record(EventBody::LockTaken { step: None, names })?;
                return Ok(true);
            }
            LockAttempt::Waiting(waiting) if wait => {
                self.run_waits(&waiting, io);
                return Ok(false);
            }
            // Somebody wants it, and may try again.
            LockAttempt::Waiting(waiting) if self.state.resumes() > 0 => {
                self.batch.clear();
                return Err(locked(waiting));
            }
            LockAttempt::Waiting(waiting) => (format!("{RUNBACK}: {}", holder(&waiting)), locked(waiting)),
            LockAttempt::Deadlock { cycle } => (RUNBACK.to_owned(), DriverError::Deadlock { cycle }),
        };
        self.never_begins(by, refused, io).await
    }

    /// Nothing ran: the run ends as cancelled, and its journal says on whose account.
    async fn never_begins(
        &mut self,
        by: String,
        refused: DriverError,
        io: &mut dyn Reporter,
    ) -> Result<bool, DriverError> {
        self.record(EventBody::CancelRequested { by, reason: CancelReason::Operator })?;
        self.settle(io, &Nobody).await?;
        self.commit(io).await?;
        Err(refused)
    }

    /// Takes again what an earlier process of this run had. True = all are taken. Refused, it is left as it was.
    pub(super) async fn retake_locks(&mut self, wait: bool, io: &mut dyn Reporter) -> Result<bool, DriverError> {
        let names: Vec<String> = self.state.locks.iter().cloned().collect();
        let refused = match self.engine.store.try_lock(&self.lease, None, &names).await? {
            LockAttempt::Taken => return Ok(true),
            LockAttempt::Waiting(waiting) if wait => {
                self.run_waits(&waiting, io);
                return Ok(false);
            }
            LockAttempt::Waiting(waiting) => locked(waiting),
            LockAttempt::Deadlock { cycle } => DriverError::Deadlock { cycle },
        };
        self.batch.clear();
        Err(refused)
    }

    fn run_waits(&mut self, waiting: &LockWaiting, io: &mut dyn Reporter) {
        let why = holder(waiting);
        if self.locks.run.as_ref() != Some(&why) {
            io.notice(&self.state, &Notice::LockWait { node: None, why: &why });
            self.locks.run = Some(why);
        }
    }

    pub(super) async fn lock_step(
        &mut self,
        node: NodeId,
        names: Vec<String>,
        io: &mut dyn Reporter,
    ) -> Result<(), DriverError> {
        let step = Arc::clone(self.state.path(node));
        let attempt = self.engine.store.try_lock(&self.lease, Some(&step), &names).await?;
        match attempt {
            LockAttempt::Taken => {
                self.locks.steps.remove(&node);
                self.record(EventBody::LockTaken { step: Some(step), names })
            }
            LockAttempt::Waiting(waiting) => {
                let why = holder(&waiting);
                let before = self.locks.steps.insert(node, (names, why.clone()));
                if before.is_none_or(|(_, said)| said != why) {
                    io.notice(&self.state, &Notice::LockWait { node: Some(node), why: &why });
                }
                Ok(())
            }
            LockAttempt::Deadlock { cycle } => {
                self.locks.steps.remove(&node);
                let around: Vec<_> =
                    cycle.iter().map(|w| format!("run {} waits for `{}` of run {}", w.run, w.name, w.holder)).collect();
                let error = StepError::conflict(format!("its locks can never be had: {}", around.join(", ")))
                    .help("one of these runs has to give way; this one does");
                self.record(EventBody::StepFailed { step, error })
            }
        }
    }

    /// Steps that are not wanted any more leave the queue; the others ask again.
    pub(super) async fn retry_locks(&mut self, io: &mut dyn Reporter) -> Result<(), DriverError> {
        let waiting: Vec<_> = self.locks.steps.iter().map(|(n, (names, _))| (*n, names.clone())).collect();
        for (node, names) in waiting {
            if self.state.node(node).status == runback_core::state::Status::Ready {
                self.lock_step(node, names, io).await?;
            } else {
                self.locks.steps.remove(&node);
                let step = Arc::clone(self.state.path(node));
                self.engine.store.withdraw_lock(&self.lease, Some(&step)).await?;
            }
        }
        Ok(())
    }
}

/// The names of the run's own locks; a run that cannot know them is refused.
pub(super) fn run_locks(state: &RunState) -> Result<Vec<String>, DriverError> {
    run_lock_names(state).map_err(|e| DriverError::Refused { message: e.message, help: e.help.unwrap_or_default() })
}

fn locked(waiting: LockWaiting) -> DriverError {
    DriverError::Locked { name: waiting.name, holder: waiting.run, step: waiting.step }
}
