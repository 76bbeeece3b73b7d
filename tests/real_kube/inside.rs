//! What reaches into pods and nodes: logs, exec, ports, programs that run to their end, and nodes that are emptied.

use std::path::PathBuf;

use serde_json::{Value as Json, json};

use crate::changes::versions;
use crate::cluster::{Cluster, until};
use crate::play::{Play, deployment, own, path, workload};
use crate::serve::serve;

pub(crate) const TESTS: &[crate::Test] = &[
    ("inside_exec_and_logs", exec_and_logs),
    ("inside_a_wait_says_why_a_container_crashes", crash),
    ("inside_run_to_the_end", run),
    ("inside_run_is_followed_after_a_kill", run_killed),
    ("inside_a_port_for_the_duration_of_a_block", port_forward),
    ("inside_a_port_is_opened_again_after_a_kill", port_forward_killed),
    ("inside_drain_respects_budgets", drain),
    ("expose_and_back", expose),
    ("configmap_and_secret_of_files", config),
    ("cordon_and_back", cordon),
    ("plan_of_what_reaches_inside_changes_nothing", plan),
];

fn make(cluster: &Cluster, ns: &str, plural: &str, object: &Json) {
    cluster.api.must("POST", &path(ns, plural, ""), object);
}

/// A Deployment whose container writes two lines and stays.
fn talker(cluster: &Cluster, ns: &str, replicas: u32) {
    let mut web = deployment("web", replicas, "app:1");
    let container = &mut web["spec"]["template"]["spec"]["containers"][0];
    container["command"] = json!(["sh", "-c", "echo first; sleep 1; echo listening on port 8080; exec sleep 600"]);
    container["ports"] = json!([{ "name": "http", "containerPort": 8080 }]);
    make(cluster, ns, "deployments", &web);
    until("the pods", || cluster.api.get(&path(ns, "deployments", "web"))["status"]["readyReplicas"] == replicas);
}

fn exec_and_logs(cluster: &Cluster, ns: &str) {
    talker(cluster, ns, 1);
    let step = |id: &str, uses: &str, mut with: Json| {
        with["namespace"] = json!(ns);
        with["resource"] = json!("deploy/web");
        json!({ "id": id, "uses": uses, "with": with })
    };
    let play = Play::new(
        cluster,
        &json!([
            step("line", "k8s.logs", json!({ "expect": "port (\\d+)", "timeout": "2m" })),
            step("all", "k8s.logs", json!({})),
            step("said", "k8s.exec", json!({ "command": ["sh", "-c", "echo one; echo v1.2 >&2; printf 'name=x y\\n'"], "outputs": { "name": { "regex": "name=(.*)" } } })),
            { "uses": "assert", "with": { "that": [
                "steps.line.outputs.matched == '8080'", "steps.all.outputs.lines == 2", "steps.said.outputs.name == 'x y'",
                "steps.said.outputs.stdout == 'one\\nname=x y'" ] } },
        ]),
    );
    play.run(&[]).is(0);
    play.does("logs", &["r1"]).is(0).says("listening on port 8080").says("v1.2");
    let fails = |uses: &str, with: Json| Play::new(cluster, &json!([step("one", uses, with)])).run(&[]).is(3);
    fails("k8s.exec", json!({ "command": ["sh", "-c", "echo broken >&2; exit 3"] })).says("sh: exit code 3: broken");
    fails("k8s.exec", json!({ "command": ["no-such-program"] })).says("could not be run").says("No such file");
    fails("k8s.exec", json!({ "command": ["true"], "container": "other" })).says("it has main");
    fails("k8s.logs", json!({ "expect": "never", "timeout": "10s" }))
        .says("wrote nothing that matches `never` within 10s");
    let eve = Play::new(cluster, &json!([step("one", "k8s.exec", json!({ "command": ["true"] }))]));
    eve.with_kubeconfig(cluster.eve()).run(&[]).is(3).says("cannot get resource \"deployments\"");
    // A pod that no kubelet has: the API server's own words.
    make(
        cluster,
        ns,
        "pods",
        &json!({ "metadata": { "name": "lost", "labels": { "hands-off": "yes" } },
        "spec": { "containers": [{ "name": "main", "image": "app:1" }] } }),
    );
    let lost =
        json!([{ "uses": "k8s.exec", "with": { "resource": "pod/lost", "namespace": ns, "command": ["true"] } }]);
    Play::new(cluster, &lost).run(&[]).is(3).says("does not have a host assigned");
}

/// What a person would look for: the exit code, the last lines of the log, the last events.
fn crash(cluster: &Cluster, ns: &str) {
    let mut web = deployment("web", 1, "app:1");
    web["spec"]["template"]["spec"]["containers"][0]["command"] =
        json!(["sh", "-c", "echo starting; echo cannot bind port 80 >&2; exit 3"]);
    make(cluster, ns, "deployments", &web);
    let uid = cluster.api.get(&path(ns, "deployments", "web"))["metadata"]["uid"].clone();
    let about = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "namespace": ns, "uid": uid });
    make(
        cluster,
        ns,
        "events",
        &json!({ "metadata": { "name": "web.1" }, "involvedObject": about, "type": "Warning", "reason": "QuotaExceeded",
            "message": "no room for more", "lastTimestamp": "2026-01-01T00:00:00Z" }),
    );
    until("the end of its program", || {
        let pods = cluster.api.get(&path(ns, "pods", ""));
        pods["items"][0]["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 3
    });
    until("the controller to see it", || {
        cluster.api.get(&path(ns, "deployments", "web"))["status"]["unavailableReplicas"] == 1
    });
    let step = json!([{ "uses": "k8s.wait", "with": { "resource": "deploy/web", "namespace": ns, "timeout": "15s" } }]);
    Play::new(cluster, &step)
        .run(&[])
        .is(3)
        .says("still waiting for 0 of 1 pods available")
        .says("main: ended with exit code 3")
        .says("/main: starting cannot bind port 80")
        .says("event QuotaExceeded: no room for more");
}

fn job(ns: &str, script: &str, more: &Json) -> Json {
    let mut with = json!({ "name": "work", "namespace": ns, "image": "app:1", "command": ["sh", "-c", script] });
    for (key, value) in more.as_object().into_iter().flatten() {
        with[key] = value.clone();
    }
    json!({ "id": "work", "uses": "k8s.run", "with": with })
}

fn jobs(cluster: &Cluster, ns: &str) -> usize {
    cluster.api.get(&path(ns, "jobs", ""))["items"].as_array().expect("a list").len()
}

fn run(cluster: &Cluster, ns: &str) {
    let more = json!({ "variables": { "WHO": "you" }, "outputs": { "n": { "regex": "n=(.*)" } } });
    let play = Play::new(
        cluster,
        &json!([
            job(ns, "echo hello $WHO; sleep 1; echo n=7", &more),
            { "uses": "assert", "with": { "that": ["steps.work.outputs.n == '7'", "steps.work.outputs.exit_code == 0"] } },
        ]),
    );
    play.run(&[]).is(0);
    play.does("logs", &["r1"]).is(0).says("hello you");
    assert_eq!(jobs(cluster, ns), 0);
    // One that fails says so, and is gone after the rollback; held, it stays to be looked at.
    let fails = json!([job(ns, "echo no disk; exit 4", &json!({}))]);
    Play::new(cluster, &fails).run(&[]).is(3).says("job.batch/work in").says("exit code 4: no disk");
    until("the job to go", || jobs(cluster, ns) == 0);
    let held = json!({ "runback": 1, "name": "test", "on_failure": "hold", "steps": fails });
    let play = Play::of_text(cluster, &held.to_string());
    play.run(&[]).is(1);
    assert_eq!(jobs(cluster, ns), 1);
    Play::new(cluster, &json!([job(ns, "true", &json!({}))]))
        .run(&[])
        .is(3)
        .says("is there already, and this step did not make it");
    assert_eq!(jobs(cluster, ns), 1);
    // The same step again makes a new one in its place.
    play.resume().is(1).says("exit code 4");
    play.rollback(&[]).is(0);
    assert_eq!(jobs(cluster, ns), 0);
    Play::new(cluster, &json!([job(ns, "echo kept", &json!({ "keep": true, "kind": "pod" }))])).run(&[]).is(0);
    assert_eq!(cluster.api.get(&path(ns, "pods", "work"))["status"]["phase"], "Succeeded");
    let late = json!([job(ns, "exec sleep 300", &json!({ "name": "late", "timeout": "20s" }))]);
    Play::new(cluster, &late).run(&[]).is(3).says("its program runs still after 20s");
    until("the late one to go", || jobs(cluster, ns) == 0);
    let never = json!([job(ns, "true", &json!({ "image": "broken:1", "timeout": "20s" , "name": "never" }))]);
    Play::new(cluster, &never).run(&[]).is(3).says("ImagePullBackOff: no image broken:1");
}

fn run_killed(cluster: &Cluster, ns: &str) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (began, go) = (dir.path().join("began"), dir.path().join("go"));
    let script =
        format!("echo x >>{}; while [ ! -e {} ]; do sleep 0.1; done; echo over", began.display(), go.display());
    let play = Play::new(cluster, &json!([job(ns, &script, &json!({}))]));
    let mut child = play.start("run");
    until("the program to begin", || began.exists());
    let _ = child.kill();
    let _ = child.wait();
    let uid = cluster.api.get(&path(ns, "jobs", "work"))["metadata"]["uid"].clone();
    let mut child = play.start("resume");
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(cluster.api.get(&path(ns, "jobs", "work"))["metadata"]["uid"], uid);
    std::fs::write(&go, "").expect("the folder is ours");
    assert!(child.wait().expect("it is ours").success());
    assert_eq!(std::fs::read_to_string(&began).expect("it began"), "x\n", "the program ran once");
    play.does("logs", &["r1"]).is(0).says("over");
    assert_eq!(jobs(cluster, ns), 0);
}

fn web_server(said: &'static str) -> u16 {
    serve(move |_, _| (200, String::new(), said.to_owned()))
}

fn tunnel(ns: &str, port: &Json) -> Json {
    json!({ "id": "tunnel", "uses": "k8s.port_forward", "with": { "resource": "svc/web", "namespace": ns, "port": port } })
}

fn asks(id: &str, said: &str) -> Json {
    json!({ "id": id, "uses": "http.check", "with": {
        "url": "http://{{ steps.tunnel.outputs.address }}/", "body": { "contains": said }, "consecutive": 3, "interval": "10ms" } })
}

fn service(cluster: &Cluster, ns: &str) {
    let spec = json!({ "selector": { "app": "web" }, "ports": [{ "name": "www", "port": 80, "targetPort": "http" }] });
    make(cluster, ns, "services", &json!({ "metadata": { "name": "web" }, "spec": spec }));
}

fn port_forward(cluster: &Cluster, ns: &str) {
    talker(cluster, ns, 2);
    service(cluster, ns);
    cluster.lead(ns, 8080, web_server("it is me"));
    let after = json!({ "id": "after", "uses": "tcp.check", "with": { "host": "127.0.0.1", "port": "{{ steps.inside.outputs.port }}", "state": "closed" } });
    let play = Play::new(
        cluster,
        &json!([
            { "id": "inside", "outputs": { "port": "{{ steps.tunnel.outputs.local_port }}" },
              "steps": [tunnel(ns, &json!("www")), asks("asked", "it is me"),
                // The pod goes: the next connection finds another.
                { "uses": "k8s.delete", "with": { "resource": "pod/{{ steps.tunnel.outputs.pod }}", "namespace": ns } },
                asks("again", "it is me")] },
            after,
        ]),
    );
    play.run(&[]).is(0);
    let wrong = Play::new(cluster, &json!([tunnel(ns, &json!(99))]));
    wrong.run(&[]).is(3).says("it has no port `99`");
}

fn port_forward_killed(cluster: &Cluster, ns: &str) {
    talker(cluster, ns, 1);
    service(cluster, ns);
    cluster.lead(ns, 8080, web_server("still me"));
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (began, go): (PathBuf, PathBuf) = (dir.path().join("began"), dir.path().join("go"));
    let script = format!("touch {}; while [ ! -e {} ]; do sleep 0.1; done", began.display(), go.display());
    let play = Play::new(
        cluster,
        &json!([{ "id": "inside", "steps": [
            tunnel(ns, &json!(80)),
            { "run": script, "on_interrupt": "rerun" },
            asks("asked", "still me"),
        ] }]),
    );
    let mut child = play.start("run");
    until("the step behind the tunnel", || began.exists());
    let _ = child.kill();
    let _ = child.wait();
    std::fs::write(&go, "").expect("the folder is ours");
    play.resume().is(0);
}

fn drain(cluster: &Cluster, ns: &str) {
    talker(cluster, ns, 2);
    let of_node = || cluster.api.get("/api/v1/nodes/node-c");
    let schedulable = |node: &Json| node["spec"]["unschedulable"] != true;
    let on = |node: &str| {
        let pods = cluster.api.get(&path(ns, "pods", ""));
        let all = pods["items"].as_array().expect("a list").iter().filter(|p| p["spec"]["nodeName"] == node);
        all.count()
    };
    assert_eq!(on("node-c"), 2);
    let version = if cluster.api.find("/apis/policy/v1").is_some() { "v1" } else { "v1beta1" };
    let budgets = format!("/apis/policy/{version}/namespaces/{ns}/poddisruptionbudgets");
    let budget = json!({ "metadata": { "name": "web" }, "spec": { "minAvailable": 2, "selector": { "matchLabels": { "app": "web" } } } });
    cluster.api.must("POST", &budgets, &budget);
    until("the budget", || cluster.api.get(&format!("{budgets}/web"))["status"]["currentHealthy"] == 2);
    let step = |timeout: &str| json!([{ "id": "drain", "uses": "k8s.drain", "with": { "node": "node-c", "timeout": timeout } }]);
    Play::new(cluster, &step("1m")).plan(&[]).says("drain node/node-c of 2 pods").says(&format!("evict {ns}/web-"));
    // No pod may go: it says whose budget it is, and the node takes pods again.
    Play::new(cluster, &step("15s")).run(&[]).is(3).says("2 of 2 pods are held by a budget").says("disruption budget");
    assert!(schedulable(&of_node()) && on("node-c") == 2);
    cluster.api.merge(&format!("{budgets}/web"), "ops", &json!({ "spec": { "minAvailable": 1 } }));
    let play = Play::new(cluster, &step("3m"));
    play.run(&[]).is(0);
    assert!(!schedulable(&of_node()));
    assert_eq!(on("node-c"), 0);
    // Their controller makes them anew, and a scheduler has to see them.
    until("the pods on the other node", || on("node-b") == 2);
    play.rollback(&[]).is(0);
    assert!(schedulable(&of_node()));
    // One that nothing makes anew is refused before anything happens.
    let bare = json!({ "metadata": { "name": "bare" }, "spec": { "nodeName": "node-c", "containers": [{ "name": "main", "image": "app:1" }] } });
    make(cluster, ns, "pods", &bare);
    until("the bare pod", || on("node-c") == 1);
    Play::new(cluster, &step("1m")).run(&[]).is(3).says("bare has no controller that makes it anew");
    assert!(schedulable(&of_node()) && on("node-c") == 1);
}

fn expose(cluster: &Cluster, ns: &str) {
    make(cluster, ns, "replicationcontrollers", &workload("v1", "ReplicationController", "web", 1, "app:1"));
    let play = Play::new(
        cluster,
        &json!([
            { "id": "out", "uses": "k8s.expose", "with": { "resource": "rc/web", "namespace": ns, "port": 80, "target_port": 8080, "type": "NodePort" } },
            { "uses": "assert", "with": { "that": ["steps.out.outputs.node_port >= 30000", "steps.out.outputs.name == 'web'"] } },
        ]),
    );
    play.plan(&[]).says("expose rc/web as service/web");
    assert!(cluster.api.find(&path(ns, "services", "web")).is_none());
    play.run(&[]).is(0);
    let spec = cluster.api.get(&path(ns, "services", "web"))["spec"].clone();
    assert_eq!((&spec["selector"], &spec["ports"][0]["targetPort"]), (&json!({ "app": "web" }), &json!(8080)));
    play.rollback(&[]).is(0);
    assert!(cluster.api.find(&path(ns, "services", "web")).is_none());
    // One that is there is changed, and has its fields back.
    let there = json!({ "metadata": { "name": "web" }, "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80, "targetPort": 8081 }] } });
    make(cluster, ns, "services", &there);
    let before = own(cluster.api.get(&path(ns, "services", "web")));
    let other = json!([{ "uses": "k8s.expose", "with": { "resource": "rc/web", "namespace": ns, "port": 80, "target_port": 8081, "labels": { "a": "b" } } }]);
    let play = Play::new(cluster, &other);
    play.run(&[]).is(0);
    assert_eq!(cluster.api.get(&path(ns, "services", "web"))["metadata"]["labels"]["a"], "b");
    play.rollback(&[]).is(0);
    assert_eq!(own(cluster.api.get(&path(ns, "services", "web"))), before);
}

fn config(cluster: &Cluster, ns: &str) {
    let canary = "hunter2-canary";
    let play = Play::new(
        cluster,
        &json!([
            { "uses": "k8s.configmap", "with": { "name": "conf", "namespace": ns, "dir": "conf", "values": { "mode": "fast" }, "labels": { "app": "web" } } },
            { "uses": "k8s.secret", "with": { "name": "keys", "namespace": ns, "env_file": "keys.env", "files": { "tls.key": "conf/app.ini" } } },
        ]),
    );
    play.put("conf/app.ini", "[a]\nb = 1\n");
    play.put("keys.env", &format!("# of the app\nPASSWORD={canary}\n"));
    let planned = play.plan(&[]).says("create 1").text;
    assert!(!planned.contains(canary), "{planned}");
    play.run(&[]).is(0);
    let map = cluster.api.get(&path(ns, "configmaps", "conf"));
    assert_eq!(map["data"], json!({ "app.ini": "[a]\nb = 1\n", "mode": "fast" }));
    let secret = cluster.api.get(&path(ns, "secrets", "keys"));
    assert_eq!(secret["data"]["PASSWORD"], "aHVudGVyMi1jYW5hcnk=");
    play.lacks(&[canary, "aHVudGVyMi1jYW5hcnk"]);
    play.rollback(&[]).is(0);
    assert!(cluster.api.find(&path(ns, "configmaps", "conf")).is_none());
    assert!(cluster.api.find(&path(ns, "secrets", "keys")).is_none());
}

fn cordon(cluster: &Cluster, _ns: &str) {
    cluster.api.must("POST", "/api/v1/nodes", &json!({ "metadata": { "name": "lonely" } }));
    let at = "/api/v1/nodes/lonely";
    let play = Play::new(cluster, &json!([{ "uses": "k8s.cordon", "with": { "node": "lonely" } }]));
    play.plan(&[]).says("take node/lonely out of scheduling");
    play.run(&[]).is(0);
    assert_eq!(cluster.api.get(at)["spec"]["unschedulable"], true);
    play.rollback(&[]).is(0);
    assert!(cluster.api.get(at)["spec"]["unschedulable"].is_null());
    let absent = json!([{ "uses": "k8s.cordon", "with": { "node": "absent" } }]);
    Play::new(cluster, &absent).run(&[]).is(3).says("node/absent is not there");
}

fn plan(cluster: &Cluster, ns: &str) {
    make(cluster, ns, "deployments", &deployment("web", 1, "app:1"));
    until("the pod", || cluster.api.get(&path(ns, "deployments", "web"))["status"]["availableReplicas"] == 1);
    let before = versions(cluster, ns);
    let step = |uses: &str, mut with: Json| {
        with["namespace"] = json!(ns);
        json!({ "uses": uses, "with": with })
    };
    let steps = json!([
        step("k8s.configmap", json!({ "name": "c", "values": { "a": "1" } })),
        step("k8s.secret", json!({ "name": "s", "values": { "a": "1" } })),
        step("k8s.expose", json!({ "resource": "deploy/web", "port": 80 })),
        step("k8s.run", json!({ "name": "job", "image": "task:1" })),
        step("k8s.exec", json!({ "resource": "deploy/web", "command": ["true"] })),
        step("k8s.port_forward", json!({ "resource": "deploy/web", "port": 80 })),
        step("k8s.set_image", json!({ "resource": "deploy/web", "images": { "main": "app:2" } })),
        step("k8s.rollout", json!({ "resource": "deploy/web", "action": "restart" })),
    ]);
    let play = Play::new(cluster, &steps);
    play.plan(&[])
        .is(0)
        .says("+kind: ConfigMap")
        .says("+kind: Secret")
        .says("expose deploy/web as service/web")
        .says(&format!("run task:1 as job.batch/job in {ns}"))
        .says("run true in main of the pod web-")
        .says("forward a local port to 80 of the pod web-")
        .says("+ image: app:2");
    assert_eq!(versions(cluster, ns), before);
}
