//! Domains under libvirt's test driver: defined, started, held, stopped, forgotten, each with its way back.

use serde_json::json;

use crate::lab::Lab;

fn small(name: &str) -> String {
    format!("<domain type='test'><name>{name}</name><memory>65536</memory><os><type>hvm</type></os></domain>")
}

fn one(uses: &str, with: &serde_json::Value) -> serde_json::Value {
    json!([{"id": "it", "uses": uses, "with": with}])
}

#[test]
fn a_life_from_define_to_undefine() {
    let Some(lab) = Lab::fake() else { return };
    let steps = json!([
        {"id": "define", "uses": "virt.define", "with": {"xml": small("web")}},
        {"id": "start", "uses": "virt.start", "with": {"domain": "{{steps.define.outputs.domain}}"}},
        {"id": "up", "uses": "virt.wait", "with": {"domain": "web", "within": "2m"}},
        {"id": "hold", "uses": "virt.suspend", "with": {"domain": "web"}},
        {"id": "on", "uses": "virt.resume", "with": {"domain": "web"}},
        {"id": "again", "uses": "virt.reboot", "with": {"domain": "web"}},
        {"id": "boots", "uses": "virt.autostart", "with": {"domain": "web"}},
        {"id": "down", "uses": "virt.shutdown", "with": {"domain": "web"}},
        {"id": "off", "uses": "virt.wait", "with": {"domain": "web", "state": "shut-off", "within": "2m"}},
        {"id": "forget", "uses": "virt.undefine", "with": {"domain": "web"}},
    ]);
    let ran = lab.run("life", &steps).ok();
    assert_eq!(lab.state("web"), "gone");
    assert_eq!(ran.outputs("hold")["state"], "paused");
    assert_eq!(ran.outputs("off")["state"], "shut-off");
    assert_eq!(ran.step("boots")["changed"], true);

    let back = lab.rollback("life").ok();
    assert_eq!(back.show["status"], "rolled-back", "{}", back.printed);
    assert_eq!(lab.state("web"), "gone");
}

#[test]
fn what_is_so_already_is_not_done_again() {
    let Some(lab) = Lab::fake() else { return };
    // The test driver comes with a domain `test` that runs.
    for (step, changed) in
        [("virt.start", false), ("virt.resume", false), ("virt.suspend", true), ("virt.suspend", false)]
    {
        let run = format!("{}-{changed}", step.replace('.', "-"));
        let ran = lab.run(&run, &one(step, &json!({"domain": "test"}))).ok();
        assert_eq!(ran.step("it")["changed"], changed, "{step}: {}", ran.printed);
    }
    lab.virsh(&["destroy", "test"]);
    for step in ["virt.destroy", "virt.shutdown"] {
        let ran = lab.run(&step.replace('.', "-"), &one(step, &json!({"domain": "test"}))).ok();
        assert_eq!(ran.step("it")["changed"], false, "{step}");
    }
    let ran = lab.run("missing", &one("virt.undefine", &json!({"domain": "nowhere"}))).ok();
    assert_eq!(ran.step("it")["changed"], false);
}

#[test]
fn each_change_of_state_is_taken_back() {
    let Some(lab) = Lab::fake() else { return };
    let cases = [
        ("virt.suspend", "running", "paused"),
        ("virt.destroy", "running", "shut off"),
        ("virt.shutdown", "running", "shut off"),
        ("virt.start", "shut off", "running"),
        ("virt.resume", "paused", "running"),
    ];
    for (step, before, after) in cases {
        let run = step.replace('.', "-");
        match (lab.state("test").as_str(), before) {
            ("running", "paused") => drop(lab.virsh(&["suspend", "test"])),
            ("running", "shut off") => drop(lab.virsh(&["destroy", "test"])),
            ("shut off", "running" | "paused") => {
                lab.virsh(&["start", "test"]);
                if before == "paused" {
                    lab.virsh(&["suspend", "test"]);
                }
            }
            _ => {}
        }
        assert_eq!(lab.state("test"), before, "{step}");
        lab.run(&run, &one(step, &json!({"domain": "test"}))).ok();
        assert_eq!(lab.state("test"), after, "{step}");
        lab.rollback(&run).ok();
        assert_eq!(lab.state("test"), before, "{step}");
    }
}

/// Trap: virt-v2v writes no UUID, and libvirt refuses to define the same name a second time.
#[test]
fn defining_twice_is_defining_once() {
    let Some(lab) = Lab::fake() else { return };
    let xml = "<domain type='test'><name>web</name><memory>65536</memory><os><type>hvm</type></os>\
        <devices><interface type='network'><source network='default'/></interface></devices></domain>";
    let first = lab.run("first", &one("virt.define", &json!({"xml": xml}))).ok();
    let second = lab.run("second", &one("virt.define", &json!({"xml": xml}))).ok();
    assert_eq!((&first.step("it")["changed"], &second.step("it")["changed"]), (&json!(true), &json!(false)));
    assert_eq!(first.outputs("it"), second.outputs("it"));
    // Taking the second back leaves the domain, taking the first back removes it.
    lab.rollback("second").ok();
    assert_eq!(lab.state("web"), "shut off");
    lab.rollback("first").ok();
    assert_eq!(lab.state("web"), "gone");
}

#[test]
fn another_domain_of_that_name_is_left_alone() {
    let Some(lab) = Lab::fake() else { return };
    lab.define(&small("web"));
    let before = lab.virsh(&["dumpxml", "web"]);
    let ran = lab.run("clash", &one("virt.define", &json!({"xml": small("web")}))).failed();
    assert!(ran.error("it").contains("there is a domain of that name with the UUID"), "{}", ran.error("it"));
    assert_eq!(lab.virsh(&["dumpxml", "web"]), before);
    let plan = lab.plan("clash", &one("virt.define", &json!({"xml": small("web")})));
    assert!(plan.contains("would refuse"), "{plan}");
}

#[test]
fn a_definition_that_was_replaced_comes_back() {
    let Some(lab) = Lab::fake() else { return };
    lab.run("old", &one("virt.define", &json!({"xml": small("web"), "vcpus": 1}))).ok();
    let before = lab.virsh(&["dumpxml", "web", "--inactive"]);
    lab.run("new", &one("virt.define", &json!({"xml": small("web"), "vcpus": 2, "memory_mib": 128}))).ok();
    assert_eq!((lab.info("web", "CPU(s)"), lab.info("web", "Max memory")), ("2".into(), "131072 KiB".into()));
    lab.rollback("new").ok();
    assert_eq!(lab.virsh(&["dumpxml", "web", "--inactive"]), before);

    // Somebody changed it meanwhile: that is theirs.
    lab.run("mine", &one("virt.define", &json!({"xml": small("web"), "vcpus": 3}))).ok();
    lab.virsh(&["setvcpus", "web", "1", "--config"]);
    let back = lab.rollback("mine");
    assert_eq!(back.code, Some(4), "{}", back.printed);
    assert!(back.printed.contains("definition was changed since"), "{}", back.printed);
    assert_eq!(lab.info("web", "CPU(s)"), "1");
    lab.ended("mine", &["rollback", "mine", "--force", "--output", "lines"]).ok();
    assert_eq!(lab.virsh(&["dumpxml", "web", "--inactive"]), before);
}

/// Trap: `virsh undefine` of a domain that runs says yes, and leaves it there until its next stop.
#[test]
fn a_domain_that_runs_is_not_undefined() {
    let Some(lab) = Lab::fake() else { return };
    let ran = lab.run("runs", &one("virt.undefine", &json!({"domain": "test"}))).failed();
    assert!(ran.error("it").contains("test is running, so it is not undefined"), "{}", ran.error("it"));
    assert_eq!(lab.info("test", "Persistent"), "yes");

    // Nor by the undo of its definition.
    lab.run("define", &one("virt.define", &json!({"xml": small("web")}))).ok();
    lab.virsh(&["start", "web"]);
    let back = lab.rollback("define");
    assert_eq!(back.code, Some(4), "{}", back.printed);
    assert!(back.printed.contains("web stays defined: it is running"), "{}", back.printed);
    assert_eq!(lab.info("web", "Persistent"), "yes");
}

/// Trap: snapshots keep libvirt from undefining a domain.
#[test]
fn snapshots_are_lost_only_when_told() {
    let Some(lab) = Lab::fake() else { return };
    lab.define(&small("web"));
    lab.virsh(&["autostart", "web"]);
    lab.virsh(&["snapshot-create-as", "web", "before"]);
    let ran = lab.run("keep", &one("virt.undefine", &json!({"domain": "web"}))).failed();
    assert!(ran.error("it").contains("snapshots (before)"), "{}", ran.error("it"));
    assert_eq!(lab.state("web"), "shut off");

    lab.run("lose", &one("virt.undefine", &json!({"domain": "web", "lose": true}))).ok();
    assert_eq!(lab.state("web"), "gone");
    lab.rollback("lose").ok();
    assert_eq!((lab.state("web"), lab.info("web", "Autostart")), ("shut off".into(), "enable".into()));
}

#[test]
fn errors_name_the_domain_and_the_way_out() {
    let Some(lab) = Lab::fake() else { return };
    for step in ["virt.start", "virt.shutdown", "virt.suspend", "virt.autostart", "virt.reboot", "virt.wait"] {
        let ran = lab.run(&step.replace('.', "-"), &one(step, &json!({"domain": "nowhere"}))).failed();
        assert!(ran.error("it").contains("nowhere: there is no such domain"), "{step}: {}", ran.error("it"));
    }
    lab.virsh(&["destroy", "test"]);
    let ran = lab.run("hold", &one("virt.suspend", &json!({"domain": "test"}))).failed();
    assert!(ran.error("it").contains("not in the state that this needs"), "{}", ran.error("it"));
    let ran = lab.run("slow", &one("virt.wait", &json!({"domain": "test", "within": "1s"}))).failed();
    assert!(ran.error("it").contains("test: it is shut off, after 1s"), "{}", ran.error("it"));
    assert_eq!(ran.step("it")["error"]["class"], "timeout");
    let nowhere = json!({"domain": "test", "uri": "qemu+unix:///system?socket=/nowhere"});
    let ran =
        lab.run("gone", &json!([{"id": "it", "uses": "virt.start", "with": nowhere, "retry": {"max_attempts": 1}}]));
    assert!(ran.error("it").contains("libvirtd cannot be reached"), "{}", ran.error("it"));
    assert_eq!(ran.step("it")["error"]["class"], "transient");
    let ran = lab.run("xml", &one("virt.define", &json!({"xml": "<network/>"}))).failed();
    assert!(ran.error("it").contains("not a <domain>"), "{}", ran.error("it"));
}

#[test]
fn an_address_is_waited_for() {
    let Some(lab) = Lab::fake() else { return };
    let card = "<devices><interface type='network'><source network='default'/></interface></devices></domain>";
    lab.define(&small("web").replace("</domain>", card));
    lab.virsh(&["start", "web"]);
    let ran = lab.run("lease", &one("virt.wait", &json!({"domain": "web", "address": true, "within": "2m"}))).ok();
    let address = ran.outputs("it")["address"].as_str().unwrap().to_owned();
    assert!(address.starts_with("192.168.122."), "{address}");
    assert_eq!(ran.outputs("it")["addresses"], json!([address]));
    lab.define(&small("bare"));
    lab.virsh(&["start", "bare"]);
    let ran = lab.run("none", &one("virt.wait", &json!({"domain": "bare", "address": true, "within": "1s"}))).failed();
    assert!(ran.error("it").contains("bare: it has no address, after 1s"), "{}", ran.error("it"));
}

/// Trap: "Domain is already active", "domain is not running": somebody does the same in the same moment, and then it is so.
#[test]
fn somebody_who_is_faster_is_no_failure() {
    let Some(lab) = Lab::fake() else { return };
    // Says everything to libvirt twice that is about to be tried.
    let twice = "#!/bin/sh\nPATH=${PATH#*:}\nverb=$(cat $LAB/race)\n\
        case \" $* \" in *\" $verb test \"*) virsh \"$@\" >/dev/null; echo \"$verb\" >>$LAB/raced ;; esac\nexec virsh \"$@\"\n";
    lab.program("virsh", twice);
    for (verb, after) in [
        ("destroy", "shut off"),
        ("start", "running"),
        ("suspend", "paused"),
        ("resume", "running"),
        ("shutdown", "shut off"),
    ] {
        std::fs::write(lab.path("race"), verb).unwrap();
        let ran = lab.run(verb, &one(&format!("virt.{verb}"), &json!({"domain": "test"}))).ok();
        assert_eq!((lab.state("test").as_str(), &ran.step("it")["changed"]), (after, &json!(true)), "{verb}");
    }
    let raced = std::fs::read_to_string(lab.path("raced")).unwrap();
    assert_eq!(raced.lines().collect::<Vec<_>>(), ["destroy", "start", "suspend", "resume", "shutdown"]);
}

/// Trap: "already exists with uuid". Who was faster keeps his domain, also when this run is taken back.
#[test]
fn a_domain_that_appears_meanwhile_is_left_alone() {
    let Some(lab) = Lab::fake() else { return };
    std::fs::write(lab.path("theirs.xml"), small("web")).unwrap();
    let first = format!(
        "#!/bin/sh\nPATH=${{PATH#*:}}\ncase \" $* \" in *\" define \"*) virsh -q -c {} define $LAB/theirs.xml >/dev/null ;; esac\n\
         exec virsh \"$@\"\n",
        lab.uri
    );
    lab.program("virsh", &first);
    let ran = lab.run("race", &one("virt.define", &json!({"xml": small("web")}))).failed();
    assert!(ran.error("it").contains("a domain of that name is there, and is another one"), "{}", ran.error("it"));
    assert_eq!(ran.step("it")["error"]["class"], "conflict");
    assert_eq!(lab.state("web"), "shut off", "theirs stays: {}", ran.printed);
}
