//! The command line of runback. All printing of the project is in this package; the crates below it are silent.

mod ask;
mod cmd;
mod deferred;
mod diagnose;
mod drive;
mod exit;
mod failure;
mod inputs;
mod journal;
mod load;
mod log_limit;
mod next;
mod operator;
mod preview;
mod report;
mod run_id;
mod schema;
#[cfg(feature = "serve")]
mod serve;
mod simulate;
mod start;
mod state_dir;
mod surroundings;
mod table;
mod term;
mod trace;
mod words;

use std::process::ExitCode;

use clap::Parser as _;
use runback_exec::process::guard;

use crate::exit::Exit;

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|a| a == guard::GUARD_ARGUMENT) {
        guard::main();
    }
    // kube and reqwest take the process's provider; without one they would panic at their first use.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = cmd::Cli::parse();
    next::typed(cli.state_dir().as_deref(), cli.verb.is_read_elsewhere());
    let as_json = cli.verb.wants_json();
    let drives = cli.verb.drives();
    match cmd::run(cli) {
        // The end of a run is told by its code; of any other verb, what it prints is all that it does.
        Ok(Exit::Succeeded) if term::stdout_failed() && !drives => Exit::Failed.into(),
        Ok(exit) => exit.into(),
        Err(failure) => {
            failure.print(as_json);
            failure.exit.into()
        }
    }
}
