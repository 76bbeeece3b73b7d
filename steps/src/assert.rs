//! `assert`: conditions that must hold, or the run stops here.
//!
//! Each item under `that` is an expression (CEL) over the same names as `when`: `steps.probe.outputs.count > 3`. It is
//! read and its names are checked before anything runs, and it is worked out when the step starts. Nothing is truthy: a
//! value that is not a boolean fails too. All conditions are looked at, and the error names each that does not hold with
//! the values it saw. To check the world and not values, use `http.check`, `tcp.check` or a script.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, Probe, StepError, StepType, UndoKind,
    WorksOut,
};
use runback_core::{Json, cut};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::http::look::problem;

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Inputs {
    /// Expressions; each must be true.
    #[schemars(length(min = 1))]
    pub(crate) that: Vec<Check>,
    /// What to say when one does not hold.
    #[serde(default)]
    pub(crate) message: Option<String>,
}

/// A condition: its text at check time, and with its value once the engine has worked it out.
#[derive(Debug, Clone)]
pub(crate) enum Check {
    Unread(String),
    Known(Known),
}

/// What the engine puts in the place of an expression before the step acts.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Known {
    expression: String,
    value: Json,
    /// The names it refers to, with their values.
    #[serde(default)]
    seen: BTreeMap<String, Json>,
}

impl<'de> Deserialize<'de> for Check {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Check;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an expression, such as inputs.count > 3")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Check, E> {
                Ok(Check::Unread(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Check, A::Error> {
                Known::deserialize(MapAccessDeserializer::new(map)).map(Check::Known)
            }
        }
        deserializer.deserialize_any(Read)
    }
}

impl JsonSchema for Check {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Expression".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "cel" })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// How many conditions held.
    pub(crate) passed: usize,
}

/// See the module.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Assert;

const EXAMPLES: &[&str] = &["
- id: sane
  uses: assert
  with:
    that:
      - run.id != ''
      - playbook.name.size() < 100
    message: this is not the playbook that it should be
"];

fn work_out(inputs: &Inputs) -> Result<Acted<Outputs>, StepError> {
    let mut wrong = Vec::new();
    for check in &inputs.that {
        match check {
            Check::Known(Known { value: Json::Bool(true), .. }) => {}
            Check::Known(known) => wrong.push(known.failure()),
            // A literal that nobody evaluated must not pass.
            Check::Unread(text) => wrong.push(format!("`{text}` was not evaluated")),
        }
    }
    if wrong.is_empty() {
        return Ok(Acted::unchanged(Outputs { passed: inputs.that.len() }));
    }
    let found = wrong.join("; ");
    Err(match &inputs.message {
        Some(message) => StepError::conflict(format!("{message}: {found}")),
        None => StepError::conflict(found),
    })
}

#[async_trait::async_trait]
impl StepType for Assert {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = ();

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "assert",
            doc: "Fails unless all its conditions hold.",
            access: Access::Reads,
            undo: UndoKind::None,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::None,
            examples: EXAMPLES,
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        if inputs.that.is_empty() {
            return vec![problem(&["that"], "holds no condition".to_owned())];
        }
        Vec::new()
    }

    async fn preview(&self, _cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let text = |c: &Check| match c {
            Check::Unread(text) => text.clone(),
            Check::Known(known) => known.expression.clone(),
        };
        let details: Vec<_> = inputs.that.iter().map(text).collect();
        let summary = match details.as_slice() {
            [one] => format!("stop unless {one}"),
            many => format!("stop unless {} conditions hold", many.len()),
        };
        Ok(Preview { changes: Some(false), summary, details })
    }

    async fn capture(&self, _cx: &Cx<'_>, _inputs: &Inputs) -> Result<(), StepError> {
        Ok(())
    }

    async fn act(&self, _cx: &Cx<'_>, inputs: &Inputs, (): &()) -> Result<Acted<Outputs>, StepError> {
        work_out(inputs)
    }

    fn works_out(&self) -> Option<WorksOut<Self>> {
        Some(work_out)
    }

    async fn probe(&self, _cx: &Cx<'_>, _inputs: &Inputs, (): &()) -> Result<Probe<Outputs>, StepError> {
        Ok(Probe::NotDone)
    }
}

impl Known {
    fn failure(&self) -> String {
        let mut text = match &self.value {
            Json::Bool(_) => format!("`{}` is false", self.expression),
            other => format!("`{}` is {}, not a boolean", self.expression, short(other)),
        };
        if !self.seen.is_empty() {
            let seen: Vec<_> = self.seen.iter().map(|(name, value)| format!("{name} = {}", short(value))).collect();
            text = format!("{text} ({})", seen.join(", "));
        }
        text
    }
}

fn short(value: &Json) -> String {
    cut::beginning(&value.to_string(), 80).into_owned()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use runback_core::step::{AnyStepType, Class};
    use serde_json::json;

    use super::*;
    use crate::testing::Lab;

    #[tokio::test]
    async fn passes_when_all_are_true() {
        let with =
            json!({ "that": [{ "expression": "a", "value": true, "seen": {} }, { "expression": "b", "value": true }] });
        let ran = Lab::new().run(&Assert, &with).await.unwrap();
        assert_eq!(ran.outputs, json!({ "passed": 2 }));
        assert!(!ran.changed);
    }

    #[tokio::test]
    async fn names_each_condition_that_fails_and_what_it_saw() {
        let with = json!({
            "that": [
                { "expression": "inputs.n > 3", "value": false, "seen": { "inputs.n": 2 } },
                { "expression": "true", "value": true, "seen": {} },
                { "expression": "inputs.name", "value": "x".repeat(200), "seen": {} },
            ],
            "message": "too few",
        });
        let error = Lab::new().run(&Assert, &with).await.unwrap_err();
        assert_eq!(error.class, Class::Conflict);
        let long = "x".repeat(79);
        assert_eq!(
            error.message,
            format!("too few: `inputs.n > 3` is false (inputs.n = 2); `inputs.name` is \"{long}…, not a boolean")
        );
    }

    #[tokio::test]
    async fn an_expression_that_nobody_evaluated_fails() {
        let error = Lab::new().run(&Assert, &json!({ "that": ["true"] })).await.unwrap_err();
        assert_eq!(error.message, "`true` was not evaluated");
    }

    #[test]
    fn the_schema_marks_expressions() {
        let schema = AnyStepType::input_schema(&Assert);
        assert_eq!(schema["properties"]["that"]["items"], json!({ "type": "string", "format": "cel" }));
    }

    #[test]
    fn no_conditions_are_a_problem() {
        assert_eq!(Lab::problems(&Assert, &json!({ "that": [] }))[0].path, ["that"]);
        assert!(Lab::problems(&Assert, &json!({ "that": ["inputs.x == 1"] })).is_empty());
        assert!(!Lab::problems(&Assert, &json!({ "that": [{ "wrong": 1 }] })).is_empty());
    }
}
