//! `simulate` and `test`: scripted outcomes, nothing done.

use super::{Desk, RELEASE};

#[test]
fn a_simulated_failure_does_nothing_in_the_world() {
    let desk = Desk::new();
    desk.write("release.yaml", RELEASE);
    let arguments = ["simulate", "release.yaml", "-i", "version=11", "--fail", "extra"];
    insta::assert_snapshot!("failure", desk.told(&arguments));
    let mut left: Vec<_> = std::fs::read_dir(desk.path()).expect("a folder").flatten().map(|e| e.file_name()).collect();
    left.sort();
    assert_eq!(left, ["release.yaml"], "no file and no state is left");
    insta::assert_snapshot!(
        "unknown_step",
        [
            desk.told(&["simulate", "release.yaml", "-i", "version=2", "--fail", "exrta"]),
            desk.told(&["simulate", "release.yaml", "-i", "version=2", "--fail", "extra=badly"]),
        ]
        .join("\n")
    );
}

/// Its events are those of a run: the plan that it is of is named in the first.
#[test]
fn the_events_of_a_simulation_name_its_plan() {
    let desk = Desk::new();
    desk.write("release.yaml", RELEASE);
    let json = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("it is JSON");
    let simulated = desk.run(&["simulate", "release.yaml", "-i", "version=11", "-o", "json"]);
    let planned = desk.run(&["plan", "release.yaml", "-i", "version=11", "-o", "json"]);
    let (created, plan) = (json(simulated.stdout.lines().next().unwrap_or_default()), json(&planned.stdout));
    assert!(plan["digest"].as_str().is_some_and(|digest| digest.len() == 64), "{plan}");
    assert_eq!(created["digest"], plan["digest"]);
}

/// Who asks what a failure would do must not take "all went well" for the answer where there was none.
#[test]
fn a_failure_that_could_not_come_about_is_told() {
    let desk = Desk::new();
    desk.write(
        "some.yaml",
        "runback: 1\nname: some\nsteps:\n  - { id: never, when: 1 == 2, run: echo never }\n  - { id: once, run: echo once }\n  \
         - id: none\n    for_each: { items: [] }\n    steps:\n      - { id: it, run: echo it }\n  \
         - { id: last, run: echo last }\n",
    );
    let told = |more: &[&str]| desk.told(&[&["simulate", "some.yaml"], more].concat());
    insta::assert_snapshot!(
        [
            told(&["--fail", "never", "--fail", "none/it"]),
            told(&["--fail", "once", "--at", "2"]),
            told(&["--fail", "once", "--fail", "last"]),
        ]
        .join("\n")
    );
}

#[test]
fn waits_cost_nothing() {
    let desk = Desk::new();
    let playbook = "runback: 1\nname: patient\nsteps:\n  - id: nap\n    run: echo x\n    \
        retry: { max_attempts: 5, initial_interval: 1h, backoff_coefficient: 1, max_interval: 2h, jitter: 0 }\n";
    desk.write("patient.yaml", playbook);
    let began = std::time::Instant::now();
    insta::assert_snapshot!(desk.told(&["simulate", "patient.yaml", "--fail", "nap=transient", "--at", "3"]));
    assert!(began.elapsed() < std::time::Duration::from_secs(3600), "three hours are not waited for");
}

#[test]
fn quiet_means_silent_when_it_succeeds() {
    let desk = Desk::new();
    desk.write("release.yaml", RELEASE);
    let quiet = ["simulate", "release.yaml", "-i", "version=11", "--quiet"];
    assert_eq!(desk.run(&quiet).all(), "exit 0\n");
    insta::assert_snapshot!("quiet_failure", desk.told(&[&quiet[..], &["--fail", "extra"]].concat()));
}

/// A script says nothing of output, so silence is no reason to end what it lets take its time.
#[test]
fn a_long_scripted_step_is_not_idle() {
    let desk = Desk::new();
    desk.write(
        "slow.yaml",
        "runback: 1\nname: slow\nsteps:\n  - { id: copy, run: cp a b, idle_timeout: 1m, timeout: 2h }\n",
    );
    desk.write(
        "slow.test.yaml",
        "playbook: slow.yaml\ncases:\n  - name: it takes an hour\n    given: { copy: { takes: 1h } }\n    \
         expect: { outcome: succeeded }\n  - name: it takes too long\n    given: { copy: { takes: 3h } }\n    \
         expect: { outcome: rolled-back, errors: { copy: its timeout of 2h } }\n",
    );
    let ran = desk.run(&["test", "slow.test.yaml"]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
}

const TESTS: &str = r"playbook: release.yaml
inputs: { version: 2 }
cases:
  - name: all is well
    expect:
      outcome: succeeded
      states: { extra: skipped, verify: succeeded }
      order: [write, verify, note]
      undone: []
  - name: a broken release is taken back
    given: { verify: { fail: { exit_code: 7, message: it is broken } } }
    expect:
      outcome: rolled-back
      undone: [mark, write]
      kept: [verify]
      errors: { verify: broken }
  - name: the undo fails too
    given: { verify: { fail: true }, write: { undo_fail: conflict } }
    expect: { outcome: stuck, states: { write: undo-failed, mark: undone } }
";

#[test]
fn cases_that_hold() {
    let desk = Desk::new();
    desk.write("release.yaml", RELEASE);
    desk.write("release.test.yaml", TESTS);
    insta::assert_snapshot!(desk.told(&["test", "--all-failures"]));
}

#[test]
fn cases_that_do_not_hold_say_what_is_otherwise() {
    let desk = Desk::new();
    desk.write("release.yaml", RELEASE);
    desk.write(
        "release.test.yaml",
        r"playbook: release.yaml
inputs: { version: 2 }
cases:
  - name: everything is wrong
    given: { verify: { fail: true } }
    expect:
      outcome: succeeded
      states: { write: succeeded, extra: skipped }
      order: [verify, write]
      undone: [write]
      kept: []
      attempts: { verify: 2 }
      errors: { verify: nothing like it }
  - name: a step that is not there
    given: { verfiy: { fail: true } }
    expect: { outcome: rolled-back }
  - name: an input that is not there
    inputs: { vresion: 2 }
    expect: { outcome: succeeded }
",
    );
    insta::assert_snapshot!(desk.told(&["test", "release.test.yaml"]));
    let data = desk.json(&["test", "release.test.yaml"]);
    assert_eq!((&data["passed"], &data["failed"]), (&0.into(), &3.into()));
}

#[test]
fn a_test_file_that_cannot_be_read() {
    let desk = Desk::new();
    desk.write("a.test.yaml", "playbook: a.yaml\ncases: []\n");
    desk.write("b.test.yaml", "playbook: b.yaml\ncases: [{ name: x, expects: {} }]\n");
    desk.write("c.test.yaml", "playbook: c.yaml\ncases: [\n");
    let all = ["a.test.yaml", "b.test.yaml", "c.test.yaml", "d.test.yaml", "release.yaml"];
    let told: Vec<String> = all.iter().map(|f| desk.told(&["test", f])).collect();
    insta::assert_snapshot!(told.join("\n"));
    // `runback check *.yaml` meets them beside the playbooks.
    desk.write("good.test.yaml", "playbook: a.yaml\ncases: [{ name: x, expect: {} }]\n");
    let all = ["check", "a.test.yaml", "b.test.yaml", "d.test.yaml", "good.test.yaml"];
    let json = desk.told(&["check", "-o", "json", "b.test.yaml", "d.test.yaml", "good.test.yaml"]);
    insta::assert_snapshot!("test_files_are_checked", format!("{}\n{json}", desk.told(&all)));
    let empty = Desk::new();
    assert_eq!(empty.run(&["test"]).code, Some(2));
}

/// Each item of the made-up list has what the steps inside refer to, however the list comes to them.
const FLEET: &str = r#"runback: 1
name: fleet
steps:
  - id: look
    run: list-hosts
    outputs: { hosts: { json: hosts }, all: { json: "" } }
  - id: names
    uses: set
    with: { hosts: "{{ steps.look.outputs.hosts }}" }
  - id: plain
    for_each: "{{ steps.names.outputs.hosts }}"
    run: echo {{quote each.value.name}}
  - id: nested
    for_each: { items: "{{ steps.look.outputs.all.racks }}", as: rack, key: "{{ rack.value.id }}" }
    steps:
      - id: inner
        for_each: "{{ rack.value.hosts }}"
        run: echo {{quote rack.value.id}} {{quote each.value}}
  - id: fixed
    for_each: [x, y]
    run: echo {{quote each.value}}
  - id: last
    run: echo
finally:
  - id: note
    run: echo {{quote run.status}}
"#;

/// It was a text, over which no `for_each` goes.
#[test]
fn a_made_up_output_that_a_for_each_goes_over_is_a_list() {
    let desk = Desk::new();
    desk.write("fleet.yaml", FLEET);
    let said = desk.run(&["simulate", "fleet.yaml"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    for instance in ["plain[<name 2>]", "nested[<id 1>]/inner[<hosts 1 2>]", "fixed[y]"] {
        assert!(said.stdout.contains(instance), "{instance}\n{}", said.stdout);
    }
    let tested = desk.run(&["test", "fleet.yaml", "--all-failures"]);
    assert_eq!(tested.code, Some(0), "{}", tested.all());
    assert!(!tested.stdout.contains("not reached"), "{}", tested.stdout);
}

#[test]
fn a_run_that_fails_without_a_failure_says_so() {
    let desk = Desk::new();
    let playbook = "runback: 1\nname: never\nsteps:\n  - { id: a, run: echo }\n  \
        - { id: b, uses: assert, with: { that: [\"1 == 2\"] } }\n  - { id: c, run: echo }\n";
    desk.write("never.yaml", playbook);
    insta::assert_snapshot!(desk.told(&["test", "never.yaml", "--all-failures"]));
}

/// Names that no step, instance or output has: nothing would fail, and the test would pass.
#[test]
fn names_that_nothing_has_are_mistakes() {
    let desk = Desk::new();
    desk.write("fleet.yaml", FLEET);
    let given = [
        "\"fixed[zz]\": { fail: true }",
        "\"plain[<name 3>]\": { fail: true }",
        "\"fixed[x\": { fail: true }",
        "\"last[x]\": { fail: true }",
        "\"nested/inner[<hosts 1 1>]\": { fail: true }",
        "nested: { fail: true }",
        "look: { outputs: { hots: [] } }",
        "look: { attempts: [ { outputs: { racks: [] } } ] }",
    ];
    let mut cases = "playbook: fleet.yaml\ncases:\n".to_owned();
    for given in given {
        cases.push_str(&format!("  - name: '{given}'\n    given: {{ {given} }}\n    expect: {{}}\n"));
    }
    desk.write("fleet.test.yaml", &cases);
    let mut told = vec![desk.told(&["test", "fleet.test.yaml"])];
    for name in ["fixed[zz]", "fixed[x", "plain[<nme 1>]=timeout", "nested", "fixd"] {
        told.push(desk.told(&["simulate", "fleet.yaml", "--fail", name]));
    }
    insta::assert_snapshot!(told.join("\n"));
    assert_eq!(desk.run(&["simulate", "fleet.yaml", "--fail", "fixed[y]", "--quiet"]).code, Some(3));
}

#[test]
fn a_folder_without_tests_is_named() {
    let desk = Desk::new();
    std::fs::create_dir(desk.path().join("e")).expect("a folder");
    desk.write("release.test.yaml", TESTS);
    insta::assert_snapshot!(desk.told(&["test", "e"]));
}
