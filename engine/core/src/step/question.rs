//! A question of a step to a person, and which answers count. Knows no step type and no run.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Json;

/// A question to a person, from a step that cannot go on without an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Question {
    pub prompt: String,
    /// Fields to fill in: name → { type, description, default, … } as under a playbook's `inputs`.
    #[serde(default, skip_serializing_if = "Json::is_null")]
    pub form: Json,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvers: Vec<String>,
    #[serde(default = "one")]
    pub min_approvals: u32,
    #[serde(default)]
    pub allow_self: bool,
    /// In milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// What an unanswered question counts as when its time is over.
    #[serde(default)]
    pub approve_on_timeout: bool,
}

fn one() -> u32 {
    1
}

impl Question {
    /// Why an answer does not count, if it does not. `starter` is who started the run, `given` the answers so far.
    pub fn refuses(&self, answer: &Answer, starter: &str, given: &[Answer]) -> Option<&'static str> {
        if !answer.approved || answer.by == crate::decide::RUNBACK {
            return None;
        }
        let several = self.min_approvals > 1 || !self.approvers.is_empty();
        // Where somebody comes from does not make them somebody else.
        let person = |by: &'_ str| by.split('@').next().unwrap_or_default().to_owned();
        let user = person(&answer.by);
        if several && !self.allow_self && user == person(starter) {
            return Some("who started the run cannot approve it (`allow_self`)");
        }
        if !self.approvers.is_empty() && !self.approvers.iter().any(|a| *a == answer.by || *a == user) {
            return Some("is not among the approvers");
        }
        given.iter().any(|a| a.approved && person(&a.by) == user).then_some("has approved already")
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Answer {
    pub approved: bool,
    pub by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The form's fields.
    #[serde(default, skip_serializing_if = "Json::is_null")]
    pub fields: Json,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn yes(by: &str) -> Answer {
        Answer { approved: true, by: by.to_owned(), reason: None, fields: Json::Null }
    }

    /// Found when the server began to say where somebody comes from: another address was another approver.
    #[test]
    fn one_person_is_one_approver_wherever_they_come_from() {
        let question = Question {
            prompt: String::new(),
            form: Json::Null,
            approvers: Vec::new(),
            min_approvals: 2,
            allow_self: false,
            timeout_ms: None,
            approve_on_timeout: false,
        };
        let refused = |by: &str| question.refuses(&yes(by), "ann@10.0.0.1", &[yes("bob@10.0.0.1")]);
        assert_eq!(refused("cid@10.0.0.1"), None);
        assert!(refused("bob@10.0.0.2").is_some_and(|why| why.contains("already")));
        assert!(refused("ann@desk").is_some_and(|why| why.contains("started the run")));
        let named = Question { approvers: vec!["bob".to_owned(), "cid@desk".to_owned()], ..question };
        let refused = |by: &str| named.refuses(&yes(by), "ann@desk", &[]);
        assert_eq!((refused("bob@anywhere"), refused("cid@desk")), (None, None));
        assert!(refused("cid@elsewhere").is_some() && refused("dan@desk").is_some());
    }
}
