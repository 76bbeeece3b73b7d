//! A libvirtd of the test's own, and runback run against it. Knows no scenario.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub(crate) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real/virt").join(name)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[expect(clippy::print_stderr, reason = "a test that is skipped must not look like one that passed")]
fn tell(what: &str) {
    if !what.is_empty() {
        eprintln!("{what}");
    }
}

/// A libvirtd, and runback with a state directory of its own. It ends, and its folder goes, with this value, or with
/// this process.
#[derive(Debug)]
pub(crate) struct Lab {
    dir: PathBuf,
    pub(crate) uri: String,
    fake: bool,
}

impl Drop for Lab {
    fn drop(&mut self) {
        let down = Command::new(script("down")).arg(&self.dir).stdin(Stdio::null()).status();
        assert!(down.is_ok_and(|s| s.success()) || std::thread::panicking(), "libvirtd does not end");
        std::fs::remove_dir_all(&self.dir).unwrap_or_else(|e| tell(&format!("{}: {e}", self.dir.display())));
    }
}

impl Lab {
    /// With libvirt's test driver. None = it cannot be had; said so.
    pub(crate) fn fake() -> Option<Self> {
        Self::start(true)
    }

    /// With QEMU.
    pub(crate) fn real() -> Option<Self> {
        Self::start(false)
    }

    fn start(fake: bool) -> Option<Self> {
        // Short: libvirt's sockets lie in it, and their paths may have 107 bytes.
        let dir = tempfile::Builder::new().prefix("rbvirt-").tempdir_in("/tmp").unwrap().keep();
        let mut up = Command::new(script("up"));
        if fake {
            up.arg("--fake");
        }
        let output =
            up.arg(&dir).env("VIRT_OWNER", std::process::id().to_string()).stdin(Stdio::null()).output().unwrap();
        if output.status.code() == Some(3) {
            std::fs::remove_dir_all(&dir).unwrap();
            let why = text(&output.stderr);
            assert!(std::env::var_os("CI").is_none(), "libvirt is missing: {why}");
            tell(&format!("SKIPPED, nothing was tested: {why}"));
            return None;
        }
        assert!(output.status.success(), "{}", text(&output.stderr));
        tell(text(&output.stderr).trim_end());
        let uri = text(&output.stdout).trim().to_owned();
        for folder in ["work", "bin", "tmp"] {
            std::fs::create_dir(dir.join(folder)).unwrap();
        }
        Some(Self { dir, uri, fake })
    }

    /// A path in the lab's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_string_lossy().into_owned()
    }

    /// In the network of libvirtd: what is on its bridges can be reached from there.
    pub(crate) fn inside(&self, program: &str) -> Command {
        if self.fake {
            return Command::new(program);
        }
        let pid = std::fs::read_to_string(self.path("libvirtd.pid")).unwrap();
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", pid.trim())).arg(program);
        command
    }

    pub(crate) fn try_virsh(&self, words: &[&str]) -> Output {
        let mut command = Command::new("virsh");
        command.args(["-q", "-c", &self.uri]).args(words).env("LC_ALL", "C").stdin(Stdio::null());
        command.output().unwrap()
    }

    pub(crate) fn virsh(&self, words: &[&str]) -> String {
        let output = self.try_virsh(words);
        assert!(output.status.success(), "virsh {words:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// `running`, `shut off`, … or `gone`.
    pub(crate) fn state(&self, domain: &str) -> String {
        let output = self.try_virsh(&["domstate", domain]);
        if output.status.success() { text(&output.stdout).trim().to_owned() } else { "gone".to_owned() }
    }

    /// One line of `virsh dominfo`.
    pub(crate) fn info(&self, domain: &str, key: &str) -> String {
        let text = self.virsh(&["dominfo", domain]);
        let line = text.lines().find(|l| l.starts_with(key)).unwrap_or_else(|| panic!("{key}: {text}"));
        line.split_once(':').unwrap().1.trim().to_owned()
    }

    pub(crate) fn define(&self, xml: &str) {
        let path = self.path("work/define.xml");
        std::fs::write(&path, xml).unwrap();
        self.virsh(&["define", &path.to_string_lossy()]);
        std::fs::remove_file(path).unwrap();
    }

    /// A program that stands before the real one of that name.
    pub(crate) fn program(&self, name: &str, script: &str) {
        let path = self.path("bin").join(name);
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }

    pub(crate) fn runback(&self, words: &[&str]) -> Command {
        self.dressed(self.inside(env!("CARGO_BIN_EXE_runback")), words)
    }

    /// The same on a machine that a line of shell has altered: its mounts are seen there only.
    pub(crate) fn altered(&self, alter: &str, words: &[&str]) -> Command {
        let mut command = self.inside("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-euc", &format!("{alter}\nexec \"$@\""), "sh"]);
        command.arg(env!("CARGO_BIN_EXE_runback"));
        self.dressed(command, words)
    }

    /// The same on a terminal of its own; what it draws comes out.
    pub(crate) fn on_a_terminal(&self, words: &[&str]) -> Command {
        let plain = self.runback(words);
        let line: Vec<_> =
            [plain.get_program()].into_iter().chain(plain.get_args()).map(|w| w.to_str().unwrap()).collect();
        let mut command = Command::new("script");
        command.args(["-qefc", &format!("stty cols 160 rows 40; exec {}", line.join(" ")), "/dev/null"]);
        command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env("TERM", "xterm").env_remove("LIBGUESTFS_PATH").env_remove("CI").stdin(Stdio::null());
        command
    }

    fn dressed(&self, mut command: Command, words: &[&str]) -> Command {
        let path = format!("{}:{}", self.text("bin"), std::env::var("PATH").unwrap());
        command.args(words).arg("--state-dir").arg(self.path("state"));
        command.env("PATH", path).env("LAB", &self.dir).env_remove("LIBGUESTFS_PATH").stdin(Stdio::null());
        command
    }

    /// `run`, `resume` or `rollback`, to its end.
    pub(crate) fn ended(&self, run: &str, words: &[&str]) -> Ran {
        self.ended_as(run, self.runback(words))
    }

    pub(crate) fn ended_as(&self, run: &str, mut command: Command) -> Ran {
        let output = command.output().unwrap();
        let printed = text(&output.stdout) + &text(&output.stderr);
        Ran { code: output.status.code(), show: self.show(run, &printed), printed }
    }

    pub(crate) fn show(&self, run: &str, printed: &str) -> Value {
        let show = self.runback(&["show", run, "--output", "json"]).output().unwrap();
        serde_json::from_slice(&show.stdout).unwrap_or_else(|e| panic!("{e}: {printed}"))
    }

    pub(crate) fn write(&self, name: &str, playbook: &Value) -> String {
        let path = self.path(&format!("work/{name}.yaml"));
        std::fs::write(&path, playbook.to_string()).unwrap();
        path.to_string_lossy().into_owned()
    }

    /// Steps as a playbook file; each that has a `uri` to give gets the lab's.
    pub(crate) fn playbook(&self, name: &str, steps: &Value) -> String {
        let mut steps = steps.clone();
        for step in steps.as_array_mut().unwrap() {
            if step["uses"].as_str().is_some_and(|u| u.starts_with("virt.")) && step["with"].get("uri").is_none() {
                step["with"]["uri"] = json!(self.uri);
            }
        }
        self.write(name, &json!({"runback": 1, "name": name, "steps": steps}))
    }

    /// A playbook of these steps, run to its end.
    pub(crate) fn run(&self, run: &str, steps: &Value) -> Ran {
        let file = self.playbook(run, steps);
        self.ended(run, &["run", &file, "--run-id", run, "--output", "lines"])
    }

    pub(crate) fn rollback(&self, run: &str) -> Ran {
        self.ended(run, &["rollback", run, "--output", "lines"])
    }

    pub(crate) fn plan(&self, name: &str, steps: &Value) -> String {
        let file = self.playbook(name, steps);
        let output = self.runback(&["plan", &file]).output().unwrap();
        text(&output.stdout) + &text(&output.stderr)
    }

    /// A run in the background.
    pub(crate) fn spawn(&self, words: &[&str]) -> Child {
        self.spawn_as(self.runback(words))
    }

    pub(crate) fn spawn_as(&self, mut command: Command) -> Child {
        let log = std::fs::File::create(self.path("spawned.log")).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
    }
}

/// A file system in memory, for tests of space. Gone with this value.
#[derive(Debug)]
pub(crate) struct Mounted {
    pub(crate) path: String,
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.path).status();
        assert!(unmounted.is_ok_and(|s| s.success()) || std::thread::panicking(), "{} stays mounted", self.path);
    }
}

impl Lab {
    pub(crate) fn mount(&self, name: &str, size: &str) -> Mounted {
        let path = self.text(name);
        std::fs::create_dir(&path).unwrap();
        let options = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none", &path]).status().unwrap();
        assert!(mounted.success());
        Mounted { path }
    }

    /// kill -9, as the kernel or a nervous hand does.
    #[expect(clippy::unused_self, reason = "reads as the others do")]
    pub(crate) fn kill(&self, child: &mut Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Processes of a conversion under this lab, by what they carry in their environment.
    pub(crate) fn marked(&self) -> Vec<String> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let pid = entry.file_name().to_string_lossy().into_owned();
            let Ok(environ) = std::fs::read(entry.path().join("environ")) else { continue };
            let mark = format!("RUNBACK_V2V={}", self.dir.display());
            if environ.split(|b| *b == 0).any(|v| v.starts_with(mark.as_bytes())) {
                found.push(pid);
            }
        }
        found
    }
}

/// A run that ended, or stands still.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) show: Value,
    pub(crate) printed: String,
}

impl Ran {
    pub(crate) fn step(&self, id: &str) -> &Value {
        let steps = self.show["steps"].as_array().unwrap();
        steps.iter().find(|s| s["id"] == id).unwrap_or_else(|| panic!("no step {id}: {}", self.show))
    }

    pub(crate) fn outputs(&self, id: &str) -> &Value {
        &self.step(id)["outputs"]
    }

    /// The message of a step's error, and its help.
    pub(crate) fn error(&self, id: &str) -> String {
        let error = &self.step(id)["error"];
        assert!(error["message"].is_string(), "{id} did not fail: {}", self.printed);
        format!("{}\n{}", error["message"].as_str().unwrap(), error["help"].as_str().unwrap_or_default())
    }

    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{}", self.printed);
        self
    }

    /// Failed, and taken back.
    pub(crate) fn failed(self) -> Self {
        assert_eq!(self.code, Some(3), "{}", self.printed);
        self
    }
}

/// Waits until something is so, and fails after that many seconds, or after four minutes if those are fewer.
pub(crate) fn until(what: &str, seconds: u64, mut so: impl FnMut() -> bool) {
    let seconds = seconds.max(240);
    let end = Instant::now() + Duration::from_secs(seconds);
    while !so() {
        assert!(Instant::now() < end, "still not so after {seconds} s: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
