//! `k8s.port_forward`: a port of this machine leads to a port of a pod, until the block that the step stands in ends.
//!
//! Steps after it in the same block reach the pod at `127.0.0.1` and the output `local_port`; at the top of a playbook it stays
//! for the whole way forward. `resource` is a pod, or a workload or Service, of which a ready pod is taken, and another one
//! when that has gone. Each connection is forwarded by itself, as by kubectl, but a broken one does not end the others. A run that
//! is taken up inside the block opens it again at the same local port. It changes nothing, so there is nothing to undo.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use runback_core::Json;
use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, Held, InputProblem, OnInterrupt, Preview, Probe, StepError, StepType,
    UndoKind,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};

use super::client::{Clusters, k8s_inputs};
use super::object::{common_problems, problem, split, text};
use super::pods::pod_port;
use super::readiness::{is_ready_pod, selector};

k8s_inputs! {
    /// Where it leads.
    {
        /// `pod/web-0`, or a workload or Service, such as `svc/web`.
        resource: String,
        /// The port, by number or name; of a Service its own port, else the pod's.
        port: Json,
        /// The port of this machine. Default: a free one, see the output `local_port`.
        #[serde(default)]
        local_port: Option<u16>,
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// The port of this machine.
    pub(crate) local_port: u16,
    /// `127.0.0.1:PORT`.
    pub(crate) address: String,
    /// The pod that was there when it was opened.
    pub(crate) pod: String,
    /// The pod's port.
    pub(crate) pod_port: u16,
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct K8sPortForward(pub(crate) Clusters);

impl Inputs {
    fn port(&self) -> String {
        self.port.as_str().map_or_else(|| self.port.to_string(), str::to_owned)
    }
}

/// Where connections go.
struct Way {
    api: Api<Pod>,
    /// Of the pods that may take its place.
    selector: Option<String>,
    pod: Mutex<String>,
    port: u16,
}

impl Way {
    async fn connect(&self) -> Result<tokio::io::DuplexStream, String> {
        let pod = self.pod.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let first = match self.open(&pod).await {
            Ok(stream) => return Ok(stream),
            Err(e) => e,
        };
        let Some(other) = self.another().await else { return Err(first) };
        let stream = self.open(&other).await?;
        *self.pod.lock().unwrap_or_else(PoisonError::into_inner) = other;
        Ok(stream)
    }

    async fn open(&self, pod: &str) -> Result<tokio::io::DuplexStream, String> {
        let mut forwarder = self.api.portforward(pod, &[self.port]).await.map_err(|e| super::error::chain(&e))?;
        forwarder.take_stream(self.port).ok_or_else(|| "the port has no stream".to_owned())
    }

    async fn another(&self) -> Option<String> {
        let all = self.api.list(&ListParams::default().labels(self.selector.as_ref()?)).await.ok()?;
        let ready = |pod: &&Pod| serde_json::to_value(pod).is_ok_and(|p| is_ready_pod(&p));
        all.items.iter().find(ready)?.metadata.name.clone()
    }
}

/// Ends the tunnel, its connections too, when the block does.
struct Tunnel(tokio::task::JoinHandle<()>);

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn carry(way: Arc<Way>, mut from: TcpStream) {
    // Who connected sees it closed, as from a port behind which nothing is.
    if let Ok(mut to) = way.connect().await {
        let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
    }
}

async fn serve(listener: TcpListener, way: Arc<Way>) {
    let mut open = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((from, _)) => drop(open.spawn(carry(way.clone(), from))),
                // Out of file descriptors, for a moment.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            },
            Some(_) = open.join_next() => {}
        }
    }
}

async fn listen(port: u16) -> Result<TcpListener, StepError> {
    TcpListener::bind(("127.0.0.1", port)).await.map_err(|e| {
        StepError::transient(format!("the local port {port} cannot be had: {e}"))
            .help("something else listens there; leave `local_port` out to get a free one")
    })
}

#[async_trait::async_trait]
impl StepType for K8sPortForward {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = ();

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "k8s.port_forward",
            doc: "A local port leads to a port of a Kubernetes pod, until the block around the step ends.",
            access: Access::Reads,
            undo: UndoKind::None,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Client,
            examples: &["
- id: inside
  steps:
    - id: tunnel
      uses: k8s.port_forward
      with: { resource: svc/web, namespace: shop, port: 80 }
    - uses: http.check
      with: { url: 'http://{{ steps.tunnel.outputs.address }}/' }
"],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut found = common_problems(inputs.place());
        found.extend(split(&inputs.resource).err().map(|e| problem("resource", e)));
        let port = &inputs.port;
        if !port.is_string() && port.as_u64().is_none_or(|n| n == 0 || n > 65535) {
            found.push(problem("port", "must be a port's number or name"));
        }
        found
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let kube = self.0.open(cx, inputs.place()).await?.impatient();
        let object = kube.object(&inputs.resource).await?;
        let (live, pod) = kube.pod_for(&object).await?;
        let port = pod_port(&object, &live, &pod, &inputs.port())?;
        let summary = format!("forward a local port to {port} of the pod {}", text(&pod, "/metadata/name"));
        Ok(Preview { changes: Some(false), summary, details: Vec::new() })
    }

    async fn capture(&self, _cx: &Cx<'_>, _inputs: &Inputs) -> Result<(), StepError> {
        Ok(())
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, (): &()) -> Result<Acted<Outputs>, StepError> {
        let kube = self.0.open(cx, inputs.place()).await?;
        let object = kube.object(&inputs.resource).await?;
        let (live, pod) = kube.pod_for(&object).await?;
        let port = pod_port(&object, &live, &pod, &inputs.port())?;
        // Who may not forward, or to a node that does not answer, is told here and not by a broken connection.
        drop(kube.forward(&pod, port).await?);
        let listener = listen(inputs.local_port.unwrap_or(0)).await?;
        let local = listener.local_addr().map_err(|e| StepError::transient(format!("a local port: {e}")))?;
        Ok(Acted::unchanged(Outputs {
            local_port: local.port(),
            address: local.to_string(),
            pod: text(&pod, "/metadata/name").to_owned(),
            pod_port: port,
        }))
    }

    async fn probe(&self, _cx: &Cx<'_>, _inputs: &Inputs, (): &()) -> Result<Probe<Outputs>, StepError> {
        Ok(Probe::NotDone)
    }

    fn holds(&self) -> bool {
        true
    }

    async fn hold(&self, cx: &Cx<'_>, inputs: &Inputs, outputs: &Outputs) -> Result<Option<Held>, StepError> {
        let kube = self.0.open(cx, inputs.place()).await?;
        let object = kube.object(&inputs.resource).await?;
        let live = kube.must(&object).await?;
        let way = Way {
            api: kube.pod_api(&object.namespace),
            selector: selector(&live).filter(|_| !object.kind.is("", "Pod")),
            pod: Mutex::new(outputs.pod.clone()),
            port: outputs.pod_port,
        };
        let listener = listen(outputs.local_port).await?;
        Ok(Some(Box::new(Tunnel(tokio::spawn(serve(listener, Arc::new(way)))))))
    }
}
