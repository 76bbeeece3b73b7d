//! What the API answers when it does not do what was asked: the same shape as the command line's `--output json`, with
//! a status that a program can act on.

use axum::Json as AxumJson;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use runback_exec::driver::DriverError;
use runback_exec::store::StoreError;
use schemars::JsonSchema;
use serde::Serialize;

use crate::exit::Exit;
use crate::failure::Failure;

/// When to ask again for what is not available now, in seconds.
const RETRY_AFTER: axum::http::HeaderValue = axum::http::HeaderValue::from_static("5");

#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct ProblemBody {
    pub(crate) error: ProblemError,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct ProblemError {
    /// Names the thing and says why.
    pub(crate) message: String,
    /// What to do; may be empty.
    pub(crate) help: String,
}

#[derive(Debug, Clone)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    pub(crate) error: ProblemError,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, error: ProblemError { message: message.into(), help: String::new() } }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// As things stand it cannot be done: who is told so is told what to do, too.
    pub(crate) fn conflict(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, message).help(help)
    }

    /// Not now: later, or when somebody has done what `help` says, the same request will do.
    pub(crate) fn unavailable(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message).help(help)
    }

    /// A mistake in runback itself.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message).help("see the server's log")
    }

    /// This server is told to end.
    pub(crate) fn ending() -> Self {
        Self::unavailable("the server is ending", "start it again, then try again")
    }

    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, message)
    }

    #[must_use]
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.error.help = help.into();
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, AxumJson(ProblemBody { error: self.error })).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            let scheme = axum::http::HeaderValue::from_static("Bearer realm=\"runback\"");
            response.headers_mut().insert(axum::http::header::WWW_AUTHENTICATE, scheme);
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(axum::http::header::RETRY_AFTER, RETRY_AFTER);
        }
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let status = match &error {
            StoreError::UnknownRun { .. } => StatusCode::NOT_FOUND,
            StoreError::Ambiguous { .. } | StoreError::BadRunId { .. } => StatusCode::BAD_REQUEST,
            StoreError::RunExists { .. } | StoreError::Fired { .. } | StoreError::Busy { .. } => StatusCode::CONFLICT,
            StoreError::Full { .. }
            | StoreError::Io { .. }
            | StoreError::ReadOnly { .. }
            | StoreError::Contended { .. }
            | StoreError::Closed => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string()).help(error.help())
    }
}

impl From<DriverError> for Problem {
    fn from(error: DriverError) -> Self {
        let help = error.help().unwrap_or_default();
        match error {
            DriverError::Store(error) => error.into(),
            other => Self::conflict(other.to_string(), help),
        }
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        let status = match failure.exit {
            Exit::Usage => StatusCode::BAD_REQUEST,
            _ => StatusCode::CONFLICT,
        };
        Self::new(status, failure.message).help(failure.help.join("\n"))
    }
}
