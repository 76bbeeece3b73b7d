//! A playbook's text, and what becomes of it: spanned YAML, then the typed model.

pub mod duration;
pub mod inputs;
pub mod lower;
pub mod model;
pub mod values;
pub mod yaml;
