//! Text of an expression to words with their places. Follows the lexical rules of CEL, with one addition: right
//! after `steps.` a name may have dashes, since step ids have. Knows nothing of grammar.

use std::ops::Range;

use crate::diagnostic::Code;
use crate::template::problem::Problem;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Int(i64),
    Float(f64),
    Str(String),
    Name(String),
    /// An operator or a bracket.
    Op(&'static str),
    End,
}

#[derive(Debug, Clone)]
pub(super) struct Word {
    pub(super) token: Token,
    pub(super) at: Range<usize>,
}

/// Longer ones first.
const OPS: &[&str] = &[
    "==", "!=", "<=", ">=", "&&", "||", "(", ")", "[", "]", "{", "}", ".", ",", ":", "?", "!", "-", "*", "/", "%", "+",
    "<", ">",
];

pub(super) fn syntax(at: Range<usize>, message: impl Into<String>, label: impl Into<String>) -> Problem {
    Problem::new(Code::ExpressionSyntax, at, message, label)
}

pub(super) fn lex(text: &str) -> Result<Vec<Word>, Box<Problem>> {
    let mut words: Vec<Word> = Vec::new();
    let bytes = text.as_bytes();
    let mut i = 0;
    while let Some(&b) = bytes.get(i) {
        if b.is_ascii_whitespace() {
            i += 1;
            continue;
        }
        if text[i..].starts_with("//") {
            i += text[i..].find('\n').unwrap_or(text.len() - i);
            continue;
        }
        let start = i;
        let raw = matches!(b, b'r' | b'R') && matches!(bytes.get(i + 1), Some(b'"' | b'\''));
        let token = if b == b'"' || b == b'\'' || raw {
            i += usize::from(raw);
            let (value, end) = string(text, i, raw)?;
            i = end;
            Token::Str(value)
        } else if b.is_ascii_digit() {
            let (token, end) = number(text, i)?;
            i = end;
            token
        } else if b.is_ascii_alphabetic() || b == b'_' {
            i += text[i..].bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
            if after_steps(&words) {
                i = step_id_end(bytes, i);
            }
            Token::Name(text[start..i].to_owned())
        } else if let Some(op) = OPS.iter().find(|op| text[i..].starts_with(**op)) {
            if text[i..].starts_with("{{") {
                return Err(template(start..start + 2).into());
            }
            if text[i..].starts_with("===") || text[i..].starts_with("!==") {
                return Err(syntax(start..start + 3, "there is no `===`", "here").help(format!("write `{op}`")).into());
            }
            i += op.len();
            Token::Op(op)
        } else {
            return Err(stray(text, i).into());
        };
        if matches!(&token, Token::Str(value) if value.contains("{{")) {
            return Err(template(start..i).into());
        }
        words.push(Word { token, at: start..i });
    }
    words.push(Word { token: Token::End, at: text.len()..text.len() });
    Ok(words)
}

fn template(at: Range<usize>) -> Problem {
    syntax(at, "an expression takes no `{{ }}`", "not expanded here")
        .help("write names as they are: inputs.name == \"web\"; join text with +")
}

/// The words so far end in `steps.`, and `steps` is itself no member of something.
fn after_steps(words: &[Word]) -> bool {
    let is =
        |word: Option<&Word>, op: &str| word.is_some_and(|w| w.token == Token::Op(if op == "." { "." } else { "" }));
    let mut back = words.iter().rev();
    is(back.next(), ".")
        && matches!(back.next(), Some(Word { token: Token::Name(name), .. }) if name == "steps")
        && !is(back.next(), ".")
}

/// A dash belongs to the id when a letter or digit stands on.
fn step_id_end(bytes: &[u8], mut i: usize) -> usize {
    let letter = |i: usize| bytes.get(i).is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    while letter(i) || (bytes.get(i) == Some(&b'-') && letter(i + 1)) {
        i += 1;
    }
    i
}

fn stray(text: &str, i: usize) -> Problem {
    let c = text[i..].chars().next().unwrap_or(' ');
    let problem = syntax(i..i + c.len_utf8(), format!("`{c}` cannot stand in an expression"), "here");
    match c {
        '=' => problem.help("compare with `==`"),
        '&' => problem.help("write `&&`"),
        '|' => problem.help("write `||`"),
        '$' => problem.help("names stand without `$`: inputs.name"),
        '~' => problem.help("match a pattern with matches: inputs.name.matches(\"^web\")"),
        _ => problem,
    }
}

fn too_large(at: Range<usize>) -> Box<Problem> {
    syntax(at, "a number that does not fit in 64 bits", "here").into()
}

fn number(text: &str, start: usize) -> Result<(Token, usize), Box<Problem>> {
    let bytes = text.as_bytes();
    let digits = |mut i: usize| {
        while bytes.get(i).is_some_and(u8::is_ascii_digit) {
            i += 1;
        }
        i
    };
    if text[start..].starts_with("0x") || text[start..].starts_with("0X") {
        let end = start + 2 + text[start + 2..].bytes().take_while(u8::is_ascii_hexdigit).count();
        return i64::from_str_radix(&text[start + 2..end], 16)
            .map(|n| (Token::Int(n), end))
            .map_err(|_| too_large(start..end));
    }
    let mut end = digits(start);
    let mut float = false;
    if bytes.get(end) == Some(&b'.') && bytes.get(end + 1).is_some_and(u8::is_ascii_digit) {
        float = true;
        end = digits(end + 1);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        if bytes.get(end + 1 + sign).is_some_and(u8::is_ascii_digit) {
            float = true;
            end = digits(end + 1 + sign);
        }
    }
    let unit = text[end..].bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
    if unit > 0 {
        return Err(syntax(
            start..end + unit,
            format!("`{}` is no number", &text[start..end + unit]),
            "a number and letters",
        )
        .help("put text between quotes; a number has no unit")
        .into());
    }
    let written = &text[start..end];
    if float {
        let value = written.parse::<f64>().ok().filter(|f| f.is_finite()).ok_or_else(|| too_large(start..end))?;
        return Ok((Token::Float(value), end));
    }
    written.parse().map(|n| (Token::Int(n), end)).map_err(|_| too_large(start..end))
}

/// `start` is at the quote.
fn string(text: &str, start: usize, raw: bool) -> Result<(String, usize), Box<Problem>> {
    let quote = text.as_bytes()[start];
    let mut value = String::new();
    let mut chars = text[start + 1..].char_indices().map(|(i, c)| (start + 1 + i, c));
    while let Some((i, c)) = chars.next() {
        if c == char::from(quote) {
            return Ok((value, i + 1));
        }
        if c != '\\' || raw {
            value.push(c);
            continue;
        }
        let Some((_, escaped)) = chars.next() else { break };
        match escaped {
            'n' => value.push('\n'),
            't' => value.push('\t'),
            'r' => value.push('\r'),
            '\\' | '"' | '\'' | '`' | '?' => value.push(escaped),
            'x' | 'u' | 'U' => {
                let length = match escaped {
                    'x' => 2,
                    'u' => 4,
                    _ => 8,
                };
                let digits: String = chars.by_ref().take(length).map(|(_, c)| c).collect();
                let code = u32::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == length);
                let Some(c) = code.and_then(char::from_u32) else {
                    return Err(syntax(
                        i..i + 2,
                        format!("`\\{escaped}` wants {length} hexadecimal digits of a character"),
                        "here",
                    )
                    .into());
                };
                value.push(c);
            }
            other => {
                return Err(syntax(
                    i..i + 1 + other.len_utf8(),
                    format!("unknown escape `\\{other}`"),
                    "in this string",
                )
                .help(format!("write \\\\{other} for the two characters, or r\"…\" for a string without escapes"))
                .into());
            }
        }
    }
    Err(syntax(start..start + 1, "a string is never closed", "opened here").into())
}
