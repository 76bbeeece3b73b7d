//! A command that outlives its process: the journal is cut at every append, the next process finds the command again or
//! its exit record, and it ran once.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use runback_core::event::Resolution;
use runback_core::state::RunStatus;
use runback_exec::driver::{DriveOptions, Driver, DriverError, Ended, Intent, Surroundings};
use runback_exec::process::Processes;
use runback_exec::store::{MemoryStore, Store};
use runback_exec::target::{LocalTarget, TargetSet};
use serde_json::json;

use super::store::{Cut, lost};
use super::world::{Driving, Ledger, around, create_in, journal, names, open_in, plan};

fn here(dir: &Path) -> Surroundings {
    let local = Arc::new(LocalTarget::new(dir.to_owned(), dir.join("detached"), Processes::without_guard()));
    let no_ssh = |_: &str, _: &runback_core::playbook::model::SshTarget| unreachable!("no playbook here has one");
    Surroundings { targets: Arc::new(TargetSet::new(&[], local, no_ssh)), base: dir.to_owned(), ..around(1) }
}

async fn drive(driver: Result<Driver, DriverError>) -> Result<Ended, DriverError> {
    Driving::start(driver?, DriveOptions::default()).end().await
}

#[tokio::test]
async fn a_detached_command_runs_once_wherever_the_journal_is_cut() {
    let yaml = "steps:
  - { id: a, uses: t.ask, detach: true, with: { do: [\"sh echo begun >> begun; sleep 0.2; echo ended >> ended\"] } }
  - { id: b, uses: t.rerun }";
    for limit in 0.. {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::default();
        let plan = plan(yaml, &ledger);
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let cut: Arc<dyn Store> = Arc::new(Cut::new(Arc::clone(&store), limit, lost));
        let first = drive(create_in(cut, &plan, "r1", here(dir.path())).await).await;
        // Its folder is there from before its start until its end is recorded.
        let started = || std::fs::read_dir(dir.path().join("detached")).is_ok_and(|mut d| d.next().is_some());
        let lines = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap_or_default().lines().count();
        if first.is_ok() {
            assert!(limit > 4);
            assert_eq!((lines("begun"), lines("ended")), (1, 1));
            break;
        }
        // One that came too late into the journal is not found; whoever looks waits until it is over.
        tokio::time::sleep(Duration::from_millis(if limit % 2 == 0 { 0 } else { 300 })).await;
        let mut ended = None;
        for _ in 0..2 {
            let mut driver = open_in(Arc::clone(&store), &plan, "r1", Intent::Resume, here(dir.path())).await.unwrap();
            for node in driver.state().doubts().collect::<Vec<_>>() {
                tokio::time::sleep(Duration::from_millis(400)).await;
                let asked = Instant::now();
                while started() && lines("ended") == 0 && asked.elapsed() < Duration::from_secs(60) {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                let step = driver.state().path(node).to_string();
                let done = if lines("ended") > 0 { Resolution::Done } else { Resolution::Redo };
                driver.resolve(&step, done, json!({ "n": 1 })).unwrap();
            }
            let now = drive(Ok(driver)).await.unwrap();
            let waits = now.waiting;
            ended = Some(now);
            if !waits {
                break;
            }
        }
        let told = names(&journal(&*store, "r1").await);
        assert_eq!(ended.map(|e| e.status), Some(RunStatus::Succeeded), "cut at {limit}: {told:#?}");
        assert_eq!((lines("begun"), lines("ended")), (1, 1), "cut at {limit}: {told:#?}");
        let left = std::fs::read_dir(dir.path().join("detached")).map(|d| d.flatten().count()).unwrap_or_default();
        assert_eq!(left, 0, "cut at {limit}: its records stay");
    }
}
