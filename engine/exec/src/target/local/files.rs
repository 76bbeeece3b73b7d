//! Files of this machine, blocking: every function may take as long as the disk or the network behind it takes,
//! so `local.rs` calls them on threads of their own. Paths are absolute. Errors name the path, say why, and have
//! the kind that a step can act on.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use runback_core::target::{FileAttributes, FileKind, FileStat, TargetError, TargetErrorKind};
use sha2::{Digest, Sha256};

type Did<T> = Result<T, TargetError>;

/// What a name of a directory entry may be long, in bytes, on every file system of Linux.
const NAME_MAX: usize = 255;

pub(super) fn fail(doing: &str, path: &Path, error: &io::Error) -> TargetError {
    use TargetErrorKind as Kind;
    let (kind, why) = match error.kind() {
        ErrorKind::NotFound => (Kind::NotFound, "it does not exist"),
        ErrorKind::PermissionDenied => (Kind::PermissionDenied, "permission denied"),
        ErrorKind::ReadOnlyFilesystem => (Kind::PermissionDenied, "the file system is read-only"),
        ErrorKind::StorageFull => (Kind::NoSpace, "no space left on the file system"),
        ErrorKind::QuotaExceeded => (Kind::NoSpace, "the disk quota is used up"),
        ErrorKind::FileTooLarge => (Kind::NoSpace, "it is larger than the file system or a limit allows"),
        ErrorKind::NotADirectory => (Kind::WrongKind, "a part of the path is not a directory"),
        ErrorKind::IsADirectory => (Kind::WrongKind, "it is a directory"),
        ErrorKind::DirectoryNotEmpty => (Kind::WrongKind, "the directory is not empty"),
        ErrorKind::AlreadyExists => (Kind::Other, "it exists already"),
        ErrorKind::CrossesDevices => (Kind::Other, "it lies on another file system"),
        ErrorKind::InvalidFilename => (Kind::Other, "the name is too long"),
        ErrorKind::ResourceBusy => (Kind::Other, "it is in use (a mount point, or somebody's working directory)"),
        _ => (Kind::Other, ""),
    };
    let why = if why.is_empty() {
        let text = error.to_string();
        text.split(" (os error").next().unwrap_or(&text).to_owned()
    } else {
        why.to_owned()
    };
    TargetError::new(kind, format!("cannot {doing} {}: {why}", path.display()))
}

fn wrong_kind(doing: &str, path: &Path, why: &str) -> TargetError {
    TargetError::new(TargetErrorKind::WrongKind, format!("cannot {doing} {}: {why}", path.display()))
}

/// Nothing there is fine.
fn unless_gone(doing: &str, path: &Path, done: io::Result<()>) -> Did<()> {
    match done {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        done => done.map_err(|e| fail(doing, path, &e)),
    }
}

pub(super) fn stat(path: &Path) -> Did<Option<FileStat>> {
    let meta = match path.symlink_metadata() {
        Ok(meta) => meta,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        Err(e) => return Err(fail("look at", path, &e)),
    };
    let kind = match meta.file_type() {
        t if t.is_file() => FileKind::File,
        t if t.is_dir() => FileKind::Dir,
        t if t.is_symlink() => FileKind::Symlink,
        _ => FileKind::Other,
    };
    let link = if kind == FileKind::Symlink {
        let to = fs::read_link(path).map_err(|e| fail("read the link", path, &e))?;
        let to = to.into_os_string().into_string();
        Some(to.map_err(|_| wrong_kind("read the link", path, "what it points to is not UTF-8"))?)
    } else {
        None
    };
    let mode = meta.mode() & 0o7777;
    Ok(Some(FileStat { kind, mode, uid: meta.uid(), gid: meta.gid(), size: meta.len(), link }))
}

/// A regular file, also behind a link. Anything else (a pipe, a device) could block for ever.
fn open_file(doing: &str, path: &Path) -> Did<(File, fs::Metadata)> {
    let meta = path.metadata().map_err(|e| fail(doing, path, &e))?;
    if !meta.is_file() {
        let why = if meta.is_dir() { "it is a directory" } else { "it is not a regular file" };
        return Err(wrong_kind(doing, path, why));
    }
    let file = File::open(path).map_err(|e| fail(doing, path, &e))?;
    Ok((file, meta))
}

pub(super) fn read(path: &Path, limit: u64) -> Did<Vec<u8>> {
    let (file, meta) = open_file("read", path)?;
    let too_large = |size: u64| {
        let message = format!("cannot read {}: it has {size} bytes, and at most {limit} are read here", path.display());
        TargetError::new(TargetErrorKind::Other, message)
    };
    if meta.len() > limit {
        return Err(too_large(meta.len()));
    }
    // Files of /proc say 0, and a file may grow: the limit holds for what is really read.
    let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or(0));
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(|e| fail("read", path, &e))?;
    let size = bytes.len() as u64;
    if size > limit { Err(too_large(size)) } else { Ok(bytes) }
}

pub(super) fn sha256(path: &Path) -> Did<String> {
    let (mut file, _) = open_file("read", path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => hash.update(&buffer[..n]),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(fail("read", path, &e)),
        }
    }
    let mut hex = String::with_capacity(64);
    for byte in hash.finalize() {
        use std::fmt::Write as _;
        let _ = write!(hex, "{byte:02x}");
    }
    Ok(hex)
}

/// Set when nobody waits for the work any more; what is not in place by then must not be put there later.
#[derive(Debug, Default)]
pub(super) struct Abandoned(AtomicBool);

impl Abandoned {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    fn check(&self, doing: &str, path: &Path) -> Did<()> {
        if self.0.load(Ordering::SeqCst) {
            let message = format!("cannot {doing} {}: it was given up meanwhile", path.display());
            return Err(TargetError::new(TargetErrorKind::Cancelled, message));
        }
        Ok(())
    }
}

/// A name beside `path` that nobody else uses, and by which a leftover of a crash is recognised:
/// `.NAME.runback-<pid>-<n>`.
fn temp_name(path: &Path) -> Option<PathBuf> {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let n = LAST.fetch_add(1, Ordering::Relaxed);
    let suffix = format!(".runback-{}-{n}", std::process::id());
    let name = path.file_name()?.as_bytes();
    let name = &name[..name.len().min(NAME_MAX - 1 - suffix.len())];
    Some(path.with_file_name(OsString::from_vec([b".", name, suffix.as_bytes()].concat())))
}

/// Removes temporary files beside `path` whose process is gone.
pub(super) fn clear_leftovers(path: &Path) -> Result<(), TargetError> {
    let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else { return Ok(()) };
    let entries = match fs::read_dir(parent) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(fail("look for leftovers in", parent, &e)),
    };
    for entry in entries.flatten() {
        let found = entry.file_name();
        let Some(pid) = leftover_pid(found.as_bytes(), name.as_bytes()) else { continue };
        if pid != std::process::id() && !Path::new("/proc").join(pid.to_string()).exists() {
            let leftover = entry.path();
            fs::remove_file(&leftover).map_err(|e| fail("remove the leftover", &leftover, &e))?;
        }
    }
    Ok(())
}

/// The process in a name that [`temp_name`] made for `name`.
fn leftover_pid(found: &[u8], name: &[u8]) -> Option<u32> {
    let found = std::str::from_utf8(found.strip_prefix(b".")?).ok()?;
    let (stem, ids) = found.rsplit_once(".runback-")?;
    let (pid, n) = ids.split_once('-')?;
    n.parse::<u64>().ok()?;
    // Long names are cut.
    let same = stem.as_bytes() == name || (found.len() + 1 >= NAME_MAX && name.starts_with(stem.as_bytes()));
    same.then(|| pid.parse().ok()).flatten()
}

/// A temporary file or link; removed when dropped unless it was put in its place.
struct Temp {
    path: PathBuf,
    placed: bool,
}

impl Temp {
    /// `make` must refuse an existing path. A leftover with the same name (of an earlier process with our pid) is
    /// passed over.
    fn new<T>(beside: &Path, make: impl Fn(&Path) -> io::Result<T>) -> io::Result<(Self, T)> {
        loop {
            let path = temp_name(beside).ok_or(ErrorKind::IsADirectory)?;
            match make(&path) {
                Ok(made) => return Ok((Self { path, placed: false }, made)),
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
        }
    }

    fn place(mut self, at: &Path) -> io::Result<()> {
        fs::rename(&self.path, at)?;
        self.placed = true;
        sync_parent(at)
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if !self.placed {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// Makes a rename or a removal in a directory durable. File systems that cannot (some network ones) say EINVAL.
fn sync_parent(path: &Path) -> io::Result<()> {
    match File::open(parent(path))?.sync_all() {
        Err(e) if e.kind() == ErrorKind::InvalidInput => Ok(()),
        done => done,
    }
}

/// Owner before mode: a change of owner clears the set-id bits.
fn apply(file: &File, attributes: &FileAttributes) -> io::Result<()> {
    if attributes.uid.is_some() || attributes.gid.is_some() {
        std::os::unix::fs::fchown(file, attributes.uid, attributes.gid)?;
    }
    match attributes.mode {
        Some(mode) => file.set_permissions(Permissions::from_mode(mode)),
        None => Ok(()),
    }
}

/// What the new file shall be: what is asked for, else what the replaced file has, apart from what a new file of
/// ours has anyway.
fn wanted(asked: &FileAttributes, replaced: Option<&fs::Metadata>, fresh: &fs::Metadata) -> FileAttributes {
    let keep = |own: Option<u32>, old: Option<u32>, new: u32| own.or(old).filter(|&id| id != new);
    FileAttributes {
        mode: asked.mode.or(replaced.map(|m| m.mode() & 0o7777)),
        uid: keep(asked.uid, replaced.map(MetadataExt::uid), fresh.uid()),
        gid: keep(asked.gid, replaced.map(MetadataExt::gid), fresh.gid()),
    }
}

/// A new file at `path` by way of a temporary one, durable when this returns.
fn replace(
    path: &Path,
    attributes: &FileAttributes,
    abandoned: &Abandoned,
    fill: impl Fn(&mut File) -> io::Result<()>,
) -> Did<()> {
    let failed = |e: io::Error| match e.kind() {
        // Of the temporary file: it is the folder that is missing.
        ErrorKind::NotFound => fail("write into", parent(path), &e),
        _ => fail("write", path, &e),
    };
    let replaced = match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => return Err(wrong_kind("write", path, "it is a directory")),
        Ok(meta) if meta.is_file() => Some(meta),
        Ok(meta) if meta.is_symlink() => None,
        Ok(_) => return Err(wrong_kind("write", path, "it is not a regular file")),
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        Err(e) => return Err(failed(e)),
    };
    // Nobody else may read it before it has its own mode. Where that is the default for new files, the kernel and
    // the umask say what it is.
    let first_mode = if attributes.mode.is_none() && replaced.is_none() { 0o666 } else { 0o600 };
    let create = |temp: &Path| OpenOptions::new().write(true).create_new(true).mode(first_mode).open(temp);
    let (temp, mut file) = Temp::new(path, create).map_err(failed)?;
    fill(&mut file).map_err(failed)?;
    let fresh = file.metadata().map_err(failed)?;
    let wanted = wanted(attributes, replaced.as_ref(), &fresh);
    apply(&file, &wanted).map_err(|e| attributes_failed(path, &wanted, &e))?;
    file.sync_all().map_err(failed)?;
    abandoned.check("write", path)?;
    temp.place(path).map_err(failed)
}

fn attributes_failed(path: &Path, wanted: &FileAttributes, error: &io::Error) -> TargetError {
    let mut what = Vec::new();
    if let Some(uid) = wanted.uid {
        what.push(format!("owner {uid}"));
    }
    if let Some(gid) = wanted.gid {
        what.push(format!("group {gid}"));
    }
    if let Some(mode) = wanted.mode {
        what.push(format!("mode {mode:04o}"));
    }
    let failed = fail(&format!("set {} of", what.join(", ")), path, error);
    if failed.kind == TargetErrorKind::PermissionDenied {
        return failed.help("only root gives files to other owners; run as root, or leave owner and group as they are");
    }
    failed
}

pub(super) fn write(path: &Path, bytes: &[u8], attributes: &FileAttributes, abandoned: &Abandoned) -> Did<()> {
    replace(path, attributes, abandoned, |file| file.write_all(bytes))
}

pub(super) fn copy(from: &Path, to: &Path, abandoned: &Abandoned) -> Did<()> {
    let (source, meta) = open_file("copy", from)?;
    let same = to.metadata().is_ok_and(|m| m.dev() == meta.dev() && m.ino() == meta.ino());
    if same && !to.is_symlink() {
        return Ok(());
    }
    let attributes = FileAttributes { mode: Some(meta.mode() & 0o7777), uid: Some(meta.uid()), gid: Some(meta.gid()) };
    // By the kernel where it can (a reflink costs nothing).
    replace(to, &attributes, abandoned, |file| io::copy(&mut &source, file).map(drop))
}

pub(super) fn set_attributes(path: &Path, attributes: &FileAttributes) -> Did<()> {
    let meta = path.symlink_metadata().map_err(|e| fail("set the mode or owner of", path, &e))?;
    if meta.is_symlink() {
        let why = "it is a symlink, which has no mode of its own";
        return Err(wrong_kind("set the mode or owner of", path, why).help("name the file that it points to"));
    }
    let failed = |e: io::Error| attributes_failed(path, attributes, &e);
    if attributes.uid.is_some() || attributes.gid.is_some() {
        std::os::unix::fs::lchown(path, attributes.uid, attributes.gid).map_err(failed)?;
    }
    match attributes.mode {
        Some(mode) => fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed),
        // A change of owner took the set-id bits, which nobody asked for.
        None if meta.mode() & 0o6000 != 0 && meta.is_file() => {
            fs::set_permissions(path, Permissions::from_mode(meta.mode() & 0o7777)).map_err(failed)
        }
        None => Ok(()),
    }
}

pub(super) fn symlink(link: &Path, points_to: &str) -> Did<()> {
    if link.symlink_metadata().is_ok_and(|m| m.is_dir()) {
        return Err(wrong_kind("make the link", link, "it is a directory"));
    }
    let failed = |e: io::Error| match e.kind() {
        ErrorKind::NotFound => fail("make a link in", parent(link), &e),
        _ => fail("make the link", link, &e),
    };
    let (temp, ()) = Temp::new(link, |temp| std::os::unix::fs::symlink(points_to, temp)).map_err(failed)?;
    temp.place(link).map_err(failed)
}

pub(super) fn create_dir(path: &Path, mode: Option<u32>) -> Did<()> {
    let failed = |e: io::Error| match e.kind() {
        ErrorKind::NotFound => fail("create a directory in", parent(path), &e),
        _ => fail("create the directory", path, &e),
    };
    // Never more open than it will be, not even for a moment.
    fs::DirBuilder::new().mode(mode.map_or(0o777, |m| m & 0o700)).create(path).map_err(failed)?;
    if let Some(mode) = mode {
        fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed)?;
    }
    sync_parent(path).map_err(failed)
}

pub(super) fn list(path: &Path) -> Did<Vec<String>> {
    let failed = |e: io::Error| fail("list", path, &e);
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        names.push(name.into_string().unwrap_or_else(|name| format!("{}/", name.display())));
    }
    names.sort();
    Ok(names)
}

/// The folder of the path, which nobody else of those who ask holds now. None = somebody does. A file system that has no
/// such locks is an error.
pub(super) fn lock_folder(path: &Path) -> io::Result<Option<File>> {
    let folder = File::open(parent(path))?;
    match folder.try_lock() {
        Ok(()) => Ok(Some(folder)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(e)) => Err(e),
    }
}

pub(super) fn rename(from: &Path, to: &Path) -> Did<()> {
    let failed = |e: io::Error| {
        let doing = format!("rename {} to", from.display());
        match e.kind() {
            ErrorKind::NotFound if from.symlink_metadata().is_err() => fail("rename", from, &e),
            ErrorKind::NotFound => fail(&format!("rename {} into", from.display()), parent(to), &e),
            ErrorKind::CrossesDevices => fail(&doing, to, &e).help("copy it, then remove the old one"),
            _ => fail(&doing, to, &e),
        }
    };
    fs::rename(from, to).map_err(failed)?;
    sync_parent(to).map_err(failed)?;
    if parent(from) == parent(to) { Ok(()) } else { sync_parent(from).map_err(failed) }
}

pub(super) fn remove_file(path: &Path) -> Did<()> {
    unless_gone("remove", path, fs::remove_file(path))
}

pub(super) fn remove_dir(path: &Path) -> Did<()> {
    unless_gone("remove", path, fs::remove_dir(path))
}

pub(super) fn remove_tree(path: &Path) -> Did<()> {
    match path.symlink_metadata() {
        Err(e) => return unless_gone("remove", path, Err(e)),
        Ok(meta) if !meta.is_dir() => return Err(wrong_kind("remove", path, "it is not a directory")),
        Ok(_) => {}
    }
    if fs::canonicalize(path).is_ok_and(|whole| whole == Path::new("/")) {
        let message = "cannot remove /: that is the whole machine";
        return Err(TargetError::new(TargetErrorKind::Refused, message));
    }
    // Goes by directory descriptors, so a link that somebody swaps in meanwhile is removed and not followed.
    unless_gone("remove", path, fs::remove_dir_all(path))
}

/// Of the nearest folder that exists: what is asked about is often still to be made.
pub(super) fn free_space(path: &Path) -> Did<u64> {
    let mut at = path;
    loop {
        match rustix::fs::statvfs(at) {
            Ok(stat) => return Ok(stat.f_bavail.saturating_mul(stat.f_frsize)),
            Err(rustix::io::Errno::NOENT) if at.parent().is_some() => at = parent(at),
            Err(e) => return Err(fail("ask for the free space at", at, &e.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_full_disk_is_told_as_such() {
        for (number, kind, why) in [
            (libc::ENOSPC, TargetErrorKind::NoSpace, "no space left on the file system"),
            (libc::EDQUOT, TargetErrorKind::NoSpace, "the disk quota is used up"),
            (libc::EROFS, TargetErrorKind::PermissionDenied, "the file system is read-only"),
            (libc::EIO, TargetErrorKind::Other, "Input/output error"),
        ] {
            let e = fail("write", Path::new("/a"), &io::Error::from_raw_os_error(number));
            assert_eq!((e.kind, e.message), (kind, format!("cannot write /a: {why}")));
        }
    }

    #[test]
    fn a_name_that_is_not_utf8_is_listed_and_cannot_be_mistaken() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(OsString::from_vec(b"caf\xe9".to_vec())), "").unwrap();
        fs::write(dir.path().join("tea"), "").unwrap();
        assert_eq!(list(dir.path()).unwrap(), ["caf\u{fffd}/", "tea"]);
    }

    #[test]
    fn one_at_a_time_has_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock_folder(&dir.path().join("a")).unwrap();
        assert!(held.is_some());
        assert!(lock_folder(&dir.path().join("b")).unwrap().is_none());
        drop(held);
        assert!(lock_folder(&dir.path().join("b")).unwrap().is_some());
        assert!(lock_folder(&dir.path().join("gone/b")).is_err());
    }

    #[test]
    fn a_failed_fill_leaves_the_old_file_and_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "old").unwrap();
        let full = |_: &mut File| Err(io::Error::from_raw_os_error(libc::ENOSPC));
        let e = replace(&path, &FileAttributes::default(), &Abandoned::default(), full).unwrap_err();
        assert_eq!(e.kind, TargetErrorKind::NoSpace);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_was_given_up_is_not_put_in_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let abandoned = Abandoned::default();
        abandoned.set();
        let e = write(&path, b"late", &FileAttributes::default(), &abandoned).unwrap_err();
        assert_eq!(e.kind, TargetErrorKind::Cancelled);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_leftover_is_recognised_by_its_name() {
        let temp = temp_name(Path::new("/etc/motd")).unwrap();
        let name = temp.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(name.starts_with(&format!(".motd.runback-{}-", std::process::id())), "{name}");
        assert_eq!(temp.parent(), Some(Path::new("/etc")));
        assert!(temp_name(Path::new("/")).is_none());
        let name = temp.file_name().unwrap().as_bytes();
        assert_eq!(leftover_pid(name, b"motd"), Some(std::process::id()));
        assert_eq!(leftover_pid(name, b"mot"), None);
        assert_eq!(leftover_pid(b".motd.runback-r1-step.bak", b"motd"), None, "a backup is no leftover");
    }
}
