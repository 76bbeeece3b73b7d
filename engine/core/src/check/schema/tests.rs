#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(dead_code, reason = "the types are there for their schemas")]

use std::collections::BTreeMap;
use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::*;
use crate::playbook::yaml;
use crate::span::{Source, SourceId};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Inputs {
    /// Where the file goes. Relative ones count from the playbook's folder.
    path: String,
    #[serde(default)]
    #[schemars(extend("format" = "mode"))]
    mode: Option<String>,
    #[serde(default)]
    port: Option<u16>,
    #[serde(default)]
    ratio: Option<f64>,
    #[serde(default)]
    force: bool,
    #[serde(default)]
    state: State,
    #[serde(default)]
    source: Option<Origin>,
    #[serde(default)]
    mounts: Vec<Mount>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: serde_json::Value,
    #[serde(default)]
    #[schemars(length(min = 1))]
    argv: Option<Vec<String>>,
    #[serde(default)]
    pair: Option<(u8, String)>,
    #[serde(default)]
    #[schemars(range(min = 1, max = 5))]
    level: Option<u8>,
    #[serde(default)]
    #[schemars(pattern(r"^[a-z]+$"), length(max = 5))]
    name: Option<String>,
    #[serde(default)]
    #[schemars(extend("format" = "duration"))]
    period: Option<String>,
    #[serde(default)]
    #[schemars(extend("format" = "regex"))]
    regex: Option<String>,
    #[serde(default)]
    #[schemars(extend("format" = "ipv4"))]
    address: Option<String>,
    #[serde(default)]
    #[schemars(extend("format" = "uri"))]
    url: Option<String>,
    #[serde(default)]
    #[schemars(extend("format" = "hostname"))]
    host: Option<String>,
    #[serde(default)]
    #[schemars(extend("format" = "cel"))]
    until: Option<String>,
    #[serde(default)]
    #[schemars(extend("format" = "timezone"))]
    timezone: Option<String>,
    #[serde(default)]
    tree: Option<Box<Tree>>,
    #[serde(default)]
    #[schemars(schema_with = "text_or_numbers")]
    codes: serde_json::Value,
}

fn text_or_numbers(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "anyOf": [{ "type": "string", "pattern": "^any$" }, { "type": "array", "items": { "type": "integer" } }] })
}

#[derive(Deserialize, JsonSchema, Default)]
#[serde(rename_all = "snake_case")]
enum State {
    #[default]
    Present,
    /// Not there.
    Absent,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Origin {
    Stdin,
    Text(String),
    Remote {
        url: String,
        #[serde(default)]
        retries: u32,
    },
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Mount {
    path: String,
    #[serde(default)]
    size: Option<i64>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Tree {
    name: String,
    #[serde(default)]
    children: Vec<Tree>,
}

fn schema() -> CompiledSchema {
    CompiledSchema::new(&schemars::schema_for!(Inputs).to_value())
}

fn problems(text: &str) -> Vec<Diagnostic> {
    let node = yaml::parse(SourceId(0), text).unwrap_or_else(|e| panic!("{text}: {e:?}"));
    schema().check("file.put", &node, text)
}

#[test]
fn what_fits_is_left_alone() {
    for text in [
        "path: a",
        "{ path: a, mode: '0644', port: 65535, ratio: 1, force: true, state: absent }",
        "{ path: '{{ inputs.p }}', mode: '{{ inputs.m }}', port: '{{ inputs.n }}', force: '{{ inputs.f }}', state: '{{ inputs.s }}', mounts: '{{ inputs.l }}', source: '{{ inputs.o }}' }",
        "{ path: 'a/{{ inputs.p }}', name: 'x-{{ inputs.n }}-long', state: 'pre{{ inputs.s }}', period: '{{ inputs.t }}s' }",
        "{ path: a, mode: null, port: ~, mounts: [], source: stdin }",
        "{ path: a, source: { text: x } }",
        "{ path: a, source: { remote: { url: u, retries: 3 } } }",
        "{ path: a, mounts: [ { path: b, size: -1 }, '{{ inputs.m }}' ], headers: { A: b, C: 'd{{ inputs.e }}' } }",
        "{ path: a, body: { any: [ 1, x, null ] }, pair: [ 1, x ], codes: [ 1, 2 ], argv: [ ls ] }",
        "{ path: a, codes: any, period: 1h30m, regex: '^a+$', address: 192.0.2.7, url: 'https://x.y/z', host: db1.example.com, until: 'status == 200', timezone: Europe/Berlin }",
        "{ path: a, tree: { name: x, children: [ { name: y, children: [ { name: z } ] } ] } }",
        r"{ path: '\{{x}}', name: '\{{x}}' }",
    ] {
        let found = problems(text);
        assert!(found.is_empty(), "{text}: {found:#?}");
    }
}

#[test]
fn diagnostics() {
    let texts = [
        "{ }",
        "pth: a",
        "{ path: a, frobnicate: 1 }",
        "path: 3.10",
        "path: 0777",
        "path: true",
        "path:",
        "path: ~",
        "path: [ a ]",
        "{ path: a, mode: 0644 }",
        "{ path: a, mode: '0689' }",
        "{ path: a, port: 70000 }",
        "{ path: a, port: -1 }",
        "{ path: a, port: '80' }",
        "{ path: a, port: 80.0 }",
        "{ path: a, port: 'p{{ inputs.x }}' }",
        "{ path: a, ratio: high }",
        "{ path: a, force: yes }",
        "{ path: a, force: 'true' }",
        "{ path: a, force: 1 }",
        "{ path: a, state: absnt }",
        "{ path: a, state: [ absent ] }",
        "{ path: a, source: stdn }",
        "{ path: a, source: { txt: x } }",
        "{ path: a, source: { text: x, remote: { url: y } } }",
        "{ path: a, source: { } }",
        "{ path: a, source: { remote: { retries: -1 } } }",
        "{ path: a, source: 3 }",
        "{ path: a, mounts: { path: b } }",
        "{ path: a, mounts: [ { size: 1 }, { path: c, sise: 2 }, x ] }",
        "{ path: a, headers: { Accept: 1.0, X: [ ] } }",
        "{ path: a, argv: [ ] }",
        "{ path: a, argv: ls }",
        "{ path: a, pair: [ 300 ] }",
        "{ path: a, level: 6, name: ABC }",
        "{ path: a, name: toolongname }",
        "{ path: a, period: 5 }",
        "{ path: a, period: 5min }",
        "{ path: a, regex: '(' }",
        "{ path: a, address: 192.0.2 }",
        "{ path: a, url: example.com }",
        "{ path: a, host: -bad-.example }",
        "{ path: a, until: 'status = 200' }",
        "{ path: a, timezone: Europe/Berln }",
        "{ path: a, tree: { name: x, children: [ { nam: y } ] } }",
        "{ path: a, codes: all }",
        "{ path: a, codes: [ x ] }",
        "{ path: a, codes: { } }",
        "[ a ]",
    ];
    let mut told = String::new();
    for text in texts {
        let source = Source::new("x", text);
        let found = problems(text);
        assert!(!found.is_empty(), "{text}");
        writeln!(told, "{text}").unwrap();
        for d in found {
            let at = source.position(d.labels[0].span.start).column - 1;
            let marks = "^".repeat(d.labels[0].span.len().max(1));
            writeln!(told, "{}{marks} {}\n  {} {}", " ".repeat(at), d.labels[0].text, d.code.name(), d.message)
                .unwrap();
            if let Some(help) = d.help {
                writeln!(told, "  help: {help}").unwrap();
            }
        }
    }
    insta::assert_snapshot!(told);
}

/// `jsonschema`-like behaviour is not the goal, serde's is: what passes must decode.
#[test]
fn what_passes_decodes() {
    for text in [
        "path: a",
        "{ path: a, source: stdin, port: 1, pair: [ 1, x ], state: absent }",
        "{ path: a, ratio: 1, body: 1 }",
    ] {
        let node = yaml::parse(SourceId(0), text).unwrap();
        assert!(schema().check("t", &node, text).is_empty());
        let json = crate::template::ValueTemplate::compile(text, &node).unwrap().literal().unwrap().clone();
        Inputs::deserialize(json).unwrap();
    }
}

#[test]
fn schemas_of_every_shape_compile() {
    for schema in [
        json!(true),
        json!(false),
        json!(null),
        json!({}),
        json!({"$ref": "#/$defs/gone"}),
        json!({"$ref": "#"}),
        json!({"anyOf": [{"$ref": "#"}], "type": "string"}),
        json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "properties": {"x": {"$ref": "#/$defs/a"}}}),
        json!({"type": ["string", "odd"], "pattern": "(", "minLength": -1, "enum": "x", "required": 3}),
    ] {
        let text = "{ x: 1 }";
        let node = yaml::parse(SourceId(0), text).unwrap();
        let _ = check("t", &schema, &node, text);
    }
}
