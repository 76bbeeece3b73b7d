//! .
pub mod mask;
