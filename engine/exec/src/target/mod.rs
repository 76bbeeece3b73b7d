//! The targets: where a step acts. What a target must do stands in `runback_core::target`.

pub mod local;

pub use local::LocalTarget;
