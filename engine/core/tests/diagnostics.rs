//! Every diagnostic of the language front end, as it reads: each `diagnostics/*.yaml` is a playbook with mistakes,
//! and the snapshot beside it is what is said about it.

#![expect(clippy::disallowed_methods, reason = "the playbooks of these tests are files; core itself reads none")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use runback_core::diagnostic::{Code, Diagnostic, Severity};
use runback_core::playbook::{self, yaml};
use runback_core::span::{Source, SourceId};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/diagnostics")
}

fn playbooks() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder()).expect("the folder of playbooks is there");
    let mut found: Vec<PathBuf> = entries
        .map(|e| e.expect("it can be listed").path())
        .filter(|p| p.extension().is_some_and(|e| e == "yaml"))
        .collect();
    found.sort();
    found
}

fn check(bytes: &[u8]) -> (String, Vec<Diagnostic>) {
    let text = match yaml::decode(SourceId(0), bytes.to_vec()) {
        Ok(text) => text,
        Err((text, diagnostic)) => return (text, vec![*diagnostic]),
    };
    let diagnostics = playbook::read(SourceId(0), &text).1;
    (text, diagnostics)
}

/// Code, message, help, and each label as line:column..length, the characters that it covers, and its text.
fn render(text: &str, diagnostics: &[Diagnostic]) -> String {
    let source = Source::new("playbook.yaml", text);
    let mut out = String::new();
    for d in diagnostics {
        let severity = if d.severity() == Severity::Warning { " warning" } else { "" };
        writeln!(out, "{}{severity} {}", d.code.name(), d.message).expect("a string takes all");
        for label in &d.labels {
            let at = source.position(label.span.start);
            let covered = &text[label.span.start as usize..label.span.end as usize];
            writeln!(out, "  {}:{}..{} {covered:?} {}", at.line, at.column, label.span.len(), label.text)
                .expect("a string takes all");
        }
        if let Some(help) = &d.help {
            writeln!(out, "  help: {help}").expect("a string takes all");
        }
    }
    out
}

#[test]
fn snapshots() {
    for path in playbooks() {
        let bytes = std::fs::read(&path).expect("a playbook can be read");
        let (text, diagnostics) = check(&bytes);
        let name = path.file_stem().expect("it has a name").to_string_lossy().into_owned();
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path(folder());
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_snapshot!(name.as_str(), render(&text, &diagnostics)));
    }
}

/// The codes that YAML and lowering can give.
fn codes() -> impl Iterator<Item = Code> {
    // What is wrong with files is not in their text; the command line and the server have snapshots of it.
    let elsewhere = [
        Code::NoEffect,
        Code::FileUnreadable,
        Code::SamePlaybookTwice,
        Code::TemplateSyntax,
        Code::TemplateTooLarge,
        Code::ExpressionSyntax,
    ];
    Code::ALL.iter().copied().filter(move |code| {
        let name = code.name();
        let of_yaml_and_shapes = name.starts_with("RB01") || name.starts_with("RB02");
        (of_yaml_and_shapes || *code == Code::NorwayProblem) && !elsewhere.contains(code)
    })
}

#[test]
fn every_code_has_a_playbook_and_a_page() {
    let seen: BTreeSet<Code> = playbooks()
        .iter()
        .flat_map(|path| check(&std::fs::read(path).expect("a playbook can be read")).1)
        .map(|d| d.code)
        .collect();
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/diagnostics");
    for code in codes() {
        assert!(seen.contains(&code), "no playbook in tests/diagnostics gives {} ({code:?})", code.name());
        let page = pages.join(format!("{}.md", code.name()));
        assert!(page.is_file(), "there is no docs/diagnostics/{}.md", code.name());
    }
}

#[test]
fn every_label_is_in_the_text() {
    for path in playbooks() {
        let (text, diagnostics) = check(&std::fs::read(&path).expect("a playbook can be read"));
        for d in diagnostics {
            assert!(!d.labels.is_empty(), "{}: {d:?}", path.display());
            for label in &d.labels {
                let covered = text.get(label.span.start as usize..label.span.end as usize);
                assert!(covered.is_some_and(|c| !c.contains('\n')), "{}: {d:?}", path.display());
            }
        }
    }
}
