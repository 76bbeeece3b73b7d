//! Steps that only compute: they share a commit with what comes after them, and neither that nor anybody else waits long.

use std::sync::Arc;

use runback_core::event::{Event, EventBody, Outcome};
use runback_core::state::{Phase, RunStatus};
use runback_exec::driver::{Control, DriveOptions, Driver};
use runback_exec::store::{MemoryStore, Store};

use super::store::{Cut, lost};
use super::world::{Driving, Ledger, create, journal, names, plan, resume, start};

const MIXED: &str = "steps:
  - { id: p1, uses: t.pure, with: { step: p1 } }
  - { id: p2, uses: t.pure, with: { step: p2, do: [flaky 1] }, retry: { max_attempts: 3, initial_interval: 1ms } }
  - { id: p3, uses: t.pure, with: { step: p3 } }
  - { id: p4, uses: t.pure, with: { step: p4 } }
  - { id: a, uses: t.read }
  - { id: p5, uses: t.pure, with: { step: p5 } }
  - { id: p6, uses: t.pure, with: { step: p6 } }";

/// A chain of so many, and beside it what is given.
fn chain(count: usize, beside: &str) -> String {
    let steps = (1..=count).map(|n| {
        let needs = if n == 1 { String::new() } else { format!("p{}", n - 1) };
        format!("\n  - {{ id: p{n}, needs: [{needs}], uses: t.pure, with: {{ step: p{n} }} }}")
    });
    format!("steps:{}{beside}", steps.collect::<String>())
}

/// The journal as it is after so many appends.
async fn after(appends: u64) -> (Vec<Event>, Vec<String>) {
    let ledger = Ledger::default();
    let plan = plan(MIXED, &ledger);
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let ended = start(Arc::new(Cut::new(Arc::clone(&store), appends, lost)), &plan).await;
    let told = (journal(&*store, "r1").await, ledger.lock().unwrap().clone());
    let ended = if ended.is_err() { resume(Arc::clone(&store), &plan).await } else { ended };
    assert_eq!(ended.unwrap().status, RunStatus::Succeeded, "{:#?}", names(&told.0));
    told
}

#[tokio::test(start_paused = true)]
async fn steps_that_only_compute_share_a_commit_with_what_follows_from_them() {
    let mut lengths = Vec::new();
    for appends in 0.. {
        let (told, ledger) = after(appends).await;
        let told = names(&told);
        let has = |name: &str| told.iter().any(|n| n == name);
        // Whatever is done in the world was recorded before, and all that it rests on.
        if ledger.contains(&"act a".to_owned()) {
            assert!(has("attempt_succeeded p4") && has("attempt_started a"), "{told:#?}");
        }
        assert_eq!(has("attempt_started a"), has("attempt_succeeded p4"), "one commit: {told:#?}");
        lengths.push(told.len());
        if has("run_finished") {
            break;
        }
    }
    // To p2's retry; on to the command; all after it.
    assert_eq!(lengths.len(), 4, "commits: {lengths:?}");
    assert!(lengths.is_sorted());
}

#[tokio::test(start_paused = true)]
async fn what_begins_beside_steps_that_only_compute_does_not_wait_for_their_end() {
    let ledger = Ledger::default();
    let beside = "\n  - { id: x, needs: [], uses: t.probe }\n  - { id: y, needs: [p300], uses: t.probe }";
    let plan = plan(&chain(1000, beside), &ledger);
    start(Arc::new(MemoryStore::default()), &plan).await.unwrap();
    let ledger = ledger.lock().unwrap();
    let at = |line: &str| ledger.iter().position(|l| l == line).unwrap();
    assert!(at("act x") < at("act p9"), "{:?}", &ledger[..20]);
    assert!(at("act y") < at("act p309"));
}

/// It fails alone, like one that breaks on a task of its own.
#[tokio::test(start_paused = true)]
async fn one_that_panics_fails() {
    let ledger = Ledger::default();
    let yaml =
        "steps: [{ id: p1, continue_on_error: true, uses: t.pure, with: { do: [panic] } }, { id: a, uses: t.read }]";
    let plan = plan(yaml, &ledger);
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    assert_eq!(start(Arc::clone(&store), &plan).await.unwrap().status, RunStatus::Succeeded);
    let told = journal(&*store, "r1").await;
    let error = told.iter().find_map(|e| match &e.body {
        EventBody::AttemptFailed { error, .. } => Some(error),
        _ => None,
    });
    assert_eq!(error.unwrap().message, "the step type broke: it was told to");
}

#[tokio::test(start_paused = true)]
async fn a_cancel_is_heard_between_steps_that_only_compute() {
    let ledger = Ledger::default();
    let plan = plan(&chain(2000, ""), &ledger);
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let run = Driving::start(create(Arc::clone(&store), &plan, "r1").await.unwrap(), DriveOptions::default());
    let control = run.control.clone();
    // A signal: its task has its turn when the driver gives one up.
    tokio::spawn(async move { control.send(Control::Cancel) });
    assert!(run.end().await.unwrap().cancelled);
    let state = Driver::fold(&*store, "r1", Arc::clone(&plan)).await.unwrap();
    assert_eq!(state.phase, Phase::Finished(Outcome::Cancelled));
    let acted = ledger.lock().unwrap().iter().filter(|l| l.starts_with("act ")).count();
    assert!((1..500).contains(&acted), "{acted}");
}
