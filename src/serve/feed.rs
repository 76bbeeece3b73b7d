//! The events of a run as they become durable, for any number of watchers. One reader of the journal per run that is
//! watched; a watcher that is slow keeps nothing but its place, and reads from the journal what it missed.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures_util::stream;
use runback_core::event::Event;
use runback_exec::store::{Store, StoreError};
use tokio::sync::{Notify, OwnedSemaphorePermit, broadcast, watch};

use super::api::RunHead;
use super::log;

/// How long after it became durable an event of another process is seen at the latest.
const LOOK: Duration = Duration::from_millis(200);
/// Watchers are woken so often at most: a busy run has many events, and each of many watchers is woken for them.
const TOGETHER: Duration = Duration::from_millis(50);
/// A comment goes to a watcher that hears nothing else, so that both sides notice when the other is gone.
const QUIET: Duration = Duration::from_secs(15);
/// Bytes of the newest events that are kept for watchers, per run.
const RING_BYTES: usize = 512 << 10;
/// Events that are read from the journal at once, and bytes that are given to a watcher at once.
const CHUNK: usize = 256;
const CHUNK_BYTES: usize = 64 << 10;

/// All runs that somebody watches.
#[derive(Default)]
pub(crate) struct Feeds {
    all: Mutex<HashMap<String, Weak<Feed>>>,
}

/// One run that somebody watches.
pub(crate) struct Feed {
    store: Arc<dyn Store>,
    run: String,
    /// The last event that was seen.
    last: watch::Sender<u64>,
    ring: Mutex<Ring>,
    nudge: Arc<Notify>,
}

#[derive(Default)]
struct Ring {
    frames: VecDeque<(u64, Bytes)>,
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
        let feed = Arc::new(Feed {
            store: Arc::clone(store),
            run: run.to_owned(),
            last: watch::Sender::new(last),
            ring: Mutex::default(),
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

/// Reads what is new until nobody watches any more.
async fn follow(feed: Weak<Feed>, nudge: Arc<Notify>) {
    let mut seen = None;
    loop {
        // A nudge that came while it read is not lost: `Notify` keeps one.
        let nudged = tokio::time::timeout(LOOK, nudge.notified()).await.is_ok();
        if nudged {
            tokio::time::sleep(TOGETHER).await;
        }
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
        if !nudged && seen.replace(changed) == Some(changed) {
            return Ok(());
        }
        loop {
            let last = *self.last.borrow();
            let events = self.store.events(&self.run, last, CHUNK).await?;
            let Some(newest) = events.last().map(|e| e.seq) else { return Ok(()) };
            {
                let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
                for event in &events {
                    let frame = frame(&self.run, event);
                    ring.bytes += frame.len();
                    ring.frames.push_back((event.seq, frame));
                }
                while ring.bytes > RING_BYTES
                    && let Some((_, frame)) = ring.frames.pop_front()
                {
                    ring.bytes -= frame.len();
                }
            }
            self.last.send_replace(newest);
        }
    }

    /// Frames after `after`, as far as the ring has all of them without a gap.
    fn recent(&self, after: u64) -> Option<(u64, Bytes)> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let first = ring.frames.front()?.0;
        if first > after + 1 {
            return None;
        }
        let mut chunk = Vec::new();
        let mut last = after;
        let skip = usize::try_from(after + 1 - first).unwrap_or(usize::MAX);
        for (seq, frame) in ring.frames.iter().skip(skip) {
            chunk.extend_from_slice(frame);
            last = *seq;
            if chunk.len() >= CHUNK_BYTES {
                break;
            }
        }
        (last > after).then(|| (last, chunk.into()))
    }

    async fn older(&self, after: u64) -> Result<Option<(u64, Bytes)>, StoreError> {
        let events = self.store.events(&self.run, after, CHUNK).await?;
        let mut chunk = Vec::new();
        let mut last = None;
        for event in &events {
            chunk.extend_from_slice(&frame(&self.run, event));
            last = Some(event.seq);
            if chunk.len() >= CHUNK_BYTES {
                break;
            }
        }
        Ok(last.map(|seq| (seq, chunk.into())))
    }
}

/// One server-sent event. `id` is the number to go on from.
fn frame(run: &str, event: &Event) -> Bytes {
    let mut json = serde_json::to_value(event).unwrap_or_default();
    json["run"] = run.into();
    format!("id: {}\ndata: {json}\n\n", event.seq).into()
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
                let found = match self.feed.recent(self.after) {
                    Some(found) => Some(found),
                    None => match self.feed.older(self.after).await {
                        Ok(found) => found,
                        // The run is gone, or the store is: the reader comes back with its place.
                        Err(error) => return Some(Err(error)),
                    },
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
