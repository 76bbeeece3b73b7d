//! Where an edit is: dotted names, `*` for every entry, quotes around a name that holds a dot. Expands to the addresses
//! that a document has. Knows no format.

use runback_core::Json;

/// One name of a path as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// A key; in a list the index, or the item that is this text.
    Name(String),
    /// Every key or item.
    Any,
}

/// One step down in a document that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seg {
    Key(String),
    Index(usize),
}

/// From the root down.
pub(super) type Address = Vec<Seg>;

/// The error says what is wrong, and where in the text, in characters from 1.
pub(super) fn parse(text: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut chars = text.chars().enumerate().peekable();
    loop {
        let mut name = String::new();
        let quote = chars.next_if(|(_, c)| matches!(c, '"' | '\''));
        if let Some((at, quote)) = quote {
            loop {
                match chars.next() {
                    Some((_, c)) if c == quote => break,
                    Some((_, c)) => name.push(c),
                    None => return Err(format!("the quote at character {} is not closed", at + 1)),
                }
            }
        } else {
            while let Some((_, c)) = chars.next_if(|(_, c)| *c != '.') {
                name.push(c);
            }
        }
        let quoted = quote.is_some();
        let next = chars.next();
        if name.is_empty() && !quoted {
            let at = next.map_or(text.chars().count(), |(at, _)| at);
            return Err(format!("a name is missing at character {}", at + 1));
        }
        parts.push(if name == "*" && !quoted { Part::Any } else { Part::Name(name) });
        match next {
            None => return Ok(parts),
            Some((_, '.')) => {}
            Some((at, c)) => return Err(format!("`{c}` at character {} comes after the closing quote", at + 1)),
        }
    }
}

/// As it is written in a path.
pub(super) fn show(address: &[Seg]) -> String {
    let one = |seg: &Seg| match seg {
        Seg::Key(key) if key.contains(['.', '"']) || key.is_empty() || key == "*" => format!("'{key}'"),
        Seg::Key(key) => key.clone(),
        Seg::Index(index) => index.to_string(),
    };
    address.iter().map(one).collect::<Vec<_>>().join(".")
}

pub(super) fn get<'a>(document: &'a Json, address: &[Seg]) -> Option<&'a Json> {
    address.iter().try_fold(document, |value, seg| match seg {
        Seg::Key(key) => value.get(key),
        Seg::Index(index) => value.get(index),
    })
}

/// What a value is, for messages.
pub(super) fn kind(value: &Json) -> &'static str {
    match value {
        Json::Null => "nothing",
        Json::Bool(_) => "a boolean",
        Json::Number(_) => "a number",
        Json::String(_) => "a text",
        Json::Array(_) => "a list",
        Json::Object(_) => "a map",
    }
}

/// The addresses that a path means. With `create`, keys that are not there count as if they were; what can neither be
/// found nor made is an error. Without, they are left out.
pub(super) fn expand(document: &Json, parts: &[Part], create: bool) -> Result<Vec<Address>, String> {
    let mut found = Vec::new();
    walk(Some(document), parts, create, &mut Vec::new(), &mut found)?;
    Ok(found)
}

fn walk(
    value: Option<&Json>,
    parts: &[Part],
    create: bool,
    here: &mut Address,
    found: &mut Vec<Address>,
) -> Result<(), String> {
    let Some((part, rest)) = parts.split_first() else {
        found.push(here.clone());
        return Ok(());
    };
    let mut down = |value: Option<&Json>, seg: Seg| {
        here.push(seg);
        let done = walk(value, rest, create, here, found);
        here.pop();
        done
    };
    match (part, value) {
        (Part::Any, Some(Json::Object(map))) => map.iter().try_for_each(|(k, v)| down(Some(v), Seg::Key(k.clone()))),
        (Part::Any, Some(Json::Array(list))) => {
            list.iter().enumerate().try_for_each(|(i, v)| down(Some(v), Seg::Index(i)))
        }
        (Part::Name(name), Some(Json::Object(map))) => match map.get(name) {
            Some(value) => down(Some(value), Seg::Key(name.clone())),
            None if create => down(None, Seg::Key(name.clone())),
            None => Ok(()),
        },
        (Part::Name(name), Some(Json::Array(list))) => {
            let index = name.parse().ok().filter(|i| *i < list.len());
            let index = index.or_else(|| list.iter().position(|item| item.as_str() == Some(name)));
            match index {
                Some(index) => down(list.get(index), Seg::Index(index)),
                None if create => Err(format!("`{}` is a list of {}, and none is `{name}`", show(here), list.len())),
                None => Ok(()),
            }
        }
        (Part::Name(name), None | Some(Json::Null)) if create => down(None, Seg::Key(name.clone())),
        (Part::Name(_), Some(scalar)) if create => Err(format!("`{}` is {}, not a map", show(here), kind(scalar))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_are_names_stars_and_quotes() {
        let name = |n: &str| Part::Name(n.to_owned());
        assert_eq!(parse("services.*.depends_on.mysql").unwrap()[1], Part::Any);
        assert_eq!(parse("a.\"b.c\".'*'").unwrap(), [name("a"), name("b.c"), name("*")]);
        assert_eq!(parse("log-opts.max size").unwrap(), [name("log-opts"), name("max size")]);
        for (text, why) in [
            ("", "a name is missing at character 1"),
            ("a..b", "a name is missing at character 3"),
            ("a.", "a name is missing at character 3"),
            ("a.\"b", "the quote at character 3 is not closed"),
            ("\"a\"b", "`b` at character 4 comes after the closing quote"),
        ] {
            assert_eq!(parse(text).unwrap_err(), why, "{text}");
        }
    }

    #[test]
    fn a_name_in_a_list_is_an_index_or_the_item() {
        let document = json!({"s": {"a": {"d": ["x", "m"]}, "b": {"d": {"m": 1}}, "c": {}, "e": 3}});
        let at = |text: &str, create| {
            let found = expand(&document, &parse(text).unwrap(), create);
            found.map(|all| all.iter().map(|a| show(a)).collect::<Vec<_>>())
        };
        assert_eq!(at("s.*.d.m", false).unwrap(), ["s.a.d.1", "s.b.d.m"]);
        assert_eq!(at("s.a.d.0", false).unwrap(), ["s.a.d.0"]);
        assert!(at("s.a.d.7", false).unwrap().is_empty());
        assert_eq!(at("s.c.new.key", true).unwrap(), ["s.c.new.key"]);
        assert_eq!(at("s.a.d.7", true).unwrap_err(), "`s.a.d` is a list of 2, and none is `7`");
        assert_eq!(at("s.e.x", true).unwrap_err(), "`s.e` is a number, not a map");
    }
}
