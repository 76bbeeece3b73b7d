//! What `virt.v2v` is given, and the words of the command line that follow from it. Looks at nothing.

use std::collections::BTreeMap;

use runback_core::step::{Cx, InputProblem};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::file::paths;
use crate::http::look::problem;
use crate::virt::virsh::{Connection, name_problems, system};

/// Where the machine comes from: exactly one of them.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Source {
    /// An OVA file, or the folder of an unpacked one.
    #[serde(default)]
    pub(crate) ova: Option<String>,
    /// A .vmx file, or its place on an ESXi host: `ssh://root@esxi1/vmfs/volumes/datastore1/web1/web1.vmx`.
    #[serde(default)]
    pub(crate) vmx: Option<String>,
    /// A machine that libvirt can see, such as one in vCenter.
    #[serde(default)]
    pub(crate) libvirt: Option<LibvirtSource>,
    /// A disk image without a description.
    #[serde(default)]
    pub(crate) disk: Option<String>,
}

/// A machine in vCenter, on ESXi or Xen, as libvirt sees it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LibvirtSource {
    /// Such as `vpx://root@vcenter/Datacenter/esxi1?no_verify=1`.
    pub(crate) uri: String,
    /// The machine's name there.
    pub(crate) guest: String,
    /// Copy by VMware's VDDK: much faster than over HTTPS.
    #[serde(default)]
    pub(crate) vddk: Option<Vddk>,
}

/// VMware's library for reading disks.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Vddk {
    /// Where the library was unpacked, on the target.
    pub(crate) libdir: String,
    /// SHA-1 fingerprint of the server's certificate.
    pub(crate) thumbprint: String,
    /// More of virt-v2v's `vddk-…` options, without that prefix, such as `transports`.
    #[serde(default)]
    pub(crate) options: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    #[default]
    Qcow2,
    Raw,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Allocation {
    #[default]
    Sparse,
    Preallocated,
}

/// Where the machine goes: `dir` or `pool`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Destination {
    /// A folder on the target. It is made if it is not there.
    #[serde(default)]
    pub(crate) dir: Option<String>,
    /// A libvirt storage pool that is a folder.
    #[serde(default)]
    pub(crate) pool: Option<String>,
    /// Of the disk images.
    #[serde(default)]
    pub(crate) format: Format,
    /// Whether the images take all their space at once.
    #[serde(default)]
    pub(crate) allocation: Allocation,
}

/// What a network card is connected to afterwards: one of them.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Connected {
    /// A bridge of the host.
    #[serde(default)]
    pub(crate) bridge: Option<String>,
    /// A libvirt network.
    #[serde(default)]
    pub(crate) network: Option<String>,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Inputs {
    /// The machine: `ova`, `vmx`, `libvirt` or `disk`.
    pub(crate) input: Source,
    /// Where its disks and its definition go.
    pub(crate) output: Destination,
    /// Its name afterwards. Default: as in the OVA or vCenter, else the file's.
    #[serde(default)]
    pub(crate) name: Option<String>,
    /// Name of a network at the source → bridge of the host. `*` stands for all that are not named.
    #[serde(default)]
    pub(crate) bridges: BTreeMap<String, String>,
    /// Name of a network at the source → libvirt network. `*` stands for all that are not named.
    #[serde(default)]
    pub(crate) networks: BTreeMap<String, String>,
    /// Address of a network card → `{ bridge: … }` or `{ network: … }`. It goes before the other two.
    #[serde(default)]
    pub(crate) mac: BTreeMap<String, Connected>,
    /// Which system of several on the disks: `first` or a device such as `/dev/sda2`.
    #[serde(default)]
    pub(crate) root: Option<String>,
    /// The password of the source (`vmx` by ssh, `libvirt`). Give a secret: it reaches virt-v2v by a file.
    #[serde(default)]
    pub(crate) password: Option<String>,
    /// Where temporary files go, on the target: at least 1 GiB, and room for a compressed OVA unpacked. Keep it short.
    #[serde(default = "var_tmp")]
    pub(crate) tmp: String,
    /// The libvirt connection that is asked about names, networks and pools. Empty: nobody is asked.
    #[serde(default = "system")]
    pub(crate) uri: String,
}

fn var_tmp() -> String {
    "/var/tmp".to_owned()
}

impl Source {
    /// Which one it is, with its main word: (`ova`, path).
    pub(crate) fn chosen(&self) -> Vec<(&'static str, &str)> {
        let all = [
            ("ova", self.ova.as_deref()),
            ("vmx", self.vmx.as_deref()),
            ("libvirt", self.libvirt.as_ref().map(|l| l.guest.as_str())),
            ("disk", self.disk.as_deref()),
        ];
        all.into_iter().filter_map(|(kind, word)| word.map(|w| (kind, w))).collect()
    }

    /// The words that name the source, as both the check and the conversion give them.
    pub(crate) fn words(&self, cx: &Cx<'_>, password_file: Option<&str>) -> Vec<String> {
        let mut words: Vec<String> = Vec::new();
        let mut add = |more: &[&str]| words.extend(more.iter().map(|w| (*w).to_owned()));
        if let Some(ova) = &self.ova {
            add(&["-i", "ova", &cx.path(ova)]);
        } else if let Some(vmx) = &self.vmx {
            if vmx.starts_with("ssh://") {
                add(&["-i", "vmx", "-it", "ssh", vmx]);
            } else {
                add(&["-i", "vmx", &cx.path(vmx)]);
            }
        } else if let Some(libvirt) = &self.libvirt {
            add(&["-i", "libvirt", "-ic", &libvirt.uri]);
            if let Some(vddk) = &libvirt.vddk {
                let libdir = format!("vddk-libdir={}", vddk.libdir);
                let thumbprint = format!("vddk-thumbprint={}", vddk.thumbprint);
                add(&["-it", "vddk", "-io", &libdir, "-io", &thumbprint]);
                for (key, value) in &vddk.options {
                    add(&["-io", &format!("vddk-{key}={value}")]);
                }
            }
            add(&[&libvirt.guest]);
        } else if let Some(disk) = &self.disk {
            add(&["-i", "disk", &cx.path(disk)]);
        }
        if let Some(file) = password_file {
            add(&["-ip", file]);
        }
        words
    }
}

impl Inputs {
    pub(crate) fn connection(&self) -> Option<Connection> {
        (!self.uri.is_empty()).then(|| Connection { uri: self.uri.clone() })
    }

    pub(crate) fn problems(&self) -> Vec<InputProblem> {
        let mut found = Vec::new();
        if self.input.chosen().len() != 1 {
            found.push(problem(&["input"], "give one of `ova`, `vmx`, `libvirt` and `disk`".to_owned()));
        }
        for (kind, word) in self.input.chosen() {
            if word.is_empty() || word.starts_with('-') {
                found.push(problem(&["input", kind], "must be a name or path, and not begin with a dash".to_owned()));
            }
        }
        match (&self.output.dir, &self.output.pool) {
            (Some(dir), None) => found.extend(paths::problems("dir", dir).map(|p| {
                let path = ["output".to_owned()].into_iter().chain(p.path.clone()).collect();
                InputProblem { path, ..p }
            })),
            (None, Some(_)) if self.uri.is_empty() => {
                found.push(problem(&["uri"], "a pool is known to libvirt only: it needs a `uri`".to_owned()));
            }
            (None, Some(_)) => {}
            _ => found.push(problem(&["output"], "give `dir` or `pool`".to_owned())),
        }
        if let Some(name) = &self.name {
            found.extend(name_problems("name", name));
        }
        for source in self.networks.keys().filter(|n| self.bridges.contains_key(*n)) {
            found.push(problem(&["networks", source], "is among the `bridges` too".to_owned()));
        }
        for (mac, to) in &self.mac {
            if to.bridge.is_some() == to.network.is_some() {
                found.push(problem(&["mac", mac], "give `bridge` or `network`".to_owned()));
            }
        }
        if let Some(connection) = self.connection() {
            found.extend(connection.problems());
        }
        if !self.tmp.starts_with('/') || self.tmp.len() > 60 {
            let mut wrong = problem(&["tmp"], "must be an absolute path of at most 60 bytes".to_owned());
            wrong.help = Some("sockets lie in it, and their paths may have 107 bytes".to_owned());
            found.push(wrong);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Lab;
    use serde_json::{Value, json};

    fn inputs(more: &Value) -> Inputs {
        let mut all = json!({"input": {"ova": "/w.ova"}, "output": {"dir": "/images"}});
        for (key, value) in more.as_object().into_iter().flatten() {
            all[key] = value.clone();
        }
        serde_json::from_value(all).expect("inputs")
    }

    #[tokio::test]
    async fn each_kind_of_source_has_its_words() {
        let lab = Lab::new();
        let words =
            |input: &Value, password| inputs(&json!({"input": input})).input.words(&lab.cx(), password).join(" ");
        assert_eq!(words(&json!({"ova": "/w.ova"}), None), "-i ova /w.ova");
        assert_eq!(words(&json!({"disk": "/w.vmdk"}), None), "-i disk /w.vmdk");
        assert_eq!(words(&json!({"vmx": "/w.vmx"}), None), "-i vmx /w.vmx");
        let far = json!({"vmx": "ssh://root@esxi1/vmfs/w.vmx"});
        assert_eq!(words(&far, Some("/t/password")), "-i vmx -it ssh ssh://root@esxi1/vmfs/w.vmx -ip /t/password");
        let vddk = json!({"libdir": "/opt/vddk", "thumbprint": "AA:BB", "options": {"transports": "nbdssl"}});
        let vcenter = json!({"libvirt": {"uri": "vpx://root@vc/dc/esxi1", "guest": "w", "vddk": vddk}});
        assert_eq!(
            words(&vcenter, None),
            "-i libvirt -ic vpx://root@vc/dc/esxi1 -it vddk -io vddk-libdir=/opt/vddk -io vddk-thumbprint=AA:BB \
             -io vddk-transports=nbdssl w"
        );
    }

    #[test]
    fn bad_inputs_are_named() {
        let paths =
            |more: Value| -> Vec<String> { inputs(&more).problems().into_iter().map(|p| p.path.join(".")).collect() };
        assert!(paths(json!({})).is_empty());
        assert_eq!(paths(json!({"input": {}})), ["input"]);
        assert_eq!(paths(json!({"input": {"ova": "/a", "disk": "/b"}})), ["input"]);
        assert_eq!(paths(json!({"input": {"ova": "--help"}})), ["input.ova"]);
        assert_eq!(paths(json!({"output": {}})), ["output"]);
        assert_eq!(paths(json!({"output": {"dir": "~/x"}})), ["output.dir"]);
        assert_eq!(paths(json!({"output": {"pool": "p"}, "uri": ""})), ["uri"]);
        assert_eq!(paths(json!({"bridges": {"a": "br0"}, "networks": {"a": "lan"}})), ["networks.a"]);
        assert_eq!(paths(json!({"mac": {"00:11": {}}})), ["mac.00:11"]);
        assert_eq!(paths(json!({"tmp": "tmp", "name": "-x"})), ["name", "tmp"]);
    }
}
