//! What docs/architecture.md says must never be, found in the text of the repository. Each test names what it found and
//! what to do about it. Knows nothing of how the code behaves.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What is tracked, and what is about to be; paths from the root.
fn files() -> Vec<String> {
    let list = ["ls-files", "--cached", "--others", "--exclude-standard"];
    let output = Command::new("git").current_dir(root()).args(list).output().expect("git is needed for this test");
    assert!(output.status.success(), "git: {}", String::from_utf8_lossy(&output.stderr));
    let listed = String::from_utf8(output.stdout).expect("names of files are UTF-8");
    listed.lines().map(str::to_owned).filter(|f| root().join(f).is_file()).collect()
}

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

fn ends_with(file: &str, extension: &str) -> bool {
    Path::new(file).extension().is_some_and(|e| e == extension)
}

/// A source file of the product, and its text without the tests in it.
struct Source {
    file: String,
    text: String,
}

impl Source {
    fn in_package(&self, package: &str) -> bool {
        self.file.starts_with(&format!("{package}/src/"))
    }

    /// Lines of code, with their numbers; comments and documentation left out.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(i, line)| (i + 1, line));
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    fn findings(&self, what: impl Fn(&str) -> bool) -> Vec<String> {
        let found = self.code().filter(|(_, line)| what(line));
        found.map(|(number, line)| format!("{}:{number}: {}", self.file, line.trim())).collect()
    }
}

/// Files that only tests include: `#[cfg(test)] mod name;`, with or without a `#[path]`.
fn test_modules(files: &[String]) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for file in files.iter().filter(|f| ends_with(f, "rs")) {
        let text = read(file);
        let mut lines = text.lines().skip_while(|l| l.trim() != "#[cfg(test)]").peekable();
        while lines.next().is_some() {
            let mut path = None;
            while let Some(attribute) = lines.next_if(|l| l.starts_with("#[")) {
                path = attribute.strip_prefix("#[path = \"").and_then(|p| p.strip_suffix("\"]")).or(path);
            }
            let declared = lines.peek().and_then(|l| l.strip_suffix(';')).and_then(|l| l.rsplit_once("mod "));
            if let Some((_, name)) = declared {
                found.extend(module_files(file, name, path));
            }
            while lines.next_if(|l| l.trim() != "#[cfg(test)]").is_some() {}
        }
    }
    found
}

/// Where the module `name` that `file` declares may be.
fn module_files(file: &str, name: &str, path: Option<&str>) -> Vec<PathBuf> {
    let file = Path::new(file);
    let folder = file.parent().expect("a source file is in a folder");
    if let Some(path) = path {
        return vec![folder.join(path)];
    }
    let stem = file.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
    let inside = match stem {
        "mod" | "lib" | "main" => folder.to_owned(),
        stem => folder.join(stem),
    };
    vec![inside.join(format!("{name}.rs")), inside.join(name).join("mod.rs")]
}

fn sources() -> Vec<Source> {
    let files = files();
    let tests = test_modules(&files);
    let in_tests = |f: &str| Path::new(f).ancestors().any(|a| tests.contains(a) || tests.contains(&a.join("mod.rs")));
    let product = files.iter().filter(|f| ends_with(f, "rs") && (f.starts_with("src/") || f.contains("/src/")));
    let product = product.filter(|f| !in_tests(f));
    let cut = |text: String| match text.find("\n#[cfg(test)]\nmod tests {") {
        Some(at) => text[..at].to_owned(),
        None => text,
    };
    let all: Vec<Source> = product.map(|f| Source { file: f.clone(), text: cut(read(f)) }).collect();
    assert!(all.len() > 150, "only {} source files were found: this test no longer sees the product", all.len());
    all
}

fn none(findings: &[String], rule: &str) {
    assert!(findings.is_empty(), "{rule}\n  {}", findings.join("\n  "));
}

#[test]
fn every_module_says_what_it_is() {
    let product = sources().into_iter().map(|s| (s.file, s.text));
    let tests =
        files().into_iter().filter(|f| ends_with(f, "rs") && f.starts_with("tests/")).map(|f| (f.clone(), read(&f)));
    let silent: Vec<_> =
        product.chain(tests).filter(|(_, text)| !text.starts_with("//!")).map(|(file, _)| file).collect();
    none(&silent, "a module opens with `//!`: what it does, and what it does not know");
}

#[test]
fn files_are_short() {
    let long = sources().into_iter().filter(|s| s.text.lines().count() > 600);
    let long: Vec<_> = long.map(|s| format!("{}: {} lines", s.file, s.text.lines().count())).collect();
    none(&long, "a file has at most 600 lines without its tests: split it by what it knows");
}

/// Lines of each function, the largest `match` in it counted as one.
#[test]
fn functions_are_short() {
    let mut long = Vec::new();
    for source in sources() {
        let lines: Vec<&str> = source.text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let head = line.trim_start();
            let is_function = head.starts_with("fn ") || head.contains(" fn ") && head.starts_with("pub");
            let is_function = is_function || head.starts_with("async fn ") || head.starts_with("const fn ");
            let Some(end) = is_function.then(|| block_end(&lines, at, indent)).flatten() else { continue };
            let inner = at + 1..end;
            let matches = inner.filter(|i| lines[*i].contains("match ") && lines[*i].trim_end().ends_with('{'));
            let sizes = matches.filter_map(|i| {
                let indent = lines[i].len() - lines[i].trim_start().len();
                block_end(&lines, i, indent).map(|end| end - i)
            });
            let size = end - at - sizes.max().unwrap_or(0);
            if size > 80 {
                long.push(format!("{}:{}: {size} lines: {head}", source.file, at + 1));
            }
        }
    }
    none(&long, "a function has at most 80 lines apart from one `match`: give a part of it a name");
}

/// The line that closes what line `at` opens, by its indentation; None for a declaration without a body.
fn block_end(lines: &[&str], at: usize, indent: usize) -> Option<usize> {
    for (i, line) in lines.iter().enumerate().skip(at) {
        let own = line.len() - line.trim_start().len();
        if i > at && own == indent && line.trim_start().starts_with('}') {
            return Some(i);
        }
        if own == indent && line.trim_end().ends_with(';') || i == at && line.trim_end().ends_with('}') {
            return None;
        }
    }
    None
}

#[test]
fn only_the_command_line_prints() {
    let prints = |line: &str| {
        ["println!", "eprintln!", "print!(", "eprint!(", "dbg!", "io::stderr("].iter().any(|p| line.contains(p))
    };
    let found: Vec<_> =
        sources().iter().filter(|s| !s.file.starts_with("src/")).flat_map(|s| s.findings(prints)).collect();
    none(&found, "printing is in src/: return the value, or tell a Reporter");
}

/// `run:` is written `shell` inside, and a playbook is used as `playbook`: both are words of the language.
#[test]
fn the_engine_names_no_step_type() {
    let catalog = runback_steps::catalog();
    let names: Vec<String> = catalog.names().filter(|n| *n != "shell").map(|n| format!("\"{n}\"")).collect();
    assert!(names.len() > 20, "the catalog is empty: {names:?}");
    let engine = sources().into_iter().filter(|s| s.file.starts_with("engine/"));
    let found: Vec<_> = engine.flat_map(|s| s.findings(|line| names.iter().any(|n| line.contains(n)))).collect();
    none(&found, "the engine knows no step type: let the descriptor or the contract say it");
}

/// A new event must not compile until the transition handles it.
#[test]
fn the_transition_has_no_wildcard() {
    for (file, name) in [("apply.rs", "fn transition("), ("legal.rs", "fn check(")] {
        let text = read(&format!("engine/core/src/state/{file}"));
        let lines: Vec<&str> = text.lines().collect();
        let at = lines.iter().position(|l| l.contains(name)).unwrap_or_else(|| panic!("there is no `{name}`"));
        let indent = lines[at].len() - lines[at].trim_start().len();
        let end = block_end(&lines, at, indent).expect("it ends");
        let outer = lines[at..end].iter().position(|l| l.trim_end().ends_with("match body {"));
        let outer = outer.or_else(|| lines[at..end].iter().position(|l| l.contains("match &event.body {")));
        let outer = at + outer.unwrap_or_else(|| panic!("`{name}` has no match over the event"));
        let arms = lines[outer].len() - lines[outer].trim_start().len() + 4;
        let wild = lines[outer..end].iter().filter(|l| l.len() - l.trim_start().len() == arms);
        let wild: Vec<_> = wild.filter(|l| l.trim_start().starts_with("_ =>")).map(|l| (*l).to_owned()).collect();
        none(&wild, &format!("{file}: every event has an arm of its own"));
    }
}

#[test]
fn tests_do_not_change_the_product() {
    let mut found = Vec::new();
    for source in sources() {
        found.extend(source.findings(|line| line.contains("cfg(not(test))") || line.contains("cfg!(test)")));
        let lines: Vec<&str> = source.text.lines().collect();
        for (i, _) in lines.iter().enumerate().filter(|(_, l)| l.trim() == "#[cfg(test)]") {
            let item = lines[i + 1..].iter().find(|l| !l.trim_start().starts_with("#[")).unwrap_or(&"");
            let words = item.trim_start();
            let is_module = words.starts_with("mod ") || words.starts_with("pub(crate) mod ");
            if !is_module {
                found.push(format!("{}:{}: {words}", source.file, i + 2));
            }
        }
    }
    none(&found, "`cfg(test)` stands before test modules only: give the product a seam instead");
}

#[test]
fn no_file_without_a_place() {
    let nowhere = ["utils.rs", "util.rs", "misc.rs", "common.rs", "helper.rs", "stuff.rs"];
    let found = files().into_iter().filter(|f| f.rsplit('/').next().is_some_and(|name| nowhere.contains(&name)));
    none(&found.collect::<Vec<_>>(), "see `Where a thing belongs` in docs/architecture.md");
}

#[test]
fn lints_are_expected_with_a_reason() {
    let rust = files().into_iter().filter(|f| ends_with(f, "rs") && f != "tests/tidy.rs");
    let found = rust.filter(|f| read(f).contains("[allow(")).collect::<Vec<_>>();
    none(&found, "use `#[expect(lint, reason = \"…\")]`: it goes away when it is no longer needed");
}

/// `cargo` compiles what is declared; a forgotten file looks like one that passes.
#[test]
fn every_source_file_is_included() {
    let files = files();
    let rust: Vec<&String> = files.iter().filter(|f| ends_with(f, "rs")).collect();
    let mut included: BTreeSet<PathBuf> = BTreeSet::new();
    for file in &rust {
        let text = read(file);
        let lines: Vec<&str> = text.lines().collect();
        for (i, line) in lines.iter().enumerate() {
            let Some(name) = line.trim().strip_suffix(';').and_then(|l| l.rsplit_once("mod ")).map(|(_, n)| n) else {
                continue;
            };
            let before = i.checked_sub(1).map_or("", |i| lines[i].trim());
            let path = before.strip_prefix("#[path = \"").and_then(|p| p.strip_suffix("\"]"));
            included.extend(module_files(file, name, path));
        }
    }
    let is_root = |f: &str| {
        let name = f.rsplit('/').next().unwrap_or_default();
        let manifests = ["Cargo.toml", "engine/core/Cargo.toml", "engine/exec/Cargo.toml", "steps/Cargo.toml"];
        let named = manifests.iter().any(|m| {
            let folder = Path::new(m).parent().unwrap_or(Path::new(""));
            read(m).lines().any(|l| {
                l.strip_prefix("path = \"")
                    .and_then(|p| p.strip_suffix('"'))
                    .is_some_and(|p| folder.join(p) == Path::new(f))
            })
        });
        let by_place = ["/benches/", "/examples/", "/fuzz_targets/"].iter().any(|p| f.contains(p));
        // A package without `autotests = false` builds each file of its tests folder.
        let own_test = f.starts_with("engine/") && f.matches('/').count() == 3 && f.contains("/tests/");
        matches!(name, "lib.rs" | "main.rs" | "build.rs") || named || by_place || own_test
    };
    let forgotten = rust.iter().filter(|f| !is_root(f) && !included.contains(Path::new(f.as_str())));
    none(&forgotten.map(|f| (*f).clone()).collect::<Vec<_>>(), "no `mod` includes it");
}

#[test]
fn every_diagnostic_has_a_page_and_a_snapshot() {
    let snapshots: String = files().iter().filter(|f| ends_with(f, "snap")).map(|f| read(f)).collect();
    let mut found = Vec::new();
    for code in runback_core::diagnostic::Code::ALL {
        let name = code.name();
        let page = format!("docs/diagnostics/{name}.md");
        if !root().join(&page).is_file() {
            found.push(format!("{name} ({code:?}): there is no {page}"));
        } else if !read(&page).starts_with(&format!("# {name}: ")) {
            found.push(format!("{page} opens with `# {name}: ` and what it is"));
        }
        if !snapshots.contains(name) {
            found.push(format!("{name} ({code:?}): no snapshot shows it"));
        }
    }
    none(&found, "a diagnostic is documented, and a snapshot shows how it reads");
}

#[test]
fn every_step_type_has_a_schema_and_examples() {
    let mut found = Vec::new();
    let catalog = runback_steps::catalog();
    for step_type in catalog.iter() {
        let d = step_type.descriptor();
        if !root().join(format!("schemas/steps/{}.json", d.name)).is_file() {
            found
                .push(format!("{}: no schemas/steps/{}.json; run `cargo run -- schema --out schemas`", d.name, d.name));
        }
        if d.examples.is_empty() {
            found.push(format!("{}: it has no example", d.name));
        }
    }
    none(&found, "a step type shows how it is used");
}

#[test]
fn every_playbook_has_a_test() {
    let files = files();
    let playbooks = files.iter().filter(|f| f.starts_with("playbooks/") && ends_with(f, "yaml"));
    let playbooks = playbooks.filter(|f| !f.ends_with(".test.yaml") && read(f).contains("\nrunback: "));
    let found: Vec<_> = playbooks.filter(|f| !files.contains(&f.replace(".yaml", ".test.yaml"))).cloned().collect();
    none(&found, "a playbook that ships has its `.test.yaml` beside it");
}

/// Where it was made is nobody's business, and means nothing elsewhere.
#[test]
fn nothing_names_a_machine_or_a_mirror() {
    let paths = ["/work/", "/.cargo/registry", "/.rustup/"].map(str::to_owned);
    let mirrors = ["replace-with", "index-url", "artifactory", "nexus."].map(str::to_owned);
    let mut found = Vec::new();
    for file in files().iter().filter(|f| *f != "tests/tidy.rs") {
        let Ok(text) = String::from_utf8(std::fs::read(root().join(file)).expect("a tracked file can be read")) else {
            continue;
        };
        for (i, line) in text.lines().enumerate() {
            if paths.iter().chain(&mirrors).any(|p| line.contains(p.as_str())) {
                found.push(format!("{file}:{}: {}", i + 1, line.trim()));
            }
            let source = line.strip_prefix("source = ").filter(|_| file == "Cargo.lock");
            if source.is_some_and(|s| s != "\"registry+https://github.com/rust-lang/crates.io-index\"") {
                found.push(format!("{file}:{}: {line}", i + 1));
            }
        }
    }
    none(&found, "write it so that it holds on every machine");
}

/// The bans of deny.toml, where cargo-deny is not installed.
#[test]
fn banned_crates_are_not_locked() {
    let deny = read("deny.toml");
    let banned: Vec<&str> =
        deny.lines().filter_map(|l| l.trim().strip_prefix("{ crate = \"").and_then(|l| l.split('"').next())).collect();
    assert!(banned.contains(&"openssl") && banned.contains(&"aws-lc-rs") && banned.contains(&"chrono"), "{banned:?}");
    let lock = read("Cargo.lock");
    let locked: BTreeSet<&str> =
        lock.lines().filter_map(|l| l.strip_prefix("name = \"").and_then(|l| l.strip_suffix('"'))).collect();
    let found: Vec<_> = banned.iter().filter(|b| locked.contains(**b)).map(|b| (*b).to_owned()).collect();
    none(&found, "deny.toml says why it may not come in; find who brings it with `cargo tree -i`");
}

/// The arrows of docs/architecture.md.
#[test]
fn packages_import_only_what_they_may() {
    let rules = [
        ("engine/core", ["runback-exec", "runback-steps", "tokio", "rusqlite", "reqwest", "rustix", "libc", "clap"]),
        ("engine/exec", ["runback-steps", "clap", "reqwest", "kube", "anstream", "comfy-table", "inquire", "miette"]),
        ("steps", ["runback-exec", "clap", "rusqlite", "anstream", "comfy-table", "inquire", "miette", "rustix"]),
    ];
    let mut found = Vec::new();
    for (package, refused) in rules {
        let manifest = read(&format!("{package}/Cargo.toml"));
        let product = manifest.split("[dev-dependencies]").next().unwrap_or_default();
        for name in refused {
            let is_it = |l: &str| l.split(['.', ' ', '=']).next().is_some_and(|n| n == name);
            if product.lines().any(is_it) {
                found.push(format!("{package}/Cargo.toml: {name}"));
            }
        }
        assert!(sources().iter().any(|s| s.in_package(package)), "{package} has no sources");
    }
    none(&found, "who may import whom is in docs/architecture.md");
}

#[test]
fn links_lead_somewhere() {
    let mut found = Vec::new();
    for file in files().iter().filter(|f| ends_with(f, "md")) {
        let folder = Path::new(file).parent().unwrap_or(Path::new(""));
        let text = read(file);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap_or_default();
            if path.is_empty() || path.contains("://") || path.contains(' ') {
                continue;
            }
            if !root().join(folder).join(path).exists() {
                found.push(format!("{file}: {link}"));
            }
        }
    }
    none(&found, "the file that a link names is not there");
}

/// What the documentation tells to type exists.
#[test]
fn documented_commands_exist() {
    let help = Command::new(env!("CARGO_BIN_EXE_runback")).arg("--help").output().expect("the binary runs");
    let help = String::from_utf8(help.stdout).expect("help is UTF-8");
    let verbs: BTreeSet<&str> = help
        .lines()
        .skip_while(|l| !l.starts_with("Commands:"))
        .skip(1)
        .take_while(|l| !l.trim().is_empty())
        .filter_map(|l| l.split_whitespace().next())
        .collect();
    assert!(verbs.contains("check"), "{help}");
    let mut found = Vec::new();
    for file in files().iter().filter(|f| ends_with(f, "md")) {
        let text = read(file);
        for block in text.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next()) {
            for line in block.lines() {
                let words = line.split_whitespace().skip_while(|w| *w != "runback");
                let Some(verb) = words.clone().nth(1).filter(|w| w.chars().all(|c| c.is_ascii_lowercase())) else {
                    continue;
                };
                if !verbs.contains(verb) {
                    found.push(format!("{file}: {}", line.trim()));
                }
            }
        }
    }
    none(&found, "there is no such verb");
}
