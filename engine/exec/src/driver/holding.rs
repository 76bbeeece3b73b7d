//! What succeeded steps hold beside the run, such as a tunnel: kept until the block around each ends, and held again by a process
//! that takes the run up in the middle of it. Nothing of it is in the journal: it is worth nothing without a process.

use std::sync::Arc;

use runback_core::Json;
use runback_core::state::{NodeId, Phase, Status};
use runback_core::step::{Held, StepError};

use super::Driver;
use super::perform::What;

impl Driver {
    /// The block around it still goes forward.
    fn still_holds(&self, node: NodeId) -> bool {
        let around = self.state.parent(node);
        self.state.phase == Phase::Running && self.state.node(around).status == Status::Running
    }

    /// Ends what no open block needs any more.
    pub(super) fn let_go(&mut self) {
        if !self.held.is_empty() {
            let over: Vec<NodeId> = self.held.keys().copied().filter(|n| !self.still_holds(*n)).collect();
            for node in over {
                self.held.remove(&node);
            }
        }
    }

    pub(super) fn holds(&mut self, node: NodeId, held: Result<Held, StepError>) {
        if self.holding.remove(&node) {
            self.running.remove(&node);
        }
        match held {
            Ok(held) => drop(self.held.insert(node, held)),
            Err(e) => {
                let step = self.state.path(node);
                self.warnings.push(format!("{step} could not be held again, and what needs it will fail: {e}"));
            }
        }
    }

    /// Begins to hold again what an earlier process held.
    pub(super) fn hold_again(&mut self) {
        let lost: Vec<NodeId> = (self.state.ids())
            .filter(|n| self.state.node(*n).status == Status::Succeeded && !self.held.contains_key(n))
            .filter(|n| self.state.step(*n).action().is_some_and(|a| a.step_type.holds()) && self.still_holds(*n))
            .collect();
        for node in lost {
            let plan = Arc::clone(&self.state.plan);
            let Some(action) = plan.step(self.state.node(node).step).action() else { continue };
            let outputs = self.state.node(node).outputs.as_deref().cloned().unwrap_or(Json::Null);
            match self.render(node, action) {
                Ok(rendered) => {
                    self.holding.insert(node);
                    self.spawn(node, action, rendered, What::Hold, 0, None, |a| a.hold(outputs));
                }
                Err(e) => self.holds(node, Err(e)),
            }
        }
    }
}
