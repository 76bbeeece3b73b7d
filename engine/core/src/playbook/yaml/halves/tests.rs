#![expect(clippy::unwrap_used, reason = "tests")]

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;
use crate::playbook::yaml::tests::yamlish;

/// Every way to cut a text, whatever it cuts through.
fn cuts(text: &str) -> Vec<Cut> {
    let items: Vec<Item> = items(text, 0).collect();
    let overs = |at: usize| items.iter().map(|i| i.at).filter(move |over| *over > at).take(2);
    items.iter().flat_map(|item| overs(item.at).map(|over| Cut { at: item.at, over })).collect()
}

/// Reads a text by halves in every way. Gives how many ways gave a tree; each such tree must be that of the whole.
fn by_halves(text: &str) -> usize {
    let whole = build::build(SourceId(0), text, &Patches::default());
    let trees = cuts(text).into_iter().filter_map(|cut| {
        let root = read_cut(SourceId(0), text, cut)?;
        assert!(whole.stopped.is_none() && whole.diagnostics.is_empty(), "{cut:?} hides a mistake in {text:?}");
        assert_eq!(Some(&root), whole.root.as_ref(), "{cut:?} of {text:?}");
        Some(root)
    });
    trees.count()
}

#[test]
fn lists_of_the_document_are_read_by_halves() {
    for (text, ways) in [
        ("runback: 1\nsteps:\n  - id: a\n  - id: b\n    needs: [a]\n  - id: c\n", 2),
        ("runback: 1\nsteps:\n  - id: a\n  - id: b\n  - id: c\nfinally:\n  - id: d\n", 2),
        ("\u{feff}runback: 1\nsteps:\n- id: a\n- id: b\n- id: c\noutputs: { x: 1 }\n", 2),
        ("---\nsteps:\r\n  - id: a\r\n  # c\r\n  - {id: b}\r\n", 1),
        ("a: &a 1\nsteps:\n  - id: a\n  - id: &b x\n  - id: *b\n", 2),
        ("steps:\n  - run: |+\n      - x\n\n\n  - run: >\n      y\n       - z\n  - 'q\n      - r'\n", 4),
    ] {
        assert_eq!(by_halves(text), ways, "{text:?}");
    }
}

#[test]
fn what_is_no_cut_of_a_list_of_the_document_is_left_to_the_whole() {
    for text in [
        // Within a text, a comment's neighbour, a list in a list, brackets, an indented document.
        "a: |\n  - x\n  - y\n  - z\nb: 1\n",
        "a: 'x\n  - y\n  - z'\n",
        "a:\n  b:\n    - x\n    - y\n    - z\n",
        "- a: 1\n- b: 1\n- c: 1\n",
        "{a: [\n  x\n  - y,\n  - z\n]}\n",
        "  a:\n    - b: 1\n    - c: 1\n  d: 1\n",
        // A second document, an alias to the first half, a key that stands twice, a mistake.
        "a:\n  - b: 1\n...\n---\na:\n  - b: 1\n  - c: 1\n",
        "a: &a 1\nb:\n  - c: 1\n  - d: *a\n  - e: *a\n",
        "a: 1\nb:\n  - c: 1\n  - d: 1\na: 2\n",
        "a:\n  - b: 1\n  - c: {\n  - d: 1\n",
    ] {
        assert_eq!(by_halves(text), 0, "{text:?}");
    }
}

#[test]
fn a_long_text_is_cut_about_its_middle() {
    let mut text = "runback: 1\nsteps:\n".to_owned();
    for i in 0..20_000 {
        writeln!(text, "  - id: s{i}\n    needs:\n      - s{i}").unwrap();
    }
    text.push_str("finally:\n  - id: e\n");
    let found = cut(&text).unwrap();
    assert!(text[found.at..].starts_with("  - id: s") && found.at.abs_diff(text.len() / 2) < 100, "{found:?}");
    let root = read(SourceId(0), &text).unwrap();
    assert_eq!(Some(root), build::build(SourceId(0), &text, &Patches::default()).root);
    assert_eq!(read(SourceId(0), &text.replace("s19999\n    needs", "s19999\n    id: again\n    needs")), None);
    assert!(read(SourceId(0), "a: [1]\n").is_none(), "too short");
}

/// Lines of a document: what can stand above, in and below a list, and what confuses.
fn document() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        8 => Just("  - id: a\n"),
        3 => Just("    b: [1, {c: 2}]\n"),
        1 => Just("  - |\n"),
        1 => Just("    c: |\n"),
        1 => Just("    d: >+\n"),
        1 => Just("    e: 'x\n"),
        1 => Just("    y'\n"),
        1 => Just("      - f\n"),
        1 => Just("      - g: 1\n"),
        1 => Just("- h: 1\n"),
        1 => Just("steps:\n"),
        1 => Just("other:\n"),
        1 => Just("    f: &a {g: 1}\n"),
        1 => Just("    h: *a\n"),
        1 => Just("  - &b i\n"),
        1 => Just("  - *b\n"),
        1 => Just("  - ? k\n"),
        1 => Just("    : l\n"),
        1 => Just("  -   - m\n"),
        1 => Just("  - - n\n"),
        1 => Just("# o\n"),
        1 => Just("\n"),
        1 => Just("    \n"),
        1 => Just("text: |\n"),
        1 => Just("text: \"p\n"),
        1 => Just("q\"\n"),
        1 => Just("flow: [\n"),
        1 => Just("]\n"),
        1 => Just("...\n"),
        1 => Just("---\n"),
        1 => Just("  - !!str r\n"),
        1 => Just("  -\n"),
        1 => Just("  - \n"),
        1 => Just("  - s\r\n"),
        1 => Just("  - \u{feff}t\n"),
        1 => Just("  - \tu: 1\n"),
        1 => Just("  - <<: v\n"),
    ];
    (any::<bool>(), proptest::collection::vec(line, 0..16))
        .prop_map(|(head, lines)| format!("{}{}", if head { "runback: 1\nsteps:\n" } else { "" }, lines.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn halves_make_the_whole(text in document()) {
        by_halves(&text);
    }

    #[test]
    fn halves_of_anything_make_the_whole(head: bool, text in yamlish()) {
        by_halves(&format!("{}{text}", if head { "a:\n  - b\n  - c: " } else { "" }));
    }
}
