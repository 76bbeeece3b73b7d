//! Sealing: a capture is stored with a token in place of each secret, and gets its exact bytes back when the
//! secrets are given again with the same values. Does not know what a capture means.
//!
//! A token is `⟦secret:NAME:FORM:SALT-CHECK⟧`; FORM is a label of [`super::forms`], with `+N` where only its
//! bytes from N on stand there (two secrets overlap). A literal `⟦` of the content is stored as `⟦⟧`, a number
//! that holds a secret's digits as `{"⟦number⟧": sealed text}`.
//!
//! CHECK is 48 bits of a salted hash of 32768 rounds: enough to see that a value has changed, slow to guess from.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Read as _;
use std::sync::{Mutex, OnceLock, PoisonError};

use runback_core::Json;
use secrecy::ExposeSecret as _;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{Found, Inner, Masker};

const OPEN: char = '⟦';
const CLOSE: char = '⟧';
const NUMBER_KEY: &str = "⟦number⟧";
const ROUNDS: u32 = 1 << 15;

/// Why a sealed capture cannot be opened. No message holds a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnsealError {
    #[error("secret `{name}` has another value now than when the step's undo information was read")]
    Changed { name: String },
    #[error("secret `{name}` is needed to open the step's undo information, and it is not given")]
    Missing { name: String },
    /// Written by a later version, or damaged.
    #[error("the step's undo information holds a token that cannot be read: {token}")]
    Unreadable { token: String },
}

impl UnsealError {
    pub fn help(&self) -> String {
        match self {
            Self::Changed { name } => {
                format!(
                    "give `{name}` the value that it had during the run, for example from its version history, and try again"
                )
            }
            Self::Missing { name } => format!("provide `{name}` from where the playbook reads it, and try again"),
            Self::Unreadable { .. } => "use the version of runback that ran the step".to_owned(),
        }
    }
}

/// The salt of this process, and hashes that were computed: they are slow by design.
#[derive(Default)]
pub(super) struct Sealer {
    salt: OnceLock<String>,
    checks: Mutex<HashMap<(String, usize), String>>,
}

impl Sealer {
    fn salt(&self) -> &str {
        self.salt.get_or_init(|| {
            let mut bytes = [0_u8; 8];
            let random = std::fs::File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut bytes));
            if random.is_err() {
                // A salt has to differ between runs, not to be secret.
                let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
                bytes = (time.as_nanos() as u64 ^ u64::from(std::process::id())).to_le_bytes();
            }
            hex(&bytes)
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    })
}

fn check(salt: &str, name: &str, value: &str) -> String {
    let mut state = Zeroizing::new([0_u8; 32]);
    for round in 0..ROUNDS {
        let hasher = Sha256::new().chain_update(*state).chain_update(round.to_le_bytes());
        let hasher = hasher.chain_update(salt).chain_update([0]).chain_update(name).chain_update([0]);
        state.copy_from_slice(&hasher.chain_update(value).finalize());
    }
    hex(&state[..6])
}

/// Names may hold anything; in a token they hold no `:`, `%`, `⟦` or `⟧`.
fn encode_name(name: &str) -> String {
    let name = name.replace('%', "%25").replace(':', "%3a");
    name.replace(OPEN, "%5b").replace(CLOSE, "%5d")
}

fn decode_name(name: &str) -> String {
    let name = name.replace("%5d", "⟧").replace("%5b", "⟦");
    name.replace("%3a", ":").replace("%25", "%")
}

impl Masker {
    /// Replaces every secret by a token that [`Masker::unseal`] turns back. Needed without secrets too: a `⟦` of
    /// the content is escaped. Do not mask what was sealed.
    pub fn seal(&self, json: &Json) -> Json {
        match json {
            Json::String(s) => Json::String(self.seal_text(s)),
            Json::Number(n) => {
                let digits = n.to_string();
                if self.finds(digits.as_bytes()) {
                    let sealed = Json::String(self.seal_text(&digits));
                    Json::Object([(NUMBER_KEY.to_owned(), sealed)].into_iter().collect())
                } else {
                    json.clone()
                }
            }
            Json::Array(items) => items.iter().map(|item| self.seal(item)).collect(),
            Json::Object(map) => map.iter().map(|(k, v)| (self.seal_text(k), self.seal(v))).collect(),
            Json::Null | Json::Bool(_) => json.clone(),
        }
    }

    /// Brings back what [`Masker::seal`] was given.
    pub fn unseal(&self, json: &Json) -> Result<Json, UnsealError> {
        Ok(match json {
            Json::String(s) => Json::String(self.unseal_text(s)?),
            Json::Array(items) => items.iter().map(|item| self.unseal(item)).collect::<Result<_, _>>()?,
            Json::Object(map) => {
                if let (1, Some(Json::String(sealed))) = (map.len(), map.get(NUMBER_KEY)) {
                    let digits = self.unseal_text(sealed)?;
                    return serde_json::from_str(&digits)
                        .map_err(|_| UnsealError::Unreadable { token: NUMBER_KEY.to_owned() });
                }
                let entry = |(k, v): (&String, &Json)| Ok((self.unseal_text(k)?, self.unseal(v)?));
                Json::Object(map.iter().map(entry).collect::<Result<_, UnsealError>>()?)
            }
            Json::Null | Json::Bool(_) | Json::Number(_) => json.clone(),
        })
    }

    pub fn seal_text(&self, text: &str) -> String {
        let pieces = self.0.as_ref().map(|inner| pieces(&inner.find(text.as_bytes()))).unwrap_or_default();
        if pieces.is_empty() && !text.contains(OPEN) {
            return text.to_owned();
        }
        let mut out = String::with_capacity(text.len() + pieces.len() * 48);
        let mut at = 0;
        for piece in &pieces {
            // Patterns are whole characters, so these are character borders.
            escape(text.get(at..piece.start).unwrap_or_default(), &mut out);
            if let Some(inner) = &self.0 {
                inner.write_token(piece, &mut out);
            }
            at = piece.end;
        }
        escape(text.get(at..).unwrap_or_default(), &mut out);
        out
    }

    pub fn unseal_text(&self, text: &str) -> Result<String, UnsealError> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once(OPEN) {
            out.push_str(before);
            let unreadable = |token: &str| UnsealError::Unreadable { token: token.chars().take(80).collect() };
            let (token, after) = after.split_once(CLOSE).ok_or_else(|| unreadable(after))?;
            if token.is_empty() {
                out.push(OPEN);
            } else {
                let parsed = Token::parse(token).ok_or_else(|| unreadable(token))?;
                let missing = || UnsealError::Missing { name: parsed.name.clone() };
                let bytes =
                    self.0.as_ref().ok_or_else(missing)?.open_token(&parsed)?.ok_or_else(|| unreadable(token))?;
                out.push_str(std::str::from_utf8(bytes).map_err(|_| unreadable(token))?);
            }
            rest = after;
        }
        out.push_str(rest);
        Ok(out)
    }
}

fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        out.push(c);
        if c == OPEN {
            out.push(CLOSE);
        }
    }
}

/// A stretch that one token stands for: a pattern, without its first `skip` bytes.
struct Piece {
    pattern: usize,
    start: usize,
    end: usize,
    skip: usize,
}

/// Covers everything that was found by stretches that do not overlap.
fn pieces(found: &[Found]) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    for f in found {
        let begin = f.end - f.len;
        while pieces.last().is_some_and(|p| p.start >= begin) {
            pieces.pop();
        }
        let start = pieces.last().map_or(begin, |p| p.end.max(begin));
        pieces.push(Piece { pattern: f.pattern, start, end: f.end, skip: start - begin });
    }
    pieces
}

struct Token<'t> {
    name: String,
    form: &'t str,
    skip: usize,
    salt: &'t str,
    check: &'t str,
}

impl<'t> Token<'t> {
    fn parse(token: &'t str) -> Option<Self> {
        let mut parts = token.strip_prefix("secret:")?.split(':');
        let (name, form, proof) = (parts.next()?, parts.next()?, parts.next()?);
        let (form, skip) = match form.split_once('+') {
            Some((form, skip)) => (form, skip.parse().ok()?),
            None => (form, 0),
        };
        let (salt, check) = proof.split_once('-')?;
        parts.next().is_none().then(|| Self { name: decode_name(name), form, skip, salt, check })
    }
}

impl Inner {
    fn check(&self, salt: &str, secret: usize) -> String {
        let key = (salt.to_owned(), secret);
        let mut checks = self.sealer.checks.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(s) = self.secrets.get(secret) else { return String::new() };
        checks.entry(key).or_insert_with(|| check(salt, &s.name, s.value.expose_secret())).clone()
    }

    fn write_token(&self, piece: &Piece, out: &mut String) {
        let (s, f) = self.patterns[piece.pattern];
        let secret = &self.secrets[s];
        let _ = write!(out, "{OPEN}secret:{}:{}", encode_name(&secret.name), secret.forms[f].label);
        if piece.skip > 0 {
            let _ = write!(out, "+{}", piece.skip);
        }
        let salt = self.sealer.salt();
        let _ = write!(out, ":{salt}-{}{CLOSE}", self.check(salt, s));
    }

    /// None = no such form.
    fn open_token(&self, token: &Token<'_>) -> Result<Option<&[u8]>, UnsealError> {
        let Some(s) = self.secrets.iter().position(|s| s.name == token.name) else {
            return Err(UnsealError::Missing { name: token.name.clone() });
        };
        if self.check(token.salt, s) != token.check {
            return Err(UnsealError::Changed { name: token.name.clone() });
        }
        let form = self.secrets[s].forms.iter().find(|f| f.label == token.form);
        Ok(form.and_then(|f| f.bytes.get(token.skip..)))
    }
}
