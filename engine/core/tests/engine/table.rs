//! Tables over `apply` and `decide`: which event may come in which state, and what follows.

use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::prelude::*;
use runback_core::Json;
use runback_core::decide::{Effect, decide};
use runback_core::event::{
    CancelReason, Event, EventBody, HoldReason, Item, Outcome, Resolution, RollbackReason, SkipReason,
};
use runback_core::state::{Phase, RunState};
use runback_core::step::{Answer, Class, Question, StepError};
use serde_json::json;

use super::bench::{Bench, created, fingerprint, last_trace, plan};
use super::property::cases;
use super::sim::Dice;
use super::spec;

const ACTION: &str = "a";
const BLOCK: &str = "b";
const EACH: &str = "e";

fn question() -> Question {
    Question {
        prompt: "go on?".to_owned(),
        form: Json::Null,
        approvers: Vec::new(),
        min_approvals: 1,
        allow_self: true,
        timeout_ms: None,
        approve_on_timeout: false,
    }
}

/// Every kind of event about a step, with attempt numbers that fit a step whose `attempt`-th attempt is current.
fn events(step: &str, attempt: u32) -> Vec<EventBody> {
    use EventBody as E;
    let path = || step.into();
    let error = || StepError::permanent("broken");
    let answer = Answer { approved: true, by: "you".to_owned(), roles: Vec::new(), reason: None, fields: Json::Null };
    let detached = runback_core::target::Detached { dir: "/d".to_owned(), pid: 1, identity: "i".to_owned() };
    vec![
        E::BlockStarted { step: path() },
        E::StepExpanded { step: path(), items: vec![Item { key: "x".to_owned(), value: json!("x"), masked: false }] },
        E::StepSkipped { step: path(), reason: SkipReason::Condition },
        E::StepFailed { step: path(), error: error() },
        E::AttemptStarted { step: path(), attempt: attempt + 1 },
        E::UndoArmed { step: path(), attempt, capture: json!(1) },
        E::ProcessStarted { step: path(), attempt, detached },
        E::StepNoted { step: path(), attempt, note: json!(1) },
        E::AttemptSucceeded { step: path(), attempt, changed: true, outputs: Json::Null, masked: Vec::new() },
        E::AttemptFailed { step: path(), attempt, error: error(), retry_in: None },
        E::AttemptInterrupted { step: path(), attempt },
        E::DoubtRaised { step: path(), attempt, why: "who knows".to_owned() },
        E::StepResolved {
            step: path(),
            resolution: Resolution::Done,
            by: None,
            outputs: Json::Null,
            changed: true,
            masked: Vec::new(),
        },
        E::ApprovalRequested { step: path(), attempt, question: question() },
        E::ApprovalGiven { step: path(), answer: answer.clone() },
        E::ApprovalRefused { step: path(), answer },
        E::LockTaken { step: Some(path()), names: vec!["l".to_owned()] },
        E::RollbackStarted { step: Some(path()), reason: RollbackReason::Failure, by: "me".to_owned(), force: false },
        E::UndoStarted { step: path(), attempt: 1 },
        E::UndoSucceeded { step: path(), attempt: 1, changed: true, note: None },
        E::UndoFailed { step: path(), attempt: 1, error: error(), retry_in: None },
    ]
}

fn run_events(plan: &runback_core::plan::Plan) -> Vec<EventBody> {
    use EventBody as E;
    let finished =
        |outcome| E::RunFinished { outcome, outputs: Json::Null, output_errors: std::collections::BTreeMap::new() };
    vec![
        created(plan),
        E::RunStarted {},
        E::LockTaken { step: None, names: vec!["l".to_owned()] },
        E::CancelRequested { by: "me".to_owned(), reason: CancelReason::Operator },
        E::RollbackRequested { by: "me".to_owned(), force: false },
        E::HoldRequested { by: "me".to_owned() },
        E::RollbackStarted { step: None, reason: RollbackReason::Operator, by: "me".to_owned(), force: false },
        E::RunHeld { reason: HoldReason::Operator },
        E::RunResumed { by: "me".to_owned() },
        finished(Outcome::Succeeded),
        finished(Outcome::Failed),
        finished(Outcome::RolledBack),
        finished(Outcome::Stuck),
        finished(Outcome::Cancelled),
    ]
}

/// Which of the events may come now, by their names; the others are refused and change nothing.
fn allowed(bench: &Bench, events: Vec<EventBody>) -> Vec<&'static str> {
    let before = fingerprint(&bench.state);
    let mut names = Vec::new();
    for body in events {
        let mut state = bench.state.clone();
        let name = body.type_name();
        let event = Event { seq: state.last_seq + 1, at: bench.now, body };
        match state.apply(&event) {
            Ok(()) => names.push(name),
            Err(refused) => {
                assert_eq!((refused.seq, refused.event), (event.seq, name));
                assert!(!refused.why.is_empty());
                assert!(fingerprint(&state) == before, "a refused {name} changed something");
            }
        }
    }
    names.dedup();
    names
}

fn step_events(bench: &Bench, step: &str, attempt: u32) -> Vec<&'static str> {
    allowed(bench, events(step, attempt))
}

fn of_run(bench: &Bench) -> Vec<&'static str> {
    allowed(bench, run_events(&bench.state.plan))
}

const STEPS: &str = "
steps:
  - { id: a, needs: [], uses: t.change, retry: { max_attempts: 2, initial_interval: 1s, jitter: 0 } }
  - { id: b, needs: [a], steps: [{ id: one, uses: t.change }], on_failure: rollback }
  - { id: e, needs: [b], for_each: [x], uses: t.read }";

/// A run of [`STEPS`] in which nothing has been decided yet.
fn fresh(more: &str) -> Bench {
    let mut bench = Bench::created(plan(&format!("runback: 1\nname: t\n{more}{STEPS}")));
    bench.record(EventBody::RunStarted {}).unwrap();
    bench
}

const OPEN: [&str; 4] = ["step_skipped", "step_failed", "attempt_started", "lock_taken"];

#[test]
fn an_action_goes_its_way() {
    let mut bench = fresh("");
    assert_eq!(step_events(&bench, ACTION, 0), OPEN, "ready");
    for blocked in [BLOCK, EACH] {
        assert!(step_events(&bench, blocked, 0).is_empty(), "blocked");
    }
    assert!(step_events(&bench, "nowhere", 0).is_empty());
    bench.auto_arm = false;
    bench.settle();
    let running = [
        "undo_armed",
        "process_started",
        "step_noted",
        "attempt_succeeded",
        "attempt_failed",
        "attempt_interrupted",
        "approval_requested",
    ];
    assert_eq!(step_events(&bench, ACTION, 1), running, "running");
    assert!(step_events(&bench, ACTION, 2).is_empty(), "an attempt that is not the current one");
    bench.arm(bench.node(ACTION));
    assert_eq!(step_events(&bench, ACTION, 1), &running[1..], "armed at most once");
    bench.tell(EventBody::ApprovalRequested { step: ACTION.into(), attempt: 1, question: question() });
    let asking = [&running[1..], &["approval_given", "approval_refused"]].concat();
    assert_eq!(step_events(&bench, ACTION, 1), asking, "asking");
    bench.fail_for_now(ACTION);
    assert_eq!(
        step_events(&bench, ACTION, 1),
        ["step_failed", "attempt_started", "step_resolved", "lock_taken"],
        "backoff"
    );
    bench.now += 1000;
    bench.settle();
    bench.die();
    assert_eq!(step_events(&bench, ACTION, 2), ["doubt_raised", "step_resolved"], "interrupted");
    bench.resolve(ACTION, Resolution::Done);
    assert!(step_events(&bench, ACTION, 2).is_empty(), "succeeded");
}

#[test]
fn a_block_and_a_for_each_go_their_way() {
    let mut bench = fresh("");
    bench.settle();
    let node = bench.node(ACTION);
    // Not by `acted`, which decides what follows.
    bench.acting.remove(&node);
    let done = EventBody::AttemptSucceeded {
        step: ACTION.into(),
        attempt: 1,
        changed: true,
        outputs: Json::Null,
        masked: Vec::new(),
    };
    bench.record(done).unwrap();
    assert_eq!(step_events(&bench, BLOCK, 0), ["block_started", "step_skipped", "step_failed", "lock_taken"]);
    bench.settle();
    assert!(step_events(&bench, BLOCK, 0).is_empty(), "running, and nothing has failed");
    let one = bench.node("b/one");
    bench.acting.remove(&one);
    let failed = EventBody::AttemptFailed {
        step: "b/one".into(),
        attempt: 1,
        error: StepError::permanent("no"),
        retry_in: None,
    };
    bench.record(failed).unwrap();
    assert_eq!(step_events(&bench, BLOCK, 0), ["rollback_started"], "failed inside");
    assert_eq!(step_events(&bench, "b/one", 1), ["step_resolved"]);
    bench.settle();
    assert!(step_events(&bench, "b/one", 1).iter().all(|e| e.starts_with("undo_")
        || *e == "step_noted"
        || ["process_started", "attempt_interrupted", "approval_requested"].contains(e)));

    let mut bench = fresh("");
    bench.settle();
    bench.ok(ACTION);
    let one = bench.node("b/one");
    bench.acting.remove(&one);
    let done = EventBody::AttemptSucceeded {
        step: "b/one".into(),
        attempt: 1,
        changed: true,
        outputs: Json::Null,
        masked: Vec::new(),
    };
    bench.record(done).unwrap();
    assert_eq!(step_events(&bench, EACH, 0), ["step_expanded", "step_skipped", "step_failed", "lock_taken"]);
    let twice = vec![
        Item { key: "x".to_owned(), value: json!(1), masked: false },
        Item { key: "x".to_owned(), value: json!(2), masked: false },
    ];
    assert!(bench.refused(EventBody::StepExpanded { step: EACH.into(), items: twice }).contains("key x"));
    bench.settle();
    assert!(step_events(&bench, EACH, 0).is_empty());
}

#[test]
fn an_undo_goes_its_way() {
    let mut bench = fresh("");
    bench.settle();
    bench.ok(ACTION);
    bench.ok("b/one");
    let each = bench.node("e[x]");
    bench.acted(each, Err(StepError::permanent("no")));
    assert_eq!(bench.state.phase, Phase::RollingBack);
    assert!(step_events(&bench, ACTION, 1).is_empty(), "waits for what came after it");
    let undoing =
        ["process_started", "step_noted", "attempt_interrupted", "approval_requested", "undo_succeeded", "undo_failed"];
    assert_eq!(step_events(&bench, "b/one", 1), undoing, "undoing");
    bench.die();
    assert_eq!(step_events(&bench, "b/one", 1), [] as [&str; 0], "undo attempt 2 comes next");
    bench.settle();
    bench.undo_ok("b/one");
    assert!(step_events(&bench, "b/one", 2).is_empty(), "undone");
    bench.undo_fail(ACTION);
    assert!(step_events(&bench, ACTION, 1).is_empty(), "undo-failed");
    assert_eq!(bench.state.phase, Phase::Finished(Outcome::Stuck));
}

#[test]
fn a_run_goes_its_way() {
    let p = plan(&format!("runback: 1\nname: t\n{STEPS}\nfinally: [{{ id: f, uses: t.read }}]"));
    let mut empty = Bench::created(std::sync::Arc::clone(&p));
    empty.state = RunState::new(std::sync::Arc::clone(&p));
    assert_eq!(of_run(&empty), ["run_created"]);
    assert!(step_events(&empty, ACTION, 0).is_empty());

    let mut bench = Bench::created(p);
    assert_eq!(
        of_run(&bench),
        ["run_started", "lock_taken", "cancel_requested", "hold_requested", "run_resumed"],
        "created"
    );
    bench.record(EventBody::RunStarted {}).unwrap();
    let idle =
        ["cancel_requested", "rollback_requested", "hold_requested", "rollback_started", "run_held", "run_resumed"];
    assert_eq!(of_run(&bench), idle, "running, and nothing runs");
    bench.settle();
    let running = ["cancel_requested", "rollback_requested", "hold_requested"];
    assert_eq!(of_run(&bench), running, "running");
    bench.tell(EventBody::CancelRequested { by: "me".to_owned(), reason: CancelReason::Operator });
    assert_eq!(of_run(&bench), ["rollback_requested", "hold_requested"], "cancelled once");
    bench.stopped(ACTION);
    assert_eq!(bench.state.phase, Phase::RollingBack);
    assert_eq!(of_run(&bench), ["rollback_requested"], "rolling back");
    bench.die();
    let back = ["rollback_requested", "rollback_started", "run_resumed"];
    assert_eq!(of_run(&bench), back, "rolling back, and nothing runs");
    bench.settle();
    bench.undo_ok(ACTION);
    assert_eq!(bench.state.phase, Phase::Finally);
    assert_eq!(of_run(&bench), ["rollback_requested"], "finally");
    let f = bench.node("f");
    bench.acting.remove(&f);
    let done = EventBody::AttemptSucceeded {
        step: "f".into(),
        attempt: 1,
        changed: false,
        outputs: Json::Null,
        masked: Vec::new(),
    };
    bench.record(done).unwrap();
    assert_eq!(bench.state.phase, Phase::Ending);
    let ending = ["rollback_requested", "rollback_started", "run_resumed", "run_finished"];
    assert_eq!(of_run(&bench), ending, "ending, with one outcome only");
    bench.settle();
    assert_eq!(bench.state.phase, Phase::Finished(Outcome::Cancelled));
    assert_eq!(of_run(&bench), ["rollback_requested", "rollback_started"], "cancelled");
}

#[test]
fn a_run_that_has_ended_can_be_taken_up_or_back() {
    let cases = [
        ("on_failure: hold", vec!["rollback_requested", "rollback_started", "run_resumed"]),
        ("on_failure: continue", vec!["rollback_requested", "rollback_started", "run_resumed"]),
        ("on_failure: rollback", vec![]),
    ];
    for (policy, may) in cases {
        let mut bench = fresh(policy);
        bench.settle();
        bench.fail(ACTION);
        if policy.ends_with("rollback") {
            bench.undo_ok(ACTION);
        }
        assert_eq!(of_run(&bench), may, "{policy}: {:?}", bench.state.phase);
    }
    let mut bench = fresh("");
    bench.settle();
    for path in [ACTION, "b/one", "e[x]"] {
        bench.ok(path);
    }
    assert_eq!(of_run(&bench), ["rollback_requested", "rollback_started"], "succeeded");
}

#[test]
fn a_gap_or_a_repetition_is_refused() {
    let bench = fresh("");
    for seq in [0, bench.state.last_seq, bench.state.last_seq + 2, u64::MAX] {
        let mut state = bench.state.clone();
        let body = EventBody::CancelRequested { by: "me".to_owned(), reason: CancelReason::Operator };
        let refused = state.apply(&Event { seq, at: 0, body }).unwrap_err();
        assert!(refused.why.contains("was expected"), "{refused}");
        assert!(fingerprint(&state) == fingerprint(&bench.state));
    }
}

/// `decide` is a function: it changes nothing, and says the same twice.
#[test]
fn what_is_decided() {
    let short = |bench: &Bench| -> Vec<String> {
        assert_eq!(decide(&bench.state, bench.now), decide(&bench.state, bench.now));
        let path = |n| bench.path(n).to_string();
        decide(&bench.state, bench.now)
            .into_iter()
            .map(|effect| match effect {
                Effect::Record(body) => {
                    format!("{} {}", body.type_name(), body.step().map_or("", AsRef::as_ref))
                }
                Effect::TakeLocks { node, names } => format!("locks {} {}", path(node), names.join(",")),
                Effect::Start { node } => format!("start {}", path(node)),
                Effect::Stop { node } => format!("stop {}", path(node)),
                Effect::Probe { node } => format!("probe {}", path(node)),
                Effect::Undo { node } => format!("undo {}", path(node)),
                Effect::Wake { at } => format!("wake in {}", at - bench.now),
            })
            .collect()
    };
    let start = |yaml: &str| {
        let mut bench = Bench::created(plan(&format!("runback: 1\nname: t\n{yaml}")));
        bench.record(EventBody::RunStarted {}).unwrap();
        bench
    };
    // Slots, in the order of the file; a wake for the timeout.
    let bench = start(
        "max_parallel: 2\ntimeout: 1m\nsteps: [{ id: a, uses: t.read }, { id: b, needs: [], uses: t.read }, \
         { id: c, needs: [], uses: t.read }]",
    );
    assert_eq!(short(&bench), ["start a", "start b", "wake in 60000"]);
    // A condition, locks, one after the other.
    let mut bench = start(
        "steps: [{ id: a, needs: [], uses: t.read, locks: [y, x] }, { id: b, needs: [], uses: t.read, when: false }]",
    );
    assert_eq!(short(&bench), ["locks a x,y", "step_skipped b"]);
    bench.record(EventBody::LockTaken { step: Some("a".into()), names: vec!["x".into(), "y".into()] }).unwrap();
    assert_eq!(short(&bench), ["start a", "step_skipped b"]);
    // Steps of one run that want one lock take turns.
    let bench = start(
        "steps: [{ id: a, needs: [], uses: t.read, locks: [x] }, { id: b, needs: [], uses: t.read, locks: [x] }]",
    );
    assert_eq!(short(&bench), ["locks a x"]);
    // What an interrupted attempt needs, by what its type says.
    for (of, what) in [
        ("t.read", "step_resolved a"),
        ("t.change", "probe a"),
        ("t.ask", "doubt_raised a"),
        ("t.rerun", "step_resolved a"),
    ] {
        let mut bench = start(&format!("steps: [{{ id: a, uses: {of} }}]"));
        bench.settle();
        bench.die();
        bench.record(EventBody::RunResumed { by: "me".to_owned() }).unwrap();
        assert_eq!(short(&bench), [what], "{of}");
    }
    // One that had not armed its undo never acted.
    let mut bench = start("steps: [{ id: a, uses: t.ask }]");
    bench.auto_arm = false;
    bench.settle();
    bench.die();
    bench.record(EventBody::RunResumed { by: "me".to_owned() }).unwrap();
    assert_eq!(short(&bench), ["step_resolved a"]);
    // `on_interrupt` of the step wins.
    for (says, what) in [("rerun", "step_resolved a"), ("ask", "doubt_raised a")] {
        let mut bench = start(&format!("steps: [{{ id: a, uses: t.change, on_interrupt: {says} }}]"));
        bench.settle();
        bench.die();
        bench.record(EventBody::RunResumed { by: "me".to_owned() }).unwrap();
        assert_eq!(short(&bench), [what], "{says}");
    }
    // A backoff is a wake; nothing starts before it.
    let mut bench =
        start("steps: [{ id: a, uses: t.read, retry: { max_attempts: 2, initial_interval: 3s, jitter: 0 } }]");
    bench.settle();
    bench.fail_for_now("a");
    assert_eq!(short(&bench), ["wake in 3000"]);
    bench.now += 3000;
    assert_eq!(short(&bench), ["start a"]);
    // A cancel stops what runs.
    let mut bench = start("steps: [{ id: a, uses: t.change }]");
    bench.settle();
    bench.record(EventBody::CancelRequested { by: "me".into(), reason: CancelReason::Operator }).unwrap();
    assert_eq!(short(&bench), ["stop a"]);
    // Undos come latest first, as many as there are slots.
    let mut bench = start(
        "max_parallel: 2\nsteps: [{ id: a, needs: [], uses: t.change }, { id: b, needs: [], uses: t.change }, { id: c, needs: [], uses: t.change }, { id: d, uses: t.read }]",
    );
    bench.settle();
    for path in ["a", "b", "c"] {
        bench.ok(path);
    }
    let d = bench.node("d");
    bench.acting.remove(&d);
    let error = StepError::new(Class::Permanent, "no");
    bench.record(EventBody::AttemptFailed { step: "d".into(), attempt: 1, error, retry_in: None }).unwrap();
    assert_eq!(short(&bench), ["rollback_started "]);
    let by = "me".to_owned();
    bench.record(EventBody::RollbackStarted { step: None, reason: RollbackReason::Failure, by, force: false }).unwrap();
    assert_eq!(short(&bench), ["undo c", "undo b"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(150), failure_persistence: None, ..ProptestConfig::default() })]

    /// A journal may hold anything. Whatever comes, in any order: it is applied or refused, and a refusal changes
    /// nothing; `decide` has an answer for every state.
    #[test]
    fn any_event_is_applied_or_refused(spec in spec::spec(), seed in any::<u64>()) {
        let plan = plan(&spec.text());
        let told = catch_unwind(AssertUnwindSafe(|| anything(Bench::created(plan), seed)));
        if told.is_err() {
            return Err(TestCaseError::fail(format!("{}\n{}", spec.text(), last_trace())));
        }
    }
}

fn anything(mut bench: Bench, seed: u64) {
    let mut dice = Dice(seed);
    bench.record(EventBody::RunStarted {}).unwrap();
    let mut refused = 0;
    for _ in 0..150 {
        bench.now += dice.roll(2_000);
        // Half of the time what would really come next, so that one gets somewhere.
        let decided = if dice.roll(2) == 0 { decide(&bench.state, bench.now) } else { Vec::new() };
        let next = decided.into_iter().find_map(|effect| match effect {
            Effect::Record(body) => Some(body),
            Effect::Start { node } => {
                Some(EventBody::AttemptStarted { step: bench.path(node), attempt: bench.state.node(node).attempts + 1 })
            }
            Effect::Undo { node } => Some(EventBody::UndoStarted {
                step: bench.path(node),
                attempt: bench.state.node(node).undo_attempts + 1,
            }),
            _ => None,
        });
        let body = next.unwrap_or_else(|| random_event(&bench, &mut dice));
        let before = if refused < 5 { Some(fingerprint(&bench.state)) } else { None };
        let name = body.type_name();
        if bench.record(body).is_err()
            && let Some(before) = before
        {
            refused += 1;
            assert!(fingerprint(&bench.state) == before, "a refused {name} changed something");
        }
        assert!(bench.state.busy() < 10_000);
    }
}

fn random_event(bench: &Bench, dice: &mut Dice) -> EventBody {
    let nodes: Vec<_> = bench.state.ids().collect();
    if nodes.is_empty() || dice.roll(6) == 0 {
        let mut all = run_events(&bench.state.plan);
        return all.swap_remove(dice.roll(all.len() as u64) as usize);
    }
    let node = nodes[dice.roll(nodes.len() as u64) as usize];
    let n = bench.state.node(node);
    let attempt = if n.undo_attempts > 0 && dice.roll(2) == 0 { n.undo_attempts } else { n.attempts };
    let mut all = events(&n.path, attempt);
    let mut body = all.swap_remove(dice.roll(all.len() as u64) as usize);
    match &mut body {
        EventBody::UndoStarted { attempt, .. } => *attempt = n.undo_attempts + 1,
        EventBody::UndoSucceeded { attempt, .. } | EventBody::UndoFailed { attempt, .. } => *attempt = n.undo_attempts,
        EventBody::StepResolved { resolution, .. } => {
            use Resolution as R;
            *resolution = [R::Done, R::Redo, R::Fail, R::Skip, R::Undone, R::Kept][dice.roll(6) as usize];
        }
        _ => {}
    }
    body
}
