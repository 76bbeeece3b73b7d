//! What somebody else changed meanwhile, under a field manager of their own: each step type reports it and touches nothing, and
//! `--force` overrides.

use serde_json::{Value as Json, json};

use crate::cluster::{Cluster, at_rest, until};
use crate::play::{Play, deployment, own, path};

pub(crate) const TESTS: &[crate::Test] = &[
    ("drift_of_a_scale_by_its_subresource", scale),
    ("drift_of_a_strategic_and_a_json_patch", patches),
    ("drift_of_one_applied_object_keeps_all", applied),
    ("drift_of_a_created_workload_that_was_scaled", created),
    ("drift_of_an_image", image),
    ("drift_of_a_restart", restart),
    ("drift_of_a_service_and_of_data", made),
];

/// Who the others are.
const OPS: &str = "ops-team";

fn web(cluster: &Cluster, ns: &str, replicas: u32) -> String {
    cluster.api.must("POST", &path(ns, "deployments", ""), &deployment("web", replicas, "app:1"));
    let at = path(ns, "deployments", "web");
    until("the deployment", || cluster.api.get(&at)["status"]["availableReplicas"] == replicas);
    at
}

/// As soon as no controller writes there any more.
fn still(cluster: &Cluster, all: &[&str]) -> Vec<Option<Json>> {
    at_rest(|| all.iter().map(|at| cluster.api.find(at)).collect())
}

/// Undo refuses, says all of that, and leaves each of the objects at the version that it had; `--force` brings all back.
#[track_caller]
fn refused_and_forced(cluster: &Cluster, play: &Play, all: &[&str], says: &[&str]) {
    let before = still(cluster, all);
    let mut ended = play.rollback(&[]).is(4).says("nothing was touched");
    for words in says {
        ended = ended.says(words);
    }
    assert_eq!(still(cluster, all), before, "touched, although it was refused");
    play.rollback(&["--force"]).is(0);
}

fn step(ns: &str, uses: &str, mut with: Json) -> Json {
    with["namespace"] = json!(ns);
    json!({ "uses": uses, "with": with })
}

fn scale(cluster: &Cluster, ns: &str) {
    let at = web(cluster, ns, 2);
    let play = Play::new(cluster, &json!([step(ns, "k8s.scale", json!({ "resource": "deploy/web", "replicas": 3 }))]));
    play.run(&[]).is(0);
    cluster.api.merge(&format!("{at}/scale"), OPS, &json!({ "spec": { "replicas": 5 } }));
    refused_and_forced(cluster, &play, &[&at], &["has 5 replicas, where this step left 3"]);
    assert_eq!(cluster.api.get(&at)["spec"]["replicas"], 2);
}

fn patches(cluster: &Cluster, ns: &str) {
    let at = web(cluster, ns, 1);
    let side = |image: &str| json!({ "spec": { "template": { "spec": { "containers": [{ "name": "side", "image": image }] } } } });
    let add = json!([{ "op": "add", "path": "/spec/minReadySeconds", "value": 1 }]);
    let cases = [
        ("strategic", side("side:1"), side("side:9"), ".spec.template.spec.containers[name=\"side\"] is"),
        (
            "json",
            add,
            json!({ "spec": { "minReadySeconds": 2 } }),
            ".spec.minReadySeconds is 2, where this step left 1",
        ),
    ];
    let before = own(cluster.api.get(&at));
    for (kind, patch, theirs, says) in cases {
        let with = json!({ "resource": "deploy/web", "type": kind, "patch": patch, "wait": true });
        let play = Play::new(cluster, &json!([step(ns, "k8s.patch", with)]));
        play.run(&[]).is(0);
        let request = format!("{at}?fieldManager={OPS}");
        let (code, answer) = cluster.api.send("PATCH", &request, "strategic-merge-patch+json", Some(&theirs));
        assert_eq!(code, 200, "{answer}");
        refused_and_forced(cluster, &play, &[&at], &[says, "\"ops-team\" (Update"]);
        assert_eq!(own(cluster.api.get(&at)), before, "{kind}");
    }
}

/// Three objects of one step: one of them is somebody else's by now, and so the two others stay as well.
fn applied(cluster: &Cluster, ns: &str) {
    let config = |name: &str, data: Json| json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": data });
    let at = |name: &str| path(ns, "configmaps", name);
    cluster.api.must("POST", &path(ns, "configmaps", ""), &config("there", json!({ "a": "1" })));
    let manifest = json!([
        config("there", json!({ "a": "2", "n": "2" })),
        config("new", json!({ "x": "y" })),
        config("last", json!({ "x": "y" })),
    ]);
    let with = json!({ "manifest": manifest, "force_conflicts": true });
    let play = Play::new(cluster, &json!([step(ns, "k8s.apply", with)]));
    play.run(&[]).is(0);
    cluster.api.merge(&at("there"), OPS, &json!({ "data": { "a": "theirs" } }));
    let all = [at("there"), at("new"), at("last")];
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let says = [".data.a is \"theirs\", where this step left \"2\" and would bring back \"1\"", "\"ops-team\" (Update"];
    refused_and_forced(cluster, &play, &all, &says);
    assert_eq!(cluster.api.get(&at("there"))["data"], json!({ "a": "1" }));
    assert_eq!(still(cluster, &all[1..]), [None, None]);
}

/// The step made the workload; who scaled it by the subresource is recorded by no API server before 1.22.
fn created(cluster: &Cluster, ns: &str) {
    let manifest = json!([deployment("web", 2, "app:1"), { "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "c" } }]);
    let play = Play::new(cluster, &json!([step(ns, "k8s.apply", json!({ "manifest": manifest }))]));
    play.run(&[]).is(0);
    let (at, map) = (path(ns, "deployments", "web"), path(ns, "configmaps", "c"));
    cluster.api.merge(&format!("{at}/scale"), OPS, &json!({ "spec": { "replicas": 4 } }));
    refused_and_forced(cluster, &play, &[&at, &map], &["deployment.apps/web in", "stays:"]);
    assert_eq!(still(cluster, &[&at, &map]), [None, None]);
}

fn image(cluster: &Cluster, ns: &str) {
    let at = web(cluster, ns, 1);
    let with = json!({ "resource": "deploy/web", "images": { "main": "app:2" } });
    let play = Play::new(cluster, &json!([step(ns, "k8s.set_image", with)]));
    play.run(&[]).is(0);
    let theirs =
        json!({ "spec": { "template": { "spec": { "containers": [{ "name": "main", "image": "app:9" }] } } } });
    cluster.api.merge(&at, OPS, &theirs);
    let says =
        [".image is \"app:9\", where this step left \"app:2\" and would bring back \"app:1\"", "\"ops-team\" (Update"];
    refused_and_forced(cluster, &play, &[&at], &says);
    assert_eq!(cluster.api.get(&at)["spec"]["template"]["spec"]["containers"][0]["image"], "app:1");
}

fn restart(cluster: &Cluster, ns: &str) {
    let at = web(cluster, ns, 1);
    let with = json!({ "resource": "deploy/web", "action": "restart" });
    let play = Play::new(cluster, &json!([step(ns, "k8s.rollout", with)]));
    play.run(&[]).is(0);
    let again = json!({ "kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z" });
    let template = json!({ "metadata": { "annotations": again } });
    cluster.api.merge(&at, OPS, &json!({ "spec": { "template": template } }));
    refused_and_forced(cluster, &play, &[&at], &["restartedAt", "\"ops-team\" (Update"]);
    let notes = &cluster.api.get(&at)["spec"]["template"]["metadata"]["annotations"];
    assert!(notes["kubectl.kubernetes.io/restartedAt"].is_null(), "{notes}");
}

fn made(cluster: &Cluster, ns: &str) {
    web(cluster, ns, 1);
    let cases = [
        (
            step(ns, "k8s.expose", json!({ "resource": "deploy/web", "port": 80 })),
            path(ns, "services", "web"),
            json!({ "spec": { "ports": [{ "port": 81, "targetPort": 81 }] } }),
        ),
        (
            step(ns, "k8s.configmap", json!({ "name": "conf", "values": { "a": "1" } })),
            path(ns, "configmaps", "conf"),
            json!({ "data": { "b": "theirs" } }),
        ),
        (
            step(ns, "k8s.secret", json!({ "name": "keys", "values": { "a": "1" } })),
            path(ns, "secrets", "keys"),
            json!({ "data": { "b": "dGhlaXJz" } }),
        ),
    ];
    for (one, at, theirs) in cases {
        let play = Play::new(cluster, &json!([one]));
        play.run(&[]).is(0);
        cluster.api.merge(&at, OPS, &theirs);
        refused_and_forced(cluster, &play, &[&at], &["others have changed it since: \"ops-team\""]);
        assert!(cluster.api.find(&at).is_none(), "{at}");
    }
}
