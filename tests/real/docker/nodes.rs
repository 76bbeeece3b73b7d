//! Three hosts for tests: containers with addresses of their own, each with an sshd and a Docker daemon, and what a
//! registry's installer leaves in /opt/harbor. Their programs are this machine's. In front of them a balancer.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::lab::{Daemon, listing, text, until};

const NETWORK: &str = "nodes";

/// One host.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) address: String,
    dir: PathBuf,
    key: PathBuf,
}

#[derive(Debug)]
pub(crate) struct Nodes {
    pub(crate) all: Vec<Node>,
    /// Where the balancer is, as the nodes reach it.
    pub(crate) balancer: String,
    pub(crate) known_hosts: PathBuf,
    pub(crate) key: PathBuf,
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real/docker").join(name)
}

fn sh(line: &str, dir: &Path) {
    let output = Command::new("sh").args(["-c", line]).current_dir(dir).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{line}: {}", text(&output.stderr));
}

impl Nodes {
    /// `image` is on the outer daemon, and comes to that of every node.
    pub(crate) fn start(daemon: &Daemon, image: &str) -> Self {
        daemon.docker(&["network", "create", NETWORK]);
        let context = daemon.path("node-image");
        std::fs::create_dir_all(&context).unwrap();
        std::fs::write(context.join("Dockerfile"), "FROM scratch\nCOPY Dockerfile /.node\n").unwrap();
        daemon.docker(&["build", "--quiet", "--tag", "test/node", &context.display().to_string()]);
        let (key, saved) = (daemon.path("id"), daemon.path("image.tar"));
        sh("ssh-keygen -q -t ed25519 -N '' -f id; mkdir shared", daemon.path("").as_path());
        daemon.docker(&["save", "--output", &saved.display().to_string(), image]);
        let all: Vec<Node> = (1..=3).map(|n| Node::start(daemon, &format!("node{n}"), &key)).collect();
        let mut known = String::new();
        for node in &all {
            until("a node answers", || node.ssh("docker version >/dev/null").status.success());
            let load = format!("{} docker load <{}", node.ssh_words().join(" "), saved.display());
            sh(&load, &node.dir);
            let host = std::fs::read_to_string(node.dir.join("host.pub")).unwrap();
            known += &format!("{} {host}", node.address);
        }
        let known_hosts = daemon.path("known_hosts");
        std::fs::write(&known_hosts, known).unwrap();
        let gateway = daemon.docker(&["network", "inspect", NETWORK, "--format", "{{(index .IPAM.Config 0).Gateway}}"]);
        let port = balance(all.iter().map(|n| format!("{}:8070", n.address)).collect());
        Self { all, balancer: format!("{gateway}:{port}"), known_hosts, key }
    }

    /// What a run may have touched on every node, with modes, owners and hashes, and what is mounted and runs there.
    pub(crate) fn state(&self) -> String {
        self.all.iter().map(Node::state).collect()
    }
}

impl Node {
    fn start(daemon: &Daemon, name: &str, key: &Path) -> Self {
        let dir = daemon.path(name);
        for part in ["etc/docker", "opt", "root", "mnt"] {
            std::fs::create_dir_all(dir.join(part)).unwrap();
        }
        let put = |at: &str, content: &str| std::fs::write(dir.join(at), content).unwrap();
        put("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nsshd:x:106:65534::/run/sshd:/usr/sbin/nologin\n");
        put("etc/group", "root:x:0:\n");
        put("etc/nsswitch.conf", "hosts: files\n");
        put("etc/fstab", "# no file system of its own\n");
        put("etc/docker/daemon.json", "{\n  \"log-level\": \"warn\"\n}\n");
        put(
            "sshd_config",
            "HostKey /node/host\nAuthorizedKeysFile /node/authorized\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\nPidFile none\n",
        );
        let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
        put("authorized", &public);
        sh(
            "ssh-keygen -q -t ed25519 -N '' -f host; cp -r \"$SRC\" opt/harbor; cp \"$SRC\"/../node.sh ."
                .replace("$SRC", &script("harbor").display().to_string())
                .as_str(),
            &dir,
        );
        let volume = |from: &Path, to: &str| format!("{}:{to}", from.display());
        let mut words: Vec<String> =
            "run --detach --cap-add ALL --cap-drop SYS_RESOURCE --security-opt seccomp=unconfined \
            --security-opt apparmor=unconfined --network nodes"
                .split_whitespace()
                .map(str::to_owned)
                .collect();
        // What the bounding set of this machine lacks cannot be given on.
        words.extend(["--device-cgroup-rule", "a *:* rwm", "--name", name, "--hostname", name].map(str::to_owned));
        for part in ["/usr", "/bin", "/sbin", "/lib", "/lib64"].iter().filter(|p| Path::new(p).exists()) {
            words.extend(["--volume".to_owned(), format!("{part}:{part}:ro")]);
        }
        for part in ["etc", "opt", "root", "mnt"] {
            words.extend(["--volume".to_owned(), volume(&dir.join(part), &format!("/{part}"))]);
        }
        let shared = daemon.path("shared");
        words.extend(["--volume".to_owned(), volume(&dir, "/node"), "--volume".to_owned(), volume(&shared, "/shared")]);
        words.extend(["test/node", "/bin/sh", "/node/node.sh"].map(str::to_owned));
        daemon.docker(&words.iter().map(String::as_str).collect::<Vec<_>>());
        let address =
            daemon.inspect(name)["NetworkSettings"]["Networks"][NETWORK]["IPAddress"].as_str().unwrap().to_owned();
        Self { name: name.to_owned(), address, dir, key: key.to_owned() }
    }

    fn ssh_words(&self) -> Vec<String> {
        let key = self.key.display().to_string();
        let to = format!("root@{}", self.address);
        let options = [
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            "BatchMode=yes",
            "ConnectTimeout=5",
        ];
        let mut words = vec!["ssh".to_owned(), "-i".to_owned(), key];
        words.extend(options.iter().flat_map(|o| ["-o".to_owned(), (*o).to_owned()]));
        words.push(to);
        words
    }

    /// A line of shell on the node, by hand.
    pub(crate) fn ssh(&self, line: &str) -> Output {
        let words = self.ssh_words();
        Command::new(&words[0]).args(&words[1..]).arg(line).stdin(Stdio::null()).output().unwrap()
    }

    pub(crate) fn told(&self, line: &str) -> String {
        let output = self.ssh(line);
        assert!(output.status.success(), "{}: {line}: {}", self.name, text(&output.stderr));
        text(&output.stdout).trim().to_owned()
    }

    fn state(&self) -> String {
        let files: Vec<String> =
            ["etc", "opt", "root", "mnt"].iter().map(|part| listing(&self.dir.join(part))).collect();
        let docker = self.told("docker ps --all --format '{{.Names}}'; docker network ls --quiet --filter type=custom; docker volume ls --quiet");
        let mounts = self.told("grep -c /mnt/harbor /proc/self/mountinfo || true");
        let temporary = self.told("ls -A /tmp /var/tmp");
        format!("{}\n{}{docker}\n{mounts}\n{temporary}\n", self.name, files.concat())
    }
}

/// Takes connections on a port of every address, and gives each to the next of the backends. It lives as long as the test.
fn balance(backends: Vec<String>) -> u16 {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let turn = Arc::new(AtomicUsize::new(0));
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let backend = backends[turn.fetch_add(1, Ordering::Relaxed) % backends.len()].clone();
            std::thread::spawn(move || {
                let Ok(server) = TcpStream::connect(backend) else { return };
                let (mut up, mut down) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let mut to_server = server;
                let upward = std::thread::spawn(move || {
                    let _ = std::io::copy(&mut up, &mut to_server);
                    let _ = to_server.shutdown(std::net::Shutdown::Write);
                });
                let mut bytes = Vec::new();
                let _ = down.read_to_end(&mut bytes);
                let mut client = client;
                let _ = std::io::Write::write_all(&mut client, &bytes);
                let _ = client.shutdown(std::net::Shutdown::Both);
                let _ = upward.join();
            });
        }
    });
    port
}
