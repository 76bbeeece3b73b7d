//! Who is asking, and whether they may: tokens for programs, a session cookie for the page, the check of where a
//! request comes from. What a route needs, its row in the table says.

use std::net::IpAddr;
use std::sync::Mutex;

use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use ring::hmac;
use runback_exec::lease::Owner;
use runback_exec::store::SqliteStore;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::problem::Problem;
use super::token;
use crate::failure::Failure;
use crate::words;

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// See everything.
    Viewer,
    /// Start, stop and take back runs, and see everything.
    Operator,
    /// Answer approvals, and see everything.
    Approver,
    /// Everything.
    Admin,
}

impl Role {
    pub(crate) const ALL: [Self; 4] = [Self::Viewer, Self::Operator, Self::Approver, Self::Admin];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Approver => "approver",
            Self::Admin => "admin",
        }
    }

    fn includes(self, wanted: Self) -> bool {
        self == wanted || self == Self::Admin || wanted == Self::Viewer
    }

    fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.name() == word)
    }
}

/// Somebody who was let in.
#[derive(Debug, Clone)]
pub(crate) struct Who {
    pub(crate) name: String,
    pub(crate) roles: Vec<Role>,
    pub(crate) peer: IpAddr,
    /// By the page's cookie, not by a token in the request.
    pub(crate) session: bool,
}

impl Who {
    pub(crate) fn may(&self, role: Role) -> bool {
        self.roles.iter().any(|r| r.includes(role))
    }

    /// Who and from where, as events have it.
    pub(crate) fn by(&self) -> String {
        format!("{}@{}", self.name, self.peer)
    }

    /// How a run that they start came to be.
    pub(crate) fn from(&self) -> &'static str {
        if self.session { "page" } else { "api" }
    }
}

const COOKIE: &str = "runback_session";
/// How long the page stays logged in, in seconds.
const SESSION_SECONDS: u64 = 12 * 3600;
/// How long the address that `serve` prints on a terminal lets somebody in, in seconds.
const CODE_SECONDS: u64 = 600;
/// In the place of a token's id: whoever started the server, by the address that it printed.
const LOCAL: &str = "local";

/// Knows the keys of this process. Tokens are asked of the store each time: one that is revoked ends at once.
pub(crate) struct Gate {
    store: std::sync::Arc<SqliteStore>,
    key: hmac::Key,
    tls: bool,
    /// The code of the address that was printed, until it was used, and when it ends (ms since the epoch).
    code: Mutex<Option<(String, u64)>>,
    local_name: String,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").field("tls", &self.tls).finish_non_exhaustive()
    }
}

impl Gate {
    pub(crate) fn new(store: std::sync::Arc<SqliteStore>, tls: bool) -> Result<Self, Failure> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &token::random::<32>()?);
        Ok(Self { store, key, tls, code: Mutex::new(None), local_name: Owner::this_process().user })
    }

    /// Lets in who may do this, or says why not.
    pub(crate) async fn admit(&self, parts: &Parts, peer: IpAddr, role: Role) -> Result<Who, Problem> {
        self.check_origin(&parts.headers)?;
        let who = self.who(&parts.headers, peer).await?;
        if who.session && !is_safe(&parts.method) && parts.headers.get(header::ORIGIN).is_none() {
            return Err(Problem::forbidden("a change that comes with the page's cookie must say its origin"));
        }
        if !who.may(role) {
            let message = format!("{} may not do this: it takes the role {}", who.name, role.name());
            return Err(Problem::forbidden(message).help("ask an administrator for a token with that role"));
        }
        Ok(who)
    }

    /// A browser says where a request comes from: only from here.
    pub(crate) fn check_origin(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
        let scheme = if self.tls { "https" } else { "http" };
        let host = headers.get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or_default();
        if origin.to_str().is_ok_and(|o| o.strip_prefix(scheme).and_then(|o| o.strip_prefix("://")) == Some(host)) {
            return Ok(());
        }
        Err(Problem::forbidden("this request comes from a page of another origin")
            .help("call the API from the server's own page, or from a program that sends no Origin header"))
    }

    async fn who(&self, headers: &HeaderMap, peer: IpAddr) -> Result<Who, Problem> {
        if let Some(value) = headers.get(header::AUTHORIZATION) {
            let text = value.to_str().unwrap_or_default();
            let shown = text.strip_prefix("Bearer ").or_else(|| text.strip_prefix("bearer ")).unwrap_or_default();
            return self.by_token(shown.trim(), peer).await;
        }
        if let Some(cookie) = cookie(headers) {
            return self.by_session(cookie, peer).await;
        }
        Err(unauthorized("this needs a token"))
    }

    pub(crate) async fn by_token(&self, shown: &str, peer: IpAddr) -> Result<Who, Problem> {
        let refused = || unauthorized("this token is not known here");
        let (id, hash) = token::read(shown).ok_or_else(refused)?;
        let row = self.store.token(id).await?.filter(|row| token::same(&self.key, &row.hash, &hash));
        Self::holder(row.ok_or_else(refused)?, peer, false)
    }

    fn holder(row: runback_exec::store::desk::TokenRow, peer: IpAddr, session: bool) -> Result<Who, Problem> {
        if row.revoked_at.is_some() {
            return Err(unauthorized("this token was revoked"));
        }
        if row.expires_at.is_some_and(|at| at <= words::now_ms()) {
            return Err(unauthorized("this token has expired"));
        }
        let roles = row.roles.split(',').filter_map(Role::parse).collect();
        Ok(Who { name: row.name, roles, peer, session })
    }

    async fn by_session(&self, cookie: &str, peer: IpAddr) -> Result<Who, Problem> {
        let ended = || unauthorized("the session has ended").help("log in again: /login");
        let (what, tag) = cookie.rsplit_once('.').ok_or_else(ended)?;
        if !token::same(
            &self.key,
            words::hex(hmac::sign(&self.key, what.as_bytes()).as_ref()).as_bytes(),
            tag.as_bytes(),
        ) {
            return Err(ended());
        }
        let (id, until) = what.split_once('.').ok_or_else(ended)?;
        if until.parse::<u64>().map_or(true, |until| until <= words::now_ms()) {
            return Err(ended());
        }
        if id == LOCAL {
            return Ok(Who { name: self.local_name.clone(), roles: vec![Role::Admin], peer, session: true });
        }
        let row = self.store.token(id).await?.ok_or_else(ended)?;
        Self::holder(row, peer, true)
    }

    /// The value of `Set-Cookie` for whoever shows this token, or the code of the printed address.
    pub(crate) async fn log_in(&self, shown: &str, peer: IpAddr) -> Result<String, Problem> {
        let shown = shown.trim();
        let id = if self.use_code(shown) {
            LOCAL
        } else {
            self.by_token(shown, peer).await?;
            token::read(shown).map_or("", |(id, _)| id)
        };
        let what = format!("{id}.{}", words::now_ms() + SESSION_SECONDS * 1000);
        let tag = words::hex(hmac::sign(&self.key, what.as_bytes()).as_ref());
        Ok(self.cookie(&format!("{what}.{tag}"), SESSION_SECONDS))
    }

    /// Ends the session of a browser.
    pub(crate) fn log_out(&self) -> String {
        self.cookie("", 0)
    }

    fn cookie(&self, value: &str, seconds: u64) -> String {
        let secure = if self.tls { "; Secure" } else { "" };
        format!("{COOKIE}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}")
    }

    /// A code that logs in once, for the person who started the server.
    pub(crate) fn new_code(&self) -> Result<String, Failure> {
        let code = words::hex(&token::random::<24>()?);
        let until = words::now_ms() + CODE_SECONDS * 1000;
        *self.code.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some((code.clone(), until));
        Ok(code)
    }

    fn use_code(&self, shown: &str) -> bool {
        let mut code = self.code.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let fits = code.as_ref().is_some_and(|(ours, until)| {
            words::now_ms() < *until && token::same(&self.key, ours.as_bytes(), shown.as_bytes())
        });
        if fits {
            *code = None;
        }
        fits
    }
}

fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

fn unauthorized(message: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, message)
        .help("make a token on the server's machine (runback token create NAME --role viewer), and send it: Authorization: Bearer TOKEN")
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|v| v.to_str().ok());
    all.flat_map(|line| line.split(';')).find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}
