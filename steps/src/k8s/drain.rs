//! `k8s.drain`: takes a node out of scheduling, and has its pods go elsewhere, by evictions that respect disruption budgets.
//!
//! Pods of DaemonSets and of the node itself stay, and so do those that have ended. Pods without a controller would not come
//! back, and those with an `emptyDir` lose it: both are refused before anything happens, unless `force` or
//! `delete_emptydir_data` says otherwise. An eviction that a budget forbids is tried again until `timeout`. It goes by the
//! version of the eviction API that the cluster serves (policy/v1beta1 with 1.20, policy/v1 with 1.36). **Undo** lets pods
//! be placed there again; those that went are where their controllers have made them anew, and stay there.

use std::collections::BTreeMap;
use std::time::Duration;

use runback_core::Json;
use runback_core::step::{
    Access, Acted, Class, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind,
    Undone,
};
use runback_core::target::Stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::client::{Ask, Clusters, Kube, escape, k8s_inputs};
use super::cordon::{marked, name_problem};
use super::error::ApiError;
use super::object::{Object, Touched, common_problems, text, uid};
use crate::bounded::pause;
use crate::period::Period;

k8s_inputs! {
    /// Which node, and what may be lost.
    {
        /// Its name.
        node: String,
        /// How long a pod has to end. Default: the pod's own.
        #[serde(default)]
        grace: Option<Period>,
        /// Evict pods that no controller makes anew.
        #[serde(default)]
        force: bool,
        /// Evict pods whose `emptyDir` volumes are lost with them.
        #[serde(default)]
        delete_emptydir_data: bool,
        /// Only pods with these labels, as kubectl takes them.
        #[serde(default)]
        selector: Option<String>,
        /// For all pods to be gone.
        #[serde(default = "super::scale::ten_minutes")]
        timeout: Period,
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// `namespace/name` of the pods that went, of all attempts.
    pub(crate) evicted: Vec<String>,
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct K8sDrain(pub(crate) Clusters);

/// What a drain does with a pod.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Evict,
    Stays,
    /// Why it may not be evicted.
    Refused(&'static str),
}

fn fate(pod: &Json, inputs: &Inputs) -> Fate {
    let owner = |kind: Option<&str>| {
        let mut owners = pod["metadata"]["ownerReferences"].as_array().into_iter().flatten();
        owners.any(|o| o["controller"] == true && kind.is_none_or(|k| o["kind"] == k))
    };
    let ended = matches!(text(pod, "/status/phase"), "Succeeded" | "Failed");
    let static_pod = pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_string();
    let scratch = || pod["spec"]["volumes"].as_array().into_iter().flatten().any(|v| v["emptyDir"].is_object());
    if ended || static_pod || owner(Some("DaemonSet")) {
        Fate::Stays
    } else if !owner(None) && !inputs.force {
        Fate::Refused("has no controller that makes it anew (`force: true` evicts it)")
    } else if scratch() && !inputs.delete_emptydir_data {
        Fate::Refused("has an emptyDir, which is lost with it (`delete_emptydir_data: true` evicts it)")
    } else {
        Fate::Evict
    }
}

fn name(pod: &Json) -> String {
    format!("{}/{}", text(pod, "/metadata/namespace"), text(pod, "/metadata/name"))
}

impl Inputs {
    /// The pods that have to go.
    async fn pods(&self, kube: &Kube<'_>) -> Result<Vec<Json>, StepError> {
        let on_node = escape(&format!("spec.nodeName={}", self.node));
        let by = escape(self.selector.as_deref().unwrap_or_default());
        let list = kube.call(&Ask::get(format!("/api/v1/pods?fieldSelector={on_node}&labelSelector={by}"))).await?;
        let (mut go, mut refused) = (Vec::new(), Vec::new());
        for pod in list["items"].as_array().into_iter().flatten() {
            match fate(pod, self) {
                Fate::Evict => go.push(pod.clone()),
                Fate::Stays => {}
                Fate::Refused(why) => refused.push(format!("{} {why}", name(pod))),
            }
        }
        if refused.is_empty() {
            return Ok(go);
        }
        Err(StepError::permanent(format!("the node {} cannot be drained: {}", self.node, refused.join("; ")))
            .help("nothing was evicted; move these pods by hand, or allow it"))
    }
}

/// The apiVersion of evictions that the cluster serves; None = it has none.
async fn eviction_version(kube: &Kube<'_>) -> Result<Option<String>, ApiError> {
    let core = kube.call(&Ask::get("/api/v1")).await?;
    let found = core["resources"].as_array().into_iter().flatten().find(|r| r["name"] == "pods/eviction");
    Ok(found.map(|r| format!("{}/{}", text(r, "/group"), text(r, "/version"))))
}

/// Evicts once; Some = a budget forbids it for now.
async fn evict(kube: &Kube<'_>, pod: &Json, version: &str, grace: Option<Period>) -> Result<Option<String>, StepError> {
    let (namespace, name) = (text(pod, "/metadata/namespace"), text(pod, "/metadata/name"));
    let mut options = json!({ "preconditions": { "uid": uid(pod) } });
    if let Some(grace) = grace {
        options["gracePeriodSeconds"] = json!(grace.0.as_secs());
    }
    let body = json!({
        "apiVersion": version, "kind": "Eviction",
        "metadata": { "name": name, "namespace": namespace }, "deleteOptions": options,
    });
    match kube.call(&Ask::post(format!("/api/v1/namespaces/{namespace}/pods/{name}/eviction"), &body)).await {
        Ok(_) => {
            let line = format!("evicted {namespace}/{name}\n");
            kube.cx.host.output(Stream::Stdout, line.as_bytes());
            Ok(None)
        }
        // Gone, or another pod of that name by now: the next look tells.
        Err(e) if e.is_absent() || e.code() == 409 => Ok(None),
        Err(e) if e.is_budget() => Ok(Some(StepError::from(e).message)),
        Err(e) => Err(e.into()),
    }
}

/// Evicts until none is left.
async fn empty(kube: &Kube<'_>, inputs: &Inputs) -> Result<(), StepError> {
    let cx = kube.cx;
    let began = cx.host.now_ms();
    let version = eviction_version(kube).await?.ok_or_else(|| {
        StepError::permanent(format!("the cluster {} has no evictions", kube.url()))
            .help("delete the pods by k8s.delete; no budget protects them then")
    })?;
    let mut delay = Duration::from_millis(250);
    loop {
        let pods = inputs.pods(kube).await?;
        if pods.is_empty() {
            return Ok(());
        }
        let mut blocked = BTreeMap::new();
        for pod in pods.iter().filter(|p| text(p, "/metadata/deletionTimestamp").is_empty()) {
            // Known before it goes: an interrupted attempt must not forget it.
            cx.host.note(json!({ "evicts": name(pod), "uid": uid(pod) })).await?;
            if let Some(why) = evict(kube, pod, &version, inputs.grace).await? {
                blocked.insert(name(pod), why);
            }
        }
        let waits = match blocked.iter().next() {
            Some((pod, why)) => format!("{} of {} pods are held by a budget: {pod}: {why}", blocked.len(), pods.len()),
            None => format!("{} pods to go, such as {}", pods.len(), name(&pods[0])),
        };
        if u128::from(cx.host.now_ms().saturating_sub(began)) >= inputs.timeout.0.as_millis() {
            let message = format!("the node {}: after {} still {waits}", inputs.node, inputs.timeout);
            return Err(StepError::new(Class::Timeout, message).help(
                "give the workload another pod elsewhere, so that its budget allows one less; or a longer `timeout`",
            ));
        }
        cx.phase(format!("the node {}: {waits}", inputs.node));
        pause(cx, delay, "the drain").await?;
        delay = (delay * 2).min(Duration::from_secs(5));
    }
}

/// The pods that all attempts so far told to go, and that are not there any more.
async fn gone(kube: &Kube<'_>) -> Result<Vec<String>, StepError> {
    let told: BTreeMap<String, String> = (kube.cx.host.notes().iter())
        .filter(|n| n["evicts"].is_string())
        .map(|n| (text(n, "/uid").to_owned(), text(n, "/evicts").to_owned()))
        .collect();
    let kind = kube.kind("pods").await?;
    let mut all = Vec::new();
    for (old, pod) in told {
        let (namespace, name) = pod.split_once('/').unwrap_or_default();
        let live = kube.find(&Object::new(kind.clone(), name, namespace)).await?;
        if live.is_none_or(|live| uid(&live) != old) {
            all.push(pod);
        }
    }
    all.sort();
    all.dedup();
    Ok(all)
}

#[async_trait::async_trait]
impl StepType for K8sDrain {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = Touched;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "k8s.drain",
            doc: "Takes a Kubernetes node out of scheduling, and has its pods go elsewhere.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Client,
            examples: &[
                "\n- id: empty\n  uses: k8s.drain\n  with: { node: kvm1, delete_emptydir_data: true, timeout: 15m }\n",
            ],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut found = common_problems(inputs.place());
        found.extend(name_problem(&inputs.node));
        found
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let kube = self.0.open(cx, inputs.place()).await?.impatient();
        let node = kube.node(&inputs.node).await?;
        let live = kube.must(&node).await?;
        let pods = inputs.pods(&kube).await?;
        let changes = live["spec"]["unschedulable"] != true || !pods.is_empty();
        let details = pods.iter().map(|p| format!("evict {}", name(p))).collect();
        Ok(Preview { changes: Some(changes), summary: format!("drain {node} of {} pods", pods.len()), details })
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Touched, StepError> {
        let kube = self.0.open(cx, inputs.place()).await?;
        let node = kube.node(&inputs.node).await?;
        let live = kube.must(&node).await?;
        inputs.pods(&kube).await?;
        Ok(Touched::between(&node, &live, &marked(&live, false)))
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Touched) -> Result<Acted<Outputs>, StepError> {
        let kube = self.0.open(cx, inputs.place()).await?;
        let node = kube.node(&inputs.node).await?;
        kube.change(&node, false, &|live| Ok(marked(live, false))).await?;
        empty(&kube, inputs).await?;
        let evicted = gone(&kube).await?;
        Ok(Acted { changed: !capture.changes.is_empty() || !evicted.is_empty(), outputs: Outputs { evicted } })
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        inputs: &Inputs,
        capture: &Touched,
        _outputs: Option<&Outputs>,
    ) -> Result<Undone, StepError> {
        let kube = self.0.open(cx, inputs.place()).await?;
        kube.restore(&kube.node(&inputs.node).await?, capture).await
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_becomes_of_each_pod() {
        let plain: Inputs = serde_json::from_value(json!({ "node": "n" })).unwrap();
        let all: Inputs =
            serde_json::from_value(json!({ "node": "n", "force": true, "delete_emptydir_data": true })).unwrap();
        let of = |kind: &str| json!({ "metadata": { "ownerReferences": [{ "kind": kind, "controller": true }] } });
        let bare = json!({ "metadata": {} });
        let mut scratch = of("ReplicaSet");
        scratch["spec"]["volumes"] = json!([{ "name": "tmp", "emptyDir": {} }]);
        let ended = json!({ "status": { "phase": "Succeeded" } });
        let mirror = json!({ "metadata": { "annotations": { "kubernetes.io/config.mirror": "x" } } });
        for (pod, with, want) in [
            (&of("ReplicaSet"), &plain, Fate::Evict),
            (&of("DaemonSet"), &all, Fate::Stays),
            (&ended, &plain, Fate::Stays),
            (&mirror, &all, Fate::Stays),
            (&bare, &all, Fate::Evict),
            (&scratch, &all, Fate::Evict),
        ] {
            assert_eq!(fate(pod, with), want, "{pod}");
        }
        assert!(matches!(fate(&bare, &plain), Fate::Refused(_)));
        assert!(matches!(fate(&scratch, &plain), Fate::Refused(_)));
    }
}
