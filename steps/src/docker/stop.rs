//! `docker.stop`: a container does not run.
//!
//! **Does.** `docker stop`: the signal that the container wants, and after `grace` a kill. A container that does not run is
//! fine; one that is not there is an error.
//!
//! **Outputs.** `container`, `id`, `exit_code`.
//!
//! **Undo** starts it, if it ran and the step stopped it. It is the same container, with what it had written into itself.

use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind, Undone,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cli::{Engine, engine_inputs, name_problem};
use super::container::Container;
use crate::begun::{self, Tells};
use crate::period::Period;

engine_inputs! {
    /// Which container.
    {
        /// Its name or id, whole or at least the 12 digits of it that `docker ps` shows.
        container: String,
        /// From the signal to the kill, in whole seconds.
        #[serde(default = "crate::docker::stop::ten_seconds")]
        grace: Period,
    }
}

pub(crate) fn ten_seconds() -> Period {
    Period::seconds(10)
}

/// The container.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// Its name.
    pub(crate) container: String,
    /// Its id.
    pub(crate) id: String,
    /// What it ended with.
    pub(crate) exit_code: i64,
}

/// The container before.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Capture {
    id: String,
    running: bool,
    #[serde(default)]
    tells: Tells,
}

/// The step type `docker.stop`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DockerStop;

/// By its name, or its whole id; None = not there. Docker itself takes a name that it does not know for the beginning of an
/// id, and finds the container of somebody else.
pub(super) async fn find(engine: &Engine, cx: &Cx<'_>, name: &str) -> Result<Option<Container>, StepError> {
    let found = engine.inspect(cx, "container", &[name]).await?.into_iter().next().map(Container::of);
    Ok(found.filter(|c| c.name == name || c.id == name))
}

/// As many digits of an id as `docker ps` shows.
const SHORT: usize = 12;

async fn there(engine: &Engine, cx: &Cx<'_>, name: &str) -> Result<Container, StepError> {
    let found = engine.inspect(cx, "container", &[name]).await?.into_iter().next().map(Container::of);
    let found = found.filter(|c| c.name == name || (name.len() >= SHORT && c.id.starts_with(name)));
    found.ok_or_else(|| {
        StepError::permanent(format!("there is no container {name}")).help("`docker ps --all` lists them")
    })
}

/// Stops it, and tells when. What fails and leaves it running has nothing to undo.
async fn stop(engine: &Engine, cx: &Cx<'_>, inputs: &Inputs, id: &str) -> Result<(), StepError> {
    let seconds = inputs.grace.0.as_secs().to_string();
    let what = format!("container {}", inputs.container);
    let work = engine.ran(cx, engine.work(&["stop", "--time", &seconds, id]), &what);
    let runs = async { find(engine, cx, id).await.is_ok_and(|now| now.is_some_and(|now| now.running)) };
    begun::changing(cx, work, runs).await.map(drop)
}

#[async_trait::async_trait]
impl StepType for DockerStop {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = Capture;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "docker.stop",
            doc: "A container does not run.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Small,
            examples: &["- id: quiet\n  uses: docker.stop\n  with: { container: app, grace: 30s }\n"],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        inputs.engine().problems().into_iter().chain(name_problem("container", &inputs.container)).collect()
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let container = there(&inputs.engine(), cx, &inputs.container).await?;
        let verb = if container.running { "stop" } else { "leave" };
        let summary = format!("{verb} {}, which is {}", container.name, container.status);
        Ok(Preview { changes: Some(container.running), summary, details: Vec::new() })
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Capture, StepError> {
        let container = there(&inputs.engine(), cx, &inputs.container).await?;
        Ok(Capture { id: container.id, running: container.running, tells: Tells::YES })
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Capture) -> Result<Acted<Outputs>, StepError> {
        let engine = inputs.engine();
        let now = there(&engine, cx, &inputs.container).await?;
        if now.running {
            stop(&engine, cx, inputs, &now.id).await?;
        }
        let after = there(&engine, cx, &inputs.container).await?;
        if after.running {
            let what = format!("container {}", inputs.container);
            return Err(StepError::conflict(format!("{what} was started again while it was stopped")));
        }
        let outputs = Outputs { container: after.name, id: after.id, exit_code: after.exit_code };
        Ok(Acted { outputs, changed: capture.running && !capture.tells.strangers(cx) })
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        inputs: &Inputs,
        capture: &Capture,
        _: Option<&Outputs>,
    ) -> Result<Undone, StepError> {
        if !capture.running || capture.tells.strangers(cx) {
            return Ok(Undone { changed: false, note: None });
        }
        let engine = inputs.engine();
        let Some(now) = find(&engine, cx, &capture.id).await? else {
            return Err(StepError::conflict(format!("the container {} was removed since", inputs.container))
                .help("it cannot be started again; run it anew"));
        };
        if now.running {
            return Ok(Undone { changed: false, note: None });
        }
        engine.ran(cx, engine.work(&["start", &capture.id]), &format!("container {}", now.name)).await?;
        Ok(Undone { changed: true, note: Some(format!("started {}", now.name)) })
    }
}
