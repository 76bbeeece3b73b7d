//! Where a conversion works and where its result goes: a folder of its own beside the result, so that nothing is
//! overwritten and everything unfinished can be thrown away; then renamed. Knows nothing of virt-v2v's words.

use std::collections::BTreeMap;

use roxmltree::Document;
use runback_core::step::{Class, Cx, StepError};
use runback_core::target::{Command, FileAttributes, FileKind};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::checks::{self, size};
use super::inputs::{Format, Inputs};
use super::progress::Learned;
use super::source::{self, Known};
use super::{Disk, Outputs};
use crate::file::{parents, paths, sha256_hex};
use crate::virt::virsh::Connection;
use crate::virt::xml::{self, Edits, Interface};

/// What each process of a conversion carries in its environment, so that all of them can be found.
pub(crate) const MARK: &str = "RUNBACK_V2V";
const MAX_XML: u64 = 1 << 20;

/// Ends all processes with a mark: TERM, ten seconds, KILL. Exits with 1 if one is left. It is `exec`ed without the mark.
const SWEEP: &str = r#"m=$1=$2
left() { grep -lszxF -- "$m" /proc/[0-9]*/environ 2>/dev/null | sed 's|^/proc/||; s|/environ$||'; }
n=0
while p=$(left); [ -n "$p" ]; do
  case $n in 0) kill -TERM $p ;; 1[0-4]) kill -KILL $p ;; 15) exit 1 ;; esac 2>/dev/null
  n=$((n + 1))
  sleep 1
done
[ "$n" = 0 ] || echo "$n""#;

/// What undo must know, whatever happens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Capture {
    pub(crate) name: String,
    /// Where the result goes.
    pub(crate) dir: String,
    /// Folders on the way there that are made by this step.
    pub(crate) made: Vec<String>,
    /// Where virt-v2v writes.
    pub(crate) staging: String,
    /// Its TMPDIR.
    pub(crate) tmp: String,
}

/// The same, before it is captured, with what is known of the source.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) dir: String,
    pub(crate) known: Known,
}

/// What was going to be renamed, noted before the first was.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Renaming {
    /// From → to.
    pub(crate) disks: Vec<(String, String)>,
    pub(crate) xml: String,
    /// What only the conversion's own output told.
    #[serde(default)]
    pub(crate) warnings: Vec<String>,
    #[serde(default)]
    pub(crate) seconds: u64,
}

impl Place {
    pub(crate) async fn of(cx: &Cx<'_>, inputs: &Inputs) -> Result<Self, StepError> {
        let known = checks::known(cx, inputs).await?;
        let name = inputs.name.clone().or_else(|| known.name.clone()).ok_or_else(|| {
            StepError::permanent("the source does not tell the machine's name").help("give it one: `name`")
        })?;
        let dir = match (&inputs.output.dir, &inputs.output.pool, inputs.connection()) {
            (Some(dir), ..) => cx.path(dir.trim_end_matches('/')),
            (None, Some(pool), Some(connection)) => pool_path(cx, &connection, pool).await?,
            _ => return Err(StepError::permanent("no place was given for the result")),
        };
        if !dir.starts_with('/') {
            return Err(StepError::permanent(format!("{dir} is not an absolute path"))
                .help("libvirt knows disks by their absolute paths: write `dir` from `/` on"));
        }
        Ok(Self { name, dir, known })
    }

    /// What is there already under the names that virt-v2v would use.
    pub(crate) async fn taken(&self, cx: &Cx<'_>) -> Result<Vec<String>, StepError> {
        match cx.target.stat(&self.dir).await? {
            None => Ok(Vec::new()),
            Some(stat) if matches!(stat.kind, FileKind::Dir | FileKind::Symlink) => {
                let (disk, xml) = (format!("{}-sd", self.name), format!("{}.xml", self.name));
                let names = cx.target.list(&self.dir).await?;
                let is_disk = |n: &String| {
                    n.strip_prefix(&disk)
                        .is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_ascii_lowercase()))
                };
                Ok(names.into_iter().filter(|n| *n == xml || is_disk(n)).collect())
            }
            Some(_) => Err(StepError::permanent(format!("{} is no folder", self.dir))),
        }
    }

    pub(crate) async fn capture(self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Capture, StepError> {
        let inside = format!("{}/{}", self.dir, self.name);
        let made = parents::missing(cx, &inside).await?;
        let tag = sha256_hex(format!("{} {} {}", cx.run, cx.step, inside).as_bytes());
        let tmp = format!("{}/rbv2v-{}", inputs.tmp.trim_end_matches('/'), &tag[..10]);
        Ok(Capture { staging: paths::beside(cx, &inside, "v2v"), made, tmp, name: self.name, dir: self.dir })
    }
}

/// The folder of a storage pool.
async fn pool_path(cx: &Cx<'_>, connection: &Connection, pool: &str) -> Result<String, StepError> {
    let text = connection.read(cx, &["pool-dumpxml", pool], pool).await?;
    let document = Document::parse(&text).map_err(|e| StepError::permanent(format!("pool {pool}: {e}")))?;
    let root = document.root_element();
    let kind = root.attribute("type").unwrap_or_default();
    let path = document.descendants().find(|n| n.has_tag_name("path")).and_then(|p| p.text());
    match (kind, path) {
        ("dir" | "fs" | "netfs", Some(path)) => Ok(path.trim().trim_end_matches('/').to_owned()),
        _ => Err(StepError::permanent(format!("pool {pool} is of type {kind}, not a folder"))
            .help("convert into a folder (`dir`), and bring the images into the pool yourself")),
    }
}

/// Ends whatever an earlier attempt left running, and removes what it left lying.
pub(crate) async fn clear(cx: &Cx<'_>, capture: &Capture) -> Result<(), StepError> {
    let sweep = Command::query(["sh", "-c", SWEEP, "sh", MARK, &capture.staging]);
    // An attempt that was told to stop can run nothing more; but then the target has ended all that it started.
    let swept = match cx.query(sweep).await {
        Ok(exit) => exit.ok(),
        Err(e) if e.class == Class::Cancelled => true,
        Err(e) => return Err(e),
    };
    if !swept {
        return Err(StepError::permanent(format!("processes of the conversion into {} do not end", capture.staging))
            .help(format!("look for {MARK}={} in /proc/*/environ", capture.staging)));
    }
    cx.target.remove_tree(&capture.staging).await?;
    cx.target.remove_tree(&capture.tmp).await?;
    Ok(())
}

/// Fresh folders for this attempt.
pub(crate) async fn prepare(cx: &Cx<'_>, capture: &Capture) -> Result<(), StepError> {
    clear(cx, capture).await?;
    parents::make(cx, &capture.made).await?;
    for dir in [&capture.tmp, &capture.staging] {
        cx.target.create_dir(dir, Some(0o700)).await?;
    }
    Ok(())
}

pub(crate) fn noted(cx: &Cx<'_>) -> Option<Renaming> {
    let notes = cx.host.notes();
    notes.iter().rev().find_map(|n| n.get("renaming").and_then(|r| Renaming::deserialize(r).ok()))
}

/// Checks what virt-v2v left, gives it its names, and writes the definition that speaks of them. Goes on where an
/// earlier call was cut off.
pub(crate) async fn finish(
    cx: &Cx<'_>,
    inputs: &Inputs,
    capture: &Capture,
    learned: &Learned,
) -> Result<Outputs, StepError> {
    let staged = format!("{}/{}.xml", capture.staging, capture.name);
    if cx.target.stat(&staged).await?.is_none() {
        return match noted(cx) {
            Some(renaming) if cx.target.stat(&renaming.xml).await?.is_some() => made(cx, &renaming).await,
            _ => Err(StepError::permanent(format!("virt-v2v ended well, and wrote no {}.xml", capture.name))
                .help("look at its output: `runback logs`")),
        };
    }
    let text = cx.target.read(&staged, MAX_XML).await?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let wrong = |e: String| StepError::permanent(format!("{staged}: {e}"));
    let seen = xml::look(&text).map_err(wrong)?;
    let earlier: Vec<String> = noted(cx).map_or(Vec::new(), |r| r.disks.into_iter().map(|(_, to)| to).collect());
    let mut renaming = Renaming {
        disks: Vec::new(),
        xml: format!("{}/{}.xml", capture.dir, capture.name),
        warnings: learned.warnings.clone(),
        seconds: learned.seconds(),
    };
    for (from, _) in &seen.disks {
        let to = format!("{}/{}", capture.dir, paths::name(from));
        if cx.target.stat(from).await?.is_some() {
            whole(cx, from, inputs.output.format).await?;
            // One of an earlier attempt of this step is overwritten; a stranger's is not.
            if !earlier.contains(&to) && cx.target.stat(&to).await?.is_some() {
                return Err(StepError::conflict(format!("{to} has appeared since this step began"))
                    .help("somebody else has made it: move it away, or choose another `name`"));
            }
        } else if cx.target.stat(&to).await?.is_none() {
            return Err(StepError::permanent(format!("virt-v2v ended well, and {from} is not there")));
        }
        renaming.disks.push((from.clone(), to));
    }
    cx.host.note(json!({ "renaming": renaming })).await?;
    for (from, to) in &renaming.disks {
        if cx.target.stat(from).await?.is_some() {
            cx.target.rename(from, to).await?;
        }
    }
    let edits = Edits { files: renaming.disks.clone(), mapped: mapping(inputs), ..Edits::default() };
    let definition = xml::edit(&text, &edits).map_err(wrong)?;
    cx.target.write(&renaming.xml, definition.as_bytes(), &FileAttributes::default()).await?;
    refresh(cx, inputs).await?;
    let outputs = made(cx, &renaming).await?;
    // The staging folder goes last: that it is gone says that nothing unfinished is left.
    cx.target.remove_tree(&capture.tmp).await?;
    cx.target.remove_tree(&capture.staging).await?;
    Ok(outputs)
}

async fn refresh(cx: &Cx<'_>, inputs: &Inputs) -> Result<(), StepError> {
    if let (Some(pool), Some(connection)) = (&inputs.output.pool, inputs.connection()) {
        connection.ran(cx, connection.command(&["pool-refresh", pool]), pool).await?;
    }
    Ok(())
}

/// virt-v2v maps the cards of an OVA by --bridge only and those of a .vmx by --network only. In its document both are
/// plain names, so they are mapped there.
fn mapping(inputs: &Inputs) -> BTreeMap<String, Interface> {
    let mut all = BTreeMap::new();
    for (from, to) in &inputs.bridges {
        all.insert(from.clone(), Interface { bridge: Some(to.clone()), ..Interface::default() });
    }
    for (from, to) in &inputs.networks {
        all.insert(from.clone(), Interface { network: Some(to.clone()), ..Interface::default() });
    }
    for (mac, to) in &inputs.mac {
        let to = Interface { bridge: to.bridge.clone(), network: to.network.clone(), ..Interface::default() };
        all.insert(mac.to_lowercase(), to);
    }
    all
}

/// An image that can be read to its end. (A raw one has nothing that could be checked.)
async fn whole(cx: &Cx<'_>, path: &str, format: Format) -> Result<(), StepError> {
    if format == Format::Raw {
        return Ok(());
    }
    let command = Command::query(["qemu-img", "check", "-q", path]).env("LC_ALL", "C");
    let exit = cx.query(command.clone()).await?;
    match exit.code {
        // 3: clusters that nobody uses, which harm nobody.
        Some(0 | 3) => Ok(()),
        _ => Err(StepError {
            message: format!("{path} is damaged"),
            ..StepError::from_exit(Class::Permanent, &command, &exit)
        }),
    }
}

/// What is there under its final names.
async fn made(cx: &Cx<'_>, renaming: &Renaming) -> Result<Outputs, StepError> {
    let text = cx.target.read(&renaming.xml, MAX_XML).await?;
    let xml_text = String::from_utf8_lossy(&text).into_owned();
    let seen = xml::look(&xml_text).map_err(|e| StepError::permanent(format!("{}: {e}", renaming.xml)))?;
    let mut disks = Vec::new();
    for (_, path) in &renaming.disks {
        let (virtual_size, format) = source::image(cx, path).await?;
        disks.push(Disk { path: path.clone(), format, virtual_size });
    }
    Ok(Outputs {
        name: seen.name,
        xml: renaming.xml.clone(),
        xml_text,
        disks,
        firmware: seen.firmware,
        warnings: renaming.warnings.clone(),
        seconds: renaming.seconds,
    })
}

/// Whether the whole of it was there when a process died: final names, and nothing unfinished.
pub(crate) async fn is_made(cx: &Cx<'_>, capture: &Capture) -> Result<Option<Outputs>, StepError> {
    let Some(renaming) = noted(cx) else { return Ok(None) };
    if cx.target.stat(&renaming.xml).await?.is_none() || cx.target.stat(&capture.staging).await?.is_some() {
        return Ok(None);
    }
    made(cx, &renaming).await.map(Some)
}

/// Removes all that the step made. True = there was something.
pub(crate) async fn take_back(cx: &Cx<'_>, inputs: &Inputs, capture: &Capture) -> Result<bool, StepError> {
    let mut changed =
        cx.target.stat(&capture.staging).await?.is_some() || cx.target.stat(&capture.tmp).await?.is_some();
    clear(cx, capture).await?;
    if let Some(renaming) = noted(cx) {
        let mut finals: Vec<&String> = renaming.disks.iter().map(|(_, to)| to).collect();
        unused(cx, inputs, &finals).await?;
        finals.push(&renaming.xml);
        for path in finals {
            if cx.target.stat(path).await?.is_some() {
                cx.target.remove_file(path).await?;
                changed = true;
            }
        }
        if changed {
            refresh(cx, inputs).await?;
        }
    }
    let (removed, _) = parents::unmake(cx, &capture.made).await?;
    Ok(changed || removed)
}

/// No domain has one of these images. They are not compared with what was written: a guest that ran has changed them.
async fn unused(cx: &Cx<'_>, inputs: &Inputs, images: &[&String]) -> Result<(), StepError> {
    let Some(connection) = inputs.connection().filter(|_| !cx.force) else { return Ok(()) };
    let domains = connection.read(cx, &["list", "--all", "--name"], "domains").await?;
    for name in domains.lines().map(str::trim).filter(|n| !n.is_empty()) {
        let exit = connection.asked(cx, &["domblklist", name, "--details"], name).await?;
        let listed = exit.stdout_text();
        let used = images.iter().find(|image| listed.lines().any(|l| l.trim_end().ends_with(&format!(" {image}"))));
        if let Some(image) = used {
            return Err(StepError::conflict(format!("{image} stays: domain {name} has it as a disk"))
                .help("undefine that domain first, or roll back with --force"));
        }
    }
    Ok(())
}

/// A target that ran full: which disk, and how many bytes are missing.
pub(crate) fn ran_full(capture: &Capture, known: &Known, disk: usize, at: Option<u64>, free: u64) -> StepError {
    let letter = u8::try_from(disk.saturating_sub(1)).ok().filter(|n| *n < 26).map_or('?', |n| char::from(b'a' + n));
    let image = format!("{}/{}-sd{letter}", capture.dir, capture.name);
    let of = known.disks.as_ref().and_then(|all| all.get(disk.saturating_sub(1))).copied();
    let rest =
        known.disks.as_ref().map_or(0, |all| all.iter().skip(disk).fold(0_u64, |sum, one| sum.saturating_add(*one)));
    let missing = match (of, at) {
        (Some(of), Some(at)) => format!(
            ": it came to byte {at} of {of}, so that up to {} bytes are missing ({})",
            of.saturating_sub(at).saturating_add(rest),
            size(of.saturating_sub(at).saturating_add(rest))
        ),
        (Some(of), None) => format!(": the disk has {of} bytes ({})", size(of)),
        _ => String::new(),
    };
    StepError::permanent(format!("{} ran full while disk {disk} was copied to {image}{missing}", capture.dir)).help(
        format!(
            "what was copied is removed, which leaves {} free there; make room, then resume or run it again",
            size(free)
        ),
    )
}
