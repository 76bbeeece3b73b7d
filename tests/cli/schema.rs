//! The schemas under `schemas/` are what the code says, and they accept what the check accepts.

use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::{Desk, RELEASE};

pub(super) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas")
}

fn files_in(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(files_in(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// Only a build with every feature knows every step type.
#[cfg(feature = "k8s")]
#[test]
fn the_schemas_that_are_checked_in_are_current() {
    let desk = Desk::new();
    assert_eq!(desk.run(&["schema", "--out", "schemas"]).code, Some(0));
    let made = desk.path().join("schemas");
    let names = |dir: &Path| -> Vec<PathBuf> {
        files_in(dir).iter().filter_map(|p| p.strip_prefix(dir).ok().map(Path::to_owned)).collect()
    };
    let again = "run `cargo run -- schema --out schemas`";
    assert_eq!(names(&made), names(&folder()), "{again}");
    for name in names(&made) {
        let (new, old) = (std::fs::read_to_string(made.join(&name)), std::fs::read_to_string(folder().join(&name)));
        assert!(new.expect("it was made") == old.expect("it is there"), "{} is not current: {again}", name.display());
    }
}

fn playbook_schema(desk: &Desk) -> jsonschema::Validator {
    let said = desk.run(&["schema"]);
    let schema: Json = serde_json::from_str(&said.stdout).expect("a schema is JSON");
    jsonschema::validator_for(&schema).expect("the schema of playbooks is a schema")
}

fn problems(validator: &jsonschema::Validator, yaml: &str) -> Vec<String> {
    let value: Json = serde_yaml::from_str(yaml).expect("YAML");
    validator.iter_errors(&value).map(|e| format!("{}: {e}", e.instance_path())).collect()
}

#[test]
fn every_example_and_every_playbook_fits_the_schema() {
    let desk = Desk::new();
    let validator = playbook_schema(&desk);
    assert_eq!(problems(&validator, RELEASE), [""; 0]);
    for step_type in runback_steps::catalog().iter() {
        for example in step_type.descriptor().examples {
            let playbook = format!("runback: 1\nname: example\nsteps:\n{example}");
            assert_eq!(problems(&validator, &playbook), [""; 0], "{}\n{playbook}", step_type.descriptor().name);
        }
    }
    // Those that ship use step types that this build may not have; what is checked in knows all.
    let text = std::fs::read_to_string(folder().join("playbook.schema.json")).expect("it is checked in");
    let all: Json = serde_json::from_str(&text).expect("a schema is JSON");
    let validator = jsonschema::validator_for(&all).expect("a schema");
    let playbooks = Path::new(env!("CARGO_MANIFEST_DIR")).join("playbooks");
    let shipped = if playbooks.is_dir() { files_in(&playbooks) } else { Vec::new() };
    for path in shipped.iter().filter(|p| p.extension().is_some_and(|e| e == "yaml")) {
        let text = std::fs::read_to_string(path).expect("a file");
        if text.contains("\nrunback: 1") || text.starts_with("runback: 1") {
            assert_eq!(problems(&validator, &text), [""; 0], "{}", path.display());
        }
    }
}

#[test]
fn the_schema_refuses_what_the_check_refuses() {
    let desk = Desk::new();
    let validator = playbook_schema(&desk);
    let step = |step: &str| format!("runback: 1\nname: x\nsteps:\n  - {step}\n");
    let wrong = [
        "runback: 2\nname: x\nsteps: [{ run: 'true' }]\n".to_owned(),
        "runback: 1\nname: x\nstpes: [{ run: 'true' }]\n".to_owned(),
        step("{ uses: file.wriet }"),
        step("{ uses: file.write, with: { path: a } , mode: 3 }"),
        step("{ uses: file.write, with: { path: a, contnet: x } }"),
        step("{ uses: tcp.check, with: { host: a, port: many } }"),
        step("{ run: 'true', uses: exec }"),
        step("{ run: 'true', timeout: 10 }"),
        step("{ run: 'true', retry: { max_attempts: 0 } }"),
        step("{ uses: playbook, with: { file: a.yaml, input: { n: 1 } } }"),
        step("{ uses: playbook, with: { file: a.yaml, inputs: [ n ] } }"),
        step("{ run: 'true', rollback: { uses: playbook, with: { file: a.yaml } } }"),
        format!("{}secrets: {{ a: {{ command: pass show x }} }}\n", step("run: 'true'")),
        format!("{}inputs: {{ a: null }}\n", step("run: 'true'")),
        format!("{}inputs: {{ a: {{ default: 1 }} }}\n", step("run: 'true'")),
    ];
    for playbook in &wrong {
        assert!(!problems(&validator, playbook).is_empty(), "{playbook}");
        desk.write("wrong.yaml", playbook);
        assert_eq!(desk.run(&["check", "wrong.yaml"]).code, Some(2), "{playbook}");
    }
    let template = step("{ uses: tcp.check, with: { host: a, port: '{{ run.id }}' } }");
    assert_eq!(problems(&validator, &template), [""; 0], "a template may stand for a number");
}
