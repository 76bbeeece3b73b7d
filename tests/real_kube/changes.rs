//! The step types that change objects: what they do, what the plan shows of it, how they are taken back, and what they say
//! when somebody else was there meanwhile.

use serde_json::{Value as Json, json};

use crate::cluster::{Cluster, at_rest, until};
use crate::play::{Play, deployment, own, path, workload};

pub(crate) const TESTS: &[crate::Test] = &[
    ("scale_and_back", scale),
    ("scale_of_every_kind", scale_kinds),
    ("scale_of_a_custom_kind", scale_custom),
    ("scale_drift_is_reported_and_forced", scale_drift),
    ("patch_of_each_type_is_taken_back", patch),
    ("patch_undo_keeps_what_others_did", patch_beside_others),
    ("patch_preconditions_and_riddles", patch_refused),
    ("apply_creates_changes_and_takes_back", apply),
    ("apply_names_the_other_manager", apply_conflict),
    ("apply_undo_leaves_what_others_took_up", apply_foreign),
    ("set_image_and_rollout_history", images),
    ("set_image_that_cannot_be_pulled_is_rolled_back", broken_image),
    ("rollout_restart_pause_resume_and_undo", rollout),
    ("delete_and_make_again", delete),
    ("delete_leaves_orphans_where_it_shall", delete_orphan),
    ("plan_shows_diffs_and_changes_nothing", plan),
];

fn replicas(cluster: &Cluster, ns: &str, plural: &str, name: &str) -> Json {
    cluster.api.get(&path(ns, plural, name))["spec"]["replicas"].clone()
}

fn make(cluster: &Cluster, ns: &str, plural: &str, object: &Json) {
    cluster.api.must("POST", &path(ns, plural, ""), object);
}

fn scale(cluster: &Cluster, ns: &str) {
    make(cluster, ns, "deployments", &deployment("web", 2, "app:1"));
    let play = Play::new(
        cluster,
        &json!([
            { "id": "up", "uses": "k8s.scale", "with": { "resource": "deploy/web", "namespace": ns, "replicas": 4 } },
            { "id": "same", "uses": "k8s.scale", "with": { "resource": "deploy/web", "namespace": ns, "replicas": 4, "only_if": 2 } },
            { "id": "check", "uses": "assert", "with": { "that": [
                "steps.up.outputs.before == 2", "steps.up.outputs.ready == 4", "steps.same.outputs.before == 4" ] } },
        ]),
    );
    play.run(&[]).is(0);
    assert_eq!(cluster.api.get(&path(ns, "deployments", "web"))["status"]["readyReplicas"], 4);
    play.rollback(&[]).is(0);
    assert_eq!(replicas(cluster, ns, "deployments", "web"), 2);
    let refused = json!([{ "uses": "k8s.scale", "with": { "resource": "deploy/web", "namespace": ns, "replicas": 9, "only_if": 5 } }]);
    Play::new(cluster, &refused).run(&[]).is(3).says("has 2 replicas, and only_if wants 5");
}

fn scale_kinds(cluster: &Cluster, ns: &str) {
    make(cluster, ns, "replicasets", &workload("apps/v1", "ReplicaSet", "rs", 1, "app:1"));
    make(cluster, ns, "replicationcontrollers", &workload("v1", "ReplicationController", "rc", 1, "app:1"));
    make(cluster, ns, "statefulsets", &workload("apps/v1", "StatefulSet", "sts", 1, "app:1"));
    make(cluster, ns, "configmaps", &json!({ "metadata": { "name": "c" } }));
    let to = |resource: &str, n: u32| json!({ "uses": "k8s.scale", "with": { "resource": resource, "namespace": ns, "replicas": n } });
    let play = Play::new(cluster, &json!([to("rs/rs", 2), to("rc/rc", 2), to("sts/sts", 0)]));
    play.run(&[]).is(0);
    play.rollback(&[]).is(0);
    for (plural, name) in [("replicasets", "rs"), ("replicationcontrollers", "rc"), ("statefulsets", "sts")] {
        assert_eq!(replicas(cluster, ns, plural, name), 1, "{name}");
    }
    Play::new(cluster, &json!([to("cm/c", 2)])).run(&[]).is(3).says("has no number of replicas");
    // A ReplicaSet of a Deployment is scaled back by its owner: the step says so instead of claiming success.
    make(cluster, ns, "deployments", &deployment("web", 1, "app:1"));
    let sets = path(ns, "replicasets", "") + "?labelSelector=app%3Dweb";
    until("the replica set", || cluster.api.get(&sets)["items"][0]["status"]["readyReplicas"] == 1);
    let set = cluster.api.get(&sets)["items"][0]["metadata"]["name"].as_str().expect("a name").to_owned();
    let owned = Play::new(cluster, &json!([to(&format!("rs/{set}"), 3)]));
    owned.plan(&[]).says("belongs to the Deployment web");
    owned.run(&[]).is(3).says("belongs to the Deployment web");
}

/// Whatever has the subresource, wherever it keeps the number.
fn scale_custom(cluster: &Cluster, ns: &str) {
    let number = json!({ "type": "object", "properties": { "size": { "type": "integer" } } });
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "pools.scale.example.com" },
        "spec": {
            "group": "scale.example.com", "scope": "Namespaced",
            "names": { "plural": "pools", "singular": "pool", "kind": "Pool" },
            "versions": [{ "name": "v1", "served": true, "storage": true,
                "subresources": { "scale": { "specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size" } },
                "schema": { "openAPIV3Schema": { "type": "object", "properties": { "spec": number, "status": number } } } }],
        },
    });
    let pool = json!({ "apiVersion": "scale.example.com/v1", "kind": "Pool", "metadata": { "name": "p" }, "spec": { "size": 3 } });
    Play::new(cluster, &json!([{ "uses": "k8s.apply", "with": { "namespace": ns, "manifest": [definition, pool] } }]))
        .run(&[])
        .is(0);
    let play = Play::new(
        cluster,
        &json!([{ "uses": "k8s.scale", "with": { "resource": "pool/p", "namespace": ns, "replicas": 7, "only_if": 3 } }]),
    );
    let at = format!("/apis/scale.example.com/v1/namespaces/{ns}/pools/p");
    play.plan(&[]).is(0).says("from 3 to 7 replicas");
    play.run(&[]).is(0);
    assert_eq!(cluster.api.get(&at)["spec"]["size"], 7);
    cluster.api.merge(&at, "ops-team", &json!({ "spec": { "size": 9 } }));
    play.rollback(&[]).is(4).says("has 9 replicas, where this step left 7");
    assert_eq!(cluster.api.get(&at)["spec"]["size"], 9);
    play.rollback(&["--force"]).is(0);
    assert_eq!(cluster.api.get(&at)["spec"]["size"], 3);
}

fn scale_drift(cluster: &Cluster, ns: &str) {
    make(cluster, ns, "deployments", &deployment("web", 2, "app:1"));
    let play = Play::new(
        cluster,
        &json!([{ "uses": "k8s.scale", "with": { "resource": "deploy/web", "namespace": ns, "replicas": 3 } }]),
    );
    play.run(&[]).is(0);
    cluster.api.merge(&path(ns, "deployments", "web"), "ops-team", &json!({ "spec": { "replicas": 5 } }));
    play.rollback(&[]).is(4).says("has 5 replicas, where this step left 3").says("\"ops-team\"");
    assert_eq!(replicas(cluster, ns, "deployments", "web"), 5);
    play.rollback(&["--force"]).is(0);
    assert_eq!(replicas(cluster, ns, "deployments", "web"), 2);
}

fn patch(cluster: &Cluster, ns: &str) {
    let mut web = deployment("web", 1, "app:1");
    let side = json!({ "name": "side", "image": "side:1", "env": [{ "name": "A", "value": "1" }] });
    web["spec"]["template"]["spec"]["containers"].as_array_mut().expect("a list").push(side);
    make(cluster, ns, "deployments", &web);
    let before = own(cluster.api.get(&path(ns, "deployments", "web")));
    let to = |kind: &str, patch: Json| json!({ "uses": "k8s.patch", "with": { "resource": "deploy/web", "namespace": ns, "type": kind, "patch": patch, "wait": true } });
    let template = |spec: Json| json!({ "spec": { "template": { "spec": spec } } });
    let play = Play::new(
        cluster,
        &json!([
            to(
                "strategic",
                template(
                    json!({ "containers": [{ "name": "side", "image": "side:2", "env": [{ "name": "B", "value": "2" }] }] })
                )
            ),
            to(
                "merge",
                json!({ "metadata": { "annotations": { "team": "a" } }, "spec": { "template": { "spec": { "nodeSelector": { "disk": "ssd" } } } } })
            ),
            to(
                "json",
                json!([
            { "op": "add", "path": "/spec/template/spec/tolerations", "value": [{ "key": "disk", "operator": "Exists" }] },
            { "op": "add", "path": "/spec/template/spec/containers/0/args", "value": ["-v"] } ])
            ),
        ]),
    );
    play.run(&[]).is(0);
    let after = cluster.api.get(&path(ns, "deployments", "web"));
    let spec = &after["spec"]["template"]["spec"];
    let side = spec["containers"].as_array().expect("a list").iter().find(|c| c["name"] == "side").expect("it stays");
    assert_eq!((&side["image"], side["env"].as_array().map(Vec::len)), (&json!("side:2"), Some(2)));
    assert_eq!((&spec["nodeSelector"]["disk"], &spec["tolerations"][0]["key"]), (&json!("ssd"), &json!("disk")));
    play.rollback(&[]).is(0);
    assert_eq!(own(cluster.api.get(&path(ns, "deployments", "web"))), before);
}

fn patch_beside_others(cluster: &Cluster, ns: &str) {
    make(cluster, ns, "configmaps", &json!({ "metadata": { "name": "c" }, "data": { "a": "1", "b": "1" } }));
    let at = path(ns, "configmaps", "c");
    let play = Play::new(
        cluster,
        &json!([{ "uses": "k8s.patch", "with": { "resource": "cm/c", "namespace": ns, "type": "merge", "patch": { "data": { "a": "2", "n": "2" } } } }]),
    );
    play.run(&[]).is(0);
    cluster.api.merge(&at, "other", &json!({ "data": { "b": "theirs", "a": "theirs" } }));
    play.rollback(&[])
        .is(4)
        .says(".data.a is \"theirs\", where this step left \"2\" and would bring back \"1\", owned by")
        .says("\"other\" (Update");
    assert_eq!(cluster.api.get(&at)["data"], json!({ "a": "theirs", "b": "theirs", "n": "2" }));
    play.rollback(&["--force"]).is(0);
    assert_eq!(cluster.api.get(&at)["data"], json!({ "a": "1", "b": "theirs" }));
}

fn patch_refused(cluster: &Cluster, ns: &str) {
    make(cluster, ns, "deployments", &deployment("web", 1, "app:1"));
    let with = |with: Json| {
        let mut with = with;
        with["resource"] = json!("deploy/web");
        with["namespace"] = json!(ns);
        Play::new(cluster, &json!([{ "uses": "k8s.patch", "with": with }]))
    };
    let guarded = with(json!({ "patch": { "spec": { "replicas": 3 } }, "preconditions": { "spec.replicas": 2 } }));
    guarded.run(&[]).is(3).says("spec.replicas is 1, and the precondition wants 2");
    let invalid = with(json!({ "patch": { "spec": { "replicas": -1 } } }));
    invalid.run(&[]).is(3).says("spec.replicas: Invalid value: -1");
    // The seed's riddle is told before anything is sent.
    let riddle = with(json!({ "type": "json", "patch": { "spec": { "replicas": 3 } } }));
    riddle.run(&[]).is(2).says("a patch of type `json` is a list of operations");
    let absent =
        with(json!({ "type": "json", "patch": [{ "op": "replace", "path": "/spec/nothing/at", "value": 1 }] }));
    absent.run(&[]).is(3).says("an operation's path is not there");
    // Before 1.25 the API server drops it in silence.
    let misspelt = with(json!({ "type": "merge", "patch": { "spec": { "replicsa": 3 } } }));
    misspelt.run(&[]).is(3).says("replicsa").says("a field's name is misspelt");
    assert_eq!(replicas(cluster, ns, "deployments", "web"), 1);
}

fn apply(cluster: &Cluster, ns: &str) {
    make(
        cluster,
        ns,
        "configmaps",
        &json!({ "metadata": { "name": "old", "labels": { "keep": "me" } }, "data": { "a": "1" } }),
    );
    let before = own(cluster.api.get(&path(ns, "configmaps", "old")));
    let inner = format!("{ns}-inner");
    let play = Play::new(
        cluster,
        &json!([{ "id": "all", "uses": "k8s.apply", "with": { "path": "manifests", "namespace": ns } }]),
    );
    play.put(
        "manifests/10.yaml",
        &format!(
            "{}\n---\n{}\n---\n# comment only\n",
            deployment("web", 2, "app:1"),
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": inner } }),
        ),
    );
    play.put("manifests/20.json", &json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "in", "namespace": inner }, "data": { "x": "y" } }).to_string());
    play.put(
        "manifests/30.yml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: { name: old, labels: { new: label } }\ndata: { a: '2', b: '2' }\n",
    );
    // `old` has another manager's `a`.
    play.run(&[]).is(3).says("other managers own fields that differ: .data.a");
    assert!(cluster.api.find(&path(ns, "deployments", "web")).is_none());
    let play = Play::new(
        cluster,
        &json!([{ "id": "all", "uses": "k8s.apply", "with": { "namespace": ns, "force_conflicts": true, "manifest": [
        deployment("web", 2, "app:1"),
        { "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": inner } },
        { "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "in", "namespace": inner }, "data": { "x": "y" } },
        { "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "old", "labels": { "new": "label" } }, "data": { "a": "2", "b": "2" } },
    ] } }]),
    );
    play.plan(&[]).says("create 3, change 1");
    play.run(&[]).is(0);
    play.does("logs", &["r1"]).is(0).says(&format!("deployment.apps/web in {ns}: created"));
    assert_eq!(cluster.api.get(&path(ns, "deployments", "web"))["status"]["availableReplicas"], 2);
    assert_eq!(cluster.api.get(&path(ns, "configmaps", "old"))["data"], json!({ "a": "2", "b": "2" }));
    play.rollback(&[]).is(0);
    assert_eq!(own(cluster.api.get(&path(ns, "configmaps", "old"))), before);
    for gone in
        [path(ns, "deployments", "web"), path(&inner, "configmaps", "in"), format!("/api/v1/namespaces/{inner}")]
    {
        assert!(cluster.api.find(&gone).is_none(), "{gone}");
    }
    let misspelt = json!([{ "uses": "k8s.apply", "with": { "namespace": ns, "manifest": {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "x" }, "spec": { "replicsa": 1 } } } }]);
    Play::new(cluster, &misspelt).run(&[]).is(3).says("replicsa: field not declared in schema").says("misspelt");
}

fn apply_conflict(cluster: &Cluster, ns: &str) {
    let config = |value: &str| json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "c" }, "data": { "a": value } });
    let at = path(ns, "configmaps", "c");
    let (code, _) =
        cluster.api.send("PATCH", &format!("{at}?fieldManager=helm"), "apply-patch+yaml", Some(&config("1")));
    assert_eq!(code, 201);
    let play = |force: bool| {
        Play::new(
            cluster,
            &json!([{ "uses": "k8s.apply", "with": { "namespace": ns, "manifest": config("2"), "force_conflicts": force } }]),
        )
    };
    play(false).run(&[]).is(3).says(".data.a (conflict with \"helm\"").says("force_conflicts: true");
    assert_eq!(cluster.api.get(&at)["data"]["a"], "1");
    let forced = play(true);
    forced.run(&[]).is(0);
    forced.rollback(&[]).is(0);
    assert_eq!(cluster.api.get(&at)["data"]["a"], "1");
}

fn apply_foreign(cluster: &Cluster, ns: &str) {
    let config = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "c" }, "data": { "a": "1" } });
    let play = Play::new(cluster, &json!([{ "uses": "k8s.apply", "with": { "namespace": ns, "manifest": config } }]));
    play.run(&[]).is(0);
    let at = path(ns, "configmaps", "c");
    cluster.api.merge(&at, "kubectl-edit", &json!({ "data": { "theirs": "1" } }));
    play.rollback(&[]).is(4).says("others have changed it since: \"kubectl-edit\"");
    assert_eq!(cluster.api.get(&at)["data"]["theirs"], "1");
    play.rollback(&["--force"]).is(0);
    assert!(cluster.api.find(&at).is_none());
}

fn images(cluster: &Cluster, ns: &str) {
    make(cluster, ns, "deployments", &deployment("web", 2, "app:1"));
    let play = Play::new(
        cluster,
        &json!([
            { "id": "image", "uses": "k8s.set_image", "with": { "resource": "deploy/web", "namespace": ns, "images": { "main": "app:2" } } },
            { "id": "history", "uses": "k8s.rollout", "with": { "resource": "deploy/web", "namespace": ns, "action": "history" } },
            { "id": "check", "uses": "assert", "with": { "that": [
                "steps.image.outputs.before.main == 'app:1'", "steps.image.outputs.revision == 2",
                "steps.history.outputs.history.map(r, r.images[0]) == ['app:1', 'app:2']" ] } },
        ]),
    );
    play.run(&[]).is(0);
    play.rollback(&[]).is(0);
    let web = cluster.api.get(&path(ns, "deployments", "web"));
    assert_eq!(web["spec"]["template"]["spec"]["containers"][0]["image"], "app:1");
    assert_eq!((&web["status"]["updatedReplicas"], &web["status"]["replicas"]), (&json!(2), &json!(2)));
    let wrong = json!([{ "uses": "k8s.set_image", "with": { "resource": "deploy/web", "namespace": ns, "images": { "nginx": "app:2" } } }]);
    Play::new(cluster, &wrong).run(&[]).is(3).says("has no container `nginx`").says("it has main");
}

fn broken_image(cluster: &Cluster, ns: &str) {
    make(cluster, ns, "deployments", &deployment("web", 2, "app:1"));
    until("the deployment", || cluster.api.get(&path(ns, "deployments", "web"))["status"]["availableReplicas"] == 2);
    let before = own(cluster.api.get(&path(ns, "deployments", "web")));
    let steps = json!([{ "uses": "k8s.set_image", "with": { "resource": "deploy/web", "namespace": ns, "images": { "main": "broken:9" }, "timeout": "20s" } }]);
    Play::new(cluster, &steps).run(&[]).is(3).says("ImagePullBackOff: no image broken:9");
    assert_eq!(own(cluster.api.get(&path(ns, "deployments", "web"))), before);
}

fn rollout(cluster: &Cluster, ns: &str) {
    make(cluster, ns, "deployments", &deployment("web", 1, "app:1"));
    let at = path(ns, "deployments", "web");
    until("the deployment", || cluster.api.get(&at)["status"]["availableReplicas"] == 1);
    let before = own(cluster.api.get(&at));
    let roll = |action: &str| json!({ "uses": "k8s.rollout", "with": { "resource": "deploy/web", "namespace": ns, "action": action } });
    let restart = Play::new(cluster, &json!([roll("restart"), roll("pause"), roll("resume"), roll("status")]));
    restart.run(&[]).is(0);
    let notes = &cluster.api.get(&at)["spec"]["template"]["metadata"]["annotations"];
    assert!(notes["kubectl.kubernetes.io/restartedAt"].is_string(), "{notes}");
    restart.rollback(&[]).is(0);
    assert_eq!(own(cluster.api.get(&at)), before);
    // To a revision and back.
    let image = |image: &str| json!({ "uses": "k8s.set_image", "with": { "resource": "deploy/web", "namespace": ns, "images": { "main": image } } });
    Play::new(cluster, &json!([image("app:2")])).run(&[]).is(0);
    let undo = Play::new(cluster, &json!([roll("undo")]));
    undo.plan(&[]).says("- image: app:2").says("+ image: app:1");
    undo.run(&[]).is(0);
    assert_eq!(cluster.api.get(&at)["spec"]["template"]["spec"]["containers"][0]["image"], "app:1");
    undo.rollback(&[]).is(0);
    assert_eq!(cluster.api.get(&at)["spec"]["template"]["spec"]["containers"][0]["image"], "app:2");
    let absent = json!([{ "uses": "k8s.rollout", "with": { "resource": "deploy/web", "namespace": ns, "action": "undo", "to_revision": 99 } }]);
    Play::new(cluster, &absent).run(&[]).is(3).says("has no revision 99").says("the cluster still has:");
}

fn delete(cluster: &Cluster, ns: &str) {
    make(cluster, ns, "deployments", &deployment("web", 2, "app:1"));
    make(
        cluster,
        ns,
        "services",
        &json!({ "metadata": { "name": "web" }, "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80 }] } }),
    );
    let at = path(ns, "deployments", "web");
    until("the deployment", || cluster.api.get(&at)["status"]["availableReplicas"] == 2);
    let (before, service) = (cluster.api.get(&at), own(cluster.api.get(&path(ns, "services", "web"))));
    let remove = |resource: &str| json!({ "uses": "k8s.delete", "with": { "resource": resource, "namespace": ns } });
    let play = Play::new(cluster, &json!([remove("svc/web"), remove("deploy/web"), remove("cm/absent")]));
    play.run(&[]).is(0);
    assert!(cluster.api.find(&at).is_none());
    let pods = cluster.api.get(&(path(ns, "pods", "") + "?labelSelector=app%3Dweb"));
    assert_eq!(pods["items"], json!([]), "foreground deletion is over when the pods are gone");
    play.rollback(&[]).is(0);
    let after = cluster.api.get(&at);
    assert_ne!(after["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(own(after), own(before));
    assert_eq!(own(cluster.api.get(&path(ns, "services", "web"))), service);
    let other = json!([{ "uses": "k8s.delete", "with": { "resource": "deploy/web", "namespace": ns, "uid": "00000000-0000-0000-0000-000000000000" } }]);
    Play::new(cluster, &other).run(&[]).is(3).says("only 00000000-0000-0000-0000-000000000000 may be deleted");
}

fn delete_orphan(cluster: &Cluster, ns: &str) {
    make(cluster, ns, "replicasets", &workload("apps/v1", "ReplicaSet", "rs", 1, "app:1"));
    until("its pod", || cluster.api.get(&path(ns, "replicasets", "rs"))["status"]["readyReplicas"] == 1);
    let pods = || cluster.api.get(&path(ns, "pods", ""))["items"].clone();
    let uid = pods()[0]["metadata"]["uid"].clone();
    let with = json!({ "resource": "rs/rs", "namespace": ns, "propagation": "orphan" });
    let play = Play::new(cluster, &json!([{ "uses": "k8s.delete", "with": with }]));
    play.run(&[]).is(0);
    assert!(cluster.api.find(&path(ns, "replicasets", "rs")).is_none());
    assert_eq!((&pods()[0]["metadata"]["uid"], pods().as_array().map(Vec::len)), (&uid, Some(1)));
    // The new one takes the pod up again.
    play.rollback(&[]).is(0);
    until("its pod", || cluster.api.get(&path(ns, "replicasets", "rs"))["status"]["readyReplicas"] == 1);
    assert_eq!((&pods()[0]["metadata"]["uid"], pods().as_array().map(Vec::len)), (&uid, Some(1)));
}

/// Every object of the namespace with its version, once no controller writes any more.
pub(crate) fn versions(cluster: &Cluster, ns: &str) -> Vec<String> {
    at_rest(|| {
        let all = cluster.api.everything(ns).into_iter();
        let named = |(plural, items): (&str, Vec<Json>)| {
            let one = |o: &Json| format!("{plural} {} {}", o["metadata"]["name"], o["metadata"]["resourceVersion"]);
            items.iter().map(one).collect::<Vec<_>>()
        };
        all.flat_map(named).collect()
    })
}

fn plan(cluster: &Cluster, ns: &str) {
    make(cluster, ns, "deployments", &deployment("web", 2, "app:1"));
    make(cluster, ns, "replicasets", &workload("apps/v1", "ReplicaSet", "rs", 1, "app:1"));
    make(cluster, ns, "replicationcontrollers", &workload("v1", "ReplicationController", "v1", 1, "app:1"));
    make(cluster, ns, "replicationcontrollers", &workload("v1", "ReplicationController", "v2", 0, "app:2"));
    make(cluster, ns, "configmaps", &json!({ "metadata": { "name": "there" }, "data": { "a": "1" } }));
    let at = path(ns, "deployments", "web");
    until("the deployment", || cluster.api.get(&at)["status"]["availableReplicas"] == 2);
    let before = versions(cluster, ns);
    let mut wanted = deployment("web", 2, "app:7");
    wanted["metadata"]["labels"] = json!({ "tier": "front" });
    let config = |name: &str, data: Json| json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": data });
    let step = |uses: &str, mut with: Json| {
        with["namespace"] = json!(ns);
        json!({ "uses": uses, "with": with })
    };
    let image = json!([{ "op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "app:8" }]);
    let side = json!({ "spec": { "template": { "spec": { "containers": [{ "name": "side", "image": "side:1" }] } } } });
    let play = Play::new(
        cluster,
        &json!([
            step("k8s.scale", json!({ "resource": "deploy/web", "replicas": 5 })),
            step("k8s.scale", json!({ "resource": "rs/rs", "replicas": 0 })),
            step("k8s.scale", json!({ "resource": "rc/v1", "replicas": 7 })),
            step(
                "k8s.patch",
                json!({ "resource": "deploy/web", "type": "merge", "patch": { "spec": { "minReadySeconds": 3 } } })
            ),
            step("k8s.patch", json!({ "resource": "deploy/web", "patch": side })),
            step("k8s.patch", json!({ "resource": "deploy/web", "type": "json", "patch": image })),
            step(
                "k8s.apply",
                json!({ "manifest": [wanted, config("there", json!({ "a": "2" })), config("new", json!({ "x": "y" }))], "force_conflicts": true })
            ),
            step("k8s.rolling_update", json!({ "from": "rc/v1", "to": "rc/v2" })),
            step("k8s.delete", json!({ "resource": "deploy/web" })),
        ]),
    );
    let mut ended = play.plan(&[]).is(0);
    for shown in [
        "from 2 to 5 replicas",
        "- replicas: 2 + replicas: 5",
        "- replicas: 1 + replicas: 0",
        "- replicas: 1 + replicas: 7",
        "+ minReadySeconds: 3",
        "+ image: side:1",
        "- image: app:1 + image: app:8",
        "- image: app:1 + image: app:7",
        "- a: '1' + a: '2'",
        "+ x: y",
        "delete deployment.apps/web",
    ] {
        ended = ended.says(shown);
    }
    assert_eq!(versions(cluster, ns), before, "a plan changes nothing");
}
