//! Approvals by name, by role and by several people: whose answer counts, and what the journal says of them.

use serde_json::{Value as Json, json};

use super::{Place, Server};

fn playbook(with: &str) -> String {
    format!(
        "runback: 1\nname: ask\nsteps:\n  - id: go\n    uses: approval\n    with: {{ prompt: Go?, {with} }}\n  - {{ id: a, run: 'true' }}\n"
    )
}

fn start(server: &Server, token: &str) -> String {
    let started = server.post(token, "/api/v1/runs", &json!({ "playbook": "ask" }));
    assert_eq!(started.status, 201, "{}", started.json());
    let run = started.json()["run"].as_str().expect("an id").to_owned();
    server.wait_for(token, &run, "waiting");
    run
}

/// The answers that the journal has.
fn given(server: &Server, token: &str, run: &str) -> Vec<Json> {
    let events = server.get(token, &format!("/api/v1/runs/{run}/events"));
    let events = events["events"].as_array().expect("a list");
    events.iter().filter(|e| e["type"] == "approval_given").map(|e| e["answer"].clone()).collect()
}

#[test]
fn a_role_that_is_listed_approves_and_another_does_not() {
    let place = Place::new();
    place.playbook("ask", &playbook("approvers: [approver, cid]"));
    let olga = place.token("olga", "operator");
    let (ada, root) = (place.token("ada", "approver,viewer"), place.token("root", "admin"));
    let server = place.serve(&[]);
    let approve = |token: &str, run: &str| server.post(token, &format!("/api/v1/runs/{run}/approve"), &json!({}));

    let run = start(&server, &olga);
    // By the route's own rule: an operator answers nothing.
    assert_eq!(approve(&olga, &run).status, 403);
    // An administrator may answer, but is not whom this question is for.
    let refused = approve(&root, &run);
    assert_eq!(refused.status, 409);
    assert!(refused.json()["error"]["message"].as_str().is_some_and(|m| m.contains("not among the approvers")));
    // The command line has no role, only its user's name.
    let said = place.command(&["approve", &run]).output().expect("runback runs");
    let (code, said) = (said.status.code(), String::from_utf8_lossy(&said.stderr).into_owned());
    assert!(code == Some(6) && said.contains("not among the approvers"), "{code:?} {said}");
    assert_eq!(given(&server, &root, &run), Vec::<Json>::new());

    assert_eq!(approve(&ada, &run).status, 202);
    server.wait_for(&root, &run, "succeeded");
    let wanted = json!({ "approved": true, "by": "ada@127.0.0.1", "roles": ["approver", "viewer"] });
    assert_eq!(given(&server, &root, &run), [wanted]);
}

#[test]
fn a_person_is_counted_once_and_a_name_from_the_command_line_counts() {
    let place = Place::new();
    place.playbook("ask", &playbook("approvers: [approver, tester], min_approvals: 2"));
    let ada = place.token("ada", "operator,approver");
    let (bea, again) = (place.token("bea", "approver"), place.token("bea", "approver"));
    let server = place.serve(&[]);
    let run = start(&server, &ada);
    let approve = |token: &str| server.post(token, &format!("/api/v1/runs/{run}/approve"), &json!({}));
    let started_it = approve(&ada);
    assert_eq!(started_it.status, 409);
    assert!(started_it.json()["error"]["message"].as_str().is_some_and(|m| m.contains("allow_self")));
    assert_eq!(approve(&bea).status, 202);
    let until = std::time::Instant::now() + super::PATIENCE;
    while given(&server, &ada, &run).len() != 1 {
        assert!(std::time::Instant::now() < until, "the answer does not arrive");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    // Another token of the same person is the same person.
    let twice = approve(&again);
    assert_eq!(twice.status, 409);
    assert!(twice.json()["error"]["message"].as_str().is_some_and(|m| m.contains("approved already")));
    assert_eq!(server.get(&ada, &format!("/api/v1/runs/{run}"))["status"], "waiting");
    place.run(&["approve", &run]);
    server.wait_for(&ada, &run, "succeeded");
    let given = given(&server, &ada, &run);
    assert_eq!(given.len(), 2);
    assert!(given[1]["by"].as_str().is_some_and(|by| by.starts_with("tester@")) && given[1].get("roles").is_none());
}

#[test]
fn who_started_a_run_may_approve_it_where_that_is_allowed() {
    let place = Place::new();
    place.playbook("ask", &playbook("approvers: [approver], allow_self: true"));
    let ada = place.token("ada", "operator,approver");
    let server = place.serve(&[]);
    let run = start(&server, &ada);
    assert_eq!(server.post(&ada, &format!("/api/v1/runs/{run}/approve"), &json!({})).status, 202);
    server.wait_for(&ada, &run, "succeeded");
}

#[test]
fn a_token_cannot_be_called_like_a_role() {
    let place = Place::new();
    let output = place.command(&["token", "create", "approver", "--role", "viewer"]).output().expect("runback runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && said.contains("a role's name"), "{said}");
}
