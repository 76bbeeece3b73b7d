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
        fn pick<T: Clone>(own: Option<&T>, default: Option<&T>) -> Option<T> {
            own.or(default).cloned()
        }
        let retry = pick(own.retry.as_ref(), defaults.retry.as_ref()).unwrap_or_default();
        let policy = StepPolicy {
            timeout: pick(own.timeout.as_ref(), defaults.timeout.as_ref()),
            deadline: pick(own.deadline.as_ref(), defaults.deadline.as_ref()),
            idle_timeout: pick(own.idle_timeout.as_ref(), defaults.idle_timeout.as_ref()),
            kill_grace: pick(own.kill_grace.as_ref(), defaults.kill_grace.as_ref()).unwrap_or(Duration::from_secs(10)),
            retry_any_exit: from_run && retry.retry_on.is_none(),
            retry,
            on_interrupt: pick(own.on_interrupt.as_ref(), defaults.on_interrupt.as_ref()),
            detach: pick(own.detach.as_ref(), defaults.detach.as_ref()).unwrap_or(detach),
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
