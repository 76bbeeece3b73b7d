//! The driver against a world in memory: the journal is cut at every append, and another process takes the run up.

#![expect(clippy::unwrap_used, reason = "tests")]

mod crash;
mod world;
