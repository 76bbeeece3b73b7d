//! What goes when history grows: runs that are over, by age and by number. Never one that somebody has; one that could
//! still be resumed only when told so.

use runback_core::event::Outcome;

use super::{RunEnd, RunFilter, RunRow, Store, StoreError};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retention {
    /// Goes: what wrote its last event before this instant, in milliseconds since the epoch.
    pub older_than: Option<u64>,
    /// Goes: what is not among so many of the newest runs.
    pub keep_newest: Option<usize>,
    /// Only runs of this playbook; they alone count.
    pub playbook: Option<String>,
    /// Also runs that failed and could be resumed, or are stuck.
    pub all: bool,
    /// Says what would go, and removes nothing.
    pub dry_run: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Newest first.
    pub removed: Vec<PrunedRun>,
    /// Due by age or number, and kept because they are not over.
    pub kept: Vec<KeptRun>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrunedRun {
    pub run: String,
    pub events: u64,
    /// Milliseconds since the epoch of its last event.
    pub last_at: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptRun {
    pub run: String,
    pub why: WhyKept,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhyKept {
    Alive,
    /// It failed or was held, or its process died: `runback resume` can go on with it.
    Resumable,
    /// An undo failed, and a person has not cleared it up.
    Stuck,
}

/// Removes, with their logs, the runs that either limit names.
pub async fn prune(store: &dyn Store, rule: &Retention) -> Result<Pruned, StoreError> {
    let mut pruned = Pruned::default();
    if rule.older_than.is_none() && rule.keep_newest.is_none() {
        return Ok(pruned);
    }
    let filter = RunFilter { playbook: rule.playbook.clone(), ..RunFilter::default() };
    for (index, row) in store.runs(&filter).await?.into_iter().enumerate() {
        let old = rule.older_than.is_some_and(|limit| row.last_at < limit);
        let too_many = rule.keep_newest.is_some_and(|limit| index >= limit);
        if !(old || too_many) {
            continue;
        }
        match why_kept(&row) {
            Some(why) if why == WhyKept::Alive || !rule.all => {
                pruned.kept.push(KeptRun { run: row.run, why });
                continue;
            }
            _ => {}
        }
        if !rule.dry_run {
            match store.delete(&row.run).await {
                Ok(()) => {}
                // Somebody took it up since we looked, or pruned it too.
                Err(StoreError::Busy { .. }) => {
                    pruned.kept.push(KeptRun { run: row.run, why: WhyKept::Alive });
                    continue;
                }
                Err(StoreError::UnknownRun { .. }) => continue,
                Err(error) => return Err(error),
            }
        }
        pruned.removed.push(PrunedRun { run: row.run, events: row.last_seq, last_at: row.last_at });
    }
    Ok(pruned)
}

fn why_kept(row: &RunRow) -> Option<WhyKept> {
    if row.owner.is_some() {
        return Some(WhyKept::Alive);
    }
    match row.end() {
        RunEnd::Over(Outcome::Succeeded | Outcome::RolledBack | Outcome::Cancelled) => None,
        RunEnd::Over(Outcome::Stuck) => Some(WhyKept::Stuck),
        RunEnd::Over(Outcome::Failed) | RunEnd::Held | RunEnd::Open => Some(WhyKept::Resumable),
    }
}
