//! The contract of `--output json`, and what a closed pipe does.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde_json::Value as Json;

use super::{Desk, RELEASE};

#[test]
fn events_are_one_json_object_per_line() {
    let desk = Desk::new();
    desk.write("release.yaml", RELEASE);
    let arguments = ["run", "release.yaml", "-i", "version=2", "-i", "broken=true", "--run-id", "j1", "-o", "json"];
    let said = desk.run(&arguments);
    assert_eq!((said.code, said.stderr.as_str()), (Some(3), ""));
    let events: Vec<Json> =
        said.stdout.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect();
    let schema: Json = serde_json::from_str(
        &std::fs::read_to_string(super::schema::folder().join("events.schema.json")).expect("the schema of events"),
    )
    .expect("a schema is JSON");
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    for (event, seq) in events.iter().zip(1..) {
        assert_eq!((&event["seq"], &event["run"]), (&Json::from(seq), &Json::from("j1")));
        assert!(event["at"].is_u64());
        let keys: Vec<&String> = event.as_object().expect("an object").keys().take(4).collect();
        assert_eq!(keys, ["seq", "at", "run", "type"]);
        let problems: Vec<String> = validator.iter_errors(event).map(|e| e.to_string()).collect();
        assert_eq!(problems, [""; 0], "{event}");
    }
    let words = events.iter().map(|e| {
        let step = e["step"].as_str().map(|s| format!(" {s}")).unwrap_or_default();
        format!("{}{step}", e["type"].as_str().expect("a type"))
    });
    insta::assert_snapshot!(words.collect::<Vec<_>>().join("\n"));
}

#[test]
fn a_mistake_is_data_too() {
    let desk = Desk::new();
    let said = desk.run(&["show", "nobody", "--output", "json"]);
    let json: Json = serde_json::from_str(&said.stdout).expect("JSON");
    assert_eq!((said.code, json["error"]["message"].as_str().is_some()), (Some(2), true), "{}", said.stdout);
}

#[test]
fn a_reader_that_goes_away_does_not_stop_the_run() {
    let desk = Desk::new();
    desk.write("release.yaml", RELEASE);
    let arguments = ["run", "release.yaml", "-i", "version=2", "--run-id", "p1"];
    let mut child = desk.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut first = String::new();
    BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut first).expect("a line");
    // The reader is gone with this statement's end.
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stderr, b"");
    assert_eq!(desk.json(&["show", "p1"])["status"], "succeeded");
}

#[test]
fn every_listing_survives_a_closed_pipe() {
    let desk = Desk::new();
    desk.write("release.yaml", RELEASE);
    let state = desk.path().join("state");
    let script = format!(
        "'{0}' steps --state-dir '{1}' | true; '{0}' schema | head -c 1 >/dev/null; exit 0",
        env!("CARGO_BIN_EXE_runback"),
        state.display()
    );
    let output = std::process::Command::new("sh").args(["-c", &script]).output().expect("sh runs");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!stderr.contains("panicked"), "{stderr}");
}
