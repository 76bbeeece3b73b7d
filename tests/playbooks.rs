//! The playbooks that ship, run for real in a folder of their own: what they do, what they undo, and that nothing stays
//! behind. Their scripted tests are the `.test.yaml` files beside them.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value as Json;

/// A copy of `playbooks/` in a folder that goes away, and a store of its own.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("playbooks");
        let copied = Command::new("cp").arg("-R").arg(from).arg(dir.path()).status().expect("cp is there");
        assert!(copied.success());
        Self { dir }
    }

    fn runback(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runback"));
        command.current_dir(self.dir.path()).args(arguments).env("NO_COLOR", "1");
        command.env("RUNBACK_STATE_DIR", self.dir.path().join("state")).stdin(std::process::Stdio::null());
        command.output().expect("the binary runs")
    }

    /// Runs it, and wants that exit code; what was printed, for a person who reads a failed test.
    fn run(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.runback(&[&["run"], arguments].concat());
        let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{told}");
        told
    }

    fn latest(&self) -> Json {
        let output = self.runback(&["runs", "--output", "json"]);
        let runs: Json = serde_json::from_slice(&output.stdout).expect("JSON");
        runs[0].clone()
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
    }

    fn link(&self, file: &str) -> String {
        let to = std::fs::read_link(self.dir.path().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        to.to_string_lossy().into_owned()
    }

    fn exists(&self, file: &str) -> bool {
        self.dir.path().join(file).symlink_metadata().is_ok()
    }
}

#[test]
fn quickstart_breaks_and_is_taken_back() {
    let place = Place::new();
    place.run(0, &["playbooks/quickstart.yaml"]);
    assert_eq!(place.link("quickstart-demo/current"), "releases/1.0");
    let configuration = place.read("quickstart-demo/hello.conf");

    let told = place.run(3, &["playbooks/quickstart.yaml", "-i", "version=1.1", "-i", "broken=true"]);
    assert!(told.contains("the greeting is empty"), "{told}");
    assert!(told.contains("all is as it was"), "{told}");
    assert_eq!(place.link("quickstart-demo/current"), "releases/1.0");
    assert_eq!(place.read("quickstart-demo/hello.conf"), configuration);
    assert!(!place.exists("quickstart-demo/releases/1.1"), "the new release went with the rest");

    place.run(0, &["playbooks/quickstart.yaml", "-i", "version=1.1"]);
    assert_eq!(place.link("quickstart-demo/current"), "releases/1.1");
    let id = place.latest()["id"].as_str().expect("an id").to_owned();
    let back = place.runback(&["rollback", &id]);
    assert_eq!(back.status.code(), Some(0), "{back:?}");
    assert_eq!(place.link("quickstart-demo/current"), "releases/1.0");
    assert_eq!(place.latest()["status"], "rolled-back");
}

#[test]
fn quickstart_from_nothing_leaves_nothing() {
    let place = Place::new();
    place.run(3, &["playbooks/quickstart.yaml", "-i", "broken=true"]);
    assert!(!place.exists("quickstart-demo"), "{:?}", std::fs::read_dir(place.dir.path().join("quickstart-demo")));
}

#[test]
fn a_configuration_is_rolled_out_and_reloaded_again_when_it_is_taken_back() {
    let place = Place::new();
    place.run(0, &["playbooks/config-rollout.yaml"]);
    let running = place.read("config-demo/running");
    assert!(running.contains("version 1\nbackend web1.example.com:8080 weight=1\n"), "{running}");

    let one = "backends=[{host: a.example.com, port: 80}, {host: b.example.com, port: 80, weight: 0}]";
    let told = place.run(3, &["playbooks/config-rollout.yaml", "-i", "version=2", "-i", one]);
    assert!(told.contains("1 backend(s) would get all requests"), "{told}");
    assert_eq!(place.read("config-demo/running"), running, "the balancer reads the old one again");
    assert_eq!(place.link("config-demo/current.conf"), "versions/1.conf");
    assert!(!place.exists("config-demo/versions/2.conf"));

    let bad = "backends=[{host: 'not a host', port: 80}]";
    let told = place.run(3, &["playbooks/config-rollout.yaml", "-i", "version=3", "-i", bad]);
    assert!(told.contains("not a line of a configuration"), "{told}");
    assert!(!place.exists("config-demo/versions/3.conf"), "what is not valid never had its name");
}

/// Makes a virtual environment: needs python3 with venv (Debian: python3-venv).
#[test]
fn real_training_publishes_what_is_good_enough() {
    let place = Place::new();
    let few = ["-i", "epochs=3", "-i", "images=400"];
    let told = place.run(3, &[&["playbooks/mnist-training.yaml", "-i", "min_accuracy=1"], &few[..]].concat());
    assert!(told.contains("the model is not published"), "{told}");
    assert!(!place.exists("mnist-demo"), "the environment and the model went with it");

    place.run(0, &[&["playbooks/mnist-training.yaml", "-i", "min_accuracy=0.8"], &few[..]].concat());
    let model: Json = serde_json::from_str(&place.read("mnist-demo/published/model.json")).expect("JSON");
    assert!(model["accuracy"].as_f64().is_some_and(|a| a > 0.8), "{}", model["accuracy"]);
    let logs = place.runback(&["logs", place.latest()["id"].as_str().expect("an id"), "train"]);
    assert!(String::from_utf8_lossy(&logs.stdout).contains("epoch 3/3: loss "), "{logs:?}");
}

/// As `runback test` does it for a person, every step failing in turn.
#[test]
fn scripted_tests_hold() {
    let place = Place::new();
    let output = place.runback(&["test", "playbooks", "--all-failures"]);
    let told = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{told}{}", String::from_utf8_lossy(&output.stderr));
    assert!(told.contains(" passed, 0 failed"), "{told}");
}

/// Whole playbooks in the documentation can be copied out of it.
#[test]
fn documented_playbooks_are_right() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let place = Place::new();
    let mut seen = 0;
    for folder in ["docs/guide", "docs/reference", "."] {
        for entry in std::fs::read_dir(root.join(folder)).expect("a folder of documentation") {
            let path = entry.expect("it can be listed").path();
            if path.extension().is_none_or(|e| e != "md") {
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("a page can be read");
            for block in text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()) {
                if !block.starts_with("runback: 1\n") {
                    continue;
                }
                seen += 1;
                let file = place.dir.path().join("documented.yaml");
                std::fs::write(&file, block).expect("a file can be written");
                let output = place.runback(&["check", &file.to_string_lossy()]);
                let told = String::from_utf8_lossy(&output.stderr);
                assert_eq!(output.status.code(), Some(0), "{}: {told}", path.display());
            }
        }
    }
    assert!(seen > 0, "the documentation shows no playbook");
}
