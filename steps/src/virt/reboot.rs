//! `virt.reboot`: asks a guest to restart.
//!
//! **Does.** Presses the button (or asks the guest agent: `mode: agent`), and returns: libvirt does not tell whether the
//! guest obeys. Ask the guest itself afterwards (`tcp.check`, `virt.wait`).
//!
//! **Undo: none**, and none is needed. **After an interruption** a person is asked: a second restart may hurt.

use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind,
};
use runback_core::target::Stream;

use super::domain::{self, Outputs};
use super::shutdown::Mode;
use super::virsh::{libvirt_inputs, name_problems};

libvirt_inputs! {
    /// Which domain, and which libvirtd.
    {
        /// The domain's name.
        domain: String,
        /// Whom to ask. Default: whatever libvirt finds.
        #[serde(default)]
        mode: Option<Mode>,
    }
}

/// The step type `virt.reboot`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VirtReboot;

#[async_trait::async_trait]
impl StepType for VirtReboot {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = ();

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "virt.reboot",
            doc: "Asks a guest to restart.",
            access: Access::Changes,
            undo: UndoKind::None,
            on_interrupt: OnInterrupt::Ask,
            commands: Commands::Small,
            examples: &[
                "- id: restart\n  uses: virt.reboot\n  with: { domain: web1 }\n- id: answers\n  uses: tcp.check\n  with: { host: web1.example.com, port: 22 }\n",
            ],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut found = inputs.connection().problems();
        found.extend(name_problems("domain", &inputs.domain));
        found
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let now = domain::must(cx, &inputs.connection(), &inputs.domain).await?;
        let summary = format!("restart {}, which is {}", now.name, now.state.word());
        Ok(Preview { changes: Some(true), summary, details: Vec::new() })
    }

    async fn capture(&self, _: &Cx<'_>, _: &Inputs) -> Result<(), StepError> {
        Ok(())
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, (): &()) -> Result<Acted<Outputs>, StepError> {
        let connection = inputs.connection();
        let name = &inputs.domain;
        let words: &[&str] = match inputs.mode {
            None => &["reboot", name],
            Some(Mode::Acpi) => &["reboot", name, "--mode", "acpi"],
            Some(Mode::Agent) => &["reboot", name, "--mode", "agent"],
        };
        connection.ran(cx, connection.command(words), name).await?;
        cx.host.output(Stream::Stdout, format!("{name} was asked to restart\n").as_bytes());
        Ok(Acted::changed(domain::must(cx, &connection, name).await?.into()))
    }
}
