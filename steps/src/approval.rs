//! `approval`: a person says yes before the run goes on.
//!
//! On a terminal the question is asked at once; elsewhere the run waits (with `--no-wait` it ends with exit code 5, to be
//! resumed) until somebody answers with `runback approve`, on the page or through the API. The question and its answer
//! are durable: a restart asks nobody twice, and starts no `timeout` anew. `approvers` names people, or roles as they stand on tokens of `runback
//! serve` (`approver`, `admin`); who answers on the machine itself goes by their user's name alone, which is what `$USER`
//! says: who can write the state folder is believed. Where that is not enough, let people answer through the server.
//! Where approvers are named or several must say yes, the one who started the run does not count unless `allow_self` says
//! so, and nobody counts twice.
//! `form` asks for values as well; they become outputs of the same names.
//!
//! A refusal fails the step: what it means for the run is `on_failure`'s to say.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use runback_core::Json;
use runback_core::step::{
    Access, Acted, Answer, Class, Commands, Cx, Descriptor, InputProblem, OnInterrupt, OutputNames, Preview, Question,
    StepError, StepType, UndoKind,
};
use runback_core::template::ValueTemplate;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Map;

use crate::http::look::{compile, problem};
use crate::period::Period;

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Inputs {
    /// The question; what it is about and what comes next.
    pub(crate) prompt: String,
    /// Fields to fill in with the answer: name → what it must be.
    #[serde(default)]
    pub(crate) form: Form,
    /// Names or roles of those who may say yes. Empty = everyone who may approve.
    #[serde(default)]
    pub(crate) approvers: Vec<String>,
    /// How many people must say yes.
    #[serde(default = "one")]
    #[schemars(range(min = 1))]
    pub(crate) min_approvals: u32,
    /// How long to wait for the answer, from when it was first asked, whatever process asks. None = for ever.
    #[serde(default)]
    pub(crate) timeout: Option<Period>,
    /// What no answer in time counts as.
    #[serde(default)]
    pub(crate) on_timeout: OnTimeout,
    /// The one who started the run may answer too.
    #[serde(default)]
    pub(crate) allow_self: bool,
}

/// Fields in the order in which the author wrote them: that is how they are asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Form(Vec<(String, Field)>);

impl<'de> Deserialize<'de> for Form {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Form;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of fields")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Form, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Form(fields))
            }
        }
        deserializer.deserialize_map(Read)
    }
}

impl Serialize for Form {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, field)| (name, field)))
    }
}

impl JsonSchema for Form {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Form".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        BTreeMap::<String, Field>::json_schema(generator)
    }
}

fn one() -> u32 {
    1
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnTimeout {
    #[default]
    Reject,
    Approve,
}

/// One field of a form, as under a playbook's `inputs`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Field {
    #[serde(default)]
    pub(crate) r#type: FieldType,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) description: Option<String>,
    /// Taken when the field is left empty; without one it must be filled in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) default: Option<Json>,
    /// A regular expression that the whole of a string must match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "regex"))]
    pub(crate) pattern: Option<String>,
    /// The values to choose from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) options: Vec<Json>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) min: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max: Option<f64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FieldType {
    #[default]
    String,
    Integer,
    Number,
    Boolean,
}

#[derive(Debug, JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
struct Fixed {
    /// Who said yes; several are joined by a comma.
    approved_by: String,
    /// What they wrote with it.
    reason: Option<String>,
}

const FIXED: [&str; 2] = ["approved_by", "reason"];

/// `approved_by`, `reason`, and the form's fields.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Outputs(Map<String, Json>);

impl JsonSchema for Outputs {
    fn schema_name() -> Cow<'static, str> {
        "Outputs".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Fixed::json_schema(generator)
    }
}

/// See the module.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Approval;

const EXAMPLES: &[&str] = &[
    "
- id: go
  uses: approval
  with: { prompt: 'Switch {{ playbook.name }} to the new release?' }
",
    "
- id: window
  uses: approval
  with:
    prompt: Take web1 out of service?
    approvers: [oncall]
    min_approvals: 2
    timeout: 4h
    form:
      ticket: { description: Change ticket, pattern: 'CHG-[0-9]+' }
      drain_minutes: { type: integer, default: 5, min: 1, max: 60 }
",
];

#[async_trait::async_trait]
impl StepType for Approval {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = ();

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "approval",
            doc: "Waits until a person says yes; a form's fields become outputs.",
            access: Access::Reads,
            undo: UndoKind::None,
            // The question is durable and answered once: asking again finds the answer.
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::None,
            examples: EXAMPLES,
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut found = Vec::new();
        if inputs.min_approvals == 0 {
            found.push(problem(&["min_approvals"], "must be 1 or more".to_owned()));
        }
        if inputs.prompt.trim().is_empty() {
            found.push(problem(&["prompt"], "must not be empty".to_owned()));
        }
        if inputs.on_timeout == OnTimeout::Approve && inputs.timeout.is_none() {
            found.push(problem(&["on_timeout"], "has no meaning without `timeout`".to_owned()));
        }
        for (name, field) in &inputs.form.0 {
            if FIXED.contains(&name.as_str()) {
                found.push(problem(&["form", name], format!("`{name}` is an output of every approval")));
            }
            if let Some(Err(e)) = field.pattern.as_deref().map(compile) {
                found.push(problem(&["form", name, "pattern"], e));
                continue;
            }
            if field.pattern.is_some() && field.r#type != FieldType::String {
                found.push(problem(&["form", name, "pattern"], "only a string has a pattern".to_owned()));
            }
            if let Some(Err(e)) = field.default.as_ref().map(|d| field.accepts(d)) {
                found.push(problem(&["form", name, "default"], e));
            }
        }
        found
    }

    fn output_names(&self, with: &ValueTemplate) -> OutputNames {
        let mut names: Vec<String> = FIXED.iter().map(|n| (*n).to_owned()).collect();
        match with.get("form") {
            None => {}
            Some(ValueTemplate::Map(fields)) => names.extend(fields.into_iter().map(|(name, _)| name)),
            Some(ValueTemplate::Literal(Json::Object(fields))) => names.extend(fields.keys().cloned()),
            Some(_) => return OutputNames::Open,
        }
        OutputNames::Closed(names)
    }

    async fn preview(&self, _cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let who = if inputs.approvers.is_empty() { "somebody".to_owned() } else { inputs.approvers.join(", ") };
        let summary = format!("ask {who}: {}", inputs.prompt.lines().next().unwrap_or_default());
        Ok(Preview { changes: Some(false), summary, details: Vec::new() })
    }

    async fn capture(&self, _cx: &Cx<'_>, _inputs: &Inputs) -> Result<(), StepError> {
        Ok(())
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, (): &()) -> Result<Acted<Outputs>, StepError> {
        let form = if inputs.form.0.is_empty() { Json::Null } else { encode_form(&inputs.form)? };
        let question = Question {
            prompt: inputs.prompt.clone(),
            form,
            approvers: inputs.approvers.clone(),
            min_approvals: inputs.min_approvals,
            allow_self: inputs.allow_self,
            timeout_ms: inputs.timeout.map(|t| u64::try_from(t.0.as_millis()).unwrap_or(u64::MAX)),
            approve_on_timeout: inputs.on_timeout == OnTimeout::Approve,
        };
        cx.phase("waiting for an approval");
        let answer = tokio::select! {
            biased;
            answer = cx.host.ask(question) => answer?,
            () = cx.host.stopped() => return Err(StepError::new(Class::Cancelled, "approval: told to stop")),
        };
        if !answer.approved {
            let why = answer.reason.map(|r| format!(": {r}")).unwrap_or_default();
            return Err(StepError::permanent(format!("refused by {}{why}", answer.by)));
        }
        Ok(Acted::unchanged(Outputs(outputs(inputs, answer)?)))
    }
}

fn encode_form(form: &Form) -> Result<Json, StepError> {
    serde_json::to_value(form).map_err(|e| StepError::permanent(format!("form: {e}")))
}

/// Whoever took the answer has validated it; this is the last look before later steps rely on it.
fn outputs(inputs: &Inputs, answer: Answer) -> Result<Map<String, Json>, StepError> {
    let mut outputs = Map::new();
    outputs.insert("approved_by".to_owned(), answer.by.into());
    outputs.insert("reason".to_owned(), answer.reason.into());
    for (name, field) in &inputs.form.0 {
        let given = answer.fields.get(name).filter(|v| !v.is_null()).or(field.default.as_ref());
        let Some(value) = given else {
            return Err(StepError::permanent(format!("the answer leaves the field `{name}` empty")));
        };
        field.accepts(value).map_err(|e| StepError::permanent(format!("the answer's field `{name}` {e}")))?;
        outputs.insert(name.clone(), value.clone());
    }
    Ok(outputs)
}

/// Whether a value will do for a field of a question's form, so that it can be said to who gives it.
pub fn form_field_accepts(field: &Json, value: &Json) -> Result<(), String> {
    let field: Field =
        serde_json::from_value(field.clone()).map_err(|e| format!("has a form that is not known: {e}"))?;
    field.accepts(value)
}

impl Field {
    fn accepts(&self, value: &Json) -> Result<(), String> {
        let (fits, name) = match self.r#type {
            FieldType::String => (value.is_string(), "a string"),
            FieldType::Integer => (value.is_i64() || value.is_u64(), "an integer"),
            FieldType::Number => (value.is_number(), "a number"),
            FieldType::Boolean => (value.is_boolean(), "true or false"),
        };
        if !fits {
            return Err(format!("must be {name}, not {value}"));
        }
        if !self.options.is_empty() && !self.options.contains(value) {
            let all: Vec<_> = self.options.iter().map(Json::to_string).collect();
            return Err(format!("must be one of {}, not {value}", all.join(", ")));
        }
        if let (Some(pattern), Some(text)) = (&self.pattern, value.as_str())
            && !compile(&format!("^(?:{pattern})$"))?.is_match(text)
        {
            return Err(format!("must match {pattern}, which {value} does not"));
        }
        if let Some(n) = value.as_f64() {
            if let Some(min) = self.min.filter(|min| n < *min) {
                return Err(format!("must be {min} or more, not {value}"));
            }
            if let Some(max) = self.max.filter(|max| n > *max) {
                return Err(format!("must be {max} or less, not {value}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;
    use crate::testing::Lab;

    fn answer(approved: bool, fields: Json) -> Answer {
        Answer { approved, by: "ann".to_owned(), roles: Vec::new(), reason: Some("looks fine".to_owned()), fields }
    }

    fn with() -> Json {
        json!({
            "prompt": "Go?", "approvers": ["oncall"], "min_approvals": 2, "timeout": "1h", "on_timeout": "approve",
            "form": {
                "ticket": { "pattern": "CHG-[0-9]+" },
                "minutes": { "type": "integer", "default": 5, "min": 1, "max": 60 },
            },
        })
    }

    #[tokio::test]
    async fn the_answer_becomes_outputs() {
        let lab = Lab::new();
        lab.host.answer(answer(true, json!({ "ticket": "CHG-7" })));
        let ran = lab.run(&Approval, &with()).await.unwrap();
        let wanted = json!({ "approved_by": "ann", "reason": "looks fine", "minutes": 5, "ticket": "CHG-7" });
        assert_eq!(ran.outputs, wanted);
        let asked = lab.host.questions.lock().unwrap().remove(0);
        assert_eq!((asked.min_approvals, asked.timeout_ms, asked.approve_on_timeout), (2, Some(3_600_000), true));
        assert_eq!(asked.approvers, ["oncall"]);
        assert!(!asked.allow_self);
        let names: Vec<_> = asked.form.as_object().unwrap().keys().cloned().collect();
        assert_eq!(names, ["ticket", "minutes"]);
        assert_eq!(asked.form["minutes"]["max"], json!(60.0));
        assert_eq!(asked.form["ticket"], json!({ "type": "string", "pattern": "CHG-[0-9]+" }));
    }

    #[tokio::test]
    async fn a_refusal_fails_and_says_who_and_why() {
        let lab = Lab::new();
        lab.host.answer(answer(false, Json::Null));
        let error = lab.run(&Approval, &json!({ "prompt": "Go?" })).await.unwrap_err();
        assert_eq!(error.class, Class::Permanent);
        assert_eq!(error.message, "refused by ann: looks fine");
    }

    #[tokio::test]
    async fn a_field_that_does_not_fit_never_reaches_later_steps() {
        for (fields, says) in [
            (json!({}), "the answer leaves the field `ticket` empty"),
            (json!({ "ticket": "CHG-7x" }), "the answer's field `ticket` must match"),
            (
                json!({ "ticket": "CHG-7", "minutes": "5" }),
                "the answer's field `minutes` must be an integer, not \"5\"",
            ),
            (json!({ "ticket": "CHG-7", "minutes": 61 }), "the answer's field `minutes` must be 60 or less, not 61"),
        ] {
            let lab = Lab::new();
            lab.host.answer(answer(true, fields));
            let error = lab.run(&Approval, &with()).await.unwrap_err();
            assert!(error.message.starts_with(says), "{}", error.message);
        }
    }

    #[test]
    fn problems_of_a_form() {
        let found = Lab::problems(
            &Approval,
            &json!({
                "prompt": " ", "min_approvals": 0, "on_timeout": "approve",
                "form": {
                    "reason": {},
                    "a": { "pattern": "(" },
                    "b": { "type": "boolean", "default": "yes" },
                    "c": { "options": ["x", "y"], "default": "z" },
                },
            }),
        );
        let paths: Vec<_> = found.iter().map(|p| p.path.join(".")).collect();
        let wanted = [
            "min_approvals",
            "prompt",
            "on_timeout",
            "form.reason",
            "form.a.pattern",
            "form.b.default",
            "form.c.default",
        ];
        assert_eq!(paths, wanted);
        assert!(Lab::problems(&Approval, &with()).is_empty());
    }

    #[test]
    fn output_names_hold_the_forms_fields() {
        let template = ValueTemplate::Literal(with());
        let wanted = ["approved_by", "reason", "ticket", "minutes"].map(str::to_owned).to_vec();
        assert_eq!(Approval.output_names(&template), OutputNames::Closed(wanted));
    }
}
