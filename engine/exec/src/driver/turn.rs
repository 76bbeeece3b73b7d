//! The turns of the loop: gather what happened, decide until nothing more follows, commit once, perform.

use std::sync::Arc;
use std::time::Duration;

use runback_core::decide::{Effect, decide};
use runback_core::event::{Event, EventBody, HoldReason, Resolution, RollbackReason};
use runback_core::state::{NodeId, Phase, RunStatus, Wish};
use runback_core::step::{Answer, Probe};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use super::attempt::{Message, StopReason};
use super::{Control, DriveOptions, Driver, DriverError, Ended, Gate, Start, masking};
use crate::reporter::{AfterFailure, Notice, Operator, Reporter};

/// Between looks at the store for requests and locks, and between ticks of the reporter.
const TICK: Duration = Duration::from_millis(100);
/// How long commands have to end when runback leaves (SIGTERM gives 10 s in all).
const LEAVE_WITHIN: Duration = Duration::from_secs(9);

/// So many events at most wait for a commit while steps are worked out: then all else is looked at.
const WORKED_OUT: usize = 256;

/// An answer from the terminal, while the run goes on.
type Prompt<'o> = std::pin::Pin<Box<dyn Future<Output = (NodeId, Option<Answer>)> + Send + 'o>>;

/// What a turn waited for.
enum Woke {
    Message(Message),
    Control(Control),
    Prompt(NodeId, Option<Answer>),
    Time,
    Tick,
}

impl Driver {
    /// Drives the run until it is over, held, left, or waits for a person who is not here.
    pub async fn drive(
        &mut self,
        io: &mut dyn Reporter,
        operator: &dyn Operator,
        control: &mut mpsc::UnboundedReceiver<Control>,
        options: DriveOptions,
    ) -> Result<Ended, DriverError> {
        let driven = self.drive_inner(io, operator, control, options).await;
        if driven.is_err() {
            // The journal cannot be trusted to take more; whatever runs must not go on unrecorded.
            self.leave();
            let _ = self.drain(Instant::now() + LEAVE_WITHIN, io).await;
        }
        // What still ran may have needed it.
        self.held.clear();
        if !self.lease.is_broken() {
            let released = self.engine.store.release_locks(&self.lease).await;
            if driven.is_ok() {
                released?;
            }
        }
        driven
    }

    async fn drive_inner(
        &mut self,
        io: &mut dyn Reporter,
        operator: &dyn Operator,
        control: &mut mpsc::UnboundedReceiver<Control>,
        options: DriveOptions,
    ) -> Result<Ended, DriverError> {
        // It may be driven again after it waited for a person who has come since.
        self.leaving = false;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut prompt: Option<Prompt<'_>> = None;
        let mut control_open = true;
        self.take_requests().await?;
        loop {
            let wake = if self.begin(io, options).await? { self.settle(io, operator).await? } else { None };
            self.commit(io).await?;
            self.let_go();
            self.perform();
            if let Some(ended) = self.ended(options, prompt.is_some()) {
                drop(prompt);
                return self.end(ended, io).await;
            }
            if prompt.is_none() {
                prompt = self.prompt(operator, io);
            }
            let wake = wake.into_iter().chain(self.next_question_deadline()).min();
            let clock = self.clock;
            let woke = tokio::select! {
                biased;
                message = self.told.recv() => message.map_or(Woke::Time, Woke::Message),
                asked = async { control.recv().await }, if control_open => if let Some(control) = asked { Woke::Control(control) } else { control_open = false; Woke::Time },
                (node, answer) = async { prompt.as_mut().expect("checked by the guard").await }, if prompt.is_some() =>
                    Woke::Prompt(node, answer),
                () = async { tokio::time::sleep(clock.until(wake.unwrap_or(0))).await }, if wake.is_some() => Woke::Time,
                _ = tick.tick() => Woke::Tick,
            };
            match woke {
                Woke::Message(message) => self.message(message, io)?,
                Woke::Control(asked) => self.control(asked)?,
                Woke::Prompt(node, answer) => {
                    prompt = None;
                    io.unpause(&self.state);
                    match answer {
                        Some(answer) => self.answered(node, answer)?,
                        None => self.asking.get_mut(&node).into_iter().for_each(|a| a.declined = true),
                    }
                }
                Woke::Time => {}
                Woke::Tick => self.tick(io, options).await?,
            }
            // All that has come by now shares the commit.
            while let Ok(message) = self.told.try_recv() {
                self.message(message, io)?;
            }
            self.expire_questions()?;
            self.warn(io);
        }
    }

    /// It is to be held, and does nothing that would have to end before: what it needs to go on it does not need for that.
    fn may_be_held_without_locks(&self) -> bool {
        let begins_nothing = match self.state.phase {
            Phase::Created => true,
            Phase::Running => self.state.is_quiet() && !self.state.takes_a_block_back(),
            _ => false,
        };
        self.gate != Gate::Open && self.state.wish == Some(Wish::Hold) && begins_nothing
    }

    /// Locks first, then the start. True = there is nothing to wait for before the first decision.
    async fn begin(&mut self, io: &mut dyn Reporter, options: DriveOptions) -> Result<bool, DriverError> {
        if self.leaving {
            return Ok(false);
        }
        if self.may_be_held_without_locks() {
            self.gate = Gate::Open;
        }
        if self.gate == Gate::Retake {
            if !self.retake_locks(options.wait_for_locks, io).await? {
                return Ok(false);
            }
            self.gate = Gate::Start;
        }
        if self.gate == Gate::Start {
            if self.state.phase == Phase::Created {
                let locks = !self.state.plan.locks.is_empty() && !self.state.locked;
                if locks && !self.lock_run(options.wait_for_locks, io).await? {
                    return Ok(false);
                }
                self.record(EventBody::RunStarted {})?;
            } else {
                self.hold_again();
            }
            self.gate = Gate::Open;
        }
        // The steps of a block rely on what is held around them.
        Ok(self.holding.is_empty())
    }

    /// Decides until no further fact follows. Returns when to look again at the latest.
    pub(super) async fn settle(
        &mut self,
        io: &mut dyn Reporter,
        operator: &dyn Operator,
    ) -> Result<Option<u64>, DriverError> {
        loop {
            if self.leaving {
                return Ok(None);
            }
            let mut recorded = false;
            let mut wake = None;
            for effect in decide(&self.state, self.clock.now_ms()) {
                match effect {
                    Effect::Record(body) => {
                        let body = self.ask_before_giving_up(body, io, operator).await?;
                        self.record(body)?;
                        recorded = true;
                    }
                    Effect::Start { node } => {
                        let step = Arc::clone(self.state.path(node));
                        let attempt = self.state.node(node).attempts + 1;
                        match self.render_own(node) {
                            // What could not be begun needs no undo.
                            Err(error) if attempt == 1 => {
                                self.record(EventBody::StepFailed { step, error })?;
                                recorded = true;
                            }
                            rendered => {
                                self.record(EventBody::AttemptStarted { step, attempt })?;
                                self.starts.push(Start::Act(node, rendered));
                            }
                        }
                    }
                    Effect::Undo { node } => {
                        let step = Arc::clone(self.state.path(node));
                        let attempt = self.state.node(node).undo_attempts + 1;
                        self.record(EventBody::UndoStarted { step, attempt })?;
                        self.forget_probe(node);
                        self.starts.push(Start::Undo(node));
                    }
                    Effect::Probe { node } => {
                        if self.probing.insert(node) {
                            self.starts.push(Start::Probe(node));
                        }
                    }
                    Effect::Stop { node } => {
                        if let Some(running) = self.running.get(&node) {
                            running.stop.stop(StopReason::Cancel);
                        }
                    }
                    Effect::TakeLocks { node, names } => {
                        if !self.locks.has(node) {
                            let before = self.batch.len();
                            self.lock_step(node, names, io).await?;
                            recorded |= self.batch.len() > before;
                        }
                    }
                    Effect::Wake { at } => wake = Some(at),
                }
                if recorded {
                    // Facts change what is right to do: think again with them.
                    break;
                }
            }
            if !recorded && !self.work_out()? {
                return Ok(wake);
            }
        }
    }

    /// Where all that begins is a matter of its inputs alone, and nobody waits for the commit: what comes of it is recorded
    /// at once, and what follows from that shares the commit. A process that dies before has told nobody of it, and the next
    /// one works it out again. False: the commit comes first.
    fn work_out(&mut self) -> Result<bool, DriverError> {
        if self.starts.is_empty() || !self.acks.is_empty() || self.batch.len() >= WORKED_OUT {
            return Ok(false);
        }
        let Some(worked_out) = self.starts.iter().map(|start| self.worked_out(start)).collect::<Option<Vec<_>>>()
        else {
            return Ok(false);
        };
        self.starts.clear();
        for (node, result) in worked_out {
            self.acted(node, result)?;
        }
        Ok(true)
    }

    /// What becomes of an interrupted attempt does not matter any more.
    fn forget_probe(&mut self, node: NodeId) {
        if self.probing.remove(&node)
            && let Some(running) = self.running.remove(&node)
        {
            running.task.abort();
        }
    }

    /// Before a failure takes the run back or holds it, a person at the terminal may say otherwise.
    async fn ask_before_giving_up(
        &mut self,
        body: EventBody,
        io: &mut dyn Reporter,
        operator: &dyn Operator,
    ) -> Result<EventBody, DriverError> {
        let gives_up = matches!(
            body,
            EventBody::RollbackStarted { step: None, reason: RollbackReason::Failure, .. }
                | EventBody::RunHeld { reason: HoldReason::Failure }
        );
        let Some(failed) = self.state.failure.filter(|_| gives_up && !self.cancelled) else { return Ok(body) };
        let is_action = self.state.step(failed).action().is_some();
        if !is_action || self.asked_after == Some(failed) {
            return Ok(body);
        }
        // What led here must be on disk before a person thinks about it.
        self.commit(io).await?;
        self.asked_after = Some(failed);
        let step = Arc::clone(self.state.path(failed));
        let error = self.state.node(failed).error().map(ToString::to_string).unwrap_or_default();
        io.pause(&self.state);
        let wish = operator.after_failure(&step, &error).await;
        io.unpause(&self.state);
        let by = Some(self.around.by.clone());
        let resolved = |resolution| EventBody::StepResolved {
            step,
            resolution,
            by,
            outputs: runback_core::Json::Null,
            changed: false,
            masked: Vec::new(),
        };
        Ok(match wish {
            None => body,
            Some(AfterFailure::Retry) => {
                self.asked_after = None;
                resolved(Resolution::Redo)
            }
            Some(AfterFailure::Skip) if self.state.node(failed).asked() => {
                let what = "it asks people: what they refused is not passed over";
                self.warnings.push(format!("{}: {what}", self.state.path(failed)));
                body
            }
            Some(AfterFailure::Skip) => resolved(Resolution::Skip),
            Some(AfterFailure::Hold) => EventBody::RunHeld { reason: HoldReason::Operator },
            Some(AfterFailure::Rollback) => EventBody::RollbackStarted {
                step: None,
                reason: RollbackReason::Failure,
                by: self.around.by.clone(),
                force: false,
            },
        })
    }

    /// One commit for all that was recorded since the last.
    pub(super) async fn commit(&mut self, io: &mut dyn Reporter) -> Result<(), DriverError> {
        // What was asked for and refused is forgotten too: it must not be done by a later process.
        if !self.batch.is_empty() || std::mem::take(&mut self.requests_taken) {
            self.requests_taken = false;
            let events: Arc<[Event]> = std::mem::take(&mut self.batch).into();
            if let Err(error) = self.engine.store.append(&self.lease, Arc::clone(&events)).await {
                // What waits for this to be durable must never hear that it is.
                self.acks.clear();
                return Err(error.into());
            }
            for event in events.iter() {
                io.event(&self.state, event);
            }
        }
        for ack in self.acks.drain(..) {
            let _ = ack.send(());
        }
        for (node, detached) in std::mem::take(&mut self.to_forget) {
            let forgotten = match self.target_of(node) {
                Ok(target) => target.forget_detached(&detached).await.map_err(|e| e.to_string()),
                Err(e) => Err(e.to_string()),
            };
            if let Err(why) = forgotten {
                self.warnings.push(format!("the records of a detached command stay in {}: {why}", detached.dir));
            }
        }
        Ok(())
    }

    fn message(&mut self, message: Message, io: &mut dyn Reporter) -> Result<(), DriverError> {
        match message {
            Message::Arm { node, capture, done } => {
                let (step, attempt) = self.attempt(node);
                self.record(EventBody::UndoArmed { step, attempt, capture })?;
                self.acks.push(done);
            }
            Message::Note { node, note, done } => {
                let (step, attempt) = self.attempt(node);
                self.record(EventBody::StepNoted { step, attempt, note })?;
                self.acks.push(done);
            }
            Message::Detached { node, detached, done } => {
                let (step, attempt) = self.attempt(node);
                self.record(EventBody::ProcessStarted { step, attempt, detached })?;
                if let Some(running) = self.running.get_mut(&node) {
                    running.detached = true;
                }
                self.acks.push(done);
            }
            Message::Ask { node, question, answer } => self.ask(node, question, answer)?,
            Message::Progress { node, mut progress } => {
                masking::progress(&self.around.masker, &mut progress);
                io.notice(&self.state, &Notice::Progress { node, progress: &progress });
            }
            Message::Warning { message } => self.warnings.push(message),
            Message::Held { node, held } => self.holds(node, held),
            Message::Acted { node, result } => {
                self.last_line(node, io);
                self.acted(node, result)?;
            }
            Message::Undone { node, result } => self.undone(node, result)?,
            Message::Probed { node, result } => {
                // One that was forgotten may have told its find before.
                if self.probing.remove(&node) {
                    self.running.remove(&node);
                    self.probed(node, result)?;
                }
            }
        }
        Ok(())
    }

    fn probed(
        &mut self,
        node: NodeId,
        result: Result<Probe<runback_core::Json>, runback_core::step::StepError>,
    ) -> Result<(), DriverError> {
        let n = self.state.node(node);
        // Meanwhile somebody settled it, or the way forward is over.
        if n.status != runback_core::state::Status::Interrupted || !self.state.can_be_resolved(node) {
            return Ok(());
        }
        let (step, attempt) = (Arc::clone(&n.path), n.attempts);
        let resolved = |resolution, outputs, changed| EventBody::StepResolved {
            step: Arc::clone(&step),
            resolution,
            by: None,
            outputs,
            changed,
            masked: Vec::new(),
        };
        let body = match result {
            Ok(Probe::Done(acted)) => resolved(Resolution::Done, acted.outputs, acted.changed),
            Ok(Probe::NotDone) => resolved(Resolution::Redo, runback_core::Json::Null, false),
            Ok(Probe::Unknown(why)) => EventBody::DoubtRaised { step, attempt, why },
            Err(e) => EventBody::DoubtRaised { step, attempt, why: format!("looking failed: {e}") },
        };
        self.record(body)
    }

    async fn tick(&mut self, io: &mut dyn Reporter, _options: DriveOptions) -> Result<(), DriverError> {
        let nodes: Vec<_> = self.running.keys().copied().collect();
        for node in nodes {
            self.last_line(node, io);
        }
        io.tick(&self.state, self.clock.now_ms());
        self.take_requests().await?;
        if !self.locks.is_empty() {
            self.retry_locks(io).await?;
        }
        Ok(())
    }

    fn last_line(&mut self, node: NodeId, io: &mut dyn Reporter) {
        let Some(running) = self.running.get_mut(&node) else { return };
        let Some(line) = running.log.as_ref().and_then(|log| log.last_line()) else { return };
        if running.last_line.as_ref() != Some(&line) {
            io.notice(&self.state, &Notice::LastLine { node, line: &line });
            running.last_line = Some(line);
        }
    }

    fn warn(&mut self, io: &mut dyn Reporter) {
        for message in std::mem::take(&mut self.warnings) {
            io.notice(&self.state, &Notice::Warning { message: &self.around.masker.mask_str(&message) });
        }
    }

    /// The next question for the terminal, if it is free.
    fn prompt<'o>(&self, operator: &'o dyn Operator, io: &mut dyn Reporter) -> Option<Prompt<'o>> {
        if !operator.is_there() {
            return None;
        }
        let (node, asking) = self.asking.iter().find(|(_, a)| !a.declined)?;
        let (node, question) = (*node, asking.question.clone());
        let step = Arc::clone(self.state.path(node));
        io.pause(&self.state);
        Some(Box::pin(async move {
            let answer = operator.answer(&step, &question).await;
            (node, answer)
        }))
    }

    /// Whether driving is over, for now or for good.
    fn ended(&self, options: DriveOptions, prompting: bool) -> Option<Ended> {
        let status = self.state.status();
        let ended = |left, waiting| Some(Ended { status, left, waiting, cancelled: self.cancelled });
        if self.leaving {
            let over = matches!(self.state.phase, Phase::Held(_) | Phase::Finished(_)) && self.state.wish.is_none();
            return ended(!over, false);
        }
        if self.gate != Gate::Open {
            return None;
        }
        if let Phase::Held(_) | Phase::Finished(_) = self.state.phase {
            return ended(false, false);
        }
        let idle = self.running.len() == self.asking.len() && self.starts.is_empty();
        if !idle || prompting || status != RunStatus::Waiting {
            return None;
        }
        let doubt = self.state.doubts().next().is_some() && self.state.questions().next().is_none();
        (doubt || !options.wait).then_some(())?;
        ended(true, true)
    }

    /// Leaves nothing running and nothing unrecorded.
    async fn end(&mut self, ended: Ended, io: &mut dyn Reporter) -> Result<Ended, DriverError> {
        if ended.left {
            self.leave();
            self.drain(Instant::now() + LEAVE_WITHIN, io).await?;
        }
        self.warn(io);
        Ok(Ended { status: self.state.status(), ..ended })
    }

    /// Takes the last messages of attempts that were told to stop. What one of them waits for is made durable still,
    /// or it hears at once that it never will be.
    async fn drain(&mut self, deadline: Instant, io: &mut dyn Reporter) -> Result<(), DriverError> {
        let mut drained = self.commit(io).await;
        while self.running.values().any(|r| !r.detached) {
            let Ok(Some(message)) = tokio::time::timeout_at(deadline, self.told.recv()).await else { break };
            let told = self.message(message, io);
            let durable = self.commit(io).await;
            drained = drained.and(told).and(durable);
        }
        for (_, running) in self.running.drain() {
            running.task.abort();
        }
        self.asking.clear();
        drained
    }
}
