//! Runs of one schedule that several processes drive: what meets them, waits for them or replaces them is decided by the
//! store, not by what one server knows of itself.

use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value as Json;

use super::{Place, Server, until};

/// What it does ends when the file `go` is there, asked to stop or not.
fn every_second(place: &Place, overlap: &str) -> String {
    let wait = format!("until test -e {}; do sleep 0.05; done", place.path("go").display());
    format!(
        "runback: 1\nname: tick\nschedule:\n  - {{ cron: '* * * * * *', overlap: {overlap} }}\nsteps:\n  - id: a\n    timeout: 1h\n    \
         kill_grace: 1h\n    run: |\n      trap '{wait}; exit 1' TERM\n      {wait}\n"
    )
}

/// A run of the schedule that a command line drives.
struct Elsewhere {
    child: Child,
    run: String,
    /// Its instant.
    at: u64,
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn elsewhere(place: &Place) -> Elsewhere {
    let list = place.json(&["schedule", "list", "--playbooks", "playbooks"]);
    let key = list["schedules"][0]["key"].as_str().expect("a key").to_owned();
    let from = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second() - 3600).expect("a time");
    let to = from + jiff::SignedDuration::from_secs(1);
    let mut backfill = place.backfill(&key, &from.to_string(), &to.to_string());
    let child = backfill.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("runback runs");
    let mut begun = Elsewhere { child, run: String::new(), at: from.as_millisecond().cast_unsigned() };
    begun.run = until("the command line starts no run", || {
        assert_eq!(begun.child.try_wait().expect("a child"), None, "it ended");
        let runs = place.json(&["runs"]);
        let run = runs.as_array()?.iter().find(|run| !run["started_at"].is_null())?;
        Some(run["id"].as_str()?.to_owned())
    });
    begun
}

/// What servers decided, oldest first.
fn firings(server: &Server, token: &str, after: u64) -> Vec<Json> {
    let all = server.get(token, "/api/v1/firings?limit=1000");
    let all = all["firings"].as_array().expect("a list").iter().rev();
    all.filter(|f| f["at"].as_u64().is_some_and(|at| at >= after)).cloned().collect()
}

fn words(firings: &[Json]) -> Vec<&str> {
    firings.iter().map(|f| f["decision"].as_str().expect("a word")).collect()
}

fn run_of(server: &Server, token: &str, firing: &Json) -> Json {
    server.get(token, &format!("/api/v1/runs/{}", firing["run"].as_str().expect("a run")))
}

#[test]
fn a_living_run_is_not_forgotten_however_many_instants_were_passed_over() {
    let place = Place::new();
    place.playbook("tick", &every_second(&place, "skip"));
    let token = place.token("ann", "viewer");
    let mut other = elsewhere(&place);
    // As if other servers had passed over many instants since.
    let store = rusqlite::Connection::open(place.path("state/journal.db")).expect("a store");
    for n in 1..=40_u64 {
        let sql = "INSERT INTO firings SELECT schedule, ?1, NULL, 'overlap', ?1 FROM firings WHERE run IS NOT NULL";
        assert_eq!(store.execute(sql, [(other.at + n).cast_signed()]).expect("one more"), 1);
    }
    drop(store);
    let server = place.serve(&[]);
    let own = other.at + 1000;
    let seen = until("no two instants", || Some(firings(&server, &token, own)).filter(|f| f.len() >= 2));
    assert_eq!(words(&seen)[..2], ["overlap", "overlap"], "{} lives", other.run);
    assert_eq!(server.get(&token, "/api/v1/schedules")["schedules"][0]["living"], serde_json::json!([other.run]));
    std::fs::write(place.path("go"), "").expect("a file");
    assert!(other.child.wait().expect("it ends").success());
    until("it does not go on once that is over", || {
        words(&firings(&server, &token, own)).contains(&"started").then_some(())
    });
}

#[test]
fn what_waits_waits_for_a_run_that_another_process_drives() {
    for overlap in ["buffer_one", "buffer_all"] {
        let place = Place::new();
        place.playbook("tick", &every_second(&place, overlap));
        let token = place.token("ann", "viewer");
        let other = elsewhere(&place);
        let server = place.serve(&[]);
        let own = other.at + 1000;
        let seen = until("no three instants", || Some(firings(&server, &token, own)).filter(|f| f.len() >= 3));
        let wanted = if overlap == "buffer_one" {
            ["started", "buffered", "buffered"]
        } else {
            ["started", "started", "started"]
        };
        assert_eq!(words(&seen)[..3], wanted, "{overlap}");
        let first = run_of(&server, &token, &seen[0]);
        assert!(first["started_at"].is_null(), "{} lives, and {overlap} waits for it: {first}", other.run);
        let why = server.get(&token, &format!("/api/v1/runs/{}/why", first["id"].as_str().expect("an id")));
        assert!(why["why"][0]["text"].as_str().is_some_and(|text| text.contains(&other.run)), "{why}");
        std::fs::write(place.path("go"), "").expect("a file");
        until("the one that waited does not run", || {
            (run_of(&server, &token, &seen[0])["status"] == "succeeded").then_some(())
        });
    }
}

#[test]
fn of_two_servers_runs_only_one_waits() {
    let place = Place::new();
    place.playbook("tick", &every_second(&place, "buffer_one"));
    let token = place.token("ann", "viewer");
    let (one, _other) = (place.serve(&[]), place.serve(&[]));
    let seen = until("no five instants", || Some(firings(&one, &token, 0)).filter(|f| f.len() >= 5));
    assert_eq!(words(&seen)[..5], ["started", "started", "buffered", "buffered", "buffered"]);
    until("the first does not run", || (!run_of(&one, &token, &seen[0])["started_at"].is_null()).then_some(()));
    let second = run_of(&one, &token, &seen[1]);
    assert!(second["started_at"].is_null(), "{second}");
    std::fs::write(place.path("go"), "").expect("a file");
    until("the one that waited does not run", || {
        (run_of(&one, &token, &seen[1])["status"] == "succeeded").then_some(())
    });
}

/// What a server had begun is in doubt when it dies; what only waited in its queue is not.
#[test]
fn a_living_server_takes_over_the_queue_of_one_that_died() {
    let place = Place::new();
    let wait = format!("until test -e {}; do sleep 0.05; done", place.path("go").display());
    place.playbook("waits", &format!("runback: 1\nname: waits\nsteps:\n  - {{ id: a, timeout: 1h, run: '{wait}' }}\n"));
    let token = place.token("ann", "operator");
    let start = |server: &Server| {
        let started = server.post(&token, "/api/v1/runs", &serde_json::json!({ "playbook": "waits" })).json();
        started["run"].as_str().expect("an id").to_owned()
    };
    let dying = place.serve(&["--max-runs", "1"]);
    let (begun, queued) = (start(&dying), start(&dying));
    dying.stream(&token, &begun, None).until("attempt_started");
    let living = place.serve(&["--max-runs", "1"]);
    let see = |run: &str| living.get(&token, &format!("/api/v1/runs/{run}"));
    // It answers once it has gone on with what it found; what comes after that is no start.
    assert_eq!(see(&begun)["driven"], true);
    dying.end("KILL");
    until("the queue is not taken over", || {
        let seen = see(&queued);
        (seen["driven"] == true && !seen["started_at"].is_null()).then_some(())
    });
    let events = living.get(&token, &format!("/api/v1/runs/{queued}/events"));
    let resumed = events["events"].as_array().expect("a list").iter().find(|e| e["type"] == "run_resumed");
    assert_eq!(resumed.expect("it was taken up")["by"], "runback", "no person asked for it");
    let seen = see(&begun);
    assert_eq!((&seen["status"], &seen["driven"]), (&"interrupted".into(), &false.into()));

    // A server that is told to end has its reasons, and goes on with its queue when it is back.
    let ending = place.serve(&["--max-runs", "1"]);
    let (_, left) = (start(&ending), start(&ending));
    assert_eq!(ending.end("TERM").0, Some(0));
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!((&see(&left)["driven"], &see(&left)["queued"]), (&false.into(), &Json::Null));
    std::fs::write(place.path("go"), "").expect("a file");
    living.wait_for(&token, &queued, "succeeded");
}

#[test]
fn what_replaces_a_run_of_another_process_begins_when_that_is_over() {
    let place = Place::new();
    place.playbook("tick", &every_second(&place, "cancel_other"));
    let token = place.token("ann", "viewer");
    let mut other = elsewhere(&place);
    let server = place.serve(&[]);
    let own = other.at + 1000;
    let seen = until("no three instants", || Some(firings(&server, &token, own)).filter(|f| f.len() >= 3));
    for firing in &seen {
        let run = run_of(&server, &token, firing);
        assert!(run["started_at"].is_null(), "{} is not over yet: {run}", other.run);
    }
    until("it was not asked to stop", || {
        let events = server.get(&token, &format!("/api/v1/runs/{}/events", other.run));
        let events = events["events"].as_array().expect("a list");
        events.iter().any(|e| e["type"] == "cancel_requested").then_some(())
    });
    std::fs::write(place.path("go"), "").expect("a file");
    other.child.wait().expect("it ends");
    until("no other one begins", || {
        let all = firings(&server, &token, own);
        all.iter().any(|f| !run_of(&server, &token, f)["started_at"].is_null()).then_some(())
    });
}
