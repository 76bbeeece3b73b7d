//! Who watches a run and who is asked: the contracts of reporters and of the operator. All printing is the
//! command line's; the engine only tells.

use runback_core::event::Event;
use runback_core::progress::Progress;
use runback_core::state::{NodeId, RunState};
use runback_core::step::{Answer, Question};

/// Something ephemeral about a running attempt.
#[derive(Debug, Clone)]
pub enum Notice<'a> {
    /// The last line of its output, masked, without escape sequences; all of it is in the attempt's log.
    LastLine {
        node: NodeId,
        line: &'a str,
    },
    Progress {
        node: NodeId,
        progress: &'a Progress,
    },
    /// A ready step waits for locks that somebody else holds; `why` names the holder.
    LockWait {
        node: Option<NodeId>,
        why: &'a str,
    },
    /// Something that a person should know and that changes nothing: a log that could not be written.
    Warning {
        message: &'a str,
    },
}

/// Sees everything, changes nothing. Called on the driver's own task: be quick.
pub trait Reporter: Send {
    /// The event is durable, and the state has it applied, and with it those that were committed at once.
    fn event(&mut self, state: &RunState, event: &Event);

    fn notice(&mut self, _state: &RunState, _notice: &Notice<'_>) {}

    /// About ten times a second while the run lives, for clocks on the screen. `now` by the run's clock, in ms.
    fn tick(&mut self, _state: &RunState, _now: u64) {}

    /// Before a person is asked something on the same terminal, and after.
    fn pause(&mut self, _state: &RunState) {}
    fn unpause(&mut self, _state: &RunState) {}
}

/// What the operator wants after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterFailure {
    Retry,
    Skip,
    Rollback,
    Hold,
}

/// What an interrupted step counts as, said by the operator.
#[derive(Debug, Clone, PartialEq)]
pub struct Settled {
    pub resolution: runback_core::event::Resolution,
    pub by: String,
}

/// A person at a terminal. Without one, nothing is asked and every method gives None.
#[async_trait::async_trait]
pub trait Operator: Send + Sync {
    fn is_there(&self) -> bool {
        true
    }

    /// A step failed for good and the run would now be taken back or held.
    async fn after_failure(&self, step: &str, error: &str) -> Option<AfterFailure>;
    async fn answer(&self, step: &str, question: &Question) -> Option<Answer>;
    async fn settle(&self, step: &str, doubt: &str) -> Option<Settled>;
}

/// Nobody is there.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nobody;

#[async_trait::async_trait]
impl Operator for Nobody {
    fn is_there(&self) -> bool {
        false
    }
    async fn after_failure(&self, _step: &str, _error: &str) -> Option<AfterFailure> {
        None
    }
    async fn answer(&self, _step: &str, _question: &Question) -> Option<Answer> {
        None
    }
    async fn settle(&self, _step: &str, _doubt: &str) -> Option<Settled> {
        None
    }
}
