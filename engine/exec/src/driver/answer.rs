//! Questions to people: asked once, answered by whoever may, at most once even across restarts.

use std::sync::Arc;

use runback_core::decide::RUNBACK;
use runback_core::event::EventBody;
use runback_core::state::NodeId;
use runback_core::step::{Answer, Question};
use tokio::sync::oneshot;

use super::{Asking, Driver, DriverError};

impl Driver {
    /// An attempt asks. What was answered before a restart counts.
    pub(super) fn ask(
        &mut self,
        node: NodeId,
        question: Question,
        answer: oneshot::Sender<Answer>,
    ) -> Result<(), DriverError> {
        let (step, attempt) = self.attempt(node);
        self.asking.insert(node, Asking { question: question.clone(), answer, declined: false });
        self.record(EventBody::ApprovalRequested { step, attempt, question })?;
        self.settle_question(node);
        // It may have been asked long ago, by an earlier process.
        self.expire_questions()
    }

    /// Somebody answered. An answer that does not count is refused with the reason.
    pub(super) fn answered(&mut self, node: NodeId, answer: Answer) -> Result<(), DriverError> {
        let n = self.state.node(node);
        let Some(question) = n.question() else { return Ok(()) };
        let step = Arc::clone(&n.path);
        let starter = self.state.created.as_ref().map_or("", |c| c.by.as_str());
        let why = match n.verdict() {
            Some(_) => Some("it is answered already"),
            None => question.refuses(&answer, starter, n.answers()),
        };
        if let Some(why) = why {
            self.warnings.push(format!("{step}: the approval of {} does not count: {why}", answer.by));
            return Ok(());
        }
        self.record(if answer.approved {
            EventBody::ApprovalGiven { step, answer }
        } else {
            EventBody::ApprovalRefused { step, answer }
        })?;
        self.settle_question(node);
        Ok(())
    }

    /// Lets the attempt go on when enough is known.
    fn settle_question(&mut self, node: NodeId) {
        if let Some(verdict) = self.state.node(node).verdict().cloned()
            && let Some(asking) = self.asking.remove(&node)
        {
            let _ = asking.answer.send(verdict);
        }
    }

    /// Questions whose time is over answer themselves, as they were told to.
    pub(super) fn expire_questions(&mut self) -> Result<(), DriverError> {
        if self.asking.is_empty() {
            return Ok(());
        }
        let now = self.clock.now_ms();
        let over: Vec<_> = self
            .asking
            .iter()
            .filter(|(n, _)| self.state.node(**n).answer_by().is_some_and(|by| by <= now))
            .map(|(n, a)| (*n, a.question.approve_on_timeout))
            .collect();
        for (node, approved) in over {
            let answer = Answer {
                approved,
                by: RUNBACK.to_owned(),
                roles: Vec::new(),
                reason: Some("nobody answered in time".to_owned()),
                fields: runback_core::Json::Null,
            };
            self.answered(node, answer)?;
        }
        Ok(())
    }

    /// When the next question's time is over.
    pub(super) fn next_question_deadline(&self) -> Option<u64> {
        self.asking.keys().filter_map(|n| self.state.node(*n).answer_by()).min()
    }
}
