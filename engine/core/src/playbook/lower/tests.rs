#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::Json;
use crate::playbook::model::{
    Action, Exhausted, InputType, Interrupt, Retry, RetryOn, Rollback, RollbackIf, SecretFrom, Step, TargetKind, Uses,
};
use crate::playbook::yaml;
use crate::template::Template;
use serde_json::json;

fn good(text: &str) -> Playbook {
    let node = yaml::parse(SourceId(0), text).unwrap();
    let (playbook, diagnostics) = lower(SourceId(0), text, &node);
    assert_eq!(diagnostics, []);
    playbook.unwrap()
}

fn with_steps(steps: &str) -> Playbook {
    good(&format!("runback: 1\nname: t\nsteps:\n{steps}"))
}

fn uses(step: &Step) -> &Uses {
    match &step.action {
        Action::Uses(uses) => uses,
        Action::Block(_) => panic!("a block"),
    }
}

const WHOLE: &str = r#"
runback: 1
name: whole
description: All of it.
inputs:
  vm: string
  dir: { type: path, default: /tmp, description: where }
  ip: { type: string, format: ipv4, pattern: "10[.].*", default: 10.0.0.1, env: IP }
  n: { type: integer, min: 1, max: 5, options: [1, 2], default: 2 }
  pin: { type: string, secret: true }
secrets:
  a: { env: A }
  b: { file: b.txt }
  c: { command: [pass, show, c] }
targets:
  here: local
  web1: { ssh: "root@web1:2222" }
  web2: { ssh: { host: web2, user: u, port: 22, identity: ~/.ssh/id, options: { ConnectTimeout: 10 }, become: true } }
  v6: { ssh: "[::1]:22" }
  web: { group: [web1, web2] }
  all: [web1, local]
defaults: { target: web, env: { A: b }, timeout: 1m, deadline: 1h, idle_timeout: 5s, kill_grace: 0s, retry: 2, on_interrupt: rerun, detach: true }
locks: [ "vm/{{ inputs.vm }}", b ]
max_parallel: 4
timeout: 2h
on_failure: hold
fail_fast: true
schedule:
  - { cron: "0 3 * * MON", timezone: Europe/Berlin, jitter: 30s, overlap: skip, start_at: 2026-01-01, end_at: "2026-02-01T00:00:00Z" }
  - { cron: "@daily", catchup: last, dst_gap: skip, dst_fold: both, paused: false, inputs: { vm: a } }
  - { cron: "0 0 29 2 *" }
steps:
  - run: echo
finally:
  - run: logger
outputs: { a: "{{ inputs.vm }}", b: 1 }
"#;

#[test]
fn every_playbook_key() {
    let p = good(WHOLE);
    assert_eq!((p.name.value.as_str(), p.description.as_deref()), ("whole", Some("All of it.")));
    let types: Vec<_> = p.inputs.iter().map(|i| (i.name.value.as_str(), i.input_type)).collect();
    let string = InputType::String;
    assert_eq!(
        types,
        [("vm", string), ("dir", InputType::Path), ("ip", string), ("n", InputType::Integer), ("pin", string)]
    );
    assert_eq!(p.inputs[0].default, None);
    assert_eq!(p.inputs[1].default.as_ref().unwrap().value, "/tmp");
    assert_eq!(p.inputs[2].env.as_deref(), Some("IP"));
    assert_eq!(p.inputs[3].options, [json!(1), json!(2)]);
    assert!(p.inputs[4].secret);
    let from: Vec<_> = p.secrets.iter().map(|s| s.from.clone()).collect();
    let argv = ["pass", "show", "c"].map(str::to_owned).to_vec();
    assert_eq!(from, [SecretFrom::Env("A".into()), SecretFrom::File("b.txt".into()), SecretFrom::Command(argv)]);
    assert_eq!(p.defaults.target.as_ref().unwrap().text(), "web");
    assert_eq!(p.defaults.policy.kill_grace, Some(Duration::ZERO));
    assert_eq!(p.defaults.policy.on_interrupt, Some(Interrupt::Rerun));
    assert_eq!(p.defaults.policy.retry, Some(Retry { max_attempts: 2, ..Retry::default() }));
    assert_eq!(p.locks.iter().map(Template::text).collect::<Vec<_>>(), ["vm/{{ inputs.vm }}", "b"]);
    assert_eq!(p.max_parallel.unwrap().value, 4);
    assert_eq!((p.timeout, p.on_failure, p.fail_fast), (Some(Duration::from_secs(7200)), Some(OnFailure::Hold), true));
    assert_eq!(
        p.schedule.iter().map(|s| s.cron.value.as_str()).collect::<Vec<_>>(),
        ["0 3 * * MON", "@daily", "0 0 29 2 *"]
    );
    assert_eq!((p.steps[0].id.value.as_str(), p.finally[0].id.value.as_str()), ("shell-1", "finally-shell-1"));
    assert_eq!(p.outputs[1].1.literal(), Some(&json!(1)));
}

#[test]
fn targets() {
    let p = good(WHOLE);
    let ssh = |i: usize| match &p.targets[i].kind {
        TargetKind::Ssh(ssh) => (ssh.user.as_deref(), ssh.host.as_str(), ssh.port),
        other => panic!("{other:?}"),
    };
    assert_eq!(p.targets[0].kind, TargetKind::Local);
    assert_eq!(ssh(1), (Some("root"), "web1", Some(2222)));
    assert_eq!(ssh(2), (Some("u"), "web2", Some(22)));
    assert_eq!(ssh(3), (None, "::1", Some(22)));
    let TargetKind::Ssh(web2) = &p.targets[2].kind else { panic!() };
    assert_eq!(web2.options, [("ConnectTimeout".to_owned(), "10".to_owned())]);
    assert_eq!(web2.become_user.as_deref(), Some("root"));
    let TargetKind::Group(all) = &p.targets[5].kind else { panic!() };
    assert_eq!(all.iter().map(|m| m.value.as_str()).collect::<Vec<_>>(), ["web1", "local"]);
}

#[test]
fn run_is_the_step_type_shell() {
    let p = with_steps("  - run: |\n      echo a\n    outputs: { a: stdout, b: { json: x.y } }\n");
    let step = uses(&p.steps[0]);
    assert!(step.from_run);
    assert_eq!(step.step_type.value, "shell");
    let expected = json!({"script": "echo a\n", "outputs": {"a": "stdout", "b": {"json": "x.y"}}});
    assert_eq!(step.with.to_json(), expected);
    assert_eq!(step.with_template.literal(), Some(&expected));
    assert_eq!(p.steps[0].outputs.len(), 0);
}

#[test]
fn every_step_key() {
    let p = with_steps(
        r#"
  - id: a
    uses: http.check
    with: { url: "https://{{ inputs.host }}/", n: 3 }
    needs: []
    target: web
    env: { A: "{{ inputs.x }}" }
    timeout: 1h30m
    retry: { max_attempts: 5, initial_interval: 2m, backoff_coefficient: 1, jitter: 0, retry_on: [transient, 75], on_exhausted: hold }
    rollback: { run: undo, if: succeeded }
    irreversible: false
    continue_on_error: true
    locks: one
    detach: false
    on_interrupt: ask
  - id: b
    needs: a
    for_each: { items: { x: 1 }, as: host, key: "{{ host.key }}", max_parallel: 2, fail_fast: true }
    on_failure: rollback
    rollback: none
    steps:
      - { id: a, run: echo }
      - { run: echo, for_each: [1, 2] }
    outputs: { x: "{{ steps.a.outputs.y }}" }
  - { run: echo, for_each: "{{ steps.b.outputs.x }}", rollback: { uses: exec, with: { argv: [a] } } }
"#,
    );
    let a = &p.steps[0];
    assert!(a.id_given);
    assert_eq!(uses(a).with.to_json(), json!({"url": "https://{{ inputs.host }}/", "n": 3}));
    assert_eq!(a.needs.as_ref().unwrap().len(), 0);
    let retry = a.policy.retry.clone().unwrap();
    assert_eq!((retry.max_attempts, retry.on_exhausted), (5, Exhausted::Hold));
    assert_eq!(retry.max_interval, Duration::from_mins(2), "never shorter than the first");
    assert_eq!(retry.retry_on, Some(vec![RetryOn::Transient, RetryOn::ExitCode(75)]));
    let Rollback::Step { uses: undo, condition: RollbackIf::Succeeded } = &a.rollback else { panic!() };
    assert_eq!(undo.with.to_json(), json!({"script": "undo"}));
    assert!(!a.irreversible.as_ref().unwrap().value);
    assert_eq!(a.locks[0].text(), "one");
    let b = &p.steps[1];
    assert_eq!(b.needs.as_ref().unwrap()[0].value, "a");
    let each = b.for_each.as_ref().unwrap();
    assert_eq!((each.as_name.as_str(), each.max_parallel, each.fail_fast), ("host", Some(2), true));
    assert_eq!(each.items.literal(), Some(&json!({"x": 1})));
    assert_eq!(b.on_failure.as_ref().unwrap().value, OnFailure::Rollback);
    assert!(matches!(b.rollback, Rollback::None));
    let Action::Block(inner) = &b.action else { panic!() };
    assert_eq!(inner.iter().map(|s| s.id.value.as_str()).collect::<Vec<_>>(), ["a", "shell-2"]);
    assert_eq!(b.outputs[0].0.value, "x");
    let c = &p.steps[2];
    assert_eq!((c.id.value.as_str(), c.id_given, c.needs.is_none()), ("shell-3", false, true));
}

#[test]
fn made_ids_give_way_to_given_ones() {
    let p = with_steps("  - run: echo\n  - { id: shell-1, run: echo }\n  - { uses: k8s.Rollout_x, with: {} }\n");
    let ids: Vec<_> = p.steps.iter().map(|s| s.id.value.as_str()).collect();
    assert_eq!(ids, ["shell-1-2", "shell-1", "k8s-rollout-x-3"]);
}

#[test]
fn a_playbook_may_be_json() {
    let p = good(r#"{"runback": 1, "name": "j", "steps": [{"id": "a", "run": "echo \"hi\"\n"}]}"#);
    assert_eq!(uses(&p.steps[0]).with.to_json()["script"], "echo \"hi\"\n");
}

#[test]
fn blocks_as_deep_as_yaml_allows() {
    // A step is a list and a map; the playbook's own map and the map of the innermost step are the rest.
    let depth = (yaml::MAX_DEPTH - 1) / 2 - 1;
    let step = "{steps: [".repeat(depth) + "{run: echo}" + &"]}".repeat(depth);
    let p = good(&format!("runback: 1\nname: t\nsteps: [{step}]\n"));
    assert!(matches!(p.steps[0].action, Action::Block(_)));
}

#[test]
fn broken_steps_keep_their_ids() {
    let text =
        "runback: 1\nname: t\nsteps:\n  - { id: a, uses: 5 }\n  - { id: b, run: \"{{\" }\n  - { id: C, needs: a }\n";
    let node = yaml::parse(SourceId(0), text).unwrap();
    let (playbook, diagnostics) = lower(SourceId(0), text, &node);
    assert!(diagnostics.len() >= 4, "{diagnostics:#?}");
    let steps = playbook.unwrap().steps;
    assert_eq!(steps.iter().map(|s| s.id.value.as_str()).collect::<Vec<_>>(), ["a", "b", "C"]);
    assert_eq!(uses(&steps[1]).with_template.literal(), Some(&json!({"script": "{{"})));
}

/// Any tree under any key: what is wrong is told, nothing panics, and labels are in the text.
fn value() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        (-3..300_i64).prop_map(Json::from),
        Just(json!(1.5)),
        proptest::sample::select(vec![
            "",
            "a",
            "local",
            "auto",
            "1m",
            "root@h:1",
            "{{ x",
            "{{ inputs.a }}",
            "@daily",
            "* * * * *",
            "é",
            "-"
        ])
        .prop_map(Json::from),
    ];
    let key = proptest::sample::select(
        PLAYBOOK
            .known
            .iter()
            .copied()
            .chain([
                "id", "uses", "with", "run", "needs", "for_each", "rollback", "retry", "items", "as", "key", "ssh",
                "group", "type", "default", "options", "min", "max", "pattern", "cron", "timezone", "start_at",
                "end_at", "command", "file", "env", "x",
            ])
            .collect::<Vec<_>>(),
    );
    leaf.prop_recursive(5, 40, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            proptest::collection::vec((key.clone(), inner), 0..6)
                .prop_map(|pairs| pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn any_tree_is_lowered_or_explained(value in value()) {
        let text = serde_json::to_string_pretty(&value).unwrap();
        let node = yaml::parse(SourceId(0), &text).unwrap();
        let (playbook, diagnostics) = lower(SourceId(0), &text, &node);
        prop_assert!(playbook.is_some() || !diagnostics.is_empty());
        for label in diagnostics.iter().flat_map(|d| &d.labels) {
            prop_assert!(text.get(label.span.start as usize..label.span.end as usize).is_some());
        }
    }

    #[test]
    fn any_cron_text_is_read_or_refused(text in "[0-9*,/LW#?@A-Za-z -]{0,24}|([0-9*/,-]{1,4} ){4,6}[A-Z0-9#]{1,3}") {
        if let Ok(cron) = schedule::parse_cron(&text) {
            schedule::fires(&cron);
        }
    }
}

#[test]
fn a_long_list_is_lowered_like_a_short_one() {
    let text = |steps: std::ops::Range<usize>| {
        let mut text = "runback: 1\nname: t\nsteps:\n".to_owned();
        for i in steps {
            let wrong = if i % 500 == 7 { "    retires: 3\n    timeout: soon\n" } else { "" };
            text += &format!("  - id: s{i}\n    uses: set\n    with: {{ v: [{i}] }}\n{wrong}");
        }
        text
    };
    let read = |text: &str| lower(SourceId(0), text, &yaml::parse(SourceId(0), text).unwrap());
    let (playbook, told) = read(&text(0..2500));
    let playbook = playbook.unwrap();
    let (mut steps, mut messages) = (Vec::new(), Vec::new());
    for short in (0..5).map(|i| i * 500..(i + 1) * 500) {
        let (playbook, told) = read(&text(short));
        steps.extend(playbook.unwrap().steps);
        messages.extend(told.into_iter().map(|d| (d.message, d.help)));
    }
    assert_eq!(messages.len(), 10);
    assert_eq!(told.into_iter().map(|d| (d.message, d.help)).collect::<Vec<_>>(), messages);
    let seen = |steps: &[Step]| {
        let with = |s: &Step| uses(s).with_template.literal().cloned();
        steps.iter().map(|s| (s.id.value.clone(), with(s))).collect::<Vec<_>>()
    };
    assert_eq!(seen(&playbook.steps), seen(&steps));
}
