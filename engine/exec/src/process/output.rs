//! The pipes of one command: reads both streams as they come, feeds standard input, keeps the beginning of stdout
//! and the end of stderr. Memory is bounded however much the command prints. Knows nothing of processes.
//!
//! Reading is cheap for the many commands that end at once: the pipes are not put into epoll for the first
//! [`LATE`]; a command that ended within it is read directly. A pipe holds 64 KiB, so a command that prints more
//! waits for us for that long once.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use runback_core::target::{Command, Exit, Stream, Watch};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

use super::spawn;

/// How long a command may run before its output is streamed. Short enough for eyes, and longer than `true` takes
/// with 16 in flight on two cores (5 ms).
const LATE: Duration = Duration::from_millis(10);
/// How long a background child may hold the pipes open after the command itself has ended.
const DRAIN: Duration = Duration::from_millis(200);
/// What is read at once: all that a pipe holds.
const CHUNK: usize = 64 << 10;
/// See [`Exit::stderr_tail`].
const TAIL: usize = Exit::TAIL;

/// Where the output goes.
pub(crate) struct Sink<'a> {
    watch: Option<&'a dyn Watch>,
    keep: usize,
    stdout: Vec<u8>,
    stdout_cut: bool,
    tail: VecDeque<u8>,
    /// Both streams came as one, so the tail is of that.
    merged: bool,
}

impl<'a> Sink<'a> {
    pub(crate) fn new(command: &Command, watch: &'a dyn Watch, merged: bool) -> Self {
        Self {
            watch: command.log_output.then_some(watch),
            keep: command.keep_stdout,
            stdout: Vec::new(),
            stdout_cut: false,
            tail: VecDeque::new(),
            merged,
        }
    }

    pub(crate) fn put(&mut self, stream: Stream, bytes: &[u8]) {
        if let Some(watch) = self.watch {
            watch.output(stream, bytes);
        }
        if stream == Stream::Stdout {
            let room = self.keep - self.stdout.len();
            self.stdout.extend_from_slice(&bytes[..bytes.len().min(room)]);
            self.stdout_cut |= self.keep > 0 && bytes.len() > room;
        }
        if stream == Stream::Stderr || self.merged {
            let last = &bytes[bytes.len().saturating_sub(TAIL)..];
            let over = (self.tail.len() + last.len()).saturating_sub(TAIL);
            self.tail.drain(..over);
            self.tail.extend(last);
        }
    }

    pub(crate) fn into_exit(self, code: Option<i32>, signal: Option<i32>) -> Exit {
        Exit { code, signal, stdout: self.stdout, stdout_cut: self.stdout_cut, stderr_tail: self.tail.into() }
    }
}

/// Our end of a pipe, non-blocking.
#[derive(Debug)]
enum End {
    /// Not in epoll yet.
    Plain(OwnedFd),
    Watched(AsyncFd<OwnedFd>),
    Closed,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Got {
    /// A whole chunk: there may be more.
    Full,
    /// Less than a chunk: the pipe was empty after it.
    Some,
    Nothing,
    End,
}

impl End {
    fn new(fd: OwnedFd) -> io::Result<Self> {
        rustix::fs::fcntl_setfl(&fd, OFlags::NONBLOCK)?;
        Ok(Self::Plain(fd))
    }

    fn open(&self) -> bool {
        !matches!(self, Self::Closed)
    }

    fn watch(&mut self, interest: Interest) -> io::Result<()> {
        *self = match std::mem::replace(self, Self::Closed) {
            Self::Plain(fd) => Self::Watched(spawn::watch(fd, interest)?),
            other => other,
        };
        Ok(())
    }

    /// Only while it is watched; pending for ever otherwise.
    async fn readable(&self) -> io::Result<AsyncFdReadyGuard<'_, OwnedFd>> {
        match self {
            Self::Watched(fd) => fd.readable().await,
            _ => std::future::pending().await,
        }
    }

    async fn writable(&self) -> io::Result<AsyncFdReadyGuard<'_, OwnedFd>> {
        match self {
            Self::Watched(fd) => fd.writable().await,
            _ => std::future::pending().await,
        }
    }

    /// Reads what is there now, without waiting, and closes it at its end.
    fn read_now(&mut self, stream: Stream, sink: &mut Sink<'_>) -> io::Result<()> {
        // More than any pipe holds by default, and still an end where a background child writes without pause.
        for _ in 0..32 {
            let got = match self {
                Self::Plain(fd) => read(fd.as_fd(), stream, sink)?,
                Self::Watched(fd) => read(fd.get_ref().as_fd(), stream, sink)?,
                Self::Closed => return Ok(()),
            };
            match got {
                Got::Full | Got::Some => {}
                Got::Nothing => return Ok(()),
                Got::End => *self = Self::Closed,
            }
        }
        Ok(())
    }
}

thread_local! {
    /// One buffer for all commands of a thread: it is only used between two awaits.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

pub(crate) fn read(fd: BorrowedFd<'_>, stream: Stream, sink: &mut Sink<'_>) -> io::Result<Got> {
    let mut buffer = BUFFER.take();
    if buffer.is_empty() {
        buffer = vec![0; CHUNK];
    }
    let got = loop {
        match rustix::io::read(fd, buffer.as_mut_slice()) {
            Ok(0) => break Ok(Got::End),
            Ok(n) => {
                sink.put(stream, &buffer[..n]);
                break Ok(if n == CHUNK { Got::Full } else { Got::Some });
            }
            Err(Errno::AGAIN) => break Ok(Got::Nothing),
            Err(Errno::INTR) => {}
            Err(e) => break Err(e.into()),
        }
    };
    BUFFER.set(buffer);
    got
}

/// One read for one readiness. True = the end.
fn take(mut ready: AsyncFdReadyGuard<'_, OwnedFd>, stream: Stream, sink: &mut Sink<'_>) -> io::Result<bool> {
    let got = read(ready.get_inner().as_fd(), stream, sink)?;
    if matches!(got, Got::Some | Got::Nothing) {
        ready.clear_ready();
    }
    Ok(got == Got::End)
}

/// Writes as much of the input as the pipe takes. True = all of it is in, or nobody reads it any more.
fn feed(fd: BorrowedFd<'_>, input: &mut &[u8]) -> io::Result<bool> {
    while !input.is_empty() {
        match rustix::io::write(fd, input) {
            Ok(n) => *input = &input[n..],
            Err(Errno::AGAIN) => return Ok(false),
            Err(Errno::PIPE) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(true)
}

/// The child's ends; dropped once it is started.
#[derive(Debug)]
pub(crate) struct ChildEnds {
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// Our ends, and what goes through them.
pub(crate) struct Streams<'a> {
    stdout: End,
    stderr: End,
    stdin: End,
    input: &'a [u8],
    sink: Sink<'a>,
}

impl<'a> Streams<'a> {
    pub(crate) fn new(command: &'a Command, watch: &'a dyn Watch) -> io::Result<(Self, ChildEnds)> {
        let (stdout, child_stdout) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        let (stderr, child_stderr) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        let mut streams = Self {
            stdout: End::new(stdout)?,
            stderr: End::new(stderr)?,
            stdin: End::Closed,
            input: command.stdin.as_deref().unwrap_or_default(),
            sink: Sink::new(command, watch, false),
        };
        let mut child = ChildEnds { stdin: None, stdout: child_stdout, stderr: child_stderr };
        if command.stdin.is_some() {
            let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
            streams.stdin = End::new(writer)?;
            child.stdin = Some(reader);
        }
        Ok((streams, child))
    }

    /// Writes the beginning of the input, which is all of it where it fits into the pipe. The child's ends must be
    /// open still.
    pub(crate) fn prime(&mut self) -> io::Result<()> {
        if let End::Plain(fd) = &self.stdin
            && feed(fd.as_fd(), &mut self.input)?
        {
            self.stdin = End::Closed;
        }
        Ok(())
    }

    /// Streams until both pipes are closed at the other side. May be dropped at any await without losing a byte.
    pub(crate) async fn pump(&mut self) -> io::Result<()> {
        if !self.stdin.open() {
            tokio::time::sleep(LATE).await;
        }
        self.stream().await
    }

    async fn stream(&mut self) -> io::Result<()> {
        self.stdout.watch(Interest::READABLE)?;
        self.stderr.watch(Interest::READABLE)?;
        self.stdin.watch(Interest::WRITABLE)?;
        let Self { stdout, stderr, stdin, input, sink } = self;
        while stdout.open() || stderr.open() || stdin.open() {
            tokio::select! {
                ready = stdout.readable(), if stdout.open() => {
                    if take(ready?, Stream::Stdout, sink)? {
                        *stdout = End::Closed;
                    }
                }
                ready = stderr.readable(), if stderr.open() => {
                    if take(ready?, Stream::Stderr, sink)? {
                        *stderr = End::Closed;
                    }
                }
                ready = stdin.writable(), if stdin.open() => {
                    let mut ready = ready?;
                    if feed(ready.get_inner().as_fd(), input)? {
                        drop(ready);
                        *stdin = End::Closed;
                    } else {
                        ready.clear_ready();
                    }
                }
            }
        }
        Ok(())
    }

    /// After the command has ended: what is in the pipes still, and for a moment what background children add.
    pub(crate) async fn drain(&mut self) -> io::Result<()> {
        self.stdin = End::Closed;
        self.stdout.read_now(Stream::Stdout, &mut self.sink)?;
        self.stderr.read_now(Stream::Stderr, &mut self.sink)?;
        if self.stdout.open() || self.stderr.open() {
            // Elapsed = a background child holds them; it is not waited for.
            if let Ok(streamed) = tokio::time::timeout(DRAIN, self.stream()).await {
                streamed?;
            }
        }
        Ok(())
    }

    pub(crate) fn into_exit(self, code: Option<i32>, signal: Option<i32>) -> Exit {
        self.sink.into_exit(code, signal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Deaf;
    #[async_trait::async_trait]
    impl Watch for Deaf {
        fn output(&self, _: Stream, _: &[u8]) {}
        async fn stopped(&self) {
            std::future::pending::<()>().await;
        }
        fn kill_grace(&self) -> Duration {
            Duration::ZERO
        }
    }

    #[test]
    fn the_beginning_of_stdout_and_the_end_of_stderr_are_kept() {
        let command = Command::new(["x"]).keep_stdout(5);
        let mut sink = Sink::new(&command, &Deaf, false);
        sink.put(Stream::Stdout, b"abc");
        sink.put(Stream::Stdout, b"de");
        assert!(!sink.stdout_cut);
        sink.put(Stream::Stdout, b"f");
        sink.put(Stream::Stderr, &[b'x'; 10_000]);
        sink.put(Stream::Stderr, b"last");
        let exit = sink.into_exit(Some(0), None);
        assert_eq!(exit.stdout, b"abcde");
        assert!(exit.stdout_cut);
        assert_eq!(exit.stderr_tail.len(), TAIL);
        assert!(exit.stderr_tail.ends_with(b"xlast"));
    }

    #[test]
    fn keeping_nothing_is_not_a_cut() {
        let mut sink = Sink::new(&Command::new(["x"]), &Deaf, true);
        sink.put(Stream::Stdout, b"abc");
        let exit = sink.into_exit(None, Some(9));
        assert!(exit.stdout.is_empty() && !exit.stdout_cut);
        assert_eq!(exit.stderr_tail, b"abc", "merged streams have one tail");
    }
}
