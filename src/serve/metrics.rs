//! Numbers for Prometheus. They count what this server saw; the journal is the truth.

use std::time::Duration;

use axum::http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use runback_core::event::{Event, EventBody};
use runback_core::state::RunState;

use super::App;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    playbook: String,
    outcome: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPlaybook {
    playbook: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    route: String,
    status: u16,
}

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.01, 4.0, 12))
}

fn quick() -> Histogram {
    Histogram::new(exponential_buckets(0.000_5, 2.5, 12))
}

pub(crate) struct Metrics {
    registry: Registry,
    runs: Family<Of, Counter>,
    run_seconds: Histograms<OfPlaybook>,
    steps: Family<Of, Counter>,
    attempts: Family<OfPlaybook, Counter>,
    events: Counter,
    requests: Family<Answered, Counter>,
    request_seconds: Histogram,
    store_seconds: Histogram,
    running: Gauge,
    waiting: Gauge,
    queued: Gauge,
    streams: Gauge,
    broken: Family<OfPlaybook, Gauge>,
    instants: Family<Of, Counter>,
    lag_seconds: Histogram,
    last_look: Gauge,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("runback");
        let all = Self {
            registry: Registry::default(),
            runs: Family::default(),
            run_seconds: Family::new_with_constructor(seconds as fn() -> Histogram),
            steps: Family::default(),
            attempts: Family::default(),
            events: Counter::default(),
            requests: Family::default(),
            request_seconds: quick(),
            store_seconds: quick(),
            running: Gauge::default(),
            waiting: Gauge::default(),
            queued: Gauge::default(),
            streams: Gauge::default(),
            broken: Family::default(),
            instants: Family::default(),
            lag_seconds: Histogram::new(exponential_buckets(0.005, 4.0, 12)),
            last_look: Gauge::default(),
        };
        registry.register("runs", "Runs that this server drove to where they stand, by outcome", all.runs.clone());
        let (help, unit) = ("From the start of a run to its end", Unit::Seconds);
        registry.register_with_unit("run_duration", help, unit, all.run_seconds.clone());
        registry.register("steps", "Steps that ended, by outcome", all.steps.clone());
        registry.register("attempts", "Attempts that were started", all.attempts.clone());
        registry.register("events", "Events that were made durable by runs of this server", all.events.clone());
        registry.register("http_requests", "Answers, by route and status", all.requests.clone());
        let (help, unit) = ("Until the head of an answer", Unit::Seconds);
        registry.register_with_unit("http_request_duration", help, unit, all.request_seconds.clone());
        let (help, unit) = ("A small read of the store, made for each scrape", Unit::Seconds);
        registry.register_with_unit("store_latency", help, unit, all.store_seconds.clone());
        registry.register("runs_running", "Runs that are being driven now", all.running.clone());
        registry.register("runs_waiting", "Runs that wait for a person", all.waiting.clone());
        registry.register("runs_queued", "Runs in the queue", all.queued.clone());
        registry.register("event_streams", "Watchers of runs", all.streams.clone());
        registry.register(
            "playbook_broken",
            "1 where the file is broken and an older text is in use",
            all.broken.clone(),
        );
        let about = "Instants of schedules that were decided, by what was decided";
        registry.register("schedule_instants", about, all.instants.clone());
        let (help, unit) = ("From an instant of a schedule to its run", Unit::Seconds);
        registry.register_with_unit("schedule_lag", help, unit, all.lag_seconds.clone());
        let (help, unit) = ("When schedules were looked at last, since the epoch", Unit::Seconds);
        registry.register_with_unit("schedule_last_look", help, unit, all.last_look.clone());
        Self { registry, ..all }
    }

    pub(crate) fn event(&self, state: &RunState, event: &Event) {
        self.events.inc();
        let playbook = || state.created.as_ref().map(|c| c.playbook.clone()).unwrap_or_default();
        let outcome = match &event.body {
            EventBody::AttemptStarted { .. } => {
                self.attempts.get_or_create(&OfPlaybook { playbook: playbook() }).inc();
                return;
            }
            EventBody::AttemptSucceeded { .. } => "succeeded",
            EventBody::AttemptFailed { retry_in: None, .. } | EventBody::StepFailed { .. } => "failed",
            EventBody::StepSkipped { .. } => "skipped",
            EventBody::UndoSucceeded { .. } => "undone",
            EventBody::UndoFailed { retry_in: None, .. } => "undo-failed",
            EventBody::AttemptInterrupted { .. } => "interrupted",
            _ => return,
        };
        self.steps.get_or_create(&Of { playbook: playbook(), outcome: outcome.to_owned() }).inc();
    }

    pub(crate) fn run_ended(&self, playbook: &str, state: &RunState) {
        let of = Of { playbook: playbook.to_owned(), outcome: state.status().name().to_owned() };
        self.runs.get_or_create(&of).inc();
        if let (Some(from), Some(to)) = (state.started_at, state.finished_at) {
            let took = Duration::from_millis(to.saturating_sub(from)).as_secs_f64();
            self.run_seconds.get_or_create(&OfPlaybook { playbook: playbook.to_owned() }).observe(took);
        }
    }

    /// An instant of a schedule was decided.
    pub(crate) fn fired(&self, playbook: &str, decision: &str) {
        self.instants.get_or_create(&Of { playbook: playbook.to_owned(), outcome: decision.to_owned() }).inc();
    }

    /// Milliseconds from an instant to its run.
    pub(crate) fn lag(&self, ms: u64) {
        self.lag_seconds.observe(Duration::from_millis(ms).as_secs_f64());
    }

    /// Schedules were looked at, at this time in milliseconds since the epoch.
    pub(crate) fn looked(&self, now: u64) {
        self.last_look.set(i64::try_from(now / 1000).unwrap_or(i64::MAX));
    }

    pub(crate) fn answered(&self, route: &str, status: StatusCode, took: Duration) {
        self.requests.get_or_create(&Answered { route: route.to_owned(), status: status.as_u16() }).inc();
        self.request_seconds.observe(took.as_secs_f64());
    }

    /// The text that Prometheus reads.
    pub(crate) async fn render(&self, app: &App) -> String {
        let began = tokio::time::Instant::now();
        if app.store.changed().await.is_ok() {
            self.store_seconds.observe(began.elapsed().as_secs_f64());
        }
        let load = app.runner.load();
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.running.set(gauge(load.running));
        self.waiting.set(gauge(load.waiting));
        self.queued.set(gauge(load.queued));
        self.streams.set(gauge(app.settings.max_streams - app.streams.available_permits()));
        // One that is gone is not broken any more.
        self.broken.clear();
        for entry in app.library.all() {
            let broken = i64::from(entry.is_broken());
            self.broken.get_or_create(&OfPlaybook { playbook: entry.id }).set(broken);
        }
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}
