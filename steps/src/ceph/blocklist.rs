//! `ceph.blocklist`: fences clients: the cluster refuses their reads and writes from now on, whatever they still hold.
//!
//! **Does.** Puts each address on the cluster's blocklist for a time, and reads the OSD map to confirm that it stands
//! there. An address with a nonce (`10.0.0.7:0/2494281927`, as `rbd status` prints it) is one client; an IP alone is every
//! client of that machine. An entry that is there already, and lasts long enough, is left as it is.
//!
//! **Outputs.** `entries`: address → when it ends; `added`: those that this step added.
//!
//! **Undo** removes the entries that the step added, no others, and only while they are as it left them.
//!
//! **A fence that is too short is worse than none:** when it ends, a client that was only paused writes on. So it lasts 24
//! hours, and less has to be asked for (`short: true`). Remove it after the old machine has restarted, not before.
//!
//! **In force a moment later:** when this succeeds, the monitors have the entry, and an OSD refuses from when it has their
//! new map. With one OSD and Ceph 16.2.15, 2 of 90 writes that were sent at once still got through. OSDs tell each other of
//! a new map with their heartbeats (`osd_heartbeat_interval`, 6 s): `wait` for 10 s before what relies on the fence.
//!
//! **Not extended:** in Ceph 16.2.15 adding an address again prints the new time and keeps the old one. A shorter entry
//! that is there already is therefore a conflict.
//!
//! **Does not** fence a machine against itself: with the IP of the machine that asks, every later `rbd` there fails.

use std::collections::BTreeMap;

use runback_core::step::{
    Access, Acted, Class, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, Probe, StepError, StepType,
    UndoKind, Undone,
};
use runback_core::target::Stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::address::Address;
use super::osd_map::{self, Entries};
use crate::http::look::problem;
use crate::period::Period;
use crate::rbd::cli::{Connection, connection_inputs};

connection_inputs! {
    /// Whom to fence, and for how long.
    {
        /// Clients (`IP:PORT/NONCE`) and whole machines (`IP`).
        #[schemars(length(min = 1))]
        addresses: Vec<String>,
        /// How long it shall last.
        #[serde(default = "a_day", rename = "for")]
        lasts: Period,
        /// Accept less than 24h.
        #[serde(default)]
        short: bool,
    }
}

const DAY: Period = Period::seconds(24 * 60 * 60);
/// How far the clocks of runback and the monitors may be apart, and how late an attempt may come after the first.
const SLACK_MS: i64 = 10 * 60 * 1000;

fn a_day() -> Period {
    DAY
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// Address as the blocklist has it → when its entry ends.
    pub(crate) entries: BTreeMap<String, String>,
    /// The addresses whose entries this step added.
    pub(crate) added: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Capture {
    /// Of the wanted addresses, those that were on the blocklist before.
    before: Entries,
    /// By runback's clock, in milliseconds since the epoch.
    at_ms: i64,
}

/// The step type `ceph.blocklist`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CephBlocklist;

/// As the blocklist writes them, each once.
fn wanted(inputs: &Inputs) -> Result<Vec<String>, StepError> {
    let mut all = Vec::new();
    for text in &inputs.addresses {
        let address = Address::parse(text).map_err(StepError::permanent)?.to_string();
        if !all.contains(&address) {
            all.push(address);
        }
    }
    if all.is_empty() {
        return Err(StepError::permanent("no address to fence")
            .help("give the watcher's address (`rbd status`), or the IP of the old machine"));
    }
    Ok(all)
}

fn now_ms(cx: &Cx<'_>) -> i64 {
    i64::try_from(cx.host.now_ms()).unwrap_or(i64::MAX)
}

fn lasts_ms(inputs: &Inputs) -> i64 {
    i64::try_from(inputs.lasts.0.as_millis()).unwrap_or(i64::MAX)
}

/// An entry that was there before must last as long as was asked for.
fn long_enough(cx: &Cx<'_>, inputs: &Inputs, address: &str, until: &str) -> Result<(), StepError> {
    let ends = osd_map::ends_ms(until)
        .ok_or_else(|| StepError::permanent(format!("{address}: the end of its entry cannot be read: {until}")))?;
    if ends.saturating_add(SLACK_MS) >= now_ms(cx).saturating_add(lasts_ms(inputs)) {
        return Ok(());
    }
    Err(StepError::conflict(format!(
        "{address} is fenced already, but only until {until}; {} was asked for, and Ceph does not extend an entry",
        inputs.lasts
    ))
    .help(format!(
        "fence the whole machine instead (its IP alone is an entry of its own), or, when the client is certainly dead: \
         ceph osd blocklist rm {address}"
    )))
}

/// Whether an entry can be what an attempt of this step made.
fn like_ours(cx: &Cx<'_>, inputs: &Inputs, capture: &Capture, until: &str) -> bool {
    let Some(ends) = osd_map::ends_ms(until) else { return false };
    let lasts = lasts_ms(inputs);
    let earliest = capture.at_ms.saturating_add(lasts).saturating_sub(SLACK_MS);
    let latest = now_ms(cx).saturating_add(lasts).saturating_add(SLACK_MS);
    (earliest..=latest).contains(&ends)
}

async fn add(cx: &Cx<'_>, connection: &Connection, inputs: &Inputs, address: &str) -> Result<(), StepError> {
    let seconds = inputs.lasts.0.as_secs().max(1).to_string();
    let command = connection.ceph(cx, &["osd", "blocklist", "add", address, &seconds]);
    match connection.ran(cx, command, &format!("fencing {address}")).await {
        // Its answer may be all that was lost: the OSD map, read next, tells.
        Err(e) if e.class == Class::Timeout => {
            let map = osd_map::blocklist(cx, connection).await;
            if map.is_ok_and(|m| m.contains_key(address)) { Ok(()) } else { Err(e) }
        }
        done => done.map(|_| ()),
    }
}

/// What stands there now, of what was wanted. Each must be there.
fn confirmed(wanted: &[String], map: &Entries) -> Result<BTreeMap<String, String>, StepError> {
    let of = |address: &String| match map.get(address) {
        Some(until) => Ok((address.clone(), until.clone())),
        None => {
            Err(StepError::conflict(format!("{address} was put on the blocklist, and the OSD map does not have it"))
                .help("somebody may have removed it at once; do not go on before it is fenced"))
        }
    };
    wanted.iter().map(of).collect()
}

fn outputs(entries: BTreeMap<String, String>, before: &Entries) -> Outputs {
    let added = entries.keys().filter(|a| !before.contains_key(*a)).cloned().collect();
    Outputs { entries, added }
}

#[async_trait::async_trait]
impl StepType for CephBlocklist {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = Capture;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "ceph.blocklist",
            doc: "Fences clients of a Ceph cluster by address, for a time.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Small,
            examples: &[
                "- id: fence\n  uses: ceph.blocklist\n  with: { addresses: [10.0.0.7], for: 2d }\n",
                "- id: fence-watchers\n  uses: ceph.blocklist\n  with: { addresses: \"{{ steps.look.outputs.watcher_addresses }}\" }\n",
            ],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut found = inputs.connection().problems();
        if inputs.addresses.is_empty() {
            found.push(problem(&["addresses"], "there is no address to fence".to_owned()));
        }
        for (i, text) in inputs.addresses.iter().enumerate() {
            if let Err(e) = Address::parse(text) {
                found.push(problem(&["addresses", &i.to_string()], e));
            }
        }
        if inputs.lasts < DAY && !inputs.short {
            let mut wrong =
                problem(&["for"], format!("a fence of {} may end before the old client is gone", inputs.lasts));
            wrong.help = Some("24h is the least, or say `short: true`".to_owned());
            found.push(wrong);
        }
        if inputs.lasts < Period::seconds(1) {
            found.push(problem(&["for"], "must be at least 1s".to_owned()));
        }
        found
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let wanted = wanted(inputs)?;
        let map = osd_map::blocklist(cx, &inputs.connection()).await?;
        let mut details = Vec::new();
        let mut new = 0;
        for address in &wanted {
            if let Some(until) = map.get(address) {
                details.push(format!("{address}: on the blocklist until {until}"));
                if let Err(e) = long_enough(cx, inputs, address, until) {
                    details.push(format!("would refuse: {}", e.message));
                }
            } else {
                new += 1;
                let whole = Address::parse(address).is_ok_and(|a| a.whole_machine());
                let who = if whole { "every client of that machine" } else { "one client" };
                details.push(format!("{address}: {who}, for {}", inputs.lasts));
            }
        }
        let summary = match new {
            0 => "all are on the blocklist already".to_owned(),
            _ => format!("fence {new} of {} for {}", wanted.len(), inputs.lasts),
        };
        Ok(Preview { changes: Some(new > 0), summary, details })
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Capture, StepError> {
        let wanted = wanted(inputs)?;
        let mut before = osd_map::blocklist(cx, &inputs.connection()).await?;
        before.retain(|address, _| wanted.contains(address));
        Ok(Capture { before, at_ms: now_ms(cx) })
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Capture) -> Result<Acted<Outputs>, StepError> {
        let (wanted, connection) = (wanted(inputs)?, inputs.connection());
        let map = osd_map::blocklist(cx, &connection).await?;
        // All refusals come before the first change. What an earlier attempt added is ours, and may be a little shorter.
        for address in &wanted {
            if let Some(until) = map.get(address)
                && (capture.before.contains_key(address) || !like_ours(cx, inputs, capture, until))
            {
                long_enough(cx, inputs, address, until)?;
            }
        }
        for address in wanted.iter().filter(|a| !map.contains_key(*a)) {
            cx.phase(format!("fencing {address}"));
            add(cx, &connection, inputs, address).await?;
        }
        let entries = confirmed(&wanted, &osd_map::blocklist(cx, &connection).await?)?;
        for (address, until) in &entries {
            cx.host.output(Stream::Stdout, format!("{address} is fenced until {until}\n").as_bytes());
        }
        let outputs = outputs(entries, &capture.before);
        Ok(if outputs.added.is_empty() { Acted::unchanged(outputs) } else { Acted::changed(outputs) })
    }

    async fn probe(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Capture) -> Result<Probe<Outputs>, StepError> {
        let map = osd_map::blocklist(cx, &inputs.connection()).await?;
        Ok(match confirmed(&wanted(inputs)?, &map) {
            Ok(entries) => Probe::Done(Acted::changed(outputs(entries, &capture.before))),
            Err(_) => Probe::NotDone,
        })
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        inputs: &Inputs,
        capture: &Capture,
        outputs: Option<&Outputs>,
    ) -> Result<Undone, StepError> {
        let connection = inputs.connection();
        let map = osd_map::blocklist(cx, &connection).await?;
        let mut removed = Vec::new();
        for address in wanted(inputs)?.into_iter().filter(|a| !capture.before.contains_key(a)) {
            let Some(until) = map.get(&address) else { continue };
            let ours = match outputs.and_then(|o| o.entries.get(&address)) {
                Some(left) => left == until,
                None => like_ours(cx, inputs, capture, until),
            };
            if !ours && !cx.force {
                return Err(StepError::conflict(format!(
                    "{address} stays fenced until {until}: that entry is not the one that this step added"
                ))
                .help(format!("if nobody else needs it: ceph osd blocklist rm {address}, or roll back with --force")));
            }
            let command = connection.ceph(cx, &["osd", "blocklist", "rm", &address]);
            connection.ran(cx, command, &format!("lifting the fence of {address}")).await?;
            removed.push(address);
        }
        // `rm` exits 0 whether or not the entry was there: only the map tells.
        if !removed.is_empty() {
            let map = osd_map::blocklist(cx, &connection).await?;
            if let Some(left) = removed.iter().find(|a| map.contains_key(*a)) {
                return Err(StepError::transient(format!("{left} is still on the blocklist after its removal")));
            }
        }
        let note = (!removed.is_empty()).then(|| format!("{} may write again", removed.join(", ")));
        Ok(Undone { changed: note.is_some(), note })
    }
}

#[cfg(test)]
#[path = "blocklist_tests.rs"]
mod tests;
