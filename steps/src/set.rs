//! `set`: gives names to values.
//!
//! Every key under `with` becomes an output of the same name, with its type kept: later steps say
//! `{{ steps.paths.outputs.release }}` instead of repeating how it is made. It changes nothing.

use runback_core::Json;
use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, OutputNames, Preview, Probe, StepError,
    StepType, UndoKind, WorksOut,
};
use runback_core::template::ValueTemplate;
use serde_json::Map;

use crate::http::look::problem;

/// See the module.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Set;

const EXAMPLES: &[&str] = &["
- id: names
  uses: set
  with:
    unit: '{{ playbook.name }}.service'
    ports: [8080, 8081]
"];

#[async_trait::async_trait]
impl StepType for Set {
    type Inputs = Map<String, Json>;
    type Outputs = Map<String, Json>;
    type Capture = ();

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "set",
            doc: "Gives names to values: every key becomes an output.",
            access: Access::Reads,
            undo: UndoKind::None,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::None,
            examples: EXAMPLES,
        }
    }

    fn problems(&self, inputs: &Self::Inputs) -> Vec<InputProblem> {
        let bad = |name: &&String| {
            let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
            !starts || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
        };
        let say = |name: &String| {
            let message = format!("`{name}` cannot be the name of an output: use letters, digits, _ and -");
            problem(&[name], message)
        };
        inputs.keys().filter(bad).map(say).collect()
    }

    fn output_names(&self, with: &ValueTemplate) -> OutputNames {
        match with {
            ValueTemplate::Map(items) => OutputNames::Closed(items.iter().map(|(name, _)| name.clone()).collect()),
            ValueTemplate::Literal(Json::Object(items)) => OutputNames::Closed(items.keys().cloned().collect()),
            ValueTemplate::Literal(_) => OutputNames::Closed(Vec::new()),
            // The whole of `with` is one template: its keys show at run time only.
            ValueTemplate::Text(_) | ValueTemplate::List(_) => OutputNames::Open,
        }
    }

    async fn preview(&self, _cx: &Cx<'_>, inputs: &Self::Inputs) -> Result<Preview, StepError> {
        let names: Vec<_> = inputs.keys().map(String::as_str).collect();
        Ok(Preview { changes: Some(false), summary: format!("set {}", names.join(", ")), details: Vec::new() })
    }

    async fn capture(&self, _cx: &Cx<'_>, _inputs: &Self::Inputs) -> Result<(), StepError> {
        Ok(())
    }

    async fn act(&self, _cx: &Cx<'_>, inputs: &Self::Inputs, (): &()) -> Result<Acted<Self::Outputs>, StepError> {
        Ok(Acted::unchanged(inputs.clone()))
    }

    fn works_out(&self) -> Option<WorksOut<Self>> {
        Some(|inputs| Ok(Acted::unchanged(inputs.clone())))
    }

    async fn probe(&self, _cx: &Cx<'_>, _: &Self::Inputs, (): &()) -> Result<Probe<Self::Outputs>, StepError> {
        Ok(Probe::NotDone)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;
    use crate::testing::Lab;

    #[tokio::test]
    async fn keys_become_outputs_with_their_types() {
        let with = json!({ "n": 3, "list": ["a", 1.5], "none": null, "map": { "k": true } });
        let ran = Lab::new().run(&Set, &with).await.unwrap();
        assert_eq!(ran.outputs, with);
        assert!(!ran.changed);
    }

    #[test]
    fn names_are_known_before_the_run() {
        let literal = ValueTemplate::Literal(json!({ "b": 1, "a": 2 }));
        assert_eq!(Set.output_names(&literal), OutputNames::Closed(vec!["b".to_owned(), "a".to_owned()]));
        let items = vec![("x".to_owned(), ValueTemplate::Literal(json!(1)))];
        assert_eq!(Set.output_names(&ValueTemplate::Map(items)), OutputNames::Closed(vec!["x".to_owned()]));
    }

    #[test]
    fn names_that_nothing_could_refer_to() {
        let found = Lab::problems(&Set, &json!({ "ok_1": 1, "also-ok": 1, "1st": 1, "a b": 1, "": 1 }));
        let paths: Vec<_> = found.into_iter().map(|p| p.path.join("/")).collect();
        assert_eq!(paths, ["1st", "a b", ""]);
        assert!(!Lab::problems(&Set, &json!([1])).is_empty());
    }
}
