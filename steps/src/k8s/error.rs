//! What an API server refuses, as an error with a class and a way out: by reason and code, never by the wording where the
//! API has a field for it. Seen with kube-apiserver 1.20.2 and 1.36.2.

use std::time::Duration;

use kube::core::Status;
use runback_core::step::{Class, StepError};

/// Why a request was not done.
#[derive(Debug)]
pub(crate) struct ApiError {
    /// `PATCH /apis/…`.
    request: String,
    why: Why,
}

#[derive(Debug)]
enum Why {
    Refused(Box<Status>),
    /// No connection, or a lost one.
    Connection(String),
    Silent(String, Duration),
    Cancelled,
    /// Credentials, certificates, an answer that is no JSON: another try is the same.
    Other(String),
}

/// An error with all its causes, on one line, each said once.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let more = cause.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = cause.source();
    }
    text
}

impl ApiError {
    fn new(request: &str, why: Why) -> Self {
        Self { request: request.to_owned(), why }
    }

    pub(crate) fn cancelled(request: &str) -> Self {
        Self::new(request, Why::Cancelled)
    }

    pub(crate) fn silent(request: &str, url: &str, limit: Duration) -> Self {
        Self::new(request, Why::Silent(url.to_owned(), limit))
    }

    /// An answer that broke off.
    pub(crate) fn lost(request: &str, url: &str, why: &str) -> Self {
        Self::new(request, Why::Connection(format!("{url}: {request}: {why}")))
    }

    pub(crate) fn garbled(request: &str, why: &str) -> Self {
        Self::new(request, Why::Other(format!("{request}: {why}")))
    }

    pub(crate) fn of(request: &str, url: &str, error: kube::Error) -> Self {
        let why = match error {
            kube::Error::Api(status) => Why::Refused(status),
            other => {
                let text = chain(&other);
                let lasting = ["certificate", "InvalidDNSName", "auth exec", "unable to run auth"];
                if matches!(other, kube::Error::Auth(_)) || lasting.iter().any(|w| text.contains(w)) {
                    Why::Other(format!("{url}: {text}"))
                } else {
                    Why::Connection(format!("{url}: {text}"))
                }
            }
        };
        Self::new(request, why)
    }

    pub(crate) fn status(&self) -> Option<&Status> {
        if let Why::Refused(status) = &self.why { Some(status) } else { None }
    }

    /// The HTTP code of a refusal, else 0.
    pub(crate) fn code(&self) -> u16 {
        self.status().map_or(0, |s| s.code)
    }

    pub(crate) fn is_absent(&self) -> bool {
        self.code() == 404
    }

    /// Somebody changed the object between reading and writing.
    pub(crate) fn is_stale(&self) -> bool {
        self.code() == 409 && self.status().is_some_and(|s| s.reason == "Conflict")
    }

    pub(crate) fn exists_already(&self) -> bool {
        self.status().is_some_and(|s| s.reason == "AlreadyExists")
    }

    /// An eviction that a budget forbids for now: not a busy server.
    pub(crate) fn is_budget(&self) -> bool {
        self.code() == 429 && self.request.ends_with("/eviction")
    }

    /// Whether the same request may well be answered in a moment.
    pub(crate) fn passes(&self) -> bool {
        match &self.why {
            Why::Connection(_) | Why::Silent(..) => true,
            Why::Refused(s) => match s.code {
                429 => !self.is_budget(),
                502..=504 => true,
                500 => ["etcdserver:", "timed out", "connection re"].iter().any(|w| s.message.contains(w)),
                // While it starts, RBAC of 1.20 refuses everybody until its informers are filled.
                403 => s.message.contains("not yet synced"),
                _ => false,
            },
            Why::Cancelled | Why::Other(_) => false,
        }
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        let seconds = self.status()?.details.as_ref()?.retry_after_seconds;
        (seconds > 0).then(|| Duration::from_secs(u64::from(seconds)))
    }

    /// In few words.
    pub(crate) fn reason(&self) -> String {
        match &self.why {
            Why::Refused(s) => s.message.clone(),
            Why::Connection(text) | Why::Other(text) => text.clone(),
            Why::Silent(url, limit) => format!("{url}: no answer within {}s", limit.as_secs()),
            Why::Cancelled => "told to stop".to_owned(),
        }
    }
}

impl From<ApiError> for StepError {
    fn from(error: ApiError) -> Self {
        let told = match &error.why {
            Why::Refused(status) => refused(status, &error),
            Why::Connection(text) => StepError::transient(text.clone())
                .help("see that the API server runs and that this machine reaches it; a `retry:` waits longer"),
            Why::Silent(..) => StepError::new(Class::Timeout, error.reason()),
            Why::Cancelled => StepError::new(Class::Cancelled, format!("{}: told to stop", error.request)),
            Why::Other(text) => StepError::permanent(text.clone()),
        };
        told.command(error.request)
    }
}

/// Said by more than one version in different ways.
pub(crate) const UNKNOWN_FIELD: &str = "a field's name is misspelt, or this version of the cluster does not have it";

fn refused(status: &Status, error: &ApiError) -> StepError {
    let message =
        if status.message.is_empty() { format!("{}: {}", error.request, status.code) } else { status.message.clone() };
    let causes = status.details.as_ref().map(|d| d.causes.as_slice()).unwrap_or_default();
    let fields = || causes.iter().filter(|c| !c.field.is_empty());
    match status.code {
        401 => StepError::permanent(format!("the API server does not know these credentials: {message}"))
            .help("the token or certificate of the kubeconfig has expired, or is of another cluster"),
        403 => forbidden(&message),
        404 => StepError::permanent(message),
        409 if fields().any(|c| c.reason == "FieldManagerConflict") => {
            let list: Vec<_> = fields().map(|c| format!("{} ({})", c.field, c.message)).collect();
            StepError::conflict(format!("other managers own fields that differ: {}", list.join(", "))).help(
                "leave these fields out, take their values over, or take them away from the other manager with `force_conflicts: true`",
            )
        }
        409 => StepError::conflict(message),
        410 => StepError::transient(message),
        // 1.22 and later answer 429 also where priority and fairness sheds load.
        429 if error.is_budget() => {
            let why = causes.first().map(|c| format!(" ({})", c.message)).unwrap_or_default();
            StepError::transient(format!("{message}{why}"))
        }
        415 => StepError::permanent(message)
            .help("this kind does not take that type of patch; custom resources take `merge` and `json`"),
        // Where fieldValidation is looked at, since 1.25.
        422 | 400 if message.contains("unknown field \"") => StepError::permanent(message).help(UNKNOWN_FIELD),
        422 | 400 => {
            let list: Vec<_> = fields().map(|c| format!("{}: {}", c.field, c.message)).collect();
            let told = StepError::permanent(message);
            if list.is_empty() { told } else { told.help(format!("correct {}", list.join("; "))) }
        }
        // Server-side apply of an unknown field is a 500 with 1.20 to 1.36.
        500 if status.message.contains("field not declared in schema") => {
            StepError::permanent(message).help(UNKNOWN_FIELD)
        }
        _ if error.passes() => StepError::transient(message),
        _ => StepError::permanent(message),
    }
}

/// Names the rule that would allow it, as the message of the authorizer has verb, resource and group in fixed places.
fn forbidden(message: &str) -> StepError {
    let between = |from: &str, to: &str| {
        let rest = message.split_once(from)?.1;
        Some(rest.split_once(to)?.0.to_owned())
    };
    let told = StepError::permanent(message.to_owned());
    let rule = (|| {
        let verb = between("cannot ", " ")?;
        let resource = between("resource \"", "\"")?;
        let group = between("API group \"", "\"")?;
        let kind = if message.contains("at the cluster scope") { "ClusterRole" } else { "Role" };
        Some(format!(
            "a {kind} bound to that user needs the rule {{ apiGroups: [\"{group}\"], resources: [\"{resource}\"], verbs: [\"{verb}\"] }}"
        ))
    })();
    match rule {
        Some(rule) => told.help(rule),
        None => told,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use runback_core::Json;
    use serde_json::json;

    use super::*;

    fn told(body: &Json) -> StepError {
        let status: Status = serde_json::from_value(body.clone()).unwrap();
        ApiError::of("PATCH /x", "https://api", kube::Error::Api(Box::new(status))).into()
    }

    #[test]
    fn a_forbidden_request_names_the_rule() {
        let error = told(
            &json!({ "code": 403, "reason": "Forbidden", "message": "deployments.apps \"web\" is forbidden: User \"eve\" cannot patch resource \"deployments/scale\" in API group \"apps\" in the namespace \"n\"" }),
        );
        assert_eq!(error.class, Class::Permanent);
        assert_eq!(
            error.help.unwrap(),
            "a Role bound to that user needs the rule { apiGroups: [\"apps\"], resources: [\"deployments/scale\"], verbs: [\"patch\"] }"
        );
    }

    #[test]
    fn a_conflict_of_managers_names_them_and_the_fields() {
        let error =
            told(&json!({ "code": 409, "reason": "Conflict", "message": "Apply failed", "details": { "causes": [
            { "reason": "FieldManagerConflict", "message": "conflict with \"a\"", "field": ".spec.replicas" }] } }));
        assert_eq!(error.class, Class::Conflict);
        assert_eq!(error.message, "other managers own fields that differ: .spec.replicas (conflict with \"a\")");
    }

    #[test]
    fn classes_by_code() {
        for (code, reason, class) in [
            (503, "ServiceUnavailable", Class::Transient),
            (504, "Timeout", Class::Transient),
            (429, "TooManyRequests", Class::Transient),
            (410, "Expired", Class::Transient),
            (409, "Conflict", Class::Conflict),
            (404, "NotFound", Class::Permanent),
            (422, "Invalid", Class::Permanent),
            (401, "Unauthorized", Class::Permanent),
        ] {
            assert_eq!(told(&json!({ "code": code, "reason": reason, "message": "m" })).class, class, "{code}");
        }
    }

    #[test]
    fn invalid_fields_are_listed() {
        let error = told(
            &json!({ "code": 422, "reason": "Invalid", "message": "Deployment.apps \"bad\" is invalid", "details": { "causes": [
            { "reason": "FieldValueInvalid", "message": "must be greater than or equal to 0", "field": "spec.replicas" }] } }),
        );
        assert_eq!(error.help.unwrap(), "correct spec.replicas: must be greater than or equal to 0");
    }
}
