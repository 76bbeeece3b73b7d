//! The blocklist, read from `ceph osd dump --format json`. (`ceph osd blocklist ls --format json` prints two arrays glued
//! together, in Ceph 16.2.15.)

use std::collections::BTreeMap;

use runback_core::step::{Cx, StepError};
use serde::Deserialize;

use crate::rbd::cli::{Connection, decode};

/// Address → when the entry ends, as the monitor wrote it.
pub(crate) type Entries = BTreeMap<String, String>;

#[derive(Deserialize)]
struct Dump {
    /// Missing before Ceph 16.
    blocklist: Option<Entries>,
}

/// Of the whole map only the blocklist is kept; a map of a thousand OSDs has about a megabyte.
const MAP_LIMIT: usize = 64 << 20;

pub(crate) async fn blocklist(cx: &Cx<'_>, connection: &Connection) -> Result<Entries, StepError> {
    let mut command = connection.ceph(cx, &["osd", "dump", "--format", "json"]).keep_stdout(MAP_LIMIT);
    command.log_output = false;
    let exit = connection.ran(cx, command, "the cluster's blocklist").await?;
    let dump: Dump = decode(&exit.stdout_text(), "ceph osd dump")?;
    dump.blocklist.ok_or_else(|| {
        StepError::permanent("the cluster has no blocklist under that name")
            .help("`ceph osd blocklist` came with Ceph 16; older clusters cannot be fenced by this step")
    })
}

/// In milliseconds since the epoch. Monitors write their own time zone.
pub(crate) fn ends_ms(until: &str) -> Option<i64> {
    let until = until.replacen(' ', "T", 1);
    let zoned = jiff::Timestamp::strptime("%Y-%m-%dT%H:%M:%S%.f%z", &until).ok();
    let plain =
        || jiff::civil::DateTime::strptime("%Y-%m-%dT%H:%M:%S%.f", &until).ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok();
    zoned.or_else(|| plain().map(|z| z.timestamp())).map(jiff::Timestamp::as_millisecond)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_monitors() {
        assert_eq!(ends_ms("1970-01-01T00:01:00.500000+0000"), Some(60_500));
        assert_eq!(ends_ms("1970-01-01T01:01:00.5+0100"), Some(60_500));
        assert_eq!(ends_ms("1970-01-01 00:01:00.500000"), Some(60_500));
        assert_eq!(ends_ms("soon"), None);
    }
}
