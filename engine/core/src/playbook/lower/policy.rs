//! How a step is run: timeouts, retries, and what is right after an interruption. The same keys stand in a step
//! and under `defaults`.

use super::Lower;
use super::fields::{Fields, Keys};
use crate::diagnostic::{Code, Diagnostic};
use crate::playbook::model::{Exhausted, Interrupt, Policy, Retry, RetryOn};
use crate::playbook::yaml::{Node, NodeValue};
use crate::span::Spanned;

const MAX_ATTEMPTS: i64 = 1_000_000;

impl Lower<'_> {
    pub(super) fn policy(&mut self, keys: &Fields<'_>) -> Policy {
        let interrupts = [("rerun", Interrupt::Rerun), ("ask", Interrupt::Ask)];
        Policy {
            timeout: keys.get("timeout").and_then(|n| self.positive_duration(n, "timeout")),
            deadline: keys.get("deadline").and_then(|n| self.positive_duration(n, "deadline")),
            idle_timeout: keys.get("idle_timeout").and_then(|n| self.positive_duration(n, "idle_timeout")),
            kill_grace: keys.get("kill_grace").and_then(|n| self.duration(n, "kill_grace")),
            retry: keys.get("retry").and_then(|n| self.retry(n)),
            on_interrupt: keys.get("on_interrupt").and_then(|n| self.one_of(n, "on_interrupt", &interrupts)),
            detach: keys.get("detach").and_then(|n| Some(Spanned::new(self.boolean(n, "detach")?, n.span))),
        }
    }

    /// A map, or a bare number of tries.
    fn retry(&mut self, node: &Node) -> Option<Retry> {
        const RETRY: Keys = Keys {
            of: "`retry`",
            known: &[
                "max_attempts",
                "initial_interval",
                "backoff_coefficient",
                "max_interval",
                "jitter",
                "retry_on",
                "on_exhausted",
            ],
            hints: &[
                ("attempts", "it is called `max_attempts`, the first try included"),
                ("count", "it is called `max_attempts`, the first try included"),
                ("retries", "it is called `max_attempts`, the first try included"),
                ("limit", "it is called `max_attempts`, the first try included"),
                ("delay", "it is called `initial_interval`"),
                ("interval", "it is called `initial_interval`"),
                ("backoff", "it is called `backoff_coefficient`; 1 keeps the interval the same"),
                ("max_delay", "it is called `max_interval`"),
            ],
        };
        if let NodeValue::Int(_) | NodeValue::UInt(_) = node.value {
            return Some(Retry { max_attempts: self.max_attempts(node, "retry")?, ..Retry::default() });
        }
        if node.as_map().is_none() {
            self.wrong_type(node, "`retry`", "a map or a number of tries");
            return None;
        }
        let keys = self.fields(node, &RETRY)?;
        let default = Retry::default();
        let initial = keys.get("initial_interval").and_then(|n| self.duration(n, "initial_interval"));
        let initial = initial.unwrap_or(default.initial_interval);
        let max = keys.get("max_interval").and_then(|n| {
            let max = self.duration(n, "max_interval")?;
            if max < initial {
                self.wrong_value(n.span, "`max_interval` is shorter than `initial_interval`", None);
                return None;
            }
            Some(max)
        });
        let exhausted = [("fail", Exhausted::Fail), ("hold", Exhausted::Hold)];
        let retry = Retry {
            max_attempts: keys.get("max_attempts").and_then(|n| self.max_attempts(n, "max_attempts")).unwrap_or(1),
            initial_interval: initial,
            backoff_coefficient: keys
                .get("backoff_coefficient")
                .and_then(|n| self.number(n, "backoff_coefficient", 1.0, 100.0))
                .unwrap_or(default.backoff_coefficient),
            max_interval: max.unwrap_or(default.max_interval.max(initial)),
            jitter: keys.get("jitter").and_then(|n| self.number(n, "jitter", 0.0, 1.0)).unwrap_or(default.jitter),
            retry_on: keys.get("retry_on").and_then(|n| self.retry_on(n)),
            on_exhausted: keys
                .get("on_exhausted")
                .and_then(|n| self.one_of(n, "on_exhausted", &exhausted))
                .unwrap_or(default.on_exhausted),
        };
        let others = ["initial_interval", "backoff_coefficient", "max_interval", "jitter", "retry_on"];
        if keys.get("max_attempts").is_none() && !keys.present(&others).is_empty() {
            let span = keys.first_key(self.text);
            let message = "`max_attempts` is missing in `retry`: without it there is one try only";
            let help = "write `max_attempts: 3` for three tries in all";
            self.report(Diagnostic::new(Code::MissingKey, message, span, "needs `max_attempts`").help(help));
        }
        Some(retry)
    }

    fn max_attempts(&mut self, node: &Node, name: &str) -> Option<u32> {
        if matches!(node.value, NodeValue::Int(i) if i < 1) {
            let help = "it counts all tries, the first included: 1 is no retry".to_owned();
            self.wrong_value(node.span, format!("`{name}` must be at least 1"), Some(help));
            return None;
        }
        self.whole(node, name, 1, MAX_ATTEMPTS).and_then(|n| u32::try_from(n).ok())
    }

    /// One condition, or a list of them.
    fn retry_on(&mut self, node: &Node) -> Option<Vec<RetryOn>> {
        let items = node.as_list().unwrap_or(std::slice::from_ref(node));
        if items.is_empty() {
            let help = "leave it out for the default; write `max_attempts: 1` for no retry".to_owned();
            self.wrong_value(node.span, "`retry_on` is empty", Some(help));
            return None;
        }
        let words = [("transient", RetryOn::Transient), ("timeout", RetryOn::Timeout), ("any", RetryOn::Any)];
        let conditions = items.iter().filter_map(|item| match &item.value {
            NodeValue::Int(_) => {
                self.whole(item, "retry_on", 1, 255).and_then(|c| i32::try_from(c).ok()).map(RetryOn::ExitCode)
            }
            NodeValue::Str(text, _) if text.parse::<i32>().is_ok() => {
                self.wrong_type(item, "an exit code under `retry_on`", "a whole number");
                None
            }
            NodeValue::Str(..) => self.one_of(item, "retry_on", &words),
            _ => {
                self.wrong_type(item, "`retry_on`", "transient, timeout, any or an exit code");
                None
            }
        });
        Some(conditions.collect())
    }
}
