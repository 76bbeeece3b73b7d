//! Drivers with nothing around them but a ledger: a run is begun, taken up, watched, and told what to do.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use runback_core::Json;
use runback_core::check::{NoLoad, check};
use runback_core::event::{Created, Event, FORMAT, Resolution, RunOptions};
use runback_core::plan::Plan;
use runback_core::state::RunState;
use runback_core::step::Answer;
use runback_exec::driver::{Control, DriveOptions, Driver, DriverError, Ended, Engine, Intent, Surroundings};
use runback_exec::mask::Masker;
use runback_exec::process::Processes;
use runback_exec::reporter::{Nobody, Notice, Reporter};
use runback_exec::store::{Request, Store};
use runback_exec::target::{LocalTarget, TargetSet};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub(crate) use super::script::Ledger;
use super::script::catalog;

pub(crate) fn plan(yaml: &str, ledger: &Ledger) -> Arc<Plan> {
    let text = format!("runback: 1\nname: t\n{yaml}");
    let checked = check("t.yaml", &text, &mut NoLoad, &catalog(ledger));
    checked.plan.unwrap_or_else(|| panic!("{:#?}", checked.diagnostics))
}

pub(crate) fn around(at: u64) -> Surroundings {
    let local = Arc::new(LocalTarget::new("/".into(), "/nowhere".into(), Processes::without_guard()));
    let no_ssh = |_: &str, _: &runback_core::playbook::model::SshTarget| unreachable!("no playbook here has one");
    Surroundings {
        targets: Arc::new(TargetSet::new(&[], local, no_ssh)),
        secrets: Vec::new(),
        secret_inputs: serde_json::Map::new(),
        masker: Masker::default(),
        base: "/".into(),
        by: "me@here".to_owned(),
        clock_at: Some(at),
    }
}

/// When runs begin, by their clock.
pub(crate) const START: u64 = 1_000_000;

pub(crate) async fn create(store: Arc<dyn Store>, plan: &Arc<Plan>, run: &str) -> Result<Driver, DriverError> {
    create_in(store, plan, run, around(START)).await
}

pub(crate) async fn create_in(
    store: Arc<dyn Store>,
    plan: &Arc<Plan>,
    run: &str,
    around: Surroundings,
) -> Result<Driver, DriverError> {
    let engine = Arc::new(Engine { store, log_limit: 1 << 20 });
    Driver::create(engine, Arc::clone(plan), created(run, plan), around).await
}

pub(crate) fn created(run: &str, plan: &Plan) -> Created {
    Created {
        format: FORMAT,
        version: "0".to_owned(),
        run: run.to_owned(),
        playbook: plan.name.clone(),
        texts: Vec::new(),
        base: "/".to_owned(),
        digest: plan.digest().to_owned(),
        inputs: json!({}),
        by: "me@here".to_owned(),
        from: "test".to_owned(),
        options: RunOptions::default(),
    }
}

pub(crate) async fn open(
    store: Arc<dyn Store>,
    plan: &Arc<Plan>,
    run: &str,
    intent: Intent,
) -> Result<Driver, DriverError> {
    open_at(store, plan, run, intent, START).await
}

/// By a clock that stands elsewhere.
pub(crate) async fn open_at(
    store: Arc<dyn Store>,
    plan: &Arc<Plan>,
    run: &str,
    intent: Intent,
    at: u64,
) -> Result<Driver, DriverError> {
    open_in(store, plan, run, intent, around(at)).await
}

pub(crate) async fn open_in(
    store: Arc<dyn Store>,
    plan: &Arc<Plan>,
    run: &str,
    intent: Intent,
    around: Surroundings,
) -> Result<Driver, DriverError> {
    let engine = Arc::new(Engine { store, log_limit: 1 << 20 });
    Driver::open(engine, run, Arc::clone(plan), around, intent).await
}

/// What the reporter of a run has seen: events by their names, notices in words.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn has(&self, part: &str) -> bool {
        self.all().iter().any(|line| line.contains(part))
    }

    /// Lets the paused clock run until something was seen.
    pub(crate) async fn wait_for(&self, part: &str) {
        for _ in 0..100_000 {
            if self.has(part) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{part} never came: {:#?}", self.all());
    }
}

impl Reporter for Seen {
    fn event(&mut self, _: &RunState, event: &Event) {
        let step = event.body.step().map(|s| format!(" {s}")).unwrap_or_default();
        self.0.lock().unwrap().push(format!("{}{step}", event.body.type_name()));
    }

    fn notice(&mut self, state: &RunState, notice: &Notice<'_>) {
        self.0.lock().unwrap().push(match notice {
            Notice::LastLine { node, line } => format!("line {} {line}", state.path(*node)),
            Notice::Progress { node, progress } => format!("progress {} {progress:?}", state.path(*node)),
            Notice::LockWait { why, .. } => format!("waits: {why}"),
            Notice::Warning { message } => format!("warning: {message}"),
        });
    }
}

/// A run that is being driven on a task of its own.
pub(crate) struct Driving {
    pub(crate) control: mpsc::UnboundedSender<Control>,
    pub(crate) seen: Seen,
    task: JoinHandle<(Driver, Result<Ended, DriverError>)>,
}

impl Driving {
    pub(crate) fn start(mut driver: Driver, options: DriveOptions) -> Self {
        let (control, mut asked) = mpsc::unbounded_channel();
        let seen = Seen::default();
        let mut reporter = seen.clone();
        let task = tokio::spawn(async move {
            let ended = driver.drive(&mut reporter, &Nobody, &mut asked, options).await;
            (driver, ended)
        });
        Self { control, seen, task }
    }

    pub(crate) fn tell(&self, control: Control) {
        self.control.send(control).unwrap();
    }

    /// How it ended; the lease is free afterwards.
    pub(crate) async fn end(self) -> Result<Ended, DriverError> {
        let (driver, ended) = self.task.await.unwrap();
        drop(driver);
        ended
    }

    pub(crate) fn is_over(&self) -> bool {
        self.task.is_finished()
    }

    /// As [`Driving::end`] for a run that is on its way to its end, whatever it asks meanwhile.
    pub(crate) async fn end_or_answer(self, store: &Arc<dyn Store>, plan: &Arc<Plan>, run: &str) {
        while !self.is_over() {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let state = Driver::fold(&**store, run, Arc::clone(plan)).await.unwrap();
            for node in state.questions() {
                let answer = Answer {
                    approved: true,
                    by: "you".to_owned(),
                    roles: Vec::new(),
                    reason: None,
                    fields: Json::Null,
                };
                let step = state.path(node).to_string();
                store.post(run, Request::Answer { step, answer }).await.unwrap();
            }
        }
        self.end().await.unwrap();
    }

    /// The process dies: nothing of it says a word any more.
    pub(crate) async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

pub(crate) async fn start(store: Arc<dyn Store>, plan: &Arc<Plan>) -> Result<Ended, DriverError> {
    Driving::start(create(store, plan, "r1").await?, DriveOptions::default()).end().await
}

/// Takes the run up; what is in doubt counts as done.
pub(crate) async fn resume(store: Arc<dyn Store>, plan: &Arc<Plan>) -> Result<Ended, DriverError> {
    let mut driver = open(store, plan, "r1", Intent::Resume).await?;
    for node in driver.state().doubts().collect::<Vec<_>>() {
        let step = driver.state().path(node).to_string();
        driver.resolve(&step, Resolution::Done, json!({ "n": 1 }))?;
    }
    Driving::start(driver, DriveOptions::default()).end().await
}

pub(crate) async fn journal(store: &dyn Store, run: &str) -> Vec<Event> {
    store.events(run, 0, usize::MAX).await.unwrap()
}

/// The names of a journal's events, each with its step.
pub(crate) fn names(journal: &[Event]) -> Vec<String> {
    let step = |e: &Event| e.body.step().map(|s| format!(" {s}")).unwrap_or_default();
    journal.iter().map(|e| format!("{}{}", e.body.type_name(), step(e))).collect()
}
