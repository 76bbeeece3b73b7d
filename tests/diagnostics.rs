//! What `runback check` says, with the step types of this build: each `diagnostics/*.yaml` is a playbook with mistakes,
//! the snapshot beside it what a person reads and what a program gets. Codes that need no step type are shown in
//! engine/core/tests.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value as Json;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/diagnostics")
}

/// The binary, in the folder of the playbooks, where nothing of the caller's environment changes what it says.
fn runback(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_runback"));
    command.current_dir(folder()).args(arguments).env("NO_COLOR", "1").env("COLUMNS", "120").env_remove("DEPLOY_TOKEN");
    command.output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("runback writes UTF-8")
}

/// How long it took, and where the repository is, are not the same twice.
fn redacted(text: &str) -> String {
    let text = text.replace(&*folder().to_string_lossy(), "FOLDER");
    let line = |l: &str| match l.rfind(" (") {
        Some(at) if l.ends_with(" ms)") => format!("{} (… ms)", &l[..at]),
        _ => l.trim_end().to_owned(),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn snapshot(name: &str, content: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(folder());
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, content));
}

/// Both forms of a command's diagnostics, and its exit code.
fn told(arguments: &[&str]) -> String {
    let human = runback(arguments);
    let mut all = format!("exit {}\n", human.status.code().expect("it was not killed"));
    for stream in [&human.stdout, &human.stderr] {
        let said = redacted(&text(stream));
        if !said.is_empty() {
            all.push_str(&said);
            all.push('\n');
        }
    }
    let machine = runback(&[arguments, &["--output", "json"]].concat());
    assert_eq!(machine.status.code(), human.status.code(), "both forms end alike");
    let data: Json = serde_json::from_slice(&machine.stdout)
        .unwrap_or_else(|e| panic!("{arguments:?}: {e}: {}{}", text(&machine.stdout), text(&machine.stderr)));
    for diagnostic in data["diagnostics"].as_array().expect("a list of diagnostics") {
        all.push_str(&redacted(&format!("\n{diagnostic}")));
    }
    all
}

#[test]
fn playbooks_with_mistakes() {
    let entries = std::fs::read_dir(folder()).expect("the folder of playbooks is there");
    let mut names: Vec<String> = entries
        .filter_map(|e| e.expect("it can be listed").file_name().into_string().ok())
        .filter(|name| Path::new(name).extension().is_some_and(|e| e == "yaml"))
        .collect();
    names.sort();
    assert!(!names.is_empty());
    for name in names {
        snapshot(name.trim_end_matches(".yaml"), &told(&["check", &name]));
    }
}

#[test]
fn a_file_that_is_not_there() {
    snapshot("no-such-file", &told(&["check", "fine.yml"]));
}

/// Values from the command line have no place in a file; as data they are told like any other mistake.
#[test]
fn values_given_at_the_start() {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let state = dir.path().to_string_lossy().into_owned();
    let run = |more: &[&str]| {
        let verb = |verb: &str, format: &[&str]| {
            runback(&[&[verb, "start/start.yaml", "--state-dir", &state], more, format].concat())
        };
        let output = verb("run", &[]);
        assert!(output.stdout.is_empty(), "nothing was started");
        let data = verb("run", &["-o", "json"]);
        assert_eq!(data.status.code(), output.status.code(), "both forms end alike");
        let data: Json = serde_json::from_slice(&data.stdout).expect("one JSON value");
        let found = data["diagnostics"].as_array().expect("a list of diagnostics");
        let told = text(&output.stderr);
        assert_eq!(found.len(), told.matches("error[RB0").count(), "{data}: {told}");
        for one in found {
            let is_told = told.contains(&format!("error[{}]: ", one["code"].as_str().expect("a code")));
            assert!(is_told && told.contains(one["message"].as_str().expect("a message")), "{one}: {told}");
            assert_eq!(
                (&one["severity"], &one["file"], &one["labels"]),
                (&"error".into(), &Json::Null, &Json::Array(Vec::new()))
            );
        }
        // The others are given the same inputs, and say the same of them; they read no secret.
        for other in ["plan", "simulate"].into_iter().filter(|_| told.contains("RB0702")) {
            let data = verb(other, &["-o", "json"]);
            assert_eq!(data.status.code(), Some(2), "{other}");
            let data: Json = serde_json::from_slice(&data.stdout).expect("one JSON value");
            assert!(data["diagnostics"].as_array().is_some_and(|all| !all.is_empty()), "{other}: {data}");
        }
        format!("exit {}\n{}", output.status.code().expect("it was not killed"), redacted(&text(&output.stderr)))
    };
    let mut all = run(&["-i", "verison=1.4.2", "-i", "count=many"]);
    all.push_str("\n\n");
    all.push_str(&run(&["-i", "version=1.4.2"]));
    snapshot("start-of-a-run", &all);
}

#[test]
fn a_template_over_the_limits() {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let many = "{{ inputs.x }}".repeat(1001);
    let playbook = format!(
        "runback: 1\nname: large\ninputs: {{ x: {{ type: string }} }}\nsteps:\n  - uses: set\n    with: {{ x: \"{many}\" }}\n"
    );
    let file = dir.path().join("large.yaml");
    std::fs::write(&file, playbook).expect("a file can be written");
    let output = runback(&["check", &file.to_string_lossy(), "--output", "json"]);
    let data: Json = serde_json::from_slice(&output.stdout).expect("JSON");
    let all = data["diagnostics"].as_array().expect("a list");
    let found = all.iter().find(|d| d["severity"] == "error").expect("an error");
    snapshot("template-too-large", &format!("{} {}\n{}", found["code"], found["message"], found["help"]));
}

/// A playbook that a program wrote in one line was printed as a whole with each of its mistakes: 16 MB.
#[test]
fn a_long_line_is_shown_around_the_mistake() {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let step = |n: usize| format!(r#"{{"id":"s{n}","run":"echo é {{{{ inputs.x{n} }}}}"}}"#);
    let steps: Vec<String> = (0..300).map(step).collect();
    let line = format!(r#"{{"runback":1,"name":"é","steps":[{},{}]}}"#, steps.join(","), step(7));
    let file = dir.path().join("one.json");
    std::fs::write(&file, &line).expect("a file can be written");
    let output = runback(&["check", &file.to_string_lossy()]);
    let said = text(&[output.stdout, output.stderr].concat());
    assert!(said.matches("there is no input").count() >= 300, "{said}");
    assert!(said.len() < 602 * 1000, "{}", said.len());
    let longest = said.lines().map(|l| l.chars().count()).max();
    assert!(longest < Some(300), "{longest:?}");
    let at = line.find("inputs.x123 ").expect("it is there") + 1;
    let told = |what: &str| {
        let one = said.split("\nRB0").find(|e| e.contains(what)).expect("it is told");
        redacted(one).replace(&*dir.path().to_string_lossy(), "DIR")
    };
    assert!(told("`x123`").contains(&format!(":1:{at}]")), "{at}: {}", told("`x123`"));
    // Two places in one line, far from each other: each is shown by itself.
    snapshot("long-line", &format!("{}\n\n{}", told("`x123`"), told("`s7`")));
}

/// Every place that the data names is where the human form points at: lines and columns from 1, in characters.
#[test]
fn labels_are_where_they_say() {
    let output = runback(&["check", "names.yaml", "graph.yaml", "--output", "json"]);
    let data: Json = serde_json::from_slice(&output.stdout).expect("JSON");
    let found = data["diagnostics"].as_array().expect("a list");
    assert!(found.len() > 10, "{data:#}");
    for diagnostic in found {
        let file = std::fs::read_to_string(folder().join(diagnostic["file"].as_str().expect("a file"))).expect("it is");
        for label in diagnostic["labels"].as_array().expect("labels") {
            let number = |key: &str| usize::try_from(label[key].as_u64().expect("a number")).expect("it is small");
            let line = file.lines().nth(number("line") - 1).expect("the line is there");
            let by_column: String = line.chars().skip(number("column") - 1).collect();
            let by_offset = &file[number("offset")..number("offset") + number("length")];
            assert!(by_column.starts_with(by_offset.lines().next().unwrap_or_default()), "{diagnostic:#}");
        }
    }
}
