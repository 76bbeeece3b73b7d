//! The ssh target against a real sshd of our own on a loopback port: with own keys, own configuration, stopped by its
//! pid. Needs `ssh`, `sshd`, `sudo` and `busybox` (Debian: openssh-client, openssh-server, sudo, busybox), and root;
//! without them it fails and says so.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Os, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use runback_core::playbook::model::SshTarget as SshConfig;
use runback_core::target::{Command, DetachedState, FileAttributes, FileKind, Stream, Target, TargetErrorKind, Watch};
use runback_exec::process::Processes;
use runback_exec::target::SshTarget;
use tokio::sync::Notify;

struct Sshd {
    dir: tempfile::TempDir,
    port: u16,
    child: Child,
    tools: Option<PathBuf>,
}

/// A port that is free, and that nobody gets meanwhile: below those that the kernel gives out by itself, and by the process,
/// so that two tests do not meet.
fn free_port() -> u16 {
    static TURN: AtomicU32 = AtomicU32::new(0);
    loop {
        let turn = std::process::id() % 2_500 * 8 + TURN.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(10_000 + turn % 20_000).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn keygen(path: &Path) {
    let made = Os::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path).status();
    assert!(made.is_ok_and(|s| s.success()), "ssh-keygen is needed: apt-get install openssh-client");
}

impl Sshd {
    fn start() -> Self {
        Self::start_with("", "")
    }

    /// The far side has no program but busybox's.
    fn busybox() -> Self {
        let tools = tempfile::tempdir().unwrap().keep();
        let installed = Os::new("busybox").args(["--install", "-s"]).arg(&tools).status();
        assert!(installed.is_ok_and(|s| s.success()), "busybox is needed: apt-get install busybox");
        let mut sshd = Self::start_with("", &format!("PATH={}", tools.display()));
        sshd.tools = Some(tools);
        sshd
    }

    /// `more` lines of configuration, and variables for every session.
    fn start_with(more: &str, env: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        keygen(&at("host"));
        keygen(&at("id"));
        std::fs::copy(at("id.pub"), at("authorized")).unwrap();
        std::fs::create_dir(at("home")).unwrap();
        let port = free_port();
        let d = dir.path().display();
        let config = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {d}/host\nAuthorizedKeysFile {d}/authorized\nPidFile none\n\
             StrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\nSetEnv HOME={d}/home {env}\n{more}\n"
        );
        std::fs::write(at("sshd_config"), config).unwrap();
        let host_key = std::fs::read_to_string(at("host.pub")).unwrap();
        std::fs::write(at("known"), format!("[127.0.0.1]:{port} {host_key}")).unwrap();
        let mut sshd = Self { child: Self::spawn(dir.path()), dir, port, tools: None };
        sshd.wait();
        sshd
    }

    fn spawn(dir: &Path) -> Child {
        // sshd wants its own absolute path, and, as root, this folder.
        let _ = std::fs::create_dir_all("/run/sshd");
        let log = std::fs::File::options().create(true).append(true).open(dir.join("log")).unwrap();
        let sshd = Os::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f"])
            .arg(dir.join("sshd_config"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        sshd.expect("sshd is needed: apt-get install openssh-server")
    }

    fn wait(&mut self) {
        let end = Instant::now() + Duration::from_secs(120);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(self.child.try_wait().unwrap().is_none() && Instant::now() < end, "sshd: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    /// Ends the connections that are open, as a cut would: sshd's own children only, not what runs in the sessions.
    /// sshd itself goes on listening.
    fn cut(&self) {
        for pid in children(self.child.id()) {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            if name.starts_with("sshd") {
                let _ = Os::new("kill").args(["-KILL", &pid.to_string()]).stderr(Stdio::null()).status();
            }
        }
    }

    fn config(&self) -> SshConfig {
        let option = |k: &str, v: String| (k.to_owned(), v);
        let known = self.dir.path().join("known").display().to_string();
        SshConfig {
            host: "127.0.0.1".to_owned(),
            port: Some(self.port),
            identity: Some(self.dir.path().join("id").display().to_string()),
            options: vec![
                option("UserKnownHostsFile", known),
                option("GlobalKnownHostsFile", "/dev/null".to_owned()),
                option("IdentitiesOnly", "yes".to_owned()),
            ],
            ..SshConfig::default()
        }
    }

    fn target(&self) -> SshTarget {
        connect(&self.config())
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.cut();
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(tools) = &self.tools {
            let _ = std::fs::remove_dir_all(tools);
        }
    }
}

fn connect(config: &SshConfig) -> SshTarget {
    SshTarget::new("host", config, PathBuf::from("/"), Processes::without_guard()).unwrap()
}

/// All that descend from a process.
fn children(of: u32) -> Vec<u32> {
    let listed = Os::new("ps").args(["-A", "-o", "pid=,ppid="]).output().unwrap();
    let text = String::from_utf8(listed.stdout).unwrap();
    let pairs: Vec<(u32, u32)> = text
        .lines()
        .filter_map(|l| l.trim().split_once(' '))
        .filter_map(|(pid, parent)| Some((pid.parse().ok()?, parent.trim().parse().ok()?)))
        .collect();
    let (mut found, mut at) = (vec![of], 0);
    while at < found.len() {
        let parent = found[at];
        found.extend(pairs.iter().filter(|(_, p)| *p == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    found.split_off(1)
}

/// Processes that have this text on their command line.
fn running(text: &str) -> usize {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|e| std::fs::read(e.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).replace('\0', " ").contains(text)).count()
}

async fn until(what: &str, mut test: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(120);
    while !test() {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[derive(Default)]
struct Tape {
    out: Mutex<Vec<u8>>,
    err: Mutex<Vec<u8>>,
    stop: Notify,
    grace: Duration,
}

impl Tape {
    fn text(&self) -> String {
        String::from_utf8(self.out.lock().unwrap().clone()).unwrap()
    }
}

#[async_trait::async_trait]
impl Watch for Tape {
    fn output(&self, stream: Stream, bytes: &[u8]) {
        let to = if stream == Stream::Stdout { &self.out } else { &self.err };
        to.lock().unwrap().extend_from_slice(bytes);
    }
    async fn stopped(&self) {
        self.stop.notified().await;
    }
    fn kill_grace(&self) -> Duration {
        self.grace
    }
}

fn sh(script: &str) -> Command {
    Command::new(["sh", "-c", script])
}

#[tokio::test]
async fn commands_stream_and_say_how_they_ended() {
    let sshd = Sshd::start();
    let target = sshd.target();
    let tape = Tape::default();
    let command = sh("pwd; printf '%s|' \"$A\" \"$1\"; cat; echo oops >&2; exit 255").env("A", "it's\n\"$x\"");
    let exit = target.run(&command.stdin("in\n").cwd("/tmp").keep_stdout(7), &tape).await.unwrap();
    assert_eq!(tape.text(), "/tmp\nit's\n\"$x\"||in\n");
    assert_eq!(tape.err.lock().unwrap().as_slice(), b"oops\n");
    assert_eq!((exit.code, exit.stdout.as_slice(), exit.stdout_cut), (Some(255), &b"/tmp\nit"[..], true));
    assert_eq!(exit.stderr_text(), "oops\n");

    let exit = target.run(&Command::query(["sh", "-c", "kill -9 $$"]), &tape).await.unwrap();
    assert_eq!(exit.code, Some(137));
    let big = target.run(&sh("head -c 3000000 /dev/zero").keep_stdout(4 << 20), &Tape::default()).await.unwrap();
    assert_eq!((big.stdout.len(), big.stdout_cut), (3_000_000, false));
    let input = vec![7_u8; 1_000_003];
    let counted = target.run(&Command::query(["wc", "-c"]).stdin(input), &tape).await.unwrap();
    assert_eq!(counted.stdout_text().trim(), "1000003");

    let missing = target.run(&Command::new(["no-such-command"]), &tape).await.unwrap_err();
    assert_eq!(missing.kind, TargetErrorKind::CommandNotFound);
    let cwd = target.run(&Command::new(["true"]).cwd("/no/such"), &tape).await.unwrap_err();
    assert_eq!(cwd.kind, TargetErrorKind::NotFound);
    let name = target.run(&Command::new(["true"]).env("a.b", ""), &tape).await.unwrap_err();
    assert!(name.message.contains("\"a.b\""), "{name}");

    // A daemon that keeps the streams open is not waited for.
    let started = Instant::now();
    let pid = sshd.dir.path().join("daemon");
    let exit = target.run(&sh(&format!("sleep 300.25 & echo $! >{}; echo up", pid.display())), &tape).await.unwrap();
    let took = started.elapsed();
    assert_eq!(running("sleep 300.25"), 1);
    let pid = std::fs::read_to_string(pid).unwrap();
    assert!(Os::new("kill").arg(pid.trim()).status().unwrap().success());
    assert!(exit.ok() && took < Duration::from_secs(120), "{took:?}");
    target.close().await;
}

/// Secrets in the environment and on standard input are in nobody's list of processes.
#[tokio::test]
async fn nothing_of_a_command_is_on_the_loaders_command_line() {
    let sshd = Sshd::start();
    let target = sshd.target();
    let tape = Tape::default();
    let command = sh("grep -lc canary-42 /proc/[0-9]*/cmdline; echo done").env("S", "canary-42").stdin("canary-42");
    target.run(&command, &tape).await.unwrap();
    // The script names it itself: its own shell and grep, nothing else.
    assert!(tape.text().lines().count() <= 3, "{}", tape.text());
    let loaders = running("canary-42");
    assert_eq!(loaders, 0);
    target.close().await;
}

#[tokio::test]
async fn stopping_takes_the_whole_remote_tree_and_keeps_the_last_words() {
    let sshd = Sshd::start();
    let target = sshd.target();
    let tape = Arc::new(Tape { grace: Duration::from_secs(5), ..Tape::default() });
    let script = "trap 'echo bye; exit 3' TERM; setsid sleep 7001 & (trap '' TERM; sleep 7002) & echo up; \
                  while :; do sleep 0.05; done";
    let stopper = Arc::clone(&tape);
    let stop = tokio::spawn(async move {
        until("it is up", || stopper.text().contains("up\n") && running("sleep 700") >= 2).await;
        stopper.stop.notify_one();
    });
    let error = target.run(&sh(script), &*tape).await.unwrap_err();
    stop.await.unwrap();
    assert_eq!((error.kind, error.message.as_str()), (TargetErrorKind::Cancelled, "sh was stopped"));
    assert_eq!((tape.text().as_str(), running("sleep 700")), ("up\nbye\n", 0));

    let error = target.run(&sh("sleep 7003").timeout(Duration::from_secs(2)), &*tape).await.unwrap_err();
    assert_eq!((error.kind, running("sleep 7003")), (TargetErrorKind::Timeout, 0));
    // The attempt is thrown away.
    let _ = tokio::time::timeout(Duration::from_millis(500), target.run(&sh("sleep 7004"), &*tape)).await;
    until("nothing is left", || running("sleep 7004") == 0).await;
    target.close().await;
}

#[tokio::test]
async fn the_four_refusals() {
    let sshd = Sshd::start();
    let told = async |config: &SshConfig, kind: TargetErrorKind, words: &str| {
        let error = connect(config).run(&Command::new(["true"]), &Tape::default()).await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.message.contains(words), "{error}");
        error.help.unwrap()
    };
    // Nobody listens there, and no test is given that port.
    let away = SshConfig { port: Some(1), ..sshd.config() };
    told(&away, TargetErrorKind::Connection, "Connection refused").await;

    let other = sshd.dir.path().join("other");
    keygen(&other);
    let stranger = SshConfig { identity: Some(other.display().to_string()), ..sshd.config() };
    told(&stranger, TargetErrorKind::Refused, "refuses the key").await;

    let fresh = sshd.dir.path().join("fresh");
    keygen(&fresh);
    let known = sshd.dir.path().join("known");
    let right = std::fs::read_to_string(&known).unwrap();
    let wrong = std::fs::read_to_string(fresh.with_extension("pub")).unwrap();
    std::fs::write(&known, format!("[127.0.0.1]:{} {wrong}", sshd.port)).unwrap();
    let help = told(&sshd.config(), TargetErrorKind::Refused, "host key has changed").await;
    assert!(help.contains(&format!("ssh-keygen -R '[127.0.0.1]:{}'", sshd.port)), "{help}");
    std::fs::write(&known, "").unwrap();
    told(&sshd.config(), TargetErrorKind::Refused, "not known here").await;
    let mut trusting = sshd.config();
    trusting.options.push(("StrictHostKeyChecking".to_owned(), "accept-new".to_owned()));
    let target = connect(&trusting);
    target.run(&Command::new(["true"]), &Tape::default()).await.unwrap();
    target.close().await;
    std::fs::write(&known, right).unwrap();

    let nobody = SshConfig { become_user: Some("no-such-user".to_owned()), ..sshd.config() };
    let help = told(&nobody, TargetErrorKind::Refused, "sudo does not let us become no-such-user").await;
    assert!(help.contains("sudo") || help.contains("install"), "{help}");

    let mut blind = sshd.config();
    blind.options.push(("stricthostkeychecking".to_owned(), "no".to_owned()));
    let error = SshTarget::new("x", &blind, "/".into(), Processes::without_guard()).unwrap_err();
    assert_eq!(error.kind, TargetErrorKind::Refused);
    let option = SshConfig { host: "-oProxyCommand=x".to_owned(), ..sshd.config() };
    assert!(SshTarget::new("x", &option, "/".into(), Processes::without_guard()).is_err());
}

#[tokio::test]
async fn become_runs_as_another_user() {
    let sshd = Sshd::start();
    let can = Os::new("sudo").args(["-n", "-u", "nobody", "true"]).output().is_ok_and(|o| o.status.success());
    assert!(can, "sudo to nobody is needed: apt-get install sudo, and run the tests as root");
    let target = connect(&SshConfig { become_user: Some("nobody".to_owned()), ..sshd.config() });
    let tape = Arc::new(Tape { grace: Duration::from_secs(1), ..Tape::default() });
    let exit = target.run(&Command::query(["id", "-un"]).cwd("/"), &*tape).await.unwrap();
    assert_eq!(exit.stdout_text(), "nobody\n");
    let stopper = Arc::clone(&tape);
    let stop = tokio::spawn(async move {
        until("it is up", || running("sleep 7011") >= 1).await;
        stopper.stop.notify_one();
    });
    let error = target.run(&sh("sleep 7011").cwd("/"), &*tape).await.unwrap_err();
    stop.await.unwrap();
    assert_eq!((error.message.as_str(), running("sleep 7011")), ("sh was stopped", 0));
    target.close().await;
}

#[tokio::test]
async fn files_behave_as_local_ones() {
    check_files(Sshd::start()).await;
}

#[tokio::test]
async fn files_behave_as_local_ones_on_busybox() {
    let sshd = Sshd::busybox();
    let target = sshd.target();
    let exe = target.run(&Command::query(["readlink", "/proc/self/exe"]), &Tape::default()).await.unwrap();
    assert!(exe.stdout_text().contains("busybox"), "{exe:?}");
    target.close().await;
    check_files(sshd).await;
}

async fn check_files(sshd: Sshd) {
    let target = sshd.target();
    let dir = sshd.dir.path().join("files");
    let at = |name: &str| dir.join(name).display().to_string();
    let kind = |r: Result<(), runback_core::target::TargetError>| r.unwrap_err().kind;
    let none = FileAttributes::default();

    target.create_dir(&at(""), Some(0o750)).await.unwrap();
    assert!(target.create_dir(&at(""), None).await.is_err());
    assert_eq!(kind(target.create_dir(&at("no/dir"), None).await), TargetErrorKind::NotFound);
    assert_eq!(target.stat(&at("x")).await.unwrap(), None);
    assert_eq!(target.stat(&at("x/y")).await.unwrap(), None);

    let odd = at("-o'd \"d\n$x ü");
    let bytes: Vec<u8> = (0..70_000_u32).map(|i| (i % 256) as u8).collect();
    target.write(&odd, &bytes, &FileAttributes { mode: Some(0o640), uid: Some(1), gid: Some(2) }).await.unwrap();
    let stat = target.stat(&odd).await.unwrap().unwrap();
    assert_eq!((stat.kind, stat.mode, stat.uid, stat.gid, stat.size), (FileKind::File, 0o640, 1, 2, 70_000));
    assert_eq!(target.read(&odd, 70_000).await.unwrap(), bytes);
    let large = target.read(&odd, 69_999).await.unwrap_err();
    assert!(large.message.contains("70000") && large.message.contains("69999"), "{large}");
    target.write(&odd, b"", &none).await.unwrap();
    let stat = target.stat(&odd).await.unwrap().unwrap();
    assert_eq!((stat.mode, stat.uid, stat.gid, stat.size), (0o640, 1, 2, 0), "kept from the file before");
    assert_eq!(target.read(&odd, 0).await.unwrap(), b"");
    assert_eq!(kind(target.write(&at("no/x"), b"", &none).await), TargetErrorKind::NotFound);
    assert_eq!(kind(target.write(&at(""), b"", &none).await), TargetErrorKind::WrongKind);
    assert_eq!(target.read(&at("x"), 9).await.unwrap_err().kind, TargetErrorKind::NotFound);
    assert_eq!(target.read(&at(""), 9).await.unwrap_err().kind, TargetErrorKind::WrongKind);

    target.write(&at("plain"), b"abc", &none).await.unwrap();
    let sum = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(target.sha256(&at("plain")).await.unwrap(), sum);
    assert_eq!(std::fs::metadata(at("plain")).unwrap().permissions().mode() & 0o777, 0o644);
    target.set_attributes(&at("plain"), &FileAttributes { mode: Some(0o4755), ..none.clone() }).await.unwrap();
    target.set_attributes(&at("plain"), &FileAttributes { uid: Some(3), ..none.clone() }).await.unwrap();
    let stat = target.stat(&at("plain")).await.unwrap().unwrap();
    assert_eq!((stat.mode, stat.uid), (0o4755, 3), "a new owner does not cost the set-id bit");
    target.copy(&at("plain"), &at("copy")).await.unwrap();
    let copied = target.stat(&at("copy")).await.unwrap().unwrap();
    assert_eq!((copied.mode, copied.uid, target.read(&at("copy"), 9).await.unwrap()), (0o4755, 3, b"abc".to_vec()));

    target.create_dir(&at("one"), None).await.unwrap();
    target.create_dir(&at("two"), None).await.unwrap();
    for to in ["one", "two", "no such\nplace"] {
        target.symlink(&at("link"), to).await.unwrap();
        let stat = target.stat(&at("link")).await.unwrap().unwrap();
        assert_eq!((stat.kind, stat.link.as_deref()), (FileKind::Symlink, Some(to)));
    }
    assert_eq!(kind(target.symlink(&at("one"), "two").await), TargetErrorKind::WrongKind);
    assert_eq!(
        kind(target.set_attributes(&at("link"), &FileAttributes { mode: Some(1), ..none }).await),
        TargetErrorKind::WrongKind
    );

    target.rename(&at("copy"), &at("one/moved")).await.unwrap();
    assert_eq!(kind(target.rename(&at("plain"), &at("two")).await), TargetErrorKind::WrongKind);
    assert_eq!(kind(target.rename(&at("gone"), &at("two/x")).await), TargetErrorKind::NotFound);
    let names = target.list(&at("")).await.unwrap();
    assert_eq!(names, ["-o'd \"d\n$x ü", "link", "one", "plain", "two"]);
    assert_eq!(target.list(&at("two")).await.unwrap(), Vec::<String>::new());
    assert_eq!(target.list(&at("gone")).await.unwrap_err().kind, TargetErrorKind::NotFound);

    assert_eq!(kind(target.remove_dir(&at("one")).await), TargetErrorKind::WrongKind);
    assert_eq!(kind(target.remove_file(&at("one")).await), TargetErrorKind::WrongKind);
    target.remove_dir(&at("two")).await.unwrap();
    target.remove_dir(&at("two")).await.unwrap();
    target.remove_file(&at("link")).await.unwrap();
    target.remove_file(&at("link")).await.unwrap();
    assert_eq!(kind(target.remove_tree(&at("plain")).await), TargetErrorKind::WrongKind);
    assert_eq!(kind(target.remove_tree("/").await), TargetErrorKind::Refused);
    assert!(target.free_space(&at("not/yet/there")).await.unwrap() > 1 << 20);
    assert_eq!((target.user_id("root").await.unwrap(), target.group_id("daemon").await.unwrap()), (0, 1));
    assert_eq!(target.user_id("no-such-user").await.unwrap_err().kind, TargetErrorKind::NotFound);
    target.remove_tree(&at("")).await.unwrap();
    target.remove_tree(&at("")).await.unwrap();
    assert!(!dir.exists());

    // Relative paths count from the login folder.
    target.write("here", b"x", &FileAttributes::default()).await.unwrap();
    let login = target.run(&Command::query(["pwd"]), &Tape::default()).await.unwrap().stdout_text();
    let here = Path::new(login.trim()).join("here");
    assert!(here.exists());
    target.remove_file("here").await.unwrap();
    target.close().await;
}

#[tokio::test]
async fn a_detached_command_is_found_again_and_leaves_nothing() {
    check_detached(Sshd::start()).await;
}

#[tokio::test]
async fn a_detached_command_is_found_again_and_leaves_nothing_on_busybox() {
    check_detached(Sshd::busybox()).await;
}

async fn check_detached(sshd: Sshd) {
    let target = sshd.target();
    let tape = Tape::default();
    let dir = target.detached_dir("run1", "deploy/convert[web1]", 1);
    let go = sshd.dir.path().join("go");
    let wait = format!("while [ ! -e {} ]; do sleep 0.05; done", go.display());
    let command = sh(&format!("cat; echo \"$A\"; echo err >&2; {wait}; echo end; exit 7")).env("A", "b").stdin("in\n");
    let detached = target.start_detached(&command.clone().keep_stdout(5), &dir).await.unwrap();
    assert_eq!(target.detached_state(&detached).await.unwrap(), DetachedState::Running);
    // Asked twice (the answer was lost), it starts once.
    assert_eq!(target.start_detached(&command, &dir).await.unwrap(), detached);
    assert!(detached.dir.starts_with(&sshd.home().display().to_string()), "{detached:?}");
    assert!(!Path::new(&detached.dir).join("stdin").exists());
    target.close().await;

    let later = sshd.target();
    std::fs::write(go, "").unwrap();
    until("it ends", || Path::new(&detached.dir).join("exit").exists()).await;
    assert_eq!(later.detached_state(&detached).await.unwrap(), DetachedState::Ended);
    let exit = later.attach(&detached, &command.clone().keep_stdout(5), &tape).await.unwrap();
    assert_eq!((exit.code, exit.stdout.as_slice(), exit.stdout_cut), (Some(7), &b"in\nb\n"[..], true));
    assert_eq!(tape.text(), "in\nb\nerr\nend\n");
    later.forget_detached(&detached).await.unwrap();
    assert!(!sshd.home().join(".runback").exists());
    assert_eq!(later.detached_state(&detached).await.unwrap(), DetachedState::Gone);
    let gone = later.attach(&detached, &command, &tape).await.unwrap_err();
    assert!(gone.message.contains("left no exit code"), "{gone}");
    let missing = later.start_detached(&Command::new(["no-such"]), &dir).await.unwrap_err();
    assert_eq!(missing.kind, TargetErrorKind::CommandNotFound);
    assert!(!sshd.home().join(".runback").exists());
    later.close().await;
}

/// A link that lets at most 800 kB through in a second, and keeps little: what is to be sent waits in sshd. (A TCP socket of
/// this machine would keep more than sshd sends without an answer.)
fn slow_link(sshd: &Sshd) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = sshd.dir.path().join("sshd_config");
    std::thread::spawn(move || {
        for near in listener.incoming().flatten() {
            let (far, end) = UnixStream::pair().unwrap();
            let mut session = Os::new("/usr/sbin/sshd");
            session.args(["-i", "-f"]).arg(&config).stderr(Stdio::null());
            session.stdin(OwnedFd::from(end.try_clone().unwrap())).stdout(OwnedFd::from(end));
            let mut session = session.spawn().unwrap();
            let (mut from_near, mut to_far) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from_near, &mut to_far);
                let _ = to_far.shutdown(Shutdown::Write);
            });
            std::thread::spawn(move || {
                let (mut from_far, mut to_near) = (far, near);
                let mut buffer = vec![0; 16 << 10];
                while let Ok(n @ 1..) = from_far.read(&mut buffer)
                    && to_near.write_all(&buffer[..n]).is_ok()
                {
                    std::thread::sleep(Duration::from_millis(20));
                }
                let _ = to_near.shutdown(Shutdown::Both);
                session.wait()
            });
        }
    });
    port
}

/// The word of the exit comes on another stream than the output, and overtakes it.
#[tokio::test]
async fn nothing_is_lost_on_a_slow_link() {
    let sshd = Sshd::start();
    let mut config = sshd.config();
    config.options.push(("HostKeyAlias".to_owned(), format!("[127.0.0.1]:{}", sshd.port)));
    config.port = Some(slow_link(&sshd));
    let target = connect(&config);
    let tape = Tape::default();
    let exit = target.run(&sh("head -c 1000000 /dev/zero | tr '\\0' x; exit 4"), &tape).await.unwrap();
    assert_eq!((exit.code, tape.out.lock().unwrap().len()), (Some(4), 1_000_000));
    // Every byte there is, so also those that the records begin with.
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 256) as u8).collect();
    let file = sshd.home().join("large");
    std::fs::write(&file, &bytes).unwrap();
    assert!(target.read(file.to_str().unwrap(), 16 << 20).await.unwrap() == bytes, "what was read is another file");
    target.close().await;
}

#[tokio::test]
async fn stopping_an_attached_command_stops_it() {
    check_stop_attached(Sshd::start()).await;
}

#[tokio::test]
async fn stopping_an_attached_command_stops_it_on_busybox() {
    check_stop_attached(Sshd::busybox()).await;
}

async fn check_stop_attached(sshd: Sshd) {
    let target = sshd.target();
    let tape = Arc::new(Tape { grace: Duration::from_secs(1), ..Tape::default() });
    // Not the same as in the test beside this one: neither what is stopped by its run and step, nor what is counted here.
    let dir = target.detached_dir(&format!("run-{}", sshd.port), "a", 1);
    let nap = format!("sleep 7{}", sshd.port);
    let command = sh(&format!("trap '' TERM; setsid {nap} & {nap} & echo up; wait"));
    let detached = target.start_detached(&command, &dir).await.unwrap();
    let stopper = Arc::clone(&tape);
    let naps = nap.clone();
    let stop = tokio::spawn(async move {
        until("it is up", || stopper.text().contains("up") && running(&naps) >= 2).await;
        stopper.stop.notify_one();
    });
    let error = target.attach(&detached, &command, &*tape).await.unwrap_err();
    stop.await.unwrap();
    assert_eq!((error.kind, error.message.as_str()), (TargetErrorKind::Cancelled, "sh was stopped"));
    assert_eq!((running(&nap), sshd.home().join(".runback").exists()), (0, false));
    target.close().await;
}

#[tokio::test]
async fn a_cut_loses_nothing_of_a_detached_command() {
    let sshd = Sshd::start();
    let target = Arc::new(sshd.target());
    let tape = Arc::new(Tape::default());
    let dir = target.detached_dir("run3", "a", 1);
    let script = "i=0; while [ $i -lt 60 ]; do echo line $i; i=$((i + 1)); sleep 0.05; done; exit 5";
    let detached = target.start_detached(&sh(script), &dir).await.unwrap();
    let (attached, watch, command) = (Arc::clone(&target), Arc::clone(&tape), sh(script));
    let attach = tokio::spawn(async move { attached.attach(&detached, &command, &*watch).await });
    for line in ["line 5\n", "line 20\n"] {
        until("it goes on", || tape.text().contains(line)).await;
        sshd.cut();
    }
    let exit = attach.await.unwrap().unwrap();
    let expected = (0..60).fold(String::new(), |all, i| all + &format!("line {i}\n"));
    assert_eq!((exit.code, tape.text()), (Some(5), expected));
    target.close().await;
}

#[tokio::test]
async fn a_cut_is_an_error_of_the_connection_and_the_next_command_connects_again() {
    let sshd = Sshd::start();
    let target = Arc::new(sshd.target());
    let (ours, tape) = (Arc::clone(&target), Arc::new(Tape::default()));
    let watch = Arc::clone(&tape);
    let run = tokio::spawn(async move { ours.run(&sh("echo up; sleep 7031"), &*watch).await });
    until("it is up", || tape.text() == "up\n").await;
    sshd.cut();
    let error = run.await.unwrap().unwrap_err();
    assert_eq!(error.kind, TargetErrorKind::Connection, "{error}");
    assert!(error.message.contains("lost while sh ran"), "{error}");
    until("the far side stops it", || running("sleep 7031") == 0).await;
    assert!(target.run(&Command::query(["true"]), &*tape).await.unwrap().ok());
    target.close().await;
}

/// More at a time than sshd allows sessions for.
#[tokio::test]
async fn many_commands_share_one_connection() {
    let sshd = Sshd::start_with("MaxSessions 4", "");
    let target = Arc::new(sshd.target());
    let mut all = tokio::task::JoinSet::new();
    for i in 0..40 {
        let target = Arc::clone(&target);
        all.spawn(async move {
            let exit = target.run(&Command::query(["echo", &i.to_string()]), &Tape::default()).await.unwrap();
            assert_eq!(exit.stdout_text(), format!("{i}\n"));
        });
    }
    while let Some(done) = all.join_next().await {
        done.unwrap();
    }
    assert_eq!(sshd.log().matches("Accepted publickey").count(), 1, "{}", sshd.log());
    target.close().await;
}

#[tokio::test]
async fn closing_leaves_no_master_and_no_socket() {
    let sshd = Sshd::start();
    let processes = Processes::without_guard();
    let target = SshTarget::new("host", &sshd.config(), "/".into(), Arc::clone(&processes)).unwrap();
    target.run(&Command::query(["true"]), &Tape::default()).await.unwrap();
    let ours = format!("{}/id", sshd.dir.path().display());
    assert_eq!(running(&ours), 1, "the master");
    target.close().await;
    assert_eq!(running(&ours), 0);
    target.run(&Command::query(["true"]), &Tape::default()).await.unwrap();
    drop(target);
    until("a dropped target closes", || running(&ours) == 0).await;
    drop(processes);
    let mine = format!("runback-{}-", std::process::id());
    let left = std::fs::read_dir("/tmp").unwrap().flatten().filter(|e| {
        let name = e.file_name().to_string_lossy().into_owned();
        // Folders of other tests of this process may be in use; an empty one is nobody's.
        name.starts_with(&mine) && std::fs::read_dir(e.path()).is_ok_and(|mut d| d.next().is_none())
    });
    assert!(left.count() <= 16);
}

/// `kill -9` of runback: no remote process, no master, no socket.
#[tokio::test]
async fn a_killed_runback_leaves_nothing_on_either_side() {
    let sshd = Sshd::start();
    let program = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("examples/ssh_cost");
    assert!(
        program.exists(),
        "`cargo test` builds it; alone: cargo build -p runback-exec --example ssh_cost; {}",
        program.display()
    );
    let config = sshd.config();
    let identity = config.identity.clone().unwrap();
    let mut command = Os::new(&program);
    command.arg("127.0.0.1").arg(format!("Port={}", sshd.port)).arg(format!("IdentityFile={identity}"));
    command.args(config.options.iter().map(|(k, v)| format!("{k}={v}")));
    let script = "setsid sleep 7041 & (trap '' TERM; sleep 7042) & echo up; sleep 7043";
    command.args(["--", "sh", "-c", script]);
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    until("it is up", || running("sleep 704") >= 4).await;
    let scratch = || {
        let mine = format!("runback-{}-", child.id());
        std::fs::read_dir("/tmp")
            .unwrap()
            .flatten()
            .filter(|e| e.file_name().to_string_lossy().starts_with(&mine))
            .count()
    };
    assert_eq!(scratch(), 1);
    let pid = child.id();
    child.kill().unwrap();
    until("no process is left", || running("sleep 704") == 0 && running(&identity) == 0).await;
    until("no socket is left", || {
        let mine = format!("runback-{pid}-");
        !std::fs::read_dir("/tmp").unwrap().flatten().any(|e| e.file_name().to_string_lossy().starts_with(&mine))
    })
    .await;
    child.wait().unwrap();
}
