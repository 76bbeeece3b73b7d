//! `k8s.logs`: reads what a container wrote, or waits until it writes something.
//!
//! `resource` is a pod, or a workload or Service, of which the oldest ready pod is taken. Without `expect` the log as it is
//! becomes the step's own output. With it the log is followed until a line matches; a log that ends before, and one that is
//! silent for `timeout`, are errors. Lines longer than 64 KiB are cut for matching.

use std::time::Duration;

use regex::Regex;
use runback_core::step::{
    Access, Acted, Class, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, Probe, StepError, StepType,
    UndoKind,
};
use runback_core::target::Stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::client::{Clusters, escape, k8s_inputs};
use super::object::{common_problems, problem, split, text};
use super::pods::container;
use crate::period::Period;

/// How much of a log becomes an output, and how much of a line is matched, in bytes.
const KEPT: usize = 64 << 10;

k8s_inputs! {
    /// Whose log.
    {
        /// `pod/web-0`, or a workload or Service, such as `deploy/web`.
        resource: String,
        /// The container. Default: the pod's default one, or its only one.
        #[serde(default)]
        container: Option<String>,
        /// Only the last lines, so many.
        #[serde(default)]
        tail: Option<u32>,
        /// Only what is younger than this.
        #[serde(default)]
        since: Option<Period>,
        /// Of the container that was there before it was started again.
        #[serde(default)]
        previous: bool,
        /// Follow the log until a line matches this regular expression.
        #[serde(default)]
        expect: Option<String>,
        /// How long to wait for that line. Default: 1m.
        #[serde(default = "one_minute")]
        timeout: Period,
    }
}

fn one_minute() -> Period {
    Period(Duration::from_secs(60))
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// The pod that was read.
    pub(crate) pod: String,
    /// The container in it.
    pub(crate) container: String,
    /// The last 64 KiB.
    pub(crate) text: String,
    /// How many lines there were.
    pub(crate) lines: u64,
    /// What `expect` found: its first group, or all of the match; null without it.
    pub(crate) matched: Option<String>,
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct K8sLogs(pub(crate) Clusters);

/// A log as it comes in.
#[derive(Debug, Default)]
struct Read {
    all: Vec<u8>,
    line: Vec<u8>,
    lines: u64,
    matched: Option<String>,
}

impl Read {
    fn take(&mut self, bytes: &[u8], expect: Option<&Regex>) {
        self.all.extend_from_slice(bytes);
        self.all.drain(..self.all.len().saturating_sub(KEPT));
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            let room = KEPT.saturating_sub(self.line.len());
            self.line.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                self.end_line(expect);
            }
        }
    }

    fn end_line(&mut self, expect: Option<&Regex>) {
        if self.line.is_empty() {
            return;
        }
        self.lines += 1;
        let line = String::from_utf8_lossy(&self.line);
        if let (None, Some(found)) = (&self.matched, expect.and_then(|e| e.captures(line.trim_end()))) {
            self.matched = found.get(1).or_else(|| found.get(0)).map(|m| m.as_str().to_owned());
        }
        self.line.clear();
    }
}

#[async_trait::async_trait]
impl StepType for K8sLogs {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = ();

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "k8s.logs",
            doc: "Reads the log of a container of a Kubernetes pod, or waits for a line in it.",
            access: Access::Reads,
            undo: UndoKind::None,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Client,
            examples: &[
                "\n- id: log\n  uses: k8s.logs\n  with: { resource: deploy/web, tail: 50 }\n",
                "\n- id: started\n  uses: k8s.logs\n  with: { resource: pod/db-0, expect: 'ready to accept connections', timeout: 2m }\n",
            ],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut found = common_problems(inputs.place());
        found.extend(split(&inputs.resource).err().map(|e| problem("resource", e)));
        if let Some(Err(e)) = inputs.expect.as_deref().map(Regex::new) {
            found.push(problem("expect", e.to_string()));
        }
        if inputs.previous && inputs.expect.is_some() {
            found.push(problem("expect", "a container that has ended writes no more: `previous` cannot be waited for"));
        }
        found
    }

    async fn preview(&self, _cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let summary = match &inputs.expect {
            Some(expect) => format!("wait for `{expect}` in the log of {}", inputs.resource),
            None => format!("read the log of {}", inputs.resource),
        };
        Ok(Preview { changes: Some(false), summary, details: Vec::new() })
    }

    async fn capture(&self, _cx: &Cx<'_>, _inputs: &Inputs) -> Result<(), StepError> {
        Ok(())
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, (): &()) -> Result<Acted<Outputs>, StepError> {
        let kube = self.0.open(cx, inputs.place()).await?;
        let (_, pod) = kube.pod_for(&kube.object(&inputs.resource).await?).await?;
        let container = container(&pod, inputs.container.as_deref())?;
        let expect = inputs.expect.as_deref().map(Regex::new).transpose();
        let expect = expect.map_err(|e| StepError::permanent(format!("expect: {e}")))?;
        let name = text(&pod, "/metadata/name").to_owned();
        let mut path = format!(
            "/api/v1/namespaces/{}/pods/{name}/log?container={}&previous={}&follow={}",
            text(&pod, "/metadata/namespace"),
            escape(&container),
            inputs.previous,
            expect.is_some(),
        );
        path.extend(inputs.tail.map(|n| format!("&tailLines={n}")));
        path.extend(inputs.since.map(|s| format!("&sinceSeconds={}", s.0.as_secs().max(1))));
        let mut read = Read::default();
        let (found, mut met) = tokio::sync::mpsc::channel::<()>(1);
        let mut sink = |bytes: &[u8]| {
            cx.host.output(Stream::Stdout, bytes);
            read.take(bytes, expect.as_ref());
            if read.matched.is_some() {
                let _ = found.try_send(());
            }
        };
        let waits = expect.is_some();
        if let Some(e) = &inputs.expect {
            cx.phase(format!("waiting for `{e}` in the log of {name}/{container}"));
        }
        let ended = tokio::select! {
            biased;
            ended = kube.stream(&path, &mut sink) => Some(ended),
            _ = met.recv() => None,
            () = cx.host.sleep(inputs.timeout.0), if waits => {
                let expect = inputs.expect.as_deref().unwrap_or_default();
                let message = format!("{name}/{container} wrote nothing that matches `{expect}` within {}", inputs.timeout);
                return Err(StepError::new(Class::Timeout, message).help("look at what it wrote: `runback logs`"));
            }
        };
        if let Some(ended) = ended {
            ended?;
        }
        read.end_line(expect.as_ref());
        if let (Some(expect), None) = (&inputs.expect, &read.matched) {
            return Err(StepError::transient(format!(
                "the log of {name}/{container} ended without a match of `{expect}`"
            ))
            .help("the container has ended: see why with `runback logs`, and its pod's status"));
        }
        let text = String::from_utf8_lossy(&read.all).into_owned();
        Ok(Acted::unchanged(Outputs { pod: name, container, text, lines: read.lines, matched: read.matched }))
    }

    async fn probe(&self, _cx: &Cx<'_>, _inputs: &Inputs, (): &()) -> Result<Probe<Outputs>, StepError> {
        Ok(Probe::NotDone)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn lines_are_put_together_and_matched() {
        let expect = Regex::new("port (\\d+)$").unwrap();
        let mut read = Read::default();
        for piece in [&b"one\nlisten"[..], b"ing on port 80", b"80\nport 9\nrest"] {
            read.take(piece, Some(&expect));
        }
        assert_eq!((read.lines, read.matched.as_deref()), (3, Some("8080")));
        read.end_line(None);
        assert_eq!((read.lines, read.all.len()), (4, 38));
        let mut long = Read::default();
        long.take(&vec![b'x'; KEPT * 3], None);
        assert_eq!((long.all.len(), long.line.len()), (KEPT, KEPT));
    }
}
