//! What must be refused, kept or forgotten, whatever is typed and whenever runback is killed.

use std::time::{Duration, Instant};

use runback_core::event::Resolution;
use runback_core::step::Answer;
use runback_exec::store::{Request, SqliteStore, Store as _};

use super::{Desk, Said, lease_of, requests};

/// A playbook of this body, run under an id.
fn run(desk: &Desk, id: &str, body: &str, more: &[&str]) -> Said {
    let file = format!("{id}.yaml");
    desk.write(&file, &format!("runback: 1\nname: {id}\n{body}"));
    desk.run(&[&["run", &file, "--run-id", id], more].concat())
}

fn until(otherwise: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(120);
    while !so() {
        assert!(Instant::now() < end, "{otherwise}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Asks whoever drives a run, without a look at what it does.
fn post(desk: &Desk, run: &str, requests: impl IntoIterator<Item = Request>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let store = SqliteStore::open(&desk.path().join("state")).expect("a store");
    for request in requests {
        runtime.block_on(store.post(run, request)).expect("it is posted");
    }
}

/// Kills the process that drives a run once a step of it runs.
fn killed_in_the_middle(desk: &Desk, id: &str, body: &str, before: impl FnOnce()) {
    let file = format!("{id}.yaml");
    desk.write(&file, &format!("runback: 1\nname: {id}\n{body}"));
    let running = desk.start(&["run", &file, "--run-id", id]);
    until("the step does not begin", || desk.read("began").is_some());
    before();
    drop(running);
    desk.wait_for(id, "interrupted");
}

/// What is looked at in a literal when a playbook is checked is looked at in what a template gave, before it acts.
#[test]
fn the_guards_of_a_step_type_hold_for_templates_too() {
    let desk = Desk::new();
    std::fs::create_dir_all(desk.path().join("parent/child")).expect("it can be done");
    desk.write("parent/precious", "x");
    let body = "inputs: { name: { type: string } }\nsteps:\n  - id: rm\n    uses: file.remove\n    \
                with: { path: \"parent/child/{{ inputs.name }}\", recursive: true, keep: false }\n";
    let said = run(&desk, "rm", body, &["-i", "name=.."]);
    assert_eq!(said.code, Some(3), "{}", said.all());
    assert!(said.all().contains("the last part of the path is not a name"), "{}", said.all());
    assert_eq!(desk.read("parent/precious").as_deref(), Some("x"));
}

#[test]
fn a_step_that_could_not_be_begun_is_not_undone() {
    let desk = Desk::new();
    let body = "inputs: { t: { type: string } }\ntargets: { web: local }\nsteps:\n  - id: first\n    uses: file.write\n    \
                with: { path: first, content: x }\n  - id: a\n    target: \"{{ inputs.t }}\"\n    run: touch did\n    \
                rollback: { run: touch undid }\n";
    let said = run(&desk, "t", body, &["-i", "t=wbe"]);
    assert_eq!(said.code, Some(3), "{}", said.all());
    assert!(said.all().contains("all is as it was"), "{}", said.all());
    for file in ["first", "did", "undid"] {
        assert_eq!(desk.read(file), None, "{file}");
    }
}

/// The journal holds no secret, so a later step cannot have what held one. It must not take the mask for it.
#[test]
fn a_mask_is_never_used_for_the_value() {
    let desk = Desk::new();
    desk.write("pw", "admin");
    let secret = "secrets: { pw: { file: pw } }\nsteps:\n  - { id: use, run: 'test -n \"$P\"', env: { P: \"{{ secrets.pw }}\" } }\n";
    let later = "  - { id: where, uses: set, with: { dir: admin-data, other: plain } }\n  - id: w\n    uses: file.write\n    \
                 with: { path: \"{{ steps.where.outputs.dir }}.txt\", content: x }\n";
    let said = run(&desk, "later", &format!("{secret}{later}"), &[]);
    assert_eq!(said.code, Some(3), "{}", said.all());
    assert!(said.all().contains("`steps.where.outputs.dir` held the text of a secret"), "{}", said.all());
    let items = "  - id: each\n    for_each: [admin1, other]\n    uses: file.write\n    \
                 with: { path: \"{{ each.value }}.txt\", content: x }\n";
    let said = run(&desk, "items", &format!("{secret}{items}"), &[]);
    assert!(said.all().contains("`each.value` held the text of a secret"), "{}", said.all());
    let unharmed = "  - { id: where, uses: set, with: { dir: admin-data, other: plain } }\n  - id: w\n    uses: file.write\n    \
                    with: { path: \"{{ steps.where.outputs.other }}.txt\", content: x }\n";
    let said = run(&desk, "unharmed", &format!("{secret}{unharmed}"), &[]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    assert_eq!(desk.read("plain.txt").as_deref(), Some("x"));
    let names: Vec<_> = std::fs::read_dir(desk.path())
        .expect("it can be done")
        .map(|e| e.expect("it can be done").file_name())
        .collect();
    assert!(names.iter().all(|n| !n.to_string_lossy().contains("***")), "{names:?}");
}

/// Only those who may answer can say that a question is answered.
#[test]
fn a_question_is_not_settled_by_a_resolution() {
    let desk = Desk::new();
    let body = "steps:\n  - id: go\n    uses: approval\n    with: { prompt: Really?, approvers: [boss], min_approvals: 2 }\n  \
                - { id: danger, run: touch danger }\n";
    assert_eq!(run(&desk, "ap", body, &["--no-wait"]).code, Some(5));
    for word in ["done", "skip"] {
        let said = desk.run(&["resume", "ap", "--step", &format!("go={word}"), "--no-wait"]);
        assert_ne!(said.code, Some(0), "{}", said.all());
        assert!(said.all().contains("it asks people, and only their answers count"), "{}", said.all());
        assert_eq!(desk.read("danger"), None);
    }
}

/// The last words of the one would be of a decision that the other has made.
#[test]
fn of_two_who_answer_at_once_one_decides() {
    let desk = Desk::new();
    desk.write(
        "ask.yaml",
        "runback: 1\nname: ask\nsteps:\n  - { id: go, uses: approval, with: { prompt: Really? } }\n",
    );
    let asks = desk.start(&["run", "ask.yaml", "--run-id", "ask"]);
    desk.wait_for("ask", "waiting");
    let answer = |approved| Request::Answer {
        step: "go".to_owned(),
        answer: Answer {
            approved,
            by: "boss".to_owned(),
            roles: Vec::new(),
            reason: None,
            fields: serde_json::Value::Null,
        },
    };
    post(&desk, "ask", [answer(false), answer(true)]);
    assert_eq!(asks.finish().code, Some(3));
    let store = rusqlite::Connection::open(desk.path().join("state/journal.db")).expect("a store");
    let sql = "SELECT group_concat(type) FROM events WHERE type IN ('approval_given', 'approval_refused')";
    let answers: String = store.query_row(sql, [], |row| row.get(0)).expect("there are some");
    assert_eq!(answers, "approval_refused");
}

/// Nobody answered in time, whoever comes first: a process that goes on with the run, or an answer.
#[test]
fn a_question_whose_time_is_over_is_not_answered_any_more() {
    let desk = Desk::new();
    let body = "steps:\n  - { id: go, uses: approval, with: { prompt: Really?, timeout: 10s } }\n";
    assert_eq!(run(&desk, "late", body, &["--no-wait"]).code, Some(5));
    std::thread::sleep(Duration::from_millis(10_010));
    let said = desk.run(&["approve", "late"]);
    assert_eq!(said.code, Some(6), "{}", said.all());
    assert!(said.all().contains("the time to answer go is over"), "{}", said.all());
    assert_eq!(desk.run(&["resume", "late"]).code, Some(3));
}

/// Who is told "they have been asked" believes it.
#[test]
fn what_is_said_of_an_undo_that_has_not_failed_is_refused_at_once() {
    let desk = Desk::new();
    let body = "steps:\n  - { id: a, run: \"true\", rollback: { run: \"true\" } }\n  - { id: b, run: \"touch began; sleep 60\" }\n";
    killed_in_the_middle(&desk, "fw", body, || {
        let said = desk.run(&["rollback", "fw", "--step", "a=undone"]);
        assert_eq!(said.code, Some(6), "{}", said.all());
        assert!(said.all().contains("a of run fw cannot be settled now: no undo of it has failed"), "{}", said.all());
    });
}

/// What a process refused must not be done by the next one, which knows another state.
#[test]
fn a_request_that_was_refused_is_forgotten() {
    let desk = Desk::new();
    let body = "steps:\n  - { id: a, run: \"touch began; sleep 60\" }\n  - { id: b, run: touch after }\n";
    killed_in_the_middle(&desk, "lg", body, || {
        // As when it was asked for in the instant before the step began.
        let request = Request::Resolve {
            step: "a".to_owned(),
            resolution: Resolution::Done,
            outputs: serde_json::Value::Null,
            by: "me".to_owned(),
        };
        post(&desk, "lg", [request]);
        until("the process does not look for requests", || requests(&desk.path().join("state")) == 0);
    });
    let said = desk.run(&["resume", "lg", "--no-wait"]);
    assert_eq!(said.code, Some(5), "{}", said.all());
    assert_eq!(desk.read("after"), None, "nobody said that a is done: {}", said.all());
}

/// What is asked of a run that stops or dies in that instant is not lost: who asked does it, or says that it is not done.
#[test]
fn who_asks_a_process_that_goes_without_hearing_it_is_not_told_that_it_was_asked() {
    let body = "steps:\n  - { id: w, uses: file.write, with: { path: w, content: x } }\n  - { id: s, run: \"touch began; [ -e go ] || sleep 60\" }\n";
    for (verb, code, written) in [
        (&["rollback", "gone"][..], 0, None),
        (&["resume", "gone", "--step", "s=redo"], 0, Some("x")),
        (&["cancel", "gone"], 1, Some("x")),
        (&["cancel", "gone", "--hold"], 1, Some("x")),
    ] {
        let desk = Desk::new();
        killed_in_the_middle(&desk, "gone", body, || {});
        desk.write("go", "");
        let state = desk.path().join("state");
        let held = lease_of(&state, "gone");
        let asks = desk.start(verb);
        until("nothing is asked", || requests(&state) == 1);
        drop(held);
        let said = asks.finish();
        assert_eq!((said.code, desk.read("w").as_deref()), (Some(code), written), "{verb:?}: {}", said.all());
        assert_eq!(requests(&state), 0, "{verb:?}: {}", said.all());
        if verb[0] == "cancel" {
            assert!(said.all().contains("nobody drives run gone"), "{}", said.all());
        }
    }
}

/// Whoever drove a run has it for a moment still when its end can be seen, and hears no requests any more.
#[test]
fn a_rollback_of_a_run_that_is_over_waits_until_it_is_let_go() {
    let desk = Desk::new();
    let body = "steps:\n  - { id: w, uses: file.write, with: { path: w, content: x } }\n";
    assert_eq!(run(&desk, "over", body, &[]).code, Some(0));
    let held = lease_of(&desk.path().join("state"), "over");
    let back = desk.start(&["rollback", "over"]);
    // Where that is too short for it to come, nothing is tested, and nothing fails.
    std::thread::sleep(Duration::from_millis(700));
    drop(held);
    let said = back.finish();
    assert_eq!((said.code, desk.read("w")), (Some(0), None), "{}", said.all());
}

/// It may have been passed: then nothing before it may be taken back.
#[test]
fn an_interrupted_point_of_no_return_counts_as_passed() {
    let desk = Desk::new();
    let body = "steps:\n  - { id: w, uses: file.write, with: { path: w, content: x } }\n  - id: p\n    irreversible: true\n    \
                run: \"touch began; sleep 60\"\n  - { id: z, run: echo z }\n";
    killed_in_the_middle(&desk, "ir", body, || {});
    let said = desk.run(&["rollback", "ir"]);
    assert_eq!(desk.read("w").as_deref(), Some("x"), "{}", said.all());
    assert!(said.all().contains("apart from what is kept"), "{}", said.all());
    let why = desk.run(&["why", "ir", "w"]).all();
    assert!(why.contains("it is before the point of no return, p"), "{why}");
    let why = desk.run(&["why", "ir", "p"]).all();
    assert!(why.contains("may have been done"), "{why}");
}

/// Such a file holds what the script gives out, in clear.
#[test]
fn what_a_killed_script_gave_out_does_not_stay() {
    let desk = Desk::new();
    let body =
        "steps:\n  - { id: a, run: 'echo t=canary-of-this-test >> \"$RUNBACK_OUTPUT\"; touch began; sleep 60' }\n";
    killed_in_the_middle(&desk, "out", body, || {});
    assert_eq!(desk.run(&["resume", "out", "--no-wait"]).code, Some(5));
    let mut grep = std::process::Command::new("grep");
    let left = grep
        .args(["-rl", "canary-of-this-test"])
        .arg(desk.path().join("state/detached"))
        .output()
        .expect("it can be done");
    assert_eq!(String::from_utf8_lossy(&left.stdout), "");
}

#[test]
fn where_no_store_can_be_nothing_is_started() {
    let desk = Desk::new();
    desk.write("x.yaml", "runback: 1\nname: x\nsteps:\n  - { id: a, run: touch did }\n");
    let said = desk.run(&["run", "x.yaml", "--state-dir", "/proc/nothing"]);
    assert_eq!((said.code, desk.read("did")), (Some(2), None), "{}", said.all());
}

#[test]
fn a_tilde_that_no_shell_expanded_makes_no_folder() {
    let desk = Desk::new();
    desk.write("x.yaml", "runback: 1\nname: x\nsteps:\n  - { id: a, run: touch did }\n");
    for dir in ["~/store", "~", "~ann/store"] {
        let said = desk.run(&["run", "x.yaml", "--state-dir", dir]);
        assert_eq!((said.code, desk.read("did")), (Some(2), None), "{}", said.all());
        assert!(said.all().contains("which no shell has expanded"), "{}", said.all());
        assert!(!desk.path().join(&dir[..dir.find('/').unwrap_or(dir.len())]).exists(), "{dir}");
    }
    let said = desk.run(&["run", "x.yaml", "--state-dir", "~/store"]);
    let home = std::env::home_dir().expect("a home").join("store");
    assert!(said.all().contains(&format!("write the path out `{}`", home.display())), "{}", said.all());
    assert_eq!(desk.run(&["run", "x.yaml", "--state-dir", "./~/store"]).code, Some(0));
    assert!(desk.path().join("~/store").exists());
}

/// The brackets of an instance are a pattern to a shell.
#[test]
fn what_is_to_be_typed_next_is_quoted() {
    let desk = Desk::new();
    let body = "steps:\n  - id: each\n    for_each: [one]\n    run: \"touch began; sleep 60\"\n";
    killed_in_the_middle(&desk, "q", body, || {});
    let said = desk.run(&["resume", "q", "--no-wait"]);
    assert!(said.all().contains("runback resume q --step 'each[one]=done'"), "{}", said.all());
}

/// It has not begun, and whoever wants it may try again.
#[test]
fn a_resume_that_finds_the_lock_taken_leaves_the_run_as_it_was() {
    let desk = Desk::new();
    let body = "runback: 1\nname: z\nlocks: [z]\nsteps:\n  - { id: a, run: \"touch began; sleep 60\" }\n";
    desk.write("z.yaml", body);
    let first = desk.start(&["run", "z.yaml", "--run-id", "z1"]);
    until("the step does not begin", || desk.read("began").is_some());
    let second = desk.start(&["run", "z.yaml", "--run-id", "z2", "--wait"]);
    until("the run is not there", || desk.run(&["show", "z2"]).code == Some(0));
    drop(second);
    for _ in 0..2 {
        let said = desk.run(&["resume", "z2"]);
        assert_eq!(said.code, Some(6), "{}", said.all());
        assert!(said.all().contains("run z1"), "{}", said.all());
    }
    drop(first);
}
