//! The API against its own OpenAPI document: schemathesis makes requests of all kinds, and no answer may be a mistake of
//! the server's or one that the document does not have. Bounded by the number of examples, not by time.

use std::process::Command;

use serde_json::json;

use super::Place;

#[test]
fn real_api_answers_as_its_document_says() {
    let Some(python) = super::python() else { return };
    let place = Place::new();
    let playbook = "runback: 1\nname: last\ninputs: { n: { type: integer, default: 1 } }\nschedule:\n  - cron: '@yearly'\nsteps:\n  - { id: a, run: 'true' }\n  - { id: go, uses: approval, with: { prompt: Go? } }\n";
    place.playbook("last", playbook);
    let token = place.token("root", "admin");
    let server = place.serve(&["--max-queue", "100000"]);
    assert_eq!(server.post(&token, "/api/v1/runs", &json!({ "playbook": "last" })).status, 201);
    let output = Command::new(python)
        .args(["-m", "schemathesis.cli", "run"])
        .arg(format!("http://{}/api/v1/openapi.json", server.address))
        .args(["-H", &format!("Authorization: Bearer {token}")])
        .args([
            "--checks",
            "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
        ])
        // They do not end by themselves; their own tests read them.
        .args(["--exclude-path-regex", "stream|changes"])
        .args(["--phases", "examples,fuzzing", "--max-examples", "15", "--generation-deterministic", "--no-color"])
        .current_dir(place.path(""))
        .output()
        .expect("schemathesis starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(server.ask("GET", "/readyz", &[], "").status, 200, "it still serves");
}
