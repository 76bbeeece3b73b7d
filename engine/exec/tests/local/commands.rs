//! Commands from start to end: streams, exit codes, stopping, and why one does not start.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use runback_core::target::{Command, Stream, Target, TargetError, TargetErrorKind as Kind};
use runback_exec::process::Processes;
use runback_exec::process::guard::GuardCommand;
use runback_exec::target::LocalTarget;

use super::{Recorder, alive, kill, pids, script, target, until};

/// More than anything here takes, less than the sleeps in the scripts.
const SOON: Duration = Duration::from_secs(120);

async fn refused(dir: &Path, command: Command) -> TargetError {
    let recorder = Recorder::new();
    let refused = target(dir).run(&command, &recorder).await.unwrap_err();
    assert_eq!(recorder.text(), "");
    refused
}

fn executable(file: &Path, text: &str) {
    fs::write(file, text).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn streams_codes_and_what_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::new();
    let command = script("echo out; echo err >&2; exit 3").keep_stdout(2);
    let exit = target(dir.path()).run(&command, &recorder).await.unwrap();
    assert_eq!((exit.code, exit.signal), (Some(3), None));
    assert_eq!((exit.stdout.as_slice(), exit.stdout_cut), (&b"ou"[..], true));
    assert_eq!(exit.stderr_tail, b"err\n");
    assert_eq!(recorder.of(Stream::Stdout), b"out\n");
    assert_eq!(recorder.of(Stream::Stderr), b"err\n");

    let exit = target(dir.path()).run(&script("kill -9 $$"), &Recorder::new()).await.unwrap();
    assert_eq!((exit.code, exit.signal), (None, Some(9)));
}

#[tokio::test]
async fn output_comes_while_it_runs() {
    let dir = tempfile::tempdir().unwrap();
    // It ends only once its output was seen: the recorder stops it then.
    let recorder = Recorder::stop_at("now", SOON);
    let start = Instant::now();
    let stopped = target(dir.path()).run(&script("echo now; exec sleep 300"), &recorder).await.unwrap_err();
    assert_eq!(stopped.kind, Kind::Cancelled);
    assert!(start.elapsed() < SOON);
}

#[tokio::test]
async fn what_is_not_for_the_log_is_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::new();
    let exit = target(dir.path()).run(&Command::query(["echo", "secret"]), &recorder).await.unwrap();
    assert_eq!(exit.stdout_text(), "secret\n");
    assert_eq!(recorder.text(), "");
}

#[tokio::test]
async fn folder_environment_and_signals_are_clean() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("sub")).unwrap();
    let base = dir.path().canonicalize().unwrap();
    let run = |command: Command| {
        let target = target(&base);
        async move { target.run(&command.keep_stdout(4096), &Recorder::new()).await.unwrap().stdout_text() }
    };
    assert_eq!(run(Command::new(["pwd", "-P"])).await.trim(), base.to_str().unwrap());
    assert_eq!(run(Command::new(["pwd", "-P"]).cwd("sub")).await.trim(), base.join("sub").to_str().unwrap());
    assert_eq!(run(Command::new(["pwd", "-P"]).cwd("/")).await.trim(), "/");

    assert_eq!(run(script("printf %s \"$HOME:$A\"").env("A", "é=1").env("HOME", "/h")).await, "/h:é=1");
    let cookies = run(script("env | grep ^RUNBACK_COOKIE=").env("RUNBACK_COOKIE", "mine")).await;
    assert_eq!(cookies.lines().count(), 1);
    assert!(!cookies.contains("mine"), "{cookies}");

    let signals = run(Command::new(["grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"])).await;
    assert_eq!(signals.lines().count(), 2);
    for line in signals.lines() {
        let mask = u64::from_str_radix(line.rsplit('\t').next().unwrap(), 16).unwrap();
        // glibc leaves its own two, 32 and 33, ignored; no program can set them.
        assert_eq!(mask & !0x1_8000_0000, 0, "{line}");
    }
    // A session of its own, so that Ctrl-C on our terminal is ours alone.
    let stat = run(Command::new(["cat", "/proc/self/stat"])).await;
    let fields: Vec<_> = stat.split_whitespace().collect();
    assert_eq!((fields[0], fields[0]), (fields[4], fields[5]));
}

#[tokio::test]
async fn stdin_of_any_size() {
    let dir = tempfile::tempdir().unwrap();
    let target = target(dir.path());
    let run = |command: Command| target_run(&target, command);
    assert_eq!(run(Command::new(["cat"])).await, b"", "without any it is empty, and not our terminal");
    assert_eq!(run(Command::new(["cat"]).stdin("x")).await, b"x");
    let large: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
    assert!(run(Command::new(["cat"]).stdin(large.clone())).await == large);
    // Nobody reads it: no error, no wait.
    assert_eq!(run(Command::new(["true"]).stdin(large)).await, b"");
}

async fn target_run(target: &LocalTarget, command: Command) -> Vec<u8> {
    let exit = target.run(&command.keep_stdout(8 << 20), &Recorder::new()).await.unwrap();
    assert!(exit.ok(), "{exit:?}");
    exit.stdout
}

#[tokio::test]
async fn much_output_arrives_whole_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::new();
    let exit = target(dir.path()).run(&script("seq 400000; seq 400000 >&2"), &recorder).await.unwrap();
    assert!(exit.ok());
    let wanted: String = (1..=400_000).fold(String::new(), |text, i| text + &i.to_string() + "\n");
    assert!(recorder.of(Stream::Stdout) == wanted.as_bytes());
    assert!(recorder.of(Stream::Stderr) == wanted.as_bytes());
    assert!(exit.stderr_tail == wanted.as_bytes()[wanted.len() - 4096..]);
}

#[tokio::test]
async fn stopping_lets_it_clean_up() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::stop_at("ready", SOON);
    let command = script("trap 'echo cleaned; exit 0' TERM; echo ready; while :; do sleep 0.01; done");
    let stopped = target(dir.path()).run(&command, &recorder).await.unwrap_err();
    assert_eq!(stopped.kind, Kind::Cancelled);
    assert_eq!(stopped.message, "sh was stopped");
    assert_eq!(recorder.of(Stream::Stdout), b"ready\ncleaned\n");
}

#[tokio::test]
async fn stopping_ends_what_ignores_term_and_what_has_forked_away() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::stop_at("ready", Duration::from_millis(150));
    let command = script(
        "trap '' TERM
         echo $$ >>pids
         setsid sh -c 'echo $$ >>pids; exec sleep 300' &
         ( ( setsid sh -c 'echo $$ >>pids; while :; do sleep 300; done' & ) & )
         env -i sh -c 'echo $$ >>pids; exec sleep 300' &
         while [ $(wc -l <pids) -lt 4 ]; do sleep 0.01; done
         echo ready; while :; do sleep 300; done",
    );
    let stopped = target(dir.path()).run(&command, &recorder).await.unwrap_err();
    assert_eq!(stopped.kind, Kind::Cancelled);
    let family = pids(&dir.path().join("pids"));
    assert_eq!(family.len(), 4);
    assert!(!family.into_iter().any(alive));
}

#[tokio::test]
async fn a_timeout_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let command = script("echo $$ >pids; exec sleep 300").timeout(Duration::from_millis(300));
    let stopped = target(dir.path()).run(&command, &Recorder::new()).await.unwrap_err();
    assert_eq!(stopped.kind, Kind::Timeout);
    assert_eq!(stopped.message, "sh was stopped: it ran longer than its timeout of 300ms");
    assert!(!pids(&dir.path().join("pids")).into_iter().any(alive));
}

#[tokio::test]
async fn an_attempt_that_is_thrown_away_takes_its_command_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pids");
    let target = target(dir.path());
    let command = script("echo $$ >>pids; setsid sh -c 'echo $$ >>pids; exec sleep 300' & exec sleep 300");
    let recorder = Recorder::new();
    tokio::select! {
        _ = target.run(&command, &recorder) => unreachable!("it sleeps"),
        () = async {
            while pids(&file).len() < 2 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        } => {}
    }
    until("both are dead", SOON, || !pids(&file).into_iter().any(alive));
}

#[tokio::test]
async fn one_that_closes_its_pipes_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let exit = target(dir.path()).run(&script("exec >&- 2>&-; sleep 0.2; exit 4"), &Recorder::new()).await.unwrap();
    assert_eq!(exit.code, Some(4));
}

#[tokio::test]
async fn a_background_child_that_holds_the_pipes_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let (recorder, start) = (Recorder::new(), Instant::now());
    let command = script("sleep 300 & echo $! >pids; echo done");
    let exit = target(dir.path()).run(&command, &recorder).await.unwrap();
    assert!(exit.ok() && start.elapsed() < SOON);
    assert_eq!(recorder.text(), "done\n");
    let left = pids(&dir.path().join("pids"))[0];
    assert!(alive(left), "the command ended well; what it left running is its business");
    kill(left);

    // Also one that never stops writing.
    let command = script("yes & echo $! >pids");
    let exit = target(dir.path()).run(&command, &Recorder::new()).await.unwrap();
    assert!(exit.ok() && start.elapsed() < SOON);
    let writer = pids(&dir.path().join("pids"))[0];
    until("nobody reads it, so it ends", SOON, || !alive(writer));
}

#[tokio::test]
async fn a_script_that_is_still_being_written_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("fresh");
    executable(&file, "#!/bin/sh\necho ran\n");
    let writer = fs::OpenOptions::new().append(true).open(&file).unwrap();
    let (recorder, command) = (Recorder::new(), Command::new(["./fresh"]));
    let local = target(dir.path());
    // By the same clock as the pauses between the tries, so that it is closed before the last of them.
    let (exit, ()) = tokio::join!(local.run(&command, &recorder), async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        drop(writer);
    });
    assert!(exit.unwrap().ok());
    assert_eq!(recorder.text(), "ran\n");

    let writer = fs::OpenOptions::new().append(true).open(&file).unwrap();
    let busy = refused(dir.path(), Command::new(["./fresh"])).await;
    assert!(busy.message.ends_with("/./fresh is still open for writing by another process"), "{busy}");
    drop(writer);
}

#[tokio::test]
async fn why_a_command_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let run = |command: Command| refused(dir.path(), command);

    let e = run(Command::new(["no-such-program", "x"]).env("PATH", "/a:/b")).await;
    assert_eq!((e.kind, e.message.as_str()), (Kind::CommandNotFound, "command not found: no-such-program"));
    assert_eq!(e.help.as_deref(), Some("install it, or give its full path; PATH is /a:/b"));

    let e = run(Command::new([at("absent")])).await;
    assert_eq!((e.kind, e.message), (Kind::CommandNotFound, format!("command not found: {}", at("absent"))));

    fs::write(at("plain"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(at("plain"), fs::Permissions::from_mode(0o644)).unwrap();
    let e = run(Command::new([at("plain")])).await;
    assert_eq!((e.kind, e.message), (Kind::CommandNotFound, format!("{} is not executable", at("plain"))));
    let e = run(Command::new(["plain"]).env("PATH", dir.path().to_str().unwrap())).await;
    assert_eq!((e.kind, e.message), (Kind::CommandNotFound, format!("{} is not executable", at("plain"))));

    let e = run(Command::new(["/"])).await;
    assert_eq!((e.kind, e.message.as_str()), (Kind::CommandNotFound, "/ is a directory, not a command"));

    executable(Path::new(&at("windows")), "#!/bin/sh\r\necho\r\n");
    let e = run(Command::new([at("windows")])).await;
    let wanted = format!("{}: its interpreter /bin/sh\\r does not exist", at("windows"));
    assert_eq!((e.kind, e.message), (Kind::CommandNotFound, wanted));

    executable(Path::new(&at("headless")), "echo\n");
    let e = run(Command::new([at("headless")])).await;
    assert_eq!(e.kind, Kind::CommandNotFound);
    assert!(e.message.ends_with("is not a program that can be executed"), "{e}");

    let e = run(Command::new(["true"]).cwd("nowhere")).await;
    let wanted = format!("the working directory {} does not exist", at("nowhere"));
    assert_eq!((e.kind, e.message), (Kind::NotFound, wanted));
    let e = run(Command::new(["true"]).cwd("plain")).await;
    assert_eq!(
        (e.kind, e.message),
        (Kind::WrongKind, format!("the working directory {} is not a directory", at("plain")))
    );

    let e = run(Command::new(["echo", "a\0b"])).await;
    assert_eq!(e.message, "echo: the argument \"a\\0b\" has a NUL byte in it, which no command can take");
    let e = run(Command::new(["echo"]).env("A=B", "1")).await;
    assert!(e.message.starts_with("the environment variable \"A=B\" cannot be set"), "{e}");
    let e = run(Command::new(Vec::<String>::new())).await;
    assert_eq!((e.kind, e.message.as_str()), (Kind::CommandNotFound, "the command's name is empty"));

    let e = run(Command::new(["echo".to_owned(), "x".repeat(3 << 20)])).await;
    assert!(e.message.ends_with("the arguments and the environment are too long together"), "{e}");
}

#[tokio::test]
async fn without_its_guard_it_warns_once_and_runs() {
    let dir = tempfile::tempdir().unwrap();
    let warned = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&warned);
    let processes = Processes::new(GuardCommand::new("/nonexistent/guard", ["x"]), move |warning| {
        assert!(warning.starts_with("the guard /nonexistent/guard did not start (No such file"), "{warning}");
        counter.fetch_add(1, Ordering::Relaxed);
    });
    let target = LocalTarget::new(dir.path().into(), dir.path().into(), processes);
    for _ in 0..2 {
        assert!(target.run(&Command::new(["true"]), &Recorder::new()).await.unwrap().ok());
    }
    assert_eq!(warned.load(Ordering::Relaxed), 1);
}
