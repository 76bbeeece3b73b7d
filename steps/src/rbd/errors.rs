//! What a failure of `rbd` or `ceph` means, and the way out. Their exit codes are errno values, and 2 alone means four
//! different things: only stderr tells them apart. Texts as Ceph 16.2.15 prints them.

use runback_core::step::{Class, StepError};
use runback_core::target::{Command, Exit};

use super::cli::Connection;

/// Why a command failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// No such image.
    Image,
    Pool,
    Namespace,
    Snapshot,
    /// The lock is not there, or not as it was named.
    Lock,
    /// The cluster does not know the user, or the key is wrong.
    Login,
    /// The user may not do that.
    Permission,
    Config,
    Keyring,
    /// Held, busy or protected.
    Busy,
    Exists,
    Malformed,
    /// A snapshot or write needs the image's exclusive lock, and somebody has a lock on it.
    ReadOnly,
    /// We are fenced ourselves.
    Fenced,
    /// The monitors did not answer.
    NoMonitor,
    /// Connected, and then no answer.
    NoAnswer,
    Other,
}

pub(crate) fn why(exit: &Exit) -> Why {
    let stderr = exit.stderr_text();
    let says = |text: &str| stderr.contains(text);
    if says("unable to open config file") || says("error parsing file") {
        return Why::Config;
    }
    if says("no keyring found") || says("unable to find a keyring") {
        return Why::Keyring;
    }
    match exit.code {
        Some(1) if says("Operation not permitted") => Why::Permission,
        // `ceph` has no exit code for it.
        Some(1) if stderr.lines().any(|l| l.trim() == "timed out") || says("error connecting to the cluster") => {
            Why::NoMonitor
        }
        Some(2) if says("error opening pool") || says("unrecognized pool") => Why::Pool,
        Some(2) if says("namespace '") && says("does not exist") => Why::Namespace,
        Some(2) if says("error opening image") => Why::Image,
        Some(2) if says("releasing lock failed") => Why::Lock,
        Some(2) if says("snap") || says("rollback failed") => Why::Snapshot,
        Some(13) if says("couldn't connect to the cluster") || says("error connecting to the cluster") => Why::Login,
        Some(13) => Why::Permission,
        Some(16) => Why::Busy,
        Some(17) => Why::Exists,
        Some(22) => Why::Malformed,
        Some(30) => Why::ReadOnly,
        Some(108) => Why::Fenced,
        Some(110) if says("couldn't connect to the cluster") || says("error connecting to the cluster") => {
            Why::NoMonitor
        }
        Some(110) => Why::NoAnswer,
        _ => Why::Other,
    }
}

/// The error of a command that ran and failed. `what` is the image or the cluster that it was about.
pub(crate) fn of_exit(command: &Command, exit: &Exit, what: &str, connection: &Connection) -> StepError {
    let user = if connection.id.is_empty() { "client.admin".to_owned() } else { format!("client.{}", connection.id) };
    let limit = connection.timeout;
    let (class, message, help) = match why(exit) {
        Why::Image => {
            (Class::Permanent, "there is no such image".to_owned(), "see `rbd ls -l` for the pool".to_owned())
        }
        Why::Pool => (Class::Permanent, "there is no such pool".to_owned(), "see `ceph osd pool ls`".to_owned()),
        Why::Namespace => (
            Class::Permanent,
            "there is no such namespace".to_owned(),
            "see `rbd namespace ls`; leave `namespace` out for the pool's own".to_owned(),
        ),
        Why::Snapshot => {
            (Class::Permanent, "there is no such snapshot".to_owned(), "see `rbd snap ls --all`".to_owned())
        }
        Why::Lock => (
            Class::Conflict,
            "the lock is not there as it was named".to_owned(),
            "look again: somebody else may have removed or taken it meanwhile".to_owned(),
        ),
        Why::Login => (
            Class::Permanent,
            format!("the cluster refuses {user}"),
            "check `id` and `keyring`: the user must be known to this cluster, and the key be its own".to_owned(),
        ),
        Why::Permission => (
            Class::Permanent,
            format!("{user} may not do that"),
            format!(
                "see `ceph auth get {user}`; images want mon 'profile rbd' and osd 'profile rbd' (with mon 'allow r' \
                 locks cannot be broken); the blocklist wants mon 'allow r, allow command \"osd blocklist\"' besides"
            ),
        ),
        Why::Config => (
            Class::Permanent,
            "the configuration file of the cluster cannot be read".to_owned(),
            "check `conf` (or `cluster`), on the step's target".to_owned(),
        ),
        Why::Keyring => (
            Class::Permanent,
            format!("no keyring of {user} was found"),
            "check `keyring` and `id`, on the step's target".to_owned(),
        ),
        Why::Busy => (
            Class::Conflict,
            "it is held or protected".to_owned(),
            "see `rbd lock ls`, `rbd status` and `rbd snap ls`".to_owned(),
        ),
        Why::Exists => {
            (Class::Conflict, "that name is taken".to_owned(), "choose another, or remove that one".to_owned())
        }
        Why::Malformed => {
            (Class::Permanent, "the cluster does not understand an argument".to_owned(), "see its message".to_owned())
        }
        Why::ReadOnly => (
            Class::Conflict,
            "the image cannot be changed while somebody holds a lock on it".to_owned(),
            "the image has the exclusive-lock feature, so every change and snapshot wants its lock: remove the dead \
             lock first, then take the snapshot"
                .to_owned(),
        ),
        Why::Fenced => (
            Class::Permanent,
            "the cluster has fenced the machine that asked".to_owned(),
            "its address is on the blocklist: see `ceph osd blocklist ls`, and run this from another machine"
                .to_owned(),
        ),
        Why::NoMonitor => (
            Class::Timeout,
            format!("no monitor answered within {limit}"),
            "check that the monitors named in `conf` run and can be reached from the step's target".to_owned(),
        ),
        Why::NoAnswer => (
            Class::Timeout,
            format!("the cluster did not answer within {limit}"),
            "see `ceph health detail`: OSDs down or placement groups inactive?".to_owned(),
        ),
        Why::Other => return StepError::from_exit(Class::Permanent, command, exit),
    };
    let stderr = exit.stderr_text();
    let said = stderr.lines().rev().map(str::trim).find(|l| !l.is_empty());
    let message = match said {
        Some(line) => format!("{what}: {message} ({line})"),
        None => format!("{what}: {message}"),
    };
    StepError { exit_code: exit.code, ..StepError::new(class, message).help(help).command(command.display()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::period::Period;

    fn exit(code: i32, stderr: &str) -> Exit {
        Exit { code: Some(code), stderr_tail: stderr.as_bytes().to_vec(), ..Exit::default() }
    }

    /// Recorded on Ceph 16.2.15.
    const RECORDED: &[(Why, i32, &str)] = &[
        (Why::Image, 2, "rbd: error opening image nope: (2) No such file or directory"),
        (Why::Pool, 2, "rbd: error opening pool 'nopool': (2) No such file or directory"),
        (Why::Namespace, 2, "rbd: namespace 'nons' does not exist."),
        (Why::Lock, 2, "rbd: releasing lock failed: (2) No such file or directory"),
        (Why::Snapshot, 2, "rbd: failed to remove snapshot: (2) No such file or directory"),
        (
            Why::Snapshot,
            2,
            "-1 librbd::Operations: No such snapshot found.\n\nrbd: rollback failed: (2) No such file or directory",
        ),
        (Why::Snapshot, 2, "error setting snapshot context: (2) No such file or directory"),
        (
            Why::Permission,
            13,
            "-1 librbd: unable to blocklist client: (13) Permission denied\n\nrbd: releasing lock failed: (13) Permission denied",
        ),
        (Why::Permission, 13, "Error EACCES: access denied"),
        (Why::Permission, 1, "rbd: error opening image img: (1) Operation not permitted"),
        (
            Why::Login,
            13,
            "-1 monclient(hunting): handle_auth_bad_method server allowed_methods [2] but i only support [2,1]\n\nrbd: couldn't connect to the cluster!",
        ),
        (Why::Login, 13, "[errno 13] RADOS permission denied (error connecting to the cluster)"),
        (
            Why::Keyring,
            13,
            "-1 auth: unable to find a keyring on /k: (2) No such file or directory\nrbd: couldn't connect to the cluster!",
        ),
        (Why::Config, 1, "global_init: unable to open config file from search list /nonexist"),
        (Why::Busy, 16, "rbd: lock is already held by someone else"),
        (Why::Busy, 16, "rbd: snapshot 's1' is protected from removal."),
        (Why::Exists, 17, "rbd: failed to create snapshot: (17) File exists"),
        (Why::Malformed, 22, "Error EINVAL: invalid command"),
        (Why::ReadOnly, 30, "rbd: failed to create snapshot: (30) Read-only file system"),
        (Why::Fenced, 108, "rbd: error opening image q: (108) Cannot send after transport endpoint shutdown"),
        (
            Why::NoMonitor,
            110,
            "monclient(hunting): authenticate timed out after 3\n\nrbd: couldn't connect to the cluster!",
        ),
        (Why::NoMonitor, 1, "timed out"),
        (Why::NoAnswer, 110, "rbd: error opening image q: (110) Connection timed out"),
        (Why::Other, 1, "rbd: error parsing command"),
        (Why::Other, 2, "what?"),
    ];

    #[test]
    fn one_exit_code_means_many_things() {
        for (wanted, code, stderr) in RECORDED {
            assert_eq!(why(&exit(*code, stderr)), *wanted, "{code}: {stderr}");
        }
    }

    #[test]
    fn each_says_what_and_what_to_do() {
        let connection = Connection {
            conf: String::new(),
            id: "ops".to_owned(),
            keyring: String::new(),
            cluster: String::new(),
            timeout: Period::seconds(3),
        };
        let command = Command::new(["rbd", "info"]);
        for (wanted, code, stderr) in RECORDED.iter().filter(|(wanted, ..)| *wanted != Why::Other) {
            let error = of_exit(&command, &exit(*code, stderr), "kube/img", &connection);
            assert!(error.message.starts_with("kube/img: "), "{error}");
            assert!(error.help.is_some_and(|h| !h.is_empty()), "{wanted:?}");
            assert_eq!((error.exit_code, error.command.as_deref()), (Some(*code), Some("rbd info")));
            let waited = matches!(wanted, Why::NoMonitor | Why::NoAnswer);
            assert_eq!(error.class == Class::Timeout, waited, "{wanted:?}");
        }
        let error = of_exit(&command, &exit(110, "rbd: couldn't connect to the cluster!"), "kube/img", &connection);
        assert_eq!(error.message, "kube/img: no monitor answered within 3s (rbd: couldn't connect to the cluster!)");
    }
}
