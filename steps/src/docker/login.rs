//! `docker.login`: the target may use a registry.
//!
//! **Does.** `docker login`, the password on its standard input, never among its words. What Docker remembers of it is in
//! `config.json` on the target, or with the credential helper that is named there.
//!
//! **Outputs.** `registry`, `username`, and `config`: the file.
//!
//! **Undo** brings the earlier `config.json` back to the byte, or removes it if there was none. While that may happen, the
//! earlier one is kept beside it as `.config.json.runback-RUN-STEP.bak`, for its owner only, not in the journal. A file that
//! somebody changed after a login that was refused stays. What a credential helper keeps is not taken back.

use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind, Undone,
};
use runback_core::target::{Command, FileKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cli::engine_inputs;
use crate::begun::{self, Tells};
use crate::file::before::{self, FileBefore, Now};
use crate::file::{parents, paths};
use crate::http::look::problem;

engine_inputs! {
    /// Which registry, and who.
    {
        /// Its address, such as registry.example.com:5000. Default: Docker's own.
        #[serde(default)]
        registry: String,
        /// The user.
        username: String,
        /// From the playbook's `secrets`.
        password: String,
        /// The folder of `config.json` on the target. Default: $DOCKER_CONFIG, or ~/.docker.
        #[serde(default)]
        config_dir: String,
    }
}

/// Who may use what.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// The registry.
    pub(crate) registry: String,
    /// The user.
    pub(crate) username: String,
    /// The file that Docker remembers it in.
    pub(crate) config: String,
    /// Of that file.
    pub(crate) sha256: Option<String>,
}

/// The file before.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Capture {
    config: String,
    before: Option<FileBefore>,
    made_dirs: Vec<String>,
    #[serde(default)]
    tells: Tells,
}

/// The step type `docker.login`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DockerLogin;

/// The folder that Docker's command line reads on the target.
async fn config_dir(cx: &Cx<'_>, inputs: &Inputs) -> Result<String, StepError> {
    if !inputs.config_dir.is_empty() {
        return Ok(cx.path(&inputs.config_dir));
    }
    for (name, below) in [("DOCKER_CONFIG", ""), ("HOME", "/.docker")] {
        let exit = cx.query(Command::query(["printenv", name])).await?;
        let value = exit.stdout_text().trim().to_owned();
        if exit.ok() && !value.is_empty() {
            return Ok(format!("{value}{below}"));
        }
    }
    Err(StepError::permanent("the target has neither $DOCKER_CONFIG nor $HOME").help("give `config_dir`"))
}

async fn sha256(cx: &Cx<'_>, path: &str) -> Result<Option<String>, StepError> {
    Ok(match before::look(cx, path).await? {
        Now::File { sha256, .. } => Some(sha256),
        _ => None,
    })
}

/// Logs in, and tells when. What is refused and leaves the file as it was has nothing to undo.
async fn login(cx: &Cx<'_>, inputs: &Inputs, path: &str) -> Result<(), StepError> {
    let engine = inputs.engine();
    let mut words = vec!["login", "--username", &inputs.username, "--password-stdin"];
    words.extend((!inputs.registry.is_empty()).then_some(inputs.registry.as_str()));
    let command = engine.ask(&words).stdin(inputs.password.clone()).env("DOCKER_CONFIG", paths::parent(path));
    let from = before::look(cx, path).await?;
    let what = format!("registry {}", inputs.registry);
    let same = async { before::look(cx, path).await.is_ok_and(|now| now == from) };
    begun::changing(cx, engine.ran(cx, command, &what), same).await.map(drop)
}

#[async_trait::async_trait]
impl StepType for DockerLogin {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = Capture;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "docker.login",
            doc: "The target may use a registry.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Small,
            examples: &[
                "- id: login\n  uses: docker.login\n  with: { registry: registry.example.com, username: deploy, password: \"{{ secrets.registry }}\" }\n",
            ],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut all = inputs.engine().problems();
        for (key, text) in [("registry", &inputs.registry), ("username", &inputs.username)] {
            if text.starts_with('-') || text.contains(char::is_whitespace) || (key == "username" && text.is_empty()) {
                all.push(problem(&[key], format!("`{text}` cannot be that")));
            }
        }
        if inputs.password.is_empty() {
            all.push(problem(&["password"], "must not be empty".to_owned()));
        }
        all
    }

    async fn preview(&self, _: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let registry = if inputs.registry.is_empty() { "Docker's registry" } else { &inputs.registry };
        let summary = format!("log in to {registry} as {}", inputs.username);
        Ok(Preview { changes: None, summary, details: Vec::new() })
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Capture, StepError> {
        let config = format!("{}/config.json", config_dir(cx, inputs).await?.trim_end_matches('/'));
        let made_dirs = parents::missing(cx, &config).await?;
        let before = match cx.target.stat(&config).await? {
            Some(stat) if stat.kind == FileKind::File => {
                Some(before::read_up_to(cx, &config, &stat, paths::beside(cx, &config, "bak"), 0).await?)
            }
            Some(stat) => return Err(StepError::permanent(format!("{config} is {}", before::kind(&stat)))),
            None => None,
        };
        Ok(Capture { config, before, made_dirs, tells: Tells::YES })
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Capture) -> Result<Acted<Outputs>, StepError> {
        let path = &capture.config;
        if let Some(old) = &capture.before {
            let now = before::look(cx, path).await?;
            if capture.tells.strangers(cx) && !now.is(old) {
                return Err(before::changed_since(cx, path));
            }
            before::copy_aside(cx, path, old, &now).await?;
        }
        login(cx, inputs, path).await?;
        let sha256 = sha256(cx, path).await?;
        let changed = sha256.as_ref() != capture.before.as_ref().map(|b| &b.sha256);
        if let (false, Some(aside)) = (changed, capture.before.as_ref().and_then(|b| b.content.aside())) {
            cx.target.remove_file(aside).await?;
        }
        let (registry, username) = (inputs.registry.clone(), inputs.username.clone());
        Ok(Acted { outputs: Outputs { registry, username, config: path.clone(), sha256 }, changed })
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        _: &Inputs,
        capture: &Capture,
        outputs: Option<&Outputs>,
    ) -> Result<Undone, StepError> {
        let path = &capture.config;
        let now = before::look(cx, path).await?;
        let back = match (&capture.before, &now) {
            (None, Now::Absent) => true,
            (Some(before), now) => now.is(before),
            _ => false,
        };
        let back = back || capture.tells.strangers(cx);
        let mut changed = !back;
        if !back {
            let is = match &now {
                Now::File { sha256, .. } => Some(sha256),
                _ => None,
            };
            if outputs.is_some_and(|o| o.sha256.as_ref() != is) && !cx.force {
                return Err(before::drift(cx, path, "was changed after this step logged in"));
            }
            match &capture.before {
                Some(before) => before::restore(cx, path, before).await?,
                None => cx.target.remove_file(path).await?,
            }
        }
        if let Some(aside) = capture.before.as_ref().and_then(|b| b.content.aside())
            && cx.target.stat(aside).await?.is_some()
        {
            cx.target.remove_file(aside).await?;
            changed = true;
        }
        let (removed, note) = parents::unmake(cx, &capture.made_dirs).await?;
        let note = note.or_else(|| changed.then(|| format!("{path} is as before the login")));
        Ok(Undone { changed: changed || removed, note })
    }
}
