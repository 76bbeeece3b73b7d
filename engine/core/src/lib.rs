//! The pure half of runback: the language, its checks, the plan, the state of a run, the decisions of
//! the scheduler, and the contracts that step types and targets fulfil.
//!
//! Nothing here reads a file, the environment, a clock or a random source, and nothing prints.

pub mod check;
pub mod cut;
pub mod decide;
pub mod diagnostic;
pub mod event;
pub mod expr;
pub mod instance;
pub mod plan;
pub mod playbook;
pub mod progress;
pub mod retry;
pub mod schedule;
pub mod scope;
pub mod span;
pub mod state;
pub mod step;
pub mod suggest;
pub mod target;
pub mod template;

/// The JSON value that inputs, outputs and contexts are made of.
pub type Json = serde_json::Value;
