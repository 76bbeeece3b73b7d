//! `docker.run`: a container runs in the background, under a name of its own.
//!
//! **Does.** `docker run --detach` under `name`, and waits until it runs, and is healthy where it has a health check. A
//! container of that name that this step type made from the same inputs and the same image is left alone, or started. Any
//! other container of that name is stopped and put aside as `NAME.before-RUN-STEP`, and not started again by the daemon.
//! Values of `env` go through the environment of the command, and those of variables that `docker` itself reads, such as
//! DOCKER_HOST, PATH or HTTPS_PROXY, through its standard input, so they are in no list of processes; `docker inspect` shows
//! them to whoever may use the daemon.
//!
//! **Outputs.** `container`, `id`, `image`, and `previous`: the name of the container that was put aside, or null.
//!
//! **Undo** removes the new container with its volumes without a name, and gives the one that was put aside its name back,
//! running if it ran. It does so only if the container is the one that the step made; else it is a conflict, and `--force`
//! decides. If the run is never taken back, the old container stays aside until you remove it. What somebody did with the
//! old container after an action that failed before it touched it stays.

use std::collections::BTreeMap;
use std::time::Duration;

use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind, Undone,
};
use runback_core::target::Command;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cli::{engine_inputs, name_problem, timeout};
use super::container::Container;
use super::stop::find;
use super::tag::required;
use crate::begun::{self, Tells};
use crate::bounded::pause;
use crate::http::look::problem;
use crate::period::Period;

/// On what this step type makes: what it was made from, and by which step.
const SPEC: &str = "dev.runback.spec";
const MADE_BY: &str = "dev.runback.step";

engine_inputs! {
    /// What runs, and how.
    #[derive(Serialize)]
    {
        /// The image. It is pulled if the daemon has it not.
        image: String,
        /// The container's name.
        name: String,
        /// The command, as a list of words. Default: the image's.
        #[serde(default)]
        command: Vec<String>,
        /// Its environment. Variables that `docker` itself reads have values of one line.
        #[serde(default)]
        env: BTreeMap<String, String>,
        /// Ports to publish, such as "8080:80" or "127.0.0.1:8080:80".
        #[serde(default)]
        ports: Vec<String>,
        /// Folders and volumes, such as /srv/data:/data or cache:/cache:ro.
        #[serde(default)]
        volumes: Vec<String>,
        /// The network. Default: the daemon's.
        #[serde(default)]
        network: String,
        /// When the daemon starts it again: no, on-failure, on-failure:3, unless-stopped or always.
        #[serde(default)]
        restart: String,
        /// Labels of the container.
        #[serde(default)]
        labels: BTreeMap<String, String>,
        /// More options of `docker run`, a word each, such as --read-only or --memory=1g.
        #[serde(default)]
        options: Vec<String>,
        /// How long to wait until it runs, and is healthy.
        #[serde(default = "crate::compose::up::two_minutes")]
        wait_timeout: Period,
    }
}

/// The container.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// Its name.
    pub(crate) container: String,
    /// Its id.
    pub(crate) id: String,
    /// The id of its image.
    pub(crate) image: String,
    /// The container that was put aside; null where there was none.
    pub(crate) previous: Option<String>,
}

/// The container of that name before.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Old {
    id: String,
    running: bool,
    /// As `--restart` takes it.
    restart: String,
    #[serde(default)]
    tells: Tells,
}

/// `docker` or what it starts reads it: a value for the container must not change the command. As of version 28.2.2.
fn is_dockers_own(name: &str) -> bool {
    const NAMES: [&str; 18] = [
        "DOCKER_API_VERSION",
        "DOCKER_AUTH_CONFIG",
        "DOCKER_BUILDKIT",
        "DOCKER_CERT_PATH",
        "DOCKER_CONFIG",
        "DOCKER_CONTEXT",
        "DOCKER_CUSTOM_HEADERS",
        "DOCKER_DEFAULT_PLATFORM",
        "DOCKER_HIDE_LEGACY_COMMANDS",
        "DOCKER_HOST",
        "DOCKER_TLS",
        "DOCKER_TLS_VERIFY",
        "GODEBUG",
        "HOME",
        "PATH",
        "SSH_AUTH_SOCK",
        "TMPDIR",
        "XDG_RUNTIME_DIR",
    ];
    const BEGINNINGS: [&str; 4] = ["DOCKER_CONTENT_TRUST", "DOCKER_CLI_", "LD_", "OTEL_"];
    const PROXIES: [&str; 4] = ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"];
    NAMES.contains(&name)
        || BEGINNINGS.iter().any(|b| name.starts_with(b))
        || PROXIES.iter().any(|p| name.eq_ignore_ascii_case(p))
}

/// The step type `docker.run`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DockerRun;

impl Inputs {
    /// A hash of all that the container is made from.
    fn spec(&self, image: &str) -> String {
        let text = serde_json::to_string(self).unwrap_or_default();
        crate::file::sha256_hex(format!("{image} {text}").as_bytes())
    }

    fn words(&self, spec: &str, made_by: &str) -> Vec<String> {
        let mut words = vec!["run".to_owned(), "--detach".to_owned()];
        let mut option = |name: &str, value: String| words.extend([name.to_owned(), value]);
        option("--name", self.name.clone());
        option("--label", format!("{SPEC}={spec}"));
        option("--label", format!("{MADE_BY}={made_by}"));
        for name in self.env.keys().filter(|name| !is_dockers_own(name)) {
            option("--env", name.clone());
        }
        if self.env.keys().any(|name| is_dockers_own(name)) {
            option("--env-file", "/dev/stdin".to_owned());
        }
        for (name, values) in [("--publish", &self.ports), ("--volume", &self.volumes)] {
            for value in values {
                option(name, value.clone());
            }
        }
        for (name, value) in [("--network", &self.network), ("--restart", &self.restart)] {
            if !value.is_empty() {
                option(name, value.clone());
            }
        }
        for (name, value) in &self.labels {
            option("--label", format!("{name}={value}"));
        }
        words.extend(self.options.iter().cloned());
        words.push(self.image.clone());
        words.extend(self.command.iter().cloned());
        words
    }

    fn command(&self, spec: &str, made_by: &str) -> Command {
        let mut command = self.engine().work(&self.words(spec, made_by));
        let mut file = String::new();
        for (name, value) in &self.env {
            if is_dockers_own(name) {
                file.push_str(&format!("{name}={value}\n"));
            } else {
                command.env.insert(name.clone(), value.clone());
            }
        }
        command.stdin = (!file.is_empty()).then(|| file.into_bytes());
        command
    }
}

fn restart_policy(container: &Container) -> String {
    let policy = &container.raw["HostConfig"]["RestartPolicy"];
    let name = policy["Name"].as_str().filter(|n| !n.is_empty()).unwrap_or("no");
    match policy["MaximumRetryCount"].as_u64() {
        Some(count) if count > 0 => format!("{name}:{count}"),
        _ => name.to_owned(),
    }
}

fn aside(cx: &Cx<'_>, name: &str) -> String {
    let step: String = cx.step.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    format!("{name}.before-{}-{}", cx.run, step.trim_end_matches('-'))
}

fn made_by(cx: &Cx<'_>) -> String {
    format!("{} {}", cx.run, cx.step)
}

async fn settle(cx: &Cx<'_>, inputs: &Inputs) -> Result<Container, StepError> {
    let engine = inputs.engine();
    let begun = cx.host.now_ms();
    let what = format!("container {}", inputs.name);
    loop {
        let Some(now) = find(&engine, cx, &inputs.name).await? else {
            return Err(StepError::conflict(format!("{what} was removed while it was started")));
        };
        let well = now.running && now.status == "running" && now.health.as_deref().is_none_or(|h| h == "healthy");
        let help = format!("see `docker logs {}`", inputs.name);
        if well {
            return Ok(now);
        }
        if !now.running && now.status == "exited" && restart_policy(&now) == "no" {
            return Err(StepError::permanent(format!("{what} ended with exit code {}", now.exit_code)).help(help));
        }
        if cx.host.now_ms().saturating_sub(begun) >= inputs.wait_timeout.0.as_millis() as u64 {
            let health = now
                .health
                .map_or(String::new(), |h| format!(" and {h}: {}", crate::http::look::excerpt(&now.health_said)));
            return Err(timeout(format!("{what} is {}{health} after {}", now.status, inputs.wait_timeout)).help(help));
        }
        pause(cx, Duration::from_millis(300), &what).await?;
    }
}

#[async_trait::async_trait]
impl StepType for DockerRun {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = Option<Old>;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "docker.run",
            doc: "A container runs in the background, under a name of its own.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Main,
            examples: &[
                "- id: app\n  uses: docker.run\n  with:\n    image: registry.example.com/app:1.4\n    name: app\n    ports: [\"8080:80\"]\n    env: { LOG_LEVEL: info }\n    restart: unless-stopped\n",
            ],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let names = [("image", &inputs.image), ("name", &inputs.name)];
        let mut all = inputs.engine().problems();
        all.extend(names.iter().filter_map(|(key, name)| name_problem(key, name)));
        let policy = inputs.restart.split(':').next().unwrap_or_default();
        if !["", "no", "on-failure", "unless-stopped", "always"].contains(&policy) {
            let why = format!("`{policy}` is none of no, on-failure, unless-stopped and always");
            all.push(problem(&["restart"], why));
        }
        let bad = inputs.env.keys().filter(|k| k.is_empty() || k.contains(['=', '\0']));
        all.extend(bad.map(|k| problem(&["env", k], "cannot be the name of a variable".to_owned())));
        let lines = inputs.env.iter().filter(|(k, v)| is_dockers_own(k) && v.contains(['\n', '\r']));
        let why = "`docker` itself reads a variable of that name, so its value goes by a file, and has to be one line";
        all.extend(lines.map(|(k, _)| problem(&["env", k], why.to_owned())));
        all
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let engine = inputs.engine();
        let image = engine.image_id(cx, &inputs.image).await?;
        let now = find(&engine, cx, &inputs.name).await?;
        let same = match (&image, &now) {
            (Some(id), Some(now)) => now.label(SPEC) == inputs.spec(id),
            _ => false,
        };
        let summary = match &now {
            Some(now) if same && now.running => format!("{} runs {} already", inputs.name, inputs.image),
            Some(_) if same => format!("start {}", inputs.name),
            Some(now) => {
                format!("replace {} ({}, of {}) by one of {}", inputs.name, now.status, now.image_name, inputs.image)
            }
            None => format!("run {} as {}", inputs.image, inputs.name),
        };
        let changes = !(same && now.is_some_and(|n| n.running));
        Ok(Preview { changes: Some(changes), summary, details: Vec::new() })
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Option<Old>, StepError> {
        let now = find(&inputs.engine(), cx, &inputs.name).await?;
        Ok(now.map(|c| Old { restart: restart_policy(&c), running: c.running, id: c.id, tells: Tells::YES }))
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Option<Old>) -> Result<Acted<Outputs>, StepError> {
        let engine = inputs.engine();
        let what = format!("container {}", inputs.name);
        if engine.image_id(cx, &inputs.image).await?.is_none() {
            let pull = engine.work(&["pull", "--quiet", &inputs.image]);
            engine.ran(cx, pull, &format!("image {}", inputs.image)).await?;
        }
        let image = required(&engine, cx, &inputs.image).await?;
        let spec = inputs.spec(&image);
        let mut made = true;
        let now = find(&engine, cx, &inputs.name).await?;
        let (same, own) =
            now.as_ref().map_or((false, false), |n| (n.label(SPEC) == spec, n.label(MADE_BY) == made_by(cx)));
        if let Some(now) = &now
            && !same
            && !own
            && capture.as_ref().is_none_or(|old| old.id != now.id)
        {
            return Err(StepError::conflict(format!("{what} was made by someone else since the step began"))
                .help("start a new run"));
        }
        if !same || now.as_ref().is_some_and(|now| !now.running) {
            begun::begins(cx).await?;
        }
        match &now {
            Some(now) if same => {
                made = own;
                if !now.running {
                    engine.ran(cx, engine.work(&["start", &now.id]), &what).await?;
                }
            }
            Some(now) if own => {
                // Of an earlier attempt, from an image that has changed since.
                engine.ran(cx, engine.work(&["rm", "--force", "--volumes", &now.id]), &what).await?;
            }
            Some(now) => {
                engine.ran(cx, engine.work(&["update", "--restart", "no", &now.id]), &what).await?;
                engine.ran(cx, engine.work(&["stop", &now.id]), &what).await?;
                engine.ran(cx, engine.work(&["rename", &now.id, &aside(cx, &inputs.name)]), &what).await?;
            }
            None => {}
        }
        if !same {
            engine.main(cx, inputs.command(&spec, &made_by(cx)), &what).await?;
        }
        let now = settle(cx, inputs).await?;
        let old = capture.as_ref().filter(|old| old.id != now.id);
        let changed = made || capture.as_ref().is_some_and(|old| !old.running);
        let previous = old.map(|_| aside(cx, &inputs.name));
        Ok(Acted { outputs: Outputs { container: now.name, id: now.id, image: now.image, previous }, changed })
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        inputs: &Inputs,
        capture: &Option<Old>,
        outputs: Option<&Outputs>,
    ) -> Result<Undone, StepError> {
        if capture.as_ref().is_some_and(|old| old.tells.strangers(cx)) {
            return Ok(Undone { changed: false, note: None });
        }
        let engine = inputs.engine();
        let what = format!("container {}", inputs.name);
        let mut did = Vec::new();
        if let Some(now) = find(&engine, cx, &inputs.name).await?
            && capture.as_ref().is_none_or(|old| old.id != now.id)
        {
            let own = now.label(MADE_BY) == made_by(cx);
            if !own && capture.is_none() && outputs.is_none() {
                // What failed made none, and somebody else did since.
                return Ok(Undone { changed: false, note: None });
            }
            let ours = own && outputs.is_none_or(|o| o.id == now.id);
            if !ours && !cx.force {
                return Err(StepError::conflict(format!("{what} is not the one that this step made")).help(format!(
                    "look at it; `runback rollback {} --force` removes it and brings back what was there",
                    cx.run
                )));
            }
            if now.running {
                engine.ran(cx, engine.work(&["stop", &now.id]), &what).await?;
            }
            engine.ran(cx, engine.work(&["rm", "--force", "--volumes", &now.id]), &what).await?;
            did.push(format!("removed {}", inputs.name));
        }
        if let Some(old) = capture {
            let Some(there) = find(&engine, cx, &old.id).await? else {
                return Err(StepError::conflict(format!("the container that was {} before is gone", inputs.name))
                    .help("it was put aside, and somebody removed it; run it anew"));
            };
            if there.name != inputs.name {
                engine.ran(cx, engine.work(&["rename", &old.id, &inputs.name]), &what).await?;
                did.push(format!("{} is the container of before", inputs.name));
            }
            if restart_policy(&there) != old.restart {
                engine.ran(cx, engine.work(&["update", "--restart", &old.restart, &old.id]), &what).await?;
            }
            if old.running != there.running {
                let verb = if old.running { "start" } else { "stop" };
                engine.ran(cx, engine.work(&[verb, &old.id]), &what).await?;
                did.push(format!("{verb} {}", inputs.name));
            }
        }
        Ok(Undone { changed: !did.is_empty(), note: (!did.is_empty()).then(|| did.join("; ")) })
    }
}
