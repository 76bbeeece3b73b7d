//! Starting a process: a session of its own, a clean signal state, three streams, a working directory. The only module
//! of the workspace with `unsafe`. Knows nothing of waiting, killing or output.
//!
//! By `clone` with `CLONE_VM | CLONE_VFORK`, as `posix_spawn` does it inside: the cost does not grow with our memory
//! (seen on glibc 2.36: 50 µs against 24 ms for a `fork` at 1 GB resident). Not by `posix_spawn` itself, since that of
//! glibc before 2.38 looks at all 64 signals in each child and maps a new stack for it (seen on 2.36: 1,000 × `true`
//! in 0.82 of the time without), and gives no pidfd: a child that could not be waited for is never started here.

#![expect(unsafe_code, reason = "clone, sigaction, close_range and AsyncFd's registration have no safe form")]

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::OnceLock;

use rustix::process::{Pid, WaitId, WaitIdOptions};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// NUL-terminated strings in one block: an argv or an environment.
#[derive(Debug, Clone, Default)]
pub(crate) struct CStrings {
    bytes: Vec<u8>,
    starts: Vec<usize>,
}

impl CStrings {
    /// Adds one string made of parts. False = it holds a NUL, which no exec can pass on.
    #[must_use]
    pub(crate) fn push(&mut self, parts: &[&[u8]]) -> bool {
        let start = self.bytes.len();
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        if self.bytes[start..].contains(&0) {
            self.bytes.truncate(start);
            return false;
        }
        self.bytes.push(0);
        self.starts.push(start);
        true
    }

    /// What exec wants: pointers into the block, and a null at the end. Valid while `self` is not changed.
    fn pointers(&self) -> Vec<*mut c_char> {
        let pointer = |&start: &usize| self.bytes[start..].as_ptr().cast::<c_char>().cast_mut();
        self.starts.iter().map(pointer).chain([ptr::null_mut()]).collect()
    }
}

/// Where one of the child's first three descriptors comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stdio<'a> {
    /// /dev/null, for reading and writing.
    Null,
    /// A descriptor of ours, which must be 3 or higher: they are put in place one after the other.
    Fd(BorrowedFd<'a>),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Spawn<'a> {
    /// An absolute path, or one that counts from `cwd`.
    pub(crate) program: &'a CStr,
    pub(crate) argv: &'a CStrings,
    pub(crate) env: &'a CStrings,
    pub(crate) cwd: &'a CStr,
    pub(crate) stdio: [Stdio<'a>; 3],
    /// Blocks every signal that can be blocked in the child, for the guard. Else the mask is empty.
    pub(crate) block_signals: bool,
}

/// A process that executes its program.
#[derive(Debug)]
pub(crate) struct Spawned {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
}

/// Signals that code of this process, or of a library, may come to handle after the first look at them.
const HANDLED: [c_int; 9] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGPIPE,
    libc::SIGTERM,
    libc::SIGCHLD,
    libc::SIGWINCH,
];

/// The signals that do not have their default action here, or will not for ever. A child gets it back for each: an
/// ignored one would stay ignored over exec, and a handler of ours would run in the child, on our memory, until then.
fn signals() -> &'static [c_int] {
    static SIGNALS: OnceLock<Vec<c_int>> = OnceLock::new();
    SIGNALS.get_or_init(|| {
        let changed = |&signal: &c_int| {
            let mut now = MaybeUninit::<libc::sigaction>::uninit();
            // SAFETY: the call only reads into storage of the right type, which is looked at if that worked.
            unsafe {
                libc::sigaction(signal, ptr::null(), now.as_mut_ptr()) == 0
                    && now.assume_init().sa_sigaction != libc::SIG_DFL
            }
        };
        let settable = |signal: &c_int| ![libc::SIGKILL, libc::SIGSTOP].contains(signal);
        let all = (1..=libc::SIGRTMAX()).filter(settable);
        all.filter(|signal| HANDLED.contains(signal) || changed(signal)).collect()
    })
}

/// What the child reads, and where it says what went wrong. It is on our stack, which the child shares.
struct Start {
    program: *const c_char,
    argv: *const *mut c_char,
    env: *const *mut c_char,
    cwd: *const c_char,
    /// Negative = /dev/null.
    stdio: [c_int; 3],
    signals: &'static [c_int],
    default: libc::sigaction,
    mask: libc::sigset_t,
    error: c_int,
}

/// Puts descriptors, session, directory and signals in order, and executes the program. Comes back only with an error.
///
/// Runs in the child on our memory: system calls and nothing else, no allocation, no panic.
///
/// # Safety
/// What `start` points to is valid, and every signal is blocked.
unsafe fn exec(start: &Start) {
    // SAFETY: the pointers are those of a `Start`, which are valid by contract; the calls are async-signal-safe.
    unsafe {
        for &signal in start.signals {
            libc::sigaction(signal, &raw const start.default, ptr::null_mut());
        }
        libc::setsid();
        for (target, &fd) in (0..).zip(&start.stdio) {
            let fd = if fd < 0 { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) } else { fd };
            if fd < 0 || libc::dup2(fd, target) < 0 {
                return;
            }
        }
        if libc::chdir(start.cwd) != 0 {
            return;
        }
        libc::sigprocmask(libc::SIG_SETMASK, &raw const start.mask, ptr::null_mut());
        libc::execve(start.program, start.argv.cast(), start.env.cast());
    }
}

extern "C" fn child(start: *mut c_void) -> c_int {
    // SAFETY: `clone_child` passes a `Start` that lives until this process has executed its program or ended, and
    // nobody else looks at it meanwhile; `errno` is that of the thread that waits for us.
    unsafe {
        let start = &mut *start.cast::<Start>();
        exec(start);
        start.error = *libc::__errno_location();
        libc::_exit(127)
    }
}

/// Bytes of stack for the little that [`exec`] does.
const STACK: usize = 32 << 10;

thread_local! {
    /// What a child stands on until its exec: this thread waits that long, so one is enough.
    static STACK_OF_CHILD: RefCell<Vec<u128>> = const { RefCell::new(Vec::new()) };
}

fn clone_child(start: &mut Start) -> io::Result<Spawned> {
    STACK_OF_CHILD.with_borrow_mut(|stack| {
        stack.resize(STACK / size_of::<u128>(), 0);
        let mut all = MaybeUninit::<libc::sigset_t>::uninit();
        let mut before = MaybeUninit::<libc::sigset_t>::uninit();
        let mut pidfd: c_int = -1;
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
        // SAFETY: the sets are initialised before they are used; the stack is ours alone, aligned, and grows down from
        // its end; CLONE_VFORK keeps this thread, and so all that `start` points to, where it is until the child has
        // executed its program or ended; no signal handler runs in the child, as all are blocked.
        let pid = unsafe {
            libc::sigfillset(all.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
            let top = stack.as_mut_ptr_range().end.cast();
            let pid = libc::clone(child, top, flags, ptr::from_mut(start).cast(), &raw mut pidfd);
            let error = io::Error::last_os_error();
            libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut());
            Pid::from_raw(pid.max(0)).ok_or(error)
        }?;
        // SAFETY: a clone that worked has opened it for us.
        Ok(Spawned { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
    })
}

/// Starts the process; it executes its program when this returns. The error is the kernel's own: ENOENT may mean the
/// program, its interpreter or the working directory.
pub(crate) fn spawn(spawn: &Spawn<'_>) -> io::Result<Spawned> {
    let argv = spawn.argv.pointers();
    let env = spawn.env.pointers();
    // SAFETY: all zeroes are a valid `sigaction` (the default action, without flags) and a valid `sigset_t`.
    let (default, mut mask) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    if spawn.block_signals {
        // SAFETY: it is given storage of the right type.
        unsafe { libc::sigfillset(&raw mut mask) };
    }
    let mut start = Start {
        program: spawn.program.as_ptr(),
        argv: argv.as_ptr(),
        env: env.as_ptr(),
        cwd: spawn.cwd.as_ptr(),
        stdio: spawn.stdio.map(|stdio| match stdio {
            Stdio::Null => -1,
            Stdio::Fd(fd) => fd.as_raw_fd(),
        }),
        signals: signals(),
        default,
        mask,
        error: 0,
    };
    let spawned = clone_child(&mut start)?;
    if start.error == 0 {
        return Ok(spawned);
    }
    let _ = rustix::process::waitid(WaitId::PidFd(spawned.pidfd.as_fd()), WaitIdOptions::EXITED);
    Err(io::Error::from_raw_os_error(start.error))
}

/// Undoes an inherited "ignore SIGCHLD": with it the kernel throws exit codes away.
pub(crate) fn keep_exit_codes() {
    let mut now = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: the first call only reads into storage of the right type; the second runs only if that worked and
    // sets the default action with the rest as it was read.
    unsafe {
        if libc::sigaction(libc::SIGCHLD, ptr::null(), now.as_mut_ptr()) == 0 {
            let mut now = now.assume_init();
            if now.sa_sigaction == libc::SIG_IGN {
                now.sa_sigaction = libc::SIG_DFL;
                libc::sigaction(libc::SIGCHLD, &raw const now, ptr::null_mut());
            }
        }
    }
}

/// Closes every descriptor from `first` on, for the guard, which must hold nothing of its parent's. Linux 5.9;
/// before that it does nothing.
///
/// The caller owns no descriptor of that range.
pub(super) fn close_from(first: u32) {
    // SAFETY: the guard calls it first thing in main, when no object of this process owns a descriptor above 2.
    unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) };
}

/// Hands a descriptor to tokio's epoll, within a runtime. The callers only ever borrow it back (`get_ref`) or take
/// it out again; none replaces it through `get_mut`.
pub(crate) fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an owned descriptor stays open and the same until it is dropped, which `AsyncFd` does only after it
    // has left epoll; `as_raw_fd` of `OwnedFd` always says the same number.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_nul_is_refused_and_leaves_no_trace() {
        let mut strings = CStrings::default();
        assert!(strings.push(&[b"a=", b"1"]));
        assert!(!strings.push(&[b"b\0"]));
        assert!(strings.push(&[b"c"]));
        assert_eq!(strings.bytes, b"a=1\0c\0");
        assert_eq!(strings.pointers().len(), 3);
        assert!(strings.pointers()[2].is_null());
    }

    fn words(words: &[&str]) -> CStrings {
        let mut strings = CStrings::default();
        assert!(words.iter().all(|word| strings.push(&[word.as_bytes()])));
        strings
    }

    /// What a program prints that ends well.
    fn printed(argv: &[&str], cwd: &CStr, block_signals: bool) -> String {
        use std::io::Read as _;
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let spawned = spawn(&Spawn {
            program: &std::ffi::CString::new(argv[0]).unwrap(),
            argv: &words(argv),
            env: &words(&["A=b"]),
            cwd,
            stdio: [Stdio::Null, Stdio::Fd(writer.as_fd()), Stdio::Null],
            block_signals,
        })
        .unwrap();
        drop(writer);
        let mut text = String::new();
        std::fs::File::from(reader).read_to_string(&mut text).unwrap();
        let status = rustix::process::waitid(WaitId::PidFd(spawned.pidfd.as_fd()), WaitIdOptions::EXITED).unwrap();
        assert_eq!(status.and_then(|s| s.exit_status()), Some(0), "{text}");
        text
    }

    #[test]
    fn a_child_has_a_session_a_directory_and_an_environment_of_its_own() {
        let script =
            "set -- $(cat /proc/$$/stat); [ $6 = $$ ] && echo leader; pwd; echo $A; read x || echo nothing to read";
        assert_eq!(printed(&["/bin/sh", "-c", script], c"/usr", false), "leader\n/usr\nb\nnothing to read\n");
    }

    #[test]
    fn a_child_ignores_and_blocks_nothing_that_we_do() {
        // The runtime of Rust ignores this one, and every program of ours inherits what cron or nohup ignores.
        assert!(signals().contains(&libc::SIGPIPE));
        let masks = |block_signals| {
            let text = printed(&["/bin/grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"], c"/", block_signals);
            // Two are the C library's own, which nobody can set (and which that of 2.36 leaves ignored).
            let masks = text.lines().map(|line| u64::from_str_radix(line[8..].trim(), 16).unwrap() & !(3 << 31));
            masks.collect::<Vec<_>>()
        };
        assert_eq!(masks(false), [0, 0]);
        assert_eq!(masks(true), [0xffff_fffe_7ffb_feff, 0], "all but KILL and STOP");
        // This thread blocks what it did before.
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        assert!(status.contains("SigBlk:\t0000000000000000"), "{status}");
    }

    #[test]
    fn the_kernel_error_comes_back_and_no_child_stays() {
        let failed = |program: &CStr, cwd: &CStr| {
            let (argv, env) = (words(&["x"]), words(&[]));
            let stdio = [Stdio::Null; 3];
            let spawned = spawn(&Spawn { program, argv: &argv, env: &env, cwd, stdio, block_signals: false });
            spawned.unwrap_err().raw_os_error()
        };
        assert_eq!(failed(c"/nonexistent/program", c"/"), Some(libc::ENOENT));
        assert_eq!(failed(c"/bin/true", c"/nonexistent"), Some(libc::ENOENT));
        assert_eq!(failed(c"/etc/passwd", c"/"), Some(libc::EACCES));
        let children = std::fs::read_to_string("/proc/thread-self/children").unwrap();
        assert_eq!(children, "");
    }
}
