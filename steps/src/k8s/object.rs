//! One object of a cluster: found by `kind/name`, read, changed by compare-and-set, and brought back field by field. Knows no
//! step type.

use std::time::Duration;

use runback_core::Json;
use runback_core::step::{InputProblem, StepError, Undone};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::client::{Ask, Kube, Patch, escape};
use super::error::ApiError;
use super::fields::{self, Change, Drift};
use super::kind::Kind;
use super::show;

/// How often a change is tried anew because somebody else changed the object meanwhile: controllers write status often.
const ROUNDS: usize = 20;

/// An object's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    /// Empty where the kind has no namespaces.
    pub(crate) namespace: String,
}

impl std::fmt::Display for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.kind.label(), self.name)?;
        if self.namespace.is_empty() { Ok(()) } else { write!(f, " in {}", self.namespace) }
    }
}

impl Object {
    pub(crate) fn new(kind: Kind, name: &str, namespace: &str) -> Self {
        let namespace = if kind.namespaced { namespace.to_owned() } else { String::new() };
        Self { kind, name: name.to_owned(), namespace }
    }

    pub(crate) fn path(&self) -> String {
        format!("{}/{}", self.kind.collection(&self.namespace), self.name)
    }
}

/// `deploy/web` in its two parts.
pub(crate) fn split(resource: &str) -> Result<(&str, &str), String> {
    match resource.split_once('/') {
        Some((kind, name)) if !kind.is_empty() && is_name(name) => Ok((kind, name)),
        _ => Err(format!("`{resource}` is not a resource; write it as kind/name, such as deploy/web")),
    }
}

/// What may stand in a path of the API; RBAC allows `:` in names.
fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
    !name.is_empty() && name != "." && name != ".." && name.chars().all(plain)
}

pub(crate) fn problem(key: &str, message: impl Into<String>) -> InputProblem {
    InputProblem { path: vec![key.to_owned()], message: message.into(), help: None }
}

/// What is wrong with the inputs that every type has.
pub(crate) fn common_problems(place: super::client::Place<'_>) -> Vec<InputProblem> {
    let mut found = Vec::new();
    if place.namespace.is_some_and(|n| !is_name(n)) {
        found.push(problem("namespace", "is not the name of a namespace"));
    }
    if place.field_manager.is_empty() || place.field_manager.len() > 128 {
        found.push(problem("field_manager", "must have 1 to 128 characters"));
    }
    found
}

pub(crate) fn text<'a>(object: &'a Json, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Json::as_str).unwrap_or_default()
}

pub(crate) fn uid(object: &Json) -> &str {
    text(object, "/metadata/uid")
}

/// What a change of fields needs to be taken back.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Touched {
    pub(crate) namespace: String,
    /// Of the object as it was; another object of the same name is not ours.
    pub(crate) uid: String,
    pub(crate) changes: Vec<Change>,
}

impl Touched {
    /// The fields in which two states of one object differ; values of Secrets as digests.
    pub(crate) fn between(object: &Object, before: &Json, after: &Json) -> Self {
        let changes = fields::diff(&show::veiled(before), &show::veiled(after));
        Self { namespace: object.namespace.clone(), uid: uid(before).to_owned(), changes }
    }
}

impl Kube<'_> {
    pub(crate) async fn object(&self, resource: &str) -> Result<Object, StepError> {
        let (kind, name) = split(resource).map_err(StepError::permanent)?;
        Ok(Object::new(self.kind(kind).await?, name, &self.namespace))
    }

    pub(crate) async fn find(&self, object: &Object) -> Result<Option<Json>, ApiError> {
        match self.call(&Ask::get(object.path())).await {
            Ok(found) => Ok(Some(found)),
            Err(e) if e.is_absent() => Ok(None),
            Err(e) => Err(e),
        }
    }

    pub(crate) async fn must(&self, object: &Object) -> Result<Json, StepError> {
        self.find(object).await?.ok_or_else(|| {
            StepError::permanent(format!("{object} is not there"))
                .help(format!("check the name and the namespace; this is the cluster {}", self.url()))
        })
    }

    pub(crate) async fn list(&self, kind: &Kind, namespace: &str, selector: &str) -> Result<Vec<Json>, ApiError> {
        let mut items = Vec::new();
        let mut more = String::new();
        loop {
            // The API server takes an empty value for none.
            let (by, from) = (escape(selector), escape(&more));
            let path = format!("{}?limit=500&labelSelector={by}&continue={from}", kind.collection(namespace));
            let mut answer = self.call(&Ask::get(path)).await?;
            if let Some(list) = answer["items"].as_array_mut() {
                items.append(list);
            }
            text(&answer, "/metadata/continue").clone_into(&mut more);
            if more.is_empty() {
                break;
            }
        }
        // Items of a list say neither.
        for item in &mut items {
            item["apiVersion"] = json!(kind.api_version());
            item["kind"] = json!(kind.kind);
        }
        Ok(items)
    }

    /// `?fieldManager=…`, with `&dryRun=All` where nothing may change.
    pub(crate) fn query(&self, dry: bool) -> String {
        let dry = if dry { "&dryRun=All" } else { "" };
        format!("?fieldManager={}{dry}", escape(self.manager))
    }

    pub(crate) async fn patch(&self, object: &Object, kind: Patch, body: &Json, dry: bool) -> Result<Json, ApiError> {
        self.call(&Ask::patch(format!("{}{}", object.path(), self.query(dry)), kind, body)).await
    }

    /// Changes an object by compare-and-set: `wanted` makes of the object as it is the object as it shall be. Gives the states
    /// before and after; they are the same where nothing was to do.
    pub(crate) async fn change(
        &self,
        object: &Object,
        dry: bool,
        wanted: &(dyn Fn(&Json) -> Result<Json, StepError> + Sync),
    ) -> Result<(Json, Json), StepError> {
        let mut round = 0;
        loop {
            let before = self.must(object).await?;
            let Some(mut patch) = fields::merge_patch(&before, &wanted(&before)?) else {
                return Ok((before.clone(), before));
            };
            patch["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"].clone();
            match self.patch(object, Patch::Merge, &patch, dry).await {
                Ok(after) => return Ok((before, after)),
                Err(e) if e.is_stale() && round < ROUNDS => round += 1,
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// [`Kube::restore`] in the namespace that was captured; `wait` = until the object is ready again, for so long.
    pub(crate) async fn take_back(
        mut self,
        resource: &str,
        touched: &Touched,
        wait: Option<Duration>,
    ) -> Result<Undone, StepError> {
        self.namespace.clone_from(&touched.namespace);
        let object = self.object(resource).await?;
        let undone = self.restore(&object, touched).await?;
        if let Some(timeout) = wait.filter(|_| undone.changed) {
            self.wait_ready(&object, timeout).await?;
        }
        Ok(undone)
    }

    /// The object, where fields that a step touched are still to be brought back; None = nothing is to do.
    async fn touched(&self, object: &Object, touched: &Touched) -> Result<Option<Json>, StepError> {
        if touched.changes.is_empty() {
            return Ok(None);
        }
        let Some(live) = self.find(object).await? else {
            return Err(StepError::conflict(format!("{object} is gone: its fields cannot be brought back"))
                .help("create it again, and undo once more; or leave it"));
        };
        if uid(&live) != touched.uid && !self.cx.force {
            return Err(StepError::conflict(format!("{object} is another object than the one that this step changed"))
                .help("compare them; `--force` brings the fields back in the new one"));
        }
        Ok((!fields::is_undone(&show::veiled(&live), &touched.changes)).then_some(live))
    }

    /// What [`Kube::restore`] would refuse because of others. Changes nothing.
    pub(crate) async fn drift(&self, object: &Object, touched: &Touched) -> Result<(), StepError> {
        let Some(live) = self.touched(object, touched).await? else { return Ok(()) };
        let back = fields::restore(&show::veiled(&live), &touched.changes, self.cx.force);
        back.map(|_| ()).map_err(|drifts| drifted(object, &live, &drifts))
    }

    /// Brings back the fields that a step touched, where they still are as it left them.
    pub(crate) async fn restore(&self, object: &Object, touched: &Touched) -> Result<Undone, StepError> {
        if self.touched(object, touched).await?.is_none() {
            return Ok(Undone { changed: false, note: None });
        }
        let lost = touched.changes.iter().find(|c| c.before.as_ref().is_some_and(show::is_veil));
        if let Some(lost) = lost {
            return Err(StepError::conflict(format!(
                "{object}: {} held another value, and values of Secrets are never kept",
                fields::show_path(&lost.path)
            ))
            .help("put the earlier value back from where it comes from"));
        }
        let wanted = |live: &Json| {
            // A Secret's added values are compared as digests, and taken away in the object itself.
            let (veiled, _) = fields::restore(&show::veiled(live), &touched.changes, self.cx.force)
                .map_err(|drifts| drifted(object, live, &drifts))?;
            Ok(if live["kind"] == "Secret" { unveiled(&veiled, live) } else { veiled })
        };
        let (before, after) = self.change(object, false, &wanted).await?;
        let back = fields::diff(&show::veiled(&before), &show::veiled(&after));
        let names: Vec<_> = back.iter().map(|c| fields::show_path(&c.path)).collect();
        let note = format!("{object}: {} as before", names.join(", "));
        Ok(Undone { changed: !back.is_empty(), note: (!back.is_empty()).then_some(note) })
    }
}

/// Puts the values of a Secret in the place of their digests again.
fn unveiled(veiled: &Json, live: &Json) -> Json {
    let mut out = veiled.clone();
    for map in ["data", "stringData"] {
        for (key, value) in out[map].as_object_mut().into_iter().flatten() {
            if show::is_veil(value) {
                *value = live[map][key].clone();
            }
        }
    }
    for key in ["data", "stringData"] {
        if out[key].is_null()
            && let Some(map) = out.as_object_mut()
        {
            map.shift_remove(key);
        }
    }
    let last = "kubectl.kubernetes.io/last-applied-configuration";
    if let Some(kept) = live["metadata"]["annotations"].get(last) {
        out["metadata"]["annotations"][last] = kept.clone();
    }
    out
}

/// Says which fields somebody else changed, and who.
pub(crate) fn drifted(object: &Object, live: &Json, drifts: &[Drift]) -> StepError {
    let one = |d: &Drift| {
        let owners = fields::owners(live, &d.path);
        let by = if owners.is_empty() { String::new() } else { format!(", owned by {}", owners.join(" and ")) };
        format!(
            "{} is {}, where this step left {} and would bring back {}{by}",
            fields::show_path(&d.path),
            show::value(d.now.as_ref()),
            show::value(d.left.as_ref()),
            show::value(d.back.as_ref()),
        )
    };
    let list: Vec<_> = drifts.iter().map(one).collect();
    StepError::conflict(format!("{object} has changed since: {}", list.join("; ")))
        .help("nothing was touched; settle it with the other side, or undo with --force")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_taken_apart() {
        assert_eq!(split("deploy/web"), Ok(("deploy", "web")));
        assert_eq!(split("clusterrole/system:node"), Ok(("clusterrole", "system:node")));
        for wrong in ["web", "deploy/", "/web", "deploy/web/scale", "deploy/..", "deploy/a?b", ""] {
            assert!(split(wrong).is_err(), "{wrong}");
        }
    }
}
