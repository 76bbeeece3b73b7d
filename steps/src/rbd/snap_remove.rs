//! `rbd.snap_remove`: removes a snapshot of an RBD image. One that is not there is a success that changed nothing.
//!
//! **Refuses** a protected snapshot: it may have clones. **Undo: impossible.** What the snapshot alone held is gone.

use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, Probe, StepError, StepType, UndoKind,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::cli::image_inputs;
use super::snap;

image_inputs! {
    /// Which snapshot.
    {
        /// The snapshot's name.
        snap: String,
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// It was there.
    pub(crate) removed: bool,
}

/// The step type `rbd.snap_remove`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RbdSnapRemove;

fn protected(inputs: &Inputs) -> StepError {
    let spec = format!("{}@{}", inputs.image(), inputs.snap);
    StepError::conflict(format!("{spec} is protected"))
        .help(format!("it may have clones: see `rbd children {spec}`, then `rbd snap unprotect {spec}`"))
}

#[async_trait::async_trait]
impl StepType for RbdSnapRemove {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = ();

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "rbd.snap_remove",
            doc: "Removes a snapshot of an RBD image.",
            access: Access::Changes,
            undo: UndoKind::Impossible,
            on_interrupt: OnInterrupt::Probe,
            commands: Commands::Small,
            examples: &[
                "- id: tidy\n  uses: rbd.snap_remove\n  with: { pool: kube, image: index-api-image, snap: before-upgrade }\n",
            ],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut found = inputs.image().problems();
        found.extend(snap::name_problems("snap", &inputs.snap));
        found
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let image = inputs.image();
        let (changes, summary) = match snap::find(cx, &image, &inputs.snap).await? {
            None => (false, format!("{image}@{} is not there", inputs.snap)),
            Some(s) if s.protected => (false, format!("would refuse: {}", protected(inputs).message)),
            Some(s) => (true, format!("remove snapshot {image}@{}", s.name)),
        };
        Ok(Preview { changes: Some(changes), summary, details: Vec::new() })
    }

    async fn capture(&self, _cx: &Cx<'_>, _inputs: &Inputs) -> Result<(), StepError> {
        Ok(())
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, (): &()) -> Result<Acted<Outputs>, StepError> {
        let image = inputs.image();
        let Some(now) = snap::find(cx, &image, &inputs.snap).await? else {
            let removed = noted(cx).is_some();
            return Ok(Acted { outputs: Outputs { removed }, changed: removed });
        };
        if noted(cx).is_some_and(|id| id != now.id) {
            return Err(StepError::conflict(format!("{image}@{} has been taken anew since this step began", now.name))
                .help("look at it (`rbd snap ls`) before you remove it"));
        }
        if now.protected {
            return Err(protected(inputs));
        }
        // Durable before the removal: whoever finds it gone later knows that it was this step.
        cx.host.note(json!({ "removing": now.id })).await?;
        snap::remove(cx, &image, &inputs.snap).await?;
        Ok(Acted::changed(Outputs { removed: true }))
    }

    async fn probe(&self, cx: &Cx<'_>, inputs: &Inputs, (): &()) -> Result<Probe<Outputs>, StepError> {
        let now = snap::find(cx, &inputs.image(), &inputs.snap).await?.map(|s| s.id);
        let gone = noted(cx).is_some_and(|id| now != Some(id));
        Ok(if gone { Probe::Done(Acted::changed(Outputs { removed: true })) } else { Probe::NotDone })
    }
}

/// The id of the snapshot that an earlier attempt was about to remove.
fn noted(cx: &Cx<'_>) -> Option<u64> {
    cx.host.notes().iter().find_map(|n| n["removing"].as_u64())
}
