//! `virt.start`: starts a domain.
//!
//! **Does.** Starts it and waits until it runs; one that runs already is a success. `paused: true` leaves it standing
//! before its first instruction. That the guest has booted is another question: `virt.wait`, `tcp.check`.
//!
//! **Undo** shuts the domain down as its guest likes it, and pulls the plug after `undo_grace`. What the guest has
//! written to its disks stays written.

use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind, Undone,
};
use runback_core::target::Stream;

use super::domain::{self, Info, Outputs};
use super::virsh::{libvirt_inputs, name_problems};
use crate::period::Period;

libvirt_inputs! {
    /// Which domain, and which libvirtd.
    {
        /// The domain's name.
        domain: String,
        /// Do not let it run yet.
        #[serde(default)]
        paused: bool,
        /// How long the guest may take to shut down when this is taken back; then the plug is pulled. 0s: at once.
        #[serde(default = "one_minute")]
        undo_grace: Period,
    }
}

/// The step type `virt.start`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VirtStart;

fn one_minute() -> Period {
    Period::seconds(60)
}

#[async_trait::async_trait]
impl StepType for VirtStart {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = Info;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "virt.start",
            doc: "Starts a libvirt domain.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Small,
            examples: &["- id: start\n  uses: virt.start\n  with: { domain: web1 }\n"],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut found = inputs.connection().problems();
        found.extend(name_problems("domain", &inputs.domain));
        found
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let now = domain::must(cx, &inputs.connection(), &inputs.domain).await?;
        let changes = !now.state.active();
        let summary =
            if changes { format!("start {}", now.name) } else { format!("{} is {}", now.name, now.state.word()) };
        Ok(Preview { changes: Some(changes), summary, details: Vec::new() })
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Info, StepError> {
        domain::must(cx, &inputs.connection(), &inputs.domain).await
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Info) -> Result<Acted<Outputs>, StepError> {
        let connection = inputs.connection();
        let name = &inputs.domain;
        let now = domain::must(cx, &connection, name).await?;
        if now.state.active() {
            return Ok(Acted { changed: !capture.state.active(), outputs: now.into() });
        }
        cx.phase(format!("starting {name}"));
        let info = domain::start(cx, &connection, name, inputs.paused).await?;
        cx.host.output(Stream::Stdout, format!("{name} is {}\n", info.state.word()).as_bytes());
        Ok(Acted::changed(info.into()))
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        inputs: &Inputs,
        capture: &Info,
        _outputs: Option<&Outputs>,
    ) -> Result<Undone, StepError> {
        let connection = inputs.connection();
        let Some(now) = domain::same(cx, &connection, capture).await? else {
            return Ok(Undone { changed: false, note: None });
        };
        if capture.state.active() || !now.state.active() {
            return Ok(Undone { changed: false, note: None });
        }
        domain::stop(cx, &connection, &capture.name, inputs.undo_grace.0).await?;
        Ok(Undone { changed: true, note: Some(format!("{} is shut off", capture.name)) })
    }
}
