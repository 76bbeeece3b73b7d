//! From a playbook's text to a list of diagnostics and, when none of them is an error, a [`Plan`]. Reads no
//! files itself: what it includes comes through [`Load`].

pub mod schema;

use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Severity};
use crate::plan::Plan;
use crate::playbook::model::Playbook;
use crate::span::Sources;
use crate::step::Catalog;

/// Gives the texts of sub-playbooks.
pub trait Load {
    /// `name` as the author wrote it; relative ones count from the folder of the playbook checked.
    fn load(&mut self, name: &str) -> Result<String, String>;
}

/// Refuses every sub-playbook.
#[derive(Debug)]
pub struct NoLoad;

impl Load for NoLoad {
    fn load(&mut self, _name: &str) -> Result<String, String> {
        Err("there are no other playbooks here".to_owned())
    }
}

/// What a check found.
#[derive(Debug)]
pub struct Checked {
    /// The playbook, then what it uses, in order of first use.
    pub sources: Sources,
    /// There when the text could be read as a playbook at all.
    pub playbook: Option<Playbook>,
    /// There when no diagnostic is an error.
    pub plan: Option<Arc<Plan>>,
    /// In the order of the file.
    pub diagnostics: Vec<Diagnostic>,
}

impl Checked {
    pub fn errors(&self) -> usize {
        self.diagnostics.iter().filter(|d| d.severity() == Severity::Error).count()
    }

    pub fn warnings(&self) -> usize {
        self.diagnostics.len() - self.errors()
    }
}

/// Checks a playbook. Finds everything that can be found without touching the world.
pub fn check(_name: &str, _text: &str, _load: &mut dyn Load, _catalog: &Catalog) -> Checked {
    unimplemented!("in the works on branch engine")
}
