//! A real `kill -9` of the binary, hundreds of times, at any moment; then resume. A ledger outside runback says what
//! really happened; the journal must agree with it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Kills in one sweep; the issue asks for at least 200 in all.
const KILLS: usize = 220;

/// A small generator of its own, so that a seed names a sweep for good.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

struct World {
    dir: tempfile::TempDir,
    kills: usize,
}

impl World {
    fn new(playbook: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temp folder");
        std::fs::write(dir.path().join("playbook.yaml"), playbook).expect("the playbook");
        std::fs::write(dir.path().join("ledger"), "").expect("the ledger");
        Self { dir, kills: 0 }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What the environment of all that is started here has.
    fn mark(&self) -> String {
        format!("KILL_TEST={}", self.dir.path().display())
    }

    fn runback(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runback"));
        command
            .args(args)
            .arg("--state-dir")
            .arg(self.path("state"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .env("KILL_TEST", self.dir.path())
            .current_dir(self.dir.path());
        command
    }

    /// Runs to its end, or is killed after the delay. None = killed.
    fn run_or_kill(&mut self, args: &[&str], delay: Option<Duration>) -> Option<i32> {
        let mut child: Child = self.runback(args).stderr(Stdio::null()).spawn().expect("runback starts");
        let began = Instant::now();
        loop {
            if let Some(status) = child.try_wait().expect("waits") {
                return status.code();
            }
            if delay.is_some_and(|d| began.elapsed() >= d) {
                child.kill().expect("kills");
                child.wait().expect("reaps");
                self.kills += 1;
                return None;
            }
            std::thread::sleep(Duration::from_micros(300));
        }
    }

    fn show(&self, run: &str) -> Option<Value> {
        let output = self.runback(&["show", run, "--output", "json"]).stdout(Stdio::piped()).output().expect("show");
        output.status.success().then(|| serde_json::from_slice(&output.stdout).expect("JSON"))
    }

    /// step → how often the world saw it act.
    fn ledger(&self) -> BTreeMap<String, usize> {
        let mut seen = BTreeMap::new();
        for line in std::fs::read_to_string(self.path("ledger")).expect("the ledger").lines() {
            *seen.entry(line.to_owned()).or_default() += 1;
        }
        seen
    }
}

/// Processes whose environment holds this.
fn alive_with(needle: &str) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        if let Ok(environ) = std::fs::read(entry.path().join("environ"))
            && environ.windows(needle.len()).any(|w| w == needle.as_bytes())
        {
            found.push(pid);
        }
    }
    found
}

fn steps(count: usize, last: &str) -> String {
    let mut text = String::from("runback: 1\nname: sweep\nmax_parallel: 4\nsteps:\n");
    for i in 0..count {
        let _ = writeln!(text, "  - id: s{i}");
        match i % 4 {
            // Acting again is allowed, and said so.
            0 => {
                let _ = writeln!(text, "    run: echo s{i} >> ledger\n    on_interrupt: rerun");
            }
            // Only a person knows.
            1 => {
                let _ = writeln!(text, "    run: echo s{i} >> ledger\n    on_interrupt: ask");
            }
            2 => {
                let _ = writeln!(text, "    uses: file.write\n    with: {{ path: f{i}, content: \"new {i}\\n\" }}");
            }
            _ => {
                let _ =
                    writeln!(text, "    uses: file.line\n    with: {{ path: lines, line: \"l{i}\", create: true }}");
            }
        }
        if i % 3 == 1 {
            let _ = writeln!(text, "    needs: [s{}]", i - 1);
        }
    }
    text.push_str(last);
    text
}

/// Settles what only a person can, the way a person would: by looking at the world, once what was killed acts no more.
fn settle(world: &World, run: &str) -> Vec<String> {
    let Some(show) = world.show(run) else { return Vec::new() };
    let interrupted: Vec<&Value> = show["steps"]
        .as_array()
        .expect("steps")
        .iter()
        .filter(|s| s["status"] == "interrupted" && s["type"] == "shell")
        .collect();
    let began = Instant::now();
    while !interrupted.is_empty() && !alive_with(&world.mark()).is_empty() {
        assert!(began.elapsed() < Duration::from_secs(60), "what was killed lives on: {:?}", alive_with(&world.mark()));
        std::thread::sleep(Duration::from_millis(2));
    }
    let ledger = world.ledger();
    interrupted
        .into_iter()
        .flat_map(|s| {
            let id = s["id"].as_str().expect("an id");
            let done = ledger.contains_key(id);
            ["--step".to_owned(), format!("{id}={}", if done { "done" } else { "redo" })]
        })
        .collect()
}

/// Kills and resumes one run until it is over. Gives its exit code.
fn sweep_one(world: &mut World, run: &str, random: &mut Random, kills: usize) -> i32 {
    let delay = |random: &mut Random| Duration::from_micros(500 + random.below(120_000));
    let (mut left, mut misses) = (kills, 1);
    let first = delay(random);
    let mut ended = world.run_or_kill(&["run", "playbook.yaml", "--run-id", run], Some(first));
    for _ in 0..kills * 4 + 50 {
        if let Some(code) = ended
            && code != 5
        {
            return code;
        }
        let status = world.show(run).map(|show| show["status"].as_str().unwrap_or_default().to_owned());
        match status.as_deref() {
            // Killed between its last event and its exit.
            Some("succeeded") => return 0,
            Some("rolled-back") => return 3,
            _ => {}
        }
        if status.is_none() {
            // Killed before the first event was durable: there is no run, and it can be started. A slow machine may need
            // more time for that than any of the delays.
            misses += 1;
            ended = world.run_or_kill(&["run", "playbook.yaml", "--run-id", run], Some(delay(random) * misses));
            continue;
        }
        let decisions = settle(world, run);
        let mut args: Vec<&str> = vec!["resume", run];
        args.extend(decisions.iter().map(String::as_str));
        let kill = (left > 0).then(|| delay(random));
        left = left.saturating_sub(1);
        ended = world.run_or_kill(&args, kill);
    }
    panic!("the run {run} does not come to an end");
}

fn assert_ledger_agrees(world: &World, run: &str) {
    let show = world.show(run).expect("the run");
    let ledger = world.ledger();
    for step in show["steps"].as_array().expect("steps") {
        let (id, attempts) = (step["id"].as_str().expect("an id"), step["attempts"].as_u64().expect("a number"));
        let acted = ledger.get(id).copied().unwrap_or(0) as u64;
        assert!(acted <= attempts, "{id} acted {acted} times and the journal knows of {attempts} attempts");
        if step["type"] == "shell" && step["status"] == "succeeded" {
            assert!(acted >= 1, "{id} counts as done and never acted");
        }
        if attempts == 1 && step["type"] == "shell" && step["status"] == "succeeded" {
            assert_eq!(acted, 1, "{id}");
        }
    }
}

#[test]
fn a_kill_at_any_instant_loses_nothing_and_repeats_nothing() {
    let mut random = Random(0x5eed_0001);
    let mut kills = 0;
    let mut round = 0;
    while kills < KILLS {
        let mut world = World::new(&steps(24, ""));
        let run = format!("sweep-{round}");
        let code = sweep_one(&mut world, &run, &mut random, 12);
        assert_eq!(code, 0, "round {round}: {:#}", world.show(&run).unwrap_or_default());
        assert_ledger_agrees(&world, &run);
        let ledger = world.ledger();
        for i in (0..24).step_by(4) {
            assert!(ledger.contains_key(&format!("s{i}")), "s{i} never acted");
            // `ask`: a person looked before it was done again, so it is there once.
            assert_eq!(ledger.get(&format!("s{}", i + 1)), Some(&1), "s{}", i + 1);
            let content = std::fs::read_to_string(world.path(&format!("f{}", i + 2))).expect("written");
            assert_eq!(content, format!("new {}\n", i + 2));
        }
        let lines = std::fs::read_to_string(world.path("lines")).expect("written");
        assert_eq!(lines.lines().count(), 6, "each line once: {lines}");
        kills += world.kills;
        round += 1;
    }
}

#[test]
fn a_kill_during_the_rollback_still_takes_everything_back() {
    let mut random = Random(0x5eed_0002);
    for round in 0..4 {
        let mut world = World::new(&steps(16, "  - id: breaks\n    run: exit 1\n"));
        std::fs::write(world.path("f2"), "old\n").expect("written");
        let run = format!("back-{round}");
        let code = sweep_one(&mut world, &run, &mut random, 10);
        assert_eq!(code, 3, "round {round}: {:#}", world.show(&run).unwrap_or_default());
        assert_ledger_agrees(&world, &run);
        assert_eq!(std::fs::read_to_string(world.path("f2")).expect("there"), "old\n");
        for gone in ["f6", "f10", "f14", "lines"] {
            assert!(!world.path(gone).exists(), "{gone} is still there");
        }
        let left: Vec<_> = names(world.dir.path()).into_iter().filter(|n| n.contains("runback")).collect();
        assert!(left.is_empty(), "left behind: {left:?}");
    }
}

fn names(dir: &Path) -> Vec<String> {
    std::fs::read_dir(dir).expect("a folder").flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn no_process_is_left_one_second_after_a_kill() {
    let mut took = Vec::new();
    let playbook = "runback: 1\nname: orphans\nsteps:\n\
        \x20 - { id: plain, needs: [], run: \"sleep 300\" }\n\
        \x20 - { id: forks, needs: [], run: \"sleep 300 & sleep 300 & wait\" }\n\
        \x20 - { id: session, needs: [], run: \"setsid sleep 300 & sleep 300\" }\n\
        \x20 - { id: deaf, needs: [], run: \"trap '' TERM INT HUP; while :; do sleep 1; done\" }\n\
        \x20 - { id: argv, needs: [], uses: exec, with: { command: [sleep, \"300\"] } }\n";
    for round in 0..3 {
        let world = World::new(playbook);
        let mark = format!("ORPHAN_TEST={}-{round}", std::process::id());
        let (name, value) = mark.split_once('=').expect("a pair");
        let mut child =
            world.runback(&["run", "playbook.yaml"]).env(name, value).stderr(Stdio::null()).spawn().expect("starts");
        let begun = Instant::now();
        // The five commands and what they start, besides runback and its guard.
        while alive_with(&mark).len() < 9 {
            assert!(begun.elapsed() < Duration::from_secs(120), "the steps do not start: {:?}", alive_with(&mark));
            std::thread::sleep(Duration::from_millis(20));
        }
        child.kill().expect("kills");
        child.wait().expect("reaps");
        let killed = Instant::now();
        while !alive_with(&mark).is_empty() {
            assert!(killed.elapsed() < Duration::from_secs(60), "still alive: {:?}", alive_with(&mark));
            std::thread::sleep(Duration::from_millis(20));
        }
        took.push(killed.elapsed());
    }
    // A machine that is busy with something else makes it longer, never shorter.
    assert!(took.iter().min() < Some(&Duration::from_secs(1)), "{took:?}");
}

#[test]
fn two_processes_on_one_run_at_once() {
    let world = World::new(&steps(8, "  - id: slow\n    run: sleep 1\n"));
    let start = || world.runback(&["run", "playbook.yaml", "--run-id", "twins"]).spawn().expect("starts");
    let (one, two) = (start(), start());
    let codes: Vec<_> =
        [one, two].map(|c| c.wait_with_output().expect("ends")).iter().map(|o| o.status.code()).collect();
    assert!(codes.contains(&Some(0)), "one of them runs it: {codes:?}");
    assert!(codes.iter().any(|c| *c != Some(0)), "and only one: {codes:?}");
    assert!(world.ledger().values().all(|n| *n == 1), "{:?}", world.ledger());

    // Rolled back by two at once: once.
    let back = || world.runback(&["rollback", "twins"]).spawn().expect("starts");
    let codes: Vec<_> =
        [back(), back()].map(|c| c.wait_with_output().expect("ends")).iter().map(|o| o.status.code()).collect();
    assert!(codes.contains(&Some(0)) || codes.contains(&Some(3)), "{codes:?}");
    assert_eq!(world.show("twins").expect("the run")["status"], "rolled-back");
    assert!(!world.path("f2").exists());
}
