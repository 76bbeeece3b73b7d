//! The JSON Schemas that are checked in under `schemas/`. Made from the code: nothing here is a second truth, apart
//! from the keys of the playbook, whose reader is written by hand.

pub(crate) mod playbook;

use runback_core::Json;
use runback_core::step::{AnyStepType, Catalog};
use serde_json::json;

pub(crate) const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// File names under `schemas/`, and what is in them.
pub(crate) fn all(catalog: &Catalog) -> Vec<(String, Json)> {
    let mut all = vec![
        ("playbook.schema.json".to_owned(), playbook::schema(catalog)),
        ("events.schema.json".to_owned(), events()),
    ];
    #[cfg(feature = "serve")]
    all.push(("openapi.json".to_owned(), crate::serve::openapi_document()));
    all.extend(catalog.iter().map(|t| (format!("steps/{}.json", t.descriptor().name), step(&**t))));
    all
}

/// One line of `--output json`: the stored event with the run's id.
fn events() -> Json {
    let mut schema = schemars::schema_for!(runback_core::event::Event).to_value();
    schema["$schema"] = DIALECT.into();
    schema["title"] = "runback event".into();
    schema["description"] = "One line of `runback run --output json`, and of the journal (which has no `run`).".into();
    schema["properties"]["run"] = json!({ "type": "string", "description": "The run's id." });
    schema
}

/// Inputs and outputs of one step type.
fn step(step_type: &dyn AnyStepType) -> Json {
    let d = step_type.descriptor();
    json!({
        "$schema": DIALECT,
        "title": d.name,
        "description": d.doc,
        "type": "object",
        "properties": {
            "inputs": embedded(step_type.input_schema(), "inputs"),
            "outputs": embedded(step_type.output_schema(), "outputs"),
        },
        "x-runback": {
            "access": d.access, "undo": d.undo, "on_interrupt": d.on_interrupt, "commands": d.commands,
            "examples": d.examples,
        },
    })
}

/// A schema inside another one: an `$id` of its own keeps its references to its own `$defs`.
fn embedded(mut schema: Json, id: &str) -> Json {
    if let Some(map) = schema.as_object_mut() {
        map.remove("$schema");
        map.insert("$id".to_owned(), id.into());
    }
    schema
}
