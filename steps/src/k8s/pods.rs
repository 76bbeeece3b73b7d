//! What one reaches inside a pod: its output as it grows, a program started in it, its ports. Knows which pod a workload or a
//! Service stands for, and no step type.

use std::pin::pin;

use futures_util::io::AsyncBufRead;
use http::Request;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, AttachParams, Portforwarder};
use kube::client::UpgradeConnectionError;
use runback_core::Json;
use runback_core::step::StepError;
use runback_core::target::Stream;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::client::{Ask, Kube, escape};
use super::error::ApiError;
use super::object::{Object, text};
use super::readiness::is_ready_pod;

/// What a program in a container wrote, and how it ended.
#[derive(Debug, Default)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    /// The first `keep` bytes.
    pub(crate) stdout: Vec<u8>,
    pub(crate) stdout_cut: bool,
    /// The last 4 KiB.
    pub(crate) stderr_tail: Vec<u8>,
}

const TAIL: usize = runback_core::target::Exit::TAIL;

/// The container that is meant: the named one, the pod's default, or its only one.
pub(crate) fn container(pod: &Json, wanted: Option<&str>) -> Result<String, StepError> {
    let of = |list: &str| pod["spec"][list].as_array().cloned().unwrap_or_default();
    let names: Vec<String> = of("containers").iter().map(|c| text(c, "/name").to_owned()).collect();
    let name = text(pod, "/metadata/name");
    let marked = pod["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"].as_str();
    if let Some(wanted) = wanted {
        let known = names.iter().any(|n| n == wanted) || of("initContainers").iter().any(|c| c["name"] == wanted);
        return if known {
            Ok(wanted.to_owned())
        } else {
            Err(StepError::permanent(format!("the pod {name} has no container `{wanted}`"))
                .help(format!("it has {}", names.join(", "))))
        };
    }
    match (marked, &names[..]) {
        (Some(marked), _) if names.iter().any(|n| n == marked) => Ok(marked.to_owned()),
        (_, [only]) => Ok(only.clone()),
        _ => Err(StepError::permanent(format!("the pod {name} has {} containers", names.len()))
            .help(format!("say which one by `container:`: {}", names.join(", ")))),
    }
}

/// The number of a port of a pod that a Service's port stands for; ports of pods by name or number.
pub(crate) fn pod_port(object: &Object, live: &Json, pod: &Json, port: &str) -> Result<u16, StepError> {
    let number = |value: &Json| value.as_u64().and_then(|n| u16::try_from(n).ok());
    let named = |name: &str| {
        let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
        let mut ports = containers.flat_map(|c| c["ports"].as_array().into_iter().flatten());
        ports.find(|p| p["name"] == name).and_then(|p| number(&p["containerPort"]))
    };
    let missing = |what: &str| {
        StepError::permanent(format!("{object}: {what}")).help("give the port's number, or its name as the pod has it")
    };
    if !object.kind.is("", "Service") {
        let found = port.parse().ok().or_else(|| named(port));
        return found.ok_or_else(|| missing(&format!("its pod has no port named `{port}`")));
    }
    let mut ports = live["spec"]["ports"].as_array().into_iter().flatten();
    let of_service = ports
        .find(|p| p["name"] == port || number(&p["port"]).is_some_and(|n| port.parse() == Ok(n)))
        .ok_or_else(|| missing(&format!("it has no port `{port}`")))?;
    match &of_service["targetPort"] {
        Json::String(name) => named(name).ok_or_else(|| missing(&format!("its pod has no port named `{name}`"))),
        Json::Null => number(&of_service["port"]).ok_or_else(|| missing("its port has no number")),
        target => number(target).ok_or_else(|| missing("its target port has no number")),
    }
}

impl Kube<'_> {
    pub(super) fn pod_api(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.cluster.client.clone(), namespace)
    }

    /// The pod that a resource stands for: itself, or one of its own that is ready, the oldest first.
    pub(crate) async fn pod_for(&self, object: &Object) -> Result<(Json, Json), StepError> {
        let live = self.must(object).await?;
        if object.kind.is("", "Pod") {
            return Ok((live.clone(), live));
        }
        let mut pods = self.pods_of(object, &live).await?;
        pods.sort_by_key(|p| (!is_ready_pod(p), text(p, "/metadata/creationTimestamp").to_owned()));
        match pods.into_iter().next() {
            Some(pod) => Ok((live, pod)),
            None => Err(StepError::transient(format!("{object} has no pods"))
                .help("scale it up, or wait for it with k8s.wait; kinds without a selector have no pods")),
        }
    }

    /// The whole answer to a GET as it comes, bit by bit, until its end.
    pub(crate) async fn stream(&self, path: &str, sink: &mut (dyn FnMut(&[u8]) + Send)) -> Result<(), ApiError> {
        let name = format!("GET {path}");
        let request = Request::get(path).body(Vec::new()).map_err(|e| ApiError::garbled(&name, &e.to_string()))?;
        let stopped = || ApiError::cancelled(&name);
        let opened = tokio::select! {
            biased;
            opened = self.cluster.client.request_stream(request) => opened,
            () = self.cx.host.stopped() => return Err(stopped()),
        };
        let mut reader = pin!(opened.map_err(|e| ApiError::of(&name, self.url(), e))?);
        loop {
            let next = std::future::poll_fn(|task| reader.as_mut().poll_fill_buf(task).map_ok(<[u8]>::to_vec));
            let chunk = tokio::select! {
                biased;
                chunk = next => chunk.map_err(|e| ApiError::lost(&name, self.url(), &e.to_string()))?,
                () = self.cx.host.stopped() => return Err(stopped()),
            };
            if chunk.is_empty() {
                return Ok(());
            }
            sink(&chunk);
            reader.as_mut().consume(chunk.len());
        }
    }

    /// Runs a program in a container to its end; its output goes to the step's, and `keep` bytes of stdout come back.
    pub(crate) async fn exec(
        &self,
        pod: &Json,
        container: &str,
        command: &[String],
        keep: usize,
    ) -> Result<Ran, StepError> {
        let (namespace, name) = (text(pod, "/metadata/namespace"), text(pod, "/metadata/name"));
        let mut path = format!("/api/v1/namespaces/{namespace}/pods/{name}/exec?stdout=true&stderr=true");
        path.push_str(&format!("&container={}", escape(container)));
        for word in command {
            path.push_str(&format!("&command={}", escape(word)));
        }
        let params = AttachParams::default().container(container).max_stdout_buf_size(64 << 10);
        let api = self.pod_api(namespace);
        let mut process = self.upgraded(&path, api.exec(name, command.to_vec(), &params)).await?;
        let mut ran = Ran::default();
        let status = process.take_status();
        let (stdout, stderr) = (process.stdout(), process.stderr());
        let mut tail = Vec::new();
        let host = self.cx.host;
        let both = async {
            tokio::join!(
                copy(stdout, |bytes| {
                    host.output(Stream::Stdout, bytes);
                    let room = keep.saturating_sub(ran.stdout.len()).min(bytes.len());
                    ran.stdout.extend_from_slice(&bytes[..room]);
                    ran.stdout_cut |= room < bytes.len();
                }),
                copy(stderr, |bytes| {
                    host.output(Stream::Stderr, bytes);
                    tail.extend_from_slice(bytes);
                    tail.drain(..tail.len().saturating_sub(TAIL));
                }),
            );
            match status {
                Some(status) => status.await,
                None => None,
            }
        };
        let status = tokio::select! {
            biased;
            status = both => status,
            () = host.stopped() => return Err(ApiError::cancelled(&path).into()),
        };
        ran.stderr_tail = tail;
        let Some(status) = status else {
            return Err(StepError::transient(format!(
                "the connection to the container {container} of {name} was lost before its program ended"
            ))
            .help("the program may still run there; look before it is started again"));
        };
        let status = serde_json::to_value(&status).unwrap_or_default();
        ran.code = exit_code(&status);
        if ran.code.is_none() {
            return Err(StepError::permanent(format!(
                "the program in the container {container} of {name} could not be run: {}",
                text(&status, "/message")
            )));
        }
        Ok(ran)
    }

    /// A connection to a port of a pod.
    pub(crate) async fn forward(&self, pod: &Json, port: u16) -> Result<Portforwarder, StepError> {
        let (namespace, name) = (text(pod, "/metadata/namespace"), text(pod, "/metadata/name"));
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/portforward?ports={port}");
        self.upgraded(&path, self.pod_api(namespace).portforward(name, &[port])).await
    }

    async fn upgraded<T>(
        &self,
        path: &str,
        connecting: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, StepError> {
        let done = tokio::select! {
            biased;
            done = connecting => done,
            () = self.cx.host.stopped() => return Err(ApiError::cancelled(path).into()),
        };
        match done {
            Ok(open) => Ok(open),
            Err(kube::Error::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(status))) => {
                // The refusal's words are lost. The same request as a plain one starts nothing, and is refused for
                // the same reason, unless that is the only thing wrong with it.
                match self.call(&Ask::get(path)).await {
                    Err(e) if e.code() == status.as_u16() && !e.reason().contains("pgrade request required") => {
                        Err(e.into())
                    }
                    _ => Err(StepError::transient(format!("{}: {path}: HTTP {status}", self.url()))
                        .help("the API server could not reach the pod's node, or its kubelet refused")),
                }
            }
            Err(e) => Err(ApiError::of(&format!("GET {path}"), self.url(), e).into()),
        }
    }
}

/// Of the status that ends an exec: Success, or a cause `ExitCode`.
fn exit_code(status: &Json) -> Option<i32> {
    if status["status"] == "Success" {
        return Some(0);
    }
    let causes = status["details"]["causes"].as_array()?;
    causes.iter().find(|c| c["reason"] == "ExitCode")?["message"].as_str()?.parse().ok()
}

async fn copy(reader: Option<impl AsyncRead + Unpin>, mut sink: impl FnMut(&[u8])) {
    let Some(mut reader) = reader else { return };
    let mut buffer = vec![0; 16 << 10];
    // A stream that breaks is told by the status that does not come.
    while let Ok(n @ 1..) = reader.read(&mut buffer).await {
        sink(&buffer[..n]);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;
    use crate::k8s::kind::tests::plain;

    fn pod() -> Json {
        json!({ "metadata": { "name": "web-0" }, "spec": { "containers": [
            { "name": "main", "ports": [{ "name": "http", "containerPort": 8080 }] }, { "name": "side" }] } })
    }

    #[test]
    fn the_container_is_named_marked_or_alone() {
        let mut pod = pod();
        assert!(container(&pod, None).unwrap_err().help.unwrap().contains("main, side"));
        assert_eq!(container(&pod, Some("side")).unwrap(), "side");
        assert_eq!(container(&pod, Some("no")).unwrap_err().message, "the pod web-0 has no container `no`");
        pod["metadata"]["annotations"] = json!({ "kubectl.kubernetes.io/default-container": "side" });
        assert_eq!(container(&pod, None).unwrap(), "side");
    }

    #[test]
    fn ports_lead_to_the_pod() {
        let service = Object::new(plain("v1", "Service"), "web", "n");
        let live = json!({ "spec": { "ports": [{ "name": "www", "port": 80, "targetPort": "http" }, { "port": 81, "targetPort": 9 }, { "port": 82 }] } });
        let of = |port: &str| pod_port(&service, &live, &pod(), port);
        assert_eq!((of("www").unwrap(), of("80").unwrap(), of("81").unwrap(), of("82").unwrap()), (8080, 8080, 9, 82));
        assert_eq!(of("8080").unwrap_err().message, "service/web in n: it has no port `8080`");
        let workload = Object::new(plain("apps/v1", "Deployment"), "web", "n");
        assert_eq!(pod_port(&workload, &Json::Null, &pod(), "http").unwrap(), 8080);
        assert_eq!(pod_port(&workload, &Json::Null, &pod(), "9999").unwrap(), 9999);
        assert!(pod_port(&workload, &Json::Null, &pod(), "nope").is_err());
    }

    #[test]
    fn exit_codes_come_from_the_status() {
        assert_eq!(exit_code(&json!({ "status": "Success" })), Some(0));
        let failed = json!({ "status": "Failure", "reason": "NonZeroExitCode", "details": { "causes": [{ "reason": "ExitCode", "message": "3" }] } });
        assert_eq!(exit_code(&failed), Some(3));
        assert_eq!(exit_code(&json!({ "status": "Failure", "message": "no such file" })), None);
    }
}
