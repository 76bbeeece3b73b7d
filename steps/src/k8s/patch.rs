//! `k8s.patch`: changes fields of an object by a strategic merge patch, a merge patch, or a JSON patch.
//!
//! The plan shows the change as the API server itself computes it (a dry run). **Undo** brings back exactly the fields that
//! the patch touches, each only where it still is as the patch left it: another field that somebody changed meanwhile stays,
//! and a changed one is reported with its owner. `preconditions` are values that fields must have before; another value is
//! an error and nothing is changed. So is a field that the API server does not know, which it would drop in silence.

use std::collections::BTreeMap;

use runback_core::Json;
use runback_core::step::{
    Access, Acted, Class, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind,
    Undone,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::client::{Ask, Clusters, Kube, Patch, k8s_inputs};
use super::fields::{self, Seg};
use super::object::{Object, Touched, common_problems, problem, split, text};
use super::show;
use crate::json_path::{JsonPath, same};
use crate::period::Period;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Type {
    /// Lists are merged by their keys, as `containers` by `name`. Built-in kinds only.
    #[default]
    Strategic,
    /// RFC 7386: lists are replaced as a whole, null takes a field away.
    Merge,
    /// RFC 6902: a list of operations.
    Json,
}

k8s_inputs! {
    /// What to change.
    {
        /// `kind/name`, such as `deploy/web`.
        resource: String,
        /// How the patch is meant: `strategic`, `merge` or `json`.
        #[serde(default)]
        r#type: Type,
        /// The patch: fields as they shall be, or for `json` a list of operations.
        patch: Json,
        /// Paths and the values that they must have before, such as `spec.replicas: 3`.
        #[serde(default)]
        preconditions: BTreeMap<String, Json>,
        /// Wait afterwards until the object is ready. Default: false.
        #[serde(default)]
        wait: bool,
        /// For the waiting.
        #[serde(default = "super::scale::ten_minutes")]
        timeout: Period,
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// Paths of the fields that the patch changed.
    pub(crate) fields: Vec<String>,
    /// The object's version after the patch.
    pub(crate) resource_version: String,
    /// Counts the changes of the object's specification.
    pub(crate) generation: Option<i64>,
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct K8sPatch(pub(crate) Clusters);

impl Inputs {
    fn kind(&self) -> Patch {
        match self.r#type {
            Type::Strategic => Patch::Strategic,
            Type::Merge => Patch::Merge,
            Type::Json => Patch::Json,
        }
    }

    fn check(&self, object: &Object, live: &Json) -> Result<(), StepError> {
        for (path, want) in &self.preconditions {
            let found = JsonPath::parse(path).map_err(StepError::permanent)?.find(live).into_iter().next().cloned();
            if !same(&found.clone().unwrap_or_default(), want) {
                let now = show::value(found.as_ref());
                return Err(StepError::conflict(format!(
                    "{object}: {path} is {now}, and the precondition wants {want}"
                ))
                .help("nothing was changed; look at the object, and correct the playbook or the object"));
            }
        }
        Ok(())
    }

    /// Sends the patch; the version makes it fail where the object changed since `live`.
    async fn send(&self, kube: &Kube<'_>, object: &Object, live: &Json, dry: bool) -> Result<Json, StepError> {
        let version = &live["metadata"]["resourceVersion"];
        let body = match (&self.patch, self.r#type) {
            (Json::Array(operations), Type::Json) => {
                let mut all = vec![json!({ "op": "test", "path": "/metadata/resourceVersion", "value": version })];
                all.extend(operations.iter().cloned());
                Json::Array(all)
            }
            (body, _) => {
                let mut body = body.clone();
                if body["metadata"].is_null() {
                    body["metadata"] = json!({});
                }
                body["metadata"]["resourceVersion"] = version.clone();
                body
            }
        };
        // API servers before 1.25 do not look at fieldValidation: see `dropped`.
        let path = format!("{}{}&fieldValidation=Strict", object.path(), kube.query(dry));
        kube.call(&Ask::patch(path, self.kind(), &body)).await.map_err(|e| {
            let (stale, code) = (e.is_stale(), e.code());
            let mut error = StepError::from(e);
            if stale {
                error.class = Class::Transient;
            }
            self.explain(error, code)
        })
    }

    /// The object before and after; tried anew while others change the object meanwhile.
    async fn apply(&self, kube: &Kube<'_>, object: &Object, dry: bool) -> Result<(Json, Json), StepError> {
        let mut round = 0;
        loop {
            let live = kube.must(object).await?;
            self.check(object, &live)?;
            match self.send(kube, object, &live, dry).await {
                Ok(after) => match dropped(&self.patch, &after, &mut Vec::new()) {
                    Some(path) => {
                        return Err(StepError::permanent(format!(
                            "{object}: the API server drops {path}: it does not know that field"
                        ))
                        .help(super::error::UNKNOWN_FIELD));
                    }
                    None => return Ok((live, after)),
                },
                Err(e) if round < 20 && moved(kube, object, &live, &e).await => round += 1,
                Err(e) => return Err(e),
            }
        }
    }

    /// The riddles of the three types, in words.
    fn explain(&self, mut error: StepError, code: u16) -> StepError {
        if error.message.contains("cannot unmarshal object") || error.message.contains("cannot unmarshal array") {
            error.help = Some(shape(self.r#type).to_owned());
        } else if code == 422 && self.r#type == Type::Json && error.help.is_none() {
            error.help = Some("an operation's path is not there, or a `test` does not hold; `add` makes what is missing, and `/` in a key is written ~1".to_owned());
        }
        error
    }
}

/// A field of a patch that is not in the object afterwards. API servers leave out what is empty, and drop in silence what they
/// do not know, those since 1.25 only where they are not asked to be strict. Lists are theirs to merge.
fn dropped(patch: &Json, after: &Json, path: &mut Vec<Seg>) -> Option<String> {
    for (key, value) in patch.as_object()? {
        let directive = key.starts_with('$') || (path.is_empty() && (key == "stringData" || key == "status"));
        if directive || is_empty(value) {
            continue;
        }
        path.push(Seg::Key(key.clone()));
        let Some(there) = after.get(key) else { return Some(fields::show_path(path)) };
        if let Some(found) = dropped(value, there, path) {
            return Some(found);
        }
        path.pop();
    }
    None
}

/// What an API server does not keep, or need not: absent is the same.
fn is_empty(value: &Json) -> bool {
    match value {
        Json::Object(map) => map.iter().all(|(key, value)| key.starts_with('$') || is_empty(value)),
        Json::Array(list) => list.is_empty(),
        Json::String(text) => text.is_empty(),
        Json::Null | Json::Bool(false) => true,
        Json::Number(number) => number.as_f64() == Some(0.0),
        Json::Bool(true) => false,
    }
}

fn shape(r#type: Type) -> &'static str {
    match r#type {
        Type::Json => {
            "a patch of type `json` is a list of operations: - { op: replace, path: /spec/replicas, value: 3 }; fields as they shall be are of type `merge` or `strategic`"
        }
        _ => {
            "a list of operations is of type `json`; `merge` and `strategic` take the fields as they shall be: { spec: { replicas: 3 } }"
        }
    }
}

#[async_trait::async_trait]
impl StepType for K8sPatch {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = Touched;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "k8s.patch",
            doc: "Changes fields of a Kubernetes object by a patch.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Client,
            examples: &[
                "
- id: tolerate
  uses: k8s.patch
  with:
    resource: deploy/web
    patch: { spec: { template: { spec: { tolerations: [{ key: disk, operator: Exists }] } } } }
    wait: true
",
                "
- id: json
  uses: k8s.patch
  with:
    resource: deploy/web
    type: json
    patch: [{ op: replace, path: /spec/replicas, value: 3 }]
    preconditions: { spec.replicas: 2 }
",
            ],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut found = common_problems(inputs.place());
        found.extend(split(&inputs.resource).err().map(|e| problem("resource", e)));
        let fits = if inputs.r#type == Type::Json { inputs.patch.is_array() } else { inputs.patch.is_object() };
        if !fits {
            let is = if inputs.patch.is_array() {
                "a list"
            } else if inputs.patch.is_object() {
                "a map"
            } else {
                "neither a map nor a list"
            };
            let mut one = problem("patch", format!("is {is}"));
            one.help = Some(shape(inputs.r#type).to_owned());
            found.push(one);
        }
        for path in inputs.preconditions.keys() {
            let wrong = JsonPath::parse(path).err();
            found.extend(wrong.map(|message| InputProblem {
                path: vec!["preconditions".to_owned(), path.clone()],
                message,
                help: None,
            }));
        }
        found
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let kube = self.0.open(cx, inputs.place()).await?.impatient();
        let object = kube.object(&inputs.resource).await?;
        let (live, after) = inputs.apply(&kube, &object, true).await?;
        let details = show::diff(&object.to_string(), &live, &after);
        let summary = if details.is_empty() { format!("{object} is so already") } else { format!("patch {object}") };
        Ok(Preview { changes: Some(!details.is_empty()), summary, details })
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Touched, StepError> {
        let kube = self.0.open(cx, inputs.place()).await?;
        let object = kube.object(&inputs.resource).await?;
        let (live, after) = inputs.apply(&kube, &object, true).await?;
        Ok(Touched::between(&object, &live, &after))
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Touched) -> Result<Acted<Outputs>, StepError> {
        let mut kube = self.0.open(cx, inputs.place()).await?;
        kube.namespace.clone_from(&capture.namespace);
        let object = kube.object(&inputs.resource).await?;
        let live = kube.must(&object).await?;
        // An earlier attempt did it: a JSON patch that adds to a list must not be sent twice.
        let mut after = if fields::is_done(&show::veiled(&live), &capture.changes) {
            live
        } else {
            inputs.apply(&kube, &object, false).await?.1
        };
        if inputs.wait {
            after = kube.wait_ready(&object, inputs.timeout.0).await?;
        }
        let outputs = Outputs {
            fields: capture.changes.iter().map(|c| fields::show_path(&c.path)).collect(),
            resource_version: text(&after, "/metadata/resourceVersion").to_owned(),
            generation: after["metadata"]["generation"].as_i64(),
        };
        Ok(Acted { outputs, changed: !capture.changes.is_empty() })
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        inputs: &Inputs,
        capture: &Touched,
        _outputs: Option<&Outputs>,
    ) -> Result<Undone, StepError> {
        let kube = self.0.open(cx, inputs.place()).await?;
        kube.take_back(&inputs.resource, capture, inputs.wait.then_some(inputs.timeout.0)).await
    }
}

/// Whether the patch failed only because the object has another version by now: 409, and 422 for a JSON patch, whose failed
/// `test` has no reason of its own.
async fn moved(kube: &Kube<'_>, object: &Object, seen: &Json, error: &StepError) -> bool {
    if matches!(error.class, Class::Cancelled | Class::Timeout) {
        return false;
    }
    let now = kube.find(object).await.ok().flatten();
    now.is_some_and(|now| now["metadata"]["resourceVersion"] != seen["metadata"]["resourceVersion"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wrong_type_is_explained_before_anything_runs() {
        let step = K8sPatch(Clusters::default());
        let problems = |with: Json| {
            let inputs: Inputs = serde_json::from_value(with).expect("decodes");
            step.problems(&inputs)
        };
        let found =
            problems(json!({ "resource": "deploy/web", "type": "json", "patch": { "spec": { "replicas": 3 } } }));
        assert_eq!(found[0].message, "is a map");
        assert!(
            found[0].help.as_deref().is_some_and(|h| h.starts_with("a patch of type `json` is a list of operations"))
        );
        assert_eq!(problems(json!({ "resource": "deploy/web", "patch": [{ "op": "add" }] }))[0].message, "is a list");
        assert_eq!(problems(json!({ "resource": "deploy/web", "type": "merge", "patch": {} })), []);
    }

    #[test]
    fn a_field_that_the_server_drops_is_found() {
        let after = json!({ "spec": { "replicas": 2, "template": { "spec": { "containers": [{ "name": "a" }] } } } });
        let of = |patch: Json| dropped(&patch, &after, &mut Vec::new());
        assert_eq!(of(json!({ "spec": { "replicsa": 3 } })).as_deref(), Some(".spec.replicsa"));
        assert_eq!(
            of(json!({ "spec": { "template": { "spek": { "x": "y" } } } })).as_deref(),
            Some(".spec.template.spek")
        );
        for known in [
            json!({ "spec": { "replicas": 2, "paused": false, "minReadySeconds": 0, "strategy": null } }),
            json!({ "spec": { "template": { "metadata": { "labels": {}, "annotations": { "$patch": "delete" } } } } }),
            json!({ "spec": { "template": { "spec": { "$setElementOrder/containers": [{}], "containers": [{ "name": "b" }] } } } }),
            json!({ "stringData": { "a": "b" }, "status": { "x": 1 } }),
        ] {
            assert_eq!(of(known.clone()), None, "{known}");
        }
    }
}
