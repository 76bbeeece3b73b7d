//! Ids of runs: `20261121-1847-k3f9`. They sort by time (UTC, to the minute), and are short enough to type.

use std::hash::{BuildHasher as _, Hasher as _};

/// Without what is mistaken for something else: 0 and o, 1, i and l.
const LETTERS: &[u8; 31] = b"23456789abcdefghjkmnpqrstuvwxyz";

/// `now` in milliseconds since the epoch. Two of the same minute are the same once in 900,000 times: the store
/// refuses the second, and its caller asks for another.
pub(crate) fn new(now: u64) -> String {
    let at = i64::try_from(now).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()).unwrap_or_default();
    let minute = at.to_zoned(jiff::tz::TimeZone::UTC).strftime("%Y%m%d-%H%M").to_string();
    // The standard library's own random keys, from the system.
    let mut random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    let mut id = minute + "-";
    for _ in 0..4 {
        id.push(char::from(LETTERS[(random % 31) as usize]));
        random /= 31;
    }
    id
}

#[cfg(test)]
mod tests {
    #[test]
    fn ids_sort_by_time() {
        let (a, b) = (super::new(1_795_286_823_000), super::new(1_795_286_883_000));
        assert!(a < b && a.starts_with("20261121-") && a.len() == 18, "{a} {b}");
    }
}
