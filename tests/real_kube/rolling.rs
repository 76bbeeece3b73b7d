//! `k8s.rolling_update`: within its bounds seen from outside, killed in the middle and gone on, backwards, and against others.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::cluster::{Cluster, until};
use crate::play::{Play, path, workload};

pub(crate) const TESTS: &[crate::Test] = &[
    ("rolling_update_keeps_its_bounds_both_ways", bounds),
    ("rolling_update_killed_in_the_middle_goes_on", killed),
    ("rolling_update_drift_moves_nothing", drift),
    ("rolling_update_that_gets_stuck_goes_back", stuck),
];

fn controllers(cluster: &Cluster, ns: &str, image: &str) {
    for (name, replicas, image) in [("v1", 4, "app:1"), ("v2", 0, image)] {
        cluster.api.must(
            "POST",
            &path(ns, "replicationcontrollers", ""),
            &workload("v1", "ReplicationController", name, replicas, image),
        );
    }
    until("the old pods", || {
        cluster.api.get(&path(ns, "replicationcontrollers", "v1"))["status"]["availableReplicas"] == 4
    });
}

fn roll(cluster: &Cluster, ns: &str, more: &Json) -> Play {
    let mut with = json!({ "from": "rc/v1", "to": "rc/v2", "namespace": ns, "max_surge": 1, "max_unavailable": 0 });
    for (key, value) in more.as_object().into_iter().flatten() {
        with[key] = value.clone();
    }
    Play::new(cluster, &json!([{ "id": "roll", "uses": "k8s.rolling_update", "with": with }]))
}

fn wanted(cluster: &Cluster, ns: &str) -> (Json, Json) {
    let of = |name: &str| cluster.api.get(&path(ns, "replicationcontrollers", name))["spec"]["replicas"].clone();
    (of("v1"), of("v2"))
}

/// Tells the watcher that the work is over, also when it panicked.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Counts the pods of the namespace again and again: those that stay, and those of them that are ready.
fn watched(cluster: &Cluster, ns: &str, work: impl FnOnce()) -> (usize, usize) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let (mut fewest, mut most) = (usize::MAX, 0);
            while !done.load(Ordering::Relaxed) {
                let pods = cluster.api.get(&path(ns, "pods", ""));
                let stay: Vec<&Json> = pods["items"]
                    .as_array()
                    .expect("a list")
                    .iter()
                    .filter(|p| !p["metadata"]["deletionTimestamp"].is_string())
                    .collect();
                let ready = |p: &&&Json| {
                    p["status"]["conditions"]
                        .as_array()
                        .into_iter()
                        .flatten()
                        .any(|c| c["type"] == "Ready" && c["status"] == "True")
                };
                fewest = fewest.min(stay.iter().filter(ready).count());
                most = most.max(stay.len());
                std::thread::sleep(Duration::from_millis(20));
            }
            (fewest, most)
        });
        let over = Over(&done);
        work();
        drop(over);
        watcher.join().expect("it does not panic")
    })
}

fn bounds(cluster: &Cluster, ns: &str) {
    controllers(cluster, ns, "app:2");
    let play = roll(cluster, ns, &json!({ "min_ready": "200ms" }));
    play.plan(&[]).says("at least 4 available, at most 5 there");
    let seen = watched(cluster, ns, || drop(play.run(&[]).is(0)));
    assert_eq!((seen, wanted(cluster, ns)), ((4, 5), (json!(0), json!(4))));
    play.does("logs", &["r1"]).is(0).says("v2: 0 → 1 pods").says("v1: 1 → 0 pods");
    let seen = watched(cluster, ns, || drop(play.rollback(&[]).is(0)));
    assert_eq!((seen, wanted(cluster, ns)), ((4, 5), (json!(4), json!(0))));
}

/// Killed at each move, by `kill -9`: what is left is what the next process goes on from.
fn killed(cluster: &Cluster, ns: &str) {
    controllers(cluster, ns, "app:2");
    let play = roll(cluster, ns, &json!({ "interval": "300ms" }));
    let seen = watched(cluster, ns, || {
        let mut kills = 0;
        for (verb, moves) in std::iter::once("run").chain(std::iter::repeat("resume")).zip(1..8) {
            let mut child = play.start(verb);
            // Eight moves: (4,0) (4,1) (3,1) … (0,4).
            let moved = || {
                let (from, to) = wanted(cluster, ns);
                to.as_i64().unwrap_or(0) + 4 - from.as_i64().unwrap_or(4)
            };
            until("the next move", || moved() >= moves || child.try_wait().expect("it is ours").is_some());
            kills += i32::from(child.try_wait().expect("it is ours").is_none());
            let _ = child.kill();
            let _ = child.wait();
        }
        assert!(kills >= 6, "only {kills} of 7 processes were killed in the middle");
        drop(play.resume().is(0));
    });
    assert_eq!((seen, wanted(cluster, ns)), ((4, 5), (json!(0), json!(4))));
    play.rollback(&[]).is(0);
    assert_eq!(wanted(cluster, ns), (json!(4), json!(0)));
}

fn drift(cluster: &Cluster, ns: &str) {
    controllers(cluster, ns, "app:2");
    let play = roll(cluster, ns, &json!({ "max_unavailable": 2 }));
    play.run(&[]).is(0);
    cluster.api.merge(&path(ns, "replicationcontrollers", "v2"), "ops-team", &json!({ "spec": { "replicas": 6 } }));
    play.rollback(&[]).is(4).says("has 6 replicas, where this step left 4, by \"ops-team\"");
    assert_eq!(wanted(cluster, ns), (json!(0), json!(6)));
    play.rollback(&["--force"]).is(0);
    assert_eq!(wanted(cluster, ns), (json!(4), json!(0)));
}

fn stuck(cluster: &Cluster, ns: &str) {
    controllers(cluster, ns, "broken:2");
    let play = roll(cluster, ns, &json!({ "timeout": "3s" }));
    let seen = watched(cluster, ns, || drop(play.run(&[]).is(3).says("no pod came or went for 3s")));
    assert_eq!((seen, wanted(cluster, ns)), ((4, 5), (json!(4), json!(0))));
}
