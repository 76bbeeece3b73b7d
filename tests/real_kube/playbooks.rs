//! The playbooks that ship, against the cluster: to success, and with the last check failing, back to where it was.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value as Json, json};

use crate::cluster::{Api, Cluster, until};
use crate::play::{Play, deployment, own, path, workload};

pub(crate) const TESTS: &[crate::Test] = &[
    ("playbook_rc_rolling_update", rc_rolling_update),
    ("playbook_deployment_rollout", deployment_rollout),
    ("playbook_deployment_patch", deployment_patch),
    ("playbook_pod_unstick", pod_unstick),
];

/// Answers like the pods would: its `Server:` header is the image of the object at `path`. Ends with the test.
struct Outside {
    url: String,
    port: u16,
    over: Arc<AtomicBool>,
}

impl Outside {
    fn new(api: &Api, path: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let over = Arc::new(AtomicBool::new(false));
        let (api, ends) = (api.clone(), over.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                if ends.load(Ordering::Relaxed) {
                    return;
                }
                let mut lines = BufReader::new(&stream).lines();
                while lines.next().and_then(Result::ok).is_some_and(|l| !l.is_empty()) {}
                let object = api.find(&path).unwrap_or_default();
                let image = object["spec"]["template"]["spec"]["containers"][0]["image"]
                    .as_str()
                    .unwrap_or("none")
                    .replace(':', "/");
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nServer: {image}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                );
            }
        });
        Self { url: format!("http://127.0.0.1:{port}/"), port, over }
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = std::net::TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// `-i name=value` for each.
fn inputs(all: &[(&str, &str)]) -> Vec<String> {
    all.iter().flat_map(|(name, value)| ["-i".to_owned(), format!("{name}={value}")]).collect()
}

fn run(play: &Play, all: &[(&str, &str)]) -> crate::play::Ended {
    let given = inputs(all);
    play.run(&given.iter().map(String::as_str).collect::<Vec<_>>())
}

/// What a namespace holds, without what the server keeps and what controllers make.
fn holds(cluster: &Cluster, ns: &str) -> Vec<Json> {
    let mut all = Vec::new();
    for plural in ["deployments", "statefulsets", "replicationcontrollers", "services", "configmaps"] {
        let list = cluster.api.get(&path(ns, plural, ""));
        all.extend(list["items"].as_array().expect("a list").iter().cloned().map(own));
    }
    all
}

fn ready(cluster: &Cluster, ns: &str, plural: &str, name: &str, count: u32) {
    until("its pods", || cluster.api.get(&path(ns, plural, name))["status"]["readyReplicas"] == count);
}

fn rc_rolling_update(cluster: &Cluster, ns: &str) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let manifest = dir.path().join("v2.json");
    std::fs::write(&manifest, workload("v1", "ReplicationController", "v2", 0, "app:2").to_string())
        .expect("it is ours");
    cluster.api.must(
        "POST",
        &path(ns, "replicationcontrollers", ""),
        &workload("v1", "ReplicationController", "v1", 4, "app:1"),
    );
    ready(cluster, ns, "replicationcontrollers", "v1", 4);
    let before = holds(cluster, ns);
    let outside = Outside::new(&cluster.api, path(ns, "replicationcontrollers", "v2"));
    let manifest = manifest.display().to_string();
    let given = |url| {
        [("namespace", ns), ("manifest", &manifest), ("from", "v1"), ("to", "v2"), ("min_ready", "100ms"), ("url", url)]
    };
    // Nothing listens on port 1.
    run(&Play::of_shipped(cluster, "rc-rolling-update.yaml"), &given("http://127.0.0.1:1/")).is(3);
    assert_eq!(holds(cluster, ns), before);
    run(&Play::of_shipped(cluster, "rc-rolling-update.yaml"), &given(&outside.url)).is(0);
    assert_eq!(cluster.api.get(&path(ns, "replicationcontrollers", "v2"))["spec"]["replicas"], 4);
}

fn deployment_rollout(cluster: &Cluster, ns: &str) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let manifest = dir.path().join("web.json");
    std::fs::write(&manifest, deployment("web", 2, "nginx:2").to_string()).expect("it is ours");
    cluster.api.must("POST", &path(ns, "deployments", ""), &deployment("web", 1, "nginx:1"));
    ready(cluster, ns, "deployments", "web", 1);
    let before = holds(cluster, ns);
    let outside = Outside::new(&cluster.api, path(ns, "deployments", "web"));
    let manifest = manifest.display().to_string();
    let given = |server| {
        [
            ("namespace", ns),
            ("manifest", &manifest),
            ("deployment", "web"),
            ("url", &outside.url),
            ("server", server),
            ("force_conflicts", "true"),
        ]
    };
    run(&Play::of_shipped(cluster, "deployment-rollout.yaml"), &given("^nginx/3")).is(3);
    assert_eq!(holds(cluster, ns), before);
    run(&Play::of_shipped(cluster, "deployment-rollout.yaml"), &given("^nginx/2")).is(0);
    ready(cluster, ns, "deployments", "web", 2);
}

fn deployment_patch(cluster: &Cluster, ns: &str) {
    cluster.api.must("POST", &path(ns, "deployments", ""), &deployment("web", 1, "nginx:1"));
    ready(cluster, ns, "deployments", "web", 1);
    let before = holds(cluster, ns);
    let outside = Outside::new(&cluster.api, path(ns, "deployments", "web"));
    let given = |server| {
        [
            ("namespace", ns),
            ("deployment", "web"),
            ("container", "main"),
            ("image", "nginx:2"),
            ("replicas", "1"),
            ("to_replicas", "2"),
            ("url", &outside.url),
            ("server", server),
        ]
    };
    run(&Play::of_shipped(cluster, "deployment-patch.yaml"), &given("^nginx/9")).is(3);
    assert_eq!(holds(cluster, ns), before);
    run(&Play::of_shipped(cluster, "deployment-patch.yaml"), &given("^nginx/2")).is(0);
    let web = cluster.api.get(&path(ns, "deployments", "web"));
    assert_eq!(
        (&web["spec"]["replicas"], &web["metadata"]["annotations"]["kubernetes.io/change-cause"]),
        (&json!(2), &json!("patched by runback"))
    );
}

fn pod_unstick(cluster: &Cluster, ns: &str) {
    cluster.api.must("POST", &path(ns, "statefulsets", ""), &workload("apps/v1", "StatefulSet", "web", 1, "app:1"));
    ready(cluster, ns, "statefulsets", "web", 1);
    // On a node that is no more: its deletion waits for a kubelet that never comes.
    let at = path(ns, "pods", "web-0");
    let binding = json!({ "apiVersion": "v1", "kind": "Binding", "metadata": { "name": "web-0" }, "target": { "kind": "Node", "name": "dead-node" } });
    cluster.api.must("POST", &format!("{at}/binding"), &binding);
    let stuck = cluster.api.get(&at)["metadata"]["uid"].clone();
    cluster.api.must("DELETE", &at, &json!({ "gracePeriodSeconds": 300 }));
    assert!(cluster.api.get(&at)["metadata"]["deletionTimestamp"].is_string());
    let play = Play::of_shipped(cluster, "pod-unstick.yaml");
    run(&play, &[("namespace", ns), ("pod", "web-0"), ("workload", "sts/web"), ("ask", "false")]).is(0);
    let now = cluster.api.get(&at);
    assert_ne!(now["metadata"]["uid"], stuck);
    assert_eq!(now["status"]["phase"], "Running");
}
