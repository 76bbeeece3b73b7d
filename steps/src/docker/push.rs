//! `docker.push`: an image goes to its registry.
//!
//! **Does.** `docker push` of a name that the daemon has. Pushing the same image again changes nothing in the registry.
//!
//! **Outputs.** `id`, `name`, and `digest`: what the registry calls it, with the hash.
//!
//! **Undo** is impossible: what others may have pulled cannot be called back, and what the name meant in the registry before
//! is not known here. The step is a point of no return.

use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind,
};

use super::cli::{engine_inputs, name_problem};
use super::pull::{Outputs, digest};
use super::tag::required;

engine_inputs! {
    /// Which image.
    {
        /// Its name, with its registry if that is not Docker's own.
        image: String,
    }
}

/// The step type `docker.push`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DockerPush;

#[async_trait::async_trait]
impl StepType for DockerPush {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = ();

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "docker.push",
            doc: "An image goes to its registry.",
            access: Access::Changes,
            undo: UndoKind::Impossible,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Main,
            examples: &[
                "- id: push\n  uses: docker.push\n  with: { image: \"registry.example.com/app:1.4\" }\n  timeout: 15m\n",
            ],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        inputs.engine().problems().into_iter().chain(name_problem("image", &inputs.image)).collect()
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let id = required(&inputs.engine(), cx, &inputs.image).await?;
        let summary = format!("push {} ({})", inputs.image, id.get(..19).unwrap_or(&id));
        Ok(Preview { changes: Some(true), summary, details: Vec::new() })
    }

    async fn capture(&self, _: &Cx<'_>, _: &Inputs) -> Result<(), StepError> {
        Ok(())
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, (): &()) -> Result<Acted<Outputs>, StepError> {
        let engine = inputs.engine();
        let id = required(&engine, cx, &inputs.image).await?;
        engine.main(cx, engine.work(&["push", &inputs.image]), &format!("image {}", inputs.image)).await?;
        let digest = digest(&engine, cx, &inputs.image).await?;
        Ok(Acted::changed(Outputs { id, name: inputs.image.clone(), digest }))
    }
}
