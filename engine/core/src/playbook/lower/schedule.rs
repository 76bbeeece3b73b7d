//! `schedule`: when a playbook starts by the clock. Checked here; `runback serve` fires it.

use croner::Cron;
use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};
use jiff::civil;
use jiff::tz::TimeZone;

use super::fields::{Fields, Keys};
use super::{Lower, head};
use crate::diagnostic::{Code, Diagnostic};
use crate::playbook::model::Schedule;
use crate::playbook::yaml::Node;
use crate::span::Spanned;
use crate::template::problem::nearest;

impl Lower<'_> {
    pub(super) fn schedules(&mut self, node: &Node) -> Vec<Schedule> {
        if node.as_map().is_some() || node.as_str().is_some() {
            let message = format!("`schedule` must be a list, not {}", node.kind());
            let span = head(self.text, node.span);
            let help = "write it as a list: `- cron: \"0 3 * * *\"`";
            self.report(Diagnostic::new(Code::WrongType, message, span, node.kind()).help(help));
            return Vec::new();
        }
        let Some(items) = self.list(node, "schedule") else { return Vec::new() };
        items.iter().filter_map(|item| self.schedule(item)).collect()
    }

    fn schedule(&mut self, node: &Node) -> Option<Schedule> {
        const SCHEDULE: Keys = Keys {
            of: "an entry of `schedule`",
            known: &[
                "cron",
                "timezone",
                "jitter",
                "start_at",
                "end_at",
                "paused",
                "inputs",
                "overlap",
                "catchup_window",
                "catchup",
                "dst_gap",
                "dst_fold",
                "pause_on_failure",
            ],
            hints: &[
                ("tz", "it is called `timezone`"),
                ("every", "write a cron expression: `cron: \"*/5 * * * *\"` is every five minutes"),
                ("at", "write a cron expression: `cron: \"30 3 * * *\"` is every day at 03:30"),
                ("enabled", "it is called `paused`"),
                ("concurrency", "it is called `overlap`"),
            ],
        };
        let keys = self.fields(node, &SCHEDULE)?;
        for key in ["jitter", "catchup_window"] {
            keys.get(key).and_then(|n| self.duration(n, key));
        }
        for key in ["paused", "pause_on_failure"] {
            keys.get(key).and_then(|n| self.boolean(n, key));
        }
        let words: [(&str, &[(&str, ())]); 4] = [
            (
                "overlap",
                &[("skip", ()), ("buffer_one", ()), ("buffer_all", ()), ("cancel_other", ()), ("allow_all", ())],
            ),
            ("catchup", &[("none", ()), ("last", ()), ("all", ())]),
            ("dst_gap", &[("shift", ()), ("skip", ())]),
            ("dst_fold", &[("first", ()), ("last", ()), ("both", ())]),
        ];
        for (key, words) in words {
            keys.get(key).and_then(|n| self.one_of(n, key, words));
        }
        if let Some(inputs) = keys.get("inputs") {
            self.map(inputs, "`inputs` of a schedule");
        }
        let timezone = keys.get("timezone").and_then(|n| self.timezone(n));
        // Nothing is told that depends on a zone which is not known.
        let zone = match (&timezone, keys.get("timezone")) {
            (Some(name), _) => jiff::tz::db().get(&name.value).ok(),
            (None, Some(_)) => None,
            (None, None) => Some(TimeZone::UTC),
        };
        self.bounds(&keys, zone.as_ref());
        let cron = keys.required(self, "cron")?;
        Some(Schedule { cron: self.cron(cron)?, timezone, node: node.clone() })
    }

    /// `start_at` and `end_at`: a date, or a date and time. Compared where the zone is known.
    fn bounds(&mut self, keys: &Fields<'_>, zone: Option<&TimeZone>) {
        let mut found = Vec::new();
        for key in ["start_at", "end_at"] {
            let Some(node) = keys.get(key) else { continue };
            let Some(text) = self.string(node, key) else { continue };
            let Ok(at) = instant(text, zone.unwrap_or(&TimeZone::UTC)) else {
                let help = Some("write 2026-03-01, 2026-03-01T02:00 or 2026-03-01T02:00:00Z".to_owned());
                self.wrong_value(node.span, format!("`{key}` must be a date or a time, not `{text}`"), help);
                continue;
            };
            found.push((at, node));
        }
        if let [(start, _), (end, node)] = found[..]
            && start >= end
            && zone.is_some()
        {
            self.wrong_value(node.span, "`end_at` is not after `start_at`: the schedule never fires", None);
        }
    }

    fn timezone(&mut self, node: &Node) -> Option<Spanned<String>> {
        let name = self.string(node, "timezone")?;
        if jiff::tz::db().get(name).is_ok() {
            return Some(Spanned::new(name.to_owned(), node.span));
        }
        let names: Vec<String> = jiff::tz::db().available().map(|n| n.to_string()).collect();
        let city = |full: &str| full.rsplit('/').next().is_some_and(|c| c.eq_ignore_ascii_case(name));
        let near = names.iter().map(String::as_str).find(|n| city(n));
        let near = near.or_else(|| nearest(name, names.iter().map(String::as_str)));
        let help = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => "use a name of the IANA database, such as Europe/Berlin or UTC".to_owned(),
        };
        let message = format!("there is no time zone `{name}`");
        let span = head(self.text, node.span);
        self.report(Diagnostic::new(Code::BadTimezone, message, span, "unknown time zone").help(help));
        None
    }

    fn cron(&mut self, node: &Node) -> Option<Spanned<String>> {
        let text = self.string(node, "cron")?;
        let problem = match parse_cron(text) {
            Err(why) => Some((format!("`cron` cannot be read: {why}"), "cannot be read")),
            Ok(cron) if !fires(&cron) => {
                Some((format!("`cron: {text}` never fires: there is no such day"), "never fires"))
            }
            Ok(_) => None,
        };
        let Some((message, label)) = problem else {
            return Some(Spanned::new(text.to_owned(), node.span));
        };
        let help =
            "five fields: minute hour day-of-month month day-of-week, seconds before them if there are six; or @daily";
        self.report(Diagnostic::new(Code::BadCron, message, head(self.text, node.span), label).help(help));
        None
    }
}

/// Reads a bound of a schedule: a date or a time without an offset is the zone's.
pub(crate) fn instant(text: &str, zone: &TimeZone) -> Result<jiff::Timestamp, String> {
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Ok(at);
    }
    let wall: civil::DateTime = text.parse().map_err(|e: jiff::Error| e.to_string())?;
    let zoned = zone.to_zoned(wall).map_err(|e| e.to_string())?;
    Ok(zoned.timestamp())
}

/// Reads a cron expression: five fields, six with seconds first, or a nickname such as `@daily`.
pub(crate) fn parse_cron(text: &str) -> Result<Cron, String> {
    let nicknames = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@hourly"];
    let fields = text.split_whitespace().count();
    if text.contains('@') {
        if !nicknames.contains(&text) {
            return Err(format!("`{text}` is none of {}", nicknames.join(", ")));
        }
    } else if !(5..=6).contains(&fields) {
        return Err(format!("it has {fields} fields, not five or six"));
    }
    let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
    parser.parse(text).map_err(|error| match error {
        CronError::InvalidPattern(why) | CronError::IllegalCharacters(why) | CronError::ComponentError(why) => {
            why.trim_end_matches('.').to_owned()
        }
        other => other.to_string(),
    })
}

/// Whether it ever fires, told from three instants: the search of croner 4 gives up where days are missing.
pub(super) fn fires(cron: &Cron) -> bool {
    [(2000, 1), (2024, 2), (2026, 7)].into_iter().any(|(year, month)| {
        let start = civil::date(year, month, 1).at(0, 0, 0, 0).to_zoned(TimeZone::UTC);
        start.is_ok_and(|start| cron.find_next_occurrence(&start, true).is_ok())
    })
}
