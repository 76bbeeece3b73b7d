//! Traces for OpenTelemetry: a span per run, step and attempt, made from the events of the journal once they are durable,
//! and sent by OTLP over HTTP as JSON. Never slows a run and never fails one: what cannot be sent is dropped, and said once.

mod otlp;
mod send;
mod spans;

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use runback_core::event::Event;
use runback_core::state::RunState;
use runback_exec::reporter::{Notice, Reporter};
use runback_exec::store::Store;
use tokio::runtime::Handle;

pub(crate) use spans::Spans;

/// So long the end of a process waits for spans that are still to be sent.
const FLUSH: Duration = Duration::from_secs(2);
/// Events that are read from the journal at once.
const CHUNK: usize = 1024;

#[derive(Debug, Clone, Args)]
pub(crate) struct TraceArgs {
    /// Send a span per run, step and attempt to this OTLP/HTTP collector; headers: $OTEL_EXPORTER_OTLP_HEADERS
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT", hide_env_values = true)]
    otlp_endpoint: Option<String>,
}

/// Where the spans of all runs of this process go.
#[derive(Clone)]
pub(crate) struct Tracer {
    sender: Arc<send::Sender>,
}

impl Tracer {
    /// None = nobody wants traces. `on` is where they are sent from; `warn` is called once at most.
    pub(crate) fn new(arguments: &TraceArgs, on: &Handle, warn: impl Fn(&str) + Send + Sync + 'static) -> Option<Self> {
        let endpoint = arguments.otlp_endpoint.as_deref().map(str::trim).filter(|e| !e.is_empty())?;
        let headers = std::env::var("OTEL_EXPORTER_OTLP_HEADERS").unwrap_or_default();
        let sender = send::Sender::start(endpoint, &headers, otlp::resource(), on, Box::new(warn))?;
        Some(Self { sender: Arc::new(sender) })
    }

    /// Follows a run from `state` on. What the journal has of it already was sent by who was there: it only says where
    /// things began.
    pub(crate) async fn follow(&self, store: &dyn Store, state: &RunState) -> Spans {
        let mut spans = {
            let sender = Arc::clone(&self.sender);
            Spans::new(state.run_id(), Box::new(move |span| sender.send(span)))
        };
        let mut past = RunState::new(Arc::clone(&state.plan));
        while past.last_seq < state.last_seq {
            let Ok(events) = store.events(state.run_id(), past.last_seq, CHUNK).await else { break };
            let until = events.iter().take_while(|e| e.seq <= state.last_seq).count();
            for event in &events[..until] {
                // Who drives the run follows the same journal, and says what is wrong with it.
                if past.apply(event).is_err() {
                    return spans;
                }
                spans.past(&past, event);
            }
            if until == 0 {
                break;
            }
        }
        spans
    }

    /// Sends what is left, for a moment.
    pub(crate) async fn close(self) {
        self.sender.close(FLUSH).await;
    }
}

/// Passes on what a reporter is told, and makes spans of it.
pub(crate) struct Traced<'a, R: ?Sized> {
    pub(crate) inner: &'a mut R,
    pub(crate) spans: Option<&'a mut Spans>,
}

impl<R: Reporter + ?Sized> Reporter for Traced<'_, R> {
    fn event(&mut self, state: &RunState, event: &Event) {
        if let Some(spans) = &mut self.spans {
            spans.event(state, event);
        }
        self.inner.event(state, event);
    }

    fn notice(&mut self, state: &RunState, notice: &Notice<'_>) {
        self.inner.notice(state, notice);
    }

    fn tick(&mut self, state: &RunState, now: u64) {
        self.inner.tick(state, now);
    }

    fn pause(&mut self, state: &RunState) {
        self.inner.pause(state);
    }

    fn unpause(&mut self, state: &RunState) {
        self.inner.unpause(state);
    }
}
