//! Scripted outcomes: what each step is to give or how it is to fail, and a step type that follows it in place of the
//! real one.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use runback_core::Json;
use runback_core::plan::Plan;
use runback_core::step::{
    Access, Acted, AnyStepType, Class, Cx, Descriptor, InputProblem, OutputNames, Preview, Probe, StepError, UndoKind,
    Undone,
};
use runback_core::target::Stream;
use runback_core::template::ValueTemplate;
use serde_json::{Map, json};

use super::lists::{self, Lists};

/// One attempt.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    /// Laid over outputs that are made up from the step type's schema.
    pub(crate) outputs: Map<String, Json>,
    pub(crate) changed: Option<bool>,
    pub(crate) fail: Option<StepError>,
    /// By the virtual clock.
    pub(crate) takes: Duration,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Rule {
    /// By attempt; the last one stands for all that follow. Empty = it succeeds.
    pub(crate) attempts: Vec<Outcome>,
    pub(crate) undo_fail: Option<StepError>,
    /// The operator says skip after it failed.
    pub(crate) skip: bool,
    /// Of several instances only the first to start.
    pub(crate) first_only: bool,
}

/// By path, exact or without the keys of instances.
#[derive(Debug, Default)]
pub(crate) struct Script {
    rules: HashMap<String, Rule>,
    /// What a `for_each` of the plan goes over; known once there is a plan.
    lists: OnceLock<Lists>,
    /// Which instance a `first_only` rule has met.
    firsts: Mutex<HashMap<String, String>>,
    /// Paths whose undo has begun: what acts under their name from then on is their `rollback`.
    undoing: Mutex<HashSet<String>>,
}

/// `deploy/convert[web1]` is an instance of `deploy/convert`.
pub(crate) fn bare(path: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    for c in path.chars() {
        match c {
            '[' => inside = true,
            ']' => inside = false,
            c if !inside => out.push(c),
            _ => {}
        }
    }
    out
}

impl Script {
    pub(crate) fn new(rules: HashMap<String, Rule>) -> Self {
        Self { rules, ..Self::default() }
    }

    /// The plan whose steps follow it.
    pub(crate) fn is_for(&self, plan: &Plan) {
        self.lists.get_or_init(|| lists::of(plan));
    }

    /// The names with rules.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.rules.keys().map(String::as_str)
    }

    pub(crate) fn undo_begins(&self, path: &str) {
        self.undoing.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned());
    }

    fn is_undoing(&self, path: &str) -> bool {
        self.undoing.lock().unwrap_or_else(PoisonError::into_inner).contains(path)
    }

    fn rule(&self, path: &str) -> Option<&Rule> {
        if self.rules.is_empty() {
            return None;
        }
        if let Some(exact) = self.rules.get(path) {
            return Some(exact);
        }
        let bare = bare(path);
        let rule = self.rules.get(&bare)?;
        if rule.first_only {
            let mut firsts = self.firsts.lock().unwrap_or_else(PoisonError::into_inner);
            if firsts.entry(bare).or_insert_with(|| path.to_owned()) != path {
                return None;
            }
        }
        Some(rule)
    }

    pub(crate) fn skips(&self, path: &str) -> bool {
        self.rule(path).is_some_and(|r| r.skip)
    }
}

/// A failure of a class, as a script gives it.
pub(crate) fn failure(class: Class, message: Option<String>, exit_code: Option<i32>) -> StepError {
    let message = message.unwrap_or_else(|| format!("a scripted failure ({})", class.name()));
    StepError { exit_code, ..StepError::new(class, message) }
}

/// `transient`, `permanent`, `timeout` or `conflict`.
pub(crate) fn class(word: &str) -> Option<Class> {
    [Class::Transient, Class::Permanent, Class::Timeout, Class::Conflict].into_iter().find(|c| c.name() == word)
}

/// A step type that does nothing but what the script says.
pub(crate) struct Scripted {
    inner: Arc<dyn AnyStepType>,
    script: Arc<Script>,
}

impl Scripted {
    pub(crate) fn new(inner: Arc<dyn AnyStepType>, script: Arc<Script>) -> Self {
        Self { inner, script }
    }

    /// Made-up values for all outputs that a step with these inputs has.
    fn made_up(&self, path: &str, inputs: &Json) -> Map<String, Json> {
        let schema = self.inner.output_schema();
        let mut outputs = match sample(&schema, &schema, "", 0) {
            Json::Object(map) => map,
            _ => Map::new(),
        };
        if let OutputNames::Closed(names) = self.inner.output_names(&ValueTemplate::Literal(inputs.clone())) {
            for name in names {
                outputs.entry(name.clone()).or_insert_with(|| Json::String(format!("<{name}>")));
            }
        }
        let step = bare(path);
        for ((_, name), wanted) in self.script.lists.get().into_iter().flatten().filter(|((of, _), _)| *of == step) {
            let item = || Some(sample(&schema, schema.pointer(&format!("/properties/{name}/items"))?, name, 1));
            lists::put(outputs.entry(name.clone()).or_insert(Json::Null), wanted, &item);
        }
        outputs
    }
}

#[async_trait::async_trait]
impl AnyStepType for Scripted {
    fn descriptor(&self) -> Descriptor {
        self.inner.descriptor()
    }

    fn input_schema(&self) -> Json {
        self.inner.input_schema()
    }

    fn output_schema(&self) -> Json {
        self.inner.output_schema()
    }

    fn problems(&self, inputs: &Json) -> Vec<InputProblem> {
        self.inner.problems(inputs)
    }

    fn decodes(&self, inputs: &Json) -> bool {
        self.inner.decodes(inputs)
    }

    fn output_names(&self, with: &ValueTemplate) -> OutputNames {
        self.inner.output_names(with)
    }

    fn capabilities(&self, with: &ValueTemplate) -> (Access, UndoKind) {
        self.inner.capabilities(with)
    }

    async fn preview(&self, _cx: &Cx<'_>, _inputs: &Json) -> Result<Preview, StepError> {
        Ok(Preview::default())
    }

    async fn capture(&self, _cx: &Cx<'_>, _inputs: &Json) -> Result<Json, StepError> {
        Ok(json!({}))
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Json, _capture: &Json) -> Result<Acted<Json>, StepError> {
        let rule = self.script.rule(cx.step);
        if self.script.is_undoing(cx.step) {
            return match rule.and_then(|r| r.undo_fail.clone()) {
                Some(error) => Err(error),
                None => Ok(Acted { outputs: Json::Object(self.made_up(cx.step, inputs)), changed: true }),
            };
        }
        let index = (cx.attempt as usize).saturating_sub(1);
        let outcome = rule.and_then(|r| r.attempts.get(index).or_else(|| r.attempts.last()));
        if let Some(outcome) = outcome
            && !outcome.takes.is_zero()
        {
            tokio::select! {
                () = work(cx, outcome.takes) => {}
                () = cx.host.stopped() => return Err(failure(Class::Cancelled, Some("it was stopped".to_owned()), None)),
            }
        }
        if let Some(mut error) = outcome.and_then(|o| o.fail.clone()) {
            // A command that fails has a code, and retries go by it.
            let has_code = self.inner.output_schema()["properties"].get("exit_code").is_some();
            if has_code && error.class == Class::Permanent {
                error.exit_code.get_or_insert(1);
            }
            return Err(error);
        }
        if outcome.is_none()
            && let Some(acted) = self.inner.work_out(inputs)
        {
            return acted;
        }
        let mut outputs = self.made_up(cx.step, inputs);
        outputs.extend(outcome.map(|o| o.outputs.clone()).unwrap_or_default());
        let changes = self.descriptor().access == Access::Changes;
        let changed = outcome.and_then(|o| o.changed).unwrap_or(changes);
        Ok(Acted { outputs: Json::Object(outputs), changed })
    }

    /// Whether a rule is for this step shows only when it acts.
    fn work_out(&self, inputs: &Json) -> Option<Result<Acted<Json>, StepError>> {
        self.script.rules.is_empty().then(|| self.inner.work_out(inputs))?
    }

    async fn probe(&self, _cx: &Cx<'_>, _inputs: &Json, _capture: &Json) -> Result<Probe<Json>, StepError> {
        Ok(Probe::NotDone)
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        _inputs: &Json,
        _capture: &Json,
        _outputs: Option<&Json>,
    ) -> Result<Undone, StepError> {
        match self.script.rule(cx.step).and_then(|r| r.undo_fail.clone()) {
            Some(error) => Err(error),
            None => Ok(Undone { changed: true, note: None }),
        }
    }
}

/// Takes its time, and gives signs of life all along: a script says nothing of output, so no `idle_timeout` may judge it.
async fn work(cx: &Cx<'_>, takes: Duration) {
    let mut left = takes;
    let sign = (takes / 1_000).max(Duration::from_millis(100));
    while !left.is_zero() {
        let now = left.min(sign);
        cx.host.sleep(now).await;
        cx.host.output(Stream::Stdout, b"");
        left -= now;
    }
}

/// A value that a schema allows.
fn sample(root: &Json, schema: &Json, name: &str, depth: usize) -> Json {
    let target = schema.get("$ref").and_then(Json::as_str).and_then(|r| r.strip_prefix("#/$defs/"));
    let schema = target.and_then(|n| root.get("$defs")?.get(n)).unwrap_or(schema);
    if let Some(default) = schema.get("default").or_else(|| schema.get("const")).filter(|d| !d.is_null()) {
        return default.clone();
    }
    if let Some(first) = schema.get("enum").and_then(Json::as_array).and_then(|e| e.first()) {
        return first.clone();
    }
    if depth > 6 {
        return Json::Null;
    }
    for key in ["anyOf", "oneOf"] {
        let options = schema.get(key).and_then(Json::as_array).into_iter().flatten();
        if let Some(first) = options.map(|o| sample(root, o, name, depth + 1)).find(|v| !v.is_null()) {
            return first;
        }
    }
    let kind = match schema.get("type") {
        Some(Json::String(one)) => one.as_str(),
        Some(Json::Array(many)) => many.iter().filter_map(Json::as_str).find(|t| *t != "null").unwrap_or("null"),
        _ => return Json::Null,
    };
    match kind {
        "string" => format!("<{name}>").into(),
        // 0 is "all is well" for exit codes, and a count that divides nothing.
        "integer" | "number" => schema.get("minimum").filter(|m| m.as_f64() > Some(0.0)).cloned().unwrap_or(0.into()),
        "boolean" => true.into(),
        "array" => json!([]),
        "object" => {
            let properties = schema.get("properties").and_then(Json::as_object).into_iter().flatten();
            properties.map(|(name, field)| (name.clone(), sample(root, field, name, depth + 1))).collect()
        }
        _ => Json::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_go_by_the_name_of_their_step() {
        assert_eq!(bare("deploy/convert[web1]/copy"), "deploy/convert/copy");
    }

    #[test]
    fn every_output_of_every_step_type_has_a_made_up_value() {
        for step_type in runback_steps::catalog().iter() {
            let schema = step_type.output_schema();
            let made = sample(&schema, &schema, "", 0);
            let names = schema["properties"].as_object().map(Map::len).unwrap_or_default();
            assert_eq!(made.as_object().map(Map::len).unwrap_or_default(), names, "{}", step_type.descriptor().name);
        }
    }
}
