//! A path to one value inside a JSON document: a pointer (`/a/b/0`) or dotted (`a.b[0]`, `a["x.y"]`).
//! Selects one value or none; wildcards and filters are not part of it.

use runback_core::Json;

/// A parsed path. The empty path is the whole document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ValuePath {
    keys: Vec<Key>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Key {
    /// A member of a map, or an item of a list where it is a number: pointers do not tell the two apart.
    Either(String),
    Member(String),
    Index(usize),
}

impl ValuePath {
    /// The error says what is wrong and where, counting characters from 1.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text == "." || text == "$" {
            return Ok(Self { keys: Vec::new() });
        }
        if let Some(pointer) = text.strip_prefix('/') {
            let unescape = |t: &str| Key::Either(t.replace("~1", "/").replace("~0", "~"));
            return Ok(Self { keys: pointer.split('/').map(unescape).collect() });
        }
        let chars: Vec<char> = text.strip_prefix('$').unwrap_or(text).chars().collect();
        let shift = text.chars().count() - chars.len();
        parse_dotted(&chars)
            .map(|keys| Self { keys })
            .map_err(|(at, why)| format!("`{text}` is not a JSON path: {why} at character {}", at + shift + 1))
    }

    pub(crate) fn get<'a>(&self, document: &'a Json) -> Option<&'a Json> {
        self.keys.iter().try_fold(document, |value, key| match (key, value) {
            (Key::Either(k) | Key::Member(k), Json::Object(map)) => map.get(k),
            (Key::Either(k), Json::Array(list)) => list.get(k.parse::<usize>().ok()?),
            (Key::Index(i), Json::Array(list)) => list.get(*i),
            _ => None,
        })
    }
}

fn parse_dotted(chars: &[char]) -> Result<Vec<Key>, (usize, &'static str)> {
    let mut keys = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        match chars[at] {
            '[' => {
                let (key, next) = parse_bracket(chars, at)?;
                keys.push(key);
                at = next;
            }
            c => {
                // The first name may stand without a dot.
                if c == '.' {
                    at += 1;
                } else if !keys.is_empty() {
                    return Err((at, "a `.` or `[` is missing"));
                }
                let end = (at..chars.len()).find(|i| matches!(chars[*i], '.' | '[' | ']')).unwrap_or(chars.len());
                if end == at {
                    return Err((at, "a name is missing"));
                }
                keys.push(Key::Member(chars[at..end].iter().collect()));
                at = end;
            }
        }
    }
    Ok(keys)
}

/// `[0]`, `["a.b"]` or `['a.b']`, from its bracket; gives the place after it too.
fn parse_bracket(chars: &[char], open: usize) -> Result<(Key, usize), (usize, &'static str)> {
    let rest = &chars[open + 1..];
    if let Some(quote @ ('"' | '\'')) = rest.first().copied() {
        let len = rest[1..].iter().position(|c| *c == quote).ok_or((open + 1, "the quote is not closed"))?;
        let after = open + 1 + len + 2;
        if chars.get(after) != Some(&']') {
            return Err((after, "a `]` is missing"));
        }
        return Ok((Key::Member(rest[1..=len].iter().collect()), after + 1));
    }
    let len = rest.iter().position(|c| *c == ']').ok_or((open, "the bracket is not closed"))?;
    let digits: String = rest[..len].iter().collect();
    let index = digits.parse().map_err(|_| (open + 1, "a number or a quoted name is wanted"))?;
    Ok((Key::Index(index), open + 1 + len + 1))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use serde_json::json;

    #[test]
    fn selects_by_each_form() {
        let document = json!({"a": {"b": [10, {"c.d": true}]}, "x/y": 1, "n": null, "0": "zero"});
        for (path, want) in [
            ("a.b[0]", Some(json!(10))),
            ("$.a.b[0]", Some(json!(10))),
            (".a.b[1][\"c.d\"]", Some(json!(true))),
            ("a['b'][0]", Some(json!(10))),
            ("/a/b/0", Some(json!(10))),
            ("/a/b/1/c.d", Some(json!(true))),
            ("/x~1y", Some(json!(1))),
            ("/0", Some(json!("zero"))),
            ("n", Some(json!(null))),
            ("", Some(document.clone())),
            ("a.b.0", None),
            ("a.b[9]", None),
            ("nothing", None),
            ("a.b[0].c", None),
        ] {
            assert_eq!(ValuePath::parse(path).unwrap().get(&document), want.as_ref(), "{path}");
        }
    }

    #[test]
    fn names_the_place_of_a_mistake() {
        for (path, why) in [
            ("a..b", "a name is missing at character 3"),
            ("a[0", "the bracket is not closed at character 2"),
            ("a[x]", "a number or a quoted name is wanted at character 3"),
            ("a[0]b", "a `.` or `[` is missing at character 5"),
            ("a['b", "the quote is not closed at character 3"),
            ("a['b'", "a `]` is missing at character 6"),
            ("a.", "a name is missing at character 3"),
        ] {
            let message = ValuePath::parse(path).unwrap_err();
            assert!(message.ends_with(why), "{path}: {message}");
        }
    }
}
