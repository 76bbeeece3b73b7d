//! `k8s.apply`: makes objects as manifests say, by server-side apply.
//!
//! Takes `manifest` (a map, a list of maps, or a text of YAML documents) or `path` (a file or a folder beside the playbook).
//! They go in the order in which a cluster can take them: namespaces, definitions, rights, configuration, storage,
//! services, workloads. A field that another manager owns with another value is an error that names both, unless
//! `force_conflicts: true`. **Undo** goes backwards: what did not exist is deleted; of what did, exactly the fields that
//! changed are as before. Where somebody else has changed what this step left, in one of the objects, that is reported and none
//! of them is touched. Replaced values of a Secret are never kept and cannot come back.

use base64::Engine as _;
use runback_core::Json;
use runback_core::step::{
    Access, Acted, Class, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind,
    Undone,
};
use runback_core::target::Stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::client::{Ask, Clusters, Kube, Patch, k8s_inputs};
use super::delete::Propagation;
use super::fields;
use super::kind::{DEFINITION, EXTENSIONS, Kind};
use super::manifest;
use super::object::{Object, Touched, common_problems, problem, text, uid};
use super::show;
use crate::period::Period;

k8s_inputs! {
    /// What shall be there.
    {
        /// The objects: a map, a list of maps, or a text of YAML documents.
        #[serde(default)]
        manifest: Option<Json>,
        /// A file, or a folder of YAML and JSON files, beside the playbook.
        #[serde(default)]
        path: Option<String>,
        /// Take fields over from other managers that have other values.
        #[serde(default)]
        force_conflicts: bool,
        /// Wait until each object is ready. Default: true.
        #[serde(default = "super::scale::yes")]
        wait: bool,
        /// For the waiting, of each object.
        #[serde(default = "super::scale::ten_minutes")]
        timeout: Period,
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Applied {
    /// `kind/name`.
    pub(crate) resource: String,
    /// Empty where the kind has none.
    pub(crate) namespace: String,
    /// Of the object.
    pub(crate) uid: String,
    /// `created`, `changed` or `unchanged`.
    pub(crate) result: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// The objects, in the order of their creation.
    pub(crate) objects: Vec<Applied>,
}

/// How one object was before.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Before {
    api_version: String,
    kind: String,
    name: String,
    namespace: String,
    /// None = it was not there.
    touched: Option<Touched>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Capture {
    /// Of the manifests: a file may change between this and the action.
    digest: String,
    objects: Vec<Before>,
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct K8sApply(pub(crate) Clusters);

impl Inputs {
    async fn objects(&self, cx: &Cx<'_>) -> Result<Vec<Json>, StepError> {
        let all = match (&self.manifest, &self.path) {
            (Some(value), _) => manifest::inline(value)?,
            (None, Some(path)) => manifest::read(&cx.local_path(path)).await?,
            (None, None) => Vec::new(),
        };
        if all.is_empty() {
            return Err(StepError::permanent("there is no object to apply").help("give `manifest:` or `path:`"));
        }
        Ok(manifest::ordered(all))
    }
}

fn digest(objects: &[Json]) -> String {
    let mut hash = Sha256::new();
    for object in objects {
        hash.update(object.to_string());
    }
    base64::engine::general_purpose::STANDARD_NO_PAD.encode(hash.finalize())
}

/// Whether a definition among `all` makes the kind of `object` known.
fn is_defined_by(all: &[Json], object: &Json) -> bool {
    let group = text(object, "/apiVersion").split('/').next().unwrap_or_default();
    all.iter().any(|o| {
        text(o, "/kind") == DEFINITION
            && text(o, "/spec/group") == group
            && text(o, "/spec/names/kind") == text(object, "/kind")
    })
}

impl Kube<'_> {
    fn address(&self, kind: Kind, object: &Json) -> Object {
        let namespace = Some(text(object, "/metadata/namespace")).filter(|n| !n.is_empty()).unwrap_or(&self.namespace);
        Object::new(kind, text(object, "/metadata/name"), namespace)
    }

    async fn must_know(&self, object: &Json) -> Result<Kind, StepError> {
        let (api, kind) = (text(object, "/apiVersion"), text(object, "/kind"));
        self.kind_of(api, kind).await?.ok_or_else(|| {
            StepError::permanent(format!("the cluster {} does not know {kind} of {api}", self.url()))
                .help("the apiVersion is of another version of Kubernetes, or the CustomResourceDefinition is missing: apply it first")
        })
    }

    async fn apply(&self, object: &Object, wanted: &Json, force: bool, dry: bool) -> Result<Json, StepError> {
        let mut body = wanted.clone();
        if !object.namespace.is_empty() {
            body["metadata"]["namespace"] = json!(object.namespace);
        }
        // API servers before 1.25 do not look at fieldValidation.
        let path = format!("{}{}&force={force}&fieldValidation=Strict", object.path(), self.query(dry));
        self.call(&Ask::patch(path, Patch::Apply, &body)).await.map_err(|e| {
            let mut error = StepError::from(e);
            error.message = format!("{object}: {}", error.message);
            error
        })
    }

    /// What applying would do: the object before, and after; None after = its namespace or kind is not there yet.
    async fn rehearse(
        &self,
        all: &[Json],
        wanted: &Json,
        force: bool,
    ) -> Result<(Option<Object>, Json, Option<Json>), StepError> {
        let known = self.kind_of(text(wanted, "/apiVersion"), text(wanted, "/kind")).await?;
        if known.is_none() && is_defined_by(all, wanted) {
            return Ok((None, Json::Null, None));
        }
        let kind = match known {
            Some(kind) => kind,
            None => self.must_know(wanted).await?,
        };
        let object = self.address(kind, wanted);
        let Some(live) = self.find(&object).await? else {
            let comes =
                all.iter().any(|o| text(o, "/kind") == "Namespace" && text(o, "/metadata/name") == object.namespace);
            if comes && !object.namespace.is_empty() {
                return Ok((Some(object), Json::Null, None));
            }
            let after = self.apply(&object, wanted, force, true).await?;
            return Ok((Some(object), Json::Null, Some(after)));
        };
        let after = self.apply(&object, wanted, force, true).await?;
        Ok((Some(object), live, Some(after)))
    }

    /// Refuses where an object is not as this step created it: another one, one that somebody has put work into, or one of
    /// whose fields has another value than was applied (API servers before 1.22 do not record who scales).
    async fn as_created(
        &self,
        object: &Object,
        live: &Json,
        created: Option<&str>,
        wanted: Option<&Json>,
    ) -> Result<(), StepError> {
        let stays = |why: String| {
            StepError::conflict(format!("{object} stays: {why}"))
                .help("nothing was touched; settle it with the other side; `--force` deletes it all the same")
        };
        let ours = created.map_or_else(|| applied_by(live, self.manager), |created| created == uid(live));
        if !ours {
            return Err(stays("it is not the object that this step created".to_owned()));
        }
        let foreign = foreign_managers(live, self.manager);
        if !foreign.is_empty() {
            return Err(stays(format!("others have changed it since: {}", foreign.join(", "))));
        }
        let Some(wanted) = wanted.filter(|_| text(live, "/metadata/deletionTimestamp").is_empty()) else {
            return Ok(());
        };
        let again = self.apply(object, wanted, true, true).await?;
        let changes = fields::diff(&show::veiled(live), &show::veiled(&again));
        let one = |c: &fields::Change| {
            let (now, left) = (show::value(c.before.as_ref()), show::value(c.after.as_ref()));
            format!("{} is {now}, where this step left {left}", fields::show_path(&c.path))
        };
        let list: Vec<_> = changes.iter().map(one).collect();
        if list.is_empty() { Ok(()) } else { Err(stays(list.join("; "))) }
    }

    /// Deletes what this step created, unless others have to do with it by now.
    async fn uncreate(
        &self,
        object: &Object,
        created: Option<&str>,
        wanted: Option<&Json>,
        limit: Period,
    ) -> Result<Undone, StepError> {
        let Some(live) = self.find(object).await? else { return Ok(Undone { changed: false, note: None }) };
        if !self.cx.force {
            self.as_created(object, &live, created, wanted).await?;
        }
        let options =
            json!({ "propagationPolicy": Propagation::Foreground.name(), "preconditions": { "uid": uid(&live) } });
        match self.call(&Ask::delete(object.path(), &options)).await {
            Err(e) if !e.is_absent() => return Err(e.into()),
            _ => {}
        }
        self.wait_gone(object, uid(&live), limit.0).await?;
        Ok(Undone { changed: true, note: Some(format!("{object} is deleted")) })
    }
}

fn entries(object: &Json) -> impl Iterator<Item = &Json> {
    object["metadata"]["managedFields"].as_array().into_iter().flatten()
}

fn applied_by(object: &Json, manager: &str) -> bool {
    entries(object).any(|e| text(e, "/manager") == manager && text(e, "/operation") == "Apply")
}

/// Programs of the cluster itself, which complete what they are given.
const CONTROLLERS: &[&str] =
    &["cloud-controller-manager", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet"];

/// Managers that own more than status and metadata, apart from the cluster's own controllers.
fn foreign_managers(object: &Json, manager: &str) -> Vec<String> {
    let others =
        entries(object).filter(|e| !CONTROLLERS.contains(&text(e, "/manager")) && text(e, "/manager") != manager);
    let works =
        |e: &&Json| e["fieldsV1"].as_object().is_some_and(|f| f.keys().any(|k| k != "f:status" && k != "f:metadata"));
    others.filter(works).map(|e| format!("\"{}\" at {}", text(e, "/manager"), text(e, "/time"))).collect()
}

#[async_trait::async_trait]
impl StepType for K8sApply {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = Capture;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "k8s.apply",
            doc: "Makes Kubernetes objects as manifests say, and waits until they are ready.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Client,
            examples: &[
                "
- id: config
  uses: k8s.apply
  with:
    namespace: shop
    manifest: { apiVersion: v1, kind: ConfigMap, metadata: { name: web }, data: { mode: fast } }
",
                "\n- id: all\n  uses: k8s.apply\n  with: { path: manifests, namespace: shop, timeout: 5m }\n",
            ],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut found = common_problems(inputs.place());
        match (&inputs.manifest, &inputs.path) {
            (Some(_), Some(_)) => found.push(problem("path", "`manifest` is given too; one of them is enough")),
            (None, None) => found.push(problem("manifest", "is missing, and so is `path`: there is nothing to apply")),
            (Some(value), None) => {
                if let Err(e) = manifest::inline(value) {
                    found.push(InputProblem { help: e.help, ..problem("manifest", e.message) });
                }
            }
            (None, Some(_)) => {}
        }
        found
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let kube = self.0.open(cx, inputs.place()).await?.impatient();
        let all = inputs.objects(cx).await?;
        let mut details = Vec::new();
        let (mut create, mut change) = (0, 0);
        for wanted in &all {
            let (object, live, after) = kube.rehearse(&all, wanted, inputs.force_conflicts).await?;
            let plain = format!("{}/{}", text(wanted, "/kind").to_lowercase(), text(wanted, "/metadata/name"));
            let label = object.map_or(plain, |o| o.to_string());
            // What the server fills in is noise where all is new.
            let lines = show::diff(&label, &live, after.as_ref().filter(|_| !live.is_null()).unwrap_or(wanted));
            if live.is_null() {
                create += 1;
            } else if !lines.is_empty() {
                change += 1;
            }
            details.extend(lines);
        }
        let same = all.len() - create - change;
        let parts = [(create, "create"), (change, "change"), (same, "leave")];
        let summary: Vec<_> = parts.iter().filter(|p| p.0 > 0).map(|(n, verb)| format!("{verb} {n}")).collect();
        Ok(Preview { changes: Some(create + change > 0), summary: format!("apply: {}", summary.join(", ")), details })
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Capture, StepError> {
        let kube = self.0.open(cx, inputs.place()).await?;
        let all = inputs.objects(cx).await?;
        let mut objects = Vec::new();
        for wanted in &all {
            let (object, live, after) = kube.rehearse(&all, wanted, inputs.force_conflicts).await?;
            let touched = match (&object, after) {
                (Some(object), Some(after)) if !live.is_null() => Some(Touched::between(object, &live, &after)),
                _ => None,
            };
            let named = Some(text(wanted, "/metadata/namespace")).filter(|n| !n.is_empty()).unwrap_or(&kube.namespace);
            objects.push(Before {
                api_version: text(wanted, "/apiVersion").to_owned(),
                kind: text(wanted, "/kind").to_owned(),
                name: text(wanted, "/metadata/name").to_owned(),
                namespace: object.map_or_else(|| named.to_owned(), |o| o.namespace),
                touched,
            });
        }
        Ok(Capture { digest: digest(&all), objects })
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Capture) -> Result<Acted<Outputs>, StepError> {
        let kube = self.0.open(cx, inputs.place()).await?;
        let all = inputs.objects(cx).await?;
        if digest(&all) != capture.digest {
            return Err(StepError::conflict("the manifests have changed since this step began")
                .help("start a new run: its undo information must be of these manifests"));
        }
        let mut applied = Vec::new();
        let mut made = Vec::new();
        for (wanted, before) in all.iter().zip(&capture.objects) {
            let object = kube.address(kube.must_know(wanted).await?, wanted);
            let after = kube.apply(&object, wanted, inputs.force_conflicts, false).await?;
            let result = match &before.touched {
                None => "created",
                Some(t) if t.changes.is_empty() => "unchanged",
                Some(_) => "changed",
            };
            if before.touched.is_none() {
                cx.host.note(json!({ "created": object.path(), "uid": uid(&after) })).await?;
            }
            cx.host.output(Stream::Stdout, format!("{object}: {result}\n").as_bytes());
            applied.push(Applied {
                resource: format!("{}/{}", object.kind.label(), object.name),
                namespace: object.namespace.clone(),
                uid: uid(&after).to_owned(),
                result: result.to_owned(),
            });
            // Nothing can be made of a definition or in a namespace before the server has taken it up.
            if object.kind.is(EXTENSIONS, DEFINITION) || object.kind.is("", "Namespace") {
                kube.wait_ready(&object, inputs.timeout.0).await?;
            }
            made.push(object);
        }
        if inputs.wait {
            for object in &made {
                kube.wait_ready(object, inputs.timeout.0).await?;
            }
        }
        let changed = applied.iter().any(|a| a.result != "unchanged");
        Ok(Acted { outputs: Outputs { objects: applied }, changed })
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        inputs: &Inputs,
        capture: &Capture,
        _outputs: Option<&Outputs>,
    ) -> Result<Undone, StepError> {
        let kube = self.0.open(cx, inputs.place()).await?;
        let notes = cx.host.notes();
        // Files that have changed since say nothing of what was applied.
        let read = inputs.objects(cx).await.ok().filter(|all| digest(all) == capture.digest).unwrap_or_default();
        let mut all = Vec::new();
        for (at, before) in capture.objects.iter().enumerate().rev() {
            // Without its kind nothing of it is left.
            let Some(kind) = kube.kind_of(&before.api_version, &before.kind).await? else { continue };
            let object = Object::new(kind, &before.name, &before.namespace);
            let path = object.path();
            let created = notes.iter().rev().find(|n| text(n, "/created") == path).map(|n| text(n, "/uid"));
            all.push((object, before.touched.as_ref(), created, read.get(at)));
        }
        // Where somebody else has changed one of them, none is touched.
        let mut drifts = Vec::new();
        for (object, touched, created, wanted) in all.iter().filter(|_| !cx.force) {
            let found = match touched {
                Some(touched) => kube.drift(object, touched).await,
                None => match kube.find(object).await? {
                    Some(live) => kube.as_created(object, &live, *created, *wanted).await,
                    None => Ok(()),
                },
            };
            match found {
                Err(e) if e.class != Class::Conflict => return Err(e),
                found => drifts.extend(found.err()),
            }
        }
        if let Some(drift) = together(drifts) {
            return Err(drift);
        }
        let (mut done, mut failed) = (Vec::new(), Vec::new());
        for (object, touched, created, wanted) in &all {
            let undone = match touched {
                Some(touched) => kube.restore(object, touched).await,
                None => kube.uncreate(object, *created, *wanted, inputs.timeout).await,
            };
            match undone {
                Ok(one) => done.extend(one.note.filter(|_| one.changed)),
                Err(e) => failed.push(e),
            }
        }
        let Some(mut failed) = together(failed) else {
            return Ok(Undone { changed: !done.is_empty(), note: (!done.is_empty()).then(|| done.join("; ")) });
        };
        if !done.is_empty() {
            failed.message = format!("{} (done: {})", failed.message, done.join("; "));
        }
        Err(failed)
    }
}

/// One error that says all of them, with the way out of the first.
fn together(errors: Vec<StepError>) -> Option<StepError> {
    errors.into_iter().reduce(|mut all, more| {
        all.message.push_str("; ");
        all.message.push_str(&more.message);
        all
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_count_as_foreign_and_controllers_do_not() {
        let entry = |manager: &str, fields: Json| json!({ "manager": manager, "operation": "Update", "time": "t", "fieldsV1": fields });
        let object = json!({ "metadata": { "managedFields": [
            entry("runback", json!({ "f:spec": {} })),
            entry("kube-controller-manager", json!({ "f:spec": {} })),
            entry("kubectl-edit", json!({ "f:spec": { "f:replicas": {} } })),
            entry("watcher", json!({ "f:status": {}, "f:metadata": {} })),
            entry("kubernetes-dashboard", json!({ "f:spec": { "f:replicas": {} } })),
            entry("helm", json!({ "f:data": {} })),
        ] } });
        assert_eq!(
            foreign_managers(&object, "runback"),
            ["\"kubectl-edit\" at t", "\"kubernetes-dashboard\" at t", "\"helm\" at t"]
        );
    }
}
