//! When a playbook starts by the clock: the instants of one entry of `schedule:` between two others, with what was
//! decided where clocks are set forward or back. Reads no clock and starts nothing.
//!
//! A cron expression is about the clock on the wall. Its times are found without a time zone, and each is then placed
//! in the zone: a time that the clock skips is shifted by the length of the gap (02:30 becomes 03:30) or left out, one
//! that it shows twice is taken the first time, the last, or both. An expression with a `*` in its hours is a rhythm
//! and not a time of day: where its author says nothing, it fires in both hours.

mod decide;
mod firings;
#[cfg(test)]
mod tests;

use std::time::Duration;

use croner::Cron;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Map;
use sha2::{Digest as _, Sha256};

use crate::Json;
use crate::playbook::duration;
use crate::playbook::lower::schedule::{instant, parse_cron};
use crate::playbook::model;
use crate::playbook::yaml::Node;

pub use decide::{LATE, Meeting, Verdict, Verdicts};
pub use firings::{Firing, Placed};

/// How far back missed instants are caught up with where `catchup_window` says nothing.
pub const CATCHUP_WINDOW: Duration = Duration::from_secs(600);

macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident),+ $(,)? }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum $name {
            $($(#[$doc])* $variant),+
        }
    };
}

words!(
    /// What becomes of a time that the clock on the wall skips.
    Gap {
        /// Later by the length of the gap.
        Shift,
        Skip,
    }
);
words!(
    /// What becomes of a time that the clock on the wall shows twice.
    Fold {
        First,
        Last,
        Both,
    }
);
words!(
    /// What becomes of an instant while an earlier run of the schedule lives.
    Overlap {
        Skip,
        /// One waits for the run that lives, more are passed over.
        BufferOne,
        BufferAll,
        /// The run that lives is cancelled.
        CancelOther,
        AllowAll,
    }
);
words!(
    /// What becomes of instants at which no server was there. One that is decided at most 30 seconds late is on time, and
    /// is not meant.
    Catchup {
        None,
        /// Only the newest of them.
        Last,
        All,
    }
);

/// One entry of `schedule:`, read.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// The same for the same expression, zone and inputs, wherever the entry stands in its list.
    pub key: String,
    pub cron_text: String,
    pub zone_name: String,
    pub gap: Gap,
    pub fold: Fold,
    /// At most so much later than its instant, always the same for the same instant.
    pub jitter: Duration,
    pub start: Option<Timestamp>,
    pub end: Option<Timestamp>,
    pub overlap: Overlap,
    pub catchup: Catchup,
    pub catchup_window: Duration,
    /// As the playbook says; whether it is paused now is the store's to say.
    pub paused: bool,
    pub pause_on_failure: bool,
    pub inputs: Map<String, Json>,
    cron: Cron,
    zone: TimeZone,
}

impl Schedule {
    /// The schedules of a playbook, `owner` being what tells it from others. They were checked: what cannot be read now
    /// is left out, with its reason.
    pub fn all(owner: &str, entries: &[model::Schedule]) -> (Vec<Self>, Vec<String>) {
        let (mut all, mut bad) = (Vec::<Self>::new(), Vec::new());
        for entry in entries {
            match Self::read(owner, entry) {
                Ok(mut schedule) => {
                    // The same entry twice: each has its own runs.
                    let twins = all.iter().filter(|s| s.key.split('~').next() == Some(&schedule.key)).count();
                    if twins > 0 {
                        schedule.key = format!("{}~{}", schedule.key, twins + 1);
                    }
                    all.push(schedule);
                }
                Err(why) => bad.push(why),
            }
        }
        (all, bad)
    }

    fn read(owner: &str, entry: &model::Schedule) -> Result<Self, String> {
        let cron_text = entry.cron.value.clone();
        let cron = parse_cron(&cron_text)?;
        let zone_name = entry.timezone.as_ref().map_or_else(|| "UTC".to_owned(), |z| z.value.clone());
        let zone = jiff::tz::db().get(&zone_name).map_err(|e| e.to_string())?;
        let keys = Keys(&entry.node);
        let inputs = match keys.0.get("inputs").map(Node::to_json) {
            Some(Json::Object(inputs)) => inputs,
            _ => Map::new(),
        };
        let both = if is_rhythm(&cron_text) { Fold::Both } else { Fold::First };
        Ok(Self {
            key: key(owner, &cron_text, &zone_name, &inputs),
            gap: keys.word("dst_gap")?.unwrap_or(Gap::Shift),
            fold: keys.word("dst_fold")?.unwrap_or(both),
            jitter: keys.duration("jitter")?.unwrap_or_default(),
            start: keys.instant("start_at", &zone)?,
            end: keys.instant("end_at", &zone)?,
            overlap: keys.word("overlap")?.unwrap_or(Overlap::Skip),
            catchup: keys.word("catchup")?.unwrap_or(Catchup::Last),
            catchup_window: keys.duration("catchup_window")?.unwrap_or(CATCHUP_WINDOW),
            paused: keys.flag("paused"),
            pause_on_failure: keys.flag("pause_on_failure"),
            inputs,
            cron_text,
            zone_name,
            cron,
            zone,
        })
    }
}

/// Its hours are `*`: it is about how often, not about a time of day.
fn is_rhythm(cron: &str) -> bool {
    let fields: Vec<&str> = cron.split_whitespace().collect();
    match fields.as_slice() {
        [nickname] => *nickname == "@hourly",
        [.., hours, _, _, _] => hours.starts_with('*'),
        _ => false,
    }
}

fn key(owner: &str, cron: &str, zone: &str, inputs: &Map<String, Json>) -> String {
    let mut hasher = Sha256::new();
    let inputs = Json::Object(inputs.clone()).to_string();
    for text in [cron, zone, &inputs] {
        hasher.update((text.len() as u64).to_le_bytes());
        hasher.update(text);
    }
    let digest = hasher.finalize();
    let short = digest.iter().take(4).fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    format!("{owner}@{short}")
}

/// The keys that were only checked when the playbook was read.
struct Keys<'a>(&'a Node);

impl Keys<'_> {
    fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.as_str()
    }

    fn word<T: for<'de> Deserialize<'de>>(&self, key: &str) -> Result<Option<T>, String> {
        let Some(text) = self.text(key) else { return Ok(None) };
        serde_json::from_value(text.into()).map(Some).map_err(|e| format!("{key}: {e}"))
    }

    fn duration(&self, key: &str) -> Result<Option<Duration>, String> {
        let Some(text) = self.text(key) else { return Ok(None) };
        duration::parse(text).map(Some).map_err(|e| format!("{key}: {}", e.message))
    }

    fn flag(&self, key: &str) -> bool {
        self.0.get(key).is_some_and(|n| n.to_json() == Json::Bool(true))
    }

    fn instant(&self, key: &str, zone: &TimeZone) -> Result<Option<Timestamp>, String> {
        let Some(text) = self.text(key) else { return Ok(None) };
        instant(text, zone).map(Some).map_err(|e| format!("{key}: {e}"))
    }
}
