//! `virt.define`: defines a domain from its XML, with changes on the way.
//!
//! **Does.** Takes `xml` (the document itself, or its path on the target; without it, what libvirt has of the domain
//! `name`), changes what is asked for and leaves the rest as it is, and defines the domain. A document without a UUID gets one that belongs to the domain's name, so that
//! defining it again is defining the same domain. What libvirt has already is not defined anew.
//!
//! **Changes.** `interfaces`: the n-th for the n-th network card, one alone for all cards; what a card shall keep is left
//! out. `drop` removes devices by the name of their element. A `vsock` that the host has no device for
//! (`/dev/vhost-vsock`) would keep the domain from starting; it is dropped unless `keep_vsock` says otherwise.
//!
//! **A domain of that name with another UUID** is another domain: a conflict.
//!
//! **Undo** defines the domain as it was, or undefines it if there was none. It stops where somebody has changed the
//! definition since (`--force`), and where the domain runs: its definition would go, and the domain stay.
//!
//! **Passwords** of displays are kept, and never written into the journal.
//!
//! **Does not** start it, and touches no disk. A domain that runs has the change from its next start on.

use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind, Undone,
};
use runback_core::target::Stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::domain::{self, Info};
use super::undefine::Lose;
use super::virsh::{Connection, libvirt_inputs, name_problems};
use super::xml::{self, Edits, Interface};
use crate::file::{diff, sha256_hex};
use crate::http::look::problem;

/// Larger documents are no domains.
const MAX_XML: u64 = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DomainType {
    /// With the processor's help.
    Kvm,
    /// Emulated, without KVM: slow.
    Qemu,
    /// For libvirt's test driver.
    Test,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Bus {
    Virtio,
    Scsi,
    Sata,
    Ide,
}

libvirt_inputs! {
    /// The definition, what to change in it, and which libvirtd.
    {
        /// The document, or its path on the target. Default: the definition that libvirt has of the domain `name`.
        #[serde(default)]
        xml: Option<String>,
        /// Another name for the domain; without `xml`, which domain.
        #[serde(default)]
        name: Option<String>,
        /// The domain's UUID. Default: the document's own, else one that belongs to the name.
        #[serde(default)]
        uuid: Option<String>,
        /// Network cards in order, or one for all: `bridge` or `network`, `model`, `mac`.
        #[serde(default)]
        interfaces: Vec<Interface>,
        /// The bus of all disks.
        #[serde(default)]
        disks_bus: Option<Bus>,
        /// Memory in MiB.
        #[serde(default)]
        memory_mib: Option<u64>,
        /// Number of CPUs.
        #[serde(default)]
        vcpus: Option<u32>,
        /// Whether KVM runs it, or an emulator. Default: as the document says.
        #[serde(default)]
        r#type: Option<DomainType>,
        /// Names of device elements that go, such as `vsock` or `sound`.
        #[serde(default)]
        drop: Vec<String>,
        /// Keep a `vsock` although the host has no device for it.
        #[serde(default)]
        keep_vsock: bool,
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// The domain's name.
    pub(crate) domain: String,
    /// Its UUID.
    pub(crate) uuid: String,
    /// Paths of its disks.
    pub(crate) disks: Vec<String>,
    /// SHA-256 of the definition as libvirt keeps it; undo compares it.
    pub(crate) digest: String,
}

/// What was there under that name.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Capture {
    name: String,
    before: Option<Before>,
    /// That of the domain that is defined. A journal of before this was kept has none.
    #[serde(default)]
    uuid: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Before {
    info: Info,
    xml: String,
}

/// The step type `virt.define`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VirtDefine;

/// The document that is to be defined, and its name.
async fn wanted(cx: &Cx<'_>, inputs: &Inputs) -> Result<(String, String, String), StepError> {
    let (place, text) = match (&inputs.xml, &inputs.name) {
        (Some(xml), _) if xml.trim_start().starts_with('<') => ("xml".to_owned(), xml.trim_start().to_owned()),
        (Some(path), _) => {
            let path = cx.path(path);
            let bytes = cx.target.read(&path, MAX_XML).await?;
            (path, String::from_utf8_lossy(&bytes).trim_start_matches('\u{feff}').to_owned())
        }
        (None, Some(name)) => {
            let connection = inputs.connection();
            domain::must(cx, &connection, name).await?;
            (name.clone(), domain::secret_definition(cx, &connection, name).await?)
        }
        (None, None) => return Err(StepError::permanent("no definition was given").help("give `xml`, or `name`")),
    };
    let wrong = |e: String| StepError::permanent(format!("{place}: {e}"));
    let seen = xml::look(&text).map_err(wrong)?;
    let name = inputs.name.clone().unwrap_or(seen.name);
    let uuid = inputs.uuid.clone().or(seen.uuid).unwrap_or_else(|| xml::uuid_of(&name));
    let mut drop = inputs.drop.clone();
    if !inputs.keep_vsock
        && seen.devices.iter().any(|d| d == "vsock")
        && inputs.connection().is_on_target()
        && cx.target.stat("/dev/vhost-vsock").await?.is_none()
    {
        drop.push("vsock".to_owned());
    }
    let edits = Edits {
        name: inputs.name.clone(),
        uuid: Some(uuid.clone()),
        domain_type: inputs.r#type.map(|t| format!("{t:?}").to_lowercase()),
        memory_kib: inputs.memory_mib.map(|mib| mib.saturating_mul(1024)),
        vcpus: inputs.vcpus,
        interfaces: inputs.interfaces.clone(),
        disks_bus: inputs.disks_bus.map(|b| format!("{b:?}").to_lowercase()),
        drop,
        stable_macs: true,
        ..Edits::default()
    };
    Ok((name, uuid, xml::edit(&text, &edits).map_err(wrong)?))
}

async fn outputs(cx: &Cx<'_>, connection: &Connection, name: &str, uuid: &str) -> Result<Outputs, StepError> {
    let kept = domain::definition(cx, connection, name).await?;
    let seen = xml::look(&kept).map_err(|e| StepError::permanent(format!("{name}: {e}")))?;
    Ok(Outputs {
        domain: name.to_owned(),
        uuid: uuid.to_owned(),
        disks: seen.disks.into_iter().map(|(path, _)| path).collect(),
        digest: sha256_hex(kept.as_bytes()),
    })
}

fn another(name: &str, there: &str, wanted: &str) -> StepError {
    StepError::conflict(format!("{name}: there is a domain of that name with the UUID {there}, and this is {wanted}"))
        .help("it is another domain: choose another `name`, or undefine that one first (`uses: virt.undefine`)")
}

#[async_trait::async_trait]
impl StepType for VirtDefine {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = Capture;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "virt.define",
            doc: "Defines a libvirt domain from its XML, with changes on the way.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Small,
            examples: &[
                "- id: define\n  uses: virt.define\n  with:\n    xml: \"{{ steps.convert.outputs.xml }}\"\n    interfaces: [{ bridge: br0, model: virtio }]\n",
                "- id: define\n  uses: virt.define\n  with: { xml: /srv/web1.xml, name: web2, drop: [sound] }\n",
                "- id: resize\n  uses: virt.define\n  with: { name: web1, memory_mib: 4096, vcpus: 2 }\n",
            ],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut found = inputs.connection().problems();
        if let Some(name) = &inputs.name {
            found.extend(name_problems("name", name));
        }
        match (&inputs.xml, &inputs.name) {
            (Some(xml), _) if xml.trim().is_empty() => found.push(problem(&["xml"], "must not be empty".to_owned())),
            (None, None) => found.push(problem(&["xml"], "give `xml`, or the `name` of a domain to change".to_owned())),
            _ => {}
        }
        for (i, card) in inputs.interfaces.iter().enumerate() {
            if card.bridge.is_some() && card.network.is_some() {
                let at = i.to_string();
                found.push(problem(&["interfaces", &at], "`bridge` and `network` exclude each other".to_owned()));
            }
        }
        for (key, zero) in [("memory_mib", inputs.memory_mib == Some(0)), ("vcpus", inputs.vcpus == Some(0))] {
            if zero {
                found.push(problem(&[key], "must be more than 0".to_owned()));
            }
        }
        found
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let connection = inputs.connection();
        let (name, uuid, new) = wanted(cx, inputs).await?;
        let Some(there) = domain::find(cx, &connection, &name).await? else {
            let details = if xml::has_passwords(&new) { Vec::new() } else { new.lines().map(str::to_owned).collect() };
            return Ok(Preview { changes: Some(true), summary: format!("define {name}"), details });
        };
        if there.uuid != uuid {
            let summary = format!("would refuse: {}", another(&name, &there.uuid, &uuid).message);
            return Ok(Preview { changes: Some(false), summary, details: Vec::new() });
        }
        let old = domain::definition(cx, &connection, &name).await?;
        // libvirt completes what it is given, so only acting shows whether something is really new. What has a password
        // in it is not shown.
        let details = if xml::has_passwords(&new) { Vec::new() } else { diff::unified(&name, &old, &new) };
        Ok(Preview { changes: None, summary: format!("define {name} again, over what is there"), details })
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Capture, StepError> {
        let connection = inputs.connection();
        let (name, uuid, _) = wanted(cx, inputs).await?;
        let before = match domain::find(cx, &connection, &name).await? {
            Some(info) if info.uuid != uuid => return Err(another(&name, &info.uuid, &uuid)),
            Some(info) => {
                let xml = domain::definition(cx, &connection, &name).await?;
                Some(Before { info, xml })
            }
            None => None,
        };
        Ok(Capture { name, before, uuid: Some(uuid) })
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Capture) -> Result<Acted<Outputs>, StepError> {
        let connection = inputs.connection();
        let (name, uuid, new) = wanted(cx, inputs).await?;
        domain::define(cx, &connection, &name, &new).await?;
        let outputs = outputs(cx, &connection, &name, &uuid).await?;
        let changed = capture.before.as_ref().is_none_or(|b| sha256_hex(b.xml.as_bytes()) != outputs.digest);
        let how = if changed { "is defined" } else { "was defined like this already" };
        cx.host.output(Stream::Stdout, format!("{name} ({uuid}) {how}\n").as_bytes());
        Ok(Acted { outputs, changed })
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        inputs: &Inputs,
        capture: &Capture,
        outputs: Option<&Outputs>,
    ) -> Result<Undone, StepError> {
        let connection = inputs.connection();
        let name = &capture.name;
        let Some(now) = domain::find(cx, &connection, name).await? else {
            return match &capture.before {
                None => Ok(Undone { changed: false, note: None }),
                Some(_) if !cx.force => Err(domain::drift(name, "somebody has undefined it")),
                Some(before) => back(cx, &connection, before).await,
            };
        };
        if capture.uuid.as_ref().is_some_and(|uuid| *uuid != now.uuid) && !cx.force {
            let note = format!("somebody has defined another domain of that name ({})", now.uuid);
            // An attempt that failed on it has left nothing of its own.
            return match (&capture.before, outputs) {
                (None, None) => Ok(Undone { changed: false, note: Some(format!("{name}: {note}, which stays")) }),
                _ => Err(domain::drift(name, &note)),
            };
        }
        let kept = domain::definition(cx, &connection, name).await?;
        if let Some(before) = &capture.before
            && before.xml == kept
        {
            return Ok(Undone { changed: false, note: None });
        }
        if outputs.is_some_and(|o| o.uuid != now.uuid || o.digest != sha256_hex(kept.as_bytes())) && !cx.force {
            return Err(domain::drift(name, "its definition was changed since"));
        }
        match &capture.before {
            Some(before) => back(cx, &connection, before).await,
            None => gone(cx, &connection, &now, &kept).await,
        }
    }
}

async fn back(cx: &Cx<'_>, connection: &Connection, before: &Before) -> Result<Undone, StepError> {
    let name = &before.info.name;
    // The capture has no passwords in it: those that are there now stay.
    let xml = match domain::find(cx, connection, name).await? {
        Some(_) => {
            let now = domain::secret_definition(cx, connection, name).await?;
            xml::with_passwords(&before.xml, &now).map_err(|e| StepError::permanent(format!("{name}: {e}")))?
        }
        None => before.xml.clone(),
    };
    domain::define(cx, connection, name, &xml).await?;
    Ok(Undone { changed: true, note: Some(format!("{} is defined as before", before.info.name)) })
}

/// Undefines what the step defined.
async fn gone(cx: &Cx<'_>, connection: &Connection, now: &Info, kept: &str) -> Result<Undone, StepError> {
    if now.state.active() {
        return Err(StepError::conflict(format!("{} stays defined: it is {}", now.name, now.state.word()))
            .help("a domain that runs would go on without its definition: shut it down, then roll back again"));
    }
    super::undefine::undefine(cx, connection, now, kept, Lose::of_own(cx.force)).await?;
    Ok(Undone { changed: true, note: Some(format!("{} is undefined", now.name)) })
}
