//! The step types of runback: one file each, families in folders. Nothing here knows the executor.

mod command_outputs;
mod exec;
mod file;
mod shell;
#[cfg(test)]
mod testing;
mod value_path;

use runback_core::step::Catalog;

/// Every step type that this build has. One line per type.
pub fn catalog() -> Catalog {
    let mut all = Catalog::default();
    all.add(exec::Exec);
    all.add(file::copy::FileCopy);
    all.add(file::line::Line);
    all.add(file::template::Template);
    all.add(file::write::Write);
    all.add(shell::Shell);
    all
}
