//! `compose.pull`: the images of a Compose project, as the registries have them.
//!
//! **Does.** `pull` for the project in `dir`, or some of its services. Nothing is restarted.
//!
//! Version 2 of Compose (`docker compose`) was tried only by recordings of what it prints.
//!
//! **Outputs.** `images`: the name of each image that the files want, and the id that it has now.
//!
//! **Undo** gives each name the image that it had, and removes names that were not there. Layers that came along stay until
//! they are pruned.

use std::collections::BTreeMap;

use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind, Undone,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cli::compose_inputs;
use crate::docker::images::{self, NameBefore};

compose_inputs! {
    /// Which project, and which of its services.
    {
        /// Only these services.
        #[serde(default)]
        services: Vec<String>,
    }
}

/// What the names mean now.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// Names of images, and their ids.
    pub(crate) images: BTreeMap<String, String>,
}

/// The step type `compose.pull`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ComposePull;

#[async_trait::async_trait]
impl StepType for ComposePull {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = Vec<NameBefore>;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "compose.pull",
            doc: "The images of a Compose project, as the registries have them.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Main,
            examples: &["- id: images\n  uses: compose.pull\n  with: { dir: /opt/app }\n"],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        inputs.compose().problems(&inputs.services)
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let compose = inputs.compose();
        let images = compose.images(cx).await?;
        let summary = format!("pull the {} images of project {}", images.len(), compose.name(cx)?);
        Ok(Preview { changes: None, summary, details: images })
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Vec<NameBefore>, StepError> {
        let compose = inputs.compose();
        images::capture(&compose.engine, cx, &compose.images(cx).await?).await
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Vec<NameBefore>) -> Result<Acted<Outputs>, StepError> {
        let compose = inputs.compose();
        let tool = compose.tool(cx).await?;
        let mut words = vec!["pull", "--quiet"];
        words.extend(inputs.services.iter().map(String::as_str));
        let (work, what) = (compose.work(cx, &tool, &words)?, compose.what(cx));
        images::moving(&compose.engine, cx, capture, compose.engine.main(cx, work, &what)).await?;
        let mut images = BTreeMap::new();
        let mut changed = false;
        for before in capture {
            let id = compose.engine.image_id(cx, &before.name).await?;
            changed |= images::moved(cx, capture, &before.name, id.as_deref());
            images.extend(id.map(|id| (before.name.clone(), id)));
        }
        Ok(Acted { outputs: Outputs { images }, changed })
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        inputs: &Inputs,
        capture: &Vec<NameBefore>,
        outputs: Option<&Outputs>,
    ) -> Result<Undone, StepError> {
        let left = |name: &str| outputs.and_then(|o| o.images.get(name).cloned());
        images::undo(&inputs.engine(), cx, capture, left).await
    }
}
