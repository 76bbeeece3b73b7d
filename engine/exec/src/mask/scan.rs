//! Finds every occurrence of a set of patterns, overlapping ones included, in a text that comes in pieces.
//! Does not know what the patterns mean.

use std::collections::HashMap;

use aho_corasick::automaton::{Automaton, StateID};
use aho_corasick::{Anchored, MatchKind, StartKind, dfa, nfa};

/// Up to this many pattern bytes the faster automaton is worth its memory (at most some 8 MB).
const DFA_BYTES: usize = 8 << 10;

#[derive(Debug)]
enum Automata {
    Dfa(Box<dfa::DFA>),
    Nfa(Box<nfa::contiguous::NFA>),
}

/// Where a scan stands between two pieces.
pub(super) type State = StateID;

/// A pattern and where it ends, as found: in order of ends, the longest of those that end at one place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) pattern: usize,
    pub(super) end: usize,
    pub(super) len: usize,
}

pub(super) struct Scanner {
    automata: Automata,
    start: StateID,
    /// Bytes that some pattern begins with.
    first: [bool; 256],
    /// For each state: how long the longest suffix of the text is that begins a pattern.
    depth: HashMap<StateID, usize>,
}

impl Scanner {
    /// None when the automaton cannot be built, which takes gigabytes of patterns.
    pub(super) fn new(patterns: &[&[u8]]) -> Option<Self> {
        let total: usize = patterns.iter().map(|p| p.len()).sum();
        let automata = if total <= DFA_BYTES {
            let mut builder = dfa::Builder::new();
            builder.match_kind(MatchKind::Standard).start_kind(StartKind::Unanchored).prefilter(false);
            Automata::Dfa(Box::new(builder.build(patterns).ok()?))
        } else {
            let mut builder = nfa::contiguous::Builder::new();
            builder.match_kind(MatchKind::Standard).prefilter(false);
            Automata::Nfa(Box::new(builder.build(patterns).ok()?))
        };
        let start = match &automata {
            Automata::Dfa(a) => a.start_state(Anchored::No).ok()?,
            Automata::Nfa(a) => a.start_state(Anchored::No).ok()?,
        };
        let mut first = [false; 256];
        let mut depth = HashMap::from([(start, 0)]);
        for pattern in patterns {
            first[usize::from(*pattern.first()?)] = true;
            let mut state = start;
            for (i, byte) in pattern.iter().enumerate() {
                state = match &automata {
                    Automata::Dfa(a) => a.next_state(Anchored::No, state, *byte),
                    Automata::Nfa(a) => a.next_state(Anchored::No, state, *byte),
                };
                depth.insert(state, i + 1);
            }
        }
        Some(Self { automata, start, first, depth })
    }

    pub(super) fn start(&self) -> State {
        self.start
    }

    /// How many bytes at the end of what was scanned could belong to a match that is not complete.
    pub(super) fn open(&self, state: State) -> usize {
        self.depth.get(&state).copied().unwrap_or(0)
    }

    /// Goes on with the next piece; ends are counted from the beginning of this piece.
    pub(super) fn scan(&self, state: &mut State, bytes: &[u8], found: impl FnMut(Found)) {
        match &self.automata {
            Automata::Dfa(a) => self.scan_with(a.as_ref(), state, bytes, found),
            Automata::Nfa(a) => self.scan_with(a.as_ref(), state, bytes, found),
        }
    }

    fn scan_with<A: Automaton>(&self, a: &A, state: &mut State, bytes: &[u8], mut found: impl FnMut(Found)) {
        let mut at = 0;
        let mut now = *state;
        while at < bytes.len() {
            if now == self.start {
                let Some(skip) = bytes[at..].iter().position(|b| self.first[usize::from(*b)]) else {
                    break;
                };
                at += skip;
            }
            now = a.next_state(Anchored::No, now, bytes[at]);
            at += 1;
            if a.is_special(now) && a.is_match(now) {
                let longest = (0..a.match_len(now)).map(|i| a.match_pattern(now, i)).max_by_key(|p| a.pattern_len(*p));
                if let Some(pattern) = longest {
                    found(Found { pattern: pattern.as_usize(), end: at, len: a.pattern_len(pattern) });
                }
            }
        }
        *state = now;
    }
}
