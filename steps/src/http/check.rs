//! `http.check`: a URL answers as it should.
//!
//! Sends a request and compares the answer: its status, its headers, its body, and how long its certificate is still
//! valid. It changes nothing. The request goes from the machine that runback runs on, also when the step's target is
//! another one; proxies are taken from the environment (`HTTPS_PROXY`, `NO_PROXY`).
//!
//! To wait until a service is up, give the step a `retry`: refused connections, timeouts, 429, 5xx and an unexpected
//! header or body are tried again; other 4xx, a bad certificate and a bad URL are not. `consecutive` asks for several good
//! answers in a row, so that a service that flaps does not pass.

use std::collections::BTreeMap;

use runback_core::step::{
    Access, Acted, Class, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, Probe, StepError, StepType,
    UndoKind,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::client::{self, Answered, Body, Options};
use super::look::{BodyChecks, compile, excerpt, problem};
use super::shape::{BasicAuth, Method, StatusSet, parse_url, shown};
use super::tls;
use crate::bounded::pause;
use crate::period::Period;

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Inputs {
    /// http or https.
    pub(crate) url: String,
    /// Of the request.
    #[serde(default)]
    pub(crate) method: Method,
    /// Sent with the request.
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) basic_auth: Option<BasicAuth>,
    /// A token for `Authorization: Bearer`. Take it from `secrets`.
    #[serde(default)]
    pub(crate) bearer: Option<String>,
    /// Default 200-299.
    #[serde(default)]
    pub(crate) status: StatusSet,
    /// Header of the answer → a regular expression that its value must match.
    #[serde(default)]
    pub(crate) expect_headers: BTreeMap<String, String>,
    /// What the body must hold. At most 1 MiB of it is read.
    #[serde(default)]
    pub(crate) body: BodyChecks,
    /// How many days the server's certificate must still be valid.
    #[serde(default)]
    pub(crate) tls_days_left: Option<u32>,
    /// How many redirects are followed; 0 = the redirect itself is the answer.
    #[serde(default = "ten")]
    #[schemars(range(max = 50))]
    pub(crate) redirects: u32,
    /// How many good answers in a row are wanted.
    #[serde(default = "one")]
    #[schemars(range(min = 1))]
    pub(crate) consecutive: u32,
    /// Between two of them.
    #[serde(default = "second")]
    pub(crate) interval: Period,
    /// For one request, the body included.
    #[serde(default = "ten_seconds")]
    pub(crate) timeout: Period,
    /// Certificates (PEM) to trust besides the system's; a file beside the playbook.
    #[serde(default)]
    pub(crate) ca_file: Option<String>,
    /// Do not verify the server's certificate. `tls_days_left` still looks at it.
    #[serde(default)]
    pub(crate) insecure: bool,
}

fn ten() -> u32 {
    10
}

fn one() -> u32 {
    1
}

fn second() -> Period {
    Period::seconds(1)
}

fn ten_seconds() -> Period {
    Period::seconds(10)
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// Of the last answer.
    pub(crate) status: u16,
    /// After redirects.
    pub(crate) url: String,
    /// From sending the last request to the end of its answer, in milliseconds.
    pub(crate) elapsed_ms: u64,
    /// Whole days until the certificate ends; null without TLS.
    pub(crate) tls_days_left: Option<i64>,
    /// When the certificate ends (RFC 3339); null without TLS.
    pub(crate) tls_expires: Option<String>,
}

/// See the module.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct HttpCheck;

const BODY_LIMIT: u64 = 1 << 20;

const EXAMPLES: &[&str] = &[
    "
- id: healthy
  uses: http.check
  with:
    url: https://shop.example.com/health
    body: { json: { $.status: up } }
    consecutive: 3
    interval: 2s
  retry: { max_attempts: 30, initial_interval: 2s, backoff_coefficient: 1 }
",
    "
- id: certificate
  uses: http.check
  with: { url: https://shop.example.com/, status: [2xx, 401], tls_days_left: 14 }
",
    "
- id: moved
  uses: http.check
  with:
    url: http://shop.example.com/
    status: 301
    redirects: 0
    expect_headers: { location: '^https://' }
",
];

#[async_trait::async_trait]
impl StepType for HttpCheck {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = ();

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "http.check",
            doc: "Checks that a URL answers as it should: status, headers, body, certificate.",
            access: Access::Reads,
            undo: UndoKind::None,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::None,
            examples: EXAMPLES,
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut found = inputs.body.problems();
        match parse_url(&inputs.url) {
            Err(e) => found.push(problem(&["url"], e)),
            Ok(url) if inputs.tls_days_left.is_some() && url.scheme() == "http" && inputs.redirects == 0 => {
                found.push(problem(&["tls_days_left"], "a URL of http has no certificate".to_owned()));
            }
            Ok(_) => {}
        }
        if let Err((name, e)) = client::headers(&inputs.headers) {
            found.push(problem(&["headers", &name], e));
        }
        for (name, regex) in &inputs.expect_headers {
            if let Err(e) = compile(regex) {
                found.push(problem(&["expect_headers", name], e));
            }
        }
        if inputs.bearer.is_some() && inputs.basic_auth.is_some() {
            found.push(problem(&["bearer"], "give `bearer` or `basic_auth`, not both".to_owned()));
        }
        if inputs.consecutive == 0 {
            found.push(problem(&["consecutive"], "must be 1 or more".to_owned()));
        }
        if inputs.method == Method::Head && !inputs.body.is_empty() {
            found.push(problem(&["body"], "the answer to HEAD has no body".to_owned()));
        }
        found
    }

    async fn preview(&self, _cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let url = parse_url(&inputs.url).map_err(StepError::permanent)?;
        let summary = format!("{} answers {}", shown(&url), inputs.status);
        Ok(Preview { changes: Some(false), summary, details: Vec::new() })
    }

    async fn capture(&self, _cx: &Cx<'_>, _inputs: &Inputs) -> Result<(), StepError> {
        Ok(())
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, (): &()) -> Result<Acted<Outputs>, StepError> {
        let url = parse_url(&inputs.url).map_err(StepError::permanent)?;
        let method = inputs.method.to_http();
        let what = format!("{method} {}", shown(&url));
        let options =
            Options { ca_file: inputs.ca_file.as_deref(), insecure: inputs.insecure, redirects: inputs.redirects };
        let client = client::build(cx, &url, &options).await?;
        let headers = client::headers(&inputs.headers).map_err(|(_, e)| StepError::permanent(e))?;
        let read = if inputs.body.is_empty() { Body::Skip } else { Body::Read(BODY_LIMIT) };
        let wanted = inputs.consecutive.max(1);
        let mut n = 1;
        loop {
            if wanted > 1 {
                cx.phase(format!("good answer {n} of {wanted}"));
            }
            let mut request = client.request(method.clone(), url.clone()).headers(headers.clone());
            if let Some(auth) = &inputs.basic_auth {
                request = request.basic_auth(&auth.user, Some(&auth.password));
            }
            if let Some(token) = &inputs.bearer {
                request = request.bearer_auth(token);
            }
            let answered = client::send(cx, request, &what, inputs.timeout.0, read).await?;
            let outputs = judge(cx, inputs, &what, &answered)?;
            if n == wanted {
                return Ok(Acted::unchanged(outputs));
            }
            n += 1;
            pause(cx, inputs.interval.0, &what).await?;
        }
    }

    async fn probe(&self, _cx: &Cx<'_>, _inputs: &Inputs, (): &()) -> Result<Probe<Outputs>, StepError> {
        Ok(Probe::NotDone)
    }
}

/// Compares one answer with what is wanted. All that differs goes into one error.
fn judge(cx: &Cx<'_>, inputs: &Inputs, what: &str, answered: &Answered) -> Result<Outputs, StepError> {
    let mut wrong = Vec::new();
    let mut class = Class::Transient;
    if !inputs.status.contains(answered.status) {
        // Only 4xx says that asking again is of no use; a check may wait for any other status to change.
        if (400..500).contains(&answered.status) {
            class = client::status_class(answered.status);
        }
        wrong.push(format!("status {}, wanted {}", answered.status, inputs.status));
    }
    for (name, regex) in &inputs.expect_headers {
        let compiled = compile(regex).map_err(StepError::permanent)?;
        let values: Vec<_> =
            answered.headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes())).collect();
        if values.is_empty() {
            wrong.push(format!("no header `{name}`, wanted /{regex}/"));
        } else if !values.iter().any(|v| compiled.is_match(v)) {
            wrong.push(format!("header `{name}` is `{}`, wanted /{regex}/", excerpt(&values.join(", "))));
        }
    }
    wrong.extend(inputs.body.mismatches(&answered.body).map_err(StepError::permanent)?);
    let expires = answered.certificate.as_deref().and_then(tls::not_after);
    let left = expires.map(|t| (t.as_millisecond() - cx.host.now_ms().cast_signed()).div_euclid(86_400_000));
    if let Some(days) = inputs.tls_days_left {
        match (left, expires) {
            (Some(left), Some(expires)) if left < i64::from(days) => {
                class = Class::Permanent;
                let when =
                    if left < 0 { format!("ended on {expires}") } else { format!("ends on {expires}, in {left} days") };
                wrong.push(format!("the certificate {when}, wanted {days} days or more"));
            }
            (Some(_), _) => {}
            (None, _) => {
                class = Class::Permanent;
                wrong.push(format!("the answer of {} came without a certificate", answered.url));
            }
        }
    }
    if wrong.is_empty() {
        return Ok(Outputs {
            status: answered.status,
            url: answered.url.clone(),
            elapsed_ms: answered.elapsed_ms,
            tls_days_left: left,
            tls_expires: expires.map(|t| t.to_string()),
        });
    }
    Err(StepError::new(class, format!("{what}: {}", wrong.join("; "))))
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
