//! `virt.autostart`: makes a domain start with its host, or not any more.
//!
//! **Does.** Sets the mark, and reads it back. A domain without a definition of its own (transient) cannot have it.
//!
//! **Undo** sets it as it was.

use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind, Undone,
};
use runback_core::target::Stream;

use super::domain::{self, Info, Outputs};
use super::virsh::{Connection, libvirt_inputs, name_problems};

libvirt_inputs! {
    /// Which domain, and which libvirtd.
    {
        /// The domain's name.
        domain: String,
        /// Whether it shall start with its host.
        #[serde(default = "yes")]
        enabled: bool,
    }
}

/// The step type `virt.autostart`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VirtAutostart;

fn yes() -> bool {
    true
}

async fn set(cx: &Cx<'_>, connection: &Connection, name: &str, enabled: bool) -> Result<(), StepError> {
    let words: &[&str] = if enabled { &["autostart", name] } else { &["autostart", name, "--disable"] };
    connection.ran(cx, connection.command(words), name).await?;
    let how = if enabled { "starts with its host" } else { "does not start with its host" };
    cx.host.output(Stream::Stdout, format!("{name} {how}\n").as_bytes());
    Ok(())
}

#[async_trait::async_trait]
impl StepType for VirtAutostart {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = Info;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "virt.autostart",
            doc: "Makes a domain start with its host, or not any more.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Small,
            examples: &[
                "- id: autostart\n  uses: virt.autostart\n  with: { domain: web1 }\n",
                "- id: stays-off\n  uses: virt.autostart\n  with: { domain: web1, enabled: false }\n",
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
        let changes = now.autostart != inputs.enabled;
        let how = if inputs.enabled { "starts with its host" } else { "does not start with its host" };
        let summary =
            if changes { format!("{}: from now on it {how}", now.name) } else { format!("{} {how}", now.name) };
        Ok(Preview { changes: Some(changes), summary, details: Vec::new() })
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Info, StepError> {
        domain::must(cx, &inputs.connection(), &inputs.domain).await
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Info) -> Result<Acted<Outputs>, StepError> {
        let connection = inputs.connection();
        let name = &inputs.domain;
        let now = domain::must(cx, &connection, name).await?;
        if now.autostart != inputs.enabled {
            set(cx, &connection, name, inputs.enabled).await?;
        }
        let changed = capture.autostart != inputs.enabled;
        Ok(Acted { changed, outputs: domain::must(cx, &connection, name).await?.into() })
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
        if now.autostart == capture.autostart {
            return Ok(Undone { changed: false, note: None });
        }
        set(cx, &connection, &capture.name, capture.autostart).await?;
        let how =
            if capture.autostart { "starts with its host again" } else { "does not start with its host any more" };
        Ok(Undone { changed: true, note: Some(format!("{} {how}", capture.name)) })
    }
}
