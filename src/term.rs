//! Where text goes: stdout and stderr, with colours taken out where nobody sees them, and a closed pipe that is
//! no reason to panic. What it prints holds words of tools and people: none of them moves the cursor. Knows nothing else
//! of what it prints.

use std::borrow::Cow;
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
/// It was not closed: what was said is lost.
static STDOUT_FAILED: AtomicBool = AtomicBool::new(false);

/// Writes to stdout as it is. False once nobody reads it any more.
pub(crate) fn write(text: &str) -> bool {
    if stdout_gone() {
        return false;
    }
    let mut out = anstream::stdout().lock();
    written(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// Writes bytes to stdout without looking into them.
pub(crate) fn write_raw(bytes: &[u8]) -> bool {
    if stdout_gone() {
        return false;
    }
    let mut out = std::io::stdout().lock();
    written(out.write_all(bytes).and_then(|()| out.flush()))
}

fn written(result: std::io::Result<()>) -> bool {
    let Err(error) = result else { return true };
    if error.kind() != std::io::ErrorKind::BrokenPipe && !STDOUT_FAILED.swap(true, Ordering::Relaxed) {
        note(&format!("{YELLOW}!{RESET} stdout takes no more, and what follows is lost: {error}"));
    }
    STDOUT_GONE.store(true, Ordering::Relaxed);
    false
}

/// Something that was to be on stdout is not there, and not because its reader had enough.
pub(crate) fn stdout_failed() -> bool {
    STDOUT_FAILED.load(Ordering::Relaxed)
}

pub(crate) fn stdout_gone() -> bool {
    STDOUT_GONE.load(Ordering::Relaxed)
}

/// A line on stdout: what was asked for.
pub(crate) fn line(text: &str) {
    let text = tame(text);
    let mut with_end = String::with_capacity(text.len() + 1);
    with_end.push_str(&text);
    with_end.push('\n');
    write(&with_end);
}

/// A line on stderr: what else there is to say.
pub(crate) fn note(text: &str) {
    let mut err = anstream::stderr().lock();
    // Nobody is left to hear of a failure to print.
    let _ = err.write_all(tame(text).as_bytes()).and_then(|()| err.write_all(b"\n"));
}

/// A question on stderr; the answer follows on the same line.
pub(crate) fn ask(prompt: &str) {
    let mut err = anstream::stderr().lock();
    let _ = err.write_all(tame(prompt).as_bytes()).and_then(|()| err.flush());
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

/// A person sees stdout.
pub(crate) fn is_seen() -> bool {
    std::io::stdout().is_terminal()
}

/// A person can be asked.
pub(crate) fn can_ask() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// The same text, in which nothing steers a terminal but colours, and these end with their line. What a tool printed, or
/// a person wrote, may hold anything.
pub(crate) fn tame(text: &str) -> Cow<'_, str> {
    tamed(text, &['\n', '\t'])
}

/// The same of a log as it is: a progress bar may write over its own line.
pub(crate) fn tame_log(text: &str) -> Cow<'_, str> {
    tamed(text, &['\n', '\t', '\r'])
}

fn tamed<'t>(text: &'t str, allowed: &[char]) -> Cow<'t, str> {
    let harmless = |c: char| !c.is_control() || allowed.contains(&c);
    if text.chars().all(harmless) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for line in text.split_inclusive('\n') {
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
        let mut colored = false;
        let mut rest = line;
        while let Some(at) = rest.find(|c| !harmless(c)) {
            out.push_str(&rest[..at]);
            let (sequence, after) = rest[at..].split_at(steering(&rest[at..]));
            if let Some(color) = sequence.strip_prefix("\x1b[").and_then(|s| s.strip_suffix('m')) {
                colored = !matches!(color, "" | "0");
                out.push_str(sequence);
            }
            rest = after;
        }
        out.push_str(rest);
        if colored {
            out.push_str(RESET);
        }
        out.push_str(end);
    }
    Cow::Owned(out)
}

/// How many bytes the control character or escape sequence takes that a piece of a line begins with. What has no end
/// takes nothing with it.
fn steering(text: &str) -> usize {
    let first = text.chars().next().map_or(0, char::len_utf8);
    let Some(rest) = text.strip_prefix('\x1b') else { return first };
    let until = |from: usize, is_end: fn(char) -> bool| {
        let end = rest[from..].find(is_end)?;
        Some(first + from + end + rest[from + end..].chars().next().map_or(0, char::len_utf8))
    };
    let whole = match rest.chars().next() {
        // CSI: parameters, then its final byte.
        Some('[') => until(1, |c| !(' '..='?').contains(&c)),
        // Strings (OSC, DCS, …): up to BEL or ESC \.
        Some(']' | 'P' | 'X' | '^' | '_') => {
            let st = rest.find("\x1b\\").map(|at| first + at + 2);
            let bel = rest.find('\x07').map(|at| first + at + 1);
            st.into_iter().chain(bel).min()
        }
        Some(' '..='/') => until(1, |c| !(' '..='/').contains(&c)),
        Some('0'..='~') => Some(first + 1),
        _ => None,
    };
    whole.unwrap_or(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by hand: a title, a cleared screen and another screen, from the output that a question quoted.
    #[test]
    fn nothing_steers_the_terminal_but_colours() {
        for (wild, tamed) in [
            ("plain \t text\nand more", "plain \t text\nand more"),
            ("\x1b[2J\x1b[Hgone\x1b[?1049h", "gone"),
            ("a\x1b]0;title\x07b\x1b]8;;http://x\x1b\\c", "abc"),
            ("never ends \x1b]0;all of this\nis here", "never ends ]0;all of this\nis here"),
            ("cut off \x1b[12", "cut off [12"),
            ("over\rwritten\x08\x07\u{9b}2J", "overwritten2J"),
            ("\x1bc\x1b(0\x1b7end\x1b", "end"),
            ("\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m"),
            ("\x1b[5mblinks\nno more", "\x1b[5mblinks\x1b[0m\nno more"),
            ("ä\x1b[1mö\x1b[mü", "ä\x1b[1mö\x1b[mü"),
        ] {
            assert_eq!(tame(wild), tamed, "{wild:?}");
        }
    }
}
