//! The contract of a step type, and the catalog that holds them. An author implements [`StepType`], typed;
//! the engine sees [`AnyStepType`], JSON in and out.

mod descriptor;
mod question;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Json;
use crate::progress::Progress;
use crate::target::{Command, Detached, Exit, Target, Watch};
use crate::template::ValueTemplate;

pub use descriptor::{Access, Commands, Descriptor, OnInterrupt, UndoKind};
pub use question::{Answer, Question};

/// What kind of error it is, for retries and for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Worth another try: a lost connection, 503, a lock that is held for a moment.
    Transient,
    /// Another try would fail the same way.
    Permanent,
    Timeout,
    /// The world is not as it was left or as it must be: drift, a precondition that does not hold.
    Conflict,
    /// The attempt was told to stop.
    Cancelled,
}

/// Why a step failed: what, why, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error, JsonSchema)]
#[error("{message}")]
pub struct StepError {
    pub class: Class,
    /// Names the thing.
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The command or request that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
}

impl StepError {
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), help: None, command: None, exit_code: None }
    }

    pub fn permanent(message: impl Into<String>) -> Self {
        Self::new(Class::Permanent, message)
    }

    pub fn transient(message: impl Into<String>) -> Self {
        Self::new(Class::Transient, message)
    }

    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(Class::Conflict, message)
    }

    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    #[must_use]
    pub fn command(mut self, command: impl Into<String>) -> Self {
        self.command = Some(command.into());
        self
    }

    /// For a command that ran and failed: names it, how it ended, and its last line of stderr.
    pub fn from_exit(class: Class, command: &Command, exit: &Exit) -> Self {
        let stderr = exit.stderr_text();
        let last = stderr.lines().rev().find(|l| !l.trim().is_empty()).map(str::trim);
        let program = command.argv.first().map_or("command", String::as_str);
        let message = match last {
            Some(line) => format!("{program}: {}: {line}", exit.describe()),
            None => format!("{program}: {}", exit.describe()),
        };
        Self { exit_code: exit.code, command: Some(command.display()), ..Self::new(class, message) }
    }
}

/// What an action did.
#[derive(Debug, Clone, PartialEq)]
pub struct Acted<O> {
    pub outputs: O,
    /// False = the world was already so.
    pub changed: bool,
}

impl<O> Acted<O> {
    pub fn changed(outputs: O) -> Self {
        Self { outputs, changed: true }
    }

    pub fn unchanged(outputs: O) -> Self {
        Self { outputs, changed: false }
    }
}

/// What a probe found after an interruption.
#[derive(Debug, Clone, PartialEq)]
pub enum Probe<O> {
    Done(Acted<O>),
    /// Nothing of it happened, or acting again is safe.
    NotDone,
    /// Cannot be told; why, in words for the operator.
    Unknown(String),
}

/// What an undo did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undone {
    /// False = the captured state was already there.
    pub changed: bool,
    /// For the report: what was brought back.
    pub note: Option<String>,
}

/// What lives in this process beside the steps, such as a tunnel. Dropping it ends it.
pub type Held = Box<dyn std::any::Any + Send + Sync>;

/// What a step would change, against the live world.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Preview {
    /// None = cannot be told without acting.
    pub changes: Option<bool>,
    /// One line: "write /etc/motd (12 lines)".
    pub summary: String,
    /// A unified diff or details, line by line.
    pub details: Vec<String>,
}

/// One mistake in literal inputs that a schema cannot express.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputProblem {
    /// Keys from the top of `with:` to the value, such as `["headers", "Accept"]`; list items by their index.
    pub path: Vec<String>,
    pub message: String,
    pub help: Option<String>,
}

/// The names under `steps.<id>.outputs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutputNames {
    Closed(Vec<String>),
    /// Not known before it runs (the step type explains why in its doc).
    Open,
}

/// What the engine lends to one attempt.
#[async_trait::async_trait]
pub trait Host: Watch {
    /// Milliseconds since the epoch, by the run's clock (monotone within one process).
    fn now_ms(&self) -> u64;
    async fn sleep(&self, duration: Duration);
    /// Shows what it is doing; not stored.
    fn progress(&self, progress: Progress);
    /// Asks a person; durable, and answered at most once even across restarts.
    async fn ask(&self, question: Question) -> Result<Answer, StepError>;
    /// Makes a fact durable in the middle of an action ("moved pod 3 of 5") before returning.
    async fn note(&self, note: Json) -> Result<(), StepError>;
    /// The notes of all attempts of this step so far, oldest first.
    fn notes(&self) -> Vec<Json>;
    /// Makes a detached command durable, so that a later process finds it.
    async fn started_detached(&self, detached: &Detached) -> Result<(), StepError>;
    /// Resolves the name of another target of the playbook.
    async fn target(&self, name: &str) -> Result<Arc<dyn Target>, StepError>;
}

/// Everything that one attempt of an action, capture, probe, preview or undo may use.
#[derive(Clone, Copy)]
pub struct Cx<'a> {
    pub run: &'a str,
    /// The full path, such as `deploy/convert[web1]`.
    pub step: &'a str,
    /// From 1.
    pub attempt: u32,
    pub target: &'a dyn Target,
    /// The step's `env`, rendered; for commands.
    pub env: &'a BTreeMap<String, String>,
    /// The folder of the playbook, on the machine that runback runs on.
    pub base: &'a Path,
    /// Restore even where the world has drifted (`--force`). Only undo looks at it.
    pub force: bool,
    /// Commands of [`Cx::run`] outlive runback.
    pub detach: bool,
    /// A command of this attempt that is still there from an earlier process; [`Cx::run`] attaches to it.
    pub reattach: Option<&'a Detached>,
    pub host: &'a dyn Host,
}

impl std::fmt::Debug for Cx<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cx").field("step", &self.step).field("attempt", &self.attempt).finish_non_exhaustive()
    }
}

struct HostWatch<'a>(&'a dyn Host);

#[async_trait::async_trait]
impl Watch for HostWatch<'_> {
    fn output(&self, stream: crate::target::Stream, bytes: &[u8]) {
        self.0.output(stream, bytes);
    }
    async fn stopped(&self) {
        self.0.stopped().await;
    }
    fn kill_grace(&self) -> Duration {
        self.0.kill_grace()
    }
}

impl Cx<'_> {
    /// Runs a command on the step's target with the step's `env`. This is the command that `detach` is about:
    /// call it once per attempt, and [`Cx::query`] for everything small around it.
    pub async fn run(&self, mut command: Command) -> Result<Exit, StepError> {
        self.complete_env(&mut command);
        let watch = HostWatch(self.host);
        if let Some(detached) = self.reattach {
            return Ok(self.target.attach(detached, &command, &watch).await?);
        }
        if self.detach {
            let dir = self.target.detached_dir(self.run, self.step, self.attempt);
            let detached = self.target.start_detached(&command, &dir).await?;
            self.host.started_detached(&detached).await?;
            return Ok(self.target.attach(&detached, &command, &watch).await?);
        }
        Ok(self.target.run(&command, &watch).await?)
    }

    /// Runs a small command that never outlives runback.
    pub async fn query(&self, mut command: Command) -> Result<Exit, StepError> {
        self.complete_env(&mut command);
        Ok(self.target.run(&command, &HostWatch(self.host)).await?)
    }

    /// Like [`Cx::query`], on another target.
    pub async fn query_on(&self, target: &dyn Target, command: &Command) -> Result<Exit, StepError> {
        Ok(target.run(command, &HostWatch(self.host)).await?)
    }

    fn complete_env(&self, command: &mut Command) {
        for (name, value) in self.env {
            command.env.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }

    /// A path of the playbook: relative ones count from the playbook's folder on `local`, and are the
    /// target's own (from the login folder) elsewhere.
    pub fn path(&self, path: &str) -> String {
        if self.target.is_local() { self.local_path(path).to_string_lossy().into_owned() } else { path.to_owned() }
    }

    /// A file beside the playbook, always on the machine that runback runs on. `../x` is beside the playbook's
    /// folder by its name, wherever a symlink of that name leads to.
    pub fn local_path(&self, path: &str) -> std::path::PathBuf {
        let (mut base, mut path) = (self.base, Path::new(path));
        while let (Ok(rest), Some(above)) = (path.strip_prefix(".."), base.parent()) {
            (base, path) = (above, rest);
        }
        base.join(path)
    }

    pub fn phase(&self, text: impl Into<String>) {
        self.host.progress(Progress::Phase { text: text.into() });
    }
}

/// A typed step type. One file, one type: module doc, `Inputs`, `Outputs`, behaviour, examples, tests.
#[async_trait::async_trait]
pub trait StepType: Send + Sync + 'static {
    /// `#[serde(deny_unknown_fields)]`; never `flatten` or `untagged`.
    type Inputs: DeserializeOwned + JsonSchema + Send + Sync;
    type Outputs: Serialize + DeserializeOwned + JsonSchema + Send + Sync;
    /// The pre-state that undo needs; `()` where there is none.
    type Capture: Serialize + DeserializeOwned + Send + Sync;

    fn descriptor(&self) -> Descriptor;

    /// Mistakes in inputs that the schema cannot say. Called at check time, with inputs of several kinds in the places of
    /// templates, and before each attempt of one with templates: what it refuses never reaches `act`. Looks at nothing
    /// but the inputs.
    fn problems(&self, _inputs: &Self::Inputs) -> Vec<InputProblem> {
        Vec::new()
    }

    /// Output names; where they depend on the inputs (as for `set`), override.
    fn output_names(&self, _with: &ValueTemplate) -> OutputNames {
        schema_properties(&schemars::schema_for!(Self::Outputs))
    }

    /// Access and undo for these inputs, where they differ from the descriptor's (a GET of `http.request`).
    /// Inputs that are templates are not known yet: then say the worse.
    fn capabilities(&self, _with: &ValueTemplate) -> (Access, UndoKind) {
        let d = self.descriptor();
        (d.access, d.undo)
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Self::Inputs) -> Result<Preview, StepError>;

    /// Reads, never changes. Durable before [`StepType::act`] begins; called once per step, however many attempts.
    /// Asked for only where the descriptor's undo is [`UndoKind::Full`]: another step type gets null, so its `Capture` is
    /// `()`, and what it has to know later goes into [`Host::note`].
    async fn capture(&self, cx: &Cx<'_>, inputs: &Self::Inputs) -> Result<Self::Capture, StepError>;

    /// Does it and waits until it is really done. Idempotent.
    async fn act(
        &self,
        cx: &Cx<'_>,
        inputs: &Self::Inputs,
        capture: &Self::Capture,
    ) -> Result<Acted<Self::Outputs>, StepError>;

    async fn probe(
        &self,
        _cx: &Cx<'_>,
        _inputs: &Self::Inputs,
        _capture: &Self::Capture,
    ) -> Result<Probe<Self::Outputs>, StepError> {
        Ok(Probe::Unknown("this step type cannot tell".to_owned()))
    }

    /// Brings the captured state back, only where the world still is as the step left it (else a
    /// [`Class::Conflict`] that names the drift, unless `cx.force`). Idempotent; `outputs` is None when the action
    /// did not finish.
    async fn undo(
        &self,
        _cx: &Cx<'_>,
        _inputs: &Self::Inputs,
        _capture: &Self::Capture,
        _outputs: Option<&Self::Outputs>,
    ) -> Result<Undone, StepError> {
        Ok(Undone { changed: false, note: None })
    }

    /// What acting comes to, of a type for which that is a matter of the inputs alone: it looks at nothing outside of them
    /// and changes nothing, so that nobody can tell when it was done. Such a step shares the commit of what comes after it.
    fn works_out(&self) -> Option<WorksOut<Self>>
    where
        Self: Sized,
    {
        None
    }

    /// Whether [`StepType::hold`] holds anything.
    fn holds(&self) -> bool {
        false
    }

    /// What must live on, from the action's success to the end of the block that the step stands in (at the top: of the way
    /// forward). Called in the process that acted, before anything that needs the step may start; and again, with the
    /// outputs that were recorded, in one that takes the run up inside that block.
    async fn hold(
        &self,
        _cx: &Cx<'_>,
        _inputs: &Self::Inputs,
        _outputs: &Self::Outputs,
    ) -> Result<Option<Held>, StepError> {
        Ok(None)
    }
}

/// See [`StepType::works_out`].
pub type WorksOut<T> = fn(&<T as StepType>::Inputs) -> Result<Acted<<T as StepType>::Outputs>, StepError>;

fn schema_properties(schema: &schemars::Schema) -> OutputNames {
    let names = schema.get("properties").and_then(Json::as_object);
    OutputNames::Closed(names.map(|m| m.keys().cloned().collect()).unwrap_or_default())
}

/// A step type with its types erased.
#[async_trait::async_trait]
pub trait AnyStepType: Send + Sync {
    fn descriptor(&self) -> Descriptor;
    fn input_schema(&self) -> Json;
    fn output_schema(&self) -> Json;
    /// Mistakes in inputs that are whole (no templates left). A decode error is one problem without a path.
    fn problems(&self, inputs: &Json) -> Vec<InputProblem>;
    /// Whether inputs are of the type's own shape at all.
    fn decodes(&self, _inputs: &Json) -> bool {
        true
    }
    fn output_names(&self, with: &ValueTemplate) -> OutputNames;
    fn capabilities(&self, with: &ValueTemplate) -> (Access, UndoKind);
    async fn preview(&self, cx: &Cx<'_>, inputs: &Json) -> Result<Preview, StepError>;
    async fn capture(&self, cx: &Cx<'_>, inputs: &Json) -> Result<Json, StepError>;
    async fn act(&self, cx: &Cx<'_>, inputs: &Json, capture: &Json) -> Result<Acted<Json>, StepError>;
    async fn probe(&self, cx: &Cx<'_>, inputs: &Json, capture: &Json) -> Result<Probe<Json>, StepError>;
    async fn undo(
        &self,
        cx: &Cx<'_>,
        inputs: &Json,
        capture: &Json,
        outputs: Option<&Json>,
    ) -> Result<Undone, StepError>;
    /// [`AnyStepType::work_out`] gives something.
    fn is_pure(&self) -> bool {
        false
    }
    /// None: `act` is to be called.
    fn work_out(&self, _inputs: &Json) -> Option<Result<Acted<Json>, StepError>> {
        None
    }
    fn holds(&self) -> bool {
        false
    }
    async fn hold(&self, _cx: &Cx<'_>, _inputs: &Json, _outputs: &Json) -> Result<Option<Held>, StepError> {
        Ok(None)
    }
}

impl std::fmt::Debug for dyn AnyStepType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.descriptor().name)
    }
}

fn decode<T: DeserializeOwned>(what: &str, json: &Json) -> Result<T, StepError> {
    T::deserialize(json).map_err(|e| StepError::permanent(format!("{what}: {e}")))
}

fn encode<T: Serialize>(what: &str, value: &T) -> Result<Json, StepError> {
    serde_json::to_value(value).map_err(|e| StepError::permanent(format!("{what}: {e}")))
}

fn encode_acted<T: Serialize>(acted: &Acted<T>) -> Result<Acted<Json>, StepError> {
    Ok(Acted { outputs: encode("outputs", &acted.outputs)?, changed: acted.changed })
}

#[async_trait::async_trait]
impl<T: StepType> AnyStepType for T {
    fn descriptor(&self) -> Descriptor {
        StepType::descriptor(self)
    }

    fn input_schema(&self) -> Json {
        schemars::schema_for!(T::Inputs).to_value()
    }

    fn output_schema(&self) -> Json {
        schemars::schema_for!(T::Outputs).to_value()
    }

    fn problems(&self, inputs: &Json) -> Vec<InputProblem> {
        match T::Inputs::deserialize(inputs) {
            Ok(inputs) => StepType::problems(self, &inputs),
            Err(e) => vec![InputProblem { path: Vec::new(), message: e.to_string(), help: None }],
        }
    }

    fn decodes(&self, inputs: &Json) -> bool {
        T::Inputs::deserialize(inputs).is_ok()
    }

    fn output_names(&self, with: &ValueTemplate) -> OutputNames {
        StepType::output_names(self, with)
    }

    fn capabilities(&self, with: &ValueTemplate) -> (Access, UndoKind) {
        StepType::capabilities(self, with)
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Json) -> Result<Preview, StepError> {
        StepType::preview(self, cx, &decode("inputs", inputs)?).await
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Json) -> Result<Json, StepError> {
        encode("capture", &StepType::capture(self, cx, &decode("inputs", inputs)?).await?)
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Json, capture: &Json) -> Result<Acted<Json>, StepError> {
        let inputs = decode("inputs", inputs)?;
        encode_acted(&StepType::act(self, cx, &inputs, &decode("capture", capture)?).await?)
    }

    async fn probe(&self, cx: &Cx<'_>, inputs: &Json, capture: &Json) -> Result<Probe<Json>, StepError> {
        let inputs = decode("inputs", inputs)?;
        Ok(match StepType::probe(self, cx, &inputs, &decode("capture", capture)?).await? {
            Probe::Done(acted) => Probe::Done(encode_acted(&acted)?),
            Probe::NotDone => Probe::NotDone,
            Probe::Unknown(why) => Probe::Unknown(why),
        })
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        inputs: &Json,
        capture: &Json,
        outputs: Option<&Json>,
    ) -> Result<Undone, StepError> {
        let inputs = decode("inputs", inputs)?;
        let outputs = outputs.map(|o| decode("outputs", o)).transpose()?;
        StepType::undo(self, cx, &inputs, &decode("capture", capture)?, outputs.as_ref()).await
    }

    fn is_pure(&self) -> bool {
        self.works_out().is_some()
    }

    fn work_out(&self, inputs: &Json) -> Option<Result<Acted<Json>, StepError>> {
        let work_out = self.works_out()?;
        Some(decode("inputs", inputs).and_then(|inputs| encode_acted(&work_out(&inputs)?)))
    }

    fn holds(&self) -> bool {
        StepType::holds(self)
    }

    async fn hold(&self, cx: &Cx<'_>, inputs: &Json, outputs: &Json) -> Result<Option<Held>, StepError> {
        StepType::hold(self, cx, &decode("inputs", inputs)?, &decode("outputs", outputs)?).await
    }
}

/// All step types by name.
#[derive(Clone, Default, Debug)]
pub struct Catalog {
    types: BTreeMap<&'static str, Arc<dyn AnyStepType>>,
}

impl Catalog {
    pub fn add(&mut self, step_type: impl AnyStepType + 'static) {
        self.add_shared(Arc::new(step_type));
    }

    pub fn add_shared(&mut self, step_type: Arc<dyn AnyStepType>) {
        let name = step_type.descriptor().name;
        let before = self.types.insert(name, step_type);
        debug_assert!(before.is_none(), "two step types are named {name}");
    }

    pub fn get(&self, name: &str) -> Option<&Arc<dyn AnyStepType>> {
        self.types.get(name)
    }

    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.types.keys().copied()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn AnyStepType>> {
        self.types.values()
    }
}
