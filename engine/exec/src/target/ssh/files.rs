//! Files of the far side, each operation one small POSIX-shell program. Paths are the far side's own, relative ones
//! count from the login folder. Errors name the path, say why, and have the kind that a step can act on, as for
//! local files.

use std::time::Duration;

use runback_core::target::{FileAttributes, FileKind, FileStat, Stream, TargetError, TargetErrorKind, Watch};

use super::master::Host;
use super::session::{Call, Reply};

type Did<T> = Result<T, TargetError>;

/// For operations that nobody watches. What they leave half done they remove within the grace.
struct Unwatched;

#[async_trait::async_trait]
impl Watch for Unwatched {
    fn output(&self, _: Stream, _: &[u8]) {}
    async fn stopped(&self) {
        std::future::pending::<()>().await;
    }
    fn kill_grace(&self) -> Duration {
        Duration::from_secs(2)
    }
}

/// A path that no program takes for an option.
fn plain(path: &str) -> Did<String> {
    if path.is_empty() || path.contains('\0') {
        return Err(TargetError::new(TargetErrorKind::NotFound, format!("{path:?} is no path")));
    }
    Ok(if path.starts_with('-') { format!("./{path}") } else { path.to_owned() })
}

/// Asks the far side. A program that fails says why on stderr, in English.
async fn ask(host: &Host, body: &str, args: &[&str]) -> Did<Reply> {
    send(host, body, args, None, 1 << 20).await
}

async fn send(host: &Host, body: &str, args: &[&str], stdin: Option<&[u8]>, keep: usize) -> Did<Reply> {
    let body = format!("export LC_ALL=C\n{body}");
    let name = args.first().map_or_else(|| "a query".to_owned(), |path| format!("work on {path}"));
    let call = Call { stdin, keep, ..Call::new(&name, &body, args) };
    host.call(&call, &Unwatched).await
}

/// Why an operation failed, from what the far side's tools said.
fn fail(host: &Host, doing: &str, path: &str, reply: &Reply) -> TargetError {
    use TargetErrorKind as Kind;
    let said = reply.stderr_text();
    // Shells and tools differ in capitals and in the ends of these.
    let lower = said.to_lowercase();
    let has = |text: &str| lower.contains(text);
    let (kind, why) = if has("the folder does not exist") {
        (Kind::NotFound, "its folder does not exist")
    } else if has("not a directory") {
        (Kind::WrongKind, "it, or a part of its path, is not a directory")
    } else if has("is a directory") {
        (Kind::WrongKind, "it is a directory")
    } else if has("directory not empty") {
        (Kind::WrongKind, "the directory is not empty")
    } else if has("not a regular file") {
        (Kind::WrongKind, "it is not a regular file")
    } else if has("it is a symlink") {
        (Kind::WrongKind, "it is a symlink, which has no mode of its own")
    } else if has("no such file") {
        (Kind::NotFound, "it does not exist")
    } else if has("read-only file system") {
        (Kind::PermissionDenied, "the file system is read-only")
    } else if has("permission denied") || has("not permitted") {
        (Kind::PermissionDenied, "permission denied")
    } else if has("no space left") {
        (Kind::NoSpace, "no space left on the file system")
    } else if has("quota") {
        (Kind::NoSpace, "the disk quota is used up")
    } else if has("file exists") {
        (Kind::Other, "it exists already")
    } else if has("the whole machine") {
        (Kind::Refused, "that is the whole machine")
    } else {
        (Kind::Other, "")
    };
    let last = said.lines().last().unwrap_or_default();
    let why = if why.is_empty() { last } else { why };
    let error = TargetError::new(kind, format!("cannot {doing} {path} on {}: {why}", host.label()));
    if kind == Kind::PermissionDenied {
        error.help(format!("the far side said: {last}; `become` may be missing"))
    } else {
        error
    }
}

/// Succeeds, or fails as `doing path`.
async fn done(host: &Host, doing: &str, path: &str, body: &str, args: &[&str]) -> Did<Reply> {
    let reply = ask(host, body, args).await?;
    if reply.code == 0 { Ok(reply) } else { Err(fail(host, doing, path, &reply)) }
}

/// Where `stat -c` (GNU, busybox) is missing, `ls -n` says the same in POSIX's words.
const STAT: &str = r#"
if [ ! -e "$1" ] && [ ! -L "$1" ]; then
  e=$(ls -ld "$1" 2>&1)
  case $e in *'No such file'*|*'Not a directory'*) echo none; exit 0 ;; esac
  printf '%s\n' "$e" >&2
  exit 1
fi
stat -c 'stat %f %u %g %s' "$1" 2>/dev/null || { printf 'ls '; ls -ldn "$1"; } || exit 1
[ ! -L "$1" ] || readlink "$1" 2>/dev/null || { e=$(ls -ldn "$1"); printf '%s\n' "${e#* -> }"; }
"#;

pub(super) async fn stat(host: &Host, path: &str) -> Did<Option<FileStat>> {
    let path = plain(path)?;
    let reply = done(host, "look at", &path, STAT, &[&path]).await?;
    let strange = || {
        let text = String::from_utf8_lossy(&reply.stdout).into_owned();
        TargetError::new(TargetErrorKind::Other, format!("cannot look at {path} on {}: it said {text:?}", host.label()))
    };
    let text = std::str::from_utf8(&reply.stdout).map_err(|_| strange())?;
    if text == "none\n" {
        return Ok(None);
    }
    let (line, link) = text.split_once('\n').ok_or_else(strange)?;
    let mut stat = parse_stat(line).ok_or_else(strange)?;
    if stat.kind == FileKind::Symlink {
        stat.link = Some(link.strip_suffix('\n').unwrap_or(link).to_owned());
    }
    Ok(Some(stat))
}

fn parse_stat(line: &str) -> Option<FileStat> {
    let mut fields = line.split_ascii_whitespace();
    match fields.next()? {
        "stat" => {
            let raw = u32::from_str_radix(fields.next()?, 16).ok()?;
            let kind = match raw & 0o170_000 {
                0o100_000 => FileKind::File,
                0o040_000 => FileKind::Dir,
                0o120_000 => FileKind::Symlink,
                _ => FileKind::Other,
            };
            let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            Some(FileStat { kind, mode: raw & 0o7777, uid, gid, size: fields.next()?.parse().ok()?, link: None })
        }
        "ls" => {
            let mode = fields.next()?;
            let kind = match mode.as_bytes().first()? {
                b'-' => FileKind::File,
                b'd' => FileKind::Dir,
                b'l' => FileKind::Symlink,
                _ => FileKind::Other,
            };
            let _links = fields.next()?;
            let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            // A device has two numbers here.
            let size = fields.next()?.parse().unwrap_or(0);
            Some(FileStat { kind, mode: parse_mode(mode.get(1..10)?), uid, gid, size, link: None })
        }
        _ => None,
    }
}

/// `rwxr-sr-t` as bits.
fn parse_mode(text: &str) -> u32 {
    let mut mode = 0;
    for (i, c) in text.bytes().enumerate() {
        let special = 0o4000 >> (i / 3);
        if matches!(c, b's' | b't' | b'S' | b'T') {
            mode |= special;
        }
        if !matches!(c, b'-' | b'S' | b'T') {
            mode |= 0o400 >> i;
        }
    }
    mode
}

pub(super) async fn read(host: &Host, path: &str, limit: u64) -> Did<Vec<u8>> {
    const BODY: &str = r#"
[ ! -d "$1" ] || { echo 'Is a directory' >&2; exit 1; }
[ ! -e "$1" ] || [ -f "$1" ] || { echo 'not a regular file' >&2; exit 1; }
s=$(wc -c <"$1") || exit 1
[ $s -le $2 ] || { echo $s; exit 9; }
exec cat "$1"
"#;
    let path = plain(path)?;
    let keep = usize::try_from(limit.saturating_add(1)).unwrap_or(usize::MAX);
    // Shells count in 63 bits.
    let reply = send(host, BODY, &[&path, &limit.min(i64::MAX as u64).to_string()], None, keep.max(64)).await?;
    let too_large = |size: &str| {
        let message =
            format!("cannot read {path} on {}: it has {size} bytes, and at most {limit} are read here", host.label());
        TargetError::new(TargetErrorKind::Other, message)
    };
    match reply.code {
        0 if reply.stdout.len() as u64 > limit => Err(too_large(&reply.stdout.len().to_string())),
        0 => Ok(reply.stdout),
        9 => Err(too_large(String::from_utf8_lossy(&reply.stdout).trim())),
        _ => Err(fail(host, "read", &path, &reply)),
    }
}

pub(super) async fn sha256(host: &Host, path: &str) -> Did<String> {
    const BODY: &str = r#"
[ ! -d "$1" ] || { echo 'Is a directory' >&2; exit 1; }
[ ! -e "$1" ] || [ -f "$1" ] || { echo 'not a regular file' >&2; exit 1; }
: <"$1" || exit 1
for c in sha256sum 'shasum -a 256' 'openssl dgst -sha256' 'sha256 -q'; do
  if command -v ${c%% *} >/dev/null; then $c <"$1"; exit; fi
done
echo 'there is no sha256sum, shasum, openssl or sha256' >&2
exit 1
"#;
    let path = plain(path)?;
    let reply = done(host, "read", &path, BODY, &[&path]).await?;
    let text = String::from_utf8_lossy(&reply.stdout).to_lowercase();
    let sum = text.split_ascii_whitespace().find(|w| w.len() == 64 && w.bytes().all(|b| b.is_ascii_hexdigit()));
    sum.map(str::to_owned).ok_or_else(|| fail(host, "hash", &path, &reply))
}

/// `$t`: a name beside `$p` that nobody else uses, removed at the end however that comes. `rb_place` makes the file
/// durable before it takes its name, and the name after. A shell that tells of a command that was killed may find its pipe
/// broken.
const PLACE: &str = r#"
case $p in */*) d=${p%/*}; d=${d:-/} ;; *) d=. ;; esac
[ -d "$d" ] || { echo 'the folder does not exist' >&2; exit 1; }
t=$d/.runback-$K
trap 'rm -f "$t"' EXIT
trap 'exit 1' HUP INT PIPE TERM
rb_place() {
  dd if=/dev/null of="$t" conv=notrunc,fsync 2>/dev/null || sync
  mv -f "$t" "$p" && { sync "$d" 2>/dev/null || sync; }
}
"#;

pub(super) async fn write(host: &Host, path: &str, bytes: &[u8], attributes: &FileAttributes) -> Did<()> {
    const BODY: &str = r#"
[ -z "$3" ] || umask 077
cat >"$t" || exit 1
s=$(wc -c <"$t")
[ $s -eq $2 ] || { echo 'the connection ended before all of it was there' >&2; exit 1; }
[ -z "$4" ] || chown "$4" "$t" || exit 1
[ -z "$3" ] || chmod "$3" "$t" || exit 1
rb_place
"#;
    let path = plain(path)?;
    let wrong = |why: &str| {
        let message = format!("cannot write {path} on {}: {why}", host.label());
        Err(TargetError::new(TargetErrorKind::WrongKind, message))
    };
    let replaced = match stat(host, &path).await? {
        Some(old) if old.kind == FileKind::Dir => return wrong("it is a directory"),
        Some(old) if old.kind == FileKind::Other => return wrong("it is not a regular file"),
        Some(old) if old.kind == FileKind::File => Some(old),
        _ => None,
    };
    let old = replaced.as_ref();
    let mode = attributes.mode.or(old.map(|o| o.mode)).map(|m| format!("{m:04o}")).unwrap_or_default();
    let owner = owner(attributes.uid.or(old.map(|o| o.uid)), attributes.gid.or(old.map(|o| o.gid)));
    let body = format!("p=$1\n{PLACE}{BODY}");
    let args = [path.as_str(), &bytes.len().to_string(), &mode, &owner];
    let reply = send(host, &body, &args, Some(bytes), 4096).await?;
    if reply.code == 0 { Ok(()) } else { Err(fail(host, "write", &path, &reply)) }
}

/// As `chown` takes it; empty = as it is.
fn owner(uid: Option<u32>, gid: Option<u32>) -> String {
    let uid = uid.map(|u| u.to_string()).unwrap_or_default();
    let gid = gid.map(|g| format!(":{g}")).unwrap_or_default();
    uid + &gid
}

pub(super) async fn set_attributes(host: &Host, path: &str, attributes: &FileAttributes) -> Did<()> {
    const BODY: &str = r#"
[ ! -L "$1" ] || { echo 'it is a symlink' >&2; exit 1; }
ls -ld "$1" >/dev/null || exit 1
[ -z "$3" ] || chown "$3" "$1" || exit 1
[ -z "$2" ] || chmod "$2" "$1"
"#;
    let path = plain(path)?;
    let mut mode = attributes.mode;
    let owner = owner(attributes.uid, attributes.gid);
    if mode.is_none() && !owner.is_empty() {
        // A change of owner takes the set-id bits of a file, which nobody asked for.
        mode = stat(host, &path).await?.filter(|s| s.kind == FileKind::File && s.mode & 0o6000 != 0).map(|s| s.mode);
    }
    let mode = mode.map(|m| format!("{m:04o}")).unwrap_or_default();
    done(host, "set the mode or owner of", &path, BODY, &[&path, &mode, &owner]).await.map(drop)
}

pub(super) async fn symlink(host: &Host, link: &str, points_to: &str) -> Did<()> {
    // `mv -T` (GNU, busybox) and `mv -h` (BSD) do not go into a directory that the old link points to.
    const BODY: &str = r#"
[ -L "$p" ] || [ ! -d "$p" ] || { echo 'Is a directory' >&2; exit 1; }
ln -s -- "$2" "$t" || exit 1
if mv -T -f "$t" "$p" 2>/dev/null || mv -h -f "$t" "$p" 2>/dev/null; then :
elif [ -d "$p" ]; then ln -sfn -- "$2" "$p"
else mv -f "$t" "$p"
fi || exit 1
sync "$d" 2>/dev/null || sync
"#;
    let link = plain(link)?;
    let body = format!("p=$1\n{PLACE}{BODY}");
    done(host, "make the link", &link, &body, &[&link, points_to]).await.map(drop)
}

pub(super) async fn create_dir(host: &Host, path: &str, mode: Option<u32>) -> Did<()> {
    const BODY: &str = r#"
if [ -n "$2" ]; then mkdir -m "$2" "$1"; else mkdir "$1"; fi
"#;
    let path = plain(path)?;
    let mode = mode.map(|m| format!("{m:04o}")).unwrap_or_default();
    done(host, "create the directory", &path, BODY, &[&path, &mode]).await.map(drop)
}

pub(super) async fn list(host: &Host, path: &str) -> Did<Vec<String>> {
    const BODY: &str = r#"
unset CDPATH
[ -d "$1" ] || { ls -ld "$1" >/dev/null && echo 'Not a directory' >&2; exit 1; }
cd "$1" || exit 1
[ -r . ] || { echo 'Permission denied' >&2; exit 1; }
for f in * .[!.]* ..?*; do
  [ -e "$f" ] || [ -L "$f" ] || continue
  printf '%s\0' "$f"
done
"#;
    let path = plain(path)?;
    let reply = send(host, BODY, &[&path], None, 64 << 20).await?;
    if reply.code != 0 {
        return Err(fail(host, "list", &path, &reply));
    }
    let mut names = Vec::new();
    for name in reply.stdout.split(|b| *b == 0).filter(|n| !n.is_empty()) {
        let name = String::from_utf8(name.to_vec());
        names.push(name.unwrap_or_else(|e| format!("{}/", String::from_utf8_lossy(e.as_bytes()))));
    }
    names.sort();
    Ok(names)
}

pub(super) async fn rename(host: &Host, from: &str, to: &str) -> Did<()> {
    const BODY: &str = r#"
[ -e "$1" ] || [ -L "$1" ] || { ls -ld "$1" >/dev/null; exit 1; }
case $2 in */*) d=${2%/*}; d=${d:-/} ;; *) d=. ;; esac
[ -d "$d" ] || { echo 'the folder does not exist' >&2; exit 1; }
if mv -T -f "$1" "$2" 2>/dev/null; then :
elif [ -d "$2" ] && [ ! -L "$2" ] && [ ! -d "$1" ]; then echo 'Is a directory' >&2; exit 1
elif [ -d "$2" ]; then mv -T -f "$1" "$2" || exit 1
else mv -f "$1" "$2" || exit 1
fi
sync "$d" 2>/dev/null || sync
"#;
    let (from, to) = (plain(from)?, plain(to)?);
    done(host, "rename", &format!("{from} to {to}"), BODY, &[&from, &to]).await.map(drop)
}

pub(super) async fn copy(host: &Host, from: &str, to: &str) -> Did<()> {
    const BODY: &str = r#"
[ ! -d "$1" ] || { echo 'Is a directory' >&2; exit 1; }
[ ! -e "$1" ] || [ -f "$1" ] || { echo 'not a regular file' >&2; exit 1; }
[ -L "$p" ] || [ ! -d "$p" ] || { echo 'Is a directory' >&2; exit 1; }
[ -L "$p" ] || ! [ "$1" -ef "$p" ] || exit 0
umask 077
cp -p "$1" "$t" && rb_place
"#;
    let (from, to) = (plain(from)?, plain(to)?);
    let body = format!("p=$2\n{PLACE}{BODY}");
    done(host, "copy", &format!("{from} to {to}"), &body, &[&from, &to]).await.map(drop)
}

pub(super) async fn remove_file(host: &Host, path: &str) -> Did<()> {
    const BODY: &str = r#"
[ -L "$1" ] || [ ! -d "$1" ] || { echo 'Is a directory' >&2; exit 1; }
rm -f "$1"
"#;
    let path = plain(path)?;
    done(host, "remove", &path, BODY, &[&path]).await.map(drop)
}

pub(super) async fn remove_dir(host: &Host, path: &str) -> Did<()> {
    const BODY: &str = r#"
[ -e "$1" ] || [ -L "$1" ] || exit 0
[ ! -L "$1" ] && [ -d "$1" ] || { echo 'Not a directory' >&2; exit 1; }
rmdir "$1"
"#;
    let path = plain(path)?;
    done(host, "remove", &path, BODY, &[&path]).await.map(drop)
}

pub(super) async fn remove_tree(host: &Host, path: &str) -> Did<()> {
    const BODY: &str = r#"
unset CDPATH
[ -e "$1" ] || [ -L "$1" ] || exit 0
[ ! -L "$1" ] && [ -d "$1" ] || { echo 'Not a directory' >&2; exit 1; }
[ "$(cd "$1" && pwd -P)" != / ] || { echo 'that is the whole machine' >&2; exit 1; }
rm -rf "$1"
"#;
    let path = plain(path)?;
    done(host, "remove", &path, BODY, &[&path]).await.map(drop)
}

pub(super) async fn free_space(host: &Host, path: &str) -> Did<u64> {
    const BODY: &str = r#"
p=$1
while [ ! -e "$p" ]; do
  case $p in */*) p=${p%/*}; p=${p:-/} ;; *) p=. ;; esac
done
df -kP "$p"
"#;
    let path = plain(path)?;
    let reply = done(host, "ask for the free space at", &path, BODY, &[&path]).await?;
    let text = String::from_utf8_lossy(&reply.stdout);
    // Names may hold spaces; the figure stands before the percentage.
    let fields: Vec<&str> = text.lines().last().unwrap_or_default().split_ascii_whitespace().collect();
    let percent = fields.iter().position(|f| f.ends_with('%'));
    let free = percent.and_then(|i| fields.get(i.checked_sub(1)?)?.parse::<u64>().ok());
    free.map(|kib| kib * 1024).ok_or_else(|| fail(host, "ask for the free space at", &path, &reply))
}

pub(super) async fn id(host: &Host, database: &str, what: &str, name: &str) -> Did<u32> {
    const BODY: &str = r#"
getent "$1" "$2" 2>/dev/null || cat "/etc/$1"
"#;
    if let Ok(id) = name.parse() {
        return Ok(id);
    }
    let reply = ask(host, BODY, &[database, name]).await?;
    let text = String::from_utf8_lossy(&reply.stdout);
    let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|l| l.split(':').nth(1)?.parse().ok()).ok_or_else(|| {
        let message = format!("there is no {what} {name} on {}", host.label());
        TargetError::new(TargetErrorKind::NotFound, message)
            .help(format!("see `getent {database}` there, or give a number"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_stat_are_read() {
        let file = |mode, size| FileStat { kind: FileKind::File, mode, uid: 0, gid: 5, size, link: None };
        assert_eq!(parse_stat("stat 81a4 0 5 12"), Some(file(0o644, 12)));
        assert_eq!(parse_stat("ls -rwsr-x--T 1 0 5 12 Jan  1 00:00 /x"), Some(file(0o5750, 12)));
        assert_eq!(parse_stat("ls brw-rw---- 1 0 6 8, 0 Jan 1 00:00 /dev/sda").map(|s| s.kind), Some(FileKind::Other));
        assert_eq!(parse_stat("ls drwxrwxrwt 1 0 0 4096 x").map(|s| (s.kind, s.mode)), Some((FileKind::Dir, 0o1777)));
        assert_eq!(parse_stat("stat: cannot"), None);
    }
}
