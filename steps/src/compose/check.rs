//! `compose.check`: every service of a Compose project runs, is healthy, and does not restart over and over.
//!
//! **Does.** Looks until each service that the files declare has a container that runs, is healthy where it has a health
//! check, and all of them have then lived for `window` without a restart. Fails at `timeout`, or at once when a container
//! has ended that nobody starts again. The state is read with `docker inspect`.
//!
//! Version 2 of Compose (`docker compose`) was tried only by recordings of what it prints.
//!
//! **Outputs.** `project`, and `containers`: service, name, id, image and whether it runs, each.

use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind,
};

use super::cli::compose_inputs;
use super::project;
use super::settle::{self, Wanted};
use super::up::Outputs;
use crate::docker::container::Container;
use crate::http::look::problem;
use crate::period::Period;

compose_inputs! {
    /// Which project, and what counts as well.
    {
        /// Only these services.
        #[serde(default)]
        services: Vec<String>,
        /// How long nothing may restart, once all is well.
        #[serde(default = "crate::compose::check::ten_seconds")]
        window: Period,
        /// How long to wait until then.
        #[serde(default = "crate::compose::up::two_minutes")]
        timeout: Period,
        /// Services that do their work once, and may have ended with exit code 0.
        #[serde(default)]
        may_end: Vec<String>,
    }
}

pub(crate) fn ten_seconds() -> Period {
    Period::seconds(10)
}

/// The step type `compose.check`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ComposeCheck;

#[async_trait::async_trait]
impl StepType for ComposeCheck {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = ();

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "compose.check",
            doc: "Every service of a Compose project runs, is healthy, and stays up.",
            access: Access::Reads,
            undo: UndoKind::None,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Small,
            examples: &["- id: well\n  uses: compose.check\n  with: { dir: /opt/app, window: 30s, timeout: 3m }\n"],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut all = inputs.compose().problems(&inputs.services);
        if inputs.window > inputs.timeout {
            let why = format!("the window ({}) is longer than `timeout` ({})", inputs.window, inputs.timeout);
            all.push(problem(&["window"], why));
        }
        all
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let compose = inputs.compose();
        let name = compose.name(cx)?;
        let now = project::containers(&compose.engine, cx, &name).await?;
        let details = now.iter().map(|c| format!("{} is {}", c.name, c.status)).collect();
        let summary = format!("check that project {name} is well");
        Ok(Preview { changes: Some(false), summary, details })
    }

    async fn capture(&self, _: &Cx<'_>, _: &Inputs) -> Result<(), StepError> {
        Ok(())
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, (): &()) -> Result<Acted<Outputs>, StepError> {
        let compose = inputs.compose();
        let all = compose.services(cx).await?;
        let wanted = Wanted {
            services: if inputs.services.is_empty() { &all } else { &inputs.services },
            may_end: &inputs.may_end,
            window: inputs.window.0,
            limit: inputs.timeout.0,
        };
        let containers = settle::wait(&compose, cx, &wanted).await?;
        let containers = containers.iter().map(Container::member).collect();
        Ok(Acted::unchanged(Outputs { project: compose.name(cx)?, containers }))
    }
}
