//! `docker.image_check`: the daemon has an image, or has it not.
//!
//! **Does.** Looks once. With `state: absent` an image of that name is an error; with `id`, so is another image than that.
//!
//! **Outputs.** `present`, `id` (null where there is none), `digests`, `size` in bytes, `labels`.

use std::collections::BTreeMap;

use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cli::{engine_inputs, name_problem};

/// Whether the image shall be there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum State {
    #[default]
    Present,
    Absent,
}

engine_inputs! {
    /// Which image, and what is right.
    {
        /// Its name or id.
        image: String,
        /// Whether it shall be there.
        #[serde(default)]
        state: State,
        /// The id that it must have, sha256: and the hash.
        #[serde(default)]
        id: Option<String>,
    }
}

/// What was found.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// The daemon has it.
    pub(crate) present: bool,
    /// Its id; null where there is none.
    pub(crate) id: Option<String>,
    /// What registries call it.
    pub(crate) digests: Vec<String>,
    /// In bytes.
    pub(crate) size: u64,
    /// Its labels.
    pub(crate) labels: BTreeMap<String, String>,
}

/// The step type `docker.image_check`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DockerImageCheck;

#[async_trait::async_trait]
impl StepType for DockerImageCheck {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = ();

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "docker.image_check",
            doc: "The daemon has an image, or has it not.",
            access: Access::Reads,
            undo: UndoKind::None,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Small,
            examples: &[
                "- id: built\n  uses: docker.image_check\n  with: { image: \"registry.example.com/app:1.4\" }\n",
            ],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        inputs.engine().problems().into_iter().chain(name_problem("image", &inputs.image)).collect()
    }

    async fn preview(&self, _: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let summary = format!("look at the image {}", inputs.image);
        Ok(Preview { changes: Some(false), summary, details: Vec::new() })
    }

    async fn capture(&self, _: &Cx<'_>, _: &Inputs) -> Result<(), StepError> {
        Ok(())
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, (): &()) -> Result<Acted<Outputs>, StepError> {
        let found = inputs.engine().inspect(cx, "image", std::slice::from_ref(&inputs.image)).await?;
        let image = &inputs.image;
        let Some(found) = found.first() else {
            if inputs.state == State::Present {
                return Err(StepError::conflict(format!("the daemon has no image {image}"))
                    .help("build it with `uses: docker.build`, or get it with `uses: docker.pull`"));
            }
            let labels = BTreeMap::new();
            return Ok(Acted::unchanged(Outputs { present: false, id: None, digests: Vec::new(), size: 0, labels }));
        };
        let id = found["Id"].as_str().map(str::to_owned);
        if inputs.state == State::Absent {
            let id = id.unwrap_or_default();
            return Err(StepError::conflict(format!("the daemon has an image {image}: {id}")));
        }
        if let Some(wanted) = &inputs.id
            && id.as_ref() != Some(wanted)
        {
            let is = id.unwrap_or_default();
            return Err(StepError::conflict(format!("the image {image} is {is}, not {wanted}")));
        }
        let texts = |value: &runback_core::Json| {
            value.as_array().into_iter().flatten().filter_map(|d| d.as_str().map(str::to_owned)).collect()
        };
        let labels = found["Config"]["Labels"].as_object().into_iter().flatten();
        Ok(Acted::unchanged(Outputs {
            present: true,
            id,
            digests: texts(&found["RepoDigests"]),
            size: found["Size"].as_u64().unwrap_or(0),
            labels: labels.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect(),
        }))
    }
}
