//! The command line of runback. All printing of the project is in this package; the crates below it are silent.

mod cmd;
mod diagnose;
mod exit;
mod failure;
mod inputs;
mod journal;
mod load;
mod next;
mod preview;
mod schema;
mod state_dir;
mod table;
mod term;
mod words;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = cmd::Cli::parse();
    let as_json = cli.verb.wants_json();
    match cmd::run(cli) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            failure.print(as_json);
            failure.exit.into()
        }
    }
}
