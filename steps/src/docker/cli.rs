//! How `docker` is called: which daemon, one way to run it, and what its failures mean. Everything goes through the
//! command line, so that contexts, credential helpers and remote daemons keep working.

use std::time::Duration;

use runback_core::Json;
use runback_core::step::{Class, Cx, InputProblem, StepError};
use runback_core::target::{Command, Exit};

use super::errors;
use crate::http::look::problem;

/// A daemon that does not answer is not waited for longer, when it is only asked something.
const ANSWER: Duration = Duration::from_secs(120);
/// What `docker inspect` of a project may print, in bytes.
const MUCH: usize = 16 << 20;

/// Which daemon. An empty text is one that was not given.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    pub(crate) host: String,
    pub(crate) context: String,
}

/// Declares the inputs of a step type that talks to a daemon: its own, and which daemon.
macro_rules! engine_inputs {
    ($(#[$meta:meta])* { $($(#[$own_meta:meta])* $own:ident: $own_type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub(crate) struct Inputs {
            $($(#[$own_meta])* pub(crate) $own: $own_type,)*
            /// The daemon, such as tcp://10.0.0.5:2376 or ssh://ops@node1. Default: what the target's environment says,
            /// or its own daemon.
            #[serde(default)]
            pub(crate) docker_host: String,
            /// A context of `docker context`. Not together with `docker_host`.
            #[serde(default)]
            pub(crate) docker_context: String,
        }

        impl Inputs {
            pub(crate) fn engine(&self) -> crate::docker::cli::Engine {
                crate::docker::cli::Engine { host: self.docker_host.clone(), context: self.docker_context.clone() }
            }
        }
    };
}

pub(crate) use engine_inputs;

impl Engine {
    pub(crate) fn problems(&self) -> Vec<InputProblem> {
        if self.host.is_empty() || self.context.is_empty() {
            return Vec::new();
        }
        vec![problem(&["docker_context"], "a context names its own daemon: give one of the two".to_owned())]
    }

    /// Through the environment, which `docker` and both generations of Compose read alike.
    pub(crate) fn aim(&self, mut command: Command) -> Command {
        for (name, value) in [("DOCKER_HOST", &self.host), ("DOCKER_CONTEXT", &self.context)] {
            if !value.is_empty() {
                command.env.insert(name.to_owned(), value.clone());
            }
        }
        command
    }

    /// `docker WORDS`, whose output belongs into the log.
    pub(crate) fn work<S: AsRef<str>>(&self, words: &[S]) -> Command {
        let argv = std::iter::once("docker").chain(words.iter().map(AsRef::as_ref));
        self.aim(Command::new(argv))
    }

    /// `docker WORDS`, whose output the step reads.
    pub(crate) fn ask<S: AsRef<str>>(&self, words: &[S]) -> Command {
        let argv = std::iter::once("docker").chain(words.iter().map(AsRef::as_ref));
        self.aim(Command::query(argv)).keep_stdout(MUCH).timeout(ANSWER)
    }

    /// Runs a small command, whatever comes of it.
    pub(crate) async fn tried(&self, cx: &Cx<'_>, command: Command) -> Result<Exit, StepError> {
        let shown = command.display();
        cx.query(command).await.map_err(|e| errors::of_start(e, &shown))
    }

    /// Runs a small command; a failure is told in terms of `what`.
    pub(crate) async fn ran(&self, cx: &Cx<'_>, command: Command, what: &str) -> Result<Exit, StepError> {
        let exit = self.tried(cx, command.clone()).await?;
        if exit.ok() { Ok(exit) } else { Err(errors::of_exit(&command, &exit, what)) }
    }

    /// Runs the command that the step is about; it may be detached.
    pub(crate) async fn main(&self, cx: &Cx<'_>, command: Command, what: &str) -> Result<Exit, StepError> {
        let shown = command.display();
        let exit = cx.run(command.clone()).await.map_err(|e| errors::of_start(e, &shown))?;
        if exit.ok() { Ok(exit) } else { Err(errors::of_exit(&command, &exit, what)) }
    }

    /// The lines that a listing prints, such as ids.
    pub(crate) async fn lines<S: AsRef<str>>(
        &self,
        cx: &Cx<'_>,
        words: &[S],
        what: &str,
    ) -> Result<Vec<String>, StepError> {
        let exit = self.ran(cx, self.ask(words), what).await?;
        Ok(exit.stdout_text().lines().map(|l| l.trim().to_owned()).filter(|l| !l.is_empty()).collect())
    }

    /// What `docker inspect` says of each that is there; those that are not are left out.
    pub(crate) async fn inspect<S: AsRef<str>>(
        &self,
        cx: &Cx<'_>,
        kind: &str,
        names: &[S],
    ) -> Result<Vec<Json>, StepError> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let words: Vec<&str> = ["inspect", "--type", kind].into_iter().chain(names.iter().map(AsRef::as_ref)).collect();
        let command = self.ask(&words);
        let exit = self.tried(cx, command.clone()).await?;
        if !exit.ok() && !errors::not_there(&exit) {
            return Err(errors::of_exit(&command, &exit, kind));
        }
        serde_json::from_slice(&exit.stdout).map_err(|e| {
            StepError::permanent(format!("docker inspect: the answer cannot be read: {e}")).command(command.display())
        })
    }

    /// The id of an image by its name; None = not on the daemon.
    pub(crate) async fn image_id(&self, cx: &Cx<'_>, name: &str) -> Result<Option<String>, StepError> {
        let found = self.inspect(cx, "image", &[name]).await?;
        Ok(found.first().and_then(|i| i["Id"].as_str()).map(str::to_owned))
    }
}

/// A name that would be taken for an option, or nothing at all.
pub(crate) fn name_problem(key: &str, name: &str) -> Option<InputProblem> {
    let message = if name.is_empty() {
        "must not be empty"
    } else if name.starts_with('-') {
        "begins with `-`, which `docker` takes for an option"
    } else if name.contains(|c: char| c.is_whitespace() || c.is_control()) {
        "has a blank in it"
    } else {
        return None;
    };
    Some(problem(&[key], message.to_owned()))
}

/// The class of a wait that ended without what it waited for.
pub(crate) fn timeout(message: String) -> StepError {
    StepError::new(Class::Timeout, message)
}
