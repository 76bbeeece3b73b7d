//! Several processes on one store: killed in the middle, racing for one run, holding locks when they die.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use runback_exec::store::{LockAttempt, RunFilter, SqliteStore, Store, StoreError};

use crate::support::{Role, append_steps, block_on, created, listen, open, say, step};

/// Two runs at once, event after event, saying what was acknowledged, until it is killed.
pub(crate) fn writer(dir: &Path) -> ! {
    let store = open(dir);
    let drive = async |run: &'static str| {
        let (lease, mut last) = match store.acquire(run).await {
            Ok(lease) => (lease, store.verify(run).await.unwrap().events),
            Err(StoreError::UnknownRun { .. }) => (store.create(run, vec![created(run)]).await.unwrap(), 1),
            Err(error) => panic!("{error}"),
        };
        say(&format!("{run} {last}"));
        // It ends with its process.
        loop {
            let count = last % 3 + 1;
            append_steps(&store, &lease, last + 1..=last + count).await.unwrap();
            last += count;
            say(&format!("{run} {last}"));
        }
    };
    let (never, _) = block_on(async { tokio::join!(drive("left"), drive("right")) });
    never
}

#[test]
fn sixty_kills_lose_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let path = state.to_str().unwrap();
    let mut acknowledged: BTreeMap<String, u64> = BTreeMap::new();
    // Open all the time, so that kills hit a store with other users; and closed in between.
    let watcher = open(&state);
    for kill in 0..60_u32 {
        let mut role = Role::start("writer", &[path]);
        for _ in 0..=(kill * 7) % 23 {
            if let Some(said) = role.hear() {
                note(&mut acknowledged, &said);
            }
        }
        role.kill();
        for said in role.hear_all() {
            note(&mut acknowledged, &said);
        }
        let again;
        let store = if kill % 2 == 0 {
            &watcher
        } else {
            again = open(&state);
            &again
        };
        block_on(async {
            for (run, seq) in &acknowledged {
                let there = store.verify(run).await.unwrap().events;
                assert!(there >= *seq, "kill {kill}: {run} had {seq} events, {there} are left");
                assert!(there <= seq + 3, "kill {kill}: one append at most was not acknowledged");
                let events = store.events(run, 1, usize::MAX).await.unwrap();
                assert!(events.into_iter().eq((2..=there).map(step)), "kill {kill}");
            }
            for row in store.runs(&RunFilter::default()).await.unwrap() {
                assert_eq!(row.owner, None, "the dead own nothing");
                drop(store.acquire(&row.run).await.expect("and are in nobody's way"));
            }
        });
    }
    assert_eq!(acknowledged.len(), 2);
    assert!(acknowledged.values().all(|seq| *seq > 60), "{acknowledged:?}");
}

fn note(acknowledged: &mut BTreeMap<String, u64>, said: &str) {
    let (run, seq) = said.split_once(' ').expect("run and number");
    let seq: u64 = seq.parse().expect("a number");
    let last = acknowledged.entry(run.to_owned()).or_default();
    assert!(seq >= *last, "{said} after {last}");
    *last = seq;
}

pub(crate) fn racer(dir: &Path, how: &str) {
    let store = open(dir);
    say("ready");
    let mut round = 0;
    while listen() {
        let run = if how == "create" { format!("new-{round}") } else { "old".to_owned() };
        round += 1;
        let won = block_on(async {
            if how == "create" { store.create(&run, vec![created(&run)]).await } else { store.acquire(&run).await }
        });
        let lease = match won {
            Ok(lease) => {
                say(&format!("won {}", std::process::id()));
                Some(lease)
            }
            Err(StoreError::Busy { owner: Some(owner), .. }) => {
                say(&format!("busy {}", owner.pid));
                None
            }
            Err(StoreError::RunExists { .. }) => {
                say("exists");
                None
            }
            Err(error) => panic!("{error}"),
        };
        listen();
        drop(lease);
        say("out");
    }
}

fn race(how: &str) {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    // The racers make the store, too; only `acquire` needs a run beforehand.
    if how == "acquire" {
        let store = open(&state);
        drop(block_on(store.create("old", vec![created("old")])).unwrap());
    }
    let path = state.to_str().unwrap().to_owned();
    let mut racers: Vec<Role> = (0..4).map(|_| Role::start("racer", &[&path, how])).collect();
    for racer in &mut racers {
        assert_eq!(racer.hear().as_deref(), Some("ready"));
    }
    for round in 0..15 {
        racers.iter_mut().for_each(Role::tell);
        let said: Vec<String> = racers.iter_mut().map(|racer| racer.hear().expect("an answer")).collect();
        let winners: Vec<&str> = said.iter().filter_map(|said| said.strip_prefix("won ")).collect();
        assert_eq!(winners.len(), 1, "round {round}: {said:?}");
        for refused in said.iter().filter(|said| !said.starts_with("won")) {
            assert!(*refused == format!("busy {}", winners[0]) || (how == "create" && refused == "exists"), "{said:?}");
        }
        racers.iter_mut().for_each(Role::tell);
        for racer in &mut racers {
            assert_eq!(racer.hear().as_deref(), Some("out"));
        }
    }
    let lock_files = || std::fs::read_dir(state.join("leases")).unwrap().count();
    assert_eq!(lock_files(), 0, "every owner removed its file");
}

#[test]
fn of_four_processes_that_resume_one_run_one_wins() {
    race("acquire");
}

#[test]
fn of_four_processes_that_start_one_run_one_wins() {
    race("create");
}

pub(crate) fn locker(dir: &Path, run: &str, name: &str) {
    let store = open(dir);
    block_on(async {
        let lease = store.create(run, vec![created(run)]).await.unwrap();
        say(match store.try_lock(&lease, Some("s"), &[name.to_owned()]).await.unwrap() {
            LockAttempt::Taken => "taken",
            LockAttempt::Waiting(_) => "waiting",
            LockAttempt::Deadlock { .. } => "deadlock",
        });
        listen();
    });
}

#[test]
fn a_killed_process_leaves_no_lock_and_no_place_in_a_queue() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let path = dir.path().to_str().unwrap();
    let mut holder = Role::start("locker", &[path, "holder", "vm"]);
    assert_eq!(holder.hear().as_deref(), Some("taken"));
    let mut queued = Role::start("locker", &[path, "queued", "vm"]);
    assert_eq!(queued.hear().as_deref(), Some("waiting"));
    block_on(async {
        let lease = store.create("me", vec![created("me")]).await.unwrap();
        let names = ["vm".to_owned()];
        match store.try_lock(&lease, None, &names).await.unwrap() {
            LockAttempt::Waiting(wait) => {
                assert_eq!((wait.run.as_str(), wait.step.as_deref(), wait.position), ("holder", Some("s"), 2));
                assert_eq!(wait.owner.map(|owner| owner.pid), Some(holder.child.id()));
            }
            other => panic!("{other:?}"),
        }
        holder.kill();
        match store.try_lock(&lease, None, &names).await.unwrap() {
            LockAttempt::Waiting(wait) => assert_eq!((wait.run.as_str(), wait.queued), ("queued", true)),
            other => panic!("{other:?}"),
        }
        queued.kill();
        assert_eq!(store.try_lock(&lease, None, &names).await.unwrap(), LockAttempt::Taken);
    });
}

#[test]
fn a_request_from_another_process_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (driver, cli) = (open(dir.path()), open(dir.path()));
    block_on(async {
        let lease = driver.create("r", vec![created("r")]).await.unwrap();
        let quiet = driver.changed().await.unwrap();
        assert_eq!(driver.changed().await.unwrap(), quiet);
        let request = runback_exec::store::Request::Hold { by: "bob@ops2".into() };
        cli.post("r", request.clone()).await.unwrap();
        assert_ne!(driver.changed().await.unwrap(), quiet);
        assert_eq!(driver.take_requests(&lease).await.unwrap()[0].request, request);
    });
}

/// Opens a store and says what came of it.
pub(crate) fn opener(dir: &Path) {
    match SqliteStore::open(dir) {
        Ok(_) => say("opened"),
        Err(error) => {
            assert!(!error.help().is_empty());
            say(&error.to_string());
        }
    }
}

/// As a user who may not write there. Root may everything, so root becomes nobody for it.
pub(crate) fn open_without_rights(dir: &Path, scratch: &Path) -> String {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
    use std::os::unix::process::CommandExt as _;
    let exe = std::env::current_exe().expect("our own path");
    let path = dir.to_str().expect("a plain path");
    let mut command: Command;
    if std::fs::metadata("/proc/self").expect("proc").uid() == 0 {
        std::fs::set_permissions(scratch, PermissionsExt::from_mode(0o755)).expect("ours");
        let copy = scratch.join("test-binary");
        std::fs::copy(exe, &copy).expect("room for a copy");
        std::fs::set_permissions(&copy, PermissionsExt::from_mode(0o755)).expect("ours");
        command = Role::command(&copy, "opener", &[path]);
        command.uid(65_534).gid(65_534).current_dir("/");
    } else {
        command = Role::command(&exe, "opener", &[path]);
    }
    Role::spawn(command).hear().expect("it says what came of it")
}
