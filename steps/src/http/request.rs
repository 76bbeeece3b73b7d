//! `http.request`: sends a request and takes values out of the answer.
//!
//! The body is one of `json`, `form`, `text`, `file` and `multipart`; files are read beside the playbook, on the machine
//! that runback runs on. The request goes from that machine too, also when the step's target is another one; proxies
//! are taken from the environment (`HTTPS_PROXY`, `NO_PROXY`).
//!
//! GET, HEAD and OPTIONS count as reading. Any other method changes something that runback cannot take back by itself: name
//! the request that does in the step's `rollback`. When runback dies in the middle of a request, nobody knows whether it
//! arrived: methods that may be repeated (GET, HEAD, OPTIONS, PUT, DELETE) are sent again, for POST and PATCH the run waits
//! for an operator. These two carry an `Idempotency-Key` that stays the same for all attempts
//! of a step in a run; a server that honours it does the work once only.
//!
//! The answer's body is stored as an output, so it must not be a secret that runback does not know; `Set-Cookie` headers
//! are left out for that reason. Redirects are followed for GET, HEAD and OPTIONS only, unless `redirects` says otherwise:
//! following one turns most methods into a GET. Another host gets the same headers, but for `Authorization` and `Cookie`, as
//! from curl: where a token goes in a header of its own, say `redirects: 0`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use reqwest::multipart::{Form, Part};
use reqwest::{RequestBuilder, Url};
use runback_core::Json;
use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, OutputNames, Preview, Probe, StepError,
    StepType, UndoKind,
};
use runback_core::template::ValueTemplate;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::Map;
use sha2::{Digest, Sha256};

use super::client::{self, Answered, Body, Options};
use super::look::{Extract, excerpt, problem};
use super::shape::{BasicAuth, Method, StatusSet, parse_url, shown};
use crate::period::Period;

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Inputs {
    /// http or https.
    pub(crate) url: String,
    /// Of the request.
    #[serde(default)]
    pub(crate) method: Method,
    /// Added to the URL's query; a list repeats its name.
    #[serde(default)]
    pub(crate) query: BTreeMap<String, Json>,
    /// Sent with the request.
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) basic_auth: Option<BasicAuth>,
    /// A token for `Authorization: Bearer`. Take it from `secrets`.
    #[serde(default)]
    pub(crate) bearer: Option<String>,
    /// A body of JSON.
    #[serde(default)]
    pub(crate) json: Option<Json>,
    /// A body as a web form sends it (application/x-www-form-urlencoded).
    #[serde(default)]
    pub(crate) form: Option<BTreeMap<String, Json>>,
    /// A body of text.
    #[serde(default)]
    pub(crate) text: Option<String>,
    /// A file as the body; a path beside the playbook.
    #[serde(default)]
    pub(crate) file: Option<String>,
    /// A body of parts, as a web form sends files (multipart/form-data).
    #[serde(default)]
    pub(crate) multipart: Option<Vec<PartInput>>,
    /// Default 200-299.
    #[serde(default)]
    pub(crate) status: StatusSet,
    /// Output name → where to take it from in the answer.
    #[serde(default)]
    pub(crate) extract: BTreeMap<String, Extract>,
    /// For the whole request, the body included.
    #[serde(default = "minute")]
    pub(crate) timeout: Period,
    /// How many redirects are followed. Default: 10 for GET, HEAD and OPTIONS, else 0.
    #[serde(default)]
    #[schemars(range(max = 50))]
    pub(crate) redirects: Option<u32>,
    /// The answer's body may have this many bytes. Default 1 MiB.
    #[serde(default = "mebibyte")]
    pub(crate) max_body: u64,
    /// `Idempotency-Key` of POST and PATCH. Default: made from run and step; empty = none.
    #[serde(default)]
    pub(crate) idempotency_key: Option<String>,
    /// Certificates (PEM) to trust besides the system's; a file beside the playbook.
    #[serde(default)]
    pub(crate) ca_file: Option<String>,
    /// Do not verify the server's certificate.
    #[serde(default)]
    pub(crate) insecure: bool,
}

/// One part of a multipart body: `value` or `file`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PartInput {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) value: Option<String>,
    /// A path beside the playbook.
    #[serde(default)]
    pub(crate) file: Option<String>,
    /// The file's name as the server sees it. Default: its own.
    #[serde(default)]
    pub(crate) filename: Option<String>,
    /// Default: by the file's ending.
    #[serde(default)]
    pub(crate) content_type: Option<String>,
}

fn minute() -> Period {
    Period::seconds(60)
}

fn mebibyte() -> u64 {
    1 << 20
}

/// What every answer has. The names of `extract` stand beside these.
#[derive(Debug, JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
struct Fixed {
    /// Of the answer.
    status: u16,
    /// After redirects.
    url: String,
    /// Names in lower case; values of one name joined by a comma. Without Set-Cookie.
    headers: BTreeMap<String, String>,
    /// Null when it is not UTF-8 or empty.
    body: Option<String>,
    /// The body read as JSON; null when it is none.
    json: Json,
    /// From sending the request to the end of its answer, in milliseconds.
    elapsed_ms: u64,
}

const FIXED: [&str; 6] = ["status", "url", "headers", "body", "json", "elapsed_ms"];

/// `status`, `url`, `headers`, `body`, `json`, `elapsed_ms`, and a name for each `extract`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Outputs(Map<String, Json>);

impl JsonSchema for Outputs {
    fn schema_name() -> Cow<'static, str> {
        "Outputs".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Fixed::json_schema(generator)
    }
}

/// See the module.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct HttpRequest;

const EXAMPLES: &[&str] = &[
    "
- id: latest
  uses: http.request
  with:
    url: https://registry.example.com/api/releases
    query: { channel: stable, limit: 1 }
    extract: { version: { json: '$[0].version' } }
",
    "
- id: silence
  uses: http.request
  with:
    method: POST
    url: https://alerts.example.com/api/v2/silences
    json: { matchers: [ { name: host, value: web1, isRegex: false } ], comment: maintenance }
    extract: { silence: { json: $.silenceID } }
",
    "
- id: upload
  uses: http.request
  with:
    method: POST
    url: https://files.example.com/upload
    multipart:
      - { name: title, value: nightly }
      - { name: archive, file: build/site.tar.gz, content_type: application/gzip }
    timeout: 10m
    status: [200, 201]
",
];

#[async_trait::async_trait]
impl StepType for HttpRequest {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = ();

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "http.request",
            doc: "Sends an HTTP request (JSON, form, text, file, multipart) and takes values out of the answer.",
            access: Access::Changes,
            undo: UndoKind::None,
            on_interrupt: OnInterrupt::Probe,
            commands: Commands::None,
            examples: EXAMPLES,
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut found = Vec::new();
        if let Err(e) = parse_url(&inputs.url) {
            found.push(problem(&["url"], e));
        }
        if let Err((name, e)) = client::headers(&inputs.headers) {
            found.push(problem(&["headers", &name], e));
        }
        if inputs.bearer.is_some() && inputs.basic_auth.is_some() {
            found.push(problem(&["bearer"], "give `bearer` or `basic_auth`, not both".to_owned()));
        }
        if let Some(extra) = inputs.bodies().get(1) {
            found.push(problem(&[extra], format!("a request has one body; `{}` is one already", inputs.bodies()[0])));
        }
        for (key, map) in [("query", Some(&inputs.query)), ("form", inputs.form.as_ref())] {
            for (name, value) in map.into_iter().flatten() {
                if let Err(e) = scalars(value) {
                    found.push(problem(&[key, name], e));
                }
            }
        }
        for (i, part) in inputs.multipart.iter().flatten().enumerate() {
            let at = i.to_string();
            if part.value.is_some() == part.file.is_some() {
                found.push(problem(&["multipart", &at], "give either `value` or `file`".to_owned()));
            }
        }
        for (name, extract) in &inputs.extract {
            found.extend(extract.problem(name));
            if FIXED.contains(&name.as_str()) {
                found.push(problem(&["extract", name], format!("`{name}` is an output of every request")));
            }
        }
        found
    }

    fn output_names(&self, with: &ValueTemplate) -> OutputNames {
        let mut names: Vec<String> = FIXED.iter().map(|n| (*n).to_owned()).collect();
        match with.get("extract") {
            None => {}
            Some(ValueTemplate::Map(extracts)) => names.extend(extracts.into_iter().map(|(name, _)| name)),
            Some(ValueTemplate::Literal(Json::Object(extracts))) => names.extend(extracts.keys().cloned()),
            Some(_) => return OutputNames::Open,
        }
        OutputNames::Closed(names)
    }

    fn capabilities(&self, with: &ValueTemplate) -> (Access, UndoKind) {
        let method = with.get("method").map(|m| m.literal().and_then(|m| Method::deserialize(m).ok()));
        match method {
            None => (Access::Reads, UndoKind::None),
            Some(Some(method)) if method.is_safe() => (Access::Reads, UndoKind::None),
            Some(_) => (Access::Changes, UndoKind::None),
        }
    }

    async fn preview(&self, _cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let url = inputs.full_url()?;
        let summary = format!("{} {}", inputs.method.to_http(), shown(&url));
        let details = inputs.bodies().iter().map(|kind| format!("with a body of `{kind}`")).collect();
        Ok(Preview { changes: inputs.method.is_safe().then_some(false), summary, details })
    }

    async fn capture(&self, _cx: &Cx<'_>, _inputs: &Inputs) -> Result<(), StepError> {
        Ok(())
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, (): &()) -> Result<Acted<Outputs>, StepError> {
        let url = inputs.full_url()?;
        let what = format!("{} {}", inputs.method.to_http(), shown(&url));
        let redirects = inputs.redirects.unwrap_or(if inputs.method.is_safe() { 10 } else { 0 });
        let options = Options { ca_file: inputs.ca_file.as_deref(), insecure: inputs.insecure, redirects };
        let client = client::build(cx, &url, &options).await?;
        let request = prepare(cx, inputs, client.request(inputs.method.to_http(), url)).await?;
        let answered = client::send(cx, request, &what, inputs.timeout.0, Body::Read(inputs.max_body)).await?;
        let body = std::str::from_utf8(&answered.body).ok().filter(|b| !b.is_empty());
        let text = body.unwrap_or_default();
        if !inputs.status.contains(answered.status) {
            return Err(unexpected(inputs, &what, &answered, text));
        }
        let json: Option<Json> = body.and_then(|b| serde_json::from_str(b).ok());
        let mut outputs = Map::new();
        outputs.insert("status".to_owned(), answered.status.into());
        outputs.insert("url".to_owned(), answered.url.clone().into());
        outputs.insert("headers".to_owned(), Json::Object(header_map(&answered)));
        outputs.insert("body".to_owned(), body.into());
        for (name, extract) in &inputs.extract {
            let value = extract.value(&answered.headers, text, json.as_ref());
            let value = value.map_err(|e| StepError::permanent(format!("{what}: extract `{name}`: {e}")))?;
            outputs.insert(name.clone(), value);
        }
        outputs.insert("json".to_owned(), json.unwrap_or_default());
        outputs.insert("elapsed_ms".to_owned(), answered.elapsed_ms.into());
        Ok(Acted { outputs: Outputs(outputs), changed: !inputs.method.is_safe() })
    }

    async fn probe(&self, _cx: &Cx<'_>, inputs: &Inputs, (): &()) -> Result<Probe<Outputs>, StepError> {
        if inputs.method.is_idempotent() {
            return Ok(Probe::NotDone);
        }
        let url = inputs.full_url()?;
        let method = inputs.method.to_http();
        Ok(Probe::Unknown(format!("{method} {} may have arrived or not; look at the server", shown(&url))))
    }
}

impl Inputs {
    /// The kinds of body that are given.
    fn bodies(&self) -> Vec<&'static str> {
        let given = [
            ("json", self.json.is_some()),
            ("form", self.form.is_some()),
            ("text", self.text.is_some()),
            ("file", self.file.is_some()),
            ("multipart", self.multipart.is_some()),
        ];
        given.into_iter().filter_map(|(name, there)| there.then_some(name)).collect()
    }

    fn full_url(&self) -> Result<Url, StepError> {
        let mut url = parse_url(&self.url).map_err(StepError::permanent)?;
        let added = pairs(&self.query)?;
        if !added.is_empty() {
            url.query_pairs_mut().extend_pairs(added);
        }
        Ok(url)
    }
}

fn unexpected(inputs: &Inputs, what: &str, answered: &Answered, body: &str) -> StepError {
    let message = format!("{what}: status {}, wanted {}: {}", answered.status, inputs.status, excerpt(body));
    let error = StepError::new(client::status_class(answered.status), message);
    let to = answered.headers.get("location").and_then(|l| l.to_str().ok());
    match (answered.status, to) {
        (300..=399, Some(_)) => error.help("the server redirects elsewhere; use that URL, or set `redirects`"),
        (401 | 403, _) => error.help("check the credentials: `bearer`, `basic_auth` or a header"),
        _ => error,
    }
}

fn header_map(answered: &Answered) -> Map<String, Json> {
    let mut map = Map::new();
    for name in answered.headers.keys().filter(|n| *n != "set-cookie") {
        let values: Vec<_> =
            answered.headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes())).collect();
        map.insert(name.as_str().to_owned(), values.join(", ").into());
    }
    map
}

/// A scalar as text; a list gives several.
fn scalars(value: &Json) -> Result<Vec<String>, String> {
    match value {
        Json::Null => Ok(Vec::new()),
        Json::String(text) => Ok(vec![text.clone()]),
        Json::Bool(_) | Json::Number(_) => Ok(vec![value.to_string()]),
        Json::Array(items) if !items.iter().any(|i| i.is_array() || i.is_object()) => {
            Ok(items.iter().filter_map(|i| scalars(i).ok()).flatten().collect())
        }
        Json::Array(_) | Json::Object(_) => Err("must be a string, number or boolean, or a list of them".to_owned()),
    }
}

fn pairs(map: &BTreeMap<String, Json>) -> Result<Vec<(&str, String)>, StepError> {
    let mut all = Vec::new();
    for (name, value) in map {
        let values = scalars(value).map_err(|e| StepError::permanent(format!("`{name}` {e}")))?;
        all.extend(values.into_iter().map(|v| (name.as_str(), v)));
    }
    Ok(all)
}

/// application/x-www-form-urlencoded: `Url` writes its query in that form.
fn urlencoded(map: &BTreeMap<String, Json>) -> Result<String, StepError> {
    let pairs = pairs(map)?;
    let mut scratch = parse_url("http://form/").map_err(StepError::permanent)?;
    scratch.query_pairs_mut().extend_pairs(pairs);
    Ok(scratch.query().unwrap_or_default().to_owned())
}

async fn prepare(cx: &Cx<'_>, inputs: &Inputs, request: RequestBuilder) -> Result<RequestBuilder, StepError> {
    let given = client::headers(&inputs.headers).map_err(|(_, e)| StepError::permanent(e))?;
    let has = |name: &str| given.contains_key(name);
    let mut request = request;
    let mut content_type = None;
    if let Some(json) = &inputs.json {
        content_type = Some("application/json");
        request = request.body(json.to_string());
    } else if let Some(form) = &inputs.form {
        content_type = Some("application/x-www-form-urlencoded");
        request = request.body(urlencoded(form)?);
    } else if let Some(text) = &inputs.text {
        content_type = Some("text/plain; charset=utf-8");
        request = request.body(text.clone());
    } else if let Some(file) = &inputs.file {
        content_type = Some("application/octet-stream");
        request = with_file(cx, request, file).await?;
    } else if let Some(parts) = &inputs.multipart {
        let mut form = Form::new();
        for part in parts {
            form = form.part(part.name.clone(), build_part(cx, part).await?);
        }
        request = request.multipart(form);
    }
    if let Some(content_type) = content_type.filter(|_| !has("content-type")) {
        request = request.header("content-type", content_type);
    }
    if matches!(inputs.method, Method::Post | Method::Patch) && !has("idempotency-key") {
        let key = inputs.idempotency_key.clone().unwrap_or_else(|| idempotency_key(cx.run, cx.step));
        if !key.is_empty() {
            request = request.header("idempotency-key", key);
        }
    }
    if let Some(auth) = &inputs.basic_auth {
        request = request.basic_auth(&auth.user, Some(&auth.password));
    }
    if let Some(token) = &inputs.bearer {
        request = request.bearer_auth(token);
    }
    Ok(request.headers(given))
}

/// The same for each attempt of a step in a run. A step's path may hold any character (the keys of a `for_each`).
fn idempotency_key(run: &str, step: &str) -> String {
    let plain = format!("{run}/{step}");
    if plain.bytes().all(|b| b.is_ascii_graphic()) && plain.len() <= 200 {
        return plain;
    }
    Sha256::digest(plain.as_bytes()).iter().fold(String::new(), |hex, b| hex + &format!("{b:02x}"))
}

fn unreadable(path: &std::path::Path, error: &std::io::Error) -> StepError {
    StepError::permanent(format!("{}: {error}", path.display()))
        .help("files of a request are read on the machine that runback runs on, from the playbook's folder")
}

async fn with_file(cx: &Cx<'_>, request: RequestBuilder, file: &str) -> Result<RequestBuilder, StepError> {
    let path = cx.local_path(file);
    let opened = async {
        let opened = tokio::fs::File::open(&path).await?;
        let length = opened.metadata().await?.len();
        Ok((opened, length))
    };
    let (opened, length) = opened.await.map_err(|e| unreadable(&path, &e))?;
    Ok(request.header("content-length", length).body(opened))
}

async fn build_part(cx: &Cx<'_>, part: &PartInput) -> Result<Part, StepError> {
    let mut built = match (&part.value, &part.file) {
        (Some(value), _) => Part::text(value.clone()),
        (None, Some(file)) => {
            let path = cx.local_path(file);
            Part::file(&path).await.map_err(|e| unreadable(&path, &e))?
        }
        (None, None) => return Err(StepError::permanent(format!("part `{}` has neither value nor file", part.name))),
    };
    if let Some(name) = &part.filename {
        built = built.file_name(name.clone());
    }
    if let Some(kind) = &part.content_type {
        let wrong = |_| StepError::permanent(format!("part `{}`: `{kind}` is not a content type", part.name));
        built = built.mime_str(kind).map_err(wrong)?;
    }
    Ok(built)
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
