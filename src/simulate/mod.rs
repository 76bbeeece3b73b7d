//! Runs of a playbook in which every step has a scripted outcome: the real engine, a store in memory, a clock that
//! jumps, and nothing done in the world.

mod lists;
pub(crate) mod named;
pub(crate) mod script;
pub(crate) mod testfile;
pub(crate) mod verdict;

use std::path::Path;
use std::sync::Arc;

use runback_core::Json;
use runback_core::event::{Created, Event, EventBody, FORMAT, OnFailure, RunOptions};
use runback_core::plan::Plan;
use runback_core::state::RunState;
use runback_core::step::{Answer, Catalog, Question};
use runback_core::target::Target;
use runback_exec::driver::{DriveOptions, Driver, Ended, Engine, Surroundings};
use runback_exec::mask::Masker;
use runback_exec::process::Processes;
use runback_exec::reporter::{AfterFailure, Notice, Operator, Reporter, Settled};
use runback_exec::store::MemoryStore;
use runback_exec::target::{LocalTarget, TargetSet};
use serde_json::Map;
use tokio::sync::mpsc;

use crate::failure::Failure;
use crate::inputs::Inputs;
use crate::load::{self, Loaded};
use script::{Script, Scripted};

/// 2026-01-01T00:00:00Z, in milliseconds: simulations are the same whenever they run.
pub(crate) const START: u64 = 1_767_225_600_000;

/// The catalog with every action replaced by its script.
pub(crate) fn catalog(script: &Arc<Script>) -> Catalog {
    let mut scripted = Catalog::default();
    for step_type in runback_steps::catalog().iter() {
        scripted.add(Scripted::new(Arc::clone(step_type), Arc::clone(script)));
    }
    scripted
}

/// Loads a playbook whose steps follow the script.
pub(crate) fn load(file: &str, script: &Arc<Script>) -> Loaded {
    load::load(file, &catalog(script))
}

/// What came of a simulation.
pub(crate) struct Simulated {
    driver: Driver,
    store: MemoryStore,
    pub(crate) ended: Ended,
}

impl Simulated {
    pub(crate) fn state(&self) -> &RunState {
        self.driver.state()
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.store.journal(self.driver.run())
    }
}

/// What a simulated run is started with.
pub(crate) struct Start<'a> {
    pub(crate) plan: Arc<Plan>,
    pub(crate) base: &'a Path,
    pub(crate) inputs: &'a Inputs,
    pub(crate) on_failure: Option<OnFailure>,
    pub(crate) script: Arc<Script>,
}

/// Runs it to its end; virtual time costs nothing.
pub(crate) fn simulate(start: Start<'_>, watch: Option<&mut dyn Reporter>) -> Result<Simulated, Failure> {
    // Without I/O: nothing is done in the world, so there is nothing to look out for between two steps.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    runtime.block_on(drive(start, watch))
}

async fn drive(start: Start<'_>, watch: Option<&mut dyn Reporter>) -> Result<Simulated, Failure> {
    let Start { plan, base, inputs, on_failure, script } = start;
    let store = MemoryStore::default();
    let engine = Arc::new(Engine { store: Arc::new(store.clone()), log_limit: 0 });
    // No script touches a target; the engine wants each name to have one.
    let local = Arc::new(LocalTarget::new(base.to_owned(), base.to_owned(), Processes::without_guard()));
    let targets = TargetSet::new(&plan.targets, Arc::clone(&local), |_, _| Arc::clone(&local) as Arc<dyn Target>);
    let made_up = |name: &str| Json::String(format!("<secret {name}>"));
    let secrets = plan
        .scopes
        .iter()
        .map(|s| s.secrets.iter().map(|d| (d.name.value.clone(), made_up(&d.name.value))).collect::<Map<_, _>>())
        .collect();
    let around = Surroundings {
        targets: Arc::new(targets),
        secrets,
        secret_inputs: inputs.secret.clone(),
        masker: Masker::none(),
        base: base.to_owned(),
        by: "simulation@local".to_owned(),
        clock_at: Some(START),
    };
    let created = Created {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        run: "simulation".to_owned(),
        playbook: plan.name.clone(),
        texts: Vec::new(),
        base: base.to_string_lossy().into_owned(),
        digest: plan.digest().to_owned(),
        inputs: Json::Object(inputs.open.clone()),
        by: "simulation@local".to_owned(),
        from: "simulation".to_owned(),
        options: RunOptions { on_failure, ..RunOptions::default() },
    };
    script.is_for(&plan);
    let mut driver = Driver::create(engine, plan, created, around).await?;
    let mut told = Told { script: Arc::clone(&script), watch };
    if let (Some(watch), Some(first)) = (&mut told.watch, driver.first_event()) {
        watch.event(driver.state(), &first);
    }
    let (_send, mut control) = mpsc::unbounded_channel();
    let operator = Skipping(script);
    let options = DriveOptions { wait: false, wait_for_locks: false };
    let ended = driver.drive(&mut told, &operator, &mut control, options).await?;
    Ok(Simulated { driver, store, ended })
}

/// Tells the script of undos (a step's `rollback` acts under the step's name), and passes what happens on.
struct Told<'w> {
    script: Arc<Script>,
    watch: Option<&'w mut dyn Reporter>,
}

impl Reporter for Told<'_> {
    fn event(&mut self, state: &RunState, event: &Event) {
        // Before the engine performs it: it does nothing that is not recorded first.
        if let EventBody::UndoStarted { step, .. } = &event.body {
            self.script.undo_begins(step);
        }
        if let Some(watch) = &mut self.watch {
            watch.event(state, event);
        }
    }

    fn notice(&mut self, state: &RunState, notice: &Notice<'_>) {
        if let Some(watch) = &mut self.watch {
            watch.notice(state, notice);
        }
    }
}

/// The operator of a simulation: skips what the script says, and has no other wishes.
struct Skipping(Arc<Script>);

#[async_trait::async_trait]
impl Operator for Skipping {
    fn is_there(&self) -> bool {
        false
    }

    async fn after_failure(&self, step: &str, _error: &str) -> Option<AfterFailure> {
        self.0.skips(step).then_some(AfterFailure::Skip)
    }

    async fn answer(&self, _step: &str, _question: &Question) -> Option<Answer> {
        None
    }

    async fn settle(&self, _step: &str, _doubt: &str) -> Option<Settled> {
        None
    }
}
