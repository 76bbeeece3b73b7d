//! The playbook for a list of machines, with libvirt's test driver and a stand-in for virt-v2v: what becomes of the
//! others when one fails.

use std::net::TcpListener;

use serde_json::json;

use crate::convert::names;
use crate::lab::Lab;

#[test]
fn one_of_three_fails_and_is_taken_back_alone() {
    let Some(lab) = Lab::stand_in() else { return };
    lab.virsh(&["pool-define-as", "images", "dir", "--target", &lab.text("images")]);
    lab.virsh(&["pool-start", "images"]);
    std::fs::write(lab.path("v2v-fail"), "web2\n").unwrap();
    // What stands in for ssh to ESXi: it notes what it is asked, and plays a machine that can be switched.
    lab.program(
        "ssh",
        "#!/bin/sh\nid=$6\necho \"$5 $id\" >>$LAB/esxi\ncase $5 in\n*getstate) cat $LAB/power-$id 2>/dev/null || echo 'Powered on';;\n\
         *shutdown) echo 'Powered off' >$LAB/power-$id;;\n*power.on) echo 'Powered on' >$LAB/power-$id;;\nesac\n",
    );
    lab.program("ip", "#!/bin/sh\necho '[{\"link_type\":\"ether\",\"linkinfo\":{\"info_kind\":\"bridge\"}}]'\n");
    let guests = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = guests.local_addr().unwrap().port();
    let machine = |n: u32| {
        json!({"vm": format!("web{n}"), "source": {"ova": lab.text("work/web1.ova")}, "address": "127.0.0.1",
            "port": port, "esxi": "root@esxi1", "id": n})
    };
    let machines = format!("machines={}", json!([machine(1), machine(2), machine(3)]));
    let playbook = concat!(env!("CARGO_MANIFEST_DIR"), "/playbooks/esxi-fleet-to-kvm.yaml");
    let (uri, tmp) = (format!("uri={}", lab.uri), format!("tmp={}", lab.text("tmp")));
    let words = [
        "run",
        playbook,
        "--run-id",
        "fleet",
        "--no-wait",
        "--output",
        "lines",
        "-i",
        &machines,
        "-i",
        &uri,
        "-i",
        &tmp,
        "-i",
        "domain_type=test",
        "-i",
        "bridge=br0",
    ];
    // Each machine asks before it is switched off at the source: two of them at once, the third when there is room.
    let approve = |vm: &str| {
        let answered = lab.runback(&["approve", "fleet", &format!("move[{vm}]/agreed")]).output().unwrap();
        assert!(answered.status.success(), "{vm}: {}", String::from_utf8_lossy(&answered.stderr));
    };
    let asking = lab.ended("fleet", &words);
    assert_eq!(asking.code, Some(5), "{}", asking.printed);
    assert!(!asking.printed.contains("move[web3]/agreed"), "{}", asking.printed);
    assert!(!lab.path("esxi").exists(), "nothing is switched off unasked");
    approve("web1");
    approve("web2");
    let asking = lab.ended("fleet", &["resume", "fleet", "--no-wait", "--output", "lines"]);
    assert_eq!(asking.code, Some(5), "{}", asking.printed);
    approve("web3");
    let ended = lab.ended("fleet", &["resume", "fleet", "--no-wait", "--output", "lines"]);
    assert_eq!(ended.code, Some(1), "one failed: {}", ended.printed);
    assert_eq!(ended.show["status"], "failed", "{}", ended.printed);
    let log = ended.printed;

    for vm in ["web1", "web3"] {
        assert_eq!((lab.state(vm), lab.info(vm, "Autostart")), ("running".to_owned(), "enable".to_owned()), "{log}");
    }
    assert_eq!(lab.state("web2"), "gone");
    assert_eq!(names(&lab.path("images")), ["web1-sda", "web1.xml", "web3-sda", "web3.xml"]);
    assert!(names(&lab.path("tmp")).is_empty());
    let power = |n: u32| std::fs::read_to_string(lab.path(&format!("power-{n}"))).unwrap().trim().to_owned();
    assert_eq!(
        [power(1), power(2), power(3)],
        ["Powered off", "Powered on", "Powered off"],
        "web2 runs again where it was"
    );
    let summary = lab.runback(&["logs", "fleet", "summary"]).output().unwrap();
    let summary = String::from_utf8_lossy(&summary.stdout).into_owned();
    assert!(summary.contains("moved: web1 web3\n") && summary.contains("not moved: web2\n"), "{summary}{log}");
    assert!(log.contains("move[web2]"), "{log}");
}
