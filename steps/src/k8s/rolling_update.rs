//! `k8s.rolling_update`: moves pods from one ReplicationController or ReplicaSet to another, a few at a time, as
//! `kubectl rolling-update` did, and as nobody has to watch it for.
//!
//! Never fewer than `replicas - max_unavailable` pods are available, never more than `replicas + max_surge` are there. Each
//! move is made durable and follows from where the cluster is: a run that was killed in the middle goes on from there.
//! Both controllers must exist: apply the new one with `replicas: 0` first. **Undo** is the same moves backwards, under the
//! same bounds, unless somebody else has scaled one of the two meanwhile.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use runback_core::Json;
use runback_core::step::{
    Access, Acted, Class, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind,
    Undone,
};
use runback_core::target::Stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::client::{Ask, Clusters, Kube, Patch, k8s_inputs};
use super::error::ApiError;
use super::fields::{self, Seg};
use super::object::{Object, common_problems, problem, split, text, uid};
use super::readiness::condition;
use crate::bounded::pause;
use crate::http::check::{HttpCheck, Inputs as Check};
use crate::period::Period;

k8s_inputs! {
    /// From what to what, and how carefully.
    {
        /// The controller whose pods go: `rc/web-v1` or `rs/web-v1`.
        from: String,
        /// The controller whose pods come: `rc/web-v2` or `rs/web-v2`.
        to: String,
        /// How many pods there shall be at the end. Default: as many as `from` and `to` have together.
        #[serde(default)]
        replicas: Option<u32>,
        /// How many pods more than `replicas` there may be meanwhile.
        #[serde(default = "one")]
        max_surge: u32,
        /// How many of the `replicas` may be missing meanwhile.
        #[serde(default)]
        max_unavailable: u32,
        /// A pause after each move.
        #[serde(default)]
        interval: Option<Period>,
        /// How long a new pod must have been ready before it counts.
        #[serde(default)]
        min_ready: Option<Period>,
        /// A check as of `http.check` that must hold after each move before the next; it is repeated for `timeout`.
        #[serde(default)]
        check: Option<Check>,
        /// For the pods of each move to come, and for the check.
        #[serde(default = "super::scale::ten_minutes")]
        timeout: Period,
    }
}

fn one() -> u32 {
    1
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// Pods that `to` has now.
    pub(crate) replicas: u32,
    /// Moves of all attempts.
    pub(crate) moves: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Capture {
    namespace: String,
    from_uid: String,
    to_uid: String,
    from: u32,
    to: u32,
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct K8sRollingUpdate(pub(crate) Clusters);

/// One of the two controllers as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Side {
    /// Wanted by its specification.
    wanted: u32,
    /// That are there.
    there: u32,
    available: u32,
    /// Its controller has seen the last change, and made or removed the pods.
    settled: bool,
}

fn count(value: &Json) -> u32 {
    value.as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or_default()
}

impl Side {
    fn of(object: &Json) -> Self {
        let wanted = object["spec"]["replicas"].as_u64().map_or(1, |n| u32::try_from(n).unwrap_or(u32::MAX));
        let there = count(&object["status"]["replicas"]);
        let seen = object["status"]["observedGeneration"].as_i64() >= object["metadata"]["generation"].as_i64();
        Self {
            wanted,
            there,
            available: count(&object["status"]["availableReplicas"]),
            settled: seen && there == wanted,
        }
    }
}

/// The bounds that every moment keeps.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// Pods of the growing side at the end.
    goal: u32,
    /// Pods of the shrinking side at the end.
    rest: u32,
    /// Never fewer available.
    least: u32,
    /// Never more there.
    most: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Done,
    /// Scale the growing side to this.
    Grow(u32),
    Shrink(u32),
    /// Pods must come or go first.
    Wait,
}

/// What to do where the two sides are so. Pods that are not available may go first: nobody uses them.
fn next(shrinking: Side, growing: Side, bounds: Bounds) -> Next {
    if !(shrinking.settled && growing.settled) {
        return Next::Wait;
    }
    let there = shrinking.there + growing.there;
    if growing.wanted < bounds.goal {
        let room = bounds.most.saturating_sub(there);
        let more = room.min(bounds.goal - growing.wanted);
        if more > 0 {
            return Next::Grow(growing.wanted + more);
        }
    }
    if shrinking.wanted > bounds.rest {
        let spare = (shrinking.available + growing.available).saturating_sub(bounds.least);
        let useless = shrinking.there.saturating_sub(shrinking.available);
        let fewer = (spare + useless).min(shrinking.wanted - bounds.rest);
        if fewer > 0 {
            return Next::Shrink(shrinking.wanted - fewer);
        }
        return Next::Wait;
    }
    if growing.wanted > bounds.goal {
        return Next::Wait;
    }
    if growing.wanted == bounds.goal && growing.available >= bounds.goal { Next::Done } else { Next::Wait }
}

/// Both controllers, in the order in which pods go from one to the other.
struct Pair<'a> {
    kube: &'a Kube<'a>,
    shrinking: Object,
    growing: Object,
    /// When each new pod was first seen ready, by uid.
    ready_since: HashMap<String, u64>,
}

impl Pair<'_> {
    async fn look(&mut self, min_ready: Option<Period>) -> Result<(Side, Side), StepError> {
        let shrinking = Side::of(&self.kube.must(&self.shrinking).await?);
        let live = self.kube.must(&self.growing).await?;
        let mut growing = Side::of(&live);
        if let Some(long) = min_ready {
            growing.available = growing.available.min(self.ready_for(&live, long).await?);
        }
        Ok((shrinking, growing))
    }

    /// Pods of the growing side that were ready whenever this process looked, for so long.
    async fn ready_for(&mut self, live: &Json, long: Period) -> Result<u32, ApiError> {
        let now = self.kube.cx.host.now_ms();
        let pods = self.kube.pods_of(&self.growing, live).await?;
        let ready = |p: &&Json| condition(p, "Ready").is_some_and(|c| c["status"] == "True");
        let owned = |p: &&Json| {
            p["metadata"]["ownerReferences"].as_array().into_iter().flatten().any(|o| text(o, "/uid") == uid(live))
        };
        let ready: Vec<_> = pods.iter().filter(ready).filter(owned).map(|p| uid(p).to_owned()).collect();
        self.ready_since.retain(|uid, _| ready.contains(uid));
        let mut enough = 0;
        for uid in ready {
            let since = *self.ready_since.entry(uid).or_insert(now);
            enough += u32::from(u128::from(now.saturating_sub(since)) >= long.0.as_millis());
        }
        Ok(enough)
    }

    /// Scales one side, if it still has as many pods wanted as was looked at.
    async fn scale(&self, object: &Object, from: u32, to: u32) -> Result<bool, StepError> {
        let live = self.kube.must(object).await?;
        if Side::of(&live).wanted != from {
            return Ok(false);
        }
        let patch = json!({ "metadata": { "resourceVersion": live["metadata"]["resourceVersion"] }, "spec": { "replicas": to } });
        let path = format!("{}/scale{}", object.path(), self.kube.query(false));
        match self.kube.call(&Ask::patch(path, Patch::Merge, &patch)).await {
            Ok(_) => Ok(true),
            Err(e) if e.is_stale() => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Moves until `bounds.goal` pods are there and `bounds.rest` are left.
    async fn roll(&mut self, inputs: &Inputs, bounds: Bounds) -> Result<(), StepError> {
        let cx = self.kube.cx;
        let mut since = cx.host.now_ms();
        let mut delay = Duration::from_millis(50);
        loop {
            let (shrinking, growing) = self.look(inputs.min_ready).await?;
            let counts = format!(
                "{}: {} of {} available, {}: {} of {}",
                self.shrinking.name,
                shrinking.available,
                shrinking.wanted,
                self.growing.name,
                growing.available,
                growing.wanted
            );
            let (object, from, to) = match next(shrinking, growing, bounds) {
                Next::Done => return Ok(()),
                Next::Grow(to) => (&self.growing, growing.wanted, to),
                Next::Shrink(to) => (&self.shrinking, shrinking.wanted, to),
                Next::Wait => {
                    if u128::from(cx.host.now_ms().saturating_sub(since)) > inputs.timeout.0.as_millis() {
                        let message = format!("no pod came or went for {} ({counts})", inputs.timeout);
                        return Err(StepError::new(Class::Timeout, message)
                            .help("look at the pods of the new controller; resume goes on from here, rollback moves the pods back"));
                    }
                    cx.phase(format!("waiting for pods; {counts}"));
                    pause(cx, delay, "the rolling update").await?;
                    delay = (delay * 2).min(Duration::from_secs(1));
                    continue;
                }
            };
            // Durable before the move: after a crash it says what this step may have left behind.
            cx.host.note(json!({ "scale": object.name, "from": from, "to": to })).await?;
            if self.scale(object, from, to).await? {
                cx.host.output(Stream::Stdout, format!("{}: {from} → {to} pods ({counts})\n", object.name).as_bytes());
                if let Some(interval) = inputs.interval {
                    pause(cx, interval.0, "the rolling update").await?;
                }
                if let Some(check) = &inputs.check {
                    holds(cx, check, inputs.timeout).await?;
                }
            }
            since = cx.host.now_ms();
            delay = Duration::from_millis(50);
        }
    }
}

/// How many moves notes tell of. One that was recorded and not made, as runback was killed in between, is recorded again.
fn moves(notes: &[Json]) -> usize {
    let moves = notes.iter().filter(|n| !text(n, "/scale").is_empty());
    moves.map(|n| (text(n, "/scale"), count(&n["from"]), count(&n["to"]))).collect::<BTreeSet<_>>().len()
}

/// Repeats the check until it holds.
async fn holds(cx: &Cx<'_>, check: &Check, limit: Period) -> Result<(), StepError> {
    let began = cx.host.now_ms();
    loop {
        let Err(error) = HttpCheck.act(cx, check, &()).await else { return Ok(()) };
        let waited = u128::from(cx.host.now_ms().saturating_sub(began));
        if error.class == Class::Cancelled || waited >= limit.0.as_millis() {
            return Err(error);
        }
        cx.phase(format!("waiting for the check: {}", error.message));
        pause(cx, Duration::from_secs(1), "the check between moves").await?;
    }
}

impl Inputs {
    async fn pair(&self, kube: &Kube<'_>) -> Result<(Object, Object), StepError> {
        let (from, to) = (kube.object(&self.from).await?, kube.object(&self.to).await?);
        for object in [&from, &to] {
            if !object.kind.is("", "ReplicationController") && !object.kind.is("apps", "ReplicaSet") {
                return Err(StepError::permanent(format!("{object} is no ReplicationController and no ReplicaSet"))
                    .help("a Deployment rolls by itself: k8s.set_image, k8s.apply or k8s.rollout"));
            }
        }
        Ok((from, to))
    }

    fn bounds(&self, capture: &Capture) -> Result<Bounds, StepError> {
        let goal = self.replicas.unwrap_or(capture.from + capture.to);
        self.between(goal, 0, goal)
    }

    fn between(&self, goal: u32, rest: u32, whole: u32) -> Result<Bounds, StepError> {
        if self.max_surge == 0 && self.max_unavailable == 0 {
            return Err(StepError::permanent("with max_surge 0 and max_unavailable 0 no pod can ever move"));
        }
        Ok(Bounds { goal, rest, least: whole.saturating_sub(self.max_unavailable), most: whole + self.max_surge })
    }
}

/// Refuses to move pods that others have scaled since the last move of this step.
fn unmoved(cx: &Cx<'_>, capture: &Capture, lives: [(&Object, &Json, u32); 2]) -> Result<(), StepError> {
    if cx.force {
        return Ok(());
    }
    let uids = [&capture.from_uid, &capture.to_uid];
    for ((object, live, captured), captured_uid) in lives.into_iter().zip(uids) {
        if uid(live) != captured_uid {
            return Err(StepError::conflict(format!("{object} is another object than at the start of this step"))
                .help("nothing was moved; `--force` moves the pods all the same"));
        }
        let notes = cx.host.notes();
        let last = notes.iter().rev().find(|n| text(n, "/scale") == object.name);
        // The last move may or may not have been done when runback was killed.
        let left = last.map_or([captured, captured], |n| [count(&n["from"]), count(&n["to"])]);
        let now = Side::of(live).wanted;
        if now != captured && !left.contains(&now) {
            let owners = fields::owners(live, &[Seg::Key("spec".to_owned()), Seg::Key("replicas".to_owned())]);
            let by = if owners.is_empty() { String::new() } else { format!(", by {}", owners.join(" and ")) };
            return Err(StepError::conflict(format!(
                "{object} has {now} replicas, where this step left {}{by}",
                left[1]
            ))
            .help("nothing was moved; settle it with the other side, or undo with --force"));
        }
    }
    Ok(())
}

#[async_trait::async_trait]
impl StepType for K8sRollingUpdate {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = Capture;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "k8s.rolling_update",
            doc: "Moves pods from one ReplicationController or ReplicaSet to another, a few at a time.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Client,
            examples: &["
- id: roll
  uses: k8s.rolling_update
  with: { from: rc/web-v1, to: rc/web-v2, max_surge: 1, max_unavailable: 0, min_ready: 10s, timeout: 5m }
"],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut found = common_problems(inputs.place());
        for (key, value) in [("from", &inputs.from), ("to", &inputs.to)] {
            found.extend(split(value).err().map(|e| problem(key, e)));
        }
        if inputs.from == inputs.to {
            found.push(problem("to", "is the same as `from`"));
        }
        if inputs.max_surge == 0 && inputs.max_unavailable == 0 {
            found.push(problem("max_surge", "and max_unavailable are both 0: no pod could ever move"));
        }
        if let Some(check) = &inputs.check {
            for mut one in HttpCheck.problems(check) {
                one.path.insert(0, "check".to_owned());
                found.push(one);
            }
        }
        found
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let kube = self.0.open(cx, inputs.place()).await?.impatient();
        let (from, to) = inputs.pair(&kube).await?;
        let (f, t) = (Side::of(&kube.must(&from).await?), Side::of(&kube.must(&to).await?));
        let goal = inputs.replicas.unwrap_or(f.wanted + t.wanted);
        let changes = f.wanted > 0 || t.wanted != goal;
        let summary = if changes {
            format!("move {from} from {} to 0 and {to} from {} to {goal} pods", f.wanted, t.wanted)
        } else {
            format!("all {goal} pods are of {to} already")
        };
        let least = goal.saturating_sub(inputs.max_unavailable);
        let details = vec![format!("at least {least} available, at most {} there", goal + inputs.max_surge)];
        Ok(Preview { changes: Some(changes), summary, details: if changes { details } else { Vec::new() } })
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Capture, StepError> {
        let kube = self.0.open(cx, inputs.place()).await?;
        let (from, to) = inputs.pair(&kube).await?;
        let (f, t) = (kube.must(&from).await?, kube.must(&to).await?);
        Ok(Capture {
            namespace: from.namespace,
            from_uid: uid(&f).to_owned(),
            to_uid: uid(&t).to_owned(),
            from: Side::of(&f).wanted,
            to: Side::of(&t).wanted,
        })
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Capture) -> Result<Acted<Outputs>, StepError> {
        let mut kube = self.0.open(cx, inputs.place()).await?;
        kube.namespace.clone_from(&capture.namespace);
        let bounds = inputs.bounds(capture)?;
        let (shrinking, growing) = inputs.pair(&kube).await?;
        let mut pair = Pair { kube: &kube, shrinking, growing, ready_since: HashMap::new() };
        pair.roll(inputs, bounds).await?;
        let changed = capture.from != 0 || capture.to != bounds.goal;
        let moves = u32::try_from(moves(&cx.host.notes())).unwrap_or(u32::MAX);
        Ok(Acted { outputs: Outputs { replicas: bounds.goal, moves }, changed })
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        inputs: &Inputs,
        capture: &Capture,
        _outputs: Option<&Outputs>,
    ) -> Result<Undone, StepError> {
        let mut kube = self.0.open(cx, inputs.place()).await?;
        kube.namespace.clone_from(&capture.namespace);
        let (from, to) = inputs.pair(&kube).await?;
        let (f, t) = (kube.must(&from).await?, kube.must(&to).await?);
        if (Side::of(&f).wanted, Side::of(&t).wanted) == (capture.from, capture.to) {
            return Ok(Undone { changed: false, note: None });
        }
        unmoved(cx, capture, [(&from, &f, capture.from), (&to, &t, capture.to)])?;
        let note = format!("{from} has {} pods again, {to} {}", capture.from, capture.to);
        // No pod of the old version is asked to be ready for long: it was in service before.
        let inputs = Inputs { min_ready: None, check: None, ..inputs.clone() };
        let bounds = inputs.between(capture.from, capture.to, capture.from + capture.to)?;
        let mut pair = Pair { kube: &kube, shrinking: to, growing: from, ready_since: HashMap::new() };
        pair.roll(&inputs, bounds).await?;
        Ok(Undone { changed: true, note: Some(note) })
    }
}

#[cfg(test)]
#[path = "rolling_update_tests.rs"]
mod tests;
