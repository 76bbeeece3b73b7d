//! What an expression is parsed to. Places are byte ranges of its text.

use std::ops::Range;

use regex::Regex;

use super::functions::Function;
use crate::Json;

#[derive(Debug)]
pub(super) struct Ast {
    pub(super) kind: Kind,
    pub(super) at: Range<u32>,
    /// Height of the tree below it; bounded, since evaluation recurses.
    pub(super) depth: u16,
}

#[derive(Debug)]
pub(super) enum Kind {
    Literal(Json),
    /// Index of the reference that holds the whole path.
    Path(u32),
    /// A variable of a macro, `up` macros further out.
    Local(u16),
    Select(Box<Ast>, Box<str>),
    Index(Box<Ast>, Box<Ast>),
    List(Vec<Ast>),
    Map(Vec<(Ast, Ast)>),
    Not(Box<Ast>),
    Negate(Box<Ast>),
    And(Vec<Ast>),
    Or(Vec<Ast>),
    Binary(Op, Box<Ast>, Box<Ast>),
    /// Condition, then, otherwise.
    Choice(Box<[Ast; 3]>),
    /// The path, and whether there is a value at it.
    Has(Box<Ast>),
    Call(Box<Call>),
    Macro(Box<Macro>),
}

#[derive(Debug)]
pub(super) struct Call {
    pub(super) function: &'static Function,
    pub(super) args: Vec<Ast>,
    /// The pattern, when it is a literal.
    pub(super) regex: Option<Regex>,
}

/// `list.all(x, condition)` and its like.
#[derive(Debug)]
pub(super) struct Macro {
    pub(super) kind: MacroKind,
    pub(super) list: Ast,
    /// For each item, with the item in scope.
    pub(super) body: Ast,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MacroKind {
    All,
    Exists,
    ExistsOne,
    Map,
    Filter,
}

impl MacroKind {
    pub(super) const ALL: &[(&str, MacroKind)] = &[
        ("all", MacroKind::All),
        ("exists", MacroKind::Exists),
        ("exists_one", MacroKind::ExistsOne),
        ("filter", MacroKind::Filter),
        ("map", MacroKind::Map),
    ];

    pub(super) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    In,
}

impl Op {
    pub(super) fn text(self) -> &'static str {
        match self {
            Op::Add => "+",
            Op::Subtract => "-",
            Op::Multiply => "*",
            Op::Divide => "/",
            Op::Remainder => "%",
            Op::Equal => "==",
            Op::NotEqual => "!=",
            Op::Less => "<",
            Op::LessEqual => "<=",
            Op::Greater => ">",
            Op::GreaterEqual => ">=",
            Op::In => "in",
        }
    }
}
