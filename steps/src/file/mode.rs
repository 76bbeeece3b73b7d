//! `file.mode`: mode and owner of a file or directory.
//!
//! **Does.** Sets what is given of `mode`, `owner` and `group`. With `recursive: true` it does so for everything under
//! `path`: files get `mode`; directories get `dir_mode`, or `mode` with the search bit added for everyone who may read.
//! Links are left alone, and not followed.
//!
//! **Outputs.** `path`, `mode`, `uid`, `gid` (of `path` itself), and `count`: how many files and directories were changed.
//!
//! **Undo** gives back to each what it had, if each still has what the step gave it; else it is a conflict, nothing is
//! changed, and `--force` decides. What is gone by then is a conflict too, and left out by `--force`.
//!
//! **Does not** touch files that come after the step has looked, access control lists, or trees of more than 20,000
//! entries.

use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind, Undone,
};
use runback_core::target::{FileAttributes, FileKind, TargetErrorKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::attributes::{self, differences, fits};
use super::{Mode, Ownership, before, parents, paths};

const MAX_ENTRIES: usize = 20_000;

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Inputs {
    /// The file or directory. On `local`, a relative path counts from the playbook's folder.
    pub(crate) path: String,
    /// Permission bits as octal digits in quotes, such as "0644".
    #[serde(default)]
    pub(crate) mode: Option<Mode>,
    /// Permission bits of directories, with `recursive`. Default: `mode`, with the search bit for everyone who may read.
    #[serde(default)]
    pub(crate) dir_mode: Option<Mode>,
    /// Name or number of the owner.
    #[serde(default)]
    pub(crate) owner: Option<String>,
    /// Name or number of the group.
    #[serde(default)]
    pub(crate) group: Option<String>,
    /// Everything under it too.
    #[serde(default)]
    pub(crate) recursive: bool,
}

/// What it is like now.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// The path, as the target knows it.
    pub(crate) path: String,
    /// Permission bits in octal.
    pub(crate) mode: Mode,
    /// Of its owner.
    pub(crate) uid: u32,
    /// Of its group.
    pub(crate) gid: u32,
    /// How many files and directories were changed.
    pub(crate) count: usize,
}

/// Only what the step changes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Capture {
    path: String,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Entry {
    /// Below the step's path; empty for itself.
    name: String,
    was: FileAttributes,
    becomes: FileAttributes,
}

impl Entry {
    fn path(&self, top: &str) -> String {
        if self.name.is_empty() { top.to_owned() } else { format!("{}/{}", top.trim_end_matches('/'), self.name) }
    }
}

/// The step type `file.mode`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SetMode;

/// Everything that is not yet as it shall be.
async fn differing(cx: &Cx<'_>, inputs: &Inputs) -> Result<Capture, StepError> {
    let trimmed = inputs.path.trim_end_matches('/');
    let path = cx.path(if trimmed.is_empty() { &inputs.path } else { trimmed });
    let ownership = Ownership { mode: inputs.mode, owner: inputs.owner.as_deref(), group: inputs.group.as_deref() };
    let file = ownership.resolve(cx).await?;
    let searchable = |mode: u32| mode | (mode & 0o444) >> 2;
    let dir_mode = inputs.dir_mode.map(|m| m.0).or(file.mode.map(searchable));
    let dir = FileAttributes { mode: if inputs.recursive { dir_mode } else { file.mode }, ..file.clone() };
    let mut entries = Vec::new();
    let mut todo = vec![String::new()];
    let mut seen = 0;
    while let Some(name) = todo.pop() {
        let entry = Entry { name, was: FileAttributes::default(), becomes: FileAttributes::default() };
        let at = entry.path(&path);
        let stat = match cx.target.stat(&at).await? {
            Some(stat) => stat,
            None if entry.name.is_empty() => {
                return Err(StepError::permanent(format!("{path}: nothing is there")));
            }
            None => continue,
        };
        seen += 1;
        if seen > MAX_ENTRIES {
            return Err(StepError::permanent(format!("{path} holds more than {MAX_ENTRIES} entries"))
                .help("use one step per subdirectory, or `exec` with chmod and a `rollback:` of its own"));
        }
        match stat.kind {
            FileKind::Symlink if entry.name.is_empty() => {
                return Err(StepError::permanent(format!("{path} is {}", before::kind(&stat)))
                    .help("name the file that it points to"));
            }
            FileKind::Symlink => continue,
            FileKind::Dir if inputs.recursive => {
                let below = |child: String| {
                    if entry.name.is_empty() { child } else { format!("{}/{child}", entry.name) }
                };
                let children = cx.target.list(&at).await?;
                if let Some(name) = children.iter().find(|name| name.ends_with('/')) {
                    return Err(StepError::permanent(format!("{at}: the name {name} is not UTF-8"))
                        .help("rename it, or use `exec` with chmod and a `rollback:` of its own"));
                }
                todo.extend(children.into_iter().rev().map(below));
            }
            _ => {}
        }
        let was = attributes::of(&stat);
        let wanted = if stat.kind == FileKind::Dir { &dir } else { &file };
        if !fits(&was, wanted) {
            entries.push(Entry { becomes: attributes::or(wanted, &was), was, ..entry });
        }
    }
    Ok(Capture { path, entries })
}

#[async_trait::async_trait]
impl StepType for SetMode {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = Capture;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "file.mode",
            doc: "Mode and owner of a file or directory.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Small,
            examples: &[
                "- id: key\n  uses: file.mode\n  with: { path: /etc/ssl/private/app.key, mode: \"0640\", owner: root, group: ssl-cert }\n",
                "- id: site\n  uses: file.mode\n  with: { path: /srv/www, mode: \"0644\", owner: www-data, recursive: true }\n",
            ],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut all: Vec<_> = paths::problems("path", &inputs.path).into_iter().collect();
        if inputs.mode.is_none() && inputs.dir_mode.is_none() && inputs.owner.is_none() && inputs.group.is_none() {
            let message = "none of `mode`, `owner` and `group` is given".to_owned();
            all.push(InputProblem { path: Vec::new(), message, help: None });
        }
        if inputs.dir_mode.is_some() && !inputs.recursive {
            all.push(InputProblem {
                path: vec!["dir_mode".to_owned()],
                message: "`dir_mode` needs `recursive: true`".to_owned(),
                help: Some("for one directory, use `mode`".to_owned()),
            });
        }
        all
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let Capture { path, entries } = differing(cx, inputs).await?;
        if entries.is_empty() {
            return Ok(Preview { changes: Some(false), summary: format!("{path} is already so"), details: Vec::new() });
        }
        let line = |e: &Entry| format!("{}: {}", e.path(&path), differences(&e.was, &e.becomes).join(", "));
        let mut details: Vec<String> = entries.iter().take(50).map(line).collect();
        if entries.len() > 50 {
            details.push(format!("… {} more", entries.len() - 50));
        }
        let summary = match entries.len() {
            1 => format!("change the mode or owner of {}", entries[0].path(&path)),
            n => format!("change the mode or owner of {n} entries of {path}"),
        };
        Ok(Preview { changes: Some(true), summary, details })
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Capture, StepError> {
        differing(cx, inputs).await
    }

    async fn act(&self, cx: &Cx<'_>, _: &Inputs, capture: &Capture) -> Result<Acted<Outputs>, StepError> {
        let Capture { path, entries } = capture;
        // What is below first: the new mode of a folder may close it to us.
        for entry in entries.iter().rev() {
            let at = entry.path(path);
            match cx.target.stat(&at).await? {
                Some(stat) if stat.kind == FileKind::Symlink => {
                    return Err(StepError::conflict(format!("{at} became {}", before::kind(&stat))));
                }
                Some(stat) if attributes::of(&stat) != entry.becomes => {
                    cx.target.set_attributes(&at, &entry.becomes).await?;
                }
                // Files that were removed meanwhile have no mode.
                _ => {}
            }
        }
        let stat = cx.target.stat(path).await?;
        let stat = stat.ok_or_else(|| StepError::conflict(format!("{path}: it went away")))?;
        let outputs =
            Outputs { path: path.clone(), mode: Mode(stat.mode), uid: stat.uid, gid: stat.gid, count: entries.len() };
        Ok(Acted { outputs, changed: !entries.is_empty() })
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        _: &Inputs,
        capture: &Capture,
        outputs: Option<&Outputs>,
    ) -> Result<Undone, StepError> {
        let mut count = 0;
        let mut left: Vec<&Entry> = capture.entries.iter().collect();
        while !left.is_empty() {
            let (mut drift, mut todo, mut hidden, mut why) = (Vec::new(), Vec::new(), Vec::new(), None);
            for entry in left {
                let at = entry.path(&capture.path);
                let now = match cx.target.stat(&at).await {
                    Ok(Some(stat)) if stat.kind != FileKind::Symlink => attributes::of(&stat),
                    Ok(_) => {
                        drift.push(format!("{at} is gone"));
                        continue;
                    }
                    // In a folder that was closed to us by this very step: it is seen once that has its mode again.
                    Err(error) if error.kind == TargetErrorKind::PermissionDenied => {
                        why.get_or_insert(error);
                        hidden.push(entry);
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                };
                if now == entry.was {
                    continue;
                }
                if let Some(what) = attributes::drift(&now, &entry.was, &entry.becomes, outputs.is_some()) {
                    drift.push(format!("{at} has {what}"));
                }
                todo.push((at, &entry.was));
            }
            if !drift.is_empty() && !cx.force {
                return Err(before::drift(cx, &capture.path, &format!("changed since: {}", parents::some(&drift))));
            }
            if let (true, Some(error)) = (todo.is_empty(), why) {
                return Err(error.into());
            }
            count += todo.len();
            for (at, was) in todo {
                cx.target.set_attributes(&at, was).await?;
            }
            left = hidden;
        }
        let path = &capture.path;
        let note = match count {
            0 => None,
            1 => Some(format!("gave {path} its mode and owner back")),
            n => Some(format!("gave {n} entries of {path} their mode and owner back")),
        };
        Ok(Undone { changed: count > 0, note })
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

    fn tree(lab: &Lab) {
        lab.put("d/a", "");
        lab.put("d/sub/b", "");
        lab.set_mode("d", 0o700);
        lab.set_mode("d/sub", 0o700);
        lab.set_mode("d/a", 0o600);
        lab.set_mode("d/sub/b", 0o640);
        std::os::unix::fs::symlink("/etc/passwd", lab.path("d/l")).unwrap();
    }

    /// Who is not root cannot look into a folder that it may not search.
    #[tokio::test]
    async fn a_folder_that_closes_itself_is_closed_last_and_opened_first() {
        let mut lab = Lab::new();
        tree(&lab);
        lab.target.unprivileged = true;
        let before = lab.snapshot();
        let with = json!({"path": "d", "mode": "0400", "dir_mode": "0400", "recursive": true});
        let ran = lab.run(&SetMode, &with).await.unwrap();
        assert_eq!((lab.mode("d"), lab.mode("d/sub"), lab.mode("d/sub/b"), ran.changed), (0o400, 0o400, 0o400, true));
        assert!(lab.undo(&SetMode, &with, &ran).await.unwrap().changed);
        assert_eq!(lab.snapshot(), before);
    }

    #[tokio::test]
    async fn one_file_is_changed_and_given_back() {
        let lab = Lab::new();
        lab.put("f", "");
        lab.set_mode("f", 0o600);
        let before = lab.snapshot();
        let with = json!({"path": "f", "mode": "0755"});
        let preview = lab.preview(&SetMode, &with).await.unwrap();
        assert_eq!(preview.details, [format!("{}: mode 0600 instead of 0755", lab.path("f"))]);
        let ran = lab.run(&SetMode, &with).await.unwrap();
        assert_eq!((lab.mode("f"), ran.changed), (0o755, true));
        assert_eq!((&ran.outputs["mode"], &ran.outputs["count"]), (&json!("0755"), &json!(1)));
        let again = lab.run(&SetMode, &with).await.unwrap();
        assert!(!again.changed);
        lab.undo(&SetMode, &with, &ran).await.unwrap();
        assert_eq!(lab.snapshot(), before);
        assert!(!lab.undo(&SetMode, &with, &ran).await.unwrap().changed);
        assert!(!lab.undo(&SetMode, &with, &again).await.unwrap().changed, "it did nothing");
    }

    #[tokio::test]
    async fn a_tree_gets_search_bits_on_directories() {
        let lab = Lab::new();
        tree(&lab);
        let before = lab.snapshot();
        let with = json!({"path": "d/", "mode": "0640", "recursive": true});
        let ran = lab.run(&SetMode, &with).await.unwrap();
        assert_eq!(
            [lab.mode("d"), lab.mode("d/sub"), lab.mode("d/a"), lab.mode("d/sub/b")],
            [0o750, 0o750, 0o640, 0o640]
        );
        assert_eq!(ran.outputs["count"], 3, "one file was so already");
        lab.undo(&SetMode, &with, &ran).await.unwrap();
        assert_eq!(lab.snapshot(), before);
        let with = json!({"path": "d", "dir_mode": "0711", "recursive": true});
        lab.run(&SetMode, &with).await.unwrap();
        assert_eq!([lab.mode("d"), lab.mode("d/sub"), lab.mode("d/a")], [0o711, 0o711, 0o600]);
    }

    #[tokio::test]
    async fn drift_of_one_entry_stops_all() {
        let mut lab = Lab::new();
        tree(&lab);
        let before = lab.snapshot();
        let with = json!({"path": "d", "mode": "0444", "dir_mode": "0755", "recursive": true});
        let ran = lab.run(&SetMode, &with).await.unwrap();
        lab.set_mode("d/sub/b", 0o666);
        let drifted = lab.snapshot();
        let error = lab.undo(&SetMode, &with, &ran).await.unwrap_err();
        assert_eq!(error.class, Class::Conflict);
        assert!(error.message.contains("sub/b has mode 0666 instead of 0444"), "{error}");
        assert_eq!(lab.snapshot(), drifted);
        lab.force = true;
        lab.undo(&SetMode, &with, &ran).await.unwrap();
        assert_eq!(lab.snapshot(), before);
    }

    #[tokio::test]
    async fn every_break_can_be_undone() {
        let with = |_: &Lab| json!({"path": "d", "mode": "0444", "dir_mode": "0755", "recursive": true});
        assert_eq!(break_everywhere(&SetMode, tree, with).await, 8);
    }

    #[tokio::test]
    async fn names_of_owners_are_looked_up() {
        let lab = Lab::new();
        lab.put("f", "");
        let error = lab.capture(&SetMode, &json!({"path": "f", "owner": "no-such-user"})).await.unwrap_err();
        assert!(error.message.contains("no-such-user"), "{error}");
        let uid = {
            use std::os::unix::fs::MetadataExt as _;
            std::fs::metadata(lab.path("f")).unwrap().uid()
        };
        let ran = lab.run(&SetMode, &json!({"path": "f", "owner": uid.to_string()})).await.unwrap();
        assert!(!ran.changed);
        let error = lab.capture(&SetMode, &json!({"path": "no", "mode": "0600"})).await.unwrap_err();
        assert!(error.message.contains("nothing is there"), "{error}");
    }

    #[test]
    fn bad_inputs_are_named() {
        let paths = |with: Json| -> Vec<String> {
            Lab::problems(&SetMode, &with).into_iter().map(|p| p.path.join(".")).collect()
        };
        assert_eq!(paths(json!({"path": "f"})), [""]);
        assert_eq!(paths(json!({"path": "f", "dir_mode": "0755"})), ["dir_mode"]);
        let number = Lab::problems(&SetMode, &json!({"path": "f", "mode": 644}));
        assert!(number[0].message.contains("octal digits in quotes"), "{number:?}");
    }
}
