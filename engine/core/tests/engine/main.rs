//! Proof of the pure engine: tables over `apply` and `decide`, and random runs judged by an oracle that never looks at
//! either of them.
#![expect(clippy::unwrap_used, reason = "tests")]

mod bench;
mod catalog;
mod journal;
mod oracle;
mod outputs;
mod property;
mod scenarios;
mod sim;
mod spec;
mod table;
