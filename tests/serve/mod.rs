//! `runback serve` from outside: a server of its own for each test, and a client that speaks plain HTTP. Nothing here
//! looks into the program.

#![expect(clippy::print_stdout, reason = "a skipped test says so")]

mod access;
mod api;
mod approvals;
mod both;
mod export;
mod limits;
mod oracle;
mod overlap;
mod records;
mod runs;
mod schedules;
mod tls;
mod traces;
mod turns;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value as Json;

/// How long a test waits for something that must come.
const PATIENCE: Duration = Duration::from_secs(120);

/// A state folder, a folder of playbooks, and perhaps a server over them. All of it goes at the end.
struct Place {
    dir: tempfile::TempDir,
}

struct Server {
    child: Child,
    address: String,
    /// Keeps reading what the server says, so that it never waits for us.
    log: std::thread::JoinHandle<String>,
}

/// What the server answered.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Json {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e}: {} {}", self.status, String::from_utf8_lossy(&self.body)))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(dir.path().join("playbooks")).expect("a folder");
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn playbook(&self, id: &str, text: &str) {
        let path = self.path(&format!("playbooks/{id}.yaml"));
        std::fs::create_dir_all(path.parent().expect("it is in a folder")).expect("a folder");
        // As an editor does: there is never half of it.
        let draft = path.with_extension("draft");
        std::fs::write(&draft, text).expect("a playbook");
        std::fs::rename(draft, path).expect("a playbook");
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runback"));
        command.current_dir(self.dir.path()).args(arguments).env("RUNBACK_STATE_DIR", self.path("state"));
        command.env("USER", "tester").env("NO_COLOR", "1").env("TZ", "UTC").stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().expect("runback runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {said}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    fn json(&self, arguments: &[&str]) -> Json {
        serde_json::from_str(&self.run(&[arguments, &["--output", "json"]].concat())).expect("JSON")
    }

    /// `schedule backfill`, not started yet.
    fn backfill(&self, key: &str, from: &str, to: &str) -> Command {
        self.command(&[
            "schedule",
            "backfill",
            key,
            "--playbooks",
            "playbooks",
            "--from",
            from,
            "--to",
            to,
            "--no-input",
        ])
    }

    fn token(&self, name: &str, roles: &str) -> String {
        self.run(&["token", "create", name, "--role", roles]).trim().to_owned()
    }

    fn serve(&self, more: &[&str]) -> Server {
        let arguments = [&["serve", "--listen", "127.0.0.1:0", "--playbooks", "playbooks"], more].concat();
        let mut child =
            self.command(&arguments).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it starts");
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut said = String::new();
        let address = loop {
            let mut line = String::new();
            let read = lines.read_line(&mut line).expect("it says something");
            assert!(read > 0, "the server ended: {said}");
            said.push_str(&line);
            let line: Json = serde_json::from_str(&line).unwrap_or_else(|e| panic!("no JSON line: {e}: {line}"));
            if let Some(address) = line["address"].as_str() {
                break address.trim_start_matches("https://").trim_start_matches("http://").to_owned();
            }
        };
        let log = std::thread::spawn(move || {
            // A server that is killed ends in the middle of a line.
            let _ = lines.read_to_string(&mut said);
            said
        });
        Server { child, address, log }
    }
}

impl Server {
    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.try_ask(method, path, headers, body).unwrap_or_else(|e| panic!("{method} {path}: {e}"))
    }

    fn try_ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> std::io::Result<Answer> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.address);
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
        stream.write_all(request.as_bytes())?;
        let mut all = Vec::new();
        stream.read_to_end(&mut all)?;
        let bad = || std::io::Error::other("no HTTP answer");
        let end = all.windows(4).position(|w| w == b"\r\n\r\n").ok_or_else(bad)?;
        let head = String::from_utf8_lossy(&all[..end]).into_owned();
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or_else(bad)?;
        let answer = Answer { status, head, body: all.split_off(end + 4) };
        // Whoever is told that it cannot be done is told what to do, whatever was asked.
        if matches!(status, 409 | 422 | 503) {
            let help = answer.json()["error"]["help"].as_str().map(str::to_owned).unwrap_or_default();
            assert!(!help.is_empty(), "{method} {path}: {}", answer.json());
            assert_eq!(answer.header("Retry-After").is_some(), status == 503, "{method} {path}: {}", answer.head);
        }
        Ok(answer)
    }

    fn get(&self, token: &str, path: &str) -> Json {
        let answer = self.ask("GET", path, &[("Authorization", &format!("Bearer {token}"))], "");
        assert_eq!(answer.status, 200, "GET {path}: {}", String::from_utf8_lossy(&answer.body));
        answer.json()
    }

    fn post(&self, token: &str, path: &str, body: &Json) -> Answer {
        self.ask("POST", path, &[("Authorization", &format!("Bearer {token}"))], &body.to_string())
    }

    /// The stream of a run's events, from its head on.
    fn stream(&self, token: &str, run: &str, last_id: Option<u64>) -> Events {
        let mut stream = TcpStream::connect(&self.address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let last = last_id.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        let request = format!(
            "GET /api/v1/runs/{run}/stream HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\n{last}\r\n",
            self.address
        );
        stream.write_all(request.as_bytes()).expect("it reads");
        Events(BufReader::new(stream))
    }

    fn wait_for(&self, token: &str, run: &str, status: &str) -> Json {
        let until = Instant::now() + PATIENCE;
        loop {
            let seen = self.get(token, &format!("/api/v1/runs/{run}"));
            if seen["status"] == status {
                return seen;
            }
            assert!(Instant::now() < until, "run {run} does not become {status}: {seen}");
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(status.expect("kill runs").success());
    }

    /// What it said, and how it ended.
    fn end(mut self, signal: &str) -> (Option<i32>, String) {
        self.signal(signal);
        let status = self.child.wait().expect("it ends");
        let log = std::mem::replace(&mut self.log, std::thread::spawn(String::new)).join().expect("its log");
        (status.code(), log)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Server-sent events, one after the other.
struct Events(BufReader<TcpStream>);

impl Events {
    fn next(&mut self) -> Option<Json> {
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if let Some(data) = line.strip_prefix("data: ") {
                return Some(serde_json::from_str(data).expect("an event is JSON"));
            }
        }
    }

    /// All up to one of this type.
    fn until(&mut self, kind: &str) -> Vec<Json> {
        let mut all = Vec::new();
        loop {
            let event = self.next().unwrap_or_else(|| panic!("the stream ended before {kind}: {all:?}"));
            let found = event["type"] == kind;
            all.push(event);
            if found {
                return all;
            }
        }
    }
}

/// Looks again until there is something, or says what there is not.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A Python with what the tests of this folder need from PyPI; `./test` makes it. Where it is not there, what needs it
/// is skipped, and in CI that is a failure.
fn python() -> Option<PathBuf> {
    let given = std::env::var_os("RUNBACK_TEST_PYTHON").map(PathBuf::from).filter(|p| Path::new(p).exists());
    if given.is_none() {
        let why = "RUNBACK_TEST_PYTHON names no Python with cronsim, tzdata, schemathesis, opentelemetry-proto and prometheus-client: ./test makes one";
        assert!(std::env::var_os("CI").is_none(), "{why}");
        println!("SKIPPED, nothing was tested: {why}");
    }
    given
}
