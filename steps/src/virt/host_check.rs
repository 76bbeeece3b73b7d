//! `virt.host_check`: a machine can run virtual machines, really.
//!
//! **Looks at** the CPU's flags (`vmx`, `svm`), whether KVM works (it starts an empty QEMU on it: that `/dev/kvm` is there
//! says little, since nested virtualisation may be off), whether libvirtd answers, the modules that guests like
//! (`vhost_net`, `vhost_vsock`), and free space under `path`. All that is wrong is told at once.
//!
//! **Fails** where something of `require` is missing. The rest is in the outputs.
//!
//! **Does not** change anything.

use std::time::Duration;

use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, Probe, StepError, StepType, UndoKind,
};
use runback_core::target::{Command, Stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::errors::{Why, why};
use super::v2v::{existing, size};
use super::virsh::libvirt_inputs;
use crate::file::paths;

/// QEMU answers at once or never.
const ANSWER: Duration = Duration::from_secs(20);
const QEMU: &str = "qemu-system-x86_64";
/// It ends by itself, so nothing stays behind where KVM works.
const QUIT: &str = "{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"quit\"}\n";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Need {
    /// The CPU can do it.
    CpuFlags,
    /// KVM works.
    Kvm,
    /// libvirtd answers.
    Libvirtd,
    /// The module `vhost_net` is loaded.
    VhostNet,
}

libvirt_inputs! {
    /// What must be so, and which libvirtd.
    {
        /// What must be there. Default: `kvm` and `libvirtd`.
        #[serde(default = "kvm_and_libvirtd")]
        require: Vec<Need>,
        /// Where disks are to lie.
        #[serde(default = "images")]
        path: String,
        /// So many GiB must be free there.
        #[serde(default)]
        free_gib: u64,
    }
}

fn kvm_and_libvirtd() -> Vec<Need> {
    vec![Need::Kvm, Need::Libvirtd]
}

fn images() -> String {
    "/var/lib/libvirt/images".to_owned()
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// `vmx`, `svm`, or null where the CPU has neither (or the firmware hides it).
    pub(crate) cpu_flag: Option<String>,
    /// Whether KVM works.
    pub(crate) kvm: bool,
    /// Why it does not; null where it does.
    pub(crate) kvm_error: Option<String>,
    /// libvirt's version; null where it does not answer.
    pub(crate) libvirt: Option<String>,
    /// Modules that are loaded, of those that guests like.
    pub(crate) modules: Vec<String>,
    /// Free bytes under `path`, or the nearest folder above it.
    pub(crate) free: u64,
}

/// The step type `virt.host_check`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VirtHostCheck;

async fn told(cx: &Cx<'_>, words: &[&str]) -> Result<String, StepError> {
    Ok(cx.query(Command::query(words.iter().copied()).timeout(ANSWER)).await?.stdout_text())
}

/// None = it works.
async fn kvm_error(cx: &Cx<'_>) -> Result<Option<String>, StepError> {
    if cx.target.stat("/dev/kvm").await?.is_none() {
        return Ok(Some("there is no /dev/kvm".to_owned()));
    }
    let words = [QEMU, "-machine", "none,accel=kvm", "-display", "none", "-nodefaults", "-qmp", "stdio"];
    let command = Command::query(words).env("LC_ALL", "C").stdin(QUIT).timeout(ANSWER);
    match cx.query(command).await {
        Ok(exit) if exit.ok() => Ok(None),
        Ok(exit) => {
            let stderr = exit.stderr_text();
            let said = stderr.lines().find(|l| !l.trim().is_empty()).map(|l| l.trim().to_owned());
            Ok(Some(said.unwrap_or_else(|| exit.describe())))
        }
        Err(e) if e.class == runback_core::step::Class::Cancelled => Err(e),
        Err(e) => Ok(Some(e.message)),
    }
}

async fn look(cx: &Cx<'_>, inputs: &Inputs) -> Result<Outputs, StepError> {
    let cpu = told(cx, &["grep", "-m1", "-E", "^flags", "/proc/cpuinfo"]).await?;
    let cpu_flag = ["vmx", "svm"].into_iter().find(|f| cpu.split_whitespace().any(|w| w == *f)).map(str::to_owned);
    let kvm_error = kvm_error(cx).await?;
    let loaded = told(cx, &["cut", "-d ", "-f1", "/proc/modules"]).await?;
    let modules = ["kvm", "kvm_intel", "kvm_amd", "vhost_net", "vhost_vsock", "tun", "bridge"];
    let modules = modules.into_iter().filter(|m| loaded.lines().any(|l| l == *m)).map(str::to_owned).collect();
    let connection = inputs.connection();
    let libvirt = match connection.asked(cx, &["version"], "libvirtd").await {
        Ok(exit) if exit.ok() => {
            let text = exit.stdout_text();
            let line = text.lines().find_map(|l| l.split_once("Using API:").or_else(|| l.split_once("Using library:")));
            Some(line.map_or_else(String::new, |(_, version)| version.trim().to_owned()))
        }
        Ok(exit) if why(&exit) == Why::Denied => {
            return Err(super::errors::of_exit(&connection.command(&["version"]), &exit, "libvirtd", &connection));
        }
        Err(e) if e.class == runback_core::step::Class::Cancelled => return Err(e),
        Ok(_) | Err(_) => None,
    };
    let free = cx.target.free_space(&existing(cx.target, &inputs.path).await?).await?;
    Ok(Outputs { cpu_flag, kvm: kvm_error.is_none(), kvm_error, libvirt, modules, free })
}

/// What is wrong, each with what to do.
fn missing(inputs: &Inputs, seen: &Outputs) -> Vec<(String, &'static str)> {
    let mut found = Vec::new();
    for need in &inputs.require {
        match need {
            Need::CpuFlags if seen.cpu_flag.is_none() => found.push((
                "the CPU shows neither vmx nor svm".to_owned(),
                "switch virtualisation on in the firmware, or nested virtualisation for this machine",
            )),
            Need::Kvm if !seen.kvm => found.push((
                format!("KVM does not work: {}", seen.kvm_error.as_deref().unwrap_or("unknown")),
                "modprobe kvm_intel or kvm_amd; in a virtual machine, its host must allow nested virtualisation",
            )),
            Need::Libvirtd if seen.libvirt.is_none() => found.push((
                format!("libvirtd does not answer at {}", inputs.uri),
                "apt-get install libvirt-daemon-system libvirt-clients, systemctl enable --now libvirtd",
            )),
            Need::VhostNet if !seen.modules.iter().any(|m| m == "vhost_net") => {
                found.push(("the module vhost_net is not loaded".to_owned(), "modprobe vhost_net"));
            }
            _ => {}
        }
    }
    if seen.free < inputs.free_gib.saturating_mul(1 << 30) {
        found.push((
            format!("{} has {} free, and {} GiB are wanted", inputs.path, size(seen.free), inputs.free_gib),
            "make room, or put the pool elsewhere",
        ));
    }
    found
}

fn refusal(cx: &Cx<'_>, missing: &[(String, &'static str)]) -> StepError {
    let what: Vec<_> = missing.iter().map(|(what, _)| what.as_str()).collect();
    let help: Vec<_> = missing.iter().map(|(_, help)| *help).collect();
    StepError::permanent(format!("{}: {}", cx.target.name(), what.join("; "))).help(help.join("; "))
}

#[async_trait::async_trait]
impl StepType for VirtHostCheck {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = ();

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "virt.host_check",
            doc: "Checks that a machine can run virtual machines.",
            access: Access::Reads,
            undo: UndoKind::None,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Small,
            examples: &[
                "- id: host\n  uses: virt.host_check\n  with: { require: [cpu-flags, kvm, libvirtd], free_gib: 200 }\n",
                "- id: host\n  uses: virt.host_check\n  with: { require: [] }\n",
            ],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut found = inputs.connection().problems();
        found.extend(paths::problems("path", &inputs.path));
        found
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let missing = missing(inputs, &look(cx, inputs).await?);
        let summary = if missing.is_empty() {
            format!("{} can run virtual machines", cx.target.name())
        } else {
            format!("would refuse: {}", refusal(cx, &missing).message)
        };
        Ok(Preview { changes: Some(false), summary, details: Vec::new() })
    }

    async fn capture(&self, _: &Cx<'_>, _: &Inputs) -> Result<(), StepError> {
        Ok(())
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, (): &()) -> Result<Acted<Outputs>, StepError> {
        let seen = look(cx, inputs).await?;
        let missing = missing(inputs, &seen);
        if !missing.is_empty() {
            return Err(refusal(cx, &missing));
        }
        let line = format!(
            "{}: KVM {}, libvirt {}, {} free\n",
            cx.target.name(),
            seen.kvm_error.as_deref().unwrap_or("works"),
            seen.libvirt.as_deref().unwrap_or("does not answer"),
            size(seen.free)
        );
        cx.host.output(Stream::Stdout, line.as_bytes());
        Ok(Acted::unchanged(seen))
    }

    async fn probe(&self, _: &Cx<'_>, _: &Inputs, (): &()) -> Result<Probe<Outputs>, StepError> {
        Ok(Probe::NotDone)
    }
}
