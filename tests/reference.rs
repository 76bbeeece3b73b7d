//! docs/reference/steps is what the step types say of themselves: the text above each one's code, its inputs, outputs
//! and examples. `RUNBACK_UPDATE=1 cargo nextest run reference` writes it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files below a folder, with their texts.
fn sources(dir: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(dir).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).expect("a text");
            found.push((path, text));
        }
    }
}

/// What stands at the top of the file of a step type: it begins with the name, those of several types, or `family.*`.
fn prose(sources: &[(PathBuf, String)], name: &str) -> String {
    let names = [format!("`{name}`"), format!("`{}.*`", family(name))];
    let begins = |text: &str| {
        let named = text.strip_prefix("//! ").and_then(|text| text.split_once(": "));
        named.is_some_and(|(named, _)| names.iter().any(|n| named.contains(n)))
    };
    let found = sources.iter().find(|(_, text)| begins(text));
    let text = &found.unwrap_or_else(|| panic!("no file in steps/src begins with //! {}: ", names[0])).1;
    let lines = text.lines().take_while(|l| l.starts_with("//!")).map(|l| l.trim_start_matches("//!").trim());
    lines.collect::<Vec<_>>().join("\n")
}

fn family(name: &str) -> &str {
    name.split_once('.').map_or(name, |(family, _)| family)
}

fn pages() -> BTreeMap<String, String> {
    let mut texts = Vec::new();
    sources(&root().join("steps/src"), &mut texts);
    let catalog = runback_steps::catalog();
    let mut pages: BTreeMap<String, String> = BTreeMap::new();
    let mut index = "# Step types\n\nMade from the step types themselves; `runback steps TYPE` shows the same.\n\n\
                     | type | what it does |\n| --- | --- |\n"
        .to_owned();
    let mut types: Vec<_> = catalog.iter().map(|t| t.descriptor()).collect();
    types.sort_by_key(|d| d.name);
    for d in types {
        let section = Command::new(env!("CARGO_BIN_EXE_runback")).args(["steps", d.name, "--markdown"]).output();
        let section = String::from_utf8(section.expect("the binary runs").stdout).expect("runback writes UTF-8");
        let family = family(d.name);
        let page = pages.entry(format!("{family}.md")).or_insert_with(|| format!("# {family}\n"));
        let prose = prose(&texts, d.name);
        let said = if page.contains(&prose) { "As above.".to_owned() } else { prose };
        page.push_str(&format!("\n## {}\n\n{said}\n\n{}\n", d.name, section.trim_end()));
        let anchor = d.name.replace('.', "");
        index.push_str(&format!("| [`{}`]({family}.md#{anchor}) | {} |\n", d.name, d.doc));
    }
    pages.insert("README.md".to_owned(), index);
    pages
}

#[test]
fn the_reference_of_the_step_types_is_current() {
    let dir = root().join("docs/reference/steps");
    let pages = pages();
    if std::env::var_os("RUNBACK_UPDATE").is_some() {
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("a folder");
        for (name, text) in &pages {
            fs::write(dir.join(name), text).expect("it is written");
        }
    }
    let there: BTreeMap<String, String> = fs::read_dir(&dir)
        .expect("docs/reference/steps: RUNBACK_UPDATE=1 cargo nextest run reference")
        .flatten()
        .map(|e| (e.file_name().to_string_lossy().into_owned(), fs::read_to_string(e.path()).expect("a text")))
        .collect();
    for (name, text) in &pages {
        let found = there.get(name).map(String::as_str);
        assert!(
            found == Some(text),
            "{name} is not what this build says: RUNBACK_UPDATE=1 cargo nextest run reference"
        );
    }
    assert!(there.keys().all(|name| pages.contains_key(name)), "a page of no step type: {:?}", there.keys());
}
