//! Sends spans to a collector, some at a time, from a queue that holds so many and no more. Knows no run.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, StatusCode, Url};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::otlp::{self, Resource, Span};

/// Spans that wait; what comes when there are so many is dropped.
const QUEUE: usize = 4096;
/// Spans that are sent at once, and how long they are collected for.
const BATCH: usize = 512;
const COLLECT: Duration = Duration::from_millis(500);
/// For one request.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Times that a batch is sent, and the first pause in between; each is twice the one before.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_secs(1);

type Warn = Box<dyn Fn(&str) + Send + Sync>;

pub(super) struct Sender {
    queue: Mutex<Option<mpsc::Sender<Span>>>,
    /// True once nothing more comes: what is left is sent once.
    closing: watch::Sender<bool>,
    task: Mutex<Option<JoinHandle<()>>>,
    warning: Arc<Warning>,
}

/// Said once in the life of a process, however much is lost.
struct Warning {
    warn: Warn,
    said: AtomicBool,
}

impl Warning {
    fn say(&self, what: &str) {
        if !self.said.swap(true, Ordering::Relaxed) {
            (self.warn)(&format!("{what}; what cannot be sent is dropped, the runs go on"));
        }
    }
}

impl Sender {
    /// None, with a warning, where the address cannot be one.
    pub(super) fn start(endpoint: &str, headers: &str, resource: Resource, on: &Handle, warn: Warn) -> Option<Self> {
        let warning = Arc::new(Warning { warn, said: AtomicBool::new(false) });
        let (url, headers) = match (address(endpoint), header_map(headers)) {
            (Ok(url), Ok(headers)) => (url, headers),
            (Err(why), _) | (_, Err(why)) => {
                warning.say(&format!("traces are not sent: {why}"));
                return None;
            }
        };
        let (queue, spans) = mpsc::channel(QUEUE);
        let (closing, told) = watch::channel(false);
        let post = Post { url, headers, resource, warning: Arc::clone(&warning), closing: told };
        let task = on.spawn(post.all(spans));
        Some(Self { queue: Mutex::new(Some(queue)), closing, task: Mutex::new(Some(task)), warning })
    }

    /// Never waits.
    pub(super) fn send(&self, span: Span) {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = &*queue
            && queue.try_send(span).is_err()
        {
            self.warning.say("the collector of traces does not keep up");
        }
    }

    pub(super) async fn close(&self, patience: Duration) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.closing.send_replace(true);
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task
            && tokio::time::timeout(patience, task).await.is_err()
        {
            self.warning.say("the collector of traces does not answer");
        }
    }
}

/// `/v1/traces` under the address that all signals have.
fn address(endpoint: &str) -> Result<Url, String> {
    let bad = |why: &str| format!("--otlp-endpoint {endpoint}: {why}; give one such as http://127.0.0.1:4318");
    let mut url = Url::parse(endpoint).map_err(|e| bad(&e.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad("it must begin with http:// or https://"));
    }
    let path = format!("{}/v1/traces", url.path().trim_end_matches('/'));
    url.set_path(&path);
    Ok(url)
}

/// Never says a value: they are credentials.
fn header_map(text: &str) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in otlp::pairs(text) {
        let bad = || format!("OTEL_EXPORTER_OTLP_HEADERS: {name} is no header, or its value cannot stand in one");
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
        let mut value = HeaderValue::from_str(&value).map_err(|_| bad())?;
        value.set_sensitive(true);
        headers.append(key, value);
    }
    Ok(headers)
}

struct Post {
    url: Url,
    headers: HeaderMap,
    resource: Resource,
    warning: Arc<Warning>,
    closing: watch::Receiver<bool>,
}

/// Why a batch did not arrive, and whether it may the next time.
struct Lost {
    why: String,
    again: bool,
}

impl Post {
    async fn all(mut self, mut spans: mpsc::Receiver<Span>) {
        let mut client = None;
        let mut batch = Vec::with_capacity(BATCH);
        while let Some(first) = spans.recv().await {
            batch.push(first);
            let collected = tokio::time::sleep(COLLECT);
            tokio::pin!(collected);
            while batch.len() < BATCH {
                tokio::select! {
                    span = spans.recv() => match span {
                        Some(span) => batch.push(span),
                        None => break,
                    },
                    () = &mut collected => break,
                }
            }
            if client.is_none() {
                // Reading the system's authorities blocks for some milliseconds.
                let plain = self.url.scheme() == "http";
                client = tokio::task::spawn_blocking(move || client_of(plain)).await.ok().flatten();
            }
            match &client {
                Some(client) => self.batch(client, &batch).await,
                None => self.warning.say("traces are not sent: no HTTP client can be set up"),
            }
            batch.clear();
        }
    }

    async fn batch(&mut self, client: &Client, batch: &[Span]) {
        let Ok(body) = serde_json::to_vec(&otlp::request(&self.resource, batch)) else { return };
        let mut pause = PAUSE;
        for attempt in 1..=TRIES {
            let Err(lost) = self.post(client, body.clone()).await else { return };
            self.warning.say(&format!("traces cannot be sent to {}: {}", shown(&self.url), lost.why));
            if !lost.again || attempt == TRIES || *self.closing.borrow() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // Once more, then it is over.
                _ = self.closing.wait_for(|closing| *closing) => {}
            }
            pause *= 2;
        }
    }

    async fn post(&self, client: &Client, body: Vec<u8>) -> Result<(), Lost> {
        let request = client.post(self.url.clone()).headers(self.headers.clone());
        let request = request.header(reqwest::header::CONTENT_TYPE, "application/json").body(body);
        match request.send().await {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => {
                let status = answer.status();
                let again = matches!(
                    status,
                    StatusCode::TOO_MANY_REQUESTS
                        | StatusCode::BAD_GATEWAY
                        | StatusCode::SERVICE_UNAVAILABLE
                        | StatusCode::GATEWAY_TIMEOUT
                );
                Err(Lost { why: format!("it answers {status}"), again })
            }
            Err(error) => Err(Lost { why: cause(&error), again: true }),
        }
    }
}

fn client_of(plain: bool) -> Option<Client> {
    let start = || {
        let agent = concat!("runback/", env!("CARGO_PKG_VERSION"));
        Client::builder().user_agent(agent).timeout(TIMEOUT).redirect(reqwest::redirect::Policy::none())
    };
    // Plain HTTP must work on a machine that has no authorities.
    start().build().ok().or_else(|| plain.then(|| start().tls_certs_only([]).build().ok()).flatten())
}

/// The innermost reason: the outer ones repeat the address.
fn cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut at: &dyn std::error::Error = error;
    while let Some(inner) = at.source() {
        at = inner;
    }
    at.to_string()
}

/// Without what may be a password in it.
fn shown(url: &Url) -> String {
    let port = url.port().map(|p| format!(":{p}")).unwrap_or_default();
    format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}
