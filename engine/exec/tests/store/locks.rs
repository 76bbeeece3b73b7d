//! Named locks through the store: their table, and who is dead.

use runback_exec::store::{Lease, LockAttempt, Store, StoreError};

use crate::support::{created, each};

async fn run(store: &dyn Store, run: &str) -> Lease {
    store.create(run, vec![created(run)]).await.unwrap()
}

async fn ask(store: &dyn Store, lease: &Lease, step: Option<&str>, names: &[&str]) -> LockAttempt {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    store.try_lock(lease, step, &names).await.unwrap()
}

fn waits_for(attempt: &LockAttempt) -> (&str, Option<&str>, &str, bool, usize) {
    match attempt {
        LockAttempt::Waiting(wait) => (&wait.run, wait.step.as_deref(), &wait.name, wait.queued, wait.position),
        other => panic!("{other:?}"),
    }
}

#[test]
fn taken_waited_for_and_given_back() {
    each(|store| async move {
        let (a, b, c) = (run(&*store, "a").await, run(&*store, "b").await, run(&*store, "c").await);
        assert_eq!(ask(&*store, &a, Some("one"), &["y", "x", "x"]).await, LockAttempt::Taken);
        assert_eq!(ask(&*store, &a, None, &["x"]).await, LockAttempt::Taken, "what it has it gets again");
        let wait = ask(&*store, &b, Some("two"), &["z", "y"]).await;
        assert_eq!(waits_for(&wait), ("a", Some("one"), "y", false, 1));
        let LockAttempt::Waiting(wait) = wait else { unreachable!() };
        assert_eq!(wait.owner.map(|owner| owner.pid), Some(std::process::id()));
        assert!(wait.since > 1_600_000_000_000);
        assert_eq!(waits_for(&ask(&*store, &c, None, &["z"]).await), ("b", Some("two"), "z", true, 2));

        let before = store.changed().await.unwrap();
        store.release_locks(&a).await.unwrap();
        assert_ne!(store.changed().await.unwrap(), before, "those who wait are told");
        assert_eq!(waits_for(&ask(&*store, &c, None, &["z"]).await), ("b", Some("two"), "z", true, 2));
        assert_eq!(ask(&*store, &b, Some("two"), &["z", "y"]).await, LockAttempt::Taken);
        assert_eq!(waits_for(&ask(&*store, &c, None, &["z"]).await), ("b", Some("two"), "z", false, 1));
        store.release_locks(&b).await.unwrap();
        store.release_locks(&b).await.unwrap();
        assert_eq!(ask(&*store, &c, None, &["z"]).await, LockAttempt::Taken);
    });
}

#[test]
fn the_dead_hold_nothing_and_stand_in_no_queue() {
    each(|store| async move {
        let (a, b, c) = (run(&*store, "a").await, run(&*store, "b").await, run(&*store, "c").await);
        assert_eq!(ask(&*store, &a, None, &["x"]).await, LockAttempt::Taken);
        ask(&*store, &b, None, &["x"]).await;
        assert_eq!(waits_for(&ask(&*store, &c, None, &["x"]).await).4, 2);
        drop(b);
        drop(a);
        assert_eq!(ask(&*store, &c, None, &["x"]).await, LockAttempt::Taken);
        // Back again, it has lost it.
        let a = store.acquire("a").await.unwrap();
        assert_eq!(waits_for(&ask(&*store, &a, None, &["x"]).await).0, "c");
    });
}

#[test]
fn a_resumed_run_still_has_what_nobody_took() {
    each(|store| async move {
        let (a, b) = (run(&*store, "a").await, run(&*store, "b").await);
        assert_eq!(ask(&*store, &a, Some("s"), &["x"]).await, LockAttempt::Taken);
        drop(a);
        let a = store.acquire("a").await.unwrap();
        assert_eq!(waits_for(&ask(&*store, &b, None, &["x"]).await).0, "a");
        assert_eq!(ask(&*store, &a, Some("s"), &["x"]).await, LockAttempt::Taken);
        store.release_locks(&a).await.unwrap();
        assert_eq!(ask(&*store, &b, None, &["x"]).await, LockAttempt::Taken);
    });
}

#[test]
fn a_deadlock_is_told_and_given_up() {
    each(|store| async move {
        let (a, b) = (run(&*store, "a").await, run(&*store, "b").await);
        assert_eq!(ask(&*store, &a, Some("1"), &["x"]).await, LockAttempt::Taken);
        assert_eq!(ask(&*store, &b, Some("1"), &["y"]).await, LockAttempt::Taken);
        ask(&*store, &a, Some("2"), &["y"]).await;
        match ask(&*store, &b, Some("2"), &["x"]).await {
            LockAttempt::Deadlock { cycle } => {
                let said: Vec<String> = cycle.iter().map(ToString::to_string).collect();
                assert_eq!(said, ["b waits for `x`, held by a", "a waits for `y`, held by b"]);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(waits_for(&ask(&*store, &a, Some("2"), &["y"]).await), ("b", Some("1"), "y", false, 1));
        store.release_locks(&b).await.unwrap();
        assert_eq!(ask(&*store, &a, Some("2"), &["y"]).await, LockAttempt::Taken);
    });
}

#[test]
fn a_place_in_the_queue_can_be_given_up() {
    each(|store| async move {
        let (a, b, c) = (run(&*store, "a").await, run(&*store, "b").await, run(&*store, "c").await);
        ask(&*store, &a, None, &["x"]).await;
        ask(&*store, &b, Some("s"), &["x", "y"]).await;
        assert_eq!(waits_for(&ask(&*store, &c, None, &["y"]).await).0, "b");
        store.withdraw_lock(&b, Some("s")).await.unwrap();
        assert_eq!(ask(&*store, &c, None, &["y"]).await, LockAttempt::Taken);
        // Other names are another place.
        ask(&*store, &b, Some("s"), &["x"]).await;
        assert_eq!(waits_for(&ask(&*store, &b, Some("s"), &["y"]).await).0, "c");
    });
}

#[test]
fn a_broken_lease_takes_nothing_more_and_can_give_back() {
    each(|store| async move {
        let (a, b) = (run(&*store, "a").await, run(&*store, "b").await);
        ask(&*store, &a, None, &["x"]).await;
        store.append(&a, [crate::support::step(9)].into()).await.unwrap_err();
        let refused = store.try_lock(&a, None, &["y".into()]).await;
        assert!(matches!(refused, Err(StoreError::LeaseBroken { .. })));
        store.release_locks(&a).await.unwrap();
        assert_eq!(ask(&*store, &b, None, &["x"]).await, LockAttempt::Taken);
    });
}
