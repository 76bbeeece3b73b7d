//! `k8s.delete`: deletes an object, and waits until it is gone.
//!
//! Nothing there is success. **Undo** creates it again as it was, without the server's own fields; it is another object then
//! (its uid is new), and what it owned is made by its controller again. A pod that a controller owns is not created again:
//! its controller has made another by then. The values of a Secret are never kept, so its deletion cannot be undone.

use runback_core::Json;
use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind, Undone,
};
use runback_core::target::Stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::client::{Ask, Clusters, k8s_inputs};
use super::fields;
use super::object::{Object, common_problems, problem, split, text, uid};
use super::show;
use crate::period::Period;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Propagation {
    /// It goes at once, and what it owns after it.
    Background,
    /// What it owns goes first: waiting for it is waiting for its pods.
    #[default]
    Foreground,
    /// What it owns stays.
    Orphan,
}

impl Propagation {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Background => "Background",
            Self::Foreground => "Foreground",
            Self::Orphan => "Orphan",
        }
    }
}

k8s_inputs! {
    /// What to delete.
    {
        /// `kind/name`, such as `pod/web-0`.
        resource: String,
        /// What becomes of the objects that it owns: `foreground`, `background` or `orphan`.
        #[serde(default)]
        propagation: Propagation,
        /// How long a pod has to end; 0s drops it at once, without waiting for its node. Default: the pod's own.
        #[serde(default)]
        grace: Option<Period>,
        /// Delete only the object with this uid.
        #[serde(default)]
        uid: Option<String>,
        /// Wait until it is gone. Default: true.
        #[serde(default = "super::scale::yes")]
        wait: bool,
        /// For the waiting.
        #[serde(default = "super::scale::ten_minutes")]
        timeout: Period,
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// Whether it was there.
    pub(crate) existed: bool,
    /// Its uid; empty where it was not there.
    pub(crate) uid: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Capture {
    namespace: String,
    /// The object as it was; Null = it was not there.
    object: Json,
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct K8sDelete(pub(crate) Clusters);

fn controlled(object: &Json) -> bool {
    object["metadata"]["ownerReferences"].as_array().into_iter().flatten().any(|o| o["controller"] == true)
}

/// As it can be created: without the server's fields, and without what only its first life had.
pub(crate) fn anew(object: &Json) -> Json {
    let mut new = fields::own(object);
    if let Some(meta) = new["metadata"].as_object_mut() {
        meta.shift_remove("ownerReferences");
        meta.shift_remove("finalizers");
        meta.shift_remove("generateName");
        if let Some(notes) = meta.get_mut("annotations").and_then(Json::as_object_mut) {
            notes.shift_remove("deployment.kubernetes.io/revision");
        }
    }
    match object["kind"].as_str() {
        Some("Pod") => {
            if let Some(spec) = new["spec"].as_object_mut() {
                spec.shift_remove("nodeName");
                // The server mounts a fresh token itself.
                let tokens = |name: &str| name.starts_with("kube-api-access-") || name.contains("-token-");
                drop_named(spec.get_mut("volumes"), &tokens);
                for list in ["containers", "initContainers"] {
                    for container in spec.get_mut(list).and_then(Json::as_array_mut).into_iter().flatten() {
                        drop_named(container.get_mut("volumeMounts"), &tokens);
                    }
                }
            }
        }
        Some("Job") if object["spec"]["manualSelector"] != true => {
            // Both hold the uid of the deleted job.
            if let Some(spec) = new["spec"].as_object_mut() {
                spec.shift_remove("selector");
            }
            if let Some(labels) = new.pointer_mut("/spec/template/metadata/labels").and_then(Json::as_object_mut) {
                for key in
                    ["controller-uid", "batch.kubernetes.io/controller-uid", "job-name", "batch.kubernetes.io/job-name"]
                {
                    labels.shift_remove(key);
                }
            }
        }
        Some("PersistentVolume") => {
            for key in ["uid", "resourceVersion"] {
                if let Some(claim) = new.pointer_mut("/spec/claimRef").and_then(Json::as_object_mut) {
                    claim.shift_remove(key);
                }
            }
        }
        _ => {}
    }
    new
}

fn drop_named(list: Option<&mut Json>, gone: &dyn Fn(&str) -> bool) {
    if let Some(list) = list.and_then(Json::as_array_mut) {
        list.retain(|item| !gone(text(item, "/name")));
    }
}

impl Inputs {
    fn options(&self, uid: &str) -> Json {
        let mut options = json!({
            "apiVersion": "v1", "kind": "DeleteOptions",
            "propagationPolicy": self.propagation.name(),
            "preconditions": { "uid": uid },
        });
        if let Some(grace) = self.grace {
            options["gracePeriodSeconds"] = json!(grace.0.as_secs());
        }
        options
    }

    fn refuse(&self, object: &Object, live: &Json) -> Result<(), StepError> {
        match &self.uid {
            Some(want) if want != uid(live) => {
                Err(StepError::conflict(format!("{object} has the uid {}, and only {want} may be deleted", uid(live)))
                    .help("it was deleted and created anew meanwhile"))
            }
            _ => Ok(()),
        }
    }
}

#[async_trait::async_trait]
impl StepType for K8sDelete {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = Capture;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "k8s.delete",
            doc: "Deletes a Kubernetes object, and waits until it is gone.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Client,
            examples: &[
                "\n- id: unstick\n  uses: k8s.delete\n  with: { resource: pod/web-0, namespace: shop, grace: 0s, timeout: 1m }\n",
                "\n- id: remove\n  uses: k8s.delete\n  with: { resource: deploy/old, propagation: foreground }\n",
            ],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut found = common_problems(inputs.place());
        found.extend(split(&inputs.resource).err().map(|e| problem("resource", e)));
        found
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let kube = self.0.open(cx, inputs.place()).await?.impatient();
        let object = kube.object(&inputs.resource).await?;
        let Some(live) = kube.find(&object).await? else {
            return Ok(Preview {
                changes: Some(false),
                summary: format!("{object} is not there"),
                details: Vec::new(),
            });
        };
        inputs.refuse(&object, &live)?;
        let mut details = Vec::new();
        if live["kind"] == "Secret" {
            details.push("this cannot be undone: the values of a Secret are never kept".to_owned());
        } else if controlled(&live) && object.kind.is("", "Pod") {
            details.push("its controller makes another pod in its place".to_owned());
        }
        Ok(Preview { changes: Some(true), summary: format!("delete {object}"), details })
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Capture, StepError> {
        let kube = self.0.open(cx, inputs.place()).await?;
        let object = kube.object(&inputs.resource).await?;
        let live = kube.find(&object).await?;
        if let Some(live) = &live {
            inputs.refuse(&object, live)?;
        }
        // What the server keeps is of no use later, but the uid says which object it was.
        let kept = live.map(|live| {
            let mut kept = show::veiled(&live);
            if let Some(meta) = kept["metadata"].as_object_mut() {
                meta.shift_remove("managedFields");
            }
            kept
        });
        Ok(Capture { namespace: object.namespace, object: kept.unwrap_or_default() })
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Capture) -> Result<Acted<Outputs>, StepError> {
        let captured = uid(&capture.object).to_owned();
        let outputs = Outputs { existed: !capture.object.is_null(), uid: captured.clone() };
        if capture.object.is_null() {
            return Ok(Acted::unchanged(outputs));
        }
        let mut kube = self.0.open(cx, inputs.place()).await?;
        kube.namespace.clone_from(&capture.namespace);
        let object = kube.object(&inputs.resource).await?;
        // Another object of that name (a StatefulSet makes its pod anew) is not the one to delete.
        if kube.find(&object).await?.is_some_and(|live| uid(&live) == captured) {
            match kube.call(&Ask::delete(object.path(), &inputs.options(&captured))).await {
                Ok(_) => cx.host.output(Stream::Stdout, format!("{object}: deleted\n").as_bytes()),
                Err(e) if e.is_absent() || e.code() == 409 => {}
                Err(e) => return Err(e.into()),
            }
        }
        if inputs.wait {
            kube.wait_gone(&object, &captured, inputs.timeout.0).await?;
        }
        Ok(Acted::changed(outputs))
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        inputs: &Inputs,
        capture: &Capture,
        _outputs: Option<&Outputs>,
    ) -> Result<Undone, StepError> {
        let nothing = |note: Option<String>| Ok(Undone { changed: false, note });
        if capture.object.is_null() {
            return nothing(None);
        }
        let mut kube = self.0.open(cx, inputs.place()).await?;
        kube.namespace.clone_from(&capture.namespace);
        let object = kube.object(&inputs.resource).await?;
        if controlled(&capture.object) && object.kind.is("", "Pod") {
            return nothing(Some(format!("{object} belongs to a controller, which has made another in its place")));
        }
        if let Some(live) = kube.find(&object).await? {
            if uid(&live) == uid(&capture.object) && text(&live, "/metadata/deletionTimestamp").is_empty() {
                return nothing(None);
            }
            if uid(&live) == uid(&capture.object) {
                kube.wait_gone(&object, uid(&live), inputs.timeout.0).await?;
            } else if fields::diff(&anew(&capture.object), &anew(&show::veiled(&live))).is_empty() {
                // Created again by an earlier try of this undo.
                return nothing(Some(format!("{object} is there again")));
            } else {
                return Err(StepError::conflict(format!(
                    "{object} is there again, and it is another one than was deleted"
                ))
                .help("somebody created it anew; compare it with what the plan of this run shows, and keep one"));
            }
        }
        if capture.object["kind"] == "Secret" {
            return Err(StepError::conflict(format!(
                "{object} cannot be created again: the values of Secrets are never kept"
            ))
            .help("create it from where its values come from, and go on"));
        }
        let path = format!("{}{}", object.kind.collection(&object.namespace), kube.query(false));
        match kube.call(&Ask::post(path, &anew(&capture.object))).await {
            Ok(_) => {}
            Err(e) if e.exists_already() => {}
            Err(e) => return Err(e.into()),
        }
        Ok(Undone { changed: true, note: Some(format!("{object} is created again")) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_created_again_has_nothing_of_its_first_life() {
        let pod = json!({
            "kind": "Pod",
            "metadata": { "name": "p", "uid": "u", "resourceVersion": "5", "labels": { "a": "b" }, "finalizers": ["x"] },
            "spec": {
                "nodeName": "n1",
                "volumes": [{ "name": "data" }, { "name": "kube-api-access-abc" }],
                "containers": [{ "name": "c", "volumeMounts": [{ "name": "kube-api-access-abc" }, { "name": "data" }] }],
            },
            "status": { "phase": "Running" },
        });
        assert_eq!(
            anew(&pod),
            json!({ "kind": "Pod", "metadata": { "name": "p", "labels": { "a": "b" } }, "spec": {
                "volumes": [{ "name": "data" }], "containers": [{ "name": "c", "volumeMounts": [{ "name": "data" }] }] } })
        );
        let job = json!({ "kind": "Job", "metadata": { "name": "j" }, "spec": {
            "selector": { "matchLabels": { "controller-uid": "u" } },
            "template": { "metadata": { "labels": { "controller-uid": "u", "job-name": "j", "app": "x" } } } } });
        assert_eq!(anew(&job)["spec"], json!({ "template": { "metadata": { "labels": { "app": "x" } } } }));
    }
}
