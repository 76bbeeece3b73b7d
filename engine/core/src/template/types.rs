//! What is certain of a template's types before it is rendered: where rendering, once it comes there, can only fail. A type
//! is a value that stands for all of its kind; None is one that is not known, and fits everywhere.

use std::borrow::Cow;

use serde_json::json;

use super::helpers::{Args, kind};
use super::ir::{Base, Call, Ex, PathEx, Piece};
use super::render::Renderer;
use super::{Body, Inner, Reference, Template};
use crate::Json;
use crate::span::Span;

/// Something in a template that cannot succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    pub message: String,
    pub help: Option<String>,
    /// Of the reference whose type does not fit, or of the whole template.
    pub span: Span,
}

type Known = Option<Json>;
type Sample<'s> = &'s dyn Fn(&Reference) -> Known;

impl Template {
    /// Everything that does not fit. `sample` gives a value of a reference's type, where that is known for sure; `text`: it
    /// is rendered to text also where it is one `{{ … }}`.
    pub fn misfits(&self, sample: Sample<'_>, text: bool) -> Vec<Misfit> {
        self.types(sample, text).1
    }

    /// A value of the type that it gives, where that is known for sure.
    pub fn sample(&self, sample: Sample<'_>) -> Option<Json> {
        self.types(sample, false).0
    }

    fn types(&self, sample: Sample<'_>, text: bool) -> (Known, Vec<Misfit>) {
        let inner = &*self.inner;
        let mut types = Types { inner, words: Renderer::new(inner, &Json::Null), sample, found: Vec::new() };
        let gives = match &inner.body {
            Body::Verbatim => Some(json!("")),
            Body::Lone(ex) if text => {
                types.printed(ex);
                Some(json!(""))
            }
            Body::Lone(ex) => types.of(ex),
            Body::Pieces(pieces) => {
                types.pieces(pieces);
                Some(json!(""))
            }
        };
        (gives, types.found)
    }
}

struct Types<'a> {
    inner: &'a Inner,
    words: Renderer<'a>,
    sample: Sample<'a>,
    found: Vec<Misfit>,
}

impl Types<'_> {
    fn of(&mut self, ex: &Ex) -> Known {
        match ex {
            Ex::Literal(json) => Some(json.clone()).filter(|j| !j.is_null()),
            Ex::Path(PathEx { base, .. }) => match base {
                Base::Root(reference) => (self.sample)(&self.inner.references[*reference as usize]),
                Base::Index { .. } => Some(json!(0)),
                Base::First { .. } | Base::Last { .. } => Some(json!(true)),
                Base::Item { .. } | Base::Key { .. } => None,
            },
            Ex::Call(call) => self.call(call),
        }
    }

    fn pieces(&mut self, pieces: &[Piece]) {
        for piece in pieces {
            match piece {
                Piece::Text(_) => {}
                Piece::Value(ex) => self.printed(ex),
                Piece::If { condition, then, otherwise, .. } => {
                    self.of(condition);
                    self.pieces(then);
                    self.pieces(otherwise);
                }
                Piece::Each { items, body, otherwise } => {
                    if let Some(other) = self.of(items).filter(|t| !t.is_array() && !t.is_object()) {
                        let name = self.words.name(items);
                        let message = format!("`#each` wants a list or a map, {name} is {}", kind(&other));
                        self.add(items, message, None);
                    }
                    self.pieces(body);
                    self.pieces(otherwise);
                }
                Piece::With { value, body, otherwise } => {
                    self.of(value);
                    self.pieces(body);
                    self.pieces(otherwise);
                }
            }
        }
    }

    fn printed(&mut self, ex: &Ex) {
        let Some(other) = self.of(ex).filter(|t| t.is_array() || t.is_object()) else { return };
        let message = format!("{} is {} and cannot stand in text", self.words.name(ex), kind(&other));
        let help = match ex {
            Ex::Path(path) if other.is_array() => {
                let path = self.words.path_text(path);
                format!(
                    "write {{{{join {path} \",\"}}}} or {{{{json {path}}}}}; for the words of a script {{{{quote {path}}}}}"
                )
            }
            Ex::Path(path) => format!("write {{{{json {}}}}}, or name a value in it", self.words.path_text(path)),
            _ => "make text of it with `json`, or `join` where it is a list".to_owned(),
        };
        self.add(ex, message, Some(help));
    }

    fn add(&mut self, at: &Ex, message: String, help: Option<String>) {
        let reference = first_reference(at).map(|r| self.inner.references[r as usize].span);
        self.found.push(Misfit { message, help, span: reference.unwrap_or(self.inner.span) });
    }

    fn call(&mut self, call: &Call) -> Known {
        let name = call.helper.name;
        if let Some(values) = call.args.iter().map(written).collect::<Option<Vec<_>>>() {
            let made = (call.helper.run)(&Args { values: &values, regex: call.regex.as_ref() });
            if let Err(why) = &made {
                self.found.push(Misfit { message: format!("`{name}`: {why}"), help: None, span: self.inner.span });
            }
            return made.ok().filter(|made| !made.is_null());
        }
        let args: Vec<Known> = call.args.iter().map(|arg| self.of(arg)).collect();
        for (at, arg) in call.args.iter().enumerate() {
            let Some(is) = &args[at] else { continue };
            let wants = wants(name, at);
            if !wants.take(is) {
                let message = format!("`{name}` wants {}, {} is {}", wants.tell(), self.words.name(arg), kind(is));
                let help = match arg {
                    Ex::Path(path) if is.is_array() && wants == Wants::Text => {
                        Some(format!("make text of it first: (join {} \",\")", self.words.path_text(path)))
                    }
                    Ex::Path(path) if is.is_string() && wants == Wants::List => {
                        Some(format!("make a list of it first: (split {} \",\")", self.words.path_text(path)))
                    }
                    _ => None,
                };
                self.add(arg, message, help);
            }
        }
        self.together(call, &args);
        gives(name, &args)
    }

    /// What helpers want of two arguments together.
    fn together(&mut self, call: &Call, args: &[Known]) {
        let name = call.helper.name;
        let [Some(a), rest @ ..] = args else { return };
        let others = rest.iter().zip(&call.args[1..]).filter_map(|(known, ex)| Some((known.as_ref()?, ex)));
        for (b, ex) in others {
            let message = match name {
                "lt" | "le" | "lte" | "gt" | "ge" | "gte"
                    if !(a.is_number() && b.is_number() || a.is_string() && b.is_string()) =>
                {
                    format!("`{name}` compares two numbers or two strings, not {} and {}", kind(a), kind(b))
                }
                "concat" if a.is_array() != b.is_array() => {
                    format!("`concat` makes one text or one list, not one of {} and {}", kind(a), kind(b))
                }
                _ => continue,
            };
            let at = if first_reference(ex).is_some() { ex } else { &call.args[0] };
            self.add(at, message, None);
        }
    }
}

/// What a helper takes as an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wants {
    Any,
    /// A string, number or boolean.
    Text,
    List,
    Map,
    Whole,
    /// Text, or a list of texts.
    Words,
    /// Something that has a length.
    Sized,
    /// Something with parts.
    Holder,
    /// Text or a list.
    Joined,
}

impl Wants {
    fn take(self, value: &Json) -> bool {
        let (list, map) = (value.is_array(), value.is_object());
        match self {
            Wants::Any => true,
            Wants::Text => !list && !map,
            Wants::List => list,
            Wants::Map => map,
            Wants::Whole => value.is_number(),
            Wants::Words | Wants::Joined => !map,
            Wants::Sized => list || map || value.is_string(),
            Wants::Holder => list || map,
        }
    }

    fn tell(self) -> &'static str {
        match self {
            Wants::Any => "a value",
            Wants::Text => "a string",
            Wants::List => "a list",
            Wants::Map => "a map",
            Wants::Whole => "a whole number",
            Wants::Words => "a string or a list of strings",
            Wants::Sized => "a string, a list or a map",
            Wants::Holder => "a map or a list",
            Wants::Joined => "strings or lists",
        }
    }
}

fn wants(helper: &str, at: usize) -> Wants {
    match (helper, at) {
        ("first" | "last", _) | ("join", 0) => Wants::List,
        ("keys" | "values", _) => Wants::Map,
        ("range", _) | ("indent", 1) => Wants::Whole,
        ("quote", _) => Wants::Words,
        ("len" | "length", _) => Wants::Sized,
        ("get" | "lookup", 0) => Wants::Holder,
        ("concat", _) => Wants::Joined,
        (
            "base64" | "base64_decode" | "basename" | "dirname" | "lower" | "upper" | "trim" | "sha256" | "indent"
            | "join" | "regex_replace" | "replace" | "split",
            _,
        )
        | ("get" | "lookup", 1) => Wants::Text,
        _ => Wants::Any,
    }
}

fn gives(helper: &str, args: &[Known]) -> Known {
    match helper {
        "base64" | "base64_decode" | "basename" | "dirname" | "lower" | "upper" | "trim" | "sha256" | "indent"
        | "join" | "json" | "json_pretty" | "quote" | "regex_replace" | "replace" => Some(json!("")),
        "keys" | "values" | "split" | "range" => Some(json!([])),
        "len" | "length" => Some(json!(0)),
        "and" | "or" | "not" | "eq" | "ne" | "lt" | "le" | "lte" | "gt" | "ge" | "gte" => Some(json!(true)),
        "concat" => args.first()?.as_ref().map(|a| if a.is_array() { json!([]) } else { json!("") }),
        "default" => {
            let first = args.first()?.clone()?;
            let alike = |a: &Known| a.as_ref().is_some_and(|a| kind(a) == kind(&first));
            args.iter().all(alike).then_some(first)
        }
        _ => None,
    }
}

/// A value that is written out.
fn written(ex: &Ex) -> Option<Cow<'_, Json>> {
    if let Ex::Literal(json) = ex { Some(Cow::Borrowed(json)) } else { None }
}

/// The first reference under a node, by its index.
fn first_reference(ex: &Ex) -> Option<u32> {
    match ex {
        Ex::Path(PathEx { base: Base::Root(reference), .. }) => Some(*reference),
        Ex::Literal(_) | Ex::Path(_) => None,
        Ex::Call(call) => call.args.iter().find_map(first_reference),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::template::helpers;

    fn sample(r: &Reference) -> Option<Json> {
        match r.path[1].as_str() {
            "n" => Some(json!(0)),
            "s" => Some(json!("")),
            "l" => Some(json!([])),
            "m" => Some(json!({})),
            _ => None,
        }
    }

    fn misfits(text: &str) -> Vec<String> {
        let found = Template::parse_text(text).unwrap().misfits(&sample, false);
        found.into_iter().map(|m| m.message).collect()
    }

    #[test]
    fn what_can_only_fail_is_found() {
        for (text, part) in [
            ("a {{ i.l }}", "`i.l` is a list and cannot stand in text"),
            ("a {{ i.m }}", "`i.m` is a map and cannot stand in text"),
            ("a {{split i.s \",\"}}", "what `split` gives is a list"),
            ("{{join i.s \",\"}}", "`join` wants a list, `i.s` is a string"),
            ("{{lower i.l}}", "`lower` wants a string, `i.l` is a list"),
            ("{{lower (keys i.m)}}", "`lower` wants a string, what `keys` gives is a list"),
            ("{{#each i.s}}{{this}}{{/each}}", "`#each` wants a list or a map, `i.s` is a string"),
            ("{{#if i.free}}{{first i.n}}{{/if}}", "`first` wants a list"),
            ("{{#if (lt i.s 3)}}a{{/if}}", "compares two numbers or two strings, not a string and a whole number"),
            ("{{concat i.l \"a\"}}", "`concat` makes one text or one list"),
            ("{{range i.s}}", "`range` wants a whole number"),
            ("{{get i.s \"a\"}}", "`get` wants a map or a list"),
            ("{{lower (default i.l i.l)}}", "what `default` gives is a list"),
            ("{{range 0 100000}}", "`range`: gives at most 10000 numbers"),
            ("{{lt \"a\" 3}}", "compares two numbers or two strings"),
        ] {
            let found = misfits(text);
            assert!(found.len() == 1 && found[0].contains(part), "{text}: {found:?}");
        }
        let template = Template::parse_text("{{ i.l }}").unwrap();
        assert_eq!((template.misfits(&sample, false).len(), template.misfits(&sample, true).len()), (0, 1));
    }

    #[test]
    fn what_may_succeed_is_left_alone() {
        for text in [
            "{{ i.l }}",
            "a {{ i.n }} {{ i.s }} {{ i.free }} {{json i.l}} {{join i.l \",\"}} {{quote i.l}} {{length i.m}}",
            "{{#each i.l}}{{lower this}}{{@index}}{{/each}}{{#each i.m}}{{/each}}{{#each i.free}}{{/each}}",
            "{{lower i.n}} {{first i.free}} {{lt i.n 3}} {{lt i.free 3}} {{eq i.n \"a\"}} {{get i.l 0}}",
            "{{lower (default i.free i.l)}}{{concat i.free i.l}}{{#with i.m}}{{a}}{{/with}}",
            "{{#if i.l}}a{{/if}}{{json (range i.n)}}",
        ] {
            assert_eq!(misfits(text), Vec::<String>::new(), "{text}");
        }
    }

    /// Whatever is not taken here, the helper itself refuses, and what it gives is of the kind that is foretold.
    #[test]
    fn helpers_agree() {
        let all = [json!("1"), json!("MQ=="), json!(1), json!(true), json!(["a", "b"]), json!({ "a": 1 })];
        for helper in helpers::names().map(|n| helpers::find(n).unwrap()) {
            let count = helper.min.max(1);
            let mut ran = false;
            for n in 0..all.len().pow(u32::try_from(count).unwrap()) {
                let values: Vec<_> =
                    (0..count).map(|i| &all[n / all.len().pow(u32::try_from(i).unwrap()) % all.len()]).collect();
                let cows: Vec<_> = values.iter().map(|v| Cow::Borrowed(*v)).collect();
                let made = (helper.run)(&Args { values: &cows, regex: None });
                let refused = (0..count).any(|i| !wants(helper.name, i).take(values[i]));
                assert!(!(refused && made.is_ok()), "{} {values:?}", helper.name);
                let known: Vec<Known> = values.iter().map(|v| Some((*v).clone())).collect();
                if let (Ok(made), Some(foretold)) = (&made, gives(helper.name, &known)) {
                    assert_eq!(kind(made), kind(&foretold), "{} {values:?}", helper.name);
                }
                ran |= made.is_ok();
            }
            assert!(ran, "{} was never content", helper.name);
        }
    }
}
