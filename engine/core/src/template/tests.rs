#![expect(clippy::unwrap_used, reason = "tests")]

use serde_json::json;

use super::*;
use crate::playbook::yaml::{NodeValue, Style};
use crate::span::SourceId;

fn node(text: &str) -> Node {
    Node { span: Span::new(SourceId(0), 0, text.len()), value: NodeValue::Str(text.into(), Style::Plain) }
}

#[track_caller]
fn parse(text: &str) -> Template {
    Template::parse(text, &node(text)).unwrap_or_else(|e| panic!("{text}: {e:#?}"))
}

fn context() -> Json {
    json!({
        "inputs": {
            "name": "web", "count": 3, "ratio": 1.5, "dry": false, "nothing": null, "empty": "", "path": "/srv/a b.txt",
            "hosts": ["a", "b"], "vms": [{"name": "x", "cpus": 2}, {"name": "y", "cpus": 4}],
            "map": {"k1": "v1", "k2": "v2"}, "my key": 1,
        },
        "steps": {
            "convert": {"outputs": {"xml": "<vm/>", "disks": ["d0", "d1"]}, "status": "succeeded"},
            "ssh-answers": {"outputs": {"port": 22}},
        },
    })
}

#[track_caller]
fn render(text: &str) -> Json {
    parse(text).render(&context()).unwrap_or_else(|e| panic!("{text}: {e}"))
}

#[track_caller]
fn fails(text: &str) -> String {
    parse(text).render(&context()).unwrap_err().message
}

fn paths(text: &str) -> Vec<String> {
    parse(text)
        .references()
        .iter()
        .map(|r| format!("{}{}", r.path.join("."), if r.optional { "?" } else { "" }))
        .collect()
}

#[test]
fn a_lone_expression_keeps_its_type() {
    assert_eq!(render("{{ inputs.count }}"), json!(3));
    assert_eq!(render("{{inputs.hosts}}"), json!(["a", "b"]));
    assert_eq!(render("{{{inputs.map}}}"), json!({"k1": "v1", "k2": "v2"}));
    assert_eq!(render("{{& inputs.dry}}"), json!(false));
    assert_eq!(render("{{length inputs.hosts}}"), json!(2));
    assert_eq!(render("{{ (keys inputs.map) }}"), json!(["k1", "k2"]));
    assert_eq!(render("{{inputs.nothing}}"), Json::Null);
    assert_eq!(render(" {{inputs.count}}"), json!(" 3"));
    assert_eq!(parse("{{inputs.count}}").render_string(&context()).unwrap(), "3");
}

#[test]
fn paths_of_every_form() {
    assert_eq!(render("{{steps.ssh-answers.outputs.port}}"), json!(22));
    assert_eq!(render("{{steps.[ssh-answers].outputs.port}}"), json!(22));
    assert_eq!(render("{{inputs.[my key]}}"), json!(1));
    assert_eq!(render("{{inputs.hosts.[1]}}"), json!("b"));
    assert_eq!(render("{{inputs.hosts.1}}"), json!("b"));
    assert_eq!(render("{{inputs/name}}"), json!("web"));
    assert_eq!(render("{{@root.inputs.name}}"), json!("web"));
    assert_eq!(
        paths("{{steps.[ssh-answers].outputs.x}} {{@root.inputs.a}}"),
        ["steps.ssh-answers.outputs.x", "inputs.a"]
    );
}

#[test]
fn text_and_blocks() {
    assert_eq!(render("a {{inputs.name}} b {{inputs.count}} c"), json!("a web b 3 c"));
    assert_eq!(render("{{#if inputs.dry}}dry{{else}}wet{{/if}}"), json!("wet"));
    assert_eq!(render("{{#unless inputs.dry}}wet{{/unless}}"), json!("wet"));
    assert_eq!(render("{{#if (eq inputs.name \"web\")}}yes{{/if}}"), json!("yes"));
    assert_eq!(render("{{#eq inputs.count 3}}yes{{else}}no{{/eq}}"), json!("yes"));
    assert_eq!(render("{{#if inputs.dry}}1{{else if inputs.name}}2{{else}}3{{/if}}"), json!("2"));
    assert_eq!(
        render("{{#each inputs.hosts}}{{@index}}={{this}}{{#unless @last}},{{/unless}}{{/each}}"),
        json!("0=a,1=b")
    );
    assert_eq!(render("{{#each inputs.map}}{{@key}}={{this}};{{/each}}"), json!("k1=v1;k2=v2;"));
    assert_eq!(
        render("{{#each inputs.vms as |vm i|}}{{i}}{{vm.name}}{{../inputs.name}}{{/each}}"),
        json!("0xweb1yweb")
    );
    assert_eq!(render("{{#each inputs.vms}}{{name}}:{{cpus}}:{{inputs.name}} {{/each}}"), json!("x:2:web y:4:web "));
    assert_eq!(
        render("{{#with steps.convert.outputs}}{{xml}}{{#each disks}}{{this}}{{../xml}}{{/each}}{{/with}}"),
        json!("<vm/>d0<vm/>d1<vm/>")
    );
    assert_eq!(
        render("{{#each inputs.hosts}}{{#each ../inputs.vms}}{{../this}}{{name}}{{@../index}} {{/each}}{{/each}}"),
        json!("ax0 ay0 bx1 by1 ")
    );
    assert_eq!(
        render(
            "{{#each inputs.empty_or}}x{{/each}}{{!-- c --}}"
                .replace("inputs.empty_or", "(split inputs.empty \",\")")
                .as_str()
        ),
        json!("")
    );
}

#[test]
fn escapes_write_braces() {
    assert_eq!(
        render(r"docker ps --format '\{{.Names}}' {{inputs.name}}"),
        json!("docker ps --format '{{.Names}}' web")
    );
    assert_eq!(render(r"C:\\{{inputs.name}}"), json!(r"C:\web"));
    assert_eq!(render("{{{{raw}}}}{{ .State }}{{{{/raw}}}}"), json!("{{ .State }}"));
    assert_eq!(parse(r"\{{x}}").literal().unwrap(), "{{x}}");
}

#[test]
fn references_are_listed_from_the_root() {
    assert_eq!(
        paths("{{inputs.a}}{{#if steps.x.outputs.b}}{{default inputs.c inputs.d}}{{/if}}"),
        ["inputs.a", "steps.x.outputs.b?", "inputs.c?", "inputs.d"]
    );
    assert_eq!(
        paths("{{#each inputs.vms as |vm|}}{{vm.name}}{{@index}}{{steps.q.outputs.z}}{{../inputs.p}}{{/each}}"),
        ["inputs.vms", "steps.q.outputs.z", "inputs.p"]
    );
    assert_eq!(
        paths("{{#with steps.a.outputs as |o|}}{{o.x}}{{y}}{{/with}}"),
        ["steps.a.outputs", "steps.a.outputs.x", "steps.a.outputs.y"]
    );
}
