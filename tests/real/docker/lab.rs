//! A Docker daemon of our own for tests, and runback run against it. Knows no scenario.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// A daemon with folders, a socket and networks of its own. It ends, with all its containers, when it is dropped.
#[derive(Debug)]
pub(crate) struct Daemon {
    dir: tempfile::TempDir,
    child: Option<Child>,
}

fn missing() -> Option<String> {
    let there = |name: &str| {
        let found = |dir: PathBuf| dir.join(name).exists();
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(found)
            || Path::new("/usr/sbin").join(name).exists()
    };
    let lacking: Vec<&str> =
        ["docker", "dockerd", "docker-compose", "busybox"].into_iter().filter(|name| !there(name)).collect();
    if !lacking.is_empty() {
        return Some(format!(
            "{} not there: apt-get install docker.io docker-compose busybox-static",
            lacking.join(", ")
        ));
    }
    let id = Command::new("id").arg("-u").output().unwrap();
    (text(&id.stdout).trim() != "0").then(|| "a Docker daemon needs root".to_owned())
}

/// A daemon, or the reason why this test is skipped. In CI a reason is a failure.
pub(crate) fn daemon() -> Option<Daemon> {
    if let Some(why) = missing() {
        assert!(std::env::var_os("CI").is_none_or(|v| v.is_empty()), "{why}");
        eprintln!("SKIPPED: {why}");
        return None;
    }
    let mut daemon =
        Daemon { dir: tempfile::Builder::new().prefix("rb-docker-").tempdir_in("/tmp").unwrap(), child: None };
    daemon.start();
    Some(daemon)
}

impl Daemon {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.path("docker.sock").display())
    }

    pub(crate) fn start(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        let at = |name: &str| self.path(name).display().to_string();
        let child = Command::new("dockerd")
            // No rule and no bridge of the machine's own is touched; ports are published by docker-proxy.
            .args(["--bridge", "none", "--iptables=false", "--ip6tables=false"])
            .args([
                "--data-root",
                &at("data"),
                "--exec-root",
                &at("exec"),
                "--pidfile",
                &at("pid"),
                "--host",
                &self.host(),
            ])
            // A containerd that is slow to end is told to write its stacks there first.
            .env("TMPDIR", self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        until("the daemon answers", || self.tried(&["version"]).status.success());
    }

    /// As `systemctl stop docker` does: its containers end with it.
    pub(crate) fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let _ = Command::new("kill").arg(child.id().to_string()).status();
        let _ = child.wait();
    }

    pub(crate) fn tried(&self, words: &[&str]) -> Output {
        Command::new("docker").args(words).env("DOCKER_HOST", self.host()).stdin(Stdio::null()).output().unwrap()
    }

    pub(crate) fn docker(&self, words: &[&str]) -> String {
        let output = self.tried(words);
        assert!(output.status.success(), "docker {words:?}: {}", text(&output.stderr));
        text(&output.stdout).trim().to_owned()
    }

    /// `docker-compose` by hand, in a folder.
    pub(crate) fn compose(&self, dir: &Path, words: &[&str]) -> Output {
        let mut command = Command::new("docker-compose");
        command.args(words).current_dir(dir).env("DOCKER_HOST", self.host()).stdin(Stdio::null());
        command.output().unwrap()
    }

    /// An image with busybox in it and these lines more. The program is linked statically, so that nothing else is needed.
    pub(crate) fn image(&self, name: &str, lines: &str) {
        let context = self.path("context");
        std::fs::create_dir_all(&context).unwrap();
        let busybox = Command::new("sh").args(["-c", "command -v busybox"]).output().unwrap();
        std::fs::copy(text(&busybox.stdout).trim(), context.join("busybox")).unwrap();
        let file = format!(
            "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n{lines}\n"
        );
        std::fs::write(context.join("Dockerfile"), file).unwrap();
        self.docker(&["build", "--quiet", "--network", "none", "--tag", name, &context.display().to_string()]);
    }

    /// What `docker inspect` says of one container.
    pub(crate) fn inspect(&self, name: &str) -> Value {
        let all: Value = serde_json::from_str(&self.docker(&["inspect", "--type", "container", name])).unwrap();
        all[0].clone()
    }

    /// Names of all containers, sorted.
    pub(crate) fn containers(&self) -> Vec<String> {
        let mut all: Vec<String> =
            self.docker(&["ps", "--all", "--format", "{{.Names}}"]).lines().map(str::to_owned).collect();
        all.sort();
        all
    }

    /// Names of the networks that somebody made.
    pub(crate) fn networks(&self) -> Vec<String> {
        let all = self.docker(&["network", "ls", "--filter", "type=custom", "--format", "{{.Name}}"]);
        all.lines().map(str::to_owned).collect()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.child.is_none() {
            self.start();
        }
        // Bridges of networks outlive their daemon.
        let ids = text(&self.tried(&["ps", "--all", "--quiet"]).stdout);
        let ids: Vec<&str> = ids.split_whitespace().collect();
        if !ids.is_empty() {
            self.tried(&[&["rm", "--force", "--volumes"], &ids[..]].concat());
        }
        self.tried(&["network", "prune", "--force"]);
        self.stop();
    }
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    /// What `runback show --output json` says of it.
    pub(crate) show: Value,
    pub(crate) printed: String,
}

impl Ran {
    pub(crate) fn step(&self, id: &str) -> &Value {
        let steps = self.show["steps"].as_array().unwrap();
        steps.iter().find(|s| s["id"] == id).unwrap_or_else(|| panic!("no step {id}: {}", self.show))
    }

    /// The message of a step's error, and its help.
    pub(crate) fn error(&self, id: &str) -> String {
        let error = &self.step(id)["error"];
        assert!(error["message"].is_string(), "{id} did not fail: {}", self.printed);
        format!("{}\n{}", error["message"].as_str().unwrap(), error["help"].as_str().unwrap_or_default())
    }
}

/// runback with a folder and a state directory of its own.
#[derive(Debug)]
pub(crate) struct Runback {
    dir: tempfile::TempDir,
    env: Vec<(String, String)>,
}

impl Runback {
    pub(crate) fn new(daemon: &Daemon) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("bin")).unwrap();
        Self { dir, env: vec![("DOCKER_HOST".to_owned(), daemon.host())] }
    }

    /// Without a daemon.
    pub(crate) fn alone() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), env: Vec::new() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn put(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// For all that comes after.
    pub(crate) fn set_env(&mut self, name: &str, value: &str) {
        self.env.push((name.to_owned(), value.to_owned()));
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runback"));
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        command.args(words).arg("--state-dir").arg(self.path("state")).current_dir(self.dir.path());
        command.env("PATH", path).envs(self.env.iter().cloned()).stdin(Stdio::null());
        command
    }

    /// `run`, `resume` or `rollback`, to its end.
    pub(crate) fn ended(&self, run: &str, words: &[&str]) -> Ran {
        let output = self.command(words).output().unwrap();
        let printed = text(&output.stdout) + &text(&output.stderr);
        let show = self.command(&["show", run, "--output", "json"]).output().unwrap();
        let show = serde_json::from_slice(&show.stdout).unwrap_or_else(|e| panic!("{e}: {printed}"));
        Ran { code: output.status.code(), show, printed }
    }

    pub(crate) fn playbook(&self, name: &str, steps: &Value) -> String {
        let playbook = json!({"runback": 1, "name": name, "steps": steps});
        self.put(&format!("{name}.yaml"), &playbook.to_string()).to_string_lossy().into_owned()
    }

    /// A playbook of these steps, run to its end.
    pub(crate) fn run(&self, run: &str, steps: &Value) -> Ran {
        let file = self.playbook(run, steps);
        self.ended(run, &["run", &file, "--run-id", run, "--output", "lines"])
    }

    pub(crate) fn rollback(&self, run: &str) -> Ran {
        self.ended(run, &["rollback", run, "--output", "lines"])
    }

    /// From now on `docker-compose up`, once done, makes a file `held` and waits for one named `go`.
    pub(crate) fn hold_compose_up(&self) {
        let script = format!(
            "#!/bin/sh\n/usr/bin/docker-compose \"$@\"; code=$?\n\
             case \" $* \" in *' up '*) d={}; touch $d/held; until [ -e $d/go ]; do sleep 0.05; done;; esac\nexit $code\n",
            self.dir.path().display()
        );
        let path = self.put("bin/docker-compose", &script);
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }

    /// From now on `docker compose` is version 2, as far as its recordings go.
    pub(crate) fn use_compose_2(&self) {
        let script = include_str!("compose2");
        let path = self.put("bin/docker", script);
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }

    /// Every file below a folder with its hash.
    pub(crate) fn listing(&self, dir: &str) -> String {
        listing(&self.path(dir))
    }
}

/// Every file below a folder with mode, owner and hash.
pub(crate) fn listing(dir: &Path) -> String {
    let script = "find . -printf '%p %y %m %U:%G %l\\n' | sort; find . -type f -exec sha256sum {} + | sort -k2";
    let output = Command::new("sh").args(["-c", script]).current_dir(dir).output().unwrap();
    text(&output.stdout)
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A port that is free, and that nobody gets meanwhile: below those that the kernel gives out by itself, and by the process,
/// so that two tests do not meet.
pub(crate) fn free_port() -> u16 {
    static TURN: AtomicU32 = AtomicU32::new(0);
    loop {
        let turn = std::process::id() % 2_500 * 8 + TURN.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(10_000 + turn % 20_000).unwrap();
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Waits until something is so, and fails after four minutes.
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(240);
    while !so() {
        assert!(Instant::now() < end, "still not so after four minutes: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
