//! The routes of the API: one value says method, path, role, what goes in and out, and who handles it. The router and
//! the OpenAPI document are both made from it, so that neither can say what the other does not do.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest as _, FromRequestParts as _, Path, Query, Request};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::App;
use super::auth::{Role, Who};
use super::problem::Problem;

/// The largest body of a request, in bytes.
pub(crate) const BODY_LIMIT: usize = 1 << 20;

pub(crate) type Answered = Pin<Box<dyn Future<Output = Response> + Send>>;
type Handler = Arc<dyn Fn(Arc<App>, std::net::IpAddr, Request) -> Answered + Send + Sync>;

/// What a handler is called with.
pub(crate) struct Call<P, Q, B> {
    pub(crate) app: Arc<App>,
    pub(crate) who: Who,
    pub(crate) path: P,
    pub(crate) query: Q,
    pub(crate) body: B,
    pub(crate) headers: axum::http::HeaderMap,
}

/// Takes nothing.
#[derive(Debug, Default, Clone, Copy, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}

/// What a route answers when all is well.
pub(crate) trait Answer: Send + 'static {
    const STATUS: StatusCode;
    const MEDIA: &'static str;
    fn schema(generator: &mut SchemaGenerator) -> Option<Schema>;
    fn respond(self) -> Response;
}

/// JSON, with status 200.
#[derive(Debug)]
pub(crate) struct Ok200<T>(pub(crate) T);

/// JSON, with status 201: something is there now that was not before.
#[derive(Debug)]
pub(crate) struct Created<T>(pub(crate) T);

/// JSON, with status 202: somebody was asked to do it.
#[derive(Debug)]
pub(crate) struct Accepted<T>(pub(crate) T);

macro_rules! json_answer {
    ($name:ident, $status:expr) => {
        impl<T: Serialize + JsonSchema + Send + 'static> Answer for $name<T> {
            const STATUS: StatusCode = $status;
            const MEDIA: &'static str = "application/json";

            fn schema(generator: &mut SchemaGenerator) -> Option<Schema> {
                Some(generator.subschema_for::<T>())
            }

            fn respond(self) -> Response {
                ($status, axum::Json(self.0)).into_response()
            }
        }
    };
}
json_answer!(Ok200, StatusCode::OK);
json_answer!(Created, StatusCode::CREATED);
json_answer!(Accepted, StatusCode::ACCEPTED);

/// Server-sent events.
pub(crate) struct EventStream(pub(crate) Body);

impl Answer for EventStream {
    const STATUS: StatusCode = StatusCode::OK;
    const MEDIA: &'static str = "text/event-stream";

    fn schema(_generator: &mut SchemaGenerator) -> Option<Schema> {
        None
    }

    fn respond(self) -> Response {
        let headers = [(header::CONTENT_TYPE, Self::MEDIA), (header::CACHE_CONTROL, "no-store")];
        (headers, self.0).into_response()
    }
}

/// Bytes as they are, with headers of their own.
pub(crate) struct Raw {
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) bytes: Vec<u8>,
}

impl Answer for Raw {
    const STATUS: StatusCode = StatusCode::OK;
    const MEDIA: &'static str = "application/octet-stream";

    fn schema(_generator: &mut SchemaGenerator) -> Option<Schema> {
        None
    }

    fn respond(self) -> Response {
        let mut response = ([(header::CONTENT_TYPE, Self::MEDIA)], self.bytes).into_response();
        for (name, value) in self.headers {
            if let Ok(value) = value.parse() {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

/// The schemas of one route.
#[derive(Debug)]
pub(crate) struct Shape {
    pub(crate) path: Schema,
    pub(crate) query: Schema,
    pub(crate) body: Option<Schema>,
    pub(crate) answer: Option<Schema>,
}

/// One row of the table.
pub(crate) struct Route {
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    /// The operation's name.
    pub(crate) id: &'static str,
    pub(crate) doc: &'static str,
    pub(crate) role: Role,
    pub(crate) status: StatusCode,
    pub(crate) media: &'static str,
    pub(crate) shape: fn(&mut SchemaGenerator) -> Shape,
    pub(crate) handler: Handler,
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

/// A row without its handler.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    pub(crate) id: &'static str,
    pub(crate) role: Role,
    pub(crate) doc: &'static str,
}

/// Reads: no body.
pub(crate) fn get(path: &'static str, id: &'static str, role: Role, doc: &'static str) -> Row {
    Row { method: Method::GET, path, id, role, doc }
}

/// Changes: a JSON body, which may be left out where nothing in it is required.
pub(crate) fn post(path: &'static str, id: &'static str, role: Role, doc: &'static str) -> Row {
    Row { method: Method::POST, path, id, role, doc }
}

impl Row {
    pub(crate) fn to<P, Q, B, A, F, Fut>(self, handle: F) -> Route
    where
        P: DeserializeOwned + JsonSchema + Send + 'static,
        Q: DeserializeOwned + JsonSchema + Send + 'static,
        B: DeserializeOwned + JsonSchema + Send + 'static,
        A: Answer,
        F: Fn(Call<P, Q, B>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<A, Problem>> + Send + 'static,
    {
        let Self { method, path, id, role, doc } = self;
        let shape = if method == Method::GET { shape_of_read::<P, Q, A> } else { shape_of_change::<P, Q, B, A> };
        let changes = method != Method::GET;
        let handler: Handler = Arc::new(move |app, peer, request| {
            let handle = handle.clone();
            Box::pin(async move {
                let answered = async {
                    let runs = app.runs.clone();
                    let call = accept::<P, Q, B>(app, peer, role, request).await?;
                    if changes { among_the_runs(&runs, handle(call)).await } else { handle(call).await }
                };
                match answered.await {
                    Ok(answer) => answer.respond(),
                    Err(problem) => problem.into_response(),
                }
            })
        });
        Route { method, path, id, doc, role, status: A::STATUS, media: A::MEDIA, shape, handler }
    }
}

/// A change may start processes, which inherit the priority of their thread; and it is made whole, also where the one
/// who asked for it has gone.
async fn among_the_runs<A: Answer>(
    runs: &tokio::runtime::Handle,
    change: impl Future<Output = Result<A, Problem>> + Send + 'static,
) -> Result<A, Problem> {
    match runs.spawn(change).await {
        Ok(answered) => answered,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(Problem::ending()),
    }
}

fn shape_of_read<P: JsonSchema, Q: JsonSchema, A: Answer>(generator: &mut SchemaGenerator) -> Shape {
    Shape {
        path: P::json_schema(generator),
        query: Q::json_schema(generator),
        body: None,
        answer: A::schema(generator),
    }
}

fn shape_of_change<P: JsonSchema, Q: JsonSchema, B: JsonSchema, A: Answer>(generator: &mut SchemaGenerator) -> Shape {
    Shape { body: Some(generator.subschema_for::<B>()), ..shape_of_read::<P, Q, A>(generator) }
}

/// Who it is comes first: what else is wrong with a request is not for everybody's ears.
async fn accept<P, Q, B>(
    app: Arc<App>,
    peer: std::net::IpAddr,
    role: Role,
    request: Request,
) -> Result<Call<P, Q, B>, Problem>
where
    P: DeserializeOwned + Send,
    Q: DeserializeOwned,
    B: DeserializeOwned,
{
    let (mut parts, body) = request.into_parts();
    let who = app.gate.admit(&parts, peer, role).await?;
    let path = Path::<P>::from_request_parts(&mut parts, &app).await;
    let Path(path) = path.map_err(|e| Problem::bad_request(e.body_text()))?;
    let query = Query::<Q>::try_from_uri(&parts.uri);
    let Query(query) = query.map_err(|e| Problem::bad_request(e.body_text()).help("see /api/v1/openapi.json"))?;
    let headers = parts.headers.clone();
    let body = if parts.method == Method::GET {
        read_body(b"{}")
    } else {
        // One that says how large it is need not be sent first.
        let said = parts.headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
        if said.is_some_and(|length| length > BODY_LIMIT) {
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than 1 MiB"));
        }
        let bytes = Bytes::from_request(Request::from_parts(parts, body), &app).await;
        let bytes = bytes.map_err(|e| Problem::new(e.status(), e.body_text()))?;
        read_body(if bytes.is_empty() { b"{}" } else { &bytes })
    }?;
    Ok(Call { app, who, path, query, body, headers })
}

fn read_body<B: DeserializeOwned>(bytes: &[u8]) -> Result<B, Problem> {
    serde_json::from_slice(bytes)
        .map_err(|e| Problem::bad_request(format!("the body: {e}")).help("see /api/v1/openapi.json"))
}
