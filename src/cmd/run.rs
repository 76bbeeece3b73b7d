//! `runback run`: checks a playbook, records a run of it, and drives that to its end.

use std::io::IsTerminal as _;
use std::path::Path;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use runback_core::event::{OnFailure, RunOptions};
use runback_exec::driver::Engine;

use crate::drive::{self, DriveArgs, How};
use crate::failure::Done;
use crate::inputs::InputArgs;
use crate::load;
use crate::start::{self, New};
use crate::state_dir;
use crate::surroundings::{self, Machines};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[arg(value_name = "FILE")]
    file: String,

    #[command(flatten)]
    inputs: InputArgs,

    /// The new run's id; refused when there is one like it
    #[arg(long, value_name = "ID")]
    run_id: Option<String>,

    /// Attempts at once [default: what the playbook says, else 8]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    jobs: Option<u32>,

    /// What follows a failure, in place of what the playbook says
    #[arg(long, value_enum, value_name = "WHAT")]
    on_failure: Option<AfterFailure>,

    #[command(flatten)]
    pub(crate) drive: DriveArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum AfterFailure {
    /// Take back what was done
    Rollback,
    /// Stop, keep everything, resumable
    Hold,
    /// Run what does not depend on the failure, then fail
    Continue,
}

impl From<AfterFailure> for OnFailure {
    fn from(what: AfterFailure) -> Self {
        match what {
            AfterFailure::Rollback => Self::Rollback,
            AfterFailure::Hold => Self::Hold,
            AfterFailure::Continue => Self::Continue,
        }
    }
}

pub(crate) fn run(arguments: &Arguments, dir: Option<&Path>) -> Done {
    let loaded = load::load(&arguments.file, &runback_steps::catalog());
    let plan = loaded.plan()?;
    if !arguments.drive.is_json() && !arguments.drive.quiet {
        loaded.mention_warnings(&arguments.file);
    }
    let inputs = arguments.inputs.resolve(&plan.scopes[0].inputs)?;
    let state_dir = state_dir::path(dir)?;
    let store = state_dir::open(dir)?;
    state_dir::block_on(async {
        let machines = Machines::new(&plan, &loaded.base, &state_dir)?;
        let engine = Arc::new(Engine { store: Arc::clone(&store), log_limit: arguments.drive.log_limit() });
        let options = RunOptions {
            max_parallel: arguments.jobs,
            on_failure: arguments.on_failure.map(Into::into),
            ..RunOptions::default()
        };
        let new = New { plan: &plan, texts: &loaded.texts, base: &loaded.base, inputs: &inputs, options };
        let around = || surroundings::new(&plan, loaded.base.clone(), &machines, inputs.secret.clone());
        let created = start::create(&engine, &new, arguments.run_id.as_deref(), from(), around).await;
        let driver = created.map_err(state_dir::nothing_was_started)?;
        let how = How { taken_up: None, ask_on_failure: arguments.on_failure.is_none() };
        let done = drive::drive(driver, store, &arguments.drive, how).await;
        machines.close().await;
        done
    })
}

/// How it was started, as far as can be seen.
fn from() -> &'static str {
    if std::io::stdin().is_terminal() || std::io::stdout().is_terminal() {
        "terminal"
    } else if std::env::var_os("CI").is_some() {
        "ci"
    } else if std::env::var_os("TERM").is_none() {
        // cron and systemd give no TERM.
        "cron"
    } else {
        "script"
    }
}
