//! `virt.install`: makes a new virtual machine with `virt-install`.
//!
//! **Does.** Makes a disk of `disk_gib` in `pool`, or takes the image `import` as it is; installs from `cdrom` (an ISO) or
//! `location` (a tree, unattended with `extra_args`); connects it to `bridge` or `network`; and returns once libvirt has
//! started it, without waiting for the installation to end (wait for what it installs: `virt.wait`, `tcp.check`).
//! A domain of that name, there already, is a conflict.
//!
//! **Undo** stops and undefines the domain, and removes the disk that was made for it. An imported image stays.
//!
//! **Does not** edit an existing domain: that is `virt.define`.

use runback_core::step::{
    Access, Acted, Class, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, Probe, StepError, StepType,
    UndoKind, Undone,
};
use runback_core::target::{Command, Stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::domain::{self, State};
use super::undefine::Lose;
use super::virsh::{libvirt_inputs, name_problems};
use super::xml;
use crate::http::look::problem;

libvirt_inputs! {
    /// What machine to make, and which libvirtd.
    {
        /// The domain's name.
        name: String,
        /// In MiB.
        memory_mib: u64,
        /// Number of CPUs.
        vcpus: u32,
        /// Size of a new disk, in GiB.
        #[serde(default)]
        disk_gib: Option<u64>,
        /// The pool that the new disk is made in.
        #[serde(default = "default_pool")]
        pool: String,
        /// An image on the target that holds an installed system, instead of a new disk.
        #[serde(default)]
        import: Option<String>,
        /// An ISO on the target to install from.
        #[serde(default)]
        cdrom: Option<String>,
        /// An installation tree, as an URL or path.
        #[serde(default)]
        location: Option<String>,
        /// For the kernel of `location`, such as where its answers are.
        #[serde(default)]
        extra_args: Option<String>,
        /// Connect it to this bridge of the host.
        #[serde(default)]
        bridge: Option<String>,
        /// Connect it to this libvirt network.
        #[serde(default)]
        network: Option<String>,
        /// The guest's system, as `osinfo-query os` names it. Default: virt-install finds out.
        #[serde(default)]
        os_variant: Option<String>,
        /// `none`, or `vnc` and the like.
        #[serde(default = "none")]
        graphics: String,
        /// More of virt-install's own options, one word each.
        #[serde(default)]
        options: Vec<String>,
    }
}

fn default_pool() -> String {
    "default".to_owned()
}

fn none() -> String {
    "none".to_owned()
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// The domain's name.
    pub(crate) domain: String,
    /// Its UUID.
    pub(crate) uuid: String,
    /// How it is now.
    pub(crate) state: State,
    /// Paths of its disks.
    pub(crate) disks: Vec<String>,
}

/// That there was no domain of that name; else the step has refused.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Capture {
    /// Volumes of the pool that were there before.
    volumes: Vec<String>,
    /// That of the domain that is made; null where `options` give another.
    #[serde(default)]
    uuid: Option<String>,
}

impl Capture {
    fn is(&self, uuid: &str) -> bool {
        self.uuid.as_ref().is_none_or(|own| own == uuid)
    }
}

/// The step type `virt.install`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VirtInstall;

/// The name of the disk that is made, so that undo knows it whatever happens.
fn volume(inputs: &Inputs) -> String {
    format!("{}.qcow2", inputs.name)
}

/// It belongs to this step of this run, so that its domain is told from a stranger's of the same name.
fn uuid(cx: &Cx<'_>, inputs: &Inputs) -> Option<String> {
    let given = inputs.options.iter().any(|o| o.starts_with("--uuid"));
    (!given).then(|| xml::uuid_of(&format!("{} of {} {}", inputs.name, cx.run, cx.step)))
}

/// As virt-install reads the value of an option with several: a comma ends it, unless it is quoted.
fn quoted(value: &str) -> String {
    if value.contains([',', '"', '\'', '\\']) {
        format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
    } else {
        value.to_owned()
    }
}

fn command(cx: &Cx<'_>, inputs: &Inputs, uuid: Option<&str>) -> Command {
    let mut argv: Vec<String> =
        ["virt-install", "--connect", &inputs.uri, "--name", &inputs.name].map(str::to_owned).to_vec();
    let mut option = |name: &str, value: String| argv.extend([name.to_owned(), value]);
    option("--memory", inputs.memory_mib.to_string());
    option("--vcpus", inputs.vcpus.to_string());
    match (&inputs.import, inputs.disk_gib) {
        (Some(image), _) => option("--disk", format!("path={}", quoted(&cx.path(image)))),
        (None, Some(gib)) => {
            // By its name, since `pool=…,size=…` alone would make up one.
            let disk = format!("pool={},size={gib},format=qcow2,bus=virtio", inputs.pool);
            option("--disk", disk);
        }
        (None, None) => option("--disk", "none".to_owned()),
    }
    if let Some(iso) = &inputs.cdrom {
        option("--cdrom", cx.path(iso));
    }
    if let Some(location) = &inputs.location {
        option("--location", location.clone());
    }
    if let Some(extra) = &inputs.extra_args {
        option("--extra-args", extra.clone());
    }
    let network = match (&inputs.bridge, &inputs.network) {
        (Some(bridge), _) => format!("bridge={},model=virtio", quoted(bridge)),
        (None, Some(network)) => format!("network={},model=virtio", quoted(network)),
        (None, None) => "none".to_owned(),
    };
    option("--network", network);
    option("--graphics", inputs.graphics.clone());
    // Since virt-install 4.0 a system that it cannot find out is an error, as that of every imported disk is.
    option("--os-variant", inputs.os_variant.clone().unwrap_or_else(|| "detect=on,require=off".to_owned()));
    if inputs.import.is_some() {
        argv.push("--import".to_owned());
    }
    argv.extend(uuid.into_iter().flat_map(|uuid| ["--uuid".to_owned(), uuid.to_owned()]));
    argv.extend(["--noautoconsole".to_owned(), "--wait".to_owned(), "0".to_owned()]);
    argv.extend(inputs.options.iter().cloned());
    Command::new(argv).env("LC_ALL", "C.UTF-8")
}

fn there(name: &str) -> StepError {
    StepError::conflict(format!("there is a domain {name} already"))
        .help("choose another `name`, or undefine that one first")
}

async fn volumes(cx: &Cx<'_>, inputs: &Inputs) -> Result<Vec<String>, StepError> {
    if inputs.disk_gib.is_none() || inputs.import.is_some() {
        return Ok(Vec::new());
    }
    let text = inputs.connection().read(cx, &["vol-list", &inputs.pool], &inputs.pool).await?;
    Ok(text.lines().filter_map(|l| l.split_whitespace().next()).map(str::to_owned).collect())
}

async fn outputs(cx: &Cx<'_>, inputs: &Inputs) -> Result<Option<Outputs>, StepError> {
    let connection = inputs.connection();
    let Some(now) = domain::find(cx, &connection, &inputs.name).await? else { return Ok(None) };
    let kept = domain::definition(cx, &connection, &inputs.name).await?;
    let disks = xml::look(&kept).map(|seen| seen.disks.into_iter().map(|(path, _)| path).collect()).unwrap_or_default();
    Ok(Some(Outputs { domain: now.name, uuid: now.uuid, state: now.state, disks }))
}

#[async_trait::async_trait]
impl StepType for VirtInstall {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = Capture;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "virt.install",
            doc: "Makes a new virtual machine with virt-install.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: OnInterrupt::Probe,
            commands: Commands::Main,
            examples: &[
                "- id: install\n  uses: virt.install\n  with: { name: web1, memory_mib: 2048, vcpus: 2, disk_gib: 20, cdrom: /srv/iso/debian-12.iso, bridge: br0, graphics: vnc }\n",
                "- id: clone\n  uses: virt.install\n  with: { name: web2, memory_mib: 1024, vcpus: 1, import: /srv/images/web2.qcow2, network: default, os_variant: debian12 }\n",
            ],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut found = inputs.connection().problems();
        found.extend(name_problems("name", &inputs.name));
        let ways = [&inputs.import, &inputs.cdrom, &inputs.location].into_iter().flatten().count();
        if ways != 1 {
            found.push(problem(&["cdrom"], "give one of `cdrom`, `location` and `import`".to_owned()));
        }
        if inputs.import.is_some() && inputs.disk_gib.is_some() {
            found.push(problem(&["disk_gib"], "an imported image is the disk".to_owned()));
        }
        if inputs.extra_args.is_some() && inputs.location.is_none() {
            found.push(problem(&["extra_args"], "only the kernel of a `location` can be given arguments".to_owned()));
        }
        if inputs.bridge.is_some() && inputs.network.is_some() {
            found.push(problem(&["network"], "`bridge` and `network` exclude each other".to_owned()));
        }
        for (key, value) in [("name", &inputs.name), ("pool", &inputs.pool)] {
            if value.contains(',') {
                found.push(problem(&[key], "a comma ends a word of virt-install".to_owned()));
            }
        }
        found
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        if domain::find(cx, &inputs.connection(), &inputs.name).await?.is_some() {
            let summary = format!("would refuse: {}", there(&inputs.name).message);
            return Ok(Preview { changes: Some(false), summary, details: Vec::new() });
        }
        let details = vec![command(cx, inputs, None).display()];
        Ok(Preview { changes: Some(true), summary: format!("make {}", inputs.name), details })
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Capture, StepError> {
        if domain::find(cx, &inputs.connection(), &inputs.name).await?.is_some() {
            return Err(there(&inputs.name));
        }
        let volumes = volumes(cx, inputs).await?;
        if volumes.contains(&volume(inputs)) {
            return Err(StepError::conflict(format!("pool {} holds {} already", inputs.pool, volume(inputs)))
                .help("remove that volume, or choose another `name`"));
        }
        Ok(Capture { volumes, uuid: uuid(cx, inputs) })
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Capture) -> Result<Acted<Outputs>, StepError> {
        // It was not there when the step began: it is from an attempt of it, or somebody was faster.
        match outputs(cx, inputs).await? {
            Some(outputs) if capture.is(&outputs.uuid) => return Ok(Acted::changed(outputs)),
            Some(_) => return Err(there(&inputs.name)),
            None => {}
        }
        cx.phase(format!("virt-install makes {}", inputs.name));
        let command = command(cx, inputs, capture.uuid.as_deref());
        let exit = cx.run(command.clone()).await?;
        if !exit.ok() {
            return Err(
                StepError::from_exit(Class::Permanent, &command, &exit).help("see all of its output: `runback logs`")
            );
        }
        let made = outputs(cx, inputs).await?;
        let made = made.ok_or_else(|| {
            StepError::permanent(format!("virt-install ended well, and there is no domain {}", inputs.name))
        })?;
        cx.host.output(Stream::Stdout, format!("{} is made\n", made.domain).as_bytes());
        Ok(Acted::changed(made))
    }

    async fn probe(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Capture) -> Result<Probe<Outputs>, StepError> {
        Ok(match outputs(cx, inputs).await? {
            Some(outputs) if capture.is(&outputs.uuid) => Probe::Done(Acted::changed(outputs)),
            _ => Probe::NotDone,
        })
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        inputs: &Inputs,
        capture: &Capture,
        outputs: Option<&Outputs>,
    ) -> Result<Undone, StepError> {
        let connection = inputs.connection();
        let name = &inputs.name;
        let mut changed = false;
        if let Some(now) = domain::find(cx, &connection, name).await? {
            if (outputs.is_some_and(|o| o.uuid != now.uuid) || !capture.is(&now.uuid)) && !cx.force {
                return Err(domain::drift(name, "another domain has that name now"));
            }
            if now.state.active() {
                domain::stop(cx, &connection, name, std::time::Duration::ZERO).await?;
            }
            // One that was transient went with its stop.
            if let Some(now) = domain::find(cx, &connection, name).await? {
                let kept = domain::definition(cx, &connection, name).await?;
                super::undefine::undefine(cx, &connection, &now, &kept, Lose::of_own(cx.force)).await?;
            }
            changed = true;
        }
        let made = volume(inputs);
        if !capture.volumes.contains(&made) && volumes(cx, inputs).await?.contains(&made) {
            let words = ["vol-delete", made.as_str(), "--pool", &inputs.pool];
            connection.ran(cx, connection.command(&words), &made).await?;
            changed = true;
        }
        Ok(Undone { changed, note: changed.then(|| format!("{name} is gone")) })
    }
}
