//! `rbd.lock_check`: who has locked an RBD image, and who has it open.
//!
//! **Does.** Finds the locks, says whose they are (`kubelet`: a node's, `auto`: the image's own exclusive lock, which
//! must never be removed by hand, `other`), and the watchers: clients that have the image open for writing. With
//! `expect` it fails while that is not so; give it a `retry` to wait.
//!
//! **Outputs.** `lock` is the one lock that there is (of the `node`, if that was given), made to be handed to
//! `rbd.lock_rm`; null where there is none, or more than one. `watcher_addresses` are made for `ceph.blocklist`.
//!
//! **Does not** prove that a client is dead. The watch of a stopped client lapses after about 28 s, and when that client
//! wakes it writes on. So with no watcher: wait more than 30 s, look again, and fence.

use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, Probe, StepError, StepType, UndoKind,
};
use runback_core::target::Stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cli::image_inputs;
use super::info::told;
use super::look::{self, Lock, LockName, Watcher};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Expect {
    /// At least one lock.
    Locked,
    /// No lock.
    Free,
    /// No watcher.
    Unwatched,
}

image_inputs! {
    /// Which image, and whose locks.
    {
        /// Only kubelet's locks of this node.
        #[serde(default)]
        node: String,
        /// Fail while one of these is not so.
        #[serde(default)]
        expect: Vec<Expect>,
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// There is a lock (of the `node`, if that was given).
    pub(crate) locked: bool,
    /// How many there are.
    pub(crate) count: usize,
    /// All of them, explained.
    pub(crate) locks: Vec<Lock>,
    /// The one lock, for `rbd.lock_rm`; null where there is none, or more than one.
    pub(crate) lock: Option<LockName>,
    /// The locks are shared ones: several clients may hold the image.
    pub(crate) shared: bool,
    /// How many locks there are besides, of others than the `node`.
    pub(crate) others: usize,
    /// There is a watcher.
    pub(crate) watched: bool,
    /// Clients that have it open for writing.
    pub(crate) watchers: Vec<Watcher>,
    /// For `ceph.blocklist`.
    pub(crate) watcher_addresses: Vec<String>,
}

async fn all(cx: &Cx<'_>, inputs: &Inputs) -> Result<Outputs, StepError> {
    let image = inputs.image();
    let watchers = look::watchers(cx, &image).await?;
    let found = look::locks(cx, &image).await?;
    let total = found.all.len();
    let locks: Vec<Lock> = found.all.into_iter().filter(|l| inputs.node.is_empty() || l.node == inputs.node).collect();
    let lock = match &locks[..] {
        [one] => Some(one.name()),
        _ => None,
    };
    Ok(Outputs {
        locked: !locks.is_empty(),
        count: locks.len(),
        lock,
        shared: found.shared,
        others: total - locks.len(),
        locks,
        watched: !watchers.is_empty(),
        watcher_addresses: watchers.iter().map(|w| w.address.clone()).collect(),
        watchers,
    })
}

/// One line each, for people.
fn lines(found: &Outputs) -> Vec<String> {
    let kind = |l: &Lock| match l.kind {
        look::LockKind::Kubelet => format!(", of kubelet on {}", l.node),
        look::LockKind::Auto => ", the image's own exclusive lock".to_owned(),
        look::LockKind::Other => String::new(),
    };
    let shared = if found.shared { "shared lock" } else { "lock" };
    let locks = found.locks.iter().map(|l| format!("{shared} {}{}", l.name().shown(), kind(l)));
    locks.chain(found.watchers.iter().map(|w| format!("watcher {}", w.shown()))).collect()
}

/// The step type `rbd.lock_check`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RbdLockCheck;

#[async_trait::async_trait]
impl StepType for RbdLockCheck {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = ();

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "rbd.lock_check",
            doc: "Finds who has locked an RBD image, and who has it open.",
            access: Access::Reads,
            undo: UndoKind::None,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Small,
            examples: &[
                "- id: look\n  uses: rbd.lock_check\n  with: { pool: kube, image: index-api-image, node: node1 }\n",
                "- id: released\n  uses: rbd.lock_check\n  with: { pool: kube, image: index-api-image, expect: [free, unwatched] }\n  retry: { max_attempts: 30, initial_interval: 2s, backoff_coefficient: 1 }\n",
            ],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut found = inputs.image().problems();
        if inputs.expect.contains(&Expect::Locked) && inputs.expect.contains(&Expect::Free) {
            found.push(crate::http::look::problem(&["expect"], "`locked` and `free` cannot both be so".to_owned()));
        }
        found
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let found = all(cx, inputs).await?;
        let summary = format!("{}: {}", inputs.image(), told(&found.watchers, &found.locks));
        Ok(Preview { changes: Some(false), summary, details: lines(&found) })
    }

    async fn capture(&self, _cx: &Cx<'_>, _inputs: &Inputs) -> Result<(), StepError> {
        Ok(())
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, (): &()) -> Result<Acted<Outputs>, StepError> {
        let image = inputs.image();
        let found = all(cx, inputs).await?;
        let mut text = format!("{image}: {}\n", told(&found.watchers, &found.locks));
        for line in lines(&found) {
            text.push_str(&line);
            text.push('\n');
        }
        cx.host.output(Stream::Stdout, text.as_bytes());
        for expect in &inputs.expect {
            let of = if inputs.node.is_empty() { String::new() } else { format!(" of node {}", inputs.node) };
            let why = match expect {
                Expect::Locked if !found.locked => format!("there is no lock{of}, one was expected"),
                Expect::Free if found.locked => format!("still locked{of}: {}", lines(&found).join("; ")),
                Expect::Unwatched if found.watched => {
                    format!("still open for writing by {}", look::shown(&found.watchers))
                }
                _ => continue,
            };
            return Err(StepError::transient(format!("{image}: {why}")));
        }
        Ok(Acted::unchanged(found))
    }

    async fn probe(&self, _cx: &Cx<'_>, _inputs: &Inputs, (): &()) -> Result<Probe<Outputs>, StepError> {
        Ok(Probe::NotDone)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use runback_core::step::Class;
    use serde_json::json;

    use super::RbdLockCheck;
    use crate::rbd::recorded::{AUTO, AUTO_TEXT, Far, KUBELET, KUBELET_TEXT, SHARED, SHARED_TEXT, UNWATCHED, WATCHED};

    fn locked(locks: &'static str, text: &'static str, status: &'static str) -> Far {
        let far = Far::new();
        far.on("status --format json", status).on("lock ls --format json", locks).on("lock ls", text);
        far
    }

    #[tokio::test]
    async fn one_lock_is_handed_on() {
        let far = locked(KUBELET, KUBELET_TEXT, UNWATCHED);
        let ran = far.run(&RbdLockCheck, &json!({"image": "img", "node": "node1"})).await.unwrap();
        assert_eq!(
            ran.outputs["lock"],
            json!({"id": "kubelet_lock_magic_node1", "locker": "client.4112", "address": "127.0.0.1:0/2494281927"})
        );
        assert_eq!((&ran.outputs["locked"], &ran.outputs["count"]), (&json!(true), &json!(1)));
        assert_eq!(ran.outputs["watcher_addresses"], json!([]));
    }

    #[tokio::test]
    async fn other_nodes_are_counted_apart() {
        let far = locked(KUBELET, KUBELET_TEXT, WATCHED);
        let ran = far.run(&RbdLockCheck, &json!({"image": "img", "node": "node2"})).await.unwrap();
        assert_eq!((&ran.outputs["locked"], &ran.outputs["others"]), (&json!(false), &json!(1)));
        assert_eq!(ran.outputs["watcher_addresses"], json!(["127.0.0.1:0/3840278050"]));
    }

    #[tokio::test]
    async fn two_shared_locks_are_not_one() {
        let far = locked(SHARED, SHARED_TEXT, UNWATCHED);
        let ran = far.run(&RbdLockCheck, &json!({"image": "sh"})).await.unwrap();
        assert_eq!((&ran.outputs["lock"], &ran.outputs["shared"]), (&json!(null), &json!(true)));
        assert_eq!(ran.outputs["count"], 2);
    }

    #[tokio::test]
    async fn the_images_own_lock_is_told_apart() {
        let far = locked(AUTO, AUTO_TEXT, WATCHED);
        let ran = far.run(&RbdLockCheck, &json!({"image": "w"})).await.unwrap();
        assert_eq!(ran.outputs["locks"][0]["kind"], "auto");
    }

    #[tokio::test]
    async fn locks_that_change_meanwhile_are_read_again() {
        let far = Far::new();
        far.on("status --format json", UNWATCHED).on("lock ls --format json", KUBELET);
        far.on_once("lock ls", "").on("lock ls", KUBELET_TEXT);
        assert_eq!(far.run(&RbdLockCheck, &json!({"image": "i"})).await.unwrap().outputs["count"], 1);
        let far = locked(KUBELET, SHARED_TEXT, UNWATCHED);
        let error = far.run(&RbdLockCheck, &json!({"image": "i"})).await.unwrap_err();
        assert_eq!(error.class, Class::Transient);
        assert!(error.message.contains("change while"), "{error}");
    }

    #[tokio::test]
    async fn expectations_fail_until_they_hold() {
        let expect = |what: &str| json!({"image": "i", "expect": [what]});
        let far = locked(KUBELET, KUBELET_TEXT, WATCHED);
        assert!(far.run(&RbdLockCheck, &expect("locked")).await.is_ok());
        let error = far.run(&RbdLockCheck, &expect("free")).await.unwrap_err();
        assert_eq!(error.class, Class::Transient);
        assert!(error.message.contains("kubelet on node1"), "{error}");
        let error = far.run(&RbdLockCheck, &expect("unwatched")).await.unwrap_err();
        assert!(error.message.contains("client.4244 at 127.0.0.1:0/3840278050"), "{error}");
        let far = locked("[]", "", UNWATCHED);
        assert!(far.run(&RbdLockCheck, &expect("free")).await.is_ok());
        assert!(far.run(&RbdLockCheck, &expect("locked")).await.is_err());
    }

    #[tokio::test]
    async fn a_preview_changes_nothing() {
        let far = locked(KUBELET, KUBELET_TEXT, WATCHED);
        let preview = far.preview(&RbdLockCheck, &json!({"pool": "kube", "image": "img"})).await.unwrap();
        assert_eq!(preview.summary, "kube/img: 1 watcher, 1 lock");
        assert_eq!(preview.changes, Some(false));
        assert_eq!(preview.details.len(), 2);
    }
}
