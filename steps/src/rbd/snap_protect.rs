//! `rbd.snap_protect`: protects a snapshot of an RBD image from removal, so that it can be cloned.
//!
//! **Undo** takes the protection off again, if the step put it on. A snapshot that has clones by then keeps it, and the
//! undo fails and says so.

use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, Probe, StepError, StepType, UndoKind,
    Undone,
};
use serde::{Deserialize, Serialize};

use super::cli::image_inputs;
use super::snap::{self, Snap};

image_inputs! {
    /// Which snapshot.
    {
        /// The snapshot's name.
        snap: String,
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Capture {
    id: u64,
    protected: bool,
}

/// The step type `rbd.snap_protect`. Its outputs are the snapshot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RbdSnapProtect;

#[async_trait::async_trait]
impl StepType for RbdSnapProtect {
    type Inputs = Inputs;
    type Outputs = Snap;
    type Capture = Capture;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "rbd.snap_protect",
            doc: "Protects a snapshot of an RBD image from removal.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Small,
            examples: &[
                "- id: protect\n  uses: rbd.snap_protect\n  with: { pool: templates, image: debian-12, snap: golden }\n",
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
        let now = snap::must(cx, &image, &inputs.snap).await?;
        let summary = if now.protected {
            format!("{image}@{} is protected already", now.name)
        } else {
            format!("protect {image}@{}", now.name)
        };
        Ok(Preview { changes: Some(!now.protected), summary, details: Vec::new() })
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Capture, StepError> {
        let now = snap::must(cx, &inputs.image(), &inputs.snap).await?;
        Ok(Capture { id: now.id, protected: now.protected })
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Capture) -> Result<Acted<Snap>, StepError> {
        let image = inputs.image();
        let now = snap::must(cx, &image, &inputs.snap).await?;
        if !now.protected {
            snap::change(cx, &image, &["protect"], &inputs.snap, |now| now.is_some_and(|s| s.protected)).await?;
        }
        let outputs = Snap { protected: true, ..now };
        Ok(if capture.protected { Acted::unchanged(outputs) } else { Acted::changed(outputs) })
    }

    async fn probe(&self, cx: &Cx<'_>, inputs: &Inputs, _: &Capture) -> Result<Probe<Snap>, StepError> {
        let now = snap::find(cx, &inputs.image(), &inputs.snap).await?;
        Ok(now.filter(|s| s.protected).map_or(Probe::NotDone, |s| Probe::Done(Acted::changed(s))))
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        inputs: &Inputs,
        capture: &Capture,
        _outputs: Option<&Snap>,
    ) -> Result<Undone, StepError> {
        let image = inputs.image();
        let now = snap::find(cx, &image, &inputs.snap).await?.filter(|s| s.protected && !capture.protected);
        let Some(now) = now else { return Ok(Undone { changed: false, note: None }) };
        if now.id != capture.id && !cx.force {
            return Err(StepError::conflict(format!(
                "{image}@{} stays protected: it is another snapshot than the one that this step protected",
                now.name
            )));
        }
        snap::change(cx, &image, &["unprotect"], &inputs.snap, |now| now.is_none_or(|s| !s.protected)).await?;
        Ok(Undone { changed: true, note: Some(format!("{image}@{} is unprotected", now.name)) })
    }
}
