//! A playbook that uses another one: what its step says, and what it may give.

use super::Desk;

const SUB: &str = r#"
runback: 1
name: sub
inputs:
  name: { type: string, pattern: "[a-z]+" }
  count: { type: integer, min: 1, max: 3, default: 1 }
steps:
  - run: touch first.txt
  - run: echo "$NAME" > name.txt
    env: { NAME: "{{ inputs.name }}" }
"#;

fn desk(outer: &str) -> Desk {
    let desk = Desk::new();
    desk.write("sub.yaml", SUB);
    desk.write("outer.yaml", outer);
    desk
}

#[test]
fn a_value_that_is_known_only_in_the_run_obeys_the_rules_of_its_input() {
    let desk = desk(
        r#"
runback: 1
name: outer
inputs:
  name: { type: string }
  count: { type: string, default: "1" }
steps:
  - id: read
    uses: set
    with: { count: 9, text: "3" }
  - id: one
    uses: playbook
    with: { file: sub.yaml, inputs: { name: "{{ inputs.name }}" } }
  - id: many
    uses: playbook
    with: { file: sub.yaml, inputs: { name: abc, count: "{{ steps.read.outputs.count }}" } }
"#,
    );
    let said = desk.run(&["run", "outer.yaml", "-i", "name=A B; rm", "--output", "lines"]);
    assert_eq!(said.code, Some(3), "{}{}", said.stdout, said.stderr);
    let all = said.stdout + &said.stderr;
    assert!(
        all.contains("the input `name` of playbook `sub`, given by step one, must match the pattern [a-z]+"),
        "{all}"
    );
    assert_eq!(desk.read("first.txt"), None, "nothing of the playbook acted:\n{all}");

    let said = desk.run(&["run", "outer.yaml", "-i", "name=abc", "--output", "lines"]);
    let all = said.stdout + &said.stderr;
    assert_eq!(said.code, Some(3), "{all}");
    assert!(all.contains("the input `count` of playbook `sub`, given by step many, must be at most 3"), "{all}");
    assert_eq!(desk.read("name.txt").as_deref(), Some("abc\n"), "{all}");
}

#[test]
fn what_its_step_says_is_the_default_of_the_steps_inside() {
    let desk = Desk::new();
    desk.write(
        "sub.yaml",
        r#"
runback: 1
name: sub
defaults: { env: { B: of-the-playbook } }
steps:
  - run: echo "$A $B $C"
    env: { C: of-the-step }
    id: show
    outputs: { all: stdout }
outputs: { all: "{{ steps.show.outputs.all }}" }
"#,
    );
    desk.write(
        "outer.yaml",
        r#"
runback: 1
name: outer
steps:
  - id: one
    uses: playbook
    env: { A: from-outside, B: from-outside, C: from-outside }
    with: { file: sub.yaml }
outputs: { all: "{{ steps.one.outputs.all }}" }
"#,
    );
    let said = desk.run(&["run", "outer.yaml", "--output", "lines"]);
    let all = said.stdout + &said.stderr;
    assert_eq!(said.code, Some(0), "{all}");
    assert!(all.contains("from-outside of-the-playbook of-the-step"), "{all}");
}

#[test]
fn its_target_and_its_timeout_hold_inside_and_its_locks_are_taken() {
    let desk = Desk::new();
    desk.write("sub.yaml", "runback: 1\nname: sub\nsteps:\n  - run: touch here.txt; sleep 30\n");
    let outer = |keys: &str| {
        format!(
            "runback: 1\nname: outer\ntargets: {{ far: {{ ssh: nobody@127.0.0.1:1 }} }}\nsteps:\n  - id: one\n    uses: playbook\n    with: {{ file: sub.yaml }}\n    {keys}\n"
        )
    };
    let sleeps = "timeout: 300ms\n    locks: [ one/lock ]\n    target: local";
    desk.write("far.yaml", &outer("target: far"));
    let said = desk.run(&["run", "far.yaml", "--output", "lines"]);
    assert_eq!(said.code, Some(3), "{}{}", said.stdout, said.stderr);
    assert_eq!(desk.read("here.txt"), None, "it did not run on this machine");

    desk.write("slow.yaml", &outer(sleeps));
    let said = desk.run(&["run", "slow.yaml", "--output", "json"]);
    assert_eq!(said.code, Some(3), "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("one/lock"), "{}", said.stdout);
    assert!(said.stdout.contains("300 ms") || said.stdout.contains("300ms"), "{}", said.stdout);
}

#[test]
fn a_path_is_checked_as_it_was_given() {
    let desk = Desk::new();
    desk.write(
        "path.yaml",
        "runback: 1\nname: path\ninputs: { p: { type: path, options: [ a, b ] } }\nsteps:\n  - run: echo \"$P\" > out.txt\n    env: { P: \"{{ inputs.p }}\" }\n",
    );
    let said = desk.run(&["run", "path.yaml", "-i", "p=b"]);
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
    let path = desk.path().canonicalize().expect("it is there").join("b");
    assert_eq!(desk.read("out.txt"), Some(format!("{}\n", path.display())));
    assert_eq!(desk.run(&["run", "path.yaml", "-i", "p=c"]).code, Some(2));
}

#[test]
fn the_value_of_an_input_that_is_not_declared_is_not_shown() {
    let desk = Desk::new();
    desk.write(
        "secret.yaml",
        "runback: 1\nname: secret\ninputs: { token: { type: string, secret: true } }\nsteps:\n  - run: 'true'\n    env: { T: \"{{ inputs.token }}\" }\n",
    );
    let said = desk.run(&["run", "secret.yaml", "-i", "tokn=hunter9secret"]);
    assert_eq!(said.code, Some(2));
    let all = said.stdout + &said.stderr;
    assert!(all.contains("-i tokn=…: the playbook has no input `tokn`"), "{all}");
    assert!(!all.contains("hunter9secret"), "{all}");
}

#[test]
fn it_is_explained_among_the_step_types() {
    let desk = Desk::new();
    let said = desk.run(&["steps", "playbook"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    insta::assert_snapshot!(said.stdout);
    assert_eq!(desk.json(&["steps", "playbook"])["inputs"]["required"][0], "file");
}

/// Found by hand: it was explained, and in no list.
#[test]
fn it_is_in_the_list_of_step_types() {
    let desk = Desk::new();
    for beginning in [&["steps"][..], &["steps", "play"]] {
        let listed = desk.run(beginning).stdout;
        assert!(listed.lines().any(|l| l.starts_with("playbook ") && l.contains("another playbook")), "{listed}");
        let all = desk.json(beginning);
        assert!(all.as_array().is_some_and(|all| all.iter().any(|t| t["name"] == "playbook" && t["built_in"] == true)));
    }
    assert!(!desk.run(&["steps", "file"]).stdout.lines().any(|l| l.starts_with("playbook ")));
}
