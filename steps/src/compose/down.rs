//! `compose.down`: the containers and networks of a Compose project are gone.
//!
//! **Does.** `down` for the project in `dir`. A project that is not there is fine.
//!
//! Version 2 of Compose (`docker compose`) was tried only by recordings of what it prints.
//!
//! **Outputs.** `project`, and `removed`: the names of the containers that went.
//!
//! **Undo** makes the containers and networks again with exactly the configuration and the images that they had, and starts
//! those that ran. Until then that configuration, passwords in the environment included, is in
//! `.compose.runback-RUN-STEP.bak` in `dir` on the target, for its owner only. With `volumes: true` data is lost, and
//! nothing brings it back: the step is then a point of no return.

use runback_core::Json;
use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind, Undone,
};
use runback_core::template::ValueTemplate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cli::compose_inputs;
use super::project::{self, Before};
use super::{keep, take_back};

compose_inputs! {
    /// Which project, and what goes besides its containers and networks.
    {
        /// Remove the volumes that the files declare, and those without a name: their data is lost.
        #[serde(default)]
        volumes: bool,
        /// Remove containers of services that the files do not have any more.
        #[serde(default)]
        remove_orphans: bool,
    }
}

/// What went.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// The project's name.
    pub(crate) project: String,
    /// The names of the containers that went.
    pub(crate) removed: Vec<String>,
}

/// The step type `compose.down`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ComposeDown;

#[async_trait::async_trait]
impl StepType for ComposeDown {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = Before;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "compose.down",
            doc: "The containers and networks of a Compose project are gone.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Main,
            examples: &["- id: down\n  uses: compose.down\n  with: { dir: /opt/app }\n"],
        }
    }

    fn capabilities(&self, with: &ValueTemplate) -> (Access, UndoKind) {
        let keeps = match with.get("volumes") {
            None => true,
            Some(given) => given.literal() == Some(&Json::Bool(false)),
        };
        (Access::Changes, if keeps { UndoKind::Full } else { UndoKind::Impossible })
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        inputs.compose().problems(&[])
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let compose = inputs.compose();
        let name = compose.name(cx)?;
        let now = project::look(&compose.engine, cx, &name).await?;
        let there = !now.containers.is_empty() || !now.networks.is_empty();
        let summary = if there {
            format!("take project {name} down: {} containers", now.containers.len())
        } else {
            format!("project {name} is not there")
        };
        let mut details: Vec<String> =
            now.containers.iter().map(|c| format!("remove {} ({})", c.name, c.status)).collect();
        if inputs.volumes {
            details.extend(now.volumes.iter().map(|v| format!("remove the volume {v} with its data")));
        }
        Ok(Preview { changes: Some(there), summary, details })
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Before, StepError> {
        let compose = inputs.compose();
        let name = compose.name(cx)?;
        Ok(project::look(&compose.engine, cx, &name).await?.before())
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Before) -> Result<Acted<Outputs>, StepError> {
        let compose = inputs.compose();
        let name = compose.name(cx)?;
        let now = project::look(&compose.engine, cx, &name).await?;
        keep::save(&compose, cx, capture, &now).await?;
        let mut words = vec!["down"];
        words.extend(inputs.volumes.then_some("--volumes"));
        words.extend(inputs.remove_orphans.then_some("--remove-orphans"));
        let tool = compose.tool(cx).await?;
        compose.engine.main(cx, compose.work(cx, &tool, &words)?, &compose.what(cx)).await?;
        let after = project::look(&compose.engine, cx, &name).await?;
        let gone = |id: &str| !after.containers.iter().any(|c| c.id == id);
        let removed: Vec<String> = capture.containers.iter().filter(|b| gone(&b.id)).map(|b| b.name.clone()).collect();
        let changed = after.before() != *capture;
        Ok(Acted { outputs: Outputs { project: name, removed }, changed })
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        inputs: &Inputs,
        capture: &Before,
        outputs: Option<&Outputs>,
    ) -> Result<Undone, StepError> {
        take_back::undo(&inputs.compose(), cx, capture, outputs.map(|_| &[][..])).await
    }
}
