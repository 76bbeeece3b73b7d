//! The output of running attempts as lines, as far as it was not told yet: for logs that nobody can scroll back to a
//! command. Reads the logs beside the store; knows nothing of events.

use std::collections::HashMap;
use std::path::PathBuf;

use runback_core::state::{NodeId, RunState};
use runback_exec::output::{LogFiles, LogName};

use crate::{next, words};

/// Lines of one attempt that are told; what follows is in its log.
const MOST_LINES: usize = 2_000;
/// A line longer than this is cut, in characters.
const LONGEST: usize = 2_000;
/// Bytes that are read of one attempt in one look: the driver waits meanwhile.
const CHUNK: usize = 256 << 10;

#[derive(Debug)]
struct Told {
    attempt: (u32, bool),
    at: u64,
    lines: usize,
    /// What stands after the last line end.
    rest: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Output {
    logs: PathBuf,
    told: HashMap<NodeId, Told>,
}

impl Output {
    pub(super) fn new(logs: PathBuf) -> Self {
        Self { logs, told: HashMap::new() }
    }

    /// The lines of an attempt that have come since the last look; with `over`, also one that has no end.
    pub(super) fn more(&mut self, state: &RunState, node: NodeId, attempt: u32, undo: bool, over: bool) -> Vec<String> {
        let n = state.node(node);
        let attempt = (attempt, undo);
        let fresh = || Told { attempt, at: 0, lines: 0, rest: Vec::new() };
        let told = self.told.entry(node).or_insert_with(fresh);
        if told.attempt != attempt {
            *told = fresh();
        }
        let name = LogName { step: &n.path, attempt: attempt.0, undo };
        let files = LogFiles::new(&self.logs, &name);
        let mut lines = Vec::new();
        // The log says itself, in its own warning, when it cannot be written; one that cannot be read is told at the end.
        while told.lines <= MOST_LINES
            && let Ok(Some(piece)) = files.read(told.at, CHUNK)
        {
            told.at = piece.next();
            told.rest.extend_from_slice(piece.marker().as_bytes());
            told.rest.extend_from_slice(&piece.bytes);
            told.take_lines(&mut lines);
            if !over {
                break;
            }
        }
        if over && !told.rest.is_empty() && told.lines <= MOST_LINES {
            told.rest.push(b'\n');
            told.take_lines(&mut lines);
        }
        if told.lines > MOST_LINES && !lines.is_empty() {
            let undo = if undo { " --undo" } else { "" };
            let most = words::grouped(MOST_LINES);
            let all = format!("runback logs {} {}{undo}", state.run_id(), next::word(&n.path));
            lines.push(format!("… {most} lines are told; all of it: {}", next::as_typed(&all)));
        }
        if over {
            self.told.remove(&node);
        }
        lines
    }
}

impl Told {
    fn take_lines(&mut self, lines: &mut Vec<String>) {
        let Some(end) = self.rest.iter().rposition(|b| *b == b'\n') else { return };
        let rest = self.rest.split_off(end + 1);
        let whole = std::mem::replace(&mut self.rest, rest);
        for line in whole[..end].split(|b| *b == b'\n') {
            self.lines += 1;
            if self.lines > MOST_LINES {
                self.rest.clear();
                return;
            }
            let text = String::from_utf8_lossy(line);
            let text = anstream::adapter::strip_str(&text).to_string();
            // A progress bar writes over its own line.
            let text = text.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default();
            lines.push(text.chars().filter(|c| !c.is_control() || *c == '\t').take(LONGEST).collect());
        }
    }
}
