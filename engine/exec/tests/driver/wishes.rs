//! What people ask of a run through the store: rollback, hold, answers. It is done, by this process or by the next.

use std::sync::Arc;

use runback_core::Json;
use runback_core::event::{Event, EventBody, HoldReason, Outcome, Resolution};
use runback_core::state::{Phase, RunStatus};
use runback_core::step::Answer;
use runback_exec::driver::{DriveOptions, Driver, Intent};
use runback_exec::store::{MemoryStore, Request, Store};

use super::world::{Driving, Ledger, create, journal, names, open, plan};

const TWO: &str = "steps: [{ id: a, uses: t.rerun }, { id: b, uses: t.rerun, with: { do: [deaf 5000] } }]";

fn by() -> String {
    "them@there".to_owned()
}

/// The process dies after it took the request and before it could do it: the next one does.
#[tokio::test(start_paused = true)]
async fn a_request_survives_the_process_that_took_it() {
    for (request, wanted) in [
        (Request::Rollback { by: by(), force: false }, Phase::Finished(Outcome::RolledBack)),
        (Request::Hold { by: by() }, Phase::Held(HoldReason::Operator)),
    ] {
        let ledger = Ledger::default();
        let plan = plan(TWO, &ledger);
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let run = Driving::start(create(Arc::clone(&store), &plan, "r1").await.unwrap(), DriveOptions::default());
        run.seen.wait_for("undo_armed b").await;
        store.post("r1", request).await.unwrap();
        run.seen.wait_for("_requested").await;
        run.kill().await;
        let next = open(Arc::clone(&store), &plan, "r1", Intent::Resume).await.unwrap();
        Driving::start(next, DriveOptions::default()).end().await.unwrap();
        let state = Driver::fold(&*store, "r1", Arc::clone(&plan)).await.unwrap();
        assert_eq!(state.phase, wanted, "{:#?}", names(&journal(&*store, "r1").await));
    }
}

#[tokio::test(start_paused = true)]
async fn a_hold_comes_when_what_runs_is_over() {
    let ledger = Ledger::default();
    let plan = plan(TWO, &ledger);
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let run = Driving::start(create(Arc::clone(&store), &plan, "r1").await.unwrap(), DriveOptions::default());
    run.seen.wait_for("attempt_succeeded a").await;
    store.post("r1", Request::Hold { by: by() }).await.unwrap();
    let seen = run.seen.clone();
    assert_eq!(run.end().await.unwrap().status, RunStatus::Succeeded);
    assert!(seen.has("warning: the run is not held"), "b was the last one: {:#?}", seen.all());
}

/// What is asked in the instant in which the run stops is heard by nobody. Who goes on with the run later wants that, and
/// not what somebody wanted of it before.
#[tokio::test(start_paused = true)]
async fn what_came_when_the_run_had_stopped_is_not_done_later() {
    let by = by();
    for request in [
        Request::Hold { by: by.clone() },
        Request::Cancel { by: by.clone(), now: false },
        Request::Cancel { by: by.clone(), now: true },
        Request::Rollback { by: by.clone(), force: false },
        Request::Resolve { step: "b".to_owned(), resolution: Resolution::Skip, outputs: Json::Null, by: by.clone() },
    ] {
        let ledger = Ledger::default();
        let plan = plan("on_failure: hold\nsteps: [{ id: a, uses: t.rerun }, { id: b, uses: t.fail }]", &ledger);
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let run = Driving::start(create(Arc::clone(&store), &plan, "r1").await.unwrap(), DriveOptions::default());
        assert_eq!(run.end().await.unwrap().status, RunStatus::Failed);
        store.post("r1", request.clone()).await.unwrap();
        let next = open(Arc::clone(&store), &plan, "r1", Intent::Resume).await.unwrap();
        let run = Driving::start(next, DriveOptions::default());
        let seen = run.seen.clone();
        assert_eq!(run.end().await.unwrap().status, RunStatus::Failed, "{request:?}");
        let journal = journal(&*store, "r1").await;
        let again = |e: &Event| matches!(&e.body, EventBody::AttemptFailed { step, attempt: 2, .. } if &**step == "b");
        assert!(journal.iter().any(again), "{request:?}: {:#?}", names(&journal));
        let held = Phase::Held(HoldReason::Failure);
        assert_eq!(Driver::fold(&*store, "r1", Arc::clone(&plan)).await.unwrap().phase, held, "{request:?}");
        assert!(seen.has("them@there") && seen.has("had stopped"), "{request:?}: {:#?}", seen.all());
    }
}

const BY_HAND: &str = "steps:
  - { id: a, uses: t.rerun, rollback: { uses: t.read, with: { do: [ask is it taken back] } } }
  - { id: b, uses: t.fail }";

fn answer(approved: bool) -> Request {
    let answer = Answer { approved, by: by(), roles: Vec::new(), reason: None, fields: Json::Null };
    Request::Answer { step: "a".to_owned(), answer }
}

/// A person takes a step back, and says so.
#[tokio::test(start_paused = true)]
async fn an_undo_may_ask() {
    for (approved, wanted) in [(true, RunStatus::RolledBack), (false, RunStatus::Stuck)] {
        let ledger = Ledger::default();
        let plan = plan(BY_HAND, &ledger);
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let run = Driving::start(create(Arc::clone(&store), &plan, "r1").await.unwrap(), DriveOptions::default());
        run.seen.wait_for("approval_requested a").await;
        let state = Driver::fold(&*store, "r1", Arc::clone(&plan)).await.unwrap();
        assert_eq!((state.status(), state.questions().count()), (RunStatus::Waiting, 1));
        store.post("r1", answer(approved)).await.unwrap();
        assert_eq!(run.end().await.unwrap().status, wanted);
    }
}

/// A role counts where it is listed, one person counts once, and the journal says who, from where and as what.
#[tokio::test(start_paused = true)]
async fn two_people_approve_by_role_and_by_name() {
    let ledger = Ledger::default();
    let plan = plan("steps: [{ id: a, uses: t.rerun, with: { do: [ask-two go] } }]", &ledger);
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let run = Driving::start(create(Arc::clone(&store), &plan, "r1").await.unwrap(), DriveOptions::default());
    run.seen.wait_for("approval_requested a").await;
    let starter = Driver::fold(&*store, "r1", Arc::clone(&plan)).await.unwrap().created.unwrap().by.clone();
    let say = async |by: &str, roles: &[&str]| {
        let roles = roles.iter().map(|&r| r.to_owned()).collect();
        let answer = Answer { approved: true, by: by.to_owned(), roles, reason: None, fields: Json::Null };
        store.post("r1", Request::Answer { step: "a".to_owned(), answer }).await.unwrap();
    };
    say("bob@desk", &[]).await;
    run.seen.wait_for("bob@desk does not count: is not among the approvers").await;
    say("eve@10.0.0.9", &["operator"]).await;
    run.seen.wait_for("eve@10.0.0.9 does not count: is not among the approvers").await;
    say(&starter, &["approver"]).await;
    run.seen.wait_for("does not count: who started the run").await;
    say("bob@10.0.0.7", &["viewer", "approver"]).await;
    run.seen.wait_for("approval_given a").await;
    say("bob@10.0.0.8", &["approver"]).await;
    run.seen.wait_for("bob@10.0.0.8 does not count: has approved already").await;
    say("oncall@desk", &[]).await;
    assert_eq!(run.end().await.unwrap().status, RunStatus::Succeeded);
    let given: Vec<_> = journal(&*store, "r1")
        .await
        .into_iter()
        .filter_map(|e| match e.body {
            EventBody::ApprovalGiven { answer, .. } => Some((answer.by, answer.roles)),
            _ => None,
        })
        .collect();
    let wanted = [
        ("bob@10.0.0.7".to_owned(), vec!["viewer".to_owned(), "approver".to_owned()]),
        ("oncall@desk".to_owned(), Vec::new()),
    ];
    assert_eq!(given, wanted);
}

/// It is asked once: an answer that came counts for the process after the one that took it.
#[tokio::test(start_paused = true)]
async fn an_undo_that_asks_survives_its_process() {
    let ledger = Ledger::default();
    let plan = plan(BY_HAND, &ledger);
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let no_wait = DriveOptions { wait: false, wait_for_locks: false };
    let run = Driving::start(create(Arc::clone(&store), &plan, "r1").await.unwrap(), no_wait);
    let ended = run.end().await.unwrap();
    assert!(ended.waiting && ended.left, "{ended:?}");
    store.post("r1", answer(true)).await.unwrap();
    let next = open(Arc::clone(&store), &plan, "r1", Intent::Resume).await.unwrap();
    assert_eq!(Driving::start(next, no_wait).end().await.unwrap().status, RunStatus::RolledBack);
}
