//! `rbd.snap_remove`: removes a snapshot of an RBD image. One that is not there is a success that changed nothing.
//!
//! **Refuses** a protected snapshot: it may have clones. **Undo: impossible.** What the snapshot alone held is gone.

use runback_core::step::{
    Access, Acted, Cx, Descriptor, InputProblem, OnInterrupt, Preview, Probe, StepError, StepType, UndoKind,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Capture {
    id: Option<u64>,
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
    type Capture = Capture;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "rbd.snap_remove",
            doc: "Removes a snapshot of an RBD image.",
            access: Access::Changes,
            undo: UndoKind::Impossible,
            on_interrupt: OnInterrupt::Probe,
            detach: false,
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

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Capture, StepError> {
        Ok(Capture { id: snap::find(cx, &inputs.image(), &inputs.snap).await?.map(|s| s.id) })
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Capture) -> Result<Acted<Outputs>, StepError> {
        let image = inputs.image();
        let Some(now) = snap::find(cx, &image, &inputs.snap).await? else {
            // Gone since the step began: an earlier attempt removed it.
            let removed = capture.id.is_some();
            return Ok(Acted { outputs: Outputs { removed }, changed: removed });
        };
        if capture.id.is_some_and(|id| id != now.id) {
            return Err(StepError::conflict(format!("{image}@{} has been taken anew since this step began", now.name))
                .help("look at it (`rbd snap ls`) before you remove it"));
        }
        if now.protected {
            return Err(protected(inputs));
        }
        snap::remove(cx, &image, &inputs.snap).await?;
        Ok(Acted::changed(Outputs { removed: true }))
    }

    async fn probe(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Capture) -> Result<Probe<Outputs>, StepError> {
        let now = snap::find(cx, &inputs.image(), &inputs.snap).await?.map(|s| s.id);
        Ok(if capture.id.is_some() && now != capture.id {
            Probe::Done(Acted::changed(Outputs { removed: true }))
        } else {
            Probe::NotDone
        })
    }
}
