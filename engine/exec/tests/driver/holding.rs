//! What a step holds lives until the block around it ends, in whichever process that is.

use std::sync::Arc;

use runback_core::state::RunStatus;
use runback_exec::store::MemoryStore;

use crate::store::{Cut, lost};
use crate::world::{Ledger, plan, resume, start};

const PLAYBOOK: &str = "
steps:
  - id: in
    steps:
      - { id: tunnel, uses: t.hold }
      - { id: one, uses: t.rerun }
      - { id: two, uses: t.rerun }
  - { id: after, uses: t.rerun }
";

/// Everything inside the block happens while it is held, everything after it does not, and nothing is held at the end.
fn assert_held(ledger: &[String], when: &str) {
    let mut held = 0;
    for line in ledger {
        match line.split_once(' ').expect("two words") {
            ("hold", _) => held += 1,
            ("drop", _) => held -= 1,
            ("act", "in/one" | "in/two") => assert_eq!(held, 1, "{when}: {ledger:?}"),
            ("act", "after") => assert_eq!(held, 0, "{when}: {ledger:?}"),
            _ => {}
        }
    }
    assert_eq!(held, 0, "{when}: {ledger:?}");
}

#[tokio::test(start_paused = true)]
async fn it_is_held_while_the_block_goes_on() {
    let ledger = Ledger::default();
    let plan = plan(PLAYBOOK, &ledger);
    let ended = start(Arc::new(MemoryStore::default()), &plan).await.unwrap();
    assert_eq!(ended.status, RunStatus::Succeeded);
    let lines = ledger.lock().unwrap().clone();
    assert_held(&lines, "at once");
    let ours = |l: &&str| ["act ", "hold ", "drop "].iter().any(|word| l.starts_with(word));
    let order: Vec<&str> = lines.iter().map(String::as_str).filter(ours).collect();
    assert_eq!(order, ["act in/tunnel", "hold in/tunnel", "act in/one", "act in/two", "drop in/tunnel", "act after"]);
}

#[tokio::test(start_paused = true)]
async fn a_failure_ends_it_before_anything_is_taken_back() {
    let ledger = Ledger::default();
    let text =
        "steps:\n  - { id: tunnel, uses: t.hold }\n  - { id: one, uses: t.rerun }\n  - { id: bad, uses: t.fail }\n";
    let ended = start(Arc::new(MemoryStore::default()), &plan(text, &ledger)).await.unwrap();
    assert_eq!(ended.status, RunStatus::RolledBack);
    let lines = ledger.lock().unwrap().clone();
    let dropped = lines.iter().position(|l| l == "drop tunnel");
    assert!(dropped.is_some() && dropped < lines.iter().position(|l| l.starts_with("undo")), "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn a_process_that_takes_the_run_up_holds_it_again() {
    for limit in 0.. {
        let ledger = Ledger::default();
        let plan = plan(PLAYBOOK, &ledger);
        let store = MemoryStore::default();
        let first = start(Arc::new(Cut::new(Arc::new(store.clone()), limit, lost)), &plan).await;
        if first.is_ok() {
            assert!(limit > 5, "it was cut {limit} times only");
            return;
        }
        let ended = resume(Arc::new(store), &plan).await.unwrap();
        assert_eq!(ended.status, RunStatus::Succeeded, "cut at append {limit}");
        assert_held(&ledger.lock().unwrap(), &format!("cut at append {limit}"));
    }
}
