//! `k8s.get`: reads an object, or all that a selector finds, and gives fields of them as outputs.
//!
//! `resource: deploy/web` reads one; `resource: pods` with or without `selector` reads many. `fields` picks values by path
//! (`status.readyReplicas`, or JSONPath `$.items[*].metadata.name`; over many objects the paths begin at `items`). What is
//! not there is an error, unless `missing: ok`. Values of Secrets are given as digests only, and picked ones not at all.

use std::collections::BTreeMap;

use runback_core::Json;
use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, Probe, StepError, StepType, UndoKind,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::client::{Clusters, k8s_inputs};
use super::object::{common_problems, problem, split};
use super::show;
use crate::json_path::JsonPath;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Missing {
    #[default]
    Error,
    Ok,
}

k8s_inputs! {
    /// What to read.
    {
        /// `kind/name` for one object, or a kind for all of it in the namespace.
        resource: String,
        /// Labels that objects must have, as kubectl takes them; with a kind only.
        #[serde(default)]
        selector: Option<String>,
        /// Output names and the path of each value.
        #[serde(default)]
        fields: BTreeMap<String, String>,
        /// What to make of it when nothing is there: `error` or `ok`.
        #[serde(default)]
        missing: Missing,
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// Whether anything was there.
    pub(crate) found: bool,
    /// The object; null where many were asked for, or none was there.
    pub(crate) object: Json,
    /// The objects that a kind or selector found; empty for one.
    pub(crate) items: Vec<Json>,
    /// The values that `fields` picked: the value itself where the path finds one, a list where it finds several, else null.
    pub(crate) fields: BTreeMap<String, Json>,
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct K8sGet(pub(crate) Clusters);

#[async_trait::async_trait]
impl StepType for K8sGet {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = ();

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "k8s.get",
            doc: "Reads Kubernetes objects, and gives fields of them as outputs.",
            access: Access::Reads,
            undo: UndoKind::None,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Client,
            examples: &[
                "\n- id: web\n  uses: k8s.get\n  with: { resource: deploy/web, namespace: shop, fields: { ready: status.readyReplicas } }\n",
                "\n- id: pods\n  uses: k8s.get\n  with: { resource: pods, selector: app=web, fields: { names: '$.items[*].metadata.name' } }\n",
            ],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut found = common_problems(inputs.place());
        if inputs.resource.contains('/') {
            found.extend(split(&inputs.resource).err().map(|e| problem("resource", e)));
            if inputs.selector.is_some() {
                found.push(problem("selector", "one object is named already; give only its kind to select by labels"));
            }
        } else if inputs.resource.is_empty() {
            found.push(problem("resource", "must not be empty"));
        }
        for (name, path) in &inputs.fields {
            let wrong = JsonPath::parse(path).err();
            found.extend(wrong.map(|message| InputProblem {
                path: vec!["fields".to_owned(), name.clone()],
                message,
                help: None,
            }));
        }
        found
    }

    async fn preview(&self, _cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        Ok(Preview { changes: Some(false), summary: format!("read {}", inputs.resource), details: Vec::new() })
    }

    async fn capture(&self, _cx: &Cx<'_>, _inputs: &Inputs) -> Result<(), StepError> {
        Ok(())
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, (): &()) -> Result<Acted<Outputs>, StepError> {
        let kube = self.0.open(cx, inputs.place()).await?;
        let (object, items) = if inputs.resource.contains('/') {
            let object = kube.object(&inputs.resource).await?;
            let found = match inputs.missing {
                Missing::Error => Some(kube.must(&object).await?),
                Missing::Ok => kube.find(&object).await?,
            };
            (found.map(|o| show::veiled(&o)).unwrap_or_default(), Vec::new())
        } else {
            let kind = kube.kind(&inputs.resource).await?;
            let all = kube.list(&kind, &kube.namespace, inputs.selector.as_deref().unwrap_or_default()).await?;
            if all.is_empty() && inputs.missing == Missing::Error {
                let by = inputs.selector.as_ref().map(|s| format!(" with {s}")).unwrap_or_default();
                return Err(StepError::permanent(format!("no {}{by} in {}", kind.label(), kube.namespace))
                    .help("`missing: ok` makes it no error"));
            }
            (Json::Null, all.iter().map(show::veiled).collect())
        };
        let whole = if object.is_null() { json!({ "items": items }) } else { object.clone() };
        let mut fields = BTreeMap::new();
        for (name, path) in &inputs.fields {
            let found = JsonPath::parse(path)
                .map_err(StepError::permanent)?
                .find(&whole)
                .into_iter()
                .cloned()
                .collect::<Vec<_>>();
            if found.iter().any(show::is_veil) {
                return Err(StepError::permanent(format!(
                    "{}: {path} is a value of a Secret, which no output may hold",
                    inputs.resource
                ))
                .help("read it under `secrets:` of the playbook"));
            }
            let several = path.contains('*') || path.contains("..") || path.contains('?');
            let value = if several { Json::Array(found) } else { found.into_iter().next().unwrap_or_default() };
            fields.insert(name.clone(), value);
        }
        Ok(Acted::unchanged(Outputs { found: !object.is_null() || !items.is_empty(), object, items, fields }))
    }

    async fn probe(&self, _cx: &Cx<'_>, _inputs: &Inputs, (): &()) -> Result<Probe<Outputs>, StepError> {
        Ok(Probe::NotDone)
    }
}
