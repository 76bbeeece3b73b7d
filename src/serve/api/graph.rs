//! The steps of a run as a graph: what stands in what, what needs what, what a rollback does. Their states are `runs`'.

use std::cmp::Reverse;

use runback_core::event::OnFailure;
use runback_core::plan::PlanKind;
use runback_core::state::{FINAL, Fate, NodeId, ROOT, RunState};
use runback_core::step::{Access, UndoKind};
use schemars::JsonSchema;
use serde::Serialize;

use super::runs::RunPath;
use crate::cmd::why::kept;
use crate::serve::problem::Problem;
use crate::serve::route::{Call, Nothing, Ok200};

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct GraphView {
    /// What follows a failure in this run.
    on_failure: OnFailure,
    /// Inputs that are not stored: a resume or rollback by another process may need them again.
    secret_inputs: Vec<String>,
    /// In the order in which the run lists its steps.
    steps: Vec<GraphStep>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct GraphStep {
    id: String,
    #[serde(rename = "type")]
    step_type: &'static str,
    /// Place in the list of the block or `for_each` that it stands in.
    parent: Option<usize>,
    /// Places in the list.
    needs: Vec<usize>,
    /// The point of no return: once it succeeded, nothing before it is undone.
    irreversible: bool,
    /// It stands under `finally`.
    finally: bool,
    /// Only looks at the world.
    reads: bool,
    /// full, none or impossible; null for a block and a `for_each`.
    #[schemars(with = "Option<String>")]
    undo: Option<UndoKind>,
}

pub(crate) async fn show(call: Call<RunPath, Nothing, Nothing>) -> Result<Ok200<GraphView>, Problem> {
    let app = call.app;
    let id = app.store.resolve(&call.path.run).await?;
    Ok(Ok200(app.folds.look(&app, &id, |run| graph(&run.state)).await?))
}

fn graph(state: &RunState) -> GraphView {
    let plan = &state.plan;
    let secret = plan.scopes[0].inputs.iter().filter(|d| d.secret).map(|d| d.name.value.clone());
    let asked = state.created.as_ref().and_then(|c| c.options.on_failure);
    GraphView {
        on_failure: asked.unwrap_or(plan.on_failure),
        secret_inputs: secret.collect(),
        steps: state.ids().map(|node| step(state, node)).collect(),
    }
}

/// The roots come first, and are not listed.
fn place(node: NodeId) -> usize {
    (node.0 - FINAL.0 - 1) as usize
}

fn step(state: &RunState, node: NodeId) -> GraphStep {
    let s = state.step(node);
    let parent = state.parent(node);
    let action = match &s.kind {
        PlanKind::Action(action) => Some(action),
        PlanKind::Block(_) | PlanKind::ForEach(_) => None,
    };
    GraphStep {
        id: state.path(node).to_string(),
        step_type: s.type_name(),
        parent: (!RunState::is_root(parent)).then(|| place(parent)),
        needs: state.needs(node).map(place).collect(),
        irreversible: s.irreversible,
        finally: parent == FINAL,
        reads: action.is_some_and(|a| a.access == Access::Reads),
        undo: action.map(|a| a.undo_kind()),
    }
}

/// What a rollback that begins now would do.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RollbackView {
    /// Steps that would be undone, the last one first.
    undo: Vec<String>,
    /// Steps that did something, or may have, and would stay as they are.
    keep: Vec<Kept>,
    /// The point of no return that was passed last.
    past: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Kept {
    step: String,
    why: String,
}

pub(crate) async fn rollback(call: Call<RunPath, Nothing, Nothing>) -> Result<Ok200<RollbackView>, Problem> {
    let app = call.app;
    let id = app.store.resolve(&call.path.run).await?;
    Ok(Ok200(app.folds.look(&app, &id, |run| fates(&run.state)).await?))
}

fn fates(state: &RunState) -> RollbackView {
    let behind = state.behind_points_of_no_return(ROOT);
    let mut inside: Vec<NodeId> = state.ids().filter(|n| state.root(*n) == ROOT).collect();
    inside.sort_by_key(|n| Reverse(state.node(*n).start_seq));
    let path = |n: &NodeId| state.path(*n).to_string();
    let of = |fate: Fate| inside.iter().filter(|n| state.fate(**n, &behind) == fate).collect::<Vec<_>>();
    RollbackView {
        undo: of(Fate::Undo).into_iter().map(path).collect(),
        keep: of(Fate::Keep).into_iter().map(|n| Kept { step: path(n), why: kept(state, *n) }).collect(),
        past: inside.iter().find(|n| state.step(**n).irreversible && behind.contains(n)).map(path),
    }
}
