//! The helpers that templates may call. Each gets JSON values and gives one; none looks at anything else, and
//! none makes more than [`MAX_MADE`] bytes.

use std::borrow::Cow;
use std::cmp::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use regex::{Regex, RegexBuilder};
use sha2::{Digest, Sha256};

use super::value_text;
use crate::Json;
use crate::target::quote;

/// In bytes, of the text that one call makes.
pub(super) const MAX_MADE: usize = 1 << 20;
const MAX_RANGE: i64 = 10_000;

/// What a missing value as an argument is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    Error,
    /// `null`: the helper asks whether something is there.
    Null,
    /// As `Null`, apart from the last argument.
    NullButLast,
}

pub(super) struct Args<'a> {
    pub(super) values: &'a [Cow<'a, Json>],
    pub(super) regex: Option<&'a Regex>,
}

type Made = Result<Json, String>;

pub(super) struct Helper {
    pub(super) name: &'static str,
    pub(super) usage: &'static str,
    pub(super) min: usize,
    pub(super) max: usize,
    pub(super) missing: Missing,
    /// Its result cannot break out of a word of a shell script.
    pub(super) safe_in_shell: bool,
    /// Gives true or false, and can open a block.
    pub(super) boolean: bool,
    /// Its second argument is a regular expression.
    pub(super) regex_argument: bool,
    pub(super) run: fn(&Args<'_>) -> Made,
}

impl std::fmt::Debug for Helper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Helper").field("name", &self.name).finish_non_exhaustive()
    }
}

pub(super) fn find(name: &str) -> Option<&'static Helper> {
    HELPERS.binary_search_by(|h| h.name.cmp(name)).ok().map(|i| &HELPERS[i])
}

pub(super) fn names() -> impl Iterator<Item = &'static str> {
    HELPERS.iter().map(|h| h.name)
}

pub(crate) fn regex(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(pattern).size_limit(1 << 20).build().map_err(|e| match e {
        // The last line says what is wrong; those before it draw the pattern.
        regex::Error::Syntax(s) => s.lines().last().unwrap_or(&s).trim().trim_start_matches("error: ").to_owned(),
        e => e.to_string(),
    })
}

const fn plain(name: &'static str, usage: &'static str, min: usize, max: usize, run: fn(&Args<'_>) -> Made) -> Helper {
    Helper {
        name,
        usage,
        min,
        max,
        missing: Missing::Error,
        safe_in_shell: false,
        boolean: false,
        regex_argument: false,
        run,
    }
}

const fn safe(name: &'static str, usage: &'static str, min: usize, max: usize, run: fn(&Args<'_>) -> Made) -> Helper {
    Helper { safe_in_shell: true, ..plain(name, usage, min, max, run) }
}

const fn boolean(
    name: &'static str,
    usage: &'static str,
    max: usize,
    missing: Missing,
    run: fn(&Args<'_>) -> Made,
) -> Helper {
    let min = if matches!(missing, Missing::Null) { 1 } else { 2 };
    Helper { missing, boolean: true, safe_in_shell: true, ..plain(name, usage, min, max, run) }
}

/// Sorted by name.
static HELPERS: &[Helper] = &[
    boolean("and", "and a b", usize::MAX, Missing::Null, |a| Ok(a.values.iter().all(|v| truthy(v, false)).into())),
    safe("base64", "base64 text", 1, 1, |a| Ok(STANDARD.encode(&*a.text(0)?).into())),
    plain("base64_decode", "base64_decode text", 1, 1, base64_decode),
    plain("basename", "basename path", 1, 1, |a| Ok(basename(&a.text(0)?).into())),
    plain("concat", "concat a b", 1, usize::MAX, concat),
    Helper {
        missing: Missing::NullButLast,
        ..plain("default", "default value \"otherwise\"", 2, usize::MAX, |a| Ok(default(a)))
    },
    plain("dirname", "dirname path", 1, 1, |a| Ok(dirname(&a.text(0)?).into())),
    boolean("eq", "eq a b", 2, Missing::Error, |a| Ok(same(&a.values[0], &a.values[1]).into())),
    plain("first", "first list", 1, 1, |a| end(a, "first", |l| l.first())),
    boolean("ge", "ge a b", 2, Missing::Error, |a| order(a, Ordering::is_ge)),
    plain("get", "get map key", 2, 3, get),
    boolean("gt", "gt a b", 2, Missing::Error, |a| order(a, Ordering::is_gt)),
    boolean("gte", "gte a b", 2, Missing::Error, |a| order(a, Ordering::is_ge)),
    plain("indent", "indent text 4", 2, 2, indent),
    plain("join", "join list \", \"", 2, 2, join),
    plain("json", "json value", 1, 1, |a| Ok(a.values[0].to_string().into())),
    plain("json_pretty", "json_pretty value", 1, 1, |a| Ok(format!("{:#}", a.values[0]).into())),
    plain("keys", "keys map", 1, 1, |a| Ok(a.map(0)?.keys().map(|k| Json::from(k.as_str())).collect())),
    plain("last", "last list", 1, 1, |a| end(a, "last", |l| l.last())),
    boolean("le", "le a b", 2, Missing::Error, |a| order(a, Ordering::is_le)),
    safe("len", "len value", 1, 1, length),
    safe("length", "length value", 1, 1, length),
    plain("lookup", "lookup map key", 2, 2, get),
    plain("lower", "lower text", 1, 1, |a| Ok(a.text(0)?.to_lowercase().into())),
    boolean("lt", "lt a b", 2, Missing::Error, |a| order(a, Ordering::is_lt)),
    boolean("lte", "lte a b", 2, Missing::Error, |a| order(a, Ordering::is_le)),
    boolean("ne", "ne a b", 2, Missing::Error, |a| Ok((!same(&a.values[0], &a.values[1])).into())),
    boolean("not", "not value", 1, Missing::Null, |a| Ok((!truthy(&a.values[0], false)).into())),
    boolean("or", "or a b", usize::MAX, Missing::Null, |a| Ok(a.values.iter().any(|v| truthy(v, false)).into())),
    safe("quote", "quote value", 1, 1, quote_words),
    safe("range", "range 3", 1, 2, range),
    Helper {
        regex_argument: true,
        ..plain("regex_replace", "regex_replace text \"pattern\" \"replacement\"", 3, 3, regex_replace)
    },
    plain("replace", "replace text \"from\" \"to\"", 3, 3, replace),
    safe("sha256", "sha256 text", 1, 1, |a| Ok(hex(&Sha256::digest(a.text(0)?.as_bytes())).into())),
    plain("split", "split text \",\"", 2, 2, split),
    plain("trim", "trim text", 1, 1, |a| Ok(a.text(0)?.trim().into())),
    plain("upper", "upper text", 1, 1, |a| Ok(a.text(0)?.to_uppercase().into())),
    plain("values", "values map", 1, 1, |a| Ok(a.map(0)?.values().cloned().collect())),
];

impl Args<'_> {
    /// A string, number or boolean as text.
    fn text(&self, i: usize) -> Result<Cow<'_, str>, String> {
        value_text(&self.values[i]).ok_or_else(|| format!("wants a string, got {}", kind(&self.values[i])))
    }

    fn list(&self, i: usize) -> Result<&Vec<Json>, String> {
        self.values[i].as_array().ok_or_else(|| format!("wants a list, got {}", kind(&self.values[i])))
    }

    fn map(&self, i: usize) -> Result<&serde_json::Map<String, Json>, String> {
        self.values[i].as_object().ok_or_else(|| format!("wants a map, got {}", kind(&self.values[i])))
    }

    fn integer(&self, i: usize) -> Result<i64, String> {
        self.values[i].as_i64().ok_or_else(|| format!("wants a whole number, got {}", kind(&self.values[i])))
    }
}

/// "a string", "a list" …, for messages.
pub(crate) fn kind(json: &Json) -> &'static str {
    match json {
        Json::Null => "null",
        Json::Bool(_) => "a boolean",
        Json::Number(n) if n.is_f64() => "a number",
        Json::Number(_) => "a whole number",
        Json::String(_) => "a string",
        Json::Array(_) => "a list",
        Json::Object(_) => "a map",
    }
}

/// As `#if` sees it: false, null, 0, "", [] and {} are false.
pub(super) fn truthy(json: &Json, zero_counts: bool) -> bool {
    match json {
        Json::Null => false,
        Json::Bool(b) => *b,
        Json::Number(n) => zero_counts || n.as_f64().is_some_and(|f| f != 0.0),
        Json::String(s) => !s.is_empty(),
        Json::Array(a) => !a.is_empty(),
        Json::Object(o) => !o.is_empty(),
    }
}

/// Equal values; a whole number equals the same number written with a point.
pub(crate) fn same(a: &Json, b: &Json) -> bool {
    match (a, b) {
        (Json::Number(x), Json::Number(y)) => compare_numbers(x, y) == Some(Ordering::Equal),
        (Json::Array(x), Json::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(x, y)),
        (Json::Object(x), Json::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(k, v)| y.get(k).is_some_and(|w| same(v, w)))
        }
        _ => a == b,
    }
}

/// Exact between whole numbers; through a 64-bit float where one of them is one.
pub(crate) fn compare_numbers(a: &serde_json::Number, b: &serde_json::Number) -> Option<Ordering> {
    match (a.as_i128(), b.as_i128()) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
    }
}

fn order(a: &Args<'_>, wanted: fn(Ordering) -> bool) -> Made {
    let ordering = match (&*a.values[0], &*a.values[1]) {
        (Json::Number(x), Json::Number(y)) => compare_numbers(x, y),
        (Json::String(x), Json::String(y)) => Some(x.cmp(y)),
        (x, y) => return Err(format!("compares two numbers or two strings, got {} and {}", kind(x), kind(y))),
    };
    Ok(ordering.is_some_and(wanted).into())
}

fn bounded(made: String) -> Made {
    if made.len() > MAX_MADE { Err(too_long()) } else { Ok(made.into()) }
}

fn too_long() -> String {
    format!("makes more than {MAX_MADE} bytes")
}

fn base64_decode(a: &Args<'_>) -> Made {
    let text = a.text(0)?;
    let packed: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let bytes = STANDARD.decode(packed).map_err(|_| "got text that is not base64".to_owned())?;
    String::from_utf8(bytes).map(Json::from).map_err(|_| "decoded bytes that are not UTF-8 text".to_owned())
}

fn basename(path: &str) -> &str {
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() && !path.is_empty() {
        return "/";
    }
    trimmed.rsplit('/').next().unwrap_or(trimmed)
}

fn dirname(path: &str) -> &str {
    let trimmed = path.trim_end_matches('/');
    match trimmed.rfind('/') {
        None if trimmed.is_empty() && !path.is_empty() => "/",
        None => ".",
        Some(i) => {
            let parent = trimmed[..i].trim_end_matches('/');
            if parent.is_empty() { "/" } else { parent }
        }
    }
}

fn concat(a: &Args<'_>) -> Made {
    if a.values[0].is_array() {
        let lists: Result<Vec<&Vec<Json>>, String> = (0..a.values.len()).map(|i| a.list(i)).collect();
        return Ok(lists?.into_iter().flatten().cloned().collect());
    }
    let mut made = String::new();
    for i in 0..a.values.len() {
        made.push_str(&a.text(i)?);
    }
    bounded(made)
}

/// The first that is not null; else the last, whatever it is.
fn default(a: &Args<'_>) -> Json {
    let value = a.values.iter().find(|v| !v.is_null()).or(a.values.last());
    value.map(|v| v.as_ref().clone()).unwrap_or_default()
}

fn end(a: &Args<'_>, which: &str, pick: fn(&Vec<Json>) -> Option<&Json>) -> Made {
    pick(a.list(0)?).cloned().ok_or_else(|| format!("the list is empty, it has no {which} item"))
}

fn get(a: &Args<'_>) -> Made {
    let found = match &*a.values[0] {
        Json::Object(map) => map.get(&*a.text(1)?),
        Json::Array(list) => {
            let index =
                a.text(1)?.parse::<usize>().map_err(|_| "wants a whole number as index of a list".to_owned())?;
            list.get(index)
        }
        other => return Err(format!("wants a map or a list, got {}", kind(other))),
    };
    let otherwise = a.values.get(2).map(AsRef::as_ref);
    found.or(otherwise).cloned().ok_or_else(|| format!("there is no `{}` in it", a.text(1).unwrap_or_default()))
}

fn indent(a: &Args<'_>) -> Made {
    let (text, width) = (a.text(0)?, a.integer(1)?);
    let width = usize::try_from(width).ok().filter(|w| *w <= 200).ok_or("indents by 0 to 200 spaces")?;
    let blanks = " ".repeat(width);
    if text.len() + text.lines().count() * width > MAX_MADE {
        return Err(too_long());
    }
    let lines = text.split_inclusive('\n');
    let indented = lines.map(|l| if l.trim().is_empty() { l.to_owned() } else { format!("{blanks}{l}") });
    Ok(indented.collect::<String>().into())
}

fn join(a: &Args<'_>) -> Made {
    let (list, separator) = (a.list(0)?, a.text(1)?);
    let mut made = String::new();
    for (i, item) in list.iter().enumerate() {
        if i > 0 {
            made.push_str(&separator);
        }
        made.push_str(&value_text(item).ok_or_else(|| format!("joins strings, got {} in the list", kind(item)))?);
        if made.len() > MAX_MADE {
            return Err(too_long());
        }
    }
    Ok(made.into())
}

fn length(a: &Args<'_>) -> Made {
    Ok(match &*a.values[0] {
        Json::String(s) => s.chars().count().into(),
        Json::Array(l) => l.len().into(),
        Json::Object(m) => m.len().into(),
        other => return Err(format!("wants a string, a list or a map, got {}", kind(other))),
    })
}

fn quote_words(a: &Args<'_>) -> Made {
    let word = |json: &Json| -> Result<String, String> {
        let text =
            value_text(json).ok_or_else(|| format!("wants a string or a list of strings, got {}", kind(json)))?;
        if text.contains('\0') {
            Err("got a NUL byte, which no shell word can hold".to_owned())
        } else {
            Ok(quote(&text))
        }
    };
    match &*a.values[0] {
        Json::Array(list) => bounded(list.iter().map(word).collect::<Result<Vec<_>, _>>()?.join(" ")),
        json => word(json).map(Json::from),
    }
}

fn range(a: &Args<'_>) -> Made {
    let (from, to) = if a.values.len() == 1 { (0, a.integer(0)?) } else { (a.integer(0)?, a.integer(1)?) };
    if to.saturating_sub(from) > MAX_RANGE {
        return Err(format!("gives at most {MAX_RANGE} numbers"));
    }
    Ok((from..to).map(Json::from).collect())
}

fn regex_replace(a: &Args<'_>) -> Made {
    let (text, replacement) = (a.text(0)?, a.text(2)?);
    let made_here;
    let regex = if let Some(regex) = a.regex {
        regex
    } else {
        made_here = regex(&a.text(1)?).map_err(|e| format!("cannot read the pattern: {e}"))?;
        &made_here
    };
    let mut made = String::new();
    let mut at = 0;
    for captures in regex.captures_iter(&text) {
        let Some(whole) = captures.get(0) else { continue };
        made.push_str(&text[at..whole.start()]);
        captures.expand(&replacement, &mut made);
        at = whole.end();
        if made.len() > MAX_MADE {
            return Err(too_long());
        }
    }
    made.push_str(&text[at..]);
    bounded(made)
}

fn replace(a: &Args<'_>) -> Made {
    let (text, from, to) = (a.text(0)?, a.text(1)?, a.text(2)?);
    if from.is_empty() {
        return Err("cannot replace an empty text".to_owned());
    }
    let count = text.matches(&*from).count();
    if text.len() + count.saturating_mul(to.len()) > MAX_MADE + count * from.len() {
        return Err(too_long());
    }
    Ok(text.replace(&*from, &to).into())
}

fn split(a: &Args<'_>) -> Made {
    let (text, separator) = (a.text(0)?, a.text(1)?);
    if separator.is_empty() {
        return Err("cannot split at an empty text".to_owned());
    }
    if text.is_empty() {
        return Ok(Json::Array(Vec::new()));
    }
    Ok(text.split(&*separator).map(Json::from).collect())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, b| {
        // Writing to a string cannot fail.
        let _ = write!(out, "{b:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn helpers_are_sorted_so_that_find_works() {
        assert!(HELPERS.is_sorted_by(|a, b| a.name < b.name));
    }

    #[test]
    fn dirname_and_basename_are_as_in_posix() {
        for (path, dir, base) in [
            ("/usr/lib", "/usr", "lib"),
            ("/usr/", "/", "usr"),
            ("usr", ".", "usr"),
            ("/", "/", "/"),
            ("a/b//", "a", "b"),
            ("//a", "/", "a"),
            ("", ".", ""),
        ] {
            assert_eq!((dirname(path), basename(path)), (dir, base), "{path}");
        }
    }
}
