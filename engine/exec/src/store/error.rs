//! Everything that can go wrong with a store: what, why, and what to do.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use super::LockWait;
use crate::lease::Owner;

/// Cloneable, because all writers of one commit hear of its failure.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    #[error("run `{run}` exists already")]
    RunExists { run: String },
    #[error("schedule `{schedule}` has fired for this instant: it is decided ({decision})")]
    Fired { schedule: String, decision: String, run: Option<String> },
    #[error("there is no run `{run}`{}", known(candidates))]
    UnknownRun { run: String, candidates: Vec<String> },
    #[error("`{prefix}` is the beginning of several runs: {}", candidates.join(", "))]
    Ambiguous { prefix: String, candidates: Vec<String> },
    #[error("`{run}` cannot be the id of a run: {why}")]
    BadRunId { run: String, why: &'static str },
    #[error("run `{run}` is in the hands of {}", owner.as_ref().map_or("another process".to_owned(), ToString::to_string))]
    Busy { run: String, owner: Option<Owner> },
    #[error("run `{run}` was taken over by another process: this one may write no more")]
    LeaseLost { run: String },
    #[error("an earlier write of run `{run}` failed: this process may write no more of it")]
    LeaseBroken { run: String },
    #[error("event {found} of run `{run}` does not follow: {expected} was to come")]
    Gap { run: String, expected: u64, found: u64 },
    #[error("run `{run}` cannot begin with this event: {why}")]
    BadStart { run: String, why: &'static str },
    #[error("event {seq} of run `{run}` could not be written as JSON: {why}")]
    Encode { run: String, seq: u64, why: String },

    #[error("no space left for the journal {}", path.display())]
    Full { path: PathBuf },
    #[error("{} cannot be read or written: {why}", path.display())]
    Io { path: PathBuf, why: String },
    #[error("{} is read-only", path.display())]
    ReadOnly { path: PathBuf },
    #[error("{} cannot be opened: {why}", path.display())]
    CannotOpen { path: PathBuf, why: String },
    #[error("{} is to be the state folder, and is not a folder", path.display())]
    NotAFolder { path: PathBuf },
    #[error("{} is not a journal of runback: {why}", path.display())]
    NotAJournal { path: PathBuf, why: String },
    #[error("the journal {} is damaged: {why}", path.display())]
    Corrupt { path: PathBuf, why: String },
    #[error("event {seq} of run `{run}` is not as it was written: {why}")]
    BadRow { run: String, seq: u64, why: String },
    #[error("{} has format {found}, made by a newer runback; this one knows format {known}", path.display())]
    Newer { path: PathBuf, found: i64, known: i64 },
    #[error("{} has format {found}, which this runback reads no more; it knows format {known}", path.display())]
    Older { path: PathBuf, found: i64, known: i64 },
    #[error("this runback was built with SQLite {found}, which can lose committed writes; {needed} or later is needed")]
    SqliteTooOld { found: String, needed: &'static str },
    #[error("another process kept the journal {} locked for {seconds} s", path.display())]
    Contended { path: PathBuf, seconds: u64 },
    #[error("the journal {} failed: {why}", path.display())]
    Sql { path: PathBuf, why: String },
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// What to do about it; a sentence that can be acted on.
    pub fn help(&self) -> String {
        match self {
            Self::RunExists { run } => format!("choose another --run-id, or look at it: `runback show {run}`"),
            Self::Fired { run: Some(run), .. } => format!("look at its run: `runback show {run}`"),
            Self::Fired { run: None, .. } => "start a run of its own: `runback schedule trigger`".into(),
            Self::UnknownRun { .. } => "`runback runs` lists them; check --state-dir and RUNBACK_STATE_DIR".into(),
            Self::Ambiguous { .. } => "give more characters of the one that you mean".into(),
            Self::BadRunId { .. } => "use letters, digits, `-`, `_` and `.`, beginning with a letter or digit".into(),
            Self::Busy { run, .. } => format!("see what it does, and what would stop it: `runback why {run}`"),
            Self::LeaseLost { run } => format!("see what the other process does: `runback show {run}`"),
            Self::LeaseBroken { run } => format!("when the store is well again: `runback resume {run}`"),
            Self::Gap { .. } | Self::BadStart { .. } | Self::Encode { .. } => {
                "this is a mistake in runback; please report it with this message".into()
            }
            Self::Full { .. } => {
                "make room on that file system (`runback runs prune --older-than 30d`), then resume the run; what was recorded is safe".into()
            }
            Self::Io { .. } => "look for disk errors (dmesg), then resume the run; what was recorded is safe".into(),
            Self::ReadOnly { .. } => "make it writable for this user, or choose another place with --state-dir".into(),
            Self::CannotOpen { .. } => {
                "check that the folder exists and belongs to this user, or choose another with --state-dir".into()
            }
            Self::NotAFolder { .. } => "remove that file, or choose another place with --state-dir".into(),
            Self::NotAJournal { .. } => "choose another place with --state-dir, or move that file away".into(),
            Self::Corrupt { .. } => {
                "keep a copy of the state folder; `sqlite3 journal.db .recover` saves what is readable; start anew with --state-dir".into()
            }
            Self::BadRow { .. } => {
                "do not resume this run: its record was changed or damaged; restore the state folder from a backup".into()
            }
            Self::Newer { .. } => "use that newer runback, or another --state-dir".into(),
            Self::Older { .. } => "finish its runs with the runback that made it, then use another --state-dir".into(),
            Self::SqliteTooOld { .. } => "build runback with the SQLite that it brings (the feature `bundled`)".into(),
            Self::Contended { .. } => "find the process that hangs (fuser on that file) and end it, then try again".into(),
            Self::Sql { .. } => "look for disk errors; if there are none, please report it with this message".into(),
            Self::Closed => "this is a mistake in runback; please report it".into(),
        }
    }

    pub(crate) fn unknown(run: &str) -> Self {
        Self::UnknownRun { run: run.to_owned(), candidates: Vec::new() }
    }

    pub(super) fn from_io(path: &Path, error: &io::Error) -> Self {
        let path = path.to_owned();
        match error.kind() {
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { path },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { path },
            io::ErrorKind::NotADirectory => Self::NotAFolder { path },
            io::ErrorKind::PermissionDenied => Self::CannotOpen { path, why: "permission denied".into() },
            io::ErrorKind::InvalidFilename => Self::CannotOpen { path, why: error.to_string() },
            _ => Self::Io { path, why: error.to_string() },
        }
    }

    pub(super) fn from_sqlite(path: &Path, error: &rusqlite::Error) -> Self {
        let extended = error.sqlite_extended_error_code().unwrap_or_default();
        let path = path.to_owned();
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full { path },
            Some(ErrorCode::ReadOnly) => Self::ReadOnly { path },
            Some(ErrorCode::NotADatabase) => Self::NotAJournal { path, why: "it is no SQLite database".into() },
            Some(ErrorCode::DatabaseCorrupt) => Self::Corrupt { path, why: error.to_string() },
            Some(ErrorCode::DatabaseBusy) => Self::Contended { path, seconds: super::sqlite::BUSY_SECONDS },
            Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
                Self::CannotOpen { path, why: error.to_string() }
            }
            Some(ErrorCode::SystemIoFailure) => Self::Io { path, why: format!("{error} (SQLite code {extended})") },
            _ => Self::Sql { path, why: error.to_string() },
        }
    }
}

fn known(candidates: &[String]) -> String {
    if candidates.is_empty() { String::new() } else { format!("; the newest are {}", candidates.join(", ")) }
}

impl std::fmt::Display for LockWait {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} waits for `{}`, held by {}", self.run, self.name, self.holder)
    }
}
