//! One attempt of one action, undo or probe, on a task of its own: its deadline, its output, and what the
//! engine lends to the step. Knows nothing of the run's state; it talks to the driver through a channel.

use std::any::Any;
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use runback_core::Json;
use runback_core::progress::Progress;
use runback_core::state::NodeId;
use runback_core::step::{
    Acted, Answer, AnyStepType, Class, Cx, Held, Host, Probe, Question, StepError, UndoKind, Undone,
};
use runback_core::target::{Detached, Stream, Target, Watch};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::output::AttemptLog;
use crate::target::Targets;

/// Why an attempt must stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopReason {
    Cancel = 1,
    Timeout = 2,
    Idle = 3,
    /// runback itself goes; the run stays as it is.
    Leave = 4,
}

/// Asks an attempt to stop. The first reason stays.
#[derive(Debug, Default)]
pub(super) struct Stop {
    reason: AtomicU8,
    notify: Notify,
}

impl Stop {
    pub(super) fn stop(&self, reason: StopReason) {
        let _ = self.reason.compare_exchange(0, reason as u8, Ordering::SeqCst, Ordering::SeqCst);
        self.notify.notify_waiters();
    }

    pub(super) fn reason(&self) -> Option<StopReason> {
        match self.reason.load(Ordering::SeqCst) {
            0 => None,
            1 => Some(StopReason::Cancel),
            2 => Some(StopReason::Timeout),
            3 => Some(StopReason::Idle),
            _ => Some(StopReason::Leave),
        }
    }

    pub(super) async fn stopped(&self) {
        loop {
            let notified = self.notify.notified();
            if self.reason().is_some() {
                return;
            }
            notified.await;
        }
    }
}

/// What an attempt tells the driver.
pub(super) enum Message {
    /// Make the capture durable, then answer.
    Arm {
        node: NodeId,
        capture: Json,
        done: oneshot::Sender<()>,
    },
    Note {
        node: NodeId,
        note: Json,
        done: oneshot::Sender<()>,
    },
    Detached {
        node: NodeId,
        detached: Detached,
        done: oneshot::Sender<()>,
    },
    Ask {
        node: NodeId,
        question: Question,
        answer: oneshot::Sender<Answer>,
    },
    Progress {
        node: NodeId,
        progress: Progress,
    },
    Warning {
        message: String,
    },
    /// Comes before the `Acted` of the same attempt.
    Held {
        node: NodeId,
        held: Result<Held, StepError>,
    },
    Acted {
        node: NodeId,
        result: Result<Acted<Json>, StepError>,
    },
    Undone {
        node: NodeId,
        result: Result<Undone, StepError>,
    },
    Probed {
        node: NodeId,
        result: Result<Probe<Json>, StepError>,
    },
}

/// Limits of one attempt.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) timeout: Option<Duration>,
    pub(super) idle: Option<Duration>,
    pub(super) grace: Duration,
}

/// Everything that a task of its own needs.
pub(super) struct Attempt {
    pub(super) node: NodeId,
    pub(super) run: Arc<str>,
    pub(super) step: Arc<str>,
    pub(super) number: u32,
    pub(super) step_type: Arc<dyn AnyStepType>,
    pub(super) inputs: Json,
    pub(super) env: BTreeMap<String, String>,
    pub(super) target: Arc<dyn Target>,
    pub(super) targets: Arc<dyn Targets>,
    pub(super) base: Arc<PathBuf>,
    pub(super) force: bool,
    pub(super) detach: bool,
    pub(super) reattach: Option<Detached>,
    pub(super) notes: Vec<Arc<Json>>,
    pub(super) limits: Limits,
    pub(super) log: Option<Arc<AttemptLog>>,
    pub(super) stop: Arc<Stop>,
    pub(super) clock: Clock,
    pub(super) tell: mpsc::UnboundedSender<Message>,
}

/// How long an attempt may take to notice that it must stop, beyond its grace.
const STOP_SLACK: Duration = Duration::from_secs(5);

impl Attempt {
    /// Runs the action: captures (unless an earlier attempt has), has that made durable, acts.
    pub(super) async fn act(mut self, arm: bool, captured: Option<Json>) {
        let node = self.node;
        let lent = self.lend();
        let result = guarded(async {
            let cx = self.cx(&lent);
            let capture = if let Some(capture) = captured {
                capture
            } else {
                let capture = self.capture(&lent, &cx).await?;
                if arm {
                    lent.send_and_wait(|done| Message::Arm { node, capture: capture.clone(), done }).await?;
                }
                capture
            };
            let acted = self.bounded(&lent, self.step_type.act(&cx, &self.inputs, &capture)).await?;
            if let Some(held) = self.held(&lent, &cx, &acted.outputs).await? {
                let _ = self.tell.send(Message::Held { node, held: Ok(held) });
            }
            Ok(acted)
        })
        .await;
        self.finish_log();
        let _ = self.tell.send(Message::Acted { node, result });
    }

    /// What only an undo needs is not read where there is none.
    async fn capture(&self, lent: &Lent, cx: &Cx<'_>) -> Result<Json, StepError> {
        if self.step_type.descriptor().undo != UndoKind::Full {
            return Ok(Json::Null);
        }
        self.bounded(lent, self.step_type.capture(cx, &self.inputs)).await
    }

    /// Holds again what an earlier process held.
    pub(super) async fn hold(mut self, outputs: Json) {
        let node = self.node;
        let lent = self.lend();
        let held = guarded(async {
            let nothing = || StepError::permanent("it holds nothing any more");
            self.held(&lent, &self.cx(&lent), &outputs).await?.ok_or_else(nothing)
        })
        .await;
        let _ = self.tell.send(Message::Held { node, held });
    }

    async fn held(&self, lent: &Lent, cx: &Cx<'_>, outputs: &Json) -> Result<Option<Held>, StepError> {
        if !self.step_type.holds() {
            return Ok(None);
        }
        self.bounded(lent, self.step_type.hold(cx, &self.inputs, outputs)).await
    }

    pub(super) async fn undo(mut self, capture: Json, outputs: Option<Json>) {
        let node = self.node;
        let lent = self.lend();
        let result = guarded(async {
            let cx = self.cx(&lent);
            self.bounded(&lent, self.step_type.undo(&cx, &self.inputs, &capture, outputs.as_ref())).await
        })
        .await;
        self.finish_log();
        let _ = self.tell.send(Message::Undone { node, result });
    }

    /// A step that stands in for the inverse: acting is what undoes.
    pub(super) async fn undo_by_acting(mut self) {
        let node = self.node;
        let lent = self.lend();
        let result = guarded(async {
            let cx = self.cx(&lent);
            let capture = self.capture(&lent, &cx).await?;
            let acted = self.bounded(&lent, self.step_type.act(&cx, &self.inputs, &capture)).await?;
            Ok(Undone { changed: acted.changed, note: None })
        })
        .await;
        self.finish_log();
        let _ = self.tell.send(Message::Undone { node, result });
    }

    pub(super) async fn probe(mut self, capture: Json) {
        let node = self.node;
        let lent = self.lend();
        let result = guarded(async {
            let cx = self.cx(&lent);
            self.bounded(&lent, self.step_type.probe(&cx, &self.inputs, &capture)).await
        })
        .await;
        let _ = self.tell.send(Message::Probed { node, result });
    }

    fn finish_log(&self) {
        if let Some(log) = &self.log {
            log.finish();
        }
    }

    fn lend(&mut self) -> Lent {
        Lent {
            node: self.node,
            clock: self.clock,
            grace: self.limits.grace,
            stop: Arc::clone(&self.stop),
            log: self.log.clone(),
            tell: self.tell.clone(),
            targets: Arc::clone(&self.targets),
            notes: Mutex::new(std::mem::take(&mut self.notes)),
            born: Instant::now(),
            heard_ms: AtomicU64::new(0),
        }
    }

    fn cx<'a>(&'a self, host: &'a Lent) -> Cx<'a> {
        Cx {
            run: &self.run,
            step: &self.step,
            attempt: self.number,
            target: self.target.as_ref(),
            env: &self.env,
            base: &self.base,
            force: self.force,
            detach: self.detach,
            reattach: self.reattach.as_ref(),
            host,
        }
    }

    /// Runs one call of the step within the attempt's limits. A step that must stop has its grace, and is then
    /// dropped.
    async fn bounded<T>(&self, lent: &Lent, call: impl Future<Output = Result<T, StepError>>) -> Result<T, StepError> {
        if self.stop.reason().is_some() {
            // It was told between two calls: the next one does not begin.
            return Err(self.explain(gone()));
        }
        let mut call = std::pin::pin!(call);
        let began = Instant::now();
        let timeout = self.limits.timeout.map(|t| began + t);
        let mut given_up: Option<Instant> = None;
        loop {
            let idle = self.limits.idle.map(|idle| lent.last_output().max(began) + idle);
            let next = [timeout, idle].into_iter().flatten().min().filter(|_| given_up.is_none());
            tokio::select! {
                biased;
                result = &mut call => return result.map_err(|e| self.explain(e)),
                () = lent.stop.stopped(), if given_up.is_none() => {
                    given_up = Some(Instant::now() + self.limits.grace + STOP_SLACK);
                }
                () = at(given_up) => return Err(self.explain(StepError::new(Class::Cancelled, "it did not stop in time"))),
                () = at(next) => {
                    let now = Instant::now();
                    if timeout.is_some_and(|t| t <= now) {
                        lent.stop.stop(StopReason::Timeout);
                    } else if self.limits.idle.is_some_and(|idle| lent.last_output().max(began) + idle <= now) {
                        lent.stop.stop(StopReason::Idle);
                    }
                }
            }
        }
    }

    /// Says why it was stopped, in place of the step's own "cancelled".
    fn explain(&self, error: StepError) -> StepError {
        if error.class != Class::Cancelled {
            return error;
        }
        let (class, message) = match self.stop.reason() {
            Some(StopReason::Timeout) => {
                let limit = self.limits.timeout.unwrap_or_default();
                (Class::Timeout, format!("it was not done within its timeout of {}", human(limit)))
            }
            Some(StopReason::Idle) => {
                let limit = self.limits.idle.unwrap_or_default();
                (Class::Timeout, format!("it wrote nothing for its idle_timeout of {}", human(limit)))
            }
            Some(StopReason::Cancel) => (Class::Cancelled, "it was stopped".to_owned()),
            Some(StopReason::Leave) | None => return error,
        };
        let help = match class {
            Class::Timeout => {
                error.help.or_else(|| Some("give the step more time, or look at its output: `runback logs`".to_owned()))
            }
            _ => error.help,
        };
        StepError { class, message, help, ..error }
    }
}

/// "90s", "10m", "2h5m".
pub(super) fn human(duration: Duration) -> String {
    let ms = duration.as_millis();
    let seconds = duration.as_secs();
    match seconds {
        _ if ms < 1000 || !ms.is_multiple_of(1000) && ms < 60_000 => format!("{ms}ms"),
        0..120 => format!("{seconds}s"),
        120..3600 if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        120..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        _ if seconds % 3600 < 60 => format!("{}h", seconds / 3600),
        _ => format!("{}h{}m", seconds / 3600, seconds % 3600 / 60),
    }
}

async fn at(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when).await,
        None => std::future::pending().await,
    }
}

/// A step that panics fails; it does not take the run with it.
async fn guarded<T>(call: impl Future<Output = Result<T, StepError>> + Send) -> Result<T, StepError> {
    struct Guarded<'f, T>(Pin<Box<dyn Future<Output = T> + Send + 'f>>);
    impl<T> Future for Guarded<'_, T> {
        type Output = std::thread::Result<T>;
        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
            // The future is not polled again after a panic, so a broken invariant inside it is never seen.
            match std::panic::catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(cx))) {
                Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
                Ok(Poll::Pending) => Poll::Pending,
                Err(panic) => Poll::Ready(Err(panic)),
            }
        }
    }
    match Guarded(Box::pin(call)).await {
        Ok(result) => result,
        Err(panic) => Err(broke(&*panic)),
    }
}

pub(super) fn broke(panic: &(dyn Any + Send)) -> StepError {
    let what = panic.downcast_ref::<&str>().map(ToString::to_string);
    let what = what.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    StepError::permanent(format!("the step type broke: {what}"))
        .help("this is a mistake in runback; please report it with the output of `runback show`")
}

/// What the engine lends to the step.
struct Lent {
    node: NodeId,
    clock: Clock,
    grace: Duration,
    stop: Arc<Stop>,
    log: Option<Arc<AttemptLog>>,
    tell: mpsc::UnboundedSender<Message>,
    targets: Arc<dyn Targets>,
    notes: Mutex<Vec<Arc<Json>>>,
    born: Instant,
    /// When a byte of output came last, in milliseconds since `born`.
    heard_ms: AtomicU64,
}

/// The driver is gone; nothing that this attempt does can be recorded any more.
fn gone() -> StepError {
    StepError::new(Class::Cancelled, "runback is leaving the run")
}

impl Lent {
    fn last_output(&self) -> Instant {
        self.born + Duration::from_millis(self.heard_ms.load(Ordering::Relaxed))
    }

    async fn send_and_wait<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> Message) -> Result<T, StepError> {
        let (done, wait) = oneshot::channel();
        self.tell.send(message(done)).map_err(|_| gone())?;
        wait.await.map_err(|_| gone())
    }
}

#[async_trait::async_trait]
impl Watch for Lent {
    fn output(&self, stream: Stream, bytes: &[u8]) {
        self.heard_ms.store(self.born.elapsed().as_millis() as u64, Ordering::Relaxed);
        if let Some(log) = &self.log {
            log.write(stream, bytes);
        }
    }

    async fn stopped(&self) {
        self.stop.stopped().await;
    }

    fn kill_grace(&self) -> Duration {
        self.grace
    }
}

#[async_trait::async_trait]
impl Host for Lent {
    fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    fn progress(&self, progress: Progress) {
        let _ = self.tell.send(Message::Progress { node: self.node, progress });
    }

    async fn ask(&self, question: Question) -> Result<Answer, StepError> {
        let node = self.node;
        let (answer, wait) = oneshot::channel();
        self.tell.send(Message::Ask { node, question, answer }).map_err(|_| gone())?;
        tokio::select! {
            answer = wait => answer.map_err(|_| gone()),
            () = self.stop.stopped() => Err(StepError::new(Class::Cancelled, "it was stopped before an answer came")),
        }
    }

    async fn note(&self, note: Json) -> Result<(), StepError> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::new(note.clone()));
        let node = self.node;
        self.send_and_wait(|done| Message::Note { node, note, done }).await
    }

    fn notes(&self) -> Vec<Json> {
        let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.iter().map(|note| Json::clone(note)).collect()
    }

    async fn started_detached(&self, detached: &Detached) -> Result<(), StepError> {
        let (node, detached) = (self.node, detached.clone());
        self.send_and_wait(|done| Message::Detached { node, detached, done }).await
    }

    async fn target(&self, name: &str) -> Result<Arc<dyn Target>, StepError> {
        self.targets.get(name).map_err(Into::into)
    }
}
