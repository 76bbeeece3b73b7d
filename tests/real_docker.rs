//! The compose and docker step types against a real Docker daemon, and docker-compose 1.29. Each test has a daemon of its
//! own. Where it cannot be had, each test says that it is skipped, and in CI it fails.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "tests, which say when they are skipped")]

#[path = "real/docker/lab.rs"]
mod lab;
#[path = "real/docker/link.rs"]
mod link;
#[path = "real/docker/machine.rs"]
mod machine;
#[path = "real/docker/nodes.rs"]
mod nodes;
#[path = "real/docker/registry.rs"]
mod registry;

use std::process::Stdio;

use lab::{Daemon, Runback, daemon, until};
use serde_json::{Value, json};

/// Two services; `web` is healthy where /ok is in its image, and has all that a container can lose: an environment, a
/// volume with a name, one without, an alias, a port and a folder of the machine's.
const COMPOSE: &str = "\
version: '2.4'
services:
  web:
    image: test/web:1
    environment: { GREETING: \"hello  world\" }
    env_file: [web.env]
    volumes:
      - ./data:/data
      - named:/named
      - /anonymous
    networks: { default: { aliases: [front] } }
    healthcheck: { test: [CMD, test, -f, /ok], interval: 1s, retries: 2 }
    stop_grace_period: 1s
    depends_on: [log]
  log:
    image: test/web:1
    stop_grace_period: 1s
volumes: { named: {} }
";

fn images(daemon: &Daemon) {
    daemon.image("test/web:1", "RUN [\"touch\", \"/ok\"]\nCMD [\"sleep\", \"1000\"]");
    daemon.image("test/web:2", "CMD [\"sleep\", \"1001\"]");
}

/// The project's folder.
fn project(runback: &Runback) {
    runback.put("app/docker-compose.yml", COMPOSE);
    runback.put("app/web.env", "PASSWORD=s3cret canary\n");
}

fn up() -> Value {
    json!([
        {"id": "up", "uses": "compose.up", "with": {"dir": "app", "wait_timeout": "45s"}},
        {"id": "well", "uses": "compose.check", "with": {"dir": "app", "window": "1s", "timeout": "2m"}},
    ])
}

#[test]
fn a_project_comes_up_is_well_and_goes_again() {
    let Some(daemon) = daemon() else { return };
    images(&daemon);
    let runback = Runback::new(&daemon);
    project(&runback);
    runback.put("app/data/keep", "x");
    let before = runback.listing("app");
    let ran = runback.run("first", &up());
    assert_eq!(ran.code, Some(0), "{}", ran.printed);
    assert_eq!(daemon.containers(), ["app_log_1", "app_web_1"]);
    assert_eq!(ran.step("up")["outputs"]["containers"][1]["service"], "web");
    assert_eq!(daemon.inspect("app_web_1")["State"]["Health"]["Status"], "healthy");
    assert_eq!(runback.listing("app"), before, "nothing to keep, nothing kept");

    let again = runback.run("second", &up());
    assert_eq!(again.step("up")["changed"], false, "{}", again.show);
    let taken_back = runback.rollback("second");
    assert_eq!(daemon.containers().len(), 2, "a step that changed nothing takes nothing back: {}", taken_back.printed);

    let gone = runback.rollback("first");
    assert_eq!(gone.show["status"], "rolled-back", "{}", gone.printed);
    assert!(daemon.containers().is_empty() && daemon.networks().is_empty());
    assert!(gone.printed.contains("app_named"), "the volume that stays is named: {}", gone.printed);
    assert_eq!(runback.listing("app"), before);
}

#[test]
fn a_failed_health_check_brings_the_previous_containers_back() {
    let Some(daemon) = daemon() else { return };
    images(&daemon);
    let runback = Runback::new(&daemon);
    project(&runback);
    assert_eq!(runback.run("first", &up()).code, Some(0));
    daemon.docker(&["exec", "app_web_1", "sh", "-c", "echo 1 >/named/a; echo 2 >/anonymous/b"]);
    let (files, old, network) =
        (runback.listing("app"), daemon.inspect("app_web_1"), daemon.docker(&["network", "inspect", "app_default"]));

    let mut steps = json!([
        {"id": "edit", "uses": "file.edit", "with": {"path": "app/docker-compose.yml", "edits": [
            {"set": "services.web.image", "value": "test/web:2"},
            {"set": "services.web.environment.GREETING", "value": "another"},
        ]}},
    ]);
    steps.as_array_mut().unwrap().extend(up().as_array().unwrap().clone());
    let ran = runback.run("second", &steps);
    assert_eq!(ran.code, Some(3), "{}", ran.printed);
    assert!(ran.error("up").contains("web is"), "{}", ran.error("up"));
    assert_eq!(runback.listing("app"), files, "no file of ours is left");

    let new = daemon.inspect("app_web_1");
    assert_eq!((&new["Image"], &new["State"]["Running"]), (&old["Image"], &json!(true)));
    for part in ["Env", "Cmd", "Labels", "Healthcheck", "Image"] {
        assert_eq!(new["Config"][part], old["Config"][part], "{part}");
    }
    let aliases = |c: &Value| {
        c["NetworkSettings"]["Networks"]["app_default"]["Aliases"].as_array().unwrap().contains(&json!("front"))
    };
    assert!(aliases(&new), "{new}");
    assert_eq!(daemon.docker(&["exec", "app_web_1", "cat", "/named/a", "/anonymous/b"]), "1\n2");
    assert_eq!(
        daemon.docker(&["network", "inspect", "app_default"]).contains("app_web_1"),
        network.contains("app_web_1")
    );
    // Compose itself takes it for what its file asks for.
    let id = new["Id"].clone();
    let compose = daemon.compose(&runback.path("app"), &["up", "-d"]);
    assert!(compose.status.success(), "{}", lab::text(&compose.stderr));
    assert_eq!(daemon.inspect("app_web_1")["Id"], id);
    assert!(!contains_secret(&runback), "the environment of a container is in no byte that runback keeps");
}

/// The canary of the container's environment, in the state directory.
fn contains_secret(runback: &Runback) -> bool {
    let grep = std::process::Command::new("grep").args(["-r", "s3cret canary"]).arg(runback.path("state")).output();
    grep.unwrap().status.success()
}

#[test]
fn killed_in_the_middle_of_up_it_goes_on_or_back() {
    let Some(daemon) = daemon() else { return };
    images(&daemon);
    for (run, on) in [("on", true), ("back", false)] {
        let runback = Runback::new(&daemon);
        project(&runback);
        runback.hold_compose_up();
        let file = runback.playbook(run, &up());
        let mut child = runback
            .command(&["run", &file, "--run-id", run, "--output", "lines"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        until("compose has done its work", || runback.path("held").exists());
        child.kill().unwrap();
        child.wait().unwrap();
        until("compose ended with runback", || {
            let held =
                std::process::Command::new("pgrep").args(["-f", &runback.path("bin").display().to_string()]).output();
            held.unwrap().stdout.is_empty()
        });
        assert_eq!(daemon.containers().len(), 2);
        runback.put("go", "");
        let ran = if on { runback.ended(run, &["resume", run, "--output", "lines"]) } else { runback.rollback(run) };
        if on {
            assert_eq!(ran.code, Some(0), "{}", ran.printed);
            assert_eq!(daemon.containers(), ["app_log_1", "app_web_1"]);
            assert_eq!(runback.rollback(run).show["status"], "rolled-back");
        }
        assert!(daemon.containers().is_empty() && daemon.networks().is_empty(), "{}", ran.printed);
        daemon.docker(&["volume", "rm", "--force", "app_named"]);
    }
}

#[test]
fn what_is_in_the_way_is_named() {
    let Some(mut daemon) = daemon() else { return };
    images(&daemon);
    let runback = Runback::new(&daemon);
    let once =
        |dir: &str| json!([{"id": "up", "uses": "compose.up", "with": {"dir": dir}, "retry": {"max_attempts": 1}}]);

    runback.put("bad/docker-compose.yml", "version: '2'\nservices:\n  a:\n    image: x\n   b: 1\n");
    let bad = runback.run("bad", &once("bad"));
    assert_eq!(bad.code, Some(3), "{}", bad.printed);
    assert!(
        bad.error("up").contains("line 5, column 4") && bad.error("up").contains("correct the compose file"),
        "{}",
        bad.error("up")
    );

    runback.put("key/docker-compose.yml", "version: '2'\nservices:\n  a:\n    image: x\n    prots: [1]\n");
    let key = runback.run("key", &once("key"));
    assert!(key.error("up").contains("Unsupported config option for services.a: 'prots'"), "{}", key.error("up"));

    runback.put("none/docker-compose.yml", "version: '2'\nservices:\n  a:\n    image: 127.0.0.1:1/none:1\n");
    let none = runback.run("none", &once("none"));
    assert!(
        none.error("up").contains("127.0.0.1:1") && none.error("up").contains("registry could not be reached"),
        "{}",
        none.error("up")
    );
    assert!(daemon.networks().is_empty(), "the network that compose had made is gone");

    let taken = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    runback.put(
        "port/docker-compose.yml",
        &format!("version: '2'\nservices:\n  a:\n    image: test/web:1\n    ports: ['{port}:80']\n"),
    );
    let busy = runback.run("port", &once("port"));
    assert!(
        busy.error("up").contains(&port.to_string()) && busy.error("up").contains("something else has that port"),
        "{}",
        busy.error("up")
    );
    assert_eq!(busy.step("up")["error"]["class"], "conflict");
    assert!(daemon.containers().is_empty() && daemon.networks().is_empty());

    runback.put("loop/docker-compose.yml", "version: '2'\nservices:\n  a:\n    image: test/web:1\n    restart: always\n    command: [sh, -c, 'sleep 0.4; exit 3']\n");
    let steps = json!([
        {"id": "up", "uses": "compose.up", "with": {"dir": "loop", "wait": false}},
        {"id": "well", "uses": "compose.check", "with": {"dir": "loop", "window": "5s", "timeout": "20s"}, "retry": {"max_attempts": 1}},
    ]);
    let looped = runback.run("loop", &steps);
    assert_eq!(looped.code, Some(3), "{}", looped.printed);
    assert!(looped.error("well").contains("not well after 20s: a was restarted"), "{}", looped.error("well"));
    assert!(daemon.containers().is_empty());

    daemon.stop();
    runback.put("off/docker-compose.yml", "version: '2'\nservices:\n  a:\n    image: test/web:1\n");
    let off = runback.run("off", &once("off"));
    assert!(off.error("up").contains("the daemon does not answer"), "{}", off.error("up"));
    assert_eq!(off.step("up")["error"]["class"], "transient");
}

#[test]
fn a_daemon_that_stops_in_the_middle_leaves_what_can_be_taken_back_later() {
    let Some(mut daemon) = daemon() else { return };
    images(&daemon);
    let runback = Runback::new(&daemon);
    // Never healthy, and never ended for good: it is waited for until the daemon is gone.
    let app = COMPOSE.replacen("image: test/web:1", "image: test/web:2\n    restart: always", 1);
    runback.put("app/docker-compose.yml", &app.replace("  log:\n", "  log:\n    restart: always\n"));
    runback.put("app/web.env", "A=b\n");
    runback.put("app/data/keep", "x");
    let before = (runback.listing("app"), daemon.networks());
    let steps = once("compose.up", &json!({"dir": "app", "wait_timeout": "5m"}));
    let file = runback.playbook("mid", &steps);
    let child = runback
        .command(&["run", &file, "--run-id", "mid", "--output", "lines"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until("both run", || daemon.docker(&["ps", "--quiet"]).lines().count() == 2);
    daemon.stop();
    let output = child.wait_with_output().unwrap();
    let printed = lab::text(&output.stdout) + &lab::text(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{printed}");
    assert!(printed.contains("the daemon does not answer") && printed.contains("runback rollback mid"), "{printed}");
    daemon.start();
    assert_eq!(daemon.containers().len(), 2, "what is left is told, not lost");
    let back = runback.rollback("mid");
    assert_eq!(back.show["status"], "rolled-back", "{}", back.printed);
    assert!(daemon.containers().is_empty());
    assert_eq!((runback.listing("app"), daemon.networks()), before);
}

#[test]
fn a_project_that_was_taken_down_comes_back_as_it_was() {
    let Some(daemon) = daemon() else { return };
    images(&daemon);
    let runback = Runback::new(&daemon);
    project(&runback);
    assert_eq!(runback.run("up", &up()).code, Some(0));
    let before = daemon.inspect("app_web_1");
    let down = json!([
        {"id": "down", "uses": "compose.down", "with": {"dir": "app"}},
        {"id": "no", "uses": "assert", "with": {"that": ["steps.down.outputs.removed.size() == 3"]}},
    ]);
    let ran = runback.run("down", &down);
    assert_eq!(ran.code, Some(3), "{}", ran.printed);
    assert_eq!(ran.step("down")["outputs"]["removed"], json!(["app_log_1", "app_web_1"]));
    let after = daemon.inspect("app_web_1");
    assert_eq!((&after["Config"]["Env"], &after["State"]["Running"]), (&before["Config"]["Env"], &json!(true)));
    assert_eq!(daemon.networks(), ["app_default"]);
    let restart = json!([{"id": "again", "uses": "compose.restart", "with": {"dir": "app", "wait_timeout": "3m"}}]);
    assert_eq!(runback.run("restart", &restart).code, Some(0));
    assert_ne!(daemon.inspect("app_web_1")["State"]["StartedAt"], after["State"]["StartedAt"]);
}

/// Its names (`app-web-1`), its labels, its way to replace a container, and its words for what is wrong.
#[test]
fn compose_version_2_as_its_recordings_show_it() {
    let Some(daemon) = daemon() else { return };
    images(&daemon);
    let runback = Runback::new(&daemon);
    runback.use_compose_2();
    let file = |image: &str| format!("services:\n  log:\n    image: test/web:1\n  web:\n    image: {image}\n");
    runback.put("app/docker-compose.yml", &file("test/web:1"));
    let first = runback.run("first", &up());
    assert_eq!(first.code, Some(0), "{}", first.printed);
    assert_eq!(daemon.containers(), ["app-log-1", "app-web-1"]);
    assert_eq!(first.step("well")["outputs"]["containers"][1]["name"], "app-web-1");
    assert_eq!(runback.run("again", &up()).step("up")["changed"], false);
    let old = daemon.inspect("app-web-1");

    // The new image has no service that stays up: what was there comes back, under its own name.
    daemon.image("test/web:3", "CMD [\"false\"]");
    runback.put("app/docker-compose.yml", &file("test/web:3"));
    let failed = runback.run("failed", &up());
    assert_eq!(failed.code, Some(3), "{}", failed.printed);
    assert!(failed.error("up").contains("web ended with exit code 1"), "{}", failed.error("up"));
    assert_eq!(daemon.containers(), ["app-log-1", "app-web-1"]);
    let back = daemon.inspect("app-web-1");
    assert_eq!((&back["Image"], &back["State"]["Running"]), (&old["Image"], &json!(true)));
    assert_eq!(back["Config"]["Labels"], old["Config"]["Labels"]);

    // Cut off between the removal of the old container and the new one's getting its name.
    runback.put("app/docker-compose.yml", &file("test/web:2"));
    runback.put("bin/cut", "");
    let cut = runback.run("cut", &once("compose.up", &json!({"dir": "app"})));
    assert_eq!(cut.code, Some(3), "{}", cut.printed);
    assert_eq!(daemon.containers(), ["app-log-1", "app-web-1"]);
    assert_eq!(daemon.inspect("app-web-1")["Image"], old["Image"]);
    std::fs::remove_file(runback.path("bin/cut")).unwrap();

    let restart = runback.run("restart", &once("compose.restart", &json!({"dir": "app", "wait_timeout": "3m"})));
    assert_eq!(restart.code, Some(0), "{}", restart.printed);
    let down = runback.run("down", &once("compose.down", &json!({"dir": "app"})));
    assert_eq!(down.step("it")["outputs"]["removed"], json!(["app-log-1", "app-web-1"]), "{}", down.printed);
    assert!(daemon.containers().is_empty() && daemon.networks().is_empty());
    assert_eq!(runback.rollback("down").show["status"], "rolled-back");
    assert_eq!(daemon.containers(), ["app-log-1", "app-web-1"]);

    for (run, text, says, help) in [
        (
            "bad",
            "services:\n  web:\n    image: x\n   b: 1\n",
            "yaml: line 4: did not find expected key",
            "correct the compose file",
        ),
        (
            "key",
            "services:\n  web:\n    image: x\n    prots: [1]\n",
            "Additional property prots is not allowed",
            "correct the compose file",
        ),
        ("none", &file("127.0.0.1:1/none:1"), "127.0.0.1:1", "registry could not be reached"),
    ] {
        runback.put(&format!("{run}/docker-compose.yml"), text);
        let ran = runback.run(run, &once("compose.up", &json!({"dir": run})));
        let error = ran.error("it");
        assert!(error.contains(says) && error.contains(help), "{error}");
        assert!(!error.contains("Pulling"), "progress is not the reason: {error}");
    }
    let asked = std::fs::read_to_string(runback.path("bin/asked")).unwrap();
    assert!(asked.contains("--ansi never --project-name app up --detach\n"), "{asked}");
}

/// The playbook that ships, on three hosts; its targets and inputs are those of the test.
fn harbor(runback: &mut Runback, nodes: &nodes::Nodes) -> [String; 2] {
    let shipped = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/playbooks/harbor-ha.yaml")).unwrap();
    let (before, rest) = shipped.split_once("\ntargets:\n").unwrap();
    let (_, after) = rest.split_once("\n\n").unwrap();
    let inventory: Vec<String> = nodes
        .all
        .iter()
        .map(|node| {
            format!(
                "{} ansible_host={} ansible_user=root ansible_ssh_private_key_file={} \
                 ansible_ssh_common_args='-o UserKnownHostsFile={} -o IdentitiesOnly=yes'\n",
                node.name,
                node.address,
                nodes.key.display(),
                nodes.known_hosts.display()
            )
        })
        .collect();
    runback.put("hosts.ini", &format!("[nodes]\n{}", inventory.concat()));
    let file = runback.put("harbor-ha.yaml", &format!("{before}\ntargets: {{ inventory: hosts.ini }}\n\n{after}"));
    let addresses: serde_json::Map<_, _> =
        nodes.all.iter().map(|n| (n.name.clone(), json!(format!("{}:8070", n.address)))).collect();
    let inputs = json!({
        "balancer": nodes.balancer, "addresses": addresses, "share": "/shared", "share_type": "none", "share_options": "bind",
        "db_host": "10.9.9.9", "redis": "10.9.9.8:6379", "reload_docker": ["sh", "-c", "kill -HUP $(cat /run/docker.pid)"],
    });
    let inputs = runback.put("inputs.json", &inputs.to_string());
    runback.set_env("HARBOR_DB_PASSWORD", "db-canary-1");
    runback.set_env("HARBOR_ADMIN_PASSWORD", "admin-canary-2");
    [file, inputs].map(|p| p.display().to_string())
}

#[test]
fn harbor_comes_up_on_three_hosts_and_with_one_broken_goes_back_to_the_byte() {
    let Some(daemon) = daemon() else { return };
    daemon.image("test/standin:1", "");
    let nodes = nodes::Nodes::start(&daemon, "test/standin:1");
    let mut runback = Runback::new(&daemon);
    let [file, inputs] = harbor(&mut runback, &nodes);
    let before = nodes.state();

    // One node broken on purpose: something else has the port there.
    nodes.all[2].told("nohup busybox nc -l -p 8070 >/dev/null 2>&1 & echo $! >/run/squatter; sleep 0.3");
    let broken =
        runback.ended("broken", &["run", &file, "--run-id", "broken", "--inputs", &inputs, "--output", "lines"]);
    assert_eq!(broken.code, Some(3), "{}", broken.printed);
    assert_eq!(broken.show["status"], "rolled-back", "{}", broken.printed);
    assert!(broken.printed.contains("8070"), "{}", broken.printed);
    assert_eq!(nodes.state(), before, "every file is as before, to the byte");
    nodes.all[2].told("kill $(cat /run/squatter)");

    let ran = runback.ended("whole", &["run", &file, "--run-id", "whole", "--inputs", &inputs, "--output", "lines"]);
    assert_eq!(ran.code, Some(0), "{}", ran.printed);
    for node in &nodes.all {
        assert_eq!(node.told("docker ps --quiet | wc -l"), "6", "the database is not among them");
        let compose = node.told("cat /opt/harbor/docker-compose.yml");
        assert!(
            !compose.contains("mysql")
                && compose.contains("# Signs and checks tokens")
                && compose.contains("/mnt/harbor/registry:/storage:z"),
            "{compose}"
        );
        assert_eq!(
            node.told("sha256sum </opt/harbor/common/config/ui/private_key.pem"),
            nodes.all[0].told("sha256sum </opt/harbor/common/config/ui/private_key.pem")
        );
        assert_eq!(node.told("stat -c %a /opt/harbor/common/config/ui/private_key.pem"), "600");
    }
    let secret = std::process::Command::new("grep")
        .args(["-rlE", "db-canary-1|admin-canary-2"])
        .arg(runback.path("state"))
        .output();
    assert_eq!(lab::text(&secret.unwrap().stdout), "", "no secret in any byte that runback wrote");
    let back = runback.rollback("whole");
    assert_eq!(back.show["status"], "rolled-back", "{}", back.printed);
    assert_eq!(nodes.state(), before);
}

/// A playbook of one step on a host behind a link.
fn far_away(runback: &Runback, host: &link::Host, step: &Value) -> String {
    let target = json!({"ssh": {
        "host": host.address, "user": "root", "identity": host.path("id"),
        "options": {"UserKnownHostsFile": host.path("known"), "IdentitiesOnly": "yes"},
    }});
    let playbook = json!({"runback": 1, "name": "far", "targets": {"far": target}, "defaults": {"target": "far"}, "steps": [step]});
    runback.put("far.yaml", &playbook.to_string()).display().to_string()
}

#[test]
fn a_link_that_is_down_for_20_s_in_the_middle_of_a_detached_step_loses_nothing() {
    let Some(host) = link::host() else { return };
    let runback = Runback::alone();
    let begun = host.path("begun");
    let script = format!(
        "echo >{}; for i in $(seq 30); do echo line $i; sleep 1; done; echo done >>{}",
        begun.display(),
        host.path("result").display()
    );
    let file = far_away(&runback, &host, &json!({"id": "long", "run": script, "detach": true, "on_interrupt": "ask"}));
    let began = std::time::Instant::now();
    let child = runback
        .command(&["run", &file, "--run-id", "far", "--output", "lines"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until("it runs", || begun.exists());
    std::thread::sleep(std::time::Duration::from_secs(4));
    host.link("down");
    std::thread::sleep(std::time::Duration::from_secs(20));
    host.link("up");
    let output = child.wait_with_output().unwrap();
    let printed = lab::text(&output.stdout) + &lab::text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "after {:?}: {printed}", began.elapsed());
    assert_eq!(std::fs::read_to_string(host.path("result")).unwrap(), "done\n", "it ran once");
    let logs = lab::text(&runback.command(&["logs", "far", "long"]).output().unwrap().stdout);
    let lines: Vec<&str> = logs.lines().filter_map(|l| l.strip_prefix("line ")).collect();
    assert_eq!(lines, (1..=30).map(|n| n.to_string()).collect::<Vec<_>>(), "{logs}");
    assert_eq!(host.left(), "", "the records of the command are gone");
    until("no process is left there", || host.processes().is_empty());
}

#[test]
fn runback_killed_leaves_no_master_no_process_and_no_file_on_either_side() {
    let Some(host) = link::host() else { return };
    let runback = Runback::alone();
    let tmp = runback.path("tmp");
    std::fs::create_dir(&tmp).unwrap();
    let file = far_away(&runback, &host, &json!({"id": "long", "run": "sleep 300"}));
    let mut child = runback
        .command(&["run", &file, "--run-id", "far", "--output", "lines"])
        .env("TMPDIR", &tmp)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let sleeps = || {
        host.processes()
            .iter()
            .any(|p| std::fs::read_to_string(format!("/proc/{p}/comm")).is_ok_and(|c| c == "sleep\n"))
    };
    until("it runs there", sleeps);
    child.kill().unwrap();
    child.wait().unwrap();
    until("no process is left there", || host.processes().is_empty());
    let master = || {
        let of_ours = std::process::Command::new("pgrep").args(["-f", &host.path("id").display().to_string()]).output();
        of_ours.unwrap().stdout.is_empty()
    };
    until("no ssh is left here", master);
    assert_eq!(host.left(), "");
    until("no file is left here", || lab::listing(&tmp).lines().count() == 1);
}

#[test]
fn runback_killed_while_a_file_goes_over_leaves_no_half_of_it() {
    let Some(host) = link::host() else { return };
    let runback = Runback::alone();
    let tmp = runback.path("tmp");
    std::fs::create_dir(&tmp).unwrap();
    std::fs::write(runback.path("large"), vec![b'x'; 12 << 20]).unwrap();
    host.slow();
    let copy = json!({"src": "large", "path": host.path("home/large")});
    let file = far_away(&runback, &host, &json!({"id": "copy", "uses": "file.copy", "with": copy}));
    let mut child = runback
        .command(&["run", &file, "--run-id", "far", "--output", "lines"])
        .env("TMPDIR", &tmp)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("some of it is there", || host.left().contains("/.runback-"));
    child.kill().unwrap();
    child.wait().unwrap();
    until("no process is left there", || host.processes().is_empty());
    assert_eq!(host.left(), "", "neither the file nor a part of it");
    until("no file is left here", || lab::listing(&tmp).lines().count() == 1);
}

/// A run of these steps on a machine.
fn on(machine: &machine::Machine, runback: &Runback, run: &str, steps: &Value) -> lab::Ran {
    let playbook = json!({
        "runback": 1, "name": run, "targets": {"machine": machine.target()}, "defaults": {"target": "machine"}, "steps": steps,
    });
    let file = runback.put(&format!("{run}.yaml"), &playbook.to_string()).display().to_string();
    runback.ended(run, &["run", &file, "--run-id", run, "--output", "lines"])
}

fn once(uses: &str, with: &Value) -> Value {
    json!([{"id": "it", "uses": uses, "with": with, "retry": {"max_attempts": 1}}])
}

#[test]
fn services_of_a_real_systemd_go_there_and_back() {
    let Some(machine) = machine::machine() else { return };
    let runback = Runback::alone();
    let state = || machine.said("for u in rb-app rb-ssh; do systemctl is-active $u; systemctl is-enabled $u; done");
    let before = state();
    assert_eq!(before, "inactive\ndisabled\nactive\ndisabled");
    let up = json!({"id": "up", "uses": "service.started", "with": {"unit": "rb-app", "daemon_reload": true}});
    let boot = json!({"id": "boot", "uses": "service.enabled", "with": {"unit": "rb-app.service"}});
    let reload = json!({"id": "reload", "uses": "service.reloaded", "with": {"unit": "rb-app"}});
    let restart = json!({"id": "restart", "uses": "service.restarted", "with": {"unit": "rb-app"}});
    let first = on(&machine, &runback, "first", &json!([up, boot, reload]));
    assert_eq!(first.code, Some(0), "{}", first.printed);
    assert_eq!(machine.said("systemctl is-active rb-app; systemctl is-enabled rb-app"), "active\nenabled");
    assert_eq!(machine.told("cat /run/reloaded"), "again");
    assert_eq!(first.step("up")["outputs"], json!({"name": "rb-app", "active": "active", "enabled": "disabled"}));

    let pid = machine.told("systemctl show --property=MainPID rb-app");
    let again = on(&machine, &runback, "again", &json!([up, boot]));
    assert_eq!((&again.step("up")["changed"], &again.step("boot")["changed"]), (&json!(false), &json!(false)));
    assert_eq!(machine.told("systemctl show --property=MainPID rb-app"), pid);
    assert_eq!(on(&machine, &runback, "restart", &json!([restart])).code, Some(0));
    assert_ne!(machine.told("systemctl show --property=MainPID rb-app"), pid);

    let fails = json!({"uses": "assert", "with": {"that": ["steps.up.status == 'failed'"]}});
    let stop = json!({"id": "stop", "uses": "service.stopped", "with": {"unit": "rb-app"}});
    let off = json!({"id": "off", "uses": "service.enabled", "with": {"unit": "rb-app", "enabled": false}});
    let back = on(&machine, &runback, "back", &json!([up, stop, off, fails]));
    assert_eq!((back.code, &back.step("stop")["outputs"]["active"]), (Some(3), &json!("inactive")), "{}", back.printed);
    assert_eq!(machine.said("systemctl is-active rb-app; systemctl is-enabled rb-app"), "active\nenabled");
    let gone = runback.rollback("first");
    assert_eq!(gone.show["status"], "rolled-back", "{}", gone.printed);
    assert_eq!(state(), before);

    let none = on(&machine, &runback, "none", &once("service.started", &json!({"unit": "rb-none"})));
    assert!(none.error("it").contains("there is no unit rb-none"), "{}", none.error("it"));
    let bad = on(&machine, &runback, "bad", &once("service.started", &json!({"unit": "rb-bad"})));
    assert!(
        bad.error("it").contains("rb-bad") && bad.error("it").contains("journalctl -u rb-bad"),
        "{}",
        bad.error("it")
    );
    machine.told("systemctl mask --runtime rb-masked");
    let masked = on(&machine, &runback, "masked", &once("service.started", &json!({"unit": "rb-masked"})));
    assert!(masked.error("it").contains("the unit rb-masked is masked"), "{}", masked.error("it"));
    let idle = on(&machine, &runback, "idle", &once("service.reloaded", &json!({"unit": "rb-app"})));
    assert!(idle.error("it").contains("rb-app is inactive, so it cannot be reloaded"), "{}", idle.error("it"));
}

#[test]
fn a_unit_between_two_states_is_neither_up_nor_down() {
    let Some(machine) = machine::machine() else { return };
    let runback = Runback::alone();
    let unit = |name: &str, lines: &str| {
        machine.told(&format!(
            "printf '[Service]\\n{lines}' >/run/systemd/system/{name}.service && systemctl daemon-reload"
        ));
    };
    // On its way down, while its daemon still writes.
    unit("rb-lingers", "ExecStart=/bin/sleep 600\\nExecStop=/bin/sleep 15\\n");
    machine.told("systemctl start rb-lingers && systemctl stop --no-block rb-lingers");
    assert_eq!(machine.told("systemctl show --property=ActiveState --value rb-lingers").trim(), "deactivating");
    let stopped = on(&machine, &runback, "stopped", &once("service.stopped", &json!({"unit": "rb-lingers"})));
    assert_eq!(stopped.step("it")["outputs"]["active"], "inactive", "{}", stopped.printed);
    assert_eq!(stopped.step("it")["changed"], true);
    // It falls, and systemd starts it again, five times.
    unit("rb-falls", "ExecStart=/bin/false\\nRestart=always\\nRestartSec=1\\n[Unit]\\nStartLimitIntervalSec=100\\n");
    let falls = on(&machine, &runback, "falls", &once("service.started", &json!({"unit": "rb-falls"})));
    assert!(falls.error("it").contains("rb-falls is failed and static afterwards"), "{}", falls.printed);
    // It falls once.
    unit(
        "rb-recovers",
        "ExecStart=/bin/sh -c \"[ -e /run/rb-fell ] && exec sleep 600; touch /run/rb-fell; exit 1\"\\nRestart=always\\nRestartSec=1\\n",
    );
    let recovers = on(&machine, &runback, "recovers", &once("service.started", &json!({"unit": "rb-recovers"})));
    assert_eq!(recovers.step("it")["outputs"]["active"], "active", "{}", recovers.printed);
    assert_eq!(runback.rollback("recovers").show["status"], "rolled-back");
    assert_eq!(machine.said("systemctl is-active rb-recovers"), "inactive");
}

#[test]
fn packages_of_a_real_apt_come_and_go() {
    let Some(machine) = machine::machine() else { return };
    let runback = Runback::alone();
    let all = || {
        machine.told("dpkg-query --show --showformat '${db:Status-Abbrev}${Package} ${Version}\\n'; ls /usr/share/rb 2>/dev/null || true")
    };
    let before = all();
    let web = json!({"names": ["rb-web"], "update": true});
    let first = on(&machine, &runback, "first", &once("package.present", &web));
    assert_eq!(first.code, Some(0), "{}", first.printed);
    assert_eq!(first.step("it")["outputs"], json!({"manager": "apt", "installed": ["rb-lib", "rb-web"]}));
    assert_eq!(machine.told("cat /usr/share/rb/rb-web"), "rb-web");
    let again = on(&machine, &runback, "again", &once("package.present", &web));
    assert_eq!((again.code, &again.step("it")["changed"]), (Some(0), &json!(false)), "{}", again.printed);
    let back = runback.rollback("first");
    assert_eq!(back.show["status"], "rolled-back", "{}", back.printed);
    assert_eq!(all(), before, "what came is gone, what it needed too, and nothing else");

    // What was there stays, also where an installation of it was cut off.
    machine.told("dpkg --unpack /srv/repository/rb-lib_1.0_all.deb");
    assert_eq!(
        on(&machine, &runback, "part", &once("package.present", &web)).step("it")["outputs"]["installed"],
        json!(["rb-web"])
    );
    assert_eq!(runback.rollback("part").show["status"], "rolled-back");
    assert_eq!(machine.told("ls /usr/share/rb"), "rb-lib");

    let nowhere = on(&machine, &runback, "nowhere", &once("package.present", &json!({"names": ["rb-nowhere"]})));
    assert!(
        nowhere.error("it").contains("rb-nowhere") && nowhere.error("it").contains("correct the name"),
        "{}",
        nowhere.error("it")
    );
    let broken = on(&machine, &runback, "broken", &once("package.present", &json!({"names": ["rb-none"]})));
    assert!(broken.error("it").contains("rb-none : Depends: rb-nowhere"), "{}", broken.error("it"));
    // Another installation is under way: it holds the lock.
    let held = "import fcntl, time; f = open('/var/lib/dpkg/lock-frontend', 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print('held', flush=True); time.sleep(60)";
    machine.told(&format!("nohup python3 -c {held:?} >/run/held 2>&1 & echo $! >/run/holder; until grep -q held /run/held; do sleep 0.05; done"));
    let busy = on(&machine, &runback, "busy", &once("package.present", &json!({"names": ["rb-web"]})));
    assert_eq!(busy.step("it")["error"]["class"], "transient", "{}", busy.printed);
    assert!(busy.error("it").contains("another installation is under way"), "{}", busy.error("it"));
}

#[test]
fn packages_of_a_real_dnf_come_and_go() {
    let Some(machine) = machine::machine() else { return };
    if let Err(why) = machine::rpm_repository(&machine) {
        assert!(std::env::var_os("CI").is_none_or(|v| v.is_empty()), "{why}");
        eprintln!("SKIPPED: {why}");
        return;
    }
    let runback = Runback::alone();
    let all = || machine.told("rpm --query --all | sort");
    let before = all();
    let web = json!({"names": ["rb-web"]});
    let first = on(&machine, &runback, "first", &once("package.present", &web));
    assert_eq!(first.code, Some(0), "{}", first.printed);
    assert_eq!(first.step("it")["outputs"], json!({"manager": "dnf", "installed": ["rb-lib", "rb-web"]}));
    let again = on(&machine, &runback, "again", &once("package.present", &web));
    assert_eq!((again.code, &again.step("it")["changed"]), (Some(0), &json!(false)), "{}", again.printed);
    assert_eq!(runback.rollback("first").show["status"], "rolled-back");
    assert_eq!(all(), before);
    let nowhere = on(&machine, &runback, "nowhere", &once("package.present", &json!({"names": ["rb-nowhere"]})));
    assert!(
        nowhere.error("it").contains("rb-nowhere") && nowhere.error("it").contains("correct the name"),
        "{}",
        nowhere.error("it")
    );
}

#[test]
fn a_mount_comes_and_goes_with_its_line() {
    let Some(machine) = machine::machine() else { return };
    let runback = Runback::alone();
    let state = || {
        machine.told("cat /etc/fstab; grep -c /mnt/rb /proc/self/mountinfo || true; ls -d /mnt/rb* 2>/dev/null || true")
    };
    let before = state();
    let mount = |id: &str, source: &str, path: &str, fstype: &str, options: &str| json!({"id": id, "uses": "mount.present", "with": {"source": source, "path": path, "fstype": fstype, "options": options}});
    let memory = mount("memory", "tmpfs", "/mnt/rb memory", "tmpfs", "size=1m,noexec");
    machine.told("mkdir -p /srv/mounts && ln -sfn /mnt /srv/mounts/link");
    let shared = mount("shared", "/srv/mounts/link/rb memory", "/srv/mounts/link/rb-bind/", "none", "bind");
    let ran = on(&machine, &runback, "mounts", &json!([memory, shared]));
    assert_eq!(ran.code, Some(0), "{}", ran.printed);
    machine.told("echo x >'/mnt/rb memory/file'; grep -q x /mnt/rb-bind/file; rm /mnt/rb-bind/file");
    let again = on(&machine, &runback, "again", &json!([memory, shared]));
    assert_eq!((again.code, &again.step("shared")["changed"]), (Some(0), &json!(false)), "{}", again.printed);
    // As the machine would at its next start.
    machine.told("umount /mnt/rb-bind '/mnt/rb memory' && mount --all && mountpoint --quiet '/mnt/rb memory' && mountpoint --quiet /mnt/rb-bind");
    let back = runback.rollback("mounts");
    assert_eq!(back.show["status"], "rolled-back", "{}", back.printed);
    assert_eq!(state(), before);
}

fn shipped(name: &str) -> String {
    format!("{}/playbooks/{name}.yaml", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn an_image_is_built_run_asked_and_released_or_nothing_of_it_stays() {
    let Some(daemon) = daemon() else { return };
    let Some(registry) = registry::Registry::start(&daemon.path(""), None) else { return };
    daemon.image("busybox:1.36", "");
    // What the playbook calls the daemon's own network is not there on a daemon without a bridge.
    daemon.docker(&["network", "create", "here"]);
    let runback = Runback::new(&daemon);
    let port = lab::free_port();
    let (image, port) = (format!("image={}/digits", registry.address), format!("port={port}"));
    let release = |run: &str, more: &[&str]| {
        let file = shipped("image-release");
        let mut words = vec!["run", &file, "--run-id", run, "--output", "lines"];
        for pair in [&image, &port, "network=none", "container_network=here"].iter().chain(more) {
            words.extend(["-i", pair]);
        }
        runback.ended(run, &words)
    };
    let first = release("first", &[]);
    assert_eq!(first.code, Some(0), "{}", first.printed);
    let old = daemon.inspect("digits");
    daemon.docker(&["image", "rm", &format!("{}/digits:latest", registry.address)]);
    daemon.docker(&["pull", "--quiet", &format!("{}/digits:latest", registry.address)]);

    let wrong = release("wrong", &["version=1.1", "expected=8"]);
    assert_eq!(wrong.code, Some(3), "{}", wrong.printed);
    assert!(wrong.error("right").contains("does not recognise the sample"), "{}", wrong.printed);
    let back = daemon.inspect("digits");
    assert_eq!((&back["Id"], &back["State"]["Running"]), (&old["Id"], &json!(true)));
    assert_eq!(back["HostConfig"]["RestartPolicy"], old["HostConfig"]["RestartPolicy"]);
    assert_eq!(daemon.containers(), ["digits"]);
    assert!(!daemon.docker(&["images", "--format", "{{.Tag}}"]).contains("1.1"));

    let second = release("second", &["version=1.1"]);
    assert_eq!(second.code, Some(0), "{}", second.printed);
    assert_ne!(daemon.inspect("digits")["Id"], old["Id"]);
}

#[test]
fn a_registry_comes_up_on_one_host_and_a_login_is_taken_back_to_the_byte() {
    let Some(daemon) = daemon() else { return };
    let Some(()) = registry::image(&daemon, "registry:2") else { return };
    let mut runback = Runback::new(&daemon);
    daemon.docker(&["network", "create", "here"]);
    let port = lab::free_port();
    let (data, address) = (runback.path("images").display().to_string(), format!("127.0.0.1:{port}"));
    let inputs = [
        format!("data={data}"),
        format!("host_port={address}"),
        format!("url=http://{address}"),
        "network=here".to_owned(),
    ];
    let file = shipped("registry-basic");
    let mut words = vec!["run", &file, "--run-id", "registry", "--output", "lines"];
    for pair in &inputs {
        words.extend(["-i", pair.as_str()]);
    }
    let ran = runback.ended("registry", &words);
    assert_eq!(ran.code, Some(0), "{}", ran.printed);
    daemon.image(&format!("{address}/thing:1"), "");
    daemon.docker(&["push", "--quiet", &format!("{address}/thing:1")]);
    let back = runback.rollback("registry");
    assert!(daemon.containers().is_empty(), "{}", back.printed);

    let Some(guarded) = registry::Registry::start(&daemon.path(""), Some("login-canary-3")) else { return };
    runback.set_env("REGISTRY_PASSWORD", "login-canary-3");
    let before = "{\n\t\"auths\": {\"other.example.com\": {\"auth\": \"bmFtZTpvbGQtY2FuYXJ5LTQ=\"}}\n}\n";
    let config = runback.put("config/config.json", before);
    let step = |password: &str| {
        json!({"id": "login", "uses": "docker.login", "retry": {"max_attempts": 1}, "with": {
            "registry": guarded.address, "username": "deploy", "password": password, "config_dir": "config"}})
    };
    let playbook = json!({
        "runback": 1, "name": "login", "secrets": {"registry": {"env": "REGISTRY_PASSWORD"}},
        "steps": [step("{{ secrets.registry }}"), {"uses": "assert", "with": {"that": ["false"]}}],
    });
    let file = runback.put("login.yaml", &playbook.to_string()).display().to_string();
    let ran = runback.ended("login", &["run", &file, "--run-id", "login", "--output", "lines"]);
    assert_eq!(ran.code, Some(3), "{}", ran.printed);
    assert_eq!(ran.step("login")["status"], "undone");
    assert_eq!(std::fs::read_to_string(&config).unwrap(), before);
    assert_eq!(std::fs::read_dir(config.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
    let grep = std::process::Command::new("grep")
        .args(["-rlE", "login-canary-3|bmFtZTpvbGQt"])
        .arg(runback.path("state"))
        .output();
    assert_eq!(lab::text(&grep.unwrap().stdout), "", "neither password is in any byte that runback wrote");
    let refused = runback.run("refused", &json!([step("wrong")]));
    assert!(refused.error("login").contains("correct the credentials"), "{}", refused.error("login"));
}

#[test]
fn a_container_is_its_whole_name_and_has_its_whole_environment() {
    let Some(daemon) = daemon() else { return };
    daemon.image("busybox:1.36", "");
    let runback = Runback::new(&daemon);
    let id =
        daemon.docker(&["run", "--detach", "--network", "none", "--name", "innocent", "busybox:1.36", "sleep", "600"]);
    let name = &id[..4];
    assert_eq!(daemon.inspect(name)["Name"], "/innocent", "Docker takes the beginning of an id for it");
    let env = json!({
        "DOCKER_INFLUXDB_INIT_PASSWORD": "canary-1", "DOCKER_HOST": "tcp://canary-2 x:1", "PATH": "/bin:/canary-3",
        "DOCKER_AUTH_CONFIG": "{\"canary\": \"4=#\"}", "TEXT": "a\nb",
    });
    let run = json!({"id": "app", "uses": "docker.run", "retry": {"max_attempts": 1}, "with": {
        "image": "busybox:1.36", "name": name, "network": "none", "command": ["sleep", "600"], "env": env}});
    let ran = runback.run("named", &json!([run]));
    assert_eq!(ran.code, Some(0), "{}", ran.printed);
    assert_eq!(ran.step("app")["outputs"]["previous"], Value::Null);
    let made = daemon.inspect(name);
    assert_eq!(made["Name"], format!("/{name}"));
    for (key, value) in env.as_object().unwrap() {
        let pair = json!(format!("{key}={}", value.as_str().unwrap()));
        assert!(made["Config"]["Env"].as_array().unwrap().contains(&pair), "{pair}: {}", made["Config"]["Env"]);
    }

    // The daemon's name is not known for a while: that is no container that is not there.
    let away = json!({"id": "away", "uses": "docker.stop", "retry": {"max_attempts": 1}, "with": {
        "container": "innocent", "docker_host": "tcp://rb-nowhere.invalid:2375"}});
    let ran = runback.run("away", &json!([away]));
    assert!(ran.error("away").contains("the daemon does not answer"), "{}", ran.printed);
    assert!(!ran.error("away").contains("there is no container"), "{}", ran.printed);
    let back = runback.rollback("named");
    assert_eq!(back.show["status"], "rolled-back", "{}", back.printed);
    assert_eq!(daemon.containers(), ["innocent"]);
    assert_eq!(daemon.inspect("innocent")["State"]["Running"], true);
}
