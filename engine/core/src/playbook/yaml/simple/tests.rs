#![expect(clippy::unwrap_used, reason = "tests")]

use std::fmt::Write as _;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::playbook::yaml::build;
use crate::playbook::yaml::syntax::Patches;
use crate::playbook::yaml::tests::yamlish;

/// Whether a text was simple. Its tree must be that of the parser then.
fn is_read(text: &str) -> bool {
    let Some(root) = read(SourceId(0), text) else { return false };
    let parsed = build::build(SourceId(0), text, &Patches::default());
    assert!(parsed.stopped.is_none(), "the parser finds a mistake in {text:?}");
    assert_eq!(parsed.diagnostics, [], "{text:?}");
    assert_eq!(Some(&root), parsed.root.as_ref(), "{text:?}");
    // From wherever a second thread reads on.
    for (_, item) in items(text).step_by(items(text).count() / 4 + 1) {
        assert_eq!(read_from_both(SourceId(0), text, Some(item)).as_ref(), Some(&root), "{item:?} of {text:?}");
    }
    true
}

#[test]
fn what_most_playbooks_hold_is_simple() {
    for text in [
        "a: 1\n",
        "# c\n\n---\n# d\na: b c\n  # e\nb: 'it''s' # f\nc: \"d \\\"e\\\"\\n\"",
        "steps:\n  - id: a\n    needs: []\n    with: { command: [/bin/true, -x, \"--y z\"], n: -1 }\n  - id: b\n",
        "steps:\n- id: a\n  needs:\n  - b\n  -   - c\n      - d: 1\n        e: 2\n- f\nn: ~\n",
        "- a\n- b:\n    c: {}\n-  'd': 0x1f\n   e: http://f/?g=h#i\n",
        "a: {b: [c, {d: e}], f: 'g, h'}   \nb: c --- d\nc: -d\n",
        "a:\n  [b, c]\nd:\n  {e: f}\n\n\n",
        "a: 0755\nb: no\nc: 1.5\nd: a#b\ne: a:b\nf: x - y\ng: c, d] e}\n",
        "a: |\n  b\n\n    # c\n  d: e\n\n\n- f\n".trim_end_matches("- f\n"),
        "a:\n  - |-\n    b\n  -   |   # c\n   d\n# e\nf: |\n  g",
        "-1: a\ntrue: b\n'c d': e\n",
    ] {
        assert!(is_read(text), "{text:?}");
    }
}

#[test]
fn of_all_else_the_parser_knows() {
    for text in [
        "",
        "\n",
        "# c\n",
        "a\n",
        "a:\n",
        "a: 1\nb:\n",
        "  a: 1\n",
        "a: 1\n b: 2\n",
        "a: b\n  c\n",
        "a: 'b\n  c'\n",
        "a: 1\na: 2\n",
        "a: {b: 1, b: 2}\n",
        "a: b: c\n",
        "a: [b, ]\n",
        "a: [b\n]\n",
        "a: [b: c]\n",
        "a: {b}\n",
        "a: {b: }\n",
        "a: {{ b }}\n",
        "a: &b c\n",
        "a: *b\n",
        "a: !!str b\n",
        "a: >\n  b\n",
        "? a\n: b\n",
        "a: |\n",
        "a: |\nb: 1\n",
        "a: |\n\n  b\n",
        "a: |+\n  b\n",
        "a: |2\n  b\n",
        "a: |\n  b\n   \n  c\n",
        "a: |\n  b\n c\n",
        "- |\n b\n  - c\n- a: |\n  b\n",
        "<<: a\n",
        "a: \u{e9}\n",
        "a:\tb\n",
        "a: b\r\n",
        "--- a: b\n",
        "  ---\na: b\n",
        "--- a\n",
        "a: 1\n---\nb: 2\n",
        "a: 1\n...\n",
        "%YAML 1.2\n---\na: 1\n",
        "- a\nb: c\n",
        "a:\n - b\n- c\n",
        "a:\n- b\n  c\n",
        "- - a\n - b\n",
        "a : b\n",
        "a: \"\\x41\"\n",
        "a: 1e999\n",
        "a: 99999999999999999999\n",
        "a: @b\n",
        "a: - b\n",
        "[a]: b\n",
        "a: [b] c\n",
        "a: 'b' c\n",
        "a: [-, b]\n",
        "a: [b #c]\n",
        "{\"a\":1}\n",
        "a: [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]\n",
    ] {
        assert!(!is_read(text), "{text:?}");
    }
}

#[test]
fn a_long_text_is_read_from_its_middle_too() {
    let mut text = "runback: 1\nsteps:\n".to_owned();
    for i in 0..20_000 {
        writeln!(text, "  - id: s{i}\n    needs:\n      - s{i}").unwrap();
    }
    text.push_str("finally:\n  - id: e\n");
    let found = middle(&text).unwrap();
    assert!(text[found.at..].starts_with("- id: s") && found.at.abs_diff(text.len() / 2) < 100, "{found:?}");
    let tail = Reader::new(SourceId(0), &text).tail(found).unwrap();
    assert!(tail.items.len().abs_diff(10_000) < 500 && text[tail.at..].starts_with("finally"), "{}", tail.items.len());
    assert!(is_read(&text));
    let both = read_from_both(SourceId(0), &text, Some(found));
    assert_eq!(both, read_from_both(SourceId(0), &text, None));
    assert!(!is_read(&text.replace("s19999\n    needs", "s19999\n    id: again\n    needs")));
}

#[test]
fn what_is_read_from_an_item_is_used_for_that_item_only() {
    for text in [
        // A script, a deeper list, a list that ends there.
        "a: |\n  - b\n  - c\nd: 1\n",
        "a:\n  b:\n    - c\n    - d\n",
        "a:\n  - b: |\n      x\n      - y\n  - c\n",
        "- a: 1\n- b: 1\n",
        "a:\n- b\n- c\nd:\n- e\n",
    ] {
        assert!(is_read(text), "{text:?}");
        let whole = read(SourceId(0), text);
        for (_, item) in items(text) {
            assert_eq!(read_from_both(SourceId(0), text, Some(item)), whole, "{item:?} of {text:?}");
        }
    }
}

/// Lines of a document: what is simple at several depths, and what confuses.
fn document() -> impl Strategy<Value = String> {
    let start = prop_oneof![
        12 => Just(""), 4 => Just("  "), 4 => Just("    "), 1 => Just(" "), 1 => Just("   "),
        3 => Just("- "), 3 => Just("  - "), 1 => Just("    - "), 1 => Just("-   "), 1 => Just("- - "), 1 => Just("---"),
    ];
    let content = prop_oneof![
        6 => "[a-d]: [a-z0-9]{1,3}", 4 => "[a-d]:", 3 => "[a-d]", 1 => Just("'e': \"f\"".to_owned()),
        2 => Just("g: [1, {h: 2}]".to_owned()), 1 => "[a-d]: [a:#,'\"{}&*!|>%@?.\\[\\]\\\\ -]{0,6}",
        1 => "[a:#,'\"{}&*!|>%@?.\\[\\]\\\\ -]{0,6}", 1 => Just("# i".to_owned()), 1 => Just(String::new()),
        2 => "[a-d]: \\|-?", 1 => "[a-d]: \\|[+>0-9 -]{0,2}", 1 => Just("\\|".to_owned()), 1 => Just("j: {}".to_owned()),
    ];
    let end = prop_oneof![20 => Just("\n"), 1 => Just(" \n"), 1 => Just(" # k\n"), 1 => Just("\n\n"), 1 => Just("")];
    proptest::collection::vec((start, content, end), 0..9)
        .prop_map(|lines| lines.iter().flat_map(|(start, content, end)| [start, content.as_str(), end]).collect())
}

/// The playbooks of this repository.
#[expect(clippy::disallowed_methods, reason = "real playbooks as they are; no code of the crate reads a file")]
fn playbooks() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../playbooks");
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.filter(|path| path.extension().is_some_and(|e| e == "yaml"));
    files.map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

#[test]
fn most_playbooks_are_simple_and_read_as_the_parser_reads_them() {
    let playbooks = playbooks();
    let simple = playbooks.iter().filter(|text| is_read(text)).count();
    assert!(simple * 4 > playbooks.len() * 3, "{simple} of {}", playbooks.len());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn lines_are_read_as_the_parser_reads_them(text in document()) {
        is_read(&text);
    }

    #[test]
    fn anything_is_read_as_the_parser_reads_it(text in yamlish()) {
        is_read(&text);
        is_read(&text.replace(|c: char| !c.is_ascii() || c == '\r', "a"));
    }

    #[test]
    fn a_damaged_playbook_is_read_as_the_parser_reads_it(
        which: prop::sample::Index, from: prop::sample::Index, length in 0..4usize, with in "[a:#,'\"{}&*!|>%@?.\n\\[\\]\\\\ -]{0,3}",
    ) {
        let playbooks = playbooks();
        let text = which.get(&playbooks);
        let text: String = text.chars().filter(char::is_ascii).collect();
        let from = from.index(text.len());
        let to = (from + length).min(text.len());
        is_read(&[&text[..from], &with, &text[to..]].concat());
    }
}
