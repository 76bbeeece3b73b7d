//! `virt.destroy`: stops a domain at once, as if its plug was pulled.
//!
//! **Does.** What the guest had not written yet is lost; its file systems are as after a power cut. The definition and
//! the disks stay. A domain that is off already is a success.
//!
//! **Undo** starts it again if it ran: the guest boots anew.

use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind, Undone,
};
use runback_core::target::Stream;

use super::domain::{self, Info, Outputs, State};
use super::virsh::{libvirt_inputs, name_problems};

libvirt_inputs! {
    /// Which domain, and which libvirtd.
    {
        /// The domain's name.
        domain: String,
    }
}

/// The step type `virt.destroy`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VirtDestroy;

#[async_trait::async_trait]
impl StepType for VirtDestroy {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = Info;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "virt.destroy",
            doc: "Stops a libvirt domain at once, as if its plug was pulled.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Small,
            examples: &["- id: off\n  uses: virt.destroy\n  with: { domain: web1 }\n"],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut found = inputs.connection().problems();
        found.extend(name_problems("domain", &inputs.domain));
        found
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let now = domain::must(cx, &inputs.connection(), &inputs.domain).await?;
        let changes = now.state.active();
        let summary =
            if changes { format!("pull the plug of {}", now.name) } else { format!("{} is shut off", now.name) };
        Ok(Preview { changes: Some(changes), summary, details: Vec::new() })
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Info, StepError> {
        domain::must(cx, &inputs.connection(), &inputs.domain).await
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Info) -> Result<Acted<Outputs>, StepError> {
        let connection = inputs.connection();
        let name = &inputs.domain;
        let now = domain::must(cx, &connection, name).await?;
        if !now.state.active() {
            return Ok(Acted { changed: capture.state.active(), outputs: now.into() });
        }
        domain::stop(cx, &connection, name, std::time::Duration::ZERO).await?;
        cx.host.output(Stream::Stdout, format!("{name} is stopped\n").as_bytes());
        Ok(Acted::changed(Outputs { domain: name.clone(), uuid: capture.uuid.clone(), state: State::ShutOff }))
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        inputs: &Inputs,
        capture: &Info,
        _outputs: Option<&Outputs>,
    ) -> Result<Undone, StepError> {
        if !capture.persistent {
            return Ok(Undone { changed: false, note: None });
        }
        domain::run_again(cx, &inputs.connection(), capture).await
    }
}
