//! Tests over a scripted systemctl. A real one is in the suite that has root.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::testing::{Lab, Ran};
use serde_json::json;

/// A `systemctl` that keeps a unit's state in two files, in the words that systemd 252 prints. A look takes the first line
/// of the states, if there are more.
fn lab(active: &str, enabled: &str) -> Lab {
    let mut lab = Lab::new();
    lab.put("active", active);
    lab.put("enabled", enabled);
    let dir = lab.path("");
    let script = format!(
        "#!/bin/sh\ncd {dir}\necho \"$*\" >>asked\nfor unit; do :; done\ncase $1 in\n\
         show) case $unit in none*) echo LoadState=not-found;; *) echo LoadState=loaded; echo ActiveState=$(head -n1 active); echo UnitFileState=$(cat enabled);; esac\n\
         [ $(grep -c '' active) = 1 ] || {{ sed 1d active >next; mv next active; }};;\n\
         start|restart|reload) case $unit in bad*) echo 'Job for bad.service failed.' >&2; exit 1;; die*) printf active >active; kill -KILL $$;;\n\
         slow*) printf 'activating\\nactivating\\nactive' >active;; loop*) printf activating >active;; once*) printf inactive >active;;\n\
         crash*) printf 'activating\\nactive\\nactivating\\nfailed' >active;; *) printf active >active;; esac;;\n\
         stop) case $unit in slow*) printf 'deactivating\\ninactive' >active;; *) printf inactive >active;; esac;;\n\
         enable) printf enabled >enabled;;\ndisable) printf disabled >enabled;;\nesac\n"
    );
    lab.put("bin/systemctl", script);
    lab.set_mode("bin/systemctl", 0o755);
    let path = format!("{}:{}", lab.path("bin"), std::env::var("PATH").unwrap());
    lab.env.insert("PATH".to_owned(), path);
    lab
}

#[tokio::test]
async fn each_verb_does_its_work_once_and_undoes_it() {
    for (service, active, enabled, done) in [
        (Service(Verb::Started), "inactive", "disabled", "start"),
        (Service(Verb::Stopped), "active", "enabled", "stop"),
        (Service(Verb::Enabled), "active", "disabled", "enable"),
    ] {
        let lab = lab(active, enabled);
        let with = json!({"unit": "app"});
        let ran = lab.run(&service, &with).await.unwrap();
        assert!(ran.changed && lab.text("asked").contains(&format!("{done} -- app")), "{}", lab.text("asked"));
        assert!(!lab.run(&service, &with).await.unwrap().changed);
        assert!(lab.undo(&service, &with, &ran).await.unwrap().changed);
        assert_eq!((lab.text("active").as_str(), lab.text("enabled").as_str()), (active, enabled));
        assert!(!lab.undo(&service, &with, &ran).await.unwrap().changed);
    }
    let lab = lab("active", "enabled");
    let with = json!({"unit": "app", "enabled": false});
    let ran = lab.run(&Service(Verb::Enabled), &with).await.unwrap();
    assert_eq!(ran.outputs["enabled"], "disabled");
}

#[tokio::test]
async fn a_restart_of_what_ran_has_nothing_to_undo() {
    let lab = lab("active", "enabled");
    let with = json!({"unit": "app", "daemon_reload": true});
    let ran = lab.run(&Service(Verb::Restarted), &with).await.unwrap();
    assert!(ran.changed);
    assert!(!lab.undo(&Service(Verb::Restarted), &with, &ran).await.unwrap().changed);
    let asked = lab.text("asked");
    assert_eq!((asked.matches("restart -- app").count(), asked.matches("daemon-reload").count()), (1, 1), "{asked}");
    lab.put("active", "inactive");
    let ran = lab.run(&Service(Verb::Restarted), &with).await.unwrap();
    assert!(lab.undo(&Service(Verb::Restarted), &with, &ran).await.unwrap().changed);
    assert_eq!(lab.text("active"), "inactive");
}

#[tokio::test]
async fn what_cannot_be_done_is_named() {
    let lab = lab("inactive", "disabled");
    let none = lab.capture(&Service(Verb::Started), &json!({"unit": "none"})).await.unwrap_err();
    assert_eq!(none.message, "there is no unit none");
    let bad = lab.run(&Service(Verb::Started), &json!({"unit": "bad"})).await.unwrap_err();
    assert!(bad.message.contains("Job for bad.service failed.") && bad.help.unwrap().contains("journalctl -u bad"));
    let idle = lab.run(&Service(Verb::Reloaded), &json!({"unit": "app"})).await.unwrap_err();
    assert_eq!(idle.message, "app is inactive, so it cannot be reloaded");
    for unit in ["", "-x", "a b", "a*"] {
        assert_eq!(Lab::problems(&Service(Verb::Started), &json!({"unit": unit})).len(), 1, "{unit}");
    }
}

#[tokio::test]
async fn a_unit_that_is_on_its_way_down_is_waited_for() {
    let lab = lab("deactivating", "enabled");
    let with = json!({"unit": "app"});
    assert_eq!(lab.preview(&Service(Verb::Stopped), &with).await.unwrap().changes, Some(true));
    let ran = lab.run(&Service(Verb::Stopped), &with).await.unwrap();
    assert_eq!((ran.changed, &ran.outputs["active"]), (true, &json!("inactive")));
    assert!(lab.text("asked").contains("stop -- app"), "{}", lab.text("asked"));
    assert!(!lab.undo(&Service(Verb::Stopped), &with, &ran).await.unwrap().changed, "it did not run before");
}

#[tokio::test(start_paused = true)]
async fn a_state_in_between_is_waited_for_and_is_not_the_end() {
    for (verb, before, unit, after) in [
        (Verb::Started, "inactive", "slow", "active"),
        (Verb::Restarted, "active", "slow", "active"),
        (Verb::Reloaded, "active", "slow", "active"),
        (Verb::Stopped, "active", "slow", "inactive"),
    ] {
        let lab = lab(before, "enabled");
        let ran = lab.run(&Service(verb), &json!({"unit": unit})).await.unwrap();
        assert_eq!(ran.outputs["active"], after, "{verb:?}");
    }
    for (verb, before) in [(Verb::Started, "inactive"), (Verb::Restarted, "active")] {
        let lab = lab(before, "enabled");
        let error = lab.run(&Service(verb), &json!({"unit": "loop"})).await.unwrap_err();
        assert_eq!((error.class, error.message.as_str()), (Class::Transient, "loop is still activating after 30s"));
        assert!(error.help.unwrap().contains("journalctl -u loop"));
    }
    // Up for one look between two falls.
    let crash = lab("inactive", "enabled").run(&Service(Verb::Started), &json!({"unit": "crash"})).await.unwrap_err();
    assert_eq!(crash.message, "crash is failed and enabled afterwards");
    let once = lab("inactive", "enabled").run(&Service(Verb::Started), &json!({"unit": "once"})).await.unwrap_err();
    assert_eq!(once.message, "once is inactive and enabled afterwards");
}

#[tokio::test]
async fn what_somebody_started_after_a_failure_is_left_running() {
    let lab = lab("inactive", "disabled");
    let with = json!({"unit": "bad"});
    let capture = lab.capture(&Service(Verb::Started), &with).await.unwrap();
    lab.act(&Service(Verb::Started), &with, &capture).await.unwrap_err();
    lab.put("active", "active");
    assert!(!lab.undo_unfinished(&Service(Verb::Started), &with, &capture).await.unwrap().changed);
    assert_eq!(lab.text("active"), "active");
    // The run was held, and goes on.
    let acted = lab.act(&Service(Verb::Started), &with, &capture).await.unwrap();
    assert!(!acted.changed);
    let ran = Ran { capture: capture.clone(), outputs: acted.outputs, changed: false };
    assert!(!lab.undo(&Service(Verb::Started), &with, &ran).await.unwrap().changed);
    assert_eq!(lab.text("active"), "active");

    // Interrupted: it may be the step's own. And so in a capture of runback 0.1, whose actions noted nothing.
    let with = json!({"unit": "die"});
    lab.put("active", "inactive");
    lab.act(&Service(Verb::Started), &with, &capture).await.unwrap_err();
    assert!(lab.undo_unfinished(&Service(Verb::Started), &with, &capture).await.unwrap().changed);
    lab.put("active", "active");
    lab.host.notes.lock().unwrap().clear();
    let old = json!({"name": "app", "active": "inactive", "enabled": "disabled"});
    assert!(lab.undo_unfinished(&Service(Verb::Started), &json!({"unit": "app"}), &old).await.unwrap().changed);
    assert_eq!(lab.text("active"), "inactive");
}
