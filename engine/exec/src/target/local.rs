//! The machine that runback runs on, as a target. Commands go through `process`, files through `files`, and what
//! outlives runback through `detached`. Knows nothing of steps.
//!
//! File work runs on tokio's blocking threads, also the small: a `stat` on a dead network file system hangs for
//! ever, and here it hangs alone, while the driver goes on, tells about it and can stop. The price is about 20 µs
//! a call. A process that ends while such a thread hangs must not wait for it (`Runtime::shutdown_background`).

mod detached;
mod files;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use runback_core::target::{
    Command, Detached, DetachedState, Exit, FileAttributes, FileStat, Stream, Target, TargetError, TargetErrorKind,
    Watch, output_file,
};
use sha2::{Digest, Sha256};

use self::files::Abandoned;
use crate::process::Processes;

/// How long a directory service may take to answer `getent`.
const LOOKUP: Duration = Duration::from_secs(20);

/// How long to wait for others to leave a folder alone. They need milliseconds, or as long as the disk takes to keep what
/// they note; without the lock, a line that another writes meanwhile can be lost.
const FOLDER_LOCK: Duration = Duration::from_secs(120);
const FOLDER_LOCK_POLL: Duration = Duration::from_millis(3);

/// `local`: commands and files of this machine.
#[derive(Debug)]
pub struct LocalTarget {
    base: PathBuf,
    detached_root: PathBuf,
    processes: Arc<Processes>,
}

/// For commands of our own, which nobody watches.
struct Unwatched;

#[async_trait::async_trait]
impl Watch for Unwatched {
    fn output(&self, _stream: Stream, _bytes: &[u8]) {}

    async fn stopped(&self) {
        std::future::pending::<()>().await;
    }

    fn kill_grace(&self) -> Duration {
        Duration::ZERO
    }
}

fn absolute(path: PathBuf) -> PathBuf {
    let path = if path.as_os_str().is_empty() { PathBuf::from(".") } else { path };
    std::path::absolute(&path).unwrap_or(path)
}

impl LocalTarget {
    /// `base` is the folder of the playbook: where commands run and relative paths begin. `detached_root` is where
    /// records of detached commands go; it must survive runback, and is made when it is needed.
    pub fn new(base: PathBuf, detached_root: PathBuf, processes: Arc<Processes>) -> Self {
        Self { base: absolute(base), detached_root: absolute(detached_root), processes }
    }

    /// For what else runs commands on this machine (`ssh`).
    pub fn processes(&self) -> &Arc<Processes> {
        &self.processes
    }

    fn path(&self, path: &str) -> PathBuf {
        self.base.join(path)
    }

    async fn id(&self, database: &'static str, what: &str, name: &str) -> Result<u32, TargetError> {
        if let Ok(id) = name.parse() {
            return Ok(id);
        }
        let file = blocking(move |_| files::read(Path::new("/etc").join(database).as_path(), 64 << 20)).await;
        if let Some(id) = file.ok().and_then(|text| entry_id(&text, name)) {
            return Ok(id);
        }
        // Not in the file: LDAP, SSSD and the like. `getent` asks what the machine is set up to ask.
        let command = Command { log_output: false, ..Command::new(["getent", database, name]) };
        let command = command.keep_stdout(64 << 10).timeout(LOOKUP);
        let answer = match self.processes.run(&command, &self.base, &Unwatched).await {
            Ok(exit) => entry_id(&exit.stdout, name),
            Err(e) if e.kind == TargetErrorKind::CommandNotFound => None,
            Err(e) => return Err(e),
        };
        answer.ok_or_else(|| {
            TargetError::new(TargetErrorKind::NotFound, format!("there is no {what} {name} on this machine"))
                .help(format!("see `getent {database}`, or give a number"))
        })
    }
}

/// The third field of the line `name:…:id:…`, as /etc/passwd and /etc/group have it.
fn entry_id(text: &[u8], name: &str) -> Option<u32> {
    let line = text.split(|&b| b == b'\n').find_map(|line| {
        let line = std::str::from_utf8(line).ok()?;
        line.strip_prefix(name)?.strip_prefix(':')
    })?;
    line.split(':').nth(1)?.parse().ok()
}

/// Runs blocking work on a thread of its own. If the caller is dropped meanwhile, the work learns it by the token.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce(&Abandoned) -> Result<T, TargetError> + Send + 'static,
) -> Result<T, TargetError> {
    struct Waits(Arc<Abandoned>);
    impl Drop for Waits {
        fn drop(&mut self) {
            self.0.set();
        }
    }
    let waits = Waits(Arc::default());
    let token = Arc::clone(&waits.0);
    match tokio::task::spawn_blocking(move || work(&token)).await {
        Ok(done) => done,
        Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
        Err(_) => Err(TargetError::new(TargetErrorKind::Cancelled, "runback is ending")),
    }
}

#[async_trait::async_trait]
impl Target for LocalTarget {
    #[expect(clippy::unnecessary_literal_bound, reason = "the trait's signature")]
    fn name(&self) -> &str {
        "local"
    }

    fn is_local(&self) -> bool {
        true
    }

    async fn run(&self, command: &Command, watch: &dyn Watch) -> Result<Exit, TargetError> {
        self.processes.run(command, &self.base, watch).await
    }

    async fn start_detached(&self, command: &Command, dir: &str) -> Result<Detached, TargetError> {
        let dir = self.path(dir).to_string_lossy().into_owned();
        detached::start(&self.processes, command, &self.base, &dir).await
    }

    async fn detached_state(&self, detached: &Detached) -> Result<DetachedState, TargetError> {
        Ok(detached::state(detached))
    }

    async fn attach(&self, detached: &Detached, command: &Command, watch: &dyn Watch) -> Result<Exit, TargetError> {
        detached::attach(detached, command, watch).await
    }

    async fn forget_detached(&self, detached: &Detached) -> Result<(), TargetError> {
        detached::forget(detached)?;
        match self.remove_file(&output_file(&detached.dir)).await {
            Err(error) if error.kind != TargetErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The step's path made into one name; its hash keeps `a/b` and `a_b` apart.
    fn detached_dir(&self, run: &str, step: &str, attempt: u32) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() || "-.".contains(c) { c } else { '_' };
        let name: String = step.chars().map(plain).take(80).collect();
        let hash = Sha256::digest(step.as_bytes());
        let tag = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
        let dir = self.detached_root.join(run).join(format!("{name}.{tag:08x}.{attempt}"));
        dir.to_string_lossy().into_owned()
    }

    async fn stat(&self, path: &str) -> Result<Option<FileStat>, TargetError> {
        let path = self.path(path);
        blocking(move |_| files::stat(&path)).await
    }

    async fn read(&self, path: &str, limit: u64) -> Result<Vec<u8>, TargetError> {
        let path = self.path(path);
        blocking(move |_| files::read(&path, limit)).await
    }

    async fn sha256(&self, path: &str) -> Result<String, TargetError> {
        let path = self.path(path);
        blocking(move |_| files::sha256(&path)).await
    }

    async fn write(&self, path: &str, bytes: &[u8], attributes: &FileAttributes) -> Result<(), TargetError> {
        let (path, bytes, attributes) = (self.path(path), bytes.to_vec(), attributes.clone());
        blocking(move |abandoned| files::write(&path, &bytes, &attributes, abandoned)).await
    }

    async fn alone_in_folder(&self, path: &str) -> Option<Box<dyn std::any::Any + Send>> {
        let path = self.path(path);
        let until = tokio::time::Instant::now() + FOLDER_LOCK;
        loop {
            let path = path.clone();
            match blocking(move |_| Ok(files::lock_folder(&path))).await {
                Ok(Ok(Some(folder))) => return Some(Box::new(folder)),
                Ok(Ok(None)) if tokio::time::Instant::now() < until => tokio::time::sleep(FOLDER_LOCK_POLL).await,
                _ => return None,
            }
        }
    }

    async fn set_attributes(&self, path: &str, attributes: &FileAttributes) -> Result<(), TargetError> {
        let (path, attributes) = (self.path(path), attributes.clone());
        blocking(move |_| files::set_attributes(&path, &attributes)).await
    }

    async fn symlink(&self, link: &str, points_to: &str) -> Result<(), TargetError> {
        let (link, points_to) = (self.path(link), points_to.to_owned());
        blocking(move |_| files::symlink(&link, &points_to)).await
    }

    async fn create_dir(&self, path: &str, mode: Option<u32>) -> Result<(), TargetError> {
        let path = self.path(path);
        blocking(move |_| files::create_dir(&path, mode)).await
    }

    async fn list(&self, path: &str) -> Result<Vec<String>, TargetError> {
        let path = self.path(path);
        blocking(move |_| files::list(&path)).await
    }

    async fn clear_leftovers(&self, path: &str) -> Result<(), TargetError> {
        let path = self.path(path);
        blocking(move |_| files::clear_leftovers(&path)).await
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), TargetError> {
        let (from, to) = (self.path(from), self.path(to));
        blocking(move |_| files::rename(&from, &to)).await
    }

    async fn copy(&self, from: &str, to: &str) -> Result<(), TargetError> {
        let (from, to) = (self.path(from), self.path(to));
        blocking(move |abandoned| files::copy(&from, &to, abandoned)).await
    }

    async fn remove_file(&self, path: &str) -> Result<(), TargetError> {
        let path = self.path(path);
        blocking(move |_| files::remove_file(&path)).await
    }

    async fn remove_dir(&self, path: &str) -> Result<(), TargetError> {
        let path = self.path(path);
        blocking(move |_| files::remove_dir(&path)).await
    }

    async fn remove_tree(&self, path: &str) -> Result<(), TargetError> {
        let path = self.path(path);
        blocking(move |_| files::remove_tree(&path)).await
    }

    async fn free_space(&self, path: &str) -> Result<u64, TargetError> {
        let path = self.path(path);
        blocking(move |_| files::free_space(&path)).await
    }

    async fn user_id(&self, name: &str) -> Result<u32, TargetError> {
        self.id("passwd", "user", name).await
    }

    async fn group_id(&self, name: &str) -> Result<u32, TargetError> {
        self.id("group", "group", name).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_found_by_its_whole_name() {
        let text = b"root:x:0:0::/:/bin/sh\nrootless:x:7:7::/:/bin/sh\nbroken\n";
        assert_eq!(entry_id(text, "root"), Some(0));
        assert_eq!(entry_id(text, "rootless"), Some(7));
        assert_eq!(entry_id(text, "roo"), None);
        assert_eq!(entry_id(text, "broken"), None);
    }

    #[test]
    fn records_of_two_steps_never_share_a_folder() {
        let target = LocalTarget::new("/p".into(), "/d".into(), Processes::without_guard());
        let dir = target.detached_dir("r1", "deploy/convert[web1]", 2);
        assert!(dir.starts_with("/d/r1/deploy_convert_web1_."), "{dir}");
        assert!(dir.ends_with(".2"), "{dir}");
        assert_ne!(target.detached_dir("r1", "a/b", 1), target.detached_dir("r1", "a_b", 1));
    }

    #[test]
    fn an_empty_base_is_the_current_folder() {
        let target = LocalTarget::new(PathBuf::new(), "d".into(), Processes::without_guard());
        assert!(target.base.is_absolute() && target.detached_root.is_absolute());
    }
}
