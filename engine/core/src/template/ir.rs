//! What a template is lowered to: pieces in order, every path already resolved to the scope it starts from.
//! Places are byte ranges of the template's text; a path's name in messages is its text.

use std::ops::Range;

use regex::Regex;

use super::helpers::Helper;
use crate::Json;

#[derive(Debug)]
pub(super) enum Piece {
    Text(Box<str>),
    Value(Ex),
    If {
        condition: Ex,
        /// `unless`
        negate: bool,
        /// `includeZero=true`
        zero_counts: bool,
        then: Vec<Piece>,
        otherwise: Vec<Piece>,
    },
    Each {
        items: Ex,
        body: Vec<Piece>,
        otherwise: Vec<Piece>,
    },
    With {
        value: Ex,
        body: Vec<Piece>,
        otherwise: Vec<Piece>,
    },
}

#[derive(Debug)]
pub(super) enum Ex {
    Literal(Json),
    Path(PathEx),
    Call(Box<Call>),
}

#[derive(Debug)]
pub(super) struct Call {
    pub(super) helper: &'static Helper,
    pub(super) args: Vec<Ex>,
    /// The pattern of `regex_replace`, when it is a literal.
    pub(super) regex: Option<Regex>,
}

#[derive(Debug)]
pub(super) struct PathEx {
    pub(super) base: Base,
    /// In the template's text.
    pub(super) at: Range<u32>,
}

#[derive(Debug)]
pub(super) enum Base {
    /// Index of the reference that holds the whole path.
    Root(u32),
    /// From the value of the block `up` levels out.
    Item {
        up: u16,
        segments: Box<[Box<str>]>,
        /// Tried from the root when the item has no such value.
        or_root: bool,
    },
    /// The key or index that a block `up` levels out gives a name to.
    Key {
        up: u16,
    },
    Index {
        up: u16,
    },
    First {
        up: u16,
    },
    Last {
        up: u16,
    },
}
