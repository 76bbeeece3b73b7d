//! Names of images that a step moves, and moving them back. What a name means after an action that moved none is somebody
//! else's, and stays.

use runback_core::Json;
use runback_core::step::{Cx, StepError, Undone};
use serde::{Deserialize, Serialize};

use super::cli::Engine;
use crate::begun::{self, Tells};

/// What a name meant before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NameBefore {
    pub(crate) name: String,
    /// The image's id; None = the daemon knew no such image.
    pub(crate) id: Option<String>,
    #[serde(default)]
    pub(crate) tells: Tells,
}

/// The id of the image of that name. Docker itself takes a name that it does not know for the beginning of an id, and finds
/// an image that is not called so.
async fn meaning(engine: &Engine, cx: &Cx<'_>, name: &str) -> Result<Option<String>, StepError> {
    let found = engine.inspect(cx, "image", &[name]).await?;
    let Some(image) = found.first() else { return Ok(None) };
    let id = image["Id"].as_str().unwrap_or_default();
    let names = ["RepoTags", "RepoDigests"].into_iter().filter_map(|key| image[key].as_array()).flatten();
    let called = |n: &str| n.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '@']));
    let only_begins = id.strip_prefix("sha256:").unwrap_or(id).starts_with(name);
    let so = !only_begins || names.filter_map(Json::as_str).any(called);
    Ok(so.then(|| id.to_owned()))
}

pub(crate) async fn capture(engine: &Engine, cx: &Cx<'_>, names: &[String]) -> Result<Vec<NameBefore>, StepError> {
    let mut all = Vec::with_capacity(names.len());
    for name in names {
        all.push(NameBefore { name: name.clone(), id: meaning(engine, cx, name).await?, tells: Tells::YES });
    }
    Ok(all)
}

async fn ids(engine: &Engine, cx: &Cx<'_>, names: &[NameBefore]) -> Result<Vec<Option<String>>, StepError> {
    let mut all = Vec::with_capacity(names.len());
    for before in names {
        all.push(meaning(engine, cx, &before.name).await?);
    }
    Ok(all)
}

/// Does what may move these names, and tells when. What fails and moved none of them has nothing to undo.
pub(crate) async fn moving<T>(
    engine: &Engine,
    cx: &Cx<'_>,
    names: &[NameBefore],
    work: impl Future<Output = Result<T, StepError>>,
) -> Result<T, StepError> {
    let from = ids(engine, cx, names).await?;
    begun::changing(cx, work, async { ids(engine, cx, names).await.is_ok_and(|now| now == from) }).await
}

/// The step gave one of the names another meaning, by this id.
pub(crate) fn moved(cx: &Cx<'_>, before: &[NameBefore], name: &str, id: Option<&str>) -> bool {
    before.iter().any(|b| b.name == name && !b.tells.strangers(cx) && b.id.as_deref() != id)
}

/// Gives each name the meaning that it had. `left` is the id that the action left a name with, where that is known.
pub(crate) async fn undo(
    engine: &Engine,
    cx: &Cx<'_>,
    before: &[NameBefore],
    left: impl Fn(&str) -> Option<String>,
) -> Result<Undone, StepError> {
    let mut did = Vec::new();
    for NameBefore { name, id, tells } in before {
        if tells.strangers(cx) {
            continue;
        }
        let now = meaning(engine, cx, name).await?;
        if now == *id {
            continue;
        }
        if let (Some(left), false) = (left(name), cx.force)
            && now.as_ref().is_some_and(|now| *now != left)
        {
            return Err(StepError::conflict(format!("the image {name} was changed after this step ended"))
                .help(format!("`runback rollback {} --force` gives it back what it was before this step", cx.run)));
        }
        let what = format!("image {name}");
        if let Some(id) = id {
            engine.ran(cx, engine.work(&["tag", id, name]), &what).await?;
            did.push(format!("{name} is {} again", id.get(..19).unwrap_or(id)));
            continue;
        }
        let command = engine.work(&["image", "rm", name]);
        let exit = engine.tried(cx, command.clone()).await?;
        if !exit.ok() && meaning(engine, cx, name).await?.is_some() {
            return Err(super::errors::of_exit(&command, &exit, &what)
                .help("a container of it may still be there; remove that, then run the rollback again"));
        }
        did.push(format!("removed {name}"));
    }
    Ok(Undone { changed: !did.is_empty(), note: (!did.is_empty()).then(|| did.join("; ")) })
}
