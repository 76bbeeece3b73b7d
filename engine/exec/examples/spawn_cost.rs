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

fn main() {
    let mut args = std::env::args().skip(1);
    let first = args.next();
    if first.as_deref() == Some(guard::GUARD_ARGUMENT) {
        guard::main();
    }
    let commands = first.map_or(1000, |n| n.parse().unwrap());
    let rounds = args.next().map_or(5, |n| n.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let processes = Processes::new(guard::GuardCommand::this_binary(), |warning| println!("warning: {warning}"));
    let target = Arc::new(LocalTarget::new(dir.path().into(), dir.path().join("detached"), processes));
    for in_flight in [1, 2, 16] {
        let mut best = [Duration::MAX; 3];
        // In turns, so that what else the machine does hits all alike.
        for _ in 0..rounds {
            best[0] = best[0].min(bare(commands, in_flight));
            best[1] = best[1].min(make(dir.path(), commands, in_flight));
            best[2] = best[2].min(runtime.block_on(ours(&target, commands, in_flight)));
        }
        let [bare, make, ours] = best.map(|d| d.as_secs_f64() * 1000.0);
        println!(
            "{in_flight:>2} in flight, {commands} commands: bare {bare:.0} ms, make {make:.0} ms, ours {ours:.0} ms; \
             ours/bare {:.2}, ours/make {:.2}",
            ours / bare,
            ours / make
        );
    }
}
