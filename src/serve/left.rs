//! Runs that servers drove or had in their queues, and that nobody has now: a server that starts goes on with them, and
//! one that lives takes over the queue of one that died. How a run is taken up it does not know.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use runback_core::decide::RUNBACK;
use runback_core::event::{Event, EventBody};
use runback_core::state::{Phase, RunStatus};
use runback_exec::driver::Intent;
use runback_exec::store::{RunFilter, StoreError};
use serde_json::{Map, json};

use super::App;
use super::actions::{TakeUp, take_up};
use super::log;
use super::problem::Problem;
use crate::journal;

/// Between looks for runs whose server died.
const LOOK: Duration = Duration::from_secs(1);

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
            Err(problem) => not_resumed(&run, &problem),
        }
    }
}

fn not_resumed(run: &str, problem: &Problem) {
    let error = &problem.error;
    log::error("a run could not be resumed", json!({ "run": run, "error": error.message, "help": error.help }));
}

/// Takes over what other servers that die leave in their queues, until it is aborted. What they had begun is in doubt, and
/// waits for their restart or for a person.
pub(crate) async fn take_over(app: Arc<App>) {
    let mut refused = HashSet::new();
    loop {
        tokio::time::sleep(LOOK).await;
        if let Err(error) = look(&app, &mut refused).await {
            let fields = json!({ "error": error.to_string(), "help": error.help() });
            log::error("runs of other servers cannot be looked after", fields);
        }
    }
}

/// `refused`: runs that cannot be taken over, which is said once.
async fn look(app: &Arc<App>, refused: &mut HashSet<String>) -> Result<(), StoreError> {
    let waiting: Vec<String> = {
        let heads = app.index.heads();
        let wait = heads.iter().rev().filter(|h| h.started_at.is_none() && !h.driven && h.may_go_on());
        wait.map(|head| head.id.clone()).collect()
    };
    if waiting.is_empty() {
        return Ok(());
    }
    // Whoever lets a run go takes its lock file away: only who dies leaves it.
    let leased: HashSet<String> = app.desk.leased().await?.into_iter().collect();
    for run in waiting.iter().filter(|run| leased.contains(*run)) {
        if refused.contains(run) || app.runner.room().is_err() {
            continue;
        }
        let row = match app.store.run(run).await {
            Ok(row) => row,
            Err(StoreError::UnknownRun { .. }) => continue,
            Err(error) => return Err(error),
        };
        if row.owner.is_some() || has_begun(&row.head_events) || !was_ours(&row.head_events) {
            continue;
        }
        match resume_one(app, run).await {
            Ok(_) => log::info("run taken over from a server that died", json!({ "run": run })),
            // Another server was quicker, or this one has no room any more.
            Err(problem) if problem.status == StatusCode::SERVICE_UNAVAILABLE => {}
            Err(_) if app.store.owner(run).await?.is_some() => {}
            Err(problem) => {
                not_resumed(run, &problem);
                refused.insert(run.clone());
            }
        }
    }
    Ok(())
}

fn has_begun(head: &[Event]) -> bool {
    head.iter().any(|e| matches!(e.body, EventBody::RunStarted {} | EventBody::RollbackStarted { .. }))
}

/// Started or last taken up by a server, and not over or held.
fn was_ours(head: &[Event]) -> bool {
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
    let how = TakeUp { intent: Intent::Resume, steps: Vec::new(), secret_inputs: Map::new(), by: RUNBACK.to_owned() };
    take_up(app, run, how).await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn created(from: &str, by: &str) -> Event {
        let body = json!({
            "type": "run_created", "format": 1, "version": "0", "run": "r", "playbook": "p", "texts": [], "base": "/",
            "digest": "d", "inputs": {}, "by": by, "from": from, "options": {},
        });
        Event { seq: 1, at: 0, body: serde_json::from_value(body).unwrap() }
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
        let resumed = Event { seq: 2, at: 0, body };
        assert!(was_ours(&[created("schedule-backfill", "ann@desk"), resumed]), "taken up by a server");
    }
}
