//! `virt.snapshot`: takes a snapshot of a domain, goes back to one, or deletes one.
//!
//! **Does.** `action: create` takes one inside of the domain's qcow2 images, with its memory where it runs; one of that
//! name, there already, is a conflict: it holds an older state. `action: revert` sets disks (and memory) back to it.
//! `action: delete` removes it; one that is not there is a success.
//!
//! **Undo** of `create` deletes the snapshot. What `revert` overwrites and what `delete` removes is lost: no undo. Take a
//! snapshot before you revert.

use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, Probe, StepError, StepType, UndoKind,
    Undone,
};
use runback_core::target::Stream;
use runback_core::template::ValueTemplate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::domain::{self, State};
use super::undefine::snapshots;
use super::virsh::{libvirt_inputs, name_problems};
use crate::begun::{self, Tells};
use crate::command_outputs::{Entry, entry};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Action {
    #[default]
    Create,
    Revert,
    Delete,
}

libvirt_inputs! {
    /// Which domain and snapshot, what to do with it, and which libvirtd.
    {
        /// The domain's name.
        domain: String,
        /// The snapshot's name.
        snapshot: String,
        /// What to do.
        #[serde(default)]
        action: Action,
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// The domain's name.
    pub(crate) domain: String,
    /// The snapshot's name.
    pub(crate) snapshot: String,
    /// How the domain is now.
    pub(crate) state: State,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Capture {
    /// Empty text: there is no such domain.
    uuid: String,
    there: bool,
    #[serde(default)]
    tells: Tells,
}

/// The step type `virt.snapshot`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VirtSnapshot;

async fn is_there(cx: &Cx<'_>, inputs: &Inputs) -> Result<bool, StepError> {
    let all = snapshots(cx, &inputs.connection(), &inputs.domain).await?;
    Ok(all.contains(&inputs.snapshot))
}

fn taken(inputs: &Inputs) -> StepError {
    StepError::conflict(format!("{} has a snapshot {} already, from before this run", inputs.domain, inputs.snapshot))
        .help("choose another name, such as one with {{ run.id }}")
}

fn none(inputs: &Inputs) -> StepError {
    StepError::permanent(format!("{} has no snapshot {}", inputs.domain, inputs.snapshot))
        .help(format!("see `virsh snapshot-list {}`", inputs.domain))
}

async fn outputs(cx: &Cx<'_>, inputs: &Inputs) -> Result<Outputs, StepError> {
    let now = domain::must(cx, &inputs.connection(), &inputs.domain).await?;
    Ok(Outputs { domain: now.name, snapshot: inputs.snapshot.clone(), state: now.state })
}

#[async_trait::async_trait]
impl StepType for VirtSnapshot {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = Capture;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "virt.snapshot",
            doc: "Takes a snapshot of a domain, goes back to one, or deletes one.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Small,
            examples: &[
                "- id: before\n  uses: virt.snapshot\n  with: { domain: web1, snapshot: \"before-{{ run.id }}\" }\n",
                "- id: back\n  uses: virt.snapshot\n  with: { domain: web1, snapshot: golden, action: revert }\n",
            ],
        }
    }

    fn capabilities(&self, with: &ValueTemplate) -> (Access, UndoKind) {
        let creates = match entry(with, "action") {
            None => true,
            Some(Entry::Literal(value)) => value == "create",
            Some(Entry::Template(_)) => false,
        };
        (Access::Changes, if creates { UndoKind::Full } else { UndoKind::Impossible })
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut found = inputs.connection().problems();
        found.extend(name_problems("domain", &inputs.domain));
        found.extend(name_problems("snapshot", &inputs.snapshot));
        found
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        domain::must(cx, &inputs.connection(), &inputs.domain).await?;
        let (domain, snapshot) = (&inputs.domain, &inputs.snapshot);
        let (changes, summary) = match (inputs.action, is_there(cx, inputs).await?) {
            (Action::Create, true) => (false, format!("would refuse: {}", taken(inputs).message)),
            (Action::Create, false) => (true, format!("take snapshot {snapshot} of {domain}")),
            (Action::Revert, true) => (true, format!("set {domain} back to {snapshot}")),
            (Action::Revert, false) => (false, format!("would refuse: {}", none(inputs).message)),
            (Action::Delete, true) => (true, format!("delete snapshot {snapshot} of {domain}")),
            (Action::Delete, false) => (false, format!("{domain} has no snapshot {snapshot}")),
        };
        Ok(Preview { changes: Some(changes), summary, details: Vec::new() })
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Capture, StepError> {
        let now = domain::must(cx, &inputs.connection(), &inputs.domain).await?;
        let there = is_there(cx, inputs).await?;
        if there && inputs.action == Action::Create {
            return Err(taken(inputs));
        }
        Ok(Capture { uuid: now.uuid, there, tells: Tells::YES })
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Capture) -> Result<Acted<Outputs>, StepError> {
        let connection = inputs.connection();
        let (name, snapshot) = (inputs.domain.as_str(), inputs.snapshot.as_str());
        let there = is_there(cx, inputs).await?;
        let (words, said): (&[&str], _) = match (inputs.action, there) {
            (Action::Create, true) if capture.tells.strangers(cx) => return Err(taken(inputs)),
            // It was not there when the step began, so it is from an attempt of it.
            (Action::Create, true) | (Action::Delete, false) => {
                let changed = inputs.action == Action::Create;
                return Ok(Acted { outputs: outputs(cx, inputs).await?, changed });
            }
            (Action::Revert, false) => return Err(none(inputs)),
            (Action::Create, false) => (&["snapshot-create-as", name, snapshot], "is taken"),
            (Action::Revert, true) => (&["snapshot-revert", name, snapshot], "is gone back to"),
            (Action::Delete, true) => (&["snapshot-delete", name, snapshot], "is deleted"),
        };
        let none = async { inputs.action == Action::Create && is_there(cx, inputs).await.is_ok_and(|there| !there) };
        begun::changing(cx, connection.ran(cx, connection.command(words), name), none).await?;
        cx.host.output(Stream::Stdout, format!("snapshot {snapshot} of {name} {said}\n").as_bytes());
        Ok(Acted::changed(outputs(cx, inputs).await?))
    }

    async fn probe(&self, _: &Cx<'_>, _: &Inputs, _: &Capture) -> Result<Probe<Outputs>, StepError> {
        Ok(Probe::NotDone)
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        inputs: &Inputs,
        capture: &Capture,
        outputs: Option<&Outputs>,
    ) -> Result<Undone, StepError> {
        let connection = inputs.connection();
        let name = &inputs.domain;
        let nothing = Undone { changed: false, note: None };
        if capture.tells.nothing_of(cx, outputs) {
            return Ok(nothing);
        }
        let Some(now) = domain::find(cx, &connection, name).await? else { return Ok(nothing) };
        if now.uuid != capture.uuid && !cx.force {
            return Err(domain::drift(name, "another domain has that name now"));
        }
        if capture.there || !is_there(cx, inputs).await? {
            return Ok(nothing);
        }
        connection.ran(cx, connection.command(&["snapshot-delete", name, &inputs.snapshot]), name).await?;
        Ok(Undone { changed: true, note: Some(format!("snapshot {} of {name} is deleted", inputs.snapshot)) })
    }
}
