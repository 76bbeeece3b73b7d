//! Beginning what `decide` decided: inputs are rendered from the state, and a task is started that knows no more
//! than it needs.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use runback_core::Json;
use runback_core::event::EventBody;
use runback_core::plan::{PlanAction, PlanRollback};
use runback_core::scope::{self, Lent};
use runback_core::state::NodeId;
use runback_core::step::{Access, Acted, StepError, UndoKind};
use runback_core::target::{Detached, Target};
use serde_json::{Value, json};

use super::attempt::{Attempt, Limits, Message, Stop, broke};
use super::{Driver, DriverError, Running, Start};
use crate::output::{AttemptLog, LogName};

/// Inputs, env and target of an action, rendered.
pub(super) struct Rendered {
    inputs: Json,
    env: BTreeMap<String, String>,
    target: Arc<dyn Target>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Act,
    Undo,
    Probe,
    Hold,
}

impl Driver {
    /// Begins what was decided; the batch with its record is durable by now.
    pub(super) fn perform(&mut self) {
        if self.leaving {
            // What is recorded as begun is found interrupted by the next process.
            self.starts.clear();
        }
        for start in std::mem::take(&mut self.starts) {
            match start {
                Start::Act(node, rendered) => self.act(node, rendered, None),
                Start::Reattach(node) => {
                    let detached = self.state.node(node).detached().cloned();
                    let rendered = self.render_own(node);
                    self.act(node, rendered, detached);
                }
                Start::Undo(node) => self.undo(node),
                Start::Probe(node) => self.probe(node),
            }
        }
    }

    /// What comes of a step that reaches nothing outside. None: it is to be begun.
    pub(super) fn worked_out(&self, start: &Start) -> Option<(NodeId, Result<Acted<Json>, StepError>)> {
        let Start::Act(node, Ok(rendered)) = start else { return None };
        let step_type = &self.state.step(*node).action()?.step_type;
        let worked_out = catch_unwind(AssertUnwindSafe(|| step_type.work_out(&rendered.inputs)));
        Some((*node, worked_out.unwrap_or_else(|panic| Some(Err(broke(&*panic))))?))
    }

    fn act(&mut self, node: NodeId, rendered: Result<Rendered, StepError>, reattach: Option<Detached>) {
        let plan = Arc::clone(&self.state.plan);
        let Some(action) = plan.step(self.state.node(node).step).action() else { return };
        let captured = self.unsealed(node);
        let n = self.state.node(node);
        let arm = action.access == Access::Changes && action.undo == UndoKind::Full && !n.armed;
        let attempt = n.attempts;
        let result = rendered.and_then(|rendered| Ok((rendered, captured?)));
        match result {
            Ok((rendered, captured)) => {
                self.spawn(node, action, rendered, What::Act, attempt, reattach, |a| a.act(arm, captured));
            }
            Err(error) => {
                let _ = self.tell.send(Message::Acted { node, result: Err(error) });
            }
        }
    }

    fn undo(&mut self, node: NodeId) {
        let plan = Arc::clone(&self.state.plan);
        let Some(own) = plan.step(self.state.node(node).step).action() else { return };
        let instead = match &own.rollback {
            PlanRollback::Action { action, .. } => Some(action.as_ref()),
            PlanRollback::Auto | PlanRollback::None => None,
        };
        let action = instead.unwrap_or(own);
        let attempt = self.state.node(node).undo_attempts;
        let result = self.render(node, action).and_then(|r| Ok((r, self.unsealed(node)?)));
        match result {
            Ok((rendered, _)) if instead.is_some() => {
                self.spawn(node, action, rendered, What::Undo, attempt, None, Attempt::undo_by_acting);
            }
            Ok((rendered, capture)) => {
                let n = self.state.node(node);
                let finished = n.status == runback_core::state::Status::Succeeded;
                let outputs = n.outputs.as_deref().filter(|_| finished).cloned();
                let capture = capture.unwrap_or(Value::Null);
                self.spawn(node, action, rendered, What::Undo, attempt, None, |a| a.undo(capture, outputs));
            }
            Err(error) => {
                let _ = self.tell.send(Message::Undone { node, result: Err(error) });
            }
        }
    }

    fn probe(&mut self, node: NodeId) {
        let plan = Arc::clone(&self.state.plan);
        let Some(action) = plan.step(self.state.node(node).step).action() else { return };
        let attempt = self.state.node(node).attempts;
        let result = self.render(node, action).and_then(|r| Ok((r, self.unsealed(node)?)));
        match result {
            Ok((rendered, capture)) => {
                let capture = capture.unwrap_or(Value::Null);
                self.spawn(node, action, rendered, What::Probe, attempt, None, |a| a.probe(capture));
            }
            Err(error) => {
                let _ = self.tell.send(Message::Probed { node, result: Err(error) });
            }
        }
    }

    /// The capture of an earlier attempt, with its secrets put back.
    fn unsealed(&self, node: NodeId) -> Result<Option<Json>, StepError> {
        let Some(capture) = &self.state.node(node).capture else { return Ok(None) };
        if self.around.masker.is_empty() {
            return Ok(Some((**capture).clone()));
        }
        let open = self.around.masker.unseal(capture);
        open.map(Some).map_err(|e| StepError::permanent(e.to_string()).help(e.help()))
    }

    fn lent(&self) -> Lent<'_> {
        Lent { secrets: Some(&self.around.secrets), secret_inputs: Some(&self.around.secret_inputs), ..Lent::default() }
    }

    /// What a step's own action needs.
    pub(super) fn render_own(&self, node: NodeId) -> Result<Rendered, StepError> {
        let action = self.state.step(node).action().ok_or_else(|| StepError::permanent("not an action"))?;
        self.render(node, action)
    }

    pub(super) fn render(&self, node: NodeId, action: &PlanAction) -> Result<Rendered, StepError> {
        let broken = |what: &str, e: runback_core::template::RenderError| {
            StepError::permanent(format!("{what} could not be worked out: {e}"))
        };
        let target_name = self.target_name(node, action)?;
        let target = self.around.targets.get(&target_name).map_err(StepError::from)?;
        let lent = Lent { target: Some(&target_name), ..self.lent() };
        let mut inputs = scope::render(&self.state, node, &action.with, lent).map_err(|e| broken("an input", e))?;
        action.refuse(&inputs)?;
        for (pointer, expr) in &action.expressions {
            let context = scope::of_step(&self.state, node, expr.references().iter(), lent)
                .map_err(|e| broken("an expression", e))?;
            let value = expr.eval(&context).map_err(|e| broken(&format!("the expression `{}`", expr.text()), e))?;
            let seen: serde_json::Map<String, Value> = expr
                .references()
                .iter()
                .filter_map(|r| Some((r.path.join("."), look_up(&context, &r.path)?.clone())))
                .collect();
            if let Some(place) = inputs.pointer_mut(pointer) {
                *place = json!({ "expression": expr.text(), "value": value, "seen": seen });
            }
        }
        let mut env = BTreeMap::new();
        for (name, template) in &action.env {
            let context = scope::of_step(&self.state, node, template.references().iter(), lent)
                .map_err(|e| broken(&format!("env `{name}`"), e))?;
            let value = template.render_string(&context).map_err(|e| broken(&format!("env `{name}`"), e))?;
            env.insert(name.clone(), value);
        }
        Ok(Rendered { inputs, env, target })
    }

    fn target_name(&self, node: NodeId, action: &PlanAction) -> Result<String, StepError> {
        let Some(template) = &action.target else { return Ok("local".to_owned()) };
        scope::of_step(&self.state, node, template.references().iter(), self.lent())
            .and_then(|context| template.render_string(&context))
            .map_err(|e| StepError::permanent(format!("the target could not be worked out: {e}")))
    }

    pub(super) fn target_of(&self, node: NodeId) -> Result<Arc<dyn Target>, StepError> {
        let action = self.state.step(node).action().ok_or_else(|| StepError::permanent("not an action"))?;
        Ok(self.around.targets.get(&self.target_name(node, action)?)?)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "each is one fact about the attempt; a struct would be built here only"
    )]
    pub(super) fn spawn<F>(
        &mut self,
        node: NodeId,
        action: &PlanAction,
        rendered: Rendered,
        what: What,
        attempt: u32,
        reattach: Option<Detached>,
        task: impl FnOnce(Attempt) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let step = self.state.step(node);
        let n = self.state.node(node);
        let policy = &step.policy;
        let stop = Arc::new(Stop::default());
        let path = Arc::clone(&n.path);
        let log = self.log(&path, attempt, what);
        let detach = what == What::Act && policy.detach;
        let detached = reattach.is_some();
        let spent = || Duration::from_millis(self.clock.now_ms().saturating_sub(n.tries_since));
        let left = policy.deadline.filter(|_| what == What::Act).map(|d| d.saturating_sub(spent()));
        let attempt = Attempt {
            node,
            run: Arc::clone(&self.run),
            step: path,
            number: attempt,
            step_type: Arc::clone(&action.step_type),
            inputs: rendered.inputs,
            env: rendered.env,
            target: rendered.target,
            targets: Arc::clone(&self.around.targets),
            base: Arc::clone(&self.base),
            force: self.state.rollback_of(node).is_some_and(|r| r.force),
            detach,
            reattach,
            notes: n.notes().to_vec(),
            limits: Limits {
                timeout: policy.timeout.into_iter().chain(left).min(),
                idle: policy.idle_timeout,
                grace: policy.kill_grace,
            },
            log: log.clone(),
            stop: Arc::clone(&stop),
            clock: self.clock,
            tell: self.tell.clone(),
        };
        let task = tokio::spawn(task(attempt)).abort_handle();
        self.running.insert(node, Running { stop, log, last_line: None, task, detached });
    }

    fn log(&self, step: &str, attempt: u32, what: What) -> Option<Arc<AttemptLog>> {
        if matches!(what, What::Probe | What::Hold) {
            return None;
        }
        let dir = self.engine.store.logs_dir(&self.run)?;
        let tell = self.tell.clone();
        let name = LogName { step, attempt, undo: what == What::Undo };
        let on_problem = Box::new(move |problem: crate::output::LogProblem| {
            let _ = tell.send(Message::Warning { message: problem.to_string() });
        });
        Some(Arc::new(AttemptLog::new(&dir, &name, &self.around.masker, self.engine.log_limit, on_problem)))
    }

    /// An undo, or an action that failed before it was begun by a task.
    pub(super) fn after_failure_of(&self, node: NodeId, error: &StepError, undo: bool) -> Option<u64> {
        let n = self.state.node(node);
        let since = if undo { 0 } else { self.clock.now_ms().saturating_sub(n.tries_since) };
        let history = runback_core::retry::History {
            run: &self.run,
            step: &n.path,
            tries: if undo { n.undo_tries() } else { n.tries },
            elapsed: Duration::from_millis(since),
        };
        let delay = runback_core::retry::next(&self.state.step(node).policy, history, error)?;
        Some(delay.as_millis() as u64)
    }

    /// Records the end of an action.
    pub(super) fn acted(&mut self, node: NodeId, result: Result<Acted<Json>, StepError>) -> Result<(), DriverError> {
        let stopped_to_leave = self.leaving;
        self.running.remove(&node);
        self.asking.remove(&node);
        let (step, attempt) = self.attempt(node);
        let detached = self.state.node(node).detached().cloned();
        let body = match result {
            Ok(acted) => {
                let Acted { changed, outputs } = acted;
                EventBody::AttemptSucceeded { step, attempt, changed, outputs, masked: Vec::new() }
            }
            // It was ended because runback goes: nobody knows how far it came.
            Err(error) if stopped_to_leave && error.class == runback_core::step::Class::Cancelled => {
                EventBody::AttemptInterrupted { step, attempt }
            }
            Err(error) => {
                let retry_in = self.after_failure_of(node, &error, false);
                EventBody::AttemptFailed { step, attempt, error, retry_in }
            }
        };
        if !matches!(body, EventBody::AttemptInterrupted { .. }) {
            self.to_forget.extend(detached.map(|d| (node, d)));
        }
        self.record(body)
    }

    pub(super) fn undone(
        &mut self,
        node: NodeId,
        result: Result<runback_core::step::Undone, StepError>,
    ) -> Result<(), DriverError> {
        let stopped_to_leave = self.leaving;
        self.running.remove(&node);
        self.asking.remove(&node);
        let (step, attempt) = self.attempt(node);
        let body = match result {
            Ok(undone) => EventBody::UndoSucceeded { step, attempt, changed: undone.changed, note: undone.note },
            Err(error) if stopped_to_leave && error.class == runback_core::step::Class::Cancelled => {
                EventBody::AttemptInterrupted { step, attempt }
            }
            Err(error) => {
                let retry_in = self.after_failure_of(node, &error, true);
                EventBody::UndoFailed { step, attempt, error, retry_in }
            }
        };
        self.record(body)
    }
}

fn look_up<'j>(context: &'j Json, path: &[String]) -> Option<&'j Json> {
    path.iter().try_fold(context, |at, key| match at {
        Value::Array(list) => list.get(key.parse::<usize>().ok()?),
        _ => at.get(key),
    })
}
