//! Files and links on a target: writing, changing and removing them, each with its way back.

pub(crate) mod attributes;
pub(crate) mod before;
pub(crate) mod copy;
pub(crate) mod diff;
pub(crate) mod edit;
pub(crate) mod edited;
pub(crate) mod fetch;
pub(crate) mod line;
pub(crate) mod link;
mod local;
pub(crate) mod merge;
pub(crate) mod mode;
pub(crate) mod parents;
pub(crate) mod paths;
mod placed;
pub(crate) mod put;
pub(crate) mod remove;
pub(crate) mod template;
pub(crate) mod text;
mod told;
mod turn;
pub(crate) mod unpack;
pub(crate) mod write;

pub(crate) use attributes::{Mode, Ownership};

/// As lower-case hex.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    use std::fmt::Write as _;
    sha2::Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
