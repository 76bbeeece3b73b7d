//! A conversion that breaks anywhere, with programs that stand in for virt-v2v and what it needs: what is left, and what
//! the next attempt and the undo make of it.

#![expect(clippy::unwrap_used, reason = "tests")]

use runback_core::Json;
use serde_json::json;

use super::VirtV2v;
use crate::testing::{Failing, Lab};

const V2V: &str = r#"#!/bin/sh
[ "$1" != --print-source ] || exit 0
while [ $# -gt 0 ]; do case $1 in -os) out=$2 ;; -on) name=$2 ;; esac; shift; done
echo "$name" >>"$BEGUN"
echo '{ "message": "odd", "timestamp": "2026-11-21T22:00:00.0+00:00", "type": "warning" }'
echo '{ "message": "Finishing off", "timestamp": "2026-11-21T22:00:07.0+00:00", "type": "message" }'
echo one >"$out/$name-sda"
echo two >"$out/$name-sdb"
cat >"$out/$name.xml" <<END
<domain type='kvm'><name>$name</name><memory>1</memory><devices>
<disk type='file' device='disk'><driver type='qcow2'/><source file='$out/$name-sda'/><target dev='vda' bus='virtio'/></disk>
<disk type='file' device='disk'><driver type='qcow2'/><source file='$out/$name-sdb'/><target dev='vdb' bus='virtio'/></disk>
</devices></domain>
END
"#;
const QEMU_IMG: &str = "#!/bin/sh\n[ \"$1\" != info ] || echo '{\"virtual-size\": 1024, \"format\": \"qcow2\"}'\n";

/// A lab with programs of its own, apart from the folder that is compared.
fn lab() -> (Lab, tempfile::TempDir, Json) {
    use std::os::unix::fs::PermissionsExt as _;
    let programs = tempfile::tempdir().unwrap();
    for (name, text) in [("virt-v2v", V2V), ("qemu-img", QEMU_IMG), ("nbdkit", ""), ("nbdcopy", ""), ("qemu-nbd", "")] {
        let path = programs.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut lab = Lab::new();
    let path = format!("{}:{}", programs.path().display(), std::env::var("PATH").unwrap());
    lab.env.insert("PATH".into(), path);
    lab.env.insert("LIBGUESTFS_PATH".into(), "/nowhere".into());
    lab.env.insert("BEGUN".into(), programs.path().join("begun").to_string_lossy().into_owned());
    lab.put("export/guest1.ovf", include_str!("../recorded/guest.ovf").replace("\"456\"", "\"1\""));
    // Short: sockets lie in it.
    let tmp = programs.path().to_string_lossy().into_owned();
    let with = json!({
        "input": {"ova": "export"}, "output": {"dir": "images/new"}, "name": "web1", "uri": "", "tmp": tmp,
    });
    (lab, programs, with)
}

fn begun(programs: &tempfile::TempDir) -> usize {
    std::fs::read_to_string(programs.path().join("begun")).unwrap_or_default().lines().count()
}

#[tokio::test]
async fn two_disks_get_their_names() {
    let (lab, programs, with) = lab();
    let ran = lab.run(&VirtV2v, &with).await.unwrap();
    assert_eq!(lab.text("images/new/web1-sdb"), "two\n");
    assert!(lab.text("images/new/web1.xml").contains(&format!("file='{}'", lab.path("images/new/web1-sdb"))));
    assert_eq!(ran.outputs["disks"][1]["path"], lab.path("images/new/web1-sdb"));
    // Acting again, as after a crash behind its end, converts nothing.
    let again = lab.act(&VirtV2v, &with, &ran.capture).await.unwrap();
    assert_eq!((&again.outputs, begun(&programs)), (&ran.outputs, 1));
    assert_eq!((&ran.outputs["warnings"], &ran.outputs["seconds"]), (&json!(["odd"]), &json!(7)));
    assert!(lab.undo(&VirtV2v, &with, &ran).await.unwrap().changed);
    assert!(!lab.exists("images"));
    assert!(!lab.undo(&VirtV2v, &with, &ran).await.unwrap().changed);
}

/// At each operation that changes something, before and after it did: another attempt ends well, and undo leaves nothing.
#[tokio::test]
async fn a_conversion_that_breaks_anywhere() {
    let wanted = {
        let (lab, _programs, with) = lab();
        lab.run(&VirtV2v, &with).await.unwrap();
        lab.snapshot().keys().cloned().collect::<Vec<_>>()
    };
    let mut breaks = 0;
    for how in [Failing::Before, Failing::After] {
        let mut ended = false;
        for n in 0..100 {
            for undo in [true, false] {
                let (lab, programs, with) = lab();
                let before = lab.snapshot();
                let capture = lab.capture(&VirtV2v, &with).await.unwrap();
                assert_eq!(before, lab.snapshot(), "capture changes nothing");
                lab.target.fail_at(n, how);
                let acted = lab.act(&VirtV2v, &with, &capture).await;
                let hit = lab.target.changes.lock().unwrap().len() > n;
                lab.target.heal();
                if !hit {
                    acted.unwrap();
                    ended = true;
                    break;
                }
                breaks += 1;
                if undo {
                    lab.undo_unfinished(&VirtV2v, &with, &capture).await.unwrap();
                    assert_eq!(before, lab.snapshot(), "undo after break {n} ({how:?})");
                } else {
                    lab.act(&VirtV2v, &with, &capture).await.unwrap();
                    assert_eq!(wanted, lab.snapshot().keys().cloned().collect::<Vec<_>>(), "break {n} ({how:?})");
                }
                let left: Vec<_> =
                    std::fs::read_dir(programs.path()).unwrap().flatten().map(|e| e.file_name()).collect();
                assert!(
                    !left.iter().any(|n| n.to_string_lossy().starts_with("rbv2v")),
                    "break {n} ({how:?}): {left:?}"
                );
            }
            if ended {
                break;
            }
        }
    }
    assert!(breaks > 20, "only {breaks} breaks: this test does not see the operations any more");
}

/// What somebody else has made meanwhile under one of the names is not overwritten, and not removed.
#[tokio::test]
async fn a_stranger_in_the_way_stays() {
    let (lab, _programs, with) = lab();
    let capture = lab.capture(&VirtV2v, &with).await.unwrap();
    lab.put("images/new/web1-sdb", "somebody's");
    let error = lab.act(&VirtV2v, &with, &capture).await.unwrap_err();
    assert!(error.message.contains("web1-sdb has appeared since this step began"), "{error}");
    lab.undo_unfinished(&VirtV2v, &with, &capture).await.unwrap();
    assert_eq!(lab.text("images/new/web1-sdb"), "somebody's");
    assert!(!lab.exists("images/new/web1-sda"));
}
