//! The effects of runback: the driver, the journal store, processes, targets, the clock. Knows no step type.

pub mod clock;
pub mod driver;
pub mod lease;
pub mod mask;
pub mod output;
pub mod process;
pub mod reporter;
pub mod secrets;
pub mod store;
pub mod target;
