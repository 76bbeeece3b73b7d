//! When an object is ready, what it waits for where it is not, and why it does not come: the waiting reasons of its pods,
//! the last events, the last log lines of a container that crashes. Knows no step type.

use std::collections::BTreeMap;
use std::time::Duration;

use runback_core::Json;
use runback_core::step::{Class, StepError};

use super::client::{Ask, Kube, escape};
use super::error::ApiError;
use super::kind::{DEFINITION, EXTENSIONS, Kind};
use super::object::{Object, text};

/// How far an object is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stage {
    Ready,
    /// What it waits for.
    Waits(String),
    /// It will not become ready by itself.
    Failed(String),
}

use Stage::{Failed, Ready, Waits};

fn number(object: &Json, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Json::as_i64).unwrap_or_default()
}

fn wanted(object: &Json) -> i64 {
    object.pointer("/spec/replicas").and_then(Json::as_i64).unwrap_or(1)
}

pub(crate) fn condition<'a>(object: &'a Json, kind: &str) -> Option<&'a Json> {
    object["status"]["conditions"]
        .as_array()?
        .iter()
        .find(|c| c["type"].as_str().is_some_and(|t| t.eq_ignore_ascii_case(kind)))
}

fn is_true(condition: Option<&Json>) -> bool {
    condition.is_some_and(|c| c["status"] == "True")
}

/// `Reason: message` of a condition.
fn because(condition: &Json) -> String {
    [text(condition, "/reason"), text(condition, "/message")]
        .iter()
        .filter(|t| !t.is_empty())
        .copied()
        .collect::<Vec<_>>()
        .join(": ")
}

/// Counts as a person says them.
fn pods(have: i64, want: i64, what: &str) -> Stage {
    if have >= want { Ready } else { Waits(format!("{have} of {want} pods {what}")) }
}

fn first_waiting(stages: impl IntoIterator<Item = Stage>) -> Stage {
    stages.into_iter().find(|s| *s != Ready).unwrap_or(Ready)
}

/// By the object's own status alone.
pub(crate) fn stage(kind: &Kind, object: &Json) -> Stage {
    if !text(object, "/metadata/deletionTimestamp").is_empty() {
        return Waits("its deletion".to_owned());
    }
    let observed = object.pointer("/status/observedGeneration").and_then(Json::as_i64);
    if observed.is_some_and(|seen| seen < number(object, "/metadata/generation")) {
        return Waits("its controller to see the change".to_owned());
    }
    let unseen = || Waits("its controller to see it".to_owned());
    match (kind.group.as_str(), kind.kind.as_str()) {
        ("apps", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet") if observed.is_none() => unseen(),
        ("apps", "Deployment") => deployment(object),
        ("apps", "StatefulSet") => stateful_set(object),
        ("apps", "DaemonSet") => {
            let want = number(object, "/status/desiredNumberScheduled");
            first_waiting([
                pods(number(object, "/status/updatedNumberScheduled"), want, "updated"),
                pods(number(object, "/status/numberAvailable"), want, "available"),
            ])
        }
        ("apps", "ReplicaSet") | ("", "ReplicationController") => {
            let (want, have) = (wanted(object), number(object, "/status/replicas"));
            if have > want {
                return Waits(format!("{} pods to go", have - want));
            }
            first_waiting([
                pods(have, want, "made"),
                pods(number(object, "/status/availableReplicas"), want, "available"),
            ])
        }
        ("batch", "Job") => match (condition(object, "Complete"), condition(object, "Failed")) {
            (done, _) if is_true(done) => Ready,
            (_, Some(failed)) if is_true(Some(failed)) => Failed(because(failed)),
            _ => Waits(format!("its pods to finish ({} active)", number(object, "/status/active"))),
        },
        ("", "Pod") => pod(object),
        ("", "PersistentVolumeClaim") => phase(object, "Bound", &["Lost"]),
        ("", "PersistentVolume") => match text(object, "/status/phase") {
            "Available" | "Bound" => Ready,
            "Failed" => Failed(text(object, "/status/message").to_owned()),
            other => Waits(format!("its phase, now {other:?}")),
        },
        ("", "Namespace") => phase(object, "Active", &[]),
        ("", "Service") => {
            let balanced = text(object, "/spec/type") != "LoadBalancer"
                || object.pointer("/status/loadBalancer/ingress/0").is_some();
            if balanced { Ready } else { Waits("its load balancer's address".to_owned()) }
        }
        // Many ingress controllers never write an address.
        ("networking.k8s.io", "Ingress") => Ready,
        (EXTENSIONS, DEFINITION) => match condition(object, "NamesAccepted") {
            Some(c) if c["status"] == "False" => Failed(because(c)),
            _ => of_condition(object, "Established"),
        },
        ("apiregistration.k8s.io", "APIService") => of_condition(object, "Available"),
        _ => ["Ready", "Available"]
            .into_iter()
            .find(|k| condition(object, k).is_some())
            .map_or(Ready, |k| of_condition(object, k)),
    }
}

fn of_condition(object: &Json, kind: &str) -> Stage {
    match condition(object, kind) {
        c if is_true(c) => Ready,
        Some(c) if !because(c).is_empty() => Waits(format!("its condition {kind} ({})", because(c))),
        _ => Waits(format!("its condition {kind}")),
    }
}

fn phase(object: &Json, want: &str, failed: &[&str]) -> Stage {
    match text(object, "/status/phase") {
        now if now == want => Ready,
        now if failed.contains(&now) => Failed(format!("its phase is {now}")),
        now => Waits(format!("its phase {want} (now {})", if now.is_empty() { "none" } else { now })),
    }
}

fn deployment(object: &Json) -> Stage {
    if let Some(c) = condition(object, "Progressing").filter(|c| c["reason"] == "ProgressDeadlineExceeded") {
        return Failed(because(c));
    }
    if object["spec"]["paused"] == true {
        return Waits("somebody to resume it: its rollout is paused".to_owned());
    }
    let (want, have) = (wanted(object), number(object, "/status/replicas"));
    let updated = number(object, "/status/updatedReplicas");
    if updated >= want && have > updated {
        return Waits(format!("{} old pods to go", have - updated));
    }
    if have > want {
        return Waits(format!("{} pods to go", have - want));
    }
    first_waiting([
        pods(updated, want, "updated"),
        pods(number(object, "/status/availableReplicas"), want, "available"),
    ])
}

fn stateful_set(object: &Json) -> Stage {
    let (want, have) = (wanted(object), number(object, "/status/replicas"));
    if have > want {
        return Waits(format!("{} pods to go", have - want));
    }
    let partition = number(object, "/spec/updateStrategy/rollingUpdate/partition");
    let rolls = text(object, "/spec/updateStrategy/type") != "OnDelete";
    let current = text(object, "/status/currentRevision") == text(object, "/status/updateRevision");
    let updated = if current { have } else { number(object, "/status/updatedReplicas") };
    first_waiting([
        if rolls { pods(updated, (want - partition).max(0), "updated") } else { Ready },
        pods(number(object, "/status/readyReplicas"), want, "ready"),
    ])
}

fn pod(object: &Json) -> Stage {
    match text(object, "/status/phase") {
        "Succeeded" => Ready,
        "Failed" => Failed(
            [text(object, "/status/reason"), text(object, "/status/message"), "its phase is Failed"]
                .into_iter()
                .find(|t| !t.is_empty())
                .unwrap_or_default()
                .to_owned(),
        ),
        _ if is_true(condition(object, "Ready")) => Ready,
        phase => {
            let trouble = trouble(object);
            let phase = if phase.is_empty() { "Pending" } else { phase };
            Waits(if trouble.is_empty() {
                format!("it to be ready (phase {phase})")
            } else {
                format!("it to be ready ({trouble})")
            })
        }
    }
}

/// Whether a pod is in service: ready, and not about to go.
pub(crate) fn is_ready_pod(pod: &Json) -> bool {
    text(pod, "/metadata/deletionTimestamp").is_empty() && is_true(condition(pod, "Ready"))
}

/// Why a pod does not run: its containers' waiting reasons, or why it is not placed.
fn trouble(pod: &Json) -> String {
    let mut found = Vec::new();
    for list in ["initContainerStatuses", "containerStatuses"] {
        for c in pod["status"][list].as_array().into_iter().flatten() {
            let name = text(c, "/name");
            let waiting = &c["state"]["waiting"];
            let ended = &c["state"]["terminated"];
            if !because(waiting).is_empty() {
                found.push(format!("{name}: {}", because(waiting)));
            } else if ended["exitCode"].as_i64().is_some_and(|code| code != 0) {
                found.push(format!("{name}: ended with exit code {}", ended["exitCode"]));
            }
        }
    }
    if found.is_empty()
        && let Some(c) = condition(pod, "PodScheduled").filter(|c| c["status"] == "False")
    {
        found.push(because(c));
    }
    found.join("; ")
}

/// `app=web,tier in (a,b)` of a selector: matchLabels and matchExpressions, or the plain map of a ReplicationController.
pub(crate) fn selector(object: &Json) -> Option<String> {
    let selector = object["spec"]["selector"].as_object()?;
    let structured = selector.contains_key("matchLabels") || selector.contains_key("matchExpressions");
    let labels = if structured { selector.get("matchLabels").and_then(Json::as_object) } else { Some(selector) };
    let mut parts: Vec<String> = Vec::new();
    for (key, value) in labels.into_iter().flatten() {
        parts.push(format!("{key}={}", value.as_str()?));
    }
    for e in selector.get("matchExpressions").filter(|_| structured).and_then(Json::as_array).into_iter().flatten() {
        let values: Vec<_> = e["values"].as_array().into_iter().flatten().filter_map(Json::as_str).collect();
        let (key, values) = (text(e, "/key"), values.join(","));
        parts.push(match text(e, "/operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        });
    }
    (!parts.is_empty()).then(|| parts.join(","))
}

impl Kube<'_> {
    /// Waits until `look` says so, at most for `limit`; what it waits for is shown, and on a failure why.
    pub(crate) async fn wait(
        &self,
        object: &Object,
        limit: Duration,
        look: &(dyn Fn(Option<&Json>) -> Stage + Sync),
    ) -> Result<Option<Json>, StepError> {
        let host = self.cx.host;
        let began = host.now_ms();
        let mut pause = Duration::from_millis(50);
        let mut told = String::new();
        loop {
            // An API server that is away while we wait is waited for as well.
            let answer = match self.find(object).await {
                Err(e) if e.passes() => Err(format!("the API server: {}", e.reason())),
                Err(e) => return Err(e.into()),
                Ok(now) => Ok(now),
            };
            let waits = match &answer {
                Err(away) => away.clone(),
                Ok(now) => match self.served(look(now.as_ref()), object, now.as_ref()).await? {
                    Ready => return Ok(now.clone()),
                    Failed(why) => {
                        let error = StepError::permanent(format!("{object}: {why}"));
                        return Err(self.explained(error, object, now.as_ref()).await);
                    }
                    Waits(what) => what,
                },
            };
            let waited = Duration::from_millis(host.now_ms().saturating_sub(began));
            if waited >= limit {
                let error = StepError::new(
                    Class::Timeout,
                    format!("{object}: after {}s still waiting for {waits}", limit.as_secs()),
                );
                return Err(self.explained(error, object, answer.ok().flatten().as_ref()).await);
            }
            if waits != told {
                self.cx.phase(format!("{object}: waiting for {waits}"));
                told = waits;
            }
            tokio::select! {
                () = host.stopped() => {
                    return Err(StepError::new(Class::Cancelled, format!("{object}: stopped while waiting for {told}")));
                }
                () = host.sleep(pause.min(limit.saturating_sub(waited))) => {}
            }
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    /// A definition is there for others only when the API server lists its kind, which comes after the condition Established:
    /// an object of it was refused in between (seen on 1.20.2).
    async fn served(&self, stage: Stage, object: &Object, now: Option<&Json>) -> Result<Stage, StepError> {
        let Some(definition) = now.filter(|_| matches!(stage, Ready) && object.kind.is(EXTENSIONS, DEFINITION)) else {
            return Ok(stage);
        };
        if !is_true(condition(definition, "Established")) {
            return Ok(stage);
        }
        let kind = text(definition, "/spec/names/kind");
        for version in definition["spec"]["versions"].as_array().into_iter().flatten().filter(|v| v["served"] == true) {
            let api_version = format!("{}/{}", text(definition, "/spec/group"), text(version, "/name"));
            match self.is_listed(&api_version, kind).await {
                Ok(true) => {}
                Ok(false) => return Ok(Waits(format!("the API server to list {kind} of {api_version}"))),
                Err(e) if e.passes() => return Ok(Waits(format!("the API server: {}", e.reason()))),
                Err(e) => return Err(e.into()),
            }
        }
        Ok(stage)
    }

    pub(crate) async fn wait_ready(&self, object: &Object, limit: Duration) -> Result<Json, StepError> {
        let look = |now: Option<&Json>| now.map_or(Failed("it is gone".to_owned()), |o| stage(&object.kind, o));
        Ok(self.wait(object, limit, &look).await?.unwrap_or_default())
    }

    pub(crate) async fn wait_gone(&self, object: &Object, uid: &str, limit: Duration) -> Result<(), StepError> {
        let look = |now: Option<&Json>| match now {
            Some(o) if text(o, "/metadata/uid") == uid => {
                let holds: Vec<_> =
                    o["metadata"]["finalizers"].as_array().into_iter().flatten().filter_map(Json::as_str).collect();
                Waits(if holds.is_empty() {
                    "it to go".to_owned()
                } else {
                    format!("it to go (finalizers: {})", holds.join(", "))
                })
            }
            _ => Ready,
        };
        self.wait(object, limit, &look).await.map(|_| ())
    }

    /// Adds what the cluster knows of the reason. Whatever cannot be read is left out: the first error counts.
    async fn explained(&self, mut error: StepError, object: &Object, now: Option<&Json>) -> StepError {
        let Some(now) = now else { return error };
        let mut reasons = Vec::new();
        let pods = self.pods_of(object, now).await.unwrap_or_default();
        let mut grouped: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for pod in pods.iter().filter(|p| !matches!(stage_of_pod(p), Ready)) {
            let why = Some(trouble(pod)).filter(|t| !t.is_empty());
            let why = why.unwrap_or_else(|| format!("phase {}", text(pod, "/status/phase")));
            grouped.entry(why).or_default().push(text(pod, "/metadata/name"));
        }
        for (why, names) in grouped {
            let more = if names.len() > 1 { format!(" and {} more", names.len() - 1) } else { String::new() };
            reasons.push(format!("pod {}{more}: {why}", names[0]));
        }
        if let Some((pod, container)) = pods.iter().find_map(|p| Some((p, crashing(p)?))) {
            let lines = self.last_lines(object, text(pod, "/metadata/name"), &container).await;
            if !lines.is_empty() {
                reasons.push(format!("last lines of {}/{container}:\n{lines}", text(pod, "/metadata/name")));
            }
        }
        reasons.extend(self.warnings(object, now).await.unwrap_or_default());
        if !reasons.is_empty() {
            error.help = Some(reasons.join("\n"));
        }
        error
    }

    /// The pods that belong to an object; none where its kind has none.
    pub(crate) async fn pods_of(&self, object: &Object, now: &Json) -> Result<Vec<Json>, ApiError> {
        if object.kind.is("", "Pod") {
            return Ok(vec![now.clone()]);
        }
        let Some(selector) = selector(now).filter(|_| object.kind.namespaced) else { return Ok(Vec::new()) };
        let Some(pod) = self.kind_of("v1", "Pod").await? else { return Ok(Vec::new()) };
        self.list(&pod, &object.namespace, &selector).await
    }

    async fn last_lines(&self, object: &Object, pod: &str, container: &str) -> String {
        for previous in ["true", "false"] {
            let path = format!(
                "/api/v1/namespaces/{}/pods/{pod}/log?container={}&tailLines=5&limitBytes=2000&previous={previous}",
                object.namespace,
                escape(container)
            );
            if let Ok(lines) = self.text(&Ask::get(path)).await
                && !lines.trim().is_empty()
            {
                return lines.trim_end().to_owned();
            }
        }
        String::new()
    }

    /// The last three warnings about it.
    async fn warnings(&self, object: &Object, now: &Json) -> Result<Vec<String>, ApiError> {
        let namespace = if object.namespace.is_empty() { "default" } else { &object.namespace };
        let select = escape(&format!("involvedObject.uid={},type=Warning", text(now, "/metadata/uid")));
        let answer = self
            .call(&Ask::get(format!("/api/v1/namespaces/{namespace}/events?fieldSelector={select}&limit=100")))
            .await?;
        let mut events: Vec<&Json> = answer["items"].as_array().into_iter().flatten().collect();
        events.sort_by_key(|e| text(e, "/lastTimestamp").to_owned());
        Ok(events.iter().rev().take(3).map(|e| format!("event {}", because(e))).collect())
    }
}

fn stage_of_pod(pod: &Json) -> Stage {
    if text(pod, "/metadata/deletionTimestamp").is_empty() { self::pod(pod) } else { Ready }
}

/// A container that ends again and again.
fn crashing(pod: &Json) -> Option<String> {
    let statuses = pod["status"]["containerStatuses"].as_array()?;
    let crashed = |c: &&Json| {
        text(c, "/state/waiting/reason") == "CrashLoopBackOff"
            || c.pointer("/state/terminated/exitCode").is_some_and(|e| *e != 0)
    };
    statuses.iter().find(crashed).map(|c| text(c, "/name").to_owned())
}

#[cfg(test)]
#[path = "readiness_tests.rs"]
mod tests;
