//! Schedules as others run them: units of systemd, lines of a crontab, CronJobs of Kubernetes, each of which calls
//! `runback run`. What another scheduler cannot do is refused, or said in a comment; nothing is dropped in silence.

use clap::Args;
use runback_core::schedule::{Catchup, Fold, Gap, Overlap, Schedule};
use serde_json::json;

use super::FolderArg;
use crate::exit::Exit;
use crate::failure::{Done, Failure};
use crate::serve::schedules::Entry;
use crate::term;

/// Write schedules for a scheduler of your own
#[derive(Debug, Args)]
pub(super) struct Export {
    /// Services and timers, one after the other, each under the name of its file
    #[arg(long, required_unless_present_any = ["crontab", "k8s_cronjob"], conflicts_with_all = ["crontab", "k8s_cronjob"])]
    systemd: bool,

    /// Lines for a user's crontab
    #[arg(long, conflicts_with = "k8s_cronjob")]
    crontab: bool,

    /// CronJobs, as YAML
    #[arg(long)]
    k8s_cronjob: bool,

    /// The image that CronJobs run: it must hold runback and the playbooks at the same place
    #[arg(long, default_value = "runback:latest", value_name = "IMAGE")]
    image: String,

    #[command(flatten)]
    pub(super) folder: FolderArg,
}

pub(super) fn run(export: &Export, entries: &[Entry]) -> Done {
    let mut out = Vec::new();
    for entry in entries {
        let fields = Fields::of(&entry.schedule)?;
        out.push(if export.systemd {
            systemd(entry, &fields)?
        } else if export.crontab {
            crontab(entry, &fields)?
        } else {
            cron_job(entry, &fields, &export.image)?
        });
    }
    if out.is_empty() {
        term::note("no schedules");
        return Ok(Exit::Succeeded);
    }
    let between = if export.k8s_cronjob { "---\n" } else { "\n" };
    term::line(out.join(between).trim_end());
    Ok(Exit::Succeeded)
}

/// An expression in the part of the language that all schedulers know.
struct Fields {
    seconds: String,
    minutes: String,
    hours: String,
    days: String,
    months: String,
    weekdays: String,
}

impl Fields {
    fn of(schedule: &Schedule) -> Result<Self, Failure> {
        let text = match schedule.cron_text.as_str() {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other => other,
        };
        let refuse = |why: &str| {
            Failure::refused(format!("{}: `{}` {why}", schedule.key, schedule.cron_text))
                .help("let `runback serve` fire it, or write the unit by hand")
        };
        if text.contains(['L', 'W', '#', '?']) && !text.contains("JUL") {
            return Err(refuse("uses L, W, # or ?, which other schedulers do not have"));
        }
        let mut fields: Vec<String> = text.split_whitespace().map(str::to_ascii_lowercase).collect();
        if fields.len() == 5 {
            fields.insert(0, "0".to_owned());
        }
        let Ok([seconds, minutes, hours, days, months, weekdays]) = <[String; 6]>::try_from(fields) else {
            return Err(refuse("has not five or six fields"));
        };
        Ok(Self { seconds, minutes, hours, days, months, weekdays })
    }

    fn five(&self, schedule: &Schedule) -> Result<String, Failure> {
        if self.seconds != "0" {
            return Err(Failure::refused(format!(
                "{}: `{}` counts seconds, which cron does not",
                schedule.key, schedule.cron_text
            ))
            .help("let `runback serve` fire it, or a systemd timer: --systemd"));
        }
        let weekdays = if self.weekdays == "*" { "*".to_owned() } else { by_number(&self.weekdays) };
        // Where both name days, either will do; but cron takes a field that begins with a star for one that names none.
        let starred = |piece: &str| piece.strip_prefix("*/").map(|step| format!("1-31/{step}"));
        let day = |piece: &str| starred(piece).unwrap_or_else(|| piece.to_owned());
        let days = self.days.split(',').map(day).collect::<Vec<_>>().join(",");
        Ok(format!("{} {} {days} {} {weekdays}", self.minutes, self.hours, self.months))
    }

    /// What systemd calls calendar events. Cron fires when the day of the month or that of the week fits, where both
    /// are named: that takes two events.
    fn calendars(&self, zone: &str) -> Vec<String> {
        let months = part(&numbered(&self.months, &MONTHS), 1);
        let time = format!("{}:{}:{} {zone}", part(&self.hours, 0), part(&self.minutes, 0), part(&self.seconds, 0));
        let by_day = format!("*-{months}-{} {time}", part(&self.days, 1));
        let by_weekday = format!("{} *-{months}-* {time}", weekdays(&self.weekdays));
        match (self.days == "*", self.weekdays == "*") {
            (_, true) => vec![by_day],
            (true, false) => vec![by_weekday],
            (false, false) => vec![by_day, by_weekday],
        }
    }
}

const MONTHS: [&str; 13] = ["", "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];

fn numbered(field: &str, names: &[&str]) -> String {
    let mut text = field.to_owned();
    for (number, name) in names.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
        text = text.replace(&name.to_ascii_lowercase(), &number.to_string());
    }
    text
}

/// `*/5` is `0/5` to systemd, `1/5` for days and months, which begin with 1; `1-5` is `1..5`.
fn part(field: &str, first: u8) -> String {
    let one = |piece: &str| match piece.split_once('/') {
        Some((range, step)) if range.starts_with('*') => format!("{first}/{step}"),
        Some((range, step)) => format!("{}/{step}", range.replace('-', "..")),
        None => piece.replace('-', ".."),
    };
    field.split(',').map(one).collect::<Vec<_>>().join(",")
}

/// Which days of the week a field names, Sunday first.
fn days_of_week(field: &str) -> [bool; 7] {
    let field = numbered(field, &DAYS);
    let mut on = [false; 7];
    for piece in field.split(',') {
        let (range, step) = piece.split_once('/').map_or((piece, None), |(range, step)| (range, Some(step)));
        let (from, to) = match range.split_once('-') {
            Some((from, to)) => (from.parse().unwrap_or(0), to.parse().unwrap_or(6)),
            None if range == "*" => (0, 6),
            None => {
                let from = range.parse().unwrap_or(0);
                (from, if step.is_some() { 6 } else { from })
            }
        };
        let to = if to < from { to + 7 } else { to };
        for day in (from..=to).step_by(step.and_then(|s| s.parse().ok()).unwrap_or(1).max(1)) {
            on[day % 7] = true;
        }
    }
    on
}

/// By name, each day by itself: systemd has no steps there, and its week begins on Monday.
fn weekdays(field: &str) -> String {
    let on = days_of_week(field);
    (0..7).filter(|day| on[*day]).map(|day| DAYS[day]).collect::<Vec<_>>().join(",")
}

/// Each day by itself: Kubernetes knows no 7, and a star with a step is a star to some.
fn by_number(field: &str) -> String {
    let on = days_of_week(field);
    (0..7).filter(|day| on[*day]).map(|day| day.to_string()).collect::<Vec<_>>().join(",")
}

/// Who is to fire it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Other {
    Systemd,
    Cron,
    Kubernetes,
}

/// What the playbook says and the other scheduler cannot do, as comments.
fn lost(s: &Schedule, fields: &Fields, other: Other) -> String {
    let mut lost = Vec::new();
    let mut say = |it_is: bool, what: &str| {
        if it_is {
            lost.push(format!("# not done here: {what}\n"));
        }
    };
    say(s.start.is_some(), "start_at: it fires from now on");
    say(s.end.is_some(), "end_at: it fires for ever");
    say(s.paused && other != Other::Kubernetes, "paused: do not install it, or it fires");
    say(s.pause_on_failure, "pause_on_failure: it fires again after a failure");
    say(s.gap == Gap::Skip, "dst_gap: skip, where the clock leaves a time out");
    let every_hour = fields.hours.starts_with('*');
    let fold = s.fold == Fold::Last || (s.fold == Fold::Both && !every_hour);
    say(fold, "dst_fold, where the clock shows a time twice");
    say(!s.jitter.is_zero() && other != Other::Systemd, "jitter: it fires at its very instant");
    say(s.catchup == Catchup::All, "catchup: all; of what was missed, one is made up for at most");
    match other {
        Other::Systemd => {
            say(s.overlap != Overlap::Skip, "overlap: an instant that meets a run is passed over");
        }
        Other::Cron => {
            say(s.overlap != Overlap::AllowAll, "overlap: runs may meet, only the playbook's locks keep them apart");
            say(s.catchup == Catchup::Last, "catchup: what was missed stays missed");
        }
        Other::Kubernetes => say(
            matches!(s.overlap, Overlap::BufferOne | Overlap::BufferAll),
            "overlap: Kubernetes has no buffer; instants that meet a run are passed over",
        ),
    }
    lost.concat()
}

/// This binary, by its whole path: others have another PATH, or none.
fn this_binary() -> Result<String, Failure> {
    Ok(std::env::current_exe()?.display().to_string())
}

/// `runback run FILE -i …`, word by word.
fn command(entry: &Entry) -> Vec<String> {
    let file = entry.good.texts.first().map(|t| t.name.clone()).unwrap_or_default();
    let mut words = vec!["run".to_owned(), file];
    for (name, value) in &entry.schedule.inputs {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        words.extend(["-i".to_owned(), format!("{name}={text}")]);
    }
    words
}

/// Fits into the name of a unit and of an object. What tells schedules apart stands at the end of the key.
fn slug(key: &str, most: usize) -> String {
    let plain: String =
        key.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    let plain = plain.trim_matches('-');
    if plain.len() <= most {
        return plain.to_owned();
    }
    let (front, tail) = plain.split_at(plain.len() - 16);
    format!("{}{tail}", &front[..most - 16].trim_end_matches('-'))
}

fn systemd(entry: &Entry, fields: &Fields) -> Result<String, Failure> {
    let s = &entry.schedule;
    let slug = slug(&s.key, 200);
    // In quotes: a percent sign and a dollar sign mean something to systemd, a backslash and a quote to its quotes.
    let quote = |word: &String| {
        let inner = word.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
        format!("\"{}\"", inner.replace('\n', "\\n"))
    };
    // The program itself is looked up before dollar signs mean anything.
    let program = quote(&this_binary()?).replace("$$", "$");
    let words: Vec<_> = command(entry).iter().map(quote).collect();
    let calendars: Vec<_> = fields.calendars(&s.zone_name).iter().map(|c| format!("OnCalendar={c}")).collect();
    let jitter = if s.jitter.is_zero() {
        String::new()
    } else {
        format!("RandomizedDelaySec={}ms\nFixedRandomDelay=true\n", s.jitter.as_millis())
    };
    let persistent = s.catchup != Catchup::None;
    Ok(format!(
        "# runback-{slug}.service\n[Unit]\nDescription=runback: {}\n\n[Service]\nType=oneshot\nExecStart={program} {}\n\n\
         # runback-{slug}.timer\n{}[Unit]\nDescription=runback: {} ({})\n\n[Timer]\n{}\nAccuracySec=1s\n{jitter}\
         Persistent={persistent}\n\n[Install]\nWantedBy=timers.target\n",
        entry.good.plan.name,
        words.join(" "),
        lost(s, fields, Other::Systemd),
        entry.good.plan.name,
        s.cron_text,
        calendars.join("\n"),
    ))
}

fn crontab(entry: &Entry, fields: &Fields) -> Result<String, Failure> {
    let s = &entry.schedule;
    // One word for the shell; cron itself makes a line end of a bare percent sign.
    let quote = |word: &String| format!("'{}'", word.replace('\'', r"'\''")).replace('%', "\\%");
    let words: Vec<_> = std::iter::once(this_binary()?).chain(command(entry)).collect();
    if let Some(word) = words.iter().find(|w| w.contains('\n')) {
        let name = word.split('=').next().unwrap_or_default();
        return Err(Failure::refused(format!("{}: the input {name} has several lines, a crontab has one", s.key))
            .help("let `runback serve` fire it, or a systemd timer: --systemd"));
    }
    Ok(format!(
        "# {}\n{}# CRON_TZ is cronie's; Debian's cron goes by the machine's own zone\nCRON_TZ={}\n{} {}\n",
        s.key,
        lost(s, fields, Other::Cron),
        s.zone_name,
        fields.five(s)?,
        words.iter().map(quote).collect::<Vec<_>>().join(" ")
    ))
}

fn cron_job(entry: &Entry, fields: &Fields, image: &str) -> Result<String, Failure> {
    let s = &entry.schedule;
    let policy = match s.overlap {
        Overlap::Skip | Overlap::BufferOne | Overlap::BufferAll => "Forbid",
        Overlap::CancelOther => "Replace",
        Overlap::AllowAll => "Allow",
    };
    let mut container = vec!["runback".to_owned()];
    // `$(NAME)` would be a variable there.
    container.extend(command(entry).into_iter().map(|word| word.replace("$(", "$$(")));
    let job = json!({
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        // A name of more than 52 characters could not be that of its jobs.
        "metadata": { "name": format!("runback-{}", slug(&s.key, 44)), "annotations": { "runback/schedule": s.key } },
        "spec": {
            "schedule": fields.five(s)?,
            "timeZone": s.zone_name,
            "concurrencyPolicy": policy,
            "startingDeadlineSeconds": s.catchup_window.as_secs().max(10),
            "suspend": s.paused,
            "jobTemplate": { "spec": { "backoffLimit": 0, "template": { "spec": {
                "restartPolicy": "Never",
                "containers": [{ "name": "runback", "image": image, "command": container }],
            } } } },
        },
    });
    let yaml = serde_yaml::to_string(&job).map_err(|e| Failure::failed(e.to_string()))?;
    Ok(format!("{}{yaml}", lost(s, fields, Other::Kubernetes)))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn calendars(cron: &str) -> Vec<String> {
        let mut fields: Vec<String> = cron.split(' ').map(str::to_owned).collect();
        fields.insert(0, "0".to_owned());
        let [seconds, minutes, hours, days, months, weekdays] = <[String; 6]>::try_from(fields).unwrap();
        Fields { seconds, minutes, hours, days, months, weekdays }.calendars("UTC")
    }

    #[test]
    fn names_are_short_and_still_tell_schedules_apart() {
        assert_eq!(slug("ops/nightly@3f2a9c01", 44), "ops-nightly-3f2a9c01");
        let long = "a-very-long-folder/and-a-very-long-name-of-a-playbook";
        let (one, other) = (slug(&format!("{long}@3f2a9c01"), 44), slug(&format!("{long}@77777777~2"), 44));
        assert!(one.len() <= 44 && other.len() <= 44, "{one} {other}");
        assert!(one.ends_with("-3f2a9c01") && other.ends_with("-77777777-2"), "{one} {other}");
    }

    #[test]
    fn calendar_events_say_what_cron_says() {
        for (cron, wanted) in [
            ("*/5 0 * * *", &["*-*-* 0:0/5:0 UTC"][..]),
            ("0 9-17/2 */2 jan-mar *", &["*-1..3-1/2 9..17/2:0:0 UTC"]),
            ("0 0 * * mon-fri", &["Mon,Tue,Wed,Thu,Fri *-*-* 0:0:0 UTC"]),
            ("0 0 * * 5-7", &["Sun,Fri,Sat *-*-* 0:0:0 UTC"]),
            ("0 0 13 * 5", &["*-*-13 0:0:0 UTC", "Fri *-*-* 0:0:0 UTC"]),
            ("0 0 * * */2", &["Sun,Tue,Thu,Sat *-*-* 0:0:0 UTC"]),
            ("0 0 */2 * mon", &["*-*-1/2 0:0:0 UTC", "Mon *-*-* 0:0:0 UTC"]),
        ] {
            assert_eq!(calendars(cron), wanted, "{cron}");
        }
    }
}
