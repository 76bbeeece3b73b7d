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
    /// Names of people, or roles that the server knows them by. Empty = everyone who may approve.
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
        let named = |a: &String| *a == answer.by || *a == user || answer.roles.contains(a);
        if !self.approvers.is_empty() && !self.approvers.iter().any(named) {
            return Some("is not among the approvers");
        }
        given.iter().any(|a| a.approved && person(&a.by) == user).then_some("has approved already")
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Answer {
    pub approved: bool,
    /// Who, and from where: name@host or name@address.
    pub by: String,
    /// What the server let them in as. Who answers on the machine itself is a user of it, and has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
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
        Answer { approved: true, by: by.to_owned(), roles: Vec::new(), reason: None, fields: Json::Null }
    }

    fn question(approvers: &[&str]) -> Question {
        Question {
            prompt: String::new(),
            form: Json::Null,
            approvers: approvers.iter().map(|&a| a.to_owned()).collect(),
            min_approvals: 2,
            allow_self: false,
            timeout_ms: None,
            approve_on_timeout: false,
        }
    }

    /// Found when the server began to say where somebody comes from: another address was another approver.
    #[test]
    fn one_person_is_one_approver_wherever_they_come_from() {
        let question = question(&[]);
        let refused = |by: &str| question.refuses(&yes(by), "ann@10.0.0.1", &[yes("bob@10.0.0.1")]);
        assert_eq!(refused("cid@10.0.0.1"), None);
        assert!(refused("bob@10.0.0.2").is_some_and(|why| why.contains("already")));
        assert!(refused("ann@desk").is_some_and(|why| why.contains("started the run")));
        let named = Question { approvers: vec!["bob".to_owned(), "cid@desk".to_owned()], ..question };
        let refused = |by: &str| named.refuses(&yes(by), "ann@desk", &[]);
        assert_eq!((refused("bob@anywhere"), refused("cid@desk")), (None, None));
        assert!(refused("cid@elsewhere").is_some() && refused("dan@desk").is_some());
    }

    #[test]
    fn a_role_that_is_listed_counts_and_another_does_not() {
        let question = question(&["oncall", "approver"]);
        let with = |by: &str, roles: &[&str]| {
            let roles = roles.iter().map(|&r| r.to_owned()).collect();
            question.refuses(&Answer { roles, ..yes(by) }, "ann@10.0.0.1", &[yes("oncall@desk")])
        };
        assert_eq!(with("bob@10.0.0.2", &["approver"]), None);
        assert_eq!(with("bob@10.0.0.2", &["viewer", "approver"]), None);
        // Another role, none at all (the command line), and a name that is only like it.
        for (by, roles) in [("bob@10.0.0.2", &["operator"][..]), ("bob@desk", &[]), ("approvers@desk", &[])] {
            assert_eq!(with(by, roles), Some("is not among the approvers"), "{by} {roles:?}");
        }
        // A role makes nobody a second person, nor somebody else than who started the run.
        assert_eq!(with("oncall@10.0.0.3", &["approver"]), Some("has approved already"));
        assert!(with("ann@10.0.0.3", &["approver"]).is_some_and(|why| why.contains("allow_self")));
        let allowed = Question { allow_self: true, ..question.clone() };
        let answer = Answer { roles: vec!["approver".to_owned()], ..yes("ann@10.0.0.3") };
        assert_eq!(allowed.refuses(&answer, "ann@10.0.0.1", &[]), None);
    }
}
