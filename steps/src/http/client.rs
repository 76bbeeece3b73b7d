//! Sends one HTTP request and reads its answer, bounded; turns what can go wrong into step errors that name the URL
//! and carry no credentials. Knows no step type.

use std::error::Error as _;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Certificate, Client, RequestBuilder, redirect};
use runback_core::step::{Class, Cx, StepError};
use runback_core::target::Stream;

use super::shape::shown;
use crate::bounded::within;

/// How a client is built.
#[derive(Debug)]
pub(crate) struct Options<'a> {
    /// PEM, beside the playbook; added to the system's authorities.
    pub(crate) ca_file: Option<&'a str>,
    pub(crate) insecure: bool,
    /// How many redirects are followed.
    pub(crate) redirects: u32,
}

/// What a server answered.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    /// After redirects; without credentials.
    pub(crate) url: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) elapsed_ms: u64,
    /// DER of the server's own certificate.
    pub(crate) certificate: Option<Vec<u8>>,
}

/// How much of a body is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    Skip,
    /// More bytes than this are an error.
    Read(u64),
}

/// Makes ring rustls' provider where nobody has chosen one: the binary does it first thing, a test need not.
fn ensure_provider() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Another thread may have been faster, with the same provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

/// A client of its own for each attempt: a check must not see a connection that an earlier one left open.
pub(crate) async fn build(cx: &Cx<'_>, url: &reqwest::Url, options: &Options<'_>) -> Result<Client, StepError> {
    ensure_provider();
    let extra = match options.ca_file {
        Some(file) => authorities(cx, file).await?,
        None => Vec::new(),
    };
    if options.insecure && url.scheme() == "https" {
        let warning = format!("warning: insecure: the certificate of {} is not verified\n", shown(url));
        cx.host.output(Stream::Stderr, warning.as_bytes());
    }
    let (insecure, redirects, plain) = (options.insecure, options.redirects, url.scheme() == "http");
    // Reading the system's authorities blocks for some milliseconds.
    let built = tokio::task::spawn_blocking(move || construct(extra, insecure, redirects, plain));
    built.await.map_err(|e| StepError::permanent(format!("cannot set up an HTTP client: {e}")))?
}

fn construct(extra: Vec<Certificate>, insecure: bool, redirects: u32, plain: bool) -> Result<Client, StepError> {
    let start = || {
        let follow = match redirects {
            0 => redirect::Policy::none(),
            n => redirect::Policy::limited(n as usize),
        };
        let agent = concat!("runback/", env!("CARGO_PKG_VERSION"));
        let builder = Client::builder().redirect(follow).user_agent(agent).tls_info(true).pool_max_idle_per_host(0);
        builder.tls_danger_accept_invalid_certs(insecure)
    };
    let alone = extra.is_empty();
    match start().tls_certs_merge(extra).build() {
        Ok(client) => Ok(client),
        // Plain HTTP must work on a machine that has no authorities.
        Err(_) if plain && alone => start().tls_certs_only([]).build().map_err(|e| unusable(&e)),
        Err(e) => Err(unusable(&e).help("install the system's CA certificates (ca-certificates), or give ca_file")),
    }
}

fn unusable(error: &reqwest::Error) -> StepError {
    StepError::permanent(format!("cannot set up an HTTP client: {}", root_cause(error)))
}

async fn authorities(cx: &Cx<'_>, file: &str) -> Result<Vec<Certificate>, StepError> {
    let path = cx.local_path(file);
    let name = path.display();
    let pem = tokio::fs::read(&path).await.map_err(|e| {
        StepError::permanent(format!("ca_file {name}: {e}"))
            .help("it is read on the machine that runback runs on, from the playbook's folder")
    })?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(StepError::permanent(format!("ca_file {name} holds no certificate in PEM form"))),
        Err(e) => Err(StepError::permanent(format!("ca_file {name}: {}", root_cause(&e)))),
    }
}

/// Headers as the playbook gives them. Never prints a value.
pub(crate) fn headers<'a>(
    given: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> Result<HeaderMap, (String, String)> {
    let mut map = HeaderMap::new();
    for (name, value) in given {
        let key = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| (name.clone(), format!("`{name}` is not the name of an HTTP header")))?;
        let mut value =
            HeaderValue::from_str(value).or_else(|_| HeaderValue::from_bytes(value.as_bytes())).map_err(|_| {
                (name.clone(), format!("the value of header `{name}` holds a line break or control character"))
            })?;
        value.set_sensitive(true);
        map.append(key, value);
    }
    Ok(map)
}

/// Sends a request and reads the answer. `what` is "GET https://…", for messages.
pub(crate) async fn send(
    cx: &Cx<'_>,
    request: RequestBuilder,
    what: &str,
    timeout: Duration,
    read: Body,
) -> Result<Answered, StepError> {
    let began = cx.host.now_ms();
    let answered = within(cx, timeout, what, async {
        let response = request.send().await.map_err(|e| classify(e, what))?;
        let status = response.status().as_u16();
        let url = shown(response.url());
        let headers = response.headers().clone();
        let info = response.extensions().get::<reqwest::tls::TlsInfo>();
        let certificate = info.and_then(|i| i.peer_certificate()).map(<[u8]>::to_vec);
        let body = match read {
            Body::Skip => Vec::new(),
            Body::Read(limit) => read_body(response, what, limit).await?,
        };
        Ok(Answered { status, url, headers, body, elapsed_ms: 0, certificate })
    })
    .await?;
    let elapsed_ms = cx.host.now_ms().saturating_sub(began);
    cx.host.output(Stream::Stdout, format!("{what}: {} in {elapsed_ms} ms\n", answered.status).as_bytes());
    Ok(Answered { elapsed_ms, ..answered })
}

async fn read_body(mut response: reqwest::Response, what: &str, limit: u64) -> Result<Vec<u8>, StepError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| classify(e, what))? {
        if body.len() as u64 + chunk.len() as u64 > limit {
            return Err(StepError::permanent(format!("{what}: the body is larger than {limit} bytes"))
                .help("raise max_body, or fetch it with a `run` step that writes it to a file"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

type Dyn = dyn std::error::Error + 'static;

/// What an error wraps. `io::Error::source` skips the error that it holds, so that one is asked for by hand.
fn inner(error: &Dyn) -> Option<&Dyn> {
    match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(held) => Some(held),
        None => error.source(),
    }
}

/// The message that says most: the innermost one.
fn root_cause(error: &Dyn) -> String {
    let mut at = error;
    while let Some(next) = inner(at) {
        at = next;
    }
    at.to_string()
}

fn tls_error(error: &reqwest::Error) -> Option<&rustls::Error> {
    std::iter::successors(error.source(), |e| inner(*e)).find_map(|e| e.downcast_ref())
}

fn classify(error: reqwest::Error, what: &str) -> StepError {
    let error = error.without_url();
    if let Some(tls) = tls_error(&error) {
        return about_tls(tls, what);
    }
    let why = root_cause(&error);
    if error.is_timeout() {
        return StepError::new(Class::Timeout, format!("{what}: {why}"));
    }
    if error.is_redirect() {
        return StepError::permanent(format!("{what}: {why}"))
            .help("the server sends it in a circle, or raise `redirects`");
    }
    if error.is_builder() {
        return StepError::permanent(format!("{what}: {why}"));
    }
    if error.is_dns() {
        return StepError::transient(format!("{what}: the host's name cannot be resolved: {why}"))
            .help("check the name, and the resolver of the machine that runback runs on");
    }
    let error = StepError::transient(format!("{what}: {why}"));
    if why.contains("refused") {
        error.help("nothing listens there: is the service up, and the port right?")
    } else {
        error
    }
}

fn about_tls(error: &rustls::Error, what: &str) -> StepError {
    use rustls::CertificateError as C;
    let help = match error {
        rustls::Error::InvalidCertificate(C::Expired | C::ExpiredContext { .. }) => "the certificate must be renewed",
        rustls::Error::InvalidCertificate(C::NotValidForName | C::NotValidForNameContext { .. }) => {
            "use a name that the certificate is for"
        }
        rustls::Error::InvalidCertificate(C::UnknownIssuer) => {
            "give the issuer's certificate as ca_file, or install it in the system"
        }
        rustls::Error::InvalidMessage(_) => "does that port speak TLS? If not, write http://",
        _ => "look at it with `openssl s_client -connect HOST:PORT`",
    };
    StepError::permanent(format!("{what}: TLS: {error}")).help(help)
}

/// The class of an answer whose status is not what was wanted.
pub(crate) fn status_class(status: u16) -> Class {
    match status {
        408 | 425 | 429 | 500..=599 => Class::Transient,
        _ => Class::Permanent,
    }
}
