//! The scheduler: what to do next, as data, from the plan and the state alone. It performs nothing and
//! remembers nothing.

use std::collections::BTreeMap;

use crate::Json;
use crate::event::{
    CancelReason, EventBody, HoldReason, Item, OnFailure, Resolution, RollbackReason, SkipReason, StepPath,
};
use crate::instance;
use crate::plan::{PlanForEach, PlanKind};
use crate::playbook::model::Interrupt;
use crate::scope::{self, Lent};
use crate::state::{FINAL, InRunLocks, NodeId, Phase, ROOT, RunState, Status, Wish};
use crate::step::{Access, OnInterrupt, StepError, UndoKind};
use crate::template::{RenderError, Template};

/// Something for the driver to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Record a fact that follows from the state. Decide again once it is applied.
    Record(EventBody),
    /// Take these locks for a step that is otherwise ready, then record `LockTaken`.
    TakeLocks { node: NodeId, names: Vec<String> },
    /// Begin the next attempt: record `AttemptStarted`, and act once that is durable.
    Start { node: NodeId },
    /// Ask a running attempt to stop.
    Stop { node: NodeId },
    /// Find out what an interrupted attempt did, then record `StepResolved` or `DoubtRaised`.
    Probe { node: NodeId },
    /// Begin the next undo attempt: record `UndoStarted`, and act once that is durable.
    Undo { node: NodeId },
    /// Nothing to do before this time unless something ends first. Milliseconds by the run's clock.
    Wake { at: u64 },
}

/// Whoever decides when no person does.
pub const RUNBACK: &str = "runback";

/// What to do now. Bounded by the free slots, not by the size of the run.
pub fn decide(state: &RunState, now: u64) -> Vec<Effect> {
    match &state.wish {
        None => next(state, now),
        Some(Wish::Rollback { by, force }) => to_rollback(state, by, *force),
        Some(Wish::Hold) => to_hold(state, now),
    }
}

/// A rollback was asked for: what acts is stopped, undos finish, nothing begins; then it comes.
fn to_rollback(state: &RunState, by: &str, force: bool) -> Vec<Effect> {
    if state.is_quiet() {
        let (by, reason) = (by.to_owned(), RollbackReason::Operator);
        return vec![Effect::Record(EventBody::RollbackStarted { step: None, reason, by, force })];
    }
    state.active().map(|node| Effect::Stop { node }).collect()
}

/// A hold was asked for: what acts may finish, a block that is taken back is taken back; then it comes. Of a run that has
/// not begun it comes at once.
fn to_hold(state: &RunState, now: u64) -> Vec<Effect> {
    if state.phase == Phase::Created {
        return vec![Effect::Record(EventBody::RunHeld { reason: HoldReason::Operator })];
    }
    if state.phase != Phase::Running {
        return next(state, now);
    }
    if state.takes_a_block_back() {
        // What has begun with a lock that its undos wait for goes on to its end, as what acts does.
        let awaited = state.awaited_by_undos();
        let is_awaited = |node| awaited.contains(&node) || state.ancestors(node).iter().any(|up| awaited.contains(up));
        return go_on(state, now, &is_awaited);
    }
    if state.is_quiet() {
        return vec![Effect::Record(EventBody::RunHeld { reason: HoldReason::Operator })];
    }
    state.to_stop().map(|node| Effect::Stop { node }).collect()
}

fn next(state: &RunState, now: u64) -> Vec<Effect> {
    match state.phase {
        Phase::Created | Phase::Held(_) | Phase::Finished(_) => return Vec::new(),
        Phase::Ending => return vec![Effect::Record(finish(state))],
        Phase::Running | Phase::RollingBack | Phase::Finally => {}
    }
    match over_time(state, now) {
        Some(event) => vec![Effect::Record(event)],
        None => go_on(state, now, &|_| true),
    }
}

/// `may`: which steps and blocks go on; undos do in any case.
fn go_on(state: &RunState, now: u64, may: &dyn Fn(NodeId) -> bool) -> Vec<Effect> {
    let root = if state.phase == Phase::Finally { FINAL } else { ROOT };
    let ended = |domain| (state.root(domain) == root && may(domain)).then(|| ended_badly(state, domain)).flatten();
    if state.phase != Phase::RollingBack
        && let Some(event) = state.quiet().find_map(ended)
    {
        return vec![Effect::Record(event)];
    }
    let mut effects: Vec<_> = state.to_stop().map(|node| Effect::Stop { node }).collect();
    effects.extend(state.interrupted().filter(|n| may(*n)).filter_map(|node| settle_interrupted(state, node)));
    let mut free = state.max_parallel().saturating_sub(state.busy());
    start_undos(state, now, &mut free, &mut effects, may);
    start_steps(state, now, &mut free, &mut effects, may);
    let times = [state.next_backoff(now), state.next_undo_backoff(now), run_timeout(state)];
    if let Some(at) = times.into_iter().flatten().filter(|at| *at > now).min() {
        effects.push(Effect::Wake { at });
    }
    effects
}

fn finish(state: &RunState) -> EventBody {
    let outcome = state.ending.unwrap_or(crate::event::Outcome::Failed);
    let succeeded = outcome == crate::event::Outcome::Succeeded;
    // An output that cannot be rendered must not keep the run from ending; it is null.
    let (outputs, output_errors) = if succeeded { scope::run_outputs(state) } else { (Json::Null, BTreeMap::new()) };
    EventBody::RunFinished { outcome, outputs, output_errors }
}

fn run_timeout(state: &RunState) -> Option<u64> {
    let timeout = state.plan.timeout?.as_millis() as u64;
    (state.phase == Phase::Running && state.cancel.is_none()).then_some(state.going_since + timeout)
}

fn over_time(state: &RunState, now: u64) -> Option<EventBody> {
    (run_timeout(state)? <= now)
        .then(|| EventBody::CancelRequested { by: RUNBACK.to_owned(), reason: CancelReason::Timeout })
}

/// A failure domain was halted and nothing runs in it any more.
fn ended_badly(state: &RunState, domain: NodeId) -> Option<EventBody> {
    let by = RUNBACK.to_owned();
    if domain != ROOT {
        let step = Some(state.path(domain).clone());
        // Inside a run or block that is halted as a whole, the whole is taken back (or held) as one.
        return (!state.is_halted(state.parent(domain))).then_some(EventBody::RollbackStarted {
            step,
            reason: RollbackReason::Failure,
            by,
            force: false,
        });
    }
    let cancelled = state.cancel.is_some();
    let hold = state.hold_wanted() || state.on_failure() == OnFailure::Hold;
    Some(match (cancelled, hold) {
        (true, true) => EventBody::RunHeld { reason: HoldReason::Cancelled },
        (false, true) => EventBody::RunHeld { reason: HoldReason::Failure },
        (true, false) => EventBody::RollbackStarted { step: None, reason: RollbackReason::Cancelled, by, force: false },
        (false, false) => EventBody::RollbackStarted { step: None, reason: RollbackReason::Failure, by, force: false },
    })
}

/// What is right for an attempt of which nobody knows how it ended.
fn settle_interrupted(state: &RunState, node: NodeId) -> Option<Effect> {
    let n = state.node(node);
    let root = if state.phase == Phase::Finally { FINAL } else { ROOT };
    let over = state.phase == Phase::RollingBack || state.root(node) != root;
    if n.doubt().is_some() || over || state.is_halted(node) || !state.is_open(node) {
        return None;
    }
    let step = state.step(node);
    let action = step.action()?;
    let redo = Effect::Record(EventBody::StepResolved {
        step: n.path.clone(),
        resolution: Resolution::Redo,
        by: None,
        outputs: Json::Null,
        changed: false,
        masked: Vec::new(),
    });
    let arms = action.access == Access::Changes && action.undo == UndoKind::Full;
    if action.access == Access::Reads || (arms && !n.armed) {
        return Some(redo);
    }
    let ask = || {
        let why = format!("runback ended while {} was acting, and nothing can tell how far it came", n.path);
        Effect::Record(EventBody::DoubtRaised { step: n.path.clone(), attempt: n.attempts, why })
    };
    Some(match (step.policy.on_interrupt, action.step_type.descriptor().on_interrupt) {
        (Some(Interrupt::Rerun), _) | (None, OnInterrupt::Rerun) => redo,
        (Some(Interrupt::Ask), _) | (None, OnInterrupt::Ask) => ask(),
        (None, OnInterrupt::Probe) => Effect::Probe { node },
    })
}

fn start_undos(state: &RunState, now: u64, free: &mut u32, effects: &mut Vec<Effect>, may: &dyn Fn(NodeId) -> bool) {
    let due = state.undo_backoffs().take_while(|(at, _)| *at <= now).map(|(_, n)| n);
    let mut locks = state.undo_locks();
    let (mut first, mut beginning) = (None, Vec::new());
    for node in due.chain(state.undo_ready()) {
        if *free == 0 {
            return;
        }
        if !state.has_place_for_undo(node, &beginning) {
            continue;
        }
        if !locks.take(node) {
            first.get_or_insert(node);
            continue;
        }
        *free -= 1;
        beginning.push(node);
        effects.push(Effect::Undo { node });
    }
    // Nothing else goes on that could give a lock back: each has what another wants, and one by one they exclude each other.
    if let Some(node) = first
        && effects.is_empty()
        && state.only_undos_are_left(may)
    {
        effects.push(Effect::Undo { node });
    }
}

fn start_steps(state: &RunState, now: u64, free: &mut u32, effects: &mut Vec<Effect>, may: &dyn Fn(NodeId) -> bool) {
    if state.phase == Phase::RollingBack {
        return;
    }
    let due = state.backoffs().take_while(|(at, _)| *at <= now).map(|(_, n)| n);
    for node in due.chain(state.ready()).filter(|n| may(*n)) {
        if *free == 0 {
            return;
        }
        let effect = start(state, node);
        if matches!(effect, Effect::Start { .. }) {
            *free -= 1;
        }
        // A fact comes first: what follows from it is decided once it is applied.
        let fact = matches!(effect, Effect::Record(_));
        effects.push(effect);
        if fact {
            return;
        }
    }
}

fn start(state: &RunState, node: NodeId) -> Effect {
    let path = || state.path(node).clone();
    let failed = |error: StepError| Effect::Record(EventBody::StepFailed { step: path(), error });
    let step = state.step(node);
    let n = state.node(node);
    if n.status == Status::Ready
        && let Some(when) = &step.when
    {
        let verdict = scope::of_step(state, node, when.references().iter(), Lent::default())
            .and_then(|context| when.eval_bool(&context));
        match verdict {
            Ok(true) => {}
            Ok(false) => {
                return Effect::Record(EventBody::StepSkipped { step: path(), reason: SkipReason::Condition });
            }
            Err(e) => return failed(StepError::permanent(format!("`when` could not be worked out: {e}"))),
        }
    }
    if n.status == Status::Ready && !step.locks.is_empty() {
        match state.locks_in_run(node) {
            InRunLocks::Has(names) if names.is_empty() => match lock_names(state, node) {
                Ok(_) => {}
                Err(error) => return failed(error),
            },
            InRunLocks::Has(names) if names.iter().all(|n| state.locks.contains(n)) => {}
            InRunLocks::Has(names) => return Effect::TakeLocks { node, names: names.to_vec() },
            InRunLocks::Waits { name, holder } | InRunLocks::Never { name, holder } => {
                let holder = state.path(holder);
                let why =
                    format!("its lock `{name}` can never be had: {holder} has it, and waits for what {} has", n.path);
                return failed(StepError::conflict(why).help("take both locks in one place: at the outer block"));
            }
        }
    }
    match &step.kind {
        PlanKind::Block(_) => Effect::Record(EventBody::BlockStarted { step: path() }),
        PlanKind::ForEach(_) if state.is_expanded(node) => Effect::Record(EventBody::BlockStarted { step: path() }),
        PlanKind::ForEach(each) => match expand(state, node, each) {
            Ok(items) => Effect::Record(EventBody::StepExpanded { step: path(), items }),
            Err(error) => failed(error),
        },
        PlanKind::Action(_) => Effect::Start { node },
    }
}

/// The names of a step's locks, sorted, each once.
pub fn lock_names(state: &RunState, node: NodeId) -> Result<Vec<String>, StepError> {
    let context = |t: &Template| scope::of_step(state, node, t.references().iter(), Lent::default());
    rendered_locks(&state.step(node).locks, context)
}

/// The names of the run's own locks, sorted, each once. They must be known when it is created.
pub fn run_lock_names(state: &RunState) -> Result<Vec<String>, StepError> {
    rendered_locks(&state.plan.locks, |t| scope::of_run(state, t.references().iter(), Lent::default()))
}

fn rendered_locks(
    locks: &[Template],
    context: impl Fn(&Template) -> Result<Json, RenderError>,
) -> Result<Vec<String>, StepError> {
    let mut names = Vec::with_capacity(locks.len());
    for template in locks {
        let lock = template.text();
        let name = context(template).and_then(|context| template.render_string(&context)).map_err(|e| {
            StepError::permanent(format!("the name of the lock `{lock}` could not be worked out: {e}"))
                .help("under `locks`, each name must come out as a text: use inputs, and values that are there by then")
        })?;
        if name.trim().is_empty() {
            let error = StepError::permanent(format!("the name of the lock `{lock}` is empty"));
            return Err(error.help("give what it is made of a value, or put a fixed part before it, such as `vm/`"));
        }
        names.push(name);
    }
    names.sort();
    names.dedup();
    Ok(names)
}

/// The most instances that one `for_each` may have.
pub const MAX_ITEMS: usize = 100_000;

fn expand(state: &RunState, node: NodeId, each: &PlanForEach) -> Result<Vec<Item>, StepError> {
    let items = scope::render(state, node, &each.items, Lent::default())
        .map_err(|e| StepError::permanent(format!("the items of `for_each` could not be worked out: {e}")))?;
    let items: Vec<(Option<String>, Json)> = match items {
        Json::Array(list) => list.into_iter().map(|value| (None, value)).collect(),
        Json::Object(map) => map.into_iter().map(|(key, value)| (Some(key), value)).collect(),
        other => {
            let kind = crate::template::kind_of(&other);
            return Err(StepError::permanent(format!("`for_each` wants a list or a map of items, not {kind}")));
        }
    };
    if items.len() > MAX_ITEMS {
        return Err(StepError::permanent(format!("{} items are more than the {MAX_ITEMS} allowed", items.len())));
    }
    let mut out = Vec::with_capacity(items.len());
    for (index, (key, value)) in items.into_iter().enumerate() {
        let key = item_key(state, node, each, key, index, &value)?;
        out.push(Item { key, value, masked: false });
    }
    let mut keys: Vec<_> = out.iter().map(|i| i.key.as_str()).collect();
    keys.sort_unstable();
    if let Some([twice, _]) = keys.windows(2).find(|w| w[0] == w[1]) {
        let error = StepError::permanent(format!("two items of `for_each` have the key `{twice}`"));
        return Err(error.help("give `key:` a template that tells them apart, such as \"{{ each.index }}\""));
    }
    Ok(out)
}

/// What the instance of an item is called; `of_map` is the item's key in a map.
fn item_key(
    state: &RunState,
    node: NodeId,
    each: &PlanForEach,
    of_map: Option<String>,
    index: usize,
    value: &Json,
) -> Result<String, StepError> {
    let key = match &each.key {
        None => of_map.unwrap_or_else(|| instance::default_key(index, value)),
        Some(template) => {
            let outer = template.references().iter().filter(|r| r.path.first() != Some(&each.as_name));
            let key = scope::of_step(state, node, outer, Lent::default()).and_then(|mut context| {
                let mut own = instance::context(&each.as_name, of_map.as_deref(), index, value);
                context[&each.as_name] = own[&each.as_name].take();
                template.render_string(&context)
            });
            key.map_err(|e| StepError::permanent(format!("the key of item {index} could not be worked out: {e}")))?
        }
    };
    if instance::is_key(&key) {
        return Ok(key);
    }
    let rule = instance::RULE;
    Err(StepError::permanent(format!("`{}` cannot be the key of an instance: {rule}", key.escape_debug())))
}

/// The words of [`StepPath`] for messages.
pub fn list_paths(paths: &[StepPath]) -> String {
    paths.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join(", ")
}
