//! Step types that act on a ledger in memory, and a store whose appends fail from the n-th on.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use runback_core::Json;
use runback_core::check::{NoLoad, check};
use runback_core::event::{Created, Event, FORMAT, RunOptions};
use runback_core::plan::Plan;
use runback_core::step::{
    Access, Acted, AnyStepType, Catalog, Cx, Descriptor, InputProblem, OnInterrupt, OutputNames, Preview, Probe,
    StepError, UndoKind, Undone,
};
use runback_core::template::ValueTemplate;
use runback_exec::driver::{DriveOptions, Driver, DriverError, Ended, Engine, Intent, Surroundings};
use runback_exec::mask::Masker;
use runback_exec::process::Processes;
use runback_exec::reporter::{Nobody, Reporter};
use runback_exec::store::{
    Lease, LockAttempt, LockWaiting, MemoryStore, Posted, Request, RunFilter, RunRow, Store, StoreError, Verified,
};
use runback_exec::target::{LocalTarget, TargetSet};
use serde_json::json;
use tokio::sync::mpsc;

/// What happened in the world, in order: `act a`, `undo a`.
pub(crate) type Ledger = Arc<Mutex<Vec<String>>>;

#[derive(Debug, Clone)]
struct Acting {
    name: &'static str,
    on_interrupt: OnInterrupt,
    fails: bool,
    ledger: Ledger,
}

pub(crate) fn plan(yaml: &str, ledger: &Ledger) -> Arc<Plan> {
    let mut catalog = Catalog::default();
    for (name, on_interrupt, fails) in [
        ("t.probe", OnInterrupt::Probe, false),
        ("t.rerun", OnInterrupt::Rerun, false),
        ("t.ask", OnInterrupt::Ask, false),
        ("t.fail", OnInterrupt::Rerun, true),
    ] {
        catalog.add(Acting { name, on_interrupt, fails, ledger: Arc::clone(ledger) });
    }
    let text = format!("runback: 1\nname: t\n{yaml}");
    let checked = check("t.yaml", &text, &mut NoLoad, &catalog);
    checked.plan.unwrap_or_else(|| panic!("{:#?}", checked.diagnostics))
}

impl Acting {
    fn write(&self, what: &str, step: &str) {
        self.ledger.lock().unwrap().push(format!("{what} {step}"));
    }

    fn has(&self, what: &str, step: &str) -> bool {
        let line = format!("{what} {step}");
        self.ledger.lock().unwrap().contains(&line)
    }
}

#[async_trait]
impl AnyStepType for Acting {
    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: self.name,
            doc: "A step type of a test.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: self.on_interrupt,
            detach: false,
            examples: &[],
        }
    }
    fn input_schema(&self) -> Json {
        json!({ "type": "object" })
    }
    fn output_schema(&self) -> Json {
        json!({ "type": "object" })
    }
    fn problems(&self, _: &Json) -> Vec<InputProblem> {
        Vec::new()
    }
    fn output_names(&self, _: &ValueTemplate) -> OutputNames {
        OutputNames::Open
    }
    fn capabilities(&self, _: &ValueTemplate) -> (Access, UndoKind) {
        (Access::Changes, UndoKind::Full)
    }
    async fn preview(&self, _: &Cx<'_>, _: &Json) -> Result<Preview, StepError> {
        Ok(Preview::default())
    }
    async fn capture(&self, _: &Cx<'_>, _: &Json) -> Result<Json, StepError> {
        Ok(json!({ "was": 1 }))
    }
    async fn act(&self, cx: &Cx<'_>, _: &Json, _: &Json) -> Result<Acted<Json>, StepError> {
        self.write("act", cx.step);
        if self.fails { Err(StepError::permanent("it fails")) } else { Ok(Acted::changed(json!({ "n": 1 }))) }
    }
    async fn probe(&self, cx: &Cx<'_>, _: &Json, _: &Json) -> Result<Probe<Json>, StepError> {
        let done = self.has("act", cx.step);
        Ok(if done { Probe::Done(Acted::changed(json!({ "n": 1 }))) } else { Probe::NotDone })
    }
    async fn undo(&self, cx: &Cx<'_>, _: &Json, _: &Json, _: Option<&Json>) -> Result<Undone, StepError> {
        self.write("undo", cx.step);
        Ok(Undone { changed: true, note: None })
    }
}

/// Appends fail from the `limit`-th on: the process is as good as dead.
pub(crate) struct Cut {
    pub(crate) inner: MemoryStore,
    appends: AtomicU64,
    limit: u64,
}

impl Cut {
    pub(crate) fn new(inner: &MemoryStore, limit: u64) -> Self {
        Self { inner: inner.clone(), appends: AtomicU64::new(0), limit }
    }
}

#[async_trait]
impl Store for Cut {
    async fn create(&self, run: &str, events: Vec<Event>) -> Result<Lease, StoreError> {
        self.inner.create(run, events).await
    }
    async fn acquire(&self, run: &str) -> Result<Lease, StoreError> {
        self.inner.acquire(run).await
    }
    async fn append(&self, lease: &Lease, events: Vec<Event>) -> Result<(), StoreError> {
        if self.appends.fetch_add(1, Ordering::SeqCst) >= self.limit {
            return Err(StoreError::LeaseLost { run: lease.run().to_owned() });
        }
        self.inner.append(lease, events).await
    }
    async fn events(&self, run: &str, after_seq: u64, limit: usize) -> Result<Vec<Event>, StoreError> {
        self.inner.events(run, after_seq, limit).await
    }
    async fn runs(&self, filter: &RunFilter) -> Result<Vec<RunRow>, StoreError> {
        self.inner.runs(filter).await
    }
    async fn run(&self, run: &str) -> Result<RunRow, StoreError> {
        self.inner.run(run).await
    }
    async fn resolve(&self, prefix: &str) -> Result<String, StoreError> {
        self.inner.resolve(prefix).await
    }
    async fn delete(&self, run: &str) -> Result<(), StoreError> {
        self.inner.delete(run).await
    }
    async fn verify(&self, run: &str) -> Result<Verified, StoreError> {
        self.inner.verify(run).await
    }
    async fn try_lock(&self, lease: &Lease, step: Option<&str>, names: &[String]) -> Result<LockAttempt, StoreError> {
        self.inner.try_lock(lease, step, names).await
    }
    async fn withdraw_lock(&self, lease: &Lease, step: Option<&str>) -> Result<(), StoreError> {
        self.inner.withdraw_lock(lease, step).await
    }
    async fn release_locks(&self, lease: &Lease) -> Result<(), StoreError> {
        self.inner.release_locks(lease).await
    }
    async fn lock_waits(&self, run: &str) -> Result<Vec<(Option<String>, LockWaiting)>, StoreError> {
        self.inner.lock_waits(run).await
    }
    async fn owner(&self, run: &str) -> Result<Option<runback_exec::lease::Owner>, StoreError> {
        self.inner.owner(run).await
    }
    async fn post(&self, run: &str, request: Request) -> Result<u64, StoreError> {
        self.inner.post(run, request).await
    }
    async fn take_requests(&self, lease: &Lease) -> Result<Vec<Posted>, StoreError> {
        self.inner.take_requests(lease).await
    }
    async fn changed(&self) -> Result<u64, StoreError> {
        self.inner.changed().await
    }
    fn logs_dir(&self, run: &str) -> Option<PathBuf> {
        self.inner.logs_dir(run)
    }
}

fn around() -> Surroundings {
    let local = Arc::new(LocalTarget::new("/".into(), "/nowhere".into(), Processes::without_guard()));
    let no_ssh = |_: &str, _: &runback_core::playbook::model::SshTarget| unreachable!("no playbook here has one");
    Surroundings {
        targets: Arc::new(TargetSet::new(&[], local, no_ssh)),
        secrets: Vec::new(),
        secret_inputs: serde_json::Map::new(),
        masker: Masker::default(),
        base: "/".into(),
        by: "me@here".to_owned(),
        clock_at: Some(1_000_000),
    }
}

struct Silent;

impl Reporter for Silent {
    fn event(&mut self, _: &runback_core::state::RunState, _: &Event) {}
}

pub(crate) async fn start(store: Arc<dyn Store>, plan: &Arc<Plan>) -> Result<Ended, DriverError> {
    let engine = Arc::new(Engine { store, log_limit: 1 << 20 });
    let created = Created {
        format: FORMAT,
        version: "0".to_owned(),
        run: "r1".to_owned(),
        playbook: plan.name.clone(),
        texts: Vec::new(),
        base: "/".to_owned(),
        digest: plan.digest.clone(),
        inputs: json!({}),
        by: "me@here".to_owned(),
        from: "test".to_owned(),
        options: RunOptions::default(),
    };
    let mut driver = Driver::create(engine, Arc::clone(plan), created, around()).await?;
    drive(&mut driver).await
}

pub(crate) async fn resume(store: Arc<dyn Store>, plan: &Arc<Plan>) -> Result<Ended, DriverError> {
    let engine = Arc::new(Engine { store, log_limit: 1 << 20 });
    let mut driver = Driver::open(engine, "r1", Arc::clone(plan), around(), Intent::Resume).await?;
    for node in driver.state().doubts().collect::<Vec<_>>() {
        let step = driver.state().path(node).to_string();
        driver.resolve(&step, runback_core::event::Resolution::Done, json!({ "n": 1 }))?;
    }
    drive(&mut driver).await
}

async fn drive(driver: &mut Driver) -> Result<Ended, DriverError> {
    let (_keep, mut control) = mpsc::unbounded_channel();
    driver.drive(&mut Silent, &Nobody, &mut control, DriveOptions::default()).await
}
