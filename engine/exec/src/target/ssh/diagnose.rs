//! What ssh says when it does not get in, as an error that a person can act on. Pure text; seen with OpenSSH 9.2.

use runback_core::target::{TargetError, TargetErrorKind};

/// `label` is the target as in the playbook's terms (`user@host:port`).
pub(super) fn diagnose(label: &str, stderr: &str) -> TargetError {
    let has = |text: &str| stderr.contains(text);
    let line = last_line(stderr);
    let refused = |message: String| TargetError::new(TargetErrorKind::Refused, message);
    if has("REMOTE HOST IDENTIFICATION HAS CHANGED") || has("Host key for ") && has("has changed") {
        let key = offender(stderr);
        return refused(format!("{label}: its host key has changed since it was last known")).help(format!(
            "somebody may be in between, or the host was reinstalled. Ask who runs it for the new fingerprint; if it \
                 is right, forget the old key by `ssh-keygen -R {key}` and connect once with ssh"
        ));
    }
    if has("Host key verification failed") || has("host key is known for") {
        return refused(format!("{label}: its host key is not known here"))
            .help("connect once with ssh from this machine, compare the fingerprint, and accept it");
    }
    if has("Permission denied (") || has("Too many authentication failures") {
        let help = if has("UNPROTECTED PRIVATE KEY FILE") {
            "the private key can be read by others, so ssh does not use it: chmod 600 it"
        } else {
            "runback never types a password: put the key into an agent or name it as `identity`, and its public half \
             into authorized_keys there; `ssh -v` shows what is offered"
        };
        return refused(format!("{label} refuses the key: {line}")).help(help);
    }
    if has("Bad configuration option") || has("Bad owner or permissions") || has("terminating, ") || has("keyword") {
        return TargetError::new(
            TargetErrorKind::Other,
            format!("{label}: ssh does not accept its configuration: {line}"),
        )
        .help("look at `options` of the target, and at ~/.ssh/config");
    }
    let why = if line.is_empty() { "ssh ended without a word" } else { line };
    TargetError::new(TargetErrorKind::Connection, format!("{label} cannot be reached: {why}"))
        .help("check that the host is up and that its name and port are right")
}

/// The user may not become another one.
pub(super) fn sudo(label: &str, user: &str, said: &str) -> TargetError {
    let message = format!("{label}: sudo does not let us become {user}: {}", said.trim());
    let help = if said.contains("not found") {
        "install sudo there, or log in as that user"
    } else {
        "allow it without a password: a line such as `LOGIN ALL=(ALL) NOPASSWD: ALL` by visudo"
    };
    TargetError::new(TargetErrorKind::Refused, message).help(help)
}

fn last_line(stderr: &str) -> &str {
    stderr.lines().rev().map(str::trim).find(|l| !l.is_empty()).unwrap_or_default()
}

/// The name under which the key is kept: `[host]:port` as in "Host key for [127.0.0.1]:2222 has changed".
fn offender(stderr: &str) -> String {
    let name = stderr.lines().find_map(|l| l.split_once("Host key for ")?.1.split_once(" has changed"));
    let name = name.map_or("HOST", |(name, _)| name);
    runback_core::target::quote(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_kinds_of_no() {
        let changed = "@@@@\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n@@@@\nOffending ED25519 key in /k:1\n\
                       Host key for [127.0.0.1]:2222 has changed and you have requested strict checking.\n\
                       Host key verification failed.\n";
        for (stderr, kind, words) in [
            ("ssh: connect to host h port 22: Connection refused\n", TargetErrorKind::Connection, "cannot be reached"),
            ("ssh: Could not resolve hostname h: Name or service not known\n", TargetErrorKind::Connection, "resolve"),
            ("", TargetErrorKind::Connection, "without a word"),
            ("u@h: Permission denied (publickey,password).\n", TargetErrorKind::Refused, "refuses the key"),
            (changed, TargetErrorKind::Refused, "has changed"),
            (
                "No ED25519 host key is known for h and you have requested strict checking.\nHost key verification failed.",
                TargetErrorKind::Refused,
                "not known here",
            ),
            ("command-line: line 0: Bad configuration option: x\n", TargetErrorKind::Other, "configuration"),
        ] {
            let error = diagnose("u@h", stderr);
            assert_eq!(error.kind, kind, "{stderr}");
            assert!(error.message.contains(words) && error.help.is_some(), "{}", error.message);
        }
        let help = diagnose("u@h", changed).help;
        assert!(help.is_some_and(|h| h.contains("ssh-keygen -R '[127.0.0.1]:2222'")));
    }
}
