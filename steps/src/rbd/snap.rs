//! What the step types about snapshots share: reading them, and taking one. Knows no step type.

use runback_core::step::{Class, Cx, InputProblem, StepError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cli::Image;
use super::errors::{self, Why, why};
use crate::http::look::problem;

/// One snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Snap {
    /// Never used twice in a pool, so it tells a snapshot from another of the same name.
    pub(crate) id: u64,
    /// The snapshot's name.
    pub(crate) name: String,
    /// In bytes.
    pub(crate) size: u64,
    /// It cannot be removed, and may have clones.
    pub(crate) protected: bool,
}

/// As `rbd snap ls --format json` has it: `protected` is a text.
#[derive(Deserialize)]
struct Listed {
    id: u64,
    name: String,
    size: u64,
    #[serde(default)]
    protected: String,
}

pub(crate) async fn list(cx: &Cx<'_>, image: &Image) -> Result<Vec<Snap>, StepError> {
    let all: Vec<Listed> = image.json(cx, &["snap", "ls"]).await?;
    let snap = |l: Listed| Snap { id: l.id, name: l.name, size: l.size, protected: l.protected == "true" };
    Ok(all.into_iter().map(snap).collect())
}

pub(crate) async fn find(cx: &Cx<'_>, image: &Image, name: &str) -> Result<Option<Snap>, StepError> {
    Ok(list(cx, image).await?.into_iter().find(|s| s.name == name))
}

pub(crate) async fn must(cx: &Cx<'_>, image: &Image, name: &str) -> Result<Snap, StepError> {
    find(cx, image, name).await?.ok_or_else(|| {
        StepError::permanent(format!("{image}@{name}: there is no such snapshot"))
            .help(format!("see `rbd snap ls {image}`"))
    })
}

pub(crate) fn name_problems(key: &str, name: &str) -> Vec<InputProblem> {
    if name.is_empty() {
        return vec![problem(&[key], "must not be empty".to_owned())];
    }
    let bad = name.chars().find(|c| "/@".contains(*c) || c.is_control());
    bad.map(|c| problem(&[key], format!("{c:?} cannot be in the name of a snapshot"))).into_iter().collect()
}

/// `rbd snap VERB`, about one snapshot. When the answer did not come, it looks whether it is done all the same.
pub(crate) async fn change(
    cx: &Cx<'_>,
    image: &Image,
    verb: &[&str],
    name: &str,
    done: impl Fn(Option<&Snap>) -> bool,
) -> Result<(), StepError> {
    let what = format!("{image}@{name}");
    let words = [&["snap"], verb, &[]].concat();
    let option = format!("--snap={name}");
    let command = image.command(cx, &[&words[..], &[&option]].concat());
    let failed = match image.connection.tried(cx, command.clone(), &what).await {
        Ok(exit) if exit.ok() => return Ok(()),
        Ok(exit) => {
            let error = errors::of_exit(&command, &exit, &what, &image.connection);
            // Asked for what is so already (created, protected, unprotected, removed): looking tells.
            if !matches!(
                why(&exit),
                Why::NoAnswer | Why::NoMonitor | Why::Exists | Why::Busy | Why::Malformed | Why::Snapshot
            ) {
                return Err(error);
            }
            error
        }
        Err(error) if error.class == Class::Timeout => error,
        Err(error) => return Err(error),
    };
    match find(cx, image, name).await {
        Ok(now) if done(now.as_ref()) => Ok(()),
        _ => Err(failed),
    }
}

pub(crate) async fn create(cx: &Cx<'_>, image: &Image, name: &str) -> Result<Snap, StepError> {
    change(cx, image, &["create", "--no-progress"], name, |now| now.is_some()).await?;
    must(cx, image, name).await
}

pub(crate) async fn remove(cx: &Cx<'_>, image: &Image, name: &str) -> Result<(), StepError> {
    change(cx, image, &["rm", "--no-progress"], name, |now| now.is_none()).await
}

/// Removes a snapshot that a step made, if it is still that one. Returns whether there was something to remove.
pub(crate) async fn take_back(cx: &Cx<'_>, image: &Image, name: &str, made: Option<u64>) -> Result<bool, StepError> {
    let Some(now) = find(cx, image, name).await? else { return Ok(false) };
    if made.is_some_and(|id| id != now.id) && !cx.force {
        return Err(StepError::conflict(format!(
            "{image}@{name} stays: it is another snapshot than the one that this step took"
        ))
        .help("somebody has taken it anew; look at it, then remove it by hand or roll back with --force"));
    }
    if now.protected {
        return Err(StepError::conflict(format!("{image}@{name} stays: somebody has protected it"))
            .help(format!("it may have clones (`rbd children {image}@{name}`); `rbd snap unprotect` it first")));
    }
    remove(cx, image, name).await?;
    Ok(true)
}
