//! A container as `docker inspect` shows it: what steps look at, and how to create it again as it was. Fields as of
//! Engine API 1.41.

use runback_core::Json;
use serde_json::json;

/// What steps look at.
#[derive(Debug, Clone)]
pub(crate) struct Container {
    pub(crate) id: String,
    /// Without the slash.
    pub(crate) name: String,
    /// The id of its image.
    pub(crate) image: String,
    /// As it was named when the container was made.
    pub(crate) image_name: String,
    /// created, running, restarting, exited, paused, dead.
    pub(crate) status: String,
    pub(crate) running: bool,
    pub(crate) exit_code: i64,
    /// None = it has no health check.
    pub(crate) health: Option<String>,
    /// What the last health check printed.
    pub(crate) health_said: String,
    pub(crate) restarts: u64,
    pub(crate) started_at: String,
    pub(crate) raw: Json,
}

impl Container {
    pub(crate) fn of(raw: Json) -> Self {
        let text = |pointer: &str| raw.pointer(pointer).and_then(Json::as_str).unwrap_or_default().to_owned();
        let health = text("/State/Health/Status");
        let log = raw.pointer("/State/Health/Log").and_then(Json::as_array);
        let said = log.and_then(|l| l.last()).and_then(|l| l["Output"].as_str()).unwrap_or_default();
        Self {
            id: text("/Id"),
            name: text("/Name").trim_start_matches('/').to_owned(),
            image: text("/Image"),
            image_name: text("/Config/Image"),
            status: text("/State/Status"),
            running: raw.pointer("/State/Running").and_then(Json::as_bool).unwrap_or(false),
            exit_code: raw.pointer("/State/ExitCode").and_then(Json::as_i64).unwrap_or(0),
            health: (!health.is_empty() && health != "none").then_some(health),
            health_said: said.trim().to_owned(),
            restarts: raw["RestartCount"].as_u64().unwrap_or(0),
            started_at: text("/State/StartedAt"),
            raw,
        }
    }

    pub(crate) fn label(&self, name: &str) -> &str {
        self.raw["Config"]["Labels"][name].as_str().unwrap_or_default()
    }

    /// The request that creates it again: its configuration, what of it belongs to its machine, and its first network.
    /// `image` is what its image is called now.
    pub(crate) fn request(&self, image: &str) -> Json {
        let short = self.id.get(..12).unwrap_or(&self.id);
        let mut request = self.raw["Config"].clone();
        request["Image"] = image.into();
        if request["Hostname"] == short {
            request["Hostname"] = "".into();
        }
        let mut host = self.raw["HostConfig"].clone();
        self.keep_volumes(&mut host);
        request["HostConfig"] = host;
        let networks = self.networks();
        // Before API 1.44 a container is created on one network; the others come after.
        if let Some((name, endpoint)) = networks.first() {
            request["NetworkingConfig"] = json!({ "EndpointsConfig": { name: endpoint } });
        }
        request
    }

    /// Volumes without a name of their own are bound by the one that they were given, so that their content comes along.
    fn keep_volumes(&self, host: &mut Json) {
        let mut binds: Vec<Json> = host["Binds"].as_array().cloned().unwrap_or_default();
        let bound = |at: &str, binds: &[Json]| {
            let bind = binds.iter().filter_map(Json::as_str).any(|b| b.split(':').nth(1) == Some(at));
            let mount = host["Mounts"].as_array().into_iter().flatten().any(|m| m["Target"] == at);
            bind || mount
        };
        for mount in self.raw["Mounts"].as_array().into_iter().flatten() {
            let (Some(name), Some(at)) = (mount["Name"].as_str(), mount["Destination"].as_str()) else { continue };
            if mount["Type"] == "volume" && !bound(at, &binds) {
                let mode = if mount["RW"] == false { ":ro" } else { "" };
                binds.push(format!("{name}:{at}{mode}").into());
            }
        }
        if !binds.is_empty() {
            host["Binds"] = Json::Array(binds);
        }
    }

    /// Its networks with what it is called on them, the one that it was made on first.
    pub(crate) fn networks(&self) -> Vec<(String, Json)> {
        let short = self.id.get(..12).unwrap_or(&self.id);
        let mode = self.raw["HostConfig"]["NetworkMode"].as_str().unwrap_or_default();
        let endpoint = |e: &Json| {
            let aliases = e["Aliases"].as_array().into_iter().flatten().filter(|a| **a != short).cloned().collect();
            json!({ "Aliases": Json::Array(aliases), "IPAMConfig": e["IPAMConfig"], "Links": e["Links"], "DriverOpts": e["DriverOpts"] })
        };
        let all = self.raw["NetworkSettings"]["Networks"].as_object();
        let mut all: Vec<_> = all.into_iter().flatten().map(|(name, e)| (name.clone(), endpoint(e))).collect();
        all.sort_by_key(|(name, _)| name != mode);
        all
    }
}

/// The request that creates a network again.
pub(crate) fn network_request(raw: &Json) -> Json {
    let keys = ["Name", "Driver", "EnableIPv6", "IPAM", "Internal", "Attachable", "Options", "Labels"];
    keys.iter().map(|k| ((*k).to_owned(), raw[*k].clone())).collect::<serde_json::Map<_, _>>().into()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_request_makes_the_same_container_again() {
        let raw = json!({
            "Id": "a56607e2a731c270c8d239cb81b7d3c09a9c399cf0e9be33c7292f1eecc9aba1", "Name": "/proj_web_1",
            "Image": "sha256:39cd", "RestartCount": 2,
            "State": {"Status": "running", "Running": true, "ExitCode": 0, "Health": {"Status": "healthy", "Log": [{"Output": "a"}, {"Output": "ok\n"}]}},
            "Config": {"Hostname": "a56607e2a731", "Env": ["A=b c"], "Image": "t/base:1", "Labels": {"com.docker.compose.service": "web"}},
            "HostConfig": {"Binds": ["/d:/data:z"], "NetworkMode": "proj_default", "RestartPolicy": {"Name": "always"}},
            "Mounts": [
                {"Type": "bind", "Source": "/d", "Destination": "/data"},
                {"Type": "volume", "Name": "0a1b", "Destination": "/cache", "RW": false},
            ],
            "NetworkSettings": {"Networks": {
                "other": {"Aliases": ["x"], "IPAMConfig": null},
                "proj_default": {"Aliases": ["web", "a56607e2a731"], "IPAMConfig": {"IPv4Address": "10.0.0.9"}},
            }},
        });
        let container = Container::of(raw);
        assert_eq!((container.name.as_str(), container.health.as_deref()), ("proj_web_1", Some("healthy")));
        assert_eq!((container.health_said.as_str(), container.restarts), ("ok", 2));
        assert_eq!(container.label("com.docker.compose.service"), "web");
        let request = container.request("sha256:39cd");
        assert_eq!((&request["Hostname"], &request["Image"]), (&json!(""), &json!("sha256:39cd")));
        assert_eq!(request["HostConfig"]["Binds"], json!(["/d:/data:z", "0a1b:/cache:ro"]));
        let endpoints = request["NetworkingConfig"]["EndpointsConfig"].as_object().unwrap();
        assert_eq!(endpoints.keys().collect::<Vec<_>>(), ["proj_default"]);
        assert_eq!(endpoints["proj_default"]["Aliases"], json!(["web"]));
        assert_eq!(container.networks()[1].0, "other");
    }
}
