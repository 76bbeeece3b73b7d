//! Every firing of 40 expressions in 12 zones from 1990 to 2037 against an implementation in another language with a tz
//! database of its own: `oracle.py`. It needs a Python with cronsim and tzdata, which `./test` prepares.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use jiff::{SignedDuration, Timestamp};
use runback_core::schedule::Schedule;
use runback_core::span::SourceId;
use serde_json::{Value as Json, json};
use sha2::{Digest as _, Sha256};

/// Changes of an hour, of half an hour, of two, of a day; at midnight, at 00:01; offsets of quarters; summer time that
/// is negative, and that pauses for a month.
const ZONES: [&str; 12] = [
    "UTC",
    "Europe/Berlin",
    "Europe/Dublin",
    "America/New_York",
    "America/St_Johns",
    "America/Sao_Paulo",
    "Africa/Casablanca",
    "Asia/Tehran",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Antarctica/Troll",
];

/// Expression, gap, fold.
const CASES: [(&str, &str, &str); 40] = [
    ("0 0 * * *", "shift", "first"),
    ("0 0 * * *", "skip", "last"),
    ("1 0 * * *", "shift", "both"),
    ("30 0 * * *", "shift", "first"),
    ("15 1 * * *", "shift", "first"),
    ("30 1 * * *", "shift", "last"),
    ("30 1 * * *", "skip", "both"),
    ("0 2 * * *", "shift", "first"),
    ("0 2 * * *", "skip", "first"),
    ("30 2 * * *", "shift", "both"),
    ("45 2 * * *", "skip", "last"),
    ("59 2 * * *", "shift", "first"),
    ("0 3 * * *", "shift", "first"),
    ("30 3 * * *", "shift", "last"),
    ("59 23 * * *", "shift", "both"),
    ("30 23 * * *", "skip", "first"),
    ("0 12 * * *", "shift", "first"),
    ("0 * * * *", "shift", "both"),
    ("*/20 0-3 * * *", "shift", "first"),
    ("*/30 1,2 * * *", "skip", "both"),
    ("10 30 2 * * *", "shift", "first"),
    ("*/15 59 1 * * *", "shift", "last"),
    ("0 0 1 * *", "shift", "first"),
    ("0 0 L * *", "shift", "first"),
    ("0 6 LW * *", "shift", "first"),
    ("30 2 * * 0", "shift", "first"),
    ("30 2 * * SUN", "skip", "both"),
    ("0 9 * * MON-FRI", "shift", "first"),
    ("0 2 * * 7", "shift", "last"),
    ("0 1 * 3,10 0", "shift", "both"),
    ("30 1 1,15 * 5", "shift", "first"),
    ("0 0 13 * FRI", "shift", "first"),
    ("0 4 * * 1#2", "shift", "first"),
    ("0 2 * * 0#1", "skip", "first"),
    ("30 1 * * 0L", "shift", "both"),
    ("0 3 29 2 *", "shift", "first"),
    ("0 12 30 12 *", "shift", "first"),
    ("0 0 31 */2 *", "shift", "first"),
    ("0 5-7/2 10-20/5 JAN,JUL *", "shift", "first"),
    ("@weekly", "shift", "last"),
];

fn read(cron: &str, zone: &str, gap: &str, fold: &str) -> Schedule {
    let text = format!(
        "runback: 1\nname: x\nschedule:\n  - cron: '{cron}'\n    timezone: {zone}\n    dst_gap: {gap}\n    dst_fold: {fold}\nsteps:\n  - run: x\n"
    );
    let (playbook, diagnostics) = runback_core::playbook::read(SourceId(0), &text);
    assert!(diagnostics.is_empty(), "{cron}: {diagnostics:?}");
    let (mut all, bad) = Schedule::all("x", &playbook.expect("a playbook").schedule);
    assert!(bad.is_empty(), "{bad:?}");
    all.remove(0)
}

fn ours(cron: &str, zone: &str, gap: &str, fold: &str) -> Vec<i64> {
    let at = |text: &str| text.parse::<Timestamp>().expect("a time") - SignedDuration::from_nanos(1);
    let found =
        read(cron, zone, gap, fold).between(at("1990-01-01T00:00:00Z"), at("2038-01-01T00:00:00Z"), usize::MAX / 2);
    found.iter().map(|f| f.at.as_second()).collect()
}

fn theirs(python: &Path, arguments: &[&str], cases: &Json) -> Vec<Json> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/serve/oracle.py");
    let mut child = Command::new(python)
        .arg(script)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python starts");
    child.stdin.take().expect("it is piped").write_all(cases.to_string().as_bytes()).expect("python reads");
    let output = child.wait_with_output().expect("python ends");
    assert!(output.status.success(), "python failed");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn real_cron_oracle() {
    let Some(python) = super::python() else { return };
    let cases: Vec<_> = CASES
        .iter()
        .map(|(cron, gap, fold)| json!({ "cron": cron, "gap": gap, "fold": fold, "zones": ZONES }))
        .collect();
    let asked = cases.clone();
    let answers = std::thread::scope(|scope| {
        let other = scope.spawn(|| theirs(&python, &[], &Json::Array(asked)));
        let own: Vec<_> = CASES
            .iter()
            .flat_map(|(cron, gap, fold)| ZONES.map(|zone| (zone, digest(&ours(cron, zone, gap, fold)))))
            .collect();
        own.into_iter().zip(other.join().expect("the oracle answers")).collect::<Vec<_>>()
    });
    assert_eq!(answers.len(), CASES.len() * ZONES.len());
    let mut firings = 0;
    for (at, ((zone, (count, digest)), other)) in answers.iter().enumerate() {
        firings += count;
        if *other == json!({ "cron": CASES[at / 12].0, "zone": zone, "count": count, "digest": digest }) {
            continue;
        }
        let (cron, gap, fold) = CASES[at / 12];
        let one = json!([{ "cron": cron, "gap": gap, "fold": fold, "zones": [zone] }]);
        let listed = theirs(&python, &["list"], &one).remove(0);
        let theirs: Vec<i64> = serde_json::from_value(listed).expect("numbers");
        let ours = ours(cron, zone, gap, fold);
        let only = |a: &[i64], b: &[i64]| -> Vec<String> {
            let missing = a.iter().filter(|at| b.binary_search(at).is_err()).take(5);
            missing.map(|at| Timestamp::from_second(*at).expect("in range").to_string()).collect()
        };
        panic!(
            "{cron} in {zone} ({gap}, {fold}): only ours {:?}, only theirs {:?}",
            only(&ours, &theirs),
            only(&theirs, &ours)
        );
    }
    assert!(firings > 5_000_000, "only {firings} firings were compared");
}

fn digest(all: &[i64]) -> (usize, String) {
    let mut hasher = Sha256::new();
    for at in all {
        hasher.update(format!("{at}\n"));
    }
    let text = hasher.finalize().iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    (all.len(), text)
}
