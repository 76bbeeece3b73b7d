//! `compose.restart`: the containers of a Compose project are started anew, as they are.
//!
//! **Does.** `restart` for the project in `dir`, or some of its services, and waits until they run and are healthy.
//!
//! Version 2 of Compose (`docker compose`) was tried only by recordings of what it prints.
//!
//! **Outputs.** `project`, and `containers` as those of `compose.up`.
//!
//! **Undo** is none: a restart leaves the configuration as it is.

use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind,
};

use super::cli::compose_inputs;
use super::project;
use super::settle::{self, Wanted};
use super::up::Outputs;
use crate::docker::container::Container;
use crate::period::Period;

compose_inputs! {
    /// Which project, and which of its services.
    {
        /// Only these services.
        #[serde(default)]
        services: Vec<String>,
        /// How long to wait until they run, and are healthy.
        #[serde(default = "crate::compose::up::two_minutes")]
        wait_timeout: Period,
        /// Services that do their work once, and may have ended with exit code 0.
        #[serde(default)]
        may_end: Vec<String>,
    }
}

/// The step type `compose.restart`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ComposeRestart;

#[async_trait::async_trait]
impl StepType for ComposeRestart {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = ();

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "compose.restart",
            doc: "The containers of a Compose project are started anew, as they are.",
            access: Access::Changes,
            undo: UndoKind::None,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Main,
            examples: &["- id: restart\n  uses: compose.restart\n  with: { dir: /opt/app, services: [proxy] }\n"],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        inputs.compose().problems(&inputs.services)
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let name = inputs.compose().name(cx)?;
        let which = if inputs.services.is_empty() { "all services".to_owned() } else { inputs.services.join(", ") };
        let summary = format!("restart {which} of project {name}");
        Ok(Preview { changes: Some(true), summary, details: Vec::new() })
    }

    async fn capture(&self, _: &Cx<'_>, _: &Inputs) -> Result<(), StepError> {
        Ok(())
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, (): &()) -> Result<Acted<Outputs>, StepError> {
        let compose = inputs.compose();
        let name = compose.name(cx)?;
        if project::containers(&compose.engine, cx, &name).await?.is_empty() {
            return Err(StepError::permanent(format!("project {name} is not there, so nothing can be restarted"))
                .help("bring it up with `uses: compose.up`"));
        }
        let tool = compose.tool(cx).await?;
        let mut words = vec!["restart"];
        words.extend(inputs.services.iter().map(String::as_str));
        compose.engine.main(cx, compose.work(cx, &tool, &words)?, &compose.what(cx)).await?;
        let all = compose.services(cx).await?;
        let wanted = Wanted {
            services: if inputs.services.is_empty() { &all } else { &inputs.services },
            may_end: &inputs.may_end,
            window: std::time::Duration::ZERO,
            limit: inputs.wait_timeout.0,
        };
        let containers = settle::wait(&compose, cx, &wanted).await?;
        let containers = containers.iter().map(Container::member).collect();
        Ok(Acted::changed(Outputs { project: name, containers }))
    }
}
