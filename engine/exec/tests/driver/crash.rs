//! After every append the process dies, or the disk takes no more; and the process after it dies, too. The next one goes
//! on; nothing that was recorded as done is done again, and nothing was done that was not recorded before.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use runback_core::Json;
use runback_core::event::{Event, EventBody};
use runback_core::plan::Plan;
use runback_core::state::RunStatus;
use runback_core::step::Answer;
use runback_exec::driver::{Driver, DriverError, Ended};
use runback_exec::store::{MemoryStore, Request, SqliteStore, Store, StoreError};
use tokio::task::JoinHandle;

use super::store::{Cut, lost};
use super::world::{Ledger, journal, names, plan, resume, start};

const PLAYBOOKS: [(&str, RunStatus); 10] = [
    ("steps: [{ id: a, uses: t.probe }, { id: b, uses: t.rerun }, { id: c, uses: t.ask }]", RunStatus::Succeeded),
    (
        "steps: [{ id: a, uses: t.probe }, { id: b, needs: [], uses: t.rerun }, { id: c, needs: [a, b], uses: t.probe }]
finally: [{ id: f, uses: t.rerun }]",
        RunStatus::Succeeded,
    ),
    ("steps: [{ id: e, for_each: { items: [x, y, z], max_parallel: 2 }, uses: t.probe }]", RunStatus::Succeeded),
    (
        "steps: [{ id: a, uses: t.probe }, { id: b, uses: t.rerun }, { id: c, uses: t.fail }]
finally: [{ id: f, uses: t.rerun }]",
        RunStatus::RolledBack,
    ),
    (
        "steps:
  - id: b
    continue_on_error: true
    steps: [{ id: one, uses: t.probe }, { id: two, uses: t.fail }]
  - { id: c, uses: t.probe }",
        RunStatus::Succeeded,
    ),
    (
        "steps:
  - { id: a, uses: t.rerun, with: { do: [note one, flaky 2, note two] }, retry: { max_attempts: 9, initial_interval: 1ms } }
  - { id: b, uses: t.probe, locks: [door] }
locks: [house]",
        RunStatus::Succeeded,
    ),
    (
        "steps:
  - { id: look, uses: t.read, with: { do: [ask may it go on] } }
  - { id: b, uses: t.probe }",
        RunStatus::Succeeded,
    ),
    (
        "steps:
  - { id: a, uses: t.rerun, with: { undo: [flaky 1] }, retry: { max_attempts: 9, initial_interval: 1ms } }
  - { id: b, uses: t.probe, rollback: { uses: t.read, with: { do: [ask is it gone] } } }
  - { id: c, uses: t.fail }",
        RunStatus::RolledBack,
    ),
    (
        "steps:
  - { id: b, locks: [door], on_failure: rollback, continue_on_error: true, steps: [{ id: one, uses: t.rerun }, { id: two, uses: t.fail }] }
  - { id: c, needs: [], locks: [door], steps: [{ id: one, uses: t.probe }] }",
        RunStatus::Succeeded,
    ),
    (
        "steps:
  - { id: p1, uses: t.pure, with: { step: p1 } }
  - { id: a, uses: t.probe }
  - { id: p2, uses: t.pure, with: { step: p2, do: [flaky 1] }, retry: { max_attempts: 9, initial_interval: 1ms } }
  - { id: p3, needs: [p1], uses: t.pure, with: { step: p3 } }
  - { id: b, needs: [p2, p3], uses: t.rerun }
  - { id: c, uses: t.fail }
finally: [{ id: p4, uses: t.pure, with: { step: p4 } }, { id: f, uses: t.rerun }]",
        RunStatus::RolledBack,
    ),
];

fn count(ledger: &Ledger, line: &str) -> usize {
    ledger.lock().unwrap().iter().filter(|l| *l == line).count()
}

/// Every effect has its record: an act its armed undo, an undo its start; and after a success nothing comes again.
fn judge(journal: &[Event], ledger: &Ledger) {
    let steps: std::collections::BTreeSet<String> =
        journal.iter().filter_map(|e| e.body.step()).map(ToString::to_string).collect();
    // What reads has no undo, and what only computes (p1, p2 …) may do so before its record.
    for step in steps.iter().filter(|s| *s != "look" && !s.starts_with('p')) {
        let of = |want: &str| {
            journal
                .iter()
                .filter(|e| e.body.step().is_some_and(|s| **s == **step) && e.body.type_name() == want)
                .count()
        };
        // What undoes by acting writes the same line.
        let acts = count(ledger, &format!("act {step}"));
        let undos = count(ledger, &format!("undo {step}"));
        let started = of("attempt_started") + of("undo_started");
        assert!(acts <= started, "{step} acted {acts} times, recorded {started}");
        assert!(acts == 0 || of("undo_armed") > 0, "{step} acted before its undo was armed");
        assert!(undos <= of("undo_started"), "{step} was undone {undos} times, recorded {}", of("undo_started"));
    }
}

/// After the record of a success there is no further attempt of the same.
pub(crate) fn nothing_twice(journal: &[Event]) {
    let mut done: Vec<String> = Vec::new();
    for event in journal {
        let Some(step) = event.body.step() else { continue };
        match &event.body {
            EventBody::AttemptSucceeded { .. } => done.push(format!("act {step}")),
            EventBody::UndoSucceeded { .. } => done.push(format!("undo {step}")),
            EventBody::AttemptStarted { .. } => assert!(!done.contains(&format!("act {step}")), "{step} acts again"),
            EventBody::UndoStarted { .. } => assert!(!done.contains(&format!("undo {step}")), "{step} is undone again"),
            _ => {}
        }
    }
}

/// Somebody who says yes to whatever is asked.
fn says_yes(store: Arc<dyn Store>, plan: Arc<Plan>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut answered = Vec::new();
        loop {
            tokio::time::sleep(Duration::from_millis(7)).await;
            let Ok(state) = Driver::fold(&*store, "r1", Arc::clone(&plan)).await else { continue };
            for node in state.questions() {
                let n = state.node(node);
                let asked = (n.path.to_string(), n.attempts, n.undo_attempts);
                if !answered.contains(&asked) {
                    let answer = Answer {
                        approved: true,
                        by: "me".to_owned(),
                        roles: Vec::new(),
                        reason: None,
                        fields: Json::Null,
                    };
                    store.post("r1", Request::Answer { step: asked.0.clone(), answer }).await.unwrap();
                    answered.push(asked);
                }
            }
        }
    })
}

type Broken = fn(&str) -> StoreError;

/// A run whose processes die after so many appends each; the last of them lives. None = the first one lived.
async fn lives(
    store: &Arc<dyn Store>,
    plan: &Arc<Plan>,
    limits: &[u64],
    broken: Broken,
) -> Option<Result<Ended, DriverError>> {
    let cut = |limit| -> Arc<dyn Store> { Arc::new(Cut::new(Arc::clone(store), limit, broken)) };
    if start(cut(limits[0]), plan).await.is_ok() {
        return None;
    }
    for limit in &limits[1..] {
        if let Ok(ended) = resume(cut(*limit), plan).await
            && !ended.waiting
        {
            return Some(Ok(ended));
        }
    }
    let mut ended = resume(Arc::clone(store), plan).await;
    if ended.as_ref().is_ok_and(|e| e.waiting) {
        ended = resume(Arc::clone(store), plan).await;
    }
    Some(ended)
}

async fn check(store: Arc<dyn Store>, yaml: &str, wanted: RunStatus, limits: &[u64], broken: Broken) -> bool {
    let ledger = Ledger::default();
    let plan = plan(yaml, &ledger);
    let yes = says_yes(Arc::clone(&store), Arc::clone(&plan));
    let lived = lives(&store, &plan, limits, broken).await;
    yes.abort();
    let told = journal(&*store, "r1").await;
    let at = || format!("cut at {limits:?} of {yaml}\n{:#?}", names(&told));
    judge(&told, &ledger);
    let Some(ended) = lived else {
        assert!(limits[0] > 4, "{limits:?} appends are too few to be true");
        return false;
    };
    assert_eq!(ended.unwrap_or_else(|e| panic!("{e}: {}", at())).status, wanted, "{}", at());
    nothing_twice(&told);
    assert_eq!(store.verify("r1").await.unwrap().events, told.len() as u64);
    true
}

#[tokio::test(start_paused = true)]
async fn the_journal_is_cut_at_every_append() {
    for (yaml, wanted) in PLAYBOOKS {
        for first in 0.. {
            if !check(Arc::new(MemoryStore::default()), yaml, wanted, &[first], lost).await {
                break;
            }
        }
    }
}

/// The process that took it up dies as well, after each of its appends.
#[tokio::test(start_paused = true)]
async fn the_journal_is_cut_again_while_the_run_is_resumed() {
    for (yaml, wanted) in PLAYBOOKS {
        for first in (0..).step_by(2) {
            let mut lived = true;
            for second in 0..14 {
                lived = check(Arc::new(MemoryStore::default()), yaml, wanted, &[first, second], lost).await;
                if !lived {
                    break;
                }
            }
            if !lived {
                break;
            }
        }
    }
}

fn full(_: &str) -> StoreError {
    StoreError::Full { path: PathBuf::from("/state/journal.db") }
}

fn broken(_: &str) -> StoreError {
    StoreError::Io { path: PathBuf::from("/state/journal.db"), why: "input/output error".to_owned() }
}

/// A disk that is full or broken stops the run before the effect; when it is well again, the run goes on.
#[tokio::test(start_paused = true)]
async fn a_disk_that_takes_no_more_stops_the_run_before_the_effect() {
    for error in [full as Broken, broken] {
        for (yaml, wanted) in [PLAYBOOKS[1], PLAYBOOKS[3]] {
            for first in 0.. {
                let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
                let ledger = Ledger::default();
                let plan = plan(yaml, &ledger);
                let cut: Arc<dyn Store> = Arc::new(Cut::new(Arc::clone(&store), first, error));
                let Err(stopped) = start(cut, &plan).await else { break };
                assert!(matches!(stopped, DriverError::Store(StoreError::Full { .. } | StoreError::Io { .. })));
                assert!(stopped.help().is_some_and(|help| help.contains("resume the run")), "{stopped}");
                judge(&journal(&*store, "r1").await, &ledger);
                assert_eq!(resume(Arc::clone(&store), &plan).await.unwrap().status, wanted);
                nothing_twice(&journal(&*store, "r1").await);
            }
        }
    }
}

/// The same against the store on disk, in real time.
#[tokio::test]
async fn the_journal_on_disk_is_cut_at_every_append() {
    for (yaml, wanted) in [PLAYBOOKS[3], PLAYBOOKS[5], PLAYBOOKS[7]] {
        for first in 0.. {
            let dir = tempfile::tempdir().unwrap();
            let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&dir.path().join("state")).unwrap());
            if !check(store, yaml, wanted, &[first, first / 2], lost).await {
                break;
            }
        }
    }
}
