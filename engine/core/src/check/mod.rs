//! From a playbook's text to a list of diagnostics and, when none of them is an error, a [`Plan`]. Reads no
//! files itself: what it includes comes through [`Load`].

mod cycle;
mod lint;
mod place;
mod policy;
mod resolve;
mod scheduled;
pub mod schema;
mod types;

use std::collections::HashSet;
use std::sync::Arc;

use crate::diagnostic::{Code, Diagnostic, Severity};
use crate::plan::{Edges, Plan};
use crate::playbook;
use crate::span::{Source, Sources, Span};
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
pub fn check(name: &str, text: &str, load: &mut dyn Load, catalog: &Catalog) -> Checked {
    compile(name, text, load, catalog, true)
}

/// The plan of a playbook that a run was made from. What only foretells that a step would fail is not looked for: an
/// older runback did not, and its runs must be read and taken back for ever.
pub fn recompile(name: &str, text: &str, load: &mut dyn Load, catalog: &Catalog) -> Checked {
    compile(name, text, load, catalog, false)
}

/// One value, one mistake: what reading refused is not refused again as an input of a step, what cannot stand somewhere
/// at all need not have another type there, and what is an error is not suspect besides.
fn without_echoes(read: &mut Vec<Diagnostic>, found: &mut Vec<Diagnostic>) {
    if read.is_empty() && found.is_empty() {
        return;
    }
    let at = |d: &Diagnostic| d.labels.first().map(|l| l.span);
    // What is too large for a number is no text either: of what type it should be is not asked.
    let numbers: HashSet<_> = read.iter().filter(|d| d.code == Code::YamlNumber).filter_map(at).collect();
    for all in [&mut *read, &mut *found] {
        all.retain(|d| d.code == Code::YamlNumber || !d.labels.iter().any(|l| numbers.contains(&l.span)));
    }
    let errors = |all: &[Diagnostic]| -> HashSet<Option<Span>> {
        all.iter().filter(|d| d.severity() == Severity::Error).map(at).collect()
    };
    let of_reading = errors(read);
    found.retain(|d| d.code != Code::WrongStepInput || !of_reading.contains(&at(d)));
    let of_finding = errors(found);
    let other: HashSet<_> =
        found.iter().filter(|d| d.severity() == Severity::Error && d.code != Code::TypesDoNotFit).map(at).collect();
    found.retain(|d| d.code != Code::TypesDoNotFit || !other.contains(&at(d)));
    read.retain(|d| d.code != Code::NorwayProblem || !of_finding.contains(&at(d)));
    found.retain(|d| d.code != Code::UnquotedInScript || !of_finding.contains(&at(d)));
}

fn compile(name: &str, text: &str, load: &mut dyn Load, catalog: &Catalog, foretell: bool) -> Checked {
    let mut sources = Sources::default();
    let source = sources.add(Source::new(name, text));
    let (playbook, mut diagnostics) = playbook::read(source, text);
    let mut plan = None;
    if let Some(playbook) = playbook {
        diagnostics.extend(scheduled::inputs(&playbook));
        let mut placed = place::Placed::new(catalog, load, sources, foretell);
        placed.playbook(playbook);
        resolve::resolve(&mut placed);
        let pairs = placed.edge_pairs();
        cycle::find(&mut placed, &pairs);
        if foretell {
            types::check(&mut placed);
        }
        let unread = |d: &Diagnostic| {
            matches!(
                d.code,
                Code::TemplateSyntax | Code::TemplateTooLarge | Code::ExpressionSyntax | Code::UnknownFunction
            )
        };
        let unread = diagnostics.iter().chain(&placed.diagnostics).any(unread);
        lint::lint(&mut placed, &pairs, unread);
        without_echoes(&mut diagnostics, &mut placed.diagnostics);
        diagnostics.append(&mut placed.diagnostics);
        let broken = diagnostics.iter().any(|d| d.severity() == Severity::Error);
        let (parts, rest) = placed.finish(Edges::new, &pairs);
        sources = rest;
        if !broken && let Some(made) = parts {
            plan = Some(Arc::new(made));
        }
    }
    diagnostics.sort_by_key(|d| d.labels.first().map(|l| (l.span.source, l.span.start)));
    diagnostics.dedup();
    Checked { sources, plan, diagnostics }
}
