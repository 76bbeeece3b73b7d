//! Where text goes: stdout and stderr, with colours taken out where nobody sees them, and a closed pipe that is
//! no reason to panic. Knows nothing of what it prints.

use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) const RESET: &str = "\x1b[0m";
pub(crate) const BOLD: &str = "\x1b[1m";
pub(crate) const DIM: &str = "\x1b[2m";
pub(crate) const RED: &str = "\x1b[31m";
pub(crate) const GREEN: &str = "\x1b[32m";
pub(crate) const YELLOW: &str = "\x1b[33m";
pub(crate) const BLUE: &str = "\x1b[34m";
pub(crate) const CYAN: &str = "\x1b[36m";

/// Somebody closed our stdout: what is said after that goes nowhere, and the run goes on.
static STDOUT_GONE: AtomicBool = AtomicBool::new(false);

/// Writes to stdout as it is. False once nobody reads it any more.
pub(crate) fn write(text: &str) -> bool {
    if stdout_gone() {
        return false;
    }
    let mut out = anstream::stdout().lock();
    let gone = out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err();
    if gone {
        STDOUT_GONE.store(true, Ordering::Relaxed);
    }
    !gone
}

/// Writes bytes to stdout without looking into them.
pub(crate) fn write_raw(bytes: &[u8]) -> bool {
    if stdout_gone() {
        return false;
    }
    let mut out = std::io::stdout().lock();
    let gone = out.write_all(bytes).and_then(|()| out.flush()).is_err();
    if gone {
        STDOUT_GONE.store(true, Ordering::Relaxed);
    }
    !gone
}

pub(crate) fn stdout_gone() -> bool {
    STDOUT_GONE.load(Ordering::Relaxed)
}

/// A line on stdout: what was asked for.
pub(crate) fn line(text: &str) {
    let mut with_end = String::with_capacity(text.len() + 1);
    with_end.push_str(text);
    with_end.push('\n');
    write(&with_end);
}

/// A line on stderr: what else there is to say.
pub(crate) fn note(text: &str) {
    let mut err = anstream::stderr().lock();
    // Nobody is left to hear of a failure to print.
    let _ = err.write_all(text.as_bytes()).and_then(|()| err.write_all(b"\n"));
}

/// A question on stderr; the answer follows on the same line.
pub(crate) fn ask(prompt: &str) {
    let mut err = anstream::stderr().lock();
    let _ = err.write_all(prompt.as_bytes()).and_then(|()| err.flush());
}

/// JSON on stdout, indented for people when it goes to a terminal.
pub(crate) fn json(value: &runback_core::Json) {
    let text = if std::io::stdout().is_terminal() { format!("{value:#}") } else { value.to_string() };
    line(&text);
}

/// Columns of the terminal that stdout is; None where it is none.
pub(crate) fn size() -> Option<(usize, usize)> {
    let (width, height) = terminal_size::terminal_size_of(std::io::stdout())?;
    Some((usize::from(width.0), usize::from(height.0)))
}

/// The width that text is wrapped to.
pub(crate) fn width_or(default: usize) -> usize {
    let asked = std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok()).filter(|c| *c >= 20);
    asked.or_else(|| size().map(|(width, _)| width)).unwrap_or(default).max(20)
}

/// A live view can be drawn on stdout.
pub(crate) fn can_redraw() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb" && !term.is_empty())
}

/// A person can be asked.
pub(crate) fn can_ask() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}
