//! Tests over a scripted apt. Real ones are in the suite that has root.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::testing::{Lab, Ran};
use runback_core::step::Class;
use serde_json::json;

/// An `apt` whose packages are lines of a file (with their architecture where that is another than amd64), and the ones
/// that were removed and left their configuration are lines of another. `web` needs `lib`.
fn lab() -> Lab {
    let mut lab = Lab::new();
    let dir = lab.path("");
    lab.put("all", "base\nlib2\n");
    lab.put("conf", "gone\n");
    let list = format!(
        "#!/bin/sh\ncd {dir}\nshow() {{ case \"$1:$format\" in\n\
         *:i386:*Architecture*|*:i386:*binary:*) echo \"$2 $1\";; *:i386:*) echo \"$2 ${{1%:*}}\";;\n\
         *Architecture*) echo \"$2 $1:amd64\";; *) echo \"$2 $1\";; esac; }}\n\
         format=\"$*\"\nwhile read p; do show \"$p\" installed; done <all\n\
         while read p; do grep -qx \"$p\" all || show \"$p\" config-files; done <conf\n"
    );
    lab.put("bin/dpkg-query", list);
    lab.put("bin/dpkg", "#!/bin/sh\necho amd64\n");
    let apt = format!(
        "#!/bin/sh\ncd {dir}\necho \"$*\" >>asked\nverb=$1\ncase $verb in --version|update) exit 0;; esac\n\
         while [ \"$1\" != -- ]; do shift; done; shift\nout() {{ grep -vx \"$2\" $1 >new; mv new $1; }}\n\
         for p; do case $verb:$p in\n\
         install:none) echo 'E: Unable to locate package none' >&2; exit 100;;\n\
         install:busy) echo 'E: Could not get lock /var/lib/dpkg/lock-frontend' >&2; exit 100;;\n\
         install:die) echo die >>all; kill -KILL $$;;\n\
         install:web) printf 'lib\\nweb\\n' >>all;; install:*) echo $p >>all;;\n\
         purge:*) out all \"$p\"; out conf \"$p\";; remove:*) out all \"$p\"; echo \"$p\" >>conf;; esac; done\n"
    );
    lab.put("bin/apt-get", apt);
    for name in ["bin/apt-get", "bin/dpkg-query", "bin/dpkg"] {
        lab.set_mode(name, 0o755);
    }
    let path = format!("{}:{}", lab.path("bin"), std::env::var("PATH").unwrap());
    lab.env.insert("PATH".to_owned(), path);
    lab
}

#[tokio::test]
async fn what_came_goes_again_and_nothing_else() {
    let lab = lab();
    let with = json!({"names": ["base", "web"], "update": true});
    assert_eq!(lab.preview(&PackagePresent, &with).await.unwrap().summary, "install web with apt");
    let ran = lab.run(&PackagePresent, &with).await.unwrap();
    assert_eq!(ran.outputs["installed"], json!(["lib", "web"]));
    assert!(lab.text("asked").contains("update") && !lab.text("asked").contains("-- base"));
    assert!(!lab.run(&PackagePresent, &with).await.unwrap().changed);
    lab.undo(&PackagePresent, &with, &ran).await.unwrap();
    assert_eq!(lab.text("all"), "base\nlib2\n");
    assert!(!lab.undo(&PackagePresent, &with, &ran).await.unwrap().changed);

    let capture = lab.capture(&PackagePresent, &with).await.unwrap();
    lab.act(&PackagePresent, &with, &capture).await.unwrap();
    lab.undo_unfinished(&PackagePresent, &with, &capture).await.unwrap();
    assert_eq!(lab.text("all"), "base\nlib2\nlib\n", "of an unfinished one, only what was asked for");
}

/// Seen on a machine where another installation was under way.
#[tokio::test]
async fn what_was_half_there_before_is_not_removed() {
    let lab = lab();
    lab.put("bin/dpkg-query", format!("#!/bin/sh\n[ -e {0}/done ] || echo triggers-pending man; [ -e {0}/done ] || echo unpacked cron; [ ! -e {0}/done ] || printf 'installed man\\ninstalled cron\\n'; sed 's/^/installed /' {0}/all\n", lab.path("")));
    lab.set_mode("bin/dpkg-query", 0o755);
    let half = lab.preview(&PackagePresent, &json!({"names": ["man", "cron"]})).await.unwrap();
    assert_eq!(half.summary, "install cron with apt");
    let with = json!({"names": ["web"]});
    let capture = lab.capture(&PackagePresent, &with).await.unwrap();
    lab.put("done", "");
    let acted = lab.act(&PackagePresent, &with, &capture).await.unwrap();
    assert_eq!(acted.outputs["installed"], json!(["lib", "web"]));
    let ran = Ran { capture, outputs: acted.outputs, changed: acted.changed };
    lab.undo(&PackagePresent, &with, &ran).await.unwrap();
    assert!(!lab.text("asked").contains("cron"), "{}", lab.text("asked"));
    assert_eq!(lab.text("all"), "base\nlib2\n");
}

#[tokio::test]
async fn failures_have_a_class() {
    let lab = lab();
    let none = lab.run(&PackagePresent, &json!({"names": ["none"]})).await.unwrap_err();
    assert_eq!(none.class, Class::Permanent);
    assert!(none.help.unwrap().contains("correct the name"));
    let busy = lab.run(&PackagePresent, &json!({"names": ["busy"]})).await.unwrap_err();
    assert_eq!(busy.class, Class::Transient);
    for name in ["", "-y", "a b", "web-", "a;b"] {
        assert_eq!(Lab::problems(&PackagePresent, &json!({"names": [name]})).len(), 1, "{name}");
    }
}

/// Somebody installs a package by hand.
fn by_hand(lab: &Lab, name: &str) {
    lab.put("all", format!("{}{name}\n", lab.text("all")));
}

#[tokio::test]
async fn what_somebody_installed_after_a_failure_stays() {
    let lab = lab();
    let with = json!({"names": ["none"]});
    let capture = lab.capture(&PackagePresent, &with).await.unwrap();
    lab.act(&PackagePresent, &with, &capture).await.unwrap_err();
    by_hand(&lab, "none");
    assert!(!lab.undo_unfinished(&PackagePresent, &with, &capture).await.unwrap().changed);
    assert_eq!(lab.text("all"), "base\nlib2\nnone\n");

    // The run was held, and goes on: what the step finds by then is not its own.
    let acted = lab.act(&PackagePresent, &with, &capture).await.unwrap();
    assert_eq!((acted.changed, &acted.outputs["installed"]), (false, &json!([])));
    let ran = Ran { capture, outputs: acted.outputs, changed: acted.changed };
    assert!(!lab.undo(&PackagePresent, &with, &ran).await.unwrap().changed);
    assert_eq!(lab.text("all"), "base\nlib2\nnone\n");
}

#[tokio::test]
async fn of_a_failure_in_the_middle_only_what_had_come_goes() {
    let lab = lab();
    let with = json!({"names": ["part", "none"]});
    let capture = lab.capture(&PackagePresent, &with).await.unwrap();
    lab.act(&PackagePresent, &with, &capture).await.unwrap_err();
    by_hand(&lab, "none");
    assert!(lab.undo_unfinished(&PackagePresent, &with, &capture).await.unwrap().changed);
    assert_eq!(lab.text("all"), "base\nlib2\nnone\n");
    // Of an interrupted installation nobody can tell: what was asked for and came goes.
    let with = json!({"names": ["die"]});
    let capture = lab.capture(&PackagePresent, &with).await.unwrap();
    lab.act(&PackagePresent, &with, &capture).await.unwrap_err();
    assert!(lab.undo_unfinished(&PackagePresent, &with, &capture).await.unwrap().changed);
    assert_eq!(lab.text("all"), "base\nlib2\nnone\n");
}

/// Seen with captures of runback 0.1, whose actions noted nothing.
#[tokio::test]
async fn an_older_capture_is_undone_as_it_was_then() {
    let lab = lab();
    by_hand(&lab, "web");
    by_hand(&lab, "libc6:i386");
    let capture = json!({"manager": "apt", "before": ["base", "lib2", "libc6"]});
    let with = json!({"names": ["web"]});
    assert!(lab.undo_unfinished(&PackagePresent, &with, &capture).await.unwrap().changed);
    assert_eq!(lab.text("all"), "base\nlib2\nlibc6:i386\n");
    let acted = lab.act(&PackagePresent, &with, &capture).await.unwrap();
    assert_eq!(acted.outputs["installed"], json!(["lib", "web"]), "libc6:i386 was there, under its short name");
}

#[tokio::test]
async fn configuration_that_was_there_stays() {
    let lab = lab();
    let with = json!({"names": ["gone", "web"]});
    let ran = lab.run(&PackagePresent, &with).await.unwrap();
    assert_eq!(ran.outputs["installed"], json!(["gone", "lib", "web"]));
    lab.undo(&PackagePresent, &with, &ran).await.unwrap();
    assert_eq!((lab.text("all").as_str(), lab.text("conf").as_str()), ("base\nlib2\n", "gone\ngone\n"));
    let asked = lab.text("asked");
    assert!(asked.contains("purge") && !asked.contains("purge --yes --quiet -- gone"), "{asked}");
}

#[tokio::test]
async fn a_package_of_another_architecture_comes_and_goes() {
    let lab = lab();
    by_hand(&lab, "libc6");
    let with = json!({"names": ["libc6:i386", "base:amd64"]});
    let ran = lab.run(&PackagePresent, &with).await.unwrap();
    assert_eq!(ran.outputs["installed"], json!(["libc6:i386"]));
    assert!(!lab.run(&PackagePresent, &with).await.unwrap().changed);
    lab.undo(&PackagePresent, &with, &ran).await.unwrap();
    assert_eq!(lab.text("all"), "base\nlib2\nlibc6\n");
}
