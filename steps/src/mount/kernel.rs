//! What the kernel has mounted, by /proc/self/mountinfo, and whether that is what the inputs ask for. Changes nothing.

use runback_core::step::{Class, Cx, StepError};
use runback_core::target::Command;
use serde::{Deserialize, Serialize};

use super::Inputs;
use super::table::unescape;

/// What mountinfo of a machine with very many mounts may have, in bytes.
const MUCH: usize = 16 << 20;

/// One line of mountinfo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mounted {
    /// The kernel's number of the device, which also tells two file systems without one apart.
    pub(super) device: String,
    pub(super) root: String,
    pub(super) source: String,
    pub(super) fstype: String,
    pub(super) options: String,
}

impl Mounted {
    /// Its options may be others: somebody remounted it.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (&self.device, &self.root, &self.source) == (&other.device, &other.root, &other.source)
    }
}

/// What is mounted at a path: the last line for it, as that hides the others.
pub(super) fn find(mountinfo: &str, path: &str) -> Option<Mounted> {
    let line = mountinfo.lines().rev().find(|l| l.split(' ').nth(4).is_some_and(|p| unescape(p) == path))?;
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(2);
    let mut right = right.split(' ');
    let device = left.next()?.to_owned();
    let root = unescape(left.next()?);
    let options = left.nth(1)?.to_owned();
    Some(Mounted { device, root, options, fstype: right.next()?.to_owned(), source: unescape(right.next()?) })
}

pub(super) async fn mountinfo(cx: &Cx<'_>) -> Result<String, StepError> {
    let command = Command::query(["cat", "/proc/self/mountinfo"]).keep_stdout(MUCH);
    let exit = cx.query(command.clone()).await?;
    if exit.stdout_cut {
        return Err(StepError::permanent("/proc/self/mountinfo is larger than 16 MiB")
            .help("the target has very many mounts; unmount what is not needed"));
    }
    if exit.ok() { Ok(exit.stdout_text()) } else { Err(StepError::from_exit(Class::Permanent, &command, &exit)) }
}

/// The one name of a place, as the kernel has it: from `/` on, without links. What is not there has one too.
pub(super) async fn resolved(cx: &Cx<'_>, path: &str) -> Result<String, StepError> {
    let mut there = path.trim_end_matches('/');
    let mut rest = Vec::new();
    while !there.is_empty() && cx.target.stat(there).await?.is_none() {
        let (above, name) = there.rsplit_once('/').unwrap_or(("", there));
        rest.push(name);
        there = above.trim_end_matches('/');
    }
    let start = if path.starts_with('/') { "/" } else { "." };
    let command = Command::query(["readlink", "-f", "--", if there.is_empty() { start } else { there }]);
    let exit = cx.query(command.clone()).await?;
    let text = exit.stdout_text();
    let Some(found) = text.strip_suffix('\n').filter(|found| exit.ok() && found.starts_with('/')) else {
        let error = StepError::from_exit(Class::Permanent, &command, &exit);
        return Err(StepError { message: format!("{path}: cannot be followed: {}", error.message), ..error }
            .help("a link in it leads nowhere, or to itself"));
    };
    let mut parts: Vec<&str> = found.split('/').filter(|part| !part.is_empty()).collect();
    for part in rest.into_iter().rev() {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    Ok(format!("/{}", parts.join("/")))
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

/// The folder is what is mounted there.
pub(super) fn is_bind_of(info: &str, is: &Mounted, folder: &str) -> bool {
    lies_at(info, folder) == Some((is.device.clone(), is.root.clone()))
}

/// What a path leads to.
#[derive(Debug, PartialEq, Eq)]
enum Node {
    /// A block device's number, as mountinfo writes it.
    Device(String),
    File,
    Other,
}

/// None = it is not there, or cannot be looked at.
async fn node(cx: &Cx<'_>, path: &str) -> Result<Option<Node>, StepError> {
    // Mode, and major and minor number, in hex.
    let exit = cx.query(Command::query(["stat", "-L", "-c", "%f %t %T", "--", path])).await?;
    let text = exit.stdout_text();
    let numbers: Vec<u32> = text.split_whitespace().filter_map(|n| u32::from_str_radix(n, 16).ok()).collect();
    Ok(match numbers[..] {
        [mode, major, minor] if exit.ok() => Some(match mode & 0o170_000 {
            0o060_000 => Node::Device(format!("{major}:{minor}")),
            0o100_000 => Node::File,
            _ => Node::Other,
        }),
        _ => None,
    })
}

/// The file or device is what is mounted there, whatever the kernel calls it. Some file systems have a number of their own,
/// and their source tells the device.
async fn is_of_device(cx: &Cx<'_>, is: &Mounted, source: &str) -> Result<bool, StepError> {
    let mut numbers = vec![is.device.clone()];
    if is.source.starts_with('/')
        && let Some(Node::Device(number)) = node(cx, &is.source).await?
    {
        numbers.push(number);
    }
    match node(cx, source).await? {
        Some(Node::Device(number)) => Ok(numbers.contains(&number)),
        Some(Node::File) => {
            let file = resolved(cx, source).await?;
            for number in numbers {
                let backing = format!("/sys/dev/block/{number}/loop/backing_file");
                let exit = cx.query(Command::query(["cat", &backing])).await?;
                if exit.ok() && exit.stdout_text().strip_suffix('\n') == Some(&file) {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Some(Node::Other) | None => Ok(false),
    }
}

/// It is what the inputs ask for, as far as the kernel tells: it names the device behind a label and behind a bind.
pub(super) async fn is_wanted(cx: &Cx<'_>, info: &str, is: &Mounted, inputs: &Inputs) -> Result<bool, StepError> {
    if inputs.options.split(',').any(|o| o == "bind" || o == "rbind") {
        return Ok(is_bind_of(info, is, &resolved(cx, &inputs.source).await?));
    }
    if is.fstype != inputs.fstype && !is.fstype.starts_with(&inputs.fstype) && inputs.fstype != "auto" {
        return Ok(false);
    }
    let tag = inputs.source.contains('=') && !inputs.source.starts_with('/');
    if tag || is.source == inputs.source {
        return Ok(true);
    }
    if inputs.source.starts_with('/') { is_of_device(cx, is, &inputs.source).await } else { Ok(false) }
}
