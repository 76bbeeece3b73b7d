//! Docker through its command line: images, containers, registries. Compose projects are in `compose`.

pub(crate) mod api;
pub(crate) mod build;
pub(crate) mod cli;
pub(crate) mod container;
pub(crate) mod errors;
pub(crate) mod image_check;
pub(crate) mod images;
pub(crate) mod login;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod run;
pub(crate) mod stop;
pub(crate) mod tag;
#[cfg(test)]
mod tests;
