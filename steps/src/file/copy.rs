//! `file.copy`: a copy of one file.
//!
//! **Does.** Takes `src`, a file on the machine that runback runs on (beside the playbook), `from_target`, one on the
//! step's target, or `from`, one on another target of the playbook, and puts a copy at `path` as `file.write` does: in one
//! step, checked by `validate` first, and not at all where it is already so. A new copy has the mode of its source and
//! belongs to the user that runback acts as, unless `mode`, `owner` and `group` say otherwise; a file that is replaced
//! keeps its own.
//!
//! What comes from another target goes through runback's memory, never through a file between the two. At no time can
//! anybody read the new copy who may not read it in the end. Where a source may not be read by everybody, what its copy
//! replaces is not kept in the journal but beside it, as `.NAME.runback-RUN-STEP.bak`; remove that once you no longer want
//! to go back.
//!
//! **Outputs.** `path`, `sha256`, `size`, `mode`, `uid`, `gid`, `previous_sha256`, `backup`.
//!
//! **Undo** is that of `file.write`: the earlier file comes back, if the copy is still as the step left it.
//!
//! **Does not** copy directories (`file.unpack` brings a whole tree), and does not send more than 256 MiB to a remote
//! target.

use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind, Undone,
};
use runback_core::target::{FileKind, FileStat};
use schemars::JsonSchema;
use serde::Deserialize;

use super::placed::placed_inputs;
use super::put::{self, Capture, Outputs, Source, Wanted};
use super::{before, local, paths};

/// Larger files are copied by the target, if it has them, in bytes.
const IN_MEMORY: u64 = 16 << 20;
/// What is sent to a remote target at most, in bytes.
const MAX_SENT: u64 = 256 << 20;

/// A file on a target of the playbook.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub(crate) struct Place {
    /// The target's name.
    pub(crate) target: String,
    /// The file, as that target knows it.
    pub(crate) path: String,
}

placed_inputs! {
    /// The file to copy, on the machine that runback runs on; a relative path counts from the playbook's folder.
    #[serde(default)]
    src: Option<String>,
    /// The file to copy, on the step's target.
    #[serde(default)]
    from_target: Option<String>,
    /// The file to copy, on another target. One of these three.
    #[serde(default)]
    from: Option<Place>,
    /// The copy. On `local`, a relative path counts from the playbook's folder.
    path: String,
}

/// The step type `file.copy`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FileCopy;

async fn wanted<'a>(cx: &Cx<'_>, inputs: &'a Inputs) -> Result<Wanted<'a>, StepError> {
    let (source, mode) = match (&inputs.src, &inputs.from_target, &inputs.from) {
        (Some(src), None, None) => from_local(cx, src).await?,
        (None, Some(src), None) => from_target(cx, &cx.path(src)).await?,
        (None, None, Some(place)) => {
            let other = cx.host.target(&place.target).await?;
            let there = Cx { target: other.as_ref(), ..*cx };
            read_all(&there, &there.path(&place.path)).await?
        }
        _ => return Err(StepError::permanent("give one of `src`, `from_target` and `from`")),
    };
    Ok(Wanted { private: mode & 0o004 == 0, ..inputs.placed(cx, source, mode) })
}

async fn from_local(cx: &Cx<'_>, src: &str) -> Result<(Source, u32), StepError> {
    let path = cx.local_path(src);
    let (size, mode) = local::stat(&path)?;
    if size > IN_MEMORY && cx.target.is_local() {
        return from_target(cx, &path.to_string_lossy()).await;
    }
    let bytes = local::read(&path, MAX_SENT)
        .map_err(|e| e.help("fetch it from the target itself, or name one there with `from_target`"))?;
    Ok((Source::Bytes(bytes), mode))
}

/// The file that is to be copied.
async fn regular(cx: &Cx<'_>, path: &str) -> Result<FileStat, StepError> {
    let stat = cx.target.stat(path).await?;
    let stat = stat.ok_or_else(|| {
        StepError::permanent(format!("{path}: nothing is there to copy (target {})", cx.target.name()))
    })?;
    if stat.kind != FileKind::File {
        return Err(StepError::permanent(format!("{path} is {}", before::kind(&stat)))
            .help("only regular files can be copied; name the file itself"));
    }
    Ok(stat)
}

/// Its bytes and mode, from a target that the copy will not be on.
pub(super) async fn read_all(cx: &Cx<'_>, path: &str) -> Result<(Source, u32), StepError> {
    let stat = regular(cx, path).await?;
    if stat.size > MAX_SENT {
        return Err(StepError::permanent(format!("{path} has {} bytes, over the limit of 256 MiB", stat.size))
            .help("let one machine fetch it from the other with `exec`"));
    }
    Ok((Source::Bytes(cx.target.read(path, MAX_SENT).await?), stat.mode))
}

async fn from_target(cx: &Cx<'_>, path: &str) -> Result<(Source, u32), StepError> {
    let stat = regular(cx, path).await?;
    let source = if stat.size <= IN_MEMORY {
        Source::Bytes(cx.target.read(path, IN_MEMORY).await?)
    } else {
        let sha256 = cx.target.sha256(path).await?;
        Source::OnTarget { path: path.to_owned(), sha256, size: stat.size, mode: stat.mode }
    };
    Ok((source, stat.mode))
}

#[async_trait::async_trait]
impl StepType for FileCopy {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = Capture;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "file.copy",
            doc: "A copy of one file, from beside the playbook, on the target or from another one.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Small,
            examples: &[
                "- id: unit\n  uses: file.copy\n  with: { src: files/app.service, path: /etc/systemd/system/app.service, mode: \"0644\" }\n",
                "- id: keep\n  uses: file.copy\n  with: { from_target: /etc/fstab, path: /root/fstab.before }\n",
                "- id: key\n  uses: file.copy\n  with: { from: { target: node1, path: /opt/app/private_key.pem }, path: /opt/app/private_key.pem }\n",
            ],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut all = inputs.placed_problems();
        for (key, src) in [("src", &inputs.src), ("from_target", &inputs.from_target)] {
            all.extend(src.as_deref().and_then(|src| paths::file_problems(key, src)));
        }
        if let Some(place) = &inputs.from {
            all.extend(paths::file_problems("from", &place.path));
        }
        let sources = [inputs.src.is_some(), inputs.from_target.is_some(), inputs.from.is_some()];
        if sources.iter().filter(|given| **given).count() != 1 {
            all.push(InputProblem {
                path: Vec::new(),
                message: "a copy has one source".to_owned(),
                help: Some(
                    "give `src` for a file beside the playbook, `from_target` for one on the target, or `from`"
                        .to_owned(),
                ),
            });
        }
        all
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        put::preview(cx, &wanted(cx, inputs).await?).await
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Capture, StepError> {
        put::capture(cx, &wanted(cx, inputs).await?).await
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Capture) -> Result<Acted<Outputs>, StepError> {
        put::act(cx, &wanted(cx, inputs).await?, capture).await
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        _: &Inputs,
        capture: &Capture,
        outputs: Option<&Outputs>,
    ) -> Result<Undone, StepError> {
        put::undo(cx, capture, outputs).await
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

    #[tokio::test]
    async fn copies_with_the_mode_and_undoes() {
        for key in ["src", "from_target"] {
            let lab = Lab::new();
            lab.put("files/run.sh", "#!/bin/sh\n");
            lab.set_mode("files/run.sh", 0o755);
            let before = lab.snapshot();
            let with = json!({key: "files/run.sh", "path": "bin/run", "create_dirs": true});
            assert_eq!(lab.preview(&FileCopy, &with).await.unwrap().changes, Some(true));
            let ran = lab.run(&FileCopy, &with).await.unwrap();
            assert_eq!((lab.text("bin/run").as_str(), lab.mode("bin/run")), ("#!/bin/sh\n", 0o755));
            assert!(!lab.run(&FileCopy, &with).await.unwrap().changed);
            lab.undo(&FileCopy, &with, &ran).await.unwrap();
            assert_eq!(lab.snapshot(), before);
        }
    }

    #[tokio::test]
    async fn a_large_one_is_copied_by_the_target() {
        let prepare = |lab: &Lab| {
            lab.put("large", vec![b'l'; (IN_MEMORY + 1) as usize]);
            lab.set_mode("large", 0o640);
        };
        let lab = Lab::new();
        prepare(&lab);
        let before = lab.snapshot();
        let with = json!({"src": "large", "path": "copy"});
        let ran = lab.run(&FileCopy, &with).await.unwrap();
        assert_eq!(lab.mode("copy"), 0o640);
        assert_eq!(std::fs::read(lab.path("copy")).unwrap(), std::fs::read(lab.path("large")).unwrap());
        lab.undo(&FileCopy, &with, &ran).await.unwrap();
        assert_eq!(lab.snapshot(), before);
    }

    #[tokio::test]
    async fn comes_from_another_target_and_leaves_no_key_in_the_journal() {
        let (lab, other) = (Lab::new(), Lab::new());
        other.put("key.pem", "NEW-KEY");
        other.set_mode("key.pem", 0o600);
        lab.put("old.pem", "OLD-KEY");
        lab.set_mode("old.pem", 0o640);
        let before = lab.snapshot();
        let from = json!({"target": "node1", "path": other.path("key.pem")});
        lab.knows("node1", &other);
        let fresh = json!({"from": from, "path": "ssl/key.pem", "create_dirs": true});
        let ran = lab.run(&FileCopy, &fresh).await.unwrap();
        assert_eq!((lab.text("ssl/key.pem").as_str(), lab.mode("ssl/key.pem")), ("NEW-KEY", 0o600));
        lab.undo(&FileCopy, &fresh, &ran).await.unwrap();
        assert_eq!(lab.snapshot(), before);

        let over = json!({"from": from, "path": "old.pem"});
        let ran = lab.run(&FileCopy, &over).await.unwrap();
        assert_eq!((lab.text("old.pem").as_str(), lab.mode("old.pem")), ("NEW-KEY", 0o640));
        let written = format!("{} {}", ran.capture, ran.outputs);
        assert!(!written.contains("OLD-KEY") && !written.contains("NEW-KEY"), "{written}");
        assert_eq!(lab.mode(".old.pem.runback-r1-step.bak"), 0o640);
        lab.undo(&FileCopy, &over, &ran).await.unwrap();
        assert_eq!(lab.snapshot(), before);
        let unknown = json!({"from": {"target": "node9", "path": "/x"}, "path": "y"});
        assert!(lab.capture(&FileCopy, &unknown).await.unwrap_err().message.contains("node9"));
    }

    #[tokio::test]
    async fn every_break_can_be_undone() {
        let prepare = |lab: &Lab| {
            lab.put("a", "new");
            lab.put("b", "old");
        };
        assert!(break_everywhere(&FileCopy, prepare, |_| json!({"from_target": "a", "path": "b"})).await >= 2);
    }

    #[tokio::test]
    async fn drift_is_a_conflict() {
        let mut lab = Lab::new();
        lab.put("a", "new");
        let with = json!({"src": "a", "path": "b"});
        let ran = lab.run(&FileCopy, &with).await.unwrap();
        lab.put("b", "other");
        assert_eq!(lab.undo(&FileCopy, &with, &ran).await.unwrap_err().class, Class::Conflict);
        lab.force = true;
        lab.undo(&FileCopy, &with, &ran).await.unwrap();
        assert!(!lab.exists("b"));
    }

    #[tokio::test]
    async fn what_cannot_be_copied_is_named() {
        let lab = Lab::new();
        lab.put("d/x", "");
        for (with, message) in [
            (json!({"src": "no", "path": "b"}), "No such file"),
            (json!({"src": "d", "path": "b"}), "d is a directory"),
            (json!({"from_target": "no", "path": "b"}), "nothing is there to copy"),
            (json!({"from_target": "d", "path": "b"}), "d is a directory"),
        ] {
            let error = lab.capture(&FileCopy, &with).await.unwrap_err();
            assert!(error.message.contains(message), "{error}");
        }
    }

    #[test]
    fn bad_inputs_are_named() {
        let paths = |with: Json| -> Vec<String> {
            Lab::problems(&FileCopy, &with).into_iter().map(|p| p.path.join(".")).collect()
        };
        assert_eq!(paths(json!({"path": "b"})), [""]);
        assert_eq!(paths(json!({"path": "b", "src": "a", "from_target": "a"})), [""]);
        assert_eq!(paths(json!({"path": "", "src": "a/"})), ["path", "src"]);
        assert!(paths(json!({"path": "b", "src": "a"})).is_empty());
    }
}
