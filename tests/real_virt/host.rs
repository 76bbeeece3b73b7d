//! The playbook that makes a machine a KVM host: with a libvirtd of the test's own, an /etc that only the test sees, and
//! stand-ins for systemd and ifupdown that do what the file says.

use std::process::Command;

use crate::lab::Lab;

const IFUP: &str = "#!/bin/sh
set -eu
cp /etc/network/interfaces.d/$1 $LAB/interfaces
ip link add $1 type bridge
for address in $(sed -n 's/^ *address //p' $LAB/interfaces); do ip addr add $address dev $1; done
ip link set $1 up
";

#[test]
fn a_machine_becomes_a_kvm_host_and_is_taken_back() {
    let Some(lab) = Lab::real() else { return };
    lab.program("systemctl", "#!/bin/sh\necho \"$@\" >>$LAB/systemctl\n");
    lab.program("ifup", IFUP);
    lab.program("ifdown", "#!/bin/sh\nip link del $1\n");
    let over = lab.mount("over", "16m");
    for dir in ["new", "work"] {
        std::fs::create_dir(lab.path("over").join(dir)).unwrap();
    }
    let etc = format!("mount -t overlay -o lowerdir=/etc,upperdir={0}/new,workdir={0}/work etc /etc", over.path);
    let playbook = concat!(env!("CARGO_MANIFEST_DIR"), "/playbooks/kvm-host-setup.yaml");
    let (uri, path) = (format!("uri={}", lab.uri), format!("pool_path={}", lab.text("deep/pool")));
    let run = |name: &str, more: &[&str]| {
        let own = ["run", playbook, "--run-id", name, "--output", "lines", "-i", "bridge=br5", "-i", "pool=fast"];
        let rest = ["-i", "packages=[\"libvirt-clients\"]", "-i", "require_kvm=false", "-i", &uri, "-i", &path];
        let words: Vec<&str> = own.into_iter().chain(rest).chain(more.iter().copied()).collect();
        lab.ended_as(name, lab.altered(&etc, &words)).ok();
        std::fs::read_to_string(lab.path("interfaces")).unwrap()
    };
    let back = |name: &str| lab.ended_as(name, lab.altered(&etc, &["rollback", name, "--output", "lines"])).ok();
    let is_bridge = || lab.inside("ip").args(["link", "show", "dev", "br5"]).output().unwrap().status.success();
    let everything = || {
        let made = Command::new("find").arg(lab.path("over/new")).args(["-type", "f"]).output().unwrap();
        let made = String::from_utf8_lossy(&made.stdout).into_owned();
        (made, lab.virsh(&["net-list", "--all", "--name"]), lab.virsh(&["pool-list", "--all", "--name"]), is_bridge())
    };
    let before = everything();

    // A bridge of its own asks nobody for an address.
    let file = run("own", &[]);
    let options = "  bridge_stp off\n  bridge_fd 0\n";
    assert_eq!(file, format!("auto br5\niface br5 inet manual\n  bridge_ports none\n{options}"));
    assert!(is_bridge() && lab.path("deep/pool").is_dir());
    assert!(lab.virsh(&["net-info", "lan"]).contains("Active:         yes"));
    assert!(lab.virsh(&["pool-info", "fast"]).contains("State:          running"));
    assert_eq!(std::fs::read_to_string(lab.path("systemctl")).unwrap(), "enable --now libvirtd\n");
    back("own");
    assert_eq!((everything(), lab.path("deep").exists()), (before.clone(), false));

    let shared = run("shared", &["-i", "interface=eno1"]);
    assert_eq!(shared, format!("auto br5\niface br5 inet dhcp\n  bridge_ports eno1\n{options}"));
    back("shared");
    let fixed = run("fixed", &["-i", "interface=eno1", "-i", "address=192.168.78.1/24"]);
    let address = "  address 192.168.78.1/24\n";
    assert_eq!(fixed, format!("auto br5\niface br5 inet static\n{address}  bridge_ports eno1\n{options}"));
    back("fixed");
    assert_eq!(everything(), before);
}
