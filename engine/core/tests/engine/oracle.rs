//! Judges the trace of a run from the description of its playbook alone. Slow and obvious on purpose: it keeps what
//! was seen of each step, and works everything else out anew whenever it is asked.

mod judge;
mod tree;

pub(crate) use judge::judge;
