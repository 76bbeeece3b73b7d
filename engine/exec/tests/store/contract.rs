//! What both stores promise.

use std::sync::Arc;

use runback_core::event::{EventBody, Outcome};
use runback_exec::store::retention::{KeptRun, Retention, WhyKept, prune};
use runback_exec::store::{Request, RunFilter, StoreError};

use crate::support::{append_steps, created, created_by, each, finished, step};

fn cancel() -> Request {
    Request::Cancel { by: "ann@ops1".into(), now: false }
}

#[test]
fn events_come_back_as_they_were() {
    each(|store| async move {
        let lease = store.create("r1", vec![created("r1"), step(2)]).await.unwrap();
        assert_eq!((lease.run(), lease.epoch()), ("r1", 1));
        append_steps(&*store, &lease, 3..=5).await.unwrap();
        store.append(&lease, Vec::new().into()).await.unwrap();
        append_steps(&*store, &lease, 6..=6).await.unwrap();
        let wanted: Vec<_> = std::iter::once(created("r1")).chain((2..=6).map(step)).collect();
        assert_eq!(store.events("r1", 0, usize::MAX).await.unwrap(), wanted);
        assert_eq!(store.events("r1", 0, 2).await.unwrap(), wanted[..2]);
        assert_eq!(store.events("r1", 4, 1).await.unwrap(), wanted[4..5]);
        assert_eq!(store.events("r1", 6, 9).await.unwrap(), []);
        assert_eq!(store.verify("r1").await.unwrap().events, 6);
        for missing in ["r2", "r"] {
            assert!(matches!(store.events(missing, 0, 1).await, Err(StoreError::UnknownRun { .. })));
            assert!(matches!(store.verify(missing).await, Err(StoreError::UnknownRun { .. })));
        }
    });
}

#[test]
fn a_run_is_created_once_and_well() {
    each(|store| async move {
        let lease = store.create("r1", vec![created("r1")]).await.unwrap();
        assert!(matches!(store.create("r1", vec![created("r1")]).await, Err(StoreError::RunExists { .. })));
        drop(lease);
        assert!(matches!(store.create("r1", vec![created("r1")]).await, Err(StoreError::RunExists { .. })));
        for bad in ["", "last", "../x", "a/b", ".hidden", "-x", "ä", &"x".repeat(129)] {
            assert!(matches!(store.create(bad, vec![created(bad)]).await, Err(StoreError::BadRunId { .. })), "{bad}");
        }
        for bad in [vec![], vec![step(1)], vec![created("other")]] {
            assert!(matches!(store.create("r2", bad).await, Err(StoreError::BadStart { .. })));
        }
        assert!(matches!(
            store.create("r2", vec![created("r2"), step(3)]).await,
            Err(StoreError::Gap { expected: 2, found: 3, .. })
        ));
        drop(store.create("r2", vec![created("r2")]).await.expect("what was refused left nothing"));
    });
}

#[test]
fn one_owner_at_a_time() {
    each(|store| async move {
        let first = store.create("r1", vec![created("r1")]).await.unwrap();
        match store.acquire("r1").await {
            Err(StoreError::Busy { run, owner: Some(owner) }) => {
                assert_eq!((run.as_str(), owner.pid), ("r1", std::process::id()));
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(store.acquire("r2").await, Err(StoreError::UnknownRun { .. })));
        drop(first);
        let second = store.acquire("r1").await.unwrap();
        assert_eq!(second.epoch(), 2);
        append_steps(&*store, &second, 2..=2).await.unwrap();
    });
}

#[test]
fn a_gap_is_refused_and_breaks_the_lease() {
    each(|store| async move {
        let lease = store.create("r1", vec![created("r1")]).await.unwrap();
        let refused = store.append(&lease, [step(2), step(4)].into()).await;
        assert!(matches!(refused, Err(StoreError::Gap { expected: 3, found: 4, .. })), "{refused:?}");
        assert!(lease.is_broken());
        let broken = append_steps(&*store, &lease, 2..=2).await;
        assert!(matches!(broken, Err(StoreError::LeaseBroken { .. })));
        assert!(matches!(store.take_requests(&lease).await, Err(StoreError::LeaseBroken { .. })));
        drop(lease);
        let lease = store.acquire("r1").await.unwrap();
        append_steps(&*store, &lease, 2..=2).await.unwrap();
        assert_eq!(store.verify("r1").await.unwrap().events, 2);
    });
}

#[test]
fn runs_are_listed_newest_first() {
    each(|store| async move {
        let mut leases = Vec::new();
        // Neither names nor clocks give the order.
        for (run, playbook, at) in [("c", "one", 30), ("a", "two", 10), ("b", "one", 20)] {
            leases.push(store.create(run, vec![created_by(run, playbook, at), step(2)]).await.unwrap());
        }
        store.append(&leases[0], [finished(3, Outcome::Succeeded)].into()).await.unwrap();
        drop(leases.remove(0));
        let list = |filter: RunFilter| {
            let store = &store;
            async move { store.runs(&filter).await.unwrap().into_iter().map(|row| row.run).collect::<Vec<_>>() }
        };
        assert_eq!(list(RunFilter::default()).await, ["b", "a", "c"]);
        assert_eq!(list(RunFilter { playbook: Some("one".into()), ..RunFilter::default() }).await, ["b", "c"]);
        assert_eq!(list(RunFilter { since: Some(20), ..RunFilter::default() }).await, ["b", "c"]);
        assert_eq!(list(RunFilter { limit: Some(1), ..RunFilter::default() }).await, ["b"]);

        let rows = store.runs(&RunFilter::default()).await.unwrap();
        let done = &rows[2];
        assert_eq!((done.last_seq, done.last_at, &done.owner), (3, 1_003, &None));
        assert_eq!(rows[0].owner.as_ref().map(|owner| owner.pid), Some(std::process::id()));
        assert_eq!(done.head_events.len(), 2, "the step in between is not about the run");
        assert_eq!(done.head_events[1], finished(3, Outcome::Succeeded));
        match &done.head_events[0].body {
            EventBody::RunCreated(head) => {
                assert!(head.texts.is_empty());
                let EventBody::RunCreated(mut whole) = created_by("c", "one", 30).body else { unreachable!() };
                whole.texts.clear();
                assert_eq!(*head, whole);
            }
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn a_run_is_found_by_its_beginning() {
    each(|store| async move {
        assert!(matches!(store.resolve("last").await, Err(StoreError::UnknownRun { .. })));
        for run in ["deploy-1", "deploy-12", "backup-1"] {
            drop(store.create(run, vec![created(run)]).await.unwrap());
        }
        for (asked, found) in
            [("last", "backup-1"), ("b", "backup-1"), ("deploy-1", "deploy-1"), ("deploy-12", "deploy-12")]
        {
            assert_eq!(store.resolve(asked).await.unwrap(), found);
        }
        for asked in ["deploy", "d"] {
            match store.resolve(asked).await {
                Err(StoreError::Ambiguous { candidates, .. }) => assert_eq!(candidates, ["deploy-1", "deploy-12"]),
                other => panic!("{other:?}"),
            }
        }
        assert!(matches!(store.resolve("").await, Err(StoreError::Ambiguous { .. })));
        for asked in ["x", "deploy-2", "Deploy", "%", "deploy-1*"] {
            match store.resolve(asked).await {
                Err(StoreError::UnknownRun { run, candidates }) => {
                    assert_eq!(run, asked);
                    assert_eq!(candidates, ["backup-1", "deploy-12", "deploy-1"]);
                }
                other => panic!("{asked}: {other:?}"),
            }
        }
    });
}

#[test]
fn requests_wait_until_an_owner_recorded_them() {
    each(|store| async move {
        assert!(matches!(store.post("r1", cancel()).await, Err(StoreError::UnknownRun { .. })));
        let lease = store.create("r1", vec![created("r1")]).await.unwrap();
        let quiet = store.changed().await.unwrap();
        append_steps(&*store, &lease, 2..=2).await.unwrap();
        assert_eq!(store.changed().await.unwrap(), quiet, "what a driver writes itself does not wake it");
        let first = store.post("r1", cancel()).await.unwrap();
        assert_ne!(store.changed().await.unwrap(), quiet);
        let hold = Request::Hold { by: "bob@ops1".into() };
        let second = store.post("r1", hold.clone()).await.unwrap();
        assert!(first < second);
        let taken = store.take_requests(&lease).await.unwrap();
        assert_eq!(taken.iter().map(|posted| posted.id).collect::<Vec<_>>(), [first, second]);
        assert_eq!(taken[1].request, hold);
        assert_eq!(store.take_requests(&lease).await.unwrap(), []);

        // It dies before it recorded them: the next owner gets them.
        drop(lease);
        let lease = store.acquire("r1").await.unwrap();
        assert_eq!(store.take_requests(&lease).await.unwrap(), taken);
        let late = store.post("r1", cancel()).await.unwrap();
        append_steps(&*store, &lease, 3..=3).await.unwrap();
        drop(lease);
        let lease = store.acquire("r1").await.unwrap();
        let left = store.take_requests(&lease).await.unwrap();
        assert_eq!(left.iter().map(|posted| posted.id).collect::<Vec<_>>(), [late]);
    });
}

#[test]
fn a_request_is_pending_until_it_is_recorded_or_withdrawn() {
    each(|store| async move {
        let lease = store.create("r1", vec![created("r1")]).await.unwrap();
        let other = store.create("r2", vec![created("r2")]).await.unwrap();
        let (first, second) = (store.post("r1", cancel()).await.unwrap(), store.post("r1", cancel()).await.unwrap());
        assert!(store.is_pending("r1", first).await.unwrap() && !store.is_pending("r2", first).await.unwrap());
        assert!(!store.withdraw_request("r2", first).await.unwrap(), "it is another run's");
        assert!(store.withdraw_request("r1", first).await.unwrap());
        assert!(!store.withdraw_request("r1", first).await.unwrap() && !store.is_pending("r1", first).await.unwrap());
        let taken = store.take_requests(&lease).await.unwrap();
        assert_eq!(taken.iter().map(|posted| posted.id).collect::<Vec<_>>(), [second]);
        assert!(store.is_pending("r1", second).await.unwrap(), "it is not recorded yet");
        store.append(&lease, Vec::new().into()).await.unwrap();
        assert!(!store.is_pending("r1", second).await.unwrap());
        assert!(!store.withdraw_request("r1", second).await.unwrap());
        drop(other);
    });
}

#[test]
fn a_deleted_run_is_gone() {
    each(|store| async move {
        let lease = store.create("r1", vec![created("r1"), step(2)]).await.unwrap();
        let other = store.create("r2", vec![created("r2")]).await.unwrap();
        store.post("r1", cancel()).await.unwrap();
        assert!(matches!(store.delete("r1").await, Err(StoreError::Busy { .. })));
        drop(lease);
        if let Some(logs) = store.logs_dir("r1") {
            std::fs::create_dir_all(logs.join("deep")).unwrap();
            std::fs::write(logs.join("deep/out"), "x").unwrap();
        }
        store.delete("r1").await.unwrap();
        assert!(store.logs_dir("r1").is_none_or(|logs| !logs.exists()));
        assert!(matches!(store.delete("r1").await, Err(StoreError::UnknownRun { .. })));
        assert!(matches!(store.events("r1", 0, 9).await, Err(StoreError::UnknownRun { .. })));
        assert_eq!(store.runs(&RunFilter::default()).await.unwrap().len(), 1);
        append_steps(&*store, &other, 2..=2).await.unwrap();
        let again = store.create("r1", vec![created("r1")]).await.unwrap();
        assert_eq!(store.take_requests(&again).await.unwrap(), []);
    });
}

#[test]
fn many_drivers_share_the_writer() {
    each(|store| async move {
        let drivers: Vec<_> = (0..8)
            .map(|driver| {
                let store = Arc::clone(&store);
                tokio::spawn(async move {
                    let run = format!("r{driver}");
                    let lease = store.create(&run, vec![created(&run)]).await.unwrap();
                    for seq in (2..60).step_by(2) {
                        append_steps(&*store, &lease, seq..=seq + 1).await.unwrap();
                    }
                })
            })
            .collect();
        for driver in drivers {
            driver.await.unwrap();
        }
        for driver in 0..8 {
            assert_eq!(store.verify(&format!("r{driver}")).await.unwrap().events, 59);
        }
    });
}

/// One caller's mistake in a shared commit is its own.
#[test]
fn a_refused_job_does_not_touch_its_neighbours() {
    each(|store| async move {
        let good = store.create("good", vec![created("good")]).await.unwrap();
        let bad = store.create("bad", vec![created("bad")]).await.unwrap();
        let (refused, lost, done) = tokio::join!(
            store.append(&bad, [step(7)].into()),
            store.append(&bad, [step(2)].into()),
            store.append(&good, [step(2)].into()),
        );
        assert!(matches!(refused, Err(StoreError::Gap { .. })));
        assert!(matches!(lost, Err(StoreError::LeaseBroken { .. })), "{lost:?}");
        done.unwrap();
        assert_eq!(store.verify("bad").await.unwrap().events, 1);
        assert_eq!(store.verify("good").await.unwrap().events, 2);
    });
}

#[test]
fn history_is_pruned_by_age_and_number() {
    each(|store| async move {
        let ends = [
            ("old", Some(Outcome::Succeeded)),
            ("failed", Some(Outcome::Failed)),
            ("stuck", Some(Outcome::Stuck)),
            ("killed", None),
            ("back", Some(Outcome::RolledBack)),
            ("new", Some(Outcome::Cancelled)),
        ];
        for (age, (run, outcome)) in (0..).zip(ends) {
            let lease = store.create(run, vec![created_by(run, "p", age)]).await.unwrap();
            let mut last = outcome.map_or_else(|| step(2), |outcome| finished(2, outcome));
            last.at = 100 + age;
            store.append(&lease, [last].into()).await.unwrap();
        }
        let alive = store.acquire("old").await.unwrap();
        let all = Retention { older_than: Some(104), ..Retention::default() };
        assert_eq!(prune(&*store, &Retention::default()).await.unwrap().removed, [], "no limit, no removal");

        let dry = prune(&*store, &Retention { dry_run: true, ..all.clone() }).await.unwrap();
        let kept = |run: &str, why| KeptRun { run: run.to_owned(), why };
        assert_eq!(dry.removed, []);
        assert_eq!(
            dry.kept,
            [
                kept("killed", WhyKept::Resumable),
                kept("stuck", WhyKept::Stuck),
                kept("failed", WhyKept::Resumable),
                kept("old", WhyKept::Alive),
            ]
        );
        let by_number = Retention { keep_newest: Some(1), ..Retention::default() };
        let gone = prune(&*store, &by_number).await.unwrap();
        assert_eq!(gone.removed.iter().map(|run| run.run.as_str()).collect::<Vec<_>>(), ["back"]);
        let gone = prune(&*store, &Retention { all: true, ..all.clone() }).await.unwrap();
        assert_eq!(gone.removed.iter().map(|run| run.run.as_str()).collect::<Vec<_>>(), ["killed", "stuck", "failed"]);
        assert_eq!(gone.kept, [kept("old", WhyKept::Alive)]);
        drop(alive);
        let gone = prune(&*store, &all).await.unwrap();
        assert_eq!(gone.removed.len(), 1);
        assert_eq!((gone.removed[0].run.as_str(), gone.removed[0].events, gone.removed[0].last_at), ("old", 2, 100));
        assert_eq!(store.runs(&RunFilter::default()).await.unwrap().len(), 1);
    });
}
