//! `docker.pull`: an image, as its registry has it.
//!
//! **Does.** `docker pull`. With `missing_only: true` nothing is asked where the daemon has an image of that name.
//!
//! **Outputs.** `id`, `name`, and `digest` (null where the registry gave none).
//!
//! **Undo** gives the name the image that it had, or removes it. What somebody gave the name after a pull that failed stays.
//! Layers that came along stay until they are pruned.

use runback_core::Json;
use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind, Undone,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cli::{Engine, engine_inputs, name_problem};
use super::images::{self, NameBefore};
use super::tag::required;

engine_inputs! {
    /// Which image.
    {
        /// Its name, with its registry if that is not Docker's own.
        image: String,
        /// Ask the registry only if the daemon has no such image.
        #[serde(default)]
        missing_only: bool,
        /// The platform, such as linux/arm64. Default: the daemon's own.
        #[serde(default)]
        platform: String,
    }
}

/// The image.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// Its id.
    pub(crate) id: String,
    /// As it was asked for.
    pub(crate) name: String,
    /// What its registry calls it, with the hash.
    pub(crate) digest: Option<String>,
}

/// The step type `docker.pull`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DockerPull;

/// What the registry of an image's name calls it.
pub(super) async fn digest(engine: &Engine, cx: &Cx<'_>, image: &str) -> Result<Option<String>, StepError> {
    let found = engine.inspect(cx, "image", &[image]).await?;
    let repository = match image.rsplit_once(':') {
        Some((before, tag)) if !tag.contains('/') => before,
        _ => image,
    };
    let digests = found.first().and_then(|i| i["RepoDigests"].as_array()).cloned().unwrap_or_default();
    let of_it = digests.iter().filter_map(Json::as_str).find(|d| d.split('@').next() == Some(repository));
    Ok(of_it.map(str::to_owned))
}

#[async_trait::async_trait]
impl StepType for DockerPull {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = Vec<NameBefore>;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "docker.pull",
            doc: "An image, as its registry has it.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Main,
            examples: &[
                "- id: image\n  uses: docker.pull\n  with: { image: \"registry.example.com/app:1.4\" }\n  timeout: 15m\n",
            ],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        inputs.engine().problems().into_iter().chain(name_problem("image", &inputs.image)).collect()
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let there = inputs.engine().image_id(cx, &inputs.image).await?.is_some();
        let summary = match (there, inputs.missing_only) {
            (true, true) => format!("{} is there", inputs.image),
            (true, false) => format!("pull {}, of which the daemon has one", inputs.image),
            (false, _) => format!("pull {}", inputs.image),
        };
        let changes = if there { inputs.missing_only.then_some(false) } else { Some(true) };
        Ok(Preview { changes, summary, details: Vec::new() })
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Vec<NameBefore>, StepError> {
        images::capture(&inputs.engine(), cx, std::slice::from_ref(&inputs.image)).await
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Vec<NameBefore>) -> Result<Acted<Outputs>, StepError> {
        let engine = inputs.engine();
        if !inputs.missing_only || engine.image_id(cx, &inputs.image).await?.is_none() {
            let mut words = vec!["pull", "--quiet"];
            if !inputs.platform.is_empty() {
                words.extend(["--platform", &inputs.platform]);
            }
            words.push(&inputs.image);
            let what = format!("image {}", inputs.image);
            images::moving(&engine, cx, capture, engine.main(cx, engine.work(&words), &what)).await?;
        }
        let id = required(&engine, cx, &inputs.image).await?;
        let changed = images::moved(cx, capture, &inputs.image, Some(&id));
        let digest = digest(&engine, cx, &inputs.image).await?;
        Ok(Acted { outputs: Outputs { id, name: inputs.image.clone(), digest }, changed })
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        inputs: &Inputs,
        capture: &Vec<NameBefore>,
        outputs: Option<&Outputs>,
    ) -> Result<Undone, StepError> {
        images::undo(&inputs.engine(), cx, capture, |_| outputs.map(|o| o.id.clone())).await
    }
}
