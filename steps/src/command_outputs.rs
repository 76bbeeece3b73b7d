//! What a command's step gives to other steps: values picked from its stdout, or written by it to a file.
//! Knows nothing of how the command was run.

use std::borrow::Cow;
use std::collections::BTreeMap;

use regex::{Regex, RegexBuilder};
use runback_core::step::{Access, InputProblem, OutputNames, StepError, UndoKind};
use runback_core::target::{Exit, KEEP_DEFAULT};
use runback_core::template::ValueTemplate;
use runback_core::{Json, cut};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::http::look::compile as regular_expression;
use crate::value_path::ValuePath;

/// How much of stdout the `stdout` output holds that every command has, in bytes.
pub(crate) const STDOUT_OUTPUT: usize = 64 << 10;

/// Where the value of one output comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OutputSpec {
    /// All of stdout, without the white space around it.
    Stdout,
    /// The script writes it to `$RUNBACK_OUTPUT`.
    File,
    /// A path into stdout, which is JSON.
    Json(String),
    /// The last match in stdout: its first group, or all of it.
    Regex(String),
}

impl<'de> Deserialize<'de> for OutputSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Spec;
        impl<'de> Visitor<'de> for Spec {
            type Value = OutputSpec;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("`stdout`, `file`, `{json: path}` or `{regex: pattern}`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<OutputSpec, E> {
                match text {
                    "stdout" => Ok(OutputSpec::Stdout),
                    "file" => Ok(OutputSpec::File),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<OutputSpec, A::Error> {
                let spec = match map.next_key::<String>()?.as_deref() {
                    Some("json") => OutputSpec::Json(map.next_value()?),
                    Some("regex") => OutputSpec::Regex(map.next_value()?),
                    Some(other) => return Err(de::Error::unknown_field(other, &["json", "regex"])),
                    None => return Err(de::Error::invalid_length(0, &self)),
                };
                match map.next_key::<String>()? {
                    None => Ok(spec),
                    Some(second) => {
                        Err(de::Error::custom(format!("`{second}` is one too many: an output is taken from one place")))
                    }
                }
            }
        }
        deserializer.deserialize_any(Spec)
    }
}

impl JsonSchema for OutputSpec {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "OutputSpec".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "object"],
            "pattern": "^(stdout|file)$",
            "properties": {
                "json": { "type": "string", "description": "Path into stdout, which is JSON: `a.b[0]` or `/a/b/0`." },
                "regex": {
                    "type": "string",
                    "description": "Pattern; the last match in stdout counts: its first group, or all of it. `^` and `$` are those of a line."
                }
            },
            "additionalProperties": false,
            "minProperties": 1,
            "maxProperties": 1
        })
    }
}

/// Output ends with a line's end, so `$` means the end of a line.
fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern).multi_line(true).build()
}

/// A command whose exit codes never mean a change only looks: a rollback passes over it.
pub(crate) fn capabilities(with: &ValueTemplate) -> (Access, UndoKind) {
    let codes = with.get("changed_codes");
    let none = codes.as_ref().and_then(ValueTemplate::literal).and_then(Json::as_array).is_some_and(Vec::is_empty);
    (if none { Access::Reads } else { Access::Changes }, UndoKind::None)
}

/// The `outputs` of a command by name.
pub(crate) type OutputSpecs = BTreeMap<String, OutputSpec>;

/// `exit_code` and `stdout`, and whatever the step declares.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct CommandOutputs(BTreeMap<String, Json>);

impl JsonSchema for CommandOutputs {
    fn schema_name() -> Cow<'static, str> {
        "CommandOutputs".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "properties": {
                "exit_code": { "type": "integer", "description": "How the command ended." },
                "stdout": {
                    "type": "string",
                    "description": "The first 64 KiB of what it printed, without the white space around it."
                }
            },
            "additionalProperties": { "description": "An output that the step declares." }
        })
    }
}

const ALWAYS: [&str; 2] = ["exit_code", "stdout"];

/// How much of stdout must be kept to fill these outputs.
pub(crate) fn keep(specs: &OutputSpecs) -> usize {
    if specs.values().any(|s| *s != OutputSpec::File) { KEEP_DEFAULT } else { STDOUT_OUTPUT }
}

/// Mistakes that the schema cannot express.
pub(crate) fn problems(specs: &OutputSpecs, file_allowed: bool) -> Vec<InputProblem> {
    let mut all = Vec::new();
    for (name, spec) in specs {
        let mut problem_of = |key: Option<&str>, message: String, help: Option<&str>| {
            let path = ["outputs", name].into_iter().chain(key).map(str::to_owned).collect();
            all.push(InputProblem { path, message, help: help.map(str::to_owned) });
        };
        match spec {
            OutputSpec::Json(path) => drop(ValuePath::parse(path).map_err(|e| problem_of(Some("json"), e, None))),
            OutputSpec::Regex(pattern) => {
                drop(regular_expression(pattern).map_err(|e| problem_of(Some("regex"), e, None)));
            }
            OutputSpec::File | OutputSpec::Stdout => {}
        }
        let mut problem = |message: String, help: Option<&str>| problem_of(None, message, help);
        if ALWAYS.contains(&name.as_str()) {
            problem(format!("`{name}` is always an output"), Some("choose another name"));
        } else if !is_name(name) {
            problem(
                format!("`{name}` cannot be the name of an output"),
                Some("use letters, digits, `_` and `-`, with a letter or `_` first"),
            );
        }
        if matches!(spec, OutputSpec::File) && !file_allowed {
            problem(
                "only a script (`run`) writes to $RUNBACK_OUTPUT".to_owned(),
                Some("take it from stdout: `stdout`, `{json: path}` or `{regex: pattern}`"),
            );
        }
    }
    all
}

/// The names that `with.outputs` declares and those that are always there; open where the inputs are not known.
pub(crate) fn names(with: &ValueTemplate) -> OutputNames {
    let declared: Vec<String> = match entry(with, "outputs") {
        None => Vec::new(),
        Some(Entry::Template(ValueTemplate::Map(map))) => map.iter().map(|(k, _)| k.clone()).collect(),
        Some(Entry::Literal(Json::Object(map)) | Entry::Template(ValueTemplate::Literal(Json::Object(map)))) => {
            map.keys().cloned().collect()
        }
        Some(_) => return OutputNames::Open,
    };
    OutputNames::Closed(ALWAYS.into_iter().map(str::to_owned).chain(declared).collect())
}

/// One input of a step before it is rendered.
pub(crate) enum Entry<'a> {
    Literal(&'a Json),
    Template(&'a ValueTemplate),
}

pub(crate) fn entry<'a>(with: &'a ValueTemplate, key: &str) -> Option<Entry<'a>> {
    match with {
        ValueTemplate::Map(map) => map.iter().find(|(k, _)| k == key).map(|(_, v)| Entry::Template(v)),
        ValueTemplate::Literal(json) => json.get(key).map(Entry::Literal),
        ValueTemplate::Text(_) | ValueTemplate::List(_) => None,
    }
}

fn is_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

/// Picks the outputs of a command that ended well. `written` is what it wrote to `$RUNBACK_OUTPUT`.
pub(crate) fn collect(specs: &OutputSpecs, exit: &Exit, written: &str) -> Result<CommandOutputs, StepError> {
    let stdout = exit.stdout_text();
    let mut all = BTreeMap::new();
    for (name, value) in parse_written(written)? {
        if ALWAYS.contains(&name.as_str()) || !is_name(&name) {
            return Err(StepError::permanent(format!("$RUNBACK_OUTPUT: `{name}` cannot be the name of an output"))
                .help("use letters, digits, `_` and `-`, and neither `stdout` nor `exit_code`"));
        }
        all.insert(name, Json::String(value));
    }
    let mut document = None;
    for (name, spec) in specs {
        let about = |why: String| StepError::permanent(format!("output `{name}`: {why}"));
        if *spec != OutputSpec::File && exit.stdout_cut {
            let size = exit.stdout.len() >> 10;
            return Err(about(format!("stdout is longer than the {size} KiB that outputs are taken from"))
                .help("print less, or write the value to $RUNBACK_OUTPUT in a script"));
        }
        let value = match spec {
            OutputSpec::Stdout => Json::String(stdout.trim().to_owned()),
            OutputSpec::File => match all.remove(name) {
                Some(value) => value,
                None => {
                    return Err(about("the script did not write it to $RUNBACK_OUTPUT".to_owned())
                        .help(format!("in the script: echo \"{name}=value\" >>\"$RUNBACK_OUTPUT\"")));
                }
            },
            OutputSpec::Json(path) => {
                if document.is_none() {
                    let parsed: Json = serde_json::from_str(stdout.trim())
                        .map_err(|e| about(format!("stdout is not JSON: {e}; it begins with {:?}", first(&stdout))))?;
                    document = Some(parsed);
                }
                let path = ValuePath::parse(path).map_err(about)?;
                let found = document.as_ref().and_then(|d| path.get(d)).cloned();
                found.ok_or_else(|| about(format!("nothing stands at {spec} in the JSON of stdout")))?
            }
            OutputSpec::Regex(pattern) => {
                let regex = compile(pattern).map_err(|e| about(e.to_string()))?;
                let last = regex.captures_iter(&stdout).last();
                let group = last.as_ref().and_then(|c| c.get(1).or_else(|| c.get(0)));
                let found = group.map(|m| Json::String(m.as_str().to_owned()));
                found.ok_or_else(|| about(format!("stdout has no match of {spec}")))?
            }
        };
        all.insert(name.clone(), value);
    }
    all.insert("exit_code".to_owned(), exit.code.into());
    all.insert("stdout".to_owned(), beginning(&stdout, exit.stdout_cut).trim().into());
    Ok(CommandOutputs(all))
}

/// As much of a text as an output may hold. Cut where there is space, for half a secret would not be known for one.
fn beginning(stdout: &str, cut_before: bool) -> &str {
    if stdout.len() <= STDOUT_OUTPUT && !cut_before {
        return stdout;
    }
    let mut end = stdout.len().min(STDOUT_OUTPUT);
    while !stdout.is_char_boundary(end) {
        end -= 1;
    }
    stdout[..end].rfind(char::is_whitespace).map_or("", |space| &stdout[..space])
}

impl std::fmt::Display for OutputSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            OutputSpec::Stdout => f.write_str("stdout"),
            OutputSpec::File => f.write_str("file"),
            OutputSpec::Json(path) | OutputSpec::Regex(path) => write!(f, "`{path}`"),
        }
    }
}

fn first(text: &str) -> String {
    cut::beginning(text.trim(), 40).into_owned()
}

/// `name=value` lines, and `name<<END` … `END` for values of several lines. Empty lines count for nothing.
fn parse_written(text: &str) -> Result<Vec<(String, String)>, StepError> {
    let mut all = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        if line.trim().is_empty() {
            continue;
        }
        let (heredoc, equals) = (line.find("<<"), line.find('='));
        match (heredoc, equals) {
            (Some(mark), equals) if equals.is_none_or(|e| mark < e) => {
                let end = line[mark + 2..].trim();
                let mut value: Vec<&str> = Vec::new();
                loop {
                    match lines.next() {
                        Some((_, line)) if line == end => break,
                        Some((_, line)) => value.push(line),
                        None => {
                            return Err(StepError::permanent(format!(
                                "$RUNBACK_OUTPUT: `{line}` in line {} has no end",
                                at + 1
                            ))
                            .help(format!("write a line `{end}` after the value")));
                        }
                    }
                }
                all.push((line[..mark].trim().to_owned(), value.join("\n")));
            }
            (_, Some(equals)) => all.push((line[..equals].trim().to_owned(), line[equals + 1..].to_owned())),
            (_, None) => {
                return Err(StepError::permanent(format!("$RUNBACK_OUTPUT: line {} is `{}`", at + 1, first(line)))
                    .help("each line is `name=value`; for a value of several lines: `name<<END`, the lines, `END`"));
            }
        }
    }
    Ok(all)
}

/// Which exit codes are a success, and which of them mean that something was changed.
pub(crate) fn code_problems(ok: &[i32], changed: Option<&[i32]>) -> Vec<InputProblem> {
    let mut all = Vec::new();
    if ok.is_empty() {
        let message = "with no `ok_codes` the step can only fail".to_owned();
        all.push(InputProblem { path: vec!["ok_codes".to_owned()], message, help: None });
    }
    for (i, code) in changed.unwrap_or_default().iter().enumerate() {
        if !ok.contains(code) {
            all.push(InputProblem {
                path: vec!["changed_codes".to_owned(), i.to_string()],
                message: format!("{code} is not one of `ok_codes`"),
                help: Some(format!("add {code} to `ok_codes`")),
            });
        }
    }
    all
}

pub(crate) fn zero() -> Vec<i32> {
    vec![0]
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use serde_json::json;

    fn specs(json: Json) -> OutputSpecs {
        serde_json::from_value(json).unwrap()
    }

    fn exit(stdout: &str) -> Exit {
        Exit { code: Some(0), stdout: stdout.into(), ..Exit::default() }
    }

    #[test]
    fn picks_from_stdout() {
        let specs = specs(json!({
            "all": "stdout", "n": {"json": "a[1]"}, "ptr": {"json": "/a/0"}, "re": {"regex": "\"a\":\\[(\\d)"},
            "whole": {"regex": "\\d+"},
        }));
        let CommandOutputs(got) = collect(&specs, &exit("  {\"a\":[7,{\"b\":true}, 42]}\n"), "").unwrap();
        assert_eq!(
            json!(got),
            json!({
                "all": "{\"a\":[7,{\"b\":true}, 42]}", "exit_code": 0, "n": {"b": true}, "ptr": 7, "re": "7",
                "stdout": "{\"a\":[7,{\"b\":true}, 42]}", "whole": "42",
            })
        );
    }

    #[test]
    fn picks_from_the_file_also_what_is_not_declared() {
        let written = "version=1.2=3\n\nnotes<<EOF\nline a\nb=c\nEOF\nspare=\n";
        let CommandOutputs(got) = collect(&specs(json!({"version": "file"})), &exit("x"), written).unwrap();
        assert_eq!(got["version"], json!("1.2=3"));
        assert_eq!(got["notes"], json!("line a\nb=c"));
        assert_eq!(got["spare"], json!(""));
    }

    #[test]
    fn says_what_is_missing() {
        let fails = |s: Json, stdout: &str, written: &str| collect(&specs(s), &exit(stdout), written).unwrap_err();
        let cases = [
            (fails(json!({"v": "file"}), "", ""), "output `v`: the script did not write it to $RUNBACK_OUTPUT"),
            (fails(json!({"v": {"json": "a"}}), "{}", ""), "output `v`: nothing stands at `a` in the JSON of stdout"),
            (fails(json!({"v": {"regex": "a+"}}), "b", ""), "output `v`: stdout has no match of `a+`"),
            (fails(json!({}), "", "abc"), "$RUNBACK_OUTPUT: line 1 is `abc`"),
            (fails(json!({}), "", "a=1\nv<<E\nx"), "$RUNBACK_OUTPUT: `v<<E` in line 2 has no end"),
            (fails(json!({}), "", "stdout=1"), "$RUNBACK_OUTPUT: `stdout` cannot be the name of an output"),
        ];
        for (error, message) in cases {
            assert_eq!(error.message, message);
        }
        let not_json = fails(json!({"v": {"json": "a"}}), "oops", "");
        assert!(not_json.message.starts_with("output `v`: stdout is not JSON:"), "{not_json}");
    }

    #[test]
    fn a_cut_stdout_fills_no_output() {
        let cut = Exit { stdout_cut: true, ..exit("abc") };
        let error = collect(&specs(json!({"v": "stdout"})), &cut, "").unwrap_err();
        assert!(error.message.contains("longer than"), "{error}");
        assert!(collect(&specs(json!({})), &cut, "").is_ok());
    }

    #[test]
    fn a_spec_is_one_of_four() {
        for (json, message) in [
            (json!("stdin"), "invalid value: string \"stdin\", expected `stdout`, `file`"),
            (json!({"xml": "a"}), "unknown field `xml`, expected `json` or `regex`"),
            (json!({}), "invalid length 0, expected `stdout`, `file`"),
            (json!({"json": "a", "regex": "b"}), "`regex` is one too many"),
            (json!(3), "invalid type: integer `3`, expected `stdout`, `file`"),
        ] {
            let error = serde_json::from_value::<OutputSpec>(json).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }

    #[test]
    fn checks_names_paths_and_patterns() {
        let specs = specs(json!({
            "stdout": "stdout", "9x": "stdout", "p": {"json": "a..b"}, "r": {"regex": "("}, "f": "file", "ok-1": "stdout",
        }));
        let at = |allowed| problems(&specs, allowed).into_iter().map(|p| p.path[1].clone()).collect::<Vec<_>>();
        assert_eq!(at(true), ["9x", "p", "r", "stdout"]);
        assert_eq!(at(false), ["9x", "f", "p", "r", "stdout"]);
        assert_eq!(code_problems(&[], Some(&[2])).len(), 2);
        assert!(code_problems(&[0, 2], Some(&[2])).is_empty());
    }

    #[test]
    fn names_come_from_literal_and_template_maps() {
        let literal = ValueTemplate::Literal(json!({"script": "x", "outputs": {"a": "stdout"}}));
        let want = OutputNames::Closed(vec!["exit_code".into(), "stdout".into(), "a".into()]);
        assert_eq!(names(&literal), want);
        let outputs = ValueTemplate::Map(vec![("a".into(), ValueTemplate::Literal(json!("stdout")))]);
        assert_eq!(names(&ValueTemplate::Map(vec![("outputs".into(), outputs)])), want);
        let none = ValueTemplate::Literal(json!({"script": "x"}));
        assert_eq!(names(&none), OutputNames::Closed(vec!["exit_code".into(), "stdout".into()]));
    }
}
