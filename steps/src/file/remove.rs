//! `file.remove`: nothing at a path.
//!
//! **Does.** Removes the file, link or empty directory; a directory with all that is in it with `recursive: true` only.
//! Where nothing is there, it does nothing. A link is removed itself, never what it points to.
//!
//! What undo needs is kept: a file up to 4 MiB in the run's journal; a larger file, or a directory that is not empty, is
//! not deleted but renamed to `.NAME.runback-RUN-STEP.removed` beside its place. So it takes no time and no space, and
//! it frees none: once you no longer want to go back, remove what the output `kept` names. With `keep: false` it is
//! deleted at once, and there is no way back.
//!
//! **Outputs.** `path`, `kind` (what was there: `file`, `dir`, `symlink`, `other`; null for nothing), `kept`.
//!
//! **Undo** brings back what was there, with mode and owner, if the place is still empty; else it is a conflict. `--force`
//! replaces a file or link that stands there now, never a directory.
//!
//! **Does not** remove sockets, pipes or devices unless `keep: false`.

use runback_core::Json;
use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind, Undone,
};
use runback_core::target::{FileAttributes, FileKind, FileStat, TargetErrorKind};
use runback_core::template::ValueTemplate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::before::{self, FileBefore, Now};
use super::{attributes, parents, paths};
use crate::begun::{self, Tells};
use crate::command_outputs::{Entry, entry};

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Inputs {
    /// What to remove. On `local`, a relative path counts from the playbook's folder.
    pub(crate) path: String,
    /// Remove a directory with all that is in it.
    #[serde(default)]
    pub(crate) recursive: bool,
    /// Keep what undo needs. `false` deletes at once, and cannot be undone.
    #[serde(default = "yes")]
    pub(crate) keep: bool,
}

fn yes() -> bool {
    true
}

/// What was removed.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// The path, as the target knows it.
    pub(crate) path: String,
    /// What was there: `file`, `dir`, `symlink`, `other`; null where nothing was.
    pub(crate) kind: Option<String>,
    /// Where it lies until you remove it; null where nothing was moved aside.
    pub(crate) kept: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Capture {
    path: String,
    before: Before,
    #[serde(default)]
    tells: Tells,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Before {
    Absent,
    Link(String),
    File(FileBefore),
    EmptyDir(FileAttributes),
    /// Moved to this path.
    Tree(String),
    /// `keep: false`
    NotKept(FileKind),
}

impl Before {
    fn kind(&self) -> Option<FileKind> {
        match self {
            Self::Absent => None,
            Self::Link(_) => Some(FileKind::Symlink),
            Self::File(_) => Some(FileKind::File),
            Self::EmptyDir(_) | Self::Tree(_) => Some(FileKind::Dir),
            Self::NotKept(kind) => Some(*kind),
        }
    }

    fn aside(&self) -> Option<&str> {
        match self {
            Self::Tree(aside) => Some(aside),
            Self::File(file) => file.content.aside(),
            _ => None,
        }
    }
}

/// The step type `file.remove`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Remove;

fn clean(path: &str) -> &str {
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() { path } else { trimmed }
}

/// What is there and, for a directory, what is in it; an error where it may not be removed.
async fn look(cx: &Cx<'_>, inputs: &Inputs) -> Result<(String, Option<FileStat>, Vec<String>), StepError> {
    let path = cx.path(clean(&inputs.path));
    let stat = cx.target.stat(&path).await?;
    let mut inside = Vec::new();
    match stat.as_ref().map(|s| s.kind) {
        Some(FileKind::Dir) => {
            inside = cx.target.list(&path).await?;
            if !inside.is_empty() && !inputs.recursive {
                return Err(StepError::permanent(format!(
                    "{path} is a directory that holds {}",
                    parents::some(&inside)
                ))
                .help("say `recursive: true` to remove it with all that is in it"));
            }
        }
        Some(FileKind::Other) if inputs.keep => {
            return Err(StepError::permanent(format!("{path} is neither a file, a directory nor a link"))
                .help("undo could not bring it back; say `keep: false` to remove it for good"));
        }
        _ => {}
    }
    Ok((path, stat, inside))
}

#[async_trait::async_trait]
impl StepType for Remove {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = Capture;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "file.remove",
            doc: "Nothing at a path: removes a file, a link or a directory.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Small,
            examples: &[
                "- id: old-site\n  uses: file.remove\n  with: { path: /etc/nginx/sites-enabled/default }\n",
                "- id: cache\n  uses: file.remove\n  with: { path: /var/cache/app, recursive: true, keep: false }\n",
            ],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        paths::problems("path", &inputs.path).into_iter().collect()
    }

    fn capabilities(&self, with: &ValueTemplate) -> (Access, UndoKind) {
        let kept = match entry(with, "keep") {
            None => true,
            Some(Entry::Literal(json) | Entry::Template(ValueTemplate::Literal(json))) => *json == Json::Bool(true),
            Some(Entry::Template(_)) => false,
        };
        (Access::Changes, if kept { UndoKind::Full } else { UndoKind::Impossible })
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let (path, stat, inside) = look(cx, inputs).await?;
        let Some(stat) = stat else {
            let summary = format!("nothing is at {path}");
            return Ok(Preview { changes: Some(false), summary, details: Vec::new() });
        };
        let summary = format!("remove {path}, {}", before::kind(&stat));
        let details = if inside.is_empty() { Vec::new() } else { vec![format!("it holds {}", parents::some(&inside))] };
        Ok(Preview { changes: Some(true), summary, details })
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Capture, StepError> {
        let (path, stat, inside) = look(cx, inputs).await?;
        let aside = paths::beside(cx, &path, "removed");
        let before = match stat {
            None => Before::Absent,
            Some(stat) if !inputs.keep => Before::NotKept(stat.kind),
            Some(FileStat { link: Some(to), .. }) => Before::Link(to),
            Some(stat) if stat.kind == FileKind::File => Before::File(before::read(cx, &path, &stat, aside).await?),
            Some(stat) if inside.is_empty() => Before::EmptyDir(attributes::of(&stat)),
            Some(_) => Before::Tree(aside),
        };
        Ok(Capture { path, before, tells: Tells::YES })
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Capture) -> Result<Acted<Outputs>, StepError> {
        let Capture { path, before, .. } = capture;
        let (_, stat, inside) = look(cx, inputs).await?;
        if let Some(stat) = stat {
            remove(cx, path, before, &stat, &inside).await?;
        }
        let kind = before.kind().map(|kind| match kind {
            FileKind::File => "file",
            FileKind::Dir => "dir",
            FileKind::Symlink => "symlink",
            FileKind::Other => "other",
        });
        let outputs =
            Outputs { path: path.clone(), kind: kind.map(str::to_owned), kept: before.aside().map(str::to_owned) };
        Ok(Acted { outputs, changed: kind.is_some() })
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        _: &Inputs,
        capture: &Capture,
        outputs: Option<&Outputs>,
    ) -> Result<Undone, StepError> {
        let Capture { path, before, tells } = capture;
        if tells.nothing_of(cx, outputs) {
            return Ok(Undone { changed: false, note: None });
        }
        let now = before::look(cx, path).await?;
        let aside_is_there = match before.aside() {
            Some(aside) => cx.target.stat(aside).await?.is_some(),
            None => false,
        };
        let already = match (before, &now) {
            (Before::Absent, _) => true,
            (Before::Link(to), Now::Other(stat)) => stat.link.as_ref() == Some(to),
            (Before::File(file), now) => now.is(file),
            (Before::EmptyDir(_), Now::Other(stat)) => stat.kind == FileKind::Dir,
            (Before::Tree(_), Now::Other(stat)) => stat.kind == FileKind::Dir && !aside_is_there,
            (Before::NotKept(_), now) => !matches!(now, Now::Absent),
            _ => false,
        };
        if already {
            return Ok(Undone { changed: false, note: None });
        }
        if matches!(before, Before::NotKept(_)) {
            return Err(StepError::permanent(format!("{path} was removed for good, as `keep: false` says")));
        }
        in_the_way(cx, path, before, &now)?;
        bring_back(cx, path, before, &now).await?;
        Ok(Undone { changed: true, note: Some(format!("brought back {path}")) })
    }
}

enum How<'a> {
    File,
    EmptyDir,
    Tree,
    MoveTo(&'a str),
}

/// Removes what capture saw. What it did not see is not ours to remove.
async fn remove(cx: &Cx<'_>, path: &str, before: &Before, stat: &FileStat, inside: &[String]) -> Result<(), StepError> {
    let is_dir = stat.kind == FileKind::Dir;
    let how = match before {
        Before::Link(to) if stat.link.as_ref() == Some(to) => Some(How::File),
        Before::File(file) if before::look(cx, path).await?.is(file) => {
            Some(file.content.aside().map_or(How::File, How::MoveTo))
        }
        Before::EmptyDir(_) if is_dir && inside.is_empty() => Some(How::EmptyDir),
        Before::Tree(aside) if is_dir && cx.target.stat(aside).await?.is_none() => Some(How::MoveTo(aside)),
        Before::NotKept(_) => Some(if is_dir { How::Tree } else { How::File }),
        Before::Absent | Before::Link(_) | Before::File(_) | Before::EmptyDir(_) | Before::Tree(_) => None,
    };
    let how = how.ok_or_else(|| {
        StepError::conflict(format!("{path} was changed by someone else since the step began"))
            .help("start a new run: what is there now could not be brought back")
    })?;
    begun::begins(cx).await?;
    let done = match how {
        How::File => cx.target.remove_file(path).await,
        How::EmptyDir => cx.target.remove_dir(path).await,
        How::Tree => cx.target.remove_tree(path).await,
        How::MoveTo(aside) => cx.target.rename(path, aside).await,
    };
    // All but a tree goes at once or not at all. What was lost on its way there may be done yet.
    let lost = [TargetErrorKind::Connection, TargetErrorKind::Timeout, TargetErrorKind::Cancelled];
    if done.as_ref().is_err_and(|e| !lost.contains(&e.kind))
        && !matches!(how, How::Tree)
        && cx.target.stat(path).await.is_ok_and(|now| now.as_ref() == Some(stat))
    {
        begun::never_began(cx).await?;
    }
    Ok(done?)
}

/// An error where something stands at the path that undo may not replace.
fn in_the_way(cx: &Cx<'_>, path: &str, before: &Before, now: &Now) -> Result<(), StepError> {
    let what = match now {
        Now::Absent => return Ok(()),
        Now::File { .. } => "a file".to_owned(),
        Now::Other(stat) => before::kind(stat),
    };
    let is_dir = matches!(now, Now::Other(stat) if stat.kind == FileKind::Dir);
    if is_dir || matches!(before, Before::Tree(_) | Before::EmptyDir(_)) {
        return Err(StepError::conflict(format!("{path}: {what} stands where it was removed"))
            .help("move it away, then run the rollback again"));
    }
    if cx.force { Ok(()) } else { Err(before::drift(cx, path, &format!("{what} stands where it was removed"))) }
}

async fn bring_back(cx: &Cx<'_>, path: &str, before: &Before, now: &Now) -> Result<(), StepError> {
    match before {
        Before::Absent | Before::NotKept(_) => Ok(()),
        Before::Link(to) => Ok(cx.target.symlink(path, to).await?),
        Before::File(file) => {
            if matches!(now, Now::Other(_)) {
                cx.target.remove_file(path).await?;
            }
            before::restore(cx, path, file).await
        }
        Before::EmptyDir(was) => {
            cx.target.create_dir(path, was.mode).await?;
            Ok(cx.target.set_attributes(path, was).await?)
        }
        Before::Tree(aside) => {
            if cx.target.stat(aside).await?.is_none() {
                return Err(StepError::conflict(format!("{path}: what was there lay at {aside}, and is gone"))
                    .help("restore it from a backup of your own"));
            }
            Ok(cx.target.rename(aside, path).await?)
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::testing::{Lab, break_everywhere};
    use runback_core::step::Class;
    use serde_json::json;

    type Prepare = fn(&Lab);

    /// Everything that can stand at `x`.
    const KINDS: [Prepare; 5] = [
        |lab| {
            lab.put("x", "small");
            lab.set_mode("x", 0o600);
        },
        |lab| lab.put("x", vec![b'x'; 5 << 20]),
        |lab| std::os::unix::fs::symlink("nowhere", lab.path("x")).unwrap(),
        |lab| std::fs::create_dir(lab.path("x")).unwrap(),
        |lab| {
            lab.put("x/a/b", "deep");
            std::os::unix::fs::symlink("a", lab.path("x/l")).unwrap();
        },
    ];

    #[tokio::test]
    async fn removes_everything_and_brings_it_back() {
        let with = json!({"path": "x", "recursive": true});
        for (prepare, kind) in KINDS.into_iter().zip(["file", "file", "symlink", "dir", "dir"]) {
            let lab = Lab::new();
            prepare(&lab);
            let before = lab.snapshot();
            assert_eq!(lab.preview(&Remove, &with).await.unwrap().changes, Some(true));
            let ran = lab.run(&Remove, &with).await.unwrap();
            assert!(ran.changed && !lab.exists("x"));
            assert_eq!(ran.outputs["kind"], kind);
            if let Some(kept) = ran.outputs["kept"].as_str() {
                assert!(std::fs::symlink_metadata(kept).is_ok());
            }
            assert!(lab.undo(&Remove, &with, &ran).await.unwrap().changed);
            assert_eq!(lab.snapshot(), before);
            assert!(!lab.undo(&Remove, &with, &ran).await.unwrap().changed);
        }
    }

    /// It stands there, and never was away.
    #[tokio::test]
    async fn what_was_never_removed_is_left_to_whoever_changes_it() {
        for prepare in KINDS {
            let lab = Lab::new();
            prepare(&lab);
            let with = json!({"path": "x", "recursive": true});
            let capture = lab.capture(&Remove, &with).await.unwrap();
            lab.target.fail_at(0, crate::testing::Failing::Refused);
            lab.act(&Remove, &with, &capture).await.unwrap_err();
            lab.target.heal();
            let path = lab.path("x");
            if std::fs::symlink_metadata(&path).unwrap().is_dir() {
                std::fs::remove_dir_all(&path).unwrap();
            } else {
                std::fs::remove_file(&path).unwrap();
            }
            lab.put("x", "of somebody else");
            let after = lab.snapshot();
            assert!(!lab.undo_unfinished(&Remove, &with, &capture).await.unwrap().changed);
            assert_eq!(lab.snapshot(), after);
        }
    }

    /// The answer was lost before the removal came about.
    #[tokio::test]
    async fn what_is_removed_after_its_answer_was_lost_is_brought_back() {
        let lab = Lab::new();
        lab.put("x", "small");
        let before = lab.snapshot();
        let with = json!({"path": "x"});
        let capture = lab.capture(&Remove, &with).await.unwrap();
        lab.target.fail_at(0, crate::testing::Failing::Before);
        lab.act(&Remove, &with, &capture).await.unwrap_err();
        lab.target.heal();
        std::fs::remove_file(lab.path("x")).unwrap();
        assert!(lab.undo_unfinished(&Remove, &with, &capture).await.unwrap().changed);
        assert_eq!(lab.snapshot(), before);
    }

    #[tokio::test]
    async fn nothing_there_is_nothing_to_do() {
        let lab = Lab::new();
        let with = json!({"path": "x"});
        assert_eq!(lab.preview(&Remove, &with).await.unwrap().changes, Some(false));
        let ran = lab.run(&Remove, &with).await.unwrap();
        assert_eq!((ran.changed, &ran.outputs["kind"]), (false, &json!(null)));
        lab.put("x", "came later");
        assert!(!lab.undo(&Remove, &with, &ran).await.unwrap().changed);
        assert_eq!(lab.text("x"), "came later");
    }

    #[tokio::test]
    async fn a_full_directory_needs_recursive() {
        let lab = Lab::new();
        lab.put("x/a", "");
        let error = lab.capture(&Remove, &json!({"path": "x/"})).await.unwrap_err();
        assert!(error.message.ends_with("x is a directory that holds a"), "{error}");
    }

    #[tokio::test]
    async fn what_stands_there_now_is_a_conflict() {
        for prepare in KINDS {
            let mut lab = Lab::new();
            prepare(&lab);
            let before = lab.snapshot();
            let with = json!({"path": "x", "recursive": true});
            let ran = lab.run(&Remove, &with).await.unwrap();
            lab.put("x", "new");
            assert_eq!(lab.undo(&Remove, &with, &ran).await.unwrap_err().class, Class::Conflict);
            assert_eq!(lab.text("x"), "new");
            lab.force = true;
            let forced = lab.undo(&Remove, &with, &ran).await;
            if ran.outputs["kind"] == "dir" {
                forced.unwrap_err();
                assert_eq!(lab.text("x"), "new");
            } else {
                forced.unwrap();
                assert_eq!(lab.snapshot(), before);
            }
        }
    }

    #[tokio::test]
    async fn every_break_can_be_undone() {
        for prepare in KINDS {
            let breaks = break_everywhere(&Remove, prepare, |_| json!({"path": "x", "recursive": true})).await;
            assert!(breaks >= 2);
        }
    }

    #[tokio::test]
    async fn what_changed_since_capture_is_not_removed() {
        let lab = Lab::new();
        lab.put("x", "seen");
        let with = json!({"path": "x"});
        let capture = lab.capture(&Remove, &with).await.unwrap();
        lab.put("x", "not seen");
        assert_eq!(lab.act(&Remove, &with, &capture).await.unwrap_err().class, Class::Conflict);
        assert_eq!(lab.text("x"), "not seen");
    }

    #[tokio::test]
    async fn without_keep_it_is_gone() {
        let lab = Lab::new();
        lab.put("x/a", "");
        let with = json!({"path": "x", "recursive": true, "keep": false});
        let ran = lab.run(&Remove, &with).await.unwrap();
        assert!(lab.snapshot().is_empty());
        let error = lab.undo(&Remove, &with, &ran).await.unwrap_err();
        assert!(error.message.contains("removed for good"), "{error}");
        let undo = |with: Json| Remove.capabilities(&ValueTemplate::Literal(with)).1;
        assert_eq!(undo(with), UndoKind::Impossible);
        assert_eq!(undo(json!({"path": "x"})), UndoKind::Full);
    }

    #[test]
    fn bad_inputs_are_named() {
        for path in ["/", "", "a/..", "~/x"] {
            assert_eq!(Lab::problems(&Remove, &json!({"path": path})).len(), 1, "{path}");
        }
    }
}
