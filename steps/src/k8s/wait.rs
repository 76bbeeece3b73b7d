//! `k8s.wait`: waits until an object is ready, gone, in a phase, has a condition, or a field has a value.
//!
//! Without any of `condition`, `phase`, `path` and `deleted` it waits for readiness, as each kind has it: the pods of a
//! Deployment updated and available, a claim bound, a Job complete. An object that is not there yet is waited for as well.
//! When the time is over it says why: the pods' waiting reasons, warnings, the last lines of a container that crashes.

use std::time::Duration;

use runback_core::Json;
use runback_core::step::{
    Access, Acted, Class, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, Probe, StepError, StepType,
    UndoKind,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::client::{Clusters, Kube, k8s_inputs};
use super::object::{Object, common_problems, problem, split, text};
use super::readiness::{Stage, condition, is_ready_pod, stage};
use super::show;
use crate::bounded::pause;
use crate::json_path::{JsonPath, same};
use crate::period::Period;

k8s_inputs! {
    /// What to wait for.
    {
        /// `kind/name`, such as `deploy/web`.
        resource: String,
        /// A condition by its type, such as `Available`, or `Ready=False` where it shall not be true.
        #[serde(default)]
        condition: Option<String>,
        /// The phase in its status, such as `Running`.
        #[serde(default)]
        phase: Option<String>,
        /// A path to a field, such as `status.loadBalancer.ingress[0].ip`.
        #[serde(default)]
        path: Option<String>,
        /// The value that the field must have. Default: any.
        #[serde(default)]
        equals: Option<Json>,
        /// Wait until it is gone.
        #[serde(default)]
        deleted: bool,
        /// How long at most.
        #[serde(default = "super::scale::ten_minutes")]
        timeout: Period,
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// The value that `path` found at the end; null without it.
    pub(crate) value: Json,
    /// In milliseconds.
    pub(crate) waited_ms: u64,
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct K8sWait(pub(crate) Clusters);

enum Aim {
    Ready,
    Deleted,
    Condition(String, String),
    Phase(String),
    Value(JsonPath, String, Option<Json>),
}

impl Inputs {
    fn aim(&self) -> Result<Aim, StepError> {
        Ok(match self {
            Self { deleted: true, .. } => Aim::Deleted,
            Self { condition: Some(text), .. } => {
                let (kind, status) = text.split_once('=').unwrap_or((text, "True"));
                Aim::Condition(kind.to_owned(), status.to_owned())
            }
            Self { phase: Some(phase), .. } => Aim::Phase(phase.clone()),
            Self { path: Some(path), .. } => {
                Aim::Value(JsonPath::parse(path).map_err(StepError::permanent)?, path.clone(), self.equals.clone())
            }
            _ => Aim::Ready,
        })
    }
}

impl Aim {
    fn look(&self, object: &Object, now: Option<&Json>) -> Stage {
        let Some(now) = now else {
            return if matches!(self, Self::Deleted) {
                Stage::Ready
            } else {
                Stage::Waits("it to be there".to_owned())
            };
        };
        let waits = |what: String| Stage::Waits(what);
        match self {
            Self::Ready => stage(&object.kind, now),
            Self::Deleted => waits("it to go".to_owned()),
            Self::Condition(kind, want) => match condition(now, kind) {
                Some(c) if text(c, "/status").eq_ignore_ascii_case(want) => Stage::Ready,
                Some(c) => {
                    waits(format!("its condition {kind}={want} (now {}, {})", text(c, "/status"), text(c, "/reason")))
                }
                None => waits(format!("its condition {kind}={want}")),
            },
            Self::Phase(want) => match text(now, "/status/phase") {
                phase if phase == want => Stage::Ready,
                // A pod does not leave these.
                phase @ ("Failed" | "Succeeded") if object.kind.is("", "Pod") => {
                    Stage::Failed(format!("its phase is {phase}, not {want}"))
                }
                phase => waits(format!("its phase {want} (now {phase})")),
            },
            Self::Value(path, name, want) => {
                let shown = show::veiled(now);
                let found = path.find(&shown);
                match (found.first(), want) {
                    (Some(value), None) if !value.is_null() => Stage::Ready,
                    (Some(value), Some(want)) if same(value, want) => Stage::Ready,
                    (value, want) => waits(format!(
                        "{name} to be {} (now {})",
                        want.as_ref().map_or("there".to_owned(), |w| show::value(Some(w))),
                        show::value(value.copied())
                    )),
                }
            }
        }
    }
}

/// How many of the pods that a workload wants are not there and ready by their own word.
async fn missing_pods(kube: &Kube<'_>, object: &Object, now: &Json) -> Result<u64, StepError> {
    let of_pods = object.kind.group == "apps" || object.kind.is("", "ReplicationController");
    let Some(want) = now["spec"]["replicas"].as_u64().filter(|want| of_pods && *want > 0) else { return Ok(0) };
    let pods = kube.pods_of(object, now).await?;
    let there = pods.iter().filter(|p| is_ready_pod(p)).count();
    Ok(want.saturating_sub(there as u64))
}

#[async_trait::async_trait]
impl StepType for K8sWait {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = ();

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "k8s.wait",
            doc: "Waits until a Kubernetes object is ready, gone, or as it shall be.",
            access: Access::Reads,
            undo: UndoKind::None,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Client,
            examples: &[
                "\n- id: up\n  uses: k8s.wait\n  with: { resource: deploy/web, timeout: 5m }\n",
                "\n- id: bound\n  uses: k8s.wait\n  with: { resource: pvc/data, phase: Bound }\n",
                "\n- id: address\n  uses: k8s.wait\n  with: { resource: svc/web, path: 'status.loadBalancer.ingress[0].ip' }\n",
                "\n- id: gone\n  uses: k8s.wait\n  with: { resource: pod/web-0, deleted: true, timeout: 2m }\n",
            ],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut found = common_problems(inputs.place());
        found.extend(split(&inputs.resource).err().map(|e| problem("resource", e)));
        let given = [
            ("deleted", inputs.deleted),
            ("condition", inputs.condition.is_some()),
            ("phase", inputs.phase.is_some()),
            ("path", inputs.path.is_some()),
        ];
        let given: Vec<_> = given.iter().filter(|g| g.1).map(|g| g.0).collect();
        if let [first, second, ..] = given[..] {
            found.push(problem(second, format!("one step waits for one thing: `{first}` is given too")));
        }
        if inputs.equals.is_some() && inputs.path.is_none() {
            found.push(problem("equals", "needs `path`: which field shall have that value"));
        }
        found.extend(inputs.path.as_deref().and_then(|p| JsonPath::parse(p).err()).map(|e| problem("path", e)));
        found
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let kube = self.0.open(cx, inputs.place()).await?.impatient();
        let object = kube.object(&inputs.resource).await?;
        let summary = match inputs.aim()?.look(&object, kube.find(&object).await?.as_ref()) {
            Stage::Ready => format!("{object} is so already"),
            Stage::Waits(what) => format!("wait for {object}: {what}"),
            Stage::Failed(why) => format!("{object} has failed: {why}"),
        };
        Ok(Preview { changes: Some(false), summary, details: Vec::new() })
    }

    async fn capture(&self, _cx: &Cx<'_>, _inputs: &Inputs) -> Result<(), StepError> {
        Ok(())
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, (): &()) -> Result<Acted<Outputs>, StepError> {
        let began = cx.host.now_ms();
        let kube = self.0.open(cx, inputs.place()).await?;
        let object = kube.object(&inputs.resource).await?;
        let aim = inputs.aim()?;
        let mut left = inputs.timeout.0;
        let end = loop {
            let end = kube.wait(&object, left, &|now| aim.look(&object, now)).await?;
            // A status is what its controller saw last: a pod that was deleted a moment ago still counts there.
            let missing = match (&aim, &end) {
                (Aim::Ready, Some(now)) => missing_pods(&kube, &object, now).await?,
                _ => 0,
            };
            if missing == 0 {
                break end;
            }
            if left.is_zero() {
                let message = format!(
                    "{object}: its status counts {missing} pods that are not ready, still after {}",
                    inputs.timeout
                );
                return Err(
                    StepError::new(Class::Timeout, message).help("look at its pods, and whether its controller runs")
                );
            }
            cx.phase(format!("{object}: waiting for {missing} pods that its status counts already"));
            pause(cx, Duration::from_millis(200), &object.to_string()).await?;
            let waited = Duration::from_millis(cx.host.now_ms().saturating_sub(began));
            left = inputs.timeout.0.saturating_sub(waited);
        };
        let value = match (&aim, &end) {
            (Aim::Value(path, ..), Some(end)) => {
                path.find(&show::veiled(end)).first().map(|v| (*v).clone()).unwrap_or_default()
            }
            _ => Json::Null,
        };
        let waited_ms = cx.host.now_ms().saturating_sub(began);
        Ok(Acted::unchanged(Outputs { value, waited_ms }))
    }

    async fn probe(&self, _cx: &Cx<'_>, _inputs: &Inputs, (): &()) -> Result<Probe<Outputs>, StepError> {
        Ok(Probe::NotDone)
    }
}
