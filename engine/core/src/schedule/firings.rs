//! From times on the wall to instants, in order, each once.

use std::time::Duration;

use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Span, Timestamp, civil};
use schemars::JsonSchema;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{Fold, Gap, Schedule};

/// One instant at which a schedule fires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firing {
    pub at: Timestamp,
    /// What the expression asked for, on the clock on the wall.
    pub wall: civil::DateTime,
    pub placed: Placed,
}

/// How a time on the wall became an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Placed {
    Plain,
    /// The clock skips it: later by the length of the gap.
    Shifted,
    /// The clock shows it twice: the first time.
    First,
    /// The clock shows it twice: the last time.
    Last,
}

impl Placed {
    /// Words for people; None where there was nothing to decide.
    pub fn explain(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Shifted => Some("the clock is set forward over this time: it fires later by as much"),
            Self::First => Some("the clock is set back and shows this time twice: the first time"),
            Self::Last => Some("the clock is set back and shows this time twice: the last time"),
        }
    }
}

/// No change of a zone's offset is larger; Samoa left out a whole day.
const LARGEST_SHIFT_HOURS: i64 = 25;

impl Firing {
    /// Milliseconds since the epoch.
    pub fn at_ms(&self) -> u64 {
        u64::try_from(self.at.as_millisecond()).unwrap_or_default()
    }
}

impl Schedule {
    /// What fires after `after` and not after `until`, in order; the first `limit` of it.
    pub fn between(&self, after: Timestamp, until: Timestamp, limit: usize) -> Vec<Firing> {
        let after = self.start.map_or(after, |start| after.max(start - SignedDuration::from_nanos(1)));
        let until = self.end.map_or(until, |end| until.min(end - SignedDuration::from_nanos(1)));
        if after >= until || limit == 0 {
            return Vec::new();
        }
        // Times on the wall and instants have the same order, but for as long as an offset changes by.
        let (before, behind) = (self.unrest(after), self.unrest(until));
        let wall = |at: Timestamp| at.to_zoned(self.zone.clone()).datetime();
        let (Ok(first), Ok(last)) = (wall(after).checked_sub(before), wall(until).checked_add(behind)) else {
            return Vec::new();
        };
        let mut found = Vec::new();
        for wall in Walls::new(self, first) {
            if wall > last {
                break;
            }
            self.place(wall, &mut found);
            if found.len() >= limit.saturating_add(2) && self.is_settled(&mut found, wall, after, until, limit) {
                break;
            }
        }
        tidy(&mut found, after, until);
        found.truncate(limit);
        found
    }

    /// The next `count` after `after`, if they come within `years`.
    pub fn next(&self, after: Timestamp, count: usize, years: i64) -> Vec<Firing> {
        let until = after.checked_add(SignedDuration::from_hours(years * 24 * 366)).unwrap_or(Timestamp::MAX);
        self.between(after, until, count)
    }

    /// Enough was found, and nothing that is still to come can stand before it.
    fn is_settled(
        &self,
        found: &mut Vec<Firing>,
        wall: civil::DateTime,
        after: Timestamp,
        until: Timestamp,
        limit: usize,
    ) -> bool {
        tidy(found, after, until);
        let Some(last) = found.get(limit - 1) else { return false };
        let here = self.zone.to_ambiguous_zoned(wall).compatible().map(|z| z.timestamp());
        let margin = here.as_ref().map_or(Span::new(), |at| self.unrest(*at));
        let margin = margin.total(jiff::Unit::Second).unwrap_or_default();
        here.is_ok_and(|at| at.duration_since(last.at).as_secs_f64() > margin)
    }

    /// By how much the zone's offset changes around an instant; nothing on all but a few days.
    fn unrest(&self, at: Timestamp) -> Span {
        let reach = SignedDuration::from_hours(LARGEST_SHIFT_HOURS);
        let from = at.checked_sub(reach).unwrap_or(Timestamp::MIN);
        let to = at.checked_add(reach).unwrap_or(Timestamp::MAX);
        let mut largest = 0;
        for change in self.zone.following(from).take_while(|change| change.timestamp() <= to) {
            let before = self.zone.to_offset(change.timestamp() - SignedDuration::from_nanos(1));
            largest = largest.max((change.offset().seconds() - before.seconds()).abs());
        }
        Span::new().seconds(largest)
    }

    /// The instants of one time on the wall.
    fn place(&self, wall: civil::DateTime, found: &mut Vec<Firing>) {
        let ambiguous = self.zone.to_ambiguous_timestamp(wall);
        let mut add = |at: Result<Timestamp, jiff::Error>, placed| {
            if let Ok(at) = at {
                found.push(Firing { at, wall, placed });
            }
        };
        match ambiguous.offset() {
            AmbiguousOffset::Unambiguous { .. } => add(ambiguous.compatible(), Placed::Plain),
            AmbiguousOffset::Gap { .. } => match self.gap {
                Gap::Shift => add(ambiguous.later(), Placed::Shifted),
                Gap::Skip => {}
            },
            AmbiguousOffset::Fold { .. } => {
                if self.fold != Fold::Last {
                    add(ambiguous.earlier(), Placed::First);
                }
                if self.fold != Fold::First {
                    add(ambiguous.later(), Placed::Last);
                }
            }
        }
    }

    /// How much later than its instant it starts: always the same for the same schedule and instant.
    pub fn jitter_of(&self, at: Timestamp) -> Duration {
        let most = u64::try_from(self.jitter.as_millis()).unwrap_or(u64::MAX);
        if most == 0 {
            return Duration::ZERO;
        }
        let mut hasher = Sha256::new();
        hasher.update(self.key.as_bytes());
        hasher.update(at.as_millisecond().to_le_bytes());
        let digest: [u8; 32] = hasher.finalize().into();
        let random = digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte));
        Duration::from_millis(random % most.saturating_add(1))
    }
}

/// In order, each instant once, only those wanted. A time of its own wins over one that was shifted onto it.
fn tidy(found: &mut Vec<Firing>, after: Timestamp, until: Timestamp) {
    found.retain(|f| f.at > after && f.at <= until);
    found.sort_by_key(|f| (f.at, f.placed == Placed::Shifted));
    found.dedup_by_key(|f| f.at);
}

/// Times on the wall that an expression names, from one on, without a zone.
struct Walls<'s> {
    schedule: &'s Schedule,
    next: Option<civil::DateTime>,
    inclusive: bool,
}

impl<'s> Walls<'s> {
    fn new(schedule: &'s Schedule, first: civil::DateTime) -> Self {
        // croner counts in whole seconds.
        let whole = civil::DateTime::from_parts(
            first.date(),
            first.time().with().subsec_nanosecond(0).build().unwrap_or_default(),
        );
        Self { schedule, next: Some(whole), inclusive: true }
    }
}

impl Iterator for Walls<'_> {
    type Item = civil::DateTime;

    fn next(&mut self) -> Option<civil::DateTime> {
        let from = self.next?;
        let zoned = TimeZone::UTC.to_zoned(from).ok()?;
        // The search of croner gives up where there is no such day for long; what is found later still counts.
        let mut start = zoned;
        let mut inclusive = self.inclusive;
        for _ in 0..12 {
            if let Ok(found) = self.schedule.cron.find_next_occurrence(&start, inclusive) {
                let wall = found.datetime();
                self.next = Some(wall);
                self.inclusive = false;
                return Some(wall);
            }
            let year = civil::Date::new(start.year().checked_add(1)?, 1, 1).ok()?;
            start = TimeZone::UTC.to_zoned(year.at(0, 0, 0, 0)).ok()?;
            inclusive = true;
        }
        self.next = None;
        None
    }
}
