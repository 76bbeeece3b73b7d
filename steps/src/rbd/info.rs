//! `rbd.info`: what is known of an RBD image: size, format, features, parent, watchers and locks.
//!
//! **Does not** tell whether a client is dead: a watcher that was stopped is listed for about 28 s more, and may come
//! back after that.

use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, Probe, StepError, StepType, UndoKind,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cli::{Image, image_inputs};
use super::look::{self, Lock, Watcher};

image_inputs! {
    /// Which image.
    {}
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// The image's name.
    pub(crate) name: String,
    /// The image's id in the pool; it stays when the image is renamed.
    pub(crate) id: String,
    /// In bytes.
    pub(crate) size: u64,
    /// In bytes.
    pub(crate) object_size: u64,
    /// 1 or 2.
    pub(crate) format: u32,
    /// Such as `layering` and `exclusive-lock`.
    pub(crate) features: Vec<String>,
    /// Changes want the image's own exclusive lock.
    pub(crate) exclusive_lock: bool,
    /// How many snapshots it has.
    pub(crate) snapshot_count: u64,
    /// Clients that have it open for writing.
    pub(crate) watchers: Vec<Watcher>,
    /// Its locks, explained.
    pub(crate) locks: Vec<Lock>,
    /// The locks are shared ones.
    pub(crate) shared: bool,
}

/// What `rbd info --format json` says. `id`, `features` and `snapshot_count` are not there for images of format 1.
#[derive(Debug, Deserialize)]
pub(crate) struct Info {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) id: String,
    pub(crate) size: u64,
    pub(crate) object_size: u64,
    pub(crate) format: u32,
    #[serde(default)]
    pub(crate) features: Vec<String>,
    #[serde(default)]
    pub(crate) snapshot_count: u64,
}

pub(crate) async fn read(cx: &Cx<'_>, image: &Image) -> Result<Info, StepError> {
    image.json(cx, &["info"]).await
}

async fn all(cx: &Cx<'_>, image: &Image) -> Result<Outputs, StepError> {
    let info = read(cx, image).await?;
    let watchers = look::watchers(cx, image).await?;
    let locks = look::locks(cx, image).await?;
    Ok(Outputs {
        name: info.name,
        id: info.id,
        size: info.size,
        object_size: info.object_size,
        format: info.format,
        exclusive_lock: info.features.iter().any(|f| f == "exclusive-lock"),
        features: info.features,
        snapshot_count: info.snapshot_count,
        watchers,
        locks: locks.all,
        shared: locks.shared,
    })
}

/// The step type `rbd.info`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RbdInfo;

#[async_trait::async_trait]
impl StepType for RbdInfo {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = ();

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "rbd.info",
            doc: "Reads size, features, watchers and locks of an RBD image.",
            access: Access::Reads,
            undo: UndoKind::None,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Small,
            examples: &["- id: volume\n  uses: rbd.info\n  with: { pool: kube, image: index-api-image }\n"],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        inputs.image().problems()
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let image = inputs.image();
        let found = all(cx, &image).await?;
        let summary = format!("{image}: {} bytes, {}", found.size, told(&found.watchers, &found.locks));
        Ok(Preview { changes: Some(false), summary, details: Vec::new() })
    }

    async fn capture(&self, _cx: &Cx<'_>, _inputs: &Inputs) -> Result<(), StepError> {
        Ok(())
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, (): &()) -> Result<Acted<Outputs>, StepError> {
        Ok(Acted::unchanged(all(cx, &inputs.image()).await?))
    }

    async fn probe(&self, _cx: &Cx<'_>, _inputs: &Inputs, (): &()) -> Result<Probe<Outputs>, StepError> {
        Ok(Probe::NotDone)
    }
}

/// "no watcher, 1 lock".
pub(crate) fn told(watchers: &[Watcher], locks: &[Lock]) -> String {
    let count = |n: usize, one: &str| match n {
        0 => format!("no {one}"),
        1 => format!("1 {one}"),
        n => format!("{n} {one}s"),
    };
    format!("{}, {}", count(watchers.len(), "watcher"), count(locks.len(), "lock"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::RbdInfo;
    use crate::rbd::recorded::{Far, INFO, KUBELET, KUBELET_TEXT, WATCHED};

    #[tokio::test]
    async fn everything_of_an_image() {
        let far = Far::new();
        far.on("info --format json", INFO).on("status --format json", WATCHED);
        far.on("lock ls --format json", KUBELET).on("lock ls", KUBELET_TEXT);
        let ran = far.run(&RbdInfo, &json!({"pool": "kube", "image": "img"})).await.unwrap();
        assert!(!ran.changed);
        assert_eq!(ran.outputs["size"], 16_777_216);
        assert_eq!(ran.outputs["exclusive_lock"], true);
        assert_eq!(ran.outputs["locks"][0]["node"], "node1");
        assert_eq!(ran.outputs["locks"][0]["kind"], "kubelet");
        assert_eq!(ran.outputs["watchers"][0]["client"], 4244);
        assert_eq!(ran.outputs["shared"], false);
    }

    #[tokio::test]
    async fn every_wait_is_bounded_and_the_image_is_named_by_options() {
        let far = Far::new();
        let with = json!({"pool": "p", "namespace": "n", "image": "-i", "id": "ops", "keyring": "/k", "conf": "/c", "cluster": "x", "timeout": "7s"});
        far.fails("info --format json", 1, "enough");
        far.run(&RbdInfo, &with).await.unwrap_err();
        assert_eq!(
            far.first(),
            "rbd --cluster=x --id=ops --conf=/c --keyring=/k --client-mount-timeout=7 --rados-osd-op-timeout=7 \
             --rados-mon-op-timeout=7 --pool=p --namespace=n --image=-i info --format json"
        );
    }

    #[test]
    fn bad_inputs_are_named() {
        let paths = |with| -> Vec<String> {
            crate::testing::Lab::problems(&RbdInfo, &with).into_iter().map(|p| p.path.join(".")).collect()
        };
        assert_eq!(paths(json!({"image": "a/b"})), ["image"]);
        assert_eq!(paths(json!({"image": "a@b", "pool": "", "timeout": "0s"})), ["timeout", "pool", "image"]);
        assert_eq!(paths(json!({"image": "a", "timeout": "1500ms"})), ["timeout"]);
        assert!(paths(json!({"image": "a"})).is_empty());
    }
}
