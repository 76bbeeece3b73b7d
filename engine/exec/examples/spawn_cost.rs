//! What a command costs through `LocalTarget::run`, beside the least that the machine charges for it: a bare loop
//! of `posix_spawn` with pipes and a group per child, and `make`. Prints ratios; asserts nothing.
//!
//! `cargo run --release -p runback-exec --example spawn_cost -- [COMMANDS] [ROUNDS]`

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement for people")]

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use runback_core::target::{Command, Stream, Target, Watch};
use runback_exec::process::{Processes, guard};
use runback_exec::target::LocalTarget;

struct Quiet;

#[async_trait::async_trait]
impl Watch for Quiet {
    fn output(&self, _: Stream, _: &[u8]) {}
    async fn stopped(&self) {
        std::future::pending::<()>().await;
    }
    fn kill_grace(&self) -> Duration {
        Duration::from_secs(1)
    }
}

fn bare(commands: usize, in_flight: usize) -> Duration {
    let start = Instant::now();
    let mut running = VecDeque::new();
    let finish = |mut child: std::process::Child| {
        let mut bytes = Vec::new();
        child.stdout.take().unwrap().read_to_end(&mut bytes).unwrap();
        child.stderr.take().unwrap().read_to_end(&mut bytes).unwrap();
        assert!(child.wait().unwrap().success());
    };
    for _ in 0..commands {
        if running.len() == in_flight {
            finish(running.pop_front().unwrap());
        }
        let mut command = std::process::Command::new("/bin/true");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        running.push_back(command.spawn().unwrap());
    }
    running.into_iter().for_each(finish);
    start.elapsed()
}

async fn ours(target: &Arc<LocalTarget>, commands: usize, in_flight: usize) -> Duration {
    let start = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..commands {
        if running.len() == in_flight {
            running.join_next().await.unwrap().unwrap();
        }
        let target = Arc::clone(target);
        running.spawn(async move {
            assert!(target.run(&Command::new(["/bin/true"]), &Quiet).await.unwrap().ok());
        });
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
    start.elapsed()
}

fn make(dir: &std::path::Path, commands: usize, in_flight: usize) -> Duration {
    let mut text = String::from("all:");
    for i in 0..commands {
        write!(text, " t{i}").unwrap();
    }
    text.push('\n');
    for i in 0..commands {
        write!(text, "t{i}:\n\t@/bin/true\n").unwrap();
    }
    std::fs::write(dir.join("Makefile"), text).unwrap();
    let start = Instant::now();
    let status = std::process::Command::new("make").arg(format!("-j{in_flight}")).arg("-s").current_dir(dir).status();
    assert!(status.unwrap().success());
    start.elapsed()
}

/// CPU time of this process and its children so far, in clock ticks (a hundredth of a second): on a busy machine
/// it says more than the clock.
fn ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit(')').next().unwrap().split_whitespace();
    fields.skip(11).take(4).map(|n| n.parse::<u64>().unwrap()).sum()
}

struct Measure {
    best: Duration,
    ticks: u64,
}

impl Measure {
    fn new() -> Self {
        Self { best: Duration::MAX, ticks: 0 }
    }

    fn add(&mut self, run: impl FnOnce() -> Duration) {
        let before = ticks();
        self.best = self.best.min(run());
        self.ticks += ticks() - before;
    }
}

fn main() {
    let mut args = std::env::args().skip(1);
    let first = args.next();
    if first.as_deref() == Some(guard::GUARD_ARGUMENT) {
        guard::main();
    }
    let commands = first.map_or(1000, |n| n.parse().unwrap());
    let rounds = args.next().map_or(5_u32, |n| n.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = |processes| Arc::new(LocalTarget::new(dir.path().into(), dir.path().join("detached"), processes));
    let warm = local(Processes::without_guard());
    let target = local(Processes::new(guard::GuardCommand::this_binary(), |warning| println!("warning: {warning}")));
    let once = |target: &Arc<LocalTarget>| runtime.block_on(ours(target, 1, 1)).as_secs_f64() * 1000.0;
    once(&warm);
    println!("one command: {:.2} ms, with the start of the guard: {:.2} ms", once(&warm), once(&target));
    for in_flight in [1, 2, 16] {
        let mut measures = [Measure::new(), Measure::new(), Measure::new()];
        // In turns, so that what else the machine does hits all alike.
        for _ in 0..rounds {
            measures[0].add(|| bare(commands, in_flight));
            measures[1].add(|| make(dir.path(), commands, in_flight));
            measures[2].add(|| runtime.block_on(ours(&target, commands, in_flight)));
        }
        let [bare, make, ours] = measures;
        println!("{in_flight:>2} in flight, {commands} commands, best of {rounds}:");
        let row = |what: &str, bare: f64, make: f64, ours: f64| {
            let (to_bare, to_make) = (ours / bare, ours / make);
            println!(
                "  {what}: bare {bare:.0}, make {make:.0}, ours {ours:.0}; ours/bare {to_bare:.2}, ours/make {to_make:.2}"
            );
        };
        let ms = |m: &Measure| m.best.as_secs_f64() * 1000.0;
        row("milliseconds", ms(&bare), ms(&make), ms(&ours));
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let cpu = |m: &Measure| m.ticks as f64 * 10.0 / f64::from(rounds);
        row("CPU, mean   ", cpu(&bare), cpu(&make), cpu(&ours));
    }
}
