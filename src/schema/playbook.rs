//! The schema of a playbook: the keys that `runback_core::playbook::lower` reads, and for each step type what stands
//! under its `with`. A test checks the shipped playbooks against it.

use runback_core::Json;
use runback_core::playbook::model::InputType;
use runback_core::playbook::values::FORMATS;
use runback_core::step::{AnyStepType, Catalog};
use serde_json::{Map, json};

use super::DIALECT;

pub(crate) fn schema(catalog: &Catalog) -> Json {
    let mut defs = Map::new();
    for step_type in catalog.iter() {
        add_inputs(&mut defs, &**step_type);
    }
    defs.insert("with.playbook".to_owned(), with_playbook());
    defs.insert("template".to_owned(), json!({ "type": "string", "pattern": r"\{\{" }));
    defs.insert("duration".to_owned(), duration());
    defs.insert("locks".to_owned(), strings("Names of locks; templates."));
    defs.insert("env".to_owned(), json!({ "type": "object", "additionalProperties": { "type": "string" } }));
    defs.insert("retry".to_owned(), retry());
    defs.insert("on_failure".to_owned(), json!({ "enum": ["rollback", "hold", "continue"] }));
    defs.insert("input".to_owned(), input());
    defs.insert("secret".to_owned(), secret());
    defs.insert("target".to_owned(), target());
    defs.insert("schedule".to_owned(), schedule());
    defs.insert("for_each".to_owned(), for_each());
    defs.insert("step".to_owned(), step(catalog));
    defs.insert("rollback".to_owned(), rollback(catalog));
    json!({
        "$schema": DIALECT,
        "title": "runback playbook",
        "type": "object",
        "required": ["runback", "name", "steps"],
        "additionalProperties": false,
        "properties": playbook_keys(),
        "$defs": defs,
    })
}

fn reference(name: &str) -> Json {
    json!({ "$ref": format!("#/$defs/{name}") })
}

/// A reference with its own description.
fn described(name: &str, description: &str) -> Json {
    json!({ "$ref": format!("#/$defs/{name}"), "description": description })
}

fn map_of(name: &str, description: &str) -> Json {
    json!({ "type": "object", "additionalProperties": reference(name), "description": description })
}

fn strings(description: &str) -> Json {
    json!({
        "description": description,
        "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }],
    })
}

fn duration() -> Json {
    json!({
        "type": "string", "pattern": "^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$", "minLength": 2,
        "description": "500ms, 30s, 10m, 1h30m, 2d",
    })
}

fn playbook_keys() -> Json {
    json!({
        "runback": { "const": 1, "description": "The version of the language." },
        "name": { "type": "string", "minLength": 1, "maxLength": 100 },
        "description": { "type": "string" },
        "inputs": map_of("input", "Values given at the start: `-i name=value`."),
        "secrets": map_of("secret", "Values that are masked in everything that runback writes."),
        "targets": {
            "type": "object",
            "description": "Machines where steps act, and groups of them.",
            "properties": { "inventory": strings("Files with more of them: like this map, or an inventory of Ansible's.") },
            "additionalProperties": reference("target"),
        },
        "defaults": {
            "type": "object", "additionalProperties": false, "description": "What steps have unless they say otherwise.",
            "properties": with_policy(json!({ "target": { "type": "string" }, "env": reference("env") })),
        },
        "locks": described("locks", "Taken for the whole run, and held through its rollback."),
        "max_parallel": { "type": "integer", "minimum": 1, "maximum": 10_000, "description": "Attempts at once; default 8." },
        "timeout": described("duration", "Of the whole run."),
        "on_failure": described("on_failure", "What follows a failure: default rollback."),
        "fail_fast": { "type": "boolean", "description": "A failure stops what runs." },
        "schedule": { "type": "array", "items": reference("schedule") },
        "steps": { "type": "array", "items": reference("step"), "minItems": 1 },
        "finally": { "type": "array", "items": reference("step"), "description": "Runs at the end, however it came." },
        "outputs": { "type": "object", "description": "Name → value; values may be templates." },
    })
}

fn with_policy(mut keys: Json) -> Json {
    let policy = json!({
        "timeout": described("duration", "Of one attempt."),
        "deadline": described("duration", "Over all attempts."),
        "idle_timeout": described("duration", "Without output."),
        "kill_grace": described("duration", "From TERM to KILL; default 10s."),
        "retry": reference("retry"),
        "on_interrupt": {
            "enum": ["rerun", "ask"],
            "description": "When the outcome is unknown after a crash: do it again, or ask.",
        },
        "detach": { "type": "boolean", "description": "The command outlives runback and is attached to again." },
    });
    if let (Json::Object(keys), Json::Object(policy)) = (&mut keys, policy) {
        keys.extend(policy);
    }
    keys
}

fn retry() -> Json {
    let on = json!({
        "anyOf": [{ "enum": ["transient", "timeout", "any"] }, { "type": "integer", "minimum": 1, "maximum": 255 }]
    });
    json!({
        "description": "A number of tries, or a policy.",
        "anyOf": [
            { "type": "integer", "minimum": 1 },
            {
                "type": "object", "additionalProperties": false,
                "properties": {
                    "max_attempts": { "type": "integer", "minimum": 1, "description": "Total tries; 1 is no retry." },
                    "initial_interval": reference("duration"),
                    "backoff_coefficient": { "type": "number", "minimum": 1, "maximum": 100, "default": 2 },
                    "max_interval": reference("duration"),
                    "jitter": { "type": "number", "minimum": 0, "maximum": 1, "default": 0.1 },
                    "retry_on": { "anyOf": [on, { "type": "array", "items": on, "minItems": 1 }] },
                    "on_exhausted": { "enum": ["fail", "hold"], "default": "fail" },
                },
            },
        ],
    })
}

fn input() -> Json {
    let types: Vec<&str> = InputType::ALL.iter().map(|t| t.name()).collect();
    let map = json!({
        "type": "object", "additionalProperties": false, "required": ["type"],
        "properties": {
            "type": { "enum": types },
            "description": { "type": "string" },
            "default": { "description": "Without one the input must be given." },
            "pattern": { "type": "string", "format": "regex", "description": "The whole value must match." },
            "format": { "enum": FORMATS },
            "options": { "type": "array", "description": "The value must be one of these." },
            "min": { "type": "number" },
            "max": { "type": "number" },
            "env": { "type": "string", "description": "Environment variable that gives it when nothing else does." },
            "secret": { "type": "boolean", "description": "Masked, never stored, and given again on resume." },
        },
    });
    json!({ "anyOf": [{ "enum": types }, map] })
}

fn secret() -> Json {
    let command = json!({
        "type": "array", "items": { "type": "string" }, "minItems": 1,
        "description": "A command as a list of words; its stdout, without one newline at the end.",
    });
    json!({
        "type": "object", "additionalProperties": false, "minProperties": 1, "maxProperties": 1,
        "properties": {
            "env": { "type": "string" }, "file": { "type": "string" }, "command": command,
        },
    })
}

fn target() -> Json {
    let ssh = json!({
        "type": "object", "additionalProperties": false, "required": ["host"],
        "properties": {
            "host": { "type": "string", "description": "As ssh takes it, an alias of ~/.ssh/config included." },
            "user": { "type": "string" },
            "port": { "type": "integer", "minimum": 1, "maximum": 65535 },
            "identity": { "type": "string" },
            "options": { "type": "object", "additionalProperties": { "type": ["string", "integer"] } },
            "become": { "type": ["boolean", "string"], "description": "true is root; by `sudo -n`." },
        },
    });
    let names = json!({ "type": "array", "items": { "type": "string" }, "minItems": 1 });
    json!({
        "anyOf": [
            { "const": "local" },
            names,
            {
                "type": "object", "additionalProperties": false, "minProperties": 1, "maxProperties": 1,
                "properties": { "ssh": { "anyOf": [{ "type": "string" }, ssh] }, "group": names },
            },
        ],
    })
}

fn schedule() -> Json {
    json!({
        "type": "object", "additionalProperties": false, "required": ["cron"],
        "properties": {
            "cron": { "type": "string" },
            "timezone": { "type": "string" },
            "jitter": reference("duration"),
            "start_at": { "type": "string" },
            "end_at": { "type": "string" },
            "paused": { "type": "boolean" },
            "inputs": { "type": "object" },
            "overlap": { "enum": ["skip", "buffer_one", "buffer_all", "cancel_other", "allow_all"] },
            "catchup_window": reference("duration"),
            "catchup": { "enum": ["none", "last", "all"] },
            "dst_gap": { "enum": ["shift", "skip"] },
            "dst_fold": { "enum": ["first", "last", "both"] },
            "pause_on_failure": { "type": "boolean" },
        },
    })
}

fn for_each() -> Json {
    let items = json!({ "anyOf": [{ "type": "array" }, reference("template")] });
    json!({
        "anyOf": [
            items,
            {
                "type": "object", "additionalProperties": false, "required": ["items"],
                "properties": {
                    "items": { "anyOf": [{ "type": ["array", "object"] }, reference("template")] },
                    "as": { "type": "string", "description": "What an item is called; default each." },
                    "key": { "type": "string", "description": "What an instance is called; a template." },
                    "max_parallel": { "type": "integer", "minimum": 1, "maximum": 10_000 },
                    "fail_fast": { "type": "boolean" },
                },
            },
        ],
    })
}

fn step(catalog: &Catalog) -> Json {
    let keys = with_policy(json!({
        "id": { "type": "string", "pattern": "^[a-z][a-z0-9-]{0,63}$" },
        "uses": uses(catalog.names().chain(["playbook"])),
        "with": { "type": "object" },
        "run": { "type": "string", "minLength": 1, "description": "A script: bash -euo pipefail, else sh -eu." },
        "steps": { "type": "array", "items": reference("step"), "minItems": 1, "description": "A block." },
        "needs": strings("Steps before this one; default: the one above. [] starts at once."),
        "when": { "type": ["string", "boolean"], "description": "A condition; false skips the step." },
        "for_each": reference("for_each"),
        "target": { "type": "string" },
        "env": reference("env"),
        "rollback": reference("rollback"),
        "irreversible": { "type": "boolean", "description": "A point of no return: once it succeeded, nothing before it is undone." },
        "continue_on_error": { "type": "boolean", "description": "A failure counts as success for dependents." },
        "locks": described("locks", "Taken for this step, held through rollback."),
        "outputs": { "type": "object", "description": "Of `run`: name → stdout, file, {json: …}, {regex: …}; of a block: name → value." },
        "on_failure": reference("on_failure"),
    }));
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": keys,
        "oneOf": [{ "required": ["uses"] }, { "required": ["run"] }, { "required": ["steps"] }],
        "allOf": inputs_by_type(catalog),
    })
}

fn rollback(catalog: &Catalog) -> Json {
    json!({
        "anyOf": [
            { "enum": ["auto", "none"] },
            {
                "type": "object", "additionalProperties": false,
                "properties": {
                    "uses": uses(catalog.names()),
                    "with": { "type": "object" },
                    "run": { "type": "string", "minLength": 1 },
                    "if": { "enum": ["started", "succeeded"], "default": "started" },
                },
                "oneOf": [{ "required": ["uses"] }, { "required": ["run"] }],
                "allOf": inputs_by_type(catalog),
            },
        ],
    })
}

fn uses<'n>(names: impl Iterator<Item = &'n str>) -> Json {
    json!({ "enum": names.collect::<Vec<_>>(), "description": "A step type." })
}

/// What stands under `with` follows from `uses`.
fn inputs_by_type(catalog: &Catalog) -> Json {
    let one = |name: &'static str| {
        json!({
            "if": { "properties": { "uses": { "const": name } }, "required": ["uses"] },
            "then": { "properties": { "with": reference(&format!("with.{name}")) } },
        })
    };
    catalog.names().chain(["playbook"]).map(one).collect()
}

/// What stands under the `with` of `uses: playbook`, which is part of the language and no step type.
pub(crate) fn with_playbook() -> Json {
    json!({
        "type": "object", "additionalProperties": false, "required": ["file"],
        "properties": {
            "file": {
                "type": "string",
                "description": "Its path, written out; counts from the folder of the playbook that is run.",
            },
            "inputs": { "type": ["object", "null"], "description": "A value or a template for each of its inputs." },
        },
    })
}

/// Adds the schema of a step type's inputs, in which a template may stand for any value, and its own `$defs`.
fn add_inputs(defs: &mut Map<String, Json>, step_type: &dyn AnyStepType) {
    let name = step_type.descriptor().name;
    let mut schema = step_type.input_schema();
    prefix_references(&mut schema, name);
    if let Some(Json::Object(own)) = schema.as_object_mut().and_then(|s| s.remove("$defs")) {
        for (key, mut value) in own {
            allow_templates(&mut value);
            defs.insert(format!("{name}.{key}"), value);
        }
    }
    if let Some(map) = schema.as_object_mut() {
        map.remove("$schema");
        map.remove("title");
    }
    allow_templates(&mut schema);
    defs.insert(format!("with.{name}"), schema);
}

fn prefix_references(schema: &mut Json, name: &str) {
    match schema {
        Json::Object(map) => {
            if let Some(Json::String(target)) = map.get_mut("$ref")
                && let Some(key) = target.strip_prefix("#/$defs/")
            {
                *target = format!("#/$defs/{name}.{key}");
            }
            map.values_mut().for_each(|v| prefix_references(v, name));
        }
        Json::Array(list) => list.iter_mut().for_each(|v| prefix_references(v, name)),
        _ => {}
    }
}

/// Every value inside may be a template instead; the schema's own level stays as it is.
fn allow_templates(schema: &mut Json) {
    let Some(map) = schema.as_object_mut() else { return };
    if let Some(Json::Object(properties)) = map.get_mut("properties") {
        properties.values_mut().for_each(or_template);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner @ Json::Object(_)) = map.get_mut(key) {
            or_template(inner);
        }
    }
    for key in ["anyOf", "oneOf", "allOf", "prefixItems"] {
        if let Some(Json::Array(list)) = map.get_mut(key) {
            list.iter_mut().for_each(allow_templates);
        }
    }
}

fn or_template(schema: &mut Json) {
    allow_templates(schema);
    let any_string = schema.get("type").is_some_and(|t| *t == "string" || *t == json!(["string", "null"]))
        && ["enum", "pattern", "format", "minLength", "maxLength", "const"].iter().all(|k| schema.get(k).is_none());
    if any_string || schema.is_boolean() {
        return;
    }
    let description = schema.as_object_mut().and_then(|s| s.remove("description"));
    let default = schema.as_object_mut().and_then(|s| s.remove("default"));
    let inner = std::mem::take(schema);
    let mut outer = Map::new();
    outer.extend(description.map(|d| ("description".to_owned(), d)));
    outer.extend(default.map(|d| ("default".to_owned(), d)));
    // `x: null` is how YAML writes an empty value, and the serde types take it for "not given".
    outer.insert("anyOf".to_owned(), json!([inner, reference("template")]));
    *schema = Json::Object(outer);
}
