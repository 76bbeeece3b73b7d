//! Opening the journal file: where it lies, how it is made, and every reason to refuse it.
//!
//! A new journal is made beside its place without a sync, synced once and renamed into place: there is never half of
//! one, and a first run does not wait for a dozen syncs.

use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

use super::BUSY_SECONDS;
use crate::lease::{NotTaken, Owner, RunLock, make_private_dir};
use crate::store::StoreError;

/// The journal's name in the state folder.
pub const JOURNAL_FILE: &str = "journal.db";

/// Older ones can lose committed writes of a WAL when a checkpoint meets a reset (fixed in 3.51.3).
const OLDEST_SQLITE: (i32, &str) = (3_051_003, "3.51.3");

/// "RBk1": tells our file from any other SQLite database.
const APPLICATION_ID: i64 = 0x5242_6b31;

/// The layout of the tables, in `user_version`. The layout of events has a number of its own.
const FORMAT: i64 = 1;

const SCHEMA: &str = "
CREATE TABLE runs (
  no INTEGER PRIMARY KEY, run TEXT NOT NULL UNIQUE, playbook TEXT NOT NULL, created_at INTEGER NOT NULL,
  epoch INTEGER NOT NULL
) STRICT;
CREATE TABLE events (
  run TEXT NOT NULL, seq INTEGER NOT NULL, at INTEGER NOT NULL, type TEXT NOT NULL, body TEXT NOT NULL,
  about INTEGER NOT NULL, hash BLOB NOT NULL, PRIMARY KEY (run, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX events_about ON events (run, seq) WHERE about = 1;
CREATE TABLE requests (
  id INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL, at INTEGER NOT NULL, body TEXT NOT NULL
) STRICT;
CREATE TABLE holds (
  name TEXT NOT NULL PRIMARY KEY, run TEXT NOT NULL, step TEXT, since INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE waits (
  ticket INTEGER PRIMARY KEY, run TEXT NOT NULL, step TEXT, names TEXT NOT NULL, since INTEGER NOT NULL
) STRICT;
";

/// What the server keeps beside runs. Made where a journal has none of it: an older runback does not miss it.
const FURNITURE: &str = "
CREATE TABLE IF NOT EXISTS schedules (
  schedule TEXT NOT NULL PRIMARY KEY, decided INTEGER NOT NULL, paused_by TEXT, paused_at INTEGER, paused_why TEXT
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS firings (
  schedule TEXT NOT NULL, at INTEGER NOT NULL, run TEXT, decision TEXT NOT NULL, decided_at INTEGER NOT NULL,
  PRIMARY KEY (schedule, at)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tokens (
  id TEXT NOT NULL PRIMARY KEY, name TEXT NOT NULL, roles TEXT NOT NULL, hash BLOB NOT NULL,
  created_at INTEGER NOT NULL, created_by TEXT NOT NULL, expires_at INTEGER, revoked_at INTEGER
) STRICT, WITHOUT ROWID;
";

/// `$XDG_STATE_HOME/runback`, else `~/.local/state/runback`. None without a home.
pub fn default_state_dir() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
    Some(state.join("runback"))
}

/// Where things lie in a state folder.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) journal: PathBuf,
    pub(super) leases: PathBuf,
    pub(super) logs: PathBuf,
}

impl Layout {
    /// Makes what is missing, and refuses what cannot be a state folder.
    pub(super) fn prepare(dir: &Path) -> Result<Self, StoreError> {
        let grown = match fs::metadata(dir) {
            Ok(meta) if !meta.is_dir() => return Err(StoreError::NotAFolder { path: dir.to_owned() }),
            Ok(_) => Vec::new(),
            Err(_) => make_private_dir(dir).map_err(|error| match error.kind() {
                std::io::ErrorKind::AlreadyExists => StoreError::NotAFolder { path: dir.to_owned() },
                _ => StoreError::from_io(dir, &error),
            })?,
        };
        let layout = Self { journal: dir.join(JOURNAL_FILE), leases: dir.join("leases"), logs: dir.join("logs") };
        // Not synced: after a power cut nobody holds a lease.
        match fs::DirBuilder::new().mode(0o700).create(&layout.leases) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(StoreError::from_io(dir, &error));
            }
            _ => {}
        }
        if !layout.journal.exists() {
            layout.make_journal(&grown)?;
        }
        Ok(layout)
    }

    /// One process makes it; the others wait for it. `grown` are the folders above it that are to be synced with it.
    fn make_journal(&self, grown: &[PathBuf]) -> Result<(), StoreError> {
        let io = |error: &std::io::Error| StoreError::from_io(&self.journal, error);
        let patience = Instant::now() + Duration::from_secs(BUSY_SECONDS);
        // No run has this name: ids do not begin with a dot.
        let _making = loop {
            match RunLock::acquire(&self.leases, ".making", &Owner::this_process()) {
                Ok(lock) => break lock,
                Err(NotTaken::Io(error)) => return Err(io(&error)),
                Err(NotTaken::Held(_)) if Instant::now() > patience => {
                    return Err(StoreError::Contended { path: self.journal.clone(), seconds: BUSY_SECONDS });
                }
                Err(NotTaken::Held(_)) => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        if self.journal.exists() {
            return Ok(());
        }
        let draft = self.journal.with_extension("db.new");
        // Left by one that was killed here.
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let mut left = draft.clone().into_os_string();
            left.push(suffix);
            match fs::remove_file(&left) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(&error)),
                _ => {}
            }
        }
        let empty = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft);
        drop(empty.map_err(|error| io(&error))?);
        let sql = |error: &rusqlite::Error| StoreError::from_sqlite(&self.journal, error);
        write_draft(&draft).map_err(|error| sql(&error))?;
        // A sync of the file is one of the file system's own journal, which holds the folders already: theirs are cheap
        // after it. The journal's folder is synced by SQLite with the first commit, when it makes the WAL: nothing is
        // promised before.
        File::open(&draft).and_then(|file| file.sync_data()).map_err(|error| io(&error))?;
        for folder in grown {
            File::open(folder)
                .and_then(|folder| folder.sync_all())
                .map_err(|error| StoreError::from_io(folder, &error))?;
        }
        fs::rename(&draft, &self.journal).map_err(|error| io(&error))
    }

    pub(super) fn connect(&self) -> Result<Connection, StoreError> {
        let sql = |error: rusqlite::Error| StoreError::from_sqlite(&self.journal, &error);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(&self.journal, flags).map_err(sql)?;
        let started = Instant::now();
        let mut asked = started;
        connection
            .busy_handler(Some(move |count| {
                if count == 0 {
                    asked = Instant::now();
                }
                // Commits of others take a fraction of a millisecond to some: SQLite's own steps are too long.
                std::thread::sleep(Duration::from_micros(if count < 20 { 100 } else { 2_000 }));
                asked.elapsed() < Duration::from_secs(BUSY_SECONDS)
            }))
            .map_err(sql)?;
        connection.set_prepared_statement_cache_capacity(64);
        self.check(&connection)?;
        Ok(connection)
    }

    /// Reads only, once the tables are there.
    pub(super) fn furnish(&self, connection: &Connection) -> Result<(), StoreError> {
        connection.execute_batch(FURNITURE).map_err(|error| StoreError::from_sqlite(&self.journal, &error))
    }

    fn check(&self, connection: &Connection) -> Result<(), StoreError> {
        let path = || self.journal.clone();
        let sql = |error: rusqlite::Error| StoreError::from_sqlite(&self.journal, &error);
        let number = |pragma: &str| connection.query_row(pragma, [], |row| row.get::<_, i64>(0)).map_err(sql);
        if number("PRAGMA application_id")? != APPLICATION_ID {
            return Err(StoreError::NotAJournal { path: path(), why: "it is a database of another program".into() });
        }
        match number("PRAGMA user_version")? {
            FORMAT => {}
            found if found > FORMAT => return Err(StoreError::Newer { path: path(), found, known: FORMAT }),
            found => return Err(StoreError::Older { path: path(), found, known: FORMAT }),
        }
        if connection.is_readonly("main").map_err(sql)? {
            return Err(StoreError::ReadOnly { path: path() });
        }
        let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(sql)?;
        if mode != "wal" {
            return Err(StoreError::Sql { path: path(), why: format!("it stays in journal mode `{mode}`") });
        }
        connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA cell_size_check = ON").map_err(sql)
    }
}

fn write_draft(draft: &Path) -> rusqlite::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(draft, flags)?;
    connection.execute_batch(&format!(
        "PRAGMA synchronous = OFF; PRAGMA journal_mode = MEMORY; BEGIN; {SCHEMA} {FURNITURE}
         PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT}; COMMIT; PRAGMA journal_mode = WAL"
    ))?;
    connection.close().map_err(|(_, error)| error)
}

pub(super) fn check_sqlite() -> Result<(), StoreError> {
    let (oldest, needed) = OLDEST_SQLITE;
    if rusqlite::version_number() < oldest {
        return Err(StoreError::SqliteTooOld { found: rusqlite::version().to_owned(), needed });
    }
    Ok(())
}
