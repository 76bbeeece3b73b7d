//! The functions of expressions. Each can be called as `f(x, y)` and as `x.f(y)`; all are strict about types.

use std::borrow::Cow;

use regex::Regex;

use super::types::Type;
use crate::Json;
use crate::template::{kind, regex, value_text};

pub(super) struct Args<'a> {
    pub(super) values: &'a [Cow<'a, Json>],
    pub(super) regex: Option<&'a Regex>,
}

pub(super) struct Function {
    pub(super) name: &'static str,
    pub(super) usage: &'static str,
    pub(super) min: usize,
    pub(super) max: usize,
    /// Its second argument is a regular expression.
    pub(super) regex_argument: bool,
    /// What each argument may be; the last counts for all that follow.
    pub(super) wants: &'static [&'static [Type]],
    pub(super) gives: Type,
    pub(super) run: fn(&Args<'_>) -> Result<Json, String>,
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Function").field("name", &self.name).finish_non_exhaustive()
    }
}

pub(super) fn find(name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|f| f.name == name)
}

pub(super) fn names() -> impl Iterator<Item = &'static str> {
    FUNCTIONS.iter().map(|f| f.name)
}

const fn function(
    name: &'static str,
    usage: &'static str,
    args: usize,
    (wants, gives): (&'static [&'static [Type]], Type),
    run: fn(&Args<'_>) -> Result<Json, String>,
) -> Function {
    Function { name, usage, min: args, max: args, regex_argument: false, wants, gives, run }
}

const TEXT: &[Type] = &[Type::String];
const ANY: &[Type] = &[Type::Bool, Type::Number, Type::String, Type::List, Type::Map];
const OF_NUMBER_OR_TEXT: &[&[Type]] = &[&[Type::Number, Type::String]];

static FUNCTIONS: &[Function] = &[
    function("bool", "bool(\"true\")", 1, (&[&[Type::Bool, Type::String]], Type::Bool), to_bool),
    function("contains", "text.contains(\"part\")", 2, (&[TEXT], Type::Bool), |a| {
        Ok(a.text(0)?.contains(a.text(1)?).into())
    }),
    function("double", "double(\"1.5\")", 1, (OF_NUMBER_OR_TEXT, Type::Number), to_double),
    function("endsWith", "text.endsWith(\"end\")", 2, (&[TEXT], Type::Bool), |a| {
        Ok(a.text(0)?.ends_with(a.text(1)?).into())
    }),
    function("int", "int(\"3\")", 1, (OF_NUMBER_OR_TEXT, Type::Number), to_int),
    function("join", "list.join(\",\")", 2, (&[&[Type::List], TEXT], Type::String), join),
    function("lowerAscii", "text.lowerAscii()", 1, (&[TEXT], Type::String), |a| {
        Ok(a.text(0)?.to_ascii_lowercase().into())
    }),
    Function {
        regex_argument: true,
        ..function("matches", "text.matches(\"^[a-z]+$\")", 2, (&[TEXT], Type::Bool), matches)
    },
    function("size", "size(list)", 1, (&[&[Type::String, Type::List, Type::Map]], Type::Number), size),
    function("split", "text.split(\",\")", 2, (&[TEXT], Type::List), split),
    function("startsWith", "text.startsWith(\"begin\")", 2, (&[TEXT], Type::Bool), |a| {
        Ok(a.text(0)?.starts_with(a.text(1)?).into())
    }),
    function("string", "string(3)", 1, (&[&[Type::Bool, Type::Number, Type::String]], Type::String), to_string),
    function("trim", "text.trim()", 1, (&[TEXT], Type::String), |a| Ok(a.text(0)?.trim().into())),
    function("type", "type(value)", 1, (&[ANY], Type::String), |a| Ok(type_name(&a.values[0]).into())),
    function("upperAscii", "text.upperAscii()", 1, (&[TEXT], Type::String), |a| {
        Ok(a.text(0)?.to_ascii_uppercase().into())
    }),
];

impl Args<'_> {
    fn text(&self, i: usize) -> Result<&str, String> {
        self.values[i].as_str().ok_or_else(|| {
            let what = kind(&self.values[i]);
            let way_out = if value_text(&self.values[i]).is_some() { ": convert it with string(…)" } else { "" };
            format!("wants a string, got {what}{way_out}")
        })
    }
}

fn type_name(json: &Json) -> &'static str {
    match json {
        Json::Null => "null",
        Json::Bool(_) => "bool",
        Json::Number(n) if n.is_f64() => "double",
        Json::Number(_) => "int",
        Json::String(_) => "string",
        Json::Array(_) => "list",
        Json::Object(_) => "map",
    }
}

fn to_bool(a: &Args<'_>) -> Result<Json, String> {
    match &*a.values[0] {
        Json::Bool(b) => Ok((*b).into()),
        Json::String(s) => match s.as_str() {
            "true" => Ok(true.into()),
            "false" => Ok(false.into()),
            _ => Err("reads \"true\" or \"false\" only".to_owned()),
        },
        other => Err(format!("reads a string, got {}", kind(other))),
    }
}

fn to_double(a: &Args<'_>) -> Result<Json, String> {
    let value = match &*a.values[0] {
        Json::Number(n) => n.as_f64(),
        Json::String(s) => s.trim().parse::<f64>().ok(),
        other => return Err(format!("reads a number or a string, got {}", kind(other))),
    };
    value.filter(|f| f.is_finite()).map(Json::from).ok_or_else(|| "reads a number, this text is none".to_owned())
}

/// A number with a point is cut towards zero.
fn to_int(a: &Args<'_>) -> Result<Json, String> {
    let too_large = || "gives a number that does not fit in 64 bits".to_owned();
    match &*a.values[0] {
        Json::Number(n) => match (n.as_i64(), n.as_f64()) {
            (Some(i), _) => Ok(i.into()),
            // 2^63 is exact as a float; what is below it fits.
            (None, Some(f)) if f.abs() < 9_223_372_036_854_775_808.0 => Ok((f.trunc() as i64).into()),
            _ => Err(too_large()),
        },
        Json::String(s) => {
            s.trim().parse::<i64>().map(Json::from).map_err(|_| "reads a whole number, this text is none".to_owned())
        }
        other => Err(format!("reads a number or a string, got {}", kind(other))),
    }
}

fn to_string(a: &Args<'_>) -> Result<Json, String> {
    value_text(&a.values[0])
        .map(|t| t.into_owned().into())
        .ok_or_else(|| format!("wants a string, a number or a boolean, got {}", kind(&a.values[0])))
}

fn size(a: &Args<'_>) -> Result<Json, String> {
    Ok(match &*a.values[0] {
        Json::String(s) => s.chars().count().into(),
        Json::Array(l) => l.len().into(),
        Json::Object(m) => m.len().into(),
        other => return Err(format!("wants a string, a list or a map, got {}", kind(other))),
    })
}

fn matches(a: &Args<'_>) -> Result<Json, String> {
    let text = a.text(0)?;
    if let Some(regex) = a.regex {
        return Ok(regex.is_match(text).into());
    }
    let pattern = regex(a.text(1)?).map_err(|e| format!("cannot read its pattern: {e}"))?;
    Ok(pattern.is_match(text).into())
}

fn split(a: &Args<'_>) -> Result<Json, String> {
    let (text, separator) = (a.text(0)?, a.text(1)?);
    if separator.is_empty() {
        return Err("cannot split at an empty text".to_owned());
    }
    Ok(text.split(separator).map(Json::from).collect())
}

fn join(a: &Args<'_>) -> Result<Json, String> {
    let list = a.values[0].as_array().ok_or_else(|| format!("wants a list, got {}", kind(&a.values[0])))?;
    let separator = a.text(1)?;
    let mut made = String::new();
    for (i, item) in list.iter().enumerate() {
        let item = item.as_str().ok_or_else(|| format!("joins strings, got {} in the list", kind(item)))?;
        if i > 0 {
            made.push_str(separator);
        }
        made.push_str(item);
        if made.len() > super::eval::MAX_MADE {
            return Err("makes too long a text".to_owned());
        }
    }
    Ok(made.into())
}
