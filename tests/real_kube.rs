//! Kubernetes step types through the binary, against a real API server: started on loopback by tests/real/kube/up, each test
//! in a namespace of its own, stopped again however this process ends. Where there is no API server it says why and skips these;
//! what is replayed from recordings of another version runs always. The output says which of the two it was.
//!
//! `cargo test --test real_kube -- scale` runs what has `scale` in its name.

#![expect(clippy::print_stdout, reason = "it is a test runner of its own")]

#[path = "real_kube/between.rs"]
mod between;
#[path = "real_kube/changes.rs"]
mod changes;
#[path = "real_kube/cluster.rs"]
mod cluster;
#[path = "real_kube/exports.rs"]
mod exports;
#[path = "real_kube/faults.rs"]
mod faults;
#[path = "real_kube/inside.rs"]
mod inside;
#[path = "real_kube/many.rs"]
mod many;
#[path = "real_kube/others.rs"]
mod others;
#[path = "real_kube/play.rs"]
mod play;
#[path = "real_kube/playbooks.rs"]
mod playbooks;
#[path = "real_kube/reads.rs"]
mod reads;
#[path = "real_kube/recorded.rs"]
mod recorded;
#[path = "real_kube/rolling.rs"]
mod rolling;
#[path = "real_kube/serve.rs"]
mod serve;

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
    let keep = chosen(&arguments);
    let all = reads::TESTS.iter().chain(changes::TESTS).chain(others::TESTS).chain(inside::TESTS).chain(rolling::TESTS);
    let shared: Vec<Test> = all.chain(playbooks::TESTS).chain(exports::TESTS).filter(|t| keep(t.0)).copied().collect();
    // These measure, or stop the API server: they come last, one by one.
    let alone: Vec<Test> = many::TESTS.iter().chain(faults::TESTS).filter(|t| keep(t.0)).copied().collect();
    let recorded: Vec<_> = recorded::TESTS.iter().filter(|t| keep(t.0)).copied().collect();
    let count = recorded.len();
    if count > 0 {
        println!("real_kube: {count} tests against the recorded answers of a kube-apiserver 1.36.2");
    }
    let mut failed = run(&recorded, THREADS, &|_, test| test());
    let real = shared.len() + alone.len();
    if real == 0 {
        return told(count - failed, failed, 0);
    }
    let cluster = match Cluster::start() {
        Started::Here(cluster) => cluster,
        Started::Skipped(why) => {
            println!("real_kube: {real} tests SKIPPED, for want of a real kube-apiserver: {why}");
            return told(count - failed, failed, real);
        }
    };
    println!("real_kube: {real} tests against the real kube-apiserver {}", cluster.version());
    let within = |name: &str, test: fn(&Cluster, &str)| {
        let namespace = name.replace('_', "-");
        cluster.make_namespace(&namespace);
        test(&cluster, &namespace);
    };
    failed += run(&shared, THREADS, &within) + run(&alone, 1, &within);
    cluster.stop();
    told(count + real - failed, failed, 0)
}

/// By the words of the command line, as libtest takes them.
fn chosen(arguments: &[String]) -> impl Fn(&str) -> bool {
    let (mut wanted, mut unwanted) = (Vec::new(), Vec::new());
    let mut words = arguments.iter().cloned();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--skip" => unwanted.extend(words.next()),
            "--test-threads" | "--format" | "--color" => drop(words.next()),
            flag if flag.starts_with('-') => {}
            _ => wanted.push(word),
        }
    }
    let is = |name: &str, words: &[String]| words.iter().any(|w| name.contains(w.as_str()) || ALL.contains(w.as_str()));
    move |name| (wanted.is_empty() || is(name, &wanted)) && !is(name, &unwanted)
}

/// In libtest's words, which ./test counts.
fn told(passed: usize, failed: usize, ignored: usize) -> ExitCode {
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {word}. {passed} passed; {failed} failed; {ignored} ignored; 0 measured; 0 filtered out");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run<T: Copy + Sync>(tests: &[(&str, T)], threads: usize, act: &(dyn Fn(&str, T) + Sync)) -> usize {
    let next = AtomicUsize::new(0);
    let failed = AtomicUsize::new(0);
    let printing = Mutex::new(());
    std::thread::scope(|scope| {
        for _ in 0..threads.min(tests.len()) {
            scope.spawn(|| {
                while let Some((name, test)) = tests.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let began = Instant::now();
                    let ended = catch_unwind(AssertUnwindSafe(|| act(name, *test)));
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
