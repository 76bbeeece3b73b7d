//! The targets: where a step acts. What a target must do stands in `runback_core::target`.

pub mod local;
mod set;
pub mod ssh;

use std::sync::Arc;

use runback_core::target::{Target, TargetError};

pub use local::LocalTarget;
pub use set::TargetSet;
pub use ssh::SshTarget;

/// The targets of one run, by their name in the playbook.
pub trait Targets: Send + Sync {
    fn get(&self, name: &str) -> Result<Arc<dyn Target>, TargetError>;
}
