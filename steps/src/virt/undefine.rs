//! `virt.undefine`: makes libvirt forget a domain, with its disks if that is asked for.
//!
//! **Does.** Undefines a domain that is shut off, with its snapshots' metadata, its managed save image and its NVRAM
//! file, each of which would keep libvirt from it. A domain that is not there is a success.
//!
//! **Refuses** one that runs: libvirt would say yes, and leave a domain behind that is gone after its next stop.
//!
//! **`storage: remove`** removes the images of its disks too. libvirt alone passes over files that no pool knows, so all
//! pools are refreshed first, and what it left is removed as a file. CD-ROM images stay.
//!
//! **Undo** defines the domain again as it was, with its autostart. The password of a display, the managed save image, the snapshots and the NVRAM
//! content do not come back; a domain that has any of them is only undefined with `lose: true`. With `storage: remove`
//! there is no undo.

use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind, Undone,
};
use runback_core::target::Stream;
use runback_core::template::ValueTemplate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::domain::{self, Info};
use super::virsh::{Connection, libvirt_inputs, name_problems};
use super::xml;
use crate::command_outputs::{Entry, entry};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Storage {
    #[default]
    Keep,
    Remove,
}

libvirt_inputs! {
    /// Which domain, what goes with it, and which libvirtd.
    {
        /// The domain's name.
        domain: String,
        /// What becomes of the images of its disks.
        #[serde(default)]
        storage: Storage,
        /// Undefine it although a managed save image, snapshots or an NVRAM file go with it.
        #[serde(default)]
        lose: bool,
    }
}

impl Inputs {
    fn lose(&self) -> Lose {
        if self.lose { Lose::All } else { Lose::Nothing }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// The domain's name.
    pub(crate) domain: String,
    /// Paths of its disks, whether they were removed or not.
    pub(crate) disks: Vec<String>,
    /// Those that were removed.
    pub(crate) removed: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Capture {
    before: Option<Before>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Before {
    info: Info,
    xml: String,
}

/// The step type `virt.undefine`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VirtUndefine;

/// Names of its snapshots.
pub(crate) async fn snapshots(cx: &Cx<'_>, connection: &Connection, name: &str) -> Result<Vec<String>, StepError> {
    let text = connection.read(cx, &["snapshot-list", name, "--name"], name).await?;
    Ok(text.lines().map(str::trim).filter(|l| !l.is_empty()).map(str::to_owned).collect())
}

/// What of the guest goes with its definition.
#[derive(Debug, Default)]
struct Losses {
    managed_save: bool,
    snapshots: Vec<String>,
    /// The NVRAM file, once it is there. That of a domain that never ran is not.
    nvram: Option<String>,
    /// The domain has a UEFI, so it may have one.
    uefi: bool,
}

/// What may go with the definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lose {
    Nothing,
    /// The settings of its UEFI.
    Nvram,
    All,
}

impl Lose {
    /// For the undo of a step that defined the domain, where there was none: its NVRAM file is from a start of that.
    pub(crate) fn of_own(force: bool) -> Self {
        if force { Self::All } else { Self::Nvram }
    }
}

impl Losses {
    async fn of(cx: &Cx<'_>, connection: &Connection, info: &Info, xml: &str) -> Result<Self, StepError> {
        let seen = xml::look(xml).unwrap_or_default();
        let nvram = match seen.nvram {
            Some(path) if connection.is_on_target() && cx.target.stat(&path).await?.is_none() => None,
            other => other,
        };
        let snapshots = snapshots(cx, connection, &info.name).await?;
        let uefi = seen.has_nvram || seen.firmware == "uefi";
        Ok(Self { managed_save: info.managed_save, snapshots, nvram, uefi })
    }

    fn told(&self, lose: Lose) -> Vec<String> {
        let mut found = Vec::new();
        if lose != Lose::All && self.managed_save {
            found.push("a managed save image".to_owned());
        }
        if lose != Lose::All && !self.snapshots.is_empty() {
            found.push(format!("snapshots ({})", crate::file::parents::some(&self.snapshots)));
        }
        if let (Lose::Nothing, Some(nvram)) = (lose, &self.nvram) {
            found.push(format!("an NVRAM file ({nvram})"));
        }
        found
    }

    /// None = nothing is lost that may not be.
    fn refusal(&self, name: &str, lose: Lose) -> Option<StepError> {
        let precious = self.told(lose);
        (!precious.is_empty()).then(|| {
            StepError::conflict(format!("{name} stays defined: it has {}", precious.join(" and ")))
                .help("they would go with it: say `lose: true` (in a rollback: --force), or remove them first")
        })
    }
}

/// Undefines a domain that is shut off, if nothing of the guest goes with it that may not.
pub(crate) async fn undefine(
    cx: &Cx<'_>,
    connection: &Connection,
    info: &Info,
    xml: &str,
    lose: Lose,
) -> Result<(), StepError> {
    let losses = Losses::of(cx, connection, info, xml).await?;
    if let Some(refusal) = losses.refusal(&info.name, lose) {
        return Err(refusal);
    }
    let mut words = vec!["undefine", info.name.as_str()];
    let flags = [
        (losses.managed_save, "--managed-save"),
        (!losses.snapshots.is_empty(), "--snapshots-metadata"),
        (losses.uefi, "--nvram"),
    ];
    words.extend(flags.into_iter().filter_map(|(has, flag)| has.then_some(flag)));
    connection.ran(cx, connection.command(&words), &info.name).await.map(drop)
}

fn runs(info: &Info) -> StepError {
    StepError::conflict(format!("{} is {}, so it is not undefined", info.name, info.state.word()))
        .help("it would go on without a definition: shut it down first (`uses: virt.shutdown`)")
}

/// Removes images: by their pool where one knows them, else as files.
async fn remove_disks(cx: &Cx<'_>, connection: &Connection, disks: &[String]) -> Result<Vec<String>, StepError> {
    let pools = connection.read(cx, &["pool-list", "--name"], "pools").await?;
    for pool in pools.lines().map(str::trim).filter(|l| !l.is_empty()) {
        connection.ran(cx, connection.command(&["pool-refresh", pool]), pool).await?;
    }
    let mut removed = Vec::new();
    for disk in disks {
        let known = connection.asked(cx, &["vol-info", disk], disk).await?.ok();
        if known {
            connection.ran(cx, connection.command(&["vol-delete", disk]), disk).await?;
        } else if connection.is_on_target() && cx.target.stat(disk).await?.is_some() {
            cx.target.remove_file(disk).await?;
        } else {
            continue;
        }
        removed.push(disk.clone());
    }
    Ok(removed)
}

fn disks(xml: &str) -> Vec<String> {
    xml::look(xml).map(|seen| seen.disks.into_iter().map(|(path, _)| path).collect()).unwrap_or_default()
}

#[async_trait::async_trait]
impl StepType for VirtUndefine {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = Capture;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "virt.undefine",
            doc: "Makes libvirt forget a domain, with its disks if that is asked for.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Small,
            examples: &[
                "- id: forget\n  uses: virt.undefine\n  with: { domain: web1 }\n",
                "- id: scrap\n  uses: virt.undefine\n  with: { domain: web1, storage: remove, lose: true }\n",
            ],
        }
    }

    fn capabilities(&self, with: &ValueTemplate) -> (Access, UndoKind) {
        let keeps = match entry(with, "storage") {
            None => true,
            Some(Entry::Literal(value)) => value == "keep",
            Some(Entry::Template(_)) => false,
        };
        (Access::Changes, if keeps { UndoKind::Full } else { UndoKind::Impossible })
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut found = inputs.connection().problems();
        found.extend(name_problems("domain", &inputs.domain));
        found
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let connection = inputs.connection();
        let Some(info) = domain::find(cx, &connection, &inputs.domain).await? else {
            let summary = format!("{} is not there", inputs.domain);
            return Ok(Preview { changes: Some(false), summary, details: Vec::new() });
        };
        if info.state.active() {
            let summary = format!("would refuse: {}", runs(&info).message);
            return Ok(Preview { changes: Some(false), summary, details: Vec::new() });
        }
        let xml = domain::definition(cx, &connection, &inputs.domain).await?;
        let losses = Losses::of(cx, &connection, &info, &xml).await?;
        if let Some(refusal) = losses.refusal(&info.name, inputs.lose()) {
            let summary = format!("would refuse: {}", refusal.message);
            return Ok(Preview { changes: Some(false), summary, details: Vec::new() });
        }
        let mut details = losses.told(Lose::Nothing);
        if inputs.storage == Storage::Remove {
            details.extend(disks(&xml).into_iter().map(|disk| format!("remove {disk}")));
        }
        Ok(Preview { changes: Some(true), summary: format!("undefine {}", inputs.domain), details })
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Capture, StepError> {
        let connection = inputs.connection();
        let Some(info) = domain::find(cx, &connection, &inputs.domain).await? else {
            return Ok(Capture { before: None });
        };
        let xml = domain::definition(cx, &connection, &inputs.domain).await?;
        Ok(Capture { before: Some(Before { info, xml }) })
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Capture) -> Result<Acted<Outputs>, StepError> {
        let connection = inputs.connection();
        let mut outputs = Outputs { domain: inputs.domain.clone(), disks: Vec::new(), removed: Vec::new() };
        // The capture is null where undo is impossible: then the domain itself says what its disks are, while it is there.
        if let Some(info) = domain::find(cx, &connection, &inputs.domain).await? {
            if info.state.active() {
                return Err(runs(&info));
            }
            let xml = domain::definition(cx, &connection, &inputs.domain).await?;
            outputs.disks = disks(&xml);
            if inputs.storage == Storage::Remove {
                cx.host.note(serde_json::json!({ "disks": outputs.disks })).await?;
            }
            undefine(cx, &connection, &info, &xml, inputs.lose()).await?;
            cx.host.output(Stream::Stdout, format!("{} is undefined\n", info.name).as_bytes());
        } else if let Some(before) = &capture.before {
            outputs.disks = disks(&before.xml);
        } else if inputs.storage == Storage::Keep {
            return Ok(Acted::unchanged(outputs));
        }
        if inputs.storage == Storage::Remove {
            let noted = cx.host.notes().into_iter().rev().find_map(|n| n.get("disks").cloned());
            let noted: Vec<String> = noted.and_then(|n| serde_json::from_value(n).ok()).unwrap_or_default();
            outputs.removed = remove_disks(cx, &connection, &noted).await?;
            for disk in &outputs.removed {
                cx.host.output(Stream::Stdout, format!("{disk} is removed\n").as_bytes());
            }
        }
        let changed = capture.before.is_some() || !outputs.removed.is_empty();
        Ok(Acted { outputs, changed })
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        inputs: &Inputs,
        capture: &Capture,
        _outputs: Option<&Outputs>,
    ) -> Result<Undone, StepError> {
        let connection = inputs.connection();
        let Some(before) = &capture.before else { return Ok(Undone { changed: false, note: None }) };
        let name = &before.info.name;
        let there = domain::same(cx, &connection, &before.info).await?;
        if there.is_none() {
            domain::define(cx, &connection, name, &before.xml).await?;
        }
        if before.info.autostart && there.as_ref().is_none_or(|i| !i.autostart) {
            connection.ran(cx, connection.command(&["autostart", name]), name).await?;
        }
        let note = there.is_none().then(|| format!("{name} is defined again"));
        Ok(Undone { changed: there.is_none(), note })
    }
}
