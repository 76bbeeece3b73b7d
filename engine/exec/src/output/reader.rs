//! Reads the output of an attempt, also while it is being written: head, a line that says how much was cut,
//! tail. Does not know whether the attempt still runs.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use super::LogName;
use super::spool::{HEADER, parse_header, segment_path};

/// Where the output of one attempt lies. Nothing is kept open.
#[derive(Debug, Clone)]
pub struct LogFiles {
    path: PathBuf,
}

/// A stretch of an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Place of its first byte in the whole output.
    pub offset: u64,
    /// Bytes that stood between the place that was asked for and this one, and are not kept.
    pub cut: u64,
    pub bytes: Vec<u8>,
}

impl Piece {
    /// Where to go on reading.
    pub fn next(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }

    /// The line that stands for what was cut before this piece; empty when nothing was.
    pub fn marker(&self) -> String {
        if self.cut == 0 { String::new() } else { format!("\n[runback: {} bytes of output were cut here]\n", self.cut) }
    }
}

/// A file, or the part of it from `skip` on, that holds the output's bytes from `start` to `end`.
struct Extent {
    file: File,
    skip: u64,
    start: u64,
    end: u64,
}

impl LogFiles {
    pub fn new(logs_dir: &Path, name: &LogName<'_>) -> Self {
        Self { path: logs_dir.join(name.file_name()) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// In order of their starts. The head is looked at first: it gets its closing note after the segment is there.
    fn extents(&self) -> io::Result<Vec<Extent>> {
        let Some(head) = open(&self.path)? else { return Ok(Vec::new()) };
        let mut head = Extent { end: head.metadata()?.len(), file: head, skip: 0, start: 0 };
        let mut tails = Vec::new();
        for slot in 0..2 {
            let Some(mut file) = open(&segment_path(&self.path, slot))? else { continue };
            let mut line = [0; HEADER];
            file.read_exact(&mut line)?;
            let (head_end, start) = parse_header(&line)
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a segment of the output has no header"))?;
            head.end = head_end.min(head.end);
            let end = start + file.metadata()?.len().saturating_sub(HEADER as u64);
            tails.push(Extent { file, skip: HEADER as u64, start, end });
        }
        // As much is kept of the end as of the beginning, whatever the segments still hold.
        let total = tails.iter().map(|t| t.end).max().unwrap_or(head.end);
        let from = total.saturating_sub(head.end).max(head.end);
        for tail in &mut tails {
            let less = from.saturating_sub(tail.start);
            (tail.start, tail.skip) = (tail.start + less, tail.skip + less);
        }
        tails.retain(|t| t.start < t.end);
        tails.sort_by_key(|t| t.start);
        tails.insert(0, head);
        Ok(tails)
    }

    /// Bytes of the whole output so far, those that were cut included.
    pub fn size(&self) -> io::Result<u64> {
        Ok(self.extents()?.iter().map(|e| e.end).max().unwrap_or(0))
    }

    /// At most `max` bytes from place `from` on, or from where the kept part goes on. None at the (present) end.
    pub fn read(&self, from: u64, max: usize) -> io::Result<Option<Piece>> {
        for extent in &mut self.extents()? {
            if extent.end <= from {
                continue;
            }
            let offset = from.max(extent.start);
            extent.file.seek(SeekFrom::Start(extent.skip + offset - extent.start))?;
            let mut bytes = Vec::new();
            (&mut extent.file).take((extent.end - offset).min(max as u64)).read_to_end(&mut bytes)?;
            return Ok((!bytes.is_empty()).then_some(Piece { offset, cut: offset - from, bytes }));
        }
        Ok(None)
    }

    /// Reads from place `from` on; at the end it reads 0 bytes, and goes on when more was written: `tail -f` is
    /// reading it again after a while.
    pub fn reader(&self, from: u64) -> LogReader {
        LogReader { files: self.clone(), at: from, ready: Vec::new(), taken: 0 }
    }
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// See [`LogFiles::reader`].
#[derive(Debug)]
pub struct LogReader {
    files: LogFiles,
    at: u64,
    ready: Vec<u8>,
    taken: usize,
}

impl Read for LogReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.ready.len() {
            let Some(piece) = self.files.read(self.at, 256 << 10)? else { return Ok(0) };
            self.at = piece.next();
            self.ready = piece.marker().into_bytes();
            self.ready.extend_from_slice(&piece.bytes);
            self.taken = 0;
        }
        let n = buf.len().min(self.ready.len() - self.taken);
        buf[..n].copy_from_slice(&self.ready[self.taken..self.taken + n]);
        self.taken += n;
        Ok(n)
    }
}

/// The kept output of an attempt from its beginning; None when it has none.
pub fn read_log(logs_dir: &Path, name: &LogName<'_>) -> io::Result<Option<LogReader>> {
    let files = LogFiles::new(logs_dir, name);
    Ok(open(&files.path)?.map(|_| files.reader(0)))
}
