//! What a failure of `docker` or Compose means, and the way out. Texts as Docker 20.10.24 and 28.2.2 and docker-compose
//! 1.29.2 print them; those of Compose 2 are from its source (2.20.2).

use runback_core::step::{Class, StepError};
use runback_core::target::{Command, Exit};

/// Lines of stderr that are told.
const LINES: usize = 6;

/// What is known of a failure: texts that tell it, its class, and what to do.
struct Known {
    says: &'static [&'static str],
    class: Class,
    help: &'static str,
}

/// From the special to the general: the first that fits counts.
const KNOWN: &[Known] = &[
    Known {
        says: &["permission denied while trying to connect", "PermissionError(13"],
        class: Class::Permanent,
        help: "the user may not talk to the daemon: become root (`become: true` of the target), or join the group docker",
    },
    Known {
        says: &[
            "Cannot connect to the Docker daemon",
            "Couldn't connect to Docker daemon",
            "Error while fetching server API version",
            "error during connect",
        ],
        class: Class::Transient,
        help: "the daemon does not answer; look at `systemctl status docker` on the target, or at `docker_host`",
    },
    Known {
        says: &["port is already allocated", "address already in use", "bind: address"],
        class: Class::Conflict,
        help: "something else has that port; `ss -ltnp` and `docker ps` on the target show what",
    },
    Known {
        says: &["is already in use by container"],
        class: Class::Conflict,
        help: "another container has that name; remove or rename it",
    },
    Known {
        says: &[
            "toomanyrequests",
            "i/o timeout",
            "TLS handshake timeout",
            "connection refused",
            "connection reset",
            "no such host",
            "503 Service Unavailable",
            "502 Bad Gateway",
            "unexpected EOF",
            "Temporary failure in name resolution",
            "server misbehaving",
        ],
        class: Class::Transient,
        help: "the registry could not be reached from the daemon's machine; images that are already there are not pulled",
    },
    Known {
        says: &[
            "unauthorized",
            "401 Unauthorized",
            "no basic auth credentials",
            "denied: requested access",
            "incorrect username or password",
        ],
        class: Class::Permanent,
        help: "log in first with `uses: docker.login`, or correct the credentials",
    },
    Known {
        says: &["server gave HTTP response to HTTPS client"],
        class: Class::Permanent,
        help: "the registry speaks plain HTTP: list it under `insecure-registries` in /etc/docker/daemon.json",
    },
    Known {
        says: &[
            "manifest unknown",
            "repository does not exist",
            "No such image",
            "does not exist locally",
            "not found: manifest",
        ],
        class: Class::Permanent,
        help: "there is no such image; correct its name, or build, load or push it first",
    },
    Known {
        says: &["no space left on device"],
        class: Class::Permanent,
        help: "the daemon's disk is full; `docker system df` shows what takes it",
    },
    Known {
        says: &["no configuration file provided", "Can't find a suitable configuration file"],
        class: Class::Permanent,
        help: "there is no compose file in `dir`: correct that, or name the file with `files`",
    },
    Known {
        says: &[
            "Compose file",
            "yaml.scanner",
            "yaml.parser",
            "Unsupported config option",
            "Additional property",
            "additional properties",
            "validating ",
            "yaml: ",
        ],
        class: Class::Permanent,
        help: "correct the compose file; `config` of docker-compose, or of `docker compose`, checks it on the target",
    },
];

/// Some of what was asked about is not there; the rest is in stdout. A daemon that was not found is something else: every
/// line must name what is not there, and none a connection.
pub(crate) fn not_there(exit: &Exit) -> bool {
    const KINDS: [&str; 5] = ["container", "image", "network", "object", "volume"];
    let names_one = |line: &str| {
        let line = line.to_ascii_lowercase();
        let before =
            KINDS.iter().find_map(|kind| line.split_once(&format!("no such {kind}: "))).map(|(before, _)| before);
        before.is_some_and(|b| !["error during connect", "dial", "lookup"].iter().any(|of| b.contains(of)))
    };
    let stderr = exit.stderr_text();
    let mut errors = stderr.lines().filter(|l| !l.trim().is_empty()).peekable();
    errors.peek().is_some() && errors.all(names_one)
}

/// The error of a command that could not be started, or was stopped.
pub(crate) fn of_start(error: StepError, command: &str) -> StepError {
    let absent = error.message.contains("command not found");
    let error = error.command(command);
    if absent && error.help.is_none() {
        return error.help("install it on the target: `docker.io` and `docker-compose` on Debian");
    }
    error
}

/// The error of a command that ran and failed. `what` is what it was about.
pub(crate) fn of_exit(command: &Command, exit: &Exit, what: &str) -> StepError {
    let stderr = exit.stderr_text();
    let known = KNOWN.iter().find(|k| k.says.iter().any(|text| stderr.contains(text)));
    let class = known.map_or(Class::Permanent, |k| k.class);
    let said = told(&stderr);
    let message = if said.is_empty() { exit.describe() } else { said };
    let mut error = StepError::new(class, format!("{what}: {message}")).command(command.display());
    error.exit_code = exit.code;
    match known {
        Some(known) => error.help(known.help),
        None => error,
    }
}

/// What of stderr says why: without progress, Python's traces and what is said twice.
fn told(stderr: &str) -> String {
    let traced = stderr.contains("Traceback (most recent call last)");
    let mut lines: Vec<&str> = Vec::new();
    for line in stderr.lines().rev() {
        // Version 2 of Compose tells its events in lines that begin with one blank, and nothing else.
        let event = line.starts_with(' ') && !line.starts_with("  ");
        let line = line.trim().trim_start_matches("ERROR: ");
        let progress = line.ends_with("...") || line.contains("... done") || line.contains("... error");
        let advice =
            line.starts_with("Run 'docker") || line.starts_with("See 'docker") || line.starts_with("DEPRECATED");
        if line.is_empty() || event || progress || advice {
            continue;
        }
        let cause = |l: &str| {
            l.split_once("Cannot start service").map(|(_, why)| why.split_once(':').map(|(_, w)| w.to_owned()))
        };
        if lines.iter().any(|l| *l == line || (cause(l).is_some() && cause(l) == cause(line))) {
            continue;
        }
        lines.push(line);
        if traced || lines.len() == LINES {
            break;
        }
    }
    lines.reverse();
    lines.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(stderr: &str) -> StepError {
        let exit = Exit { code: Some(1), stderr_tail: stderr.as_bytes().to_vec(), ..Exit::default() };
        of_exit(&Command::new(["docker-compose", "up"]), &exit, "project app")
    }

    #[test]
    fn known_failures_have_a_class_and_a_way_out() {
        let cases = [
            (
                "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
                Class::Transient,
                "does not answer",
            ),
            (
                "Traceback (most recent call last):\n  File \"x\", line 1\nValueError: x\ndocker.errors.DockerException: Error while fetching server API version: ('Connection aborted.', FileNotFoundError(2, 'No such file or directory'))",
                Class::Transient,
                "does not answer",
            ),
            (
                "Creating port_a_1 ... \nHost is already in use by another container\nCreating port_a_1 ... error\n\nERROR: for port_a_1  Cannot start service a: driver failed programming external connectivity on endpoint port_a_1 (8f21): Bind for 0.0.0.0:18070 failed: port is already allocated\n\nERROR: for a  Cannot start service a: driver failed programming external connectivity on endpoint port_a_1 (8f21): Bind for 0.0.0.0:18070 failed: port is already allocated\nEncountered errors while bringing up the project.",
                Class::Conflict,
                "has that port",
            ),
            (
                "Pulling a (nosuch/image:1)...\nGet \"https://registry.example.com/v2/\": dial tcp: lookup registry.example.com on 10.0.0.53:53: no such host",
                Class::Transient,
                "could not be reached",
            ),
            (
                "Error response from daemon: manifest for x:1 not found: manifest unknown",
                Class::Permanent,
                "no such image",
            ),
            ("Error response from daemon: No such image: nosuch:latest", Class::Permanent, "no such image"),
            (
                "The Compose file './bad.yml' is invalid because:\nUnsupported config option for services.a: 'prots'",
                Class::Permanent,
                "correct the compose file",
            ),
            ("something new", Class::Permanent, ""),
        ];
        for (stderr, class, help) in cases {
            let error = error(stderr);
            assert_eq!(error.class, class, "{stderr}");
            assert!(error.help.unwrap_or_default().contains(help), "{stderr}");
        }
    }

    #[test]
    fn what_is_told_is_the_reason_and_its_line() {
        let bad = "yaml.parser.ParserError: while parsing a block mapping\n  in \"./bad.yml\", line 3, column 3\nexpected <block end>, but found '<block mapping start>'\n  in \"./bad.yml\", line 5, column 4\n";
        assert!(error(bad).message.ends_with("in \"./bad.yml\", line 5, column 4"), "{}", error(bad));
        let port = error(
            "Creating a ... error\nERROR: for p_a_1  Cannot start service a: Bind failed\nERROR: for a  Cannot start service a: Bind failed\n",
        );
        assert_eq!(port.message, "project app: for a  Cannot start service a: Bind failed");
        let trace = error(
            "Traceback (most recent call last):\n  File \"x\"\nFileNotFoundError: [Errno 2] No such file or directory: './c.yml'\n",
        );
        assert_eq!(trace.message, "project app: FileNotFoundError: [Errno 2] No such file or directory: './c.yml'");
        let events = error(
            " Network app_default  Creating\n Network app_default  Created\n Container app-a-1  Creating\n Container app-a-1  Created\n Container app-a-1  Starting\nError response from daemon: driver failed programming external connectivity on endpoint app-a-1 (8f21): Bind for 0.0.0.0:8070 failed: port is already allocated\n",
        );
        assert_eq!(events.class, Class::Conflict);
        assert!(events.message.starts_with("project app: Error response from daemon: driver failed"), "{events}");
    }
}
