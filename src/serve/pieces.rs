//! Stretches of a run's journal in the form in which watchers get them. Each is made once and shared by all who want it:
//! what a watcher is given is a part of it, never a copy. Knows nothing of who watches.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes;
use runback_core::event::Event;
use runback_exec::store::{Store, StoreError};
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
    /// What the journal has after `after`, as far as one piece of it goes.
    pub(super) async fn after(
        &self,
        store: &dyn Store,
        run: &str,
        after: u64,
    ) -> Result<Option<(u64, Bytes)>, StoreError> {
        let number = after / CHUNK as u64;
        loop {
            let (chunk, fresh) = self.chunk(run, number);
            let read = || async {
                let events = store.events(run, number * CHUNK as u64, CHUNK).await?;
                Ok::<_, StoreError>(cut(run, &events))
            };
            let pieces = match chunk.get_or_try_init(read).await {
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
