//! Runs that wait, are stopped, or died: approvals, cancels, signals, interruptions, locks.

use serde_json::Value as Json;

use super::Desk;

const ASKS: &str = r"runback: 1
name: asks
steps:
  - id: prepare
    uses: file.write
    with: { path: prepared.txt, content: x }
  - id: go
    uses: approval
    with:
      prompt: Take it into service?
      form:
        ticket: { description: Change ticket }
        minutes: { type: integer, default: 5 }
  - id: done
    run: echo {{quote steps.go.outputs.ticket}} {{quote steps.go.outputs.minutes}} > done.txt
";

const SLEEPS: &str = r"runback: 1
name: sleeps
steps:
  - id: prepare
    uses: file.write
    with: { path: prepared.txt, content: x }
  - id: sleep
    run: echo asleep; sleep 60
  - id: after
    run: echo after
";

#[test]
fn nobody_is_asked_without_a_terminal() {
    let desk = Desk::new();
    desk.write("asks.yaml", ASKS);
    insta::assert_snapshot!("waits", desk.told(&["run", "asks.yaml", "--no-wait", "--run-id", "a1"]));
    insta::assert_snapshot!("why_it_waits", desk.told(&["why", "a1"]));
    insta::assert_snapshot!(
        "approve",
        [
            desk.told(&["approve", "a1"]),
            desk.told(&["approve", "a1", "done", "-f", "ticket=CHG-1"]),
            desk.told(&["approve", "a1", "-f", "tikcet=CHG-1"]),
            desk.told(&["approve", "a1", "-f", "ticket=CHG-1", "-f", "minutes=soon"]),
            desk.told(&["approve", "a1", "-f", "ticket=CHG-1", "-f", "minutes=7"]),
        ]
        .join("\n")
    );
    insta::assert_snapshot!(
        "answered",
        [desk.told(&["show", "a1"]), desk.told(&["why", "a1"]), desk.told(&["approve", "a1"])].join("\n")
    );
    assert_eq!(desk.run(&["resume", "a1"]).code, Some(0));
    assert_eq!(desk.read("done.txt").as_deref(), Some("CHG-1 7\n"));
}

#[test]
fn an_answer_reaches_the_process_that_waits_for_it() {
    let desk = Desk::new();
    desk.write("asks.yaml", ASKS);
    let run = desk.start(&["run", "asks.yaml", "--run-id", "a1"]);
    desk.wait_for("a1", "waiting");
    insta::assert_snapshot!("refuse", desk.told(&["approve", "a1", "go", "--refuse", "--reason", "not today"]));
    let said = run.finish();
    assert_eq!(said.code, Some(3), "{}", said.all());
    assert!(said.stdout.contains("not today"), "{}", said.stdout);
    assert_eq!(desk.read("prepared.txt"), None);
}

const ASKS_ON_THE_WAY_BACK: &str = r"runback: 1
name: back
steps:
  - id: prepare
    uses: file.write
    with: { path: prepared.txt, content: x }
  - id: other
    needs: [prepare]
    locks: [door]
    uses: file.write
    with: { path: other.txt, content: x }
  - id: traffic
    needs: [prepare]
    locks: [door]
    run: echo there
    rollback: { uses: approval, with: { prompt: Is the traffic gone? } }
  - id: break
    needs: [other, traffic]
    run: exit 7
";

/// An undo may ask, too: its answer comes from another process, and a refusal leaves what is before it as it is.
#[test]
fn an_undo_waits_for_its_answer() {
    let desk = Desk::new();
    desk.write("back.yaml", ASKS_ON_THE_WAY_BACK);
    let away = desk.run(&["run", "back.yaml", "--no-wait", "--run-id", "b1"]);
    assert_eq!(away.code, Some(5), "{}", away.all());
    assert!(away.all().contains("Is the traffic gone?"), "{}", away.all());
    let why = desk.run(&["why", "b1"]).all();
    assert!(why.contains("runback approve b1 traffic"), "{why}");
    let why = desk.run(&["why", "b1", "other"]).all();
    assert!(why.contains("other is taken back once traffic has given the lock door back"), "{why}");
    assert_eq!(desk.json(&["show", "b1"])["status"], "waiting");
    assert_eq!(desk.read("prepared.txt").as_deref(), Some("x"));
    assert_eq!(desk.run(&["approve", "b1"]).code, Some(0));
    let back = desk.run(&["resume", "b1"]);
    assert_eq!(back.code, Some(3), "{}", back.all());
    assert_eq!(desk.read("prepared.txt"), None);

    let run = desk.start(&["run", "back.yaml", "--run-id", "b2"]);
    desk.wait_for("b2", "waiting");
    assert_eq!(desk.run(&["approve", "b2", "traffic", "--refuse", "--reason", "still there"]).code, Some(0));
    let stuck = run.finish();
    assert_eq!(stuck.code, Some(4), "{}", stuck.all());
    assert!(stuck.all().contains("still there"), "{}", stuck.all());
    assert_eq!(desk.read("prepared.txt").as_deref(), Some("x"));
}

/// What people write with their answer is stored, whoever drives the run: without its secrets.
#[test]
fn a_reason_is_stored_without_the_secrets_of_the_run() {
    const SECRET: &str = "hunter2-and-more";
    const NOT_READ: &str = "another-secret";
    let desk = Desk::new();
    let secrets = "secrets:\n  token: { file: token }\n  gone: { env: GONE }\n";
    desk.write("asks.yaml", &ASKS.replace("steps:\n", &format!("{secrets}steps:\n")));
    desk.write("token", SECRET);
    let away = desk.command(&["run", "asks.yaml", "--no-wait", "--run-id", "a1"]).env("GONE", NOT_READ).output();
    assert_eq!(away.expect("the binary runs").status.code(), Some(5));
    let reason = format!("because of {SECRET}");
    let said = desk.run(&["approve", "a1", "-f", "ticket=CHG-1", "-f", "minutes=7", "--reason", &reason]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    assert!(said.stderr.contains("cannot be read here: gone"), "{}", said.all());
    let why = desk.run(&["why", "a1"]).all();
    assert!(why.contains("said yes: because of ***"), "{why}");
    assert!(desk.path().join("state/journal.db").exists());
    for file in ["journal.db", "journal.db-wal"] {
        // The second is there only while it is needed.
        let bytes = std::fs::read(desk.path().join("state").join(file)).unwrap_or_default();
        assert!(!bytes.windows(SECRET.len()).any(|w| w == SECRET.as_bytes()), "it stands in {file}");
    }
}

/// Starts the sleeper, and waits until it sleeps.
fn asleep(desk: &Desk, sleeper: &str) -> super::Running {
    desk.write("sleeps.yaml", sleeper);
    let run = desk.start(&["run", "sleeps.yaml", "--run-id", "s1"]);
    desk.wait_until(&["logs", "s1", "sleep"], "asleep");
    run
}

/// All that was said but the sleeper's own line: that one is there once, and where among the others it comes is a matter
/// of time.
fn but_its_output(told: &str) -> String {
    const OUTPUT: &str = "[clock] │ sleep: asleep\n";
    assert_eq!(told.matches(OUTPUT).count(), 1, "{told}");
    told.replace(OUTPUT, "")
}

#[test]
fn ctrl_c_stops_and_takes_back() {
    let desk = Desk::new();
    let run = asleep(&desk, SLEEPS);
    insta::assert_snapshot!("why_it_runs", desk.told(&["why", "s1"]));
    run.signal("INT");
    insta::assert_snapshot!("cancelled", but_its_output(&desk.redact(&run.finish().all())));
    assert_eq!(desk.read("prepared.txt"), None);
}

#[test]
fn cancel_from_elsewhere_does_the_same() {
    let desk = Desk::new();
    let run = asleep(&desk, SLEEPS);
    insta::assert_snapshot!("asked_to_stop", desk.told(&["cancel", "s1"]));
    assert_eq!(run.finish().code, Some(130));
    assert_eq!(desk.json(&["show", "s1"])["status"], "cancelled");
}

#[test]
fn a_second_owner_is_refused() {
    let desk = Desk::new();
    let run = asleep(&desk, SLEEPS);
    insta::assert_snapshot!("busy", desk.told(&["resume", "s1"]));
    run.signal("INT");
    run.finish();
}

#[test]
fn term_leaves_the_run_resumable() {
    let desk = Desk::new();
    let run = asleep(&desk, SLEEPS);
    run.signal("TERM");
    insta::assert_snapshot!("left", but_its_output(&desk.redact(&run.finish().all())));
    insta::assert_snapshot!(
        "in_doubt",
        [
            desk.told(&["resume", "s1"]),
            desk.told(&["why", "s1", "sleep"]),
            desk.told(&["why", "s1", "after"]),
            desk.told(&["resume", "s1", "--step", "sleep=done"]),
        ]
        .join("\n")
    );
    assert!(desk.read("prepared.txt").is_some());
}

/// Whoever holds a run that waits for its locks need not wait for them.
#[test]
fn a_run_that_waits_for_its_locks_is_held_at_once() {
    let desk = Desk::new();
    let first = asleep(&desk, &SLEEPS.replace("steps:", "locks: [door]\nsteps:"));
    let second = desk.start(&["run", "sleeps.yaml", "--wait", "--run-id", "w1"]);
    desk.wait_until(&["why", "w1"], "door");
    desk.run(&["cancel", "w1", "--hold"]);
    let held = second.finish();
    assert_eq!(held.code, Some(1), "{}", held.all());
    assert_eq!(desk.json(&["show", "w1"])["status"], "failed");
    assert!(held.all().contains("runback resume w1"), "{}", held.all());
    first.signal("INT");
    assert_eq!(first.finish().code, Some(130));
    let resumed = desk.start(&["resume", "w1"]);
    desk.wait_until(&["logs", "w1", "sleep"], "asleep");
    resumed.signal("INT");
    resumed.finish();
}

/// What a run waited for it waits for still: 130 would say that somebody gave it up.
#[test]
fn term_ends_the_wait_and_not_the_run() {
    let desk = Desk::new();
    desk.write("asks.yaml", ASKS);
    let run = desk.start(&["run", "asks.yaml", "--run-id", "a1"]);
    desk.wait_for("a1", "waiting");
    run.signal("TERM");
    assert_eq!(run.finish().code, Some(5));
    assert_eq!(desk.json(&["show", "a1"])["status"], "waiting");
}

/// Found by hand: Ctrl-C twice, then `resume`, which was said to go on where the run stopped, took it back.
#[test]
fn a_cancel_outlives_its_process_and_everybody_is_told() {
    let desk = Desk::new();
    let hears_no_term = SLEEPS.replace(
        "run: echo asleep; sleep 60",
        "kill_grace: 10m\n    run: trap '' TERM; echo asleep; while :; do sleep 0.05; done",
    );
    let run = asleep(&desk, &hears_no_term);
    run.signal("INT");
    desk.wait_until(&["why", "s1", "after"], "the run is cancelled");
    run.signal("INT");
    let left = run.finish();
    assert_eq!(left.code, Some(130), "{}", left.all());
    for told in [
        "then the run is taken back; Ctrl-C once more leaves it at once, and `runback resume s1` goes on with that",
        "take it back, for it was cancelled",
    ] {
        assert!(left.stdout.contains(told), "{told}\n{}", left.all());
    }
    let why = desk.run(&["why", "s1"]).all();
    assert!(why.contains("a resume does not go on with its steps, but to take it back"), "{why}");
    let resumed = desk.run(&["resume", "s1"]);
    assert_eq!(resumed.code, Some(130), "{}", resumed.all());
    assert!(resumed.stdout.contains("taken up again to take it back, for it was cancelled"), "{}", resumed.all());
    assert_eq!(desk.read("prepared.txt"), None);
}

const STUCK: &str = r"runback: 1
name: stuck
steps:
  - id: prepare
    uses: file.write
    with: { path: prepared.txt, content: x }
  - id: drain
    run: echo drained
    rollback: { run: exit 9 }
  - id: break
    run: exit 7
";

/// Found by hand: a `rollback:` that can never succeed left its run stuck for ever.
#[test]
fn an_undo_that_never_succeeds_is_settled_by_a_person() {
    let desk = Desk::new();
    desk.write("stuck.yaml", STUCK);
    for (run, what) in [("s1", "drain=undone"), ("s2", "drain=kept")] {
        let stuck = desk.run(&["run", "stuck.yaml", "--run-id", run]);
        assert_eq!(stuck.code, Some(4), "{}", stuck.all());
        assert!(stuck.stdout.contains(&format!("runback rollback {run} --step drain=undone")), "{}", stuck.all());
        assert_eq!(desk.run(&["rollback", run]).code, Some(4));
        assert_eq!(desk.read("prepared.txt").as_deref(), Some("x"));
        insta::assert_snapshot!(
            format!("settled_{}", &what[6..]),
            [
                desk.told(&["rollback", run, "--step", "prepare=undone"]),
                desk.told(&["rollback", run, "--step", what]),
                desk.told(&["show", run]),
                desk.told(&["why", run, "drain"]),
            ]
            .join("\n")
        );
        assert_eq!(desk.read("prepared.txt"), None);
        let steps = desk.json(&["show", run])["steps"].clone();
        let drain = steps.as_array().into_iter().flatten().find(|step| step["id"] == "drain").cloned();
        let by = drain.and_then(|step| step["undo_settled_by"].as_str().map(str::to_owned)).unwrap_or_default();
        assert!(by.starts_with("tester@"), "{steps}");
    }
}

#[test]
fn a_killed_run_is_interrupted_and_says_so() {
    let desk = Desk::new();
    let run = asleep(&desk, SLEEPS);
    run.signal("KILL");
    run.finish();
    assert_eq!(desk.json(&["show", "s1"])["status"], "interrupted");
    assert_eq!(desk.json(&["runs"])[0]["status"], "interrupted");
    insta::assert_snapshot!("killed", [desk.told(&["why", "s1"]), desk.told(&["cancel", "s1"])].join("\n"));
    assert_eq!(desk.run(&["rollback", "s1"]).code, Some(0));
    assert_eq!(desk.read("prepared.txt"), None);
}

#[test]
fn a_lock_that_is_held_is_refused_or_waited_for() {
    let desk = Desk::new();
    let playbook = |name: &str, script: &str| {
        format!("runback: 1\nname: {name}\nlocks: [vm/web1]\nsteps:\n  - id: work\n    run: {script}\n")
    };
    desk.write("first.yaml", &playbook("first", "echo held; while [ ! -e go ]; do sleep 0.05; done"));
    desk.write("second.yaml", &playbook("second", "echo second"));
    let first = desk.start(&["run", "first.yaml", "--run-id", "one"]);
    desk.wait_for("one", "running");
    while !desk.run(&["logs", "one", "work"]).stdout.contains("held") {
        std::thread::sleep(std::time::Duration::from_millis(30));
    }
    let refused = desk.redact(&desk.run(&["run", "second.yaml", "--run-id", "two"]).all());
    insta::assert_snapshot!("locked_out", refused);
    let second = desk.start(&["run", "second.yaml", "--run-id", "three", "--wait"]);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(120);
    let why = loop {
        let why = desk.run(&["why", "three", "--output", "json"]).stdout;
        let why: Json = serde_json::from_str(&why).unwrap_or_default();
        if why.to_string().contains("vm/web1") {
            break why["why"][0]["text"].as_str().unwrap_or_default().to_owned();
        }
        assert!(std::time::Instant::now() < until, "{why}");
        std::thread::sleep(std::time::Duration::from_millis(30));
    };
    insta::assert_snapshot!("waits_for_lock", desk.redact(&why));
    desk.write("go", "");
    assert_eq!((first.finish().code, second.finish().code), (Some(0), Some(0)));
}

/// Found by hand: `show` had it as running, and `why` said nothing of the lock.
#[test]
fn a_run_that_is_taken_up_waits_for_its_locks_and_says_so() {
    let desk = Desk::new();
    let playbook = |name: &str, script: &str| {
        let head = format!("runback: 1\nname: {name}\nlocks: [vm/web1]\non_failure: hold\n");
        format!("{head}steps:\n  - id: work\n    run: {script}\n")
    };
    desk.write("first.yaml", &playbook("first", "test -e mended"));
    desk.write("second.yaml", &playbook("second", "echo held; while [ ! -e go ]; do sleep 0.05; done"));
    assert_eq!(desk.run(&["run", "first.yaml", "--run-id", "one"]).code, Some(1));
    let second = desk.start(&["run", "second.yaml", "--run-id", "two"]);
    desk.wait_until(&["logs", "two", "work"], "held");
    let first = desk.start(&["resume", "one", "--wait"]);
    desk.wait_for("one", "waiting");
    let why = desk.run(&["why", "one"]).all();
    assert!(why.contains("lock vm/web1 is held by run two"), "{why}");
    let listed = desk.json(&["runs"]);
    let listed = listed.as_array().into_iter().flatten().find(|run| run["id"] == "one");
    assert_eq!(listed.map(|run| &run["status"]), Some(&Json::from("waiting")));
    desk.write("mended", "");
    desk.write("go", "");
    assert_eq!((second.finish().code, first.finish().code), (Some(0), Some(0)));
}
