//! The room that is made ahead in the WAL: commits use it, and nobody takes it for something that was written.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use runback_exec::store::{JOURNAL_FILE, Store};

use crate::support::{append_steps, block_on, created, open, step};

fn wal(state: &Path) -> PathBuf {
    state.join(format!("{JOURNAL_FILE}-wal"))
}

fn length(state: &Path) -> u64 {
    fs::metadata(wal(state)).unwrap().len()
}

/// By another process: to open SQLite's files in this one would drop its locks.
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for file in [from.join(JOURNAL_FILE), wal(from)] {
        assert!(Command::new("cp").arg(file).arg(to).status().unwrap().success());
    }
}

fn events_of(state: &Path) -> u64 {
    let store = open(state);
    block_on(async {
        let events = store.events("r", 0, usize::MAX).await.unwrap();
        assert!(events.iter().skip(1).cloned().eq((2..=events.len() as u64).map(step)));
        assert_eq!(store.verify("r").await.unwrap().events, events.len() as u64);
        events.len() as u64
    })
}

#[test]
fn commits_overwrite_what_was_made_ahead() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    block_on(async {
        let lease = store.create("r", vec![created("r")]).await.unwrap();
        append_steps(&store, &lease, 2..=2).await.unwrap();
        assert!(length(dir.path()) < 64 * 1024, "a short run needs none");
        let mut grown = 0;
        for seq in 3..=400 {
            let before = length(dir.path());
            append_steps(&store, &lease, seq..=seq).await.unwrap();
            grown += u64::from(seq > 100 && length(dir.path()) != before);
        }
        assert!(grown <= 2, "{grown} of 300 commits made the file longer");
        let written = length(dir.path());
        assert!(written < 4 * 1024 * 1024, "{written}");
    });
}

#[test]
fn wherever_it_is_cut_a_beginning_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let (state, last) = (dir.path().join("state"), 150);
    let store = open(&state);
    let lease = block_on(async {
        let lease = store.create("r", vec![created("r")]).await.unwrap();
        for seq in 2..=last {
            append_steps(&store, &lease, seq..=seq).await.unwrap();
        }
        lease
    });
    let whole = length(&state);
    assert!(whole > 1024 * 1024, "there is room: {whole}");
    let mut found = Vec::new();
    for (index, cut) in (0..=12).map(|part| whole * part / 12).enumerate() {
        let to = dir.path().join(format!("cut-{index}"));
        copy(&state, &to);
        fs::OpenOptions::new().write(true).open(wal(&to)).unwrap().set_len(cut).unwrap();
        // Nothing of the run, if even its first commit is cut off.
        found.push(if cut == 0 { 0 } else { events_of(&to) });
    }
    assert!(found.is_sorted(), "{found:?}");
    assert_eq!(found[12], last);
    assert_eq!(found[10], last, "what is cut off there is room alone");
    drop(lease);
}

#[test]
fn two_that_write_by_turns_make_room_for_both() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (open(dir.path()), open(dir.path()));
    block_on(async {
        let (first, second) =
            (one.create("r", vec![created("r")]).await.unwrap(), two.create("s", vec![created("s")]).await.unwrap());
        // More than a WAL is let grow to before it begins again from its front.
        for seq in 2..=900 {
            append_steps(&one, &first, seq..=seq).await.unwrap();
            append_steps(&two, &second, seq..=seq).await.unwrap();
        }
        assert_eq!(two.verify("r").await.unwrap().events, 900);
        assert_eq!(one.verify("s").await.unwrap().events, 900);
    });
    let whole = length(dir.path());
    assert!(whole < 16 * 1024 * 1024, "it begins again and again: {whole}");
    let to = dir.path().join("copy");
    copy(dir.path(), &to);
    assert_eq!(events_of(&to), 900);
}

#[test]
fn what_is_left_at_the_end_goes_by_what_is_used_of_it() {
    for (last, left) in [(40, true), (200, false)] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        block_on(async {
            let lease = store.create("r", vec![created("r")]).await.unwrap();
            for seq in 2..=last {
                append_steps(&store, &lease, seq..=seq).await.unwrap();
            }
        });
        assert!(length(dir.path()) > 1024 * 1024, "room was made for {last}");
        drop(store);
        assert_eq!(wal(dir.path()).exists(), left, "after {last} commits");
        assert_eq!(events_of(dir.path()), last);
    }
}
