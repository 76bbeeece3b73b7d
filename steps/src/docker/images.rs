//! Names of images that a step moves, and moving them back.

use runback_core::step::{Cx, StepError, Undone};
use serde::{Deserialize, Serialize};

use super::cli::Engine;

/// What a name meant before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NameBefore {
    pub(crate) name: String,
    /// The image's id; None = the daemon knew no such image.
    pub(crate) id: Option<String>,
}

pub(crate) async fn capture(engine: &Engine, cx: &Cx<'_>, names: &[String]) -> Result<Vec<NameBefore>, StepError> {
    let mut all = Vec::with_capacity(names.len());
    for name in names {
        all.push(NameBefore { name: name.clone(), id: engine.image_id(cx, name).await? });
    }
    Ok(all)
}

/// Gives each name the meaning that it had. `left` is the id that the action left a name with, where that is known.
pub(crate) async fn undo(
    engine: &Engine,
    cx: &Cx<'_>,
    before: &[NameBefore],
    left: impl Fn(&str) -> Option<String>,
) -> Result<Undone, StepError> {
    let mut did = Vec::new();
    for NameBefore { name, id } in before {
        let now = engine.image_id(cx, name).await?;
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
        if !exit.ok() && engine.image_id(cx, name).await?.is_some() {
            return Err(super::errors::of_exit(&command, &exit, &what)
                .help("a container of it may still be there; remove that, then run the rollback again"));
        }
        did.push(format!("removed {name}"));
    }
    Ok(Undone { changed: !did.is_empty(), note: (!did.is_empty()).then(|| did.join("; ")) })
}
