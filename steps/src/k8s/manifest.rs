//! What `k8s.apply` is given: inline objects, a YAML text, a file or a folder of files; put into the order in which a cluster
//! can take them. Knows no server.

use std::path::{Path, PathBuf};

use runback_core::Json;
use runback_core::step::StepError;
use serde::Deserialize as _;

use super::object::text;

/// Bounds what a folder may hold, in bytes.
const LIMIT: u64 = 16 << 20;

/// The objects of an inline value: a map, a list of maps, or a text of YAML documents.
pub(crate) fn inline(value: &Json) -> Result<Vec<Json>, StepError> {
    let mut all = Vec::new();
    match value {
        Json::String(text) => documents("manifest", text, &mut all)?,
        Json::Array(list) => {
            for one in list {
                flatten("manifest", one.clone(), &mut all)?;
            }
        }
        one => flatten("manifest", one.clone(), &mut all)?,
    }
    Ok(all)
}

/// The objects of a file, or of all YAML and JSON files in a folder, by name; folders in it are left out, as by kubectl.
pub(crate) async fn read(path: &Path) -> Result<Vec<Json>, StepError> {
    let shown = path.display().to_string();
    let broken = |at: &Path, e: std::io::Error| {
        StepError::permanent(format!("{}: {e}", at.display())).help("the path counts from the playbook's folder")
    };
    let meta = tokio::fs::metadata(path).await.map_err(|e| broken(path, e))?;
    let mut files: Vec<PathBuf> = Vec::new();
    if meta.is_dir() {
        let mut entries = tokio::fs::read_dir(path).await.map_err(|e| broken(path, e))?;
        while let Some(entry) = entries.next_entry().await.map_err(|e| broken(path, e))? {
            let file = entry.path();
            let named = file.extension().and_then(|e| e.to_str()).is_some_and(|e| matches!(e, "yaml" | "yml" | "json"));
            if named && file.is_file() {
                files.push(file);
            }
        }
        files.sort();
        if files.is_empty() {
            return Err(StepError::permanent(format!("{shown} has no .yaml, .yml or .json file")));
        }
    } else {
        files.push(path.to_owned());
    }
    let mut all = Vec::new();
    let mut total = 0;
    for file in files {
        total += tokio::fs::metadata(&file).await.map_err(|e| broken(&file, e))?.len();
        if total > LIMIT {
            return Err(StepError::permanent(format!("{shown} holds more than {} MiB", LIMIT >> 20)));
        }
        let text = tokio::fs::read_to_string(&file).await.map_err(|e| broken(&file, e))?;
        documents(&file.display().to_string(), &text, &mut all)?;
    }
    Ok(all)
}

fn documents(from: &str, text: &str, all: &mut Vec<Json>) -> Result<(), StepError> {
    for (at, document) in serde_yaml::Deserializer::from_str(text).enumerate() {
        let value = Json::deserialize(document).map_err(|e| {
            StepError::permanent(format!("{from}, document {}: {e}", at + 1)).help("it must be plain YAML")
        })?;
        // A `---` at the end, or one with comments only.
        if !value.is_null() {
            flatten(&format!("{from}, document {}", at + 1), value, all)?;
        }
    }
    Ok(())
}

fn flatten(from: &str, value: Json, all: &mut Vec<Json>) -> Result<(), StepError> {
    let kind = text(&value, "/kind");
    if kind == "List" && value["items"].is_array() {
        for item in value["items"].as_array().into_iter().flatten() {
            flatten(from, item.clone(), all)?;
        }
        return Ok(());
    }
    let missing = ["/apiVersion", "/kind", "/metadata/name"].into_iter().find(|key| text(&value, key).is_empty());
    if let Some(missing) = missing {
        let key = missing[1..].replace('/', ".");
        let named = if kind.is_empty() { String::new() } else { format!(" (a {kind})") };
        return Err(StepError::permanent(format!("{from}{named}: `{key}` is missing or is no text"))
            .help("an object to apply has apiVersion, kind and metadata.name"));
    }
    all.push(value);
    Ok(())
}

/// What must stand before what: namespaces, definitions, rights, configuration, storage, services, workloads, and what watches
/// all that. Kinds that are not known here come with the workloads' followers: they need their definitions.
fn rank(object: &Json) -> u8 {
    match text(object, "/kind") {
        "Namespace" => 0,
        "CustomResourceDefinition" => 1,
        "PriorityClass" | "StorageClass" | "RuntimeClass" | "IngressClass" => 2,
        "ServiceAccount" => 3,
        "ClusterRole" | "Role" => 4,
        "ClusterRoleBinding" | "RoleBinding" => 5,
        "ResourceQuota" | "LimitRange" | "NetworkPolicy" => 6,
        "ConfigMap" | "Secret" => 7,
        "PersistentVolume" => 8,
        "PersistentVolumeClaim" => 9,
        "Service" => 10,
        "Pod"
        | "ReplicationController"
        | "ReplicaSet"
        | "Deployment"
        | "StatefulSet"
        | "DaemonSet"
        | "Job"
        | "CronJob" => 11,
        "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => 14,
        "Ingress" | "HorizontalPodAutoscaler" | "PodDisruptionBudget" => 12,
        _ => 13,
    }
}

/// Stable: what is of one rank stays as it is written.
pub(crate) fn ordered(mut objects: Vec<Json>) -> Vec<Json> {
    objects.sort_by_key(rank);
    objects
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    fn names(objects: &[Json]) -> Vec<&str> {
        objects.iter().map(|o| text(o, "/kind")).collect()
    }

    #[test]
    fn documents_lists_and_maps_are_taken() {
        let yaml = "apiVersion: apps/v1\nkind: Deployment\nmetadata: { name: web }\n---\n# nothing\n---\napiVersion: v1\nkind: List\nitems:\n- { apiVersion: v1, kind: ConfigMap, metadata: { name: c } }\n- { apiVersion: v1, kind: Namespace, metadata: { name: n } }\n";
        let all = inline(&json!(yaml)).unwrap();
        assert_eq!(names(&all), ["Deployment", "ConfigMap", "Namespace"]);
        assert_eq!(names(&ordered(all)), ["Namespace", "ConfigMap", "Deployment"]);
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = inline(&json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": {} })).unwrap_err();
        assert_eq!(error.message, "manifest (a ConfigMap): `metadata.name` is missing or is no text");
        let error = inline(&json!("apiVersion: v1\nkind: ConfigMap\nmetadata: { name: a }\n---\nfoo: [")).unwrap_err();
        assert!(error.message.starts_with("manifest, document 2: "), "{}", error.message);
    }

    #[tokio::test]
    async fn a_folder_is_read_by_name() {
        let dir = tempfile::tempdir().unwrap();
        for (name, kind) in [("2.yaml", "Service"), ("1.yml", "ConfigMap"), ("notes.txt", "Pod")] {
            std::fs::write(dir.path().join(name), format!("{{apiVersion: v1, kind: {kind}, metadata: {{name: x}}}}"))
                .unwrap();
        }
        assert_eq!(names(&read(dir.path()).await.unwrap()), ["ConfigMap", "Service"]);
        let error = read(&dir.path().join("no")).await.unwrap_err();
        assert!(error.message.ends_with("No such file or directory (os error 2)"), "{}", error.message);
    }
}
