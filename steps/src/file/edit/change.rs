//! One edit, worked out against a document: the changes that are still to be made, and the document after each. Knows no
//! format; the formats are held against what this says.

use runback_core::Json;
use schemars::JsonSchema;
use serde::Deserialize;

use super::path::{self, Address, Part, Seg};

/// One change at a path. Give one of `set`, `remove`, `rename`, `append` and `replace`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub(crate) struct Edit {
    /// Gives the place the `value`. Maps on the way that are not there are made.
    #[serde(default)]
    pub(crate) set: Option<String>,
    /// Takes the place away, if it is there. In a list, a name is the item that is this text. With `value`, the place is
    /// a list, and the items that are this value go.
    #[serde(default)]
    pub(crate) remove: Option<String>,
    /// Calls the key `to` from now on. Its place and its value stay.
    #[serde(default)]
    pub(crate) rename: Option<String>,
    /// Adds the `value` to the end of the list, unless it is in it.
    #[serde(default)]
    pub(crate) append: Option<String>,
    /// Texts that begin with `from` begin with `to` instead.
    #[serde(default)]
    pub(crate) replace: Option<String>,
    /// For `set` and `append`; may be given for `remove`.
    #[serde(default)]
    pub(crate) value: Option<Json>,
    /// For `replace`.
    #[serde(default)]
    pub(crate) from: Option<String>,
    /// For `rename` and `replace`.
    #[serde(default)]
    pub(crate) to: Option<String>,
}

/// An [`Edit`] that is whole.
#[derive(Debug)]
pub(super) enum Verb<'a> {
    Set(&'a Json),
    Remove(Option<&'a Json>),
    Rename(&'a str),
    Append(&'a Json),
    Replace(&'a str, &'a str),
}

/// A change that has something to do, at a place that is there, or that is made on the way.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Change {
    Set(Address, Json),
    Remove(Address),
    Rename(Address, String),
    Append(Address, Json),
}

/// What is wrong with an edit, and the key that it is about.
pub(super) type Mistake = (&'static str, String);

impl Edit {
    /// What it does, and where.
    pub(super) fn verb(&self) -> Result<(Verb<'_>, Vec<Part>), Mistake> {
        let verbs = [
            ("set", &self.set),
            ("remove", &self.remove),
            ("rename", &self.rename),
            ("append", &self.append),
            ("replace", &self.replace),
        ];
        let given: Vec<_> = verbs.iter().filter_map(|(verb, path)| Some((*verb, path.as_deref()?))).collect();
        let [(verb, text)] = given[..] else {
            let message = "one of `set`, `remove`, `rename`, `append` and `replace` says what an edit does";
            return Err((given.get(1).map_or("", |(verb, _)| verb), message.to_owned()));
        };
        let parts = path::parse(text).map_err(|why| (verb, why))?;
        let extra = [("value", self.value.is_some()), ("from", self.from.is_some()), ("to", self.to.is_some())];
        let wanted: &[&str] = match verb {
            "set" | "append" => &["value"],
            "rename" => &["to"],
            "replace" => &["from", "to"],
            _ => &[],
        };
        for (key, is) in extra {
            if is != wanted.contains(&key) && !(verb == "remove" && key == "value") {
                let what = if is { "has no meaning for" } else { "is missing for" };
                return Err((if is { key } else { verb }, format!("`{key}` {what} `{verb}`")));
            }
        }
        let (value, from, to) = (self.value.as_ref().unwrap_or(&Json::Null), self.from.as_deref(), self.to.as_deref());
        let (from, to) = (from.unwrap_or_default(), to.unwrap_or_default());
        let done = match verb {
            "set" => Verb::Set(value),
            "append" => Verb::Append(value),
            "rename" if to.is_empty() || matches!(parts.last(), Some(Part::Any)) => {
                return Err(("rename", "one key gets one new name".to_owned()));
            }
            "rename" => Verb::Rename(to),
            "replace" if from.is_empty() => return Err(("from", "must not be empty".to_owned())),
            "replace" => Verb::Replace(from, to),
            _ => Verb::Remove(self.value.as_ref()),
        };
        Ok((done, parts))
    }

    /// The changes that bring `document` where the edit wants it; none where it is so already. Made in this order, each
    /// leaves the addresses of the next as they are.
    pub(super) fn changes(&self, document: &Json) -> Result<Vec<Change>, String> {
        let (verb, parts) = self.verb().map_err(|(_, message)| message)?;
        let written = || self.path().to_owned();
        let some =
            |all: Vec<Address>| if all.is_empty() { Err(format!("nothing is at `{}`", written())) } else { Ok(all) };
        let at = |address: &Address| path::get(document, address);
        let mut changes = Vec::new();
        match verb {
            Verb::Remove(None) => {
                for address in path::expand(document, &parts, false)?.into_iter().rev() {
                    let by_number = match (address.last(), parts.last()) {
                        (Some(Seg::Index(_)), Some(Part::Name(name))) => {
                            at(&address).and_then(Json::as_str) != Some(name)
                        }
                        _ => false,
                    };
                    if by_number {
                        let why = "an item is not removed by its number: done twice, that would be another one";
                        return Err(format!("{why}; give the list as the path, and the item as `value`"));
                    }
                    changes.push(Change::Remove(address));
                }
            }
            Verb::Remove(Some(item)) => {
                for address in path::expand(document, &parts, false)?.into_iter().rev() {
                    let Some(Json::Array(list)) = at(&address) else { continue };
                    for index in (0..list.len()).rev().filter(|i| list[*i] == *item) {
                        let seg = Seg::Index(index);
                        changes.push(Change::Remove(address.iter().cloned().chain([seg]).collect()));
                    }
                }
            }
            Verb::Set(value) => {
                let all = some(path::expand(document, &parts, true)?)?;
                let differs = all.into_iter().filter(|a| at(a) != Some(value));
                changes.extend(differs.map(|a| Change::Set(a, value.clone())));
            }
            Verb::Append(item) => {
                for address in some(path::expand(document, &parts, true)?)? {
                    match at(&address) {
                        None | Some(Json::Null) => changes.push(Change::Set(address, Json::Array(vec![item.clone()]))),
                        Some(Json::Array(list)) if list.contains(item) => {}
                        Some(Json::Array(_)) => changes.push(Change::Append(address, item.clone())),
                        Some(other) => {
                            return Err(format!("`{}` is {}, not a list", path::show(&address), path::kind(other)));
                        }
                    }
                }
            }
            Verb::Replace(from, to) => {
                for address in some(path::expand(document, &parts, false)?)? {
                    let Some(Json::String(text)) = at(&address) else { continue };
                    let done = to.starts_with(from) && text.starts_with(to);
                    if let (Some(rest), false) = (text.strip_prefix(from), done) {
                        changes.push(Change::Set(address, Json::String(replaced(from, to, rest)?)));
                    }
                }
            }
            Verb::Rename(to) => {
                let mut after = parts.clone();
                after.pop();
                after.push(Part::Name(to.to_owned()));
                let (old, new) = (path::expand(document, &parts, false)?, path::expand(document, &after, false)?);
                if old.is_empty() && new.is_empty() {
                    return Err(format!("nothing is at `{}`", written()));
                }
                for address in old {
                    let mut renamed = address.clone();
                    match renamed.pop() {
                        Some(Seg::Key(key)) if key == to => continue,
                        Some(Seg::Key(_)) => renamed.push(Seg::Key(to.to_owned())),
                        _ => return Err(format!("`{}` is an item of a list, and has no name", path::show(&address))),
                    }
                    if new.contains(&renamed) {
                        return Err(format!("`{}` is there already", path::show(&renamed)));
                    }
                    changes.push(Change::Rename(address, to.to_owned()));
                }
            }
        }
        Ok(changes)
    }

    /// As it was written.
    pub(super) fn path(&self) -> &str {
        let all = [&self.set, &self.remove, &self.rename, &self.append, &self.replace];
        all.into_iter().find_map(|p| p.as_deref()).unwrap_or_default()
    }
}

impl Change {
    /// The document after it.
    pub(super) fn apply(&self, document: &mut Json) -> Option<()> {
        match self {
            Self::Set(address, value) => *reach(document, address)? = value.clone(),
            Self::Append(address, item) => reach(document, address)?.as_array_mut()?.push(item.clone()),
            Self::Remove(address) => {
                let (last, above) = address.split_last()?;
                match (last, reach(document, above)?) {
                    (Seg::Key(key), Json::Object(map)) => drop(map.shift_remove(key)?),
                    (Seg::Index(index), Json::Array(list)) if *index < list.len() => drop(list.remove(*index)),
                    _ => return None,
                }
            }
            Self::Rename(address, to) => {
                let (last, above) = address.split_last()?;
                let (Seg::Key(key), Json::Object(map)) = (last, reach(document, above)?) else { return None };
                let value = map.shift_remove(key)?;
                map.insert(to.clone(), value);
            }
        }
        Some(())
    }
}

/// The text that comes out of `replace`, unless a second time would replace it again.
pub(super) fn replaced(from: &str, to: &str, rest: &str) -> Result<String, String> {
    let new = format!("{to}{rest}");
    if new.starts_with(from) && !to.starts_with(from) {
        return Err(format!("`{new}` begins with `{from}` again: done twice, it would be something else"));
    }
    Ok(new)
}

/// The place in the document, made where it is not there.
fn reach<'a>(document: &'a mut Json, address: &[Seg]) -> Option<&'a mut Json> {
    address.iter().try_fold(document, |value, seg| match seg {
        Seg::Index(index) => value.get_mut(index),
        Seg::Key(key) => {
            if value.is_null() {
                *value = Json::Object(serde_json::Map::new());
            }
            Some(value.as_object_mut()?.entry(key).or_insert(Json::Null))
        }
    })
}
