//! How Compose is called: which project, of which files, on which daemon. Version 2 is `docker compose`; where Docker does
//! not know that word it is version 1, `docker-compose`. Written for what both understand (1.29.2; 2.20 by its
//! documentation).

use runback_core::step::{Cx, InputProblem, StepError};
use runback_core::target::Command;

use crate::docker::cli::{Engine, name_problem};
use crate::http::look::problem;

/// A project as a step's inputs name it.
#[derive(Debug, Clone)]
pub(crate) struct Compose {
    pub(crate) engine: Engine,
    pub(crate) dir: String,
    pub(crate) files: Vec<String>,
    pub(crate) env_file: String,
    pub(crate) project: String,
    pub(crate) profiles: Vec<String>,
}

/// Declares the inputs of a step type about a Compose project: its own, which project, and which daemon.
macro_rules! compose_inputs {
    ($(#[$meta:meta])* { $($(#[$own_meta:meta])* $own:ident: $own_type:ty,)* }) => {
        crate::docker::cli::engine_inputs! {
            $(#[$meta])* {
                /// The project's folder, where its files are. On `local`, a relative path counts from the playbook's
                /// folder.
                dir: String,
                /// The compose files, from `dir`. Default: those that Compose finds there.
                #[serde(default)]
                files: Vec<String>,
                /// The file of variables, from `dir`. Default: `.env`, if it is there.
                #[serde(default)]
                env_file: String,
                /// The project's name. Default: the name of the folder, in small letters.
                #[serde(default)]
                project: String,
                /// Profiles to enable.
                #[serde(default)]
                profiles: Vec<String>,
                $($(#[$own_meta])* $own: $own_type,)*
            }
        }

        impl Inputs {
            pub(crate) fn compose(&self) -> crate::compose::cli::Compose {
                crate::compose::cli::Compose {
                    engine: self.engine(),
                    dir: self.dir.clone(),
                    files: self.files.clone(),
                    env_file: self.env_file.clone(),
                    project: self.project.clone(),
                    profiles: self.profiles.clone(),
                }
            }
        }
    };
}

pub(crate) use compose_inputs;

/// The words that begin a command of the tool that is there.
#[derive(Debug, Clone)]
pub(crate) struct Tool(Vec<String>);

impl Compose {
    pub(crate) fn problems(&self, services: &[String]) -> Vec<InputProblem> {
        let mut all = self.engine.problems();
        all.extend(
            crate::file::paths::problems("dir", &self.dir).filter(|_| self.project.is_empty() || self.dir.is_empty()),
        );
        all.extend(
            self.files.iter().filter(|f| f.is_empty()).map(|_| problem(&["files"], "a file has no name".to_owned())),
        );
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        if !self.project.is_empty() && (!self.project.chars().all(plain) || self.project.starts_with(['-', '_'])) {
            let why = "a project's name has small letters, digits, `-` and `_`, and begins with a letter or a digit";
            all.push(problem(&["project"], why.to_owned()));
        }
        all.extend(services.iter().filter_map(|s| name_problem("services", s)));
        all
    }

    /// The project's name: as both generations make it of a folder's name.
    pub(crate) fn name(&self, cx: &Cx<'_>) -> Result<String, StepError> {
        if !self.project.is_empty() {
            return Ok(self.project.clone());
        }
        let dir = self.folder(cx);
        let folder = crate::file::paths::name(dir.trim_end_matches('/')).to_lowercase();
        let name: String = folder.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-' || *c == '_').collect();
        let name = name.trim_start_matches(['-', '_']);
        if name.is_empty() {
            return Err(StepError::permanent(format!("{dir}: the folder's name gives no name for the project"))
                .help("give one with `project`"));
        }
        Ok(name.to_owned())
    }

    pub(crate) fn folder(&self, cx: &Cx<'_>) -> String {
        cx.path(&self.dir)
    }

    pub(crate) async fn tool(&self, cx: &Cx<'_>) -> Result<Tool, StepError> {
        let exit = self.engine.tried(cx, self.engine.ask(&["compose", "version", "--short"])).await?;
        let words: &[&str] = if exit.ok() { &["docker", "compose"] } else { &["docker-compose"] };
        Ok(Tool(words.iter().map(|w| (*w).to_owned()).collect()))
    }

    fn argv<S: AsRef<str>>(&self, cx: &Cx<'_>, tool: &Tool, words: &[S]) -> Result<Vec<String>, StepError> {
        let mut argv = tool.0.clone();
        argv.extend(["--ansi".to_owned(), "never".to_owned(), "--project-name".to_owned(), self.name(cx)?]);
        for (option, values) in [("--file", &self.files), ("--profile", &self.profiles)] {
            argv.extend(values.iter().flat_map(|v| [option.to_owned(), v.clone()]));
        }
        if !self.env_file.is_empty() {
            argv.extend(["--env-file".to_owned(), self.env_file.clone()]);
        }
        argv.extend(words.iter().map(|w| w.as_ref().to_owned()));
        Ok(argv)
    }

    /// A command whose output belongs into the log.
    pub(crate) fn work<S: AsRef<str>>(&self, cx: &Cx<'_>, tool: &Tool, words: &[S]) -> Result<Command, StepError> {
        Ok(self.engine.aim(Command::new(self.argv(cx, tool, words)?)).cwd(self.folder(cx)))
    }

    /// A command whose output the step reads.
    pub(crate) async fn read<S: AsRef<str>>(&self, cx: &Cx<'_>, words: &[S]) -> Result<String, StepError> {
        let tool = self.tool(cx).await?;
        let command = self.engine.aim(Command::query(self.argv(cx, &tool, words)?)).cwd(self.folder(cx));
        let command = command.timeout(std::time::Duration::from_secs(120));
        Ok(self.engine.ran(cx, command, &self.what(cx)).await?.stdout_text())
    }

    /// For messages.
    pub(crate) fn what(&self, cx: &Cx<'_>) -> String {
        self.name(cx).map_or_else(|_| self.dir.clone(), |name| format!("project {name}"))
    }

    /// The services that the files declare, with the profiles that are enabled.
    pub(crate) async fn services(&self, cx: &Cx<'_>) -> Result<Vec<String>, StepError> {
        let text = self.read(cx, &["config", "--services"]).await?;
        Ok(text.lines().map(|l| l.trim().to_owned()).filter(|l| !l.is_empty()).collect())
    }

    /// The images that the files name, each once.
    pub(crate) async fn images(&self, cx: &Cx<'_>) -> Result<Vec<String>, StepError> {
        let text = self.read(cx, &["config"]).await?;
        let config: runback_core::Json = serde_yaml::from_str(&text)
            .map_err(|e| StepError::permanent(format!("{}: `config` cannot be read: {e}", self.what(cx))))?;
        let services = config["services"].as_object().into_iter().flatten();
        let mut images: Vec<String> = services.filter_map(|(_, s)| s["image"].as_str().map(str::to_owned)).collect();
        images.sort();
        images.dedup();
        Ok(images)
    }
}
