//! This machine as a target, through `std`. Counts the operations that change something, and fails the one that it is
//! told to.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use runback_core::target::{
    Command, Detached, DetachedState, Exit, FileAttributes, FileKind, FileStat, Stream, Target, TargetError,
    TargetErrorKind, Watch,
};

use super::host::TestHost;

/// How an operation that the test picked fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failing {
    /// It did nothing, and nobody knows: the connection was lost.
    Before,
    /// It did nothing, and says so.
    Refused,
    /// It did all, and its answer was lost.
    After,
}

/// This machine through `std`. Counts operations that change something, and fails the one that it is told to.
#[derive(Debug)]
pub(crate) struct TestTarget {
    pub(super) base: PathBuf,
    /// What a folder's mode says counts, though tests run as root: who may not search it sees nothing below.
    pub(crate) unprivileged: bool,
    /// False makes it behave like a remote one: no default folder, paths are taken as they are.
    pub(crate) local: bool,
    failing: Mutex<Option<(usize, Failing)>>,
    pub(crate) changes: Mutex<Vec<String>>,
    pub(crate) commands: Mutex<Vec<Command>>,
    /// The paths that [`Target::clear_leftovers`] was called for.
    pub(crate) cleared: Mutex<Vec<String>>,
    /// Programs that are not there, such as `bash`.
    pub(crate) missing: Mutex<Vec<String>>,
    /// How many looks from now somebody else adds a line to a file, the file, and the line.
    meddling: Mutex<Option<(usize, String, String)>>,
}

type Did<T> = Result<T, TargetError>;

impl TestTarget {
    pub(super) fn new(base: PathBuf) -> Self {
        Self {
            base,
            unprivileged: false,
            local: true,
            failing: Mutex::default(),
            changes: Mutex::default(),
            commands: Mutex::default(),
            cleared: Mutex::default(),
            missing: Mutex::default(),
            meddling: Mutex::default(),
        }
    }

    /// Right before the `n`-th look (from 0) at any file, somebody else adds a line to this one.
    pub(crate) fn meddle_at(&self, n: usize, path: String, line: &str) {
        *self.meddling.lock().unwrap() = Some((n, path, line.to_owned()));
    }

    /// Not looked that often.
    pub(crate) fn was_not_meddled_with(&self) -> bool {
        self.meddling.lock().unwrap().is_some()
    }

    fn look(&self) {
        let mut meddling = self.meddling.lock().unwrap();
        match meddling.take() {
            Some((0, path, line)) => {
                let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
                file.write_all(line.as_bytes()).unwrap();
            }
            Some((n, path, line)) => *meddling = Some((n - 1, path, line)),
            None => {}
        }
    }

    fn seen(&self, path: &str) -> Did<()> {
        let above =
            Path::new(path).ancestors().skip(1).take_while(|dir| self.unprivileged && dir.starts_with(&self.base));
        let closed = |dir: &Path| std::fs::metadata(dir).is_ok_and(|meta| meta.mode() & 0o100 == 0);
        match above.into_iter().find(|dir| closed(dir)) {
            Some(dir) => Err(TargetError::new(TargetErrorKind::PermissionDenied, format!("{}: closed", dir.display()))),
            None => Ok(()),
        }
    }

    /// Fails the `n`-th operation from now (from 0) that changes something, and every one after it.
    pub(crate) fn fail_at(&self, n: usize, how: Failing) {
        *self.failing.lock().unwrap() = Some((self.changes.lock().unwrap().len() + n, how));
    }

    pub(crate) fn heal(&self) {
        *self.failing.lock().unwrap() = None;
    }

    fn change<T>(&self, what: &str, work: impl FnOnce() -> Did<T>) -> Did<T> {
        let n = {
            let mut changes = self.changes.lock().unwrap();
            changes.push(what.to_owned());
            changes.len() - 1
        };
        let broken = || TargetError::new(TargetErrorKind::Connection, format!("{what}: the test broke it"));
        match *self.failing.lock().unwrap() {
            Some((at, Failing::Before)) if n >= at => Err(broken()),
            Some((at, Failing::Refused)) if n >= at => {
                Err(TargetError::new(TargetErrorKind::PermissionDenied, format!("{what}: the test refused it")))
            }
            Some((at, Failing::After)) if n == at => work().and(Err(broken())),
            Some((at, Failing::After)) if n > at => Err(broken()),
            _ => work(),
        }
    }

    fn start(&self, command: &Command) -> Did<std::process::Child> {
        let program = &command.argv[0];
        let not_found = || TargetError::new(TargetErrorKind::CommandNotFound, format!("{program}: command not found"));
        if self.missing.lock().unwrap().contains(program) {
            return Err(not_found());
        }
        let pipe = std::process::Stdio::piped;
        let mut start = std::process::Command::new(program);
        start.args(&command.argv[1..]).envs(&command.env).process_group(0);
        start.current_dir(command.cwd.as_ref().map_or(self.base.clone(), PathBuf::from));
        start.stdin(if command.stdin.is_some() { pipe() } else { std::process::Stdio::null() });
        start.stdout(pipe()).stderr(pipe());
        start.spawn().map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => not_found(),
            _ => io(program, &e),
        })
    }
}

fn io(path: &str, e: &std::io::Error) -> TargetError {
    let kind = match e.kind() {
        std::io::ErrorKind::NotFound => TargetErrorKind::NotFound,
        std::io::ErrorKind::PermissionDenied => TargetErrorKind::PermissionDenied,
        std::io::ErrorKind::StorageFull => TargetErrorKind::NoSpace,
        std::io::ErrorKind::NotADirectory
        | std::io::ErrorKind::IsADirectory
        | std::io::ErrorKind::AlreadyExists
        | std::io::ErrorKind::DirectoryNotEmpty => TargetErrorKind::WrongKind,
        _ => TargetErrorKind::Other,
    };
    TargetError::new(kind, format!("{path}: {e}"))
}

fn gone_is_fine(path: &str, done: std::io::Result<()>) -> Did<()> {
    match done {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io(path, &e)),
        _ => Ok(()),
    }
}

fn attribute(path: &str, a: &FileAttributes) -> Did<()> {
    let now = std::fs::metadata(path).map_err(|e| io(path, &e))?;
    let differs = |want: Option<u32>, is: u32| want.filter(|w| *w != is);
    let (uid, gid) = (differs(a.uid, now.uid()), differs(a.gid, now.gid()));
    if uid.is_some() || gid.is_some() {
        std::os::unix::fs::chown(path, uid, gid).map_err(|e| io(path, &e))?;
    }
    if let Some(mode) = a.mode {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(|e| io(path, &e))?;
    }
    Ok(())
}

async fn finish(child: &mut std::process::Child, command: &Command, watch: &dyn Watch) -> Did<Exit> {
    let pid = child.id();
    let (mut out, mut err, mut into) = (child.stdout.take(), child.stderr.take(), child.stdin.take());
    let stdin = command.stdin.clone().unwrap_or_default();
    let feeder = std::thread::spawn(move || into.as_mut().map(|i| i.write_all(&stdin)));
    let read = |mut pipe: Box<dyn Read + Send>| {
        tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::new();
            pipe.read_to_end(&mut bytes).map(|_| bytes)
        })
    };
    let (out, err) = (read(Box::new(out.take().unwrap())), read(Box::new(err.take().unwrap())));
    let both = async { (out.await.unwrap().unwrap(), err.await.unwrap().unwrap()) };
    let stop = || {
        let group = format!("-{pid}");
        let _ = std::process::Command::new("kill").args(["-KILL", "--", &group]).status();
    };
    let bound = command.timeout.unwrap_or(Duration::from_secs(3600));
    let (out, err) = tokio::select! {
        both = both => both,
        () = watch.stopped() => {
            stop();
            let _ = child.wait();
            return Err(TargetError::new(TargetErrorKind::Cancelled, "told to stop"));
        }
        () = tokio::time::sleep(bound) => {
            stop();
            let _ = child.wait();
            return Err(TargetError::new(TargetErrorKind::Timeout, format!("{}: too slow", command.argv[0])));
        }
    };
    let _ = feeder.join();
    let status = child.wait().unwrap();
    if command.log_output {
        watch.output(Stream::Stdout, &out);
        watch.output(Stream::Stderr, &err);
    }
    let kept = out.len().min(command.keep_stdout);
    Ok(Exit {
        code: status.code(),
        signal: status.signal(),
        stdout: out[..kept].to_vec(),
        stdout_cut: kept < out.len(),
        stderr_tail: err[err.len().saturating_sub(4096)..].to_vec(),
    })
}

#[async_trait::async_trait]
impl Target for TestTarget {
    fn name(&self) -> &str {
        if self.local { "local" } else { "far" }
    }

    fn is_local(&self) -> bool {
        self.local
    }

    async fn run(&self, command: &Command, watch: &dyn Watch) -> Did<Exit> {
        self.commands.lock().unwrap().push(command.clone());
        let mut child = self.start(command)?;
        finish(&mut child, command, watch).await
    }

    /// Runs it to its end at once, and keeps its records.
    async fn start_detached(&self, command: &Command, dir: &str) -> Did<Detached> {
        self.commands.lock().unwrap().push(command.clone());
        std::fs::create_dir_all(dir).map_err(|e| io(dir, &e))?;
        let mut child = self.start(command)?;
        let host = TestHost::default();
        let exit = finish(&mut child, &Command { log_output: true, ..command.clone() }, &host).await?;
        let at = |name: &str| Path::new(dir).join(name);
        std::fs::write(at("out"), host.stdout.lock().unwrap().as_slice()).unwrap();
        std::fs::write(at("err"), host.stderr.lock().unwrap().as_slice()).unwrap();
        std::fs::write(at("code"), exit.code.unwrap_or(-1).to_string()).unwrap();
        Ok(Detached { dir: dir.to_owned(), pid: child.id().cast_signed(), identity: "test".to_owned() })
    }

    async fn detached_state(&self, detached: &Detached) -> Did<DetachedState> {
        let ended = Path::new(&detached.dir).join("code").exists();
        Ok(if ended { DetachedState::Ended } else { DetachedState::Gone })
    }

    async fn forget_detached(&self, _detached: &Detached) -> Did<()> {
        Ok(())
    }

    async fn attach(&self, detached: &Detached, command: &Command, watch: &dyn Watch) -> Did<Exit> {
        let at = |name: &str| Path::new(&detached.dir).join(name);
        let (out, err) = (std::fs::read(at("out")).unwrap(), std::fs::read(at("err")).unwrap());
        let code: i32 = std::fs::read_to_string(at("code")).unwrap().parse().unwrap();
        watch.output(Stream::Stdout, &out);
        watch.output(Stream::Stderr, &err);
        std::fs::remove_dir_all(&detached.dir).unwrap();
        let kept = out.len().min(command.keep_stdout);
        Ok(Exit {
            code: (code >= 0).then_some(code),
            signal: None,
            stdout: out[..kept].to_vec(),
            stdout_cut: kept < out.len(),
            stderr_tail: err,
        })
    }

    fn detached_dir(&self, run: &str, step: &str, attempt: u32) -> String {
        let step = step.replace(['/', '[', ']'], "_");
        if !self.local {
            return format!("~/.runback/{run}/{step}-{attempt}");
        }
        self.base.join(format!(".records/{run}/{step}-{attempt}")).to_string_lossy().into_owned()
    }

    async fn stat(&self, path: &str) -> Did<Option<FileStat>> {
        self.look();
        self.seen(path)?;
        let meta = match std::fs::symlink_metadata(path) {
            Ok(meta) => meta,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io(path, &e)),
        };
        let kind = match meta.file_type() {
            t if t.is_file() => FileKind::File,
            t if t.is_dir() => FileKind::Dir,
            t if t.is_symlink() => FileKind::Symlink,
            _ => FileKind::Other,
        };
        let link = (kind == FileKind::Symlink).then(|| std::fs::read_link(path).unwrap());
        Ok(Some(FileStat {
            kind,
            mode: meta.mode() & 0o7777,
            uid: meta.uid(),
            gid: meta.gid(),
            size: meta.len(),
            link: link.map(|l| l.to_string_lossy().into_owned()),
        }))
    }

    async fn read(&self, path: &str, limit: u64) -> Did<Vec<u8>> {
        self.look();
        let bytes = std::fs::read(path).map_err(|e| io(path, &e))?;
        if bytes.len() as u64 > limit {
            let text = format!("{path} has {} bytes, more than {limit}", bytes.len());
            return Err(TargetError::new(TargetErrorKind::Other, text));
        }
        Ok(bytes)
    }

    async fn sha256(&self, path: &str) -> Did<String> {
        self.look();
        let bytes = std::fs::read(path).map_err(|e| io(path, &e))?;
        Ok(crate::file::sha256_hex(&bytes))
    }

    async fn write(&self, path: &str, bytes: &[u8], attributes: &FileAttributes) -> Did<()> {
        self.change(&format!("write {path}"), || {
            let before = std::fs::symlink_metadata(path).ok().filter(std::fs::Metadata::is_file);
            let temp = format!("{path}.test-temp");
            std::fs::write(&temp, bytes).map_err(|e| io(path, &e))?;
            let keep = |new: Option<u32>, old: fn(&std::fs::Metadata) -> u32| new.or(before.as_ref().map(old));
            let all = FileAttributes {
                mode: keep(attributes.mode, |m| m.mode() & 0o7777).or(Some(0o644)),
                uid: keep(attributes.uid, MetadataExt::uid),
                gid: keep(attributes.gid, MetadataExt::gid),
            };
            attribute(&temp, &all).inspect_err(|_| drop(std::fs::remove_file(&temp)))?;
            std::fs::rename(&temp, path).map_err(|e| {
                let _ = std::fs::remove_file(&temp);
                io(path, &e)
            })
        })
    }

    async fn clear_leftovers(&self, path: &str) -> Did<()> {
        self.cleared.lock().unwrap().push(path.to_owned());
        Ok(())
    }

    async fn set_attributes(&self, path: &str, attributes: &FileAttributes) -> Did<()> {
        self.seen(path)?;
        self.change(&format!("set_attributes {path}"), || attribute(path, attributes))
    }

    async fn symlink(&self, link: &str, points_to: &str) -> Did<()> {
        self.change(&format!("symlink {link}"), || {
            let temp = format!("{link}.test-temp");
            std::os::unix::fs::symlink(points_to, &temp).map_err(|e| io(link, &e))?;
            std::fs::rename(&temp, link).map_err(|e| {
                let _ = std::fs::remove_file(&temp);
                io(link, &e)
            })
        })
    }

    async fn create_dir(&self, path: &str, mode: Option<u32>) -> Did<()> {
        self.change(&format!("create_dir {path}"), || {
            std::fs::create_dir(path).map_err(|e| io(path, &e))?;
            attribute(path, &FileAttributes { mode, ..FileAttributes::default() })
        })
    }

    async fn list(&self, path: &str) -> Did<Vec<String>> {
        let entries = std::fs::read_dir(path).map_err(|e| io(path, &e))?;
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        Ok(names)
    }

    async fn rename(&self, from: &str, to: &str) -> Did<()> {
        self.change(&format!("rename {from} {to}"), || std::fs::rename(from, to).map_err(|e| io(from, &e)))
    }

    async fn copy(&self, from: &str, to: &str) -> Did<()> {
        self.change(&format!("copy {from} {to}"), || {
            let meta = std::fs::metadata(from).map_err(|e| io(from, &e))?;
            std::fs::copy(from, to).map_err(|e| io(to, &e))?;
            let (mode, uid, gid) = (Some(meta.mode() & 0o7777), Some(meta.uid()), Some(meta.gid()));
            attribute(to, &FileAttributes { mode, uid, gid })
        })
    }

    async fn remove_file(&self, path: &str) -> Did<()> {
        self.change(&format!("remove_file {path}"), || gone_is_fine(path, std::fs::remove_file(path)))
    }

    async fn remove_dir(&self, path: &str) -> Did<()> {
        self.change(&format!("remove_dir {path}"), || gone_is_fine(path, std::fs::remove_dir(path)))
    }

    async fn remove_tree(&self, path: &str) -> Did<()> {
        self.change(&format!("remove_tree {path}"), || gone_is_fine(path, std::fs::remove_dir_all(path)))
    }

    async fn free_space(&self, path: &str) -> Did<u64> {
        let out = std::process::Command::new("stat").args(["-f", "-c", "%a %S", path]).output().unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        let numbers: Vec<u64> = text.split_whitespace().map(|n| n.parse().unwrap()).collect();
        Ok(numbers[0] * numbers[1])
    }

    async fn user_id(&self, name: &str) -> Did<u32> {
        id("-u", name)
    }

    async fn group_id(&self, name: &str) -> Did<u32> {
        name.parse().or_else(|_| {
            let out = std::process::Command::new("getent").args(["group", name]).output().unwrap();
            let text = String::from_utf8_lossy(&out.stdout).into_owned();
            let id = text.split(':').nth(2).and_then(|n| n.parse().ok());
            id.ok_or_else(|| TargetError::new(TargetErrorKind::NotFound, format!("no group `{name}`")))
        })
    }
}

fn id(flag: &str, name: &str) -> Did<u32> {
    name.parse().or_else(|_| {
        let out = std::process::Command::new("id").args([flag, name]).output().unwrap();
        let id = String::from_utf8_lossy(&out.stdout).trim().parse().ok();
        id.ok_or_else(|| TargetError::new(TargetErrorKind::NotFound, format!("no user `{name}`")))
    })
}
