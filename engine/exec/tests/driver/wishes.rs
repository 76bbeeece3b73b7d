//! What people ask of a run through the store: rollback, hold, answers. It is done, by this process or by the next.

use std::sync::Arc;

use runback_core::Json;
use runback_core::event::{HoldReason, Outcome};
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

const BY_HAND: &str = "steps:
  - { id: a, uses: t.rerun, rollback: { uses: t.read, with: { do: [ask is it taken back] } } }
  - { id: b, uses: t.fail }";

fn answer(approved: bool) -> Request {
    let answer = Answer { approved, by: by(), reason: None, fields: Json::Null };
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
