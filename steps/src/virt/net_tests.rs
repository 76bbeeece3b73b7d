//! `virt.net` and `virt.pool` where the definition fails: what an admin makes by hand meanwhile is not theirs to undo.

#![expect(clippy::unwrap_used, reason = "tests")]

use runback_core::Json;
use runback_core::step::{AnyStepType, Class};
use serde_json::json;

use crate::rbd::recorded::Far;
use crate::virt::net::VirtNet;
use crate::virt::pool::VirtPool;

const NET: &str =
    "Name:           x\nUUID:           aaaa\nActive:         yes\nPersistent:     yes\nAutostart:      yes\n";
const POOL: &str =
    "Name:           x\nUUID:           aaaa\nState:          running\nPersistent:     yes\nAutostart:      yes\n";

struct Case {
    of: &'static dyn AnyStepType,
    with: Json,
    kind: &'static str,
    none: &'static str,
    there: &'static str,
}

fn cases(defined: bool) -> [Case; 2] {
    let (net, pool) = if defined {
        (json!({"network": "x", "bridge": "br0"}), json!({"pool": "x", "path": "/pool"}))
    } else {
        (json!({"network": "x"}), json!({"pool": "x"}))
    };
    let no_pool =
        "error: failed to get pool 'x'\nerror: Storage pool not found: no storage pool with matching name 'x'\n";
    let no_net = "error: failed to get network 'x'\nerror: Network not found: no network with matching name 'x'\n";
    [
        Case { of: &VirtNet, with: net, kind: "net", none: no_net, there: NET },
        Case { of: &VirtPool, with: pool, kind: "pool", none: no_pool, there: POOL },
    ]
}

#[tokio::test]
async fn what_others_made_after_a_failure_stays() {
    for defined in [false, true] {
        for Case { of, with, kind, none, there } in cases(defined) {
            let far = Far::new();
            let info = format!("{kind}-info x");
            far.fails(&info, 1, none);
            far.file("/pool/there", "");
            far.fails("net-define", 1, "error: Failed to define network\n");
            far.fails("pool-define-as x dir --target /pool", 1, "error: Failed to define pool x\n");
            let capture = far.capture(of, &with).await.unwrap();
            far.act(of, &with, &capture).await.unwrap_err();
            far.on(&info, there);
            assert!(!far.undo(of, &with, &capture, None).await.unwrap().changed, "{kind}");
            for verb in ["destroy", "undefine", "--disable"] {
                assert!(far.like(verb).is_empty(), "{kind}: {:?}", far.like(verb));
            }
        }
    }
}

#[tokio::test]
async fn another_one_of_that_name_is_drift() {
    for Case { of, with, kind, none, there } in cases(true) {
        let far = Far::new();
        let info = format!("{kind}-info x");
        far.fails(&info, 1, none);
        far.file("/pool/there", "");
        let capture = far.capture(of, &with).await.unwrap();
        far.host.notes.lock().unwrap().extend([json!({"begins": true}), json!({"made": "bbbb"})]);
        far.on(&info, there);
        assert_eq!(far.undo(of, &with, &capture, None).await.unwrap_err().class, Class::Conflict, "{kind}");
        assert!(far.like("destroy").is_empty());
    }
}
