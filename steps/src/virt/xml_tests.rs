//! Edits on what virt-v2v 2.2.0 really writes.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

const V2V: &str = include_str!("recorded/v2v.xml");

/// The lines that are other than in the original: `-` gone, `+` new.
fn changed(edits: &Edits) -> Vec<String> {
    let new = edit(V2V, edits).unwrap();
    assert_eq!(edit(&new, edits).unwrap(), new, "applied twice is applied once");
    let (old, new): (Vec<_>, Vec<_>) = (V2V.lines().collect(), new.lines().collect());
    let gone = old.iter().filter(|l| !new.contains(l)).map(|l| format!("-{}", l.trim()));
    gone.chain(new.iter().filter(|l| !old.contains(l)).map(|l| format!("+{}", l.trim()))).collect()
}

#[test]
fn no_edit_changes_no_byte() {
    assert_eq!(edit(V2V, &Edits::default()).unwrap(), V2V);
}

/// Trap: virt-v2v writes no UUID, so a second define would meet "already exists with uuid".
#[test]
fn a_stable_uuid_is_put_in() {
    let edits = Edits { uuid: Some(uuid_of("web1")), ..Edits::default() };
    assert_eq!(changed(&edits), [format!("+<uuid>{}</uuid>", uuid_of("web1"))]);
    assert_eq!(uuid_of("web1"), uuid_of("web1"));
    assert_ne!(uuid_of("web1"), uuid_of("web2"));
    let uuid = uuid_of("web1");
    assert_eq!((uuid.len(), &uuid[14..15]), (36, "8"), "{uuid}");
    assert!("89ab".contains(&uuid[19..20]), "{uuid}");
}

/// Trap: virt-v2v adds a vsock, and the start fails on a host without vhost-vsock.
#[test]
fn a_device_is_dropped_without_a_hole() {
    let edits = Edits { drop: vec!["vsock".into()], ..Edits::default() };
    assert_eq!(changed(&edits), ["-<vsock model='virtio'/>"]);
    assert!(!edit(V2V, &edits).unwrap().contains("\n\n"));
}

#[test]
fn cards_are_connected() {
    let one = |i: Interface| Edits { interfaces: vec![i], ..Edits::default() };
    let bridge = Interface { bridge: Some("br1".into()), model: Some("e1000e".into()), ..Interface::default() };
    assert_eq!(
        changed(&one(bridge)),
        ["-<source bridge='br0'/>", "-<model type='virtio'/>", "+<source bridge='br1'/>", "+<model type='e1000e'/>"]
    );
    let network =
        Interface { network: Some("a&b".into()), mac: Some("52:54:00:00:00:01".into()), ..Interface::default() };
    assert_eq!(
        changed(&one(network)),
        [
            "-<interface type='bridge'>",
            "-<source bridge='br0'/>",
            "+<interface type='network'>",
            "+<mac address='52:54:00:00:00:01'/>",
            "+<source network='a&amp;b'/>"
        ]
    );
}

/// A card without an address would get another one with each define, and the guest a new network card.
#[test]
fn an_address_belongs_to_the_name() {
    let edits = Edits { stable_macs: true, ..Edits::default() };
    assert_eq!(changed(&edits), [format!("+<mac address='{}'/>", mac_of("web1", 0))]);
    assert_ne!(mac_of("web1", 0), mac_of("web1", 1));
    let own = Interface { mac: Some("52:54:00:00:00:01".into()), ..Interface::default() };
    let given = edit(V2V, &Edits { interfaces: vec![own], ..edits.clone() }).unwrap();
    assert_eq!(edit(&given, &edits).unwrap(), given, "one that is there stays");
}

#[test]
fn cards_are_added_and_counted() {
    let bridge = |name: &str| Interface { bridge: Some(name.into()), ..Interface::default() };
    let two = Edits { interfaces: vec![bridge("br0"), bridge("br1")], ..Edits::default() };
    let grown = edit(V2V, &two).unwrap();
    assert_eq!(look(&grown).unwrap().bridges, ["br0", "br1"]);
    assert_eq!(edit(&grown, &two).unwrap(), grown);
    let three =
        edit(&grown, &Edits { interfaces: vec![bridge("br0"), bridge("br1"), bridge("br2")], ..Edits::default() });
    let three = three.unwrap();
    let error = edit(&three, &two).unwrap_err();
    assert!(error.contains("3 network cards, and 2 are given"), "{error}");
    let all = edit(&three, &Edits { interfaces: vec![bridge("br9")], ..Edits::default() }).unwrap();
    assert_eq!(look(&all).unwrap().bridges, ["br9", "br9", "br9"]);
    let error = edit(V2V, &Edits { interfaces: vec![bridge("br0"), Interface::default()], ..Edits::default() });
    assert!(error.unwrap_err().contains("needs a `bridge`"));
}

#[test]
fn hardware_is_set() {
    let edits = Edits {
        name: Some("web9".into()),
        domain_type: Some("qemu".into()),
        memory_kib: Some(524_288),
        vcpus: Some(2),
        ..Edits::default()
    };
    assert_eq!(
        changed(&edits),
        [
            "-<domain type='kvm'>",
            "-<name>web1</name>",
            "-<memory unit='KiB'>262144</memory>",
            "-<currentMemory unit='KiB'>262144</currentMemory>",
            "-<vcpu>1</vcpu>",
            "+<domain type='qemu'>",
            "+<name>web9</name>",
            "+<memory unit='KiB'>524288</memory>",
            "+<currentMemory unit='KiB'>524288</currentMemory>",
            "+<vcpu>2</vcpu>"
        ]
    );
    // A host's CPU cannot be passed on by an emulator, and its cores must fit the number of CPUs.
    let host =
        V2V.replace("<features>", "<cpu mode='host-passthrough'><topology sockets='1' cores='4'/></cpu><features>");
    let many = edit(&host, &Edits { vcpus: Some(8), ..Edits::default() }).unwrap();
    assert!(!many.contains("topology") && many.contains("host-passthrough"));
    let emulated = edit(&host, &Edits { domain_type: Some("qemu".into()), ..Edits::default() }).unwrap();
    assert!(emulated.contains("<cpu mode='maximum'/>"), "{emulated}");
}

#[test]
fn disks_move_to_another_bus() {
    let edits = Edits { disks_bus: Some("scsi".into()), ..Edits::default() };
    let moved = edit(V2V, &edits).unwrap();
    assert!(moved.contains("<target dev='sda' bus='scsi'/>"), "{moved}");
    assert_eq!(moved.matches("virtio-scsi").count(), 1);
    assert_eq!(edit(&moved, &edits).unwrap(), moved);
    let back = edit(&moved, &Edits { disks_bus: Some("virtio".into()), ..Edits::default() }).unwrap();
    assert!(back.contains("<target dev='vda' bus='virtio'/>"));
}

#[test]
fn images_are_renamed() {
    let edits = Edits { files: vec![("/var/lib/images/web1-sda".into(), "/new/web1-sda".into())], ..Edits::default() };
    assert_eq!(changed(&edits), ["-<source file='/var/lib/images/web1-sda'/>", "+<source file='/new/web1-sda'/>"]);
}

#[test]
fn what_a_definition_says() {
    let seen = look(V2V).unwrap();
    assert_eq!((seen.name.as_str(), seen.uuid.as_deref(), seen.firmware.as_str()), ("web1", None, "bios"));
    assert_eq!(seen.disks, [("/var/lib/images/web1-sda".to_owned(), "qcow2".to_owned())]);
    assert_eq!(seen.bridges, ["br0"]);
    assert!(seen.devices.iter().any(|d| d == "vsock") && !seen.has_nvram);
    assert!(look("<network/>").unwrap_err().contains("not a <domain>"));
    assert!(look("web1").unwrap_err().contains("not XML"));
}

/// Trap: the cards of an OVA are of type bridge, so that virt-v2v's --network does nothing to them, and those of a .vmx
/// the other way round. By name, both are found.
#[test]
fn cards_are_mapped_by_name_whatever_their_type() {
    let to = |network: &str| Interface { network: Some(network.into()), ..Interface::default() };
    let mapped =
        BTreeMap::from([("VM Network".to_owned(), to("default")), ("00:0c:29:aa:bb:cc".to_owned(), to("dmz"))]);
    let edits = Edits { mapped, ..Edits::default() };
    let ova = V2V.replace("bridge='br0'", "bridge='VM Network'");
    assert_eq!(look(&edit(&ova, &edits).unwrap()).unwrap().networks, ["default"]);
    let vmx = ova.replace("type='bridge'", "type='network'").replace("<source bridge", "<source network");
    assert_eq!(look(&edit(&vmx, &edits).unwrap()).unwrap().networks, ["default"]);
    let mac = ova.replace("<source bridge", "<mac address='00:0C:29:AA:BB:CC'/><source bridge");
    assert_eq!(look(&edit(&mac, &edits).unwrap()).unwrap().networks, ["dmz"]);
    assert_eq!(edit(V2V, &edits).unwrap(), V2V, "another name stays");
}

/// A captured definition has no passwords in it; going back to it must not lose them.
#[test]
fn passwords_are_carried_over() {
    let secret = V2V.replace("<graphics type='vnc'", "<graphics type='vnc' passwd='s3cret&amp;'");
    assert!(has_passwords(&secret) && !has_passwords(V2V));
    let back = with_passwords(V2V, &secret).unwrap();
    assert_eq!(back.matches("passwd='s3cret&amp;'").count(), 1, "{back}");
    assert_eq!(with_passwords(V2V, V2V).unwrap(), V2V);
}
