//! The guard: a small process which ends the commands of a runback that was killed with -9. Our own binary, started
//! again with a hidden argument before the first command. Knows nothing of steps; it sees a table and a pipe.
//!
//! It sleeps on a pipe whose other end only runback holds; the end of file means that runback is gone, however it
//! went. What runs then stands in a table in memory that both share (a memfd). Runback writes the table by
//! `pwrite`, so the guard is not woken for each command; it reads it once. A command is in the table from before
//! its start until just before its pid is given back to the kernel. When the table is empty the guard just ends.
//!
//! It holds nothing else of runback's: descriptor 0 is the pipe, 1 the table, 2 /dev/null, so whoever reads
//! runback's output sees its end. All signals that can be blocked are blocked: only KILL ends it early.

use std::collections::HashSet;
use std::ffi::{CString, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::spawn::{self, CStrings, Spawn, Stdio};
use super::{COOKIE, kill};

/// What runback's `main` looks for as its first argument, to call [`main`].
pub const GUARD_ARGUMENT: &str = "__guard";

/// Begins the table: a version of its form, then what is unique in the cookies, filled up with zeros.
const MAGIC: &[u8; 8] = b"rbguard1";
const HEADER: usize = 64;
/// A slot: the cookie's number (0 = free) and the pid (0 = not yet known), little-endian, and 4 bytes of nothing.
const SLOT: usize = 16;

/// How long the guard hunts before it gives up on what does not die.
const HUNT: Duration = Duration::from_secs(3);

/// How the guard is started.
#[derive(Debug, Clone)]
pub struct GuardCommand {
    program: PathBuf,
    args: Vec<OsString>,
}

impl GuardCommand {
    /// This very binary, also where its file was replaced since; its `main` must call [`main`] when the first
    /// argument is [`GUARD_ARGUMENT`].
    pub fn this_binary() -> Self {
        Self::new("/proc/self/exe", [GUARD_ARGUMENT])
    }

    pub fn new<A: Into<OsString>>(program: impl Into<PathBuf>, args: impl IntoIterator<Item = A>) -> Self {
        Self { program: program.into(), args: args.into_iter().map(Into::into).collect() }
    }
}

impl fmt::Display for GuardCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.program.display())
    }
}

/// A place in the table; given back by [`Guard::leave`].
#[derive(Debug)]
pub(crate) struct Slot {
    index: u32,
    number: u64,
}

#[derive(Debug, Default)]
struct Free {
    slots: Vec<u32>,
    /// How many slots there were at most.
    used: u32,
}

/// Runback's side of the guard.
#[derive(Debug)]
pub(crate) struct Guard {
    table: File,
    free: Mutex<Free>,
    /// Nothing is ever written; the kernel closes it when this process ends.
    _alive: OwnedFd,
}

impl Guard {
    pub(crate) fn start(command: &GuardCommand, unique: &str) -> io::Result<Self> {
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        let table = File::from(rustix::fs::memfd_create(c"runback-guard", flags)?);
        let mut header = [0; HEADER];
        header[..MAGIC.len()].copy_from_slice(MAGIC);
        header[MAGIC.len()..MAGIC.len() + unique.len()].copy_from_slice(unique.as_bytes());
        table.write_all_at(&header, 0)?;
        let (ends, alive) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;

        let program = CString::new(command.program.as_os_str().as_bytes())?;
        let mut argv = CStrings::default();
        let words = [OsString::from("runback")];
        for word in words.iter().chain(&command.args) {
            if !argv.push(&[word.as_bytes()]) {
                return Err(io::ErrorKind::InvalidInput.into());
            }
        }
        spawn::spawn(&Spawn {
            program: &program,
            argv: &argv,
            // Empty: a cookie of an outer runback in it would make the outer guard kill this one.
            env: &CStrings::default(),
            cwd: c"/",
            stdio: [Stdio::Fd(ends.as_fd()), Stdio::Fd(table.as_fd()), Stdio::Null],
            block_signals: true,
        })?;
        Ok(Self { table, free: Mutex::default(), _alive: alive })
    }

    /// Before the start of a command, whose pid is not known yet.
    pub(crate) fn enter(&self, number: u64) -> Slot {
        let index = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            free.slots.pop().unwrap_or_else(|| {
                free.used += 1;
                free.used - 1
            })
        };
        let slot = Slot { index, number };
        self.put(index, number, 0);
        slot
    }

    pub(crate) fn started(&self, slot: &Slot, pid: Pid) {
        self.put(slot.index, slot.number, pid.as_raw_pid());
    }

    /// Before the pid is reaped: after that it may be somebody else's.
    #[expect(clippy::needless_pass_by_value, reason = "a slot is left once")]
    pub(crate) fn leave(&self, slot: Slot) {
        self.put(slot.index, 0, 0);
        self.free.lock().unwrap_or_else(PoisonError::into_inner).slots.push(slot.index);
    }

    fn put(&self, index: u32, number: u64, pid: i32) {
        let mut bytes = [0; SLOT];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        bytes[8..12].copy_from_slice(&pid.to_le_bytes());
        // A write into memory fails only where memory is out; the command then has no guard, and still its cookie
        // and session for every other way to stop.
        let _ = self.table.write_all_at(&bytes, (HEADER + index as usize * SLOT) as u64);
    }
}

/// Looks in a row that find nothing, before that is believed: one that forks while we look can be missed once.
const LOOKS: u32 = 2;

/// The same where runback was ended in the middle of a start. Before it executes its program a child of ours carries no
/// cookie, and on a busy machine that may be for long.
const LOOKS_FOR_STARTING: u32 = 100;

/// What stands in the table when runback is gone.
struct Left {
    scratch: PathBuf,
    /// The pid of one of them is not known.
    starting: bool,
    /// `RUNBACK_COOKIE=unique.`
    prefix: Vec<u8>,
    numbers: HashSet<u64>,
    leaders: Vec<i32>,
}

fn parse(table: &[u8]) -> Option<Left> {
    let unique = table.get(..HEADER)?.strip_prefix(MAGIC)?;
    let unique = unique.split(|&b| b == 0).next().filter(|u| !u.is_empty())?;
    let mut left = Left {
        scratch: super::scratch_path(std::str::from_utf8(unique).ok()?),
        starting: false,
        prefix: [COOKIE.as_bytes(), b"=", unique, b"."].concat(),
        numbers: HashSet::new(),
        leaders: Vec::new(),
    };
    for slot in table[HEADER..].chunks_exact(SLOT) {
        let number = u64::from_le_bytes(slot[..8].try_into().ok()?);
        let pid = i32::from_le_bytes(slot[8..12].try_into().ok()?);
        if number != 0 {
            left.numbers.insert(number);
            left.leaders.extend((pid > 1).then_some(pid));
            left.starting |= pid == 0;
        }
    }
    Some(left)
}

impl Left {
    fn hunt(&self) {
        let cookie = |entry: &[u8]| {
            let number = entry.strip_prefix(self.prefix.as_slice()).and_then(|n| std::str::from_utf8(n).ok());
            number.and_then(|n| n.parse().ok()).is_some_and(|n: u64| self.numbers.contains(&n))
        };
        for leader in self.leaders.iter().filter_map(|&pid| Pid::from_raw(pid)) {
            let _ = rustix::process::kill_process_group(leader, Signal::KILL);
        }
        let claim = kill::Claim { leaders: &self.leaders, cookie: &cookie };
        let until = Instant::now() + HUNT;
        let mut empty = 0;
        let enough = if self.starting { LOOKS_FOR_STARTING } else { LOOKS };
        while empty < enough && Instant::now() < until {
            empty = if claim.signal(Signal::KILL, kill::Reach::All) == 0 { empty + 1 } else { 0 };
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The guard's whole life. `main` of the binary calls it before anything else when its first argument is
/// [`GUARD_ARGUMENT`]. Ends with 2 if it was not started by runback.
pub fn main() -> ! {
    spawn::close_from(3);
    // For `ps`; its name would be "exe" otherwise.
    let _ = std::fs::write("/proc/self/comm", "runback-guard");
    let mut byte = [0];
    let mut stdin = io::stdin().lock();
    while match stdin.read(&mut byte) {
        Ok(n) => n > 0,
        Err(e) => e.kind() == io::ErrorKind::Interrupted,
    } {}
    let left = io::stdout().as_fd().try_clone_to_owned().ok().and_then(|table| {
        let table = File::from(table);
        let size = table.metadata().ok().filter(std::fs::Metadata::is_file)?.len();
        let mut bytes = vec![0; usize::try_from(size).ok()?];
        table.read_exact_at(&mut bytes, 0).ok()?;
        parse(&bytes)
    });
    let Some(left) = left else { std::process::exit(2) };
    if !left.numbers.is_empty() {
        left.hunt();
    }
    // Sockets of what was killed. Most runs have none.
    let _ = std::fs::remove_dir_all(&left.scratch);
    std::process::exit(0)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_table_says_what_is_left() {
        // `sleep` does not read its input: here the table is only written and read back by us.
        let command = GuardCommand::new("/bin/sleep", ["0"]);
        let guard = Guard::start(&command, "17-abc").unwrap();
        let first = guard.enter(1);
        let second = guard.enter(2);
        guard.started(&first, Pid::from_raw(4711).unwrap());
        let read = || {
            let mut bytes = vec![0; usize::try_from(guard.table.metadata().unwrap().len()).unwrap()];
            guard.table.read_exact_at(&mut bytes, 0).unwrap();
            parse(&bytes).unwrap()
        };
        let left = read();
        assert_eq!(left.prefix, b"RUNBACK_COOKIE=17-abc.");
        assert_eq!(left.numbers, HashSet::from([1, 2]));
        assert_eq!(left.leaders, [4711]);
        assert!(left.starting, "the pid of the second is not known");
        guard.leave(first);
        assert_eq!(read().numbers, HashSet::from([2]));
        guard.leave(second);
        assert!(read().numbers.is_empty() && !read().starting);
        assert_eq!(guard.enter(3).index, 1, "a free slot is used again");
    }

    /// Runback was killed while its child had not come to its program yet: nothing names it before.
    #[test]
    fn a_command_that_comes_late_to_its_program_is_found() {
        let unique = format!("late-{}", std::process::id());
        let late = std::thread::spawn({
            let unique = unique.clone();
            move || {
                std::thread::sleep(Duration::from_millis(60));
                std::process::Command::new("sleep").arg("20").env(COOKIE, format!("{unique}.7")).status().unwrap()
            }
        });
        let left = Left {
            scratch: PathBuf::new(),
            starting: true,
            prefix: format!("{COOKIE}={unique}.").into_bytes(),
            numbers: HashSet::from([7]),
            leaders: Vec::new(),
        };
        left.hunt();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&late.join().unwrap()), Some(9));
    }

    #[test]
    fn a_table_that_is_none_is_refused() {
        assert!(parse(b"").is_none());
        assert!(parse(&[b'x'; HEADER]).is_none());
        let mut no_name = [0; HEADER];
        no_name[..8].copy_from_slice(MAGIC);
        assert!(parse(&no_name).is_none());
    }
}
