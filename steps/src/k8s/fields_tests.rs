use serde_json::json;

use super::*;

fn paths(changes: &[Change]) -> Vec<String> {
    changes.iter().map(|c| show_path(&c.path)).collect()
}

fn web() -> Json {
    json!({
        "metadata": { "name": "web", "resourceVersion": "1", "labels": { "app": "web" } },
        "spec": { "replicas": 2, "args": ["a", "b"], "containers": [
            { "name": "main", "image": "app:1", "env": [{ "name": "A", "value": "1" }] },
            { "name": "side", "image": "side:1" },
        ] },
        "status": { "replicas": 2 },
    })
}

fn changed() -> Json {
    json!({
        "metadata": { "name": "web", "resourceVersion": "2", "labels": { "app": "web" }, "annotations": { "why": "x" } },
        "spec": { "replicas": 3, "args": ["a"], "affinity": { "node": { "zone": "b" } }, "containers": [
            { "name": "main", "image": "app:2", "env": [{ "name": "B", "value": "2" }] },
            { "name": "side", "image": "side:1" },
        ] },
        "status": { "replicas": 3 },
    })
}

#[test]
fn a_diff_names_fields_and_leaves_the_servers_out() {
    let changes = diff(&web(), &changed());
    assert_eq!(
        paths(&changes),
        [
            ".metadata.annotations.why",
            ".spec.replicas",
            ".spec.args",
            ".spec.affinity.node.zone",
            ".spec.containers[name=\"main\"].image",
            ".spec.containers[name=\"main\"].env[name=\"A\"]",
            ".spec.containers[name=\"main\"].env[name=\"B\"]",
        ]
    );
    assert!(is_done(&changed(), &changes) && is_undone(&web(), &changes));
    assert!(!is_done(&web(), &changes) && !is_undone(&changed(), &changes));
}

#[test]
fn everything_comes_back_and_nothing_else_is_touched() {
    let changes = diff(&web(), &changed());
    let (back, count) = restore(&changed(), &changes, false).expect("no drift");
    assert_eq!((own(&back), count), (own(&web()), 7));
    // Others' additions beside ours stay, also in a map that the change made.
    let mut live = changed();
    live["metadata"]["annotations"]["theirs"] = json!("1");
    live["spec"]["containers"][1]["image"] = json!("side:9");
    let (back, _) = restore(&live, &changes, false).expect("no drift");
    assert_eq!(back["metadata"]["annotations"], json!({ "theirs": "1" }));
    assert_eq!(back["spec"]["containers"][1]["image"], "side:9");
    assert!(back["spec"].get("affinity").is_none());
    // What is back already counts as nothing.
    assert_eq!(restore(&web(), &changes, false), Ok((web(), 0)));
}

#[test]
fn a_field_that_somebody_else_changed_is_drift() {
    let changes = diff(&web(), &changed());
    let mut live = changed();
    live["spec"]["replicas"] = json!(7);
    let drifts = restore(&live, &changes, false).expect_err("drift");
    assert_eq!(drifts.len(), 1);
    assert_eq!((drifts[0].now.clone(), drifts[0].left.clone()), (Some(json!(7)), Some(json!(3))));
    let (back, _) = restore(&live, &changes, true).expect("forced");
    assert_eq!(own(&back), own(&web()));
}

#[test]
fn an_item_comes_back_to_its_place() {
    let before = json!({ "list": [{ "name": "a" }, { "name": "b", "x": 1 }, { "name": "c" }] });
    let after = json!({ "list": [{ "name": "a" }, { "name": "c" }] });
    let (back, _) = restore(&after, &diff(&before, &after), false).expect("no drift");
    assert_eq!(back, before);
}

#[test]
fn a_merge_patch_makes_one_of_the_other() {
    assert_eq!(merge_patch(&web(), &web()), None);
    let patch = merge_patch(
        &json!({ "a": 1, "b": { "c": 1, "d": 2 }, "l": [1] }),
        &json!({ "b": { "c": 1 }, "l": [2], "n": 0 }),
    );
    assert_eq!(patch, Some(json!({ "a": null, "b": { "d": null }, "l": [2], "n": 0 })));
}

#[test]
fn owners_are_found_by_managed_fields() {
    let object = json!({
        "metadata": { "managedFields": [
            { "manager": "a", "operation": "Apply", "time": "t", "fieldsV1": { "f:spec": { "f:replicas": {},
                "f:containers": { "k:{\"name\":\"main\"}": { ".": {}, "f:name": {} } } } } },
            { "manager": "edit", "operation": "Update", "time": "t", "fieldsV1": { "f:spec": {
                "f:containers": { "k:{\"name\":\"main\"}": { "f:image": {} } } } } },
        ] },
        "spec": { "replicas": 1, "containers": [{ "name": "main", "image": "x" }] },
    });
    let key = |k: &str| Seg::Key(k.to_owned());
    assert_eq!(owners(&object, &[key("spec"), key("replicas")]), ["\"a\" (Apply, t)"]);
    let image = [key("spec"), key("containers"), Seg::Item("name".to_owned(), json!("main")), key("image")];
    assert_eq!(owners(&object, &image), ["\"edit\" (Update, t)"]);
    assert_eq!(owners(&object, &[key("spec"), key("paused")]), Vec::<String>::new());
}
