//! `k8s.configmap` and `k8s.secret`: make a ConfigMap or Secret of files beside the playbook and of values.
//!
//! `files` names a file for each key, `dir` takes every file of a folder under its name, `env_file` every `NAME=value` line of
//! a file, `values` what stands in the playbook; a later one of these wins over an earlier. Files that are no UTF-8 go into
//! `binaryData` of a ConfigMap. They are made by server-side apply: keys that an earlier run put there and that are not given
//! any more go, keys of others stay. Values of a Secret appear nowhere: not in a plan, not in the journal, not in outputs.
//! **Undo** as that of `k8s.apply`: what was not there is deleted, fields of what was are as before. Replaced values of a
//! Secret are never kept and cannot come back.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use runback_core::Json;
use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind, Undone,
};
use serde_json::{Map, json};

use super::apply::{self, K8sApply};
use super::client::{Clusters, k8s_inputs};
use super::object::{common_problems, problem, split};

/// What an API server takes for one object, in bytes.
const LIMIT: usize = 1 << 20;

/// Where the data comes from.
struct Sources<'a> {
    files: &'a BTreeMap<String, String>,
    dir: Option<&'a str>,
    env_file: Option<&'a str>,
    values: &'a BTreeMap<String, String>,
}

fn is_key(key: &str) -> bool {
    !key.is_empty() && key.len() <= 253 && key.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
}

impl Sources<'_> {
    fn problems(&self) -> Vec<InputProblem> {
        let mut found = Vec::new();
        for (list, map) in [("files", self.files), ("values", self.values)] {
            for key in map.keys().filter(|k| !is_key(k)) {
                let message = "a key has letters, digits, `-`, `_` and `.` only".to_owned();
                found.push(InputProblem { path: vec![list.to_owned(), key.clone()], message, help: None });
            }
        }
        if self.files.is_empty() && self.values.is_empty() && self.dir.is_none() && self.env_file.is_none() {
            found.push(problem("values", "is missing, and so are `files`, `dir` and `env_file`"));
        }
        found
    }

    async fn read(&self, cx: &Cx<'_>) -> Result<BTreeMap<String, Vec<u8>>, StepError> {
        let mut all = BTreeMap::new();
        if let Some(dir) = self.dir {
            let dir = cx.local_path(dir);
            let mut entries = tokio::fs::read_dir(&dir).await.map_err(|e| broken(&dir, &e))?;
            while let Some(entry) = entries.next_entry().await.map_err(|e| broken(&dir, &e))? {
                let path = entry.path();
                let name = entry.file_name().to_string_lossy().into_owned();
                if path.is_file() && is_key(&name) {
                    all.insert(name, file(&path).await?);
                }
            }
        }
        if let Some(path) = self.env_file {
            let path = cx.local_path(path);
            let text = String::from_utf8(file(&path).await?)
                .map_err(|_| StepError::permanent(format!("{} is no UTF-8", path.display())))?;
            all.extend(pairs(&path, &text)?);
        }
        for (key, path) in self.files {
            all.insert(key.clone(), file(&cx.local_path(path)).await?);
        }
        all.extend(self.values.iter().map(|(key, value)| (key.clone(), value.clone().into_bytes())));
        let size: usize = all.values().map(Vec::len).sum();
        if size > LIMIT {
            return Err(StepError::permanent(format!(
                "{size} bytes are more than the {LIMIT} that one object may hold"
            )));
        }
        Ok(all)
    }
}

fn broken(path: &Path, error: &std::io::Error) -> StepError {
    StepError::permanent(format!("{}: {error}", path.display())).help("the path counts from the playbook's folder")
}

async fn file(path: &Path) -> Result<Vec<u8>, StepError> {
    let size = tokio::fs::metadata(path).await.map_err(|e| broken(path, &e))?.len();
    if size > LIMIT as u64 {
        return Err(StepError::permanent(format!("{} has {size} bytes, more than {LIMIT}", path.display())));
    }
    tokio::fs::read(path).await.map_err(|e| broken(path, &e))
}

/// `NAME=value` lines; the value as it stands. A message never shows a line: it may be a secret.
fn pairs(path: &Path, text: &str) -> Result<Vec<(String, Vec<u8>)>, StepError> {
    let mut all = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match line.split_once('=') {
            Some((key, value)) if is_key(key) => all.push((key.to_owned(), value.as_bytes().to_vec())),
            _ => {
                return Err(StepError::permanent(format!("{}: line {} is not NAME=value", path.display(), at + 1)));
            }
        }
    }
    Ok(all)
}

fn encoded(bytes: &[u8]) -> Json {
    json!(base64::engine::general_purpose::STANDARD.encode(bytes))
}

fn config_map(name: &str, data: BTreeMap<String, Vec<u8>>) -> Json {
    let (mut plain, mut binary) = (Map::new(), Map::new());
    for (key, bytes) in data {
        match String::from_utf8(bytes) {
            Ok(text) => drop(plain.insert(key, json!(text))),
            Err(e) => drop(binary.insert(key, encoded(e.as_bytes()))),
        }
    }
    let mut object = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name } });
    for (field, map) in [("data", plain), ("binaryData", binary)] {
        if !map.is_empty() {
            object[field] = Json::Object(map);
        }
    }
    object
}

fn secret(name: &str, kind: &str, data: &BTreeMap<String, Vec<u8>>) -> Json {
    let data: Map<String, Json> = data.iter().map(|(key, bytes)| (key.clone(), encoded(bytes))).collect();
    json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "type": kind, "data": data })
}

/// The two step types differ in their object alone.
macro_rules! of_data {
    ($module:ident, $type:ident, $plural:literal, $descriptor:expr, $object:expr, { $($own:tt)* }) => {
        pub(crate) mod $module {
            use super::*;

            k8s_inputs! {
                /// Its name, and what is in it.
                {
                    /// Its name.
                    name: String,
                    $($own)*
                    /// Key → file beside the playbook.
                    #[serde(default)]
                    files: BTreeMap<String, String>,
                    /// A folder beside the playbook: each file in it under its name.
                    #[serde(default)]
                    dir: Option<String>,
                    /// A file of `NAME=value` lines beside the playbook.
                    #[serde(default)]
                    env_file: Option<String>,
                    /// Key → value.
                    #[serde(default)]
                    values: BTreeMap<String, String>,
                    /// Its labels.
                    #[serde(default)]
                    labels: BTreeMap<String, String>,
                    /// Take fields over from other managers that have other values.
                    #[serde(default)]
                    force_conflicts: bool,
                }
            }

            /// See the module above.
            #[derive(Debug, Clone)]
            pub(crate) struct $type(pub(crate) Clusters);

            impl Inputs {
                fn sources(&self) -> Sources<'_> {
                    let (dir, env_file) = (self.dir.as_deref(), self.env_file.as_deref());
                    Sources { files: &self.files, dir, env_file, values: &self.values }
                }

                async fn applying(&self, cx: &Cx<'_>) -> Result<apply::Inputs, StepError> {
                    let of: fn(&Self, BTreeMap<String, Vec<u8>>) -> Json = $object;
                    let mut object = of(self, self.sources().read(cx).await?);
                    if !self.labels.is_empty() {
                        object["metadata"]["labels"] = json!(self.labels);
                    }
                    Ok(self.with(Some(object)))
                }

                fn with(&self, manifest: Option<Json>) -> apply::Inputs {
                    apply::Inputs {
                        manifest,
                        path: None,
                        force_conflicts: self.force_conflicts,
                        wait: false,
                        timeout: super::super::scale::ten_minutes(),
                        kubeconfig: self.kubeconfig.clone(),
                        context: self.context.clone(),
                        namespace: self.namespace.clone(),
                        field_manager: self.field_manager.clone(),
                    }
                }
            }

            #[async_trait::async_trait]
            impl StepType for $type {
                type Inputs = Inputs;
                type Outputs = apply::Outputs;
                type Capture = apply::Capture;

                fn descriptor(&self) -> Descriptor {
                    $descriptor
                }

                fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
                    let mut found = common_problems(inputs.place());
                    let wrong = split(&format!(concat!($plural, "/{}"), inputs.name)).is_err();
                    found.extend(wrong.then(|| problem("name", format!("`{}` is not a name", inputs.name))));
                    found.extend(inputs.sources().problems());
                    found
                }

                async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
                    K8sApply(self.0.clone()).preview(cx, &inputs.applying(cx).await?).await
                }

                async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<apply::Capture, StepError> {
                    K8sApply(self.0.clone()).capture(cx, &inputs.applying(cx).await?).await
                }

                async fn act(
                    &self,
                    cx: &Cx<'_>,
                    inputs: &Inputs,
                    capture: &apply::Capture,
                ) -> Result<Acted<apply::Outputs>, StepError> {
                    K8sApply(self.0.clone()).act(cx, &inputs.applying(cx).await?, capture).await
                }

                /// The files may be gone by now: taking back needs only the capture.
                async fn undo(
                    &self,
                    cx: &Cx<'_>,
                    inputs: &Inputs,
                    capture: &apply::Capture,
                    outputs: Option<&apply::Outputs>,
                ) -> Result<Undone, StepError> {
                    K8sApply(self.0.clone()).undo(cx, &inputs.with(None), capture, outputs).await
                }
            }
        }
    };
}

of_data!(
    map,
    K8sConfigMap,
    "configmaps",
    Descriptor {
        name: "k8s.configmap",
        doc: "Makes a Kubernetes ConfigMap of files and values.",
        access: Access::Changes,
        undo: UndoKind::Full,
        on_interrupt: OnInterrupt::Rerun,
        commands: Commands::Client,
        examples: &[
            "\n- id: config\n  uses: k8s.configmap\n  with: { name: prometheus, files: { prometheus.yml: prometheus.yml } }\n"
        ],
    },
    |inputs, data| config_map(&inputs.name, data),
    {}
);

of_data!(
    of_values,
    K8sSecret,
    "secrets",
    Descriptor {
        name: "k8s.secret",
        doc: "Makes a Kubernetes Secret of files and values, which appear nowhere else.",
        access: Access::Changes,
        undo: UndoKind::Full,
        on_interrupt: OnInterrupt::Rerun,
        commands: Commands::Client,
        examples: &[
            "\n- id: key\n  uses: k8s.secret\n  with: { name: ceph-user, type: kubernetes.io/rbd, values: { key: '{{ secrets.ceph_key }}' } }\n",
            "\n- id: tls\n  uses: k8s.secret\n  with: { name: web-tls, type: kubernetes.io/tls, files: { tls.crt: web.crt, tls.key: web.key } }\n",
        ],
    },
    |inputs, data| secret(&inputs.name, &inputs.kind, &data),
    {
        /// Its type, such as `kubernetes.io/tls`.
        #[serde(default = "crate::k8s::config::opaque", rename = "type")]
        kind: String,
    }
);

pub(crate) fn opaque() -> String {
    "Opaque".to_owned()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::testing::Lab;

    #[test]
    fn data_is_plain_where_it_can_be() {
        let data = BTreeMap::from([("a".to_owned(), b"x\n".to_vec()), ("b".to_owned(), vec![0xff, 0])]);
        let object = config_map("c", data.clone());
        assert_eq!((&object["data"], &object["binaryData"]), (&json!({ "a": "x\n" }), &json!({ "b": "/wA=" })));
        assert_eq!(secret("s", "Opaque", &data)["data"], json!({ "a": "eAo=", "b": "/wA=" }));
        assert!(config_map("c", BTreeMap::new())["data"].is_null());
    }

    #[test]
    fn lines_are_pairs_and_never_shown() {
        let of = |text: &str| pairs(Path::new("x.env"), text);
        let found = of("# c\nA=1=2\n\n B= x \n").unwrap();
        assert_eq!(found, [("A".to_owned(), b"1=2".to_vec()), ("B".to_owned(), b" x ".to_vec())]);
        assert_eq!(of("A=1\nhunter2\n").unwrap_err().message, "x.env: line 2 is not NAME=value");
    }

    #[test]
    fn later_sources_win_and_bad_keys_are_named() {
        let with = json!({ "name": "c", "values": { "a b": "1" }, "files": {} });
        let found = Lab::problems(&map::K8sConfigMap(Clusters::default()), &with);
        assert_eq!(found[0].path, ["values", "a b"]);
        assert_eq!(Lab::problems(&map::K8sConfigMap(Clusters::default()), &json!({ "name": "c" })).len(), 1);
    }
}
