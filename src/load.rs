//! A playbook from a file: its text, the texts that it includes, and what the check says of them. Also the same
//! from a journal, where all texts are at hand and no file is read.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use runback_core::Json;
use runback_core::check::{self, Checked, Load};
use runback_core::diagnostic::{Code, Diagnostic};
use runback_core::event::{Created, PlaybookText};
use runback_core::plan::Plan;
use runback_core::playbook::yaml;
use runback_core::span::{Source, SourceId, Sources, Span};
use runback_core::step::Catalog;

use crate::diagnose;
use crate::failure::Failure;
use crate::term::{self, DIM, RESET};

/// A playbook that was read and checked.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The playbook first, then what it uses, by the names that the author gave.
    pub(crate) texts: Vec<PlaybookText>,
    /// The folder of the playbook, absolute.
    pub(crate) base: PathBuf,
    pub(crate) checked: Checked,
}

impl Loaded {
    /// The plan, or all that is wrong, warnings too.
    pub(crate) fn plan(&self) -> Result<Arc<Plan>, Failure> {
        let checked = &self.checked;
        let errors = checked.errors();
        if errors > 0 {
            let so = format!("{}: nothing was started", diagnose::count(errors, checked.warnings()));
            return Err(mistakes(&checked.diagnostics, &checked.sources, &so));
        }
        checked.plan.clone().ok_or_else(|| Failure::usage("the check gave no plan"))
    }

    /// One line about warnings, where their full text would be in the way.
    pub(crate) fn mention_warnings(&self, file: &str) {
        let warnings = self.checked.warnings();
        if warnings > 0 {
            let count = diagnose::count(0, warnings);
            term::note(&format!("{DIM}{count} in {file}: see runback check {file}{RESET}"));
        }
    }
}

/// The contract of `diagnostics` under `--output json`.
pub(crate) fn diagnostics_json(checked: &Checked) -> Vec<Json> {
    checked.diagnostics.iter().map(|d| d.to_json(&checked.sources)).collect()
}

/// Mistakes in texts as a failure. `so` ends what a person reads.
pub(crate) fn mistakes(diagnostics: &[Diagnostic], sources: &Sources, so: &str) -> Failure {
    let text = diagnose::render(diagnostics, sources);
    let data = diagnostics.iter().map(|d| d.to_json(sources)).collect();
    Failure::diagnosed(format!("{}\n{so}", text.trim_end_matches('\n')), data)
}

pub(crate) fn eprint_diagnostics(diagnostics: &[Diagnostic], sources: &Sources) {
    term::note(diagnose::render(diagnostics, sources).trim_end_matches('\n'));
}

/// Reads and checks one file; `-` is stdin. What cannot be read is a diagnostic like any other.
pub(crate) fn load(file: &str, catalog: &Catalog) -> Loaded {
    let path = Path::new(file);
    let folder = if file == "-" { None } else { path.parent() }.filter(|p| !p.as_os_str().is_empty());
    let base = folder.unwrap_or(Path::new("."));
    // Symlinks stay: what is beside the link is beside the playbook.
    let base = std::path::absolute(base).unwrap_or_else(|_| base.to_owned());
    let bytes = match read(file) {
        Ok(bytes) => bytes,
        Err(error) => {
            let span = Span::new(SourceId(0), 0, 0);
            let diagnostic = Diagnostic::new(Code::FileUnreadable, format!("{file} cannot be read: {error}"), span, "")
                .maybe_help(read_help(path, &error));
            return unreadable(file, "", base, diagnostic);
        }
    };
    let text = match yaml::decode(SourceId(0), bytes) {
        Ok(text) => text,
        Err((text, diagnostic)) => return unreadable(file, &text, base, *diagnostic),
    };
    let mut files = FromFiles { base: &base, used: Vec::new() };
    let checked = check::check(file, &text, &mut files, catalog);
    let mut texts = vec![PlaybookText { name: file.to_owned(), text }];
    texts.append(&mut files.used);
    Loaded { texts, base, checked }
}

fn unreadable(file: &str, text: &str, base: PathBuf, diagnostic: Diagnostic) -> Loaded {
    let mut sources = Sources::default();
    sources.add(Source::new(file, text));
    let checked = Checked { sources, plan: None, diagnostics: vec![diagnostic] };
    Loaded { texts: Vec::new(), base, checked }
}

fn read(file: &str) -> std::io::Result<Vec<u8>> {
    if file == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes)?;
        return Ok(bytes);
    }
    std::fs::read(file)
}

fn read_help(path: &Path, error: &std::io::Error) -> Option<String> {
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            let beside = ["yaml", "yml"].iter().map(|e| path.with_extension(e)).find(|p| p.is_file() && p != path);
            Some(match beside {
                Some(found) => format!("did you mean {}?", found.display()),
                None => "give the path of a playbook; relative paths count from the current folder".to_owned(),
            })
        }
        std::io::ErrorKind::IsADirectory => Some(format!("name a file in it: {}/….yaml", path.display())),
        _ => None,
    }
}

struct FromFiles<'a> {
    base: &'a Path,
    /// What has been read.
    used: Vec<PlaybookText>,
}

impl Load for FromFiles<'_> {
    fn load(&mut self, name: &str) -> Result<String, String> {
        if let Some(known) = self.used.iter().find(|t| t.name == name) {
            return Ok(known.text.clone());
        }
        let path = self.base.join(name);
        let text = std::fs::read_to_string(&path).map_err(|e| e.to_string())?;
        self.used.push(PlaybookText { name: name.to_owned(), text: text.clone() });
        Ok(text)
    }
}

struct FromTexts<'a>(&'a [PlaybookText]);

impl Load for FromTexts<'_> {
    fn load(&mut self, name: &str) -> Result<String, String> {
        let found = self.0.iter().skip(1).find(|t| t.name == name);
        found.map(|t| t.text.clone()).ok_or_else(|| format!("the journal holds no text of {name}"))
    }
}

/// The plan of a run that was started before, from what its journal holds.
pub(crate) fn recompile(created: &Created, catalog: &Catalog) -> Result<Arc<Plan>, String> {
    let first = created.texts.first().ok_or("its journal holds no playbook")?;
    let checked = check::recompile(&first.name, &first.text, &mut FromTexts(&created.texts), catalog);
    checked.plan.ok_or_else(|| {
        let said = checked.diagnostics.iter().find(|d| d.severity() == runback_core::diagnostic::Severity::Error);
        let said = said.map_or_else(String::new, |d| format!(": {} {}", d.code.name(), d.message));
        format!("runback {} made it, and this one reads its playbook differently{said}", created.version)
    })
}
