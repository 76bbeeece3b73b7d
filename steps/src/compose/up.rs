//! `compose.up`: the services of a Compose project run, as its files say.
//!
//! **Does.** `up --detach` for the project in `dir`: makes what is not there, replaces what the files now want otherwise,
//! and leaves the rest alone. With `wait` (the default) it ends only when every service runs, and is healthy where it has a
//! health check. `docker compose` is used where it is there, else `docker-compose`. Version 2 (`docker compose`) was tried only
//! by recordings of what it prints.
//!
//! **Outputs.** `project`, and `containers`: service, name, id, image and whether it runs, each.
//!
//! **Undo** brings the containers of before back. Those that the step made are stopped and removed; those that it replaced
//! are made again with exactly the configuration and the image that they had, whatever the files say by then; the
//! networks likewise. A project that was not there is gone afterwards, apart from its named volumes, which are named in
//! the report. While the step may be taken back, that configuration, passwords in the environment included, is in
//! `.compose.runback-RUN-STEP.bak` in `dir` on the target, for its owner only; it is not there if nothing was replaced.
//! Containers that somebody made after the step are a conflict, and `--force` decides.
//!
//! **Does not** build images unless told (`build: true`), and leaves no trace of what a container had written into itself:
//! what shall outlive a container belongs into a volume.

use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind, Undone,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cli::compose_inputs;
use super::project::{self, Before, Member};
use super::settle::{self, Wanted};
use super::{keep, take_back};
use crate::period::Period;

compose_inputs! {
    /// Which project, and how it is brought up.
    {
        /// Only these services and what they depend on.
        #[serde(default)]
        services: Vec<String>,
        /// Build images before.
        #[serde(default)]
        build: bool,
        /// Replace containers even where nothing changed.
        #[serde(default)]
        force_recreate: bool,
        /// Remove containers of services that the files do not have any more.
        #[serde(default)]
        remove_orphans: bool,
        /// End only when all services run, and are healthy where they have a health check.
        #[serde(default = "crate::compose::up::yes")]
        wait: bool,
        /// How long to wait for that.
        #[serde(default = "crate::compose::up::two_minutes")]
        wait_timeout: Period,
        /// Services that do their work once, and may have ended with exit code 0.
        #[serde(default)]
        may_end: Vec<String>,
    }
}

pub(crate) fn yes() -> bool {
    true
}

pub(crate) fn two_minutes() -> Period {
    Period::seconds(120)
}

/// What runs now.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// The project's name.
    pub(crate) project: String,
    /// Its containers, by name.
    pub(crate) containers: Vec<Member>,
}

/// The step type `compose.up`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ComposeUp;

#[async_trait::async_trait]
impl StepType for ComposeUp {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = Before;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "compose.up",
            doc: "The services of a Compose project run, as its files say.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Main,
            examples: &[
                "- id: up\n  uses: compose.up\n  with: { dir: /opt/app }\n",
                "- id: up\n  uses: compose.up\n  with: { dir: /opt/app, files: [docker-compose.yml, site.yml], remove_orphans: true, wait_timeout: 5m }\n",
            ],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        inputs.compose().problems(&inputs.services)
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let compose = inputs.compose();
        let name = compose.name(cx)?;
        let services = compose.services(cx).await?;
        let now = project::containers(&compose.engine, cx, &name).await?;
        let lacks = services.iter().filter(|s| !now.iter().any(|c| c.service() == **s && c.running)).count();
        let summary = if now.is_empty() {
            format!("bring up project {name}: {} services", services.len())
        } else if lacks > 0 {
            format!("bring up project {name}: {lacks} of {} services do not run", services.len())
        } else {
            format!("bring up project {name}, whose {} services run: those that changed are replaced", services.len())
        };
        let details = now.iter().map(|c| format!("{} is {}, of {}", c.name, c.status, c.image_name)).collect();
        Ok(Preview { changes: (lacks > 0).then_some(true), summary, details })
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
        let mut words = vec!["up", "--detach"];
        for (given, word) in [
            (inputs.build, "--build"),
            (inputs.force_recreate && cx.attempt == 1, "--force-recreate"),
            (inputs.remove_orphans, "--remove-orphans"),
        ] {
            words.extend(given.then_some(word));
        }
        words.extend(inputs.services.iter().map(String::as_str));
        let tool = compose.tool(cx).await?;
        let command = compose.work(cx, &tool, &words)?;
        compose.engine.main(cx, command, &compose.what(cx)).await?;
        if inputs.wait {
            let all = compose.services(cx).await?;
            let services = if inputs.services.is_empty() { &all } else { &inputs.services };
            let wanted = Wanted {
                services,
                may_end: &inputs.may_end,
                window: std::time::Duration::ZERO,
                limit: inputs.wait_timeout.0,
            };
            settle::wait(&compose, cx, &wanted).await?;
        }
        let containers = project::look(&compose.engine, cx, &name).await?.members();
        let changed = containers != capture.containers;
        let kept = |b: &Member| containers.iter().any(|c| c.id == b.id);
        if capture.containers.iter().all(kept) {
            keep::drop(&compose, cx).await?;
        }
        Ok(Acted { outputs: Outputs { project: name, containers }, changed })
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        inputs: &Inputs,
        capture: &Before,
        outputs: Option<&Outputs>,
    ) -> Result<Undone, StepError> {
        take_back::undo(&inputs.compose(), cx, capture, outputs.map(|o| &o.containers[..])).await
    }
}
