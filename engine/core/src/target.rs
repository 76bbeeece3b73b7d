//! Where a step acts: the contract of a target. Commands are argv, never a string through a shell; paths
//! are the target's own. Nothing here knows which targets there are.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::step::{Class, StepError};

/// Which stream of a command a piece of output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    Stdout,
    Stderr,
}

/// A command to run. Build it with [`Command::new`] and the chained setters.
#[derive(Debug, Clone, Default)]
pub struct Command {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Added to the target's environment.
    pub env: BTreeMap<String, String>,
    /// Working directory; None = the target's default (for `local`: the folder of the playbook).
    pub cwd: Option<String>,
    /// What the command reads; None = /dev/null.
    pub stdin: Option<Vec<u8>>,
    /// How much of stdout to keep in [`Exit::stdout`], in bytes. 0 = none.
    pub keep_stdout: usize,
    /// False keeps the output out of the attempt's log (probing commands, and those that print secrets).
    pub log_output: bool,
    /// A bound of its own, besides the attempt's timeout.
    pub timeout: Option<Duration>,
}

/// How much output a step keeps to read from unless it says otherwise.
pub const KEEP_DEFAULT: usize = 1 << 20;

impl Command {
    pub fn new<I, S>(argv: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        Self { argv: argv.into_iter().map(Into::into).collect(), log_output: true, ..Self::default() }
    }

    /// A command whose stdout the step reads and the log does not show: probing, not work.
    pub fn query<I, S>(argv: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        Self { keep_stdout: KEEP_DEFAULT, log_output: false, ..Self::new(argv) }
    }

    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    #[must_use]
    pub fn cwd(mut self, dir: impl Into<String>) -> Self {
        self.cwd = Some(dir.into());
        self
    }

    #[must_use]
    pub fn keep_stdout(mut self, bytes: usize) -> Self {
        self.keep_stdout = bytes;
        self
    }

    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// The command as a person would type it, for messages.
    pub fn display(&self) -> String {
        self.argv.iter().map(|a| quote(a)).collect::<Vec<_>>().join(" ")
    }
}

/// The file behind `$RUNBACK_OUTPUT` of an attempt with these records: beside them, as their folder goes with the last.
pub fn output_file(records: &str) -> String {
    match records.rsplit_once('/') {
        Some((run, name)) => format!("{run}.{name}.output"),
        None => format!("{records}.output"),
    }
}

/// Quotes one word for a POSIX shell; leaves it alone where that is not needed.
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-+=./:,@%^".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// How a command ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exit {
    /// The exit code; None when a signal ended it.
    pub code: Option<i32>,
    pub signal: Option<i32>,
    /// The first [`Command::keep_stdout`] bytes.
    pub stdout: Vec<u8>,
    pub stdout_cut: bool,
    /// The last [`Exit::TAIL`] bytes of stderr, for messages.
    pub stderr_tail: Vec<u8>,
}

impl Exit {
    /// How much is kept of the end of stderr, in bytes.
    pub const TAIL: usize = 4 << 10;

    pub fn ok(&self) -> bool {
        self.code == Some(0)
    }

    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The end of stderr. Begins with an ellipsis where something is cut off before it: messages that quote in part must
    /// say where (see the driver's masking).
    pub fn stderr_text(&self) -> String {
        let text = String::from_utf8_lossy(&self.stderr_tail);
        if self.stderr_tail.len() < Self::TAIL {
            text.into_owned()
        } else {
            format!("…{}", text.trim_start_matches('\u{fffd}'))
        }
    }

    /// "exit code 3", "killed by signal 9".
    pub fn describe(&self) -> String {
        match (self.code, self.signal) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("killed by signal {signal}"),
            (None, None) => "ended without an exit code".to_owned(),
        }
    }
}

/// A command that outlives runback: enough to find it again after a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Detached {
    /// A directory on the target that holds its pid, output and exit code, until it has been read.
    pub dir: String,
    pub pid: i32,
    /// What tells this process from a later one with the same pid (Linux: boot id and start time).
    pub identity: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DetachedState {
    Running,
    /// Ended, and its exit record is there.
    Ended,
    /// Neither alive nor with an exit record: the machine was restarted, or somebody killed it.
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    File,
    Dir,
    Symlink,
    Other,
}

/// What stands at a path, the link itself where it is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStat {
    pub kind: FileKind,
    /// Permission bits, such as 0o644.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// In bytes.
    pub size: u64,
    /// Where a symlink points.
    pub link: Option<String>,
}

/// How a file that is written shall be. None keeps what the replaced file has, or the default of a new one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileAttributes {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

/// An error of a target: the connection, the file system or the start of a command. A command that ran and
/// failed is an [`Exit`], not an error.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct TargetError {
    pub kind: TargetErrorKind,
    pub message: String,
    pub help: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetErrorKind {
    NotFound,
    PermissionDenied,
    /// No such program, or not executable.
    CommandNotFound,
    NoSpace,
    /// A directory that is not empty, a file where a directory is wanted, and so on.
    WrongKind,
    /// The connection to the target was lost or could not be made; worth another try.
    Connection,
    /// The target refuses us (key, host key, sudo); another try will not help.
    Refused,
    /// The command was over [`Command::timeout`] or the attempt's own.
    Timeout,
    /// The attempt was told to stop.
    Cancelled,
    Other,
}

impl TargetError {
    pub fn new(kind: TargetErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), help: None }
    }

    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl From<TargetError> for StepError {
    fn from(e: TargetError) -> Self {
        let class = match e.kind {
            TargetErrorKind::Connection => Class::Transient,
            TargetErrorKind::Timeout => Class::Timeout,
            TargetErrorKind::Cancelled => Class::Cancelled,
            _ => Class::Permanent,
        };
        let mut error = StepError::new(class, e.message);
        error.help = e.help;
        error
    }
}

/// What a running command tells and asks while it runs; the attempt is behind it.
#[async_trait::async_trait]
pub trait Watch: Send + Sync {
    /// A piece of output, in the order it was read.
    fn output(&self, stream: Stream, bytes: &[u8]);
    /// Resolves once the attempt must stop (cancel, timeout); the command then gets TERM, and KILL after
    /// [`Watch::kill_grace`].
    async fn stopped(&self);
    fn kill_grace(&self) -> Duration;
}

/// A place where commands run and files lie. Every method works the same on each kind of target.
#[async_trait::async_trait]
pub trait Target: Send + Sync + std::fmt::Debug {
    /// Its name in the playbook; `local` for the machine that runback runs on.
    fn name(&self) -> &str;

    fn is_local(&self) -> bool {
        false
    }

    /// Runs a command to its end. Stopping kills its whole process group, and whatever escaped from it.
    async fn run(&self, command: &Command, watch: &dyn Watch) -> Result<Exit, TargetError>;

    /// Starts a command in a session of its own that outlives runback. `dir` is where its records go.
    async fn start_detached(&self, command: &Command, dir: &str) -> Result<Detached, TargetError>;
    async fn detached_state(&self, detached: &Detached) -> Result<DetachedState, TargetError>;
    /// Streams the output of a detached command from its beginning and waits for its end. Stopping kills it. The records
    /// of one that ended by itself stay until [`Target::forget_detached`]: its end must be in the journal first.
    async fn attach(&self, detached: &Detached, command: &Command, watch: &dyn Watch) -> Result<Exit, TargetError>;
    /// Removes the records of a command whose end is known, and on this machine its [`output_file`]. Nothing there is
    /// fine.
    async fn forget_detached(&self, detached: &Detached) -> Result<(), TargetError>;
    /// Where records of detached commands go on this target, for a run.
    fn detached_dir(&self, run: &str, step: &str, attempt: u32) -> String;

    /// The link itself where the path is one. None = nothing there.
    async fn stat(&self, path: &str) -> Result<Option<FileStat>, TargetError>;
    /// At most `limit` bytes; a larger file is an error that names both sizes.
    async fn read(&self, path: &str, limit: u64) -> Result<Vec<u8>, TargetError>;
    /// SHA-256 of a file of any size, as hex.
    async fn sha256(&self, path: &str) -> Result<String, TargetError>;
    /// Replaces the file by rename; no reader ever sees a half of it, and it is on disk when this returns.
    async fn write(&self, path: &str, bytes: &[u8], attributes: &FileAttributes) -> Result<(), TargetError>;
    /// Removes what a write, copy or switch of this path left beside it when its process was killed in the middle.
    /// Nothing there is fine. A target whose writes leave nothing need not have it.
    async fn clear_leftovers(&self, _path: &str) -> Result<(), TargetError> {
        Ok(())
    }
    /// While the guard lives, every other process of this machine that asks for the same folder waits: for a look and the
    /// replacement right after it. None where a target does not have it, or did not get it within two minutes; a caller
    /// must lose nothing without it that a look could have saved.
    async fn alone_in_folder(&self, _path: &str) -> Option<Box<dyn std::any::Any + Send>> {
        None
    }
    async fn set_attributes(&self, path: &str, attributes: &FileAttributes) -> Result<(), TargetError>;
    /// Points a symlink somewhere, atomically, whether it was there or not.
    async fn symlink(&self, link: &str, points_to: &str) -> Result<(), TargetError>;
    async fn create_dir(&self, path: &str, mode: Option<u32>) -> Result<(), TargetError>;
    /// Names in a directory, sorted. A name that is not UTF-8 is there as well as it can be shown, with a `/` at its end,
    /// which no real name has: it says that something is in there, and cannot be used as a path.
    async fn list(&self, path: &str) -> Result<Vec<String>, TargetError>;
    async fn rename(&self, from: &str, to: &str) -> Result<(), TargetError>;
    /// Copies a file within the target, keeping mode and owner.
    async fn copy(&self, from: &str, to: &str) -> Result<(), TargetError>;
    /// A file or link. Nothing there is fine.
    async fn remove_file(&self, path: &str) -> Result<(), TargetError>;
    /// An empty directory. Nothing there is fine.
    async fn remove_dir(&self, path: &str) -> Result<(), TargetError>;
    /// A directory with all that is in it, never following links. Nothing there is fine.
    async fn remove_tree(&self, path: &str) -> Result<(), TargetError>;
    /// Free bytes of the file system that holds the path.
    async fn free_space(&self, path: &str) -> Result<u64, TargetError>;
    /// Numeric ids of a user or group name on the target; numbers are taken as they are.
    async fn user_id(&self, name: &str) -> Result<u32, TargetError>;
    async fn group_id(&self, name: &str) -> Result<u32, TargetError>;
}
