//! `runback test`: playbooks against scripted outcomes, as their test files say, or with every step failing in turn.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use runback_core::Json;
use runback_core::plan::Plan;
use runback_core::playbook::inputs::{self, Given};
use runback_core::step::Class;
use serde_json::{Map, json};

use super::OutputArg;
use crate::exit::Exit;
use crate::failure::{Done, Failure};
use crate::inputs::{Inputs, split};
use crate::simulate::script::{self, Outcome, Rule, Script};
use crate::simulate::testfile::{self, Case, TestFile, is_test};
use crate::simulate::{self, Simulated, Start, named, verdict};
use crate::term::{self, BOLD, DIM, GREEN, RED, RESET};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Test files, playbooks (with --all-failures), or folders [default: every *.test.yaml below here]
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Also let every step fail in turn by itself, and see that the run comes out as it promises
    #[arg(long)]
    all_failures: bool,

    #[command(flatten)]
    pub(crate) output: OutputArg,
}

/// One line of the report.
struct Verdict {
    name: String,
    problems: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Done {
    let files = files(arguments)?;
    let mut all = Vec::new();
    let (mut passed, mut failed) = (0, 0);
    for file in &files {
        let name = file.display().to_string();
        let verdicts = match test_file(&name, arguments.all_failures) {
            // The other files are tested all the same.
            Err(failure) if !failure.diagnostics.is_empty() || files.len() > 1 => {
                failure.print(false);
                let problems = vec!["it has errors, which were told above".to_owned()];
                vec![Verdict { name: "it can be tested".to_owned(), problems }]
            }
            other => other?,
        };
        failed += verdicts.iter().filter(|v| !v.problems.is_empty()).count();
        passed += verdicts.iter().filter(|v| v.problems.is_empty()).count();
        if !arguments.output.is_json() {
            term::line(&text(&name, &verdicts));
        }
        let cases: Vec<Json> = verdicts
            .iter()
            .map(|v| json!({ "name": v.name, "ok": v.problems.is_empty(), "problems": v.problems }))
            .collect();
        all.push(json!({ "file": name, "cases": cases }));
    }
    if arguments.output.is_json() {
        term::json(&json!({ "files": all, "passed": passed, "failed": failed }));
    } else {
        let color = if failed > 0 { RED } else { GREEN };
        term::line(&format!("{color}{passed} passed, {failed} failed{RESET}"));
    }
    Ok(if failed > 0 { Exit::Failed } else { Exit::Succeeded })
}

fn text(name: &str, verdicts: &[Verdict]) -> String {
    let mut out = format!("{BOLD}{name}{RESET}\n");
    for verdict in verdicts {
        let sign = if verdict.problems.is_empty() { format!("{GREEN}✓{RESET}") } else { format!("{RED}✗{RESET}") };
        out.push_str(&format!("  {sign} {}\n", verdict.name));
        for problem in &verdict.problems {
            out.push_str(&format!("      {problem}\n"));
        }
    }
    out
}

fn files(arguments: &Arguments) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    if arguments.files.is_empty() {
        below(Path::new("."), &mut found)?;
        if found.is_empty() {
            return Err(nothing_to_test("the current folder"));
        }
    }
    for path in &arguments.files {
        if path.is_dir() {
            let before = found.len();
            below(path, &mut found)?;
            if found.len() == before {
                return Err(nothing_to_test(&path.display().to_string()));
            }
        } else {
            found.push(path.clone());
        }
    }
    for path in &mut found {
        if let Ok(short) = path.strip_prefix("./") {
            *path = short.to_owned();
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

fn nothing_to_test(dir: &str) -> Failure {
    Failure::usage(format!("there is nothing to test: no *.test.yaml below {dir}"))
        .help("name a test file or a folder; or a playbook, with --all-failures")
}

fn below(dir: &Path, found: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let cannot = |e: std::io::Error| Failure::usage(format!("{} cannot be read: {e}", dir.display()));
    for entry in std::fs::read_dir(dir).map_err(cannot)? {
        let entry = entry.map_err(cannot)?;
        let (path, name) = (entry.path(), entry.file_name());
        let hidden = name.to_string_lossy().starts_with('.');
        // A link to a folder may lead round in a circle.
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            if !hidden && name != "target" && name != "node_modules" {
                below(&path, found)?;
            }
        } else if is_test(&path) {
            found.push(path);
        }
    }
    Ok(())
}

fn test_file(file: &str, all_failures: bool) -> Result<Vec<Verdict>, Failure> {
    if !is_test(Path::new(file)) {
        if !all_failures {
            return Err(Failure::usage(format!("{file} is no test file: its name does not end in .test.yaml"))
                .help(format!("to let every step of a playbook fail in turn: runback test {file} --all-failures")));
        }
        return single_failures(file, None, None);
    }
    let test = testfile::read(file)?;
    let playbook = Path::new(file).parent().unwrap_or(Path::new("")).join(&test.playbook);
    let playbook = playbook.display().to_string();
    let mut verdicts = Vec::new();
    for case in &test.cases {
        let problems = match one_case(&playbook, &test, case)? {
            Ok(run) => verdict::judge(&run, &case.expect),
            Err(problems) => problems,
        };
        verdicts.push(Verdict { name: case.name.clone(), problems });
    }
    if all_failures {
        let good = test.cases.iter().find(|c| c.expect.outcome.as_deref() == Some("succeeded"));
        verdicts.extend(single_failures(&playbook, Some(&test), good)?);
    }
    Ok(verdicts)
}

/// The run of a case, or what is wrong with the case itself.
fn one_case(playbook: &str, test: &TestFile, case: &Case) -> Result<Result<Simulated, Vec<String>>, Failure> {
    let rules = match test.rules(Some(case)) {
        Ok(rules) => rules,
        Err(why) => return Ok(Err(vec![why])),
    };
    let script = Arc::new(Script::new(rules));
    let loaded = simulate::load(playbook, &script);
    let plan = loaded.plan()?;
    let unknown = unknown_names(&plan, test, case);
    if !unknown.is_empty() {
        return Ok(Err(unknown));
    }
    let inputs = match resolve(&plan, &test.inputs_of(Some(case))) {
        Ok(inputs) => inputs,
        Err(problems) => return Ok(Err(problems)),
    };
    let script_of_run = Arc::clone(&script);
    let start = Start { plan, base: &loaded.base, inputs: &inputs, on_failure: case.on_failure, script };
    let run = simulate::simulate(start, None)?;
    let wrong = named::without_instance(run.state(), script_of_run.names());
    if !wrong.is_empty() {
        return Ok(Err(wrong.iter().map(|w| format!("given: {w}")).collect()));
    }
    Ok(Ok(run))
}

/// A name that no step has, or an output that its step has not, would be a test of nothing.
fn unknown_names(plan: &Plan, test: &TestFile, case: &Case) -> Vec<String> {
    let mut problems = Vec::new();
    for (step, given) in test.given.iter().chain(&case.given) {
        match named::action(plan, step) {
            Ok(idx) => {
                let wrong = named::outputs(plan, idx, given.outputs()).into_iter();
                problems.extend(wrong.map(|w| format!("given.{step}.outputs: {w}")));
            }
            Err(wrong) => problems.push(format!("given: {wrong}")),
        }
    }
    let expect = &case.expect;
    let wanted = expect.order.iter().map(|s| ("order", s)).chain(expect.attempts.keys().map(|s| ("attempts", s)));
    let lists =
        expect.undone.iter().flatten().map(|s| ("undone", s)).chain(expect.kept.iter().flatten().map(|s| ("kept", s)));
    let all = wanted.chain(lists).chain(expect.states.keys().map(|s| ("states", s)));
    problems.extend(all.filter_map(|(place, s)| Some(format!("{place}: {}", named::step(plan, s).err()?))));
    problems
}

fn resolve(plan: &Plan, given: &Map<String, Json>) -> Result<Inputs, Vec<String>> {
    let decls = &plan.scopes[0].inputs;
    let given: Vec<(String, Given)> =
        given.iter().map(|(name, value)| (name.clone(), Given::json(value.clone(), "inputs"))).collect();
    match inputs::resolve(decls, &given) {
        Ok(values) => Ok(split(decls, values)),
        Err(errors) => Err(errors.into_iter().map(|e| e.message).collect()),
    }
}

/// Every action of the playbook fails by itself, the others do as the good case says.
fn single_failures(playbook: &str, test: Option<&TestFile>, good: Option<&Case>) -> Result<Vec<Verdict>, Failure> {
    let given = match test.map(|t| t.rules(good)).transpose() {
        Ok(given) => given.unwrap_or_default(),
        Err(why) => return Ok(vec![Verdict { name: "all failures".to_owned(), problems: vec![why] }]),
    };
    let inputs = test.map(|t| t.inputs_of(good)).unwrap_or_default();
    let plain = simulate::load(playbook, &Arc::new(Script::new(HashMap::new()))).plan()?;
    let actions: Vec<String> =
        plain.iter().filter(|(_, s)| s.action().is_some()).map(|(idx, _)| script::bare(&plain.path(idx))).collect();
    let mut verdicts = Vec::new();
    let inputs = match resolve(&plain, &inputs) {
        Ok(inputs) => inputs,
        Err(problems) => return Ok(vec![Verdict { name: "all failures".to_owned(), problems }]),
    };
    let run_with = |rules: HashMap<String, Rule>| {
        let script = Arc::new(Script::new(rules));
        let loaded = simulate::load(playbook, &script);
        let start = Start { plan: loaded.plan()?, base: &loaded.base, inputs: &inputs, on_failure: None, script };
        simulate::simulate(start, None)
    };
    // What fails by itself already says nothing of a single failure.
    if (test.is_none() || good.is_some())
        && let Some(problem) = verdict::fails_without_a_failure(&run_with(given.clone())?)
    {
        return Ok(vec![Verdict { name: "all failures".to_owned(), problems: vec![problem] }]);
    }
    let (mut well, mut skipped) = (0, Vec::new());
    for step in &actions {
        let mut rules = given.clone();
        let fail = Outcome { fail: Some(script::failure(Class::Permanent, None, None)), ..Outcome::default() };
        rules.insert(step.clone(), Rule { attempts: vec![fail], first_only: true, ..Rule::default() });
        let run = run_with(rules)?;
        match verdict::judge_single_failure(&run, step) {
            Ok(true) => well += 1,
            Ok(false) => skipped.push(step.as_str()),
            Err(problems) => verdicts.push(Verdict { name: format!("when {step} fails"), problems }),
        }
    }
    let failures = if well == 1 { "1 single failure comes" } else { &format!("{well} single failures come") };
    let mut name = format!("{failures} out as promised");
    if !skipped.is_empty() {
        name.push_str(&format!(" {DIM}(not reached: {}){RESET}", skipped.join(", ")));
    }
    verdicts.push(Verdict { name, problems: Vec::new() });
    Ok(verdicts)
}
