//! JSON text to the tree that YAML gives, every value with its place. Takes what RFC 8259 takes, and a key once.

use runback_core::playbook::yaml::{MAX_DEPTH, Node, NodeValue, Style};
use runback_core::span::{SourceId, Span};

/// The error says what is wrong and where, counting lines and characters from 1.
pub(super) fn parse(text: &str) -> Result<Node, String> {
    // What is JSON, down to escapes and numbers, is serde_json's to say; this only finds the places.
    let value: serde_json::Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let mut reader = Reader { text, at: 0 };
    let node = reader.value(0)?;
    // serde_json keeps the last of two equal keys.
    if node.to_json() == value { Ok(node) } else { Err("a number in it does not fit in 64 bits".to_owned()) }
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl Reader<'_> {
    fn blank(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
    }

    fn peek(&mut self) -> u8 {
        self.blank();
        self.text.as_bytes().get(self.at).copied().unwrap_or(0)
    }

    fn value(&mut self, depth: usize) -> Result<Node, String> {
        if depth > MAX_DEPTH {
            return Err(format!("it is nested more than {MAX_DEPTH} deep"));
        }
        let open = self.peek();
        let start = self.at;
        let value = match open {
            b'{' => self.map(depth)?,
            b'[' => self.list(depth)?,
            _ => self.scalar()?,
        };
        Ok(Node { span: Span::new(SourceId(0), start, self.at), value })
    }

    fn list(&mut self, depth: usize) -> Result<NodeValue, String> {
        self.at += 1;
        let mut items = Vec::new();
        while self.peek() != b']' {
            items.push(self.value(depth + 1)?);
            if self.peek() == b',' {
                self.at += 1;
            }
        }
        self.at += 1;
        Ok(NodeValue::List(items))
    }

    fn map(&mut self, depth: usize) -> Result<NodeValue, String> {
        self.at += 1;
        let mut pairs: Vec<(Node, Node)> = Vec::new();
        while self.peek() != b'}' {
            let key = self.value(depth + 1)?;
            if pairs.iter().any(|(k, _)| k.value == key.value) {
                let line = self.text[..self.at].lines().count();
                return Err(format!("the key {} stands twice in one map (line {line})", key.to_json()));
            }
            if self.peek() == b':' {
                self.at += 1;
            }
            let value = self.value(depth + 1)?;
            pairs.push((key, value));
            if self.peek() == b',' {
                self.at += 1;
            }
        }
        self.at += 1;
        Ok(NodeValue::Map(pairs))
    }

    fn scalar(&mut self) -> Result<NodeValue, String> {
        let rest = &self.text[self.at..];
        let len = if rest.starts_with('"') {
            let mut escaped = false;
            let close = rest.bytes().skip(1).position(|b| {
                let closes = b == b'"' && !escaped;
                escaped = b == b'\\' && !escaped;
                closes
            });
            close.map_or(rest.len(), |c| c + 2)
        } else {
            rest.find([',', ']', '}', ' ', '\t', '\n', '\r']).unwrap_or(rest.len())
        };
        let text = &rest[..len];
        self.at += len;
        let value: serde_json::Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
        Ok(match value {
            serde_json::Value::Bool(b) => NodeValue::Bool(b),
            serde_json::Value::Number(n) => match (n.as_i64(), n.as_u64(), n.as_f64()) {
                (Some(i), ..) => NodeValue::Int(i),
                (_, Some(u), _) => NodeValue::UInt(u),
                (.., f) => NodeValue::Float(f.unwrap_or_default()),
            },
            serde_json::Value::String(s) => NodeValue::Str(s.into(), Style::DoubleQuoted),
            _ => NodeValue::Null,
        })
    }
}
