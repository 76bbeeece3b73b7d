//! `virt.v2v`: converts a machine of another hypervisor so that it runs under KVM, with `virt-v2v`.
//!
//! **Does.** Looks in the first second at everything that would otherwise fail after an hour: the source, the names, the
//! space, the tools, the bridges; and tells all of it at once. Then it converts into a folder of its own beside the result,
//! checks the images, gives them their names (`NAME-sda`, …), and writes `NAME.xml`, the definition for `virt.define`. Shows
//! phase, percent, rate and time left. Nothing that was there is overwritten.
//!
//! **Networks.** `bridges` and `networks` map by the source's name of the network, `mac` by the card's address.
//!
//! **Outlives runback** (`detach`): killed in the middle, the conversion goes on, and `runback resume` finds it.
//!
//! **Undo** removes what this run made, and ends what still runs; so does a failure or a cancel. It stops where a domain
//! has one of the disks. Disks that a guest has written to since are removed too: they are this run's all the same.
//!
//! **After an interruption** it looks: converted and named, it is done; else all of it is thrown away, and done again.
//!
//! **`env`** reaches virt-v2v, such as `LIBGUESTFS_BACKEND: direct`. Where KVM does not work on the converting host,
//! `LIBGUESTFS_BACKEND_SETTINGS: force_tcg` makes it slow instead of failing.
//!
//! **Does not** touch the source, and does not start the machine. The source must be off: what it writes during the
//! conversion may be lost or torn.
//!
//! As virt-v2v 2.2.0 behaves.

mod checks;
mod inputs;
mod place;
mod progress;
mod source;

use std::time::Duration;

use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, Probe, StepError, StepType, UndoKind,
    Undone,
};
use runback_core::target::{Command, Exit, FileAttributes, Stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) use checks::{existing, size};
use inputs::{Allocation, Format, Inputs};
use place::{Capture, MARK, Place};
use progress::{Learned, Reader};
use source::Known;

/// How long a plan may look at the source (it gives up on a step after 20 s); a conversion takes its time.
const LOOK: Duration = Duration::from_secs(10);
const LOOK_LONGER: Duration = Duration::from_secs(600);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Disk {
    /// On the target.
    pub(crate) path: String,
    /// `qcow2` or `raw`.
    pub(crate) format: String,
    /// In bytes.
    pub(crate) virtual_size: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// The machine's name.
    pub(crate) name: String,
    /// Path of its definition, for `virt.define`.
    pub(crate) xml: String,
    /// The definition itself.
    pub(crate) xml_text: String,
    /// Its disks.
    pub(crate) disks: Vec<Disk>,
    /// `bios` or `uefi`.
    pub(crate) firmware: String,
    /// What virt-v2v warned of.
    pub(crate) warnings: Vec<String>,
    /// How long the conversion took.
    pub(crate) seconds: u64,
}

/// The step type `virt.v2v`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VirtV2v;

fn command(cx: &Cx<'_>, inputs: &Inputs, capture: &Capture) -> Command {
    let password = inputs.password.is_some().then(|| password_file(capture));
    let mut argv = vec!["virt-v2v".to_owned(), "--machine-readable=stream:stdout".to_owned()];
    argv.extend(inputs.input.words(cx, password.as_deref()));
    let format = if inputs.output.format == Format::Raw { "raw" } else { "qcow2" };
    let allocation = if inputs.output.allocation == Allocation::Sparse { "sparse" } else { "preallocated" };
    let output = ["-o", "local", "-os", &capture.staging, "-of", format, "-oa", allocation, "-on", &capture.name];
    argv.extend(output.map(str::to_owned));
    argv.extend(inputs.root.iter().flat_map(|root| ["--root".to_owned(), root.clone()]));
    // Sockets lie in TMPDIR; what is large (an OVA unpacked, overlays) would go to LIBGUESTFS_CACHEDIR where that is set,
    // and stay there. A C locale, so that what is read is English.
    let command = Command::new(argv).env("TMPDIR", &capture.tmp).env("VIRT_V2V_TMPDIR", &capture.tmp);
    command.env(MARK, &capture.staging).env("LC_ALL", "C.UTF-8")
}

fn password_file(capture: &Capture) -> String {
    format!("{}/password", capture.tmp)
}

/// Runs it, or attaches to what an earlier process started, reading along.
async fn convert(cx: &Cx<'_>, inputs: &Inputs, capture: &Capture, known: &Known) -> Result<(Exit, Learned), StepError> {
    let reader = Reader::new(cx.host, known.disks.clone().unwrap_or_default());
    let exit = Cx { host: &reader, ..*cx }.run(command(cx, inputs, capture)).await?;
    let learned = reader.learned();
    Ok((exit, learned))
}

/// What a failed conversion is told as.
async fn explain(
    cx: &Cx<'_>,
    inputs: &Inputs,
    capture: &Capture,
    known: &Known,
    exit: &Exit,
    learned: &Learned,
) -> StepError {
    let shown = command(cx, inputs, capture).display();
    if learned.full {
        let disk = learned.disk.map_or(1, |(disk, _)| disk);
        let free = cx.target.free_space(&capture.dir).await.unwrap_or_default();
        return StepError { exit_code: exit.code, ..place::ran_full(capture, known, disk, learned.full_at, free) }
            .command(shown);
    }
    let said = learned.errors.join("; ");
    let said = if said.is_empty() { exit.describe() } else { said };
    StepError { exit_code: exit.code, ..StepError::permanent(format!("{}: virt-v2v: {said}", capture.name)) }
        .command(shown)
        .help("see all of its output: `runback logs`; nothing of the attempt was left behind")
}

/// Leaves nothing of an attempt that failed. What stays is told with the failure.
async fn thrown_away(cx: &Cx<'_>, capture: &Capture, failed: StepError) -> StepError {
    match place::clear(cx, capture).await {
        Ok(()) => failed,
        Err(e) => StepError {
            message: format!("{}; and {} could not be removed: {e}", failed.message, capture.staging),
            ..failed
        },
    }
}

async fn attempt(cx: &Cx<'_>, inputs: &Inputs, capture: &Capture, known: &Known) -> Result<Outputs, StepError> {
    let (exit, learned) = convert(cx, inputs, capture, known).await?;
    if !exit.ok() {
        return Err(explain(cx, inputs, capture, known, &exit, &learned).await);
    }
    cx.phase("checking the disks");
    place::finish(cx, inputs, capture, &learned).await
}

#[async_trait::async_trait]
impl StepType for VirtV2v {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = Capture;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "virt.v2v",
            doc: "Converts a machine of another hypervisor so that it runs under KVM.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: OnInterrupt::Probe,
            commands: Commands::Detached,
            examples: &[
                "- id: convert\n  uses: virt.v2v\n  with:\n    input: { ova: /srv/export/web1.ova }\n    output: { dir: /var/lib/libvirt/images, format: qcow2 }\n    bridges: { VM Network: br0 }\n  timeout: 6h\n",
                "- id: convert\n  uses: virt.v2v\n  with:\n    input:\n      libvirt:\n        uri: vpx://root@vcenter/Datacenter/esxi1?no_verify=1\n        guest: web1\n    output: { pool: images }\n    password: \"{{ secrets.vcenter }}\"\n    networks: { VM Network: default }\n  timeout: 6h\n",
            ],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        inputs.problems()
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let place = Place::of(cx, inputs).await?;
        let found = checks::check(cx, inputs, &place, LOOK).await?;
        let mut details: Vec<String> = found.obstacles.iter().map(|o| format!("in the way: {}", o.message)).collect();
        details.extend(found.notices.iter().cloned());
        let disks = found.known.disks.as_ref().map_or(String::new(), |all| {
            let one = if all.len() == 1 { "disk" } else { "disks" };
            format!(" ({} {one}, {})", all.len(), size(found.known.size().unwrap_or(0)))
        });
        let summary = match found.refusal() {
            Some(refusal) => format!("would refuse: {}", refusal.message),
            None => format!("convert {}{disks} into {}", place.name, place.dir),
        };
        Ok(Preview { changes: Some(found.obstacles.is_empty()), summary, details })
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Capture, StepError> {
        let place = Place::of(cx, inputs).await?;
        // What is there under its names is not this step's to remove: so it is looked at before undo is armed.
        let found = checks::check(cx, inputs, &place, LOOK_LONGER).await?;
        if let Some(refusal) = found.refusal() {
            return Err(refusal);
        }
        for notice in &found.notices {
            cx.host.output(Stream::Stdout, format!("notice: {notice}\n").as_bytes());
        }
        place.capture(cx, inputs).await
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Capture) -> Result<Acted<Outputs>, StepError> {
        if cx.reattach.is_none() {
            if let Some(outputs) = place::is_made(cx, capture).await? {
                return Ok(Acted::changed(outputs));
            }
            place::prepare(cx, capture).await?;
            if let Some(password) = &inputs.password {
                let private = FileAttributes { mode: Some(0o600), ..FileAttributes::default() };
                cx.target.write(&password_file(capture), password.as_bytes(), &private).await?;
            }
        }
        let known = source::look(cx, &inputs.input).await.unwrap_or_default();
        let outputs = match attempt(cx, inputs, capture, &known).await {
            Ok(outputs) => outputs,
            Err(failed) => return Err(thrown_away(cx, capture, failed).await),
        };
        let total = outputs.disks.iter().fold(0_u64, |sum, d| sum.saturating_add(d.virtual_size));
        let line = format!(
            "{} is converted: {} disk(s), {}, in {} s\n",
            outputs.name,
            outputs.disks.len(),
            size(total),
            outputs.seconds
        );
        cx.host.output(Stream::Stdout, line.as_bytes());
        Ok(Acted::changed(outputs))
    }

    async fn probe(&self, cx: &Cx<'_>, _: &Inputs, capture: &Capture) -> Result<Probe<Outputs>, StepError> {
        Ok(match place::is_made(cx, capture).await? {
            Some(outputs) => Probe::Done(Acted::changed(outputs)),
            None => Probe::NotDone,
        })
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        inputs: &Inputs,
        capture: &Capture,
        outputs: Option<&Outputs>,
    ) -> Result<Undone, StepError> {
        let changed = place::take_back(cx, inputs, capture).await?;
        let note = match outputs {
            Some(outputs) if changed => {
                Some(format!("{} and its {} disk(s) are removed", outputs.name, outputs.disks.len()))
            }
            _ if changed => Some(format!("what was converted of {} is removed", capture.name)),
            _ => None,
        };
        Ok(Undone { changed, note })
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
