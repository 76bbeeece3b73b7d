//! The inputs of a run from the command line, files and the environment. What they may be is the playbook's.

use std::env::VarError;
use std::path::PathBuf;

use clap::Args;
use runback_core::Json;
use runback_core::diagnostic::Code;
use runback_core::playbook::inputs::{self, Given, InputError};
use runback_core::playbook::model::{InputDecl, InputType};
use runback_core::playbook::yaml::{self, NodeValue};
use runback_core::span::{Source, SourceId, Sources};
use serde_json::Map;

use crate::failure::Failure;
use crate::{diagnose, load};

#[derive(Debug, Default, Args)]
pub(crate) struct InputArgs {
    /// An input of the playbook; the last one of a name wins
    #[arg(short, long = "input", value_name = "KEY=VALUE")]
    inputs: Vec<String>,

    /// A YAML or JSON file of inputs
    #[arg(long = "inputs", value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// Values by name, those of inputs marked secret apart.
#[derive(Debug, Default, Clone)]
pub(crate) struct Inputs {
    pub(crate) open: Map<String, Json>,
    pub(crate) secret: Map<String, Json>,
}

impl InputArgs {
    /// All inputs, or everything that is wrong with them.
    pub(crate) fn resolve(&self, decls: &[InputDecl]) -> Result<Inputs, Failure> {
        let given = self.given(decls)?;
        match inputs::resolve(decls, &given) {
            Ok(values) => Ok(split(decls, from_here(decls, &given, values))),
            Err(errors) => Err(wrong(errors)),
        }
    }

    /// For a run that is there: those marked secret are stored nowhere and come again, the others are what they were. To
    /// give them once more, as a file of inputs does, changes nothing.
    pub(crate) fn again(&self, decls: &[InputDecl], stored: &Json) -> Result<Map<String, Json>, Failure> {
        let secret: Vec<InputDecl> = decls.iter().filter(|d| d.secret).cloned().collect();
        let given = self.given(&secret)?;
        let is_given = |d: &InputDecl| given.iter().any(|(name, _)| *name == d.name.value);
        let asked: Vec<InputDecl> = decls.iter().filter(|d| d.secret || is_given(d)).cloned().collect();
        let values = inputs::resolve(&asked, &given).map_err(wrong)?;
        let Inputs { open, secret } = split(&asked, from_here(&asked, &given, values));
        let other = open.iter().filter(|(name, value)| stored.get(name) != Some(*value));
        let mistakes: Vec<_> = other
            .map(|(name, _)| {
                let was = stored.get(name).unwrap_or(&Json::Null);
                let message = format!("the input `{name}` of this run is {was}, and stays so");
                (Code::InputInvalid, message, Some("leave it out, or start another run with it".to_owned()))
            })
            .collect();
        if mistakes.is_empty() { Ok(secret) } else { Err(Failure::given(&mistakes)) }
    }

    /// Like [`InputArgs::resolve`], but inputs without a value are just not there; their names come second.
    pub(crate) fn resolve_some(&self, decls: &[InputDecl]) -> Result<(Inputs, Vec<String>), Failure> {
        let given = self.given(decls)?;
        let has_value = |d: &InputDecl| d.default.is_some() || given.iter().any(|(name, _)| *name == d.name.value);
        let (known, missing): (Vec<_>, Vec<_>) = decls.iter().cloned().partition(has_value);
        let missing = missing.into_iter().map(|d| d.name.value).collect();
        match inputs::resolve(&known, &given) {
            Ok(values) => Ok((split(&known, from_here(&known, &given, values)), missing)),
            Err(errors) => Err(wrong(errors)),
        }
    }

    /// In rising precedence: environment, files, command line.
    fn given(&self, decls: &[InputDecl]) -> Result<Vec<(String, Given)>, Failure> {
        let mut given = Vec::new();
        for decl in decls {
            let Some(variable) = &decl.env else { continue };
            let (name, place) = (&decl.name.value, format!("the environment variable {variable}"));
            match std::env::var(variable) {
                Ok(value) => given.push((name.clone(), Given::raw(value, place))),
                Err(VarError::NotPresent) => {}
                Err(VarError::NotUnicode(_)) => {
                    let failure = Failure::usage(format!("{place}, which gives the input `{name}`, is not UTF-8"));
                    return Err(failure.help(format!("set {variable} to a text, or unset it and give -i {name}=…")));
                }
            }
        }
        for file in &self.files {
            given.extend(from_file(file)?);
        }
        for pair in &self.inputs {
            let Some((name, value)) = pair.split_once('=') else {
                let failure = Failure::usage(format!("-i {pair}: an input is given as key=value"));
                return Err(failure.help(format!("write -i {pair}=…")));
            };
            // What is not declared may be a secret whose name is misspelt.
            let open = decls.iter().any(|d| d.name.value == name && !d.secret);
            let place = if open { format!("-i {pair}") } else { format!("-i {name}=…") };
            given.push((name.to_owned(), Given::raw(value, place)));
        }
        Ok(given)
    }
}

/// A relative path that is given at the start counts from the current folder. What was given has been checked as it was.
fn from_here(decls: &[InputDecl], given: &[(String, Given)], mut values: Map<String, Json>) -> Map<String, Json> {
    let is_given = |d: &&InputDecl| given.iter().any(|(name, _)| *name == d.name.value);
    for decl in decls.iter().filter(|d| d.input_type == InputType::Path).filter(is_given) {
        if let Some(Json::String(path)) = values.get_mut(&decl.name.value)
            && let Ok(absolute) = std::path::absolute(&*path)
        {
            *path = absolute.to_string_lossy().into_owned();
        }
    }
    values
}

fn from_file(file: &PathBuf) -> Result<Vec<(String, Given)>, Failure> {
    let name = file.display().to_string();
    let cannot = |why: String| Failure::usage(format!("--inputs {name}: {why}"));
    let bytes = std::fs::read(file).map_err(|e| cannot(format!("it cannot be read: {e}")))?;
    let text = String::from_utf8(bytes).map_err(|_| cannot("it is not UTF-8".to_owned()))?;
    let node = yaml::parse(SourceId(0), &text).map_err(|diagnostics| {
        if diagnostics.iter().any(|d| d.code == Code::YamlEmpty) {
            return cannot("the file is empty, so it gives no inputs".to_owned())
                .help("write name: value, line by line, or leave the option out");
        }
        let mut sources = Sources::default();
        sources.add(Source::new(name.as_str(), text.as_str()));
        load::mistakes(&diagnostics, &sources, &diagnose::count(diagnostics.len(), 0))
    })?;
    let NodeValue::Map(pairs) = &node.value else {
        return Err(cannot(format!("it must hold a map of inputs, not {}", node.kind()))
            .help("write name: value, line by line"));
    };
    Ok(pairs.iter().map(|(key, value)| (key.key_text(), Given::json(value.to_json(), name.as_str()))).collect())
}

/// Values that came as data, or all that is wrong with them in one failure. `place` names where they stand.
#[cfg(feature = "serve")]
pub(crate) fn from_json(decls: &[InputDecl], given: Map<String, Json>, place: &str) -> Result<Inputs, Failure> {
    let given: Vec<_> = given.into_iter().map(|(name, value)| (name, Given::json(value, place))).collect();
    match inputs::resolve(decls, &given) {
        Ok(values) => Ok(split(decls, values)),
        Err(errors) => {
            let messages: Vec<_> = errors.iter().map(|e| format!("{}: {}", e.code.name(), e.message)).collect();
            let help = errors.iter().filter_map(|e| e.help.clone());
            Err(help.fold(Failure::usage(messages.join("; ")), Failure::help))
        }
    }
}

/// Takes the inputs marked secret apart.
pub(crate) fn split(decls: &[InputDecl], values: Map<String, Json>) -> Inputs {
    let is_secret = |name: &str| decls.iter().any(|d| d.secret && d.name.value == name);
    let (secret, open) = values.into_iter().partition(|(name, _)| is_secret(name));
    Inputs { open, secret }
}

fn wrong(errors: Vec<InputError>) -> Failure {
    let mistakes: Vec<_> = errors.into_iter().map(|e| (e.code, e.message, e.help)).collect();
    Failure::given(&mistakes)
}
