//! Directories on a target.

pub(crate) mod create;
