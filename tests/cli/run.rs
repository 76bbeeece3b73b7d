//! `run`, `resume` and `rollback`, from the command line to the last words.

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
