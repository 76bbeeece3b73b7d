#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::playbook::yaml::Style;
use crate::span::SourceId;

fn node(text: &str) -> Node {
    Node { span: Span::new(SourceId(0), 0, text.len()), value: NodeValue::Str(text.into(), Style::Plain) }
}

#[track_caller]
fn parse(text: &str) -> Expr {
    Expr::parse(text, &node(text)).unwrap_or_else(|e| panic!("{text}: {e:#?}"))
}

fn context() -> Json {
    json!({
        "inputs": {"name": "web", "count": 3, "ratio": 1.5, "dry": false, "nothing": null, "hosts": ["a", "b"],
                   "map": {"k": 1}, "my key": "v", "zero": 0},
        "steps": {"probe": {"outputs": {"locked": true, "items": [{"ok": true, "n": 1}, {"ok": false, "n": 2}]}},
                  "ssh-answers": {"outputs": {"port": 22}, "status": "succeeded"}},
    })
}

#[track_caller]
fn eval(text: &str) -> Json {
    parse(text).eval(&context()).unwrap_or_else(|e| panic!("{text}: {e}"))
}

#[test]
fn values() {
    for (text, expected) in [
        ("steps.probe.outputs.locked && !inputs.dry", json!(true)),
        ("1 + 2 * 3 - -1", json!(8)),
        ("(1 + 2) * 3", json!(9)),
        ("7 / 2", json!(3)),
        ("-7 % 3", json!(-1)),
        ("7 / 2.0", json!(3.5)),
        ("inputs.ratio * 2", json!(3.0)),
        ("1 == 1.0", json!(true)),
        ("inputs.count >= 3 && inputs.count < 4.5", json!(true)),
        ("inputs.count > 3 ? \"many\" : inputs.count > 2 ? 'some' : \"few\"", json!("some")),
        ("\"a\" in inputs.hosts && !(\"c\" in inputs.hosts)", json!(true)),
        ("\"k\" in inputs.map", json!(true)),
        ("inputs.nothing == null && inputs.name != null", json!(true)),
        ("inputs[\"my key\"]", json!("v")),
        ("inputs.hosts[1]", json!("b")),
        ("inputs.hosts[size(inputs.hosts) - 1]", json!("b")),
        ("steps.ssh-answers.outputs.port == 22", json!(true)),
        ("steps[\"ssh-answers\"].status == 'succeeded'", json!(true)),
        ("steps.ssh-answers.outputs.port - 2", json!(20)),
        ("steps.ssh-answers.outputs.port-2", json!(20)),
        ("has(inputs.name) && !has(inputs.missing) && !has(steps.gone.outputs.x)", json!(true)),
        ("size('äb') + size([1]) + inputs.map.size()", json!(4)),
        ("inputs.name.startsWith('w') && inputs.name.endsWith('b') && inputs.name.contains('e')", json!(true)),
        ("inputs.name.matches('^[a-z]+$') && matches(inputs.name, r'\\w')", json!(true)),
        ("inputs.name.upperAscii() + string(inputs.count) + string(true)", json!("WEB3true")),
        ("int('42') + int(1.9)", json!(43)),
        ("double('1.5')", json!(1.5)),
        ("bool('true')", json!(true)),
        ("[1, 2] + [3]", json!([1, 2, 3])),
        ("{'a': 1, 'b': [inputs.count]}", json!({"a": 1, "b": [3]})),
        ("{'a': 1}.a", json!(1)),
        ("steps.probe.outputs.items.all(i, i.n > 0)", json!(true)),
        ("steps.probe.outputs.items.exists(i, i.ok)", json!(true)),
        ("steps.probe.outputs.items.exists_one(i, i.ok)", json!(true)),
        ("steps.probe.outputs.items.filter(i, i.ok).map(i, i.n + inputs.count)", json!([4])),
        ("[1, 2].map(x, [10, 20].map(y, x * y))", json!([[10, 20], [20, 40]])),
        ("' a,b '.trim().split(',').join('-')", json!("a-b")),
        ("type(1) + type(1.0) + type(null)", json!("intdoublenull")),
        ("'tab\\t\\x41\\u00e9\\\"'", json!("tab\tAé\"")),
        ("0x1F", json!(31)),
        ("1e3", json!(1000.0)),
        ("true // why\n && true", json!(true)),
        ("true || inputs.missing", json!(true)),
        ("false && inputs.missing", json!(false)),
        ("18446744073709551615 > 1".replace("18446744073709551615", "9223372036854775807").as_str(), json!(true)),
    ] {
        assert_eq!(eval(text), expected, "{text}");
    }
}

#[test]
fn scalars_of_other_types_count_as_their_text() {
    let literal = |value| Expr::parse("x", &Node { span: Span::default(), value }).unwrap();
    assert!(literal(NodeValue::Bool(true)).eval_bool(&json!({})).unwrap());
    assert_eq!(literal(NodeValue::Int(3)).eval(&json!({})).unwrap(), json!(3));
}

#[test]
fn references_from_the_root() {
    let list = |text: &str| -> Vec<String> {
        let expr = parse(text);
        let told = |r: &Reference| {
            let source = &text[r.span.start as usize..r.span.end as usize];
            format!("{}{} «{source}»", r.path.join("/"), if r.optional { "?" } else { "" })
        };
        expr.references().iter().map(told).collect()
    };
    insta::assert_debug_snapshot!([
        list("steps.probe.outputs.locked && !inputs.dry"),
        list("steps.ssh-answers.outputs.x - inputs.y"),
        list("steps[\"a-b\"].outputs['x y'][0].z > 1"),
        list("has(steps.a.outputs.x) && steps.a.outputs.x"),
        list("inputs.list.all(i, i.name == inputs.name)"),
        list("inputs.map[inputs.key].x"),
        list("inputs.name.startsWith(run.id)"),
    ]);
}

#[test]
fn diagnostics() {
    let texts = [
        "",
        "inputs.a ==",
        "inputs.a = 1",
        "inputs.a === 1",
        "a ? b",
        "'abc",
        "size(1",
        "a &&& c",
        "x & y",
        "x in",
        "1 +* 2",
        "size()",
        "sise(inputs.a)",
        "inputs.a.foo()",
        "inputs.a and inputs.b",
        "not inputs.a",
        "True",
        "inputs.my-key == 1",
        "{{ inputs.a }}",
        "\"{{ inputs.a }}\" == \"x\"",
        "1 < 2 < 3",
        "inputs.",
        "inputs.5",
        "10m > 5",
        "99999999999999999999",
        "\"\\d\"",
        "'a'.matches('(')",
        "has(1)",
        "inputs.l.all(x)",
        "inputs.l.all(1, x)",
        "[1, 2",
        "{'a' 1}",
        "$x",
        "inputs.a b",
        "all(inputs.l, x, x)",
        "\"\\ud800\"",
        "π",
        "(1 + 2",
    ];
    let mut told = String::new();
    for text in texts {
        let problems = parse::parse(text).err().unwrap_or_else(|| panic!("{text} parses"));
        for p in problems {
            use std::fmt::Write as _;
            writeln!(
                told,
                "{text}\n{}{}\n  {} {}: {}",
                " ".repeat(text[..p.at.start].chars().count()),
                "^".repeat(p.at.len().max(1)),
                p.code.name(),
                p.message,
                p.label
            )
            .unwrap();
            if let Some((at, label)) = p.also {
                writeln!(told, "  also {at:?}: {label}").unwrap();
            }
            if let Some(help) = p.help {
                writeln!(told, "  help: {help}").unwrap();
            }
        }
    }
    insta::assert_snapshot!(told);
}

#[test]
fn limits() {
    let code = |text: &str| parse::parse(text).unwrap_err()[0].code;
    for text in [
        format!("{}1{}", "(".repeat(5_000), ")".repeat(5_000)),
        "!".repeat(5_000) + "true",
        "[".repeat(5_000),
        vec!["1"; 5_000].join("+"),
        format!("a{}", ".b[x]".repeat(2_000)),
        "a".repeat(20_000),
        "a ? ".repeat(3_000),
    ] {
        assert_eq!(code(&text), Code::TemplateTooLarge);
    }
    assert_eq!(parse(&vec!["true"; 2_000].join(" && ")).eval(&json!({})).unwrap(), json!(true));
}

#[test]
fn work_is_bounded() {
    let ten = "[1,2,3,4,5,6,7,8,9,10]";
    let mut text = "1".to_owned();
    for v in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        text = format!("{ten}.map({v}, {text})");
    }
    assert_eq!(parse(&text).eval(&json!({})).unwrap_err().message, "the expression takes too long");
}

#[test]
fn evaluation_errors() {
    let mut told = String::new();
    for text in [
        "inputs.missing == 1",
        "inputs.naem == 'x'",
        "steps.ssh-answer.status",
        "inputs.name.x",
        "inputs.hosts[7]",
        "inputs.count && true",
        "!inputs.name",
        "inputs.hosts ? 1 : 2",
        "inputs.count == '3'",
        "inputs.dry == 'false'",
        "inputs.name < 3",
        "1 + 'a'",
        "'a' - 'b'",
        "1 / inputs.zero",
        "9223372036854775807 * 9223372036854775807",
        "1e308 * 10",
        "'a' in 'abc'",
        "1 in inputs.map",
        "size(1)",
        "1.startsWith('a')".replace("1.", "inputs.count.").as_str(),
        "int('x')",
        "bool('yes')",
        "inputs.map.all(k, k)",
        "inputs.count.all(k, true)",
        "{1: 2}",
        "nothing.here",
    ] {
        use std::fmt::Write as _;
        let error = parse(text).eval(&context()).expect_err(text);
        writeln!(told, "{text}\n  {error}").unwrap();
    }
    for text in ["inputs.name", "inputs.count", "inputs.hosts", "inputs.nothing"] {
        use std::fmt::Write as _;
        writeln!(told, "as a condition: {text}\n  {}", parse(text).eval_bool(&context()).unwrap_err()).unwrap();
    }
    insta::assert_snapshot!(told);
}

#[test]
fn text_that_stands_in_no_file() {
    assert_eq!(
        Expr::parse_text("a\n  = 1").unwrap_err(),
        "line 2, column 3: `=` cannot stand in an expression (compare with `==`)"
    );
    assert!(Expr::parse_text("1 < 2").unwrap().eval_bool(&json!({})).unwrap());
}

proptest! {
    #[test]
    fn parse_never_panics(text in "\\PC*") {
        let _ = parse::parse(&text);
    }

    #[test]
    fn no_panic_on_what_looks_like_an_expression(
        parts in prop::collection::vec(prop::sample::select(vec![
            "inputs", "steps", ".", "a-b", "-", "+", "*", "/", "%", "(", ")", "[", "]", "{", "}", ",", ":", "?", "==", "!=",
            "<", "in", "&&", "||", "!", "'s'", "\"\\", "1", "2.5", "9223372036854775807", "true", "null", "has(", "size(", ".all(x,", ".map(x,",
            " ", "é", "matches", "//", "\n",
        ]), 0..30)
    ) {
        let text = parts.concat();
        if let Ok(expr) = Expr::parse(&text, &node(&text)) {
            let _ = expr.eval(&context());
            for r in expr.references() {
                prop_assert!(text.get(r.span.start as usize..r.span.end as usize).is_some());
            }
        }
    }

    #[test]
    fn whole_numbers_compare_exactly(a: i64, b: i64) {
        let context = json!({"a": a, "b": b});
        prop_assert_eq!(parse("a < b").eval(&context).unwrap(), json!(a < b));
        prop_assert_eq!(parse("a == b").eval(&context).unwrap(), json!(a == b));
    }
}
