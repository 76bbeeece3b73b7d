//! `rbd.snap_rollback`: sets an RBD image back to a snapshot.
//!
//! **Does.** Takes a safety snapshot of the image as it is (`safety`), then rolls back to `snap`. All data is copied:
//! the larger the image, the longer it takes, so give the step a `timeout`.
//!
//! **Refuses** an image that somebody has open for writing: it would change under a mounted file system.
//!
//! **Undo** rolls back to the safety snapshot and removes it. It restores everything that was there before, so what was
//! written to the image after the rollback is lost by the undo; also then nobody may have it open.
//!
//! **After an interruption** the image may be half rolled back. It is rolled back again: the safety snapshot is from
//! before the first attempt, and stays.

use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, Probe, StepError, StepType, UndoKind,
    Undone,
};
use runback_core::target::Stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cli::{Image, image_inputs};
use super::{errors, look, snap};

image_inputs! {
    /// Which snapshot, and the name of the one that undo needs.
    {
        /// The snapshot to go back to.
        snap: String,
        /// The name of the safety snapshot. Default: `before-rollback-RUN`.
        #[serde(default)]
        safety: String,
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// The snapshot of the image as it was before; it stays until it is removed (`rbd.snap_remove`).
    pub(crate) safety: String,
    /// The id of that snapshot.
    pub(crate) safety_id: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Capture {
    safety: String,
}

/// The step type `rbd.snap_rollback`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RbdSnapRollback;

fn safety(cx: &Cx<'_>, inputs: &Inputs) -> String {
    if inputs.safety.is_empty() { format!("before-rollback-{}", cx.run) } else { inputs.safety.clone() }
}

async fn unused(cx: &Cx<'_>, image: &Image) -> Result<(), StepError> {
    let watchers = look::watchers(cx, image).await?;
    if watchers.is_empty() {
        return Ok(());
    }
    Err(StepError::conflict(format!("{image} is open for writing by {}", look::shown(&watchers)))
        .help("stop what uses it and unmap it: an image must not change under a mounted file system"))
}

/// The work itself: it has no bound but the attempt's, and outlives runback if the step says `detach: true`.
async fn go_back(cx: &Cx<'_>, image: &Image, name: &str) -> Result<(), StepError> {
    let what = format!("{image}@{name}");
    cx.phase(format!("rolling back to {what}"));
    let option = format!("--snap={name}");
    let command = image.long(cx, &["snap", "rollback", "--no-progress", &option]);
    let exit = cx.run(command.clone()).await?;
    if exit.ok() { Ok(()) } else { Err(errors::of_exit(&command, &exit, &what, &image.connection)) }
}

#[async_trait::async_trait]
impl StepType for RbdSnapRollback {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = Capture;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "rbd.snap_rollback",
            doc: "Sets an RBD image back to a snapshot, and keeps what was there in another.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Main,
            examples: &[
                "- id: back\n  uses: rbd.snap_rollback\n  with: { pool: kube, image: index-api-image, snap: before-upgrade }\n  timeout: 2h\n",
            ],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut found = inputs.image().problems();
        found.extend(snap::name_problems("snap", &inputs.snap));
        if !inputs.safety.is_empty() {
            found.extend(snap::name_problems("safety", &inputs.safety));
        }
        if !inputs.snap.is_empty() && inputs.safety == inputs.snap {
            found.push(crate::http::look::problem(&["safety"], "must be another name than `snap`".to_owned()));
        }
        found
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let image = inputs.image();
        let to = snap::must(cx, &image, &inputs.snap).await?;
        if let Err(e) = unused(cx, &image).await {
            let summary = format!("would refuse: {}", e.message);
            return Ok(Preview { changes: Some(false), summary, details: Vec::new() });
        }
        let summary = format!("roll {image} back to {}", to.name);
        let details = vec![format!("take snapshot {image}@{} first", safety(cx, inputs))];
        Ok(Preview { changes: Some(true), summary, details })
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Capture, StepError> {
        let (image, safety) = (inputs.image(), safety(cx, inputs));
        snap::must(cx, &image, &inputs.snap).await?;
        if snap::find(cx, &image, &safety).await?.is_some() {
            return Err(StepError::conflict(format!("{image}@{safety} is there already, from before this step"))
                .help("give `safety` another name: that snapshot holds an older state"));
        }
        Ok(Capture { safety })
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Capture) -> Result<Acted<Outputs>, StepError> {
        let image = inputs.image();
        // A rollback that still runs, from an earlier process, is itself a watcher.
        if cx.reattach.is_none() {
            unused(cx, &image).await?;
        }
        let kept = match snap::find(cx, &image, &capture.safety).await? {
            Some(kept) => kept,
            None => snap::create(cx, &image, &capture.safety).await?,
        };
        go_back(cx, &image, &inputs.snap).await?;
        let line = format!("{image} is as in {}; what was there before is in {}\n", inputs.snap, kept.name);
        cx.host.output(Stream::Stdout, line.as_bytes());
        Ok(Acted::changed(Outputs { safety: kept.name, safety_id: kept.id }))
    }

    async fn probe(&self, _cx: &Cx<'_>, _inputs: &Inputs, _: &Capture) -> Result<Probe<Outputs>, StepError> {
        Ok(Probe::NotDone)
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        inputs: &Inputs,
        capture: &Capture,
        outputs: Option<&Outputs>,
    ) -> Result<Undone, StepError> {
        let image = inputs.image();
        let Some(kept) = snap::find(cx, &image, &capture.safety).await? else {
            // It comes first: without it, nothing was rolled back, or it was undone before.
            return match outputs {
                Some(_) if cx.host.notes().iter().any(|n| n["restored"] == image.to_string()) => {
                    Ok(Undone { changed: false, note: None })
                }
                None => Ok(Undone { changed: false, note: None }),
                Some(_) => Err(StepError::conflict(format!(
                    "{image}: the safety snapshot {} is gone, so the image stays as it is",
                    capture.safety
                ))),
            };
        };
        if outputs.is_some_and(|o| o.safety_id != kept.id) && !cx.force {
            return Err(StepError::conflict(format!(
                "{image}@{} is another snapshot than the one that this step took",
                kept.name
            )));
        }
        if cx.reattach.is_none() {
            unused(cx, &image).await?;
        }
        go_back(cx, &image, &capture.safety).await?;
        cx.host.note(serde_json::json!({"restored": image.to_string()})).await?;
        snap::take_back(cx, &image, &capture.safety, Some(kept.id)).await?;
        Ok(Undone { changed: true, note: Some(format!("{image} is as it was before the rollback")) })
    }
}
