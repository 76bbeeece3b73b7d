//! The router: the table of the API, health, metrics, the login of the page, and the headers that every answer has.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Form, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodFilter, get, on, post};
use serde::Deserialize;

use super::listen::Peer;
use super::problem::Problem;
use super::route::BODY_LIMIT;
use super::{App, api, page};

/// Everything comes from here: no other origin, no inline script, no frame around it.
const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; \
                   connect-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

pub(crate) fn router(app: Arc<App>) -> Router {
    let mut router = Router::new();
    for route in api::table() {
        let handler = Arc::clone(&route.handler);
        let filter = if route.method == Method::GET { MethodFilter::GET } else { MethodFilter::POST };
        let handle = move |State(app): State<Arc<App>>, ConnectInfo(peer): ConnectInfo<Peer>, request: Request| {
            handler(app, peer.ip(), request)
        };
        router = router.route(route.path, on(filter, handle));
    }
    router
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/session", post(log_in))
        .route("/session/end", post(log_out))
        .merge(page::routes())
        .fallback(|| async {
            Problem::not_found("there is nothing here").help("the API is described at /api/v1/openapi.json")
        })
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), around))
        .with_state(app)
}

/// Headers of every answer, and the count of them.
async fn around(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<axum::extract::MatchedPath>().map(|p| p.as_str().to_owned());
    let began = tokio::time::Instant::now();
    let mut response = next.run(request).await;
    app.metrics.answered(path.as_deref().unwrap_or("none"), response.status(), began.elapsed());
    let headers = response.headers_mut();
    let fixed = [
        (header::CONTENT_SECURITY_POLICY, CSP),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if app.settings.tls.is_some() {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    }
    response
}

/// The store answers, and the server is not ending.
async fn ready(State(app): State<Arc<App>>) -> Response {
    if *app.ending.borrow() {
        return Problem::ending().into_response();
    }
    match app.store.changed().await {
        Ok(_) => "ready\n".into_response(),
        Err(error) => Problem::from(error).into_response(),
    }
}

/// For those who may see everything; Prometheus sends a token as `authorization`.
async fn metrics(State(app): State<Arc<App>>, ConnectInfo(peer): ConnectInfo<Peer>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    if let Err(problem) = app.gate.admit(&parts, peer.ip(), super::auth::Role::Viewer).await {
        return problem.into_response();
    }
    let text = app.metrics.render(&app).await;
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
}

#[derive(Deserialize)]
struct LogIn {
    token: String,
}

/// The login of the page: a token, or the code of the printed address, becomes a cookie.
async fn log_in(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    headers: HeaderMap,
    Form(given): Form<LogIn>,
) -> Response {
    match session(&app, &headers, &given.token, peer.ip()).await {
        Ok(cookie) => with_cookie(&cookie),
        Err(problem) => problem.into_response(),
    }
}

async fn session(app: &App, headers: &HeaderMap, token: &str, peer: IpAddr) -> Result<String, Problem> {
    app.gate.check_origin(headers)?;
    app.gate.log_in(token, peer).await
}

async fn log_out(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    match app.gate.check_origin(&headers) {
        Ok(()) => with_cookie(&app.gate.log_out()),
        Err(problem) => problem.into_response(),
    }
}

fn with_cookie(cookie: &str) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    if let Ok(value) = HeaderValue::from_str(cookie) {
        response.headers_mut().insert(header::SET_COOKIE, value);
    }
    response
}
