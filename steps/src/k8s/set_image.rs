//! `k8s.set_image`: gives containers of a workload another image, and waits until the new pods are there.
//!
//! Works on whatever has containers in its template: Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController,
//! Job, CronJob, Pod. **Undo** brings the images before back, each only where nobody has set another one since, and waits
//! for the pods again.

use std::collections::BTreeMap;

use runback_core::Json;
use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind, Undone,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::client::{Clusters, k8s_inputs};
use super::object::{Object, Touched, common_problems, problem, split, text};
use super::show;
use crate::period::Period;

k8s_inputs! {
    /// Which images.
    {
        /// `kind/name`, such as `deploy/web`.
        resource: String,
        /// Container names and their images; `*` means every container.
        images: BTreeMap<String, String>,
        /// Wait until the pods with the new image are there and ready. Default: true.
        #[serde(default = "super::scale::yes")]
        wait: bool,
        /// For the waiting.
        #[serde(default = "super::scale::ten_minutes")]
        timeout: Period,
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// Container names and the images that they had before.
    pub(crate) before: BTreeMap<String, String>,
    /// The revision of a Deployment afterwards; null for other kinds, and where nothing was waited for.
    pub(crate) revision: Option<u64>,
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct K8sSetImage(pub(crate) Clusters);

/// Where the specification of the pods stands in an object.
fn pod_spec(object: &Json) -> Option<&'static str> {
    ["/spec/template/spec", "/spec/jobTemplate/spec/template/spec", "/spec"]
        .into_iter()
        .find(|at| object.pointer(at).is_some_and(|spec| spec["containers"].is_array()))
}

const LISTS: [&str; 2] = ["containers", "initContainers"];

fn images(object: &Json) -> BTreeMap<String, String> {
    let spec = pod_spec(object).and_then(|at| object.pointer(at)).unwrap_or(&Json::Null);
    let all = LISTS.iter().flat_map(|list| spec[*list].as_array().into_iter().flatten());
    all.map(|c| (text(c, "/name").to_owned(), text(c, "/image").to_owned())).collect()
}

impl Inputs {
    fn wanted(&self, object: &Object, live: &Json) -> Result<Json, StepError> {
        let mut out = live.clone();
        let Some(spec) = pod_spec(live).and_then(|at| out.pointer_mut(at)) else {
            return Err(StepError::permanent(format!("{object} has no containers")));
        };
        let mut unknown: Vec<&String> = self.images.keys().filter(|name| *name != "*").collect();
        for list in LISTS {
            for container in spec[list].as_array_mut().into_iter().flatten() {
                let name = text(container, "/name").to_owned();
                unknown.retain(|n| **n != name);
                let all = self.images.get("*").filter(|_| list == "containers");
                if let Some(image) = self.images.get(&name).or(all) {
                    container["image"] = Json::String(image.clone());
                }
            }
        }
        // Indexing a map mutably adds the key.
        if let Some(spec) = spec.as_object_mut() {
            spec.retain(|key, value| !(key == "initContainers" && value.is_null()));
        }
        match unknown.first() {
            None => Ok(out),
            Some(name) => {
                let names: Vec<_> = images(live).into_keys().collect();
                Err(StepError::permanent(format!("{object} has no container `{name}`"))
                    .help(format!("it has {}", names.join(", "))))
            }
        }
    }
}

#[async_trait::async_trait]
impl StepType for K8sSetImage {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = Touched;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "k8s.set_image",
            doc: "Gives containers of a workload another image, and waits for the new pods.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Client,
            examples: &[
                "\n- id: new-version\n  uses: k8s.set_image\n  with: { resource: deploy/web, images: { nginx: 'nginx:1.27' }, timeout: 5m }\n",
            ],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut found = common_problems(inputs.place());
        found.extend(split(&inputs.resource).err().map(|e| problem("resource", e)));
        if inputs.images.is_empty() {
            found.push(problem("images", "must name a container and its image"));
        }
        for (name, image) in &inputs.images {
            if image.is_empty() || image.contains(char::is_whitespace) {
                let path = vec!["images".to_owned(), name.clone()];
                found.push(InputProblem { path, message: format!("`{image}` is not an image"), help: None });
            }
        }
        found
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let kube = self.0.open(cx, inputs.place()).await?.impatient();
        let object = kube.object(&inputs.resource).await?;
        let (before, after) = kube.change(&object, true, &|live| inputs.wanted(&object, live)).await?;
        let details = show::diff(&object.to_string(), &before, &after);
        let summary = if details.is_empty() {
            format!("{object} has these images already")
        } else {
            format!("set images of {object}")
        };
        Ok(Preview { changes: Some(!details.is_empty()), summary, details })
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Touched, StepError> {
        let kube = self.0.open(cx, inputs.place()).await?;
        let object = kube.object(&inputs.resource).await?;
        let (before, after) = kube.change(&object, true, &|live| inputs.wanted(&object, live)).await?;
        Ok(Touched::between(&object, &before, &after))
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Touched) -> Result<Acted<Outputs>, StepError> {
        let mut kube = self.0.open(cx, inputs.place()).await?;
        kube.namespace.clone_from(&capture.namespace);
        let object = kube.object(&inputs.resource).await?;
        let (seen, mut after) = kube.change(&object, false, &|live| inputs.wanted(&object, live)).await?;
        // A second attempt sees its own images already.
        let mut before = images(&seen);
        for change in &capture.changes {
            if let [.., super::fields::Seg::Item(_, name), super::fields::Seg::Key(last)] = &change.path[..]
                && let (true, Some(name), Some(image)) =
                    (last == "image", name.as_str(), change.before.as_ref().and_then(Json::as_str))
            {
                before.insert(name.to_owned(), image.to_owned());
            }
        }
        if inputs.wait {
            after = kube.wait_ready(&object, inputs.timeout.0).await?;
        }
        let revision = after["metadata"]["annotations"]["deployment.kubernetes.io/revision"].as_str();
        let revision = revision.filter(|_| inputs.wait).and_then(|r| r.parse().ok());
        Ok(Acted { outputs: Outputs { before, revision }, changed: !capture.changes.is_empty() })
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        inputs: &Inputs,
        capture: &Touched,
        _outputs: Option<&Outputs>,
    ) -> Result<Undone, StepError> {
        let kube = self.0.open(cx, inputs.place()).await?;
        kube.take_back(&inputs.resource, capture, inputs.wait.then_some(inputs.timeout.0)).await
    }
}
