//! The runs that this server drives: so many at once, the others in a queue, in order. The driver is the one of the
//! command line; here is only when it starts, and how it is told to stop.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use runback_core::event::{Event, EventBody};
use runback_core::state::{RunState, RunStatus};
use runback_exec::driver::{Control, DriveOptions, Driver};
use runback_exec::reporter::{Nobody, Notice, Reporter};
use serde_json::json;
use tokio::sync::{Notify, mpsc, watch};

use super::App;
use super::log;
use super::problem::Problem;
use super::turns::{self, Living};
use crate::surroundings::Machines;
use crate::trace::Traced;

/// A run that is ready to be driven: its lease is held, its beginning is durable.
pub(crate) struct Job {
    pub(crate) driver: Driver,
    pub(crate) machines: Machines,
    /// It does not start while another run of this schedule lives.
    pub(crate) after: Option<String>,
}

impl Job {
    fn run(&self) -> &str {
        self.driver.run()
    }
}

/// What is known of the runs that one of the queue waits for.
enum Behind {
    /// Nobody has looked yet.
    Unknown,
    Run(String),
    Nobody,
}

struct Queued {
    job: Job,
    /// Counts only for one that waits for the runs of its schedule.
    behind: Behind,
}

/// A run that is being driven.
struct Driven {
    control: mpsc::UnboundedSender<Control>,
    schedule: Option<String>,
    /// It waits for a person, and takes no place.
    waits: Arc<AtomicBool>,
}

#[derive(Default)]
struct Inner {
    queue: VecDeque<Queued>,
    driven: HashMap<String, Driven>,
    ending: bool,
}

impl Inner {
    /// Somebody may have had the run go on already, since its lease was free: that one stays.
    fn ended(&mut self, run: &str, waits: &Arc<AtomicBool>) {
        if self.driven.get(run).is_some_and(|driven| Arc::ptr_eq(&driven.waits, waits)) {
            self.driven.remove(run);
        }
    }
}

pub(crate) struct Runner {
    app: Weak<App>,
    max_runs: usize,
    max_queue: usize,
    inner: Mutex<Inner>,
    /// How many runs are driven; for who waits until there are none.
    count: watch::Sender<usize>,
    /// It may be the turn of a run that waits for others of its schedule.
    pub(crate) turns: Notify,
}

/// How many run, wait for a person, and are in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) running: usize,
    pub(crate) waiting: usize,
    pub(crate) queued: usize,
}

impl Runner {
    pub(crate) fn new(app: Weak<App>, max_runs: usize, max_queue: usize) -> Self {
        Self { app, max_runs, max_queue, inner: Mutex::default(), count: watch::Sender::new(0), turns: Notify::new() }
    }

    /// Nothing waits or panics while it is held.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn load(&self) -> Load {
        let inner = self.inner();
        let waiting = inner.driven.values().filter(|d| d.waits.load(Ordering::Relaxed)).count();
        Load { running: inner.driven.len() - waiting, waiting, queued: inner.queue.len() }
    }

    /// Before a run is made or taken up: whether there is room for it.
    pub(crate) fn room(&self) -> Result<(), Problem> {
        let inner = self.inner();
        if inner.ending {
            return Err(Problem::ending());
        }
        if inner.queue.len() >= self.max_queue {
            let full = format!("{} in the queue already", crate::words::plural(inner.queue.len(), "run"));
            return Err(Problem::unavailable(full, "wait, cancel some, or give serve a larger --max-queue"));
        }
        Ok(())
    }

    /// Drives a run when its turn comes.
    pub(crate) fn submit(&self, job: Job) {
        {
            let mut inner = self.inner();
            if inner.ending {
                // Dropped: it stays resumable, and the next server finds it.
                return;
            }
            inner.queue.push_back(Queued { job, behind: Behind::Unknown });
        }
        self.turns.notify_one();
        self.fill();
    }

    /// The place in the queue, from 1; None: it is not in it.
    pub(crate) fn place(&self, run: &str) -> Option<usize> {
        self.inner().queue.iter().position(|q| q.job.run() == run).map(|at| at + 1)
    }

    /// What a run of the queue waits for, in words; None: it is not in it.
    pub(crate) fn waits(&self, run: &str) -> Option<String> {
        let inner = self.inner();
        let at = inner.queue.iter().position(|q| q.job.run() == run)?;
        let Queued { job, behind } = &inner.queue[at];
        let here =
            || Some(inner.driven.iter().find(|(_, d)| job.after.is_some() && d.schedule == job.after)?.0.as_str());
        let other = match (&job.after, behind) {
            (Some(_), Behind::Run(other)) => Some(other.as_str()),
            _ => here(),
        };
        let by_limit = || {
            let limit = crate::words::plural(self.max_runs, "run");
            format!("it is in the server's queue, at place {}: {limit} at once (--max-runs)", at + 1)
        };
        let by_turn =
            |other| format!("it is in the server's queue, and begins once run {other} of its schedule is over");
        Some(other.map_or_else(by_limit, by_turn))
    }

    pub(crate) fn has_queue(&self) -> bool {
        !self.inner().queue.is_empty()
    }

    /// Schedules whose runs some of the queue wait for.
    pub(crate) fn waited_for(&self) -> BTreeSet<String> {
        self.inner().queue.iter().filter_map(|q| q.job.after.clone()).collect()
    }

    /// Takes note of the runs of a schedule that live, and starts what is not behind any of them.
    pub(crate) fn admit(&self, schedule: &str, living: &[Living]) {
        for queued in &mut self.inner().queue {
            if queued.job.after.as_deref() == Some(schedule) {
                let other = turns::in_the_way(living, queued.job.run());
                queued.behind = other.map_or(Behind::Nobody, |run| Behind::Run(run.to_owned()));
            }
        }
        self.fill();
    }

    /// Takes a run out of its turn, so that what was asked of it (a cancellation) is done now.
    pub(crate) fn hurry(&self, run: &str) {
        let job = {
            let mut inner = self.inner();
            let at = inner.queue.iter().position(|q| q.job.run() == run);
            at.and_then(|at| inner.queue.remove(at))
        };
        if let Some(queued) = job {
            self.start(queued.job);
        }
    }

    /// Runs of a schedule that live in this server, those in the queue included.
    pub(crate) fn of_schedule(&self, schedule: &str) -> Vec<String> {
        let inner = self.inner();
        let driven = inner.driven.iter().filter(|(_, d)| d.schedule.as_deref() == Some(schedule));
        let queued = inner.queue.iter().filter(|q| schedule_of(&q.job.driver).as_deref() == Some(schedule));
        driven.map(|(run, _)| run.clone()).chain(queued.map(|q| q.job.run().to_owned())).collect()
    }

    /// Starts what may start now, in order.
    fn fill(&self) {
        loop {
            let job = {
                let mut inner = self.inner();
                let busy = inner.driven.values().filter(|d| !d.waits.load(Ordering::Relaxed)).count();
                if inner.ending || busy >= self.max_runs {
                    return;
                }
                // What was begun here since the last look is not in what was seen then.
                let free = |q: &Queued| {
                    q.job.after.is_none()
                        || matches!(q.behind, Behind::Nobody)
                            && !inner.driven.values().any(|d| d.schedule == q.job.after)
                };
                let next = inner.queue.iter().position(free);
                let Some(queued) = next.and_then(|at| inner.queue.remove(at)) else { return };
                queued.job
            };
            self.start(job);
        }
    }

    fn start(&self, job: Job) {
        let Some(app) = self.app.upgrade() else { return };
        let (control, wishes) = mpsc::unbounded_channel();
        let run = job.run().to_owned();
        let waits = Arc::new(AtomicBool::new(false));
        let driven = Driven { control, schedule: schedule_of(&job.driver), waits: Arc::clone(&waits) };
        let end = Unregister { app: Arc::clone(&app), run: run.clone(), waits: Arc::clone(&waits) };
        {
            let mut inner = self.inner();
            inner.driven.insert(run, driven);
            self.count.send_replace(inner.driven.len());
        }
        // Whoever asks: a run is driven on the threads of the runs.
        app.runs.clone().spawn(async move {
            let watcher = Watcher { app: Arc::clone(&app), waits };
            drive(&app, job, wishes, watcher).await;
            drop(end);
        });
    }

    fn ended(&self, run: &str, waits: &Arc<AtomicBool>) {
        {
            let mut inner = self.inner();
            inner.ended(run, waits);
            self.count.send_replace(inner.driven.len());
        }
        self.turns.notify_one();
        self.fill();
    }

    /// Leaves every run as it is, resumable, and waits until all are left or `patience` is over.
    pub(crate) async fn leave(&self, patience: Duration) {
        let queued = {
            let mut inner = self.inner();
            inner.ending = true;
            for driven in inner.driven.values() {
                // Its driver is at its end already.
                let _ = driven.control.send(Control::Leave);
            }
            std::mem::take(&mut inner.queue)
        };
        drop(queued);
        let mut count = self.count.subscribe();
        let _ = tokio::time::timeout(patience, count.wait_for(|count| *count == 0)).await;
    }
}

/// A driver that panics must not leave its run counted as driven.
struct Unregister {
    app: Arc<App>,
    run: String,
    /// Its own: which of several drivers of the run, one after the other, it is.
    waits: Arc<AtomicBool>,
}

impl Drop for Unregister {
    fn drop(&mut self) {
        self.app.runner.ended(&self.run, &self.waits);
    }
}

pub(crate) fn schedule_of(driver: &Driver) -> Option<String> {
    driver.state().created.as_ref().and_then(|c| c.options.schedule.clone())
}

async fn drive(app: &App, job: Job, mut wishes: mpsc::UnboundedReceiver<Control>, mut watcher: Watcher) {
    let Job { mut driver, machines, .. } = job;
    let run = driver.run().to_owned();
    let playbook = driver.state().created.as_ref().map(|c| c.playbook.clone()).unwrap_or_default();
    log::info("run started", json!({ "run": run, "playbook": playbook }));
    let options = DriveOptions { wait: true, wait_for_locks: true };
    let mut spans = match &app.tracer {
        Some(tracer) => Some(tracer.follow(app.store.as_ref(), driver.state()).await),
        None => None,
    };
    let mut watcher = Traced { inner: &mut watcher, spans: spans.as_mut() };
    let ended = driver.drive(&mut watcher, &Nobody, &mut wishes, options).await;
    machines.close().await;
    match ended {
        Ok(ended) => {
            let fields = json!({
                "run": run, "playbook": playbook, "status": ended.status.name(), "left": ended.left, "waiting": ended.waiting,
            });
            log::info("run ended", fields);
        }
        Err(error) => {
            log::error(
                "run stopped",
                json!({ "run": run, "playbook": playbook, "error": error.to_string(), "help": error.help() }),
            );
        }
    }
    app.metrics.run_ended(&playbook, driver.state());
    if let Some(schedule) = schedule_of(&driver) {
        super::schedules::ended(app, &schedule, &run, driver.state()).await;
    }
    drop(driver);
    app.feeds.nudge(&run);
    app.index.nudge();
}

/// Sees what a driver does, for those who watch the server.
struct Watcher {
    app: Arc<App>,
    waits: Arc<AtomicBool>,
}

impl Reporter for Watcher {
    fn event(&mut self, state: &RunState, event: &Event) {
        self.app.feeds.nudge(state.run_id());
        self.app.metrics.event(state, event);
        if event.body.is_about_the_run() {
            self.app.index.nudge();
        }
        let waits = state.status() == RunStatus::Waiting;
        if self.waits.swap(waits, Ordering::Relaxed) != waits && waits {
            self.app.runner.fill();
        }
        if let EventBody::DoubtRaised { step, why, .. } = &event.body {
            log::warn("a person is needed", json!({ "run": state.run_id(), "step": step, "why": why }));
        }
    }

    fn notice(&mut self, state: &RunState, notice: &Notice<'_>) {
        if let Notice::Warning { message } = notice {
            log::warn(message, json!({ "run": state.run_id() }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_driver_is_not_the_end_of_the_one_after_it() {
        let mut inner = Inner::default();
        let waits: Vec<_> = (0..2).map(|_| Arc::new(AtomicBool::new(false))).collect();
        for waits in &waits {
            let control = mpsc::unbounded_channel().0;
            inner.driven.insert("r".to_owned(), Driven { control, schedule: None, waits: Arc::clone(waits) });
        }
        inner.ended("r", &waits[0]);
        assert!(inner.driven.contains_key("r"));
        inner.ended("r", &waits[1]);
        assert!(inner.driven.is_empty());
    }
}
