//! The other process in the tests of commands: it starts some and is then killed with -9, or is measured. Its first
//! argument says which part it plays.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a part of the tests")]

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use runback_core::target::{Command, Exit, Stream, Target, TargetError, Watch};
use runback_exec::process::Processes;
use runback_exec::process::guard::{self, GuardCommand};
use runback_exec::target::LocalTarget;

#[derive(Default)]
struct Count(AtomicUsize);

#[async_trait::async_trait]
impl Watch for Count {
    fn output(&self, _: Stream, bytes: &[u8]) {
        self.0.fetch_add(bytes.len(), Ordering::Relaxed);
    }
    async fn stopped(&self) {
        std::future::pending::<()>().await;
    }
    fn kill_grace(&self) -> Duration {
        Duration::from_secs(1)
    }
}

fn script(text: &str) -> Command {
    Command::new(["sh", "-c", text])
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// In KiB, the most that was ever resident.
fn peak_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap().trim().trim_end_matches(" kB").to_owned()
}

fn children() -> String {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks.map(|t| std::fs::read_to_string(t.unwrap().path().join("children")).unwrap()).collect()
}

async fn ok(target: &LocalTarget, text: &str) -> usize {
    let count = Count::default();
    let exit = target.run(&script(text), &count).await.unwrap();
    assert!(exit.ok(), "{exit:?}");
    count.0.into_inner()
}

async fn parallel(target: &Arc<LocalTarget>) {
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let target = Arc::clone(target);
        running.spawn(async move { ok(&target, "cat; echo x").await });
    }
    while let Some(done) = running.join_next().await {
        assert_eq!(done.unwrap(), 2);
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let part = args[0].as_str();
    if part == guard::GUARD_ARGUMENT {
        guard::main();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let dir = Path::new(&args[1]);
    let processes = Processes::new(GuardCommand::this_binary(), |warning| println!("warning: {warning}"));
    let target = Arc::new(LocalTarget::new(dir.into(), dir.join("detached"), processes));
    match part {
        "run" => {
            runtime.block_on(ok(&target, &args[2]));
        }
        // The thread that spawned has ended while the command runs.
        "run-from-ended-thread" => {
            let (command, count) = (script(&args[2]), Count::default());
            let mut run: Pin<Box<dyn Future<Output = Result<Exit, TargetError>> + Send + '_>> =
                target.run(&command, &count);
            std::thread::scope(|scope| {
                let thread = scope.spawn(|| {
                    let _runtime = runtime.enter();
                    assert!(run.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
                });
                thread.join().unwrap();
            });
            runtime.block_on(run).unwrap();
        }
        "run-then-wait" => runtime.block_on(async {
            ok(&target, &args[2]).await;
            ok(&target, "echo >waiting; exec sleep 300").await;
        }),
        "detach" => runtime.block_on(async {
            let command = script(&args[2]).stdin("from stdin\n");
            let detached = target.start_detached(&command, &target.detached_dir("run", "step", 1)).await.unwrap();
            println!("{}", serde_json::to_string(&detached).unwrap());
            std::future::pending::<()>().await;
        }),
        "exit-code" => {
            let exit = runtime.block_on(target.run(&script(&args[2]), &Count::default())).unwrap();
            println!("{:?}", exit.code);
        }
        "flood" => {
            let bytes = runtime.block_on(ok(&target, &args[2]));
            println!("{bytes} {}", peak_memory());
        }
        "parallel" => runtime.block_on(async {
            // Once before, for all that is opened once: the guard, epoll.
            parallel(&target).await;
            let before = descriptors();
            parallel(&target).await;
            println!("{before} {}", descriptors());
        }),
        // Commands start, end and are stopped all the time, until somebody kills us.
        "storm" => runtime.block_on(async {
            let mut running = tokio::task::JoinSet::new();
            for i in 0_u64.. {
                if running.len() == 8 {
                    running.join_next().await.unwrap().unwrap();
                }
                let target = Arc::clone(&target);
                let sleep = script("setsid sleep 300 & exec sleep 300").timeout(Duration::from_millis(5 + i % 30));
                let command = if i % 3 == 0 { sleep } else { Command::new(["true"]) };
                running.spawn(async move {
                    let _ = target.run(&command, &Count::default()).await;
                });
            }
        }),
        "children" => {
            runtime.block_on(ok(&target, "true"));
            println!("{}", children());
        }
        other => panic!("no part {other}"),
    }
}
