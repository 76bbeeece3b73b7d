//! Stretches of a run's journal in the form in which watchers get them. Each is made once and shared by all who want it:
//! what a watcher is given is a part of it, never a copy. Knows nothing of who watches.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes;
use runback_core::event::Event;
use tokio::sync::OnceCell;

/// Events that are read from the journal at once.
pub(super) const CHUNK: usize = 256;
/// Bytes of one piece, unless one event is larger: what a watcher that stands still keeps from being freed.
const PIECE_BYTES: usize = 64 << 10;
/// Bytes of older events that are kept for all watchers of all runs.
const OLDER_BYTES: usize = 16 << 20;

/// Events without a gap, one after the other as server-sent events.
#[derive(Debug)]
pub(super) struct Piece {
    first: u64,
    /// Where each event begins.
    starts: Vec<usize>,
    bytes: Bytes,
}

impl Piece {
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    fn last(&self) -> u64 {
        self.first + self.starts.len() as u64 - 1
    }

    /// What it has after `after`, and the number of its last event.
    fn after(&self, after: u64) -> Option<(u64, Bytes)> {
        let skip = usize::try_from((after + 1).checked_sub(self.first)?).ok()?;
        Some((self.last(), self.bytes.slice(self.starts.get(skip)?..)))
    }
}

/// The next of a row of pieces without gaps, for who has all up to `after`.
pub(super) fn next<'a>(pieces: impl Iterator<Item = &'a Piece>, after: u64) -> Option<(u64, Bytes)> {
    pieces.skip_while(|piece| piece.last() <= after).find_map(|piece| piece.after(after))
}

/// Events that follow one another.
pub(super) fn cut(run: &str, events: &[Event]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let (mut text, mut starts, mut first) = (String::new(), Vec::new(), 0);
    for event in events {
        if starts.is_empty() {
            first = event.seq;
        }
        starts.push(text.len());
        text.push_str(&frame(run, event));
        if text.len() >= PIECE_BYTES {
            let bytes = std::mem::take(&mut text).into();
            pieces.push(Piece { first, starts: std::mem::take(&mut starts), bytes });
        }
    }
    if !starts.is_empty() {
        pieces.push(Piece { first, starts, bytes: text.into() });
    }
    pieces
}

/// One server-sent event. `id` is the number to go on from.
fn frame(run: &str, event: &Event) -> String {
    let mut json = serde_json::to_value(event).unwrap_or_default();
    json["run"] = run.into();
    format!("id: {}\ndata: {json}\n\n", event.seq)
}

/// A chunk that is being read, or was.
type Chunk = Arc<OnceCell<Vec<Piece>>>;

/// Older events that somebody asked for lately. However many come late to a run, each chunk of its journal is read once:
/// who wants one that is being read waits for the same reading.
#[derive(Default)]
pub(super) struct Older {
    /// By run and number of the chunk; the last to be asked for stands last.
    chunks: Mutex<VecDeque<((String, u64), Chunk)>>,
}

impl Older {
    /// What the journal has after `after`, as far as one piece of it goes. `read` gives at most [`CHUNK`] events after a
    /// number.
    pub(super) async fn after<F, E>(
        &self,
        run: &str,
        after: u64,
        read: impl Fn(u64) -> F,
    ) -> Result<Option<(u64, Bytes)>, E>
    where
        F: Future<Output = Result<Vec<Event>, E>>,
    {
        let number = after / CHUNK as u64;
        loop {
            let (chunk, fresh) = self.chunk(run, number);
            let pieces = || async { Ok(cut(run, &read(number * CHUNK as u64).await?)) };
            let pieces = match chunk.get_or_try_init(pieces).await {
                Ok(pieces) => pieces,
                Err(error) => {
                    self.forget(run);
                    return Err(error);
                }
            };
            let found = next(pieces.iter(), after);
            if fresh {
                self.trim();
            }
            if found.is_some() || fresh {
                return Ok(found);
            }
            // The journal has got longer since it was read.
            self.chunks().retain(|(_, kept)| !Arc::ptr_eq(kept, &chunk));
        }
    }

    /// Nothing waits or panics while it is held.
    fn chunks(&self) -> std::sync::MutexGuard<'_, VecDeque<((String, u64), Chunk)>> {
        self.chunks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The place of a chunk, and whether it is new.
    fn chunk(&self, run: &str, number: u64) -> (Chunk, bool) {
        let mut chunks = self.chunks();
        let at = chunks.iter().position(|((of, n), _)| *n == number && of == run);
        let found = at.and_then(|at| chunks.remove(at));
        let fresh = found.is_none();
        let entry = found.unwrap_or_else(|| ((run.to_owned(), number), Chunk::default()));
        let chunk = Arc::clone(&entry.1);
        chunks.push_back(entry);
        (chunk, fresh)
    }

    /// Keeps the newest, as far as there is room.
    fn trim(&self) {
        let size = |chunk: &Chunk| -> usize { chunk.get().map_or(0, |pieces| pieces.iter().map(Piece::len).sum()) };
        let mut chunks = self.chunks();
        let mut kept = 0;
        let fit = chunks.iter().rev().take_while(|(_, chunk)| {
            kept += size(chunk);
            kept <= OLDER_BYTES
        });
        let gone = chunks.len() - fit.count();
        chunks.drain(..gone);
    }

    /// The run is gone, or nobody knows any more whether it is the same one.
    pub(super) fn forget(&self, run: &str) {
        self.chunks().retain(|((of, _), _)| of != run);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use runback_core::event::EventBody;

    use super::*;

    /// A journal of so many events, and how often it was read.
    struct Journal {
        events: AtomicUsize,
        size: usize,
        reads: AtomicUsize,
    }

    impl Journal {
        fn new(events: usize, size: usize) -> Self {
            Self { events: AtomicUsize::new(events), size, reads: AtomicUsize::default() }
        }

        async fn read(&self, after: u64) -> Result<Vec<Event>, Infallible> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            // Whoever else wants it comes meanwhile.
            tokio::task::yield_now().await;
            let event = |seq| Event { seq, at: seq, body: EventBody::HoldRequested { by: "x".repeat(self.size) } };
            let last = self.events.load(Ordering::Relaxed) as u64;
            Ok((after + 1..=last).take(CHUNK).map(event).collect())
        }

        /// Reads on from `after` to the end, as a watcher does; the numbers that it was given.
        async fn walk(&self, older: &Older, mut after: u64) -> Vec<u64> {
            let mut ids = Vec::new();
            while let Some((last, bytes)) = older.after("r", after, |from| self.read(from)).await.unwrap() {
                assert!(bytes.len() < PIECE_BYTES + self.size + 200, "a piece of {}", bytes.len());
                let text = String::from_utf8(bytes.to_vec()).unwrap();
                let found = text.lines().filter_map(|l| l.strip_prefix("id: ")).map(|id| id.parse::<u64>().unwrap());
                ids.extend(found);
                assert_eq!(ids.last(), Some(&last));
                after = last;
            }
            ids
        }
    }

    #[tokio::test]
    async fn each_chunk_is_read_once_however_many_come_late() {
        let (journal, older) = (Journal::new(1000, 300), Older::default());
        let walks = (0..100).map(|n| journal.walk(&older, n * 7));
        for (n, ids) in futures_util::future::join_all(walks).await.into_iter().enumerate() {
            assert_eq!(ids, (n as u64 * 7 + 1..=1000).collect::<Vec<_>>());
        }
        // Four chunks; the last is not full, and is read again by each who is at its end.
        assert!(journal.reads.load(Ordering::Relaxed) <= 4 + 100, "{:?}", journal.reads);
        let before = journal.reads.load(Ordering::Relaxed);
        let (_, first) = older.after("r", 0, |from| journal.read(from)).await.unwrap().unwrap();
        let (_, again) = older.after("r", 0, |from| journal.read(from)).await.unwrap().unwrap();
        assert_eq!(first.as_ptr(), again.as_ptr(), "shared, not copied");
        assert_eq!(journal.reads.load(Ordering::Relaxed), before);
    }

    #[tokio::test]
    async fn what_a_journal_gets_later_is_found_and_another_run_of_the_name_is_not_mixed_up() {
        let (journal, older) = (Journal::new(10, 1), Older::default());
        assert_eq!(journal.walk(&older, 0).await.len(), 10);
        journal.events.store(300, Ordering::Relaxed);
        assert_eq!(journal.walk(&older, 10).await, (11..=300).collect::<Vec<_>>());
        older.forget("r");
        let other = Journal::new(3, 1);
        assert_eq!(other.walk(&older, 0).await, [1, 2, 3]);
    }

    #[tokio::test]
    async fn what_is_kept_is_bounded() {
        let (journal, older) = (Journal::new(4 * CHUNK, 60_000), Older::default());
        assert_eq!(journal.walk(&older, 0).await.len(), 4 * CHUNK);
        let kept: usize = older.chunks().iter().filter_map(|(_, c)| c.get()).flatten().map(Piece::len).sum();
        assert!(kept <= OLDER_BYTES && kept > 0, "{kept}");
        // The last to be asked for stays.
        let reads = journal.reads.load(Ordering::Relaxed);
        older.after("r", 4 * CHUNK as u64 - 1, |from| journal.read(from)).await.unwrap().unwrap();
        assert_eq!(journal.reads.load(Ordering::Relaxed), reads);
    }
}
