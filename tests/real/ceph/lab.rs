//! A real Ceph cluster for tests, and runback run against it. Knows no scenario.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real/ceph").join(name)
}

/// A cluster. Its daemons end, and its folder goes, with this process.
#[derive(Debug)]
pub(crate) struct Cluster {
    dir: PathBuf,
}

/// Why there is none.
#[derive(Debug)]
struct Missing(String);

impl Cluster {
    fn start(store: &str) -> Result<Self, Missing> {
        // Short: Ceph's sockets lie in it, and their paths may have 107 bytes.
        let dir = tempfile::Builder::new().prefix("runback-ceph-").tempdir_in("/tmp").unwrap().keep();
        let cluster = Self { dir };
        let output = cluster.up(store);
        if output.status.code() == Some(3) {
            std::fs::remove_dir_all(&cluster.dir).unwrap();
            return Err(Missing(text(&output.stderr)));
        }
        assert!(output.status.success(), "{}", text(&output.stderr));
        tell(text(&output.stderr).trim_end());
        cluster.ceph(&["auth", "get-or-create", "client.reader", "mon", "allow r", "osd", "allow rwx"]);
        // May fence one address, which is not that of any lock: then `rbd lock rm` is refused, after the fence.
        let fence = r#"allow r, allow command "osd blocklist" with addr regex "10[.]255[.].*""#;
        cluster.ceph(&["auth", "get-or-create", "client.fencer", "mon", fence, "osd", "allow rwx"]);
        for user in ["reader", "fencer"] {
            let keyring = cluster.keyring(user);
            cluster.ceph(&["auth", "get", &format!("client.{user}"), "-o", &keyring]);
        }
        Ok(cluster)
    }

    fn up(&self, store: &str) -> Output {
        let mut up = Command::new(script("up"));
        up.arg(&self.dir).arg("rbd").env("CEPH_STORE", store).env("CEPH_OWNER", std::process::id().to_string());
        up.stdin(Stdio::null()).output().unwrap()
    }

    /// As after a power cut and the machine's return. Needs a store that is on disk.
    pub(crate) fn start_again(&self) {
        let mut up = Command::new(script("up"));
        let output = up.arg(&self.dir).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
    }

    pub(crate) fn kill(&self) {
        assert!(Command::new(script("down")).arg(&self.dir).arg("KILL").status().unwrap().success());
    }

    pub(crate) fn conf(&self) -> String {
        self.dir.join("ceph.conf").to_string_lossy().into_owned()
    }

    pub(crate) fn keyring(&self, user: &str) -> String {
        self.dir.join(format!("{user}.keyring")).to_string_lossy().into_owned()
    }

    fn tool(&self, program: &str, words: &[&str]) -> Output {
        let mut command = Command::new(program);
        command.args(["--conf", &self.conf()]).args(words).env_remove("CEPH_ARGS").stdin(Stdio::null());
        command.output().unwrap()
    }

    pub(crate) fn ceph(&self, words: &[&str]) -> String {
        done("ceph", &self.tool("ceph", &[&["--connect-timeout", "30"], words].concat()))
    }

    pub(crate) fn rbd(&self, words: &[&str]) -> String {
        done("rbd", &self.tool("rbd", &[&["--client-mount-timeout=30"], words].concat()))
    }

    fn read(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.rbd(&[words, &["--format", "json"]].concat())).unwrap()
    }

    pub(crate) fn locks(&self, image: &str) -> Value {
        self.read(&["lock", "ls", image])
    }

    pub(crate) fn watchers(&self, image: &str) -> Value {
        self.read(&["status", image])["watchers"].clone()
    }

    /// The first byte of an image that a client wrote to.
    pub(crate) fn first_byte(&self, image: &str) -> char {
        let output = self.tool("rbd", &["--client-mount-timeout=30", "export", "--no-progress", image, "-"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        char::from(output.stdout[0])
    }

    pub(crate) fn snaps(&self, image: &str) -> Value {
        self.read(&["snap", "ls", image])
    }

    /// Waits until the OSD map of the monitors is that of every placement group: each takes it up by itself.
    pub(crate) fn until_maps_agree(&self) {
        let read = |words: &[&str]| -> Value { serde_json::from_str(&self.ceph(words)).unwrap() };
        let map = read(&["osd", "dump", "--format", "json"]);
        for pool in map["pools"].as_array().unwrap() {
            for group in 0..pool["pg_num"].as_u64().unwrap() {
                let group = format!("{}.{group:x}", pool["pool"]);
                until("a placement group has the map", || {
                    read(&["tell", &group, "query"])["epoch"].as_u64() >= map["epoch"].as_u64()
                });
            }
        }
    }

    pub(crate) fn blocklist(&self) -> Value {
        let map: Value = serde_json::from_str(&self.ceph(&["osd", "dump", "--format", "json"])).unwrap();
        map["blocklist"].clone()
    }

    /// Everything that a runbook about this image may change.
    pub(crate) fn state(&self, image: &str) -> Value {
        json!([self.locks(image), self.watchers(image), self.snaps(image), self.blocklist()])
    }

    pub(crate) fn image(&self, name: &str, features: &str) {
        self.rbd(&["create", "--size", "8M", "--image-feature", features, name]);
    }

    /// As kubelet's old RBD plugin has it: no feature but layering, and a lock taken by hand. Returns the lock.
    pub(crate) fn stuck(&self, name: &str, node: &str) -> Value {
        self.image(name, "layering");
        self.rbd(&["lock", "add", name, &format!("kubelet_lock_magic_{node}")]);
        self.locks(name)[0].clone()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn done(program: &str, output: &Output) -> String {
    assert!(output.status.success(), "{program}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn signal(name: &str, pid: &str) {
    assert!(Command::new("kill").args(["-s", name, pid]).status().unwrap().success());
}

/// Such as which packages were installed.
#[expect(clippy::print_stderr, reason = "a test that is skipped must not look like one that passed")]
fn tell(what: &str) {
    if !what.is_empty() {
        eprintln!("{what}");
    }
}

fn or_skip(started: &'static Result<Cluster, Missing>) -> Option<&'static Cluster> {
    match started {
        Ok(cluster) => Some(cluster),
        Err(Missing(why)) => {
            assert!(std::env::var_os("CI").is_none(), "Ceph is missing: {why}");
            tell(&format!("SKIPPED, nothing was tested: {why}"));
            None
        }
    }
}

/// The cluster that all tests of this process share. None, where Ceph cannot be had: the test is skipped, and says so.
pub(crate) fn shared() -> Option<&'static Cluster> {
    static SHARED: OnceLock<Result<Cluster, Missing>> = OnceLock::new();
    or_skip(SHARED.get_or_init(|| Cluster::start("memstore")))
}

/// A cluster of one's own, that survives a kill.
pub(crate) fn own() -> Option<&'static Cluster> {
    or_skip(Box::leak(Box::new(Cluster::start("bluestore"))))
}

/// A client that has an image open, in a process of its own.
#[derive(Debug)]
pub(crate) struct Client {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Client {
    pub(crate) fn open(cluster: &Cluster, image: &str) -> Self {
        let mut command = Command::new("/usr/bin/python3");
        command.arg(script("client.py")).args([&cluster.conf(), "rbd", image]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut client = Self { child, stdin, stdout };
        assert_eq!(client.answer(), "open");
        client
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// `write`, `overwrite` or `lock`; `ok`, or what went wrong, or nothing when it died of it.
    pub(crate) fn ask(&mut self, what: &str) -> String {
        writeln!(self.stdin, "{what}").unwrap();
        self.answer()
    }

    pub(crate) fn pause(&self) {
        signal("STOP", &self.child.id().to_string());
    }

    pub(crate) fn wake(&self) {
        signal("CONT", &self.child.id().to_string());
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) took: Duration,
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

/// Where a removal of a lock is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    Before,
    /// It is done, and its answer has not come yet.
    After,
}

/// runback with a state directory of its own.
#[derive(Debug)]
pub(crate) struct Runback {
    dir: tempfile::TempDir,
}

impl Runback {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("bin")).unwrap();
        std::os::unix::fs::symlink(script("kubectl"), dir.path().join("bin/kubectl")).unwrap();
        Self { dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runback"));
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        command.args(words).arg("--state-dir").arg(self.path("state"));
        command.env("PATH", path).env("KUBE_STAND_IN", self.dir.path());
        command.env_remove("CEPH_ARGS").env_remove("CEPH_CONF").stdin(Stdio::null());
        command
    }

    /// `run` or `resume`, to its end.
    pub(crate) fn ended(&self, run: &str, words: &[&str]) -> Ran {
        let began = Instant::now();
        let output = self.command(words).output().unwrap();
        let took = began.elapsed();
        let printed = text(&output.stdout) + &text(&output.stderr);
        let show = self.command(&["show", run, "--output", "json"]).output().unwrap();
        let show = serde_json::from_slice(&show.stdout).unwrap_or_else(|e| panic!("{e}: {printed}"));
        Ran { code: output.status.code(), took, show, printed }
    }

    pub(crate) fn write(&self, name: &str, playbook: &Value) -> String {
        let path = self.path(&format!("{name}.yaml"));
        std::fs::write(&path, playbook.to_string()).unwrap();
        path.to_string_lossy().into_owned()
    }

    /// A playbook of these steps, run to its end.
    pub(crate) fn run(&self, run: &str, steps: &Value) -> Ran {
        let file = self.write(run, &json!({"runback": 1, "name": run, "steps": steps}));
        self.ended(run, &["run", &file, "--run-id", run, "--output", "lines"])
    }

    /// The playbook that ships, about one image of a cluster; `more` are `-i` values.
    pub(crate) fn unlock(&self, run: &str, cluster: &Cluster, image: &str, more: &[&str]) -> Ran {
        let words = [&["run", "--run-id", run, "--output", "lines"], &Self::unlock_words(cluster, image, more)[..]];
        let words: Vec<&str> = words.concat();
        self.ended(run, &words)
    }

    pub(crate) fn plan(&self, cluster: &Cluster, image: &str, more: &[&str]) -> Output {
        let words: Vec<&str> = [&["plan"], &Self::unlock_words(cluster, image, more)[..]].concat();
        self.command(&words).output().unwrap()
    }

    fn unlock_words<'a>(cluster: &Cluster, image: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/playbooks/rbd-stuck-lock.yaml");
        let leak = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
        let own = [
            leak(format!("image={image}")),
            leak(format!("conf={}", cluster.conf())),
            "node=node1",
            "node_address=10.255.0.7",
            "selector=app=index-api",
            "second_look=1s",
            "fence_spreads=1s",
        ];
        let mut words = vec![file];
        for pair in own.iter().chain(more) {
            words.extend(["-i", pair]);
        }
        words
    }

    /// From now on a removal makes a file `held`, and waits for one named `go`; `removals` gets a line for each.
    pub(crate) fn hold_the_removal(&self, hold: Hold) {
        let wait = "touch $d/held; until [ -e $d/go ]; do sleep 0.05; done";
        let act = match hold {
            Hold::Before => format!("{wait}; exec /usr/bin/rbd \"$@\""),
            Hold::After => format!("/usr/bin/rbd \"$@\"; code=$?; {wait}; exit $code"),
        };
        let script = format!(
            "#!/bin/sh\nd=$KUBE_STAND_IN\ncase \"$*\" in *'lock rm'*) echo \"$*\" >>$d/removals; {act};; esac\n\
             exec /usr/bin/rbd \"$@\"\n"
        );
        let path = self.path("bin/rbd");
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }

    /// What kubectl was asked.
    pub(crate) fn asked(&self) -> String {
        std::fs::read_to_string(self.path("asked")).unwrap_or_default()
    }
}

/// Waits until something is so, and fails after four minutes.
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(240);
    while !so() {
        assert!(Instant::now() < end, "still not so after four minutes: {what}");
        std::thread::sleep(Duration::from_millis(200));
    }
}
