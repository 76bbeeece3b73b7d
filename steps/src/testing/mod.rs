//! What tests of step types stand on: a host that records, a target on a temporary directory that can be told
//! to fail, and a lab that joins both. Knows no step type.

#![expect(clippy::unwrap_used, reason = "tests")]

mod breaks;
mod host;
mod target;

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use runback_core::Json;
use runback_core::step::{Acted, AnyStepType, Cx, InputProblem, Preview, Probe, StepError, Undone};
use runback_core::target::Detached;

pub(crate) use breaks::break_everywhere;
pub(crate) use host::{START_MS, TestHost};
pub(crate) use target::{Failing, TestTarget};

/// An action that succeeded, as the engine would remember it.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) capture: Json,
    pub(crate) outputs: Json,
    pub(crate) changed: bool,
}

/// A temporary folder that is the playbook's base, with a target and a host around it. The methods go through
/// [`AnyStepType`], as the engine does, so that everything takes the way through JSON.
#[derive(Debug)]
pub(crate) struct Lab {
    /// Goes with the lab.
    _dir: tempfile::TempDir,
    pub(crate) host: TestHost,
    pub(crate) target: TestTarget,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) step: String,
    pub(crate) attempt: u32,
    pub(crate) force: bool,
    pub(crate) detach: bool,
    pub(crate) reattach: Option<Detached>,
}

impl Lab {
    /// Call it inside a tokio runtime: the clock is tokio's.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // The real path: a temporary folder behind a link would make every path of a test differ from the target's.
        let base = dir.path().canonicalize().unwrap();
        Self {
            _dir: dir,
            host: TestHost::default(),
            target: TestTarget::new(base),
            env: BTreeMap::new(),
            step: "step".to_owned(),
            attempt: 1,
            force: false,
            detach: false,
            reattach: None,
        }
    }

    pub(crate) fn cx(&self) -> Cx<'_> {
        Cx {
            run: "r1",
            step: &self.step,
            attempt: self.attempt,
            target: &self.target,
            env: &self.env,
            base: &self.target.base,
            force: self.force,
            detach: self.detach,
            reattach: self.reattach.as_ref(),
            host: &self.host,
        }
    }

    /// Another lab's machine is a target of this one's playbook.
    pub(crate) fn knows(&self, name: &str, other: &Lab) {
        let target = TestTarget::new(other.target.base.clone());
        self.host.targets.lock().unwrap().insert(name.to_owned(), std::sync::Arc::new(target));
    }

    /// The absolute path of a name in the lab.
    pub(crate) fn path(&self, name: &str) -> String {
        self.target.base.join(name).to_string_lossy().into_owned()
    }

    pub(crate) fn put(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.target.base.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    pub(crate) fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    pub(crate) fn exists(&self, name: &str) -> bool {
        std::fs::symlink_metadata(self.path(name)).is_ok()
    }

    pub(crate) fn mode(&self, name: &str) -> u32 {
        std::fs::metadata(self.path(name)).unwrap().mode() & 0o7777
    }

    pub(crate) fn set_mode(&self, name: &str, mode: u32) {
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Everything in the lab: path → kind, mode and content or link, to compare before with after.
    pub(crate) fn snapshot(&self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        let mut todo = vec![self.target.base.clone()];
        while let Some(dir) = todo.pop() {
            for entry in std::fs::read_dir(&dir).unwrap() {
                let path = entry.unwrap().path();
                let meta = path.symlink_metadata().unwrap();
                let name = path.strip_prefix(&self.target.base).unwrap().to_string_lossy().into_owned();
                let what = if meta.is_symlink() {
                    format!("-> {}", std::fs::read_link(&path).unwrap().display())
                } else if meta.is_dir() {
                    todo.push(path);
                    format!("dir {:o}", meta.mode() & 0o7777)
                } else {
                    let bytes = std::fs::read(&path).unwrap();
                    let digest = crate::file::sha256_hex(&bytes);
                    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
                    format!("file {:o} {} {digest} {shown:?}", meta.mode() & 0o7777, bytes.len())
                };
                all.insert(name, what);
            }
        }
        all
    }

    pub(crate) fn problems(step_type: &dyn AnyStepType, with: &Json) -> Vec<InputProblem> {
        step_type.problems(with)
    }

    /// Capture, then act.
    pub(crate) async fn run(&self, step_type: &dyn AnyStepType, with: &Json) -> Result<Ran, StepError> {
        let capture = self.capture(step_type, with).await?;
        let acted = self.act(step_type, with, &capture).await?;
        Ok(Ran { capture, outputs: acted.outputs, changed: acted.changed })
    }

    pub(crate) async fn capture(&self, step_type: &dyn AnyStepType, with: &Json) -> Result<Json, StepError> {
        step_type.capture(&self.cx(), with).await
    }

    pub(crate) async fn act(
        &self,
        step_type: &dyn AnyStepType,
        with: &Json,
        capture: &Json,
    ) -> Result<Acted<Json>, StepError> {
        step_type.act(&self.cx(), with, capture).await
    }

    pub(crate) async fn preview(&self, step_type: &dyn AnyStepType, with: &Json) -> Result<Preview, StepError> {
        step_type.preview(&self.cx(), with).await
    }

    pub(crate) async fn probe(
        &self,
        step_type: &dyn AnyStepType,
        with: &Json,
        capture: &Json,
    ) -> Result<Probe<Json>, StepError> {
        step_type.probe(&self.cx(), with, capture).await
    }

    pub(crate) async fn undo(&self, step_type: &dyn AnyStepType, with: &Json, ran: &Ran) -> Result<Undone, StepError> {
        step_type.undo(&self.cx(), with, &ran.capture, Some(&ran.outputs)).await
    }

    /// The undo of an action that did not finish.
    pub(crate) async fn undo_unfinished(
        &self,
        step_type: &dyn AnyStepType,
        with: &Json,
        capture: &Json,
    ) -> Result<Undone, StepError> {
        step_type.undo(&self.cx(), with, capture, None).await
    }
}
