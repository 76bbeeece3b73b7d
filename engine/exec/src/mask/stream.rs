//! Masks a stream of chunks: right at every chunk border, and holding back no more than what could still
//! become a secret. Does not know what is behind the chunks.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Inner;
use super::scan::State;

/// Stretches of a buffer that secrets cover, in order, merged where they touch.
#[derive(Debug, Default)]
pub(super) struct Covered(VecDeque<(usize, usize)>);

impl Covered {
    /// `end` is not below any end that was added before.
    pub(super) fn add(&mut self, mut start: usize, end: usize) {
        while let Some(&(last_start, last_end)) = self.0.back() {
            if last_end < start {
                break;
            }
            start = start.min(last_start);
            self.0.pop_back();
        }
        self.0.push_back((start, end));
    }

    /// Hands out a buffer with the covered stretches masked. `masked` says whether the byte before the buffer
    /// was covered, and afterwards whether its last one is.
    pub(super) fn emit(&self, buffer: &[u8], masked: &mut bool, mask: &str, sink: &mut dyn FnMut(&[u8])) {
        let mut at = 0;
        for &(start, end) in &self.0 {
            if start >= buffer.len() {
                break;
            }
            if start > at {
                sink(&buffer[at..start]);
                *masked = false;
            }
            if !*masked {
                sink(mask.as_bytes());
                *masked = true;
            }
            at = end.min(buffer.len());
        }
        if at < buffer.len() {
            sink(&buffer[at..]);
            *masked = false;
        }
    }

    /// Forgets the first `n` bytes of the buffer.
    fn forget(&mut self, n: usize) {
        self.0.retain(|&(_, end)| end > n);
        for (start, end) in &mut self.0 {
            (*start, *end) = (start.saturating_sub(n), *end - n);
        }
    }
}

/// Masks one stream. [`MaskStream::finish`] hands out what is held back at the end.
pub struct MaskStream {
    inner: Option<Arc<Inner>>,
    state: Option<State>,
    /// What may still become a part of a secret: at most as long as the longest pattern.
    held: Vec<u8>,
    /// Within `held`.
    covered: Covered,
    masked: bool,
}

impl std::fmt::Debug for MaskStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MaskStream").field("held", &self.held.len()).finish_non_exhaustive()
    }
}

impl Drop for MaskStream {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.held);
    }
}

impl MaskStream {
    pub(super) fn new(inner: Option<Arc<Inner>>) -> Self {
        let state = inner.as_ref().and_then(|i| i.scanner.as_ref()).map(super::scan::Scanner::start);
        Self { inner, state, held: Vec::new(), covered: Covered::default(), masked: false }
    }

    /// How many bytes are held back now.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Takes the next chunk and hands out what is certain, in one or more parts.
    pub fn push(&mut self, chunk: &[u8], mut sink: impl FnMut(&[u8])) {
        let Self { inner: Some(inner), state: Some(state), held, covered, masked } = self else {
            sink(chunk);
            return;
        };
        let Some(scanner) = &inner.scanner else {
            sink(chunk);
            return;
        };
        let base = held.len();
        scanner.scan(state, chunk, |f| covered.add(base + f.end - f.len, base + f.end));
        let certain = base + chunk.len() - scanner.open(*state);
        if base == 0 {
            covered.emit(&chunk[..certain], masked, &inner.mask, &mut sink);
            held.extend_from_slice(&chunk[certain..]);
        } else {
            held.extend_from_slice(chunk);
            covered.emit(&held[..certain], masked, &inner.mask, &mut sink);
            held.drain(..certain);
        }
        covered.forget(certain);
    }

    /// Hands out the rest; the stream begins anew.
    pub fn finish(&mut self, mut sink: impl FnMut(&[u8])) {
        if let Some(inner) = &self.inner {
            self.covered.emit(&self.held, &mut self.masked, &inner.mask, &mut sink);
            self.state = inner.scanner.as_ref().map(super::scan::Scanner::start);
        }
        self.held.clear();
        self.covered = Covered::default();
        self.masked = false;
    }
}
