//! The playbooks that ship, against the cluster: to success, and with the last check failing, back to where it was.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value as Json, json};

use crate::cluster::{Api, Cluster, PATIENCE, at_rest, until};
use crate::play::{Play, deployment, own, path, workload};
use crate::serve::serve;

pub(crate) const TESTS: &[crate::Test] = &[
    ("playbook_rc_rolling_update", rc_rolling_update),
    ("playbook_deployment_rollout", deployment_rollout),
    ("playbook_deployment_patch", deployment_patch),
    ("playbook_pod_unstick", pod_unstick),
    ("playbook_pod_unstick_fails", pod_unstick_fails),
    ("playbook_prometheus", prometheus),
    ("playbook_nginx_app", nginx_app),
    ("playbook_nfs_pv_pvc", nfs_pv_pvc),
    ("playbook_rbd_storageclass", rbd_storageclass),
    ("playbook_model_serving", model_serving),
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

/// What a namespace holds, of every kind that the API server knows, without what the server keeps; pods of controllers by their
/// number only, since each is another. And what has the namespace in its name and is of none.
fn holds(cluster: &Cluster, ns: &str) -> Vec<Json> {
    let mut all = Vec::new();
    for (plural, items) in cluster.api.everything(ns) {
        let owned = |o: &Json| o["metadata"]["ownerReferences"].as_array().is_some_and(|l| !l.is_empty());
        let (made, own_ones): (Vec<Json>, Vec<Json>) = items.into_iter().partition(owned);
        // A set of an earlier revision stays by design, without pods.
        if plural != "replicasets" {
            all.push(json!({ plural: made.len() }));
        }
        all.extend(own_ones.into_iter().map(own));
    }
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let wide = ["/api/v1/persistentvolumes", "/apis/storage.k8s.io/v1/storageclasses"].map(str::to_owned);
    for at in wide.into_iter().chain(["clusterroles", "clusterrolebindings"].map(|k| format!("{rbac}/{k}"))) {
        let list = cluster.api.get(&at);
        let named = list["items"].as_array().expect("a list").iter().map(|o| &o["metadata"]["name"]);
        all.extend(named.filter(|n| n.as_str().is_some_and(|n| n.contains(ns))).cloned());
    }
    all
}

/// The namespace is as it was, as soon as the controllers have taken up what was done.
#[track_caller]
fn is_again(cluster: &Cluster, ns: &str, before: &[Json]) {
    let began = std::time::Instant::now();
    while holds(cluster, ns) != before && began.elapsed() < PATIENCE {
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    assert_eq!(holds(cluster, ns), before);
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
    is_again(cluster, ns, &before);
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
    is_again(cluster, ns, &before);
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
    is_again(cluster, ns, &before);
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

/// Its last check fails: the new pod is never ready. What a rollback can bring back is there: the workload, and a pod of it.
fn pod_unstick_fails(cluster: &Cluster, ns: &str) {
    cluster.api.must("POST", &path(ns, "statefulsets", ""), &workload("apps/v1", "StatefulSet", "web", 1, "app:1"));
    ready(cluster, ns, "statefulsets", "web", 1);
    let before = holds(cluster, ns);
    // From now on its pods are left alone by the kubelet, so that none becomes ready.
    let hands_off = json!({ "spec": { "template": { "metadata": { "labels": { "hands-off": "yes" } } }, "updateStrategy": { "type": "OnDelete", "rollingUpdate": null } } });
    cluster.api.merge(&path(ns, "statefulsets", "web"), "ops", &hands_off);
    let changed = holds(cluster, ns);
    assert_ne!(changed, before);
    let play = Play::of_shipped(cluster, "pod-unstick.yaml");
    let given = [("namespace", ns), ("pod", "web-0"), ("workload", "sts/web"), ("ask", "false"), ("timeout", "15s")];
    run(&play, &given).is(3).says("statefulset.apps/web in").says("rolled back");
    is_again(cluster, ns, &changed);
}

/// Runs it with its last check failing, sees that the namespace is as it was, and then to success.
fn back_and_forth(
    cluster: &Cluster,
    ns: &str,
    playbook: &str,
    bad: &[(&str, &str)],
    good: &[(&str, &str)],
    says: &str,
) {
    let before = at_rest(|| holds(cluster, ns));
    run(&Play::of_shipped(cluster, playbook), bad).is(3).says(says);
    is_again(cluster, ns, &before);
    run(&Play::of_shipped(cluster, playbook), good).is(0);
    assert_ne!(holds(cluster, ns), before);
}

fn prometheus(cluster: &Cluster, ns: &str) {
    let port = serve(|method, path| {
        let found = if path.contains("query=up") { r#"[{"metric":{},"value":[1,"1"]}]"# } else { "[]" };
        let query = format!(r#"{{"status":"success","data":{{"resultType":"vector","result":{found}}}}}"#);
        match (method, path.split('?').next().unwrap_or_default()) {
            ("GET", "/-/ready") | ("POST", "/-/reload") => (200, String::new(), String::new()),
            ("GET", "/api/v1/query") => (200, "Content-Type: application/json\r\n".to_owned(), query),
            _ => (404, String::new(), String::new()),
        }
    });
    cluster.lead(ns, 9090, port);
    let given = |query| [("namespace", ns), ("nfs_server", "127.0.0.1"), ("query", query)];
    back_and_forth(cluster, ns, "prometheus.yaml", &given("nothing"), &given("up"), "ask/query");
    assert!(cluster.api.find(&format!("/apis/rbac.authorization.k8s.io/v1/clusterroles/prometheus-{ns}")).is_some());
    assert_eq!(cluster.api.get(&path(ns, "persistentvolumeclaims", "prometheus"))["status"]["phase"], "Bound");
}

fn nginx_app(cluster: &Cluster, ns: &str) {
    cluster.lead(ns, 80, serve(|_, _| (200, "Server: nginx/1.27.0\r\n".to_owned(), "hello".to_owned())));
    let given = |server| [("namespace", ns), ("inside", "test -e /proc/self"), ("server", server)];
    back_and_forth(cluster, ns, "nginx-app.yaml", &given("^apache"), &given("^nginx/1"), "ask/answers");
}

fn nfs_pv_pvc(cluster: &Cluster, ns: &str) {
    let volume = format!("nfs-{ns}");
    let given = |claim| {
        [
            ("namespace", ns),
            ("volume", volume.as_str()),
            ("claim", claim),
            ("server", "127.0.0.1"),
            ("path", "/srv"),
            ("size", "2Gi"),
            ("request", "1Gi"),
            ("class", "playbook-nfs"),
        ]
    };
    // A volume of that class that fits better is there: the claim takes that one.
    let other = json!({ "metadata": { "name": "nfs-better" }, "spec": { "capacity": { "storage": "1Gi" }, "accessModes": ["ReadWriteMany"],
        "storageClassName": "playbook-nfs", "nfs": { "server": "127.0.0.1", "path": "/other" }, "persistentVolumeReclaimPolicy": "Retain" } });
    cluster.api.must("POST", "/api/v1/persistentvolumes", &other);
    until("the other volume", || {
        cluster.api.get("/api/v1/persistentvolumes/nfs-better")["status"]["phase"] == "Available"
    });
    let (bad, good) = (given("first"), given("second"));
    back_and_forth(cluster, ns, "nfs-pv-pvc.yaml", &bad, &good, "another volume fits the claim better");
    let claim = cluster.api.get(&path(ns, "persistentvolumeclaims", "second"));
    assert_eq!(claim["spec"]["volumeName"], volume);
}

/// Provisions what is claimed of a class, as ceph-csi would. Ends with the process.
fn play_provisioner(cluster: &Cluster, ns: &str, class: String) {
    let (api, ns) = (cluster.api.clone(), ns.to_owned());
    std::thread::spawn(move || {
        loop {
            let claims = api.find(&path(&ns, "persistentvolumeclaims", "")).unwrap_or_default();
            for claim in claims["items"].as_array().into_iter().flatten() {
                if claim["spec"]["storageClassName"] != class.as_str() || claim["spec"]["volumeName"].is_string() {
                    continue;
                }
                let meta = &claim["metadata"];
                let reference = json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": ns,
                    "name": meta["name"], "uid": meta["uid"] });
                let volume = json!({
                    "metadata": { "name": format!("pvc-{}", meta["uid"].as_str().unwrap_or_default()) },
                    "spec": { "capacity": claim["spec"]["resources"]["requests"], "accessModes": ["ReadWriteOnce"],
                        "storageClassName": class, "claimRef": reference, "persistentVolumeReclaimPolicy": "Retain",
                        "csi": { "driver": "rbd.csi.ceph.com", "volumeHandle": "x" } },
                });
                let _ = api.send("POST", "/api/v1/persistentvolumes", "json", Some(&volume));
            }
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    });
}

fn rbd_storageclass(cluster: &Cluster, ns: &str) {
    let (good, bad) = (format!("good-{ns}"), format!("bad-{ns}"));
    play_provisioner(cluster, ns, good.clone());
    let given =
        |class, timeout| [("namespace", ns), ("cluster_id", "5f9b1c1e"), ("class", class), ("timeout", timeout)];
    let canary = "AQBcanary0key==";
    let of = || Play::of_shipped(cluster, "rbd-storageclass.yaml").with_env("CEPH_USER_KEY", canary);
    let before = holds(cluster, ns);
    let play = of();
    run(&play, &given(&bad, "15s")).is(3).says("still waiting for its phase Bound");
    is_again(cluster, ns, &before);
    play.lacks(&[canary]);
    let play = of();
    run(&play, &given(&good, "3m")).is(0);
    play.lacks(&[canary]);
    assert_eq!(cluster.api.get(&path(ns, "secrets", "ceph-kube"))["data"]["userKey"], "QVFCY2FuYXJ5MGtleT09");
}

fn model_serving(cluster: &Cluster, ns: &str) {
    cluster.lead(
        ns,
        8501,
        serve(|method, path| match (method, path) {
            ("GET", "/v1/models/mnist") => {
                (200, String::new(), r#"{"model_version_status":[{"version":"3","state":"AVAILABLE"}]}"#.to_owned())
            }
            ("POST", "/v1/models/mnist:predict") => (200, String::new(), r#"{"predictions":[[0.25,0.75]]}"#.to_owned()),
            _ => (404, String::new(), String::new()),
        }),
    );
    let given =
        |expected| [("namespace", ns), ("image", "models/mnist:3"), ("instances", "[[1,2]]"), ("expected", expected)];
    let (bad, good) = (given("[[1,0]]"), given("[[0.25,0.75]]"));
    back_and_forth(cluster, ns, "model-serving.yaml", &bad, &good, "the model predicts something else");
}
