//! `k8s.cordon`: takes a node out of scheduling, or, with `schedulable: true`, back into it.
//!
//! Pods that run there stay; `k8s.drain` moves them. **Undo** brings back what it was, unless somebody else has changed it.

use runback_core::Json;
use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind, Undone,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::client::{Clusters, Kube, k8s_inputs};
use super::object::{Object, Touched, common_problems, problem, split};

k8s_inputs! {
    /// Which node.
    {
        /// Its name.
        node: String,
        /// Let pods be placed there again.
        #[serde(default)]
        schedulable: bool,
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// Whether it took pods before.
    pub(crate) was_schedulable: bool,
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct K8sCordon(pub(crate) Clusters);

/// The node with its mark set or taken away.
pub(super) fn marked(live: &Json, schedulable: bool) -> Json {
    let mut out = live.clone();
    if !schedulable {
        out["spec"]["unschedulable"] = json!(true);
    } else if let Some(spec) = out["spec"].as_object_mut() {
        spec.shift_remove("unschedulable");
    }
    out
}

pub(super) fn is_schedulable(live: &Json) -> bool {
    live["spec"]["unschedulable"] != true
}

pub(super) fn name_problem(node: &str) -> Option<InputProblem> {
    split(&format!("node/{node}")).err().map(|_| problem("node", format!("`{node}` is not the name of a node")))
}

impl Kube<'_> {
    pub(super) async fn node(&self, name: &str) -> Result<Object, StepError> {
        self.object(&format!("nodes/{name}")).await
    }
}

#[async_trait::async_trait]
impl StepType for K8sCordon {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = Touched;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "k8s.cordon",
            doc: "Takes a Kubernetes node out of scheduling, or back into it.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Client,
            examples: &["\n- id: no-new-pods\n  uses: k8s.cordon\n  with: { node: kvm1 }\n"],
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
        let changes = is_schedulable(&kube.must(&node).await?) != inputs.schedulable;
        let summary = match (changes, inputs.schedulable) {
            (true, false) => format!("take {node} out of scheduling"),
            (true, true) => format!("let pods be placed on {node} again"),
            (false, _) => format!("{node} is so already"),
        };
        Ok(Preview { changes: Some(changes), summary, details: Vec::new() })
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Touched, StepError> {
        let kube = self.0.open(cx, inputs.place()).await?;
        let node = kube.node(&inputs.node).await?;
        let live = kube.must(&node).await?;
        Ok(Touched::between(&node, &live, &marked(&live, inputs.schedulable)))
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Touched) -> Result<Acted<Outputs>, StepError> {
        let kube = self.0.open(cx, inputs.place()).await?;
        let node = kube.node(&inputs.node).await?;
        kube.change(&node, false, &|live| Ok(marked(live, inputs.schedulable))).await?;
        let changed = !capture.changes.is_empty();
        Ok(Acted { outputs: Outputs { was_schedulable: inputs.schedulable != changed }, changed })
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
