//! `runback check`: all mistakes of playbooks, and of the shape of their test files, in one go, without touching the
//! world.

use std::path::Path;
use std::time::Instant;

use clap::Args;
use runback_core::Json;
use serde_json::json;

use super::OutputArg;
use crate::exit::Exit;
use crate::simulate::testfile;
use crate::term::{self, GREEN, RESET};
use crate::{diagnose, load};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Playbooks and test files; `-` reads a playbook from stdin
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,

    #[command(flatten)]
    pub(crate) output: OutputArg,
}

pub(crate) fn run(arguments: &Arguments) -> Exit {
    let catalog = runback_steps::catalog();
    let mut all: Vec<Json> = Vec::new();
    let (mut errors, mut warnings) = (0, 0);
    let mut last = None;
    for file in &arguments.files {
        // What cannot be read is no text of either.
        if testfile::is_test(Path::new(file))
            && let Ok(text) = std::fs::read_to_string(file)
        {
            match testfile::parse(file, &text) {
                Ok(_) if arguments.output.is_json() => {}
                Ok(test) => {
                    let cases = test.cases.len();
                    term::line(&format!("{GREEN}ok{RESET} {file}: {cases} case{} for runback test", plural(cases)));
                }
                Err(mut wrong) => {
                    errors += wrong.diagnostics.len();
                    if arguments.output.is_json() {
                        all.append(&mut wrong.diagnostics);
                    } else {
                        wrong.print(false);
                    }
                }
            }
            continue;
        }
        let started = Instant::now();
        let checked = &last.insert(load::load(file, &catalog)).checked;
        errors += checked.errors();
        warnings += checked.warnings();
        if arguments.output.is_json() {
            all.extend(load::diagnostics_json(checked));
            continue;
        }
        if !checked.diagnostics.is_empty() {
            load::eprint_diagnostics(&checked.diagnostics, &checked.sources);
        }
        if let (0, Some(plan)) = (checked.errors(), &checked.plan) {
            let steps = plan.steps.len();
            let count = diagnose::count(0, checked.warnings());
            let took = started.elapsed().as_millis();
            term::line(&format!("{GREEN}ok{RESET} {file}: {steps} step{}, {count} ({took} ms)", plural(steps)));
        }
    }
    // Its memory goes with the process: to take a large plan apart piece by piece takes as long as the lints.
    std::mem::forget(last);
    if arguments.output.is_json() {
        term::json(&json!({ "diagnostics": all }));
    } else if errors > 0 {
        term::note(&diagnose::count(errors, warnings));
    }
    if errors > 0 { Exit::Usage } else { Exit::Succeeded }
}

fn plural(n: usize) -> &'static str {
    if n == 1 { "" } else { "s" }
}
