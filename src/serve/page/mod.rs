//! The page for browsers: shells made here, filled by modules that ask the API. What a run is it does not know.

mod assets;
mod shell;

use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, Uri, header};
use axum::response::{Html, IntoResponse as _, Redirect, Response};
use axum::routing::get;

use super::App;
use super::auth::{Role, Who};
use super::listen::Peer;
use super::problem::Problem;
use shell::Page;

/// Routes of the page, beside those of the API.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/", get(runs))
        .route("/runs", get(|| async { Redirect::permanent("/") }))
        .route("/runs/{run}", get(run))
        .route("/schedules", get(schedules))
        .route("/playbooks", get(playbooks))
        .route("/playbooks/{playbook}", get(playbook))
        .route("/login", get(|| async { Html(shell::login().into_string()) }))
        .route("/assets/{version}/{name}", get(asset))
}

type Asker = (State<Arc<App>>, ConnectInfo<Peer>);

async fn runs(asker: Asker, request: Request) -> Response {
    shown(asker, request, Page::Runs).await
}

async fn run(asker: Asker, Path(run): Path<String>, request: Request) -> Response {
    shown(asker, request, Page::Run(run)).await
}

async fn schedules(asker: Asker, request: Request) -> Response {
    shown(asker, request, Page::Schedules).await
}

async fn playbooks(asker: Asker, request: Request) -> Response {
    shown(asker, request, Page::Playbooks).await
}

async fn playbook(asker: Asker, Path(playbook): Path<String>, request: Request) -> Response {
    shown(asker, request, Page::Playbook(playbook)).await
}

async fn shown((State(app), ConnectInfo(peer)): Asker, request: Request, page: Page) -> Response {
    let (parts, _) = request.into_parts();
    match who(&app, peer, &parts).await {
        Ok(who) => Html(shell::page(&page, &who).into_string()).into_response(),
        Err(problem) if problem.status == StatusCode::UNAUTHORIZED => to_login(&parts.uri).into_response(),
        Err(problem) => problem.into_response(),
    }
}

async fn who(app: &App, peer: Peer, parts: &Parts) -> Result<Who, Problem> {
    app.gate.admit(parts, peer.ip(), Role::Viewer).await
}

/// And back, when that is done.
fn to_login(from: &Uri) -> Redirect {
    let here = from.path_and_query().map_or("/", |p| p.as_str());
    let next: String = here.bytes().map(encoded).collect();
    Redirect::to(&format!("/login?next={next}"))
}

/// For the value of a query.
fn encoded(byte: u8) -> String {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    }
}

/// Files that every browser may have: nothing in them is anybody's.
async fn asset(Path((version, name)): Path<(String, String)>) -> Response {
    let Some(asset) = assets::find(&name) else {
        return Problem::not_found(format!("there is no file `{name}`")).into_response();
    };
    // A page that was loaded before an update asks for what is gone: it gets what is there, and keeps it for nobody.
    let keep = if version == assets::version() { "public, max-age=31536000, immutable" } else { "no-store" };
    ([(header::CONTENT_TYPE, asset.media), (header::CACHE_CONTROL, keep)], asset.bytes).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_back_from_the_login_is_one_value() {
        let location = |uri: &'static str| {
            let response = to_login(&Uri::from_static(uri)).into_response();
            response.headers()[header::LOCATION].to_str().map(str::to_owned).unwrap_or_default()
        };
        assert_eq!(location("/runs/x?step=a%5Bb%5D&c=1"), "/login?next=/runs/x%3Fstep%3Da%255Bb%255D%26c%3D1");
        assert_eq!(location("/"), "/login?next=/");
    }
}
