//! RADOS block devices: looking at images, breaking dead locks, snapshots. Everything goes through `rbd` on the step's
//! target.

pub(crate) mod cli;
pub(crate) mod errors;
pub(crate) mod info;
pub(crate) mod lock_check;
pub(crate) mod lock_rm;
pub(crate) mod look;
pub(crate) mod map_check;
#[cfg(test)]
pub(crate) mod recorded;
pub(crate) mod snap;
pub(crate) mod snap_create;
pub(crate) mod snap_protect;
pub(crate) mod snap_remove;
pub(crate) mod snap_rollback;
#[cfg(test)]
mod snap_tests;
