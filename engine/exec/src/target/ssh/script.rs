//! The POSIX-shell programs that run on the far side. Nothing is installed there: the command line holds a
//! short, constant loader, and the program comes as the first line of standard input, so that neither it nor the
//! environment of a command (secrets) is in the far side's list of processes.
//!
//! Standard input then stays open for as long as the program runs. Its end means that runback is gone, or that the
//! program shall stop: TERM to its whole group and to whatever carries its cookie, the grace, KILL. What the
//! program says about itself (exit code, …) goes to stderr in records that begin with \001 and the key of this call,
//! because ssh's own exit code 255 may mean anything. One more ends stdout: on a slow link up to 2 MB of it wait in sshd
//! while stderr overtakes them (OpenSSH 9.2).
//!
//! Written for dash, busybox and bash; tested with these. Where there is no /proc (not Linux) a process that leaves
//! the group is not found, and the grace is always waited out.

use std::fmt::Write as _;

use runback_core::target::quote;

/// What the login shell is given; it may be any shell that knows single quotes, csh and fish too. `N` is a newline:
/// the third character of the IFS that every shell starts with.
const LOADER: &str = "exec sh -c 'N=${IFS#??};IFS= read -r R&&eval \"$R\"'";

/// The command line for the far side.
pub(super) fn loader(become_user: Option<&str>) -> String {
    match become_user {
        None => LOADER.to_owned(),
        Some(user) => {
            let run = LOADER.strip_prefix("exec ").unwrap_or(LOADER);
            format!("exec sudo -n -H -u {} -- {run}", quote(user))
        }
    }
}

/// What a program is given.
pub(super) struct Program<'a> {
    /// 16 hex digits, different for each call.
    pub(super) key: &'a str,
    /// Runs in a subshell with `args` as its positional parameters.
    pub(super) body: &'a str,
    pub(super) args: &'a [&'a str],
    pub(super) env: &'a [(&'a str, &'a str)],
    /// Length of the standard input; None = /dev/null.
    pub(super) stdin: Option<usize>,
    /// TERM to KILL, in tenths of a second.
    pub(super) grace: u64,
    /// See [`super::master::Facts::exact_blocks`].
    pub(super) exact_blocks: bool,
}

impl Program<'_> {
    /// The first line of standard input, with its newline.
    pub(super) fn line(&self) -> String {
        let mut line = format!(
            "K={} G={} X={} I={};",
            self.key,
            self.grace,
            u8::from(self.exact_blocks),
            match self.stdin {
                None => "-".to_owned(),
                Some(n) => n.to_string(),
            }
        );
        let mut env = String::from("rb_env() { :");
        for (name, value) in self.env {
            let _ = write!(env, "; export {name}={}", word(value));
        }
        env.push_str("; }");
        line.push_str(&env);
        line.push_str("; set --");
        for arg in self.args {
            line.push(' ');
            line.push_str(&word(arg));
        }
        let body = format!("rb_body() {{\n{}\n}}\n{WRAPPER}", self.body);
        let _ = write!(line, "; eval {}", word(&body));
        line.push('\n');
        line
    }
}

/// One word of a POSIX shell without a newline in it.
fn word(text: &str) -> String {
    let quoted = if text.contains('\n') { format!("'{}'", text.replace('\'', r"'\''")) } else { quote(text) };
    quoted.replace('\n', "'\"$N\"'")
}

/// Names that `export` takes.
pub(super) fn is_variable(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Runs `rb_body` and says how it ended. `rb_ours` lists the processes that carry the cookie: `head` puts a line with
/// its name before each file, and `grep` of busybox stops at a NUL. `rb_watch` waits for the end of standard input (descriptor 3) beside it.
/// The shells' own stderr goes nowhere (they tell of every process that was killed); descriptor 4 is the real one.
/// The first of two reads its own number from /proc/self; `$$` is the outer shell's everywhere. Where the connection is
/// gone, what `rb_watch` says ends in a broken pipe, and it must not. The shell of `rb_body` has no cookie, as it is none of
/// those that were started with one: that it is over, with what it removes at its end, is told by USR1. `rb_grace` waits for
/// as long as its command succeeds, by the clock where there is one (`rb_clock`: tenths of a second since the far side's
/// start), because a look at all processes takes its time too.
const WRAPPER: &str = r#"
C=RUNBACK_COOKIE=$K
S= E=
rb_say() { printf '\001rb:%s:%s\n' "$K" "$*" >&4; }
rb_clock() { IFS=. read -r u r </proc/uptime && u=$u${r%"${r#?}"}; }
rb_nap() { sleep 0.1 2>/dev/null && return; sleep 1; n=$((n - 9)); }
rb_ours() {
  head -n 9999 /proc/[0-9]*/environ | tr '\0' '\n' |
    sed -n -e '/^==> .proc/{s/[^0-9]//g;h;}' -e "/^$C\$/{g;p;}"
}
rb_group() { r=; read -r r 2>/dev/null </proc/$1/stat; r=${r##*) }; set -- $r; g=$3; }
rb_signal() {
  rb_group $$; own=$g
  for p in $(rb_ours); do
    rb_group $p
    [ "$1" = TERM ] && [ "$g" = "$own" ] || kill -$1 $p 2>/dev/null
  done
}
rb_grace() {
  n=$G
  rb_clock; b=$u
  while [ $n -gt 0 ] && [ $((u - b)) -lt $G ] && "$@"; do rb_nap; n=$((n - 1)); rb_clock; done
}
rb_lives() { [ -z "$E" ] || [ -n "$(rb_ours)" ]; }
rb_watch() {
  trap '' TERM PIPE
  trap E=1 USR1
  while IFS= read -r r <&3; do :; done
  kill -TERM 0
  if [ -r /proc/$$/environ ]; then
    rb_signal TERM
    rb_grace rb_lives
    n=50
    while [ $n -gt 0 ] && [ -n "$(rb_ours)" ]; do rb_signal KILL; rb_nap; n=$((n - 1)); done
    set -- $(rb_ours)
    rb_say stopped $#
  else
    rb_grace true
    rb_say stopped 0
  fi
  kill -KILL 0
}
rb_pump() {
  if [ $X = 1 ]; then
    [ $1 -lt 65536 ] || dd bs=65536 count=$(($1 / 65536)) iflag=fullblock 2>/dev/null
    [ $(($1 % 65536)) = 0 ] || dd bs=$(($1 % 65536)) count=1 iflag=fullblock 2>/dev/null
  elif [ $1 != 0 ]; then
    dd bs=1 count=$1 2>/dev/null
  fi
}
rb_self() { read -r r p 2>/dev/null </proc/self/stat && echo $r || sh -c 'echo $PPID'; }
rb_end() {
  [ -z "$S" ] || { kill -USR1 $B; exec sleep 60; } 2>/dev/null
  kill -KILL $B 2>/dev/null
  rb_say exit $c
  printf '\001rb:%s:end\n' "$K"
}
exec 3<&0 </dev/null 4>&2 2>/dev/null
trap S=1 TERM
if [ $I = - ]; then
  rb_watch >/dev/null & B=$!
  (export RUNBACK_COOKIE=$K; rb_body "$@") 3<&- 2>&4
  c=$?
  rb_end
else
  { trap E=1 USR1; rb_self; rb_pump $I; exec >/dev/null; rb_watch; } <&3 | {
    trap S=1 TERM
    read -r B
    (export RUNBACK_COOKIE=$K; rb_body "$@") 3<&- 2>&4
    c=$?
    rb_end
  }
fi
"#;

/// The first line for the program of the master's own session: says what the far side can do, then waits for the
/// end of its input. `become_user` is tried with `sudo`.
pub(super) fn probe_line(key: &str, become_user: Option<&str>) -> String {
    format!("K={key} U={};eval {}\n", word(become_user.unwrap_or_default()), word(PROBE))
}

const PROBE: &str = r#"
u=$(id -un)
printf 'user=%s\n' "$u"
b=$(printf abcdef | { dd bs=3 count=1 iflag=fullblock >/dev/null 2>&1; cat; })
[ "$b" = def ] && echo blocks=1
if [ -n "$U" ] && [ "$U" != "$u" ]; then
  s=$(sudo -n -H -u "$U" -- true 2>&1 </dev/null) && s=ok
  printf 'sudo=%s\n' "$s" | tr '\n' ' '
  echo
fi
printf 'ready=%s\n' "$K"
while IFS= read -r r; do :; done
"#;

/// Runs a command: `$1` is its folder (empty = where the login is), the rest its words.
pub(super) const RUN: &str = r#"
unset CDPATH
[ -z "$1" ] || cd -- "$1" 2>/dev/null || { rb_say cwd; exit 126; }
shift
rb_env
case $1 in
*/*) [ -x "$1" ] && [ ! -d "$1" ] ;;
*) command -v -- "$1" >/dev/null ;;
esac || { rb_say missing; exit 127; }
exec "$@" 4>&-
"#;

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::io::{Read as _, Write as _};
    use std::path::Path;
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    /// The shells that the programs are written for, by how they are called.
    fn shells() -> [Vec<&'static str>; 3] {
        let all = [vec!["dash"], vec!["bash", "--posix"], vec!["busybox", "sh"]];
        for shell in &all {
            let there = Command::new(shell[0]).args(&shell[1..]).args(["-c", ":"]).output();
            assert!(there.is_ok_and(|o| o.status.success()), "{0} is needed: apt-get install {0}", shell[0]);
        }
        all
    }

    fn start(shell: &[&str], program: &Program<'_>, input: &[u8]) -> Child {
        use std::os::unix::process::CommandExt as _;
        let code = LOADER.strip_prefix("exec sh -c '").unwrap().strip_suffix('\'').unwrap();
        let mut child = Command::new(shell[0])
            .args(&shell[1..])
            .args(["-c", code])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let stdin = child.stdin.as_mut().unwrap();
        stdin.write_all(program.line().as_bytes()).unwrap();
        // A program that does not read all of its input may be gone by now.
        let _ = stdin.write_all(input);
        child
    }

    /// What came on stdout before its end, and on stderr.
    fn outcome(mut child: Child) -> (String, String) {
        // Standard input stays open until the program ended by itself.
        let mut out = Vec::new();
        let mut err = Vec::new();
        child.stdout.take().unwrap().read_to_end(&mut out).unwrap();
        child.stderr.take().unwrap().read_to_end(&mut err).unwrap();
        child.wait().unwrap();
        let out = out.strip_suffix(b"\x01rb:k1:end\n").unwrap();
        (String::from_utf8_lossy(out).into_owned(), String::from_utf8_lossy(&err).into_owned())
    }

    fn program<'a>(body: &'a str, args: &'a [&'a str]) -> Program<'a> {
        Program { key: "k1", body, args, env: &[], stdin: None, grace: 5, exact_blocks: true }
    }

    #[test]
    fn words_arrive_as_they_are() {
        let args = [
            "",
            "sh",
            "-c",
            "printf '[%s]' \"$0\" \"$@\"; echo err >&2; exit 3",
            "a b",
            "it's\n\n\"$x\" \\n `x` ⟦ü",
            "",
            "*",
        ];
        for shell in shells() {
            let mut p = program(RUN, &args);
            p.env = &[("A", "1\n2'"), ("B", "")];
            let (out, err) = outcome(start(&shell, &p, b""));
            assert_eq!(out, "[a b][it's\n\n\"$x\" \\n `x` ⟦ü][][*]", "{shell:?}");
            assert_eq!(err, "err\n\u{1}rb:k1:exit 3\n", "{shell:?}");
            let args = ["/", "sh", "-c", "pwd; printf '[%s]' \"$A\" \"$B\"; cat"];
            let p = Program { args: &args, ..p };
            let (out, err) = outcome(start(&shell, &p, b""));
            assert_eq!((out.as_str(), err.as_str()), ("/\n[1\n2'][]", "\u{1}rb:k1:exit 0\n"), "{shell:?}");
        }
    }

    #[test]
    fn input_comes_whole_and_ends() {
        let data: Vec<u8> = (0..200_003_u32).map(|i| (i % 251) as u8).collect();
        for shell in shells() {
            for (len, exact_blocks) in [(0, true), (1, true), (65_536, true), (200_003, true), (3000, false)] {
                let args = ["", "sh", "-c", "wc -c; cat >/dev/null; exit 4"];
                let p = Program { stdin: Some(len), exact_blocks, ..program(RUN, &args) };
                let (out, err) = outcome(start(&shell, &p, &data[..len]));
                assert_eq!((out.trim(), err.as_str()), (len.to_string().as_str(), "\u{1}rb:k1:exit 4\n"), "{shell:?}");
                // A command that does not read it.
                let p = Program { args: &["", "true"], ..p };
                assert_eq!(outcome(start(&shell, &p, &data[..len])).1, "\u{1}rb:k1:exit 0\n", "{shell:?} {len}");
            }
        }
    }

    #[test]
    fn what_cannot_start_is_said() {
        for shell in shells() {
            let (_, err) = outcome(start(&shell, &program(RUN, &["/no/such", "true"]), b""));
            assert!(err.starts_with("\u{1}rb:k1:cwd\n"), "{shell:?} {err}");
            for name in ["no-such-command", "./no", "/etc"] {
                let (_, err) = outcome(start(&shell, &program(RUN, &["", name]), b""));
                assert_eq!(err, "\u{1}rb:k1:missing\n\u{1}rb:k1:exit 127\n", "{shell:?}");
            }
        }
    }

    fn alive(cookie: &str) -> usize {
        let cookie = format!("RUNBACK_COOKIE={cookie}");
        let pids = std::fs::read_dir("/proc").unwrap().flatten();
        let environ = pids.filter_map(|p| std::fs::read(p.path().join("environ")).ok());
        environ.filter(|e| e.split(|b| *b == 0).any(|v| v == cookie.as_bytes())).count()
    }

    fn wait_for(what: &str, mut test: impl FnMut() -> bool) {
        let end = Instant::now() + Duration::from_secs(120);
        while !test() {
            assert!(Instant::now() < end, "{what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The end of standard input stops the command, what it started, what ignores TERM and what left its group.
    #[test]
    fn the_end_of_input_stops_the_whole_tree() {
        // Who says that it is up is who must hear TERM.
        let script = "trap '' TERM; (trap 'echo bye; exit' TERM; echo up; while :; do sleep 0.05; done) & \
                      setsid sleep 1000 & sleep 1001 & while :; do sleep 0.05; done";
        for (i, shell) in shells().into_iter().enumerate() {
            for stdin in [None, Some(3)] {
                let key = format!("stop-{}-{i}-{}", std::process::id(), stdin.is_some());
                let args = ["", "sh", "-c", script];
                let p = Program { key: &key, stdin, grace: 20, ..program(RUN, &args) };
                let mut child = start(&shell, &p, &b"abc"[..stdin.unwrap_or(0)]);
                let mut out = child.stdout.take().unwrap();
                let mut up = [0; 3];
                out.read_exact(&mut up).unwrap();
                wait_for("all of it is up", || alive(&key) >= 4);
                drop(child.stdin.take());
                let (mut rest, mut err) = (String::new(), String::new());
                out.read_to_string(&mut rest).unwrap();
                child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
                child.wait().unwrap();
                assert_eq!((rest.as_str(), alive(&key)), ("bye\n", 0), "{shell:?} {err}");
                assert!(err.contains(&format!("\u{1}rb:{key}:stopped 0\n")), "{shell:?} {err}");
            }
        }
    }

    /// The connection is gone, and what the program says about its end goes into a broken pipe.
    #[test]
    fn the_end_of_a_connection_stops_the_whole_tree_too() {
        let left = tempfile::tempdir().unwrap();
        let file = left.path().join("half").display().to_string();
        // What the shell of the body removes at its end takes a moment. It waits by `wait`: a signal that comes between a
        // shell's look for one and its start of a program is noticed after that program only.
        let body = "t=$1; trap 'sleep 0.3; rm \"$t\"' EXIT; trap 'exit 1' PIPE TERM; sleep 1003 & sleep 1004 & cat >\"$t\"; wait";
        for (i, shell) in shells().into_iter().enumerate() {
            for stdin in [None, Some(1 << 20)] {
                let key = format!("gone-{}-{i}-{}", std::process::id(), stdin.is_some());
                let args = [file.as_str()];
                let p = Program { key: &key, stdin, grace: 50, ..program(body, &args) };
                let mut child = start(&shell, &p, &b"abc"[..stdin.map_or(0, |_| 3)]);
                wait_for("all of it is up", || alive(&key) >= 2);
                drop((child.stdout.take(), child.stderr.take(), child.stdin.take()));
                wait_for("it has ended", || child.try_wait().is_ok_and(|ended| ended.is_some()));
                assert_eq!((alive(&key), Path::new(&file).exists()), (0, false), "{shell:?}");
            }
        }
    }

    #[test]
    fn a_command_that_ends_by_term_is_not_waited_for() {
        for shell in shells() {
            let key = format!("term-{}-{}", std::process::id(), shell[0]);
            let args = ["", "sleep", "1000"];
            let mut child = start(&shell, &Program { key: &key, grace: 3000, ..program(RUN, &args) }, b"");
            wait_for("it starts", || alive(&key) == 1);
            let started = Instant::now();
            drop(child.stdin.take());
            child.wait().unwrap();
            assert!(started.elapsed() < Duration::from_secs(60), "{shell:?}");
        }
    }

    #[test]
    fn a_daemon_that_is_left_behind_lives_on() {
        for shell in shells() {
            let args = ["", "sh", "-c", "sleep 1002 >/dev/null 2>&1 & echo $!"];
            let (out, err) = outcome(start(&shell, &program(RUN, &args), b""));
            assert_eq!(err, "\u{1}rb:k1:exit 0\n", "{shell:?}");
            let kill = Command::new("kill").arg(out.trim()).status().unwrap();
            assert!(kill.success(), "{shell:?}: the daemon {out} was there");
        }
    }
}
