#![expect(clippy::unwrap_used, reason = "tests")]

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;

fn ok(text: &str) -> Node {
    parse(SourceId(0), text).unwrap_or_else(|d| panic!("{text:?}: {d:#?}"))
}

fn codes(text: &str) -> Vec<&'static str> {
    let (_, diagnostics) = parse_lossy(SourceId(0), text);
    for d in &diagnostics {
        for label in &d.labels {
            let (start, end) = (label.span.start as usize, label.span.end as usize);
            assert!(text.get(start..end).is_some(), "{text:?}: {d:?}");
        }
    }
    diagnostics.iter().map(|d| d.code.name()).collect()
}

fn slice(text: &str, span: Span) -> &str {
    &text[span.start as usize..span.end as usize]
}

#[test]
fn values_and_spans() {
    let text = "\u{feff}# c\na: [1, 'b', {c: ~}]\nd:\n  - x y\n  - |\n    lit\n\n  - e:\n# end\n";
    let node = ok(text);
    assert_eq!(node.to_json(), serde_json::json!({"a": [1, "b", {"c": null}], "d": ["x y", "lit\n", {"e": null}]}));
    assert_eq!(slice(text, node.get("a").unwrap().span), "[1, 'b', {c: ~}]");
    let list = node.get("d").unwrap().as_list().unwrap();
    assert_eq!(slice(text, list[0].span), "x y");
    assert_eq!(slice(text, list[2].span), "e");
    assert_eq!(slice(text, list[2].as_map().unwrap()[0].0.span), "e");
}

#[test]
fn json_is_yaml() {
    let text = "{\n\t\"a\": [1.5, true, null, \"\\ud834\\udd1e\\/\"],\n\t\"b\":{}\n}\n";
    assert_eq!(ok(text).to_json(), serde_json::from_str::<Json>(text).unwrap());
}

#[test]
fn aliases_are_copies_with_the_spans_of_the_anchor() {
    let text = "a: &x {k: [v]}\nb: *x\nc: &y s\nd: [*y, *x]\n";
    let node = ok(text);
    assert_eq!(node.get("a").unwrap(), node.get("b").unwrap());
    assert_eq!(slice(text, node.get("d").unwrap().span), "[*y, *x]");
    assert_eq!(slice(text, node.get("d").unwrap().as_list().unwrap()[0].span), "s");
}

#[test]
fn bounds() {
    let deep = |n: usize| format!("a: {}1{}\n", "[".repeat(n), "]".repeat(n));
    ok(&deep(MAX_DEPTH - 1));
    assert_eq!(codes(&deep(MAX_DEPTH)), ["RB0105"]);
    assert_eq!(codes(&deep(100_000)), ["RB0105"]);
    let block = |n: usize| (0..n).map(|i| "  ".repeat(i) + "a:\n").collect::<Vec<_>>().concat();
    ok(&block(MAX_DEPTH));
    assert_eq!(codes(&block(MAX_DEPTH + 1)), ["RB0105"]);

    let mut bomb = "a0: &a0 [x]\n".to_owned();
    for i in 1..30 {
        writeln!(bomb, "a{i}: &a{i} [{}]", vec![format!("*a{}", i - 1); 9].join(",")).unwrap();
    }
    assert_eq!(codes(&bomb), ["RB0105"]);

    let mut chain = "a0: &a0 [x]\n".to_owned();
    for i in 1..MAX_DEPTH {
        writeln!(chain, "a{i}: &a{i} [*a{}]", i - 1).unwrap();
    }
    assert_eq!(codes(&chain), ["RB0105"], "aliases do not get around the depth");

    let long = format!("a: &a \"{}\"\nb: [{}]\n", "x".repeat(1 << 20), vec!["*a"; 2000].join(","));
    assert_eq!(codes(&long), ["RB0105"], "nor does one long string");
}

#[test]
fn mistakes_are_told_at_once() {
    let text =
        "a: 1\na: 2\nb: {{ x }}\nc: !foo 3\nd: 99999999999999999999\n<<: *nope\ne: {{ y }}/z\nf: [{{p}}{{q}}, {{r}}]\n";
    assert_eq!(codes(text), ["RB0103", "RB0112", "RB0108", "RB0109", "RB0110", "RB0111", "RB0112", "RB0112", "RB0112"]);
    let (node, _) = parse_lossy(SourceId(0), text);
    let node = node.unwrap();
    assert_eq!(node.get("a").unwrap().to_json(), 1);
    assert_eq!(node.get("b").unwrap().as_str(), Some("{{ x }}"));
    assert_eq!(node.get("e").unwrap().as_str(), Some("{{ y }}/z"));
    assert_eq!(node.get("f").unwrap().to_json(), serde_json::json!(["{{p}}{{q}}", "{{r}}"]));
}

#[test]
fn templates_that_are_not_yaml_at_all() {
    for text in [
        "a: {{#if x}}y{{/if}}\nb: 1\n",
        "- {{ a \"b\" }} c\n",
        "x: {y: {{ a }}/b, z: 1}\n",
        "a: {{{x}}}\n",
        "a: {{ x\n",
    ] {
        assert_eq!(codes(text), ["RB0112"], "{text}");
    }
    ok("run: echo {{ x }}\nb: |\n  {{ y }}\n");
}

#[test]
fn all_tabs_are_told() {
    let (_, told) = parse_lossy(SourceId(0), "a:\n\tb: 1\n\tc: 1\n");
    assert_eq!(told.iter().map(|d| (d.code.name(), d.labels.len())).collect::<Vec<_>>(), [("RB0102", 2)]);
    assert_eq!(codes("a: 1\n  \tb: 2\n"), ["RB0102"]);
    assert_eq!(codes("a: |\n\tfoo\n"), ["RB0102"]);
    ok("a:\t1\nb: 'x\ty'\n");
}

#[test]
fn only_one_document() {
    ok("---\na: 1\n...\n");
    assert_eq!(codes("a: 1\n---\nb: [\n"), ["RB0104"]);
    for text in ["", "\n", "# only\n", "\u{feff}"] {
        assert_eq!(codes(text), ["RB0107"], "{text:?}");
    }
}

#[test]
fn not_utf8() {
    assert_eq!(decode(SourceId(0), "é".into()).unwrap(), "é");
    let (text, diagnostic) = decode(SourceId(0), b"a: \xe4b\n".to_vec()).unwrap_err();
    assert_eq!(text, "a: \u{fffd}");
    assert_eq!(diagnostic.message, "the file is not UTF-8: byte 0xe4 at offset 3");
    assert_eq!(slice(&text, diagnostic.labels[0].span), "\u{fffd}");
    let utf16: Vec<u8> = [0xff, 0xfe, b'a', 0].to_vec();
    assert!(decode(SourceId(0), utf16).unwrap_err().1.help.unwrap().contains("UTF-16"));
}

/// Each decoded character with the text that it came from.
fn chars(text: &str, node: &Node) -> Vec<(char, String)> {
    let mut found = Vec::new();
    inner::each_char(text, node, &mut |c, range| {
        found.push((c, text[range].to_owned()));
        true
    });
    found
}

#[track_caller]
fn assert_maps(text: &str, node: &Node) {
    let NodeValue::Str(decoded, style) = &node.value else { return };
    let mapped = chars(text, node);
    if mapped.is_empty() && decoded.bytes().all(|b| b == b'\n') {
        return;
    }
    assert_eq!(mapped.iter().map(|(c, _)| *c).collect::<String>(), **decoded, "{style:?} in {text:?}");
    for (c, raw) in mapped {
        let same = raw == c.to_string();
        let fold = (c == ' ' || c == '\n') && matches!(raw.as_str(), "\n" | "\r\n" | "\r");
        let escape = *style == Style::DoubleQuoted && raw.starts_with('\\');
        let quote = *style == Style::SingleQuoted && c == '\'' && raw == "''";
        // A last line without a break: the parser gives it one.
        let end = c == '\n' && raw.is_empty();
        assert!(same || fold || escape || quote || end, "{c:?} from {raw:?} ({style:?}) in {text:?}");
    }
}

#[test]
fn inner_spans_by_style() {
    let text = concat!(
        "plain: one {{ a }}\n   two\n\n   {{ b }}\n",
        "single: 'it''s {{ a }}\n\n  x  \n  {{ b }}'\n",
        "double: \"\\u00e9\\x41 {{ a }} \\\n   z\\n{{ b }}\"\n",
        "literal: |2-\n\n     {{ a }}\n  {{ b }}\n\n",
        "folded: >\n\n   x {{ a }}\n   y\n\n     more\n    {{ b }}\n   end\n",
        "quoted: \"{{ a }} {{ b }}\"\n",
    );
    let node = ok(text);
    for (_, value) in node.as_map().unwrap() {
        let decoded = value.as_str().unwrap();
        for needle in ["{{ a }}", "{{ b }}"] {
            let at = decoded.find(needle).unwrap();
            assert_eq!(slice(text, inner_span(text, value, at, at + needle.len())), needle);
            assert_eq!(inner_span(text, value, at, at).len(), 0);
        }
        assert_maps(text, value);
    }
}

fn nests(node: &Node) -> Result<(), TestCaseError> {
    let inside = |child: &Node| node.span.start <= child.span.start && child.span.end <= node.span.end;
    match &node.value {
        NodeValue::List(items) => {
            for item in items {
                prop_assert!(inside(item), "{item:?} in {node:?}");
                nests(item)?;
            }
        }
        NodeValue::Map(pairs) => {
            for (key, value) in pairs {
                prop_assert!(inside(key) && inside(value), "{key:?}: {value:?} in {node:?}");
                prop_assert!(key.span.end <= value.span.start, "{key:?}: {value:?}");
                nests(key)?;
                nests(value)?;
            }
        }
        _ => {}
    }
    Ok(())
}

fn all_map(text: &str, node: &Node) {
    match &node.value {
        NodeValue::List(items) => items.iter().for_each(|n| all_map(text, n)),
        NodeValue::Map(pairs) => pairs.iter().for_each(|(k, v)| {
            all_map(text, k);
            all_map(text, v);
        }),
        _ => assert_maps(text, node),
    }
}

/// Text that is often YAML.
pub(super) fn yamlish() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("\n"),
        Just("  "),
        Just(" "),
        Just("- "),
        Just("a"),
        Just("b"),
        Just(": "),
        Just(":"),
        Just("{"),
        Just("}"),
        Just("["),
        Just("]"),
        Just(","),
        Just("\""),
        Just("'"),
        Just("\\"),
        Just("|\n"),
        Just(">-\n"),
        Just("|2+\n"),
        Just("é"),
        Just("𝄞"),
        Just("\t"),
        Just("\r\n"),
        Just("# "),
        Just("{{ x }}"),
        Just("!!str "),
        Just("!t "),
        Just("&a "),
        Just("12"),
        Just("---\n"),
        Just("? "),
        Just("<<"),
        Just("a: "),
        Just("\n  "),
        Just("\n\n"),
        Just("\\n"),
        Just("''"),
        Just("%"),
        Just("\u{feff}"),
        Just("*a "),
        Just("0x1"),
        Just("\u{85}"),
        Just("\u{2028}"),
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|v| v.concat())
}

/// Lines for a scalar in any of the styles.
fn lines() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec("[ab é:#'\"\\\\{}-]{0,6}", 1..7)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1500) })]

    #[test]
    fn any_text_parses_or_is_explained(text in yamlish()) {
        let (node, diagnostics) = parse_lossy(SourceId(0), &text);
        prop_assert!(node.is_some() || !diagnostics.is_empty());
        codes(&text);
        if let Some(node) = node && diagnostics.is_empty() {
            if !text.contains("*a") {
                nests(&node)?;
            }
            all_map(&text, &node);
        }
    }

    #[test]
    fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        match decode(SourceId(0), bytes) {
            Ok(text) => { codes(&text); }
            Err((text, diagnostic)) => prop_assert!(text.len() >= diagnostic.labels[0].span.end as usize),
        }
    }

    #[test]
    fn any_string_never_panics(text in "\\PC{0,40}|[ -~\\n\\t]{0,80}") {
        codes(&text);
    }

    #[test]
    fn every_style_maps_back(lines in lines(), style in 0..5, indent in 1..4_usize, chomp in 0..3_usize, explicit: bool, crlf: bool) {
        let pad = " ".repeat(indent);
        let chomp = ["", "-", "+"][chomp];
        let number = if explicit { indent.to_string() } else { String::new() };
        let body = |sep: &str| lines.join(&format!("\n{pad}{sep}"));
        let mut text = match style {
            0 => format!("k: {}\nz: 1\n", body("")),
            1 => format!("k: '{}'\nz: 1\n", body("").replace('\'', "''")),
            2 => format!("k: \"{}\"\nz: 1\n", body("").replace('\\', "\\\\").replace('"', "\\\"")),
            3 => format!("k: |{number}{chomp}\n{pad}{}\nz: 1\n", body("")),
            _ => format!("k: >{number}{chomp}\n{pad}{}\nz: 1\n", body("")),
        };
        if crlf {
            text = text.replace('\n', "\r\n");
        }
        // Not every such text is YAML; what is, maps back.
        if let (Some(node), diagnostics) = parse_lossy(SourceId(0), &text) && diagnostics.is_empty() {
            all_map(&text, &node);
        }
    }
}
