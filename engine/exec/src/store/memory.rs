//! A store in memory: for tests, simulation and runs that nobody needs to remember. Same contract as the one on disk,
//! apart from what a disk gives: it ends with the process and keeps no hashes.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use runback_core::event::{Event, EventBody};

use super::locks::{Decision, HeldName, LockTable, Wait};
use super::{
    Beginning, Hold, Lease, LockAttempt, LockWaiting, Posted, Request, RunFilter, RunRow, Store, StoreError, Verified,
    check_first, check_order, lock_names,
};
use crate::lease::{Owner, now_ms};

#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    runs: HashMap<String, Run>,
    /// In order of creation.
    order: Vec<String>,
    locks: LockTable,
    tickets: u64,
    requests: u64,
    changes: u64,
    /// By schedule and instant: the run.
    fired: HashMap<(String, u64), String>,
}

#[derive(Debug)]
struct Run {
    playbook: String,
    created_at: u64,
    epoch: u64,
    owner: Option<Owner>,
    /// As they were appended; none is empty.
    batches: Vec<Arc<[Event]>>,
    requests: Vec<Posted>,
}

impl Run {
    fn last(&self) -> Option<&Event> {
        self.batches.last()?.last()
    }

    fn last_seq(&self) -> u64 {
        self.last().map_or(0, |event| event.seq)
    }

    fn after(&self, seq: u64) -> impl Iterator<Item = &Event> {
        let seen = self.batches.partition_point(|batch| batch.last().is_some_and(|event| event.seq <= seq));
        self.batches[seen..].iter().flat_map(|batch| batch.iter()).skip_while(move |event| event.seq <= seq)
    }
}

#[derive(Debug)]
struct MemoryHold {
    inner: Arc<Mutex<Inner>>,
    run: String,
    epoch: u64,
}

impl Hold for MemoryHold {}

impl Drop for MemoryHold {
    fn drop(&mut self) {
        let mut inner = lock(&self.inner);
        inner.changes += 1;
        if let Some(run) = inner.runs.get_mut(&self.run)
            && run.epoch == self.epoch
        {
            run.owner = None;
        }
    }
}

/// Nothing panics while it holds the lock, and each change is whole before it is given back.
fn lock(inner: &Arc<Mutex<Inner>>) -> MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    fn run(&mut self, run: &str) -> Result<&mut Run, StoreError> {
        self.runs.get_mut(run).ok_or_else(|| StoreError::unknown(run))
    }

    fn owned(&mut self, lease: &Lease) -> Result<&mut Run, StoreError> {
        lease.held.check()?;
        self.fenced(lease)
    }

    /// A broken lease may still give back what it has; a lost one has nothing.
    fn fenced(&mut self, lease: &Lease) -> Result<&mut Run, StoreError> {
        let lost = || StoreError::LeaseLost { run: lease.run().to_owned() };
        self.runs.get_mut(lease.run()).filter(|run| run.epoch == lease.epoch()).ok_or_else(lost)
    }

    fn owner(&self, run: &str) -> Option<Owner> {
        self.runs.get(run).and_then(|run| run.owner.clone())
    }

    fn purge_dead(&mut self, but: &str) {
        for run in self.locks.runs() {
            if run != but && self.owner(&run).is_none() {
                self.locks.holds.retain(|hold| hold.run != run);
                self.locks.waits.retain(|wait| wait.run != run);
            }
        }
    }

    fn withdraw(&mut self, run: &str, step: Option<&str>) {
        self.locks.waits.retain(|wait| !(wait.run == run && wait.step.as_deref() == step));
    }

    fn attempt(&mut self, run: &str, step: Option<&str>, names: Vec<String>) -> LockAttempt {
        self.purge_dead(run);
        if self.locks.ticket(run, step).is_some_and(|wait| wait.names != names) {
            self.withdraw(run, step);
        }
        match self.locks.decide(run, step, &names) {
            Decision::Take(new) => {
                self.withdraw(run, step);
                let step = step.map(str::to_owned);
                let hold = |name| HeldName { name, run: run.to_owned(), step: step.clone(), since: now_ms() };
                self.locks.holds.extend(new.into_iter().map(hold));
                LockAttempt::Taken
            }
            Decision::Wait(blocker) => {
                if self.locks.ticket(run, step).is_none() {
                    self.tickets += 1;
                    let (run, step) = (run.to_owned(), step.map(str::to_owned));
                    self.locks.waits.push(Wait { ticket: self.tickets, run, step, names, since: now_ms() });
                }
                let owner = self.owner(&blocker.run);
                LockAttempt::Waiting(LockWaiting::new(blocker, owner))
            }
            Decision::Deadlock(cycle) => {
                self.withdraw(run, step);
                LockAttempt::Deadlock { cycle }
            }
        }
    }
}

impl MemoryStore {
    pub fn new() -> Self {
        Self::default()
    }

    /// All events of a run; none of one that is not here.
    pub fn journal(&self, run: &str) -> Vec<Event> {
        lock(&self.inner).runs.get(run).map(|run| run.after(0).cloned().collect()).unwrap_or_default()
    }

    fn hold(&self, run: &str, epoch: u64) -> Box<dyn Hold> {
        Box::new(MemoryHold { inner: Arc::clone(&self.inner), run: run.to_owned(), epoch })
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn create(&self, run: &str, events: Vec<Event>) -> Result<Lease, StoreError> {
        let Beginning { playbook, created_at, fired } = check_first(run, &events)?;
        let mut inner = lock(&self.inner);
        if inner.runs.contains_key(run) {
            return Err(StoreError::RunExists { run: run.to_owned() });
        }
        if let Some((schedule, at)) = fired {
            if let Some(first) = inner.fired.get(&(schedule.clone(), at)) {
                let (decision, run) = ("started".to_owned(), Some(first.clone()));
                return Err(StoreError::Fired { schedule, decision, run });
            }
            inner.fired.insert((schedule, at), run.to_owned());
        }
        let owner = Some(Owner::this_process());
        inner.order.push(run.to_owned());
        let new = Run { playbook, created_at, epoch: 1, owner, batches: vec![events.into()], requests: Vec::new() };
        inner.runs.insert(run.to_owned(), new);
        drop(inner);
        Ok(Lease::new(run, 1, false, self.hold(run, 1)))
    }

    async fn acquire(&self, run: &str) -> Result<Lease, StoreError> {
        let mut inner = lock(&self.inner);
        let found = inner.run(run)?;
        if let Some(owner) = &found.owner {
            return Err(StoreError::Busy { run: run.to_owned(), owner: Some(owner.clone()) });
        }
        found.owner = Some(Owner::this_process());
        found.epoch += 1;
        let epoch = found.epoch;
        inner.locks.waits.retain(|wait| wait.run != run);
        drop(inner);
        Ok(Lease::new(run, epoch, true, self.hold(run, epoch)))
    }

    async fn append(&self, lease: &Lease, events: Arc<[Event]>) -> Result<(), StoreError> {
        let seen = lease.held.seen_request.load(Ordering::Relaxed);
        let mut inner = lock(&self.inner);
        let run = inner.owned(lease)?;
        if let Err(error) = check_order(lease.run(), run.last_seq(), &events) {
            lease.held.break_it();
            return Err(error);
        }
        if !events.is_empty() {
            run.batches.push(events);
        }
        run.requests.retain(|posted| posted.id > seen);
        Ok(())
    }

    async fn events(&self, run: &str, after_seq: u64, limit: usize) -> Result<Vec<Event>, StoreError> {
        let mut inner = lock(&self.inner);
        Ok(inner.run(run)?.after(after_seq).take(limit).cloned().collect())
    }

    async fn runs(&self, filter: &RunFilter) -> Result<Vec<RunRow>, StoreError> {
        let inner = lock(&self.inner);
        let newest_first = inner.order.iter().rev().filter_map(|id| Some((id, inner.runs.get(id)?)));
        let wanted = newest_first.filter(|(_, run)| {
            filter.playbook.as_ref().is_none_or(|name| *name == run.playbook)
                && filter.since.is_none_or(|since| run.created_at >= since)
        });
        Ok(wanted.take(filter.limit.unwrap_or(usize::MAX)).map(|(id, run)| row(id, run)).collect())
    }

    async fn run(&self, run: &str) -> Result<RunRow, StoreError> {
        let inner = lock(&self.inner);
        inner.runs.get(run).map(|found| row(run, found)).ok_or_else(|| StoreError::unknown(run))
    }

    async fn resolve(&self, prefix: &str) -> Result<String, StoreError> {
        let inner = lock(&self.inner);
        let newest = || inner.order.iter().rev().take(5).cloned().collect();
        let unknown = || StoreError::UnknownRun { run: prefix.to_owned(), candidates: newest() };
        if prefix == "last" {
            return inner.order.last().cloned().ok_or_else(unknown);
        }
        if inner.runs.contains_key(prefix) {
            return Ok(prefix.to_owned());
        }
        let mut candidates: Vec<String> = inner.order.iter().filter(|id| id.starts_with(prefix)).cloned().collect();
        candidates.sort();
        match candidates.as_slice() {
            [] => Err(unknown()),
            [_] if !prefix.is_empty() => Ok(candidates.remove(0)),
            _ => {
                candidates.truncate(10);
                Err(StoreError::Ambiguous { prefix: prefix.to_owned(), candidates })
            }
        }
    }

    async fn delete(&self, run: &str) -> Result<(), StoreError> {
        let mut inner = lock(&self.inner);
        if let Some(owner) = inner.run(run)?.owner.clone() {
            return Err(StoreError::Busy { run: run.to_owned(), owner: Some(owner) });
        }
        inner.runs.remove(run);
        inner.order.retain(|id| id != run);
        inner.purge_dead("");
        inner.changes += 1;
        Ok(())
    }

    async fn verify(&self, run: &str) -> Result<Verified, StoreError> {
        let mut inner = lock(&self.inner);
        Ok(Verified { events: inner.run(run)?.last_seq(), head: String::new() })
    }

    async fn try_lock(
        &self,
        lease: &Lease,
        holder_step: Option<&str>,
        names: &[String],
    ) -> Result<LockAttempt, StoreError> {
        let mut inner = lock(&self.inner);
        inner.owned(lease)?;
        lease.held.locks.store(true, Ordering::Relaxed);
        Ok(inner.attempt(lease.run(), holder_step, lock_names(names)))
    }

    async fn withdraw_lock(&self, lease: &Lease, holder_step: Option<&str>) -> Result<(), StoreError> {
        let mut inner = lock(&self.inner);
        inner.fenced(lease)?;
        inner.withdraw(lease.run(), holder_step);
        inner.changes += 1;
        Ok(())
    }

    async fn release_locks(&self, lease: &Lease) -> Result<(), StoreError> {
        if !lease.held.locks.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut inner = lock(&self.inner);
        inner.fenced(lease)?;
        inner.locks.holds.retain(|hold| hold.run != lease.run());
        inner.locks.waits.retain(|wait| wait.run != lease.run());
        inner.changes += 1;
        Ok(())
    }

    async fn lock_waits(&self, run: &str) -> Result<Vec<(Option<String>, LockWaiting)>, StoreError> {
        let inner = lock(&self.inner);
        let words = |(step, blocker): (Option<String>, super::locks::InTheWay)| {
            let owner = inner.owner(&blocker.run);
            (step, LockWaiting::new(blocker, owner))
        };
        Ok(inner.locks.waits_of(run).into_iter().map(words).collect())
    }

    async fn owner(&self, run: &str) -> Result<Option<Owner>, StoreError> {
        Ok(lock(&self.inner).owner(run))
    }

    async fn post(&self, run: &str, request: Request) -> Result<u64, StoreError> {
        let mut inner = lock(&self.inner);
        let id = inner.requests + 1;
        inner.run(run)?.requests.push(Posted { id, at: now_ms(), request });
        inner.requests = id;
        inner.changes += 1;
        Ok(id)
    }

    async fn take_requests(&self, lease: &Lease) -> Result<Vec<Posted>, StoreError> {
        let seen = lease.held.seen_request.load(Ordering::Relaxed);
        let mut inner = lock(&self.inner);
        let new: Vec<Posted> = inner.owned(lease)?.requests.iter().filter(|posted| posted.id > seen).cloned().collect();
        if let Some(last) = new.last() {
            lease.held.seen_request.store(last.id, Ordering::Relaxed);
        }
        Ok(new)
    }

    async fn is_pending(&self, run: &str, request: u64) -> Result<bool, StoreError> {
        let inner = lock(&self.inner);
        Ok(inner.runs.get(run).is_some_and(|found| found.requests.iter().any(|posted| posted.id == request)))
    }

    async fn withdraw_request(&self, run: &str, request: u64) -> Result<bool, StoreError> {
        let mut inner = lock(&self.inner);
        let Some(found) = inner.runs.get_mut(run) else { return Ok(false) };
        let before = found.requests.len();
        found.requests.retain(|posted| posted.id != request);
        Ok(found.requests.len() < before)
    }

    async fn changed(&self) -> Result<u64, StoreError> {
        Ok(lock(&self.inner).changes)
    }

    fn logs_dir(&self, _run: &str) -> Option<PathBuf> {
        None
    }
}

fn row(id: &str, run: &Run) -> RunRow {
    RunRow {
        run: id.to_owned(),
        head_events: run.after(0).filter(|event| event.body.is_about_the_run()).map(without_texts).collect(),
        last_seq: run.last_seq(),
        last_at: run.last().map_or(run.created_at, |event| event.at),
        owner: run.owner.clone(),
    }
}

fn without_texts(event: &Event) -> Event {
    let mut event = event.clone();
    if let EventBody::RunCreated(created) = &mut event.body {
        created.texts.clear();
    }
    event
}
