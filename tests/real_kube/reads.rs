//! `k8s.get` and `k8s.wait`, and what every step type says of a cluster that refuses.

use serde_json::json;

use crate::cluster::Cluster;
use crate::play::{Play, deployment, path};

pub(crate) const TESTS: &[crate::Test] = &[
    ("get_reads_objects_and_fields", get),
    ("get_finds_custom_kinds_by_short_names", custom),
    ("wait_says_why_it_is_not_ready", wait_says_why),
    ("wait_for_conditions_values_and_the_end", wait),
    ("refusals_name_the_rule_and_the_cluster", refusals),
];

fn get(cluster: &Cluster, ns: &str) {
    cluster.api.must("POST", &path(ns, "deployments", ""), &deployment("web", 2, "app:1"));
    cluster.api.must(
        "POST",
        &path(ns, "secrets", ""),
        &json!({ "metadata": { "name": "key" }, "stringData": { "token": "hunter2-hunter2" } }),
    );
    let play = Play::new(
        cluster,
        &json!([
            { "id": "up", "uses": "k8s.wait", "with": { "resource": "deploy/web", "namespace": ns } },
            { "id": "one", "uses": "k8s.get", "with": { "resource": "deployments.apps/web", "namespace": ns,
                "fields": { "ready": "status.readyReplicas", "image": "$.spec.template.spec.containers[0].image" } } },
            { "id": "many", "uses": "k8s.get", "with": { "resource": "po", "selector": "app=web", "namespace": ns,
                "fields": { "phases": "$.items[*].status.phase" } } },
            { "id": "none", "uses": "k8s.get", "with": { "resource": "cm/absent", "namespace": ns, "missing": "ok" } },
            { "id": "secret", "uses": "k8s.get", "with": { "resource": "secret/key", "namespace": ns } },
            { "id": "check", "uses": "assert", "with": { "that": [
                "steps.one.outputs.fields.ready == 2",
                "steps.one.outputs.fields.image == 'app:1'",
                "steps.many.outputs.fields.phases == ['Running', 'Running']",
                "!steps.none.outputs.found",
                "steps.secret.outputs.object.data.token.startsWith('⟦')",
            ] } },
        ]),
    );
    play.run(&[]).is(0);
    let told = play.does("show", &["r1", "--output", "json"]).is(0);
    assert!(!told.text.contains("hunter2") && !told.text.contains("aHVudGVyMi"), "{}", told.text);
    let missing =
        Play::new(cluster, &json!([{ "uses": "k8s.get", "with": { "resource": "svc/absent", "namespace": ns } }]));
    missing.run(&[]).is(3).says(&format!("service/absent in {ns} is not there"));
    let unknown =
        Play::new(cluster, &json!([{ "uses": "k8s.get", "with": { "resource": "wombat/x", "namespace": ns } }]));
    unknown.run(&[]).is(3).says("has no kind `wombat`");
}

fn custom(cluster: &Cluster, ns: &str) {
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "gadgets.example.com" },
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": { "plural": "gadgets", "singular": "gadget", "kind": "Gadget", "shortNames": ["gdt"] },
            "versions": [{ "name": "v1", "served": true, "storage": true,
                "schema": { "openAPIV3Schema": { "type": "object", "properties": {
                    "spec": { "type": "object", "properties": { "size": { "type": "integer" } } } } } } }],
        },
    });
    // The definition and an object of it in one step: the kind is not known when the step begins.
    let object =
        json!({ "apiVersion": "example.com/v1", "kind": "Gadget", "metadata": { "name": "g" }, "spec": { "size": 3 } });
    let play = Play::new(
        cluster,
        &json!([
            { "id": "make", "uses": "k8s.apply", "with": { "namespace": ns, "manifest": [object, definition] } },
            { "id": "grow", "uses": "k8s.patch", "with": { "resource": "gdt/g", "namespace": ns, "type": "merge", "patch": { "spec": { "size": 4 } } } },
            { "id": "look", "uses": "k8s.get", "with": { "resource": "gdt/g", "namespace": ns, "fields": { "size": "spec.size" } } },
            { "id": "check", "uses": "assert", "with": { "that": ["steps.look.outputs.fields.size == 4"] } },
        ]),
    );
    play.plan(&[]).says("create 2");
    play.run(&[]).is(0);
    play.rollback(&[]).is(0);
    let (code, _) = cluster.api.send(
        "GET",
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/gadgets.example.com",
        "",
        None,
    );
    assert_eq!(code, 404);
}

fn wait_says_why(cluster: &Cluster, ns: &str) {
    cluster.api.must("POST", &path(ns, "deployments", ""), &deployment("web", 1, "broken:1"));
    let play = Play::new(
        cluster,
        &json!([{ "uses": "k8s.wait", "with": { "resource": "deploy/web", "namespace": ns, "timeout": "20s" } }]),
    );
    play.run(&[])
        .is(3)
        .says("still waiting for 0 of 1 pods available")
        .says("main: ImagePullBackOff: no image broken:1");
}

fn wait(cluster: &Cluster, ns: &str) {
    cluster.api.must("POST", &path(ns, "deployments", ""), &deployment("web", 1, "app:1"));
    cluster.api.must(
        "POST",
        &path(ns, "configmaps", ""),
        &json!({ "metadata": { "name": "c" }, "data": { "mode": "fast" } }),
    );
    let play = Play::new(
        cluster,
        &json!([
            { "uses": "k8s.wait", "with": { "resource": "deploy/web", "namespace": ns, "condition": "Available" } },
            { "uses": "k8s.wait", "with": { "resource": "cm/c", "namespace": ns, "path": "data.mode", "equals": "fast" } },
            { "uses": "k8s.wait", "with": { "resource": "ns/".to_owned() + ns, "phase": "Active" } },
            { "uses": "k8s.wait", "with": { "resource": "cm/gone", "namespace": ns, "deleted": true } },
        ]),
    );
    play.run(&[]).is(0);
    let never = json!([{ "uses": "k8s.wait", "with": { "resource": "cm/c", "namespace": ns, "path": "data.mode", "equals": "slow", "timeout": "10s" } }]);
    Play::new(cluster, &never).run(&[]).is(3).says("still waiting for data.mode to be \"slow\" (now \"fast\")");
}

fn refusals(cluster: &Cluster, ns: &str) {
    cluster.api.must("POST", &path(ns, "deployments", ""), &deployment("web", 1, "app:1"));
    let scale = json!([{ "uses": "k8s.scale", "with": { "resource": "deploy/web", "namespace": ns, "replicas": 2 } }]);
    let eve = Play::new(cluster, &scale).with_kubeconfig(cluster.eve());
    eve.run(&[])
        .is(3)
        .says("User \"eve\" cannot get resource \"deployments/scale\"")
        .says("resources: [\"deployments/scale\"], verbs: [\"get\"]");
    let nowhere = Play::new(cluster, &scale).with_kubeconfig("/nowhere/config".to_owned());
    nowhere.run(&[]).is(3).says("/nowhere/config");
    let context = json!([{ "uses": "k8s.get", "with": { "resource": "pods", "context": "absent" } }]);
    Play::new(cluster, &context).run(&[]).is(3).says("context `absent`");
}
