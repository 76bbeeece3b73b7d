//! Schedules where clocks change, at their edges, and when they are late.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::span::SourceId;

fn schedule(yaml: &str) -> Schedule {
    let text = format!("runback: 1\nname: x\nschedule:\n  - {}\nsteps:\n  - run: x\n", yaml.replace('\n', "\n    "));
    let (playbook, diagnostics) = crate::playbook::read(SourceId(0), &text);
    assert!(diagnostics.is_empty(), "{diagnostics:?}");
    let (mut all, bad) = Schedule::all("x", &playbook.unwrap().schedule);
    assert!(bad.is_empty(), "{bad:?}");
    all.remove(0)
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn fires(yaml: &str, after: &str, until: &str) -> Vec<String> {
    let found = schedule(yaml).between(at(after), at(until), 1000);
    found.iter().map(|f| format!("{} {:?}", f.at, f.placed)).collect()
}

#[test]
fn a_time_that_the_clock_skips_is_shifted_or_left_out() {
    // Berlin, 2026-03-29: 02:00 becomes 03:00.
    let (after, until) = ("2026-03-28T12:00:00Z", "2026-03-30T12:00:00Z");
    let berlin = "cron: 30 2 * * *\ntimezone: Europe/Berlin";
    assert_eq!(fires(berlin, after, until), ["2026-03-29T01:30:00Z Shifted", "2026-03-30T00:30:00Z Plain"]);
    let skip = format!("{berlin}\ndst_gap: skip");
    assert_eq!(fires(&skip, after, until), ["2026-03-30T00:30:00Z Plain"]);
    // What is shifted onto a time of its own does not fire a second time.
    let half = fires("cron: 0,30 2,3 * * *\ntimezone: Europe/Berlin", after, "2026-03-29T12:00:00Z");
    assert_eq!(half, ["2026-03-29T01:00:00Z Plain", "2026-03-29T01:30:00Z Plain"]);
}

#[test]
fn a_time_that_the_clock_shows_twice_is_taken_as_told() {
    // Berlin, 2026-10-25: 03:00 becomes 02:00.
    let (after, until) = ("2026-10-24T12:00:00Z", "2026-10-25T12:00:00Z");
    let berlin = "cron: 30 2 * * *\ntimezone: Europe/Berlin";
    assert_eq!(fires(berlin, after, until), ["2026-10-25T00:30:00Z First"]);
    assert_eq!(fires(&format!("{berlin}\ndst_fold: last"), after, until), ["2026-10-25T01:30:00Z Last"]);
    let both = fires(&format!("{berlin}\ndst_fold: both"), after, until);
    assert_eq!(both, ["2026-10-25T00:30:00Z First", "2026-10-25T01:30:00Z Last"]);
}

#[test]
fn a_rhythm_goes_on_through_both_hours_unless_told_otherwise() {
    let (after, until) = ("2026-10-24T23:59:00Z", "2026-10-25T02:01:00Z");
    let rhythm = "cron: '*/30 * * * *'\ntimezone: Europe/Berlin";
    let all = fires(rhythm, after, until);
    assert_eq!(all.len(), 5, "{all:?}");
    let first = fires(&format!("{rhythm}\ndst_fold: first"), after, until);
    assert_eq!(first.len(), 3, "an hour without: {first:?}");
}

#[test]
fn a_whole_day_that_was_left_out_is_shifted() {
    // Apia had no 2011-12-30.
    let found = fires("cron: 0 12 * * *\ntimezone: Pacific/Apia", "2011-12-29T00:00:00Z", "2012-01-01T00:00:00Z");
    assert_eq!(found, ["2011-12-29T22:00:00Z Plain", "2011-12-30T22:00:00Z Plain", "2011-12-31T22:00:00Z Plain"]);
    let skipped = schedule("cron: 0 12 30 12 *\ntimezone: Pacific/Apia");
    let next = skipped.next(at("2011-12-01T00:00:00Z"), 2, 5);
    assert_eq!(next[0].placed, Placed::Shifted);
    assert_eq!(next[0].at, at("2011-12-30T22:00:00Z"), "24 hours later by the clock: the 31st at noon");
}

#[test]
fn windows_meet_without_gap_or_overlap() {
    for yaml in [
        "cron: '*/7 * * * *'\ntimezone: Europe/Berlin",
        "cron: 15 1,2,3 * * *\ntimezone: Europe/Berlin\ndst_fold: both",
        "cron: 59 59 23 * * *\ntimezone: Australia/Lord_Howe",
    ] {
        let schedule = schedule(yaml);
        for (from, to) in
            [("2026-03-27T00:00:00Z", "2026-04-07T00:00:00Z"), ("2026-10-23T00:00:00Z", "2026-10-27T00:00:00Z")]
        {
            let whole = schedule.between(at(from), at(to), 100_000);
            let mut pieces = Vec::new();
            let mut here = at(from);
            let mut step = 1;
            while here < at(to) {
                step = step * 7 % 4_001;
                let next = (here + jiff::SignedDuration::from_secs(step)).min(at(to));
                pieces.extend(schedule.between(here, next, 100_000));
                here = next;
            }
            assert_eq!(whole, pieces, "{yaml}");
            let mut one_by_one = Vec::new();
            let mut here = at(from);
            while let Some(next) = schedule.between(here, at(to), 1).pop() {
                here = next.at;
                one_by_one.push(next);
            }
            assert_eq!(whole, one_by_one, "{yaml}");
        }
    }
}

#[test]
fn start_and_end_bound_it() {
    let yaml = "cron: '@daily'\ntimezone: Asia/Tokyo\nstart_at: 2026-03-02\nend_at: 2026-03-04T00:00:00";
    let found = fires(yaml, "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z");
    assert_eq!(found, ["2026-03-01T15:00:00Z Plain", "2026-03-02T15:00:00Z Plain"], "the end itself is not in it");
}

#[test]
fn leap_days_over_a_century_without_one() {
    let found = schedule("cron: 0 0 29 2 *").next(at("2095-01-01T00:00:00Z"), 3, 20);
    let years: Vec<_> = found.iter().map(|f| f.wall.year()).collect();
    assert_eq!(years, [2096, 2104, 2108]);
}

#[test]
fn keys_follow_what_is_meant_and_not_the_place() {
    let base = schedule("cron: 0 3 * * *\ntimezone: UTC").key;
    assert_eq!(schedule("timezone: UTC\ncron: 0 3 * * *\noverlap: allow_all").key, base);
    assert_ne!(schedule("cron: 0 4 * * *\ntimezone: UTC").key, base);
    assert_ne!(schedule("cron: 0 3 * * *\ntimezone: UTC\ninputs: { a: 1 }").key, base);
}

#[test]
fn jitter_is_bounded_and_always_the_same() {
    let schedule = schedule("cron: '* * * * *'\njitter: 20s");
    let found = schedule.between(at("2026-01-01T00:00:00Z"), at("2026-01-01T05:00:00Z"), 1000);
    let all: Vec<_> = found.iter().map(|f| schedule.jitter_of(f.at)).collect();
    assert!(all.iter().all(|j| *j <= Duration::from_secs(20)));
    assert!(
        all.iter().max().unwrap() > &Duration::from_secs(15) && all.iter().min().unwrap() < &Duration::from_secs(5)
    );
    assert_eq!(all, found.iter().map(|f| schedule.jitter_of(f.at)).collect::<Vec<_>>());
}

fn verdicts(yaml: &str, decided: &str, now: &str, paused: bool) -> (Vec<String>, Option<Timestamp>) {
    verdicts_of(yaml, decided, now, None, paused)
}

fn verdicts_of(
    yaml: &str,
    decided: &str,
    now: &str,
    there: Option<&str>,
    paused: bool,
) -> (Vec<String>, Option<Timestamp>) {
    let found = schedule(yaml).decide(at(decided), at(now), there.map(at), paused);
    let words = found.firings.iter().map(|(f, v)| {
        let time = f.at.strftime("%H:%M:%S");
        match v {
            Verdict::Start => format!("{time} start"),
            Verdict::PassOver(why) => format!("{time} {why}"),
        }
    });
    (words.collect(), found.decided)
}

#[test]
fn what_was_missed_is_caught_up_with_as_told() {
    let every = "cron: '*/2 * * * *'";
    let (decided, now) = ("2026-01-01T00:00:00Z", "2026-01-01T00:20:10Z");
    let (last, until) = verdicts(every, decided, now, false);
    assert_eq!(until, Some(at(now)));
    assert_eq!(last.len(), 5, "older than the window is over without a word: {last:?}");
    assert_eq!(last[4..], ["00:20:00 start"], "the last that was missed");
    assert!(last[..4].iter().all(|v| v.ends_with("missed")), "{last:?}");
    let (all, _) = verdicts(&format!("{every}\ncatchup: all\ncatchup_window: 1h"), decided, now, false);
    assert_eq!(all.iter().filter(|v| v.ends_with("start")).count(), 10);
    let (none, _) = verdicts(&format!("{every}\ncatchup: none"), decided, now, false);
    assert_eq!(none.iter().filter(|v| v.ends_with("start")).collect::<Vec<_>>(), ["00:20:00 start"]);
    let (paused, _) = verdicts(every, decided, now, true);
    assert!(paused.iter().all(|v| v.ends_with("paused")), "{paused:?}");
}

/// A server that is busy is not away: up to 30 s nothing is missed, whatever the schedule says.
#[test]
fn what_a_server_that_was_there_decides_up_to_30_s_late_is_on_time() {
    let (decided, now) = ("2026-01-01T00:00:00Z", "2026-01-01T00:02:00Z");
    for more in ["catchup: none", "catchup: none\ncatchup_window: 5s", "catchup: last\ncatchup_window: 5s"] {
        let yaml = format!("cron: '*/10 * * * * *'\n{more}");
        let (all, _) = verdicts_of(&yaml, decided, now, Some(decided), false);
        let started: Vec<_> = all.iter().filter(|v| v.ends_with("start")).collect();
        // The one before these is at the end of the window, and out of it.
        assert_eq!(started.last().map(|v| v.as_str()), Some("00:02:00 start"), "{more}");
        assert!(started.len() >= 3 && **started[0] >= *"00:01:30 start", "{more}: {all:?}");
    }
}

/// A server that starts anew begins no rush: of what was due while there was none, the latest, if it is recent.
#[test]
fn of_what_was_due_before_the_server_came_only_the_latest_starts() {
    let (decided, now) = ("2026-01-01T00:00:00Z", "2026-01-01T00:00:08.500Z");
    let started = |more: &str, there: Option<&str>| {
        let (all, _) = verdicts_of(&format!("cron: '* * * * * *'\n{more}"), decided, now, there, false);
        assert_eq!(all.len(), 8, "{more}: each has its verdict");
        assert!(all.iter().all(|v| v.ends_with("start") || v.ends_with("missed")), "{more}: {all:?}");
        all.into_iter().filter(|v| v.ends_with("start")).collect::<Vec<_>>()
    };
    for more in
        ["catchup: none", "catchup: last", "catchup: none\ncatchup_window: 1s", "catchup: last\ncatchup_window: 0s"]
    {
        assert_eq!(started(more, None), ["00:00:08 start"], "{more}");
        let late = verdicts(&format!("cron: '@hourly'\n{more}"), "2025-12-31T23:59:00Z", "2026-01-01T00:00:20Z", false);
        assert_eq!(late.0, ["00:00:00 start"], "{more}: up to 30 s late it is on time");
    }
    assert_eq!(started("catchup: all", None).len(), 8);
    let came = Some("2026-01-01T00:00:05.500Z");
    let wanted = ["00:00:05 start", "00:00:06 start", "00:00:07 start", "00:00:08 start"];
    assert_eq!(started("catchup: none", came), wanted, "the latest before it came, and all since");
    let gone = verdicts("cron: '@hourly'\ncatchup: none", "2025-12-31T23:59:00Z", "2026-01-01T00:00:31Z", false);
    assert_eq!(gone.0, ["00:00:00 missed"]);
}

#[test]
fn what_is_not_due_yet_is_not_decided() {
    let schedule = schedule("cron: '* * * * *'\njitter: 50s");
    let firing = schedule.between(at("2026-01-01T00:00:00Z"), at("2026-01-01T00:01:00Z"), 1).remove(0);
    let jitter = jiff::SignedDuration::try_from(schedule.jitter_of(firing.at)).unwrap();
    assert!(jitter.as_millis() > 0);
    let early = schedule.decide(at("2026-01-01T00:00:10Z"), firing.at, None, false);
    assert_eq!((early.firings.len(), early.decided), (0, Some(firing.at - jiff::SignedDuration::from_millis(1))));
    assert_eq!(early.next_due, Some(firing.at + jitter));
    let due = schedule.decide(early.decided.unwrap(), firing.at + jitter, None, false);
    assert_eq!(due.firings, [(firing, Verdict::Start)]);
}

#[test]
fn overlaps_are_met_as_told() {
    use Meeting::{PassOver, Replace, Start, Wait};
    for (overlap, one_lives, one_waits) in [
        (Overlap::Skip, PassOver("overlap"), PassOver("overlap")),
        (Overlap::BufferOne, Wait, PassOver("buffered")),
        (Overlap::BufferAll, Wait, Wait),
        (Overlap::CancelOther, Replace, Replace),
        (Overlap::AllowAll, Start, Start),
    ] {
        assert_eq!((overlap.meets(0, 0), overlap.meets(1, 0), overlap.meets(2, 1)), (Start, one_lives, one_waits));
    }
}
