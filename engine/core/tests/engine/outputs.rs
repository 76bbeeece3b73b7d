//! What a step's and a run's outputs are where steps did nothing: no items, skipped, failed.

use runback_core::decide::{lock_names, run_lock_names};
use runback_core::event::{EventBody, Outcome};
use runback_core::scope;
use runback_core::state::Phase;
use serde_json::json;

use super::bench::Bench;

/// A list, a `for_each` over it whose instances are skipped on demand, and what refers to the lists that it gives.
const EACH: &str = "steps:
  - { id: a, uses: t.read }
  - id: e
    for_each: \"{{ steps.a.outputs.list }}\"
    continue_on_error: true
    when: each.value != 0
    steps: [{ id: one, uses: t.read }]
    outputs: { known: \"{{ steps.one.outputs.n }}\" }
  - id: open
    for_each: \"{{ steps.a.outputs.list }}\"
    continue_on_error: true
    when: each.value != 0
    uses: t.read
  - { id: z, uses: t.read, with: { known: \"{{ steps.e.outputs.known }}\", open: \"{{ steps.open.outputs.n }}\" } }
outputs: { known: \"{{ steps.e.outputs.known }}\", open: \"{{ steps.open.outputs.n }}\" }";

fn lists(bench: &Bench) -> serde_json::Value {
    assert_eq!(bench.state.phase, Phase::Finished(Outcome::Succeeded), "{}", bench.tail());
    assert!(bench.state.output_errors.is_empty(), "{:?}", bench.state.output_errors);
    bench.state.outputs.as_deref().cloned().unwrap()
}

#[test]
fn a_for_each_over_nothing_has_empty_lists() {
    let mut bench = Bench::new(EACH);
    bench.ok_with("a", json!({ "list": [] }));
    let known = scope::outputs(&bench.state, bench.node("e")).unwrap();
    assert_eq!(known, json!({ "known": [] }));
    bench.ok("z");
    assert_eq!(lists(&bench), json!({ "known": [], "open": [] }));
}

#[test]
fn what_did_not_succeed_is_null_in_its_place() {
    let mut bench = Bench::new(EACH);
    bench.ok_with("a", json!({ "list": [0, 1, 2] }));
    bench.ok_with("e[1]/one", json!({ "n": "one" }));
    bench.fail("e[2]/one");
    bench.fail("open[1]");
    bench.ok_with("open[2]", json!({ "n": "two" }));
    bench.ok("z");
    assert_eq!(lists(&bench), json!({ "known": [null, "one", null], "open": [null, null, "two"] }));

    let mut bench = Bench::new(EACH);
    bench.ok_with("a", json!({ "list": [0, 0.0] }));
    bench.ok("z");
    assert_eq!(lists(&bench), json!({ "known": [null, null], "open": [null, null] }));
}

/// From `finally`: what was never expanded has no lists.
#[test]
fn a_for_each_that_was_not_reached_has_no_outputs() {
    let mut bench = Bench::new(EACH);
    bench.fail("a");
    assert_eq!(scope::outputs(&bench.state, bench.node("e")).unwrap(), json!({}));
}

/// One that could not be worked out took all the others with it.
#[test]
fn an_output_that_cannot_be_worked_out_is_null_and_the_others_are_there() {
    let mut bench = Bench::new(
        "outputs: { x: \"{{ steps.a.outputs.o }}\", y: \"{{ steps.b.outputs.o }}\", z: \"v {{ steps.b.outputs.l }}\" }
steps: [{ id: a, when: \"false\", uses: t.read }, { id: b, uses: t.read }]",
    );
    bench.ok_with("b", json!({ "o": "hi", "l": [1, 2] }));
    assert_eq!(bench.state.outputs.as_deref(), Some(&json!({ "x": null, "y": "hi", "z": null })));
    let errors = &bench.state.output_errors;
    assert_eq!(errors.keys().collect::<Vec<_>>(), ["x", "z"]);
    assert_eq!(errors["x"], "step a is skipped, so it has no outputs");
    assert!(errors["z"].contains("steps.b.outputs.l"), "{}", errors["z"]);
    let Some(EventBody::RunFinished { output_errors, .. }) = bench.trace.last().map(|e| &e.body) else {
        panic!("{}", bench.tail())
    };
    assert_eq!(output_errors, errors);
}

#[test]
fn a_lock_without_a_name_is_a_mistake_that_names_its_template() {
    let steps = "steps:
  - { id: a, uses: t.read }
  - { id: b, uses: t.read, on_interrupt: rerun, locks: [\"{{ steps.a.outputs.n }}\"] }";
    for (n, wrong) in [
        (json!(""), "the name of the lock `{{ steps.a.outputs.n }}` is empty"),
        (json!(" "), "the name of the lock `{{ steps.a.outputs.n }}` is empty"),
        (json!([1]), "the name of the lock `{{ steps.a.outputs.n }}` could not be worked out"),
    ] {
        let mut bench = Bench::new(steps);
        bench.ok_with("a", json!({ "n": n }));
        let error = lock_names(&bench.state, bench.node("b")).unwrap_err();
        assert!(error.message.contains(wrong) && error.help.is_some(), "{error:?}");
        assert_eq!(bench.state.node(bench.node("b")).error().unwrap().message, error.message);
    }
    let playbook = "runback: 1\nname: t\ninputs: { n: { type: string } }\nlocks: [\"vm/{{ inputs.n }}\"]\n\
        steps: [{ id: a, uses: t.read }]";
    let bench = Bench::created(super::bench::plan(playbook));
    let error = run_lock_names(&bench.state).unwrap_err();
    assert!(error.message.contains("the name of the lock `vm/{{ inputs.n }}` could not be worked out"), "{error:?}");
}
