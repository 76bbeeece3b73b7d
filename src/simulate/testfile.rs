//! `x.test.yaml`: cases of scripted outcomes and what is expected of them.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use runback_core::Json;
use runback_core::check::schema;
use runback_core::diagnostic::{Code, Diagnostic};
use runback_core::event::OnFailure;
use runback_core::playbook::{duration, yaml};
use runback_core::span::{Source, SourceId, Sources, Span};
use runback_core::step::{Class, StepError};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Map;

use super::script::{self, Outcome, Rule};
use crate::failure::Failure;
use crate::load;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TestFile {
    /// Beside this file.
    pub(crate) playbook: String,
    /// For all cases; a case's own win.
    #[serde(default)]
    pub(crate) inputs: Map<String, Json>,
    /// For all cases; a case's own win, step by step.
    #[serde(default)]
    pub(crate) given: BTreeMap<String, Given>,
    pub(crate) cases: Vec<Case>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) inputs: Map<String, Json>,
    #[serde(default)]
    pub(crate) on_failure: Option<OnFailure>,
    #[serde(default)]
    pub(crate) given: BTreeMap<String, Given>,
    pub(crate) expect: Expect,
}

/// What a step is to do. All attempts alike, or one by one.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Given {
    #[serde(default)]
    outputs: Map<String, Json>,
    #[serde(default)]
    changed: Option<bool>,
    #[serde(default)]
    fail: Option<Json>,
    #[serde(default)]
    takes: Option<String>,
    #[serde(default)]
    attempts: Vec<Attempt>,
    /// Its undo fails.
    #[serde(default)]
    undo_fail: Option<Json>,
    /// It fails, and the operator says skip.
    #[serde(default)]
    skip: bool,
}

#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Attempt {
    #[serde(default)]
    outputs: Map<String, Json>,
    #[serde(default)]
    changed: Option<bool>,
    #[serde(default)]
    fail: Option<Json>,
    #[serde(default)]
    takes: Option<String>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expect {
    /// succeeded, failed, rolled-back, stuck, cancelled or waiting.
    #[serde(default)]
    pub(crate) outcome: Option<String>,
    /// Step → the state that it ends in.
    #[serde(default)]
    pub(crate) states: BTreeMap<String, String>,
    /// Steps in the order in which they start; others may come between.
    #[serde(default)]
    pub(crate) order: Vec<String>,
    /// All that is undone, in order.
    #[serde(default)]
    pub(crate) undone: Option<Vec<String>>,
    /// All that a rollback leaves as it is, in any order.
    #[serde(default)]
    pub(crate) kept: Option<Vec<String>>,
    /// Step → its attempts.
    #[serde(default)]
    pub(crate) attempts: BTreeMap<String, u32>,
    /// The run's outputs; those that are not named do not matter.
    #[serde(default)]
    pub(crate) outputs: Map<String, Json>,
    /// Step → a part of its error's message.
    #[serde(default)]
    pub(crate) errors: BTreeMap<String, String>,
}

/// By its name, which is all that tells it from a playbook.
pub(crate) fn is_test(path: &Path) -> bool {
    path.file_name().is_some_and(|n| n.to_string_lossy().ends_with(".test.yaml"))
}

pub(crate) fn read(file: &str) -> Result<TestFile, Failure> {
    let text = std::fs::read_to_string(file).map_err(|e| Failure::usage(format!("{file} cannot be read: {e}")))?;
    parse(file, &text)
}

/// Mistakes are shown in the text, and are never none.
pub(crate) fn parse(file: &str, text: &str) -> Result<TestFile, Failure> {
    let wants = "a test file has `playbook` and `cases`, and each case `name`, `given` and `expect`";
    let mistakes = |diagnostics: &[Diagnostic]| {
        let mut sources = Sources::default();
        sources.add(Source::new(file, text));
        load::mistakes(diagnostics, &sources, &format!("{file} holds no test"))
    };
    let node = yaml::parse(SourceId(0), text).map_err(|mut diagnostics| {
        for empty in diagnostics.iter_mut().filter(|d| d.code == Code::YamlEmpty) {
            *empty = Diagnostic::new(Code::YamlEmpty, format!("{file} is empty"), Span::new(SourceId(0), 0, 0), "")
                .help(wants);
        }
        mistakes(&diagnostics)
    })?;
    let shape = schemars::schema_for!(TestFile).to_value();
    let wrong = schema::check("test file", &shape, &node, text);
    if !wrong.is_empty() {
        return Err(mistakes(&wrong));
    }
    let wrong = |why: String| mistakes(&[Diagnostic::new(Code::WrongValue, why, node.span, "no test").help(wants)]);
    let test: TestFile = serde_json::from_value(node.to_json()).map_err(|e| wrong(format!("{file}: {e}")))?;
    if test.cases.is_empty() {
        return Err(wrong(format!("{file} has no cases, so nothing is tested")));
    }
    Ok(test)
}

impl TestFile {
    /// The rules of a case, by step.
    pub(crate) fn rules(&self, case: Option<&Case>) -> Result<HashMap<String, Rule>, String> {
        let own = case.map(|c| &c.given);
        let general = self.given.iter().filter(|(step, _)| own.is_none_or(|o| !o.contains_key(*step)));
        let all = general.chain(own.into_iter().flatten());
        all.map(|(step, given)| Ok((step.clone(), given.rule().map_err(|e| format!("given.{step}: {e}"))?))).collect()
    }

    pub(crate) fn inputs_of(&self, case: Option<&Case>) -> Map<String, Json> {
        let mut inputs = self.inputs.clone();
        inputs.extend(case.map(|c| c.inputs.clone()).unwrap_or_default());
        inputs
    }
}

impl Given {
    /// The outputs that it names, of any attempt.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = &String> {
        self.outputs.keys().chain(self.attempts.iter().flat_map(|a| a.outputs.keys()))
    }

    fn rule(&self) -> Result<Rule, String> {
        let whole = Attempt {
            outputs: self.outputs.clone(),
            changed: self.changed,
            fail: self.fail.clone().or_else(|| self.skip.then(|| "permanent".into())),
            takes: self.takes.clone(),
        };
        let whole_says =
            !whole.outputs.is_empty() || whole.changed.is_some() || whole.fail.is_some() || whole.takes.is_some();
        if whole_says && !self.attempts.is_empty() {
            return Err("`attempts` and what holds for all attempts exclude each other".to_owned());
        }
        let attempts = match (self.attempts.as_slice(), whole_says) {
            ([], false) => Vec::new(),
            ([], true) => vec![whole.outcome()?],
            (attempts, _) => attempts.iter().map(Attempt::outcome).collect::<Result<_, _>>()?,
        };
        let undo_fail = self.undo_fail.as_ref().map(failure).transpose()?;
        Ok(Rule { attempts, undo_fail, skip: self.skip, first_only: false })
    }
}

impl Attempt {
    fn outcome(&self) -> Result<Outcome, String> {
        let takes =
            self.takes.as_deref().map(duration::parse).transpose().map_err(|e| format!("takes: {}", e.message))?;
        Ok(Outcome {
            outputs: self.outputs.clone(),
            changed: self.changed,
            fail: self.fail.as_ref().map(failure).transpose()?,
            takes: takes.unwrap_or_default(),
        })
    }
}

/// `true`, a class, or a map of class, message and exit code.
fn failure(json: &Json) -> Result<StepError, String> {
    let class_of = |word: &str| {
        script::class(word).ok_or_else(|| format!("`{word}` is none of transient, permanent, timeout, conflict"))
    };
    match json {
        Json::Bool(true) => Ok(script::failure(Class::Permanent, None, None)),
        Json::String(word) => Ok(script::failure(class_of(word)?, None, None)),
        Json::Object(map) => {
            if let Some(unknown) = map.keys().find(|k| !["class", "message", "exit_code"].contains(&k.as_str())) {
                return Err(format!("`fail` has class, message and exit_code, and no `{unknown}`"));
            }
            let class = map.get("class").and_then(Json::as_str).map_or(Ok(Class::Permanent), class_of)?;
            let message = map.get("message").and_then(Json::as_str).map(str::to_owned);
            let code = map.get("exit_code").and_then(Json::as_i64).and_then(|c| i32::try_from(c).ok());
            Ok(script::failure(class, message, code))
        }
        other => Err(format!("`fail` is a class or a map, not {other}")),
    }
}
