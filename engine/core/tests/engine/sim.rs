//! Drives a random run on the bench: which attempt ends next and how, crashes, cancels, requests, decisions of
//! people, and what is done with a run that has ended. All from one seed.

use std::sync::Arc;

use proptest::prelude::*;
use runback_core::Json;
use runback_core::event::{CancelReason, Event, EventBody, Outcome, Resolution, RollbackReason};
use runback_core::plan::Plan;
use runback_core::state::{NodeId, Phase, RunState};
use runback_core::step::{Answer, Class, Question, StepError};
use serde_json::json;

use super::bench::{Bench, fingerprint};
use super::journal;

/// How bad the world is, in percent, and what people do.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) fails: u64,
    pub(crate) undo_fails: u64,
    /// Per thousand happenings.
    pub(crate) crashes: u64,
    /// At this many happenings.
    pub(crate) cancel_at: Option<u32>,
    pub(crate) hold_at: Option<u32>,
    pub(crate) rollback_at: Option<u32>,
    pub(crate) after_failure: Vec<u8>,
    /// What is done with the run when it has ended.
    pub(crate) after: Vec<After>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    Resume,
    Rollback,
    ForcedRollback,
}

pub(crate) fn world() -> impl Strategy<Value = World> {
    let after = prop_oneof![2 => Just(After::Resume), 1 => Just(After::Rollback), 1 => Just(After::ForcedRollback)];
    let at = || proptest::option::weighted(0.15, 0..20_u32);
    (
        any::<u64>(),
        prop_oneof![1 => Just(0_u64), 3 => 0..40_u64],
        prop_oneof![2 => Just(0_u64), 1 => 0..50_u64],
        prop_oneof![1 => Just(0_u64), 1 => 0..200_u64],
        (at(), at(), at()),
        proptest::collection::vec(0..4_u8, 0..3),
        proptest::collection::vec(after, 0..4),
    )
        .prop_map(|(seed, fails, undo_fails, crashes, (cancel_at, hold_at, rollback_at), after_failure, after)| {
            World { seed, fails, undo_fails, crashes, cancel_at, hold_at, rollback_at, after_failure, after }
        })
}

/// splitmix64.
#[derive(Debug, Clone)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below.max(1)
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.roll(100) < chance
    }
}

#[derive(Debug, Clone, Copy)]
enum Next {
    Arm(NodeId),
    Ask(NodeId),
    Answer(NodeId),
    End(NodeId),
    EndUndo(NodeId),
    EndProbe(NodeId),
    Settle(NodeId),
    Wake(u64),
}

const LIMIT: u32 = 3_000;

pub(crate) struct Sim<'w> {
    bench: Bench,
    world: &'w World,
    dice: Dice,
    happened: u32,
}

/// The whole trace of the run, or why the engine is wrong.
pub(crate) fn drive(plan: &Arc<Plan>, world: &World) -> Result<Vec<Event>, String> {
    let mut bench = Bench::created(Arc::clone(plan));
    bench.auto_arm = false;
    bench.after_failure =
        world.after_failure.iter().map(|n| [Resolution::Redo, Resolution::Skip][*n as usize % 2]).collect();
    let mut sim = Sim { bench, world, dice: Dice(world.seed), happened: 0 };
    sim.bench.record(EventBody::RunStarted {}).map_err(|e| e.to_string())?;
    sim.bench.settle();
    let mut after = world.after.iter();
    loop {
        sim.happened += 1;
        if sim.happened > LIMIT {
            return Err(format!("it does not end\n{}", sim.bench.tail()));
        }
        match sim.bench.state.phase {
            Phase::Held(_) | Phase::Finished(_) => match after.next() {
                Some(what) => sim.take_up(*what),
                None => break,
            },
            _ => sim.happen()?,
        }
    }
    let folded = journal::fold(plan, &sim.bench.trace);
    same(&folded, &sim.bench.state)?;
    Ok(sim.bench.trace)
}

fn same(folded: &RunState, live: &RunState) -> Result<(), String> {
    let (folded, live) = (fingerprint(folded), fingerprint(live));
    if folded == live {
        return Ok(());
    }
    let differs = folded.lines().zip(live.lines()).find(|(a, b)| a != b);
    Err(format!("the fold of the journal is not the live state: {differs:?}"))
}

impl Sim<'_> {
    fn take_up(&mut self, what: After) {
        self.bench.now += self.dice.roll(100_000);
        if let Some(body) = self.settles_an_undo() {
            self.bench.tell(body);
        }
        match (what, self.bench.state.phase) {
            (After::Resume, Phase::Held(_) | Phase::Finished(Outcome::Failed | Outcome::Stuck)) => self.bench.crash(),
            (After::Resume, _) | (_, Phase::Finished(Outcome::RolledBack)) => {}
            (After::Rollback | After::ForcedRollback, _) => {
                self.bench.die();
                let (by, reason, force) =
                    ("me@here".to_owned(), RollbackReason::Operator, what == After::ForcedRollback);
                self.bench.tell(EventBody::RollbackStarted { step: None, reason, by, force });
            }
        }
    }

    fn happen(&mut self) -> Result<(), String> {
        if self.dice.roll(1000) < self.world.crashes {
            // The next process knows nothing but the journal.
            let folded = journal::fold(&self.bench.state.plan, &self.bench.trace);
            same(&folded, &self.bench.state)?;
            self.bench.state = folded;
            self.bench.now += self.dice.roll(5_000);
            self.bench.crash();
            return Ok(());
        }
        if self.world.cancel_at == Some(self.happened) {
            self.cancel();
            return Ok(());
        }
        if self.world.hold_at == Some(self.happened) {
            // Refused where nothing is left to hold.
            let _ = self.bench.record(EventBody::HoldRequested { by: "them@there".to_owned() });
            self.bench.settle();
        }
        if self.world.rollback_at == Some(self.happened) {
            self.bench.want_rollback();
        }
        if matches!(self.bench.state.phase, Phase::Held(_) | Phase::Finished(_)) {
            return Ok(());
        }
        if let Some(body) = self.settles_an_undo() {
            self.bench.tell(body);
            return Ok(());
        }
        let next = self.candidates();
        if next.is_empty() {
            return Err(format!("nothing is left to happen in {:?}\n{}", self.bench.state.phase, self.bench.tail()));
        }
        let next = next[self.dice.roll(next.len() as u64) as usize];
        self.bench.now += self.dice.roll(300);
        self.perform(next);
        Ok(())
    }

    /// Somebody says what a step counts as whose undo failed, for good or for now.
    fn settles_an_undo(&mut self) -> Option<EventBody> {
        let state = &self.bench.state;
        let failed: Vec<NodeId> = state.ids().filter(|n| state.undo_can_be_resolved(*n)).collect();
        if failed.is_empty() || !self.dice.percent(15) {
            return None;
        }
        let node = failed[self.dice.roll(failed.len() as u64) as usize];
        let resolution = if self.dice.percent(50) { Resolution::Undone } else { Resolution::Kept };
        Some(super::bench::resolved(self.bench.path(node), resolution))
    }

    fn cancel(&mut self) {
        let cancellable = matches!(self.bench.state.phase, Phase::Created | Phase::Running);
        if cancellable && self.bench.state.cancel.is_none() {
            self.bench.tell(EventBody::CancelRequested { by: "me@here".to_owned(), reason: CancelReason::Operator });
        }
    }

    fn candidates(&self) -> Vec<Next> {
        let mut next = Vec::new();
        let bench = &self.bench;
        for node in &bench.acting {
            if bench.wants_arming(*node) && !bench.stopping.contains(node) {
                next.push(Next::Arm(*node));
            } else if bench.state.step(*node).type_name() == "t.approve" && !bench.stopping.contains(node) {
                let asked = bench.state.node(*node).question().is_some();
                next.push(if asked { Next::Answer(*node) } else { Next::Ask(*node) });
            }
            next.push(Next::End(*node));
        }
        next.extend(bench.undoing.iter().map(|n| Next::EndUndo(*n)));
        next.extend(bench.probing.iter().map(|n| Next::EndProbe(*n)));
        if next.is_empty() {
            next.extend(bench.wake.map(Next::Wake));
            next.extend(bench.state.doubts().map(Next::Settle));
        }
        next
    }

    fn perform(&mut self, next: Next) {
        match next {
            Next::Arm(node) => {
                self.bench.arm(node);
                self.bench.settle();
            }
            Next::Ask(node) => {
                let (step, attempt) = (self.bench.path(node), self.bench.state.node(node).attempts);
                let question = Question {
                    prompt: "go on?".to_owned(),
                    form: Json::Null,
                    approvers: Vec::new(),
                    min_approvals: 1,
                    allow_self: true,
                    timeout_ms: None,
                    approve_on_timeout: false,
                };
                self.bench.tell(EventBody::ApprovalRequested { step, attempt, question });
            }
            Next::Answer(node) => {
                let answer = Answer {
                    approved: true,
                    by: "you".to_owned(),
                    roles: Vec::new(),
                    reason: None,
                    fields: Json::Null,
                };
                let step = self.bench.path(node);
                self.bench.tell(EventBody::ApprovalGiven { step, answer });
                self.bench.acted(node, Ok((false, Json::Null)));
            }
            Next::End(node) => self.end(node),
            Next::EndUndo(node) => {
                let failed = self.dice.percent(self.world.undo_fails);
                let error =
                    if self.dice.percent(30) { StepError::transient("not now") } else { StepError::conflict("drift") };
                self.bench.undone(node, if failed { Err(error) } else { Ok(()) });
            }
            Next::EndProbe(node) => {
                self.bench.probing.remove(&node);
                let n = self.bench.state.node(node);
                let doubtful = n.status == runback_core::state::Status::Interrupted;
                if !doubtful || !self.bench.state.can_be_resolved(node) {
                    return;
                }
                let (step, attempt) = (self.bench.path(node), n.attempts);
                let resolved = |resolution, changed| EventBody::StepResolved {
                    step: Arc::clone(&step),
                    resolution,
                    by: None,
                    outputs: Json::Null,
                    changed,
                    masked: Vec::new(),
                };
                let body = match self.dice.roll(4) {
                    0 => resolved(Resolution::Done, true),
                    1 => resolved(Resolution::Done, false),
                    2 => resolved(Resolution::Redo, false),
                    _ => EventBody::DoubtRaised { step, attempt, why: "who knows".to_owned() },
                };
                self.bench.tell(body);
            }
            Next::Settle(node) => {
                let all = [Resolution::Done, Resolution::Redo, Resolution::Fail, Resolution::Skip];
                let resolution = all[self.dice.roll(4) as usize];
                let body = super::bench::resolved(self.bench.path(node), resolution);
                self.bench.tell(body);
            }
            Next::Wake(at) => {
                self.bench.now = self.bench.now.max(at);
                self.bench.settle();
            }
        }
    }

    fn end(&mut self, node: NodeId) {
        if self.bench.stopping.contains(&node) && self.dice.percent(80) {
            self.bench.acted(node, Err(StepError::new(Class::Cancelled, "stopped")));
            return;
        }
        // An unarmed attempt has not acted: it can only have failed at its capture.
        if self.bench.wants_arming(node) || self.dice.percent(self.world.fails) {
            let error =
                if self.dice.percent(50) { StepError::transient("not now") } else { StepError::permanent("no") };
            self.bench.acted(node, Err(error));
            return;
        }
        let outputs = match self.dice.roll(4) {
            0 => json!({}),
            1 => json!({ "items": ["k0"], "share": 0.1 + 0.2 }),
            2 => json!({ "items": [] }),
            _ => json!({ "items": ["k0", "k1", { "name": "k2" }], "big": u64::MAX }),
        };
        let changed = self.dice.percent(80);
        self.bench.acted(node, Ok((changed, outputs)));
    }
}
