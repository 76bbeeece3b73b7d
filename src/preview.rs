//! What steps would change, asked of the live world without changing it, for those whose inputs are known before
//! a run. Knows nothing of how it is shown.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use runback_core::Json;
use runback_core::plan::{Plan, StepIdx};
use runback_core::step::{Preview, StepError};
use runback_core::template::{Template, ValueTemplate};
use serde_json::json;

use crate::failure::Failure;
use crate::inputs::Inputs;

/// What could be found out about one step.
#[derive(Debug)]
pub(crate) enum Previewed {
    Seen(Preview),
    Failed(StepError),
    /// Its inputs come from this step.
    Later(String),
}

#[derive(Debug, Default)]
pub(crate) struct Previews {
    steps: HashMap<StepIdx, Previewed>,
    /// What templates can see before a run.
    context: Json,
}

impl Previews {
    pub(crate) fn look(plan: &Arc<Plan>, inputs: &Inputs, _base: &Path) -> Result<Self, Failure> {
        let mut known = inputs.open.clone();
        known.extend(inputs.secret.iter().map(|(name, value)| (name.clone(), value.clone())));
        let context = json!({
            "inputs": Json::Object(known),
            "playbook": { "name": plan.name, "description": plan.description },
        });
        let previews = Self { steps: HashMap::new(), context };
        Ok(previews)
    }

    pub(crate) fn of(&self, step: StepIdx) -> Option<&Previewed> {
        self.steps.get(&step)
    }

    /// A template's text, rendered where that is possible before a run.
    pub(crate) fn rendered(&self, template: &Template) -> String {
        template.render_string(&self.context).unwrap_or_else(|_| template.text().to_owned())
    }

    pub(crate) fn rendered_value(&self, value: &ValueTemplate) -> Option<Json> {
        value.render(&self.context).ok()
    }
}
