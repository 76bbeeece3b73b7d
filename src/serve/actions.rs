//! What the server does to runs, whoever asked for it: start, take up, take back, answer, stop. Uses the same parts as
//! the command line; who may do what was decided before.

use std::path::PathBuf;
use std::sync::Arc;

use runback_core::Json;
use runback_core::event::{Created, EventBody, Resolution, RunOptions};
use runback_core::plan::Plan;
use runback_core::playbook::model::InputDecl;
use runback_core::schedule::Overlap;
use runback_core::state::{Phase, RunStatus};
use runback_exec::driver::{Driver, Intent, Surroundings};
use runback_exec::store::{Request, RunFilter};
use serde_json::{Map, json};

use super::App;
use super::library::Good;
use super::log;
use super::problem::Problem;
use super::runner::Job;
use super::schedules;
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
    app.runner.room().map_err(|f| Problem { status: axum::http::StatusCode::SERVICE_UNAVAILABLE, ..f.into() })?;
    let Wanted { good, inputs, id, options, by, from, after } = wanted;
    let inputs = resolve(&good.plan.scopes[0].inputs, inputs)?;
    let machines = machines(app, &good.plan, &good.base)?;
    let around = || gather(&good.plan, &good.base, &machines, &inputs.secret, &by);
    let new = New { plan: &good.plan, texts: &good.texts, base: &good.base, inputs: &inputs, options };
    let driver = start::create(&app.engine, &new, id.as_deref(), &from, around).await?;
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

/// Leaves a request for whoever drives the run.
pub(crate) async fn ask(app: &App, run: &str, request: Request) -> Result<(), Problem> {
    // What stops a run is done now; what lets it go on waits for the run's turn.
    let stops = matches!(request, Request::Cancel { .. } | Request::Hold { .. } | Request::Rollback { .. });
    app.store.post(run, request).await?;
    if stops {
        app.runner.hurry(run);
    }
    Ok(())
}

/// Runs that a server drove and that are not over go on, oldest first. Those that only a person can go on with stay.
pub(crate) async fn resume_left(app: &Arc<App>) {
    let mut rows = match app.store.runs(&RunFilter::default()).await {
        Ok(rows) => rows,
        Err(error) => return log::error("the runs cannot be read", json!({ "error": error.to_string() })),
    };
    rows.reverse();
    for row in rows {
        if row.owner.is_some() || !was_ours(&row.head_events) {
            continue;
        }
        let run = row.run;
        match resume_one(app, &run).await {
            Ok(true) => log::info("run resumed", json!({ "run": run })),
            Ok(false) => {
                log::warn("a run waits for a person", json!({ "run": run, "help": format!("runback why {run}") }));
            }
            Err(problem) => {
                let problem = problem.error;
                log::error(
                    "a run could not be resumed",
                    json!({ "run": run, "error": problem.message, "help": problem.help }),
                );
            }
        }
    }
}

/// Started or last taken up by a server, and not over or held.
fn was_ours(head: &[runback_core::event::Event]) -> bool {
    let mut ours = false;
    for event in head {
        match &event.body {
            EventBody::RunCreated(created) => {
                // A person starts the run of a schedule's instant through a server, or on a terminal of their own.
                let asked = created.from.starts_with("schedule-") && is_of_api(&created.by);
                ours = asked || SERVED.contains(&created.from.as_str());
            }
            EventBody::RunHeld { .. } | EventBody::RunFinished { .. } => ours = false,
            EventBody::RunResumed { by } | EventBody::RollbackStarted { step: None, by, .. } => {
                ours |= is_of_api(by);
            }
            _ => {}
        }
    }
    ours
}

/// `from` of runs that only servers start.
const SERVED: [&str; 3] = ["api", "page", "schedule"];

/// Whom a server let in is named with their address; a command line names its host.
fn is_of_api(by: &str) -> bool {
    by.rsplit_once('@').is_some_and(|(_, from)| from.parse::<std::net::IpAddr>().is_ok())
}

async fn resume_one(app: &Arc<App>, run: &str) -> Result<bool, Problem> {
    let found = journal::read(app.store.as_ref(), run, &app.catalog).await?;
    let state = &found.state;
    if matches!(state.phase, Phase::Finished(_) | Phase::Held(_)) {
        return Ok(true);
    }
    let doubtful = state.doubts().next().is_some();
    let asks = state.questions().chain(state.answered()).next().is_some();
    if doubtful && state.status() == RunStatus::Waiting && !asks {
        return Ok(false);
    }
    let how = TakeUp { intent: Intent::Resume, steps: Vec::new(), secret_inputs: Map::new(), by: surroundings::by() };
    take_up(app, run, how).await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn created(from: &str, by: &str) -> runback_core::event::Event {
        let body = json!({
            "type": "run_created", "format": 1, "version": "0", "run": "r", "playbook": "p", "texts": [], "base": "/",
            "digest": "d", "inputs": {}, "by": by, "from": from, "options": {},
        });
        runback_core::event::Event { seq: 1, at: 0, body: serde_json::from_value(body).unwrap() }
    }

    #[test]
    fn a_server_goes_on_with_what_servers_started_and_not_with_what_a_person_did_on_a_terminal() {
        let table = [
            ("api", "ann@10.0.0.7", true),
            ("page", "ann@::1", true),
            ("schedule", "schedule", true),
            ("schedule-trigger", "ann@10.0.0.7", true),
            ("schedule-backfill", "ann@10.0.0.7", true),
            ("schedule-backfill", "ann@desk", false),
            ("schedule-trigger", "ann@desk", false),
            ("terminal", "ann@desk", false),
        ];
        for (from, by, ours) in table {
            assert_eq!(was_ours(&[created(from, by)]), ours, "{from} {by}");
        }
        let body = EventBody::RunResumed { by: "ann@10.0.0.7".to_owned() };
        let resumed = runback_core::event::Event { seq: 2, at: 0, body };
        assert!(was_ours(&[created("schedule-backfill", "ann@desk"), resumed]), "taken up by a server");
    }
}
