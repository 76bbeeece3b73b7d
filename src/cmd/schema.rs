//! `runback schema`: the JSON Schemas of playbooks, events and step types, as editors and other programs read them.

use std::path::PathBuf;

use clap::Args;

use crate::exit::Exit;
use crate::failure::{Done, Failure};
use crate::schema;
use crate::term;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Write playbook.schema.json, events.schema.json and steps/TYPE.json here
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Done {
    let catalog = runback_steps::catalog();
    let Some(dir) = &arguments.out else {
        term::line(&format!("{:#}", schema::playbook::schema(&catalog)));
        return Ok(Exit::Succeeded);
    };
    for (name, schema) in schema::all(&catalog) {
        let path = dir.join(name);
        let folder = path.parent().unwrap_or(dir);
        let write = || std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, format!("{schema:#}\n")));
        write().map_err(|e| Failure::failed(format!("{} cannot be written: {e}", path.display())))?;
    }
    Ok(Exit::Succeeded)
}
