//! What is certain of an expression's types before it is evaluated: where evaluation, once it comes there, can only fail.
//! A type is a value that stands for all of its kind; None is one that is not known, and fits everywhere. Says nothing of
//! values.

use serde_json::json;

use super::ast::{Ast, Call, Kind, Macro, MacroKind, Op};
use super::eval::{Evaluator, way_out};
use super::{Expr, Inner};
use crate::Json;
use crate::span::Span;
use crate::template::{Reference, RenderError, kind};

/// An operation that cannot succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// As evaluation would say it.
    pub message: String,
    /// Of the reference whose type does not fit, or of the whole expression.
    pub span: Span,
}

impl Expr {
    /// Everything that does not fit. `sample` gives a value of a reference's type, where that is known for sure;
    /// `condition`: the expression as a whole must be true or false.
    pub fn misfits(&self, sample: &dyn Fn(&Reference) -> Option<Json>, condition: bool) -> Vec<Misfit> {
        let (expr, context) = (&*self.inner, Json::Null);
        let mut types = Types { expr, words: Evaluator::new(expr, &context), sample, found: Vec::new() };
        let whole = types.of(&expr.ast);
        if condition && let Some(not_bool) = whole.filter(|t| !t.is_boolean()) {
            let what = format!("the condition `{}` is {}, not true or false", expr.text, kind(&not_bool));
            types.add(&expr.ast, format!("{what}{}", way_out(&not_bool)));
        }
        types.found
    }
}

struct Types<'a> {
    expr: &'a Inner,
    words: Evaluator<'a>,
    sample: &'a dyn Fn(&Reference) -> Option<Json>,
    found: Vec<Misfit>,
}

type Known = Option<Json>;

const TEXT: &str = "";

impl Types<'_> {
    fn of(&mut self, ast: &Ast) -> Known {
        match &ast.kind {
            // `null` may be compared with anything.
            Kind::Literal(json) => Some(json.clone()).filter(|j| !j.is_null()),
            Kind::Path(reference) => (self.sample)(&self.expr.references[*reference as usize]),
            Kind::Local(_) => None,
            Kind::Select(of, name) => {
                let whole = self.of(of);
                self.part(of, whole.as_ref(), Some(&json!(name)));
                None
            }
            Kind::Index(of, index) => {
                let (whole, part) = (self.of(of), self.of(index));
                let written = if let Kind::Literal(json) = &index.kind { Some(json) } else { part.as_ref() };
                self.part(of, whole.as_ref(), written);
                None
            }
            Kind::List(items) => {
                for item in items {
                    self.of(item);
                }
                Some(json!([]))
            }
            Kind::Map(entries) => {
                for (_, value) in entries {
                    self.of(value);
                }
                Some(json!({}))
            }
            Kind::Not(of) => Some(self.boolean("!", of)),
            Kind::Negate(of) => {
                if let Some(other) = self.of(of).filter(|t| !t.is_number()) {
                    self.add(of, format!("`-` wants a number, `{}` is {}", self.words.text(of), kind(&other)));
                }
                Some(json!(0.5))
            }
            Kind::And(all) | Kind::Or(all) => {
                let op = if matches!(ast.kind, Kind::And(_)) { "&&" } else { "||" };
                for operand in all {
                    self.boolean(op, operand);
                }
                Some(json!(true))
            }
            Kind::Choice(parts) => {
                let [condition, then, otherwise] = &**parts;
                self.boolean("?", condition);
                let (then, otherwise) = (self.of(then), self.of(otherwise));
                then.filter(|t| otherwise.as_ref().is_some_and(|o| alike(t, o)))
            }
            Kind::Binary(op, left, right) => self.binary(ast, *op, left, right),
            // What is not there makes it false, and no mistake.
            Kind::Has(_) => Some(json!(true)),
            Kind::Call(call) => Some(self.call(call)),
            Kind::Macro(m) => Some(self.comprehension(m)),
        }
    }

    fn add(&mut self, at: &Ast, message: String) {
        let span = first_reference(at).map_or(self.expr.span, |r| self.expr.references[r as usize].span);
        self.found.push(Misfit { message, span });
    }

    /// What has no parts, and a list that is asked for a part by its name.
    fn part(&mut self, of: &Ast, whole: Option<&Json>, part: Option<&Json>) {
        let text = self.words.text(of);
        match whole {
            None | Some(Json::Object(_)) => {}
            Some(Json::Array(_)) => {
                if let Some(name) = part.and_then(Json::as_str).filter(|n| !n.is_empty() && n.parse::<usize>().is_err())
                {
                    self.add(
                        of,
                        format!("`{text}` is a list: it has items, which are counted from 0, but no `{name}`"),
                    );
                }
            }
            Some(other) => self.add(of, format!("`{text}` is {}, and has no parts", kind(other))),
        }
    }

    fn add_failure(&mut self, at: &Ast, failure: Result<(), RenderError>) {
        if let Err(why) = failure {
            self.add(at, why.message);
        }
    }

    fn boolean(&mut self, op: &str, ast: &Ast) -> Json {
        if let Some(other) = self.of(ast).filter(|t| !t.is_boolean()) {
            let what = format!("`{op}` wants true or false, `{}` is {}", self.words.text(ast), kind(&other));
            self.add(ast, format!("{what}{}", way_out(&other)));
        }
        json!(true)
    }

    fn binary(&mut self, ast: &Ast, op: Op, left: &Ast, right: &Ast) -> Known {
        let both = (self.of(left), self.of(right));
        let (Some(a), Some(b)) = &both else {
            return match op {
                Op::Add => None,
                Op::Subtract | Op::Multiply | Op::Divide | Op::Remainder => Some(json!(0.5)),
                _ => Some(json!(true)),
            };
        };
        let numbers = a.is_number() && b.is_number();
        let strings = a.is_string() && b.is_string();
        match op {
            Op::Equal | Op::NotEqual => {
                let failure = self.words.comparable(a, b, left, right);
                self.add_failure(ast, failure);
                Some(json!(true))
            }
            Op::Less | Op::LessEqual | Op::Greater | Op::GreaterEqual => {
                if !numbers && !strings {
                    let failure = self.words.mismatch(op, "two numbers or two strings", a, b);
                    self.add_failure(ast, failure);
                }
                Some(json!(true))
            }
            Op::In => {
                if strings {
                    let failure = self.words.in_a_string(left, right);
                    self.add_failure(ast, failure);
                } else if !(b.is_array() || a.is_string() && b.is_object()) {
                    let failure = self.words.mismatch(op, "a list, or a key and a map", a, b);
                    self.add_failure(ast, failure);
                }
                Some(json!(true))
            }
            Op::Add if strings || (a.is_array() && b.is_array()) => both.0,
            Op::Add | Op::Subtract | Op::Multiply | Op::Divide | Op::Remainder => {
                if !numbers {
                    let wants = if op == Op::Add { "two numbers, two strings or two lists" } else { "two numbers" };
                    let failure = self.words.mismatch(op, wants, a, b);
                    self.add_failure(ast, failure);
                }
                numbers.then(|| json!(0.5))
            }
        }
    }

    fn call(&mut self, call: &Call) -> Json {
        let (name, gives) = (call.function.name, call.function.gives);
        for (at, arg) in call.args.iter().enumerate() {
            let wants = call.function.wants[at.min(call.function.wants.len() - 1)];
            if let Some(other) = self.of(arg).filter(|t| !wants.contains(&json_type(t))) {
                self.add(arg, format!("`{name}` cannot take `{}`, which is {}", self.words.text(arg), kind(&other)));
            }
        }
        match gives {
            Type::Bool => json!(true),
            Type::Number => json!(0.5),
            Type::String => json!(TEXT),
            Type::List => json!([]),
            Type::Map => json!({}),
        }
    }

    fn comprehension(&mut self, m: &Macro) -> Json {
        if let Some(other) = self.of(&m.list).filter(|t| !t.is_array() && !t.is_object()) {
            self.add(&m.list, format!("`{}` is {}, not a list", self.words.text(&m.list), kind(&other)));
        }
        if m.kind == MacroKind::Map {
            self.of(&m.body);
        } else {
            self.boolean(m.kind.name(), &m.body);
        }
        if matches!(m.kind, MacroKind::Map | MacroKind::Filter) { json!([]) } else { json!(true) }
    }
}

/// What functions want and give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Bool,
    Number,
    String,
    List,
    Map,
}

fn json_type(json: &Json) -> Type {
    match json {
        // Nothing that is known is null.
        Json::Bool(_) | Json::Null => Type::Bool,
        Json::Number(_) => Type::Number,
        Json::String(_) => Type::String,
        Json::Array(_) => Type::List,
        Json::Object(_) => Type::Map,
    }
}

fn alike(a: &Json, b: &Json) -> bool {
    json_type(a) == json_type(b)
}

/// The first reference under a node, by its index.
fn first_reference(ast: &Ast) -> Option<u32> {
    match &ast.kind {
        Kind::Path(reference) => Some(*reference),
        Kind::Literal(_) | Kind::Local(_) => None,
        Kind::Select(of, _) | Kind::Not(of) | Kind::Negate(of) | Kind::Has(of) => first_reference(of),
        Kind::Index(a, b) | Kind::Binary(_, a, b) => first_reference(a).or_else(|| first_reference(b)),
        Kind::List(all) | Kind::And(all) | Kind::Or(all) => all.iter().find_map(first_reference),
        Kind::Map(entries) => entries.iter().find_map(|(k, v)| first_reference(k).or_else(|| first_reference(v))),
        Kind::Choice(parts) => parts.iter().find_map(first_reference),
        Kind::Call(call) => call.args.iter().find_map(first_reference),
        Kind::Macro(m) => first_reference(&m.list).or_else(|| first_reference(&m.body)),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn sample(r: &Reference) -> Option<Json> {
        match r.path.get(1).map(String::as_str) {
            Some("n") => Some(json!(0)),
            Some("host") => Some(json!("")),
            Some("yes") => Some(json!(false)),
            Some("list") => Some(json!([])),
            Some("map") => Some(json!({})),
            _ => None,
        }
        .filter(|_| r.path.len() == 2)
    }

    fn misfits(text: &str) -> Vec<String> {
        let found = Expr::parse_text(text).unwrap().misfits(&sample, true);
        found.into_iter().map(|m| m.message).collect()
    }

    #[test]
    fn what_can_only_fail_is_found() {
        for (text, part) in [
            ("i.n == '3'", "can never be equal: convert one"),
            ("i.yes && i.n != '3'", "can never be equal"),
            ("i.host", "the condition `i.host` is a string, not true or false: compare it"),
            ("i.n + 1", "is a number, not true or false"),
            ("!i.list", "`!` wants true or false"),
            ("i.yes || i.host", "`||` wants true or false, `i.host` is a string"),
            ("i.host > 3", "wants two numbers or two strings"),
            ("i.list > 3", "wants two numbers or two strings"),
            ("'a' in i.host", "write `i.host.contains('a')`"),
            ("3 in i.n", "wants a list, or a key and a map"),
            ("i.host + 1 == i.free", "wants two numbers, two strings or two lists"),
            ("i.n.startsWith('a')", "`startsWith` cannot take `i.n`, which is a whole number"),
            ("size(i.n) > 1", "`size` cannot take `i.n`"),
            ("i.host.exists(x, x == 1)", "`i.host` is a string, not a list"),
            ("i.list.all(x, i.host)", "`all` wants true or false"),
            ("int(i.host) == '3'", "can never be equal"),
            ("(i.free ? i.n : 2) == 'a'", "can never be equal"),
            ("i.host.trim()[0] == 'a'", "`i.host.trim()` is a string, and has no parts"),
            ("i.list.filter(x, x == 1)['a'] == 3", "is a list: it has items, which are counted from 0, but no `a`"),
            ("i.host.split(',').a == 3", "but no `a`"),
        ] {
            let found = misfits(text);
            assert!(found.len() == 1 && found[0].contains(part), "{text}: {found:?}");
        }
    }

    #[test]
    fn what_may_succeed_is_left_alone() {
        for text in [
            "i.n == 3 && i.n == 3.5 && i.host == 'a' && i.yes",
            "i.free == 3 || i.free == 'a' || i.free",
            "i.host == null || i.n != null",
            "i.map.key == 'a' && i.map['key'] == 3 && i.list[i.n] == 3 && i.list[i.host] == 3 && i.free['a'][0] == 3",
            "has(i.map.a) && i.list[0] == 3",
            "(i.yes ? i.n : i.host) == 3",
            "string(i.n) == '3' && int(i.host) == 3 && double(i.n) > 1",
            "i.n in i.list && i.host in i.map && size(i.host) > 1 && size(i.map) > 1",
            "i.list.map(x, x + 1) == [2] && i.list.filter(x, x == 'a').exists(x, x == 3)",
            "i.list.join(',').split(',').size() == i.n + 1 && type(i.host) == 'string'",
            "bool(i.host) && i.host.matches('^a') && i.host + 'a' == 'b'",
        ] {
            assert_eq!(misfits(text), Vec::<String>::new(), "{text}");
        }
    }

    /// Whatever is found is what evaluation says, too.
    #[test]
    fn evaluation_fails_where_something_is_found() {
        let context = json!({ "i": { "n": 3, "host": "a", "yes": true, "list": [1], "map": { "a": 1 }, "free": 1 } });
        for text in
            ["i.n == '3'", "i.host", "!i.list", "i.host > 3", "'a' in i.host", "size(i.n) > 1", "i.list.all(x, i.host)"]
        {
            assert!(!misfits(text).is_empty(), "{text}");
            Expr::parse_text(text).unwrap().eval_bool(&context).unwrap_err();
        }
    }
}
