//! A machine with systemd and packages, for tests: it boots in namespaces of its own, on a layer over this machine's root
//! (machine.sh), and is reached by ssh. Knows no scenario.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};

use super::lab::{free_port, text, until};

#[derive(Debug)]
pub(crate) struct Machine {
    dir: tempfile::TempDir,
    child: Child,
    port: u16,
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real/docker/machine.sh")
}

fn missing() -> Option<&'static str> {
    let id = Command::new("id").arg("-u").output().unwrap();
    if text(&id.stdout).trim() != "0" {
        return Some("namespaces and an overlay need root");
    }
    let there = |path: &str| Path::new(path).exists();
    if !there("/lib/systemd/systemd") || !there("/usr/sbin/sshd") {
        return Some("systemd or sshd is not there: apt-get install systemd openssh-server");
    }
    (!there("/usr/bin/dpkg-deb") || !there("/usr/bin/apt-get")).then_some("this is no machine with Debian's packages")
}

/// What a unit of the tests is, apart from its own lines. Nothing of the machine's own is started with it.
fn unit(lines: &str) -> String {
    format!("[Unit]\nDefaultDependencies=no\n[Service]\n{lines}\n[Install]\nWantedBy=rb.target\n")
}

/// Such a machine, or the reason why the test is skipped. In CI a reason is a failure.
pub(crate) fn machine() -> Option<Machine> {
    if let Some(why) = missing() {
        assert!(std::env::var_os("CI").is_none_or(|v| v.is_empty()), "{why}");
        eprintln!("SKIPPED: {why}");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    for part in [
        "cgroup",
        "layer",
        "root",
        "etc/systemd/system",
        "etc/rb",
        "etc/apt/sources.list.d",
        "etc/yum.repos.d",
        "srv/repository",
        "srv/rpm",
    ] {
        std::fs::create_dir_all(dir.path().join(part)).unwrap();
    }
    let put = |at: &str, content: &str| std::fs::write(dir.path().join(at), content).unwrap();
    for key in ["etc/rb/host", "etc/rb/id"] {
        let made =
            Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(dir.path().join(key)).status();
        assert!(made.unwrap().success());
    }
    let port = free_port();
    put(
        "etc/rb/sshd_config",
        &format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey /etc/rb/host\nAuthorizedKeysFile /etc/rb/id.pub\nPidFile none\n\
             StrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\nAllowUsers root\n"
        ),
    );
    let host = std::fs::read_to_string(dir.path().join("etc/rb/host.pub")).unwrap();
    put("known", &format!("[127.0.0.1]:{port} {host}"));
    put("etc/fstab", "# nothing of its own\n");
    put("etc/systemd/system/rb.target", "[Unit]\nDefaultDependencies=no\nRequires=rb-ssh.service\n");
    put("etc/systemd/system/rb-ssh.service", &unit("ExecStart=/usr/sbin/sshd -D -e -f /etc/rb/sshd_config"));
    put(
        "etc/systemd/system/rb-app.service",
        &unit("ExecStart=/bin/sleep infinity\nExecReload=/bin/sh -c 'echo again >>/run/reloaded'"),
    );
    put("etc/systemd/system/rb-bad.service", &unit("Type=oneshot\nExecStart=/bin/false"));
    repository(dir.path());
    let log = std::fs::File::create(dir.path().join("log")).unwrap();
    let child = Command::new("sh")
        .arg(script())
        .arg("boot")
        .arg(dir.path())
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let mut machine = Machine { dir, child, port };
    let log = machine.path("log");
    until("the machine is up", || {
        let ended = machine.child.try_wait().unwrap();
        assert!(ended.is_none(), "{ended:?}: {}", std::fs::read_to_string(&log).unwrap_or_default());
        machine.ssh("systemctl is-active rb.target").status.success()
    });
    Some(machine)
}

/// A source of packages in a folder: rb-web needs rb-lib, and rb-none cannot be had, as it needs what nobody has.
fn repository(dir: &Path) {
    let mut list = String::new();
    for (name, needs) in [("rb-lib", ""), ("rb-web", "Depends: rb-lib\n"), ("rb-none", "Depends: rb-nowhere\n")] {
        let (tree, file) = (dir.join(name), format!("{name}_1.0_all.deb"));
        for part in ["DEBIAN", "usr/share/rb"] {
            std::fs::create_dir_all(tree.join(part)).unwrap();
        }
        let control = format!(
            "Package: {name}\nVersion: 1.0\nArchitecture: all\nMaintainer: tests <tests@example.com>\n{needs}Description: of the tests\n"
        );
        std::fs::write(tree.join("DEBIAN/control"), &control).unwrap();
        std::fs::write(tree.join("usr/share/rb").join(name), name).unwrap();
        let deb = dir.join("srv/repository").join(&file);
        let built = Command::new("dpkg-deb")
            .args(["--build", "--root-owner-group", "-Znone"])
            .args([&tree, &deb])
            .stdout(Stdio::null())
            .status();
        assert!(built.unwrap().success());
        let sum = text(&Command::new("sha256sum").arg(&deb).output().unwrap().stdout);
        let sum = sum.split_whitespace().next().unwrap();
        let size = std::fs::metadata(&deb).unwrap().len();
        list += &format!("{control}Filename: ./{file}\nSize: {size}\nSHA256: {sum}\n\n");
    }
    std::fs::write(dir.join("srv/repository/Packages"), list).unwrap();
    let source = "deb [trusted=yes] file:/srv/repository ./\n";
    std::fs::write(dir.join("etc/apt/sources.list.d/rb.list"), source).unwrap();
}

/// The same two for dnf, or why there are none. What it needs is not on every machine with Debian's packages.
pub(crate) fn rpm_repository(machine: &Machine) -> Result<(), String> {
    for tool in ["rpmbuild", "createrepo_c", "dnf"] {
        if !Command::new(tool).arg("--version").output().is_ok_and(|o| o.status.success()) {
            return Err(format!("{tool} is not there: apt-get install dnf rpm createrepo-c"));
        }
    }
    let mut lines = vec!["set -e; mkdir /run/rb; cd /run/rb; export HOME=/run/rb".to_owned()];
    for (name, needs) in [("rb-lib", ""), ("rb-web", "Requires: rb-lib\\n")] {
        lines.push(format!(
            "printf 'Name: {name}\\nVersion: 1.0\\nRelease: 1\\nSummary: of the tests\\nLicense: MIT\\nBuildArch: noarch\\n{needs}%%description\\nOf the tests.\\n%%files\\n' >{name}.spec"
        ));
        lines.push(format!("rpmbuild -bb --quiet --define '_rpmdir /srv/rpm' {name}.spec"));
    }
    lines.push("createrepo_c --quiet /srv/rpm".to_owned());
    lines
        .push("printf '[rb]\\nname=rb\\nbaseurl=file:///srv/rpm\\ngpgcheck=0\\n' >/etc/yum.repos.d/rb.repo".to_owned());
    // dnf is what a target is asked for after apt-get.
    lines.push("rm /usr/bin/apt-get".to_owned());
    machine.told(&lines.join("\n"));
    Ok(())
}

impl Machine {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// As `targets` of a playbook name it.
    pub(crate) fn target(&self) -> Value {
        json!({"ssh": {
            "host": "127.0.0.1", "port": self.port, "user": "root", "identity": self.path("etc/rb/id"),
            "options": {"UserKnownHostsFile": self.path("known"), "IdentitiesOnly": "yes"},
        }})
    }

    /// A line of shell there, by hand.
    pub(crate) fn ssh(&self, line: &str) -> Output {
        Command::new("ssh")
            .args(["-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=5", "-o"])
            .arg(format!("UserKnownHostsFile={}", self.path("known").display()))
            .arg("-i")
            .arg(self.path("etc/rb/id"))
            .args(["-p", &self.port.to_string(), "root@127.0.0.1", line])
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    pub(crate) fn told(&self, line: &str) -> String {
        let output = self.ssh(line);
        assert!(output.status.success(), "{line}: {}", text(&output.stderr));
        text(&output.stdout).trim().to_owned()
    }

    /// What it says, whatever its exit code.
    pub(crate) fn said(&self, line: &str) -> String {
        text(&self.ssh(line).stdout).trim().to_owned()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // With its first process go all the others, and with the last one its mounts.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let clear = || Command::new("sh").arg(script()).arg("clear").arg(self.dir.path()).output();
        until("the kernel has let it go", || clear().is_ok_and(|o| o.status.success()));
    }
}
