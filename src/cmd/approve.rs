//! `runback approve`: answers a question of a run, from wherever.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use runback_core::Json;
use runback_core::event::{Event, EventBody};
use runback_core::state::{Node, NodeId, RunState};
use runback_core::step::{Answer, Question};
use runback_exec::driver::mask_answer;
use runback_exec::process::Processes;
use runback_exec::process::guard::GuardCommand;
use runback_exec::store::{Request, Store};
use runback_exec::target::LocalTarget;
use serde_json::Map;

use crate::exit::Exit;
use crate::failure::{Done, Failure};
use crate::term::{self, DIM, RESET, YELLOW};
use crate::{journal, next, operator, state_dir, surroundings, words};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A run's id, the beginning of one, or `last`
    #[arg(value_name = "RUN")]
    run: String,

    /// The step that asks; may be left out where only one does
    #[arg(value_name = "STEP")]
    step: Option<String>,

    /// Say no
    #[arg(long)]
    refuse: bool,

    /// Why
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,

    /// A field of the form
    #[arg(short, long = "field", value_name = "NAME=VALUE")]
    fields: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments, dir: Option<&Path>) -> Done {
    let store = state_dir::of_run(dir, &arguments.run)?;
    state_dir::block_on(async {
        let id = store.resolve(&arguments.run).await?;
        let run = journal::read(store.as_ref(), &id, &runback_steps::catalog()).await?;
        let node = asking(&run.state, arguments.step.as_deref())?;
        let step = run.state.path(node).to_string();
        let question = run.state.node(node).question().ok_or_else(|| nothing_asked(&run.state))?;
        let mut answer = Answer {
            approved: !arguments.refuse,
            by: surroundings::by(),
            roles: Vec::new(),
            reason: arguments.reason.clone(),
            fields: if arguments.refuse { Json::Null } else { fields(question, &arguments.fields)? },
        };
        let starter = run.state.created.as_ref().map_or("", |c| c.by.as_str());
        if let Some(why) = question.refuses(&answer, starter, run.state.node(node).answers()) {
            return Err(not_counted(&id, &step, &answer, why));
        }
        let processes = Processes::new(GuardCommand::this_binary(), |warning| {
            term::note(&format!("{YELLOW}!{RESET} {warning}"));
        });
        let unmasked = mask(&mut answer, &run.state, &processes, &state_dir::path(dir)?).await;
        let word = if answer.approved { "approved" } else { "refused" };
        if run.owner.is_some() {
            store.post(&id, Request::Answer { step: step.clone(), answer }).await?;
            term::line(&format!("{word} {step} of run {id}"));
        } else {
            record(store.as_ref(), &id, &run.state, &step, answer).await?;
            if let Some(warning) = unmasked {
                term::note(&format!("{YELLOW}!{RESET} {warning}"));
            }
            term::line(&format!("{word} {step} of run {id}, which nobody drives now"));
            term::note(&format!("{DIM}go on with it: {}{RESET}", next::as_typed(&format!("runback resume {id}"))));
        }
        Ok(Exit::Succeeded)
    })
}

/// Takes the run's secrets out of what somebody wrote, before it is stored: who drives the run, if anybody, sees it only
/// after that. Gives a warning where secrets are not known here.
pub(crate) async fn mask(
    answer: &mut Answer,
    state: &RunState,
    processes: &Arc<Processes>,
    state_dir: &Path,
) -> Option<String> {
    if answer.reason.is_none() && answer.fields.is_null() {
        return None;
    }
    let base = PathBuf::from(state.created.as_ref().map_or("", |c| c.base.as_str()));
    let local = LocalTarget::new(base.clone(), state_dir.join("detached"), Arc::clone(processes));
    let (masker, unknown) = surroundings::masker(&state.plan, &base, &local).await;
    mask_answer(&masker, answer);
    (!unknown.is_empty()).then(|| {
        let names = unknown.join(", ");
        format!("what you wrote is stored as it is where it holds a secret that cannot be read here: {names}")
    })
}

fn not_counted(run: &str, step: &str, answer: &Answer, why: &str) -> Failure {
    Failure::refused(format!("{step}: the answer of {} does not count: {why}", answer.by))
        .help(format!("see who may answer: {}", next::as_typed(&format!("runback why {run} {}", next::word(step)))))
}

/// Nobody drives the run: the answer goes into its journal, where the next process finds it.
pub(crate) async fn record(
    store: &dyn Store,
    run: &str,
    state: &RunState,
    step: &str,
    answer: Answer,
) -> Result<(), Failure> {
    let lease = store.acquire(run).await?;
    let mut state = state.clone();
    // Somebody may have had it since.
    journal::advance(store, run, &mut state).await?;
    let starter = state.created.as_ref().map_or("", |c| c.by.as_str());
    let node = state.find(step).map(|n| state.node(n));
    if node.and_then(Node::answer_by).is_some_and(|by| by <= words::now_ms()) {
        let failure = Failure::refused(format!("the time to answer {step} is over"));
        let resume = next::as_typed(&format!("runback resume {run}"));
        return Err(failure.help(format!("it counts as its `on_timeout` says when the run goes on: {resume}")));
    }
    if let Some(why) = node.and_then(|n| n.question()?.refuses(&answer, starter, n.answers())) {
        return Err(not_counted(run, step, &answer, why));
    }
    let step = step.into();
    let body = if answer.approved {
        EventBody::ApprovalGiven { step, answer }
    } else {
        EventBody::ApprovalRefused { step, answer }
    };
    let event = Event { seq: state.last_seq + 1, at: words::now_ms().max(state.last_at), body };
    state.apply(&event).map_err(|e| {
        Failure::refused(format!("it cannot be answered any more: {}", e.why))
            .help(next::as_typed(&format!("runback show {run}")))
    })?;
    Ok(store.append(&lease, Arc::from([event])).await?)
}

fn nothing_asked(state: &RunState) -> Failure {
    let run = state.run_id();
    if let Some(node) = state.answered().next() {
        let said = words::verdict(state.node(node)).unwrap_or_default();
        let failure = Failure::refused(format!("{} is answered already: {said}", state.path(node)));
        return failure.help(format!("go on with it: {}", next::as_typed(&format!("runback resume {run}"))));
    }
    Failure::usage(format!("run {run} asks nothing"))
        .help(format!("see what it does: {}", next::as_typed(&format!("runback why {run}"))))
}

pub(crate) fn asking(state: &RunState, step: Option<&str>) -> Result<NodeId, Failure> {
    let all: Vec<NodeId> = state.questions().collect();
    let names = || all.iter().map(|n| state.path(*n).to_string()).collect::<Vec<_>>().join(", ");
    match (step, all.as_slice()) {
        (_, []) => Err(nothing_asked(state)),
        (None, [one]) => Ok(*one),
        (None, _) => Err(Failure::usage(format!("several steps ask: {}", names())).help("name one of them")),
        (Some(step), _) => {
            let found = state.find(step).filter(|n| all.contains(n));
            found.ok_or_else(|| {
                Failure::usage(format!("step {step} asks nothing")).help(format!("these ask: {}", names()))
            })
        }
    }
}

/// The form's fields from `-f`, defaults where nothing is given.
fn fields(question: &Question, given: &[String]) -> Result<Json, Failure> {
    let mut values = Map::new();
    for pair in given {
        let (name, text) =
            pair.split_once('=').ok_or_else(|| Failure::usage(format!("-f {pair}: a field is given as name=value")))?;
        let value = match question.form.get(name) {
            Some(field) => {
                operator::field_value(field, text).map_err(|why| Failure::usage(format!("-f {pair}: {why}")))?
            }
            None => return Err(no_field(question, &format!("-f {pair}: "), name)),
        };
        values.insert(name.to_owned(), value);
    }
    checked_fields(question, values)
}

/// Values for a form: known, allowed, and none left out that has no default.
pub(crate) fn checked_fields(question: &Question, given: Map<String, Json>) -> Result<Json, Failure> {
    let none = Map::new();
    let form = question.form.as_object().unwrap_or(&none);
    let mut values = given;
    if let Some(name) = values.keys().find(|name| !form.contains_key(*name)) {
        return Err(no_field(question, "", name));
    }
    for (name, field) in form {
        if let Some(value) = values.get(name) {
            runback_steps::form_field_accepts(field, value)
                .map_err(|why| Failure::usage(format!("the field `{name}` {why}")))?;
            continue;
        }
        let Some(default) = field.get("default").filter(|d| !d.is_null()) else {
            let about = field.get("description").and_then(Json::as_str).map(|d| format!(" ({d})")).unwrap_or_default();
            return Err(Failure::usage(format!("the field `{name}`{about} has no value"))
                .help(format!("give it with -f {name}=…")));
        };
        values.insert(name.clone(), default.clone());
    }
    Ok(if values.is_empty() { Json::Null } else { Json::Object(values) })
}

fn no_field(question: &Question, place: &str, name: &str) -> Failure {
    let known: Vec<&str> = question.form.as_object().into_iter().flat_map(|f| f.keys().map(String::as_str)).collect();
    Failure::usage(format!("{place}the form has no field `{name}`")).help(if known.is_empty() {
        "it has none".to_owned()
    } else {
        format!("its fields are {}", known.join(", "))
    })
}
