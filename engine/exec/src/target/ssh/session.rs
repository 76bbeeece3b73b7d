//! One program on the far side, from its start to what it says about its end: feeds it, streams its output, holds
//! its standard input open, and stops it by closing that. Knows nothing of how the master is made.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use runback_core::target::{Command, Stream, TargetError, TargetErrorKind, Watch};
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe;
use tokio::sync::Notify;

use super::master::{Host, Link, random_key};
use super::script::Program;

/// How long a background child may hold the streams open after the command itself has ended; as for local commands.
const DRAIN: Duration = Duration::from_millis(200);
/// How long, besides the grace, the far side may take to say that it has stopped.
const STOP_MARGIN: Duration = Duration::from_secs(10);
/// See [`runback_core::target::Exit::stderr_tail`].
const TAIL: usize = 4 << 10;

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
    /// The master or the server took no further session; nothing ran.
    NotStarted,
    /// No exit record: what ssh said, and whether the program is known not to have run.
    Lost {
        stderr: String,
        ran: bool,
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

/// Stands between the local `ssh` and who watches the command.
struct Tap<'a> {
    outer: &'a dyn Watch,
    log: bool,
    keep: usize,
    state: Mutex<Tapped>,
    ended: Notify,
    kill: Notify,
}

struct Tapped {
    records: Records,
    reply: Reply,
    exited: bool,
    stopped: bool,
    tail: VecDeque<u8>,
}

impl Tap<'_> {
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
        let Tapped { records, reply, exited, stopped, tail } = &mut *self.state();
        if stream == Stream::Stdout {
            let room = self.keep - reply.stdout.len();
            reply.stdout.extend_from_slice(&bytes[..bytes.len().min(room)]);
            reply.stdout_cut |= self.keep > 0 && bytes.len() > room;
            self.own(stream, bytes);
            return;
        }
        let own = |part: &[u8]| {
            let last = &part[part.len().saturating_sub(TAIL)..];
            let over = (tail.len() + last.len()).saturating_sub(TAIL);
            tail.drain(..over);
            tail.extend(last);
            self.own(stream, part);
        };
        records.push(bytes, own, |record| {
            if let Some(code) = record.strip_prefix("exit ").and_then(|c| c.parse().ok()) {
                (reply.code, *exited) = (code, true);
                self.ended.notify_one();
            } else if record.starts_with("stopped") {
                *stopped = true;
                self.ended.notify_one();
            } else {
                reply.said.push(record);
            }
        });
    }

    async fn stopped(&self) {
        self.kill.notified().await;
    }

    fn kill_grace(&self) -> Duration {
        DRAIN
    }
}

/// Ssh says this when the master is gone and it would have to connect by itself, which we do not let it.
const NO_MASTER: [&str; 4] =
    ["UNKNOWN port 65535", "Control socket connect", "mux_client_hello_exchange", "kex_exchange_identification"];

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
    let line = program.line();
    let broken =
        |e: std::io::Error| TargetError::new(TargetErrorKind::Other, format!("{}: its pipe failed: {e}", call.name));
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| broken(e.into()))?;
    rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::NONBLOCK).map_err(|e| broken(e.into()))?;
    let mut writer = pipe::Sender::from_owned_fd(writer).map_err(broken)?;
    let state = Tapped {
        records: Records::new(&key),
        reply: Reply::default(),
        exited: false,
        stopped: false,
        tail: VecDeque::new(),
    };
    let tap = Tap {
        outer: watch,
        log: call.log,
        keep: call.keep,
        state: Mutex::new(state),
        ended: Notify::new(),
        kill: Notify::new(),
    };
    let ssh = Command::new(host.client_argv(link));
    let mut stop = None;
    let exit = {
        let ssh = pin!(host.run_ssh(&ssh, &tap, reader));
        let steer = pin!(async {
            let timeout = async {
                match call.timeout {
                    Some(timeout) => tokio::time::sleep(timeout).await,
                    None => std::future::pending().await,
                }
            };
            let feed = async {
                // Broken = it has ended; its record says how.
                if writer.write_all(line.as_bytes()).await.is_ok() {
                    let _ = writer.write_all(call.stdin.unwrap_or_default()).await;
                }
                std::future::pending::<()>().await;
            };
            stop = tokio::select! {
                biased;
                () = tap.ended.notified() => None,
                () = watch.stopped() => Some(TargetErrorKind::Cancelled),
                () = timeout => Some(TargetErrorKind::Timeout),
                () = feed => None,
            };
            if stop.is_none() {
                tokio::time::sleep(DRAIN).await;
            } else {
                drop(writer);
                tokio::time::sleep(grace + STOP_MARGIN).await;
            }
            tap.kill.notify_one();
            std::future::pending::<()>().await;
        });
        tokio::select! {
            biased;
            exit = ssh => exit,
            () = steer => return Err(broken(std::io::ErrorKind::Other.into())),
        }
    };
    let Tapped { mut reply, exited, stopped, tail, records } =
        tap.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    reply.stderr_tail = tail.into();
    reply.stderr_tail.extend_from_slice(&records.held);
    if let Some(kind) = stop {
        return Err(stop_error(call, kind, exited || stopped, host));
    }
    if exited {
        return Ok(Ended::Reply(reply));
    }
    // Only a client that could not be started at all, or one that we killed.
    if let Err(e) = exit
        && e.kind != TargetErrorKind::Cancelled
    {
        return Err(e);
    }
    let stderr = reply.stderr_text();
    if stderr.contains("Session open refused") || stderr.contains("session request failed") {
        return Ok(Ended::NotStarted);
    }
    let ran = !NO_MASTER.iter().any(|mark| stderr.contains(mark));
    Ok(Ended::Lost { stderr, ran })
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
