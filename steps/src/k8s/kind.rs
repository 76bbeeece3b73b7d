//! Which kind a name means: `deploy`, `Deployment`, `deployments.apps`, a custom resource by its short name. The server is
//! asked group by group, only as far as needed, and remembered per cluster. Knows no object.

use std::collections::BTreeMap;
use std::sync::Arc;

use runback_core::Json;
use runback_core::step::StepError;

use super::client::{Ask, Kube};
use super::error::ApiError;

/// A kind that the cluster serves.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "the API's own word")]
pub(crate) struct Kind {
    /// Empty for the core group.
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(crate) plural: String,
    singular: String,
    short: Vec<String>,
    pub(crate) namespaced: bool,
    /// Such as `scale`, `status`.
    subresources: Vec<String>,
}

impl Kind {
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    pub(crate) fn has(&self, subresource: &str) -> bool {
        self.subresources.iter().any(|s| s == subresource)
    }

    /// `deployment.apps`, as kubectl prints it; core kinds without a group.
    pub(crate) fn label(&self) -> String {
        let name = self.kind.to_lowercase();
        if self.group.is_empty() { name } else { format!("{name}.{}", self.group) }
    }

    fn prefix(&self) -> String {
        prefix(&self.api_version())
    }

    /// The path of its objects; `namespace` counts only where the kind has namespaces.
    pub(crate) fn collection(&self, namespace: &str) -> String {
        if self.namespaced {
            format!("{}/namespaces/{namespace}/{}", self.prefix(), self.plural)
        } else {
            format!("{}/{}", self.prefix(), self.plural)
        }
    }

    pub(crate) fn is(&self, group: &str, kind: &str) -> bool {
        self.group == group && self.kind == kind
    }

    fn answers_to(&self, token: &Token) -> bool {
        let word = token.word.to_lowercase();
        let named = self.plural == word
            || self.singular == word
            || self.kind.to_lowercase() == word
            || self.short.contains(&word);
        let of_group = token.group.as_ref().is_none_or(|g| *g == self.group);
        let of_version = token.version.as_ref().is_none_or(|v| *v == self.version);
        named && of_group && of_version
    }
}

/// The group and the kind of a CustomResourceDefinition.
pub(crate) const EXTENSIONS: &str = "apiextensions.k8s.io";
pub(crate) const DEFINITION: &str = "CustomResourceDefinition";

fn prefix(api_version: &str) -> String {
    if api_version.contains('/') { format!("/apis/{api_version}") } else { format!("/api/{api_version}") }
}

/// What was learned of a cluster.
#[derive(Debug, Default)]
pub(crate) struct Discovery {
    /// Group → its versions, the preferred one first. In the server's order, the core group first.
    groups: Option<Vec<(String, Vec<String>)>>,
    /// By apiVersion.
    kinds: BTreeMap<String, Arc<Vec<Kind>>>,
}

/// `deployments.v1.apps` taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Token {
    word: String,
    version: Option<String>,
    group: Option<String>,
}

fn token(text: &str) -> Token {
    let Some((word, rest)) = text.split_once('.') else {
        return Token { word: text.to_owned(), version: None, group: None };
    };
    let is_version = |v: &str| v.strip_prefix('v').is_some_and(|r| r.starts_with(|c: char| c.is_ascii_digit()));
    match rest.split_once('.') {
        Some((version, group)) if is_version(version) => {
            Token { word: word.to_owned(), version: Some(version.to_owned()), group: Some(group.to_owned()) }
        }
        _ => Token { word: word.to_owned(), version: None, group: Some(rest.to_owned()) },
    }
}

/// The group of a common name, so that it is asked first: one request in place of some twenty.
fn likely_group(word: &str) -> &'static str {
    match word.to_lowercase().as_str() {
        "deploy" | "deployment" | "deployments" | "rs" | "replicaset" | "replicasets" | "sts" | "statefulset"
        | "statefulsets" | "ds" | "daemonset" | "daemonsets" => "apps",
        "job" | "jobs" | "cj" | "cronjob" | "cronjobs" => "batch",
        "ing" | "ingress" | "ingresses" | "netpol" | "networkpolicy" | "networkpolicies" => "networking.k8s.io",
        "sc" | "storageclass" | "storageclasses" => "storage.k8s.io",
        "role"
        | "roles"
        | "rolebinding"
        | "rolebindings"
        | "clusterrole"
        | "clusterroles"
        | "clusterrolebinding"
        | "clusterrolebindings" => "rbac.authorization.k8s.io",
        "pdb" | "poddisruptionbudget" | "poddisruptionbudgets" => "policy",
        "hpa" | "horizontalpodautoscaler" | "horizontalpodautoscalers" => "autoscaling",
        "crd" | "crds" | "customresourcedefinition" | "customresourcedefinitions" => EXTENSIONS,
        _ => "",
    }
}

impl Kube<'_> {
    /// The kind that a word of a playbook means.
    pub(crate) async fn kind(&self, text: &str) -> Result<Kind, StepError> {
        let token = token(text);
        // What is missing may have been defined a moment ago: a second look asks the server again.
        for fresh in [false, true] {
            if let Some(kind) = self.look(&token, fresh).await? {
                return Ok(kind);
            }
        }
        Err(StepError::permanent(format!("the cluster {} has no kind `{text}`", self.url()))
            .help("`kubectl api-resources` lists the kinds; a custom one needs its CustomResourceDefinition first"))
    }

    /// The kind of an object's `apiVersion` and `kind`. None = the cluster does not serve it (yet).
    pub(crate) async fn kind_of(&self, api_version: &str, kind: &str) -> Result<Option<Kind>, ApiError> {
        for fresh in [false, true] {
            let all = self.kinds(api_version, fresh).await?;
            if let Some(found) = all.iter().find(|k| k.kind == kind) {
                return Ok(Some(found.clone()));
            }
        }
        Ok(None)
    }

    /// Whether the API server lists a kind by now, under its group and among the group's kinds: the two come apart.
    pub(crate) async fn is_listed(&self, api_version: &str, kind: &str) -> Result<bool, ApiError> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let groups = self.groups(true).await?;
        let known = groups.iter().any(|(name, versions)| name == group && versions.iter().any(|v| v == version));
        Ok(known && self.kinds(api_version, true).await?.iter().any(|k| k.kind == kind))
    }

    async fn look(&self, token: &Token, fresh: bool) -> Result<Option<Kind>, ApiError> {
        let groups = self.groups(fresh).await?;
        let first = token.group.clone().unwrap_or_else(|| likely_group(&token.word).to_owned());
        let ordered = groups.iter().filter(|g| g.0 == first).chain(groups.iter().filter(|g| g.0 != first));
        for (group, versions) in ordered {
            if token.group.as_ref().is_some_and(|g| g != group) {
                continue;
            }
            for version in versions {
                if token.version.as_ref().is_some_and(|v| v != version) {
                    continue;
                }
                let api_version = if group.is_empty() { version.clone() } else { format!("{group}/{version}") };
                // An aggregated API that is down must not hide all other groups.
                let kinds = match self.kinds(&api_version, fresh).await {
                    Ok(kinds) => kinds,
                    Err(e) if e.code() >= 500 => continue,
                    Err(e) => return Err(e),
                };
                if let Some(kind) = kinds.iter().find(|k| k.answers_to(token)) {
                    return Ok(Some(kind.clone()));
                }
            }
        }
        Ok(None)
    }

    async fn groups(&self, fresh: bool) -> Result<Vec<(String, Vec<String>)>, ApiError> {
        let mut known = self.cluster.discovery.lock().await;
        if let (Some(groups), false) = (&known.groups, fresh) {
            return Ok(groups.clone());
        }
        let answer = self.call(&Ask::get("/apis")).await?;
        let mut groups = vec![(String::new(), vec!["v1".to_owned()])];
        for group in answer["groups"].as_array().into_iter().flatten() {
            let text = |v: &Json| v.as_str().unwrap_or_default().to_owned();
            let preferred = text(&group["preferredVersion"]["version"]);
            let others = group["versions"].as_array().into_iter().flatten().map(|v| text(&v["version"]));
            let versions = std::iter::once(preferred.clone()).chain(others.filter(|v| *v != preferred)).collect();
            groups.push((text(&group["name"]), versions));
        }
        known.groups = Some(groups.clone());
        Ok(groups)
    }

    async fn kinds(&self, api_version: &str, fresh: bool) -> Result<Arc<Vec<Kind>>, ApiError> {
        let mut known = self.cluster.discovery.lock().await;
        if let (Some(kinds), false) = (known.kinds.get(api_version), fresh) {
            return Ok(kinds.clone());
        }
        let answer = match self.call(&Ask::get(prefix(api_version))).await {
            Ok(answer) => answer,
            Err(e) if e.is_absent() => return Ok(Arc::default()),
            Err(e) => return Err(e),
        };
        let kinds = Arc::new(parse(api_version, &answer));
        known.kinds.insert(api_version.to_owned(), kinds.clone());
        Ok(kinds)
    }
}

/// An APIResourceList (meta/v1).
fn parse(api_version: &str, answer: &Json) -> Vec<Kind> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let mut kinds: Vec<Kind> = Vec::new();
    let resources = answer["resources"].as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |v: &Json| v.as_str().unwrap_or_default().to_owned();
    for resource in resources {
        let name = text(&resource["name"]);
        if name.contains('/') {
            continue;
        }
        let of = format!("{name}/");
        let subresources = resources.iter().filter_map(|r| r["name"].as_str()?.strip_prefix(&of).map(str::to_owned));
        let kind = text(&resource["kind"]);
        // 1.20 leaves it empty for its own kinds.
        let singular =
            Some(text(&resource["singularName"])).filter(|s| !s.is_empty()).unwrap_or_else(|| kind.to_lowercase());
        kinds.push(Kind {
            group: group.to_owned(),
            version: version.to_owned(),
            singular,
            short: resource["shortNames"].as_array().into_iter().flatten().map(text).collect(),
            namespaced: resource["namespaced"].as_bool().unwrap_or_default(),
            subresources: subresources.collect(),
            plural: name,
            kind,
        });
    }
    kinds
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    /// A kind of which only the names count.
    pub(in crate::k8s) fn plain(api_version: &str, kind: &str) -> Kind {
        let name = kind.to_lowercase();
        let list = json!({ "resources": [{ "name": format!("{name}s"), "kind": kind, "namespaced": true }] });
        parse(api_version, &list).remove(0)
    }

    #[test]
    fn names_are_taken_apart() {
        let of = |word: &str, version: Option<&str>, group: Option<&str>| Token {
            word: word.to_owned(),
            version: version.map(str::to_owned),
            group: group.map(str::to_owned),
        };
        assert_eq!(token("deploy"), of("deploy", None, None));
        assert_eq!(token("deployments.apps"), of("deployments", None, Some("apps")));
        assert_eq!(token("deployments.v1.apps"), of("deployments", Some("v1"), Some("apps")));
        assert_eq!(token("certificates.cert-manager.io"), of("certificates", None, Some("cert-manager.io")));
    }

    #[test]
    fn a_list_of_resources_is_read() {
        let kinds = parse(
            "apps/v1",
            &json!({ "resources": [
                { "name": "deployments", "singularName": "", "namespaced": true, "kind": "Deployment", "shortNames": ["deploy"] },
                { "name": "deployments/scale", "kind": "Scale" },
            ] }),
        );
        assert_eq!(kinds.len(), 1);
        for word in ["deploy", "Deployment", "deployments", "deployment.apps"] {
            assert!(kinds[0].answers_to(&token(word)), "{word}");
        }
        assert!(!kinds[0].answers_to(&token("deployments.extensions")));
        assert!(kinds[0].has("scale"));
        assert_eq!(kinds[0].collection("n"), "/apis/apps/v1/namespaces/n/deployments");
        assert_eq!(kinds[0].label(), "deployment.apps");
    }
}
