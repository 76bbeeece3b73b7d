//! Targets from inventories: read through [`super::super::Load`], as the playbooks that a playbook uses are, so that the
//! journal has their text too.

use std::sync::Arc;

use crate::diagnostic::{Code, Diagnostic};
use crate::playbook::inventory;
use crate::playbook::lower::targets;
use crate::playbook::model::TargetDecl;
use crate::span::{Source, Spanned};

use super::Placed;

impl Placed<'_> {
    /// The targets of the playbook, and those of its inventories behind them.
    pub(super) fn with_inventories(&mut self, mut all: Vec<TargetDecl>, files: &[Spanned<String>]) -> Vec<TargetDecl> {
        for file in files {
            let text = match self.load.load(&file.value) {
                Ok(text) => text,
                Err(why) => {
                    let message = format!("the inventory `{}` cannot be read: {why}", file.value);
                    let help = "name a file by its path from the playbook's folder";
                    let diagnostic = Diagnostic::new(Code::FileUnreadable, message, file.span, "named here");
                    self.diagnostics.push(diagnostic.help(help));
                    continue;
                }
            };
            let source = self.sources.add(Source::new(file.value.as_str(), text));
            let text = Arc::clone(&self.sources.get(source).text);
            let (found, diagnostics) = inventory::read(source, &file.value, &text);
            self.diagnostics.extend(diagnostics);
            for target in found {
                match all.iter().find(|t| t.name.value == target.name.value) {
                    None => all.push(target),
                    Some(first) => {
                        let message = format!("the target `{}` is declared twice", target.name.value);
                        let diagnostic = Diagnostic::new(Code::WrongValue, message, target.name.span, "here again");
                        let help = "give one of them another name";
                        self.diagnostics.push(diagnostic.label(first.name.span, "first here").help(help));
                    }
                }
            }
        }
        if !files.is_empty() {
            targets::groups(&all, &mut self.diagnostics);
        }
        all
    }
}
