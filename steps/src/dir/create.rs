//! `dir.create`: a directory that is there, with a given mode and owner.
//!
//! **Does.** Makes the directory, with `parents: true` those above it too. Where it is there already, it only sets what
//! is given of `mode`, `owner` and `group`; those above it are left as they are.
//!
//! **Outputs.** `path`, `mode`, `uid`, `gid`, and `created`: the directories that were made, outermost first.
//!
//! **Undo** removes the directory that the step made, if nothing is in it; what is in the way is named, and it is a
//! conflict. `--force` leaves the directory where it is, for it holds what others made. Those above it that the step made
//! are removed if they are empty then; one that holds something else is left, with a note. A directory that was there before
//! gets its mode and owner back.
//!
//! **Does not** replace a file or a link.

use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind, Undone,
};
use runback_core::target::{FileAttributes, FileKind, FileStat};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::file::{Mode, Ownership, attributes, before, parents, paths};

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Inputs {
    /// The directory. On `local`, a relative path counts from the playbook's folder.
    pub(crate) path: String,
    /// Make the directories above it that are not there.
    #[serde(default)]
    pub(crate) parents: bool,
    /// Permission bits as octal digits in quotes, such as "0755".
    #[serde(default)]
    pub(crate) mode: Option<Mode>,
    /// Name or number of its owner.
    #[serde(default)]
    pub(crate) owner: Option<String>,
    /// Name or number of its group.
    #[serde(default)]
    pub(crate) group: Option<String>,
}

/// What the directory is like now.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// The directory, as the target knows it.
    pub(crate) path: String,
    /// Permission bits in octal.
    pub(crate) mode: Mode,
    /// Of its owner.
    pub(crate) uid: u32,
    /// Of its group.
    pub(crate) gid: u32,
    /// The directories that were made, outermost first.
    pub(crate) created: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Capture {
    path: String,
    /// What it had, where it was there.
    was: Option<FileAttributes>,
    becomes: FileAttributes,
    /// Those above it that were not there, outermost first.
    missing: Vec<String>,
}

impl Capture {
    /// All that the step makes, outermost first.
    fn made(&self) -> Vec<String> {
        let own = if self.was.is_none() { Some(self.path.clone()) } else { None };
        self.missing.iter().cloned().chain(own).collect()
    }
}

/// The step type `dir.create`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Create;

fn not_a_dir(path: &str, stat: &FileStat) -> StepError {
    StepError::permanent(format!("{path} is {}", before::kind(stat))).help("move it away, or name another path")
}

async fn look(cx: &Cx<'_>, inputs: &Inputs) -> Result<Capture, StepError> {
    let trimmed = inputs.path.trim_end_matches('/');
    let path = cx.path(if trimmed.is_empty() { &inputs.path } else { trimmed });
    let ownership = Ownership { mode: inputs.mode, owner: inputs.owner.as_deref(), group: inputs.group.as_deref() };
    let asked = ownership.resolve(cx).await?;
    match cx.target.stat(&path).await? {
        Some(stat) if stat.kind == FileKind::Dir => {
            let was = attributes::of(&stat);
            let becomes = attributes::or(&asked, &was);
            Ok(Capture { path, was: Some(was), becomes, missing: Vec::new() })
        }
        Some(stat) => Err(not_a_dir(&path, &stat)),
        None => {
            let missing = parents::missing(cx, &path).await?;
            if let (Some(dir), false) = (missing.first(), inputs.parents) {
                return Err(StepError::permanent(format!("{path}: there is no directory {dir}"))
                    .help("say `parents: true` to make those above it too"));
            }
            Ok(Capture { path, was: None, becomes: asked, missing })
        }
    }
}

#[async_trait::async_trait]
impl StepType for Create {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = Capture;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "dir.create",
            doc: "A directory that is there, with a given mode and owner.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Small,
            examples: &[
                "- id: releases\n  uses: dir.create\n  with: { path: /srv/app/releases, parents: true, mode: \"0755\" }\n",
            ],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        paths::problems("path", &inputs.path).into_iter().collect()
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let capture = look(cx, inputs).await?;
        let path = &capture.path;
        let (changes, summary) = match &capture.was {
            None => (true, format!("create the directory {path}")),
            Some(was) if *was == capture.becomes => (false, format!("{path} is already so")),
            Some(was) => {
                (true, format!("change {path}: it has {}", attributes::differences(was, &capture.becomes).join(", ")))
            }
        };
        let details = capture.missing.iter().map(|dir| format!("create the directory {dir}")).collect();
        Ok(Preview { changes: Some(changes), summary, details })
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Capture, StepError> {
        look(cx, inputs).await
    }

    async fn act(&self, cx: &Cx<'_>, _: &Inputs, capture: &Capture) -> Result<Acted<Outputs>, StepError> {
        let Capture { path, was, becomes, missing } = capture;
        parents::make(cx, missing).await?;
        let mut stat = cx.target.stat(path).await?;
        if stat.is_none() {
            let made = cx.target.create_dir(path, becomes.mode).await;
            stat = cx.target.stat(path).await?;
            // A step beside this one may have been faster.
            if stat.is_none() {
                made?;
            }
        }
        match &stat {
            Some(stat) if stat.kind != FileKind::Dir => return Err(not_a_dir(path, stat)),
            Some(stat) if !attributes::fits(&attributes::of(stat), becomes) => {
                cx.target.set_attributes(path, becomes).await?;
            }
            _ => {}
        }
        let stat = cx.target.stat(path).await?;
        let stat = stat.ok_or_else(|| StepError::conflict(format!("{path}: it went away while it was made")))?;
        let outputs = Outputs {
            path: path.clone(),
            mode: Mode(stat.mode),
            uid: stat.uid,
            gid: stat.gid,
            created: capture.made(),
        };
        Ok(Acted { outputs, changed: was.as_ref() != Some(becomes) })
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        _: &Inputs,
        capture: &Capture,
        outputs: Option<&Outputs>,
    ) -> Result<Undone, StepError> {
        match &capture.was {
            None => remove_made(cx, capture).await,
            Some(was) => give_back(cx, capture, was, outputs.is_some()).await,
        }
    }
}

/// Removes the directory, which must be empty, and those above it that hold nothing else any more.
async fn remove_made(cx: &Cx<'_>, capture: &Capture) -> Result<Undone, StepError> {
    let dir = &capture.path;
    let mut notes = Vec::new();
    match cx.target.stat(dir).await? {
        None => {}
        Some(stat) if stat.kind != FileKind::Dir => {
            return Err(before::drift(cx, dir, &format!("is {} now", before::kind(&stat))));
        }
        Some(_) => {
            let others = cx.target.list(dir).await?;
            if others.is_empty() {
                cx.target.remove_dir(dir).await?;
                notes.push(format!("removed {dir}"));
            } else {
                let what = format!("{dir} is not empty: it holds {}", parents::some(&others));
                if !cx.force {
                    return Err(StepError::conflict(what)
                        .help("move what is in it away and run the rollback again; `--force` leaves the directory"));
                }
                return Ok(Undone { changed: false, note: Some(format!("left {what}")) });
            }
        }
    }
    let (above, left) = parents::unmake(cx, &capture.missing).await?;
    let changed = above || !notes.is_empty();
    notes.extend(left);
    Ok(Undone { changed, note: (!notes.is_empty()).then(|| notes.join("; ")) })
}

async fn give_back(cx: &Cx<'_>, capture: &Capture, was: &FileAttributes, finished: bool) -> Result<Undone, StepError> {
    let Capture { path, becomes, .. } = capture;
    let nothing = Ok(Undone { changed: false, note: None });
    if was == becomes {
        return nothing;
    }
    let stat = cx.target.stat(path).await?;
    let now = match &stat {
        Some(stat) if stat.kind == FileKind::Dir => attributes::of(stat),
        Some(stat) => return Err(before::drift(cx, path, &format!("is {} now", before::kind(stat)))),
        None => {
            return Err(StepError::conflict(format!("{path}: is gone")).help("make it, then run the rollback again"));
        }
    };
    if now == *was {
        return nothing;
    }
    if let Some(what) = attributes::drift(&now, was, becomes, finished)
        && !cx.force
    {
        return Err(before::drift(cx, path, &format!("has {what}")));
    }
    cx.target.set_attributes(path, was).await?;
    Ok(Undone { changed: true, note: Some(format!("gave {path} its mode and owner back")) })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::testing::{Lab, Ran, break_everywhere};
    use runback_core::step::Class;
    use serde_json::json;

    #[tokio::test]
    async fn makes_with_parents_and_undoes() {
        let lab = Lab::new();
        let before = lab.snapshot();
        let with = json!({"path": "a/b/c/", "parents": true, "mode": "0700"});
        let preview = lab.preview(&Create, &with).await.unwrap();
        assert_eq!((preview.changes, preview.details.len()), (Some(true), 2));
        let ran = lab.run(&Create, &with).await.unwrap();
        assert_eq!((ran.changed, lab.mode("a/b/c")), (true, 0o700));
        assert_eq!(ran.outputs["created"], json!([lab.path("a"), lab.path("a/b"), lab.path("a/b/c")]));
        let again = lab.run(&Create, &with).await.unwrap();
        assert!(!again.changed);
        assert!(!lab.undo(&Create, &with, &again).await.unwrap().changed, "it made nothing");
        assert!(lab.undo(&Create, &with, &ran).await.unwrap().changed);
        assert_eq!(lab.snapshot(), before);
        assert!(!lab.undo(&Create, &with, &ran).await.unwrap().changed);
    }

    #[tokio::test]
    async fn an_existing_one_gets_its_mode_back() {
        let mut lab = Lab::new();
        std::fs::create_dir(lab.path("d")).unwrap();
        lab.set_mode("d", 0o755);
        let before = lab.snapshot();
        let with = json!({"path": "d", "mode": "0700"});
        let ran = lab.run(&Create, &with).await.unwrap();
        assert_eq!((lab.mode("d"), &ran.outputs["created"]), (0o700, &json!([])));
        lab.undo(&Create, &with, &ran).await.unwrap();
        assert_eq!(lab.snapshot(), before);
        let ran = lab.run(&Create, &with).await.unwrap();
        lab.set_mode("d", 0o777);
        assert_eq!(lab.undo(&Create, &with, &ran).await.unwrap_err().class, Class::Conflict);
        lab.force = true;
        lab.undo(&Create, &with, &ran).await.unwrap();
        assert_eq!(lab.snapshot(), before);
    }

    #[tokio::test]
    async fn what_is_in_the_way_is_named_and_never_removed() {
        let mut lab = Lab::new();
        let with = json!({"path": "a/b", "parents": true});
        let ran = lab.run(&Create, &with).await.unwrap();
        lab.put("a/b/other", "x");
        let error = lab.undo(&Create, &with, &ran).await.unwrap_err();
        assert_eq!(error.class, Class::Conflict);
        assert!(error.message.ends_with("b is not empty: it holds other"), "{error}");
        lab.force = true;
        let undone = lab.undo(&Create, &with, &ran).await.unwrap();
        assert!(!undone.changed && undone.note.unwrap().contains("it holds other"));
        assert!(lab.exists("a/b/other"), "nothing was removed");
    }

    #[tokio::test]
    async fn steps_beside_each_other_share_a_new_parent() {
        let lab = Lab::new();
        let before = lab.snapshot();
        let (a, b) = (json!({"path": "base/x/a", "parents": true}), json!({"path": "base/x/b", "parents": true}));
        // Both see that the parents are missing.
        let (of_a, of_b) = (lab.capture(&Create, &a).await.unwrap(), lab.capture(&Create, &b).await.unwrap());
        let ran = async |with: &serde_json::Value, capture: &serde_json::Value| {
            let acted = lab.act(&Create, with, capture).await.unwrap();
            Ran { capture: capture.clone(), outputs: acted.outputs, changed: acted.changed }
        };
        let (ran_a, ran_b) = (ran(&a, &of_a).await, ran(&b, &of_b).await);
        let undone = lab.undo(&Create, &a, &ran_a).await.unwrap();
        let note = format!("removed {}; left {}: it holds b", lab.path("base/x/a"), lab.path("base/x"));
        assert_eq!((undone.changed, undone.note), (true, Some(note)));
        lab.undo(&Create, &b, &ran_b).await.unwrap();
        assert_eq!(lab.snapshot(), before, "the last one removed the parents");
    }

    #[tokio::test]
    async fn every_break_can_be_undone() {
        let new = |_: &Lab| json!({"path": "a/b", "parents": true, "mode": "0711"});
        assert!(break_everywhere(&Create, |_| {}, new).await >= 4);
        let there = |lab: &Lab| {
            lab.put("a/b/keep", "");
            lab.set_mode("a/b", 0o700);
        };
        assert!(break_everywhere(&Create, there, new).await >= 2);
    }

    #[tokio::test]
    async fn what_cannot_be_a_directory_is_named() {
        let lab = Lab::new();
        lab.put("f", "");
        let error = lab.capture(&Create, &json!({"path": "f"})).await.unwrap_err();
        assert!(error.message.ends_with("f is a file"), "{error}");
        let error = lab.capture(&Create, &json!({"path": "x/y"})).await.unwrap_err();
        assert!(error.help.unwrap().contains("parents: true"));
        assert_eq!(Lab::problems(&Create, &json!({"path": "~"})).len(), 1);
    }
}
