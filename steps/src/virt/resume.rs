//! `virt.resume`: lets a paused domain run on.
//!
//! **Does.** Starts its CPUs again where they stopped. One that runs already is a success;
//! one that is shut off is an error.
//!
//! **Undo** pauses it again.

use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind, Undone,
};

use super::domain::{self, Info, Outputs};
use super::pausing::{RESUME, SUSPEND};
use super::virsh::{libvirt_inputs, name_problems};

libvirt_inputs! {
    /// Which domain, and which libvirtd.
    {
        /// The domain's name.
        domain: String,
    }
}

/// The step type `virt.resume`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VirtResume;

#[async_trait::async_trait]
impl StepType for VirtResume {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = Info;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "virt.resume",
            doc: "Lets a paused domain run on.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Small,
            examples: &["- id: resume\n  uses: virt.resume\n  with: { domain: web1 }\n"],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut found = inputs.connection().problems();
        found.extend(name_problems("domain", &inputs.domain));
        found
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        RESUME.preview(cx, &inputs.connection(), &inputs.domain, |name| format!("let {name} run on")).await
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Info, StepError> {
        domain::must(cx, &inputs.connection(), &inputs.domain).await
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Info) -> Result<Acted<Outputs>, StepError> {
        RESUME.act(cx, &inputs.connection(), &inputs.domain, capture).await
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        inputs: &Inputs,
        capture: &Info,
        _outputs: Option<&Outputs>,
    ) -> Result<Undone, StepError> {
        RESUME.undo(cx, &inputs.connection(), capture, SUSPEND).await
    }
}
