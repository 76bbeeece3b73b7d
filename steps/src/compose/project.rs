//! What of a project is on the daemon: its containers, networks and volumes, found by the labels that both generations
//! give them.

use runback_core::Json;
use runback_core::step::{Cx, StepError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::docker::cli::Engine;
use crate::docker::container::Container;

const PROJECT: &str = "com.docker.compose.project";
const SERVICE: &str = "com.docker.compose.service";
const HOOK: &str = "com.docker.compose.hook";

/// One container of a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Member {
    /// Its service in the compose file.
    pub(crate) service: String,
    /// Its own name.
    pub(crate) name: String,
    /// Its id.
    pub(crate) id: String,
    /// The id of its image.
    pub(crate) image: String,
    /// Whether it runs.
    pub(crate) running: bool,
}

/// A project as the journal keeps it: nothing of what its containers are configured with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Before {
    pub(crate) containers: Vec<Member>,
    /// Names and ids.
    pub(crate) networks: Vec<(String, String)>,
    pub(crate) volumes: Vec<String>,
}

/// A project as it is.
#[derive(Debug)]
pub(crate) struct Now {
    /// In the order of their names.
    pub(crate) containers: Vec<Container>,
    /// As `docker network inspect` shows them.
    pub(crate) networks: Vec<Json>,
    pub(crate) volumes: Vec<String>,
}

impl Container {
    /// A container of a hook (Compose 5) has the label of the service that it works for, and is none of its containers.
    pub(crate) fn service(&self) -> &str {
        if self.label(HOOK).is_empty() { self.label(SERVICE) } else { "" }
    }

    pub(crate) fn member(&self) -> Member {
        Member {
            service: self.service().to_owned(),
            name: self.name.clone(),
            id: self.id.clone(),
            image: self.image.clone(),
            running: self.running,
        }
    }
}

impl Now {
    pub(crate) fn members(&self) -> Vec<Member> {
        self.containers.iter().map(Container::member).collect()
    }

    pub(crate) fn before(&self) -> Before {
        let text = |n: &Json, key: &str| n[key].as_str().unwrap_or_default().to_owned();
        Before {
            containers: self.members(),
            networks: self.networks.iter().map(|n| (text(n, "Name"), text(n, "Id"))).collect(),
            volumes: self.volumes.clone(),
        }
    }
}

fn filter(project: &str) -> String {
    format!("label={PROJECT}={project}")
}

/// The containers of its services, running or not; those of `run` are nobody's service.
pub(crate) async fn containers(engine: &Engine, cx: &Cx<'_>, project: &str) -> Result<Vec<Container>, StepError> {
    let words = ["ps", "--all", "--quiet", "--no-trunc", "--filter", &filter(project)];
    let ids = engine.lines(cx, &words, &format!("project {project}")).await?;
    let raw = engine.inspect(cx, "container", &ids).await?;
    let mut all: Vec<Container> = raw.into_iter().map(Container::of).collect();
    all.retain(|c| c.label("com.docker.compose.oneoff") != "True");
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

pub(crate) async fn look(engine: &Engine, cx: &Cx<'_>, project: &str) -> Result<Now, StepError> {
    let what = format!("project {project}");
    let containers = containers(engine, cx, project).await?;
    let words = ["network", "ls", "--quiet", "--no-trunc", "--filter", &filter(project)];
    let networks = engine.lines(cx, &words, &what).await?;
    let networks = engine.inspect(cx, "network", &networks).await?;
    let mut volumes = engine.lines(cx, &["volume", "ls", "--quiet", "--filter", &filter(project)], &what).await?;
    volumes.sort();
    Ok(Now { containers, networks, volumes })
}
