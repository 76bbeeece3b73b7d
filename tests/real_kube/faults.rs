//! What happens when the API server goes away in the middle. These stop it, so each runs alone.

use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use crate::cluster::{Cluster, until};
use crate::play::{Play, deployment, path, workload};

pub(crate) const TESTS: &[crate::Test] = &[("faults_an_api_server_that_is_away_is_waited_for", away)];

/// One run with everything that can be under way: a change to be made, pods that are waited for, a rolling update between two
/// moves, a log that is followed.
fn away(cluster: &Cluster, ns: &str) {
    let inside = format!("inside-{}", &ns[..20]);
    cluster.make_namespace(&inside);
    cluster.api.must("POST", &path(ns, "deployments", ""), &deployment("web", 1, "app:1"));
    for (name, replicas) in [("v1", 3), ("v2", 0)] {
        let object = workload("v1", "ReplicationController", name, replicas, "app:1");
        cluster.api.must("POST", &path(ns, "replicationcontrollers", ""), &object);
    }
    let controller = |name: &str| cluster.api.get(&path(ns, "replicationcontrollers", name));
    until("the deployment", || cluster.api.get(&path(ns, "deployments", "web"))["status"]["availableReplicas"] == 1);
    until("the controller", || controller("v1")["status"]["availableReplicas"] == 3);
    let step = |id: &str, uses: &str, needs: Json, mut with: Json| {
        with["namespace"] = with.get("namespace").cloned().unwrap_or(json!(ns));
        json!({ "id": id, "uses": uses, "needs": needs, "with": with })
    };
    let scale = |id: &str, needs: Json, n: u32| {
        step(id, "k8s.scale", needs, json!({ "resource": "deploy/web", "replicas": n }))
    };
    let config = |id: &str, needs: Json| {
        let manifest = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": id } });
        step(id, "k8s.apply", needs, json!({ "manifest": manifest }))
    };
    let program = json!(["sh", "-c", "echo one; sleep 25; echo two"]);
    let play = Play::new(
        cluster,
        &json!([
            scale("first", json!([]), 2),
            { "id": "pause", "uses": "wait", "needs": ["first"], "with": { "for": "2s" } },
            config("c1", json!(["pause"])),
            scale("second", json!(["c1"]), 3),
            config("c2", json!(["second"])),
            step("roll", "k8s.rolling_update", json!([]), json!({ "from": "rc/v1", "to": "rc/v2", "interval": "1s" })),
            step("job", "k8s.run", json!([]), json!({ "namespace": inside, "name": "work", "image": "app:1", "command": program,
                "outputs": { "said": "stdout" } })),
            step("later", "k8s.wait", json!([]), json!({ "resource": "cm/c2" })),
            { "id": "check", "uses": "assert", "needs": ["job", "roll", "later", "c2"], "with": { "that": [
                "steps.job.outputs.said == 'one\\ntwo'", "steps.roll.outputs.moves == 6"] } },
        ]),
    );
    let mut child = play.start("run");
    until("the first step", || cluster.api.get(&path(ns, "deployments", "web"))["spec"]["replicas"] == 2);
    until("the first move", || controller("v2")["spec"]["replicas"] == 1);
    until("the program", || {
        let pods = cluster.api.get(&path(&inside, "pods", ""));
        pods["items"][0]["status"]["phase"] == "Running"
    });
    cluster.stop_api_server();
    let began = Instant::now();
    std::thread::sleep(Duration::from_secs(20));
    assert!(child.try_wait().expect("it is ours").is_none(), "the run did not wait");
    cluster.start_api_server();
    let ended = child.wait().expect("it is ours");
    let told = play.does("show", &["r1"]).text;
    assert!(ended.success() && began.elapsed() > Duration::from_secs(20), "{ended:?}: {told}");
    assert_eq!(cluster.api.get(&path(ns, "deployments", "web"))["spec"]["replicas"], 3);
    assert!(cluster.api.find(&path(ns, "configmaps", "c2")).is_some());
    assert_eq!((&controller("v1")["spec"]["replicas"], &controller("v2")["spec"]["replicas"]), (&json!(0), &json!(3)));
}
