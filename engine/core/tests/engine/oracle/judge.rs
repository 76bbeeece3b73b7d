//! The rules: what may come when.

use std::collections::BTreeSet;

use runback_core::event::{CancelReason, Event, EventBody, HoldReason, Outcome, Resolution, RollbackReason};
use runback_core::step::Class;

use super::super::spec::{Policy, Spec, When};
use super::tree::{Act, FINAL, MAIN, Role, Sum, Tree, Undo};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Created,
    Main,
    Rolling,
    Finally,
    Held,
    Finished(Outcome),
}

/// What somebody asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Rollback,
    Hold,
}

struct Roll {
    of: usize,
    expected: BTreeSet<usize>,
}

struct Judge<'s> {
    tree: Tree<'s>,
    phase: Phase,
    cancel: Option<CancelReason>,
    hold: bool,
    wanted: Option<Wanted>,
    /// Of the run as a whole, the last one.
    reason: Option<RollbackReason>,
    rolls: Vec<Roll>,
    finally_done: bool,
    ending: Option<Outcome>,
    /// A person settled a failure: an instance with two failures of which one is settled goes on at once.
    settled: bool,
}

type Verdict = Result<(), String>;

fn ensure(holds: bool, why: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(why()) }
}

pub(crate) fn judge(spec: &Spec, trace: &[Event]) -> Verdict {
    let mut judge = Judge {
        tree: Tree::new(spec),
        phase: Phase::Created,
        cancel: None,
        hold: false,
        wanted: None,
        reason: None,
        rolls: Vec::new(),
        finally_done: false,
        ending: None,
        settled: false,
    };
    for event in trace {
        judge.event(event).and_then(|()| judge.always()).map_err(|why| {
            let step = event.body.step().map(ToString::to_string).unwrap_or_default();
            format!("event {} ({} {step}): {why}", event.seq, event.body.type_name())
        })?;
    }
    match judge.phase {
        Phase::Finished(_) | Phase::Held => Ok(()),
        phase => Err(format!("the trace ends in {phase:?}")),
    }
}

impl Judge<'_> {
    fn at(&self, path: &str) -> Result<usize, String> {
        self.tree.by_path.get(path).copied().ok_or_else(|| format!("there is no step {path}"))
    }

    fn actions(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.tree.nodes.len()).filter(|n| self.tree.is_action(*n))
    }

    fn event(&mut self, event: &Event) -> Verdict {
        use EventBody as E;
        match &event.body {
            E::RunStarted {} => self.phase = Phase::Main,
            E::BlockStarted { step } => {
                let n = self.at(step)?;
                ensure(!self.tree.is_action(n), || "an action is not a block".to_owned())?;
                self.may_begin(n, event.at)?;
                self.may_run(n)?;
                self.tree.nodes[n].begun = true;
                self.has_its_lock_alone(n)?;
            }
            E::StepExpanded { step, items } => {
                let n = self.at(step)?;
                self.may_begin(n, event.at)?;
                self.may_run(n)?;
                ensure(self.tree.nodes[n].role == Role::Each, || "it is no for_each".to_owned())?;
                ensure(self.tree.nodes[n].kids.is_empty(), || "it has its instances already".to_owned())?;
                let keys: Vec<_> = items.iter().map(|i| i.key.as_str()).collect();
                self.tree.expand(n, &keys);
                self.tree.nodes[n].begun = true;
            }
            E::StepSkipped { step, .. } => {
                let n = self.at(step)?;
                self.may_begin(n, event.at)?;
                ensure(self.tree.when(n) != When::Always, || "it has no condition".to_owned())?;
                self.tree.nodes[n].act = Act::Skipped;
            }
            E::StepFailed { step, .. } => {
                let n = self.at(step)?;
                self.may_begin(n, event.at)?;
                let dynamic = self.tree.nodes[n].step.and_then(|s| s.each.as_ref()).is_some_and(|e| e.dynamic);
                let each = self.tree.nodes[n].role == Role::Each;
                // Two blocks that have a lock each, and want the other's inside.
                let around = self.tree.around(n);
                let crossed = self.tree.lock(n).is_some() && around.iter().any(|up| self.tree.lock(*up).is_some());
                ensure(each && dynamic || crossed, || "nothing of it could fail outside an attempt".to_owned())?;
                self.tree.nodes[n].act = Act::Failed;
            }
            E::LockTaken { step: Some(step), .. } => {
                let n = self.at(step)?;
                self.may_begin(n, event.at)?;
            }
            E::RunCreated(_) | E::LockTaken { step: None, .. } | E::ProcessStarted { .. } | E::StepNoted { .. } => {}
            E::AttemptStarted { step, attempt } => self.attempt_started(step, *attempt, event.at)?,
            E::UndoArmed { step, .. } => {
                let n = self.active(step)?;
                self.tree.nodes[n].armed = true;
            }
            E::AttemptSucceeded { step, changed, .. } => {
                let n = self.active(step)?;
                let node = &mut self.tree.nodes[n];
                node.act = Act::Succeeded;
                node.asking = false;
                node.changed |= changed;
            }
            E::AttemptFailed { step, error, retry_in, .. } => {
                let n = self.active(step)?;
                let node = &mut self.tree.nodes[n];
                node.asking = false;
                node.act = match (retry_in, error.class) {
                    (_, Class::Cancelled) => Act::Cancelled,
                    (Some(delay), _) => Act::Backoff(event.at + delay),
                    (None, _) => Act::Failed,
                };
            }
            E::AttemptInterrupted { step, .. } => {
                let n = self.at(step)?;
                let node = &mut self.tree.nodes[n];
                node.asking = false;
                if node.undo == Undo::Active {
                    node.undo = Undo::None;
                } else {
                    ensure(node.act == Act::Active, || format!("it is {:?}", node.act))?;
                    node.act = Act::Interrupted;
                }
            }
            E::DoubtRaised { step, .. } => {
                let n = self.at(step)?;
                let act = self.tree.nodes[n].act;
                ensure(act == Act::Interrupted, || format!("it is {act:?}"))?;
            }
            E::StepResolved { step, resolution, changed, .. } => self.resolved(step, *resolution, *changed)?,
            E::ApprovalRequested { step, .. } => {
                let n = self.active(step)?;
                self.tree.nodes[n].asking = true;
            }
            E::ApprovalGiven { step, .. } | E::ApprovalRefused { step, .. } => {
                self.active(step)?;
            }
            E::CancelRequested { reason, .. } => {
                ensure(self.phase == Phase::Main, || format!("the run is {:?}", self.phase))?;
                self.cancel = Some(*reason);
                self.tree.nodes[MAIN].halted = true;
            }
            E::RollbackRequested { .. } => self.wanted = Some(Wanted::Rollback),
            E::HoldRequested { .. } => {
                ensure(matches!(self.phase, Phase::Created | Phase::Main), || format!("the run is {:?}", self.phase))?;
                ensure(self.wanted != Some(Wanted::Rollback), || "it is to be taken back".to_owned())?;
                self.wanted = Some(Wanted::Hold);
            }
            E::RollbackStarted { step: None, reason, .. } => {
                let asked = self.wanted.take() == Some(Wanted::Rollback);
                ensure(!asked || *reason == RollbackReason::Operator, || "a person asked for it".to_owned())?;
                self.rollback(*reason)?;
            }
            E::RollbackStarted { step: Some(step), .. } => {
                let n = self.at(step)?;
                self.block_rollback(n)?;
            }
            E::UndoStarted { step, .. } => {
                ensure(self.wanted != Some(Wanted::Rollback), || "what is to be taken back waits".to_owned())?;
                self.undo_started(step)?;
            }
            E::UndoSucceeded { step, .. } => {
                let n = self.undoing(step)?;
                let node = &mut self.tree.nodes[n];
                node.undo = Undo::Done;
                node.started = false;
            }
            E::UndoFailed { step, retry_in, .. } => {
                let n = self.undoing(step)?;
                self.tree.nodes[n].undo = if retry_in.is_some() { Undo::Backoff } else { Undo::Failed };
            }
            E::RunHeld { reason } => {
                let wanted = self.wanted.take();
                ensure(wanted != Some(Wanted::Rollback), || "it is to be taken back".to_owned())?;
                self.held(*reason)?;
            }
            E::RunResumed { .. } => self.resumed()?,
            E::RunFinished { outcome, .. } => {
                ensure(self.wanted != Some(Wanted::Rollback), || "it is to be taken back".to_owned())?;
                self.wanted = None;
                self.finished(*outcome)?;
            }
        }
        self.follow();
        Ok(())
    }

    fn active(&self, step: &str) -> Result<usize, String> {
        let n = self.at(step)?;
        let act = self.tree.nodes[n].act;
        ensure(act == Act::Active, || format!("it is {act:?}"))?;
        Ok(n)
    }

    fn undoing(&self, step: &str) -> Result<usize, String> {
        let n = self.at(step)?;
        let undo = self.tree.nodes[n].undo;
        ensure(undo == Undo::Active, || format!("its undo is {undo:?}"))?;
        Ok(n)
    }

    /// Its needs are satisfied, it is inside something that runs, and nothing around it wants an end.
    fn may_begin(&mut self, n: usize, at: u64) -> Verdict {
        ensure(self.wanted != Some(Wanted::Rollback), || "the run is to be taken back".to_owned())?;
        if self.tree.root(n) == FINAL {
            self.enter_finally()?;
        } else {
            ensure(self.wanted.is_none() || self.is_awaited(n), || "the run is to be held".to_owned())?;
            ensure(self.phase == Phase::Main, || format!("the run is {:?}", self.phase))?;
        }
        let tree = &self.tree;
        let up = tree.nodes[n].up;
        ensure(tree.nodes[up].begun && tree.sum(up) == Sum::Live, || format!("around it is {:?}", tree.sum(up)))?;
        ensure(!tree.is_halted(n), || "something around it is halted".to_owned())?;
        ensure(!tree.is_cut_off(n), || "something around it has failed fast".to_owned())?;
        for need in &tree.nodes[n].needs {
            ensure(tree.is_satisfied(*need), || {
                format!("its need {} is {:?}", tree.nodes[*need].path, tree.sum(*need))
            })?;
        }
        match tree.nodes[n].act {
            Act::Fresh => ensure(!tree.nodes[n].begun, || "it has begun".to_owned()),
            Act::Backoff(until) => ensure(until <= at, || format!("its next try is at {until}")),
            act => Err(format!("it is {act:?}")),
        }
    }

    /// A block is being taken back, and its undos may wait for what this has a lock for, or stands in.
    fn is_awaited(&self, n: usize) -> bool {
        let tree = &self.tree;
        let has_one = |o: usize| {
            let begun = tree.nodes[o].begun || matches!(tree.nodes[o].act, Act::Backoff(_));
            begun && tree.lock(o).is_some()
        };
        self.rolls.iter().any(|r| !self.roll_is_over(r)) && std::iter::once(n).chain(tree.around(n)).any(has_one)
    }

    fn may_run(&self, n: usize) -> Verdict {
        let allowed = match self.tree.when(n) {
            When::Always => true,
            When::Never => false,
            When::NeedSucceeded => {
                let first = self.tree.nodes[n].step.and_then(|s| s.needs.first());
                let up = self.tree.nodes[n].up;
                let need = self.tree.nodes[up]
                    .kids
                    .iter()
                    .find(|k| self.tree.nodes[**k].step.is_some_and(|s| Some(&s.id) == first));
                need.is_some_and(|k| self.tree.sum(*k) == Sum::Good)
            }
        };
        ensure(allowed, || "its condition is false".to_owned())
    }

    fn attempt_started(&mut self, step: &str, attempt: u32, at: u64) -> Verdict {
        let n = self.at(step)?;
        ensure(self.tree.is_action(n), || "only actions have attempts".to_owned())?;
        self.may_begin(n, at)?;
        if self.tree.nodes[n].act == Act::Fresh {
            self.may_run(n)?;
        }
        let node = &mut self.tree.nodes[n];
        node.attempts += 1;
        ensure(attempt == node.attempts, || format!("attempt {} comes next", node.attempts))?;
        node.act = Act::Active;
        node.started = true;
        if node.undo == Undo::Done {
            node.undo = Undo::None;
        }
        self.has_its_lock_alone(n)
    }

    /// Of what runs with the same lock, everything else stands around it. What was cut short before `finally` runs no more.
    fn has_its_lock_alone(&self, n: usize) -> Verdict {
        let tree = &self.tree;
        let Some(lock) = tree.lock(n).filter(|_| !self.settled) else { return Ok(()) };
        let around = tree.around(n);
        let runs = |o: usize| {
            let taken_back = tree.around(o).into_iter().any(|up| tree.nodes[up].rolled);
            let live = || tree.nodes[o].begun && tree.sum(o) == Sum::Live;
            !taken_back && if tree.is_action(o) { tree.nodes[o].act == Act::Active } else { live() }
        };
        let clash = (0..tree.nodes.len())
            .filter(|o| *o != n && tree.lock(*o) == Some(lock) && !around.contains(o) && tree.root(*o) == tree.root(n))
            .find(|o| runs(*o));
        ensure(clash.is_none(), || format!("{} has its lock", tree.nodes[clash.unwrap_or(n)].path))
    }

    fn resolved(&mut self, step: &str, resolution: Resolution, changed: bool) -> Verdict {
        let n = self.at(step)?;
        if resolution.is_of_undo() {
            let node = &mut self.tree.nodes[n];
            ensure(node.undo != Undo::Active, || "its undo runs".to_owned())?;
            if resolution == Resolution::Undone {
                (node.undo, node.started) = (Undo::Done, false);
            } else {
                (node.undo, node.kept) = (Undo::None, true);
            }
            return Ok(());
        }
        let act = self.tree.nodes[n].act;
        ensure(matches!(act, Act::Failed | Act::Interrupted), || format!("it is {act:?}"))?;
        if act == Act::Failed {
            self.forget_halts(Some(n));
            self.settled = true;
        }
        let node = &mut self.tree.nodes[n];
        node.act = match resolution {
            Resolution::Done => Act::Succeeded,
            Resolution::Redo => Act::Fresh,
            Resolution::Fail => Act::Failed,
            Resolution::Skip => Act::Skipped,
            Resolution::Undone | Resolution::Kept => unreachable!("they are of an undo"),
        };
        node.changed |= changed && resolution == Resolution::Done;
        node.escalated = false;
        Ok(())
    }

    /// Something inside failed by itself, apart from what is being settled, and nothing absorbed it.
    fn has_failure(&self, of: usize, settled: Option<usize>) -> bool {
        self.tree.nodes[of].kids.iter().any(|n| {
            let node = &self.tree.nodes[*n];
            let own = node.act == Act::Failed || node.rolled || node.rolling;
            Some(*n) != settled && !self.tree.is_satisfied(*n) && (own || self.has_failure(*n, settled))
        })
    }

    /// A decision about a failure: what it had led to is worked out anew.
    fn forget_halts(&mut self, settled: Option<usize>) {
        self.hold = false;
        let closed = |tree: &Tree<'_>, n: usize| {
            tree.around(n)
                .into_iter()
                .filter(|up| *up != MAIN)
                .any(|up| tree.nodes[up].rolled || tree.nodes[up].rolling || tree.is_satisfied(up))
        };
        let stopped: Vec<usize> = self
            .actions()
            .filter(|n| {
                self.tree.nodes[*n].act == Act::Cancelled && self.tree.root(*n) == MAIN && !closed(&self.tree, *n)
            })
            .collect();
        // Instances that go on wait for a free place again, and what has a lock waits for it.
        let locked = |n: usize| self.tree.lock(n).is_some();
        let limited = |n: usize| {
            let up = &self.tree.nodes[self.tree.nodes[n].up];
            up.role == Role::Each && up.step.and_then(|s| s.each.as_ref()).is_some_and(|e| e.max_parallel.is_some())
        };
        let again: Vec<usize> = self
            .tree
            .inside(MAIN)
            .into_iter()
            .filter(|n| !self.tree.is_action(*n) && (limited(*n) || locked(*n)) && !self.tree.nodes[*n].rolled)
            .filter(|n| self.tree.nodes[*n].escalated && !closed(&self.tree, *n) && !self.has_failure(*n, settled))
            .collect();
        for n in again {
            // What had ended well or was absorbed in there stays so.
            let stays = |i: usize| i != n && self.tree.is_satisfied(i);
            let inner = self.tree.inside(n).into_iter();
            let inner = inner.filter(|i| !stays(*i) && !self.tree.around(*i).into_iter().any(stays));
            for inner in inner.chain([n]).collect::<Vec<_>>() {
                self.tree.nodes[inner].begun = false;
            }
        }
        for n in stopped {
            self.tree.nodes[n].act = Act::Fresh;
        }
        for n in 0..self.tree.nodes.len() {
            if self.tree.root(n) == MAIN {
                let node = &mut self.tree.nodes[n];
                node.escalated = false;
                node.failed_fast = false;
                node.cut_short = false;
                node.halted = node.rolling || node.rolled;
                if matches!(node.act, Act::Cut | Act::Dropped) {
                    node.act = Act::Fresh;
                }
            }
        }
        self.tree.nodes[MAIN].halted = self.cancel.is_some();
    }

    fn rollback(&mut self, reason: RollbackReason) -> Verdict {
        self.nothing_runs()?;
        let main = &self.tree.nodes[MAIN];
        match reason {
            RollbackReason::Operator => {
                ensure(!matches!(self.phase, Phase::Created | Phase::Finished(Outcome::RolledBack)), || {
                    format!("the run is {:?}", self.phase)
                })?;
            }
            RollbackReason::Failure | RollbackReason::Cancelled => {
                ensure(self.phase == Phase::Main && main.halted, || "nothing asks for it".to_owned())?;
                ensure(self.policy() == Policy::Rollback && !self.hold, || "the policy is another".to_owned())?;
                let cancelled = reason == RollbackReason::Cancelled;
                ensure(cancelled == self.cancel.is_some(), || "it names the wrong reason".to_owned())?;
            }
        }
        self.phase = Phase::Rolling;
        self.reason = Some(reason);
        self.tree.nodes[MAIN].halted = true;
        self.roll(MAIN);
        Ok(())
    }

    fn policy(&self) -> Policy {
        self.tree.policy(MAIN)
    }

    fn block_rollback(&mut self, n: usize) -> Verdict {
        if self.tree.root(n) == FINAL {
            self.enter_finally()?;
        }
        let tree = &self.tree;
        ensure(tree.is_domain(n) && tree.policy(n) == Policy::Rollback, || "it does not take itself back".to_owned())?;
        ensure(tree.nodes[n].halted && tree.nodes[n].begun && !tree.nodes[n].rolling && !tree.nodes[n].rolled, || {
            "nothing asks for it".to_owned()
        })?;
        ensure(!tree.is_halted(tree.nodes[n].up), || "what is around it ends as a whole".to_owned())?;
        let busy = |k: &usize| tree.nodes[*k].act == Act::Active || tree.nodes[*k].undo == Undo::Active;
        ensure(!tree.inside(n).iter().any(busy), || "something inside still runs".to_owned())?;
        self.tree.nodes[n].rolling = true;
        self.roll(n);
        Ok(())
    }

    fn roll(&mut self, of: usize) {
        for n in self.tree.keeps(of) {
            self.tree.nodes[n].kept = true;
            self.tree.nodes[n].undo = Undo::None;
        }
        let expected = self.tree.to_undo(of);
        for n in &expected {
            self.tree.nodes[*n].undo = Undo::None;
        }
        if of == MAIN {
            for n in self.tree.inside(MAIN) {
                self.tree.nodes[n].rolling = false;
            }
            self.rolls.retain(|r| self.tree.root(r.of) == FINAL);
        }
        self.rolls.push(Roll { of, expected });
    }

    /// What is to be undone, of the rollback that a step is in now.
    fn expected(&self, n: usize) -> Option<&Roll> {
        self.rolls.iter().rev().find(|r| r.expected.contains(&n))
    }

    fn undo_started(&mut self, step: &str) -> Verdict {
        let n = self.at(step)?;
        let roll = self.expected(n).ok_or("it is not to be undone")?;
        let undo = self.tree.nodes[n].undo;
        ensure(matches!(undo, Undo::None | Undo::Backoff), || format!("its undo is {undo:?}"))?;
        for later in &roll.expected {
            let done = self.tree.nodes[*later].undo == Undo::Done || self.tree.nodes[*later].kept;
            ensure(done || !self.tree.is_after(*later, n), || {
                format!("{} came after it and is not undone", self.tree.nodes[*later].path)
            })?;
        }
        self.tree.nodes[n].undo = Undo::Active;
        self.undo_has_its_lock_alone(n)
    }

    /// Of what is undone at the same time, nothing has the same lock, or stands in a block that has it, unless both stand
    /// in that block. Where a lock is taken inside another one, two may want what the other has, and one of them goes.
    fn undo_has_its_lock_alone(&self, n: usize) -> Verdict {
        let tree = &self.tree;
        let locked = |n: usize| {
            let around = tree.around(n);
            std::iter::once(n).chain(around).filter_map(|up| Some((up, tree.lock(up)?))).collect::<Vec<_>>()
        };
        let ours = locked(n);
        if (0..tree.nodes.len()).any(|o| locked(o).len() > 1) {
            return Ok(());
        }
        let clash = (0..tree.nodes.len())
            .filter(|o| *o != n && tree.nodes[*o].undo == Undo::Active)
            .find(|o| locked(*o).iter().any(|(at, lock)| ours.iter().any(|(up, own)| own == lock && up != at)));
        ensure(clash.is_none(), || format!("{} is undone with its lock", tree.nodes[clash.unwrap_or(n)].path))
    }

    fn roll_is_over(&self, roll: &Roll) -> bool {
        let failed: Vec<usize> =
            roll.expected.iter().copied().filter(|n| self.tree.nodes[*n].undo == Undo::Failed).collect();
        roll.expected.iter().all(|n| match self.tree.nodes[*n].undo {
            Undo::Done | Undo::Failed => true,
            Undo::Active | Undo::Backoff => false,
            Undo::None => self.tree.nodes[*n].kept || failed.iter().any(|f| self.tree.is_after(*f, *n)),
        })
    }

    fn is_stuck(&self) -> bool {
        self.tree.nodes.iter().any(|n| n.undo == Undo::Failed)
    }

    fn nothing_runs(&self) -> Verdict {
        let busy = self.tree.nodes.iter().find(|n| n.act == Act::Active || n.undo == Undo::Active);
        ensure(busy.is_none(), || format!("{} runs", busy.map(|b| b.path.as_str()).unwrap_or_default()))
    }

    fn held(&mut self, reason: HoldReason) -> Verdict {
        self.nothing_runs()?;
        ensure(self.phase == Phase::Main, || format!("the run is {:?}", self.phase))?;
        ensure(self.rolls.iter().all(|r| self.roll_is_over(r)), || "a block is being taken back".to_owned())?;
        let hold = self.hold || self.policy() == Policy::Hold;
        let halted = self.tree.nodes[MAIN].halted;
        ensure(
            match reason {
                HoldReason::Operator => true,
                HoldReason::Failure => hold && halted && self.cancel.is_none(),
                HoldReason::Cancelled => hold && halted && self.cancel.is_some(),
            },
            || "nothing asks for it".to_owned(),
        )?;
        self.phase = Phase::Held;
        self.cancel = None;
        Ok(())
    }

    fn resumed(&mut self) -> Verdict {
        self.nothing_runs()?;
        match self.phase {
            Phase::Held | Phase::Finished(Outcome::Failed) => {
                // What was under way when the run ended begins again.
                let ended = self.phase != Phase::Held;
                let live: Vec<usize> = self.tree.inside(MAIN);
                let live: Vec<usize> = live.into_iter().filter(|n| ended && self.tree.sum(*n) == Sum::Live).collect();
                for n in live {
                    self.tree.nodes[n].begun = false;
                }
                self.phase = Phase::Main;
                self.cancel = None;
                self.ending = None;
                self.finally_done = false;
                self.anew(MAIN, false);
                self.anew(FINAL, true);
                self.forget_halts(None);
                for n in self.tree.inside(FINAL) {
                    self.tree.nodes[n].halted = false;
                    self.tree.nodes[n].escalated = false;
                    self.tree.nodes[n].failed_fast = false;
                }
                // An absorbed block whose undo failed stays as it is.
                let nodes = &self.tree.nodes;
                self.rolls.retain(|r| r.expected.iter().any(|n| nodes[*n].undo == Undo::Failed));
            }
            Phase::Finished(Outcome::Stuck) => {
                self.phase = Phase::Rolling;
                for node in &mut self.tree.nodes {
                    if node.undo == Undo::Failed {
                        node.undo = Undo::None;
                    }
                }
            }
            Phase::Finished(outcome) => return Err(format!("the run is {outcome}")),
            Phase::Main => self.forget_halts(None),
            Phase::Created | Phase::Rolling | Phase::Finally => {}
        }
        for n in 0..self.tree.nodes.len() {
            if matches!(self.tree.nodes[n].act, Act::Backoff(_)) {
                // It comes as soon as there is a place for it.
                self.tree.nodes[n].act = Act::Fresh;
            }
        }
        Ok(())
    }

    /// What is not satisfied is done again; what a block took back, too. With `all`, everything.
    fn anew(&mut self, of: usize, all: bool) {
        for n in self.tree.nodes[of].kids.clone() {
            if !all && self.tree.is_satisfied(n) {
                continue;
            }
            let all = all || self.tree.nodes[n].rolled;
            let over = self.tree.is_over(n);
            let satisfied = self.tree.is_satisfied(n);
            let finally = self.tree.root(n) == FINAL;
            self.anew(n, all);
            let node = &mut self.tree.nodes[n];
            if node.kept && satisfied && !finally {
                continue;
            }
            node.kept = false;
            let was_undone = node.undo == Undo::Done;
            if was_undone {
                node.armed = false;
                node.changed = false;
                node.started = false;
            }
            node.undo = Undo::None;
            let redo = all || over || matches!(node.act, Act::Failed | Act::Cancelled | Act::Dropped);
            let taken_back = was_undone && node.act == Act::Interrupted;
            if redo && (node.act != Act::Interrupted || taken_back) {
                node.act = Act::Fresh;
                node.begun = false;
            }
            node.rolled = false;
            node.rolling = false;
            node.halted = false;
            node.cut_short = false;
        }
    }

    /// The way forward or back is over.
    fn ending(&self) -> Result<Outcome, String> {
        let main = self.tree.sum(MAIN);
        let halted = self.tree.nodes[MAIN].halted;
        match self.phase {
            Phase::Rolling => {
                // A block of a `finally` that is still to go on takes its time.
                let later = |r: &Roll| self.tree.root(r.of) == FINAL && !self.finally_done;
                let over = self.rolls.iter().all(|r| later(r) || self.roll_is_over(r));
                ensure(over, || "not everything is undone".to_owned())?;
                let whole = self.rolls.iter().any(|r| r.of == MAIN);
                let cancelled =
                    self.reason == Some(RollbackReason::Cancelled) && self.cancel == Some(CancelReason::Operator);
                Ok(match (self.is_stuck(), whole) {
                    (true, _) => Outcome::Stuck,
                    (false, true) if cancelled => Outcome::Cancelled,
                    (false, true) => Outcome::RolledBack,
                    (false, false) if main == Sum::Good && self.tree.sum(FINAL) != Sum::Bad => Outcome::Succeeded,
                    (false, false) => Outcome::Failed,
                })
            }
            Phase::Main if halted => {
                let leaves = self.policy() == Policy::Continue && !self.hold;
                ensure(leaves, || "the run is to be taken back or held".to_owned())?;
                let Some(reason) = self.cancel else { return Err("nobody cancelled it".to_owned()) };
                ensure(self.rolls.iter().all(|r| self.roll_is_over(r)), || "not everything is undone".to_owned())?;
                Ok(match (self.is_stuck(), reason) {
                    (true, _) => Outcome::Stuck,
                    (false, CancelReason::Operator) => Outcome::Cancelled,
                    (false, CancelReason::Timeout) => Outcome::Failed,
                })
            }
            Phase::Main => match main {
                _ if main != Sum::Live && self.is_stuck() => Ok(Outcome::Stuck),
                Sum::Good => Ok(Outcome::Succeeded),
                Sum::Bad => Ok(Outcome::Failed),
                other => Err(format!("the steps are {other:?}")),
            },
            phase => Err(format!("the run is {phase:?}")),
        }
    }

    fn enter_finally(&mut self) -> Verdict {
        if self.phase == Phase::Finally {
            return Ok(());
        }
        ensure(!self.finally_done, || "`finally` has been".to_owned())?;
        self.nothing_runs()?;
        self.ending = Some(self.ending()?);
        self.phase = Phase::Finally;
        Ok(())
    }

    fn finished(&mut self, outcome: Outcome) -> Verdict {
        self.nothing_runs()?;
        let expected = if self.phase == Phase::Finally {
            ensure(self.tree.sum(FINAL) != Sum::Live, || "`finally` is not over".to_owned())?;
            match self.ending {
                Some(_) if self.is_stuck() => Outcome::Stuck,
                Some(Outcome::Succeeded) if self.tree.sum(FINAL) == Sum::Bad => Outcome::Failed,
                Some(ending) => ending,
                None => return Err("it has no ending".to_owned()),
            }
        } else {
            let ending = self.ending()?;
            let due = !self.tree.spec.finally.is_empty() && !self.finally_done;
            ensure(!due || self.tree.sum(FINAL) != Sum::Live, || "`finally` was passed over".to_owned())?;
            ending
        };
        ensure(outcome == expected, || format!("the outcome should be {expected}, not {outcome}"))?;
        self.phase = Phase::Finished(outcome);
        self.finally_done = true;
        Ok(())
    }

    /// What an event leads to by itself: failures go up, rollbacks of blocks end, what was to come is called off.
    fn follow(&mut self) {
        loop {
            let mut moved = false;
            // From the inside out: what is inside has a higher number.
            for n in (0..self.tree.nodes.len()).rev() {
                let rolled =
                    self.tree.nodes[n].rolling && self.rolls.iter().filter(|r| r.of == n).all(|r| self.roll_is_over(r));
                if rolled {
                    self.tree.nodes[n].rolling = false;
                    self.tree.nodes[n].rolled = true;
                    moved = true;
                }
                let waits = matches!(self.tree.nodes[n].act, Act::Backoff(_)) && self.in_play(n);
                if waits && (self.tree.is_cut_off(n) || self.tree.is_halted(n)) {
                    self.tree.nodes[n].act = if self.tree.is_halted(n) { Act::Cut } else { Act::Dropped };
                    moved = true;
                }
                moved |= self.escalate(n);
            }
            if !moved {
                return;
            }
        }
    }

    fn in_play(&self, n: usize) -> bool {
        match self.phase {
            Phase::Main | Phase::Finally | Phase::Rolling => self.tree.nodes[n].role != Role::Root,
            _ => false,
        }
    }

    fn escalate(&mut self, n: usize) -> bool {
        let tree = &self.tree;
        let node = &tree.nodes[n];
        if node.role == Role::Root || node.escalated || tree.sum(n) != Sum::Bad || tree.is_satisfied(n) {
            // A domain that has nothing left to run and failures inside waits for its rollback.
            let waits = node.role != Role::Root && tree.is_domain(n) && node.begun && !tree.is_halted(n);
            if waits && tree.policy(n) != Policy::Continue && self.inner_failure(n) {
                let hold = tree.policy(n) == Policy::Hold;
                let halted = if hold { MAIN } else { n };
                self.hold |= hold;
                return !std::mem::replace(&mut self.tree.nodes[halted].halted, true);
            }
            return false;
        }
        self.tree.nodes[n].escalated = true;
        let stopped = matches!(self.tree.nodes[n].act, Act::Cancelled | Act::Dropped) || self.tree.was_only_stopped(n);
        if !stopped && !self.tree.nodes[n].cut_short {
            let domain = self.tree.domain(n);
            let policy = self.tree.policy(domain);
            if self.tree.holds(n) || (policy == Policy::Hold && domain != MAIN && self.tree.root(n) == MAIN) {
                self.hold = true;
                self.tree.nodes[MAIN].halted = true;
            } else if policy != Policy::Continue {
                self.tree.nodes[domain].halted = true;
            }
        }
        self.fail_fast(self.tree.nodes[n].up);
        true
    }

    fn fail_fast(&mut self, each: usize) {
        let fast = self.tree.nodes[each].step.and_then(|s| s.each.as_ref()).is_some_and(|e| e.fail_fast);
        if self.tree.nodes[each].role != Role::Each || !fast || self.tree.nodes[each].failed_fast {
            return;
        }
        for inner in self.tree.inside(each) {
            let live = !self.tree.is_action(inner) && self.tree.sum(inner) == Sum::Live;
            let halted = self.tree.is_halted(inner);
            let node = &mut self.tree.nodes[inner];
            node.cut_short |= live;
            if matches!(node.act, Act::Backoff(_)) {
                node.act = if halted { Act::Cut } else { Act::Dropped };
            }
        }
        self.tree.nodes[each].failed_fast = true;
    }

    /// All is over inside and not all is satisfied: a cancelled attempt does not halt anything, but it counts here.
    fn inner_failure(&self, n: usize) -> bool {
        let kids = &self.tree.nodes[n].kids;
        !self.tree.nodes[n].rolled
            && kids.iter().all(|k| self.tree.is_over(*k))
            && !kids.iter().all(|k| self.tree.is_satisfied(*k))
    }

    /// What holds at every moment.
    fn always(&self) -> Verdict {
        let running = self.actions().filter(|n| self.tree.nodes[*n].act == Act::Active && !self.tree.nodes[*n].asking);
        let undoing = self.actions().filter(|n| self.tree.nodes[*n].undo == Undo::Active);
        let busy = running.count() + undoing.count();
        ensure(busy <= self.tree.spec.max_parallel as usize, || format!("{busy} attempts run at once"))?;
        for (n, node) in self.tree.nodes.iter().enumerate() {
            let limit = node.step.and_then(|s| s.each.as_ref()).and_then(|e| e.max_parallel);
            let Some(limit) = limit.filter(|_| node.role == Role::Each) else { continue };
            let live = node.kids.iter().filter(|k| self.tree.sum(**k) == Sum::Live).count();
            ensure(self.settled || live <= limit as usize, || {
                format!("{live} instances of {} are in progress", node.path)
            })?;
            let undoing = |k: usize| {
                self.tree.nodes[k].undo == Undo::Active
                    || self.tree.inside(k).iter().any(|i| self.tree.nodes[*i].undo == Undo::Active)
            };
            let back = self.tree.nodes[n].kids.iter().filter(|k| undoing(**k)).count();
            ensure(back <= limit as usize, || format!("{back} instances of {} are taken back at once", node.path))?;
        }
        Ok(())
    }
}
