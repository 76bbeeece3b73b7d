//! Takes one change out of a text that others changed too, line by line. Knows nothing of files.

use super::diff::{Op, edit_script};

/// Lines `from..to` of the text that was left, and what stands in their place.
#[derive(Debug, PartialEq, Eq)]
struct Hunk<'t> {
    from: usize,
    to: usize,
    new: Vec<&'t str>,
}

impl Hunk<'_> {
    /// They are about the same line, or put lines into the same gap.
    fn meets(&self, other: &Hunk<'_>) -> bool {
        let both_insert = self.from == self.to && other.from == other.to;
        let overlaps = self.from < other.to && other.from < self.to;
        overlaps || (both_insert && self.from == other.from)
    }

    /// Everything that this does is done in the other too.
    fn is_in(&self, other: &Hunk<'_>) -> bool {
        let mut there = other.new.iter();
        let covered = other.from <= self.from && self.to <= other.to;
        covered && self.new.iter().all(|line| there.any(|l| bare(l) == bare(line)))
    }
}

/// A line without its end: whether the last line of a file has one is nobody's change.
fn bare(line: &str) -> &str {
    line.strip_suffix('\n').unwrap_or(line)
}

fn lines(text: &str) -> Vec<&str> {
    text.split_inclusive('\n').collect()
}

fn hunks<'t>(left: &[&str], other: &[&'t str]) -> Vec<Hunk<'t>> {
    let bares = |lines: &[&'t str]| lines.iter().map(|l| bare(l)).collect::<Vec<_>>();
    let script = edit_script(&left.iter().map(|l| bare(l)).collect::<Vec<_>>(), &bares(other));
    let (mut all, mut open, mut i, mut j) = (Vec::new(), None::<Hunk<'t>>, 0, 0);
    for op in script {
        if op == Op::Same {
            all.extend(open.take());
            (i, j) = (i + 1, j + 1);
            continue;
        }
        let hunk = open.get_or_insert_with(|| Hunk { from: i, to: i, new: Vec::new() });
        if op == Op::Out {
            i += 1;
            hunk.to = i;
        } else {
            hunk.new.push(other[j]);
            j += 1;
        }
    }
    all.extend(open);
    all
}

/// The text `now` without the change that led from `back` to `left`. None where others changed the same lines, so that
/// it cannot be told. `maybe_out` says that the change may not be there (any more): then it is no obstacle that others
/// changed the place where it would be.
pub(crate) fn take_out(left: &str, back: &str, now: &str, maybe_out: bool) -> Option<String> {
    let (left, now_lines) = (lines(left), lines(now));
    let back_lines = lines(back);
    let theirs = hunks(&left, &now_lines);
    let mut mine = hunks(&left, &back_lines);
    for hunk in std::mem::take(&mut mine) {
        let met: Vec<_> = theirs.iter().filter(|other| hunk.meets(other)).collect();
        if met.iter().any(|other| **other == hunk || (maybe_out && hunk.is_in(other))) {
            continue;
        }
        // Lines that the step had added and that others removed are gone either way.
        if met.iter().any(|other| !hunk.new.is_empty() || !other.new.is_empty()) {
            return None;
        }
        mine.push(hunk);
    }
    if mine.is_empty() {
        return Some(now.to_owned());
    }
    let gone = |hunks: &[Hunk<'_>], at: usize| hunks.iter().any(|h| (h.from..h.to).contains(&at));
    let mut merged: Vec<&str> = Vec::new();
    // Lines of `left` that stand in `now` too, in their order.
    let mut kept = now_kept(&theirs, &left, &now_lines).into_iter();
    for at in 0..=left.len() {
        let mut here: Vec<_> = mine.iter().chain(&theirs).filter(|h| h.from == at).collect();
        // What only adds stands before what replaces the line that follows.
        here.sort_by_key(|h| h.to > h.from);
        merged.extend(here.iter().flat_map(|h| &h.new));
        if at < left.len() && !gone(&theirs, at) {
            let line = kept.next();
            if !gone(&mine, at) {
                merged.extend(line);
            }
        }
    }
    if merged.iter().map(|l| bare(l)).eq(back_lines.iter().map(|l| bare(l))) {
        return Some(back.to_owned());
    }
    let mut text = String::new();
    for line in merged {
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(line);
    }
    Some(text)
}

fn now_kept<'t>(theirs: &[Hunk<'_>], left: &[&str], now: &[&'t str]) -> Vec<&'t str> {
    let (mut kept, mut j) = (Vec::new(), 0);
    for at in 0..=left.len() {
        j += theirs.iter().filter(|h| h.from == at).map(|h| h.new.len()).sum::<usize>();
        if at < left.len() && !theirs.iter().any(|h| (h.from..h.to).contains(&at)) {
            kept.push(now[j]);
            j += 1;
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_change_is_taken_out_and_others_stay() {
        // left, back, now, and what is left of it.
        let cases = [
            ("B\nc\n", "B\n", "B\na\nb\nc\nd\n", "B\na\nb\nd\n"),
            ("B\nc\n", "B\n", "X\nB\nc\n", "X\nB\n"),
            ("c\n", "", "a\nc\n", "a\n"),
            ("c\n", "", "c\n", ""),
            // The last line had no end.
            ("a\nb\nc\n", "a\nb", "a\nb\nx\nc\n", "a\nb\nx\n"),
            ("a\nb\nc\n", "a\nb", "a\nb\nc\n", "a\nb"),
            // A line that was replaced, beside one that others replaced.
            ("port=81\nhost=a\n", "port=80\nhost=a\n", "port=81\nhost=b\n", "port=80\nhost=b\n"),
            ("k\nport=81\n", "k\nport=80\n", "k2\nport=81\nnew\n", "k2\nport=80\nnew\n"),
            // Lines that were removed, each by its own step.
            ("y\nz\n", "x\ny\nz\n", "z\n", "x\nz\n"),
            ("x\nz\n", "x\ny\nz\n", "x\nz\n", "x\ny\nz\n"),
            ("x\nz\n", "x\ny\nz\n", "z\n", "y\nz\n"),
            // Gone already.
            ("B\nc\n", "B\n", "B\n", "B\n"),
            ("port=81\n", "port=80\n", "port=80\n", "port=80\n"),
        ];
        for (left, back, now, merged) in cases {
            assert_eq!(take_out(left, back, now, false).as_deref(), Some(merged), "{left:?} {back:?} {now:?}");
        }
    }

    #[test]
    fn what_others_changed_in_the_same_place_is_not_touched() {
        for (left, back, now) in
            [("port=81\n", "port=80\n", "port=82\n"), ("B\nc\n", "B\n", "B\nC\n"), ("a\nz\n", "a\nx\nz\n", "a\nw\nz\n")]
        {
            assert_eq!(take_out(left, back, now, false), None, "{left:?} {back:?} {now:?}");
        }
    }

    #[test]
    fn a_second_undo_finds_it_done() {
        for (left, back, now) in [("B\nc\n", "B\n", "B\na\nd\n"), ("a\nz\n", "a\nx\nz\n", "a\nx\ny\nz\n")] {
            assert_eq!(take_out(left, back, now, true).as_deref(), Some(now), "{left:?} {back:?} {now:?}");
        }
    }
}
