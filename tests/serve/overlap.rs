//! Schedules whose runs meet, fail, or were missed: what becomes of their instants under a real server.

use serde_json::Value as Json;

use super::{Place, Server, until};

fn every_second(more: &str, run: &str) -> String {
    format!(
        "runback: 1\nname: tick\nschedule:\n  - {{ cron: '* * * * * *'{more} }}\nsteps:\n  - {{ id: a, run: '{run}', timeout: 1h, on_interrupt: rerun }}\n"
    )
}

/// Oldest first.
fn firings(server: &Server, token: &str) -> Vec<Json> {
    let all = server.get(token, "/api/v1/firings?limit=1000");
    let mut all = all["firings"].as_array().expect("a list").clone();
    all.reverse();
    all
}

fn words(firings: &[Json]) -> Vec<&str> {
    firings.iter().map(|f| f["decision"].as_str().expect("a word")).collect()
}

/// By id, whatever the list is sorted by.
fn status(server: &Server, token: &str, firing: &Json) -> String {
    let run = firing["run"].as_str().expect("a run");
    server.get(token, &format!("/api/v1/runs/{run}"))["status"].as_str().expect("a status").to_owned()
}

#[test]
fn one_waits_and_the_rest_is_passed_over() {
    let place = Place::new();
    let wait = format!("until test -e {}; do sleep 0.05; done", place.path("go").display());
    place.playbook("tick", &every_second(", overlap: buffer_one", &wait));
    let token = place.token("ann", "operator");
    let server = place.serve(&[]);
    let seen = until("no four instants", || Some(firings(&server, &token)).filter(|f| f.len() >= 4));
    assert_eq!(words(&seen)[..4], ["started", "started", "buffered", "buffered"]);
    let second = server.get(&token, &format!("/api/v1/runs/{}", seen[1]["run"].as_str().expect("a run")));
    assert_eq!((&second["queued"], &second["started_at"]), (&1.into(), &Json::Null));
    std::fs::write(place.path("go"), "").expect("a file");
    until("the one that waited does not run", || (status(&server, &token, &seen[1]) == "succeeded").then_some(()));
}

/// What is said of the file at the instant counts: not what was there when the server came, and not after the run began.
#[test]
fn a_changed_playbook_counts_from_the_next_instant_on() {
    let place = Place::new();
    place.playbook("tick", &every_second("", "echo one"));
    let token = place.token("ann", "operator");
    let server = place.serve(&[]);
    let printed = |firing: &Json| {
        let run = firing["run"].as_str()?;
        let seen = server.get(&token, &format!("/api/v1/runs/{run}"));
        Some(seen["steps"][0]["outputs"]["stdout"].as_str()?.to_owned())
    };
    until("nothing was printed", || firings(&server, &token).iter().find_map(printed).filter(|text| text == "one"));
    place.playbook("tick", &every_second("", "echo two"));
    until("the change is not seen", || {
        firings(&server, &token).iter().rev().find_map(printed).filter(|text| text == "two")
    });
    let all: Vec<_> = firings(&server, &token).iter().filter_map(printed).collect();
    assert!(all.is_sorted_by_key(|text| text == "two"), "once changed, it stays so: {all:?}");
}

#[test]
fn all_wait_and_run_one_after_the_other() {
    let place = Place::new();
    let wait = format!("until test -e {}; do sleep 0.05; done", place.path("go").display());
    place.playbook("tick", &every_second(", overlap: buffer_all", &wait));
    let token = place.token("ann", "operator");
    let server = place.serve(&[]);
    let seen = until("no four instants", || Some(firings(&server, &token)).filter(|f| f.len() >= 4));
    assert_eq!(words(&seen)[..4], ["started"; 4]);
    std::fs::write(place.path("go"), "").expect("a file");
    until("they do not all run", || (status(&server, &token, &seen[3]) == "succeeded").then_some(()));
    let times = |firing: &Json| {
        let run = server.get(&token, &format!("/api/v1/runs/{}", firing["run"].as_str().expect("a run")));
        (run["started_at"].as_u64().expect("it began"), run["finished_at"].as_u64().expect("it ended"))
    };
    for two in seen[..4].windows(2) {
        assert!(times(&two[0]).1 <= times(&two[1]).0, "they met");
    }
}

#[test]
fn the_next_one_ends_the_one_before() {
    let place = Place::new();
    place.playbook("tick", &every_second(", overlap: cancel_other", "sleep 600"));
    let token = place.token("ann", "operator");
    let server = place.serve(&[]);
    let seen = until("no three runs", || {
        let seen = firings(&server, &token);
        let second_runs = seen.len() >= 3 && status(&server, &token, &seen[1]) == "cancelled";
        second_runs.then_some(seen)
    });
    assert_eq!(words(&seen)[..3], ["started"; 3]);
    // The second may have been called off in the queue, while the first was still being stopped.
    until("the first is not ended", || (status(&server, &token, &seen[0]) == "cancelled").then_some(()));
}

#[test]
fn a_schedule_pauses_itself_after_a_failure_and_says_why() {
    let place = Place::new();
    place.playbook("tick", &every_second(", pause_on_failure: true", "exit 3"));
    let token = place.token("ann", "operator");
    let server = place.serve(&[]);
    let paused = until("it is not paused", || {
        let paused = server.get(&token, "/api/v1/schedules")["schedules"][0]["paused"].clone();
        (!paused.is_null()).then_some(paused)
    });
    assert_eq!(paused["by"], "runback");
    let seen = until("no instant after it", || {
        Some(firings(&server, &token)).filter(|f| f.last().is_some_and(|last| last["decision"] == "paused"))
    });
    let run = seen[0]["run"].as_str().expect("a run");
    assert_eq!(paused["why"], format!("run {run}: rolled-back"));
    let (code, log) = server.end("TERM");
    assert!(code == Some(0) && log.contains("\"message\":\"schedule paused\""), "{log}");
}

/// It went well; that somebody takes it back is no failure of the schedule's.
#[test]
fn a_run_that_somebody_takes_back_does_not_pause_its_schedule() {
    let place = Place::new();
    place.playbook("tick", &every_second(", pause_on_failure: true", "true"));
    let token = place.token("ann", "operator");
    let server = place.serve(&[]);
    let started = || {
        let all = firings(&server, &token);
        all.iter().filter_map(|f| f["run"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    let run = until("no run", || started().into_iter().next());
    server.wait_for(&token, &run, "succeeded");
    assert_eq!(server.post(&token, &format!("/api/v1/runs/{run}/rollback"), &serde_json::json!({})).status, 202);
    server.wait_for(&token, &run, "rolled-back");
    let so_far = started().len();
    until("it does not go on", || (started().len() > so_far + 1).then_some(()));
    assert!(server.get(&token, "/api/v1/schedules")["schedules"][0]["paused"].is_null());
    server.end("TERM");
}

#[test]
fn what_was_missed_is_made_up_for_as_the_schedule_says() {
    for (catchup, wanted) in [
        ("none", ["missed", "missed", "missed", "missed"]),
        ("last", ["missed", "missed", "missed", "started"]),
        ("all", ["started", "started", "started", "started"]),
    ] {
        // Each hour at a second that was 30 minutes ago: nothing of it counts as on time, and the next one is far off.
        let now = jiff::Timestamp::now().as_millisecond().cast_unsigned();
        let (second, minute) = (now / 1000 % 60, (now / 60_000 + 30) % 60);
        let place = Place::new();
        let more = format!(", overlap: allow_all, catchup: {catchup}, catchup_window: 12h");
        let text = every_second(&more, "true");
        place.playbook("tick", &text.replace("* * * * * *", &format!("{second} {minute} * * * *")));
        let token = place.token("ann", "operator");
        let server = place.serve(&[]);
        until("the schedule is not met", || {
            (server.get(&token, "/api/v1/schedules")["schedules"][0]["decided"].is_u64()).then_some(())
        });
        server.end("KILL");
        // As if it had been away for four hours.
        let store = rusqlite::Connection::open(place.path("state/journal.db")).expect("a store");
        let back = i64::try_from(now).expect("a time") - 235 * 60_000;
        assert_eq!(store.execute("UPDATE schedules SET decided = ?1", [back]).expect("it can be set back"), 1);
        store.execute("DELETE FROM firings", []).expect("they can be forgotten");
        drop(store);
        let server = place.serve(&[]);
        let seen = until("it does not decide", || Some(firings(&server, &token)).filter(|f| f.len() >= 4));
        assert_eq!(words(&seen)[..4], wanted, "{catchup}: {seen:?}");
        for firing in seen[..4].iter().filter(|f| f["decision"] == "started") {
            until("it does not run", || (status(&server, &token, firing) == "succeeded").then_some(()));
        }
    }
}
