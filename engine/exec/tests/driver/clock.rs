//! The wall clock goes back or ahead between two processes of a run. Order comes from the journal; nothing waits longer
//! than it was told to, and nothing is out of time for it.

use std::sync::Arc;
use std::time::Duration;

use runback_core::state::RunStatus;
use runback_exec::driver::{DriveOptions, Intent};
use runback_exec::store::{MemoryStore, Store};
use tokio::time::Instant;

use super::world::{Driving, Ledger, START, create, journal, open_at, plan};

const HOUR: u64 = 3_600_000;

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_moves_nothing() {
    let yaml = "timeout: 90m
steps:
  - { id: a, uses: t.rerun, with: { do: [flaky 1] }, timeout: 10m, deadline: 3h, retry: { max_attempts: 3, initial_interval: 1h, max_interval: 1h, jitter: 0 } }
  - { id: b, uses: t.rerun, with: { do: [sleep 1000] } }";
    // By how much the clock is wrong, and how long the rest of the hour may still take.
    for (at, longest) in [(START - 900_000, HOUR), (0, HOUR), (START + HOUR / 2, HOUR / 2), (START + 20 * HOUR, 60_000)]
    {
        let ledger = Ledger::default();
        let plan = plan(yaml, &ledger);
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let first = Driving::start(create(Arc::clone(&store), &plan, "r1").await.unwrap(), DriveOptions::default());
        first.seen.wait_for("attempt_failed a").await;
        first.kill().await;
        let began = Instant::now();
        let next = open_at(Arc::clone(&store), &plan, "r1", Intent::Resume, at).await.unwrap();
        let ended = Driving::start(next, DriveOptions::default()).end().await.unwrap();
        assert_eq!(ended.status, RunStatus::Succeeded, "at {at}");
        assert!(began.elapsed() <= Duration::from_millis(longest + 10_000), "at {at}: {:?}", began.elapsed());
        let journal = journal(&*store, "r1").await;
        assert!(journal.windows(2).all(|w| w[0].at <= w[1].at), "time goes back in the journal");
    }
}
