//! What is left when runback is killed with -9, and what the guard does when it is not.

use std::path::Path;
use std::time::{Duration, Instant};

use super::{PROBE, Probe, alive, kill, pids, until};

/// The promise, which a busy machine may keep later than we do, and generous bounds for that machine.
const PROMISED: Duration = Duration::from_secs(1);
const GONE: Duration = Duration::from_secs(60);
const STARTED: Duration = Duration::from_secs(120);

/// Five processes in every way that they come: in the group, in a group of its own, in a session of its own, forked
/// twice with TERM ignored, and without any environment.
const FAMILY: &str = "
    echo $$ >>pids
    sh -c 'echo $$ >>pids; exec sleep 300' &
    setsid sh -c 'echo $$ >>pids; exec sleep 300' &
    ( ( setsid sh -c 'trap \"\" TERM HUP; echo $$ >>pids; while :; do sleep 300; done' & ) & )
    env -i sh -c 'echo $$ >>pids; exec sleep 300' &
    wait; sleep 300";

fn killed_leaves_nothing(part: &str) {
    let dir = tempfile::tempdir().unwrap();
    let mut probe = Probe::start(part, dir.path(), FAMILY);
    let file = dir.path().join("pids");
    until("the family has started", STARTED, || pids(&file).len() == 5);
    assert!(pids(&file).into_iter().all(alive));
    probe.kill();
    until("everything has ended", GONE, || !pids(&file).into_iter().any(alive));
}

#[test]
fn a_kill_leaves_no_orphan() {
    killed_leaves_nothing("run");
}

#[test]
fn a_kill_leaves_no_orphan_when_the_spawning_thread_has_ended() {
    killed_leaves_nothing("run-from-ended-thread");
}

/// Processes that run in this folder.
fn inhabitants(dir: &Path) -> usize {
    let here = |e: &std::fs::DirEntry| std::fs::read_link(e.path().join("cwd")).is_ok_and(|cwd| cwd == dir);
    std::fs::read_dir("/proc").unwrap().flatten().filter(|e| here(e)).count()
}

#[test]
fn a_kill_at_any_moment_of_a_storm_of_commands_leaves_no_orphan() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    let mut took = Vec::new();
    for round in 0..25 {
        let mut probe = Probe::start("storm", &dir, "");
        until("commands run", STARTED, || inhabitants(&dir) > 2);
        // Another moment each time.
        std::thread::sleep(Duration::from_micros(round * 1_700));
        probe.kill();
        let killed = Instant::now();
        until("everything has ended", GONE, || inhabitants(&dir) == 0);
        took.push(killed.elapsed());
    }
    took.sort_unstable();
    assert!(took[took.len() / 4] < PROMISED, "{took:?}");
}

#[test]
fn a_daemon_of_a_finished_command_is_not_ours() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = "setsid sh -c 'echo $$ >>pids; exec sleep 300' >/dev/null 2>&1 &";
    let mut probe = Probe::start("run-then-wait", dir.path(), daemon);
    let file = dir.path().join("pids");
    until("both have started", STARTED, || !pids(&file).is_empty() && dir.path().join("waiting").exists());
    let guard = probe.guard();
    probe.kill();
    until("the guard has ended", GONE, || !alive(guard));
    let daemon = pids(&file)[0];
    assert!(alive(daemon), "what a finished command started on purpose stays");
    kill(daemon);
}

#[test]
fn the_guard_ends_with_us_and_holds_no_stream_open() {
    let dir = tempfile::tempdir().unwrap();
    let printed = Probe::start("children", dir.path(), "").finish();
    let guard: i32 = printed.parse().unwrap();
    until("the guard has ended", GONE, || !alive(guard));
}

#[test]
fn the_guard_does_not_end_by_what_ends_us() {
    let dir = tempfile::tempdir().unwrap();
    let mut probe = Probe::start("run", dir.path(), "echo $$ >>pids; exec sleep 300");
    let file = dir.path().join("pids");
    until("it has started", STARTED, || pids(&file).len() == 1);
    let guard = probe.guard();
    for signal in ["TERM", "INT", "HUP", "QUIT"] {
        let status = std::process::Command::new("kill").args(["-s", signal, &guard.to_string()]).status();
        assert!(status.unwrap().success());
    }
    probe.kill();
    until("the command has ended", GONE, || !alive(pids(&file)[0]));
}

#[test]
fn an_inherited_ignore_of_sigchld_loses_no_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let line = format!("trap '' CHLD; exec {PROBE} exit-code {} 'exit 7'", dir.path().display());
    let output = std::process::Command::new("sh").args(["-c", &line]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "Some(7)");
}

#[test]
fn a_gigabyte_of_output_takes_no_memory() {
    let dir = tempfile::tempdir().unwrap();
    let printed = Probe::start("flood", dir.path(), "head -c 1073741824 /dev/zero").finish();
    let (bytes, peak) = printed.split_once(' ').unwrap();
    assert_eq!(bytes, "1073741824");
    assert!(peak.parse::<u64>().unwrap() < 24 << 10, "{peak} KiB");
}

#[test]
fn two_hundred_at_once_leak_no_descriptor() {
    let dir = tempfile::tempdir().unwrap();
    let printed = Probe::start("parallel", dir.path(), "").finish();
    let (before, after) = printed.split_once(' ').unwrap();
    assert_eq!(before, after);
}
