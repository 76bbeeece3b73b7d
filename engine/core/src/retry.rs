//! Whether and when a failed attempt is tried again. Jitter comes from (run, step, attempt), so that a replay
//! computes the same.

use std::hash::Hasher;
use std::time::Duration;

use crate::plan::StepPolicy;
use crate::playbook::model::{Retry, RetryOn};
use crate::step::{Class, StepError};

/// What came before the next attempt.
#[derive(Debug, Clone, Copy)]
pub struct History<'a> {
    pub run: &'a str,
    pub step: &'a str,
    /// The attempt that just failed, from 1 since the step was last started anew.
    pub tries: u32,
    /// Since the first of these tries began.
    pub elapsed: Duration,
}

/// The delay before the next attempt; None = there is none.
pub fn next(policy: &StepPolicy, history: History<'_>, error: &StepError) -> Option<Duration> {
    let retry = &policy.retry;
    if history.tries >= retry.max_attempts || !is_worth_it(policy, error) {
        return None;
    }
    let delay = delay(retry, history);
    match policy.deadline {
        Some(deadline) if history.elapsed + delay >= deadline => None,
        _ => Some(delay),
    }
}

fn is_worth_it(policy: &StepPolicy, error: &StepError) -> bool {
    if error.class == Class::Cancelled {
        return false;
    }
    match &policy.retry.retry_on {
        Some(on) => on.iter().any(|on| match on {
            RetryOn::Transient => error.class == Class::Transient,
            RetryOn::Timeout => error.class == Class::Timeout,
            RetryOn::ExitCode(code) => error.exit_code == Some(*code),
            RetryOn::Any => true,
        }),
        None => {
            matches!(error.class, Class::Transient | Class::Timeout)
                || (policy.retry_any_exit && error.exit_code.is_some())
        }
    }
}

fn delay(retry: &Retry, history: History<'_>) -> Duration {
    let exponent = i32::try_from(history.tries - 1).unwrap_or(i32::MAX);
    let base = retry.initial_interval.as_secs_f64() * retry.backoff_coefficient.powi(exponent);
    let capped = base.min(retry.max_interval.as_secs_f64().max(retry.initial_interval.as_secs_f64()));
    // -1 to 1.
    let swing = f64::from(spread(history)) / f64::from(u32::MAX) * 2.0 - 1.0;
    Duration::try_from_secs_f64(capped * (1.0 + swing * retry.jitter)).unwrap_or(retry.max_interval)
}

/// FNV-1a, written out so that it never changes with the standard library.
struct Fnv(u64);

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

fn spread(history: History<'_>) -> u32 {
    let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
    hash.write(history.run.as_bytes());
    hash.write(&[0]);
    hash.write(history.step.as_bytes());
    hash.write(&history.tries.to_le_bytes());
    (hash.finish() >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(tries: u32) -> History<'static> {
        History { run: "r", step: "s", tries, elapsed: Duration::ZERO }
    }

    fn policy(max_attempts: u32, jitter: f64) -> StepPolicy {
        StepPolicy { retry: Retry { max_attempts, jitter, ..Retry::default() }, ..StepPolicy::default() }
    }

    #[test]
    fn backs_off_to_the_maximum_and_ends() {
        let policy = policy(9, 0.0);
        let seconds: Vec<_> =
            (1..=9).map(|n| next(&policy, history(n), &StepError::transient("x")).map(|d| d.as_secs())).collect();
        let want = [1, 2, 4, 8, 16, 32, 60, 60].map(Some);
        assert_eq!(seconds[..8], want);
        assert_eq!(seconds[8], None);
    }

    #[test]
    fn jitter_stays_in_its_share_and_is_the_same_twice() {
        let policy = policy(5, 0.1);
        for tries in 1..5 {
            let base = f64::from(1 << (tries - 1));
            let delay = next(&policy, history(tries), &StepError::transient("x")).expect("a retry").as_secs_f64();
            assert!((base * 0.9..=base * 1.1).contains(&delay), "{delay}");
            assert_eq!(Some(delay), next(&policy, history(tries), &StepError::transient("x")).map(|d| d.as_secs_f64()));
        }
    }

    #[test]
    fn only_what_is_worth_it() {
        let mut policy = policy(5, 0.0);
        let exit = |code| StepError { exit_code: Some(code), ..StepError::permanent("x") };
        assert!(next(&policy, history(1), &exit(3)).is_none());
        policy.retry_any_exit = true;
        assert!(next(&policy, history(1), &exit(3)).is_some());
        policy.retry.retry_on = Some(vec![RetryOn::ExitCode(4)]);
        assert!(next(&policy, history(1), &exit(3)).is_none());
        assert!(next(&policy, history(1), &exit(4)).is_some());
        policy.retry.retry_on = Some(vec![RetryOn::Any]);
        assert!(next(&policy, history(1), &StepError::new(Class::Cancelled, "x")).is_none());
    }

    #[test]
    fn a_deadline_bounds_all_attempts() {
        let mut policy = policy(5, 0.0);
        policy.deadline = Some(Duration::from_secs(10));
        let at = |secs| History { elapsed: Duration::from_secs(secs), ..history(1) };
        assert!(next(&policy, at(8), &StepError::transient("x")).is_some());
        assert!(next(&policy, at(9), &StepError::transient("x")).is_none());
    }
}
