//! What the store costs, beside what the disk costs in the same minute: prints ratios, asserts nothing.
//! `cargo bench -p runback-exec --bench store`

#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::error::Error;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use runback_core::Json;
use runback_core::event::{Created, Event, EventBody, FORMAT, RunOptions};
use runback_exec::store::{MemoryStore, SqliteStore, Store};

fn created(run: &str) -> Event {
    let body = EventBody::RunCreated(Box::new(Created {
        format: FORMAT,
        version: "0".into(),
        run: run.into(),
        playbook: "bench".into(),
        texts: Vec::new(),
        base: "/".into(),
        digest: "0".into(),
        inputs: Json::Null,
        by: "bench@localhost".into(),
        from: "bench".into(),
        options: RunOptions::default(),
    }));
    Event { seq: 1, at: 1, body }
}

fn step(seq: u64) -> Event {
    let body = EventBody::AttemptSucceeded {
        step: format!("step-{seq}").into(),
        attempt: 1,
        changed: true,
        outputs: Json::Null,
        masked: Vec::new(),
    };
    Event { seq, at: seq, body }
}

/// Appends blocks of a WAL frame's size and syncs each.
fn bare(dir: &Path, rounds: u32, fsync: bool) -> Result<Duration, Box<dyn Error>> {
    let mut file = File::create(dir.join("bare"))?;
    let block = [7_u8; 4096 + 24];
    let start = Instant::now();
    for _ in 0..rounds {
        file.write_all(&block)?;
        if fsync {
            file.sync_all()?;
        } else {
            file.sync_data()?;
        }
    }
    Ok(start.elapsed() / rounds)
}

async fn chain(store: &dyn Store, run: &str, commits: u64, per_commit: u64) -> Result<Duration, Box<dyn Error>> {
    let lease = store.create(run, vec![created(run)]).await?;
    let mut seq = 1;
    let start = Instant::now();
    for _ in 0..commits {
        store.append(&lease, (1..=per_commit).map(|offset| step(seq + offset)).collect()).await?;
        seq += per_commit;
    }
    Ok(start.elapsed() / u32::try_from(commits)?)
}

async fn crowd(store: &SqliteStore, writers: u64, commits: u64) -> Result<Duration, Box<dyn Error>> {
    let start = Instant::now();
    let all = (0..writers).map(|writer| async move {
        let run = format!("crowd-{writer}");
        let lease = store.create(&run, vec![created(&run)]).await?;
        for seq in 2..2 + commits {
            store.append(&lease, [step(seq)].into()).await?;
        }
        Ok::<_, Box<dyn Error>>(())
    });
    let mut all: Vec<_> = all.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        all.retain_mut(|one| one.as_mut().poll(context).is_pending());
        if all.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    Ok(start.elapsed() / u32::try_from(writers * commits)?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let dir = tempfile::tempdir()?;
    for _ in 0..3 {
        let data = bare(dir.path(), 2_000, false)?;
        let full = bare(dir.path(), 2_000, true)?;
        println!("bare append of 4 KiB: fdatasync {data:.1?}, fsync {full:.1?}");

        let state = tempfile::tempdir_in(dir.path())?;
        let start = Instant::now();
        let store = SqliteStore::open(&state.path().join("new"))?;
        let opened = start.elapsed();
        let lease = runtime.block_on(store.create("first", vec![created("first")]))?;
        let made = start.elapsed();
        runtime.block_on(store.append(&lease, [step(2)].into()))?;
        let written = start.elapsed();
        drop(lease);
        drop(store);
        println!(
            "new store: open {opened:.1?}, + create {made:.1?}, + append {written:.1?}, + close {:.1?}",
            start.elapsed()
        );
        let start = Instant::now();
        let store = SqliteStore::open(&state.path().join("new"))?;
        println!("open again: {:.1?}", start.elapsed());

        let each = runtime.block_on(chain(&store, "chain", 10_000, 1))?;
        let ratio = each.as_secs_f64() / data.as_secs_f64();
        println!("chain of 10,000 commits: {each:.1?} each, {ratio:.2} x fdatasync");
        let each = runtime.block_on(chain(&store, "bulk", 200, 256))? / 256;
        println!("256 events per commit: {:.0} events/s", 1.0 / each.as_secs_f64());
        let each = runtime.block_on(crowd(&store, 16, 500))?;
        println!("16 writers: {:.0} commits asked per second", 1.0 / each.as_secs_f64());
        let start = Instant::now();
        let read = runtime.block_on(store.events("bulk", 0, usize::MAX))?.len();
        println!("read and checked: {:.0} events/s", f64::from(u32::try_from(read)?) / start.elapsed().as_secs_f64());

        let memory = MemoryStore::new();
        let each = runtime.block_on(chain(&memory, "memory", 100_000, 1))?;
        println!("memory store: {each:.2?} per append\n");
    }
    Ok(())
}
