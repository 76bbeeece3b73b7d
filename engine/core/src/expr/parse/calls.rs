//! Calls in an expression: functions, `has`, and the macros over lists.

use std::ops::Range;

use super::{Parse, Parser, ast, depths, fail, place};
use crate::Json;
use crate::diagnostic::Code;
use crate::expr::ast::{Ast, Call, Kind, Macro, MacroKind};
use crate::expr::functions;
use crate::expr::lex::{Token, syntax};
use crate::template::problem::{Problem, nearest};
use crate::template::regex;

impl Parser<'_> {
    /// At the opening parenthesis.
    pub(super) fn call(&mut self, name: &str, at: Range<usize>, receiver: Option<Ast>, start: usize) -> Parse<Ast> {
        let opened = self.step();
        let kind = MacroKind::ALL.iter().find(|(n, _)| *n == name).map(|(_, kind)| *kind);
        match (kind, receiver) {
            (Some(kind), Some(list)) => self.comprehension(kind, list, start, opened),
            (_, None) if name == "has" => self.has(start, opened),
            (_, receiver) => {
                let mut args: Vec<Ast> = receiver.into_iter().collect();
                args.extend(self.items(")", opened)?);
                self.function(name, at, args, start)
            }
        }
    }

    fn has(&mut self, start: usize, opened: Range<usize>) -> Parse<Ast> {
        let before = self.references.len();
        let path = self.choice()?;
        let end = self.close(")", opened)?.end;
        match path.kind {
            Kind::Path(_) => self.references[before..].iter_mut().for_each(|r| r.optional = true),
            Kind::Select(..) | Kind::Index(..) | Kind::Local(_) => {}
            _ => {
                return fail(syntax(place(&path), "`has` takes a path", "not a path").help("write has(inputs.name)"));
            }
        }
        let below = [path.depth];
        ast(Kind::Has(Box::new(path)), start..end, &below)
    }

    fn comprehension(&mut self, kind: MacroKind, list: Ast, start: usize, opened: Range<usize>) -> Parse<Ast> {
        let Token::Name(variable) = self.word().token.clone() else {
            return fail(
                syntax(self.at(), "expected the name of a variable", "expected a name")
                    .help("write list.all(x, x > 0)"),
            );
        };
        self.step();
        if !self.take(",") {
            return fail(
                syntax(self.at(), "expected `,` after the variable", "expected `,`").help("write list.all(x, x > 0)"),
            );
        }
        self.locals.push(variable);
        let body = self.choice();
        self.locals.pop();
        let body = body?;
        let end = self.close(")", opened)?.end;
        let below = [list.depth, body.depth];
        ast(Kind::Macro(Box::new(Macro { kind, list, body })), start..end, &below)
    }

    fn function(&mut self, name: &str, at: Range<usize>, args: Vec<Ast>, start: usize) -> Parse<Ast> {
        let end = self.words[self.next - 1].at.end;
        let Some(function) = functions::find(name) else {
            self.problems.push(unknown_function(name, at));
            return ast(Kind::Literal(Json::Null), start..end, &[]);
        };
        if args.len() < function.min || args.len() > function.max {
            self.problems.push(
                syntax(at.clone(), format!("`{name}` cannot take {} arguments", args.len()), "here")
                    .help(format!("write {}", function.usage)),
            );
        }
        let pattern = args.get(1).filter(|_| function.regex_argument);
        let regex = match pattern.map(|a| (&a.kind, place(a))) {
            Some((Kind::Literal(Json::String(pattern)), pattern_at)) => match regex(pattern) {
                Ok(regex) => Some(regex),
                Err(why) => {
                    self.problems.push(Problem::new(Code::BadRegex, pattern_at, "the pattern cannot be read", why));
                    None
                }
            },
            _ => None,
        };
        let below = depths(&args);
        ast(Kind::Call(Box::new(Call { function, args, regex })), start..end, &below)
    }
}

fn unknown_function(name: &str, at: Range<usize>) -> Problem {
    let problem = Problem::new(Code::UnknownFunction, at, format!("there is no function `{name}`"), "unknown function");
    let macros = MacroKind::ALL.iter().map(|(name, _)| *name);
    let known: Vec<&str> = functions::names().chain(["has"]).chain(macros).collect();
    match nearest(name, known.iter().copied()) {
        Some(near) if near == name => problem.help(format!("write list.{name}(x, …)")),
        Some(near) => problem.help(format!("did you mean `{near}`?")),
        None => problem.help(format!("functions: {}", known.join(", "))),
    }
}
