//! A store that fails: appends from the n-th on, as a process that died or as a disk that is full; and locks that
//! can never be had.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use runback_core::event::Event;
use runback_exec::lease::Owner;
use runback_exec::store::{
    Lease, LockAttempt, LockWait, LockWaiting, Posted, Request, RunFilter, RunRow, Store, StoreError, Verified,
};

pub(crate) struct Cut {
    inner: Arc<dyn Store>,
    appends: AtomicU64,
    limit: u64,
    error: fn(&str) -> StoreError,
    /// Every lock is part of a cycle.
    pub(crate) deadlock: AtomicBool,
}

/// Another process has the run.
pub(crate) fn lost(run: &str) -> StoreError {
    StoreError::LeaseLost { run: run.to_owned() }
}

impl Cut {
    pub(crate) fn new(inner: Arc<dyn Store>, limit: u64, error: fn(&str) -> StoreError) -> Self {
        Self { inner, appends: AtomicU64::new(0), limit, error, deadlock: AtomicBool::new(false) }
    }
}

#[async_trait]
impl Store for Cut {
    async fn create(&self, run: &str, events: Vec<Event>) -> Result<Lease, StoreError> {
        self.inner.create(run, events).await
    }
    async fn acquire(&self, run: &str) -> Result<Lease, StoreError> {
        self.inner.acquire(run).await
    }
    async fn append(&self, lease: &Lease, events: Arc<[Event]>) -> Result<(), StoreError> {
        if self.appends.fetch_add(1, Ordering::SeqCst) >= self.limit {
            return Err((self.error)(lease.run()));
        }
        self.inner.append(lease, events).await
    }
    async fn events(&self, run: &str, after_seq: u64, limit: usize) -> Result<Vec<Event>, StoreError> {
        self.inner.events(run, after_seq, limit).await
    }
    async fn runs(&self, filter: &RunFilter) -> Result<Vec<RunRow>, StoreError> {
        self.inner.runs(filter).await
    }
    async fn run(&self, run: &str) -> Result<RunRow, StoreError> {
        self.inner.run(run).await
    }
    async fn resolve(&self, prefix: &str) -> Result<String, StoreError> {
        self.inner.resolve(prefix).await
    }
    async fn delete(&self, run: &str) -> Result<(), StoreError> {
        self.inner.delete(run).await
    }
    async fn verify(&self, run: &str) -> Result<Verified, StoreError> {
        self.inner.verify(run).await
    }
    async fn try_lock(&self, lease: &Lease, step: Option<&str>, names: &[String]) -> Result<LockAttempt, StoreError> {
        if self.deadlock.load(Ordering::SeqCst) {
            let edge = |run: &str, holder: &str| LockWait {
                run: run.to_owned(),
                step: None,
                name: names[0].clone(),
                holder: holder.to_owned(),
            };
            return Ok(LockAttempt::Deadlock { cycle: vec![edge(lease.run(), "other"), edge("other", lease.run())] });
        }
        self.inner.try_lock(lease, step, names).await
    }
    async fn withdraw_lock(&self, lease: &Lease, step: Option<&str>) -> Result<(), StoreError> {
        self.inner.withdraw_lock(lease, step).await
    }
    async fn release_locks(&self, lease: &Lease) -> Result<(), StoreError> {
        self.inner.release_locks(lease).await
    }
    async fn lock_waits(&self, run: &str) -> Result<Vec<(Option<String>, LockWaiting)>, StoreError> {
        self.inner.lock_waits(run).await
    }
    async fn owner(&self, run: &str) -> Result<Option<Owner>, StoreError> {
        self.inner.owner(run).await
    }
    async fn post(&self, run: &str, request: Request) -> Result<u64, StoreError> {
        self.inner.post(run, request).await
    }
    async fn take_requests(&self, lease: &Lease) -> Result<Vec<Posted>, StoreError> {
        self.inner.take_requests(lease).await
    }
    async fn is_pending(&self, run: &str, request: u64) -> Result<bool, StoreError> {
        self.inner.is_pending(run, request).await
    }
    async fn withdraw_request(&self, run: &str, request: u64) -> Result<bool, StoreError> {
        self.inner.withdraw_request(run, request).await
    }
    async fn changed(&self) -> Result<u64, StoreError> {
        self.inner.changed().await
    }
    fn logs_dir(&self, run: &str) -> Option<PathBuf> {
        self.inner.logs_dir(run)
    }
}
