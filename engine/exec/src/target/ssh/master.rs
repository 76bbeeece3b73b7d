//! The multiplexed connection to one host: an `ssh` of ours that runs for as long as the target is used, and whose
//! control socket lies in the private scratch folder of this process. Its own session tells what the far side
//! can do. Knows nothing of what runs through it.
//!
//! The master is a command like any other, so it is stopped with its target, and by the guard when runback is killed.
//! `~/.ssh/config`, agents, jump hosts and known_hosts are ssh's own business; the host key is always checked.

use std::fs::File;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use runback_core::playbook::model::SshTarget as SshConfig;
use runback_core::target::{Command, Stream, TargetError, TargetErrorKind, Watch};
use tokio::sync::{Notify, Semaphore, watch};

use super::session::{self, Call, Ended, Reply};
use super::{diagnose, script};
use crate::process::Processes;

/// Sessions at a time; sshd's default for MaxSessions is 10, and one is the master's own.
const SESSIONS: usize = 9;
/// From the start of ssh until its first session answers: connecting, jump hosts, authentication.
const CONNECT: Duration = Duration::from_secs(60);
/// How long to ask again where the server takes fewer sessions than [`SESSIONS`].
const SESSION_WAIT: Duration = Duration::from_secs(60);

/// What the far side told about itself.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// The login's name.
    pub(super) user: String,
    /// `dd` knows `iflag=fullblock`, so a known number of bytes is read from a pipe without reading on.
    pub(super) exact_blocks: bool,
}

/// A host, connected or not.
pub(super) struct Host {
    config: SshConfig,
    label: String,
    /// Where a relative `identity` counts from.
    base: PathBuf,
    processes: Arc<Processes>,
    link: tokio::sync::Mutex<Option<Arc<Link>>>,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Host").field(&self.label).finish()
    }
}

/// An open master. Dropped, it ends.
pub(super) struct Link {
    socket: String,
    pub(super) facts: Facts,
    sessions: Semaphore,
    stop: Arc<Notify>,
    ended: watch::Receiver<bool>,
    /// Its end ends the master's own session.
    _stdin: File,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.stop.notify_one();
    }
}

impl Link {
    pub(super) fn socket(&self) -> &str {
        &self.socket
    }

    fn alive(&self) -> bool {
        !*self.ended.borrow()
    }
}

/// 16 hex digits that nobody guesses and that differ from call to call.
pub(super) fn random_key() -> String {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
    hasher.write_u64(LAST.fetch_add(1, Ordering::Relaxed));
    format!("{:016x}", hasher.finish())
}

/// Watches the master itself: collects what it says until it is ready.
struct MasterTap {
    key: String,
    out: Mutex<Vec<u8>>,
    ready: Notify,
    stop: Arc<Notify>,
}

#[async_trait::async_trait]
impl Watch for MasterTap {
    fn output(&self, stream: Stream, bytes: &[u8]) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        // A login shell may print without end; what counts comes first.
        if stream == Stream::Stdout && out.len() < 1 << 20 {
            out.extend_from_slice(bytes);
            let ready = format!("ready={}\n", self.key);
            if out.windows(ready.len()).any(|w| w == ready.as_bytes()) {
                self.ready.notify_one();
            }
        }
    }

    async fn stopped(&self) {
        self.stop.notified().await;
    }

    fn kill_grace(&self) -> Duration {
        Duration::from_secs(2)
    }
}

impl Host {
    pub(super) fn new(config: SshConfig, base: PathBuf, processes: Arc<Processes>) -> Result<Self, TargetError> {
        let refused = |message: String, help: &str| Err(TargetError::new(TargetErrorKind::Refused, message).help(help));
        let host = config.host.as_str();
        if host.is_empty() || host.starts_with('-') || host.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return refused(format!("{host:?} is no host name"), "give it as ssh takes it, such as admin@web1");
        }
        let weak = |(key, value): &&(String, String)| {
            key.eq_ignore_ascii_case("StrictHostKeyChecking") && matches!(value.as_str(), "no" | "off")
        };
        if config.options.iter().find(weak).is_some() {
            return refused(
                format!("{host}: StrictHostKeyChecking=no is not accepted: host keys are always checked"),
                "use accept-new to take the key of a host that was never seen before",
            );
        }
        let user = config.user.as_ref().map(|u| format!("{u}@")).unwrap_or_default();
        let port = config.port.map(|p| format!(":{p}")).unwrap_or_default();
        let label = format!("{user}{host}{port}");
        Ok(Self { config, label, base, processes, link: tokio::sync::Mutex::default() })
    }

    pub(super) fn label(&self) -> &str {
        &self.label
    }

    /// The first mention of an option counts, so ours that must hold come before the playbook's, and our defaults after.
    fn argv(&self, socket: &str) -> Vec<String> {
        let mut argv: Vec<String> = ["ssh", "-T", "-S", socket].map(str::to_owned).into();
        let mut option = |o: &str| argv.extend(["-o".to_owned(), o.to_owned()]);
        let accept_new = |(key, value): &(String, String)| {
            key.eq_ignore_ascii_case("StrictHostKeyChecking") && value == "accept-new"
        };
        let check = if self.config.options.iter().any(accept_new) { "accept-new" } else { "yes" };
        option(&format!("StrictHostKeyChecking={check}"));
        for fixed in [
            "BatchMode=yes",
            "ControlMaster=yes",
            "ControlPersist=no",
            "ClearAllForwardings=yes",
            "RemoteCommand=none",
            "LogLevel=ERROR",
        ] {
            option(fixed);
        }
        for (key, value) in &self.config.options {
            option(&format!("{key}={value}"));
        }
        for default in ["ConnectTimeout=15", "ServerAliveInterval=5", "ServerAliveCountMax=3"] {
            option(default);
        }
        let flags = [
            ("-l", self.config.user.clone()),
            ("-p", self.config.port.map(|p| p.to_string())),
            ("-i", self.config.identity.clone()),
        ];
        argv.extend(flags.into_iter().filter_map(|(flag, value)| Some([flag.to_owned(), value?])).flatten());
        argv.push(self.config.host.clone());
        argv
    }

    /// What the login shell is given to load a program.
    pub(super) fn loader(&self, link: &Link) -> String {
        script::loader(self.config.become_user.as_deref().filter(|user| *user != link.facts.user))
    }

    /// The open master; a new one where there is none, or where it has ended.
    async fn link(&self) -> Result<Arc<Link>, TargetError> {
        let mut slot = self.link.lock().await;
        if let Some(link) = slot.as_ref().filter(|link| link.alive()) {
            return Ok(Arc::clone(link));
        }
        *slot = None;
        let link = Arc::new(self.connect().await?);
        *slot = Some(Arc::clone(&link));
        Ok(link)
    }

    async fn connect(&self) -> Result<Link, TargetError> {
        let broken = |e: std::io::Error| {
            TargetError::new(TargetErrorKind::Other, format!("{}: no master can be started: {e}", self.label))
        };
        let key = random_key();
        let socket = self.processes.scratch().map_err(broken)?.join(&key).to_string_lossy().into_owned();
        let (reader, writer) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| broken(e.into()))?;
        let mut stdin = File::from(writer);
        // Less than the pipe holds.
        stdin.write_all(script::probe_line(&key, self.config.become_user.as_deref()).as_bytes()).map_err(broken)?;
        let mut argv = self.argv(&socket);
        argv.push(script::loader(None));
        let stop = Arc::new(Notify::new());
        let tap = Arc::new(MasterTap { key, out: Mutex::default(), ready: Notify::new(), stop: Arc::clone(&stop) });
        let (end, ended) = watch::channel(false);
        let (processes, base, watch) = (Arc::clone(&self.processes), self.base.clone(), Arc::clone(&tap));
        let mut master = tokio::spawn(async move {
            let exit = processes.run_with_stdin(&Command::new(argv), &base, &*watch, reader).await;
            let _ = end.send(true);
            exit
        });
        // From here on an early return, or being dropped, ends the master.
        let mut link =
            Link { socket, facts: Facts::default(), sessions: Semaphore::new(SESSIONS), stop, ended, _stdin: stdin };
        tokio::select! {
            biased;
            () = tap.ready.notified() => {}
            exit = &mut master => {
                let exit = exit.map_err(|e| broken(std::io::Error::other(e)))??;
                return Err(diagnose::diagnose(&self.label, &exit.stderr_text()));
            }
            () = tokio::time::sleep(CONNECT) => {
                let message = format!("{} cannot be reached: no answer within {} s", self.label, CONNECT.as_secs());
                return Err(TargetError::new(TargetErrorKind::Connection, message)
                    .help("try `ssh` to it by hand: it may ask something, or its login shell may hang"));
            }
        }
        let out = std::mem::take(&mut *tap.out.lock().unwrap_or_else(PoisonError::into_inner));
        let out = String::from_utf8_lossy(&out);
        let fact = |name: &str| out.lines().rev().find_map(|l| l.strip_prefix(name)?.strip_prefix('='));
        link.facts =
            Facts { user: fact("user").unwrap_or_default().to_owned(), exact_blocks: fact("blocks") == Some("1") };
        if let (Some(user), Some(said)) = (&self.config.become_user, fact("sudo").map(str::trim))
            && said != "ok"
        {
            return Err(diagnose::sudo(&self.label, user, said));
        }
        Ok(link)
    }

    /// Runs a program there. `Connection` = the connection could not be made, or was lost while it ran; then what
    /// it did is not known.
    pub(super) async fn call(&self, call: &Call<'_>, watch: &dyn Watch) -> Result<Reply, TargetError> {
        let stopped = || TargetError::new(TargetErrorKind::Cancelled, format!("{} was stopped", call.name));
        let give_up = tokio::time::Instant::now() + SESSION_WAIT;
        let mut pause = Duration::from_millis(20);
        let mut reconnected = false;
        loop {
            let link = tokio::select! {
                biased;
                link = self.link() => link?,
                () = watch.stopped() => return Err(stopped()),
            };
            let permit = tokio::select! {
                biased;
                permit = link.sessions.acquire() => permit,
                () = watch.stopped() => return Err(stopped()),
            };
            let ended = session::run(self, &link, call, watch).await?;
            drop(permit);
            match ended {
                Ended::Reply(reply) => return Ok(reply),
                Ended::NoSession if tokio::time::Instant::now() < give_up => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(1));
                }
                Ended::NoSession => {
                    let message = format!("{} takes no further session on its connection", self.label);
                    return Err(TargetError::new(TargetErrorKind::Connection, message)
                        .help("raise MaxSessions in its sshd_config (default 10), or run fewer steps at once there"));
                }
                Ended::NoMaster if !reconnected => {
                    reconnected = true;
                    self.forget(&link).await;
                }
                Ended::NoMaster => {
                    let message =
                        format!("{}: the connection was lost twice before {} could start", self.label, call.name);
                    return Err(TargetError::new(TargetErrorKind::Connection, message));
                }
                Ended::Lost { stderr } => {
                    self.forget(&link).await;
                    return Err(self.lost(call, &stderr));
                }
            }
        }
    }

    fn lost(&self, call: &Call<'_>, stderr: &str) -> TargetError {
        let sudo = stderr.lines().rev().find(|l| l.starts_with("sudo:"));
        if let (Some(user), Some(sudo)) = (&self.config.become_user, sudo) {
            return diagnose::sudo(&self.label, user, sudo);
        }
        let message = format!("the connection to {} was lost while {} ran", self.label, call.name);
        TargetError::new(TargetErrorKind::Connection, message)
            .help("what it did before is not known; its processes are stopped there as soon as the host sees the cut")
    }

    /// Makes the next call connect anew, unless somebody did already.
    async fn forget(&self, link: &Arc<Link>) {
        let mut slot = self.link.lock().await;
        if slot.as_ref().is_some_and(|s| Arc::ptr_eq(s, link)) {
            *slot = None;
        }
    }

    /// Ends the master and waits for it.
    pub(super) async fn close(&self) {
        let Some(link) = self.link.lock().await.take() else { return };
        let mut ended = link.ended.clone();
        link.stop.notify_one();
        drop(link);
        // An error means that its task is gone, and it with it.
        let _ = ended.wait_for(|ended| *ended).await;
    }
}
