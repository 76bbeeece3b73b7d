//! The local target on a real machine: commands, what they leave behind, detached ones, files.

#![expect(clippy::unwrap_used, reason = "tests")]

mod commands;
mod detached;
mod files;
mod orphans;

use std::io::Read;
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use runback_core::target::{Command, Stream, Watch};
use runback_exec::process::Processes;
use runback_exec::target::LocalTarget;

/// The program of `probe.rs`.
const PROBE: &str = env!("CARGO_BIN_EXE_runback-exec-probe");

/// Records output, and says stop when it has seen a word.
#[derive(Debug)]
struct Recorder {
    seen: Mutex<Vec<(Stream, Vec<u8>)>>,
    stop_at: Option<&'static str>,
    stop: tokio::sync::Notify,
    grace: Duration,
}

impl Recorder {
    fn new() -> Self {
        Self { seen: Mutex::default(), stop_at: None, stop: tokio::sync::Notify::new(), grace: Duration::from_secs(30) }
    }

    fn stop_at(word: &'static str, grace: Duration) -> Self {
        Self { stop_at: Some(word), grace, ..Self::new() }
    }

    fn text(&self) -> String {
        let seen = self.seen.lock().unwrap();
        String::from_utf8(seen.iter().flat_map(|(_, bytes)| bytes.clone()).collect()).unwrap()
    }

    fn of(&self, stream: Stream) -> Vec<u8> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|(s, _)| *s == stream).flat_map(|(_, bytes)| bytes.clone()).collect()
    }
}

#[async_trait::async_trait]
impl Watch for Recorder {
    fn output(&self, stream: Stream, bytes: &[u8]) {
        self.seen.lock().unwrap().push((stream, bytes.to_vec()));
        if self.stop_at.is_some_and(|word| self.text().contains(word)) {
            self.stop.notify_one();
        }
    }

    async fn stopped(&self) {
        self.stop.notified().await;
    }

    fn kill_grace(&self) -> Duration {
        self.grace
    }
}

/// The other process; never left behind, whatever the test does.
struct Probe(Child);

impl Probe {
    fn start(part: &str, dir: &Path, script: &str) -> Self {
        let mut command = std::process::Command::new(PROBE);
        command.args([part, dir.to_str().unwrap(), script]).stdin(Stdio::null()).stdout(Stdio::piped());
        Self(command.spawn().unwrap())
    }

    fn stdout(&mut self) -> ChildStdout {
        self.0.stdout.take().unwrap()
    }

    /// All that it prints until nobody has its standard output any more.
    fn finish(mut self) -> String {
        let mut printed = String::new();
        self.stdout().read_to_string(&mut printed).unwrap();
        assert!(self.0.wait().unwrap().success());
        printed.trim().to_owned()
    }

    /// With -9.
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// The pid of its guard, once that has its name.
    fn guard(&self) -> i32 {
        let pid = self.0.id();
        let find = || {
            let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
            let comm = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let all: Vec<i32> = children.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
            all.into_iter().find(|pid| comm(pid).trim() == "runback-guard")
        };
        until("the guard has its name", Duration::from_secs(120), || find().is_some());
        find().unwrap()
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn script(text: &str) -> Command {
    Command::new(["sh", "-c", text])
}

fn target(dir: &Path) -> LocalTarget {
    LocalTarget::new(dir.into(), dir.join("detached"), Processes::without_guard())
}

/// Zombies are dead: only their parent has not looked yet.
fn alive(pid: i32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let state = stat.rsplit(')').next().unwrap().trim_start();
    !state.starts_with(['Z', 'X'])
}

/// Looks until it is so; panics after `within`.
#[track_caller]
fn until(what: &str, within: Duration, so: impl Fn() -> bool) {
    let end = Instant::now() + within;
    while !so() {
        assert!(Instant::now() < end, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// One pid a line; a half-written line counts not yet.
fn pids(file: &Path) -> Vec<i32> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')?.parse().ok()).collect()
}

fn kill(pid: i32) {
    let _ = rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL);
}
