//! `wait`: lets time pass, or waits for a point in time.
//!
//! The end is worked out once, when the step starts, and stored: a run that is resumed waits for what is left, not
//! anew. A point in time that is over is reached at once; a time of day without a date is the next one. To wait for
//! something to become so, use a check with a `retry`; to wait for a person, `approval`.

use std::time::Duration;

use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use runback_core::Json;
use runback_core::step::{
    Access, Acted, Commands, Cx, Descriptor, InputProblem, OnInterrupt, Preview, Probe, StepError, StepType, UndoKind,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bounded::pause;
use crate::http::look::problem;
use crate::period::Period;

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Inputs {
    /// How long.
    #[serde(default)]
    pub(crate) r#for: Option<Period>,
    /// Until when: `2026-11-28T22:00:00Z`, `2026-11-28 22:00` or `22:00`.
    #[serde(default)]
    pub(crate) until: Option<String>,
    /// For an `until` without an offset; an IANA name such as Europe/Berlin. Default UTC.
    #[serde(default)]
    #[schemars(extend("format" = "timezone"))]
    pub(crate) timezone: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Outputs {
    /// When the wait was over, as planned (RFC 3339).
    pub(crate) until: String,
}

/// See the module.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wait;

/// The key of the note that holds the end, in milliseconds since the epoch.
const NOTE: &str = "until_ms";

const EXAMPLES: &[&str] = &[
    "
- id: settle
  uses: wait
  with: { for: 30s }
",
    "
- id: window
  uses: wait
  with: { until: '22:00', timezone: Europe/Berlin }
",
];

#[async_trait::async_trait]
impl StepType for Wait {
    type Inputs = Inputs;
    type Outputs = Outputs;
    type Capture = ();

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "wait",
            doc: "Waits for a while, or until a point in time.",
            access: Access::Reads,
            undo: UndoKind::None,
            on_interrupt: OnInterrupt::Rerun,
            commands: Commands::None,
            examples: EXAMPLES,
        }
    }

    fn problems(&self, inputs: &Inputs) -> Vec<InputProblem> {
        let mut found = Vec::new();
        match (&inputs.r#for, &inputs.until) {
            (None, None) => found.push(problem(&[], "give `for` or `until`".to_owned())),
            (Some(_), Some(_)) => found.push(problem(&["until"], "give `for` or `until`, not both".to_owned())),
            (Some(_), None) if inputs.timezone.is_some() => {
                found.push(problem(&["timezone"], "`for` needs no time zone".to_owned()));
            }
            _ => {}
        }
        match zone(inputs.timezone.as_deref()) {
            Err(e) => found.push(problem(&["timezone"], e)),
            Ok(zone) => {
                if let Some(Err(e)) = inputs.until.as_deref().map(|u| instant(u, &zone, Timestamp::UNIX_EPOCH)) {
                    found.push(problem(&["until"], e));
                }
            }
        }
        found
    }

    async fn preview(&self, cx: &Cx<'_>, inputs: &Inputs) -> Result<Preview, StepError> {
        let summary = match inputs.r#for {
            Some(period) => format!("wait {period}"),
            None => format!("wait until {}", end(inputs, now(cx)?)?),
        };
        Ok(Preview { changes: Some(false), summary, details: Vec::new() })
    }

    async fn capture(&self, _cx: &Cx<'_>, _inputs: &Inputs) -> Result<(), StepError> {
        Ok(())
    }

    async fn act(&self, cx: &Cx<'_>, inputs: &Inputs, (): &()) -> Result<Acted<Outputs>, StepError> {
        let noted = cx.host.notes().iter().find_map(|n| n.get(NOTE).and_then(Json::as_i64));
        let end = if let Some(end) = noted.and_then(|ms| Timestamp::from_millisecond(ms).ok()) {
            end
        } else {
            let end = end(inputs, now(cx)?)?;
            cx.host.note(serde_json::json!({ NOTE: end.as_millisecond() })).await?;
            end
        };
        cx.phase(format!("until {end}"));
        // A sleep may end early or the clock may have been set meanwhile: look again.
        loop {
            let left = end.as_millisecond() - now(cx)?.as_millisecond();
            let Ok(left @ 1..) = u64::try_from(left) else { break };
            pause(cx, Duration::from_millis(left), "wait").await?;
        }
        Ok(Acted::unchanged(Outputs { until: end.to_string() }))
    }

    async fn probe(&self, _cx: &Cx<'_>, _inputs: &Inputs, (): &()) -> Result<Probe<Outputs>, StepError> {
        Ok(Probe::NotDone)
    }
}

fn now(cx: &Cx<'_>) -> Result<Timestamp, StepError> {
    let ms = cx.host.now_ms().cast_signed();
    Timestamp::from_millisecond(ms).map_err(|e| StepError::permanent(format!("the clock cannot be read: {e}")))
}

fn end(inputs: &Inputs, now: Timestamp) -> Result<Timestamp, StepError> {
    let end = match (&inputs.r#for, &inputs.until) {
        (Some(period), _) => now.checked_add(period.0).map_err(|e| format!("`for` is too long: {e}")),
        (None, Some(text)) => zone(inputs.timezone.as_deref()).and_then(|zone| instant(text, &zone, now)),
        (None, None) => Err("give `for` or `until`".to_owned()),
    };
    end.map_err(StepError::permanent)
}

fn zone(name: Option<&str>) -> Result<TimeZone, String> {
    match name {
        None => Ok(TimeZone::UTC),
        Some(name) => TimeZone::get(name)
            .map_err(|_| format!("`{name}` is not a time zone; write an IANA name such as Europe/Berlin")),
    }
}

/// A local time in a gap is taken after it, one that stands twice the first time.
fn instant(text: &str, zone: &TimeZone, now: Timestamp) -> Result<Timestamp, String> {
    if let Ok(instant) = text.parse::<Timestamp>() {
        return Ok(instant);
    }
    let out_of_range = |e: jiff::Error| format!("`{text}`: {e}");
    if text.contains('-')
        && let Ok(local) = text.parse::<DateTime>()
    {
        return zone.to_timestamp(local).map_err(out_of_range);
    }
    let Ok(time) = text.parse::<Time>() else {
        return Err(format!("`{text}` is not a time; write it like 2026-11-28T22:00:00Z, 2026-11-28 22:00 or 22:00"));
    };
    let today = zone.to_datetime(now).date();
    let first = zone.to_timestamp(today.to_datetime(time)).map_err(out_of_range)?;
    if first >= now {
        return Ok(first);
    }
    let tomorrow = today.checked_add(1.day()).map_err(out_of_range)?;
    zone.to_timestamp(tomorrow.to_datetime(time)).map_err(out_of_range)
}

#[cfg(test)]
#[path = "wait_tests.rs"]
mod tests;
