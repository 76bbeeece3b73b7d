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
        if several && !self.allow_self && answer.by == starter {
            return Some("who started the run cannot approve it (`allow_self`)");
        }
        let user = answer.by.split('@').next().unwrap_or_default();
        if !self.approvers.is_empty() && !self.approvers.iter().any(|a| *a == answer.by || a == user) {
            return Some("is not among the approvers");
        }
        given.iter().any(|a| a.approved && a.by == answer.by).then_some("has approved already")
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
