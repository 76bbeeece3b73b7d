//! What small commands cost through `SshTarget`, beside the same by plain `ssh` over an open ControlMaster. Prints the
//! ratio; asserts nothing. With a command instead of a number it runs that one: for trying out, and for the test
//! that kills it.
//!
//! `cargo run --release -p runback-exec --example ssh_cost -- HOST [OPTION=VALUE]… -- COMMANDS | ARGV…`

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement for people")]

use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use runback_core::playbook::model::SshTarget as SshConfig;
use runback_core::target::{Command, Stream, Target, Watch};
use runback_exec::process::{Processes, guard};
use runback_exec::target::SshTarget;

struct Show;

#[async_trait::async_trait]
impl Watch for Show {
    fn output(&self, _: Stream, bytes: &[u8]) {
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(bytes).and_then(|()| out.flush());
    }
    async fn stopped(&self) {
        std::future::pending::<()>().await;
    }
    fn kill_grace(&self) -> Duration {
        Duration::from_secs(2)
    }
}

/// The same commands by `ssh` over a master of its own, one after the other.
fn plain(config: &SshConfig, commands: usize) -> Duration {
    let dir = std::env::temp_dir().join(format!("ssh-cost-{}", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    let ssh = |more: &[&str]| {
        let mut command = std::process::Command::new("ssh");
        command.arg("-T").arg("-S").arg(dir.join("m")).args(["-o", "BatchMode=yes"]);
        for (key, value) in &config.options {
            command.arg("-o").arg(format!("{key}={value}"));
        }
        command.args(more).stdin(Stdio::null());
        command
    };
    assert!(ssh(&["-M", "-N", "-f", &config.host]).status().unwrap().success());
    let start = Instant::now();
    for _ in 0..commands {
        assert!(ssh(&[&config.host, "true"]).output().unwrap().status.success());
    }
    let took = start.elapsed();
    assert!(ssh(&["-O", "exit", &config.host]).output().unwrap().status.success());
    std::fs::remove_dir(&dir).unwrap();
    took
}

async fn ours(target: &SshTarget, commands: usize) -> Duration {
    target.run(&Command::query(["true"]), &Show).await.unwrap();
    let start = Instant::now();
    for _ in 0..commands {
        assert!(target.run(&Command::query(["true"]), &Show).await.unwrap().ok());
    }
    start.elapsed()
}

fn main() {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|a| a == guard::GUARD_ARGUMENT) {
        guard::main();
    }
    let split = args.iter().position(|a| a == "--").unwrap();
    let what = args.split_off(split + 1);
    let option = |o: &String| o.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
    let options = args[1..split].iter().filter_map(option).collect();
    let config = SshConfig { host: args[0].clone(), options, ..SshConfig::default() };
    let processes = Processes::new(guard::GuardCommand::this_binary(), |text| println!("{text}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let target = SshTarget::new("host", &config, std::env::temp_dir(), processes).unwrap();
        if let [count] = what.as_slice()
            && let Ok(count) = count.parse::<usize>()
        {
            for round in 1..=3 {
                let (plain, ours) = (plain(&config, count), ours(&target, count).await);
                let ratio = ours.as_secs_f64() / plain.as_secs_f64();
                println!("{round}: {count} commands: ssh {plain:.2?}, runback {ours:.2?}, {ratio:.2} ×");
            }
        } else {
            println!("{}", target.run(&Command::new(what), &Show).await.unwrap().describe());
        }
        target.close().await;
    });
}
