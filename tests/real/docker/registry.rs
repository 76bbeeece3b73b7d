//! A registry of our own on a loopback port: Debian's docker-registry, 2.8.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::lab::{Daemon, free_port, text, until};

/// It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Registry {
    child: Child,
    pub(crate) address: String,
}

/// What configures it, apart from its address and folder.
const CONFIG: &str = "version: 0.1\nstorage: { filesystem: { rootdirectory: ROOT } }\nhttp: { addr: ADDRESS }\n";

fn program() -> Option<String> {
    let found = Command::new("sh").args(["-c", "command -v docker-registry"]).output().unwrap();
    let program = text(&found.stdout).trim().to_owned();
    if program.is_empty() {
        let why = "docker-registry is not there: apt-get install docker-registry";
        assert!(std::env::var_os("CI").is_none_or(|v| v.is_empty()), "{why}");
        eprintln!("SKIPPED: {why}");
        return None;
    }
    Some(program)
}

impl Registry {
    /// With a password, `deploy` is the only user.
    pub(crate) fn start(dir: &Path, password: Option<&str>) -> Option<Self> {
        let program = program()?;
        let port = free_port();
        let address = format!("127.0.0.1:{port}");
        let name = format!("registry-{port}");
        let root = dir.join(&name);
        std::fs::create_dir(&root).unwrap();
        let mut config = CONFIG.replace("ROOT", &root.display().to_string()).replace("ADDRESS", &address);
        if let Some(password) = password {
            let hash = "import crypt, sys; print('deploy:' + crypt.crypt(sys.argv[1], crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=16)))";
            let line = Command::new("/usr/bin/python3").args(["-W", "ignore", "-c", hash, password]).output().unwrap();
            let users = dir.join(format!("{name}.users"));
            std::fs::write(&users, line.stdout).unwrap();
            config += &format!("auth: {{ htpasswd: {{ realm: test, path: {} }} }}\n", users.display());
        }
        let file = dir.join(format!("{name}.yml"));
        std::fs::write(&file, config).unwrap();
        let log = std::fs::File::create(dir.join(format!("{name}.log"))).unwrap();
        let child =
            Command::new(program).arg("serve").arg(file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        let registry = Self { child: child.unwrap(), address };
        until("the registry listens", || std::net::TcpStream::connect(&registry.address).is_ok());
        Some(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An image of the registry, called as Docker's own is: the program, and the libraries that it is linked with.
pub(crate) fn image(daemon: &Daemon, name: &str) -> Option<()> {
    let program = program()?;
    let context = daemon.path("registry-image");
    std::fs::create_dir(&context).unwrap();
    let libraries = "for f in $(ldd \"$0\" | grep -oE '/[^ ]+'); do mkdir -p root$(dirname $f); cp -L $f root$f; done; cp \"$0\" root/registry";
    let copied = Command::new("sh").args(["-c", libraries, &program]).current_dir(&context).status().unwrap();
    assert!(copied.success());
    std::fs::write(
        context.join("root/config.yml"),
        CONFIG.replace("ROOT", "/var/lib/registry").replace("ADDRESS", "\":5000\""),
    )
    .unwrap();
    std::fs::write(
        context.join("Dockerfile"),
        "FROM scratch\nCOPY root /\nCMD [\"/registry\", \"serve\", \"/config.yml\"]\n",
    )
    .unwrap();
    daemon.docker(&["build", "--quiet", "--tag", name, &context.display().to_string()]);
    Some(())
}
