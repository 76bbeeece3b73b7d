//! One command from start to exit code: spawn, wait by pidfd, stop when told to. Waiting costs no thread. Knows
//! the pipes only as a future that runs beside it.

use std::ffi::CString;
use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use runback_core::target::{Command, Exit, TargetError, TargetErrorKind, Watch};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::guard::Slot;
use super::kill::Tree;
use super::output::{ChildEnds, Streams};
use super::spawn::{self, CStrings, Spawn, Spawned, Stdio};
use super::{Processes, program};

/// A fresh script can be "busy" for as long as another thread's fork, made while it was open for writing, has not
/// reached its exec. Pauses before each retry, in milliseconds.
const BUSY_PAUSES: [u64; 6] = [1, 2, 5, 20, 50, 100];

pub(super) fn has_exited(pidfd: impl AsFd) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    !matches!(rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), options), Ok(None))
}

pub(crate) fn reap(pidfd: impl AsFd) -> Option<WaitIdStatus> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), options).ok().flatten()
}

fn push(argv: &mut CStrings, name: &str, word: &[u8]) -> Result<(), TargetError> {
    if argv.push(&[word]) {
        return Ok(());
    }
    let word = String::from_utf8_lossy(word);
    let message = format!("{name}: the argument {word:?} has a NUL byte in it, which no command can take");
    Err(TargetError::new(TargetErrorKind::Other, message))
}

/// All that an exec needs, made before anything is started.
pub(crate) struct Prepared {
    program: CString,
    argv: CStrings,
    env: CStrings,
    cwd: PathBuf,
    cwd_string: CString,
}

impl Prepared {
    /// `wrap` comes before the command's own words: a wrapper's program and arguments. The command itself is
    /// searched all the same, so that a missing one is found out here.
    pub(crate) fn new(
        processes: &Processes,
        command: &Command,
        base: &Path,
        cookie: &str,
        wrap: &[&str],
    ) -> Result<Self, TargetError> {
        let cwd = command.cwd.as_ref().map_or_else(|| base.to_owned(), |dir| base.join(dir));
        let search_path = processes.search_path(&command.env);
        let name = command.argv.first().map_or("", String::as_str);
        let own = program::find(name, search_path, &cwd)?;
        let mut argv = CStrings::default();
        let mut words = command.argv.iter().map(String::as_bytes);
        let program = match wrap.first() {
            None => own,
            Some(wrapper) => {
                program::check(&own, &cwd)?;
                // A wrapper is a shell: by its path the command is no builtin of it.
                words.next();
                let before = wrap.iter().map(|word| word.as_bytes()).chain([own.to_bytes()]);
                for word in before {
                    push(&mut argv, name, word)?;
                }
                program::find(wrapper, search_path, &cwd)?
            }
        };
        for word in words {
            push(&mut argv, name, word)?;
        }
        let env = processes.environment(&command.env, cookie)?;
        let cwd_string = CString::new(cwd.as_os_str().as_bytes()).map_err(|_| {
            TargetError::new(TargetErrorKind::NotFound, "the name of the working directory has a NUL byte in it")
        })?;
        Ok(Self { program, argv, env, cwd, cwd_string })
    }

    pub(crate) async fn spawn(&self, stdio: [Stdio<'_>; 3]) -> Result<Spawned, TargetError> {
        let request = Spawn {
            program: &self.program,
            argv: &self.argv,
            env: &self.env,
            cwd: &self.cwd_string,
            stdio,
            block_signals: false,
        };
        let mut pauses = BUSY_PAUSES.iter();
        loop {
            let error = match spawn::spawn(&request) {
                Ok(spawned) => return Ok(spawned),
                Err(e) => e,
            };
            match pauses.next() {
                Some(&pause) if error.kind() == io::ErrorKind::ExecutableFileBusy => {
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                }
                _ => return Err(program::explain(&error, &self.program, &self.cwd)),
            }
        }
    }
}

/// A place in the guard's table, left when this is dropped.
struct Registered {
    processes: Arc<Processes>,
    slot: Option<Slot>,
}

impl Registered {
    fn new(processes: &Arc<Processes>, number: u64) -> Self {
        Self { processes: Arc::clone(processes), slot: processes.guard().map(|guard| guard.enter(number)) }
    }

    fn started(&self, pid: Pid) {
        if let (Some(guard), Some(slot)) = (self.processes.guard(), &self.slot) {
            guard.started(slot, pid);
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.processes.leave(self.slot.take());
    }
}

/// A started command which was not reaped yet. Dropped before its end (its attempt was thrown away), it takes its
/// whole tree with it.
struct Child {
    pid: Pid,
    cookie: String,
    registered: Registered,
    /// None = reaped, or handed over to be.
    pidfd: Option<AsyncFd<OwnedFd>>,
}

impl Child {
    async fn start(
        processes: &Arc<Processes>,
        command: &Command,
        base: &Path,
        ends: &ChildEnds,
    ) -> Result<Self, TargetError> {
        let number = processes.next();
        let cookie = processes.cookie(number);
        let prepared = Prepared::new(processes, command, base, &cookie, &[])?;
        let registered = Registered::new(processes, number);
        let stdin = ends.stdin.as_ref().map_or(Stdio::Null, |fd| Stdio::Fd(fd.as_fd()));
        let Spawned { pid, pidfd } =
            prepared.spawn([stdin, Stdio::Fd(ends.stdout.as_fd()), Stdio::Fd(ends.stderr.as_fd())]).await?;
        registered.started(pid);
        match spawn::watch(pidfd, Interest::READABLE) {
            Ok(pidfd) => Ok(Self { pid, cookie, registered, pidfd: Some(pidfd) }),
            Err(e) => {
                // It cannot be waited for, so it must not run. It is a child of ours and not reaped: the pid is its.
                Tree { leader: pid, cookie: &cookie }.kill_now();
                let _ = rustix::process::kill_process(pid, Signal::KILL);
                drop(registered);
                let _ = rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED);
                Err(program::explain(&e, &prepared.program, &prepared.cwd))
            }
        }
    }

    fn tree(&self) -> Tree<'_> {
        Tree { leader: self.pid, cookie: &self.cookie }
    }

    async fn exited(&self) -> io::Result<()> {
        match &self.pidfd {
            Some(pidfd) => pidfd.readable().await.map(drop),
            None => Ok(()),
        }
    }

    /// Code and signal. The guard forgets it first: the pid is nobody's after this.
    fn reap(mut self) -> (Option<i32>, Option<i32>) {
        self.registered.processes.leave(self.registered.slot.take());
        let status = self.pidfd.take().and_then(|fd| reap(fd.get_ref()));
        let status = status.as_ref();
        (status.and_then(WaitIdStatus::exit_status), status.and_then(WaitIdStatus::terminating_signal))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let Some(pidfd) = self.pidfd.take() else { return };
        self.tree().kill_now();
        let processes = &self.registered.processes;
        processes.reap_later(pidfd.into_inner(), self.registered.slot.take());
        processes.reap();
    }
}

/// Why the wait is over.
enum Ended {
    Exited,
    Cancelled,
    TimedOut(Duration),
}

pub(super) async fn run(
    processes: &Arc<Processes>,
    command: &Command,
    base: &Path,
    watch: &dyn Watch,
    stdin: Option<OwnedFd>,
) -> Result<Exit, TargetError> {
    processes.reap();
    let name = command.argv.first().map_or("", String::as_str);
    let broken = |e: io::Error| TargetError::new(TargetErrorKind::Other, format!("{name}: its pipes failed: {e}"));
    let (mut streams, mut ends) = Streams::new(command, watch).map_err(broken)?;
    ends.stdin = stdin.or(ends.stdin);
    streams.prime().map_err(broken)?;
    let child = Child::start(processes, command, base, &ends).await?;
    drop(ends);

    let ended = {
        let mut supervise = pin!(supervise(&child, command, watch));
        let pump = pin!(streams.pump());
        tokio::select! {
            biased;
            ended = &mut supervise => ended,
            pumped = pump => match pumped {
                // It closed its pipes and lives on.
                Ok(()) => supervise.await,
                Err(e) => Err(e),
            },
        }
    };
    match ended.map_err(broken)? {
        Ended::Exited => {
            let (code, signal) = child.reap();
            streams.drain().await.map_err(broken)?;
            Ok(streams.into_exit(code, signal))
        }
        Ended::Cancelled => {
            streams.drain().await.map_err(broken)?;
            Err(stopped(child, TargetErrorKind::Cancelled, format!("{name} was stopped")))
        }
        Ended::TimedOut(after) => {
            streams.drain().await.map_err(broken)?;
            let message = format!("{name} was stopped: it ran longer than its timeout of {after:?}");
            Err(stopped(child, TargetErrorKind::Timeout, message))
        }
    }
}

fn stopped(child: Child, kind: TargetErrorKind, mut message: String) -> TargetError {
    if child.pidfd.as_ref().is_some_and(|fd| !has_exited(fd.get_ref())) {
        let pid = child.pid.as_raw_pid();
        let _ = write!(message, "; its process {pid} does not die even by KILL: it hangs in the kernel");
    } else {
        child.reap();
    }
    TargetError::new(kind, message)
}

/// Waits for the end, or stops the tree when told to. Does not reap: killing needs the pid to be ours.
async fn supervise(child: &Child, command: &Command, watch: &dyn Watch) -> io::Result<Ended> {
    let timeout = async {
        match command.timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    let ended = tokio::select! {
        biased;
        exited = child.exited() => return exited.map(|()| Ended::Exited),
        () = watch.stopped() => Ended::Cancelled,
        () = timeout => Ended::TimedOut(command.timeout.unwrap_or_default()),
    };
    child.tree().stop(watch.kill_grace()).await;
    Ok(ended)
}
