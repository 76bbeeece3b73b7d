//! `k8s.run`: runs a program in the cluster, as a Job or a Pod, to its end: its log is the step's output, its exit code decides.
//!
//! With `until: ready` it starts a Pod that stays, as `kubectl run nginx` does. What runs is followed by its name: a step that was
//! interrupted goes on watching the same Job, and never starts a second one beside it. A Job that ended well is deleted
//! unless `keep: true`; one that failed stays for people to look at. **Undo** stops and deletes what this step created. What the
//! program did elsewhere stays: give the step a `rollback:` for that.

use std::collections::BTreeMap;
use std::time::Duration;

use runback_core::Json;
use runback_core::step::{
    Access, Acted, Class, Commands, Cx, Descriptor, InputProblem, OnInterrupt, OutputNames, Preview, StepError,
    StepType, UndoKind, Undone,
};
use runback_core::target::{Exit, Stream};
use runback_core::template::ValueTemplate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::client::{Ask, Clusters, Kube, k8s_inputs};
use super::object::{Object, common_problems, problem, split, text, uid};
use super::readiness::{Stage, condition};
use crate::bounded::pause;
use crate::command_outputs::{self, CommandOutputs, OutputSpecs};
use crate::period::Period;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// Makes a new pod where a node is lost.
    #[default]
    Job,
    /// One pod, as it is.
    Pod,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Until {
    /// The program has ended.
    #[default]
    Ended,
    /// The pod is ready; it stays.
    Ready,
}

k8s_inputs! {
    /// What to run.
    {
        /// The name of the Job or Pod.
        name: String,
        /// The image of its container, which is named `main`.
        image: String,
        /// The program and its arguments, in place of the image's own.
        #[serde(default)]
        command: Vec<String>,
        /// Arguments of the image's program, or more of `command`.
        #[serde(default)]
        args: Vec<String>,
        /// Environment of the program. Values are to be read in the cluster: for secrets use `spec` and a Secret.
        #[serde(default)]
        variables: BTreeMap<String, String>,
        /// `job` or `pod`.
        #[serde(default)]
        kind: Kind,
        /// What is waited for: `ended` or `ready`.
        #[serde(default)]
        until: Until,
        /// Labels of the Job and its pod.
        #[serde(default)]
        labels: BTreeMap<String, String>,
        /// A port that the container listens on.
        #[serde(default)]
        port: Option<u16>,
        /// More keys of the pod's `spec`: volumes, serviceAccountName, nodeSelector. `containers` is merged into `main`'s by
        /// its first item.
        #[serde(default)]
        spec: Option<Json>,
        /// Keep the Job or Pod when it has ended well.
        #[serde(default)]
        keep: bool,
        /// Name → where its value comes from in the log: `stdout`, `{json: path}` or `{regex: pattern}`.
        #[serde(default)]
        outputs: OutputSpecs,
        /// Exit codes that are a success.
        #[serde(default = "command_outputs::zero")]
        ok_codes: Vec<i32>,
        /// For the program to end, or the pod to be ready.
        #[serde(default = "super::scale::ten_minutes")]
        timeout: Period,
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Capture {
    namespace: String,
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct K8sRun(pub(crate) Clusters);

/// Says whose step made an object.
const MARK: &str = "runback.dev/step";
const MAIN: &str = "main";

fn merge(into: &mut Json, more: &Json) {
    match (into, more) {
        (Json::Object(into), Json::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key.clone()).or_insert(Json::Null), value);
            }
        }
        (into, more) => *into = more.clone(),
    }
}

impl Inputs {
    fn word(&self) -> &'static str {
        if self.kind == Kind::Job { "job" } else { "pod" }
    }

    fn manifest(&self, mark: &str) -> Json {
        let mut main = json!({ "name": MAIN, "image": self.image });
        for (key, words) in [("command", &self.command), ("args", &self.args)] {
            if !words.is_empty() {
                main[key] = json!(words);
            }
        }
        if !self.variables.is_empty() {
            let list: Vec<Json> = self.variables.iter().map(|(n, v)| json!({ "name": n, "value": v })).collect();
            main["env"] = json!(list);
        }
        if let Some(port) = self.port {
            main["ports"] = json!([{ "containerPort": port }]);
        }
        let restart = if self.until == Until::Ready { "Always" } else { "Never" };
        let mut spec = json!({ "restartPolicy": restart, "containers": [main] });
        if let Some(more) = &self.spec {
            let mut more = more.clone();
            let containers = more.as_object_mut().and_then(|m| m.shift_remove("containers"));
            merge(&mut spec, &more);
            let mut extra = containers.and_then(|c| c.as_array().cloned()).unwrap_or_default().into_iter();
            if let Some(first) = extra.next() {
                merge(&mut spec["containers"][0], &first);
            }
            if let Some(list) = spec["containers"].as_array_mut() {
                list.extend(extra);
            }
        }
        let mut meta = json!({ "name": self.name, "annotations": { MARK: mark } });
        if !self.labels.is_empty() {
            meta["labels"] = json!(self.labels);
        }
        if self.kind == Kind::Pod {
            return json!({ "apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec });
        }
        let template = json!({ "metadata": { "labels": self.labels }, "spec": spec });
        json!({ "apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": { "backoffLimit": 0, "template": template } })
    }

    async fn object(&self, kube: &Kube<'_>) -> Result<Object, StepError> {
        kube.object(&format!("{}/{}", self.word(), self.name)).await
    }
}

fn mark(cx: &Cx<'_>) -> String {
    format!("{}/{}", cx.run, cx.step)
}

/// Made by this step, also where runback was killed before it heard of that. Two stores may know the same run id.
fn is_ours(cx: &Cx<'_>, live: &Json) -> bool {
    live["metadata"]["annotations"][MARK] == mark(cx) && cx.host.notes().iter().any(|n| n["creates"].is_string())
}

/// The state of the main container: its key (`running`, …) and what it says.
fn state(pod: &Json) -> Option<(&str, &Json)> {
    let mut statuses = pod["status"]["containerStatuses"].as_array()?.iter();
    let (key, value) = statuses.find(|c| c["name"] == MAIN)?["state"].as_object()?.iter().next()?;
    Some((key, value))
}

fn code(pod: &Json) -> Option<i32> {
    let (_, ended) = state(pod).filter(|(key, _)| *key == "terminated")?;
    ended["exitCode"].as_i64().and_then(|c| i32::try_from(c).ok())
}

fn left(cx: &Cx<'_>, began: u64, limit: Period) -> Duration {
    limit.0.saturating_sub(Duration::from_millis(cx.host.now_ms().saturating_sub(began)))
}

impl Kube<'_> {
    /// Creates it, or finds the one that an interrupted attempt of this step has created.
    async fn begin(&self, object: &Object, inputs: &Inputs) -> Result<Json, StepError> {
        let cx = self.cx;
        if let Some(live) = self.find(object).await? {
            if !is_ours(cx, &live) {
                return Err(StepError::conflict(format!("{object} is there already, and this step did not make it"))
                    .help("give another `name:`, such as one with {{ run.id }} in it, or delete it first"));
            }
            let over = |n: &Json| text(n, "/ended") == uid(&live);
            if !cx.host.notes().iter().any(over) && text(&live, "/metadata/deletionTimestamp").is_empty() {
                return Ok(live);
            }
            self.remove(object, &live, inputs.timeout).await?;
        }
        cx.host.note(json!({ "creates": object.path() })).await?;
        let path = format!("{}{}", object.kind.collection(&object.namespace), self.query(false));
        match self.call(&Ask::post(path, &inputs.manifest(&mark(cx)))).await {
            Ok(live) => Ok(live),
            // The request was sent twice, and the first had come through.
            Err(e) if e.exists_already() => self.must(object).await,
            Err(e) => Err(e.into()),
        }
    }

    async fn remove(&self, object: &Object, live: &Json, limit: Period) -> Result<(), StepError> {
        let options = json!({ "propagationPolicy": "Foreground", "preconditions": { "uid": uid(live) } });
        match self.call(&Ask::delete(object.path(), &options)).await {
            Err(e) if !e.is_absent() && e.code() != 409 => return Err(e.into()),
            _ => {}
        }
        self.wait_gone(object, uid(live), limit.0).await
    }

    /// The pod, once its program has begun, or is known never to begin.
    async fn begun(&self, object: &Object, live: &Json, limit: Duration) -> Result<Object, StepError> {
        let cx = self.cx;
        let began = cx.host.now_ms();
        loop {
            let pod = if object.kind.is("", "Pod") {
                Some(object.clone())
            } else {
                let pods = self.pods_of(object, live).await?;
                let last = pods.iter().max_by_key(|p| text(p, "/metadata/creationTimestamp").to_owned());
                let kind = self.kind("pods").await?;
                last.map(|p| Object::new(kind, text(p, "/metadata/name"), &object.namespace))
            };
            if let Some(pod) = pod
                && let Some(live) = self.find(&pod).await?
                && matches!(state(&live), Some(("running" | "terminated", _)))
            {
                return Ok(pod);
            }
            if u128::from(cx.host.now_ms().saturating_sub(began)) >= limit.as_millis() {
                let look = |_: Option<&Json>| Stage::Waits("its program to begin".to_owned());
                // Says why, as every wait does.
                self.wait(object, Duration::ZERO, &look).await?;
            }
            cx.phase(format!("{object}: waiting for its pod to begin"));
            pause(cx, Duration::from_millis(250), &object.to_string()).await?;
        }
    }

    /// Follows the log to its end; what of it was seen before a lost connection is not shown again.
    async fn follow(&self, pod: &Object, keep: usize, began: u64, limit: Period) -> Result<Exit, StepError> {
        let cx = self.cx;
        let (mut seen, mut kept, mut cut) = (0usize, Vec::new(), false);
        let path = format!("{}/log?container={MAIN}&follow=true", pod.path());
        loop {
            let mut at = 0usize;
            let mut sink = |bytes: &[u8]| {
                let fresh = &bytes[seen.saturating_sub(at).min(bytes.len())..];
                at += bytes.len();
                seen = seen.max(at);
                cx.host.output(Stream::Stdout, fresh);
                let room = keep.saturating_sub(kept.len()).min(fresh.len());
                kept.extend_from_slice(&fresh[..room]);
                cut |= room < fresh.len();
            };
            let rest = left(cx, began, limit);
            let ended = tokio::select! {
                biased;
                ended = self.stream(&path, &mut sink) => ended,
                () = cx.host.sleep(rest) => Ok(()),
            };
            match ended {
                Err(e) if !e.passes() => return Err(e.into()),
                Err(e) => cx.phase(format!("the log of {pod}: {}", e.reason())),
                Ok(()) => {}
            }
            let live = self.must(pod).await?;
            if let Some(code) = code(&live) {
                return Ok(Exit { code: Some(code), stdout: kept, stdout_cut: cut, ..Exit::default() });
            }
            if left(cx, began, limit).is_zero() {
                return Err(StepError::new(Class::Timeout, format!("{pod}: its program runs still after {limit}"))
                    .help("it goes on running; give it a longer `timeout:`, or roll back, which stops it"));
            }
            pause(cx, Duration::from_millis(250), &pod.to_string()).await?;
        }
    }
}

/// What an earlier attempt of this step saw at the end of the program, where the run went down before it could say so.
fn ended_well(cx: &Cx<'_>, inputs: &Inputs) -> Option<CommandOutputs> {
    let notes = cx.host.notes();
    let last = notes.last().filter(|n| n["ended"].is_string())?;
    let code = last["code"].as_i64().and_then(|c| i32::try_from(c).ok())?;
    let outputs = serde_json::from_value(last["outputs"].clone()).ok()?;
    inputs.ok_codes.contains(&code).then_some(outputs)
}

#[async_trait::async_trait]
impl StepType for K8sRun {
    type Inputs = Inputs;
    type Outputs = CommandOutputs;
    type Capture = Capture;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "k8s.run",
            doc: "Runs a program in a Kubernetes cluster, as a Job or a Pod, with its log and exit code.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Client,
            examples: &[
                "\n- id: migrate\n  uses: k8s.run\n  with: { name: 'migrate-{{ run.id }}', image: 'shop/db:4', command: [migrate, up], timeout: 30m }\n",
                "\n- id: web\n  uses: k8s.run\n  with: { name: nginx, image: 'nginx:1.27', kind: pod, until: ready, port: 80, labels: { app: nginx } }\n",
            ],
        }
    }

    fn output_names(&self, with: &ValueTemplate) -> OutputNames {
        command_outputs::names(with)
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut found = common_problems(inputs.place());
        let wrong = split(&format!("job/{}", inputs.name)).is_err();
        found.extend(wrong.then(|| problem("name", format!("`{}` is not a name", inputs.name))));
        if inputs.image.is_empty() || inputs.image.contains(char::is_whitespace) {
            found.push(problem("image", format!("`{}` is not an image", inputs.image)));
        }
        if inputs.until == Until::Ready && inputs.kind == Kind::Job {
            found.push(problem("until", "a Job is there to end: `until: ready` needs `kind: pod`"));
        }
        if inputs.until == Until::Ready && !inputs.outputs.is_empty() {
            found.push(problem("outputs", "come from a program that has ended; read a log by k8s.logs"));
        }
        if inputs.spec.as_ref().is_some_and(|s| !s.is_object()) {
            found.push(problem("spec", "must be a map, as the `spec` of a pod"));
        }
        found.extend(command_outputs::problems(&inputs.outputs, false));
        found.extend(command_outputs::code_problems(&inputs.ok_codes, None));
        found
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let kube = self.0.open(cx, inputs.place()).await?.impatient();
        let object = inputs.object(&kube).await?;
        let path = format!("{}{}", object.kind.collection(&object.namespace), kube.query(true));
        // The API server says what it would refuse: quotas, admission, a wrong `spec`.
        if let Err(e) = kube.call(&Ask::post(path, &inputs.manifest(&mark(cx)))).await
            && !e.is_absent()
        {
            return Err(e.into());
        }
        Ok(Preview { changes: Some(true), summary: format!("run {} as {object}", inputs.image), details: Vec::new() })
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Capture, StepError> {
        let kube = self.0.open(cx, inputs.place()).await?;
        Ok(Capture { namespace: kube.namespace })
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Capture) -> Result<Acted<CommandOutputs>, StepError> {
        let began = cx.host.now_ms();
        let mut kube = self.0.open(cx, inputs.place()).await?;
        kube.namespace.clone_from(&capture.namespace);
        let object = inputs.object(&kube).await?;
        if let Some(outputs) = ended_well(cx, inputs) {
            finish(&kube, &object, inputs).await?;
            return Ok(Acted::changed(outputs));
        }
        let live = kube.begin(&object, inputs).await?;
        if inputs.until == Until::Ready {
            kube.wait_ready(&object, left(cx, began, inputs.timeout)).await?;
            return Ok(Acted::changed(command_outputs::collect(&inputs.outputs, &Exit::default(), "")?));
        }
        // The API server fills in the selector of a Job's pods.
        let pod = kube.begun(&object, &live, left(cx, began, inputs.timeout)).await?;
        cx.phase(format!("{object}: following its log"));
        let exit = kube.follow(&pod, command_outputs::keep(&inputs.outputs), began, inputs.timeout).await?;
        if !exit.code.is_some_and(|code| inputs.ok_codes.contains(&code)) {
            cx.host.note(json!({ "ended": uid(&live), "code": exit.code })).await?;
            let log = exit.stdout_text() + if exit.stdout_cut { "…" } else { "" };
            let last = log.lines().rev().find(|l| !l.trim().is_empty()).map(|l| format!(": {}", l.trim()));
            let message = format!("{object}: {}{}", exit.describe(), last.unwrap_or_default());
            let told = StepError::permanent(message).help("its log is the step's output: `runback logs`");
            return Err(StepError { exit_code: exit.code, ..told });
        }
        let outputs = command_outputs::collect(&inputs.outputs, &exit, "")?;
        // Durable before the Job goes: without it a run that is killed here would start the program again.
        cx.host.note(json!({ "ended": uid(&live), "code": exit.code, "outputs": outputs })).await?;
        finish(&kube, &object, inputs).await?;
        Ok(Acted::changed(outputs))
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        inputs: &Inputs,
        capture: &Capture,
        _outputs: Option<&CommandOutputs>,
    ) -> Result<Undone, StepError> {
        let mut kube = self.0.open(cx, inputs.place()).await?;
        kube.namespace.clone_from(&capture.namespace);
        let object = inputs.object(&kube).await?;
        let nothing = |note| Ok(Undone { changed: false, note });
        let Some(live) = kube.find(&object).await? else { return nothing(None) };
        if !is_ours(cx, &live) {
            return nothing(Some(format!("{object} stays: this step did not make it")));
        }
        kube.remove(&object, &live, inputs.timeout).await?;
        Ok(Undone { changed: true, note: Some(format!("{object} is deleted")) })
    }
}

/// Deletes what ended well, once its controller has seen its end, too.
async fn finish(kube: &Kube<'_>, object: &Object, inputs: &Inputs) -> Result<(), StepError> {
    if !inputs.keep {
        return match kube.find(object).await? {
            Some(live) if is_ours(kube.cx, &live) => kube.remove(object, &live, inputs.timeout).await,
            _ => Ok(()),
        };
    }
    if inputs.kind == Kind::Job {
        let told = |live: &Json| ["Complete", "Failed"].iter().any(|k| condition(live, k).is_some());
        let look = |now: Option<&Json>| match now {
            Some(live) if !told(live) => Stage::Waits("its controller to see its end".to_owned()),
            _ => Stage::Ready,
        };
        kube.wait(object, inputs.timeout.0, &look).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn inputs(with: Json) -> Inputs {
        serde_json::from_value(with).unwrap()
    }

    #[test]
    fn the_objects_are_what_was_asked_for() {
        let job = inputs(json!({ "name": "j", "image": "i", "command": ["a", "b"], "variables": { "K": "v" },
            "spec": { "serviceAccountName": "s", "containers": [{ "resources": { "limits": { "cpu": "1" } } }, { "name": "side", "image": "x" }] } }));
        let made = job.manifest("r/s");
        assert_eq!(made["metadata"]["annotations"][MARK], "r/s");
        let spec = &made["spec"]["template"]["spec"];
        assert_eq!(spec["restartPolicy"], "Never");
        assert_eq!(
            spec["containers"],
            json!([{ "name": "main", "image": "i", "command": ["a", "b"], "env": [{ "name": "K", "value": "v" }],
                "resources": { "limits": { "cpu": "1" } } }, { "name": "side", "image": "x" }])
        );
        let pod = inputs(
            json!({ "name": "p", "image": "i", "kind": "pod", "until": "ready", "port": 80, "labels": { "app": "p" } }),
        );
        let made = pod.manifest("r/s");
        assert_eq!((&made["kind"], &made["spec"]["restartPolicy"]), (&json!("Pod"), &json!("Always")));
        assert_eq!(made["spec"]["containers"][0]["ports"][0]["containerPort"], 80);
    }

    #[test]
    fn an_exit_code_is_read_from_the_main_container() {
        let pod = |state: Json| {
            json!({ "status": { "containerStatuses": [
            { "name": "side", "state": { "running": {} } }, { "name": "main", "state": state }] } })
        };
        assert_eq!(code(&pod(json!({ "terminated": { "exitCode": 3 } }))), Some(3));
        assert_eq!(code(&pod(json!({ "running": {} }))), None);
        assert_eq!(code(&json!({})), None);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let found = K8sRun(Clusters::default())
            .problems(&inputs(json!({ "name": "a/b", "image": "x y", "until": "ready", "spec": [] })));
        let keys: Vec<_> = found.iter().map(|p| p.path[0].as_str()).collect();
        assert_eq!(keys, ["name", "image", "until", "spec"]);
    }
}
