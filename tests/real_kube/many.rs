//! Many workloads in one playbook, beside a bare client that sends the same requests with the same concurrency. It measures, so
//! it runs alone. What it asserts is the API server's own count of requests, which no busy machine changes; the ratio of the
//! times is printed, and asserted for a release build on a quiet machine: `cargo test --release --test real_kube many`.

#![expect(clippy::print_stdout, reason = "it says what it measured")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use serde_json::json;

use crate::cluster::{Cluster, until};
use crate::play::{Play, path, workload};

pub(crate) const TESTS: &[crate::Test] = &[("many_workloads_cost_no_more_than_by_a_bare_client", scale)];

const COUNT: usize = 200;
const PARALLEL: usize = 16;
const ROUNDS: usize = 3;
/// On a machine that is busy with something else.
const MOST_ROUNDS: usize = if cfg!(debug_assertions) { ROUNDS } else { 8 };
const RATIO: f64 = 1.2;

/// Four requests for each: what it was, what it is, the change, and who owns it.
async fn bare(kubeconfig: &str, ns: &str, set: &str, replicas: u32) {
    let file = kube::config::Kubeconfig::read_from(kubeconfig).expect("up writes it");
    let mut config = kube::Config::from_custom_kubeconfig(file, &kube::config::KubeConfigOptions::default())
        .await
        .expect("it is whole");
    config.default_retry = false;
    let client = kube::Client::try_from(config).expect("it is whole");
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("apps", "v1", "ReplicaSet"));
    let sets: Api<DynamicObject> = Api::namespaced_with(client, ns, &kind);
    let free = Arc::new(tokio::sync::Semaphore::new(PARALLEL));
    let mut all = tokio::task::JoinSet::new();
    for i in 0..COUNT {
        let free = free.clone();
        let (sets, name) = (sets.clone(), format!("{set}{i}"));
        all.spawn(async move {
            let _turn = free.acquire().await;
            sets.get_scale(&name).await.expect("it is there");
            loop {
                let scale = sets.get_scale(&name).await.expect("it is there");
                let version = scale.metadata.resource_version;
                let patch = json!({ "metadata": { "resourceVersion": version }, "spec": { "replicas": replicas } });
                match sets.patch_scale(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
                    Ok(_) => break,
                    // A controller wrote its status meanwhile: the same happens to k8s.scale, which looks again, too.
                    Err(kube::Error::Api(status)) if status.code == 409 => {}
                    Err(e) => panic!("it is not scaled: {e}"),
                }
            }
            sets.get(&name).await.expect("it is there");
        });
    }
    while let Some(done) = all.join_next().await {
        done.expect("it does not panic");
    }
}

/// Requests of somebody who scales, and how often the API server answered one of them with a conflict.
fn requests(cluster: &Cluster) -> (usize, usize) {
    let of_a_client = |verb: &str, sub: &str| sub == "scale" || (sub.is_empty() && verb == "GET");
    let answered = |conflict: bool| {
        cluster.api.answered("replicasets", |verb, sub, code| of_a_client(verb, sub) && (code == "409") == conflict)
    };
    (answered(false), answered(true))
}

/// What was asked meanwhile. A conflict has one more look at what is there, which is nobody's fault.
fn asked(before: (usize, usize), after: (usize, usize)) -> usize {
    (after.0 - before.0) - (after.1 - before.1)
}

fn settled(cluster: &Cluster, ns: &str, pods: usize) {
    until("the controllers", || {
        cluster.api.get(&path(ns, "pods", ""))["items"].as_array().expect("a list").len() == pods
    });
    std::thread::sleep(Duration::from_millis(500));
}

fn scale(cluster: &Cluster, ns: &str) {
    for set in ["bare", "ours"] {
        for i in 0..COUNT {
            let mut object = workload("apps/v1", "ReplicaSet", &format!("{set}{i}"), 0, "app:1");
            object["spec"]["template"]["metadata"]["labels"]["hands-off"] = json!("yes");
            cluster.api.must("POST", &path(ns, "replicasets", ""), &object);
        }
    }
    let playbook = |to: u32| {
        let with = json!({ "resource": "rs/ours{{ each.index }}", "namespace": ns, "replicas": to, "wait": false });
        let items: Vec<usize> = (0..COUNT).collect();
        let each = json!({ "items": items, "max_parallel": PARALLEL });
        let steps = json!([{ "id": "scale", "for_each": each, "uses": "k8s.scale", "with": with }]);
        let whole = json!({ "runback": 1, "name": "many", "max_parallel": PARALLEL, "steps": steps });
        Play::of_text(cluster, &whole.to_string())
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut pods = 0;
    // How long it took to set all to `to`, and what the API server was asked meanwhile.
    let mut measured = |to: u32, work: &dyn Fn()| {
        pods = if to == 1 { pods + COUNT } else { pods - COUNT };
        let before = requests(cluster);
        let began = Instant::now();
        work();
        let took = began.elapsed();
        let asked = asked(before, requests(cluster));
        settled(cluster, ns, pods);
        (took, asked)
    };
    let (mut theirs, mut ours) = (Duration::MAX, Duration::MAX);
    let mut most = (0, 0);
    let mut rounds = 0;
    let ratio = loop {
        for to in [1, 0] {
            let (took, asked) = measured(to, &|| runtime.block_on(bare(&cluster.kubeconfig(), ns, "bare", to)));
            most.0 = asked.max(most.0);
            theirs = theirs.min(if to == 1 { took } else { theirs });
        }
        for to in [1, 0] {
            let play = playbook(to);
            let (took, asked) = measured(to, &|| drop(play.run(&["--output", "lines"]).is(0)));
            most.1 = asked.max(most.1);
            ours = ours.min(if to == 1 { took } else { ours });
        }
        rounds += 1;
        let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
        // What others do on the machine makes either of them slower, never faster: the least of more rounds is nearer to the truth.
        if rounds >= ROUNDS && (ratio <= RATIO || rounds >= MOST_ROUNDS) {
            break ratio;
        }
    };
    println!(
        "{COUNT} workloads, {PARALLEL} at once: bare client {:.2} s, runback {:.2} s, ratio {ratio:.2} (best of {rounds})",
        theirs.as_secs_f64(),
        ours.as_secs_f64()
    );
    let (bare, runback) = most;
    println!("requests: bare client {bare}, runback {runback}");
    assert!(bare >= 4 * COUNT, "the API server counts what is asked: {bare}");
    assert!(runback <= bare + COUNT / 20, "runback asks more often than a bare client: {runback} for {bare}");
    if !cfg!(debug_assertions) {
        assert!(ratio <= RATIO, "runback takes {ratio:.2} times as long");
    }
}
