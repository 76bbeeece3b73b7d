//! `docker.build`: an image, built from a folder.
//!
//! **Does.** `docker build` of `dir`, and gives the result the names in `tags`. Values of `args` go through the
//! environment of the command, so they are in no list of processes; what a Dockerfile does with them is in the image's
//! history.
//!
//! **Outputs.** `id`, `tags`, `size` in bytes.
//!
//! **Undo** gives each name the image that it had, and removes names that were not there. Layers stay in the daemon's cache
//! until they are pruned.

use std::collections::BTreeMap;

use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind, Undone,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cli::{engine_inputs, name_problem};
use super::images::{self, NameBefore};
use crate::http::look::problem;

engine_inputs! {
    /// What is built, and what it is called.
    {
        /// The folder that is the build's context. On `local`, a relative path counts from the playbook's folder.
        dir: String,
        /// Names for the image, such as registry.example.com/team/app:1.4.
        #[schemars(length(min = 1))]
        tags: Vec<String>,
        /// The Dockerfile, from `dir`. Default: Dockerfile.
        #[serde(default)]
        file: String,
        /// The stage to build.
        #[serde(default)]
        stage: String,
        /// Build arguments.
        #[serde(default)]
        args: BTreeMap<String, String>,
        /// Labels of the image.
        #[serde(default)]
        labels: BTreeMap<String, String>,
        /// Look for newer base images in their registries.
        #[serde(default)]
        pull: bool,
        /// Build every layer anew.
        #[serde(default)]
        no_cache: bool,
        /// The network of the build's commands, such as host or none.
        #[serde(default)]
        network: String,
    }
}

/// The image.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// Its id.
    pub(crate) id: String,
    /// Its names.
    pub(crate) tags: Vec<String>,
    /// In bytes.
    pub(crate) size: u64,
}

/// The step type `docker.build`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DockerBuild;

impl Inputs {
    fn words(&self, cx: &Cx<'_>) -> Vec<String> {
        let mut words = vec!["build".to_owned()];
        let mut option = |name: &str, value: String| words.extend([name.to_owned(), value]);
        for tag in &self.tags {
            option("--tag", tag.clone());
        }
        let dir = cx.path(&self.dir);
        if !self.file.is_empty() {
            option("--file", format!("{}/{}", dir.trim_end_matches('/'), self.file));
        }
        for (name, value) in [("--target", &self.stage), ("--network", &self.network)] {
            if !value.is_empty() {
                option(name, value.clone());
            }
        }
        for name in self.args.keys() {
            option("--build-arg", name.clone());
        }
        for (name, value) in &self.labels {
            option("--label", format!("{name}={value}"));
        }
        words.extend(self.pull.then(|| "--pull".to_owned()));
        words.extend(self.no_cache.then(|| "--no-cache".to_owned()));
        words.push(dir);
        words
    }
}

#[async_trait::async_trait]
impl StepType for DockerBuild {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = Vec<NameBefore>;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "docker.build",
            doc: "An image, built from a folder.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Main,
            examples: &[
                "- id: build\n  uses: docker.build\n  with: { dir: ../app, tags: [\"registry.example.com/team/app:1.4\"], args: { VERSION: \"1.4\" } }\n  timeout: 30m\n",
            ],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut all = inputs.engine().problems();
        all.extend(crate::file::paths::problems("dir", &inputs.dir));
        if inputs.tags.is_empty() {
            all.push(problem(&["tags"], "an image without a name is lost".to_owned()));
        }
        all.extend(inputs.tags.iter().filter_map(|tag| name_problem("tags", tag)));
        all
    }

    async fn preview(&self, _: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let summary = format!("build {} from {}", inputs.tags.join(", "), inputs.dir);
        Ok(Preview { changes: None, summary, details: Vec::new() })
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Vec<NameBefore>, StepError> {
        images::capture(&inputs.engine(), cx, &inputs.tags).await
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Vec<NameBefore>) -> Result<Acted<Outputs>, StepError> {
        let engine = inputs.engine();
        let what = format!("image {}", inputs.tags.join(", "));
        let mut command = engine.work(&inputs.words(cx));
        command.env.extend(inputs.args.clone());
        images::moving(&engine, cx, capture, engine.main(cx, command, &what)).await?;
        let image = engine.inspect(cx, "image", &inputs.tags[..1]).await?;
        let id = image.first().and_then(|i| i["Id"].as_str()).unwrap_or_default().to_owned();
        let size = image.first().and_then(|i| i["Size"].as_u64()).unwrap_or(0);
        let changed = inputs.tags.iter().any(|tag| images::moved(cx, capture, tag, Some(&id)));
        Ok(Acted { outputs: Outputs { id, tags: inputs.tags.clone(), size }, changed })
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
