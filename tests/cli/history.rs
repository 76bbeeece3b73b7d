//! What is told of runs that are over: `runs`, `show`, `logs`, `why`, `runs prune`.

use serde_json::json;

use super::{Desk, RELEASE};

/// One run that succeeded and one that was taken back.
fn two_runs() -> Desk {
    let desk = Desk::new();
    desk.write("release.yaml", RELEASE);
    let bad = ["run", "release.yaml", "-i", "version=3", "-i", "broken=true", "--run-id", "bad"];
    assert_eq!(desk.run(&bad).code, Some(3));
    assert_eq!(desk.run(&["run", "release.yaml", "-i", "version=2", "--run-id", "good"]).code, Some(0));
    desk
}

#[test]
fn runs_lists_and_filters() {
    let desk = two_runs();
    insta::assert_snapshot!("list", desk.told(&["runs"]));
    let ids = |arguments: &[&str]| -> Vec<String> {
        let list = desk.json(&[&["runs"], arguments].concat());
        let ids = list.as_array().expect("a list").iter().map(|r| r["id"].as_str().expect("an id").to_owned());
        ids.collect()
    };
    assert_eq!(ids(&[]), ["good", "bad"]);
    assert_eq!(ids(&["--status", "succeeded"]), ["good"]);
    assert_eq!(ids(&["--limit", "1"]), ["good"]);
    assert_eq!(ids(&["--playbook", "other"]), [""; 0]);
    assert_eq!(ids(&["--since", "1h"]), ["good", "bad"]);
    assert_eq!(ids(&["--since", "2999-01-01"]), [""; 0]);
    insta::assert_snapshot!(
        "bad_filters",
        [desk.told(&["runs", "--status", "sad"]), desk.told(&["runs", "--since", "yesterday"]),].join("\n")
    );
}

#[test]
fn an_empty_history_is_no_mistake_and_makes_no_folder() {
    let desk = Desk::new();
    insta::assert_snapshot!(desk.told(&["runs"]));
    assert!(!desk.path().join("state").exists());
}

#[test]
fn show_tells_a_person() {
    let desk = two_runs();
    insta::assert_snapshot!("good", desk.told(&["show", "good"]));
    insta::assert_snapshot!("bad", desk.told(&["show", "b"]));
}

#[test]
fn show_tells_a_program() {
    let desk = two_runs();
    let run = desk.json(&["show", "bad"]);
    assert_eq!(run["id"], "bad");
    assert_eq!(run["playbook"], "release");
    assert_eq!(run["status"], "rolled-back");
    assert_eq!(run["inputs"], json!({ "version": 3, "broken": true }));
    assert!(run["started_at"].as_u64() <= run["finished_at"].as_u64() && run["started_at"].is_u64());
    let steps = run["steps"].as_array().expect("a list of steps");
    let states: Vec<_> = steps.iter().map(|s| (s["id"].as_str(), s["type"].as_str(), s["status"].as_str())).collect();
    let expected = [
        (Some("write"), Some("file.write"), Some("undone")),
        (Some("mark"), Some("file.write"), Some("undone")),
        (Some("verify"), Some("shell"), Some("kept")),
        (Some("extra"), Some("shell"), Some("blocked")),
        (Some("note"), Some("shell"), Some("succeeded")),
    ];
    assert_eq!(states, expected);
    assert_eq!(steps[2]["error"]["exit_code"], 7);
    assert_eq!(steps[2]["attempts"], 1);
    let good = desk.json(&["show", "good"]);
    assert!(good["outputs"]["file"].as_str().expect("an output").ends_with("release.txt"));
}

#[test]
fn logs_show_what_was_printed() {
    let desk = two_runs();
    insta::assert_snapshot!("all", desk.told(&["logs", "bad"]));
    insta::assert_snapshot!("one", desk.told(&["logs", "bad", "verify", "--attempt", "1"]));
    insta::assert_snapshot!(
        "none",
        [desk.told(&["logs", "bad", "mark"]), desk.told(&["logs", "bad", "nope"]),].join("\n")
    );
}

#[test]
fn why_of_runs_that_are_over() {
    let desk = two_runs();
    let all = [desk.told(&["why", "good"]), desk.told(&["why", "bad"]), desk.told(&["why", "bad", "extra"])];
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn prune_removes_what_it_is_told_to() {
    let desk = two_runs();
    insta::assert_snapshot!(
        [
            desk.told(&["runs", "prune"]),
            desk.told(&["runs", "prune", "--keep", "1", "--dry-run"]),
            desk.told(&["runs", "prune", "--keep", "1"]),
            desk.told(&["runs", "prune", "--older-than", "soon"]),
        ]
        .join("\n")
    );
    assert_eq!(desk.json(&["runs"]).as_array().map(Vec::len), Some(1));
    assert!(!desk.path().join("state/logs/bad").exists(), "its logs go with it");
}
