#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

const NAME: LogName<'static> = LogName { step: "deploy/web[1]", attempt: 1, undo: false };

fn log(dir: &Path, masker: &Masker, limit: u64) -> AttemptLog {
    AttemptLog::new(dir, &NAME, masker, limit, Box::new(|p| panic!("{p}")))
}

fn text(dir: &Path) -> String {
    let mut text = String::new();
    read_log(dir, &NAME).unwrap().unwrap().read_to_string(&mut text).unwrap();
    text
}

fn disk(dir: &Path) -> u64 {
    std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum()
}

#[test]
fn a_silent_attempt_makes_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let logs = dir.path().join("logs");
    let log = log(&logs, &Masker::none(), 100);
    log.write(Stream::Stdout, b"");
    assert_eq!(log.finish(), LogSummary::default());
    assert!(!logs.exists() && read_log(&logs, &NAME).unwrap().is_none());
    assert_eq!(LogFiles::new(&logs, &NAME).read(0, 10).unwrap(), None);
}

#[test]
fn small_output_is_plain_private_and_interleaved() {
    let dir = tempfile::tempdir().unwrap();
    let logs = dir.path().join("a/logs");
    let log = log(&logs, &Masker::none(), 100);
    log.write(Stream::Stdout, b"one\n");
    log.write(Stream::Stderr, b"two\n");
    let summary = log.finish();
    assert_eq!((summary.bytes, summary.cut, summary.lost), (8, 0, 0));
    let path = summary.path.unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");
    let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(&logs)), (0o600, 0o700));
    assert_eq!(log.last_lines(20), ["one", "two"]);
    assert_eq!(log.last_line().unwrap(), "two");
}

/// Every size around the borders, in every small chunk size: the reader gives exactly head, marker, tail, during the
/// attempt and after it.
#[test]
fn head_and_tail_are_kept_exactly() {
    let whole: Vec<u8> = (0..200_u8).map(|i| b'!' + i % 90).collect();
    for size in 0..whole.len() {
        for chunk in [1, 3, 10, 64] {
            let dir = tempfile::tempdir().unwrap();
            let log = log(dir.path(), &Masker::none(), 40);
            for part in whole[..size].chunks(chunk) {
                log.write(Stream::Stdout, part);
            }
            let expected = if size <= 40 {
                String::from_utf8(whole[..size].to_vec()).unwrap()
            } else {
                let (head, tail) = (&whole[..20], &whole[size - 20..size]);
                let cut = match size - 40 {
                    0 => String::new(),
                    n => format!("\n[runback: {n} bytes of output were cut here]\n"),
                };
                format!("{}{cut}{}", String::from_utf8_lossy(head), String::from_utf8_lossy(tail))
            };
            if size > 0 {
                assert_eq!(text(dir.path()), expected, "running, size {size}, chunk {chunk}");
            }
            let summary = log.finish();
            assert_eq!((summary.bytes, summary.cut), (size as u64, size.saturating_sub(40) as u64));
            if size > 0 {
                assert_eq!(text(dir.path()), expected, "finished, size {size}, chunk {chunk}");
                let files = LogFiles::new(dir.path(), &NAME);
                assert_eq!(files.size().unwrap(), size as u64);
                let end = files.read(size as u64 - 1, 99).unwrap().unwrap();
                assert_eq!((end.bytes.as_slice(), end.cut), (&whole[size - 1..size], 0));
            }
        }
    }
}

#[test]
fn much_output_takes_bounded_space() {
    let dir = tempfile::tempdir().unwrap();
    let limit = 1 << 20;
    let log = log(dir.path(), &Masker::none(), limit);
    for _ in 0..200 {
        log.write(Stream::Stdout, &vec![b'x'; 65_536]);
        assert!(disk(dir.path()) <= limit * 3 / 2 + 1024);
    }
    log.write(Stream::Stdout, b"\nthe end\n");
    let summary = log.finish();
    assert!(disk(dir.path()) <= limit + 1024, "{}", disk(dir.path()));
    assert_eq!(summary.cut, summary.bytes - limit);
    assert!(text(dir.path()).ends_with("xxx\nthe end\n"));
    assert_eq!(log.last_line().unwrap(), "the end");
}

#[test]
fn a_reader_follows_and_skips_what_was_cut_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let log = log(dir.path(), &Masker::none(), 40);
    let files = LogFiles::new(dir.path(), &NAME);
    let mut follow = files.reader(0);
    let mut seen = String::new();
    follow.read_to_string(&mut seen).unwrap();
    log.write(Stream::Stdout, b"first ");
    follow.read_to_string(&mut seen).unwrap();
    log.write(Stream::Stdout, b"second ");
    follow.read_to_string(&mut seen).unwrap();
    assert_eq!(seen, "first second ");
    log.write(Stream::Stdout, &[b'.'; 100]);
    log.write(Stream::Stdout, b"last");
    follow.read_to_string(&mut seen).unwrap();
    // 13 and 7 in the head, 77 cut, 20 in the tail.
    let expected = format!("first second .......\n[runback: 77 bytes of output were cut here]\n{}last", ".".repeat(16));
    assert_eq!(seen, expected);
    let piece = files.read(50, 5).unwrap().unwrap();
    assert_eq!((piece.offset, piece.cut, piece.next()), (97, 47, 100));
}

#[test]
fn an_attempt_that_is_attached_again_starts_its_log_over() {
    let dir = tempfile::tempdir().unwrap();
    let first = log(dir.path(), &Masker::none(), 40);
    first.write(Stream::Stdout, &[b'a'; 100]);
    drop(first);
    let second = log(dir.path(), &Masker::none(), 40);
    second.write(Stream::Stdout, b"again");
    second.finish();
    assert_eq!(text(dir.path()), "again");
}

#[test]
fn secrets_are_masked_across_chunks_streams_and_the_cut() {
    let dir = tempfile::tempdir().unwrap();
    let masker = Masker::new([("s".to_owned(), secrecy::SecretString::from("hunter22"))]);
    let log = log(dir.path(), &masker, 64);
    log.write(Stream::Stdout, b"password hunt");
    log.write(Stream::Stderr, b"a warning ");
    log.write(Stream::Stdout, b"er22 and ");
    log.write(Stream::Stdout, b"hunt-");
    log.write(Stream::Stderr, b"hunter");
    log.write(Stream::Stdout, b"22");
    for _ in 0..20 {
        for byte in b"xyz hunter22 " {
            log.write(Stream::Stdout, &[*byte]);
        }
    }
    log.write(Stream::Stdout, b"hunter");
    log.finish();
    let text = text(dir.path());
    assert!(!text.contains("hunter22") && text.starts_with("password a warning *** and hunt-"), "{text}");
    assert!(text.ends_with("xyz *** hunterhunter"), "{text}");
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        assert!(!masker.finds(&std::fs::read(entry.unwrap().path()).unwrap()));
    }
}

/// A full disk: /dev/full takes no byte.
#[test]
fn a_write_error_is_told_once_and_does_not_stop() {
    let dir = tempfile::tempdir().unwrap();
    let told = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&told);
    let blocker = dir.path().join("logs");
    std::fs::write(&blocker, "a file where the folder should be").unwrap();
    let on_problem = Box::new(move |p: LogProblem| {
        assert!(p.to_string().contains("deploy+web[1].1.log"), "{p}");
        counter.fetch_add(1, Ordering::SeqCst);
    });
    let log = AttemptLog::new(&blocker, &NAME, &Masker::none(), 100, on_problem);
    log.write(Stream::Stdout, b"one\n");
    log.write(Stream::Stdout, b"two\n");
    assert_eq!((told.load(Ordering::SeqCst), log.finish().lost), (1, 8));
    assert_eq!(log.last_lines(2), ["one", "two"]);
    std::fs::remove_file(&blocker).unwrap();
    log.write(Stream::Stdout, b"three\n");
    let summary = log.finish();
    assert_eq!((told.load(Ordering::SeqCst), summary.lost), (1, 8));
    assert_eq!(text(&blocker), "\n[runback: 8 bytes of output could not be written here]\nthree\n");
}

#[test]
fn a_full_disk_is_counted() {
    let mut spool = Spool::new("/dev/full".into(), 100);
    let error = spool.write(b"hello").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert!(spool.write(b"again").is_err());
    assert_eq!(spool.finish().lost, 10);
}
