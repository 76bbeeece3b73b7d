//! One program on the far side, from its start to what it says about its end: feeds it, streams its output, holds
//! its standard input open, and stops it by closing that. Knows nothing of how the master is made.

use std::collections::VecDeque;
use std::os::fd::AsFd as _;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use runback_core::target::{Command, Stream, TargetError, TargetErrorKind, Watch};
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe;
use tokio::sync::Notify;

use super::master::{Host, Link, random_key};
use super::mux::{self, Opened};
use super::script::Program;
use crate::process::output::Streams;

/// How long a background child may hold the streams open after the command itself has ended; as for local commands.
const DRAIN: Duration = Duration::from_millis(200);
/// How long, besides the grace, the far side may take to say that it has stopped.
const STOP_MARGIN: Duration = Duration::from_secs(30);
/// See [`runback_core::target::Exit::stderr_tail`].
const TAIL: usize = runback_core::target::Exit::TAIL;

/// What is to run.
pub(super) struct Call<'a> {
    pub(super) body: &'a str,
    pub(super) args: &'a [&'a str],
    pub(super) env: &'a [(&'a str, &'a str)],
    pub(super) stdin: Option<&'a [u8]>,
    /// How much of stdout to keep, in bytes.
    pub(super) keep: usize,
    /// The watch gets the output.
    pub(super) log: bool,
    pub(super) timeout: Option<Duration>,
    /// For messages.
    pub(super) name: &'a str,
}

impl<'a> Call<'a> {
    pub(super) fn new(name: &'a str, body: &'a str, args: &'a [&'a str]) -> Self {
        Self { body, args, env: &[], stdin: None, keep: 64 << 10, log: false, timeout: None, name }
    }
}

/// How it ended.
#[derive(Debug, Default)]
pub(super) struct Reply {
    pub(super) code: i32,
    pub(super) stdout: Vec<u8>,
    pub(super) stdout_cut: bool,
    pub(super) stderr_tail: Vec<u8>,
    /// What the program said besides its exit code, such as `missing`.
    pub(super) said: Vec<String>,
}

impl Reply {
    pub(super) fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr_tail).trim().to_owned()
    }
}

pub(super) enum Ended {
    Reply(Reply),
    /// The server took no further session; nothing ran.
    NoSession,
    /// There was no master any more; nothing ran.
    NoMaster,
    /// It began, and there is no word of how it ended: the connection was cut. What came on stderr.
    Lost {
        stderr: String,
    },
}

/// Finds the records in a stream of stderr, also those that chunks cut in two.
struct Records {
    mark: Vec<u8>,
    held: Vec<u8>,
}

impl Records {
    fn new(key: &str) -> Self {
        Self { mark: format!("\u{1}rb:{key}:").into_bytes(), held: Vec::new() }
    }

    /// Hands out what is the command's own, and the records.
    fn push(&mut self, bytes: &[u8], mut own: impl FnMut(&[u8]), mut record: impl FnMut(String)) {
        if self.held.is_empty() && !bytes.contains(&1) {
            own(bytes);
            return;
        }
        self.held.extend_from_slice(bytes);
        let mut at = 0;
        while at < self.held.len() {
            let rest = &self.held[at..];
            let Some(skip) = rest.iter().position(|b| *b == 1) else {
                own(rest);
                at = self.held.len();
                break;
            };
            own(&rest[..skip]);
            at += skip;
            let rest = &rest[skip..];
            if rest.starts_with(&self.mark) {
                let Some(end) = rest.iter().position(|b| *b == b'\n') else { break };
                record(String::from_utf8_lossy(&rest[self.mark.len()..end]).into_owned());
                at += end + 1;
            } else if self.mark.starts_with(rest) {
                break;
            } else {
                own(&rest[..1]);
                at += 1;
            }
        }
        self.held.drain(..at);
    }
}

/// Stands between the streams and who watches the command.
struct Tap<'a> {
    outer: &'a dyn Watch,
    log: bool,
    keep: usize,
    state: Mutex<Tapped>,
    ended: Notify,
}

struct Tapped {
    stdout: Records,
    stderr: Records,
    reply: Reply,
    exited: bool,
    /// All of stdout has come. The word of the exit comes on stderr, and may overtake it.
    whole: bool,
    stopped: bool,
    tail: VecDeque<u8>,
}

impl Tapped {
    fn is_over(&self) -> bool {
        self.stopped || self.exited && self.whole
    }
}

impl<'a> Tap<'a> {
    fn new(key: &str, call: &Call<'_>, outer: &'a dyn Watch) -> Self {
        let state = Tapped {
            stdout: Records::new(key),
            stderr: Records::new(key),
            reply: Reply::default(),
            exited: false,
            whole: false,
            stopped: false,
            tail: VecDeque::new(),
        };
        Self { outer, log: call.log, keep: call.keep, state: Mutex::new(state), ended: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, Tapped> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn own(&self, stream: Stream, bytes: &[u8]) {
        if self.log && !bytes.is_empty() {
            self.outer.output(stream, bytes);
        }
    }
}

#[async_trait::async_trait]
impl Watch for Tap<'_> {
    fn output(&self, stream: Stream, bytes: &[u8]) {
        let mut state = self.state();
        let was_over = state.is_over();
        let Tapped { stdout, stderr, reply, exited, whole, stopped, tail } = &mut *state;
        match stream {
            Stream::Stdout => {
                let own = |part: &[u8]| {
                    let room = self.keep - reply.stdout.len();
                    reply.stdout.extend_from_slice(&part[..part.len().min(room)]);
                    reply.stdout_cut |= self.keep > 0 && part.len() > room;
                    self.own(stream, part);
                };
                stdout.push(bytes, own, |record| *whole |= record == "end");
            }
            Stream::Stderr => {
                let own = |part: &[u8]| {
                    let last = &part[part.len().saturating_sub(TAIL)..];
                    let over = (tail.len() + last.len()).saturating_sub(TAIL);
                    tail.drain(..over);
                    tail.extend(last);
                    self.own(stream, part);
                };
                stderr.push(bytes, own, |record| {
                    if let Some(code) = record.strip_prefix("exit ").and_then(|c| c.parse().ok()) {
                        (reply.code, *exited) = (code, true);
                    } else if record.starts_with("stopped") {
                        *stopped = true;
                    } else {
                        reply.said.push(record);
                    }
                });
            }
        }
        if state.is_over() && !was_over {
            self.ended.notify_one();
        }
    }

    async fn stopped(&self) {
        self.outer.stopped().await;
    }

    fn kill_grace(&self) -> Duration {
        self.outer.kill_grace()
    }
}

/// Runs a program through an open master.
pub(super) async fn run(host: &Host, link: &Link, call: &Call<'_>, watch: &dyn Watch) -> Result<Ended, TargetError> {
    let key = random_key();
    let grace = watch.kill_grace();
    let program = Program {
        key: &key,
        body: call.body,
        args: call.args,
        env: call.env,
        stdin: call.stdin.map(<[u8]>::len),
        grace: u64::try_from(grace.as_millis() / 100).unwrap_or(u64::MAX),
        exact_blocks: link.facts.exact_blocks,
    };
    let broken =
        |e: std::io::Error| TargetError::new(TargetErrorKind::Other, format!("{}: its pipes failed: {e}", call.name));
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| broken(e.into()))?;
    rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::NONBLOCK).map_err(|e| broken(e.into()))?;
    let writer = pipe::Sender::from_owned_fd(writer).map_err(broken)?;
    let tap = Tap::new(&key, call, watch);
    // Everything goes to the tap; these streams keep nothing themselves.
    let all = Command::new([call.name]);
    let (mut streams, ends) = Streams::new(&all, &tap).map_err(broken)?;
    let fds = [reader.as_fd(), ends.stdout.as_fd(), ends.stderr.as_fd()];
    let mut session = match mux::open(link.socket(), &host.loader(link), fds).await {
        Ok(Opened::Session(session)) => session,
        Ok(Opened::NoMaster) => return Ok(Ended::NoMaster),
        Ok(Opened::Refused(why)) if why.contains("refused") || why.contains("open failed") => {
            return Ok(Ended::NoSession);
        }
        Ok(Opened::Refused(why)) => {
            let message = format!("{}: its connection takes no session: {why}", host.label());
            return Err(TargetError::new(TargetErrorKind::Other, message));
        }
        // The request may have gone out.
        Err(e) => return Ok(Ended::Lost { stderr: e.to_string() }),
    };
    drop((reader, ends));
    let line = program.line();
    let stop = {
        let mut over = pin!(over(&mut session, &tap, call, watch, writer, &line));
        let pump = pin!(streams.pump());
        tokio::select! {
            biased;
            stop = &mut over => stop,
            pumped = pump => {
                pumped.map_err(broken)?;
                over.await
            }
        }
    };
    streams.drain().await.map_err(broken)?;
    // Where it has not ended by itself, the master closes it now.
    drop((session, streams));
    let Tapped { mut reply, exited, whole, stopped, tail, stderr, .. } =
        tap.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    reply.stderr_tail = tail.into();
    reply.stderr_tail.extend_from_slice(&stderr.held);
    match stop {
        Some(kind) => Err(stop_error(call, kind, exited || stopped, host)),
        // Without its end, what there is of stdout may be anything.
        None if exited && whole => Ok(Ended::Reply(reply)),
        None => Ok(Ended::Lost { stderr: reply.stderr_text() }),
    }
}

/// Feeds the program and waits for its end, however that comes; Some = why it was stopped.
async fn over(
    session: &mut mux::Session,
    tap: &Tap<'_>,
    call: &Call<'_>,
    watch: &dyn Watch,
    mut input: pipe::Sender,
    line: &str,
) -> Option<TargetErrorKind> {
    let timeout = async {
        match call.timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    let stop = {
        let feed = async {
            // Broken = it has ended; its record says how.
            if input.write_all(line.as_bytes()).await.is_ok() {
                let _ = input.write_all(call.stdin.unwrap_or_default()).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            () = session.closed() => return None,
            () = tap.ended.notified() => None,
            () = watch.stopped() => Some(TargetErrorKind::Cancelled),
            () = timeout => Some(TargetErrorKind::Timeout),
            () = feed => None,
        }
    };
    let patience = if stop.is_some() {
        drop(input);
        watch.kill_grace() + STOP_MARGIN
    } else {
        DRAIN
    };
    // Elapsed = a background child holds the streams, or the far side does not answer.
    let _ = tokio::time::timeout(patience, session.closed()).await;
    stop
}

fn stop_error(call: &Call<'_>, kind: TargetErrorKind, confirmed: bool, host: &Host) -> TargetError {
    let mut message = match kind {
        TargetErrorKind::Timeout => {
            format!(
                "{} was stopped: it ran longer than its timeout of {:?}",
                call.name,
                call.timeout.unwrap_or_default()
            )
        }
        _ => format!("{} was stopped", call.name),
    };
    if confirmed {
        TargetError::new(kind, message)
    } else {
        message.push_str("; the connection is lost, so it is not sure that its processes have ended");
        TargetError::new(kind, message).help(format!("look on {} for what it started", host.label()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_found_at_every_cut() {
        let text = b"one\x01two\n\x01rb:key:missing\nthree\x01rb:other:exit 1\n\x01rb:key:exit 7\n\x01rb";
        for cut in 0..=text.len() {
            let mut records = Records::new("key");
            let (mut own, mut said) = (Vec::new(), Vec::new());
            for part in [&text[..cut], &text[cut..]] {
                records.push(part, |b| own.extend_from_slice(b), |r| said.push(r));
            }
            assert_eq!(own, b"one\x01two\nthree\x01rb:other:exit 1\n", "cut at {cut}");
            assert_eq!(said, ["missing", "exit 7"], "cut at {cut}");
            assert_eq!(records.held, b"\x01rb");
        }
    }
}
