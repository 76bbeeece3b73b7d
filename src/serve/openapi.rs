//! The OpenAPI document, made from the table of routes. Nothing is said here that the table does not say.

use runback_core::Json;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, json};

use super::api;
use super::problem::ProblemBody;
use super::route::{Route, Shape};

pub(crate) fn document() -> Json {
    let mut settings = SchemaSettings::draft2020_12();
    "/components/schemas".clone_into(settings.definitions_path.to_mut());
    settings.meta_schema = None;
    let mut generator = settings.into_generator();
    let problem = generator.subschema_for::<ProblemBody>().to_value();
    let mut paths = Map::new();
    for route in api::table() {
        let operation = operation(&route, &problem, &mut generator);
        let entry = paths.entry(route.path.to_owned()).or_insert_with(|| json!({}));
        entry[route.method.as_str().to_lowercase()] = operation;
    }
    let schemas = generator.take_definitions(true);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "runback",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "MIT OR Apache-2.0" },
            "description": "Runs, schedules and playbooks of one `runback serve`. Times are milliseconds since the epoch.",
        },
        "security": [{ "token": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer", "description": "Made by `runback token create`." },
            },
        },
    })
}

fn operation(route: &Route, problem: &Json, generator: &mut SchemaGenerator) -> Json {
    let Shape { path, query, body, answer } = (route.shape)(generator);
    let mut parameters = parameters(&path.to_value(), "path");
    parameters.extend(self::parameters(&query.to_value(), "query"));
    let schema = answer.map_or_else(|| json!({ "type": "string" }), schemars::Schema::to_value);
    let mut responses = Map::new();
    responses.insert(
        route.status.as_str().to_owned(),
        json!({ "description": "As asked.", "content": { route.media: { "schema": schema } } }),
    );
    for (status, about) in problems(body.is_some(), !parameters.is_empty()) {
        let content = json!({ "application/json": { "schema": problem } });
        responses.insert(status.to_string(), json!({ "description": about, "content": content }));
    }
    let mut operation = json!({
        "operationId": route.id,
        "summary": route.doc,
        "x-runback-role": route.role.name(),
        "parameters": parameters,
        "responses": responses,
    });
    if let Some(body) = body {
        operation["requestBody"] = json!({ "content": { "application/json": { "schema": body.to_value() } } });
    }
    operation
}

fn problems(changes: bool, takes_something: bool) -> Vec<(u16, &'static str)> {
    let mut all = vec![
        (401, "No token, or one that is not known, has ended or was revoked."),
        (403, "The token's roles do not allow it, or the request comes from another origin."),
        (500, "A mistake in runback, or a damaged store."),
        (503, "The store cannot be reached now, or the server is busy or ending. Retry-After says when to ask again."),
    ];
    if takes_something || changes {
        all.push((400, "What was sent is not what is described here."));
        all.push((404, "There is no such thing."));
        all.push((409, "As things stand it cannot be done."));
    }
    if changes {
        all.push((413, "The body is too large."));
    }
    all.sort_unstable();
    all
}

/// Properties of an object's schema, one by one.
fn parameters(schema: &Json, place: &str) -> Vec<Json> {
    let Some(properties) = schema.get("properties").and_then(Json::as_object) else { return Vec::new() };
    let required = schema.get("required").and_then(Json::as_array);
    let is_required = |name: &String| required.is_some_and(|all| all.iter().any(|r| r == name.as_str()));
    let one = |(name, schema): (&String, &Json)| {
        let mut schema = schema.clone();
        let about = schema.as_object_mut().and_then(|s| s.remove("description")).unwrap_or_default();
        let mut parameter =
            json!({ "name": name, "in": place, "required": place == "path" || is_required(name), "schema": schema });
        if about.is_string() {
            parameter["description"] = about;
        }
        parameter
    };
    properties.iter().map(one).collect()
}
