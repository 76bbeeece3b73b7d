//! The output of one attempt: masked, bounded, in files beside the store, and read again. Does not know what
//! the command was, nor who looks.
//!
//! The file is made at the first byte. Up to half the limit goes into `NAME.log`; what follows goes in turns into
//! `NAME.log.tail-a` and `-b`, each of half the limit, so that the beginning and the end of any amount of
//! output are kept with constant memory. While an attempt runs, its files take 1.5 × the limit at most,
//! afterwards the limit. Both streams of the command stand in one file, in the order they were read.

mod name;
mod reader;
mod recent;
mod spool;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use runback_core::target::Stream;

use crate::mask::{MaskStream, Masker};
pub use name::LogName;
pub use reader::{LogFiles, LogReader, Piece, read_log};
use recent::Recent;
use spool::Spool;

/// How much output of one attempt is kept, in bytes: half of its beginning, half of its end.
pub const LIMIT_DEFAULT: u64 = 16 << 20;

/// Output that could not be written. The step goes on.
#[derive(Debug, thiserror::Error)]
#[error("the output cannot be written to {}: {error}", path.display())]
pub struct LogProblem {
    pub path: PathBuf,
    #[source]
    pub error: io::Error,
}

/// What became of an attempt's output.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogSummary {
    /// None when there was no output.
    pub path: Option<PathBuf>,
    /// Masked bytes in all.
    pub bytes: u64,
    /// Bytes of the middle that are not kept.
    pub cut: u64,
    /// Bytes that could not be written.
    pub lost: u64,
}

/// Called once per attempt, at the first write that fails.
pub type OnProblem = Box<dyn Fn(LogProblem) + Send + Sync>;

/// The log of one attempt while it runs. Every method may be called from any thread; the attempt owns it.
pub struct AttemptLog(Mutex<State>);

struct State {
    /// A secret may be cut in two by a piece of the other stream, so each stream is masked by itself, and once
    /// more as they stand together.
    stdout: MaskStream,
    stderr: MaskStream,
    together: MaskStream,
    sink: Sink,
}

struct Sink {
    spool: Spool,
    recent: Recent,
    on_problem: Option<OnProblem>,
}

impl std::fmt::Debug for AttemptLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("AttemptLog").field(&self.state().sink.spool.path()).finish()
    }
}

impl AttemptLog {
    /// Makes nothing on disk yet. `limit` in bytes, see [`LIMIT_DEFAULT`].
    pub fn new(dir: &Path, name: &LogName<'_>, masker: &Masker, limit: u64, on_problem: OnProblem) -> Self {
        let sink = Sink {
            spool: Spool::new(dir.join(name.file_name()), limit),
            recent: Recent::default(),
            on_problem: Some(on_problem),
        };
        let (stdout, stderr, together) = (masker.stream(), masker.stream(), masker.stream());
        Self(Mutex::new(State { stdout, stderr, together, sink }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn write(&self, stream: Stream, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let State { stdout, stderr, together, sink } = &mut *self.state();
        let own = match stream {
            Stream::Stdout => stdout,
            Stream::Stderr => stderr,
        };
        own.push(bytes, |part| together.push(part, |part| sink.write(part)));
    }

    /// Writes what the masking held back and brings the files to their final size. More output may follow.
    pub fn finish(&self) -> LogSummary {
        let State { stdout, stderr, together, sink } = &mut *self.state();
        stdout.finish(|part| together.push(part, |part| sink.write(part)));
        stderr.finish(|part| together.push(part, |part| sink.write(part)));
        together.finish(|part| sink.write(part));
        sink.spool.finish()
    }

    /// The last line that is not empty, without escape sequences, at most 200 characters.
    pub fn last_line(&self) -> Option<String> {
        self.state().sink.recent.lines(1).pop()
    }

    /// The last lines, oldest first, each as in [`AttemptLog::last_line`].
    pub fn last_lines(&self, count: usize) -> Vec<String> {
        self.state().sink.recent.lines(count)
    }
}

impl Drop for AttemptLog {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Sink {
    fn write(&mut self, bytes: &[u8]) {
        self.recent.push(bytes);
        if let Err(error) = self.spool.write(bytes)
            && let Some(tell) = self.on_problem.take()
        {
            tell(LogProblem { path: self.spool.path().to_owned(), error });
        }
    }
}
