//! The run's clock: wall time at the start of the process, then monotone. A wall clock that jumps moves nothing.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Milliseconds since the epoch that never go back within a process, nor behind what a journal says.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    wall_ms: u64,
    since: Instant,
}

impl Clock {
    /// `not_before`: the time of the last event of the journal, in milliseconds since the epoch.
    pub fn start(not_before: u64) -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::at((wall.as_millis() as u64).max(not_before))
    }

    /// A clock that begins at a given time; for simulations.
    pub fn at(wall_ms: u64) -> Self {
        Self { wall_ms, since: Instant::now() }
    }

    pub fn now_ms(&self) -> u64 {
        self.wall_ms + self.since.elapsed().as_millis() as u64
    }

    /// How long until a time of this clock.
    pub fn until(&self, at_ms: u64) -> Duration {
        Duration::from_millis(at_ms.saturating_sub(self.now_ms()))
    }
}
