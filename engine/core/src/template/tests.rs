#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::disallowed_methods, reason = "a real shell is the judge of what is quoted")]

use std::fmt::Write as _;

use proptest::prelude::*;
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

/// What the helpers table of docs/reference/templates.md says.
#[test]
fn helpers() {
    for (text, expected) in [
        ("{{quote inputs.path}}", json!("'/srv/a b.txt'")),
        ("{{quote inputs.hosts}}", json!("a b")),
        ("ls {{quote inputs.path}}", json!("ls '/srv/a b.txt'")),
        ("{{json inputs.map}}", json!(r#"{"k1":"v1","k2":"v2"}"#)),
        ("x={{json inputs.hosts}}", json!(r#"x=["a","b"]"#)),
        ("{{json_pretty inputs.hosts}}", json!("[\n  \"a\",\n  \"b\"\n]")),
        ("{{default inputs.gone 5}}", json!(5)),
        ("{{default inputs.nothing inputs.gone \"z\"}}", json!("z")),
        ("{{default inputs.empty \"z\"}}", json!("")),
        ("{{join inputs.hosts \", \"}}", json!("a, b")),
        ("{{split \"a,b\" \",\"}}", json!(["a", "b"])),
        ("{{upper inputs.name}}{{lower \"ÄB\"}}{{trim \" x \"}}", json!("WEBäbx")),
        ("{{replace inputs.name \"w\" \"v\"}}", json!("veb")),
        ("{{length inputs.name}}", json!(3)),
        ("{{len inputs.map}}", json!(2)),
        ("{{first inputs.hosts}}{{last inputs.hosts}}", json!("ab")),
        ("{{basename inputs.path}} {{dirname inputs.path}}", json!("a b.txt /srv")),
        ("{{eq inputs.count 3.0}}", json!(true)),
        ("{{and (ne 1 2) (lt 1 2) (le 2 2) (gt \"b\" \"a\") (ge 2 2)}}", json!(true)),
        ("{{or inputs.gone inputs.dry (not inputs.count)}}", json!(false)),
        ("{{base64 \"hi\"}} {{base64_decode \"aGk=\"}}", json!("aGk= hi")),
        ("{{sha256 \"\"}}", json!("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")),
        ("{{keys inputs.map}}", json!(["k1", "k2"])),
        ("{{values inputs.map}}", json!(["v1", "v2"])),
        ("{{get inputs.map \"k1\"}} {{get inputs.hosts 1}} {{get inputs.map \"k9\" \"-\"}}", json!("v1 b -")),
        ("{{lookup inputs.map (concat \"k\" 2)}}", json!("v2")),
        ("{{concat inputs.name \"-\" inputs.count}}", json!("web-3")),
        ("{{concat inputs.hosts inputs.hosts}}", json!(["a", "b", "a", "b"])),
        ("{{indent \"a\\n\\nb\" 2}}", json!("  a\n\n  b")),
        ("{{regex_replace \"v1.2.3\" \"v([0-9]+)[.].*\" \"major-$1\"}}", json!("major-1")),
        ("{{range 3}}", json!([0, 1, 2])),
        ("{{range 1 3}}", json!([1, 2])),
    ] {
        assert_eq!(render(text), expected, "{text}");
    }
}

#[test]
fn whitespace_control_is_that_of_handlebars() {
    assert_eq!(render("a\n{{#if inputs.name}}\nb\n{{/if}}\nc"), json!("a\nb\nc"));
    assert_eq!(render("a  {{~inputs.name~}}  b"), json!("awebb"));
    assert_eq!(render("  {{inputs.name}}\n\n{{inputs.count}}  "), json!("  web\n\n3  "));
}

#[test]
fn diagnostics() {
    let texts = [
        "a {{ inputs.x",
        "{{}}",
        "{{ inputs.a + 1 }}",
        "{{ inputs.a | upper }}",
        "{{ .State.Running }}",
        "{{#if inputs.a}}x",
        "{{#if inputs.a}}x{{/each}}",
        "{{/if}}",
        "{{else}}",
        "{{> part}}",
        "{{* deco}}",
        "{{#*inline \"x\"}}{{/inline}}",
        "{{ \"abc }}",
        "{{uper inputs.a}}",
        "{{env \"HOME\"}}",
        "{{#foreach inputs.a}}{{/foreach}}",
        "{{#upper inputs.a}}{{/upper}}",
        "{{#if eq inputs.a 1}}x{{/if}}",
        "{{upper}}",
        "{{upper inputs.a inputs.b}}",
        "{{join inputs.a sep=\",\"}}",
        "{{ this }}",
        "{{ @root }}",
        "{{ @index }}",
        "{{#each inputs.a}}{{@foo}}{{../../x}}{{/each}}",
        "{{regex_replace inputs.a \"(\" \"\"}}",
        "{{ inputs.[a }}",
        "{{{{raw}}}} x",
        "{{ inputs. }}",
        "{{ inputs..a }}",
        "{{ inputs.a inputs.b }}",
        "{{if inputs.a}}",
        "{{ a ? b : c }}",
        "{{ inputs.a }} {{ bad one }} {{ worse two }}",
    ];
    let mut told = String::new();
    for text in texts {
        let problems = Template::new(text.to_owned(), Span::default(), |_| Span::default()).err();
        for p in problems.unwrap_or_else(|| panic!("{text} parses")) {
            let marks = "^".repeat(text[p.at.clone()].chars().count().max(1));
            let blanks = " ".repeat(text[..p.at.start].chars().count());
            writeln!(told, "{text}\n{blanks}{marks} {}\n  {} {}", p.label, p.code.name(), p.message).unwrap();
            if let Some((at, label)) = p.also {
                writeln!(told, "  also «{}»: {label}", &text[at]).unwrap();
            }
            if let Some(help) = p.help {
                writeln!(told, "  help: {help}").unwrap();
            }
        }
    }
    insta::assert_snapshot!(told);
}

#[test]
fn errors_point_into_the_file() {
    let file = "x: 'it''s {{ uper inputs.a }}'\n";
    let tree = crate::playbook::yaml::parse(SourceId(0), file).unwrap();
    let errors = Template::parse(file, tree.get("x").unwrap()).unwrap_err();
    let span = errors[0].labels[0].span;
    assert_eq!(&file[span.start as usize..span.end as usize], "uper");
}

#[test]
fn limits() {
    let code = |text: String| Template::new(text, Span::default(), |_| Span::default()).unwrap_err()[0].code.name();
    assert_eq!(code("{{a.b}}".repeat(1_001)), "RB0302");
    assert_eq!(code(format!("{{{{a.b}}}}{}", "x".repeat(70_000))), "RB0302");
    assert_eq!(code("{{#if a}}".repeat(33) + &"{{/if}}".repeat(33)), "RB0302");
    assert_eq!(code(format!("{{{{not {}a{}}}}}", "(not ".repeat(40), ")".repeat(40))), "RB0302");
    assert_eq!(code("{{".repeat(20_000)), "RB0301");
    let deep = "{{#if inputs.name}}".repeat(32) + "x" + &"{{/if}}".repeat(32);
    assert_eq!(render(&deep), json!("x"));
    let many = "{{upper inputs.name}}".repeat(1_000);
    assert_eq!(render(&many).as_str().unwrap().len(), 3_000);
}

#[test]
fn render_errors() {
    let mut told = String::new();
    for text in [
        "{{inputs.gone}}",
        "{{inputs.nmae}}",
        "{{steps.convert.outputs.xlm}}",
        "{{inputs.name.x}}",
        "{{inputs.hosts.5}}",
        "{{nothing.here}}",
        "x {{inputs.hosts}}",
        "x {{inputs.map}}",
        "x {{inputs.nothing}}",
        "x {{keys inputs.map}}",
        "{{upper inputs.hosts}}",
        "{{join inputs.name \",\"}}",
        "{{join inputs.vms \",\"}}",
        "{{first (split inputs.empty \",\")}}",
        "{{get inputs.map \"zz\"}}",
        "{{lt inputs.name 3}}",
        "{{base64_decode \"%%\"}}",
        "{{#each inputs.count}}x{{/each}}",
        "{{#each inputs.gone}}x{{/each}}",
        "{{#each inputs.vms}}{{nmae}}{{/each}}",
        "{{#each inputs.hosts}}{{inputs.gone}}{{/each}}",
        "{{range 100000}}",
        "{{indent inputs.name 500}}",
        "{{split inputs.name \"\"}}",
        "{{#each (range 10000)}}{{#each (range 10000)}}x{{/each}}{{/each}}",
        "{{#each (range 10000)}}{{#each (range 10000)}}{{/each}}{{/each}}",
        "{{eq inputs.gone 1}}",
        "{{length inputs.count}}",
    ] {
        writeln!(told, "{text}\n  {}", fails(text)).unwrap();
    }
    insta::assert_snapshot!(told);
}

#[test]
fn what_a_script_gets_unquoted() {
    let unquoted = |text: &str| -> Vec<String> { parse(text).used_unquoted().map(|r| r.path.join(".")).collect() };
    assert_eq!(unquoted("rm {{inputs.a}} {{quote inputs.b}}"), ["inputs.a"]);
    assert_eq!(
        unquoted("{{upper inputs.a}} {{quote (upper inputs.b)}} {{length inputs.c}} {{base64 inputs.d}}"),
        ["inputs.a"]
    );
    assert_eq!(unquoted("{{#if inputs.a}}{{#eq inputs.b 1}}x{{/eq}}{{/if}}"), Vec::<String>::new());
    assert_eq!(unquoted("{{#each inputs.l}}{{quote this}}{{/each}}"), Vec::<String>::new());
    assert_eq!(unquoted("{{#each inputs.l}}{{this}}{{name}}{{/each}}"), ["inputs.l"]);
    assert_eq!(unquoted("{{#each inputs.l as |x|}}{{#each x.y}}{{this}}{{/each}}{{/each}}"), ["inputs.l"]);
    assert_eq!(unquoted("{{#with steps.a.outputs}}{{x}}{{/with}}"), ["steps.a.outputs.x"]);
}

fn tree(text: &str) -> Node {
    crate::playbook::yaml::parse(SourceId(0), text).unwrap()
}

#[test]
fn values_collapse_where_nothing_is_a_template() {
    let text = "a: [1, x, {b: null, c: 1.5}]\nd: '{{inputs.count}}'\ne: ['\\{{x}}']\n";
    let value = ValueTemplate::compile(text, &tree(text)).unwrap();
    assert_eq!(value.get("a").unwrap().literal().unwrap(), &json!([1, "x", {"b": null, "c": 1.5}]));
    assert_eq!(value.get("e").unwrap().literal().unwrap(), &json!(["{{x}}"]));
    assert!(!value.is_literal() && value.get("nothing").is_none());
    assert_eq!(
        value.render(&context()).unwrap(),
        json!({"a": [1, "x", {"b": null, "c": 1.5}], "d": 3, "e": ["{{x}}"]})
    );
    let mut seen = Vec::new();
    value.for_each_reference(&mut |r| seen.push(r.path.join(".")));
    assert_eq!(seen, ["inputs.count"]);
}

#[test]
fn all_errors_of_a_value_are_told() {
    let text = "a: '{{'\n'{{k}}': 1\nb: ['{{upper}}', x]\n";
    let errors = ValueTemplate::compile(text, &tree(text)).unwrap_err();
    let told: Vec<_> = errors.iter().map(|d| (d.code.name(), d.message.as_str())).collect();
    insta::assert_debug_snapshot!(told);
}

#[test]
fn shapes() {
    assert_eq!(shape("a"), Shape::Literal);
    assert_eq!(shape("\\{{a}}"), Shape::Literal);
    assert_eq!(shape("{{a}}"), Shape::Whole);
    assert_eq!(shape("{{concat \"}}\" a}}"), Shape::Whole);
    assert_eq!(shape(" {{a}}"), Shape::Mixed);
    assert_eq!(shape("{{a}}{{b}}"), Shape::Mixed);
    assert_eq!(shape("{{#if a}}1{{/if}}"), Shape::Mixed);
}

#[test]
fn quoted_words_come_through_a_shell_as_they_are() {
    for word in ["", "a b", "it's", "$HOME `id` \"x\"", "-n", "a\nb\\", "*", "ä;|&<>", "!x", "~"] {
        let context = json!({"inputs": {"x": word, "l": [word, "z"]}});
        let script = parse("printf '%s.' {{quote inputs.x}} {{quote inputs.l}}").render_string(&context).unwrap();
        let out = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8(out.stdout).unwrap(), format!("{word}.{word}.z."));
    }
}

fn template_like() -> impl Strategy<Value = String> {
    let parts = vec![
        "{{",
        "}}",
        "{{{",
        "}}}",
        "{{{{",
        "}}}}",
        "{{#if ",
        "{{/if}}",
        "{{#each ",
        "{{/each}}",
        "{{#with ",
        "{{/with}}",
        "{{else}}",
        "{{else if ",
        "{{^}}",
        "{{!-- ",
        "--}}",
        "{{! ",
        "\\",
        "\\\\",
        "~",
        "#",
        "/",
        "&",
        ">",
        "*",
        "^",
        "inputs.name",
        "inputs.hosts",
        "this",
        "..",
        "../",
        ".",
        "@index",
        "@root.inputs",
        "@../key",
        "[0]",
        "[my key]",
        "(",
        ")",
        "upper ",
        "default ",
        "eq ",
        "1",
        "-1.5",
        "\"s\"",
        "'q'",
        "\"",
        "as |x y|",
        "|",
        "x=",
        "true",
        "null",
        "{\"a\":1}",
        "[1,2]",
        " ",
        "\n",
        "text",
        "é",
        "😀",
        "{{{{raw}}}}",
        "{{{{/raw}}}}",
        "{{inputs.name}}",
        "{{#if inputs.name}}",
        "{{#each inputs.hosts}}",
        "{{~else~}}",
        "\t",
        "\r\n",
    ];
    prop::collection::vec(prop::sample::select(parts), 0..24).prop_map(|v| v.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn parse_never_panics(text in "\\PC*") {
        let _ = Template::parse_text(&text);
    }

    #[test]
    fn no_panic_on_what_looks_like_a_template(text in template_like()) {
        let _ = shape(&text);
        if let Ok(template) = Template::parse_text(&text) {
            let _ = template.render(&context());
            for r in template.references() {
                prop_assert!(text.get(r.span.start as usize..r.span.end as usize).is_some());
            }
            if shape(&text) == Shape::Literal {
                prop_assert!(template.literal().is_some());
            }
            prop_assert_eq!(shape(&text) == Shape::Whole, template.is_whole(), "{}", text);
        }
    }

    #[test]
    fn literal_text_renders_to_itself(text in "\\PC*") {
        prop_assume!(!text.contains("{{"));
        prop_assert_eq!(render(&text), json!(text));
    }

    /// Values are never read as templates again, and never escaped.
    #[test]
    fn values_come_through(value in "\\PC*") {
        let context = json!({"inputs": {"x": value.clone()}});
        prop_assert_eq!(parse("{{inputs.x}}").render(&context).unwrap(), json!(value.clone()));
        prop_assert_eq!(parse("a{{inputs.x}}{{#if inputs.x}}{{/if}}").render(&context).unwrap(), json!(format!("a{value}")));
    }

    /// Read in parts or as a whole (a tilde asks for that), a template means the same.
    #[test]
    fn parts_mean_what_the_whole_means(parts in prop::collection::vec(prop::sample::select(vec![
        " ", "\n", "a", "\r\n", "\t", "{{inputs.name}}", "{{ upper inputs.count }}", "  ", "{{#if inputs.name}}", "{{/if}}", "{{else}}", "{{!-- c --}}", "{{! c\n}}",
        "{{#each inputs.hosts}}", "{{/each}}", "\\{{", "\\\\{{inputs.name}}", "{{{{raw}}}}\n{{x}}\n{{{{/raw}}}}", "\n{{#if inputs.dry}}\n", "\n{{/if}}\n",
    ]), 0..14)) {
        let text = parts.concat();
        let whole = format!("{text}.{{{{~inputs.name}}}}");
        if let (Ok(parted), Ok(whole)) = (Template::parse_text(&format!("{text}.")), Template::parse_text(&whole)) {
            let parted = parted.render_string(&context()).unwrap();
            prop_assert_eq!(parted + "web", whole.render_string(&context()).unwrap(), "{:?}", text);
        }
    }
}
