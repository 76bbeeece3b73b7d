//! The files of a store: who may read them, what is refused, and what damage is noticed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use runback_exec::store::{JOURNAL_FILE, SqliteStore, Store, StoreError};
use rusqlite::Connection;

use crate::processes::open_without_rights;
use crate::support::{append_steps, block_on, created, open};

fn refused(dir: &Path) -> StoreError {
    let error = SqliteStore::open(dir).expect_err("it must not open");
    assert!(!error.help().is_empty());
    error
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

/// A closed store with one run of `events` events, all in the database's own file.
fn written(dir: &Path, events: u64) {
    let store = open(dir);
    block_on(async {
        let lease = store.create("r", vec![created("r")]).await.unwrap();
        append_steps(&store, &lease, 2..=events).await.unwrap();
    });
    drop(store);
    let tool = Connection::open(dir.join(JOURNAL_FILE)).unwrap();
    tool.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
}

fn tamper(dir: &Path, sql: &str) {
    let changed = Connection::open(dir.join(JOURNAL_FILE)).unwrap().execute(sql, []).unwrap();
    assert!(changed > 0, "{sql}");
}

#[test]
fn only_the_user_can_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("a/state");
    let store = open(&state);
    let lease = block_on(store.create("r", vec![created("r")])).unwrap();
    for folder in [dir.path().join("a"), state.clone(), state.join("leases")] {
        assert_eq!(mode(&folder), 0o700, "{folder:?}");
    }
    let mut files = 0;
    for entry in fs::read_dir(&state).unwrap().chain(fs::read_dir(state.join("leases")).unwrap()) {
        let path = entry.unwrap().path();
        if path.is_file() {
            assert_eq!(mode(&path), 0o600, "{path:?}");
            files += 1;
        }
    }
    assert_eq!(files, 4, "the journal, its two companions, one lease");
    drop(lease);
    assert_eq!(fs::read_dir(state.join("leases")).unwrap().count(), 0);
}

#[test]
fn a_folder_that_was_there_keeps_its_mode() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    drop(open(dir.path()));
    assert_eq!(mode(dir.path()), 0o755);
    assert_eq!(mode(&dir.path().join(JOURNAL_FILE)), 0o600);
}

#[test]
fn every_commit_is_synced_and_the_file_says_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path(), 2);
    let tool = Connection::open(dir.path().join(JOURNAL_FILE)).unwrap();
    let number = |pragma: &str| tool.query_row(pragma, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(number("PRAGMA user_version"), 1);
    assert_eq!(number("PRAGMA application_id"), 0x5242_6b31);
    let mode: String = tool.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
    assert!(rusqlite::version_number() >= 3_051_003);
}

#[test]
fn other_formats_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path(), 2);
    for (version, wanted) in [(7, "made by a newer runback"), (0, "reads no more")] {
        let tool = Connection::open(dir.path().join(JOURNAL_FILE)).unwrap();
        tool.execute_batch(&format!("PRAGMA user_version = {version}")).unwrap();
        drop(tool);
        let error = refused(dir.path());
        assert!(error.to_string().contains(wanted), "{error}");
        assert!(matches!(
            error,
            StoreError::Newer { found: 7, known: 1, .. } | StoreError::Older { found: 0, known: 1, .. }
        ));
    }
}

#[test]
fn what_is_no_journal_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(JOURNAL_FILE);
    for content in [&b"hello, this is a text and no database at all"[..], &[0; 4096], b""] {
        fs::write(&file, content).unwrap();
        let error = refused(dir.path());
        assert!(matches!(error, StoreError::NotAJournal { .. }), "{error:?}");
        assert_eq!(fs::read(&file).unwrap(), content);
    }
    fs::remove_file(&file).unwrap();
    Connection::open(&file).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
    assert!(matches!(refused(dir.path()), StoreError::NotAJournal { .. }));
}

#[test]
fn a_file_in_place_of_the_folder_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    for place in [file.clone(), file.join("below")] {
        let error = refused(&place);
        assert!(matches!(error, StoreError::NotAFolder { .. }), "{error:?}");
        assert!(error.to_string().contains(file.to_str().unwrap()));
    }
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    written(&state, 3);
    for (path, mode) in [(state.join(JOURNAL_FILE), 0o444), (state.join("leases"), 0o555), (state.clone(), 0o555)] {
        fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }
    let said = open_without_rights(&state, dir.path());
    assert!(said.contains("read-only") || said.contains("cannot be opened"), "{said}");
    assert!(said.contains(state.to_str().unwrap()), "{said}");

    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    fs::set_permissions(&empty, PermissionsExt::from_mode(0o555)).unwrap();
    for place in [empty.clone(), empty.join("below")] {
        let said = open_without_rights(&place, dir.path());
        assert!(said.contains("cannot be opened: permission denied"), "{said}");
    }
    // So that it can be removed.
    for path in [state.clone(), state.join("leases"), empty] {
        fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }
}

#[test]
fn a_changed_row_is_named_and_never_replayed() {
    for (sql, bad) in [
        ("UPDATE events SET body = replace(body, 'step-7', 'step-8') WHERE seq = 7", 7),
        ("UPDATE events SET at = at + 1 WHERE seq = 3", 3),
        ("UPDATE events SET type = 'attempt_failed' WHERE seq = 5", 5),
        ("DELETE FROM events WHERE seq = 4", 4),
        ("DELETE FROM events WHERE seq = 1", 1),
        ("UPDATE events SET hash = zeroblob(32) WHERE seq = 6", 6),
        ("UPDATE events SET hash = x'00' WHERE seq = 9", 9),
        ("DELETE FROM events", 1),
    ] {
        let dir = tempfile::tempdir().unwrap();
        written(dir.path(), 9);
        tamper(dir.path(), sql);
        let store = open(dir.path());
        block_on(async {
            match store.verify("r").await {
                Err(error @ StoreError::BadRow { seq, .. }) => {
                    assert_eq!(seq, bad, "{sql}");
                    assert!(error.to_string().contains(&format!("event {bad} of run `r`")));
                }
                other => panic!("{sql}: {other:?}"),
            }
            if !sql.ends_with("events") {
                assert!(matches!(store.events("r", 0, 99).await, Err(StoreError::BadRow { .. })), "{sql}");
            }
            // What lies before the damage can still be read.
            if bad > 2 {
                assert_eq!(store.events("r", 0, bad as usize - 1).await.unwrap().len() as u64, bad - 1);
            }
        });
    }
}

/// Wherever bytes are flipped: an error that says so, or rows that verify; never a wrong event, never a panic.
#[test]
fn flipped_bytes_are_never_taken_for_events() {
    let dir = tempfile::tempdir().unwrap();
    let good = dir.path().join("good");
    written(&good, 200);
    let journal = fs::read(good.join(JOURNAL_FILE)).unwrap();
    let truth = block_on(open(&good).events("r", 0, usize::MAX)).unwrap();
    let mut told = 0;
    for at in (0..journal.len()).step_by(1_531) {
        let bad = dir.path().join(format!("bad-{at}"));
        fs::create_dir(&bad).unwrap();
        let mut bytes = journal.clone();
        for byte in bytes.iter_mut().skip(at).take(24) {
            *byte ^= 0x5a;
        }
        fs::write(bad.join(JOURNAL_FILE), bytes).unwrap();
        let outcome = SqliteStore::open(&bad)
            .and_then(|store| block_on(async { store.verify("r").await.and(store.events("r", 0, usize::MAX).await) }));
        match outcome {
            Ok(events) => assert_eq!(events, truth, "flipped at {at}"),
            Err(
                StoreError::Corrupt { .. }
                | StoreError::BadRow { .. }
                | StoreError::NotAJournal { .. }
                | StoreError::UnknownRun { .. }
                | StoreError::Newer { .. }
                | StoreError::Sql { .. },
            ) => told += 1,
            Err(other) => panic!("flipped at {at}: {other:?}"),
        }
    }
    assert!(told > 20, "only {told} were noticed");
}

/// Its lock file removed by hand, a run can be taken twice: the older owner is fenced by the epoch.
#[test]
fn a_lost_lease_writes_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (open(dir.path()), open(dir.path()));
    block_on(async {
        let late = one.create("r", vec![created("r")]).await.unwrap();
        append_steps(&one, &late, 2..=2).await.unwrap();
        fs::remove_file(dir.path().join("leases/r.lock")).unwrap();
        let new = two.acquire("r").await.unwrap();
        two.try_lock(&new, None, &["x".into()]).await.unwrap();
        let fenced = append_steps(&one, &late, 3..=3).await;
        assert!(matches!(fenced, Err(StoreError::LeaseLost { .. })), "{fenced:?}");
        assert!(late.is_broken());
        assert!(one.withdraw_lock(&late, None).await.is_err());
        append_steps(&two, &new, 3..=3).await.unwrap();
        drop(late);
        assert!(
            matches!(two.acquire("r").await, Err(StoreError::Busy { .. })),
            "the late owner did not remove the lock of the new one"
        );
        assert_eq!(two.verify("r").await.unwrap().events, 3);
    });
}

#[test]
fn what_a_killed_maker_left_is_cleared_away() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("leases")).unwrap();
    for left in ["journal.db.new", "leases/.making.lock"] {
        fs::write(dir.path().join(left), "half of one").unwrap();
    }
    let store = open(dir.path());
    drop(block_on(store.create("r", vec![created("r")])).unwrap());
    drop(store);
    let mut names: Vec<_> =
        fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["journal.db", "journal.db-shm", "journal.db-wal", "leases"]);
    assert_eq!(fs::read_dir(dir.path().join("leases")).unwrap().count(), 0);
}
