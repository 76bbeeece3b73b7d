//! What a server leaves to be read: the journal's hash chain and its signed copy, its own log, metrics, and what
//! retention keeps.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value as Json, json};

use super::Place;

const TWO: &str = "runback: 1\nname: p\nsteps:\n  - { id: a, run: 'true' }\n  - { id: b, run: echo done }\n";

/// Exit code, and what was said on both streams.
fn told(place: &Place, arguments: &[&str]) -> (Option<i32>, String) {
    let output = place.command(arguments).output().expect("runback runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), said)
}

fn with_runs(count: usize) -> Place {
    let place = Place::new();
    std::fs::write(place.path("p.yaml"), TWO).expect("a file");
    for n in 0..count {
        place.run(&["run", "p.yaml", "--run-id", &format!("run-{n}"), "--quiet"]);
    }
    place
}

fn change(place: &Place, sql: &str) {
    let store = rusqlite::Connection::open(place.path("state/journal.db")).expect("a store");
    assert!(store.execute(sql, []).expect("it can be changed") > 0, "{sql}");
}

#[test]
fn a_journal_that_was_changed_is_found() {
    let place = with_runs(3);
    let fine = place.json(&["audit", "verify"]);
    assert_eq!((&fine["runs"], &fine["bad"]), (&json!(3), &json!([])));
    change(
        &place,
        "UPDATE events SET body = replace(body, '\"changed\":true', '\"changed\":false') WHERE run = 'run-1' AND type = 'attempt_succeeded'",
    );
    let (code, said) = told(&place, &["audit", "verify"]);
    assert!(code == Some(1) && said.contains("run-1") && said.contains("1 run changed"), "{said}");
    assert_eq!(told(&place, &["audit", "verify", "run-0"]).0, Some(0));
    assert_eq!(told(&place, &["audit", "verify", "run-1"]).0, Some(1));
    change(&place, "DELETE FROM events WHERE run = 'run-2' AND seq = 3");
    let (code, said) = told(&place, &["audit", "verify"]);
    assert!(code == Some(1) && said.contains("2 runs changed"), "{said}");
}

#[test]
fn a_signed_copy_tells_what_was_changed_in_it_and_since_it() {
    let place = with_runs(2);
    let copy = place.path("copy.jsonl");
    let file = copy.display().to_string();
    let made = place.json(&["audit", "export", &file]);
    let key = made["public_key"].as_str().expect("a key").to_owned();
    assert_eq!((&made["runs"], key.len()), (&json!(2), 64));
    assert_eq!(told(&place, &["audit", "verify", "--file", &file]).0, Some(0));
    assert_eq!(told(&place, &["audit", "verify", "--file", &file, "--key", &key]).0, Some(0));
    let (code, said) = told(&place, &["audit", "verify", "--file", &file, "--key", &"0".repeat(64)]);
    assert!(code == Some(1) && said.contains("it was signed with"), "{said}");
    let (code, said) = told(&place, &["audit", "export", &file]);
    assert!(code == Some(1) && said.contains("copy.jsonl"), "it is never written over: {said}");
    let text = std::fs::read_to_string(&copy).expect("the copy");
    let lines: Vec<&str> = text.lines().collect();
    let other = place.path("other.jsonl");
    let check = |text: &str| {
        std::fs::write(&other, text).expect("a file");
        told(&place, &["audit", "verify", "--file", &other.display().to_string()])
    };
    // A changed word, a line less, no signature, and a line behind it.
    let (code, said) = check(&text.replacen("run_started", "run_starteD", 1));
    assert!(code == Some(1) && said.contains("it was changed"), "{said}");
    let less = [&lines[..lines.len() - 2], &lines[lines.len() - 1..]].concat().join("\n") + "\n";
    let (code, said) = check(&less);
    assert!(code == Some(1) && said.contains("it was changed"), "{said}");
    let (code, said) = check(&(lines[..lines.len() - 1].join("\n") + "\n"));
    assert!(code == Some(1) && said.contains("it has no signature"), "{said}");
    let (code, said) = check(&format!("{text}{}\n", lines[0]));
    assert!(code == Some(1) && said.contains("behind the signature"), "{said}");
    // Whoever may write the store can make a chain that holds; the copy knows better.
    change(
        &place,
        "DELETE FROM events WHERE run = 'run-1' AND seq = (SELECT max(seq) FROM events WHERE run = 'run-1')",
    );
    assert_eq!(told(&place, &["audit", "verify"]).0, Some(0));
    let (code, said) = told(&place, &["audit", "verify", "--file", &file]);
    assert!(code == Some(1) && said.contains("run-1") && said.contains("cut off"), "{said}");
    change(
        &place,
        "UPDATE events SET hash = zeroblob(32) WHERE run = 'run-0' AND seq = (SELECT max(seq) FROM events WHERE run = 'run-0')",
    );
    let (_, said) = told(&place, &["audit", "verify", "--file", &file]);
    assert!(said.contains("`run-0` is not what the copy has"), "{said}");
}

/// A run that can be resumed.
fn with_one_held(place: &Place) {
    let held = "runback: 1\nname: held\non_failure: hold\nsteps:\n  - { id: a, run: exit 1 }\n";
    std::fs::write(place.path("held.yaml"), held).expect("a file");
    assert_eq!(told(place, &["run", "held.yaml", "--run-id", "held-1"]).0, Some(1));
}

#[test]
fn a_server_keeps_what_it_is_told_to_and_what_can_be_resumed() {
    let place = with_runs(3);
    with_one_held(&place);
    place.run(&["run", "p.yaml", "--run-id", "run-9", "--quiet"]);
    let token = place.token("vic", "viewer");
    let server = place.serve(&["--keep", "1"]);
    let until = std::time::Instant::now() + super::PATIENCE;
    loop {
        let list = server.get(&token, "/api/v1/runs");
        let ids: Vec<_> = list["runs"].as_array().expect("a list").iter().map(|r| r["id"].clone()).collect();
        if ids == [json!("run-9"), json!("held-1")] {
            break;
        }
        assert!(std::time::Instant::now() < until, "{ids:?}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let (_, log) = server.end("TERM");
    assert!(log.contains("\"removed\":3"), "{log}");
}

#[test]
fn a_server_forgets_what_is_older_than_it_is_told_to_keep() {
    let place = with_runs(2);
    with_one_held(&place);
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    let token = place.token("vic", "viewer");
    let server = place.serve(&["--keep-for", "1s"]);
    super::until("the old ones are still listed", || {
        let list = server.get(&token, "/api/v1/runs");
        let ids: Vec<_> = list["runs"].as_array()?.iter().map(|r| r["id"].clone()).collect();
        (ids == [json!("held-1")]).then_some(())
    });
}

#[test]
fn an_administrator_removes_runs_that_are_over() {
    let place = with_runs(3);
    place.playbook("asks", "runback: 1\nname: asks\nsteps:\n  - { id: go, uses: approval, with: { prompt: Go? } }\n");
    let (operator, admin) = (place.token("olga", "operator"), place.token("root", "admin"));
    let server = place.serve(&[]);
    let started = server.post(&operator, "/api/v1/runs", &json!({ "playbook": "asks" })).json();
    let alive = started["run"].as_str().expect("an id").to_owned();
    server.wait_for(&operator, &alive, "waiting");
    let prune = |token: &str, body: Json| server.post(token, "/api/v1/prune", &body);
    assert_eq!(prune(&operator, json!({ "keep": 0 })).status, 403);
    assert_eq!(prune(&admin, json!({ "all": true })).status, 400, "it does not say which");
    let all = json!(["run-2", "run-1", "run-0"]);
    let kept = json!([{ "run": alive, "why": "alive" }]);
    let would = prune(&admin, json!({ "keep": 0, "all": true, "dry_run": true })).json();
    assert_eq!((&would["removed"], &would["kept"]), (&all, &kept));
    assert_eq!(prune(&admin, json!({ "older_than_ms": 3_600_000 })).json()["removed"], json!([]));
    assert_eq!(prune(&admin, json!({ "keep": 2 })).json()["removed"], json!(["run-1", "run-0"]));
    assert_eq!(
        server.ask("GET", "/api/v1/runs/run-0", &[("Authorization", &format!("Bearer {admin}"))], "").status,
        404
    );
    assert_eq!(prune(&admin, json!({ "keep": 0, "all": true })).json()["kept"], kept);
    super::until("they are still listed", || {
        let list = server.get(&admin, "/api/v1/runs");
        (list["runs"].as_array().map(Vec::len) == Some(1)).then_some(())
    });
}

#[test]
fn its_log_is_json_line_by_line_and_it_says_when_it_is_ready() {
    let place = Place::new();
    place.playbook("p", TWO);
    place.playbook("broken", "runback: 1\nname: broken\nsteps: [ { rnu: x } ]\n");
    let token = place.token("ann", "operator");
    let server = place.serve(&[]);
    for path in ["/healthz", "/readyz"] {
        assert_eq!(server.ask("GET", path, &[], "").status, 200, "{path} needs no token");
    }
    let started = server.post(&token, "/api/v1/runs", &json!({ "playbook": "p" })).json();
    let run = started["run"].as_str().expect("an id").to_owned();
    server.wait_for(&token, &run, "succeeded");
    let (code, log) = server.end("TERM");
    assert_eq!(code, Some(0));
    let lines: Vec<Json> =
        log.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect();
    for line in &lines {
        assert!(line["at"].as_str().is_some_and(|at| at.parse::<jiff::Timestamp>().is_ok()), "{line}");
        assert!(["info", "warn", "error"].contains(&line["level"].as_str().expect("a level")), "{line}");
    }
    let find =
        |message: &str| lines.iter().find(|l| l["message"] == message).unwrap_or_else(|| panic!("{message}: {log}"));
    let created = find("run created");
    assert_eq!((&created["run"], &created["by"]), (&json!(run), &json!("ann@127.0.0.1")));
    assert_eq!(find("run ended")["status"], "succeeded");
    assert_eq!(find("playbook broken; the last good text stays in use")["level"], "error");
    assert_eq!(lines.last().expect("a line")["message"], "ended");
}

/// Reads them by Prometheus' own client, and prints name, labels and value of each sample.
const READ_METRICS: &str = "
import json, sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
families = list(text_string_to_metric_families(sys.stdin.read()))
assert all(f.documentation for f in families), [f.name for f in families if not f.documentation]
json.dump([[s.name, s.labels, s.value] for f in families for s in f.samples], sys.stdout)
";

#[test]
fn real_metrics_are_read_by_prometheus_and_count_what_happened() {
    let Some(python) = super::python() else { return };
    let place = Place::new();
    place.playbook("p", TWO);
    place.playbook("bad", "runback: 1\nname: bad\nsteps:\n  - { id: a, run: exit 1, retry: { max_attempts: 2, initial_interval: 10ms } }\n");
    place.playbook("broken", "runback: 1\nname: broken\nsteps: [ { rnu: x } ]\n");
    place.playbook(
        "tick",
        "runback: 1\nname: tick\nschedule:\n  - cron: '* * * * * *'\nsteps:\n  - { id: a, run: 'true' }\n",
    );
    let token = place.token("ann", "operator");
    let server = place.serve(&[]);
    for (playbook, status) in [("p", "succeeded"), ("p", "succeeded"), ("bad", "rolled-back")] {
        let started = server.post(&token, "/api/v1/runs", &json!({ "playbook": playbook })).json();
        server.wait_for(&token, started["run"].as_str().expect("an id"), status);
    }
    let read = || {
        let answer = server.ask("GET", "/metrics", &[("Authorization", &format!("Bearer {token}"))], "");
        assert_eq!(answer.status, 200);
        let mut child = Command::new(&python)
            .args(["-c", READ_METRICS])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        child.stdin.take().expect("it is piped").write_all(&answer.body).expect("it reads");
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Vec<Json>>(&output.stdout).expect("JSON")
    };
    let value = |samples: &[Json], name: &str, labels: &Json| {
        let found = samples.iter().find(|s| s[0] == name && (labels.is_null() || s[1] == *labels));
        found.and_then(|s| s[2].as_f64())
    };
    let until = std::time::Instant::now() + super::PATIENCE;
    let samples = loop {
        let samples = read();
        // A run is counted when its driver is done with it.
        let over = value(&samples, "runback_runs_total", &json!({ "playbook": "bad", "outcome": "rolled-back" }));
        let two = value(&samples, "runback_runs_total", &json!({ "playbook": "p", "outcome": "succeeded" }));
        let fired = value(&samples, "runback_schedule_lag_seconds_count", &Json::Null);
        if over == Some(1.0) && two == Some(2.0) && fired >= Some(1.0) {
            break samples;
        }
        assert!(std::time::Instant::now() < until, "{samples:?}");
    };
    for (name, labels, wanted) in [
        ("runback_runs_total", json!({ "playbook": "p", "outcome": "succeeded" }), 2.0),
        ("runback_run_duration_seconds_count", json!({ "playbook": "p" }), 2.0),
        ("runback_steps_total", json!({ "playbook": "p", "outcome": "succeeded" }), 4.0),
        ("runback_steps_total", json!({ "playbook": "bad", "outcome": "failed" }), 1.0),
        ("runback_attempts_total", json!({ "playbook": "bad" }), 2.0),
        ("runback_playbook_broken", json!({ "playbook": "broken" }), 1.0),
        ("runback_playbook_broken", json!({ "playbook": "p" }), 0.0),
        ("runback_runs_queued", Json::Null, 0.0),
        ("runback_runs_waiting", Json::Null, 0.0),
        ("runback_event_streams", Json::Null, 0.0),
    ] {
        assert_eq!(value(&samples, name, &labels), Some(wanted), "{name} {labels}");
    }
    for name in [
        "runback_store_latency_seconds_count",
        "runback_http_request_duration_seconds_count",
        "runback_schedule_last_look_seconds",
    ] {
        assert!(value(&samples, name, &Json::Null).is_some_and(|v| v >= 1.0), "{name}: {samples:?}");
    }
    // A broken playbook that is removed is not broken for ever.
    std::fs::remove_file(place.path("playbooks/broken.yaml")).expect("it was there");
    let until = std::time::Instant::now() + super::PATIENCE;
    while value(&read(), "runback_playbook_broken", &json!({ "playbook": "broken" })).is_some() {
        assert!(std::time::Instant::now() < until, "it is still said to be broken");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}
