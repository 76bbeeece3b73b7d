//! What can be known of a machine before it is converted: its name, disks and networks, from the OVF of an OVA or from
//! the image. Reads on the target, changes nothing.

use std::time::Duration;

use roxmltree::Document;
use runback_core::Json;
use runback_core::step::{Cx, StepError};
use runback_core::target::{Command, FileKind};

use super::inputs::Source;
use crate::file::paths;

/// Larger descriptions are none.
const MAX_OVF: u64 = 4 << 20;
/// A packed OVA has to be unpacked to find its description; that is not waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is known of a machine. Sizes in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) name: Option<String>,
    /// Virtual sizes of its disks; None = not known.
    pub(crate) disks: Option<Vec<u64>>,
    /// Names of the networks that its cards are on.
    pub(crate) networks: Vec<String>,
    pub(crate) windows: bool,
    /// Its disks must be unpacked into the temporary folder first.
    pub(crate) packed: bool,
    /// The OVA has no manifest, so that nothing would notice a damaged disk.
    pub(crate) no_manifest: bool,
}

impl Known {
    /// None = not known.
    pub(crate) fn size(&self) -> Option<u64> {
        self.disks.as_ref().map(|all| all.iter().fold(0_u64, |sum, one| sum.saturating_add(*one)))
    }
}

pub(crate) async fn look(cx: &Cx<'_>, source: &Source) -> Result<Known, StepError> {
    if let Some(ova) = &source.ova {
        return look_at_ova(cx, &cx.path(ova)).await;
    }
    if let Some(disk) = &source.disk {
        let path = cx.path(disk);
        let size = virtual_size(cx, &path).await?;
        return Ok(Known { name: Some(stem(&path)), disks: Some(vec![size]), ..Known::default() });
    }
    if let Some(libvirt) = &source.libvirt {
        return Ok(Known { name: Some(libvirt.guest.clone()), ..Known::default() });
    }
    Ok(Known { name: source.vmx.as_deref().map(stem), ..Known::default() })
}

fn is_a(name: &str, extension: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, e)| e.eq_ignore_ascii_case(extension))
}

/// The file's name without its extension.
fn stem(path: &str) -> String {
    let name = paths::name(path);
    name.rsplit_once('.').map_or(name, |(stem, _)| stem).to_owned()
}

async fn virtual_size(cx: &Cx<'_>, path: &str) -> Result<u64, StepError> {
    Ok(image(cx, path).await?.0)
}

/// Virtual size and format of an image.
pub(crate) async fn image(cx: &Cx<'_>, path: &str) -> Result<(u64, String), StepError> {
    let command = Command::query(["qemu-img", "info", "--output", "json", path]).env("LC_ALL", "C");
    let exit = cx.query(command.clone()).await?;
    if !exit.ok() {
        return Err(StepError::from_exit(runback_core::step::Class::Permanent, &command, &exit));
    }
    let told: Json = serde_json::from_slice(&exit.stdout).unwrap_or_default();
    match (told["virtual-size"].as_u64(), told["format"].as_str()) {
        (Some(size), Some(format)) => Ok((size, format.to_owned())),
        _ => Err(StepError::permanent(format!("{path}: qemu-img does not tell its size"))),
    }
}

async fn look_at_ova(cx: &Cx<'_>, path: &str) -> Result<Known, StepError> {
    let stat = cx.target.stat(path).await?;
    let stat = stat.ok_or_else(|| {
        StepError::permanent(format!("{path} is not there"))
            .help("export the machine as an OVA, and bring it to the target")
    })?;
    if stat.kind == FileKind::Dir {
        let names = cx.target.list(path).await?;
        let ovf = names.iter().find(|n| is_a(n, "ovf"));
        let ovf = ovf.ok_or_else(|| StepError::permanent(format!("{path}: there is no .ovf file in that folder")))?;
        let text = cx.target.read(&format!("{path}/{ovf}"), MAX_OVF).await?;
        let known = read(&String::from_utf8_lossy(&text)).map_err(|e| wrong(path, &e))?;
        return Ok(Known { no_manifest: !names.iter().any(|n| is_a(n, "mf")), ..known });
    }
    let packed = is_packed(cx, path).await?;
    let tar = |words: &[&str]| {
        let words = ["tar"].into_iter().chain(words.iter().copied());
        Command::query(words).env("LC_ALL", "C").timeout(PATIENCE)
    };
    let unknown = Known { packed, ..Known::default() };
    let listed = match cx.query(tar(&["-tf", path])).await {
        Ok(exit) if exit.ok() => exit.stdout_text(),
        // A zip, or too large to look into at once: the conversion will tell.
        Ok(_) if packed => return Ok(unknown),
        Ok(exit) => return Err(wrong(path, &format!("it is no OVA: {}", exit.stderr_text().trim()))),
        Err(e) if e.class == runback_core::step::Class::Timeout => return Ok(unknown),
        Err(e) => return Err(e),
    };
    let Some(ovf) = listed.lines().find(|n| is_a(n, "ovf")) else {
        return Err(wrong(path, "there is no .ovf file in it"));
    };
    let exit = cx.query(tar(&["-xOf", path, "--", ovf])).await?;
    let known = read(&exit.stdout_text()).map_err(|e| wrong(path, &e))?;
    let no_manifest = !listed.lines().any(|n| is_a(n, "mf"));
    Ok(Known { packed: packed || known.packed, no_manifest, ..known })
}

fn wrong(path: &str, why: &str) -> StepError {
    StepError::permanent(format!("{path}: {why}")).help("was the export complete? Export the machine again")
}

/// Whether the OVA as a whole is compressed, by its first bytes.
async fn is_packed(cx: &Cx<'_>, path: &str) -> Result<bool, StepError> {
    let command = Command::query(["od", "-An", "-tx1", "-N4", path]).timeout(PATIENCE);
    let exit = cx.query(command).await?;
    let bytes: String = exit.stdout_text().split_whitespace().collect();
    Ok(["1f8b", "fd377a58", "504b0304", "425a68"].iter().any(|magic| bytes.starts_with(magic)))
}

/// Reads a description. Namespaces differ between vendors; local names do not.
fn read(text: &str) -> Result<Known, String> {
    let document =
        Document::parse(text.trim_start_matches('\u{feff}')).map_err(|e| format!("its .ovf cannot be read: {e}"))?;
    let all = |name: &'static str| document.descendants().filter(move |n| n.tag_name().name() == name);
    let attribute = |node: roxmltree::Node<'_, '_>, name: &str| {
        node.attributes().find(|a| a.name() == name).map(|a| a.value().to_owned())
    };
    let system = all("VirtualSystem").next();
    let name = system.and_then(|s| s.children().find(|c| c.tag_name().name() == "Name")).and_then(|n| n.text());
    let mut disks = Vec::new();
    for disk in all("Disk") {
        let capacity = attribute(disk, "capacity").and_then(|c| c.parse::<u64>().ok());
        let unit = attribute(disk, "capacityAllocationUnits").map_or(Some(1), |unit| unit_of(&unit));
        match (capacity, unit) {
            (Some(capacity), Some(unit)) => disks.push(capacity.saturating_mul(unit)),
            _ => return Err("the capacity of a disk in its .ovf cannot be read".to_owned()),
        }
    }
    let mut networks: Vec<String> = all("Item")
        .flat_map(|item| item.children().filter(|c| c.tag_name().name() == "Connection"))
        .filter_map(|c| c.text().map(|t| t.trim().to_owned()))
        .collect();
    networks.dedup();
    let os = all("OperatingSystemSection").next();
    let windows = os.and_then(|os| attribute(os, "osType")).is_some_and(|t| t.to_lowercase().starts_with("win"));
    let packed = all("File").any(|f| {
        attribute(f, "compression").is_some_and(|c| c == "gzip") || attribute(f, "href").is_some_and(|h| is_a(&h, "gz"))
    });
    Ok(Known {
        name: name.map(|n| n.trim().to_owned()),
        disks: Some(disks),
        networks,
        windows,
        packed,
        no_manifest: false,
    })
}

/// `byte * 2^20` and `byte`, as the standard writes units; `MegaBytes` as old exports do.
fn unit_of(unit: &str) -> Option<u64> {
    let plain: String = unit.to_lowercase().chars().filter(|c| !c.is_whitespace()).collect();
    match plain.as_str() {
        "byte" | "bytes" => Some(1),
        "kilobytes" => Some(1 << 10),
        "megabytes" => Some(1 << 20),
        "gigabytes" => Some(1 << 30),
        other => {
            let power: u32 = other.strip_prefix("byte*2^")?.parse().ok()?;
            1_u64.checked_shl(power)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OVF: &str = include_str!("../recorded/guest.ovf");

    #[test]
    fn a_description_is_read() {
        let known = read(OVF).expect("it is whole");
        assert_eq!(known.name.as_deref(), Some("guest1"));
        assert_eq!(known.size(), Some(456 << 20));
        assert_eq!(known.networks, ["VM Network"]);
        assert!(!known.windows && !known.packed);
        let windows = read(&OVF.replace("debian12_64Guest", "windows2019srv_64Guest")).expect("it is whole");
        assert!(windows.windows);
        let packed = read(&OVF.replace("guest1-disk1.vmdk\"", "guest1-disk1.vmdk.gz\"")).expect("it is whole");
        assert!(packed.packed);
        assert!(read("<Envelope").expect_err("broken").contains("cannot be read"));
        assert!(read(&OVF.replace("capacity=\"456\"", "capacity=\"?\"")).is_err());
    }

    #[test]
    fn units() {
        assert_eq!(unit_of("byte * 2^30"), Some(1 << 30));
        assert_eq!(unit_of("MegaBytes"), Some(1 << 20));
        assert_eq!(unit_of("furlong"), None);
        assert_eq!(unit_of("byte * 2^99"), None);
    }
}
