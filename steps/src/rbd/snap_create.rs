//! `rbd.snap_create`: takes a snapshot of an RBD image.
//!
//! **Does.** Takes the snapshot, and reads it back. A snapshot of that name that is there already is a conflict: it holds
//! an older state, and would be no safety at all (`existing: accept` says that any is fine). Put `{{ run.id }}` into the
//! name to have one per run.
//!
//! **Undo** removes the snapshot that the step took, if it is still that one and nobody has protected it.
//!
//! **Does not** flush what a client has not written yet: the image is as after a power cut. And an image with the
//! exclusive-lock feature cannot be snapshotted while somebody holds a lock that was taken by hand.

use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, Probe, StepError, StepType, UndoKind,
    Undone,
};
use runback_core::target::Stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cli::image_inputs;
use super::snap::{self, Snap};
use crate::begun::{self, Tells};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Existing {
    #[default]
    Refuse,
    Accept,
}

image_inputs! {
    /// Which image, and the snapshot's name.
    {
        /// The snapshot's name.
        snap: String,
        /// What a snapshot of that name, there already, is.
        #[serde(default)]
        existing: Existing,
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// The snapshot's name.
    pub(crate) name: String,
    /// `pool/namespace/image@snapshot`, for messages and `rbd` commands.
    pub(crate) spec: String,
    /// The snapshot's id, never used twice in a pool.
    pub(crate) id: u64,
    /// Of the image when it was taken, in bytes.
    pub(crate) size: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Capture {
    before: Option<Snap>,
    #[serde(default)]
    tells: Tells,
}

/// The step type `rbd.snap_create`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RbdSnapCreate;

fn outputs(inputs: &Inputs, snap: Snap) -> Outputs {
    Outputs { spec: format!("{}@{}", inputs.image(), snap.name), name: snap.name, id: snap.id, size: snap.size }
}

fn taken(inputs: &Inputs) -> StepError {
    StepError::conflict(format!("{}@{} is there already, from before this run", inputs.image(), inputs.snap))
        .help("choose another name, such as one with {{ run.id }}, or say `existing: accept`")
}

#[async_trait::async_trait]
impl StepType for RbdSnapCreate {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = Capture;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "rbd.snap_create",
            doc: "Takes a snapshot of an RBD image.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: OnInterrupt::Probe,
            commands: Commands::Small,
            examples: &[
                "- id: safety\n  uses: rbd.snap_create\n  with: { pool: kube, image: index-api-image, snap: \"before-{{ run.id }}\" }\n",
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
        let there = snap::find(cx, &image, &inputs.snap).await?.is_some();
        let summary = match (there, inputs.existing) {
            (true, Existing::Refuse) => format!("would refuse: {}", taken(inputs).message),
            (true, Existing::Accept) => format!("{image}@{} is there already", inputs.snap),
            (false, _) => format!("take snapshot {image}@{}", inputs.snap),
        };
        Ok(Preview { changes: Some(!there), summary, details: Vec::new() })
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Capture, StepError> {
        Ok(Capture { before: snap::find(cx, &inputs.image(), &inputs.snap).await?, tells: Tells::YES })
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Capture) -> Result<Acted<Outputs>, StepError> {
        let image = inputs.image();
        if let Some(before) = &capture.before {
            return match inputs.existing {
                Existing::Accept => Ok(Acted::unchanged(outputs(inputs, before.clone()))),
                Existing::Refuse => Err(taken(inputs)),
            };
        }
        cx.phase(format!("taking snapshot {image}@{}", inputs.snap));
        // One that is there now, and was not when this step began, is from an attempt of it.
        let taken = match snap::find(cx, &image, &inputs.snap).await? {
            Some(_) if capture.tells.strangers(cx) => return Err(taken(inputs)),
            Some(snap) => snap,
            None => {
                let none = async { snap::find(cx, &image, &inputs.snap).await.is_ok_and(|now| now.is_none()) };
                begun::changing(cx, snap::create(cx, &image, &inputs.snap), none).await?
            }
        };
        let outputs = outputs(inputs, taken);
        cx.host.output(Stream::Stdout, format!("{} is taken\n", outputs.spec).as_bytes());
        Ok(Acted::changed(outputs))
    }

    async fn probe(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Capture) -> Result<Probe<Outputs>, StepError> {
        if capture.before.is_some() || capture.tells.strangers(cx) {
            return Ok(Probe::NotDone);
        }
        Ok(match snap::find(cx, &inputs.image(), &inputs.snap).await? {
            Some(snap) => Probe::Done(Acted::changed(outputs(inputs, snap))),
            None => Probe::NotDone,
        })
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        inputs: &Inputs,
        capture: &Capture,
        outputs: Option<&Outputs>,
    ) -> Result<Undone, StepError> {
        if capture.before.is_some() || capture.tells.nothing_of(cx, outputs) {
            return Ok(Undone { changed: false, note: None });
        }
        let image = inputs.image();
        let changed = snap::take_back(cx, &image, &inputs.snap, outputs.map(|o| o.id)).await?;
        let note = changed.then(|| format!("{image}@{} is removed", inputs.snap));
        Ok(Undone { changed, note })
    }
}
