//! End-to-end tests of the binary, in one test binary: each file beside this one is a module of it.

mod canary;
mod cli;
mod diagnostics;
mod fuzz;
mod hard_steps;
mod kill;
mod playbooks;
mod reference;
#[cfg(feature = "serve")]
mod serve;
mod tidy;
