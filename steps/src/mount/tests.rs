//! Tests over scripted commands. What really mounts is tested in the suite that has root.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::kernel::is_bind_of;
use super::table::with_line;
use super::*;
use crate::testing::{Lab, Ran, TestHost};
use runback_core::Json;
use runback_core::step::AnyStepType;
use serde_json::json;

#[test]
fn the_last_mount_at_a_path_counts() {
    let info = "22 1 8:1 / / rw,noatime shared:1 - ext4 /dev/sda1 rw\n\
                30 22 0:40 / /mnt/a\\040b rw - nfs4 nas:/x rw,vers=4\n\
                31 30 8:1 /srv/data /mnt/a\\040b ro - ext4 /dev/sda1 rw\n";
    let is = find(info, "/mnt/a b").unwrap();
    assert_eq!((is.root.as_str(), is.fstype.as_str(), is.options.as_str()), ("/srv/data", "ext4", "ro"));
    assert_eq!(find(info, "/mnt"), None);
    // A bind is known by the device and the place in it, whatever the folder is called from here.
    let info = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 8:1 /host/shared /shared rw - ext4 /dev/sda1 rw\n\
                3 1 8:1 /host/shared/a /mnt/x rw - ext4 /dev/sda1 rw\n";
    let is = find(info, "/mnt/x").unwrap();
    assert!(is_bind_of(info, &is, "/shared/a") && is_bind_of(info, &is, "/host/shared/a/"));
    assert!(!is_bind_of(info, &is, "/shared"));
    // The whole of a file system, and another one that is called the same.
    let info = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:50 / /shared rw - tmpfs tmpfs rw\n\
                3 1 0:51 / /other rw - tmpfs tmpfs rw\n4 1 0:50 / /mnt/x rw - tmpfs tmpfs rw\n";
    let is = find(info, "/mnt/x").unwrap();
    assert!(is_bind_of(info, &is, "/shared") && !is_bind_of(info, &is, "/other"));
}

#[test]
fn the_table_has_one_line_for_a_path() {
    let inputs = |options: &str| -> Inputs {
        serde_json::from_value(json!({"source": "nas:/x", "path": "/mnt/x", "fstype": "nfs4", "options": options}))
            .unwrap()
    };
    let line = |old: &str, options: &str| with_line(old, &inputs(options), "/mnt/x", "/mnt/x").map_err(|e| e.message);
    let old = "# table\n/dev/sda1  /  ext4  defaults 0 1";
    let new = line(old, "rw").unwrap();
    assert_eq!(new, "# table\n/dev/sda1  /  ext4  defaults 0 1\nnas:/x /mnt/x nfs4 rw 0 0\n");
    assert_eq!(line(&new, "rw").unwrap(), new);
    assert_eq!(line(&new, "ro").unwrap(), new.replace(" rw ", " ro "));
    assert!(line(&format!("{new}{}", &new[new.len() - 27..]), "ro").unwrap_err().contains("2 lines are for /mnt/x"));
}

/// A machine whose mounts are lines of the file `info`. `kernel` says what the kernel calls the next one's device.
fn lab() -> Lab {
    let mut lab = Lab::new();
    let dir = lab.path("");
    lab.put("fstab", "# none\n");
    lab.put("info", "");
    lab.put("kernel", "");
    let sys = "case $1 in /sys/dev/block/7:0/*) echo /srv/disk.img;; /sys/*) exit 1;; *)";
    lab.put("bin/cat", format!("#!/bin/sh\n{sys} exec /bin/cat {dir}/info;; esac\n"));
    lab.put(
        "bin/mount",
        format!(
            "#!/bin/sh\n. {dir}/kernel\ncase $5 in bad*) echo 'mount: bad superblock' >&2; exit 32;; esac\n\
             echo \"1 1 ${{dev:-0:1}} / $6 rw - $2 ${{as:-$5}} rw\" >>{dir}/info\n\
             case $5 in die*) kill -KILL $$;; esac\n"
        ),
    );
    lab.put(
        "bin/umount",
        format!(
            "#!/bin/sh\ncd {dir}\ngrep -q \" $1 rw - \" info || {{ echo 'not mounted' >&2; exit 32; }}\n\
             grep -v \" $1 rw - \" info >new; mv new info\n"
        ),
    );
    // Mode, major and minor in hex: a logical volume under three names, another one, and a file.
    let stat = "#!/bin/sh\nfor path; do case $path in -*|%*) ;;\n/dev/vg/lv|/dev/mapper/vg-lv|/dev/dm-3) echo '61b0 fd 3';;\n\
                /dev/vg/*) echo '61b0 fd 4';; /dev/loop0) echo '61b0 7 0';; /srv/*.img) echo '81a4 0 0';;\n\
                *) echo \"stat: no $path\" >&2; exit 1;; esac; done\n";
    lab.put("bin/stat", stat);
    for name in ["bin/cat", "bin/mount", "bin/umount", "bin/stat"] {
        lab.set_mode(name, 0o755);
    }
    lab.env.insert("PATH".to_owned(), format!("{}:{}", lab.path("bin"), std::env::var("PATH").unwrap()));
    lab
}

fn nas(path: &str) -> Json {
    json!({"source": "nas:/x", "path": path, "fstype": "nfs4", "fstab": "fstab"})
}

#[tokio::test]
async fn mounts_and_undoes() {
    let lab = lab();
    let (before, with) = (lab.snapshot(), nas("mnt/x"));
    let ran = lab.run(&MountPresent, &with).await.unwrap();
    assert!(lab.text("fstab").ends_with("mnt/x nfs4 defaults 0 0\n"), "{}", lab.text("fstab"));
    assert_eq!(ran.outputs["source"], "nas:/x");
    assert!(!lab.run(&MountPresent, &with).await.unwrap().changed);
    lab.undo(&MountPresent, &with, &ran).await.unwrap();
    assert_eq!(lab.snapshot(), before);
    lab.put("info", format!("1 1 0:1 / {} rw - ext4 /dev/sdb rw\n", lab.path("mnt/x")));
    assert_eq!(lab.capture(&MountPresent, &with).await.unwrap_err().class, Class::Conflict);
}

#[tokio::test]
async fn one_place_has_many_names() {
    let lab = lab();
    lab.put("srv/keep", "");
    std::os::unix::fs::symlink(lab.path("srv"), lab.path("link")).unwrap();
    for (path, is) in [("mnt/x/", "mnt/x"), ("mnt//y", "mnt/y"), ("link/x", "srv/x"), ("mnt/./z", "mnt/z")] {
        let (before, with) = (lab.snapshot(), nas(path));
        let ran = lab.run(&MountPresent, &with).await.unwrap();
        assert_eq!((&ran.outputs["path"], ran.changed), (&json!(lab.path(is)), true), "{path}");
        assert!(lab.text("fstab").contains(&format!(" {} ", lab.path(is))), "{}", lab.text("fstab"));
        let plan = lab.preview(&MountPresent, &with).await.unwrap();
        assert_eq!((plan.changes, plan.summary), (Some(false), format!("{} is mounted", lab.path(is))));
        assert!(!lab.run(&MountPresent, &with).await.unwrap().changed, "{path}");
        assert!(lab.undo(&MountPresent, &with, &ran).await.unwrap().changed);
        assert_eq!(lab.snapshot(), before, "{path}");
    }
    // A line that has the other name is the one for it.
    let line = format!("nas:/x {} nfs4 defaults 0 0\n", lab.path("link/x"));
    lab.put("fstab", &line);
    let ran = lab.run(&MountPresent, &nas("link/x/")).await.unwrap();
    assert_eq!(lab.text("fstab"), line);
    lab.undo(&MountPresent, &nas("link/x/"), &ran).await.unwrap();
    assert_eq!((lab.text("fstab"), lab.text("info")), (line, String::new()));
}

#[tokio::test]
async fn a_table_of_mounts_that_was_cut_is_not_believed() {
    let lab = lab();
    lab.put("bin/cat", "#!/bin/sh\nhead -c 17825792 /dev/zero | tr '\\0' '\\n'\n");
    let error = lab.capture(&MountPresent, &nas("mnt/x")).await.unwrap_err();
    assert!(error.message.contains("/proc/self/mountinfo is larger than 16 MiB"), "{error}");
}

#[tokio::test]
async fn it_knows_its_own_mount_by_whatever_name_the_kernel_gives_it() {
    for (source, options, kernel) in [
        ("/dev/vg/lv", "defaults", "dev=253:3 as=/dev/mapper/vg-lv"),
        // btrfs has a number of its own.
        ("/dev/vg/lv", "defaults", "dev=0:77 as=/dev/dm-3"),
        ("/srv/disk.img", "loop", "dev=7:0 as=/dev/loop0"),
        ("/srv/disk.img", "loop", "dev=0:78 as=/dev/loop0"),
    ] {
        let lab = lab();
        let before = lab.snapshot();
        lab.put("kernel", kernel);
        let with = json!({"source": source, "path": "mnt/x", "fstype": "ext4", "options": options, "fstab": "fstab"});
        let ran = lab.run(&MountPresent, &with).await.unwrap();
        assert!(ran.changed);
        assert!(!lab.run(&MountPresent, &with).await.unwrap().changed, "{kernel}");
        assert!(lab.undo(&MountPresent, &with, &ran).await.unwrap().changed);
        lab.put("kernel", "");
        assert_eq!(lab.snapshot(), before);
        // It is nothing of another device.
        let mut other = with.clone();
        other["source"] = json!(if options == "loop" { "/srv/other.img" } else { "/dev/vg/other" });
        lab.put("kernel", kernel);
        lab.run(&MountPresent, &with).await.unwrap();
        assert_eq!(lab.capture(&MountPresent, &other).await.unwrap_err().class, Class::Conflict, "{kernel}");
    }
}

#[tokio::test]
async fn what_it_mounted_is_known_by_its_note() {
    let lab = lab();
    lab.put("kernel", "dev=0:60 as=fuse-of-its-own");
    let with = json!({"source": "ops@nas:/x", "path": "mnt/x", "fstype": "fuse.sshfs", "fstab": "fstab"});
    let ran = lab.run(&MountPresent, &with).await.unwrap();
    assert_eq!(ran.outputs["source"], "fuse-of-its-own");
    // Another one in its place is somebody else's.
    let own = lab.text("info");
    lab.put("info", own.replace("0:60", "0:61"));
    assert_eq!(lab.undo(&MountPresent, &with, &ran).await.unwrap_err().class, Class::Conflict);
    lab.put("info", own);
    assert!(lab.undo(&MountPresent, &with, &ran).await.unwrap().changed);
    assert_eq!(lab.text("info"), "");
}

#[tokio::test]
async fn what_somebody_mounted_after_a_failure_stays_mounted() {
    let lab = lab();
    let with = json!({"source": "bad:/x", "path": "mnt/x", "fstype": "nfs4", "fstab": "fstab"});
    let capture = lab.capture(&MountPresent, &with).await.unwrap();
    lab.act(&MountPresent, &with, &capture).await.unwrap_err();
    let by_hand = format!("1 1 0:9 / {} rw - nfs4 bad:/x rw\n", lab.path("mnt/x"));
    lab.put("info", &by_hand);
    lab.undo_unfinished(&MountPresent, &with, &capture).await.unwrap();
    assert_eq!((lab.text("info"), lab.text("fstab")), (by_hand.clone(), "# none\n".to_owned()));
    // The run was held, and goes on.
    let acted = lab.act(&MountPresent, &with, &capture).await.unwrap();
    let ran = Ran { capture: capture.clone(), outputs: acted.outputs, changed: acted.changed };
    lab.undo(&MountPresent, &with, &ran).await.unwrap();
    assert_eq!((lab.text("info"), lab.text("fstab")), (by_hand.clone(), "# none\n".to_owned()));
    // Something else, since the step began.
    lab.put("info", by_hand.replace("bad:/x", "other:/x"));
    assert_eq!(lab.act(&MountPresent, &with, &capture).await.unwrap_err().class, Class::Conflict);

    // Interrupted: it is the step's own as far as can be told.
    lab.put("info", "");
    let with = json!({"source": "die:/x", "path": "mnt/x", "fstype": "nfs4", "fstab": "fstab"});
    let capture = lab.capture(&MountPresent, &with).await.unwrap();
    lab.act(&MountPresent, &with, &capture).await.unwrap_err();
    assert!(lab.undo_unfinished(&MountPresent, &with, &capture).await.unwrap().changed);
    assert_eq!(lab.text("info"), "");
}

#[tokio::test]
async fn steps_beside_each_other_have_one_table() {
    let lab = lab();
    let before = lab.snapshot();
    let (a, b) = (nas("a"), json!({"source": "nas:/y", "path": "b", "fstype": "nfs4", "fstab": "fstab"}));
    let hosts = [TestHost::default(), TestHost::default()];
    let cx = |n: usize| Cx { host: &hosts[n], step: ["a", "b"][n], ..lab.cx() };
    let mount: &dyn AnyStepType = &MountPresent;
    let mut captures = Vec::new();
    for (n, with) in [&a, &b].into_iter().enumerate() {
        captures.push(mount.capture(&cx(n), with).await.unwrap());
    }
    let (cx_a, cx_b) = (cx(0), cx(1));
    let (left_a, left_b) = tokio::join!(mount.act(&cx_a, &a, &captures[0]), mount.act(&cx_b, &b, &captures[1]));
    let (left_a, left_b) = (left_a.unwrap().outputs, left_b.unwrap().outputs);
    assert_eq!(lab.text("fstab").lines().count(), 3, "{}", lab.text("fstab"));
    lab.put("fstab", format!("{}admin /c nfs4 rw 0 0\n", lab.text("fstab")));
    mount.undo(&cx(0), &a, &captures[0], Some(&left_a)).await.unwrap();
    let line = format!("nas:/y {} nfs4 defaults 0 0", lab.path("b"));
    assert_eq!(lab.text("fstab"), format!("# none\n{line}\nadmin /c nfs4 rw 0 0\n"));
    mount.undo(&cx(1), &b, &captures[1], Some(&left_b)).await.unwrap();
    lab.put("fstab", lab.text("fstab").replace("admin /c nfs4 rw 0 0\n", ""));
    assert_eq!(lab.snapshot(), before);
}

/// As runback 0.1 captured it: without the path, and its action noted nothing.
#[tokio::test]
async fn an_older_capture_is_undone_as_it_was_then() {
    let lab = lab();
    let (before, with) = (lab.snapshot(), nas("mnt/x"));
    let mut capture = lab.capture(&MountPresent, &with).await.unwrap();
    let acted = lab.act(&MountPresent, &with, &capture).await.unwrap();
    for key in ["path", "tells"] {
        capture.as_object_mut().unwrap().remove(key);
    }
    lab.host.notes.lock().unwrap().retain(|note| note.get("replaces").is_some());
    let ran = Ran { capture, outputs: acted.outputs, changed: true };
    lab.undo(&MountPresent, &with, &ran).await.unwrap();
    assert_eq!(lab.snapshot(), before);
}
