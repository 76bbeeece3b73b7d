//! `k8s.scale`: sets the number of replicas of whatever has a scale: Deployment, ReplicaSet, StatefulSet,
//! ReplicationController, a custom resource with the subresource.
//!
//! Waits until the status agrees: as many pods as wanted, all of them ready. **Undo** brings the number before back, only if
//! nobody has changed it since. A ReplicaSet that a Deployment owns can be scaled, and its owner takes it back: the plan and
//! the log say so.

use runback_core::Json;
use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind, Undone,
};
use runback_core::target::Stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::client::{Ask, Clusters, Kube, Patch, k8s_inputs};
use super::fields::{self, Seg};
use super::object::{Object, common_problems, problem, split, text, uid};
use super::show;
use crate::period::Period;

k8s_inputs! {
    /// What to scale, and how far.
    {
        /// `kind/name`, such as `deploy/web` or `rs/web-5d4f`.
        resource: String,
        /// How many pods there shall be.
        replicas: u32,
        /// Scale only from this number; another one is an error, the wanted one is success.
        #[serde(default)]
        only_if: Option<u32>,
        /// Wait until the pods are there and ready, or gone. Default: true.
        #[serde(default = "yes")]
        wait: bool,
        /// For the waiting.
        #[serde(default = "ten_minutes")]
        timeout: Period,
    }
}

pub(crate) fn yes() -> bool {
    true
}

pub(crate) fn ten_minutes() -> Period {
    Period::seconds(600)
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// As wanted.
    pub(crate) replicas: u32,
    /// How many were wanted before this step.
    pub(crate) before: u32,
    /// Pods that are ready; null where the kind does not count them, or nothing was waited for.
    pub(crate) ready: Option<u32>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Capture {
    uid: String,
    namespace: String,
    replicas: u32,
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct K8sScale(pub(crate) Clusters);

/// The scale subresource as it is.
async fn scale_of(kube: &Kube<'_>, object: &Object) -> Result<Json, StepError> {
    if !object.kind.has("scale") {
        return Err(StepError::permanent(format!("{object} has no number of replicas"))
            .help("deployments, replica sets, stateful sets, replication controllers and custom resources with a scale have one"));
    }
    match kube.call(&Ask::get(format!("{}/scale", object.path()))).await {
        // Says more where the object itself is missing.
        Err(e) if e.is_absent() => kube.must(object).await.map(|_| Err(e.into()))?,
        other => Ok(other?),
    }
}

fn replicas(scale: &Json) -> u32 {
    scale["spec"]["replicas"].as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or_default()
}

/// Sets the number, if it is still `from` at the moment of writing.
async fn set(kube: &Kube<'_>, object: &Object, scale: &Json, to: u32) -> Result<bool, StepError> {
    let patch =
        json!({ "metadata": { "resourceVersion": scale["metadata"]["resourceVersion"] }, "spec": { "replicas": to } });
    let path = format!("{}/scale{}", object.path(), kube.query(false));
    match kube.call(&Ask::patch(path, Patch::Merge, &patch)).await {
        Ok(_) => Ok(true),
        Err(e) if e.is_stale() => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// The Deployment or other controller that will take a scaling back.
fn owner(object: &Json) -> Option<String> {
    let owners = object["metadata"]["ownerReferences"].as_array()?;
    let owner = owners.iter().find(|o| o["controller"] == true)?;
    Some(format!("{} {}", text(owner, "/kind"), text(owner, "/name")))
}

fn warning(object: &Object, owner: &str) -> String {
    format!("{object} belongs to the {owner}, which will take the scaling back; scale that instead")
}

impl Inputs {
    fn refuse(&self, object: &Object, now: u32) -> Result<(), StepError> {
        match self.only_if {
            Some(only) if now != only && now != self.replicas => Err(StepError::conflict(format!(
                "{object} has {now} replicas, and only_if wants {only} before it is scaled to {}",
                self.replicas
            ))
            .help("somebody else has scaled it: look before you scale it again")),
            _ => Ok(()),
        }
    }
}

#[async_trait::async_trait]
impl StepType for K8sScale {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = Capture;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "k8s.scale",
            doc: "Sets the number of replicas, and waits until as many pods are ready.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Client,
            examples: &[
                "\n- id: more\n  uses: k8s.scale\n  with: { resource: deploy/web, namespace: shop, replicas: 5, timeout: 5m }\n",
                "\n- id: stop\n  uses: k8s.scale\n  with: { resource: sts/db, replicas: 0, only_if: 3 }\n",
            ],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut found = common_problems(inputs.place());
        found.extend(split(&inputs.resource).err().map(|e| problem("resource", e)));
        if i32::try_from(inputs.replicas).is_err() {
            found.push(problem("replicas", "is more than the API takes (2147483647)"));
        }
        found
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let kube = self.0.open(cx, inputs.place()).await?.impatient();
        let object = kube.object(&inputs.resource).await?;
        let now = replicas(&scale_of(&kube, &object).await?);
        inputs.refuse(&object, now)?;
        let owner = owner(&kube.must(&object).await?);
        let count = |n: u32| json!({ "spec": { "replicas": n } });
        let mut details = show::diff(&object.to_string(), &count(now), &count(inputs.replicas));
        details.extend(owner.filter(|_| now != inputs.replicas).map(|o| warning(&object, &o)));
        let summary = if now == inputs.replicas {
            format!("{object} has {now} replicas already")
        } else {
            format!("scale {object} from {now} to {} replicas", inputs.replicas)
        };
        Ok(Preview { changes: Some(now != inputs.replicas), summary, details })
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Capture, StepError> {
        let kube = self.0.open(cx, inputs.place()).await?;
        let object = kube.object(&inputs.resource).await?;
        let scale = scale_of(&kube, &object).await?;
        inputs.refuse(&object, replicas(&scale))?;
        Ok(Capture { uid: uid(&scale).to_owned(), namespace: object.namespace, replicas: replicas(&scale) })
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Capture) -> Result<Acted<Outputs>, StepError> {
        let kube = self.0.open(cx, inputs.place()).await?;
        let object = kube.object(&inputs.resource).await?;
        loop {
            let scale = scale_of(&kube, &object).await?;
            let now = replicas(&scale);
            if now == inputs.replicas {
                break;
            }
            inputs.refuse(&object, now)?;
            if set(&kube, &object, &scale, inputs.replicas).await? {
                let line = format!("{object}: {now} → {} replicas\n", inputs.replicas);
                cx.host.output(Stream::Stdout, line.as_bytes());
                break;
            }
        }
        let mut ready = None;
        if inputs.wait {
            let done = kube.wait_ready(&object, inputs.timeout.0).await?;
            ready = done["status"]["readyReplicas"].as_u64().and_then(|n| u32::try_from(n).ok());
            if inputs.replicas == 0 {
                ready = Some(0);
            }
            // A controller above may have taken it back while we waited.
            let now = replicas(&scale_of(&kube, &object).await?);
            if now != inputs.replicas {
                let by = owner(&done).map(|o| warning(&object, &o));
                let why = by.unwrap_or_else(|| "an autoscaler or another person did that".to_owned());
                return Err(
                    StepError::conflict(format!("{object} was scaled to {now} while this step waited")).help(why)
                );
            }
        } else if let Some(o) = owner(&kube.must(&object).await?) {
            cx.host.output(Stream::Stderr, format!("warning: {}\n", warning(&object, &o)).as_bytes());
        }
        let outputs = Outputs { replicas: inputs.replicas, before: capture.replicas, ready };
        Ok(Acted { outputs, changed: capture.replicas != inputs.replicas })
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        inputs: &Inputs,
        capture: &Capture,
        _outputs: Option<&Outputs>,
    ) -> Result<Undone, StepError> {
        let mut kube = self.0.open(cx, inputs.place()).await?;
        kube.namespace.clone_from(&capture.namespace);
        let object = kube.object(&inputs.resource).await?;
        loop {
            let scale = scale_of(&kube, &object).await?;
            let now = replicas(&scale);
            if now == capture.replicas {
                return Ok(Undone { changed: false, note: None });
            }
            let other = uid(&scale) != capture.uid;
            if !cx.force && (other || now != inputs.replicas) {
                let path = [Seg::Key("spec".to_owned()), Seg::Key("replicas".to_owned())];
                let live = kube.must(&object).await?;
                let owners = fields::owners(&live, &path);
                let by = if owners.is_empty() { String::new() } else { format!(", by {}", owners.join(" and ")) };
                let what = if other {
                    format!("{object} is another object than the one that this step scaled")
                } else {
                    format!("{object} has {now} replicas, where this step left {}{by}", inputs.replicas)
                };
                return Err(StepError::conflict(format!("{what}; it would get {} back", capture.replicas))
                    .help("nothing was touched; settle it with the other side, or undo with --force"));
            }
            if set(&kube, &object, &scale, capture.replicas).await? {
                break;
            }
        }
        if inputs.wait {
            kube.wait_ready(&object, inputs.timeout.0).await?;
        }
        Ok(Undone { changed: true, note: Some(format!("{object} has {} replicas again", capture.replicas)) })
    }
}
