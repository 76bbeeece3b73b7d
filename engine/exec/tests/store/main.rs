//! The store, from outside: its contract on disk and in memory, random histories, other processes, faults of the disk.

#![expect(clippy::unwrap_used, reason = "tests")]

mod contract;
mod faults;
mod files;
mod locks;
mod processes;
mod property;
mod support;
mod wal;

/// What the child processes of these tests do; they are this very binary, told their role by the environment.
#[test]
#[ignore = "a role for the tests that start it as a process of its own"]
fn child() {
    support::play_role();
}
