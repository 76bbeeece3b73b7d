//! Tests of the step types about snapshots, over recorded outputs.

#![expect(clippy::unwrap_used, reason = "tests")]

use runback_core::Json;
use runback_core::step::{Class, Probe};
use serde_json::json;

use super::recorded::{Far, UNWATCHED, WATCHED};
use super::snap_create::RbdSnapCreate;
use super::snap_protect::RbdSnapProtect;
use super::snap_remove::RbdSnapRemove;
use super::snap_rollback::RbdSnapRollback;

const LS: &str = "snap ls --format json";

/// As `rbd snap ls --format json` prints them.
fn snaps(all: &[(u64, &str, bool)]) -> String {
    let one = |(id, name, protected): &(u64, &str, bool)| {
        let timestamp = "Sat Nov 21 19:43:02 2026";
        json!({"id": id, "name": name, "size": 16_777_216, "protected": protected.to_string(), "timestamp": timestamp})
    };
    Json::from(all.iter().map(one).collect::<Vec<_>>()).to_string()
}

fn with() -> Json {
    json!({"pool": "kube", "image": "img", "snap": "s"})
}

#[tokio::test]
async fn create_takes_it_and_undo_removes_that_one() {
    let far = Far::new();
    far.on_once(LS, "[]").on_once(LS, "[]").on(LS, &snaps(&[(4, "s", false)]));
    far.on("snap create --no-progress --snap=s", "");
    let ran = far.run(&RbdSnapCreate, &with()).await.unwrap();
    assert!(ran.changed);
    assert_eq!(ran.outputs, json!({"name": "s", "spec": "kube/img@s", "id": 4, "size": 16_777_216}));
    far.on("snap rm --no-progress --snap=s", "");
    assert!(far.undo(&RbdSnapCreate, &with(), &ran.capture, Some(&ran.outputs)).await.unwrap().changed);
    assert!(far.undo(&RbdSnapCreate, &with(), &ran.capture, None).await.unwrap().changed, "after a break too");
    far.on(LS, "[]");
    assert!(!far.undo(&RbdSnapCreate, &with(), &ran.capture, Some(&ran.outputs)).await.unwrap().changed);

    far.on(LS, &snaps(&[(9, "s", false)]));
    let error = far.undo(&RbdSnapCreate, &with(), &ran.capture, Some(&ran.outputs)).await.unwrap_err();
    assert!(error.message.contains("another snapshot"), "{error}");
    far.on(LS, &snaps(&[(4, "s", true)]));
    let error = far.undo(&RbdSnapCreate, &with(), &ran.capture, Some(&ran.outputs)).await.unwrap_err();
    assert!(error.message.contains("protected"), "{error}");
}

#[tokio::test]
async fn an_old_snapshot_is_no_safety() {
    let far = Far::new();
    far.on(LS, &snaps(&[(4, "s", false)]));
    let error = far.run(&RbdSnapCreate, &with()).await.unwrap_err();
    assert_eq!(error.class, Class::Conflict);
    let mut with = with();
    with["existing"] = json!("accept");
    let ran = far.run(&RbdSnapCreate, &with).await.unwrap();
    assert!(!ran.changed);
    assert!(!far.undo(&RbdSnapCreate, &with, &ran.capture, Some(&ran.outputs)).await.unwrap().changed);
    assert!(far.like("snap rm").is_empty());
}

#[tokio::test]
async fn create_after_a_break_takes_its_own() {
    let far = Far::new();
    far.on(LS, "[]");
    let capture = far.capture(&RbdSnapCreate, &with()).await.unwrap();
    assert!(matches!(far.probe(&RbdSnapCreate, &with(), &capture).await.unwrap(), Probe::NotDone));
    far.on(LS, &snaps(&[(4, "s", false)]));
    assert!(matches!(far.probe(&RbdSnapCreate, &with(), &capture).await.unwrap(), Probe::NotDone), "it never began");
    far.host.notes.lock().unwrap().push(json!({"begins": true}));
    let probed = far.probe(&RbdSnapCreate, &with(), &capture).await.unwrap();
    assert!(matches!(probed, Probe::Done(acted) if acted.changed));
}

/// It was refused, so what is there later is somebody else's.
#[tokio::test]
async fn a_snapshot_that_was_not_taken_is_not_removed() {
    let far = Far::new();
    far.on(LS, "[]");
    far.fails("snap create --no-progress --snap=s", 30, "rbd: failed to create snapshot: (30) Read-only file system\n");
    let capture = far.capture(&RbdSnapCreate, &with()).await.unwrap();
    far.act(&RbdSnapCreate, &with(), &capture).await.unwrap_err();
    far.on(LS, &snaps(&[(4, "s", false)]));
    assert!(!far.undo(&RbdSnapCreate, &with(), &capture, None).await.unwrap().changed);
    assert_eq!(far.act(&RbdSnapCreate, &with(), &capture).await.unwrap_err().class, Class::Conflict);
    assert!(far.like("snap rm").is_empty());
}

#[tokio::test]
async fn create_with_a_lost_answer_is_looked_up() {
    let far = Far::new();
    far.on_once(LS, "[]").on_once(LS, "[]").on(LS, &snaps(&[(4, "s", false)]));
    far.fails(
        "snap create --no-progress --snap=s",
        110,
        "rbd: failed to create snapshot: (110) Connection timed out\n",
    );
    assert!(far.run(&RbdSnapCreate, &with()).await.unwrap().changed);
}

#[tokio::test]
async fn create_tells_of_the_exclusive_lock() {
    let far = Far::new();
    far.on(LS, "[]");
    far.fails("snap create --no-progress --snap=s", 30, "rbd: failed to create snapshot: (30) Read-only file system\n");
    let error = far.run(&RbdSnapCreate, &with()).await.unwrap_err();
    assert!(error.help.unwrap().contains("exclusive-lock"));
}

#[tokio::test]
async fn protect_and_back() {
    let far = Far::new();
    far.on(LS, &snaps(&[(4, "s", false)])).on("snap protect --snap=s", "");
    let ran = far.run(&RbdSnapProtect, &with()).await.unwrap();
    assert_eq!((ran.changed, &ran.outputs["protected"]), (true, &json!(true)));
    far.on(LS, &snaps(&[(4, "s", true)])).on("snap unprotect --snap=s", "");
    assert!(far.undo(&RbdSnapProtect, &with(), &ran.capture, Some(&ran.outputs)).await.unwrap().changed);
    let again = far.run(&RbdSnapProtect, &with()).await.unwrap();
    assert!(!again.changed);
    assert!(!far.undo(&RbdSnapProtect, &with(), &again.capture, Some(&again.outputs)).await.unwrap().changed);
    far.fails("snap unprotect --snap=s", 16, "rbd: unprotecting snap failed: (16) Device or resource busy\n");
    let error = far.undo(&RbdSnapProtect, &with(), &ran.capture, Some(&ran.outputs)).await.unwrap_err();
    assert_eq!(error.class, Class::Conflict);
}

#[tokio::test]
async fn remove_refuses_what_is_protected() {
    let far = Far::new();
    far.on(LS, &snaps(&[(4, "s", true)]));
    let error = far.run(&RbdSnapRemove, &with()).await.unwrap_err();
    assert!(error.help.unwrap().contains("rbd children kube/img@s"));
    far.on(LS, "[]");
    assert!(!far.run(&RbdSnapRemove, &with()).await.unwrap().changed);
    assert!(matches!(far.probe(&RbdSnapRemove, &with(), &Json::Null).await.unwrap(), Probe::NotDone));
    far.on_once(LS, &snaps(&[(4, "s", false)])).on("snap rm --no-progress --snap=s", "");
    assert!(far.run(&RbdSnapRemove, &with()).await.unwrap().changed);
    assert!(matches!(far.probe(&RbdSnapRemove, &with(), &Json::Null).await.unwrap(), Probe::Done(a) if a.changed));
    far.on(LS, &snaps(&[(9, "s", false)]));
    let error = far.run(&RbdSnapRemove, &with()).await.unwrap_err();
    assert!(error.message.contains("taken anew"), "{error}");
}

#[tokio::test]
async fn rollback_takes_a_snapshot_first_and_undo_goes_back_to_it() {
    let far = Far::new();
    let (one, two) = (snaps(&[(4, "s", false)]), snaps(&[(4, "s", false), (5, "before-rollback-r1", false)]));
    far.on("status --format json", UNWATCHED);
    // Two looks of the capture, one of the action.
    far.on_once(LS, &one).on_once(LS, &one).on_once(LS, &one).on(LS, &two);
    far.on("snap create --no-progress --snap=before-rollback-r1", "").on("snap rollback --no-progress --snap=s", "");
    let ran = far.run(&RbdSnapRollback, &with()).await.unwrap();
    assert_eq!(ran.outputs, json!({"safety": "before-rollback-r1", "safety_id": 5}));
    let changing: Vec<_> =
        far.like("--no-progress").iter().map(|c| c.split("snap ").nth(1).unwrap().to_owned()).collect();
    assert_eq!(changing, ["create --no-progress --snap=before-rollback-r1", "rollback --no-progress --snap=s"]);
    far.on("snap rollback --no-progress --snap=before-rollback-r1", "");
    far.on("snap rm --no-progress --snap=before-rollback-r1", "");
    assert!(far.undo(&RbdSnapRollback, &with(), &ran.capture, Some(&ran.outputs)).await.unwrap().changed);
    far.on(LS, &one);
    assert!(!far.undo(&RbdSnapRollback, &with(), &ran.capture, Some(&ran.outputs)).await.unwrap().changed);
}

#[tokio::test]
async fn rollback_refuses_an_image_that_is_in_use() {
    let far = Far::new();
    far.on("status --format json", WATCHED).on(LS, &snaps(&[(4, "s", false)]));
    let error = far.run(&RbdSnapRollback, &with()).await.unwrap_err();
    assert_eq!(error.class, Class::Conflict);
    assert!(error.message.contains("client.4244"), "{error}");
    assert!(far.like("--no-progress").is_empty());
    let preview = far.preview(&RbdSnapRollback, &with()).await.unwrap();
    assert!(preview.summary.starts_with("would refuse"), "{}", preview.summary);
}

#[tokio::test]
async fn previews_change_nothing() {
    let far = Far::new();
    far.on("status --format json", UNWATCHED).on(LS, &snaps(&[(4, "s", false)]));
    assert_eq!(far.preview(&RbdSnapProtect, &with()).await.unwrap().summary, "protect kube/img@s");
    assert_eq!(far.preview(&RbdSnapRemove, &with()).await.unwrap().summary, "remove snapshot kube/img@s");
    assert_eq!(far.preview(&RbdSnapRollback, &with()).await.unwrap().summary, "roll kube/img back to s");
    assert_eq!(far.preview(&RbdSnapCreate, &with()).await.unwrap().changes, Some(false));
    let ran = far.ran.lock().unwrap();
    assert!(ran.iter().all(|c| c.argv.ends_with(&["--format".to_owned(), "json".to_owned()])));
}
