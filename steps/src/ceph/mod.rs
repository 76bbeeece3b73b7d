//! The Ceph cluster itself. Everything goes through `ceph` on the step's target.

pub(crate) mod address;
pub(crate) mod blocklist;
pub(crate) mod osd_map;
