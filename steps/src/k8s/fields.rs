//! Fields of an object: which ones a change touches, who owns them, and how to bring exactly those back. Pure; knows no
//! server. The API server's own fields (`metadata.resourceVersion` and its like, `status`) never count.

use runback_core::Json;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::json_path::same;

/// One step on the way to a field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Seg {
    Key(String),
    /// The item of a list whose field `0` is `1`.
    Item(String, Json),
}

/// A field that a change touches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Change {
    pub(crate) path: Vec<Seg>,
    /// None = it was not there.
    pub(crate) before: Option<Json>,
    /// None = it is taken away.
    pub(crate) after: Option<Json>,
    /// How many steps of the path led somewhere before the change: what lies deeper goes again when it is empty.
    stood: usize,
    /// Where the item stood in its list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
}

/// Why a field cannot be brought back.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Drift {
    pub(crate) path: Vec<Seg>,
    pub(crate) now: Option<Json>,
    pub(crate) left: Option<Json>,
    pub(crate) back: Option<Json>,
}

/// `.spec.template.spec.containers[name="main"].image`, as the API server writes it.
pub(crate) fn show_path(path: &[Seg]) -> String {
    let one = |seg: &Seg| match seg {
        Seg::Key(key) if key.contains(['.', '/']) => format!("[{key:?}]"),
        Seg::Key(key) => format!(".{key}"),
        Seg::Item(key, value) => format!("[{key}={value}]"),
    };
    path.iter().map(one).collect::<Vec<_>>().concat()
}

/// The object without what the server keeps for itself.
pub(crate) fn own(object: &Json) -> Json {
    const OF_SERVER: &[&str] = &[
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "generation",
        "managedFields",
        "resourceVersion",
        "selfLink",
        "uid",
    ];
    let mut own = object.clone();
    if let Some(map) = own.as_object_mut() {
        map.remove("status");
        if let Some(meta) = map.get_mut("metadata").and_then(Json::as_object_mut) {
            meta.retain(|key, _| !OF_SERVER.contains(&key.as_str()));
        }
    }
    own
}

/// The fields in which two states of an object differ.
pub(crate) fn diff(before: &Json, after: &Json) -> Vec<Change> {
    let mut changes = Vec::new();
    compare(&mut Vec::new(), 0, Some(&own(before)), Some(&own(after)), &mut changes);
    changes
}

fn compare(path: &mut Vec<Seg>, stood: usize, before: Option<&Json>, after: Option<&Json>, out: &mut Vec<Change>) {
    match (before, after) {
        (None, None) => {}
        (Some(a), Some(b)) if same(a, b) => {}
        (Some(Value::Object(_)), Some(Value::Object(new))) => maps(path, path.len(), before, new, out),
        // A new map is its fields: what others add to it later is theirs.
        (None, Some(Value::Object(new))) if !new.is_empty() => maps(path, stood, None, new, out),
        (Some(Value::Array(old)), Some(Value::Array(new))) => match list_key(old, new) {
            Some(key) => lists(path, key, old, new, out),
            None => out.push(change(path, path.len(), before, after)),
        },
        _ => {
            let stood = if before.is_some() { path.len() } else { stood };
            out.push(change(path, stood, before, after));
        }
    }
}

fn change(path: &[Seg], stood: usize, before: Option<&Json>, after: Option<&Json>) -> Change {
    Change { path: path.to_vec(), before: before.cloned(), after: after.cloned(), stood, index: None }
}

fn maps(path: &mut Vec<Seg>, stood: usize, old: Option<&Json>, new: &Map<String, Json>, out: &mut Vec<Change>) {
    let old = old.and_then(Json::as_object);
    let gone = old
        .into_iter()
        .flatten()
        .filter(|(key, _)| !new.contains_key(*key))
        .map(|(key, value)| (key, Some(value), None));
    let kept = new.iter().map(|(key, value)| (key, old.and_then(|o| o.get(key)), Some(value)));
    for (key, before, after) in gone.chain(kept) {
        path.push(Seg::Key(key.clone()));
        compare(path, stood, before, after, out);
        path.pop();
    }
}

fn lists(path: &mut Vec<Seg>, key: &str, old: &[Json], new: &[Json], out: &mut Vec<Change>) {
    let find = |list: &[Json], value: &Json| list.iter().position(|item| item[key] == *value);
    for (at, item) in old.iter().enumerate() {
        path.push(Seg::Item(key.to_owned(), item[key].clone()));
        match find(new, &item[key]) {
            Some(there) => compare(path, path.len(), Some(item), Some(&new[there]), out),
            None => out.push(Change { index: Some(at), ..change(path, path.len(), Some(item), None) }),
        }
        path.pop();
    }
    for item in new.iter().filter(|item| find(old, &item[key]).is_none()) {
        path.push(Seg::Item(key.to_owned(), item[key].clone()));
        out.push(change(path, path.len() - 1, None, Some(item)));
        path.pop();
    }
}

/// The field that tells the items of both lists apart: the merge keys of the API's own types, the most usual first.
fn list_key(old: &[Json], new: &[Json]) -> Option<&'static str> {
    const KEYS: &[&str] = &["name", "mountPath", "containerPort", "port", "type", "key", "topologyKey", "ip", "uid"];
    let tells = |key: &str, list: &[Json]| {
        let value =
            |item: &Json| item.as_object().and_then(|m| m.get(key)).filter(|v| v.is_string() || v.is_number()).cloned();
        let values: Option<Vec<Json>> = list.iter().map(value).collect();
        values.is_some_and(|v| v.iter().enumerate().all(|(i, one)| !v[..i].contains(one)))
    };
    KEYS.iter().copied().find(|key| tells(key, old) && tells(key, new) && !(old.is_empty() && new.is_empty()))
}

pub(crate) fn get<'a>(object: &'a Json, path: &[Seg]) -> Option<&'a Json> {
    path.iter().try_fold(object, |value, seg| match seg {
        Seg::Key(key) => value.get(key),
        Seg::Item(key, want) => value.as_array()?.iter().find(|item| item[key.as_str()] == *want),
    })
}

fn equal(a: Option<&Json>, b: Option<&Json>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => same(a, b),
        (None, None) => true,
        _ => false,
    }
}

/// Whether each change is to be seen in the object.
pub(crate) fn is_done(live: &Json, changes: &[Change]) -> bool {
    changes.iter().all(|c| equal(get(live, &c.path), c.after.as_ref()))
}

/// Whether none of the changes is to be seen in the object.
pub(crate) fn is_undone(live: &Json, changes: &[Change]) -> bool {
    changes.iter().all(|c| equal(get(live, &c.path), c.before.as_ref()))
}

/// The object with each changed field as it was before, and how many had to be brought back. A field that is neither as it
/// was left nor as it was before is drift, which `force` overrides.
pub(crate) fn restore(live: &Json, changes: &[Change], force: bool) -> Result<(Json, usize), Vec<Drift>> {
    let mut target = live.clone();
    let (mut drifts, mut count) = (Vec::new(), 0);
    for change in changes.iter().rev() {
        let now = get(live, &change.path);
        if equal(now, change.before.as_ref()) {
            continue;
        }
        let drift = || Drift {
            path: change.path.clone(),
            now: now.cloned(),
            left: change.after.clone(),
            back: change.before.clone(),
        };
        if !force && !equal(now, change.after.as_ref()) {
            drifts.push(drift());
            continue;
        }
        let done = if let Some(value) = &change.before {
            put(&mut target, &change.path, value, change.index)
        } else {
            take(&mut target, &change.path, change.stood);
            true
        };
        if done {
            count += 1;
        } else {
            drifts.push(drift());
        }
    }
    if drifts.is_empty() { Ok((target, count)) } else { Err(drifts) }
}

/// False where an item on the way is gone.
fn put(target: &mut Json, path: &[Seg], value: &Json, index: Option<usize>) -> bool {
    let Some((seg, rest)) = path.split_first() else {
        *target = value.clone();
        return true;
    };
    match seg {
        Seg::Key(key) => {
            if target.is_null() {
                *target = Json::Object(Map::new());
            }
            target.as_object_mut().is_some_and(|map| put(map.entry(key).or_insert(Json::Null), rest, value, index))
        }
        Seg::Item(key, want) => {
            if target.is_null() {
                *target = Json::Array(Vec::new());
            }
            let Some(list) = target.as_array_mut() else { return false };
            if let Some(item) = list.iter_mut().find(|item| item[key.as_str()] == *want) {
                return put(item, rest, value, index);
            }
            if !rest.is_empty() {
                return false;
            }
            list.insert(index.unwrap_or(list.len()).min(list.len()), value.clone());
            true
        }
    }
}

/// Takes a field away, and what became empty above it as far down as `stood`.
fn take(target: &mut Json, path: &[Seg], stood: usize) {
    let Some((seg, rest)) = path.split_first() else { return };
    let empty = |v: &Json| v.as_object().is_some_and(Map::is_empty) || v.as_array().is_some_and(Vec::is_empty);
    let goes = |child: &mut Json| {
        if rest.is_empty() {
            return true;
        }
        take(child, rest, stood.saturating_sub(1));
        stood == 0 && empty(child)
    };
    match (seg, target) {
        (Seg::Key(key), Value::Object(map)) => {
            let empty = map.get_mut(key).is_some_and(goes);
            if empty {
                map.shift_remove(key);
            }
        }
        (Seg::Item(key, want), Value::Array(list)) => {
            let at = list.iter().position(|item| item[key.as_str()] == *want);
            if let Some(at) = at.filter(|at| goes(&mut list[*at])) {
                list.remove(at);
            }
        }
        _ => {}
    }
}

/// The merge patch (RFC 7386) that makes `to` of `from`; None where they are the same.
pub(crate) fn merge_patch(from: &Json, to: &Json) -> Option<Json> {
    let (Value::Object(old), Value::Object(new)) = (from, to) else {
        return (!same(from, to)).then(|| to.clone());
    };
    let mut patch = Map::new();
    for key in old.keys().filter(|k| !new.contains_key(*k)) {
        patch.insert(key.clone(), Json::Null);
    }
    for (key, value) in new {
        let part = match old.get(key) {
            Some(before) => merge_patch(before, value),
            None => Some(value.clone()),
        };
        if let Some(part) = part {
            patch.insert(key.clone(), part);
        }
    }
    (!patch.is_empty()).then(|| Json::Object(patch))
}

/// Who owns a field: `"kubectl-edit" (Update, 2026-11-21T17:02:04Z)`, by `metadata.managedFields`.
pub(crate) fn owners(object: &Json, path: &[Seg]) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().map(Vec::as_slice).unwrap_or_default();
    let named = |e: &Json| {
        let text = |key: &str| e[key].as_str().unwrap_or("?").to_owned();
        format!("\"{}\" ({}, {})", text("manager"), text("operation"), text("time"))
    };
    entries.iter().filter(|e| owns(&e["fieldsV1"], object, path)).map(named).collect()
}

fn owns(fields: &Json, object: &Json, path: &[Seg]) -> bool {
    let Some((seg, rest)) = path.split_first() else { return true };
    let Some(map) = fields.as_object() else { return false };
    // A leaf above the field: the owner has it as a whole.
    if map.is_empty() {
        return true;
    }
    match seg {
        Seg::Key(key) => {
            map.get(&format!("f:{key}")).is_some_and(|f| owns(f, object.get(key).unwrap_or(&Json::Null), rest))
        }
        Seg::Item(key, want) => {
            let item = object.as_array().into_iter().flatten().find(|item| item[key.as_str()] == *want);
            let item = item.unwrap_or(&Json::Null);
            map.iter().any(|(k, f)| {
                let keys: Option<Json> = k.strip_prefix("k:").and_then(|text| serde_json::from_str(text).ok());
                let keys = keys.as_ref().and_then(Json::as_object);
                keys.is_some_and(|m| m.iter().all(|(k, v)| item[k.as_str()] == *v || (k == key && v == want)))
                    && owns(f, item, rest)
            })
        }
    }
}

#[cfg(test)]
#[path = "fields_tests.rs"]
mod tests;
