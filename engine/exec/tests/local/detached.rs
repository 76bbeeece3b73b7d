//! Commands that outlive their starter: found again, followed, stopped, and cleaned away.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::Duration;

use runback_core::target::{Command, Detached, DetachedState, Stream, Target, TargetErrorKind as Kind};
use runback_exec::target::LocalTarget;

use super::{Probe, Recorder, alive, kill, pids, script, target, until};

const SOON: Duration = Duration::from_secs(120);

async fn start(target: &LocalTarget, command: &Command) -> Detached {
    target.start_detached(command, &target.detached_dir("run", "step", 1)).await.unwrap()
}

fn nothing_left(dir: &Path) {
    let left: Vec<_> = fs::read_dir(dir.join("detached")).map(|d| d.flatten().collect()).unwrap_or_default();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn it_survives_a_kill_of_its_starter_and_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let text = "echo $$ >>pids; cat; echo first; while [ ! -e go ]; do sleep 0.01; done; echo last >&2; exit 5";
    let mut probe = Probe::start("detach", dir.path(), text);
    let mut line = String::new();
    BufReader::new(probe.stdout()).read_line(&mut line).unwrap();
    let detached: Detached = serde_json::from_str(&line).unwrap();
    until("it runs", SOON, || pids(&dir.path().join("pids")).len() == 1);
    probe.kill();

    let target = target(dir.path());
    assert_eq!(target.detached_state(&detached).await.unwrap(), DetachedState::Running);
    assert!(!Path::new(&detached.dir).join("stdin").exists(), "its input may hold a secret");
    let recorder = Recorder::new();
    let command = script(text).keep_stdout(100);
    let attached = target.attach(&detached, &command, &recorder);
    let exit = tokio::join!(attached, async {
        while !recorder.text().contains("first") {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        fs::write(dir.path().join("go"), "").unwrap();
    })
    .0
    .unwrap();
    assert_eq!(exit.code, Some(5));
    assert_eq!(exit.stdout_text(), "from stdin\nfirst\nlast\n");
    assert_eq!(recorder.of(Stream::Stdout), exit.stdout);
    assert_eq!(exit.stderr_text(), exit.stdout_text(), "the end of both streams, for messages");
    assert_eq!(
        target.detached_state(&detached).await.unwrap(),
        DetachedState::Ended,
        "until its end is in the journal"
    );
    target.forget_detached(&detached).await.unwrap();
    nothing_left(dir.path());
}

#[tokio::test]
async fn one_that_has_ended_long_ago_is_read_from_its_records() {
    let dir = tempfile::tempdir().unwrap();
    let target = target(dir.path());
    let command = script("seq 100000; exit 1");
    let detached = start(&target, &command).await;
    assert_ne!(target.detached_state(&detached).await.unwrap(), DetachedState::Gone);
    let record = Path::new(&detached.dir).join("exit");
    until("its record is there", SOON, || fs::read(&record).is_ok_and(|text| text.ends_with(b"\n")));
    // As a later process with the same pid would look: the records count, not the pid. Not our own pid: a test process of
    // its own may have started in the same tick of the clock as the command, and is the same process by that.
    let later = Detached { pid: std::os::unix::process::parent_id().cast_signed(), ..detached };
    assert_eq!(target.detached_state(&later).await.unwrap(), DetachedState::Ended);
    let recorder = Recorder::new();
    let exit = target.attach(&later, &command, &recorder).await.unwrap();
    assert_eq!(exit.code, Some(1));
    assert_eq!(recorder.text().lines().count(), 100_000);
    target.forget_detached(&later).await.unwrap();
    nothing_left(dir.path());
}

#[tokio::test]
async fn one_that_was_killed_is_gone_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let target = target(dir.path());
    let command = script("echo $$ >>pids; echo before; exec sleep 300");
    let detached = start(&target, &command).await;
    until("it runs", SOON, || pids(&dir.path().join("pids")).len() == 1);
    kill(detached.pid);
    kill(pids(&dir.path().join("pids"))[0]);
    until("it is dead", SOON, || !alive(detached.pid));
    assert_eq!(target.detached_state(&detached).await.unwrap(), DetachedState::Gone);
    let recorder = Recorder::new();
    let gone = target.attach(&detached, &command, &recorder).await.unwrap_err();
    assert!(gone.message.contains("left no exit code"), "{gone}");
    assert_eq!(recorder.text(), "before\n");
    nothing_left(dir.path());
    let gone = target.attach(&detached, &command, &recorder).await.unwrap_err();
    assert!(gone.message.contains("left no exit code"), "{gone}");
}

#[tokio::test]
async fn a_half_written_exit_record_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let target = target(dir.path());
    let records = dir.path().join("detached/run/x");
    fs::create_dir_all(&records).unwrap();
    let detached =
        Detached { dir: records.to_str().unwrap().to_owned(), pid: i32::MAX, identity: "another boot:1".to_owned() };
    fs::write(records.join("exit"), "1").unwrap();
    assert_eq!(target.detached_state(&detached).await.unwrap(), DetachedState::Gone);
    fs::write(records.join("exit"), "12\n").unwrap();
    assert_eq!(target.detached_state(&detached).await.unwrap(), DetachedState::Ended);
}

#[tokio::test]
async fn stopping_it_stops_all_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let target = target(dir.path());
    let command = script(
        "trap '' TERM; echo $$ >>pids
         ( ( setsid sh -c 'echo $$ >>pids; exec sleep 300' & ) & )
         while [ $(wc -l <pids) -lt 2 ]; do sleep 0.01; done
         echo ready; while :; do sleep 300; done",
    );
    let detached = start(&target, &command).await;
    let recorder = Recorder::stop_at("ready", Duration::from_millis(100));
    let stopped = target.attach(&detached, &command, &recorder).await.unwrap_err();
    assert_eq!((stopped.kind, stopped.message.as_str()), (Kind::Cancelled, "sh was stopped"));
    assert!(!pids(&dir.path().join("pids")).into_iter().any(alive));
    assert!(!alive(detached.pid));
    nothing_left(dir.path());

    let command = script("exec sleep 300").timeout(Duration::from_millis(100));
    let detached = start(&target, &command).await;
    let stopped = target.attach(&detached, &command, &Recorder::new()).await.unwrap_err();
    assert_eq!(stopped.kind, Kind::Timeout);
    assert!(!alive(detached.pid));
}

#[tokio::test]
async fn what_cannot_start_leaves_no_records() {
    let dir = tempfile::tempdir().unwrap();
    let target = target(dir.path());
    let at = target.detached_dir("run", "step", 1);
    let e = target.start_detached(&Command::new(["no-such-program"]), &at).await.unwrap_err();
    assert_eq!((e.kind, e.message.as_str()), (Kind::CommandNotFound, "command not found: no-such-program"));
    let e = target.start_detached(&Command::new(["./absent"]), &at).await.unwrap_err();
    assert_eq!(e.kind, Kind::CommandNotFound);
    let e = target.start_detached(&Command::new(["true"]).cwd("nowhere"), &at).await.unwrap_err();
    assert_eq!(e.kind, Kind::NotFound);
    nothing_left(dir.path());
}

#[tokio::test]
async fn records_of_two_commands_never_mix() {
    let dir = tempfile::tempdir().unwrap();
    let target = target(dir.path());
    let detached = start(&target, &Command::new(["true"])).await;
    let e = target.start_detached(&Command::new(["true"]), &detached.dir).await.unwrap_err();
    assert!(e.message.ends_with("it exists already"), "{e}");
    assert!(target.attach(&detached, &Command::new(["true"]), &Recorder::new()).await.unwrap().ok());
}

#[tokio::test]
async fn a_word_that_is_a_builtin_of_the_shell_is_still_a_program() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("bin")).unwrap();
    let program = dir.path().join("bin/exit");
    fs::write(&program, "#!/bin/sh\necho a program with \"$1\"; exit 6\n").unwrap();
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:/bin:/usr/bin", dir.path().join("bin").display());
    let command = Command::new(["exit", "0; '$HOME"]).env("PATH", path);
    let target = target(dir.path());
    let detached = start(&target, &command).await;
    let recorder = Recorder::new();
    let exit = target.attach(&detached, &command, &recorder).await.unwrap();
    assert_eq!((exit.code, recorder.text().as_str()), (Some(6), "a program with 0; '$HOME\n"));
}
