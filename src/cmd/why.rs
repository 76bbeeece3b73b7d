//! `runback why`: the chain of what a run or a step waits for, down to what a person can do about it.

use std::collections::HashSet;
use std::path::Path;

use clap::Args;
use runback_core::decide;
use runback_core::event::HoldReason;
use runback_core::plan::{PlanKind, PlanRollback};
use runback_core::state::{FINAL, InRunLocks, NodeId, Phase, RunState, Status, UndoStatus};
use runback_core::step::{Question, UndoKind};
use runback_exec::store::Store;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use super::OutputArg;
use crate::exit::Exit;
use crate::failure::{Done, Failure};
use crate::journal::{self, Run};
use crate::next;
use crate::state_dir;
use crate::term::{self, BOLD, DIM, RESET};
use crate::words;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A run's id, the beginning of one, or `last`
    #[arg(value_name = "RUN", default_value = "last")]
    run: String,

    #[arg(value_name = "STEP")]
    step: Option<String>,

    #[command(flatten)]
    pub(crate) output: OutputArg,
}

pub(crate) fn run(arguments: &Arguments, dir: Option<&Path>) -> Done {
    let store = state_dir::of_run_to_look(dir, &arguments.run)?;
    let catalog = runback_steps::catalog();
    let (run, locks) = state_dir::block_on(async {
        let run = journal::read(store.as_ref(), &arguments.run, &catalog).await?;
        let locks = lock_waits(store.as_ref(), run.state.run_id()).await?;
        Ok((run, locks))
    })?;
    let why = Why { run: &run, state: &run.state, locks, queued: None, now: words::now_ms() };
    let told = match &arguments.step {
        None => why.run(),
        Some(step) => why.one(why.find(step)?),
    };
    let status = run.status();
    if arguments.output.is_json() {
        term::json(&json!(told_json(&run, &told)));
        return Ok(Exit::Succeeded);
    }
    let mut out = format!("{BOLD}{}{RESET}  {}{status}{RESET}\n", run.state.run_id(), words::run_color(status));
    for (depth, text) in told {
        let pad = "  ".repeat(depth + 1);
        let mut lines = text.lines();
        out.push_str(&format!("{pad}{}\n", lines.next().unwrap_or_default()));
        for line in lines {
            out.push_str(&format!("{pad}  {DIM}{line}{RESET}\n"));
        }
    }
    let next = next::steps(&run.state, status, run.owner.is_some());
    if !next.is_empty() {
        out.push_str(&format!("\n{}\n", next.join("\n")));
    }
    term::line(out.trim_end());
    Ok(Exit::Succeeded)
}

/// The contract of `runback why --output json`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct WhyView {
    run: String,
    status: String,
    /// What it waits for, each line as deep as what it explains.
    why: Vec<WhyLine>,
    /// What can be typed next.
    commands: Vec<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct WhyLine {
    depth: usize,
    text: String,
}

fn told_json(run: &Run, told: &[(usize, String)]) -> WhyView {
    let status = run.status();
    let commands = next::commands(&run.state, status, run.owner.is_some());
    WhyView {
        run: run.state.run_id().to_owned(),
        status: status.to_owned(),
        why: told.iter().map(|(depth, text)| WhyLine { depth: *depth, text: text.clone() }).collect(),
        commands: commands.into_iter().map(|(command, _)| command).collect(),
    }
}

/// The same for others than the terminal. `queued`: what the run waits for before this process goes on with it.
#[cfg(feature = "serve")]
pub(crate) async fn explain(
    store: &dyn Store,
    run: &Run,
    step: Option<&str>,
    queued: Option<String>,
) -> Result<WhyView, Failure> {
    let locks = lock_waits(store, run.state.run_id()).await?;
    let why = Why { run, state: &run.state, locks, queued, now: words::now_ms() };
    let told = match step {
        None => why.run(),
        Some(step) => why.one(why.find(step)?),
    };
    Ok(told_json(run, &told))
}

/// Locks that the run waits for: the step (None = the run itself), the name, and who has it, in words.
type LockWaits = Vec<(Option<String>, String, String)>;

async fn lock_waits(store: &dyn Store, run: &str) -> Result<LockWaits, Failure> {
    let waits = store.lock_waits(run).await?;
    let words = |w: runback_exec::store::LockWaiting| {
        let of = w.step.as_ref().map(|s| format!(" (step {s})")).unwrap_or_default();
        let owner =
            w.owner.as_ref().map_or_else(|| ", whose process is gone".to_owned(), |o| format!(", driven by {o}"));
        let what = if w.queued { "is wanted by" } else { "is held by" };
        format!("lock {} {what} run {}{of} since {}{owner}", w.name, w.run, words::clock(w.since))
    };
    Ok(waits.into_iter().map(|(step, w)| (step, w.name.clone(), words(w))).collect())
}

struct Why<'a> {
    run: &'a Run,
    state: &'a RunState,
    locks: LockWaits,
    queued: Option<String>,
    now: u64,
}

/// Depth and text, in order.
type Told = Vec<(usize, String)>;

impl Why<'_> {
    fn find(&self, step: &str) -> Result<NodeId, Failure> {
        self.state.find(step).ok_or_else(|| super::logs::no_step(self.state, step))
    }

    fn one(&self, node: NodeId) -> Told {
        let mut told = Told::new();
        self.step(node, 0, &mut HashSet::new(), &mut told);
        told
    }

    /// The run as a whole.
    fn run(&self) -> Told {
        let state = self.state;
        let mut told = Told::new();
        let mut seen = HashSet::new();
        if self.run.status() == "interrupted" {
            let at = words::date(state.last_at);
            told.push((0, format!("nobody drives it: its process is gone, and recorded nothing after {at}")));
            if self.state.phase == Phase::Running
                && let Some(way) = words::on_its_way(state)
            {
                told.push((0, format!("a resume does not go on with its steps, but to {way}")));
            }
        }
        if self.run.owner.is_some()
            && state.phase == Phase::Running
            && let Some(asked) = words::asked_for(state)
        {
            told.push((0, asked.to_owned()));
        }
        told.extend(self.queued.iter().map(|text| (0, text.clone())));
        // Its own locks, or after a resume those that it had.
        self.locks_of(None, 0, &mut told);
        match state.phase {
            Phase::Created => {
                if let (true, Some(owner)) = (told.is_empty(), &self.run.owner) {
                    told.push((0, format!("it has not begun: {owner} has it, and starts it when its turn comes")));
                }
            }
            Phase::Held(reason) => {
                let why = match reason {
                    HoldReason::Failure => "a step failed, and the run is held as it stands",
                    HoldReason::Operator => "the operator held it",
                    HoldReason::Cancelled => "it was cancelled, and is held as it stands",
                };
                told.push((0, why.to_owned()));
            }
            Phase::Finished(outcome) => told.push((0, format!("it is over: {outcome}"))),
            Phase::RollingBack => {
                let is = if self.run.owner.is_some() { "is" } else { "was" };
                told.push((0, format!("it {is} being taken back")));
            }
            Phase::Running | Phase::Finally | Phase::Ending => {}
        }
        if let Some(failure) = words::failure(state) {
            self.step(failure, 0, &mut seen, &mut told);
        }
        let left = state.ids().filter(|n| state.node(*n).undo == UndoStatus::Failed);
        let going = left.chain(state.active()).chain(state.active_undos());
        let waiting =
            state.interrupted().chain(state.backoffs().map(|(_, n)| n)).chain(state.undo_backoffs().map(|(_, n)| n));
        for node in going.chain(waiting).chain(state.ready()).collect::<Vec<_>>() {
            self.step(node, 0, &mut seen, &mut told);
        }
        // On the way back, and in `finally`, the way forward has no more to come.
        let over = matches!(state.phase, Phase::RollingBack | Phase::Finally | Phase::Ending);
        let comes = |n: &NodeId| !state.is_halted(*n) && (!over || state.ancestors(*n).contains(&FINAL));
        let blocked = |n: &NodeId| state.node(*n).status == Status::Blocked && !seen.contains(n);
        let blocked = state.ids().filter(blocked).filter(comes).count();
        if blocked > 0 && !matches!(state.phase, Phase::Finished(_) | Phase::Held(_)) {
            let wait = if blocked == 1 { "waits" } else { "wait" };
            told.push((0, format!("{} more {wait} for these", words::plural(blocked, "step"))));
        }
        told
    }

    fn locks_of(&self, step: Option<&str>, depth: usize, told: &mut Told) {
        for (_, _, text) in self.locks.iter().filter(|(of, ..)| of.as_deref() == step) {
            told.push((depth, text.clone()));
        }
    }

    fn ago(&self, at: Option<u64>) -> String {
        at.map_or_else(String::new, |at| format!(" for {}", words::duration(self.now.saturating_sub(at))))
    }

    /// When what waits for its next attempt has it.
    fn again(&self, node: NodeId) -> String {
        let left = self.state.node(node).until().saturating_sub(self.now);
        match self.run.owner {
            Some(_) => format!("in {}", words::duration(left)),
            None => "when the run is resumed".to_owned(),
        }
    }

    /// One step, then what it waits for, one level deeper.
    fn step(&self, node: NodeId, depth: usize, seen: &mut HashSet<NodeId>, told: &mut Told) {
        let state = self.state;
        if RunState::is_root(node) || !seen.insert(node) || depth > 12 {
            return;
        }
        let n = state.node(node);
        let path = &n.path;
        if n.undo != UndoStatus::None {
            return self.undo(node, depth, seen, told);
        }
        match n.status {
            Status::Succeeded if n.error().is_some() => {
                told.push((depth, format!("{path} failed, and may: continue_on_error")));
            }
            Status::Succeeded => told.push((depth, format!("{path} succeeded"))),
            Status::Skipped => {
                let when = state.step(node).when.as_ref().map(|w| format!(": `when: {}` was false", w.text().trim()));
                told.push((depth, format!("{path} was skipped{}", when.unwrap_or_default())));
            }
            Status::Failed if !words::has_failed(state, node) => {
                told.push((depth, format!("{path} was stopped before it was done")));
            }
            Status::Cancelled => told.push((depth, format!("{path} was stopped before it was done"))),
            Status::Failed => told.push((depth, format!("{path} failed{}", self.error(node)))),
            Status::Interrupted => {
                let doubt = n.doubt().map_or_else(
                    || "the process died while it was acting; a resume finds out how far it came".to_owned(),
                    |d| format!("nobody knows what it did: {d}"),
                );
                told.push((depth, format!("{path} was interrupted: {doubt}")));
            }
            Status::Backoff => {
                let text = format!(
                    "{path} tries again {}, attempt {} failed{}",
                    self.again(node),
                    n.attempts,
                    self.error(node)
                );
                told.push((depth, text));
            }
            Status::Running => self.running(node, depth, seen, told),
            Status::Ready => self.ready(node, depth, told),
            Status::Blocked => self.blocked(node, depth, seen, told),
        }
    }

    fn error(&self, node: NodeId) -> String {
        let Some(error) = self.state.node(node).error() else { return String::new() };
        let help = error.help.as_ref().map(|h| format!("\n{}", next::in_text(h))).unwrap_or_default();
        format!(": {}{help}", error.message)
    }

    fn running(&self, node: NodeId, depth: usize, seen: &mut HashSet<NodeId>, told: &mut Told) {
        let n = self.state.node(node);
        let path = &n.path;
        if let Some(said) = words::verdict(n) {
            // Who drives it hears that at once; where nobody does, nothing happens by itself.
            let next = if self.run.owner.is_some() { "" } else { "\nit goes on when the run is resumed" };
            told.push((depth, format!("{path} is answered: {said}{next}")));
        } else if let Some(question) = n.question() {
            let given = n.answers().iter().filter(|a| a.approved).count();
            let of = if question.min_approvals > 1 {
                format!(" ({given} of {} said yes)", question.min_approvals)
            } else {
                String::new()
            };
            let about = self.about_question(node, question);
            let text = format!("{path} waits for a person{}{of}: {}{about}", self.ago(n.started_at), question.prompt);
            told.push((depth, text));
        } else if self.state.step(node).action().is_some() {
            let since = words::at_it_since(self.state, node);
            let date = since.map(words::date).unwrap_or_default();
            let how = match (&self.run.owner, n.detached()) {
                (Some(_), _) => format!("runs{}", self.ago(since)),
                (None, None) => format!("was running since {date}"),
                (None, Some(_)) => format!("runs since {date} by itself, or has ended: a resume finds out"),
            };
            let attempt = if n.attempts > 1 { format!(", attempt {}", n.attempts) } else { String::new() };
            told.push((depth, format!("{path} {how}{attempt}")));
        } else {
            told.push((depth, format!("{path} waits for its steps")));
            for child in self.state.children(node) {
                if !self.state.node(child).is_terminal() {
                    self.step(child, depth + 1, seen, told);
                }
            }
        }
    }

    /// Who may answer, and until when.
    fn about_question(&self, node: NodeId, question: &Question) -> String {
        let mut about = String::new();
        let several = question.min_approvals > 1 || !question.approvers.is_empty();
        let starter = self.state.created.as_ref().filter(|_| several && !question.allow_self).map(|c| c.by.as_str());
        let but = starter.map(|by| format!(", but not {by}, who started it")).unwrap_or_default();
        if !question.approvers.is_empty() {
            about.push_str(&format!("\nmay be said yes to by {}{but}", question.approvers.join(", ")));
        } else if !but.is_empty() {
            about.push_str(&format!("\nmay be said yes to by anybody{but}"));
        }
        if let Some(by) = self.state.node(node).answer_by() {
            let word = if question.approve_on_timeout { "yes" } else { "no" };
            about.push_str(&format!("\nwithout an answer by {} it counts as {word}", words::date(by)));
        }
        about
    }

    fn ready(&self, node: NodeId, depth: usize, told: &mut Told) {
        let state = self.state;
        let path = state.path(node);
        if state.is_halted(node) {
            told.push((depth, format!("{path} does not start any more: {}", self.halted(node))));
            return;
        }
        if let InRunLocks::Waits { name, holder } = state.locks_in_run(node) {
            told.push((depth, format!("{path} waits for the lock {name}, which {} has", state.path(holder))));
            return;
        }
        if self.locks.iter().any(|(of, ..)| of.as_deref() == Some(&**path)) {
            told.push((depth, format!("{path} waits for its locks")));
            self.locks_of(Some(path), depth + 1, told);
            return;
        }
        if state.busy() >= state.max_parallel() {
            let text = format!("{path} waits for a free slot: {} run at once (max_parallel)", state.max_parallel());
            told.push((depth, text));
            return;
        }
        let locks = decide::lock_names(state, node).unwrap_or_default();
        let with = if locks.is_empty() { String::new() } else { format!(", with the locks {}", locks.join(", ")) };
        told.push((depth, format!("{path} is ready to start{with}")));
    }

    fn blocked(&self, node: NodeId, depth: usize, seen: &mut HashSet<NodeId>, told: &mut Told) {
        let state = self.state;
        let path = state.path(node);
        if state.is_halted(node) {
            told.push((depth, format!("{path} does not start any more: {}", self.halted(node))));
            if let Some(failure) = state.failure {
                self.step(failure, depth + 1, seen, told);
            }
            return;
        }
        let in_the_way: Vec<NodeId> = state
            .needs(node)
            .filter(|need| !matches!(state.node(*need).status, Status::Succeeded | Status::Skipped))
            .collect();
        let parent = state.parent(node);
        if in_the_way.is_empty() {
            told.push((
                depth,
                format!(
                    "{path} waits for {}",
                    if RunState::is_root(parent) { "the run to start" } else { "what it stands in" }
                ),
            ));
            self.step(parent, depth + 1, seen, told);
            return;
        }
        let names: Vec<&str> = in_the_way.iter().map(|n| &**state.path(*n)).collect();
        told.push((depth, format!("{path} waits for {}", names.join(", "))));
        for need in in_the_way {
            self.step(need, depth + 1, seen, told);
        }
    }

    /// Why nothing more starts around a node.
    fn halted(&self, node: NodeId) -> String {
        let state = self.state;
        if state.cancel.is_some() {
            return "the run is cancelled".to_owned();
        }
        match state.failure {
            Some(failure) if failure != node => {
                let policy = match state.domain_policy(state.domain(node)) {
                    runback_core::event::OnFailure::Rollback => "rollback",
                    runback_core::event::OnFailure::Hold => "hold",
                    runback_core::event::OnFailure::Continue => "continue",
                };
                format!("{} failed, and on_failure is {policy}", state.path(failure))
            }
            _ => "what it stands in has failed".to_owned(),
        }
    }

    fn undo(&self, node: NodeId, depth: usize, seen: &mut HashSet<NodeId>, told: &mut Told) {
        let state = self.state;
        let n = state.node(node);
        // Why it all goes back is what is asked first.
        let failed = match n.status {
            Status::Failed => format!(" failed{}\nand", self.error(node)),
            _ => String::new(),
        };
        let path = format!("{}{failed}", n.path);
        match n.undo {
            UndoStatus::None => {}
            UndoStatus::Undone => {
                let note = words::undo_note(n).map(|note| format!(": {note}"));
                told.push((depth, format!("{path} was taken back{}", note.unwrap_or_default())));
            }
            _ if state.is_left(node) => {
                told.push((depth, format!("{path} is kept: {}", kept(state, node))));
            }
            UndoStatus::Kept => told.push((depth, format!("{path} is kept: {}", kept(state, node)))),
            UndoStatus::Failed => {
                let error = n.undo_error().map(|e| {
                    let help = e.help.as_ref().map(|h| format!("\n{}", next::in_text(h))).unwrap_or_default();
                    format!(": {}{help}", e.message)
                });
                told.push((depth, format!("{path} could not be taken back{}", error.unwrap_or_default())));
            }
            UndoStatus::Backoff => {
                told.push((depth, format!("{path} has an undo that is tried again {}", self.again(node))));
            }
            UndoStatus::Undoing => {
                let is = if self.run.owner.is_some() { "is" } else { "was" };
                told.push((depth, format!("{path} {is} being taken back")));
            }
            UndoStatus::Ready => told.push((
                depth,
                match state.undo_waits_for(node) {
                    Some((name, holder)) => {
                        format!("{path} is taken back once {} has given the lock {name} back", state.path(holder))
                    }
                    None => format!("{path} is about to be taken back"),
                },
            )),
            UndoStatus::Pending => {
                let later: Vec<NodeId> = state
                    .dependents(node)
                    .filter(|d| {
                        matches!(
                            state.node(*d).undo,
                            UndoStatus::Pending | UndoStatus::Ready | UndoStatus::Undoing | UndoStatus::Backoff
                        )
                    })
                    .collect();
                told.push((depth, format!("{path} is taken back after what came later")));
                for dependent in later {
                    self.step(dependent, depth + 1, seen, told);
                }
            }
        }
    }
}

/// The failed undo that the undo of a step waits for.
fn undo_before(state: &RunState, node: NodeId) -> Option<NodeId> {
    let mut seen = HashSet::new();
    let mut todo = vec![node];
    while let Some(at) = todo.pop() {
        for later in state.dependents(at).filter(|n| seen.insert(*n)) {
            if state.node(later).undo == UndoStatus::Failed {
                return Some(later);
            }
            todo.push(later);
        }
    }
    None
}

/// Why a rollback leaves a step as it is.
pub(crate) fn kept(state: &RunState, node: NodeId) -> String {
    if let Some(by) = state.node(node).rare.as_ref().and_then(|r| r.undo_settled_by.as_ref()) {
        return format!("its undo failed, and {by} said that it stays");
    }
    if state.is_left(node) {
        return match undo_before(state, node) {
            Some(failed) => format!("{} has to be undone before it, and could not be", state.path(failed)),
            None => "what came after it could not be undone".to_owned(),
        };
    }
    let step = state.step(node);
    let passed = |n: &NodeId| state.is_passed_for_good(*n);
    if passed(&node) {
        let in_doubt = state.node(node).status == Status::Interrupted;
        let doubt = if in_doubt { ", and may have been done" } else { "" };
        return format!("it is a point of no return{doubt}");
    }
    let PlanKind::Action(action) = &step.kind else { return "what is in it stays".to_owned() };
    match (&action.rollback, action.undo_kind()) {
        (PlanRollback::None, _) => "the playbook says `rollback: none`".to_owned(),
        (_, UndoKind::None) => {
            format!("{} has no inverse; `rollback:` can give it one, or say `none`", step.type_name())
        }
        (_, UndoKind::Impossible) => format!("what {} did cannot be taken back", step.type_name()),
        (_, UndoKind::Full) => match state.ids().find(passed) {
            Some(point) => format!("it is before the point of no return, {}", state.path(point)),
            None => "it is behind a point of no return".to_owned(),
        },
    }
}
