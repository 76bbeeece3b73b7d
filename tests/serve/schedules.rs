//! Schedules under a server that is killed, beside another one, and with its clock's instants decided once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use super::{PATIENCE, Place, Server, until};

/// Kills of one test.
const KILLS: u64 = 50;

const EVERY_SECOND: &str = "runback: 1\nname: tick\nschedule:\n  - { cron: '* * * * * *', overlap: allow_all, catchup: all }\nsteps:\n  - id: a\n    run: 'true'\n    on_interrupt: rerun\n";

fn firings(server: &Server, token: &str) -> Vec<Json> {
    let all = server.get(token, "/api/v1/firings?limit=1000");
    all["firings"].as_array().expect("a list").clone()
}

/// Instant → run, each second from the first to the last, each decided once and started.
fn check(firings: &[Json], runs: &[Json]) -> usize {
    let mut by_instant: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    for run in runs {
        let at = run["scheduled_at"].as_u64().expect("a run of the schedule");
        by_instant.entry(at).or_default().push(run["id"].as_str().expect("an id"));
    }
    let mut instants: Vec<u64> = firings.iter().map(|f| f["at"].as_u64().expect("an instant")).collect();
    instants.sort_unstable();
    let (first, last) = (instants[0], instants[instants.len() - 1]);
    let wanted: Vec<u64> = (first..=last).step_by(1000).collect();
    assert_eq!(instants, wanted, "an instant was dropped or is no second");
    for firing in firings {
        let at = firing["at"].as_u64().expect("an instant");
        let runs = by_instant.get(&at).cloned().unwrap_or_default();
        assert_eq!(firing["decision"], "started", "{firing}");
        assert_eq!(runs, [firing["run"].as_str().expect("a run")], "instant {at}");
    }
    assert_eq!(by_instant.len(), instants.len(), "a run without its instant");
    instants.len()
}

#[test]
fn killed_50_times_each_second_has_exactly_one_run() {
    let place = Place::new();
    place.playbook("tick", EVERY_SECOND);
    let token = place.token("ann", "viewer");
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..KILLS {
        let server = place.serve(&[]);
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        std::thread::sleep(Duration::from_millis(300 + seed % 900));
        server.end("KILL");
    }
    let server = place.serve(&[]);
    // What was missed is caught up with, and what was cut off goes on.
    let end = Instant::now() + PATIENCE;
    let (firings, runs) = loop {
        let firings = firings(&server, &token);
        let now = jiff::Timestamp::now().as_millisecond().cast_unsigned();
        let caught_up = firings[0]["at"].as_u64().is_some_and(|at| at + 2500 > now);
        let runs = place.json(&["runs", "--limit", "100000"]);
        let runs = runs.as_array().expect("a list").clone();
        let over = runs.iter().filter(|r| r["status"] == "succeeded").count();
        // The server's own list is a moment behind the journal at most.
        let page = server.get(&token, "/api/v1/runs?limit=500");
        let page = page["runs"].as_array().expect("a list").clone();
        let newest = page.first().and_then(|r| r["scheduled_at"].as_u64());
        if caught_up && over + 3 >= firings.len() && newest >= firings[0]["at"].as_u64() {
            break (firings, page);
        }
        assert!(Instant::now() < end, "{over} of {} are over", firings.len());
        std::thread::sleep(Duration::from_millis(200));
    };
    // The list of runs was read after that of instants.
    let last = firings[0]["at"].as_u64();
    let runs: Vec<Json> = runs.into_iter().filter(|r| r["scheduled_at"].as_u64() <= last).collect();
    let count = check(&firings, &runs);
    assert!(count as u64 > KILLS / 2, "only {count} instants");
}

/// Whoever stops a server for a while wants no rush when it comes back, unless they said so.
#[test]
fn of_instants_without_a_server_only_the_latest_starts() {
    for catchup in ["none", "last"] {
        let place = Place::new();
        place.playbook("tick", &EVERY_SECOND.replace("catchup: all", &format!("catchup: {catchup}")));
        let token = place.token("ann", "viewer");
        let now = || jiff::Timestamp::now().as_millisecond().cast_unsigned();
        let server = place.serve(&[]);
        until("no instant", || (!firings(&server, &token).is_empty()).then_some(()));
        server.end("KILL");
        let gone = now();
        std::thread::sleep(Duration::from_secs(5));
        let come = now();
        let server = place.serve(&[]);
        let all = until("no instants since", || {
            let all = firings(&server, &token);
            let since = all.iter().filter(|f| f["at"].as_u64().is_some_and(|at| at > come + 500)).count();
            (since >= 3).then_some(all)
        });
        let between = |f: &&Json| f["at"].as_u64().is_some_and(|at| at > gone && at <= come);
        let missed: Vec<&str> = all.iter().filter(between).filter_map(|f| f["decision"].as_str()).collect();
        assert_eq!(missed.len() as u64, come / 1000 - gone / 1000, "{catchup}: each is decided: {all:?}");
        let started = missed.iter().filter(|d| **d == "started").count();
        assert!(started <= 1 && missed[1..].iter().all(|d| *d == "missed"), "{catchup}, newest first: {missed:?}");
    }
}

#[test]
fn two_servers_on_one_store_start_each_instant_once() {
    let place = Place::new();
    place.playbook("tick", EVERY_SECOND);
    let token = place.token("ann", "viewer");
    let (one, other) = (place.serve(&[]), place.serve(&[]));
    until("no five instants", || (firings(&one, &token).len() >= 5).then_some(()));
    other.end("KILL");
    one.end("TERM");
    let server = place.serve(&[]);
    let firings = firings(&server, &token);
    let last = firings[0]["at"].as_u64();
    let end = Instant::now() + PATIENCE;
    let runs = loop {
        // The server's own list is a moment behind the journal at most.
        let runs = server.get(&token, "/api/v1/runs?limit=500");
        let runs = runs["runs"].as_array().expect("a list").clone();
        if runs.first().is_some_and(|r| r["scheduled_at"].as_u64() >= last) {
            break runs;
        }
        assert!(Instant::now() < end, "the newest run is not listed");
    };
    let runs: Vec<Json> = runs.into_iter().filter(|r| r["scheduled_at"].as_u64() <= last).collect();
    assert!(check(&firings, &runs) >= 4);
}

#[test]
fn a_schedule_is_paused_triggered_and_filled_in_later() {
    let place = Place::new();
    place.playbook(
        "hourly",
        "runback: 1\nname: hourly\ninputs: { who: string }\nschedule:\n  - { cron: '@hourly', inputs: { who: clock } }\nsteps:\n  - id: say\n    run: echo \"{{ inputs.who }} {{ run.scheduled_at }}\"\n",
    );
    let token = place.token("ann", "operator");
    let server = place.serve(&[]);
    let list = server.get(&token, "/api/v1/schedules?next=2");
    let schedule = &list["schedules"][0];
    let key = schedule["key"].as_str().expect("a key").to_owned();
    assert_eq!((schedule["next"].as_array().map(Vec::len), &schedule["paused"]), (Some(2), &json!(null)));
    let ask = |what: &str, body: Json| server.post(&token, &format!("/api/v1/schedules/{key}/{what}"), &body);
    let paused = ask("pause", json!({ "why": "a test" }));
    assert_eq!((paused.status, paused.json()["paused"]["by"].as_str()), (200, Some("ann@127.0.0.1")));
    // The command line sees the same, and undoes it.
    assert_eq!(place.json(&["schedule", "list", "--playbooks", "playbooks"])["schedules"][0]["paused"], true);
    place.run(&["schedule", "resume", &key, "--playbooks", "playbooks"]);
    assert_eq!(server.get(&token, &format!("/api/v1/schedules/{key}"))["paused"], json!(null));

    let triggered = ask("trigger", json!({ "inputs": { "who": "me" } }));
    assert_eq!(triggered.status, 202, "{}", triggered.json());
    let run = triggered.json()["runs"][0].as_str().expect("an id").to_owned();
    let seen = server.wait_for(&token, &run, "succeeded");
    assert!(seen["steps"][0]["outputs"]["stdout"].as_str().is_some_and(|s| s.starts_with("me 20")), "{seen}");

    let from: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
    let range = json!({ "from": from.as_millisecond(), "to": from.as_millisecond() + 3 * 3_600_000 });
    let filled = ask("backfill", range.clone());
    assert_eq!((filled.status, filled.json()["runs"].as_array().map(Vec::len)), (202, Some(3)), "{}", filled.json());
    let last = filled.json()["runs"][2].as_str().expect("an id").to_owned();
    let seen = server.wait_for(&token, &last, "succeeded");
    assert_eq!(seen["steps"][0]["outputs"]["stdout"], "clock 2026-01-01T02:00:00.000Z");
    let again = ask("backfill", range).json();
    assert_eq!((&again["decided"], &again["runs"]), (&json!(3), &json!([])), "each instant once, for ever");
    // Also for the command line.
    let said = place.backfill(&key, "2026-01-01", "2026-01-01T04:00").output().expect("runback runs");
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("1 instant run, 3 had a run already"), "{said}");
}

#[test]
fn a_listing_explains_what_is_decided_where_clocks_change() {
    let place = Place::new();
    place.playbook(
        "night",
        "runback: 1\nname: night\nschedule:\n  - { cron: '30 2 * * *', timezone: Europe/Berlin }\nsteps:\n  - run: 'true'\n",
    );
    // More than a year: both changes are in it.
    let arguments = ["schedule", "list", "--playbooks", "playbooks", "--next", "380"];
    let list = place.json(&arguments);
    let next = list["schedules"][0]["next"].as_array().expect("firings");
    assert_eq!(next.len(), 380);
    let odd: Vec<&Json> = next.iter().filter(|f| !f["explain"].is_null()).collect();
    assert!((2..=4).contains(&odd.len()), "{odd:?}");
    for firing in &odd {
        let at = jiff::Timestamp::from_millisecond(firing["at"].as_i64().expect("a time")).expect("a time");
        let wall = at.in_tz("Europe/Berlin").expect("a zone");
        let explain = firing["explain"].as_str().expect("words");
        assert_eq!(
            firing["wall"].as_str().map(|w| w.ends_with("T02:30:00")),
            Some(true),
            "what was asked for: {firing}"
        );
        if explain.contains("forward") {
            assert_eq!((wall.month(), wall.hour(), wall.minute()), (3, 3, 30), "{firing}");
        } else {
            assert_eq!((wall.month(), wall.hour(), wall.minute()), (10, 2, 30), "{firing}");
            assert!(explain.contains("the first time") && wall.offset().seconds() == 7200, "{firing}");
        }
    }
    assert!(place.run(&arguments).contains("the clock is set forward over this time"));
}

#[test]
fn what_meets_a_run_of_its_own_is_passed_over() {
    let place = Place::new();
    place.playbook(
        "slow",
        "runback: 1\nname: slow\nschedule:\n  - cron: '* * * * * *'\nsteps:\n  - id: a\n    run: sleep 600\n    timeout: 1h\n",
    );
    let token = place.token("ann", "operator");
    let server = place.serve(&[]);
    let firings = until("no three instants", || Some(firings(&server, &token)).filter(|f| f.len() >= 3));
    let decisions: Vec<_> = firings.iter().rev().map(|f| f["decision"].as_str().expect("a word")).collect();
    assert_eq!(decisions[..3], ["started", "overlap", "overlap"]);
    assert_eq!(server.get(&token, "/api/v1/runs")["runs"].as_array().map(Vec::len), Some(1));
}
