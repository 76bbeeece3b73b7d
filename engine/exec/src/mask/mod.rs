//! Keeps secrets out of everything that runback writes: masks texts, JSON and streams, and seals what an
//! undo needs whole. Does not know where secrets come from, nor who writes.
//!
//! Each secret is looked for as it is, line by line, and in the forms that tools bring it into: base64 at
//! every alignment, URL-, JSON-, XML- and shell-escaped, and base64 of the escaped ones ([`forms`]).
//!
//! Not found: a value that is compressed, hashed, hex-encoded, or base64 that is wrapped within the value.
//! A value of three bytes is looked for as it is only, a shorter one not at all; [`Masker::weak`] names them. Of the
//! lines of a value, those of less than eight bytes are looked for where they may be secrets by themselves: not
//! brackets, bare names, `true`, and what has less than four letters and digits.
//! The values are wiped when the masker is dropped; the search automaton, made of them, is freed unwiped.

mod forms;
mod scan;
mod seal;
mod stream;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use runback_core::Json;
use secrecy::{ExposeSecret as _, SecretString};

use forms::{Form, MIN_ENCODED, MIN_RAW, expand};
use scan::{Found, Scanner};
pub use seal::UnsealError;
pub use stream::MaskStream;

/// What a cut leaves of a secret is masked from so many bytes on; any text ends like some secret begins, by chance.
const MIN_CUT: usize = 4;

/// A secret that cannot be masked well, for a diagnostic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weak {
    pub name: String,
    pub weakness: Weakness,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weakness {
    /// Under three bytes: not masked.
    NotMasked,
    /// Three bytes: masked as it is, not in its encoded forms.
    RawOnly,
}

impl Weak {
    /// "secret `pin` is too short to be masked (2 bytes or less)".
    pub fn describe(&self) -> String {
        match self.weakness {
            Weakness::NotMasked => format!("secret `{}` is not masked: it has less than {MIN_RAW} bytes", self.name),
            Weakness::RawOnly => {
                format!(
                    "secret `{}` is masked only as it is, not when encoded: it has less than {MIN_ENCODED} bytes",
                    self.name
                )
            }
        }
    }
}

/// Knows the secrets of one run. Cheap to clone; without secrets every method is a check of one pointer.
#[derive(Clone, Default)]
pub struct Masker(Option<Arc<Inner>>);

struct Inner {
    secrets: Vec<Secret>,
    /// What the automaton's pattern numbers stand for: secret and form.
    patterns: Vec<(usize, usize)>,
    /// None when no secret is long enough.
    scanner: Option<Scanner>,
    /// Written in place of a secret. Begins and ends with a character that no pattern holds, so that it
    /// can never become a part of another match.
    mask: String,
    sealer: seal::Sealer,
}

struct Secret {
    name: String,
    value: SecretString,
    forms: Vec<Form>,
}

impl std::fmt::Debug for Masker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.0.iter().flat_map(|i| &i.secrets).map(|s| &s.name).collect();
        f.debug_tuple("Masker").field(&names).finish()
    }
}

/// Three of the first mark that no pattern holds.
fn choose_mask(patterns: &[&[u8]]) -> String {
    let free = |mark: &char| {
        let mut utf8 = [0; 4];
        let mark = mark.encode_utf8(&mut utf8).as_bytes();
        !patterns.iter().any(|p| p.windows(mark.len()).any(|w| w == mark))
    };
    let mark = "*•#█".chars().chain('\u{2500}'..='\u{25ff}').chain('\u{e000}'..='\u{f8ff}').find(free);
    mark.map(|m| m.to_string().repeat(3)).unwrap_or_default()
}

impl Masker {
    /// Masks nothing.
    pub fn none() -> Self {
        Self(None)
    }

    pub fn new(secrets: impl IntoIterator<Item = (String, SecretString)>) -> Self {
        let secrets: Vec<Secret> = secrets
            .into_iter()
            .map(|(name, value)| Secret { name, forms: expand(value.expose_secret()), value })
            .collect();
        if secrets.is_empty() {
            return Self(None);
        }
        let mut seen: HashSet<&[u8]> = HashSet::new();
        let mut patterns = Vec::new();
        let mut bytes: Vec<&[u8]> = Vec::new();
        for (s, secret) in secrets.iter().enumerate() {
            for (f, form) in secret.forms.iter().enumerate() {
                if seen.insert(&form.bytes) {
                    patterns.push((s, f));
                    bytes.push(&form.bytes);
                }
            }
        }
        let mask = choose_mask(&bytes);
        let scanner = if bytes.is_empty() { None } else { Scanner::new(&bytes) };
        drop(seen);
        Self(Some(Arc::new(Inner { scanner, patterns, mask, sealer: seal::Sealer::default(), secrets })))
    }

    /// There is no secret, so nothing is ever masked.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Secrets that are masked badly or not at all, being too short.
    pub fn weak(&self) -> Vec<Weak> {
        let weakness = |s: &Secret| match s.value.expose_secret().len() {
            n if n < MIN_RAW => Some(Weakness::NotMasked),
            n if n < MIN_ENCODED => Some(Weakness::RawOnly),
            _ => None,
        };
        let secrets = self.0.iter().flat_map(|i| &i.secrets);
        secrets.filter_map(|s| Some(Weak { name: s.name.clone(), weakness: weakness(s)? })).collect()
    }

    /// The text holds a secret in some form.
    pub fn finds(&self, text: &[u8]) -> bool {
        self.0.as_ref().is_some_and(|inner| !inner.find(text).is_empty())
    }

    pub fn mask_str<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match self.mask_bytes(text.as_bytes()) {
            Cow::Borrowed(_) => Cow::Borrowed(text),
            // Patterns are whole characters, so what is left between them is too.
            Cow::Owned(bytes) => Cow::Owned(
                String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()),
            ),
        }
    }

    pub fn mask_bytes<'t>(&self, bytes: &'t [u8]) -> Cow<'t, [u8]> {
        let Some(inner) = &self.0 else { return Cow::Borrowed(bytes) };
        inner.cover(bytes, inner.find(bytes).into_iter().map(|f| (f.end - f.len, f.end)).collect())
    }

    /// Masks a text that quotes others: also what is left of a secret that was cut where the text says so, by an ellipsis.
    pub fn mask_quoting(&self, text: &str) -> Option<String> {
        let inner = self.0.as_ref()?;
        let mut places: Vec<_> = inner.find(text.as_bytes()).into_iter().map(|f| (f.end - f.len, f.end)).collect();
        places.extend(inner.cut(text));
        match inner.cover(text.as_bytes(), places) {
            Cow::Borrowed(_) => None,
            Cow::Owned(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        }
    }

    /// Masks values and keys, and numbers whose digits are a secret (they become strings).
    pub fn mask_json(&self, json: &mut Json) {
        if self.is_empty() {
            return;
        }
        match json {
            Json::String(s) => {
                if let Cow::Owned(masked) = self.mask_str(s) {
                    *s = masked;
                }
            }
            Json::Number(n) => {
                if let Cow::Owned(masked) = self.mask_str(&n.to_string()) {
                    *json = Json::String(masked);
                }
            }
            Json::Array(items) => items.iter_mut().for_each(|item| self.mask_json(item)),
            Json::Object(map) => {
                map.values_mut().for_each(|value| self.mask_json(value));
                if map.keys().any(|k| self.finds(k.as_bytes())) {
                    let mut out = serde_json::Map::with_capacity(map.len());
                    for (key, value) in std::mem::take(map) {
                        let masked = self.mask_str(&key).into_owned();
                        let mut unique = masked.clone();
                        let mut n = 1;
                        // Two keys may look the same once masked; neither value may be lost.
                        while out.contains_key(&unique) {
                            n += 1;
                            unique = format!("{masked} ({n})");
                        }
                        out.insert(unique, value);
                    }
                    *map = out;
                }
            }
            Json::Null | Json::Bool(_) => {}
        }
    }

    /// Masks a text that comes in pieces.
    pub fn stream(&self) -> MaskStream {
        MaskStream::new(self.0.clone())
    }
}

impl Inner {
    fn find(&self, bytes: &[u8]) -> Vec<Found> {
        let mut all = Vec::new();
        if let Some(scanner) = &self.scanner {
            let mut state = scanner.start();
            scanner.scan(&mut state, bytes, |f| all.push(f));
        }
        all
    }

    /// What is left of secrets right before and behind the ellipses of a text.
    fn cut(&self, text: &str) -> Vec<(usize, usize)> {
        let Some(scanner) = &self.scanner else { return Vec::new() };
        let mut places = Vec::new();
        let mut begin = 0;
        for (at, ellipsis) in text.match_indices('…') {
            let mut state = scanner.start();
            scanner.scan(&mut state, &text.as_bytes()[begin..at], |_| {});
            let left = scanner.open(state);
            if left >= MIN_CUT {
                places.push((at - left, at));
            }
            begin = at + ellipsis.len();
            if let Some(left) = self.end_of_one(&text.as_bytes()[begin..]) {
                places.push((begin, begin + left));
            }
        }
        places
    }

    /// How long the end of a secret is that a text begins with.
    fn end_of_one(&self, text: &[u8]) -> Option<usize> {
        let forms = self.secrets.iter().flat_map(|secret| &secret.forms);
        let ends = forms.filter_map(|form| {
            (1..=form.bytes.len().saturating_sub(MIN_CUT))
                .map(|from| &form.bytes[from..])
                .find(|end| text.starts_with(end))
        });
        ends.map(<[u8]>::len).max()
    }

    fn cover<'t>(&self, bytes: &'t [u8], mut places: Vec<(usize, usize)>) -> Cow<'t, [u8]> {
        if places.is_empty() {
            return Cow::Borrowed(bytes);
        }
        places.sort_unstable_by_key(|(_, end)| *end);
        let mut covered = stream::Covered::default();
        for (start, end) in places {
            covered.add(start, end);
        }
        let mut out = Vec::with_capacity(bytes.len());
        let mut masked = false;
        covered.emit(bytes, &mut masked, &self.mask, &mut |part| out.extend_from_slice(part));
        Cow::Owned(out)
    }
}
