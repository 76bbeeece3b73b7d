//! Words and signs for states, times and amounts, the same in every report.

use std::time::Duration;

use runback_core::event::OnFailure;
use runback_core::plan::PlanAction;
use runback_core::state::{Node, NodeId, Phase, RunState, Status, UndoStatus, Wish};
use runback_core::step::{Access, UndoKind};

use crate::term::{BLUE, CYAN, DIM, GREEN, RED, YELLOW};

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |text, byte| text + &format!("{byte:02x}"))
}

/// What a rollback does about a step, in one sign.
pub(crate) fn undo_sign(action: &PlanAction) -> &'static str {
    match (action.access, action.undo_kind()) {
        (Access::Reads, UndoKind::None) => "·",
        (_, UndoKind::Full) => "↶",
        (_, UndoKind::None) => "–",
        (_, UndoKind::Impossible) => "✗",
    }
}

/// The sign and colour of a step's state.
pub(crate) fn state_sign(status: &str) -> (&'static str, &'static str) {
    match status {
        "ready" => ("○", ""),
        "running" => ("●", BLUE),
        "backoff" => ("↻", YELLOW),
        "succeeded" => ("✓", GREEN),
        "failed" | "undo-failed" => ("✗", RED),
        "skipped" => ("⊘", DIM),
        "cancelled" => ("■", YELLOW),
        "interrupted" => ("?", YELLOW),
        "undoing" => ("↶", CYAN),
        "undone" => ("↶", GREEN),
        "kept" => ("=", YELLOW),
        // blocked
        _ => ("·", DIM),
    }
}

/// A step's state in words: what a run that is over has never begun waits for nothing.
pub(crate) fn state_word(status: &'static str, over: bool) -> &'static str {
    match status {
        "blocked" | "ready" if over => "not started",
        other => other,
    }
}

/// The same of one step. What says that it runs, and nobody drives the run, was cut off; what holds such steps is not
/// done.
pub(crate) fn step_word(state: &RunState, node: NodeId, driven: bool) -> &'static str {
    let over = matches!(state.phase, Phase::Held(_) | Phase::Finished(_));
    let lives_on = state.node(node).detached().is_some() || state.node(node).question().is_some();
    match state.status_name(node) {
        "running" if driven && !over => "running",
        "running" if state.step(node).action().is_none() => "unfinished",
        "running" if !lives_on => "interrupted",
        "failed" if !has_failed(state, node) => "cancelled",
        other => state_word(other, over),
    }
}

/// Since when a step is at it, in milliseconds since the epoch. What is tried again after the run was taken up began then:
/// what lay there for a day took no day.
pub(crate) fn at_it_since(state: &RunState, node: NodeId) -> Option<u64> {
    let n = state.node(node);
    n.started_at.map(|at| if n.attempts > 1 { at.max(state.going_since) } else { at })
}

/// It failed by itself, or something in it did: a block in which a step was only stopped has not.
pub(crate) fn has_failed(state: &RunState, node: NodeId) -> bool {
    let n = state.node(node);
    if state.step(node).action().is_some() {
        return n.status == Status::Failed;
    }
    n.error().is_some() || state.children(node).into_iter().any(|inside| has_failed(state, inside))
}

/// What failed first.
pub(crate) fn failure(state: &RunState) -> Option<NodeId> {
    state.failure.filter(|node| has_failed(state, *node))
}

/// What settled the question of a step: `ann@desk said no: not today`.
pub(crate) fn verdict(node: &Node) -> Option<String> {
    let answer = node.verdict()?;
    let word = if answer.approved { "yes" } else { "no" };
    let reason = answer.reason.as_ref().map(|r| format!(": {r}")).unwrap_or_default();
    Some(format!("{} said {word}{reason}", answer.by))
}

/// What a resume does with a run that is on its way to something else than its end: that stands in its journal, and does
/// not go with the process.
pub(crate) fn on_its_way(state: &RunState) -> Option<&'static str> {
    match (state.phase, &state.wish, state.cancel) {
        (Phase::RollingBack, ..) | (_, Some(Wish::Rollback { .. }), _) => Some("go on taking it back"),
        (_, Some(Wish::Hold), _) => Some("stop, and hold it as it stands"),
        (Phase::Running, None, Some(_)) => Some(match state.on_failure() {
            OnFailure::Rollback => "take it back, for it was cancelled",
            OnFailure::Hold => "hold it as it stands, for it was cancelled",
            OnFailure::Continue => "end it as it stands, for it was cancelled",
        }),
        _ => None,
    }
}

/// What somebody asked for, while what runs is not over yet.
pub(crate) fn asked_for(state: &RunState) -> Option<&'static str> {
    match (&state.wish, state.cancel) {
        (Some(Wish::Rollback { .. }), _) => {
            Some("it was asked back: what runs is being stopped, then it is taken back")
        }
        (Some(Wish::Hold), _) => Some("it is to be held: nothing new starts, and what runs may finish"),
        (None, Some(_)) => Some(match state.on_failure() {
            OnFailure::Rollback => "it was cancelled: what runs is being stopped, then it is taken back",
            OnFailure::Hold => "it was cancelled: what runs is being stopped, then it is held",
            OnFailure::Continue => "it was cancelled: what runs is being stopped, then it is over",
        }),
        (None, None) => None,
    }
}

/// What is to be said of the undo of a step that is undone.
pub(crate) fn undo_note(node: &Node) -> Option<String> {
    let rare = node.rare.as_ref().filter(|_| node.undo == UndoStatus::Undone)?;
    let by_hand = rare.undo_settled_by.as_ref().map(|by| format!("taken back by hand, says {by}"));
    by_hand.or_else(|| rare.undo_note.clone())
}

/// The colour of a run's state.
pub(crate) fn run_color(status: &str) -> &'static str {
    match status {
        "succeeded" => GREEN,
        "failed" | "stuck" => RED,
        "running" => BLUE,
        _ => YELLOW,
    }
}

/// `34ms`, `0.4s`, `12s`, `3m05s`, `2h07m`, `4d03h`.
pub(crate) fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0 if ms < 100 => format!("{ms}ms"),
        0..10 => format!("{seconds}.{}s", ms % 1000 / 100),
        10..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// A configured duration as an author writes it: `10m`, `1h30m`, `500ms`.
pub(crate) fn span(duration: Duration) -> String {
    let ms = duration.as_millis() as u64;
    if ms == 0 {
        return "0s".to_owned();
    }
    let parts = [(ms / 3_600_000, "h"), (ms / 60_000 % 60, "m"), (ms / 1000 % 60, "s"), (ms % 1000, "ms")];
    let parts: Vec<String> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
    parts.concat()
}

pub(crate) fn plural(n: usize, what: &str) -> String {
    format!("{} {what}{}", grouped(n), if n == 1 { "" } else { "s" })
}

/// `9,981`.
pub(crate) fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// The local clock: `18:47:03`.
pub(crate) fn clock(ms: u64) -> String {
    local(ms).map_or_else(String::new, |t| t.strftime("%H:%M:%S").to_string())
}

/// The local date and clock: `2026-11-21 18:47:03`.
pub(crate) fn date(ms: u64) -> String {
    local(ms).map_or_else(String::new, |t| t.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

fn local(ms: u64) -> Option<jiff::Zoned> {
    let at = jiff::Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok()?;
    Some(at.to_zoned(jiff::tz::TimeZone::system()))
}

/// Milliseconds since the epoch, for people.
pub(crate) fn now_ms() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        let table = [
            (0, "0ms"),
            (99, "99ms"),
            (450, "0.4s"),
            (9_990, "9.9s"),
            (59_999, "59s"),
            (185_000, "3m05s"),
            (7_620_000, "2h07m"),
        ];
        for (ms, text) in table {
            assert_eq!(duration(ms), text);
        }
        assert_eq!(span(Duration::from_millis(5_400_500)), "1h30m500ms");
    }

    #[test]
    fn large_numbers_are_grouped() {
        assert_eq!([grouped(7), grouped(1_000), grouped(1_234_567)], ["7", "1,000", "1,234,567"]);
    }
}
