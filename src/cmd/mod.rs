//! The verbs: one file each, with its own arguments. What they share of the command line is here.

pub(crate) mod approve;
#[cfg(feature = "serve")]
mod audit;
pub(crate) mod cancel;
mod check;
mod completions;
mod graph;
pub(crate) mod logs;
pub(crate) mod plan;
pub(crate) mod resume;
mod run;
pub(crate) mod runs;
#[cfg(feature = "serve")]
mod schedule;
mod schema;
#[cfg(feature = "serve")]
mod serve;
mod show;
mod simulate;
mod steps;
mod test;
#[cfg(feature = "serve")]
mod token;
pub(crate) mod why;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::deferred::Deferred;
use crate::failure::Done;

const AFTER_HELP: &str = "\
Exit codes: 0 succeeded, 1 failed and held, 2 usage or check error, 3 failed and rolled back cleanly,
4 stuck (an undo failed), 5 waiting for somebody, 6 a lock or another owner is in the way,
130 cancelled, or left in the middle (SIGTERM, Ctrl-C twice).";

/// Runs operational runbooks, and can run them back.
#[derive(Debug, Parser)]
#[command(name = "runback", version, after_help = AFTER_HELP, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// Where journals and logs are kept [default: $XDG_STATE_HOME/runback or ~/.local/state/runback] [env:
    /// RUNBACK_STATE_DIR]
    #[arg(long, global = true, value_name = "DIR")]
    state_dir: Option<PathBuf>,

    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run a playbook
    Run(Deferred<run::Arguments>),
    /// Find every mistake that can be found without running anything
    Check(Deferred<check::Arguments>),
    /// Show what a run would do, in order, with what can be undone and where the point of no return is
    Plan(Deferred<plan::Arguments>),
    /// Draw the steps of a playbook and what they need
    Graph(Deferred<graph::Arguments>),
    /// Play a run through with steps that fail as you say, by a virtual clock, doing nothing
    Simulate(Deferred<simulate::Arguments>),
    /// Test playbooks against scripted outcomes: nothing is done in the world, and time costs nothing
    Test(Deferred<test::Arguments>),
    /// Go on with a run that failed and is held, was interrupted, or waits
    Resume(Deferred<resume::Arguments>),
    /// Take a run back: everything that it did and that can be undone
    Rollback(Deferred<resume::RollbackArguments>),
    /// Stop a run: start nothing new, stop what runs, then do as on_failure says
    Cancel(Deferred<cancel::Arguments>),
    /// Answer a run that waits for a person
    Approve(Deferred<approve::Arguments>),
    /// List the runs, newest first
    Runs(Deferred<runs::Arguments>),
    /// Show a run: its state, its steps, what failed, and what to type next
    Show(Deferred<show::Arguments>),
    /// Print the output of a run's commands
    Logs(Deferred<logs::Arguments>),
    /// Say why a run, or one step of it, is not done: what blocks it, and what to type
    Why(Deferred<why::Arguments>),
    /// Serve playbooks, schedules and runs through an API and a page
    #[cfg(feature = "serve")]
    Serve(Deferred<serve::Arguments>),
    /// Make, list and revoke the tokens of `runback serve`
    #[cfg(feature = "serve")]
    Token(Deferred<token::Arguments>),
    /// Check that journals are as they were written, or write a signed copy of them
    #[cfg(feature = "serve")]
    Audit(Deferred<audit::Arguments>),
    /// List, pause, trigger and backfill the schedules of playbooks
    #[cfg(feature = "serve")]
    Schedule(Deferred<schedule::Arguments>),
    /// List the step types, or show one with its inputs, outputs and examples
    Steps(Deferred<steps::Arguments>),
    /// Print the JSON Schema of playbooks, or write all schemas to a folder
    Schema(Deferred<schema::Arguments>),
    /// Print a completion script: runback completions bash > /etc/bash_completion.d/runback
    Completions(Deferred<completions::Arguments>),
}

impl Cli {
    /// As it was typed, or else as the environment says: a variable that is empty says nothing.
    pub(crate) fn state_dir(&self) -> Option<PathBuf> {
        let named = || std::env::var_os("RUNBACK_STATE_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from);
        self.state_dir.clone().or_else(named)
    }
}

impl Verb {
    /// What it says to type next is read on other machines, and by other people.
    pub(crate) fn is_read_elsewhere(&self) -> bool {
        #[cfg(feature = "serve")]
        return matches!(self, Self::Serve(_));
        #[cfg(not(feature = "serve"))]
        false
    }

    /// It is about what a run comes to, and not about what is said of it.
    pub(crate) fn drives(&self) -> bool {
        matches!(self, Self::Run(_) | Self::Resume(_) | Self::Rollback(_))
    }

    pub(crate) fn wants_json(&self) -> bool {
        let format = match self {
            Self::Run(a) => return a.drive.is_json(),
            Self::Resume(a) => return a.drive.is_json(),
            Self::Rollback(a) => return a.drive.is_json(),
            Self::Check(a) => a.output.output,
            Self::Simulate(a) => return a.output == crate::report::RunFormat::Json,
            Self::Test(a) => a.output.output,
            Self::Plan(a) => a.output.output,
            Self::Steps(a) => a.output.output,
            Self::Runs(a) => a.output.output,
            Self::Show(a) => a.output.output,
            Self::Why(a) => a.output.output,
            #[cfg(feature = "serve")]
            Self::Token(a) => a.output(),
            #[cfg(feature = "serve")]
            Self::Audit(a) => a.output(),
            #[cfg(feature = "serve")]
            Self::Schedule(a) => a.output(),
            #[cfg(feature = "serve")]
            Self::Serve(_) => return false,
            Self::Cancel(_)
            | Self::Approve(_)
            | Self::Logs(_)
            | Self::Graph(_)
            | Self::Schema(_)
            | Self::Completions(_) => return false,
        };
        format == Format::Json
    }
}

pub(crate) fn run(cli: Cli) -> Done {
    let dir = cli.state_dir();
    let dir = dir.as_deref();
    match cli.verb {
        Verb::Run(a) => run::run(&a, dir),
        Verb::Resume(a) => resume::run(&a, dir),
        Verb::Rollback(a) => resume::rollback(&a, dir),
        Verb::Cancel(a) => cancel::run(&a, dir),
        Verb::Approve(a) => approve::run(&a, dir),
        Verb::Check(a) => Ok(check::run(&a)),
        Verb::Plan(a) => plan::run(&a, dir),
        Verb::Simulate(a) => simulate::run(&a),
        Verb::Test(a) => test::run(&a),
        Verb::Graph(a) => graph::run(&a),
        Verb::Runs(a) => runs::run(&a, dir),
        Verb::Show(a) => show::run(&a, dir),
        Verb::Logs(a) => logs::run(&a, dir),
        Verb::Why(a) => why::run(&a, dir),
        #[cfg(feature = "serve")]
        Verb::Serve(a) => serve::run(&a, dir),
        #[cfg(feature = "serve")]
        Verb::Token(a) => token::run(&a, dir),
        #[cfg(feature = "serve")]
        Verb::Audit(a) => audit::run(&a, dir),
        #[cfg(feature = "serve")]
        Verb::Schedule(a) => schedule::run(&a, dir),
        Verb::Steps(a) => steps::run(&a),
        Verb::Schema(a) => schema::run(&a),
        Verb::Completions(a) => Ok(completions::run(&a)),
    }
}

/// How an answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    #[value(aliases = ["tty", "lines"])]
    Text,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct OutputArg {
    /// For people, or as data
    #[arg(long, short, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    pub(crate) output: Format,
}

impl OutputArg {
    pub(crate) fn is_json(&self) -> bool {
        self.output == Format::Json
    }
}
