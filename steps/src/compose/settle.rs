//! Waiting until the services of a project are as they shall be: running, healthy where they have a health check, and not
//! restarting over and over.

use std::collections::BTreeMap;
use std::time::Duration;

use runback_core::step::{Cx, StepError};

use super::cli::Compose;
use super::project;
use crate::bounded::pause;
use crate::docker::cli::timeout;
use crate::docker::container::Container;
use crate::period::Period;

/// Between two looks.
const EVERY: Duration = Duration::from_millis(500);

/// What is waited for.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    /// Services that must have a container.
    pub(super) services: &'a [String],
    /// Services that may have ended with exit code 0.
    pub(super) may_end: &'a [String],
    /// How long nothing may restart, once all is well.
    pub(super) window: Duration,
    pub(super) limit: Duration,
}

/// Waits. The containers that it ended with.
pub(super) async fn wait(compose: &Compose, cx: &Cx<'_>, wanted: &Wanted<'_>) -> Result<Vec<Container>, StepError> {
    let name = compose.name(cx)?;
    let begun = cx.host.now_ms();
    let since = |at: u64| Duration::from_millis(cx.host.now_ms().saturating_sub(at));
    let mut well: Option<(u64, BTreeMap<String, String>)> = None;
    loop {
        let now = project::containers(&compose.engine, cx, &name).await?;
        let mut bad: Vec<String> = wanted.services.iter().filter_map(|s| missing(s, &now)).collect();
        for container in now.iter().filter(|c| wanted.services.iter().any(|s| s == c.service())) {
            bad.extend(ill(container, wanted.may_end));
        }
        if bad.is_empty() {
            let lives: BTreeMap<_, _> =
                now.iter().map(|c| (c.id.clone(), format!("{} {}", c.restarts, c.started_at))).collect();
            match &well {
                Some((at, then)) if *then == lives => {
                    if since(*at) >= wanted.window {
                        return Ok(now);
                    }
                }
                Some((_, then)) => {
                    let again = now.iter().find(|c| then.get(&c.id) != lives.get(&c.id));
                    bad.extend(again.map(|c| format!("{} restarts ({} times so far)", c.service(), c.restarts)));
                    well = Some((cx.host.now_ms(), lives));
                }
                None if wanted.window.is_zero() => return Ok(now),
                None => well = Some((cx.host.now_ms(), lives)),
            }
        } else {
            well = None;
            cx.phase(format!("waiting: {}", bad.join(", ")));
        }
        if let Some(dead) = now.iter().find_map(|c| dead(c, wanted)) {
            return Err(StepError::permanent(format!("project {name}: {dead}")).help(logs(&now, wanted)));
        }
        if since(begun) >= wanted.limit {
            let why = if bad.is_empty() { "it restarts over and over".to_owned() } else { bad.join(", ") };
            let after = Period(wanted.limit);
            return Err(timeout(format!("project {name}: not well after {after}: {why}")).help(logs(&now, wanted)));
        }
        pause(cx, EVERY, &format!("project {name}")).await?;
    }
}

fn missing(service: &str, now: &[Container]) -> Option<String> {
    (!now.iter().any(|c| c.service() == service)).then(|| format!("{service} has no container"))
}

/// What is not well with a container, if anything.
fn ill(container: &Container, may_end: &[String]) -> Option<String> {
    let service = container.service();
    if !container.running || container.status == "restarting" {
        let ended = container.status == "exited" && container.exit_code == 0;
        if ended && may_end.iter().any(|s| s == service) {
            return None;
        }
        let code = if container.status == "exited" || container.status == "restarting" {
            format!(" (exit code {})", container.exit_code)
        } else {
            String::new()
        };
        return Some(format!("{service} is {}{code}", container.status));
    }
    match container.health.as_deref() {
        None | Some("healthy") => None,
        Some(health) if container.health_said.is_empty() => Some(format!("{service} is {health}")),
        Some(health) => {
            let said = crate::http::look::excerpt(&container.health_said);
            Some(format!("{service} is {health}: {said}"))
        }
    }
}

/// One that ended, and that nobody starts again.
fn dead(container: &Container, wanted: &Wanted<'_>) -> Option<String> {
    let policy = container.raw["HostConfig"]["RestartPolicy"]["Name"].as_str().unwrap_or_default();
    let over = matches!(container.status.as_str(), "exited" | "dead") && matches!(policy, "" | "no");
    let counts = wanted.services.iter().any(|s| s == container.service());
    let ended = over && counts && ill(container, wanted.may_end).is_some();
    ended.then(|| format!("{} ended with exit code {}", container.service(), container.exit_code))
}

fn logs(now: &[Container], wanted: &Wanted<'_>) -> String {
    let bad = now.iter().find(|c| ill(c, wanted.may_end).is_some());
    bad.map_or_else(|| "`docker ps --all` shows its containers".to_owned(), |c| format!("see `docker logs {}`", c.name))
}
