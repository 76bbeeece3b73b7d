//! What outlives a process: the journal of each run, who owns it, named locks, and requests to its owner.
//! Knows events only as things to keep in order; what they mean for a run is `runback_core::state`'s business.

mod chain;
pub mod desk;
mod error;
mod locks;
mod memory;
pub mod retention;
mod sqlite;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use runback_core::Json;
use runback_core::event::{Event, EventBody, Outcome, Resolution};
use runback_core::step::Answer;
use serde::{Deserialize, Serialize};

pub use error::StoreError;
pub use memory::MemoryStore;
pub use sqlite::{Commits, JOURNAL_FILE, SqliteStore, default_state_dir};

use crate::lease::Owner;

/// A store of runs. One process may hold many leases; several processes may use one store at once.
#[async_trait]
pub trait Store: Send + Sync {
    /// Registers a new run with its first events in one commit, and takes its lease. `RunExists` if there is one.
    /// The first event is `RunCreated`, with seq 1. One that a schedule fired takes its instant in the same commit:
    /// `Fired` if somebody else has decided about that instant.
    async fn create(&self, run: &str, events: Vec<Event>) -> Result<Lease, StoreError>;

    /// Takes the one-writer lease of an existing run; `Busy` names who has it. Its waits for locks from an earlier
    /// life are forgotten, the locks themselves it still has unless somebody else took them meanwhile.
    async fn acquire(&self, run: &str) -> Result<Lease, StoreError>;

    /// One commit for all; durable when it returns. After a failure each later append on this lease fails too: take
    /// the lease anew and read what is there. Requests handed out by `take_requests` are forgotten in the same commit.
    async fn append(&self, lease: &Lease, events: Arc<[Event]>) -> Result<(), StoreError>;

    /// At most `limit` events after `after_seq`, in order, the hash chain checked from row to row.
    async fn events(&self, run: &str, after_seq: u64, limit: usize) -> Result<Vec<Event>, StoreError>;

    /// Newest first. What a run's status is, its caller folds from the rows.
    async fn runs(&self, filter: &RunFilter) -> Result<Vec<RunRow>, StoreError>;

    /// One run as `runs` lists it. `UnknownRun` for anything but an exact id.
    async fn run(&self, run: &str) -> Result<RunRow, StoreError>;

    /// The whole id for an exact id, the beginning of one id, or `last`.
    async fn resolve(&self, prefix: &str) -> Result<String, StoreError>;

    /// Removes a run and its logs. `Busy` if it has a live owner.
    async fn delete(&self, run: &str) -> Result<(), StoreError>;

    /// Walks the whole hash chain of a run; `BadRow` names the first row that is not as it was written.
    async fn verify(&self, run: &str) -> Result<Verified, StoreError>;

    /// Takes all names for the run, or none; first come, first served. Call it again with the same names to keep the
    /// place in the queue, when `changed` says so and at least every second: a holder that was killed tells nobody.
    /// What the run has already is granted to each of its steps; that steps of one run exclude each other is the engine's.
    async fn try_lock(
        &self,
        lease: &Lease,
        holder_step: Option<&str>,
        names: &[String],
    ) -> Result<LockAttempt, StoreError>;

    /// Gives up the place in the queue of one step's `try_lock`.
    async fn withdraw_lock(&self, lease: &Lease, holder_step: Option<&str>) -> Result<(), StoreError>;

    /// Gives back all locks of the run, and its places in queues.
    async fn release_locks(&self, lease: &Lease) -> Result<(), StoreError>;

    /// What the run and its steps wait for: the step (None = the run's own locks), and who is in the way. For people;
    /// it may be over when it is read.
    async fn lock_waits(&self, run: &str) -> Result<Vec<(Option<String>, LockWaiting)>, StoreError>;

    /// Who has the run now; only while that process lives.
    async fn owner(&self, run: &str) -> Result<Option<Owner>, StoreError>;

    /// Leaves a request for the run's owner, now or later; returns its number.
    async fn post(&self, run: &str, request: Request) -> Result<u64, StoreError>;

    /// The requests that this lease has not seen yet, oldest first. They stay until its next `append`, which may be of
    /// no events: an owner that dies before it recorded one leaves it to the next owner.
    async fn take_requests(&self, lease: &Lease) -> Result<Vec<Posted>, StoreError>;

    /// Whether a request is neither recorded nor withdrawn.
    async fn is_pending(&self, run: &str, request: u64) -> Result<bool, StoreError>;

    /// Takes a request back that no owner is to hear; false: it is not pending any more.
    async fn withdraw_request(&self, run: &str, request: u64) -> Result<bool, StoreError>;

    /// A number that is another one after somebody else wrote. Cheap enough to ask ten times a second.
    async fn changed(&self) -> Result<u64, StoreError>;

    /// Where the output of a run's attempts goes; made (0700) by whoever writes first. None = there is no disk.
    fn logs_dir(&self, run: &str) -> Option<PathBuf>;
}

/// The right to write one run, until it is dropped.
#[derive(Debug)]
pub struct Lease {
    held: Arc<Held>,
}

/// Shared with the writes that are under way: the lease is not free before the last of them is over.
#[derive(Debug)]
pub(crate) struct Held {
    run: Arc<str>,
    epoch: u64,
    broken: AtomicBool,
    /// The highest request handed out, and the highest one forgotten.
    seen_request: AtomicU64,
    forgotten_request: AtomicU64,
    /// Whether the run may have locks or wait for some.
    locks: AtomicBool,
    _hold: Box<dyn Hold>,
}

/// What a store keeps as long as a lease lives.
trait Hold: std::fmt::Debug + Send + Sync {}

impl Lease {
    fn new(run: &str, epoch: u64, locks: bool, hold: Box<dyn Hold>) -> Self {
        Self {
            held: Arc::new(Held {
                run: run.into(),
                epoch,
                broken: AtomicBool::new(false),
                seen_request: AtomicU64::new(0),
                forgotten_request: AtomicU64::new(0),
                locks: AtomicBool::new(locks),
                _hold: hold,
            }),
        }
    }

    pub fn run(&self) -> &str {
        &self.held.run
    }

    /// Counts the owners of the run, this one included.
    pub fn epoch(&self) -> u64 {
        self.held.epoch
    }

    /// An append failed: nothing more can be written with this lease.
    pub fn is_broken(&self) -> bool {
        self.held.broken.load(Ordering::SeqCst)
    }
}

impl Held {
    fn check(&self) -> Result<(), StoreError> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(StoreError::LeaseBroken { run: self.run.to_string() });
        }
        Ok(())
    }

    fn break_it(&self) {
        self.broken.store(true, Ordering::SeqCst);
    }
}

/// What somebody outside asks of the run's owner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Request {
    /// The answer to an approval; `answer.approved` says which.
    Answer { step: String, answer: Answer },
    /// `now` = do not wait for what runs, and leave the run resumable.
    Cancel {
        by: String,
        #[serde(default)]
        now: bool,
    },
    /// Start nothing new, and stop when what runs is over.
    Hold { by: String },
    /// What an interrupted or failed step is to count as.
    Resolve {
        step: String,
        resolution: Resolution,
        #[serde(default)]
        outputs: Json,
        by: String,
    },
    Rollback {
        by: String,
        #[serde(default)]
        force: bool,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub struct Posted {
    /// Grows from request to request.
    pub id: u64,
    /// Milliseconds since the epoch.
    pub at: u64,
    pub request: Request,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// The playbook's name.
    pub playbook: Option<String>,
    /// Created at or after; milliseconds since the epoch.
    pub since: Option<u64>,
    pub limit: Option<usize>,
}

/// A run in a list.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRow {
    pub run: String,
    /// Those that are `about_the_run`. The playbook's texts are left out of `RunCreated`: `events` has them.
    pub head_events: Vec<Event>,
    pub last_seq: u64,
    /// Milliseconds since the epoch.
    pub last_at: u64,
    /// Who has it now; only while that process lives.
    pub owner: Option<Owner>,
}

/// How far a run has come, as its list row tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunEnd {
    /// It goes on, or could: somebody drives it, or its process died.
    Open,
    /// It is held, and waits to be resumed or taken back.
    Held,
    Over(Outcome),
}

impl RunRow {
    pub fn end(&self) -> RunEnd {
        // What came after the last end, if anything did, opened the run again.
        let last = self.head_events.iter().rev().find_map(|event| match &event.body {
            EventBody::RunFinished { outcome, .. } => Some(RunEnd::Over(*outcome)),
            EventBody::RunHeld { .. } => Some(RunEnd::Held),
            EventBody::RunCreated(_)
            | EventBody::RunStarted {}
            | EventBody::RunResumed { .. }
            | EventBody::RollbackStarted { .. } => Some(RunEnd::Open),
            _ => None,
        });
        last.unwrap_or(RunEnd::Open)
    }
}

/// An event as it is stored: its body as JSON, its `type` included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawRow {
    pub seq: u64,
    pub at: u64,
    pub kind: String,
    pub body: String,
    pub hash: Vec<u8>,
}

/// The hash that an event's row must have. `previous` None: it is the run's first.
pub fn chain_hash(previous: Option<&[u8]>, run: &str, seq: u64, at: u64, kind: &str, body: &str) -> Vec<u8> {
    let mut before = chain::GENESIS;
    if let Some(previous) = previous.filter(|p| p.len() == before.len()) {
        before.copy_from_slice(previous);
    }
    chain::link(&before, run, seq, at, kind, body).to_vec()
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    pub events: u64,
    /// The last hash of the chain, in hexadecimal; empty where the store keeps none.
    pub head: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockAttempt {
    Taken,
    Waiting(LockWaiting),
    /// Waiting would never end: each of these waits for the next, and the last for the first.
    /// The place in the queue is given up.
    Deadlock {
        cycle: Vec<LockWait>,
    },
}

/// Who is in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockWaiting {
    pub name: String,
    /// The run that has it, or (`queued`) that came earlier and waits for it too.
    pub run: String,
    pub step: Option<String>,
    pub queued: bool,
    /// Milliseconds since the epoch when it took the lock or its place in the queue.
    pub since: u64,
    /// 1 = next.
    pub position: usize,
    pub owner: Option<Owner>,
}

/// An edge of the waits-for graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockWait {
    pub run: String,
    pub step: Option<String>,
    pub name: String,
    pub holder: String,
}

impl LockWaiting {
    fn new(blocker: locks::InTheWay, owner: Option<Owner>) -> Self {
        let locks::InTheWay { name, run, step, since, queued, position } = blocker;
        Self { name, run, step, queued, since, position, owner }
    }
}

/// A run's id is the name of its files too.
fn check_run_id(run: &str) -> Result<(), StoreError> {
    let bad = |why| Err(StoreError::BadRunId { run: run.to_owned(), why });
    if run.is_empty() {
        return bad("it is empty");
    }
    if run.len() > 128 {
        return bad("it is longer than 128 characters");
    }
    if run == "last" {
        return bad("`last` stands for the newest run");
    }
    if !run.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return bad("it does not begin with a letter or digit");
    }
    if !run.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
        return bad("it holds a character that is not a letter, digit, `-`, `_` or `.`");
    }
    Ok(())
}

/// What the table of runs needs to know of a new one.
struct Beginning {
    playbook: String,
    created_at: u64,
    /// The schedule and its instant.
    fired: Option<(String, u64)>,
}

fn check_first(run: &str, events: &[Event]) -> Result<Beginning, StoreError> {
    check_run_id(run)?;
    let bad = |why| StoreError::BadStart { run: run.to_owned(), why };
    let first = events.first().ok_or_else(|| bad("there is none"))?;
    let EventBody::RunCreated(created) = &first.body else {
        return Err(bad("it is not `run_created`"));
    };
    if created.run != run {
        return Err(bad("it names another run"));
    }
    check_order(run, 0, events)?;
    let fired = created.options.schedule.clone().zip(created.options.scheduled_at);
    Ok(Beginning { playbook: created.playbook.clone(), created_at: first.at, fired })
}

fn check_order(run: &str, last: u64, events: &[Event]) -> Result<(), StoreError> {
    for (expected, event) in (last + 1..).zip(events) {
        if event.seq != expected {
            return Err(StoreError::Gap { run: run.to_owned(), expected, found: event.seq });
        }
    }
    Ok(())
}

/// Sorted and without repetition: the order in which all runs see them.
fn lock_names(names: &[String]) -> Vec<String> {
    let mut names = names.to_vec();
    names.sort();
    names.dedup();
    names
}
