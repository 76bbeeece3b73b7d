//! `k8s.rolling_update`: within its bounds seen from outside, killed in the middle and gone on, backwards, and against others.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::between::{Between, When};
use crate::cluster::{Cluster, until};
use crate::play::{Play, path, workload};
use crate::serve::serve;

pub(crate) const TESTS: &[crate::Test] = &[
    ("rolling_update_keeps_its_bounds_both_ways", bounds),
    ("rolling_update_killed_in_the_middle_goes_on", killed),
    ("rolling_update_killed_before_and_after_each_move_both_ways", killed_between),
    ("rolling_update_drift_moves_nothing", drift),
    ("rolling_update_checks_between_moves", checked),
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

/// What a watch of the pods told, change by change: the fewest that were ready and stayed, and the most that stayed.
fn counted(start: &Json, changes: &[Json]) -> (usize, usize) {
    let ready = |p: &Json| {
        let mut conditions = p["status"]["conditions"].as_array().into_iter().flatten();
        conditions.any(|c| c["type"] == "Ready" && c["status"] == "True")
    };
    let mut pods: BTreeMap<String, (bool, bool)> = BTreeMap::new();
    let take = |kind: &str, pod: &Json, pods: &mut BTreeMap<String, (bool, bool)>| {
        let name = pod["metadata"]["uid"].as_str().expect("it has one").to_owned();
        if kind == "DELETED" {
            pods.remove(&name);
        } else {
            pods.insert(name, (!pod["metadata"]["deletionTimestamp"].is_string(), ready(pod)));
        }
    };
    let count = |pods: &BTreeMap<String, (bool, bool)>| {
        let stay: Vec<_> = pods.values().filter(|p| p.0).collect();
        (stay.iter().filter(|p| p.1).count(), stay.len())
    };
    for pod in start["items"].as_array().expect("a list") {
        take("ADDED", pod, &mut pods);
    }
    let (mut fewest, mut most) = count(&pods);
    for change in changes {
        take(change["type"].as_str().expect("a watch says it"), &change["object"], &mut pods);
        let (ready, stay) = count(&pods);
        (fewest, most) = (fewest.min(ready), most.max(stay));
    }
    (fewest, most)
}

/// Watches the pods of the namespace from outside while something works: no moment between two looks is missed.
fn watched(cluster: &Cluster, ns: &str, work: impl FnOnce()) -> (usize, usize) {
    let at = path(ns, "pods", "");
    let start = cluster.api.get(&at);
    let version = start["metadata"]["resourceVersion"].as_str().expect("a list has one");
    let mut watch = cluster.api.watch(&format!("{at}?watch=true&resourceVersion={version}"));
    let stdout = watch.0.stdout.take().expect("piped");
    let reader = std::thread::spawn(move || {
        let lines = BufReader::new(stdout).lines().map_while(Result::ok);
        lines.map(|l| serde_json::from_str(&l).expect("a watch gives JSON")).collect::<Vec<Json>>()
    });
    work();
    // What was done last is told after it.
    std::thread::sleep(Duration::from_secs(2));
    drop(watch);
    let changes = reader.join().expect("it does not panic");
    assert!(!changes.is_empty(), "the watch saw nothing");
    counted(&start, &changes)
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
    // So long that it is seen and killed in between on a busy machine, too.
    let play = roll(cluster, ns, &json!({ "interval": "3s" }));
    // Eight moves: (4,0) (4,1) (3,1) … (0,4).
    let moved = || {
        let (from, to) = wanted(cluster, ns);
        to.as_i64().unwrap_or(0) + 4 - from.as_i64().unwrap_or(4)
    };
    let mut at = BTreeSet::new();
    let seen = watched(cluster, ns, || {
        for (verb, moves) in std::iter::once("run").chain(std::iter::repeat("resume")).zip(1..=8) {
            let mut child = play.start(verb);
            until("the next move", || moved() >= moves || child.try_wait().expect("it is ours").is_some());
            assert!(child.try_wait().expect("it is ours").is_none(), "it ended by itself after {} moves", moved());
            let _ = child.kill();
            let _ = child.wait();
            at.insert(moved());
        }
        drop(play.resume().is(0));
    });
    assert_eq!(at.into_iter().collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7, 8], "killed after each of these moves");
    assert_eq!((seen, wanted(cluster, ns)), ((4, 5), (json!(0), json!(4))));
    play.rollback(&[]).is(0);
    assert_eq!(wanted(cluster, ns), (json!(4), json!(0)));
}

/// Killed twice at each move, by `kill -9`: when it is recorded and the API server has not heard of it, and when it is made and
/// runback does not know. Forward, and on the way back.
fn killed_between(cluster: &Cluster, ns: &str) {
    controllers(cluster, ns, "app:2");
    let way = Between::new(&cluster.api, |asked| asked.method == "PATCH" && asked.path.contains("/scale?"));
    let with = json!({ "from": "rc/v1", "to": "rc/v2", "max_surge": 1, "max_unavailable": 0 });
    let steps = json!([
        { "id": "roll", "uses": "k8s.rolling_update", "with": with },
        // Each move is counted once, however often it was begun.
        { "uses": "assert", "with": { "that": ["steps.roll.outputs.moves == 8"] } },
    ]);
    let play = Play::at_port(way.port, ns, &json!({ "runback": 1, "name": "test", "steps": steps }).to_string());
    let new = || wanted(cluster, ns).1.as_i64().unwrap_or_default();
    let old = || wanted(cluster, ns).0.as_i64().unwrap_or_default();
    let moves: [(&str, &dyn Fn() -> i64); 2] = [("run", &|| new() + 4 - old()), ("rollback", &|| old() + 4 - new())];
    for (first, moved) in moves {
        let seen = watched(cluster, ns, || {
            let mut verb = first;
            for made in 0..8 {
                way.kills(When::Before, || play.start(verb));
                assert_eq!(moved(), made, "a move that was not heard of is not made");
                verb = "resume";
                way.kills(When::After, || play.start(verb));
                assert_eq!(moved(), made + 1, "one move at a time");
            }
            play.resume().is(if first == "run" { 0 } else { 3 });
        });
        assert_eq!((seen, moved()), ((4, 5), 8), "{first}");
    }
}

fn checked(cluster: &Cluster, ns: &str) {
    controllers(cluster, ns, "app:2");
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let good = serve(move |_, _| {
        // Away at every second look: the check is repeated until it holds.
        let busy = count.fetch_add(1, Ordering::Relaxed).is_multiple_of(2);
        (if busy { 503 } else { 200 }, String::new(), String::new())
    });
    let check = |port: u16| json!({ "check": { "url": format!("http://127.0.0.1:{port}/") }, "timeout": "60s" });
    let play = roll(cluster, ns, &check(good));
    play.run(&[]).is(0);
    assert_eq!(
        (wanted(cluster, ns), asked.load(Ordering::Relaxed)),
        ((json!(0), json!(4)), 16),
        "two looks at each move"
    );
    play.rollback(&[]).is(0);
    let bad = serve(|_, _| (503, String::new(), String::new()));
    let mut more = check(bad);
    more["timeout"] = json!("20s");
    let play = roll(cluster, ns, &more);
    play.run(&[]).is(3).says("503");
    play.does("logs", &["r1"]).is(0).says("v2: 0 → 1 pods").lacks("v1: 4 → 3 pods");
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
    let play = roll(cluster, ns, &json!({ "timeout": "10s" }));
    let seen = watched(cluster, ns, || drop(play.run(&[]).is(3).says("no pod came or went for 10s")));
    assert_eq!((seen, wanted(cluster, ns)), ((4, 5), (json!(4), json!(0))));
}
