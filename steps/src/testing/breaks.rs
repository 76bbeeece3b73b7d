//! Breaks a step at every operation that changes something, and looks at what is left.

#![expect(clippy::unwrap_used, reason = "tests")]

use runback_core::Json;
use runback_core::step::AnyStepType;

use super::{Failing, Lab};

/// Breaks an action at each of its changing operations in turn, before and after the operation did its work, and
/// checks each time that undo (also when called twice) brings back what was there; and that acting again after the
/// break ends as an unbroken run does. Then does the same to the undo of a finished action. Returns how many breaks of
/// the action there were.
pub(crate) async fn break_everywhere(
    step_type: &dyn AnyStepType,
    prepare: impl Fn(&Lab),
    with: impl Fn(&Lab) -> Json,
) -> usize {
    let wanted = {
        let lab = Lab::new();
        prepare(&lab);
        lab.run(step_type, &with(&lab)).await.unwrap();
        lab.snapshot()
    };
    break_undo_everywhere(step_type, &prepare, &with).await;
    let mut breaks = 0;
    for how in [Failing::Before, Failing::After] {
        for n in 0.. {
            let lab = Lab::new();
            prepare(&lab);
            let before = lab.snapshot();
            let with = with(&lab);
            let capture = lab.capture(step_type, &with).await.unwrap();
            assert_eq!(before, lab.snapshot(), "capture changes nothing");
            lab.target.fail_at(n, how);
            let acted = lab.act(step_type, &with, &capture).await;
            let hit = lab.target.changes.lock().unwrap().len() > n;
            lab.target.heal();
            if !hit {
                acted.unwrap();
                break;
            }
            breaks += 1;
            // Another attempt of the same action, on a second lab broken the same way.
            let again = Lab::new();
            prepare(&again);
            let same = again.capture(step_type, &moved(&with, &lab, &again)).await.unwrap();
            again.target.fail_at(n, how);
            let _ = again.act(step_type, &moved(&with, &lab, &again), &same).await;
            again.target.heal();
            again.act(step_type, &moved(&with, &lab, &again), &same).await.unwrap();
            assert_eq!(wanted, again.snapshot(), "acting again after break {n} ({how:?})");

            lab.undo_unfinished(step_type, &with, &capture).await.unwrap();
            assert_eq!(before, lab.snapshot(), "undo after break {n} ({how:?})");
            let twice = lab.undo_unfinished(step_type, &with, &capture).await.unwrap();
            assert!(!twice.changed, "a second undo has nothing to do");
            assert_eq!(before, lab.snapshot());
        }
    }
    breaks
}

/// Breaks the undo of a finished action at each of its changing operations, and checks that the next try brings back
/// what was there.
async fn break_undo_everywhere(step_type: &dyn AnyStepType, prepare: impl Fn(&Lab), with: impl Fn(&Lab) -> Json) {
    for how in [Failing::Before, Failing::After] {
        for n in 0.. {
            let lab = Lab::new();
            prepare(&lab);
            let before = lab.snapshot();
            let with = with(&lab);
            let ran = lab.run(step_type, &with).await.unwrap();
            lab.target.fail_at(n, how);
            let done = lab.target.changes.lock().unwrap().len();
            let undone = lab.undo(step_type, &with, &ran).await;
            let hit = lab.target.changes.lock().unwrap().len() > done + n;
            lab.target.heal();
            if !hit {
                undone.unwrap();
                assert_eq!(before, lab.snapshot());
                break;
            }
            lab.undo(step_type, &with, &ran).await.unwrap();
            assert_eq!(before, lab.snapshot(), "undo after a break of undo at {n} ({how:?})");
        }
    }
}

/// The same inputs for another lab: its folder stands in for the first one's.
fn moved(with: &Json, from: &Lab, to: &Lab) -> Json {
    let text = with.to_string().replace(&from.path(""), &to.path(""));
    serde_json::from_str(&text).unwrap()
}
