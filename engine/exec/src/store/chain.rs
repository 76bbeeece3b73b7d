//! The hash chain: each row carries the SHA-256 of the one before and of itself, so that a changed, lost or swapped
//! row shows. Rows cut off at the end do not: the last hash is known to nobody else.

use runback_core::event::{Event, EventBody};
use sha2::{Digest as _, Sha256};

use super::StoreError;

pub(super) type Hash = [u8; 32];

/// What the first row of a run follows.
pub(super) const GENESIS: Hash = [0; 32];

/// An event as it is stored.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) seq: u64,
    pub(super) at: u64,
    pub(super) kind: String,
    /// The event's body as JSON, its `type` included.
    pub(super) body: String,
    pub(super) hash: Vec<u8>,
}

/// Lengths stand before texts: no two different rows are the same bytes.
pub(super) fn link(previous: &Hash, run: &str, seq: u64, at: u64, kind: &str, body: &str) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(previous);
    for text in [run, kind, body] {
        hasher.update((text.len() as u64).to_le_bytes());
        hasher.update(text);
    }
    hasher.update(seq.to_le_bytes());
    hasher.update(at.to_le_bytes());
    hasher.finalize().into()
}

/// Walks the rows of one run in order and refuses the first that does not follow.
#[derive(Debug)]
pub(super) struct Walk<'r> {
    run: &'r str,
    next: u64,
    /// None before the first row of a walk that starts in the middle: that row is taken as it is.
    previous: Option<Hash>,
}

impl<'r> Walk<'r> {
    pub(super) fn from_start(run: &'r str) -> Self {
        Self { run, next: 1, previous: Some(GENESIS) }
    }

    /// Starts at row `seq`, which is trusted; those after it are checked against it.
    pub(super) fn from_row(run: &'r str, seq: u64) -> Self {
        Self { run, next: seq, previous: None }
    }

    pub(super) fn check(&mut self, row: &Row) -> Result<(), StoreError> {
        let bad = |seq, why: &str| StoreError::BadRow { run: self.run.to_owned(), seq, why: why.to_owned() };
        if row.seq != self.next {
            return Err(bad(self.next, "it is missing"));
        }
        let hash: Hash = row.hash.as_slice().try_into().map_err(|_| bad(row.seq, "its hash is cut"))?;
        if let Some(previous) = &self.previous
            && link(previous, self.run, row.seq, row.at, &row.kind, &row.body) != hash
        {
            return Err(bad(row.seq, "its hash does not follow from the row before and its content"));
        }
        self.previous = Some(hash);
        self.next = row.seq + 1;
        Ok(())
    }

    /// How many rows were seen, and the last hash.
    pub(super) fn end(&self) -> (u64, Hash) {
        (self.next - 1, self.previous.unwrap_or(GENESIS))
    }
}

pub(super) fn decode(run: &str, row: &Row) -> Result<Event, StoreError> {
    let body: EventBody = serde_json::from_str(&row.body).map_err(|error| StoreError::BadRow {
        run: run.to_owned(),
        seq: row.seq,
        why: error.to_string(),
    })?;
    Ok(Event { seq: row.seq, at: row.at, body })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn rows(count: u64) -> Vec<Row> {
        let mut previous = GENESIS;
        (1..=count)
            .map(|seq| {
                let body = format!("{{\"type\":\"x\",\"n\":{seq}}}");
                previous = link(&previous, "r", seq, seq * 10, "x", &body);
                Row { seq, at: seq * 10, kind: "x".into(), body, hash: previous.to_vec() }
            })
            .collect()
    }

    fn first_bad(rows: &[Row]) -> Option<u64> {
        let mut walk = Walk::from_start("r");
        rows.iter().find_map(|row| match walk.check(row) {
            Err(StoreError::BadRow { seq, .. }) => Some(seq),
            _ => None,
        })
    }

    #[test]
    fn names_the_first_bad_row() {
        let good = rows(5);
        assert_eq!(first_bad(&good), None);
        let mut changed = good.clone();
        changed[2].body = changed[2].body.replace('3', "4");
        assert_eq!(first_bad(&changed), Some(3));
        let mut late = good.clone();
        late[3].at += 1;
        assert_eq!(first_bad(&late), Some(4));
        let mut lost = good.clone();
        lost.remove(1);
        assert_eq!(first_bad(&lost), Some(2));
        let mut swapped = good.clone();
        swapped.swap(1, 2);
        assert_eq!(first_bad(&swapped), Some(2));
        let mut cut = good;
        cut[0].hash.pop();
        assert_eq!(first_bad(&cut), Some(1));
    }

    #[test]
    fn a_row_of_another_run_does_not_follow() {
        let mut walk = Walk::from_start("other");
        assert!(walk.check(&rows(1)[0]).is_err());
    }

    #[test]
    fn starts_in_the_middle() {
        let rows = rows(5);
        let mut walk = Walk::from_row("r", 3);
        walk.check(&rows[2]).unwrap();
        walk.check(&rows[3]).unwrap();
        assert_eq!(walk.end().0, 4);
        assert!(Walk::from_row("r", 2).check(&rows[2]).is_err());
    }
}
