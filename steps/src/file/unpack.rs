//! `file.unpack`: a directory with what is in an archive.
//!
//! **Does.** Unpacks `src`, an archive on the machine that runback runs on (beside the playbook), or `from_target`, one
//! on the step's target, beside `path`, and then renames the result to `path`: the directory appears whole, or not at
//! all. It never unpacks into a directory that holds something: where `path` already holds exactly what is in the
//! archive, it does nothing; where it holds something else, it fails. Archives are read by the target's `tar` (with
//! whatever compression it knows), `.zip` files by its `unzip`.
//!
//! **Outputs.** `path`, `files` (how many there are), `tree` (a hash over their names, sizes, checksums and where
//! links lead to).
//!
//! **Undo** removes the directory, and those above it that `create_dirs` made if they are empty; or leaves the empty one
//! that was there. It does so only if the files in it are still those that were unpacked; else it is a conflict, and
//! `--force` removes them. The POSIX checksum (`cksum`) decides; a changed mode or time does not count.
//!
//! **Does not** merge, does not keep the owners of the archive unless `keep_owner: true`, and does not send more than 256
//! MiB from the playbook's folder to a remote target.

use std::fmt::Write as _;

use runback_core::Json;
use runback_core::step::{
    Access, Acted, Class, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind,
    Undone,
};
use runback_core::target::{Command, FileAttributes, FileKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{attributes, before, local, parents, paths, sha256_hex};

/// What is sent to a remote target at most, in bytes.
const MAX_SENT: u64 = 256 << 20;
/// The list of files and checksums of one directory, in bytes.
const MAX_LIST: usize = 64 << 20;

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Inputs {
    /// The archive, on the machine that runback runs on; a relative path counts from the playbook's folder.
    #[serde(default)]
    pub(crate) src: Option<String>,
    /// The archive, on the step's target. Either this or `src`.
    #[serde(default)]
    pub(crate) from_target: Option<String>,
    /// The directory to make. On `local`, a relative path counts from the playbook's folder.
    pub(crate) path: String,
    /// How many leading parts of each name in the archive to leave out.
    #[serde(default)]
    pub(crate) strip_components: u32,
    /// The archive must have this SHA-256, as hex.
    #[serde(default)]
    pub(crate) sha256: Option<String>,
    /// Give files the owners that the archive names; needs root.
    #[serde(default)]
    pub(crate) keep_owner: bool,
    /// Make the directories above it that are not there.
    #[serde(default)]
    pub(crate) create_dirs: bool,
}

/// What was unpacked.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// The directory, as the target knows it.
    pub(crate) path: String,
    /// How many files and links are in it.
    pub(crate) files: usize,
    /// Hash over their names, sizes and checksums, where links lead to, and the names of folders.
    pub(crate) tree: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Capture {
    path: String,
    before: Before,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    made_dirs: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Before {
    Absent,
    Empty(FileAttributes),
    /// It holds something; the step will not change it.
    Full,
}

/// The step type `file.unpack`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unpack;

/// Names beside the directory that are this step's own.
struct Beside {
    /// Where it is unpacked.
    staged: String,
    /// The archive, while it is on a remote target.
    archive: String,
    /// The unpacked directory, while undo removes it.
    gone: String,
}

impl Beside {
    fn of(cx: &Cx<'_>, path: &str) -> Self {
        let name = |suffix| paths::beside(cx, path, suffix);
        Self { staged: name("new"), archive: name("archive"), gone: name("gone") }
    }

    /// Removes what an earlier attempt left.
    async fn clear(&self, cx: &Cx<'_>) -> Result<bool, StepError> {
        let mut any = false;
        for dir in [&self.staged, &self.gone] {
            if cx.target.stat(dir).await?.is_some() {
                cx.target.remove_tree(dir).await?;
                any = true;
            }
        }
        if cx.target.stat(&self.archive).await?.is_some() {
            cx.target.remove_file(&self.archive).await?;
            any = true;
        }
        Ok(any)
    }
}

fn own_path(cx: &Cx<'_>, inputs: &Inputs) -> String {
    let trimmed = inputs.path.trim_end_matches('/');
    cx.path(if trimmed.is_empty() { &inputs.path } else { trimmed })
}

async fn look(cx: &Cx<'_>, inputs: &Inputs) -> Result<Capture, StepError> {
    let path = own_path(cx, inputs);
    let mut made_dirs = Vec::new();
    let before = match cx.target.stat(&path).await? {
        None => {
            made_dirs = parents::missing(cx, &path).await?;
            if !inputs.create_dirs && !made_dirs.is_empty() {
                return Err(parents::none(&path, &made_dirs));
            }
            Before::Absent
        }
        Some(stat) if stat.kind == FileKind::Dir => {
            if cx.target.list(&path).await?.is_empty() {
                Before::Empty(attributes::of(&stat))
            } else {
                Before::Full
            }
        }
        Some(stat) => {
            return Err(StepError::permanent(format!("{path} is {}", before::kind(&stat)))
                .help("name a directory that is not there yet"));
        }
    };
    Ok(Capture { path, before, made_dirs })
}

/// The archive's path on the target; brings it there where it has to be sent.
async fn archive(cx: &Cx<'_>, inputs: &Inputs, beside: &Beside) -> Result<String, StepError> {
    let path = match (&inputs.src, &inputs.from_target) {
        (Some(src), None) if cx.target.is_local() => cx.local_path(src).to_string_lossy().into_owned(),
        (Some(src), None) => {
            if cx.reattach.is_none() {
                let bytes = local::read(&cx.local_path(src), MAX_SENT)
                    .map_err(|e| e.help("fetch it from the target itself, or name one there with `from_target`"))?;
                let own = FileAttributes { mode: Some(0o600), ..FileAttributes::default() };
                cx.target.write(&beside.archive, &bytes, &own).await?;
            }
            beside.archive.clone()
        }
        (None, Some(src)) => cx.path(src),
        _ => return Err(StepError::permanent("give either `src` or `from_target`")),
    };
    match cx.target.stat(&path).await? {
        None => Err(StepError::permanent(format!("{path}: there is no such archive"))),
        Some(stat) if stat.kind == FileKind::Dir => Err(StepError::permanent(format!("{path} is a directory"))),
        Some(_) => Ok(path),
    }
}

fn is_zip(inputs: &Inputs) -> bool {
    let name = inputs.src.as_ref().or(inputs.from_target.as_ref());
    name.is_some_and(|n| n.to_ascii_lowercase().ends_with(".zip"))
}

fn command(inputs: &Inputs, archive: &str, dir: &str) -> Command {
    if is_zip(inputs) {
        return Command::new(["unzip", "-q", archive, "-d", dir]);
    }
    let mut argv = vec!["tar".to_owned(), "-x".to_owned(), "-f".to_owned(), archive.to_owned()];
    argv.extend(["-C".to_owned(), dir.to_owned()]);
    if !inputs.keep_owner {
        argv.push("-o".to_owned());
    }
    if inputs.strip_components > 0 {
        argv.push(format!("--strip-components={}", inputs.strip_components));
    }
    Command::new(argv)
}

/// Where links lead to, one line each.
const LINKS: &str = "for l; do printf '%s -> %s\\n' \"$l\" \"$(readlink \"$l\")\"; done";

/// Count of what is in a directory and is none itself, and a hash over its names, content and links.
async fn tree(cx: &Cx<'_>, dir: &str) -> Result<(usize, String), StepError> {
    let mut lines = Vec::new();
    let mut files = 0;
    for (counts, rest) in [
        (true, ["!", "-type", "d", "-print"].as_slice()),
        (false, &["-type", "d", "-exec", "printf", "%s/\\n", "{}", "+"]),
        (false, &["-type", "l", "-exec", "sh", "-c", LINKS, "sh", "{}", "+"]),
        (false, &["-type", "f", "-exec", "cksum", "{}", "+"]),
    ] {
        let command = Command::query(["find", "."].iter().chain(rest).copied()).cwd(dir).keep_stdout(MAX_LIST);
        let exit = cx.query(command.clone()).await?;
        if !exit.ok() {
            return Err(StepError::from_exit(Class::Permanent, &command, &exit));
        }
        if exit.stdout_cut {
            return Err(StepError::permanent(format!("{dir} holds too many files to compare")));
        }
        let text = exit.stdout_text();
        files += if counts { text.lines().count() } else { 0 };
        lines.extend(text.lines().map(str::to_owned));
    }
    lines.sort_unstable();
    let text = lines.iter().fold(String::new(), |mut all, line| {
        let _ = writeln!(all, "{line}");
        all
    });
    Ok((files, sha256_hex(text.as_bytes())))
}

/// Unpacks into the staged directory and gives its count and hash.
async fn stage(cx: &Cx<'_>, inputs: &Inputs, before: &Before, beside: &Beside) -> Result<(usize, String), StepError> {
    let archive = archive(cx, inputs, beside).await?;
    if let Some(wanted) = &inputs.sha256 {
        let is = cx.target.sha256(&archive).await?;
        if !is.eq_ignore_ascii_case(wanted) {
            return Err(StepError::permanent(format!("{archive} has SHA-256 {is}, not {wanted}"))
                .help("it is not the archive that was meant, or it was damaged on its way"));
        }
    }
    if cx.reattach.is_none() {
        // Nobody looks into what takes the place of a folder that may be closed to them.
        let mode = matches!(before, Before::Empty(_)).then_some(0o700);
        cx.target.create_dir(&beside.staged, mode).await?;
    }
    let command = command(inputs, &archive, &beside.staged);
    cx.phase(format!("unpacking {}", paths::name(&archive)));
    let exit = cx.run(command.clone()).await?;
    if !exit.ok() {
        return Err(StepError::from_exit(Class::Permanent, &command, &exit));
    }
    let (files, hash) = tree(cx, &beside.staged).await?;
    if files == 0 {
        let error = StepError::permanent(format!("{archive}: nothing came out of it"));
        return Err(error.help("is `strip_components` too large?"));
    }
    Ok((files, hash))
}

#[async_trait::async_trait]
impl StepType for Unpack {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = Capture;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "file.unpack",
            doc: "A directory with what is in a tar or zip archive.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Main,
            examples: &[
                "- id: unpack\n  uses: file.unpack\n  with:\n    src: app-1.4.2.tar.gz\n    path: /srv/app/releases/1.4.2\n    strip_components: 1\n",
            ],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut all: Vec<_> = paths::problems("path", &inputs.path).into_iter().collect();
        for (key, src) in [("src", &inputs.src), ("from_target", &inputs.from_target)] {
            all.extend(src.as_deref().and_then(|src| paths::file_problems(key, src)));
        }
        let mut problem = |key: &str, message: &str, help: &str| {
            let path = if key.is_empty() { Vec::new() } else { vec![key.to_owned()] };
            all.push(InputProblem { path, message: message.to_owned(), help: Some(help.to_owned()) });
        };
        if inputs.src.is_some() == inputs.from_target.is_some() {
            problem(
                "",
                "there is one archive to unpack",
                "give `src` for one beside the playbook, or `from_target` for one on the target",
            );
        }
        if is_zip(inputs) && inputs.strip_components > 0 {
            problem("strip_components", "`unzip` cannot leave out parts of names", "unpack it as it is, or use a tar");
        }
        if inputs.sha256.as_ref().is_some_and(|s| s.len() != 64 || !s.bytes().all(|b| b.is_ascii_hexdigit())) {
            problem("sha256", "a SHA-256 has 64 hex digits", "`sha256sum FILE` prints it");
        }
        all
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let Capture { path, before, made_dirs } = look(cx, inputs).await?;
        let src = inputs.src.as_ref().or(inputs.from_target.as_ref()).map_or("", String::as_str);
        let (changes, summary) = match before {
            Before::Absent | Before::Empty(_) => (Some(true), format!("unpack {src} to {path}")),
            Before::Full => (None, format!("{path} is there: it must hold what is in {src}")),
        };
        let details = made_dirs.iter().map(|dir| format!("create the directory {dir}")).collect();
        Ok(Preview { changes, summary, details })
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Capture, StepError> {
        look(cx, inputs).await
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Capture) -> Result<Acted<Outputs>, StepError> {
        let path = &capture.path;
        let beside = Beside::of(cx, path);
        if cx.reattach.is_none() {
            beside.clear(cx).await?;
            parents::make(cx, &capture.made_dirs).await?;
        }
        let done: Result<Outputs, StepError> = async {
            let (files, hash) = stage(cx, inputs, &capture.before, &beside).await?;
            switch(cx, capture, &beside, &hash).await?;
            Ok(Outputs { path: path.clone(), files, tree: hash })
        }
        .await;
        // The first error is the one to tell; what cannot be removed now, the undo removes.
        let cleared = beside.clear(cx).await;
        let outputs = done?;
        cleared?;
        Ok(Acted { outputs, changed: !matches!(capture.before, Before::Full) })
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        _: &Inputs,
        capture: &Capture,
        outputs: Option<&Outputs>,
    ) -> Result<Undone, StepError> {
        let Capture { path, before, made_dirs } = capture;
        let beside = Beside::of(cx, path);
        let mut changed = beside.clear(cx).await?;
        let stat = cx.target.stat(path).await?;
        let mut notes = Vec::new();
        match (&stat, before) {
            (_, Before::Full) | (None, Before::Absent | Before::Empty(_)) => {}
            (Some(stat), _) if stat.kind != FileKind::Dir => {
                return Err(StepError::conflict(format!("{path}: is {} now", before::kind(stat)))
                    .help("move it away, then run the rollback again"));
            }
            (Some(_), Before::Empty(_)) if cx.target.list(path).await?.is_empty() => {}
            (Some(_), _) => {
                let (_, hash) = tree(cx, path).await?;
                if !left(cx, outputs).contains(&hash) && !cx.force {
                    return Err(before::drift(cx, path, "what is in it was changed after it was unpacked"));
                }
                cx.target.rename(path, &beside.gone).await?;
                cx.target.remove_tree(&beside.gone).await?;
                notes.push(format!("removed {path}"));
                changed = true;
            }
        }
        if let Before::Empty(was) = before
            && cx.target.stat(path).await?.is_none()
        {
            cx.target.create_dir(path, was.mode).await?;
            cx.target.set_attributes(path, was).await?;
            changed = true;
        }
        let (removed, left) = parents::unmake(cx, made_dirs).await?;
        notes.extend(left);
        let note = if notes.is_empty() { None } else { Some(notes.join("; ")) };
        Ok(Undone { changed: changed || removed, note })
    }
}

/// Puts the staged directory in its place, or finds that the same is there already.
async fn switch(cx: &Cx<'_>, capture: &Capture, beside: &Beside, hash: &str) -> Result<(), StepError> {
    let path = &capture.path;
    if cx.target.stat(path).await?.is_some() {
        if cx.target.list(path).await?.is_empty() {
            cx.host.note(serde_json::json!({ "tree": hash })).await?;
            cx.target.remove_dir(path).await?;
        } else if tree(cx, path).await?.1 == hash {
            return Ok(());
        } else {
            return Err(StepError::conflict(format!("{path} holds something else than what is in the archive"))
                .help("unpack into a new directory, or remove this one first (`uses: file.remove`)"));
        }
    } else {
        // Undo must know what was unpacked, even if the outputs are never recorded.
        cx.host.note(serde_json::json!({ "tree": hash })).await?;
    }
    if let Before::Empty(was) = &capture.before {
        cx.target.set_attributes(&beside.staged, was).await?;
    }
    Ok(cx.target.rename(&beside.staged, path).await?)
}

/// Hashes of what the step may have left.
fn left(cx: &Cx<'_>, outputs: Option<&Outputs>) -> Vec<String> {
    if let Some(outputs) = outputs {
        return vec![outputs.tree.clone()];
    }
    let noted = |note: &Json| note.get("tree").and_then(Json::as_str).map(str::to_owned);
    cx.host.notes().iter().filter_map(noted).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::testing::{Lab, break_everywhere};
    use serde_json::json;

    fn archived(lab: &Lab) {
        lab.put("src/app-1/bin/run", "#!/bin/sh\n");
        lab.set_mode("src/app-1/bin/run", 0o755);
        lab.put("src/app-1/readme", "hello");
        std::os::unix::fs::symlink("readme", lab.path("src/app-1/link")).unwrap();
        let tar = std::process::Command::new("tar")
            .args(["-czf", &lab.path("app.tar.gz"), "--mtime=@0", "-C", &lab.path("src"), "app-1"])
            .status();
        assert!(tar.unwrap().success());
        std::fs::remove_dir_all(lab.path("src")).unwrap();
    }

    fn with() -> Json {
        json!({"src": "app.tar.gz", "path": "releases/1", "strip_components": 1, "create_dirs": true})
    }

    #[tokio::test]
    async fn unpacks_whole_and_undoes() {
        let lab = Lab::new();
        archived(&lab);
        let before = lab.snapshot();
        assert_eq!(lab.preview(&Unpack, &with()).await.unwrap().changes, Some(true));
        let ran = lab.run(&Unpack, &with()).await.unwrap();
        assert!(ran.changed);
        assert_eq!((lab.text("releases/1/readme").as_str(), lab.mode("releases/1/bin/run")), ("hello", 0o755));
        assert_eq!(ran.outputs["files"], 3);
        assert_eq!(std::fs::read_dir(lab.path("releases")).unwrap().count(), 1, "nothing else is left");
        assert_eq!(lab.host.phases(), ["unpacking app.tar.gz"]);

        let again = lab.run(&Unpack, &with()).await.unwrap();
        assert_eq!((again.changed, &again.outputs["tree"]), (false, &ran.outputs["tree"]));
        assert!(!lab.undo(&Unpack, &with(), &again).await.unwrap().changed, "it unpacked nothing");

        assert!(lab.undo(&Unpack, &with(), &ran).await.unwrap().changed);
        assert_eq!(lab.snapshot(), before);
        assert!(!lab.undo(&Unpack, &with(), &ran).await.unwrap().changed);
    }

    #[tokio::test]
    async fn a_remote_target_gets_the_archive_sent() {
        let mut lab = Lab::new();
        archived(&lab);
        lab.target.local = false;
        let before = lab.snapshot();
        let with = json!({"src": "app.tar.gz", "path": lab.path("out"), "strip_components": 1});
        let ran = lab.run(&Unpack, &with).await.unwrap();
        assert_eq!(lab.text("out/readme"), "hello");
        assert_eq!(std::fs::read_dir(lab.path("")).unwrap().count(), 2, "the sent archive is gone again");
        lab.undo(&Unpack, &with, &ran).await.unwrap();
        assert_eq!(lab.snapshot(), before);
    }

    #[tokio::test]
    async fn an_empty_directory_is_filled_and_emptied() {
        let lab = Lab::new();
        archived(&lab);
        std::fs::create_dir(lab.path("d")).unwrap();
        lab.set_mode("d", 0o711);
        let before = lab.snapshot();
        let with = json!({"src": "app.tar.gz", "path": "d/"});
        let ran = lab.run(&Unpack, &with).await.unwrap();
        assert_eq!(lab.text("d/app-1/readme"), "hello");
        assert_eq!(lab.mode("d"), 0o711, "a folder that was there stays as closed as it was");
        lab.undo(&Unpack, &with, &ran).await.unwrap();
        assert_eq!(lab.snapshot(), before);
    }

    #[tokio::test]
    async fn a_link_that_leads_elsewhere_is_another_content() {
        let lab = Lab::new();
        archived(&lab);
        lab.run(&Unpack, &with()).await.unwrap();
        std::fs::remove_file(lab.path("releases/1/link")).unwrap();
        std::os::unix::fs::symlink("/somewhere/else", lab.path("releases/1/link")).unwrap();
        let error = lab.run(&Unpack, &with()).await.unwrap_err();
        assert!(error.message.contains("holds something else"), "{error}");
    }

    #[tokio::test]
    async fn another_content_is_never_merged() {
        let lab = Lab::new();
        archived(&lab);
        lab.put("releases/1/other", "");
        let before = lab.snapshot();
        let error = lab.run(&Unpack, &with()).await.unwrap_err();
        assert_eq!(error.class, Class::Conflict);
        assert!(error.message.contains("holds something else"), "{error}");
        assert_eq!(lab.snapshot(), before);
    }

    #[tokio::test]
    async fn drift_is_a_conflict_that_force_overrides() {
        let changes: [fn(&Lab); 5] = [
            |lab| lab.put("releases/1/readme", "HELLO"),
            |lab| lab.put("releases/1/new", ""),
            |lab| std::fs::remove_file(lab.path("releases/1/link")).unwrap(),
            |lab| std::fs::create_dir(lab.path("releases/1/own")).unwrap(),
            |lab| {
                std::fs::remove_file(lab.path("releases/1/link")).unwrap();
                std::os::unix::fs::symlink("bin", lab.path("releases/1/link")).unwrap();
            },
        ];
        for change in changes {
            let mut lab = Lab::new();
            archived(&lab);
            let before = lab.snapshot();
            let ran = lab.run(&Unpack, &with()).await.unwrap();
            change(&lab);
            let drifted = lab.snapshot();
            assert_eq!(lab.undo(&Unpack, &with(), &ran).await.unwrap_err().class, Class::Conflict);
            assert_eq!(lab.snapshot(), drifted);
            lab.force = true;
            lab.undo(&Unpack, &with(), &ran).await.unwrap();
            assert_eq!(lab.snapshot(), before);
        }
    }

    #[tokio::test]
    async fn every_break_can_be_undone() {
        // The archive must be the same in each lab: packed once.
        let first = Lab::new();
        archived(&first);
        let bytes = std::fs::read(first.path("app.tar.gz")).unwrap();
        let prepare = |lab: &Lab| lab.put("app.tar.gz", &bytes);
        assert!(break_everywhere(&Unpack, prepare, |_| with()).await >= 6);
        let filled = |lab: &Lab| {
            lab.put("app.tar.gz", &bytes);
            std::fs::create_dir(lab.path("d")).unwrap();
            lab.set_mode("d", 0o755);
        };
        let into = |_: &Lab| json!({"src": "app.tar.gz", "path": "d", "strip_components": 1});
        assert!(break_everywhere(&Unpack, filled, into).await >= 6);
    }

    #[tokio::test]
    async fn a_wrong_archive_leaves_nothing() {
        let lab = Lab::new();
        archived(&lab);
        lab.put("broken.tar", "this is no archive");
        let before = lab.snapshot();
        let digits = "0".repeat(64);
        for (with, message) in [
            (json!({"src": "no.tar", "path": "d"}), "there is no such archive"),
            (json!({"src": "broken.tar", "path": "d"}), "tar: exit code"),
            (json!({"src": "app.tar.gz", "path": "d", "sha256": digits}), "has SHA-256"),
            (json!({"src": "app.tar.gz", "path": "d", "strip_components": 9}), "nothing came out of it"),
        ] {
            let error = lab.run(&Unpack, &with).await.unwrap_err();
            assert!(error.message.contains(message), "{error}");
            assert_eq!(lab.snapshot(), before);
        }
    }

    #[test]
    fn bad_inputs_are_named() {
        let paths = |with: Json| -> Vec<String> {
            Lab::problems(&Unpack, &with).into_iter().map(|p| p.path.join(".")).collect()
        };
        assert_eq!(paths(json!({"path": "d"})), [""]);
        assert_eq!(
            paths(json!({"path": "", "src": "a.zip", "strip_components": 1, "sha256": "abc"})),
            ["path", "strip_components", "sha256"]
        );
        assert!(paths(json!({"path": "d/", "from_target": "a.tar.xz"})).is_empty());
    }
}
