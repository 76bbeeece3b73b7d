//! After every append the process dies. The next one goes on; nothing that was recorded as done is done again, and
//! nothing was done that was not recorded before.

use std::sync::Arc;

use runback_core::event::{Event, EventBody};
use runback_core::state::RunStatus;
use runback_exec::store::{MemoryStore, Store as _};

use super::store::{Cut, lost};
use super::world::{Ledger, plan, resume, start};

const PLAYBOOKS: [(&str, RunStatus); 5] = [
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
];

fn count(ledger: &Ledger, line: &str) -> usize {
    ledger.lock().unwrap().iter().filter(|l| *l == line).count()
}

/// Every effect has its record: an act its armed undo, an undo its start; and after a success nothing comes again.
fn judge(journal: &[Event], ledger: &Ledger) {
    let steps: Vec<String> = journal
        .iter()
        .filter_map(|e| e.body.step())
        .map(ToString::to_string)
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect();
    for step in steps {
        let of = |want: &str| {
            journal.iter().filter(|e| e.body.step().is_some_and(|s| **s == *step) && e.body.type_name() == want).count()
        };
        let acts = count(ledger, &format!("act {step}"));
        let undos = count(ledger, &format!("undo {step}"));
        assert!(acts <= of("attempt_started"), "{step} acted {acts} times, recorded {}", of("attempt_started"));
        assert!(acts == 0 || of("undo_armed") > 0, "{step} acted before its undo was armed");
        assert!(undos <= of("undo_started"), "{step} was undone {undos} times, recorded {}", of("undo_started"));
    }
}

/// After the record of a success there is no further attempt of the same.
fn nothing_twice(journal: &[Event]) {
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

#[tokio::test(start_paused = true)]
async fn the_journal_is_cut_at_every_append() {
    for (yaml, wanted) in PLAYBOOKS {
        for limit in 0.. {
            let ledger = Ledger::default();
            let plan = plan(yaml, &ledger);
            let store = MemoryStore::default();
            let first = start(Arc::new(Cut::new(Arc::new(store.clone()), limit, lost)), &plan).await;
            judge(&store.events("r1", 0, usize::MAX).await.unwrap(), &ledger);
            if let Ok(ended) = first {
                assert_eq!(ended.status, wanted);
                assert!(limit > 4, "{limit} appends are too few to be true");
                break;
            }
            let mut ended = resume(Arc::new(store.clone()), &plan).await.unwrap();
            if ended.waiting {
                ended = resume(Arc::new(store.clone()), &plan).await.unwrap();
            }
            let journal = store.events("r1", 0, usize::MAX).await.unwrap();
            assert_eq!(ended.status, wanted, "cut at {limit} of {yaml}\n{journal:#?}");
            judge(&journal, &ledger);
            nothing_twice(&journal);
        }
    }
}
