//! Finding and stopping a whole tree of processes: by session, by process group, and by the cookie that survives
//! `setsid` and a double fork. Knows nothing of pipes or exit codes.

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::time::Instant;

/// How long KILL may take until we say that something does not die. What hangs in the kernel (a dead NFS server)
/// does not die at all.
const KILL_TAKES: Duration = Duration::from_secs(5);

/// Which processes are meant.
pub(crate) struct Claim<'a> {
    /// Leaders of sessions, which are leaders of a group too.
    pub(crate) leaders: &'a [i32],
    /// Is this entry of an environment (`NAME=value`) one of ours?
    pub(crate) cookie: &'a dyn Fn(&[u8]) -> bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    All,
    /// Not those in the group of a leader, which got the signal all at once.
    Escaped,
    /// None; only count.
    Nobody,
}

/// From /proc/PID/stat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) state: u8,
    pub(crate) group: i32,
    pub(crate) session: i32,
    /// In clock ticks since boot.
    pub(crate) started: u64,
}

impl Stat {
    pub(crate) fn of(pid: i32) -> Option<Self> {
        Self::parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The name in brackets may hold anything, so the fields count from the last bracket: state is the 3rd of the
    /// line, group the 5th, session the 6th, start time the 22nd (proc(5)).
    fn parse(line: &[u8]) -> Option<Self> {
        let end = line.iter().rposition(|&b| b == b')')?;
        let rest = std::str::from_utf8(&line[end + 1..]).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        let group = fields.nth(1)?.parse().ok()?;
        let session = fields.next()?.parse().ok()?;
        let started = fields.nth(15)?.parse().ok()?;
        Some(Self { state, group, session, started })
    }

    /// A zombie only waits for its exit code to be fetched.
    pub(crate) fn alive(self) -> bool {
        !matches!(self.state, b'Z' | b'X')
    }
}

impl Claim<'_> {
    /// The process if it is alive and ours.
    fn holds(&self, pid: i32) -> Option<Stat> {
        let stat = Stat::of(pid).filter(|stat| stat.alive())?;
        if self.leaders.contains(&stat.session) || self.leaders.contains(&stat.group) {
            return Some(stat);
        }
        // Unreadable = another user's, or gone since.
        let environ = fs::read(format!("/proc/{pid}/environ")).ok()?;
        environ.split(|&b| b == 0).any(self.cookie).then_some(stat)
    }

    /// Looks at every process once and signals those of ours that are within reach; returns how many are ours and
    /// alive, within reach or not.
    pub(crate) fn signal(&self, signal: Signal, reach: Reach) -> usize {
        let Ok(entries) = fs::read_dir("/proc") else { return 0 };
        let me = std::process::id().cast_signed();
        let pids = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
        let mut alive = 0;
        for pid in pids.filter(|&pid| pid != me) {
            let Some(stat) = self.holds(pid) else { continue };
            alive += 1;
            let within = match reach {
                Reach::All => true,
                Reach::Escaped => !self.leaders.contains(&stat.group),
                Reach::Nobody => false,
            };
            if within {
                self.signal_one(pid, signal);
            }
        }
        alive
    }

    /// The pidfd is taken first and the claim looked at again after, so that a reused pid is never hit.
    fn signal_one(&self, pid: i32, signal: Signal) {
        let Some(fd) = Pid::from_raw(pid).and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok())
        else {
            return;
        };
        if self.holds(pid).is_some() {
            // Gone since, or another user's (setuid): nothing that we could do.
            let _ = rustix::process::pidfd_send_signal(&fd, signal);
        }
    }
}

/// A command's processes. Its leader must not be reaped while this is used: until then the kernel gives its pid,
/// and the numbers of its group and session, to nobody else.
#[derive(Debug)]
pub(crate) struct Tree<'a> {
    pub(crate) leader: Pid,
    /// `RUNBACK_COOKIE=…`, whole.
    pub(crate) cookie: &'a str,
}

impl Tree<'_> {
    fn signal(&self, signal: Signal, reach: Reach) -> usize {
        let leaders = [self.leader.as_raw_pid()];
        let cookie = |entry: &[u8]| entry == self.cookie.as_bytes();
        Claim { leaders: &leaders, cookie: &cookie }.signal(signal, reach)
    }

    /// KILL at once for all that is there now, without looking whether it died.
    pub(crate) fn kill_now(&self) {
        let _ = rustix::process::kill_process_group(self.leader, Signal::KILL);
        self.signal(Signal::KILL, Reach::Escaped);
    }

    /// TERM, up to `grace` to end in, then KILL for what is left. Returns how many survived even that.
    pub(crate) async fn stop(&self, grace: Duration) -> usize {
        // The group at once: nobody in it can fork away from the signal.
        let _ = rustix::process::kill_process_group(self.leader, Signal::TERM);
        self.signal(Signal::TERM, Reach::Escaped);
        let left = self.until_gone(grace, || self.signal(Signal::TERM, Reach::Nobody)).await;
        if left == 0 {
            return 0;
        }
        self.until_gone(KILL_TAKES, || {
            let _ = rustix::process::kill_process_group(self.leader, Signal::KILL);
            self.signal(Signal::KILL, Reach::Escaped)
        })
        .await
    }

    /// Calls `look` until it says zero or the time is over; returns what it said last. A look costs about a
    /// millisecond, hence the growing pauses.
    async fn until_gone(&self, within: Duration, look: impl Fn() -> usize) -> usize {
        let end = Instant::now() + within;
        let mut pause = Duration::from_millis(2);
        loop {
            let left = look();
            let now = Instant::now();
            if left == 0 || now >= end {
                return left;
            }
            tokio::time::sleep(pause.min(end - now)).await;
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let line = b"42 (a) b (c) S 7 40 41 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 123456 0 0";
        let stat = Stat::parse(line).unwrap();
        assert_eq!(stat, Stat { state: b'S', group: 40, session: 41, started: 123_456 });
        assert!(stat.alive());
        assert!(Stat::parse(b"42 (sh) Z 1").is_none());
        assert!(Stat::parse(b"").is_none());
    }

    #[test]
    fn we_see_ourselves() {
        let stat = Stat::of(std::process::id().cast_signed()).unwrap();
        assert!(stat.alive() && stat.started > 0);
    }
}
