//! Which event may come when. Reads the state, never changes it.

use super::{FINAL, NodeId, Phase, RunState, Status, UndoStatus, Wish};
use crate::event::{EventBody, Outcome, StepPath};
use crate::plan::PlanKind;

impl RunState {
    fn known(&self, step: &StepPath) -> Result<NodeId, String> {
        self.find(step).ok_or_else(|| format!("there is no step {step}"))
    }

    /// Whether the event may come now. Changes nothing.
    pub(super) fn check(&self, body: &EventBody) -> Result<(), String> {
        use EventBody as E;
        let phase = |allowed: &[Phase]| {
            if allowed.contains(&self.phase) { Ok(()) } else { Err(format!("the run is {}", self.phase_name())) }
        };
        let going = || phase(&[Phase::Running, Phase::Finally]);
        let status = |step: &StepPath, allowed: &[Status]| {
            let node = self.known(step)?;
            let status = self.node(node).status;
            if allowed.contains(&status) { Ok(node) } else { Err(format!("the step is {}", status.name())) }
        };
        let attempt = |node: NodeId, attempt: u32| {
            let have = self.node(node).attempts;
            if have == attempt { Ok(()) } else { Err(format!("attempt {have} is the current one")) }
        };
        let acting = |step: &StepPath, n: u32| {
            let node = status(step, &[Status::Running])?;
            if self.step(node).action().is_none() {
                return Err("only actions have attempts".to_owned());
            }
            attempt(node, n).map(|()| node)
        };
        let undo_attempt = |node: NodeId, attempt: u32| {
            let have = self.node(node).undo_attempts;
            if have == attempt { Ok(()) } else { Err(format!("undo attempt {have} is the current one")) }
        };
        match body {
            E::RunCreated(_) => {
                if self.created.is_some() {
                    return Err("the run is already created".to_owned());
                }
                Ok(())
            }
            _ if self.created.is_none() => Err("the run is not created yet".to_owned()),
            E::RunStarted {} | E::LockTaken { step: None, .. } => phase(&[Phase::Created]),
            E::BlockStarted { step } => {
                going()?;
                let node = status(step, &[Status::Ready])?;
                match self.kind(node) {
                    PlanKind::Block(_) => Ok(()),
                    PlanKind::ForEach(_) if self.is_expanded(node) => Ok(()),
                    PlanKind::ForEach(_) => Err("the step has no instances yet".to_owned()),
                    PlanKind::Action(_) => Err("the step is not a block".to_owned()),
                }
            }
            E::StepExpanded { step, items } => {
                going()?;
                let node = status(step, &[Status::Ready])?;
                let PlanKind::ForEach(_) = self.kind(node) else {
                    return Err("the step has no for_each".to_owned());
                };
                if self.is_expanded(node) {
                    return Err("the step has its instances already".to_owned());
                }
                let mut keys: Vec<_> = items.iter().map(|i| &i.key).collect();
                keys.sort();
                match keys.windows(2).find(|w| w[0] == w[1]) {
                    Some(twice) => Err(format!("two items have the key {}", twice[0])),
                    None => Ok(()),
                }
            }
            E::StepSkipped { step, .. } => going().and_then(|()| status(step, &[Status::Ready]).map(drop)),
            E::StepFailed { step, .. } => {
                going().and_then(|()| status(step, &[Status::Ready, Status::Backoff]).map(drop))
            }
            E::AttemptStarted { step, attempt } => {
                going()?;
                let node = status(step, &[Status::Ready, Status::Backoff])?;
                if self.step(node).action().is_none() {
                    return Err("only actions have attempts".to_owned());
                }
                let want = self.node(node).attempts + 1;
                if *attempt == want { Ok(()) } else { Err(format!("attempt {want} comes next")) }
            }
            E::UndoArmed { step, attempt: n, .. } => {
                let node = acting(step, *n)?;
                if self.node(node).armed { Err("its undo is armed already".to_owned()) } else { Ok(()) }
            }
            E::ProcessStarted { step, attempt: n, .. } | E::StepNoted { step, attempt: n, .. } => {
                let node = self.known(step)?;
                if self.undo_active.contains(&node) {
                    return Ok(());
                }
                acting(step, *n).map(drop)
            }
            E::AttemptSucceeded { step, attempt: n, .. } | E::AttemptFailed { step, attempt: n, .. } => {
                acting(step, *n).map(drop)
            }
            E::ApprovalRequested { step, attempt: n, .. } | E::AttemptInterrupted { step, attempt: n } => {
                let node = self.known(step)?;
                if self.undo_active.contains(&node) {
                    return undo_attempt(node, *n);
                }
                acting(step, *n).map(drop)
            }
            E::DoubtRaised { step, attempt: n, .. } => attempt(status(step, &[Status::Interrupted])?, *n),
            E::StepResolved { step, resolution, .. } if resolution.is_of_undo() => {
                self.may_resolve_undo(self.known(step)?)
            }
            E::StepResolved { step, .. } => self.may_resolve(self.known(step)?),
            E::ApprovalGiven { step, .. } | E::ApprovalRefused { step, .. } => {
                let node = self.known(step)?;
                if self.node(node).question().is_some() { Ok(()) } else { Err("nothing was asked".to_owned()) }
            }
            E::LockTaken { step: Some(step), .. } => status(step, &[Status::Ready, Status::Backoff]).map(drop),
            E::CancelRequested { .. } => {
                phase(&[Phase::Created, Phase::Running])?;
                if self.cancel.is_some() { Err("it is being cancelled already".to_owned()) } else { Ok(()) }
            }
            E::RollbackStarted { step: Some(step), .. } => {
                let node = status(step, &[Status::Running])?;
                let root = self.root(node);
                phase(&[if root == FINAL { Phase::Finally } else { Phase::Running }])?;
                if self.is_halted(self.parent(node)) {
                    return Err("what is around it ends as a whole".to_owned());
                }
                if self.quiet.contains(&node) { Ok(()) } else { Err("something inside still runs".to_owned()) }
            }
            E::RollbackRequested { .. } => self.has_what_to_take_back(),
            E::HoldRequested { .. } => {
                phase(&[Phase::Created, Phase::Running])?;
                match self.wish {
                    Some(Wish::Rollback { .. }) => Err("it is to be taken back".to_owned()),
                    Some(Wish::Hold) | None => Ok(()),
                }
            }
            E::RollbackStarted { step: None, .. } => {
                self.has_what_to_take_back()?;
                self.nothing_runs()
            }
            E::UndoStarted { step, attempt } => {
                let node = self.known(step)?;
                let n = self.node(node);
                if !matches!(n.undo, UndoStatus::Ready | UndoStatus::Backoff) {
                    return Err(format!("its undo is {:?}", n.undo));
                }
                let want = n.undo_attempts + 1;
                if *attempt == want { Ok(()) } else { Err(format!("undo attempt {want} comes next")) }
            }
            E::UndoSucceeded { step, attempt, .. } | E::UndoFailed { step, attempt, .. } => {
                let n = self.node(self.known(step)?);
                if n.undo != UndoStatus::Undoing {
                    return Err(format!("its undo is {:?}", n.undo));
                }
                undo_attempt(self.known(step)?, *attempt)
            }
            // One that has not begun is held as it is.
            E::RunHeld { .. } if self.phase == Phase::Created && self.wish == Some(Wish::Hold) => Ok(()),
            E::RunHeld { .. } => {
                phase(&[Phase::Running])?;
                if self.takes_a_block_back() {
                    return Err("a block is being taken back".to_owned());
                }
                self.nothing_runs()
            }
            E::RunResumed { .. } => {
                if !self.active.iter().all(|n| self.node(*n).detached().is_some()) || !self.undo_active.is_empty() {
                    return Err("attempts are recorded as running; they must be interrupted first".to_owned());
                }
                match self.phase {
                    Phase::Finished(Outcome::Succeeded | Outcome::RolledBack | Outcome::Cancelled) => {
                        Err("the run is over".to_owned())
                    }
                    Phase::Created
                    | Phase::Running
                    | Phase::RollingBack
                    | Phase::Finally
                    | Phase::Ending
                    | Phase::Held(_)
                    | Phase::Finished(Outcome::Failed | Outcome::Stuck) => Ok(()),
                }
            }
            E::RunFinished { outcome, .. } => {
                phase(&[Phase::Ending])?;
                if self.ending == Some(*outcome) { Ok(()) } else { Err(format!("the outcome is {:?}", self.ending)) }
            }
        }
    }

    /// It was started, and is not taken back already.
    fn has_what_to_take_back(&self) -> Result<(), String> {
        match self.phase {
            Phase::Created | Phase::Finished(Outcome::RolledBack) => Err(format!("the run is {}", self.phase_name())),
            Phase::Running
            | Phase::RollingBack
            | Phase::Finally
            | Phase::Ending
            | Phase::Held(_)
            | Phase::Finished(Outcome::Succeeded | Outcome::Failed | Outcome::Stuck | Outcome::Cancelled) => Ok(()),
        }
    }

    /// What the run is doing, as it is said after "the run is".
    pub fn phase_name(&self) -> String {
        match self.phase {
            Phase::Created => "not started".to_owned(),
            Phase::Running => "running".to_owned(),
            Phase::RollingBack => "being taken back".to_owned(),
            Phase::Finally => "at its `finally`".to_owned(),
            Phase::Ending => "ending".to_owned(),
            Phase::Held(_) => "held".to_owned(),
            Phase::Finished(outcome) => outcome.to_string(),
        }
    }

    fn nothing_runs(&self) -> Result<(), String> {
        if self.is_quiet() { Ok(()) } else { Err("attempts still run".to_owned()) }
    }

    /// Whether a probe or a person may still say what an attempt counts as.
    pub fn can_be_resolved(&self, node: NodeId) -> bool {
        self.may_resolve(node).is_ok()
    }

    /// A person may say what a step counts as whose undo failed.
    pub fn undo_can_be_resolved(&self, node: NodeId) -> bool {
        self.may_resolve_undo(node).is_ok()
    }

    /// Why nothing can be said of the step's undo now, whatever becomes of an attempt whose process is gone.
    pub fn refuses_undo_resolution(&self, node: NodeId) -> Option<String> {
        if self.node(node).undo == UndoStatus::Undoing { None } else { self.may_resolve_undo(node).err() }
    }

    /// Its undo failed: for good, or it is to come again. While the run is on its way elsewhere, nothing could follow from it.
    fn may_resolve_undo(&self, node: NodeId) -> Result<(), String> {
        let n = self.node(node);
        let over = self.rollback_of(node).is_some_and(super::Rollback::is_over);
        let goes_on = !matches!(self.phase, Phase::Finished(_) | Phase::Held(_));
        match n.undo {
            UndoStatus::Failed if over && goes_on => {
                Err(format!("the run is {}; say it when it has come to its end", self.phase_name()))
            }
            UndoStatus::Failed | UndoStatus::Backoff => Ok(()),
            UndoStatus::Ready if n.undo_attempts > 0 => Ok(()),
            UndoStatus::Undoing => Err("its undo runs; wait for its end".to_owned()),
            _ => Err("no undo of it has failed".to_owned()),
        }
    }

    /// An attempt that is in doubt, or one that failed or was to be tried again, while the way forward is open.
    fn may_resolve(&self, node: NodeId) -> Result<(), String> {
        let n = self.node(node);
        if Self::is_root(node) || self.step(node).action().is_none() {
            return Err("only actions can be resolved".to_owned());
        }
        let in_finally = self.root(node) == FINAL;
        let phase = if in_finally { Phase::Finally } else { Phase::Running };
        if self.phase != phase {
            return Err(format!("the run is {}", self.phase_name()));
        }
        let tried = n.attempts > 0 && !n.dead;
        match n.status {
            Status::Interrupted => {}
            Status::Failed if !in_finally => {}
            Status::Blocked | Status::Ready | Status::Backoff if tried && !in_finally => {}
            Status::Failed => return Err("`finally` goes on without it".to_owned()),
            _ => return Err(format!("the step is {}", n.forward_name())),
        }
        for up in self.ancestors(node) {
            let u = self.node(up);
            if self.rollbacks.iter().any(|r| !r.done && r.of == up) || u.taken_back {
                return Err(format!("{} is taken back", self.path(up)));
            }
            if u.is_terminal() && (n.status != Status::Failed || self.is_satisfied(up)) {
                return Err(format!("{} has ended", self.path(up)));
            }
        }
        Ok(())
    }
}
