//! The values of a run's inputs, from what was given at its start. Reads no environment and no file: its
//! caller brings what they hold.

use serde_json::Map;

use super::model::{InputDecl, InputType};
use super::values;
use super::yaml;
use crate::Json;
use crate::diagnostic::Code;
use crate::span::SourceId;
use crate::template::problem::nearest;

/// One value as it was given.
#[derive(Debug, Clone, PartialEq)]
pub struct Given {
    pub value: GivenValue,
    /// For messages: `-i count=abc`, `inputs.yaml`, `the environment variable COUNT`. Holds no secret's value.
    pub place: String,
}

#[derive(Debug, Clone, PartialEq)]
pub enum GivenValue {
    /// Text of the command line or the environment: read as the declared type.
    Raw(String),
    /// From a file: has a type already.
    Json(Json),
}

impl Given {
    pub fn raw(text: impl Into<String>, place: impl Into<String>) -> Self {
        Self { value: GivenValue::Raw(text.into()), place: place.into() }
    }

    pub fn json(value: Json, place: impl Into<String>) -> Self {
        Self { value: GivenValue::Json(value), place: place.into() }
    }
}

/// A value that is missing, unknown or not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InputError {
    pub code: Code,
    pub input: String,
    pub message: String,
    pub help: Option<String>,
}

/// The values of all inputs, in the order of their declarations, defaults included. `given` is in rising order
/// of precedence: the last of a name wins.
pub fn resolve(decls: &[InputDecl], given: &[(String, Given)]) -> Result<Map<String, Json>, Vec<InputError>> {
    let mut errors = Vec::new();
    for (name, given) in given {
        if decls.iter().all(|d| d.name.value != *name) {
            errors.push(unknown(decls, name, given));
        }
    }
    let mut values = Map::new();
    for decl in decls {
        let last = given.iter().rev().find(|(name, _)| *name == decl.name.value);
        let value = match (last, &decl.default) {
            (Some((_, given)), _) => read(decl, given),
            (None, Some(default)) => Ok(default.value.clone()),
            (None, None) => Err(missing(decl)),
        };
        match value {
            Ok(value) => {
                values.insert(decl.name.value.clone(), value);
            }
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(values) } else { Err(errors) }
}

fn unknown(decls: &[InputDecl], name: &str, given: &Given) -> InputError {
    let names: Vec<&str> = decls.iter().map(|d| d.name.value.as_str()).collect();
    let help = match nearest(name, names.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if names.is_empty() => "this playbook has no inputs".to_owned(),
        None => format!("its inputs are {}", names.join(", ")),
    };
    let message = format!("{}: the playbook has no input `{name}`", given.place);
    InputError { code: Code::InputUnknown, input: name.to_owned(), message, help: Some(help) }
}

fn missing(decl: &InputDecl) -> InputError {
    let name = &decl.name.value;
    let about = decl.description.as_deref().map(|d| format!(" ({d})")).unwrap_or_default();
    let mut help = format!("give it with -i {name}=…");
    if let Some(env) = &decl.env {
        help = format!("{help}, or set {env} in the environment");
    }
    InputError {
        code: Code::InputMissing,
        input: name.clone(),
        message: format!("the input `{name}`{about} has no value; it must be {}", decl.input_type.with_article()),
        help: Some(help),
    }
}

fn read(decl: &InputDecl, given: &Given) -> Result<Json, InputError> {
    let name = &decl.name.value;
    let error = |message: &str, help: Option<String>| InputError {
        code: Code::InputInvalid,
        input: name.clone(),
        message: format!("{}: the input `{name}` {message}", given.place),
        help,
    };
    let value = match &given.value {
        GivenValue::Json(value) => value.clone(),
        GivenValue::Raw(text) => convert(decl.input_type, text).map_err(|help| {
            let text =
                if decl.secret { String::new() } else { format!(", not `{}`", values::shown(&text.as_str().into())) };
            error(&format!("must be {}{text}", decl.input_type.with_article()), help)
        })?,
    };
    values::check(decl, &value).map_err(|violation| error(&violation.message, violation.help))?;
    Ok(value)
}

/// A text as a value of the type. The error is what to write instead, where that can be said.
fn convert(input_type: InputType, text: &str) -> Result<Json, Option<String>> {
    match input_type {
        InputType::String | InputType::Path | InputType::Duration => Ok(text.into()),
        InputType::Integer => {
            let signed = text.parse::<i64>().map(Json::from).ok();
            signed.or_else(|| text.parse::<u64>().map(Json::from).ok()).ok_or(None)
        }
        InputType::Number => {
            let whole = text.parse::<i64>().map(Json::from).ok();
            let float = || text.parse::<f64>().ok().filter(|f| f.is_finite()).map(Json::from);
            whole.or_else(float).ok_or(None)
        }
        InputType::Boolean => match text {
            "true" => Ok(true.into()),
            "false" => Ok(false.into()),
            _ => Err(Some("write true or false".to_owned())),
        },
        InputType::List | InputType::Map => {
            let example = if input_type == InputType::List { "[a, b]" } else { "{a: 1}" };
            let help = || Some(format!("write it as JSON or YAML: {example}"));
            let value = yaml::parse(SourceId(0), text).map_err(|_| help())?.to_json();
            let fits = values::check_type(input_type, &value).is_ok();
            if fits { Ok(value) } else { Err(help()) }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::playbook::lower::lower;
    use serde_json::json;

    fn decls(inputs: &str) -> Vec<InputDecl> {
        let text = format!("runback: 1\nname: t\ninputs:\n{inputs}\nsteps:\n  - run: 'true'\n");
        let node = yaml::parse(SourceId(0), &text).unwrap();
        let (playbook, diagnostics) = lower(SourceId(0), &text, &node);
        assert_eq!(diagnostics, []);
        playbook.unwrap().inputs
    }

    const DECLS: &str = r#"
  count: { type: integer, min: 1, max: 9, default: 2 }
  name:  { type: string, pattern: "[a-z]+", description: who, env: WHO }
  hosts: { type: list, default: [] }
  force: { type: boolean, default: false }
  mode:  { type: string, options: [fast, slow], default: fast }
  token: { type: string, secret: true, pattern: "[0-9]+" }
  ip:    { type: string, format: ipv4, default: 10.0.0.1 }
  wait:  { type: duration, default: 5m }
"#;

    fn raw(pairs: &[(&str, &str)]) -> Vec<(String, Given)> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), Given::raw(*v, format!("-i {k}")))).collect()
    }

    #[test]
    fn text_is_read_as_the_declared_type() {
        let mut given =
            raw(&[("count", "3"), ("name", "x"), ("hosts", "[a, 1]"), ("token", "12"), ("wait", "1h"), ("count", "4")]);
        given.push(("force".to_owned(), Given::json(json!(true), "inputs.yaml")));
        let values = resolve(&decls(DECLS), &given).unwrap();
        let expected = json!({"count": 4, "name": "x", "hosts": ["a", 1], "force": true, "mode": "fast", "token": "12", "ip": "10.0.0.1", "wait": "1h"});
        assert_eq!(Json::Object(values), expected);
    }

    #[test]
    fn every_mistake_is_told() {
        let mut given = raw(&[
            ("count", "abc"),
            ("hosts", "a,b"),
            ("force", "yes"),
            ("mode", "fats"),
            ("token", "hunter2"),
            ("ip", "300.1.1.1"),
            ("wait", "30"),
            ("conut", "3"),
        ]);
        given.push(("other".to_owned(), Given::json(json!(null), "inputs.yaml")));
        let errors = resolve(&decls(DECLS), &given).unwrap_err();
        let lines: Vec<String> = errors
            .iter()
            .map(|e| format!("{} {}\n    {}", e.code.name(), e.message, e.help.as_deref().unwrap_or("-")))
            .collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        RB0702 -i conut: the playbook has no input `conut`
            did you mean `count`?
        RB0702 inputs.yaml: the playbook has no input `other`
            its inputs are count, name, hosts, force, mode, token, ip, wait
        RB0703 -i count: the input `count` must be an integer, not `abc`
            -
        RB0701 the input `name` (who) has no value; it must be a string
            give it with -i name=…, or set WHO in the environment
        RB0703 -i hosts: the input `hosts` must be a list, not `a,b`
            write it as JSON or YAML: [a, b]
        RB0703 -i force: the input `force` must be a boolean, not `yes`
            write true or false
        RB0703 -i mode: the input `mode` must be one of fast, slow
            did you mean `fast`?
        RB0703 -i token: the input `token` must match the pattern [0-9]+
            -
        RB0703 -i ip: the input `ip` must be an IPv4 address, such as 192.0.2.7
            -
        RB0703 -i wait: the input `wait` must be a duration
            did you mean 30s? write it as 500ms, 30s, 10m, 1h30m or 2d
        ");
        assert!(!lines.join("\n").contains("hunter2"));
    }

    #[test]
    fn ranges_and_types_of_json_values() {
        let given = |value: Json| [("count".to_owned(), Given::json(value, "f"))];
        let decls = decls("  count: { type: integer, min: 1, max: 9 }");
        for (value, message) in [
            (json!(0), "f: the input `count` must be at least 1"),
            (json!(10), "f: the input `count` must be at most 9"),
            (json!(3.0), "f: the input `count` must be an integer, not a number"),
            (json!("3"), "f: the input `count` must be an integer, not a string"),
            (json!(null), "f: the input `count` must be an integer, not null"),
        ] {
            assert_eq!(resolve(&decls, &given(value)).unwrap_err()[0].message, message);
        }
    }
}
