//! Brings a project back to the containers that it had: takes the new ones away, and makes those again that are gone, with
//! exactly the configuration that they had. Needs neither the compose files of now nor those of then.

use std::collections::BTreeMap;

use runback_core::Json;
use runback_core::step::{Cx, StepError, Undone};
use serde_json::json;

use super::cli::Compose;
use super::keep;
use super::project::{self, Before, Member, Now};
use crate::docker::api;
use crate::docker::container::{Container, network_request};

/// `left` is what the action left, if it finished: containers that are in neither are somebody else's work.
pub(super) async fn undo(
    compose: &Compose,
    cx: &Cx<'_>,
    before: &Before,
    left: Option<&[Member]>,
) -> Result<Undone, StepError> {
    let engine = &compose.engine;
    let name = compose.name(cx)?;
    let now = project::look(engine, cx, &name).await?;
    if let Some(left) = left.filter(|_| !cx.force) {
        drift(cx, &name, before, left, &now)?;
    }
    if is_back(before, &now) {
        return Ok(Undone { changed: keep::drop(compose, cx).await?, note: None });
    }
    let mut did = Vec::new();
    remove_new(compose, cx, before, &now, &mut did).await?;
    rename_back(compose, cx, before, &now).await?;
    let (kept, networks) = keep::load(compose, cx).await?;
    make_networks(compose, cx, before, &now, &networks).await?;
    let made = make_containers(compose, cx, before, &now, &kept, &mut did).await?;
    start(compose, cx, before, &made).await?;
    remove_networks(compose, cx, before, &now, &mut did).await?;
    let after = project::look(engine, cx, &name).await?;
    if let Some(wrong) = missing(before, &after) {
        return Err(StepError::conflict(format!("project {name}: {wrong}"))
            .help(format!("what it was like is kept in {} on the target", keep::path(compose, cx))));
    }
    keep::drop(compose, cx).await?;
    let new: Vec<&str> = after.volumes.iter().filter(|v| !before.volumes.contains(v)).map(String::as_str).collect();
    if !new.is_empty() {
        did.push(format!("left the new volumes {} with their data", new.join(", ")));
    }
    Ok(Undone { changed: true, note: (!did.is_empty()).then(|| did.join("; ")) })
}

/// A container that neither was there before nor is the action's.
fn drift(cx: &Cx<'_>, name: &str, before: &Before, left: &[Member], now: &Now) -> Result<(), StepError> {
    let known = |id: &str| before.containers.iter().chain(left).any(|m| m.id == id);
    match now.containers.iter().find(|c| !known(&c.id)) {
        None => Ok(()),
        Some(new) => Err(StepError::conflict(format!(
            "project {name}: the container {} was made after this step ended",
            new.name
        ))
        .help(format!(
            "look at it; `runback rollback {} --force` brings back what was there before this step",
            cx.run
        ))),
    }
}

fn is_back(before: &Before, now: &Now) -> bool {
    let same = |b: &Member| now.containers.iter().any(|c| c.id == b.id && c.name == b.name && c.running == b.running);
    let networks = |n: &Json| before.networks.iter().any(|(_, id)| n["Id"] == **id);
    now.containers.len() == before.containers.len()
        && before.containers.iter().all(same)
        && now.networks.len() == before.networks.len()
        && now.networks.iter().all(networks)
}

/// What is not as it was, by name, image and whether it runs. A container that ended by itself since is its own matter.
fn missing(before: &Before, after: &Now) -> Option<String> {
    for b in &before.containers {
        match after.containers.iter().find(|c| c.name == b.name) {
            None => return Some(format!("the container {} is not back", b.name)),
            Some(c) if c.image != b.image => return Some(format!("the container {} has another image", b.name)),
            Some(_) => {}
        }
    }
    let extra = after.containers.iter().find(|c| !before.containers.iter().any(|b| b.name == c.name));
    extra.map(|c| format!("the container {} is still there", c.name))
}

async fn remove_new(
    compose: &Compose,
    cx: &Cx<'_>,
    before: &Before,
    now: &Now,
    did: &mut Vec<String>,
) -> Result<(), StepError> {
    let new: Vec<&Container> =
        now.containers.iter().filter(|c| !before.containers.iter().any(|b| b.id == c.id)).collect();
    if new.is_empty() {
        return Ok(());
    }
    let ids: Vec<&str> = new.iter().map(|c| c.id.as_str()).collect();
    let what = compose.what(cx);
    cx.phase(format!("stopping {}", names(&new)));
    let running: Vec<&str> =
        new.iter().filter(|c| c.status != "exited" && c.status != "created").map(|c| c.id.as_str()).collect();
    if !running.is_empty() {
        compose.engine.ran(cx, compose.engine.work(&[&["stop", "--time", "10"], &running[..]].concat()), &what).await?;
    }
    // Volumes without a name go with the containers of a project that was not there; else they may be those of before.
    let words: &[&str] =
        if before.containers.is_empty() { &["rm", "--force", "--volumes"] } else { &["rm", "--force"] };
    compose.engine.ran(cx, compose.engine.work(&[words, &ids[..]].concat()), &what).await?;
    did.push(format!("removed {}", names(&new)));
    Ok(())
}

fn names(all: &[&Container]) -> String {
    let all: Vec<String> = all.iter().map(|c| c.name.clone()).collect();
    crate::file::parents::some(&all)
}

/// Version 1 renames a container before it replaces it; cut off there, it is left with that name.
async fn rename_back(compose: &Compose, cx: &Cx<'_>, before: &Before, now: &Now) -> Result<(), StepError> {
    for b in &before.containers {
        let Some(renamed) = now.containers.iter().find(|c| c.id == b.id && c.name != b.name) else { continue };
        let words = ["rename", &renamed.id, &b.name];
        compose.engine.ran(cx, compose.engine.work(&words), &compose.what(cx)).await?;
    }
    Ok(())
}

async fn make_networks(
    compose: &Compose,
    cx: &Cx<'_>,
    before: &Before,
    now: &Now,
    kept: &[Json],
) -> Result<(), StepError> {
    for (name, _) in &before.networks {
        if now.networks.iter().any(|n| n["Name"] == **name) {
            continue;
        }
        let Some(kept) = kept.iter().find(|n| n["Name"] == **name) else {
            return Err(StepError::conflict(format!("the network {name} is gone, and what it was like is not known")));
        };
        let what = format!("network {name}");
        api::post(&compose.engine, cx, "/networks/create", &network_request(kept), &what).await?;
    }
    Ok(())
}

/// Makes those that are gone. Gives the id that each has now, by its name.
async fn make_containers(
    compose: &Compose,
    cx: &Cx<'_>,
    before: &Before,
    now: &Now,
    kept: &[Container],
    did: &mut Vec<String>,
) -> Result<BTreeMap<String, String>, StepError> {
    let mut ids = BTreeMap::new();
    let (there, gone): (Vec<_>, Vec<_>) =
        before.containers.iter().partition(|b| now.containers.iter().any(|c| c.id == b.id));
    ids.extend(there.into_iter().map(|b| (b.name.clone(), b.id.clone())));
    let find = |b: &&Member| {
        kept.iter().find(|k| k.id == b.id).ok_or_else(|| {
            StepError::conflict(format!("the container {} is gone, and what it was like is not known", b.name))
        })
    };
    let mut gone: Vec<&Container> = gone.iter().map(find).collect::<Result<_, _>>()?;
    // One that lives in the network of another comes after it.
    let joins =
        |c: &Container| c.raw["HostConfig"]["NetworkMode"].as_str().is_some_and(|m| m.starts_with("container:"));
    gone.sort_by_key(|c| joins(c));
    let mut renewed: Vec<(String, String)> = Vec::new();
    for old in &gone {
        let named = compose.engine.image_id(cx, &old.image_name).await?;
        let image = if named.as_deref() == Some(&old.image) { &old.image_name } else { &old.image };
        let mut request = old.request(image).to_string();
        for (was, is) in &renewed {
            request = request.replace(was, is);
        }
        let request: Json =
            serde_json::from_str(&request).map_err(|e| StepError::permanent(format!("container {}: {e}", old.name)))?;
        let what = format!("container {}", old.name);
        let path = format!("/containers/create?name={}", old.name);
        let made = api::post(&compose.engine, cx, &path, &request, &what).await?;
        let id = made["Id"].as_str().unwrap_or_default().to_owned();
        for (network, endpoint) in old.networks().iter().skip(1) {
            let body = json!({ "Container": id, "EndpointConfig": endpoint });
            api::post(&compose.engine, cx, &format!("/networks/{network}/connect"), &body, &what).await?;
        }
        renewed.push((old.id.clone(), id.clone()));
        ids.insert(old.name.clone(), id);
    }
    if !gone.is_empty() {
        did.push(format!("brought back {}", names(&gone)));
    }
    Ok(ids)
}

async fn start(
    compose: &Compose,
    cx: &Cx<'_>,
    before: &Before,
    ids: &BTreeMap<String, String>,
) -> Result<(), StepError> {
    let current = project::containers(&compose.engine, cx, &compose.name(cx)?).await?;
    let mut wanted = Vec::new();
    for b in &before.containers {
        let Some(id) = ids.get(&b.name) else { continue };
        let runs = current.iter().any(|c| c.id == *id && c.running);
        match (b.running, runs) {
            (true, false) => wanted.push(id.as_str()),
            (false, true) => {
                compose.engine.ran(cx, compose.engine.work(&["stop", id]), &compose.what(cx)).await?;
            }
            _ => {}
        }
    }
    if wanted.is_empty() {
        return Ok(());
    }
    cx.phase(format!("starting {} containers", wanted.len()));
    let words = [&["start"], &wanted[..]].concat();
    compose.engine.ran(cx, compose.engine.work(&words), &compose.what(cx)).await?;
    Ok(())
}

async fn remove_networks(
    compose: &Compose,
    cx: &Cx<'_>,
    before: &Before,
    now: &Now,
    did: &mut Vec<String>,
) -> Result<(), StepError> {
    for network in &now.networks {
        let (Some(name), Some(id)) = (network["Name"].as_str(), network["Id"].as_str()) else { continue };
        if before.networks.iter().any(|(was, _)| was == name) {
            continue;
        }
        let exit = compose.engine.tried(cx, compose.engine.work(&["network", "rm", id])).await?;
        if !exit.ok() {
            did.push(format!("left the network {name}: something else is on it"));
        }
    }
    Ok(())
}
