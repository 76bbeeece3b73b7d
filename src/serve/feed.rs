//! The events of a run as they become durable, for any number of watchers. One reader of the journal per run that is
//! watched; a watcher that is slow keeps nothing but its place, and what it missed is read once for all who missed it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures_util::stream;
use runback_exec::store::{Store, StoreError};
use tokio::sync::{Notify, OwnedSemaphorePermit, broadcast, watch};

use super::api::RunHead;
use super::log;
use super::pieces::{self, CHUNK, Older, Piece};

/// How long after it became durable an event of another process is seen at the latest.
const LOOK: Duration = Duration::from_millis(200);
/// Watchers are woken so often at most: a busy run has many events, and each of many watchers is woken for them. The
/// more there are, the more they are told at once.
const TOGETHER: Duration = Duration::from_millis(50);
const FOR_EACH: Duration = Duration::from_millis(1);
const TOGETHER_MOST: Duration = Duration::from_secs(1);
/// A comment goes to a watcher that hears nothing else, so that both sides notice when the other is gone.
const QUIET: Duration = Duration::from_secs(15);
/// Bytes of the newest events that are kept for watchers, per run.
const RING_BYTES: usize = 512 << 10;

/// All runs that somebody watches.
#[derive(Default)]
pub(crate) struct Feeds {
    all: Mutex<HashMap<String, Weak<Feed>>>,
    older: Arc<Older>,
}

/// One run that somebody watches.
pub(crate) struct Feed {
    store: Arc<dyn Store>,
    run: String,
    /// The last event that was seen.
    last: watch::Sender<u64>,
    ring: Mutex<Ring>,
    older: Arc<Older>,
    nudge: Arc<Notify>,
}

/// The newest events, without a gap between them.
#[derive(Default)]
struct Ring {
    pieces: VecDeque<Piece>,
    bytes: usize,
}

impl Feeds {
    /// The feed of a run; it ends when its last watcher is gone.
    pub(crate) async fn of(&self, store: &Arc<dyn Store>, run: &str) -> Result<Arc<Feed>, StoreError> {
        if let Some(feed) = self.find(run) {
            return Ok(feed);
        }
        // From here on everything is read; what came before is read for those who ask for it.
        let last = last_seq(store.as_ref(), run).await?;
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(feed) = all.get(run).and_then(Weak::upgrade) {
            return Ok(feed);
        }
        all.retain(|_, feed| feed.strong_count() > 0);
        // While nobody looked it may have become another run of the same name.
        self.older.forget(run);
        let feed = Arc::new(Feed {
            store: Arc::clone(store),
            run: run.to_owned(),
            last: watch::Sender::new(last),
            ring: Mutex::default(),
            older: Arc::clone(&self.older),
            nudge: Arc::default(),
        });
        all.insert(run.to_owned(), Arc::downgrade(&feed));
        tokio::spawn(follow(Arc::downgrade(&feed), Arc::clone(&feed.nudge)));
        Ok(feed)
    }

    fn find(&self, run: &str) -> Option<Arc<Feed>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).get(run).and_then(Weak::upgrade)
    }

    /// This process made events of the run durable.
    pub(crate) fn nudge(&self, run: &str) {
        if let Some(feed) = self.find(run) {
            feed.nudge.notify_one();
        }
    }

    /// Runs that are watched.
    pub(crate) fn count(&self) -> usize {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).values().filter(|f| f.strong_count() > 0).count()
    }
}

/// The number of a run's last event.
async fn last_seq(store: &dyn Store, run: &str) -> Result<u64, StoreError> {
    Ok(store.run(run).await?.last_seq)
}

/// How long new events are collected for so many watchers.
fn together(watchers: usize) -> Duration {
    (TOGETHER + FOR_EACH * u32::try_from(watchers).unwrap_or(u32::MAX)).min(TOGETHER_MOST)
}

/// Reads what is new until nobody watches any more.
async fn follow(feed: Weak<Feed>, nudge: Arc<Notify>) {
    let mut seen = None;
    loop {
        // A nudge that came while it read is not lost: `Notify` keeps one.
        let nudged = tokio::time::timeout(LOOK, nudge.notified()).await.is_ok();
        let Some(watchers) = feed.upgrade().map(|feed| feed.last.receiver_count()) else { return };
        let waited = if nudged { Duration::ZERO } else { LOOK };
        tokio::time::sleep(together(watchers).saturating_sub(waited)).await;
        let Some(feed) = feed.upgrade() else { return };
        match feed.read_new(nudged, &mut seen).await {
            Ok(()) => {}
            // The run was removed: its watchers are told by the end of their streams.
            Err(StoreError::UnknownRun { .. }) => return,
            Err(error) => {
                log::warn("events cannot be read", serde_json::json!({ "run": feed.run, "error": error.to_string() }));
            }
        }
    }
}

impl Feed {
    async fn read_new(&self, nudged: bool, seen: &mut Option<u64>) -> Result<(), StoreError> {
        let changed = self.store.changed().await?;
        if !nudged && *seen == Some(changed) {
            return Ok(());
        }
        loop {
            let last = *self.last.borrow();
            let events = self.store.events(&self.run, last, CHUNK).await?;
            let Some(newest) = events.last().map(|e| e.seq) else { break };
            {
                let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
                for piece in pieces::cut(&self.run, &events) {
                    ring.bytes += piece.len();
                    ring.pieces.push_back(piece);
                }
                while ring.bytes > RING_BYTES
                    && let Some(piece) = ring.pieces.pop_front()
                {
                    ring.bytes -= piece.len();
                }
            }
            self.last.send_replace(newest);
            if events.len() < CHUNK {
                break;
            }
        }
        // Only now: what could not be read is to be read the next time.
        *seen = Some(changed);
        Ok(())
    }

    /// What comes after `after`: from the newest that are kept, else from the journal.
    async fn after(&self, after: u64) -> Result<Option<(u64, Bytes)>, StoreError> {
        let recent = pieces::next(self.ring.lock().unwrap_or_else(PoisonError::into_inner).pieces.iter(), after);
        match recent {
            Some(recent) => Ok(Some(recent)),
            None => self.older.after(&self.run, after, |from| self.store.events(&self.run, from, CHUNK)).await,
        }
    }
}

struct Watcher {
    feed: Arc<Feed>,
    news: watch::Receiver<u64>,
    after: u64,
    /// Go on when the present end is reached.
    follow: bool,
    greeted: bool,
    ending: watch::Receiver<bool>,
    _permit: OwnedSemaphorePermit,
}

/// The stream of one watcher, from after `after` on. It is driven by its reader alone: nothing is kept for one who does
/// not read.
pub(crate) fn stream(
    feed: Arc<Feed>,
    after: u64,
    follow: bool,
    permit: OwnedSemaphorePermit,
    ending: watch::Receiver<bool>,
) -> Body {
    let news = feed.last.subscribe();
    let watcher = Watcher { feed, news, after, follow, greeted: false, ending, _permit: permit };
    Body::from_stream(stream::unfold(watcher, |mut watcher| async move {
        let next = watcher.next().await;
        next.map(|piece| (piece, watcher))
    }))
}

impl Watcher {
    async fn next(&mut self) -> Option<Result<Bytes, StoreError>> {
        // How long a browser waits before it comes back.
        if !std::mem::replace(&mut self.greeted, true) {
            return Some(Ok(Bytes::from_static(b"retry: 1000\n\n")));
        }
        loop {
            let last = *self.news.borrow_and_update();
            if last > self.after || !self.follow {
                let found = match self.feed.after(self.after).await {
                    Ok(found) => found,
                    // The run is gone, or the store is: the reader comes back with its place.
                    Err(error) => return Some(Err(error)),
                };
                if let Some((seq, bytes)) = found {
                    self.after = seq;
                    return Some(Ok(bytes));
                }
                if !self.follow {
                    return None;
                }
            }
            tokio::select! {
                changed = tokio::time::timeout(QUIET, self.news.changed()) => match changed {
                    Err(_) => return Some(Ok(Bytes::from_static(b": nothing new\n\n"))),
                    Ok(Err(_)) => return None,
                    Ok(Ok(())) => {}
                },
                _ = self.ending.wait_for(|ending| *ending) => return None,
            }
        }
    }
}

/// The stream of who watches the list of runs.
pub(crate) fn heads(
    news: broadcast::Receiver<Arc<RunHead>>,
    permit: OwnedSemaphorePermit,
    ending: watch::Receiver<bool>,
) -> Body {
    let state = (news, ending, permit, false);
    Body::from_stream(stream::unfold(state, |(mut news, mut ending, permit, greeted)| async move {
        let piece = if greeted {
            tokio::select! {
                news = tokio::time::timeout(QUIET, news.recv()) => match news {
                    Err(_) => Bytes::from_static(b": nothing new\n\n"),
                    Ok(Ok(head)) => format!("data: {}\n\n", serde_json::json!(head)).into(),
                    Ok(Err(broadcast::error::RecvError::Lagged(_))) => Bytes::from_static(b"event: reload\ndata: {}\n\n"),
                    Ok(Err(broadcast::error::RecvError::Closed)) => return None,
                },
                _ = ending.wait_for(|ending| *ending) => return None,
            }
        } else {
            Bytes::from_static(b"retry: 1000\n\n")
        };
        Some((Ok::<_, std::convert::Infallible>(piece), (news, ending, permit, true)))
    }))
}
