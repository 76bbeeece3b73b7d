//! `k8s.expose`: makes a Service for the pods of a workload, as `kubectl expose` does.
//!
//! The Service selects what the workload selects; a pod is selected by its labels. It is made by server-side apply: one that
//! is there already is changed where it differs, and a field that another manager owns is an error. **Undo** as that of
//! `k8s.apply`: a Service that was not there is deleted, one that was has its fields back.

use std::collections::BTreeMap;

use runback_core::Json;
use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind, Undone,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::apply::{self, K8sApply};
use super::client::{Clusters, k8s_inputs};
use super::object::{common_problems, problem, split, text};
use crate::period::Period;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) enum Type {
    /// An address inside the cluster.
    #[default]
    ClusterIP,
    /// And a port on every node.
    NodePort,
    /// And an address from the cloud, which is waited for.
    LoadBalancer,
}

k8s_inputs! {
    /// What to expose, and how.
    {
        /// The workload or pod, such as `deploy/web`.
        resource: String,
        /// The Service's port.
        port: u16,
        /// The pods' port, by number or name. Default: the same as `port`.
        #[serde(default)]
        target_port: Option<Json>,
        /// `TCP`, `UDP` or `SCTP`.
        #[serde(default = "tcp")]
        protocol: String,
        /// The Service's name. Default: the workload's.
        #[serde(default)]
        name: Option<String>,
        /// `ClusterIP`, `NodePort` or `LoadBalancer`.
        #[serde(default, rename = "type")]
        kind: Type,
        /// The port on every node, for `NodePort` and `LoadBalancer`. Default: the cluster chooses.
        #[serde(default)]
        node_port: Option<u16>,
        /// The Service's own labels.
        #[serde(default)]
        labels: BTreeMap<String, String>,
        /// For the Service to be ready.
        #[serde(default = "super::scale::ten_minutes")]
        timeout: Period,
    }
}

fn tcp() -> String {
    "TCP".to_owned()
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// The Service's name.
    pub(crate) name: String,
    /// Its address inside the cluster.
    pub(crate) cluster_ip: String,
    /// The port on every node; null for `ClusterIP`.
    pub(crate) node_port: Option<u16>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Capture {
    service: Json,
    applied: apply::Capture,
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct K8sExpose(pub(crate) Clusters);

/// The labels that a Service must ask for to find the pods of an object.
fn selected(object: &str, live: &Json) -> Result<Json, StepError> {
    if live["kind"] == "Pod" {
        let labels = &live["metadata"]["labels"];
        let any = labels.as_object().is_some_and(|l| !l.is_empty());
        return any.then(|| labels.clone()).ok_or_else(|| {
            StepError::permanent(format!("{object} has no labels that a Service could select it by"))
                .help("give it one, such as `app: web`")
        });
    }
    let selector = &live["spec"]["selector"];
    if selector["matchExpressions"].as_array().is_some_and(|e| !e.is_empty()) {
        return Err(StepError::permanent(format!("{object} selects its pods by expressions, and a Service cannot"))
            .help("apply a Service with a `selector` of its own by k8s.apply"));
    }
    let labels = if selector["matchLabels"].is_object() { &selector["matchLabels"] } else { selector };
    let plain = labels.as_object().is_some_and(|l| !l.is_empty() && l.values().all(Json::is_string));
    plain.then(|| labels.clone()).ok_or_else(|| StepError::permanent(format!("{object} has no selector for its pods")))
}

impl Inputs {
    fn service(&self, selector: &Json, name: &str) -> Json {
        let mut port = json!({ "port": self.port, "protocol": self.protocol, "targetPort": self.target_port.clone().unwrap_or(json!(self.port)) });
        if let Some(node_port) = self.node_port {
            port["nodePort"] = json!(node_port);
        }
        let mut service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": name },
            "spec": { "type": self.kind, "selector": selector, "ports": [port] },
        });
        if !self.labels.is_empty() {
            service["metadata"]["labels"] = json!(self.labels);
        }
        service
    }

    fn applying(&self, service: Json) -> apply::Inputs {
        apply::Inputs {
            manifest: Some(service),
            path: None,
            force_conflicts: false,
            wait: true,
            timeout: self.timeout,
            kubeconfig: self.kubeconfig.clone(),
            context: self.context.clone(),
            namespace: self.namespace.clone(),
            field_manager: self.field_manager.clone(),
        }
    }
}

impl K8sExpose {
    async fn wanted(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Json, StepError> {
        let kube = self.0.open(cx, inputs.place()).await?;
        let object = kube.object(&inputs.resource).await?;
        let selector = selected(&object.to_string(), &kube.must(&object).await?)?;
        Ok(inputs.service(&selector, inputs.name.as_deref().unwrap_or(&object.name)))
    }

    fn apply(&self) -> K8sApply {
        K8sApply(self.0.clone())
    }
}

#[async_trait::async_trait]
impl StepType for K8sExpose {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = Capture;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "k8s.expose",
            doc: "Makes a Kubernetes Service for the pods of a workload.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Client,
            examples: &[
                "\n- id: service\n  uses: k8s.expose\n  with: { resource: deploy/web, port: 80, target_port: 8080 }\n",
                "\n- id: outside\n  uses: k8s.expose\n  with: { resource: rc/web, name: web-outside, port: 80, type: NodePort, node_port: 30080 }\n",
            ],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut found = common_problems(inputs.place());
        found.extend(split(&inputs.resource).err().map(|e| problem("resource", e)));
        if inputs.port == 0 {
            found.push(problem("port", "must be 1 to 65535"));
        }
        if !["TCP", "UDP", "SCTP"].contains(&inputs.protocol.as_str()) {
            found.push(problem("protocol", format!("`{}` is none of TCP, UDP and SCTP", inputs.protocol)));
        }
        if inputs.node_port.is_some() && inputs.kind == Type::ClusterIP {
            found.push(problem("node_port", "a Service of type ClusterIP has none; give `type: NodePort`"));
        }
        if inputs.target_port.as_ref().is_some_and(|p| !p.is_string() && p.as_u64().is_none_or(|n| n > 65535)) {
            found.push(problem("target_port", "must be a port's number or name"));
        }
        found
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let service = self.wanted(cx, inputs).await?;
        let summary = format!("expose {} as service/{}", inputs.resource, text(&service, "/metadata/name"));
        Ok(Preview { summary, ..self.apply().preview(cx, &inputs.applying(service)).await? })
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Capture, StepError> {
        let service = self.wanted(cx, inputs).await?;
        let applied = self.apply().capture(cx, &inputs.applying(service.clone())).await?;
        Ok(Capture { service, applied })
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Capture) -> Result<Acted<Outputs>, StepError> {
        let acted = self.apply().act(cx, &inputs.applying(capture.service.clone()), &capture.applied).await?;
        let kube = self.0.open(cx, inputs.place()).await?;
        let name = text(&capture.service, "/metadata/name").to_owned();
        let live = kube.must(&kube.object(&format!("svc/{name}")).await?).await?;
        let node_port = live["spec"]["ports"][0]["nodePort"].as_u64().and_then(|n| u16::try_from(n).ok());
        let cluster_ip = text(&live, "/spec/clusterIP").to_owned();
        Ok(Acted { outputs: Outputs { name, cluster_ip, node_port }, changed: acted.changed })
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        inputs: &Inputs,
        capture: &Capture,
        _outputs: Option<&Outputs>,
    ) -> Result<Undone, StepError> {
        self.apply().undo(cx, &inputs.applying(capture.service.clone()), &capture.applied, None).await
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_service_asks_for_what_the_workload_selects() {
        let labels = json!({ "app": "web" });
        let deployment = json!({ "kind": "Deployment", "spec": { "selector": { "matchLabels": labels } } });
        let controller = json!({ "kind": "ReplicationController", "spec": { "selector": labels } });
        let pod = json!({ "kind": "Pod", "metadata": { "labels": labels } });
        for live in [deployment, controller, pod] {
            assert_eq!(selected("x", &live).unwrap(), labels, "{live}");
        }
        let by_expression =
            json!({ "spec": { "selector": { "matchExpressions": [{ "key": "a", "operator": "Exists" }] } } });
        assert!(selected("deploy/web", &by_expression).unwrap_err().message.contains("by expressions"));
        assert!(selected("pod/x", &json!({ "kind": "Pod", "metadata": {} })).is_err());
    }
}
