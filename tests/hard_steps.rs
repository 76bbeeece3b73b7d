//! Steps that behave badly, as the binary meets them: deaf to signals, forking away, closing their pipes, writing without
//! end; and several processes that want the same run at once.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value as Json;

struct World(tempfile::TempDir);

impl World {
    fn new(steps: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temp folder");
        std::fs::write(dir.path().join("p.yaml"), format!("runback: 1\nname: hard\n{steps}")).expect("the playbook");
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runback"));
        command.current_dir(self.0.path()).args(args).arg("--state-dir").arg(self.path("state"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).env("NO_COLOR", "1");
        command
    }

    fn start(&self, args: &[&str]) -> Child {
        self.command(args).spawn().expect("runback starts")
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("runback runs")
    }

    fn show(&self, run: &str) -> Json {
        let output = self.run(&["show", run, "--output", "json"]);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
    }

    /// Waits until a step has left its sign.
    fn wait_for(&self, name: &str) {
        let until = Instant::now() + Duration::from_secs(120);
        while !self.path(name).exists() {
            assert!(Instant::now() < until, "{name} never came");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Processes that work in a folder or below it.
fn inhabitants(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    let here = entries.filter(|e| std::fs::read_link(e.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir)));
    here.map(|e| std::fs::read_to_string(e.path().join("cmdline")).unwrap_or_default().replace('\0', " ")).collect()
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

fn empties_soon(dir: &Path) {
    let until = Instant::now() + Duration::from_secs(60);
    while !inhabitants(dir).is_empty() {
        assert!(Instant::now() < until, "still there: {:?}", inhabitants(dir));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn what_ignores_term_or_forks_away_ends_with_its_attempt() {
    let world = World::new(
        "steps:
  - { id: deaf, needs: [], timeout: 1s, kill_grace: 300ms, continue_on_error: true, run: \"trap '' TERM INT HUP; while :; do sleep 0.1; done\" }
  - { id: forks, needs: [], timeout: 1s, kill_grace: 300ms, continue_on_error: true, run: \"setsid sleep 300 & (sleep 300 &) ; sleep 300\" }
",
    );
    let began = Instant::now();
    let ran = world.run(&["run", "p.yaml", "--run-id", "r"]);
    assert_eq!(code(&ran), Some(0), "{ran:?}");
    assert!(began.elapsed() < Duration::from_secs(120), "{:?}", began.elapsed());
    for step in world.show("r")["steps"].as_array().expect("steps") {
        assert_eq!((&step["status"], &step["error"]["class"]), (&"failed".into(), &"timeout".into()), "{step}");
    }
    empties_soon(world.0.path());
}

#[test]
fn what_closes_its_pipes_is_waited_for_and_what_it_leaves_open_is_not() {
    let world = World::new(
        "steps:
  - { id: closes, run: \"exec >&- 2>&-; sleep 0.5; touch closed\" }
  - { id: after, run: \"test -e closed\" }
  - { id: leaves, run: \"sleep 300 & echo $! > daemon\" }
",
    );
    let began = Instant::now();
    let ran = world.run(&["run", "p.yaml"]);
    assert_eq!(code(&ran), Some(0), "{ran:?}");
    let took = began.elapsed();
    let daemon = std::fs::read_to_string(world.path("daemon")).expect("its id");
    // What a step that succeeded started in the background is its own affair; here it is ours to end.
    let _ = Command::new("kill").args(["-9", daemon.trim()]).status();
    assert!(took < Duration::from_secs(120), "the pipe of a background child holds nobody up: {took:?}");
}

/// A gigabyte of one step: memory stays flat, the log stays bounded, the run is not held up.
#[test]
fn a_gigabyte_of_output_takes_no_memory_and_no_disk() {
    let world = World::new(
        "steps: [{ id: talks, run: \"yes 0123456789abcdef0123456789abcdef | head -c 1073741824 || true\" }]\n",
    );
    let mut child = world.command(&["run", "p.yaml", "--run-id", "r", "--quiet"]).spawn().expect("starts");
    let status = format!("/proc/{}/status", child.id());
    let mut peak_kib = 0;
    let ended = loop {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let peak =
            text.lines().find_map(|l| l.strip_prefix("VmHWM:")?.trim().trim_end_matches(" kB").parse::<u64>().ok());
        peak_kib = peak_kib.max(peak.unwrap_or(0));
        if let Some(status) = child.try_wait().expect("waits") {
            break status;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(ended.success(), "{ended}");
    assert!((1..100 << 10).contains(&peak_kib), "{peak_kib} KiB at its peak");
    let logs = walk(&world.path("state/logs"));
    let bytes: u64 = logs.iter().map(|f| f.metadata().map_or(0, |m| m.len())).sum();
    assert!((1..=25 << 20).contains(&bytes), "{bytes} bytes of logs");
    let told = world.run(&["logs", "r"]).stdout;
    let marker = b"bytes of output were cut here";
    assert!(told.windows(marker.len()).any(|w| w == marker), "the cut is marked");
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(walk(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}

/// A process died in the middle. Three resume at once, while others cancel and ask for a rollback: one has the run, the
/// others are refused, and what was asked for is done.
#[test]
fn many_want_one_run_at_once() {
    let world = World::new(
        "steps:
  - { id: write, uses: file.write, with: { path: made, content: x } }
  - { id: slow, on_interrupt: rerun, run: \"touch begun; sleep 2\" }
",
    );
    let mut first = world.start(&["run", "p.yaml", "--run-id", "r"]);
    world.wait_for("begun");
    first.kill().expect("kills");
    first.wait().expect("reaps");
    let resumers: Vec<Child> = (0..3).map(|_| world.start(&["resume", "r"])).collect();
    let others = [world.start(&["rollback", "r"]), world.start(&["cancel", "r"])];
    let mut resumed: Vec<Output> = Vec::new();
    for child in resumers {
        resumed.push(child.wait_with_output().expect("ends"));
    }
    for other in others {
        other.wait_with_output().expect("ends");
    }
    // Who comes when another has it hears that, and who comes when that one was cancelled or taken back, that it is over.
    let refused = resumed.iter().filter(|o| {
        let said = String::from_utf8_lossy(&o.stderr).into_owned();
        said.contains("in the hands of") || said.contains("run r is over: ")
    });
    assert!(refused.count() >= 2, "{resumed:?}");
    // Whoever came first: the run is over, or can be brought there, and nothing of it is left.
    let status = world.show("r")["status"].as_str().unwrap_or_default().to_owned();
    if !matches!(status.as_str(), "rolled-back" | "cancelled") {
        let back = world.run(&["rollback", "r"]);
        assert!(matches!(code(&back), Some(0 | 3 | 130)), "{status}: {back:?}");
    }
    assert!(!world.path("made").exists(), "{:#}", world.show("r"));
    empties_soon(world.0.path());
}

/// Each run edits what stands there when it is its turn, and none replaces what it has not read.
#[test]
fn runs_at_once_lose_no_line_of_one_file_and_each_takes_back_its_own() {
    let steps = "inputs: { who: { type: string } }\nsteps:\n  - id: host\n    uses: file.line\n    \
        with: { path: hosts, line: \"10.0.0.1 {{ inputs.who }}\" }\n";
    let world = World::new(steps);
    std::fs::write(world.path("hosts"), "127.0.0.1 me\n").expect("the file");
    let who = |n: usize| (format!("who=h{n}"), format!("r{n}"));
    let started: Vec<_> = (0..8)
        .map(|n| {
            let (who, run) = who(n);
            world.start(&["run", "p.yaml", "-i", &who, "--run-id", &run])
        })
        .collect();
    for child in started {
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(code(&output), Some(0), "{output:?}");
    }
    let text = std::fs::read_to_string(world.path("hosts")).expect("the file");
    let mut lines: Vec<_> = text.lines().skip(1).collect();
    lines.sort_unstable();
    assert_eq!(lines, (0..8).map(|n| format!("10.0.0.1 h{n}")).collect::<Vec<_>>(), "{text}");
    let started: Vec<_> = (0..8).map(|n| world.start(&["rollback", &who(n).1])).collect();
    for child in started {
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(code(&output), Some(0), "{output:?}");
    }
    assert_eq!(std::fs::read_to_string(world.path("hosts")).expect("the file"), "127.0.0.1 me\n");
}
