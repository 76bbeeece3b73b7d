//! What becomes of each instant: started, passed over, or not decided yet. Data only; who starts runs does it.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{Catchup, Firing, Overlap, Schedule};

/// An instant is started so much later than it was due, and not more: by a server that was there and busy, or, where it is
/// the latest, by one that has just come. Beyond it `catchup` says.
pub const LATE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Start,
    /// Why there is no run, in one word.
    PassOver(&'static str),
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdicts {
    /// In order.
    pub firings: Vec<(Firing, Verdict)>,
    /// Everything up to this instant is decided now.
    pub decided: Option<Timestamp>,
    /// When to look again: the next instant that was found and is not due.
    pub next_due: Option<Timestamp>,
}

/// Most instants that are decided at once; the others follow at the next look.
const AT_ONCE: usize = 1_000;

impl Schedule {
    /// Decides about what is due, all up to `decided` being decided already. `there`: since when there has been a server
    /// without a break; what was due before was missed by all of them. None: there has been none.
    pub fn decide(&self, decided: Timestamp, now: Timestamp, there: Option<Timestamp>, paused: bool) -> Verdicts {
        let jitter = signed(self.jitter);
        let window = signed(self.catchup_window.max(LATE));
        // What is older than what is caught up with is over, however much of it there was.
        let oldest = now.checked_sub(window).and_then(|t| t.checked_sub(jitter)).unwrap_or(Timestamp::MIN);
        let from = decided.max(oldest);
        let found = self.between(from, now, AT_ONCE);
        let all_seen = found.len() < AT_ONCE;
        let mut verdicts = Verdicts::default();
        let mut open = None;
        let mut missed = Vec::new();
        for firing in found {
            let due = firing.at.checked_add(signed(self.jitter_of(firing.at))).unwrap_or(firing.at);
            if due > now {
                open = open.or(Some(firing.at));
                verdicts.next_due = Some(verdicts.next_due.map_or(due, |next| next.min(due)));
                continue;
            }
            let late = now.duration_since(due);
            let verdict = match self.catchup {
                _ if paused => Verdict::PassOver("paused"),
                _ if late <= signed(LATE) && there.is_some_and(|since| due > since) => Verdict::Start,
                _ if late > window => Verdict::PassOver("missed"),
                Catchup::None if late > signed(LATE) => Verdict::PassOver("missed"),
                _ => {
                    missed.push(verdicts.firings.len());
                    Verdict::Start
                }
            };
            verdicts.firings.push((firing, verdict));
        }
        if self.catchup != Catchup::All {
            missed.pop();
            for at in missed {
                verdicts.firings[at].1 = Verdict::PassOver("missed");
            }
        }
        verdicts.decided = match (open, all_seen) {
            (Some(at), _) => at.checked_sub(SignedDuration::from_millis(1)).ok(),
            (None, true) => Some(now),
            (None, false) => verdicts.firings.last().map(|(f, _)| f.at),
        };
        verdicts
    }
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

/// What an instant does while other runs of its schedule live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meeting {
    Start,
    /// A run is made, and waits until the others are over.
    Wait,
    /// The others are cancelled; a run is made, and waits until they are over.
    Replace,
    PassOver(&'static str),
}

impl Overlap {
    /// `living`: runs of the schedule that are not over; `waiting`: those of them that have not begun.
    pub fn meets(self, living: usize, waiting: usize) -> Meeting {
        match self {
            _ if living == 0 => Meeting::Start,
            Self::Skip => Meeting::PassOver("overlap"),
            Self::BufferOne if waiting > 0 => Meeting::PassOver("buffered"),
            Self::BufferOne | Self::BufferAll => Meeting::Wait,
            Self::CancelOther => Meeting::Replace,
            Self::AllowAll => Meeting::Start,
        }
    }
}
