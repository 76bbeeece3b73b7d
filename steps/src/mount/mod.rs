//! `mount.present`: a file system is mounted, now and after the next start of the machine.
//!
//! **Does.** Sees to it that /etc/fstab has one line for `path`, as the inputs say, and that it is mounted. A folder that is
//! not there is made. What is mounted is read from /proc/self/mountinfo. Something else that is mounted there is a conflict.
//! Links in `path` are followed first, and a new line names the folder that they lead to. A device is the same one by
//! whatever name, as is a file behind a loop device. Steps beside each other may change one fstab.
//!
//! **Outputs.** `path`, `source`, `fstype`, `options` as the kernel has them.
//!
//! **Undo** unmounts it if the step mounted it, takes its line out of the fstab or brings the earlier one back, and removes
//! the folder that it made, if that is empty. A line that was changed since, and something else that is mounted there now,
//! is a conflict, and `--force` decides. What somebody mounted there after the step's own attempt had failed stays.
//!
//! **Does not** mount a file system anew because only its options differ: the line is changed, and the report says so.
//! UUID=…, LABEL=… and the like are not looked up: what is mounted there has to be of the type, no more.

use runback_core::step::{
    Access, Acted, Class, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind,
    Undone,
};
use runback_core::target::Command;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::begun::{self, Tells};
use crate::file::edited::{self, Editing};
use crate::file::{merge, parents, paths, put};
use crate::http::look::problem;

mod kernel;
mod table;

use kernel::{Mounted, find, is_wanted, mountinfo, resolved};

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Inputs {
    /// What is mounted: a device, UUID=…, host:/export, or a folder for a bind mount.
    pub(crate) source: String,
    /// Where it is mounted.
    pub(crate) path: String,
    /// Its type, such as ext4, nfs4, cephfs; `none` for a bind mount.
    pub(crate) fstype: String,
    /// Options, as in fstab.
    #[serde(default = "crate::mount::defaults")]
    pub(crate) options: String,
    /// The file that the machine mounts from when it starts.
    #[serde(default = "crate::mount::fstab")]
    pub(crate) fstab: String,
}

pub(crate) fn defaults() -> String {
    "defaults".to_owned()
}

pub(crate) fn fstab() -> String {
    "/etc/fstab".to_owned()
}

/// What is mounted.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// Where.
    pub(crate) path: String,
    /// As the kernel names it.
    pub(crate) source: String,
    /// Its type.
    pub(crate) fstype: String,
    /// Its options.
    pub(crate) options: String,
    /// The fstab.
    pub(crate) table: put::Outputs,
}

/// The mount, the folder and the table before.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Capture {
    mounted: bool,
    made_dirs: Vec<String>,
    table: put::Capture,
    /// Without links. Empty in runs of runback 0.1 that began before it was kept.
    #[serde(default)]
    path: String,
    #[serde(default)]
    tells: Tells,
}

impl Capture {
    fn path(&self, cx: &Cx<'_>, inputs: &Inputs) -> String {
        if self.path.is_empty() { cx.path(&inputs.path) } else { self.path.clone() }
    }
}

/// The step type `mount.present`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MountPresent;

/// The note of what came by the step's own mount.
const MOUNTED: &str = "mounted";

/// What the step mounted last, as the kernel had it.
fn noted(cx: &Cx<'_>) -> Option<Mounted> {
    let notes = cx.host.notes();
    let last = notes.iter().filter_map(|note| note.get(MOUNTED)).next_back()?;
    Mounted::deserialize(last).ok()
}

/// Calls `$with` for the fstab and its edit.
macro_rules! editing {
    ($cx:expr, $inputs:expr, $path:expr, |$editing:ident| $with:expr) => {{
        let written = $cx.path(&$inputs.path);
        let edit = |old: Option<&str>| table::with_line(old.unwrap_or_default(), $inputs, $path, &written);
        let $editing = Editing { path: $cx.path(&$inputs.fstab), validate: &[], edit: &edit };
        $with
    }};
}

async fn command(cx: &Cx<'_>, words: &[&str], help: &str) -> Result<(), StepError> {
    let command = Command::new(words.iter().copied());
    let exit = cx.query(command.clone()).await?;
    if exit.ok() {
        return Ok(());
    }
    let stderr = exit.stderr_text();
    let unreachable = ["timed out", "No route to host", "Connection refused", "Temporary failure"];
    let class = match () {
        () if stderr.contains("busy") => Class::Conflict,
        () if unreachable.iter().any(|u| stderr.contains(u)) => Class::Transient,
        () => Class::Permanent,
    };
    Err(StepError::from_exit(class, &command, &exit).help(help))
}

/// Mounts it, and tells when. What fails and mounts nothing has nothing to undo.
async fn mount(cx: &Cx<'_>, inputs: &Inputs, path: &str) -> Result<(), StepError> {
    let words = ["mount", "-t", &inputs.fstype, "-o", &inputs.options, &inputs.source, path];
    let work = command(cx, &words, "mount it by hand to see more; the kernel's reason may be in `dmesg`");
    begun::changing(cx, work, async { mountinfo(cx).await.is_ok_and(|info| find(&info, path).is_none()) }).await
}

fn taken(path: &str, is: &Mounted) -> StepError {
    StepError::conflict(format!("{path}: {} ({}) is mounted there", is.source, is.fstype))
        .help("unmount it, or give another `path`")
}

#[async_trait::async_trait]
impl StepType for MountPresent {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = Capture;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "mount.present",
            doc: "A file system is mounted, now and after the next start of the machine.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Small,
            examples: &[
                "- id: shared\n  uses: mount.present\n  with: { source: \"nas.example.com:/export/app\", path: /mnt/app, fstype: nfs4, options: \"rw,hard\" }\n",
            ],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut all: Vec<InputProblem> = paths::problems("path", &inputs.path).into_iter().collect();
        all.extend(paths::file_problems("fstab", &inputs.fstab));
        for (key, text) in [("source", &inputs.source), ("fstype", &inputs.fstype), ("options", &inputs.options)] {
            if text.is_empty() || text.starts_with('-') || text.contains('\n') {
                all.push(problem(&[key], format!("`{text}` cannot be that")));
            }
        }
        all
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let path = resolved(cx, &cx.path(&inputs.path)).await?;
        let table = editing!(cx, inputs, &path, |editing| edited::preview(cx, &editing).await)?;
        let info = mountinfo(cx).await?;
        let is = find(&info, &path);
        let summary = match &is {
            Some(is) if is_wanted(cx, &info, is, inputs).await? => format!("{path} is mounted"),
            Some(is) => format!("cannot mount {}: {} is mounted at {path}", inputs.source, is.source),
            None => format!("mount {} at {path}", inputs.source),
        };
        Ok(Preview { changes: Some(is.is_none() || table.changes == Some(true)), summary, details: table.details })
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Capture, StepError> {
        let path = resolved(cx, &cx.path(&inputs.path)).await?;
        let info = mountinfo(cx).await?;
        let is = find(&info, &path);
        if let Some(is) = &is
            && !is_wanted(cx, &info, is, inputs).await?
        {
            return Err(taken(&path, is));
        }
        let mut made_dirs = Vec::new();
        if cx.target.stat(&path).await?.is_none() {
            made_dirs = parents::missing(cx, &path).await?;
            made_dirs.push(path.clone());
        }
        let (table, _) = editing!(cx, inputs, &path, |editing| edited::capture(cx, &editing).await)?;
        Ok(Capture { mounted: is.is_some(), made_dirs, table, path, tells: Tells::YES })
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Capture) -> Result<Acted<Outputs>, StepError> {
        let path = capture.path(cx, inputs);
        let info = mountinfo(cx).await?;
        let before = find(&info, &path);
        let strangers = capture.mounted || capture.tells.strangers(cx);
        if let Some(is) = &before
            && strangers
            && !is_wanted(cx, &info, is, inputs).await?
        {
            return Err(taken(&path, is));
        }
        parents::make(cx, &capture.made_dirs).await?;
        let (table, _) = editing!(cx, inputs, &path, |editing| edited::act(cx, &editing, &capture.table).await)?;
        if before.is_none() {
            mount(cx, inputs, &path).await?;
        }
        let Some(is) = find(&mountinfo(cx).await?, &path) else {
            return Err(StepError::permanent(format!("{path} is not mounted, though mount succeeded")));
        };
        if before.is_none() {
            cx.host.note(serde_json::json!({ MOUNTED: is })).await?;
        }
        let changed = before.is_none() || table.changed || !strangers;
        let Mounted { source, fstype, options, .. } = is;
        Ok(Acted { outputs: Outputs { path, source, fstype, options, table: table.outputs }, changed })
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        inputs: &Inputs,
        capture: &Capture,
        outputs: Option<&Outputs>,
    ) -> Result<Undone, StepError> {
        let path = capture.path(cx, inputs);
        let mut did = Vec::new();
        let info = mountinfo(cx).await?;
        if !capture.mounted
            && !capture.tells.strangers(cx)
            && let Some(is) = find(&info, &path)
        {
            // Mounted anew since, it has another number.
            let ours = noted(cx).is_some_and(|own| own.is_same(&is)) || is_wanted(cx, &info, &is, inputs).await?;
            if !ours && !cx.force {
                return Err(StepError::conflict(format!("{path}: {} is mounted there now", is.source))
                    .help(format!("look at it; `runback rollback {} --force` unmounts it", cx.run)));
            }
            command(cx, &["umount", &path], "something uses it: `fuser -vm` on the target shows what").await?;
            did.push(format!("unmounted {path}"));
        }
        let left = outputs.map(|o| &o.table);
        let undone = editing!(cx, inputs, &path, |editing| {
            edited::undo(cx, &editing, &capture.table, left, merge::take_out).await
        });
        let table = undone?;
        did.extend(table.note);
        let (removed, note) = parents::unmake(cx, &capture.made_dirs).await?;
        did.extend(note);
        let changed = table.changed || removed || !did.is_empty();
        Ok(Undone { changed, note: (!did.is_empty()).then(|| did.join("; ")) })
    }
}

#[cfg(test)]
mod tests;
