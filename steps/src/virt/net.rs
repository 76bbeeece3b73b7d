//! `virt.net`: a libvirt network is there, started, and starts with its host.
//!
//! **Does.** With `bridge` it makes a network of that name on a bridge that the host has already, if there is none; with
//! `xml` it makes one from its definition. Then it is started and marked for autostart, as asked for.
//!
//! **A network that is there already is not redefined**: others may be on it. One on another bridge is a conflict.
//!
//! **Undo** stops, unmarks and undefines what the step started, marked and defined.

use roxmltree::Document;
use runback_core::Json;
use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind, Undone,
};
use runback_core::target::{Command, Stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::errors::{self, Why, why};
use super::virsh::{Connection, field, libvirt_inputs, name_problems};
use super::xml::escape;
use crate::begun::{self, Tells};
use crate::http::look::problem;

libvirt_inputs! {
    /// Which network, how it shall be, and which libvirtd.
    {
        /// The network's name.
        network: String,
        /// Put it on this bridge of the host.
        #[serde(default)]
        bridge: Option<String>,
        /// Its whole definition, instead of `bridge`.
        #[serde(default)]
        xml: Option<String>,
        /// Start it.
        #[serde(default = "yes")]
        active: bool,
        /// Let it start with its host.
        #[serde(default = "yes")]
        autostart: bool,
    }
}

pub(crate) fn yes() -> bool {
    true
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// The network's name.
    pub(crate) network: String,
    /// Its bridge; null where it has none of its own.
    pub(crate) bridge: Option<String>,
    /// Whether it is started.
    pub(crate) active: bool,
}

/// How a network or pool is. What has the same two switches is looked at in the same way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Switches {
    pub(crate) uuid: String,
    pub(crate) active: bool,
    pub(crate) autostart: bool,
}

/// `virsh net-info` or `virsh pool-info`. None = there is none of that name.
pub(crate) async fn switches(
    cx: &Cx<'_>,
    connection: &Connection,
    verb: &str,
    name: &str,
) -> Result<Option<Switches>, StepError> {
    let words = [verb, name];
    let exit = connection.asked(cx, &words, name).await?;
    if !exit.ok() {
        return match why(&exit) {
            Why::NoNetwork | Why::NoPool => Ok(None),
            _ => Err(errors::of_exit(&connection.command(&words), &exit, name, connection)),
        };
    }
    let text = exit.stdout_text();
    let get = |key: &str| field(&text, key).unwrap_or_default().to_owned();
    let active = get("Active") == "yes" || get("State") == "running";
    Ok(Some(Switches { uuid: get("UUID"), active, autostart: get("Autostart") == "yes" }))
}

/// Sets the switches of a network (`net`) or pool (`pool`) where they are otherwise. Returns whether one was.
pub(crate) async fn switch(
    cx: &Cx<'_>,
    connection: &Connection,
    kind: &str,
    name: &str,
    wanted: (bool, bool),
) -> Result<bool, StepError> {
    let now = switches(cx, connection, &format!("{kind}-info"), name).await?;
    let now = now.ok_or_else(|| StepError::permanent(format!("{name} is not there any more")))?;
    let (active, autostart) = wanted;
    if now.active != active {
        let verb = format!("{kind}-{}", if active { "start" } else { "destroy" });
        connection.ran(cx, connection.command(&[&verb, name]), name).await?;
    }
    if now.autostart != autostart {
        let verb = format!("{kind}-autostart");
        let words: &[&str] = if autostart { &[&verb, name] } else { &[&verb, name, "--disable"] };
        connection.ran(cx, connection.command(words), name).await?;
    }
    Ok(now.active != active || now.autostart != autostart)
}

/// The note of the UUID of what was made.
const MADE: &str = "made";

/// Makes it by this command, and tells when.
pub(crate) async fn define(
    cx: &Cx<'_>,
    connection: &Connection,
    (kind, name): (&str, &str),
    command: Command,
) -> Result<(), StepError> {
    let info = format!("{kind}-info");
    let none = async { switches(cx, connection, &info, name).await.is_ok_and(|now| now.is_none()) };
    begun::changing(cx, connection.ran(cx, command, name), none).await?;
    if let Ok(Some(now)) = switches(cx, connection, &info, name).await {
        cx.host.note(serde_json::json!({ MADE: now.uuid })).await?;
    }
    Ok(())
}

/// Brings a network or pool back to its switches, or undefines it where it was not there.
pub(crate) async fn back(
    cx: &Cx<'_>,
    connection: &Connection,
    kind: &str,
    name: &str,
    before: Option<&Switches>,
) -> Result<Undone, StepError> {
    let Some(now) = switches(cx, connection, &format!("{kind}-info"), name).await? else {
        return match before {
            None => Ok(Undone { changed: false, note: None }),
            Some(_) => Err(super::domain::drift(name, "it is not there any more")),
        };
    };
    if let Some(before) = before {
        if before.uuid != now.uuid && !cx.force {
            return Err(super::domain::drift(name, "it is another one of that name"));
        }
        let changed = switch(cx, connection, kind, name, (before.active, before.autostart)).await?;
        return Ok(Undone { changed, note: changed.then(|| format!("{name} is as it was")) });
    }
    let made = cx.host.notes().iter().rev().find_map(|note| note.get(MADE).and_then(Json::as_str).map(str::to_owned));
    if made.is_some_and(|uuid| uuid != now.uuid) && !cx.force {
        return Err(super::domain::drift(name, "it is another one of that name than the one that this step made"));
    }
    switch(cx, connection, kind, name, (false, false)).await?;
    let verb = format!("{kind}-undefine");
    connection.ran(cx, connection.command(&[&verb, name]), name).await?;
    Ok(Undone { changed: true, note: Some(format!("{name} is undefined")) })
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Capture {
    before: Option<Switches>,
    #[serde(default)]
    tells: Tells,
}

/// The step type `virt.net`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VirtNet;

async fn bridge_of(cx: &Cx<'_>, connection: &Connection, name: &str) -> Result<Option<String>, StepError> {
    let text = connection.read(cx, &["net-dumpxml", name, "--inactive"], name).await?;
    let document = Document::parse(&text).map_err(|e| StepError::permanent(format!("{name}: {e}")))?;
    let bridge = document.descendants().find(|n| n.has_tag_name("bridge"));
    Ok(bridge.and_then(|b| b.attribute("name")).map(str::to_owned))
}

fn definition(inputs: &Inputs) -> Option<String> {
    let made = |bridge: &String| {
        let (name, bridge) = (escape(&inputs.network), escape(bridge));
        format!("<network><name>{name}</name><forward mode='bridge'/><bridge name='{bridge}'/></network>")
    };
    inputs.xml.clone().or_else(|| inputs.bridge.as_ref().map(made))
}

/// The conflict of a network that is there on another bridge.
async fn fits(cx: &Cx<'_>, inputs: &Inputs, connection: &Connection) -> Result<Option<String>, StepError> {
    let there = bridge_of(cx, connection, &inputs.network).await?;
    match &inputs.bridge {
        Some(wanted) if there.as_ref() != Some(wanted) => {
            let is = there.unwrap_or_else(|| "none".to_owned());
            Err(StepError::conflict(format!("network {} is on bridge {is}, not {wanted}", inputs.network))
                .help("other guests may be on it: choose another name, or change it by hand (`virsh net-edit`)"))
        }
        _ => Ok(there),
    }
}

#[async_trait::async_trait]
impl StepType for VirtNet {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = Capture;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "virt.net",
            doc: "Makes sure that a libvirt network is there and started.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Small,
            examples: &[
                "- id: lan\n  uses: virt.net\n  with: { network: lan, bridge: br0 }\n",
                "- id: default\n  uses: virt.net\n  with: { network: default }\n",
            ],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut found = inputs.connection().problems();
        found.extend(name_problems("network", &inputs.network));
        if inputs.bridge.is_some() && inputs.xml.is_some() {
            found.push(problem(&["xml"], "`bridge` and `xml` exclude each other".to_owned()));
        }
        if let Some(xml) = &inputs.xml
            && let Err(e) = Document::parse(xml)
        {
            found.push(problem(&["xml"], format!("is not XML: {e}")));
        }
        found
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let connection = inputs.connection();
        let name = &inputs.network;
        let Some(now) = switches(cx, &connection, "net-info", name).await? else {
            let summary = match definition(inputs) {
                Some(_) => format!("define network {name}"),
                None => format!("would refuse: there is no network {name}"),
            };
            return Ok(Preview { changes: Some(definition(inputs).is_some()), summary, details: Vec::new() });
        };
        if let Err(e) = fits(cx, inputs, &connection).await {
            let summary = format!("would refuse: {}", e.message);
            return Ok(Preview { changes: Some(false), summary, details: Vec::new() });
        }
        let changes = now.active != inputs.active || now.autostart != inputs.autostart;
        let summary = if changes { format!("switch network {name}") } else { format!("network {name} is so already") };
        Ok(Preview { changes: Some(changes), summary, details: Vec::new() })
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Capture, StepError> {
        let before = switches(cx, &inputs.connection(), "net-info", &inputs.network).await?;
        Ok(Capture { before, tells: Tells::YES })
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Capture) -> Result<Acted<Outputs>, StepError> {
        let connection = inputs.connection();
        let name = &inputs.network;
        if switches(cx, &connection, "net-info", name).await?.is_none() {
            let xml = definition(inputs).ok_or_else(|| {
                StepError::permanent(format!("there is no network {name}"))
                    .help("say what it is to be: `bridge` or `xml`")
            })?;
            define(cx, &connection, ("net", name), connection.feeding(&["net-define"], &xml)).await?;
        }
        let bridge = fits(cx, inputs, &connection).await?;
        begun::begins(cx).await?;
        switch(cx, &connection, "net", name, (inputs.active, inputs.autostart)).await?;
        cx.host.output(Stream::Stdout, format!("network {name} is there\n").as_bytes());
        let changed =
            capture.before.as_ref().is_none_or(|b| (b.active, b.autostart) != (inputs.active, inputs.autostart));
        Ok(Acted { outputs: Outputs { network: name.clone(), bridge, active: inputs.active }, changed })
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        inputs: &Inputs,
        capture: &Capture,
        outputs: Option<&Outputs>,
    ) -> Result<Undone, StepError> {
        if capture.tells.nothing_of(cx, outputs) {
            return Ok(Undone { changed: false, note: None });
        }
        back(cx, &inputs.connection(), "net", &inputs.network, capture.before.as_ref()).await
    }
}

#[cfg(test)]
#[path = "net_tests.rs"]
mod tests;
