//! Spans of one run, from its events. Ids are derived from the run, the path and the number of the attempt, so that the
//! process that takes a run up continues the trace of the one before. Knows nothing of how spans are sent.
//!
//! A run that is held and goes on later has one span per stretch, under one trace: a span has an end, and is sent then.

use std::collections::HashMap;
use std::sync::Arc;

use runback_core::event::{Event, EventBody, Outcome, StepPath};
use runback_core::state::{NodeId, RunState, Status as StepStatus};
use runback_core::step::StepError;
use sha2::{Digest as _, Sha256};

use super::otlp::{KeyValue, Span, Status, number, text, truth};
use crate::words::hex;

/// Where a span goes that has ended; never waits.
pub(super) type Sink = Box<dyn Fn(Span) + Send + Sync>;

pub(crate) struct Spans {
    run: String,
    send: Sink,
    /// False while it reads what was before.
    live: bool,
    /// From a start to the hold or the end that follows.
    stretch: Option<Open>,
    stretches: u32,
    steps: HashMap<StepPath, Open>,
    /// How often a step was begun: one that failed in a run that was held begins again.
    begun: HashMap<StepPath, u32>,
    attempts: HashMap<(StepPath, u32, Way), u64>,
}

#[derive(Debug, Clone)]
struct Open {
    id: String,
    from: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Way {
    Action,
    Undo,
}

impl Spans {
    pub(super) fn new(run: &str, send: Sink) -> Self {
        Self {
            run: run.to_owned(),
            send,
            live: false,
            stretch: None,
            stretches: 0,
            steps: HashMap::new(),
            begun: HashMap::new(),
            attempts: HashMap::new(),
        }
    }

    /// An event that was there before this process looked.
    pub(super) fn past(&mut self, state: &RunState, event: &Event) {
        self.live = false;
        self.take(state, event);
    }

    /// `state` has the event applied, and perhaps later ones.
    pub(crate) fn event(&mut self, state: &RunState, event: &Event) {
        self.live = true;
        self.take(state, event);
    }

    fn take(&mut self, state: &RunState, event: &Event) {
        let at = event.at;
        match &event.body {
            EventBody::RunStarted {} | EventBody::RunResumed { .. } | EventBody::RollbackStarted { step: None, .. } => {
                self.begin_stretch(at);
            }
            EventBody::BlockStarted { step }
            | EventBody::StepExpanded { step, .. }
            | EventBody::StepSkipped { step, .. }
            | EventBody::StepFailed { step, .. } => {
                self.begin_step(step, at);
            }
            EventBody::AttemptStarted { step, attempt } => {
                self.begin_step(step, at);
                self.attempts.insert((Arc::clone(step), *attempt, Way::Action), at);
            }
            EventBody::AttemptSucceeded { step, attempt, changed, .. } => {
                let more = vec![truth("runback.changed", *changed)];
                self.end_attempt(step, *attempt, Way::Action, at, Status::default(), more);
            }
            EventBody::AttemptFailed { step, attempt, error, .. } => {
                self.end_attempt(step, *attempt, Way::Action, at, Status::error(&error.message), vec![class(error)]);
            }
            EventBody::AttemptInterrupted { step, attempt } => {
                let status = Status::error("interrupted: nobody knows what it did");
                self.end_attempt(step, *attempt, Way::Action, at, status, Vec::new());
            }
            EventBody::UndoStarted { step, attempt } => {
                self.attempts.insert((Arc::clone(step), *attempt, Way::Undo), at);
            }
            EventBody::UndoSucceeded { step, attempt, changed, .. } => {
                let more = vec![truth("runback.changed", *changed)];
                self.end_attempt(step, *attempt, Way::Undo, at, Status::default(), more);
            }
            EventBody::UndoFailed { step, attempt, error, .. } => {
                self.end_attempt(step, *attempt, Way::Undo, at, Status::error(&error.message), vec![class(error)]);
            }
            EventBody::RunHeld { .. } => self.end_stretch(state, "held", at),
            EventBody::RunFinished { outcome, .. } => self.end_stretch(state, outcome_name(*outcome), at),
            // Facts about what has a span already, or about nothing that takes time.
            EventBody::RunCreated(_)
            | EventBody::UndoArmed { .. }
            | EventBody::ProcessStarted { .. }
            | EventBody::StepNoted { .. }
            | EventBody::DoubtRaised { .. }
            | EventBody::StepResolved { .. }
            | EventBody::ApprovalRequested { .. }
            | EventBody::ApprovalGiven { .. }
            | EventBody::ApprovalRefused { .. }
            | EventBody::LockTaken { .. }
            | EventBody::CancelRequested { .. }
            | EventBody::RollbackRequested { .. }
            | EventBody::HoldRequested { .. }
            | EventBody::RollbackStarted { step: Some(_), .. } => {}
        }
        if let Some(node) = event.body.step().and_then(|step| state.find(step)) {
            self.end_what_is_over(state, node, at);
        }
    }

    fn begin_stretch(&mut self, at: u64) {
        if self.stretch.is_none() {
            self.stretches += 1;
            self.stretch = Some(Open { id: self.id(&["run", &self.stretches.to_string()]), from: at });
        }
    }

    fn begin_step(&mut self, step: &StepPath, at: u64) {
        if self.steps.contains_key(step) {
            return;
        }
        let begun = self.begun.entry(Arc::clone(step)).or_default();
        *begun += 1;
        let begun = *begun;
        let id = self.id(&["step", step, &begun.to_string()]);
        self.steps.insert(Arc::clone(step), Open { id, from: at });
    }

    fn end_attempt(&mut self, step: &StepPath, attempt: u32, way: Way, at: u64, status: Status, more: Vec<KeyValue>) {
        let key = (Arc::clone(step), attempt, way);
        let Some(from) = self.attempts.remove(&key) else { return };
        let (what, name) = match way {
            Way::Action => ("attempt", format!("{step} #{attempt}")),
            Way::Undo => ("undo", format!("undo {step} #{attempt}")),
        };
        let mut span = self.span(&[what, step, &attempt.to_string()], name, from, at);
        span.parent = self.step_span(step);
        span.attributes = vec![text("runback.step", step.as_ref()), number("runback.attempt", attempt.into())];
        span.attributes.extend(more);
        span.status = status;
        self.send(span);
    }

    /// The span of a step as it was begun last, also when it is over: an undo comes later.
    fn step_span(&self, step: &StepPath) -> String {
        match (self.steps.get(step), self.begun.get(step)) {
            (Some(open), _) => open.id.clone(),
            (None, Some(begun)) => self.id(&["step", step, &begun.to_string()]),
            (None, None) => self.stretch.as_ref().map(|s| s.id.clone()).unwrap_or_default(),
        }
    }

    /// The step of an event, and what it stands in: a block is over with its last step. That one's event may be yet to
    /// come, so it is the state that knows when.
    fn end_what_is_over(&mut self, state: &RunState, node: NodeId, at: u64) {
        let up = std::iter::once(node).chain(state.ancestors(node));
        for node in up.filter(|n| !RunState::is_root(*n)) {
            let n = state.node(node);
            if n.is_terminal()
                && let Some(open) = self.steps.remove(state.path(node))
            {
                self.end_step(state, node, &open, n.finished_at.unwrap_or(at));
            }
        }
    }

    fn end_step(&self, state: &RunState, node: NodeId, open: &Open, at: u64) {
        let n = state.node(node);
        let path = state.path(node);
        let mut span = Span::new(self.trace(), open.id.clone(), path.to_string(), open.from, at);
        let outer = state.ancestors(node).into_iter().find(|n| !RunState::is_root(*n));
        span.parent = match outer {
            Some(outer) => self.step_span(state.path(outer)),
            None => self.stretch.as_ref().map(|s| s.id.clone()).unwrap_or_default(),
        };
        span.attributes = vec![
            text("runback.step", path.as_ref()),
            text("runback.step.type", state.step(node).type_name()),
            text("runback.status", n.status.name()),
            number("runback.attempts", n.attempts.into()),
        ];
        span.status = match n.status {
            StepStatus::Succeeded | StepStatus::Skipped => Status::default(),
            _ => Status::error(n.error().map_or(n.status.name(), |e| e.message.as_str())),
        };
        self.send(span);
    }

    fn end_stretch(&mut self, state: &RunState, word: &str, at: u64) {
        // Steps and blocks that never came to an end of their own.
        let open: Vec<_> = self.steps.drain().collect();
        for (path, open) in open {
            if let Some(node) = state.find(&path) {
                self.end_step(state, node, &open, at);
            }
        }
        self.attempts.clear();
        let Some(Open { id, from }) = self.stretch.take() else { return };
        let mut span = Span::new(self.trace(), id, format!("run {}", state.plan.name), from, at);
        span.attributes = vec![
            text("runback.run", self.run.as_str()),
            text("runback.playbook", state.plan.name.as_str()),
            text("runback.status", word),
        ];
        if let Some(created) = &state.created {
            span.attributes.push(text("runback.by", created.by.as_str()));
            span.attributes.push(text("runback.from", created.from.as_str()));
            if let Some(schedule) = &created.options.schedule {
                span.attributes.push(text("runback.schedule", schedule.as_str()));
            }
        }
        if word != "succeeded" {
            let failed = state.failure.and_then(|n| Some((state.path(n), state.node(n).error()?)));
            span.status = Status::error(match failed {
                Some((path, error)) => format!("{word}: {path}: {}", error.message),
                None => word.to_owned(),
            });
        }
        self.send(span);
    }

    fn send(&self, span: Span) {
        if self.live {
            (self.send)(span);
        }
    }

    fn span(&self, what: &[&str], name: String, from: u64, to: u64) -> Span {
        Span::new(self.trace(), self.id(what), name, from, to)
    }

    fn trace(&self) -> String {
        hex(&digest(&[&self.run])[..16])
    }

    fn id(&self, what: &[&str]) -> String {
        let all: Vec<&str> = std::iter::once(self.run.as_str()).chain(what.iter().copied()).collect();
        hex(&digest(&all)[..8])
    }
}

/// Parts cannot run into each other: each is preceded by its length.
fn digest(parts: &[&str]) -> Vec<u8> {
    let mut hasher = Sha256::new();
    hasher.update(b"runback trace");
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().to_vec()
}

fn class(error: &StepError) -> KeyValue {
    let class = serde_json::to_value(error.class).unwrap_or_default();
    text("error.type", class.as_str().unwrap_or("error"))
}

fn outcome_name(outcome: Outcome) -> &'static str {
    runback_core::state::RunStatus::from(outcome).name()
}

#[cfg(test)]
mod tests {
    use runback_core::Json;
    use runback_core::check::{NoLoad, check};
    use runback_core::event::{Created, FORMAT, RunOptions};

    use super::*;

    #[test]
    fn a_block_ends_with_its_last_step_though_both_ends_were_committed_at_once() {
        let text = "runback: 1\nname: p\nsteps:\n  - id: outer\n    steps:\n      - { id: a, run: 'true' }\n      - { id: b, needs: [], run: 'true' }\n";
        let catalog = runback_steps::catalog();
        let plan = check("p.yaml", text, &mut NoLoad, &catalog).plan.expect("a plan");
        let created = Created {
            format: FORMAT,
            version: "0".to_owned(),
            run: "r".to_owned(),
            playbook: plan.name.clone(),
            texts: Vec::new(),
            base: String::new(),
            digest: plan.digest().to_owned(),
            inputs: Json::Null,
            by: "me".to_owned(),
            from: "test".to_owned(),
            options: RunOptions::default(),
        };
        let (outer, a, b): (StepPath, StepPath, StepPath) = ("outer".into(), "outer/a".into(), "outer/b".into());
        let start = |step: &StepPath| EventBody::AttemptStarted { step: Arc::clone(step), attempt: 1 };
        let succeed = |step: &StepPath| EventBody::AttemptSucceeded {
            step: Arc::clone(step),
            attempt: 1,
            changed: true,
            outputs: Json::Null,
            masked: Vec::new(),
        };
        // By turn: what is committed at once.
        let turns = [
            vec![(0, EventBody::RunCreated(Box::new(created)))],
            vec![(1, EventBody::RunStarted {})],
            vec![(2, EventBody::BlockStarted { step: outer }), (3, start(&a)), (3, start(&b))],
            vec![(9, succeed(&b)), (10, succeed(&a))],
        ];
        let (sender, sent) = std::sync::mpsc::channel();
        let mut spans = Spans::new("r", Box::new(move |span| sender.send(span).expect("it is looked at")));
        let mut state = RunState::new(plan);
        for turn in turns {
            let first = state.last_seq + 1;
            let events: Vec<_> = (first..).zip(turn).map(|(seq, (at, body))| Event { seq, at, body }).collect();
            for event in &events {
                state.apply(event).expect("legal");
            }
            for event in &events {
                spans.event(&state, event);
            }
        }
        let mut ends = HashMap::new();
        for span in sent.try_iter() {
            let json = serde_json::to_value(&span).expect("JSON");
            ends.insert(span.name, json["endTimeUnixNano"].as_str().expect("text").to_owned());
        }
        let wanted = [("outer", 10), ("outer/a", 10), ("outer/a #1", 10), ("outer/b", 9), ("outer/b #1", 9)];
        assert_eq!(ends, wanted.map(|(name, ms)| (name.to_owned(), format!("{ms}000000"))).into());
    }
}
