//! The store on disk: one SQLite database in WAL mode, lock files for the owners of runs, a folder of logs.
//! Any number of processes may use it at once, on one machine: SQLite's WAL does not work over a network.

mod desk;
mod journal;
mod lock_table;
mod open;
mod read;
mod wal;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use runback_core::event::Event;

use super::{
    Hold, Lease, LockAttempt, LockWaiting, Posted, Request, RunFilter, RunRow, Store, StoreError, Verified,
    check_first, check_run_id, lock_names,
};
use crate::lease::{Life, NotTaken, Owner, Patience, RunLock, now_ms, probe};

pub use open::{JOURNAL_FILE, default_state_dir};
pub use writer::Commits;

/// So long a commit waits for those of other processes.
pub(super) const BUSY_SECONDS: u64 = 30;

impl Hold for RunLock {}

#[derive(Debug)]
pub struct SqliteStore {
    layout: Arc<open::Layout>,
    readers: Arc<read::Readers>,
    writer: writer::Writer,
    /// Counts what this very store wrote that its own drivers wait for: SQLite tells only of others.
    own_changes: AtomicU32,
}

impl SqliteStore {
    /// Opens the state folder, or makes it (0700). Blocks for some milliseconds at most, a new one for one sync.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::open_with(dir, Commits::OnThread)
    }

    pub fn open_with(dir: &Path, commits: Commits) -> Result<Self, StoreError> {
        Self::open_layout(open::Layout::prepare(dir, false)?, commits)
    }

    /// As [`SqliteStore::open_with`], also where nothing can be written, such as on a file system that became read-only
    /// after an error of its disk: what is there can be read, and the first write fails.
    pub fn open_to_look(dir: &Path) -> Result<Self, StoreError> {
        Self::open_layout(open::Layout::prepare(dir, true)?, Commits::OnCaller)
    }

    fn open_layout(layout: open::Layout, commits: Commits) -> Result<Self, StoreError> {
        open::check_sqlite()?;
        let layout = Arc::new(layout);
        let connection = layout.connect()?;
        if !connection.is_readonly("main").unwrap_or_default() {
            layout.furnish(&connection)?;
        }
        let writer = writer::Writer::start(connection, &layout.journal, commits)?;
        let readers = Arc::new(read::Readers::new(Arc::clone(&layout)));
        Ok(Self { layout, readers, writer, own_changes: AtomicU32::new(0) })
    }

    fn tell(&self) {
        self.own_changes.fetch_add(1, Ordering::Relaxed);
    }

    fn take(&self, run: &str) -> Result<RunLock, StoreError> {
        RunLock::acquire(&self.layout.leases, run, &Owner::this_process()).map_err(|refused| match refused {
            NotTaken::Held(owner) => StoreError::Busy { run: run.to_owned(), owner },
            NotTaken::Io(error) => StoreError::from_io(&self.layout.leases, &error),
        })
    }

    async fn read<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&rusqlite::Connection) -> Result<T, read::ReadFault> + Send + 'static,
    {
        let readers = Arc::clone(&self.readers);
        tokio::task::spawn_blocking(move || readers.with(work)).await.unwrap_or(Err(StoreError::Closed))
    }

    async fn exists(&self, run: &str) -> Result<bool, StoreError> {
        let run = run.to_owned();
        self.writer.look(move |journal| Ok(journal.epoch(&run)?.is_some())).await
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn create(&self, run: &str, events: Vec<Event>) -> Result<Lease, StoreError> {
        let beginning = check_first(run, &events)?;
        let hold = match self.take(run) {
            Ok(hold) => hold,
            Err(StoreError::Busy { .. }) if self.exists(run).await? => {
                return Err(StoreError::RunExists { run: run.to_owned() });
            }
            Err(error) => return Err(error),
        };
        let lease = Lease::new(run, 1, false, Box::new(hold));
        let held = Arc::clone(&lease.held);
        self.writer.write(None, move |journal| journal.create(&held, &beginning, &events)).await?;
        Ok(lease)
    }

    async fn acquire(&self, run: &str) -> Result<Lease, StoreError> {
        check_run_id(run)?;
        if !self.exists(run).await? {
            return Err(StoreError::unknown(run));
        }
        let hold = self.take(run)?;
        let name = run.to_owned();
        let epoch = self.writer.write(None, move |journal| journal.next_epoch(&name)).await?;
        Ok(Lease::new(run, epoch, true, Box::new(hold)))
    }

    async fn append(&self, lease: &Lease, events: Arc<[Event]>) -> Result<(), StoreError> {
        lease.held.check()?;
        let held = Arc::clone(&lease.held);
        self.writer.write(Some(Arc::clone(&held)), move |journal| journal.append(&held, &events)).await
    }

    async fn events(&self, run: &str, after_seq: u64, limit: usize) -> Result<Vec<Event>, StoreError> {
        let run = run.to_owned();
        self.read(move |connection| read::events(connection, &run, after_seq, limit)).await
    }

    async fn runs(&self, filter: &RunFilter) -> Result<Vec<RunRow>, StoreError> {
        let (filter, layout) = (filter.clone(), Arc::clone(&self.layout));
        self.read(move |connection| {
            let mut rows = read::runs(connection, &filter)?;
            for row in &mut rows {
                layout.name_owner(row);
            }
            Ok(rows)
        })
        .await
    }

    async fn run(&self, run: &str) -> Result<RunRow, StoreError> {
        let (run, layout) = (run.to_owned(), Arc::clone(&self.layout));
        self.read(move |connection| {
            let mut row = read::run(connection, &run)?;
            layout.name_owner(&mut row);
            Ok(row)
        })
        .await
    }

    async fn resolve(&self, prefix: &str) -> Result<String, StoreError> {
        let prefix = prefix.to_owned();
        self.read(move |connection| read::resolve(connection, &prefix)).await
    }

    async fn delete(&self, run: &str) -> Result<(), StoreError> {
        check_run_id(run)?;
        if !self.exists(run).await? {
            return Err(StoreError::unknown(run));
        }
        let hold = self.take(run)?;
        let (name, logs) = (run.to_owned(), self.layout.logs.join(run));
        // Logs first: one that is killed in between leaves a run that can be removed again, not logs of nobody.
        let removed = tokio::task::spawn_blocking(move || match std::fs::remove_dir_all(&logs) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StoreError::from_io(&logs, &error)),
            _ => Ok(()),
        });
        removed.await.unwrap_or(Err(StoreError::Closed))?;
        self.writer
            .write(None, move |journal| {
                // Kept until the rows are gone.
                let _ = &hold;
                journal.delete(&name)
            })
            .await?;
        self.tell();
        Ok(())
    }

    async fn verify(&self, run: &str) -> Result<Verified, StoreError> {
        let run = run.to_owned();
        self.read(move |connection| read::verify(connection, &run)).await
    }

    async fn try_lock(
        &self,
        lease: &Lease,
        holder_step: Option<&str>,
        names: &[String],
    ) -> Result<LockAttempt, StoreError> {
        lease.held.check()?;
        lease.held.locks.store(true, Ordering::Relaxed);
        let (held, step, names) = (Arc::clone(&lease.held), holder_step.map(str::to_owned), lock_names(names));
        let leases = self.layout.leases.clone();
        self.writer.write(None, move |journal| journal.try_lock(&held, step.as_deref(), &names, &leases)).await
    }

    async fn withdraw_lock(&self, lease: &Lease, holder_step: Option<&str>) -> Result<(), StoreError> {
        let (held, step) = (Arc::clone(&lease.held), holder_step.map(str::to_owned));
        self.writer.write(None, move |journal| journal.withdraw(&held, step.as_deref())).await?;
        self.tell();
        Ok(())
    }

    async fn release_locks(&self, lease: &Lease) -> Result<(), StoreError> {
        if !lease.held.locks.load(Ordering::Relaxed) {
            return Ok(());
        }
        let held = Arc::clone(&lease.held);
        let some = self.writer.look(move |journal| journal.has_locks(&held)).await?;
        if some {
            let held = Arc::clone(&lease.held);
            self.writer.write(None, move |journal| journal.release(&held)).await?;
            self.tell();
        }
        Ok(())
    }

    async fn lock_waits(&self, run: &str) -> Result<Vec<(Option<String>, LockWaiting)>, StoreError> {
        let (run, leases) = (run.to_owned(), self.layout.leases.clone());
        let waits = self.writer.look(move |journal| journal.waits_of(&run)).await?;
        Ok(waits.into_iter().map(|(step, blocker)| (step, LockWaiting::of(blocker, &leases))).collect())
    }

    async fn owner(&self, run: &str) -> Result<Option<Owner>, StoreError> {
        let patience = Patience::new();
        loop {
            let owner = match probe(&self.layout.leases, run) {
                Ok(Life::Alive(owner)) => owner.unwrap_or_else(|| unnamed(now_ms())),
                _ => return Ok(None),
            };
            match patience.with(Some(&owner)) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Ok(Some(owner)),
            }
        }
    }

    async fn post(&self, run: &str, request: Request) -> Result<u64, StoreError> {
        let name = run.to_owned();
        let id = self.writer.write(None, move |journal| journal.post(&name, now_ms(), &request)).await?;
        self.tell();
        Ok(id)
    }

    async fn take_requests(&self, lease: &Lease) -> Result<Vec<Posted>, StoreError> {
        lease.held.check()?;
        let held = Arc::clone(&lease.held);
        self.writer.look(move |journal| journal.requests(&held)).await
    }

    async fn is_pending(&self, run: &str, request: u64) -> Result<bool, StoreError> {
        let run = run.to_owned();
        self.writer.look(move |journal| journal.is_pending(&run, request)).await
    }

    async fn withdraw_request(&self, run: &str, request: u64) -> Result<bool, StoreError> {
        let run = run.to_owned();
        self.writer.write(None, move |journal| journal.withdraw_request(&run, request)).await
    }

    async fn changed(&self) -> Result<u64, StoreError> {
        let others = self.writer.look(|journal| journal.data_version()).await?;
        Ok((u64::from(others) << 32) | u64::from(self.own_changes.load(Ordering::Relaxed)))
    }

    fn logs_dir(&self, run: &str) -> Option<PathBuf> {
        Some(self.layout.logs.join(run))
    }
}

impl open::Layout {
    fn name_owner(&self, row: &mut RunRow) {
        if let Ok(Life::Alive(owner)) = probe(&self.leases, &row.run) {
            row.owner = Some(owner.unwrap_or_else(|| unnamed(row.last_at)));
        }
    }
}

/// Alive, and killed or stopped before it wrote its name.
fn unnamed(since: u64) -> Owner {
    Owner { user: "unknown".to_owned(), host: "unknown".to_owned(), pid: 0, since }
}

impl LockWaiting {
    fn of(blocker: super::locks::InTheWay, leases: &Path) -> Self {
        let owner = match probe(leases, &blocker.run) {
            Ok(Life::Alive(owner)) => owner,
            _ => None,
        };
        Self::new(blocker, owner)
    }
}
