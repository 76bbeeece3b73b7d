//! `check`, `plan`, `graph` and `steps`: what is told before anything runs.

use serde_json::json;

use super::{Desk, RELEASE};

/// Branches, a block, a loop, policies, a lock and a point of no return.
const LARGE: &str = r#"runback: 1
name: migrate
description: Moves a service to another host.
inputs:
  service: { type: string, default: web }
  hosts:   { type: list, default: [a1, b1] }
targets:
  far: { ssh: "root@far.example.com" }
locks: [ "service/{{ inputs.service }}" ]
timeout: 2h
steps:
  - id: snapshot
    uses: file.write
    with: { path: "/nonexistent-{{ inputs.service }}/snapshot", content: x }
    timeout: 10m
  - id: drain
    run: echo drain
    rollback: { run: echo fill }
    retry: { max_attempts: 5, initial_interval: 2s }
  - id: check
    needs: [snapshot]
    uses: tcp.check
    with: { host: 127.0.0.1, port: 1 }
    continue_on_error: true
  - id: copy
    needs: [drain, check]
    for_each: { items: "{{ inputs.hosts }}", as: host, max_parallel: 1 }
    run: echo "{{quote host.value}}"
    target: far
    locks: [ "host/{{ host.key }}" ]
  - id: cut
    run: echo cut
    irreversible: true
  - id: after
    on_failure: rollback
    steps:
      - id: one
        run: echo one
      - id: two
        needs: []
        run: echo two
        when: inputs.service == "web"
finally:
  - run: echo over
"#;

#[test]
fn a_plan_shows_order_undo_and_the_point_of_no_return() {
    let desk = Desk::new();
    desk.write("migrate.yaml", LARGE);
    insta::assert_snapshot!(desk.told(&["plan", "migrate.yaml", "--no-preview"]));
}

/// A step that may be skipped is a point of no return only if it is not.
#[test]
fn a_point_of_no_return_with_a_condition_says_so() {
    let desk = Desk::new();
    let text = "runback: 1\nname: maybe\ninputs: { commit: { type: boolean, default: false } }\nsteps:\n\
        \x20 - { id: a, uses: dir.create, with: { path: made } }\n\
        \x20 - { id: committed, uses: set, when: inputs.commit, with: { x: 1 }, irreversible: true }\n\
        \x20 - { id: b, uses: dir.create, with: { path: made/too } }\n";
    desk.write("maybe.yaml", text);
    let plan = desk.told(&["plan", "maybe.yaml", "--no-preview"]);
    assert!(plan.contains("after this nothing above is undone, when inputs.commit ────"), "{plan}");
    assert!(plan.contains("it is before committed, unless that is skipped"), "{plan}");
}

#[test]
fn a_plan_looks_at_the_world_and_leaves_it() {
    let desk = Desk::new();
    desk.write("release.yaml", RELEASE);
    desk.write("mark.txt", "marked\n");
    insta::assert_snapshot!("known", desk.told(&["plan", "release.yaml", "-i", "version=2"]));
    insta::assert_snapshot!("inputs_missing", desk.told(&["plan", "release.yaml"]));
    assert_eq!(desk.read("release.txt"), None);
}

#[test]
fn a_plan_is_data_too() {
    let desk = Desk::new();
    desk.write("migrate.yaml", LARGE);
    let plan = desk.json(&["plan", "migrate.yaml", "--no-preview"]);
    let steps = plan["steps"].as_array().expect("a list");
    let waves: Vec<_> =
        steps.iter().map(|s| (s["id"].as_str().unwrap_or(""), s["wave"].as_u64().unwrap_or(0))).collect();
    assert_eq!(waves, [("snapshot", 1), ("drain", 2), ("check", 2), ("copy", 3), ("cut", 4), ("after", 5)]);
    assert_eq!(steps[1]["rollback"], "shell");
    assert_eq!(steps[3]["items"], json!(["a1", "b1"]));
    assert_eq!(plan["locks"], json!(["service/web"]));
}

#[test]
fn graphs() {
    let desk = Desk::new();
    desk.write("migrate.yaml", LARGE);
    for format in ["mermaid", "dot", "text"] {
        insta::assert_snapshot!(format, desk.told(&["graph", "migrate.yaml", "--format", format]));
    }
}

#[test]
fn check_tells_all_files_and_one_exit_code() {
    let desk = Desk::new();
    desk.write("release.yaml", RELEASE);
    desk.write("bad.yaml", "runback: 1\nname: bad\nsteps:\n  - id: a\n    uses: file.wrte\n    needs: [b]\n");
    insta::assert_snapshot!(desk.told(&["check", "release.yaml", "bad.yaml", "none.yaml"]));
    let data = desk.json(&["check", "release.yaml", "bad.yaml", "none.yaml"]);
    let codes: Vec<_> = data["diagnostics"].as_array().expect("a list").iter().map(|d| d["code"].clone()).collect();
    assert_eq!(codes, [json!("RB0501"), json!("RB0401"), json!("RB0113")]);
}

#[test]
fn step_types_are_their_own_reference() {
    let desk = Desk::new();
    insta::assert_snapshot!("one", desk.told(&["steps", "file.mode"]));
    insta::assert_snapshot!("family", desk.told(&["steps", "file"]));
    insta::assert_snapshot!("unknown", desk.told(&["steps", "file.wriet"]));
    let all = desk.json(&["steps"]);
    assert!(all.as_array().expect("a list").iter().any(|t| t["name"] == "file.write" && t["undo"] == "full"));
}
