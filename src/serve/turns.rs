//! When it is the turn of a run that waits in the queue: which runs of its schedule live, whoever drives them, and what
//! others ask of it; other servers and command lines use the store too. What becomes of an instant that meets a run is
//! `runback_core::schedule`'s business.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use runback_core::event::EventBody;
use runback_exec::store::{RunEnd, RunRow, StoreError};
use serde_json::json;

use super::App;
use super::log;

/// Runs of the newest instants of a schedule that are looked at, besides those that the index shows as living.
const RECENT: usize = 20;
/// At the latest so long after it became durable it is seen that a run elsewhere is over.
const LOOK: Duration = Duration::from_millis(250);

/// The order of a schedule's runs: as they were made. All servers of a store see the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    created_at: u64,
    scheduled_at: u64,
    run: String,
}

/// A run of a schedule that is not over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Living {
    turn: Turn,
    /// It has started, and is not one of those that wait.
    begun: bool,
    /// Some process has it.
    pub(crate) driven: bool,
}

impl Living {
    fn of(row: RunRow) -> Self {
        let (mut created_at, mut scheduled_at, mut begun) = (row.last_at, 0, false);
        for event in &row.head_events {
            match &event.body {
                EventBody::RunCreated(created) => {
                    created_at = event.at;
                    scheduled_at = created.options.scheduled_at.unwrap_or_default();
                }
                EventBody::RunStarted {} | EventBody::RollbackStarted { .. } => begun = true,
                _ => {}
            }
        }
        Self { turn: Turn { created_at, scheduled_at, run: row.run }, begun, driven: row.owner.is_some() }
    }

    /// It is of an earlier instant; that of the same one another server made.
    pub(crate) fn is_before(&self, at: u64) -> bool {
        self.turn.scheduled_at < at
    }

    pub(crate) fn run(&self) -> &str {
        &self.turn.run
    }
}

/// How many wait for another one. Of those that have not begun, one is to begin now where none has.
pub(crate) fn waiting(living: &[Living]) -> usize {
    let begun = living.iter().any(|l| l.driven && l.begun);
    let to_begin = living.iter().filter(|l| l.driven && !l.begun).count();
    if begun { to_begin } else { to_begin.saturating_sub(1) }
}

/// The run for which another one of the same schedule waits. What nobody drives is in nobody's way.
pub(crate) fn in_the_way<'a>(living: &'a [Living], run: &str) -> Option<&'a str> {
    let own = living.iter().find(|l| l.run() == run)?;
    let first = |other: &&Living| other.driven && (other.begun || other.turn < own.turn);
    living.iter().filter(|l| l.run() != run).find(first).map(Living::run)
}

/// Runs of a schedule that are not over, oldest first, whoever drives them.
pub(crate) async fn living(app: &App, schedule: &str) -> Result<Vec<Living>, StoreError> {
    let ours = app.runner.of_schedule(schedule);
    let mut looked: BTreeSet<String> = app.desk.fired_runs(schedule, RECENT).await?.into_iter().collect();
    // Also those that lived long before: what the index shows is looked up before it counts.
    let heads = app.index.heads();
    let of_schedule = heads.iter().filter(|head| head.schedule.as_deref() == Some(schedule));
    looked.extend(of_schedule.filter(|head| head.may_go_on()).map(|head| head.id.clone()));
    looked.extend(ours.iter().cloned());
    let mut living = Vec::new();
    for run in looked {
        match app.store.run(&run).await {
            Ok(row) if row.end() == RunEnd::Open || ours.contains(&run) => living.push(Living::of(row)),
            Ok(_) | Err(StoreError::UnknownRun { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    living.sort_by(|one, other| one.turn.cmp(&other.turn));
    Ok(living)
}

/// Sees for the runs of the queue, while there are any, when it is their turn, and what others ask of them through the
/// store. Until it is aborted.
pub(crate) async fn follow(app: Arc<App>) {
    let mut seen = None;
    let mut idle = 0_u32;
    loop {
        let nudged = if app.runner.has_queue() {
            tokio::time::timeout(LOOK, app.runner.turns.notified()).await.is_ok()
        } else {
            app.runner.turns.notified().await;
            true
        };
        let changed = app.store.changed().await.ok();
        // A process that dies changes no table.
        idle += 1;
        if !nudged && changed.is_some() && seen == changed && idle < 4 {
            continue;
        }
        (seen, idle) = (changed, 0);
        if let Err(error) = look(&app).await {
            let fields = json!({ "error": error.to_string(), "help": error.help() });
            log::error("the queue cannot be looked after", fields);
        }
    }
}

async fn look(app: &App) -> Result<(), StoreError> {
    for run in app.desk.asked_to_stop().await? {
        app.runner.hurry(&run);
    }
    for schedule in app.runner.waited_for() {
        app.runner.admit(&schedule, &living(app, &schedule).await?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn living(created_at: u64, run: &str, begun: bool, driven: bool) -> Living {
        Living { turn: Turn { created_at, scheduled_at: 0, run: run.to_owned() }, begun, driven }
    }

    #[test]
    fn each_waits_for_what_runs_and_for_what_was_made_before_it() {
        let all = [
            living(1, "orphan", true, false),
            living(2, "first", false, true),
            living(3, "second", false, true),
            living(3, "third", false, true),
        ];
        let of = |all: &[Living], run: &str| in_the_way(all, run).map(str::to_owned);
        assert_eq!(of(&all, "first"), None, "what nobody drives is in nobody's way");
        assert_eq!(of(&all, "second").as_deref(), Some("first"));
        assert_eq!(of(&all, "third").as_deref(), Some("first"));
        assert_eq!(
            of(&all[2..], "third").as_deref(),
            Some("second"),
            "made in the same moment: by name, for everybody"
        );
        let late = [living(2, "first", false, true), living(9, "resumed", true, true)];
        assert_eq!(of(&late, "first").as_deref(), Some("resumed"), "it was made later and runs");
        assert_eq!(of(&late, "gone"), None);
    }

    /// Another server made one of the same instant a moment ago.
    #[test]
    fn a_run_of_the_same_instant_is_not_met() {
        let of = |scheduled_at| Living {
            turn: Turn { scheduled_at, ..living(9, "r", false, true).turn },
            begun: false,
            driven: true,
        };
        assert!(of(4).is_before(5) && !of(5).is_before(5) && !of(6).is_before(5));
    }

    /// A busy server makes the run of one instant and meets it at the next before it has begun.
    #[test]
    fn the_first_does_not_wait_for_anybody_though_it_has_not_begun() {
        let (first, second) = (living(2, "first", false, true), living(3, "second", false, true));
        assert_eq!(waiting(std::slice::from_ref(&first)), 0);
        assert_eq!(waiting(&[first, second.clone()]), 1);
        assert_eq!(waiting(&[living(2, "first", true, true), second.clone()]), 1);
        assert_eq!(waiting(&[living(2, "first", true, false), second]), 0, "nobody drives the first");
    }
}
