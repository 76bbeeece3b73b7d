//! `virt.suspend`: holds a running domain where it is.
//!
//! **Does.** Stops its CPUs; its memory stays, and nothing of it survives a restart of the host. One that is paused already is a success;
//! one that is shut off is an error.
//!
//! **Undo** lets it run on.

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

/// The step type `virt.suspend`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VirtSuspend;

#[async_trait::async_trait]
impl StepType for VirtSuspend {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = Info;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "virt.suspend",
            doc: "Holds a running domain where it is.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Small,
            examples: &["- id: suspend\n  uses: virt.suspend\n  with: { domain: web1 }\n"],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut found = inputs.connection().problems();
        found.extend(name_problems("domain", &inputs.domain));
        found
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        SUSPEND.preview(cx, &inputs.connection(), &inputs.domain, |name| format!("pause {name}")).await
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Info, StepError> {
        domain::must(cx, &inputs.connection(), &inputs.domain).await
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Info) -> Result<Acted<Outputs>, StepError> {
        SUSPEND.act(cx, &inputs.connection(), &inputs.domain, capture).await
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        inputs: &Inputs,
        capture: &Info,
        _outputs: Option<&Outputs>,
    ) -> Result<Undone, StepError> {
        SUSPEND.undo(cx, &inputs.connection(), capture, RESUME).await
    }
}
