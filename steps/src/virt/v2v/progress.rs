//! What virt-v2v says while it runs, made into progress: phases from its JSON lines, percent from the bar that it redraws
//! with carriage returns. The lines that only machines read do not reach the log. Runs no command.
//!
//! As virt-v2v 2.2.0 writes with `--machine-readable=stream:stdout`. The two streams may come as one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use runback_core::Json;
use runback_core::progress::Progress;
use runback_core::step::{Answer, Host, Question, StepError};
use runback_core::target::{Detached, Stream, Target, Watch};

use super::checks::size;
use crate::period::Period;

/// A longer line is cut: a bar without an end must not fill the memory.
const MAX_LINE: usize = 16 << 10;

/// What was learned.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Learned {
    pub(crate) warnings: Vec<String>,
    pub(crate) errors: Vec<String>,
    /// The disk that is being copied, from 1, and of how many.
    pub(crate) disk: Option<(usize, usize)>,
    /// The target ran full.
    pub(crate) full: bool,
    /// At this offset, where it was told.
    pub(crate) full_at: Option<u64>,
    /// By the clock of the target: milliseconds since the epoch of the first and the last message.
    first_ms: Option<u64>,
    last_ms: Option<u64>,
    copy_began_ms: Option<u64>,
    percent: Option<u8>,
}

impl Learned {
    pub(crate) fn seconds(&self) -> u64 {
        self.last_ms.zip(self.first_ms).map_or(0, |(last, first)| last.saturating_sub(first) / 1000)
    }
}

/// Something to show or to log.
#[derive(Debug, Clone, PartialEq)]
enum Say {
    Log(String),
    Show(Progress),
}

/// Stands before the attempt's own host, and reads along.
pub(crate) struct Reader<'a> {
    inner: &'a dyn Host,
    sizes: Vec<u64>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    learned: Learned,
    /// Beginnings of lines, one for each stream.
    rest: [Vec<u8>; 2],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(inner: &'a dyn Host, sizes: Vec<u64>) -> Self {
        Self { inner, sizes, state: Mutex::default() }
    }

    pub(crate) fn learned(&self) -> Learned {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for at in 0..2 {
            let rest = std::mem::take(&mut state.rest[at]);
            // What stands without an end of line is mostly an error of something that died.
            state.learned.line(&String::from_utf8_lossy(&rest), self.inner.now_ms(), &self.sizes);
        }
        state.learned.clone()
    }
}

impl Learned {
    fn line(&mut self, line: &str, now_ms: u64, sizes: &[u64]) -> Vec<Say> {
        // A bar may stand before it on the same line.
        if let Some(at) = line.find("{ \"message\":")
            && let Ok(message) = serde_json::from_str::<Json>(line[at..].trim_end())
        {
            let mut said = self.bar(&line[..at], now_ms, sizes).unwrap_or_default();
            said.extend(self.message(&message));
            return said;
        }
        if let Some(said) = self.bar(line, now_ms, sizes) {
            return said;
        }
        if line.contains("No space left on device") {
            let offset = line.split("offset ").nth(1).and_then(|t| t.split_whitespace().next()?.parse().ok());
            self.full = true;
            self.full_at = self.full_at.or(offset);
        }
        if line.trim().is_empty() { Vec::new() } else { vec![Say::Log(format!("{}\n", line.trim_end()))] }
    }

    fn message(&mut self, message: &Json) -> Vec<Say> {
        let text = message["message"].as_str().unwrap_or_default();
        let at = message["timestamp"].as_str().and_then(|t| t.parse::<jiff::Timestamp>().ok());
        if let Some(ms) = at.and_then(|at| u64::try_from(at.as_millisecond()).ok()) {
            self.first_ms.get_or_insert(ms);
            self.last_ms = Some(ms);
        }
        match message["type"].as_str() {
            Some("warning") => self.warnings.push(text.to_owned()),
            Some("error") => self.errors.push(text.to_owned()),
            Some("message") => {
                if let Some((disk, of)) = text.strip_prefix("Copying disk ").and_then(|t| t.split_once('/'))
                    && let (Ok(disk), Ok(of)) = (disk.parse(), of.parse())
                {
                    self.disk = Some((disk, of));
                    (self.copy_began_ms, self.percent) = (self.last_ms, None);
                }
                return vec![Say::Show(Progress::Phase { text: text.to_owned() })];
            }
            _ => {}
        }
        Vec::new()
    }

    /// `▗  28% [****----]`. None = it is no bar.
    fn bar(&mut self, line: &str, now_ms: u64, sizes: &[u64]) -> Option<Vec<Say>> {
        let (before, after) = line.split_once('%')?;
        if !after.trim_start().starts_with('[') {
            return None;
        }
        let percent: u8 = before.split_whitespace().next_back()?.parse().ok().filter(|p| *p <= 100)?;
        let (disk, of) = self.disk?;
        if self.percent == Some(percent) {
            return Some(Vec::new());
        }
        self.percent = Some(percent);
        let mut text = format!("copying disk {disk}/{of}");
        let elapsed = now_ms.saturating_sub(self.copy_began_ms.unwrap_or(now_ms));
        if elapsed >= 1000 && percent > 0 {
            if let Some(whole) = sizes.get(disk - 1) {
                let copied = whole / 100 * u64::from(percent);
                text.push_str(&format!(", {}/s", size(copied.saturating_mul(1000) / elapsed)));
            }
            let left = elapsed / u64::from(percent) * u64::from(100 - percent);
            if left >= 1000 {
                text.push_str(&format!(", {} left", Period(Duration::from_secs(left / 1000))));
            }
        }
        // The log has one line for each percent: an `idle_timeout` is fed by it.
        let line = format!("copying disk {disk}/{of}: {percent}%\n");
        Some(vec![Say::Show(Progress::Percent { percent: f32::from(percent), text }), Say::Log(line)])
    }
}

#[async_trait::async_trait]
impl Watch for Reader<'_> {
    fn output(&self, stream: Stream, bytes: &[u8]) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let which = usize::from(stream == Stream::Stderr);
        let mut rest = std::mem::take(&mut state.rest[which]);
        rest.extend_from_slice(bytes);
        let mut from = 0;
        while let Some(at) = rest[from..].iter().position(|b| matches!(b, b'\n' | b'\r')) {
            let line = String::from_utf8_lossy(&rest[from..from + at]).into_owned();
            from += at + 1;
            for said in state.learned.line(&line, self.inner.now_ms(), &self.sizes) {
                match said {
                    Say::Log(line) => self.inner.output(stream, line.as_bytes()),
                    Say::Show(progress) => self.inner.progress(progress),
                }
            }
        }
        rest.drain(..from);
        rest.truncate(MAX_LINE);
        state.rest[which] = rest;
    }

    async fn stopped(&self) {
        self.inner.stopped().await;
    }

    fn kill_grace(&self) -> Duration {
        self.inner.kill_grace()
    }
}

#[async_trait::async_trait]
impl Host for Reader<'_> {
    fn now_ms(&self) -> u64 {
        self.inner.now_ms()
    }

    async fn sleep(&self, duration: Duration) {
        self.inner.sleep(duration).await;
    }

    fn progress(&self, progress: Progress) {
        self.inner.progress(progress);
    }

    async fn ask(&self, question: Question) -> Result<Answer, StepError> {
        self.inner.ask(question).await
    }

    async fn note(&self, note: Json) -> Result<(), StepError> {
        self.inner.note(note).await
    }

    fn notes(&self) -> Vec<Json> {
        self.inner.notes()
    }

    async fn started_detached(&self, detached: &Detached) -> Result<(), StepError> {
        self.inner.started_detached(detached).await
    }

    async fn target(&self, name: &str) -> Result<Arc<dyn Target>, StepError> {
        self.inner.target(name).await
    }
}

#[cfg(test)]
#[path = "progress_tests.rs"]
mod tests;
