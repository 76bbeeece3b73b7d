//! Rows at the bottom of a terminal that are drawn again and again, and lines that scroll up above them for good.
//! Knows nothing of runs.

use unicode_width::UnicodeWidthChar as _;

use crate::term;

#[derive(Debug, Default)]
pub(super) struct Screen {
    /// Columns of each row that is drawn now.
    drawn: Vec<usize>,
    /// Lines for above, not yet written.
    above: String,
}

/// Synchronised output: the terminal shows what is between them at once.
const BEGIN: &str = "\x1b[?2026h";
const END: &str = "\x1b[?2026l";

impl Screen {
    /// A line that stays; seen at the next [`Screen::draw`].
    pub(super) fn scroll(&mut self, line: &str) {
        self.above.push_str(&term::tame(line));
        self.above.push('\n');
    }

    /// Writes what is to stay, and the rows below it, each cut to the width. One write.
    pub(super) fn draw(&mut self, rows: &[String], width: usize) {
        if !(rows.is_empty() && self.drawn.is_empty() && self.above.is_empty()) {
            term::write(&self.frame(rows, width));
        }
    }

    /// Line by line over what is there: a terminal with a history (tmux) keeps a whole screen that is cleared.
    fn frame(&mut self, rows: &[String], width: usize) -> String {
        let mut out = String::with_capacity(self.above.len() + 256);
        out.push_str(BEGIN);
        // After a resize the terminal has wrapped what was drawn.
        let up: usize = self.drawn.iter().map(|columns| columns.div_ceil(width.max(1)).max(1)).sum();
        if up > 0 {
            out.push_str(&format!("\x1b[{up}A"));
        }
        out.push('\r');
        for line in std::mem::take(&mut self.above).lines() {
            out.push_str("\x1b[K");
            out.push_str(line);
            // Where it ends at the edge, this would take its last character.
            if !visible_width(line).is_multiple_of(width.max(1)) {
                out.push_str("\x1b[K");
            }
            out.push('\n');
        }
        self.drawn.clear();
        for row in rows {
            let (cut, columns) = cut(&term::tame(row), width);
            out.push_str("\x1b[K");
            out.push_str(&cut);
            out.push_str("\x1b[0m\n");
            self.drawn.push(columns);
        }
        out.push_str("\x1b[J");
        out.push_str(END);
        out
    }
}

/// At most `width` columns of a text with colours, and how many it takes.
fn cut(text: &str, width: usize) -> (String, usize) {
    let total = visible_width(text);
    if total <= width {
        return (text.to_owned(), total);
    }
    let mut out = String::with_capacity(text.len());
    let mut columns = 0;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.push(c);
        if c == '\x1b' {
            for c in chars.by_ref() {
                out.push(c);
                if c.is_ascii_alphabetic() {
                    break;
                }
            }
            continue;
        }
        let wide = c.width().unwrap_or(0);
        if columns + wide > width.saturating_sub(1) {
            out.pop();
            out.push('…');
            return (out, columns + 1);
        }
        columns += wide;
    }
    (out, columns)
}

/// Columns without colours.
fn visible_width(text: &str) -> usize {
    let mut columns = 0;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == '\x1b' {
            chars.by_ref().find(char::is_ascii_alphabetic);
        } else {
            columns += c.width().unwrap_or(0);
        }
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_cut_at_columns_not_at_characters() {
        assert_eq!(cut("abc", 3), ("abc".to_owned(), 3));
        assert_eq!(cut("abcd", 3), ("ab…".to_owned(), 3));
        // Each of these takes two columns.
        assert_eq!(cut("日本語", 6), ("日本語".to_owned(), 6));
        assert_eq!(cut("日本語", 5), ("日本…".to_owned(), 5));
        assert_eq!(cut("日本語", 4), ("日…".to_owned(), 3));
    }

    #[test]
    fn a_frame_never_clears_the_screen_before_it_is_drawn() {
        let mut screen = Screen::default();
        let rows = ["one".to_owned(), "two".to_owned()];
        screen.frame(&rows, 10);
        screen.scroll("said");
        screen.scroll("0123456789");
        let frame = screen.frame(&rows, 10);
        let lines = "\r\x1b[Ksaid\x1b[K\n\x1b[K0123456789\n\x1b[Kone\x1b[0m\n\x1b[Ktwo\x1b[0m\n\x1b[J";
        assert_eq!(frame, format!("{BEGIN}\x1b[2A{lines}{END}"));
    }

    #[test]
    fn colours_take_no_room_and_are_not_cut() {
        assert_eq!(cut("\x1b[31mab\x1b[0mcd", 3), ("\x1b[31mab\x1b[0m…".to_owned(), 3));
        assert_eq!(visible_width("\x1b[31mab\x1b[0mcd"), 4);
    }
}
