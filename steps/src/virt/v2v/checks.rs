//! What would make a conversion fail after an hour, looked at in its first second. Everything that is in the way is told
//! in one go. Changes nothing.

use std::time::Duration;

use runback_core::Json;
use runback_core::step::{Class, Cx, StepError};
use runback_core::target::{Command, Target};

use super::inputs::Inputs;
use super::place::Place;
use super::source::{self, Known};
use crate::file::{parents, paths, sha256_hex};
use crate::virt::domain;

/// What libguestfs wants in either of its folders (its manual asks for 1 GB).
const WORK: u64 = 1 << 30;

const TOOLS: [(&str, &str); 5] = [
    ("virt-v2v", "virt-v2v"),
    ("nbdkit", "nbdkit"),
    ("nbdcopy", "libnbd-bin"),
    ("qemu-nbd", "qemu-utils"),
    ("qemu-img", "qemu-utils"),
];

/// Runs what follows its first word, a temporary folder that is made for it, and removes that: virt-v2v leaves folders
/// behind when it is killed.
const ASIDE: &str = r#"d=$1
shift
mkdir -m 700 "$d" || exit
trap 'rm -rf "$d"' EXIT
trap 'exit 143' HUP INT TERM
TMPDIR=$d VIRT_V2V_TMPDIR=$d "$@""#;

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) known: Known,
    /// Each of these stops the conversion.
    pub(crate) obstacles: Vec<Obstacle>,
    /// Worth a look before hours are spent.
    pub(crate) notices: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Obstacle {
    pub(crate) message: String,
    pub(crate) help: String,
}

impl Found {
    fn obstacle(&mut self, message: impl Into<String>, help: impl Into<String>) {
        self.obstacles.push(Obstacle { message: message.into(), help: help.into() });
    }

    /// All obstacles as one error.
    pub(crate) fn refusal(&self) -> Option<StepError> {
        let first = self.obstacles.first()?;
        if self.obstacles.len() == 1 {
            return Some(StepError::conflict(first.message.clone()).help(first.help.clone()));
        }
        let join = |part: fn(&Obstacle) -> &str| self.obstacles.iter().map(part).collect::<Vec<_>>().join("; ");
        let message = format!("{} things are in the way: {}", self.obstacles.len(), join(|o| &o.message));
        Some(StepError::conflict(message).help(join(|o| &o.help)))
    }
}

/// Looks at everything. `patience` bounds the look at the source, which reads all of an OVA where it has a manifest.
pub(crate) async fn check(cx: &Cx<'_>, inputs: &Inputs, place: &Place, patience: Duration) -> Result<Found, StepError> {
    let mut found = Found { known: place.known.clone(), ..Found::default() };
    tools(cx, &mut found).await?;
    names(cx, inputs, place, &mut found).await?;
    space(cx, inputs, place, &mut found).await?;
    connections(cx, inputs, &mut found).await?;
    if found.obstacles.is_empty() {
        the_source(cx, inputs, patience, &mut found).await?;
    }
    Ok(found)
}

async fn tools(cx: &Cx<'_>, found: &mut Found) -> Result<(), StepError> {
    let script = "for t; do command -v \"$t\" >/dev/null 2>&1 || echo \"$t\"; done";
    let words = ["sh", "-c", script, "sh"].into_iter().chain(TOOLS.iter().map(|(tool, _)| *tool));
    let missing = cx.query(Command::query(words)).await?.stdout_text();
    let missing: Vec<&str> = missing.lines().collect();
    if !missing.is_empty() {
        let mut packages: Vec<_> = TOOLS.iter().filter(|(t, _)| missing.contains(t)).map(|(_, p)| *p).collect();
        packages.dedup();
        found.obstacle(
            format!("missing on {}: {}", cx.target.name(), missing.join(", ")),
            format!("virt-v2v needs them and does not pull them in: apt-get install {}", packages.join(" ")),
        );
    }
    // The appliance boots the host's own kernel, unless there is a fixed one.
    if !cx.env.contains_key("LIBGUESTFS_PATH") {
        let boot = match cx.target.stat("/boot").await? {
            Some(_) => cx.target.list("/boot").await?,
            None => Vec::new(),
        };
        kernel(cx.target.name(), &boot, found);
    }
    Ok(())
}

fn kernel(host: &str, boot: &[String], found: &mut Found) {
    if !boot.iter().any(|name| name.starts_with("vmlinuz")) {
        found.obstacle(
            format!("there is no kernel in /boot of {host}"),
            "libguestfs boots it in its appliance: apt-get install linux-image-amd64",
        );
    }
}

async fn names(cx: &Cx<'_>, inputs: &Inputs, place: &Place, found: &mut Found) -> Result<(), StepError> {
    if let Some(connection) = inputs.connection()
        && let Some(there) = domain::find(cx, &connection, &place.name).await?
    {
        found.obstacle(
            format!("there is a domain {} already, {}", place.name, there.state.word()),
            "choose another `name`, or undefine that one first",
        );
    }
    let taken = place.taken(cx).await?;
    if !taken.is_empty() {
        found.obstacle(
            format!("{} holds {} already", place.dir, parents::some(&taken)),
            "virt-v2v would overwrite it: move it away, or choose another `name`",
        );
    }
    Ok(())
}

/// The nearest folder above a path that is there.
pub(crate) async fn existing(target: &dyn Target, path: &str) -> Result<String, StepError> {
    let mut at = path;
    while at != "/" && at != "." && target.stat(at).await?.is_none() {
        at = paths::parent(at);
    }
    Ok(at.to_owned())
}

/// Room that is wanted in a folder.
#[derive(Debug, Clone)]
struct Demand<'a> {
    dir: &'a str,
    bytes: u64,
    what: &'static str,
    /// Which file system holds it; empty = not known.
    device: String,
    free: u64,
}

async fn demand<'a>(cx: &Cx<'_>, dir: &'a str, bytes: u64, what: &'static str) -> Result<Demand<'a>, StepError> {
    let at = existing(cx.target, dir).await?;
    let free = cx.target.free_space(&at).await?;
    let device = match cx.query(Command::query(["stat", "-L", "-c", "%d", &at])).await {
        Ok(exit) if exit.ok() => exit.stdout_text().trim().to_owned(),
        Err(e) if e.class != Class::Permanent => return Err(e),
        _ => String::new(),
    };
    Ok(Demand { dir, bytes, what, device, free })
}

async fn space(cx: &Cx<'_>, inputs: &Inputs, place: &Place, found: &mut Found) -> Result<(), StepError> {
    let mut demands = Vec::new();
    if let Some(needed) = place.known.size() {
        demands.push(demand(cx, &place.dir, needed, "the disks").await?);
    } else {
        found.notices.push("how much space the disks need cannot be told before the conversion".to_owned());
    }
    if cx.target.stat(&inputs.tmp).await?.is_none() {
        found.obstacle(format!("{} is not there", inputs.tmp), "make it, or say where temporary files go: `tmp`");
    }
    let unpacked = if place.known.packed { place.known.size().unwrap_or(0) } else { 0 };
    let temporary = demand(cx, &inputs.tmp, WORK.saturating_add(unpacked), "temporary files").await?;
    // Without this variable the appliance lies in TMPDIR. Where both share a file system, one GB is for both.
    if let Some(cache) = cx.env.get("LIBGUESTFS_CACHEDIR").filter(|dir| !dir.is_empty()) {
        let appliance = demand(cx, cache, WORK, "the appliance").await?;
        demands.extend(Some(appliance).filter(|a| a.device.is_empty() || a.device != temporary.device));
    }
    demands.push(temporary);
    room(demands, found);
    Ok(())
}

/// Folders on one file system take from the same room.
fn room(mut demands: Vec<Demand<'_>>, found: &mut Found) {
    while !demands.is_empty() {
        let first = demands.remove(0);
        let beside = |d: &Demand<'_>| !d.device.is_empty() && d.device == first.device;
        let (mut shared, rest): (Vec<_>, Vec<_>) = demands.into_iter().partition(beside);
        demands = rest;
        let free = first.free;
        shared.insert(0, first);
        let needed = shared.iter().fold(0_u64, |sum, d| sum.saturating_add(d.bytes));
        if free >= needed {
            continue;
        }
        let each = shared.iter().map(|d| format!("{} may need {}", d.what, size(d.bytes))).collect::<Vec<_>>();
        let dirs: Vec<&str> = shared.iter().map(|d| d.dir).collect();
        let together = if shared.len() > 1 { ", on one file system" } else { "" };
        found.obstacle(
            format!(
                "{} has {} free{together}, and {}: {} are missing",
                dirs.join(" with "),
                size(free),
                each.join(" and "),
                size(needed - free)
            ),
            "make room there, or choose another place: disks can grow to the sum of their virtual sizes; `tmp` says where \
             temporary files go, LIBGUESTFS_CACHEDIR in `env` where the appliance lies",
        );
    }
}

/// Bridges and networks that cards are to be connected to, and networks of the source that nobody has mapped.
async fn connections(cx: &Cx<'_>, inputs: &Inputs, found: &mut Found) -> Result<(), StepError> {
    let by_mac = |f: fn(&super::inputs::Connected) -> Option<&String>| inputs.mac.values().filter_map(f);
    let mut bridges: Vec<&String> = inputs.bridges.values().chain(by_mac(|c| c.bridge.as_ref())).collect();
    bridges.sort();
    bridges.dedup();
    for bridge in bridges {
        match kind(cx, bridge).await {
            Ok(Some(kind)) if matches!(kind.as_str(), "" | "bridge" | "openvswitch") => {}
            Ok(Some(kind)) => found.obstacle(
                format!("{bridge} on {} is no bridge, but {kind}", cx.target.name()),
                "guests can only be put on a bridge: make one with that card in it (see the playbook kvm-host-setup)",
            ),
            Ok(None) => found.obstacle(
                format!("there is no bridge {bridge} on {}", cx.target.name()),
                "make it first (see the playbook kvm-host-setup), or map the network to another",
            ),
            Err(e) if e.class == Class::Permanent => {
                found.notices.push(format!("whether there is a bridge {bridge} was not looked at: {e}"));
            }
            Err(e) => return Err(e),
        }
    }
    let mut networks: Vec<&String> = inputs.networks.values().chain(by_mac(|c| c.network.as_ref())).collect();
    networks.sort();
    networks.dedup();
    if let Some(connection) = inputs.connection() {
        for network in networks {
            if !connection.asked(cx, &["net-info", network], network).await?.ok() {
                found.obstacle(format!("libvirt has no network {network}"), "make it first: `uses: virt.net`");
            }
        }
    }
    for network in found.known.networks.clone() {
        let named = |name: &str| inputs.bridges.contains_key(name) || inputs.networks.contains_key(name);
        if !named(&network) && !named("*") && inputs.mac.is_empty() {
            found.notices.push(format!("network `{network}` of the source is mapped to nothing: see `bridges`"));
        }
    }
    if found.known.no_manifest {
        found
            .notices
            .push("the OVA has no manifest: a disk that was damaged on its way would not be noticed".to_owned());
    }
    if found.known.windows {
        let drivers = cx.env.get("VIRTIO_WIN").cloned().unwrap_or_else(|| "/usr/share/virtio-win".to_owned());
        if cx.target.stat(&drivers).await?.is_none() {
            found.notices.push(format!(
                "this is a Windows guest, and {drivers} is not there: without virtio-win it gets slow devices"
            ));
        }
    }
    Ok(())
}

/// What kind of network device it is: `bridge`, `a network card`, …; empty = it does not say. None = there is none.
/// Not by /sys, which may be that of another network namespace.
async fn kind(cx: &Cx<'_>, device: &str) -> Result<Option<String>, StepError> {
    let exit = cx.query(Command::query(["ip", "-j", "-d", "link", "show", "dev", device])).await?;
    if !exit.ok() {
        // An old `ip`, or that of busybox, speaks no JSON.
        let plain = cx.query(Command::query(["ip", "link", "show", "dev", device])).await?;
        return Ok(plain.ok().then(String::new));
    }
    let told: Json = serde_json::from_slice(&exit.stdout).unwrap_or_default();
    Ok(Some(match (told[0]["linkinfo"]["info_kind"].as_str(), told[0]["link_type"].as_str()) {
        (Some(kind), _) => kind.to_owned(),
        (None, Some("loopback")) => "the loopback".to_owned(),
        (None, Some(_)) => "a network card".to_owned(),
        (None, None) => String::new(),
    }))
}

/// What virt-v2v itself says of the source, before it does anything.
async fn the_source(cx: &Cx<'_>, inputs: &Inputs, patience: Duration, found: &mut Found) -> Result<(), StepError> {
    // A login would have to be written into a file first; the conversion begins with it anyway.
    if inputs.password.is_some() {
        return Ok(());
    }
    if found.known.packed {
        found
            .notices
            .push("the source is compressed: it is unpacked and checked when the conversion begins".to_owned());
        return Ok(());
    }
    let words = ["virt-v2v", "--print-source"].into_iter().map(str::to_owned);
    let command = Command::query(words.chain(inputs.input.words(cx, None)));
    let tag = sha256_hex(format!("{} {} {}", cx.run, cx.step, cx.host.now_ms()).as_bytes());
    let folder = format!("{}/rbv2v-look-{}", inputs.tmp.trim_end_matches('/'), &tag[..10]);
    let aside = ["sh", "-c", ASIDE, "sh", &folder].into_iter().map(str::to_owned);
    let looking = Command::query(aside.chain(command.argv.iter().cloned())).env("LC_ALL", "C").timeout(patience);
    let looked = cx.query(looking).await;
    if looked.is_err() {
        // Told to stop, it may take longer than it is given, and is killed: then it has removed nothing.
        cx.target.remove_tree(&folder).await?;
    }
    match looked {
        Ok(exit) if exit.ok() => Ok(()),
        Ok(exit) => {
            let stderr = exit.stderr_text();
            let said = stderr.lines().find_map(|l| l.strip_prefix("virt-v2v: error: "));
            let said = said.map_or_else(|| exit.describe(), str::to_owned);
            found.obstacle(format!("the source: {said}"), format!("see `{}`", command.display()));
            Ok(())
        }
        Err(e) if e.class == Class::Timeout => {
            found.notices.push("the source was not looked at to its end: it is large".to_owned());
            Ok(())
        }
        Err(e) => Err(e),
    }
}

/// Where everything is looked up first, so that the checks and the conversion speak of the same place.
pub(crate) async fn known(cx: &Cx<'_>, inputs: &Inputs) -> Result<Known, StepError> {
    source::look(cx, &inputs.input).await
}

/// "456 MiB", "1.5 GiB".
pub(crate) fn size(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "for people, one digit after the point")]
    let in_units = |shift: u32| bytes as f64 / (1_u64 << shift) as f64;
    match bytes {
        0..1024 => format!("{bytes} bytes"),
        1024..1_048_576 => format!("{:.0} KiB", in_units(10)),
        1_048_576..1_073_741_824 => format!("{:.0} MiB", in_units(20)),
        _ => format!("{:.1} GiB", in_units(30)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_for_people() {
        for (bytes, text) in [(5, "5 bytes"), (2048, "2 KiB"), (456 << 20, "456 MiB"), (3 << 29, "1.5 GiB")] {
            assert_eq!(size(bytes), text);
        }
    }

    /// A /boot with a boot loader only, as in a container, or none at all.
    #[test]
    fn a_host_without_a_kernel_is_refused() {
        let refused = |boot: &[&str]| {
            let mut found = Found::default();
            kernel("kvm", &boot.iter().map(ToString::to_string).collect::<Vec<_>>(), &mut found);
            found.refusal().map(|e| e.message)
        };
        let why = Some("there is no kernel in /boot of kvm".to_owned());
        assert_eq!((refused(&[]), refused(&["grub", "config-6.1.0-40-amd64"])), (why.clone(), why));
        assert_eq!(refused(&["grub", "vmlinuz-6.1.0-40-amd64"]), None);
    }

    /// Trap: the disks and the temporary files each fit, and both together do not.
    #[test]
    fn folders_on_one_file_system_share_its_room() {
        let wanted = |dir, gib: u64, what, device: &str| Demand {
            dir,
            bytes: gib << 30,
            what,
            device: device.to_owned(),
            free: 10 << 30,
        };
        let refused = |demands| {
            let mut found = Found::default();
            room(demands, &mut found);
            found.obstacles.into_iter().map(|o| o.message).collect::<Vec<_>>()
        };
        let (disks, temporary) =
            (wanted("/images", 8, "the disks", "1"), wanted("/var/tmp", 3, "temporary files", "1"));
        assert!(refused(vec![disks.clone()]).is_empty() && refused(vec![temporary.clone()]).is_empty());
        assert_eq!(
            refused(vec![disks.clone(), temporary.clone()]),
            [
                "/images with /var/tmp has 10.0 GiB free, on one file system, and the disks may need 8.0 GiB and temporary \
              files may need 3.0 GiB: 1.0 GiB are missing"
            ]
        );
        let elsewhere = |device: &str| Demand { device: device.to_owned(), ..temporary.clone() };
        assert!(refused(vec![disks.clone(), elsewhere("2")]).is_empty());
        assert!(refused(vec![Demand { device: String::new(), ..disks }, elsewhere("")]).is_empty(), "not known");
    }

    #[test]
    fn all_obstacles_are_one_error() {
        let mut found = Found::default();
        assert!(found.refusal().is_none());
        found.obstacle("one", "do this");
        assert_eq!(found.refusal().map(|e| e.message), Some("one".to_owned()));
        found.obstacle("two", "do that");
        let error = found.refusal().expect("two");
        assert_eq!(error.message, "2 things are in the way: one; two");
        assert_eq!(error.help.as_deref(), Some("do this; do that"));
    }
}
