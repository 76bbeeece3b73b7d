//! Who owns a run: a lock file per run, held by `flock`, so that the kernel gives it back when the process dies,
//! however it dies and whatever the clock does. The owner's name in the file is for messages only.
//! Knows nothing of journals or of what a run is; the epoch that fences late writers is the store's.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// The process that has a run. For messages: whether it is alive says the lock, never this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    pub user: String,
    pub host: String,
    pub pid: u32,
    /// Milliseconds since the epoch when it took the run.
    pub since: u64,
}

impl Owner {
    /// This process, now. The user is `$USER`, `$LOGNAME`, the name that /etc/passwd has for the uid, or the uid.
    pub fn this_process() -> Self {
        let user = ["USER", "LOGNAME"]
            .iter()
            .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
            .or_else(|| {
                let uid = fs::metadata("/proc/self").ok()?.uid();
                let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
                Some(user_name(&passwd, uid).map_or_else(|| format!("uid{uid}"), ToOwned::to_owned))
            })
            .unwrap_or_else(|| "unknown".to_owned());
        let host = fs::read_to_string("/proc/sys/kernel/hostname")
            .ok()
            .or_else(|| std::env::var("HOSTNAME").ok())
            .map(|name| name.trim().to_owned())
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| "localhost".to_owned());
        Self { user, host, pid: std::process::id(), since: now_ms() }
    }
}

/// The name of a uid in the text of /etc/passwd.
fn user_name(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    })
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}, process {}", self.user, self.host, self.pid)
    }
}

/// Milliseconds since the epoch by the system's clock; for people, never for order.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Why a lock was not taken.
#[derive(Debug)]
pub(crate) enum NotTaken {
    /// Somebody alive has it; None = it has not written its name yet.
    Held(Option<Owner>),
    Io(io::Error),
}

impl From<io::Error> for NotTaken {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Life {
    Dead,
    Alive(Option<Owner>),
}

/// The exclusive lock of one name, until it is dropped; then its file goes too.
#[derive(Debug)]
pub(crate) struct RunLock {
    file: File,
    path: PathBuf,
}

/// A probe holds the lock shared for some microseconds, and as long as it is kept from the processor on a busy machine.
const PROBE_PAUSE: Duration = Duration::from_micros(100);

/// With the lock of an owner that was killed a moment ago: a child of it that has not reached its exec holds a copy.
#[derive(Debug)]
pub(crate) struct Patience(Instant);

impl Patience {
    const LONGEST: Duration = Duration::from_secs(3);
    const PAUSE: Duration = Duration::from_millis(2);

    pub(crate) fn new() -> Self {
        Self(Instant::now())
    }

    /// How long to wait before one looks again; None = that owner has it.
    pub(crate) fn with(&self, owner: Option<&Owner>) -> Option<Duration> {
        let gone = owner.is_some_and(|owner| is_gone(owner.pid));
        (gone && !self.is_over()).then_some(Self::PAUSE)
    }

    fn is_over(&self) -> bool {
        self.0.elapsed() > Self::LONGEST
    }
}

/// No such process, or only what its parent has not reaped yet.
fn is_gone(pid: u32) -> bool {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['Z', 'X'])),
        Err(error) => error.kind() == io::ErrorKind::NotFound && Path::new("/proc/self").exists(),
    }
}

impl RunLock {
    /// Never waits for an owner; only for a probe that is just looking.
    pub(crate) fn acquire(dir: &Path, name: &str, owner: &Owner) -> Result<Self, NotTaken> {
        let path = lock_path(dir, name);
        let patience = Patience::new();
        while !patience.is_over() {
            // std opens close-on-exec: no child inherits the lock.
            let file =
                OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
            match file.try_lock() {
                Ok(()) if same_file(&file, &path)? => {
                    let mut lock = Self { file, path };
                    lock.sign(owner)?;
                    return Ok(lock);
                }
                // The owner before removed it between our open and our lock: what we hold is no longer the lock.
                Ok(()) => {}
                // An owner is exclusive and excludes a shared lock, a probe does not: that tells them apart.
                Err(TryLockError::WouldBlock) => match file.try_lock_shared() {
                    Ok(()) => {
                        drop(file);
                        std::thread::sleep(PROBE_PAUSE);
                    }
                    Err(TryLockError::WouldBlock) => {
                        let owner = read_owner_soon(&path);
                        match patience.with(owner.as_ref()) {
                            Some(pause) => std::thread::sleep(pause),
                            None => return Err(NotTaken::Held(owner)),
                        }
                    }
                    Err(TryLockError::Error(error)) => return Err(error.into()),
                },
                Err(TryLockError::Error(error)) => return Err(error.into()),
            }
        }
        Err(NotTaken::Held(read_owner(&path)))
    }

    fn sign(&mut self, owner: &Owner) -> io::Result<()> {
        let text = serde_json::to_vec(owner)?;
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(&text)
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        // Removed while it is held, so that nobody who locks it afterwards takes it for the one in the folder.
        if same_file(&self.file, &self.path).unwrap_or(false) {
            // A file that stays is only litter: the next owner locks and signs it again.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Is somebody alive behind this name? Takes nothing and creates nothing.
pub(crate) fn probe(dir: &Path, name: &str) -> io::Result<Life> {
    let path = lock_path(dir, name);
    loop {
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Life::Dead),
            Err(error) => return Err(error),
        };
        match file.try_lock_shared() {
            Ok(()) if same_file(&file, &path)? => return Ok(Life::Dead),
            // It was removed and perhaps made anew while we looked.
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Life::Alive(read_owner(&path))),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// Makes a folder, and those above it, that only this user can enter.
/// Gives the folders that have got an entry: once these are synced, what it made is durable.
pub(crate) fn make_private_dir(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let made: Vec<_> = dir.ancestors().take_while(|above| !above.exists()).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let above = made.into_iter().filter_map(Path::parent);
    Ok(above.map(|above| if above.as_os_str().is_empty() { Path::new(".") } else { above }.to_owned()).collect())
}

fn lock_path(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.lock"))
}

fn same_file(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok(there.ino() == ours.ino() && there.dev() == ours.dev()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn read_owner(path: &Path) -> Option<Owner> {
    let mut text = Vec::new();
    File::open(path).ok()?.take(4096).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// The winner signs some microseconds after it locked, or once it has the processor again: a refusal is worth waiting for
/// its name.
fn read_owner_soon(path: &Path) -> Option<Owner> {
    let asked = Instant::now();
    // Where the file is gone it was given back meanwhile, and nobody signs it.
    while path.exists() && asked.elapsed() < Duration::from_secs(1) {
        if let Some(owner) = read_owner(path) {
            return Some(owner);
        }
        std::thread::sleep(PROBE_PAUSE);
    }
    None
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn owner(pid: u32) -> Owner {
        Owner { user: "ann".into(), host: "ops1".into(), pid, since: 1 }
    }

    #[test]
    fn one_holder_and_the_other_learns_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let us = owner(std::process::id());
        let held = RunLock::acquire(dir.path(), "r1", &us).unwrap();
        match RunLock::acquire(dir.path(), "r1", &owner(8)) {
            Err(NotTaken::Held(Some(by))) => assert_eq!(by, us),
            other => panic!("{other:?}"),
        }
        assert_eq!(probe(dir.path(), "r1").unwrap(), Life::Alive(Some(us)));
        assert_eq!(probe(dir.path(), "r2").unwrap(), Life::Dead);
        drop(held);
        assert_eq!(probe(dir.path(), "r1").unwrap(), Life::Dead);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
        drop(RunLock::acquire(dir.path(), "r1", &owner(8)).unwrap());
    }

    /// What it left running has the lock for longer than anybody waits.
    #[test]
    fn the_name_of_an_owner_that_is_gone_is_learned_too() {
        let dir = tempfile::tempdir().unwrap();
        let gone = owner(i32::MAX.unsigned_abs());
        let _held = RunLock::acquire(dir.path(), "r1", &gone).unwrap();
        match RunLock::acquire(dir.path(), "r1", &owner(8)) {
            Err(NotTaken::Held(by)) => assert_eq!(by, Some(gone)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_file_left_by_a_dead_owner_is_no_lock() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("r1.lock"), serde_json::to_vec(&owner(7)).unwrap()).unwrap();
        assert_eq!(probe(dir.path(), "r1").unwrap(), Life::Dead);
        let held = RunLock::acquire(dir.path(), "r1", &owner(9)).unwrap();
        assert_eq!(probe(dir.path(), "r1").unwrap(), Life::Alive(Some(owner(9))));
        drop(held);
    }

    /// Probes hold the lock shared for a moment; no acquirer may take that for an owner.
    #[test]
    fn probes_never_refuse_an_acquirer_and_acquirers_never_share() {
        use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
        let dir = tempfile::tempdir().unwrap();
        let stop = AtomicBool::new(false);
        let inside = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        probe(dir.path(), "r").unwrap();
                        probe(dir.path(), "lonely").unwrap();
                    }
                });
            }
            let takers: Vec<_> = (0..2)
                .map(|pid| {
                    let (dir, inside) = (dir.path(), &inside);
                    scope.spawn(move || {
                        let mut won = 0;
                        for _ in 0..300 {
                            if let Ok(lock) = RunLock::acquire(dir, "r", &owner(pid)) {
                                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                                won += 1;
                                inside.fetch_sub(1, Ordering::SeqCst);
                                drop(lock);
                            }
                        }
                        won
                    })
                })
                .collect();
            for _ in 0..300 {
                drop(RunLock::acquire(dir.path(), "lonely", &owner(99)).expect("only probes are around"));
            }
            let won: u32 = takers.into_iter().map(|taker| taker.join().unwrap()).sum();
            assert!(won > 0);
            stop.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn folders_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let grown = make_private_dir(&dir.path().join("a/b")).unwrap();
        assert_eq!(grown, [dir.path().join("a"), dir.path().to_owned()], "each got an entry");
        assert!(make_private_dir(&dir.path().join("a/b")).unwrap().is_empty());
        for made in ["a", "a/b"] {
            assert_eq!(fs::metadata(dir.path().join(made)).unwrap().mode() & 0o777, 0o700);
        }
    }
}
