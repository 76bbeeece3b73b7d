//! Where the journal is and where words go: what is to be typed next names the store, a place that cannot be looked into is
//! not empty, and what could not be written is not told as done.

use std::process::{Command, Stdio};
use std::sync::Arc;

use runback_core::event::{Event, EventBody};
use runback_exec::store::{SqliteStore, Store as _};

use super::{Desk, Said};

const ASKS: &str = "runback: 1\nname: asks\nsteps:\n  - id: each\n    for_each: [one]\n    uses: approval\n    \
                    with: { prompt: Go on? }\n";

fn said(command: &mut Command) -> Said {
    let output = command.output().expect("the binary runs");
    let text = |bytes| String::from_utf8(bytes).expect("runback writes UTF-8");
    Said { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

#[test]
fn a_variable_that_is_empty_names_no_store() {
    let desk = Desk::new();
    let home = desk.path().join("home");
    let said = said(desk.command(&["runs"]).env("RUNBACK_STATE_DIR", "").env("HOME", &home));
    assert_eq!(said.code, Some(0), "{}", said.all());
    assert!(said.stderr.contains("home/.local/state/runback"), "{}", said.all());
}

#[test]
fn a_limit_from_the_environment_is_refused_in_its_name_and_an_empty_one_is_none() {
    let desk = Desk::new();
    desk.write("good.yaml", "runback: 1\nname: good\nsteps:\n  - run: 'true'\n");
    let with = |limit| said(desk.command(&["run", "good.yaml"]).env("RUNBACK_LOG_LIMIT", limit));
    let wrong = with("64MB");
    assert_eq!(wrong.code, Some(2), "{}", wrong.all());
    assert!(wrong.stderr.contains("RUNBACK_LOG_LIMIT must be a whole number"), "{}", wrong.all());
    let empty = with("");
    assert_eq!(empty.code, Some(0), "{}", empty.all());
    let given = desk.run(&["run", "good.yaml", "--log-limit", ""]);
    assert_eq!(given.code, Some(2), "{}", given.all());
    assert!(!given.stderr.contains("RUNBACK_LOG_LIMIT"), "{}", given.all());
}

#[test]
fn a_place_that_cannot_be_looked_into_is_not_empty() {
    let desk = Desk::new();
    desk.write("file", "x");
    std::os::unix::fs::symlink("unmounted", desk.path().join("link")).expect("a link");
    let long = "x".repeat(300);
    for place in ["file/below", "link", long.as_str()] {
        for verb in [&["runs"][..], &["show", "last"], &["runs", "prune", "--keep", "1"]] {
            let said = desk.run(&[verb, &["--state-dir", place]].concat());
            assert_eq!(said.code, Some(2), "{place}: {}", said.all());
            assert!(said.stderr.contains(place), "{place}: {}", said.all());
            assert!(!said.stderr.contains("dmesg"), "{place}: {}", said.all());
        }
    }
}

/// On a file system that was mounted again to be read only, as a kernel does after an error of the disk. None = this
/// machine lets nobody do that, which in CI is a failure.
#[expect(clippy::print_stdout, reason = "a skipped test says so")]
fn frozen(desk: &Desk, state: &str, arguments: &[&str]) -> Option<Said> {
    let script = "mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\" || exit 99; shift; exec \"$@\"";
    let runback = desk.command(arguments);
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", script, "sh", state]);
    command.arg(runback.get_program()).args(runback.get_args()).current_dir(desk.path());
    for (name, value) in runback.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let said = said(&mut command);
    if said.code == Some(99) || said.stderr.starts_with("unshare:") {
        let why = format!("no mounts of one's own here: {}", said.stderr.trim());
        assert!(std::env::var_os("CI").is_none(), "{why}");
        println!("SKIPPED, nothing was tested: {why}");
        return None;
    }
    Some(said)
}

/// At 3 a.m. on a machine whose disk has an error: what was done is still to be read, and what would write says why not.
#[test]
fn a_store_that_can_only_be_read_is_read() {
    let desk = Desk::new();
    desk.write("t.yaml", "runback: 1\nname: t\nsteps:\n  - { id: a, run: echo hello; exit 3 }\n");
    let of = |verb: &[&str]| frozen(&desk, "s %?#t", &[verb, &["--state-dir", "s %?#t"]].concat());
    assert_eq!(desk.run(&["run", "t.yaml", "--run-id", "r1", "-q", "--state-dir", "s %?#t"]).code, Some(3));
    // With its WAL, as a process leaves it that was killed, and without, as SQLite leaves it.
    for wal in ["left", "gone"] {
        if wal == "gone" {
            let journal = rusqlite::Connection::open(desk.path().join("s %?#t/journal.db")).expect("the journal");
            journal.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("a checkpoint");
            journal.close().expect("it closes");
        }
        assert_eq!(desk.path().join("s %?#t/journal.db-wal").exists(), wal == "left");
        for (verb, word) in [
            (&["runs"][..], "r1"),
            (&["show", "r1"], "exit code 3"),
            (&["logs", "r1"], "hello"),
            (&["why", "r1"], "a failed"),
            (&["audit", "verify"], "1 run"),
        ] {
            let Some(said) = of(verb) else { return };
            assert_eq!(said.code, Some(0), "{verb:?}, WAL {wal}: {}", said.all());
            assert!(said.stdout.contains(word), "{verb:?}, WAL {wal}: {}", said.all());
        }
        for verb in [&["run", "t.yaml"][..], &["resume", "r1"], &["cancel", "r1"], &["runs", "prune", "--keep", "0"]] {
            let Some(said) = of(verb) else { return };
            assert_eq!(said.code, Some(2), "{verb:?}, WAL {wal}: {}", said.all());
            let why = ["journal.db is read-only", "journal.db cannot be opened"];
            assert!(why.iter().any(|why| said.stderr.contains(why)), "{verb:?}, WAL {wal}: {}", said.all());
        }
    }
}

/// What is said in the middle of a run, or by the parts that do not know what was typed, can be typed as it stands, too.
#[test]
fn every_command_that_is_named_finds_its_store() {
    let desk = Desk::new();
    desk.write("asks.yaml", ASKS);
    desk.write("ok.yaml", "runback: 1\nname: ok\nsteps:\n  - { id: a, uses: set, with: { b: 1 } }\n");
    let asks = desk.run(&["run", "asks.yaml", "--no-wait", "--run-id", "a1", "--state-dir", "else where"]);
    let typed = "(runback approve a1 'each[one]' --state-dir 'else where')";
    assert!(asks.stdout.contains(typed), "{}", asks.all());
    let of = |verb, run| desk.run(&[verb, run, "--state-dir", "else where"]);
    assert_eq!(desk.run(&["run", "ok.yaml", "--run-id", "o1", "--state-dir", "else where"]).code, Some(0));
    let over = of("resume", "o1");
    assert!(over.stderr.contains("`runback rollback o1 --state-dir 'else where'`"), "{}", over.all());
    let unknown = of("show", "nothing-like-it");
    assert!(unknown.stderr.contains("`runback runs --state-dir 'else where'` lists them"), "{}", unknown.all());
}

/// The mail of cron is read in a shell that has not its environment, and stands in another folder.
#[test]
fn what_nobody_sees_now_names_the_store_in_full() {
    let desk = Desk::new();
    desk.write("asks.yaml", ASKS);
    let mut cron = desk.command(&["run", "asks.yaml", "--no-wait", "--run-id", "a1"]);
    let said = said(cron.env_remove("TERM").env("RUNBACK_STATE_DIR", "state"));
    let option = format!("runback resume a1 --state-dir {}", desk.path().join("state").display());
    assert!(said.stdout.contains(&option), "{}", said.all());
}

#[test]
fn a_name_that_is_no_text_or_looks_like_an_option_can_be_typed() {
    use std::os::unix::ffi::OsStringExt as _;
    let desk = Desk::new();
    desk.write("asks.yaml", ASKS);
    for (place, typed) in [(&b"st\xff"[..], r"--state-dir=$'\x73\x74\xff'"), (b"-st", "--state-dir=-st")] {
        let mut option = b"--state-dir=".to_vec();
        option.extend_from_slice(place);
        let mut command = desk.command(&["run", "asks.yaml", "--no-wait", "--run-id", "a1"]);
        let said = said(command.arg(std::ffi::OsString::from_vec(option)));
        assert!(said.stdout.contains(&format!("runback resume a1 {typed}")), "{}", said.all());
    }
}

/// A listing that a full disk cut off looked like a whole one.
#[test]
fn a_listing_that_could_not_be_written_is_no_success() {
    let desk = Desk::new();
    desk.write("ok.yaml", "runback: 1\nname: ok\nsteps:\n  - { id: a, uses: set, with: { b: 1 } }\n");
    let full = || Stdio::from(std::fs::OpenOptions::new().write(true).open("/dev/full").expect("a device"));
    // The run is as it is, whoever hears of it.
    let run = said(desk.command(&["run", "ok.yaml", "--run-id", "o1"]).stdout(full()).stderr(Stdio::piped()));
    assert_eq!(run.code, Some(0), "{}", run.all());
    assert!(run.stderr.contains("stdout takes no more"), "{}", run.all());
    for verb in [&["runs"][..], &["show", "o1", "--output", "json"]] {
        let said = said(desk.command(verb).stdout(full()).stderr(Stdio::piped()));
        assert_eq!(said.code, Some(1), "{}", said.all());
        assert!(said.stderr.contains("stdout takes no more"), "{}", said.all());
    }
}

/// The process knew of a step that had succeeded, and could not record it.
#[test]
fn what_could_not_be_recorded_is_not_told_as_done() {
    let desk = Desk::new();
    let steps: Vec<_> = (0..400).map(|n| format!("  - {{ id: s{n}, uses: set, with: {{ b: {n} }} }}")).collect();
    desk.write("chain.yaml", &format!("runback: 1\nname: chain\nsteps:\n{}\n", steps.join("\n")));
    // The journal cannot grow beyond this; the signal would kill the process before it could say why.
    let limited = "trap '' XFSZ; ulimit -f 400; exec \"$0\" run chain.yaml --run-id c1";
    let mut sh = Command::new("sh");
    sh.args(["-c", limited, env!("CARGO_BIN_EXE_runback")]).current_dir(desk.path()).stdin(Stdio::null());
    sh.env("RUNBACK_STATE_DIR", desk.path().join("state")).env("NO_COLOR", "1").env("TERM", "dumb");
    let cut = said(&mut sh);
    assert_eq!(cut.code, Some(1), "{}", cut.all());
    let told = cut.stdout.lines().find(|line| line.starts_with("… c1 left in the middle")).expect("a last word");
    let shown = desk.json(&["show", "c1"]);
    let steps = shown["steps"].as_array().expect("its steps");
    let done = steps.iter().filter(|step| step["status"] == "succeeded").count();
    assert!(done > 0, "{}", cut.all());
    assert!(told.contains(&format!(" {done} succeeded")), "{done} are recorded: {told}");
}

/// What is on its way back goes on to its end: who asks from elsewhere hears that at once, and what can be done.
#[test]
fn a_rollback_that_cannot_be_stopped_says_so() {
    let desk = Desk::new();
    let steps = "  - { id: a, run: exit 7, rollback: { run: touch back; sleep 60 } }\n  - { id: b, run: 'true' }\n";
    desk.write("back.yaml", &format!("runback: 1\nname: back\nsteps:\n{steps}"));
    let running = desk.start(&["run", "back.yaml", "--run-id", "b1"]);
    desk.wait_until(&["why", "b1"], "and is being taken back");
    for ask in [&["cancel", "b1"][..], &["cancel", "b1", "--hold"]] {
        let said = desk.run(ask);
        assert_eq!(said.code, Some(6), "{}", said.all());
        assert!(said.stderr.contains("run b1 is being taken back"), "{}", said.all());
        assert!(said.stderr.contains("runback cancel b1 --now"), "{}", said.all());
    }
    let why = desk.run(&["why", "b1"]).stdout;
    assert!(why.contains("runback cancel b1 --now  leave it at once"), "{why}");
    assert!(why.contains("exit code 7") && !why.contains("more wait"), "{why}");
    assert_eq!(desk.run(&["cancel", "b1", "--now"]).code, Some(0));
    assert_eq!(running.finish().code, Some(130));
}

#[test]
fn what_was_asked_of_a_run_is_told_while_it_is_on_its_way() {
    let desk = Desk::new();
    desk.write(
        "two.yaml",
        "runback: 1\nname: two\nsteps: [{ id: a, run: touch began; sleep 60 }, { id: b, run: 'true' }]\n",
    );
    let running = desk.start(&["run", "two.yaml", "--run-id", "t1"]);
    desk.wait_until(&["why", "t1"], "a runs");
    assert_eq!(desk.run(&["cancel", "t1", "--hold"]).code, Some(0));
    desk.wait_until(&["why", "t1"], "it is to be held: nothing new starts, and what runs may finish");
    assert_eq!(desk.run(&["cancel", "t1", "--now"]).code, Some(0));
    assert_eq!(running.finish().code, Some(130));
}

/// Found by hand: a run that was cancelled said that a block of it had failed, and to try that again.
#[test]
fn a_block_in_which_a_step_was_stopped_has_not_failed() {
    let desk = Desk::new();
    let block = "{ id: b, steps: [{ id: a, run: sleep 60, rollback: none }] }";
    desk.write("blk.yaml", &format!("runback: 1\nname: blk\non_failure: hold\nsteps: [{block}]\n"));
    let run = desk.start(&["run", "blk.yaml", "--run-id", "k1"]);
    desk.wait_until(&["why", "k1"], "b/a runs");
    assert_eq!(desk.run(&["cancel", "k1"]).code, Some(0));
    let held = run.finish();
    assert_eq!(held.code, Some(130), "{}", held.all());
    for told in [held.stdout, desk.run(&["why", "k1"]).stdout, desk.run(&["show", "k1"]).stdout] {
        assert!(told.contains("go on where it stopped"), "{told}");
        assert!(!told.contains("b failed") && !told.contains("try what failed"), "{told}");
    }
}

/// `approve` sends there who may not answer.
#[test]
fn why_says_who_may_answer_and_until_when() {
    let desk = Desk::new();
    let with = "prompt: Go?, approvers: [bob], timeout: 2h, form: { ticket: {}, n: { type: integer, default: 1 } }";
    desk.write(
        "go.yaml",
        &format!("runback: 1\nname: go\nsteps: [{{ id: go, uses: approval, with: {{ {with} }} }}]\n"),
    );
    assert_eq!(desk.run(&["run", "go.yaml", "--no-wait", "--run-id", "g1"]).code, Some(5));
    let why = desk.run(&["why", "g1", "go"]).stdout;
    assert!(why.contains("may be said yes to by bob, but not tester@"), "{why}");
    assert!(why.contains("it counts as no"), "{why}");
    assert!(why.contains("runback approve g1 go -f ticket=…  say yes"), "{why}");
}

/// Inputs marked secret are stored nowhere. The file that a run was started with does for its resume, too.
#[test]
fn a_run_is_taken_up_with_the_inputs_that_it_was_made_with() {
    let desk = Desk::new();
    let inputs = "inputs:\n  token: { type: string, secret: true }\n  n: { type: integer, default: 1 }\n  file: { type: path }\n";
    let steps = "  - { id: a, run: 'test -n \"$T\"; exit {{ inputs.n }}', env: { T: \"{{ inputs.token }}{{ inputs.file }}\" } }\n";
    desk.write("sec.yaml", &format!("runback: 1\nname: sec\non_failure: hold\n{inputs}steps:\n{steps}"));
    desk.write("in.yaml", "token: a-long-secret\nn: 7\nfile: x\n");
    let held = desk.run(&["run", "sec.yaml", "--inputs", "in.yaml", "--run-id", "s1"]);
    assert_eq!(held.code, Some(1), "{}", held.all());
    assert!(held.stdout.contains("runback resume s1 -i token=…"), "{}", held.all());
    let resumed = desk.run(&["resume", "s1", "--inputs", "in.yaml"]);
    assert_eq!(resumed.code, Some(1), "{}", resumed.all());
    let other = desk.run(&["resume", "s1", "--inputs", "in.yaml", "-i", "n=0"]);
    assert_eq!(other.code, Some(2), "{}", other.all());
    assert!(other.stderr.contains("the input `n` of this run is 7, and stays so"), "{}", other.all());
    let unknown = desk.run(&["resume", "s1", "--inputs", "in.yaml", "-i", "zz=0"]);
    assert!(unknown.stderr.contains("the playbook has no input `zz`"), "{}", unknown.all());
    assert_eq!(desk.run(&["rollback", "s1", "-i", "token=a-long-secret"]).code, Some(0));
}

/// Found by hand: a migration under `nohup` ended with the terminal.
#[test]
fn nohup_holds() {
    let desk = Desk::new();
    let wait = "touch began; while [ ! -e go ]; do sleep 0.05; done";
    desk.write("nap.yaml", &format!("runback: 1\nname: nap\nsteps: [{{ id: a, run: '{wait}' }}]\n"));
    let mut sh = Command::new("sh");
    sh.args(["-c", "trap '' HUP; exec \"$0\" run nap.yaml --run-id n1", env!("CARGO_BIN_EXE_runback")]);
    sh.current_dir(desk.path()).env("RUNBACK_STATE_DIR", desk.path().join("state")).stdin(Stdio::null());
    let mut run = sh.stdout(Stdio::null()).spawn().expect("it starts");
    desk.wait_until(&["why", "n1"], "a runs");
    let hang_up = Command::new("kill").args(["-HUP", &run.id().to_string()]).status();
    assert!(hang_up.expect("kill runs").success());
    // Whoever left would have been asked to before this.
    assert_eq!(desk.json(&["show", "n1"])["status"], "running");
    desk.write("go", "");
    assert_eq!(run.wait().expect("it ends").code(), Some(0));
}

/// What is followed of steps side by side comes in turns, and stood under the name of the other.
#[test]
fn a_log_that_is_followed_says_whose_it_is() {
    let desk = Desk::new();
    let wait = |what: &str| format!("while [ ! -e {what} ]; do sleep 0.05; done");
    let steps = [
        format!("  - {{ id: a, needs: [], run: 'printf one; {}; echo three' }}\n", wait("third")),
        format!("  - {{ id: b, needs: [], run: '{}; echo two; {}' }}\n", wait("second"), wait("end")),
    ];
    desk.write("two.yaml", &format!("runback: 1\nname: two\nsteps:\n{}", steps.concat()));
    let run = desk.start(&["run", "two.yaml", "--run-id", "t1"]);
    desk.wait_until(&["logs", "t1", "a"], "one");
    let mut follow = desk.command(&["logs", "t1", "-f"]).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut seen = String::new();
    let mut stdout = follow.stdout.take().expect("a pipe");
    let mut read = |until: &str| {
        let mut byte = [0];
        while !seen.ends_with(until) {
            assert_eq!(std::io::Read::read(&mut stdout, &mut byte).expect("it is read"), 1, "{seen}");
            seen.push(char::from(byte[0]));
        }
    };
    read("one");
    desk.write("second", "");
    read("two\n");
    desk.write("third", "");
    read("three\n");
    desk.write("end", "");
    assert_eq!(run.finish().code, Some(0));
    assert!(follow.wait().expect("it ends").success());
    let plain: String = seen.chars().filter(char::is_ascii).collect();
    let turns = [" a, attempt 1\none\n", " b, attempt 1\ntwo\n", " a, attempt 1\nthree\n"];
    assert_eq!(plain, turns.concat());
}

/// It was said that there is nothing to stop.
#[test]
fn a_detached_command_that_nobody_follows_may_run_still() {
    let desk = Desk::new();
    let step = "{ id: a, run: 'touch began; sleep 60', detach: true, rollback: none }";
    desk.write("far.yaml", &format!("runback: 1\nname: far\nsteps: [{step}]\n"));
    let run = desk.start(&["run", "far.yaml", "--run-id", "f1"]);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(120);
    while desk.read("began").is_none() {
        assert!(std::time::Instant::now() < until, "the step does not begin");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    drop(run);
    desk.wait_for("f1", "interrupted");
    let cancel = desk.run(&["cancel", "f1"]);
    assert_eq!(cancel.code, Some(1), "{}", cancel.all());
    assert!(cancel.stderr.contains("the command of a was detached, and may run still"), "{}", cancel.all());
    assert!(cancel.stderr.contains("runback rollback f1"), "{}", cancel.all());
    let why = desk.run(&["why", "f1"]).stdout;
    assert!(why.contains("by itself, or has ended: a resume finds out"), "{why}");
    let back = desk.run(&["rollback", "f1"]);
    assert_eq!(back.code, Some(0), "{}", back.all());
    assert!(back.stdout.contains("a stopped"), "{}", back.all());
}

/// What lay there for an hour is not told as an hour of work.
#[test]
fn what_is_tried_again_the_day_after_began_then() {
    const HOUR: u64 = 3_600_000;
    let desk = Desk::new();
    desk.write("held.yaml", "runback: 1\nname: held\non_failure: hold\nsteps:\n  - { id: a, run: exit 7 }\n");
    assert_eq!(desk.run(&["run", "held.yaml", "--run-id", "h1"]).code, Some(1));
    let first = desk.json(&["show", "h1"])["steps"][0]["started_at"].as_u64().expect("a time");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let store = SqliteStore::open(&desk.path().join("state")).expect("a store");
        let lease = store.acquire("h1").await.expect("nobody has it");
        let last = store.events("h1", 0, 1000).await.expect("events").last().expect("one").seq;
        let later =
            [EventBody::RunResumed { by: "me".to_owned() }, EventBody::AttemptStarted { step: "a".into(), attempt: 2 }];
        let later = (last + 1..).zip(later).map(|(seq, body)| Event { seq, at: first + HOUR, body });
        store.append(&lease, Arc::from(later.collect::<Vec<_>>())).await.expect("it is recorded");
    });
    let why = desk.run(&["why", "h1"]).stdout;
    let at = jiff::Timestamp::from_millisecond(i64::try_from(first + HOUR).expect("a time")).expect("a time");
    let began = format!("a was running since {}, attempt 2", at.strftime("%Y-%m-%d %H:%M:%S"));
    assert!(why.contains(&began), "{began}\n{why}");
    let show = desk.run(&["show", "h1"]).stdout;
    assert!(show.contains("interrupted") && !show.contains("running"), "{show}");
}
