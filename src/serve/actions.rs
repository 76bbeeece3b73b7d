//! What the server does to runs, whoever asked for it: start, take up, take back, answer, stop. Uses the same parts as
//! the command line; who may do what was decided before.

use std::path::PathBuf;
use std::sync::Arc;

use axum::http::StatusCode;
use runback_core::Json;
use runback_core::event::{Created, Resolution, RunOptions};
use runback_core::plan::Plan;
use runback_core::playbook::model::InputDecl;
use runback_core::schedule::Overlap;
use runback_core::state::Phase;
use runback_exec::driver::{Driver, Intent, Surroundings};
use runback_exec::store::Request;
use serde_json::{Map, json};

use super::App;
use super::library::Good;
use super::log;
use super::problem::Problem;
use super::runner::Job;
use super::schedules;
use crate::ask;
use crate::failure::Failure;
use crate::inputs::{self, Inputs};
use crate::journal;
use crate::start::{self, New};
use crate::surroundings::{self, Machines};

/// A run that is to be.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) good: Arc<Good>,
    pub(crate) inputs: Map<String, Json>,
    pub(crate) id: Option<String>,
    pub(crate) options: RunOptions,
    pub(crate) by: String,
    pub(crate) from: String,
    /// It waits for the other runs of this schedule.
    pub(crate) after: Option<String>,
}

/// Records a run and puts it into the queue; returns its id.
pub(crate) async fn start(app: &Arc<App>, wanted: Wanted) -> Result<String, Problem> {
    app.runner.room()?;
    let Wanted { good, inputs, id, options, by, from, after } = wanted;
    let inputs = resolve(&good.plan.scopes[0].inputs, inputs)?;
    let machines = machines(app, &good.plan, &good.base)?;
    let around = || gather(&good.plan, &good.base, &machines, &inputs.secret, &by);
    let new = New { plan: &good.plan, texts: &good.texts, base: &good.base, inputs: &inputs, options };
    let driver = match start::create(&app.engine, &new, id.as_deref(), &from, around).await {
        Ok(driver) => driver,
        // There may be one like it: the command line was wrong then, a request is not.
        Err(failure) => {
            let taken = if let Some(id) = &id { app.store.run(id).await.is_ok() } else { false };
            let problem = Problem::from(failure);
            return Err(if taken { Problem { status: StatusCode::CONFLICT, ..problem } } else { problem });
        }
    };
    let run = driver.run().to_owned();
    log::info("run created", json!({ "run": run, "playbook": good.plan.name, "by": by, "from": from }));
    app.runner.submit(Job { driver, machines, after });
    app.index.nudge();
    Ok(run)
}

/// Values for the declared inputs, or all that is wrong with what was given.
pub(crate) fn resolve(decls: &[InputDecl], given: Map<String, Json>) -> Result<Inputs, Failure> {
    inputs::from_json(decls, given, "inputs")
}

fn machines(app: &App, plan: &Plan, base: &std::path::Path) -> Result<Machines, Failure> {
    Machines::of(&app.processes, plan, base, &app.settings.state_dir)
}

async fn gather(
    plan: &Plan,
    base: &std::path::Path,
    machines: &Machines,
    secret: &Map<String, Json>,
    by: &str,
) -> Result<Surroundings, Failure> {
    match surroundings::gather(plan, base.to_owned(), machines, secret.clone()).await {
        Ok((mut around, weak)) => {
            for warning in weak {
                log::warn(&warning, json!({ "playbook": plan.name }));
            }
            by.clone_into(&mut around.by);
            Ok(around)
        }
        Err(errors) => {
            let messages: Vec<_> = errors.iter().map(ToString::to_string).collect();
            let help = errors.into_iter().map(|e| e.help);
            Err(help.fold(Failure::refused(messages.join("; ")), Failure::help))
        }
    }
}

/// How a run that is there is taken up.
#[derive(Debug, Clone)]
pub(crate) struct TakeUp {
    pub(crate) intent: Intent,
    /// What steps count as.
    pub(crate) steps: Vec<(String, Resolution)>,
    /// Inputs marked secret are not stored.
    pub(crate) secret_inputs: Map<String, Json>,
    pub(crate) by: String,
}

/// Takes a run up and puts it into the queue.
pub(crate) async fn take_up(app: &Arc<App>, run: &str, how: TakeUp) -> Result<(), Problem> {
    app.runner.room()?;
    let (created, plan) = plan_of(app, run).await?;
    let base = PathBuf::from(&created.base);
    let decls: Vec<InputDecl> = plan.scopes[0].inputs.iter().filter(|d| d.secret).cloned().collect();
    let inputs = resolve(&decls, how.secret_inputs)?;
    let machines = machines(app, &plan, &base)?;
    let around = gather(&plan, &base, &machines, &inputs.secret, &how.by).await?;
    let mut driver = Driver::open(Arc::clone(&app.engine), run, plan, around, how.intent).await?;
    for (step, resolution) in &how.steps {
        driver.resolve(step, *resolution, Json::Null)?;
    }
    // One that had not begun waits again for the others of its schedule, if it had to.
    let waits = |key: &String| schedules::find(app, key).is_none_or(|e| e.schedule.overlap != Overlap::AllowAll);
    let after = super::runner::schedule_of(&driver).filter(|_| driver.state().phase == Phase::Created).filter(waits);
    app.runner.submit(Job { driver, machines, after });
    Ok(())
}

async fn plan_of(app: &App, run: &str) -> Result<(Created, Arc<Plan>), Problem> {
    let (created, plan) = journal::plan_of(app.store.as_ref(), run, &app.catalog).await?;
    Ok((created, plan))
}

/// Leaves a request for whoever drives the run, and gives its number.
pub(crate) async fn post(app: &App, run: &str, request: Request) -> Result<u64, Problem> {
    // What stops a run is done now; what lets it go on waits for the run's turn.
    let stops = matches!(request, Request::Cancel { .. } | Request::Hold { .. } | Request::Rollback { .. });
    let request = app.store.post(run, request).await?;
    if stops {
        app.runner.hurry(run);
    }
    Ok(request)
}

/// The same, and waits until it is heard. False: that process went without hearing it, and nobody does.
pub(crate) async fn ask(app: &App, run: &str, request: Request) -> Result<bool, Problem> {
    let request = post(app, run, request).await?;
    Ok(ask::heard(app.store.as_ref(), run, request).await?)
}
