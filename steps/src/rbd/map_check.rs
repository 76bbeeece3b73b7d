//! `rbd.map_check`: whether an RBD image is still mapped on a machine. Give the step that machine as its `target`.
//!
//! **Does.** Reads /sys/bus/rbd, where the kernel lists what it has mapped, and needs neither `rbd` nor the cluster for
//! that. Where `rbd-nbd` is installed, it asks it for what that has mapped. `expect: unmapped` fails while it
//! is mapped, `expect: mapped` while it is not.
//!
//! **Does not** see clients that open the image in a process of their own (QEMU, a CSI driver's librbd): those show as
//! watchers, see `rbd.lock_check`. Nor another cluster's pool of the same name: they look alike here.

use std::time::Duration;

use runback_core::step::{
    Access, Acted, Class, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, Probe, StepError, StepType,
    UndoKind,
};
use runback_core::target::{Command, Stream, TargetErrorKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cli::decode;
use crate::http::look::problem;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Expect {
    #[default]
    Any,
    Mapped,
    Unmapped,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Inputs {
    /// The pool.
    #[serde(default = "crate::rbd::cli::default_pool")]
    pub(crate) pool: String,
    /// The namespace in the pool. Default: the pool's own.
    #[serde(default)]
    pub(crate) namespace: String,
    /// The image's name.
    pub(crate) image: String,
    /// Fail while it is not so.
    #[serde(default)]
    pub(crate) expect: Expect,
}

/// One mapping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Mapping {
    /// Such as /dev/rbd0.
    pub(crate) device: String,
    /// The snapshot that is mapped; empty for the image itself.
    pub(crate) snap: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// There is at least one mapping.
    pub(crate) mapped: bool,
    /// Each device that shows the image or a snapshot of it.
    pub(crate) mappings: Vec<Mapping>,
}

/// The step type `rbd.map_check`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RbdMapCheck;

const DEVICES: &str = "/sys/bus/rbd/devices";

fn place(inputs: &Inputs) -> String {
    let Inputs { pool, namespace, image, .. } = inputs;
    if namespace.is_empty() { format!("{pool}/{image}") } else { format!("{pool}/{namespace}/{image}") }
}

/// One attribute of a device; None where the kernel does not have it, or the device has just gone.
async fn attribute(cx: &Cx<'_>, device: &str, name: &str) -> Result<Option<String>, StepError> {
    match cx.target.read(&format!("{DEVICES}/{device}/{name}"), 64 << 10).await {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).trim_end().to_owned())),
        Err(e) if e.kind == TargetErrorKind::NotFound => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// What the kernel has mapped.
async fn kernel(cx: &Cx<'_>, inputs: &Inputs) -> Result<Vec<Mapping>, StepError> {
    let devices = match cx.target.list(DEVICES).await {
        Ok(devices) => devices,
        // The module is not loaded: nothing can be mapped.
        Err(e) if e.kind == TargetErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e.into()),
    };
    let mut found = Vec::new();
    for device in devices {
        let (Some(pool), Some(name)) = (attribute(cx, &device, "pool").await?, attribute(cx, &device, "name").await?)
        else {
            continue;
        };
        // Kernels before 4.20 have no namespaces.
        let namespace = attribute(cx, &device, "pool_ns").await?.unwrap_or_default();
        if (pool, namespace, name) != (inputs.pool.clone(), inputs.namespace.clone(), inputs.image.clone()) {
            continue;
        }
        let snap = attribute(cx, &device, "current_snap").await?.filter(|s| s != "-").unwrap_or_default();
        found.push(Mapping { device: format!("/dev/rbd{device}"), snap });
    }
    Ok(found)
}

#[derive(Deserialize)]
struct Listed {
    pool: String,
    #[serde(default)]
    namespace: String,
    #[serde(alias = "name")]
    image: String,
    #[serde(default)]
    snap: String,
    device: String,
}

/// What `rbd-nbd` has mapped; nothing where it is not installed.
async fn nbd(cx: &Cx<'_>, inputs: &Inputs) -> Result<Vec<Mapping>, StepError> {
    let command = Command::query(["rbd-nbd", "list-mapped", "--format", "json"]).timeout(Duration::from_secs(20));
    let exit = match cx.target.run(&command, cx.host).await {
        Err(e) if e.kind == TargetErrorKind::CommandNotFound => return Ok(Vec::new()),
        done => done?,
    };
    if !exit.ok() {
        return Err(StepError::from_exit(Class::Permanent, &command, &exit));
    }
    let text = exit.stdout_text();
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let all: Vec<Listed> = decode(&text, "rbd-nbd list-mapped")?;
    let ours = |l: &Listed| l.pool == inputs.pool && l.namespace == inputs.namespace && l.image == inputs.image;
    let mapping = |l: Listed| Mapping { device: l.device, snap: if l.snap == "-" { String::new() } else { l.snap } };
    Ok(all.into_iter().filter(ours).map(mapping).collect())
}

async fn look(cx: &Cx<'_>, inputs: &Inputs) -> Result<Outputs, StepError> {
    let mut mappings = kernel(cx, inputs).await?;
    mappings.extend(nbd(cx, inputs).await?);
    Ok(Outputs { mapped: !mappings.is_empty(), mappings })
}

fn told(cx: &Cx<'_>, inputs: &Inputs, found: &Outputs) -> String {
    let on = cx.target.name();
    if found.mapped {
        let devices: Vec<&str> = found.mappings.iter().map(|m| m.device.as_str()).collect();
        format!("{} is mapped on {on} as {}", place(inputs), devices.join(", "))
    } else {
        format!("{} is not mapped on {on}", place(inputs))
    }
}

#[async_trait::async_trait]
impl StepType for RbdMapCheck {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = ();

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "rbd.map_check",
            doc: "Checks whether an RBD image is mapped on the step's target.",
            access: Access::Reads,
            undo: UndoKind::None,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Small,
            examples: &[
                "- id: unmapped\n  uses: rbd.map_check\n  with: { pool: kube, image: index-api-image, expect: unmapped }\n  target: old-node\n",
            ],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let empty = |key: &str, value: &str| value.is_empty().then(|| problem(&[key], "must not be empty".to_owned()));
        empty("pool", &inputs.pool).into_iter().chain(empty("image", &inputs.image)).collect()
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let found = look(cx, inputs).await?;
        Ok(Preview { changes: Some(false), summary: told(cx, inputs, &found), details: Vec::new() })
    }

    async fn capture(&self, _cx: &Cx<'_>, _inputs: &Inputs) -> Result<(), StepError> {
        Ok(())
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, (): &()) -> Result<Acted<Outputs>, StepError> {
        let found = look(cx, inputs).await?;
        let told = told(cx, inputs, &found);
        cx.host.output(Stream::Stdout, format!("{told}\n").as_bytes());
        match inputs.expect {
            Expect::Unmapped if found.mapped => {
                Err(StepError::transient(told).help("stop what uses it there, then `rbd unmap` the device"))
            }
            Expect::Mapped if !found.mapped => Err(StepError::transient(told)),
            _ => Ok(Acted::unchanged(found)),
        }
    }

    async fn probe(&self, _cx: &Cx<'_>, _inputs: &Inputs, (): &()) -> Result<Probe<Outputs>, StepError> {
        Ok(Probe::NotDone)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::RbdMapCheck;
    use crate::rbd::recorded::Far;

    const NBD: &str = "rbd-nbd list-mapped --format json";

    fn mapped() -> Far {
        let far = Far::new();
        for (path, content) in [
            ("0/pool", "kube\n"),
            ("0/pool_ns", "\n"),
            ("0/name", "img\n"),
            ("0/current_snap", "-\n"),
            ("3/pool", "kube\n"),
            ("3/pool_ns", "team\n"),
            ("3/name", "img\n"),
            ("3/current_snap", "before\n"),
        ] {
            far.file(&format!("/sys/bus/rbd/devices/{path}"), content);
        }
        far.missing("rbd-nbd");
        far
    }

    #[tokio::test]
    async fn the_kernel_lists_what_it_has_mapped() {
        let far = mapped();
        let ran = far.run(&RbdMapCheck, &json!({"pool": "kube", "image": "img"})).await.unwrap();
        assert_eq!(ran.outputs, json!({"mapped": true, "mappings": [{"device": "/dev/rbd0", "snap": ""}]}));
        let with = json!({"pool": "kube", "namespace": "team", "image": "img"});
        assert_eq!(far.run(&RbdMapCheck, &with).await.unwrap().outputs["mappings"][0]["snap"], "before");
        let ran = far.run(&RbdMapCheck, &json!({"pool": "kube", "image": "im"})).await.unwrap();
        assert_eq!(ran.outputs["mapped"], false);
    }

    #[tokio::test]
    async fn what_is_expected_must_be_so() {
        let far = mapped();
        let error = far.run(&RbdMapCheck, &json!({"pool": "kube", "image": "img", "expect": "unmapped"})).await;
        assert_eq!(error.unwrap_err().message, "kube/img is mapped on far as /dev/rbd0");
        let error = far.run(&RbdMapCheck, &json!({"image": "img", "expect": "mapped"})).await;
        assert_eq!(error.unwrap_err().message, "rbd/img is not mapped on far");
    }

    #[tokio::test]
    async fn without_the_kernel_module_nothing_is_mapped_and_nbd_is_asked_too() {
        let far = Far::new();
        far.on(NBD, r#"[{"id":7,"pool":"rbd","namespace":"","image":"img","snap":"-","device":"/dev/nbd0"}]"#);
        let ran = far.run(&RbdMapCheck, &json!({"image": "img"})).await.unwrap();
        assert_eq!(ran.outputs["mappings"][0]["device"], "/dev/nbd0");
        far.on(NBD, "");
        assert_eq!(far.run(&RbdMapCheck, &json!({"image": "img"})).await.unwrap().outputs["mapped"], false);
    }
}
