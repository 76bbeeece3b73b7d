use serde_json::json;

use super::*;

fn kind(api_version: &str, kind: &str) -> Kind {
    super::super::kind::tests::plain(api_version, kind)
}

#[test]
fn a_deployment_is_ready_when_the_new_pods_are_and_the_old_are_gone() {
    let d = |status: Json| json!({ "metadata": { "generation": 2 }, "spec": { "replicas": 3 }, "status": status });
    let stage = |status| stage(&kind("apps/v1", "Deployment"), &d(status));
    let waits = |text: &str| Waits(text.to_owned());
    assert_eq!(stage(json!({})), waits("its controller to see it"));
    assert_eq!(stage(json!({ "observedGeneration": 1 })), waits("its controller to see the change"));
    assert_eq!(stage(json!({ "observedGeneration": 2, "updatedReplicas": 1 })), waits("1 of 3 pods updated"));
    let old = json!({ "observedGeneration": 2, "updatedReplicas": 3, "replicas": 5 });
    assert_eq!(stage(old), waits("2 old pods to go"));
    let slow = json!({ "observedGeneration": 2, "updatedReplicas": 3, "replicas": 3, "availableReplicas": 2 });
    assert_eq!(stage(slow), waits("2 of 3 pods available"));
    let good = json!({ "observedGeneration": 2, "updatedReplicas": 3, "replicas": 3, "availableReplicas": 3 });
    assert_eq!(stage(good), Ready);
    let late = json!({ "observedGeneration": 2, "conditions": [
        { "type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "too late" }] });
    assert_eq!(stage(late), Failed("ProgressDeadlineExceeded: too late".to_owned()));
}

#[test]
fn a_pod_says_why_it_is_not_ready() {
    let pod = json!({ "status": { "phase": "Pending", "containerStatuses": [
        { "name": "main", "state": { "waiting": { "reason": "ImagePullBackOff", "message": "no such image" } } }] } });
    assert_eq!(
        stage(&kind("v1", "Pod"), &pod),
        Waits("it to be ready (main: ImagePullBackOff: no such image)".to_owned())
    );
    let unplaced = json!({ "status": { "phase": "Pending", "conditions": [
        { "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes" }] } });
    assert_eq!(stage(&kind("v1", "Pod"), &unplaced), Waits("it to be ready (Unschedulable: 0/3 nodes)".to_owned()));
    assert_eq!(stage(&kind("v1", "Pod"), &json!({ "status": { "phase": "Succeeded" } })), Ready);
}

#[test]
fn other_kinds_by_their_own_rules() {
    let of = |api: &str, k: &str, object: Json| stage(&kind(api, k), &object);
    assert_eq!(of("v1", "PersistentVolumeClaim", json!({ "status": { "phase": "Bound" } })), Ready);
    assert!(matches!(of("v1", "PersistentVolumeClaim", json!({ "status": { "phase": "Lost" } })), Failed(_)));
    assert_eq!(of("v1", "ConfigMap", json!({})), Ready);
    assert!(matches!(of("batch/v1", "Job", json!({ "status": { "conditions": [
        { "type": "Failed", "status": "True", "reason": "BackoffLimitExceeded" }] } })), Failed(w) if w == "BackoffLimitExceeded"));
    let custom = json!({ "status": { "conditions": [{ "type": "Ready", "status": "False", "reason": "Issuing" }] } });
    assert_eq!(of("cert-manager.io/v1", "Certificate", custom), Waits("its condition Ready (Issuing)".to_owned()));
    assert!(matches!(of("v1", "Pod", json!({ "metadata": { "deletionTimestamp": "t" } })), Waits(_)));
}

#[test]
fn workloads_and_services_by_their_own_rules() {
    let of = |api: &str, k: &str, spec: Json, status: Json| {
        stage(&kind(api, k), &json!({ "metadata": { "generation": 1 }, "spec": spec, "status": status }))
    };
    let waits = |text: &str| Waits(text.to_owned());
    let seen = |more: Json| {
        let mut status = json!({ "observedGeneration": 1 });
        for (key, value) in more.as_object().into_iter().flatten() {
            status[key] = value.clone();
        }
        status
    };
    let three = || json!({ "replicas": 3 });
    let stateful = |status: Json| of("apps/v1", "StatefulSet", three(), seen(status));
    assert_eq!(stateful(json!({ "replicas": 4, "readyReplicas": 4 })), waits("1 pods to go"));
    let half = json!({ "replicas": 3, "readyReplicas": 3, "updatedReplicas": 1, "currentRevision": "a", "updateRevision": "b" });
    assert_eq!(stateful(half), waits("1 of 3 pods updated"));
    assert_eq!(stateful(json!({ "replicas": 3, "readyReplicas": 2 })), waits("2 of 3 pods ready"));
    assert_eq!(stateful(json!({ "replicas": 3, "readyReplicas": 3 })), Ready);
    let daemons = |status: Json| of("apps/v1", "DaemonSet", json!({}), seen(status));
    let want = |updated: u32, available: u32| json!({ "desiredNumberScheduled": 2, "updatedNumberScheduled": updated, "numberAvailable": available });
    assert_eq!(daemons(want(1, 2)), waits("1 of 2 pods updated"));
    assert_eq!(daemons(want(2, 1)), waits("1 of 2 pods available"));
    assert_eq!(daemons(want(2, 2)), Ready);
    for (api, k) in [("apps/v1", "ReplicaSet"), ("v1", "ReplicationController")] {
        assert_eq!(of(api, k, three(), seen(json!({ "replicas": 5 }))), waits("2 pods to go"), "{k}");
        assert_eq!(of(api, k, three(), seen(json!({ "replicas": 2 }))), waits("2 of 3 pods made"), "{k}");
        assert_eq!(of(api, k, three(), seen(json!({ "replicas": 3 }))), waits("0 of 3 pods available"), "{k}");
        assert_eq!(of(api, k, three(), seen(json!({ "replicas": 3, "availableReplicas": 3 }))), Ready, "{k}");
    }
    let service = |spec: Json, status: Json| of("v1", "Service", spec, status);
    assert_eq!(service(json!({ "type": "ClusterIP" }), json!({})), Ready);
    assert_eq!(service(json!({ "type": "LoadBalancer" }), json!({})), waits("its load balancer's address"));
    let address = json!({ "loadBalancer": { "ingress": [{ "ip": "192.0.2.1" }] } });
    assert_eq!(service(json!({ "type": "LoadBalancer" }), address), Ready);
    assert_eq!(of("networking.k8s.io/v1", "Ingress", json!({}), json!({})), Ready);
    let definition = |conditions: Json| {
        of("apiextensions.k8s.io/v1", "CustomResourceDefinition", json!({}), json!({ "conditions": conditions }))
    };
    assert_eq!(definition(json!([])), waits("its condition Established"));
    assert_eq!(definition(json!([{ "type": "Established", "status": "True" }])), Ready);
    let taken = json!([{ "type": "NamesAccepted", "status": "False", "reason": "ShortNamesConflict", "message": "m" }]);
    assert_eq!(definition(taken), Failed("ShortNamesConflict: m".to_owned()));
}

#[test]
fn selectors_become_queries() {
    let of = |s: Json| selector(&json!({ "spec": { "selector": s } }));
    assert_eq!(of(json!({ "app": "rc" })).as_deref(), Some("app=rc"));
    assert_eq!(
        of(json!({ "matchLabels": { "app": "web" }, "matchExpressions": [
            { "key": "tier", "operator": "In", "values": ["a", "b"] }, { "key": "old", "operator": "DoesNotExist" }] }))
        .as_deref(),
        Some("app=web,tier in (a,b),!old")
    );
    assert_eq!(of(json!({})), None);
}
