//! What happens when the API server goes away in the middle. These stop it, so each runs alone.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::cluster::{Cluster, until};
use crate::play::{Play, deployment, path};

pub(crate) const TESTS: &[crate::Test] = &[("faults_an_api_server_that_is_away_is_waited_for", away)];

fn away(cluster: &Cluster, ns: &str) {
    cluster.api.must("POST", &path(ns, "deployments", ""), &deployment("web", 1, "app:1"));
    until("the deployment", || cluster.api.get(&path(ns, "deployments", "web"))["status"]["availableReplicas"] == 1);
    let to =
        |n: u32| json!({ "uses": "k8s.scale", "with": { "resource": "deploy/web", "namespace": ns, "replicas": n } });
    let config = |n: u32| {
        json!({ "uses": "k8s.apply", "with": { "namespace": ns,
        "manifest": { "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": format!("c{n}") } } } })
    };
    let play =
        Play::new(cluster, &json!([to(2), { "uses": "wait", "with": { "for": "2s" } }, config(1), to(3), config(2)]));
    let mut child = play.start("run");
    until("the first step", || cluster.api.get(&path(ns, "deployments", "web"))["spec"]["replicas"] == 2);
    cluster.stop_api_server();
    let began = Instant::now();
    std::thread::sleep(Duration::from_secs(20));
    assert!(child.try_wait().expect("it is ours").is_none(), "the run did not wait");
    cluster.start_api_server();
    let ended = child.wait().expect("it is ours");
    assert!(ended.success() && began.elapsed() > Duration::from_secs(20), "{ended:?}");
    assert_eq!(cluster.api.get(&path(ns, "deployments", "web"))["spec"]["replicas"], 3);
    assert!(cluster.api.find(&path(ns, "configmaps", "c2")).is_some());
}
