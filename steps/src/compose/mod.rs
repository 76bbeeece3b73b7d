//! Compose projects: brought up and down, checked, and taken back to the containers that were there before. Both
//! generations of the tool: `docker compose` where it is there, else `docker-compose`.

pub(crate) mod check;
mod cli;
pub(crate) mod down;
mod keep;
mod project;
pub(crate) mod pull;
pub(crate) mod restart;
mod settle;
mod take_back;
pub(crate) mod up;
