//! A real conversion of a real (tiny) VMware guest, booted under libvirt, with the playbook that ships. Slow: each
//! conversion takes minutes where KVM does not work.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::convert::names;
use crate::lab::{Lab, script, until};

/// For one conversion on a machine that has other work.
const MINUTES: u64 = 20;

impl Lab {
    /// A guest as ESXi would export it, with so many MiB of data in it.
    fn guest(&self, name: &str, fill_mb: u32) -> String {
        let mut make = Command::new(script("make-ova"));
        let output = make.arg(self.path("work")).arg(name).env("OVA_FILL_MB", fill_mb.to_string()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        self.text(&format!("work/{name}.ova"))
    }

    /// `run` of the playbook that ships.
    fn shipped(&self, run: &str, ova: &str, more: &[&str]) -> Vec<String> {
        let playbook = concat!(env!("CARGO_MANIFEST_DIR"), "/playbooks/esxi-to-kvm.yaml");
        let inputs = [
            format!("ova={ova}"),
            "vm=web1".to_owned(),
            "address=192.168.77.10".to_owned(),
            "port=8080".to_owned(),
            "domain_type=qemu".to_owned(),
            "libguestfs_settings=force_tcg".to_owned(),
            format!("uri={}", self.uri),
            format!("tmp={}", self.text("tmp")),
        ];
        let mut words: Vec<String> =
            ["run", playbook, "--run-id", run, "--output", "lines"].map(str::to_owned).to_vec();
        for input in inputs.into_iter().chain(more.iter().map(|m| (*m).to_owned())) {
            words.extend(["-i".to_owned(), input]);
        }
        words
    }

    /// Everything that a move may leave: images, temporary files, domains, volumes.
    fn everything(&self) -> (Vec<String>, Vec<String>, String, String) {
        self.virsh(&["pool-refresh", "images"]);
        let (domains, volumes) = (self.virsh(&["list", "--all", "--name"]), self.virsh(&["vol-list", "images"]));
        (names(&self.path("images")), names(&self.path("tmp")), domains, volumes)
    }
}

fn words(all: &[String]) -> Vec<&str> {
    all.iter().map(String::as_str).collect()
}

/// Whether virt-v2v copies a disk into the pool's folder.
fn copying(lab: &Lab) -> bool {
    std::fs::read_dir(lab.path("images")).unwrap().flatten().any(|entry| {
        let disk = entry.path().join("web1-sda");
        disk.metadata().is_ok_and(|m| m.len() > 1 << 20)
    })
}

/// The whole of it: converted, booted, seen, marked for autostart; and all of it taken back. runback is killed with -9 in
/// the middle of the copy, which goes on, and is found again.
#[test]
fn a_guest_moves_to_kvm_and_back() {
    let Some(lab) = Lab::real() else { return };
    let ova = lab.guest("web1", 600);
    let before = lab.everything();
    let shipped = lab.shipped("move", &ova, &[]);
    let mut plan = vec!["plan"];
    plan.extend(words(&shipped).into_iter().skip(1).filter(|w| !["--run-id", "move", "--output", "lines"].contains(w)));
    let plan = lab.runback(&plan).output().unwrap();
    let plan = String::from_utf8_lossy(&plan.stdout).into_owned();
    assert!(plan.contains("convert web1 (1 disk, 856 MiB)"), "{plan}");
    assert_eq!(lab.everything(), before, "a plan changes nothing");

    let mut running = lab.spawn(&words(&shipped));
    until("the copy runs", MINUTES * 60, || copying(&lab) || running.try_wait().unwrap().is_some());
    lab.kill(&mut running);
    let log = std::fs::read_to_string(lab.path("spawned.log")).unwrap();
    assert!(!lab.marked().is_empty(), "the conversion goes on: {log}");
    let ran = lab.ended("move", &["resume", "move", "--output", "lines"]).ok();
    assert!(ran.printed.contains("copying disk 1/1: 100%"), "progress is shown again: {}", ran.printed);
    let logs = lab.runback(&["logs", "move", "convert"]).output().unwrap();
    let logs = String::from_utf8_lossy(&logs.stdout).into_owned();
    assert_eq!(logs.matches("] Converting ").count(), 1, "converted once: {logs}");
    assert_eq!(ran.step("convert")["attempts"], 1, "converted once");

    assert_eq!(lab.state("web1"), "running");
    assert_eq!(lab.info("web1", "Autostart"), "enable");
    assert_eq!(ran.outputs("convert")["disks"][0]["virtual_size"], 897_581_056);
    let xml = lab.virsh(&["dumpxml", "web1"]);
    assert!(xml.contains("bridge='br0'") && !xml.contains("VM Network"), "{xml}");
    // It is the guest itself that answers, from its converted disk.
    let mut ask = Command::new("nsenter");
    let pid = std::fs::read_to_string(lab.path("libvirtd.pid")).unwrap();
    ask.arg(format!("--net=/proc/{}/ns/net", pid.trim())).args(["busybox", "wget", "-q", "-O", "-"]);
    let page = ask.arg("http://192.168.77.10:8080/").output().unwrap();
    let page = String::from_utf8_lossy(&page.stdout).into_owned();
    assert!(page.contains("GUEST-READY name=web1 disk=/dev/vda1") && page.contains("nic=virtio_net"), "{page}");

    lab.rollback("move").ok();
    assert_eq!(lab.everything(), before, "no domain, no volume, no temporary file");
}

#[test]
fn a_real_copy_ends_when_told() {
    let Some(lab) = Lab::real() else { return };
    let ova = lab.guest("web1", 600);
    let before = lab.everything();
    let mut running = lab.spawn(&words(&lab.shipped("cancelled", &ova, &[])));
    until("the copy runs", MINUTES * 60, || copying(&lab) || running.try_wait().unwrap().is_some());
    let began = Instant::now();
    assert!(lab.runback(&["cancel", "cancelled"]).output().unwrap().status.success());
    running.wait().unwrap();
    assert!(began.elapsed() < Duration::from_secs(120), "{:?}", began.elapsed());
    assert!(lab.marked().is_empty(), "{:?}", lab.marked());
    assert_eq!(lab.everything(), before);
}

/// The space was there when it was looked at, and is taken by somebody else while the copy runs.
#[test]
fn a_real_target_runs_full() {
    let Some(lab) = Lab::real() else { return };
    let ova = lab.guest("web1", 300);
    let small = lab.mount("small", "700m");
    lab.virsh(&["pool-define-as", "small", "dir", "--target", &small.path]);
    lab.virsh(&["pool-start", "small"]);
    let mut running = lab.spawn(&words(&lab.shipped("full", &ova, &["pool=small"])));
    let staged = || names(Path::new(&small.path)).iter().any(|n| n.contains("runback"));
    until("the conversion runs", 120, || staged() || running.try_wait().unwrap().is_some());
    let filler = Path::new(&small.path).join("somebody-elses");
    let filled = Command::new("fallocate").args(["-l", "550M"]).arg(&filler).status().unwrap();
    assert!(filled.success());
    until("the run ends", MINUTES * 60, || running.try_wait().unwrap().is_some());
    let log = std::fs::read_to_string(lab.path("spawned.log")).unwrap();
    let show = lab.show("full", &log);
    let error = show["steps"][0]["error"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(error.contains("ran full while disk 1 was copied to") && error.contains("web1-sda"), "{log}");
    assert!(error.contains("of 583008256, so that up to") && error.contains("bytes are missing"), "{error}");
    assert_eq!(names(Path::new(&small.path)), ["somebody-elses"], "the staging folder is gone");
    assert!(names(&lab.path("tmp")).is_empty());
    lab.virsh(&["pool-destroy", "small"]);
}

/// Trap: a manifest that does not fit is found in seconds, before anything is converted.
#[test]
fn a_real_manifest_that_does_not_fit_is_found_at_once() {
    let Some(lab) = Lab::real() else { return };
    let ova = lab.guest("web1", 0);
    let mut bytes = std::fs::read(&ova).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    std::fs::write(&ova, bytes).unwrap();
    let before = lab.everything();
    let ran = lab.ended("bad", &words(&lab.shipped("bad", &ova, &[]))).failed();
    assert!(
        ran.error("convert").contains("checksum of disk web1-disk1.vmdk does not match"),
        "{}",
        ran.error("convert")
    );
    assert_eq!(ran.outputs("convert"), &json!(null));
    assert_eq!(lab.everything(), before);
}
