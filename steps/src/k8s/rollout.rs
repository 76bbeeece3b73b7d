//! `k8s.rollout`: what kubectl's `rollout` does: `status`, `restart`, `pause`, `resume`, `undo` (to a revision) and `history`.
//!
//! For Deployments, StatefulSets and DaemonSets; `pause` and `resume` are of Deployments only. `undo` puts the pod template of
//! an earlier revision back, and waits for its pods. **Undo of the step** brings the fields before back, by the same rules
//! as `k8s.patch`: a restart is taken back by the template before it, which the cluster still has the pods' set of.

use runback_core::Json;
use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind, Undone,
};
use runback_core::target::Stream;
use runback_core::template::ValueTemplate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::client::{Clusters, Kube, k8s_inputs};
use super::object::{Object, Touched, common_problems, problem, split, text, uid};
use super::readiness::{Stage, selector, stage};
use super::show;
use crate::period::Period;

const REVISION: &str = "deployment.kubernetes.io/revision";
const RESTARTED: &str = "kubectl.kubernetes.io/restartedAt";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Action {
    /// Wait until the rollout is done.
    Status,
    /// New pods of the same template.
    Restart,
    /// Changes of the template start no rollout.
    Pause,
    /// They do again.
    Resume,
    /// Back to an earlier revision.
    Undo,
    /// Only list the revisions.
    History,
}

impl Action {
    fn reads(self) -> bool {
        matches!(self, Self::Status | Self::History)
    }

    fn verb(self) -> &'static str {
        match self {
            Self::Status => "wait for",
            Self::Restart => "restart",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Undo => "take back",
            Self::History => "list the revisions of",
        }
    }
}

k8s_inputs! {
    /// Which rollout.
    {
        /// `kind/name`, such as `deploy/web`.
        resource: String,
        /// What to do: `status`, `restart`, `pause`, `resume`, `undo` or `history`.
        action: Action,
        /// The revision that `undo` goes back to. Default: the one before the current.
        #[serde(default)]
        to_revision: Option<u64>,
        /// Wait until the pods are there, where the action starts a rollout. Default: true.
        #[serde(default = "super::scale::yes")]
        wait: bool,
        /// For the waiting.
        #[serde(default = "super::scale::ten_minutes")]
        timeout: Period,
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(clippy::struct_field_names, reason = "the API and its users call the number a revision")]
pub(crate) struct Revision {
    /// Counted by the controller from 1.
    pub(crate) revision: u64,
    /// Of the containers, in their order.
    pub(crate) images: Vec<String>,
    /// The annotation `kubernetes.io/change-cause`; empty without.
    pub(crate) cause: String,
    /// The object that holds it.
    pub(crate) name: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// The current revision afterwards.
    pub(crate) revision: Option<u64>,
    /// All that the cluster still has, the oldest first.
    pub(crate) history: Vec<Revision>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Capture {
    touched: Touched,
    /// The time of a restart: the same on every attempt.
    stamp: String,
    /// The revision to go back to, as a template: it may be renumbered meanwhile.
    template: Json,
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct K8sRollout(pub(crate) Clusters);

fn revision_of(object: &Json) -> Option<u64> {
    object["metadata"]["annotations"][REVISION].as_str()?.parse().ok()
}

/// Revisions with their pod templates, the oldest first.
async fn revisions(kube: &Kube<'_>, object: &Object, live: &Json) -> Result<Vec<(Revision, Json)>, StepError> {
    let deployment = object.kind.kind == "Deployment";
    let holder = if deployment { "ReplicaSet" } else { "ControllerRevision" };
    let Some(kind) = kube.kind_of("apps/v1", holder).await? else { return Ok(Vec::new()) };
    let held = kube.list(&kind, &object.namespace, &selector(live).unwrap_or_default()).await?;
    let mut found = Vec::new();
    for one in held {
        let owned =
            one["metadata"]["ownerReferences"].as_array().into_iter().flatten().any(|o| text(o, "/uid") == uid(live));
        let number = if deployment { revision_of(&one) } else { one["revision"].as_u64() };
        let (true, Some(number)) = (owned, number) else { continue };
        let mut template =
            if deployment { one["spec"]["template"].clone() } else { one["data"]["spec"]["template"].clone() };
        if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
            labels.shift_remove("pod-template-hash");
        }
        if let Some(map) = template.as_object_mut() {
            map.shift_remove("$patch");
        }
        let containers = template["spec"]["containers"].as_array().into_iter().flatten();
        let revision = Revision {
            revision: number,
            images: containers.map(|c| text(c, "/image").to_owned()).collect(),
            cause: one["metadata"]["annotations"]["kubernetes.io/change-cause"].as_str().unwrap_or_default().to_owned(),
            name: text(&one, "/metadata/name").to_owned(),
        };
        found.push((revision, template));
    }
    found.sort_by_key(|(r, _)| r.revision);
    Ok(found)
}

impl Inputs {
    fn refuse(&self, object: &Object) -> Result<(), StepError> {
        let kind = object.kind.kind.as_str();
        if object.kind.group != "apps" || !matches!(kind, "Deployment" | "StatefulSet" | "DaemonSet") {
            return Err(StepError::permanent(format!("{object} has no rollouts"))
                .help("deployments, stateful sets and daemon sets have them; a replication controller is rolled by k8s.rolling_update"));
        }
        if matches!(self.action, Action::Pause | Action::Resume) && kind != "Deployment" {
            return Err(StepError::permanent(format!("{object}: only a Deployment can be paused")));
        }
        Ok(())
    }

    /// The template that `undo` brings back.
    async fn template(&self, kube: &Kube<'_>, object: &Object, live: &Json) -> Result<Json, StepError> {
        if self.action != Action::Undo {
            return Ok(Json::Null);
        }
        let mut all = revisions(kube, object, live).await?;
        let known: Vec<_> = all.iter().map(|(r, _)| r.revision.to_string()).collect();
        let chosen = if let Some(want) = self.to_revision {
            all.into_iter().find(|(r, _)| r.revision == want)
        } else {
            all.pop();
            all.pop()
        };
        chosen.map(|(_, template)| template).ok_or_else(|| {
            let want =
                self.to_revision.map_or("revision before the current one".to_owned(), |r| format!("revision {r}"));
            StepError::permanent(format!("{object} has no {want}"))
                .help(format!("the cluster still has: {}", known.join(", ")))
        })
    }

    fn wanted(&self, live: &Json, stamp: &str, template: &Json) -> Json {
        let mut out = live.clone();
        match self.action {
            Action::Status | Action::History => {}
            Action::Restart => {
                let meta = &mut out["spec"]["template"]["metadata"];
                if !meta["annotations"].is_object() {
                    meta["annotations"] = Json::Object(serde_json::Map::new());
                }
                meta["annotations"][RESTARTED] = Json::String(stamp.to_owned());
            }
            Action::Pause => out["spec"]["paused"] = Json::Bool(true),
            Action::Resume => {
                if let Some(spec) = out["spec"].as_object_mut() {
                    spec.shift_remove("paused");
                }
            }
            Action::Undo => out["spec"]["template"] = template.clone(),
        }
        out
    }

    fn waits(&self) -> bool {
        self.wait && !matches!(self.action, Action::Pause | Action::History)
    }
}

fn stamp(cx: &Cx<'_>) -> String {
    let ms = i64::try_from(cx.host.now_ms()).unwrap_or_default();
    jiff::Timestamp::from_millisecond(ms).map(|t| t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()).unwrap_or_default()
}

#[async_trait::async_trait]
impl StepType for K8sRollout {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = Capture;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "k8s.rollout",
            doc: "Restarts, pauses, resumes, takes back or waits for a rollout; lists its revisions.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Client,
            examples: &[
                "\n- id: restart\n  uses: k8s.rollout\n  with: { resource: deploy/web, action: restart, timeout: 5m }\n",
                "\n- id: back\n  uses: k8s.rollout\n  with: { resource: deploy/web, action: undo, to_revision: 3 }\n",
                "\n- id: history\n  uses: k8s.rollout\n  with: { resource: deploy/web, action: history }\n",
            ],
        }
    }

    fn capabilities(&self, with: &ValueTemplate) -> (Access, UndoKind) {
        let action = with.get("action").and_then(|a| Action::deserialize(a.literal()?).ok());
        if action.is_some_and(Action::reads) {
            (Access::Reads, UndoKind::None)
        } else {
            (Access::Changes, UndoKind::Full)
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut found = common_problems(inputs.place());
        found.extend(split(&inputs.resource).err().map(|e| problem("resource", e)));
        if inputs.to_revision.is_some() && inputs.action != Action::Undo {
            found.push(problem("to_revision", "is for `action: undo` only"));
        }
        found
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let kube = self.0.open(cx, inputs.place()).await?.impatient();
        let object = kube.object(&inputs.resource).await?;
        inputs.refuse(&object)?;
        let live = kube.must(&object).await?;
        let template = inputs.template(&kube, &object, &live).await?;
        let now = stamp(cx);
        let (before, after) = kube.change(&object, true, &|live| Ok(inputs.wanted(live, &now, &template))).await?;
        let details = show::diff(&object.to_string(), &before, &after);
        let mut summary = format!("{} {object}", inputs.action.verb());
        if !inputs.action.reads() && details.is_empty() {
            summary = format!("{object} is so already");
        }
        Ok(Preview { changes: Some(!details.is_empty()), summary, details })
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Capture, StepError> {
        let kube = self.0.open(cx, inputs.place()).await?;
        let object = kube.object(&inputs.resource).await?;
        inputs.refuse(&object)?;
        let live = kube.must(&object).await?;
        let template = inputs.template(&kube, &object, &live).await?;
        let stamp = stamp(cx);
        let (before, after) = kube.change(&object, true, &|live| Ok(inputs.wanted(live, &stamp, &template))).await?;
        Ok(Capture { touched: Touched::between(&object, &before, &after), stamp, template })
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Capture) -> Result<Acted<Outputs>, StepError> {
        let mut kube = self.0.open(cx, inputs.place()).await?;
        kube.namespace.clone_from(&capture.touched.namespace);
        let object = kube.object(&inputs.resource).await?;
        let wanted = |live: &Json| Ok(inputs.wanted(live, &capture.stamp, &capture.template));
        let (_, mut live) = kube.change(&object, false, &wanted).await?;
        if inputs.waits() {
            live = kube.wait_ready(&object, inputs.timeout.0).await?;
        } else if let Stage::Waits(what) = stage(&object.kind, &live) {
            cx.host.output(Stream::Stdout, format!("{object}: waits for {what}\n").as_bytes());
        }
        let history: Vec<_> = revisions(&kube, &object, &live).await?.into_iter().map(|(r, _)| r).collect();
        for one in &history {
            let line = format!("revision {}: {} {}\n", one.revision, one.images.join(" "), one.cause);
            cx.host.output(Stream::Stdout, line.as_bytes());
        }
        let revision =
            if object.kind.kind == "Deployment" { revision_of(&live) } else { history.last().map(|r| r.revision) };
        Ok(Acted { outputs: Outputs { revision, history }, changed: !capture.touched.changes.is_empty() })
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        inputs: &Inputs,
        capture: &Capture,
        _outputs: Option<&Outputs>,
    ) -> Result<Undone, StepError> {
        let kube = self.0.open(cx, inputs.place()).await?;
        let waits = inputs.waits() && inputs.action != Action::Resume;
        kube.take_back(&inputs.resource, &capture.touched, waits.then_some(inputs.timeout.0)).await
    }
}
