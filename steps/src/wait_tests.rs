#![expect(clippy::unwrap_used, reason = "tests")]
use runback_core::step::Class;
use serde_json::json;
use tokio::time::Instant;

use super::*;
use crate::testing::{Lab, START_MS};

#[tokio::test(start_paused = true)]
async fn waits_for_a_while() {
    let lab = Lab::new();
    let began = Instant::now();
    let ran = lab.run(&Wait, &json!({ "for": "1h30m" })).await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 5400);
    assert_eq!(ran.outputs, json!({ "until": "2026-01-01T01:30:00Z" }));
    assert_eq!(lab.host.phases(), ["until 2026-01-01T01:30:00Z"]);
}

#[tokio::test(start_paused = true)]
async fn a_resumed_wait_waits_for_what_is_left() {
    let lab = Lab::new();
    lab.host.notes.lock().unwrap().push(json!({ "until_ms": START_MS + 5_000 }));
    let began = Instant::now();
    let ran = lab.run(&Wait, &json!({ "for": "1h" })).await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 5);
    assert_eq!(ran.outputs, json!({ "until": "2026-01-01T00:00:05Z" }));
    assert_eq!(lab.host.notes.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_end_is_noted_before_the_wait() {
    let lab = Lab::new();
    let with = json!({ "for": "10s" });
    tokio::select! {
        biased;
        _ = lab.run(&Wait, &with) => panic!("too early"),
        () = tokio::time::sleep(Duration::from_secs(1)) => {}
    }
    assert_eq!(*lab.host.notes.lock().unwrap(), [json!({ "until_ms": START_MS + 10_000 })]);
}

#[tokio::test(start_paused = true)]
async fn a_cancel_ends_it_at_once() {
    let lab = Lab::new();
    let began = Instant::now();
    let with = json!({ "for": "30d" });
    let stop = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        lab.host.stop();
    };
    let (result, ()) = tokio::join!(lab.run(&Wait, &with), stop);
    assert_eq!(result.unwrap_err().class, Class::Cancelled);
    assert_eq!(began.elapsed().as_secs(), 2);
}

#[tokio::test(start_paused = true)]
async fn waits_until_a_time() {
    for (with, end) in [
        (json!({ "until": "2026-01-01T00:00:30Z" }), "2026-01-01T00:00:30Z"),
        (json!({ "until": "2026-01-01T02:00:00+01:00" }), "2026-01-01T01:00:00Z"),
        (json!({ "until": "2026-01-02 06:00", "timezone": "Europe/Berlin" }), "2026-01-02T05:00:00Z"),
        (json!({ "until": "22:00" }), "2026-01-01T22:00:00Z"),
        // It is 01:00 there: half past midnight is tomorrow's.
        (json!({ "until": "00:30", "timezone": "Europe/Berlin" }), "2026-01-01T23:30:00Z"),
        (json!({ "until": "2020-01-01T00:00:00Z" }), "2020-01-01T00:00:00Z"),
    ] {
        assert!(Lab::problems(&Wait, &with).is_empty(), "{with}");
        let lab = Lab::new();
        let ran = lab.run(&Wait, &with).await.unwrap();
        assert_eq!(ran.outputs, json!({ "until": end }), "{with}");
        let end: Timestamp = end.parse().unwrap();
        assert_eq!(now(&lab.cx()).unwrap(), end.max(Timestamp::from_millisecond(START_MS.cast_signed()).unwrap()));
    }
}

#[test]
fn a_day_change_in_summer_time() {
    let zone = TimeZone::get("Europe/Berlin").unwrap();
    let now: Timestamp = "2026-03-28T20:00:00Z".parse().unwrap();
    // 02:30 is in the gap of 2026-03-29: the instant is that of 03:30.
    assert_eq!(instant("02:30", &zone, now).unwrap().to_string(), "2026-03-29T01:30:00Z");
    let now: Timestamp = "2026-10-24T20:00:00Z".parse().unwrap();
    assert_eq!(instant("02:30", &zone, now).unwrap().to_string(), "2026-10-25T00:30:00Z");
}

#[test]
fn problems_point_at_the_key() {
    for (with, path) in [
        (json!({}), ""),
        (json!({ "for": "1s", "until": "22:00" }), "until"),
        (json!({ "for": "1s", "timezone": "UTC" }), "timezone"),
        (json!({ "until": "22:00", "timezone": "Mars/Base" }), "timezone"),
        (json!({ "until": "at ten" }), "until"),
        (json!({ "until": "25:00" }), "until"),
    ] {
        let found = Lab::problems(&Wait, &with);
        assert_eq!(found.len(), 1, "{with}: {found:?}");
        assert_eq!(found[0].path.join("."), path, "{with}");
    }
    let error = &Lab::problems(&Wait, &json!({ "for": "5" }))[0].message;
    assert_eq!(error, "`5` is not a duration; write it like 500ms, 10s, 5m or 1h30m");
}
