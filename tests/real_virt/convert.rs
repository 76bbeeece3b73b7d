//! `virt.v2v` with a stand-in for virt-v2v that says and leaves what the real one was recorded to say and leave.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::lab::{Lab, script, until};

impl Lab {
    /// A fake libvirtd, and a virt-v2v that stands in for the real one.
    pub(crate) fn stand_in() -> Option<Self> {
        let lab = Self::fake()?;
        let recorded = concat!(env!("CARGO_MANIFEST_DIR"), "/steps/src/virt/recorded");
        let program = script("v2v-stand-in").to_string_lossy().into_owned();
        lab.program("virt-v2v", &format!("#!/bin/sh\nRECORDED={recorded} exec {program} \"$@\"\n"));
        lab.ova("web1.ova", &[]);
        Some(lab)
    }

    /// An OVA without a real disk. `edits` are replaced in its description.
    pub(crate) fn ova(&self, name: &str, edits: &[(&str, &str)]) {
        let ovf = include_str!("../../steps/src/virt/recorded/guest.ovf");
        let ovf = edits.iter().fold(ovf.to_owned(), |ovf, (from, to)| {
            assert!(ovf.contains(from), "{from}");
            ovf.replace(from, to)
        });
        let dir = self.path("work/ova");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("guest1.ovf"), ovf).unwrap();
        std::fs::write(dir.join("guest1.mf"), "").unwrap();
        std::fs::write(dir.join("guest1-disk1.vmdk"), "KDMV").unwrap();
        let files = ["guest1.ovf", "guest1.mf", "guest1-disk1.vmdk"];
        let tar =
            Command::new("tar").arg("-cf").arg(self.path("work").join(name)).arg("-C").arg(&dir).args(files).status();
        assert!(tar.unwrap().success());
        std::fs::remove_dir_all(dir).unwrap();
    }

    /// Tells the stand-in something.
    pub(crate) fn tell(&self, what: &str) {
        std::fs::write(self.path(what), "").unwrap();
    }

    /// Names of the machines that were converted, each time that one was begun.
    pub(crate) fn conversions(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path("conversions")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// What lies in the folder of the results and in that of temporary files.
    pub(crate) fn left(&self) -> Vec<String> {
        let mut all = Vec::new();
        for dir in ["images", "tmp"] {
            all.extend(names(&self.path(dir)));
        }
        all
    }

    /// A step that converts `web1.ova`.
    pub(crate) fn convert(&self, more: &Value) -> Value {
        let mut with = json!({
            "input": {"ova": self.text("work/web1.ova")},
            "output": {"dir": self.text("images")},
            "name": "web1", "networks": {"VM Network": "default"},
            "tmp": self.text("tmp"), "uri": self.uri,
        });
        for (key, value) in more.as_object().unwrap() {
            with[key] = value.clone();
        }
        json!({"id": "convert", "uses": "virt.v2v", "with": with})
    }
}

pub(crate) fn names(dir: &Path) -> Vec<String> {
    let mut all: Vec<String> = match std::fs::read_dir(dir) {
        Ok(entries) => entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect(),
        Err(_) => Vec::new(),
    };
    all.sort();
    all
}

#[test]
fn a_machine_is_converted_and_taken_back() {
    let Some(lab) = Lab::stand_in() else { return };
    // A folder that is not there yet, two deep.
    let dir = lab.text("images/vms/web1");
    let steps = json!([lab.convert(&json!({"output": {"dir": dir}}))]);
    let plan = lab.plan("plan", &steps);
    assert!(plan.contains("convert web1 (1 disk, 456 MiB)"), "{plan}");
    assert!(lab.left().is_empty() && lab.conversions().is_empty(), "a plan changes nothing");

    let ran = lab.run("good", &steps).ok();
    let outputs = ran.outputs("convert");
    assert_eq!(outputs["name"], "web1");
    assert_eq!(
        outputs["disks"],
        json!([{"path": format!("{dir}/web1-sda"), "format": "qcow2", "virtual_size": 478_150_656}])
    );
    assert_eq!((outputs["firmware"].as_str(), outputs["seconds"].as_u64()), (Some("bios"), Some(116)));
    assert_eq!(outputs["warnings"], json!(["could not determine a way to update the configuration of Grub2"]));
    let xml = std::fs::read_to_string(outputs["xml"].as_str().unwrap()).unwrap();
    assert_eq!(outputs["xml_text"], json!(xml));
    // Trap: the card of an OVA is of type bridge, and --network does nothing to it.
    assert!(xml.contains("<source network='default'/>") && xml.contains(&format!("file='{dir}/web1-sda'")), "{xml}");
    assert_eq!(names(Path::new(&dir)), ["web1-sda", "web1.xml"]);
    assert!(names(&lab.path("tmp")).is_empty());
    // Progress: phases and percent, and no bar in the log.
    let logs = lab.runback(&["logs", "good", "convert"]).output().unwrap();
    let logs = String::from_utf8_lossy(&logs.stdout).into_owned();
    assert!(logs.contains("copying disk 1/1: 56%") && !logs.contains("[****") && !logs.contains("timestamp"), "{logs}");

    lab.rollback("good").ok();
    assert!(lab.left().is_empty(), "{:?}", lab.left());
}

/// What otherwise fails after an hour.
#[test]
fn what_is_in_the_way_is_told_first() {
    let Some(lab) = Lab::stand_in() else { return };
    let refused = |run: &str, more: &Value| {
        let steps = json!([lab.convert(more)]);
        let plan = lab.plan(&format!("{run}-plan"), &steps);
        assert!(plan.contains("would refuse"), "{run}: {plan}");
        let began = Instant::now();
        let ran = lab.run(run, &steps).failed();
        assert!(began.elapsed() < Duration::from_secs(120));
        assert_eq!(lab.conversions(), [""; 0], "{run}");
        ran.error("convert")
    };
    lab.tell("v2v-refuse");
    let error = refused("manifest", &json!({}));
    assert!(error.contains("the source: -i ova: corrupt OVA: checksum of disk"), "{error}");
    std::fs::remove_file(lab.path("v2v-refuse")).unwrap();
    // Trap: virt-v2v leaves temporary folders when it is killed, also one that only looks. So it has one of its own.
    let looked = std::fs::read_to_string(lab.path("looked")).unwrap();
    assert!(looked.lines().count() == 4 && looked.lines().all(|l| l.starts_with(&lab.text("tmp/"))), "{looked}");
    assert!(lab.left().is_empty(), "{:?}", lab.left());

    let error = refused("domain", &json!({"name": "test"}));
    assert!(error.contains("there is a domain test already, running"), "{error}");

    std::fs::write(lab.path("images/web1-sda"), "somebody's").unwrap();
    std::fs::write(lab.path("images/web1.xml"), "somebody's").unwrap();
    let error = refused("files", &json!({}));
    assert!(error.contains("holds web1-sda, web1.xml already"), "{error}");
    assert_eq!(std::fs::read_to_string(lab.path("images/web1-sda")).unwrap(), "somebody's");

    let error = refused("net", &json!({"name": "web2", "networks": {"VM Network": "nowhere"}}));
    assert!(error.contains("libvirt has no network nowhere"), "{error}");
    let error = refused("bridge", &json!({"name": "web2", "networks": {}, "bridges": {"VM Network": "br-nowhere"}}));
    assert!(error.contains("there is no bridge br-nowhere"), "{error}");
    let error =
        refused("card", &json!({"name": "web2", "networks": {}, "mac": {"00:0c:29:aa:bb:cc": {"bridge": "lo"}}}));
    assert!(error.contains("lo on local is no bridge, but the loopback"), "{error}");
    let error = refused("tmp", &json!({"name": "web2", "tmp": "/nowhere/at/all"}));
    assert!(error.contains("/nowhere/at/all is not there"), "{error}");

    lab.ova("huge.ova", &[("capacity=\"456\"", "capacity=\"999999999\"")]);
    let error = refused("space", &json!({"name": "web2", "input": {"ova": lab.text("work/huge.ova")}}));
    assert!(
        error.contains("are missing") && error.contains("953.7 TiB") || error.contains("GiB are missing"),
        "{error}"
    );

    // All at once.
    let error = refused("all", &json!({"input": {"ova": lab.text("work/huge.ova")}, "networks": {"a": "nowhere"}}));
    assert!(error.contains("3 things are in the way"), "{error}");
}

/// Trap: Debian's virt-v2v does not pull in nbdkit, nbdcopy and qemu-nbd.
#[test]
fn tools_that_are_missing_are_named_with_their_packages() {
    let Some(lab) = Lab::stand_in() else { return };
    let path = lab.path("few");
    std::fs::create_dir(&path).unwrap();
    for tool in ["sh", "tar", "od", "ip", "virsh", "qemu-img", "cat"] {
        let found =
            std::env::split_paths(&std::env::var_os("PATH").unwrap()).map(|d| d.join(tool)).find(|p| p.exists());
        std::os::unix::fs::symlink(found.unwrap(), path.join(tool)).unwrap();
    }
    let mut step = lab.convert(&json!({}));
    step["env"] = json!({"PATH": path});
    let ran = lab.run("few", &json!([step])).failed();
    let error = ran.error("convert");
    assert!(error.contains("missing on local: virt-v2v, nbdkit, nbdcopy, qemu-nbd"), "{error}");
    assert!(error.contains("apt-get install virt-v2v nbdkit libnbd-bin qemu-utils"), "{error}");
}

/// Trap: libguestfs needs a GB in TMPDIR and in LIBGUESTFS_CACHEDIR, more where an OVA must be unpacked.
#[test]
fn temporary_space_is_looked_at() {
    let Some(lab) = Lab::stand_in() else { return };
    let small = lab.mount("tmpfs-small", "10m");
    let ran = lab.run("tmp", &json!([lab.convert(&json!({"tmp": small.path}))])).failed();
    assert!(ran.error("convert").contains("temporary files may need 1.0 GiB"), "{}", ran.error("convert"));
    let mut step = lab.convert(&json!({}));
    step["env"] = json!({"LIBGUESTFS_CACHEDIR": small.path});
    let ran = lab.run("cache", &json!([step])).failed();
    assert!(ran.error("convert").contains("the appliance may need 1.0 GiB"), "{}", ran.error("convert"));
    // Enough for the appliance's work, and not for the disk unpacked.
    let middle = lab.mount("tmpfs-middle", "1300m");
    lab.ova("packed.ova", &[("guest1-disk1.vmdk\"", "guest1-disk1.vmdk.gz\"")]);
    lab.run("plain", &json!([lab.convert(&json!({"tmp": middle.path}))])).ok();
    let packed = json!({"name": "web2", "input": {"ova": lab.text("work/packed.ova")}, "tmp": middle.path});
    let ran = lab.run("packed", &json!([lab.convert(&packed)])).failed();
    assert!(ran.error("convert").contains("temporary files may need 1.4 GiB"), "{}", ran.error("convert"));
    // Enough for the disk, and enough for temporary files, and not for both.
    let both = json!({"name": "web3", "output": {"dir": format!("{}/images", middle.path)}, "tmp": middle.path});
    let ran = lab.run("both", &json!([lab.convert(&both)])).failed();
    assert!(
        ran.error("convert").contains("on one file system, and the disks may need 456 MiB"),
        "{}",
        ran.error("convert")
    );
}

/// Trap: the appliance boots the host's own kernel, and a host may have none.
#[test]
fn a_host_without_a_kernel_is_refused() {
    let Some(lab) = Lab::stand_in() else { return };
    let file = lab.playbook("kernel", &json!([lab.convert(&json!({}))]));
    let words = ["run", &file, "--run-id", "kernel", "--output", "lines"];
    let ran = lab.ended_as("kernel", lab.altered("mount -t tmpfs none /boot", &words)).failed();
    assert!(ran.error("convert").contains("there is no kernel in /boot of local"), "{}", ran.error("convert"));
    assert_eq!(lab.conversions(), [""; 0]);
}

/// Worth a look, and no reason to stop.
#[test]
fn notices() {
    let Some(lab) = Lab::stand_in() else { return };
    lab.ova("windows.ova", &[("debian12_64Guest", "windows2019srv_64Guest")]);
    let tar = Command::new("tar").args(["--delete", "-f"]).arg(lab.path("work/windows.ova")).arg("guest1.mf").status();
    assert!(tar.unwrap().success());
    let mut step = lab.convert(&json!({"input": {"ova": lab.text("work/windows.ova")}, "networks": {}}));
    step["env"] = json!({"VIRTIO_WIN": "/nowhere"});
    lab.run("notices", &json!([step])).ok();
    let logs = lab.runback(&["logs", "notices", "convert"]).output().unwrap();
    let logs = String::from_utf8_lossy(&logs.stdout).into_owned();
    for notice in ["has no manifest", "a Windows guest", "network `VM Network` of the source is mapped to nothing"] {
        assert!(logs.contains(notice), "{notice}: {logs}");
    }
}

/// Trap: exit code 0 is not enough. And after a failure the disk of full size must be gone.
#[test]
fn done_is_an_exit_code_a_definition_and_a_sound_disk() {
    let Some(lab) = Lab::stand_in() else { return };
    for (what, says) in [("v2v-no-xml", "wrote no web1.xml"), ("v2v-corrupt", "is damaged")] {
        lab.tell(what);
        let ran = lab.run(what, &json!([lab.convert(&json!({}))])).failed();
        assert!(ran.error("convert").contains(says), "{what}: {}", ran.error("convert"));
        assert!(lab.left().is_empty(), "{what}: {:?}", lab.left());
        std::fs::remove_file(lab.path(what)).unwrap();
    }
    std::fs::write(lab.path("v2v-fail"), "web1\n").unwrap();
    let steps = json!([lab.convert(&json!({}))]);
    let file = lab.playbook("fail", &steps);
    // Also where the run is held, nothing unfinished stays.
    let ran = lab.ended("fail", &["run", &file, "--run-id", "fail", "--on-failure", "hold", "--output", "lines"]);
    assert_eq!(ran.code, Some(1), "{}", ran.printed);
    assert!(ran.error("convert").contains("web1: virt-v2v: inspection could not detect"), "{}", ran.error("convert"));
    assert!(names(&lab.path("tmp")).is_empty() && names(&lab.path("images")).is_empty(), "{:?}", lab.left());
    std::fs::remove_file(lab.path("v2v-fail")).unwrap();
    lab.ended("fail", &["resume", "fail", "--output", "lines"]).ok();
    assert_eq!(lab.conversions().len(), 4);
}

/// Trap: after ENOSPC a disk of full virtual size stays behind.
#[test]
fn a_target_that_runs_full_is_named_with_what_is_missing() {
    let Some(lab) = Lab::stand_in() else { return };
    lab.tell("v2v-full");
    let ran = lab.run("full", &json!([lab.convert(&json!({}))])).failed();
    let error = ran.error("convert");
    assert!(error.contains("ran full while disk 1 was copied to"), "{error}");
    assert!(
        error.contains("web1-sda: it came to byte 202113024 of 478150656, so that up to 276037632 bytes are missing"),
        "{error}"
    );
    assert!(lab.left().is_empty(), "{:?}", lab.left());
}

fn alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Trap: the leader's death leaves qemu-nbd and nbdcopy writing, each in a session of its own.
#[test]
fn a_cancel_leaves_nothing() {
    let Some(lab) = Lab::stand_in() else { return };
    lab.tell("v2v-hold");
    // Trap: where this is set, virt-v2v would unpack there, and leave it.
    std::fs::create_dir(lab.path("appliance")).unwrap();
    let mut step = lab.convert(&json!({}));
    step["env"] = json!({"LIBGUESTFS_CACHEDIR": lab.text("appliance")});
    let file = lab.playbook("cancel", &json!([step]));
    let mut running = lab.spawn(&["run", &file, "--run-id", "cancel", "--output", "lines"]);
    until("the copy runs", 60, || lab.path("v2v-held").exists());
    let writer = std::fs::read_to_string(lab.path("v2v-writer")).unwrap().trim().to_owned();
    assert!(alive(&writer));
    let began = Instant::now();
    assert!(lab.runback(&["cancel", "cancel"]).output().unwrap().status.success());
    running.wait().unwrap();
    assert!(began.elapsed() < Duration::from_secs(120), "{:?}", began.elapsed());
    assert!(!alive(&writer), "what escaped into a session of its own has ended too");
    assert!(lab.left().is_empty(), "{:?}", lab.left());
    assert!(names(&lab.path("appliance")).is_empty(), "{:?}", names(&lab.path("appliance")));
    assert_eq!(lab.show("cancel", "")["status"], "cancelled");
}

/// Trap: what only looks at the source takes its time too, and leaves temporary folders when it is killed.
#[test]
fn a_look_that_is_cut_off_leaves_nothing() {
    let Some(lab) = Lab::stand_in() else { return };
    lab.tell("v2v-slow-look");
    let mut step = lab.convert(&json!({}));
    step["kill_grace"] = json!("1s");
    let file = lab.playbook("look", &json!([step]));
    let mut running = lab.spawn(&["run", &file, "--run-id", "look", "--output", "lines"]);
    until("it looks", 60, || lab.path("v2v-looks").exists());
    assert!(lab.runback(&["cancel", "look"]).output().unwrap().status.success());
    running.wait().unwrap();
    assert!(lab.left().is_empty() && lab.conversions().is_empty(), "{:?}", lab.left());
}

/// runback is killed with -9 in the copy: the conversion goes on, is found again, and is done once.
#[test]
fn a_conversion_outlives_runback() {
    let Some(lab) = Lab::stand_in() else { return };
    lab.tell("v2v-hold");
    let file = lab.playbook("killed", &json!([lab.convert(&json!({}))]));
    let mut running = lab.spawn(&["run", &file, "--run-id", "killed", "--output", "lines"]);
    until("the copy runs", 60, || lab.path("v2v-held").exists());
    lab.kill(&mut running);
    let writer = std::fs::read_to_string(lab.path("v2v-writer")).unwrap().trim().to_owned();
    assert!(alive(&writer), "it goes on");

    let mut resumed = lab.spawn(&["resume", "killed", "--output", "lines"]);
    let logs = || {
        let logs = lab.runback(&["logs", "killed", "convert"]).output().unwrap();
        String::from_utf8_lossy(&logs.stdout).into_owned()
    };
    until("it is attached to again", 60, || lab.show("killed", "")["owner"].is_object() || logs().contains("28%"));
    assert!(!logs().contains("84%"));
    // What `resume` itself prints, and not only the log of the step.
    let shown = || std::fs::read_to_string(lab.path("spawned.log")).unwrap();
    until("progress is shown again", 60, || shown().contains("copying disk 1/1: 28%"));
    lab.tell("v2v-go");
    assert_eq!(resumed.wait().unwrap().code(), Some(0), "{}", shown());
    assert!(shown().contains("copying disk 1/1: 84%"), "{}", shown());
    assert!(logs().contains("copying disk 1/1: 84%"), "progress goes on: {}", logs());
    assert_eq!(lab.conversions(), ["web1"], "converted once");
    assert_eq!(names(&lab.path("images")), ["web1-sda", "web1.xml"]);
    assert!(names(&lab.path("tmp")).is_empty());
    let show = lab.show("killed", "");
    assert_eq!((&show["status"], &show["steps"][0]["attempts"]), (&json!("succeeded"), &json!(1)));
    lab.rollback("killed").ok();
    assert!(lab.left().is_empty(), "{:?}", lab.left());
}

/// Trap: the phase is in one stream, the percent only in a bar of the other; the operator sees both while it runs.
#[test]
fn phase_percent_rate_and_time_left_are_seen_on_a_terminal() {
    let Some(lab) = Lab::stand_in() else { return };
    lab.tell("v2v-hold");
    let file = lab.playbook("live", &json!([lab.convert(&json!({}))]));
    let mut running = lab.spawn_as(lab.on_a_terminal(&["run", &file, "--run-id", "live"]));
    let drawn = || String::from_utf8_lossy(&std::fs::read(lab.path("spawned.log")).unwrap()).into_owned();
    // Since the recorded beginning of the copy some time has passed, so the rate is low.
    let whole = |line: &str| line.contains("copying disk 1/1, ") && line.contains("/s, ") && line.contains(" left");
    until("it is drawn", 60, || drawn().split("28% ").skip(1).any(whole));
    lab.tell("v2v-go");
    assert_eq!(running.wait().unwrap().code(), Some(0), "{}", drawn());
}

/// As after a power cut: neither runback nor the conversion is there any more, and what it left lies about.
#[test]
fn after_a_power_cut_it_is_thrown_away_and_done_again() {
    let Some(lab) = Lab::stand_in() else { return };
    lab.tell("v2v-hold");
    let file = lab.playbook("cut", &json!([lab.convert(&json!({}))]));
    let mut running = lab.spawn(&["run", &file, "--run-id", "cut", "--output", "lines"]);
    until("the copy runs", 60, || lab.path("v2v-held").exists());
    lab.kill(&mut running);
    let marked = lab.marked();
    assert!(marked.len() >= 2, "{marked:?}");
    for pid in marked.iter().filter(|p| **p != std::fs::read_to_string(lab.path("v2v-writer")).unwrap().trim()) {
        let _ = Command::new("kill").args(["-KILL", pid]).status();
    }
    for file in ["v2v-hold", "v2v-held"] {
        std::fs::remove_file(lab.path(file)).unwrap();
    }
    // The one that escaped still writes into the old folder: it must be ended before the next attempt begins.
    lab.ended("cut", &["resume", "cut", "--output", "lines"]).ok();
    assert!(lab.marked().is_empty());
    assert_eq!(lab.conversions(), ["web1", "web1"]);
    assert_eq!(names(&lab.path("images")), ["web1-sda", "web1.xml"]);
    assert!(names(&lab.path("tmp")).is_empty());
}

#[test]
fn disks_that_a_domain_has_stay() {
    let Some(lab) = Lab::stand_in() else { return };
    let ran = lab.run("used", &json!([lab.convert(&json!({}))])).ok();
    lab.virsh(&["define", ran.outputs("convert")["xml"].as_str().unwrap()]);
    let back = lab.rollback("used");
    assert_eq!(back.code, Some(4), "{}", back.printed);
    assert!(back.printed.contains("stays: domain web1 has it as a disk"), "{}", back.printed);
    assert_eq!(names(&lab.path("images")), ["web1-sda", "web1.xml"]);
    lab.virsh(&["undefine", "web1"]);
    lab.rollback("used").ok();
    assert!(lab.left().is_empty(), "{:?}", lab.left());
}

/// A secret reaches virt-v2v by a file that only its user reads, and goes with the temporary folder.
#[test]
fn a_password_is_in_no_argument() {
    let Some(lab) = Lab::stand_in() else { return };
    let step = lab.convert(&json!({"password": "{{secrets.source}}"}));
    let secrets = json!({"source": {"env": "SOURCE_PASSWORD"}});
    let file = lab.write("secret", &json!({"runback": 1, "name": "secret", "secrets": secrets, "steps": [step]}));
    let stand_in = std::fs::read_to_string(lab.path("bin/virt-v2v")).unwrap();
    let look = "echo \"$@\" >>$LAB/words; for w; do [ \"$p\" != -ip ] || { cat $w; stat -c ' %a' $w; } >>$LAB/password; p=$w; done\n";
    lab.program("virt-v2v", &stand_in.replace("#!/bin/sh\n", &format!("#!/bin/sh\np=\n{look}")));
    let mut run = lab.runback(&["run", &file, "--run-id", "secret", "--output", "lines"]);
    let output = run.env("SOURCE_PASSWORD", "correct-horse").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(std::fs::read_to_string(lab.path("password")).unwrap(), "correct-horse 600\n");
    assert!(!std::fs::read_to_string(lab.path("words")).unwrap().contains("correct-horse"));
    assert!(names(&lab.path("tmp")).is_empty());
}
