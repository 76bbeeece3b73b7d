//! The cluster of the suite: started and stopped by tests/real/kube, talked to by curl so that nothing of the product vouches
//! for itself, with a kubelet that says of every pod that it runs. Knows no step type.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

/// What a controller may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Namespaces whose pods are placed on nodes and run there, as far as tests/real/kube/kubelet does that.
const NODED: &[&str] = &["inside-", "playbook-prometheus", "playbook-nginx", "playbook-model"];

pub(crate) enum Started {
    Here(Cluster),
    Skipped(String),
}

/// How the API server is reached; what the kubelet's thread has of the cluster.
#[derive(Clone)]
pub(crate) struct Api {
    tls: PathBuf,
    url: String,
    kinds: OnceLock<Vec<(String, String)>>,
}

pub(crate) struct Cluster {
    pub(crate) api: Api,
    dir: tempfile::TempDir,
    /// Stops the cluster when this process is gone, however it went.
    guard: Child,
    kubelet: Option<JoinHandle<()>>,
    /// Plays the nodes of the namespaces of [`NODED`]. Ends when its standard input does.
    nodes: Child,
    stopping: Arc<AtomicBool>,
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real/kube").join(name)
}

impl Cluster {
    pub(crate) fn start() -> Started {
        let dir = tempfile::Builder::new().prefix("runback-kube-").tempdir().expect("a temporary folder");
        let watch = "cat >/dev/null; \"$1\" \"$2\"; rm -rf \"$2\"";
        let mut guard = Command::new("setsid");
        let guard = guard.args(["bash", "-c", watch, "guard"]).arg(script("down")).arg(dir.path());
        let guard = guard.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("bash");
        let up = Command::new(script("up")).arg(dir.path()).output().expect("tests/real/kube/up");
        let why = String::from_utf8_lossy(&up.stderr).trim().to_owned();
        if up.status.code() == Some(77) {
            end(guard);
            return Started::Skipped(why);
        }
        assert!(up.status.success(), "the cluster does not start: {why}");
        let config = std::fs::read_to_string(dir.path().join("kubeconfig")).expect("up writes it");
        let url = config
            .split("server: \"")
            .nth(1)
            .and_then(|r| r.split('"').next())
            .expect("it names the server")
            .to_owned();
        let api = Api { tls: dir.path().join("tls"), url, kinds: OnceLock::new() };
        let stopping = Arc::new(AtomicBool::new(false));
        let kubelet = {
            let (api, stopping) = (api.clone(), stopping.clone());
            std::thread::spawn(move || play_kubelet(&api, &stopping))
        };
        let mut nodes = Command::new(script("kubelet"));
        let nodes = nodes.arg(dir.path()).args(NODED).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut nodes = nodes.spawn().expect("python3");
        let mut said = String::new();
        let stdout = nodes.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut said).expect("it says that it is ready");
        assert_eq!(said, "ready\n", "tests/real/kube/kubelet does not start");
        Started::Here(Self { api, dir, guard, kubelet: Some(kubelet), nodes, stopping })
    }

    pub(crate) fn stop(mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        if let Some(kubelet) = self.kubelet.take() {
            let _ = kubelet.join();
        }
        end(self.nodes);
        end(self.guard);
    }

    /// Port `port` of pods of a namespace that is played leads to `there`, a port of this machine.
    pub(crate) fn lead(&self, namespace: &str, port: u16, there: u16) {
        let dir = self.dir.path().join("ports").join(namespace);
        std::fs::create_dir_all(&dir).expect("the folder is ours");
        std::fs::write(dir.join(port.to_string()), there.to_string()).expect("the folder is ours");
    }

    pub(crate) fn version(&self) -> String {
        self.api.get("/version")["gitVersion"].as_str().unwrap_or("?").to_owned()
    }

    pub(crate) fn kubeconfig(&self) -> String {
        self.dir.path().join("kubeconfig").display().to_string()
    }

    /// Of a user without any rights.
    pub(crate) fn eve(&self) -> String {
        self.dir.path().join("eve.kubeconfig").display().to_string()
    }

    pub(crate) fn make_namespace(&self, name: &str) {
        let body = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
        self.api.must("POST", "/api/v1/namespaces", &body);
        // What controllers put into each namespace, since 1.20. Pods are refused before their service account is there, and
        // what came later would seem to be of the test.
        for made in ["serviceaccounts/default", "configmaps/kube-root-ca.crt"] {
            until(made, || self.api.find(&format!("/api/v1/namespaces/{name}/{made}")).is_some());
        }
    }

    fn pid(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(format!("{name}.pid"))).expect("up writes it").trim().to_owned()
    }

    pub(crate) fn stop_api_server(&self) {
        let pid = self.pid("kube-apiserver");
        assert!(Command::new("kill").args(["-KILL", &pid]).status().expect("kill").success());
        until("the API server to end", || !Path::new(&format!("/proc/{pid}/fd/0")).exists());
    }

    pub(crate) fn start_api_server(&self) {
        let command = std::fs::read_to_string(self.dir.path().join("kube-apiserver.command")).expect("up writes it");
        let log = self.dir.path().join("kube-apiserver.again.log");
        let line = format!("setsid nohup {command} >{} 2>&1 </dev/null & echo $!", log.display());
        let started = Command::new("bash").args(["-c", &line]).output().expect("bash");
        std::fs::write(self.dir.path().join("kube-apiserver.pid"), &started.stdout).expect("the folder is ours");
    }
}

fn end(mut guard: Child) {
    drop(guard.stdin.take());
    let _ = guard.wait();
}

/// Asks again and again until it is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What is seen as soon as no controller changes it any more.
pub(crate) fn at_rest<T: PartialEq>(mut look: impl FnMut() -> T) -> T {
    let mut last = look();
    until("the controllers to be done", || {
        std::thread::sleep(Duration::from_secs(3));
        let before = std::mem::replace(&mut last, look());
        before == last
    });
    last
}

/// A request whose answer goes on. Ends with this.
pub(crate) struct Watching(pub(crate) Child);

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Api {
    fn curl(&self) -> Command {
        let tls = |name: &str| self.tls.join(name).display().to_string();
        let mut curl = Command::new("curl");
        curl.args(["-s", "--cacert", &tls("ca.crt"), "--cert", &tls("admin.crt"), "--key", &tls("admin.key")]);
        curl
    }

    pub(crate) fn watch(&self, path: &str) -> Watching {
        let mut curl = self.curl();
        curl.args(["-N", &format!("{}{path}", self.url)]).stdin(Stdio::null()).stdout(Stdio::piped());
        Watching(curl.stderr(Stdio::null()).spawn().expect("curl"))
    }

    /// The status and the answer; 0 where there was none.
    pub(crate) fn send(&self, method: &str, path: &str, kind: &str, body: Option<&Json>) -> (u16, Json) {
        let (code, answer) = self.ask(method, path, kind, body);
        (code, serde_json::from_str(&answer).unwrap_or_default())
    }

    fn ask(&self, method: &str, path: &str, kind: &str, body: Option<&Json>) -> (u16, String) {
        let mut curl = self.curl();
        curl.args(["-m", "60", "-w", "\n%{http_code}", "-X", method]);
        if body.is_some() {
            curl.args(["-H", &format!("content-type: application/{kind}"), "--data-binary", "@-"]);
        }
        curl.arg(format!("{}{path}", self.url)).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = curl.spawn().expect("curl");
        let mut stdin = child.stdin.take().expect("piped");
        if let Some(body) = body {
            let _ = stdin.write_all(body.to_string().as_bytes());
        }
        drop(stdin);
        let output = child.wait_with_output().expect("curl ends");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (answer, code) = text.rsplit_once('\n').unwrap_or(("", "0"));
        (code.parse().unwrap_or(0), answer.to_owned())
    }

    /// How many requests for a kind the API server has answered so far, by verb, subresource and code: its own count,
    /// `apiserver_request_total`.
    pub(crate) fn answered(&self, plural: &str, wanted: impl Fn(&str, &str, &str) -> bool) -> usize {
        let (code, metrics) = self.ask("GET", "/metrics", "", None);
        assert_eq!(code, 200, "the API server counts");
        let label = |line: &str, name: &str| {
            let start = line.find(&format!("{name}=\"")).map(|at| at + name.len() + 2)?;
            Some(line[start..].split('"').next()?.to_owned())
        };
        let lines = metrics.lines().filter(|l| l.starts_with("apiserver_request_total{"));
        let counted = lines.filter_map(|line| {
            let of = |name: &str| label(line, &format!(",{name}"));
            let ours = of("resource")? == plural
                && wanted(&of("verb")?, &of("subresource")?, &of("code").or_else(|| label(line, "{code"))?);
            ours.then(|| line.rsplit(' ').next()?.parse::<f64>().ok()).flatten()
        });
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        let sum = counted.sum::<f64>() as usize;
        sum
    }

    pub(crate) fn find(&self, path: &str) -> Option<Json> {
        let (code, answer) = self.send("GET", path, "", None);
        (code == 200).then_some(answer)
    }

    pub(crate) fn get(&self, path: &str) -> Json {
        self.find(path).unwrap_or_else(|| panic!("{path} is not there"))
    }

    /// The paths' beginnings and names of all kinds that namespaces hold and that can be listed, as the API server tells of them;
    /// without those that only report on others.
    fn kinds(&self) -> &[(String, String)] {
        self.kinds.get_or_init(|| {
            let groups = self.get("/apis")["groups"].as_array().cloned().unwrap_or_default();
            let versions = groups
                .iter()
                .filter_map(|g| Some(format!("/apis/{}", g["preferredVersion"]["groupVersion"].as_str()?)));
            // `ingresses` of `extensions` are those of `networking.k8s.io` (before 1.22).
            let reports = ["events", "endpoints", "endpointslices", "leases", "controllerrevisions"];
            let mut kinds = Vec::new();
            for at in std::iter::once("/api/v1".to_owned()).chain(versions) {
                for kind in self.find(&at).unwrap_or_default()["resources"].as_array().into_iter().flatten() {
                    let name = kind["name"].as_str().unwrap_or_default();
                    let lists = kind["verbs"].as_array().is_some_and(|v| v.contains(&json!("list")));
                    let twice = at.contains("/extensions/");
                    if kind["namespaced"] == true && lists && !name.contains('/') && !reports.contains(&name) && !twice
                    {
                        kinds.push((at.clone(), name.to_owned()));
                    }
                }
            }
            let knows = |name: &str| kinds.iter().any(|k| k.1 == name);
            assert!(knows("deployments") && knows("configmaps") && knows("roles"), "{kinds:?}");
            kinds
        })
    }

    /// All that a namespace holds, whatever it is, by the plural of its kind.
    pub(crate) fn everything(&self, namespace: &str) -> Vec<(&str, Vec<Json>)> {
        let listed = self.kinds().iter().map(|(at, plural)| {
            let list = self.find(&format!("{at}/namespaces/{namespace}/{plural}")).unwrap_or_default();
            (plural.as_str(), list["items"].as_array().cloned().unwrap_or_default())
        });
        listed.collect()
    }

    pub(crate) fn must(&self, method: &str, path: &str, body: &Json) -> Json {
        let (code, answer) = self.send(method, path, "json", Some(body));
        assert!((200..300).contains(&code), "{method} {path}: {code} {answer}");
        answer
    }

    /// A change by somebody else.
    pub(crate) fn merge(&self, path: &str, manager: &str, body: &Json) -> Json {
        let full = format!("{path}?fieldManager={manager}");
        let (code, answer) = self.send("PATCH", &full, "merge-patch+json", Some(body));
        assert!((200..300).contains(&code), "PATCH {path}: {code} {answer}");
        answer
    }

    fn status(&self, pod: &Json, status: &Json) {
        let text = |key: &str| pod["metadata"][key].as_str().unwrap_or_default();
        let path = format!("/api/v1/namespaces/{}/pods/{}/status", text("namespace"), text("name"));
        // A pod that is gone meanwhile is none of its business any more.
        let _ = self.send("PATCH", &path, "strategic-merge-patch+json", Some(&json!({ "status": status })));
    }
}

/// Says of every pod that it runs, apart from those whose image is `broken`: these can never be pulled. A pod of an image
/// `task` ends well at once. A pod that is labelled `hands-off` is left to its test.
fn play_kubelet(api: &Api, stopping: &AtomicBool) {
    while !stopping.load(Ordering::Relaxed) {
        let pods = api.find("/api/v1/pods").unwrap_or_default();
        for pod in pods["items"].as_array().into_iter().flatten() {
            let seen = pod["status"]["containerStatuses"].is_array();
            let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
            if seen
                || NODED.iter().any(|n| namespace.starts_with(n))
                || pod["metadata"]["deletionTimestamp"].is_string()
                || pod["metadata"]["labels"]["hands-off"].is_string()
            {
                continue;
            }
            api.status(pod, &told(pod));
        }
        std::thread::sleep(Duration::from_millis(150));
    }
}

fn told(pod: &Json) -> Json {
    let containers = pod["spec"]["containers"].as_array().cloned().unwrap_or_default();
    let image = |c: &Json| c["image"].as_str().unwrap_or_default().to_owned();
    let broken = containers.iter().any(|c| image(c).starts_with("broken"));
    let task = containers.iter().all(|c| image(c).starts_with("task"));
    let now = "2026-01-01T00:00:00Z";
    let state = |c: &Json| {
        if image(c).starts_with("broken") {
            json!({ "waiting": { "reason": "ImagePullBackOff", "message": format!("no image {}", image(c)) } })
        } else if task {
            json!({ "terminated": { "exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now } })
        } else {
            json!({ "running": { "startedAt": now } })
        }
    };
    let statuses: Vec<Json> = containers
        .iter()
        .map(|c| json!({ "name": c["name"], "image": c["image"], "imageID": "", "ready": !broken && !task, "restartCount": 0, "state": state(c) }))
        .collect();
    let ready = if broken || task { "False" } else { "True" };
    let phase = if broken {
        "Pending"
    } else if task {
        "Succeeded"
    } else {
        "Running"
    };
    json!({
        "phase": phase,
        "conditions": [
            { "type": "PodScheduled", "status": "True", "lastTransitionTime": now },
            { "type": "Ready", "status": ready, "lastTransitionTime": now },
        ],
        "containerStatuses": statuses,
    })
}
