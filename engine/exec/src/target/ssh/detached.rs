//! Commands that outlive both runback and the connection. A small shell in a session of its own runs the command
//! there and keeps records in a folder: `pid` (with what tells it from a later process of the same number), `output`
//! (both streams, in order) and, once it has ended, `exit`. Attaching reads them from where it left off, over as many
//! connections as it takes. Knows nothing of the journal.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use runback_core::target::{Command, Detached, DetachedState, Exit, Stream, TargetError, TargetErrorKind, Watch};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::master::Host;
use super::session::{Call, Reply};

/// How long an attached command's host may be out of reach until it is an error.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// `rb_alive PID IDENTITY`. A zombie is not alive.
const ALIVE: &str = r#"
rb_field() { shift 19; i=$1; }
rb_identity() {
  b=; r=; i=
  read -r b </proc/sys/kernel/random/boot_id
  read -r r </proc/$1/stat
  r=${r##*) }
  case $r in [ZX]*) return 1 ;; esac
  [ -z "$r" ] || rb_field $r
  echo "$b:$i"
}
rb_alive() {
  if [ -r /proc/self/stat ]; then [ "$(rb_identity $1 2>/dev/null)" = "$2" ]; else kill -0 $1 2>/dev/null; fi
}
"#;

/// Runs in the new session. A signal to the group ends the command and not this shell, which writes the code.
const KEEPER: &str = r#"
d=$1
shift
trap : HUP INT TERM
i=none:
[ ! -r /proc/self/stat ] || i=$(rb_identity $$)
echo "$$ $i" >"$d/pid.new"
mv "$d/pid.new" "$d/pid"
"$@"
echo $? >"$d/exit"
"#;

/// `$1` the folder, `$2` the command's own folder, `$3` the cookie, `$4` the keeper's program. Asked twice, it starts
/// once: making the folder is the lock.
const START: &str = r#"
unset CDPATH
case $1 in "~/"*) d=$HOME/${1#??} ;; *) d=$1 ;; esac
w=$2 c=$3 k=$4
shift 4
(
  [ -z "$w" ] || cd -- "$w" 2>/dev/null || { rb_say cwd; exit 126; }
  rb_env
  case $1 in */*) [ -x "$1" ] && [ ! -d "$1" ] ;; *) command -v -- "$1" >/dev/null ;; esac || { rb_say missing; exit 127; }
) || exit
u=$(umask)
umask 077
mkdir -p "${d%/*}" || exit 1
rb_wait() {
  n=$1
  while [ $n -gt 0 ] && [ ! -s "$d/pid" ]; do rb_nap; n=$((n - 1)); done
  [ -s "$d/pid" ]
}
if mkdir "$d" 2>/dev/null || ! rb_wait 50; then
  cd "$d" && d=$(pwd -P) && cd - >/dev/null || exit 1
  if [ $I = - ]; then : >"$d/stdin"; else cat >"$d/stdin"; fi || exit 1
  s=nohup
  ! command -v setsid >/dev/null || s=setsid
  (
    trap - HUP TERM
    exec >"$d/output" 2>&1 <"$d/stdin" 4>&-
    umask $u
    [ -z "$w" ] || cd -- "$w"
    rb_env
    export RUNBACK_COOKIE=$c
    exec $s sh -c "$k" sh "$d" "$@"
  ) &
  rb_wait 100 || { echo "the command did not come up" >&2; exit 1; }
  rm -f "$d/stdin"
fi
cd "$d" && pwd -P && cat pid
"#;

const STATE: &str = r#"
if [ -s "$1/exit" ]; then echo ended
elif rb_alive "$2" "$3"; then echo running
elif [ -s "$1/exit" ]; then echo ended
else echo gone
fi
"#;

/// `$4` = how many bytes are known already. Says the exit code, or that there is none, when all is printed.
const FOLLOW: &str = r#"
d=$1 o=$4 q=0
[ -d "$d" ] || { rb_say gone; exit 0; }
while :; do
  e=1
  [ -s "$d/exit" ] || { rb_alive "$2" "$3" && e=0; }
  s=$(wc -c <"$d/output") || exit 1
  s=$((s))
  q=$((q + 1))
  if [ $s -gt $o ]; then
    tail -c +$((o + 1)) "$d/output" | head -c $((s - o)) || exit 1
    o=$s q=0
  fi
  [ $e = 0 ] || break
  if [ $q -gt 20 ]; then sleep 1; else rb_nap; fi
done
if [ -s "$d/exit" ]; then rb_say code $(cat "$d/exit"); else rb_say gone; fi
"#;

/// `$4` = the cookie.
const KILL: &str = r#"
C=RUNBACK_COOKIE=$4
rb_left() { if [ -r /proc/self/environ ]; then [ -n "$(rb_ours)" ]; else kill -0 $2 2>/dev/null; fi; }
rb_all() {
  if [ -r /proc/self/environ ]; then rb_signal $1; else kill -$1 -$2 2>/dev/null || kill -$1 $2; fi
}
if rb_alive "$2" "$3"; then rb_all TERM $2; fi
rb_grace rb_left x $2
n=50
while [ $n -gt 0 ] && rb_left x $2; do rb_all KILL $2; rb_nap; n=$((n - 1)); done
! rb_left x $2
"#;

/// The folder goes, and those above it that were made for it and are empty now.
const REMOVE: &str = r#"
rm -rf "$1"
p=${1%/*}
rmdir "$p" 2>/dev/null && case ${p%/*} in */.runback) rmdir "${p%/*}" 2>/dev/null ;; esac
:
"#;

/// The same whether the folder is named from the home or from the root: its last two names.
fn cookie(dir: &str) -> String {
    let mut names = dir.rsplit('/');
    let (last, run) = (names.next().unwrap_or_default(), names.next().unwrap_or_default());
    let hash = Sha256::digest(format!("{run}/{last}").as_bytes());
    hash.iter().take(8).fold("detached-".to_owned(), |mut out, b| {
        use std::fmt::Write as _;
        let _ = write!(out, "{b:02x}");
        out
    })
}

/// Nobody watches the small work around a command.
struct Unwatched(Duration);

#[async_trait::async_trait]
impl Watch for Unwatched {
    fn output(&self, _: Stream, _: &[u8]) {}
    async fn stopped(&self) {
        std::future::pending::<()>().await;
    }
    fn kill_grace(&self) -> Duration {
        self.0
    }
}

/// Where records go on the far side: under the home of the user who runs the command.
pub(super) fn dir(run: &str, step: &str, attempt: u32) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-.".contains(c) { c } else { '_' };
    let name: String = step.chars().map(plain).take(80).collect();
    let hash = Sha256::digest(step.as_bytes());
    let tag = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
    format!("~/.runback/{run}/{name}.{tag:08x}.{attempt}")
}

/// Small and idempotent work: a connection that is lost in the middle of it is tried again at once.
async fn again(host: &Host, call: &Call<'_>, watch: &dyn Watch) -> Result<Reply, TargetError> {
    match host.call(call, watch).await {
        Err(e) if e.kind == TargetErrorKind::Connection => host.call(call, watch).await,
        other => other,
    }
}

pub(super) async fn start(host: &Host, command: &Command, dir: &str) -> Result<Detached, TargetError> {
    let env = super::checked_env(host, command)?;
    let (cookie, keeper) = (cookie(dir), format!("{ALIVE}{KEEPER}"));
    let cwd = command.cwd.as_deref().unwrap_or_default();
    let mut args = vec![dir, cwd, &cookie, &keeper];
    args.extend(command.argv.iter().map(String::as_str));
    let name = command.argv.first().map_or("", String::as_str);
    let call = Call { env: &env, stdin: command.stdin.as_deref(), ..Call::new(name, START, &args) };
    let reply = again(host, &call, &Unwatched(Duration::from_secs(2))).await?;
    super::check_started(host, command, &reply)?;
    let text = String::from_utf8_lossy(&reply.stdout);
    let mut lines = text.lines();
    let record = lines.next().zip(lines.next().and_then(|l| l.split_once(' ')));
    match record.and_then(|(dir, (pid, identity))| Some((dir, pid.parse().ok()?, identity))) {
        Some((dir, pid, identity)) if reply.code == 0 => {
            Ok(Detached { dir: dir.to_owned(), pid, identity: identity.to_owned() })
        }
        _ => {
            let said = reply.stderr_text();
            let message = format!(
                "{name} could not be started on {}: {}",
                host.label(),
                said.lines().last().unwrap_or("no word why")
            );
            Err(TargetError::new(TargetErrorKind::Other, message).help(format!("its records go to {dir} there")))
        }
    }
}

fn known(detached: &Detached) -> (String, String) {
    (format!("{ALIVE}{STATE}"), detached.pid.to_string())
}

pub(super) async fn state(host: &Host, detached: &Detached) -> Result<DetachedState, TargetError> {
    let (body, pid) = known(detached);
    let args = [detached.dir.as_str(), &pid, &detached.identity];
    let reply = again(host, &Call::new("the state of a command", &body, &args), &Unwatched(Duration::ZERO)).await?;
    match String::from_utf8_lossy(&reply.stdout).trim() {
        "ended" => Ok(DetachedState::Ended),
        "running" => Ok(DetachedState::Running),
        "gone" => Ok(DetachedState::Gone),
        _ => {
            let message = format!("{}: the state of process {pid} is not known: {}", host.label(), reply.stderr_text());
            Err(TargetError::new(TargetErrorKind::Other, message))
        }
    }
}

/// Passes output on and counts it, over several connections.
struct Follower<'a> {
    outer: &'a dyn Watch,
    log: bool,
    keep: usize,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    bytes: u64,
    exit: Exit,
}

#[async_trait::async_trait]
impl Watch for Follower<'_> {
    fn output(&self, stream: Stream, bytes: &[u8]) {
        if stream != Stream::Stdout {
            return;
        }
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.bytes += bytes.len() as u64;
            let exit = &mut seen.exit;
            let room = self.keep - exit.stdout.len();
            exit.stdout.extend_from_slice(&bytes[..bytes.len().min(room)]);
            exit.stdout_cut |= self.keep > 0 && bytes.len() > room;
            // Both streams came as one, so the tail is of that.
            exit.stderr_tail.extend_from_slice(bytes);
            let over = exit.stderr_tail.len().saturating_sub(Exit::TAIL);
            exit.stderr_tail.drain(..over);
        }
        if self.log {
            self.outer.output(stream, bytes);
        }
    }

    async fn stopped(&self) {
        self.outer.stopped().await;
    }

    /// Of the one that reads; the command has its own.
    fn kill_grace(&self) -> Duration {
        Duration::ZERO
    }
}

pub(super) async fn attach(
    host: &Host,
    detached: &Detached,
    command: &Command,
    watch: &dyn Watch,
) -> Result<Exit, TargetError> {
    let name = command.argv.first().map_or("the command", String::as_str);
    let follower =
        Follower { outer: watch, log: command.log_output, keep: command.keep_stdout, seen: Mutex::default() };
    let end = command.timeout.map(|t| Instant::now() + t);
    let reply = follow(host, detached, name, end, &follower).await;
    let reply = match reply {
        Err(e) if matches!(e.kind, TargetErrorKind::Cancelled | TargetErrorKind::Timeout) => {
            return Err(stop(host, detached, command, watch, e.kind).await);
        }
        reply => reply?,
    };
    let code = reply.said.iter().find_map(|s| s.strip_prefix("code ")?.parse().ok());
    let Some(code) = code else {
        remove(host, detached).await?;
        let message = format!(
            "{name} (pid {} on {}) does not run any more and left no exit code in {}",
            detached.pid,
            host.label(),
            detached.dir
        );
        return Err(TargetError::new(TargetErrorKind::Other, message)
            .help("the machine was restarted, or somebody killed it with -9; look at what it left behind"));
    };
    let seen = follower.seen.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(Exit { code: Some(code), ..seen.exit })
}

/// Reads to the end, over as many connections as it takes.
async fn follow(
    host: &Host,
    detached: &Detached,
    name: &str,
    end: Option<Instant>,
    follower: &Follower<'_>,
) -> Result<Reply, TargetError> {
    let (body, pid) = (format!("{ALIVE}{FOLLOW}"), detached.pid.to_string());
    let mut lost: Option<Instant> = None;
    let mut pause = Duration::from_millis(200);
    loop {
        let offset = follower.seen.lock().unwrap_or_else(PoisonError::into_inner).bytes;
        let args = [detached.dir.as_str(), &pid, &detached.identity, &offset.to_string()];
        let timeout = end.map(|end| end.saturating_duration_since(Instant::now()));
        let call = Call { log: true, keep: 0, timeout, ..Call::new(name, &body, &args) };
        let error = match host.call(&call, follower).await {
            Ok(reply) if !reply.said.is_empty() => return Ok(reply),
            // Something else stopped the reader there.
            Ok(reply) => TargetError::new(
                TargetErrorKind::Connection,
                format!("the output of {name} cannot be read on {}: {}", host.label(), reply.stderr_text()),
            ),
            Err(e) if e.kind == TargetErrorKind::Connection => e,
            Err(e) => return Err(e),
        };
        let now = Instant::now();
        let moved = follower.seen.lock().unwrap_or_else(PoisonError::into_inner).bytes > offset;
        if moved {
            (lost, pause) = (None, Duration::from_millis(200));
        }
        if now > *lost.get_or_insert(now) + PATIENCE {
            return Err(error.help(format!("{name} goes on there by itself; its records are in {}", detached.dir)));
        }
        let rest = end.map_or(pause, |end| pause.min(end.saturating_duration_since(now)));
        tokio::select! {
            () = tokio::time::sleep(rest) => {}
            () = follower.outer.stopped() => {
                return Err(TargetError::new(TargetErrorKind::Cancelled, format!("{name} was stopped")));
            }
        }
        if end.is_some_and(|end| Instant::now() >= end) {
            return Err(TargetError::new(TargetErrorKind::Timeout, format!("{name} was stopped")));
        }
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

async fn stop(
    host: &Host,
    detached: &Detached,
    command: &Command,
    watch: &dyn Watch,
    kind: TargetErrorKind,
) -> TargetError {
    let name = command.argv.first().map_or("the command", String::as_str);
    let (body, pid, cookie) = (format!("{ALIVE}{KILL}"), detached.pid.to_string(), cookie(&detached.dir));
    let args = [detached.dir.as_str(), &pid, &detached.identity, &cookie];
    let killed = again(host, &Call::new(name, &body, &args), &Unwatched(watch.kill_grace())).await;
    let mut message = match (kind, command.timeout) {
        (TargetErrorKind::Timeout, Some(after)) => {
            format!("{name} was stopped: it ran longer than its timeout of {after:?}")
        }
        _ => format!("{name} was stopped"),
    };
    match killed {
        Ok(reply) if reply.code == 0 => {
            // The error that counts is that it was stopped.
            let _ = remove(host, detached).await;
            TargetError::new(kind, message)
        }
        Ok(_) => {
            message.push_str("; some of its processes do not die even by KILL");
            TargetError::new(kind, message)
        }
        Err(e) => {
            message.push_str(", but it could not be told so: ");
            message.push_str(&e.message);
            TargetError::new(kind, message).help(format!("process {pid} may still run on {}", host.label()))
        }
    }
}

pub(super) async fn remove(host: &Host, detached: &Detached) -> Result<(), TargetError> {
    let args = [detached.dir.as_str()];
    let call = Call::new("removing the records of a command", REMOVE, &args);
    again(host, &call, &Unwatched(Duration::ZERO)).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_two_steps_never_share_a_folder() {
        let one = dir("r1", "a/b", 1);
        assert!(one.starts_with("~/.runback/r1/a_b.") && one.ends_with(".1"), "{one}");
        assert_ne!(one, dir("r1", "a_b", 1));
        assert_eq!(cookie(&one), cookie(&one.replace('~', "/root")));
    }
}
