//! `runback schedule export`: what it writes is read by the programs that it is for, and means to them what it means here.

use std::collections::BTreeSet;
use std::process::{Command, Output};

use serde_json::Value as Json;

use super::Place;

/// Whether a program is there; in CI it must be.
fn has(program: &str) -> bool {
    let there = Command::new(program).arg("--help").output().is_ok();
    if !there {
        assert!(std::env::var_os("CI").is_none(), "{program} is not there: ./test installs it");
        println!("SKIPPED, nothing was tested: {program} is not there");
    }
    there
}

fn succeeds(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().expect("it starts");
    let said = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{command:?}: {said}");
    said
}

/// Inputs with everything in them that quoting may stumble over.
const AWKWARD: &str = r#"inputs: { text: "a 'b' \"c\" $HOME %h $(id) back\\slash;& #x", n: 5 }"#;

fn playbook(schedules: &[String]) -> String {
    let entries: Vec<_> = schedules.iter().map(|s| format!("  - {{ {s} }}\n")).collect();
    format!(
        "runback: 1\nname: tick\ninputs:\n  text: {{ type: string, default: x }}\n  n: {{ type: integer, default: 1 }}\nschedule:\n{}steps:\n  - run: 'true'\n",
        entries.concat()
    )
}

fn at(cron: &str, zone: &str, more: &str) -> String {
    format!("cron: '{cron}', timezone: {zone}{more}")
}

const EXPRESSIONS: [&str; 17] = [
    "*/5 * * * *",
    "7 3 * * *",
    "0 9-17/2 * * mon-fri",
    "0 0 1 * *",
    "30 4 1,15 * *",
    "0 0 * * */2",
    "0 0 */2 * mon",
    "0 0 */10 * */3",
    "0 0 13 * 5",
    "0 0 * * 5-7",
    "0 12 * jan,jul,dec sun",
    "15,45 */6 10-20/5 * *",
    "59 23 31 * *",
    "@hourly",
    "@daily",
    "@weekly",
    "@monthly",
];

/// The firings that systemd sees in calendar events, in milliseconds.
fn elapses(calendars: &[String], count: usize) -> BTreeSet<u64> {
    let mut all = Vec::new();
    for calendar in calendars {
        let said = succeeds(
            Command::new("systemd-analyze")
                .args(["calendar", &format!("--iterations={count}"), calendar])
                .env("TZ", "UTC")
                .env("LC_ALL", "C"),
        );
        let mut one = Vec::new();
        for line in said.lines() {
            let Some((head, time)) = line.trim().split_once(": ") else { continue };
            if head == "Next elapse" || head.starts_with("Iter") {
                let (_, time) = time.split_once(' ').expect("a day of the week");
                let time = time.replace(" UTC", "Z").replace(' ', "T");
                let time: jiff::Timestamp = time.parse().unwrap_or_else(|e| panic!("{e}: {line}"));
                one.push(time.as_millisecond().cast_unsigned());
            }
        }
        assert_eq!(one.len(), count, "{calendar}: {said}");
        all.push(one);
    }
    // Up to where each of them was asked.
    let end = all.iter().filter_map(|one| one.last().copied()).min().unwrap_or(0);
    all.into_iter().flatten().filter(|at| *at <= end).collect()
}

#[test]
fn real_systemd_fires_when_we_do() {
    if !has("systemd-analyze") {
        return;
    }
    let place = Place::new();
    // Zones whose clocks do not change: what happens then is said in a comment, and is another scheduler's own.
    let zones = ["UTC", "Asia/Tokyo", "America/Phoenix"];
    let all: Vec<String> = EXPRESSIONS.iter().enumerate().map(|(n, cron)| at(cron, zones[n % 3], "")).collect();
    let seconds = at("*/20 30 6 * * *", "UTC", "");
    place.playbook("tick", &playbook(&[all, vec![seconds]].concat()));
    let list = place.json(&["schedule", "list", "--playbooks", "playbooks", "--next", "60"]);
    let units = place.run(&["schedule", "export", "--systemd", "--playbooks", "playbooks"]);
    let timers: Vec<Vec<String>> = units
        .split("\n[Timer]\n")
        .skip(1)
        .map(|timer| timer.lines().map_while(|l| l.strip_prefix("OnCalendar=")).map(str::to_owned).collect())
        .collect();
    let schedules = list["schedules"].as_array().expect("a list");
    assert_eq!((schedules.len(), timers.len()), (EXPRESSIONS.len() + 1, EXPRESSIONS.len() + 1));
    // The clock went on between the two, and goes on while systemd is asked.
    let from = jiff::Timestamp::now().as_millisecond().cast_unsigned() + 20 * 60_000;
    for (schedule, calendars) in schedules.iter().zip(&timers) {
        let next = schedule["next"].as_array().expect("firings").iter().filter_map(|f| f["at"].as_u64());
        let ours: BTreeSet<u64> = next.filter(|at| *at >= from).collect();
        let theirs: BTreeSet<u64> = elapses(calendars, 60).into_iter().filter(|at| *at >= from).collect();
        let end = ours.last().min(theirs.last()).copied().unwrap_or(0);
        let until = |all: &BTreeSet<u64>| all.iter().copied().filter(|at| *at <= end).collect::<Vec<_>>();
        assert_eq!(until(&ours), until(&theirs), "{} as {calendars:?}", schedule["cron"]);
        assert!(until(&ours).len() >= 25, "{}: only {} firings", schedule["cron"], until(&ours).len());
    }
}

/// `# NAME` stands before each unit.
fn files(units: &str) -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = Vec::new();
    for line in units.lines() {
        let name = line.strip_prefix("# ").filter(|n| n.starts_with("runback-"));
        if let Some(name) = name {
            files.push((name.to_owned(), String::new()));
        } else if let Some((_, text)) = files.last_mut() {
            text.push_str(line);
            text.push('\n');
        }
    }
    files
}

#[test]
fn real_systemd_reads_the_units() {
    if !has("systemd-analyze") {
        return;
    }
    let place = Place::new();
    let more = format!(", jitter: 30s, overlap: buffer_all, catchup: all, paused: true, {AWKWARD}");
    place.playbook("ops/tick", &playbook(&[at("7 3 * * mon-fri", "Europe/Berlin", &more), at("@daily", "UTC", "")]));
    let units = place.run(&["schedule", "export", "--systemd", "--playbooks", "playbooks"]);
    let files = files(&units);
    assert_eq!(files.len(), 4, "{units}");
    for what in ["paused: do not install it", "overlap: an instant", "catchup: all"] {
        assert!(files[1].1.contains(&format!("# not done here: {what}")), "{what} in {units}");
    }
    assert!(!files[3].1.contains("not done here"), "{units}");
    let folder = place.path("units");
    std::fs::create_dir(&folder).expect("a folder");
    for (name, text) in &files {
        std::fs::write(folder.join(name), text).expect("a unit");
    }
    for (name, _) in &files {
        let mut verify = Command::new("systemd-analyze");
        verify.args(["verify", "--man=no", "--recursive-errors=no"]).arg(folder.join(name));
        let said = succeeds(&mut verify);
        assert!(!said.contains(name.as_str()), "{said}");
    }
    // The words arrive as they stand in the playbook: systemd's own quoting, read back.
    let line = files[0].1.lines().find_map(|l| l.strip_prefix("ExecStart=")).expect("a command");
    let wanted = r#""text=a 'b' \"c\" $$HOME %%h $$(id) back\\slash;& #x""#;
    assert!(line.contains(wanted), "{line}");
    assert!(line.contains("\"n=5\"") && line.starts_with("\"/"), "{line}");
}

#[test]
fn real_cron_reads_the_lines_and_the_shell_gives_each_word() {
    if !has("crontab") {
        return;
    }
    let place = Place::new();
    let more = format!(", jitter: 30s, {AWKWARD}");
    let mut all = vec![at("7 3 * * mon-fri", "Europe/Berlin", &more)];
    all.extend(EXPRESSIONS.iter().map(|cron| at(cron, "UTC", "")));
    place.playbook("tick", &playbook(&all));
    let lines = place.run(&["schedule", "export", "--crontab", "--playbooks", "playbooks"]);
    let file = place.path("crontab");
    std::fs::write(&file, &lines).expect("a file");
    succeeds(Command::new("crontab").arg("-n").arg(&file));
    std::fs::write(&file, "61 * * * * true\n").expect("a file");
    assert!(!Command::new("crontab").arg("-n").arg(&file).status().expect("it starts").success(), "it checks nothing");
    // Where both name days a star with a step would be a star to cron, and mean something else.
    assert!(lines.contains("\n0 0 1-31/2 * 1 ") && lines.contains("\n0 0 1-31/10 * 0,3,6 "), "{lines}");
    assert!(lines.contains("\n0 0 * * 0,5,6 "), "{lines}");
    assert!(lines.contains("# not done here: jitter"), "{lines}");
    // What cron gives to the shell, by its own rule for the percent sign.
    let entry = lines.lines().find(|l| l.starts_with("7 3 ")).expect("an entry");
    let command = entry.splitn(6, ' ').nth(5).expect("a command").replace("\\%", "%");
    let shown = succeeds(Command::new("sh").arg("-c").arg(format!("printf '%s\\n' {command}")).env("HOME", "/wrong"));
    let words: Vec<_> = shown.lines().collect();
    assert_eq!(words[1], "run");
    assert!(words.contains(&r#"text=a 'b' "c" $HOME %h $(id) back\slash;& #x"#) && words.contains(&"n=5"), "{words:?}");
    // A second is too short for cron, and a line is one line.
    for (schedule, why) in [
        (at("*/5 * * * * *", "UTC", ""), "counts seconds"),
        (at("@daily", "UTC", ", inputs: { text: \"a\\nb\" }"), "several lines"),
        (at("0 0 L * *", "UTC", ""), "which other schedulers do not have"),
    ] {
        place.playbook("tick", &playbook(&[schedule]));
        let output = place.command(&["schedule", "export", "--crontab", "--playbooks", "playbooks"]).output();
        let output = output.expect("runback runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(6) && said.contains(why), "{why}: {said}");
    }
}

/// What an API server says of them is in `real_kube`.
#[test]
fn cron_jobs_have_names_that_fit_and_say_what_is_lost() {
    let place = Place::new();
    let id = format!("ops/{}", "a-long-name-".repeat(6));
    place.playbook(&id, &playbook(&[at("@daily", "UTC", ", overlap: buffer_one"), at("@hourly", "Asia/Tokyo", "")]));
    let text = place.run(&["schedule", "export", "--k8s-cronjob", "--playbooks", "playbooks"]);
    assert!(text.contains("# not done here: overlap: Kubernetes has no buffer"), "{text}");
    let jobs: Vec<Json> = text.split("---\n").map(|one| serde_yaml::from_str(one).expect("YAML")).collect();
    let names: BTreeSet<&str> = jobs.iter().map(|j| j["metadata"]["name"].as_str().expect("a name")).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names.iter().all(|n| n.len() <= 52), "{names:?}");
    assert_eq!(jobs[1]["spec"]["timeZone"], "Asia/Tokyo");
}
