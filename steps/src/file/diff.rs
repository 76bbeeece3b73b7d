//! The difference of two small texts, line by line, and a unified diff of them for previews. Knows nothing of files.

/// Lines around a change that are shown.
const CONTEXT: usize = 3;
/// Above this many cells (changed lines of one side times those of the other) the middle is one big change.
const MAX_CELLS: usize = 4_000_000;
/// Lines of output; the rest is counted.
const MAX_LINES: usize = 200;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Same,
    Out,
    In,
}

/// Empty where the texts are the same.
pub(crate) fn unified(path: &str, old: &str, new: &str) -> Vec<String> {
    if old == new {
        return Vec::new();
    }
    let (old, new): (Vec<&str>, Vec<&str>) = (old.split_inclusive('\n').collect(), new.split_inclusive('\n').collect());
    let script = edit_script(&old, &new);
    let mut out = vec![format!("--- {path}"), format!("+++ {path}")];
    for (from, to) in hunks(&script) {
        write_hunk(&script, from, to, &old, &new, &mut out);
    }
    if out.len() > MAX_LINES {
        let more = out.len() - MAX_LINES;
        out.truncate(MAX_LINES);
        out.push(format!("… {more} more lines"));
    }
    out
}

/// One operation per line, in order.
pub(crate) fn edit_script(old: &[&str], new: &[&str]) -> Vec<Op> {
    let head = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (old, new) = (&old[head..], &new[head..]);
    let tail = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count();
    let (old, new) = (&old[..old.len() - tail], &new[..new.len() - tail]);
    let mut script = vec![Op::Same; head];
    if old.len().saturating_mul(new.len()) > MAX_CELLS {
        script.extend(std::iter::repeat_n(Op::Out, old.len()));
        script.extend(std::iter::repeat_n(Op::In, new.len()));
    } else {
        middle(old, new, &mut script);
    }
    script.extend(std::iter::repeat_n(Op::Same, tail));
    script
}

/// The longest common subsequence by the plain table.
fn middle(old: &[&str], new: &[&str], script: &mut Vec<Op>) {
    let width = new.len() + 1;
    let mut common = vec![0u32; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i * width + j] = if old[i] == new[j] {
                common[(i + 1) * width + j + 1] + 1
            } else {
                common[(i + 1) * width + j].max(common[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            script.push(Op::Same);
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && common[(i + 1) * width + j] >= common[i * width + j + 1]) {
            script.push(Op::Out);
            i += 1;
        } else {
            script.push(Op::In);
            j += 1;
        }
    }
}

/// Ranges of the script: changes with their context, those that touch joined.
fn hunks(script: &[Op]) -> Vec<(usize, usize)> {
    let mut all: Vec<(usize, usize)> = Vec::new();
    for (at, _) in script.iter().enumerate().filter(|(_, op)| **op != Op::Same) {
        let (from, to) = (at.saturating_sub(CONTEXT), (at + CONTEXT + 1).min(script.len()));
        match all.last_mut() {
            Some(last) if from <= last.1 => last.1 = to,
            _ => all.push((from, to)),
        }
    }
    all
}

fn write_hunk(script: &[Op], from: usize, to: usize, old: &[&str], new: &[&str], out: &mut Vec<String>) {
    let count = |ops: &[Op], not: Op| ops.iter().filter(|op| **op != not).count();
    let (mut i, mut j) = (count(&script[..from], Op::In), count(&script[..from], Op::Out));
    let (olds, news) = (count(&script[from..to], Op::In), count(&script[from..to], Op::Out));
    // As diff does: an empty side names the line before it.
    let start = |at: usize, len: usize| if len == 0 { at } else { at + 1 };
    out.push(format!("@@ -{},{olds} +{},{news} @@", start(i, olds), start(j, news)));
    for op in &script[from..to] {
        let (sign, line) = match op {
            Op::Same | Op::Out => (if *op == Op::Same { ' ' } else { '-' }, old[i]),
            Op::In => ('+', new[j]),
        };
        i += usize::from(*op != Op::In);
        j += usize::from(*op != Op::Out);
        out.push(format!("{sign}{}", line.trim_end_matches(['\n', '\r'])));
        if !line.ends_with('\n') {
            out.push("\\ No newline at end of file".to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_changes_with_their_context() {
        let old: String = (1..=20).fold(String::new(), |all, n| all + &format!("line {n}\n"));
        let new = old.replace("line 3\n", "three\n").replace("line 18\n", "line 18\nmore\n");
        assert_eq!(
            unified("/f", &old, &new),
            [
                "--- /f",
                "+++ /f",
                "@@ -1,6 +1,6 @@",
                " line 1",
                " line 2",
                "-line 3",
                "+three",
                " line 4",
                " line 5",
                " line 6",
                "@@ -16,5 +16,6 @@",
                " line 16",
                " line 17",
                " line 18",
                "+more",
                " line 19",
                " line 20",
            ]
        );
    }

    #[test]
    fn new_empty_and_unended_texts() {
        assert_eq!(unified("/f", "", "a\n"), ["--- /f", "+++ /f", "@@ -0,0 +1,1 @@", "+a"]);
        assert_eq!(
            unified("/f", "a", "a\n"),
            ["--- /f", "+++ /f", "@@ -1,1 +1,1 @@", "-a", "\\ No newline at end of file", "+a"]
        );
        assert!(unified("/f", "a\n", "a\n").is_empty());
    }

    #[test]
    fn a_moved_line_is_one_out_and_one_in() {
        let diff = unified("/f", "a\nb\nc\nd\n", "b\nc\na\nd\n");
        let signs: String = diff[3..].iter().filter_map(|l| l.chars().next()).collect();
        assert_eq!(signs, "-  + ");
    }

    #[test]
    fn a_huge_diff_is_bounded() {
        let many = |word: &str| (0..5000).fold(String::new(), |all, n| all + &format!("{word} {n}\n"));
        let diff = unified("/f", &many("old"), &many("new"));
        assert_eq!(diff.len(), MAX_LINES + 1);
        assert_eq!(diff[MAX_LINES], "… 9803 more lines");
    }
}
