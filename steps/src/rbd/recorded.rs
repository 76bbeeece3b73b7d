//! For tests: a target that answers commands as a real Ceph 16.2.15 did, and what it answered.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Mutex;

use runback_core::Json;
use runback_core::step::{Acted, AnyStepType, Cx, Preview, Probe, StepError, Undone};
use runback_core::target::{
    Command, Detached, DetachedState, Exit, FileAttributes, FileKind, FileStat, Stream, Target, TargetError,
    TargetErrorKind, Watch,
};

use crate::testing::{Ran, TestHost};

pub(crate) const INFO: &str = r#"{"name":"img","id":"100811574f3a","size":16777216,"objects":4,"order":22,"object_size":4194304,"snapshot_count":0,"block_name_prefix":"rbd_data.100811574f3a","format":2,"features":["layering","exclusive-lock","object-map","fast-diff","deep-flatten"],"op_features":[],"flags":[],"create_timestamp":"Sat Nov 21 19:42:26 2026","access_timestamp":"Sat Nov 21 19:42:26 2026","modify_timestamp":"Sat Nov 21 19:42:26 2026"}
"#;
pub(crate) const KUBELET: &str =
    r#"[{"id":"kubelet_lock_magic_node1","locker":"client.4112","address":"127.0.0.1:0/2494281927"}]"#;
pub(crate) const KUBELET_TEXT: &str = "\
There is 1 exclusive lock on this image.
Locker       ID                        Address               \n\
client.4112  kubelet_lock_magic_node1  127.0.0.1:0/2494281927
";
pub(crate) const SHARED: &str = r#"[{"id":"a","locker":"client.4122","address":"127.0.0.1:0/1296556246"},{"id":"b","locker":"client.4124","address":"127.0.0.1:0/2531832978"}]"#;
pub(crate) const SHARED_TEXT: &str = "\
There are 2 shared locks on this image.
Lock tag: tag1
Locker       ID  Address               \n\
client.4122  a   127.0.0.1:0/1296556246
client.4124  b   127.0.0.1:0/2531832978
";
pub(crate) const AUTO: &str =
    r#"[{"id":"auto 140090290476128","locker":"client.4244","address":"127.0.0.1:0/3840278050"}]"#;
pub(crate) const AUTO_TEXT: &str = "\
There is 1 exclusive lock on this image.
Locker       ID                    Address               \n\
client.4244  auto 140090290476128  127.0.0.1:0/3840278050
";
pub(crate) const UNWATCHED: &str = r#"{"watchers":[]}"#;
pub(crate) const WATCHED: &str =
    r#"{"watchers":[{"address":"127.0.0.1:0/3840278050","client":4244,"cookie":140090290476128}]}"#;

#[derive(Debug, Clone)]
struct Answer {
    code: i32,
    stdout: String,
    stderr: String,
    /// The command is over its limit instead.
    hangs: bool,
}

/// A target far away. Commands are recognised by their end; those that nobody scripted fail the test.
#[derive(Debug, Default)]
pub(crate) struct Far {
    pub(crate) host: TestHost,
    always: Mutex<Vec<(String, Answer)>>,
    once: Mutex<Vec<(String, VecDeque<Answer>)>>,
    missing: Mutex<Vec<String>>,
    files: Mutex<BTreeMap<String, String>>,
    pub(crate) ran: Mutex<Vec<Command>>,
    env: BTreeMap<String, String>,
    pub(crate) force: bool,
}

fn ends(argv: &str, end: &str) -> bool {
    argv == end || argv.strip_suffix(end).is_some_and(|rest| rest.ends_with(' '))
}

impl Far {
    /// Call it inside a tokio runtime: the clock is tokio's.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A command that ends like this prints that.
    pub(crate) fn on(&self, end: &str, stdout: &str) -> &Self {
        let answer = Answer { code: 0, stdout: stdout.to_owned(), stderr: String::new(), hangs: false };
        self.set(end, answer)
    }

    /// A command that ends like this fails like that.
    pub(crate) fn fails(&self, end: &str, code: i32, stderr: &str) -> &Self {
        self.set(end, Answer { code, stdout: String::new(), stderr: stderr.to_owned(), hangs: false })
    }

    pub(crate) fn hangs(&self, end: &str) -> &Self {
        self.set(end, Answer { code: 0, stdout: String::new(), stderr: String::new(), hangs: true })
    }

    fn set(&self, end: &str, answer: Answer) -> &Self {
        let mut all = self.always.lock().unwrap();
        all.retain(|(other, _)| other != end);
        all.push((end.to_owned(), answer));
        self
    }

    /// The next time, before what [`Far::on`] says.
    pub(crate) fn on_once(&self, end: &str, stdout: &str) -> &Self {
        let answer = Answer { code: 0, stdout: stdout.to_owned(), stderr: String::new(), hangs: false };
        let mut all = self.once.lock().unwrap();
        match all.iter_mut().find(|(other, _)| other == end) {
            Some((_, queue)) => queue.push_back(answer),
            None => all.push((end.to_owned(), [answer].into())),
        }
        self
    }

    /// The program is not installed.
    pub(crate) fn missing(&self, program: &str) -> &Self {
        self.missing.lock().unwrap().push(program.to_owned());
        self
    }

    pub(crate) fn file(&self, path: &str, content: &str) -> &Self {
        self.files.lock().unwrap().insert(path.to_owned(), content.to_owned());
        self
    }

    pub(crate) fn first(&self) -> String {
        self.ran.lock().unwrap()[0].display()
    }

    /// The commands that were run and end like this, as text.
    pub(crate) fn like(&self, part: &str) -> Vec<String> {
        let ran = self.ran.lock().unwrap();
        ran.iter().map(|c| c.argv.join(" ")).filter(|c| c.contains(part)).collect()
    }

    fn cx(&self) -> Cx<'_> {
        Cx {
            run: "r1",
            step: "step",
            attempt: 1,
            target: self,
            env: &self.env,
            base: Path::new("/"),
            force: self.force,
            detach: false,
            reattach: None,
            host: &self.host,
        }
    }

    pub(crate) async fn capture(&self, of: &dyn AnyStepType, with: &Json) -> Result<Json, StepError> {
        of.capture(&self.cx(), with).await
    }

    pub(crate) async fn run(&self, of: &dyn AnyStepType, with: &Json) -> Result<Ran, StepError> {
        let capture = self.capture(of, with).await?;
        let acted = self.act(of, with, &capture).await?;
        Ok(Ran { capture, outputs: acted.outputs, changed: acted.changed })
    }

    pub(crate) async fn act(
        &self,
        of: &dyn AnyStepType,
        with: &Json,
        capture: &Json,
    ) -> Result<Acted<Json>, StepError> {
        of.act(&self.cx(), with, capture).await
    }

    pub(crate) async fn preview(&self, of: &dyn AnyStepType, with: &Json) -> Result<Preview, StepError> {
        of.preview(&self.cx(), with).await
    }

    pub(crate) async fn probe(
        &self,
        of: &dyn AnyStepType,
        with: &Json,
        capture: &Json,
    ) -> Result<Probe<Json>, StepError> {
        of.probe(&self.cx(), with, capture).await
    }

    pub(crate) async fn undo(
        &self,
        of: &dyn AnyStepType,
        with: &Json,
        capture: &Json,
        outputs: Option<&Json>,
    ) -> Result<Undone, StepError> {
        of.undo(&self.cx(), with, capture, outputs).await
    }
}

type Did<T> = Result<T, TargetError>;

fn never<T>(what: &str) -> Did<T> {
    Err(TargetError::new(TargetErrorKind::Other, format!("nobody expects a step of this family to {what}")))
}

#[async_trait::async_trait]
impl Target for Far {
    #[expect(clippy::unnecessary_literal_bound, reason = "the trait's signature")]
    fn name(&self) -> &str {
        "far"
    }

    async fn run(&self, command: &Command, watch: &dyn Watch) -> Did<Exit> {
        self.ran.lock().unwrap().push(command.clone());
        let argv = command.argv.join(" ");
        if self.missing.lock().unwrap().contains(&command.argv[0]) {
            return Err(TargetError::new(TargetErrorKind::CommandNotFound, format!("{}: not found", command.argv[0])));
        }
        let next = self
            .once
            .lock()
            .unwrap()
            .iter_mut()
            .filter(|(end, _)| ends(&argv, end))
            .find_map(|(_, queue)| queue.pop_front());
        let always = || self.always.lock().unwrap().iter().find(|(end, _)| ends(&argv, end)).map(|(_, a)| a.clone());
        let Some(answer) = next.or_else(always) else { panic!("nobody scripted: {argv}") };
        if answer.hangs {
            tokio::time::sleep(command.timeout.unwrap()).await;
            return Err(TargetError::new(TargetErrorKind::Timeout, format!("{}: too slow", command.argv[0])));
        }
        if command.log_output {
            watch.output(Stream::Stdout, answer.stdout.as_bytes());
            watch.output(Stream::Stderr, answer.stderr.as_bytes());
        }
        let stdout = answer.stdout.into_bytes();
        let kept = stdout.len().min(command.keep_stdout);
        Ok(Exit {
            code: Some(answer.code),
            signal: None,
            stdout: stdout[..kept].to_vec(),
            stdout_cut: kept < stdout.len(),
            stderr_tail: answer.stderr.into_bytes(),
        })
    }

    async fn start_detached(&self, _: &Command, _: &str) -> Did<Detached> {
        never("detach")
    }
    async fn detached_state(&self, _: &Detached) -> Did<DetachedState> {
        never("detach")
    }
    async fn attach(&self, _: &Detached, _: &Command, _: &dyn Watch) -> Did<Exit> {
        never("detach")
    }
    async fn forget_detached(&self, _: &Detached) -> Did<()> {
        never("detach")
    }
    fn detached_dir(&self, _: &str, _: &str, _: u32) -> String {
        String::new()
    }
    async fn stat(&self, path: &str) -> Did<Option<FileStat>> {
        let files = self.files.lock().unwrap();
        let dir = format!("{path}/");
        let kind = match files.keys().find(|f| *f == path || f.starts_with(&dir)) {
            Some(file) if file == path => FileKind::File,
            Some(_) => FileKind::Dir,
            None => return Ok(None),
        };
        Ok(Some(FileStat { kind, mode: 0o644, uid: 0, gid: 0, size: 0, link: None }))
    }
    async fn read(&self, path: &str, _: u64) -> Did<Vec<u8>> {
        let found = self.files.lock().unwrap().get(path).cloned();
        found.map(String::into_bytes).ok_or_else(|| TargetError::new(TargetErrorKind::NotFound, format!("{path}: no")))
    }
    async fn list(&self, path: &str) -> Did<Vec<String>> {
        let files = self.files.lock().unwrap();
        let dir = format!("{path}/");
        let mut names: Vec<String> =
            files.keys().filter_map(|f| f.strip_prefix(&dir)?.split('/').next().map(str::to_owned)).collect();
        names.dedup();
        if names.is_empty() {
            Err(TargetError::new(TargetErrorKind::NotFound, format!("{path}: no")))
        } else {
            Ok(names)
        }
    }
    async fn sha256(&self, _: &str) -> Did<String> {
        never("read a file")
    }
    async fn write(&self, _: &str, _: &[u8], _: &FileAttributes) -> Did<()> {
        never("write")
    }
    async fn set_attributes(&self, _: &str, _: &FileAttributes) -> Did<()> {
        never("write")
    }
    async fn symlink(&self, _: &str, _: &str) -> Did<()> {
        never("write")
    }
    async fn create_dir(&self, _: &str, _: Option<u32>) -> Did<()> {
        never("write")
    }
    async fn rename(&self, _: &str, _: &str) -> Did<()> {
        never("write")
    }
    async fn copy(&self, _: &str, _: &str) -> Did<()> {
        never("write")
    }
    async fn remove_file(&self, _: &str) -> Did<()> {
        never("write")
    }
    async fn remove_dir(&self, _: &str) -> Did<()> {
        never("write")
    }
    async fn remove_tree(&self, _: &str) -> Did<()> {
        never("write")
    }
    async fn free_space(&self, _: &str) -> Did<u64> {
        never("ask for space")
    }
    async fn user_id(&self, _: &str) -> Did<u32> {
        never("ask for users")
    }
    async fn group_id(&self, _: &str) -> Did<u32> {
        never("ask for groups")
    }
}
