//! Room in the WAL ahead of what is written there: a commit that overwrites has only its pages to sync, one that grows
//! the file also what the file system keeps of it (ext4 on Linux 6.18: 92 µs instead of 61, in a loop of either). Knows the
//! layout of a WAL (SQLite's file format, section 4), not what stands in it.
//!
//! SQLite takes no locks on this file, so another descriptor of it gives none back. Room is made only past its end and
//! only within a write transaction, which excludes all that lengthen, shorten or restart it. SQLite reads a WAL up to the
//! first frame that is not of its present round, and zeros are none.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// A run of a few steps ends before it needs room.
const SHORT: u64 = 128 * 1024;

/// More is made when less is left: some of the largest commits of a single run.
const LEFT: u64 = 128 * 1024;

/// What is made at once. The commit that makes it syncs it too.
const MORE: u64 = 1024 * 1024;

/// Every how many commits it is looked at.
const EVERY: u32 = 8;

const HEADER: u64 = 32;
const FRAME_HEADER: u64 = 24;

pub(super) struct Wal {
    path: PathBuf,
    /// Open once it was needed.
    file: Option<File>,
    /// Commits until the next look. None: it could not be done, and is not tried again.
    wait: Option<u32>,
}

impl std::fmt::Debug for Wal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wal").field("path", &self.path).finish_non_exhaustive()
    }
}

pub(super) fn wal_of(journal: &Path) -> PathBuf {
    let mut path = journal.as_os_str().to_owned();
    path.push("-wal");
    path.into()
}

impl Wal {
    pub(super) fn of(journal: &Path) -> Self {
        Self { path: wal_of(journal), file: None, wait: Some(EVERY) }
    }

    /// To be called within a write transaction. Without room a commit takes longer and is as safe: what fails here, fails
    /// again where it matters, or it does not matter.
    pub(super) fn make_room(&mut self) {
        self.wait = match self.wait {
            Some(0) => self.look().is_ok().then_some(EVERY),
            wait => wait.map(|commits| commits - 1),
        };
    }

    fn look(&mut self) -> io::Result<()> {
        let file = self.file()?;
        let length = file.metadata()?.len();
        if length < SHORT || !reaches(file, length - LEFT.min(length))? {
            return Ok(());
        }
        file.write_all_at(&vec![0; MORE as usize], length)
    }

    /// Whether more than this many bytes are in use.
    pub(super) fn exceeds(&mut self, bytes: u64) -> io::Result<bool> {
        reaches(self.file()?, bytes)
    }

    fn file(&mut self) -> io::Result<&File> {
        if self.file.is_none() {
            self.file = Some(OpenOptions::new().read(true).write(true).open(&self.path)?);
        }
        self.file.as_ref().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// Whether the frame that covers this place is of the present round: each begins at the front again, with a salt of its
/// own, over what is left of the one before.
fn reaches(file: &File, place: u64) -> io::Result<bool> {
    let mut header = [0; HEADER as usize];
    let mut frame = [0; FRAME_HEADER as usize];
    if !read(file, &mut header, 0)? {
        return Ok(false);
    }
    let page = u64::from(u32::from_be_bytes([header[8], header[9], header[10], header[11]]));
    let whole = FRAME_HEADER + page;
    let begins = HEADER + place.saturating_sub(HEADER) / whole * whole;
    Ok(read(file, &mut frame, begins)? && header[16..24] == frame[8..16])
}

/// False where the file ends before.
fn read(file: &File, into: &mut [u8], at: u64) -> io::Result<bool> {
    match file.read_exact_at(into, at) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        done => done.map(|()| true),
    }
}
