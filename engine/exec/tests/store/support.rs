//! Events to store, runs to make, and child processes that play a role.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;

use runback_core::event::{Created, Event, EventBody, FORMAT, Outcome, PlaybookText, RunOptions};
use runback_exec::store::{Commits, Lease, MemoryStore, SqliteStore, Store, StoreError};
use serde_json::json;

pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

pub(crate) fn created_by(run: &str, playbook: &str, at: u64) -> Event {
    let body = EventBody::RunCreated(Box::new(Created {
        format: FORMAT,
        version: "0.1.0".into(),
        run: run.into(),
        playbook: playbook.into(),
        texts: vec![PlaybookText { name: "p.yaml".into(), text: "steps: []\n".repeat(50) }],
        base: "/srv".into(),
        digest: "d".into(),
        inputs: json!({ "host": "ops1", "ü": [1, 2.5, null] }),
        by: "ann@ops1".into(),
        from: "terminal".into(),
        options: RunOptions::default(),
    }));
    Event { seq: 1, at, body }
}

pub(crate) fn created(run: &str) -> Event {
    created_by(run, "p", 1_000)
}

pub(crate) fn step(seq: u64) -> Event {
    let body = EventBody::AttemptSucceeded {
        step: format!("step-{seq}").into(),
        attempt: 1,
        changed: true,
        outputs: json!({ "n": seq }),
        masked: Vec::new(),
    };
    Event { seq, at: 1_000 + seq, body }
}

pub(crate) fn finished(seq: u64, outcome: Outcome) -> Event {
    Event {
        seq,
        at: 1_000 + seq,
        body: EventBody::RunFinished {
            outcome,
            outputs: json!(null),
            output_errors: std::collections::BTreeMap::new(),
        },
    }
}

pub(crate) async fn append_steps(
    store: &dyn Store,
    lease: &Lease,
    seqs: std::ops::RangeInclusive<u64>,
) -> Result<(), StoreError> {
    store.append(lease, seqs.map(step).collect()).await
}

/// Runs a test in memory, and on disk with both kinds of commits.
pub(crate) fn each<F: Future<Output = ()>>(test: impl Fn(Arc<dyn Store>) -> F) {
    block_on(test(Arc::new(MemoryStore::new())));
    for commits in [Commits::OnThread, Commits::OnCaller] {
        let dir = tempfile::tempdir().expect("a folder");
        let store = SqliteStore::open_with(&dir.path().join("state"), commits).expect("the store opens");
        block_on(test(Arc::new(store)));
    }
}

pub(crate) fn open(dir: &Path) -> SqliteStore {
    SqliteStore::open(dir).expect("the store opens")
}

/// A child that plays a role; killed and reaped when it is dropped.
pub(crate) struct Role {
    pub(crate) child: Child,
    pub(crate) input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

const ROLE: &str = "RUNBACK_STORE_TEST_ROLE";
const MARK: &str = "::";

impl Role {
    pub(crate) fn command(exe: &Path, role: &str, args: &[&str]) -> Command {
        let mut command = Command::new(exe);
        command
            .args(["--ignored", "--exact", "child", "--nocapture", "--test-threads=1"])
            .env(ROLE, std::iter::once(role).chain(args.iter().copied()).collect::<Vec<_>>().join("\n"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        command
    }

    pub(crate) fn start(role: &str, args: &[&str]) -> Self {
        Self::spawn(Self::command(&std::env::current_exe().expect("our own path"), role, args))
    }

    pub(crate) fn spawn(mut command: Command) -> Self {
        let mut child = command.spawn().expect("the child starts");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, input, output }
    }

    /// What it says next; None when it is over.
    pub(crate) fn hear(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            // A line that is not whole is one that it was killed in.
            if self.output.read_line(&mut line).expect("a pipe") == 0 || !line.ends_with('\n') {
                return None;
            }
            // The test harness may have begun the line.
            if let Some((_, said)) = line.split_once(MARK) {
                return Some(said.trim_end().to_owned());
            }
        }
    }

    pub(crate) fn hear_all(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.hear()).collect()
    }

    pub(crate) fn tell(&mut self) {
        self.input.as_mut().expect("its input is open").write_all(b"\n").expect("it listens");
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it can be waited for");
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody hears it any more: then there is nothing to do but go.
    if writeln!(out, "{MARK}{text}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Until the parent says something; false when it closed its end.
pub(crate) fn listen() -> bool {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).is_ok_and(|read| read > 0)
}

pub(crate) fn play_role() {
    let role = std::env::var(ROLE).expect("only the tests beside it start this one");
    let words: Vec<&str> = role.split('\n').collect();
    match words.as_slice() {
        ["writer", dir] => crate::processes::writer(Path::new(dir)),
        ["racer", dir, how] => crate::processes::racer(Path::new(dir), how),
        ["locker", dir, run, name] => crate::processes::locker(Path::new(dir), run, name),
        ["opener", dir] => crate::processes::opener(Path::new(dir)),
        ["fault", dir, control] => crate::faults::scenario(Path::new(dir), Path::new(control)),
        other => panic!("no such role: {other:?}"),
    }
}
