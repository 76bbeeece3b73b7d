//! A host that records everything a step says, and answers what it asks from a list.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use runback_core::Json;
use runback_core::progress::Progress;
use runback_core::step::{Answer, Host, Question, StepError};
use runback_core::target::{Detached, Stream, Target, Watch};
use tokio::sync::watch;

/// Records everything that a step says, and answers what it asks.
#[derive(Debug)]
pub(crate) struct TestHost {
    started: tokio::time::Instant,
    stop: watch::Sender<bool>,
    pub(crate) stdout: Mutex<Vec<u8>>,
    pub(crate) stderr: Mutex<Vec<u8>>,
    pub(crate) progress: Mutex<Vec<Progress>>,
    pub(crate) notes: Mutex<Vec<Json>>,
    pub(crate) questions: Mutex<Vec<Question>>,
    /// Given in this order; a question without one is refused with an error.
    pub(crate) answers: Mutex<VecDeque<Answer>>,
    pub(crate) detached: Mutex<Vec<Detached>>,
    /// What [`Host::target`] finds.
    pub(crate) targets: Mutex<BTreeMap<String, Arc<dyn Target>>>,
}

/// The clock's reading when a test begins: 2026-01-01T00:00:00Z in milliseconds.
pub(crate) const START_MS: u64 = 1_767_225_600_000;

impl Default for TestHost {
    fn default() -> Self {
        Self {
            started: tokio::time::Instant::now(),
            stop: watch::Sender::new(false),
            stdout: Mutex::default(),
            stderr: Mutex::default(),
            progress: Mutex::default(),
            notes: Mutex::default(),
            questions: Mutex::default(),
            answers: Mutex::default(),
            detached: Mutex::default(),
            targets: Mutex::default(),
        }
    }
}

impl TestHost {
    /// The attempt must stop, as by a cancel.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }

    pub(crate) fn answer(&self, answer: Answer) {
        self.answers.lock().unwrap().push_back(answer);
    }

    pub(crate) fn stdout_text(&self) -> String {
        String::from_utf8(self.stdout.lock().unwrap().clone()).unwrap()
    }

    pub(crate) fn stderr_text(&self) -> String {
        String::from_utf8(self.stderr.lock().unwrap().clone()).unwrap()
    }

    /// The texts of all progress notices.
    pub(crate) fn phases(&self) -> Vec<String> {
        let of = |p: &Progress| match p {
            Progress::Phase { text } | Progress::Percent { text, .. } => text.clone(),
        };
        self.progress.lock().unwrap().iter().map(of).collect()
    }
}

#[async_trait::async_trait]
impl Watch for TestHost {
    fn output(&self, stream: Stream, bytes: &[u8]) {
        let sink = match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        };
        sink.lock().unwrap().extend_from_slice(bytes);
    }

    async fn stopped(&self) {
        let mut stop = self.stop.subscribe();
        let _ = stop.wait_for(|stopped| *stopped).await;
    }

    fn kill_grace(&self) -> Duration {
        Duration::from_secs(10)
    }
}

#[async_trait::async_trait]
impl Host for TestHost {
    /// Follows tokio's clock, so a paused one moves it.
    fn now_ms(&self) -> u64 {
        START_MS + self.started.elapsed().as_millis() as u64
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    fn progress(&self, progress: Progress) {
        self.progress.lock().unwrap().push(progress);
    }

    async fn ask(&self, question: Question) -> Result<Answer, StepError> {
        self.questions.lock().unwrap().push(question);
        let answer = self.answers.lock().unwrap().pop_front();
        answer.ok_or_else(|| StepError::permanent("the test has no answer to this question"))
    }

    async fn note(&self, note: Json) -> Result<(), StepError> {
        self.notes.lock().unwrap().push(note);
        Ok(())
    }

    fn notes(&self) -> Vec<Json> {
        self.notes.lock().unwrap().clone()
    }

    async fn started_detached(&self, detached: &Detached) -> Result<(), StepError> {
        self.detached.lock().unwrap().push(detached.clone());
        Ok(())
    }

    async fn target(&self, name: &str) -> Result<Arc<dyn Target>, StepError> {
        let target = self.targets.lock().unwrap().get(name).cloned();
        target.ok_or_else(|| StepError::permanent(format!("unknown target `{name}`")))
    }
}
