//! Playbooks of the server's folder: their texts, what the check says, what a run would do, and what it must be given.

use std::sync::Arc;

use runback_core::Json;
use runback_core::plan::Plan;
use runback_core::playbook::model::{InputDecl, InputType};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, json};

use crate::cmd::plan;
use crate::inputs::Inputs;
use crate::preview::Previews;
use crate::serve::App;
use crate::serve::actions;
use crate::serve::library::Entry;
use crate::serve::problem::Problem;
use crate::serve::route::{Call, Nothing, Ok200};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlaybookPath {
    /// Its path in the folder, without the extension; a slash in it is written %2F.
    #[schemars(example = &"last")]
    playbook: String,
}

/// A playbook in a list.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct PlaybookHead {
    id: String,
    /// As the playbook says; null when no text of it was ever good.
    name: Option<String>,
    description: Option<String>,
    /// Its file is broken now; what runs is the last text that was good.
    broken: bool,
    errors: usize,
    warnings: usize,
    steps: usize,
    schedules: usize,
    /// The digest of the plan that a run would follow.
    digest: Option<String>,
    /// When that text was first seen.
    since: Option<u64>,
}

impl From<&Entry> for PlaybookHead {
    fn from(entry: &Entry) -> Self {
        let good = entry.good.as_ref();
        let plan = good.map(|g| &g.plan);
        let errors = entry.now.errors();
        Self {
            id: entry.id.clone(),
            name: plan.map(|p| p.name.clone()),
            description: plan.and_then(|p| p.description.clone()),
            broken: entry.is_broken(),
            errors,
            warnings: entry.now.diagnostics.len() - errors,
            steps: plan.map_or(0, |p| p.steps.len()),
            schedules: good.map_or(0, |g| g.schedules.len()),
            digest: plan.map(|p| p.digest().to_owned()),
            since: good.map(|g| g.since),
        }
    }
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct PlaybookList {
    playbooks: Vec<PlaybookHead>,
}

pub(crate) async fn list(call: Call<Nothing, Nothing, Nothing>) -> Result<Ok200<PlaybookList>, Problem> {
    Ok(Ok200(PlaybookList { playbooks: call.app.library.all().iter().map(Into::into).collect() }))
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct PlaybookView {
    #[serde(flatten)]
    head: PlaybookHead,
    file: String,
    /// The file as it is now.
    text: String,
    /// The text that a run would follow; null when it is the one above, or when none was ever good.
    good_text: Option<String>,
    /// As `runback check --output json` has them.
    diagnostics: Vec<Json>,
    /// A JSON Schema of the inputs, in their order; `x-secret` marks what is never stored.
    inputs: Json,
}

pub(crate) async fn show(call: Call<PlaybookPath, Nothing, Nothing>) -> Result<Ok200<PlaybookView>, Problem> {
    let id = &call.path.playbook;
    let entry = call.app.library.get(id).ok_or_else(|| Problem::not_found(format!("there is no playbook `{id}`")))?;
    let sources = &entry.now.sources;
    let text = sources.iter().next().map(|(_, source)| source.text.to_string()).unwrap_or_default();
    let good = entry.good.as_ref();
    let good_text = good.and_then(|g| g.texts.first()).map(|t| t.text.clone()).filter(|good| *good != text);
    Ok(Ok200(PlaybookView {
        head: (&entry).into(),
        file: entry.file.display().to_string(),
        diagnostics: entry.now.diagnostics.iter().map(|d| d.to_json(sources)).collect(),
        inputs: good.map_or(Json::Null, |g| input_schema(&g.plan.scopes[0].inputs)),
        good_text,
        text,
    }))
}

/// What must be given to a run, as a JSON Schema.
fn input_schema(decls: &[InputDecl]) -> Json {
    let properties: Map<_, _> = decls.iter().map(|d| (d.name.value.clone(), one_input(d))).collect();
    let required: Vec<_> = decls.iter().filter(|d| d.default.is_none()).map(|d| d.name.value.as_str()).collect();
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

fn one_input(decl: &InputDecl) -> Json {
    let name = match decl.input_type {
        InputType::Integer => "integer",
        InputType::Number => "number",
        InputType::Boolean => "boolean",
        InputType::List => "array",
        InputType::Map => "object",
        _ => "string",
    };
    let mut one = json!({ "type": name, "x-type": decl.input_type.name() });
    let mut set = |key: &str, value: Json| {
        if !value.is_null() {
            one[key] = value;
        }
    };
    set("description", json!(decl.description));
    set("default", json!(decl.default.as_ref().map(|d| &d.value)));
    set("pattern", json!(decl.pattern.as_ref().map(|p| format!("^(?:{})$", p.value))));
    set("format", json!(decl.format.as_ref().map(|f| f.value.as_str())));
    set("minimum", json!(decl.min));
    set("maximum", json!(decl.max));
    if !decl.options.is_empty() {
        set("enum", json!(decl.options));
    }
    if decl.secret {
        set("x-secret", true.into());
    }
    one
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlanInputs {
    /// Values by name; those that are missing are listed in the answer.
    #[serde(default)]
    inputs: Map<String, Json>,
}

/// The plan, the values that are known, and the names of the others.
fn planned(
    app: &App,
    id: &str,
    given: Map<String, Json>,
) -> Result<(Arc<Plan>, Inputs, Vec<String>, std::path::PathBuf), Problem> {
    let good = super::playbook(app, id)?;
    let decls = &good.plan.scopes[0].inputs;
    let has_value = |d: &InputDecl| d.default.is_some() || given.contains_key(&d.name.value);
    let missing: Vec<String> = decls.iter().filter(|d| !has_value(d)).map(|d| d.name.value.clone()).collect();
    let known: Vec<InputDecl> = decls.iter().filter(|d| has_value(d)).cloned().collect();
    let inputs = actions::resolve(&known, given)?;
    Ok((Arc::clone(&good.plan), inputs, missing, good.base.clone()))
}

pub(crate) async fn plan(call: Call<PlaybookPath, Nothing, PlanInputs>) -> Result<Ok200<Json>, Problem> {
    let (plan, inputs, missing, _) = planned(&call.app, &call.path.playbook, call.body.inputs)?;
    let previews = Previews::blind(&plan, &inputs);
    Ok(Ok200(plan::as_json(&plan, &inputs, &missing, &previews)))
}

pub(crate) async fn preview(call: Call<PlaybookPath, Nothing, PlanInputs>) -> Result<Ok200<Json>, Problem> {
    let (plan, inputs, missing, base) = planned(&call.app, &call.path.playbook, call.body.inputs)?;
    let state_dir = call.app.settings.state_dir.clone();
    // It has a runtime of its own.
    let looked = tokio::task::spawn_blocking(move || {
        let previews = Previews::look(&plan, &inputs, &missing, &base, &state_dir)?;
        Ok::<_, crate::failure::Failure>(plan::as_json(&plan, &inputs, &missing, &previews))
    });
    match looked.await {
        Ok(looked) => Ok(Ok200(looked?)),
        Err(_) => Err(Problem::internal("the preview could not be made")),
    }
}
