//! Kubernetes step types through the binary, against a real API server: started on loopback by tests/real/kube/up, each test
//! in a namespace of its own, stopped again however this process ends. Where there is no API server it says why and skips.
//!
//! `cargo test --test real_kube -- scale` runs what has `scale` in its name.

#![expect(clippy::print_stdout, reason = "it is a test runner of its own")]

#[path = "real_kube/changes.rs"]
mod changes;
#[path = "real_kube/cluster.rs"]
mod cluster;
#[path = "real_kube/faults.rs"]
mod faults;
#[path = "real_kube/play.rs"]
mod play;
#[path = "real_kube/playbooks.rs"]
mod playbooks;
#[path = "real_kube/reads.rs"]
mod reads;
#[path = "real_kube/rolling.rs"]
mod rolling;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use cluster::{Cluster, Started};

type Test = (&'static str, fn(&Cluster, &str));

/// Tests at once; each waits for controllers most of its time.
const THREADS: usize = 4;

/// What a runner knows all of these by: they share one cluster, so to nextest they are one test.
const ALL: &str = "real_kube";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let flag = |name: &str| arguments.iter().any(|a| a == name);
    if flag("--list") {
        // Nothing here is `#[ignore]`d, which nextest asks for separately.
        if !flag("--ignored") {
            println!("{ALL}: test");
        }
        return ExitCode::SUCCESS;
    }
    let (shared, alone) = chosen(&arguments);
    let count = shared.len() + alone.len();
    if count == 0 {
        return told(0, 0, 0);
    }
    let cluster = match Cluster::start() {
        Started::Here(cluster) => cluster,
        Started::Skipped(why) => {
            println!("real_kube: {count} tests SKIPPED, nothing was tested: {why}");
            return told(0, 0, count);
        }
    };
    println!("real_kube: against the real kube-apiserver {}", cluster.version());
    let failed = run(&cluster, &shared, THREADS) + run(&cluster, &alone, 1);
    cluster.stop();
    told(count - failed, failed, 0)
}

/// By the words of the command line, as libtest takes them; the second list stops the API server, and comes last and alone.
fn chosen(arguments: &[String]) -> (Vec<Test>, Vec<Test>) {
    let (mut wanted, mut unwanted) = (Vec::new(), Vec::new());
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--skip" => unwanted.extend(words.next()),
            "--test-threads" | "--format" | "--color" => drop(words.next()),
            flag if flag.starts_with('-') => {}
            _ => wanted.push(word),
        }
    }
    let is =
        |name: &str, words: &[&String]| words.iter().any(|w| name.contains(w.as_str()) || ALL.contains(w.as_str()));
    let keep = |t: &&Test| (wanted.is_empty() || is(t.0, &wanted)) && !is(t.0, &unwanted);
    let all = reads::TESTS.iter().chain(changes::TESTS).chain(rolling::TESTS).chain(playbooks::TESTS);
    (all.filter(keep).copied().collect(), faults::TESTS.iter().filter(keep).copied().collect())
}

/// In libtest's words, which ./test counts.
fn told(passed: usize, failed: usize, ignored: usize) -> ExitCode {
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {word}. {passed} passed; {failed} failed; {ignored} ignored; 0 measured; 0 filtered out");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(cluster: &Cluster, tests: &[Test], threads: usize) -> usize {
    let next = AtomicUsize::new(0);
    let failed = AtomicUsize::new(0);
    let printing = Mutex::new(());
    std::thread::scope(|scope| {
        for _ in 0..threads.min(tests.len()) {
            scope.spawn(|| {
                while let Some((name, test)) = tests.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let began = Instant::now();
                    let namespace = name.replace('_', "-");
                    let ended = catch_unwind(AssertUnwindSafe(|| {
                        cluster.make_namespace(&namespace);
                        test(cluster, &namespace);
                    }));
                    let word = if ended.is_ok() { "ok" } else { "FAILED" };
                    failed.fetch_add(usize::from(ended.is_err()), Ordering::Relaxed);
                    let _printing = printing.lock();
                    println!("test {name} ... {word} ({:.1} s)", began.elapsed().as_secs_f32());
                }
            });
        }
    });
    failed.into_inner()
}
