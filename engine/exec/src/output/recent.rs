//! The last lines of an output, as a person would have seen them on a terminal.

/// Enough for twenty long lines.
const KEEP: usize = 16 << 10;
/// In characters.
const LINE: usize = 200;

/// The end of an output; constant memory, and nothing is parsed until somebody asks.
#[derive(Default)]
pub(super) struct Recent(Vec<u8>);

impl Recent {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(KEEP)..];
        if self.0.len() + bytes.len() > 2 * KEEP {
            let old = self.0.len() - KEEP.min(self.0.len());
            self.0.drain(..old);
        }
        self.0.extend_from_slice(bytes);
    }

    /// The last `count` lines that are not empty, oldest first.
    pub(super) fn lines(&self, count: usize) -> Vec<String> {
        let mut lines: Vec<String> = self.0.rsplit(|b| *b == b'\n').filter_map(visible).take(count).collect();
        lines.reverse();
        lines
    }
}

/// What is left on screen of one line; None when that is nothing. A carriage return starts it over.
fn visible(line: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(line);
    let mut pieces = text.rsplit('\r').map(plain);
    pieces.find(|piece| !piece.is_empty())
}

/// Without escape sequences and control characters, cut to [`LINE`].
fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut length = 0;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => match chars.next() {
                // CSI: up to its final byte.
                Some('[') => while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {},
                // Strings (OSC, DCS, …): up to BEL or ESC \.
                Some(']' | 'P' | 'X' | '^' | '_') => {
                    while let Some(c) = chars.next() {
                        if c == '\u{7}' || (c == '\u{1b}' && chars.next_if_eq(&'\\').is_some()) {
                            break;
                        }
                    }
                }
                Some('(' | ')' | '#' | '%') => drop(chars.next()),
                _ => {}
            },
            c if length == LINE || (c.is_control() && c != '\t') => {}
            c => {
                out.push(if c == '\t' { ' ' } else { c });
                length += 1;
            }
        }
    }
    out.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[u8], count: usize) -> Vec<String> {
        let mut recent = Recent::default();
        recent.push(text);
        recent.lines(count)
    }

    #[test]
    fn lines_look_as_on_a_terminal() {
        let text = b"one\n\x1b[1;32mgreen\x1b[0m\ttab\r\n\n 10%\r 50%\r100%\n\x1b]0;title\x07\x1b(Bend\n \n";
        assert_eq!(lines(text, 9), ["one", "green tab", "100%", "end"]);
        assert_eq!(lines(text, 1), ["end"]);
        assert_eq!(lines(b"progress 7%\r", 1), ["progress 7%"]);
        assert_eq!(lines("ä".repeat(500).as_bytes(), 1)[0].chars().count(), 200);
        assert!(lines(b"\n\x1b[K\n", 5).is_empty());
    }

    #[test]
    fn memory_is_bounded() {
        let mut recent = Recent::default();
        for i in 0..50_000 {
            recent.push(format!("line {i}\n").as_bytes());
            assert!(recent.0.len() <= 2 * KEEP);
        }
        recent.push(&vec![b'x'; 1 << 20]);
        assert!(recent.0.len() <= 2 * KEEP);
        recent.push(b"\nlast");
        assert_eq!(recent.lines(1), ["last"]);
    }
}
