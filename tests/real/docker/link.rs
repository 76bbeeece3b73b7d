//! A host behind a link that can be pulled: an sshd in a network namespace of its own.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::lab::{text, until};

#[derive(Debug)]
pub(crate) struct Host {
    dir: tempfile::TempDir,
    name: String,
    child: Child,
    pub(crate) address: String,
}

fn ip(words: &[&str]) -> bool {
    Command::new("ip").args(words).stdin(Stdio::null()).output().is_ok_and(|o| o.status.success())
}

/// Such a host, or the reason why the test is skipped. In CI a reason is a failure.
pub(crate) fn host() -> Option<Host> {
    // Names of interfaces have 15 bytes; addresses are by the process, so that two tests do not meet.
    let id = std::process::id();
    let (name, near, far) = (format!("rbn{id}"), format!("rbh{id}"), format!("rbf{id}"));
    if !ip(&["netns", "add", &name]) {
        let why = "no network namespace can be made: it needs root and iproute2";
        assert!(std::env::var_os("CI").is_none_or(|v| v.is_empty()), "{why}");
        eprintln!("SKIPPED: {why}");
        return None;
    }
    let (third, fourth) = (id / 64 % 256, id % 64 * 4);
    let (here, there) = (format!("10.231.{third}.{}", fourth + 1), format!("10.231.{third}.{}", fourth + 2));
    assert!(ip(&["link", "add", &near, "type", "veth", "peer", "name", &far, "netns", &name]));
    assert!(ip(&["addr", "add", &format!("{here}/30"), "dev", &near]) && ip(&["link", "set", &near, "up"]));
    for words in [["addr", "add", &format!("{there}/30"), "dev", &far], ["link", "set", "dev", &far, "up"]] {
        assert!(ip(&[&["-n", &name], &words[..]].concat()), "{words:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for key in ["host", "id"] {
        let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(at(key)).status();
        assert!(made.unwrap().success());
    }
    std::fs::create_dir(at("home")).unwrap();
    std::fs::copy(at("id.pub"), at("authorized")).unwrap();
    let _ = std::fs::create_dir_all("/run/sshd");
    let d = dir.path().display();
    let config = format!(
        "ListenAddress {there}\nHostKey {d}/host\nAuthorizedKeysFile {d}/authorized\nPidFile none\nStrictModes no\n\
         UsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\nSetEnv HOME={d}/home\n"
    );
    std::fs::write(at("sshd_config"), config).unwrap();
    std::fs::write(at("known"), format!("{there} {}", std::fs::read_to_string(at("host.pub")).unwrap())).unwrap();
    let log = std::fs::File::create(at("log")).unwrap();
    let sshd = ["netns", "exec", &name, "/usr/sbin/sshd", "-D", "-e", "-f"];
    let child = Command::new("ip")
        .args(sshd)
        .arg(at("sshd_config"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    until("sshd listens", || std::net::TcpStream::connect((there.as_str(), 22)).is_ok());
    Some(Host { dir, name, child, address: there })
}

impl Host {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn link(&self, state: &str) {
        let near = self.name.replacen("rbn", "rbh", 1);
        assert!(ip(&["link", "set", &near, state]));
    }

    /// What is sent to the far side from now on takes its time: about 1 MB/s.
    pub(crate) fn slow(&self) {
        let near = self.name.replacen("rbn", "rbh", 1);
        let words = ["qdisc", "add", "dev", &near, "root", "tbf", "rate", "8mbit", "burst", "32kb", "latency", "400ms"];
        assert!(Command::new("tc").args(words).status().is_ok_and(|s| s.success()));
    }

    /// What lies in the home folder of the far side.
    pub(crate) fn left(&self) -> String {
        text(&Command::new("find").arg(self.path("home")).args(["-mindepth", "1"]).output().unwrap().stdout)
    }

    /// Processes in the namespace besides sshd itself.
    pub(crate) fn processes(&self) -> Vec<String> {
        let pids = text(&Command::new("ip").args(["netns", "pids", &self.name]).output().unwrap().stdout);
        let own = self.child.id().to_string();
        pids.split_whitespace().filter(|p| **p != own).map(str::to_owned).collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for pid in self.processes() {
            let _ = Command::new("kill").arg(pid).status();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        ip(&["netns", "del", &self.name]);
    }
}
