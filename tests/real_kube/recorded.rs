//! What an API server 1.36.2 answered, replayed by a small server: the shapes of answers and refusals that the suite's own
//! cluster (1.20 on Debian) does not give. A scene is a few recordings; a request gets the first that fits and is not used up,
//! the last one again and again. It keeps no objects: what needs a cluster that works is tested against a real one.

use std::sync::{Arc, Mutex};

use serde_json::{Value as Json, json};

use crate::play::Play;
use crate::serve::{Answer, serve};

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("recorded_answers_are_all_replayed", all_are_used),
    ("recorded_reads", reads),
    ("recorded_scale", scale),
    ("recorded_scale_of_every_kind", scale_kinds),
    ("recorded_apply_and_back", applied),
    ("recorded_kinds_come_late", late),
    ("recorded_strategic_patch_and_back", patched),
    ("recorded_refusals", refusals),
    ("recorded_conflict_is_tried_again", stale),
    ("recorded_pods", pods),
    ("recorded_eviction_against_a_budget", eviction),
];

const NS: &str = "rec80521";

fn recordings() -> Vec<Json> {
    let text = include_str!("../real/kube/recorded-1.36.2.jsonl");
    text.lines().map(|l| serde_json::from_str(l).expect("each line is JSON")).collect()
}

/// A recording by its name, or (after `#`) a part of its body.
fn body(name: &str) -> (u16, Json) {
    let (name, part) = name.split_once('#').unwrap_or((name, ""));
    let all = recordings();
    let found = all.iter().find(|r| r["name"] == name).unwrap_or_else(|| panic!("nothing is recorded as `{name}`"));
    let status = found["response"]["status"].as_u64().expect("a number") as u16;
    (status, found["response"]["body"].pointer(part).cloned().unwrap_or_default())
}

/// `METHOD path` (empty = as it was recorded), and what is answered: a recording, or an object as text.
struct Scene(Vec<(String, u16, Json, bool)>);

impl Scene {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn then(self, name: &str) -> Self {
        let all = recordings();
        let found = all.iter().find(|r| r["name"] == name).unwrap_or_else(|| panic!("nothing is recorded as `{name}`"));
        let path = found["request"]["path"].as_str().expect("a text").split('?').next().unwrap_or_default().to_owned();
        let request = format!("{} {path}", found["request"]["method"].as_str().expect("a text"));
        self.at(&request, name)
    }

    fn at(self, request: &str, name: &str) -> Self {
        let (status, body) = body(name);
        self.own(request, status, body)
    }

    fn own(mut self, request: &str, status: u16, body: Json) -> Self {
        self.0.push((request.to_owned(), status, body, false));
        self
    }
}

/// What the recordings have no answer for: which kinds there are.
fn discovery(path: &str) -> Option<Json> {
    let kind = |name: &str, kind: &str, short: &str, namespaced: bool| json!({ "name": name, "kind": kind, "namespaced": namespaced, "singularName": kind.to_lowercase(), "shortNames": [short] });
    let sub = |name: &str, kind: &str, group: &str, version: &str| json!({ "name": name, "kind": kind, "group": group, "version": version, "namespaced": true, "singularName": "" });
    let list = |resources: Json| Some(json!({ "kind": "APIResourceList", "resources": resources }));
    match path {
        "/apis" => Some(json!({ "kind": "APIGroupList", "groups": [
            { "name": "apps", "versions": [{ "version": "v1" }], "preferredVersion": { "version": "v1" } }] })),
        "/api/v1" => list(json!([
            kind("pods", "Pod", "po", true),
            kind("configmaps", "ConfigMap", "cm", true),
            kind("nodes", "Node", "no", false),
            kind("replicationcontrollers", "ReplicationController", "rc", true),
            sub("replicationcontrollers/scale", "Scale", "autoscaling", "v1"),
            sub("pods/eviction", "Eviction", "policy", "v1"),
        ])),
        "/apis/apps/v1" => list(json!([
            kind("deployments", "Deployment", "deploy", true),
            sub("deployments/scale", "Scale", "autoscaling", "v1"),
            kind("replicasets", "ReplicaSet", "rs", true),
            sub("replicasets/scale", "Scale", "autoscaling", "v1"),
            kind("statefulsets", "StatefulSet", "sts", true),
            sub("statefulsets/scale", "Scale", "autoscaling", "v1"),
        ])),
        _ => None,
    }
}

/// A playbook that talks to the scene, and what it asked.
struct Stage {
    play: Play,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Stage {
    fn new(scene: Scene, steps: &Json) -> Self {
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (seen, scene) = (asked.clone(), Mutex::new(scene.0));
        let port = serve(move |method, path| answer(&scene, &seen, method, path));
        let playbook = json!({ "runback": 1, "name": "test", "steps": steps });
        Self { play: Play::at_port(port, NS, &playbook.to_string()), asked }
    }

    fn count(&self, request: &str) -> usize {
        self.asked.lock().expect("nobody panics with it").iter().filter(|r| r.starts_with(request)).count()
    }
}

fn answer(
    scene: &Mutex<Vec<(String, u16, Json, bool)>>,
    asked: &Mutex<Vec<String>>,
    method: &str,
    path: &str,
) -> Answer {
    let json = "Content-Type: application/json\r\n".to_owned();
    let plain = path.split('?').next().unwrap_or_default();
    let request = format!("{method} {plain}");
    asked.lock().expect("nobody panics with it").push(format!("{method} {path}"));
    let mut all = scene.lock().expect("nobody panics with it");
    let fits: Vec<usize> = (0..all.len()).filter(|i| all[*i].0 == request).collect();
    if let Some(known) = discovery(plain).filter(|_| fits.is_empty()) {
        return (200, json, known.to_string());
    }
    let Some(at) = fits.iter().find(|i| !all[**i].3).or(fits.last()).copied() else {
        let absent = json!({ "kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound", "message": format!("{request} is in no recording") });
        return (404, json, absent.to_string());
    };
    all[at].3 = true;
    let body = if all[at].2.is_null() { String::new() } else { all[at].2.to_string() };
    (all[at].1, json, body)
}

/// What is recorded is there to be replayed.
fn all_are_used() {
    let source = include_str!("recorded.rs");
    let kinds = ["ReplicaSet", "StatefulSet", "ReplicationController"];
    for one in recordings() {
        let name = one["name"].as_str().expect("a text");
        let general = kinds.iter().fold(name.to_owned(), |name, kind| name.replace(kind, "{kind}"));
        let used = [name, &general]
            .iter()
            .any(|n| source.contains(&format!("\"{n}\"")) || source.contains(&format!("\"{n}#")));
        assert!(used, "`{name}` is replayed by no test");
    }
}

fn reads() {
    let scene = Scene::new()
        .then("get deployment after the controllers saw it")
        .then("list its pods, first page")
        .then("list its pods, second page")
        .then("list at a compacted resourceVersion");
    let stage = Stage::new(
        scene,
        &json!([
            { "id": "web", "uses": "k8s.get", "with": { "resource": "deploy/web", "fields": { "kind": "kind", "n": "spec.replicas" } } },
            { "id": "pods", "uses": "k8s.get", "with": { "resource": "po", "selector": "app=web", "fields": { "names": "$.items[*].metadata.name" } } },
            { "uses": "assert", "with": { "that": ["steps.web.outputs.fields.kind == 'Deployment'", "size(steps.pods.outputs.fields.names) == 2"] } },
            { "uses": "k8s.get", "with": { "resource": "cm" } },
        ]),
    );
    stage.play.run(&[]).is(3).says("k8s-get-4 failed").says("The resourceVersion for the provided list is too old");
    assert_eq!(stage.count(&format!("GET /api/v1/namespaces/{NS}/pods?")), 2, "both pages, each once");
}

fn scale() {
    let scene = Scene::new()
        .then("get scale of a deployment")
        .then("merge patch scale")
        .then("get deployment after the controllers saw it");
    let to = body("merge patch scale#/spec/replicas").1;
    let from = body("get scale of a deployment#/spec/replicas").1;
    let step = json!([{ "uses": "k8s.scale", "with": { "resource": "deploy/web", "replicas": to, "wait": false } }]);
    let stage = Stage::new(scene, &step);
    stage.play.plan(&[]).is(0).says(&format!("scale deployment.apps/web in {NS} from {from} to {to} replicas"));
    assert_eq!(stage.count("PATCH"), 0);
    stage.play.run(&[]).is(0);
    assert_eq!(
        stage.count(&format!("PATCH /apis/apps/v1/namespaces/{NS}/deployments/web/scale?fieldManager=runback")),
        1
    );
}

fn scale_kinds() {
    for (resource, kind, at) in [
        ("rs/rs", "ReplicaSet", format!("/apis/apps/v1/namespaces/{NS}/replicasets/rs")),
        ("sts/sts", "StatefulSet", format!("/apis/apps/v1/namespaces/{NS}/statefulsets/sts")),
        ("rc/rc", "ReplicationController", format!("/api/v1/namespaces/{NS}/replicationcontrollers/rc")),
    ] {
        let (before, after) = (format!("get scale of a {kind}"), format!("patch scale of a {kind}"));
        let (get, patch) = (format!("GET {at}/scale"), format!("PATCH {at}/scale"));
        // To be captured, to be changed, and to be taken back.
        let scene = Scene::new().then(&before).then(&before).at(&get, &after).then(&after).at(&patch, &before);
        let scene = scene.at(&format!("GET {at}"), &format!("create {kind}"));
        let to = body(&format!("{after}#/spec/replicas")).1;
        let step = json!([{ "uses": "k8s.scale", "with": { "resource": resource, "replicas": to, "wait": false } }]);
        let stage = Stage::new(scene, &step);
        stage.play.run(&[]).is(0);
        assert_eq!(stage.count(&patch), 1, "{kind}");
        stage.play.rollback(&[]).is(0);
        assert_eq!(stage.count(&patch), 2, "{kind}");
    }
}

fn applied() {
    let at = format!("/apis/apps/v1/namespaces/{NS}/deployments/ssa");
    let (get, patch) = (format!("GET {at}"), format!("PATCH {at}"));
    let recorded = recordings();
    let manifest =
        recorded.iter().find(|r| r["name"] == "apply creates").expect("it is recorded")["request"]["body"].clone();
    let with = json!({ "manifest": manifest, "field_manager": "a", "wait": false });
    let steps = json!([{ "uses": "k8s.apply", "with": with }]);
    let made = || Scene::new().at(&get, "get what is absent").then("apply creates").then("apply creates");
    // As it was left: the API server says so itself, asked what applying once more would change.
    let scene = made().at(&get, "apply without change").at(&get, "apply without change");
    let scene = scene.at(&get, "get what is absent").then("apply without change").then("delete in the foreground");
    let stage = Stage::new(scene, &steps);
    stage.play.run(&[]).is(0);
    stage.play.rollback(&[]).is(0);
    assert_eq!((stage.count(&format!("{patch}?fieldManager=a&dryRun=All")), stage.count("DELETE")), (3, 1));
    // Another manager has taken fields over by then.
    let scene = made().at(&get, "apply by another, forced").at(&get, "apply by another, forced");
    let stage = Stage::new(scene.at(&get, "get what is absent").then("delete in the foreground"), &steps);
    stage.play.run(&[]).is(0);
    stage
        .play
        .rollback(&[])
        .is(4)
        .says("deployment.apps/ssa in rec80521 stays: others have changed it since: \"b\" at");
    assert_eq!(stage.count("DELETE"), 0);
    stage.play.rollback(&["--force"]).is(0);
    assert_eq!(stage.count("DELETE"), 1);
}

/// A definition is established before its kind is listed, in the list of its group or in that of the groups.
fn late() {
    let manifest =
        |api: &str, kind: &str, name: &str| json!({ "apiVersion": api, "kind": kind, "metadata": { "name": name } });
    let mut definition = manifest("apiextensions.k8s.io/v1", "CustomResourceDefinition", "gadgets.example.com");
    definition["spec"] = json!({ "group": "example.com", "scope": "Namespaced", "names": { "kind": "Gadget", "plural": "gadgets" },
        "versions": [{ "name": "v1", "served": true, "storage": true }, { "name": "v0", "served": false, "storage": false }] });
    let object = manifest("example.com/v1", "Gadget", "g");
    let with = json!({ "manifest": [object, definition], "wait": false, "timeout": "20s" });
    let steps = json!([
        { "uses": "k8s.apply", "with": with },
        { "uses": "k8s.get", "with": { "resource": "gadget/g" } },
    ]);
    definition["status"] = json!({ "conditions": [{ "type": "Established", "status": "True" }] });
    let kinds = |name: &str, kind: &str, namespaced: bool| {
        json!({ "kind": "APIResourceList",
        "resources": [{ "name": name, "kind": kind, "namespaced": namespaced, "singularName": kind.to_lowercase() }] })
    };
    let group = |name: &str| json!({ "name": name, "versions": [{ "version": "v1" }], "preferredVersion": { "version": "v1" } });
    let (before, after) =
        (vec![group("apiextensions.k8s.io")], vec![group("apiextensions.k8s.io"), group("example.com")]);
    let groups = |groups: &[Json]| json!({ "kind": "APIGroupList", "groups": groups });
    let absent = || body("get what is absent");
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let (at, of) =
        (format!("{definitions}/gadgets.example.com"), format!("/apis/example.com/v1/namespaces/{NS}/gadgets/g"));
    for (groups_late, kinds_late) in [(0, 6), (4, 2), (2, 6)] {
        let mut scene = Scene::new()
            .own(
                "GET /apis/apiextensions.k8s.io/v1",
                200,
                kinds("customresourcedefinitions", "CustomResourceDefinition", false),
            )
            .own(&format!("GET {at}"), absent().0, absent().1)
            .own(&format!("GET {at}"), 200, definition.clone())
            .own(&format!("PATCH {at}"), 200, definition.clone())
            .own(&format!("PATCH {of}"), 200, manifest("example.com/v1", "Gadget", "g"))
            .own(&format!("GET {of}"), 200, manifest("example.com/v1", "Gadget", "g"));
        for _ in 0..groups_late {
            scene = scene.own("GET /apis", 200, groups(&before));
        }
        for _ in 0..kinds_late {
            scene = scene.own("GET /apis/example.com/v1", absent().0, absent().1);
        }
        scene = scene.own("GET /apis", 200, groups(&after));
        scene = scene.own("GET /apis/example.com/v1", 200, kinds("gadgets", "Gadget", true));
        let stage = Stage::new(scene, &steps);
        stage.play.run(&[]).is(0);
        assert_eq!(stage.count(&format!("PATCH {of}")), 1);
    }
}

fn patched() {
    let at = format!("/apis/apps/v1/namespaces/{NS}/deployments/ssa");
    let (get, patch) = (format!("GET {at}"), format!("PATCH {at}"));
    let (before, after) = ("apply by another, forced", "strategic merge patch of one container");
    let scene = Scene::new().at(&get, before).at(&get, before).at(&get, before).at(&get, after);
    let scene = scene.then(after).then(after).at(&patch, before);
    let containers = json!([{ "name": "main", "image": "app:3" }]);
    let with = json!({ "resource": "deploy/ssa", "patch": { "spec": { "template": { "spec": { "containers": containers } } } } });
    let steps = json!([
        { "id": "patch", "uses": "k8s.patch", "with": with },
        { "uses": "assert", "with": { "that": [
            "'.spec.template.spec.containers[name=\"main\"].image' in steps.patch.outputs.fields"] } },
    ]);
    let stage = Stage::new(scene, &steps);
    stage.play.run(&[]).is(0);
    assert_eq!(stage.count(&format!("{patch}?fieldManager=runback&fieldValidation=Strict")), 1);
    stage.play.rollback(&[]).is(0);
    assert_eq!(stage.count(&patch), 3, "a rehearsal, the patch, and its inverse");
}

fn refusals() {
    let ssa = |more: Json| {
        let mut object =
            json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "ssa" }, "spec": {} });
        object["spec"] = more;
        json!({ "uses": "k8s.apply", "with": { "manifest": object } })
    };
    let patch = |kind: &str, patch: Json| json!({ "uses": "k8s.patch", "with": { "resource": "deploy/ssa", "type": kind, "patch": patch } });
    let scale = |resource: &str| json!({ "uses": "k8s.scale", "with": { "resource": resource, "replicas": 7 } });
    let with_ssa = || Scene::new().then("get ssa");
    let absent = format!("GET /apis/apps/v1/namespaces/{NS}/replicasets/absent/scale");
    let cases = [
        (
            scale("deploy/web"),
            Scene::new().then("get scale of a deployment").then("forbidden: patch scale"),
            "rule { apiGroups: [\"apps\"], resources: [\"deployments/scale\"], verbs: [\"patch\"] }",
        ),
        (
            scale("rs/absent"),
            Scene::new().at(&absent, "scale what is absent"),
            "replicaset.apps/absent in rec80521 is not there",
        ),
        (
            json!({ "uses": "k8s.get", "with": { "resource": "pods" } }),
            Scene::new().at(&format!("GET /api/v1/namespaces/{NS}/pods"), "unauthorized"),
            "does not know these credentials",
        ),
        (
            json!({ "uses": "k8s.get", "with": { "resource": "deploy/absent" } }),
            Scene::new().then("get what is absent"),
            "deployment.apps/absent in rec80521 is not there",
        ),
        (
            ssa(json!({ "replicas": 3 })),
            with_ssa().then("apply by another, conflict"),
            "other managers own fields that differ: .spec.replicas (conflict with \"a\"",
        ),
        (ssa(json!({ "replicsa": 3 })), with_ssa().then("apply with an unknown field"), "a field's name is misspelt"),
        (
            patch("merge", json!({ "spec": { "replicsa": 3 } })),
            with_ssa().at(
                &format!("PATCH /apis/apps/v1/namespaces/{NS}/deployments/ssa"),
                "create with an unknown field, Strict",
            ),
            "a field's name is misspelt",
        ),
        (
            patch("strategic", json!({ "spec": { "replicas": 3 } })),
            with_ssa().then("patch with an unknown patch type"),
            "custom resources take `merge` and `json`",
        ),
        (
            scale("deploy/web"),
            Scene::new().then("get scale of a deployment").then("merge patch scale to -1"),
            "correct spec.replicas: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            json!({ "uses": "k8s.drain", "with": { "node": "n1" } }),
            Scene::new()
                .own("GET /api/v1/nodes/n1", 200, json!({ "kind": "Node", "metadata": { "name": "n1" }, "spec": {} }))
                .at("GET /api/v1/pods", "forbidden: list everywhere"),
            "a ClusterRole bound to that user needs the rule { apiGroups: [\"\"], resources: [\"pods\"], verbs: [\"list\"] }",
        ),
        (
            ssa(json!({})),
            Scene::new().at(
                &format!("PATCH /apis/apps/v1/namespaces/{NS}/deployments/ssa"),
                "create in a namespace that is going",
            ),
            "because it is being terminated",
        ),
        (
            patch("merge", json!({ "spec": { "selector": { "matchLabels": { "app": "x" } } } })),
            with_ssa().then("merge patch of an immutable field"),
            "`selector` does not match template `labels`",
        ),
        (
            patch("json", json!([{ "op": "test", "path": "/spec/replicas", "value": 9 }])),
            with_ssa().then("json patch whose test fails"),
            "the server rejected our request",
        ),
    ];
    for (step, scene, says) in cases {
        Stage::new(scene, &json!([step])).play.run(&[]).is(3).says(says);
    }
}

fn stale() {
    let request = format!("PATCH /apis/apps/v1/namespaces/{NS}/deployments/ssa");
    let scene = Scene::new()
        .then("get ssa")
        .at(&request, "get ssa")
        .then("merge patch with an old resourceVersion")
        .at(&request, "get ssa");
    let with = json!({ "resource": "deploy/ssa", "images": { "*": "app:99" }, "wait": false });
    let stage = Stage::new(scene, &json!([{ "uses": "k8s.set_image", "with": with }]));
    stage.play.run(&[]).is(0);
    assert_eq!(stage.count(&request), 3, "a rehearsal, one that came too late, and one more");
    let request = format!("PATCH /apis/apps/v1/namespaces/{NS}/deployments/web/scale");
    let scene = Scene::new()
        .then("get scale of a deployment")
        .at(&request, "replace scale again with the old resourceVersion")
        .then("merge patch scale")
        .then("get deployment after the controllers saw it");
    let to = body("merge patch scale#/spec/replicas").1;
    let step = json!([{ "uses": "k8s.scale", "with": { "resource": "deploy/web", "replicas": to, "wait": false } }]);
    let stage = Stage::new(scene, &step);
    stage.play.run(&[]).is(0);
    assert_eq!(stage.count(&request), 2, "one that came too late, and one more");
}

fn pods() {
    let pod = format!("GET /api/v1/namespaces/{NS}/pods/sts-0");
    let scene = Scene::new()
        .at(&pod, "pods of the stateful set#/items/0")
        .then("exec on a pod with no node")
        .then("logs of a pod with no node");
    let with = |more: Json| {
        let mut with = json!({ "resource": "pod/sts-0", "container": "main" });
        for (key, value) in more.as_object().into_iter().flatten() {
            with[key] = value.clone();
        }
        with
    };
    let steps = json!([
        // Nothing yet, and no error: 1.20 had another answer.
        { "id": "log", "uses": "k8s.logs", "with": with(json!({})) },
        { "uses": "assert", "with": { "that": ["steps.log.outputs.lines == 0"] } },
        { "uses": "k8s.exec", "with": with(json!({ "command": ["true"] })) },
    ]);
    Stage::new(scene, &steps).play.run(&[]).is(3).says("pod sts-0 does not have a host assigned");
    let scene = Scene::new().at(&format!("GET /api/v1/namespaces/{NS}/pods/absent"), "logs of an absent pod");
    let steps = json!([{ "uses": "k8s.logs", "with": { "resource": "pod/absent" } }]);
    Stage::new(scene, &steps).play.run(&[]).is(3).says("pod/absent in rec80521 is not there");
}

fn eviction() {
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n1", "uid": "u", "resourceVersion": "1" }, "spec": {} });
    let scene = Scene::new()
        .own("GET /api/v1/nodes/n1", 200, node.clone())
        .own("PATCH /api/v1/nodes/n1", 200, node)
        .at("GET /api/v1/pods", "pods of the stateful set")
        .then("evict against the budget");
    let steps =
        json!([{ "uses": "k8s.drain", "with": { "node": "n1", "timeout": "8s", "delete_emptydir_data": true } }]);
    let stage = Stage::new(scene, &steps);
    stage.play.run(&[]).is(3).says("held by a budget").says("violate the pod's disruption budget");
    assert!(stage.count(&format!("POST /api/v1/namespaces/{NS}/pods/sts-0/eviction")) > 1, "it is tried again");
}
