//! Runs under the server: started, watched, answered, taken back, and carried over its restart.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{PATIENCE, Place, Server, until};
use crate::cli::{lease_of, requests};

#[test]
fn a_run_is_started_watched_approved_and_taken_back() {
    let place = Place::new();
    let file = place.path("made");
    place.playbook(
        "ops/make",
        &format!(
            "runback: 1\nname: make\ninputs:\n  text: {{ type: string }}\nsteps:\n  - id: write\n    uses: file.write\n    with: {{ path: {}, content: \"{{{{ inputs.text }}}}\" }}\n  - id: go\n    uses: approval\n    with: {{ prompt: Go?, form: {{ n: {{ type: integer, max: 5 }} }} }}\n  - id: say\n    run: echo \"n is {{{{ steps.go.outputs.n }}}}\"\n",
            file.display()
        ),
    );
    let token = place.token("ann", "operator,approver");
    let server = place.serve(&[]);
    let bad = server.post(&token, "/api/v1/runs", &json!({ "playbook": "ops/make" }));
    assert_eq!(bad.status, 400, "{}", bad.json());
    let started =
        server.post(&token, "/api/v1/runs", &json!({ "playbook": "ops/make", "inputs": { "text": "hello" } }));
    assert_eq!(started.status, 201);
    let run = started.json()["run"].as_str().expect("an id").to_owned();

    let mut events = server.stream(&token, &run, None);
    let first = events.until("approval_requested");
    assert_eq!(first[0]["type"], "run_created");
    assert_eq!((&first[0]["by"], &first[0]["from"]), (&json!("ann@127.0.0.1"), &json!("api")));
    let seen = server.wait_for(&token, &run, "waiting");
    assert_eq!(seen["questions"][0]["step"], "go");
    let digest = &seen["digest"];

    let answer = |body| server.post(&token, &format!("/api/v1/runs/{run}/approve"), &body);
    assert_eq!(answer(json!({ "fields": { "n": 6 } })).status, 400, "more than the form allows");
    assert_eq!(answer(json!({ "fields": { "n": 3 }, "digest": "of another plan" })).status, 409);
    assert_eq!(answer(json!({ "fields": { "n": 3 }, "digest": digest })).status, 202);
    let rest = events.until("run_finished");
    let numbers: Vec<_> = first.iter().chain(&rest).map(|e| e["seq"].as_u64().expect("a number")).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "without gaps");
    assert_eq!(rest[0]["answer"]["by"], "ann@127.0.0.1");
    // Who lost the stream goes on where it was.
    let again = server.stream(&token, &run, Some(numbers.len() as u64 - 2)).until("run_finished");
    assert_eq!(again.len(), 2);
    let log = server.ask(
        "GET",
        &format!("/api/v1/runs/{run}/log?step=say&from=-5"),
        &[("Authorization", &format!("Bearer {token}"))],
        "",
    );
    assert_eq!((log.body.as_slice(), log.header("x-log-size")), (&b"is 3\n"[..], Some("7")));

    // The command line sees the same run.
    assert_eq!(place.json(&["show", &run])["status"], "succeeded");
    assert_eq!(std::fs::read_to_string(&file).expect("it was made"), "hello");
    let back = server.post(&token, &format!("/api/v1/runs/{run}/rollback"), &json!({}));
    assert_eq!(back.status, 202, "{}", back.json());
    let seen = server.wait_for(&token, &run, "rolled-back");
    assert!(!file.exists(), "{seen}");
    assert_eq!(server.post(&token, &format!("/api/v1/runs/{run}/rollback"), &json!({})).status, 409);
}

/// Priorities are inherited: what a run starts must not stand behind, as the threads that answer requests do.
#[test]
fn what_the_api_starts_and_takes_back_runs_at_the_priority_of_the_server() {
    let nice = std::process::Command::new("nice").output().expect("nice runs");
    let nice = String::from_utf8(nice.stdout).expect("a number").trim().to_owned();
    let place = Place::new();
    let file = place.path("undone");
    place.playbook(
        "nice",
        &format!(
            "runback: 1\nname: nice\nsteps:\n  - {{ id: a, run: nice, rollback: {{ run: nice > {} }} }}\n  - {{ id: go, uses: approval, with: {{ prompt: Go? }} }}\n  - {{ id: b, run: nice }}\n",
            file.display()
        ),
    );
    let token = place.token("ann", "operator,approver");
    let server = place.serve(&[]);
    let post = |path: &str, body: &serde_json::Value| server.post(&token, path, body);
    let run = post("/api/v1/runs", &json!({ "playbook": "nice" })).json()["run"].as_str().expect("an id").to_owned();
    server.wait_for(&token, &run, "waiting");
    assert_eq!(post(&format!("/api/v1/runs/{run}/approve"), &json!({})).status, 202);
    let seen = server.wait_for(&token, &run, "succeeded");
    for step in [0, 2] {
        assert_eq!(seen["steps"][step]["outputs"]["stdout"], json!(nice), "{}", seen["steps"][step]);
    }
    assert_eq!(post(&format!("/api/v1/runs/{run}/rollback"), &json!({})).status, 202);
    server.wait_for(&token, &run, "rolled-back");
    assert_eq!(std::fs::read_to_string(&file).expect("it was undone").trim(), nice);
}

const SLOW: &str =
    "runback: 1\nname: slow\nsteps:\n  - id: a\n    run: sleep 600\n    on_interrupt: rerun\n    timeout: 1h\n";

#[test]
fn the_queue_keeps_its_order_and_a_cancelled_run_does_not_wait_for_its_turn() {
    let place = Place::new();
    place.playbook("slow", SLOW);
    let token = place.token("ann", "operator");
    let server = place.serve(&["--max-runs", "1", "--max-queue", "2"]);
    let start = || server.post(&token, "/api/v1/runs", &json!({ "playbook": "slow" }));
    let runs: Vec<String> = (0..3).map(|_| start().json()["run"].as_str().expect("an id").to_owned()).collect();
    let full = start();
    assert_eq!(full.status, 503, "{}", full.json());
    let place_of = |run: &String| server.get(&token, &format!("/api/v1/runs/{run}"))["queued"].clone();
    assert_eq!(runs.iter().map(place_of).collect::<Vec<_>>(), [json!(null), json!(1), json!(2)]);
    let cancel = |run: &str| server.post(&token, &format!("/api/v1/runs/{run}/cancel"), &json!({})).status;
    assert_eq!(cancel(&runs[2]), 202);
    server.wait_for(&token, &runs[2], "cancelled");
    assert_eq!(place_of(&runs[1]), json!(1));
    assert_eq!(cancel(&runs[0]), 202);
    server.wait_for(&token, &runs[0], "cancelled");
    let until = Instant::now() + PATIENCE;
    while server.get(&token, &format!("/api/v1/runs/{}", runs[1]))["started_at"].is_null() {
        assert!(Instant::now() < until, "the next one does not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(cancel(&runs[1]), 202);
    server.wait_for(&token, &runs[1], "cancelled");
}

/// Whatever a run would need a place in the queue for.
#[test]
fn a_full_queue_is_answered_alike_whoever_wants_a_place() {
    let place = Place::new();
    place.playbook("slow", SLOW);
    let fails = "runback: 1\nname: fails\non_failure: hold\nsteps:\n  - { id: a, uses: file.write, with: { path: made, content: x } }\n  - { id: b, run: exit 1 }\n";
    place.playbook("fails", fails);
    let token = place.token("ann", "operator");
    let server = place.serve(&["--max-runs", "1", "--max-queue", "1"]);
    let start = |playbook: &str| server.post(&token, "/api/v1/runs", &json!({ "playbook": playbook }));
    let held = start("fails").json()["run"].as_str().expect("an id").to_owned();
    server.wait_for(&token, &held, "failed");
    until("its place is not free", || (server.get(&token, "/api/v1/status")["running"] == 0).then_some(()));
    // Two runs: one at work, and one in the queue.
    assert_eq!([start("slow").status, start("slow").status], [201, 201]);
    let ask = |what: &str| server.post(&token, &format!("/api/v1/runs/{held}/{what}"), &json!({}));
    let retry = server.post(&token, &format!("/api/v1/runs/{held}/retry"), &json!({ "step": "b" }));
    for answer in [start("slow"), ask("resume"), ask("rollback"), retry] {
        let (status, said) = (answer.status, answer.json());
        assert_eq!(status, 503, "{said}");
        assert!(said["error"]["help"].as_str().is_some_and(|help| help.contains("--max-queue")), "{said}");
        assert_eq!(answer.header("Retry-After"), Some("5"));
    }
    assert_eq!(server.get(&token, &format!("/api/v1/runs/{held}"))["status"], "failed", "it was not touched");
}

/// The harness looks at each of these, as at every answer: it says what to do.
#[test]
fn what_cannot_be_done_as_things_stand_is_a_conflict() {
    let place = Place::new();
    place.playbook("fine", "runback: 1\nname: fine\nsteps:\n  - { id: a, run: 'true' }\n");
    place.playbook("broken", "runback: 1\nname: broken\nsteps:\n  - { id: a, runs: 'true' }\n");
    place.playbook("twin", "runback: 1\nname: one\nsteps:\n  - run: 'true'\n");
    std::fs::copy(place.path("playbooks/twin.yaml"), place.path("playbooks/twin.yml")).expect("a copy");
    place.playbook(
        "asks",
        "runback: 1\nname: asks\nsteps:\n  - { id: go, uses: approval, with: { prompt: Go?, approvers: [bob] } }\n",
    );
    place.playbook(
        "paused",
        "runback: 1\nname: paused\nschedule:\n  - { cron: '@yearly', paused: true }\nsteps:\n  - run: 'true'\n",
    );
    let token = place.token("ann", "operator,approver");
    let server = place.serve(&[]);
    let start = |playbook: &str, id: &str| {
        let answer = server.post(&token, "/api/v1/runs", &json!({ "playbook": playbook, "id": id }));
        assert_eq!(answer.status, 201, "{}", answer.json());
    };
    start("fine", "done");
    server.wait_for(&token, "done", "succeeded");
    start("fine", "back");
    server.wait_for(&token, "back", "succeeded");
    let back = server.post(&token, "/api/v1/runs/back/rollback", &json!({}));
    assert_eq!(back.status, 202, "{}", back.json());
    server.wait_for(&token, "back", "rolled-back");
    start("asks", "asks");
    server.wait_for(&token, "asks", "waiting");
    let schedule = server.get(&token, "/api/v1/schedules")["schedules"][0]["key"].as_str().expect("a key").to_owned();
    let twin = server.get(&token, "/api/v1/playbooks/twin");
    assert_eq!((&twin["broken"], &twin["diagnostics"][0]["code"]), (&json!(true), &json!("RB0114")), "{twin}");
    let table = [
        ("runs", json!({ "playbook": "broken" })),
        ("runs", json!({ "playbook": "twin" })),
        ("runs", json!({ "playbook": "fine", "id": "done" })),
        ("runs/done/approve", json!({})),
        ("runs/done/refuse", json!({})),
        ("runs/done/cancel", json!({})),
        ("runs/done/hold", json!({})),
        ("runs/done/resume", json!({})),
        ("runs/done/retry", json!({ "step": "a" })),
        ("runs/back/rollback", json!({})),
        ("runs/back/resume", json!({})),
        ("runs/done/rollback", json!({ "steps": { "a": "redo" } })),
        ("runs/asks/approve", json!({})),
        ("runs/asks/approve", json!({ "digest": "another" })),
        ("runs/asks/approve", json!({ "step": "other" })),
        ("runs/asks/rollback", json!({ "steps": { "go": "kept" } })),
        ("runs/asks/resume", json!({})),
        (&format!("schedules/{schedule}/resume"), json!({})),
    ];
    for (path, body) in table {
        let answer = server.post(&token, &format!("/api/v1/{path}"), &body);
        assert_eq!(answer.status, 409, "{path} {body}: {}", answer.json());
    }
}

/// Whoever has read that it listens may stop it, however soon.
#[test]
fn a_server_that_has_just_said_that_it_listens_is_stopped_in_order() {
    let place = Place::new();
    // Free, and given to nobody meanwhile: the kernel gives out higher ones by itself.
    let ports = (0..).map(|n| 10_000 + (std::process::id() + n) % 20_000).map(|port| format!("127.0.0.1:{port}"));
    let address = ports.into_iter().find(|a| std::net::TcpListener::bind(a).is_ok()).expect("one is free");
    // Its log is full: it stands still in the middle of saying so.
    let (mut log, mut full) = std::io::pipe().expect("a pipe");
    std::io::Write::write_all(&mut full, &vec![b'\n'; 65536]).expect("as much as it holds");
    let mut command = place.command(&["serve", "--listen", &address]);
    let mut child = command.stderr(full).stdout(std::process::Stdio::null()).spawn().expect("it starts");
    drop(command);
    until("it does not listen", || std::net::TcpStream::connect(&address).ok());
    // From there to what it says is no wait.
    std::thread::sleep(Duration::from_millis(300));
    let status = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
    assert!(status.expect("kill runs").success());
    let mut said = String::new();
    std::io::Read::read_to_string(&mut log, &mut said).expect("its log");
    let status = child.wait().expect("it ends");
    assert_eq!(status.code(), Some(0), "{}", said.trim());
    assert!(said.contains("\"ended\""), "{}", said.trim());
}

/// A server with a run that ends once there is a file `go`, and one that sleeps in its step `copy`.
fn two_at_work(place: &Place, token: &str) -> (Server, String, String) {
    let waits = format!("until test -e {}; do sleep 0.1; done", place.path("go").display());
    place.playbook("slow", &SLOW.replace("sleep 600", &waits));
    place.playbook("doubtful", "runback: 1\nname: doubtful\nsteps:\n  - id: copy\n    run: sleep 600\n");
    let server = place.serve(&[]);
    let start = |name: &str| {
        let started = server.post(token, "/api/v1/runs", &json!({ "playbook": name }));
        started.json()["run"].as_str().expect("an id").to_owned()
    };
    let (slow, doubtful) = (start("slow"), start("doubtful"));
    for run in [&slow, &doubtful] {
        server.stream(token, run, None).until("attempt_started");
    }
    (server, slow, doubtful)
}

#[test]
fn runs_survive_a_restart_and_doubt_waits_for_a_person() {
    let place = Place::new();
    let token = place.token("ann", "operator");
    let (server, slow, doubtful) = two_at_work(&place, &token);
    let began = Instant::now();
    let (code, log) = server.end("TERM");
    assert_eq!(code, Some(0), "{log}");
    assert!(began.elapsed() < Duration::from_secs(60), "it took {:?}", began.elapsed());
    for run in [&slow, &doubtful] {
        assert_eq!(place.json(&["show", run])["status"], "interrupted");
    }
    std::fs::write(place.path("go"), "").expect("a file");
    let server = place.serve(&[]);
    server.wait_for(&token, &slow, "succeeded");
    let seen = server.wait_for(&token, &doubtful, "waiting");
    assert_eq!(seen["doubts"][0]["step"], "copy");
    // Another restart does not settle it.
    server.end("KILL");
    let server = place.serve(&[]);
    let seen = server.wait_for(&token, &doubtful, "waiting");
    assert_eq!(seen["driven"], false);
    let resumed =
        server.post(&token, &format!("/api/v1/runs/{doubtful}/resume"), &json!({ "steps": { "copy": "done" } }));
    assert_eq!(resumed.status, 202, "{}", resumed.json());
    server.wait_for(&token, &doubtful, "succeeded");
}

#[test]
fn a_broken_playbook_keeps_its_last_good_text_and_says_so() {
    let place = Place::new();
    place.playbook("p", "runback: 1\nname: p\nsteps:\n  - run: echo one\n");
    let token = place.token("ann", "operator");
    let server = place.serve(&[]);
    place.playbook("p", "runback: 1\nname: p\nsteps:\n  - rnu: echo two\n");
    let until = Instant::now() + PATIENCE;
    while server.get(&token, "/api/v1/status")["broken"] != json!(["p"]) {
        assert!(Instant::now() < until, "nobody noticed");
        std::thread::sleep(Duration::from_millis(50));
    }
    let seen = server.get(&token, "/api/v1/playbooks/p");
    assert_eq!((&seen["broken"], &seen["errors"]), (&json!(true), &json!(1)));
    assert!(seen["good_text"].as_str().is_some_and(|t| t.contains("echo one")), "{seen}");
    assert!(seen["text"].as_str().is_some_and(|t| t.contains("rnu")), "{seen}");
    let metrics = server.ask("GET", "/metrics", &[("Authorization", &format!("Bearer {token}"))], "");
    let metrics = String::from_utf8(metrics.body).expect("text");
    assert!(metrics.contains("runback_playbook_broken{playbook=\"p\"} 1"), "{metrics}");
    let started = server.post(&token, "/api/v1/runs", &json!({ "playbook": "p" }));
    let run = started.json()["run"].as_str().expect("an id").to_owned();
    let seen = server.wait_for(&token, &run, "succeeded");
    assert_eq!(seen["steps"][0]["outputs"]["stdout"], "one");
}

#[test]
fn outputs_and_locks_that_cannot_be_worked_out_are_told() {
    let place = Place::new();
    let playbook = "runback: 1\nname: p\ninputs: { vm: { type: string } }\nlocks: [\"{{ inputs.vm }}\"]\nsteps:\n  \
        - { id: a, when: \"false\", run: echo hi, outputs: { o: stdout } }\n  - { id: b, run: echo hi, outputs: { o: stdout } }\n\
        outputs: { x: \"{{ steps.a.outputs.o }}\", y: \"{{ steps.b.outputs.o }}\" }\n";
    place.playbook("p", playbook);
    let token = place.token("ann", "operator");
    let server = place.serve(&[]);
    let refused = server.post(&token, "/api/v1/runs", &json!({ "playbook": "p", "inputs": { "vm": "" } }));
    assert_eq!(refused.status, 400, "{}", refused.json());
    assert!(refused.json().to_string().contains("the lock `{{ inputs.vm }}` is empty"), "{}", refused.json());
    assert_eq!(place.json(&["runs"]), json!([]), "nothing of it stays");
    let started = server.post(&token, "/api/v1/runs", &json!({ "playbook": "p", "inputs": { "vm": "one" } }));
    let run = started.json()["run"].as_str().expect("an id").to_owned();
    let seen = server.wait_for(&token, &run, "succeeded");
    assert_eq!(seen["outputs"], json!({ "x": null, "y": "hi" }));
    assert_eq!(seen["output_errors"], json!({ "x": "step a is skipped, so it has no outputs" }));
}

#[test]
fn what_a_resume_says_of_a_queued_run_counts_when_its_turn_comes() {
    let place = Place::new();
    let token = place.token("ann", "operator");
    let (server, slow, doubtful) = two_at_work(&place, &token);
    server.end("KILL");
    let server = place.serve(&["--max-runs", "1"]);
    let path = format!("/api/v1/runs/{doubtful}");
    until("it is not queued", || (server.get(&token, &path)["queued"] == json!(1)).then_some(()));
    let resume = |step: &str| server.post(&token, &format!("{path}/resume"), &json!({ "steps": { step: "done" } }));
    let refused = resume("cpoy");
    assert_eq!(refused.status, 404, "{}", refused.json());
    assert!(refused.json()["error"]["help"].as_str().is_some_and(|h| h.contains("did you mean `copy`?")));
    assert_eq!(resume("copy").status, 202);
    assert_eq!(server.get(&token, &path)["queued"], json!(1), "it has not passed the one before it");
    let why = server.get(&token, &format!("{path}/why"));
    let text = why["why"][0]["text"].as_str().expect("it waits");
    assert_eq!(text, "it is in the server's queue, at place 1: 1 run at once (--max-runs)");
    std::fs::write(place.path("go"), "").expect("a file");
    for run in [&slow, &doubtful] {
        server.wait_for(&token, run, "succeeded");
    }
}

/// Who asks may be another process: it leaves a request in the store and knows nothing of the queue.
#[test]
fn a_queued_run_is_cancelled_by_the_command_line_before_its_turn() {
    let place = Place::new();
    place.playbook("slow", SLOW);
    let token = place.token("ann", "operator");
    let server = place.serve(&["--max-runs", "1"]);
    let start = || {
        let started = server.post(&token, "/api/v1/runs", &json!({ "playbook": "slow" })).json();
        started["run"].as_str().expect("an id").to_owned()
    };
    let (first, second) = (start(), start());
    server.stream(&token, &first, None).until("attempt_started");
    let why = place.json(&["why", &second]);
    assert!(why["why"][0]["text"].as_str().is_some_and(|text| text.starts_with("it has not begun: tester@")), "{why}");
    place.run(&["cancel", &second]);
    let seen = server.wait_for(&token, &second, "cancelled");
    assert!(seen["started_at"].is_null(), "{seen}");
    assert_eq!(server.get(&token, &format!("/api/v1/runs/{first}"))["status"], "running");
}

#[test]
fn one_step_is_retried_alone_or_not_at_all() {
    let place = Place::new();
    let step = |id: &str| {
        let path = place.path(id);
        format!("  - {{ id: {id}, needs: [], run: test -e {} }}\n", path.display())
    };
    let text = format!("runback: 1\nname: two\non_failure: hold\nsteps:\n{}{}", step("left"), step("right"));
    place.playbook("two", &text);
    let token = place.token("ann", "operator");
    let server = place.serve(&[]);
    let run = server.post(&token, "/api/v1/runs", &json!({ "playbook": "two" })).json();
    let run = run["run"].as_str().expect("an id").to_owned();
    let attempts = |seen: &serde_json::Value| {
        seen["steps"]
            .as_array()
            .expect("steps")
            .iter()
            .map(|s| s["attempts"].as_u64().expect("a number"))
            .collect::<Vec<_>>()
    };
    let retry = |step: &str| server.post(&token, &format!("/api/v1/runs/{run}/retry"), &json!({ "step": step }));
    let free = || {
        until("it is driven", || (server.get(&token, &format!("/api/v1/runs/{run}"))["driven"] == false).then_some(()));
    };
    let seen = server.wait_for(&token, &run, "failed");
    free();
    assert_eq!(attempts(&seen), [1, 1]);
    let refused = retry("left");
    assert_eq!(refused.status, 409, "{}", refused.json());
    assert!(refused.json()["error"]["message"].as_str().is_some_and(|m| m.contains("would try right again too")));
    assert_eq!(retry("lfet").status, 404);
    assert_eq!(attempts(&server.get(&token, &format!("/api/v1/runs/{run}"))), [1, 1], "nothing was tried");

    std::fs::write(place.path("left"), "").expect("a file");
    assert_eq!(server.post(&token, &format!("/api/v1/runs/{run}/resume"), &json!({})).status, 202);
    let seen = until("the whole is not tried", || {
        let seen = server.get(&token, &format!("/api/v1/runs/{run}"));
        (attempts(&seen) == [2, 2] && seen["status"] == "failed").then_some(seen)
    });
    free();
    assert_eq!(seen["steps"][0]["status"], "succeeded");
    let done = retry("left");
    assert_eq!(done.status, 409, "{}", done.json());
    assert!(
        done.json()["error"]["message"].as_str().is_some_and(|m| m.contains("left has not failed: it is succeeded"))
    );
    std::fs::write(place.path("right"), "").expect("a file");
    assert_eq!(retry("right").status, 202);
    let seen = server.wait_for(&token, &run, "succeeded");
    assert_eq!(attempts(&seen), [2, 3], "what was done is not done again");
}

/// Who drives a run may go in the instant in which something is asked of it: what goes on is done here then, and of what
/// stops it nobody is told that it is done.
#[test]
fn what_the_process_that_drives_a_run_does_not_hear_is_done_by_the_server() {
    let place = Place::new();
    let (w, began, go) = (place.path("w"), place.path("began"), place.path("go"));
    let text = format!(
        "runback: 1\nname: gone\nsteps:\n  - {{ id: w, uses: file.write, with: {{ path: {}, content: x }} }}\n  - {{ id: s, run: \"touch {}; [ -e {} ] || sleep 60\" }}\n",
        w.display(),
        began.display(),
        go.display()
    );
    place.playbook("gone", &text);
    let token = place.token("ann", "operator");
    let server = place.serve(&[]);
    for (run, verb, body, code, then) in [
        ("hold", "hold", json!({}), 409, "interrupted"),
        ("cancel", "cancel", json!({}), 409, "interrupted"),
        ("resume", "resume", json!({ "steps": { "s": "redo" } }), 202, "succeeded"),
        ("rollback", "rollback", json!({}), 202, "rolled-back"),
    ] {
        let mut child = place.command(&["run", "playbooks/gone.yaml", "--run-id", run]).spawn().expect("it starts");
        until("the step does not begin", || began.exists().then_some(()));
        child.kill().expect("it can be killed");
        child.wait().expect("it ends");
        server.wait_for(&token, run, "interrupted");
        std::fs::write(&go, "").expect("a file");
        let held = lease_of(&place.path("state"), run);
        let answer = std::thread::scope(|scope| {
            let asks = scope.spawn(|| server.post(&token, &format!("/api/v1/runs/{run}/{verb}"), &body));
            until("nothing is asked", || (requests(&place.path("state")) == 1).then_some(()));
            drop(held);
            asks.join().expect("it is answered")
        });
        assert_eq!(answer.status, code, "{run}: {}", answer.json());
        server.wait_for(&token, run, then);
        assert_eq!(requests(&place.path("state")), 0, "{run}");
        assert_eq!(w.exists(), run != "rollback", "{run}");
        for path in [&w, &go, &began].into_iter().filter(|path| path.exists()) {
            std::fs::remove_file(path).expect("it is there");
        }
    }
}

#[test]
fn a_status_that_no_run_has_is_refused() {
    let place = Place::new();
    let token = place.token("ann", "viewer");
    let server = place.serve(&[]);
    server.get(&token, "/api/v1/runs?status=waiting,failed,stuck,interrupted");
    server.get(&token, "/api/v1/runs?status=");
    let refused =
        server.ask("GET", "/api/v1/runs?status=failed,suceeded", &[("Authorization", &format!("Bearer {token}"))], "");
    assert_eq!(refused.status, 400);
    let error = refused.json()["error"].clone();
    assert_eq!(error["message"], "status: a run is never `suceeded`");
    assert!(
        error["help"].as_str().is_some_and(|h| h.starts_with("did you mean `succeeded`? runs are running, waiting,")),
        "{error}"
    );
}

#[test]
fn what_to_type_next_names_the_store_for_whoever_reads_it() {
    let place = Place::new();
    place.playbook("slow", SLOW);
    let token = place.token("ann", "operator");
    let server = place.serve(&["--state-dir", "state"]);
    let run = server.post(&token, "/api/v1/runs", &json!({ "playbook": "slow" })).json();
    let run = run["run"].as_str().expect("an id");
    let commands = until("nothing to type", || {
        let why = server.get(&token, &format!("/api/v1/runs/{run}/why"));
        why["commands"].as_array().filter(|all| !all.is_empty()).cloned()
    });
    for command in commands {
        let (_, dir) = command.as_str().and_then(|text| text.rsplit_once(" --state-dir ")).expect("it names the store");
        assert!(dir.starts_with('/') && dir.ends_with("/state"), "{command}");
    }
}
