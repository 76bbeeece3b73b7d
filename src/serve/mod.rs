//! The server: one process over one store that keeps playbooks, starts runs by clock and by request, drives them, and
//! shows all of it through an API. Each part knows its own business; here they are put together and taken down.

mod actions;
mod api;
pub(crate) mod auth;
mod feed;
mod folds;
mod index;
mod left;
pub(crate) mod library;
mod listen;
mod log;
mod metrics;
mod openapi;
pub(crate) mod page;
mod pieces;
mod problem;
mod route;
mod router;
mod runner;
pub(crate) mod schedules;
mod threads;
pub(crate) mod token;
mod turns;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use runback_core::step::Catalog;
use runback_exec::driver::Engine;
use runback_exec::process::Processes;
use runback_exec::process::guard::GuardCommand;
use runback_exec::store::retention::{self, Retention};
use runback_exec::store::{SqliteStore, Store};
use serde_json::json;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};

use crate::failure::Failure;
use crate::trace::{TraceArgs, Tracer};
pub(crate) use openapi::document as openapi_document;

/// What the command line says.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) address: SocketAddr,
    pub(crate) tls: Option<TlsFiles>,
    pub(crate) playbooks: Option<PathBuf>,
    pub(crate) state_dir: PathBuf,
    /// What retention keeps: runs that are over, this long and this many.
    pub(crate) keep_for: Option<Duration>,
    pub(crate) keep: Option<usize>,
    pub(crate) max_runs: usize,
    pub(crate) max_queue: usize,
    pub(crate) max_connections: usize,
    pub(crate) max_streams: usize,
    /// Bytes of output of one attempt that are kept.
    pub(crate) log_limit: u64,
    /// The address is told on stdout with a code that logs in once.
    pub(crate) print_login: bool,
    pub(crate) trace: TraceArgs,
}

pub(crate) use listen::TlsFiles;

/// Everything that a request may need. Shared by all of them; what changes in it is behind its own small lock.
pub(crate) struct App {
    pub(crate) settings: Settings,
    pub(crate) store: Arc<dyn Store>,
    /// The same store, for what only a server keeps.
    pub(crate) desk: Arc<SqliteStore>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) engine: Arc<Engine>,
    pub(crate) processes: Arc<Processes>,
    pub(crate) library: library::Library,
    pub(crate) runner: runner::Runner,
    pub(crate) feeds: feed::Feeds,
    pub(crate) index: index::Index,
    pub(crate) folds: folds::Folds,
    pub(crate) gate: auth::Gate,
    pub(crate) metrics: metrics::Metrics,
    pub(crate) streams: Arc<Semaphore>,
    pub(crate) tracer: Option<Tracer>,
    /// Where runs are driven, and changes are made; what only looks is on threads that stand behind.
    pub(crate) runs: Handle,
    /// True once the server is told to end.
    pub(crate) ending: watch::Sender<bool>,
}

/// So long runs have to be left after SIGTERM, and connections after that.
const LEAVE_WITHIN: Duration = Duration::from_secs(9);
const CLOSE_WITHIN: Duration = Duration::from_millis(800);
/// Between looks for runs that are to go.
const PRUNE: Duration = Duration::from_secs(3600);
/// Between looks at the folder of playbooks.
const LOOK: Duration = Duration::from_secs(1);

fn app(settings: Settings, tracer: Option<Tracer>) -> Result<Arc<App>, Failure> {
    let desk = Arc::new(SqliteStore::open(&settings.state_dir)?);
    let store: Arc<dyn Store> = Arc::clone(&desk) as _;
    let catalog = Arc::new(runback_steps::catalog());
    let gate = auth::Gate::new(Arc::clone(&desk), settings.tls.is_some())?;
    let processes = Processes::new(GuardCommand::this_binary(), |warning| log::warn(warning, json!({})));
    Ok(Arc::new_cyclic(|app| App {
        engine: Arc::new(Engine { store: Arc::clone(&store), log_limit: settings.log_limit }),
        library: library::Library::new(settings.playbooks.clone(), Arc::clone(&catalog)),
        runner: runner::Runner::new(app.clone(), settings.max_runs, settings.max_queue),
        feeds: feed::Feeds::default(),
        index: index::Index::new(),
        folds: folds::Folds::default(),
        metrics: metrics::Metrics::new(),
        streams: Arc::new(Semaphore::new(settings.max_streams)),
        runs: Handle::current(),
        tracer,
        ending: watch::Sender::new(false),
        gate,
        processes,
        catalog,
        store,
        desk,
        settings,
    }))
}

/// Serves until SIGTERM or Ctrl-C.
pub(crate) async fn run(settings: Settings) -> Result<(), Failure> {
    // Before anything is said: who was told that it listens may stop it, and is heard.
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let behind = threads::Behind::new()?;
    let tracer = Tracer::new(&settings.trace, behind.handle(), |warning| log::warn(warning, json!({})));
    let app = app(settings, tracer)?;
    look(&app).await;
    let binding = Arc::clone(&app);
    let listener = behind.spawn(async move { listen::bind(&binding.settings).await }).await;
    let listener = listener.map_err(|e| Failure::failed(format!("cannot listen: {e}")))??;
    let address = listener.address();
    let scheme = if app.settings.tls.is_some() { "https" } else { "http" };
    log::info("listening", json!({ "address": format!("{scheme}://{address}") }));
    if app.settings.print_login {
        let code = app.gate.new_code()?;
        crate::term::line(&format!("{scheme}://{address}/login#{code}"));
    }
    let watching = tokio::spawn(watch_playbooks(Arc::clone(&app)));
    let pruning = tokio::spawn(prune(Arc::clone(&app)));
    let (ready, read) = tokio::sync::oneshot::channel();
    let following = tokio::spawn(index::follow(Arc::clone(&app), ready));
    // It fails only if the task is gone, and then lists are empty.
    let _ = read.await;
    let taking_turns = tokio::spawn(turns::follow(Arc::clone(&app)));
    left::resume_left(&app).await;
    let taking_over = tokio::spawn(left::take_over(Arc::clone(&app)));
    let firing = tokio::spawn(schedules::fire(Arc::clone(&app)));
    let serving = behind.spawn(listen::serve(listener, router::router(Arc::clone(&app)), app.ending.subscribe()));
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    log::info("ending", json!({ "runs": app.runner.load().running }));
    watching.abort();
    firing.abort();
    pruning.abort();
    taking_turns.abort();
    taking_over.abort();
    following.abort();
    app.runner.leave(LEAVE_WITHIN).await;
    app.ending.send_replace(true);
    if tokio::time::timeout(CLOSE_WITHIN, serving).await.is_err() {
        log::warn("connections were cut", json!({}));
    }
    if let Some(tracer) = app.tracer.clone() {
        tracer.close().await;
    }
    log::info("ended", json!({}));
    Ok(())
}

async fn look(app: &Arc<App>) {
    let looking = Arc::clone(app);
    let changes = tokio::task::spawn_blocking(move || looking.library.look()).await.unwrap_or_default();
    for change in changes {
        match change {
            library::Change::New(id) => log::info("playbook found", json!({ "playbook": id })),
            library::Change::Changed(id) => log::info("playbook changed", json!({ "playbook": id })),
            library::Change::Other(file) => {
                log::info(
                    "left out: no playbook",
                    json!({ "file": file, "why": "it has neither `runback` nor `steps` at its top" }),
                );
            }
            library::Change::Gone(id) => log::info("playbook gone", json!({ "playbook": id })),
            library::Change::Broken(id, errors, first) => {
                log::error(
                    "playbook broken; the last good text stays in use",
                    json!({ "playbook": id, "errors": errors, "first": first }),
                );
            }
        }
    }
}

/// Removes what retention does not keep, now and every hour. Runs that could be resumed stay.
async fn prune(app: Arc<App>) {
    if app.settings.keep_for.is_none() && app.settings.keep.is_none() {
        return;
    }
    loop {
        let older_than = app.settings.keep_for.map(|age| crate::words::now_ms().saturating_sub(age.as_millis() as u64));
        let rule = Retention { older_than, keep_newest: app.settings.keep, ..Retention::default() };
        match retention::prune(app.store.as_ref(), &rule).await {
            Ok(pruned) if pruned.removed.is_empty() => {}
            Ok(pruned) => {
                log::info("runs removed", json!({ "removed": pruned.removed.len(), "kept": pruned.kept.len() }));
                app.index.nudge();
            }
            Err(error) => log::warn("old runs could not be removed", json!({ "error": error.to_string() })),
        }
        tokio::time::sleep(PRUNE).await;
    }
}

async fn watch_playbooks(app: Arc<App>) {
    loop {
        tokio::time::sleep(LOOK).await;
        look(&app).await;
    }
}
