//! The live view of a run on a terminal: what is over scrolls up as plain lines, what lives is drawn at the bottom.
//! At most 20 times a second, in one write each, never taller than the screen.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use runback_core::event::{Event, EventBody};
use runback_core::progress::Progress;
use runback_core::state::{NodeId, Phase, RunState, Status, UndoStatus};
use runback_exec::reporter::{Notice, Reporter};

use super::said::{said_of, taken_up};
use super::screen::Screen;
use super::{Report, TakenUp, summary};
use crate::term::{self, BOLD, DIM, RESET, YELLOW};
use crate::{next, words};

const REDRAW: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
pub(crate) struct Tty {
    screen: Screen,
    /// The last line that each running attempt printed.
    last: HashMap<NodeId, String>,
    /// When each undo began that runs.
    undo_since: HashMap<NodeId, u64>,
    /// How far it is, where it says so.
    phase: HashMap<NodeId, String>,
    lock_waits: HashMap<Option<NodeId>, String>,
    drawn_at: Option<Instant>,
    /// By the run's clock.
    now: u64,
    paused: bool,
}

impl Tty {
    fn redraw(&mut self, state: &RunState, at_once: bool) {
        let due = at_once || self.drawn_at.is_none_or(|at| at.elapsed() >= REDRAW);
        if !due || self.paused {
            return;
        }
        self.drawn_at = Some(Instant::now());
        let (width, height) = term::size().unwrap_or((80, 24));
        let rows = self.rows(state, width, height.saturating_sub(1).max(4));
        self.screen.draw(&rows, width);
    }

    /// Header, then the living steps under what they stand in; `most` rows at most.
    fn rows(&self, state: &RunState, width: usize, most: usize) -> Vec<String> {
        let living = self.living(state);
        let mut rows = vec![String::new(), self.header(state)];
        let mut path: Vec<NodeId> = Vec::new();
        let mut shown = 0;
        for (trail, node) in &living {
            let common = trail.iter().zip(&path).take_while(|(a, b)| a == b).count();
            if rows.len() + (trail.len() - common) + 2 > most {
                // One at least is seen, without what it stands in.
                if shown == 0 {
                    rows.push(self.row(state, *node, 1, width));
                    shown += 1;
                }
                break;
            }
            path.truncate(common);
            for ancestor in &trail[common..] {
                path.push(*ancestor);
                rows.push(format!("{}{DIM}{}{RESET}", "  ".repeat(path.len()), own_name(state, *ancestor)));
            }
            rows.push(self.row(state, *node, path.len() + 1, width));
            shown += 1;
        }
        if shown < living.len() {
            rows.push(format!("  {DIM}and {} more{RESET}", words::grouped(living.len() - shown)));
        }
        if let Some(why) = self.lock_waits.get(&None) {
            rows.push(format!("  {YELLOW}…{RESET} {why}"));
        }
        rows
    }

    /// What is not over, each with what it stands in from the top, in the order of the playbook.
    fn living(&self, state: &RunState) -> Vec<(Vec<NodeId>, NodeId)> {
        let locked = self.lock_waits.keys().flatten().copied().filter(|n| state.node(*n).status == Status::Ready);
        let all = state
            .active()
            .chain(state.active_undos())
            .chain(state.backoffs().map(|(_, n)| n))
            .chain(state.undo_backoffs().map(|(_, n)| n))
            .chain(state.doubts())
            .chain(locked);
        let mut living: Vec<(Vec<NodeId>, NodeId)> = all
            .map(|node| {
                let up = state.ancestors(node).into_iter().filter(|n| !RunState::is_root(*n));
                let mut trail: Vec<NodeId> = up.collect();
                trail.reverse();
                (trail, node)
            })
            .collect();
        let key = |(trail, node): &(Vec<NodeId>, NodeId)| trail.iter().chain([node]).copied().collect::<Vec<_>>();
        living.sort_by_cached_key(key);
        living.dedup();
        living
    }

    fn header(&self, state: &RunState) -> String {
        let (mut over, mut all) = (0, 0);
        for (status, count) in state.counts() {
            all += count;
            if !matches!(status, "blocked" | "ready" | "running" | "backoff" | "interrupted" | "undoing") {
                over += count;
            }
        }
        let word = match state.phase {
            Phase::Created => "waiting to start",
            Phase::RollingBack => "taking it back",
            Phase::Finally => "finally",
            _ if state.cancel.is_some() => "stopping",
            _ => "running",
        };
        let elapsed = state.started_at.map_or(0, |_| self.now.saturating_sub(state.going_since));
        format!(
            "{BOLD}{}{RESET} {DIM}{}{RESET}  {word}  {}/{} steps  {}",
            state.plan.name,
            state.run_id(),
            words::grouped(over),
            words::grouped(all),
            words::duration(elapsed)
        )
    }

    fn row(&self, state: &RunState, node: NodeId, depth: usize, width: usize) -> String {
        let n = state.node(node);
        let (sign, color) = words::state_sign(state.status_name(node));
        let since = match n.undo {
            UndoStatus::None => words::at_it_since(state, node),
            _ => self.undo_since.get(&node).copied(),
        };
        let since = since.map(|at| words::duration(self.now.saturating_sub(at))).unwrap_or_default();
        let attempts = if n.undo == UndoStatus::None { n.attempts } else { n.undo_attempts };
        let attempt = if attempts > 1 { format!(" attempt {attempts}") } else { String::new() };
        // Names up to a third of the screen stand in a column.
        let column = (width / 3).clamp(12, 40).saturating_sub(depth * 2);
        let about: String = self.about(state, node).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        format!(
            "{}{color}{sign}{RESET} {:column$} {since:>6}{YELLOW}{attempt}{RESET}  {DIM}{about}{RESET}",
            "  ".repeat(depth),
            own_name(state, node)
        )
    }

    /// What a step waits for, or what it says.
    fn about(&self, state: &RunState, node: NodeId) -> String {
        let n = state.node(node);
        let left = || words::duration(n.until().saturating_sub(self.now));
        if let Some(question) = n.question() {
            return format!("waits for a person: {}", question.prompt);
        }
        match n.undo {
            UndoStatus::None => {}
            UndoStatus::Backoff => return format!("its undo failed, again in {}", left()),
            _ => return self.words_of(node),
        }
        if let Some(doubt) = n.doubt() {
            return format!("a person must settle it: {doubt}");
        }
        match n.status {
            Status::Backoff => {
                let error = n.error().map_or("", |e| e.message.as_str());
                format!("again in {}: {error}", left())
            }
            Status::Ready => self.lock_waits.get(&Some(node)).map(|why| format!("waits: {why}")).unwrap_or_default(),
            _ => self.words_of(node),
        }
    }

    fn words_of(&self, node: NodeId) -> String {
        let said = self.phase.get(&node).into_iter().chain(self.last.get(&node));
        said.map(String::as_str).collect::<Vec<_>>().join("  ")
    }

    fn clear(&mut self) {
        self.screen.draw(&[], term::size().map_or(80, |(width, _)| width));
    }
}

fn own_name(state: &RunState, node: NodeId) -> &str {
    let path = state.path(node);
    // The key of an instance holds no slash.
    path.rsplit('/').next().unwrap_or(path)
}

impl Reporter for Tty {
    fn event(&mut self, state: &RunState, event: &Event) {
        self.now = self.now.max(event.at);
        let node = event.body.step().and_then(|s| state.find(s));
        match (&event.body, node) {
            (EventBody::AttemptStarted { .. } | EventBody::UndoStarted { .. }, Some(node)) => {
                self.last.remove(&node);
                self.phase.remove(&node);
                // Nothing begins while the run waits for its own.
                self.lock_waits.remove(&None);
                if let EventBody::UndoStarted { .. } = event.body {
                    self.undo_since.insert(node, event.at);
                }
            }
            (EventBody::LockTaken { .. }, node) => {
                self.lock_waits.remove(&node);
            }
            _ => {}
        }
        if let Some(said) = said_of(state, event) {
            self.screen.scroll(&said.line());
        }
        let first = matches!(event.body, EventBody::RunCreated(_));
        self.redraw(state, first);
    }

    fn notice(&mut self, state: &RunState, notice: &Notice<'_>) {
        match notice {
            Notice::LastLine { node, line } => {
                self.last.insert(*node, (*line).to_owned());
            }
            Notice::Progress { node, progress } => {
                let text = match progress {
                    Progress::Phase { text } => text.clone(),
                    Progress::Percent { percent, text } => format!("{percent:.0}% {text}"),
                };
                self.phase.insert(*node, text);
            }
            Notice::LockWait { node, why } => {
                self.lock_waits.insert(*node, (*why).to_owned());
            }
            Notice::Warning { message } => {
                self.screen.scroll(&format!("{YELLOW}!{RESET} {}", next::in_text(message)));
            }
        }
        self.redraw(state, false);
    }

    fn tick(&mut self, state: &RunState, now: u64) {
        self.now = self.now.max(now);
        self.redraw(state, false);
    }

    fn pause(&mut self, _state: &RunState) {
        // What scrolls up while a person thinks stays in the screen until then.
        self.clear();
        self.paused = true;
    }

    fn unpause(&mut self, state: &RunState) {
        self.paused = false;
        self.redraw(state, true);
    }
}

impl Report for Tty {
    fn taken_up(&mut self, state: &RunState, what: TakenUp) {
        self.screen.scroll(&taken_up(state, what));
        self.redraw(state, true);
    }

    fn end(&mut self, state: &RunState, status: &str, logs: Option<&Path>) {
        self.paused = false;
        self.clear();
        term::line("");
        term::line(summary::text(state, status, logs).trim_end());
    }
}
