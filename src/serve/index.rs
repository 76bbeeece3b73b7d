//! The heads of all runs of the store, kept in memory so that lists are quick however long the history is. A cache: it
//! is made from the journal, follows it, and is never what anything is decided by.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use runback_core::state::Phase;
use runback_exec::store::StoreError;
use serde_json::json;
use tokio::sync::{Notify, broadcast};

use super::App;
use super::api::RunHead;
use super::log;
use crate::journal::{Run, Summary};

/// At the latest so long after it became durable a change by another process is seen.
const LOOK: Duration = Duration::from_millis(250);
/// Changes that a watcher of the list may be behind before it is told to read the list anew.
const BEHIND: usize = 1024;

/// Newest first.
pub(crate) type Heads = Arc<Vec<Arc<RunHead>>>;

pub(crate) struct Index {
    heads: RwLock<Heads>,
    /// Heads that are new or have changed.
    changes: broadcast::Sender<Arc<RunHead>>,
    nudge: Notify,
}

impl Index {
    pub(crate) fn new() -> Self {
        Self { heads: RwLock::default(), changes: broadcast::Sender::new(BEHIND), nudge: Notify::new() }
    }

    pub(crate) fn heads(&self) -> Heads {
        Arc::clone(&self.heads.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn watch(&self) -> broadcast::Receiver<Arc<RunHead>> {
        self.changes.subscribe()
    }

    /// This process changed something: look soon.
    pub(crate) fn nudge(&self) {
        self.nudge.notify_one();
    }
}

/// What is known of a run, besides what a list shows of it.
struct Known {
    head: Arc<RunHead>,
    last_seq: u64,
    /// It may change by itself.
    open: bool,
}

/// Reads what is there, and follows it until it is aborted. `ready` is told once all is read.
pub(crate) async fn follow(app: Arc<App>, ready: tokio::sync::oneshot::Sender<()>) {
    let mut ready = Some(ready);
    let mut known = HashMap::new();
    let mut seen = None;
    let mut idle = 0_u32;
    loop {
        let changed = app.store.changed().await.ok();
        // A process that dies changes no table: runs that somebody had are looked at once a second.
        idle += 1;
        if changed.is_none() || seen != changed || idle >= 4 {
            seen = changed;
            idle = 0;
            if let Err(error) = read(&app, &mut known).await {
                log::warn("the runs cannot be read", json!({ "error": error.to_string() }));
            }
            if let Some(ready) = ready.take() {
                // Nobody may wait for it.
                let _ = ready.send(());
            }
        }
        if tokio::time::timeout(LOOK, app.index.nudge.notified()).await.is_ok() {
            // What comes in one burst is read once.
            tokio::time::sleep(Duration::from_millis(20)).await;
            seen = None;
        }
    }
}

async fn read(app: &App, known: &mut HashMap<String, Known>) -> Result<(), StoreError> {
    let ids = app.desk.run_seqs().await?;
    let leased: HashSet<String> = app.desk.leased().await?.into_iter().collect();
    let mut altered = ids.len() != known.len();
    for (id, last_seq) in &ids {
        let look = |k: &Known| k.last_seq != *last_seq || k.open || leased.contains(id) != k.head.driven;
        let look = known.get(id).is_none_or(look);
        if !look {
            continue;
        }
        let row = match app.store.run(id).await {
            Ok(row) => row,
            Err(StoreError::UnknownRun { .. }) => continue,
            Err(error) => return Err(error),
        };
        let (last_seq, driven) = (row.last_seq, row.owner.is_some());
        if known.get(id).is_some_and(|k| k.last_seq == last_seq && k.head.driven == driven) {
            continue;
        }
        let (summary, phase) = Summary::unfolded(row);
        let mut head = RunHead::from(&summary);
        if !matches!(phase, Phase::Finished(_) | Phase::Held(_)) {
            // One that cannot be read is shown as its head events have it; looking at it says why.
            if let Ok(status) = app.folds.look(app, id, Run::status).await {
                status.clone_into(&mut head.status);
            }
        }
        let head = Arc::new(head);
        let open = driven || head.may_go_on();
        let same = known.get(id).is_some_and(|k| *k.head == *head);
        known.insert(id.clone(), Known { head: Arc::clone(&head), last_seq, open });
        if !same {
            altered = true;
            // Nobody may watch.
            let _ = app.index.changes.send(head);
        }
    }
    if altered {
        let there: HashSet<&String> = ids.iter().map(|(id, _)| id).collect();
        known.retain(|id, _| there.contains(id));
        let heads: Vec<_> = ids.iter().filter_map(|(id, _)| known.get(id)).map(|k| Arc::clone(&k.head)).collect();
        *app.index.heads.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(heads);
    }
    Ok(())
}
