//! A playbook that a test writes, and the binary that runs it with a store of its own. Knows no step type.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::{Value as Json, json};

use crate::cluster::Cluster;

pub(crate) struct Play {
    dir: tempfile::TempDir,
    kubeconfig: String,
    file: PathBuf,
    env: Vec<(String, String)>,
}

/// How the binary ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    /// Both streams.
    pub(crate) text: String,
}

impl Ended {
    #[track_caller]
    pub(crate) fn is(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}", self.text);
        self
    }

    #[track_caller]
    pub(crate) fn says(self, what: &str) -> Self {
        // Lines are folded at the terminal's width.
        let flat = self.text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(flat.contains(what), "`{what}` is not in:\n{}", self.text);
        self
    }

    #[track_caller]
    pub(crate) fn lacks(self, what: &str) -> Self {
        assert!(!self.text.contains(what), "`{what}` is in:\n{}", self.text);
        self
    }
}

impl Play {
    /// A playbook of these steps.
    pub(crate) fn new(cluster: &Cluster, steps: &Json) -> Self {
        let playbook = json!({ "runback": 1, "name": "test", "steps": steps });
        Self::of_text(cluster, &playbook.to_string())
    }

    pub(crate) fn of_text(cluster: &Cluster, text: &str) -> Self {
        Self::at(cluster.kubeconfig(), text)
    }

    pub(crate) fn at(kubeconfig: String, text: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let file = dir.path().join("test.yaml");
        std::fs::write(&file, text).expect("the folder is ours");
        Self { dir, kubeconfig, file, env: Vec::new() }
    }

    /// Of a playbook whose API server listens without TLS at a port of this machine.
    pub(crate) fn at_port(port: u16, namespace: &str, text: &str) -> Self {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{ "name": "c", "cluster": { "server": format!("http://127.0.0.1:{port}") } }],
            "users": [{ "name": "u", "user": {} }],
            "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u", "namespace": namespace } }],
        });
        let play = Self::at(String::new(), text);
        play.put("kubeconfig", &config.to_string());
        let at = play.path("kubeconfig");
        play.with_kubeconfig(at)
    }

    /// One that ships, where it lies.
    pub(crate) fn of_shipped(cluster: &Cluster, name: &str) -> Self {
        let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("playbooks").join(name);
        Self { file, ..Self::of_text(cluster, "") }
    }

    pub(crate) fn with_kubeconfig(mut self, path: String) -> Self {
        self.kubeconfig = path;
        self
    }

    pub(crate) fn with_env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn put(&self, name: &str, text: &str) {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(path.parent().expect("it is in the folder")).expect("the folder is ours");
        std::fs::write(path, text).expect("the folder is ours");
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn command(&self, verb: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runback"));
        command.envs(self.env.iter().cloned());
        command.arg(verb).args(arguments).env("KUBECONFIG", &self.kubeconfig).env("NO_COLOR", "1");
        command.env("RUNBACK_STATE_DIR", self.dir.path().join("state")).stdin(Stdio::null());
        command
    }

    fn file(&self) -> String {
        self.file.display().to_string()
    }

    pub(crate) fn does(&self, verb: &str, arguments: &[&str]) -> Ended {
        let output = self.command(verb, arguments).output().expect("the binary starts");
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        Ended { code: output.status.code().unwrap_or(-1), text }
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        let file = self.file();
        self.does("run", &[&[file.as_str(), "--run-id", "r1"], arguments].concat())
    }

    pub(crate) fn plan(&self, arguments: &[&str]) -> Ended {
        let file = self.file();
        self.does("plan", &[&[file.as_str()], arguments].concat())
    }

    pub(crate) fn rollback(&self, arguments: &[&str]) -> Ended {
        self.does("rollback", &[&["r1"], arguments].concat())
    }

    pub(crate) fn resume(&self) -> Ended {
        self.does("resume", &["r1"])
    }

    /// None of these words is in any file that the runs of this playbook wrote.
    pub(crate) fn lacks(&self, words: &[&str]) {
        let mut todo = vec![self.dir.path().join("state")];
        let mut files = 0;
        while let Some(at) = todo.pop() {
            if at.is_dir() {
                todo.extend(std::fs::read_dir(&at).expect("it is ours").map(|e| e.expect("it is ours").path()));
                continue;
            }
            files += 1;
            let bytes = std::fs::read(&at).expect("it is ours");
            let found = words.iter().find(|w| bytes.windows(w.len()).any(|part| part == w.as_bytes()));
            assert_eq!(found, None, "in {}", at.display());
        }
        assert!(files > 0, "there is nothing to look at");
    }

    /// Runs it without waiting for its end.
    pub(crate) fn start(&self, verb: &str) -> Child {
        let file = self.file();
        let arguments: Vec<&str> = if verb == "run" { vec![&file, "--run-id", "r1"] } else { vec!["r1"] };
        let mut command = self.command(verb, &arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary starts")
    }
}

/// A Deployment, ReplicaSet or StatefulSet with pods of one container.
pub(crate) fn workload(api_version: &str, kind: &str, name: &str, replicas: u32, image: &str) -> Json {
    let labels = json!({ "app": name });
    let selector = if kind == "ReplicationController" { labels.clone() } else { json!({ "matchLabels": labels }) };
    let mut object = json!({
        "apiVersion": api_version, "kind": kind, "metadata": { "name": name },
        "spec": {
            "replicas": replicas, "selector": selector,
            "template": { "metadata": { "labels": labels }, "spec": { "terminationGracePeriodSeconds": 0, "containers": [{ "name": "main", "image": image }] } },
        },
    });
    if kind == "StatefulSet" {
        object["spec"]["serviceName"] = json!(name);
    }
    object
}

pub(crate) fn deployment(name: &str, replicas: u32, image: &str) -> Json {
    workload("apps/v1", "Deployment", name, replicas, image)
}

/// The path of an object of the usual kinds.
pub(crate) fn path(namespace: &str, plural: &str, name: &str) -> String {
    let prefix = match plural {
        "deployments" | "replicasets" | "statefulsets" | "daemonsets" => "/apis/apps/v1",
        "jobs" => "/apis/batch/v1",
        _ => "/api/v1",
    };
    let end = if name.is_empty() { String::new() } else { format!("/{name}") };
    format!("{prefix}/namespaces/{namespace}/{plural}{end}")
}

/// An object without what the server keeps for itself.
pub(crate) fn own(mut object: Json) -> Json {
    object["status"] = Json::Null;
    if let Some(meta) = object["metadata"].as_object_mut() {
        let servers = ["uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "selfLink"];
        meta.retain(|key, _| !servers.contains(&key.as_str()));
        if let Some(notes) = meta.get_mut("annotations").and_then(Json::as_object_mut) {
            notes.remove("deployment.kubernetes.io/revision");
            if notes.is_empty() {
                meta.remove("annotations");
            }
        }
    }
    object
}
