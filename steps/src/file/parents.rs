//! Directories that a step makes on the way to its path, and takes away again when they are empty.

use runback_core::step::{Cx, StepError};
use runback_core::target::{FileKind, TargetErrorKind};

use super::paths;

/// The directories above `path` that are not there, outermost first. An error where something above it is no
/// directory.
pub(crate) async fn missing(cx: &Cx<'_>, path: &str) -> Result<Vec<String>, StepError> {
    let mut all = Vec::new();
    let mut dir = paths::parent(path);
    loop {
        if dir == "/" || dir == "." || dir.is_empty() {
            break;
        }
        match cx.target.stat(dir).await? {
            None => all.push(dir.to_owned()),
            // A link may lead to a directory; if it does not, what comes next says so.
            Some(stat) if matches!(stat.kind, FileKind::Dir | FileKind::Symlink) => break,
            Some(stat) => {
                return Err(StepError::permanent(format!("{dir} is {}, so nothing can be in it", kind_of(&stat))));
            }
        }
        dir = paths::parent(dir);
    }
    all.reverse();
    Ok(all)
}

fn kind_of(stat: &runback_core::target::FileStat) -> String {
    super::before::kind(stat)
}

/// The error of a path in a directory that is not there.
pub(crate) fn none(path: &str, missing: &[String]) -> StepError {
    let dir = missing.first().map_or("", String::as_str);
    StepError::permanent(format!("{path}: there is no directory {dir}"))
        .help("say `create_dirs: true`, or make it with `uses: dir.create`")
}

/// Makes those that are not there yet.
pub(crate) async fn make(cx: &Cx<'_>, dirs: &[String]) -> Result<(), StepError> {
    for dir in dirs {
        if cx.target.stat(dir).await?.is_none()
            && let Err(e) = cx.target.create_dir(dir, None).await
        {
            // A step beside this one may have been faster.
            match cx.target.stat(dir).await? {
                Some(stat) if stat.kind == FileKind::Dir => {}
                _ => return Err(e.into()),
            }
        }
    }
    Ok(())
}

/// Removes the directories that `make` made, innermost first; stops at the first that is not empty and says so: a step
/// beside this one may be in it, and the last one removes it. What is gone is fine. The flag tells whether any was removed.
pub(crate) async fn unmake(cx: &Cx<'_>, dirs: &[String]) -> Result<(bool, Option<String>), StepError> {
    let mut removed = false;
    for dir in dirs.iter().rev() {
        match cx.target.stat(dir).await? {
            Some(stat) if stat.kind == FileKind::Dir => {}
            _ => continue,
        }
        let mut inside = inside(cx, dir).await?;
        if inside.is_empty() {
            let Err(e) = cx.target.remove_dir(dir).await else {
                removed = true;
                continue;
            };
            // Somebody may have been faster with something new.
            inside = self::inside(cx, dir).await?;
            if inside.is_empty() {
                return Err(e.into());
            }
        }
        return Ok((removed, Some(format!("left {dir}: it holds {}", some(&inside)))));
    }
    Ok((removed, None))
}

/// What is in a directory; nothing where it is gone.
async fn inside(cx: &Cx<'_>, dir: &str) -> Result<Vec<String>, StepError> {
    match cx.target.list(dir).await {
        Err(e) if e.kind == TargetErrorKind::NotFound => Ok(Vec::new()),
        listed => Ok(listed?),
    }
}

/// The first names of a list, and how many more there are.
pub(crate) fn some(names: &[String]) -> String {
    let shown = names.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > 5 { format!("{shown} and {} more", names.len() - 5) } else { shown }
}
