//! The runs that this server drives: so many at once, the others in a queue, in order. The driver is the one of the
//! command line; here is only when it starts, and how it is told to stop.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use runback_core::event::{Event, EventBody};
use runback_core::state::{RunState, RunStatus};
use runback_exec::driver::{Control, DriveOptions, Driver};
use runback_exec::reporter::{Nobody, Notice, Reporter};
use serde_json::json;
use tokio::sync::{mpsc, watch};

use super::App;
use super::log;
use crate::failure::Failure;
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

/// A run that is being driven.
struct Driven {
    control: mpsc::UnboundedSender<Control>,
    schedule: Option<String>,
    /// It waits for a person, and takes no place.
    waits: Arc<AtomicBool>,
}

#[derive(Default)]
struct Inner {
    queue: VecDeque<Job>,
    driven: HashMap<String, Driven>,
    ending: bool,
}

pub(crate) struct Runner {
    app: Weak<App>,
    max_runs: usize,
    max_queue: usize,
    inner: Mutex<Inner>,
    /// How many runs are driven; for who waits until there are none.
    count: watch::Sender<usize>,
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
        Self { app, max_runs, max_queue, inner: Mutex::default(), count: watch::Sender::new(0) }
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

    /// Before a run is made: whether there is room for it.
    pub(crate) fn room(&self) -> Result<(), Failure> {
        let inner = self.inner();
        if inner.ending {
            return Err(Failure::refused("the server is ending").help("start it again, then try again"));
        }
        if inner.queue.len() >= self.max_queue {
            let full = format!("{} runs are in the queue already", inner.queue.len());
            return Err(Failure::refused(full).help("wait, cancel some, or give serve a larger --max-queue"));
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
            inner.queue.push_back(job);
        }
        self.fill();
    }

    /// The place in the queue, from 1; None: it is not in it.
    pub(crate) fn place(&self, run: &str) -> Option<usize> {
        self.inner().queue.iter().position(|job| job.run() == run).map(|at| at + 1)
    }

    /// Takes a run out of its turn, so that what was asked of it (a cancellation) is done now.
    pub(crate) fn hurry(&self, run: &str) {
        let job = {
            let mut inner = self.inner();
            let at = inner.queue.iter().position(|job| job.run() == run);
            at.and_then(|at| inner.queue.remove(at))
        };
        if let Some(job) = job {
            self.start(job);
        }
    }

    /// Runs of a schedule that live in this server, those in the queue included.
    pub(crate) fn of_schedule(&self, schedule: &str) -> Vec<String> {
        let inner = self.inner();
        let driven = inner.driven.iter().filter(|(_, d)| d.schedule.as_deref() == Some(schedule));
        let queued = inner.queue.iter().filter(|j| schedule_of(&j.driver).as_deref() == Some(schedule));
        driven.map(|(run, _)| run.clone()).chain(queued.map(|j| j.run().to_owned())).collect()
    }

    /// How many of them have not begun.
    pub(crate) fn queued_of(&self, schedule: &str) -> usize {
        let of = |j: &&Job| schedule_of(&j.driver).as_deref() == Some(schedule);
        self.inner().queue.iter().filter(of).count()
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
                let free = |job: &Job, at: usize, inner: &Inner| {
                    let Some(schedule) = &job.after else { return true };
                    let same = |other: &Option<String>| other.as_ref() == Some(schedule);
                    !inner.driven.values().any(|d| same(&d.schedule))
                        && !inner.queue.iter().take(at).any(|j| same(&j.after))
                };
                let next = (0..inner.queue.len()).find(|at| free(&inner.queue[*at], *at, &inner));
                let Some(job) = next.and_then(|at| inner.queue.remove(at)) else { return };
                job
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
        {
            let mut inner = self.inner();
            inner.driven.insert(run.clone(), driven);
            self.count.send_replace(inner.driven.len());
        }
        // Whoever asks: a run is driven on the threads of the runs.
        app.runs.clone().spawn(async move {
            let watcher = Watcher { app: Arc::clone(&app), waits };
            let end = Unregister { app: Arc::clone(&app), run };
            drive(&app, job, wishes, watcher).await;
            drop(end);
        });
    }

    fn ended(&self, run: &str) {
        {
            let mut inner = self.inner();
            inner.driven.remove(run);
            self.count.send_replace(inner.driven.len());
        }
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
}

impl Drop for Unregister {
    fn drop(&mut self) {
        self.app.runner.ended(&self.run);
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
