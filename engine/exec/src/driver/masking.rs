//! What of an event may hold a secret. Undo captures are sealed, so that they can be opened again; all else is
//! masked for good. Messages quote values and output, and mark where they cut them by an ellipsis: so what is left of a
//! secret there is known, too.

use runback_core::Json;
use runback_core::event::EventBody;
use runback_core::progress::Progress;
use runback_core::step::{Answer, StepError};

use crate::mask::Masker;

pub(super) fn mask(masker: &Masker, body: &mut EventBody) {
    if masker.is_empty() {
        return;
    }
    match body {
        EventBody::UndoArmed { capture, .. } => *capture = masker.seal(capture),
        EventBody::AttemptSucceeded { outputs, masked, .. } | EventBody::StepResolved { outputs, masked, .. } => {
            *masked = mask_outputs(masker, outputs);
        }
        EventBody::RunFinished { outputs, output_errors, .. } => {
            masker.mask_json(outputs);
            for why in output_errors.values_mut() {
                mask_text(masker, why);
            }
        }
        EventBody::StepNoted { note, .. } => masker.mask_json(note),
        EventBody::StepExpanded { items, .. } => {
            for item in items {
                let before = item.value.clone();
                masker.mask_json(&mut item.value);
                item.masked = item.value != before;
            }
        }
        EventBody::StepFailed { error, .. }
        | EventBody::AttemptFailed { error, .. }
        | EventBody::UndoFailed { error, .. } => mask_error(masker, error),
        EventBody::DoubtRaised { why, .. } => mask_text(masker, why),
        EventBody::UndoSucceeded { note: Some(note), .. } => mask_text(masker, note),
        EventBody::ApprovalRequested { question, .. } => {
            mask_text(masker, &mut question.prompt);
            masker.mask_json(&mut question.form);
        }
        EventBody::ApprovalGiven { answer, .. } | EventBody::ApprovalRefused { answer, .. } => {
            self::answer(masker, answer);
        }
        EventBody::ProcessStarted { .. }
        | EventBody::UndoSucceeded { note: None, .. }
        | EventBody::RunCreated(_)
        | EventBody::RunStarted {}
        | EventBody::BlockStarted { .. }
        | EventBody::StepSkipped { .. }
        | EventBody::AttemptStarted { .. }
        | EventBody::AttemptInterrupted { .. }
        | EventBody::LockTaken { .. }
        | EventBody::CancelRequested { .. }
        | EventBody::RollbackRequested { .. }
        | EventBody::HoldRequested { .. }
        | EventBody::RollbackStarted { .. }
        | EventBody::UndoStarted { .. }
        | EventBody::RunHeld { .. }
        | EventBody::RunResumed { .. } => {}
    }
}

/// Ephemeral, and on a screen all the same.
pub(super) fn progress(masker: &Masker, progress: &mut Progress) {
    match progress {
        Progress::Phase { text } | Progress::Percent { text, .. } => mask_text(masker, text),
    }
}

fn mask_text(masker: &Masker, text: &mut String) {
    if let Some(masked) = masker.mask_quoting(text) {
        *text = masked;
    }
}

/// Gives the names of those that held a secret: what is left of these must not be taken for their values.
fn mask_outputs(masker: &Masker, outputs: &mut Json) -> Vec<String> {
    let before = outputs.clone();
    masker.mask_json(outputs);
    let (Json::Object(before), Json::Object(after)) = (&before, &*outputs) else { return Vec::new() };
    after.iter().filter(|(name, value)| before.get(*name) != Some(*value)).map(|(name, _)| name.clone()).collect()
}

fn mask_error(masker: &Masker, error: &mut StepError) {
    mask_text(masker, &mut error.message);
    for text in [&mut error.help, &mut error.command].into_iter().flatten() {
        mask_text(masker, text);
    }
}

/// What a person wrote, for whoever stores it when no driver does.
pub fn answer(masker: &Masker, answer: &mut Answer) {
    if let Some(reason) = &mut answer.reason {
        mask_text(masker, reason);
    }
    masker.mask_json(&mut answer.fields);
}
