//! The step types of runback: one file each, families in folders. Nothing here knows the executor.

#[cfg(test)]
mod testing;

use runback_core::step::Catalog;

/// Every step type that this build has. One line per type.
pub fn catalog() -> Catalog {
    #[expect(unused_mut, reason = "until the first type is added")]
    let mut all = Catalog::default();
    all
}
