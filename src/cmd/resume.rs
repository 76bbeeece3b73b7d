//! `runback resume` and `runback rollback`: take an existing run up again, forward or back.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use runback_core::Json;
use runback_core::event::Resolution;
use runback_core::state::RunState;
use runback_core::step::Catalog;
use runback_exec::driver::{Driver, DriverError, Engine, Intent};
use runback_exec::store::{Request, Store, StoreError};

use crate::drive::{self, DriveArgs, How};
use crate::exit::Exit;
use crate::failure::{Done, Failure};
use crate::inputs::InputArgs;
use crate::report::TakenUp;
use crate::surroundings::{self, Machines};
use crate::term::{self, DIM, RESET};
use crate::{ask, journal, next, state_dir};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A run's id, the beginning of one, or `last`
    #[arg(value_name = "RUN")]
    run: String,

    /// What a step counts as: ID=done, redo, fail or skip; undone or kept where its undo failed
    #[arg(long = "step", value_name = "ID=WHAT", value_parser = step_resolution)]
    steps: Vec<(String, Resolution)>,

    /// Inputs marked secret are not stored: give them again
    #[command(flatten)]
    inputs: InputArgs,

    #[command(flatten)]
    pub(crate) drive: DriveArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RollbackArguments {
    /// A run's id, the beginning of one, or `last`
    #[arg(value_name = "RUN")]
    run: String,

    /// Undo also where the world has changed since
    #[arg(long)]
    force: bool,

    /// What a step whose undo failed counts as: ID=undone (you took it back by hand) or ID=kept (it is to stay)
    #[arg(long = "step", value_name = "ID=WHAT", value_parser = undo_resolution)]
    steps: Vec<(String, Resolution)>,

    /// Inputs marked secret are not stored: give them again
    #[command(flatten)]
    inputs: InputArgs,

    #[command(flatten)]
    pub(crate) drive: DriveArgs,
}

fn step_resolution(text: &str) -> Result<(String, Resolution), String> {
    let (step, what) = text.rsplit_once('=').ok_or("write ID=done, ID=redo, ID=fail, ID=skip, ID=undone or ID=kept")?;
    let resolution = match what {
        "done" => Resolution::Done,
        "redo" => Resolution::Redo,
        "fail" => Resolution::Fail,
        "skip" => Resolution::Skip,
        "undone" => Resolution::Undone,
        "kept" => Resolution::Kept,
        other => return Err(format!("`{other}` is none of done, redo, fail, skip, undone, kept")),
    };
    Ok((step.to_owned(), resolution))
}

/// On the way back nothing is done any more.
fn undo_resolution(text: &str) -> Result<(String, Resolution), String> {
    match step_resolution(text) {
        Ok(said) if said.1.is_of_undo() => Ok(said),
        _ => Err("write ID=undone or ID=kept".to_owned()),
    }
}

pub(crate) fn run(arguments: &Arguments, dir: Option<&Path>) -> Done {
    let store = state_dir::of_run(dir, &arguments.run)?;
    let state_dir = state_dir::path(dir)?;
    state_dir::block_on(async {
        let id = store.resolve(&arguments.run).await?;
        ask::let_go(store.as_ref(), &id, &runback_steps::catalog()).await?;
        let Some(steps) = untold(store.as_ref(), &id, &arguments.steps).await? else { return Ok(Exit::Succeeded) };
        let (inputs, log_limit) = (&arguments.inputs, arguments.drive.log_limit());
        let take_up = TakeUp { store: &store, state_dir: &state_dir, inputs, log_limit };
        let (mut driver, machines) = take_up.open(&id, Intent::Resume).await?;
        for (step, resolution) in &steps {
            driver.resolve(step, *resolution, Json::Null)?;
        }
        let how = How { taken_up: Some(TakenUp::Forward), ask_on_failure: true };
        let done = drive::drive(driver, Arc::clone(&store), &arguments.drive, how).await;
        machines.close().await;
        done
    })
}

/// Refuses what is said of an undo where whoever drives the run could only refuse it, too: nobody would hear of that. What
/// is said of an attempt may be of one whose process is gone, as the run will find when its turn comes.
pub(crate) fn may_settle(state: &RunState, step: &str, resolution: Resolution) -> Result<(), Failure> {
    let Some(node) = state.find(step) else { return Err(super::logs::no_step(state, step)) };
    let why = resolution.is_of_undo().then(|| state.refuses_undo_resolution(node)).flatten();
    let Some(why) = why else { return Ok(()) };
    let run = state.run_id();
    let failure = Failure::refused(format!("{step} of run {run} cannot be settled now: {why}"));
    Err(failure.help(format!("see what it does: {}", next::as_typed(&format!("runback why {run}")))))
}

/// Where somebody drives the run now, they are told what steps count as. Gives what is left to do here: None, nothing.
async fn untold(
    store: &dyn Store,
    run: &str,
    steps: &[(String, Resolution)],
) -> Result<Option<Vec<(String, Resolution)>>, Failure> {
    if steps.is_empty() || store.owner(run).await?.is_none() {
        return Ok(Some(steps.to_vec()));
    }
    let found = journal::read(store, run, &runback_steps::catalog()).await?;
    for (step, resolution) in steps {
        may_settle(&found.state, step, *resolution)?;
    }
    let left = ask::tell(store, run, steps, &surroundings::by()).await?;
    if !left.is_empty() {
        return Ok(Some(left));
    }
    let see = next::as_typed(&format!("runback show {run}"));
    term::line(&format!("told the process that drives run {run}; see it: {see}"));
    Ok(None)
}

pub(crate) fn rollback(arguments: &RollbackArguments, dir: Option<&Path>) -> Done {
    let store = state_dir::of_run(dir, &arguments.run)?;
    let state_dir = state_dir::path(dir)?;
    state_dir::block_on(async {
        let id = store.resolve(&arguments.run).await?;
        ask::let_go(store.as_ref(), &id, &runback_steps::catalog()).await?;
        let (inputs, log_limit) = (&arguments.inputs, arguments.drive.log_limit());
        let take_up = TakeUp { store: &store, state_dir: &state_dir, inputs, log_limit };
        let Some(steps) = untold(store.as_ref(), &id, &arguments.steps).await? else { return Ok(Exit::Succeeded) };
        let intent = Intent::Rollback { force: arguments.force };
        let (mut driver, machines) = match take_up.open(&id, intent.clone()).await {
            Err(failure) if failure.exit == Exit::Refused && store.owner(&id).await?.is_some() => {
                let request = Request::Rollback { by: surroundings::by(), force: arguments.force };
                let request = store.post(&id, request).await?;
                if ask::heard(store.as_ref(), &id, request).await? {
                    term::line(&format!("asked the process that drives run {id} to take it back"));
                    term::note(&format!("{DIM}see it: {}{RESET}", next::as_typed(&format!("runback show {id}"))));
                    return Ok(Exit::Succeeded);
                }
                take_up.open(&id, intent).await?
            }
            other => other?,
        };
        for (step, resolution) in &steps {
            driver.resolve(step, *resolution, Json::Null)?;
        }
        let how = How { taken_up: Some(TakenUp::Back), ask_on_failure: false };
        let done = drive::drive(driver, Arc::clone(&store), &arguments.drive, how).await;
        machines.close().await;
        // Taken back is what was wanted.
        match done? {
            Exit::RolledBack => Ok(Exit::Succeeded),
            other => Ok(other),
        }
    })
}

struct TakeUp<'a> {
    store: &'a Arc<dyn Store>,
    state_dir: &'a Path,
    inputs: &'a InputArgs,
    /// In bytes.
    log_limit: u64,
}

impl TakeUp<'_> {
    async fn open(&self, run: &str, intent: Intent) -> Result<(Driver, Machines), Failure> {
        if let Some(owner) = self.store.owner(run).await? {
            // Before secrets are asked for in vain; who is quicker than this look is met by the lease.
            return Err(DriverError::Store(StoreError::Busy { run: run.to_owned(), owner: Some(owner) }).into());
        }
        let catalog: Catalog = runback_steps::catalog();
        let (created, plan) = journal::plan_of(self.store.as_ref(), run, &catalog).await?;
        let base = PathBuf::from(&created.base);
        let secret = self.inputs.again(&plan.scopes[0].inputs, &created.inputs)?;
        let machines = Machines::new(&plan, &base, self.state_dir)?;
        let around = surroundings::new(&plan, base, &machines, secret).await?;
        let engine = Arc::new(Engine { store: Arc::clone(self.store), log_limit: self.log_limit });
        let driver = Driver::open(engine, run, plan, around, intent).await?;
        Ok((driver, machines))
    }
}
