//! Checks a step's `with:` against the JSON Schema of its step type's inputs, with the place of every mistake.
//!
//! Reads the schemas that schemars 1.2 makes, not all of JSON Schema: `anyOf` and `oneOf` both mean "one of these".
//! What a template will give is not known yet, so it fits wherever its type can. Knows nothing of step types.

mod compile;
mod expressions;
mod foretold;
mod format;
mod pattern;
mod samples;
mod value;

use crate::Json;
use crate::diagnostic::Diagnostic;
use crate::playbook::yaml::Node;

pub(super) use foretold::Misplaced;
use format::Format;
use pattern::Pattern;

#[cfg(test)]
mod tests;

/// A schema made ready to check many steps. Build it once per step type.
#[derive(Debug)]
pub struct CompiledSchema {
    rules: Vec<Rule>,
    root: RuleId,
}

impl CompiledSchema {
    /// Takes any JSON; keywords that it does not know allow everything.
    pub fn new(schema: &Json) -> Self {
        compile::compile(schema)
    }

    /// All problems of one `with:` map, in the order of the file where they have one.
    pub fn check(&self, step_type: &str, with: &Node, file_text: &str) -> Vec<Diagnostic> {
        value::check(self, step_type, with, file_text)
    }
}

/// Checks one `with:` map; to check many, keep a [`CompiledSchema`].
pub fn check(step_type: &str, schema: &Json, with: &Node, file_text: &str) -> Vec<Diagnostic> {
    CompiledSchema::new(schema).check(step_type, with, file_text)
}

/// Index into [`CompiledSchema::rules`].
type RuleId = usize;

/// The kinds of JSON values that a rule allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kinds(u8);

impl Kinds {
    const NONE: Kinds = Kinds(0);
    const NULL: Kinds = Kinds(1);
    const BOOL: Kinds = Kinds(2);
    const INTEGER: Kinds = Kinds(4);
    /// Whole numbers too.
    const NUMBER: Kinds = Kinds(4 | 8);
    const STRING: Kinds = Kinds(16);
    const LIST: Kinds = Kinds(32);
    const MAP: Kinds = Kinds(64);
    const ALL: Kinds = Kinds(127);

    fn of(json: &Json) -> Kinds {
        match json {
            Json::Null => Kinds::NULL,
            Json::Bool(_) => Kinds::BOOL,
            Json::Number(n) if n.is_f64() => Kinds::NUMBER,
            Json::Number(_) => Kinds::INTEGER,
            Json::String(_) => Kinds::STRING,
            Json::Array(_) => Kinds::LIST,
            Json::Object(_) => Kinds::MAP,
        }
    }

    fn or(self, other: Kinds) -> Kinds {
        Kinds(self.0 | other.0)
    }

    fn and(self, other: Kinds) -> Kinds {
        Kinds(self.0 & other.0)
    }

    fn meets(self, other: Kinds) -> bool {
        self.0 & other.0 != 0
    }

    /// "a string or a list"; null is left out where there is something else.
    fn tell(self) -> String {
        let names = [
            (Kinds::BOOL, "true or false"),
            (Kinds::STRING, "a string"),
            (Kinds::LIST, "a list"),
            (Kinds::MAP, "a map"),
        ];
        let mut told: Vec<&str> = names.iter().filter(|(k, _)| self.meets(*k)).map(|(_, name)| *name).collect();
        match self.0 & Kinds::NUMBER.0 {
            4 => told.insert(0, "a whole number"),
            0 => {}
            _ => told.insert(0, "a number"),
        }
        if told.is_empty() { "nothing".to_owned() } else { told.join(" or ") }
    }
}

#[derive(Debug, Default)]
enum Additional {
    #[default]
    Any,
    Deny,
    Rule(RuleId),
}

/// Everything that one schema object asks. What is empty asks nothing.
#[derive(Debug)]
struct Rule {
    /// What its own `type` allows.
    own_kinds: Kinds,
    /// What is left of that with the rules that it refers to.
    kinds: Kinds,
    properties: Vec<Property>,
    additional: Additional,
    items: Option<RuleId>,
    prefix: Vec<RuleId>,
    /// `enum` and `const`.
    constants: Vec<Json>,
    /// `$ref` and `allOf`.
    also: Vec<RuleId>,
    /// `anyOf` and `oneOf`.
    choice: Vec<RuleId>,
    pattern: Option<Pattern>,
    format: Option<Format>,
    minimum: Option<f64>,
    maximum: Option<f64>,
    /// The bounds themselves are not allowed.
    exclusive: (bool, bool),
    length: (usize, usize),
    count: (usize, usize),
    entries: (usize, usize),
}

impl Rule {
    /// For an item of a list.
    fn of_item(&self, at: usize) -> Option<RuleId> {
        self.prefix.get(at).copied().or(self.items)
    }

    /// For the value under a key of a map.
    fn of_key(&self, name: &str) -> Option<RuleId> {
        let own = self.properties.iter().find(|p| &*p.name == name).map(|p| p.rule);
        own.or(match self.additional {
            Additional::Rule(rule) => Some(rule),
            Additional::Any | Additional::Deny => None,
        })
    }
}

/// A key as a part of a JSON pointer.
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

impl Default for Rule {
    fn default() -> Self {
        Self {
            own_kinds: Kinds::ALL,
            kinds: Kinds::ALL,
            properties: Vec::new(),
            additional: Additional::Any,
            items: None,
            prefix: Vec::new(),
            constants: Vec::new(),
            also: Vec::new(),
            choice: Vec::new(),
            pattern: None,
            format: None,
            minimum: None,
            maximum: None,
            exclusive: (false, false),
            length: (0, usize::MAX),
            count: (0, usize::MAX),
            entries: (0, usize::MAX),
        }
    }
}

#[derive(Debug)]
struct Property {
    name: Box<str>,
    rule: RuleId,
    required: bool,
    /// The first sentence of its description.
    doc: Option<Box<str>>,
}
