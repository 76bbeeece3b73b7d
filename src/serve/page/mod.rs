//! The page for browsers. What it shows it takes from the API; here is only where its parts are found.

use std::sync::Arc;

use axum::Router;

use super::App;

/// Routes of the page, beside those of the API.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
}
