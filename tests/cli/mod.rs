//! What the binary prints, verb by verb, as a person or a program sees it: the exact text of stdout and stderr and the
//! exit code, with ids, times and places taken out. Nothing here looks into the program.

mod guards;
mod history;
mod output;
mod place;
mod plan;
mod run;
mod schema;
mod simulate;
mod used;
mod waiting;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use regex::Regex;
use serde_json::Value as Json;

/// A folder of its own with a state folder in it; both go at the end.
struct Desk {
    dir: tempfile::TempDir,
}

/// What a command said.
struct Said {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Desk {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary folder") }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, text).expect("a file in the temporary folder");
        path
    }

    fn read(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.path().join(name)).ok()
    }

    /// The binary in this folder. Nothing of the caller's environment changes what it does.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runback"));
        command.current_dir(self.path()).args(arguments).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("NO_COLOR", "1").env("COLUMNS", "100").env("USER", "tester").env("TZ", "UTC").env("TERM", "dumb");
        command.env("RUNBACK_STATE_DIR", self.path().join("state")).stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Said {
        let output = self.command(arguments).output().expect("the binary runs");
        let text = |bytes| String::from_utf8(bytes).expect("runback writes UTF-8");
        Said { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// A command in the background; killed when it is dropped.
    fn start(&self, arguments: &[&str]) -> Running {
        let child = self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        Running(Some(child.expect("the binary starts")))
    }

    fn json(&self, arguments: &[&str]) -> Json {
        let said = self.run(&[arguments, &["--output", "json"]].concat());
        serde_json::from_str(&said.stdout)
            .unwrap_or_else(|e| panic!("{arguments:?}: {e}\n{}\n{}", said.stdout, said.stderr))
    }

    /// The command, all that it said, and its exit code.
    fn told(&self, arguments: &[&str]) -> String {
        self.redact(&format!("$ runback {}\n{}", arguments.join(" "), self.run(arguments).all()))
    }

    /// What is not the same twice.
    fn redact(&self, text: &str) -> String {
        let dir = self.path().to_string_lossy().into_owned();
        let text = text.replace(&dir, "[dir]");
        REDACTIONS.iter().fold(text, |text, (what, with)| what.replace_all(&text, *with).into_owned())
    }

    /// Waits until a command says something.
    fn wait_until(&self, arguments: &[&str], wanted: &str) {
        let until = Instant::now() + Duration::from_secs(120);
        loop {
            let said = self.run(arguments);
            if said.stdout.contains(wanted) {
                return;
            }
            assert!(Instant::now() < until, "{arguments:?} never said {wanted}\n{}", said.all());
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// Waits until a run is in a state, as `runback show` says it.
    fn wait_for(&self, run: &str, wanted: &str) {
        let until = Instant::now() + Duration::from_secs(120);
        loop {
            let said = self.run(&["show", run, "--output", "json"]);
            let status = serde_json::from_str::<Json>(&said.stdout).ok().map(|j| j["status"].clone());
            if status.as_ref().is_some_and(|s| s == wanted) {
                return;
            }
            assert!(Instant::now() < until, "run {run} is {status:?}, not {wanted}\n{}", said.stderr);
            std::thread::sleep(Duration::from_millis(30));
        }
    }
}

/// The lease of a run, as a process has it that does nothing.
pub(crate) fn lease_of(state_dir: &Path, run: &str) -> std::fs::File {
    let path = state_dir.join(format!("leases/{run}.lock"));
    let owner = serde_json::json!({ "user": "u", "host": "h", "pid": std::process::id(), "since": 1 });
    std::fs::write(&path, owner.to_string()).expect("it can be done");
    let held = std::fs::File::open(&path).expect("it can be done");
    held.lock().expect("nobody has it");
    held
}

/// How many requests nobody has heard yet.
pub(crate) fn requests(state_dir: &Path) -> i64 {
    let store = rusqlite::Connection::open(state_dir.join("journal.db")).expect("a store");
    store.query_row("SELECT count(*) FROM requests", [], |row| row.get(0)).unwrap_or(-1)
}

static REDACTIONS: LazyLock<Vec<(Regex, &'static str)>> = LazyLock::new(|| {
    let rules = [
        (r"\b20\d{6}-\d{4}-[2-9a-z]{4}\b", "[run]"),
        (r"\b20\d\d-\d\d-\d\d \d\d:\d\d:\d\d\b", "[date]"),
        (r"\b\d\d:\d\d:\d\d\b", "[clock]"),
        // Said of a step that has run for two seconds: on a busy machine that is any.
        (r"(?m)^\[clock\] ● .* runs(, attempt \d+)?\n", ""),
        (r"\btester@\S+\b, process \d+", "[owner]"),
        (r"\btester@[A-Za-z0-9.-]+\b", "[user]"),
        (r"\(\d+ ms\)", "([took])"),
        (r" +\b(\d+ms|\d+\.\ds|\d\d?s|\d+m\d\ds)", " [took]"),
        // In a column its padding depends on how long it took.
        (r"\[took\] {2,}", "[took]  "),
        (r" +\n", "\n"),
    ];
    rules.map(|(what, with)| (Regex::new(what).expect("a regular expression"), with)).into_iter().collect()
});

impl Said {
    fn all(&self) -> String {
        let mut all = self.stdout.clone();
        for line in self.stderr.lines() {
            all.push_str(&format!("2> {line}\n"));
        }
        let code = self.code.map_or_else(|| "a signal".to_owned(), |c| c.to_string());
        format!("{all}exit {code}\n")
    }
}

struct Running(Option<Child>);

impl Running {
    fn id(&self) -> u32 {
        self.0.as_ref().expect("it was not waited for").id()
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.id().to_string()]).status();
        assert!(status.expect("kill runs").success());
    }

    fn finish(mut self) -> Said {
        let output = self.0.take().expect("it was not waited for").wait_with_output().expect("it ends");
        let text = |bytes| String::from_utf8(bytes).expect("runback writes UTF-8");
        Said { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Two files, a check that can be made to fail, and a note at the end.
const RELEASE: &str = r#"runback: 1
name: release
description: Writes two files and checks them.
inputs:
  version: { type: integer, description: What is released }
  broken:  { type: boolean, default: false }
outputs:
  file: "{{ steps.write.outputs.path }}"
steps:
  - id: write
    uses: file.write
    with: { path: release.txt, content: "version {{ inputs.version }}\n" }
  - id: mark
    uses: file.write
    with: { path: mark.txt, content: "marked\n" }
  - id: verify
    run: |
      echo looking at it >&2
      if [ "$BROKEN" = true ]; then echo it is broken >&2; exit 7; fi
    env: { BROKEN: "{{ inputs.broken }}" }
    on_interrupt: rerun
  - id: extra
    run: echo extra
    when: inputs.version > 10
finally:
  - id: note
    run: echo {{quote run.status}} > ended.txt
"#;

#[test]
fn a_column_of_times_is_redacted_whatever_its_padding() {
    let desk = Desk::new();
    for took in ["9ms   ", "45ms  ", "0.1s  ", "12s   ", "1m02s  "] {
        assert_eq!(desk.redact(&format!("good  {took}tester@host\n")), "good [took]  [user]\n");
    }
}

#[test]
fn that_a_step_runs_on_is_redacted() {
    let told = "10:00:00 ▶ run a\n10:00:02 ● nap runs\n10:00:04 ● nap runs, attempt 2\n10:00:05 ✓ nap\n";
    assert_eq!(Desk::new().redact(told), "[clock] ▶ run a\n[clock] ✓ nap\n");
}
