//! The one connection that writes: what is waiting goes into one transaction, is committed, and only then answered.
//! See [`Commits`] for whose thread stands still meanwhile. Knows jobs, not what they write.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rusqlite::Connection;
use rusqlite::config::DbConfig;
use tokio::sync::oneshot;

use super::wal::Wal;
use crate::store::chain::Hash;
use crate::store::{Held, StoreError};

/// So many jobs at most share one commit.
const BATCH: usize = 256;

/// A WAL up to this size is left at the end: the next one to open reads it in less time than a checkpoint's syncs take.
const WAL_LEFT_BYTES: u64 = 256 * 1024;

/// Where a run's journal ends, so that an append need not look it up.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) epoch: u64,
    pub(super) seq: u64,
    pub(super) hash: Hash,
}

/// Whose thread a commit takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commits {
    /// One of its own, which puts the work of all callers into one commit: for a process with many runs.
    OnThread,
    /// The caller's: a driver with nothing else to do until its commit is durable saves two changes of thread for each
    /// (a step of a chain waits for nothing longer). Output of commands waits in their pipes meanwhile.
    OnCaller,
}

/// What the writer owns.
#[derive(Debug)]
pub(super) struct Journal {
    pub(super) connection: Connection,
    pub(super) heads: HashMap<Arc<str>, Head>,
    pub(super) path: PathBuf,
    wal: Wal,
}

/// Why a job did not do its work.
#[derive(Debug)]
pub(super) enum Fault {
    /// It wrote nothing; the others of its commit go on.
    Refused(StoreError),
    /// The whole transaction is lost.
    Sql(rusqlite::Error),
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Refused(error)
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

pub(super) trait Job: Send {
    fn writes(&self) -> bool;
    /// May run more than once: its transaction may be undone by another job's error. Err = this job's own.
    fn run(&mut self, journal: &mut Journal) -> Result<(), rusqlite::Error>;
    /// `failed` = nothing of it is stored.
    fn answer(&mut self, failed: Option<&StoreError>);
}

struct Call<T, F> {
    writes: bool,
    /// None once it is over.
    work: Option<F>,
    result: Option<Result<T, StoreError>>,
    /// Broken as soon as this call fails.
    breaks: Option<Arc<Held>>,
    reply: Option<oneshot::Sender<Result<T, StoreError>>>,
}

impl<T, F> Job for Call<T, F>
where
    T: Send,
    F: FnMut(&mut Journal) -> Result<T, Fault> + Send,
{
    fn writes(&self) -> bool {
        self.writes
    }

    fn run(&mut self, journal: &mut Journal) -> Result<(), rusqlite::Error> {
        let Some(work) = &mut self.work else { return Ok(()) };
        match work(journal) {
            Ok(value) => {
                self.result = Some(Ok(value));
                Ok(())
            }
            Err(Fault::Refused(error)) => {
                // At once: what follows of this lease in the same commit must not be written.
                if let Some(held) = &self.breaks {
                    held.break_it();
                }
                self.result = Some(Err(error));
                Ok(())
            }
            Err(Fault::Sql(error)) => Err(error),
        }
    }

    fn answer(&mut self, failed: Option<&StoreError>) {
        let result = match failed {
            Some(error) => Err(error.clone()),
            None => self.result.take().unwrap_or(Err(StoreError::Closed)),
        };
        if let (Err(_), Some(held)) = (&result, self.breaks.take()) {
            held.break_it();
        }
        // What it keeps of a lease goes before the answer: who drops the lease then has given the run back.
        self.work = None;
        if let Some(reply) = self.reply.take() {
            // Nobody waits any more: then nobody needs the answer.
            let _ = reply.send(result);
        }
    }
}

/// Dropping it waits until all that was asked for is written.
pub(super) enum Writer {
    Thread { queue: Mutex<Option<Sender<Box<dyn Job>>>>, thread: Option<JoinHandle<()>> },
    Caller(Mutex<Option<Journal>>),
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

impl Writer {
    pub(super) fn start(connection: Connection, path: &Path, commits: Commits) -> Result<Self, StoreError> {
        let mut journal = Journal { connection, heads: HashMap::new(), path: path.to_owned(), wal: Wal::of(path) };
        if commits == Commits::OnCaller {
            return Ok(Self::Caller(Mutex::new(Some(journal))));
        }
        let (queue, jobs) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("runback-journal".to_owned())
            .spawn(move || {
                let mut batch = Vec::new();
                while let Ok(first) = jobs.recv() {
                    serve(&mut journal, first, &mut batch, jobs.try_iter().take(BATCH - 1));
                }
                close(journal);
            })
            .map_err(|error| StoreError::from_io(path, &error))?;
        Ok(Self::Thread { queue: Mutex::new(Some(queue)), thread: Some(thread) })
    }

    /// Does the work in a transaction that it may share with others.
    pub(super) async fn write<T, F>(&self, breaks: Option<Arc<Held>>, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&mut Journal) -> Result<T, Fault> + Send + 'static,
    {
        self.call(true, breaks, work).await
    }

    /// Reads on the writer's connection, outside of transactions.
    pub(super) async fn look<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&mut Journal) -> Result<T, Fault> + Send + 'static,
    {
        self.call(false, None, work).await
    }

    async fn call<T, F>(&self, writes: bool, breaks: Option<Arc<Held>>, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&mut Journal) -> Result<T, Fault> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job: Box<dyn Job> = Box::new(Call { writes, work: Some(work), result: None, breaks, reply: Some(reply) });
        match self {
            Self::Thread { queue, .. } => {
                let queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
                queue.as_ref().ok_or(StoreError::Closed)?.send(job).map_err(|_| StoreError::Closed)?;
            }
            Self::Caller(journal) => {
                // A panic left it in an unknown state: nothing is written any more.
                let mut journal = journal.lock().map_err(|_| StoreError::Closed)?;
                serve(journal.as_mut().ok_or(StoreError::Closed)?, job, &mut Vec::new(), std::iter::empty());
            }
        }
        answer.await.unwrap_or(Err(StoreError::Closed))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        match self {
            Self::Thread { queue, thread } => {
                drop(queue.get_mut().unwrap_or_else(PoisonError::into_inner).take());
                if let Some(thread) = thread.take() {
                    // It panicked: those who waited were told `Closed`.
                    let _ = thread.join();
                }
            }
            Self::Caller(journal) => {
                journal.get_mut().unwrap_or_else(PoisonError::into_inner).take().into_iter().for_each(close);
            }
        }
    }
}

/// `batch` is empty before and after.
fn serve(
    journal: &mut Journal,
    first: Box<dyn Job>,
    batch: &mut Vec<Box<dyn Job>>,
    more: impl Iterator<Item = Box<dyn Job>>,
) {
    for mut job in std::iter::once(first).chain(more) {
        if job.writes() {
            batch.push(job);
        } else {
            let failed = job.run(journal).err().map(|error| StoreError::from_sqlite(&journal.path, &error));
            job.answer(failed.as_ref());
        }
    }
    write_together(journal, batch);
    batch.clear();
}

fn write_together(journal: &mut Journal, batch: &mut [Box<dyn Job>]) {
    if batch.is_empty() {
        return;
    }
    match transact(journal, batch) {
        Ok(()) => batch.iter_mut().for_each(|job| job.answer(None)),
        // One bad job must not fail the others: each once more, alone.
        Err(Lost { for_all: false, .. }) if batch.len() > 1 => {
            for job in batch {
                write_together(journal, std::slice::from_mut(job));
            }
        }
        Err(Lost { error, .. }) => {
            let error = StoreError::from_sqlite(&journal.path, &error);
            for job in batch {
                job.answer(Some(&error));
            }
        }
    }
}

struct Lost {
    /// It could not begin, or the commit failed: that is not tried again, for what reached the disk is uncertain.
    for_all: bool,
    error: rusqlite::Error,
}

fn transact(journal: &mut Journal, batch: &mut [Box<dyn Job>]) -> Result<(), Lost> {
    let undo = |journal: &mut Journal, for_all: bool, error: rusqlite::Error| {
        journal.heads.clear();
        if !journal.connection.is_autocommit() {
            // SQLite has undone it itself after some errors; if this fails too, the next BEGIN says so.
            let _ = execute(&journal.connection, "ROLLBACK");
        }
        Lost { for_all, error }
    };
    execute(&journal.connection, "BEGIN IMMEDIATE").map_err(|error| undo(journal, true, error))?;
    for job in batch.iter_mut() {
        job.run(journal).map_err(|error| undo(journal, false, error))?;
    }
    journal.wal.make_room();
    execute(&journal.connection, "COMMIT").map_err(|error| undo(journal, true, error))
}

fn execute(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(drop)
}

fn close(mut journal: Journal) {
    if journal.wal.exceeds(WAL_LEFT_BYTES).is_ok_and(|much| !much) {
        // If it is refused, closing takes some syncs more.
        let _ = journal.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
    }
    drop(journal.connection);
}
