//! Renders lowered templates against a JSON context, which it borrows and never copies. Strict: a value that is
//! not there is an error that names the path. Bounded in loop turns and in bytes.

use std::borrow::Cow;
use std::cell::Cell;

use super::helpers::{self, Args, kind, truthy};
use super::ir::{Base, Call, Ex, PathEx, Piece};
use super::problem::nearest;
use super::{Inner, RenderError, value_text, weight};
use crate::Json;

/// Bytes of text that one template may make.
pub(super) const MAX_OUTPUT: usize = 1 << 20;
/// Turns of all loops together, and calls of helpers, the longer the argument the more.
const MAX_WORK: u32 = 1_000_000;

/// A turn of a loop, or a `with`.
struct Frame<'f> {
    outer: Option<&'f Frame<'f>>,
    value: &'f Json,
    /// Key of a map's entry, index of a list's item.
    key: Json,
    index: usize,
    last: bool,
}

pub(super) struct Renderer<'a> {
    template: &'a Inner,
    context: &'a Json,
    work: Cell<u32>,
}

fn fail<T>(message: impl Into<String>) -> Result<T, RenderError> {
    Err(RenderError { message: message.into() })
}

impl<'a> Renderer<'a> {
    pub(super) fn new(template: &'a Inner, context: &'a Json) -> Self {
        Self { template, context, work: Cell::new(0) }
    }

    pub(super) fn native(&self, ex: &Ex) -> Result<Json, RenderError> {
        self.value(ex, None).map(Cow::into_owned)
    }

    pub(super) fn text(&self, pieces: &[Piece]) -> Result<String, RenderError> {
        let mut out = String::new();
        self.pieces(pieces, None, &mut out)?;
        Ok(out)
    }

    /// The text of a value that is printed.
    pub(super) fn print<'v>(&self, ex: &Ex, value: &'v Json) -> Result<Cow<'v, str>, RenderError> {
        if let Some(text) = value_text(value) {
            return Ok(text);
        }
        let name = self.name(ex);
        let argument = match ex {
            Ex::Path(path) => self.path_text(path),
            _ => "…",
        };
        match value {
            Json::Null => fail(format!(
                "{name} is null and cannot stand in text: write {{{{default {argument} \"…\"}}}} to say what to put there"
            )),
            other => fail(format!(
                "{name} is {} and cannot stand in text: write {{{{json {argument}}}}} or {{{{join {argument} \",\"}}}}",
                kind(other)
            )),
        }
    }

    pub(super) fn name(&self, ex: &Ex) -> String {
        match ex {
            Ex::Literal(json) => format!("`{json}`"),
            Ex::Path(path) => format!("`{}`", self.path_text(path)),
            Ex::Call(call) => format!("what `{}` gives", call.helper.name),
        }
    }

    pub(super) fn path_text(&self, path: &PathEx) -> &str {
        self.template.text.get(path.at.start as usize..path.at.end as usize).unwrap_or("")
    }

    fn spend(&self, work: usize) -> Result<(), RenderError> {
        let spent = self.work.get().saturating_add(u32::try_from(work).unwrap_or(u32::MAX));
        self.work.set(spent);
        if spent > MAX_WORK { fail("the template takes too long: its loops have too many turns") } else { Ok(()) }
    }

    fn pieces(&self, pieces: &[Piece], frame: Option<&Frame<'_>>, out: &mut String) -> Result<(), RenderError> {
        for piece in pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Value(ex) => {
                    let value = self.value(ex, frame)?;
                    out.push_str(&self.print(ex, &value)?);
                }
                Piece::If { condition, negate, zero_counts, then, otherwise } => {
                    let value = self.optional(condition, frame)?;
                    let holds = value.is_some_and(|v| truthy(&v, *zero_counts)) != *negate;
                    self.pieces(if holds { then } else { otherwise }, frame, out)?;
                }
                Piece::Each { items, body, otherwise } => {
                    self.each(items, body, otherwise, frame, out)?;
                }
                Piece::With { value, body, otherwise } => {
                    let value = self.value(value, frame)?;
                    if truthy(&value, false) {
                        let inner = Frame { outer: frame, value: &value, key: Json::Null, index: 0, last: true };
                        self.pieces(body, Some(&inner), out)?;
                    } else {
                        self.pieces(otherwise, frame, out)?;
                    }
                }
            }
            if out.len() > MAX_OUTPUT {
                return fail(format!("the template renders to more than {MAX_OUTPUT} bytes"));
            }
        }
        Ok(())
    }

    fn each(
        &self,
        items: &Ex,
        body: &[Piece],
        otherwise: &[Piece],
        outer: Option<&Frame<'_>>,
        out: &mut String,
    ) -> Result<(), RenderError> {
        let value = self.value(items, outer)?;
        let count = match &*value {
            Json::Array(list) => list.len(),
            Json::Object(map) => map.len(),
            Json::Null => 0,
            other => return fail(format!("`#each` wants a list or a map, {} is {}", self.name(items), kind(other))),
        };
        if count == 0 {
            return self.pieces(otherwise, outer, out);
        }
        let mut turn = |index: usize, key: Json, value: &Json| {
            self.spend(1 + body.len())?;
            let frame = Frame { outer, value, key, index, last: index + 1 == count };
            self.pieces(body, Some(&frame), out)
        };
        match &*value {
            Json::Array(list) => list.iter().enumerate().try_for_each(|(i, v)| turn(i, i.into(), v)),
            Json::Object(map) => map.iter().enumerate().try_for_each(|(i, (k, v))| turn(i, k.as_str().into(), v)),
            _ => Ok(()),
        }
    }

    fn value<'f>(&'f self, ex: &'f Ex, frame: Option<&'f Frame<'f>>) -> Result<Cow<'f, Json>, RenderError> {
        match ex {
            Ex::Literal(json) => Ok(Cow::Borrowed(json)),
            Ex::Path(path) => self.path(path, frame),
            Ex::Call(call) => self.call(call, frame).map(Cow::Owned),
        }
    }

    /// None = a path that has no value.
    fn optional<'f>(&'f self, ex: &'f Ex, frame: Option<&'f Frame<'f>>) -> Result<Option<Cow<'f, Json>>, RenderError> {
        match ex {
            Ex::Path(path) => Ok(self.path(path, frame).ok()),
            _ => self.value(ex, frame).map(Some),
        }
    }

    fn call(&self, call: &Call, frame: Option<&Frame<'_>>) -> Result<Json, RenderError> {
        let last = call.args.len().saturating_sub(1);
        let mut values = Vec::with_capacity(call.args.len());
        let mut work = 1;
        for (i, arg) in call.args.iter().enumerate() {
            let lenient = match call.helper.missing {
                helpers::Missing::Error => false,
                helpers::Missing::Null => true,
                helpers::Missing::NullButLast => i < last,
            };
            let value = if lenient {
                self.optional(arg, frame)?.unwrap_or(Cow::Owned(Json::Null))
            } else {
                self.value(arg, frame)?
            };
            work += match &*value {
                Json::String(s) => s.len() / 64,
                Json::Array(l) => l.len(),
                Json::Object(m) => m.len(),
                _ => 0,
            };
            values.push(value);
        }
        self.spend(work)?;
        let made = (call.helper.run)(&Args { values: &values, regex: call.regex.as_ref() }).map_err(|why| {
            let about = match call.args.first() {
                Some(Ex::Path(path)) => format!(" (its first argument is `{}`)", self.path_text(path)),
                _ => String::new(),
            };
            RenderError { message: format!("`{}`: {why}{about}", call.helper.name) }
        })?;
        self.spend(weight(&made))?;
        Ok(made)
    }

    fn path<'f>(&'f self, path: &'f PathEx, frame: Option<&'f Frame<'f>>) -> Result<Cow<'f, Json>, RenderError> {
        match &path.base {
            Base::Root(reference) => {
                let segments = &self.template.references[*reference as usize].path;
                walk(self.context, segments).map(Cow::Borrowed)
            }
            Base::Item { up, segments, or_root } => {
                let item = Self::frame(frame, *up)?.value;
                let missing = match follow(item, segments) {
                    Ok(value) => return Ok(Cow::Borrowed(value)),
                    Err(missing) => missing,
                };
                if *or_root {
                    match follow(self.context, segments) {
                        Ok(value) => return Ok(Cow::Borrowed(value)),
                        // The first name is the root's: that is what is meant.
                        Err(outer) if outer.depth > 0 && missing.depth == 0 => return Err(outer.tell(segments, "")),
                        Err(_) => {}
                    }
                }
                Err(missing.tell(segments, "the value of this block"))
            }
            Base::Key { up } => Ok(Cow::Borrowed(&Self::frame(frame, *up)?.key)),
            Base::Index { up } => Ok(Cow::Owned(Self::frame(frame, *up)?.index.into())),
            Base::First { up } => Ok(Cow::Owned((Self::frame(frame, *up)?.index == 0).into())),
            Base::Last { up } => Ok(Cow::Owned(Self::frame(frame, *up)?.last.into())),
        }
    }

    fn frame<'f>(mut frame: Option<&'f Frame<'f>>, up: u16) -> Result<&'f Frame<'f>, RenderError> {
        for _ in 0..up {
            frame = frame.and_then(|f| f.outer);
        }
        // Lowering resolves every level against the blocks that are there.
        frame.map_or_else(|| fail("a path goes further out than there are blocks"), Ok)
    }
}

/// Follows a path. The error names the part that is missing and what there is instead.
pub(crate) fn walk<'j, S: AsRef<str>>(base: &'j Json, segments: &[S]) -> Result<&'j Json, RenderError> {
    follow(base, segments).map_err(|missing| missing.tell(segments, "what is in scope"))
}

/// Where a path ends before its end.
struct Missing<'j> {
    /// The value that has no such part.
    at: &'j Json,
    /// How many segments led to it.
    depth: usize,
}

fn follow<'j, S: AsRef<str>>(base: &'j Json, segments: &[S]) -> Result<&'j Json, Missing<'j>> {
    let mut at = base;
    for (depth, segment) in segments.iter().enumerate() {
        let segment = segment.as_ref();
        let next = match at {
            Json::Object(map) => map.get(segment),
            Json::Array(list) => segment.parse::<usize>().ok().and_then(|n| list.get(n)),
            _ => None,
        };
        match next {
            Some(next) => at = next,
            None => return Err(Missing { at, depth }),
        }
    }
    Ok(at)
}

impl Missing<'_> {
    #[cold]
    fn tell<S: AsRef<str>>(&self, segments: &[S], base: &str) -> RenderError {
        let path = |n: usize| segments[..n].iter().map(S::as_ref).collect::<Vec<_>>().join(".");
        let segment = segments[self.depth].as_ref();
        let within = if self.depth == 0 { base.to_owned() } else { format!("`{}`", path(self.depth)) };
        let why = match self.at {
            Json::Object(map) if map.is_empty() => format!("{within} is empty"),
            Json::Object(map) => {
                let near = nearest(segment, map.keys().map(String::as_str));
                let hint = near.map(|n| format!(" (did you mean `{n}`?)")).unwrap_or_default();
                let shown: Vec<&str> = map.keys().map(String::as_str).take(8).collect();
                let more = if map.len() > shown.len() { ", …" } else { "" };
                format!("{within} has no `{segment}`{hint}; it has {}{more}", shown.join(", "))
            }
            Json::Array(list) => format!("{within} is a list of {} and has no item `{segment}`", list.len()),
            other => format!("{within} is {}", kind(other)),
        };
        RenderError { message: format!("`{}` has no value: {why}", path(segments.len())) }
    }
}
