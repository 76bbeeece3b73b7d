//! The driver against a world in memory: what it waits for, what it is told, and the journal cut at every append.

#![expect(clippy::unwrap_used, reason = "tests")]

mod canary;
mod clock;
mod crash;
mod detached;
mod holding;
mod pure;
mod script;
mod sim;
mod store;
mod waiting;
mod wishes;
mod world;
