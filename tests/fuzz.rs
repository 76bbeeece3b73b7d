//! Broken input by the thousand: whatever the bytes are, check gives diagnostics with places in the file, and a
//! journal that cannot be gives an error. Nothing panics. Seeds are fixed; FUZZ_CASES asks for more.

use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;

use runback_core::check::{NoLoad, check};
use runback_core::event::{Created, Event, EventBody, RunOptions};
use runback_core::state::RunState;
use runback_exec::driver::{DriveOptions, Driver, Engine, Surroundings};
use runback_exec::mask::Masker;
use runback_exec::process::Processes;
use runback_exec::reporter::{Nobody, Reporter};
use runback_exec::store::{MemoryStore, Store};
use runback_exec::target::{LocalTarget, TargetSet};

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }
}

fn cases(default: usize) -> usize {
    std::env::var("FUZZ_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

fn corpus() -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for dir in ["playbooks", "engine/core/tests/diagnostics", "tests/diagnostics"] {
        for entry in std::fs::read_dir(root.join(dir)).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|e| e == "yaml") {
                files.push(std::fs::read(entry.path()).expect("readable"));
            }
        }
    }
    assert!(files.len() > 20, "the corpus is gone");
    files
}

const TOKENS: [&str; 28] = [
    "{{",
    "}}",
    "{{{",
    "{{#each x}}",
    "{{/each}}",
    "{{#if inputs.a}}",
    "&a ",
    "*a",
    "!!str ",
    "!x ",
    "\t",
    "\n---\n",
    "? ",
    "- ",
    ": ",
    "|\n",
    ">-\n",
    "'",
    "\"",
    "\\u0000",
    "\u{feff}",
    "é",
    "🦀",
    "steps.a.outputs.b",
    "((((",
    " && ",
    "99999999999999999999",
    "0x",
];

fn mutate(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        let end = (at + random.below(40)).min(bytes.len());
        match random.below(7) {
            0 if at < bytes.len() => bytes[at] = random.below(256) as u8,
            1 => drop(bytes.drain(at..end)),
            2 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            3 => {
                let other = &corpus[random.below(corpus.len())];
                let from = random.below(other.len() + 1);
                let to = (from + random.below(200)).min(other.len());
                bytes.splice(at..end, other[from..to].iter().copied());
            }
            4 => bytes.truncate(at),
            _ => drop(bytes.splice(at..at, TOKENS[random.below(TOKENS.len())].bytes())),
        }
    }
    bytes
}

#[test]
fn whatever_a_playbook_is_check_says_what_is_wrong() {
    let corpus = corpus();
    let catalog = runback_steps::catalog();
    let mut random = Random(0x5eed_0003);
    for case in 0..cases(4000) {
        let bytes = mutate(&mut random, &corpus);
        let text = String::from_utf8_lossy(&bytes);
        let checked = std::panic::catch_unwind(AssertUnwindSafe(|| check("fuzz.yaml", &text, &mut NoLoad, &catalog)));
        let checked = checked.unwrap_or_else(|_| panic!("case {case} broke check:\n{text}"));
        assert!(checked.plan.is_some() || checked.errors() > 0, "case {case}: no plan, and no reason:\n{text}");
        for diagnostic in &checked.diagnostics {
            for label in &diagnostic.labels {
                let file = &checked.sources.get(label.span.source).text;
                assert!(label.span.end as usize <= file.len(), "case {case}: {diagnostic:?}\n{text}");
                assert!(file.is_char_boundary(label.span.start as usize), "case {case}: {diagnostic:?}\n{text}");
            }
            assert!(!diagnostic.labels.is_empty(), "case {case}: {diagnostic:?}");
            diagnostic.to_json(&checked.sources);
        }
    }
}

struct Keep(Vec<Event>);

impl Reporter for Keep {
    fn event(&mut self, _state: &RunState, event: &Event) {
        self.0.push(event.clone());
    }
}

const PLAYBOOK: &str = "runback: 1\nname: fuzz\nsteps:\n\
    \x20 - { id: a, uses: set, with: { v: [1, 2] } }\n\
    \x20 - { id: w, uses: file.write, with: { path: w, content: x } }\n\
    \x20 - { id: each, for_each: \"{{ steps.a.outputs.v }}\", uses: set, with: { v: \"{{ each.value }}\" } }\n\
    \x20 - id: block\n    continue_on_error: true\n    steps:\n\
    \x20     - { uses: assert, with: { that: [\"1 == 2\"] } }\n\
    \x20 - { id: end, uses: assert, with: { that: [\"1 == 2\"] } }\n\
    finally:\n  - { uses: set, with: { v: 1 } }\n";

#[tokio::test]
async fn whatever_a_journal_is_it_is_folded_or_refused() {
    let catalog = runback_steps::catalog();
    let checked = check("fuzz.yaml", PLAYBOOK, &mut NoLoad, &catalog);
    let plan = checked.plan.unwrap_or_else(|| panic!("{:?}", checked.diagnostics));
    let dir = tempfile::tempdir().expect("a temp folder");
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let engine = Arc::new(Engine { store: Arc::clone(&store), log_limit: 1 << 20 });
    let local = LocalTarget::new(dir.path().into(), dir.path().join("detached"), Processes::without_guard());
    let created = Created {
        format: 1,
        version: "0".to_owned(),
        run: "fuzz".to_owned(),
        playbook: plan.name.clone(),
        texts: Vec::new(),
        base: String::new(),
        digest: plan.digest().to_owned(),
        inputs: serde_json::json!({}),
        by: "me@here".to_owned(),
        from: "test".to_owned(),
        options: RunOptions::default(),
    };
    let around = Surroundings {
        targets: Arc::new(TargetSet::new(&[], Arc::new(local), |name, _| panic!("no ssh target {name} here"))),
        secrets: vec![serde_json::Map::new(); plan.scopes.len()],
        secret_inputs: serde_json::Map::new(),
        masker: Masker::none(),
        base: dir.path().into(),
        by: "me@here".to_owned(),
        clock_at: None,
    };
    let mut driver = Driver::create(engine, Arc::clone(&plan), created, around).await.expect("created");
    let (_control, mut control) = tokio::sync::mpsc::unbounded_channel();
    let mut keep = Keep(Vec::new());
    driver.drive(&mut keep, &Nobody, &mut control, DriveOptions::default()).await.expect("driven");
    let journal = store.events("fuzz", 0, 10_000).await.expect("read");
    assert!(journal.len() > 20, "{journal:?}");

    let mut random = Random(0x5eed_0004);
    for case in 0..cases(4000) {
        let mut events = journal.clone();
        for _ in 0..=random.below(3) {
            let (at, other) = (random.below(events.len()), random.below(events.len()));
            match random.below(4) {
                0 => drop(events.remove(at)),
                1 => events.swap(at, other),
                2 => events.insert(other, events[at].clone()),
                _ => rename(&mut events[at], &journal[random.below(journal.len())]),
            }
        }
        let mut state = RunState::new(Arc::clone(&plan));
        for (event, seq) in events.iter_mut().zip(1..) {
            event.seq = seq;
            let before = (state.last_seq, state.phase);
            match std::panic::catch_unwind(AssertUnwindSafe(|| state.apply(event))) {
                Ok(Ok(())) => {}
                Ok(Err(_)) => {
                    assert_eq!((state.last_seq, state.phase), before, "case {case}: an error changed something");
                    break;
                }
                Err(broken) => panic!("case {case} broke apply at {event:?}: {broken:?}"),
            }
        }
        // The bytes of a row, broken: an error, not a panic.
        let mut row = serde_json::to_vec(&journal[random.below(journal.len())]).expect("JSON");
        let at = random.below(row.len());
        row[at] = random.below(256) as u8;
        drop(serde_json::from_slice::<Event>(&row));
    }
}

/// Makes an event speak of another step.
fn rename(event: &mut Event, other: &Event) {
    let Some(step) = other.body.step().cloned() else { return };
    match &mut event.body {
        EventBody::AttemptStarted { step: own, attempt } => (*own, *attempt) = (step, 2),
        EventBody::AttemptSucceeded { step: own, .. }
        | EventBody::UndoStarted { step: own, .. }
        | EventBody::UndoSucceeded { step: own, .. }
        | EventBody::StepExpanded { step: own, .. }
        | EventBody::BlockStarted { step: own } => *own = step,
        _ => {}
    }
}
