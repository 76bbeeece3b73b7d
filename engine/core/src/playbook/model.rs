//! The typed model of one playbook: what the author wrote, every value with its span, nothing resolved yet.

use std::time::Duration;

use crate::Json;
use crate::event::OnFailure;
use crate::expr::Expr;
use crate::playbook::yaml::Node;
use crate::span::{SourceId, Span, Spanned};
use crate::template::{Template, ValueTemplate};

/// One playbook, lowered from YAML.
#[derive(Debug, Clone)]
pub struct Playbook {
    pub source: SourceId,
    /// The keys that stand at its top, as they were written.
    pub keys: Vec<Spanned<String>>,
    pub name: Spanned<String>,
    pub description: Option<String>,
    pub inputs: Vec<InputDecl>,
    pub secrets: Vec<SecretDecl>,
    pub targets: Vec<TargetDecl>,
    /// Files with more of them, as the author named them.
    pub inventories: Vec<Spanned<String>>,
    pub defaults: Defaults,
    pub locks: Vec<Template>,
    pub max_parallel: Option<Spanned<u32>>,
    pub timeout: Option<Duration>,
    pub on_failure: Option<OnFailure>,
    pub fail_fast: bool,
    pub schedule: Vec<Schedule>,
    pub steps: Vec<Step>,
    pub finally: Vec<Step>,
    pub outputs: Vec<(Spanned<String>, ValueTemplate)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputType {
    String,
    /// A string; relative ones given at the start count from the current folder, defaults from the playbook's.
    Path,
    Integer,
    Number,
    Boolean,
    List,
    Map,
    /// `3m`, `1h30m`: a string that is a duration.
    Duration,
}

/// `inputs.<name>`.
#[derive(Debug, Clone)]
pub struct InputDecl {
    pub name: Spanned<String>,
    pub input_type: InputType,
    pub description: Option<String>,
    /// None = required.
    pub default: Option<Spanned<Json>>,
    /// For strings: the whole value must match.
    pub pattern: Option<Spanned<String>>,
    /// `ipv4`, `ipv6`, `hostname`, `url`, `email`.
    pub format: Option<Spanned<String>>,
    /// The value must be one of these.
    pub options: Vec<Json>,
    pub min: Option<f64>,
    pub max: Option<f64>,
    /// Environment variable that gives it when neither `-i` nor a file does.
    pub env: Option<String>,
    /// Masked like a secret, never stored; must be given again on resume.
    pub secret: bool,
}

/// `secrets.<name>`: where it comes from. Never its value.
#[derive(Debug, Clone)]
pub struct SecretDecl {
    pub name: Spanned<String>,
    pub from: SecretFrom,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretFrom {
    Env(String),
    /// One trailing newline is removed. Relative to the playbook's folder.
    File(String),
    /// argv; its stdout, one trailing newline removed.
    Command(Vec<String>),
}

/// `targets.<name>`: a target, or a group of names.
#[derive(Debug, Clone)]
pub struct TargetDecl {
    pub name: Spanned<String>,
    pub kind: TargetKind,
}

#[derive(Debug, Clone, PartialEq)]
pub enum TargetKind {
    Local,
    Ssh(SshTarget),
    Group(Vec<Spanned<String>>),
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SshTarget {
    /// As `ssh` takes it, an alias of `~/.ssh/config` included.
    pub host: String,
    pub user: Option<String>,
    pub port: Option<u16>,
    pub identity: Option<String>,
    /// `-o` options.
    pub options: Vec<(String, String)>,
    /// A user to become with `sudo -n`; `true` in the playbook is root.
    pub become_user: Option<String>,
}

/// `defaults:`: what steps have unless they say otherwise.
#[derive(Debug, Clone, Default)]
pub struct Defaults {
    pub target: Option<Template>,
    pub env: Vec<(Spanned<String>, Template)>,
    pub policy: Policy,
}

/// Keys about how a step is run, all optional; the step's own win over `defaults`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Policy {
    /// Per attempt.
    pub timeout: Option<Duration>,
    /// Over all attempts.
    pub deadline: Option<Duration>,
    /// Without output.
    pub idle_timeout: Option<Duration>,
    /// TERM to KILL.
    pub kill_grace: Option<Duration>,
    pub retry: Option<Retry>,
    pub on_interrupt: Option<Interrupt>,
    pub detach: Option<Spanned<bool>>,
}

impl Policy {
    /// What it says, and what the defaults say of all else.
    #[must_use]
    pub fn over(&self, defaults: &Self) -> Self {
        Self {
            timeout: self.timeout.or(defaults.timeout),
            deadline: self.deadline.or(defaults.deadline),
            idle_timeout: self.idle_timeout.or(defaults.idle_timeout),
            kill_grace: self.kill_grace.or(defaults.kill_grace),
            retry: self.retry.as_ref().or(defaults.retry.as_ref()).cloned(),
            on_interrupt: self.on_interrupt.or(defaults.on_interrupt),
            detach: self.detach.or(defaults.detach),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    /// Total tries; 1 = no retry.
    pub max_attempts: u32,
    pub initial_interval: Duration,
    pub backoff_coefficient: f64,
    pub max_interval: Duration,
    /// Share of the interval, 0 to 1.
    pub jitter: f64,
    /// None = what the step type defaults to.
    pub retry_on: Option<Vec<RetryOn>>,
    pub on_exhausted: Exhausted,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            max_attempts: 1,
            initial_interval: Duration::from_secs(1),
            backoff_coefficient: 2.0,
            max_interval: Duration::from_secs(60),
            jitter: 0.1,
            retry_on: None,
            on_exhausted: Exhausted::Fail,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryOn {
    Transient,
    Timeout,
    ExitCode(i32),
    /// Any error but a cancel.
    Any,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exhausted {
    Fail,
    Hold,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupt {
    Rerun,
    Ask,
}

/// One item of `steps`, `finally` or a block.
#[derive(Debug, Clone)]
pub struct Step {
    /// Given, or made from the type and position (`shell-3`); then it cannot be referred to.
    pub id: Spanned<String>,
    pub id_given: bool,
    /// The whole step.
    pub span: Span,
    pub action: Action,
    /// None = the step above.
    pub needs: Option<Vec<Spanned<String>>>,
    pub when: Option<Expr>,
    pub for_each: Option<Box<ForEach>>,
    pub target: Option<Template>,
    pub env: Vec<(Spanned<String>, Template)>,
    pub policy: Policy,
    pub rollback: Rollback,
    pub irreversible: Option<Spanned<bool>>,
    pub continue_on_error: bool,
    pub locks: Vec<Template>,
    /// Of a block or `for_each`: `rollback` takes back its own steps when it fails, before it counts as failed.
    pub on_failure: Option<Spanned<OnFailure>>,
    /// Of a block: name → value.
    pub outputs: Vec<(Spanned<String>, ValueTemplate)>,
}

#[derive(Debug, Clone)]
pub enum Action {
    /// `uses` + `with`; `run: text` is `uses: shell` with `script` (and `outputs` moved into `with`).
    Uses(Uses),
    Block(Vec<Step>),
}

#[derive(Debug, Clone)]
pub struct Uses {
    pub step_type: Spanned<String>,
    /// The map under `with:` (an empty one where there is none), for the schema check.
    pub with: Node,
    /// The same, compiled.
    pub with_template: ValueTemplate,
    /// It was written as `run:`.
    pub from_run: bool,
}

#[derive(Debug, Clone)]
pub struct ForEach {
    pub items: ValueTemplate,
    pub items_span: Span,
    /// The name in scope, `each` unless given. Always an object: `key`, `value`, `index`.
    pub as_name: String,
    /// Template for the instance's key, with the item in scope; else the item itself when it is a
    /// string or number, a map's key, or the index.
    pub key: Option<Template>,
    pub max_parallel: Option<u32>,
    pub fail_fast: bool,
}

#[derive(Debug, Clone, Default)]
pub enum Rollback {
    #[default]
    Auto,
    None,
    /// `rollback: {uses/run …}` replaces the typed inverse.
    Step {
        uses: Box<Uses>,
        condition: RollbackIf,
    },
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RollbackIf {
    #[default]
    Started,
    Succeeded,
}

/// One entry of `schedule:`. Checked here, fired by `runback serve`.
#[derive(Debug, Clone)]
pub struct Schedule {
    pub cron: Spanned<String>,
    pub timezone: Option<Spanned<String>>,
    /// The other keys as they stand.
    pub node: Node,
}
