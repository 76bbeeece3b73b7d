//! `rbd.lock_rm`: removes one lock of an RBD image, exactly named, and only where that is safe.
//!
//! **Does.** Reads locks and watchers, and removes the lock with this id, locker and address (hand it
//! `steps.<id>.outputs.lock` of `rbd.lock_check`). Then reads again: it has succeeded when the lock is gone, also if the
//! cluster's answer to the removal was lost. No lock at all is a success that changed nothing.
//!
//! **Refuses**, naming what it saw: an image with a watcher, more than one lock or a shared one (both can be allowed),
//! a lock that is not the one named, and the image's own exclusive lock (`auto …`), always: clients hand it to each
//! other, and break a dead one themselves.
//!
//! **Undo: impossible.** A lock belongs to the process that took it. Take a snapshot before.
//!
//! **After an interruption** it looks: the lock is there, or it is not.
//!
//! **Does not** stop the old client from writing. The removal puts the lock's address on the blocklist for an hour, but
//! that is the address of the process that took the lock; the client that writes has another. Fence that one first
//! (`ceph.blocklist`). And no watcher does not mean dead: see `rbd.lock_check`.

use runback_core::step::{
    Access, Acted, Class, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, Probe, StepError, StepType,
    UndoKind,
};
use runback_core::target::Stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::cli::{Image, image_inputs};
use super::errors::{Why, why};
use super::look::{self, LockKind, LockName, Locks, Watcher};
use crate::http::look::problem;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Allow {
    /// Remove it although a client has the image open. That client writes on.
    Watchers,
    /// Remove it although there are other locks, or it is a shared one.
    Shared,
}

image_inputs! {
    /// Which image, and which lock.
    {
        /// The lock: `id`, `locker` and `address`, all three. null = there must be none.
        lock: Option<LockName>,
        /// What would otherwise be refused.
        #[serde(default)]
        allow: Vec<Allow>,
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// This step removed it (or somebody in the same moment).
    pub(crate) removed: bool,
    /// The lock's address, which `rbd` puts on the blocklist for an hour as it removes the lock; empty where nothing
    /// was removed.
    pub(crate) blocklisted: String,
}

/// The step type `rbd.lock_rm`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RbdLockRm;

/// Why it must not be removed. None = it may. Checked in the order in which a person should worry.
fn refusal(image: &Image, inputs: &Inputs, locks: &Locks, watchers: &[Watcher]) -> Option<StepError> {
    let refuse =
        |why: String, help: &str| Some(StepError::conflict(format!("{image}: the lock stays: {why}")).help(help));
    let named = inputs.lock.as_ref().and_then(|name| locks.find(name));
    if !watchers.is_empty() && !inputs.allow.contains(&Allow::Watchers) {
        return refuse(
            format!("the image is open for writing by {}", look::shown(watchers)),
            "unmap it there (`rbd unmap`), or fence the watcher's address with ceph.blocklist; then look again",
        );
    }
    if let Some(auto) = locks.all.iter().find(|l| l.kind == LockKind::Auto) {
        return refuse(
            format!("{} is the image's own exclusive lock, which is never removed by hand", auto.name().shown()),
            "fence its client with ceph.blocklist: the next client that opens the image takes the lock over by itself",
        );
    }
    let Some(name) = &inputs.lock else {
        return refuse(format!("none was named, and there is {}", locks.shown()), "name it with `lock`");
    };
    if named.is_none() {
        return refuse(
            format!("{} was named, and there is {}", name.shown(), locks.shown()),
            "look again (rbd.lock_check): a new lock has a new locker, and may belong to a client that lives",
        );
    }
    if (locks.all.len() > 1 || locks.shared) && !inputs.allow.contains(&Allow::Shared) {
        return refuse(
            format!("there is more than one holder, or may be: shared lock {}", locks.shown()),
            "find out who the others are; `allow: [shared]` removes just the one that is named",
        );
    }
    None
}

/// Reads both; the locks last, since they are what is acted upon.
async fn look(cx: &Cx<'_>, image: &Image) -> Result<(Locks, Vec<Watcher>), StepError> {
    let watchers = look::watchers(cx, image).await?;
    Ok((look::locks(cx, image).await?, watchers))
}

/// The removal itself, and what has come of it.
async fn remove(cx: &Cx<'_>, image: &Image, name: &LockName) -> Result<Acted<Outputs>, StepError> {
    let gone = |removed| Outputs { removed, blocklisted: if removed { name.address.clone() } else { String::new() } };
    let command = image.command(cx, &["lock", "rm", "--", &name.id, &name.locker]);
    let what = image.to_string();
    let failed = match image.connection.tried(cx, command.clone(), &what).await {
        Ok(exit) if exit.ok() => None,
        Ok(exit) => {
            let error = super::errors::of_exit(&command, &exit, &what, &image.connection);
            // It was asked to remove what was just seen: whoever removed it now, it is gone, or another is there.
            let unsure = matches!(why(&exit), Why::Lock | Why::NoAnswer | Why::NoMonitor);
            if !unsure {
                return Err(error);
            }
            Some((error, why(&exit) == Why::Lock))
        }
        Err(error) if error.class == Class::Timeout => Some((error, false)),
        Err(error) => return Err(error),
    };
    let after = match (look::locks(cx, image).await, failed) {
        (Ok(after), None) => (after, None),
        (Ok(after), Some(failed)) => (after, Some(failed)),
        (Err(_), Some((error, _))) | (Err(error), None) => {
            let message = format!("{}; and whether the lock is gone cannot be read", error.message);
            let help = "keep every fence; when the cluster answers again, `rbd lock ls` tells, and so does another try";
            return Err(StepError { message, ..error }.help(help));
        }
    };
    match after {
        (after, Some((error, _))) if after.find(name).is_some() => {
            Err(StepError { message: format!("{}; the lock is still there", error.message), ..error })
        }
        (after, None) if after.find(name).is_some() => {
            Err(StepError::conflict(format!("{image}: the removal was acknowledged, but the lock is still there")))
        }
        (_, Some((_, true))) => Ok(Acted::unchanged(gone(false))),
        _ => Ok(Acted::changed(gone(true))),
    }
}

#[async_trait::async_trait]
impl StepType for RbdLockRm {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = ();

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "rbd.lock_rm",
            doc: "Removes one exactly named lock of an RBD image, where that is safe.",
            access: Access::Changes,
            undo: UndoKind::Impossible,
            on_interrupt: OnInterrupt::Probe,
            commands: Commands::Small,
            examples: &[
                "- id: unlock\n  uses: rbd.lock_rm\n  with: { pool: kube, image: index-api-image, lock: \"{{ steps.look.outputs.lock }}\" }\n  irreversible: true\n",
                "- id: unlock-one\n  uses: rbd.lock_rm\n  with:\n    image: scratch\n    lock: { id: kubelet_lock_magic_node1, locker: client.4112, address: \"10.0.0.7:0/2494281927\" }\n    allow: [shared]\n",
            ],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut found = inputs.image().problems();
        let Some(lock) = &inputs.lock else { return found };
        for (key, value) in [("id", &lock.id), ("locker", &lock.locker), ("address", &lock.address)] {
            if value.is_empty() {
                found.push(problem(&["lock", key], "must not be empty: a lock is named by all three".to_owned()));
            }
        }
        if look::kind(&lock.id) == LockKind::Auto {
            let mut wrong =
                problem(&["lock", "id"], "an `auto` lock is the image's own, never removed by hand".to_owned());
            wrong.help = Some("fence its client with ceph.blocklist; the next client takes it over".to_owned());
            found.push(wrong);
        }
        found
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let image = inputs.image();
        let (locks, watchers) = look(cx, &image).await?;
        if locks.all.is_empty() {
            let summary = format!("{image} has no lock: nothing to remove");
            return Ok(Preview { changes: Some(false), summary, details: Vec::new() });
        }
        Ok(match refusal(&image, inputs, &locks, &watchers) {
            Some(error) => Preview {
                changes: Some(false),
                summary: format!("would refuse: {}", error.message),
                details: error.help.into_iter().collect(),
            },
            None => Preview {
                changes: Some(true),
                summary: format!("remove lock {} of {image}", locks.shown()),
                details: vec!["a lock cannot be given back".to_owned()],
            },
        })
    }

    async fn capture(&self, _cx: &Cx<'_>, _inputs: &Inputs) -> Result<(), StepError> {
        Ok(())
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, (): &()) -> Result<Acted<Outputs>, StepError> {
        let image = inputs.image();
        let (locks, watchers) = look(cx, &image).await?;
        if let Some(acted) = removed_before(cx, inputs, &locks) {
            return Ok(acted);
        }
        if locks.all.is_empty() {
            return Ok(Acted::unchanged(Outputs { removed: false, blocklisted: String::new() }));
        }
        if let Some(error) = refusal(&image, inputs, &locks, &watchers) {
            return Err(error);
        }
        let Some(name) = &inputs.lock else { return Err(StepError::conflict(format!("{image}: no lock was named"))) };
        cx.phase(format!("removing lock {}", name.shown()));
        // Durable before the removal: whoever finds the lock gone later knows that it was this step.
        cx.host.note(json!({ "removing": name })).await?;
        let acted = remove(cx, &image, name).await?;
        let line = if acted.changed { "is removed" } else { "was gone already" };
        cx.host.output(Stream::Stdout, format!("{image}: lock {} {line}\n", name.shown()).as_bytes());
        Ok(acted)
    }

    async fn probe(&self, cx: &Cx<'_>, inputs: &Inputs, (): &()) -> Result<Probe<Outputs>, StepError> {
        let now = look::locks(cx, &inputs.image()).await?;
        Ok(removed_before(cx, inputs, &now).map_or(Probe::NotDone, Probe::Done))
    }
}

/// An earlier attempt was about to remove the lock, and it is gone.
fn removed_before(cx: &Cx<'_>, inputs: &Inputs, now: &Locks) -> Option<Acted<Outputs>> {
    let name = inputs.lock.as_ref().filter(|name| now.find(name).is_none())?;
    let noted = json!({ "removing": name });
    let ours = cx.host.notes().contains(&noted);
    ours.then(|| Acted::changed(Outputs { removed: true, blocklisted: name.address.clone() }))
}

#[cfg(test)]
#[path = "lock_rm_tests.rs"]
mod tests;
