//! `docker.tag`: another name for an image.
//!
//! **Does.** Gives the image `image` the name `name` too. Where the name is its already, it does nothing.
//!
//! **Outputs.** `id`, `name`.
//!
//! **Undo** gives the name the image that it had, or removes it. It does so only if nobody moved the name since; else it is
//! a conflict, and `--force` decides.

use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind, Undone,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cli::{Engine, engine_inputs, name_problem};
use super::images::{self, NameBefore};

engine_inputs! {
    /// Which image, and its new name.
    {
        /// A name or id of the image.
        image: String,
        /// What it shall be called too.
        name: String,
    }
}

/// The image.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// Its id.
    pub(crate) id: String,
    /// What it is called now.
    pub(crate) name: String,
}

/// The step type `docker.tag`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DockerTag;

/// The id of an image that must be on the daemon.
pub(super) async fn required(engine: &Engine, cx: &Cx<'_>, image: &str) -> Result<String, StepError> {
    engine.image_id(cx, image).await?.ok_or_else(|| {
        StepError::permanent(format!("the daemon has no image {image}"))
            .help("build it with `uses: docker.build`, get it with `uses: docker.pull`, or correct its name")
    })
}

#[async_trait::async_trait]
impl StepType for DockerTag {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = Vec<NameBefore>;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "docker.tag",
            doc: "Another name for an image.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Small,
            examples: &[
                "- id: latest\n  uses: docker.tag\n  with: { image: \"registry.example.com/app:1.4\", name: \"registry.example.com/app:latest\" }\n",
            ],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let names = [("image", &inputs.image), ("name", &inputs.name)];
        let mut all = inputs.engine().problems();
        all.extend(names.iter().filter_map(|(key, name)| name_problem(key, name)));
        all
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let engine = inputs.engine();
        let id = required(&engine, cx, &inputs.image).await?;
        let now = engine.image_id(cx, &inputs.name).await?;
        let same = now.as_ref() == Some(&id);
        let summary = match &now {
            _ if same => format!("{} is {} already", inputs.name, inputs.image),
            Some(_) => format!("{} becomes {}; it is another image now", inputs.name, inputs.image),
            None => format!("{} becomes {}", inputs.name, inputs.image),
        };
        Ok(Preview { changes: Some(!same), summary, details: Vec::new() })
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Vec<NameBefore>, StepError> {
        images::capture(&inputs.engine(), cx, std::slice::from_ref(&inputs.name)).await
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Vec<NameBefore>) -> Result<Acted<Outputs>, StepError> {
        let engine = inputs.engine();
        let id = required(&engine, cx, &inputs.image).await?;
        let words = ["tag", &inputs.image, &inputs.name];
        let what = format!("image {}", inputs.name);
        images::moving(&engine, cx, capture, engine.ran(cx, engine.work(&words), &what)).await?;
        let changed = images::moved(cx, capture, &inputs.name, Some(&id));
        Ok(Acted { outputs: Outputs { id, name: inputs.name.clone() }, changed })
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
