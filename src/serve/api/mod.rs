//! The table of the API's routes.

mod graph;
mod playbooks;
mod prune;
mod runs;
mod schedules;
mod system;
mod verbs;

use std::sync::Arc;

use axum::http::StatusCode;
use runback_core::state::{NodeId, RunState};

use super::App;
use super::auth::Role;
use super::library::Good;
use super::problem::Problem;
use super::route::{Route, get, post};
pub(crate) use runs::RunHead;

pub(crate) fn table() -> Vec<Route> {
    let mut table = of_the_server();
    table.extend(of_runs());
    table.extend(of_schedules());
    table.extend(of_playbooks());
    table
}

fn of_the_server() -> Vec<Route> {
    use Role::Viewer;
    vec![
        get("/api/v1/openapi.json", "getOpenApi", Viewer, "This document.").to(system::openapi),
        get("/api/v1/me", "getMe", Viewer, "Who you are to this server, and what you may do.").to(system::me),
        get("/api/v1/status", "getStatus", Viewer, "What this server is doing.").to(system::status),
    ]
}

fn of_runs() -> Vec<Route> {
    use Role::{Admin, Approver, Operator, Viewer};
    vec![
        get("/api/v1/runs", "listRuns", Viewer, "Runs, newest first.").to(runs::list),
        get(
            "/api/v1/changes",
            "watchRuns",
            Viewer,
            "Runs that are new or have changed, as in the list: server-sent events. The event `reload` says that some were missed.",
        )
        .to(runs::changes),
        post("/api/v1/runs", "startRun", Operator, "Start a run of a playbook.").to(runs::start),
        get("/api/v1/runs/{run}", "getRun", Viewer, "One run, with its steps.").to(runs::show),
        get("/api/v1/runs/{run}/events", "listEvents", Viewer, "Events of a run, in order.").to(runs::events),
        get(
            "/api/v1/runs/{run}/stream",
            "watchRun",
            Viewer,
            "Events of a run as they become durable: server-sent events, each with its number as id. Go on after a number with Last-Event-ID.",
        )
        .to(runs::stream),
        get("/api/v1/runs/{run}/why", "whyRun", Viewer, "What a run or a step waits for.").to(runs::why),
        get(
            "/api/v1/runs/{run}/log",
            "readLog",
            Viewer,
            "A stretch of the output of an attempt. Headers: x-log-offset (of the first byte given), x-log-cut (bytes before it that are not kept), x-log-next, x-log-size (of the whole output so far).",
        )
        .to(runs::log),
        get("/api/v1/runs/{run}/plan", "planOfRun", Viewer, "The plan that a run follows.").to(runs::plan),
        get(
            "/api/v1/runs/{run}/graph",
            "graphOfRun",
            Viewer,
            "The steps of a run as a graph: what stands in what, and what needs what.",
        )
        .to(graph::show),
        get(
            "/api/v1/runs/{run}/rollback",
            "rollbackOfRun",
            Viewer,
            "What a rollback that begins now would do: which steps it undoes, which stay and why.",
        )
        .to(graph::rollback),
        post("/api/v1/runs/{run}/approve", "approveRun", Approver, "Say yes to a step that asks.").to(verbs::approve),
        post("/api/v1/runs/{run}/refuse", "refuseRun", Approver, "Say no to a step that asks.").to(verbs::refuse),
        post("/api/v1/runs/{run}/cancel", "cancelRun", Operator, "Stop a run; what follows says `on_failure`.")
            .to(verbs::cancel),
        post("/api/v1/runs/{run}/hold", "holdRun", Operator, "Let what runs finish, start nothing new, and hold.")
            .to(verbs::hold),
        post("/api/v1/runs/{run}/resume", "resumeRun", Operator, "Go on with a run that is held, was interrupted, or is in doubt.")
            .to(verbs::resume),
        post("/api/v1/runs/{run}/retry", "retryStep", Operator, "Do one failed or interrupted step again. A run that has stopped goes on as a whole: refused there while another step has failed too.")
            .to(verbs::retry),
        post("/api/v1/runs/{run}/rollback", "rollbackRun", Operator, "Take a run back.").to(verbs::rollback),
        post("/api/v1/prune", "pruneRuns", Admin, "Remove runs that are over, with their logs.").to(prune::prune),
    ]
}

fn of_schedules() -> Vec<Route> {
    use Role::{Operator, Viewer};
    vec![
        get(
            "/api/v1/schedules",
            "listSchedules",
            Viewer,
            "Schedules of the server's playbooks, and when they fire next.",
        )
        .to(schedules::list),
        get("/api/v1/schedules/{schedule}", "getSchedule", Viewer, "One schedule.").to(schedules::show),
        post(
            "/api/v1/schedules/{schedule}/pause",
            "pauseSchedule",
            Operator,
            "Pass over its instants until it is resumed.",
        )
        .to(schedules::pause),
        post("/api/v1/schedules/{schedule}/resume", "resumeSchedule", Operator, "Fire again, from now on.")
            .to(schedules::resume),
        post(
            "/api/v1/schedules/{schedule}/trigger",
            "triggerSchedule",
            Operator,
            "Start a run now, beside its instants.",
        )
        .to(schedules::trigger),
        post(
            "/api/v1/schedules/{schedule}/backfill",
            "backfillSchedule",
            Operator,
            "Start the runs of instants that have none, one after the other.",
        )
        .to(schedules::backfill),
        get(
            "/api/v1/schedules/{schedule}/instants",
            "instantsOfSchedule",
            Viewer,
            "Instants of a range that is over, and what became of each: what a backfill of it would start.",
        )
        .to(schedules::instants),
        get("/api/v1/firings", "listFirings", Viewer, "What was decided about instants of schedules, newest first.")
            .to(schedules::firings),
    ]
}

fn of_playbooks() -> Vec<Route> {
    use Role::{Operator, Viewer};
    vec![
        get("/api/v1/playbooks", "listPlaybooks", Viewer, "Playbooks of the server's folder.").to(playbooks::list),
        get("/api/v1/playbooks/{playbook}", "getPlaybook", Viewer, "One playbook: text, diagnostics, inputs.")
            .to(playbooks::show),
        post(
            "/api/v1/playbooks/{playbook}/plan",
            "planPlaybook",
            Viewer,
            "What a run would do, in order. Does not look at the live world.",
        )
        .to(playbooks::plan),
        post(
            "/api/v1/playbooks/{playbook}/preview",
            "previewPlaybook",
            Operator,
            "The plan, with what each step would change in the live world; changes nothing.",
        )
        .to(playbooks::preview),
    ]
}

/// A playbook of the folder that can be run.
fn playbook(app: &App, id: &str) -> Result<Arc<Good>, Problem> {
    let entry = app.library.get(id).ok_or_else(|| {
        let help = if app.settings.playbooks.is_some() {
            "GET /api/v1/playbooks lists them"
        } else {
            "start serve with --playbooks DIR"
        };
        Problem::not_found(format!("there is no playbook `{id}` in the server's folder")).help(help)
    })?;
    entry.good.ok_or_else(|| {
        let count = entry.now.errors();
        let errors = crate::words::plural(count, "error");
        let message = format!("playbook `{id}` has {errors}, and was never good since the server started");
        Problem::conflict(message, format!("see its diagnostics (GET /api/v1/playbooks/{id}), and mend it"))
    })
}

/// A step of a run by its path.
fn step(state: &RunState, path: &str) -> Result<NodeId, Problem> {
    let unknown = || Problem { status: StatusCode::NOT_FOUND, ..crate::cmd::logs::no_step(state, path).into() };
    state.find(path).ok_or_else(unknown)
}
