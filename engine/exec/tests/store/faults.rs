//! A disk that is full or broken: real errors of the calls that write, put in between by a preloaded library.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use runback_exec::store::{Store, StoreError};

use crate::support::{Role, append_steps, block_on, created, open, say, step};

const ENOSPC: i32 = 28;
const EIO: i32 = 5;

/// Built with the C compiler that SQLite was built with.
fn build_shim(dir: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/store/fault.c");
    let library = dir.join("fault.so");
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let built = Command::new(compiler)
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .arg(source)
        .arg("-ldl")
        .status()
        .expect("a C compiler");
    assert!(built.success());
    library
}

fn inject(kind: &str, errno: i32) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let shim = build_shim(dir.path());
    let control = dir.path().join("fault");
    let fault = format!("{kind} {errno}");
    fs::write(dir.path().join("what"), &fault).unwrap();
    let state = dir.path().join("state");
    let args = [state.to_str().unwrap(), control.to_str().unwrap()];
    let mut command = Role::command(&std::env::current_exe().unwrap(), "fault", &args);
    command.env("LD_PRELOAD", shim).env("RUNBACK_FAULT", &control);
    let mut role = Role::spawn(command);
    let said = role.hear_all();
    assert!(role.child.wait().unwrap().success(), "{said:?}");

    // And for a process that knows nothing of it.
    let store = open(&state);
    block_on(async {
        let events = store.events("r", 1, usize::MAX).await.unwrap();
        assert!(events.into_iter().eq((2..=40).map(step)));
        assert_eq!(store.verify("r").await.unwrap().events, 40);
    });
    said
}

/// In the child: writes, meets the fault, goes on when it is over. Says the error's text.
pub(crate) fn scenario(dir: &Path, control: &Path) {
    let fault = fs::read_to_string(control.with_file_name("what")).unwrap();
    let store = open(dir);
    block_on(async {
        let lease = store.create("r", vec![created("r")]).await.unwrap();
        let other = store.create("other", vec![created("other")]).await.unwrap();
        append_steps(&store, &lease, 2..=10).await.unwrap();

        fs::write(control, &fault).unwrap();
        let error = append_steps(&store, &lease, 11..=12).await.expect_err("the disk fails");
        assert!(matches!(error, StoreError::Full { .. } | StoreError::Io { .. }), "{error:?}");
        let refused = append_steps(&store, &lease, 11..=12).await;
        assert!(matches!(refused, Err(StoreError::LeaseBroken { .. })), "{refused:?}");
        let read = store.events("r", 0, usize::MAX).await.unwrap();
        assert_eq!(read.len(), 10, "what failed is not there, what was acknowledged is");
        let unborn = store.create("new", vec![created("new")]).await.expect_err("the disk fails");
        assert!(matches!(unborn, StoreError::Full { .. } | StoreError::Io { .. }), "{unborn:?}");
        fs::remove_file(control).unwrap();

        let refused = append_steps(&store, &lease, 11..=12).await;
        assert!(matches!(refused, Err(StoreError::LeaseBroken { .. })), "well again, but this owner is out");
        append_steps(&store, &other, 2..=2).await.expect("who met no error goes on");
        drop(lease);
        let lease = store.acquire("r").await.unwrap();
        assert_eq!(store.verify("r").await.unwrap().events, 10);
        append_steps(&store, &lease, 11..=40).await.unwrap();
        drop(store.create("new", vec![created("new")]).await.expect("its first try left nothing"));
        say(&error.to_string());
    });
}

#[test]
fn a_full_disk() {
    let said = inject("write", ENOSPC);
    assert!(said[0].starts_with("no space left for the journal "), "{said:?}");
}

#[test]
fn a_disk_that_cannot_be_written() {
    let said = inject("write", EIO);
    assert!(said[0].contains("cannot be read or written"), "{said:?}");
}

#[test]
fn a_disk_that_takes_writes_and_loses_them() {
    let said = inject("sync", EIO);
    assert!(said[0].contains("cannot be read or written"), "{said:?}");
}

#[test]
fn a_disk_that_is_full_only_when_it_is_synced() {
    let said = inject("sync", ENOSPC);
    assert!(said[0].contains("cannot be read or written") || said[0].contains("no space left"), "{said:?}");
}
