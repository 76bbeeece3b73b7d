//! Steps that tell people and programs what a run did. What was told cannot be untold: a rollback leaves it.

pub(crate) mod email;
pub(crate) mod slack;
pub(crate) mod webhook;

use reqwest::Url;
use runback_core::step::{Cx, StepError};

use crate::http::client::{self, Answered, Body, Options};
use crate::http::look::excerpt;
use crate::period::Period;

fn half_minute() -> Period {
    Period::seconds(30)
}

/// Sends JSON to where a receiver listens. `what` names it without its path, which may be all that is secret about it.
async fn post(
    cx: &Cx<'_>,
    url: Url,
    what: &str,
    headers: &[(&'static str, String)],
    body: Vec<u8>,
    timeout: Period,
) -> Result<Answered, StepError> {
    let options = Options { ca_file: None, insecure: false, redirects: 0 };
    let client = client::build(cx, &url, &options).await?;
    let mut request = client.post(url).header("content-type", "application/json").body(body);
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let answered = client::send(cx, request, what, timeout.0, Body::Read(64 << 10)).await?;
    if (200..300).contains(&answered.status) {
        return Ok(answered);
    }
    let text = String::from_utf8_lossy(&answered.body);
    let message = format!("{what}: status {}: {}", answered.status, excerpt(&text));
    Err(StepError::new(client::status_class(answered.status), message))
}

/// "POST https://hooks.example.com".
fn place(url: &Url) -> String {
    let port = url.port().map(|p| format!(":{p}")).unwrap_or_default();
    format!("POST {}://{}{port}", url.scheme(), url.host_str().unwrap_or_default())
}
