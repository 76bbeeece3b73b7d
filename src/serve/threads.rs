//! The threads of those who look: requests, streams and what is kept for them run on a runtime of their own, behind the
//! runs. However many watch, the runs come first. Knows nothing of what is done on it.

use std::future::Future;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;

use super::log;

/// How far behind: at +10 a thread gets a tenth of a core that one thread of the runs wants too, and all of one that is
/// idle. Further back, requests would take seconds on a machine whose runs keep it busy.
const NICE: i32 = 10;

/// Ended without waiting when it is dropped: what is on it only looks.
pub(crate) struct Behind {
    handle: Handle,
    /// Until it is dropped.
    runtime: Option<Runtime>,
}

impl Behind {
    pub(crate) fn new() -> std::io::Result<Self> {
        let mut builder = Builder::new_multi_thread();
        let back = further_back();
        let start = move || step_back(back);
        let runtime = builder.enable_all().thread_name("runback-view").on_thread_start(start).build()?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }

    pub(crate) fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.handle.spawn(future)
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Linux has priorities by thread; elsewhere one call would put the runs back too.
#[cfg(target_os = "linux")]
fn step_back(to: i32) {
    // Priorities are inherited: nothing on these threads may start a process. Changes are made on the runs' threads.
    if let Err(error) = rustix::process::setpriority_process(None, to) {
        log::warn("requests are served at the priority of the runs", serde_json::json!({ "error": error.to_string() }));
    }
}

#[cfg(not(target_os = "linux"))]
fn step_back(_to: i32) {}

/// Counted from the thread that asks: those of the runtime start one another, and would step back further each time.
fn further_back() -> i32 {
    (rustix::process::getpriority_process(None).unwrap_or_default() + NICE).min(19)
}
