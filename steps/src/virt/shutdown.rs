//! `virt.shutdown`: asks a guest to shut down, and waits until its domain is shut off.
//!
//! **Does.** Presses the ACPI power button (or asks the guest agent: `mode`) and looks at the state until it is
//! shut off: `virsh shutdown` itself is content once the button is pressed, also where the guest ignores it. Without an
//! end within `wait` it fails, and the domain runs on. With `force_after` the plug is pulled then.
//!
//! **Undo** starts the domain again if it ran.

use runback_core::step::{
    Access, Acted, Class, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind,
    Undone,
};
use runback_core::target::Stream;
use schemars::JsonSchema;
use serde::Deserialize;

use super::domain::{self, Info, Outputs, State};
use super::virsh::{libvirt_inputs, name_problems};
use crate::period::Period;

libvirt_inputs! {
    /// Which domain, and which libvirtd.
    {
        /// The domain's name.
        domain: String,
        /// Whom to ask. Default: whatever libvirt finds.
        #[serde(default)]
        mode: Option<Mode>,
        /// How long to wait for the guest.
        #[serde(default = "five_minutes")]
        wait: Period,
        /// Pull the plug after this long. Default: never, it is an error then.
        #[serde(default)]
        force_after: Option<Period>,
    }
}

/// The step type `virt.shutdown`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VirtShutdown;

/// Whom to ask for a shutdown or restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// The guest's power button.
    Acpi,
    /// The guest agent.
    Agent,
}

fn five_minutes() -> Period {
    Period::seconds(300)
}

#[async_trait::async_trait]
impl StepType for VirtShutdown {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = Info;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "virt.shutdown",
            doc: "Asks a guest to shut down, and waits until it is off.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Small,
            examples: &[
                "- id: down\n  uses: virt.shutdown\n  with: { domain: web1, wait: 3m }\n",
                "- id: down\n  uses: virt.shutdown\n  with: { domain: web1, force_after: 2m }\n",
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
        let changes = now.state.active();
        let summary = if changes { format!("shut {} down", now.name) } else { format!("{} is shut off", now.name) };
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
        let words: &[&str] = match inputs.mode {
            None => &["shutdown", name],
            Some(Mode::Acpi) => &["shutdown", name, "--mode", "acpi"],
            Some(Mode::Agent) => &["shutdown", name, "--mode", "agent"],
        };
        domain::change(cx, &connection, name, words, |now| !now.state.active()).await?;
        cx.phase(format!("waiting for {name} to shut down"));
        let limit = inputs.force_after.unwrap_or(inputs.wait);
        let off = |now: Option<&Info>| now.is_none_or(|i| !i.state.active());
        if domain::until(cx, &connection, name, limit.0, off).await?.is_err() {
            if inputs.force_after.is_none() {
                return Err(StepError::new(
                    Class::Timeout,
                    format!("{name} still runs {limit} after it was asked to shut down"),
                )
                .help("the guest ignores ACPI, or hangs: look at its console; `force_after` pulls the plug"));
            }
            cx.host.output(Stream::Stdout, format!("{name} does not shut down: the plug is pulled\n").as_bytes());
            domain::stop(cx, &connection, name, std::time::Duration::ZERO).await?;
        }
        cx.host.output(Stream::Stdout, format!("{name} is shut off\n").as_bytes());
        let (uuid, state) = (capture.uuid.clone(), State::ShutOff);
        Ok(Acted::changed(Outputs { domain: name.clone(), uuid, state }))
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        inputs: &Inputs,
        capture: &Info,
        _outputs: Option<&Outputs>,
    ) -> Result<Undone, StepError> {
        domain::run_again(cx, &inputs.connection(), capture).await
    }
}
