//! A server and command lines on one store: what one started, the other sees, answers, stops and takes back.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use super::{PATIENCE, Place, Server, until};

const ASKS: &str = "runback: 1\nname: asks\nsteps:\n  - { id: made, uses: file.write, with: { path: made, content: x } }\n  - { id: go, uses: approval, with: { prompt: Go? } }\n";

/// A run that a command line drives until it is over.
fn start(place: &Place, file: &str, id: &str) -> Child {
    let arguments = ["run", file, "--run-id", id, "--output", "json", "--no-input"];
    place.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("runback runs")
}

fn code(mut child: Child) -> Option<i32> {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().expect("a child") {
            return status.code();
        }
        if Instant::now() > until {
            let _ = child.kill();
            panic!("the command line does not end");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until the server lists a run with this status: it may not know of it yet.
fn listed(server: &Server, token: &str, run: &str, status: &str) {
    let until = Instant::now() + PATIENCE;
    loop {
        let list = server.get(token, "/api/v1/runs?limit=500");
        let runs = list["runs"].as_array().expect("a list");
        if runs.iter().any(|r| r["id"] == run && r["status"] == status) {
            return;
        }
        assert!(Instant::now() < until, "{run} is not listed as {status}: {list}");
        std::thread::sleep(Duration::from_millis(30));
    }
}

#[test]
fn a_run_of_the_command_line_is_seen_answered_stopped_and_taken_back_by_the_api() {
    let place = Place::new();
    std::fs::write(place.path("asks.yaml"), ASKS).expect("a file");
    let slow = "runback: 1\nname: slow\nsteps:\n  - { id: a, run: sleep 600, timeout: 1h }\n";
    std::fs::write(place.path("slow.yaml"), slow).expect("a file");
    let token = place.token("ann", "operator,approver");
    let server = place.serve(&[]);
    let post = |run: &str, what: &str| server.post(&token, &format!("/api/v1/runs/{run}/{what}"), &json!({}));

    let asks = start(&place, "asks.yaml", "asks-1");
    listed(&server, &token, "asks-1", "waiting");
    let seen = server.get(&token, "/api/v1/runs/asks-1");
    assert_eq!(
        (&seen["driven"], &seen["by"].as_str().map(|by| by.starts_with("tester@"))),
        (&json!(true), &Some(true))
    );
    assert_eq!(post("asks-1", "approve").status, 202);
    assert_eq!(code(asks), Some(0));
    listed(&server, &token, "asks-1", "succeeded");
    assert!(place.path("made").exists());
    assert_eq!(post("asks-1", "rollback").status, 202);
    listed(&server, &token, "asks-1", "rolled-back");
    assert!(!place.path("made").exists());

    let refused = start(&place, "asks.yaml", "asks-2");
    listed(&server, &token, "asks-2", "waiting");
    assert_eq!(post("asks-2", "refuse").status, 202);
    assert_eq!(code(refused), Some(3));

    let slow = start(&place, "slow.yaml", "slow-1");
    listed(&server, &token, "slow-1", "running");
    server.stream(&token, "slow-1", None).until("attempt_started");
    assert_eq!(post("slow-1", "cancel").status, 202);
    assert_eq!(code(slow), Some(130));
    listed(&server, &token, "slow-1", "cancelled");
    let events = server.get(&token, "/api/v1/runs/slow-1/events");
    let events = events["events"].as_array().expect("a list");
    let cancel = events.iter().find(|e| e["type"] == "cancel_requested").expect("it was asked for");
    assert_eq!(cancel["by"], "ann@127.0.0.1");
}

#[test]
fn a_run_of_the_server_is_answered_stopped_and_taken_back_by_the_command_line() {
    let place = Place::new();
    place.playbook("asks", &ASKS.replace("path: made", &format!("path: {}", place.path("made").display())));
    place.playbook("slow", "runback: 1\nname: slow\nsteps:\n  - { id: a, run: sleep 600, timeout: 1h }\n");
    let token = place.token("ann", "operator");
    let server = place.serve(&[]);
    let start = |playbook: &str| {
        let started = server.post(&token, "/api/v1/runs", &json!({ "playbook": playbook })).json();
        started["run"].as_str().expect("an id").to_owned()
    };
    let asks = start("asks");
    server.wait_for(&token, &asks, "waiting");
    place.run(&["approve", &asks]);
    server.wait_for(&token, &asks, "succeeded");
    // Nobody drives it now: the command line does.
    assert!(place.path("made").exists());
    let back = place.command(&["rollback", &asks]).output().expect("runback runs");
    assert!(back.status.code().is_some_and(|c| c == 0 || c == 3), "{back:?}");
    assert!(!place.path("made").exists());
    server.wait_for(&token, &asks, "rolled-back");

    let slow = start("slow");
    server.stream(&token, &slow, None).until("attempt_started");
    place.run(&["cancel", &slow]);
    server.wait_for(&token, &slow, "cancelled");
    // What it says last and that it lets go are two things.
    until("it is driven on", || (server.get(&token, &format!("/api/v1/runs/{slow}"))["driven"] == false).then_some(()));
}
