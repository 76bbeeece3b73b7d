//! Tests of `rbd.lock_rm` over recorded outputs.

#![expect(clippy::unwrap_used, reason = "tests")]

use runback_core::Json;
use runback_core::step::{Class, Probe};
use serde_json::json;

use super::RbdLockRm;
use crate::rbd::recorded::{AUTO, AUTO_TEXT, Far, KUBELET, KUBELET_TEXT, SHARED, SHARED_TEXT, UNWATCHED, WATCHED};

const RM: &str = "lock rm -- kubelet_lock_magic_node1 client.4112";
/// Recorded with a user of mon 'allow r'.
const FORBIDDEN: &str = "\
2026-11-21T19:43:11.458+0000 7f3da9e8f380 -1 librbd: unable to blocklist client: (13) Permission denied
rbd: releasing lock failed: (13) Permission denied
";

fn with() -> Json {
    let lock = json!({"id": "kubelet_lock_magic_node1", "locker": "client.4112", "address": "127.0.0.1:0/2494281927"});
    json!({"pool": "kube", "image": "img", "lock": lock})
}

fn far(locks: &str, text: &str, status: &str) -> Far {
    let far = Far::new();
    far.on("status --format json", status).on("lock ls --format json", locks).on("lock ls", text);
    far
}

/// Locked until the look after the removal.
fn goes() -> Far {
    let far = far("[]", KUBELET_TEXT, UNWATCHED);
    far.on_once("lock ls --format json", KUBELET);
    far
}

#[tokio::test]
async fn removes_the_one_that_is_named() {
    let far = goes();
    far.on(RM, "");
    let ran = far.run(&RbdLockRm, &with()).await.unwrap();
    assert!(ran.changed);
    assert_eq!(ran.outputs, json!({"removed": true, "blocklisted": "127.0.0.1:0/2494281927"}));
    assert_eq!(far.like("lock rm").len(), 1);
}

#[tokio::test]
async fn no_lock_is_done_already() {
    let far = far("[]", "", WATCHED);
    let ran = far.run(&RbdLockRm, &with()).await.unwrap();
    assert!(!ran.changed);
    assert!(!far.run(&RbdLockRm, &json!({"image": "i", "lock": null})).await.unwrap().changed);
}

#[tokio::test]
async fn refusals_name_the_evidence_and_touch_nothing() {
    let other = json!({"id": "kubelet_lock_magic_node1", "locker": "client.1", "address": "127.0.0.1:0/2494281927"});
    let wrong = |lock: Json| {
        let mut with = with();
        with["lock"] = lock;
        with
    };
    let shared = json!({"id": "a", "locker": "client.4122", "address": "127.0.0.1:0/1296556246"});
    for (locks, text, status, with, says) in [
        (KUBELET, KUBELET_TEXT, WATCHED, with(), "open for writing by client.4244 at 127.0.0.1:0/3840278050"),
        (SHARED, SHARED_TEXT, UNWATCHED, wrong(shared), "shared lock `a` of client.4122"),
        (AUTO, AUTO_TEXT, UNWATCHED, with(), "`auto 140090290476128` of client.4244"),
        (KUBELET, KUBELET_TEXT, UNWATCHED, wrong(other), "`kubelet_lock_magic_node1` of client.1 "),
        (KUBELET, KUBELET_TEXT, UNWATCHED, wrong(Json::Null), "none was named"),
    ] {
        let far = far(locks, text, status);
        let error = far.run(&RbdLockRm, &with).await.unwrap_err();
        assert_eq!(error.class, Class::Conflict, "{error}");
        assert!(error.message.contains(says), "{error}");
        assert!(error.message.starts_with("kube/img: the lock stays: "), "{error}");
        assert!(error.help.is_some());
        assert!(far.like("lock rm").is_empty());
        let preview = far.preview(&RbdLockRm, &with).await.unwrap();
        assert_eq!(preview.changes, Some(false));
        assert!(preview.summary.starts_with("would refuse: "), "{}", preview.summary);
    }
}

#[tokio::test]
async fn what_is_allowed_is_not_refused() {
    let far = far(KUBELET, KUBELET_TEXT, WATCHED);
    far.on_once("lock ls --format json", KUBELET);
    far.on(RM, "").on("lock ls --format json", "[]");
    let mut with = with();
    with["allow"] = json!(["watchers"]);
    assert!(far.run(&RbdLockRm, &with).await.unwrap().changed);

    let far = self::far(SHARED, SHARED_TEXT, UNWATCHED);
    far.on("lock rm -- a client.4122", "");
    let left = r#"[{"id":"b","locker":"client.4124","address":"127.0.0.1:0/2531832978"}]"#;
    far.on_once("lock ls --format json", SHARED).on_once("lock ls", SHARED_TEXT);
    far.on("lock ls --format json", left);
    far.on("lock ls", "There is 1 shared lock on this image.\n");
    with["allow"] = json!(["shared"]);
    with["lock"] = json!({"id": "a", "locker": "client.4122", "address": "127.0.0.1:0/1296556246"});
    assert!(far.run(&RbdLockRm, &with).await.unwrap().changed);
}

#[tokio::test]
async fn the_images_own_lock_is_never_removed() {
    let mut with = with();
    with["lock"] = json!({"id": "auto 140090290476128", "locker": "client.4244", "address": "127.0.0.1:0/3840278050"});
    with["allow"] = json!(["watchers", "shared"]);
    let far = far(AUTO, AUTO_TEXT, WATCHED);
    let error = far.run(&RbdLockRm, &with).await.unwrap_err();
    assert!(error.message.contains("never removed by hand"), "{error}");
    let problems = crate::testing::Lab::problems(&RbdLockRm, &with);
    assert_eq!(problems[0].path, ["lock", "id"]);
}

#[tokio::test]
async fn a_timed_out_removal_is_looked_at_again() {
    // It was applied; only its answer was lost.
    let far = goes();
    far.fails(RM, 110, "rbd: releasing lock failed: (110) Connection timed out\n");
    assert!(far.run(&RbdLockRm, &with()).await.unwrap().changed);
    // It was not.
    let far = self::far(KUBELET, KUBELET_TEXT, UNWATCHED);
    far.fails(RM, 110, "rbd: releasing lock failed: (110) Connection timed out\n");
    let error = far.run(&RbdLockRm, &with()).await.unwrap_err();
    assert_eq!(error.class, Class::Timeout);
    assert!(error.message.contains("the lock is still there"), "{error}");
    // It cannot be told.
    let far = goes();
    far.fails(RM, 110, "rbd: releasing lock failed: (110) Connection timed out\n");
    far.fails("lock ls --format json", 110, "rbd: couldn't connect to the cluster!\n");
    let error = far.run(&RbdLockRm, &with()).await.unwrap_err();
    assert_eq!(error.class, Class::Timeout);
    assert!(error.message.contains("cannot be read"), "{error}");
    assert!(error.help.as_deref().unwrap().contains("keep every fence"), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_removal_that_hangs_is_looked_at_again() {
    let far = goes();
    far.hangs(RM);
    assert!(far.run(&RbdLockRm, &with()).await.unwrap().changed);
}

#[tokio::test]
async fn a_lock_that_goes_in_the_same_moment_is_gone() {
    let far = goes();
    far.fails(RM, 2, "rbd: releasing lock failed: (2) No such file or directory\n");
    let ran = far.run(&RbdLockRm, &with()).await.unwrap();
    assert_eq!((ran.changed, &ran.outputs["removed"]), (false, &json!(false)));
}

#[tokio::test]
async fn no_permission_is_told_with_the_way_out() {
    let far = far(KUBELET, KUBELET_TEXT, UNWATCHED);
    far.fails(RM, 13, FORBIDDEN);
    let mut with = with();
    with["id"] = json!("ro");
    let error = far.run(&RbdLockRm, &with).await.unwrap_err();
    assert_eq!((error.class, error.exit_code), (Class::Permanent, Some(13)));
    assert!(error.message.contains("client.ro may not do that"), "{error}");
    assert!(error.help.unwrap().contains("profile rbd"));
}

/// The answer of the removal never came: the attempt was cut off, and left its note.
#[tokio::test]
async fn a_probe_tells_whether_it_was_this_step() {
    let far = far(KUBELET, KUBELET_TEXT, UNWATCHED);
    far.fails(RM, 110, "rbd: releasing lock failed: (110) Connection timed out\n");
    assert!(matches!(far.probe(&RbdLockRm, &with(), &Json::Null).await.unwrap(), Probe::NotDone));
    far.run(&RbdLockRm, &with()).await.unwrap_err();
    assert!(matches!(far.probe(&RbdLockRm, &with(), &Json::Null).await.unwrap(), Probe::NotDone), "it is there");
    far.on("lock ls --format json", "[]");
    assert!(matches!(far.probe(&RbdLockRm, &with(), &Json::Null).await.unwrap(), Probe::Done(a) if a.changed));
    assert!(far.run(&RbdLockRm, &with()).await.unwrap().changed, "another attempt says the same");

    let never = self::far("[]", "", UNWATCHED);
    assert!(matches!(never.probe(&RbdLockRm, &with(), &Json::Null).await.unwrap(), Probe::NotDone));
}

#[tokio::test]
async fn a_preview_shows_what_it_would_remove() {
    let far = far(KUBELET, KUBELET_TEXT, UNWATCHED);
    let preview = far.preview(&RbdLockRm, &with()).await.unwrap();
    assert_eq!(preview.changes, Some(true));
    assert!(preview.summary.contains("`kubelet_lock_magic_node1` of client.4112"), "{}", preview.summary);
    assert!(far.like("lock rm").is_empty());
}
