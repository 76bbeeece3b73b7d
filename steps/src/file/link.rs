//! `file.link`: a symbolic link that points to a given place; how a release is switched.
//!
//! **Does.** Points the link at `path` to `target` in one step: whoever opens it sees the old place or the new one,
//! never nothing. `target` is written as it stands; a relative one counts from the link's own folder. The place must be
//! there, unless `dangling: true`. A regular file at `path` is replaced with `force: true` only, a directory never. What
//! somebody changed since the step began, before another attempt say, is a conflict, and stays as it is.
//!
//! **Outputs.** `path`, `target`, `previous` (where it pointed before), `backup`.
//!
//! **Undo** points the link to where it pointed before, removes it, or brings the replaced file back; if the link still
//! points to `target`, else it is a conflict, and `--force` decides. A replaced file above 4 MiB is kept beside it, as
//! `file.write` does it.
//!
//! **Does not** change owner or mode of a link.

use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind, Undone,
};
use runback_core::target::{FileKind, FileStat};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::before::{self, FileBefore, Now};
use super::{paths, told, turn};

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Inputs {
    /// The link. On `local`, a relative path counts from the playbook's folder.
    pub(crate) path: String,
    /// Where it shall point. A relative one counts from the link's folder.
    pub(crate) target: String,
    /// Replace a regular file that stands at `path`.
    #[serde(default)]
    pub(crate) force: bool,
    /// Accept that there is nothing at `target`.
    #[serde(default)]
    pub(crate) dangling: bool,
}

/// Where the link points now.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// The link, as the target knows it.
    pub(crate) path: String,
    /// Where it points.
    pub(crate) target: String,
    /// Where it pointed before; null where no link was.
    pub(crate) previous: Option<String>,
    /// Where the file that was there before is kept, if it was larger than 4 MiB.
    pub(crate) backup: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Capture {
    path: String,
    before: Before,
    /// The action notes each replacement before it makes it. Not so in runs of runback 0.1 that began before it did.
    #[serde(default)]
    tells: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Before {
    Absent,
    Link(String),
    File(FileBefore),
}

impl Before {
    /// It stands there, to the last bit.
    fn is(&self, now: &Now) -> bool {
        match self {
            Self::Absent => matches!(now, Now::Absent),
            Self::Link(to) => link(now) == Some(to),
            Self::File(file) => now.is(file),
        }
    }

    fn aside(&self) -> Option<&str> {
        match self {
            Self::File(file) => file.content.aside(),
            _ => None,
        }
    }
}

/// Where it points, if it is a link.
fn link(now: &Now) -> Option<&String> {
    match now {
        Now::Other(stat) => stat.link.as_ref(),
        _ => None,
    }
}

async fn clear_leftovers(cx: &Cx<'_>, capture: &Capture) -> Result<(), StepError> {
    cx.target.clear_leftovers(&capture.path).await?;
    match capture.before.aside() {
        Some(aside) => Ok(cx.target.clear_leftovers(aside).await?),
        None => Ok(()),
    }
}

/// The step type `file.link`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link;

/// The link's own place, and its check that something is at its target.
async fn look(cx: &Cx<'_>, inputs: &Inputs) -> Result<(String, Option<FileStat>), StepError> {
    let path = cx.path(&inputs.path);
    if !inputs.dangling {
        let place = if inputs.target.starts_with('/') {
            inputs.target.clone()
        } else {
            format!("{}/{}", paths::parent(&path).trim_end_matches('/'), inputs.target)
        };
        if cx.target.stat(&place).await?.is_none() {
            let error = StepError::permanent(format!("{path}: there is nothing at {place} to point to"));
            return Err(error.help(if inputs.target.starts_with('/') {
                "make it first, or say `dangling: true`"
            } else {
                "a relative `target` counts from the link's folder; correct it, or say `dangling: true`"
            }));
        }
    }
    let stat = cx.target.stat(&path).await?;
    if let Some(stat) = &stat {
        match stat.kind {
            FileKind::Symlink => {}
            FileKind::File if inputs.force => {}
            FileKind::File => {
                return Err(StepError::permanent(format!("{path} is a file"))
                    .help("say `force: true` to replace it; undo brings it back"));
            }
            FileKind::Dir | FileKind::Other => {
                return Err(StepError::permanent(format!("{path} is {}", before::kind(stat)))
                    .help("move it away first; a link does not replace it"));
            }
        }
    }
    Ok((path, stat))
}

#[async_trait::async_trait]
impl StepType for Link {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = Capture;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "file.link",
            doc: "A symbolic link, switched in one step.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Small,
            examples: &[
                "- id: switch\n  uses: file.link\n  with: { path: /srv/app/current, target: releases/1.4.2 }\n",
            ],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut all: Vec<_> = paths::file_problems("path", &inputs.path).into_iter().collect();
        // A link to `.` or `..` is unusual, and fine.
        if !matches!(paths::name(&inputs.target), "." | "..") && inputs.target != "/" {
            all.extend(paths::problems("target", &inputs.target));
        }
        all
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let (path, stat) = look(cx, inputs).await?;
        let target = &inputs.target;
        let (changes, summary) = match stat {
            None => (true, format!("link {path} to {target}")),
            Some(FileStat { link: Some(to), .. }) if to == *target => (false, format!("{path} is already so")),
            Some(FileStat { link: Some(to), .. }) => (true, format!("point {path} from {to} to {target}")),
            Some(_) => (true, format!("replace the file {path} by a link to {target}")),
        };
        Ok(Preview { changes: Some(changes), summary, details: Vec::new() })
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Capture, StepError> {
        let (path, stat) = look(cx, inputs).await?;
        let before = match stat {
            None => Before::Absent,
            Some(FileStat { link: Some(to), .. }) => Before::Link(to),
            Some(stat) => Before::File(before::read(cx, &path, &stat, paths::beside(cx, &path, "bak")).await?),
        };
        Ok(Capture { path, before, tells: true })
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Capture) -> Result<Acted<Outputs>, StepError> {
        let _turn = turn::take(cx, &capture.path).await;
        let (path, stat) = look(cx, inputs).await?;
        if cx.attempt > 1 {
            clear_leftovers(cx, capture).await?;
        }
        let is_so = stat.as_ref().is_some_and(|s| s.link.as_ref() == Some(&inputs.target));
        if !is_so {
            let now = before::look(cx, &path).await?;
            if !capture.before.is(&now) {
                return Err(before::changed_since(cx, &path));
            }
            if let Before::File(file) = &capture.before {
                before::copy_aside(cx, &path, file, &now).await?;
            }
            told::tell(cx, link(&now).map(String::as_str), &inputs.target).await?;
            let _alone = cx.target.alone_in_folder(&path).await;
            if before::look(cx, &path).await? != now {
                told::untell(cx).await?;
                return Err(before::changed_since(cx, &path));
            }
            cx.target.symlink(&path, &inputs.target).await?;
        }
        let (previous, backup) = match &capture.before {
            Before::Absent => (None, None),
            Before::Link(to) => (Some(to.clone()), None),
            Before::File(file) => (None, file.content.aside().map(str::to_owned)),
        };
        let untouched = capture.tells && told::told(cx).is_empty();
        let changed = previous.as_ref() != Some(&inputs.target) && !untouched;
        Ok(Acted { outputs: Outputs { path, target: inputs.target.clone(), previous, backup }, changed })
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        inputs: &Inputs,
        capture: &Capture,
        _: Option<&Outputs>,
    ) -> Result<Undone, StepError> {
        let Capture { path, before, tells } = capture;
        let _turn = turn::take(cx, path).await;
        clear_leftovers(cx, capture).await?;
        if matches!(before, Before::Link(to) if *to == inputs.target) {
            return Ok(Undone { changed: false, note: None });
        }
        let now = before::look(cx, path).await?;
        let untouched = *tells && told::told(cx).is_empty();
        let link = link(&now).map(String::as_str);
        if untouched || before.is(&now) {
            let Some(spare) = before.aside() else { return Ok(Undone { changed: false, note: None }) };
            let there = cx.target.stat(spare).await?.is_some();
            cx.target.remove_file(spare).await?;
            return Ok(Undone { changed: there, note: None });
        }
        if let Now::Other(stat) = &now
            && stat.kind != FileKind::Symlink
        {
            return Err(StepError::conflict(format!("{path}: is {} now", before::kind(stat)))
                .help("move it away, then run the rollback again"));
        }
        if link != Some(inputs.target.as_str()) && !cx.force {
            let what = match (&now, link) {
                (_, Some(to)) => format!("points to {to} now, was left pointing to {}", inputs.target),
                (Now::Absent, _) => "is gone".to_owned(),
                _ => "is a file now".to_owned(),
            };
            return Err(before::drift(cx, path, &what));
        }
        let note = match before {
            Before::Absent => {
                cx.target.remove_file(path).await?;
                format!("removed {path}")
            }
            Before::Link(to) => {
                cx.target.symlink(path, to).await?;
                format!("pointed {path} back to {to}")
            }
            Before::File(file) => {
                before::restore(cx, path, file).await?;
                format!("brought back {path} ({} bytes)", file.size)
            }
        };
        Ok(Undone { changed: true, note: Some(note) })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::testing::{Lab, break_everywhere};
    use runback_core::Json;
    use runback_core::step::Class;
    use serde_json::json;

    fn releases(lab: &Lab) {
        lab.put("releases/1/app", "one");
        lab.put("releases/2/app", "two");
    }

    fn point(lab: &Lab, to: &str) {
        let _ = std::fs::remove_file(lab.path("current"));
        std::os::unix::fs::symlink(to, lab.path("current")).unwrap();
    }

    fn with() -> Json {
        json!({"path": "current", "target": "releases/2"})
    }

    #[tokio::test]
    async fn switches_and_undoes() {
        let lab = Lab::new();
        releases(&lab);
        point(&lab, "releases/1");
        let before = lab.snapshot();
        let preview = lab.preview(&Link, &with()).await.unwrap();
        assert_eq!(preview.summary, format!("point {} from releases/1 to releases/2", lab.path("current")));
        let ran = lab.run(&Link, &with()).await.unwrap();
        assert!(ran.changed);
        assert_eq!(lab.text("current/app"), "two");
        assert_eq!(ran.outputs["previous"], "releases/1");
        let undone = lab.undo(&Link, &with(), &ran).await.unwrap();
        assert!(undone.note.unwrap().ends_with("back to releases/1"));
        assert_eq!(lab.snapshot(), before);
        assert!(!lab.undo(&Link, &with(), &ran).await.unwrap().changed);
    }

    #[tokio::test]
    async fn a_new_link_is_removed_and_one_that_was_so_stays() {
        let lab = Lab::new();
        releases(&lab);
        let before = lab.snapshot();
        let ran = lab.run(&Link, &with()).await.unwrap();
        let again = lab.run(&Link, &with()).await.unwrap();
        assert!(!again.changed);
        point(&lab, "releases/1");
        assert!(!lab.undo(&Link, &with(), &again).await.unwrap().changed, "it did nothing, so there is no drift");
        point(&lab, "releases/2");
        lab.undo(&Link, &with(), &ran).await.unwrap();
        assert_eq!(lab.snapshot(), before);
    }

    #[tokio::test]
    async fn a_file_is_replaced_by_force_only() {
        let lab = Lab::new();
        releases(&lab);
        for content in [b"old".to_vec(), vec![b'x'; 5 << 20]] {
            lab.put("current", content);
            let before = lab.snapshot();
            let error = lab.run(&Link, &with()).await.unwrap_err();
            assert!(error.help.unwrap().contains("force: true"));
            let forced = json!({"path": "current", "target": "releases/2", "force": true});
            let ran = lab.run(&Link, &forced).await.unwrap();
            assert_eq!(lab.text("current/app"), "two");
            lab.undo(&Link, &forced, &ran).await.unwrap();
            assert_eq!(lab.snapshot(), before);
        }
    }

    #[tokio::test]
    async fn drift_is_a_conflict_that_force_overrides() {
        let mut lab = Lab::new();
        releases(&lab);
        lab.put("releases/3/app", "three");
        point(&lab, "releases/1");
        let before = lab.snapshot();
        let ran = lab.run(&Link, &with()).await.unwrap();
        point(&lab, "releases/3");
        let error = lab.undo(&Link, &with(), &ran).await.unwrap_err();
        assert_eq!(error.class, Class::Conflict);
        assert!(error.message.ends_with("points to releases/3 now, was left pointing to releases/2"), "{error}");
        lab.force = true;
        lab.undo(&Link, &with(), &ran).await.unwrap();
        assert_eq!(lab.snapshot(), before);
        let ran = lab.run(&Link, &with()).await.unwrap();
        std::fs::remove_file(lab.path("current")).unwrap();
        lab.put("current/x", "");
        assert!(lab.undo(&Link, &with(), &ran).await.is_err(), "a directory is not removed, even by force");
    }

    #[tokio::test]
    async fn what_somebody_changed_before_another_attempt_stays_and_is_a_conflict() {
        let mut lab = Lab::new();
        releases(&lab);
        lab.put("releases/3/app", "three");
        point(&lab, "releases/1");
        let capture = lab.capture(&Link, &with()).await.unwrap();
        lab.attempt = 2;
        point(&lab, "releases/3");
        let before = lab.snapshot();
        let error = lab.act(&Link, &with(), &capture).await.unwrap_err();
        assert_eq!(error.class, Class::Conflict);
        assert!(error.message.contains("current was changed by someone else since the step began"), "{error}");
        assert!(!lab.undo_unfinished(&Link, &with(), &capture).await.unwrap().changed);
        assert_eq!(lab.snapshot(), before);
    }

    #[tokio::test]
    async fn every_break_can_be_undone() {
        let switched = |lab: &Lab| {
            releases(lab);
            point(lab, "releases/1");
        };
        assert!(break_everywhere(&Link, switched, |_| with()).await >= 2);
        let large = |lab: &Lab| {
            releases(lab);
            lab.put("current", vec![b'x'; 5 << 20]);
        };
        let forced = |_: &Lab| json!({"path": "current", "target": "releases/2", "force": true});
        assert!(break_everywhere(&Link, large, forced).await >= 4);
    }

    #[tokio::test]
    async fn a_target_that_is_not_there_is_named() {
        let lab = Lab::new();
        lab.put("d/x", "");
        let error = lab.capture(&Link, &json!({"path": "l", "target": "no"})).await.unwrap_err();
        assert!(error.message.contains(&format!("nothing at {}", lab.path("no"))), "{error}");
        let dangling = json!({"path": "l", "target": "no", "dangling": true});
        lab.run(&Link, &dangling).await.unwrap();
        assert_eq!(std::fs::read_link(lab.path("l")).unwrap().to_str(), Some("no"));
        let error = lab.capture(&Link, &json!({"path": "d", "target": "l"})).await.unwrap_err();
        assert!(error.message.ends_with("d is a directory"), "{error}");
    }

    #[test]
    fn bad_inputs_are_named() {
        let problems = Lab::problems(&Link, &json!({"path": "a/", "target": ""}));
        assert_eq!(problems.iter().map(|p| p.path.join(".")).collect::<Vec<_>>(), ["path", "target"]);
        assert!(Lab::problems(&Link, &json!({"path": "a", "target": ".."})).is_empty());
    }
}
