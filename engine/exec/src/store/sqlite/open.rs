//! Opening the journal file: where it lies, how it is made, and every reason to refuse it.
//!
//! A new journal is made beside its place without a sync, synced once and renamed into place: there is never half of
//! one, and a first run does not wait for a dozen syncs.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

use super::BUSY_SECONDS;
use super::wal::wal_of;
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

/// A journal without runs: what [`SCHEMA`](tests::SCHEMA) makes, byte for byte. To make it takes SQLite longer than all
/// else that a new journal needs.
const EMPTY: &[u8] = include_bytes!("empty.db");

const FURNITURE: &str = include_str!("furniture.sql");

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
    /// Also where nothing can be written.
    read_only: bool,
}

impl Layout {
    /// Makes what is missing, and refuses what cannot be a state folder; `read_only`: but not one that only cannot be
    /// written to.
    pub(super) fn prepare(dir: &Path, read_only: bool) -> Result<Self, StoreError> {
        let grown = match fs::metadata(dir) {
            Ok(meta) if !meta.is_dir() => return Err(StoreError::NotAFolder { path: dir.to_owned() }),
            Ok(_) => Vec::new(),
            Err(_) => make_private_dir(dir).map_err(|error| match error.kind() {
                std::io::ErrorKind::AlreadyExists => StoreError::NotAFolder { path: dir.to_owned() },
                _ => StoreError::from_io(dir, &error),
            })?,
        };
        let layout =
            Self { journal: dir.join(JOURNAL_FILE), leases: dir.join("leases"), logs: dir.join("logs"), read_only };
        // Not synced: after a power cut nobody holds a lease.
        match fs::DirBuilder::new().mode(0o700).create(&layout.leases) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists && !layout.leases.is_dir() => {
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
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(&error)),
            _ => {}
        }
        // A sync of the file is one of the file system's own journal, which holds the folders already: theirs are cheap
        // after it. The journal's folder is synced by SQLite with the first commit, when it makes the WAL: nothing is
        // promised before.
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft);
        file.and_then(|mut file| file.write_all(EMPTY).and_then(|()| file.sync_data())).map_err(|error| io(&error))?;
        for folder in grown {
            File::open(folder)
                .and_then(|folder| folder.sync_all())
                .map_err(|error| StoreError::from_io(folder, &error))?;
        }
        fs::rename(&draft, &self.journal).map_err(|error| io(&error))
    }

    pub(super) fn connect(&self) -> Result<Connection, StoreError> {
        let sql = |error: rusqlite::Error| StoreError::from_sqlite(&self.journal, &error);
        let mut connection = self.open().map_err(sql)?;
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

    fn open(&self) -> rusqlite::Result<Connection> {
        if self.read_only && !wal_of(&self.journal).exists() && is_frozen(&self.journal) {
            // Without a WAL, SQLite would make one to read: it is told that nobody writes.
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
            let uri = format!("file:{}?immutable=1", percent_encoded(self.journal.as_os_str().as_bytes()));
            return Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX);
        }
        // SQLite itself opens for reading only what it may not write to.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Connection::open_with_flags(&self.journal, flags)
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
            // It was in WAL mode when it could be written to.
            return if self.read_only { Ok(()) } else { Err(StoreError::ReadOnly { path: path() }) };
        }
        let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(sql)?;
        if mode != "wal" {
            return Err(StoreError::Sql { path: path(), why: format!("it stays in journal mode `{mode}`") });
        }
        connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA cell_size_check = ON").map_err(sql)
    }
}

/// On a file system that was mounted to be read, or became so after an error of its disk: nobody at all writes there.
fn is_frozen(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK) == Err(rustix::io::Errno::ROFS)
}

/// A path in a URI.
fn percent_encoded(path: &[u8]) -> String {
    let one = |&byte: &u8| match byte {
        b'/' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
        _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    path.iter().map(one).collect()
}

pub(super) fn check_sqlite() -> Result<(), StoreError> {
    let (oldest, needed) = OLDEST_SQLITE;
    if rusqlite::version_number() < oldest {
        return Err(StoreError::SqliteTooOld { found: rusqlite::version().to_owned(), needed });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tables of a new journal; change it together with [`FORMAT`].
    pub(super) const SCHEMA: &str = include_str!("tables.sql");

    fn made() -> Vec<u8> {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("made.db");
        let connection = Connection::open(&path).expect("it opens");
        connection
            .execute_batch(&format!(
                "PRAGMA journal_mode = MEMORY; BEGIN; {SCHEMA} {FURNITURE}
                 PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT}; COMMIT;
                 PRAGMA journal_mode = WAL"
            ))
            .expect("the tables are made");
        connection.close().expect("it closes");
        fs::read(path).expect("the file")
    }

    /// Which SQLite wrote it last, at byte 96 of the file format, is not what it is about.
    fn apart_from_its_writer(mut file: Vec<u8>) -> Vec<u8> {
        file[96..100].fill(0);
        file
    }

    #[test]
    fn an_empty_journal_is_what_the_tables_make() {
        let made = made();
        if std::env::var_os("RUNBACK_UPDATE").is_some() {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/sqlite/empty.db");
            fs::write(path, &made).expect("it is written");
            return;
        }
        let same = apart_from_its_writer(made) == apart_from_its_writer(EMPTY.to_vec());
        assert!(same, "the tables changed: make empty.db anew with RUNBACK_UPDATE=1, and think of FORMAT");
    }
}
