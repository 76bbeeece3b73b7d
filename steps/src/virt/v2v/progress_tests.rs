//! On what virt-v2v 2.2.0 was recorded to say, in pieces of any size.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::testing::TestHost;

const GOOD: &str = include_str!("../recorded/v2v-good.out");
const FULL: &str = include_str!("../recorded/v2v-full.out");

fn fed(text: &str, piece: usize) -> (TestHost, Learned) {
    let host = TestHost::default();
    let learned = {
        let reader = Reader::new(&host, vec![456 << 20]);
        for bytes in text.as_bytes().chunks(piece) {
            reader.output(Stream::Stdout, bytes);
        }
        reader.learned()
    };
    (host, learned)
}

/// Trap: the percent is only in the bar, redrawn with carriage returns.
#[tokio::test]
async fn phases_and_percent_are_shown() {
    for piece in [1, 7, 4096] {
        let (host, learned) = fed(GOOD, piece);
        let phases = host.phases();
        assert!(phases.iter().any(|p| p == "Inspecting the source"), "{phases:?}");
        let percents: Vec<f32> = host
            .progress
            .lock()
            .unwrap()
            .iter()
            .filter_map(|p| match p {
                Progress::Percent { percent, .. } => Some(*percent),
                Progress::Phase { .. } => None,
            })
            .collect();
        assert_eq!(percents, [0.0, 28.0, 56.0, 84.0, 100.0]);
        assert_eq!(learned.disk, Some((1, 1)));
        assert_eq!(learned.warnings, ["could not determine a way to update the configuration of Grub2"]);
        assert_eq!((learned.errors.len(), learned.full, learned.seconds()), (0, false, 116));
        let log = host.stdout_text();
        assert!(log.contains("copying disk 1/1: 56%\n") && log.contains("[   0.0] Setting up the source"), "{log}");
        assert!(!log.contains("timestamp") && !log.contains('\r') && !log.contains("***"), "{log}");
    }
}

/// The JSON of a message may follow a bar on the same line, and another tool's words too.
#[tokio::test]
async fn a_target_that_runs_full_is_noticed() {
    for piece in [1, 64, 4096] {
        let (_, learned) = fed(FULL, piece);
        assert_eq!((learned.full, learned.full_at), (true, Some(202_113_024)));
        assert_eq!(learned.errors, ["nbdcopy command failed, see earlier error messages"]);
        assert_eq!(learned.disk, Some((1, 1)));
    }
}

#[tokio::test(start_paused = true)]
async fn rate_and_time_left() {
    let host = TestHost::default();
    let reader = Reader::new(&host, vec![1 << 30]);
    let at = jiff::Timestamp::from_millisecond(crate::testing::START_MS.cast_signed()).unwrap();
    let message = format!("{{ \"message\": \"Copying disk 1/2\", \"timestamp\": \"{at}\", \"type\": \"message\" }}\n");
    reader.output(Stream::Stdout, message.as_bytes());
    tokio::time::advance(Duration::from_secs(10)).await;
    reader.output(Stream::Stderr, b"\xe2\x96\x97  25% [**--]\r");
    assert_eq!(host.phases().last().unwrap(), "copying disk 1/2, 26 MiB/s, 30s left");
    // The first disk's size says nothing of the second one.
    reader.output(Stream::Stdout, message.replace("1/2", "2/2").as_bytes());
    reader.output(Stream::Stderr, b"\xe2\x96\x97  50% [**--]\r");
    assert_eq!(host.phases().last().unwrap(), "copying disk 2/2, 10s left");
}

#[tokio::test]
async fn what_is_no_bar_is_logged() {
    let (host, learned) = fed("100% sure\n{ \"message\": broken\nno newline: No space left on device", 4096);
    assert_eq!(host.stdout_text(), "100% sure\n{ \"message\": broken\n");
    assert_eq!((learned.full, learned.full_at), (true, None));
}
