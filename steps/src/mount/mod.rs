//! `mount.present`: a file system is mounted, now and after the next start of the machine.
//!
//! **Does.** Sees to it that /etc/fstab has one line for `path`, as the inputs say, and that it is mounted. A folder that is
//! not there is made. What is mounted is read from /proc/self/mountinfo. Something else that is mounted there is a conflict.
//!
//! **Outputs.** `path`, `source`, `fstype`, `options` as the kernel has them.
//!
//! **Undo** unmounts it if it was not mounted before, brings the earlier fstab back, and removes the folder that it made, if
//! that is empty. An fstab that was changed since is a conflict, and `--force` decides.
//!
//! **Does not** mount a file system anew because only its options differ: the line is changed, and the report says so.

use runback_core::step::{
    Access, Acted, Class, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind, Undone,
};
use runback_core::target::Command;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::file::put::{self, Source, Wanted};
use crate::file::{parents, paths, text};
use crate::http::look::problem;

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
}

/// The step type `mount.present`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MountPresent;

/// One line of mountinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mounted {
    /// The kernel's number of the device, which also tells two file systems without one apart.
    device: String,
    root: String,
    source: String,
    fstype: String,
    options: String,
}

/// Blanks in a field, as fstab and mountinfo write them.
fn escape(field: &str) -> String {
    field.replace('\\', "\\134").replace(' ', "\\040").replace('\t', "\\011")
}

fn unescape(field: &str) -> String {
    field.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// What is mounted at a path: the last line for it, as that hides the others.
fn find(mountinfo: &str, path: &str) -> Option<Mounted> {
    let line = mountinfo.lines().rev().find(|l| l.split(' ').nth(4).is_some_and(|p| unescape(p) == path))?;
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(2);
    let mut right = right.split(' ');
    let device = left.next()?.to_owned();
    let root = unescape(left.next()?);
    let options = left.nth(1)?.to_owned();
    Some(Mounted { device, root, options, fstype: right.next()?.to_owned(), source: unescape(right.next()?) })
}

/// The table with one line for the path.
fn with_line(table: &str, inputs: &Inputs, path: &str) -> Result<String, StepError> {
    let fields = [&inputs.source, path, &inputs.fstype, &inputs.options].map(escape);
    let same = |line: &str| line.split_whitespace().take(4).eq(fields.iter().map(String::as_str));
    let of_path: Vec<&str> = table
        .lines()
        .filter(|l| {
            !l.trim_start().starts_with('#') && l.split_whitespace().nth(1).is_some_and(|p| unescape(p) == path)
        })
        .collect();
    let wanted = format!("{} 0 0", fields.join(" "));
    match of_path[..] {
        [one] if same(one) => Ok(table.to_owned()),
        [] => {
            let end = if table.is_empty() || table.ends_with('\n') { "" } else { "\n" };
            Ok(format!("{table}{end}{wanted}\n"))
        }
        [one] => Ok(table
            .split_inclusive('\n')
            .map(|l| if l.trim_end_matches('\n') == one { l.replacen(one, &wanted, 1) } else { l.to_owned() })
            .collect()),
        _ => Err(StepError::conflict(format!("{}: {} lines are for {path}", inputs.fstab, of_path.len()))
            .help("leave one of them")),
    }
}

async fn mountinfo(cx: &Cx<'_>) -> Result<String, StepError> {
    let command = Command::query(["cat", "/proc/self/mountinfo"]);
    let exit = cx.query(command.clone()).await?;
    if exit.ok() { Ok(exit.stdout_text()) } else { Err(StepError::from_exit(Class::Permanent, &command, &exit)) }
}

/// Device and place in it of a folder, by the mount that it lies in.
fn lies_at(info: &str, folder: &str) -> Option<(String, String)> {
    let mut point = folder.trim_end_matches('/');
    loop {
        if let Some(of) = find(info, if point.is_empty() { "/" } else { point }) {
            let root = format!("{}{}", of.root.trim_end_matches('/'), &folder.trim_end_matches('/')[point.len()..]);
            return Some((of.device, if root.is_empty() { "/".to_owned() } else { root }));
        }
        point = &point[..point.rfind('/')?];
    }
}

/// It is what the inputs ask for, as far as the kernel tells: it names the device behind a label and behind a bind.
fn is_wanted(info: &str, is: &Mounted, inputs: &Inputs) -> bool {
    if inputs.options.split(',').any(|o| o == "bind" || o == "rbind") {
        return lies_at(info, &inputs.source) == Some((is.device.clone(), is.root.clone()));
    }
    let tag = inputs.source.contains('=') && !inputs.source.starts_with('/');
    let kind = is.fstype == inputs.fstype || is.fstype.starts_with(&inputs.fstype) || inputs.fstype == "auto";
    kind && (tag || is.source == inputs.source || inputs.source.starts_with("/dev/disk/"))
}

async fn wanted<'a>(cx: &Cx<'_>, inputs: &'a Inputs) -> Result<Wanted<'a>, StepError> {
    let fstab = cx.path(&inputs.fstab);
    let table = text::read(cx, &fstab).await?.unwrap_or_default();
    let table = with_line(&table, inputs, &cx.path(&inputs.path))?;
    Ok(Wanted::new(fstab, Source::Bytes(table.into_bytes())))
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
            detach: false,
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
        let path = cx.path(&inputs.path);
        let table = put::preview(cx, &wanted(cx, inputs).await?).await?;
        let info = mountinfo(cx).await?;
        let is = find(&info, &path);
        let summary = match &is {
            Some(is) if is_wanted(&info, is, inputs) => format!("{path} is mounted"),
            Some(is) => format!("cannot mount {}: {} is mounted at {path}", inputs.source, is.source),
            None => format!("mount {} at {path}", inputs.source),
        };
        Ok(Preview { changes: Some(is.is_none() || table.changes == Some(true)), summary, details: table.details })
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Capture, StepError> {
        let path = cx.path(&inputs.path);
        let info = mountinfo(cx).await?;
        let is = find(&info, &path);
        if let Some(is) = is.as_ref().filter(|is| !is_wanted(&info, is, inputs)) {
            return Err(StepError::conflict(format!("{path}: {} ({}) is mounted there", is.source, is.fstype))
                .help("unmount it, or give another `path`"));
        }
        let mut made_dirs = Vec::new();
        if cx.target.stat(&path).await?.is_none() {
            made_dirs = parents::missing(cx, &path).await?;
            made_dirs.push(path);
        }
        Ok(Capture { mounted: is.is_some(), made_dirs, table: put::capture(cx, &wanted(cx, inputs).await?).await? })
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Capture) -> Result<Acted<Outputs>, StepError> {
        let path = cx.path(&inputs.path);
        parents::make(cx, &capture.made_dirs).await?;
        let table = put::act(cx, &wanted(cx, inputs).await?, &capture.table).await?;
        let now = find(&mountinfo(cx).await?, &path);
        if now.is_none() {
            let words = ["mount", "-t", &inputs.fstype, "-o", &inputs.options, &inputs.source, &path];
            command(cx, &words, "mount it by hand to see more; the kernel's reason may be in `dmesg`").await?;
        }
        let Some(is) = find(&mountinfo(cx).await?, &path) else {
            return Err(StepError::permanent(format!("{path} is not mounted, though mount succeeded")));
        };
        let changed = now.is_none() || table.changed || !capture.mounted;
        let (source, fstype, options) = (is.source, is.fstype, is.options);
        Ok(Acted { outputs: Outputs { path, source, fstype, options, table: table.outputs }, changed })
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        inputs: &Inputs,
        capture: &Capture,
        outputs: Option<&Outputs>,
    ) -> Result<Undone, StepError> {
        let path = cx.path(&inputs.path);
        let mut did = Vec::new();
        let info = mountinfo(cx).await?;
        if !capture.mounted
            && let Some(is) = find(&info, &path)
        {
            if !is_wanted(&info, &is, inputs) && !cx.force {
                return Err(StepError::conflict(format!("{path}: {} is mounted there now", is.source))
                    .help(format!("look at it; `runback rollback {} --force` unmounts it", cx.run)));
            }
            command(cx, &["umount", &path], "something uses it: `fuser -vm` on the target shows what").await?;
            did.push(format!("unmounted {path}"));
        }
        let table = put::undo(cx, &capture.table, outputs.map(|o| &o.table)).await?;
        did.extend(table.note);
        let (removed, note) = parents::unmake(cx, &capture.made_dirs).await?;
        did.extend(note);
        let changed = table.changed || removed || !did.is_empty();
        Ok(Undone { changed, note: (!did.is_empty()).then(|| did.join("; ")) })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::testing::Lab;
    use serde_json::json;

    #[test]
    fn the_last_mount_at_a_path_counts() {
        let info = "22 1 8:1 / / rw,noatime shared:1 - ext4 /dev/sda1 rw\n\
                    30 22 0:40 / /mnt/a\\040b rw - nfs4 nas:/x rw,vers=4\n\
                    31 30 8:1 /srv/data /mnt/a\\040b ro - ext4 /dev/sda1 rw\n";
        let is = find(info, "/mnt/a b").unwrap();
        assert_eq!((is.root.as_str(), is.fstype.as_str(), is.options.as_str()), ("/srv/data", "ext4", "ro"));
        assert_eq!(find(info, "/mnt"), None);
        // A bind is known by the device and the place in it, whatever the folder is called from here.
        let info = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 8:1 /host/shared /shared rw - ext4 /dev/sda1 rw\n\
                    3 1 8:1 /host/shared/a /mnt/x rw - ext4 /dev/sda1 rw\n";
        let inputs = |source: &str| -> Inputs {
            let with = json!({"source": source, "path": "/mnt/x", "fstype": "none", "options": "rw,bind"});
            serde_json::from_value(with).unwrap()
        };
        let is = find(info, "/mnt/x").unwrap();
        assert!(is_wanted(info, &is, &inputs("/shared/a")) && is_wanted(info, &is, &inputs("/host/shared/a/")));
        assert!(!is_wanted(info, &is, &inputs("/shared")));
        // The whole of a file system, and another one that is called the same.
        let info = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:50 / /shared rw - tmpfs tmpfs rw\n\
                    3 1 0:51 / /other rw - tmpfs tmpfs rw\n4 1 0:50 / /mnt/x rw - tmpfs tmpfs rw\n";
        let is = find(info, "/mnt/x").unwrap();
        assert!(is_wanted(info, &is, &inputs("/shared")) && !is_wanted(info, &is, &inputs("/other")));
    }

    #[test]
    fn the_table_has_one_line_for_a_path() {
        let inputs = |options: &str| -> Inputs {
            serde_json::from_value(json!({"source": "nas:/x", "path": "/mnt/x", "fstype": "nfs4", "options": options}))
                .unwrap()
        };
        let line = |old: &str, options: &str| with_line(old, &inputs(options), "/mnt/x").map_err(|e| e.message);
        let old = "# table\n/dev/sda1  /  ext4  defaults 0 1";
        let new = line(old, "rw").unwrap();
        assert_eq!(new, "# table\n/dev/sda1  /  ext4  defaults 0 1\nnas:/x /mnt/x nfs4 rw 0 0\n");
        assert_eq!(line(&new, "rw").unwrap(), new);
        assert_eq!(line(&new, "ro").unwrap(), new.replace(" rw ", " ro "));
        assert!(
            line(&format!("{new}{}", &new[new.len() - 27..]), "ro").unwrap_err().contains("2 lines are for /mnt/x")
        );
    }

    /// Not a real mount: that one is in the suite that has root.
    #[tokio::test]
    async fn mounts_and_undoes() {
        let mut lab = Lab::new();
        let dir = lab.path("");
        lab.put("fstab", "# none\n");
        lab.put("bin/cat", format!("#!/bin/sh\nexec /bin/cat {dir}/info 2>/dev/null\n"));
        lab.put("bin/mount", format!("#!/bin/sh\necho \"1 1 0:1 / $6 rw - $2 $5 rw\" >>{dir}/info\n"));
        lab.put("bin/umount", format!("#!/bin/sh\n: >{dir}/info\n"));
        lab.put("info", "");
        for name in ["bin/cat", "bin/mount", "bin/umount"] {
            lab.set_mode(name, 0o755);
        }
        lab.env.insert("PATH".to_owned(), format!("{}:{}", lab.path("bin"), std::env::var("PATH").unwrap()));
        let before = lab.snapshot();
        let with = json!({"source": "nas:/x", "path": "mnt/x", "fstype": "nfs4", "fstab": "fstab"});
        let ran = lab.run(&MountPresent, &with).await.unwrap();
        assert!(lab.text("fstab").ends_with("mnt/x nfs4 defaults 0 0\n"), "{}", lab.text("fstab"));
        assert_eq!(ran.outputs["source"], "nas:/x");
        assert!(!lab.run(&MountPresent, &with).await.unwrap().changed);
        lab.undo(&MountPresent, &with, &ran).await.unwrap();
        assert_eq!(lab.snapshot(), before);
        lab.put("info", format!("1 1 0:1 / {} rw - ext4 /dev/sdb rw\n", lab.path("mnt/x")));
        assert_eq!(lab.capture(&MountPresent, &with).await.unwrap_err().class, Class::Conflict);
    }
}
