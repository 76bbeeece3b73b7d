//! End-to-end tests of the binary, in one test binary: each file beside this one is a module of it.

mod cli;
mod diagnostics;
mod fuzz;
mod kill;
mod playbooks;
mod tidy;
