//! Evaluates expressions over a JSON context that it borrows. Strict about types: nothing is truthy, and values
//! of two types are not quietly unequal. Bounded in work and in what it makes.

use std::borrow::Cow;
use std::cell::Cell;
use std::cmp::Ordering;

use serde_json::Number;

use super::Inner;
use super::ast::{Ast, Call, Kind, Macro, MacroKind, Op};
use super::functions::Args;
use crate::Json;
use crate::template::{RenderError, compare_numbers, kind, same, walk, weight};

/// In bytes of text or items of a list, for one operation.
pub(super) const MAX_MADE: usize = 1 << 20;
/// Nodes evaluated, plus what they read of strings and lists.
const MAX_WORK: u32 = 1_000_000;

struct Scope<'s> {
    outer: Option<&'s Scope<'s>>,
    item: &'s Json,
}

pub(super) struct Evaluator<'a> {
    expr: &'a Inner,
    context: &'a Json,
    work: Cell<u32>,
}

type Value<'s> = Result<Cow<'s, Json>, RenderError>;

fn fail<T>(message: impl Into<String>) -> Result<T, RenderError> {
    Err(RenderError { message: message.into() })
}

fn owned<'s>(json: impl Into<Json>) -> Cow<'s, Json> {
    Cow::Owned(json.into())
}

impl<'a> Evaluator<'a> {
    pub(super) fn new(expr: &'a Inner, context: &'a Json) -> Self {
        Self { expr, context, work: Cell::new(0) }
    }

    pub(super) fn run(&self) -> Result<Json, RenderError> {
        self.value(&self.expr.ast, None).map(Cow::into_owned)
    }

    pub(super) fn run_bool(&self) -> Result<bool, RenderError> {
        let value = self.value(&self.expr.ast, None)?;
        match &*value {
            Json::Bool(b) => Ok(*b),
            other => fail(format!(
                "the condition `{}` is {}, not true or false{}",
                self.text(&self.expr.ast),
                kind(other),
                way_out(other)
            )),
        }
    }

    pub(super) fn text(&self, ast: &Ast) -> String {
        let text = self.expr.text.get(ast.at.start as usize..ast.at.end as usize).unwrap_or("");
        crate::cut::beginning(text, 60).into_owned()
    }

    fn spend(&self, work: usize) -> Result<(), RenderError> {
        let spent = self.work.get().saturating_add(u32::try_from(work).unwrap_or(u32::MAX));
        self.work.set(spent);
        if spent > MAX_WORK { fail("the expression takes too long") } else { Ok(()) }
    }

    fn value<'s>(&'s self, ast: &'s Ast, scope: Option<&'s Scope<'s>>) -> Value<'s> {
        self.spend(1)?;
        match &ast.kind {
            Kind::Literal(json) => Ok(Cow::Borrowed(json)),
            Kind::Path(reference) => {
                walk(self.context, &self.expr.references[*reference as usize].path).map(Cow::Borrowed)
            }
            Kind::Local(up) => {
                let mut found = scope;
                for _ in 0..*up {
                    found = found.and_then(|s| s.outer);
                }
                // The parser resolves variables against the macros that are there.
                found.map_or_else(|| fail("a variable is not in scope"), |s| Ok(Cow::Borrowed(s.item)))
            }
            Kind::Select(of, name) => {
                let of = self.value(of, scope)?;
                self.member(ast, of, name)
            }
            Kind::Index(of, index) => {
                let of = self.value(of, scope)?;
                let index = self.value(index, scope)?;
                let key = match &*index {
                    Json::String(key) => Cow::Borrowed(key.as_str()),
                    Json::Number(n) => Cow::Owned(n.to_string()),
                    other => return fail(format!("`{}` is indexed by {}", self.text(ast), kind(other))),
                };
                self.member(ast, of, &key)
            }
            Kind::List(items) => {
                let items: Result<Vec<Json>, _> = items.iter().map(|i| self.owned_value(i, scope)).collect();
                Ok(owned(items?))
            }
            Kind::Map(entries) => {
                let mut map = serde_json::Map::new();
                for (key, value) in entries {
                    let Json::String(name) = self.value(key, scope)?.into_owned() else {
                        return fail(format!("`{}` is the key of a map and no string", self.text(key)));
                    };
                    map.insert(name, self.owned_value(value, scope)?);
                }
                Ok(owned(map))
            }
            Kind::Not(of) => Ok(owned(!self.boolean("!", of, scope)?)),
            Kind::Negate(of) => match &*self.value(of, scope)? {
                Json::Number(n) => self.number(ast, n.as_i128().map(|i| -i), || n.as_f64().map(|f| -f)),
                other => fail(format!("`-` wants a number, `{}` is {}", self.text(of), kind(other))),
            },
            Kind::And(all) => {
                for operand in all {
                    if !self.boolean("&&", operand, scope)? {
                        return Ok(owned(false));
                    }
                }
                Ok(owned(true))
            }
            Kind::Or(any) => {
                for operand in any {
                    if self.boolean("||", operand, scope)? {
                        return Ok(owned(true));
                    }
                }
                Ok(owned(false))
            }
            Kind::Choice(parts) => {
                let [condition, then, otherwise] = &**parts;
                let chosen = if self.boolean("?", condition, scope)? { then } else { otherwise };
                self.value(chosen, scope)
            }
            Kind::Binary(op, left, right) => self.binary(ast, *op, left, right, scope),
            Kind::Has(path) => Ok(owned(self.has(path, scope)?)),
            Kind::Call(call) => self.call(ast, call, scope).map(Cow::Owned),
            Kind::Macro(m) => self.comprehension(m, scope).map(Cow::Owned),
        }
    }

    /// The value for keeps; copying counts as work.
    fn owned_value(&self, ast: &Ast, scope: Option<&Scope<'_>>) -> Result<Json, RenderError> {
        let value = self.value(ast, scope)?;
        if matches!(value, Cow::Borrowed(_)) {
            self.spend(weight(&value))?;
        }
        Ok(value.into_owned())
    }

    fn boolean(&self, op: &str, ast: &Ast, scope: Option<&Scope<'_>>) -> Result<bool, RenderError> {
        match &*self.value(ast, scope)? {
            Json::Bool(b) => Ok(*b),
            other => {
                fail(format!("`{op}` wants true or false, `{}` is {}{}", self.text(ast), kind(other), way_out(other)))
            }
        }
    }

    fn member<'s>(&self, ast: &Ast, of: Cow<'s, Json>, name: &str) -> Value<'s> {
        let found = match of {
            Cow::Borrowed(of) => walk(of, &[name]).map(Cow::Borrowed),
            Cow::Owned(of) => walk(&of, &[name]).map(|v| Cow::Owned(v.clone())),
        };
        found.or_else(|e| fail(format!("`{}`: {}", self.text(ast), e.message)))
    }

    /// False as soon as any part of the path is missing.
    fn has(&self, path: &Ast, scope: Option<&Scope<'_>>) -> Result<bool, RenderError> {
        match &path.kind {
            Kind::Path(reference) => Ok(walk(self.context, &self.expr.references[*reference as usize].path).is_ok()),
            Kind::Select(of, name) => Ok(self.has(of, scope)? && walk(&*self.value(of, scope)?, &[&**name]).is_ok()),
            Kind::Index(of, _) => Ok(self.has(of, scope)? && self.value(path, scope).is_ok()),
            _ => self.value(path, scope).map(|_| true),
        }
    }

    fn call(&self, ast: &Ast, call: &Call, scope: Option<&Scope<'_>>) -> Result<Json, RenderError> {
        let values: Result<Vec<_>, _> = call.args.iter().map(|a| self.value(a, scope)).collect();
        let values = values?;
        self.spend(values.iter().map(|v| weight(v)).sum())?;
        (call.function.run)(&Args { values: &values, regex: call.regex.as_ref() })
            .or_else(|why| fail(format!("`{}`: {why} (in `{}`)", call.function.name, self.text(ast))))
    }

    fn comprehension(&self, m: &Macro, outer: Option<&Scope<'_>>) -> Result<Json, RenderError> {
        let list = self.value(&m.list, outer)?;
        let keys: Vec<Json>;
        let items = match &*list {
            Json::Array(items) => items,
            // As in CEL: the items of a map are its keys.
            Json::Object(map) => {
                keys = map.keys().map(|k| Json::from(k.as_str())).collect();
                &keys
            }
            other => return fail(format!("`{}` is {}, not a list", self.text(&m.list), kind(other))),
        };
        let mut made = Vec::new();
        let mut hits = 0_usize;
        for item in items {
            let scope = Scope { outer, item };
            if m.kind == MacroKind::Map {
                made.push(self.owned_value(&m.body, Some(&scope))?);
                continue;
            }
            let holds = self.boolean(m.kind.name(), &m.body, Some(&scope))?;
            match m.kind {
                MacroKind::All if !holds => return Ok(false.into()),
                MacroKind::Exists if holds => return Ok(true.into()),
                MacroKind::ExistsOne => hits += usize::from(holds),
                MacroKind::Filter if holds => {
                    self.spend(weight(item))?;
                    made.push(item.clone());
                }
                _ => {}
            }
        }
        Ok(match m.kind {
            MacroKind::All => true.into(),
            MacroKind::Exists => false.into(),
            MacroKind::ExistsOne => (hits == 1).into(),
            MacroKind::Map | MacroKind::Filter => Json::Array(made),
        })
    }

    fn binary<'s>(
        &'s self,
        ast: &Ast,
        op: Op,
        left: &'s Ast,
        right: &'s Ast,
        scope: Option<&'s Scope<'s>>,
    ) -> Value<'s> {
        let a = self.value(left, scope)?;
        let b = self.value(right, scope)?;
        match op {
            Op::Equal | Op::NotEqual => {
                self.comparable(&a, &b, left, right)?;
                self.spend(weight(&a).min(weight(&b)))?;
                Ok(owned(same(&a, &b) == (op == Op::Equal)))
            }
            Op::Less | Op::LessEqual | Op::Greater | Op::GreaterEqual => {
                let ordering = match (&*a, &*b) {
                    (Json::Number(a), Json::Number(b)) => compare_numbers(a, b),
                    (Json::String(a), Json::String(b)) => Some(a.cmp(b)),
                    (x, y) => return self.mismatch(op, "two numbers or two strings", x, y),
                };
                Ok(owned(ordering.is_some_and(|o| match op {
                    Op::Less => o == Ordering::Less,
                    Op::LessEqual => o != Ordering::Greater,
                    Op::Greater => o == Ordering::Greater,
                    _ => o != Ordering::Less,
                })))
            }
            Op::In => match (&*a, &*b) {
                (item, Json::Array(list)) => {
                    self.spend(list.iter().map(weight).sum())?;
                    Ok(owned(list.iter().any(|i| same(i, item))))
                }
                (Json::String(key), Json::Object(map)) => Ok(owned(map.contains_key(key))),
                (Json::String(_), Json::String(_)) => self.in_a_string(left, right),
                (x, y) => self.mismatch(op, "a list, or a key and a map", x, y),
            },
            Op::Add | Op::Subtract | Op::Multiply | Op::Divide | Op::Remainder => match (&*a, &*b) {
                (Json::Number(a), Json::Number(b)) => self.arithmetic(ast, op, a, b),
                (Json::String(a), Json::String(b)) if op == Op::Add => {
                    self.spend((a.len() + b.len()) / 64)?;
                    if a.len() + b.len() > MAX_MADE {
                        return fail(format!("`{}` makes too long a text", self.text(ast)));
                    }
                    Ok(owned(format!("{a}{b}")))
                }
                (Json::Array(a), Json::Array(b)) if op == Op::Add => {
                    self.spend(a.iter().chain(b).map(weight).sum())?;
                    Ok(owned(a.iter().chain(b).cloned().collect::<Json>()))
                }
                (x, y) if op == Op::Add => self.mismatch(op, "two numbers, two strings or two lists", x, y),
                (x, y) => self.mismatch(op, "two numbers", x, y),
            },
        }
    }

    pub(super) fn in_a_string<T>(&self, left: &Ast, right: &Ast) -> Result<T, RenderError> {
        let (text, part) = (self.text(right), self.text(left));
        fail(format!("`in` wants a list or a map, `{text}` is a string: write `{text}.contains({part})`"))
    }

    pub(super) fn mismatch<T>(&self, op: Op, wants: &str, x: &Json, y: &Json) -> Result<T, RenderError> {
        let way_out = match (x, y) {
            (Json::String(_), Json::Number(_)) | (Json::Number(_), Json::String(_)) => {
                ": convert one with string(…), int(…) or double(…)"
            }
            _ => "",
        };
        fail(format!(
            "in `{}`: `{}` wants {wants}, got {} and {}{way_out}",
            self.text(&self.expr.ast),
            op.text(),
            kind(x),
            kind(y)
        ))
    }

    /// Two types are never equal, so comparing them is a mistake; `null` may be compared with anything.
    pub(super) fn comparable(&self, a: &Json, b: &Json, left: &Ast, right: &Ast) -> Result<(), RenderError> {
        let alike = std::mem::discriminant(a) == std::mem::discriminant(b);
        if alike || a.is_null() || b.is_null() {
            return Ok(());
        }
        let way_out = match (a, b) {
            (Json::Bool(_), Json::String(_)) | (Json::String(_), Json::Bool(_)) => {
                ": write true or false without quotes"
            }
            (Json::Number(_), Json::String(_)) | (Json::String(_), Json::Number(_)) => {
                ": convert one with string(…), int(…) or double(…)"
            }
            _ => "",
        };
        fail(format!(
            "`{}` is {} and `{}` is {}; they can never be equal{way_out}",
            self.text(left),
            kind(a),
            self.text(right),
            kind(b)
        ))
    }

    fn arithmetic<'s>(&self, ast: &Ast, op: Op, a: &Number, b: &Number) -> Value<'s> {
        if let (Some(x), Some(y)) = (a.as_i128(), b.as_i128()) {
            if y == 0 && matches!(op, Op::Divide | Op::Remainder) {
                return fail(format!("`{}` divides by zero", self.text(ast)));
            }
            // Both are within 64 bits, so nothing overflows 128.
            let made = match op {
                Op::Add => x + y,
                Op::Subtract => x - y,
                Op::Multiply => x * y,
                Op::Divide => x / y,
                _ => x % y,
            };
            return self.number(ast, Some(made), || None);
        }
        self.number(ast, None, || {
            let (x, y) = (a.as_f64()?, b.as_f64()?);
            Some(match op {
                Op::Add => x + y,
                Op::Subtract => x - y,
                Op::Multiply => x * y,
                Op::Divide => x / y,
                _ => x % y,
            })
        })
    }

    fn number<'s>(&self, ast: &Ast, integer: Option<i128>, float: impl Fn() -> Option<f64>) -> Value<'s> {
        let number = match integer {
            Some(i) => i64::try_from(i).ok().map(Number::from).or_else(|| u64::try_from(i).ok().map(Number::from)),
            None => float().and_then(Number::from_f64),
        };
        match number {
            Some(n) => Ok(owned(Json::Number(n))),
            None => fail(format!("`{}` gives a number that does not fit in 64 bits", self.text(ast))),
        }
    }
}

/// What to write instead of a value that other languages take for true or false.
pub(super) fn way_out(value: &Json) -> &'static str {
    match value {
        Json::String(_) => ": compare it, as in x == \"yes\" or x != \"\"",
        Json::Number(_) => ": compare it, as in x > 0",
        Json::Array(_) | Json::Object(_) => ": compare its size, as in size(x) > 0",
        Json::Null => ": compare it, as in x != null",
        Json::Bool(_) => "",
    }
}
