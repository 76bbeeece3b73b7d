//! Random histories of several runs, closed and opened again: what was acknowledged is there, in order, and its chain
//! holds. And wherever a power cut tears the WAL, what is left is a beginning of what was written.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use proptest::prelude::*;
use runback_core::event::Event;
use runback_exec::store::{JOURNAL_FILE, Lease, RunFilter, SqliteStore, Store};

use crate::support::{block_on, created, open, step};

#[derive(Debug, Clone)]
enum Act {
    Append {
        run: u8,
        events: u64,
    },
    /// Several at once, so that they share a commit.
    Together {
        runs: Vec<u8>,
    },
    Release {
        run: u8,
    },
    Delete {
        run: u8,
    },
    Reopen,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        6 => (0..4_u8, 1..20_u64).prop_map(|(run, events)| Act::Append { run, events }),
        4 => prop::collection::btree_set(0..4_u8, 2..4).prop_map(|runs| Act::Together { runs: runs.into_iter().collect() }),
        2 => (0..4_u8).prop_map(|run| Act::Release { run }),
        1 => (0..4_u8).prop_map(|run| Act::Delete { run }),
        1 => Just(Act::Reopen),
    ];
    prop::collection::vec(act, 1..40)
}

fn name(run: u8) -> String {
    format!("run-{run}")
}

#[derive(Default)]
struct Model {
    written: BTreeMap<String, Vec<Event>>,
    leases: BTreeMap<String, Lease>,
}

impl Model {
    async fn own(&mut self, store: &SqliteStore, run: &str) {
        if self.leases.contains_key(run) {
            return;
        }
        let lease = if self.written.contains_key(run) {
            store.acquire(run).await.unwrap()
        } else {
            self.written.insert(run.to_owned(), vec![created(run)]);
            store.create(run, vec![created(run)]).await.unwrap()
        };
        self.leases.insert(run.to_owned(), lease);
    }

    fn next(&mut self, run: &str, count: u64) -> Vec<Event> {
        let written = self.written.get_mut(run).unwrap();
        let last = written.len() as u64;
        let events: Vec<Event> = (last + 1..=last + count).map(step).collect();
        written.extend(events.iter().cloned());
        events
    }

    async fn compare(&self, store: &SqliteStore) -> Result<(), TestCaseError> {
        for (run, written) in &self.written {
            prop_assert_eq!(&store.events(run, 0, usize::MAX).await.unwrap(), written);
            prop_assert_eq!(store.verify(run).await.unwrap().events, written.len() as u64);
        }
        prop_assert_eq!(store.runs(&RunFilter::default()).await.unwrap().len(), self.written.len());
        Ok(())
    }
}

async fn play(dir: &Path, acts: Vec<Act>) -> Result<(), TestCaseError> {
    let mut store = open(dir);
    let mut model = Model::default();
    for act in acts {
        match act {
            Act::Append { run, events } => {
                let run = name(run);
                model.own(&store, &run).await;
                let events = model.next(&run, events);
                store.append(&model.leases[&run], events.into()).await.unwrap();
            }
            Act::Together { runs } => {
                let mut all = Vec::new();
                for run in runs {
                    let run = name(run);
                    model.own(&store, &run).await;
                    let (one, two) = (model.next(&run, 1), model.next(&run, 2));
                    all.push((run, [one, two]));
                }
                let mut waiting = Vec::new();
                for (run, parts) in all {
                    for part in parts {
                        waiting.push(Box::pin(store.append(&model.leases[&run], part.into())));
                    }
                }
                // All are asked for before the first is waited for.
                std::future::poll_fn(|context| {
                    waiting.retain_mut(|one| match one.as_mut().poll(context) {
                        std::task::Poll::Ready(done) => {
                            done.unwrap();
                            false
                        }
                        std::task::Poll::Pending => true,
                    });
                    if waiting.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
                })
                .await;
            }
            Act::Release { run } => drop(model.leases.remove(&name(run))),
            Act::Delete { run } => {
                let run = name(run);
                drop(model.leases.remove(&run));
                let there = model.written.remove(&run).is_some();
                prop_assert_eq!(store.delete(&run).await.is_ok(), there);
            }
            Act::Reopen => {
                model.leases.clear();
                drop(store);
                store = open(dir);
                model.compare(&store).await?;
            }
        }
    }
    model.compare(&store).await
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn what_was_acknowledged_is_there(acts in acts()) {
        let dir = tempfile::tempdir().unwrap();
        block_on(play(dir.path(), acts))?;
    }

    #[test]
    fn a_torn_wal_leaves_a_beginning(commits in prop::collection::vec(1..4_u64, 1..12), cuts in prop::collection::vec(0..=1_000_u64, 1..8)) {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir.path().join("state"));
        let written = block_on(async {
            let lease = store.create("r", vec![created("r")]).await.unwrap();
            let mut written = vec![created("r")];
            for count in commits {
                let last = written.len() as u64;
                let events: Vec<Event> = (last + 1..=last + count).map(step).collect();
                written.extend(events.iter().cloned());
                store.append(&lease, events.into()).await.unwrap();
            }
            written
        });
        let from = dir.path().join("state");
        let wal = format!("{JOURNAL_FILE}-wal");
        let length = fs::metadata(from.join(&wal)).unwrap().len();
        for (index, cut) in cuts.into_iter().enumerate() {
            let to = dir.path().join(format!("cut-{index}"));
            fs::create_dir(&to).unwrap();
            for file in [JOURNAL_FILE, &wal] {
                // A copy by another process: to open SQLite's file in this one would drop its locks.
                let copied = std::process::Command::new("cp").arg(from.join(file)).arg(to.join(file)).status().unwrap();
                prop_assert!(copied.success());
            }
            fs::OpenOptions::new().write(true).open(to.join(&wal)).unwrap().set_len(length * cut / 1_000).unwrap();
            let torn = open(&to);
            let found = block_on(async {
                match torn.resolve("last").await {
                    Ok(run) => {
                        let verified = torn.verify(&run).await.unwrap();
                        let events = torn.events(&run, 0, usize::MAX).await.unwrap();
                        assert_eq!(verified.events, events.len() as u64);
                        events
                    }
                    Err(_) => Vec::new(),
                }
            });
            prop_assert_eq!(&found[..], &written[..found.len()]);
            if cut == 1_000 {
                prop_assert_eq!(found.len(), written.len());
            }
        }
    }
}
