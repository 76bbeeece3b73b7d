//! The rbd and ceph step types, and the playbook for a stuck lock, against a real Ceph (one monitor, one OSD, on
//! loopback; installed with apt where it is missing). Where it cannot be had, each test says that it is skipped, and in
//! CI it fails.

#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "real/ceph/lab.rs"]
mod lab;

use std::time::Duration;

use lab::{Client, Cluster, Hold, Runback, own, shared, until};
use serde_json::{Value, json};

const FENCE: &str = "10.255.0.7:0/0";

/// Inputs of a step about an image.
fn of(cluster: &Cluster, image: &str, more: &Value) -> Value {
    let mut with = json!({"image": image, "conf": cluster.conf()});
    for (key, value) in more.as_object().unwrap() {
        with[key] = value.clone();
    }
    with
}

/// One step that removes a lock.
fn lock_rm(cluster: &Cluster, image: &str, lock: &Value, more: &Value) -> Value {
    let mut with = of(cluster, image, more);
    with["lock"] = lock.clone();
    json!([{"id": "unlock", "uses": "rbd.lock_rm", "with": with}])
}

#[test]
fn the_happy_path() {
    let Some(cluster) = shared() else { return };
    let runback = Runback::new();
    let lock = cluster.stuck("happy", "node1");
    let ran = runback.unlock("happy", cluster, "happy", &["fence_for=48h"]);
    assert_eq!(ran.code, Some(0), "{}", ran.printed);
    assert_eq!(cluster.locks("happy"), json!([]));
    let until = cluster.blocklist()[FENCE].as_str().unwrap().to_owned();
    assert_eq!(ran.show["outputs"]["fenced"][FENCE], json!(until));
    assert_eq!(ran.show["outputs"]["snapshot"], "rbd/happy@before-unlock-happy");
    assert_eq!(cluster.snaps("happy")[0]["name"], "before-unlock-happy");
    assert_eq!(ran.step("unlock")["outputs"]["removed"], true);
    // What rbd fences by itself is the address of the process that took the lock.
    assert!(cluster.blocklist()[lock["address"].as_str().unwrap()].is_string());
    let asked = runback.asked();
    assert!(asked.contains("delete pods -l app=index-api --field-selector status.phase=Pending"), "{asked}");
    cluster.rbd(&["lock", "add", "happy", "kubelet_lock_magic_node2"]);

    // Once more: the new node's lock is none of ours.
    let again = runback.unlock("again", cluster, "happy", &[]);
    assert_eq!(again.code, Some(3), "{}", again.printed);
    assert!(again.error("look").contains("there is no lock of node node1"), "{}", again.printed);
    assert_eq!(cluster.locks("happy")[0]["id"], "kubelet_lock_magic_node2");
}

#[test]
fn a_plan_shows_what_it_would_do_and_changes_nothing() {
    let Some(cluster) = shared() else { return };
    let runback = Runback::new();
    cluster.stuck("planned", "node1");
    let of_image = |all: Value| json!([all[0], all[1], all[2], all[3].get("10.255.7.7:0/0")]);
    let before = of_image(cluster.state("planned"));
    let output = runback.plan(cluster, "planned", &["node_address=10.255.7.7"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(of_image(cluster.state("planned")), before);
    assert!(!text.is_empty());
    for told in
        ["rbd/planned: no watcher, 1 lock", "kubelet_lock_magic_node1", "fence 1 of 1", "every client of that machine"]
    {
        assert!(text.contains(told), "{told}: {text}");
    }
    assert!(text.contains("no return"), "{text}");
    assert_eq!(runback.asked(), "", "and asks nobody else");
}

#[test]
fn a_removal_that_fails_takes_fence_and_snapshot_back() {
    let Some(cluster) = shared() else { return };
    let runback = Runback::new();
    let lock = cluster.stuck("refused", "node1");
    let user = [format!("keyring={}", cluster.keyring("fencer"))];
    let ran = runback.unlock("refused", cluster, "refused", &["ceph_id=fencer", &user[0], "node_address=10.255.1.7"]);
    assert_eq!(ran.code, Some(3), "{}", ran.printed);
    assert!(ran.error("unlock").contains("client.fencer may not do that"), "{}", ran.printed);
    for step in ["fence", "safety"] {
        assert_eq!(ran.step(step)["status"], "undone", "{}", ran.show);
    }
    assert_eq!(cluster.blocklist().get("10.255.1.7:0/0"), None);
    assert_eq!(cluster.snaps("refused"), json!([]));
    assert_eq!(cluster.locks("refused"), json!([lock]));
}

#[test]
fn a_client_that_lives_is_refused_by_name() {
    let Some(cluster) = shared() else { return };
    let runback = Runback::new();
    let lock = cluster.stuck("live", "node1");
    let mut client = Client::open(cluster, "live");
    assert_eq!(client.ask("write"), "ok");
    let address = cluster.watchers("live")[0]["address"].as_str().unwrap().to_owned();
    let ran = runback.run("direct", &lock_rm(cluster, "live", &lock, &json!({})));
    assert_eq!(ran.code, Some(3), "{}", ran.printed);
    assert!(ran.error("unlock").contains("open for writing by client."), "{}", ran.printed);
    assert!(ran.error("unlock").contains(&address), "{}", ran.printed);

    let ran = runback.unlock("whole", cluster, "live", &["node_address=10.255.2.7"]);
    assert_eq!(ran.code, Some(3), "{}", ran.printed);
    assert!(ran.error("unused").contains(&address), "{}", ran.printed);
    assert_eq!(cluster.blocklist().get("10.255.2.7:0/0"), None, "nothing was touched");
    assert_eq!(cluster.locks("live"), json!([lock]));
    assert_eq!(client.ask("write"), "ok");

    // Asked to, it fences the client, and what that writes is refused.
    let ran = runback.unlock("fenced", cluster, "live", &["node_address=10.255.2.7", "fence_watchers=true"]);
    assert_eq!(ran.code, Some(0), "{}", ran.printed);
    assert!(cluster.blocklist()[&address].is_string());
    cluster.until_maps_agree();
    assert!(client.ask("write").starts_with("error"));
    assert_eq!(cluster.locks("live"), json!([]));
}

/// The watch of a client that was stopped lapses after about 28 s, so that it looks dead. It is not.
#[test]
fn a_client_that_sleeps_and_wakes_stays_fenced() {
    let Some(cluster) = shared() else { return };
    let runback = Runback::new();
    cluster.stuck("sleeper", "node1");
    cluster.stuck("unfenced", "node1");
    let (mut sleeper, mut unfenced) = (Client::open(cluster, "sleeper"), Client::open(cluster, "unfenced"));
    assert_eq!((sleeper.ask("write"), unfenced.ask("write")), ("ok".to_owned(), "ok".to_owned()));
    let watchers = cluster.watchers("sleeper");
    assert_eq!(watchers.as_array().map(Vec::len), Some(1), "{watchers}");
    let address = watchers[0]["address"].as_str().unwrap();
    sleeper.pause();
    unfenced.pause();
    until("the watches lapse", || {
        cluster.watchers("sleeper") == json!([]) && cluster.watchers("unfenced") == json!([])
    });
    let ran = runback.unlock("sleeper", cluster, "sleeper", &[&format!("node_address={address}")]);
    assert_eq!(ran.code, Some(0), "{}", ran.printed);
    cluster.until_maps_agree();
    sleeper.wake();
    unfenced.wake();
    // What it believes is one thing, and what the image holds is what counts.
    let answer = sleeper.ask("overwrite");
    let all = || format!("{address} of {watchers} said {answer:?}, blocklist {}\n{}", cluster.blocklist(), ran.printed);
    assert_eq!(cluster.first_byte("sleeper"), 'x', "the fence holds: {}", all());
    assert_ne!(answer, "ok", "{}", all());
    assert_eq!(unfenced.ask("overwrite"), "ok", "and without one it would have written");
    assert_eq!(cluster.first_byte("unfenced"), 'y');
}

#[test]
fn locks_that_must_not_be_removed() {
    let Some(cluster) = shared() else { return };
    let runback = Runback::new();

    cluster.image("shared", "layering");
    for id in ["a", "b"] {
        cluster.rbd(&["lock", "add", "--shared", "tag", "shared", id]);
    }
    let both = cluster.locks("shared");
    let ran = runback.run("shared", &lock_rm(cluster, "shared", &both[0], &json!({})));
    assert_eq!(ran.code, Some(3), "{}", ran.printed);
    assert!(ran.error("unlock").contains("shared lock `a`"), "{}", ran.printed);
    assert_eq!(cluster.locks("shared"), both);
    let ran = runback.run("allowed", &lock_rm(cluster, "shared", &both[0], &json!({"allow": ["shared"]})));
    assert_eq!(ran.code, Some(0), "{}", ran.printed);
    assert_eq!(cluster.locks("shared"), json!([both[1]]));

    // The right id and a wrong locker, and the other way round. rbd would blocklist the right locker all the same.
    let lock = cluster.stuck("misnamed", "node1");
    for (run, key, wrong) in [("locker", "locker", "client.1"), ("id", "id", "kubelet_lock_magic_node2")] {
        let mut named = lock.clone();
        named[key] = json!(wrong);
        let ran = runback.run(run, &lock_rm(cluster, "misnamed", &named, &json!({})));
        assert_eq!(ran.code, Some(3), "{}", ran.printed);
        assert!(ran.error("unlock").contains(wrong), "{}", ran.printed);
    }
    assert_eq!(cluster.locks("misnamed"), json!([lock]));
    assert_eq!(cluster.blocklist().get(lock["address"].as_str().unwrap()), None, "nobody was fenced by mistake");

    cluster.image("auto", "layering,exclusive-lock");
    let mut client = Client::open(cluster, "auto");
    assert_eq!(client.ask("lock"), "ok");
    let auto = cluster.locks("auto")[0].clone();
    assert!(auto["id"].as_str().unwrap().starts_with("auto "), "{auto}");
    // Checked before the run where it stands in the playbook, and again with what a step found.
    let steps = json!([
        {"id": "look", "uses": "rbd.lock_check", "with": of(cluster, "auto", &json!({}))},
        {"id": "unlock", "uses": "rbd.lock_rm", "with": of(cluster, "auto",
            &json!({"lock": "{{steps.look.outputs.lock}}", "allow": ["watchers", "shared"]}))},
    ]);
    let ran = runback.run("auto", &steps);
    assert_eq!(ran.code, Some(3), "{}", ran.printed);
    assert_eq!(ran.step("look")["outputs"]["locks"][0]["kind"], "auto");
    assert!(ran.error("unlock").contains("never removed by hand"), "{}", ran.printed);
    assert_eq!(client.ask("write"), "ok");

    // A snapshot wants that lock too, and a lock taken by hand is in its way.
    cluster.image("both", "layering,exclusive-lock");
    cluster.rbd(&["lock", "add", "both", "kubelet_lock_magic_node1"]);
    let snap = json!([{"id": "snap", "uses": "rbd.snap_create", "with": of(cluster, "both", &json!({"snap": "s"}))}]);
    let ran = runback.run("both", &snap);
    assert!(ran.error("snap").contains("exclusive-lock feature"), "{}", ran.printed);
}

#[test]
fn what_is_missing_is_named() {
    let Some(cluster) = shared() else { return };
    let runback = Runback::new();
    cluster.image("there", "layering");
    for (run, image, more, says) in [
        ("image", "nowhere", json!({}), "rbd/nowhere: there is no such image"),
        ("pool", "there", json!({"pool": "nopool"}), "nopool/there: there is no such pool"),
        ("namespace", "there", json!({"namespace": "team"}), "rbd/team/there: there is no such namespace"),
        ("user", "there", json!({"id": "nobody"}), "the cluster refuses client.nobody"),
        (
            "conf",
            "there",
            json!({"conf": "/nowhere/ceph.conf"}),
            "the configuration file of the cluster cannot be read",
        ),
    ] {
        let steps = json!([{"id": "look", "uses": "rbd.info", "with": of(cluster, image, &more)}]);
        let ran = runback.run(run, &steps);
        assert_eq!(ran.code, Some(3), "{}", ran.printed);
        assert!(ran.error("look").contains(says), "{}", ran.printed);
    }
}

#[test]
fn no_permission_says_which_one() {
    let Some(cluster) = shared() else { return };
    let runback = Runback::new();
    let lock = cluster.stuck("forbidden", "node1");
    let reader = json!({"id": "reader", "keyring": cluster.keyring("reader")});
    let ran = runback.run("lock", &lock_rm(cluster, "forbidden", &lock, &reader));
    assert_eq!(ran.code, Some(3), "{}", ran.printed);
    assert!(ran.error("unlock").contains("client.reader may not do that"), "{}", ran.printed);
    assert!(ran.error("unlock").contains("mon 'profile rbd'"), "{}", ran.printed);
    assert_eq!(cluster.locks("forbidden"), json!([lock]));

    let mut with = json!({"addresses": ["10.255.3.7"], "conf": cluster.conf()});
    with["id"] = reader["id"].clone();
    with["keyring"] = reader["keyring"].clone();
    let ran = runback.run("fence", &json!([{"id": "fence", "uses": "ceph.blocklist", "with": with}]));
    assert!(ran.error("fence").contains("osd blocklist"), "{}", ran.printed);
    assert_eq!(cluster.blocklist().get("10.255.3.7:0/0"), None);
}

#[test]
fn a_monitor_that_is_not_there_is_waited_for_as_long_as_was_said() {
    let Some(cluster) = shared() else { return };
    let runback = Runback::new();
    // Port 9 of this machine: nobody answers there.
    let conf = std::fs::read_to_string(cluster.conf()).unwrap();
    let line = conf.lines().find(|l| l.starts_with("mon_host")).unwrap();
    let nowhere = runback.path("nowhere.conf");
    std::fs::write(&nowhere, conf.replace(line, "mon_host = [v2:127.0.0.1:9]")).unwrap();
    let more = json!({"conf": nowhere, "timeout": "3s"});
    let look = json!([{"id": "look", "uses": "rbd.info", "with": of(cluster, "any", &more)}]);
    let ran = runback.run("rbd", &look);
    assert_eq!(ran.code, Some(3), "{}", ran.printed);
    assert!(ran.error("look").contains("no monitor answered within 3s"), "{}", ran.printed);
    assert_eq!(ran.step("look")["error"]["class"], "timeout");
    assert!(ran.took > Duration::from_secs(2) && ran.took < Duration::from_secs(120), "{:?}", ran.took);
    let with = json!({"addresses": ["10.255.4.7"], "conf": nowhere, "timeout": "2s"});
    let ran = runback.run("ceph", &json!([{"id": "fence", "uses": "ceph.blocklist", "with": with}]));
    assert!(ran.error("fence").contains("no monitor answered within 2s"), "{}", ran.printed);
    assert!(ran.took < Duration::from_secs(120), "{:?}", ran.took);
}

#[test]
fn a_fence_is_taken_back_alone_and_never_shortened() {
    let Some(cluster) = shared() else { return };
    let runback = Runback::new();
    cluster.ceph(&["osd", "blocklist", "add", "10.255.5.8:0/0", "200000"]);
    let others = cluster.blocklist()["10.255.5.8:0/0"].clone();
    let with = json!({"addresses": ["10.255.5.7", "10.255.5.8", "10.255.5.7:0/42"], "conf": cluster.conf()});
    let fence = json!({"id": "fence", "uses": "ceph.blocklist", "with": with});
    let ran = runback.run("fence", &json!([fence]));
    assert_eq!(ran.code, Some(0), "{}", ran.printed);
    assert_eq!(ran.step("fence")["outputs"]["added"], json!(["10.255.5.7:0/0", "10.255.5.7:0/42"]));
    let back = runback.ended("fence", &["rollback", "fence", "--output", "lines"]);
    assert_eq!(back.show["status"], "rolled-back", "{}", back.printed);
    let map = cluster.blocklist();
    assert_eq!((map.get("10.255.5.7:0/0"), map.get("10.255.5.7:0/42")), (None, None));
    assert_eq!(map["10.255.5.8:0/0"], others);

    // Ceph says that it extends an entry, and does not.
    cluster.ceph(&["osd", "blocklist", "add", "10.255.5.9:0/0", "3600"]);
    let with = json!({"addresses": ["10.255.5.9"], "conf": cluster.conf()});
    let ran = runback.run("short", &json!([{"id": "fence", "uses": "ceph.blocklist", "with": with}]));
    assert!(ran.error("fence").contains("Ceph does not extend an entry"), "{}", ran.printed);
}

#[test]
fn snapshots_come_and_go() {
    let Some(cluster) = shared() else { return };
    let runback = Runback::new();
    cluster.image("snaps", "layering");
    let snap = |name: &str| of(cluster, "snaps", &json!({"snap": name}));
    let two = json!([
        {"id": "take", "uses": "rbd.snap_create", "with": snap("golden")},
        {"id": "protect", "uses": "rbd.snap_protect", "with": snap("golden")},
        {"id": "break", "uses": "exec", "with": {"command": ["false"]}},
    ]);
    let ran = runback.run("broken", &two);
    assert_eq!(ran.code, Some(3), "{}", ran.printed);
    assert_eq!(ran.step("protect")["outputs"]["protected"], true);
    assert_eq!(cluster.snaps("snaps"), json!([]));

    // Back to a snapshot, and back from there.
    let digest = || cluster.rbd(&["export", "--no-progress", "snaps", "-"]);
    let empty = digest();
    cluster.rbd(&["snap", "create", "--no-progress", "snaps@empty"]);
    assert_eq!(Client::open(cluster, "snaps").ask("write"), "ok");
    let written = digest();
    assert_ne!(empty, written);
    until("the client is gone", || cluster.watchers("snaps") == json!([]));
    let ran = runback.run("back", &json!([{"id": "back", "uses": "rbd.snap_rollback", "with": snap("empty")}]));
    assert_eq!(ran.code, Some(0), "{}", ran.printed);
    assert_eq!(digest(), empty);
    let forth = runback.ended("back", &["rollback", "back", "--output", "lines"]);
    assert_eq!(forth.show["status"], "rolled-back", "{}", forth.printed);
    assert_eq!(digest(), written);
    assert_eq!(cluster.snaps("snaps").as_array().unwrap().len(), 1, "the safety snapshot is gone again");

    let ran = runback.run("tidy", &json!([{"id": "tidy", "uses": "rbd.snap_remove", "with": snap("empty")}]));
    assert_eq!(ran.code, Some(0), "{}", ran.printed);
    assert_eq!(cluster.snaps("snaps"), json!([]));
}

/// Everything dies between the last look at the lock and its removal. After the cluster's return the run goes on.
#[test]
fn a_cluster_that_dies_in_the_middle_is_waited_for_and_resumed() {
    let Some(cluster) = own() else { return };
    let runback = Runback::new();
    let lock = cluster.stuck("dying", "node1");
    runback.hold_the_removal(Hold::Before);
    let with = of(cluster, "dying", &json!({"timeout": "15s", "lock": lock}));
    let steps = json!([
        {"id": "before", "uses": "rbd.snap_create", "with": of(cluster, "dying", &json!({"snap": "s"}))},
        {"id": "unlock", "uses": "rbd.lock_rm", "with": with},
    ]);
    let file = runback.write("dying", &json!({"runback": 1, "name": "dying", "steps": steps}));
    let words = ["run", &file, "--run-id", "dying", "--on-failure", "hold", "--output", "lines"];
    let mut running = runback.command(&words).stdout(std::process::Stdio::null()).spawn().unwrap();
    until("the removal begins", || runback.path("held").exists());
    cluster.kill();
    std::fs::write(runback.path("go"), "").unwrap();
    assert_eq!(running.wait().unwrap().code(), Some(1), "failed and held");
    let held = runback.ended("dying", &["why", "dying"]);
    let error = held.error("unlock");
    assert!(error.contains("no monitor answered within 15s"), "{error}");
    assert!(error.contains("whether the lock is gone cannot be read"), "{error}");
    assert!(error.contains("keep every fence"), "{error}");

    cluster.start_again();
    assert_eq!(cluster.locks("dying"), json!([lock]), "nothing was removed");
    let ran = runback.ended("dying", &["resume", "dying", "--output", "lines"]);
    assert_eq!(ran.code, Some(0), "{}", ran.printed);
    assert_eq!(ran.step("before")["attempts"], 1);
    assert_eq!(ran.step("unlock")["outputs"]["removed"], true);
    assert_eq!(cluster.locks("dying"), json!([]));
}

/// runback itself is killed, once before the removal has happened and once after: it looks, and does what is left.
#[test]
fn a_run_that_is_killed_in_the_middle_looks_before_it_goes_on() {
    let Some(cluster) = shared() else { return };
    for (name, hold) in [("killed-before", Hold::Before), ("killed-after", Hold::After)] {
        let runback = Runback::new();
        let lock = cluster.stuck(name, "node1");
        runback.hold_the_removal(hold);
        let steps = lock_rm(cluster, name, &lock, &json!({}));
        let file = runback.write(name, &json!({"runback": 1, "name": name, "steps": steps}));
        let words = ["run", &file, "--run-id", name, "--output", "lines"];
        let mut running = runback.command(&words).stdout(std::process::Stdio::null()).spawn().unwrap();
        until("the removal is held", || runback.path("held").exists());
        running.kill().unwrap();
        running.wait().unwrap();
        until("what it held ended with it", || {
            let held =
                std::process::Command::new("pgrep").args(["-f", &runback.path("bin").display().to_string()]).output();
            held.unwrap().stdout.is_empty()
        });
        let there = if hold == Hold::Before { json!([lock]) } else { json!([]) };
        assert_eq!(cluster.locks(name), there);

        std::fs::write(runback.path("go"), "").unwrap();
        let ran = runback.ended(name, &["resume", name, "--output", "lines"]);
        assert_eq!(ran.code, Some(0), "{}", ran.printed);
        assert_eq!(cluster.locks(name), json!([]));
        assert_eq!(ran.step("unlock")["changed"], true);
        assert_eq!(ran.step("unlock")["outputs"]["removed"], true, "{}", ran.show);
        let removals = std::fs::read_to_string(runback.path("removals")).unwrap();
        assert_eq!(removals.lines().count(), if hold == Hold::Before { 2 } else { 1 }, "{removals}");
    }
}
