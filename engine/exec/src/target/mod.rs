//! The targets: where a step acts. What a target must do stands in `runback_core::target`.

pub mod local;
pub mod ssh;

pub use local::LocalTarget;
pub use ssh::SshTarget;
