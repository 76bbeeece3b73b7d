//! Every file method, and every way it fails that a test can make on any machine.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use runback_core::target::{FileAttributes, FileKind, Target, TargetError, TargetErrorKind as Kind};
use runback_exec::target::LocalTarget;

use super::target;

struct Place {
    dir: tempfile::TempDir,
    target: LocalTarget,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let target = target(dir.path());
        Self { dir, target }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(self.dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    async fn write(&self, name: &str, bytes: &[u8], mode: Option<u32>) -> Result<(), TargetError> {
        self.target.write(name, bytes, &FileAttributes { mode, ..FileAttributes::default() }).await
    }

    fn mode(&self, name: &str) -> u32 {
        self.at(name).symlink_metadata().unwrap().permissions().mode() & 0o7777
    }
}

#[track_caller]
fn fails<T: std::fmt::Debug>(result: Result<T, TargetError>, kind: Kind, path: &Path, why: &str) -> TargetError {
    let e = result.unwrap_err();
    assert_eq!(e.kind, kind, "{e}");
    assert!(e.message.contains(path.to_str().unwrap()), "{e}");
    assert!(e.message.ends_with(why), "{e}");
    e
}

#[tokio::test]
async fn stat_tells_the_link_itself() {
    let p = Place::new();
    p.write("file", b"12345", Some(0o640)).await.unwrap();
    p.target.symlink("link", "file").await.unwrap();
    p.target.symlink("dangling", "nowhere").await.unwrap();
    p.target.create_dir("dir", Some(0o1750)).await.unwrap();

    let file = p.target.stat("file").await.unwrap().unwrap();
    assert_eq!((file.kind, file.mode, file.size, file.link), (FileKind::File, 0o640, 5, None));
    let meta = p.at("file").metadata().unwrap();
    assert_eq!((file.uid, file.gid), (meta.uid(), meta.gid()));
    let link = p.target.stat("link").await.unwrap().unwrap();
    assert_eq!((link.kind, link.link.as_deref()), (FileKind::Symlink, Some("file")));
    let dangling = p.target.stat("dangling").await.unwrap().unwrap();
    assert_eq!(dangling.link.as_deref(), Some("nowhere"));
    let dir = p.target.stat("dir").await.unwrap().unwrap();
    assert_eq!((dir.kind, dir.mode), (FileKind::Dir, 0o1750));
    assert_eq!(p.target.stat("/dev/null").await.unwrap().unwrap().kind, FileKind::Other);
    assert_eq!(p.target.stat("absent").await.unwrap(), None);
    assert_eq!(p.target.stat("file/below").await.unwrap(), None);
    fails(p.target.stat(&"x".repeat(300)).await, Kind::Other, &p.at("xxx"), "the name is too long");
}

#[tokio::test]
async fn reading() {
    let p = Place::new();
    p.write("file", b"12345", None).await.unwrap();
    assert_eq!(p.target.read("file", 5).await.unwrap(), b"12345");
    let why = "it has 5 bytes, and at most 4 are read here";
    fails(p.target.read("file", 4).await, Kind::Other, &p.at("file"), why);
    // The kernel says 0 for its size; the limit holds all the same.
    assert!(!p.target.read("/proc/self/status", 1 << 20).await.unwrap().is_empty());
    let small = p.target.read("/proc/self/status", 10).await.unwrap_err();
    assert!(small.message.ends_with("at most 10 are read here"), "{small}");
    p.target.symlink("link", "file").await.unwrap();
    assert_eq!(p.target.read("link", 9).await.unwrap(), b"12345");
    fails(p.target.read("absent", 9).await, Kind::NotFound, &p.at("absent"), "it does not exist");
    fails(p.target.read(".", 9).await, Kind::WrongKind, p.dir.path(), "it is a directory");
    fails(p.target.read("file/below", 9).await, Kind::WrongKind, &p.at("file/below"), "is not a directory");
    // One that nobody writes to would be waited for, for ever.
    rustix::fs::mknodat(rustix::fs::CWD, p.at("fifo"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    fails(p.target.read("fifo", 9).await, Kind::WrongKind, &p.at("fifo"), "it is not a regular file");
    fails(p.target.sha256("fifo").await, Kind::WrongKind, &p.at("fifo"), "it is not a regular file");
}

#[tokio::test]
async fn hashing() {
    let p = Place::new();
    p.write("abc", b"abc", None).await.unwrap();
    let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(p.target.sha256("abc").await.unwrap(), known);
    p.write("large", &vec![b'a'; 1_000_000], None).await.unwrap();
    let known = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";
    assert_eq!(p.target.sha256("large").await.unwrap(), known);
    fails(p.target.sha256("absent").await, Kind::NotFound, &p.at("absent"), "it does not exist");
}

#[tokio::test]
async fn writing_keeps_or_sets_the_mode() {
    let p = Place::new();
    p.write("new", b"1", None).await.unwrap();
    fs::write(p.at("by-hand"), "1").unwrap();
    assert_eq!(p.mode("new"), p.mode("by-hand"), "the default of a new file");
    p.write("secret", b"1", Some(0o600)).await.unwrap();
    p.write("secret", b"2", None).await.unwrap();
    assert_eq!(p.mode("secret"), 0o600, "what the replaced file has");
    p.write("secret", b"3", Some(0o4755)).await.unwrap();
    assert_eq!((p.mode("secret"), fs::read(p.at("secret")).unwrap()), (0o4755, b"3".to_vec()));
    // The link itself is replaced, not the file behind it.
    p.target.symlink("link", "secret").await.unwrap();
    p.write("link", b"4", None).await.unwrap();
    assert!(p.at("link").symlink_metadata().unwrap().is_file());
    assert_eq!(fs::read(p.at("secret")).unwrap(), b"3");
    // A name as long as names can be.
    let long = "n".repeat(255);
    p.write(&long, b"5", None).await.unwrap();
    assert_eq!(p.names(), ["by-hand", "link", "new", long.as_str(), "secret"], "no temporary file is left");
}

#[tokio::test]
async fn writing_says_what_is_wrong_and_leaves_nothing() {
    let p = Place::new();
    p.target.create_dir("dir", None).await.unwrap();
    p.write("file", b"old", None).await.unwrap();
    fails(p.write("dir", b"x", None).await, Kind::WrongKind, &p.at("dir"), "it is a directory");
    fails(p.write("absent/file", b"x", None).await, Kind::NotFound, &p.at("absent"), "it does not exist");
    fails(p.write("file/x", b"x", None).await, Kind::WrongKind, &p.at("file/x"), "is not a directory");
    fails(p.write("/sys/runback", b"x", None).await, Kind::PermissionDenied, Path::new("/sys"), "");
    rustix::fs::mknodat(rustix::fs::CWD, p.at("fifo"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    fails(p.write("fifo", b"x", None).await, Kind::WrongKind, &p.at("fifo"), "it is not a regular file");
    assert_eq!(p.names(), ["dir", "fifo", "file"]);
    assert_eq!(fs::read(p.at("file")).unwrap(), b"old");
}

#[tokio::test]
async fn no_reader_ever_sees_a_half_of_a_write() {
    let p = Place::new();
    let versions = [vec![b'a'; 300_000], vec![b'b'; 200_000]];
    p.write("file", &versions[0], None).await.unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (file, done, versions) = (p.at("file"), Arc::clone(&done), versions.clone());
            std::thread::spawn(move || {
                let mut looks = 0;
                while !done.load(Ordering::Relaxed) || looks == 0 {
                    let seen = fs::read(&file).unwrap();
                    assert!(versions.contains(&seen), "{} bytes", seen.len());
                    looks += 1;
                }
            })
        })
        .collect();
    for i in 0..50 {
        p.write("file", &versions[i % 2], None).await.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.join().unwrap();
    }
    assert_eq!(p.names(), ["file"]);
}

#[tokio::test]
async fn attributes() {
    let p = Place::new();
    p.write("file", b"x", Some(0o600)).await.unwrap();
    let mode = |mode| FileAttributes { mode: Some(mode), ..FileAttributes::default() };
    p.target.set_attributes("file", &mode(0o2750)).await.unwrap();
    assert_eq!(p.mode("file"), 0o2750);
    let meta = p.at("file").metadata().unwrap();
    let owner = FileAttributes { mode: None, uid: Some(meta.uid()), gid: Some(meta.gid()) };
    p.target.set_attributes("file", &owner).await.unwrap();
    assert_eq!(p.mode("file"), 0o2750, "a change of owner keeps the mode");
    fails(p.target.set_attributes("absent", &mode(0o600)).await, Kind::NotFound, &p.at("absent"), "not exist");
    p.target.symlink("link", "file").await.unwrap();
    let why = "it is a symlink, which has no mode of its own";
    fails(p.target.set_attributes("link", &mode(0o600)).await, Kind::WrongKind, &p.at("link"), why);
    assert_eq!(p.mode("file"), 0o2750);
}

#[tokio::test]
async fn owners_are_kept_or_given_by_root_and_refused_to_others() {
    let p = Place::new();
    let other = FileAttributes { mode: Some(0o640), uid: Some(12_345), gid: Some(54_321) };
    let written = p.target.write("file", b"x", &other).await;
    if rustix::process::geteuid().is_root() {
        written.unwrap();
        p.write("file", b"y", None).await.unwrap();
        p.target.copy("file", "copy").await.unwrap();
        for name in ["file", "copy"] {
            let meta = p.at(name).metadata().unwrap();
            assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (12_345, 54_321, 0o640), "{name}");
        }
    } else {
        let e = written.unwrap_err();
        assert_eq!(e.kind, Kind::PermissionDenied);
        assert!(e.message.starts_with("cannot set owner 12345, group 54321, mode 0640 of "), "{e}");
        assert_eq!(p.names(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_symlink_is_switched_in_one_go() {
    let p = Place::new();
    p.target.create_dir("one", None).await.unwrap();
    p.target.create_dir("two", None).await.unwrap();
    p.target.symlink("current", "one").await.unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let (link, stop) = (p.at("current"), Arc::clone(&done));
    let reader = std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            assert!(link.metadata().unwrap().is_dir());
        }
    });
    for i in 0..100 {
        p.target.symlink("current", ["two", "one"][i % 2]).await.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    reader.join().unwrap();
    assert_eq!(fs::read_link(p.at("current")).unwrap(), Path::new("one"));
    assert_eq!(p.names(), ["current", "one", "two"]);

    fails(p.target.symlink("one", "two").await, Kind::WrongKind, &p.at("one"), "it is a directory");
    fails(p.target.symlink("absent/link", "x").await, Kind::NotFound, &p.at("absent"), "it does not exist");
}

#[tokio::test]
async fn directories() {
    let p = Place::new();
    p.target.create_dir("dir", Some(0o700)).await.unwrap();
    assert_eq!(p.mode("dir"), 0o700);
    fails(p.target.create_dir("dir", None).await, Kind::Other, &p.at("dir"), "it exists already");
    fails(p.target.create_dir("a/b", None).await, Kind::NotFound, &p.at("a"), "it does not exist");
    p.write("dir/b", b"", None).await.unwrap();
    p.write("dir/a", b"", None).await.unwrap();
    assert_eq!(p.target.list("dir").await.unwrap(), ["a", "b"]);
    fails(p.target.list("absent").await, Kind::NotFound, &p.at("absent"), "it does not exist");
    fails(p.target.list("dir/a").await, Kind::WrongKind, &p.at("dir/a"), "is not a directory");
    fails(p.target.remove_dir("dir").await, Kind::WrongKind, &p.at("dir"), "the directory is not empty");
    fails(p.target.remove_dir("dir/a").await, Kind::WrongKind, &p.at("dir/a"), "is not a directory");
    fails(p.target.remove_file("dir").await, Kind::WrongKind, &p.at("dir"), "it is a directory");
    p.target.remove_file("dir/a").await.unwrap();
    p.target.remove_file("dir/a").await.unwrap();
    p.target.remove_file("dir/b").await.unwrap();
    p.target.remove_dir("dir").await.unwrap();
    p.target.remove_dir("dir").await.unwrap();
    assert_eq!(p.names(), Vec::<String>::new());
}

#[tokio::test]
async fn renaming_and_copying() {
    let p = Place::new();
    p.write("a", b"text", Some(0o4711)).await.unwrap();
    p.target.copy("a", "b").await.unwrap();
    assert_eq!((p.mode("b"), fs::read(p.at("b")).unwrap()), (0o4711, b"text".to_vec()));
    p.target.copy("a", "a").await.unwrap();
    assert_eq!(fs::read(p.at("a")).unwrap(), b"text", "onto itself is nothing to do");
    p.target.rename("b", "c").await.unwrap();
    assert_eq!(p.names(), ["a", "c"]);
    p.target.create_dir("d", None).await.unwrap();
    fails(p.target.rename("absent", "e").await, Kind::NotFound, &p.at("absent"), "it does not exist");
    fails(p.target.rename("a", "f/g").await, Kind::NotFound, &p.at("f"), "it does not exist");
    fails(p.target.rename("a", "d").await, Kind::WrongKind, &p.at("d"), "it is a directory");
    fails(p.target.copy("absent", "e").await, Kind::NotFound, &p.at("absent"), "it does not exist");
    fails(p.target.copy("d", "e").await, Kind::WrongKind, &p.at("d"), "it is a directory");
    fails(p.target.copy("a", "d").await, Kind::WrongKind, &p.at("d"), "it is a directory");
    if Path::new("/dev/shm").metadata().unwrap().dev() != p.dir.path().metadata().unwrap().dev() {
        let there = PathBuf::from(format!("/dev/shm/runback-test-{}", std::process::id()));
        let e = fails(p.target.rename("a", there.to_str().unwrap()).await, Kind::Other, &there, "another file system");
        assert_eq!(e.help.as_deref(), Some("copy it, then remove the old one"));
    }
}

#[tokio::test]
async fn a_tree_is_removed_without_following_links() {
    let p = Place::new();
    p.target.create_dir("keep", None).await.unwrap();
    p.write("keep/file", b"x", None).await.unwrap();
    fs::create_dir_all(p.at("tree/a/b")).unwrap();
    p.target.symlink("tree/a/out", p.at("keep").to_str().unwrap()).await.unwrap();
    p.target.symlink("tree/a/b/file", p.at("keep/file").to_str().unwrap()).await.unwrap();
    p.target.symlink("link", "keep").await.unwrap();
    p.target.remove_tree("tree").await.unwrap();
    p.target.remove_tree("tree").await.unwrap();
    assert_eq!(p.names(), ["keep", "link"]);
    assert!(p.at("keep/file").exists());
    fails(p.target.remove_tree("link").await, Kind::WrongKind, &p.at("link"), "it is not a directory");
    fails(p.target.remove_tree("keep/file").await, Kind::WrongKind, &p.at("keep/file"), "it is not a directory");
}

#[tokio::test]
async fn free_space_also_where_nothing_is_yet() {
    let p = Place::new();
    assert!(p.target.free_space(".").await.unwrap() > 0);
    assert!(p.target.free_space("not/yet/there").await.unwrap() > 0);
    assert_eq!(p.target.free_space("/proc").await.unwrap(), 0);
}

#[tokio::test]
async fn users_and_groups() {
    let p = Place::new();
    assert_eq!(p.target.user_id("root").await.unwrap(), 0);
    assert_eq!(p.target.group_id("root").await.unwrap(), 0);
    assert_eq!(p.target.user_id("4711").await.unwrap(), 4711);
    let e = p.target.user_id("no-such-user").await.unwrap_err();
    assert_eq!((e.kind, e.message.as_str()), (Kind::NotFound, "there is no user no-such-user on this machine"));
    assert_eq!(p.target.group_id("no-such-group").await.unwrap_err().kind, Kind::NotFound);
}
