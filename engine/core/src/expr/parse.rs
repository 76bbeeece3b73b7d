//! Words of an expression to a tree, by precedence climbing, with references listed on the way. Every mistake
//! has its place and, where people make it often, the way out.

mod calls;

use std::ops::Range;

use super::ast::{Ast, Kind, Op};
use super::lex::{Token, Word, lex, syntax};
use crate::Json;
use crate::diagnostic::Code;
use crate::template::ROOTS;
use crate::template::problem::Problem;

/// In bytes.
const MAX_TEXT: usize = 16 * 1024;
const MAX_DEPTH: u16 = 64;

#[derive(Debug)]
pub(super) struct RawReference {
    pub(super) path: Vec<String>,
    pub(super) at: Range<usize>,
    pub(super) optional: bool,
}

#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) ast: Ast,
    pub(super) references: Vec<RawReference>,
}

pub(super) fn parse(text: &str) -> Result<Parsed, Vec<Problem>> {
    if text.len() > MAX_TEXT {
        return Err(vec![Problem::new(
            Code::TemplateTooLarge,
            0..0,
            format!("the expression has {} bytes; at most {MAX_TEXT} are allowed", text.len()),
            "this expression",
        )]);
    }
    let words = lex(text).map_err(|p| vec![*p])?;
    let mut parser =
        Parser { text, words, next: 0, depth: 0, locals: Vec::new(), references: Vec::new(), problems: Vec::new() };
    let ast = parser.whole();
    match ast {
        Ok(ast) if parser.problems.is_empty() => Ok(Parsed { ast, references: parser.references }),
        Ok(_) => Err(parser.problems),
        Err(problem) => {
            parser.problems.push(*problem);
            Err(parser.problems)
        }
    }
}

struct Parser<'t> {
    text: &'t str,
    words: Vec<Word>,
    next: usize,
    depth: u16,
    /// Variables of the macros around.
    locals: Vec<String>,
    references: Vec<RawReference>,
    /// Those after which parsing can go on.
    problems: Vec<Problem>,
}

type Parse<T> = Result<T, Box<Problem>>;

/// How tightly an operator binds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Or,
    And,
    Relation,
    Sum,
    Product,
    Unary,
}

impl Level {
    fn tighter(self) -> Self {
        match self {
            Level::Or => Level::And,
            Level::And => Level::Relation,
            Level::Relation => Level::Sum,
            Level::Sum => Level::Product,
            Level::Product | Level::Unary => Level::Unary,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Infix {
    Or,
    And,
    Op(Op),
}

/// What a chain such as `a.b["c"][0]` is so far.
enum Chain {
    /// From a name that is in scope at the root.
    Path(Vec<String>),
    Value(Ast),
}

fn fail<T>(problem: Problem) -> Parse<T> {
    Err(Box::new(problem))
}

fn too_deep<T>(at: Range<usize>) -> Parse<T> {
    let message = format!("the expression is nested more than {MAX_DEPTH} deep");
    fail(Problem::new(Code::TemplateTooLarge, at, message, "here"))
}

fn ast(kind: Kind, at: Range<usize>, below: &[u16]) -> Parse<Ast> {
    let depth = below.iter().max().map_or(1, |d| d + 1);
    if depth > MAX_DEPTH {
        return too_deep(at);
    }
    Ok(Ast { kind, at: at.start as u32..at.end as u32, depth })
}

/// `a && b && c` is one node, however long.
fn extend(left: Ast, right: Ast, at: Range<usize>, kind: fn(Vec<Ast>) -> Kind) -> Parse<Ast> {
    let below = [left.depth, right.depth];
    let same = std::mem::discriminant(&left.kind) == std::mem::discriminant(&kind(Vec::new()));
    match (same, left) {
        (true, Ast { kind: Kind::And(mut all) | Kind::Or(mut all), depth, .. }) => {
            all.push(right);
            ast(kind(all), at, &[depth - 1, below[1]])
        }
        (_, left) => ast(kind(vec![left, right]), at, &below),
    }
}

fn place(ast: &Ast) -> Range<usize> {
    ast.at.start as usize..ast.at.end as usize
}

fn depths(asts: &[Ast]) -> Vec<u16> {
    asts.iter().map(|a| a.depth).collect()
}

impl Parser<'_> {
    fn word(&self) -> &Word {
        // The last word is always `End`, and nothing steps over it.
        &self.words[self.next.min(self.words.len() - 1)]
    }

    fn at(&self) -> Range<usize> {
        self.word().at.clone()
    }

    fn step(&mut self) -> Range<usize> {
        let at = self.at();
        if self.word().token != Token::End {
            self.next += 1;
        }
        at
    }

    fn is(&self, op: &str) -> bool {
        matches!(self.word().token, Token::Op(o) if o == op)
    }

    fn take(&mut self, op: &str) -> bool {
        let is = self.is(op);
        if is {
            self.step();
        }
        is
    }

    fn close(&mut self, op: &str, opened: Range<usize>) -> Parse<Range<usize>> {
        if self.is(op) {
            return Ok(self.step());
        }
        let found = self.describe();
        fail(
            self.hint(
                syntax(self.at(), format!("expected `{op}`, found {found}"), format!("expected `{op}`"))
                    .also(opened, "opened here"),
            ),
        )
    }

    fn describe(&self) -> String {
        match &self.word().token {
            Token::End => "the end of the expression".to_owned(),
            Token::Str(_) => "a string".to_owned(),
            _ => format!("`{}`", &self.text[self.at()]),
        }
    }

    /// Help for what people write out of habit from other languages.
    fn hint(&self, problem: Problem) -> Problem {
        match &self.word().token {
            Token::Name(name) => match name.as_str() {
                "and" => problem.help("write `&&`"),
                "or" => problem.help("write `||`"),
                "not" => problem.help("write `!`"),
                "is" => problem.help("write `==`"),
                _ => problem,
            },
            _ => problem,
        }
    }

    fn whole(&mut self) -> Parse<Ast> {
        if self.word().token == Token::End {
            return fail(
                syntax(0..self.text.len(), "the expression is empty", "here")
                    .help("write a condition, such as inputs.count > 0"),
            );
        }
        let ast = self.choice()?;
        if self.word().token != Token::End {
            let found = self.describe();
            return fail(self.hint(syntax(
                self.at(),
                format!("expected an operator or the end of the expression, found {found}"),
                "not expected here",
            )));
        }
        Ok(ast)
    }

    fn enter(&mut self) -> Parse<()> {
        self.depth += 1;
        if self.depth > MAX_DEPTH { too_deep(self.at()) } else { Ok(()) }
    }

    /// `a ? b : c`, right to left.
    fn choice(&mut self) -> Parse<Ast> {
        self.enter()?;
        let condition = self.operators(Level::Or)?;
        let opened = self.at();
        let made = if self.take("?") {
            let then = self.choice()?;
            self.close(":", opened)?;
            let otherwise = self.choice()?;
            let at = condition.at.start as usize..otherwise.at.end as usize;
            let below = [condition.depth, then.depth, otherwise.depth];
            ast(Kind::Choice(Box::new([condition, then, otherwise])), at, &below)?
        } else {
            condition
        };
        self.depth -= 1;
        Ok(made)
    }

    fn infix(&self) -> Option<(Infix, Level)> {
        let Token::Op(op) = self.word().token else {
            let is_in = matches!(&self.word().token, Token::Name(name) if name == "in");
            return is_in.then_some((Infix::Op(Op::In), Level::Relation));
        };
        let (op, level) = match op {
            "||" => return Some((Infix::Or, Level::Or)),
            "&&" => return Some((Infix::And, Level::And)),
            "==" => (Op::Equal, Level::Relation),
            "!=" => (Op::NotEqual, Level::Relation),
            "<" => (Op::Less, Level::Relation),
            "<=" => (Op::LessEqual, Level::Relation),
            ">" => (Op::Greater, Level::Relation),
            ">=" => (Op::GreaterEqual, Level::Relation),
            "+" => (Op::Add, Level::Sum),
            "-" => (Op::Subtract, Level::Sum),
            "*" => (Op::Multiply, Level::Product),
            "/" => (Op::Divide, Level::Product),
            "%" => (Op::Remainder, Level::Product),
            _ => return None,
        };
        Some((Infix::Op(op), level))
    }

    /// Operands and the operators between them that bind at least as tightly as `min`, left to right.
    fn operators(&mut self, min: Level) -> Parse<Ast> {
        let mut left = self.unary()?;
        while let Some((infix, level)) = self.infix().filter(|(_, level)| *level >= min) {
            let sign = self.step();
            if infix == Infix::Op(Op::Subtract) {
                self.check_dash(&left, &sign)?;
            }
            let right = self.operators(level.tighter())?;
            let at = left.at.start as usize..right.at.end as usize;
            let below = [left.depth, right.depth];
            left = match infix {
                Infix::Or => extend(left, right, at, Kind::Or)?,
                Infix::And => extend(left, right, at, Kind::And)?,
                Infix::Op(op) => ast(Kind::Binary(op, Box::new(left), Box::new(right)), at, &below)?,
            };
            if level == Level::Relation && self.infix().is_some_and(|(_, level)| level == Level::Relation) {
                return fail(
                    syntax(self.at(), "comparisons cannot be chained", "a second comparison")
                        .help("write a < b && b < c"),
                );
            }
        }
        Ok(left)
    }

    /// `inputs.my-key`: a dash without blanks between a path and a name that is not in scope is a mistake.
    fn check_dash(&self, left: &Ast, sign: &Range<usize>) -> Parse<()> {
        let tight = left.at.end as usize == sign.start && self.at().start == sign.end;
        let (Kind::Path(_), Token::Name(name)) = (&left.kind, &self.word().token) else { return Ok(()) };
        if !tight || ROOTS.contains(&name.as_str()) || self.locals.contains(name) {
            return Ok(());
        }
        let path = &self.text[place(left)];
        let at = left.at.start as usize..self.at().end;
        let problem = syntax(at, format!("`{path}-{name}` reads as `{path}` minus `{name}`"), "a subtraction");
        fail(match path.rsplit_once('.') {
            Some((parent, last)) => problem.help(format!(
                "for one name with a dash write {parent}[\"{last}-{name}\"]; to subtract, put blanks around -"
            )),
            None => problem.help("to subtract, put blanks around -"),
        })
    }

    fn unary(&mut self) -> Parse<Ast> {
        if !self.is("!") && !self.is("-") {
            return self.postfix();
        }
        self.enter()?;
        let not = self.is("!");
        let start = self.step().start;
        let operand = self.unary()?;
        self.depth -= 1;
        let (at, below) = (start..operand.at.end as usize, [operand.depth]);
        if let (false, Kind::Literal(Json::Number(n))) = (not, &operand.kind) {
            let negated = match n.as_i64() {
                Some(i) => i.checked_neg().map(Json::from),
                None => n.as_f64().map(|f| Json::from(-f)),
            };
            if let Some(json) = negated {
                return ast(Kind::Literal(json), at, &below);
            }
        }
        let operand = Box::new(operand);
        ast(if not { Kind::Not(operand) } else { Kind::Negate(operand) }, at, &below)
    }

    /// A primary with its members, indexes and calls.
    fn postfix(&mut self) -> Parse<Ast> {
        let start = self.at().start;
        let mut chain = self.primary()?;
        let mut end = self.words[self.next.saturating_sub(1)].at.end;
        loop {
            if self.take(".") {
                let Token::Name(name) = self.word().token.clone() else {
                    let found = self.describe();
                    return fail(
                        syntax(self.at(), format!("expected a name after `.`, found {found}"), "expected a name")
                            .help("a name with other characters stands in brackets: inputs[\"my key\"]"),
                    );
                };
                let name_at = self.step();
                end = name_at.end;
                if self.is("(") {
                    let receiver = self.finish(chain, start..name_at.start - 1)?;
                    chain = Chain::Value(self.call(&name, name_at, Some(receiver), start)?);
                    end = self.words[self.next - 1].at.end;
                    continue;
                }
                chain = match chain {
                    Chain::Path(mut path) => {
                        path.push(name);
                        Chain::Path(path)
                    }
                    Chain::Value(value) => {
                        let below = [value.depth];
                        Chain::Value(ast(Kind::Select(Box::new(value), name.into()), start..end, &below)?)
                    }
                };
            } else if self.is("[") {
                let opened = self.step();
                let index = self.choice()?;
                let index_end = end;
                end = self.close("]", opened)?.end;
                chain = match (chain, &index.kind) {
                    (Chain::Path(mut path), Kind::Literal(Json::String(key))) => {
                        path.push(key.clone());
                        Chain::Path(path)
                    }
                    (Chain::Path(mut path), Kind::Literal(Json::Number(n))) if n.is_u64() => {
                        path.push(n.to_string());
                        Chain::Path(path)
                    }
                    (chain, _) => {
                        let value = self.finish(chain, start..index_end)?;
                        let below = [value.depth, index.depth];
                        Chain::Value(ast(Kind::Index(Box::new(value), Box::new(index)), start..end, &below)?)
                    }
                };
            } else {
                return self.finish(chain, start..end);
            }
        }
    }

    fn finish(&mut self, chain: Chain, at: Range<usize>) -> Parse<Ast> {
        match chain {
            Chain::Value(value) => Ok(value),
            Chain::Path(path) => {
                let index = self.references.len() as u32;
                self.references.push(RawReference { path, at: at.clone(), optional: false });
                ast(Kind::Path(index), at, &[])
            }
        }
    }

    fn primary(&mut self) -> Parse<Chain> {
        let word = self.word().clone();
        let literal = |json: Json| ast(Kind::Literal(json), word.at.clone(), &[]).map(Chain::Value);
        match word.token {
            Token::Int(n) => {
                self.step();
                literal(n.into())
            }
            Token::Float(n) => {
                self.step();
                literal(n.into())
            }
            Token::Str(ref s) => {
                let json = Json::from(s.as_str());
                self.step();
                literal(json)
            }
            Token::Name(name) => {
                self.step();
                self.name(&name, word.at)
            }
            Token::Op("(") => {
                let opened = self.step();
                let inner = self.choice()?;
                self.close(")", opened)?;
                Ok(Chain::Value(inner))
            }
            Token::Op("[") => self.list().map(Chain::Value),
            Token::Op("{") => self.map().map(Chain::Value),
            Token::Op(_) | Token::End => {
                let found = self.describe();
                let problem = syntax(word.at, format!("expected a value, found {found}"), "expected a value");
                fail(problem)
            }
        }
    }

    fn name(&mut self, name: &str, at: Range<usize>) -> Parse<Chain> {
        let literal = |json: Json| ast(Kind::Literal(json), at.clone(), &[]).map(Chain::Value);
        match name {
            "true" => return literal(true.into()),
            "false" => return literal(false.into()),
            "null" => return literal(Json::Null),
            _ => {}
        }
        if self.is("(") {
            return self.call(name, at.clone(), None, at.start).map(Chain::Value);
        }
        if let Some(up) = self.locals.iter().rev().position(|l| l == name) {
            return ast(Kind::Local(up as u16), at, &[]).map(Chain::Value);
        }
        let meant = match name {
            "True" | "TRUE" => Some("true"),
            "False" | "FALSE" => Some("false"),
            "None" | "nil" | "NULL" | "undefined" => Some("null"),
            "not" => Some("!"),
            _ => None,
        };
        if let Some(meant) = meant {
            return fail(
                syntax(at, format!("`{name}` is not part of expressions"), "here").help(format!("write `{meant}`")),
            );
        }
        Ok(Chain::Path(vec![name.to_owned()]))
    }

    fn items(&mut self, end: &str, opened: Range<usize>) -> Parse<Vec<Ast>> {
        let mut items = Vec::new();
        while !self.is(end) {
            items.push(self.choice()?);
            if !self.take(",") {
                break;
            }
        }
        self.close(end, opened)?;
        Ok(items)
    }

    fn list(&mut self) -> Parse<Ast> {
        let opened = self.step();
        let items = self.items("]", opened.clone())?;
        let (at, below) = (opened.start..self.words[self.next - 1].at.end, depths(&items));
        ast(Kind::List(items), at, &below)
    }

    fn map(&mut self) -> Parse<Ast> {
        let opened = self.step();
        let (mut entries, mut below) = (Vec::new(), Vec::new());
        while !self.is("}") {
            let key = self.choice()?;
            self.close(":", opened.clone())?;
            let value = self.choice()?;
            below.extend([key.depth, value.depth]);
            entries.push((key, value));
            if !self.take(",") {
                break;
            }
        }
        let end = self.close("}", opened.clone())?.end;
        ast(Kind::Map(entries), opened.start..end, &below)
    }
}
