//! Domains under QEMU (emulated), with empty disks: what libvirt's test driver does not do as QEMU does.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::convert::names;
use crate::lab::Lab;

impl Lab {
    /// An empty image of 64 MiB.
    fn image(&self, name: &str) -> String {
        let path = self.text(name);
        let made = Command::new("qemu-img").args(["create", "-q", "-f", "qcow2", &path, "64M"]).status().unwrap();
        assert!(made.success());
        path
    }
}

fn machine(name: &str, disks: &[&str], more: &str) -> String {
    let disk = |(path, dev): (&&str, &str)| {
        format!(
            "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{path}'/>\
             <target dev='{dev}' bus='virtio'/></disk>"
        )
    };
    let disks = disks.iter().zip(["vda", "vdb"]).map(disk).collect::<Vec<_>>().concat();
    format!(
        "<domain type='qemu'><name>{name}</name><memory unit='MiB'>64</memory><os><type>hvm</type></os>\
         <features><acpi/></features><devices>{disks}{more}</devices></domain>"
    )
}

fn one(uses: &str, with: &Value) -> Value {
    json!([{"id": "it", "uses": uses, "with": with}])
}

/// Trap: `virsh shutdown` says yes although the guest does nothing.
#[test]
fn a_guest_that_ignores_its_power_button() {
    let Some(lab) = Lab::real() else { return };
    lab.define(&machine("deaf", &[], ""));
    lab.virsh(&["start", "deaf"]);
    let ran = lab.run("wait", &one("virt.shutdown", &json!({"domain": "deaf", "wait": "2s"}))).failed();
    assert!(ran.error("it").contains("deaf still runs 2s after it was asked to shut down"), "{}", ran.error("it"));
    assert_eq!((ran.step("it")["error"]["class"].as_str(), lab.state("deaf")), (Some("timeout"), "running".to_owned()));

    lab.run("force", &one("virt.shutdown", &json!({"domain": "deaf", "force_after": "1s"}))).ok();
    assert_eq!(lab.state("deaf"), "shut off");
    lab.rollback("force").ok();
    assert_eq!(lab.state("deaf"), "running");
}

/// Trap: `virsh undefine --remove-all-storage` passes over files that no pool knows.
#[test]
fn disks_go_with_their_domain_when_told() {
    let Some(lab) = Lab::real() else { return };
    // In the pool's folder, and unknown to it until it is refreshed; and outside of every pool.
    let (inside, outside) = (lab.image("images/inside.qcow2"), lab.image("work/outside.qcow2"));
    lab.define(&machine("web", &[&inside, &outside], ""));
    let with = json!({"domain": "web", "storage": "remove"});
    let plan = lab.plan("plan", &one("virt.undefine", &with));
    assert!(plan.contains(&format!("remove {outside}")) && plan.contains("✗"), "{plan}");
    let ran = lab.run("remove", &one("virt.undefine", &with)).ok();
    assert_eq!(ran.outputs("it")["removed"], json!([inside, outside]));
    assert!(!Path::new(&inside).exists() && !Path::new(&outside).exists());
    assert_eq!(lab.state("web"), "gone");
}

/// Trap: a managed save image keeps libvirt from undefining a domain.
#[test]
fn a_managed_save_image_is_lost_only_when_told() {
    let Some(lab) = Lab::real() else { return };
    let disk = lab.image("images/web.qcow2");
    lab.define(&machine("web", &[&disk], ""));
    lab.virsh(&["start", "web"]);
    lab.virsh(&["managedsave", "web"]);
    let ran = lab.run("keep", &one("virt.undefine", &json!({"domain": "web"}))).failed();
    assert!(ran.error("it").contains("a managed save image"), "{}", ran.error("it"));
    assert_eq!(lab.info("web", "Managed save"), "yes");
    lab.run("lose", &one("virt.undefine", &json!({"domain": "web", "lose": true}))).ok();
    assert_eq!(lab.state("web"), "gone");
    lab.rollback("lose").ok();
    assert_eq!(lab.state("web"), "shut off");
}

/// Trap: an NVRAM file keeps libvirt from undefining a domain. It holds what the guest's UEFI boots.
#[test]
fn an_nvram_file_is_lost_only_when_told() {
    let Some(lab) = Lab::real() else { return };
    let (code, nvram) = (lab.text("work/CODE.fd"), lab.text("work/web_VARS.fd"));
    std::fs::write(&code, "").unwrap();
    let uefi = format!(
        "<os><type machine='q35'>hvm</type><loader readonly='yes' type='pflash'>{code}</loader><nvram>{nvram}</nvram></os>"
    );
    let xml = machine("web", &[], "").replace("<os><type>hvm</type></os>", &uefi);
    lab.define(&xml);
    std::fs::write(&nvram, "boot entries").unwrap();
    let forget = |lose: bool| one("virt.undefine", &json!({"domain": "web", "lose": lose}));
    let plan = lab.plan("plan", &forget(false));
    assert!(plan.contains("would refuse: web stays defined: it has an NVRAM file"), "{plan}");
    let ran = lab.run("keep", &forget(false)).failed();
    assert!(ran.error("it").contains(&format!("an NVRAM file ({nvram})")), "{}", ran.error("it"));
    assert!(Path::new(&nvram).exists());
    lab.run("lose", &forget(true)).ok();
    assert_eq!((lab.state("web").as_str(), Path::new(&nvram).exists()), ("gone", false));

    // One that came with the first start of what a step has defined goes with its undo.
    lab.run("define", &one("virt.define", &json!({"xml": xml}))).ok();
    std::fs::write(&nvram, "boot entries").unwrap();
    lab.rollback("define").ok();
    assert_eq!((lab.state("web").as_str(), Path::new(&nvram).exists()), ("gone", false));
}

/// Trap: a vsock in a definition keeps the domain from starting on a host without vhost-vsock.
#[test]
fn what_the_host_lacks_is_dropped_or_named() {
    let Some(lab) = Lab::real() else { return };
    let lan = "<interface type='bridge'><source bridge='br0'/><model type='virtio'/></interface>";
    if Path::new("/dev/vhost-vsock").exists() {
        let xml = machine("web", &[], "<vsock model='virtio'/>");
        lab.run("has-one", &one("virt.define", &json!({"xml": xml}))).ok();
        assert!(lab.virsh(&["dumpxml", "web"]).contains("vsock"), "it stays where the host has one");
        lab.rollback("has-one").ok();
    } else {
        let xml = machine("web", &[], &format!("{lan}<vsock model='virtio'/>"));
        let steps = json!([
            {"id": "define", "uses": "virt.define", "with": {"xml": xml}},
            {"id": "start", "uses": "virt.start", "with": {"domain": "web", "undo_grace": "0s"}},
        ]);
        lab.run("dropped", &steps).ok();
        assert!(!lab.virsh(&["dumpxml", "web"]).contains("vsock"));
        assert_eq!(lab.state("web"), "running");
        lab.rollback("dropped").ok();
        let mut kept = steps;
        kept[0]["with"]["keep_vsock"] = json!(true);
        let ran = lab.run("kept", &kept).failed();
        assert!(ran.error("start").contains("has a vsock device, and the host has none"), "{}", ran.error("start"));
        assert_eq!(lab.state("web"), "gone");
    }
    let nowhere = json!({"xml": machine("web", &[], lan), "interfaces": [{"bridge": "br9"}]});
    let steps = json!([
        {"id": "define", "uses": "virt.define", "with": nowhere},
        {"id": "start", "uses": "virt.start", "with": {"domain": "web"}},
    ]);
    let ran = lab.run("bridge", &steps).failed();
    assert!(ran.error("start").contains("the bridge of an interface is not there"), "{}", ran.error("start"));
    // /dev/kvm is hidden from this libvirtd.
    let ran = lab.run("kvm", &one("virt.define", &json!({"xml": machine("web", &[], ""), "type": "kvm"}))).failed();
    assert!(ran.error("it").contains("KVM does not work on this host"), "{}", ran.error("it"));
    assert_eq!(lab.state("web"), "gone");
}

/// A display's password outlives a change and its undo, and is in no byte that runback writes.
#[test]
fn a_change_in_place_keeps_the_password() {
    let Some(lab) = Lab::real() else { return };
    lab.define(&machine("web", &[], "<graphics type='vnc' autoport='yes' passwd='s3cr3t'/>"));
    let password = || lab.virsh(&["dumpxml", "web", "--inactive", "--security-info"]).contains("passwd='s3cr3t'");
    let steps = one("virt.define", &json!({"name": "web", "memory_mib": 96, "vcpus": 2}));
    lab.plan("plan", &steps);
    lab.run("resize", &steps).ok();
    assert_eq!((lab.info("web", "Max memory"), lab.info("web", "CPU(s)")), ("98304 KiB".into(), "2".into()));
    assert!(password());
    lab.rollback("resize").ok();
    assert_eq!((lab.info("web", "Max memory"), lab.info("web", "CPU(s)")), ("65536 KiB".into(), "1".into()));
    assert!(password());
    let found = Command::new("grep").args(["-rl", "s3cr3t"]).arg(lab.path("state")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
}

#[test]
fn snapshots_are_taken_reverted_and_deleted() {
    let Some(lab) = Lab::real() else { return };
    let disk = lab.image("images/web.qcow2");
    lab.define(&machine("web", &[&disk], ""));
    let snap = |action: &str| one("virt.snapshot", &json!({"domain": "web", "snapshot": "s", "action": action}));
    let list = || lab.virsh(&["snapshot-list", "web", "--name"]).trim().to_owned();
    lab.run("create", &snap("create")).ok();
    assert_eq!(list(), "s");
    let ran = lab.run("again", &snap("create")).failed();
    assert!(ran.error("it").contains("has a snapshot s already"), "{}", ran.error("it"));
    lab.run("revert", &snap("revert")).ok();
    lab.rollback("create").ok();
    assert_eq!(list(), "");
    let ran = lab.run("none", &snap("revert")).failed();
    assert!(ran.error("it").contains("web has no snapshot s"), "{}", ran.error("it"));
    let ran = lab.run("delete", &snap("delete")).ok();
    assert_eq!(ran.step("it")["changed"], false);
}

#[test]
fn networks_and_pools_come_and_go() {
    let Some(lab) = Lab::real() else { return };
    let path = lab.text("deep/er/pool");
    let steps = json!([
        {"id": "net", "uses": "virt.net", "with": {"network": "lan", "bridge": "br0"}},
        {"id": "pool", "uses": "virt.pool", "with": {"pool": "fast", "path": path}},
    ]);
    let ran = lab.run("make", &steps).ok();
    assert_eq!(
        (ran.outputs("net")["bridge"].as_str(), ran.outputs("pool")["path"].as_str()),
        (Some("br0"), Some(path.as_str()))
    );
    assert!(lab.virsh(&["net-info", "lan"]).contains("Active:         yes"));
    let again = lab.run("again", &steps).ok();
    assert_eq!((&again.step("net")["changed"], &again.step("pool")["changed"]), (&json!(false), &json!(false)));
    lab.rollback("again").ok();
    assert!(lab.virsh(&["pool-list", "--name"]).contains("fast"));

    // Others may be on it: it is not redefined.
    let ran = lab.run("other", &one("virt.net", &json!({"network": "lan", "bridge": "br1"}))).failed();
    assert!(ran.error("it").contains("network lan is on bridge br0, not br1"), "{}", ran.error("it"));
    let ran = lab.run("elsewhere", &one("virt.pool", &json!({"pool": "images", "path": path}))).failed();
    assert!(ran.error("it").contains("pool images is"), "{}", ran.error("it"));

    // What came into the pool by another way is known after a refresh.
    lab.image("deep/er/pool/a.qcow2");
    let ran = lab.run("refresh", &one("virt.pool", &json!({"pool": "fast"}))).ok();
    assert_eq!(ran.outputs("it")["volumes"], json!(["a.qcow2"]));
    std::fs::remove_file(lab.path("deep/er/pool/a.qcow2")).unwrap();
    lab.rollback("make").ok();
    assert!(!lab.virsh(&["net-list", "--all", "--name"]).contains("lan"));
    assert!(!lab.path("deep").exists());
}

#[test]
fn a_host_is_looked_at() {
    let Some(lab) = Lab::real() else { return };
    let path = lab.text("images");
    let ran = lab.run("look", &one("virt.host_check", &json!({"require": ["libvirtd"], "path": path}))).ok();
    let seen = ran.outputs("it").clone();
    assert!(seen["libvirt"].as_str().is_some_and(|v| v.contains("libvirt") || v.contains("QEMU")), "{seen}");
    assert!(seen["free"].as_u64().is_some_and(|free| free > 0));
    let needs_kvm = lab.run("kvm", &one("virt.host_check", &json!({"require": ["kvm"], "path": path})));
    assert_eq!(needs_kvm.code == Some(0), seen["kvm"] == true, "{}", needs_kvm.printed);
    if seen["kvm"] == false {
        assert!(needs_kvm.error("it").contains("KVM does not work"), "{}", needs_kvm.error("it"));
    }
    let gone = json!({"uri": "qemu+unix:///system?socket=/nowhere", "path": path, "free_gib": 99_999_999});
    let ran = lab.run("gone", &one("virt.host_check", &gone)).failed();
    let error = ran.error("it");
    assert!(error.contains("libvirtd does not answer") && error.contains("99999999 GiB are wanted"), "{error}");
}

#[test]
fn a_machine_is_installed_and_taken_back() {
    let Some(lab) = Lab::real() else { return };
    let real = "#!/bin/sh\necho \"$@\" >$LAB/words\nPATH=${PATH#*:}\nexec virt-install \"$@\"\n";
    lab.program("virt-install", real);
    let iso = lab.text("debian.iso");
    std::fs::write(&iso, [0; 2048]).unwrap();
    let with = json!({"name": "new", "memory_mib": 64, "vcpus": 1, "disk_gib": 1, "pool": "images",
        "cdrom": iso, "bridge": "br0"});
    let before = names(&lab.path("images"));
    let ran = lab.run("install", &one("virt.install", &with)).ok();
    assert_eq!((ran.outputs("it")["state"].as_str(), lab.state("new")), (Some("running"), "running".to_owned()));
    assert_eq!(ran.outputs("it")["disks"], json!([lab.text("images/new.qcow2")]));
    let xml = lab.virsh(&["dumpxml", "new"]);
    assert!(xml.contains("<source bridge='br0'/>") && xml.contains(&format!("<source file='{iso}'")), "{xml}");
    let ran = lab.run("twice", &one("virt.install", &with)).failed();
    assert!(ran.error("it").contains("there is a domain new already"), "{}", ran.error("it"));
    lab.rollback("install").ok();
    assert_eq!((lab.state("new"), names(&lab.path("images"))), ("gone".to_owned(), before.clone()));

    // An image that is there already is the disk, and stays.
    let image = lab.image("images/ready,made.qcow2");
    let import = json!({"name": "new", "memory_mib": 64, "vcpus": 1, "import": image, "network": "default"});
    let ran = lab.run("import", &one("virt.install", &import)).ok();
    assert_eq!(ran.outputs("it")["disks"], json!([image]));
    lab.rollback("import").ok();
    assert_eq!((lab.state("new").as_str(), Path::new(&image).exists()), ("gone", true));
    std::fs::remove_file(image).unwrap();

    // Its disk is made before it dies.
    let virsh = format!("virsh -q -c '{}'", lab.uri);
    let dies = format!(
        "#!/bin/sh\n{virsh} vol-create-as images new.qcow2 1G --format qcow2\necho 'ERROR    no answer' >&2\nexit 1\n"
    );
    lab.program("virt-install", &dies);
    let ran = lab.run("broken", &one("virt.install", &with)).failed();
    assert!(ran.error("it").contains("no answer"), "{}", ran.error("it"));
    assert_eq!(names(&lab.path("images")), before);

    // Somebody else makes one of that name meanwhile: it is theirs.
    std::fs::write(lab.path("theirs.xml"), machine("new", &[], "")).unwrap();
    lab.program(
        "virt-install",
        &format!("#!/bin/sh\n{virsh} define $LAB/theirs.xml\necho 'ERROR    in use' >&2\nexit 1\n"),
    );
    let ran = lab.run("race", &one("virt.install", &with));
    assert_eq!(ran.code, Some(4), "{}", ran.printed);
    assert!(ran.printed.contains("another domain has that name now"), "{}", ran.printed);
    assert_eq!(lab.state("new"), "shut off");
}

/// Without a lease and an agent, by the host's table of neighbours; and then the port there. libvirt 9.0 cannot read that
/// table on newer kernels ("wrong nlmsg len"), so it is told here what the guest's address is.
#[test]
fn a_port_is_waited_for_at_the_address_that_is_found() {
    let Some(lab) = Lab::real() else { return };
    let card = "<interface type='bridge'><source bridge='br0'/><model type='virtio'/></interface>";
    lab.define(&machine("web", &[], card));
    lab.virsh(&["start", "web"]);
    let wait = |more: Value| {
        let mut with = json!({"domain": "web", "port": 8080, "within": "10s"});
        more.as_object().unwrap().iter().for_each(|(key, value)| with[key] = value.clone());
        one("virt.wait", &with)
    };
    let ran = lab.run("agent", &wait(json!({"source": "agent"}))).failed();
    let error = ran.error("it");
    assert!(error.contains("it has no address (agent: ") && error.contains("guest agent is not configured"), "{error}");
    lab.program(
        "virsh",
        "#!/bin/sh\nPATH=${PATH#*:}\ncase \" $* \" in *\" --source arp \"*) echo ' vnet0 52:54:00:00:00:01 ipv4 192.168.77.1/0';;\n\
         *) exec virsh \"$@\";; esac\n",
    );
    let ran = lab.run("closed", &wait(json!({}))).failed();
    assert!(ran.error("it").contains("port 8080 of 192.168.77.1 does not answer"), "{}", ran.error("it"));
    let mut guest = lab.inside("busybox").args(["httpd", "-f", "-p", "192.168.77.1:8080"]).spawn().unwrap();
    let ran = lab.run("open", &wait(json!({"within": "3m"})));
    guest.kill().unwrap();
    guest.wait().unwrap();
    assert_eq!(ran.ok().outputs("it")["address"], "192.168.77.1");
}

#[test]
fn the_playbook_for_maintenance_resizes_and_takes_back() {
    let Some(lab) = Lab::real() else { return };
    let disk = lab.image("images/web.qcow2");
    lab.define(&machine("web", &[&disk], ""));
    lab.virsh(&["start", "web"]);
    let playbook = concat!(env!("CARGO_MANIFEST_DIR"), "/playbooks/vm-lifecycle.yaml");
    let uri = format!("uri={}", lab.uri);
    let words = |run: &'static str, more: &[&'static str]| {
        let own = ["run", playbook, "--run-id", run, "--output", "lines", "-i", "vm=web", "-i", "memory_mib=96"];
        let mut all: Vec<String> = own.map(str::to_owned).to_vec();
        let rest = ["-i", "vcpus=2", "-i", "stop_within=1s", "-i", uri.as_str()];
        all.extend(rest.iter().chain(more).map(|w| (*w).to_owned()));
        all
    };
    let run = |name: &'static str, more: &[&'static str]| {
        let all = words(name, more);
        lab.ended(name, &all.iter().map(String::as_str).collect::<Vec<_>>())
    };
    run("resize", &[]).ok();
    assert_eq!((lab.state("web"), lab.info("web", "Max memory")), ("running".into(), "98304 KiB".into()));
    assert_eq!(lab.virsh(&["snapshot-list", "web", "--name"]).trim(), "");
}
