//! A playbook's text, and what becomes of it: spanned YAML, then the typed model.

pub mod duration;
pub mod inputs;
pub(crate) mod inventory;
pub mod lower;
pub mod model;
pub mod values;
pub mod yaml;

use crate::diagnostic::Diagnostic;
use crate::span::SourceId;

/// Reads one playbook: YAML or JSON text to the model. There is a model in spite of diagnostics when the shape is
/// usable, so that later checks can add theirs.
pub fn read(source: SourceId, text: &str) -> (Option<model::Playbook>, Vec<Diagnostic>) {
    let (node, mut diagnostics) = yaml::parse_lossy(source, text);
    let Some(node) = node else { return (None, diagnostics) };
    let (playbook, more) = lower::lower_owned(source, text, node);
    diagnostics.extend(more);
    diagnostics.sort_by_key(|d| d.labels.first().map(|l| l.span));
    (playbook, diagnostics)
}
