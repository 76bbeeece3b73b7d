//! The table of exit codes, and nothing else that a process ends with.

use std::process::ExitCode;

use runback_core::state::RunStatus;

/// How the process ends. The numbers are a contract with cron jobs and pipelines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Succeeded = 0,
    /// Failed and held, or a test whose expectations were not met.
    Failed = 1,
    /// The command line or the playbook is wrong; nothing was started.
    Usage = 2,
    RolledBack = 3,
    Stuck = 4,
    Waiting = 5,
    /// A lock, or a run that somebody else has.
    Refused = 6,
    Cancelled = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

impl From<RunStatus> for Exit {
    fn from(status: RunStatus) -> Self {
        match status {
            RunStatus::Succeeded => Self::Succeeded,
            RunStatus::Failed => Self::Failed,
            RunStatus::RolledBack => Self::RolledBack,
            RunStatus::Stuck => Self::Stuck,
            RunStatus::Cancelled => Self::Cancelled,
            // A process that ends while its run lives leaves it to wait for somebody.
            RunStatus::Running | RunStatus::Waiting | RunStatus::RollingBack => Self::Waiting,
        }
    }
}
