//! Virtual machines under libvirt: converting them (`virt-v2v`), defining, running and wiring them. Everything goes
//! through `virsh`, `virt-v2v` and their like on the step's target.

pub(crate) mod autostart;
pub(crate) mod define;
pub(crate) mod destroy;
pub(crate) mod domain;
pub(crate) mod errors;
pub(crate) mod host_check;
pub(crate) mod install;
pub(crate) mod net;
mod pausing;
pub(crate) mod pool;
pub(crate) mod reboot;
pub(crate) mod resume;
pub(crate) mod shutdown;
pub(crate) mod snapshot;
pub(crate) mod start;
pub(crate) mod suspend;
pub(crate) mod undefine;
pub(crate) mod v2v;
pub(crate) mod virsh;
pub(crate) mod wait;
pub(crate) mod xml;
