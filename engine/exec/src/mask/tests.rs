#![expect(clippy::unwrap_used, reason = "tests")]

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn masker(secrets: &[(&str, &str)]) -> Masker {
    Masker::new(secrets.iter().map(|(n, v)| ((*n).to_owned(), SecretString::from(*v))))
}

/// Every pattern, found by plain search: no automaton involved.
fn leaks(masker: &Masker, text: &[u8]) -> Option<String> {
    let inner = masker.0.as_ref()?;
    let all = inner.secrets.iter().flat_map(|s| s.forms.iter().map(move |f| (s, f)));
    let mut hits = all.filter(|(_, f)| text.windows(f.bytes.len()).any(|w| w == f.bytes.as_slice()));
    hits.next().map(|(s, f)| format!("{} as {}", s.name, f.label))
}

fn streamed(masker: &Masker, text: &[u8], cuts: &[usize]) -> Vec<u8> {
    let (mut stream, mut out, mut at) = (masker.stream(), Vec::new(), 0);
    for cut in cuts.iter().copied().chain([text.len()]) {
        stream.push(&text[at..cut], |part| out.extend_from_slice(part));
        at = cut;
    }
    stream.finish(|part| out.extend_from_slice(part));
    out
}

#[test]
fn masks_what_tools_make_of_a_secret() {
    let value = "p@ss \"w/örd'&<1>";
    let m = masker(&[("db", value)]);
    for text in [
        value.to_owned(),
        serde_json::to_string(value).unwrap(),
        "p%40ss%20%22w%2F%C3%B6rd%27%26%3C1%3E".to_owned(),
        "p%40ss%20%22w%2f%c3%b6rd%27%26%3c1%3e".to_owned(),
        "p%40ss+%22w%2F%C3%B6rd%27%26%3C1%3E".to_owned(),
        runback_core::target::quote(value),
        "\"p@ss \\u0022w/\\u00f6rd'&<1>\"".replace("\\u0022", "\\\""),
        "p@ss &quot;w/örd&apos;&amp;&lt;1&gt;".to_owned(),
        "p@ss \\\"w/örd'\\u0026\\u003c1\\u003e".to_owned(),
    ] {
        let masked = m.mask_str(&text).into_owned();
        assert!(masked.contains("***") && !masked.contains("rd") && !masked.contains("ss"), "{text} -> {masked}");
    }
    for pad in 0..4 {
        for (i, engine) in [&STANDARD, &URL_SAFE].into_iter().enumerate() {
            for end in ["", "?", "??"] {
                let text = engine.encode(format!("{}{value}{end}", "x".repeat(pad)));
                let masked = m.mask_str(&text).into_owned();
                assert!(masked.contains("***"), "{i} {pad} {text}");
                assert!(masked.len() <= 3 + (pad * 4).div_ceil(3) + 8, "{text} -> {masked}");
            }
        }
    }
    assert_eq!(m.mask_str("nothing here"), "nothing here");
}

#[test]
fn base64_of_an_escaped_secret_is_found() {
    let m = masker(&[("db", "a\"b\\c\"defgh")]);
    let file = format!("xy{}", json!({ "password": "a\"b\\c\"defgh" }));
    assert!(m.finds(STANDARD.encode(&file).as_bytes()));
    let manifest = format!("data:\n  password: {}\n", STANDARD.encode("a\"b\\c\"defgh"));
    assert!(m.finds(STANDARD.encode(&manifest).as_bytes()));
}

#[test]
fn lines_of_a_key_are_masked_and_its_borders_are_not() {
    let key = "-----BEGIN KEY-----\nMIIEvQIBADANBg\nshort\nkqhkiG9w0BAQEF\n-----END KEY-----\n";
    let m = masker(&[("key", key)]);
    assert_eq!(m.mask_str("    kqhkiG9w0BAQEF\r\n-----BEGIN KEY-----\n"), "    ***\r\n-----BEGIN KEY-----\n");
    assert_eq!(m.mask_str(key), "***");
}

#[test]
fn overlapping_secrets_leave_no_rest() {
    // No hexadecimal digits: a seal has some by chance.
    let m = masker(&[("a", "mnopqr"), ("b", "pqrLONGER")]);
    assert_eq!(m.mask_str("x mnopqrLONGER y"), "x *** y");
    let sealed = m.seal_text("x mnopqrLONGER y");
    assert!(!sealed.contains("LONGER") && !sealed.contains("mno"), "{sealed}");
    assert_eq!(m.unseal_text(&sealed).unwrap(), "x mnopqrLONGER y");
}

#[test]
fn the_mask_itself_can_be_a_secret() {
    let m = masker(&[("a", "a***b"), ("c", "secret")]);
    let masked = m.mask_str("asecretb a***b").into_owned();
    assert_eq!(masked, "a•••b •••");
    assert_eq!(m.mask_str(&masked), masked);
}

#[test]
fn short_secrets_are_named() {
    let m = masker(&[("pin", "12"), ("abc", "abc"), ("fine", "abcd")]);
    let weak = m.weak();
    assert_eq!(weak.len(), 2);
    assert_eq!((weak[0].name.as_str(), weak[0].weakness), ("pin", Weakness::NotMasked));
    assert_eq!((weak[1].name.as_str(), weak[1].weakness), ("abc", Weakness::RawOnly));
    assert!(weak[0].describe().contains("`pin`"));
    assert_eq!(m.mask_str("12 xabcx YWJj"), "12 x***x YWJj");
    assert!(!masker(&[("pin", "")]).finds(b"anything"));
}

#[test]
fn json_keys_values_and_numbers() {
    let m = masker(&[("a", "hunter22"), ("n", "12345678")]);
    let mut j = json!({ "hunter22": 1, "x": ["say hunter22", 12_345_678, true, null], "***": 2 });
    m.mask_json(&mut j);
    assert_eq!(j, json!({ "***": 1, "x": ["say ***", "***", true, null], "*** (2)": 2 }));
    let before = j.clone();
    m.mask_json(&mut j);
    assert_eq!(j, before);
}

#[test]
fn a_stream_holds_back_only_what_may_become_a_secret() {
    let m = masker(&[("a", "hunter22")]);
    let mut s = m.stream();
    let mut out = Vec::new();
    s.push(b"Password: hunt", |p| out.extend_from_slice(p));
    assert_eq!((out.as_slice(), s.held()), (&b"Password: "[..], 4));
    s.push(b"ing", |p| out.extend_from_slice(p));
    assert_eq!((out.as_slice(), s.held()), (&b"Password: hunting"[..], 0));
    let long = masker(&[("key", &"k".repeat(20_000))]);
    let mut s = long.stream();
    for _ in 0..100 {
        s.push(&[b'k'; 4096], |_| {});
        assert!(s.held() < 40_000, "{}", s.held());
    }
}

#[test]
fn without_secrets_nothing_is_copied() {
    let m = Masker::none();
    assert!(matches!(m.mask_str("text"), Cow::Borrowed(_)));
    let chunk = b"chunk".as_slice();
    m.stream().push(chunk, |part| assert_eq!(part.as_ptr(), chunk.as_ptr()));
    assert!(Masker::new([]).is_empty());
}

#[test]
fn seal_survives_literal_brackets_numbers_keys_and_base64() {
    let m = masker(&[("db:%⟦1⟧", "hunter22"), ("n", "12345678")]);
    let file = STANDARD.encode("user=x\npassword=hunter22\nport=1\n");
    let capture = json!({
        "content": file, "hunter22": "⟦secret:n:raw:00-00⟧ hunter22 ⟦⟧ ⟦", "n": 12_345_678,
        "⟦number⟧": "5", "deep": [{ "⟦number⟧": "x" }, 1.5, null],
    });
    let sealed = m.seal(&capture);
    assert!(leaks(&m, sealed.to_string().as_bytes()).is_none(), "{sealed}");
    assert_eq!(m.unseal(&sealed).unwrap(), capture);
    let plain = json!("a ⟦ b");
    assert_eq!(m.unseal(&Masker::none().seal(&plain)).unwrap(), plain);
    assert_eq!(Masker::none().unseal(&m.seal(&plain)).unwrap(), plain);
}

#[test]
fn unseal_names_the_secret_that_changed_or_is_missing() {
    let sealed = masker(&[("db", "hunter22"), ("other", "otherother")]).seal(&json!("x hunter22"));
    // Another process: another salt, the same value.
    assert_eq!(masker(&[("db", "hunter22")]).unseal(&sealed).unwrap(), json!("x hunter22"));
    let changed = masker(&[("db", "hunter23"), ("other", "otherother")]).unseal(&sealed).unwrap_err();
    assert_eq!(changed, UnsealError::Changed { name: "db".to_owned() });
    let missing = Masker::none().unseal(&sealed).unwrap_err();
    assert_eq!(missing, UnsealError::Missing { name: "db".to_owned() });
    assert!(missing.to_string().contains("`db`") && !missing.help().is_empty());
    let bad = masker(&[("db", "hunter22")]).unseal_text("⟦secret:db⟧").unwrap_err();
    assert!(matches!(bad, UnsealError::Unreadable { .. }));
}

/// Found by a list of recovery codes: codes of less than eight characters stood in the log.
#[test]
fn short_lines_that_may_be_a_secret_are_masked_and_the_rest_is_not() {
    let m = masker(&[("codes", "8317\na-7Kq2\nhunter2\n\u{e4}\u{f6}\u{fc}1\npin: 42\nlonger than eight\n")]);
    for said in ["8317", "a-7Kq2", "hunter2", "\u{e4}\u{f6}\u{fc}1", "pin: 42", "longer than eight"] {
        assert_eq!(m.mask_str(&format!("it is {said}.")), "it is ***.", "{said}");
    }
    let config = "users:\n- a:\n{\n  \"ke\": [\n    true,\n  false\n ]\n}\n---\nEOF\n\"a\": {\nnull\nNAME=\n";
    let m = masker(&[("config", config)]);
    for told in ["users:", "}", "]", "---", "true", "false", "null", "EOF", "\"ke\": [", "NAME=", "NAME=x"] {
        assert_eq!(m.mask_str(told), told);
    }
    assert_eq!(m.mask_str(config), "***");
}

/// A capture that was sealed before short lines were looked for opens again: what was labelled then keeps its label.
#[test]
fn short_lines_take_no_label_from_long_ones() {
    let m = masker(&[("s", "a\"bcdef\na\\\"bcdef\nmore of it")]);
    let labels: Vec<&str> = m.0.as_ref().unwrap().secrets[0].forms.iter().map(|f| f.label.as_str()).collect();
    assert!(labels.contains(&"line1") && labels.contains(&"line0"), "{labels:?}");
    let capture = json!({ "text": "x a\\\"bcdef y a\"bcdef z" });
    assert_eq!(m.unseal(&m.seal(&capture)).unwrap(), capture);
}

/// Few letters, so that values overlap each other, themselves and the marks.
fn value() -> impl Strategy<Value = String> {
    prop_oneof!["[ab*\n]{3,10}", "[ab]{4,12}", "[a'\"/ &ö⟦]{4,9}", "[a-z]{8,9}\n[a-z]{4,9}\n"]
}

fn with_secrets() -> impl Strategy<Value = (Vec<String>, Vec<u8>)> {
    let texts = |secrets: Vec<String>| {
        let pool = Masker::new(secrets.iter().map(|s| (s.clone(), SecretString::from(s.as_str()))));
        let inner = pool.0.unwrap();
        let forms: Vec<Vec<u8>> = inner.secrets.iter().flat_map(|s| s.forms.iter().map(|f| f.bytes.to_vec())).collect();
        let piece = prop_oneof![
            2 => (0..forms.len()).prop_map(move |i| forms[i].clone()),
            1 => "[ab*⟦⟧\n =]{0,5}".prop_map(String::into_bytes),
            1 => prop::sample::select(secrets.clone()).prop_map(|s| {
                STANDARD.encode(format!("pass={s}\n")).into_bytes()
            }),
            1 => prop::sample::select(secrets.clone()).prop_map(|s| {
                let end = s.char_indices().nth(s.chars().count() / 2).map_or(0, |(i, _)| i);
                s.as_bytes()[..end].to_vec()
            }),
        ];
        (Just(secrets), prop::collection::vec(piece, 0..8).prop_map(|p| p.concat()))
    };
    prop::collection::vec(value(), 1..4).prop_flat_map(texts)
}

fn named(secrets: &[String]) -> Masker {
    Masker::new(secrets.iter().enumerate().map(|(i, s)| (format!("s{i}"), SecretString::from(s.as_str()))))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_pattern_is_left_and_masking_again_changes_nothing((secrets, text) in with_secrets()) {
        let m = named(&secrets);
        let masked = m.mask_bytes(&text).into_owned();
        prop_assert_eq!(leaks(&m, &masked), None);
        prop_assert_eq!(&*m.mask_bytes(&masked), &masked[..]);
    }

    #[test]
    fn every_split_gives_the_same((secrets, text) in with_secrets(), seed in prop::collection::vec(any::<prop::sample::Index>(), 0..6)) {
        let m = named(&secrets);
        let whole = m.mask_bytes(&text).into_owned();
        for cut in 0..=text.len() {
            prop_assert_eq!(&streamed(&m, &text, &[cut]), &whole);
        }
        let every: Vec<usize> = (0..=text.len()).collect();
        prop_assert_eq!(&streamed(&m, &text, &every), &whole);
        let mut cuts: Vec<usize> = seed.iter().map(|i| i.index(text.len() + 1)).collect();
        cuts.sort_unstable();
        prop_assert_eq!(&streamed(&m, &text, &cuts), &whole);
    }

    #[test]
    fn unseal_is_the_inverse_of_seal((secrets, text) in with_secrets(), key in "[ab⟦⟧]{0,8}") {
        let m = named(&secrets);
        let text = String::from_utf8(text).unwrap();
        let capture = json!({ "content": text, "list": [STANDARD.encode(&text)], key: text });
        prop_assert_eq!(m.unseal(&m.seal(&capture)).unwrap(), capture);
    }
}

/// A message quotes the beginning or the end of a text that holds a secret.
#[test]
fn what_a_cut_leaves_of_a_secret_is_masked() {
    let value = "eyJhbGciOiJIUzI1NiJ9.payload/with+signs.signature0123456789";
    let m = masker(&[("jwt", value)]);
    for cut in 1..value.len() {
        let (begin, end) = value.split_at(cut);
        for (text, left) in [
            (format!("reads \"token {begin}…\""), begin),
            (format!("tool: exit code 1: …{end} was refused"), end),
            (format!("that is `{begin}…{end}`"), begin),
        ] {
            let masked = m.mask_quoting(&text);
            if left.len() >= 4 {
                let masked = masked.unwrap_or_else(|| panic!("{text}"));
                assert!(!masked.contains(&left[..4]) && !masked.contains(&left[left.len() - 4..]), "{masked}");
            }
        }
    }
    assert_eq!(m.mask_quoting("waiting for the other one…"), None);
    assert_eq!(m.mask_quoting("key…"), None, "it ends with `ey`, by chance");
    assert_eq!(m.mask_quoting(&format!("{value} and {value}…")).unwrap(), "*** and ***…");
}
