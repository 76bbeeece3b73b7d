//! What a run waits for: locks, a capture that is to be durable, output. It hears whoever wants it to stop meanwhile.

use std::sync::Arc;
use std::time::Duration;

use runback_core::event::{Created, Event, EventBody, HoldReason, Outcome};
use runback_core::state::{Phase, RunStatus};
use runback_exec::driver::{Control, DriveOptions, Driver, DriverError, Intent};
use runback_exec::store::{MemoryStore, Request, Store};
use serde_json::json;
use tokio::time::Instant;

use super::store::{Cut, lost};
use super::world::{Driving, Ledger, START, create, created, journal, names, open, open_at, plan, start};

const LOCKED: &str = "locks: [door]\nsteps: [{ id: a, uses: t.rerun, with: { do: [sleep 60000] } }]";
const WAIT: DriveOptions = DriveOptions { wait: true, wait_for_locks: true };

async fn phase(store: &MemoryStore, plan: &Arc<runback_core::plan::Plan>, run: &str) -> Phase {
    Driver::fold(store, run, Arc::clone(plan)).await.unwrap().phase
}

/// Somebody has the run's lock. The first Ctrl-C ends the run, which never began.
#[tokio::test(start_paused = true)]
async fn a_run_that_waits_for_its_locks_can_be_cancelled() {
    let (store, ledger) = (MemoryStore::default(), Ledger::default());
    let plan = plan(LOCKED, &ledger);
    let holder = Driving::start(create(Arc::new(store.clone()), &plan, "holder").await.unwrap(), WAIT);
    holder.seen.wait_for("attempt_started a").await;
    for (control, left) in [(Some(Control::Cancel), false), (Some(Control::Leave), true), (None, false)] {
        let run = format!("waiter-{control:?}").replace([' ', '(', ')'], "");
        let waiter = Driving::start(create(Arc::new(store.clone()), &plan, &run).await.unwrap(), WAIT);
        waiter.seen.wait_for("waits: lock `door` is held by run holder").await;
        let asked = Instant::now();
        match control {
            Some(control) => waiter.tell(control),
            None => drop(store.post(&run, Request::Cancel { by: "them".to_owned(), now: false }).await.unwrap()),
        }
        let ended = waiter.end().await.unwrap();
        assert!(asked.elapsed() < Duration::from_millis(500), "{:?}", asked.elapsed());
        assert_eq!((ended.left, ended.cancelled), (left, !left));
        let wanted = if left { Phase::Created } else { Phase::Finished(Outcome::Cancelled) };
        assert_eq!(phase(&store, &plan, &run).await, wanted);
        assert!(store.lock_waits(&run).await.unwrap().is_empty(), "it left the queue");
    }
    holder.tell(Control::Leave);
    assert!(holder.end().await.unwrap().left);
}

/// A hold needs no locks. Taken up again it is a run that has not begun: it takes its locks first, or is over at once.
#[tokio::test(start_paused = true)]
async fn a_run_that_waits_for_its_locks_is_held_at_once() {
    for intent in [Intent::Resume, Intent::Rollback { force: false }] {
        let (store, ledger) = (MemoryStore::default(), Ledger::default());
        let plan = plan(LOCKED, &ledger);
        let holder = Driving::start(create(Arc::new(store.clone()), &plan, "holder").await.unwrap(), WAIT);
        holder.seen.wait_for("attempt_started a").await;
        let waiter = Driving::start(create(Arc::new(store.clone()), &plan, "waiter").await.unwrap(), WAIT);
        waiter.seen.wait_for("waits: lock `door` is held by run holder").await;
        let asked = Instant::now();
        store.post("waiter", Request::Hold { by: "them".to_owned() }).await.unwrap();
        let ended = waiter.end().await.unwrap();
        assert!(asked.elapsed() < Duration::from_millis(500), "{:?}", asked.elapsed());
        assert_eq!((ended.status, ended.left, ended.cancelled), (RunStatus::Failed, false, false));
        assert_eq!(phase(&store, &plan, "waiter").await, Phase::Held(HoldReason::Operator));
        assert!(store.lock_waits("waiter").await.unwrap().is_empty(), "it left the queue");

        let next = open(Arc::new(store.clone()), &plan, "waiter", intent.clone()).await.unwrap();
        let next = Driving::start(next, WAIT);
        if intent == Intent::Resume {
            next.seen.wait_for("waits: lock `door` is held by run holder").await;
            assert_eq!(holder.end().await.unwrap().status, RunStatus::Succeeded);
            assert_eq!(next.end().await.unwrap().status, RunStatus::Succeeded);
            let names = names(&journal(&store, "waiter").await);
            let begun = ["run_created", "hold_requested", "run_held", "run_resumed", "lock_taken", "run_started"];
            assert_eq!(names[..6], begun, "{names:#?}");
        } else {
            assert_eq!(next.end().await.unwrap().status, RunStatus::Cancelled, "there is nothing to take back");
            holder.tell(Control::Leave);
            holder.end().await.unwrap();
        }
    }
}

/// The left run still has what it waited for to come; then it goes on.
#[tokio::test(start_paused = true)]
async fn a_run_whose_locks_come_free_goes_on() {
    let (store, ledger) = (MemoryStore::default(), Ledger::default());
    let plan = plan(&LOCKED.replace("60000", "3000"), &ledger);
    let store: Arc<dyn Store> = Arc::new(store);
    let holder = Driving::start(create(Arc::clone(&store), &plan, "holder").await.unwrap(), WAIT);
    holder.seen.wait_for("attempt_started a").await;
    let waiter = Driving::start(create(Arc::clone(&store), &plan, "waiter").await.unwrap(), WAIT);
    assert_eq!(holder.end().await.unwrap().status, RunStatus::Succeeded);
    let seen = waiter.seen.clone();
    assert_eq!(waiter.end().await.unwrap().status, RunStatus::Succeeded);
    assert_eq!(seen.all().iter().filter(|line| line.starts_with("waits:")).count(), 1, "{:#?}", seen.all());
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_locks_can_never_be_had_is_over() {
    for deadlock in [false, true] {
        let (store, ledger) = (MemoryStore::default(), Ledger::default());
        let plan = plan(LOCKED, &ledger);
        let holder = Driving::start(create(Arc::new(store.clone()), &plan, "holder").await.unwrap(), WAIT);
        holder.seen.wait_for("attempt_started a").await;
        let cut = Cut::new(Arc::new(store.clone()), u64::MAX, lost);
        cut.deadlock.store(deadlock, std::sync::atomic::Ordering::SeqCst);
        let refused = start(Arc::new(cut), &plan).await.unwrap_err();
        match refused {
            DriverError::Deadlock { .. } => assert!(deadlock),
            DriverError::Locked { ref holder, .. } => assert!(!deadlock && holder == "holder"),
            other => panic!("{other}"),
        }
        assert_eq!(phase(&store, &plan, "r1").await, Phase::Finished(Outcome::Cancelled));
        holder.kill().await;
    }
}

/// It was created all the same, and could neither begin nor end.
#[tokio::test(start_paused = true)]
async fn a_run_whose_locks_have_no_name_is_not_created() {
    let (store, ledger) = (MemoryStore::default(), Ledger::default());
    let plan = plan(
        "inputs: { vm: { type: string } }\nlocks: [\"{{ inputs.vm }}\"]\nsteps: [{ id: a, uses: t.rerun }]",
        &ledger,
    );
    let shared: Arc<dyn Store> = Arc::new(store.clone());
    let refused = create(Arc::clone(&shared), &plan, "r1").await.unwrap_err();
    assert!(refused.to_string().contains("the lock `{{ inputs.vm }}` could not be worked out"), "{refused}");
    assert!(refused.help().is_some());
    assert!(matches!(Driver::created(&*shared, "r1").await, Err(DriverError::Store(_) | DriverError::Empty { .. })));

    // One that an older runback left: whoever takes it up ends it.
    let inputs = json!({ "vm": "" });
    let created = Created { inputs, ..created("r1", &plan) };
    let first = Event { seq: 1, at: START, body: EventBody::RunCreated(Box::new(created)) };
    drop(store.create("r1", vec![first]).await.unwrap());
    let left = open(Arc::clone(&shared), &plan, "r1", Intent::Resume).await.unwrap();
    let refused = Driving::start(left, WAIT).end().await.unwrap_err();
    assert!(refused.to_string().contains("the lock `{{ inputs.vm }}` is empty"), "{refused}");
    assert_eq!(phase(&store, &plan, "r1").await, Phase::Finished(Outcome::Cancelled));
}

/// A resumed run whose lock somebody else took meanwhile: refused, or it waits and hears Ctrl-C; and stays as it was.
#[tokio::test(start_paused = true)]
async fn a_resumed_run_waits_for_the_locks_that_it_had() {
    let (store, ledger) = (MemoryStore::default(), Ledger::default());
    let plan = plan(LOCKED, &ledger);
    let store: Arc<dyn Store> = Arc::new(store);
    let first = Driving::start(create(Arc::clone(&store), &plan, "r1").await.unwrap(), WAIT);
    first.seen.wait_for("attempt_started a").await;
    first.kill().await;
    let holder = Driving::start(create(Arc::clone(&store), &plan, "holder").await.unwrap(), WAIT);
    holder.seen.wait_for("attempt_started a").await;
    let before = names(&journal(&*store, "r1").await);

    let refused = open(Arc::clone(&store), &plan, "r1", Intent::Resume).await.unwrap();
    let refused = Driving::start(refused, DriveOptions::default()).end().await;
    assert!(matches!(refused, Err(DriverError::Locked { .. })), "{refused:?}");
    assert_eq!(names(&journal(&*store, "r1").await), before, "nothing was recorded");

    let waiter = Driving::start(open(Arc::clone(&store), &plan, "r1", Intent::Resume).await.unwrap(), WAIT);
    waiter.seen.wait_for("waits:").await;
    let asked = Instant::now();
    waiter.tell(Control::Cancel);
    let ended = waiter.end().await.unwrap();
    assert!(ended.left && ended.cancelled && asked.elapsed() < Duration::from_millis(500));

    // Nor does a hold wait for them.
    let waiter = Driving::start(open(Arc::clone(&store), &plan, "r1", Intent::Resume).await.unwrap(), WAIT);
    waiter.seen.wait_for("waits: ").await;
    let asked = Instant::now();
    store.post("r1", Request::Hold { by: "them".to_owned() }).await.unwrap();
    assert_eq!(waiter.end().await.unwrap().status, RunStatus::Failed);
    assert!(asked.elapsed() < Duration::from_millis(500), "{:?}", asked.elapsed());

    holder.tell(Control::Leave);
    holder.end().await.unwrap();
    let again = Driving::start(open(Arc::clone(&store), &plan, "r1", Intent::Resume).await.unwrap(), WAIT);
    assert_eq!(again.end().await.unwrap().status, RunStatus::Succeeded);
}

/// An attempt whose capture is read while runback leaves, or whose store breaks: nothing waits for what never comes.
#[tokio::test(start_paused = true)]
async fn leaving_waits_for_no_capture() {
    let yaml = "steps: [{ id: a, uses: t.probe, with: { capture: [deaf 1000] } }]";
    // Left while it captures.
    let (store, ledger) = (MemoryStore::default(), Ledger::default());
    let plan = plan(yaml, &ledger);
    let store: Arc<dyn Store> = Arc::new(store);
    let run = Driving::start(create(Arc::clone(&store), &plan, "r1").await.unwrap(), WAIT);
    run.seen.wait_for("attempt_started a").await;
    let asked = Instant::now();
    run.tell(Control::Leave);
    assert!(run.end().await.unwrap().left);
    assert!(asked.elapsed() < Duration::from_millis(1500), "{:?}", asked.elapsed());
    let left = names(&journal(&*store, "r1").await);
    assert_eq!(left[left.len() - 2..], ["undo_armed a", "attempt_interrupted a"], "{left:?}");
    assert!(ledger.lock().unwrap().is_empty(), "it did not begin to act");

    // The store breaks at the append of the capture.
    let cut = Cut::new(Arc::clone(&store), 1, lost);
    let run = Driving::start(create(Arc::new(cut), &plan, "r2").await.unwrap(), WAIT);
    let began = Instant::now();
    run.end().await.unwrap_err();
    assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
    assert!(ledger.lock().unwrap().is_empty(), "it did not begin to act");
}

/// The store keeps no logs here: what a step writes counts all the same.
#[tokio::test(start_paused = true)]
async fn output_that_is_not_kept_is_output() {
    let talks = "say one, sleep 800, say two, sleep 800, say three, sleep 800";
    for (words, status) in [(talks, RunStatus::Succeeded), ("say one, sleep 2000", RunStatus::RolledBack)] {
        let (store, ledger) = (MemoryStore::default(), Ledger::default());
        let plan =
            plan(&format!("steps: [{{ id: a, uses: t.rerun, idle_timeout: 1s, with: {{ do: [{words}] }} }}]"), &ledger);
        let ended = start(Arc::new(store.clone()), &plan).await.unwrap();
        assert_eq!(ended.status, status, "{words}");
    }
}

/// Found by hand: every process that took the run up gave people the whole time once more.
#[tokio::test(start_paused = true)]
async fn the_time_to_answer_counts_from_when_it_was_first_asked() {
    let yaml = "on_failure: hold\nsteps: [{ id: a, uses: t.read, with: { do: [ask-within 60000 may it go on] } }]";
    let no_wait = DriveOptions { wait: false, wait_for_locks: false };
    // The third process comes while there is time left, or when it is over.
    for (later, left) in [(40_000, 20_000), (100_000, 0)] {
        let (store, ledger) = (MemoryStore::default(), Ledger::default());
        let plan = plan(yaml, &ledger);
        let store: Arc<dyn Store> = Arc::new(store);
        let away = Driving::start(create(Arc::clone(&store), &plan, "r1").await.unwrap(), no_wait);
        assert!(away.end().await.unwrap().waiting);
        let again = open_at(Arc::clone(&store), &plan, "r1", Intent::Resume, START + 30_000).await.unwrap();
        assert!(Driving::start(again, no_wait).end().await.unwrap().waiting);

        let asked = Instant::now();
        let last = open_at(Arc::clone(&store), &plan, "r1", Intent::Resume, START + later).await.unwrap();
        assert_eq!(Driving::start(last, WAIT).end().await.unwrap().status, RunStatus::Failed);
        let waited = asked.elapsed().as_millis() as u64;
        assert!(waited.abs_diff(left) < 1_000, "{waited} ms, not {left}");
    }
}

/// Found by hand: Ctrl-C in `finally` was heard by nobody, it seemed; a second one left the run.
#[tokio::test(start_paused = true)]
async fn a_cancel_in_finally_is_answered() {
    let (store, ledger) = (MemoryStore::default(), Ledger::default());
    let yaml = "steps: [{ id: a, uses: t.rerun }]\nfinally: [{ id: f, uses: t.rerun, with: { do: [sleep 60000] } }]";
    let plan = plan(yaml, &ledger);
    let run = Driving::start(create(Arc::new(store.clone()), &plan, "r1").await.unwrap(), WAIT);
    run.seen.wait_for("attempt_started f").await;
    run.tell(Control::Cancel);
    run.seen.wait_for("warning: `finally` is done to its end; once more leaves the run at once").await;
    run.tell(Control::Cancel);
    assert!(run.end().await.unwrap().left);
    assert_eq!(phase(&store, &plan, "r1").await, Phase::Finally);
}
