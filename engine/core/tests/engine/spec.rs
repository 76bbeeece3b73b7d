//! Random playbooks: a small description that the oracle understands by itself, and its text for the checker.

use proptest::prelude::*;
use serde_json::{Value, json};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    Rollback,
    Hold,
    Continue,
}

impl Policy {
    fn text(self) -> &'static str {
        match self {
            Self::Rollback => "rollback",
            Self::Hold => "hold",
            Self::Continue => "continue",
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Spec {
    pub(crate) on_failure: Policy,
    pub(crate) fail_fast: bool,
    pub(crate) max_parallel: u32,
    /// In seconds.
    pub(crate) timeout: Option<u32>,
    pub(crate) steps: Vec<Step>,
    pub(crate) finally: Vec<Step>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Custom {
    None,
    Off,
    Started,
    Succeeded,
}

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    /// Index into the catalog's types.
    Action {
        of: usize,
        rollback: Custom,
    },
    Block {
        steps: Vec<Step>,
        on_failure: Option<Policy>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    Always,
    Never,
    /// The first of its needs succeeded.
    NeedSucceeded,
}

#[derive(Debug, Clone)]
pub(crate) struct Each {
    pub(crate) items: u32,
    /// The items come from the outputs of the first of its needs.
    pub(crate) dynamic: bool,
    pub(crate) max_parallel: Option<u32>,
    pub(crate) fail_fast: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) id: String,
    pub(crate) kind: Kind,
    /// Raw choice: None = the step above.
    raw_needs: Option<Vec<u8>>,
    /// Ids of siblings.
    pub(crate) needs: Vec<String>,
    pub(crate) when: When,
    pub(crate) each: Option<Each>,
    pub(crate) continue_on_error: bool,
    pub(crate) irreversible: bool,
    pub(crate) tries: u32,
    pub(crate) hold: bool,
    pub(crate) lock: Option<u8>,
}

impl Spec {
    /// JSON is YAML.
    pub(crate) fn text(&self) -> String {
        let mut top = json!({
            "runback": 1, "name": "random", "on_failure": self.on_failure.text(), "fail_fast": self.fail_fast,
            "max_parallel": self.max_parallel, "steps": list(&self.steps),
        });
        if let Some(timeout) = self.timeout {
            top["timeout"] = format!("{timeout}s").into();
        }
        if !self.finally.is_empty() {
            top["finally"] = list(&self.finally);
        }
        serde_json::to_string_pretty(&top).unwrap()
    }
}

fn list(steps: &[Step]) -> Value {
    steps.iter().map(step).collect()
}

fn step(step: &Step) -> Value {
    let mut out = json!({ "id": step.id });
    match &step.kind {
        Kind::Action { of, rollback } => {
            out["uses"] = super::catalog::TYPES[*of].0.into();
            match rollback {
                Custom::None => {}
                Custom::Off => out["rollback"] = "none".into(),
                Custom::Started => out["rollback"] = json!({ "uses": "t.stays" }),
                Custom::Succeeded => out["rollback"] = json!({ "uses": "t.stays", "if": "succeeded" }),
            }
            if step.tries > 1 || step.hold {
                out["retry"] = json!({ "max_attempts": step.tries, "initial_interval": "1s" });
                if step.hold {
                    out["retry"]["on_exhausted"] = "hold".into();
                }
            }
        }
        Kind::Block { steps, on_failure } => {
            out["steps"] = list(steps);
            if let Some(policy) = on_failure {
                out["on_failure"] = policy.text().into();
            }
        }
    }
    if step.raw_needs.is_some() {
        out["needs"] = json!(step.needs);
    }
    match (step.when, step.needs.first()) {
        (When::Never, _) => out["when"] = "false".into(),
        (When::NeedSucceeded, Some(need)) => out["when"] = format!("steps['{need}'].status == 'succeeded'").into(),
        _ => {}
    }
    if let Some(each) = &step.each {
        let items: Value = match step.needs.first().filter(|_| each.dynamic) {
            Some(need) => format!("{{{{ steps.{need}.outputs.items }}}}").into(),
            None => (0..each.items).map(|i| format!("k{i}")).collect(),
        };
        out["for_each"] = json!({ "items": items, "fail_fast": each.fail_fast });
        if let Some(max) = each.max_parallel {
            out["for_each"]["max_parallel"] = max.into();
        }
    }
    if step.continue_on_error {
        out["continue_on_error"] = true.into();
    }
    if step.irreversible {
        out["irreversible"] = true.into();
    }
    if let Some(lock) = step.lock {
        out["locks"] = json!([format!("lock-{lock}")]);
    }
    out
}

/// Gives ids and needs; what only makes sense with something else is taken out.
fn name(steps: &mut [Step], next: &mut u32) {
    let mut before: Vec<(String, bool)> = Vec::new();
    for step in steps {
        step.id = format!("s{next}");
        *next += 1;
        let back = |n: &u8| before.len().checked_sub(1 + *n as usize).map(|at| before[at].0.clone());
        step.needs = match &step.raw_needs {
            Some(raw) => raw.iter().filter_map(back).collect(),
            None => before.last().map(|(id, _)| id.clone()).into_iter().collect(),
        };
        step.needs.sort();
        step.needs.dedup();
        let plain = |id: &String| before.iter().any(|(b, plain)| b == id && *plain);
        // Only a plain action has outputs of a known form.
        let first_is_plain = step.needs.first().is_some_and(plain);
        if let Some(each) = &mut step.each {
            each.dynamic &= first_is_plain;
            step.when = if step.when == When::Never { When::Never } else { When::Always };
        }
        if step.when == When::NeedSucceeded && step.needs.is_empty() {
            step.when = When::Always;
        }
        let is_plain = matches!(step.kind, Kind::Action { .. }) && step.each.is_none();
        if let Kind::Block { steps, .. } = &mut step.kind {
            name(steps, next);
        }
        before.push((step.id.clone(), is_plain));
    }
}

fn policy() -> impl Strategy<Value = Policy> {
    prop_oneof![4 => Just(Policy::Rollback), 2 => Just(Policy::Continue), 2 => Just(Policy::Hold)]
}

fn rarely() -> impl Strategy<Value = bool> {
    proptest::bool::weighted(0.12)
}

fn action() -> impl Strategy<Value = Kind> {
    let of =
        prop_oneof![1 => Just(0), 6 => Just(1), 2 => Just(2), 1 => Just(3), 1 => Just(4), 1 => Just(5), 1 => Just(6)];
    let rollback = prop_oneof![
        8 => Just(Custom::None), 1 => Just(Custom::Off), 1 => Just(Custom::Started), 1 => Just(Custom::Succeeded)
    ];
    (of, rollback).prop_map(|(of, rollback)| Kind::Action { of, rollback })
}

fn each() -> impl Strategy<Value = Each> {
    (0..4_u32, any::<bool>(), proptest::option::of(1..3_u32), any::<bool>())
        .prop_map(|(items, dynamic, max_parallel, fail_fast)| Each { items, dynamic, max_parallel, fail_fast })
}

fn with_kind(kind: impl Strategy<Value = Kind> + 'static) -> impl Strategy<Value = Step> {
    let needs = proptest::option::weighted(0.6, proptest::collection::vec(0..4_u8, 0..3));
    let when = prop_oneof![8 => Just(When::Always), 1 => Just(When::Never), 1 => Just(When::NeedSucceeded)];
    let flags = (rarely(), rarely(), proptest::option::weighted(0.2, 0..2_u8), rarely());
    (kind, needs, when, proptest::option::weighted(0.2, each()), flags, prop_oneof![3 => Just(1_u32), 1 => 2..4_u32])
        .prop_map(|(kind, raw_needs, when, each, (continue_on_error, irreversible, lock, hold), tries)| Step {
            id: String::new(),
            kind,
            raw_needs,
            needs: Vec::new(),
            when,
            each,
            continue_on_error,
            irreversible,
            tries,
            hold: hold && tries > 1,
            lock,
        })
}

fn one() -> impl Strategy<Value = Step> {
    with_kind(action()).prop_recursive(3, 14, 4, |inner| {
        let block = (proptest::collection::vec(inner, 1..4), proptest::option::weighted(0.4, policy()))
            .prop_map(|(steps, on_failure)| Kind::Block { steps, on_failure });
        with_kind(block)
    })
}

pub(crate) fn spec() -> impl Strategy<Value = Spec> {
    let steps = proptest::collection::vec(one(), 1..6);
    let finally = prop_oneof![1 => Just(Vec::new()), 1 => proptest::collection::vec(one(), 1..3)];
    let timeout = proptest::option::weighted(0.1, 1..20_u32);
    (policy(), rarely(), 1..5_u32, timeout, steps, finally).prop_map(
        |(on_failure, fail_fast, max_parallel, timeout, mut steps, mut finally)| {
            let mut next = 0;
            name(&mut steps, &mut next);
            name(&mut finally, &mut next);
            Spec { on_failure, fail_fast, max_parallel, timeout, steps, finally }
        },
    )
}
