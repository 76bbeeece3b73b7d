//! Tests of `ceph.blocklist` over recorded outputs.

#![expect(clippy::unwrap_used, reason = "tests")]

use runback_core::Json;
use runback_core::step::{Class, Probe};
use serde_json::json;

use super::CephBlocklist;
use crate::rbd::recorded::Far;

/// The test clock begins at 2026-01-01T00:00:00Z.
const TOMORROW: &str = "2026-01-02T00:00:01.643587+0000";
const IN_AN_HOUR: &str = "2026-01-01T01:00:00.643587+0000";
const DUMP: &str = "osd dump --format json";
const ADD: &str = "osd blocklist add 10.0.0.7:0/0 86400";

fn map(entries: &Json) -> String {
    format!("\n{}\n", json!({"epoch": 30, "blocklist": entries, "range_blocklist": {}}))
}

fn with() -> Json {
    json!({"addresses": ["10.0.0.7"]})
}

/// Nothing for the capture and the first look, then what is given.
fn far(after: &Json) -> Far {
    let far = Far::new();
    far.on_once(DUMP, &map(&json!({}))).on_once(DUMP, &map(&json!({}))).on(DUMP, &map(after));
    far.on(ADD, "blocklisting 10.0.0.7:0/0 until 2026-01-02T00:00:01.643587+0000 (86400 sec)\n");
    far
}

#[tokio::test]
async fn fences_and_confirms_it_in_the_map() {
    let far = far(&json!({"10.0.0.7:0/0": TOMORROW, "10.0.0.8:0/1": IN_AN_HOUR}));
    let ran = far.run(&CephBlocklist, &with()).await.unwrap();
    assert!(ran.changed);
    assert_eq!(ran.outputs, json!({"entries": {"10.0.0.7:0/0": TOMORROW}, "added": ["10.0.0.7:0/0"]}));
    assert_eq!(far.first(), "ceph --connect-timeout=30 --rados-mon-op-timeout=30 osd dump --format json");
}

#[tokio::test]
async fn an_entry_that_did_not_come_is_a_conflict() {
    let error = far(&json!({})).run(&CephBlocklist, &with()).await.unwrap_err();
    assert_eq!(error.class, Class::Conflict);
    assert!(error.message.contains("does not have it"), "{error}");
}

#[tokio::test]
async fn an_entry_that_lasts_is_left_alone_and_survives_the_undo() {
    let far = Far::new();
    far.on(DUMP, &map(&json!({"10.0.0.7:0/0": TOMORROW})));
    let ran = far.run(&CephBlocklist, &with()).await.unwrap();
    assert!(!ran.changed);
    assert_eq!(ran.outputs["added"], json!([]));
    let undone = far.undo(&CephBlocklist, &with(), &ran.capture, Some(&ran.outputs)).await.unwrap();
    assert!(!undone.changed);
    assert!(far.like("blocklist").is_empty());
}

#[tokio::test]
async fn a_shorter_entry_is_not_taken_for_a_fence() {
    let far = Far::new();
    far.on(DUMP, &map(&json!({"10.0.0.7:0/0": IN_AN_HOUR})));
    let error = far.run(&CephBlocklist, &with()).await.unwrap_err();
    assert_eq!(error.class, Class::Conflict);
    assert!(error.message.contains("only until 2026-01-01T01:00:00"), "{error}");
    assert!(far.like("blocklist add").is_empty());
    let short = json!({"addresses": ["10.0.0.7"], "for": "1h", "short": true});
    assert!(!far.run(&CephBlocklist, &short).await.unwrap().changed);
}

#[tokio::test]
async fn undo_removes_only_what_it_added() {
    let kept = json!({"10.0.0.8:0/9": TOMORROW});
    let both = json!({"10.0.0.7:0/0": TOMORROW, "10.0.0.8:0/9": TOMORROW});
    let far = Far::new();
    far.on_once(DUMP, &map(&kept)).on_once(DUMP, &map(&kept)).on(DUMP, &map(&both)).on(ADD, "");
    let with = json!({"addresses": ["10.0.0.7", "10.0.0.8:0/9", "10.0.0.7:0/0"]});
    let ran = far.run(&CephBlocklist, &with).await.unwrap();
    assert_eq!(ran.outputs["added"], json!(["10.0.0.7:0/0"]));
    far.on("osd blocklist rm 10.0.0.7:0/0", "un-blocklisting 10.0.0.7:0/0\n");
    far.on_once(DUMP, &map(&both)).on(DUMP, &map(&kept));
    let undone = far.undo(&CephBlocklist, &with, &ran.capture, Some(&ran.outputs)).await.unwrap();
    assert!(undone.changed);
    assert_eq!(far.like("blocklist rm").len(), 1);
    assert!(!far.undo(&CephBlocklist, &with, &ran.capture, Some(&ran.outputs)).await.unwrap().changed);
}

#[tokio::test]
async fn undo_leaves_an_entry_that_somebody_else_put_there() {
    let far = far(&json!({"10.0.0.7:0/0": TOMORROW}));
    let ran = far.run(&CephBlocklist, &with()).await.unwrap();
    far.on(DUMP, &map(&json!({"10.0.0.7:0/0": "2026-01-09T00:00:00.000000+0000"})));
    for outputs in [Some(&ran.outputs), None] {
        let error = far.undo(&CephBlocklist, &with(), &ran.capture, outputs).await.unwrap_err();
        assert_eq!(error.class, Class::Conflict);
        assert!(error.message.contains("not the one"), "{error}");
    }
}

#[tokio::test]
async fn an_undo_after_a_break_knows_its_own_entry() {
    let far = far(&json!({"10.0.0.7:0/0": TOMORROW}));
    let capture = far.capture(&CephBlocklist, &with()).await.unwrap();
    far.on("osd blocklist rm 10.0.0.7:0/0", "");
    far.on_once(DUMP, &map(&json!({"10.0.0.7:0/0": TOMORROW}))).on(DUMP, &map(&json!({})));
    // The second reading of "nothing" was for the look of the action that never came.
    let first = far.undo(&CephBlocklist, &with(), &capture, None).await.unwrap();
    assert!(!first.changed);
    assert!(far.undo(&CephBlocklist, &with(), &capture, None).await.unwrap().changed);
}

#[tokio::test]
async fn an_attempt_after_a_break_takes_its_own_entry_as_done() {
    let far = Far::new();
    far.on_once(DUMP, &map(&json!({}))).on(DUMP, &map(&json!({"10.0.0.7:0/0": TOMORROW})));
    let capture = far.capture(&CephBlocklist, &with()).await.unwrap();
    let found = far.probe(&CephBlocklist, &with(), &capture).await.unwrap();
    assert!(matches!(found, Probe::Done(acted) if acted.outputs["added"] == json!(["10.0.0.7:0/0"])));
}

#[tokio::test]
async fn a_lost_answer_is_looked_up() {
    let far = far(&json!({"10.0.0.7:0/0": TOMORROW}));
    far.fails(ADD, 1, "timed out\n");
    assert!(far.run(&CephBlocklist, &with()).await.unwrap().changed);
    let far = self::far(&json!({}));
    far.fails(ADD, 1, "timed out\n");
    assert_eq!(far.run(&CephBlocklist, &with()).await.unwrap_err().class, Class::Timeout);
}

#[tokio::test]
async fn the_way_out_of_a_refusal_is_told() {
    let far = far(&json!({}));
    far.fails(ADD, 13, "Error EACCES: access denied\n");
    let error = far.run(&CephBlocklist, &with()).await.unwrap_err();
    assert!(error.help.unwrap().contains("osd blocklist"));
}

#[tokio::test]
async fn a_preview_tells_a_client_from_a_machine() {
    let far = Far::new();
    far.on(DUMP, &map(&json!({"10.0.0.9:0/3": IN_AN_HOUR})));
    let with = json!({"addresses": ["10.0.0.7", "10.0.0.8:0/2", "10.0.0.9:0/3"]});
    let preview = far.preview(&CephBlocklist, &with).await.unwrap();
    assert_eq!((preview.changes, preview.summary.as_str()), (Some(true), "fence 2 of 3 for 1d"));
    assert!(preview.details[0].contains("every client"), "{:?}", preview.details);
    assert!(preview.details[1].contains("one client"), "{:?}", preview.details);
    assert!(preview.details[3].contains("would refuse"), "{:?}", preview.details);
}

#[test]
fn bad_inputs_are_named() {
    let paths = |with: Json| -> Vec<String> {
        crate::testing::Lab::problems(&CephBlocklist, &with).into_iter().map(|p| p.path.join(".")).collect()
    };
    assert_eq!(paths(json!({"addresses": []})), ["addresses"]);
    assert_eq!(paths(json!({"addresses": ["10.0.0.7", "node1"]})), ["addresses.1"]);
    assert_eq!(paths(json!({"addresses": ["10.0.0.7"], "for": "1h"})), ["for"]);
    assert!(paths(json!({"addresses": ["10.0.0.7"], "for": "1h", "short": true})).is_empty());
}
