//! Commands that outlive runback on this machine. A small shell in a session of its own runs the command and keeps
//! records in a folder: `pid`, `output` (both streams, in order) and, once it has ended, `exit`. Any later process
//! finds it by these. Knows nothing of the journal.
//!
//! The exit record counts only with the newline at its end, so a half-written one is none. The code of a command
//! that a signal ended is 128 + the signal, as shells have it. The guard does not see these commands, and their
//! cookie names their folder, so whoever attaches can stop them with all that they forked.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use runback_core::target::{Command, Detached, DetachedState, Exit, Stream, TargetError, TargetErrorKind, Watch};
use rustix::process::{Pid, PidfdFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::files::fail;
use crate::process::child::{self, Prepared};
use crate::process::kill::{Stat, Tree};
use crate::process::output::{Got, Sink, read};
use crate::process::spawn::{self, Stdio};
use crate::process::{COOKIE, Processes};

/// `$1` is the folder, the rest the command, whose name has a slash in it: no builtin and no function. A signal
/// to the group ends the command and not this shell, which must still write the code; traps are not inherited.
const WRAPPER: &str = "dir=$1; shift; trap : HUP INT TERM; echo $$ >\"$dir/pid\"; \"$@\"; echo $? >\"$dir/exit\"";

/// How often new output is looked for.
const POLL: Duration = Duration::from_millis(50);

fn cookie(dir: &str) -> String {
    format!("{COOKIE}=detached:{dir}")
}

/// What tells a process from a later one with the same pid. None = it does not run.
fn identity(pid: i32) -> Option<String> {
    let stat = Stat::of(pid).filter(|stat| stat.alive())?;
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(format!("{}:{}", boot.trim_end(), stat.started))
}

fn alive(detached: &Detached) -> bool {
    identity(detached.pid).is_some_and(|identity| identity == detached.identity)
}

/// None = there is none, or not a whole one.
fn exit_record(dir: &Path) -> Option<i32> {
    fs::read_to_string(dir.join("exit")).ok()?.strip_suffix('\n')?.parse().ok()
}

/// Makes the folder, which must be new: records of two commands never mix.
fn make_records(dir: &Path) -> Result<(), TargetError> {
    let private = |path: &Path, parents: bool| fs::DirBuilder::new().recursive(parents).mode(0o700).create(path);
    let parent = dir.parent().unwrap_or(dir);
    private(parent, true).map_err(|e| fail("create the directory", parent, &e))?;
    private(dir, false).map_err(|e| fail("create the directory of records", dir, &e))
}

/// With the folder of the run above it, if that was the last in it.
fn remove_records(dir: &Path) -> Result<(), TargetError> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(fail("remove the records", dir, &e)),
        _ => {
            if let Some(parent) = dir.parent() {
                // Not empty = others are still there.
                let _ = fs::remove_dir(parent);
            }
            Ok(())
        }
    }
}

fn create(path: &Path) -> Result<File, TargetError> {
    let mut options = OpenOptions::new();
    options.append(true).create_new(true).mode(0o600).open(path).map_err(|e| fail("create", path, &e))
}

pub(super) async fn start(
    processes: &Processes,
    command: &Command,
    base: &Path,
    dir: &str,
) -> Result<Detached, TargetError> {
    let cookie = cookie(dir);
    let prepared = Prepared::new(processes, command, base, &cookie, &["sh", "-c", WRAPPER, "sh", dir])?;
    make_records(Path::new(dir))?;
    let started = launch(&prepared, command, Path::new(dir)).await;
    if started.is_err() {
        // The error that counts is the first.
        let _ = remove_records(Path::new(dir));
    }
    let pid = started?;
    let identity = identity(pid.as_raw_pid()).unwrap_or_else(|| "ended at once".to_owned());
    Ok(Detached { dir: dir.to_owned(), pid: pid.as_raw_pid(), identity })
}

async fn launch(prepared: &Prepared, command: &Command, dir: &Path) -> Result<Pid, TargetError> {
    let output = create(&dir.join("output"))?;
    let input_path = dir.join("stdin");
    let input = match &command.stdin {
        None => None,
        Some(bytes) => {
            let failed = |e: io::Error| fail("write", &input_path, &e);
            create(&input_path)?.write_all(bytes).map_err(failed)?;
            Some(File::open(&input_path).map_err(failed)?)
        }
    };
    let stdin = input.as_ref().map_or(Stdio::Null, |file| Stdio::Fd(file.as_fd()));
    let pid = prepared.spawn([stdin, Stdio::Fd(output.as_fd()), Stdio::Fd(output.as_fd())]).await?.pid;
    if input.is_some() {
        // The shell has it open; it may hold a secret.
        fs::remove_file(&input_path).map_err(|e| fail("remove", &input_path, &e))?;
    }
    Ok(pid)
}

pub(super) fn state(detached: &Detached) -> DetachedState {
    let dir = Path::new(&detached.dir);
    let running = alive(detached);
    // In this order: the record of one that ended in between is there by now.
    match exit_record(dir) {
        Some(_) => DetachedState::Ended,
        None if running => DetachedState::Running,
        None => DetachedState::Gone,
    }
}

/// The shell of a detached command while it runs, whoever started it.
fn follow(detached: &Detached) -> io::Result<Option<AsyncFd<OwnedFd>>> {
    let Some(pid) = Pid::from_raw(detached.pid.max(0)) else { return Ok(None) };
    let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(rustix::io::Errno::SRCH) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    if !alive(detached) {
        // A zombie of our own, perhaps.
        let _ = child::reap(&pidfd);
        return Ok(None);
    }
    spawn::watch(pidfd, Interest::READABLE).map(Some)
}

enum Ended {
    Itself,
    Stopped(TargetErrorKind),
}

pub(super) async fn attach(detached: &Detached, command: &Command, watch: &dyn Watch) -> Result<Exit, TargetError> {
    let dir = PathBuf::from(&detached.dir);
    let name = command.argv.first().map_or("the command", String::as_str);
    let failed = |e: io::Error| fail("follow the command of", &dir, &e);
    let mut sink = Sink::new(command, watch, true);
    let shell = follow(detached).map_err(failed)?;
    let output = match File::open(dir.join("output")) {
        Ok(file) => Some(file),
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        Err(e) => return Err(fail("read", &dir.join("output"), &e)),
    };
    let ended = {
        let mut read_some = || match &output {
            Some(file) => read(file.as_fd(), Stream::Stdout, &mut sink),
            None => Ok(Got::End),
        };
        let ended = match &shell {
            Some(shell) => wait(detached, shell, command, watch, &mut read_some).await.map_err(failed)?,
            None => Ended::Itself,
        };
        while read_some().map_err(failed)? != Got::End {
            tokio::task::yield_now().await;
        }
        ended
    };
    if let Some(shell) = shell {
        let _ = child::reap(shell.get_ref());
    }
    let code = exit_record(&dir);
    if code.is_none() || matches!(ended, Ended::Stopped(_)) {
        remove_records(&dir)?;
    }
    match (ended, code) {
        (Ended::Itself, Some(code)) => Ok(sink.into_exit(Some(code), None)),
        (Ended::Itself, None) => {
            let message = format!(
                "{name} (pid {}) does not run any more and left no exit code in {}",
                detached.pid,
                dir.display()
            );
            Err(TargetError::new(TargetErrorKind::Other, message)
                .help("the machine was restarted, or somebody killed it with -9; look at what it left behind"))
        }
        (Ended::Stopped(TargetErrorKind::Timeout), _) => {
            let after = command.timeout.unwrap_or_default();
            let message = format!("{name} was stopped: it ran longer than its timeout of {after:?}");
            Err(TargetError::new(TargetErrorKind::Timeout, message))
        }
        (Ended::Stopped(kind), _) => Err(TargetError::new(kind, format!("{name} was stopped"))),
    }
}

pub(super) fn forget(detached: &Detached) -> Result<(), TargetError> {
    remove_records(Path::new(&detached.dir))
}

/// Reads output as it comes until the shell ends, or is stopped.
async fn wait(
    detached: &Detached,
    shell: &AsyncFd<OwnedFd>,
    command: &Command,
    watch: &dyn Watch,
    read_some: &mut impl FnMut() -> io::Result<Got>,
) -> io::Result<Ended> {
    let mut exited = pin!(shell.readable());
    let mut stopped = pin!(watch.stopped());
    let mut timeout = pin!(async {
        match command.timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    });
    let kind = loop {
        let more = read_some()? != Got::End;
        let pause = async { if more { tokio::task::yield_now().await } else { tokio::time::sleep(POLL).await } };
        tokio::select! {
            biased;
            exited = &mut exited => return exited.map(|_| Ended::Itself),
            () = &mut stopped => break TargetErrorKind::Cancelled,
            () = &mut timeout => break TargetErrorKind::Timeout,
            () = pause => {}
        }
    };
    if let Some(leader) = Pid::from_raw(detached.pid) {
        Tree { leader, cookie: &cookie(&detached.dir) }.stop(watch.kill_grace()).await;
    }
    Ok(Ended::Stopped(kind))
}
