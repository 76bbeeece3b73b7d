//! The virt step types through the binary, against real libvirt and real virt-v2v. Most tests use libvirt's own test
//! driver (virsh and its errors are real, the guests are not) and a stand-in `virt-v2v` that says what the real one was
//! recorded to say; a few convert and boot a real guest. Where that cannot be had, each test says that it is skipped,
//! and in CI it fails.

#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "real_virt/convert.rs"]
mod convert;
#[path = "real_virt/domains.rs"]
mod domains;
#[path = "real_virt/fleet.rs"]
mod fleet;
#[path = "real_virt/guests.rs"]
mod guests;
#[path = "real_virt/host.rs"]
mod host;
#[path = "real_virt/lab.rs"]
mod lab;
#[path = "real_virt/whole.rs"]
mod whole;
