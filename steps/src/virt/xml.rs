//! Edits of a libvirt document that leave everything else as it was, comments and blanks included: what is changed is
//! cut out by its range and put in anew. Knows what the elements of a domain mean, and no machine.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;

use roxmltree::{Document, Node};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a network card of a domain is to be connected to. What is not given stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Interface {
    /// A bridge of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bridge: Option<String>,
    /// A libvirt network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) network: Option<String>,
    /// The card's model, such as `virtio` or `e1000e`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) model: Option<String>,
    /// The card's address, such as `52:54:00:12:34:56`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mac: Option<String>,
}

/// Everything that a definition can be changed in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Edits {
    pub(crate) name: Option<String>,
    /// Put in where the document has none.
    pub(crate) uuid: Option<String>,
    pub(crate) domain_type: Option<String>,
    pub(crate) memory_kib: Option<u64>,
    pub(crate) vcpus: Option<u32>,
    /// One for each card in order, or a single one for all; those beyond the last card are added.
    pub(crate) interfaces: Vec<Interface>,
    /// What a card was connected to (a bridge or network by name), its address in lower case, or `*` → what it is to be.
    pub(crate) mapped: BTreeMap<String, Interface>,
    /// Cards without an address get one that belongs to the domain's name. Otherwise libvirt makes a new one up each time.
    pub(crate) stable_macs: bool,
    pub(crate) disks_bus: Option<String>,
    /// Names of device elements that go, such as `vsock`.
    pub(crate) drop: Vec<String>,
    /// Disk images: from → to.
    pub(crate) files: Vec<(String, String)>,
}

/// What a definition says, of which the step types speak.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) name: String,
    pub(crate) uuid: Option<String>,
    pub(crate) firmware: String,
    /// Images of disks, without CD-ROMs and floppies: path and format.
    pub(crate) disks: Vec<(String, String)>,
    pub(crate) bridges: Vec<String>,
    pub(crate) networks: Vec<String>,
    /// Names of the elements under `devices`.
    pub(crate) devices: Vec<String>,
    pub(crate) has_nvram: bool,
    /// The file that a UEFI keeps its settings in.
    pub(crate) nvram: Option<String>,
}

type Splices = Vec<(Range<usize>, String)>;

fn read(text: &str) -> Result<Document<'_>, String> {
    let document = Document::parse(text).map_err(|e| format!("it is not XML: {e}"))?;
    match document.root_element().tag_name().name() {
        "domain" => Ok(document),
        other => Err(format!("it is a <{other}>, not a <domain>")),
    }
}

fn child<'a, 'd>(node: Node<'a, 'd>, name: &str) -> Option<Node<'a, 'd>> {
    node.children().find(|c| c.has_tag_name(name))
}

fn text(node: Option<Node<'_, '_>>) -> Option<String> {
    node.and_then(|n| n.text()).map(|t| t.trim().to_owned()).filter(|t| !t.is_empty())
}

fn devices<'a, 'd>(root: Node<'a, 'd>) -> impl Iterator<Item = Node<'a, 'd>> {
    child(root, "devices").into_iter().flat_map(|d| d.children().filter(Node::is_element))
}

fn is_hard_disk(disk: &Node<'_, '_>) -> bool {
    disk.has_tag_name("disk") && matches!(disk.attribute("device"), None | Some("disk"))
}

pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' => out.push_str("&apos;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

pub(crate) fn look(document: &str) -> Result<Seen, String> {
    let document = read(document)?;
    let root = document.root_element();
    let os = child(root, "os");
    let efi = os.is_some_and(|os| {
        os.attribute("firmware") == Some("efi")
            || child(os, "loader").is_some_and(|l| l.attribute("type") == Some("pflash"))
    });
    let mut seen = Seen {
        name: text(child(root, "name")).ok_or("it has no <name>")?,
        uuid: text(child(root, "uuid")),
        firmware: if efi { "uefi" } else { "bios" }.to_owned(),
        has_nvram: os.is_some_and(|os| child(os, "nvram").is_some()),
        nvram: os.and_then(|os| text(child(os, "nvram"))),
        ..Seen::default()
    };
    for device in devices(root) {
        let source = child(device, "source");
        let of = |name: &str| source.and_then(|s| s.attribute(name)).map(str::to_owned);
        seen.devices.push(device.tag_name().name().to_owned());
        if is_hard_disk(&device) {
            let format = child(device, "driver").and_then(|d| d.attribute("type")).unwrap_or("raw").to_owned();
            seen.disks.extend(of("file").or_else(|| of("dev")).map(|path| (path, format)));
        }
        if device.has_tag_name("interface") {
            seen.bridges.extend(of("bridge"));
            seen.networks.extend(of("network"));
        }
    }
    Ok(seen)
}

/// Passwords of its displays, one for each.
fn passwords<'a>(root: Node<'a, 'a>) -> Vec<Option<&'a str>> {
    devices(root).filter(|d| d.has_tag_name("graphics")).map(|d| d.attribute("passwd")).collect()
}

pub(crate) fn has_passwords(document: &str) -> bool {
    read(document).is_ok_and(|d| passwords(d.root_element()).iter().any(Option::is_some))
}

/// The document with the display passwords of another one, display by display.
pub(crate) fn with_passwords(document: &str, from: &str) -> Result<String, String> {
    let (to, from) = (read(document)?, read(from)?);
    let mut splices = Splices::new();
    let displays = devices(to.root_element()).filter(|d| d.has_tag_name("graphics"));
    for (display, password) in displays.zip(passwords(from.root_element())) {
        if let Some(password) = password {
            set(display, "passwd", password, &mut splices);
        }
    }
    Ok(apply(document, splices))
}

/// The document with these changes. Applied twice, it is as applied once.
pub(crate) fn edit(original: &str, edits: &Edits) -> Result<String, String> {
    let document = read(original)?;
    let root = document.root_element();
    let mut splices = Splices::new();
    identity(root, edits, &mut splices)?;
    hardware(root, edits, &mut splices)?;
    interfaces(root, edits, &mut splices)?;
    for device in devices(root) {
        let name = device.tag_name().name();
        if edits.drop.iter().any(|d| d == name) {
            splices.push((with_indent(original, device.range()), String::new()));
        } else if is_hard_disk(&device) {
            disk(device, edits, original, &mut splices);
        }
    }
    let changed = apply(original, splices);
    if let Some(bus) = &edits.disks_bus {
        return with_controller(&changed, bus);
    }
    Ok(changed)
}

/// From the end to the beginning, so that ranges stay right.
fn apply(original: &str, mut splices: Splices) -> String {
    splices.sort_by_key(|(range, _)| (range.start, range.end));
    let mut out = original.to_owned();
    for (range, new) in splices.into_iter().rev() {
        out.replace_range(range, &new);
    }
    out
}

/// An element with the blanks before it, so that no empty line stays.
fn with_indent(text: &str, range: Range<usize>) -> Range<usize> {
    let before = &text[..range.start];
    let start = before.trim_end_matches([' ', '\t']).len();
    let start = if before[..start].ends_with('\n') { start - 1 } else { range.start };
    start..range.end
}

/// Sets an attribute where it stands, or puts it in.
fn set(node: Node<'_, '_>, name: &str, value: &str, splices: &mut Splices) {
    if let Some(attribute) = node.attribute_node(name) {
        if attribute.value() != value {
            splices.push((attribute.range_value(), escape(value)));
        }
    } else {
        let at = node.range().start + 1 + node.tag_name().name().len();
        splices.push((at..at, format!(" {name}='{}'", escape(value))));
    }
}

/// Sets the text of a child, or puts the child in as the first.
fn set_child(node: Node<'_, '_>, name: &str, value: &str, splices: &mut Splices) -> Result<(), String> {
    let element = format!("<{name}>{}</{name}>", escape(value));
    match child(node, name) {
        Some(there) if text(Some(there)).as_deref() == Some(value) => {}
        Some(there) => splices.push((there.range(), element)),
        None => insert_first(node, &element, splices)?,
    }
    Ok(())
}

fn insert_first(node: Node<'_, '_>, element: &str, splices: &mut Splices) -> Result<(), String> {
    let first = node.first_element_child().ok_or_else(|| format!("<{}> is empty", node.tag_name().name()))?;
    let at = first.range().start;
    splices.push((at..at, format!("{element}{}", indent_of(first))));
    Ok(())
}

/// The line end and blanks that stand before an element.
fn indent_of(node: Node<'_, '_>) -> String {
    let blank = node.prev_sibling().filter(Node::is_text).and_then(|t| t.text());
    let blank = blank.filter(|t| t.trim().is_empty()).unwrap_or_default();
    blank.rfind('\n').map_or(String::new(), |at| blank[at..].to_owned())
}

fn identity(root: Node<'_, '_>, edits: &Edits, splices: &mut Splices) -> Result<(), String> {
    let name = child(root, "name").ok_or("it has no <name>")?;
    if let Some(new) = &edits.name {
        set_child(root, "name", new, splices)?;
    }
    match (&edits.uuid, child(root, "uuid")) {
        (Some(uuid), None) => {
            let at = name.range().end;
            splices.push((at..at, format!("{}<uuid>{}</uuid>", indent_of(name), escape(uuid))));
        }
        (Some(uuid), Some(_)) => set_child(root, "uuid", uuid, splices)?,
        (None, _) => {}
    }
    Ok(())
}

fn hardware(root: Node<'_, '_>, edits: &Edits, splices: &mut Splices) -> Result<(), String> {
    if let Some(kind) = &edits.domain_type {
        set(root, "type", kind, splices);
        let cpu = child(root, "cpu");
        // Emulated, there is no host CPU to pass on.
        if kind == "qemu"
            && let Some(cpu) = cpu.filter(|c| matches!(c.attribute("mode"), Some("host-passthrough" | "host-model")))
        {
            splices.push((cpu.range(), "<cpu mode='maximum'/>".to_owned()));
        }
    }
    if let Some(kib) = edits.memory_kib {
        for name in ["memory", "currentMemory"] {
            let element = format!("<{name} unit='KiB'>{kib}</{name}>");
            match child(root, name) {
                Some(there) => splices.push((there.range(), element)),
                None if name == "memory" => insert_first(root, &element, splices)?,
                None => {}
            }
        }
    }
    if let Some(count) = edits.vcpus {
        set_child(root, "vcpu", &count.to_string(), splices)?;
        // Sockets times cores must be the number of CPUs.
        if let Some(topology) = child(root, "cpu").and_then(|cpu| child(cpu, "topology")) {
            splices.push((topology.range(), String::new()));
        }
    }
    Ok(())
}

fn interfaces(root: Node<'_, '_>, edits: &Edits, splices: &mut Splices) -> Result<(), String> {
    let wanted = &edits.interfaces;
    let name = edits.name.clone().or_else(|| text(child(root, "name"))).unwrap_or_default();
    let mac = |new: &Interface, n: usize| new.mac.clone().or_else(|| edits.stable_macs.then(|| mac_of(&name, n)));
    let keep = Interface::default();
    let there: Vec<_> = devices(root).filter(|d| d.has_tag_name("interface")).collect();
    if wanted.len() > 1 && wanted.len() < there.len() {
        return Err(format!(
            "it has {} network cards, and {} are given: give one for each, or one for all",
            there.len(),
            wanted.len()
        ));
    }
    for (i, card) in there.iter().enumerate() {
        let new = wanted.get(i).or(wanted.first()).or_else(|| mapped(*card, &edits.mapped)).unwrap_or(&keep);
        let mac = if child(*card, "mac").is_some() { new.mac.clone() } else { mac(new, i) };
        connect(*card, new, mac.as_ref(), splices)?;
    }
    let mut more = String::new();
    for (i, new) in wanted.iter().enumerate().skip(there.len()) {
        more.push_str(&whole(new, mac(new, i).as_deref())?);
    }
    match there.last() {
        _ if more.is_empty() => Ok(()),
        Some(last) => {
            splices.push((last.range().end..last.range().end, more));
            Ok(())
        }
        None => insert_first(child(root, "devices").ok_or("it has no <devices>")?, &more, splices),
    }
}

/// What a card's address or the name of what it is connected to is mapped to.
fn mapped<'m>(card: Node<'_, '_>, all: &'m BTreeMap<String, Interface>) -> Option<&'m Interface> {
    let source = child(card, "source");
    let name = source.and_then(|s| s.attribute("bridge").or_else(|| s.attribute("network")));
    let mac = child(card, "mac").and_then(|m| m.attribute("address")).map(str::to_lowercase);
    mac.and_then(|mac| all.get(&mac)).or_else(|| name.and_then(|name| all.get(name))).or_else(|| all.get("*"))
}

/// `type` and `source` of what a card is to be connected to.
fn connection(new: &Interface) -> Option<(&'static str, String)> {
    let to = |kind: &'static str, name: &String| (kind, format!("<source {kind}='{}'/>", escape(name)));
    new.bridge.as_ref().map(|b| to("bridge", b)).or_else(|| new.network.as_ref().map(|n| to("network", n)))
}

/// A card that is not there yet.
fn whole(new: &Interface, mac: Option<&str>) -> Result<String, String> {
    let (kind, source) = connection(new).ok_or("a network card that is added needs a `bridge` or a `network`")?;
    let mut out = format!("<interface type='{kind}'>{source}");
    if let Some(mac) = mac {
        let _ = write!(out, "<mac address='{}'/>", escape(mac));
    }
    let model = new.model.as_deref().unwrap_or("virtio");
    let _ = write!(out, "<model type='{}'/></interface>", escape(model));
    Ok(out)
}

fn connect(card: Node<'_, '_>, new: &Interface, mac: Option<&String>, splices: &mut Splices) -> Result<(), String> {
    if let Some((kind, source)) = connection(new) {
        set(card, "type", kind, splices);
        match child(card, "source") {
            Some(there) => splices.push((there.range(), source)),
            None => insert_first(card, &source, splices)?,
        }
        // What belonged to the old connection (a port of a switch) is wrong on the new one.
        for name in ["virtualport", "target"] {
            if let Some(old) = child(card, name) {
                splices.push((old.range(), String::new()));
            }
        }
    }
    for (name, attribute, value) in [("mac", "address", mac), ("model", "type", new.model.as_ref())] {
        let Some(value) = value else { continue };
        match child(card, name) {
            Some(there) => set(there, attribute, value, splices),
            None => insert_first(card, &format!("<{name} {attribute}='{}'/>", escape(value)), splices)?,
        }
    }
    Ok(())
}

fn disk(disk: Node<'_, '_>, edits: &Edits, original: &str, splices: &mut Splices) {
    if let Some(source) = child(disk, "source")
        && let Some(file) = source.attribute("file")
        && let Some((_, to)) = edits.files.iter().find(|(from, _)| from == file)
    {
        set(source, "file", to, splices);
    }
    let Some(bus) = &edits.disks_bus else { return };
    let Some(target) = child(disk, "target") else { return };
    if target.attribute("bus") == Some(bus) {
        return;
    }
    set(target, "bus", bus, splices);
    let prefix = match bus.as_str() {
        "virtio" => "vd",
        "ide" => "hd",
        _ => "sd",
    };
    if let Some(letters) = target.attribute("dev").and_then(|d| d.get(2..)) {
        set(target, "dev", &format!("{prefix}{letters}"), splices);
    }
    // The place on the old bus.
    if let Some(address) = child(disk, "address") {
        splices.push((with_indent(original, address.range()), String::new()));
    }
}

/// Disks on `scsi` want a controller that the guest has a driver for.
fn with_controller(document: &str, bus: &str) -> Result<String, String> {
    let parsed = read(document)?;
    let root = parsed.root_element();
    let is_scsi = |d: &Node<'_, '_>| d.has_tag_name("controller") && d.attribute("type") == Some("scsi");
    if bus != "scsi" || devices(root).any(|d| is_scsi(&d)) {
        return Ok(document.to_owned());
    }
    let mut splices = Splices::new();
    let all = child(root, "devices").ok_or("it has no <devices>")?;
    insert_first(all, "<controller type='scsi' model='virtio-scsi'/>", &mut splices)?;
    Ok(apply(document, splices))
}

/// A UUID that belongs to a name: the same each time, so that defining twice is defining once.
pub(crate) fn uuid_of(name: &str) -> String {
    let hex = crate::file::sha256_hex(format!("runback domain {name}").as_bytes());
    // Version 8 (made by a rule of one's own), variant 1.
    let variant = match hex.as_bytes()[16] {
        b'0' | b'4' | b'8' | b'c' => '8',
        b'1' | b'5' | b'9' | b'd' => '9',
        b'2' | b'6' | b'a' | b'e' => 'a',
        _ => 'b',
    };
    format!("{}-{}-8{}-{variant}{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32])
}

/// The address of a domain's n-th network card, from QEMU's own range.
fn mac_of(name: &str, n: usize) -> String {
    let hex = crate::file::sha256_hex(format!("runback card {n} of {name}").as_bytes());
    format!("52:54:00:{}:{}:{}", &hex[..2], &hex[2..4], &hex[4..6])
}

#[cfg(test)]
#[path = "xml_tests.rs"]
mod tests;
