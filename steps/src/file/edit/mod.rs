//! `file.edit`: changes inside a YAML, JSON, TOML, INI or env file, by the path of what they are about.
//!
//! **Does.** Makes the `edits` one after the other, and replaces the file in one step. What an edit is not about keeps
//! every byte: comments, order, quotes, line endings. A file that is already so is not written.
//!
//! A path is names with dots between them: `services.proxy.ports`. `*` is every key or item. In a list, a name is an
//! index from 0, or the item that is this text: `services.*.depends_on.mysql` is `mysql` wherever something depends on
//! it, as an item or as a key. A name that holds a dot stands in quotes: `services.app.labels."com.example.tier"`.
//!
//! | edit | with | does |
//! | --- | --- | --- |
//! | `set` | `value` | gives the place this value; maps on the way are made |
//! | `remove` | | takes it away; nothing there is fine |
//! | `remove` | `value` | takes the items out of a list that are this value |
//! | `rename` | `to` | another name for a key, at the same place |
//! | `append` | `value` | adds an item to a list, unless it is in it |
//! | `replace` | `from`, `to` | texts that begin with `from` begin with `to` |
//!
//! `format: ini` is `[section]` and `key = value` lines (`section.key`, or `key` above the first section); `env` is
//! `KEY=value` lines. Their values are what stands behind the sign up to the end of the line: write quotes where the
//! reader of the file wants them. A key that stands twice is not set, as it is not known which one counts.
//!
//! **Outputs.** `path`, `sha256`, `size`, `mode`, `uid`, `gid`, `previous_sha256`, `backup`.
//!
//! Several steps may edit one file, also beside each other and in several runs: each edits what stands there when it is its
//! turn, as `file.line` does it.
//!
//! **Undo** brings the whole earlier file back, if it is still as the step left it. Where others changed other lines, it
//! takes its own change out and leaves theirs; appended items go from their list wherever it stands now. Where others
//! changed the same lines, it is a conflict, and `--force` brings the whole earlier file back.
//!
//! **Does not** edit through YAML aliases, files of several YAML documents, or more than 4 MiB.

mod change;
mod json;
mod lines;
mod path;
mod render;
mod toml;
mod tree;

use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, StepError, StepType, UndoKind, Undone,
};
use schemars::JsonSchema;
use serde::Deserialize;

use self::change::Edit;
use self::lines::Dialect;
use self::render::Language;
use super::edited::{self, Editing};
use super::put::{self, Capture, Outputs};
use super::{merge, paths};

/// What the file is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum Format {
    Yaml,
    Json,
    Toml,
    Ini,
    Env,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Inputs {
    /// The file. On `local`, a relative path counts from the playbook's folder.
    pub(crate) path: String,
    /// What it is written in. Default: by the end of its name.
    #[serde(default)]
    pub(crate) format: Option<Format>,
    /// The changes, made from the first to the last.
    #[schemars(length(min = 1))]
    pub(crate) edits: Vec<Edit>,
    /// Begin with an empty file if there is none.
    #[serde(default)]
    pub(crate) create: bool,
    /// A command, as a list of words, that must accept the new file before it takes the old one's place; `{path}` is the
    /// new file.
    #[serde(default)]
    pub(crate) validate: Option<Vec<String>>,
}

/// The step type `file.edit`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FileEdit;

impl Inputs {
    fn format(&self) -> Option<Format> {
        let name = paths::name(&self.path);
        let by_name = match name.rsplit_once('.').map(|(_, end)| end.to_ascii_lowercase()).as_deref() {
            Some("yaml" | "yml") => Some(Format::Yaml),
            Some("json") => Some(Format::Json),
            Some("toml") => Some(Format::Toml),
            Some("ini" | "cfg" | "properties") => Some(Format::Ini),
            Some("env") => Some(Format::Env),
            _ => (name == "env").then_some(Format::Env),
        };
        self.format.or(by_name)
    }

    /// The text after all edits. The error names the edit, counted from 1.
    fn edited(&self, old: &str) -> Result<String, StepError> {
        let unknown = || StepError::permanent(format!("{}: its name does not say what it is written in", self.path));
        let format = self.format().ok_or_else(|| unknown().help("say it with `format`"))?;
        // An empty text is an empty document everywhere but in JSON.
        let empty = format == Format::Json && old.trim().is_empty();
        let mut text = if empty { "{}\n".to_owned() } else { old.to_owned() };
        for (number, edit) in self.edits.iter().enumerate() {
            let made = match format {
                Format::Yaml => tree::edit(&text, edit, Language::Yaml),
                Format::Json => tree::edit(&text, edit, Language::Json),
                Format::Toml => toml::edit(&text, edit),
                Format::Ini => lines::edit(&text, edit, Dialect::Ini),
                Format::Env => lines::edit(&text, edit, Dialect::Env),
            };
            text = made.map_err(|why| {
                StepError::permanent(format!("{}: edit {} ({}): {why}", self.path, number + 1, edit.path()))
            })?;
        }
        Ok(text)
    }

    /// `now` without the items that these edits appended to `back`. None where they do more than append, or where an item
    /// was there before.
    fn taken_out(&self, back: &str, now: &str) -> Option<String> {
        let remove = |edit: &Edit| {
            Some(Edit { remove: Some(edit.append.clone()?), value: edit.value.clone(), ..Edit::default() })
        };
        let inverse = Self { edits: self.edits.iter().rev().map(remove).collect::<Option<_>>()?, ..self.clone() };
        if !back.is_empty() && inverse.edited(back).ok()? != back {
            return None;
        }
        let rest = inverse.edited(now).ok()?;
        // A list, or a whole file, that was made for the first item goes with the last one.
        let bare = inverse.edited(&self.edited(back).ok()?).ok()?;
        Some(if rest == bare { back.to_owned() } else { rest })
    }
}

/// The text after all edits of what stands there; None = no file.
fn edit_there(path: &str, old: Option<&str>, inputs: &Inputs) -> Result<String, StepError> {
    match old {
        Some(old) => inputs.edited(old),
        None if inputs.create => inputs.edited(""),
        None => Err(StepError::permanent(format!("{path}: there is no such file"))
            .help("say `create: true`, or correct the path")),
    }
}

/// Calls `$with` for the file and its edit.
macro_rules! editing {
    ($cx:expr, $inputs:expr, |$editing:ident| $with:expr) => {{
        let path = $cx.path(&$inputs.path);
        let edit = |old: Option<&str>| edit_there(&path, old, $inputs);
        let validate = $inputs.validate.as_deref().unwrap_or_default();
        let $editing = Editing { path: path.clone(), validate, edit: &edit };
        $with
    }};
}

#[async_trait::async_trait]
impl StepType for FileEdit {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = Capture;

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "file.edit",
            doc: "Changes inside a YAML, JSON, TOML, INI or env file, keeping everything else.",
            access: Access::Changes,
            undo: UndoKind::Full,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::Small,
            examples: &[
                "- id: no-mysql\n  uses: file.edit\n  with:\n    path: /opt/app/docker-compose.yml\n    edits:\n      - { remove: services.mysql }\n      - { remove: services.*.depends_on.mysql }\n      - { set: services.proxy.ports, value: [\"8070:80\"] }\n      - { replace: services.*.volumes.*, from: /data/, to: /mnt/shared/ }\n",
                "- id: registry\n  uses: file.edit\n  with:\n    path: /etc/docker/daemon.json\n    create: true\n    edits: [{ append: insecure-registries, value: \"registry.example.com:8070\" }]\n",
                "- id: database\n  uses: file.edit\n  with:\n    path: /opt/app/app.cfg\n    edits: [{ set: db_host, value: db.example.com }, { remove: cache.size }]\n",
            ],
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut all: Vec<_> = paths::file_problems("path", &inputs.path).into_iter().collect();
        if inputs.format().is_none() {
            all.push(InputProblem {
                path: vec!["path".to_owned()],
                message: "the name does not say what the file is written in".to_owned(),
                help: Some("say it: `format: yaml`, `json`, `toml`, `ini` or `env`".to_owned()),
            });
        }
        if inputs.edits.is_empty() {
            let message = "there is no edit".to_owned();
            all.push(InputProblem { path: vec!["edits".to_owned()], message, help: None });
        }
        let lists = !matches!(inputs.format(), Some(Format::Ini | Format::Env));
        for (number, edit) in inputs.edits.iter().enumerate() {
            let mistake = match edit.verb() {
                Err(mistake) => Some(mistake),
                Ok((change::Verb::Append(_), _)) if !lists => {
                    Some(("append", "`append` is for lists, and this format has none".to_owned()))
                }
                Ok(_) => None,
            };
            if let Some((key, message)) = mistake {
                let keys = ["edits".to_owned(), number.to_string(), key.to_owned()];
                let path = keys.into_iter().filter(|k| !k.is_empty()).collect();
                all.push(InputProblem { path, message, help: None });
            }
        }
        all.extend(put::validate_problems(inputs.validate.as_ref()));
        all
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        editing!(cx, inputs, |editing| edited::preview(cx, &editing).await)
    }

    async fn capture(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Capture, StepError> {
        editing!(cx, inputs, |editing| edited::capture(cx, &editing).await).map(|(capture, _)| capture)
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, capture: &Capture) -> Result<Acted<Outputs>, StepError> {
        editing!(cx, inputs, |editing| edited::act(cx, &editing, capture).await).map(|(acted, _)| acted)
    }

    async fn undo(
        &self,
        cx: &Cx<'_>,
        inputs: &Inputs,
        capture: &Capture,
        outputs: Option<&Outputs>,
    ) -> Result<Undone, StepError> {
        let take_out = |left: &str, back: &str, now: &str, again: bool| {
            // What lines alone made of it must still be one that these edits can be made in.
            let sound = |text: &String| text.is_empty() || inputs.edited(text).is_ok();
            inputs.taken_out(back, now).or_else(|| merge::take_out(left, back, now, again).filter(sound))
        };
        editing!(cx, inputs, |editing| edited::undo(cx, &editing, capture, outputs, take_out).await)
    }
}

#[cfg(test)]
mod tests;
