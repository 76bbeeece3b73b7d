//! The connection to a cluster: which kubeconfig, context and namespace, one client per run, and requests that ride out a
//! short absence of the API server. Knows no kind of object and no step type.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Method, Request};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use runback_core::Json;
use runback_core::step::{Cx, StepError};

use super::error::ApiError;
use super::kind::Discovery;

/// How long a request waits for an API server that is away or busy, all tries together.
const PATIENCE: Duration = Duration::from_secs(60);
/// For one answer. Lists of large clusters take seconds, an API server behind a dead proxy for ever.
const ANSWER: Duration = Duration::from_secs(30);
/// Clusters of earlier runs that a long-lived process keeps.
const KEPT: usize = 16;

/// Who the playbook means: the inputs that all step types of the family share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) kubeconfig: Option<&'a str>,
    pub(crate) context: Option<&'a str>,
    pub(crate) namespace: Option<&'a str>,
    pub(crate) field_manager: &'a str,
}

/// Inputs of a step type: its own, and those that say which cluster.
macro_rules! k8s_inputs {
    ($(#[$meta:meta])* { $($(#[$own_meta:meta])* $own:ident: $own_type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub(crate) struct Inputs {
            $($(#[$own_meta])* pub(crate) $own: $own_type,)*
            /// The kubeconfig file, relative to the playbook. Default: $KUBECONFIG, ~/.kube/config, or the service account of
            /// the pod that runback runs in.
            #[serde(default)]
            pub(crate) kubeconfig: Option<String>,
            /// The context in it. Default: its current one.
            #[serde(default)]
            pub(crate) context: Option<String>,
            /// The namespace. Default: the context's, else `default`.
            #[serde(default)]
            pub(crate) namespace: Option<String>,
            /// The name under which the API server records whose fields these are.
            #[serde(default = "crate::k8s::client::default_manager")]
            pub(crate) field_manager: String,
        }

        impl Inputs {
            pub(crate) fn place(&self) -> crate::k8s::client::Place<'_> {
                crate::k8s::client::Place {
                    kubeconfig: self.kubeconfig.as_deref(),
                    context: self.context.as_deref(),
                    namespace: self.namespace.as_deref(),
                    field_manager: &self.field_manager,
                }
            }
        }
    };
}
pub(crate) use k8s_inputs;

pub(crate) fn default_manager() -> String {
    "runback".to_owned()
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    run: String,
    kubeconfig: Option<String>,
    context: Option<String>,
}

pub(crate) struct Cluster {
    pub(super) client: Client,
    /// The context's namespace.
    namespace: String,
    url: String,
    pub(super) discovery: tokio::sync::Mutex<Discovery>,
}

/// The clusters that runs are connected to; the step types of one catalog share it.
#[derive(Clone, Default)]
pub(crate) struct Clusters(Arc<Mutex<Known>>);

type Known = Vec<(Key, Arc<Cluster>)>;

impl std::fmt::Debug for Clusters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clusters")
    }
}

impl Clusters {
    /// Reads the kubeconfig; talks to nobody yet.
    pub(crate) async fn open<'a>(&self, cx: &'a Cx<'_>, place: Place<'a>) -> Result<Kube<'a>, StepError> {
        let path = place.kubeconfig.map(|p| cx.local_path(p).to_string_lossy().into_owned());
        let kubeconfig = path.or_else(|| cx.env.get("KUBECONFIG").cloned());
        let key = Key { run: cx.run.to_owned(), kubeconfig, context: place.context.map(str::to_owned) };
        let known = {
            let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.iter().find(|(k, _)| *k == key).map(|(_, c)| c.clone())
        };
        let cluster = match known {
            Some(cluster) => cluster,
            None => self.connect(key).await?,
        };
        let namespace = place.namespace.map_or_else(|| cluster.namespace.clone(), str::to_owned);
        Ok(Kube { cx, cluster, namespace, manager: place.field_manager, patience: PATIENCE })
    }

    async fn connect(&self, key: Key) -> Result<Arc<Cluster>, StepError> {
        // Two providers in one process make rustls panic; whoever came first is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let options = KubeConfigOptions { context: key.context.clone(), ..KubeConfigOptions::default() };
        let mut config = load(key.kubeconfig.as_deref(), &options).await?;
        // kube's own retries are not told of, and go on for minutes.
        config.default_retry = false;
        config.connect_timeout = Some(Duration::from_secs(10));
        config.read_timeout = None;
        let (url, namespace) = (config.cluster_url.to_string(), config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|e| {
            StepError::permanent(format!("the kubeconfig for {url} cannot be used: {}", super::error::chain(&e)))
        })?;
        let cluster = Arc::new(Cluster { client, namespace, url, discovery: tokio::sync::Mutex::default() });
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= KEPT {
            all.remove(0);
        }
        all.push((key, cluster.clone()));
        Ok(cluster)
    }
}

async fn load(paths: Option<&str>, options: &KubeConfigOptions) -> Result<Config, StepError> {
    let refused = |from: &str, why: &dyn std::error::Error| {
        let named = options.context.as_ref().map(|c| format!(", context `{c}`")).unwrap_or_default();
        StepError::permanent(format!("{from}{named}: {}", super::error::chain(why))).help(
            "give `kubeconfig:` (a file, relative to the playbook) and `context:`; `kubectl config get-contexts` lists them",
        )
    };
    let Some(paths) = paths else {
        if options.context.is_none() {
            return Config::infer().await.map_err(|e| refused("no kubeconfig", &e));
        }
        return Config::from_kubeconfig(options).await.map_err(|e| refused("kubeconfig", &e));
    };
    let mut merged: Option<Kubeconfig> = None;
    for path in paths.split(':').filter(|p| !p.is_empty()) {
        let one = Kubeconfig::read_from(PathBuf::from(path)).map_err(|e| refused(path, &e))?;
        merged = Some(match merged {
            None => one,
            Some(before) => before.merge(one).map_err(|e| refused(path, &e))?,
        });
    }
    Config::from_custom_kubeconfig(merged.unwrap_or_default(), options).await.map_err(|e| refused(paths, &e))
}

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    method: Method,
    path: String,
    content: Option<(&'static str, Vec<u8>)>,
}

impl Ask {
    fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), content: None }
    }

    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    pub(crate) fn post(path: impl Into<String>, body: &Json) -> Self {
        Self { content: Some(("application/json", body.to_string().into())), ..Self::new(Method::POST, path) }
    }

    pub(crate) fn delete(path: impl Into<String>, options: &Json) -> Self {
        Self { content: Some(("application/json", options.to_string().into())), ..Self::new(Method::DELETE, path) }
    }

    /// `kind` is the content type without its beginning: `merge-patch+json`.
    pub(crate) fn patch(path: impl Into<String>, kind: Patch, body: &Json) -> Self {
        Self { content: Some((kind.content_type(), body.to_string().into())), ..Self::new(Method::PATCH, path) }
    }

    /// `PATCH /apis/…`, for messages.
    fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patch {
    Strategic,
    Merge,
    Json,
    Apply,
}

impl Patch {
    fn content_type(self) -> &'static str {
        match self {
            Self::Strategic => "application/strategic-merge-patch+json",
            Self::Merge => "application/merge-patch+json",
            Self::Json => "application/json-patch+json",
            Self::Apply => "application/apply-patch+yaml",
        }
    }
}

/// A cluster as one attempt of a step sees it.
#[derive(Clone)]
pub(crate) struct Kube<'a> {
    pub(crate) cx: &'a Cx<'a>,
    pub(super) cluster: Arc<Cluster>,
    pub(crate) namespace: String,
    pub(crate) manager: &'a str,
    patience: Duration,
}

impl Kube<'_> {
    /// For previews, which people wait for.
    #[must_use]
    pub(crate) fn impatient(mut self) -> Self {
        self.patience = Duration::from_secs(5);
        self
    }

    pub(crate) fn url(&self) -> &str {
        &self.cluster.url
    }

    /// Every request here may be sent twice: creations name their object, and the second is told `AlreadyExists`.
    pub(crate) async fn call(&self, ask: &Ask) -> Result<Json, ApiError> {
        let text = self.text(ask).await?;
        serde_json::from_str(&text).map_err(|e| ApiError::garbled(&ask.name(), &e.to_string()))
    }

    /// The answer as it came: logs are no JSON.
    pub(crate) async fn text(&self, ask: &Ask) -> Result<String, ApiError> {
        let began = self.cx.host.now_ms();
        let mut delay = Duration::from_millis(250);
        loop {
            let error = match self.once(ask).await {
                Ok(text) => return Ok(text),
                Err(error) => error,
            };
            let waited = Duration::from_millis(self.cx.host.now_ms().saturating_sub(began));
            if !error.passes() || waited + delay > self.patience {
                return Err(error);
            }
            self.cx.phase(format!("waiting for the API server {}: {}", self.url(), error.reason()));
            let pause = error.retry_after().unwrap_or(delay).min(Duration::from_secs(10));
            tokio::select! {
                () = self.cx.host.stopped() => return Err(ApiError::cancelled(&ask.name())),
                () = self.cx.host.sleep(pause) => {}
            }
            delay = (delay * 2).min(Duration::from_secs(2));
        }
    }

    async fn once(&self, ask: &Ask) -> Result<String, ApiError> {
        let mut request = Request::builder().method(&ask.method).uri(&ask.path).header("accept", "application/json");
        if let Some((kind, _)) = &ask.content {
            request = request.header("content-type", *kind);
        }
        let body = ask.content.as_ref().map(|(_, bytes)| bytes.clone()).unwrap_or_default();
        let request = request.body(body).map_err(|e| ApiError::garbled(&ask.name(), &e.to_string()))?;
        tokio::select! {
            biased;
            done = self.cluster.client.request_text(request) => done.map_err(|e| ApiError::of(&ask.name(), self.url(), e)),
            () = self.cx.host.stopped() => Err(ApiError::cancelled(&ask.name())),
            () = self.cx.host.sleep(ANSWER) => Err(ApiError::silent(&ask.name(), self.url(), ANSWER)),
        }
    }
}

/// A value in a query of a URL.
pub(crate) fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => {
                let digit = |n: u8| char::from_digit(u32::from(n), 16).unwrap_or('0').to_ascii_uppercase();
                out.extend(['%', digit(byte >> 4), digit(byte & 15)]);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_in_queries_are_escaped() {
        assert_eq!(escape("app=web,tier!=db"), "app%3Dweb%2Ctier%21%3Ddb");
        assert_eq!(escape("a b&c"), "a%20b%26c");
    }
}
