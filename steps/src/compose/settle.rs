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
    // How often each container had been restarted when it was first seen, by its id.
    let mut first: BTreeMap<String, u64> = BTreeMap::new();
    loop {
        let now = project::containers(&compose.engine, cx, &name).await?;
        for container in &now {
            first.entry(container.id.clone()).or_insert(container.restarts);
        }
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
            return Err(StepError::permanent(format!("project {name}: {dead}")).help(logs(&now, &first, wanted)));
        }
        if since(begun) >= wanted.limit {
            let (after, why) = (Period(wanted.limit), trouble(&now, &first, wanted));
            let said = timeout(format!("project {name}: not well after {after}: {why}"));
            return Err(said.help(logs(&now, &first, wanted)));
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

/// Why the project is not well at the end of the wait. That a container was restarted comes first, as what it is at the
/// moment of the last look (up, about to start again) is chance.
fn trouble(now: &[Container], first: &BTreeMap<String, u64>, wanted: &Wanted<'_>) -> String {
    let mut all: Vec<String> = wanted.services.iter().filter_map(|s| missing(s, now)).collect();
    for container in now.iter().filter(|c| wanted.services.iter().any(|s| s == c.service())) {
        let ill = ill(container, wanted.may_end);
        match restarts(container, first) {
            0 => all.extend(ill),
            1 => all.push(format!("{} was restarted once meanwhile", container.service())),
            n => all.push(format!("{} was restarted {n} times meanwhile", container.service())),
        }
    }
    if all.is_empty() {
        return format!("all is well, but not for {} yet", Period(wanted.window));
    }
    all.join(", ")
}

/// How often it was restarted since it was first seen.
fn restarts(container: &Container, first: &BTreeMap<String, u64>) -> u64 {
    container.restarts.saturating_sub(first.get(&container.id).copied().unwrap_or(0))
}

fn logs(now: &[Container], first: &BTreeMap<String, u64>, wanted: &Wanted<'_>) -> String {
    let bad = now.iter().find(|c| restarts(c, first) > 0 || ill(c, wanted.may_end).is_some());
    bad.map_or_else(|| "`docker ps --all` shows its containers".to_owned(), |c| format!("see `docker logs {}`", c.name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn container(service: &str, status: &str, restarts: u64) -> Container {
        Container::of(json!({
            "Id": service, "Name": format!("/app_{service}_1"), "RestartCount": restarts,
            "State": {"Status": status, "Running": status == "running" || status == "restarting", "ExitCode": 3},
            "Config": {"Labels": {"com.docker.compose.service": service}},
            "HostConfig": {"RestartPolicy": {"Name": "always"}},
        }))
    }

    /// Whatever the moment of the last look was.
    #[test]
    fn a_container_that_restarts_is_named_whatever_it_is_at_the_end() {
        let services = ["a".to_owned(), "b".to_owned()];
        let wanted = Wanted { services: &services, may_end: &[], window: Duration::from_secs(2), limit: EVERY };
        let first = BTreeMap::from([("a".to_owned(), 1), ("b".to_owned(), 0)]);
        for status in ["running", "restarting", "exited"] {
            let now = [container("a", status, 5), container("b", "running", 0)];
            assert_eq!(trouble(&now, &first, &wanted), "a was restarted 4 times meanwhile", "{status}");
            assert_eq!(logs(&now, &first, &wanted), "see `docker logs app_a_1`", "{status}");
        }
        let now = [container("a", "restarting", 1)];
        assert_eq!(trouble(&now, &first, &wanted), "b has no container, a is restarting (exit code 3)");
        let now = [container("a", "running", 1), container("b", "running", 0)];
        assert_eq!(trouble(&now, &first, &wanted), "all is well, but not for 2s yet");
    }
}
