//! The files of one attempt's output: the head, and two tail segments that take turns. Does not know what it
//! writes; every byte is counted by its place in the whole output.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::LogSummary;

/// Every tail segment begins with one line of this length: where the head ends, and where the segment starts.
pub(super) const HEADER: usize = 112;
const HEADER_WORDS: [&str; 3] = ["[runback: the output after its first ", " bytes, from byte ", " on]"];

pub(super) fn header(head: u64, start: u64) -> String {
    let [a, b, c] = HEADER_WORDS;
    let text = format!("{a}{head:020}{b}{start:020}{c}");
    format!("{text:<width$}\n", width = HEADER - 1)
}

/// The head's length and the segment's start.
pub(super) fn parse_header(line: &[u8]) -> Option<(u64, u64)> {
    let line = std::str::from_utf8(line).ok()?.trim_end();
    let [a, b, c] = HEADER_WORDS;
    let (head, start) = line.strip_prefix(a)?.strip_suffix(c)?.split_once(b)?;
    Some((head.parse().ok()?, start.parse().ok()?))
}

pub(super) fn segment_path(log: &Path, slot: usize) -> PathBuf {
    let mut path = log.as_os_str().to_owned();
    path.push([".tail-a", ".tail-b"][slot % 2]);
    path.into()
}

pub(super) struct Spool {
    path: PathBuf,
    /// Of the head and of each segment, in bytes.
    half: u64,
    head: Option<File>,
    head_len: u64,
    /// The segment that is being written.
    tail: Option<Segment>,
    /// The one before.
    full: Option<Segment>,
    /// Place of the next byte.
    total: u64,
    lost: u64,
    /// Lost since the last write that went well.
    gap: u64,
}

struct Segment {
    file: File,
    slot: usize,
    start: u64,
    len: u64,
}

fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    options.open(path)
}

impl Spool {
    pub(super) fn new(path: PathBuf, limit: u64) -> Self {
        let half = (limit / 2).max(1);
        Self { path, half, head: None, head_len: 0, tail: None, full: None, total: 0, lost: 0, gap: 0 }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// After an error the rest of the bytes counts as lost; the next write tries again, and says so in the file.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        let result = self.mark_gap().and_then(|()| self.write_all(&mut rest));
        self.lost += rest.len() as u64;
        self.gap += rest.len() as u64;
        result
    }

    fn mark_gap(&mut self) -> io::Result<()> {
        if self.gap == 0 {
            return Ok(());
        }
        let mark = format!("\n[runback: {} bytes of output could not be written here]\n", self.gap);
        let mut rest = mark.as_bytes();
        let result = self.write_all(&mut rest);
        if rest.len() < mark.len() {
            self.gap = 0;
        }
        result
    }

    /// Leaves in `rest` what was not written.
    fn write_all(&mut self, rest: &mut &[u8]) -> io::Result<()> {
        while !rest.is_empty() {
            let (file, room) = self.room()?;
            let part = &rest[..rest.len().min(usize::try_from(room).unwrap_or(usize::MAX))];
            match file.write(part) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    *rest = &rest[n..];
                    self.wrote(n as u64);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn wrote(&mut self, n: u64) {
        self.total += n;
        match &mut self.tail {
            Some(tail) => tail.len += n,
            None => self.head_len += n,
        }
    }

    /// The file that the next byte goes to, and how many more it takes.
    fn room(&mut self) -> io::Result<(&mut File, u64)> {
        let half = self.half;
        if self.tail.is_none() && self.head_len < half {
            if self.head.is_none() {
                self.head = Some(self.create_head()?);
            }
        } else if self.tail.as_ref().is_none_or(|t| t.len >= half) {
            self.rotate()?;
        }
        match (&mut self.tail, &mut self.head) {
            (Some(tail), _) => Ok((&mut tail.file, half - tail.len)),
            (None, Some(head)) => Ok((head, half - self.head_len)),
            (None, None) => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn create_head(&self) -> io::Result<File> {
        if let Some(dir) = self.path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        // An attempt that is attached to again streams its output from the beginning.
        for slot in 0..2 {
            remove(&segment_path(&self.path, slot))?;
        }
        create(&self.path)
    }

    /// Readers see a segment whole or not at all: it takes its name once its header is in it.
    fn rotate(&mut self) -> io::Result<()> {
        let slot = self.tail.as_ref().map_or(0, |t| 1 - t.slot);
        let file = self.new_segment(slot, self.total)?;
        let first = self.tail.is_none();
        self.full = self.tail.replace(Segment { file, slot, start: self.total, len: 0 });
        if first && let Some(head) = &mut self.head {
            // For people who `cat` it; readers know from the segment where the head ends.
            let note = "\n[runback: the output goes on; its end is in the files .tail-a and .tail-b beside this one]\n";
            let _ = head.write_all(note.as_bytes());
        }
        Ok(())
    }

    fn new_segment(&self, slot: usize, start: u64) -> io::Result<File> {
        let path = segment_path(&self.path, slot);
        let mut new = path.as_os_str().to_owned();
        new.push("~");
        let new = PathBuf::from(new);
        let made = create(&new).and_then(|mut file| {
            file.write_all(header(self.head_len, start).as_bytes())?;
            fs::rename(&new, &path)?;
            Ok(file)
        });
        if made.is_err() {
            let _ = remove(&new);
        }
        made
    }

    /// Joins the two segments into one of half the limit. Where that fails the reader finds the same bytes.
    pub(super) fn finish(&mut self) -> LogSummary {
        if self.mark_gap().is_ok() {
            let _ = self.compact();
        }
        let path = self.head.is_some().then(|| self.path.clone());
        let tail = self.total.saturating_sub(self.head_len).min(self.half);
        LogSummary { path, bytes: self.total, cut: self.total - self.head_len - tail, lost: self.lost }
    }

    fn compact(&mut self) -> io::Result<()> {
        let (Some(tail), Some(full)) = (&mut self.tail, &mut self.full) else { return Ok(()) };
        let keep = self.half - tail.len;
        let (slot, start) = (full.slot, tail.start - keep);
        full.file.seek(SeekFrom::Start(HEADER as u64 + full.len - keep))?;
        tail.file.seek(SeekFrom::Start(HEADER as u64))?;
        let (mut old, mut last) = (full.file.try_clone()?, tail.file.try_clone()?);
        let last_slot = tail.slot;
        let mut file = self.new_segment(slot, start)?;
        io::copy(&mut (&mut old).take(keep), &mut file)?;
        io::copy(&mut last, &mut file)?;
        remove(&segment_path(&self.path, last_slot))?;
        self.tail = Some(Segment { file, slot, start, len: self.half });
        self.full = None;
        Ok(())
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
