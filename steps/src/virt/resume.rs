//! `virt.resume`: lets a paused domain run on.
//!
//! **Does.** Starts its CPUs again where they stopped. One that runs already is a success;
//! one that is shut off is an error.
//!
//! **Undo** pauses it again.

use runback_core::step::{
    Access, Acted, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind, Undone,
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
            detach: false,
            examples: &["- id: resume\n  uses: virt.resume\n  with: { domain: web1 }\n"],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut found = inputs.connection().problems();
        found.extend(name_problems("domain", &inputs.domain));
        found
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let now = domain::must(cx, &inputs.connection(), &inputs.domain).await?;
        let changes = now.state != State::Running;
        let summary =
            if changes { format!("let {} run on", now.name) } else { format!("{} is {}", now.name, now.state.word()) };
        Ok(Preview { changes: Some(changes), summary, details: Vec::new() })
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Info, StepError> {
        domain::must(cx, &inputs.connection(), &inputs.domain).await
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Info) -> Result<Acted<Outputs>, StepError> {
        let connection = inputs.connection();
        let name = &inputs.domain;
        domain::change(cx, &connection, name, &["resume", name], |now| now.state == State::Running).await?;
        let now = domain::must(cx, &connection, name).await?;
        cx.host.output(Stream::Stdout, format!("{name} is {}\n", now.state.word()).as_bytes());
        Ok(Acted { changed: capture.state != State::Running, outputs: now.into() })
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        inputs: &Inputs,
        capture: &Info,
        _outputs: Option<&Outputs>,
    ) -> Result<Undone, StepError> {
        let connection = inputs.connection();
        let now = domain::same(cx, &connection, capture).await?;
        match now.map(|now| now.state) {
            Some(State::Running) if capture.state == State::Paused => {}
            Some(now) if now == capture.state => return Ok(Undone { changed: false, note: None }),
            Some(now) => return Err(domain::drift(&capture.name, &format!("it is {} now", now.word()))),
            None => return Err(domain::drift(&capture.name, "it is not there any more")),
        }
        domain::change(cx, &connection, &capture.name, &["suspend", &capture.name], |now| now.state == State::Paused)
            .await?;
        Ok(Undone { changed: true, note: Some(format!("{} is paused again", capture.name)) })
    }
}
