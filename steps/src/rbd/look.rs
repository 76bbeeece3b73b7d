//! Reading an image: its locks and its watchers. Changes nothing.
//!
//! `rbd lock ls --format json` does not say whether locks are shared; only its text does, in its first line. Both are
//! read, and have to agree (Ceph 16.2.15).

use runback_core::step::{Cx, StepError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cli::Image;
use crate::ceph::address;

/// One lock, as precisely as it can be named. A person cannot guess the locker: it is new with each lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LockName {
    /// Such as `kubelet_lock_magic_node1`.
    pub(crate) id: String,
    /// Such as `client.4112`.
    pub(crate) locker: String,
    /// Such as `10.0.0.7:0/2494281927`: that of the process that took the lock, not of the client that writes.
    pub(crate) address: String,
}

/// Who takes locks of this kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LockKind {
    /// The kubelet of a node, for as long as a pod there has the volume.
    Kubelet,
    /// The image's own exclusive lock, which clients hand to each other. Never removed by hand.
    Auto,
    /// Somebody's who took it by hand, or with a tool of their own.
    Other,
}

/// One lock, explained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Lock {
    pub(crate) id: String,
    pub(crate) locker: String,
    pub(crate) address: String,
    pub(crate) kind: LockKind,
    /// The node, where it is a kubelet's lock; else empty.
    pub(crate) node: String,
    /// The IP address of the process that took it.
    pub(crate) ip: String,
}

const KUBELET: &str = "kubelet_lock_magic_";

pub(crate) fn kind(id: &str) -> LockKind {
    match id {
        _ if id.starts_with(KUBELET) => LockKind::Kubelet,
        _ if id.strip_prefix("auto ").is_some_and(|cookie| cookie.bytes().all(|b| b.is_ascii_digit())) => {
            LockKind::Auto
        }
        _ => LockKind::Other,
    }
}

impl From<LockName> for Lock {
    fn from(name: LockName) -> Self {
        Self {
            kind: kind(&name.id),
            node: name.id.strip_prefix(KUBELET).unwrap_or_default().to_owned(),
            ip: address::ip(&name.address),
            id: name.id,
            locker: name.locker,
            address: name.address,
        }
    }
}

impl Lock {
    pub(crate) fn name(&self) -> LockName {
        LockName { id: self.id.clone(), locker: self.locker.clone(), address: self.address.clone() }
    }
}

impl LockName {
    pub(crate) fn shown(&self) -> String {
        format!("`{}` of {} at {}", self.id, self.locker, self.address)
    }
}

/// A client that has the image open for writing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Watcher {
    pub(crate) address: String,
    pub(crate) client: u64,
    pub(crate) cookie: u64,
}

impl Watcher {
    pub(crate) fn shown(&self) -> String {
        format!("client.{} at {}", self.client, self.address)
    }
}

/// The locks of an image at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Locks {
    pub(crate) all: Vec<Lock>,
    pub(crate) shared: bool,
}

impl Locks {
    /// The one with exactly this id, locker and address.
    pub(crate) fn find(&self, name: &LockName) -> Option<&Lock> {
        self.all.iter().find(|l| l.name() == *name)
    }

    pub(crate) fn shown(&self) -> String {
        self.all.iter().map(|l| l.name().shown()).collect::<Vec<_>>().join(", ")
    }
}

/// What the text form says: how many locks, and whether they are shared. None = it says something else.
pub(crate) fn told(text: &str) -> Option<(usize, bool)> {
    let line = text.lines().map(str::trim).find(|l| l.starts_with("There "))?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let shared = match *words.get(3)? {
        "shared" => true,
        "exclusive" => false,
        _ => return None,
    };
    Some((words.get(2)?.parse().ok()?, shared))
}

pub(crate) async fn locks(cx: &Cx<'_>, image: &Image) -> Result<Locks, StepError> {
    // Two looks at a thing that others change: the second may see more than the first.
    for _ in 0..3 {
        let names: Vec<LockName> = image.json(cx, &["lock", "ls"]).await?;
        if names.is_empty() {
            return Ok(Locks::default());
        }
        let text = image.read(cx, &["lock", "ls"]).await?;
        if let Some((count, shared)) = told(&text)
            && count == names.len()
        {
            return Ok(Locks { all: names.into_iter().map(Lock::from).collect(), shared });
        }
    }
    Err(StepError::transient(format!("{image}: its locks change while they are read"))
        .help("somebody is working on them; look again when it is quiet (`rbd lock ls`)"))
}

#[derive(Deserialize)]
struct Status {
    watchers: Vec<Watcher>,
}

/// Clients that have the image open for writing, as the cluster knows it. A client that was stopped is still one for
/// about 28 s; and none being there does not mean that none will come back.
pub(crate) async fn watchers(cx: &Cx<'_>, image: &Image) -> Result<Vec<Watcher>, StepError> {
    let status: Status = image.json(cx, &["status"]).await?;
    Ok(status.watchers)
}

pub(crate) fn shown(watchers: &[Watcher]) -> String {
    watchers.iter().map(Watcher::shown).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_locks() {
        assert_eq!(kind("kubelet_lock_magic_node-1.example.com"), LockKind::Kubelet);
        assert_eq!(kind("auto 140090290476128"), LockKind::Auto);
        for id in ["auto", "automatic", "auto x", "mine", ""] {
            assert_eq!(kind(id), LockKind::Other, "{id}");
        }
    }

    #[test]
    fn the_first_line_says_whether_they_are_shared() {
        assert_eq!(told("There is 1 exclusive lock on this image.\nLocker …"), Some((1, false)));
        assert_eq!(told("There is 1 shared lock on this image.\nLock tag: z\n"), Some((1, true)));
        assert_eq!(told("There are 2 shared locks on this image.\n"), Some((2, true)));
        assert_eq!(told(""), None);
        assert_eq!(told("There are some locks"), None);
    }
}
