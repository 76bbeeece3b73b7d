//! What the API says of the server itself.

use runback_core::Json;
use schemars::JsonSchema;
use serde::Serialize;

use crate::serve::auth::Role;
use crate::serve::openapi;
use crate::serve::problem::Problem;
use crate::serve::route::{Call, Nothing, Ok200};

type Plain = Call<Nothing, Nothing, Nothing>;

pub(crate) async fn openapi(_: Plain) -> Result<Ok200<Json>, Problem> {
    Ok(Ok200(openapi::document()))
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Me {
    /// Who you are in events.
    by: String,
    name: String,
    roles: Vec<Role>,
}

pub(crate) async fn me(call: Plain) -> Result<Ok200<Me>, Problem> {
    Ok(Ok200(Me { by: call.who.by(), name: call.who.name, roles: call.who.roles }))
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ServerStatus {
    version: &'static str,
    /// Runs that are being driven now.
    running: usize,
    /// Runs that wait for a person.
    waiting: usize,
    queued: usize,
    max_runs: usize,
    /// Runs whose events somebody watches.
    watched: usize,
    /// Playbooks of the folder.
    playbooks: usize,
    /// Those whose file is broken now.
    broken: Vec<String>,
}

pub(crate) async fn status(call: Plain) -> Result<Ok200<ServerStatus>, Problem> {
    let app = call.app;
    let load = app.runner.load();
    let playbooks = app.library.all();
    Ok(Ok200(ServerStatus {
        version: env!("CARGO_PKG_VERSION"),
        running: load.running,
        waiting: load.waiting,
        queued: load.queued,
        max_runs: app.settings.max_runs,
        watched: app.feeds.count(),
        playbooks: playbooks.len(),
        broken: playbooks.into_iter().filter(super::super::library::Entry::is_broken).map(|e| e.id).collect(),
    }))
}
