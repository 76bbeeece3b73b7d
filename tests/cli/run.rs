//! `run`, `resume` and `rollback`, from the command line to the last words.

use serde_json::json;

use super::{Desk, RELEASE};

#[test]
fn a_run_that_succeeds() {
    let desk = Desk::new();
    desk.write("release.yaml", RELEASE);
    insta::assert_snapshot!(desk.told(&["run", "release.yaml", "-i", "version=2"]));
    assert_eq!(desk.read("release.txt").as_deref(), Some("version 2\n"));
    assert_eq!(desk.read("ended.txt").as_deref(), Some("succeeded\n"));
}

#[test]
fn a_run_that_fails_is_taken_back() {
    let desk = Desk::new();
    desk.write("release.yaml", RELEASE);
    desk.write("release.txt", "version 1\n");
    insta::assert_snapshot!(desk.told(&["run", "release.yaml", "-i", "version=2", "-i", "broken=true"]));
    assert_eq!(desk.read("release.txt").as_deref(), Some("version 1\n"));
    assert_eq!(desk.read("mark.txt"), None);
}

/// What only computes prints nothing: its log is not what to look at next.
#[test]
fn a_condition_that_does_not_hold_has_no_log_to_show() {
    let desk = Desk::new();
    let sane = "  - id: sane\n    uses: assert\n    with: { that: [inputs.n < 10], message: n is too large }\n";
    let playbook = |first: &str| {
        format!("runback: 1\nname: sane\ninputs: {{ n: {{ type: integer, default: 30 }} }}\nsteps:\n{first}{sane}")
    };
    desk.write("alone.yaml", &playbook(""));
    insta::assert_snapshot!("nothing_printed", desk.told(&["run", "alone.yaml", "--run-id", "s1"]));
    desk.write("after.yaml", &playbook("  - id: look\n    run: echo 30\n    rollback: none\n"));
    insta::assert_snapshot!("something_printed", desk.told(&["run", "after.yaml", "--run-id", "s2"]));
}

#[test]
fn a_run_that_is_held_goes_on_when_it_is_resumed() {
    let desk = Desk::new();
    let playbook = "runback: 1\nname: held\non_failure: hold\nsteps:\n  - id: first\n    uses: file.write\n    \
        with: { path: first.txt, content: x }\n  - id: gate\n    run: test -e open\n  - id: last\n    run: echo last\n";
    desk.write("held.yaml", playbook);
    insta::assert_snapshot!("held", desk.told(&["run", "held.yaml", "--run-id", "h1"]));
    desk.write("open", "");
    insta::assert_snapshot!("resumed", desk.told(&["resume", "h1"]));
    assert_eq!(desk.run(&["resume", "h1"]).code, Some(2), "it is over");
}

#[test]
fn a_finished_run_is_taken_back_later() {
    let desk = Desk::new();
    desk.write("release.yaml", RELEASE);
    assert_eq!(desk.run(&["run", "release.yaml", "-i", "version=2", "--run-id", "r1"]).code, Some(0));
    insta::assert_snapshot!("taken_back", desk.told(&["rollback", "last"]));
    assert_eq!(desk.read("release.txt"), None);
    insta::assert_snapshot!("taken_back_twice", desk.told(&["rollback", "r1"]));
}

#[test]
fn a_change_since_then_is_drift_and_needs_force() {
    let desk = Desk::new();
    desk.write("release.yaml", RELEASE);
    assert_eq!(desk.run(&["run", "release.yaml", "-i", "version=2", "--run-id", "r1"]).code, Some(0));
    desk.write("release.txt", "somebody else was here\n");
    insta::assert_snapshot!("drift", desk.told(&["rollback", "r1"]));
    assert_eq!(desk.read("release.txt").as_deref(), Some("somebody else was here\n"));
    assert_eq!(desk.run(&["rollback", "r1", "--force"]).code, Some(0));
    assert_eq!(desk.read("release.txt"), None);
}

#[test]
fn quiet_says_nothing_of_success_and_all_of_failure() {
    let desk = Desk::new();
    desk.write("release.yaml", RELEASE);
    let good = desk.run(&["run", "release.yaml", "-i", "version=2", "--quiet"]);
    assert_eq!((good.stdout.as_str(), good.stderr.as_str(), good.code), ("", "", Some(0)));
    insta::assert_snapshot!(desk.told(&["run", "release.yaml", "-i", "version=3", "-i", "broken=true", "--quiet"]));
}

#[test]
fn mistakes_of_the_command_line() {
    let desk = Desk::new();
    desk.write("release.yaml", RELEASE);
    desk.write("inputs.yaml", "version: two\nbroke: true\n");
    assert_eq!(desk.run(&["run", "release.yaml", "-i", "version=2", "--run-id", "taken"]).code, Some(0));
    let all = [
        desk.told(&["run", "nothing.yaml"]),
        desk.told(&["run", "release"]),
        desk.told(&["run", "release.yaml"]),
        desk.told(&["run", "release.yaml", "-i", "version"]),
        desk.told(&["run", "release.yaml", "-i", "versoin=2", "-i", "broken=maybe"]),
        desk.told(&["run", "release.yaml", "--inputs", "inputs.yaml"]),
        desk.told(&["run", "release.yaml", "--inputs", "none.yaml"]),
        desk.told(&["run", "release.yaml", "-i", "version=2", "--run-id", "taken"]),
        desk.told(&["run", "release.yaml", "-i", "version=2", "--run-id", "not/good"]),
        desk.told(&["resume", "nobody"]),
        desk.told(&["show", "t", "--state-dir", "elsewhere"]),
        desk.told(&["cancel", "taken"]),
        desk.told(&["approve", "taken"]),
        desk.told(&["resume", "taken", "--step", "verify=maybe"]),
    ];
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn a_relative_path_counts_from_where_it_is_given() {
    let desk = Desk::new();
    std::fs::create_dir(desk.path().join("books")).expect("a folder");
    let playbook = "runback: 1\nname: paths\ninputs:\n  given: { type: path }\n  own: { type: path, default: own.txt }\n\
        steps:\n  - uses: file.write\n    with: { path: \"{{ inputs.given }}\", content: x }\n  - uses: file.write\n    \
        with: { path: \"{{ inputs.own }}\", content: x }\n";
    desk.write("books/paths.yaml", playbook);
    assert_eq!(desk.run(&["run", "books/paths.yaml", "-i", "given=here.txt", "--quiet"]).all(), "exit 0\n");
    assert!(desk.read("here.txt").is_some() && desk.read("books/own.txt").is_some());
}

#[test]
fn a_for_each_over_nothing_gives_empty_lists() {
    let desk = Desk::new();
    let playbook = "runback: 1\nname: fleet\ninputs: { hosts: { type: list } }\nsteps:\n  - id: probe\n    \
        for_each: \"{{ inputs.hosts }}\"\n    run: echo up\n    outputs: { state: stdout }\n  - id: report\n    \
        run: echo \"<$S>\"\n    env: { S: '{{ join steps.probe.outputs.state \",\" }}' }\n    outputs: { said: stdout }\n\
        outputs: { states: \"{{ steps.probe.outputs.state }}\", said: \"{{ steps.report.outputs.said }}\" }\n";
    desk.write("fleet.yaml", playbook);
    for (hosts, outputs) in [
        ("hosts=[]", json!({ "states": [], "said": "<>" })),
        ("hosts=[a, b]", json!({ "states": ["up", "up"], "said": "<up,up>" })),
    ] {
        let said = desk.run(&["run", "fleet.yaml", "-i", hosts]);
        assert_eq!(said.code, Some(0), "{}", said.all());
        assert_eq!(desk.json(&["show", "last"])["outputs"], outputs);
    }
}

#[test]
fn an_output_that_cannot_be_worked_out_is_told_and_the_others_are_there() {
    let desk = Desk::new();
    let playbook = "runback: 1\nname: out\nsteps:\n  - { id: a, when: \"false\", run: echo hi, outputs: { o: stdout } }\n  \
        - { id: b, run: echo hi, outputs: { o: stdout } }\n\
        outputs: { x: \"{{ steps.a.outputs.o }}\", y: \"{{ steps.b.outputs.o }}\" }\n";
    desk.write("out.yaml", playbook);
    insta::assert_snapshot!("output_errors", desk.told(&["run", "out.yaml", "--run-id", "r1"]));
    insta::assert_snapshot!("output_errors_quiet", desk.told(&["run", "out.yaml", "--run-id", "r2", "--quiet"]));
    insta::assert_snapshot!("output_errors_shown", desk.told(&["show", "r1"]));
    let shown = desk.json(&["show", "r1"]);
    assert_eq!(shown["outputs"], json!({ "x": null, "y": "hi" }));
    assert_eq!(shown["output_errors"], json!({ "x": "step a is skipped, so it has no outputs" }));
    let events = desk.run(&["run", "out.yaml", "--output", "json"]).stdout;
    let last: serde_json::Value = serde_json::from_str(events.lines().last().expect("events")).expect("JSON");
    assert_eq!(last["output_errors"], shown["output_errors"]);
}

/// Such a run was created, could not begin, and could not be taken up either.
#[test]
fn a_run_whose_lock_has_no_name_leaves_nothing_behind() {
    let desk = Desk::new();
    let playbook = "runback: 1\nname: vm\ninputs: { vm: { type: string, default: \"\" } }\n\
        locks: [\"{{ inputs.vm }}\"]\nsteps: [{ id: a, run: \"true\" }]\n";
    desk.write("vm.yaml", playbook);
    insta::assert_snapshot!("lock_without_a_name", desk.told(&["run", "vm.yaml"]));
    assert_eq!(desk.json(&["runs"]), json!([]));
    assert_eq!(desk.run(&["run", "vm.yaml", "-i", "vm=one"]).code, Some(0));
}

#[test]
fn inputs_that_cannot_be_read() {
    use std::os::unix::ffi::OsStrExt as _;
    let desk = Desk::new();
    let playbook = "runback: 1\nname: env\ninputs: { who: { type: string, env: WHO, default: nobody } }\n\
        steps: [{ id: a, run: echo, env: { WHO: \"{{ inputs.who }}\" } }]\n";
    desk.write("env.yaml", playbook);
    desk.write("none.yaml", "# nothing yet\n");
    desk.write("none.test.yaml", "");
    let mut all =
        vec![desk.told(&["run", "env.yaml", "--inputs", "none.yaml"]), desk.told(&["test", "none.test.yaml"])];
    let mut command = desk.command(&["run", "env.yaml"]);
    let output = command.env("WHO", std::ffi::OsStr::from_bytes(b"caf\xe9")).output().expect("the binary runs");
    all.push(format!("exit {:?}\n{}", output.status.code(), String::from_utf8_lossy(&output.stderr)));
    insta::assert_snapshot!(all.join("\n"));
}

/// The keys of instances that only the run can tell obey the rule that a check holds the others to.
#[test]
fn the_keys_of_a_map_that_is_made_while_running() {
    let desk = Desk::new();
    let playbook = |items: &str, key: &str| {
        format!(
            "runback: 1\nname: keys\nsteps:\n  - id: made\n    uses: set\n    with: {{ items: {items} }}\n  - id: each\n    for_each: {{ items: \"{{{{ steps.made.outputs.items }}}}\"{key} }}\n    run: echo \"{{{{quote each.key}}}}\" >> keys.txt\n"
        )
    };
    desk.write("bad.yaml", &playbook("{ \"a]/k[b\": 1 }", ""));
    let said = desk.run(&["run", "bad.yaml", "--output", "lines"]);
    let all = said.stdout + &said.stderr;
    assert_eq!(said.code, Some(3), "{all}");
    assert!(all.contains("`a]/k[b` cannot be the key of an instance"), "{all}");
    assert_eq!(desk.read("keys.txt"), None);

    desk.write("named.yaml", &playbook("{ a/b: { host: web } }", ", key: \"{{ each.value.host }}\""));
    let said = desk.run(&["run", "named.yaml", "--output", "lines"]);
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
    assert!(desk.read("keys.txt").is_some_and(|keys| keys.contains("web")));
}

/// Found by hand: that a run was taken back, which is what was wanted, was told with `--quiet` too.
#[test]
fn a_quiet_rollback_says_nothing_of_success() {
    let desk = Desk::new();
    desk.write("release.yaml", RELEASE);
    assert_eq!(desk.run(&["run", "release.yaml", "-i", "version=1", "--run-id", "q1"]).code, Some(0));
    let back = desk.run(&["rollback", "q1", "--quiet"]);
    assert_eq!(back.all(), "exit 0\n");
    assert_eq!(desk.read("release.txt"), None);
}

/// Found by hand: with a wrong playbook there was no JSON at all.
#[test]
fn what_is_wrong_with_a_playbook_is_json_where_json_is_wanted() {
    let desk = Desk::new();
    desk.write("wrong.yaml", "runback: 1\nname: wrong\nsteps:\n  - id: a\n    uses: file.wrte\n");
    let checked = desk.run(&["check", "wrong.yaml", "--output", "json"]);
    assert_eq!(checked.code, Some(2));
    for verb in ["run", "plan", "simulate"] {
        let said = desk.run(&[verb, "wrong.yaml", "--output", "json"]);
        assert_eq!(said.all(), checked.all(), "{verb}");
    }
}
