//! How a step is run: its own keys over the playbook's defaults over what its step type wants.

use std::sync::Arc;
use std::time::Duration;

use crate::plan::StepPolicy;
use crate::playbook::model::Policy;

/// Makes policies, and gives the same one to steps that are run alike.
#[derive(Debug, Default)]
pub(super) struct Policies {
    made: Vec<Arc<StepPolicy>>,
}

const REMEMBERED: usize = 16;

impl Policies {
    pub(super) fn of(&mut self, own: &Policy, defaults: &Policy, detach: bool, from_run: bool) -> Arc<StepPolicy> {
        let said = own.over(defaults);
        let retry = said.retry.unwrap_or_default();
        let policy = StepPolicy {
            timeout: said.timeout,
            deadline: said.deadline,
            idle_timeout: said.idle_timeout,
            kill_grace: said.kill_grace.unwrap_or(Duration::from_secs(10)),
            retry_any_exit: from_run && retry.retry_on.is_none(),
            retry,
            on_interrupt: said.on_interrupt,
            detach: said.detach.map_or(detach, |d| d.value),
        };
        if let Some(same) = self.made.iter().find(|p| ***p == policy) {
            return Arc::clone(same);
        }
        let policy = Arc::new(policy);
        if self.made.len() < REMEMBERED {
            self.made.push(Arc::clone(&policy));
        }
        policy
    }
}
