//! `runback cancel`: asks whoever drives a run to stop it.

use std::path::Path;

use clap::Args;
use runback_core::state::{Phase, RunState};
use runback_exec::store::{Request, Store};

use crate::exit::Exit;
use crate::failure::{Done, Failure};
use crate::term::{self, DIM, RESET};
use crate::{ask, journal, next, state_dir, surroundings};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A run's id, the beginning of one, or `last`
    #[arg(value_name = "RUN")]
    run: String,

    /// Stop at once, take nothing back, and leave the run resumable
    #[arg(long, conflicts_with = "hold")]
    now: bool,

    /// Let what runs finish, start nothing new, and hold
    #[arg(long)]
    hold: bool,
}

pub(crate) fn run(arguments: &Arguments, dir: Option<&Path>) -> Done {
    let store = state_dir::of_run(dir, &arguments.run)?;
    state_dir::block_on(async {
        let id = store.resolve(&arguments.run).await?;
        let Some(owner) = store.owner(&id).await? else { return Err(nobody_drives(store.as_ref(), &id).await?) };
        let run = journal::read(store.as_ref(), &id, &runback_steps::catalog()).await?;
        let by = surroundings::by();
        let (request, what) = if arguments.hold {
            (Request::Hold { by }, "to hold it when what runs is over")
        } else {
            (
                Request::Cancel { by, now: arguments.now },
                if arguments.now { "to leave it at once" } else { "to stop it" },
            )
        };
        may_stop(&run.state, &request)?;
        let request = store.post(&id, request).await?;
        if !ask::heard(store.as_ref(), &id, request).await? {
            return Err(nobody_drives(store.as_ref(), &id).await?);
        }
        term::line(&format!("asked {owner} {what}"));
        term::note(&format!("{DIM}see it: {}{RESET}", next::as_typed(&format!("runback show {id}"))));
        Ok(Exit::Succeeded)
    })
}

async fn nobody_drives(store: &dyn Store, id: &str) -> Result<Failure, Failure> {
    let run = journal::read(store, id, &runback_steps::catalog()).await?;
    let alone = run.state.active().find(|n| run.state.node(*n).detached().is_some());
    let so = match alone {
        Some(node) => format!("but the command of {} was detached, and may run still", run.state.path(node)),
        None => "so there is nothing to stop".to_owned(),
    };
    let failure = Failure::failed(format!("nobody drives run {id} ({}), {so}", run.status()));
    Ok(next::steps(&run.state, run.status(), false).into_iter().fold(failure, |f, line| f.help(line.trim())))
}

/// Refuses what whoever drives the run would only refuse, too: who asks from elsewhere would not hear of that.
pub(crate) fn may_stop(state: &RunState, request: &Request) -> Result<(), Failure> {
    let to_its_end = matches!(state.phase, Phase::RollingBack | Phase::Finally);
    let what = match request {
        Request::Cancel { now: false, .. } if to_its_end => "which goes on to its end",
        Request::Hold { .. } if to_its_end => "and cannot be held",
        _ => return Ok(()),
    };
    let run = state.run_id();
    let now = next::as_typed(&format!("runback cancel {run} --now"));
    Err(Failure::refused(format!("run {run} is {}, {what}", state.phase_name()))
        .help(format!("leave it at once, to be taken up later: {now}")))
}
